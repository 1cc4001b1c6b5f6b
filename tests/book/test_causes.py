"""What moves a run: every number again from the records' own lines, and what is said of them."""

import functools
import itertools
import math
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from by_hand import answers, corrected, read
from scipy.stats import f

Chapters = Callable[[str], Any]
Cell = tuple[str, int]
CELLS = {("cp", 1): "CP 1", ("cp", 11): "CP 11", ("cp", 44): "CP 44", ("lora", 1): "LoRA 1"}
DIFFERENCES = {"LoRA 1 − CP 11": (("lora", 1), ("cp", 11)), "CP 44 − CP 1": (("cp", 44), ("cp", 1))}
TASKS = {"sst2": "SST-2", "rte": "RTE"}
WEIGHTS, ORDER, BOTH, AGAIN, DRAW, ITEMS = CAUSES = (
    "initial weights", "order", "the two together", "the same again", "draw", "items",
)  # fmt: skip


def lines(study: str, task: str, cell: Cell) -> Iterator[dict[str, Any]]:
    for line in read(study):
        if (line["config"]["task"], line["label"], line["config"]["size"]) == (task, *cell):
            yield line


def percent(line: dict[str, Any]) -> float:
    right = answers(line["outcome"])
    return 100 * sum(right) / len(right)


@functools.cache
def by_order(task: str, cell: Cell) -> np.ndarray:
    """`[weights, orders]`, in percent."""
    at = {(line["config"]["seed"], line["config"]["order_seed"]): percent(line)
          for line in lines("smollm2-orders", task, cell)}  # fmt: skip
    assert len(at) == 100
    return np.array([[at[seed, order] for order in range(10)] for seed in range(10)])


@functools.cache
def by_draw(task: str, cell: Cell) -> np.ndarray:
    """`[seeds, draws]`, in percent."""
    both = itertools.chain(*(lines(f"smollm2-data-seeds{which}", task, cell) for which in ("", "-again")))
    at = {(line["config"]["seed"], line["config"]["data_seed"]): percent(line) for line in both}
    assert len(at) == 60
    return np.array([[at[seed, draw] for draw in range(1, 31)] for seed in (0, 1)])


@functools.cache
def over_seeds(task: str, cell: Cell) -> np.ndarray:
    """`[seeds, items]`, right or wrong in percent."""
    study = "smollm2-seeds-boolq" if task == "boolq" else "smollm2-seeds"
    at = {line["config"]["seed"]: answers(line["outcome"]) for line in lines(study, task, cell)}
    return 100 * np.array([right for _, right in sorted(at.items())], dtype=float)


