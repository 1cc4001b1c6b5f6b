"""Numbers of the three tasks under the paper's protocol, which have a chapter each: SST-2, RTE and BoolQ."""

import functools
import itertools
from collections.abc import Iterable

import numpy as np
import pandas as pd

from companion import one_task
from companion.claims import LEVEL, Finding, learned, lora_ahead
from companion.quantities import quantity
from cpadapt.analysis.cells import Cells
from cpadapt.analysis.statistics import Choice, Estimate, best_of
from cpadapt.records.config import HEAD, Cell

STUDY = "smollm2"
TASKS = ("sst2", "rte", "boolq")
LABELS = ("cp", "lora")
READOUT: Cell = (HEAD, 0)


def of_task(task: str) -> one_task.TaskOnRecord:
    """What the study has of a task."""
    return one_task.task_on_record(STUDY, task)


def cells(task: str) -> Cells:
    """A task's cells."""
    return of_task(task).cells


# What was run.


@quantity("runs", source=STUDY, each=TASKS)
def runs(task: str) -> int:
    """Runs of all cells."""
    return len(of_task(task).runs)


@quantity("runs", source=STUDY, each=TASKS)
def adapted(task: str) -> int:
    """Runs of cells with an adapter."""
    return len(_adapted(task))


@quantity("seeds", source=STUDY, each=TASKS)
def seeds(task: str) -> int:
    """Seeds of each cell."""
    return int(of_task(task).runs["seed"].nunique())


@quantity("items", source=STUDY, each=TASKS)
def items(task: str) -> int:
    """Items that are asked on eval."""
    return of_task(task).examples["eval"]


@quantity("examples", source=STUDY, each=TASKS)
def cap(task: str) -> int:
    """Examples that a run is trained on."""
    return of_task(task).examples["train"]


@quantity("steps", source=STUDY, each=TASKS)
def steps(task: str) -> int:
    """Steps of a run."""
    return of_task(task).protocol.steps


@quantity("evaluations", source=STUDY, each=TASKS)
def looks(task: str) -> int:
    """Evaluations of a run on dev."""
    return steps(task) // of_task(task).protocol.eval_every


@quantity("", 4, STUDY, each=LABELS)
def rate(label: str) -> float:
    """The learning rate of a family's runs."""
    (found,) = set(of_task(TASKS[0]).runs.query("label == @label")["learning_rate"])
    return float(found)


# How accurate they are.


@quantity("percent", 1, STUDY, each=("sst2", "rte"))
def readout(task: str) -> float:
    """The accuracy of the head alone."""
    return _mean(task, READOUT)


@quantity("percent", 1, STUDY, each=[("sst2", "least"), ("sst2", "most"), ("boolq", "most")])
def adapters(task: str, which: str) -> float:
    """The worst and the best cell with an adapter."""
    return _end((_mean(task, (label, size)) for label in LABELS for size in cells(task).sizes(label)), which)


@quantity("percent", 1, STUDY, each=itertools.product(TASKS, ["cp"]))
def best(task: str, label: str) -> float:
    """A family's best cell."""
    return _choice(task, label).chosen


@quantity("percent", 1, STUDY, each=itertools.product(TASKS, ["cp"]))
def best_held_out(task: str, label: str) -> float:
    """The same where half of the seeds and items choose it and the others judge it."""
    return _choice(task, label).held_out


@quantity("points", 1, STUDY, each=["boolq"])
def cp_range(task: str) -> float:
    """The range from CP's worst cell to its best."""
    accuracies = [_mean(task, ("cp", size)) for size in cells(task).sizes("cp")]
    return max(accuracies) - min(accuracies)


@quantity("percent", 1, STUDY, each=("rte", "boolq"))
def majority(task: str) -> float:
    """What the commonest answer gets right on eval."""
    return of_task(task).majority["eval"]


# Above the head alone, in balanced accuracy.


@quantity("points", 1, STUDY, level=0.9, each=("rte", "boolq"))
def gain(task: str) -> Estimate:
    """The cells at matched budgets minus the readout, on average over these."""
    return _estimate(_learned(task))


@quantity("cells", source=STUDY, each=("rte", "boolq"))
def compared(task: str) -> int:
    """Cells at matched budgets."""
    return 2 * len(cells(task).matched("lora", "cp"))


@quantity("cells", source=STUDY, each=("rte", "boolq"))
def taught(task: str) -> int:
    """Cells among these that are shown to be above the readout."""
    return compared(task) - len(_learned(task).unfit)


# LoRA against CP.


@quantity("points", 1, STUDY, each=TASKS)
def lead(task: str) -> Estimate:
    """LoRA minus CP on average over matched budgets."""
    return _estimate(lora_ahead(cells(task)))


@quantity("points", 2, STUDY, each=("sst2", "rte"))
def lead_error(task: str) -> float:
    """The standard error of LoRA's lead."""
    return lead(task).standard_error


