"""Statistics on simulated runs, whose truth is known: intervals cover it, and nulls are rejected as often as said."""

import dataclasses
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from by_hand import corrected, judged
from scipy.stats import f
from simulated import Simulation, cell

from cpadapt.analysis.statistics import (
    agreement,
    best_of,
    compare,
    crossed_effects,
    estimate,
    holm,
    items_needed,
    outcomes,
    partly_crossed,
    plateau,
    pooled,
    require_pairs,
    resampled_means,
    seed_effect,
    seeds_needed,
    smallest_effect,
)
from cpadapt.errors import InputError
from cpadapt.records.record import pack_bitmap
from cpadapt.records.store import load_records

ROOT = Path(__file__).parents[2]
ROUNDS = 400
MARGIN = 0.03


@pytest.mark.parametrize(("seeds", "items"), [(3, 277), (5, 100), (20, 277)])
@pytest.mark.parametrize("seed_sd", [0.0, 0.3])
@pytest.mark.slow
def test_intervals_cover_the_truth_as_often_as_they_say(seeds: int, items: int, seed_sd: float) -> None:
    rng = np.random.default_rng(0)
    world = Simulation(seeds, items, seed_sd)
    covered, within_seeds = 0, 0
    for _ in range(ROUNDS):
        (runs,) = world.draw(rng, [0.8])
        low, high = estimate(runs.right).interval()
        covered += low <= 0.8 <= high
        by_seed = runs.right.mean(1)
        within_seeds += abs(by_seed.mean() - 0.8) <= 2 * by_seed.std(ddof=1) / sqrt(seeds)
    assert 0.92 <= covered / ROUNDS <= 0.99
    # Which the usual mean and deviation over seeds do not: they leave the items out.
    assert within_seeds / ROUNDS < 0.9


@pytest.mark.parametrize(("seeds", "items"), [(3, 277), (10, 277), (30, 100)])
def test_a_difference_that_is_none_is_seldom_found(seeds: int, items: int) -> None:
    rng = np.random.default_rng(1)
    found = sum(compare(*Simulation(seeds, items).draw(rng, [0.75, 0.75])).p_value() < 0.05 for _ in range(ROUNDS))
    assert found / ROUNDS < 0.075


def test_a_difference_is_found_as_often_as_its_power_says() -> None:
    rng = np.random.default_rng(2)
    world = Simulation(10, 1000)
    pairs = [compare(*world.draw(rng, [0.78, 0.75])) for _ in range(ROUNDS)]
    said = np.mean([pair.power(0.03, 10, 1000) for pair in pairs])
    assert np.mean([pair.p_value() < 0.05 for pair in pairs]) == pytest.approx(said, abs=0.1)
    # More seeds and items show more.
    assert pairs[0].power(0.03, 40, 4000) > pairs[0].power(0.03, 10, 1000) > pairs[0].power(0.03, 3, 1000)
    assert pairs[0].power(1.0, 10, 1000) == pytest.approx(1)


def test_power_holds_with_three_seeds() -> None:
    """Of a table of normal values, whose variances are known."""
    rng = np.random.default_rng(14)
    for seed_sd, item_sd in ((1.0, 6.0), (1.0, 12.0), (0.3, 6.0)):
        known = estimate(rng.normal(0, 1, (2, 2)))
        known = dataclasses.replace(known, seed_variance=seed_sd**2, item_variance=item_sd**2, rest_variance=1.0)
        effect = 3 * known.error_with(3, 100)
        found = 0
        for _ in range(ROUNDS):
            values = effect + rng.normal(0, seed_sd, (3, 1)) + rng.normal(0, item_sd, 100) + rng.normal(0, 1, (3, 100))
            found += estimate(values).p_value() < 0.05
        assert found / ROUNDS == pytest.approx(known.power(effect, 3, 100), abs=0.09)


