"""The plan's fourteen secondary tests (book/plan.md): of each its number and its p values, corrected together."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeVar

import pandas as pd
from scipy import stats

from companion import PROJECT, claims, main_study, plan, quantities, size, verdicts
from companion.plan import LONGER, MAIN, SMALLER, SMALLEST
from cpadapt.analysis.across_tasks import OverTasks, between, difference, share_interval
from cpadapt.analysis.statistics import Mean, holm
from cpadapt.inputs.tasks.specs import TASKS
from cpadapt.records.config import HEAD, Cell

T = TypeVar("T")

Weights = Mapping[tuple[str, Cell], float]
"""A difference as weights of cells, each with its study."""

QUESTIONS: Mapping[int, str] = {
    1: "LoRA 1 − CP 17",
    2: "LoRA 4 − CP 71",
    3: "(CP 1 − head) − ½ (best − head)",
    4: "best − CP 1: three classes or more, minus two",
    5: "CP 71 − CP 17",
    6: "CP 71 − CP 4",
    7: "CP 71 − CP 1",
    8: "LoRA − CP: 2000 steps minus 500",
    9: "CP 71 − CP 1: 2000 steps minus 500",
    10: "LoRA − CP: 0.5B minus 1.5B",
    11: "LoRA − CP: 135M minus 1.5B",
    12: "SST-2 has an early plateau",
    13: "BoolQ gains, then saturates slightly below LoRA",
    14: "RTE remains LoRA's",
}
"""What each test is about."""

SHORT: Mapping[int, str] = {
    3: "CP 1 − half the best",
    4: "best − CP 1, more classes",
    8: "LoRA − CP, longer",
    9: "CP 71 − CP 1, longer",
    10: "LoRA − CP, 0.5B",
    11: "LoRA − CP, 135M",
}
"""What a test is about where `QUESTIONS` is too long for a line of a chart."""

COMPONENTS = (1, 4, 17, 71)
"""CP's sizes in the main study."""

CLAIMS: Mapping[int, tuple[str, str]] = {
    12: ("plateau", "sst2"),
    13: ("saturates", "boolq"),
    14: ("favoured", "rte"),
}
"""The paper's claims and their tasks, by number of the test."""


def is_measured(*studies: str) -> bool:
    """Whether studies have records."""
    return all((PROJECT / "results" / study).is_dir() for study in studies)


def are_judged() -> bool:
    """Whether the studies of all tests have records. Before that no test has a verdict: they're corrected together."""
    return is_measured(LONGER, SMALLER, SMALLEST)


def over(weights: Callable[[str], Weights], studies: tuple[str, ...], tasks: set[str] | None = None) -> OverTasks:
    """A difference over the tasks that all of the studies have, on the draws that all of them have."""
    common = set.intersection(*(set(main_study.runs(study)) for study in studies), *([tasks] if tasks else []))
    found = {}
    for task in sorted(common):
        parts = weights(task)
        draws = set.intersection(*(set(main_study.runs(study)[task][cell]) for study, cell in parts))
        found[task] = difference(
            [
                (weight, [run for draw, run in main_study.runs(study)[task][cell].items() if draw in draws])
                for (study, cell), weight in parts.items()
            ]
        )
    return main_study.over_sources(found)


def minus(one: Cell, other: Cell, study: str = MAIN) -> Weights:
    """One cell of a study minus another."""
    return {(study, one): 1.0, (study, other): -1.0}


def primary(study: str, sign: float = 1.0) -> dict[tuple[str, Cell], float]:
    """The primary number on a study: LoRA minus CP at equal size."""
    return {(study, cell): sign * weight for cell, weight in plan.primary(study).items()}


@functools.cache
def best(task: str, study: str = MAIN) -> Cell:
    """The adapter of a study with the highest mean accuracy on dev, at each run's best step."""

    def on_dev(cell: Cell) -> float:
        return sum(run.best.dev_accuracy if run.best else 0.0 for run in main_study.runs(study)[task][cell].values())

    return max((cell for cell in main_study.runs(study)[task] if cell[0] != HEAD), key=on_dev)


