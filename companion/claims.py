"""Verdicts on what is claimed of CP and LoRA, by stated rules, from measured cells.

What a rule claims is a region of a difference in accuracy: above 0, say, or less than a point either way. It holds if
the difference's 90 % interval lies within the region, and fails if it lies outside; else it cannot be told. So each
end of a region is a one-sided test at 5 %. A verdict that hangs on one budget or on one answer is on the edge, and
where a cell is not shown to have learned nothing is judged. Each rule is judged for itself: of many that are wrong,
some will hold by chance, and with three seeds somewhat more of them (`cpadapt.analysis.statistics.Estimate.p_value`).
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
"""Of every one-sided test."""

MARGIN = 0.01
"""Differences below one point count as none."""

SLIGHT = 0.03
"""Differences below three points count as slight."""


class Verdict(StrEnum):
    """What the cells say of a claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    EDGE = "on the edge"
    """It holds or fails, and would not if one of the budgets were left out or one answer of one run were another."""
    OPEN = "cannot be told"
    """The interval reaches across an end of the region."""
    UNJUDGED = "not judged"
    """A cell that is compared is not shown to have learned."""
    UNMEASURED = "not measured"
    NONE_LOST = "no run was lost"
    """A count, and no evidence on accuracy."""
    SOME_LOST = "runs were lost"


def interval_90(difference: Estimate) -> tuple[float, float]:
    """The 90 % interval, which decides: each of its ends is a one-sided test at `LEVEL`."""
    return difference.interval(1 - 2 * LEVEL)


@dataclass(frozen=True)
class Region:
    """Where a difference has to lie; between two ends, which are shares."""

    low: float = -math.inf
    high: float = math.inf

    def judge(self, difference: Estimate) -> Verdict:
        """Whether it lies there."""
        low, high = interval_90(difference)
        if difference.standard_error == 0:
            # Answers that all agree have no interval; what they show is said by their number.
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
    """A rule's verdict and what it hangs on."""

    verdict: Verdict
    region: Region | None = None
    estimate: Estimate | None = None
    """The difference that has to lie in the region."""
    unfit: tuple[Cell, ...] = ()
    """The cells that are not shown to have learned."""
    collapsed: tuple[Cell, ...] = ()
    """Those of them that have a run with one answer for every item."""
    diverged: tuple[int, int] | None = None
    """The runs that diverged, and all runs, where that is what counts."""

    @property
    def told(self) -> str:
        """The verdict, and where nothing is judged the reason."""
        if self.verdict is not Verdict.UNJUDGED:
            return self.verdict.value
        # A variant's label begins with its family's.
        families = {family_name(label.partition("-")[0]): None for label, _ in sorted(self.unfit)}
        if set(self.collapsed) == set(self.unfit):
            return f"{self.verdict.value}: {' and '.join(families)} at an unsuitable rate"
        few = {cell_name(*cell): None for cell in sorted(self.unfit)} if len(self.unfit) <= 3 else families
        return f"{self.verdict.value}: {', '.join(few)} not shown to learn"


def lora_ahead(cells: Cells) -> Finding:
    """LoRA minus CP at matched budgets, on the average over these, is above 0."""
    return _compared(cells, _lora_and_cp(cells), ABOVE)


def lora_slightly_ahead(cells: Cells) -> Finding:
    """LoRA minus CP at matched budgets, on the average over these, is above 0 and slight."""
    return _compared(cells, _lora_and_cp(cells), SLIGHTLY_ABOVE)


def cp_not_ahead(cells: Cells) -> Finding:
    """CP minus LoRA at matched budgets, on the average over these, is below the margin."""
    return _compared(cells, [(cp, lora) for lora, cp in _lora_and_cp(cells)], NOT_AHEAD)


def cp_gains(cells: Cells) -> Finding:
    """CP at LoRA's budgets, on the average over these, minus CP with one component is above 0."""
    # What gains from components need not have learned with one.
    return _compared(
        cells, [(("cp", size), ("cp", 1)) for _, size in cells.matched("lora", "cp")], ABOVE, untaught=[("cp", 1)]
    )


