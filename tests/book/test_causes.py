"""What moves a run: every number again from the records' own lines, and what is said of them."""

import functools
import itertools
import math
import re
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from by_hand import answers, corrected, read
from scipy.stats import chi2, f

Chapters = Callable[[str], Any]
Cell = tuple[str, int]
CELLS = {("cp", 1): "CP 1", ("cp", 11): "CP 11", ("cp", 44): "CP 44", ("lora", 1): "LoRA 1"}
DIFFERENCES = {"LoRA 1 − CP 11": (("lora", 1), ("cp", 11)), "CP 44 − CP 1": (("cp", 44), ("cp", 1))}
MEAN = "mean of these"
SUBJECTS = (*CELLS.values(), MEAN, *DIFFERENCES)
TASKS = {"sst2": "SST-2", "rte": "RTE"}
PARTS = WEIGHTS, ORDER, TOGETHER, CHANCE, ITEMS = "weights", "order", "together", "chance", "items"


def lines(study: str, task: str, cell: Cell) -> Iterator[dict[str, Any]]:
    for line in read(study):
        if (line["config"]["task"], line["label"], line["config"]["size"]) == (task, *cell):
            yield line


@functools.cache
def of_cell(task: str, cell: Cell, draws: bool = False) -> np.ndarray:
    """`[weights, orders, items]`, or `[seeds, draws, items]`, right or wrong in percent."""
    studies, second = (
        (("smollm2-data-seeds", "smollm2-data-seeds-again"), "data_seed") if draws
        else (("smollm2-orders",), "order_seed")
    )  # fmt: skip
    found = itertools.chain(*(lines(study, task, cell) for study in studies))
    at = {(line["config"]["seed"], line["config"][second]): answers(line["outcome"]) for line in found}
    rows, columns = ((0, 1), range(1, 31)) if draws else (range(10), range(10))
    assert at.keys() == set(itertools.product(rows, columns))
    return 100 * np.array([[at[row, column] for column in columns] for row in rows], dtype=float)


def of_subject(task: str, name: str, draws: bool = False) -> np.ndarray:
    if name == MEAN:
        return sum(of_cell(task, cell, draws) for cell in CELLS) / len(CELLS)
    if name in DIFFERENCES:
        a, b = DIFFERENCES[name]
        return of_cell(task, a, draws) - of_cell(task, b, draws)
    (cell,) = (cell for cell, known in CELLS.items() if known == name)
    return of_cell(task, cell, draws)


@functools.cache
def analysed(task: str, name: str, draws: bool = False) -> dict[str, Any]:
    """The parts of a run's variance in squared points, and interval and p value of each cause.

    Sums of squares as textbooks have them: of sums over the others, less what smaller ones hold.
    """
    x = of_subject(task, name, draws)
    a, b, n = x.shape
    raw = {axes: float((x.sum(tuple({0, 1, 2} - set(axes))) ** 2).sum()) * math.prod(x.shape[k] for k in axes) / x.size
           for count in (0, 1, 2, 3) for axes in itertools.combinations(range(3), count)}  # fmt: skip
    free = {axes: math.prod(x.shape[k] - 1 for k in axes) for axes in raw}
    squares: dict[tuple[int, ...], float] = {}
    for axes in raw:
        within = [fewer for fewer in squares if set(fewer) < set(axes)]
        squares[axes] = raw[axes] - sum(squares[fewer] for fewer in within)
    ms = {axes: of / free[axes] for axes, of in squares.items() if axes}
    rest = ms[0, 1, 2]
    found: dict[str, Any] = {
        WEIGHTS: (ms[0,] - ms[0, 1] - ms[0, 2] + rest) / (b * n),
        ORDER: (ms[1,] - ms[0, 1] - ms[1, 2] + rest) / (a * n),
        TOGETHER: (ms[0, 1] - rest) / n,
        "together ends": ends(ms[0, 1], rest, free[0, 1], free[0, 1, 2], n),
        CHANCE: ((ms[0, 2] - rest) / b + (ms[1, 2] - rest) / a + rest) / n,
        ITEMS: (ms[2,] - ms[0, 2] - ms[1, 2] + rest) / (a * b * n),
    }
    for part, axis, others in ((WEIGHTS, 0, b), (ORDER, 1, a)):
        # On these items: sums over them alone, against the two causes together.
        on_these = x.mean(2)
        by_cause = on_these.mean(1 - axis)
        left = on_these - on_these.mean(0) - on_these.mean(1, keepdims=True) + on_these.mean()
        both = float((left**2).sum()) / free[0, 1]
        square = others * float(by_cause.var(ddof=1))
        found[f"{part} asked"] = (square - both) / others
        found[f"{part} asked ends"] = ends(square, both, free[axis,], free[0, 1], others)
        found[f"{part} asked p"] = float(f.sf(square / both, free[axis,], free[0, 1]))
        found[f"{part} in chance"] = (ms[axis, 2] - rest) / others / n / found[CHANCE]
    for part, axis, per in ((WEIGHTS, 0, b * n), (ORDER, 1, a * n)):
        by_item = ms[axis, 2]
        null = max(ms[0, 1] + by_item - rest, ms[0, 1], by_item)
        spread = ms[0, 1] ** 2 / free[0, 1] + by_item**2 / free[axis, 2] + rest**2 / free[0, 1, 2]
        degrees = max(null**2 / spread, min(free[0, 1], free[axis, 2]))
        found[f"{part} p"] = float(f.sf(ms[axis,] / null, free[axis,], degrees))
        found[f"{part} ends"] = ends(ms[axis,], null, free[axis,], degrees, per)
    return found


