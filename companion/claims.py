"""Verdicts on claims about CP and LoRA, by stated rules, from measured cells.

A rule claims that a difference in accuracy lies in a region, such as above 0, or within a point of 0. The rule holds
if the difference's 90 % interval lies within the region, and fails if the interval lies outside; otherwise it cannot
be told. So each end of a region is a one-sided test at 5 %. A verdict that depends on one budget or one answer is on
the edge. A rule is not judged if a cell is not shown to have learned. Each rule is judged separately: of many wrong
rules some hold by chance, and with three seeds somewhat more of them (`cpadapt.analysis.statistics.Estimate.p_value`).
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from cpadapt.analysis.cells import Cells
from cpadapt.analysis.charts import cell_name, family_name
from cpadapt.analysis.statistics import Estimate, Floats, Outcomes, estimate
from cpadapt.records.config import HEAD, Cell

LEVEL = 0.05
"""The level of every one-sided test."""

MARGIN = 0.01
"""Differences below one point count as none."""

SLIGHT = 0.03
"""Differences below three points count as slight."""


class Verdict(StrEnum):
    """What the cells show about a claim."""

    HOLDS = "holds"
    FAILS = "fails"
    EDGE = "on the edge"
    """The claim holds or fails, but would not without one of the budgets or with one other answer of one run."""
    OPEN = "cannot be told"
    """The interval contains an end of the region."""
    UNJUDGED = "not judged"
    """A compared cell is not shown to have learned."""
    UNMEASURED = "not measured"
    NONE_LOST = "no run was lost"
    """A count, which is not evidence on accuracy."""
    SOME_LOST = "runs were lost"


def interval_90(difference: Estimate) -> tuple[float, float]:
    """The 90 % interval, which decides verdicts. Each of its ends is a one-sided test at `LEVEL`."""
    return difference.interval(1 - 2 * LEVEL)


@dataclass(frozen=True)
class Region:
    """The values that a claim allows a difference to have, between two ends, as shares."""

    low: float = -math.inf
    high: float = math.inf

    def judge(self, difference: Estimate) -> Verdict:
        """The verdict on whether the difference lies in the region."""
        low, high = interval_90(difference)
        if difference.standard_error == 0:
            # Answers that all agree have no interval; their number decides.
            alike = difference.mean == 0 and self.low < 0 < self.high
            edge = min(-self.low, self.high)
            return Verdict.HOLDS if alike and difference.equivalence_p_value(edge) < LEVEL else Verdict.OPEN
        if self.low < low and high < self.high:
            return Verdict.HOLDS
        return Verdict.FAILS if high < self.low or low > self.high else Verdict.OPEN


ABOVE = Region(low=0.0)
NOT_AHEAD = Region(high=MARGIN)
ALIKE = Region(-MARGIN, MARGIN)
SLIGHTLY_ABOVE = Region(0.0, SLIGHT)


@dataclass(frozen=True)
class Finding:
    """A rule's verdict and its grounds."""

    verdict: Verdict
    region: Region | None = None
    estimate: Estimate | None = None
    """The difference that must lie in the region."""
    unfit: tuple[Cell, ...] = ()
    """The cells that are not shown to have learned."""
    collapsed: tuple[Cell, ...] = ()
    """The unfit cells that have a run with one answer for every item."""
    diverged: tuple[int, int] | None = None
    """The numbers of runs that diverged and of all runs, if the rule is about these."""

    @property
    def would_fail(self) -> bool:
        """Whether the rule is not judged, though the interval lies outside the region."""
        if self.verdict is not Verdict.UNJUDGED or self.region is None or self.estimate is None:
            return False
        return self.region.judge(self.estimate) is Verdict.FAILS

    @property
    def told(self) -> str:
        """The verdict, and the reason if it is not judged."""
        if self.verdict is not Verdict.UNJUDGED:
            return self.verdict.value
        # A variant's label begins with its family's.
        families = {family_name(label.partition("-")[0]): None for label, _ in sorted(self.unfit)}
        if set(self.collapsed) == set(self.unfit):
            return f"{self.verdict.value}: {' and '.join(families)} at an unsuitable rate"
        few = {cell_name(*cell): None for cell in sorted(self.unfit)} if len(self.unfit) <= 3 else families
        return f"{self.verdict.value}: {', '.join(few)} not shown to learn"


def lora_ahead(cells: Cells) -> Finding:
    """LoRA minus CP, averaged over matched budgets, is above 0."""
    return _compared(cells, _lora_and_cp(cells), ABOVE)


