"""The uncertainty of a mean, a difference or a choice between adapters, over seeds and evaluation items at once.

A cell's runs all answer the same items, so its outcomes are a table of seeds by items. Its mean has two sources of
error: other seeds would have trained other adapters, and other items could have been asked. Both are random effects,
and they are crossed. The error of a mean or a difference comes from an analysis of variance without replication
(`estimate`, `compare`; Searle, Casella and McCulloch, *Variance Components*, 1992, chapter 4). The uncertainty of a
choice among cells comes from a bootstrap of both sources (`resampled_means`, `plateau`; Owen, "The pigeonhole
bootstrap", Annals of Applied Statistics 1, 2007). If runs share their training examples, the errors do not include the
effect of other examples.

Why not an unpaired z-test? It treats two cells as independent and adds their variances. But they answered the same
items from the same seeds, so `Var(A − B) = Var(A) + Var(B) − 2·Cov(A, B)`. An item that is hard for one cell is hard
for the other, so the covariance is large, and the unpaired test misses what the pairs show (Miller, "Adding Error Bars
to Evals", arXiv 2411.00640, 2024). A binomial standard error, or a standard deviation over seeds alone, leaves out one
of the two sources. So `compare` subtracts answer by answer and then estimates the mean of the differences.
"""

import bisect
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq

from cpadapt.errors import InputError
from cpadapt.records.record import Record, require_one_backbone

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outcomes:
    """The answers of a cell's runs, right or wrong."""

    seeds: tuple[tuple[int, int], ...]
    """`[runs]`, the seed and data seed of each run, ascending."""
    items: tuple[int, ...]
    """`[items]`, row numbers in the evaluation split's source."""
    right: Floats
    """`[runs, items]`, 1 for a right answer and 0 for a wrong one."""

    def on(self, items: Sequence[int]) -> "Outcomes":
        """The same runs on some of their items only, for comparison with runs that were asked fewer.

        Raises:
            InputError: the runs were not asked an item.
        """
        place = {item: k for k, item in enumerate(self.items)}
        if missing := [item for item in items if item not in place]:
            raise InputError(f"these runs were not asked item {missing[0]}")
        return Outcomes(self.seeds, tuple(items), self.right[:, [place[item] for item in items]])


def outcomes(records: Iterable[Record]) -> Outcomes:
    """The outcomes of one cell's runs.

    The runs have several seeds on one draw of the training and dev examples, or several draws with one run on each.
    For several draws, the seed variance of `estimate` is that of a draw and a run on it together.

    Raises:
        InputError: as `answers`; or two runs have the same seed and data seed, or several draws have several runs
            each, which are not independent.
    """
    by_seed: dict[tuple[int, int], Record] = {}
    for record in records:
        seeds = record.config.seed, record.config.data_seed
        if seeds in by_seed:
            raise InputError(f"two runs have seed {seeds[0]} and data seed {seeds[1]}: give the runs of one cell")
        by_seed[seeds] = record
    if 1 < len({data_seed for _, data_seed in by_seed}) < len(by_seed):
        raise InputError("runs that share a data seed are not independent: give one run of each data seed")
    ordered = tuple(sorted(by_seed))
    return Outcomes(ordered, *answers([by_seed[seeds] for seeds in ordered]))


def answers(records: Sequence[Record]) -> tuple[tuple[int, ...], Floats]:
    """The items that runs were asked, and their answers.

    Args:
        records: runs on one backbone that were asked the same items.

    Returns:
        The items' row numbers, ascending, and `[runs, items]`, 1 for a right answer and 0 for a wrong one.

    Raises:
        InputError: there are none, a run has no outcome (it diverged before its first evaluation, or was asked
            nothing), they were not asked the same items, or they were measured on different weights.
    """
    require_one_backbone(records, "the runs")
    by_run: list[dict[int, bool]] = []
    for record in records:
        if record.outcome is None:
            reason = "it was asked nothing on eval" if record.best_step else "it diverged before its first evaluation"
            raise InputError(f"run {record.id} has no outcome: {reason}")
        by_run.append(record.outcome.right_by_row)
    if not by_run:
        raise InputError("no runs were given")
    if any(right.keys() != by_run[0].keys() for right in by_run):
        raise InputError("the runs were not asked the same items: their caps or their data differ")
    items = tuple(sorted(by_run[0]))
    return items, np.array([[right[item] for item in items] for right in by_run], dtype=float)


