"""Verdicts on simulated cells, whose truth is known: they hold as seldom by chance as said, and where they should."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from simulated import Simulation, cell

from companion.claims import (
    ABOVE,
    ALIKE,
    MARGIN,
    NOT_AHEAD,
    RULES,
    SLIGHTLY_ABOVE,
    Finding,
    Region,
    Verdict,
    every,
    interval_90,
    judge,
    learned,
    told,
)
from cpadapt import load_projections, load_study
from cpadapt.analysis.cells import Cells
from cpadapt.analysis.statistics import estimate
from cpadapt.families.counting import count

ROOT = Path(__file__).parents[2]
HOLDS, FAILS, OPEN, UNMEASURED = Verdict.HOLDS, Verdict.FAILS, Verdict.OPEN, Verdict.UNMEASURED
EDGE, UNJUDGED = Verdict.EDGE, Verdict.UNJUDGED
GRID = [("head", 0), ("lora", 1), ("lora", 2), ("lora", 3), ("cp", 1), ("cp", 11), ("cp", 15), ("cp", 22), ("cp", 33)]
SMOLLM2 = load_projections("smollm2")


def cells(
    accuracies: Mapping[tuple[str, int], float], seed: int = 0, seeds: int = 10, items: int = 4000, **changes: object
) -> Cells:
    """As SmolLM2's, which spends as much on eleven components as on a rank, but for a little."""
    drawn = Simulation(seeds, items, seed_sd=0.02).draw(np.random.default_rng(seed), accuracies.values())
    budgets = {place: count(place[0].split("-")[0], SMOLLM2, place[1]) if place[1] else 0 for place in accuracies}
    made = Cells(budgets, dict(zip(accuracies, drawn, strict=True)), {"cp": (0, 40), "lora": (0, 20)}, 0.5)
    return dataclasses.replace(made, **changes)


FLAT = dict.fromkeys(GRID, 0.85) | {("head", 0): 0.7}
RISING = FLAT | {("cp", 1): 0.72, ("cp", 11): 0.78, ("cp", 15): 0.8, ("cp", 22): 0.83, ("cp", 33): 0.83}
AHEAD = FLAT | {("cp", size): 0.88 for size in (11, 15, 22, 33)}
COLLAPSED = FLAT | {("cp", size): 0.74 for size in (15, 22, 33)}


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        (RISING, {"lora_ahead": HOLDS, "cp_gains": HOLDS, "flat_from_first_rank": FAILS, "cp_not_ahead": HOLDS}),
        (RISING | {("cp", 33): 0.9}, {"cp_saturates": FAILS}),
        (AHEAD, {"lora_ahead": FAILS, "lora_slightly_ahead": FAILS, "cp_not_ahead": FAILS}),
        (COLLAPSED, {"flat_from_first_rank": FAILS, "lora_slightly_ahead": FAILS}),
        (FLAT | {("head", 0): 0.9}, {"first_rank_learns": FAILS}),
        (FLAT, {"first_rank_learns": HOLDS, "cp_not_ahead": HOLDS}),
    ],
    ids=["rising", "not saturated", "CP ahead", "collapsed", "worse than none", "flat"],
)
@pytest.mark.slow
def test_clear_differences_are_judged_as_they_are(
    accuracies: dict[tuple[str, int], float], expected: dict[str, Verdict]
) -> None:
    for seed in range(5):
        judged = cells(accuracies, seed, items=8000)
        assert {name: RULES[name](judged).verdict for name in expected} == expected


