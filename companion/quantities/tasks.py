"""Numbers of the three tasks under the paper's protocol, which have a chapter each: SST-2, RTE and BoolQ."""

import functools
import itertools
from collections.abc import Iterable

import numpy as np
import pandas as pd

from companion import ladder
from companion.claims import LEVEL, Finding, interval_90, learned, lora_ahead
from companion.quantities import quantity
from cpadapt.analysis.cells import Cells
from cpadapt.analysis.charts import cell_name
from cpadapt.analysis.statistics import Choice, Estimate, agreement, best_of, estimate
from cpadapt.records.config import HEAD, Cell

STUDY = "smollm2"
TASKS = ("sst2", "rte", "boolq")
LABELS = ("cp", "lora")
READOUT: Cell = (HEAD, 0)


def of_task(task: str) -> ladder.TaskOnRecord:
    """What the study has of a task."""
    return ladder.task_on_record(STUDY, task)


def cells(task: str) -> Cells:
    """A task's cells."""
    return of_task(task).cells


# What was run.


@quantity("runs", source=STUDY, each=TASKS)
def runs(task: str) -> int:
    """Of all cells."""
    return len(of_task(task).runs)


@quantity("runs", source=STUDY, each=TASKS)
def adapted(task: str) -> int:
    """Of cells with an adapter."""
    return len(_adapted(task))


@quantity("seeds", source=STUDY, each=TASKS)
def seeds(task: str) -> int:
    """Of each cell."""
    return int(of_task(task).runs["seed"].nunique())


@quantity("items", source=STUDY, each=TASKS)
def items(task: str) -> int:
    """That are asked on eval."""
    return of_task(task).examples["eval"]


@quantity("items", source=STUDY, each=["sst2"])
def dev_items(task: str) -> int:
    """That are asked on dev."""
    return of_task(task).examples["dev"]


@quantity("examples", source=STUDY, each=TASKS)
def cap(task: str) -> int:
    """That a run is trained on."""
    return of_task(task).examples["train"]


@quantity("steps", source=STUDY, each=TASKS)
def steps(task: str) -> int:
    """Of a run."""
    return of_task(task).protocol.steps


@quantity("steps", source=STUDY, each=TASKS)
def eval_every(task: str) -> int:
    """From one evaluation to the next."""
    return of_task(task).protocol.eval_every


@quantity("evaluations", source=STUDY, each=TASKS)
def looks(task: str) -> int:
    """Of a run, on dev."""
    return steps(task) // eval_every(task)


@quantity("times", source=STUDY, each=TASKS)
def epochs(task: str) -> float:
    """That a run goes through its examples."""
    return steps(task) * of_task(task).protocol.batch_size / cap(task)


@quantity("", 4, STUDY, each=LABELS)
def rate(label: str) -> float:
    """The learning rate of a family's runs."""
    (found,) = set(of_task(TASKS[0]).runs.query("label == @label")["learning_rate"])
    return float(found)


@quantity("cells", source=STUDY, each=itertools.product(TASKS, LABELS))
def sizes(task: str, label: str) -> int:
    """Of a family."""
    return len(cells(task).sizes(label))


@quantity("pairs", source=STUDY, each=TASKS)
def pairs(task: str) -> int:
    """Matched budgets."""
    return len(cells(task).matched("lora", "cp"))


@quantity("scalars", source=STUDY, each=itertools.product(["sst2"], ("least", "most")))
def scalars(task: str, which: str) -> float:
    """Of the adapters."""
    return _end((budget for (label, _), budget in cells(task).budgets.items() if label != HEAD), which)


# How accurate they are.


@quantity("percent", 1, STUDY, each=TASKS)
def readout(task: str) -> float:
    """The accuracy of the readout alone."""
    return _mean(task, READOUT)


@quantity("percent", 1, STUDY, each=itertools.product(("sst2", "boolq"), ("least", "most")))
def adapters(task: str, which: str) -> float:
    """The worst and the best cell with an adapter."""
    return _end((_mean(task, (label, size)) for label in LABELS for size in cells(task).sizes(label)), which)


@quantity("percent", 1, STUDY, each=itertools.product(TASKS, LABELS))
def best(task: str, label: str) -> float:
    """A family's best cell."""
    return _choice(task, label).chosen


@quantity("percent", 1, STUDY, each=itertools.product(TASKS, LABELS))
def best_held_out(task: str, label: str) -> float:
    """The same where half of the seeds and items choose it and the others judge it."""
    return _choice(task, label).held_out


@quantity("percent", 1, STUDY, each=[("rte", "lora")])
def mean(task: str, label: str) -> float:
    """Of a family's cells."""
    return float(np.mean([_mean(task, (label, size)) for size in cells(task).sizes(label)]))