@pytest.mark.slow
def test_a_difference_as_large_as_the_margin_is_seldom_called_equivalent() -> None:
    rng = np.random.default_rng(3)
    world = Simulation(10, 1000)
    apart = [compare(*world.draw(rng, [0.8, 0.8 - MARGIN])) for _ in range(ROUNDS)]
    assert sum(pair.equivalence_p_value(MARGIN) < 0.05 for pair in apart) / ROUNDS < 0.075
    # And none, with enough of both, mostly is.
    pairs = [compare(*Simulation(40, 4000).draw(rng, [0.8, 0.8])) for _ in range(50)]
    assert sum(pair.equivalence_p_value(2 * MARGIN) < 0.05 for pair in pairs) > 45


def test_two_one_sided_tests_agree_with_the_ninety_per_cent_interval() -> None:
    rng = np.random.default_rng(4)
    for _ in range(50):
        pair = compare(*Simulation(5, 300).draw(rng, [0.8, 0.79]))
        low, high = pair.interval(0.9)
        assert (pair.equivalence_p_value(MARGIN) < 0.05) == (low > -MARGIN and high < MARGIN)


def test_errors_are_those_of_the_textbook() -> None:
    """Variance components of a table whose effects are known, large enough for the estimates to be near."""
    rng = np.random.default_rng(5)
    values = 0.5 + rng.normal(0, 2, (400, 1)) + rng.normal(0, 3, 500) + rng.normal(0, 1, (400, 500))
    got = estimate(values)
    assert got.seed_variance == pytest.approx(4, rel=0.2)
    assert got.item_variance == pytest.approx(9, rel=0.2)
    assert got.rest_variance == pytest.approx(1, rel=0.05)
    assert got.standard_error == pytest.approx(sqrt(4 / 400 + 9 / 500 + 1 / 200_000), rel=0.1)
    assert got.error_with(400, 500) == pytest.approx(got.standard_error)
    assert 400 < got.degrees < 900


def test_an_estimate_is_what_it_is_by_hand() -> None:
    rng = np.random.default_rng(13)
    for seeds, items in ((2, 5), (3, 277), (20, 30)):
        runs = Simulation(seeds, items).draw(rng, [0.8, 0.7])
        for values in (runs[0].right, runs[0].right - runs[1].right):
            got, expected = estimate(values), judged(values.tolist())
            assert 100 * got.mean == pytest.approx(expected["gap"])
            assert 100 * got.standard_error == pytest.approx(expected["error"])
            assert [100 * end for end in got.interval()] == pytest.approx(list(expected["interval"]))
            assert got.p_value() == pytest.approx(expected["p"])
    p_values = rng.random(9) / 10
    assert holm(p_values) == pytest.approx(corrected(p_values.tolist()))


def test_pooled_tables_have_the_mean_of_their_squares() -> None:
    rng = np.random.default_rng(15)
    tables = [rng.normal(k, 1, (3, 40)) for k in range(4)]
    found = pooled(tables)
    assert found.mean == pytest.approx(1.5, abs=0.2)
    each = [estimate(table) for table in tables]
    assert found.rest_variance == pytest.approx(np.mean([e.rest_variance for e in each]))
    by_hand = np.mean([40 * t.mean(1).var(ddof=1) for t in tables])
    assert found.seed_variance == pytest.approx(max(by_hand - found.rest_variance, 0) / 40)
    assert pooled(tables[:1]) == each[0]
    with pytest.raises(
        InputError, match=r"the same numbers of seeds and items can be pooled, not of \[\(2, 40\), \(3, 40\)\]"
    ):
        pooled([*tables, tables[0][:2]])
    with pytest.raises(InputError, match=r"not of \[\]"):
        pooled([])


def test_pooled_tables_find_the_true_variances() -> None:
    rng = np.random.default_rng(16)
    sds = {"seed": 0.2, "item": 0.5, "rest": 1.0}
    tables = [
        rng.normal(0, sds["seed"], (3, 1)) + rng.normal(0, sds["item"], 300) + rng.normal(0, sds["rest"], (3, 300))
        for _ in range(200)
    ]
    found = pooled(tables)
    for name, sd in sds.items():
        assert getattr(found, f"{name}_variance") == pytest.approx(sd**2, rel=0.15)
    # Which three seeds of one table do not.
    of_one = [estimate(table).seed_variance for table in tables]
    assert np.std(of_one) > 0.8 * sds["seed"] ** 2


