"""Where the errors of one task's accuracies and differences come from, and what it takes to make them small.

The variances of seeds, items and the rest (`cpadapt.analysis.statistics.Estimate`) are pooled over like cells, since
three
seeds of one cell hardly tell how much seeds vary. Where cells have many runs, over seeds or over draws of the training
examples, how far these spread is told cell by cell. What is computed comes first, as shares; then what words it.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from companion.claims import MARGIN, lora_ahead
from companion.wording import bounds, percent, signed
from cpadapt.analysis.cells import Cells
from cpadapt.analysis.charts import TASK_NAMES, cell_name, pair_name
from cpadapt.analysis.statistics import (
    Estimate,
    Outcomes,
    agreement,
    compare,
    items_needed,
    pooled,
    require_pairs,
    seeds_needed,
)
from cpadapt.errors import InputError
from cpadapt.records.config import HEAD

ACCURACY, FAMILIES, SIZES = "one accuracy", "LoRA − CP, one budget", "CP, one size and the next"
EFFECTS = (0.005, 0.01, 0.02)
"""True differences that one would like to see, half a point, one and two."""

TEN = 10
"""Seeds that one can afford in most studies."""

ENOUGH, MOST_SEEDS, MOST_ITEMS = 0.8, 1000, 100_000
"""The chance to see a difference that is enough, and the seeds and items at which a search for it ends."""


def sources(of: Cells) -> dict[str, Estimate]:
    """What is estimated of a task, pooled over its adapters, matched budgets and neighbouring CP sizes.

    Cells of which a run has no outcome are left out.

    Raises:
        InputError: as `cpadapt.analysis.statistics.pooled` and `require_pairs`.
    """
    require_pairs(list(of.outcomes.values()))
    right = {cell: found.right for cell, found in of.outcomes.items()}
    sizes = [size for size in of.sizes("cp") if ("cp", size) in right]
    return {
        ACCURACY: pooled([table for (label, _), table in right.items() if label != HEAD]),
        FAMILIES: pooled([right[lora] - right[cp] for lora, cp in _pairs(of)]),
        SIZES: pooled([right["cp", b] - right["cp", a] for a, b in itertools.pairwise(sizes)]),
    }


def _pairs(of: Cells) -> list[tuple[tuple[str, int], tuple[str, int]]]:
    """LoRA's and CP's cells at matched budgets, of those that have outcomes."""
    pairs = [(("lora", rank), ("cp", size)) for rank, size in of.matched()]
    return [pair for pair in pairs if set(pair) <= of.outcomes.keys()]


def unpaired(of: Cells) -> float:
    """The error of LoRA minus CP at one budget if the two had been asked other items and trained from other seeds."""
    families = zip(*_pairs(of), strict=True)
    return math.hypot(*(pooled([of.outcomes[cell].right for cell in cells]).standard_error for cells in families))


def disagreement(of: Cells) -> float:
    """The share of items on which two seeds of one cell differ, on the average over the adapters."""
    return float(np.mean([1 - agreement(c, c) for (label, _), c in of.outcomes.items() if label != HEAD]))


def powers(found: Mapping[str, Estimate], seeds: Sequence[int]) -> pd.DataFrame:
    """The chance to see each of `EFFECTS`, on the items that there are.

    Args:
        found: an estimate by task.
        seeds: how many, each.

    Returns:
        One row a task, effect and number of seeds, with the columns `task`, `effect`, `seeds` and `power`.
    """
    return pd.DataFrame(
        [
            {"task": task, "effect": effect, "seeds": count, "power": of.power(effect, count, of.items)}
            for task, of in found.items()
            for effect in EFFECTS
            for count in seeds
        ]
    )


def spread(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """The standard deviation of independent runs (n−1), and the interval in which that of all runs lies.

    The interval is that of a normal distribution.

    Raises:
        InputError: there are fewer than two.
    """
    if len(values) < 2:
        raise InputError(f"{len(values)} runs: how far runs spread takes two or more")
    sd, degrees = float(np.std(values, ddof=1)), len(values) - 1
    low, high = (
        sd * float(np.sqrt(degrees / stats.chi2.ppf(share, degrees))) for share in ((1 + level) / 2, (1 - level) / 2)
    )
    return sd, low, high


def misled(a: Outcomes, b: Outcomes, count: int) -> float:
    """How often a few of the seeds give the difference of two cells another sign than all of them do.

    Returns:
        A share of all ways to take `count` of the seeds that both cells have; no difference counts as another sign.

    Raises:
        InputError: as `cpadapt.analysis.statistics.require_pairs`, or there are fewer seeds than that.
    """
    require_pairs([a, b])
    if not 1 <= count <= len(a.seeds):
        raise InputError(f"{count} of {len(a.seeds)} seeds: take one or more, and no more than there are")
    # In items, which are whole numbers, so that a sum of 0 is one.
    by_seed = (a.right - b.right).sum(1).astype(int)
    sums = np.fromiter(map(sum, itertools.combinations(by_seed.tolist(), count)), dtype=int)
    return float((np.sign(sums) != np.sign(by_seed.sum())).mean())


def runs(of: Mapping[str, Cells]) -> pd.DataFrame:
    """The accuracy of each run, to be drawn.

    Args:
        of: cells by what their runs differ in, such as seeds or draws.

    Returns:
        One row a run, with the columns `over` (what runs differ in), `label`, `size`, `run` (its place) and
        `accuracy`.
    """
    return pd.DataFrame(
        [
            {"over": over, "label": label, "size": size, "run": run, "accuracy": accuracy}
            for over, cells in of.items()
            for (label, size), found in sorted(cells.outcomes.items())
            for run, accuracy in enumerate(found.right.mean(1).tolist())
        ]
    )


def source_table(tasks: Mapping[str, Mapping[str, Estimate]]) -> pd.DataFrame:
    """`sources` to read, in points: the part of each source in the error of one run, and the errors of several.

    A part that is estimated at or below zero is left open.
    """
    rows = []
    for task, found in tasks.items():
        for what, e in found.items():
            errors = {
                "seeds": e.seed_variance**0.5,
                "items": (e.item_variance / e.items) ** 0.5,
                "rest": (e.rest_variance / e.items) ** 0.5,
                "1 seed": e.error_with(1, e.items),
                "3 seeds": e.error_with(3, e.items),
                "10 seeds": e.error_with(TEN, e.items),
                "no end": e.error_with(math.inf, e.items),
            }
            row = {"task": TASK_NAMES.get(task, task), "of": what}
            rows.append(row | {name: percent(error, 2) if error else "–" for name, error in errors.items()})
    return pd.DataFrame(rows)


def need_table(tasks: Mapping[str, Mapping[str, Estimate]]) -> pd.DataFrame:
    """What it takes to see each of `EFFECTS` four times in five, were the variances of `sources` the true ones."""
    rows = []
    for task, found in tasks.items():
        for what in (FAMILIES, SIZES):
            row = {"task": TASK_NAMES.get(task, task), "of": what}
            for effect in EFFECTS:
                row[f"seeds, for {100 * effect:g}"] = _needed(seeds_needed(found[what], effect, ENOUGH, MOST_SEEDS))
            for effect in EFFECTS:
                row[f"items, for {100 * effect:g}"] = _needed(
                    items_needed(found[what], effect, TEN, ENOUGH, MOST_ITEMS)
                )
            rows.append(row)
    return pd.DataFrame(rows)


def spread_table(over: Mapping[str, Cells]) -> pd.DataFrame:
    """Mean and spread of each cell's runs, to read: in percent and points.

    Args:
        over: the same cells by what their runs differ in, such as seeds or draws.
    """
    rows = []
    for cell in sorted(next(iter(over.values())).outcomes):
        row = {"adapter": cell_name(*cell)}
        for name, of in over.items():
            right = of.outcomes[cell].right
            sd, low, high = (percent(share, 2) for share in spread(right.mean(1).tolist()))
            row |= {
                f"{name}: mean": percent(right.mean()),
                f"{name}: sd": sd,
                f"{name}: 95 %": f"{low} to {high}",
            }
        rows.append(row)
    return pd.DataFrame(rows)


KEYS = (
    (("lora", 1), ("cp", 11)), (("lora", 1), ("cp", 44)), (("cp", 11), ("cp", 1)), (("cp", 44), ("cp", 11)),
    (("cp", 44), ("cp", 1)), (("cp", 11), (HEAD, 0)),
)  # fmt: skip
"""The differences between the key cells that are looked at one by one."""


def key_table(of: Cells, mislead: bool = True) -> pd.DataFrame:
    """The differences of `KEYS`, to read: in points.

    Args:
        of: the cells.
        mislead: whether to say how often three of the runs give another sign, which are then those of single seeds.
    """
    rows = []
    for a, b in KEYS:
        pair = of.outcomes[a], of.outcomes[b]
        e = compare(*pair)
        row = {
            "difference": pair_name(a, b),
            "points": signed(e.mean, 2),
            "95 %": bounds(e.interval(), 2),
            "alike": f"{e.equivalence_p_value(MARGIN):.3f}",
        }
        rows.append(row | ({"three mislead, %": percent(misled(*pair, 3), 0)} if mislead else {}))
    return pd.DataFrame(rows)


def figures(of: Cells) -> dict[str, str]:
    """What a chapter's sentences name of a task, as they shall be read."""
    found, ahead = sources(of), lora_ahead(of).estimate
    assert ahead is not None
    accuracy, families = found[ACCURACY], found[FAMILIES]
    return {
        "items": f"{families.items:,}",
        "one": _needed(seeds_needed(families, EFFECTS[1], ENOUGH, MOST_SEEDS)),
        "accuracy_end": percent(accuracy.error_with(math.inf, accuracy.items)),
        "error": percent(families.standard_error, 2),
        "end": percent(families.error_with(math.inf, families.items), 2),
        "unpaired": percent(unpaired(of), 2),
        "apart": percent(disagreement(of), 0),
        "average": percent(ahead.standard_error, 2),
    }


def _needed(count: int | None) -> str:
    return "never" if count is None else f"{count:,}"
