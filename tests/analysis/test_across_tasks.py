"""Differences over tasks: on tables whose truth is known, by hand, by the library's own, on studies made of records.

The last is in small what `bench/plan_coverage.py` does, whose result is on record.
"""

import dataclasses
import json
from collections.abc import Callable
from math import sqrt
from pathlib import Path

import numpy as np
import plan_coverage
import pytest
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from cpadapt.analysis.across_tasks import (
    OnTask,
    between,
    chosen_settings,
    difference,
    over_given_tasks,
    over_tasks,
    share_interval,
)
from cpadapt.analysis.statistics import Mean, estimate, outcomes
from cpadapt.errors import InputError
from cpadapt.records.record import Outcome, Record, pack_bitmap
from cpadapt.records.store import load_records

ROOT = Path(__file__).parents[2]
COVERAGE = json.loads(plan_coverage.RESULT.read_text(encoding="utf-8"))


# From tasks to the mean over tasks.


def task(mean: float, error: float, by_draw: object = None, draws: int = 10) -> OnTask:
    """A task that has this difference, and draws that all have it unless others are given."""
    of_draws = np.full(draws, mean) if by_draw is None else np.asarray(by_draw, float)
    made = estimate(np.random.default_rng(0).normal(0, 1, (3, 4)))
    return OnTask(
        dataclasses.replace(made, mean=mean, standard_error=error, degrees=9.0), tuple(range(len(of_draws))), of_draws
    )


EFFECTS = {"a": (0.002, 0.003), "b": (0.011, 0.004), "c": (-0.004, 0.002), "d": (0.006, 0.003), "e": (0.02, 0.006)}


def test_sources_of_one_task_each_are_combined_as_the_library_does() -> None:
    differences = {name: task(*pair) for name, pair in EFFECTS.items()}
    got = over_tasks(differences, dict.fromkeys(differences))
    effects, errors = (np.array([pair[k] for pair in EFFECTS.values()]) for k in (0, 1))
    wanted = combine_effects(100 * effects, (100 * errors) ** 2, method_re="iterated", use_t=True)
    assert 100 * got.mean == pytest.approx(wanted.mean_effect_re, abs=1e-6)
    assert [100 * end for end in got.interval()] == pytest.approx(wanted.conf_int()[3], abs=1e-5)
    assert 100 * got.spread == pytest.approx(sqrt(wanted.tau2), abs=1e-5)
    assert (got.degrees, got.draw_variance) == (4, pytest.approx(0, abs=1e-12))


def test_the_spread_is_paule_and_mandels_and_the_error_knapp_and_hartungs() -> None:
    """Their own equations: the weighted squares come to what their number would, and give the error."""
    got = over_tasks({name: task(*pair) for name, pair in EFFECTS.items()}, dict.fromkeys(EFFECTS))
    effects, errors = (np.array([pair[k] for pair in EFFECTS.values()]) for k in (0, 1))
    weights = 1 / (errors**2 + got.spread**2)
    squares = weights * (effects - got.mean) ** 2
    assert got.spread > 0
    assert got.mean == pytest.approx((weights * effects).sum() / weights.sum())
    assert squares.sum() == pytest.approx(4, abs=1e-4)
    assert got.standard_error == pytest.approx(sqrt(squares.sum() / 4 / weights.sum()))


def test_alike_errors_give_the_plain_t_interval_over_sources() -> None:
    means = [0.002, 0.011, -0.004, 0.006, 0.02, -0.001]
    got = over_tasks({str(k): task(mean, 0.003) for k, mean in enumerate(means)}, {str(k): None for k in range(6)})
    wanted = stats.ttest_1samp(means, 0)
    assert got.p_value() == pytest.approx(wanted.pvalue)
    assert got.interval() == pytest.approx(tuple(wanted.confidence_interval()))
    assert list(got.by_source.values()) == pytest.approx(means)


def test_tasks_of_one_source_count_as_their_mean() -> None:
    alone = {name: task(*pair) for name, pair in EFFECTS.items()}
    shared = {name: each for name, each in alone.items() if name != "a"}
    shared |= {"a1": task(0.001, 0.004), "a2": task(0.003, sqrt(4 * 0.003**2 - 0.004**2))}
    sources = {name: "a" if name[0] == "a" else None for name in shared}
    got, wanted = over_tasks(shared, sources), over_tasks(alone, dict.fromkeys(alone))
    assert (got.mean, got.standard_error) == (pytest.approx(wanted.mean), pytest.approx(wanted.standard_error))
    assert got.by_source["a"] == pytest.approx(0.002)
    assert got.degrees == 4