def crossed(rng: np.random.Generator, sds: tuple[float, ...], shape: tuple[int, int, int] = (6, 8, 40)) -> np.ndarray:
    """Of two causes and items: the sd of each, of the two causes together, of each with the items, and of the rest."""
    axes = ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))
    sizes = ([size if axis in each else 1 for axis, size in enumerate(shape)] for each in axes)
    return sum(rng.normal(0, sd, size) for sd, size in zip(sds, sizes, strict=True)) + np.zeros(shape)


@pytest.mark.long
def test_crossed_causes_have_their_variances() -> None:
    rng = np.random.default_rng(4)
    sds = (0.2, 0.1, 0.5, 0.15, 0.3, 0.4, 1.0)
    found = [crossed_effects(crossed(rng, sds)) for _ in range(1500)]
    a, b, items, both, a_items, b_items, rest = (sd**2 for sd in sds)
    assert np.mean([each.first.variance for each in found]) == pytest.approx(a, rel=0.1)
    assert np.mean([each.second.variance for each in found]) == pytest.approx(b, rel=0.15)
    assert np.mean([each.together.variance for each in found]) == pytest.approx(both, rel=0.1)
    assert np.mean([each.chance for each in found]) == pytest.approx((a_items + b_items + rest) / 40, rel=0.05)
    assert np.mean([each.of_items for each in found]) == pytest.approx(items / 40, rel=0.05)
    for each, truth in ((lambda x: x.first, a), (lambda x: x.second, b), (lambda x: x.together, both)):
        covered = np.mean([each(x).interval[0] <= truth <= each(x).interval[1] for x in found])
        assert 0.93 < covered < 0.99, "of 95 %"


@pytest.mark.long
@pytest.mark.parametrize("others", [(0.0, 0.0, 1.0), (0.3, 0.5, 1.0)])
def test_a_cause_that_does_nothing_is_seldom_found(others: tuple[float, float, float]) -> None:
    """Whatever the other does, and whatever it does to single items or with the other."""
    rng = np.random.default_rng(5)
    both, by_item, rest = others
    found = [
        crossed_effects(crossed(rng, (0.0, 0.5, 0.5, both, by_item, by_item, rest), (10, 10, 30))) for _ in range(800)
    ]
    assert np.mean([each.first.p_value < 0.05 for each in found]) < 0.065
    assert np.mean([each.second.p_value < 0.05 for each in found]) > 0.7


