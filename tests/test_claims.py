"""Verdicts on simulated cells, whose truth is known: they hold as seldom by chance as said, and where they should."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from simulated import Simulation, cell

from cpadapt import load_projections
from cpadapt.budget import count
from cpadapt.claims import (
    MARGIN,
    RULES,
    Cells,
    Finding,
    Verdict,
    above,
    at_most,
    cells_of,
    every,
    within,
)
from cpadapt.errors import InputError
from cpadapt.record import Record, load_records
from cpadapt.statistics import estimate

ROOT = Path(__file__).parents[1]
ROUNDS = 200
HOLDS, FAILS, OPEN, UNMEASURED = Verdict.HOLDS, Verdict.FAILS, Verdict.OPEN, Verdict.UNMEASURED
GRID = [("head", 0), ("lora", 1), ("lora", 2), ("cp", 1), ("cp", 11), ("cp", 15), ("cp", 22)]
SMOLLM2 = load_projections("smollm2")


def cells(
    accuracies: Mapping[tuple[str, int], float], seed: int = 0, seeds: int = 10, items: int = 4000, **changes: object
) -> Cells:
    """As SmolLM2's, which spends as much on eleven components as on a rank, but for a little."""
    drawn = Simulation(seeds, items, seed_sd=0.02).draw(np.random.default_rng(seed), accuracies.values())
    budgets = {place: count(place[0].split("-")[0], SMOLLM2, place[1]) if place[1] else 0 for place in accuracies}
    made = Cells(budgets, dict(zip(accuracies, drawn, strict=True)), {"cp": (0, 40), "lora": (0, 20)})
    return dataclasses.replace(made, **changes)


FLAT = dict.fromkeys(GRID, 0.85) | {("head", 0): 0.7}
RISING = FLAT | {("cp", 1): 0.75, ("cp", 11): 0.80, ("cp", 15): 0.84, ("cp", 22): 0.84}


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        (
            RISING,
            {"lora_ahead": HOLDS, "finer_is_not_better": HOLDS, "cp_gains": HOLDS, "flat_from_first_rank": FAILS},
        ),
        (FLAT | {("lora", 1): 0.8, ("lora", 2): 0.8}, {"lora_ahead": FAILS, "finer_is_not_better": FAILS}),
        ({**FLAT, ("head", 0): 0.9}, {"over_floor": FAILS}),
        (FLAT, {"over_floor": HOLDS}),
    ],
    ids=["rising", "CP ahead", "worse than none", "better than none"],
)
def test_clear_differences_are_judged_as_they_are(
    accuracies: dict[tuple[str, int], float], expected: dict[str, Verdict]
) -> None:
    for seed in range(5):
        of = cells(accuracies, seed)
        assert {name: RULES[name](of).verdict for name in expected} == expected


def test_the_difference_is_the_mean_over_matched_budgets() -> None:
    of = cells(RISING)
    assert of.matched() == [(1, 11), (2, 22)]
    means = {place: outcomes.right.mean() for place, outcomes in of.outcomes.items()}
    expected = {
        "lora_ahead": (means["lora", 1] - means["cp", 11] + means["lora", 2] - means["cp", 22]) / 2,
        "finer_is_not_better": (means["cp", 11] - means["lora", 1] + means["cp", 22] - means["lora", 2]) / 2,
        "over_floor": (means["cp", 11] + means["cp", 22]) / 2 - means["head", 0],
        "cp_gains": (means["cp", 11] + means["cp", 22]) / 2 - means["cp", 1],
        "flat_from_first_rank": (means["cp", 15] + means["cp", 22]) / 2 - means["cp", 11],
    }
    for name, difference in expected.items():
        found = RULES[name](of).estimate
        assert found is not None
        assert found.mean == pytest.approx(difference)


def chance(rule: Callable[[Cells], Finding], accuracies: dict[tuple[str, int], float]) -> dict[Verdict, float]:
    found = [rule(cells(accuracies, seed, seeds=5, items=500)).verdict for seed in range(ROUNDS)]
    return {verdict: found.count(verdict) / ROUNDS for verdict in Verdict}