def _beyond_share(share: float, study: str = MAIN, cell: Cell = ("cp", 1)) -> Callable[[str], Weights]:
    """A cell's gain over the head, minus a share of the best adapter's."""

    def weights(task: str) -> Weights:
        most = best(task, study)
        found = {cell: 1.0, (HEAD, 0): share - 1}
        found[most] = found.get(most, 0.0) - share
        return {(study, each): weight for each, weight in found.items()}

    return weights


def _by_classes(many: bool) -> set[str]:
    """The tasks of three or more classes, or those of two."""
    return {task for task in main_study.runs() if (len(TASKS[task].labels) > 2) == many}


def _lacked(many: bool) -> OverTasks:
    """The best adapter minus one component, on the tasks of `_by_classes`."""
    return over(lambda task: minus(best(task), ("cp", 1)), (MAIN,), _by_classes(many))


@functools.cache
def numbers() -> Mapping[int, Mean]:
    """The difference that each of the tests 1 to 11 is about, by its number, of those whose studies are measured."""
    components = ("cp", 71), ("cp", 1)
    found: dict[int, Mean] = {
        1: over(lambda _: minus(("lora", 1), ("cp", 17)), (MAIN,)),
        2: over(lambda _: minus(("lora", 4), ("cp", 71)), (MAIN,)),
        3: over(_beyond_share(0.5), (MAIN,)),
        4: between(_lacked(many=True), _lacked(many=False)),
    }
    for test, fewer in zip((5, 6, 7), (17, 4, 1), strict=True):
        found[test] = over(lambda _, fewer=fewer: minus(("cp", 71), ("cp", fewer)), (MAIN,))  # type: ignore[misc]
    if is_measured(LONGER):
        studies = (MAIN, LONGER)
        found[8] = over(lambda _: primary(LONGER) | primary(MAIN, -1), studies)
        found[9] = over(lambda _: {**minus(*components, LONGER), **minus(*components[::-1])}, studies)
    for test, study in ((10, SMALLER), (11, SMALLEST)):
        if is_measured(study):
            weights = primary(study) | primary(MAIN, -1)
            found[test] = over(lambda _, weights=weights: weights, (MAIN, study))  # type: ignore[misc]
    return found


@functools.cache
def share(study: str = MAIN, cell: Cell = ("cp", 1), level: float = 1 - plan.LEVEL) -> tuple[float, float, float]:
    """A cell's share of the best adapter's gain over the head, and the ends of its interval (Fieller)."""
    gained = over(lambda _: minus(cell, (HEAD, 0), study), (study,))
    best_gained = over(lambda task: minus(best(task, study), (HEAD, 0), study), (study,))
    low, high = share_interval(lambda part: over(_beyond_share(part, study, cell), (study,)), level)
    return gained.mean / best_gained.mean, low, high


def share_on(task: str) -> float:
    """The same on one task, without a test."""

    def accuracy(cell: Cell) -> float:
        return difference([(1.0, main_study.runs()[task][cell].values())]).estimate.mean

    head = accuracy((HEAD, 0))
    return (accuracy(("cp", 1)) - head) / (accuracy(best(task)) - head)


def claim(test: int) -> tuple[claims.Verdict, Mapping[str, claims.Finding]]:
    """The paper's claim behind one of the tests 12 to 14, judged by its rules at their own level."""
    name, task = CLAIMS[test]
    return claims.judge(size.cells(task), verdicts.CLAIMS[name]["rules"])


def _claim_p_value(test: int) -> float:
    """The largest p value of a claim's rules, of each end of their regions; 1 where a rule cannot be judged."""
    largest = 0.0
    for finding in claim(test)[1].values():
        if finding.estimate is None or finding.region is None or finding.unfit:
            return 1.0
        e = finding.estimate
        for distance in (e.mean - finding.region.low, finding.region.high - e.mean):
            largest = max(largest, float(stats.t.sf(distance / e.standard_error, e.degrees)))
    return largest