def test_what_a_draw_does_to_all_tasks_is_in_the_error() -> None:
    rng = np.random.default_rng(1)
    of_draws = rng.normal(0, 0.01, 400)
    by_draw = {name: mean + of_draws + rng.normal(0, 0.01, 400) for name, (mean, _) in EFFECTS.items()}
    alone = over_tasks({name: task(*pair) for name, pair in EFFECTS.items()}, dict.fromkeys(EFFECTS))
    got = over_tasks({name: task(*pair, by_draw[name]) for name, pair in EFFECTS.items()}, dict.fromkeys(EFFECTS))
    assert got.draw_variance == pytest.approx(0.01**2, rel=0.2)
    assert got.standard_error == pytest.approx(sqrt(alone.standard_error**2 + got.draw_variance / 400))
    # Twice each table's rows that add to the same: as its mean over tasks varies, less what chance does.
    table = np.array(list(by_draw.values()))
    chance = table.var(axis=1, ddof=1).sum() / 25
    assert table.mean(0).var(ddof=1) == pytest.approx(got.draw_variance * 20 / 25 + chance)


def test_over_the_tasks_at_hand_is_the_mean_of_independent_estimates_and_what_draws_share() -> None:
    alone = over_given_tasks({name: task(*pair) for name, pair in EFFECTS.items()})
    means, errors = np.array([*EFFECTS.values()]).T
    assert alone.mean == pytest.approx(means.mean())
    assert alone.standard_error == pytest.approx(sqrt((errors**2).sum()) / 5)
    # Welch and Satterthwaite's, of five variances with nine degrees of freedom each.
    assert alone.degrees == pytest.approx(9 * (errors**2).sum() ** 2 / (errors**4).sum())
    one = over_given_tasks({"a": task(0.002, 0.003)})
    assert (one.mean, one.standard_error, one.degrees) == pytest.approx((0.002, 0.003, 9))
    with pytest.raises(InputError, match="the same draws, and 'c' differs in draw 10"):
        over_given_tasks({"a": task(0.0, 0.1), "c": task(0.0, 0.1, draws=11)})

    # Draws that move all tasks alike: the error is that of the draws' means over tasks.
    rng = np.random.default_rng(2)
    table = rng.normal(0, 0.01, 50) + rng.normal(0, 0.005, (5, 50))
    tasks = {str(k): task(row.mean(), row.std(ddof=1) / sqrt(50), row) for k, row in enumerate(table)}
    got, wanted = over_given_tasks(tasks), table.mean(0)
    assert got.mean == pytest.approx(wanted.mean())
    assert got.standard_error == pytest.approx(wanted.std(ddof=1) / sqrt(50))


def test_what_cannot_be_combined_is_refused() -> None:
    differences = {name: task(*pair) for name, pair in EFFECTS.items()}
    with pytest.raises(InputError, match="the source of 'e' is not given"):
        over_tasks(differences, dict.fromkeys("abcd"))
    with pytest.raises(InputError, match="2 sources of tasks"):
        over_tasks(differences, {name: "x" if name < "e" else None for name in differences})
    with pytest.raises(InputError, match="the same draws, and 'c' differs in draw 10"):
        over_tasks(differences | {"c": task(0.0, 0.1, draws=11)}, dict.fromkeys(differences))
    with pytest.raises(InputError, match="the answers on 'd' do not differ at all"):
        over_tasks(differences | {"d": task(0.0, 0.0)}, dict.fromkeys(differences))


def test_two_means_differ_as_of_welch() -> None:
    rng = np.random.default_rng(3)
    samples = rng.normal(0, 1, 8), rng.normal(1, 3, 5)
    a, b = (Mean(float(x.mean()), float(x.std(ddof=1)) / sqrt(len(x)), len(x) - 1) for x in samples)
    wanted = stats.ttest_ind(*samples, equal_var=False)
    assert between(a, b).p_value() == pytest.approx(wanted.pvalue)
    assert between(a, b).interval() == pytest.approx(tuple(wanted.confidence_interval()))