@quantity("points", 2, STUDY, each=("sst2", "rte"))
def lead_error_limit(task: str) -> float:
    """The same with unlimited seeds."""
    e = lead(task)
    return e.error_with(np.inf, e.items)


@quantity("points", 1, STUDY, each=("rte", "boolq"))
def least_lead(task: str) -> float:
    """The least lead at a single budget."""
    return float(-one_task.differences(cells(task))["mean"].max())


@quantity("pairs", source=STUDY, each=TASKS)
def clear(task: str) -> int:
    """Single budgets at which the difference is clear of its error after Holm's correction."""
    return int((one_task.differences(cells(task))["holm"] < LEVEL).sum())


@quantity("", 3, STUDY, each=["sst2"])
def least_alike(task: str) -> float:
    """The least p value at a single budget of a difference of a point or more."""
    return float(one_task.differences(cells(task))["p_alike"].min())


# Where CP's curve becomes flat.


@quantity("percent", source=STUDY, each=["sst2"])
def plateau_surest(task: str) -> float:
    """The part of the draws of seeds and items in which a family's plateau begins at its likeliest size; of both the
    more.
    """
    return max(
        float(one_task.plateaus(cells(task), label, 2000, np.random.default_rng(0))["share"].max()) for label in LABELS
    )


# Dev, and the training.


@quantity("points", 1, STUDY, each=TASKS)
def dev_over_eval(task: str) -> float:
    """A run's accuracy on dev minus that on eval, on average over those with an adapter."""
    return float((_adapted(task)["dev_accuracy"] - _adapted(task)["eval_accuracy"]).mean())


@quantity("", 2, STUDY, each=["boolq"])
def correlation(task: str) -> float:
    """Between runs with an adapter, of their accuracies on dev and on eval."""
    runs = _adapted(task)
    return float(runs["dev_accuracy"].corr(runs["eval_accuracy"]))


@quantity("runs", source=STUDY, each=TASKS)
def early(task: str) -> int:
    """Runs with an adapter and best on dev at the first evaluation."""
    return int((_adapted(task)["best_step"] == of_task(task).protocol.eval_every).sum())


@quantity("runs", source=STUDY, each=TASKS)
def late(task: str) -> int:
    """Runs with an adapter and best on dev at the last evaluation."""
    return int((_adapted(task)["best_step"] == steps(task)).sum())


@quantity("", 2, STUDY, each=itertools.product(TASKS, ("most", "rank", "matched")))
def loss(task: str, which: str) -> float:
    """The training loss over the last steps: of CP's largest, LoRA's first rank and CP at its budget."""
    most, (rank, matched) = cells(task).sizes("cp")[-1], cells(task).matched("lora", "cp")[0]
    at: dict[str, Cell] = {"most": ("cp", most), "rank": ("lora", rank), "matched": ("cp", matched)}
    return _losses(task)[at[which]]


@quantity("", 4, STUDY, each=itertools.product(TASKS, LABELS))
def least_fall_of_loss(task: str, label: str) -> float:
    """The least fall of the training loss from one size of a family to the next."""
    along = [_losses(task)[label, size] for size in cells(task).sizes(label)]
    return min(before - after for before, after in itertools.pairwise(along))


@quantity("", 4, STUDY, each=TASKS)
def least_loss_behind(task: str) -> float:
    """CP's training loss minus LoRA's at a matched budget."""
    return min(
        _losses(task)["cp", size] - _losses(task)["lora", rank] for rank, size in cells(task).matched("lora", "cp")
    )


# Item by item.


@quantity("items", source=STUDY, each=itertools.product(["rte"], ("gained", "lost")))
def change(task: str, which: str) -> int:
    """Items that all runs of CP's smallest size get wrong and all of its largest right, or the other way round."""
    before, after = one_task.ends(cells(task))[1]
    return len(one_task.changes(cells(task).outcomes[before], cells(task).outcomes[after])[which])


def _adapted(task: str) -> pd.DataFrame:
    runs = of_task(task).runs
    return runs[runs["label"] != HEAD]


def _mean(task: str, cell: Cell) -> float:
    return float(cells(task).outcomes[cell].right.mean())


def _end(found: Iterable[float], which: str) -> float:
    return {"least": min, "most": max}[which](found)


@functools.cache
def _choice(task: str, label: str) -> Choice:
    outcomes = [cells(task).outcomes[label, size] for size in cells(task).sizes(label)]
    return best_of(outcomes, 400, np.random.default_rng(0))


@functools.cache
def _learned(task: str) -> Finding:
    return learned(cells(task))


def _estimate(found: Finding) -> Estimate:
    assert found.estimate is not None
    return found.estimate


@functools.cache
def _losses(task: str) -> dict[Cell, float]:
    return one_task.last_losses(of_task(task).evaluations)
