"""The sources of error in one task's accuracies and differences, and what it takes to make these errors small.

The variances of seeds, items and the rest (`cpadapt.analysis.statistics.Estimate`) are pooled over similar cells,
because three seeds of one cell hardly show how much seeds vary. For cells with many runs, over seeds or over draws of
the training examples, the spread is estimated cell by cell. The runs come first, then estimates in shares, then
printed tables.
"""

import functools
import itertools
import math
import operator
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from companion import contrasts, draws, one_task, quantities
from companion.wording import number
from cpadapt.analysis.cells import Cells
from cpadapt.analysis.charts import backbone_name, cell_name, pair_name, task_name
from cpadapt.analysis.statistics import (
    Estimate,
    Mean,
    Outcomes,
    agreement,
    compare,
    pooled,
    require_pairs,
    smallest_effect,
)
from cpadapt.errors import InputError
from cpadapt.records.config import HEAD, Cell

TASKS = ("sst2", "rte", "boolq")

ONE_ACCURACY, ONE_BUDGET, NEXT_SIZE = "one accuracy", "LoRA − CP, one budget", "CP, one size and the next"
KINDS = {"accuracy": ONE_ACCURACY, "budget": ONE_BUDGET, "size": NEXT_SIZE}
"""Of what there is an error, by the name that quantities have."""

PARTS = {
    "seeds": "seeds", "items": "items", "rest": "rest", "seeds_1": "1 seed", "seeds_3": "3 seeds",
    "seeds_10": "10 seeds", "no_end": "unlimited seeds",
}  # fmt: skip
"""The sources of one run's error, and the errors of several, by the name that quantities have."""

EFFECTS = {"half": 0.005, "one": 0.01, "two": 0.02}
"""True differences that one would like to see, half a point, one and two, likewise."""

TEN = 10
"""Seeds that most studies can afford."""

CP1, CP11, CP44, LORA1, HEAD_ONLY = ("cp", 1), ("cp", 11), ("cp", 44), ("lora", 1), (HEAD, 0)
CELLS: dict[str, Cell] = {"cp1": CP1, "cp11": CP11, "cp44": CP44, "lora1": LORA1, "head": HEAD_ONLY}
"""The cells with many runs, by their name in quantities. They are LoRA's first rank, and CP at its smallest size, at
the budget of that rank and at four times that budget."""

PAIRS: dict[str, tuple[Cell, Cell]] = {
    "lora1_cp11": (LORA1, CP11), "lora1_cp44": (LORA1, CP44), "cp11_cp1": (CP11, CP1), "cp44_cp11": (CP44, CP11),
    "cp44_cp1": (CP44, CP1), "cp11_head": (CP11, HEAD_ONLY),
}  # fmt: skip
"""The differences between these cells that have a quantity each, by its name."""

CELL_NAMES = {name: cell_name(*cell) for name, cell in sorted(CELLS.items(), key=operator.itemgetter(1))}
PAIR_NAMES = {name: pair_name(*pair) for name, pair in PAIRS.items()}
"""The printed names of `PAIRS`."""

FIRST_RANK_STUDIES = ("smollm2-seeds", "smollm2-seeds-boolq", "minilm")
FIRST_RANKS = [
    *(("smollm2", task) for task in TASKS),
    *(("minilm", task) for task in ("sst2", "sick", "mrpc", "boolq", "rte")),
]
"""Backbones and tasks that have many runs of LoRA's first rank."""

NOT_LEARNED = "not learned"
"""What is said where adapters are not shown to learn."""

ENOUGH, MOST_SEEDS, MOST_ITEMS = 0.8, 1000, 100_000
"""The power that is enough, and the largest numbers of seeds and items that a search for it tries."""


def study_over_seeds(task: str) -> str:
    """The study with many seeds on a task."""
    return "smollm2-seeds-boolq" if task == "boolq" else "smollm2-seeds"


@functools.cache
def at_papers_rates(task: str) -> Cells:
    """A task's cells under the paper's protocol, three seeds each."""
    return one_task.task_on_record("smollm2", task).cells


@functools.cache
def over_seeds(task: str) -> Cells:
    """The cells with many runs, over seeds, on one draw of the examples."""
    return contrasts.cells_on_record((study_over_seeds(task),), task)


@functools.cache
def over_draws(task: str) -> Cells:
    """The same cells over draws of the examples, with one seed."""
    return contrasts.cells_on_record(("smollm2-data-seeds",), task)


