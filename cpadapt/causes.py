"""What moves one run's accuracy: initial weights, the order of the examples, both together, rounding, the draw, items.

Two causes are told apart by crossing them: each of several initial weights is trained with each of several orders, and
each of several draws of the examples with each of two seeds. A two-way analysis of variance of the accuracies then
gives what each cause does by itself and what is left to the two together (`cpadapt.statistics.estimate`, in which a
table of seeds by items is a table of one cause by another). What is computed comes first, in squared shares; then what
words it, in points.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cpadapt.charts import TASK_NAMES, cell_name, pair_name
from cpadapt.claims import Cells
from cpadapt.contrasts import measured as many_seeds
from cpadapt.contrasts import on_record
from cpadapt.errors import InputError
from cpadapt.protocol import HEAD, RunConfig
from cpadapt.record import Record
from cpadapt.statistics import Floats, effect_p_values, estimate, holm
from cpadapt.wording import percent

WEIGHTS, ORDER, BOTH, AGAIN, DRAW, ITEMS = CAUSES = (
    "initial weights", "order", "the two together", "the same again", "draw", "items",
)  # fmt: skip
SEED = "seed"
"""Initial weights and order at once."""

Cell = tuple[str, int]
DIFFERENCES: tuple[tuple[Cell, Cell], ...] = ((("lora", 1), ("cp", 11)), (("cp", 44), ("cp", 1)))
"""The families at one budget, and what components gain."""


@dataclass(frozen=True)
class Runs:
    """The accuracies of one cell's runs, by what they differ in; or, after a subtraction, the differences of two."""

    by_order: Floats
    """`[initial weights, orders]`, on one draw of the examples."""
    twice: Floats
    """`[2, runs]`, the same runs on one kind of device in two banks, where sums are rounded otherwise."""
    by_draw: Floats
    """`[seeds, draws]`, a seed being initial weights and order."""
    right: Floats
    """`[seeds, items]`, on one draw: 1 where a run is right and 0 where it is wrong."""

    def __sub__(self, other: "Runs") -> "Runs":
        return Runs(
            self.by_order - other.by_order,
            self.twice - other.twice,
            self.by_draw - other.by_draw,
            self.right - other.right,
        )


def measured(task: str) -> dict[Cell, Runs]:
    """The runs of each adapter of a task in the project's own results.

    Raises:
        InputError: as `crossed`, or a run of one study is not in the other.
    """

    def by_cell(studies: Sequence[str]) -> dict[Cell, list[Record]]:
        found: dict[Cell, list[Record]] = {}
        for record in on_record(studies):
            if record.config.task == task and record.label != HEAD:
                found.setdefault((record.label, record.config.size), []).append(record)
        return found

    seeds, orders = by_cell(["smollm2-seeds"]), by_cell(["smollm2-orders"])
    draws = by_cell(["smollm2-data-seeds", "smollm2-data-seeds-again"])
    right = many_seeds(["smollm2-seeds"], task).outcomes
    return {
        cell: Runs(
            by_order=crossed(orders[cell], lambda c: (c.seed, c.seed if c.order_seed is None else c.order_seed)),
            twice=repeated(orders[cell], seeds[cell]),
            by_draw=crossed(draws[cell], lambda c: (c.seed, c.data_seed)),
            right=right[cell].right,
        )
        for cell in sorted(orders)
    }


def crossed(records: Iterable[Record], place: Callable[[RunConfig], tuple[int, int]]) -> Floats:
    """The accuracies of one cell's runs, in which each of some causes meets each of others.

    Args:
        records: one for each pair of the two.
        place: a run's two causes, such as its seed and its order's.

    Returns:
        `[first, second]`, both rising.

    Raises:
        InputError: a pair has no run or two, or a run has no outcome.
    """
    found: dict[tuple[int, int], float] = {}
    for record in records:
        at = place(record.config)
        if at in found:
            raise InputError(f"two runs are at {at}: give one for each pair")
        found[at] = _accuracy(record)
    rows, columns = (sorted(set(causes)) for causes in zip(*found, strict=True))
    if missing := [(row, column) for row in rows for column in columns if (row, column) not in found]:
        raise InputError(f"no run is at {missing[0]}: causes are told apart only where each meets each")
    return np.array([[found[row, column] for column in columns] for row in rows])


