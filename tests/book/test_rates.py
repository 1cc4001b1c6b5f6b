"""The learning rate: every number again from the records' own lines, and what is said of them."""

import functools
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from by_hand import answers, corrected, judged, read, signed

Chapters = Callable[[str], Any]
Line = dict[str, Any]
Place = tuple[str, int]
SIZES = {"lora": (1, 2, 4, 8), "cp": (1, 4, 8, 11, 22, 44, 88)}
PAPERS = {"lora": 1e-4, "cp": 2e-4}
TIMES = (1, 3, 10, 30)
PAIRS = ((1, 11), (2, 22), (4, 44), (8, 88))
TASKS = {"sst2": "SST-2", "rte": "RTE", "boolq": "BoolQ"}
NAMES = {"lora": "LoRA", "cp": "CP"}
SMALL = [("lora", 1), ("cp", 1), ("cp", 4), ("cp", 8), ("cp", 11)]
"""Up to LoRA's first budget."""
CELLS = [(label, size) for label, sizes in SIZES.items() for size in sizes]
LINES = [
    line
    for study in ("smollm2", "smollm2-rates")
    for line in read(study)
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


def ends(interval: tuple[float, float]) -> str:
    return " to ".join(map(signed, interval))


def gap(task: str, way: str) -> dict[str, Any]:
    """LoRA minus CP."""
    at = WAYS[way]
    gaps = [
        table(task, lora, at(task, lora)) - table(task, cp, at(task, cp))
        for lora, cp in ((("lora", rank), ("cp", size)) for rank, size in PAIRS)
    ]
    return judged(np.mean(gaps, axis=0).tolist())


PAPERS_WAY = "the paper's"
MATCHED = [(label, size) for pair in PAIRS for label, size in zip(("lora", "cp"), pair, strict=True)]


def over_the_floor(task: str, way: str) -> dict[str, Any]:
    head, of_sets = table(task, ("head", 0)), runs(task, ("head", 0))[0]["data"]["sets"]["eval"]
    majority = max(of_sets["classes"].values()) / of_sets["size"]
    floor = head if head.mean() > majority else majority
    return judged(np.mean([table(task, place, WAYS[way](task, place)) - floor for place in MATCHED], axis=0).tolist())


def evenly(way: str) -> dict[str, Any]:
    """Adapters minus the head alone on BoolQ, where each label has a half of what can be right.

    Which label an item has those runs tell that are right on as many items as have the commonest, and on the same."""
    right = [tuple(answers(line["outcome"])) for line in LINES if line["config"]["task"] == "boolq"]
    (commonest,) = {of for of in right if sum(of) == 603 and right.count(of) > 1}
    each = np.array([1000 / 603 / 2 if it_is else 1000 / 397 / 2 for it_is in commonest])
    found = [table("boolq", place, WAYS[way]("boolq", place)) - table("boolq", ("head", 0)) for place in MATCHED]
    return judged((np.mean(found, axis=0) * each).tolist())


def change(task: str) -> dict[str, Any]:
    """Of LoRA minus CP, from the paper's rates to those that dev chose."""
    gaps = [
        sign * (table(task, place, of_cell(task, place)) - table(task, place))
        for place in MATCHED
        for sign in [1 if place[0] == "lora" else -1]
    ]
    return judged((np.sum(gaps, axis=0) / len(PAIRS)).tolist())


def gain(task: str, label: str) -> dict[str, Any]:
    sizes = [pair[list(NAMES).index(label)] for pair in PAIRS]
    gains = [table(task, (label, s), of_cell(task, (label, s))) - table(task, (label, s)) for s in sizes]
    return judged(np.mean(gains, axis=0).tolist())


@functools.cache
def redrawn(task: str) -> dict[str, list[float]]:
    """How LoRA minus CP moves where each cell's rate is chosen on a dev of items drawn with replacement from eval's,
    whose noise is added to dev's own accuracies."""
    rng = np.random.default_rng(5)
    by_item = {(place, k): table(task, place, k).mean(0) for place in MATCHED for k in TIMES}
    own = {at: dev(task, *at) - of.mean() for at, of in by_item.items()}
    found = []
    for _ in range(2000):
        asked = rng.integers(0, len(by_item[MATCHED[0], 1]), 500)
        gap = 0.0
        for place in MATCHED:
            best = max(TIMES, key=lambda k, place=place: own[place, k] + by_item[place, k][asked].mean())
            gap += (1 if place[0] == "lora" else -1) * 100 * by_item[place, best].mean() / len(PAIRS)
        found.append(gap)
    return {"sd": [statistics.pstdev(found)], "ends": np.quantile(found, (0.05, 0.95)).tolist()}


def last_loss(line: Line) -> float:
    assert line["evaluations"][-1]["step"] == 5000
    return float(line["evaluations"][-1]["train_loss"])


def one_answer(task: str) -> set[str]:
    """Runs that are right on the items of one label alone; the commonest has those on which several runs are."""
    of = [line for line in LINES if line["config"]["task"] == task]
    most = max(of[0]["data"]["sets"]["eval"]["classes"].values())
    right = [tuple(answers(line["outcome"])) for line in of]
    alike = {found for found in right if sum(found) == most and right.count(found) > 1}
    assert len(alike) <= 1
    of_label = alike | {tuple(1 - x for x in found) for found in alike}
    return {line["id"] for line, found in zip(of, right, strict=True) if found in of_label}


def constant(task: str, place: Place, times: int) -> int:
    return len(one_answer(task) & {line["id"] for line in runs(task, place, times)})


def unfit(task: str, place: Place, times: int) -> int:
    floor = statistics.mean(map(last_loss, runs(task, ("head", 0))))
    return sum(last_loss(line) > floor for line in runs(task, place, times))


def moves(task: str, label: str, rates: int = 4) -> tuple[float, float]:
    """Over so many of the rates, and over the sizes."""
    found = np.array([[mean(task, (label, size), times) for times in TIMES[:rates]] for size in SIZES[label]])
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


def test_the_ways(chapter: Chapters) -> None:
    rows = chapter("rates").rows("LoRA's, CP's")
    assert [(row["task"], row["rates"]) for row in rows] == [(name, way) for name in TASKS.values() for way in WAYS]
    for row, (task, way) in zip(rows, ((task, way) for task in TASKS for way in WAYS), strict=True):
        ahead = gap(task, way)
        low, high = ahead["one-sided"]
        assert row["LoRA − CP"] == signed(ahead["gap"])
        assert row["90 % interval"] == ends((low, high))
        given = [f"{1 if way == 'the paper' + chr(39) + 's' else of_family(task, label)}×" for label in NAMES]
        assert row["LoRA's, CP's"] == ("by cell" if way == "one a cell" else ", ".join(given))


def test_numbers(chapter: Chapters) -> None:
    page = chapter("rates")
    reached = {place: mean("rte", place, of_cell("rte", place)) for place in CELLS}
    at_papers = max(mean("rte", ("lora", rank)) for rank in SIZES["lora"])
    small = min(size for size in SIZES["cp"] if reached["cp", size] > at_papers)
    chosen = [of_cell(task, place) for task in TASKS for place in CELLS]
    by_times = [statistics.mean(mean("sst2", ("cp", size), times) for size in SIZES["cp"]) for times in TIMES]
    spans = [float(np.ptp([mean("sst2", ("cp", size), times) for times in TIMES])) for size in SIZES["cp"]]
    over, dev_set = over_the_floor("boolq", "one a cell"), runs("boolq", ("head", 0))[0]["data"]["sets"]["dev"]
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
        "constant": str(sum(constant(task, place, 30) for task in TASKS for place in CELLS)),
        "constant_chosen": str(sum(constant("boolq", place, of_cell("boolq", place)) for place in MATCHED)),
        "chosen_runs": str(3 * len(MATCHED)),
        "boolq_at_highest": str(3 * len(CELLS)),
        "boolq_constant": str(sum(constant("boolq", place, 30) for place in CELLS)),
        "boolq_dev_majority": f"{100 * max(dev_set['classes'].values()) / dev_set['size']:.0f}",
        "boolq_over": signed(over["gap"]),
        "boolq_over_ends": ends(over["one-sided"]),
        "boolq_balanced": signed(evenly(PAPERS_WAY)["gap"]),
        "boolq_balanced_ends": ends(evenly(PAPERS_WAY)["interval"]),
        "boolq_balanced_chosen": signed(evenly("one a cell")["gap"]),
        "boolq_balanced_chosen_ends": ends(evenly("one a cell")["interval"]),
        "paper_low": f"{min(mean('rte', ('lora', rank)) for rank in SIZES['lora']):.1f}",
        "tuned_lora": f"{reached['lora', 1]:.1f}",
        "flat_low": f"{min(spans):.1f}",
        "flat_high": f"{max(spans):.1f}",
        "choices": str(len(chosen)),
        "edge": str(chosen.count(30)),
        "small_choices": str(len(TASKS) * len(SMALL)),
        "small_edge": str([of_cell(task, place) for task in TASKS for place in SMALL].count(30)),
        "cp_flat": f"{max(by_times) - min(by_times):.1f}",
    }
    for task in TASKS:
        ahead, changed = gap(task, "one a cell"), change(task)
        expected[f"{task}_gap"] = f"{ahead['gap']:.1f}"
        expected[f"{task}_gap_ends"] = ends(ahead["interval"])
        expected[f"{task}_change"] = signed(changed["gap"])
        expected[f"{task}_change_ends"] = ends(changed["interval"])
        luck = [max(mean(task, p, k) for k in TIMES) - mean(task, p, of_cell(task, p)) for p in CELLS]
        expected[f"{task}_optimism"] = f"{statistics.mean(luck):.1f}"
        for label in NAMES:
            found = gain(task, label)
            expected[f"{task}_{label}_gain"] = signed(found["gap"])
            expected[f"{task}_{label}_gain_ends"] = ends(found["interval"])
        of_rate, of_size = moves(task, "cp")
        expected |= {f"{task}_cp_by_rate": f"{of_rate:.1f}", f"{task}_cp_by_size": f"{of_size:.1f}"}
    glued = page.glued
    for task in TASKS:
        for name, value in redrawn(task).items():
            found = glued.pop(f"{task}_redrawn_{name}").split(" to ")
            assert [float(x) for x in found] == pytest.approx(value, abs=0.11), "of other dev sets"
    assert glued == expected
    places = [(task, label) for task in TASKS for label in sorted(NAMES)]
    for row, (task, label) in zip(page.rows("over the rates", "over the sizes"), places, strict=True):
        assert (row["task"], row["family"]) == (TASKS[task], NAMES[label])
        found = [float(row[name]) for name in ("over the rates", "over the sizes", "rates, but one", "sizes, but one")]
        expected_moves = [*moves(task, label), *moves(task, label, 3)]
        assert found == pytest.approx(expected_moves, abs=0.05 + 1e-9), "a tenth, on either side of a tie"


