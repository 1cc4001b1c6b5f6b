"""The plan's fourteen secondary tests (book/plan.md): of each its number and its p values, corrected together."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd
from scipy import stats

from companion import PROJECT, claims, main_study, plan, quantities, size, verdicts
from companion.records import records
from cpadapt.analysis.across_tasks import OverTasks, between, difference, share_interval
from cpadapt.analysis.statistics import Mean, holm
from cpadapt.inputs.tasks.specs import TASKS
from cpadapt.records.config import HEAD, Cell
from cpadapt.records.record import Record

TASKS_STUDY, LONGER, SMALLER, SMALLEST = "size-tasks", "size-longer", "size-tasks-0.5b", "size-tasks-smollm2"

Weights = Mapping[tuple[str, Cell], float]
"""A difference as weights of cells, each with its study."""

AT_EQUAL_SIZE: Mapping[str, Mapping[int, int]] = {
    TASKS_STUDY: {1: 17, 4: 71},
    LONGER: {1: 17, 4: 71},
    SMALLER: {1: 13, 4: 54},
    SMALLEST: {1: 11, 4: 44},
}
"""The components whose budget is nearest to a rank's, by study and rank."""

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

COMPONENTS = (1, 4, 17, 71)
"""CP's sizes in the main study."""

CLAIMS: Mapping[int, tuple[str, str]] = {
    12: ("plateau", "sst2"),
    13: ("saturates", "boolq"),
    14: ("favoured", "rte"),
}
"""The paper's claims and their tasks, by number of the test."""


def is_measured() -> bool:
    """Whether all studies of the tests are."""
    return all((PROJECT / "results" / study).is_dir() for study in (LONGER, SMALLER, SMALLEST))


@functools.cache
def runs(study: str) -> Mapping[str, Mapping[Cell, Mapping[int, Record]]]:
    """The runs of a study, by task, cell and draw."""
    found: dict[str, dict[Cell, dict[int, Record]]] = {}
    for run in records(study):
        cells = found.setdefault(run.config.task, {})
        cells.setdefault((run.label, run.config.size), {})[run.config.data_seed] = run
    return found


def _over(weights: Callable[[str], Weights], studies: tuple[str, ...], tasks: set[str] | None = None) -> OverTasks:
    """A difference over the tasks that all of the studies have, on the draws that all of them have."""
    common = set.intersection(*(set(runs(study)) for study in studies), *([tasks] if tasks else []))
    found = {}
    for task in sorted(common):
        parts = weights(task)
        draws = set.intersection(*(set(runs(study)[task][cell]) for study, cell in parts))
        found[task] = difference(
            [
                (weight, [run for draw, run in runs(study)[task][cell].items() if draw in draws])
                for (study, cell), weight in parts.items()
            ]
        )
    return main_study.over_sources(found)


def _minus(one: Cell, other: Cell, study: str = TASKS_STUDY) -> Weights:
    return {(study, one): 1.0, (study, other): -1.0}


def _primary(study: str, sign: float = 1.0) -> dict[tuple[str, Cell], float]:
    """The primary number on a study's pairs of equal size: LoRA minus CP."""
    weights = {}
    for rank, components in AT_EQUAL_SIZE[study].items():
        weights[study, ("lora", rank)] = sign / 2
        weights[study, ("cp", components)] = -sign / 2
    return weights


@functools.cache
def best(task: str) -> Cell:
    """The adapter of the main study with the highest mean accuracy on dev, at each run's best step."""

    def on_dev(cell: Cell) -> float:
        return sum(run.best.dev_accuracy if run.best else 0.0 for run in runs(TASKS_STUDY)[task][cell].values())

    return max((cell for cell in runs(TASKS_STUDY)[task] if cell[0] != HEAD), key=on_dev)


def _beyond_share(share: float) -> Callable[[str], Weights]:
    """One component's gain over the head, minus a share of the best adapter's."""

    def weights(task: str) -> Weights:
        found = {("cp", 1): 1.0, (HEAD, 0): share - 1}
        found[best(task)] = found.get(best(task), 0.0) - share
        return {(TASKS_STUDY, cell): weight for cell, weight in found.items()}

    return weights


def _by_classes(many: bool) -> set[str]:
    """The tasks of three or more classes, or those of two."""
    return {task for task in runs(TASKS_STUDY) if (len(TASKS[task].labels) > 2) == many}


def _lacked(many: bool) -> OverTasks:
    """The best adapter minus one component, on the tasks of `_by_classes`."""
    return _over(lambda task: _minus(best(task), ("cp", 1)), (TASKS_STUDY,), _by_classes(many))


