"""Splits of the sides of CP's tensor, with their costs, and their accuracy beside that of the default.

Computations come first, then their wording.
"""

import functools

import pandas as pd

from companion import PROJECT, contrasts
from cpadapt.analysis.cells import Cells
from cpadapt.analysis.charts import task_name
from cpadapt.families import cp
from cpadapt.records.config import Cell
from cpadapt.study import Study, load_study

AT_PAPERS, WITH_SEEDS = ("smollm2", "smollm2-splits"), ("smollm2-seeds", "smollm2-splits-seeds")
"""The studies of the default and of the other splits, at the paper's rate and at ten times that with more seeds."""

PLACES = ("smaller", "larger")
DEFAULTS: dict[str, Cell] = dict(zip(PLACES, (("cp", 22), ("cp", 44)), strict=True))
"""The default's cell that other splits are compared with, by the place of its budget."""


@functools.cache
def study(name: str) -> Study:
    """One of the studies."""
    return load_study(PROJECT / "studies" / f"{name}.toml")


@functools.cache
def cells(studies: tuple[str, str]) -> dict[str, Cells]:
    """The cells of the default and of the other splits, by task, with the seeds that all cells have."""
    return {task: contrasts.cells_on_record(studies, task) for task in study(studies[1]).tasks}


def differences(studies: tuple[str, str]) -> pd.DataFrame:
    """Each split minus the default at the nearest budget, over tasks (`contrasts.frame`)."""
    by_task = [contrasts.splits(task_cells, task_name(task)) for task, task_cells in cells(studies).items()]
    return contrasts.frame([contrast for found in by_task for contrast in found])


def sizes() -> dict[str, dict[str, int]]:
    """Components, by label and by place of the budget."""
    others = {label: list(found) for label, found in study(AT_PAPERS[1]).ladder.sizes.items()}
    default = [size for _, size in DEFAULTS.values()]
    return {label: dict(zip(PLACES, found, strict=True)) for label, found in ({"cp": default} | others).items()}


def modes() -> dict[str, dict[int, tuple[int, ...]]]:
    """The parts that a side of the backbone's projections is split into, by label and side."""
    given = {label: plan.options["tensor_shape"] for label, plan in study(AT_PAPERS[1]).families.items()}
    others = {label: {int(side): tuple(parts) for side, parts in shape.items()} for label, shape in given.items()}
    sides = next(iter(others.values()))
    return {"cp": {side: cp.modes(side) for side in sides}} | others


def step(label: str) -> int:
    """Scalars of a component over the whole model, from the records."""
    budgets = cells(AT_PAPERS)["sst2"].budgets
    (found,) = {budgets[label, size] // size for size in sizes()[label].values()}
    return found


def split_table() -> pd.DataFrame:
    """Each split, the cost of its component, and the number of components at each budget."""
    return pd.DataFrame(
        [
            {f"{side} as": "·".join(map(str, parts)) for side, parts in modes()[label].items()}
            | {"scalars a component": f"{step(label):,}"}
            | {
                f"{place} budget": f"{size} components, {step(label) * size:,}"
                for place, size in sizes()[label].items()
            }
            for label in sizes()
        ]
    )