@dataclass(frozen=True)
class Mean:
    """A mean and its uncertainty."""

    mean: float
    standard_error: float
    degrees: float
    """Degrees of freedom."""

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The confidence interval of the true mean, by Student's t.

        A standard error of 0 means that the values show no variation, not that there is none.
        """
        reach = float(stats.t.ppf((1 + level) / 2, self.degrees)) * self.standard_error
        return self.mean - reach, self.mean + reach

    def p_value(self, null: float = 0.0) -> float:
        """The two-sided p value of the hypothesis that the true mean is `null`."""
        if self.standard_error == 0:
            return float(self.mean == null)
        return float(2 * stats.t.sf(abs(self.mean - null) / self.standard_error, self.degrees))

    def equivalence_p_value(self, margin: float) -> float:
        """The p value of the hypothesis that the true mean is `margin` or more away from 0, by two one-sided tests.

        Below 0.05 the 90 % interval lies within the margin. That a difference is not significant does not show
        equivalence.

        Raises:
            InputError: the margin is not above 0.
        """
        if not margin > 0:
            raise InputError(f"margin = {margin}: two means are equivalent within a margin above 0")
        if self.standard_error == 0:
            return float(abs(self.mean) >= margin)
        return float(stats.t.sf((margin - abs(self.mean)) / self.standard_error, self.degrees))


@dataclass(frozen=True)
class Estimate(Mean):
    """A mean over seeds and items, and its uncertainty.

    The degrees of freedom are Satterthwaite's approximation from estimated variances, so p values and intervals are
    approximate. With three seeds that vary much more than the items and no true difference, p values below 0.05 occur
    up to 1.5 times as often as they should, below 0.01 three times and below 0.003 six times. If seeds hardly vary,
    they occur less often than they should. With ten seeds they are nearly exact.
    """

    seeds: int
    items: int
    seed_variance: float
    """The variance of a seed's mean over infinitely many items, σ²(s); 0 where the estimate is negative."""
    item_variance: float
    """The variance of an item's mean over infinitely many seeds, σ²(i); 0 where the estimate is negative."""
    rest_variance: float
    """The variance of one answer around its seed's and its item's effects, σ²(e)."""

    def equivalence_p_value(self, margin: float) -> float:
        """As `Mean.equivalence_p_value`.

        Raises:
            InputError: the margin is not above 0.
        """
        if margin > 0 and self.standard_error == 0 and self.mean == 0:
            # All answers agree. If the true mean were at the margin, each item would show a difference with at least
            # that probability.
            return float((1 - min(margin, 1)) ** self.items)
        return super().equivalence_p_value(margin)

    def error_with(self, seeds: float, items: float) -> float:
        """The standard error with these numbers of seeds and items, each 1 or more or `math.inf`."""
        seeds_part, items_part = self.seed_variance / seeds, self.item_variance / items
        return float(np.sqrt(seeds_part + items_part + self.rest_variance / (seeds * items)))

    def power(self, effect: float, seeds: int, items: int, alpha: float = 0.05) -> float:
        """The probability that a two-sided test with these numbers of seeds and items finds a true mean of `effect`.

        It treats the estimated variances as true; from three seeds they are a rough guess.

        Args:
            effect: the true mean, in the unit of the values.
            seeds: two or more.
            items: two or more.
            alpha: the level of the test.

        Raises:
            InputError: there are fewer than two seeds or items.
        """
        require_two(seeds, items)
        error, rest = self.error_with(seeds, items), self.rest_variance
        if error == 0:
            return float(effect != 0)
        squares = (
            MeanSquare(items * self.seed_variance + rest, seeds - 1),
            MeanSquare(seeds * self.item_variance + rest, items - 1),
            MeanSquare(rest, (seeds - 1) * (items - 1)),
        )
        degrees = _satterthwaite(_mean_variance(*squares), *squares)
        reach = stats.t.ppf(1 - alpha / 2, degrees)
        # F, the square of Student's t, because the two tails of t lose their digits if the effect is large.
        return float(stats.ncf.sf(reach**2, 1, degrees, (effect / error) ** 2))


class MeanSquare(NamedTuple):
    """A line of an analysis-of-variance table."""

    value: float
    df: float
    """Degrees of freedom."""


