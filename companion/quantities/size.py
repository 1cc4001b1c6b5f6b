"""Numbers of the chapter on the paper's size."""

import math

from companion import PROJECT, size
from companion.quantities import quantity
from companion.size import RATES, STUDY, TASKS_MEASURED
from cpadapt.analysis.statistics import Estimate, compare
from cpadapt.records.config import HEAD
from cpadapt.study import load_study

ASKED = [
    (model, task)
    for model, (words, _) in size.MODELS.items()
    for task in load_study(PROJECT / "studies" / f"{words}.toml").tasks
]
CELLS = {(model, f"{label}{count}"): (label, count) for model in RATES for label, count in size.tried(model)}


@quantity("points", 1, STUDY, each=TASKS_MEASURED)
def gap(task: str) -> Estimate:
    """CP minus LoRA at equal size, averaged over the pairs."""
    return size.gap(task)


@quantity("points", 2, STUDY, each=TASKS_MEASURED)
def gap_error(task: str) -> float:
    """Its standard error."""
    return gap(task).standard_error


@quantity("points", 2, STUDY, each=TASKS_MEASURED)
def gap_error_limit(task: str) -> float:
    """The same with unlimited seeds."""
    return gap(task).error_with(math.inf, gap(task).items)


@quantity("items", source=STUDY, each=("rte", "boolq"))
def items(task: str) -> int:
    """Items that are asked."""
    return gap(task).items


@quantity("points", 1, STUDY, each=TASKS_MEASURED)
def over_head(task: str) -> float:
    """The best adapter minus the head alone."""
    return size.over_head(task)


@quantity("points", 1, STUDY, each=("boolq",))
def one_over_head(task: str) -> Estimate:
    """One component minus the head alone."""
    outcomes = size.cells(task).outcomes
    return compare(outcomes["cp", 1], outcomes[HEAD, 0])


# What the model knew before.


def words(model: str, *_: str) -> str:
    """The source of what is untrained."""
    return size.MODELS[model][0]


def heads(model: str, *_: str) -> str:
    """The source of what is trained."""
    return size.MODELS[model][1]


@quantity("items", source=words, each=ASKED)
def asked(model: str, task: str) -> int:
    """Items of a task that are asked of a model without training."""
    return size.answered(model, task).total


@quantity("items", source=words("qwen"))
def asked_most() -> int:
    """The most items of any task that are asked."""
    return max(asked(model, task) for model, task in ASKED)


@quantity("percent", 1, words, each=ASKED)
def zero_shot(model: str, task: str) -> float:
    """What a model's own words get right, without training."""
    return size.answered(model, task).accuracy


@quantity("percent", 1, words, each=ASKED)
def zero_shot_balanced(model: str, task: str) -> float:
    """The same in balanced accuracy."""
    found = size.answered(model, task).balanced_accuracy
    return math.nan if found is None else found


@quantity("percent", 1, words, each=ASKED)
def majority(model: str, task: str) -> float:
    """What the commonest answer gets right."""
    return float(size.untrained(model)[task].data["sets"]["eval"]["majority_rate"])


@quantity("percent", 1, heads, each=ASKED)
def head(model: str, task: str) -> float | str:
    """The head alone, trained; a dash where it is not measured."""
    found = size.trained_head(model, task)
    return "–" if found is None else found


# What dev chooses.


def rates(model: str, *_: str) -> str:
    """The source of what is of one model's rates."""
    return RATES[model]


@quantity(
    "percent", 1, rates, each=[(*name, tried) for name, cell in CELLS.items() for tried in size.tried(name[0])[cell]]
)
def on_dev(model: str, cell: str, setting: str) -> float:
    """A cell's accuracy on dev with a setting, over six tasks and three draws."""
    return size.on_dev(model, CELLS[model, cell], setting)


@quantity(source=rates, each=CELLS)
def chosen(model: str, cell: str) -> str:
    """The setting that dev chooses."""
    return size.chosen(model, CELLS[model, cell])


@quantity("cells", source=tuple(RATES.values()))
def at_the_edge() -> int:
    """Cells for which dev chooses the highest rate that was tried."""
    return sum(chosen(*name).startswith("100×") for name in CELLS)
