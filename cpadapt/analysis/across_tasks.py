"""Differences between adapters over tasks.

On one task a difference is taken draw by draw and item by item. The items are the evaluation items, which every draw
is asked, and the training rows that a draw does not use (`difference`). Tasks are a sample too: the mean is over all
tasks like these, and tasks from one source count as one (`over_tasks`). Settings are chosen beforehand, on dev alone,
one for all tasks (`chosen_settings`).
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, stats

from cpadapt.analysis.charts import cell_name
from cpadapt.analysis.statistics import Estimate, Floats, Mean, partly_crossed
from cpadapt.errors import InputError
from cpadapt.records.config import Cell, RunConfig
from cpadapt.records.record import Outcome, Record, require_one_backbone


@dataclass(frozen=True)
class OnTask:
    """A difference on one task."""

    estimate: Estimate
    draws: tuple[int, ...]
    """`[draws]`, ascending."""
    by_draw: Floats
    """`[draws]`, the mean difference over the items that each draw was asked."""


def on_task(values: Floats, draws: NDArray[np.int64], items: NDArray[np.int64]) -> OnTask:
    """A difference on one task, from paired answers.

    Args:
        values: `[answers]`, the difference between the adapters' answers to one item on one draw, as shares.
        draws: `[answers]`, the draw of each answer.
        items: `[answers]`, the item of each answer; evaluation items and training rows have different numbers.

    Raises:
        InputError: as `cpadapt.analysis.statistics.partly_crossed`.
    """
    estimate = partly_crossed(values, draws, items)
    place, names = pd.factorize(draws, sort=True)
    return OnTask(estimate, tuple(names.tolist()), np.bincount(place, values) / np.bincount(place))


def difference(parts: Sequence[tuple[float, Iterable[Record]]]) -> OnTask:
    """A difference between cells on one task, as a weighted sum of their accuracies.

    Args:
        parts: each cell's weight, such as 1 or -1, and its runs, one on each draw (data seed). All cells have the
            same draws and, on a draw, the same items.

    Raises:
        InputError: the runs are of several tasks, a cell has two runs on a draw or none where another has one, a run
            has no outcome or was asked other items than another on its draw, or the runs on a draw differ in seed or
            examples; or as `cpadapt.analysis.statistics.partly_crossed`.
    """
    cells = [(weight, _by_draw(records)) for weight, records in parts]
    runs = [record for _, by_draw in cells for record in by_draw.values()]
    if len(tasks := {record.config.task for record in runs}) != 1:
        raise InputError(f"a difference is taken on one task, not on {sorted(tasks)}")
    values, draws, items = [], [], []
    for draw in sorted({record.config.data_seed for record in runs}):
        if missing := [by_draw for _, by_draw in cells if draw not in by_draw]:
            raise InputError(
                f"{_named(next(iter(missing[0].values())))} has no run on draw {draw}, where another cell has"
            )
        on_draw = [by_draw[draw] for _, by_draw in cells]
        answers = [_answers(run) for run in on_draw]
        asked = answers[0][0]
        for run, (found, _) in zip(on_draw, answers, strict=True):
            if not np.array_equal(asked, found):
                raise InputError(f"run {run.id} was asked other items than another run on draw {draw}")
        if len({(run.config.seed, run.config.order, run.data_fingerprint) for run in on_draw}) > 1:
            raise InputError(f"the runs on draw {draw} differ in their seed or in their examples")
        values.append(sum(weight * right for (weight, _), (_, right) in zip(cells, answers, strict=True)))
        draws.append(np.full(len(asked), draw))
        items.append(asked)
    return on_task(np.concatenate(values), np.concatenate(draws), np.concatenate(items))


def _by_draw(records: Iterable[Record]) -> dict[int, Record]:
    """One cell's runs, by draw."""
    records = list(records)
    require_one_backbone(records, "a cell's runs")
    by_draw: dict[int, Record] = {}
    for record in records:
        draw = record.config.data_seed
        if draw in by_draw:
            raise InputError(f"two runs of {_named(record)} on draw {draw}: give one run of a cell for each draw")
        by_draw[draw] = record
    if not by_draw:
        raise InputError("a cell has no runs")
    return by_draw


def _named(record: Record) -> str:
    return cell_name(record.label, record.config.size)


def _answers(record: Record) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """`[answers]` twice, by item: a run's items, those of the rest with odd numbers, and whether each was right."""
    if record.outcome is None and record.rest is None:
        raise InputError(
            f"run {record.id} has no outcome: it diverged before its first evaluation, or was asked nothing"
        )
    return _decoded(record.outcome, record.rest)


# An interval of a share asks the same runs some forty times.
@functools.lru_cache(maxsize=2048)
def _decoded(*sets: Outcome | None) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    found = [(2 * outcome.items + number, outcome.is_right) for number, outcome in enumerate(sets) if outcome]
    items, right = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.argsort(items)
    answers = items[order], right[order]
    for part in answers:
        part.flags.writeable = False
    return answers


