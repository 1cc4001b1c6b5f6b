"""How sure a mean, a difference or a choice between adapters is, over seeds and evaluation items at once.

A cell's runs all answer the same items, so its outcomes are a table of seeds by items, and its mean has two sources of
error: other seeds would have trained other adapters, and other items would have been asked. Both are random effects
that cross. A mean or a difference has a formula, that of an analysis of variance without replication (`estimate`,
`compare`; Searle, Casella and McCulloch, *Variance Components*, 1992, chapter 4). A choice among cells has a bootstrap
of both sources (`resampled_means`, `plateau`; Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1, 2007).
Where runs share their training examples, the errors leave out what other examples would have done.

Why not an unpaired z-test: it takes two cells for independent and adds their variances. They answered the same items
from the same seeds, so `Var(A − B) = Var(A) + Var(B) − 2·Cov(A, B)`: an item that is hard for one is hard for the
other, the covariance is large, and the unpaired test misses what the pairs show (Miller, "Adding Error Bars to Evals",
arXiv 2411.00640, 2024). And a binomial standard error, or a deviation over seeds alone, leaves out one of
the two sources. So `compare` subtracts answer by answer and then estimates the mean of the differences.
"""

import bisect
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from cpadapt.errors import InputError
from cpadapt.records.record import Record, require_one_backbone

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outcomes:
    """What a cell's runs got right."""

    seeds: tuple[tuple[int, int], ...]
    """`[runs]`, each one's seed and data seed, rising."""
    items: tuple[int, ...]
    """`[items]`, row numbers in the evaluation split's source."""
    right: Floats
    """`[runs, items]`, 1 where a run is right and 0 where it is wrong."""

    def on(self, items: Sequence[int]) -> "Outcomes":
        """The same runs on some of their items only, as where others were asked no more.

        Raises:
            InputError: an item is none of theirs.
        """
        place = {item: k for k, item in enumerate(self.items)}
        if missing := [item for item in items if item not in place]:
            raise InputError(f"item {missing[0]} was not asked of these runs")
        return Outcomes(self.seeds, tuple(items), self.right[:, [place[item] for item in items]])


def outcomes(records: Iterable[Record]) -> Outcomes:
    """The outcomes of one cell's runs.

    The runs are of several seeds on one draw of the training and dev examples, or of several draws, one run on each.
    For several draws the seeds' variance of `estimate` is that of a draw and a run on it together.

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
        raise InputError("of several data seeds, runs that share one are not independent: give one run of each")
    ordered = tuple(sorted(by_seed))
    return Outcomes(ordered, *answers([by_seed[seeds] for seeds in ordered]))


def answers(records: Sequence[Record]) -> tuple[tuple[int, ...], Floats]:
    """What runs were asked and got right.

    Args:
        records: of runs on one backbone that were asked the same items.

    Returns:
        The items' row numbers, rising, and `[runs, items]`, 1 where a run is right and 0 where it is wrong.

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
    """A mean, and how sure it is."""

    mean: float
    standard_error: float
    degrees: float
    """Degrees of freedom."""

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The interval in which the true mean lies with about this confidence, by Student's t.

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
    """A mean over seeds and items, and how sure it is.

    The degrees of freedom are Satterthwaite's approximation from estimated variances, so p values and intervals are
    approximate. With three seeds that vary much more than the items do and no true difference, p values below 0.05
    occur up to 1.5 times as often as they should, below 0.01 three times and below 0.003 six times; where seeds hardly
    vary, less often than they should. With ten seeds they are nearly exact.
    """

    seeds: int
    items: int
    seed_variance: float
    """The variance of a seed's mean over infinitely many items, σ²(s); 0 where the estimate is negative."""
    item_variance: float
    """The variance of an item's mean over infinitely many seeds, σ²(i), likewise."""
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
        """The standard error with so many seeds and items, each 1 or more or `math.inf`."""
        seeds_part, items_part = self.seed_variance / seeds, self.item_variance / items
        return float(np.sqrt(seeds_part + items_part + self.rest_variance / (seeds * items)))

    def power(self, effect: float, seeds: int, items: int, alpha: float = 0.05) -> float:
        """The probability that a two-sided test with so many seeds and items finds a true mean of `effect`.

        It takes the estimated variances as true; from three seeds they are a guess.

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
        # The square of Student's t, as its own two tails lose their digits where the effect is large.
        return float(stats.ncf.sf(reach**2, 1, degrees, (effect / error) ** 2))


class MeanSquare(NamedTuple):
    """A line of the table of an analysis of variance."""

    value: float
    df: float
    """Degrees of freedom."""


def _mean_squares(values: Floats, factors: str) -> Mapping[str, MeanSquare]:
    """The table of an analysis of variance without replication.

    Args:
        values: a table with one axis a factor.
        factors: a letter for each axis, such as `"si"`.

    Returns:
        By their letters the mean square of each factor and of each interaction, such as `"s"`, `"i"` and `"si"`; that
        of all factors together is the residual.
    """
    axes = range(values.ndim)
    table = {}
    for count in range(1, values.ndim + 1):
        for term in itertools.combinations(axes, count):
            # The term's effects: means over all other axes, less the effects of each smaller set of its factors.
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

    It is `MS(first) + MS(second) − MS(rest)`; as each of them alone estimates no more than that, by chance too much,
    it is no smaller than any.
    """
    return max(first.value + second.value - rest.value, first.value, second.value, rest.value)


