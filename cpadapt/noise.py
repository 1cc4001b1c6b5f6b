"""Where the errors of one task's accuracies and differences come from, and what it takes to make them small.

The variances of seeds, items and the rest (`cpadapt.statistics.Estimate`) are pooled over like cells, since three
seeds of one cell hardly tell how much seeds vary. What is computed comes first, as shares; then what words it.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cpadapt.charts import TASK_NAMES
from cpadapt.claims import Cells, lora_ahead
from cpadapt.protocol import HEAD
from cpadapt.statistics import (
    Estimate,
    agreement,
    items_needed,
    pooled,
    require_pairs,
    seeds_needed,
)

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
        InputError: as `cpadapt.statistics.pooled` and `require_pairs`.
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
            rows.append(row | {name: _points(error) if error else "–" for name, error in errors.items()})
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


def figures(of: Cells) -> dict[str, str]:
    """What a chapter's sentences name of a task, as they shall be read."""
    found, ahead = sources(of), lora_ahead(of).estimate
    assert ahead is not None
    accuracy, families = found[ACCURACY], found[FAMILIES]
    return {
        "items": f"{families.items:,}",
        "one": _needed(seeds_needed(families, EFFECTS[1], ENOUGH, MOST_SEEDS)),
        "accuracy_end": f"{100 * accuracy.error_with(math.inf, accuracy.items):.1f}",
        "error": _points(families.standard_error),
        "end": _points(families.error_with(math.inf, families.items)),
        "unpaired": _points(unpaired(of)),
        "apart": f"{100 * disagreement(of):.0f}",
        "average": _points(ahead.standard_error),
    }


def _needed(count: int | None) -> str:
    return "never" if count is None else f"{count:,}"


def _points(share: float) -> str:
    return f"{100 * share:.2f}"