def ends(square: float, null: float, free: int, of_null: float, count: int) -> list[float]:
    """Of a variance by its mean square, which is `null` without it."""
    return [max(square / f.ppf(share, free, of_null) - null, 0) / count for share in (0.975, 0.025)]


def average(task: str, part: str) -> float:
    return statistics.mean(analysed(task, name)[part] for name in CELLS.values())


def apart(task: str) -> float:
    """The variance between runs of one adapter on these items."""
    return sum(average(task, part) for part in PARTS if part != ITEMS)


def check_sd(shown: str, variance: float) -> None:
    if shown == "–":
        assert variance <= 0
    else:
        assert float(shown) == pytest.approx(math.sqrt(variance), abs=0.005 + 1e-9)


def check_ends(shown: str, variance: float, ends: list[float]) -> None:
    sd, low, high = re.fullmatch(r"(\S+) \(([^–]+)–(\S+)\)", shown).groups()
    check_sd(sd, variance)
    assert [float(low), float(high)] == pytest.approx([math.sqrt(end) for end in ends], abs=0.0051)


def test_tables_of_parts(chapter: Chapters) -> None:
    tables = [table for table in chapter("causes").tables if CHANCE in table[0]]
    for (titles, *rows), task in zip(tables, TASKS, strict=True):
        assert [row[0] for row in rows] == list(SUBJECTS)
        for row in (dict(zip(titles, row, strict=True)) for row in rows):
            found = analysed(task, row["of"])
            for part in (CHANCE, ITEMS):
                check_sd(row[part], found[part])
            for part in (WEIGHTS, ORDER, TOGETHER):
                check_ends(row[f"{part} (95 %)"], found[part], found[f"{part} ends"])


def test_tables_of_what_is_so_on_these_items(chapter: Chapters) -> None:
    tables = [table for table in chapter("causes").tables if "p, order" in table[0]]
    for (titles, *rows), task in zip(tables, TASKS, strict=True):
        assert [row[0] for row in rows] == list(SUBJECTS)
        for row in (dict(zip(titles, row, strict=True)) for row in rows):
            found = analysed(task, row["of"])
            for part in (WEIGHTS, ORDER):
                check_ends(row[f"{part} (95 %)"], found[f"{part} asked"], found[f"{part} asked ends"])
                p = found[f"{part} asked p"]
                assert row[f"p, {part}"] == ("&lt; 0.0001" if p < 0.0001 else f"{p:.4f}")
                assert row[f"{part} in chance, %"] == f"{100 * max(found[f'{part} in chance'], 0):.0f}"


@functools.cache
def called_commonest(cell: Cell) -> np.ndarray:
    """`[weights, orders]`: the percent of RTE's items that a run calls by the commonest label."""
    (size,) = {line["data"]["sets"]["eval"]["classes"]["entailment"] for line in lines("smollm2-orders", "rte", cell)}
    of_one = [line["outcome"] for line in read("smollm2-rates") if line["config"]["task"] == "rte"]
    alike = [outcome["right"] for outcome in of_one if outcome["correct"] == size]
    commonest = max(alike, key=alike.count)
    assert alike.count(commonest) > 2, "runs that give one answer are right on its items"
    (is_it,) = {tuple(answers(outcome)) for outcome in of_one if outcome["right"] == commonest}
    right = of_cell("rte", cell)
    return np.where(np.array(is_it, dtype=bool), right, 100 - right).mean(2)


