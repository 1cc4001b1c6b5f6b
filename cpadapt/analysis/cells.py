"""Cells: what the runs of one adapter of one size got right, at one setting, and which cells compare."""

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
"""The largest difference between two budgets that match, as a share of the first."""


class RunSetting(NamedTuple):
    """What tells runs of one cell apart beside their seeds: `cpadapt.analysis.frontier.SETTING`, by name."""

    learning_rate: float | None
    """`None` for head only."""
    scale: float | None
    warmup_steps: int


def setting_of(record: Record) -> RunSetting:
    """The setting of a run, with the protocol's warm-up where the run has none of its own."""
    config = record.config
    warmup_steps = config.protocol.warmup_steps if config.warmup_steps is None else config.warmup_steps
    return RunSetting(config.learning_rate, config.scale, warmup_steps)


@dataclass(frozen=True)
class Cells:
    """One task's cells, each at one setting."""

    budgets: Mapping[Cell, int]
    """Trainable scalars."""
    outcomes: Mapping[Cell, Outcomes]
    """What each cell's runs got right. A cell with a run that has no outcome is missing."""
    diverged: Mapping[str, tuple[int, int]]
    """By label, how many runs diverged (lost a finite loss or gradient) and how many there are.

    Where dev chose the settings, runs at the others count too: a choice would hide them.
    """
    majority: float
    """The share of the evaluation items that the most frequent class has."""
    classes: Mapping[int, int] | None = None
    """Each evaluation item's class, by its row number, where all records have it."""

    def class_weights(self, cell: Cell) -> Floats:
        """Weights of the items that a cell was asked, with which a mean over items is a mean over classes.

        Returns:
            `[items]`, the number of items over that of classes and of the item's class; 1 where classes are not known.
        """
        items = self.outcomes[cell].items
        if self.classes is None:
            return np.ones(len(items))
        by_item = np.array([self.classes[item] for item in items])
        classes, place, counts = np.unique(by_item, return_inverse=True, return_counts=True)
        weights: Floats = (len(items) / (len(classes) * counts))[place]
        return weights

    def balanced(self, cell: Cell) -> Floats:
        """`[runs, items]`, a cell's outcomes times `class_weights`: their mean is balanced accuracy."""
        return self.outcomes[cell].right * self.class_weights(cell)

    def collapsed(self, cell: Cell) -> int:
        """How many of a cell's runs give one class for every item; 0 where the items' classes are not known."""
        answered = self.outcomes[cell]
        if self.classes is None:
            return 0
        by_item = np.array([self.classes[item] for item in answered.items])
        return sum(gives_one_class(run, by_item) for run in answered.right)

    def sizes(self, label: str) -> list[int]:
        """A label's sizes, rising."""
        return sorted(size for name, size in self.budgets if name == label)

    def nearest(self, cell: Cell, label: str) -> int | None:
        """The size of a label whose budget is nearest to a cell's; `None` where none is near (`NEAR`)."""
        budget = self.budgets[cell]
        distances = {size: abs(self.budgets[label, size] - budget) / budget for size in self.sizes(label)}
        size = min(distances, key=distances.__getitem__, default=None)
        return size if size is not None and distances[size] <= NEAR else None

    def matched(self, label: str, other: str) -> list[tuple[int, int]]:
        """Each size of a label with the size of another label that is `nearest`, where there is one."""
        pairs = [(size, self.nearest((label, size), other)) for size in self.sizes(label)]
        return [(size, match) for size, match in pairs if match is not None]

    def sizes_between(self, low: Cell, high: Cell, label: str) -> list[int]:
        """The sizes of a label with budgets between those of two cells, without those that are `nearest` to these.

        Args:
            low: the cell with the smaller budget.
            high: the other one.
            label: the sizes are this one's.
        """
        matches = [self.nearest(cell, label) for cell in (low, high)]
        return [
            size
            for size in self.sizes(label)
            if self.budgets[low] < self.budgets[label, size] < self.budgets[high] and size not in matches
        ]


def gives_one_class(right: Floats | NDArray[np.bool_], classes: NDArray[np.int64]) -> bool:
    """Whether a run gives one class for every item: then it is right on exactly the items of that class.

    Args:
        right: `[items]`, whether it is right.
        classes: `[items]`, the true ones.
    """
    return any(np.array_equal(right, classes == one) for one in set(classes.tolist()))


def cells_of(records: Iterable[Record], rates: Mapping[str, float] | None = None) -> Cells:
    """One task's cells, at the learning rates of their families or at the settings that dev chooses.

    Args:
        records: of one backbone, task, protocol and draw of the data.
        rates: by family, as for `family_rates`. Without it dev chooses (`choose_rates`) among the settings of those
            cells that were tried at all of their label's (`at_all_rates`); the others are left out.

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
    """One task's cells, each at the setting that is given for it.

    Args:
        records: of one backbone, task, protocol and draw of the data. Those at other settings of a cell count in
            `Cells.diverged`; those of other cells are left out.
        settings: by cell.

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

    The choice is by cell: it is fair only among cells that were tried at the same settings (`at_all_rates`).

    Args:
        records: of one backbone, task and protocol, from any number of studies.

    Raises:
        InputError: the records are not of one backbone, task and protocol; or as
            `cpadapt.analysis.frontier.frontier`.
    """
    records = list(records)
    _require_one_question(records)
    # Cells that several studies share are one cell here.
    best = frontier(tabulate(records)[0].assign(study=""))
    # A table has NaN for a rate that is None.
    return {
        (label, int(size)): RunSetting(
            None if pd.isna(rate) else float(rate), None if pd.isna(scale) else float(scale), int(warmup_steps)
        )
        for label, size, rate, scale, warmup_steps in best[["label", "size", *SETTING]].itertuples(
            index=False, name=None
        )
    }


def family_rates(records: Iterable[Record], rates: Mapping[str, float]) -> dict[Cell, RunSetting]:
    """The setting of each cell at its family's learning rate; of a cell that was tried at one setting, that one.

    Args:
        records: of one task.
        rates: by family; needed for those with cells that were tried at several.

    Raises:
        InputError: a cell was tried at several settings, and at its family's rate at none or at several.
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
            raise InputError(f"{family} {size} has runs at several settings of the rate {rate}: give those of one")
        (settings[cell],) = at_rate
    return settings


def at_all_rates(records: Iterable[Record]) -> list[Record]:
    """The runs of those cells that were tried at every setting of their label, with every seed.

    Among them a choice of settings is fair. A label that was tried at fewer settings than another still has less of a
    choice.
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
    """Check that records are of one backbone, task and protocol.

    Raises:
        InputError: they are not.
    """
    configs = (record.config for record in records)
    asked = {(config.backbone, config.task, config.protocol.id) for config in configs}
    if len(asked) > 1:
        raise InputError(f"cells are of one backbone, task and protocol, not of {len(asked)}: {sorted(asked)}")
