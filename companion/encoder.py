"""The cells of an encoder with all examples of five tasks, and the steps from one cell to the next."""

import functools
from collections.abc import Callable

import pandas as pd

from companion import PROJECT, contrasts, ladder
from companion.claims import Verdict, learned
from companion.contrasts import Contrast
from companion.records import records
from companion.wording import percent
from cpadapt.analysis.cells import Cells, cells_of
from cpadapt.analysis.charts import task_name
from cpadapt.records.config import HEAD, Cell
from cpadapt.study import Study, load_study

STUDY = "minilm"
HEAD_ONLY, CP1, CP9, CP76, LORA1, LORA8 = (HEAD, 0), ("cp", 1), ("cp", 9), ("cp", 76), ("lora", 1), ("lora", 8)

STEPS: dict[str, tuple[Cell, Cell]] = {
    "cp1_head": (CP1, HEAD_ONLY), "cp9_cp1": (CP9, CP1), "cp76_cp9": (CP76, CP9), "cp76_cp1": (CP76, CP1),
    "lora1_cp9": (LORA1, CP9), "lora8_lora1": (LORA8, LORA1),
}  # fmt: skip
"""The differences that have a quantity each, by its name. They are between CP's smallest size, its largest below
LoRA's first rank and its largest of all, and LoRA's first rank and its last."""


def study() -> Study:
    """The study."""
    return load_study(PROJECT / "studies" / f"{STUDY}.toml")


@functools.cache
def cells() -> dict[str, Cells]:
    """The cells, by task."""
    return {task: cells_of(r for r in records(STUDY) if r.config.task == task) for task in study().tasks}


@functools.cache
def taught() -> tuple[str, ...]:
    """The tasks that LoRA's first rank and CP's largest size learn; larger ranks may collapse where CP learns."""
    verdicts = {task: learned(task_cells, LORA1, CP76).verdict for task, task_cells in cells().items()}
    return tuple(task for task, verdict in verdicts.items() if verdict is Verdict.HOLDS)


@functools.cache
def steps() -> pd.DataFrame:
    """The differences of `STEPS` on each task, as `companion.contrasts.frame` gives them."""
    return _frame(lambda task_cells, title: contrasts.pairs(task_cells, list(STEPS.values()), title))


@functools.cache
def matched() -> pd.DataFrame:
    """LoRA minus CP at each matched budget on each task, in the same form."""
    return _frame(contrasts.families)


def _frame(differences: Callable[[Cells, str], list[Contrast]]) -> pd.DataFrame:
    by_task = [differences(task_cells, task_name(task)) for task, task_cells in cells().items()]
    return contrasts.frame([contrast for found in by_task for contrast in found])


def below_first_rank() -> list[int]:
    """CP's sizes with a budget below that of LoRA's first rank."""
    task_cells = next(iter(cells().values()))
    return [size for size in task_cells.sizes("cp") if task_cells.budgets["cp", size] < task_cells.budgets[LORA1]]


def one_components_way(task_cells: Cells) -> float:
    """CP 1's share of the best adapter's gain over the floor, which is the head alone or one answer for all items."""
    means = {cell: float(outcomes.right.mean()) for cell, outcomes in task_cells.outcomes.items()}
    floor = max(means[HEAD_ONLY], task_cells.majority)
    return (means[CP1] - floor) / (max(means.values()) - floor)


def balanced_table() -> pd.DataFrame:
    """Balanced accuracy of the head alone, CP's smallest size and the best cell on each task, as a table."""
    rows = []
    for task, task_cells in cells().items():
        balanced = {cell: float(task_cells.balanced(cell).mean()) for cell in task_cells.outcomes}
        assert task_cells.classes is not None
        found = {"head": balanced[HEAD_ONLY], "CP 1": balanced[CP1], "best": max(balanced.values())}
        found["one answer"] = 1 / len(set(task_cells.classes.values()))
        rows.append({"task": task_name(task)} | {title: percent(share) for title, share in found.items()})
    return pd.DataFrame(rows)


def plateau_table() -> pd.DataFrame:
    """`companion.ladder.plateau_table` of each task."""
    by_task = {task_name(task): ladder.plateau_table(task_cells) for task, task_cells in cells().items()}
    return pd.concat(by_task, names=["task"]).reset_index("task")
