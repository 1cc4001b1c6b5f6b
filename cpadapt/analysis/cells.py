"""Cells: what the runs of one adapter of one size have in common, and how cells are told apart."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from cpadapt.analysis.frontier import frontier
from cpadapt.analysis.statistics import Floats, Outcomes, outcomes
from cpadapt.errors import InputError
from cpadapt.records.record import Record
from cpadapt.records.table import tabulate

NEAR = 0.05
"""By which share of a rank's budget a CP size may miss it and be its match."""


Cell = tuple[str, int]
"""A label and a size, such as `("cp", 11)`."""


@dataclass(frozen=True)
class Cells:
    """One task's cells, each at one learning rate."""

    budgets: Mapping[Cell, int]
    """Trainable scalars by label and size."""
    outcomes: Mapping[Cell, Outcomes]
    """What the cell's runs got right. A cell of which a run has no outcome is missing here."""
    diverged: Mapping[str, tuple[int, int]]
    """How many runs diverged (lost a finite loss or gradient) and how many there are, by label.

    Where dev chose the rates, those at the others count too: a choice would hide them.
    """
    majority: float
    """The share of the evaluation items that the commonest answer gets right."""
    classes: Mapping[int, int] | None = None
    """Each evaluation item's class, by its row number, where the records have it."""

    def balanced(self, cell: Cell) -> Floats:
        """What a cell's runs got right, so weighted that the mean is the mean over classes of the share right.

        Where the items' classes are not known all weigh the same.

        Returns:
            `[runs, items]`, 0 where a run is wrong.
        """
        known = self.outcomes[cell]
        if self.classes is None:
            return known.right
        of_item = np.array([self.classes[item] for item in known.items])
        found, place, asked = np.unique(of_item, return_inverse=True, return_counts=True)
        return known.right * (len(of_item) / (len(found) * asked))[place]

    def collapsed(self, cell: Cell) -> int:
        """How many of a cell's runs give one answer to every item; 0 where the items' classes are not known."""
        known = self.outcomes[cell]
        if self.classes is None:
            return 0
        of_item = np.array([self.classes[item] for item in known.items])
        return sum(any(np.array_equal(run, of_item == one) for one in set(of_item.tolist())) for run in known.right)

    def nearest(self, cell: Cell, label: str) -> int | None:
        """A label's size whose budget is nearest to a cell's, if it is near enough (`NEAR`)."""
        budget = self.budgets[cell]
        missed = {size: abs(self.budgets[label, size] - budget) / budget for size in self.sizes(label)}
        size = min(missed, key=missed.__getitem__, default=None)
        return size if size is not None and missed[size] <= NEAR else None

    def matched(self) -> list[tuple[int, int]]:
        """Each of LoRA's ranks with the CP size whose budget is nearest, if it is near enough."""
        pairs = [(rank, self.nearest(("lora", rank), "cp")) for rank in self.sizes("lora")]
        return [(rank, size) for rank, size in pairs if size is not None]

    def between_ranks(self) -> list[int]:
        """CP's sizes whose budgets are between those of LoRA's first two ranks, without those that match one."""
        ranks = [("lora", rank) for rank in self.sizes("lora")[:2]]
        if len(ranks) < 2:
            return []
        low, high = (self.budgets[rank] for rank in ranks)
        matches = [self.nearest(rank, "cp") for rank in ranks]
        return [size for size in self.sizes("cp") if low < self.budgets["cp", size] < high and size not in matches]

    def sizes(self, label: str) -> list[int]:
        """A label's sizes, rising."""
        return sorted(size for name, size in self.budgets if name == label)


def cells_of(records: Iterable[Record], rates: Mapping[str, float] | None = None) -> Cells:
    """One task's cells from the records of its runs.

    Args:
        records: of one backbone, task, protocol and draw of the data.
        rates: the learning rate to take, by family, where a cell has several; without it,
        `cpadapt.analysis.frontier.frontier`
            chooses each cell's, on dev alone, and cells that had less of a choice (`at_all_rates`) are left out.

    Raises:
        InputError: the records are not of one backbone, task and protocol; or a cell has several rates and not the one
            to take.
    """
    records = list(records) if rates is not None else at_all_rates(records)
    by_cell: dict[Cell, dict[float | None, list[Record]]] = {}
    settings: set[tuple[str, str, str]] = set()
    for record in records:
        config = record.config
        settings.add((config.backbone, config.task, config.protocol.id))
        by_cell.setdefault((record.label, config.size), {}).setdefault(config.learning_rate, []).append(record)
    if len(settings) > 1:
        raise InputError(f"cells are of one backbone, task and protocol, not of {len(settings)}: {sorted(settings)}")
    # Cells that several studies share are one cell here.
    best = frontier(tabulate(records)[0].assign(study="")) if rates is None else None
    on_dev = {} if best is None else best.set_index(["label", "size"])["learning_rate"].to_dict()
    budgets: dict[Cell, int] = {}
    found: dict[Cell, Outcomes] = {}
    diverged: dict[str, tuple[int, int]] = {}
    for (label, size), by_rate in by_cell.items():
        chosen = next(iter(by_rate.values()))
        if len(by_rate) > 1:
            family = chosen[0].config.family
            rate = on_dev[label, size] if rates is None else rates.get(family)
            if rate not in by_rate:
                raise InputError(f"{family} {size} has no run at the rate {rate}, but at {list(by_rate)}")
            chosen = by_rate[rate]
        tried = chosen if rates is not None else [r for runs in by_rate.values() for r in runs]
        stopped, runs = diverged.get(label, (0, 0))
        diverged[label] = stopped + sum(r.diverged_at is not None for r in tried), runs + len(tried)
        budgets[label, size] = chosen[0].counts.adapter
        if all(record.outcome is not None for record in chosen):
            found[label, size] = outcomes(chosen)
    majority = max((r.data["sets"]["eval"]["majority_rate"] for r in records), default=0.0)
    asked = [record.outcome.label_by_row for record in records if record.outcome]
    known = {row: one for of_run in asked if of_run is not None for row, one in of_run.items()}
    return Cells(budgets, found, diverged, majority, known if asked and None not in asked else None)


def at_all_rates(records: Iterable[Record]) -> list[Record]:
    """The runs of those cells that were tried at every learning rate of their label, with every seed.

    Among them a choice of rates is fair. A label that was tried at fewer rates than another still has less of one.
    """
    records = list(records)
    tried: dict[tuple[str, int], set[tuple[float | None, int, int]]] = {}
    of_label: dict[str, set[tuple[float | None, int, int]]] = {}
    for record in records:
        c = record.config
        tried.setdefault((record.label, c.size), set()).add((c.learning_rate, c.seed, c.data_seed))
        of_label.setdefault(record.label, set()).add((c.learning_rate, c.seed, c.data_seed))
    return [r for r in records if tried[r.label, r.config.size] == of_label[r.label]]