def test_parts_of_crossed_causes_by_hand() -> None:
    values = np.random.default_rng(6).normal(size=(3, 4, 5))
    mean = values.mean()
    by = {axis: values.mean(tuple({0, 1, 2} - {axis})) - mean for axis in (0, 1, 2)}
    squares = {axis: 60 / size * sum(x * x for x in by[axis]) / (size - 1) for axis, size in enumerate((3, 4, 5))}
    two, rest = {}, values - mean
    for a, b in ((0, 1), (0, 2), (1, 2)):
        means = values.mean(({0, 1, 2} - {a, b}).pop())
        left = [
            [means[j, k] - by[a][j] - by[b][k] - mean for k in range(means.shape[1])] for j in range(means.shape[0])
        ]
        free = (means.shape[0] - 1) * (means.shape[1] - 1)
        two[a, b] = 60 / means.size * sum(x * x for row in left for x in row) / free
        rest = rest - np.expand_dims(np.array(left), ({0, 1, 2} - {a, b}).pop())
    for axis in (0, 1, 2):
        rest = rest - np.expand_dims(by[axis], tuple({0, 1, 2} - {axis}))
    alone = float((rest**2).sum()) / (2 * 3 * 4)
    found = crossed_effects(values)
    assert found.first.variance == pytest.approx((squares[0] - two[0, 1] - two[0, 2] + alone) / 20)
    assert found.second.variance == pytest.approx((squares[1] - two[0, 1] - two[1, 2] + alone) / 15)
    assert found.together.variance == pytest.approx((two[0, 1] - alone) / 5)
    assert found.together.p_value == pytest.approx(f.sf(two[0, 1] / alone, 6, 24))
    assert found.chance == pytest.approx(((two[0, 2] - alone) / 4 + (two[1, 2] - alone) / 3 + alone) / 5)
    assert found.of_items == pytest.approx((squares[2] - two[0, 2] - two[1, 2] + alone) / 12 / 5)
    null = max(two[0, 1] + two[0, 2] - alone, two[0, 1], two[0, 2])
    degrees = max(null**2 / (two[0, 1] ** 2 / 6 + two[0, 2] ** 2 / 8 + alone**2 / 24), 6)
    assert found.first.p_value == pytest.approx(f.sf(squares[0] / null, 2, degrees))
    # At an end of the interval the mean square would be at the other end of what comes of such a variance.
    high = found.first.interval[1]
    assert f.cdf(squares[0] / (null + 20 * high), 2, degrees) == pytest.approx(0.025)


def test_causes_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(InputError, match=r"a table of shape \(1, 4, 5\)"):
        crossed_effects(np.ones((1, 4, 5)))
    with pytest.raises(InputError, match="not finite"):
        crossed_effects(np.full((2, 2, 2), np.nan))
    same = crossed_effects(np.ones((2, 3, 4)))
    assert (same.first.p_value, same.first.interval, same.chance) == (1.0, (0.0, 0.0), 0.0)


@pytest.mark.slow
def test_what_seeds_do_on_any_items() -> None:
    rng = np.random.default_rng(7)
    found = [
        seed_effect(rng.normal(0, 0.1, (12, 1)) + rng.normal(0, 0.5, 50) + rng.normal(0, 1, (12, 50)))
        for _ in range(1500)
    ]
    assert np.mean([each.variance for each in found]) == pytest.approx(0.1**2, rel=0.2)
    assert np.mean([each.interval[0] <= 0.1**2 <= each.interval[1] for each in found]) == pytest.approx(
        0.95, abs=0.015
    )
    one = np.array([[1.0, 2.0, 4.0], [2.0, 2.0, 2.0]])
    # Seeds' means are 7/3 and 2. Differences by item, −1, 0 and 2, are −4/3, −1/3 and 5/3 from their mean, so that
    # the mean square of the rest is (16 + 1 + 25) / 9 / 2 / 2.
    assert seed_effect(one).variance == pytest.approx((1 / 3) ** 2 / 2 - 42 / 36 / 3)
    with pytest.raises(InputError, match="1 seeds"):
        seed_effect(np.ones((1, 5)))


def test_the_fewest_that_suffice() -> None:
    pilot = pooled(Simulation(5, 300).draw(np.random.default_rng(17), [0.8])[0].right[None])
    for effect in (0.05, 0.1):
        seeds = seeds_needed(pilot, effect)
        assert seeds is not None
        assert seeds > 2
        assert pilot.power(effect, seeds - 1, pilot.items) < 0.8 <= pilot.power(effect, seeds, pilot.items)
        items = items_needed(pilot, effect, seeds=20)
        assert items is not None
        assert pilot.power(effect, 20, items - 1) < 0.8 <= pilot.power(effect, 20, items)
    # Where items are the limit, no number of seeds is enough, and the other way round.
    assert seeds_needed(dataclasses.replace(pilot, item_variance=1.0), 0.01) is None
    assert items_needed(dataclasses.replace(pilot, seed_variance=1.0), 0.01, seeds=3) is None
    assert seeds_needed(pilot, 1.0) == 2