def moved_by_order(runs: np.ndarray) -> float:
    """Of `[weights, orders]` the standard deviation that orders make."""
    left = runs - runs.mean(0) - runs.mean(1, keepdims=True) + runs.mean()
    return math.sqrt(runs.mean(0).var(ddof=1) - (left**2).sum() / 81 / 10)


def test_charts(chapter: Chapters) -> None:
    for chart, task in zip(chapter("causes").charts, TASKS, strict=True):
        drawn = {(row["of"], row["part"]): row["points"] for rows in chart["datasets"].values() for row in rows}
        expected = {(name, part): max(analysed(task, name)[part], 0) for name in CELLS.values() for part in PARTS}
        assert drawn == pytest.approx(expected)


def test_the_table_of_draws(chapter: Chapters) -> None:
    rows = chapter("causes").rows("of", "SST-2 (95 %)", "RTE (95 %)")
    assert [row["of"] for row in rows] == list(SUBJECTS)
    for row, (task, name) in itertools.product(rows, TASKS.items()):
        found = analysed(task, row["of"], draws=True)
        check_ends(row[f"{name} (95 %)"], found[ORDER], found[f"{ORDER} ends"])
        assert found[f"{ORDER} ends"][0] == 0, "every interval begins at zero"


@functools.cache
def pairs(task: str, cell: Cell) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The runs that were trained twice."""
    own = {line["config"]["seed"]: line for line in lines("smollm2-orders", task, cell)
           if line["config"]["order_seed"] == line["config"]["seed"]}  # fmt: skip
    free = {line["config"]["seed"]: line for line in lines("smollm2-seeds", task, cell)}
    assert len(own) == 10
    return [(own[seed], free[seed]) for seed in own]


def points(line: dict[str, Any]) -> float:
    return 100 * line["outcome"]["correct"] / line["outcome"]["total"]


def gaps(task: str, cell: Cell) -> list[float]:
    return [points(a) - points(b) for a, b in pairs(task, cell)]


def again(task: str, cell: Cell) -> float:
    return statistics.mean(gap**2 / 2 for gap in gaps(task, cell))


def test_the_table_of_repetitions(chapter: Chapters) -> None:
    rows = chapter("causes").rows("SST-2: equal")
    assert [row["adapter"] for row in rows] == list(CELLS.values())
    for (row, cell), (task, name) in itertools.product(zip(rows, CELLS, strict=True), TASKS.items()):
        ends = [10 * again(task, cell) / chi2.ppf(share, 10) for share in (0.975, 0.025)]
        check_ends(row[f"{name} (95 %)"], again(task, cell), ends)
        assert row[f"{name}: equal"] == f"{gaps(task, cell).count(0)} of 10"


def test_numbers(chapter: Chapters) -> None:
    data = next(lines("smollm2-data-seeds", "rte", ("cp", 1)))["data"]
    there = data["source"]["train"]["rows"] - data["source"]["train"]["left_out_repeats"]
    below, sd = beside_the_shared_draw()
    expected = {
        "starts": "10", "orders": "10", "seeds": "2", "draws": "30", "adapters": "4", "repeats": "10",
        "most_cp": "44", "lora_own_high": f"{math.sqrt(own('sst2', ('lora', 1))['ends'][1]):.2f}",
        "mean_order_p": f"{holm('sst2')[MEAN, ORDER]:.3f}", "lora_order_p": f"{holm('sst2')['LoRA 1', ORDER]:.3f}",
        "next_p": f"{holm('sst2')['CP 44', WEIGHTS]:.2f}",
        "widest": f"{max(map(abs, gaps('rte', ('cp', 11)))):.1f}",
        "shared_below": f"{below:.1f}", "draws_sd": f"{sd:.2f}",
        "rte_alike": f"{100 * data['sets']['train']['size'] / there:.0f}",
    }  # fmt: skip
    expected |= {
        "rte_order_asked": f"{math.sqrt(analysed('rte', MEAN)['order asked']):.2f}",
        "rte_order_asked_p": f"{analysed('rte', MEAN)['order asked p']:.4f}",
        "rte_order_holm": f"{holm_as_asked()[MEAN, ORDER]:.3f}",
        "rte_order_given": f"{moved_by_order(np.mean([called_commonest(cell) for cell in CELLS], axis=0)):.1f}",
        "rte_order_given_lora": f"{moved_by_order(called_commonest(('lora', 1))):.1f}",
        "rte_lora_by_order": f"{100 * analysed('rte', 'LoRA 1')['order in chance']:.0f}",
        "sst2_lora_by_order": f"{100 * analysed('sst2', 'LoRA 1')['order in chance']:.0f}",
        "sst2_one_by_weights": f"{100 * analysed('sst2', 'CP 1')['weights in chance']:.0f}",
    }
    expected |= {f"sst2_{part}": f"{math.sqrt(average('sst2', part)):.2f}" for part in (WEIGHTS, ORDER, TOGETHER)}
    for task in TASKS:
        of_draw = analysed(task, MEAN, draws=True)[f"{ORDER} ends"][1]
        expected |= {
            f"{task}_{name}": f"{math.sqrt(variance):.2f}"
            for name, variance in {
                "chance": average(task, CHANCE), "items": average(task, ITEMS),
                "any": average(task, CHANCE) + average(task, ITEMS), "draw_high": of_draw,
                "again": statistics.mean(again(task, cell) for cell in CELLS),
            }.items()
        }  # fmt: skip
        expected[f"{task}_rounding"] = f"{100 * statistics.mean(halves(task)) / apart(task):.0f}"
    for task in ("sst2", "rte", "boolq"):
        of = [own(task, cell) for cell in CELLS]
        share = sum(each["variance"] for each in of) / sum(each["seen"] for each in of)
        expected[f"{task}_own"] = f"{100 * share:.0f}"
    glued = chapter("causes").glued
    assert {name: of for name, of in glued.items() if not name.endswith("_ends")} == expected
    for task in TASKS:
        drawn = np.random.default_rng(1).choice(halves(task), (4000, 40)).mean(1) / apart(task) * 100
        low, high = map(float, glued[f"{task}_rounding_ends"].split(" to "))
        assert [low, high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=2.5)


def halves(task: str) -> list[float]:
    """Of each pair the square of its difference, halved."""
    return [gap**2 / 2 for cell in CELLS for gap in gaps(task, cell)]


@functools.cache
def own(task: str, cell: Cell) -> dict[str, Any]:
    """What many seeds do on any items: its variance and interval, and the variance seen on these."""
    study = "smollm2-seeds-boolq" if task == "boolq" else "smollm2-seeds"
    at = {line["config"]["seed"]: answers(line["outcome"]) for line in lines(study, task, cell)}
    x = 100 * np.array([at[seed] for seed in range(30 if task == "boolq" else 100)], dtype=float)
    seeds, items = x.shape
    left = x - x.mean(1, keepdims=True) - x.mean(0) + x.mean()
    free = (seeds - 1) * (items - 1)
    rest, seen = float((left**2).sum()) / free, statistics.variance(x.mean(1).tolist())
    return {"variance": seen - rest / items, "seen": seen, "ends": ends(items * seen, rest, seeds - 1, free, items)}


def test_the_table_of_what_is_a_runs_own(chapter: Chapters) -> None:
    rows = chapter("causes").rows("adapter", "BoolQ: share, %")
    assert [row["adapter"] for row in rows] == list(CELLS.values())
    for (row, cell), (task, name) in itertools.product(
        zip(rows, CELLS, strict=True), (TASKS | {"boolq": "BoolQ"}).items()
    ):
        found = own(task, cell)
        check_ends(row[f"{name} (95 %)"], found["variance"], found["ends"])
        share = 100 * found["variance"] / found["seen"]
        assert row[f"{name}: share, %"] == (f"{share:.0f}" if share > 0 else "–")


def by_seed(cell: Cell) -> list[float]:
    """Of SST-2's hundred seeds, in percent."""
    at = {line["config"]["seed"]: points(line) for line in lines("smollm2-seeds", "sst2", cell)}
    return [at[seed] for seed in range(100)]


