"""Where the errors of one task's accuracies and differences come from, and what it takes to make them small.

The variances of seeds, items and the rest (`cpadapt.analysis.statistics.Estimate`) are pooled over like cells, since
three seeds of one cell hardly tell how much seeds vary. Where cells have many runs, over seeds or over draws of the
training examples, their spread is estimated cell by cell. The runs come first, then what is estimated of them, as
shares, then tables to read.
"""

import functools
import itertools
import math
import operator
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from companion import contrasts, ladder, quantities
from companion.wording import number
from cpadapt.analysis.cells import Cell, Cells
from cpadapt.analysis.charts import backbone_name, cell_name, pair_name, task_name
from cpadapt.analysis.statistics import (
    Estimate,
    Outcomes,
    agreement,
    compare,
    pooled,
    require_pairs,
)
from cpadapt.errors import InputError
from cpadapt.records.config import HEAD

TASKS = ("sst2", "rte", "boolq")

ONE_ACCURACY, ONE_BUDGET, NEXT_SIZE = "one accuracy", "LoRA − CP, one budget", "CP, one size and the next"
KINDS = {"accuracy": ONE_ACCURACY, "budget": ONE_BUDGET, "size": NEXT_SIZE}
"""Of what there is an error, by the name that quantities have."""

PARTS = {
    "seeds": "seeds", "items": "items", "rest": "rest", "seeds_1": "1 seed", "seeds_3": "3 seeds",
    "seeds_10": "10 seeds", "no_end": "no end",
}  # fmt: skip
"""The sources of one run's error, and the errors of several, by the name that quantities have."""

EFFECTS = {"half": 0.005, "one": 0.01, "two": 0.02}
"""True differences that one would like to see, half a point, one and two, likewise."""

TEN = 10
"""Seeds that one can afford in most studies."""

CP1, CP11, CP44, LORA1, HEAD_ONLY = ("cp", 1), ("cp", 11), ("cp", 44), ("lora", 1), (HEAD, 0)
CELLS: dict[str, Cell] = {"cp1": CP1, "cp11": CP11, "cp44": CP44, "lora1": LORA1, "head": HEAD_ONLY}
"""Those that have many runs, by the name that quantities have: LoRA's first rank, and CP's smallest, at its budget and
at four times that."""

PAIRS: dict[str, tuple[Cell, Cell]] = {
    "lora1_cp11": (LORA1, CP11), "lora1_cp44": (LORA1, CP44), "cp11_cp1": (CP11, CP1), "cp44_cp11": (CP44, CP11),
    "cp44_cp1": (CP44, CP1), "cp11_head": (CP11, HEAD_ONLY),
}  # fmt: skip
"""The differences between them that are looked at one by one, likewise."""

CELL_NAMES = {name: cell_name(*cell) for name, cell in sorted(CELLS.items(), key=operator.itemgetter(1))}
PAIR_NAMES = {name: pair_name(*pair) for name, pair in PAIRS.items()}
"""What a reader sees of them."""

FIRST_RANK_STUDIES = ("smollm2-seeds", "smollm2-seeds-boolq", "minilm")
FIRST_RANKS = [
    *(("smollm2", task) for task in TASKS),
    *(("minilm", task) for task in ("sst2", "sick", "mrpc", "boolq", "rte")),
]
"""Backbones and tasks that have many runs of LoRA's first rank."""

NOT_LEARNED = "not learned"
"""What is said where adapters are not shown to learn."""

ENOUGH, MOST_SEEDS, MOST_ITEMS = 0.8, 1000, 100_000
"""The chance to see a difference that is enough, and the seeds and items at which a search for it ends."""


def study_over_seeds(task: str) -> str:
    """The study that has many seeds of a task."""
    return "smollm2-seeds-boolq" if task == "boolq" else "smollm2-seeds"


@functools.cache
def at_papers_rates(task: str) -> Cells:
    """A task's cells under the paper's protocol, three seeds each."""
    return ladder.measured("smollm2", task).cells


@functools.cache
def over_seeds(task: str) -> Cells:
    """The cells with many runs, over seeds, on one draw of the examples."""
    return contrasts.measured((study_over_seeds(task),), task)


@functools.cache
def over_draws(task: str) -> Cells:
    """The same cells over draws of the examples, with one seed."""
    return contrasts.measured(("smollm2-data-seeds",), task)


@functools.cache
def two_on_each_draw(task: str) -> Cells:
    """The same over draws, with two seeds, which share a draw's examples and so count as one run, their mean."""
    return contrasts.mean_of(over_draws(task), contrasts.measured(("smollm2-data-seeds-again",), task))