def test_each_difference_is_that_of_its_cells() -> None:
    judged = cells(RISING)
    assert judged.matched("lora", "cp") == [(1, 11), (2, 22), (3, 33)]
    mean = {place: outcomes.right.mean() for place, outcomes in judged.outcomes.items()}
    matched = np.mean([mean["lora", rank] - mean["cp", size] for rank, size in judged.matched("lora", "cp")])
    cp = [mean["cp", size] for size in (11, 22, 33)]
    expected = {
        "lora_ahead": (matched, ABOVE),
        "lora_slightly_ahead": (matched, SLIGHTLY_ABOVE),
        "cp_not_ahead": (-matched, NOT_AHEAD),
        "first_rank_learns": (cp[0] - mean["head", 0], ABOVE),
        "flat_from_first_rank": ((mean["cp", 15] + cp[1] + cp[2]) / 3 - cp[0], ALIKE),
        "cp_gains": (np.mean(cp) - mean["cp", 1], ABOVE),
        "cp_saturates": (cp[2] - cp[1], ALIKE),
    }
    assert set(expected) == set(RULES) - {"runs_kept", "splits_alike"}
    for name, (difference, region) in expected.items():
        found = RULES[name](judged)
        assert found.estimate is not None
        assert found.estimate.mean == pytest.approx(difference)
        assert found.region == region
    everyone = learned(judged).estimate
    assert everyone is not None
    assert everyone.mean == pytest.approx(np.mean([mean["lora", r] for r in (1, 2, 3)] + cp) - mean["head", 0])


@pytest.mark.parametrize("seeds", [3, 10])
@pytest.mark.parametrize(("region", "edge"), [(ABOVE, 0.0), (NOT_AHEAD, MARGIN), (ALIKE, MARGIN), (ALIKE, -MARGIN)])
@pytest.mark.long
def test_at_the_edge_of_what_is_claimed_it_seldom_holds(region: Region, edge: float, seeds: int) -> None:
    rng, world, rounds = np.random.default_rng(7), Simulation(seeds, 400, seed_sd=0.1), 1000
    found = []
    for _ in range(rounds):
        a, b = world.draw(rng, [0.8 + edge, 0.8])
        found.append(region.judge(estimate(a.right - b.right)))
    # One test in twenty, and three standard deviations of chance; with three seeds somewhat more often.
    most = (0.05 if seeds > 3 else 0.075) + 3 * (0.05 * 0.95 / rounds) ** 0.5
    assert found.count(HOLDS) / rounds < most
    if region is not ALIKE:
        # Just as often it seems not to hold.
        assert 0.01 < found.count(FAILS) / rounds < most


@pytest.mark.parametrize("region", [ABOVE, NOT_AHEAD, ALIKE, SLIGHTLY_ABOVE])
@pytest.mark.parametrize("mean", [-0.08, -0.02, -0.004, 0.004, 0.02, 0.08])
def test_a_smaller_error_never_turns_a_verdict_round(region: Region, mean: float) -> None:
    known = dataclasses.replace(estimate(np.random.default_rng(0).normal(0, 1, (5, 50))), mean=mean, degrees=100.0)
    verdicts = [
        region.judge(dataclasses.replace(known, standard_error=error))
        for error in (1e-4, 1e-3, 0.002, 0.003, 0.005, 0.01, 0.03, 0.2)
    ]
    clear = HOLDS if region.low < mean < region.high else FAILS
    certain = verdicts.count(clear)
    assert certain > 0
    assert verdicts == [clear] * certain + [OPEN] * (len(verdicts) - certain)
    assert verdicts[-1] is OPEN


def test_answers_that_all_agree_are_no_proof_of_their_own() -> None:
    few, many = (estimate(np.zeros((3, items))) for items in (100, 1000))
    assert [region.judge(few) for region in (ABOVE, ALIKE, NOT_AHEAD, SLIGHTLY_ABOVE)] == [OPEN] * 4
    assert [region.judge(many) for region in (ABOVE, ALIKE, NOT_AHEAD, SLIGHTLY_ABOVE)] == [OPEN, HOLDS, HOLDS, OPEN]


def test_other_splits_are_alike_if_each_is() -> None:
    splits = {("head", 0): 0.7, ("cp", 11): 0.85, ("cp-flat", 11): 0.85, ("cp-three", 11): 0.85}
    found = [RULES["splits_alike"](cells(splits, seed, items=20_000)).verdict for seed in range(5)]
    assert found.count(HOLDS) >= 4
    worse = RULES["splits_alike"](cells(splits | {("cp-three", 11): 0.8}, items=20_000))
    assert worse.verdict is FAILS
    assert worse.estimate is not None
    assert worse.estimate.mean == pytest.approx(-0.05, abs=0.01)


