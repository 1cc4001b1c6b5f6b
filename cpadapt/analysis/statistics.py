"""How sure a mean, a difference or a choice between adapters is, over seeds and evaluation items at once.

A cell's runs all answer the same items, so its outcomes are a table of seeds by items, and its mean has two sources of
error: other seeds would have trained other adapters, and other items would have been asked. Both are random effects
that cross each other. What is a mean or a difference has a formula, that of an analysis of variance without
replication (`estimate`, `compare`; Searle, Casella and McCulloch, *Variance Components*, 1992, chapter 4). What is a
choice among cells has a bootstrap of both sources (`resampled_means`, `plateau`; Owen, "The pigeonhole bootstrap",
Annals of Applied Statistics 1, 2007). Where runs share their training examples, what others would have given is no
part of the errors.
"""

import bisect
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

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

    They are of several seeds on one draw of the training and dev examples, or of several draws, one run of each. Of
    the latter `estimate` gives as the seeds' variance what a draw and a run on it add together.

    Raises:
        InputError: as `answers`, two have the same seed and data seed, or several draws have several runs (which are
            not independent then).
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

    Returns:
        The items' row numbers, rising, and `[runs, items]`, 1 where a run is right and 0 where it is wrong.

    Raises:
        InputError: there are none, a run has no outcome (it diverged before its first evaluation, or was asked
            nothing), they were not asked the same items, or they were measured on different weights.
    """
    require_one_backbone(records, "the runs")
    found: list[dict[int, bool]] = []
    for record in records:
        if record.outcome is None:
            reason = "it was asked nothing on eval" if record.best_step else "it diverged before its first evaluation"
            raise InputError(f"run {record.id} has no outcome: {reason}")
        found.append(record.outcome.right_by_row)
    if not found:
        raise InputError("no runs were given")
    if any(right.keys() != found[0].keys() for right in found):
        raise InputError("the runs were not asked the same items: their caps or their data differ")
    items = tuple(sorted(found[0]))
    return items, np.array([[right[item] for item in items] for right in found], dtype=float)


@dataclass(frozen=True)
class Mean:
    """A mean, and how sure it is."""

    mean: float
    standard_error: float
    degrees: float
    """Of freedom."""

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Where the true mean lies, with about this confidence (see `p_value`).

        An error of 0 means that the values show no variation, not that there is none.
        """
        reach = float(stats.t.ppf((1 + level) / 2, self.degrees)) * self.standard_error
        return self.mean - reach, self.mean + reach

    def p_value(self, null: float = 0.0) -> float:
        """Of the hypothesis that the true mean is `null`; two-sided."""
        if self.standard_error == 0:
            return float(self.mean == null)
        return float(2 * stats.t.sf(abs(self.mean - null) / self.standard_error, self.degrees))

    def equivalence_p_value(self, margin: float) -> float:
        """Of the hypothesis that the mean is `margin` or more away from 0, by two one-sided tests.

        Below 0.05 the 90 % interval lies within the margin. A difference that is not significant is not equivalence.

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

    The degrees of freedom are Satterthwaite's approximation, and themselves estimated, so that p values and intervals
    are approximate. With three seeds that vary much more than the items do, p values below 0.05 come up to 1.5 times
    as often as they say, below 0.01 three times and below 0.003 six times; where seeds hardly vary, more seldom than
    they say. With ten they are nearly exact.
    """

    seeds: int
    items: int
    seed_variance: float
    """Of a seed's mean over all items, as if there were no end of these; 0 where the estimate is below."""
    item_variance: float
    """Of an item's mean over all seeds, likewise."""
    rest_variance: float
    """Of one answer, beyond its seed and its item."""

    def equivalence_p_value(self, margin: float) -> float:
        """As `Mean.equivalence_p_value`.

        Raises:
            InputError: the margin is not above 0.
        """
        if margin > 0 and self.standard_error == 0 and self.mean == 0:
            # Made of answers that all agree: were the margin reached, an item would show a difference with at least
            # that probability.
            return float((1 - min(margin, 1)) ** self.items)
        return super().equivalence_p_value(margin)

    def error_with(self, seeds: float, items: float) -> float:
        """The standard error that so many seeds and items would give; `math.inf` is no end of them."""
        of_seeds, of_items = self.seed_variance / seeds, self.item_variance / items
        return float(np.sqrt(of_seeds + of_items + self.rest_variance / (seeds * items)))

    def power(self, effect: float, seeds: int, items: int, alpha: float = 0.05) -> float:
        """The chance that so many seeds and items show a true mean of `effect` to differ from 0.

        It takes the estimated variances as true, which from three seeds is a guess.

        Raises:
            InputError: there are fewer than two seeds or items.
        """
        require_two(seeds, items)
        error, rest = self.error_with(seeds, items), self.rest_variance
        if error == 0:
            return float(effect != 0)
        degrees = _degrees(items * self.seed_variance + rest, seeds * self.item_variance + rest, rest, seeds, items)
        reach = stats.t.ppf(1 - alpha / 2, degrees)
        # The square of Student's t, as its own two tails lose their digits where the effect is large.
        return float(stats.ncf.sf(reach**2, 1, degrees, (effect / error) ** 2))