def test_the_smallest_effect_that_is_seen() -> None:
    pilot = pooled(Simulation(5, 300).draw(np.random.default_rng(17), [0.8])[0].right[None])
    for seeds in (2, 3, 30):
        effect = smallest_effect(pilot, seeds)
        assert pilot.power(effect, seeds, pilot.items) == pytest.approx(0.8)
    # With many degrees of freedom it is the two normal quantiles of the test and its power, 1.96 and 0.84, in errors.
    many = dataclasses.replace(pilot, seed_variance=0.0, rest_variance=0.0, items=10**6)
    assert smallest_effect(many, 100) == pytest.approx(
        (1.95996 + 0.84162) * sqrt(many.item_variance / 10**6), rel=1e-5
    )
    same = dataclasses.replace(pilot, seed_variance=0.0, item_variance=0.0, rest_variance=0.0)
    assert smallest_effect(same, 3) == 0
    with pytest.raises(InputError, match="1 seeds"):
        smallest_effect(pilot, 1)


def test_the_bootstrap_errs_on_the_safe_side() -> None:
    rng = np.random.default_rng(6)
    (runs,) = Simulation(20, 300).draw(rng, [0.8])
    drawn = resampled_means([runs], 4000, rng)[:, 0]
    exact = estimate(runs.right)
    assert drawn.mean() == pytest.approx(exact.mean, abs=0.01)
    assert exact.standard_error * 0.95 < drawn.std() < exact.standard_error * 1.25


@pytest.mark.parametrize("seeds", [2, 3, 20])
def test_the_bootstraps_variance_is_right_where_seeds_count(seeds: int) -> None:
    rng = np.random.default_rng(15)
    drawn = []
    for _ in range(200):
        values = rng.normal(0, 1, (seeds, 1)) + rng.normal(0, 0.1, (seeds, 50))
        drawn.append(resampled_means([cell(values)], 200, rng).var())
    assert np.mean(drawn) == pytest.approx(1 / seeds, rel=0.15)


def test_a_draw_keeps_pairs_together() -> None:
    rng = np.random.default_rng(7)
    (runs,) = Simulation(5, 50).draw(rng, [0.8])
    means = resampled_means([runs, runs, cell(1 - runs.right)], 100, rng)
    assert np.array_equal(means[:, 0], means[:, 1])
    assert means[:, 0] + means[:, 2] == pytest.approx(np.ones(100))


def test_a_plateau_begins_where_no_more_is_gained() -> None:
    assert plateau(np.array([0.60, 0.79, 0.80, 0.78]), 0.015) == 1
    assert plateau(np.array([0.60, 0.79, 0.80, 0.78]), 0.0) == 2
    rng = np.random.default_rng(8)
    accuracies = [0.60, 0.70, 0.80, 0.80, 0.80]
    places = plateau(resampled_means(Simulation(10, 1000).draw(rng, accuracies), 1000, rng), MARGIN)
    assert np.bincount(places, minlength=5)[:2].sum() < 10
    assert np.bincount(places, minlength=5)[2] > 700


def test_the_best_of_many_is_not_as_good_as_it_looks() -> None:
    """More cells, more optimism; what is held out stays near the truth."""
    rng = np.random.default_rng(9)
    few, many = ([best_of(Simulation(4, 200).draw(rng, [0.7] * n), 20, rng) for _ in range(60)] for n in (2, 12))
    for choices in (few, many):
        assert np.mean([choice.held_out for choice in choices]) == pytest.approx(0.7, abs=0.015)
    assert 0.0 < np.mean([c.optimism for c in few]) < np.mean([c.optimism for c in many])


@pytest.mark.slow
def test_holm_keeps_false_findings_rare_among_all() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    rng = np.random.default_rng(10)
    false = 0
    for _ in range(ROUNDS):
        first, *others = Simulation(10, 277).draw(rng, [0.8] * 6)
        p_values = [compare(first, other).p_value() for other in others]
        # The smallest of five, as Holm has it.
        false += 5 * min(p_values) < 0.05
    assert min(holm(p_values)) == pytest.approx(min(5 * min(p_values), 1))
    assert false / ROUNDS < 0.075


