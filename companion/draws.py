"""Differences between cells with runs on several draws, on dev beside eval.

Each draw has its own dev examples, so over all draws dev has many more items than eval, which is the same for all
draws. Records count the right answers on dev but do not say which they are, so the variance of items is taken from
eval. With s² the variance between the draws' differences and σ²(i) that of an item's difference
(`cpadapt.analysis.statistics.Estimate.item_variance`), the mean over D draws has the variance

    s²/D + σ²(i) · Σ w²ρ/n,

where the sum is over dev and eval: w is the weight of either, n the number of its items that a run is asked, and ρ the
share of them that two draws have in common. For eval ρ is 1; for dev it is the average overlap of two samples from one
pool. The second term is needed because s² does not include what all draws have in common. No error includes the effect
of initial weights that are the same on all draws.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from companion import contrasts
from cpadapt.analysis.statistics import Floats, Mean, Outcomes, compare
from cpadapt.records.config import Cell
from cpadapt.records.record import Record

STUDIES = "smollm2-data-seeds", "smollm2-data-seeds-again"
"""Two studies of the same cells and draws, each with another seed."""

EVAL, BEST, LAST = "eval", "dev, best step", "dev, last step"
"""The set of items, and the step after which they are asked. Eval is asked after the best step, which these answers on
dev chose; the last step is fixed beforehand."""
BOTH = "dev and eval, best step"


@dataclass(frozen=True)
class Drawn:
    """Cells with runs on several draws. Several runs on one draw count as one, their mean."""

    outcomes: Mapping[Cell, Outcomes]
    """The outcomes on eval, draw by draw."""
    dev: Mapping[str, Mapping[Cell, Floats]]
    """`[draws]`, accuracies of each cell by `BEST` and `LAST`."""
    items: int
    """The number of items in one draw's dev."""
    overlap: float
    """The share of these items that another draw's dev contains too, on average."""


@functools.cache
def drawn(task: str) -> Drawn:
    """A task's runs in the project's own results of `STUDIES`.

    Raises:
        InputError: as `companion.contrasts.mean_of`.
    """
    records = [record for record in contrasts.on_record(STUDIES) if record.config.task == task]
    cells = contrasts.mean_of(*(contrasts.cells_on_record((study,), task) for study in STUDIES))
    dev, source = records[0].data["sets"]["dev"], records[0].data["source"]["train"]
    return Drawn(
        cells.outcomes,
        {
            BEST: on_dev(records, [record.best_step for record in records]),
            LAST: on_dev(records, [record.evaluations[-1].step for record in records]),
        },
        dev["size"],
        dev["size"] / (source["rows"] - source["left_out_repeats"]),
    )


def on_dev(records: Sequence[Record], steps: Sequence[int | None]) -> dict[Cell, Floats]:
    """`[draws]`, by cell: the mean accuracy on dev of the runs on each draw, after the given step of each run."""
    found: dict[Cell, dict[int, list[float]]] = {}
    for record, step in zip(records, steps, strict=True):
        (share,) = (e.dev_accuracy for e in record.evaluations if e.step == step)
        cell = record.label, record.config.size
        found.setdefault(cell, {}).setdefault(record.config.data_seed, []).append(share)
    return {
        cell: np.array([np.mean(shares) for _, shares in sorted(by_draw.items())]) for cell, by_draw in found.items()
    }


def difference(cells: Drawn, a: Cell, b: Cell, weights: Mapping[str, float]) -> Mean:
    """The first cell minus the second, as a weighted sum of the differences on `EVAL`, `BEST` and `LAST`.

    Args:
        cells: the cells of one task.
        a: the first cell.
        b: the second cell.
        weights: the weights of `EVAL`, `BEST` and `LAST`; 0 where left out.

    Returns:
        The mean over draws and items. Its degrees of freedom are those of the draws alone, which errs towards wide
        intervals.

    Raises:
        InputError: as `cpadapt.analysis.statistics.compare`.
    """
    on_eval = compare(cells.outcomes[a], cells.outcomes[b])
    gaps = {name: by_cell[a] - by_cell[b] for name, by_cell in cells.dev.items()}
    gaps[EVAL] = cells.outcomes[a].right.mean(1) - cells.outcomes[b].right.mean(1)
    by_draw = np.sum([weight * gaps[name] for name, weight in weights.items()], axis=0)
    of_eval = weights.get(EVAL, 0.0)
    of_dev = sum(weights.values()) - of_eval
    shared = of_eval**2 / on_eval.items + of_dev**2 * cells.overlap / cells.items
    variance = by_draw.var(ddof=1) / len(by_draw) + on_eval.item_variance * shared
    return Mean(float(by_draw.mean()), float(np.sqrt(variance)), len(by_draw) - 1)


def differences(cells: Drawn, a: Cell, b: Cell) -> dict[str, Mean]:
    """The first cell minus the second on `EVAL`, `BEST` and `LAST`, and their mean on `BOTH` by inverse variances.

    On eval alone the difference is that of `cpadapt.analysis.statistics.compare`.

    Raises:
        InputError: as `difference`.
    """
    e = compare(cells.outcomes[a], cells.outcomes[b])
    found = {EVAL: Mean(e.mean, e.standard_error, e.degrees)}
    found |= {name: difference(cells, a, b, {name: 1.0}) for name in (BEST, LAST)}
    on_eval, on_dev = (1 / found[name].standard_error ** 2 for name in (EVAL, BEST))
    weights = {name: each / (on_eval + on_dev) for name, each in ((EVAL, on_eval), (BEST, on_dev))}
    return found | {BOTH: difference(cells, a, b, weights)}
