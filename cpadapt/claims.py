"""Verdicts on what is claimed of CP and LoRA, by stated rules, from measured cells.

What a rule claims is a region of a difference in accuracy: above 0, say, or less than a point either way. It holds if
the difference's 90 % interval lies within the region, and fails if it lies outside; else it cannot be told. So each
end of a region is a one-sided test at 5 %. Each rule is judged for itself: of many that are wrong, some will hold by
chance, and with three seeds somewhat more of them (`cpadapt.statistics.Estimate.p_value`).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from scipy import stats

from cpadapt.errors import InputError
from cpadapt.frontier import frontier
from cpadapt.protocol import HEAD
from cpadapt.record import Record, tabulate
from cpadapt.statistics import Estimate, Outcomes, estimate, outcomes

LEVEL = 0.05
"""Of every one-sided test."""

MARGIN = 0.01
"""Differences below one point count as none."""

SLIGHT = 0.03
"""Differences below three points count as slight."""

STABLE = 0.1
"""Runs that may diverge, as a share, where training is called stable."""

NEAR = 0.05
"""By which share of a rank's budget a CP size may miss it and be its match."""


class Verdict(StrEnum):
    """What the cells say of a claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "cannot be told"
    UNMEASURED = "not measured"


def interval(difference: Estimate) -> tuple[float, float]:
    """The interval that decides: each of its ends is a one-sided test."""
    return difference.interval(1 - 2 * LEVEL)


@dataclass(frozen=True)
class Region:
    """Where a difference has to lie; between two ends, which are shares."""

    low: float = -math.inf
    high: float = math.inf

    def judge(self, difference: Estimate) -> Verdict:
        """Whether it lies there."""
        low, high = interval(difference)
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
    diverged: tuple[int, int] | None = None
    """The runs that diverged, and all runs, where that is what counts."""


@dataclass(frozen=True)
class Cells:
    """One task's cells, each at one learning rate."""

    budgets: Mapping[tuple[str, int], int]
    """Trainable scalars by label and size."""
    outcomes: Mapping[tuple[str, int], Outcomes]
    """What the cell's runs got right. A cell of which a run has no outcome is missing here."""
    diverged: Mapping[str, tuple[int, int]]
    """How many runs diverged (lost a finite loss or gradient) and how many there are, by label.

    Where dev chose the rates, those at the others count too: a choice would hide them.
    """
    majority: float
    """The share of the evaluation items that the commonest answer gets right."""

    def nearest(self, cell: tuple[str, int], label: str) -> int | None:
        """A label's size whose budget is nearest to a cell's, if it is near enough (`NEAR`)."""
        budget = self.budgets[cell]
        missed = {size: abs(self.budgets[label, size] - budget) / budget for size in self.sizes(label)}
        size = min(missed, key=missed.__getitem__, default=None)
        return size if size is not None and missed[size] <= NEAR else None

    def matched(self) -> list[tuple[int, int]]:
        """Each of LoRA's ranks with the CP size whose budget is nearest, if it is near enough."""
        pairs = [(rank, self.nearest(("lora", rank), "cp")) for rank in self.sizes("lora")]
        return [(rank, size) for rank, size in pairs if size is not None]

    def sizes(self, label: str) -> list[int]:
        """A label's sizes, rising."""
        return sorted(size for name, size in self.budgets if name == label)