@functools.cache
def two_on_each_draw(task: str) -> Cells:
    """The same over draws with two seeds, which share a draw's examples and so count as one run, their mean."""
    return contrasts.mean_of(over_draws(task), contrasts.cells_on_record(("smollm2-data-seeds-again",), task))


def minus(cells: Cells, pair: str) -> Estimate:
    """The first cell of one of `PAIRS` minus the second."""
    a, b = PAIRS[pair]
    return compare(cells.outcomes[a], cells.outcomes[b])


def sources(cells: Cells) -> dict[str, Estimate]:
    """The estimates for a task, pooled over its adapters, matched budgets and neighbouring CP sizes.

    Cells with a run without an outcome are left out.

    Raises:
        InputError: as `cpadapt.analysis.statistics.pooled` and `require_pairs`.
    """
    require_pairs(list(cells.outcomes.values()))
    right = {cell: found.right for cell, found in cells.outcomes.items()}
    sizes = [size for size in cells.sizes("cp") if ("cp", size) in right]
    return {
        ONE_ACCURACY: pooled([table for (label, _), table in right.items() if label != HEAD]),
        ONE_BUDGET: pooled([right[lora] - right[cp] for lora, cp in _pairs(cells)]),
        NEXT_SIZE: pooled([right["cp", b] - right["cp", a] for a, b in itertools.pairwise(sizes)]),
    }


def _pairs(cells: Cells) -> list[tuple[tuple[str, int], tuple[str, int]]]:
    """Pairs of LoRA's and CP's cells at matched budgets that both have outcomes."""
    pairs = [(("lora", rank), ("cp", size)) for rank, size in cells.matched("lora", "cp")]
    return [pair for pair in pairs if set(pair) <= cells.outcomes.keys()]


def unpaired(cells: Cells) -> float:
    """The error of LoRA minus CP at one budget if the two had different items and different seeds."""
    families = zip(*_pairs(cells), strict=True)
    return math.hypot(*(pooled([cells.outcomes[cell].right for cell in side]).standard_error for side in families))


def disagreement(cells: Cells) -> float:
    """The share of items on which two seeds of one cell differ, averaged over the adapters."""
    return float(np.mean([1 - agreement(c, c) for (label, _), c in cells.outcomes.items() if label != HEAD]))


def smallest_effects(found: Mapping[str, Estimate], seeds: Sequence[int]) -> pd.DataFrame:
    """The smallest true difference that is seen four times in five on the existing items, for a chart.

    Args:
        found: an estimate by task.
        seeds: the numbers of seeds.

    Returns:
        One row for each task and number of seeds, with the columns `task`, `seeds` and `effect`.
    """
    return pd.DataFrame(
        [
            {"task": task, "seeds": count, "effect": smallest_effect(e, count, ENOUGH)}
            for task, e in found.items()
            for count in seeds
        ]
    )


