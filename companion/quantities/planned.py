"""Numbers of the chapter on the plan's secondary tests."""

from companion import PROJECT, plan, planned
from companion.plan import LONGER, MAIN, SMALLER, SMALLEST
from companion.planned import CLAIMS
from companion.quantities import Value, quantity
from companion.size import STUDY as PAPER
from cpadapt.analysis.charts import cell_name
from cpadapt.analysis.statistics import Mean
from cpadapt.study import load_study

ALL = (MAIN, LONGER, SMALLER, SMALLEST, PAPER)
STUDIES_OF = {8: (LONGER,), 9: (LONGER,), 10: (SMALLER,), 11: (SMALLEST,)}
"""Beside the main study, those that a test's number is from."""
NUMBERS = tuple(f"test{test}" for test in range(1, 12) if planned.is_measured(*STUDIES_OF.get(test, ())))
TESTS = (*NUMBERS, *(f"test{test}" for test in CLAIMS)) if planned.are_judged() else ()
"""The tests, which are judged together, and so not before all their studies are measured."""
JUDGED = NUMBERS if TESTS else ()
ONCE = [()] if TESTS else []


def _test(name: str) -> int:
    return int(name.removeprefix("test"))


def _of_test(test: str) -> tuple[str, ...]:
    return (MAIN, *STUDIES_OF.get(_test(test), ()))


@quantity("points", 2, _of_test, level=1 - plan.LEVEL, each=NUMBERS)
def number(test: str) -> Mean:
    """The difference that a test is about."""
    return planned.numbers()[_test(test)]


@quantity("", 3, ALL, each=TESTS)
def p_value(test: str) -> float:
    """A test's p value, corrected over the fourteen."""
    return planned.tested()[_test(test)].p_value


@quantity("", 3, ALL, each=JUDGED)
def equivalence_p_value(test: str) -> float:
    """The p value of its equivalence, corrected over the eleven."""
    found = planned.tested()[_test(test)].equivalence_p_value
    assert found is not None
    return found


@quantity(source=ALL, each=TESTS)
def verdict(test: str) -> str:
    """How the plan classifies it."""
    return planned.tested()[_test(test)].verdict


@quantity(source=PAPER, each=[test for test in TESTS if test not in NUMBERS])
def claim(test: str) -> str:
    """The claim of the paper behind a test, as its rules judge it at their own level."""
    return planned.claim(_test(test))[0].value


@quantity("percent", 0, MAIN)
def share() -> Value:
    """One component's share of the best adapter's gain over the head alone."""
    ratio, low, high = planned.share()
    return Value(ratio, low, high, level=1 - plan.LEVEL)


TASKS = load_study(PROJECT / "studies" / f"{MAIN}.toml").tasks


@quantity("percent", 0, MAIN, each=TASKS)
def share_on(task: str) -> float:
    """The same on one task."""
    return planned.share_on(task)


@quantity(source=MAIN, each=TASKS)
def best(task: str) -> str:
    """The adapter with the highest accuracy on dev."""
    return cell_name(*planned.best(task))


@quantity(source=ALL, each=ONCE)
def plateau() -> str:
    """The components at which the plateau begins."""
    found = planned.plateau()
    return "open" if found is None else str(found)


@quantity("tests", source=ALL, each=plan.Call if TESTS else [])
def count(verdict: str) -> int:
    """Tests that have a verdict."""
    return sum(found.verdict == verdict for found in planned.tested().values())


@quantity("", 4)
def bound() -> float:
    """Below which a corrected p value gives a verdict."""
    return plan.LEVEL