def test_another_split_is_compared_at_its_own_budget() -> None:
    accuracies = {("head", 0): 0.6, ("cp", 11): 0.85, ("cp", 22): 0.7, ("cp-three", 22): 0.85}
    judged = cells(accuracies, items=20_000)
    # A component of three modes costs half.
    halved = {**judged.budgets, ("cp-three", 22): judged.budgets["cp", 11]}
    found = RULES["splits_alike"](dataclasses.replace(judged, budgets=halved))
    assert found.verdict is HOLDS
    assert RULES["splits_alike"](judged).verdict is FAILS
    # Nothing is near the budget of this one, so that it cannot be said of each.
    lone = cells(accuracies | {("cp-flat", 5): 0.85}, items=20_000)
    halved = {**lone.budgets, ("cp-three", 22): lone.budgets["cp", 11]}
    assert RULES["splits_alike"](dataclasses.replace(lone, budgets=halved)).verdict is UNMEASURED


@pytest.mark.parametrize(
    ("stopped", "runs", "said"), [(0, 28, "no run was lost"), (1, 200, "runs were lost"), (0, 0, "not measured")]
)
def test_lost_runs_are_counted_and_no_evidence_on_accuracy(stopped: int, runs: int, said: str) -> None:
    judged = cells(RISING, diverged={"cp": (stopped, runs), "lora": (9, 9)})
    verdict, findings = judge(judged, ["runs_kept"])
    assert (told(verdict, findings), findings["runs_kept"].estimate) == (said, None)
    assert findings["runs_kept"].diverged == ((stopped, runs) if runs else None)


NEEDS = {
    "first_rank_learns": [("head", 0), ("cp", 11), ("lora", 1)],
    "flat_from_first_rank": [("cp", 11), ("cp", 15), ("cp", 33), ("lora", 2)],
    "cp_gains": [("cp", 1), ("cp", 22)],
    "cp_saturates": [("cp", 22), ("cp", 33)],
    "lora_ahead": [("lora", 3), ("cp", 11)],
    "lora_slightly_ahead": [("lora", 3), ("cp", 11)],
    "cp_not_ahead": [("lora", 3), ("cp", 11)],
}


@pytest.mark.parametrize(("name", "lacking"), [(name, cell) for name, cells in NEEDS.items() for cell in cells])
def test_a_cell_whose_run_was_lost_is_not_replaced_by_another(name: str, lacking: tuple[str, int]) -> None:
    judged = cells(RISING)
    lost = {place: found for place, found in judged.outcomes.items() if place != lacking}
    found = RULES[name](dataclasses.replace(judged, outcomes=lost)).verdict
    # LoRA's own runs decide only where LoRA is compared.
    alone = lacking[0] == "lora" and "lora" not in name and "ahead" not in name
    assert (found is UNMEASURED) != alone


@pytest.mark.parametrize("name", RULES)
def test_where_there_is_nothing_nothing_is_measured(name: str) -> None:
    assert RULES[name](Cells({}, {}, {}, 0.5)).verdict is UNMEASURED
    assert judge(Cells({}, {}, {}, 0.5), [name])[0] is UNMEASURED


def test_one_seed_or_other_seeds_measure_nothing() -> None:
    assert RULES["lora_ahead"](cells(RISING, seeds=1)) == Finding(UNMEASURED)
    judged = cells(FLAT)
    other = {**judged.outcomes, ("cp", 11): cell(judged.outcomes["cp", 11].right, first_seed=5)}
    assert RULES["lora_ahead"](dataclasses.replace(judged, outcomes=other)) == Finding(UNMEASURED)


def test_only_near_budgets_match() -> None:
    # 15 components cost 78,300 scalars, where two ranks cost 115,200.
    judged = cells({("lora", 1): 0.8, ("lora", 2): 0.8, ("cp", 1): 0.8, ("cp", 11): 0.8, ("cp", 15): 0.8})
    assert judged.matched("lora", "cp") == [(1, 11)]
    study = load_study(ROOT / "studies" / "paper.toml")
    opt = load_projections(study.backbone)
    budgets = {(label, size): count(label, opt, size) for label, size in
               study.cells(opt) if size}  # fmt: skip
    assert Cells(budgets, {}, {}, 0.5).matched("lora", "cp") == [
        (1, 21),
        (2, 43),
        (3, 64),
        (4, 85),
        (6, 128),
        (8, 171),
    ]


