"""What moves a run, on simulated runs whose causes are known."""

import dataclasses
import itertools
import math

import numpy as np
import pandas as pd
import pytest
from by_hand import answers, read
from scipy.stats import f
from simulated import cell

from companion import causes, quantities
from companion.causes import ALL, CHANCE, ITEMS, ORDER, TOGETHER, WEIGHTS
from companion.contrasts import on_record
from cpadapt.analysis.cells import Cells
from cpadapt.analysis.statistics import Floats, crossed_effects
from cpadapt.errors import InputError
from cpadapt.records.record import Record

pytestmark = pytest.mark.slow

CELLS = [("cp", 1), ("cp", 11), ("cp", 44), ("lora", 1)]


def made(rng: np.random.Generator, shared: Floats | float = 0.0, order: float = 0.1, draw: float = 0.0) -> causes.Runs:
    """Weights move a run by 0.2, the two together by 0.15, items by 0.5, and each answer by 1 of its own."""

    def table(weights: float, of_second: Floats | float, second: float, shape: tuple[int, int, int]) -> Floats:
        a, b, items = shape
        seconds = rng.normal(0, second, (b, 1)) + of_second
        return (
            rng.normal(0, weights, (a, 1, 1)) + seconds + rng.normal(0, 0.15, (a, b, 1))
            + rng.normal(0, 0.5, items) + rng.normal(0, 1, shape)
        )  # fmt: skip

    return causes.Runs(table(0.2, shared, order, (10, 10, 40)), table(0.2, 0.0, draw, (2, 30, 40)))


def test_each_part_is_that_of_its_cause() -> None:
    rng = np.random.default_rng(0)
    found = pd.DataFrame([causes.on_average({c: made(rng) for c in CELLS}) for _ in range(150)]).mean()
    truth = {WEIGHTS: 0.2**2, ORDER: 0.1**2, TOGETHER: 0.15**2, CHANCE: 1 / 40, ITEMS: 0.5**2 / 40}
    assert found.to_dict() == pytest.approx(truth, rel=0.12)


def test_parts_that_are_none_are_none_on_average() -> None:
    """Averages are of what is estimated below zero too."""
    rng = np.random.default_rng(1)
    found = [causes.on_average({c: made(rng, order=0.0) for c in CELLS})[ORDER] for _ in range(150)]
    assert abs(np.mean(found)) < 3 * np.std(found) / math.sqrt(150)
    assert min(found) < 0


def test_what_moves_adapters_alike_is_seen_in_their_mean() -> None:
    rng = np.random.default_rng(2)
    apart, alike = [], []
    for _ in range(60):
        shared = rng.normal(0, 0.2, (10, 1))
        each_its_own = {c: made(rng, order=0.2) for c in CELLS}
        all_the_same = {c: made(rng, shared=shared, order=0.0) for c in CELLS}
        apart.append(crossed_effects(causes.subjects(each_its_own)[ALL].by_order).second.variance)
        alike.append(crossed_effects(causes.subjects(all_the_same)[ALL].by_order).second.variance)
    assert np.mean(alike) == pytest.approx(0.2**2, rel=0.2)
    assert np.mean(apart) == pytest.approx(0.2**2 / 4, rel=0.35)


def test_a_draw_is_not_the_order_within_it() -> None:
    """Adapters of one seed share an order on each draw; that makes no draw."""
    rng = np.random.default_rng(3)
    p_values = []
    for _ in range(200):
        within = rng.normal(0, 0.3, (2, 30, 1))
        runs = {c: dataclasses.replace(one, by_draw=one.by_draw + within) for c in CELLS for one in [made(rng)]}
        p_values.append(crossed_effects(causes.subjects(runs)[ALL].by_draw).second.p_value)
    assert np.mean(np.array(p_values) < 0.05) < 0.09