def _mean_squares(values: Floats, factors: str) -> Mapping[str, MeanSquare]:
    """The table of an analysis of variance without replication.

    Args:
        values: a table with one axis for each factor.
        factors: a letter for each axis, such as `"si"`.

    Returns:
        The mean square of each factor and each interaction, by their letters, such as `"s"`, `"i"` and `"si"`. The
        interaction of all factors is the residual.
    """
    axes = range(values.ndim)
    table = {}
    for count in range(1, values.ndim + 1):
        for term in itertools.combinations(axes, count):
            # The term's effects: means over all other axes, minus the effects of each smaller set of its factors.
            effects = values
            for axis in axes:
                mean = effects.mean(axis, keepdims=True)
                effects = effects - mean if axis in term else mean
            df = math.prod(values.shape[axis] - 1 for axis in term)
            square = float((effects**2).sum()) * values.size / effects.size / df
            table["".join(factors[axis] for axis in term)] = MeanSquare(square, df)
    return table


def _mean_variance(first: MeanSquare, second: MeanSquare, rest: MeanSquare) -> float:
    """The variance of a table's mean, times the number of its values, from the mean squares of its two factors.

    It is `MS(first) + MS(second) − MS(rest)`, but not less than any of the three, since the expectation of each is at
    most that sum.
    """
    return max(first.value + second.value - rest.value, first.value, second.value, rest.value)


def _satterthwaite(total: float, first: MeanSquare, second: MeanSquare, rest: MeanSquare) -> float:
    """Satterthwaite's degrees of freedom of `first + second − rest`, no fewer than the fewer of the first two.

    Args:
        total: the value used for the sum, which may be larger (Satterthwaite, "An approximate distribution of
            estimates of variance components", Biometrics Bulletin 2, 1946).
        first: a mean square.
        second: another mean square.
        rest: the mean square that is subtracted.
    """
    spread = first.value**2 / first.df + second.value**2 / second.df + rest.value**2 / rest.df
    fewest = float(min(first.df, second.df))
    return max(total**2 / spread, fewest) if spread else fewest


def require_two(seeds: int, items: int) -> None:
    """Check that there are two seeds and two items.

    Raises:
        InputError: there are fewer, so their variance cannot be estimated.
    """
    if min(seeds, items) < 2:
        raise InputError(f"{seeds} seeds and {items} items: a standard error needs two or more of each")


def estimate(values: Floats) -> Estimate:
    """The mean of a table of seeds by items, with its standard error.

    With `s` the seed's effect, `i` the item's and `e` the rest, all random, the mean of S seeds and I items has the
    variance `σ²(s)/S + σ²(i)/I + σ²(e)/(S·I)`. The mean squares (MS) of the two-way table have these expectations:

    ======  ====================
    MS      expected value
    ======  ====================
    MS(s)   `σ²(e) + I·σ²(s)`
    MS(i)   `σ²(e) + S·σ²(i)`
    MS(si)  `σ²(e)`
    ======  ====================

    So `(MS(s) + MS(i) − MS(si)) / (S·I)` estimates that variance without bias (Searle, Casella and McCulloch,
    *Variance Components*, 1992, chapter 4). If MS(s) or MS(i) is below MS(si), its variance counts as 0, which
    makes the error too large rather than too small.

    Args:
        values: `[seeds, items]`.

    Raises:
        InputError: there are fewer than two seeds or items, or a value is not finite.
    """
    return pooled([values])


def pooled(tables: Sequence[Floats]) -> Estimate:
    """The mean of tables of seeds by items, with variances averaged over the tables.

    Three seeds say little about how much seeds vary. Several tables with three seeds each say more if their variances
    are the same, because then their mean squares may be averaged. The error is that of one table, not of the mean of
    all tables.

    Args:
        tables: one or more of `[seeds, items]`.

    Raises:
        InputError: as `estimate`; or there are none, or they have different numbers of seeds or items.
    """
    sizes = sorted({table.shape for table in tables})
    if len(sizes) != 1:
        raise InputError(f"only tables of the same numbers of seeds and items can be pooled, not of {sizes}")
    ((seeds, items),) = sizes
    require_two(seeds, items)
    if not np.isfinite(tables).all():
        raise InputError("a value is not finite")
    mean = float(np.mean(tables))
    by_table = [_mean_squares(table, "si") for table in tables]
    of_seeds, of_items, rest = (
        MeanSquare(float(np.mean([squares[term].value for squares in by_table])), by_table[0][term].df)
        for term in ("s", "i", "si")
    )
    variance = _mean_variance(of_seeds, of_items, rest)
    return Estimate(
        mean=mean,
        seeds=seeds,
        items=items,
        seed_variance=max((of_seeds.value - rest.value) / items, 0.0),
        item_variance=max((of_items.value - rest.value) / seeds, 0.0),
        rest_variance=rest.value,
        standard_error=float(np.sqrt(variance / (seeds * items))),
        degrees=_satterthwaite(variance, of_seeds, of_items, rest),
    )