def beside_the_shared_draw() -> tuple[float, float]:
    """How far SST-2's shared draw is below the mean of the others, and how far these are from it."""
    others = of_subject("sst2", MEAN, draws=True).mean((0, 2)).tolist()
    shared = statistics.mean(statistics.mean(by_seed(cell)) for cell in CELLS)
    assert shared < min(others)
    return statistics.mean(others) - shared, statistics.stdev(others)


@functools.cache
def holm(task: str) -> dict[tuple[str, str], float]:
    """The p values of weights and order, corrected over a task's table."""
    p = {(name, part): analysed(task, name)[f"{part} p"] for name in SUBJECTS for part in (WEIGHTS, ORDER)}
    return dict(zip(p, corrected(list(p.values())), strict=True))


def holm_as_asked() -> dict[tuple[str, str], float]:
    p = {(name, part): analysed("rte", name)[f"{part} asked p"] for name in SUBJECTS for part in (WEIGHTS, ORDER)}
    return dict(zip(p, corrected(list(p.values())), strict=True))


def test_what_is_said_of_weights_and_order_on_these_items() -> None:
    clear = {tested for tested, p in holm_as_asked().items() if p < 0.05}
    assert clear == {(MEAN, ORDER)}, "the order does move the mean on RTE's items, and weights nothing"
    for task, cell in itertools.product(TASKS, CELLS.values()):
        found = analysed(task, cell)
        if cell in ("LoRA 1", "CP 1"):
            moves = found["order in chance"] > found["weights in chance"]
            assert moves == (cell == "LoRA 1"), "order moves LoRA, the start moves small CP"