def _degrees(of_seeds: float, of_items: float, of_rest: float, seeds: int, items: int) -> float:
    """Satterthwaite's degrees of freedom of the sum of mean squares that is a mean's variance."""
    spread = of_seeds**2 / (seeds - 1) + of_items**2 / (items - 1) + of_rest**2 / ((seeds - 1) * (items - 1))
    fewest = float(min(seeds, items) - 1)
    return max(_total(of_seeds, of_items, of_rest) ** 2 / spread, fewest) if spread else fewest


def _total(of_seeds: float, of_items: float, of_rest: float) -> float:
    # Each mean square alone estimates no more than the whole, and by chance the sum may fall below it.
    return max(of_seeds + of_items - of_rest, of_seeds, of_items, of_rest)


def require_two(seeds: int, items: int) -> None:
    """Check that there are two seeds and two items.

    Raises:
        InputError: there are fewer: how much the other varies cannot be told.
    """
    if min(seeds, items) < 2:
        raise InputError(f"{seeds} seeds and {items} items: an error needs two or more of each")


def estimate(values: Floats) -> Estimate:
    """The mean of a table of seeds by items.

    With `s` the seed's effect, `i` the item's and `e` the rest, the mean of S seeds and I items varies by
    `σ²(s)/S + σ²(i)/I + σ²(e)/(S·I)`. The mean squares of the two-way table estimate that without bias; where one
    falls below the rest its part is taken as 0, which errs upwards.

    Args:
        values: `[seeds, items]`.

    Raises:
        InputError: there are fewer than two seeds or items, or a value is not finite.
    """
    return pooled([values])


def pooled(tables: Sequence[Floats]) -> Estimate:
    """The mean of one table of seeds by items, or of several that are alike, with the variances of all of them.

    Three seeds tell little of how much seeds vary. Several tables of three tell more, if they vary alike: then their
    mean squares may be averaged. The error is that of one such table, not of the mean of all.

    Args:
        tables: `[seeds, items]`, each.

    Raises:
        InputError: as `estimate`; there are none, or they have different numbers of seeds or items.
    """
    sizes = sorted({table.shape for table in tables})
    if len(sizes) != 1:
        raise InputError(f"tables of one number of seeds and items can be pooled, not of {sizes}")
    ((seeds, items),) = sizes
    require_two(seeds, items)
    if not np.isfinite(tables).all():
        raise InputError("a value is not finite")
    mean = float(np.mean(tables))
    squares = [_mean_squares(table) for table in tables]
    of_seeds, of_items, of_rest = (float(np.mean([of[axes] for of in squares])) for axes in ((0,), (1,), (0, 1)))
    variance = _total(of_seeds, of_items, of_rest)
    return Estimate(
        mean=mean,
        seeds=seeds,
        items=items,
        seed_variance=max((of_seeds - of_rest) / items, 0.0),
        item_variance=max((of_items - of_rest) / seeds, 0.0),
        rest_variance=of_rest,
        standard_error=float(np.sqrt(variance / (seeds * items))),
        degrees=_degrees(of_seeds, of_items, of_rest, seeds, items),
    )


