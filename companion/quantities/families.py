"""Numbers of the chapter on families."""

from companion import PROJECT, families, main_study
from companion.families import LEVEL, PARTNERS, RATES, STUDIES
from companion.quantities import Value, quantity
from companion.quantities.encoder import listed
from cpadapt.analysis.across_tasks import OverTasks
from cpadapt.analysis.charts import cell_name
from cpadapt.analysis.statistics import Estimate

TESTS = [(test, model) for model in STUDIES for test in families.tests(model)]
ON_TASKS = [(*name, task) for name in TESTS for task in families.study(name[1]).tasks]
SMALLEST = [(label, model) for model in STUDIES for label in families.study(model).ladder.sizes]
CELLS = {
    (f"{label}{size}", model): (label, size)
    for model in STUDIES
    for label, sizes in families.study(model).ladder.sizes.items()
    for size in sizes
}
ALL = tuple(STUDIES.values())
ASKED = tuple(sorted(path.stem for path in (PROJECT / "studies").glob("families-*.toml")))


def of_model(*name: str) -> str:
    """The study of a model, which a quantity's name ends in."""
    return STUDIES[name[-1]]


# What was run.


@quantity("runs", source=ALL)
def runs() -> int:
    """Runs of the two studies that are judged."""
    return sum(len(draws) for study in ALL for found in main_study.runs(study).values() for draws in found.values())


@quantity("draws", source=ALL)
def draws() -> int:
    """Draws of each cell on each task."""
    (count,) = {len(found) for study in ALL for by in main_study.runs(study).values() for found in by.values()}
    return count


@quantity("adapters", source=ALL)
def adapters() -> int:
    """The adapters of both studies, without the head alone."""
    return sum(len(families.cells(model)) for model in STUDIES)


@quantity(source=ASKED)
def not_whole() -> str:
    """The studies of families of which runs are missing."""
    return listed([name for name in ASKED if families.missing(name)])


# The tests.


@quantity("points", 2, of_model, each=TESTS)
def lead(test: str, model: str) -> OverTasks:
    """A family minus LoRA at equal size, or CP's smallest minus LoKr's."""
    return families.lead(test, model)


@quantity("points", 2, lambda *name: STUDIES[name[1]], each=ON_TASKS)
def on_task(test: str, model: str, task: str) -> Estimate:
    """The same on one task."""
    return families.on_task(test, model, task)


@quantity(source=of_model, each=TESTS)
def apart(test: str, model: str) -> Value:
    """The tasks whose interval leaves out zero, of all tasks."""
    ends = [families.on_task(test, model, task).interval() for task in families.study(model).tasks]
    return Value(sum(low > 0 or high < 0 for low, high in ends), n=len(ends))


@quantity(source=of_model, each=TESTS)
def verdict(test: str, model: str) -> str:
    """How it is classified, corrected over the model's tests."""
    return families.tested(model)[test].verdict


@quantity("", 3, of_model, each=TESTS)
def p_value(test: str, model: str) -> float:
    """P value of no difference, corrected over the model's tests."""
    return families.tested(model)[test].p_value


@quantity("", 3, of_model, each=TESTS)
def equivalence_p_value(test: str, model: str) -> float:
    """P value of a difference beyond the margin, corrected over the model's tests."""
    found = families.tested(model)[test].equivalence_p_value
    assert found is not None
    return found


@quantity("comparisons", source=ALL)
def compared() -> int:
    """The tests of a family against LoRA at equal size."""
    return sum(len(PARTNERS[model]) for model in STUDIES)


@quantity(source=ALL)
def equivalent() -> int:
    """Those of them that found the two equivalent."""
    return sum(families.tested(model)[test].verdict == "equivalent" for model in STUDIES for test in PARTNERS[model])


# Below the first rank.


@quantity("scalars", 0, of_model, each=SMALLEST)
def smallest(label: str, model: str) -> int:
    """The trainable scalars of a family's smallest adapter."""
    return families.cells(model)[families.smallest(label, model)]


@quantity("percent", 0, of_model, each=SMALLEST)
def share(label: str, model: str) -> Value:
    """The share of the best adapter's gain that a family's smallest has."""
    ratio, low, high = families.share(label, model)
    return Value(ratio, low, high, level=1 - LEVEL)


@quantity("percent", 0, of_model, each=[name for name in SMALLEST if name[0] not in ("lora", "melora")])
def of_rank(label: str, model: str) -> float:
    """The scalars of a family's smallest as a share of those of LoRA's rank 1."""
    return families.cells(model)[families.smallest(label, model)] / families.cells(model)["lora", 1]


@quantity("points", 2, of_model, each=[name for name in SMALLEST if name[0] != "lora"])
def behind(label: str, model: str) -> OverTasks:
    """A family's smallest minus LoRA's rank 1. It wasn't asked beforehand."""
    return families.behind(label, model)


@quantity("points", 1, of_model, each=CELLS)
def gain(cell: str, model: str) -> OverTasks:
    """What an adapter gains over the head alone, over tasks."""
    return families.gain(CELLS[cell, model], model)


# The rates that dev chose.


@quantity("choices", source=tuple(RATES.values()))
def choices() -> int:
    """The sizes for which dev chose a rate, on both models."""
    return sum(len(families.choices(model)) for model in STUDIES)


def _on_the_edge(place: int) -> list[str]:
    """The sizes whose chosen rate is the lowest (1) or the highest (2) tried, with the model's name behind."""
    return [
        f"{cell_name(*cell)} {model}"
        for model in STUDIES
        for cell, found in families.choices(model).items()
        if found[0] == found[place]
    ]


@quantity(source=tuple(RATES.values()))
def at_highest() -> int:
    """The choices that fell on the highest rate tried."""
    return len(_on_the_edge(2))


@quantity(source=tuple(RATES.values()))
def which_highest() -> str:
    """Those of them, by name."""
    return listed(_on_the_edge(2))


@quantity(source=tuple(RATES.values()))
def which_lowest() -> str:
    """The choices that fell on the lowest rate tried."""
    return listed(_on_the_edge(1))