def partly_crossed(values: Floats, seeds: NDArray[np.int64], items: NDArray[np.int64]) -> Estimate:
    """The mean of answers if some items were asked of every seed and others of a few seeds or one.

    It is the mean of the seeds' means. Under the model of `estimate`, with `n(s)` the items asked of a seed and
    `n(s, t)` those asked of both seeds of a pair, its variance is `σ²(means)/S + σ²(i)·c`. The first term is the
    observed variance of the seeds' means, and the second is what these have in common, where `c` is the mean of
    `n(s, t)/(n(s)·n(t))` over pairs of seeds.
    `σ²(i)` is estimated without bias from the products of two seeds' answers to one item, each less its seed's mean
    (moments as in Gao and Owen, "Efficient moment calculations for variance components in large unbalanced crossed
    random effects models", Electronic Journal of Statistics 11, 2017); a negative estimate counts as 0.

    On a full table the result equals `estimate`, unless the seeds' means vary less than the rest alone would make
    them. Then `estimate` takes the larger error; here, where many items may be asked of a single seed, that would
    happen too often. If no two seeds share an item, the items' variance is part of the rest's.

    Args:
        values: `[answers]`.
        seeds: `[answers]`, the seed of each answer; any numbers.
        items: `[answers]`, the item of each answer; any numbers. A seed answers an item once.

    Raises:
        InputError: the three differ in length, there are fewer than two seeds or items, a value is not finite,
            or a seed answered fewer than two items or one twice.
    """
    if not len(values) == len(seeds) == len(items):
        raise InputError(
            f"{len(values)} values, {len(seeds)} seeds and {len(items)} items: each answer needs one of each"
        )
    if not np.isfinite(values).all():
        raise InputError("a value is not finite")
    seeds, seed_names = pd.factorize(seeds)
    items, item_names = pd.factorize(items)
    seed_count, item_count = len(seed_names), len(item_names)
    require_two(seed_count, item_count)
    asked = np.zeros((seed_count, item_count), np.float32)
    asked[seeds, items] = 1
    per_seed = np.bincount(seeds)
    if np.count_nonzero(asked) < len(values) or per_seed.min() < 2:
        raise InputError("each seed must answer two or more items, each of them once")
    means = np.bincount(seeds, values) / per_seed
    deviations = values - means[seeds]
    each = 1 / per_seed
    shared = (asked @ asked.T).astype(float)
    np.fill_diagonal(shared, 0)
    overlap = shared * np.outer(each, each)
    products = float((np.bincount(items, deviations) ** 2).sum() - (deviations**2).sum())
    expected = float((shared * (1 - each - each[:, None] + overlap)).sum())
    item_variance = products / expected if expected else 0.0
    rest_variance = float((deviations**2).sum()) / (len(values) - seed_count) - item_variance
    mean_overlap = float(overlap.sum()) / (seed_count * (seed_count - 1))
    common = max(item_variance, 0.0) * mean_overlap
    of_seeds = float(means.var(ddof=1)) / seed_count
    # The part of the mean's variance that is neither the seeds' nor the items'; in a full table the rest's mean
    # square.
    alone = (float(each.mean()) * (item_variance + rest_variance) - mean_overlap * item_variance) / seed_count
    spread = of_seeds**2 / (seed_count - 1)
    if common:
        rest_df = max(len(values) - seed_count - item_count + 1, 1)
        spread += (alone + common) ** 2 / (item_count - 1) + alone**2 / rest_df
    fewest_df = float(min(seed_count, item_count) - 1)
    return Estimate(
        mean=float(means.mean()),
        seeds=seed_count,
        items=item_count,
        seed_variance=max(of_seeds - alone, 0.0) * seed_count,
        item_variance=max(item_variance, 0.0),
        rest_variance=rest_variance,
        standard_error=float(np.sqrt(of_seeds + common)),
        degrees=max((of_seeds + common) ** 2 / spread, fewest_df) if spread else fewest_df,
    )