def test_subjects_are_adapters_their_mean_and_two_differences() -> None:
    runs = {c: made(np.random.default_rng(k)) for k, c in enumerate(CELLS)}
    found = causes.subjects(runs)
    assert list(found) == list(causes.SUBJECTS) == list(causes.subject_names())
    assert [*causes.subject_names().values()] == [
        "CP 1", "CP 11", "CP 44", "LoRA 1", "mean of these", "LoRA 1 − CP 11", "CP 44 − CP 1",
    ]  # fmt: skip
    assert found["cp44"] is runs["cp", 44]
    assert (found["lora1_cp11"].by_draw == runs["lora", 1].by_draw - runs["cp", 11].by_draw).all()
    assert found[ALL].by_order == pytest.approx(sum(one.by_order for one in runs.values()) / 4)


def test_an_order_that_favours_items_is_seen_on_them() -> None:
    """It moves runs on the items that are asked, and none on unlimited items; of chance it is a known part."""
    rng = np.random.default_rng(6)
    asked, endless, shares = [], [], []
    for _ in range(150):
        by_item = rng.normal(0, 0.6, (10, 40))
        right = rng.normal(0, 0.5, 40) + by_item + rng.normal(0, 0.8, (10, 10, 40))
        (weights, order), found = causes.as_asked(right), crossed_effects(right)
        asked.append((weights.p_value, order.p_value, order.variance))
        endless.append(found.second.p_value)
        shares.append((found.first_by_item.variance / found.chance, found.second_by_item.variance / found.chance))
    of_weights, of_order, variances = np.array(asked).T
    assert np.mean(of_weights < 0.05) == pytest.approx(0.05, abs=0.04)
    assert np.mean(of_order < 0.05) > 0.9
    assert np.mean(variances) == pytest.approx(0.6**2 / 40, rel=0.15)
    assert np.mean(np.array(endless) < 0.05) < 0.09, "not so on any items"
    assert np.mean(shares, axis=0) == pytest.approx([0, 0.36], abs=0.01)


def test_tables_print_quantities_and_a_dash_for_none() -> None:
    (lora,) = (row for row in causes.asked_table("rte").to_dict("records") if row["cell or pair"] == "LoRA 1")
    assert lora["order (95 %)"].startswith("0.75 (")
    assert (lora["p, order"], lora["order in chance, %"]) == ("0.0231", "23")
    first, *_ = causes.part_table("rte").to_dict("records")
    assert (first["cell or pair"], first["weights (95 %)"]) == ("CP 1", "– (0.00–0.00)")
    assert first[CHANCE] == quantities.value("causes.chance.rte.cp1").text()
    drawn = causes.draw_table(["sst2", "rte"]).to_dict("records")
    assert list(drawn[0]) == ["cell or pair", "SST-2 (95 %)", "RTE (95 %)"]
    (row, *_) = causes.again_table(["rte"]).to_dict("records")
    assert row == {"adapter": "CP 1", "RTE (95 %)": "– (0.00–0.00)", "RTE: equal": "10 of 10"}
    own = causes.own_table(["boolq"]).to_dict("records")[-1]
    assert own["BoolQ: share, %"] == quantities.value("causes.own_share.boolq.lora1").text()


def test_causes_are_drawn_with_zero_where_nothing_is_seen() -> None:
    drawn = causes.parts(["sst2", "rte"])
    assert list(drawn["part"].unique()) == [
        "luck on items", "initial weights", "order", "weights with order", "another bank", "items asked",
    ]  # fmt: skip
    at = drawn.set_index(["part", "task"])["sd"]
    assert at["initial weights", "rte"] == 0
    assert at["another bank", "sst2"] == pytest.approx(quantities.value("causes.again.sst2").value / 100)


def test_what_is_a_runs_own() -> None:
    rng = np.random.default_rng(5)
    right = rng.normal(0, 0.2, (200, 1)) + rng.normal(0, 0.5, 50) + rng.normal(0, 1, (200, 50))
    cells = Cells({}, {("head", 0): cell(right), ("cp", 1): cell(right), ("lora", 1): cell(np.eye(4))}, {}, 0.5)
    found = causes.own(cells)
    assert list(found) == [("cp", 1), ("lora", 1)], "the head alone is no adapter"
    effect, seen = found["cp", 1]
    assert effect.variance == pytest.approx(0.2**2, rel=0.3)
    assert seen == right.mean(1).var(ddof=1)
    assert found["lora", 1][0].variance < 0, "four runs, each with one item right"


