"""Paired differences between cells that differ in one thing: their family, their size or their split of the tensor.

Each difference is taken run by run with the same seeds, and item by item, so its error includes both
(`cpadapt.analysis.statistics`). Computations come first, as shares, and then their wording, in points.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from companion import PROJECT
from companion.claims import MARGIN, Verdict, learned
from companion.records import records
from companion.wording import bounds, signed
from cpadapt.analysis.across_tasks import random_effects
from cpadapt.analysis.cells import Cells, cells_of
from cpadapt.analysis.charts import cell_name, pair_name
from cpadapt.analysis.statistics import Estimate, compare, estimate, holm
from cpadapt.errors import InputError
from cpadapt.records.record import Record
from cpadapt.study import load_study

EQUIVALENCE = "p (equivalence)"
"""The column of p values of a difference of a point or more: small where two cells count as equal."""


@dataclass(frozen=True)
class Contrast:
    """One difference and its name."""

    group: str
    """The group of the difference, such as a task; p values are corrected over a group."""
    what: str
    estimate: Estimate


def on_record(studies: Sequence[str]) -> list[Record]:
    """The records of studies in the project's own `results`.

    Raises:
        InputError: as `companion.records.records`.
    """
    return [record for study in studies for record in records(study)]


def cells_on_record(studies: Sequence[str], task: str, seeds: Collection[int] | None = None) -> Cells:
    """A task's cells in the project's own `results`, with the runs that all cells have; none if nothing is on record.

    Args:
        studies: names of studies with one backbone and protocol.
        task: the task's name.
        seeds: only these seeds, for a comparison with a study that has fewer.

    Raises:
        InputError: as `on_record` and `cpadapt.analysis.cells.cells_of`.
    """
    of_task = [record for record in on_record(studies) if record.config.task == task]
    return cells_of(shared(r for r in of_task if seeds is None or r.config.seed in seeds))


def mean_of(first: Cells, other: Cells) -> Cells:
    """The mean of two runs on each draw, which count as one because they share its examples.

    The two seeds' initial weights are the same on all draws, so the errors of these means do not include their effect.

    Args:
        first: cells with runs on several draws.
        other: the same cells with other seeds, on the same draws and items.

    Returns:
        `first`, with the means as its outcomes.

    Raises:
        InputError: the two have different cells, draws or items, or share a run.
    """
    if alone := sorted(first.outcomes.keys() ^ other.outcomes.keys()):
        raise InputError(f"only one of the two has {cell_name(*alone[0])}")
    means = {}
    for cell, a in first.outcomes.items():
        b = other.outcomes[cell]
        if same := sorted(set(a.seeds) & set(b.seeds)):
            raise InputError(f"both have (seed, data seed) = {same[0]} of {cell_name(*cell)}: give two runs on a draw")
        if (a.items, [draw for _, draw in a.seeds]) != (b.items, [draw for _, draw in b.seeds]):
            raise InputError(f"the two runs of {cell_name(*cell)} do not have the same draws and items")
        means[cell] = replace(a, right=(a.right + b.right) / 2)
    return replace(first, outcomes=means)


def shared(records: Iterable[Record]) -> list[Record]:
    """The runs of the seeds and draws that all cells of one task share, at each of their learning rates.

    Cells are compared run by run, but in an unfinished study, or in two studies with different seeds, some cells have
    runs that others lack.
    """
    records = list(records)
    known: dict[tuple[str, int, float | None], set[tuple[int, int]]] = {}
    for record in records:
        c = record.config
        known.setdefault((record.label, c.size, c.learning_rate), set()).add((c.seed, c.data_seed))
    everywhere = set.intersection(*known.values()) if known else set()
    return [r for r in records if (r.config.seed, r.config.data_seed) in everywhere]


def pairs(cells: Cells, wanted: Sequence[tuple[tuple[str, int], tuple[str, int]]], group: str) -> list[Contrast]:
    """The first cell of each pair minus the second, where both have outcomes."""
    return [
        Contrast(group, pair_name(after, before), compare(cells.outcomes[after], cells.outcomes[before]))
        for after, before in wanted
        if {after, before} <= cells.outcomes.keys()
    ]


def families(cells: Cells, group: str) -> list[Contrast]:
    """LoRA minus CP at each matched budget, where both cells have outcomes."""
    return pairs(cells, [(("lora", rank), ("cp", size)) for rank, size in cells.matched("lora", "cp")], group)


def first_rank(studies: Sequence[str]) -> dict[tuple[str, str], Contrast]:
    """LoRA's first rank minus the largest CP at or under its budget, by backbone and task that both cells learn.

    `companion.claims.learned` decides whether they learn.
    """
    found = {}
    for study in studies:
        asked = load_study(PROJECT / "studies" / f"{study}.toml")
        for task in asked.specs():
            cells = cells_on_record((study,), task)
            if ("lora", 1) not in cells.budgets:
                continue
            size = max(size for size in cells.sizes("cp") if cells.budgets["cp", size] <= cells.budgets["lora", 1])
            if learned(cells, ("lora", 1), ("cp", size)).verdict is Verdict.HOLDS:
                (contrast,) = pairs(cells, [(("lora", 1), ("cp", size))], asked.backbone_name)
                found[asked.backbone_name, task] = contrast
    return found


def further_ranks(study: str) -> list[Contrast]:
    """LoRA minus CP, averaged over matched budgets, on each task of a study that all of these cells learn."""
    found = []
    asked = load_study(PROJECT / "studies" / f"{study}.toml")
    for task, spec in asked.specs().items():
        cells = cells_on_record((study,), task)
        if learned(cells).verdict is Verdict.HOLDS:
            gaps = [
                cells.outcomes["lora", rank].right - cells.outcomes["cp", size].right
                for rank, size in cells.matched("lora", "cp")
            ]
            found.append(Contrast(asked.backbone_name, str(spec.title), estimate(np.mean(gaps, axis=0))))
    return found


def splits(cells: Cells, group: str) -> list[Contrast]:
    """CP with each other split of the tensor (labels that begin with `cp-`) minus the default at the nearest budget.

    A split changes what a component costs, so the two have different numbers of components. A cell
    without a counterpart is left out.
    """
    matches = [(cell, cells.nearest(cell, "cp")) for cell in sorted(cells.outcomes) if cell[0].startswith("cp-")]
    return [
        Contrast(
            group,
            f"{split_name(label)}, {size} − {cell_name('cp', default)}",
            compare(cells.outcomes[label, size], cells.outcomes["cp", default]),
        )
        for (label, size), default in matches
        if default is not None and ("cp", default) in cells.outcomes
    ]


def split_name(label: str) -> str:
    """The printed name of a split, such as `8·8·9` for `cp-8x8x9`."""
    return label.removeprefix("cp-").replace("x", "·")


def frame(contrasts: Sequence[Contrast]) -> pd.DataFrame:
    """Contrasts as a table.

    Returns:
        One row for each, in their order, with the columns `group`, `what`, `seeds`, `mean`, `low` and `high` (the 95 %
        interval), `p` (of no difference), `holm` (p after Holm's correction over the group) and `p_alike` (of a
        difference of a point, `companion.claims.MARGIN`, or more).
    """
    rows = []
    for contrast in contrasts:
        e = contrast.estimate
        low, high = e.interval()
        rows.append(
            {"group": contrast.group, "what": contrast.what, "seeds": e.seeds, "mean": e.mean, "low": low,
             "high": high, "p": e.p_value(), "p_alike": e.equivalence_p_value(MARGIN)}
        )  # fmt: skip
    table = pd.DataFrame(rows)
    return table.assign(holm=table.groupby("group")["p"].transform(lambda p: holm(p.tolist())))


@dataclass(frozen=True)
class Pooled:
    """The mean of several true differences, and their spread."""

    mean: float
    interval: tuple[float, float]
    """The 95 % interval of the mean."""
    spread: float
    """The standard deviation of the true differences."""


def pooled(contrasts: Sequence[Contrast]) -> Pooled:
    """The mean over contrasts that are a sample from a population, such as tasks, each with its own true difference.

    The differences are random effects (`cpadapt.analysis.across_tasks.random_effects`). The interval is Knapp and
    Hartung's, or the one without their factor if it is wider.

    Raises:
        InputError: there are fewer than two.
    """
    if len(contrasts) < 2:
        raise InputError(f"{len(contrasts)} differences: estimating their spread takes two or more")
    found = random_effects(
        np.array([c.estimate.mean for c in contrasts]), np.array([c.estimate.standard_error for c in contrasts])
    )
    wider = replace(found, standard_error=max(found.standard_error, found.given_spread_error))
    return Pooled(found.mean, wider.interval(), found.spread)


def columns(difference: str, p: str, p_alike: str) -> dict[str, str]:
    """What `contrast_table` shows, of differences that are quantities (`companion.quantities.table`).

    Args:
        difference: the names of the differences.
        p: those of their p values after Holm's correction.
        p_alike: those of a difference of a point or more.
    """
    return {
        "seeds": f"{difference}|n",
        "points": f"{difference}|signed",
        "95 % interval": f"{difference}|interval|signed",
        "Holm": p,
        EQUIVALENCE: p_alike,
    }


def contrast_table(table: pd.DataFrame, group: str, what: str) -> pd.DataFrame:
    """`frame` as a printed table, in points.

    Args:
        table: as `frame` returns it.
        group: the title of the column of groups.
        what: the title of the column of differences.
    """
    return pd.DataFrame(
        {
            group: table["group"],
            what: table["what"],
            "seeds": table["seeds"],
            "points": [signed(mean, 2) for mean in table["mean"]],
            "95 % interval": table[["low", "high"]].apply(bounds, axis=1, digits=2),
            "Holm": table["holm"].map("{:.3f}".format),
            EQUIVALENCE: table["p_alike"].map("{:.3f}".format),
        }
    )