def repeated(records: Iterable[Record], others: Iterable[Record]) -> Floats:
    """The accuracies of those runs of one cell that are the same in two studies.

    That is a run whose order is that of its own seed, asked for by number in one study and by nothing in the other.

    Returns:
        `[2, runs]`, by their seeds rising.

    Raises:
        InputError: the others lack such a run, there is none, or one has no outcome.
    """
    first = {r.config.seed: _accuracy(r) for r in records if r.config.order_seed == r.config.seed}
    second = {r.config.seed: _accuracy(r) for r in others if r.config.order_seed is None}
    if missing := sorted(first.keys() - second.keys()):
        raise InputError(f"no run with seed {missing[0]} and its own order is among the others")
    if not first:
        raise InputError("no run has the order of its own seed")
    return np.array([[by_seed[seed] for seed in sorted(first)] for by_seed in (first, second)])


def _accuracy(record: Record) -> float:
    if record.outcome is None:
        raise InputError(f"run {record.id} has no outcome: it diverged before its first evaluation")
    return record.outcome.accuracy


def causes(of: Runs) -> dict[str, float]:
    """The variance that each cause gives one run, in squared shares, by the names of `CAUSES`.

    On the items that were asked: what an order does may be to turn some of them. What is estimated below zero is zero.
    The variance of the items is that of a mean over as many, drawn anew, for runs that are what they are.

    Raises:
        InputError: as `cpadapt.statistics.estimate`.
    """
    on_one_draw, on_draws, over_items = estimate(of.by_order), estimate(of.by_draw), estimate(of.right)
    return {
        WEIGHTS: on_one_draw.seed_variance,
        ORDER: on_one_draw.item_variance,
        BOTH: on_one_draw.rest_variance,
        AGAIN: float(((of.twice[0] - of.twice[1]) ** 2).mean() / 2),
        DRAW: on_draws.item_variance,
        ITEMS: over_items.item_variance / over_items.items,
    }


def frame(runs: Mapping[Cell, Runs], task: str) -> pd.DataFrame:
    """`causes` of a task's adapters, and of the differences that are looked at.

    Args:
        runs: as `measured` gives them.
        task: by name.

    Returns:
        One row an adapter or difference and cause, with the columns `task`, `of` (what a reader sees of it),
        `difference` (whether it is one), `cause`, `variance`, and of weights, order and draw `p` (of none) and `holm`
        (that after Holm's correction over all of the table).
    """
    subjects = {cell_name(*cell): (False, of) for cell, of in runs.items()}
    subjects |= {pair_name(a, b): (True, runs[a] - runs[b]) for a, b in DIFFERENCES}
    rows = []
    for name, (difference, of) in subjects.items():
        (weights, order), (_, draw) = effect_p_values(of.by_order), effect_p_values(of.by_draw)
        p_values = {WEIGHTS: weights, ORDER: order, DRAW: draw}
        rows += [
            {"task": TASK_NAMES.get(task, task), "of": name, "difference": difference, "cause": cause,
             "variance": variance, "p": p_values.get(cause, math.nan)}
            for cause, variance in causes(of).items()
        ]  # fmt: skip
    table = pd.DataFrame(rows)
    tested = table["p"].notna()
    return table.assign(holm=pd.Series(holm(table["p"][tested].tolist()), index=table.index[tested]))


def parts(found: pd.DataFrame) -> pd.DataFrame:
    """Of `frame`, the adapters' variances that add up: the same run again is a part of the two together."""
    return found[~found["difference"] & (found["cause"] != AGAIN)]