@dataclass(frozen=True)
class Effect:
    """The effect of one cause on a run's mean."""

    variance: float
    """The variance of the cause's effect over infinitely many items. The estimate may be negative."""
    interval: tuple[float, float]
    """The 95 % confidence interval of that variance; a negative end counts as 0. It is 0 to 0 if the F statistic is
    below its 2.5 % quantile, which happens in 2.5 % of cases without an effect."""
    p_value: float
    """The one-sided p value of the hypothesis that there is no effect."""


@dataclass(frozen=True)
class Crossed:
    """The variance of one run's mean over its items, in parts that add up."""

    first: Effect
    second: Effect
    together: Effect
    """The interaction of the two causes, and everything else that changes when a run is repeated."""
    chance: float
    """The variance from effects by item that differ between runs, for a mean over the same number of items."""
    first_by_item: Effect
    """The part of `chance` that is the interaction of the first cause with the items."""
    second_by_item: Effect
    of_items: float
    """The variance from effects by item that all runs share, for a mean over the same number of items."""


def crossed_effects(values: Floats) -> Crossed:
    """The effects of two crossed causes on runs, separated from those of the items.

    All effects are random: those of the causes `a` (A levels) and `b` (B levels), of the items `i` (I of them), and of
    their interactions. The mean squares (MS) of the three-way table without replication have these expectations:

    =======  ===================================================
    MS       expected value
    =======  ===================================================
    MS(a)    `σ²(abi) + I·σ²(ab) + B·σ²(ai) + B·I·σ²(a)`
    MS(b)    `σ²(abi) + I·σ²(ab) + A·σ²(bi) + A·I·σ²(b)`
    MS(i)    `σ²(abi) + B·σ²(ai) + A·σ²(bi) + A·B·σ²(i)`
    MS(ab)   `σ²(abi) + I·σ²(ab)`
    MS(ai)   `σ²(abi) + B·σ²(ai)`
    MS(bi)   `σ²(abi) + A·σ²(bi)`
    MS(abi)  `σ²(abi)`
    =======  ===================================================

    They give each variance without bias (Searle, Casella and McCulloch, *Variance Components*, 1992, chapter 4). An
    interaction is tested against MS(abi). No mean square has the expectation that MS(a) has without an effect of `a`,
    so MS(a) is tested against `MS(ab) + MS(ai) − MS(abi)`, or the larger of the first two if that is more, with
    Satterthwaite's degrees of freedom, but not fewer than the smaller number of the two. So tests and intervals of a
    cause are approximate and err towards no effect, and an interval may lie below its estimate.

    Args:
        values: `[a, b, items]`, one run for each pair of the causes' levels.

    Raises:
        InputError: an axis has fewer than two entries, or a value is not finite.
    """
    if min(values.shape) < 2:
        raise InputError(f"a table of shape {values.shape}: separating two causes needs three axes of two or more")
    if not np.isfinite(values).all():
        raise InputError("a value is not finite")
    a, b, items = values.shape
    table = _mean_squares(values, "abi")
    both, rest = table["ab"], table["abi"]

    def cause(name: str, per_level: int) -> Effect:
        square, by_item = table[name], table[f"{name}i"]
        null = max(both.value + by_item.value - rest.value, both.value, by_item.value)
        effect = _effect(square, MeanSquare(null, _satterthwaite(null, both, by_item, rest)), per_level)
        return replace(effect, variance=(square.value - both.value - by_item.value + rest.value) / per_level)

    return Crossed(
        first=cause("a", b * items),
        second=cause("b", a * items),
        together=_effect(both, rest, items),
        chance=((table["ai"].value - rest.value) / b + (table["bi"].value - rest.value) / a + rest.value) / items,
        first_by_item=_effect(table["ai"], rest, b * items),
        second_by_item=_effect(table["bi"], rest, a * items),
        of_items=(table["i"].value - table["ai"].value - table["bi"].value + rest.value) / (a * b) / items,
    )


def seed_effect(values: Floats) -> Effect:
    """The effect of seeds on runs, separated from that of the items, by the two-way table of `estimate`.

    Args:
        values: `[seeds, items]`.

    Raises:
        InputError: there are fewer than two seeds or items.
    """
    seeds, items = values.shape
    require_two(seeds, items)
    table = _mean_squares(values, "si")
    return _effect(table["s"], table["si"], items)


