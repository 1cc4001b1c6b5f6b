"""What moves one run's accuracy: its initial weights, the order of its examples, their draw, rounding, and the items.

Causes are told apart by crossing them: each of several initial weights is trained with each of several orders, and
each of several draws of the examples with each of two seeds (`cpadapt.analysis.statistics.crossed_effects`). What is
computed comes first, in squared shares; then what words it, in points.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from companion.contrasts import on_record
from companion.ladder import Cell
from companion.wording import percent
from cpadapt.analysis.cells import Cells
from cpadapt.analysis.charts import cell_name, pair_name, task_name
from cpadapt.analysis.statistics import Crossed, Effect, Floats, answers, crossed_effects, seed_effect
from cpadapt.errors import InputError
from cpadapt.records.config import HEAD, RunConfig
from cpadapt.records.record import Record

WEIGHTS, ORDER, TOGETHER, CHANCE, ITEMS = PARTS = "weights", "order", "together", "chance", "items"
"""The parts of a run's variance on one draw of the examples, which add up (`variances`)."""

DIFFERENCES: tuple[tuple[Cell, Cell], ...] = ((("lora", 1), ("cp", 11)), (("cp", 44), ("cp", 1)))
"""The families at one budget, and what components gain."""
MEAN = "mean of these"


@dataclass(frozen=True)
class Runs:
    """One cell's runs by what they differ in: 1 where a run is right and 0 where it is wrong.

    Means and differences of several cells' runs are as good.
    """

    by_order: Floats
    """`[initial weights, orders, items]`, on one draw of the examples."""
    by_draw: Floats
    """`[seeds, draws, items]`, a seed being initial weights and an order of whatever is drawn."""

    def __sub__(self, other: "Runs") -> "Runs":
        return Runs(self.by_order - other.by_order, self.by_draw - other.by_draw)


def measured(task: str) -> dict[Cell, Runs]:
    """The runs of each adapter of a task in the project's own results.

    Raises:
        InputError: as `crossed`.
    """
    orders = _by_cell(["smollm2-orders"], task)
    draws = _by_cell(["smollm2-data-seeds", "smollm2-data-seeds-again"], task)
    return {
        cell: Runs(
            by_order=crossed(orders[cell], lambda c: (c.seed, c.order)),
            by_draw=crossed(draws[cell], lambda c: (c.seed, c.data_seed)),
        )
        for cell in sorted(orders)
    }


def trained_twice(task: str) -> dict[Cell, Floats]:
    """`[2, runs]`, the accuracies of each adapter's runs that are the same in two studies (`repeated`).

    Raises:
        InputError: as `repeated`.
    """
    orders, seeds = _by_cell(["smollm2-orders"], task), _by_cell(["smollm2-seeds"], task)
    return {cell: repeated(orders[cell], seeds[cell]) for cell in sorted(orders)}


def _by_cell(studies: Sequence[str], task: str) -> dict[Cell, list[Record]]:
    found: dict[Cell, list[Record]] = {}
    for record in on_record(studies):
        if record.config.task == task and record.label != HEAD:
            found.setdefault((record.label, record.config.size), []).append(record)
    return found


def crossed(records: Iterable[Record], place: Callable[[RunConfig], tuple[int, int]]) -> Floats:
    """What one cell's runs got right, where each of some causes meets each of others.

    Args:
        records: one for each pair of the two.
        place: a run's two causes, such as its seed and its order's.

    Returns:
        `[first, second, items]`, all rising.

    Raises:
        InputError: as `cpadapt.analysis.statistics.answers`, or a pair has no run or two.
    """
    found: dict[tuple[int, int], Record] = {}
    for record in records:
        at = place(record.config)
        if at in found:
            raise InputError(f"two runs are at {at}: give one for each pair")
        found[at] = record
    if not found:
        raise InputError("no runs were given")
    firsts, seconds = (sorted(set(of)) for of in zip(*found, strict=True))
    if missing := [(first, second) for first in firsts for second in seconds if (first, second) not in found]:
        raise InputError(f"no run is at {missing[0]}: causes are told apart only where each meets each")
    _, right = answers([found[first, second] for first in firsts for second in seconds])
    return right.reshape(len(firsts), len(seconds), -1)


