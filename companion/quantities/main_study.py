"""Numbers of the chapter on fifteen tasks."""

import statistics

from companion import PROJECT, main_study, plan
from companion.main_study import LEVEL, SETS, STUDY
from companion.quantities import quantity
from companion.records import records
from cpadapt.analysis.across_tasks import OverTasks
from cpadapt.analysis.charts import cell_name
from cpadapt.analysis.statistics import Estimate, Mean
from cpadapt.study import load_study

TASKS = load_study(PROJECT / "studies" / f"{STUDY}.toml").tasks


@quantity("points", 2, STUDY, level=LEVEL)
def primary() -> OverTasks:
    """LoRA minus CP at equal size, over tasks: the plan's primary number."""
    return main_study.primary()


@quantity(source=STUDY)
def verdict() -> str:
    """How the plan classifies it."""
    return main_study.verdict()


@quantity(source=STUDY)
def compared() -> str:
    """The pairs of cells that are compared."""
    lora, cp = ([cell for cell in main_study.PRIMARY if cell[0] == label] for label in ("lora", "cp"))
    return " and ".join(f"{cell_name(*one)} − {cell_name(*other)}" for one, other in zip(lora, cp, strict=True))


@quantity("steps", source=STUDY)
def steps() -> int:
    """Steps of a run."""
    return records(STUDY)[0].config.protocol.steps


@quantity(source=STUDY)
def more_draws() -> str:
    """Whether the plan asks for more draws."""
    return "yes" if plan.needs_more_draws(primary()) else "no"


@quantity("times", 0, STUDY)
def smaller() -> float:
    """How many times fewer scalars one component has than LoRA's first rank."""
    one, rank = (main_study.scalars(cell) for cell in (("cp", 1), ("lora", 1)))
    return rank / one


@quantity("", 0, STUDY, each=("cp1", "lora1"))
def scalars(cell: str) -> int:
    """Trainable scalars of an adapter over the whole model."""
    return main_study.scalars((cell[:-1], 1))


@quantity("components", 0, STUDY)
def most_components() -> int:
    """Components of the largest CP."""
    return max(size for label, size in main_study.runs()[TASKS[0]] if label == "cp")


@quantity("points", 1, STUDY, level=LEVEL)
def one_component_costs() -> OverTasks:
    """LoRA's first rank minus one component, over tasks."""
    return main_study.one_component_costs()


@quantity("points", 2, STUDY)
def spread() -> float:
    """The standard deviation of the sources' true differences."""
    return primary().spread


@quantity("sources", source=STUDY)
def sources() -> int:
    """Sources of the tasks; tasks that share one count once."""
    return len(primary().by_source)


@quantity("tasks", source=STUDY)
def tasks() -> int:
    """Tasks that are measured."""
    return len(main_study.runs())


@quantity("runs", source=STUDY)
def runs() -> int:
    """Runs of the study."""
    return len(records(STUDY))


@quantity("draws", source=STUDY)
def draws() -> int:
    """Draws of a task's examples."""
    return len(main_study.on_task(TASKS[0]).draws)


@quantity("runs", source=STUDY)
def lost() -> int:
    """Runs that have no outcome."""
    return sum(run.outcome is None for run in records(STUDY))


@quantity("points", 2, STUDY, level=LEVEL, each=TASKS)
def on_task(task: str) -> Estimate:
    """The primary number on one task."""
    return main_study.on_task(task).estimate


@quantity("points", 2, STUDY, level=LEVEL, each=[(task, asked) for task in TASKS for asked in SETS])
def on_set(task: str, asked: str) -> Mean:
    """The same on one set of items."""
    return main_study.on_task(task, asked).estimate


@quantity("points", 2, STUDY, each=TASKS)
def balanced(task: str) -> float:
    """The same on eval, in balanced accuracy."""
    return main_study.balanced(task)


@quantity("points", 1, STUDY, level=LEVEL, each=TASKS)
def gain(task: str) -> Estimate:
    """The four adapters of the primary number minus the head alone, on one task."""
    return main_study.gain(task).estimate


@quantity("points", 1, STUDY)
def least_gain() -> float:
    """The same on the task where it is least."""
    return min(gain(task).mean for task in TASKS)


@quantity("points", 1, STUDY)
def median_gain() -> float:
    """The same on the task in the middle."""
    return statistics.median(gain(task).mean for task in TASKS)


@quantity("points", 1, STUDY)
def greatest_gain() -> float:
    """The same on the task where it is greatest."""
    return max(gain(task).mean for task in TASKS)


@quantity("tasks", source=STUDY)
def at_odds() -> int:
    """Tasks on which eval and rest rows differ in sign, both clearly."""
    found = 0
    for task in TASKS:
        (low, high), (other_low, other_high) = (on_set(task, asked).interval(LEVEL) for asked in SETS)
        found += (low > 0 and other_high < 0) or (high < 0 and other_low > 0)
    return found


@quantity("points", 2, STUDY)
def largest() -> float:
    """The largest difference on a task, of either sign."""
    return max((on_task(task).mean for task in TASKS), key=abs)