def _satterthwaite(total: float, first: MeanSquare, second: MeanSquare, rest: MeanSquare) -> float:
    """Satterthwaite's degrees of freedom of `first + second − rest`, no fewer than the fewer of the first two.

    Args:
        total: what the sum is taken to be, which may be more (Satterthwaite, "An approximate distribution of estimates
            of variance components", Biometrics Bulletin 2, 1946).
        first: a mean square.
        second: another.
        rest: the one that is subtracted.
    """
    spread = first.value**2 / first.df + second.value**2 / second.df + rest.value**2 / rest.df
    fewest = float(min(first.df, second.df))
    return max(total**2 / spread, fewest) if spread else fewest


def require_two(seeds: int, items: int) -> None:
    """Check that there are two seeds and two items.

    Raises:
        InputError: there are fewer, so that how much they vary cannot be estimated.
    """
    if min(seeds, items) < 2:
        raise InputError(f"{seeds} seeds and {items} items: an error needs two or more of each")


def estimate(values: Floats) -> Estimate:
    """The mean of a table of seeds by items, with its standard error.

    With `s` the seed's effect, `i` the item's and `e` the rest, all random, the mean of S seeds and I items has the
    variance `σ²(s)/S + σ²(i)/I + σ²(e)/(S·I)`. The mean squares (MS) of the two-way table have the expectations

    ======  ====================
    MS      expected value
    ======  ====================
    MS(s)   `σ²(e) + I·σ²(s)`
    MS(i)   `σ²(e) + S·σ²(i)`
    MS(si)  `σ²(e)`
    ======  ====================

    so `(MS(s) + MS(i) − MS(si)) / (S·I)` estimates that variance without bias (Searle, Casella and McCulloch,
    *Variance Components*, 1992, chapter 4). Where MS(s) or MS(i) is below MS(si) its variance is taken as 0, which
    makes the error too large rather than too small.

    Args:
        values: `[seeds, items]`.

    Raises:
        InputError: there are fewer than two seeds or items, or a value is not finite.
    """
    return pooled([values])