@quantity("points", 1, STUDY, each=itertools.product(["rte"], LABELS))
def sd(task: str, label: str) -> float:
    """How far a family's cells differ."""
    return float(np.std([_mean(task, (label, size)) for size in cells(task).sizes(label)], ddof=1))


@quantity("points", 1, STUDY, each=["boolq"])
def cp_range(task: str) -> float:
    """From CP's worst cell to its best."""
    accuracies = [_mean(task, ("cp", size)) for size in cells(task).sizes("cp")]
    return max(accuracies) - min(accuracies)


@quantity("percent", source=STUDY, each=["sst2"])
def seeds_in_error(task: str) -> float:
    """What seeds have, at most, in the square of a cell's standard error."""
    table = ladder.accuracies(cells(task))
    return float((table["sd"] ** 2 / seeds(task) / table["error"] ** 2).max())


@quantity("percent", 1, STUDY, each=("rte", "boolq"))
def majority(task: str) -> float:
    """What the commonest answer gets right on eval."""
    return of_task(task).majority["eval"]


@quantity("percent", 1, STUDY, each=["boolq"])
def dev_majority(task: str) -> float:
    """What it gets right on dev."""
    return of_task(task).majority["dev"]


@quantity("percent", 1, STUDY, each=itertools.product(["boolq"], ("readout", "least", "most")))
def balanced(task: str, which: str) -> float:
    """Balanced accuracy of the readout alone, and of the worst and the best cell with an adapter."""
    found = {cell: float(cells(task).balanced(cell).mean()) for cell in cells(task).outcomes}
    return (
        found.pop(READOUT) if which == "readout" else _end((found[cell] for cell in found if cell != READOUT), which)
    )


# Above the readout alone, in balanced accuracy.


@quantity("points", 1, STUDY, level=0.9, each=("rte", "boolq"))
def gain(task: str) -> Estimate:
    """The cells at matched budgets minus the readout, on the average over these."""
    return _estimate(_learned(task))


@quantity("cells", source=STUDY, each=("rte", "boolq"))
def compared(task: str) -> int:
    """At matched budgets."""
    return 2 * pairs(task)


@quantity("cells", source=STUDY, each=("rte", "boolq"))
def taught(task: str) -> int:
    """Of these, those that are shown to be above the readout."""
    return compared(task) - len(_learned(task).unfit)


@quantity(source=STUDY, each=("rte", "boolq"))
def untaught(task: str) -> str:
    """The others."""
    return ", ".join(cell_name(*cell) for cell in sorted(_learned(task).unfit))


# LoRA against CP.


@quantity("points", 1, STUDY, each=TASKS)
def lead(task: str) -> Estimate:
    """LoRA minus CP on the average over matched budgets."""
    return _estimate(lora_ahead(cells(task)))


@quantity("points", 1, STUDY, level=0.9, each=["rte"])
def lead_judged(task: str) -> Estimate:
    """The same with the interval by which a claim is judged."""
    return lead(task)


@quantity(source=STUDY, each=("rte", "boolq"))
def lead_verdict(task: str) -> str:
    """What is told of the claim that LoRA is ahead."""
    return lora_ahead(cells(task)).told


@quantity("points", 2, STUDY, each=TASKS)
def lead_error(task: str) -> float:
    """The standard error of LoRA's lead."""
    return lead(task).standard_error


@quantity("points", 2, STUDY, each=TASKS)
def lead_error_limit(task: str) -> float:
    """The same with no end of seeds."""
    e = lead(task)
    return e.error_with(np.inf, e.items)


@quantity("points", 1, STUDY, each=("rte", "boolq"))
def least_lead(task: str) -> float:
    """At a single budget."""
    return float(-ladder.differences(cells(task))["mean"].max())


@quantity("points", 2, STUDY, each=["rte"])
def least_low_without_one(task: str) -> float:
    """The least lower end, of those by which claims are judged, of LoRA's lead without one of the budgets."""
    outcomes, matched = cells(task).outcomes, cells(task).matched("lora", "cp")
    gaps = np.stack([outcomes["lora", rank].right - outcomes["cp", size].right for rank, size in matched])
    return min(interval_90(estimate(np.delete(gaps, k, axis=0).mean(0)))[0] for k in range(len(gaps)))


@quantity("points", 2, STUDY, each=["rte"])
def one_answer(task: str) -> float:
    """What one answer of one run counts in LoRA's lead."""
    return 1 / items(task) / seeds(task) / pairs(task)


@quantity("pairs", source=STUDY, each=TASKS)
def clear(task: str) -> int:
    """Single budgets at which the difference is clear of its error after Holm's correction."""
    return int((ladder.differences(cells(task))["holm"] < LEVEL).sum())