def all_alike(task: str, pair: tuple[int, int]) -> bool:
    """Whether all runs of both give one answer."""
    return all(constant(task, place, of_cell(task, place)) == 3 for place in zip(("lora", "cp"), pair, strict=True))


def test_single_budgets(chapter: Chapters) -> None:
    rows = chapter("rates").rows("task", "Holm", "alike")
    clear = []
    for task, of_task in zip(TASKS, [rows[k : k + 4] for k in range(0, 12, 4)], strict=True):
        each = []
        for rank, size in PAIRS:
            cp, lora = ("cp", size), ("lora", rank)
            values = table(task, cp, of_cell(task, cp)) - table(task, lora, of_cell(task, lora))
            # All alike, and so without an error.
            each.append(judged(values.tolist()) if values.any() else {"gap": 0.0, "p": 1.0})
        holm = corrected([found["p"] for found in each])
        for row, (rank, size), found, p in zip(of_task, PAIRS, each, holm, strict=True):
            assert (row["task"], row["LoRA"], row["CP"]) == (TASKS[task], str(rank), str(size))
            if all_alike(task, (rank, size)):
                assert row["CP − LoRA, points"] == "one answer"
                assert {row[name] for name in ("95 % interval", "p", "Holm", "alike")} == {"–"}
                continue
            assert float(row["CP − LoRA, points"]) == pytest.approx(found["gap"], abs=0.05 + 1e-9)
            assert row["Holm"] == f"{p:.3f}"
            clear += [(task, rank)] * (p < 0.05)
    assert clear == [("boolq", 1)], "one is clear"
    assert mean("boolq", ("cp", 11), of_cell("boolq", ("cp", 11))) < max(mean("boolq", ("cp", 11), k) for k in TIMES)
    assert not [place for place in PAIRS[:3] for task in TASKS if all_alike(task, place)]
    assert all_alike("boolq", PAIRS[-1])