def cause_table(found: pd.DataFrame, level: float = 0.05) -> pd.DataFrame:
    """`frame` to read: the standard deviation that each cause gives one run, in points.

    What is tested and not clear after Holm's correction stands in brackets, and a dash is zero.
    """

    def worded(row: pd.Series) -> str:
        if row["variance"] == 0:
            return "–"
        sd = percent(math.sqrt(row["variance"]), 2)
        return f"({sd})" if row["holm"] >= level else sd

    shown = found.assign(sd=[worded(row) for _, row in found.iterrows()])
    wide = shown.set_index(["of", "cause"])["sd"]
    return pd.DataFrame(
        [{"of": of} | {cause: wide[of, cause] for cause in CAUSES} for of in dict.fromkeys(found["of"])]
    )


def on_average(found: pd.DataFrame) -> dict[str, float]:
    """The standard deviation that each cause gives, of the mean variance of the adapters."""
    mean = found[~found["difference"]].groupby("cause")["variance"].mean()
    return {cause: math.sqrt(mean[cause]) for cause in CAUSES}


def adapters(of: Cells) -> Floats:
    """`[cells, runs]`, the accuracies of the cells with an adapter."""
    return np.array([found.right.mean(1) for (label, _), found in of.outcomes.items() if label != HEAD])


def means(runs: Mapping[Cell, Runs]) -> dict[str, Floats]:
    """What the runs of several cells share, and for each that they share the mean of its runs.

    Returns:
        By what is shared, `[cells, of them]`: initial weights over all orders, an order over all initial weights, a
        draw over its seeds, and a seed by itself. Cells have the same order for a seed, and no initial weights: these
        share a number, and show what comes of nothing.
    """
    return {
        WEIGHTS: np.array([of.by_order.mean(1) for of in runs.values()]),
        ORDER: np.array([of.by_order.mean(0) for of in runs.values()]),
        DRAW: np.array([of.by_draw.mean(0) for of in runs.values()]),
        SEED: np.array([of.right.mean(1) for of in runs.values()]),
    }


def together(runs: Floats, shuffles: int, generator: np.random.Generator) -> tuple[float, float]:
    """Whether cells rise and fall together, by the correlations of all pairs at once.

    Args:
        runs: `[cells, runs]`, accuracies of runs that share their place's seed, order or draw.
        shuffles: how often the runs of each cell are put into another order, in which nothing is shared.
        generator: of the orders.

    Returns:
        The mean of Pearson's correlations and its p value, which is how often shuffling gives one at least as far from
        zero, the order as it is counted among them.
    """
    runs = runs - runs.mean(1, keepdims=True)
    runs /= np.sqrt((runs**2).sum(1, keepdims=True))

    def mean(table: Floats) -> float:
        # The square of a sum of unit vectors: one for each of them, and each pair's correlation twice.
        cells = len(table)
        return float(((table.sum(0) ** 2).sum() - cells) / (cells * (cells - 1)))

    found = mean(runs)
    extreme = sum(abs(mean(generator.permuted(runs, axis=1))) >= abs(found) for _ in range(shuffles))
    return found, (1 + extreme) / (1 + shuffles)


def together_table(tasks: Mapping[str, Mapping[str, Floats]], shuffles: int, seed: int) -> pd.DataFrame:
    """`together` of what is shared, by task, to read.

    Args:
        tasks: by name, what is shared and `[cells, of them]`, as `means` gives it.
        shuffles: as `together` has it.
        seed: of the shuffles.
    """
    rows = [
        (TASK_NAMES.get(task, task), shared, runs.shape[1], *together(runs, shuffles, np.random.default_rng(seed)))
        for task, found in tasks.items()
        for shared, runs in found.items()
    ]
    table = pd.DataFrame(rows, columns=["task", "in common", "of them", "r", "p"])
    return pd.DataFrame(
        {
            "task": table["task"],
            "in common": table["in common"],
            "of them": table["of them"],
            "mean correlation": table["r"].map("{:+.2f}".format),
            "p": table["p"].map("{:.4f}".format),
            "Holm": [f"{p:.3f}" for p in holm(table["p"].tolist())],
        }
    )
