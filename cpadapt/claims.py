"""Verdicts on what is claimed of CP and LoRA, by stated rules, from measured cells.

A rule takes one task's cells and gives a `Finding`: the difference that the claim hangs on, and a verdict. That a
difference is there and that it is slight are both things to be shown; where neither is, it cannot be told. Each
finding is judged for itself: of many claims that are false, some will hold by chance.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import stats

from cpadapt.errors import InputError
from cpadapt.protocol import HEAD
from cpadapt.record import Record
from cpadapt.statistics import Estimate, Outcomes, estimate, outcomes, require_pairs

MARGIN = 0.01
"""A difference below it is called slight; one point."""

LEVEL = 0.05
"""Of every test."""


class Verdict(StrEnum):
    """What the cells say of a claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "cannot be told"
    UNMEASURED = "not measured"


@dataclass(frozen=True)
class Finding:
    """A verdict and what it hangs on."""

    verdict: Verdict
    estimate: Estimate | None = None
    """A difference of accuracies; `None` where nothing is measured, or nothing is estimated."""


@dataclass(frozen=True)
class Cells:
    """One task's cells, each at one learning rate."""

    budgets: Mapping[tuple[str, int], int]
    """Trainable scalars by label and size."""
    outcomes: Mapping[tuple[str, int], Outcomes]
    """What the cell's runs got right. A cell of which a run has no outcome is missing here."""
    diverged: Mapping[str, tuple[int, int]]
    """How many runs diverged and how many there are, by label and at all rates."""

    def sizes(self, label: str) -> list[int]:
        """Of a family's cells with outcomes, rising."""
        return sorted(size for name, size in self.outcomes if name == label)

    def matched(self) -> list[tuple[int, int]]:
        """LoRA's ranks and the largest CP size at or under each one's budget, where both are measured.

        Two ranks never share a CP size: where CP has none above the last rank's match, the rank is left out.
        """
        pairs: list[tuple[int, int]] = []
        for rank in self.sizes("lora"):
            fitting = [size for size in self.sizes("cp") if self.budgets["cp", size] <= self.budgets["lora", rank]]
            if fitting and (not pairs or max(fitting) > pairs[-1][1]):
                pairs.append((rank, max(fitting)))
        return pairs


def cells_of(records: Iterable[Record], rates: Mapping[str, float] | None = None) -> Cells:
    """One task's cells from the records of its runs.

    Args:
        records: of one backbone, task, protocol and draw of the data; the seeds of all cells should be the same.
        rates: the learning rate to take of each family, by label; without it, each cell's is chosen by its mean
            accuracy on dev, as `cpadapt.frontier.frontier` chooses: eval has no part in it.

    Raises:
        InputError: the records are not of one backbone, task and protocol.
    """
    by_cell: dict[tuple[str, int], dict[float | None, list[Record]]] = {}
    known: set[tuple[str, str, str]] = set()
    for record in records:
        config = record.config
        known.add((config.backbone, config.task, config.protocol.id))
        by_cell.setdefault((record.label, config.size), {}).setdefault(config.learning_rate, []).append(record)
    if len(known) > 1:
        raise InputError(f"cells are of one backbone, task and protocol, not of {len(known)}: {sorted(known)}")
    found: dict[tuple[str, int], Outcomes] = {}
    diverged: dict[str, tuple[int, int]] = {}
    for (label, size), by_rate in by_cell.items():
        of_cell = [record for runs in by_rate.values() for record in runs]
        stopped, runs = diverged.get(label, (0, 0))
        diverged[label] = stopped + sum(r.diverged_at is not None for r in of_cell), runs + len(of_cell)
        rate = _by_dev(by_rate) if rates is None else rates.get(label)
        chosen = by_rate.get(rate, [])
        if chosen and all(record.outcome is not None for record in chosen):
            found[label, size] = outcomes(chosen)
    budgets = {cell: next(iter(next(iter(by_rate.values())))).counts.adapter for cell, by_rate in by_cell.items()}
    return Cells(budgets, found, diverged)


def _by_dev(by_rate: Mapping[float | None, Sequence[Record]]) -> float | None:
    def merit(rate: float | None) -> tuple[float, float, float]:
        runs = by_rate[rate]
        on_dev = [record.best.dev_accuracy for record in runs if record.best is not None]
        lost = sum(record.diverged_at is not None for record in runs) / len(runs)
        return -lost, float(np.mean(on_dev)) if on_dev else -1.0, -(rate or 0.0)

    return max(by_rate, key=merit)


def above(difference: Estimate, margin: float = MARGIN) -> Verdict:
    """Whether a difference is above 0: it holds if that is clear; not if it is below 0 or within the margin."""
    low, high = difference.interval(1 - LEVEL)
    if low > 0:
        return Verdict.HOLDS
    return Verdict.FAILS if high < 0 or within(difference, margin) is Verdict.HOLDS else Verdict.OPEN


def within(difference: Estimate, margin: float = MARGIN) -> Verdict:
    """Whether a difference is less than the margin either way (two one-sided tests); not if it is clearly more."""
    if difference.equivalence_p_value(margin) < LEVEL:
        return Verdict.HOLDS
    low, high = difference.interval(1 - 2 * LEVEL)
    return Verdict.FAILS if low > margin or high < -margin else Verdict.OPEN


