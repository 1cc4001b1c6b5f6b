"""What moves a run, on simulated runs whose causes are known."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from simulated import cell

from companion import causes
from companion.causes import CHANCE, ITEMS, MEAN, ORDER, PARTS, TOGETHER, WEIGHTS
from companion.contrasts import on_record
from cpadapt.analysis.cells import Cells
from cpadapt.analysis.statistics import Floats, crossed_effects
from cpadapt.errors import InputError
from cpadapt.records.record import Record

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
        apart.append(crossed_effects(causes.subjects(each_its_own)[MEAN].by_order).second.variance)
        alike.append(crossed_effects(causes.subjects(all_the_same)[MEAN].by_order).second.variance)
    assert np.mean(alike) == pytest.approx(0.2**2, rel=0.2)
    assert np.mean(apart) == pytest.approx(0.2**2 / 4, rel=0.35)


def test_a_draw_is_not_the_order_within_it() -> None:
    """Adapters of one seed share an order on each draw; that makes no draw."""
    rng = np.random.default_rng(3)
    p_values = []
    for _ in range(200):
        within = rng.normal(0, 0.3, (2, 30, 1))
        runs = {c: dataclasses.replace(of, by_draw=of.by_draw + within) for c in CELLS for of in [made(rng)]}
        p_values.append(crossed_effects(causes.subjects(runs)[MEAN].by_draw).second.p_value)
    assert np.mean(np.array(p_values) < 0.05) < 0.09


def test_subjects_are_adapters_their_mean_and_two_differences() -> None:
    runs = {c: made(np.random.default_rng(k)) for k, c in enumerate(CELLS)}
    found = causes.subjects(runs)
    assert list(found) == ["CP 1", "CP 11", "CP 44", "LoRA 1", MEAN, "LoRA 1 − CP 11", "CP 44 − CP 1"]
    assert (found["LoRA 1 − CP 11"].by_draw == runs["lora", 1].by_draw - runs["cp", 11].by_draw).all()
    assert found[MEAN].by_order == pytest.approx(sum(of.by_order for of in runs.values()) / 4)


def test_an_order_that_favours_items_is_seen_on_them() -> None:
    """It moves runs on the items that are asked, and none on no end of them; of chance it is a known part."""
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


def test_what_runs_answer_is_told_by_what_is_right() -> None:
    assert causes.given(np.array([[1.0, 1.0, 0.0, 0.0]]), np.array([True, False, True, False])).tolist() == [
        [1, 0, 0, 1]
    ]


def test_the_order_is_seen_to_move_runs_of_rte() -> None:
    """On the items that are asked, the mean of these adapters; initial weights are not."""
    weights, order = causes.as_asked(causes.subjects(causes.measured("rte"))[MEAN].by_order)
    assert order.p_value < 0.001 < 0.5 < weights.p_value
    assert 100 * math.sqrt(order.variance) == pytest.approx(0.55, abs=0.005)
    (lora,) = (row for row in causes.asked_table(causes.measured("rte")).to_dict("records") if row["of"] == "LoRA 1")
    assert (lora["order (95 %)"][:4], lora["p, order"], lora["order in chance, %"]) == ("0.75", "0.0231", "23")


def test_tables_word_what_is_found() -> None:
    runs = {c: made(np.random.default_rng(k), draw=0.3) for k, c in enumerate(CELLS)}
    (lora,) = (row for row in causes.part_table(runs).to_dict("records") if row["of"] == "LoRA 1")
    found = crossed_effects(runs["lora", 1].by_order)
    shown = (100 * math.sqrt(x) for x in (found.first.variance, *found.first.interval))
    assert lora[f"{WEIGHTS} (95 %)"] == "{:.2f} ({:.2f}–{:.2f})".format(*shown)
    assert lora[f"{TOGETHER} (95 %)"].startswith(f"{100 * math.sqrt(found.together.variance):.2f} (")
    assert lora[CHANCE] == f"{100 * math.sqrt(found.chance):.2f}"
    drawn = causes.draw_table({"sst2": runs, "mine": runs}).to_dict("records")
    assert list(drawn[0]) == ["of", "SST-2 (95 %)", "mine (95 %)"]
    assert [row["of"] for row in drawn] == list(causes.subjects(runs))
    of_draw = crossed_effects(runs["cp", 1].by_draw).second
    assert drawn[0]["mine (95 %)"].startswith(f"{100 * math.sqrt(of_draw.variance):.2f} (")
    still = {c: dataclasses.replace(of, by_order=np.ones((2, 2, 2))) for c, of in runs.items()}
    (row, *_) = causes.part_table(still).to_dict("records")
    assert (row[f"{WEIGHTS} (95 %)"], row[CHANCE]) == ("– (0.00–0.00)", "–")


def test_a_part_that_is_estimated_below_zero_is_drawn_as_zero() -> None:
    runs = {c: made(np.random.default_rng(k), order=0.0) for k, c in enumerate(CELLS)}
    estimated = [v for of in runs.values() for v in causes.variances(crossed_effects(of.by_order)).values()]
    drawn = causes.parts({"sst2": runs})
    assert list(drawn["part"]) == [*PARTS] * len(CELLS)
    assert min(estimated) < 0
    assert list(drawn["variance"]) == [max(variance, 0.0) for variance in estimated]


def test_what_is_a_runs_own() -> None:
    rng = np.random.default_rng(5)
    right = rng.normal(0, 0.2, (200, 1)) + rng.normal(0, 0.5, 50) + rng.normal(0, 1, (200, 50))
    of = Cells({}, {("head", 0): cell(right), ("cp", 1): cell(right), ("lora", 1): cell(np.eye(4))}, {}, 0.5)
    found = causes.own(of)
    assert list(found) == [("cp", 1), ("lora", 1)], "the readout alone is no adapter"
    effect, seen = found["cp", 1]
    assert effect.variance == pytest.approx(0.2**2, rel=0.3)
    assert seen == right.mean(1).var(ddof=1)
    first, second = causes.own_table({"sst2": of, "mine": of}).to_dict("records")
    assert list(first) == ["adapter", "SST-2 (95 %)", "SST-2: share, %", "mine (95 %)", "mine: share, %"]
    assert first["SST-2: share, %"] == first["mine: share, %"] == f"{100 * effect.variance / seen:.0f}"
    assert second["mine (95 %)"].startswith("– (0.00–"), "four runs, each with one item right"
    assert second["mine: share, %"] == "–"


def test_the_same_run_again() -> None:
    rng = np.random.default_rng(4)
    runs = [causes.again(0.8 + rng.normal(0, 0.02, (2, 10))) for _ in range(500)]
    assert np.mean([variance for variance, _ in runs]) == pytest.approx(0.02**2, rel=0.1)
    assert np.mean([low <= 0.02**2 <= high for _, (low, high) in runs]) == pytest.approx(0.95, abs=0.025)
    shown = causes.again_table({"rte": {("cp", 1): np.array([[0.5, 0.75], [0.5, 0.79]])}})
    (row,) = shown.to_dict("records")
    assert (row["adapter"], row["RTE (95 %)"][:6], row["RTE: equal"]) == ("CP 1", "2.00 (", "1 of 2")


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
    assert found.shape == (2, 10)
    assert (found[0] == found[1]).all()
    with pytest.raises(InputError, match="no run with seed 0"):
        causes.repeated(some, [r for r in free if r.config.seed])
    with pytest.raises(InputError, match="no run has the order of its own seed"):
        causes.repeated(free, free)
