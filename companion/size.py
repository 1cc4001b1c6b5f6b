"""The accuracy of a model of the paper's size before training, and the settings that dev chooses for it."""

import functools
import math
import statistics
from collections.abc import Mapping

import numpy as np
import pandas as pd

from companion import PROJECT, quantities
from companion.records import records
from cpadapt.analysis import across_tasks
from cpadapt.analysis.cells import Cells, cells_of
from cpadapt.analysis.charts import backbone_name, cell_name
from cpadapt.analysis.statistics import Estimate, estimate
from cpadapt.errors import InputError
from cpadapt.families import FAMILIES
from cpadapt.inputs.tasks.specs import TASKS
from cpadapt.records.config import HEAD, Cell, RunConfig
from cpadapt.records.record import Outcome, Record
from cpadapt.study import load_study

STUDY = "size-paper"

RATES = {"qwen15": "size-rates", "qwen05": "size-rates-0.5b", "smollm2": "size-rates-smollm2"}
"""The study of rates on each model."""

MODELS = {"qwen": ("size-zero-shot", STUDY), "smollm2": ("smollm2-verbalizer", "smollm2")}
"""For each model, the study of its untrained words, and the study that trains its head alone."""


TASKS_MEASURED = ("sst2", "rte", "boolq")
"""The tasks of the study."""


@functools.cache
def cells(task: str) -> Cells:
    """The cells of a task."""
    return cells_of(run for run in records(STUDY) if run.config.task == task)


def gap(task: str) -> Estimate:
    """CP minus LoRA at equal size, averaged over the pairs."""
    found = cells(task)
    gaps = [
        found.outcomes["cp", size].right - found.outcomes["lora", rank].right
        for rank, size in found.matched("lora", "cp")
    ]
    return estimate(np.mean(gaps, axis=0))


def over_head(task: str) -> float:
    """The best adapter's accuracy minus that of the head alone."""
    means = {cell: float(found.right.mean()) for cell, found in cells(task).outcomes.items()}
    head = means.pop((HEAD, 0))
    return max(means.values()) - head


def untrained(model: str) -> dict[str, Record]:
    """The runs of a model's words on each task without an adapter. Nothing is trained, so all seeds are one run."""
    return {run.config.task: run for run in records(MODELS[model][0]) if run.label == HEAD}


def answered(model: str, task: str) -> Outcome:
    """The outcome of a model's untrained words on a task.

    Raises:
        InputError: there is no record of it.
    """
    if task not in (runs := untrained(model)) or (outcome := runs[task].outcome) is None:
        raise InputError(f"{MODELS[model][0]} has no outcome of {task!r}: measure it first")
    return outcome


def trained_head(model: str, task: str) -> float | None:
    """The mean accuracy of the head alone, if it is measured."""
    runs = [run for run in records(MODELS[model][1]) if (run.label, run.config.task) == (HEAD, task)]
    return statistics.mean(run.outcome.accuracy for run in runs if run.outcome) if runs else None


def setting(config: RunConfig) -> str:
    """A run's rate in multiples of the paper's, its scale and its warm-up, as written in a quantity's name."""
    family = FAMILIES[config.family]
    times = f"times{(config.learning_rate or math.nan) / family.LEARNING_RATE:.0f}"
    scaled = "" if config.scale == family.SCALE else f"_scale{config.scale:.0f}"
    return times + scaled + ("_warm" if config.warmup_steps else "")


SETTINGS = {
    "times3": "3×", "times10": "10×", "times30": "30×", "times100": "100×", "times10_warm": "10×, warm-up",
    "times30_warm": "30×, warm-up", "times3_scale32": "3×, scale 32", "times10_scale32": "10×, scale 32",
}  # fmt: skip
"""The printed name of each setting."""


@functools.cache
def tried(model: str) -> Mapping[Cell, tuple[str, ...]]:
    """The settings that were tried for each cell on a model."""
    sizes = load_study(PROJECT / "studies" / f"{RATES[model]}.toml").ladder.sizes
    return {
        (label, size): tuple(name for name in SETTINGS if label == "cp" or "scale" not in name)
        for label in ("cp", "lora")
        for size in sizes[label]
    }


@functools.cache
def on_dev_by_task(model: str, cell: Cell, name: str) -> Mapping[str, float]:
    """The accuracy on dev at a setting on each task, the mean over draws. A diverged run counts as 0."""
    by_task: dict[str, list[float]] = {}
    for run in records(RATES[model]):
        if (run.label, run.config.size) == cell and setting(run.config) == name:
            by_task.setdefault(run.config.task, []).append(run.best.dev_accuracy if run.best else 0.0)
    return {task: statistics.mean(found) for task, found in by_task.items()}


def on_dev(model: str, cell: Cell, name: str) -> float:
    """The mean over tasks of the accuracy on dev at a setting."""
    return statistics.mean(on_dev_by_task(model, cell, name).values())


@functools.cache
def chosen_settings(model: str) -> Mapping[Cell, RunConfig]:
    """The setting that dev chooses for each cell of a model, as a config of it."""
    return across_tasks.chosen_settings(records(RATES[model]))


def chosen(model: str, cell: Cell) -> str:
    """The name of that setting."""
    return SETTINGS[setting(chosen_settings(model)[cell])]


def knowledge_table() -> pd.DataFrame:
    """Each model's accuracy on each task before training, beside the trained head, as a printed table in percent."""
    rows = []
    for model, (words, _) in MODELS.items():
        study = load_study(PROJECT / "studies" / f"{words}.toml")
        for task in study.tasks:
            name = f"{model}.{task}"
            rows.append(
                {
                    "model": backbone_name(str(study.backbone)),
                    "task": TASKS[task].title,
                    "classes": len(TASKS[task].labels),
                    "items": quantities.value(f"size.asked.{name}").text(),
                    "zero-shot, %": quantities.value(f"size.zero_shot.{name}").text(),
                    "balanced, %": quantities.value(f"size.zero_shot_balanced.{name}").text(),
                    "commonest answer, %": quantities.value(f"size.majority.{name}").text(),
                    "head, %": quantities.value(f"size.head.{name}").text(),
                }
            )
    return pd.DataFrame(rows)


def setting_table(model: str) -> pd.DataFrame:
    """Each cell's accuracy on dev at each setting, and the setting that dev chooses, as a printed table in percent."""
    rows = []
    for (label, size), settings in tried(model).items():
        name = f"{model}.{label}{size}"
        of_cell = {
            called: quantities.value(f"size.on_dev.{name}.{key}").text() if key in settings else "–"
            for key, called in SETTINGS.items()
        }
        chosen = quantities.value(f"size.chosen.{name}").text()
        rows.append({"adapter": cell_name(label, size)} | of_cell | {"chosen": chosen})
    return pd.DataFrame(rows)