def test_what_is_said_of_weights_and_order() -> None:
    clear = {task: {tested for tested, p in holm(task).items() if p < 0.05} for task in TASKS}
    assert clear == {"sst2": {(MEAN, ORDER), ("LoRA 1", ORDER)}, "rte": set()}
    by_themselves = {name for name in SUBJECTS if analysed("sst2", name)["weights ends"][0] > 0}
    assert by_themselves == {"CP 44", MEAN}
    assert f"{holm('sst2')['CP 44', WEIGHTS]:.2f}" == f"{holm('sst2')[MEAN, WEIGHTS]:.2f}", "one number for both"
    weights, order, together = (average("sst2", part) for part in (WEIGHTS, ORDER, TOGETHER))
    assert math.sqrt(order / weights) == pytest.approx(1, abs=0.15), "count about alike"
    assert max(weights, order) < together, "neither for as much as the two together"
    assert max(average("rte", part) for part in (WEIGHTS, ORDER)) < 0, "on RTE nothing is shown"
    empty = [name for name in SUBJECTS if analysed("rte", name)["weights ends"][1] == 0]
    assert empty == ["CP 1"], "nothing but zeros"
    for task in TASKS:
        assert average(task, CHANCE) > apart(task) / 2, "the larger part"
        assert sum(own(task, cell)["variance"] for cell in CELLS) < sum(own(task, cell)["seen"] for cell in CELLS) / 2
        assert math.sqrt(average(task, ITEMS) / apart(task)) == pytest.approx(1, abs=0.1), "by about as much"


def test_what_is_said_of_the_same_run_again() -> None:
    commits = []
    for task, cell in itertools.product(TASKS, CELLS):
        for a, b in pairs(task, cell):
            assert a["config"] | {"order_seed": None} == b["config"] | {"order_seed": None}
            assert a["data_fingerprint"] == b["data_fingerprint"]
            assert a["provenance"]["device"] == b["provenance"]["device"]
            assert a["provenance"]["packages"] == b["provenance"]["packages"]
            assert a["cost"]["bank_runs"] != b["cost"]["bank_runs"], "in banks of other sizes"
            commits.append((a["provenance"]["git_commit"], b["provenance"]["git_commit"]))
    assert sum(a != b for a, b in commits) > 0.9 * len(commits), "nearly all of two versions"
    for a, b in pairs("rte", ("cp", 1)):
        assert a["evaluations"] == b["evaluations"], "to the last digit"
        assert a["outcome"] == b["outcome"]
    elsewhere = [
        pair
        for task, cell in itertools.product(TASKS, CELLS)
        if (task, cell) != ("rte", ("cp", 1))
        for pair in pairs(task, cell)
    ]
    losses = [tuple(line["evaluations"][0]["train_loss"] for line in pair) for pair in elsewhere]
    shares = [abs(a / b - 1) for a, b in losses]
    assert sum(x > 0 for x in shares) > 0.9 * len(shares), "most differ"
    assert statistics.median(shares) < 0.01, "a little"
    assert 0 < sum(a["best_step"] != b["best_step"] for a, b in elsewhere) < len(elsewhere) / 2, "some"
    squares = [gap**2 for gap in gaps("rte", ("cp", 11))]
    assert max(squares) > 0.85 * sum(squares), "hangs on a single pair"


def test_what_is_said_of_draws_and_items() -> None:
    below, sd = beside_the_shared_draw()
    assert below > 3 * sd, "one draw does stand out"
    for task, (name, cells) in itertools.product(TASKS, DIFFERENCES.items()):
        alone = min(analysed(task, CELLS[cell])[ITEMS] for cell in cells)
        assert analysed(task, name)[ITEMS] < alone / 4, "most of it drops out"
    # Of one run asked other items the variance is that of a share of so many, as textbooks have it.
    for task in TASKS:
        of_share = statistics.mean(
            float(np.mean(x := of_cell(task, cell)) * (100 - np.mean(x))) / x.shape[2] for cell in CELLS
        )
        assert average(task, CHANCE) + average(task, ITEMS) == pytest.approx(of_share, rel=0.03)