def lora_slightly_ahead(cells: Cells) -> Finding:
    """LoRA minus CP, averaged over matched budgets, is above 0 and slight."""
    return _compared(cells, _lora_and_cp(cells), SLIGHTLY_ABOVE)


def cp_not_ahead(cells: Cells) -> Finding:
    """CP minus LoRA, averaged over matched budgets, is below the margin."""
    return _compared(cells, [(cp, lora) for lora, cp in _lora_and_cp(cells)], NOT_AHEAD)


def cp_gains(cells: Cells) -> Finding:
    """CP averaged over LoRA's budgets, minus CP with one component, is above 0."""
    # CP may gain from components without having learned with one.
    return _compared(
        cells, [(("cp", size), ("cp", 1)) for _, size in cells.matched("lora", "cp")], ABOVE, untaught=[("cp", 1)]
    )


def cp_saturates(cells: Cells) -> Finding:
    """CP at LoRA's largest budget minus CP at the middle one of LoRA's budgets is within the margin of 0."""
    sizes = [size for _, size in cells.matched("lora", "cp")]
    pairs = [(("cp", sizes[-1]), ("cp", sizes[(len(sizes) - 1) // 2]))] if len(sizes) > 1 else []
    return _compared(cells, pairs, ALIKE)


def first_rank_learns(cells: Cells) -> Finding:
    """CP at the budget of LoRA's first rank is above the head alone, in balanced accuracy.

    `learned` judges it.
    """
    first = cells.nearest(("lora", 1), "cp") if ("lora", 1) in cells.budgets else None
    return Finding(Verdict.UNMEASURED) if first is None else learned(cells, ("cp", first))


def flat_from_first_rank(cells: Cells) -> Finding:
    """CP averaged over sizes above the budget of LoRA's first rank, minus CP at that budget, is within the margin of
    0.

    The rule is not measured if no size of CP has that budget.
    """
    first = cells.nearest(("lora", 1), "cp") if ("lora", 1) in cells.budgets else None
    further = [size for size in cells.sizes("cp") if first is not None and size > first]
    return _compared(cells, [(("cp", size), ("cp", first or 0)) for size in further], ALIKE)


def splits_alike(cells: Cells) -> Finding:
    """CP with each other tensor shape, minus the default, is within the margin of 0.

    The labels of other shapes begin with cp-. Each shape is compared at its own budget, because a shape changes the
    cost of a component.
    """
    others = [cell for cell in cells.budgets if cell[0].startswith("cp-")]
    # No cell has size 0, so a shape without a counterpart is not measured.
    findings = [_compared(cells, [(cell, ("cp", cells.nearest(cell, "cp") or 0))], ALIKE) for cell in others]
    if not findings:
        return Finding(Verdict.UNMEASURED)
    worst = max(findings, key=lambda f: (f.verdict is Verdict.FAILS, abs(f.estimate.mean) if f.estimate else 0.0))
    unfit = dict.fromkeys(cell for finding in findings for cell in finding.unfit)
    collapsed = dict.fromkeys(cell for finding in findings for cell in finding.collapsed)
    return Finding(every(findings), worst.region, worst.estimate, tuple(unfit), tuple(collapsed))


def runs_kept(cells: Cells) -> Finding:
    """No run of CP had a loss or a gradient that is not finite. The rule says nothing about what the runs learned."""
    stopped, runs = cells.diverged.get("cp", (0, 0))
    if not runs:
        return Finding(Verdict.UNMEASURED)
    return Finding(Verdict.SOME_LOST if stopped else Verdict.NONE_LOST, diverged=(stopped, runs))


RULES: Mapping[str, Callable[[Cells], Finding]] = {
    rule.__name__: rule
    for rule in (
        runs_kept, first_rank_learns, flat_from_first_rank, cp_gains, cp_saturates, lora_ahead,
        lora_slightly_ahead, cp_not_ahead, splits_alike,
    )
}  # fmt: skip
"""The rules, by the names in claims."""


def learned(cells: Cells, *among: Cell) -> Finding:
    """Each of these cells is above the head alone, in balanced accuracy, item by item and seed by seed.

    Balanced accuracy weights all classes equally, so a run gains nothing by giving the commonest answer more often. If
    the records do not have the items' classes, accuracy is used.

    Args:
        cells: the task's.
        among: the cells to judge, each with an adapter; by default all at matched budgets.

    Returns:
        The verdict on all of them. `unfit` lists the cells for which it does not hold, `collapsed` those of them that
        have a run with one answer for every item, and `estimate` is the average over the cells.
    """
    asked = among or tuple(cell for pair in _lora_and_cp(cells) for cell in pair)
    head = (HEAD, 0)
    if not asked or any(cell not in cells.outcomes for cell in (*asked, head)):
        return Finding(Verdict.UNMEASURED)
    if any(not _alike(cells.outcomes[cell], cells.outcomes[head]) for cell in asked):
        return Finding(Verdict.UNMEASURED)
    floor = cells.balanced(head)
    gains = {cell: cells.balanced(cell) - floor for cell in dict.fromkeys(asked)}
    verdicts = {cell: ABOVE.judge(estimate(gain)) for cell, gain in gains.items()}
    unfit = tuple(cell for cell, verdict in verdicts.items() if verdict is not Verdict.HOLDS)
    worst = every([Finding(verdict) for verdict in verdicts.values()])
    return Finding(
        worst, ABOVE, estimate(np.mean(list(gains.values()), axis=0)), unfit, tuple(filter(cells.collapsed, unfit))
    )


def judge(cells: Cells, rules: Sequence[str]) -> tuple[Verdict, dict[str, Finding]]:
    """The verdict on a claim that requires all of these rules, and their findings."""
    findings = {name: RULES[name](cells) for name in rules}
    return every(list(findings.values())), findings


def told(verdict: Verdict, findings: Mapping[str, Finding]) -> str:
    """The result of `judge` as text, a claim's verdict and the reason if it is not judged."""
    return next((finding.told for finding in findings.values() if finding.verdict is verdict), verdict.value)


def every(findings: Sequence[Finding]) -> Verdict:
    """The verdict on a claim that requires all of these. It fails if one fails, and holds if all hold."""
    verdicts = {finding.verdict for finding in findings}
    order = (
        Verdict.FAILS, Verdict.UNMEASURED, Verdict.UNJUDGED, Verdict.OPEN, Verdict.EDGE, Verdict.SOME_LOST,
        Verdict.NONE_LOST,
    )  # fmt: skip
    return next((verdict for verdict in order if verdict in verdicts), Verdict.HOLDS)


def _lora_and_cp(cells: Cells) -> list[tuple[Cell, Cell]]:
    """The pairs of cells at matched budgets."""
    return [(("lora", rank), ("cp", size)) for rank, size in cells.matched("lora", "cp")]


def _alike(one: Outcomes, other: Outcomes) -> bool:
    """Whether two cells have the same seeds and items, and enough seeds for an error."""
    return (one.seeds, one.items) == (other.seeds, other.items) and len(one.seeds) > 1


def _compared(
    cells: Cells, pairs: Sequence[tuple[Cell, Cell]], region: Region, untaught: Collection[Cell] = ()
) -> Finding:
    """Judge the first minus the second, averaged over pairs of cells, seed by seed and item by item.

    The rule is not measured if a cell or one of its seeds is missing. It is not judged if a cell is not shown to
    learn, except for cells that may be `untaught`.
    """
    if not pairs or any(cell not in cells.outcomes for pair in pairs for cell in pair):
        return Finding(Verdict.UNMEASURED)
    if any(not _alike(cells.outcomes[cell], cells.outcomes[pairs[0][0]]) for pair in pairs for cell in pair):
        return Finding(Verdict.UNMEASURED)
    each = np.stack([cells.outcomes[a].right - cells.outcomes[b].right for a, b in pairs])
    difference = estimate(each.mean(0))
    compared = [cell for cell in dict.fromkeys(cell for pair in pairs for cell in pair) if cell not in untaught]
    taught = learned(cells, *compared)
    if taught.verdict is not Verdict.HOLDS:
        # Without runs of the head alone, no cell is shown to learn.
        unfit = taught.unfit or tuple(compared)
        return Finding(Verdict.UNJUDGED, region, difference, unfit, taught.collapsed)
    verdict = region.judge(difference)
    if verdict is not Verdict.OPEN and difference.standard_error and _on_edge(each, difference, region, verdict):
        verdict = Verdict.EDGE
    return Finding(verdict, region, difference)


def _on_edge(each: Floats, difference: Estimate, region: Region, verdict: Verdict) -> bool:
    """Whether a verdict would change without one of the pairs, or with one other answer of one run.

    Args:
        each: `[pairs, runs, items]`, with `difference` as its mean.
    """
    fewer = [estimate(np.delete(each, k, axis=0).mean(0)) for k in range(len(each))] if len(each) > 1 else []
    answer = 1 / each.size
    moved = [replace(difference, mean=difference.mean + by) for by in (answer, -answer)]
    return any(region.judge(other) is not verdict for other in (*fewer, *moved))