def one_sided(judged: Cells, share: float = 0.8) -> Cells:
    """The same with classes of which the first has this share, where every item that is not right has the other."""
    first = int(len(judged.outcomes["head", 0].items) * share)
    return dataclasses.replace(judged, classes={item: int(item >= first) for item in judged.outcomes["head", 0].items})


def answered(judged: Cells, **answers: np.ndarray) -> Cells:
    """The same, where runs of LoRA or CP answer so: `[runs, items]`, a class each."""
    classes = np.array([judged.classes[item] for item in judged.outcomes["head", 0].items])
    changed = {
        place: dataclasses.replace(known, right=(answers[place[0]] == classes).astype(float))
        for place, known in judged.outcomes.items()
        if place[0] in answers
    }
    return dataclasses.replace(judged, outcomes={**judged.outcomes, **changed})


def test_balanced_accuracy_counts_every_class_the_same() -> None:
    judged = one_sided(cells(FLAT))
    right = judged.outcomes["cp", 11].right
    first = int(right.shape[1] * 0.8)
    by_class = (right[:, :first].mean(1) + right[:, first:].mean(1)) / 2
    assert judged.balanced(("cp", 11)).mean(1) == pytest.approx(by_class)
    # Where classes are not known, and where they are as many, it is accuracy.
    assert (cells(FLAT).balanced(("cp", 11)) == right).all()
    halves = one_sided(judged, 0.5)
    assert halves.balanced(("cp", 11)) == pytest.approx(right)


def test_the_commonest_answer_is_nothing_learned() -> None:
    judged = one_sided(cells(FLAT))
    constant = np.zeros_like(judged.outcomes["cp", 11].right)
    given = answered(judged, cp=constant)
    assert given.outcomes["cp", 11].right.mean() == 0.8 > judged.outcomes["head", 0].right.mean()
    assert given.collapsed(("cp", 11)) == 10
    assert (judged.collapsed(("cp", 11)), dataclasses.replace(given, classes=None).collapsed(("cp", 11))) == (0, 0)
    # The rarer answer for all is no more than it.
    assert answered(judged, cp=constant + 1).collapsed(("cp", 11)) == 10
    found = learned(given, ("cp", 11))
    assert found.verdict is FAILS, "half of the classes are right, where the readout has seven in ten"
    assert found.unfit == found.collapsed == (("cp", 11),)


@pytest.mark.parametrize("rule", ["lora_ahead", "lora_slightly_ahead", "cp_not_ahead"])
def test_a_collapsed_cell_decides_nothing(rule: str) -> None:
    judged = one_sided(cells(FLAT, items=8000))
    verdict, findings = judge(answered(judged, lora=np.zeros_like(judged.outcomes["cp", 11].right)), [rule])
    assert findings[rule].verdict is verdict is UNJUDGED
    assert told(verdict, findings) == "not judged: LoRA at an unsuitable rate"
    assert findings[rule].estimate is not None, "what the cells have is said all the same"
    # CP's own cells are judged.
    assert judge(judged, ["cp_saturates", "first_rank_learns"])[0] is not UNJUDGED


def test_learning_is_judged_cell_by_cell() -> None:
    judged = cells(FLAT | {("lora", 2): 0.7}, items=20_000)
    assert learned(judged, ("lora", 1), ("lora", 3), ("cp", 11)).verdict is HOLDS
    everyone = learned(judged)
    assert everyone.estimate is not None
    assert everyone.estimate.interval()[0] > 0, "on their average they are above the readout"
    assert everyone.verdict is not HOLDS
    assert everyone.unfit == (("lora", 2),)
    verdict, findings = judge(judged, ["cp_not_ahead"])
    assert told(verdict, findings) == "not judged: LoRA 2 not shown to learn"
    assert judge(cells(FLAT, items=20_000), ["cp_not_ahead"])[0] is HOLDS
    lost = {place: found for place, found in judged.outcomes.items() if place != ("head", 0)}
    assert judge(dataclasses.replace(judged, outcomes=lost), ["cp_not_ahead"])[0] is UNJUDGED, (
        "nor without the readout"
    )


