"""The plan's secondary tests, by hand, from the records' own lines."""

from collections.abc import Callable, Mapping

import pytest
from by_hand import OverSources, best_on_dev, by_draw, corrected, over_sources
from scipy import stats

from companion import main_study, plan, planned, quantities
from cpadapt.analysis.across_tasks import difference
from cpadapt.inputs.tasks.specs import TASKS
from cpadapt.records.config import Cell

pytestmark = [pytest.mark.slow, pytest.mark.long]

MAIN, LONGER, SMALLER, SMALLEST = "size-tasks", "size-longer", "size-tasks-0.5b", "size-tasks-smollm2"
Weights = Mapping[str, Mapping[Cell, float]]
"""By study."""


def leads(*pairs: tuple[int, int], sign: float = 1.0) -> dict[Cell, float]:
    """LoRA minus CP, the mean over pairs of a rank and as many components as it costs."""
    each = sign / len(pairs)
    return {("lora", rank): each for rank, _ in pairs} | {("cp", size): -each for _, size in pairs}


COMPONENTS = {("cp", 71): 1.0, ("cp", 1): -1.0}
MAINS = leads((1, 17), (4, 71), sign=-1)
BETWEEN: Mapping[int, Weights] = {
    1: {MAIN: leads((1, 17))},
    2: {MAIN: leads((4, 71))},
    5: {MAIN: {("cp", 71): 1.0, ("cp", 17): -1.0}},
    6: {MAIN: {("cp", 71): 1.0, ("cp", 4): -1.0}},
    7: {MAIN: COMPONENTS},
    8: {LONGER: leads((1, 17), (4, 71)), MAIN: MAINS},
    9: {LONGER: COMPONENTS, MAIN: {("cp", 71): -1.0, ("cp", 1): 1.0}},
    10: {SMALLER: leads((1, 13), (4, 54)), MAIN: MAINS},
    11: {SMALLEST: leads((1, 11), (4, 44)), MAIN: MAINS},
}
"""The tests whose weights are the same on every task."""


def mean(weights: Callable[[str], Weights], tasks: set[str] | None = None) -> OverSources:
    """A weighted sum of cells over tasks, on the tasks and draws that all studies have."""
    studies = list(weights("sst2"))
    found = {study: by_draw(study, lambda task, study=study: weights(task)[study]) for study in studies}
    common = set.intersection(*(set(each) for each in found.values())) & (tasks or set(TASKS))
    sums, errors = {}, {}
    for task in sorted(common):
        draws = set.intersection(*(set(each[task]) for each in found.values()))
        sums[task] = {draw: sum(each[task][draw] for each in found.values()) for draw in sorted(draws)}
        parts = [
            (w, [run for draw, run in main_study.runs(study)[task][cell].items() if draw in draws])
            for study, cells in weights(task).items()
            for cell, w in cells.items()
        ]
        errors[task] = difference(parts).estimate.standard_error
    return over_sources(sums, errors)


def beyond_half(task: str) -> Weights:
    weights = {("cp", 1): 1.0, ("head", 0): -0.5}
    chosen = best_on_dev(MAIN)[task]
    return {MAIN: weights | {chosen: weights.get(chosen, 0.0) - 0.5}}


@pytest.fixture(scope="module")
def numbers() -> dict[int, tuple[float, float, float]]:
    """Of each test from 1 to 11 its number, its error and its degrees of freedom."""
    found = {test: mean(lambda _, weights=weights: weights) for test, weights in BETWEEN.items()}
    found[3] = mean(beyond_half)
    many = {task for task in main_study.runs() if len(TASKS[task].labels) > 2}
    chosen = best_on_dev(MAIN)

    def lacked(task: str) -> Weights:
        return {MAIN: {chosen[task]: 1.0, ("cp", 1): -1.0} if chosen[task] != ("cp", 1) else {("cp", 1): 0.0}}

    few, more = (mean(lacked, tasks) for tasks in (set(main_study.runs()) - many, many))
    variances = few.error**2, more.error**2
    degrees = sum(variances) ** 2 / (variances[0] ** 2 / few.degrees + variances[1] ** 2 / more.degrees)
    result = {test: (each.mean, each.error, float(each.degrees)) for test, each in found.items()}
    result[4] = more.mean - few.mean, sum(variances) ** 0.5, degrees
    return dict(sorted(result.items()))


def test_numbers(numbers: dict[int, tuple[float, float, float]]) -> None:
    assert list(numbers) == list(range(1, 12))
    for test, (value, error, degrees) in numbers.items():
        known = quantities.value(f"planned.number.test{test}")
        reach = stats.t.ppf(1 - 0.0294 / 2, degrees) * error
        expected = [100 * end for end in (value, value - reach, value + reach)]
        assert [known.value, known.low, known.high] == pytest.approx(expected, rel=2e-3, abs=1e-3), test


def test_verdicts(numbers: dict[int, tuple[float, float, float]]) -> None:
    """Holm's correction is over the fourteen, that of equivalence over the eleven."""
    p_values = [2 * stats.t.sf(abs(value) / error, degrees) for value, error, degrees in numbers.values()]
    alike = [stats.t.sf((0.005 - abs(value)) / error, degrees) for value, error, degrees in numbers.values()]
    p_values += [planned._claim_p_value(test) for test in (12, 13, 14)]
    for test, p in enumerate(corrected(p_values), start=1):
        assert quantities.value(f"planned.p_value.test{test}").value == pytest.approx(p, rel=0.02, abs=1e-3)
        equivalent = corrected(alike)[test - 1] if test <= 11 else 1.0
        verdict = "shown" if p < plan.LEVEL else "equivalent" if equivalent < plan.LEVEL else "open"
        assert quantities.value(f"planned.verdict.test{test}").value == verdict