@quantity("", 3, STUDY, each=["sst2"])
def least_alike(task: str) -> float:
    """The least p value at a single budget of a difference of a point or more."""
    return float(ladder.differences(cells(task))["p_alike"].min())


# Where CP's curve becomes flat.


@quantity("components", source=STUDY, each=["sst2"])
def plateau_size(task: str) -> int:
    """CP's smallest size within a point of its best."""
    return ladder.plateau_size(cells(task), "cp")


@quantity("percent", source=STUDY, each=["sst2"])
def plateau_budget(task: str) -> float:
    """That size's budget, of that of LoRA's first rank."""
    budgets = cells(task).budgets
    return budgets["cp", plateau_size(task)] / budgets["lora", cells(task).sizes("lora")[0]]


@quantity("percent", source=STUDY, each=("sst2", "rte"))
def plateau_surest(task: str) -> float:
    """Of draws of seeds and items, the part in which a family's plateau begins at its likeliest size; of both the
    more."""
    return max(
        float(ladder.plateaus(cells(task), label, 2000, np.random.default_rng(0))["share"].max()) for label in LABELS
    )


# Dev, and the training.


@quantity("points", 1, STUDY, each=TASKS)
def dev_over_eval(task: str) -> float:
    """A run's accuracy on dev minus that on eval, on the average over those with an adapter."""
    return float((_adapted(task)["dev_accuracy"] - _adapted(task)["eval_accuracy"]).mean())


@quantity("", 2, STUDY, each=TASKS)
def correlation(task: str) -> float:
    """Between runs with an adapter, of their accuracies on dev and on eval."""
    return _correlation(_adapted(task))


@quantity("", 2, STUDY, each=itertools.product(["rte"], LABELS))
def correlation_within(task: str, label: str) -> float:
    """The same between a family's runs."""
    return _correlation(_adapted(task).query("label == @label"))


@quantity("runs", source=STUDY, each=TASKS)
def early(task: str) -> int:
    """With an adapter and best on dev at the first evaluation."""
    return int((_adapted(task)["best_step"] == eval_every(task)).sum())


@quantity("runs", source=STUDY, each=TASKS)
def late(task: str) -> int:
    """With an adapter and best on dev at the last evaluation."""
    return int((_adapted(task)["best_step"] == steps(task)).sum())


@quantity("", 2, STUDY, each=itertools.product(TASKS, ("readout", "one", "most", "rank", "matched")))
def loss(task: str, which: str) -> float:
    """The training loss over the last steps: of the readout alone, CP's smallest and largest, LoRA's first rank and CP
    at its budget."""
    sizes, (rank, matched) = cells(task).sizes("cp"), cells(task).matched("lora", "cp")[0]
    at: dict[str, Cell] = {"readout": READOUT, "one": ("cp", sizes[0]), "most": ("cp", sizes[-1]),
                           "rank": ("lora", rank), "matched": ("cp", matched)}  # fmt: skip
    return _losses(task)[at[which]]


@quantity("", 4, STUDY, each=itertools.product(TASKS, LABELS))
def least_fall_of_loss(task: str, label: str) -> float:
    """From one size of a family to the next."""
    along = [_losses(task)[label, size] for size in cells(task).sizes(label)]
    return min(before - after for before, after in itertools.pairwise(along))


@quantity("", 4, STUDY, each=TASKS)
def least_loss_behind(task: str) -> float:
    """CP's training loss minus LoRA's at a matched budget."""
    return min(
        _losses(task)["cp", size] - _losses(task)["lora", rank] for rank, size in cells(task).matched("lora", "cp")
    )


# Item by item.


@quantity("percent", source=STUDY, each=TASKS)
def most_alike_seeds(task: str) -> float:
    """The items on which two seeds of one cell agree, in the cell where they are most."""
    return max(agreement(outcomes, outcomes) for outcomes in cells(task).outcomes.values())


@quantity(source=STUDY, each=itertools.product(TASKS, ("gained", "lost")))
def changed(task: str, which: str) -> str:
    """The items gained and lost from CP's smallest budget to its largest, by row."""
    return ", ".join(map(str, _changed(task, which)))


@quantity("items", source=STUDY, each=itertools.product(["rte"], ("gained", "lost")))
def change(task: str, which: str) -> int:
    """How many these are."""
    return len(_changed(task, which))


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


def _correlation(runs: pd.DataFrame) -> float:
    return float(runs["dev_accuracy"].corr(runs["eval_accuracy"]))


@functools.cache
def _losses(task: str) -> dict[Cell, float]:
    return ladder.last_losses(of_task(task).evaluations)


def _changed(task: str, which: str) -> tuple[int, ...]:
    before, after = ladder.ends(cells(task))[1]
    found: tuple[int, ...] = ladder.changes(cells(task).outcomes[before], cells(task).outcomes[after])[which]
    return found