def pooled(tables: Sequence[Floats]) -> Estimate:
    """The mean of one table of seeds by items, or of several like ones, with variances averaged over them.

    Three seeds say little about how much seeds vary. Several tables of three say more if their variances are the same:
    then their mean squares may be averaged. The error is that of one table, not of the mean of all.

    Args:
        tables: `[seeds, items]`, each.

    Raises:
        InputError: as `estimate`; or there are none, or they have different numbers of seeds or items.
    """
    sizes = sorted({table.shape for table in tables})
    if len(sizes) != 1:
        raise InputError(f"tables of one number of seeds and items can be pooled, not of {sizes}")
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
    """The mean of answers where some items were asked of every seed and others of a few seeds or of one.

    It is the mean of the seeds' means. Under the model of `estimate`, with `n(s)` the items asked of a seed and
    `n(s, t)` those asked of both of two, its variance is `σ²(means)/S + σ²(i)·c`: the variance of the seeds' means as
    observed, and what these have in common, where `c` is the mean of `n(s, t)/(n(s)·n(t))` over pairs of seeds.
    `σ²(i)` is estimated without bias from the products of two seeds' answers to one item, each less its seed's mean
    (moments as in Gao and Owen, "Efficient moment calculations for variance components in large unbalanced crossed
    random effects models", Electronic Journal of Statistics 11, 2017); a negative estimate counts as 0.

    On a full table it is `estimate`, unless the seeds' means vary less than the rest alone would make them: there
    `estimate` takes the larger error. Here, where many items may be asked of one seed alone, that would happen often.
    Where no two seeds share an item, the items' variance is part of the rest's.

    Args:
        values: `[answers]`.
        seeds: `[answers]`, the seed of each; any numbers.
        items: `[answers]`, the item of each; any numbers. A seed answers an item once.

    Raises:
        InputError: the three are not of one length, there are fewer than two seeds or items, a value is not finite,
            or a seed answered fewer than two items or one twice.
    """
    if not len(values) == len(seeds) == len(items):
        raise InputError(
            f"{len(values)} values, {len(seeds)} seeds and {len(items)} items: each answer has one of each"
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
        raise InputError("each seed has to answer two items or more, and each of them once")
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
    # Of the mean's variance, what is neither the seeds' nor common to them: in a full table the rest's mean square.
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
    """How much one cause moves a run's mean."""

    variance: float
    """The variance of the cause's effect over infinitely many items; negative where so estimated."""
    interval: tuple[float, float]
    """The interval in which that variance lies with about 95 % confidence; a negative end is 0. It is 0 to 0 where the
    F statistic is below its 2.5 % quantile, as in one case of forty when there is no effect."""
    p_value: float
    """One-sided, of the hypothesis that there is no effect."""


@dataclass(frozen=True)
class Crossed:
    """The variance of one run's mean over its items, in parts that add up."""

    first: Effect
    second: Effect
    together: Effect
    """The interaction of the two causes, and whatever else changes when a run is repeated."""
    chance: float
    """The variance from effects by item that differ between runs, for a mean over as many items."""
    first_by_item: Effect
    """The part of chance that is the interaction of the first cause with the items."""
    second_by_item: Effect
    of_items: float
    """The variance from effects by item that are the same for all runs, for a mean over as many items."""


def crossed_effects(values: Floats) -> Crossed:
    """The effects of two crossed causes on runs, apart from those of the items.

    All effects are random: those of the causes `a` (A levels) and `b` (B levels), of the items `i` (I of them), and of
    their interactions. The mean squares (MS) of the three-way table without replication have the expectations

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

    (Searle, Casella and McCulloch, *Variance Components*, 1992, chapter 4), which give each variance without bias. An
    interaction is tested against MS(abi). No mean square has the expectation that MS(a) has without an effect of `a`,
    so it is tested against `MS(ab) + MS(ai) − MS(abi)`, or the larger of the first two if that is more, with
    Satterthwaite's degrees of freedom, no fewer than the fewer of the two. So tests and intervals of a cause are
    approximate and err towards no effect, and an interval may lie below its estimate.

    Args:
        values: `[a, b, items]`, one run for each pair of the causes' levels.

    Raises:
        InputError: there are fewer than two of one, or a value is not finite.
    """
    if min(values.shape) < 2:
        raise InputError(f"a table of {values.shape}: causes are told apart by two or more of each, and of items")
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
    """The effect of seeds on runs, apart from that of the items, by the two-way table of `estimate`.

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
        null: what it estimates if there is no effect.
        count: how much more the mean square is expected to be for each unit of the effect's variance.
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
        pilot: the variances, and the number of items that are asked.
        effect: in the unit of the values.
        chance: the power that is enough.
        most: where the search ends.

    Returns:
        `None` if `most` seeds are not enough.
    """
    return fewest(lambda seeds: pilot.power(effect, seeds, pilot.items), chance, most)


def items_needed(pilot: Estimate, effect: float, seeds: int, chance: float = 0.8, most: int = 100_000) -> int | None:
    """The fewest items, two or more, on which so many seeds find a true mean of `effect` with this probability.

    Args:
        pilot: the variances.
        effect: in the unit of the values.
        seeds: how many.
        chance: the power that is enough.
        most: where the search ends.

    Returns:
        `None` if `most` items are not enough.
    """
    return fewest(lambda items: pilot.power(effect, seeds, items), chance, most)


def fewest(power: Callable[[int], float], chance: float, most: int) -> int | None:
    """The least number, two or more, whose power is `chance` or more; `None` if there is none up to `most`.

    Args:
        power: by the number, and growing with it.
        chance: the power that is enough.
        most: where the search ends.
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
    from statsmodels.stats.multitest import multipletests  # slow to import

    return [float(p) for p in multipletests(p_values, method="holm")[1]] if len(p_values) else []


def agreement(a: Outcomes, b: Outcomes) -> float:
    """The share of items on which two runs of different seeds, one of each cell, are both right or both wrong.

    It is the mean over all such pairs of runs, so it compares to a cell's agreement with itself, `agreement(a, a)`.

    Raises:
        InputError: as `compare`, or there are fewer than two runs.
    """
    require_pairs([a, b])
    runs = len(a.seeds)
    if runs < 2:
        raise InputError("one run has none of another seed to agree with")
    pairs = itertools.permutations(range(runs), 2)
    return float(np.mean([(a.right[i] == b.right[j]).mean() for i, j in pairs]))


def resampled_means(cells: Sequence[Outcomes], draws: int, generator: np.random.Generator) -> Floats:
    """Bootstrap means of cells: seeds and items are both drawn with replacement.

    In a draw all cells have the same seeds and items, so that differences between cells are paired. One fewer of each
    is drawn than there are. Then the variance of a mean is right except that it holds `σ²(e)/(S·I)` three times; with
    as many as there are it would be a third too small at three seeds (Owen, "The pigeonhole bootstrap", Annals of
    Applied Statistics 1, 2007).

    Args:
        cells: of the same seeds and items.
        draws: how many.
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
        margin: in the unit of the means.

    Returns:
        `[...]`, its place among the cells. Over resampled means the places show how unstable the choice is; their
        shares are not probabilities that a place is the true one.

    Raises:
        InputError: the margin is below 0, or a mean is not finite.
    """
    if not margin >= 0 or not np.isfinite(means).all():
        raise InputError(f"a plateau needs finite means and a margin of 0 or more, not {margin}")
    near: NDArray[np.int64] = (means >= means.max(-1, keepdims=True) - margin).argmax(-1)
    return near


@dataclass(frozen=True)
class Choice:
    """The mean of the best of several cells, with and without the optimism of choosing by the reported numbers."""

    chosen: float
    """The mean of the cell that is best on all seeds and items, on these."""
    held_out: float
    """The mean of the cell that is best on half of the seeds and items, on the other half."""

    @property
    def optimism(self) -> float:
        """How much `chosen` is too high: on average at most this much, as half of the data also chooses worse."""
        return self.chosen - self.held_out


def best_of(cells: Sequence[Outcomes], splits: int, generator: np.random.Generator) -> Choice:
    """How good the best of these cells is.

    Seeds and items are both split into halves at random, many times; one half of each chooses and the other reports.
    Half of the data chooses worse than all of it would, so on average `held_out` is too low, if anything; it is as
    uncertain as any mean of so few seeds and items.

    Args:
        cells: those under a budget, say; of the same seeds and items.
        splits: how many.
        generator: for the splits.

    Raises:
        InputError: as `require_pairs`; or there are fewer than two seeds or items, or `splits` is below 1.
    """
    require_pairs(cells)
    right = np.stack([cell.right for cell in cells])
    _, seeds, items = right.shape
    require_two(seeds, items)
    if splits < 1:
        raise InputError(f"splits = {splits}: halves have to be taken once or more")
    reported = []
    for _ in range(splits):
        some, others = np.array_split(generator.permutation(seeds), 2)
        asked, unasked = np.array_split(generator.permutation(items), 2)
        chosen = right[:, some][:, :, asked].mean((1, 2)).argmax()
        reported.append(right[chosen][others][:, unasked].mean())
    return Choice(float(right.mean((1, 2)).max()), float(np.mean(reported)))