def test_what_is_not_so_seldom_holds() -> None:
    assert chance(RULES["lora_ahead"], FLAT)[HOLDS] < 0.06  # one side of two
    assert chance(RULES["cp_gains"], FLAT)[HOLDS] < 0.06
    # Just as much better as it would have to be.
    ahead = {place: 0.85 + MARGIN * (place[0] == "cp") for place in FLAT}
    assert chance(RULES["finer_is_not_better"], ahead)[HOLDS] < 0.09
    assert chance(RULES["finer_is_not_better"], ahead)[FAILS] < 0.09
    more = FLAT | {("cp", 15): 0.85 + MARGIN, ("cp", 22): 0.85 + MARGIN}
    assert chance(RULES["flat_from_first_rank"], more)[HOLDS] < 0.09


def test_few_items_leave_it_open() -> None:
    found = [RULES["lora_ahead"](cells(FLAT, seed, seeds=3, items=100)).verdict for seed in range(20)]
    assert found.count(OPEN) > 15


def test_no_difference_can_be_shown() -> None:
    large = [cells(FLAT, seed, seeds=10, items=20_000) for seed in range(20)]
    for name, verdict in (("lora_ahead", FAILS), ("finer_is_not_better", HOLDS), ("flat_from_first_rank", HOLDS)):
        assert sum(RULES[name](of).verdict is verdict for of in large) >= 18


@pytest.mark.parametrize("rule", [above, within, at_most])
@pytest.mark.parametrize("mean", [-0.08, -0.02, -0.004, 0.0, 0.004, 0.02, 0.08])
def test_a_rule_never_says_both(rule: Callable[..., Verdict], mean: float) -> None:
    verdicts = []
    for error in (1e-4, 0.003, 0.01, 0.1):
        known = dataclasses.replace(estimate(np.random.default_rng(0).normal(0, 1, (5, 50))), mean=mean)
        verdicts.append(rule(dataclasses.replace(known, standard_error=error, degrees=100.0)))
    assert set(verdicts) <= {HOLDS, FAILS, OPEN}
    assert verdicts[-1] is OPEN
    assert verdicts[0] is {
        above: HOLDS if mean > 0 else FAILS,
        within: HOLDS if abs(mean) < MARGIN else FAILS,
        at_most: HOLDS if mean < MARGIN else FAILS,
    }[rule]  # fmt: skip


def test_answers_that_all_agree_are_no_proof_of_their_own() -> None:
    few, many = (estimate(np.zeros((3, items))) for items in (100, 1000))
    assert [rule(few) for rule in (above, within, at_most)] == [OPEN, OPEN, OPEN]
    assert [rule(many) for rule in (above, within, at_most)] == [FAILS, HOLDS, HOLDS]


def test_other_splits_are_alike_if_each_is() -> None:
    splits = {("cp", 11): 0.85, ("cp-flat", 11): 0.85, ("cp-three", 11): 0.85}
    assert RULES["splits_alike"](cells(splits, seeds=20, items=20_000)).verdict is HOLDS
    worse = cells(splits | {("cp-three", 11): 0.8}, seeds=20, items=20_000)
    found = RULES["splits_alike"](worse)
    assert found.verdict is FAILS
    assert found.estimate is not None
    assert found.estimate.mean == pytest.approx(-0.05, abs=0.01)


def test_gaps_are_filled_where_a_cell_lies_in_each() -> None:
    assert RULES["fills_gaps"](cells(RISING)).verdict is HOLDS
    without = {place: accuracy for place, accuracy in RISING.items() if place not in (("cp", 15), ("cp", 22))}
    assert RULES["fills_gaps"](cells(without)).verdict is FAILS
    assert RULES["fills_gaps"](cells({("lora", 1): 0.8, ("cp", 5): 0.8})).verdict is UNMEASURED


@pytest.mark.parametrize(
    ("diverged", "verdict"),
    [
        ({"cp": (0, 30), "lora": (5, 30)}, HOLDS),
        ({"cp": (1, 30), "lora": (0, 30)}, OPEN),
        ({"cp": (10, 30), "lora": (9, 30)}, OPEN),
        ({"cp": (10, 30), "lora": (0, 30)}, FAILS),
        ({"lora": (0, 30)}, UNMEASURED),
    ],
)
def test_stability_is_judged_by_who_diverged(diverged: dict[str, tuple[int, int]], verdict: Verdict) -> None:
    assert RULES["trains_stably"](cells(RISING, diverged=diverged)).verdict is verdict