def _effect(square: MeanSquare, null: MeanSquare, count: int) -> Effect:
    """An effect by the F test of its mean square.

    Args:
        square: the mean square.
        null: the mean square that has the same expectation without the effect.
        count: the factor of the effect's variance in the expectation of the mean square.
    """
    ratio = stats.f(square.df, null.df)
    low, high = (max(square.value / float(ratio.ppf(q)) - null.value, 0.0) / count for q in (0.975, 0.025))
    return Effect(
        variance=(square.value - null.value) / count,
        interval=(low, high),
        p_value=float(ratio.sf(square.value / null.value)) if null.value else float(square.value == 0),
    )


def seeds_needed(pilot: Estimate, effect: float, chance: float = 0.8, most: int = 1000) -> int | None:
    """The fewest seeds, two or more, with which a test finds a true mean of `effect` with this probability.

    Args:
        pilot: gives the variances and the number of items.
        effect: the true mean, in the unit of the values.
        chance: the power that is enough.
        most: the largest number of seeds to try.

    Returns:
        `None` if `most` seeds are not enough.
    """
    return fewest(lambda seeds: pilot.power(effect, seeds, pilot.items), chance, most)


def items_needed(pilot: Estimate, effect: float, seeds: int, chance: float = 0.8, most: int = 100_000) -> int | None:
    """The fewest items, two or more, on which these seeds find a true mean of `effect` with this probability.

    Args:
        pilot: gives the variances.
        effect: the true mean, in the unit of the values.
        seeds: the number of seeds.
        chance: the power that is enough.
        most: the largest number of items to try.

    Returns:
        `None` if `most` items are not enough.
    """
    return fewest(lambda items: pilot.power(effect, seeds, items), chance, most)


def smallest_effect(pilot: Estimate, seeds: int, chance: float = 0.8) -> float:
    """The smallest true mean that a test with these seeds finds with this probability, on the pilot's items.

    Args:
        pilot: gives the variances and the number of items.
        seeds: two or more.
        chance: the power that is enough, above the test's level of 0.05.

    Raises:
        InputError: as `Estimate.power`.
    """
    error = pilot.error_with(seeds, pilot.items)
    if error == 0:
        return 0.0
    most = error
    while pilot.power(most, seeds, pilot.items) < chance:
        most *= 2
    return float(brentq(lambda effect: pilot.power(effect, seeds, pilot.items) - chance, 0.0, most))


def fewest(power: Callable[[int], float], chance: float, most: int) -> int | None:
    """The smallest number, two or more, whose power is `chance` or more; `None` if there is none up to `most`.

    Args:
        power: maps a number to its power, and grows with the number.
        chance: the power that is enough.
        most: the largest number to try.
    """
    number = bisect.bisect_left(range(2, most + 1), chance, key=power) + 2
    return number if number <= most else None


def compare(a: Outcomes, b: Outcomes) -> Estimate:
    """The accuracy of `a` minus that of `b`, in pairs of one seed and one item.

    Raises:
        InputError: as `require_pairs` and `estimate`.
    """
    require_pairs([a, b])
    return estimate(a.right - b.right)


