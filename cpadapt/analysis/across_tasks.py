"""What differences between adapters come to over tasks, as the plan of the study says beforehand.

On one task a difference is taken draw by draw and item by item, over evaluation items that every draw is asked and
training rows that a draw leaves over (`difference`). Tasks are a sample too: the mean over tasks is over all those
that might have been taken, with tasks of one source counted as one (`over_tasks`). What it is called is `judge`'s.
Rates are chosen before, on dev alone, one setting for all tasks (`chosen_settings`).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, stats
from statsmodels.stats.meta_analysis import combine_effects

from cpadapt.analysis.charts import cell_name
from cpadapt.analysis.statistics import Estimate, Floats, Mean, partly_crossed
from cpadapt.errors import InputError
from cpadapt.records.config import RunConfig
from cpadapt.records.record import Record, require_one_backbone

MARGIN = 0.005
"""Half a point. Differences over tasks below it count as none."""

LEVEL = 0.0294
"""Of every test at each of two looks at growing data, for 5 % over both (Pocock, "Group sequential methods in the
design and analysis of clinical trials", Biometrika 64, 1977). The interval that decides has confidence 1 - `LEVEL`."""

Cell = tuple[str, int]
"""A label and a size."""


class Verdict(StrEnum):
    """What a difference is called."""

    SHOWN = "shown"
    """It is not 0, by a two-sided test."""
    EQUIVALENT = "equivalent"
    """It is not shown, and below the margin, by two one-sided tests."""
    OPEN = "open"


def judge(p_value: float, equivalence_p_value: float) -> Verdict:
    """What a difference is called, from its two p values, each corrected over its family if it has one."""
    if p_value < LEVEL:
        return Verdict.SHOWN
    return Verdict.EQUIVALENT if equivalence_p_value < LEVEL else Verdict.OPEN


def needs_more_draws(of: Mean, level: float = LEVEL) -> bool:
    """Whether the interval of confidence 1 - `level` holds 0 and also a difference of the margin, either way."""
    low, high = of.interval(1 - level)
    return low <= 0 <= high and (low <= -MARGIN or high >= MARGIN)


@dataclass(frozen=True)
class OnTask:
    """A difference on one task."""

    estimate: Estimate
    draws: tuple[int, ...]
    """`[draws]`, rising."""
    by_draw: Floats
    """`[draws]`, the difference on all items that each was asked."""


def on_task(values: Floats, draws: NDArray[np.int64], items: NDArray[np.int64]) -> OnTask:
    """A difference on one task, from answers that are paired already.

    Args:
        values: `[answers]`, as shares: what the adapters' answers to one item on one draw differ by.
        draws: `[answers]`, of which draw each is.
        items: `[answers]`, to what item, evaluation items and training rows numbered apart.

    Raises:
        InputError: as `cpadapt.analysis.statistics.partly_crossed`.
    """
    estimate = partly_crossed(values, draws, items)
    place, names = pd.factorize(draws, sort=True)
    return OnTask(estimate, tuple(names.tolist()), np.bincount(place, values) / np.bincount(place))


def difference(parts: Sequence[tuple[float, Iterable[Record]]]) -> OnTask:
    """A difference between cells on one task, from their runs: the sum of weighted accuracies.

    Args:
        parts: the weight of each cell, such as 1 of one and -1 of another, and its runs, one on each draw (with one
            data seed). All have the same draws, and on a draw the same items.

    Raises:
        InputError: the runs are of several tasks, a cell has two runs on a draw or none where another has one, a run
            has no outcome or was not asked what another was on its draw, or the runs on a draw differ in seed or
            examples; or as `cpadapt.analysis.statistics.partly_crossed`.
    """
    cells = [(weight, _by_draw(records)) for weight, records in parts]
    runs = [record for _, of in cells for record in of.values()]
    if len(tasks := {record.config.task for record in runs}) != 1:
        raise InputError(f"a difference is taken on one task, not on {sorted(tasks)}")
    draws = sorted({record.config.data_seed for record in runs})
    values: list[float] = []
    of_draw: list[int] = []
    of_item: list[int] = []
    numbers: dict[tuple[str, int], int] = {}
    for draw in draws:
        asked: dict[tuple[str, int], float] = {}
        for weight, of in cells:
            if draw not in of:
                raise InputError(
                    f"{_named(next(iter(of.values())))} has no run on draw {draw}, where another cell has"
                )
            right = _answers(of[draw])
            if asked and asked.keys() != right.keys():
                raise InputError(f"run {of[draw].id} was not asked what another run on draw {draw} was")
            asked = {item: asked.get(item, 0.0) + weight * is_right for item, is_right in right.items()}
        if len({(of[draw].config.seed, of[draw].config.order, of[draw].data_fingerprint) for _, of in cells}) > 1:
            raise InputError(f"the runs on draw {draw} differ in their seed or in their examples")
        values += asked.values()
        of_draw += [draw] * len(asked)
        of_item += [numbers.setdefault(item, len(numbers)) for item in asked]
    return on_task(np.array(values), np.array(of_draw), np.array(of_item))


def _by_draw(records: Iterable[Record]) -> dict[int, Record]:
    """One cell's runs by their draw."""
    records = list(records)
    require_one_backbone(records, "a cell's runs")
    found: dict[int, Record] = {}
    for record in records:
        if record.config.data_seed in found:
            raise InputError(
                f"two runs of {_named(record)} on draw {record.config.data_seed}: give one cell's, one a draw"
            )
        found[record.config.data_seed] = record
    if not found:
        raise InputError("a cell has no runs")
    return found


def _named(record: Record) -> str:
    return cell_name(record.label, record.config.size)


def _answers(record: Record) -> dict[tuple[str, int], bool]:
    """What a run was asked, by set and row, and whether it was right."""
    sets = {"eval": record.outcome, "rest": record.rest}
    found = {(name, row): is_right for name, of in sets.items() if of for row, is_right in of.right_by_row.items()}
    if not found:
        raise InputError(
            f"run {record.id} has no outcome: it diverged before its first evaluation, or was asked nothing"
        )
    return found


@dataclass(frozen=True)
class OverTasks(Mean):
    """A mean difference over tasks, by source."""

    spread: float
    """The standard deviation of sources' true differences, τ."""
    by_source: Mapping[str, float]
    """The difference of each source, the mean over its tasks."""
    draw_variance: float
    """Of what a draw does to all tasks alike; 0 where the estimate is below."""


def over_tasks(found: Mapping[str, OnTask], source_groups: Mapping[str, str | None]) -> OverTasks:
    """The mean difference over tasks like these.

    A source's difference is the mean over its tasks. Sources are random effects: the spread τ is Paule and Mandel's,
    and the error of the mean by `1/(v + τ²)` is Knapp and Hartung's, of the weighted squares of what is seen, with
    Student's t of one degree fewer than there are sources (Knapp and Hartung, "Improved tests for a random effects
    meta-regression with a single covariate", Statistics in Medicine 22, 2003). A draw's number is also the seed of the
    initial weights, which are the same on every task, and what these do is no matter of tasks: the covariance of
    draws' differences between sources, over the number of draws, is added to the mean's variance.

    Args:
        found: each task's difference, by its name.
        source_groups: each task's source, as its specification has it; `None` if it has one of its own.

    Raises:
        InputError: a task's source is not given, there are fewer than three sources, tasks have different draws, or
            a source's differences do not vary at all.
    """
    if missing := sorted(found.keys() - source_groups.keys()):
        raise InputError(f"the source of {missing[0]!r} is not given: name it, or None if it is the task's own")
    members: dict[str, list[OnTask]] = {}
    for task, of in found.items():
        members.setdefault(source_groups[task] or task, []).append(of)
    if len(members) < 3:
        raise InputError(f"{len(members)} sources of tasks: how much these differ is told from three or more")
    draws = next(iter(found.values())).draws
    for task, of in found.items():
        if of.draws != draws:
            unpaired = sorted(set(of.draws) ^ set(draws))
            raise InputError(f"tasks are compared over the same draws, and {task!r} differs in draw {unpaired[0]}")
    effects = np.array([np.mean([of.estimate.mean for of in tasks]) for tasks in members.values()])
    errors = [np.sqrt(sum(of.estimate.standard_error**2 for of in tasks)) / len(tasks) for tasks in members.values()]
    if min(errors) == 0:
        raise InputError(f"the answers on {list(members)[int(np.argmin(errors))]!r} do not differ at all")
    by_draw = np.array([np.mean([of.by_draw for of in tasks], axis=0) for tasks in members.values()])
    return _combined(effects, np.square(errors), by_draw, tuple(members))


def _combined(effects: Floats, variances: Floats, by_draw: Floats, names: Sequence[str]) -> OverTasks:
    """`over_tasks` of arrays: `[sources]`, `[sources]` and `[sources, draws]`."""
    sources, draws = by_draw.shape
    # In units of a typical error, as the search for τ has a fixed tolerance.
    unit = float(np.sqrt(variances.mean()))
    fitted = combine_effects(effects / unit, variances / unit**2, method_re="iterated", use_t=True)
    covariances = np.cov(by_draw)
    together = (covariances.sum() - np.trace(covariances)) / (sources * (sources - 1))
    draw_variance = max(float(together), 0.0)
    return OverTasks(
        mean=float(fitted.mean_effect_re) * unit,
        standard_error=float(np.sqrt(fitted.var_hksj_re * unit**2 + draw_variance / draws)),
        degrees=sources - 1,
        spread=float(np.sqrt(fitted.tau2)) * unit,
        by_source=dict(zip(names, effects.tolist(), strict=True)),
        draw_variance=draw_variance,
    )


def between(a: Mean, b: Mean) -> Mean:
    """The first mean minus the second, where the two are independent; degrees of freedom as of Welch's test."""
    of_a, of_b = a.standard_error**2, b.standard_error**2
    return Mean(
        mean=a.mean - b.mean,
        standard_error=float(np.sqrt(of_a + of_b)),
        degrees=(of_a + of_b) ** 2 / (of_a**2 / a.degrees + of_b**2 / b.degrees),
    )


def share_interval(left: Callable[[float], Mean], level: float = 0.95) -> tuple[float, float]:
    """Where the ratio of two means lies, by Fieller's argument: all shares that the test of no remainder leaves.

    Args:
        left: by a share, the mean of what stands above minus so much of what stands below, such as one component's
            gain minus half of the best adapter's.
        level: of confidence.

    Returns:
        Its ends; infinite where no share between -10 and 10 is refused, as where what stands below may be 0.
    """

    def inside(share: float) -> float:
        mean = left(share)
        return abs(mean.mean) / mean.standard_error - float(stats.t.ppf((1 + level) / 2, mean.degrees))

    best = optimize.brentq(lambda share: left(share).mean, -10, 10)
    ends = [
        optimize.brentq(inside, best, end) if inside(end) > 0 else math.copysign(math.inf, end) for end in (-10, 10)
    ]
    return float(ends[0]), float(ends[1])


def chosen_settings(records: Iterable[Record]) -> dict[Cell, RunConfig]:
    """The setting of each cell that did best on dev, over all tasks and draws.

    A setting is all that a run was asked to do, but for its task and seeds: its rate, scale and warm-up, say. Its
    score is the share of dev that is right at each run's best step, the mean over draws and then over tasks, so that
    every task counts alike; a run that diverged before its first evaluation has none right. A setting of which fewer
    runs diverged goes before one of which more did; of equals the one with the lower rate, then the lower scale, then
    the shorter warm-up.

    Args:
        records: of cells with an adapter, each at all its settings on the same tasks and draws.

    Returns:
        By label and size, a config of that setting, whose task and seeds say nothing.

    Raises:
        InputError: two runs are of one setting, task and draw, or a setting of a cell has not all of its tasks and
            draws.
    """
    found: dict[Cell, dict[str, tuple[RunConfig, dict[tuple[str, int], Record]]]] = {}
    for record in records:
        config = record.config
        setting = replace(config, task="any", seed=0, data_seed=0, order_seed=None)
        _, runs = found.setdefault((record.label, config.size), {}).setdefault(setting.config_id, (setting, {}))
        if (config.task, config.data_seed) in runs:
            raise InputError(
                f"two runs of {_named(record)} have one setting, task and draw: {config.task}, {config.data_seed}"
            )
        runs[config.task, config.data_seed] = record
    best = {}
    for cell, settings in found.items():
        wanted = set().union(*(runs for _, runs in settings.values()))
        for setting, runs in settings.values():
            if missing := sorted(wanted - runs.keys()):
                raise InputError(
                    f"{cell_name(*cell)} at rate {setting.learning_rate} has no run on {missing[0][0]}, draw "
                    f"{missing[0][1]}, where another of its settings has"
                )
        best[cell], _ = min(settings.values(), key=lambda setting: _order(*setting))
    return best


def _order(setting: RunConfig, runs: Mapping[tuple[str, int], Record]) -> tuple[int, Fraction, float, float, int]:
    """What sorts settings, the best first; exact, as two may have the very same score."""
    by_task: dict[str, list[Fraction]] = {}
    for (task, _), record in runs.items():
        right = Fraction(record.best.dev_correct, record.best.dev_total) if record.best else Fraction(0)
        by_task.setdefault(task, []).append(right)
    score = sum((sum(right, Fraction(0)) / len(right) for right in by_task.values()), Fraction(0)) / len(by_task)
    diverged = sum(record.diverged_at is not None for record in runs.values())
    warmup = setting.warmup_steps or 0
    return diverged, -score, setting.learning_rate or 0.0, setting.scale or 0.0, warmup
