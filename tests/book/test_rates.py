"""The learning rate: every number again from the records' own lines, and what is said of them."""

import functools
import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from by_hand import answers, judged
from scipy.stats import t

ROOT = Path(__file__).parents[2]
Chapters = Callable[[str], Any]
Line = dict[str, Any]
Place = tuple[str, int]
SIZES = {"lora": (1, 2, 4, 8), "cp": (1, 4, 8, 11, 22, 44, 88)}
PAPERS = {"lora": 1e-4, "cp": 2e-4}
TIMES = (1, 3, 10, 30)
PAIRS = ((1, 11), (2, 22), (4, 44), (8, 88))
TASKS = {"sst2": "SST-2", "rte": "RTE", "boolq": "BoolQ"}
NAMES = {"lora": "LoRA", "cp": "CP"}
CELLS = [(label, size) for label, sizes in SIZES.items() for size in sizes]
LINES = [
    line
    for study in ("smollm2", "smollm2-rates")
    for path in (ROOT / "results" / study).glob("*.jsonl")
    for line in map(json.loads, path.read_text(encoding="utf-8").splitlines())
    if line["config"]["size"] in SIZES.get(line["label"], (0,))
]


def runs(task: str, place: Place, times: int = 1) -> list[Line]:
    """A cell's three, by seed."""
    label, size = place
    rate = times * PAPERS[label] if label in PAPERS else None
    found = [
        line
        for line in LINES
        if (line["config"]["task"], line["label"], line["config"]["size"]) == (task, label, size)
        and line["config"]["learning_rate"] == (rate and pytest.approx(rate))
    ]
    assert len(found) == 3
    return sorted(found, key=lambda line: line["config"]["seed"])


def on_dev(line: Line) -> float:
    (best,) = (e for e in line["evaluations"] if e["step"] == line["best_step"])
    return best["dev_correct"] / best["dev_total"]


def dev(task: str, place: Place, times: int) -> float:
    return statistics.mean(map(on_dev, runs(task, place, times)))


@functools.cache
def table(task: str, place: Place, times: int = 1) -> np.ndarray:
    return np.array([answers(line["outcome"]) for line in runs(task, place, times)], dtype=float)


def mean(task: str, place: Place, times: int = 1) -> float:
    return 100 * float(table(task, place, times).mean())


def of_cell(task: str, place: Place) -> int:
    """Of two that are alike on dev, the lower rate."""
    return max(TIMES, key=lambda times: (round(dev(task, place, times), 9), -times))


def of_family(task: str, label: str) -> int:
    return max(TIMES, key=lambda times: statistics.mean(dev(task, (label, size), times) for size in SIZES[label]))


WAYS: dict[str, Callable[[str, Place], int]] = {
    "the paper's": lambda task, place: 1,
    "one a family": lambda task, place: of_family(task, place[0]),
    "one a cell": of_cell,
}


def gap(task: str, way: str) -> dict[str, Any]:
    """LoRA minus CP."""
    at = WAYS[way]
    gaps = [
        table(task, lora, at(task, lora)) - table(task, cp, at(task, cp))
        for lora, cp in ((("lora", rank), ("cp", size)) for rank, size in PAIRS)
    ]
    return judged(np.mean(gaps, axis=0).tolist())


def over_the_readout(task: str, way: str) -> dict[str, Any]:
    places = [(label, size) for pair in PAIRS for label, size in zip(("lora", "cp"), pair, strict=True)]
    head = table(task, ("head", 0))
    return judged(np.mean([table(task, place, WAYS[way](task, place)) - head for place in places], axis=0).tolist())


def ends(found: dict[str, Any]) -> tuple[float, float]:
    reach = float(t.ppf(0.95, found["degrees"])) * found["error"]
    return found["gap"] - reach, found["gap"] + reach


def gain(task: str, label: str) -> dict[str, Any]:
    sizes = [pair[list(NAMES).index(label)] for pair in PAIRS]
    gains = [table(task, (label, s), of_cell(task, (label, s))) - table(task, (label, s)) for s in sizes]
    return judged(np.mean(gains, axis=0).tolist())


def last_loss(line: Line) -> float:
    assert line["evaluations"][-1]["step"] == 5000
    return float(line["evaluations"][-1]["train_loss"])