def partly_crossed(values: Floats, seeds: NDArray[np.int64], items: NDArray[np.int64]) -> Estimate:
    """The mean of answers, where some items were asked of every seed and others of a few seeds or of one.

    The mean is that of the seeds' means. Under the model of `estimate`, with `n(s)` the items asked of a seed and
    `n(s, t)` those asked of both of two, it varies by `σ²(means)/S + σ²(i)·c`: the variance of the seeds' means as it
    is seen, and what these have in common, where `c` is the mean of `n(s, t)/(n(s)·n(t))` over pairs of seeds. `σ²(i)`
    is estimated without bias from the products of two seeds' answers to one item, each less its seed's mean (moments
    as of Gao and Owen, "Efficient moment calculations for variance components in large unbalanced crossed random
    effects models", Electronic Journal of Statistics 11, 2017), and is 0 if that is below. Of a full table this is
    `estimate`, unless the seeds' means vary less than the rest alone would have them do: that errs upwards there, and
    here, where many items may be asked of one seed alone, it would do so often. Where no two seeds share an item, the
    items' variance is part of the rest's.

    Args:
        values: `[answers]`.
        seeds: `[answers]`, whose each is; any numbers.
        items: `[answers]`, to what item; any numbers. A seed answers an item once.

    Raises:
        InputError: the three are not of one length, there are fewer than two seeds or items, a value is not finite,
            or a seed has one item alone or one twice.
    """
    if not len(values) == len(seeds) == len(items):
        raise InputError(
            f"{len(values)} values, {len(seeds)} seeds and {len(items)} items: each answer has one of each"
        )
    if not np.isfinite(values).all():
        raise InputError("a value is not finite")
    seeds, names = pd.factorize(seeds)
    items, things = pd.factorize(items)
    require_two(len(names), len(things))
    count = len(names)
    asked = np.zeros((count, len(things)), np.float32)
    asked[seeds, items] = 1
    per_seed = np.bincount(seeds)
    if np.count_nonzero(asked) < len(values) or per_seed.min() < 2:
        raise InputError("each seed has to answer two items or more, and each of them once")
    means = np.bincount(seeds, values) / per_seed
    apart = values - means[seeds]
    each = 1 / per_seed
    together = (asked @ asked.T).astype(float)
    np.fill_diagonal(together, 0)
    share = together * np.outer(each, each)
    products = float((np.bincount(items, apart) ** 2).sum() - (apart**2).sum())
    expected = float((together * (1 - each - each[:, None] + share)).sum())
    item_variance = products / expected if expected else 0.0
    rest_variance = float((apart**2).sum()) / (len(values) - count) - item_variance
    of_pairs = float(share.sum()) / (count * (count - 1))
    common = max(item_variance, 0.0) * of_pairs
    of_seeds = float(means.var(ddof=1)) / count
    # Of the mean's variance, what is neither the seeds' nor common to them: in a full table the rest's mean square.
    alone = (float(each.mean()) * (item_variance + rest_variance) - of_pairs * item_variance) / count
    spread = of_seeds**2 / (count - 1)
    if common:
        spread += (alone + common) ** 2 / (len(things) - 1) + alone**2 / max(len(values) - count - len(things) + 1, 1)
    fewest = float(min(count, len(things)) - 1)
    return Estimate(
        mean=float(means.mean()),
        seeds=count,
        items=len(things),
        seed_variance=max(of_seeds - alone, 0.0) * count,
        item_variance=max(item_variance, 0.0),
        rest_variance=rest_variance,
        standard_error=float(np.sqrt(of_seeds + common)),
        degrees=max((of_seeds + common) ** 2 / spread, fewest) if spread else fewest,
    )


def _mean_squares(values: Floats) -> dict[tuple[int, ...], float]:
    """Of each axis and of any of them together, which for all of them is the rest, by their numbers."""
    found = {}
    for count in range(1, values.ndim + 1):
        for axes in itertools.combinations(range(values.ndim), count):
            # The effect of these axes together: means over all others, less the effects of each fewer of them.
            part = values
            for axis in range(values.ndim):
                mean = part.mean(axis, keepdims=True)
                part = part - mean if axis in axes else mean
            found[axes] = float((part**2).sum()) * values.size / part.size / _free(values, axes)
    return found


def _free(values: Floats, axes: tuple[int, ...]) -> int:
    """The degrees of freedom of a mean square."""
    return math.prod(values.shape[axis] - 1 for axis in axes)