@pytest.mark.slow
def test_three_seeds_are_few() -> None:
    """Of no difference at all p < 0.01 comes up to three times as often as it says, and of ten seeds hardly more."""
    rng = np.random.default_rng(12)
    three, ten = (
        [compare(*Simulation(seeds, 277).draw(rng, [0.8, 0.8])).p_value() < 0.01 for _ in range(1500)]
        for seeds in (3, 10)
    )
    assert 0.015 < np.mean(three) < 0.04
    assert np.mean(ten) < 0.02


def test_agreement_counts_pairs_of_runs() -> None:
    a, b = cell([[1, 0, 1, 1], [1, 1, 0, 1]]), cell([[1, 0, 0, 1], [1, 1, 0, 0]])
    # The first run of one with the second of the other, and the other way round.
    assert agreement(a, b) == (1 / 4 + 3 / 4) / 2
    assert agreement(a, a) == 2 / 4
    three = cell(np.random.default_rng(11).random((3, 40)) > 0.3)
    pairs = [np.mean(three.right[i] == three.right[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert agreement(three, three) == pytest.approx(np.mean(pairs))


def test_runs_that_all_answer_alike_leave_no_doubt_but_the_items() -> None:
    alike = cell(np.tile([1, 0, 1, 1, 0], (3, 1)))
    got = estimate(alike.right)
    assert (got.seed_variance, got.rest_variance) == (0, 0)
    assert got.standard_error == pytest.approx(sqrt(0.24 / 4))
    assert got.degrees == 4
    none = compare(alike, alike)
    assert (none.mean, none.standard_error, none.p_value()) == (0, 0, 1)
    # Five items on which both agree say little of a hundredth.
    assert none.equivalence_p_value(0.01) == pytest.approx(0.99**5)
    assert none.power(0.01, 3, 5) == 1


def test_what_cannot_be_compared_is_refused() -> None:
    some = cell(np.eye(3))
    with pytest.raises(InputError, match=r"only one has \(seed, data seed\) = \(0, 0\)"):
        compare(some, cell(np.eye(3), first_seed=1))
    with pytest.raises(InputError, match="only one has"):
        compare(some, cell(np.ones((2, 3))))
    with pytest.raises(InputError, match="same items"):
        require_pairs([some, cell(np.ones((3, 4)))])
    for table in (np.ones((1, 5)), np.ones((5, 1))):
        with pytest.raises(InputError, match="two or more of each"):
            estimate(table)
    with pytest.raises(InputError, match="margin = 0"):
        compare(some, some).equivalence_p_value(0)
    with pytest.raises(InputError, match="runs of two or more seeds"):
        agreement(cell(np.ones((1, 3))), cell(np.ones((1, 3))))
    for refused in (lambda one: best_of([one], 2, np.random.default_rng(0)), lambda one: estimate(one.right),
                    lambda one: resampled_means([one], 2, np.random.default_rng(0))):  # fmt: skip
        with pytest.raises(InputError, match="two or more of each"):
            refused(cell(np.ones((1, 3))))
    with pytest.raises(InputError, match="splits = 0"):
        best_of([some], 0, np.random.default_rng(0))
    with pytest.raises(InputError, match="two or more"):
        estimate(np.eye(3)).power(0.1, 1, 100)
    with pytest.raises(InputError, match="not finite"):
        estimate(np.array([[1.0, np.nan], [0.0, 1.0]]))
    for means, margin in (([0.1, np.nan], 0.1), ([0.1, 0.2], -0.1)):
        with pytest.raises(InputError, match="plateau"):
            plateau(np.array(means), margin)


def test_the_error_of_any_table_is_that_of_its_parts() -> None:
    rng = np.random.default_rng(16)
    for _ in range(200):
        seeds, items = rng.integers(2, 5, 2)
        got = estimate((rng.random((seeds, items)) > 0.5).astype(float))
        assert got.standard_error == pytest.approx(got.error_with(int(seeds), int(items)))
        assert got.degrees >= min(seeds, items) - 1


def test_the_outcomes_of_a_measured_cell() -> None:
    runs = [
        record
        for record in load_records(ROOT / "results" / "smollm2-pilot")
        if (record.config.task, record.label, record.config.size) == ("rte", "lora", 1)
    ]
    rate = runs[0].config.learning_rate
    one = [run for run in runs if run.config.learning_rate == rate]
    found = outcomes(reversed(one))
    assert found.seeds == ((0, 0), (1, 0), (2, 0))
    assert found.right.shape == (3, 277)
    by_seed = {run.config.seed: run.outcome.accuracy for run in one if run.outcome}
    assert found.right.mean(1).tolist() == pytest.approx([by_seed[seed] for seed in range(3)])
    assert estimate(found.right).mean == pytest.approx(np.mean(list(by_seed.values())))

    with pytest.raises(InputError, match="two runs have seed 0 and data seed 0"):
        outcomes(runs)
    with pytest.raises(InputError, match=f"run {one[0].id} has no outcome"):
        outcomes([dataclasses.replace(one[0], outcome=None)])
    draws = [dataclasses.replace(r, config=dataclasses.replace(r.config, data_seed=k)) for k, r in enumerate(one)]
    assert outcomes(draws).seeds == ((0, 0), (1, 1), (2, 2)), "one run of each draw"
    with pytest.raises(InputError, match="runs that share a data seed are not independent"):
        outcomes([*draws, dataclasses.replace(one[2], config=dataclasses.replace(one[2].config, seed=9))])
    with pytest.raises(InputError, match="no runs"):
        outcomes([])
    assert one[0].outcome
    asked, total = one[0].outcome, one[0].outcome.total - 1
    fewer = dataclasses.replace(
        asked,
        correct=int(asked.is_right[1:].sum()),
        total=total,
        drawn=pack_bitmap(asked.items[1:], asked.rows),
        labels=None,
        right=pack_bitmap(asked.is_right[1:].nonzero()[0], total),
    )
    with pytest.raises(InputError, match="same items"):
        outcomes([dataclasses.replace(one[0], outcome=fewer), *one[1:]])


def test_outcomes_on_some_of_the_items() -> None:
    whole = cell([[1, 0, 1, 0], [0, 0, 1, 1]])
    part = whole.on([3, 0])
    assert (part.seeds, part.items) == (whole.seeds, (3, 0))
    assert part.right.tolist() == [[0, 1], [1, 0]]
    with pytest.raises(InputError, match="these runs were not asked item 4"):
        whole.on([0, 4])


def in_pieces(values: np.ndarray, seeds: np.ndarray, items: np.ndarray) -> tuple[float, float]:
    """The mean and its variance, answer by answer and pair by pair."""
    names = sorted(set(seeds.tolist()))
    by_seed = {s: {i: v for v, t, i in zip(values.tolist(), seeds, items, strict=True) if t == s} for s in names}
    mean = {s: sum(by_seed[s].values()) / len(by_seed[s]) for s in names}
    pairs = [(s, t) for s in names for t in names if s != t]
    products = expected = shared = 0.0
    for s, t in pairs:
        both, n, m = by_seed[s].keys() & by_seed[t].keys(), len(by_seed[s]), len(by_seed[t])
        products += sum((by_seed[s][i] - mean[s]) * (by_seed[t][i] - mean[t]) for i in both)
        expected += len(both) * (1 - 1 / n - 1 / m) + len(both) ** 2 / (n * m)
        shared += len(both) / (n * m) / len(pairs)
    spread = sum((mean[s] - sum(mean.values()) / len(names)) ** 2 for s in names) / (len(names) - 1)
    return sum(mean.values()) / len(names), spread / len(names) + shared * products / expected


def asked(draws: int, common: int, own: int, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Of each answer, its draw and its item: some items are every draw's, others each draw's choice of rows."""
    items = [np.r_[np.arange(common), common + rng.choice(rows, own, replace=False)] for _ in range(draws)]
    return np.repeat(np.arange(draws), common + own), np.concatenate(items)


def test_of_a_full_table_partly_crossed_is_the_estimate() -> None:
    rng = np.random.default_rng(20)
    for seeds, items, item_sd in ((2, 5, 2.0), (3, 277, 0.5), (20, 30, 0.5)):
        values = rng.normal(0, 2, (seeds, 1)) + rng.normal(0, item_sd, items) + rng.normal(0, 1, (seeds, items))
        # Whatever the seeds and items are called.
        got = partly_crossed(values.ravel(), 7 * np.repeat(np.arange(seeds), items), np.tile(-np.arange(items), seeds))
        assert dataclasses.astuple(got) == pytest.approx(dataclasses.astuple(estimate(values)))


def test_partly_crossed_is_what_it_is_in_pieces() -> None:
    rng = np.random.default_rng(21)
    for common, own, rows in ((6, 4, 9), (3, 10, 12), (0, 8, 10)):
        draws, items = asked(5, common, own, rows, rng)
        uneven = rng.random(len(draws)) < 0.8
        draws, items = draws[uneven], items[uneven]
        # An item's effect large enough that nothing is cut off.
        values = rng.normal(0, 3, common + rows)[items] + rng.normal(0, 2, 5)[draws] + rng.normal(0, 1, len(draws))
        mean, variance = in_pieces(values, draws, items)
        got = partly_crossed(values, draws, items)
        assert (got.mean, got.standard_error) == (pytest.approx(mean), pytest.approx(sqrt(variance)))


@pytest.mark.parametrize(("common", "own", "rows"), [(200, 100, 10_000), (30, 200, 400), (0, 50, 10_000)])
@pytest.mark.slow
def test_partly_crossed_covers_the_truth(common: int, own: int, rows: int) -> None:
    """New draws and new items each time: what is as common in both, in neither and in part."""
    rng = np.random.default_rng(22)
    covered, draws_alone, found = 0, 0, []
    for _ in range(ROUNDS):
        draws, items = asked(10, common, own, rows, rng)
        of_items, of_draws = rng.normal(0, 1, common + rows), rng.normal(0, 0.05, 10)
        values = of_items[items] + of_draws[draws] + rng.normal(0, 1, len(draws))
        found.append(partly_crossed(values, draws, items))
        low, high = found[-1].interval()
        covered += low <= 0 <= high
        means = values.reshape(10, -1).mean(1)
        draws_alone += abs(means.mean()) <= 2.262 * means.std(ddof=1) / sqrt(10)
    assert 0.92 <= covered / ROUNDS <= 0.98
    if common or rows < 1000:
        assert draws_alone / ROUNDS < 0.85, "which leaves out that draws share items"
        assert np.mean([each.item_variance for each in found]) == pytest.approx(1, rel=0.05)
        assert np.mean([each.rest_variance for each in found]) == pytest.approx(1, rel=0.05)


def test_answers_that_cannot_be_partly_crossed_are_refused() -> None:
    values, seeds, items = np.zeros(4), np.array([0, 0, 1, 1]), np.array([0, 1, 0, 2])
    assert partly_crossed(values, seeds, items).mean == 0
    with pytest.raises(InputError, match="4 values, 4 seeds and 3 items: each answer needs one of each"):
        partly_crossed(values, seeds, items[:3])
    with pytest.raises(InputError, match="a value is not finite"):
        partly_crossed(np.array([0, 0, 0, np.nan]), seeds, items)
    with pytest.raises(InputError, match="1 seeds and 3 items"):
        partly_crossed(values, np.zeros(4, int), items)
    with pytest.raises(InputError, match="two or more items, each of them once"):
        partly_crossed(values, seeds, np.array([0, 0, 1, 2]))
    with pytest.raises(InputError, match="two or more items, each of them once"):
        partly_crossed(values, np.array([0, 1, 1, 1]), items)