def repeated(records: Iterable[Record], others: Iterable[Record]) -> Floats:
    """The accuracies of those runs of one cell that are the same in two studies.

    That is a run whose order is that of its own seed, asked for by number in one study and by nothing in the other.

    Returns:
        `[2, runs]`, by their seeds rising.

    Raises:
        InputError: as `cpadapt.analysis.statistics.answers`, the others lack such a run, or there is none.
    """
    first = {r.config.seed: r for r in records if r.config.order_seed == r.config.seed}
    second = {r.config.seed: r for r in others if r.config.order_seed is None}
    if missing := sorted(first.keys() - second.keys()):
        raise InputError(f"no run with seed {missing[0]} and its own order is among the others")
    if not first:
        raise InputError("no run has the order of its own seed")
    return np.array([answers([by_seed[seed] for seed in sorted(first)])[1].mean(1) for by_seed in (first, second)])


def subjects(runs: Mapping[Cell, Runs]) -> dict[str, Runs]:
    """What is looked at, by what a reader sees of it: each adapter, the mean of all, and two differences."""
    cells = list(runs.values())
    mean = Runs(
        *(np.mean(tables, axis=0) for tables in zip(*((of.by_order, of.by_draw) for of in cells), strict=True))
    )
    named = {cell_name(*cell): of for cell, of in runs.items()}
    return named | {MEAN: mean} | {pair_name(a, b): runs[a] - runs[b] for a, b in DIFFERENCES}


def variances(found: Crossed) -> dict[str, float]:
    """The parts of one run's variance, in squared shares, by the names of `PARTS`; below zero where so estimated.

    Initial weights, the order and the two together are what they would be with no end of items; each pair of the two
    is one run, so that what a repetition would change is in *together* too. Chance is what a run has by the items
    being few, apart from all other runs: it gets right by luck what another gets wrong. Items is what all runs have by
    these being the ones that are asked.
    """
    return {
        WEIGHTS: found.first.variance,
        ORDER: found.second.variance,
        TOGETHER: found.together.variance,
        CHANCE: found.chance,
        ITEMS: found.of_items,
    }


def on_average(runs: Mapping[Cell, Runs]) -> dict[str, float]:
    """`variances` of one adapter, on the average over all."""
    each = [variances(crossed_effects(of.by_order)) for of in runs.values()]
    return {part: float(np.mean([of[part] for of in each])) for part in PARTS}


def parts(tasks: Mapping[str, Mapping[Cell, Runs]]) -> pd.DataFrame:
    """`variances` of each adapter, to be drawn; what is estimated below zero is zero.

    Returns:
        One row a task, adapter and part, with the columns `task`, `of` (the adapter), `part` and `variance`.
    """
    return pd.DataFrame(
        [
            {"task": task, "of": cell_name(*cell), "part": part, "variance": max(variance, 0.0)}
            for task, runs in tasks.items()
            for cell, of in runs.items()
            for part, variance in variances(crossed_effects(of.by_order)).items()
        ]
    )


def as_asked(by_order: Floats) -> tuple[Effect, Effect]:
    """What initial weights and the order do to a run on the very items that are asked, and not on any.

    By the two-way analysis of variance of the runs' means, in which the two causes together, rounding among them, are
    what chance does.

    Args:
        by_order: `[initial weights, orders, items]`.

    Raises:
        InputError: as `cpadapt.analysis.statistics.seed_effect`.
    """
    runs = by_order.mean(2)
    return seed_effect(runs), seed_effect(runs.T)


def given(right: Floats, commonest: NDArray[np.bool_]) -> Floats:
    """1 where a run gives the commonest answer and 0 where it gives the other, of two.

    Args:
        right: `[..., items]`, 1 where it is right and 0 where it is wrong.
        commonest: `[items]`, whether the commonest answer is right.
    """
    answered: Floats = np.where(commonest, right, 1 - right)
    return answered


def asked_table(runs: Mapping[Cell, Runs]) -> pd.DataFrame:
    """`as_asked` of `subjects` to read, in points with p values, and what of chance is a cause's own, in percent."""
    rows = []
    for name, of in subjects(runs).items():
        (weights, order), found = as_asked(of.by_order), crossed_effects(of.by_order)
        row = {"of": name}
        for cause, effect in ((WEIGHTS, weights), (ORDER, order)):
            row |= {f"{cause} (95 %)": _with_ends(effect.variance, effect.interval), f"p, {cause}": _p(effect.p_value)}
        for cause, effect in ((WEIGHTS, found.first_by_item), (ORDER, found.second_by_item)):
            row[f"{cause} in chance, %"] = percent(max(effect.variance, 0.0) / found.chance, 0)
        rows.append(row)
    return pd.DataFrame(rows)


