"""The main study over fifteen tasks: its primary question, as the plan states it (book/plan.md)."""

import functools
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from companion import plan, quantities
from companion.records import records
from cpadapt.analysis.across_tasks import OnTask, OverTasks, difference, over_tasks
from cpadapt.analysis.statistics import Mean
from cpadapt.inputs.tasks.specs import TASKS
from cpadapt.records.config import HEAD, Cell
from cpadapt.records.record import Record

STUDY = plan.MAIN

PRIMARY = plan.primary(STUDY)
"""The primary number: the mean of two differences at equal size, LoRA minus CP, as weights of cells."""

SETS = ("eval", "rest")


@functools.cache
def runs(study: str = STUDY) -> Mapping[str, Mapping[Cell, Mapping[int, Record]]]:
    """The runs of each cell of a study over tasks, by draw, from the task with the fewest classes to the one with the
    most."""
    found: dict[str, dict[Cell, dict[int, Record]]] = {}
    for run in sorted(records(study), key=lambda run: (len(TASKS[run.config.task].labels), run.config.task)):
        cells = found.setdefault(run.config.task, {})
        cells.setdefault((run.label, run.config.size), {})[run.config.data_seed] = run
    return found


@functools.cache
def on_task(task: str, asked: str | None = None, study: str = STUDY) -> OnTask:
    """A study's primary number on one task: on all items, or on those of one of `SETS`."""
    cells = runs(study)[task]
    return difference(
        [
            (weight, [_asked(run, asked) for run in cells[cell].values()])
            for cell, weight in plan.primary(study).items()
        ]
    )


def _asked(run: Record, asked: str | None) -> Record:
    if asked is None:
        return run
    return replace(run, rest=None) if asked == "eval" else replace(run, outcome=None)


@functools.cache
def gain(task: str) -> OnTask:
    """The mean of the primary number's four cells minus the head alone, on one task. The plan has no test of it."""
    cells = {cell: 1 / len(PRIMARY) for cell in PRIMARY} | {(HEAD, 0): -1.0}
    return difference([(weight, runs()[task][cell].values()) for cell, weight in cells.items()])


def over_sources(differences: Mapping[str, OnTask]) -> OverTasks:
    """Differences on bundled tasks, over these tasks and their sources."""
    return over_tasks(differences, {task: TASKS[task].source_group for task in differences})


@functools.cache
def primary(study: str = STUDY) -> OverTasks:
    """A study's primary number, over tasks."""
    return over_sources({task: on_task(task, study=study) for task in runs(study)})


def verdict(study: str = STUDY) -> plan.Call:
    """How the plan classifies a study's primary number."""
    found = primary(study)
    return plan.call(found.p_value(), found.equivalence_p_value(plan.MARGIN))


def balanced(task: str) -> float:
    """The primary number in balanced accuracy on eval: its mean over draws. NaN where classes are unknown."""
    total = 0.0
    for cell, weight in PRIMARY.items():
        each = [run.outcome.balanced_accuracy for run in runs()[task][cell].values() if run.outcome is not None]
        total += weight * float(np.mean([math.nan if value is None else value for value in each]))
    return total


def scalars(cell: Cell, study: str = STUDY) -> int:
    """The trainable scalars of a cell of a study."""
    (count,) = {run.counts.adapter for found in runs(study).values() for run in found[cell].values()}
    return count


SHOWN: tuple[Cell, ...] = (("cp", 1), ("cp", 17), ("lora", 1))
"""The cells of `gain_rows`: one component, and the two of LoRA's first rank's size."""


@functools.cache
def minus(one: Cell, other: Cell, study: str = STUDY) -> Mapping[str, OnTask]:
    """One cell of a study minus another, by task."""
    return {
        task: difference([(1.0, cells[one].values()), (-1.0, cells[other].values())])
        for task, cells in runs(study).items()
    }


def gains(cell: Cell, study: str = STUDY) -> Mapping[str, OnTask]:
    """A cell of a study minus the head alone, by task."""
    return minus(cell, (HEAD, 0), study)


MEAN = "Mean over tasks"
"""What the charts call the number over tasks."""

GAIN = "points over the head alone"
"""The title of the axis of `gain_rows`."""

LEVEL = 1 - plan.LEVEL
"""Of every interval of this study and of those on other models, in text, tables and figures: the plan's."""


def one_component_costs(study: str = STUDY) -> OverTasks:
    """LoRA's first rank minus one component, over tasks. The plan has no test of it."""
    return over_sources(minus(("lora", 1), ("cp", 1), study))


def gain_rows() -> pd.DataFrame:
    """What cells gain over the head alone, over tasks and on each, from the most, for `charts.gain_chart`."""
    rows = []
    for label, size in SHOWN:
        found: dict[str, Mean] = {MEAN: over_sources(gains((label, size)))}
        most = sorted(runs(), key=lambda task: -gains(SHOWN[-1])[task].estimate.mean)
        found |= {str(TASKS[task].title): gains((label, size))[task].estimate for task in most}
        for what, mean in found.items():
            low, high = mean.interval(LEVEL)
            rows.append({"what": what, "label": label, "size": size, "mean": mean.mean, "low": low, "high": high})
    return pd.DataFrame(rows)


def task_chart_rows(study: str = STUDY) -> pd.DataFrame:
    """A study's primary number over tasks and on each, for `charts.interval_chart`."""
    found: dict[str, Mean] = {MEAN: primary(study)}
    found |= {str(TASKS[task].title): on_task(task, study=study).estimate for task in runs()}
    draws = len(on_task(next(iter(runs(study))), study=study).draws)
    rows = []
    for what, mean in found.items():
        low, high = mean.interval(LEVEL)
        rows.append({"group": "LoRA − CP", "what": what, "mean": mean.mean, "low": low, "high": high, "seeds": draws})
    return pd.DataFrame(rows)


def task_table() -> pd.DataFrame:
    """The primary number on each task, to read, in points: on all items, on each set, in balanced
    accuracy; and what the adapters gain over the head alone."""
    rows = []
    for task in runs():
        on_all = quantities.value(f"main_study.on_task.{task}")
        rows.append(
            {
                "task": TASKS[task].title,
                "classes": len(TASKS[task].labels),
                "all items": on_all.text("signed"),
                f"{100 * LEVEL:.0f} % interval": on_all.text("interval|signed"),
                "eval": quantities.value(f"main_study.on_set.{task}.eval").text("signed"),
                "rest": quantities.value(f"main_study.on_set.{task}.rest").text("signed"),
                "over the head": quantities.value(f"main_study.gain.{task}").text("signed"),
                "balanced": quantities.value(f"main_study.balanced.{task}").text("signed"),
            }
        )
    return pd.DataFrame(rows)