def test_what_gains_from_components_need_not_learn_with_one() -> None:
    judged = cells(FLAT | {("cp", 1): 0.7}, items=20_000)
    assert learned(judged, ("cp", 1)).verdict is not HOLDS
    assert judge(judged, ["cp_gains"])[0] is HOLDS
    assert judge(cells(dict.fromkeys(GRID, 0.7), items=20_000), ["cp_gains"])[0] is UNJUDGED


def level(*gaps: float, shift: float = 0.0) -> Cells:
    """Where LoRA's ranks have these leads in points on a thousand items whose answers vary a little."""
    rng, five = np.random.default_rng(3), np.full((4, 1000), 5.0)
    noise = rng.normal(0, 0.1, (4, 1000))
    noise -= noise.mean()
    outcomes = {("head", 0): cell(rng.normal(0, 0.1, (4, 1000)))}
    for rank, gap in enumerate(gaps, start=1):
        outcomes |= {("cp", 11 * rank): cell(five), ("lora", rank): cell(five + (gap + shift) / 100 + noise)}
    budgets = {place: count(place[0], SMOLLM2, place[1]) if place[1] else 0 for place in outcomes}
    return Cells(budgets, outcomes, {}, 0.5)


def test_a_verdict_that_hangs_on_one_budget_is_on_the_edge() -> None:
    assert RULES["lora_ahead"](level(1, 1, 1)).verdict is HOLDS
    # Two of three have no lead, and their average alone would not hold.
    hanging = RULES["lora_ahead"](level(3, 0, 0))
    assert ABOVE.judge(hanging.estimate) is HOLDS
    assert hanging.verdict is EDGE
    # Neither does what fails by one budget alone, and what is open stays so.
    assert RULES["cp_not_ahead"](level(-4.5, -0.5, -0.5)).verdict is EDGE
    assert RULES["lora_ahead"](level(0, 0, 0)).verdict is OPEN


def test_a_verdict_that_hangs_on_one_answer_is_on_the_edge() -> None:
    """At one budget, so that none can be left out; an answer of one of 4,000 moves the mean by 0.025 points."""
    reach = 100 * interval_90(RULES["lora_ahead"](level(0)).estimate)[1]
    found = {over: RULES["lora_ahead"](level(reach, shift=over)).verdict for over in (-0.01, 0.01, 0.02, 0.03, 0.1)}
    assert found == {-0.01: OPEN, 0.01: EDGE, 0.02: EDGE, 0.03: HOLDS, 0.1: HOLDS}


def test_flatness_starts_at_the_first_rank_or_is_not_measured() -> None:
    """A size of CP that misses that rank's budget by more than is near is not replaced by the next rank's."""
    judged = cells(FLAT, items=20_000)
    assert RULES["flat_from_first_rank"](judged).verdict is HOLDS
    without = {place: budget for place, budget in judged.budgets.items() if place != ("cp", 11)}
    assert dataclasses.replace(judged, budgets=without).matched("lora", "cp")[0] == (2, 22)
    assert RULES["flat_from_first_rank"](dataclasses.replace(judged, budgets=without)) == Finding(UNMEASURED)
    # Where LoRA was not run at CP's larger budgets, they are larger all the same.
    few = {place: budget for place, budget in judged.budgets.items() if place[0] != "lora" or place[1] == 1}
    assert RULES["flat_from_first_rank"](dataclasses.replace(judged, budgets=few)).verdict is HOLDS


def test_verdicts_combine() -> None:
    def all_of(*verdicts: Verdict) -> Verdict:
        return every([Finding(verdict) for verdict in verdicts])

    assert all_of(HOLDS, HOLDS) is HOLDS
    assert all_of(HOLDS, OPEN) is OPEN
    assert all_of(OPEN, FAILS) is FAILS
    assert all_of(UNMEASURED, OPEN) is UNMEASURED
    assert all_of(UNMEASURED, FAILS) is FAILS
    assert all_of(HOLDS, EDGE) is EDGE
    assert all_of(OPEN, EDGE) is OPEN
    assert all_of(UNJUDGED, OPEN) is UNJUDGED