def test_a_share_lies_where_fieller_has_it() -> None:
    top, below, of_top, of_below, together, degrees = 0.02, 0.03, 0.003, 0.004, 5e-6, 11

    def left(share: float) -> Mean:
        variance = of_top**2 - 2 * share * together + share**2 * of_below**2
        return Mean(top - share * below, sqrt(variance), degrees)

    # The roots of the quadratic that (top − share·below)² = t²·variance is.
    t = stats.t.ppf(0.975, degrees)
    roots = np.roots([below**2 - t**2 * of_below**2, -2 * (top * below - t**2 * together), top**2 - t**2 * of_top**2])
    assert share_interval(left) == pytest.approx(tuple(sorted(roots)))
    assert share_interval(lambda share: Mean(left(share).mean, 1.0, degrees)) == (-np.inf, np.inf)


# From records to a task.


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """Thirty draws, of RTE."""
    return [r for r in load_records(ROOT / "results" / "smollm2-data-seeds") if r.config.task == "rte"]


def cell(records: list[Record], label: str, size: int) -> list[Record]:
    return [r for r in records if (r.label, r.config.size) == (label, size)]


def test_a_difference_of_runs_is_theirs_answer_by_answer(records: list[Record]) -> None:
    lora, cp, small = cell(records, "lora", 1), cell(records, "cp", 11), cell(records, "cp", 1)
    got = difference([(1, lora), (-0.5, cp), (-0.5, small)])
    right = [outcomes(each).right for each in (lora, cp, small)]
    wanted = estimate(right[0] - (right[1] + right[2]) / 2)
    assert dataclasses.astuple(got.estimate) == pytest.approx(dataclasses.astuple(wanted))
    assert got.draws == tuple(range(1, 31))
    accuracies = [
        [r.outcome.accuracy for r in sorted(each, key=lambda r: r.config.data_seed)] for each in (lora, cp, small)
    ]
    assert got.by_draw == pytest.approx(np.array([1, -0.5, -0.5]) @ np.array(accuracies))


def with_rest(record: Record, right: list[int]) -> Record:
    """A run that was asked four training rows besides, of a number that depends on its draw."""
    draw = record.config.data_seed
    rest = Outcome(
        correct=sum(right),
        total=4,
        rows=100,
        drawn=pack_bitmap(range(draw, draw + 4), 100),
        right=pack_bitmap(np.array(right).nonzero()[0], 4),
    )
    return dataclasses.replace(record, rest=rest)


def test_rest_rows_are_other_items_than_eval_rows_of_the_same_number(records: list[Record]) -> None:
    lora, cp = ([with_rest(r, right) for r in cell(records, *each)] for each, right in (
        (("lora", 1), [1, 1, 1, 0]), (("cp", 11), [0, 1, 1, 1])))  # fmt: skip
    got = difference([(1, lora), (-1, cp)])
    asked = 277
    # Rows 1 to 33, of which a draw has four in a row: two draws share up to three.
    assert got.estimate.items == asked + 33
    alone = difference([(1, cell(records, "lora", 1)), (-1, cell(records, "cp", 11))])
    assert got.by_draw == pytest.approx(alone.by_draw * asked / (asked + 4))


def test_runs_that_do_not_pair_are_refused(records: list[Record]) -> None:
    lora, cp = cell(records, "lora", 1), cell(records, "cp", 11)
    last = max(lora, key=lambda r: r.config.data_seed)
    others = [r for r in lora if r is not last]

    def changed(**changes: object) -> Record:
        return dataclasses.replace(last, config=dataclasses.replace(last.config, **changes))

    with pytest.raises(InputError, match="two runs of LoRA 1 on draw 30"):
        difference([(1, [*lora, last]), (-1, cp)])
    with pytest.raises(InputError, match="LoRA 1 has no run on draw 30, where another cell has"):
        difference([(1, others), (-1, cp)])
    with pytest.raises(InputError, match=r"on one task, not on \['boolq', 'rte'\]"):
        difference([(1, [*others, changed(task="boolq")]), (-1, cp)])
    with pytest.raises(InputError, match="the runs on draw 30 differ in their seed or in their examples"):
        difference([(1, [*others, changed(seed=5)]), (-1, cp)])
    with pytest.raises(InputError, match="the runs on draw 30 differ in their seed or in their examples"):
        difference([(1, [*others, dataclasses.replace(last, data_fingerprint="0" * 16)]), (-1, cp)])
    with pytest.raises(InputError, match="has no outcome"):
        difference([(1, [*others, dataclasses.replace(last, outcome=None)]), (-1, cp)])
    with pytest.raises(InputError, match="was asked other items than another run on draw 30"):
        difference([(1, [*others, with_rest(last, [1, 1, 1, 1])]), (-1, cp)])
    with pytest.raises(InputError, match="a cell has no runs"):
        difference([(1, lora), (-1, [])])