@functools.cache
def pairs(task: str, cell: Cell) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The runs that were trained twice."""
    own = {line["config"]["seed"]: line for line in lines("smollm2-orders", task, cell)
           if line["config"]["order_seed"] == line["config"]["seed"]}  # fmt: skip
    free = {line["config"]["seed"]: line for line in lines("smollm2-seeds", task, cell)}
    assert len(own) == 10
    return [(own[seed], free[seed]) for seed in own]


def again(task: str, cell: Cell) -> np.ndarray:
    return np.array([percent(a) - percent(b) for a, b in pairs(task, cell)])


def two_way(of: np.ndarray) -> dict[str, float]:
    """Mean squares of rows, of columns and of what is left of a table."""
    rows, columns = of.shape
    by_row, by_column, mean = of.mean(1), of.mean(0), of.mean()
    left = sum((of[a, b] - by_row[a] - by_column[b] + mean) ** 2 for a in range(rows) for b in range(columns))
    return {
        "rows": columns * statistics.variance(by_row.tolist()),
        "columns": rows * statistics.variance(by_column.tolist()),
        "left": float(left) / ((rows - 1) * (columns - 1)),
    }


@functools.cache
def of_subject(task: str, name: str) -> tuple[dict[str, float], dict[str, float]]:
    """The variance of each cause in squared points, and the p value of those that are tested."""

    def taken(make: Callable[[str, Cell], np.ndarray]) -> np.ndarray:
        if name in DIFFERENCES:
            a, b = DIFFERENCES[name]
            return make(task, a) - make(task, b)
        (cell,) = (cell for cell, known in CELLS.items() if known == name)
        return make(task, cell)

    order, draw, right = (taken(make) for make in (by_order, by_draw, over_seeds))
    of_order, of_draw = two_way(order), two_way(draw)
    of_right = {"seeds": right.shape[0], "items": right.shape[1]}
    left = right - right.mean(1, keepdims=True) - right.mean(0) + right.mean()
    rest = float((left**2).sum()) / ((of_right["seeds"] - 1) * (of_right["items"] - 1))
    of_items = max(of_right["seeds"] * float(right.mean(0).var(ddof=1)) - rest, 0) / of_right["seeds"]
    variances = {
        WEIGHTS: max(of_order["rows"] - of_order["left"], 0) / 10,
        ORDER: max(of_order["columns"] - of_order["left"], 0) / 10,
        BOTH: of_order["left"],
        AGAIN: float((taken(again) ** 2).mean()) / 2,
        DRAW: max(of_draw["columns"] - of_draw["left"], 0) / 2,
        ITEMS: of_items / of_right["items"],
    }
    p = {
        WEIGHTS: float(f.sf(of_order["rows"] / of_order["left"], 9, 81)),
        ORDER: float(f.sf(of_order["columns"] / of_order["left"], 9, 81)),
        DRAW: float(f.sf(of_draw["columns"] / of_draw["left"], 29, 29)),
    }
    return variances, p


@functools.cache
def clear(task: str) -> set[tuple[str, str]]:
    """What is clear after Holm's correction over a task's table."""
    p = {
        (name, cause): p for name in (*CELLS.values(), *DIFFERENCES) for cause, p in of_subject(task, name)[1].items()
    }
    return {tested for tested, holm in zip(p, corrected(list(p.values())), strict=True) if holm < 0.05}


def mean_sd(task: str, cause: str) -> float:
    return math.sqrt(statistics.mean(of_subject(task, name)[0][cause] for name in CELLS.values()))


def test_tables(chapter: Chapters) -> None:
    tables = [table for table in chapter("causes").tables if AGAIN in table[0]]
    for (titles, *rows), task in zip(tables, TASKS, strict=True):
        assert titles == ["of", *CAUSES]
        assert [row[0] for row in rows] == [*CELLS.values(), *DIFFERENCES]
        for name, *shown in rows:
            variances, p = of_subject(task, name)
            for cause, text in zip(CAUSES, shown, strict=True):
                if text == "–":
                    assert variances[cause] == 0
                else:
                    assert float(text.strip("()")) == pytest.approx(math.sqrt(variances[cause]), abs=0.005 + 1e-9)
                    assert text.startswith("(") == (cause in p and (name, cause) not in clear(task))


def test_charts(chapter: Chapters) -> None:
    for chart, task in zip(chapter("causes").charts, TASKS, strict=True):
        drawn = {(row["of"], row["cause"]): row["points"] for rows in chart["datasets"].values() for row in rows}
        expected = {
            (name, cause): of_subject(task, name)[0][cause]
            for name in CELLS.values()
            for cause in CAUSES
            if cause != AGAIN
        }
        assert drawn == pytest.approx(expected)


def in_common() -> dict[tuple[str, str], np.ndarray]:
    """`[cells, of them]` by task and what is shared."""
    found = {}
    for task, name in TASKS.items():
        found[name, WEIGHTS] = np.array([by_order(task, cell).mean(1) for cell in CELLS])
        found[name, ORDER] = np.array([by_order(task, cell).mean(0) for cell in CELLS])
        found[name, DRAW] = np.array([by_draw(task, cell).mean(0) for cell in CELLS])
        found[name, "seed"] = np.array([over_seeds(task, cell).mean(1) for cell in CELLS])
    return found | {("BoolQ", "seed"): np.array([over_seeds("boolq", cell).mean(1) for cell in CELLS])}


def mean_correlation(runs: np.ndarray) -> float:
    couples = itertools.combinations(range(len(runs)), 2)
    return float(np.mean(np.corrcoef(runs)[tuple(np.transpose(list(couples)))]))


def test_what_is_in_common(chapter: Chapters) -> None:
    rows = chapter("causes").rows("in common", "mean correlation")
    expected = in_common()
    assert [(row["task"], row["in common"]) for row in rows] == list(expected)
    chance, p = np.random.default_rng(1), [float(row["p"]) for row in rows]
    for row, runs in zip(rows, expected.values(), strict=True):
        found = mean_correlation(runs)
        assert row["of them"] == str(runs.shape[1])
        assert row["mean correlation"] == f"{found:+.2f}"
        shuffled = [abs(mean_correlation(chance.permuted(runs, axis=1))) >= abs(found) for _ in range(1500)]
        error = math.sqrt(max(np.mean(shuffled), 0.001) / 1500)
        assert float(row["p"]) == pytest.approx(np.mean(shuffled), abs=4 * error)
    assert [float(row["Holm"]) for row in rows] == pytest.approx(corrected(p), abs=0.0015)
    seen = {(row["task"], row["in common"]) for row in rows if float(row["Holm"]) < 0.05}
    assert seen == {("SST-2", ORDER), ("SST-2", DRAW), ("RTE", DRAW)}
    perhaps = {(row["task"], row["in common"]) for row in rows if float(row["p"]) < 0.05} - seen
    assert perhaps == {("RTE", ORDER), ("BoolQ", "seed")}


def test_numbers(chapter: Chapters) -> None:
    by_weights = [math.sqrt(of_subject("sst2", f"CP {size}")[0][WEIGHTS]) for size in (1, 11, 44)]
    most, _ = of_subject("sst2", "CP 44")
    data = next(lines("smollm2-data-seeds", "rte", ("cp", 1)))["data"]
    there = data["source"]["train"]["rows"] - data["source"]["train"]["left_out_repeats"]
    expected = {
        "starts": "10", "orders": "10", "seeds": "2", "draws": "30", "adapters": "4", "repeats": "10",
        "low_weights": f"{min(by_weights):.2f}", "high_weights": f"{max(by_weights):.2f}", "most_cp": "44",
        "most_again": f"{math.sqrt(most[AGAIN]):.2f}", "most_both": f"{math.sqrt(most[BOTH]):.2f}",
        "rte_asked": "277", "rte_one": f"{100 / 277:.2f}", "boolq_seeds": "30",
        "rte_alike": f"{100 * data['sets']['train']['size'] / there:.0f}",
    }  # fmt: skip
    for task in TASKS:
        seen = {cell: statistics.stdev(over_seeds(task, cell).mean(1).tolist()) for cell in CELLS}
        true = {cell: math.sqrt(without_items(over_seeds(task, cell))) for cell in CELLS}
        kept = max(true[cell] ** 2 / seen[cell] ** 2 for cell in CELLS)
        expected |= {
            f"{task}_{key}": f"{mean_sd(task, cause):.2f}"
            for key, cause in zip(("weights", "order", "both", "again", "draw", "items"), CAUSES, strict=True)
        } | {
            f"{task}_low_seen": f"{min(seen.values()):.2f}",
            f"{task}_high_seen": f"{max(seen.values()):.2f}",
            f"{task}_high_true": f"{max(true.values()):.2f}",
            f"{task}_kept": f"{100 * kept:.0f}",
        }
        if task == "sst2":
            expected["sst2_low_true"] = f"{min(true.values()):.2f}"
    assert chapter("causes").glued == expected


def without_items(right: np.ndarray) -> float:
    """The variance of seeds that would be left with no end of items: theirs on these, less what the items add."""
    left = right - right.mean(1, keepdims=True) - right.mean(0) + right.mean()
    seeds, items = right.shape
    return max(float(right.mean(1).var(ddof=1)) - float((left**2).sum()) / ((seeds - 1) * (items - 1)) / items, 0.0)


def test_what_is_said_of_weights_and_order() -> None:
    cp = ["CP 1", "CP 11", "CP 44"]
    assert {of for of, cause in clear("sst2") if cause == WEIGHTS} == {*cp, "LoRA 1 − CP 11"}
    assert of_subject("sst2", "LoRA 1")[0][WEIGHTS] == 0, "by nothing that is seen"
    assert {of for of, cause in clear("sst2") if cause == ORDER} == {"LoRA 1"}
    assert not clear("rte"), "nothing is clear cell by cell"
    for task, cause in itertools.product(TASKS, (WEIGHTS, ORDER, DRAW)):
        assert mean_sd(task, cause) < mean_sd(task, BOTH), "none is the chief cause"


def test_what_is_said_of_the_same_run_again() -> None:
    for task, cell in itertools.product(TASKS, CELLS):
        for a, b in pairs(task, cell):
            assert a["config"] | {"order_seed": None} == b["config"] | {"order_seed": None}
            assert a["data_fingerprint"] == b["data_fingerprint"]
            assert a["provenance"]["device"] == b["provenance"]["device"]
            assert a["provenance"]["packages"] == b["provenance"]["packages"]
            assert a["cost"]["bank_runs"] != b["cost"]["bank_runs"], "in banks of other sizes"
    for a, b in pairs("rte", ("cp", 1)):
        assert a["evaluations"] == b["evaluations"], "to the last digit"
        assert a["outcome"] == b["outcome"]
    first = [
        (a["evaluations"][0]["train_loss"], b["evaluations"][0]["train_loss"])
        for task, cell in itertools.product(TASKS, CELLS)
        if (task, cell) != ("rte", ("cp", 1))
        for a, b in pairs(task, cell)
    ]
    apart = [abs(a / b - 1) for a, b in first]
    assert sum(x > 0 for x in apart) > 0.9 * len(apart), "most differ"
    assert statistics.median(apart) < 0.01, "a little"
    most, _ = of_subject("sst2", "CP 44")
    assert most[AGAIN] > most[BOTH], "as far by rounding"


def test_what_is_said_of_draws_and_items() -> None:
    for task in TASKS:
        assert not {of for of, cause in clear(task) if cause == DRAW}, "no single one is clear"
        in_training = math.hypot(*(mean_sd(task, cause) for cause in (WEIGHTS, ORDER, BOTH)))
        assert mean_sd(task, DRAW) < in_training, "less than a seed does"
        ratio = mean_sd(task, ITEMS) / math.hypot(in_training, mean_sd(task, DRAW))
        assert ratio == pytest.approx({"sst2": 1.0, "rte": 0.85}[task], abs=0.1)
        for name, cells in DIFFERENCES.items():
            variances, _ = of_subject(task, name)
            alone = [of_subject(task, CELLS[cell])[0][ITEMS] for cell in cells]
            assert variances[ITEMS] < min(alone) / 4, "most of it drops out"
            assert variances[BOTH] > sum(v for cause, v in variances.items() if cause not in (BOTH, AGAIN)), "chiefly"
