"""What was run: every count again, from the studies' own files and the records' own lines."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from by_hand import read

from cpadapt.inputs.tasks.specs import TASKS

ROOT = Path(__file__).parents[2]
STUDIES = [tomllib.loads(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "studies").glob("*.toml"))]
Chapters = Callable[[str], Any]


@pytest.fixture(scope="module")
def page(chapter: Chapters) -> Any:
    return chapter("what_was_run")


def asked(study: dict[str, Any]) -> int:
    """Runs of one task; all ladders here are given by sizes and pairs."""
    ladder = study["ladder"]
    assert set(ladder) <= {"head", "sizes", "pairs"}
    adapters = {(label, size) for label, sizes in ladder.get("sizes", {}).items() for size in sizes}
    adapters |= {place for pair in ladder.get("pairs", []) for place in pair.items()}
    runs = int(ladder.get("head", False))
    for label, size in adapters:
        plan = study["families"][label]
        settings = [s for s in plan.get("settings", []) if size in s.get("sizes", [size])]
        runs += len(plan.get("learning_rates", [])) + len(settings)
    if "draws" in study:
        return runs * count(study["draws"])
    seeds, data_seeds, orders = (study.get(name, [0]) for name in ("seeds", "data_seeds", "order_seeds"))
    return runs * count(seeds) * count(data_seeds) * count(orders)


def count(seeds: list[int] | str) -> int:
    """A list, or a range such as 0-9."""
    if isinstance(seeds, str):
        first, last = map(int, seeds.split("-"))
        return last - first + 1
    return len(seeds)


def test_done_and_missing(page: Any) -> None:
    shown = {(row["study"], row["task"]): row for row in page.rows("missing")}
    total, absent = {"studies": 0, "done": 0, "runs": 0}, {}
    for study in STUDIES:
        of_study = read(study["name"])
        missing = 0
        for task in study["tasks"]:
            there = [line for line in of_study if line["config"]["task"] == task]
            row = shown.pop((study["name"], TASKS[task].title))
            assert row["runs"] == str(asked(study))
            assert row["done"] == str(len(there))
            assert row["missing"] == str(asked(study) - len(there))
            assert row["diverged"] == str(sum(line["diverged_at"] is not None for line in there))
            missing += asked(study) - len(there)
        total["studies"] += not missing
        total["done"] += len(of_study)
        total["runs"] += asked(study) * len(study["tasks"])
        if missing:
            absent[study["name"]] = f"{missing:,}"
    assert not shown
    told = re.findall(r"([\d,]+) runs of ([\w.-]*\w)", page.glued["answer_missing"])
    assert {name: count for count, name in told} == absent
    said = page.glued["answer_done"]
    assert said == (
        f"Of {len(STUDIES)} studies, {total['studies']} are complete; {total['done']:,} of {total['runs']:,} runs are"
        " on record."
    )


def test_costs(page: Any) -> None:
    shown = {(row["study"], row["device"]): row for row in page.rows("peak memory, GB")}
    for study in STUDIES:
        of_study = read(study["name"])
        for device in {line["provenance"]["device"] for line in of_study}:
            there = [line for line in of_study if line["provenance"]["device"] == device]
            row = shown.pop((study["name"], device))
            assert row["runs"] == str(len(there))
            # All runs of a bank have its times, and no two banks have the same ones.
            banks = {
                (line["config"]["task"], cost["train_seconds"], cost["evaluation_seconds"], cost["bank_runs"])
                for line in there
                for cost in [line["cost"]]
            }
            assert sum(runs for *_, runs in banks) == len(there)
            number, unit = row["time"].split()
            seconds = sum(train + evaluation for _, train, evaluation, _ in banks)
            assert float(number) == pytest.approx(seconds / {"s": 1, "min": 60, "h": 3600}[unit], abs=0.051)
            peak = max(line["cost"]["peak_memory_bytes"] for line in there)
            assert float(row["peak memory, GB"]) == pytest.approx(peak / 1e9, abs=0.051)
            days = sorted({line["provenance"]["finished"][:10] for line in there})
            assert row["finished"].split(" to ") == list(dict.fromkeys([days[0], days[-1]]))
            assert set(row["commit"].split(", ")) == {line["provenance"]["git_commit"][:8] for line in there}
    assert not shown


def test_every_study_says_what_it_is_for(page: Any) -> None:
    assert {row["study"]: row["what it is for"] for row in page.rows("what it is for")} == {
        study["name"]: study["about"] for study in STUDIES
    }