def unfit(task: str, place: Place, times: int) -> int:
    floor = statistics.mean(map(last_loss, runs(task, ("head", 0))))
    return sum(last_loss(line) > floor for line in runs(task, place, times))


def moves(task: str, label: str) -> tuple[float, float]:
    """Over the rates, and over the sizes."""
    found = np.array([[mean(task, (label, size), times) for times in TIMES] for size in SIZES[label]])
    return float(np.ptp(found, 1).mean()), float(np.ptp(found, 0).mean())


def shown(page: Any, *columns: str) -> list[list[dict[str, str]]]:
    """All tables that have these columns."""
    found = [table for table in page.tables if set(columns) <= set(table[0])]
    return [[dict(zip(head, row, strict=True)) for row in rows] for head, *rows in found]


def test_the_responses(chapter: Chapters) -> None:
    for task, rows in zip(TASKS, shown(chapter("rates"), "dev chose"), strict=True):
        assert {row["adapter"] for row in rows} == {f"{NAMES[label]} {size}" for label, size in CELLS}
        by_name = {row["adapter"]: row for row in rows}
        for label, size in CELLS:
            row = by_name[f"{NAMES[label]} {size}"]
            assert [row[f"{times}×"] for times in TIMES] == [f"{mean(task, (label, size), k):.1f}" for k in TIMES]
            assert row["dev chose"] == f"{of_cell(task, (label, size))}×"


def test_the_verdicts(chapter: Chapters) -> None:
    rows = chapter("rates").rows("LoRA is ahead", "they learn")
    assert [(row["task"], row["rates"]) for row in rows] == [(name, way) for name in TASKS.values() for way in WAYS]
    for row, (task, way) in zip(rows, ((task, way) for task in TASKS for way in WAYS), strict=True):
        ahead, over = gap(task, way), over_the_readout(task, way)
        low, high = ends(ahead)
        assert row["LoRA − CP"] == f"{ahead['gap']:+.1f}"
        assert row["90 % interval"] == f"{low:+.1f} to {high:+.1f}"
        assert row["LoRA is ahead"] == ("holds" if low > 0 else "cannot be told")
        assert row["adapters − readout"] == f"{over['gap']:+.1f}"
        assert row["they learn"] == ("holds" if ends(over)[0] > 0 else "cannot be told")
        given = [f"{1 if way == 'the paper' + chr(39) + 's' else of_family(task, label)}×" for label in NAMES]
        assert row["LoRA's, CP's"] == ("by cell" if way == "one a cell" else ", ".join(given))


def test_numbers(chapter: Chapters) -> None:
    page = chapter("rates")
    reached = {place: mean("rte", place, of_cell("rte", place)) for place in CELLS}
    at_papers = max(mean("rte", ("lora", rank)) for rank in SIZES["lora"])
    small = min(size for size in SIZES["cp"] if reached["cp", size] > at_papers)
    chosen = [of_cell(task, place) for task in TASKS for place in CELLS]
    by_times = [statistics.mean(mean("sst2", ("cp", size), times) for size in SIZES["cp"]) for times in TIMES]
    expected: dict[str, str] = {
        "lora_rate": "0.0001",
        "cp_rate": "0.0002",
        "rates": "4",
        "cp_sizes": "7",
        "pairs": "4",
        "turn": "57,600",
        "small_size": str(small),
        "small_scalars": f"{5220 * small:,}",
        "small_accuracy": f"{reached['cp', small]:.1f}",
        "paper_best": f"{at_papers:.1f}",
        "times_budget": f"{8 * 57600 / (5220 * small):.0f}",
        "runs": str(len(LINES)),
        "added": str(sum(line["study"] == "smollm2-rates" for line in LINES)),
        "unfit": str(sum(unfit(task, place, 30) for task in TASKS for place in CELLS)),
        "choices": str(len(chosen)),
        "edge": str(chosen.count(30)),
        "cp_flat": f"{max(by_times) - min(by_times):.1f}",
    }
    for task in TASKS:
        expected[f"{task}_gap"] = f"{gap(task, 'one a cell')['gap']:.1f}"
        luck = [max(mean(task, p, k) for k in TIMES) - mean(task, p, of_cell(task, p)) for p in CELLS]
        expected[f"{task}_optimism"] = f"{statistics.mean(luck):.1f}"
        for label in NAMES:
            found = gain(task, label)
            expected[f"{task}_{label}_gain"] = f"{found['gap']:+.1f}"
            expected[f"{task}_{label}_gain_ends"] = "{:+.1f} to {:+.1f}".format(*found["interval"])
        if task != "sst2":
            of_rate, of_size = moves(task, "cp")
            expected |= {f"{task}_cp_by_rate": f"{of_rate:.1f}", f"{task}_cp_by_size": f"{of_size:.1f}"}
    assert page.glued == expected
    places = [(task, label) for task in TASKS for label in sorted(NAMES)]
    for row, (task, label) in zip(page.rows("over the rates", "over the sizes"), places, strict=True):
        assert (row["task"], row["family"]) == (TASKS[task], NAMES[label])
        found = float(row["over the rates"]), float(row["over the sizes"])
        assert found == pytest.approx(moves(task, label), abs=0.05 + 1e-9), "a tenth, on either side of a tie"