# The setting, on pooled dev.


@pytest.fixture(scope="module")
def tried() -> list[Record]:
    """Two tasks, three draws by name, two rates a family."""
    found = load_records(ROOT / "results" / "smollm2-pilot")
    return [
        r for r in found if r.config.task in ("sst2", "rte") and (r.label, r.config.size) in (("lora", 1), ("cp", 11))
    ]


Score = Callable[[Record], int]


def scored(tried: list[Record], score: Score) -> list[Record]:
    """The same runs with so many dev examples right, seeds for draws."""
    found = []
    for record in tried:
        last = dataclasses.replace(record.evaluations[0], dev_correct=score(record))
        config = dataclasses.replace(record.config, data_seed=record.config.seed)
        found.append(dataclasses.replace(record, config=config, evaluations=(last,), best_step=last.step))
    return found


def high(record: Record) -> bool:
    return (record.config.learning_rate or 0) >= 1e-3


def rates_of(tried: list[Record], score: Score) -> dict[tuple[str, int], float | None]:
    return {cell: setting.learning_rate for cell, setting in chosen_settings(scored(tried, score)).items()}


def test_a_setting_is_chosen_on_dev_over_tasks_and_draws(tried: list[Record]) -> None:
    lower, higher = {("lora", 1): 1e-4, ("cp", 11): 2e-4}, {("lora", 1): 1e-3, ("cp", 11): 2e-3}
    assert rates_of(tried, lambda r: 300 + high(r)) == higher
    assert rates_of(tried, lambda r: 300 - high(r)) == lower
    assert rates_of(tried, lambda r: 300) == lower, "of equals the lower rate"
    # One task gains more than the other loses, and one draw more than two lose.
    assert rates_of(tried, lambda r: 300 + high(r) * (9 if r.config.task == "rte" else -8)) == higher
    assert rates_of(tried, lambda r: 300 + high(r) * (9 if r.config.seed == 0 else -4)) == higher
    # Each cell for itself.
    assert rates_of(tried, lambda r: 300 + high(r) * (1 if r.label == "cp" else -1)) == {
        ("lora", 1): 1e-4, ("cp", 11): 2e-3}  # fmt: skip


def test_tasks_count_alike_whatever_their_dev(tried: list[Record]) -> None:
    made = scored(tried, lambda r: 30 + high(r) * (2 if r.config.task == "rte" else -1))
    small = [
        dataclasses.replace(r, evaluations=(dataclasses.replace(r.evaluations[0], dev_total=50),))
        if r.config.task == "sst2" else r
        for r in made
    ]  # fmt: skip
    # Two of five hundred are less than one of fifty.
    assert {s.learning_rate for s in chosen_settings(small).values()} == {1e-4, 2e-4}
    assert {s.learning_rate for s in chosen_settings(made).values()} == {1e-3, 2e-3}


def test_a_setting_of_which_runs_diverged_goes_last(tried: list[Record]) -> None:
    made = scored(tried, lambda r: 300 + 50 * high(r))
    lost = next(r for r in made if high(r) and r.label == "lora")
    gone = dataclasses.replace(lost, diverged_at=7)
    found = chosen_settings([gone if r is lost else r for r in made])
    assert {cell: s.learning_rate for cell, s in found.items()} == {("lora", 1): 1e-4, ("cp", 11): 2e-3}
    # Where it is so of all settings, a run without an evaluation has none right.
    empty = dataclasses.replace(lost, diverged_at=7, evaluations=(), best_step=None, outcome=None)
    other = next(r for r in made if not high(r) and r.label == "lora")
    both = [{id(lost): empty, id(other): dataclasses.replace(other, diverged_at=7)}.get(id(r), r) for r in made]
    assert chosen_settings(both)["lora", 1].learning_rate == 1e-4


def test_scales_are_settings_too(tried: list[Record]) -> None:
    def at_scale(record: Record, scale: float) -> Record:
        return dataclasses.replace(record, config=dataclasses.replace(record.config, scale=scale))

    made = [r for r in scored(tried, lambda r: 300) if high(r) and r.label == "cp"]
    larger = [at_scale(r, 32.0) for r in scored(made, lambda r: 301)]
    assert chosen_settings(made + larger)["cp", 11].scale == 32.0
    equal = [at_scale(r, 32.0) for r in made]
    assert chosen_settings(equal + made)["cp", 11].scale == 8.0, "of equals the lower scale"