def cells_of(records: Iterable[Record], rates: Mapping[str, float] | None = None) -> Cells:
    """One task's cells from the records of its runs.

    Args:
        records: of one backbone, task, protocol and draw of the data.
        rates: the learning rate to take, by family, where a cell has several; without it, `cpadapt.frontier.frontier`
            chooses each cell's, on dev alone, and cells that had less of a choice (`at_all_rates`) are left out.

    Raises:
        InputError: the records are not of one backbone, task and protocol; or a cell has several rates and not the one
            to take.
    """
    records = list(records) if rates is not None else at_all_rates(records)
    by_cell: dict[tuple[str, int], dict[float | None, list[Record]]] = {}
    known: set[tuple[str, str, str]] = set()
    for record in records:
        config = record.config
        known.add((config.backbone, config.task, config.protocol.id))
        by_cell.setdefault((record.label, config.size), {}).setdefault(config.learning_rate, []).append(record)
    if len(known) > 1:
        raise InputError(f"cells are of one backbone, task and protocol, not of {len(known)}: {sorted(known)}")
    # Cells that several studies share are one cell here.
    best = frontier(tabulate(records)[0].assign(study="")) if rates is None else None
    on_dev = {} if best is None else best.set_index(["label", "size"])["learning_rate"].to_dict()
    budgets: dict[tuple[str, int], int] = {}
    found: dict[tuple[str, int], Outcomes] = {}
    diverged: dict[str, tuple[int, int]] = {}
    for (label, size), by_rate in by_cell.items():
        chosen = next(iter(by_rate.values()))
        if len(by_rate) > 1:
            family = chosen[0].config.family
            rate = on_dev[label, size] if rates is None else rates.get(family)
            if rate not in by_rate:
                raise InputError(f"{family} {size} has no run at the rate {rate}, but at {list(by_rate)}")
            chosen = by_rate[rate]
        tried = chosen if rates is not None else [r for runs in by_rate.values() for r in runs]
        stopped, runs = diverged.get(label, (0, 0))
        diverged[label] = stopped + sum(r.diverged_at is not None for r in tried), runs + len(tried)
        budgets[label, size] = chosen[0].counts.adapter
        if all(record.outcome is not None for record in chosen):
            found[label, size] = outcomes(chosen)
    majority = max((r.data["sets"]["eval"]["majority_rate"] for r in records), default=0.0)
    return Cells(budgets, found, diverged, majority)


def at_all_rates(records: Iterable[Record]) -> list[Record]:
    """The runs of those cells that were tried at every learning rate of their label, with every seed.

    Among them a choice of rates is fair. A label that was tried at fewer rates than another still has less of one.
    """
    records = list(records)
    tried: dict[tuple[str, int], set[tuple[float | None, int, int]]] = {}
    of_label: dict[str, set[tuple[float | None, int, int]]] = {}
    for record in records:
        c = record.config
        tried.setdefault((record.label, c.size), set()).add((c.learning_rate, c.seed, c.data_seed))
        of_label.setdefault(record.label, set()).add((c.learning_rate, c.seed, c.data_seed))
    return [r for r in records if tried[r.label, r.config.size] == of_label[r.label]]


def lora_ahead(of: Cells) -> Finding:
    """LoRA minus CP at matched budgets, on the average over these, is above 0."""
    return _compared(of, [(("lora", rank), ("cp", size)) for rank, size in of.matched()], ABOVE)


def lora_slightly_ahead(of: Cells) -> Finding:
    """LoRA minus CP at matched budgets, on the average over these, is above 0 and slight."""
    return _compared(of, [(("lora", rank), ("cp", size)) for rank, size in of.matched()], SLIGHTLY_ABOVE)


def cp_not_ahead(of: Cells) -> Finding:
    """CP minus LoRA at matched budgets, on the average over these, is below the margin."""
    return _compared(of, [(("cp", size), ("lora", rank)) for rank, size in of.matched()], NOT_AHEAD)


def cp_gains(of: Cells) -> Finding:
    """CP at LoRA's budgets, on the average over these, minus CP with one component is above 0."""
    return _compared(of, [(("cp", size), ("cp", 1)) for _, size in of.matched()], ABOVE)


