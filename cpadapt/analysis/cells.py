"""Cells: the answers of all runs of one adapter, size and setting, and which cells can be compared."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cpadapt.analysis.frontier import SETTING, frontier
from cpadapt.analysis.statistics import Floats, Outcomes, outcomes
from cpadapt.errors import InputError
from cpadapt.records.config import Cell
from cpadapt.records.record import Record
from cpadapt.records.table import tabulate

NEAR = 0.05
"""The largest relative difference between two budgets that match, as a share of the first."""


class RunSetting(NamedTuple):
    """What runs of one cell differ in apart from their seeds, the columns `cpadapt.analysis.frontier.SETTING`."""

    learning_rate: float | None
    """`None` for head only."""
    scale: float | None
    warmup_steps: int


def setting_of(record: Record) -> RunSetting:
    """The setting of a run, with the protocol's warm-up if the run does not set one."""
    config = record.config
    warmup_steps = config.protocol.warmup_steps if config.warmup_steps is None else config.warmup_steps
    return RunSetting(config.learning_rate, config.scale, warmup_steps)


@dataclass(frozen=True)
class Cells:
    """One task's cells, each at one setting."""

    budgets: Mapping[Cell, int]
    """Trainable scalars."""
    outcomes: Mapping[Cell, Outcomes]
    """The answers of each cell's runs. A cell is missing if one of its runs has no outcome."""
    diverged: Mapping[str, tuple[int, int]]
    """How many runs diverged (had a loss or gradient that was not finite) and how many there are, by label.

    Where dev chose the settings, runs at all settings count, because the choice would hide diverged ones.
    """
    majority: float
    """The share of the evaluation items in the most frequent class."""
    classes: Mapping[int, int] | None = None
    """Each evaluation item's class, by row number; `None` unless all records have the classes."""

    def class_weights(self, cell: Cell) -> Floats:
        """Weights of the items that a cell was asked, which turn a mean over items into a mean over classes.

        Returns:
            `[items]`, the number of items divided by the number of classes and by the number of items in the item's
            class; 1 if the classes are unknown.
        """
        items = self.outcomes[cell].items
        if self.classes is None:
            return np.ones(len(items))
        by_item = np.array([self.classes[item] for item in items])
        classes, place, counts = np.unique(by_item, return_inverse=True, return_counts=True)
        weights: Floats = (len(items) / (len(classes) * counts))[place]
        return weights

    def balanced(self, cell: Cell) -> Floats:
        """`[runs, items]`, a cell's outcomes times `class_weights`. Their mean is balanced accuracy."""
        return self.outcomes[cell].right * self.class_weights(cell)

    def collapsed(self, cell: Cell) -> int:
        """How many of a cell's runs answer every item with the same class; 0 if the items' classes are unknown."""
        answered = self.outcomes[cell]
        if self.classes is None:
            return 0
        by_item = np.array([self.classes[item] for item in answered.items])
        return sum(gives_one_class(run, by_item) for run in answered.right)

    def sizes(self, label: str) -> list[int]:
        """A label's sizes, ascending."""
        return sorted(size for name, size in self.budgets if name == label)

    def nearest(self, cell: Cell, label: str) -> int | None:
        """The size of a label whose budget is nearest to a cell's; `None` if it is farther than `NEAR`."""
        budget = self.budgets[cell]
        distances = {size: abs(self.budgets[label, size] - budget) / budget for size in self.sizes(label)}
        size = min(distances, key=distances.__getitem__, default=None)
        return size if size is not None and distances[size] <= NEAR else None

    def matched(self, label: str, other: str) -> list[tuple[int, int]]:
        """Pairs of a label's size and the `nearest` size of another label, for sizes that have one."""
        pairs = [(size, self.nearest((label, size), other)) for size in self.sizes(label)]
        return [(size, match) for size, match in pairs if match is not None]

    def sizes_between(self, low: Cell, high: Cell, label: str) -> list[int]:
        """The sizes of a label whose budgets lie between those of two cells, without the `nearest` to either.

        Args:
            low: the cell with the smaller budget.
            high: the cell with the larger budget.
            label: the label whose sizes are returned.
        """
        matches = [self.nearest(cell, label) for cell in (low, high)]
        return [
            size
            for size in self.sizes(label)
            if self.budgets[low] < self.budgets[label, size] < self.budgets[high] and size not in matches
        ]


def gives_one_class(right: Floats | NDArray[np.bool_], classes: NDArray[np.int64]) -> bool:
    """Whether a run answers every item with the same class, that is, is right on exactly the items of one class.

    Args:
        right: `[items]`, whether each answer is right.
        classes: `[items]`, the true classes.
    """
    return any(np.array_equal(right, classes == one) for one in set(classes.tolist()))


def cells_of(records: Iterable[Record], rates: Mapping[str, float] | None = None) -> Cells:
    """One task's cells, at the learning rates of their families or at the settings that dev chooses.

    Args:
        records: runs of one backbone, task, protocol and draw of the data.
        rates: learning rates by family, as for `family_rates`. Without them dev chooses the settings
            (`choose_rates`), and cells that were not tried at all settings of their label (`at_all_rates`) are left
            out.

    Raises:
        InputError: as `family_rates` and `cells_at`.
    """
    records = list(records)
    if rates is None:
        records = at_all_rates(records)
        return cells_at(records, choose_rates(records))
    given = family_rates(records, rates)
    return cells_at([record for record in records if setting_of(record) == given[_cell(record)]], given)