@dataclass(frozen=True)
class Tested:
    """One of the tests, with p values that are corrected over all of them."""

    p_value: float
    equivalence_p_value: float | None
    """`None` of a claim of the paper, which is shown or open."""
    level: float

    @property
    def verdict(self) -> plan.Call:
        """How it is classified."""
        equivalent = 1.0 if self.equivalence_p_value is None else self.equivalence_p_value
        return plan.call(self.p_value, equivalent, self.level)


def corrected(differences: Mapping[T, Mean], level: float, claims: Mapping[T, float] | None = None) -> dict[T, Tested]:
    """Tests that are corrected together (Holm), by name.

    Args:
        differences: the numbers of tests that have one.
        level: of each test.
        claims: the p values of tests that have none.
    """
    claims = claims or {}
    p_values = holm([*(mean.p_value() for mean in differences.values()), *claims.values()])
    equivalent = holm([mean.equivalence_p_value(plan.MARGIN) for mean in differences.values()])
    names = (*differences, *claims)
    return {test: Tested(p, e, level) for test, p, e in zip_longest(names, p_values, equivalent)}


@functools.cache
def tested() -> Mapping[int, Tested]:
    """All tests, by number."""
    return corrected(numbers(), plan.LEVEL, {test: _claim_p_value(test) for test in CLAIMS})


def plateau() -> int | None:
    """The fewest components that are equivalent to the most, if all numbers between are too; `None` if it is open."""
    begins = None
    for test, fewer in zip((5, 6, 7), COMPONENTS[-2::-1], strict=True):
        if tested()[test].verdict is not plan.Call.EQUIVALENT:
            break
        begins = fewer
    return begins


def chart_rows() -> pd.DataFrame:
    """The numbers of the tests 1 to 11 with their intervals at the plan's level, for `charts.interval_chart`."""
    rows = []
    for test, mean in numbers().items():
        low, high = mean.interval(1 - plan.LEVEL)
        what = f"{test}: {SHORT.get(test, QUESTIONS[test])}"
        row = {"group": "difference", "what": what, "mean": mean.mean}
        rows.append(row | {"low": low, "high": high, "seeds": int(mean.degrees) + 1})
    return pd.DataFrame(rows)


def test_table() -> pd.DataFrame:
    """All tests, to read: number, interval and, once all are measured, both corrected p values and the verdict."""
    rows = []
    for test, question in QUESTIONS.items():
        row = {"test": str(test), "what is tested": question}
        if test in CLAIMS:
            row |= {"points": "–", "97 % interval": "–", "p, equivalence": "–"}
        elif test in numbers():
            number = quantities.value(f"planned.number.test{test}")
            row |= {"points": number.text("signed"), "97 % interval": number.text("interval|signed")}
        else:
            row |= {"points": "not measured", "97 % interval": "not measured"}
        if are_judged():
            if test not in CLAIMS:
                row["p, equivalence"] = _text(quantities.value(f"planned.equivalence_p_value.test{test}"))
            row["p"] = _text(quantities.value(f"planned.p_value.test{test}"))
            row["verdict"] = quantities.value(f"planned.verdict.test{test}").text()
        rows.append(row)
    columns = ["test", "what is tested", "points", "97 % interval"]
    return pd.DataFrame(rows)[columns + (["p", "p, equivalence", "verdict"] if are_judged() else [])]


def _text(p_value: quantities.Quantity) -> str:
    """A p value to read, which is never 0."""
    least = 10.0**-p_value.digits
    return p_value.text() if float(p_value.value) >= least else f"<\u202f{least:.{p_value.digits}f}"


def share_table() -> pd.DataFrame:
    """The best adapter of each task by dev, and one component's share of its gain, to read."""
    return pd.DataFrame(
        {
            "task": TASKS[task].title,
            "classes": len(TASKS[task].labels),
            "best on dev": quantities.value(f"planned.best.{task}").text(),
            "CP 1's share, %": quantities.value(f"planned.share_on.{task}").text(),
        }
        for task in sorted(main_study.runs(), key=lambda task: (len(TASKS[task].labels), task))
    )