def test_the_same_run_again() -> None:
    rng = np.random.default_rng(4)
    runs = [causes.again(0.8 + rng.normal(0, 0.02, (2, 10))) for _ in range(500)]
    assert np.mean([variance for variance, _ in runs]) == pytest.approx(0.02**2, rel=0.1)
    assert np.mean([low <= 0.02**2 <= high for _, (low, high) in runs]) == pytest.approx(0.95, abs=0.025)
    assert causes.half_squares(np.array([[0.5, 0.75], [0.5, 0.79]])) == pytest.approx([0, 0.0008])


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return [r for r in on_record(["smollm2-orders"]) if (r.config.task, r.config.size) == ("rte", 1)]


def of_family(records: list[Record], family: str) -> list[Record]:
    return [r for r in records if r.config.family == family]


def crossed(records: list[Record]) -> Floats:
    return causes.crossed(records, lambda c: (c.seed, c.order))


def test_runs_are_crossed_by_their_causes(records: list[Record]) -> None:
    some = of_family(records, "cp")
    found = crossed(some[::-1])
    assert found.shape == (10, 10, 277)
    for record in some:
        right = found[record.config.seed, record.config.order_seed]
        assert right.tolist() == [right for _, right in sorted(record.outcome.right_by_row.items())]


def test_what_is_not_crossed_is_refused(records: list[Record]) -> None:
    some = of_family(records, "cp")
    with pytest.raises(InputError, match=r"no run is at \(0, 0\)"):
        crossed([r for r in some if r.config.seed + r.config.order_seed])
    with pytest.raises(InputError, match=r"two runs are at \(0, 0\)"):
        crossed(records)
    with pytest.raises(InputError, match="no outcome"):
        crossed([dataclasses.replace(some[0], outcome=None)])
    with pytest.raises(InputError, match="no runs"):
        crossed([])
    (other,) = (r for r in on_record(["smollm2-orders"]) if r.config.task == "sst2" and r.label == "cp"
                and (r.config.size, r.config.seed, r.config.order_seed) == (1, 0, 1))  # fmt: skip
    first = next(r for r in some if (r.config.seed, r.config.order_seed) == (0, 0))
    with pytest.raises(InputError, match="not asked the same items"):
        crossed([first, other])


def test_only_a_seeds_own_order_makes_its_run_again(records: list[Record]) -> None:
    some = of_family(records, "lora")
    free = [
        dataclasses.replace(r, config=dataclasses.replace(r.config, order_seed=None))
        for r in reversed(some)
        if r.config.seed == r.config.order_seed
    ]
    found = causes.repeated(some, free)
    assert [(a.config.seed, b.config.seed) for a, b in found] == [(seed, seed) for seed in range(10)]
    twice = causes.accuracies(found)
    assert twice.shape == (2, 10)
    assert (twice[0] == twice[1]).all()
    with pytest.raises(InputError, match="no run with seed 0"):
        causes.repeated(some, [r for r in free if r.config.seed])
    with pytest.raises(InputError, match="no run has the order of its own seed"):
        causes.repeated(free, free)


def test_trained_twice_are_the_same_runs_in_other_banks() -> None:
    """What the chapter says of its pairs: nothing differs but bank and version, and so do losses, a little."""
    pairs = {(task, cell): causes.pairs_of(task, cell) for task in ("sst2", "rte") for cell in CELLS}
    everywhere = [pair for of_cell in pairs.values() for pair in of_cell]
    for a, b in everywhere:
        assert dataclasses.replace(a.config, order_seed=None) == b.config
        assert a.data_fingerprint == b.data_fingerprint
        assert (a.provenance.device, a.provenance.packages) == (b.provenance.device, b.provenance.packages)
        assert a.cost.bank_runs != b.cost.bank_runs
    assert all((a.evaluations, a.outcome) == (b.evaluations, b.outcome) for a, b in pairs["rte", ("cp", 1)])
    commits = [[record.provenance.git_commit for record in pair] for pair in everywhere]
    assert sum(a != b for a, b in commits) > 0.9 * len(commits), "nearly all of two versions"
    elsewhere = [pair for place, of_cell in pairs.items() if place != ("rte", ("cp", 1)) for pair in of_cell]
    apart = [abs(a.evaluations[0].train_loss / b.evaluations[0].train_loss - 1) for a, b in elsewhere]
    assert sum(x > 0 for x in apart) > 0.9 * len(apart), "most differ"
    assert np.median(apart) < 0.01, "a little"
    assert 0 < sum(a.best_step != b.best_step for a, b in elsewhere) < len(elsewhere) / 2, "some"