def require_pairs(cells: Sequence[Outcomes]) -> None:
    """Check that cells can be compared in pairs of one seed and one item.

    Raises:
        InputError: two of them do not have the same seeds, or were not asked the same items.
    """
    for cell in cells[1:]:
        if cell.seeds != cells[0].seeds:
            unpaired = sorted(set(cell.seeds) ^ set(cells[0].seeds))
            raise InputError(f"runs are compared seed by seed, and only one has (seed, data seed) = {unpaired[0]}")
        if cell.items != cells[0].items:
            raise InputError("runs are compared item by item, and they were not asked the same items")


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction of the p values of one family of comparisons, in their order.

    Below 0.05, say, each true null hypothesis among them is rejected with a probability of 5 % at most over the whole
    family (Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6,
    1979).
    """
    return list(_holm(tuple(map(float, p_values)))) if len(p_values) else []


# Kept, because statsmodels collects all garbage at every call, which takes long where many records are in memory.
@functools.cache
def _holm(p_values: tuple[float, ...]) -> tuple[float, ...]:
    from statsmodels.stats.multitest import multipletests  # slow to import

    return tuple(float(p) for p in multipletests(p_values, method="holm")[1])


def agreement(a: Outcomes, b: Outcomes) -> float:
    """The share of items on which two runs of different seeds, one of each cell, are both right or both wrong.

    It is the mean over all such pairs of runs, so it can be compared to a cell's agreement with itself,
    `agreement(a, a)`.

    Raises:
        InputError: as `compare`, or there are fewer than two runs.
    """
    require_pairs([a, b])
    runs = len(a.seeds)
    if runs < 2:
        raise InputError("agreement needs runs of two or more seeds")
    pairs = itertools.permutations(range(runs), 2)
    return float(np.mean([(a.right[i] == b.right[j]).mean() for i, j in pairs]))


def resampled_means(cells: Sequence[Outcomes], draws: int, generator: np.random.Generator) -> Floats:
    """Bootstrap means of cells: seeds and items are both drawn with replacement.

    In a draw all cells have the same seeds and items, so that differences between cells are paired. Of S seeds and I
    items, S − 1 and I − 1 are drawn. Then the variance of a mean is right, except that it contains `σ²(e)/(S·I)` three
    times. With S and I it would be a third too small at three seeds (Owen, "The pigeonhole bootstrap", Annals of
    Applied Statistics 1, 2007).

    Args:
        cells: the cells, with the same seeds and items.
        draws: the number of draws.
        generator: for the draws.

    Returns:
        `[draws, cells]`.

    Raises:
        InputError: as `require_pairs`, or there are fewer than two seeds or items.
    """
    require_pairs(cells)
    require_two(*cells[0].right.shape)
    seed_weights, item_weights = (
        generator.multinomial(count - 1, np.full(count, 1 / count), draws) / (count - 1)
        for count in cells[0].right.shape
    )
    return np.stack([((seed_weights @ cell.right) * item_weights).sum(1) for cell in cells], axis=1)


def plateau(means: Floats, margin: float) -> NDArray[np.int64]:
    """The first cell that is at most a margin below the best.

    Args:
        means: `[..., cells]`, in the order of their budgets.
        margin: 0 or more, in the unit of the means.

    Returns:
        `[...]`, the index of that cell. Over resampled means the indices show how unstable the choice is; their shares
        are not probabilities that an index is the true one.

    Raises:
        InputError: the margin is below 0, or a mean is not finite.
    """
    if not margin >= 0 or not np.isfinite(means).all():
        raise InputError(f"a plateau needs finite means and a margin of 0 or more, not {margin}")
    near: NDArray[np.int64] = (means >= means.max(-1, keepdims=True) - margin).argmax(-1)
    return near


@dataclass(frozen=True)
class Choice:
    """The mean of the best of several cells, with and without the optimism of choosing by the reported means."""

    chosen: float
    """The mean of the best cell, chosen and reported on all seeds and items."""
    held_out: float
    """The mean of the best cell, chosen on half of the seeds and items and reported on the other half."""

    @property
    def optimism(self) -> float:
        """How much `chosen` is too high, at most and on average, because half of the data also chooses worse."""
        return self.chosen - self.held_out


def best_of(cells: Sequence[Outcomes], splits: int, generator: np.random.Generator) -> Choice:
    """The accuracy of the best of these cells.

    Seeds and items are both split into halves at random, many times. One half of each chooses and the other reports.
    Half of the data chooses worse than all of it would, so `held_out` is too low on average, if anything. It is as
    uncertain as any mean of so few seeds and items.

    Args:
        cells: the cells to choose from, such as those under a budget, with the same seeds and items.
        splits: the number of random splits.
        generator: for the splits.

    Raises:
        InputError: as `require_pairs`; or there are fewer than two seeds or items, or `splits` is below 1.
    """
    require_pairs(cells)
    right = np.stack([cell.right for cell in cells])
    _, seeds, items = right.shape
    require_two(seeds, items)
    if splits < 1:
        raise InputError(f"splits = {splits}: must be 1 or more")
    reported = []
    for _ in range(splits):
        some, others = np.array_split(generator.permutation(seeds), 2)
        asked, unasked = np.array_split(generator.permutation(items), 2)
        chosen = right[:, some][:, :, asked].mean((1, 2)).argmax()
        reported.append(right[chosen][others][:, unasked].mean())
    return Choice(float(right.mean((1, 2)).max()), float(np.mean(reported)))