def test_what_is_said_of_the_rates(chapter: Chapters) -> None:
    places = [(task, label) for task in TASKS for label in NAMES]
    assert sum(of_rate >= of_size for of_rate, of_size in (moves(*place) for place in places)) == 5, "five of six rows"
    assert sum(of_rate >= of_size for of_rate, of_size in (moves(*place, 3) for place in places)) == 3
    assert all(gap(task, "one a cell")["gap"] > 0 for task in TASKS), "LoRA's mean is the higher one"
    assert all(change(task)["interval"][0] < 0 < change(task)["interval"][1] for task in TASKS), "none changed clearly"
    budgets = {(label, size): {"cp": 5220, "lora": 57600}[label] * size for label, size in CELLS}
    for place, budget in budgets.items():
        gains = mean("rte", place, 30) > mean("rte", place, 10)
        assert gains == (budget <= 57600), "every one up to it rises, every larger one falls"
        if gains:
            risen = judged((table("rte", place, 30) - table("rte", place, 10)).tolist())
            assert risen["interval"][0] < 0, "none clearly"
        if not gains and place[0] == "lora" and place[1] > 2:
            assert mean("rte", place, 30) < mean("rte", ("head", 0)), "ruined"
        for task in TASKS:
            assert not any(unfit(task, place, times) for times in TIMES[:-1]), "none at a lower rate"
            assert not any(constant(task, place, times) for times in TIMES[:-1])
            if budget <= 57600:
                assert not unfit(task, place, 30) + constant(task, place, 30), "all of them larger"
    assert all(line["diverged_at"] is None for line in LINES)
    for rank in (4, 8):
        assert mean("sst2", ("lora", rank), 30) < mean("sst2", ("lora", rank), 10) - 2
    for size in SIZES["cp"]:
        assert min(TIMES, key=lambda k: mean("boolq", ("cp", size), k)) == 1, "lowest at the paper's rate"
    for way in WAYS:
        assert over_the_floor("boolq", way)["one-sided"][0] < 0, "not above the commonest answer"
    assert evenly(PAPERS_WAY)["interval"][0] > 0, "so they do learn BoolQ"
    small = judged((table("rte", ("cp", 4), of_cell("rte", ("cp", 4))) - table("rte", ("lora", 2))).tolist())
    assert small["gap"] < small["error"], "well within its error"


def test_charts(chapter: Chapters) -> None:
    charts = chapter("rates").charts
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
    rates = {line["label"]: set() for line in LINES if line["label"] in PAPERS}
    for line in LINES:
        if line["study"] == "smollm2-rates":
            rates[line["label"]].add(round(line["config"]["learning_rate"] / PAPERS[line["label"]], 6))
    assert set(map(frozenset, rates.values())) == {frozenset({3, 10, 30})}, "three, ten and thirty times"