def test_what_is_said_of_the_rates(chapter: Chapters) -> None:
    for task in ("rte", "boolq"):
        of_rate, of_size = moves(task, "cp")
        assert of_rate > of_size, "as far as or farther"
        assert all(gain(task, label)["gap"] > 0 for label in NAMES), "where one gains, so does the other"
    assert all(abs(gain("sst2", label)["gap"]) < 0.2 for label in NAMES)
    assert [ends(gap(task, "one a cell"))[0] > 0 for task in TASKS] == [False, True, False], "RTE's alone is clear"
    assert gap("rte", "one a cell")["interval"][0] > 0, "at ninety-five percent too"
    assert all(gap(task, "one a cell")["gap"] > 0 for task in TASKS)
    budgets = {(label, size): {"cp": 5220, "lora": 57600}[label] * size for label, size in CELLS}
    for place, budget in budgets.items():
        gains = mean("rte", place, 30) > mean("rte", place, 10)
        assert gains == (budget <= 57600), "each up to it gains, each larger one loses"
        if not gains and place[0] == "lora" and place[1] > 2:
            assert mean("rte", place, 30) < mean("rte", ("head", 0)), "ruined"
        for task in TASKS:
            assert not any(unfit(task, place, times) for times in TIMES[:-1]), "none at a lower rate"
            if budget <= 57600:
                assert not unfit(task, place, 30), "the window narrows as the budget grows"
    assert all(line["diverged_at"] is None for line in LINES)
    for rank in (4, 8):
        assert mean("sst2", ("lora", rank), 30) < mean("sst2", ("lora", rank), 10) - 2
    for size in SIZES["cp"]:
        assert min(TIMES, key=lambda k: mean("boolq", ("cp", size), k)) == 1, "lowest at the paper's rate"
    assert ends(over_the_readout("boolq", "the paper's"))[0] < 0 < ends(over_the_readout("boolq", "one a cell"))[0]
    assert ends(gap("boolq", "the paper's"))[0] > 0 > ends(gap("boolq", "one a cell"))[0]
    assert gap("rte", "the paper's")["interval"][0] < 0 < gap("rte", "one a cell")["interval"][0]


def test_charts(chapter: Chapters) -> None:
    charts = [
        output["data"]["application/vnd.vegalite.v5+json"]
        for c in chapter("rates").cells
        for output in c.get("outputs", ())
        if "application/vnd.vegalite.v5+json" in output.get("data", {})
    ]
    of_rates = [chart for chart in charts if "against the learning rate" in chart["description"]]
    assert (len(charts), len(of_rates)) == (6, 3)
    for task, chart in zip(TASKS, of_rates, strict=True):
        drawn = [row for rows in chart["datasets"].values() for row in rows if "learning_rate" in row]
        assert len(drawn) == len(CELLS) * len(TIMES)
        for row in drawn:
            times = round(row["learning_rate"] / PAPERS[row["label"]])
            assert 100 * row["mean"] == pytest.approx(mean(task, (row["label"], row["size"]), times))
            error = judged(table(task, (row["label"], row["size"]), times).tolist())["error"]
            assert 100 * row["error"] == pytest.approx(error)
        (floor,) = (rows[0]["mean"] for rows in chart["datasets"].values() if "label" not in rows[0])
        assert 100 * floor == pytest.approx(mean(task, ("head", 0)))
    assert re.search(r"three, ten and thirty times", chapter("rates").source)
    assert TIMES[1:] == (3, 10, 30)