def test_settings_that_were_not_tried_alike_are_refused(tried: list[Record]) -> None:
    made = scored(tried, lambda r: 300)
    lost = next(r for r in made if r.config.task == "rte" and r.config.seed == 2 and high(r) and r.label == "lora")
    with pytest.raises(InputError, match=r"LoRA 1 at rate 0\.001 has no run on rte, draw 2, where another"):
        chosen_settings([r for r in made if r is not lost])
    with pytest.raises(InputError, match="two runs of LoRA 1 have one setting, task and draw: rte, 2"):
        chosen_settings([*made, lost])


# Studies made of records, whose truth is known.


@pytest.fixture(scope="module")
def made() -> list[plan_coverage.Study]:
    return list(plan_coverage.studies(200, seed=100))


def on_record(spread: float, shared: float = 1.0, draw_sd: float = 0.0) -> dict[str, float]:
    wanted = {"draw_sd": draw_sd, "spread": spread, "shared": shared}
    (found,) = (row for row in COVERAGE["cells"] if wanted.items() <= row.items())
    return found


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Of two thousand studies, at every spread over sources, however much of it tasks of one source share."""
    assert COVERAGE["studies"] >= 2000
    assert len(COVERAGE["cells"]) == 2 * (1 + 3 * 3)
    for row in COVERAGE["cells"]:
        assert 93 <= row["covered"] <= 97, row
        assert row["shown_at_0"] == pytest.approx(100 - row["covered"]), row
        # As a true difference of the margin is at the edge of what is equivalent, on one side.
        assert row["equivalent_at_the_margin"] <= 6.5, row
    for name, share in COVERAGE["of_tasks"].items():
        assert 93 <= share <= 97, name


def test_the_second_look_costs_nothing_at_its_level() -> None:
    looked = [row for row in COVERAGE["cells"] if "rule_covered_at_0" in row]
    assert len(looked) == 10
    for row in looked:
        assert 93 <= row["rule_covered_at_0"] <= 98.5, row
        assert 93 <= row["rule_covered_at_0.8"] <= 98.5, row
        assert row["rule_shown_at_0"] <= 6, row
        assert row["rule_equivalent_at_the_margin"] <= 6, row
    # And would at that of one look.
    assert max(row["uncorrected_rule_shown_at_0"] for row in looked) > 7


@pytest.mark.long
@pytest.mark.parametrize("spread", [0.003, 0.008])
def test_a_tenth_of_the_studies_says_the_same(made: list[plan_coverage.Study], spread: float) -> None:
    got, wanted = plan_coverage.rates(made, spread, 1.0, seed=1), on_record(spread)
    # Three standard errors of what two hundred show.
    for name in ("covered", "shown_at_0", "shown_at_0.8", "equivalent_at_0", "equivalent_at_the_margin"):
        share = wanted[name] / 100
        assert got[name] == pytest.approx(wanted[name], abs=300 * sqrt(share * (1 - share) / 200) + 0.5), name
    assert got["half_width"] == pytest.approx(wanted["half_width"], rel=0.05)


@pytest.mark.long
def test_an_interval_that_takes_tasks_as_given_holds_it_seldom(made: list[plan_coverage.Study]) -> None:
    """So that what is tested above can fail: without the spread over sources, and with tasks of one source as four."""
    rng = np.random.default_rng(2)
    given, apart = 0, 0
    for study in made:
        truth = plan_coverage.true_differences(0.008, 1.0, rng)
        means = np.array([each.estimate.mean + truth[name] for name, each in study.first.items()])
        errors = np.array([each.estimate.standard_error for each in study.first.values()])
        given += abs(means.mean()) <= 1.96 * sqrt((errors**2).sum()) / len(means)
        low, high = stats.ttest_1samp(means, 0).confidence_interval()
        apart += low <= 0 <= high
    assert given / len(made) < 0.6
    assert apart / len(made) < 0.93


def test_simulated_studies_are_those_of_the_plan() -> None:
    assert len(plan_coverage.TASKS) == 15
    assert sum(source is not None for source in plan_coverage.SOURCES.values()) == 4
    assert plan_coverage.DRAWS == (10, 20)