@dataclass(frozen=True)
class RandomEffects(Mean):
    """The mean of true effects that differ, from an estimate of each, with Knapp and Hartung's standard error."""

    spread: float
    """The standard deviation of the true effects, τ."""
    given_spread_error: float
    """The standard error of the mean if the true spread were the estimated one."""


def random_effects(effects: Floats, errors: Floats) -> RandomEffects:
    """The mean of effects that are a sample from a population of effects, each known with an error.

    With `v` an effect's squared error, its weight in the mean is `1/(v + τ²)`. The spread τ is Paule and Mandel's
    ("Consensus values and weighting factors", Journal of Research of the National Bureau of Standards 87, 1982). Its
    standard error is Knapp and Hartung's, from the weighted squares of the effects' deviations, with one degree of
    freedom fewer than there are effects ("Improved tests for a random effects meta-regression with a single
    covariate", Statistics in Medicine 22, 2003).

    Args:
        effects: `[effects]`, two or more.
        errors: `[effects]`, the standard error of each, above 0.
    """
    from statsmodels.stats.meta_analysis import combine_effects  # slow to import

    variances = np.square(errors)
    # In units of a typical error, because the search for τ has a fixed tolerance.
    unit = float(np.sqrt(variances.mean()))
    fitted = combine_effects(effects / unit, variances / unit**2, method_re="iterated", use_t=True)
    return RandomEffects(
        mean=float(fitted.mean_effect_re) * unit,
        standard_error=float(np.sqrt(fitted.var_hksj_re * unit**2)),
        degrees=len(effects) - 1,
        spread=float(np.sqrt(fitted.tau2)) * unit,
        given_spread_error=float(fitted.sd_eff_w_re) * unit,
    )


@dataclass(frozen=True)
class OverTasks(Mean):
    """A mean difference over sources of tasks."""

    spread: float
    """The standard deviation of the sources' true differences, τ."""
    by_source: Mapping[str, float]
    """The difference of each source, a mean over its tasks."""
    draw_variance: float
    """The variance of the effect that a draw has on all tasks alike; 0 where the estimate is negative."""


def over_tasks(differences: Mapping[str, OnTask], source_groups: Mapping[str, str | None]) -> OverTasks:
    """The mean difference over a population of tasks like these.

    A source's difference is the mean over its tasks. Sources are random effects (`random_effects`).

    A draw's number is also the seed of the initial weights, which are therefore the same on every task. Their effect
    does not average out over tasks, so the covariance of the draws' differences between sources, divided by the number
    of draws, is added to the mean's variance.

    Args:
        differences: by task, on the same draws.
        source_groups: each task's `source_group`, by task; `None` if it shares its source with no other task.

    Raises:
        InputError: a task's source is not given, there are fewer than three sources, tasks have different draws, or
            a source's differences do not vary at all.
    """
    if missing := sorted(differences.keys() - source_groups.keys()):
        raise InputError(f"the source of {missing[0]!r} is not given: name it, or give None if no other task has it")
    members: dict[str, list[OnTask]] = {}
    for task, on_one in differences.items():
        members.setdefault(source_groups[task] or task, []).append(on_one)
    if len(members) < 3:
        raise InputError(f"{len(members)} sources of tasks: estimating how much they differ takes three or more")
    draws = _draws_of(differences)
    effects = np.array([np.mean([on_one.estimate.mean for on_one in tasks]) for tasks in members.values()])
    errors = [
        np.sqrt(sum(on_one.estimate.standard_error**2 for on_one in tasks)) / len(tasks) for tasks in members.values()
    ]
    if min(errors) == 0:
        raise InputError(f"the answers on {list(members)[int(np.argmin(errors))]!r} do not differ at all")
    by_draw = np.array([np.mean([on_one.by_draw for on_one in tasks], axis=0) for tasks in members.values()])
    sources = random_effects(effects, np.array(errors))
    draw_variance = _draw_variance(by_draw)
    return OverTasks(
        mean=sources.mean,
        standard_error=float(np.sqrt(sources.standard_error**2 + draw_variance / len(draws))),
        degrees=sources.degrees,
        spread=sources.spread,
        by_source=dict(zip(members, effects.tolist(), strict=True)),
        draw_variance=draw_variance,
    )