def at_most(difference: Estimate, margin: float = MARGIN) -> Verdict:
    """Whether a difference is below the margin (one one-sided test); not if it is clearly above it."""
    low, high = difference.interval(1 - 2 * LEVEL)
    # Without an error there is no interval, only a table of answers that all agree.
    if high < margin and (difference.standard_error > 0 or within(difference, margin) is Verdict.HOLDS):
        return Verdict.HOLDS
    return Verdict.FAILS if low > margin else Verdict.OPEN


def lora_ahead(of: Cells) -> Finding:
    """LoRA is ahead of CP at matched budgets, on the average over these."""
    return _judged(of, [(("lora", rank), ("cp", size)) for rank, size in of.matched()], above)


def finer_is_not_better(of: Cells) -> Finding:
    """CP is not ahead of LoRA by the margin at matched budgets, on the average over these."""
    return _judged(of, [(("cp", size), ("lora", rank)) for rank, size in of.matched()], at_most)


def cp_gains(of: Cells) -> Finding:
    """CP gains from more components: its cells at LoRA's budgets, on the average, are above one component."""
    return _judged(of, [(("cp", size), ("cp", 1)) for _, size in of.matched() if size > 1], above)


def flat_from_first_rank(of: Cells) -> Finding:
    """Beyond the budget of LoRA's first rank CP gains less than the margin, on the average over its larger cells."""
    first = dict(of.matched()).get(1)
    larger = [size for size in of.sizes("cp") if first is not None and size > first]
    return _judged(of, [(("cp", size), ("cp", first or 0)) for size in larger], at_most)


def splits_alike(of: Cells) -> Finding:
    """CP's other tensor shapes, at equal sizes, are within the margin of its default one; the estimate is the worst.

    Their labels begin with `cp-`.
    """
    others = [cell for cell in of.outcomes if cell[0].startswith("cp-") and ("cp", cell[1]) in of.outcomes]
    findings = [_judged(of, [(cell, ("cp", cell[1]))], within) for cell in others]
    estimates = [finding.estimate for finding in findings if finding.estimate is not None]
    if not estimates:
        return Finding(Verdict.UNMEASURED)
    return Finding(every(findings), max(estimates, key=lambda e: abs(e.mean)))


def over_floor(of: Cells) -> Finding:
    """CP's cells at LoRA's budgets, on the average, are above the readout alone."""
    return _judged(of, [(("cp", size), (HEAD, 0)) for _, size in of.matched()], above)


def fills_gaps(of: Cells) -> Finding:
    """Between any two neighbouring ranks of LoRA, CP has a measured cell."""
    ranks = sorted(of.budgets["lora", rank] for rank in of.sizes("lora"))
    between = [of.budgets["cp", size] for size in of.sizes("cp")]
    if len(ranks) < 2 or not between:
        return Finding(Verdict.UNMEASURED)
    filled = all(any(low < amount < high for amount in between) for low, high in itertools.pairwise(ranks))
    return Finding(Verdict.HOLDS if filled else Verdict.FAILS)


def trains_stably(of: Cells) -> Finding:
    """No CP run diverged; it fails if a larger share of CP's diverged than of LoRA's (Fisher's exact test)."""
    stopped, runs = of.diverged.get("cp", (0, 0))
    others, of_lora = of.diverged.get("lora", (0, 0))
    if not runs:
        return Finding(Verdict.UNMEASURED)
    if not stopped:
        return Finding(Verdict.HOLDS)
    table = [[stopped, runs - stopped], [others, of_lora - others]]
    p_value = float(stats.fisher_exact(table, alternative="greater").pvalue)
    return Finding(Verdict.FAILS if p_value < LEVEL else Verdict.OPEN)


RULES: Mapping[str, Callable[[Cells], Finding]] = {
    rule.__name__: rule
    for rule in (
        lora_ahead, finer_is_not_better, over_floor, cp_gains, flat_from_first_rank, splits_alike, fills_gaps,
        trains_stably,
    )
}  # fmt: skip
"""By the names that a claim gives."""


def every(findings: Sequence[Finding]) -> Verdict:
    """Of a claim that says all of these: it fails if one does, and holds if all do."""
    verdicts = {finding.verdict for finding in findings}
    order = (Verdict.FAILS, Verdict.UNMEASURED, Verdict.OPEN)
    return next((verdict for verdict in order if verdict in verdicts), Verdict.HOLDS)


def _judged(
    of: Cells, pairs: Sequence[tuple[tuple[str, int], tuple[str, int]]], rule: Callable[[Estimate], Verdict]
) -> Finding:
    """A rule on the first minus the second, averaged over pairs of cells, seed by seed and item by item."""
    if not pairs or any(cell not in of.outcomes for pair in pairs for cell in pair):
        return Finding(Verdict.UNMEASURED)
    first, second = zip(*pairs, strict=True)
    a, b = ([of.outcomes[cell] for cell in cells] for cells in (first, second))
    require_pairs([*a, *b])
    if len(a[0].seeds) < 2:
        return Finding(Verdict.UNMEASURED)
    difference = estimate(np.mean([x.right - y.right for x, y in zip(a, b, strict=True)], axis=0))
    return Finding(rule(difference), difference)