def cells_at(records: Iterable[Record], settings: Mapping[Cell, RunSetting]) -> Cells:
    """One task's cells, each at a given setting.

    Args:
        records: runs of one backbone, task, protocol and draw of the data. Runs at other settings of a cell count in
            `Cells.diverged`; other cells are left out.
        settings: the setting of each cell.

    Raises:
        InputError: the records are not of one backbone, task and protocol, a cell has no run at its setting, or as
            `cpadapt.analysis.statistics.outcomes`.
    """
    records = [record for record in records if _cell(record) in settings]
    _require_one_question(records)
    by_cell: dict[Cell, list[Record]] = {}
    diverged: dict[str, tuple[int, int]] = {}
    for record in records:
        at_setting = by_cell.setdefault(_cell(record), [])
        if setting_of(record) == settings[_cell(record)]:
            at_setting.append(record)
        lost, runs = diverged.get(record.label, (0, 0))
        diverged[record.label] = lost + (record.diverged_at is not None), runs + 1
    for (label, size), (rate, scale, warmup_steps) in settings.items():
        if not by_cell.get((label, size)):
            raise InputError(f"{label} {size} has no run at rate {rate}, scale {scale} and warm-up {warmup_steps}")
    evals = [record.data["sets"]["eval"] for record in records if "eval" in record.data["sets"]]
    labels = [record.outcome.label_by_row for record in records if record.outcome]
    classes = {item: one for by_item in labels if by_item is not None for item, one in by_item.items()}
    return Cells(
        budgets={cell: runs[0].counts.adapter for cell, runs in by_cell.items()},
        outcomes={cell: outcomes(runs) for cell, runs in by_cell.items() if None not in [run.outcome for run in runs]},
        diverged=diverged,
        majority=max((one["majority_rate"] for one in evals), default=0.0),
        classes=classes if labels and None not in labels else None,
    )


def choose_rates(records: Iterable[Record]) -> dict[Cell, RunSetting]:
    """The setting of each cell of one task that dev chooses, as `cpadapt.analysis.frontier.frontier` does.

    Each cell has its own choice, so cells can be compared fairly only if they were tried at the same settings
    (`at_all_rates`).

    Args:
        records: runs of one backbone, task and protocol, from any number of studies.

    Raises:
        InputError: the records are not of one backbone, task and protocol; or as
            `cpadapt.analysis.frontier.frontier`.
    """
    records = list(records)
    _require_one_question(records)
    # A cell that several studies share is one cell here.
    best = frontier(tabulate(records)[0].assign(study=""))
    # The table has NaN where a rate is None.
    return {
        (label, int(size)): RunSetting(
            None if pd.isna(rate) else float(rate), None if pd.isna(scale) else float(scale), int(warmup_steps)
        )
        for label, size, rate, scale, warmup_steps in best[["label", "size", *SETTING]].itertuples(
            index=False, name=None
        )
    }


def family_rates(records: Iterable[Record], rates: Mapping[str, float]) -> dict[Cell, RunSetting]:
    """The setting of each cell at its family's learning rate, or its only setting if there is just one.

    Args:
        records: runs of one task.
        rates: learning rates by family; needed for families with cells that were tried at several settings.

    Raises:
        InputError: a cell was tried at several settings, and none or several of them have its family's rate.
    """
    tried: dict[Cell, dict[RunSetting, str]] = {}
    for record in records:
        tried.setdefault(_cell(record), {})[setting_of(record)] = record.config.family
    settings = {}
    for cell, families in tried.items():
        (family, *_), size = families.values(), cell[1]
        rate = rates.get(family)
        at_rate = [setting for setting in families if len(families) == 1 or setting.learning_rate == rate]
        if not at_rate:
            known = list(dict.fromkeys(setting.learning_rate for setting in families))
            raise InputError(f"{family} {size} has no run at the rate {rate}, but at {known}")
        if len(at_rate) > 1:
            raise InputError(f"{family} {size} has runs at several settings with rate {rate}: give the runs of one")
        (settings[cell],) = at_rate
    return settings


def at_all_rates(records: Iterable[Record]) -> list[Record]:
    """The runs of the cells that were tried at every setting of their label, with every seed.

    A choice of settings is fair among these cells. A label that was tried at fewer settings than another still has
    fewer to choose from.
    """
    records = list(records)
    by_cell: dict[Cell, set[tuple[RunSetting, int, int]]] = {}
    by_label: dict[str, set[tuple[RunSetting, int, int]]] = {}
    for record in records:
        tried = setting_of(record), record.config.seed, record.config.data_seed
        by_cell.setdefault(_cell(record), set()).add(tried)
        by_label.setdefault(record.label, set()).add(tried)
    return [record for record in records if by_cell[_cell(record)] == by_label[record.label]]


def _cell(record: Record) -> Cell:
    return record.label, record.config.size


def _require_one_question(records: Iterable[Record]) -> None:
    """Check that records have one backbone, task and protocol, and one teacher or none.

    Raises:
        InputError: they have several.
    """
    configs = [record.config for record in records]
    teachers = {config.teacher for config in configs}
    if len(teachers) > 1:
        titles = sorted(teacher.title if teacher else "the labels" for teacher in teachers)
        raise InputError(f"cells are of runs that learn from one teacher, not of {len(teachers)}: {', '.join(titles)}")
    asked = {(config.backbone, config.task, config.protocol.id) for config in configs}
    if len(asked) > 1:
        raise InputError(f"cells are of one backbone, task and protocol, not of {len(asked)}: {sorted(asked)}")