def over_given_tasks(differences: Mapping[str, OnTask]) -> Mean:
    """The mean difference over these tasks and no others, for other draws and items.

    What a draw does to all tasks alike (`over_tasks`) adds to the variance. The degrees of freedom are Satterthwaite's
    over the tasks.

    Args:
        differences: by task, on the same draws.

    Raises:
        InputError: tasks have different draws.
    """
    draws, count = _draws_of(differences), len(differences)
    estimates = [on_one.estimate for on_one in differences.values()]
    variances = np.array([estimate.standard_error**2 for estimate in estimates]) / count**2
    by_draw = np.array([on_one.by_draw for on_one in differences.values()])
    shared = _draw_variance(by_draw) * (count - 1) / count / len(draws) if count > 1 else 0.0
    spread = float((variances**2 / [estimate.degrees for estimate in estimates]).sum())
    return Mean(
        mean=float(np.mean([estimate.mean for estimate in estimates])),
        standard_error=float(np.sqrt(variances.sum() + shared)),
        degrees=float(variances.sum()) ** 2 / spread if spread else float(min(e.degrees for e in estimates)),
    )


def _draws_of(differences: Mapping[str, OnTask]) -> tuple[int, ...]:
    """The draws that all tasks have."""
    draws = next(iter(differences.values())).draws
    for task, on_one in differences.items():
        if on_one.draws != draws:
            unpaired = sorted(set(on_one.draws) ^ set(draws))
            raise InputError(f"tasks must have the same draws, and {task!r} differs in draw {unpaired[0]}")
    return draws


def _draw_variance(by_draw: Floats) -> float:
    """The variance of what a draw does to all rows of `[tasks, draws]` alike; 0 where the estimate is negative."""
    covariances, count = np.cov(by_draw), len(by_draw)
    return max(float(covariances.sum() - np.trace(covariances)) / (count * (count - 1)), 0.0)


def between(a: Mean, b: Mean) -> Mean:
    """The first mean minus the second, for independent means, with the degrees of freedom of Welch's test."""
    a_variance, b_variance = a.standard_error**2, b.standard_error**2
    variance = a_variance + b_variance
    return Mean(
        mean=a.mean - b.mean,
        standard_error=float(np.sqrt(variance)),
        degrees=variance**2 / (a_variance**2 / a.degrees + b_variance**2 / b.degrees),
    )


def share_interval(remainder: Callable[[float], Mean], level: float = 0.95) -> tuple[float, float]:
    """The confidence interval of the ratio of two means, by Fieller's method: all shares whose remainder may be 0.

    Args:
        remainder: maps a share to the numerator minus that share of the denominator, such as one component's gain
            minus half of the best adapter's.
        level: the level of confidence.

    Returns:
        The ends of the interval. An end is infinite if no share up to -10 or 10 is rejected, for example because the
        denominator may be 0.
    """

    def inside(share: float) -> float:
        mean = remainder(share)
        return abs(mean.mean) / mean.standard_error - float(stats.t.ppf((1 + level) / 2, mean.degrees))

    best = optimize.brentq(lambda share: remainder(share).mean, -10, 10)
    ends = [
        optimize.brentq(inside, best, end) if inside(end) > 0 else math.copysign(math.inf, end) for end in (-10, 10)
    ]
    return float(ends[0]), float(ends[1])


def chosen_settings(records: Iterable[Record]) -> dict[Cell, RunConfig]:
    """The setting of each cell that is best on dev, over all tasks and draws.

    A setting is all of a run's config except its task and seeds. Its score is the accuracy on dev at each run's best
    step, averaged over draws and then over tasks, so that every task has the same weight; a run that diverged before
    its first evaluation scores 0. A setting at which fewer runs diverged comes first, then the higher score; ties go
    to the lower rate, then the lower scale, then the shorter warm-up.

    Args:
        records: runs of cells with an adapter, each at all its settings on the same tasks and draws.

    Returns:
        A config of that setting, by cell. Its task and seeds have no meaning.

    Raises:
        InputError: two runs have the same setting, task and draw, or a setting of a cell lacks some of the cell's
            tasks and draws.
    """
    tried: dict[Cell, dict[str, tuple[RunConfig, dict[tuple[str, int], Record]]]] = {}
    for record in records:
        config = record.config
        setting = replace(config, task="any", seed=0, data_seed=0, order_seed=None)
        _, runs = tried.setdefault((record.label, config.size), {}).setdefault(setting.config_id, (setting, {}))
        if (config.task, config.data_seed) in runs:
            raise InputError(
                f"two runs of {_named(record)} have one setting, task and draw: {config.task}, {config.data_seed}"
            )
        runs[config.task, config.data_seed] = record
    best = {}
    for cell, settings in tried.items():
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
    """The sort key of settings, the best first. It is exact, because two settings may have the same score."""
    by_task: dict[str, list[Fraction]] = {}
    for (task, _), record in runs.items():
        right = Fraction(record.best.dev_correct, record.best.dev_total) if record.best else Fraction(0)
        by_task.setdefault(task, []).append(right)
    score = sum((sum(right, Fraction(0)) / len(right) for right in by_task.values()), Fraction(0)) / len(by_task)
    diverged = sum(record.diverged_at is not None for record in runs.values())
    warmup = setting.warmup_steps or 0
    return diverged, -score, setting.learning_rate or 0.0, setting.scale or 0.0, warmup