@dataclass(frozen=True)
class Effect:
    """What one cause does to the mean of a run."""

    variance: float
    """Of the cause's effect, with no end of items; below 0 where so estimated."""
    interval: tuple[float, float]
    """Where that variance lies, with about 95 % confidence; an end below 0 is 0. It may be empty, which is 0 to 0:
    where there is no effect, once in forty."""
    p_value: float
    """Of no effect, one-sided."""


@dataclass(frozen=True)
class Crossed:
    """The variance of one run's mean over its items, in parts that add up."""

    first: Effect
    second: Effect
    together: Effect
    """What the two do to each other, and all that a run would do otherwise if it were repeated."""
    chance: float
    """What is by item and not the same for all runs, on as many items."""
    first_by_item: Effect
    """The part of chance that is the first cause's own, by item the same whatever the second is."""
    second_by_item: Effect
    of_items: float
    """What is by item and the same for all runs, on as many items."""


def crossed_effects(values: Floats) -> Crossed:
    """What two causes that cross do to runs, told from what the items do.

    All effects are random: those of the two causes `a` and `b`, of the items, and of any two of the three together.
    Estimates are those of the three-way analysis of variance without replication. The test and interval of a cause
    take its mean square by `MS(ab) + MS(ai) − MS(abi)`, or by the larger of the first two where that is more, whose
    degrees of freedom are Satterthwaite's and no fewer than the fewer of the two (Searle, Casella and McCulloch,
    *Variance Components*, 1992, chapter 4). So they are approximate and err towards no effect, and an interval may
    lie below its estimate.

    Args:
        values: `[a, b, items]`, one run for each pair of the causes.

    Raises:
        InputError: there are fewer than two of one, or a value is not finite.
    """
    if min(values.shape) < 2:
        raise InputError(f"a table of {values.shape}: causes are told apart by two or more of each, and of items")
    if not np.isfinite(values).all():
        raise InputError("a value is not finite")
    a, b, items = values.shape
    squares = _mean_squares(values)
    both, rest = squares[0, 1], squares[0, 1, 2]
    of_both, of_rest = _free(values, (0, 1)), _free(values, (0, 1, 2))

    def of_cause(cause: int) -> Effect:
        by_item, of_items, each = squares[cause, 2], _free(values, (cause, 2)), values.size // values.shape[cause]
        null = max(both + by_item - rest, both, by_item)
        spread = both**2 / of_both + by_item**2 / of_items + rest**2 / of_rest
        degrees = max(null**2 / spread if spread else 0.0, min(of_both, of_items))
        effect = _effect(squares[cause,], _free(values, (cause,)), null, degrees, each)
        return replace(effect, variance=(squares[cause,] - both - by_item + rest) / each)

    return Crossed(
        first=of_cause(0),
        second=of_cause(1),
        together=_effect(both, of_both, rest, of_rest, items),
        chance=((squares[0, 2] - rest) / b + (squares[1, 2] - rest) / a + rest) / items,
        first_by_item=_effect(squares[0, 2], _free(values, (0, 2)), rest, of_rest, b * items),
        second_by_item=_effect(squares[1, 2], _free(values, (1, 2)), rest, of_rest, a * items),
        of_items=(squares[2,] - squares[0, 2] - squares[1, 2] + rest) / (a * b) / items,
    )


def seed_effect(values: Floats) -> Effect:
    """What seeds do to runs, told from what the items do.

    Args:
        values: `[seeds, items]`.

    Raises:
        InputError: there are fewer than two seeds or items.
    """
    seeds, items = values.shape
    require_two(seeds, items)
    squares = _mean_squares(values)
    return _effect(squares[0,], _free(values, (0,)), squares[0, 1], _free(values, (0, 1)), items)


def _effect(square: float, free: int, null: float, null_free: float, count: int) -> Effect:
    """By the F test of a mean square that is `null` without the effect, and more by `count` times its variance."""
    of_f = stats.f(free, null_free)
    low, high = (max(square / float(of_f.ppf(share)) - null, 0.0) / count for share in (0.975, 0.025))
    return Effect(
        variance=(square - null) / count,
        interval=(low, high),
        p_value=float(of_f.sf(square / null)) if null else float(square == 0),
    )


def seeds_needed(of: Estimate, effect: float, chance: float = 0.8, most: int = 1000) -> int | None:
    """The fewest seeds, two or more, that show a true mean of `effect` on as many items with this chance.

    Returns:
        `None` if `most` do not.
    """
    return fewest(lambda seeds: of.power(effect, seeds, of.items), chance, most)