def cp_saturates(cells: Cells) -> Finding:
    """CP at LoRA's last budget minus CP at the middle one of LoRA's budgets is within the margin either way."""
    sizes = [size for _, size in cells.matched("lora", "cp")]
    pairs = [(("cp", sizes[-1]), ("cp", sizes[(len(sizes) - 1) // 2]))] if len(sizes) > 1 else []
    return _compared(cells, pairs, ALIKE)


def first_rank_learns(cells: Cells) -> Finding:
    """CP at the budget of LoRA's first rank has learned: it is above the readout alone (`learned`)."""
    first = cells.nearest(("lora", 1), "cp") if ("lora", 1) in cells.budgets else None
    return Finding(Verdict.UNMEASURED) if first is None else learned(cells, ("cp", first))


def flat_from_first_rank(cells: Cells) -> Finding:
    """CP above the budget of LoRA's first rank, on the average over its sizes, minus CP at it is within the margin.

    It is not measured where no size of CP has that budget.
    """
    first = cells.nearest(("lora", 1), "cp") if ("lora", 1) in cells.budgets else None
    further = [size for size in cells.sizes("cp") if first is not None and size > first]
    return _compared(cells, [(("cp", size), ("cp", first or 0)) for size in further], ALIKE)


def splits_alike(cells: Cells) -> Finding:
    """CP with each other tensor shape (labels that begin with cp-) minus the default one is within the margin.

    Each is compared at its own budget, as a shape changes what a component costs.
    """
    others = [cell for cell in cells.budgets if cell[0].startswith("cp-")]
    # A size of none is no cell, so what has no counterpart is not measured.
    findings = [_compared(cells, [(cell, ("cp", cells.nearest(cell, "cp") or 0))], ALIKE) for cell in others]
    if not findings:
        return Finding(Verdict.UNMEASURED)
    worst = max(findings, key=lambda f: (f.verdict is Verdict.FAILS, abs(f.estimate.mean) if f.estimate else 0.0))
    unfit = dict.fromkeys(cell for finding in findings for cell in finding.unfit)
    collapsed = dict.fromkeys(cell for finding in findings for cell in finding.collapsed)
    return Finding(every(findings), worst.region, worst.estimate, tuple(unfit), tuple(collapsed))


def runs_kept(cells: Cells) -> Finding:
    """No run of CP was lost to a loss or a gradient that is not finite. It says nothing of what the runs learned."""
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
"""By the names that a claim gives."""


def learned(cells: Cells, *among: Cell) -> Finding:
    """Each of these cells is above the readout alone, in balanced accuracy, item by item and seed by seed.

    Balanced accuracy counts every class the same, so that a run which gives the commonest answer oftener gains nothing
    by it. Where the records do not have the items' classes it is accuracy.

    Args:
        cells: the task's.
        among: the cells to judge, each with an adapter; by default all at matched budgets.

    Returns:
        The verdict is that on all of them; `unfit` has those for which it does not hold, `collapsed` those among these
        that have a run with one answer for every item, and `estimate` is the average over the cells.
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
    """The verdict on a claim that asks for all of these rules, and their findings."""
    findings = {name: RULES[name](cells) for name in rules}
    return every(list(findings.values())), findings


def told(verdict: Verdict, findings: Mapping[str, Finding]) -> str:
    """What `judge` gives, as text: a claim's verdict, and where nothing is judged the reason."""
    return next((finding.told for finding in findings.values() if finding.verdict is verdict), verdict.value)


def every(findings: Sequence[Finding]) -> Verdict:
    """Of a claim that says all of these: it fails if one does, and holds if all do."""
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
    """Whether two cells have the same seeds and items, and seeds enough for an error."""
    return (one.seeds, one.items) == (other.seeds, other.items) and len(one.seeds) > 1


def _compared(
    cells: Cells, pairs: Sequence[tuple[Cell, Cell]], region: Region, untaught: Collection[Cell] = ()
) -> Finding:
    """Judge the first minus the second, averaged over pairs of cells, seed by seed and item by item.

    It is not measured where a cell, or a seed of one, is missing, and not judged where a cell is not shown to learn,
    but for those that may be `untaught`.
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
        # Without the readout alone of no cell it is shown.
        unfit = taught.unfit or tuple(compared)
        return Finding(Verdict.UNJUDGED, region, difference, unfit, taught.collapsed)
    verdict = region.judge(difference)
    if verdict is not Verdict.OPEN and difference.standard_error and _on_edge(each, difference, region, verdict):
        verdict = Verdict.EDGE
    return Finding(verdict, region, difference)


def _on_edge(each: Floats, difference: Estimate, region: Region, verdict: Verdict) -> bool:
    """Whether a verdict would be another without one of the pairs, or if one answer of one run were another.

    Args:
        each: `[pairs, runs, items]`, whose mean over pairs is `difference`.
    """
    fewer = [estimate(np.delete(each, k, axis=0).mean(0)) for k in range(len(each))] if len(each) > 1 else []
    answer = 1 / each.size
    moved = [replace(difference, mean=difference.mean + by) for by in (answer, -answer)]
    return any(region.judge(other) is not verdict for other in (*fewer, *moved))
