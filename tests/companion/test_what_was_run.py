"""What was run: counts beside what `cpadapt status` says, and costs from the records' own lines."""

import tomllib
from pathlib import Path

import pytest
from by_hand import read

from companion import quantities, what_was_run
from cpadapt.progress import status
from cpadapt.study import load_study

ROOT = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.parametrize("name", ["smollm2-seeds", "size-tasks", "paper"])
def test_progress_is_the_sum_over_the_cells_of_status(name: str) -> None:
    """A study that is complete, one that is not, and one of which there is nothing."""
    cells = status(load_study(ROOT / "studies" / f"{name}.toml"), ROOT / "results" / name)
    shown = what_was_run.progress().query(f"study == '{name}'")
    tasks = list(dict.fromkeys(cell.task for cell in cells))
    for part in ("done", "missing", "diverged"):
        assert shown[part].tolist() == [sum(getattr(c, part) for c in cells if c.task == task) for task in tasks]
    assert (shown["done"] + shown["missing"] == shown["runs"]).all()


@pytest.mark.slow
def test_counts_by_hand() -> None:
    files = sorted((ROOT / "studies").glob("*.toml"))
    lines = {path.stem: read(path.stem) for path in files}
    assert quantities.value("what_was_run.studies").value == len(files)
    assert quantities.value("what_was_run.done").value == sum(map(len, lines.values()))
    # Five cells, a hundred seeds, two tasks.
    shown = what_was_run.progress().query("study == 'smollm2-seeds'")
    assert shown[["task", "runs", "done"]].to_numpy().tolist() == [["SST-2", 500, 500], ["RTE", 500, 500]]
    assert len(lines["smollm2-seeds"]) == 1000
    described = what_was_run.progress_chart().to_dict()["description"]
    assert ["0 of 171 of paper" in described, "smollm2-seeds" in described] == [True, False]


@pytest.mark.slow
def test_costs_by_hand() -> None:
    """All runs of a bank have its times, and no two banks have the same ones."""
    (row,) = what_was_run.cost_table().query("study == 'smollm2-seeds'").to_dict("records")
    there = read("smollm2-seeds")
    costs = [line["cost"] for line in there]
    banks = {(cost["train_seconds"], cost["evaluation_seconds"], cost["bank_runs"]) for cost in costs}
    assert sum(runs for *_, runs in banks) == row["runs"] == len(there)
    assert row["time"] == f"{sum(train + judged for train, judged, _ in banks) / 60:.1f} min"
    assert row["peak memory, GB"] == f"{max(cost['peak_memory_bytes'] for cost in costs) / 1e9:.1f}"
    days = sorted({line["provenance"]["finished"][:10] for line in there})
    assert row["finished"] == f"{days[0]} to {days[-1]}"
    assert set(row["commit"].split(", ")) == {line["provenance"]["git_commit"][:8] for line in there}


def test_every_study_says_what_it_is_for() -> None:
    said = {row["study"]: row["what it is for"] for row in what_was_run.question_table().to_dict("records")}
    files = [tomllib.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "studies").glob("*.toml")]
    assert said == {study["name"]: study["about"] for study in files}