@pytest.mark.parametrize("name", RULES)
def test_what_lacks_its_cells_is_not_measured(name: str) -> None:
    assert RULES[name](Cells({}, {}, {})).verdict is UNMEASURED


def test_one_seed_measures_nothing() -> None:
    assert RULES["lora_ahead"](cells(RISING, seeds=1)) == Finding(UNMEASURED)


def test_cells_of_other_seeds_are_refused() -> None:
    of = cells(FLAT)
    other = {**of.outcomes, ("cp", 11): cell(of.outcomes["cp", 11].right, first_seed=5)}
    with pytest.raises(InputError, match="seed by seed"):
        RULES["lora_ahead"](dataclasses.replace(of, outcomes=other))


def test_a_rank_without_a_match_of_its_own_is_left_out() -> None:
    of = cells({("lora", 1): 0.8, ("lora", 2): 0.8, ("cp", 1): 0.8, ("cp", 11): 0.8})
    assert of.matched() == [(1, 11)]


def test_verdicts_combine() -> None:
    def all_of(*verdicts: Verdict) -> Verdict:
        return every([Finding(verdict) for verdict in verdicts])

    assert all_of(HOLDS, HOLDS) is HOLDS
    assert all_of(HOLDS, OPEN) is OPEN
    assert all_of(OPEN, FAILS) is FAILS
    assert all_of(UNMEASURED, OPEN) is UNMEASURED
    assert all_of(UNMEASURED, FAILS) is FAILS


@pytest.fixture(scope="module")
def pilot() -> list[Record]:
    records = load_records(ROOT / "results" / "smollm2-pilot")
    return [record for record in records if record.config.task == "sst2"]


def test_cells_are_read_at_one_rate(pilot: list[Record]) -> None:
    rates = {"lora": 1e-4, "cp": 2e-4}
    fixed = cells_of(pilot, rates)
    assert set(fixed.outcomes) == {("head", 0), ("lora", 1), ("lora", 4), *(("cp", size) for size in (1, 4, 11, 44))}
    for (label, size), found in fixed.outcomes.items():
        own = [
            r for r in pilot
            if (r.label, r.config.size, r.config.learning_rate) == (label, size, rates.get(label))
        ]  # fmt: skip
        assert len(own) == len(found.seeds) == 3
        assert found.right.mean() == pytest.approx(np.mean([r.outcome.accuracy for r in own if r.outcome]))
        assert {fixed.budgets[label, size]} == {r.counts.adapter for r in own}
    assert fixed.diverged == {"head": (0, 3), "lora": (0, 12), "cp": (0, 24)}


def test_a_rate_is_chosen_on_dev(pilot: list[Record]) -> None:
    tuned = cells_of(pilot)
    for (label, size), found in tuned.outcomes.items():
        by_rate: dict[float | None, list[Record]] = {}
        for record in pilot:
            if (record.label, record.config.size) == (label, size):
                by_rate.setdefault(record.config.learning_rate, []).append(record)
        best = max(by_rate.values(), key=lambda runs: sum(r.best.dev_correct for r in runs if r.best))
        assert found.right.mean() == pytest.approx(np.mean([r.outcome.accuracy for r in best if r.outcome]))


def test_a_run_without_an_outcome_takes_its_cell_along_and_counts_as_diverged(pilot: list[Record]) -> None:
    lost = next(r for r in pilot if (r.label, r.config.size, r.config.learning_rate) == ("cp", 11, 2e-4))
    dead = dataclasses.replace(lost, outcome=None, best_step=None, evaluations=(), diverged_at=3)
    records = [dead if record is lost else record for record in pilot]
    fixed = cells_of(records, {"lora": 1e-4, "cp": 2e-4})
    assert ("cp", 11) not in fixed.outcomes
    assert fixed.diverged["cp"] == (1, 24)
    # Where dev may choose, the rate at which none diverged is taken.
    assert ("cp", 11) in cells_of(records).outcomes


def test_runs_of_two_tasks_are_refused() -> None:
    with pytest.raises(InputError, match="one backbone, task and protocol, not of 2"):
        cells_of(load_records(ROOT / "results" / "smollm2-pilot"))