def items_needed(of: Estimate, effect: float, seeds: int, chance: float = 0.8, most: int = 100_000) -> int | None:
    """The fewest items, two or more, on which so many seeds show a true mean of `effect` with this chance.

    Returns:
        `None` if `most` do not.
    """
    return fewest(lambda items: of.power(effect, seeds, items), chance, most)


def fewest(power: Callable[[int], float], chance: float, most: int) -> int | None:
    """The least number, two or more, whose power is this chance; `None` if up to `most` there is none.

    Args:
        power: by the number, and growing with it.
        chance: what is enough.
        most: where the search ends.
    """
    found = bisect.bisect_left(range(2, most + 1), chance, key=power) + 2
    return found if found <= most else None


def compare(a: Outcomes, b: Outcomes) -> Estimate:
    """The accuracy of `a` minus that of `b`, run by run with the same seeds and item by item.

    Raises:
        InputError: the two do not have the same seeds, or were not asked the same items.
    """
    require_pairs([a, b])
    return estimate(a.right - b.right)


def require_pairs(cells: Sequence[Outcomes]) -> None:
    """Check that cells can be compared run by run and item by item.

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
    """P values of one family of comparisons, corrected so that a false finding among all of them is as rare as one."""
    return [float(p) for p in multipletests(p_values, method="holm")[1]] if len(p_values) else []


def agreement(a: Outcomes, b: Outcomes) -> float:
    """The share of items on which two runs are both right or both wrong: one of each cell, of different seeds.

    Over all such pairs, so that it can be laid beside a cell's agreement with itself, where `a` and `b` are the same.

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
    """`[draws, cells]`, means of cells when seeds and items are both drawn anew with replacement.

    In each draw all cells keep the same seeds and items, so that their differences are those of pairs. One fewer of
    each is drawn than there are: then the variance of a mean is right but for twice `σ²(e)/(S·I)`, which it has too
    much; with as many as there are it would be a third too small at three seeds.

    Raises:
        InputError: as `require_pairs`, or there are fewer than two seeds or items.
    """
    require_pairs(cells)
    require_two(*cells[0].right.shape)
    of_seeds, of_items = (
        generator.multinomial(count - 1, np.full(count, 1 / count), draws) / (count - 1)
        for count in cells[0].right.shape
    )
    return np.stack([((of_seeds @ cell.right) * of_items).sum(1) for cell in cells], axis=1)


def plateau(means: Floats, margin: float) -> NDArray[np.int64]:
    """The first cell that is not worse than the best by more than a margin.

    Args:
        means: `[..., cells]`, in the order of their budgets.
        margin: in the means' own unit.

    Returns:
        `[...]`, its place among the cells. Over resampled means the places show how unstable the choice is; their
        shares are not probabilities of the truth.

    Raises:
        InputError: the margin is below 0, or a mean is not finite.
    """
    if not margin >= 0 or not np.isfinite(means).all():
        raise InputError(f"a plateau needs finite means and a margin of 0 or more, not {margin}")
    near: NDArray[np.int64] = (means >= means.max(-1, keepdims=True) - margin).argmax(-1)
    return near


@dataclass(frozen=True)
class Choice:
    """The best of several cells, with and without the optimism of choosing it by the numbers that are reported."""

    chosen: float
    """The mean, for which it was chosen, of the cell that is best on all seeds and items."""
    held_out: float
    """The mean, on seeds and items that had no part in the choice, of the cell that is best on the others."""

    @property
    def optimism(self) -> float:
        """By how much the first is too high, at most and on average over data, as a half also chooses worse."""
        return self.chosen - self.held_out


def best_of(cells: Sequence[Outcomes], splits: int, generator: np.random.Generator) -> Choice:
    """How good the best of these cells is.

    Seeds and items are both cut into halves at random, many times; one half of each chooses and the other reports. A
    half chooses worse than the whole would, so on average `held_out` is too low, if anything; it is as uncertain as
    any mean of so few seeds and items.

    Args:
        cells: those under a budget, say.
        splits: how often.
        generator: of the random halves.

    Raises:
        InputError: as `require_pairs`, there are fewer than two seeds or items, or no split is asked for.
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
