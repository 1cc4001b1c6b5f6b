"""An encoder with all examples: every number again from the records' own lines, and what is said of them."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from by_hand import answers, classes, corrected, judged, read, weights

Chapters = Callable[[str], Any]
Cell = tuple[str, int]
TASKS = {"sst2": "SST-2", "sick": "SICK", "mrpc": "MRPC", "boolq": "BoolQ", "rte": "RTE"}
TAUGHT = ("sst2", "sick", "mrpc", "boolq")
SEEDS = 10
BUDGETS = {("head", 0): 0, **{("lora", r): 9216 * r for r in (1, 2, 4, 8)}}
BUDGETS |= {("cp", c): 972 * c for c in (1, 2, 4, 9, 19, 38, 76)}
NAMES = {"cp": "CP", "lora": "LoRA"}
STEPS = [
    (("cp", 1), ("head", 0)),
    (("cp", 9), ("cp", 1)),
    (("cp", 76), ("cp", 9)),
    (("cp", 76), ("cp", 1)),
    (("lora", 1), ("cp", 9)),
    (("lora", 8), ("lora", 1)),
]
MATCHED = [(("lora", 2), ("cp", 19)), (("lora", 4), ("cp", 38)), (("lora", 8), ("cp", 76))]
RUNS = read("minilm")


@functools.cache
def table(task: str, place: Cell) -> np.ndarray:
    """Right or wrong, seed by seed and item by item."""
    found = {
        line["config"]["seed"]: answers(line["outcome"])
        for line in RUNS
        if (line["config"]["task"], line["label"], line["config"]["size"]) == (task, *place)
    }
    return np.array([found[seed] for seed in range(SEEDS)], dtype=float)


def name(place: Cell) -> str:
    return f"{NAMES[place[0]]} {place[1]}" if place[1] else "head only"


@functools.cache
def difference(task: str, after: Cell, before: Cell) -> dict[str, Any]:
    return judged((table(task, after) - table(task, before)).tolist())


def expected_rows(pairs: list[tuple[Cell, Cell]], what: str) -> list[dict[str, str]]:
    rows = []
    for task, title in TASKS.items():
        each = [difference(task, *pair) for pair in pairs]
        rows += [
            {"task": title, what: f"{name(after)} − {name(before)}", "seeds": str(SEEDS),
             "points": f"{found['gap']:+.2f}", "95 % interval": "{:+.2f} to {:+.2f}".format(*found["interval"]),
             "Holm": f"{p:.3f}", "alike": f"{found['alike']:.3f}"}
            for (after, before), found, p in zip(pairs, each, corrected([f["p"] for f in each]), strict=True)
        ]  # fmt: skip
    return rows


def test_the_records_are_what_the_page_says() -> None:
    assert len(RUNS) == len(TASKS) * len(BUDGETS) * SEEDS
    assert {line["config"]["task"] for line in RUNS} == TASKS.keys()
    assert {(line["label"], line["config"]["size"]): line["counts"]["adapter"] for line in RUNS} == BUDGETS
    for line in RUNS:
        protocol, outcome = line["config"]["protocol"], line["outcome"]
        assert (protocol["steps"], line["diverged_at"]) == (5000, None)
        assert outcome["total"] == outcome["rows"], "no cap on the evaluation items"
        assert protocol["train_cap"] >= 70_000, "no cap on the training examples"
        expected = {"head": None, "lora": 2e-3, "cp": 4e-3}[line["label"]]
        assert line["config"]["learning_rate"] == expected


def test_the_rates_are_the_better_on_dev_of_two() -> None:
    for label, chosen in (("lora", 2e-3), ("cp", 4e-3)):
        by_rate: dict[float, list[float]] = {}
        for line in read("minilm-sst2"):
            if line["label"] == label:
                dev = max(e["dev_correct"] / e["dev_total"] for e in line["evaluations"])
                by_rate.setdefault(line["config"]["learning_rate"], []).append(dev)
        means = {rate: np.mean(found) for rate, found in by_rate.items()}
        assert len(means) == 2
        assert max(means, key=means.__getitem__) == chosen


def test_differences(chapter: Chapters) -> None:
    page = chapter("encoder")
    assert page.rows("difference", "alike") == expected_rows(STEPS, "difference")
    assert page.rows("pair", "alike") == expected_rows(MATCHED, "pair")


def test_the_charts(chapter: Chapters) -> None:
    charts = chapter("encoder").charts
    assert len(charts) == len(TASKS) + 2
    for chart, pairs in zip(charts[len(TASKS) :], (STEPS, MATCHED), strict=True):
        drawn = [row for rows in chart["datasets"].values() for row in rows if "what" in row]
        expected = [difference(task, *pair) for task in TASKS for pair in pairs]
        for row, found in zip(drawn, expected, strict=True):
            assert [row["mean"], row["low"], row["high"]] == pytest.approx([found["gap"], *found["interval"]])


def commonest(task: str) -> float:
    (rate,) = {line["data"]["sets"]["eval"]["majority_rate"] for line in RUNS if line["config"]["task"] == task}
    return float(rate)


def classes_of(task: str) -> list[int]:
    return classes(next(x["outcome"] for x in RUNS if x["config"]["task"] == task))


@functools.cache
def counts(task: str) -> np.ndarray:
    """What each item counts in balanced accuracy."""
    return np.array(weights(classes_of(task)))


@functools.cache
def over_the_head(task: str, *places: Cell) -> dict[str, Any]:
    """On the average over cells, in balanced accuracy."""
    adapters = np.mean([table(task, place) for place in places], axis=0)
    return judged(((adapters - table(task, ("head", 0))) * counts(task)).tolist())


def unfit(task: str) -> list[Cell]:
    return [place for place in BUDGETS if place[1] and over_the_head(task, place)["one-sided"][0] <= 0]


def test_balanced_accuracies(chapter: Chapters) -> None:
    def shown(task: str, place: Cell) -> float:
        return 100 * float((table(task, place) * counts(task)).mean())

    for row, (task, title) in zip(chapter("encoder").rows("one answer"), TASKS.items(), strict=True):
        best = max(shown(task, place) for place in BUDGETS)
        expected = [title, *(f"{x:.1f}" for x in (shown(task, ("head", 0)), shown(task, ("cp", 1)), best))]
        assert list(row.values()) == [*expected, f"{100 / len(set(classes_of(task))):.1f}"]


def gave_up(place: Cell) -> int:
    """Runs on BoolQ that are right on the items of the commonest answer and on no others.

    Those are the items that most of the runs with just so many are right on.
    """
    of = table("boolq", place)
    count = round(commonest("boolq") * of.shape[1])
    exact = [tuple(row) for row in of if row.sum() == count]
    return exact.count(max(set(exact), key=exact.count)) if exact else 0


def test_numbers(chapter: Chapters) -> None:
    def gaps(after: Cell, before: Cell) -> str:
        return ", ".join(f"{difference(task, after, before)['gap']:+.1f}" for task in TAUGHT)

    def way(task: str) -> str:
        floor, one = max(table(task, ("head", 0)).mean(), commonest(task)), table(task, ("cp", 1)).mean()
        best = max(table(task, place).mean() for place in BUDGETS)
        return f"{100 * (one - floor) / (best - floor):.0f}"

    def clear_on(rows: list[dict[str, str]], what: str, pair: str) -> str:
        found = [r["task"] for r in rows if r[what] == pair and float(r["Holm"]) < 0.05 and r["task"] != "RTE"]
        return " and ".join(filter(None, (", ".join(found[:-1]), found[-1])))

    steps = expected_rows(STEPS, "difference")
    matched = [difference(task, *pair) for task in TAUGHT for pair in MATCHED]
    clear = [(row["task"], row["pair"]) for row in expected_rows(MATCHED, "pair") if float(row["Holm"]) < 0.05]
    assert clear == [("BoolQ", "LoRA 4 − CP 38"), ("BoolQ", "LoRA 8 − CP 76")], "on BoolQ alone, of larger ranks"
    trained = {line["config"]["task"]: line["data"]["sets"]["train"]["size"] for line in RUNS}
    passes = [f"{5000 * batch_size() / trained[task]:.1f}" for task in TASKS]
    over = over_the_head("rte", *(place for pair in MATCHED for place in pair))
    sick = next(line for line in RUNS if line["config"]["task"] == "sick")
    assert chapter("encoder").glued == {
        "sick_items": f"{sick['outcome']['total']:,}",
        "sick_shared": f"{sick['data']['eval_shares_text']['sentence_A']:,}",
        "fewest": "1",
        "nearly": "9",
        "most": "76",
        "gains": gaps(("cp", 9), ("cp", 1)),
        "gained": clear_on(steps, "difference", "CP 9 − CP 1"),
        "further": gaps(("cp", 76), ("cp", 9)),
        "gained_further": clear_on(steps, "difference", "CP 76 − CP 9"),
        "tasks": "SST-2, SICK, MRPC and BoolQ",
        "all_tasks": "SST-2, SICK, MRPC, BoolQ and RTE",
        "fewest_share": f"{100 * 972 / 9216:.0f}",
        "nearly_share": f"{100 * 9 * 972 / 9216:.0f}",
        "first": gaps(("lora", 1), ("cp", 9)),
        "ahead_on": clear_on(steps, "difference", "LoRA 1 − CP 9"),
        "matched": "3",
        "pairs": "12",
        "clear": "2",
        "clear_on": "BoolQ",
        "within": str(sum(found["alike"] < 0.05 for found in matched)),
        "runs": str(len(RUNS)),
        "seeds": str(SEEDS),
        "steps": "5,000",
        "passes": f"{', '.join(passes[:-1])} and {passes[-1]}",
        "untaught": "RTE",
        "untaught_examples": f"{trained['rte']:,}",
        "unfit": "LoRA 4 on BoolQ and LoRA 8 on BoolQ",
        "untaught_over": f"{over['gap']:+.1f}",
        "untaught_over_ends": "{:+.1f} to {:+.1f}".format(*over["one-sided"]),
        "rank": "9,216",
        "component": "972",
        "under": str(sum(0 < budget < 9216 for budget in BUDGETS.values())),
        "way": ", ".join(map(way, TAUGHT)),
        "lost": f"{-difference('boolq', ('lora', 8), ('lora', 1))['gap']:.1f}",
        "lost_to": f"{100 * table('boolq', ('lora', 8)).mean():.1f}",
        "lost_floor": f"{100 * commonest('boolq'):.1f}",
        "gave_up": str(gave_up(("lora", 8))),
        "drop": f"{-difference('mrpc', ('lora', 8), ('lora', 1))['gap']:.1f}",
    }


def batch_size() -> int:
    (batch,) = {line["config"]["protocol"]["batch_size"] for line in RUNS}
    return int(batch)


def test_what_is_said() -> None:
    assert {task: unfit(task) for task in TAUGHT} == {
        "sst2": [], "sick": [], "mrpc": [], "boolq": [("lora", 4), ("lora", 8)],
    }  # fmt: skip
    assert len(unfit("rte")) == len(BUDGETS) - 1, "none of these cells"
    found = {(row["task"], row["difference"]): row for row in expected_rows(STEPS, "difference")}
    clear = {place for place, row in found.items() if float(row["Holm"]) < 0.05}
    for task in TAUGHT:
        for step in ("CP 1 − head only", "CP 76 − CP 1", "CP 9 − CP 1"):
            assert float(found[TASKS[task], step]["points"]) > 0, "components pay"
            assert (TASKS[task], step) in clear or (task, step) == ("boolq", "CP 9 − CP 1")
    for task, title in TASKS.items():
        assert (title, "LoRA 8 − LoRA 1") not in clear or difference(task, ("lora", 8), ("lora", 1))["gap"] < 0
        found_first = difference(task, ("lora", 1), ("cp", 9))
        assert found_first["interval"][1] > 0, "the rank itself is nowhere shown to be passed"
        assert task == "rte" or found_first["gap"] > 0, "its mean is ahead"
    assert ("BoolQ", "LoRA 8 − LoRA 1") in clear
    assert ("MRPC", "LoRA 8 − LoRA 1") not in clear
    assert difference("mrpc", ("lora", 8), ("lora", 1))["gap"] < 0
    assert next(x["data"]["sets"]["train"]["size"] for x in RUNS if x["config"]["task"] == "sst2") > 40_000, "a part"