def part_table(runs: Mapping[Cell, Runs]) -> pd.DataFrame:
    """The standard deviation that each part gives one run of `subjects`, to read: in points.

    What is estimated at zero or below is a dash.
    """
    found = {name: crossed_effects(of.by_order) for name, of in subjects(runs).items()}
    return pd.DataFrame(
        [
            {"of": name, f"{WEIGHTS} (95 %)": _with_ends(of.first.variance, of.first.interval),
             f"{ORDER} (95 %)": _with_ends(of.second.variance, of.second.interval),
             f"{TOGETHER} (95 %)": _with_ends(of.together.variance, of.together.interval),
             CHANCE: _sd(of.chance), ITEMS: _sd(of.of_items)}
            for name, of in found.items()
        ]
    )  # fmt: skip


def draw_table(tasks: Mapping[str, Mapping[Cell, Runs]]) -> pd.DataFrame:
    """The standard deviation that a draw gives one run of `subjects` besides its seed, to read: in points."""
    shown = {}
    for task, runs in tasks.items():
        found = {name: crossed_effects(of.by_draw).second for name, of in subjects(runs).items()}
        shown[f"{task_name(task)} (95 %)"] = {
            name: _with_ends(effect.variance, effect.interval) for name, effect in found.items()
        }
    return pd.DataFrame(shown).rename_axis("of").reset_index()


def own(of: Cells) -> dict[Cell, tuple[Effect, float]]:
    """What seeds do to each adapter's runs on any items, and the variance between them on these."""
    return {
        cell: (seed_effect(outcomes.right), float(outcomes.right.mean(1).var(ddof=1)))
        for cell, outcomes in sorted(of.outcomes.items())
        if cell[0] != HEAD
    }


def own_table(tasks: Mapping[str, Cells]) -> pd.DataFrame:
    """`own`, by adapter and task, to read: a standard deviation in points, and the share in percent."""
    table: dict[str, list[str]] = {}
    for task, of in tasks.items():
        found, name = own(of), task_name(task)
        table.setdefault("adapter", [cell_name(*cell) for cell in found])
        table[f"{name} (95 %)"] = [_with_ends(effect.variance, effect.interval) for effect, _ in found.values()]
        table[f"{name}: share, %"] = [
            percent(effect.variance / seen, 0) if effect.variance > 0 else "–" for effect, seen in found.values()
        ]
    return pd.DataFrame(table)


def half_squares(twice: Floats) -> Floats:
    """`[runs]`, of each run that was trained twice the square of its difference, halved: its variance, by itself.

    Args:
        twice: `[2, runs]`, accuracies.
    """
    halves: Floats = (twice[0] - twice[1]) ** 2 / 2
    return halves


def again(twice: Floats) -> tuple[float, tuple[float, float]]:
    """The variance of a run about the mean of its like, from pairs of one run, and its 95 % interval.

    The interval is that of normal differences, which these are not: some pairs are equal.

    Args:
        twice: `[2, runs]`, accuracies.
    """
    squares = half_squares(twice)
    low, high = (float(squares.sum() / stats.chi2.ppf(share, squares.size)) for share in (0.975, 0.025))
    return float(squares.mean()), (low, high)


def again_table(tasks: Mapping[str, Mapping[Cell, Floats]]) -> pd.DataFrame:
    """The standard deviation of `again`, by adapter and task, to read: in points, and how many pairs are equal."""
    table: dict[str, list[str]] = {"adapter": [cell_name(*cell) for cell in next(iter(tasks.values()))]}
    for task, twice in tasks.items():
        name = task_name(task)
        table[f"{name} (95 %)"] = [_with_ends(*again(of)) for of in twice.values()]
        table[f"{name}: equal"] = [f"{(of[0] == of[1]).sum()} of {of.shape[1]}" for of in twice.values()]
    return pd.DataFrame(table)


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 0.0001 else "< 0.0001"


def _sd(variance: float) -> str:
    return percent(math.sqrt(variance), 2) if variance > 0 else "–"


def _with_ends(variance: float, interval: tuple[float, float]) -> str:
    low, high = (percent(math.sqrt(end), 2) for end in interval)
    return f"{_sd(variance)} ({low}–{high})"
