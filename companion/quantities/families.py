"""Numbers of the chapter on families."""

from companion import families
from companion.families import LEVEL, STUDIES
from companion.quantities import Value, quantity
from cpadapt.analysis.across_tasks import OverTasks

TESTS = [(test, model) for model in STUDIES for test in families.tests(model)]
SMALLEST = [(label, model) for model in STUDIES for label in families.study(model).ladder.sizes]


def of_model(*name: str) -> str:
    """The study of a model, which a quantity's name ends in."""
    return STUDIES[name[-1]]


@quantity("points", 2, of_model, each=TESTS)
def lead(test: str, model: str) -> OverTasks:
    """A family minus LoRA at equal size, or CP's smallest minus LoKr's."""
    return families.lead(test, model)


@quantity(source=of_model, each=TESTS)
def verdict(test: str, model: str) -> str:
    """How it is classified, corrected over the model's tests."""
    return families.tested(model)[test].verdict


@quantity("", 3, of_model, each=TESTS)
def p_value(test: str, model: str) -> float:
    """Of no difference, corrected over the model's tests."""
    return families.tested(model)[test].p_value


@quantity("", 3, of_model, each=TESTS)
def equivalence_p_value(test: str, model: str) -> float:
    """Of a difference beyond the margin, corrected over the model's tests."""
    found = families.tested(model)[test].equivalence_p_value
    assert found is not None
    return found


@quantity("scalars", 0, of_model, each=SMALLEST)
def smallest(label: str, model: str) -> int:
    """The trainable scalars of a family's smallest adapter."""
    return families.cells(model)[families.smallest(label, model)]


@quantity("percent", 0, of_model, each=SMALLEST)
def share(label: str, model: str) -> Value:
    """The share of the best adapter's gain that a family's smallest has."""
    ratio, low, high = families.share(label, model)
    return Value(ratio, low, high, level=1 - LEVEL)


@quantity("points", 1, of_model, each=SMALLEST)
def gain(label: str, model: str) -> OverTasks:
    """What a family's smallest gains over the head alone, over tasks."""
    return families.gain(families.smallest(label, model), model)
