"""The pilot: one number of each kind again, from the records' own lines."""

import statistics
from typing import Any

import numpy as np
import pytest
from by_hand import answers, corrected, judged, read

from companion import first_frontiers, quantities

Cell = tuple[str, int]
STUDIES = ("smollm2-pilot", "minilm-sst2", "generated-tasks")


def of_cell(study: str, task: str, cell: Cell) -> list[dict[str, Any]]:
    """A cell's runs at the rate with the highest mean on dev, by seed."""
    by_rate: dict[Any, list[dict[str, Any]]] = {}
    for line in read(study):
        if (line["config"]["task"], line["label"], line["config"]["size"]) == (task, *cell):
            by_rate.setdefault(line["config"]["learning_rate"], []).append(line)
    best = max(by_rate.values(), key=lambda lines: statistics.mean(map(on_dev, lines)))
    return sorted(best, key=lambda line: line["config"]["seed"])


def on_dev(line: dict[str, Any]) -> float:
    (best,) = (e for e in line["evaluations"] if e["step"] == line["best_step"])
    return float(best["dev_correct"] / best["dev_total"])


def compared(study: str, task: str, one: Cell, other: Cell) -> dict[str, Any]:
    first, second = (
        np.array([answers(line["outcome"]) for line in of_cell(study, task, cell)]) for cell in (one, other)
    )
    return judged((first - second).tolist())


def value(name: str) -> Any:
    return quantities.value(f"first_frontiers.{name}")


def test_a_rise_and_its_interval() -> None:
    found, by_hand = value("rise.rte.cp"), compared("smollm2-pilot", "rte", ("cp", 44), ("cp", 1))
    assert (found.value, found.low, found.high, found.n) == pytest.approx((by_hand["gap"], *by_hand["interval"], 3))
    found, by_hand = value("one_gain.sst2"), compared("smollm2-pilot", "sst2", ("cp", 1), ("head", 0))
    assert (found.value, found.low, found.high) == pytest.approx((by_hand["gap"], *by_hand["interval"]))


def test_differences_at_the_largest_cp_under_each_rank() -> None:
    p_values, gaps = [], {}
    for study, task in dict.fromkeys((s, line["config"]["task"]) for s in STUDIES for line in read(s)):
        lines = [line for line in read(study) if line["config"]["task"] == task]
        budgets = {(line["label"], line["config"]["size"]): line["counts"]["adapter"] for line in lines}
        for rank in sorted(size for label, size in budgets if label == "lora"):
            size = max(c for k, c in budgets if k == "cp" and budgets[k, c] <= budgets["lora", rank])
            gaps[study, task, rank] = compared(study, task, ("cp", size), ("lora", rank))
            p_values.append(gaps[study, task, rank]["p"])
    holm = dict(zip(gaps, corrected(p_values), strict=True))
    rows = first_frontiers.matched()
    assert len(rows) == len(gaps) == value("pairs.all").value
    for row in rows.itertuples():
        place = (row.study, row.task, row.rank)
        assert (100 * row.gap, row.p, row.holm) == pytest.approx((gaps[place]["gap"], gaps[place]["p"], holm[place]))
    assert value("nearest_gap").value == pytest.approx(-gaps["smollm2-pilot", "rte", 1]["gap"])
    assert value("clear").value == sum(p < 0.05 for p in holm.values())
    drawn = first_frontiers.gap_rows().set_index("what").loc["RTE: LoRA 1 − CP 11"]
    low, high = gaps["smollm2-pilot", "rte", 1]["interval"]
    assert [100 * drawn[name] for name in ("mean", "low", "high")] == pytest.approx(
        [-gaps["smollm2-pilot", "rte", 1]["gap"], -high, -low]
    )


def test_cells_that_are_better_on_dev_at_the_higher_rate() -> None:
    at: dict[tuple[Any, ...], dict[float, list[float]]] = {}
    for line in read("smollm2-pilot"):
        if line["label"] != "head":
            c = line["config"]
            tried = at.setdefault((c["task"], line["label"], c["size"]), {})
            tried.setdefault(c["learning_rate"], []).append(on_dev(line))
    better = sum(statistics.mean(rates[max(rates)]) > statistics.mean(rates[min(rates)]) for rates in at.values())
    assert (value("rate_cells").value, value("higher").value) == (len(at), better)


def test_runs_best_at_the_last_evaluation() -> None:
    cells = {(line["config"]["task"], line["label"], line["config"]["size"]) for line in read("smollm2-pilot")}
    chosen = [
        line for task, *cell in cells if cell[0] != "head" for line in of_cell("smollm2-pilot", task, tuple(cell))
    ]
    assert value("chosen").value == len(chosen)
    assert value("best_at_last").value == sum(line["best_step"] == 500 for line in chosen)
