"""The committed records: valid, current and complete."""

import re
from pathlib import Path

import pytest

from cpadapt import load_projections, load_study, read_records
from cpadapt.analysis.frontier import frontier
from cpadapt.inputs.tasks.examples import load_task
from cpadapt.inputs.tasks.specs import TASKS
from cpadapt.progress import status
from cpadapt.records.record import Record
from cpadapt.records.store import load_records, read_lines, record_files

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
FOLDERS = sorted({path.parent for path in (ROOT / "results").rglob("*.jsonl.xz")})


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return load_records(ROOT / "results")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_study_measured_a_task_whole_or_not_at_all(folder: Path) -> None:
    study = load_study(ROOT / "studies" / f"{folder.name}.toml")
    cells = status(study, folder)
    assert sum(cell.done for cell in cells) == len(load_records(folder)) > 0
    if not study.draws:
        measured = {cell.task for cell in cells if cell.done}
        assert sum(cell.missing for cell in cells if cell.task in measured) == 0
    # Of a study over draws some may be measured before the others, each whole on all of a task's cells.
    known = {record.config.config_id for record in load_records(folder)}
    asked = [config for _, config in study.runs(load_projections(study.backbone, study.target_modules))]
    for place in {(config.task, config.data_seed) for config in asked}:
        assert len({config.config_id in known for config in asked if (config.task, config.data_seed) == place}) == 1


@pytest.mark.long
def test_every_record_says_from_which_clean_tree_it_came(records: list[Record]) -> None:
    for record in records:
        assert record.provenance.git_clean is True
        assert len(record.provenance.git_commit) == 40
        assert record.config_id == record.config.config_id
        assert record.id == record.config.run_id(record.data_fingerprint, record.weights.identity)
        for outcome in (record.outcome, record.rest, record.dev):
            assert outcome is None or outcome.correct == sum(outcome.right_by_row.values())
        if record.dev is not None:
            assert record.dev.correct == record.best.dev_correct


def test_runs_of_one_task_were_judged_on_the_same_rows(records: list[Record]) -> None:
    judged: dict[tuple[str, str], set[str]] = {}
    for record in records:
        if record.config.protocol.eval_cap != 0:
            judged.setdefault((record.study, record.config.task), set()).add(record.outcome.drawn)
    assert {len(drawn) for drawn in judged.values()} == {1}


@pytest.mark.long
def test_records_carry_no_text() -> None:
    """Everything in a record is a number, a hash, a bitmap or a name, of which a device's is the longest."""
    for file in record_files(ROOT / "results"):
        texts = re.findall(r'"((?:[^"\\]|\\.)*)"', "".join(read_lines(file)))
        assert max(len(text.split()) for text in texts) <= 4


@pytest.mark.parametrize("task", [name for name, spec in TASKS.items() if spec.grammar])
def test_generated_tasks_are_hard_for_a_head_and_adapters_help(task: str) -> None:
    table = read_records(ROOT / "results" / "generated-tasks")
    best = frontier(table[table["task"] == task])
    head = best.loc[best["label"] == "head", "eval_mean"].item()
    assert head <= 0.90
    for family in ("lora", "cp"):
        assert best.loc[best["label"] == family, "eval_mean"].max() >= head + 0.05


@pytest.mark.long
def test_the_data_are_what_they_were(records: list[Record]) -> None:
    """Public texts too, where they are at hand."""
    measured = set()
    for record in records:
        drawn = (record.config.task, record.config.protocol.caps, record.config.data_seed)
        measured.add((*drawn, record.data_fingerprint))
    at_hand = {place for place in measured if TASKS[place[0]].grammar or DATA.is_dir()}
    assert len(at_hand) >= (70 if DATA.is_dir() else 4)
    for task, caps, data_seed, fingerprint in sorted(at_hand, key=str):
        data_dir = None if TASKS[task].grammar else DATA
        assert load_task(TASKS[task], data_dir=data_dir, caps=caps, data_seed=data_seed).fingerprint == fingerprint


def test_the_queue_says_what_is_done() -> None:
    """Every study of the queue, in as many runs as its file asks for or its draws are; minutes from the records."""
    text = (ROOT / "studies" / "README.md").read_text()
    rows = re.findall(r"^\| `([\w.-]+)` \| (.+?) \| (\d+) \| (~?)([\d.]+) \| (.*?) ?\|$", text, re.M)
    assert len(rows) == text.count("\n| `")
    for name in {row[0] for row in rows}:
        parts = [row for row in rows if row[0] == name]
        file = ROOT / "studies" / f"{name}.toml"
        if not file.exists():
            assert all("its file waits" in state for *_, state in parts)
            continue
        cells = status(load_study(file), ROOT / "results" / name)
        assert sum(int(runs) for _, _, runs, *_ in parts) == sum(cell.done + cell.missing for cell in cells)
        done = [row for row in parts if row[5] == "done"]
        assert sum(int(runs) for _, _, runs, *_ in done) == sum(cell.done for cell in cells)
        for *_, guessed, minutes, _ in done:
            known = [record.cost for record in load_records(ROOT / "results" / name)]
            spent = sum((cost.train_seconds + cost.evaluation_seconds) / cost.bank_runs for cost in known)
            assert (guessed, float(minutes)) == ("", pytest.approx(spent / 60, abs=0.05))