def minus(of: Cells, pair: str) -> Estimate:
    """The first cell of one of `PAIRS` minus the second."""
    a, b = PAIRS[pair]
    return compare(of.outcomes[a], of.outcomes[b])


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
        ONE_ACCURACY: pooled([table for (label, _), table in right.items() if label != HEAD]),
        ONE_BUDGET: pooled([right[lora] - right[cp] for lora, cp in _pairs(of)]),
        NEXT_SIZE: pooled([right["cp", b] - right["cp", a] for a, b in itertools.pairwise(sizes)]),
    }


def _pairs(of: Cells) -> list[tuple[tuple[str, int], tuple[str, int]]]:
    """LoRA's and CP's cells at matched budgets, of those that have outcomes."""
    pairs = [(("lora", rank), ("cp", size)) for rank, size in of.matched("lora", "cp")]
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
            for effect in EFFECTS.values()
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


def wrong_sign(a: Outcomes, b: Outcomes, count: int) -> float:
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


def source_table() -> pd.DataFrame:
    """`sources` to read, in points: the part of each source in the error of one run, and the errors of several.

    A part that is estimated at or below zero is left open.
    """
    columns = {title: f"noise.part.{{}}.{{}}.{name}" for name, title in PARTS.items()}
    said = dict.fromkeys(columns, lambda error: number(error, 2) if error else "–")
    return quantities.table(_rows(KINDS), columns, ("task", "of"), said)


def need_table() -> pd.DataFrame:
    """What it takes to see each of `EFFECTS` four times in five, were the variances of `sources` the true ones."""
    columns = {
        f"{what}, for {100 * effect:g}": f"noise.{what}_needed.{{}}.{{}}.{name}"
        for what in ("seeds", "items")
        for name, effect in EFFECTS.items()
    }
    return quantities.table(_rows(("budget", "size")), columns, ("task", "of"))


def _rows(kinds: Iterable[str]) -> dict[str, tuple[str, str]]:
    return {f"{task}.{kind}": (task_name(task), KINDS[kind]) for task in TASKS for kind in kinds}


def first_rank_table() -> pd.DataFrame:
    """LoRA's first rank minus CP at its budget on each backbone and task that adapters learn, to read."""
    rows = {
        f"{backbone}.{task}": (backbone_name(backbone), f"{task_name(task)}: {pair.value}")
        for backbone, task in FIRST_RANKS
        if (pair := quantities.value(f"noise.first_rank_pair.{backbone}.{task}")).value != NOT_LEARNED
    }
    names = ("noise.first_rank_lead.{}.{}", "noise.first_rank_holm.{}.{}", "noise.first_rank_alike.{}.{}")
    return quantities.table(rows, contrasts.columns(*names), ("backbone", "LoRA − CP"))


def spread_table(task: str, *over: str) -> pd.DataFrame:
    """Mean and spread of each cell's runs, to read; over `seeds` and `draws`, side by side."""
    columns = {}
    for each in over:
        columns[f"{each}: mean"] = f"noise.mean_over_{each}.{task}.{{}}"
        columns[f"{each}: sd"] = f"noise.sd_over_{each}.{task}.{{}}"
        columns[f"{each}: 95 %"] = f"noise.sd_over_{each}.{task}.{{}}|interval"
    return quantities.table(CELL_NAMES, columns, "adapter")


def difference_table(task: str, over: str) -> pd.DataFrame:
    """The differences of `PAIRS`, to read, over `seeds` or `draws`."""
    columns = {
        "points": f"noise.over_{over}.{task}.{{}}|signed",
        "95 %": f"noise.over_{over}.{task}.{{}}|interval|signed",
        "alike": f"noise.alike_over_{over}.{task}.{{}}",
    }
    if over == "seeds":
        columns["three mislead, %"] = f"noise.wrong_sign.{task}.{{}}"
    return quantities.table(PAIR_NAMES, columns, "difference")


def dev_table(task: str) -> pd.DataFrame:
    """The same over draws by what was asked, to read, with 95 % intervals."""
    asked = {"eval": "over_draws", "dev, best step": "on_dev_at_best", "dev, last step": "on_dev",
             "dev and eval, best step": "on_dev_and_eval"}  # fmt: skip
    columns = {title: f"noise.{name}.{task}.{{}}|bare|signed" for title, name in asked.items()}
    columns["Holm, last step"] = f"noise.on_dev_p.{task}.{{}}"
    return quantities.table(PAIR_NAMES, columns, f"{task_name(task)}, points")