def test_parts_of_a_real_table_by_hand() -> None:
    """RTE's LoRA 1 from the records' own lines, by sums of squares as textbooks have them."""
    at = {(line["config"]["seed"], line["config"]["order_seed"]): answers(line["outcome"])
          for line in read("smollm2-orders")
          if (line["config"]["task"], line["label"], line["config"]["size"]) == ("rte", "lora", 1)}  # fmt: skip
    x = 100 * np.array([[at[row, column] for column in range(10)] for row in range(10)], dtype=float)
    raw = {axes: float((x.sum(tuple({0, 1, 2} - set(axes))) ** 2).sum()) * math.prod(x.shape[k] for k in axes) / x.size
           for count in range(4) for axes in itertools.combinations(range(3), count)}  # fmt: skip
    squares: dict[tuple[int, ...], float] = {}
    for axes in raw:
        squares[axes] = raw[axes] - sum(square for fewer, square in squares.items() if set(fewer) < set(axes))
    free = {axes: math.prod(x.shape[k] - 1 for k in axes) for axes in raw}
    ms = {axes: square / free[axes] for axes, square in squares.items()}
    (a, b, n), rest, both = x.shape, ms[0, 1, 2], ms[0, 1]
    null = max(both + ms[1, 2] - rest, both, ms[1, 2])
    degrees = null**2 / (both**2 / free[0, 1] + ms[1, 2] ** 2 / free[1, 2] + rest**2 / free[0, 1, 2])
    ends = [
        math.sqrt(max(ms[1,] / f.ppf(share, free[1,], max(degrees, 81)) - null, 0) / (a * n))
        for share in (0.975, 0.025)
    ]
    of_order = quantities.value("causes.effect.rte.lora1.order")
    assert of_order.value == pytest.approx(math.sqrt(max(ms[1,] - both - ms[1, 2] + rest, 0) / (a * n)))
    assert [of_order.low, of_order.high] == pytest.approx(ends)
    of_items = (ms[2,] - ms[0, 2] - ms[1, 2] + rest) / (a * b * n)
    assert quantities.value("causes.items.rte.lora1").value == pytest.approx(math.sqrt(of_items))
    chance = ((ms[0, 2] - rest) / b + (ms[1, 2] - rest) / a + rest) / n
    assert quantities.value("causes.in_chance.rte.lora1.order").value == pytest.approx(
        100 * (ms[1, 2] - rest) / a / n / chance
    )
    on_these = x.mean(2)
    left = on_these - on_these.mean(0) - on_these.mean(1, keepdims=True) + on_these.mean()
    variance = float(on_these.mean(0).var(ddof=1)) - float((left**2).sum()) / 81 / 10
    assert quantities.value("causes.asked.rte.lora1.order").value == pytest.approx(math.sqrt(variance))


def test_a_runs_own_on_a_real_table_by_hand() -> None:
    """BoolQ's, from the records' own lines."""
    own = seen = 0.0
    for label, size in CELLS:
        runs = [answers(line["outcome"]) for line in read("smollm2-seeds-boolq")
                if (line["label"], line["config"]["size"]) == (label, size)]  # fmt: skip
        x = np.array(runs, dtype=float)
        left = x - x.mean(1, keepdims=True) - x.mean(0) + x.mean()
        between, rest = x.mean(1).var(ddof=1), (left**2).sum() / (x.shape[0] - 1) / (x.shape[1] - 1)
        own, seen = own + between - rest / x.shape[1], seen + between
    assert quantities.value("causes.own.boolq").value == pytest.approx(100 * own / seen)