def spread(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """The standard deviation of independent runs (with n−1), and its confidence interval.

    The interval assumes a normal distribution.

    Raises:
        InputError: there are fewer than two.
    """
    if len(values) < 2:
        raise InputError(f"{len(values)} runs: estimating their spread takes two or more")
    sd, degrees = float(np.std(values, ddof=1)), len(values) - 1
    low, high = (
        sd * float(np.sqrt(degrees / stats.chi2.ppf(share, degrees))) for share in ((1 + level) / 2, (1 - level) / 2)
    )
    return sd, low, high


def wrong_sign(a: Outcomes, b: Outcomes, count: int) -> float:
    """How often a few of the seeds give the difference of two cells another sign than all seeds do.

    Returns:
        The share of all choices of `count` of the cells' seeds. A difference of 0 counts as another sign.

    Raises:
        InputError: as `cpadapt.analysis.statistics.require_pairs`, or `count` is not between 1 and the number of
            seeds.
    """
    require_pairs([a, b])
    if not 1 <= count <= len(a.seeds):
        raise InputError(f"{count} of {len(a.seeds)} seeds: take one or more, and no more than there are")
    # Counted in items, which are integers, so that a difference of 0 is exactly 0.
    by_seed = (a.right - b.right).sum(1).astype(int)
    sums = np.fromiter(map(sum, itertools.combinations(by_seed.tolist(), count)), dtype=int)
    return float((np.sign(sums) != np.sign(by_seed.sum())).mean())


def runs(groups: Mapping[str, Cells]) -> pd.DataFrame:
    """The accuracy of each run, for a chart.

    Args:
        groups: cells by what their runs differ in, such as seeds or draws.

    Returns:
        One row for each run, with the columns `over` (what runs differ in), `label`, `size`, `run` (its index) and
        `accuracy`.
    """
    return pd.DataFrame(
        [
            {"over": over, "label": label, "size": size, "run": run, "accuracy": accuracy}
            for over, cells in groups.items()
            for (label, size), found in sorted(cells.outcomes.items())
            for run, accuracy in enumerate(found.right.mean(1).tolist())
        ]
    )


def interval_rows(task: str) -> pd.DataFrame:
    """The differences of `PAIRS` between adapters with 95 % intervals, over seeds, draws and dev, for a chart.

    Returns:
        One row for each way to measure a pair, with the columns of `cpadapt.analysis.charts.interval_chart`.
    """
    rows = []
    for name, pair in PAIRS.items():
        if HEAD_ONLY in pair:
            continue
        seeds: dict[str, Mean] = {"eval, over seeds": minus(over_seeds(task), name)}
        on_draws: dict[str, Mean] = {}
        if task != "boolq":
            on_draws["eval, over draws"] = minus(two_on_each_draw(task), name)
            on_draws["dev, over draws"] = draws.differences(draws.drawn(task), *pair)[draws.LAST]
        for group, found in (seeds | on_draws).items():
            low, high = found.interval()
            runs = (two_on_each_draw if group in on_draws else over_seeds)(task).outcomes[pair[0]].seeds
            rows.append(
                {"group": group, "what": PAIR_NAMES[name], "mean": found.mean, "low": low, "high": high,
                 "seeds": len(runs)}
            )  # fmt: skip
    return pd.DataFrame(rows)


def source_table() -> pd.DataFrame:
    """`sources` to read, in points: the part of each source in the error of one run, and the errors of several.

    Estimates of 0 or below are left out.
    """
    columns = {title: f"noise.part.{{}}.{{}}.{name}" for name, title in PARTS.items()}
    said = dict.fromkeys(columns, lambda error: number(error, 2) if error else "–")
    return quantities.table(_rows(KINDS), columns, ("task", "estimate"), said)


def need_table() -> pd.DataFrame:
    """What it takes to see each of `EFFECTS` four times in five, were the variances of `sources` the true ones."""
    columns = {
        f"{what}, for {100 * effect:g}": f"noise.{what}_needed.{{}}.{{}}.{name}"
        for what in ("seeds", "items")
        for name, effect in EFFECTS.items()
    }
    return quantities.table(_rows(("budget", "size")), columns, ("task", "difference"))


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
    """Mean and spread of each cell's runs over `seeds` and `draws`, side by side in a printed table."""
    columns = {}
    for each in over:
        columns[f"{each}: mean"] = f"noise.mean_over_{each}.{task}.{{}}"
        columns[f"{each}: sd"] = f"noise.sd_over_{each}.{task}.{{}}"
        columns[f"{each}: 95 %"] = f"noise.sd_over_{each}.{task}.{{}}|interval"
    return quantities.table(CELL_NAMES, columns, "adapter")


def difference_table(task: str) -> pd.DataFrame:
    """The differences of `PAIRS` over seeds, and draws if there are several, side by side in a printed table."""
    columns = {}
    for over in ("seeds", "draws")[: 1 if task == "boolq" else 2]:
        columns[f"{over}: points"] = f"noise.over_{over}.{task}.{{}}|signed"
        columns[f"{over}: 95 %"] = f"noise.over_{over}.{task}.{{}}|interval|signed"
        columns[f"{over}: {contrasts.EQUIVALENCE}"] = f"noise.alike_over_{over}.{task}.{{}}"
    columns["three seeds mislead, %"] = f"noise.wrong_sign.{task}.{{}}"
    return quantities.table(PAIR_NAMES, columns, "difference")


def dev_table(task: str) -> pd.DataFrame:
    """The same over draws, by set and step, with 95 % intervals."""
    asked = {"eval": "over_draws", "dev, best step": "on_dev_at_best", "dev, last step": "on_dev",
             "dev and eval, best step": "on_dev_and_eval"}  # fmt: skip
    columns = {title: f"noise.{name}.{task}.{{}}|bare|signed" for title, name in asked.items()}
    columns["Holm, last step"] = f"noise.on_dev_p.{task}.{{}}"
    return quantities.table(PAIR_NAMES, columns, f"{task_name(task)}, points")