@functools.cache
def numbers() -> Mapping[int, Mean]:
    """The difference that each of the tests 1 to 11 is about, by its number."""
    longer, smaller, smallest = ((TASKS_STUDY, study) for study in (LONGER, SMALLER, SMALLEST))
    components = ("cp", 71), ("cp", 1)
    found: dict[int, Mean] = {
        1: _over(lambda _: _minus(("lora", 1), ("cp", 17)), (TASKS_STUDY,)),
        2: _over(lambda _: _minus(("lora", 4), ("cp", 71)), (TASKS_STUDY,)),
        3: _over(_beyond_share(0.5), (TASKS_STUDY,)),
        4: between(_lacked(many=True), _lacked(many=False)),
    }
    for test, fewer in zip((5, 6, 7), (17, 4, 1), strict=True):
        found[test] = _over(lambda _, fewer=fewer: _minus(("cp", 71), ("cp", fewer)), (TASKS_STUDY,))  # type: ignore[misc]
    found[8] = _over(lambda _: _primary(LONGER) | _primary(TASKS_STUDY, -1), longer)
    found[9] = _over(lambda _: {**_minus(*components, LONGER), **_minus(*components[::-1])}, longer)
    found[10] = _over(lambda _: _primary(SMALLER) | _primary(TASKS_STUDY, -1), smaller)
    found[11] = _over(lambda _: _primary(SMALLEST) | _primary(TASKS_STUDY, -1), smallest)
    return found


@functools.cache
def share() -> tuple[float, float, float]:
    """One component's share of the best adapter's gain over the head, and the ends of its interval (Fieller)."""
    gained = _over(lambda _: _minus(("cp", 1), (HEAD, 0)), (TASKS_STUDY,))
    best_gained = _over(lambda task: _minus(best(task), (HEAD, 0)), (TASKS_STUDY,))
    low, high = share_interval(lambda part: _over(_beyond_share(part), (TASKS_STUDY,)), 1 - plan.LEVEL)
    return gained.mean / best_gained.mean, low, high


def share_on(task: str) -> float:
    """The same on one task, without a test."""

    def accuracy(cell: Cell) -> float:
        return difference([(1.0, runs(TASKS_STUDY)[task][cell].values())]).estimate.mean

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
    """Of the tests 1 to 11."""

    @property
    def verdict(self) -> plan.Call:
        """How the plan classifies it. A claim of the paper is shown or open."""
        return plan.call(self.p_value, 1.0 if self.equivalence_p_value is None else self.equivalence_p_value)


@functools.cache
def tested() -> Mapping[int, Tested]:
    """All tests, by number."""
    found = numbers()
    p_values = holm([mean.p_value() for mean in found.values()] + [_claim_p_value(test) for test in CLAIMS])
    equivalent = holm([mean.equivalence_p_value(plan.MARGIN) for mean in found.values()])
    return {
        test: Tested(p, equivalent[k] if k < len(equivalent) else None)
        for k, (test, p) in enumerate(zip((*found, *CLAIMS), p_values, strict=True))
    }


def plateau() -> int | None:
    """The fewest components that are equivalent to the most, if all numbers between are too; `None` if it is open."""
    begins = None
    for test, fewer in zip((5, 6, 7), COMPONENTS[-2::-1], strict=True):
        if tested()[test].verdict is not plan.Call.EQUIVALENT:
            break
        begins = fewer
    return begins


def chart_rows() -> pd.DataFrame:
    """The numbers of the tests 1 to 11, for `charts.interval_chart`."""
    rows = []
    for test, mean in numbers().items():
        low, high = mean.interval()
        rows.append({"group": "difference", "what": f"{test}. {QUESTIONS[test]}", "mean": mean.mean, "low": low})
        rows[-1] |= {"high": high, "seeds": int(mean.degrees) + 1}
    return pd.DataFrame(rows)


def test_table() -> pd.DataFrame:
    """All tests, to read: number, interval, both corrected p values and the verdict."""
    rows = []
    for test, question in QUESTIONS.items():
        row = {"test": str(test), "what is tested": question}
        if test in CLAIMS:
            row |= {"points": "–", "97 % interval": "–", "p, equivalence": "–"}
        else:
            number = quantities.value(f"planned.number.test{test}")
            row |= {
                "points": number.text("signed"),
                "97 % interval": number.text("interval|signed"),
                "p, equivalence": quantities.value(f"planned.equivalence_p_value.test{test}").text(),
            }
        row["p"] = quantities.value(f"planned.p_value.test{test}").text()
        row["verdict"] = quantities.value(f"planned.verdict.test{test}").text()
        rows.append(row)
    columns = ["test", "what is tested", "points", "97 % interval", "p", "p, equivalence", "verdict"]
    return pd.DataFrame(rows)[columns]


def share_table() -> pd.DataFrame:
    """The best adapter of each task by dev, and one component's share of its gain, to read."""
    return pd.DataFrame(
        {
            "task": TASKS[task].title,
            "classes": len(TASKS[task].labels),
            "best on dev": quantities.value(f"planned.best.{task}").text(),
            "CP 1's share, %": quantities.value(f"planned.share_on.{task}").text(),
        }
        for task in sorted(runs(TASKS_STUDY), key=lambda task: (len(TASKS[task].labels), task))
    )