def cp_saturates(of: Cells) -> Finding:
    """CP at LoRA's last budget minus CP at the middle one of LoRA's budgets is within the margin either way."""
    sizes = [size for _, size in of.matched()]
    pairs = [(("cp", sizes[-1]), ("cp", sizes[(len(sizes) - 1) // 2]))] if len(sizes) > 1 else []
    return _compared(of, pairs, ALIKE)


def first_rank_learns(of: Cells) -> Finding:
    """CP at the budget of LoRA's first rank minus the readout alone is above 0."""
    return _compared(of, [(("cp", size), (HEAD, 0)) for rank, size in of.matched() if rank == 1], ABOVE)


def flat_from_first_rank(of: Cells) -> Finding:
    """CP at LoRA's further budgets, on the average, minus CP at its first one's is within the margin either way."""
    (_, first), *further = of.matched() or [(0, 0)]
    return _compared(of, [(("cp", size), ("cp", first)) for _, size in further], ALIKE)


def splits_alike(of: Cells) -> Finding:
    """CP with each other tensor shape (labels that begin with cp-) minus the default one is within the margin.

    Each is compared at its own budget, as a shape changes what a component costs.
    """
    others = [cell for cell in of.budgets if cell[0].startswith("cp-")]
    # A size of none is no cell, so what has no counterpart is not measured.
    findings = [_compared(of, [(cell, ("cp", of.nearest(cell, "cp") or 0))], ALIKE) for cell in others]
    if not findings:
        return Finding(Verdict.UNMEASURED)
    worst = max(findings, key=lambda f: (f.verdict is Verdict.FAILS, abs(f.estimate.mean) if f.estimate else 0.0))
    return Finding(every(findings), worst.region, worst.estimate)


def trains_stably(of: Cells) -> Finding:
    """The share of CP's runs that diverge is below a tenth (a binomial test)."""
    stopped, runs = of.diverged.get("cp", (0, 0))
    if not runs:
        return Finding(Verdict.UNMEASURED)
    below, above = (
        float(stats.binomtest(stopped, runs, STABLE, alternative=side).pvalue) < LEVEL for side in ("less", "greater")
    )
    verdict = Verdict.HOLDS if below else Verdict.FAILS if above else Verdict.OPEN
    return Finding(verdict, diverged=(stopped, runs))


RULES: Mapping[str, Callable[[Cells], Finding]] = {
    rule.__name__: rule
    for rule in (
        trains_stably, first_rank_learns, flat_from_first_rank, cp_gains, cp_saturates, lora_ahead,
        lora_slightly_ahead, cp_not_ahead, splits_alike,
    )
}  # fmt: skip
"""By the names that a claim gives."""


def learned(of: Cells) -> Finding:
    """Adapters of both families at matched budgets, on the average, minus the floor are above 0.

    The floor is the readout alone, or always giving the commonest answer where that is better. The share of that
    answer is taken as known, although other items would have another.
    """
    adapters = [cell for rank, size in of.matched() for cell in (("lora", rank), ("cp", size))]
    cells = dict(of.outcomes)
    if (HEAD, 0) in cells and cells[HEAD, 0].right.mean() < of.majority:
        cells[HEAD, 0] = replace(cells[HEAD, 0], right=np.full_like(cells[HEAD, 0].right, of.majority))
    return _compared(replace(of, outcomes=cells), [(cell, (HEAD, 0)) for cell in adapters], ABOVE)


def judge(of: Cells, rules: Sequence[str]) -> tuple[Verdict, dict[str, Finding]]:
    """The verdict on a claim that asks for all of these rules, and their findings.

    Where it is not shown that the adapters learned anything, differences between them say nothing of a claim, and it
    cannot be told.
    """
    findings = {name: RULES[name](of) for name in rules}
    verdict = every(list(findings.values()))
    compares = any(finding.estimate is not None for finding in findings.values())
    if verdict is not Verdict.UNMEASURED and compares and learned(of).verdict is not Verdict.HOLDS:
        verdict = Verdict.OPEN
    return verdict, findings


def every(findings: Sequence[Finding]) -> Verdict:
    """Of a claim that says all of these: it fails if one does, and holds if all do."""
    verdicts = {finding.verdict for finding in findings}
    order = (Verdict.FAILS, Verdict.UNMEASURED, Verdict.OPEN)
    return next((verdict for verdict in order if verdict in verdicts), Verdict.HOLDS)


def _compared(of: Cells, pairs: Sequence[tuple[tuple[str, int], tuple[str, int]]], region: Region) -> Finding:
    """Judge the first minus the second, averaged over pairs of cells, seed by seed and item by item.

    It is not measured where a cell, or a seed of one, is missing.
    """
    if not pairs or any(cell not in of.outcomes for pair in pairs for cell in pair):
        return Finding(Verdict.UNMEASURED)
    cells = [(of.outcomes[a], of.outcomes[b]) for a, b in pairs]
    asked = {(cell.seeds, cell.items) for pair in cells for cell in pair}
    if len(asked) > 1 or len(cells[0][0].seeds) < 2:
        return Finding(Verdict.UNMEASURED)
    difference = estimate(np.mean([a.right - b.right for a, b in cells], axis=0))
    return Finding(region.judge(difference), region, difference)
