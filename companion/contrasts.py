"""Paired differences between cells that differ in one thing: their family, their readout or their split of the tensor.

Each is taken run by run with the same seeds and item by item, so its error counts both
(`cpadapt.analysis.statistics`). What is computed comes first, as shares; then what words it, in points.
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


@dataclass(frozen=True)
class Contrast:
    """One difference and what it is of."""

    group: str
    """What it belongs to, such as a task; p values are corrected over all of a group."""
    what: str
    estimate: Estimate


def on_record(studies: Sequence[str]) -> list[Record]:
    """The records of studies in the project's own `results`.

    Raises:
        InputError: as `companion.records.records`.
    """
    return [record for study in studies for record in records(study)]


def measured(studies: Sequence[str], task: str, seeds: Collection[int] | None = None) -> Cells:
    """A task's cells in the project's own `results`, of runs that all cells have; none where nothing is on record.

    Args:
        studies: by name, of one backbone and protocol.
        task: by name.
        seeds: only these, as where a study is compared to one that has fewer.

    Raises:
        InputError: as `on_record` and `cpadapt.analysis.cells.cells_of`.
    """
    of_task = [record for record in on_record(studies) if record.config.task == task]
    return cells_of(shared(r for r in of_task if seeds is None or r.config.seed in seeds))


def mean_of(first: Cells, other: Cells) -> Cells:
    """The mean of two runs on each draw, which count as one because they share its examples.

    What their two seeds' initial weights do is the same for all draws, so that it is in no error of these means.

    Args:
        first: cells whose runs are of several draws.
        other: the same cells, of other seeds on the same draws and items.

    Returns:
        The first, with the means for its outcomes.

    Raises:
        InputError: the two are not of the same cells, draws or items, or share a run.
    """
    if alone := sorted(first.outcomes.keys() ^ other.outcomes.keys()):
        raise InputError(f"only one of the two has {cell_name(*alone[0])}")
    means = {}
    for cell, a in first.outcomes.items():
        b = other.outcomes[cell]
        if same := sorted(set(a.seeds) & set(b.seeds)):
            raise InputError(f"both have (seed, data seed) = {same[0]} of {cell_name(*cell)}: give two runs on a draw")
        if (a.items, [draw for _, draw in a.seeds]) != (b.items, [draw for _, draw in b.seeds]):
            raise InputError(f"the two runs of {cell_name(*cell)} are not of the same draws and items")
        means[cell] = replace(a, right=(a.right + b.right) / 2)
    return replace(first, outcomes=means)


def shared(records: Iterable[Record]) -> list[Record]:
    """The runs of those seeds and draws that each cell of one task has, at each of its learning rates.

    Cells are compared run by run, and of a study under way, or of two with unlike seeds, some have runs that others
    have not.
    """
    records = list(records)
    known: dict[tuple[str, int, float | None], set[tuple[int, int]]] = {}
    for record in records:
        c = record.config
        known.setdefault((record.label, c.size, c.learning_rate), set()).add((c.seed, c.data_seed))
    everywhere = set.intersection(*known.values()) if known else set()
    return [r for r in records if (r.config.seed, r.config.data_seed) in everywhere]


def pairs(of: Cells, wanted: Sequence[tuple[tuple[str, int], tuple[str, int]]], group: str) -> list[Contrast]:
    """The first cell of each pair minus the second, where both have outcomes."""
    return [
        Contrast(group, pair_name(after, before), compare(of.outcomes[after], of.outcomes[before]))
        for after, before in wanted
        if {after, before} <= of.outcomes.keys()
    ]


def families(of: Cells, group: str) -> list[Contrast]:
    """LoRA minus CP at each matched budget, where both cells have outcomes."""
    return pairs(of, [(("lora", rank), ("cp", size)) for rank, size in of.matched("lora", "cp")], group)


def between(before: Cells, after: Cells, group: str) -> list[Contrast]:
    """Each cell after minus the same before, of those that both have."""
    return [
        Contrast(group, cell_name(*cell), compare(after.outcomes[cell], before.outcomes[cell]))
        for cell in sorted(before.outcomes)
        if cell in after.outcomes
    ]


def first_rank(studies: Sequence[str]) -> dict[tuple[str, str], Contrast]:
    """LoRA's first rank minus the largest CP at or under its budget, by backbone and task that both cells learn.

    Whether they do is `companion.claims.learned`'s verdict.
    """
    found = {}
    for study in studies:
        asked = load_study(PROJECT / "studies" / f"{study}.toml")
        for task in asked.specs():
            of = measured((study,), task)
            if ("lora", 1) not in of.budgets:
                continue
            size = max(size for size in of.sizes("cp") if of.budgets["cp", size] <= of.budgets["lora", 1])
            if learned(of, ("lora", 1), ("cp", size)).verdict is Verdict.HOLDS:
                (contrast,) = pairs(of, [(("lora", 1), ("cp", size))], asked.backbone_name)
                found[asked.backbone_name, task] = contrast
    return found


def further_ranks(study: str) -> list[Contrast]:
    """LoRA minus CP, on the average over the matched budgets, on each task of a study on which all of these learn."""
    found = []
    asked = load_study(PROJECT / "studies" / f"{study}.toml")
    for task, spec in asked.specs().items():
        of = measured((study,), task)
        if learned(of).verdict is Verdict.HOLDS:
            gaps = [
                of.outcomes["lora", rank].right - of.outcomes["cp", size].right
                for rank, size in of.matched("lora", "cp")
            ]
            found.append(Contrast(asked.backbone_name, str(spec.title), estimate(np.mean(gaps, axis=0))))
    return found


def splits(of: Cells, group: str) -> list[Contrast]:
    """CP with each other split of the tensor (labels that begin with `cp-`) minus the default at the nearest budget.

    A split changes what a component costs, so the two have different numbers of components. What has no counterpart
    with outcomes is left out.
    """
    pairs = [(cell, of.nearest(cell, "cp")) for cell in sorted(of.outcomes) if cell[0].startswith("cp-")]
    return [
        Contrast(
            group,
            f"{split_name(label)}, {size} − {cell_name('cp', default)}",
            compare(of.outcomes[label, size], of.outcomes["cp", default]),
        )
        for (label, size), default in pairs
        if default is not None and ("cp", default) in of.outcomes
    ]


def split_name(label: str) -> str:
    """What a reader sees of a split, such as `8·8·9` for `cp-8x8x9`."""
    return label.removeprefix("cp-").replace("x", "·")


def frame(contrasts: Sequence[Contrast]) -> pd.DataFrame:
    """Contrasts as a table.

    Returns:
        One row each, in their order, with the columns `group`, `what`, `seeds`, `mean`, `low` and `high` (the 95 %
        interval), `p` (of no difference), `holm` (that after Holm's correction over the group) and `p_alike` (of a
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
    """The mean of several true differences, and how far they lie from it."""

    mean: float
    interval: tuple[float, float]
    """95 %."""
    spread: float
    """The standard deviation of the true differences."""


def pooled(contrasts: Sequence[Contrast]) -> Pooled:
    """The mean over contrasts that are a sample of like ones, such as tasks, each with its own true difference.

    Random effects (`cpadapt.analysis.across_tasks.random_effects`); the interval is Knapp and Hartung's, or that
    without their factor if it is wider.

    Raises:
        InputError: there are fewer than two.
    """
    if len(contrasts) < 2:
        raise InputError(f"{len(contrasts)} differences: how far they spread takes two or more")
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
        "alike": p_alike,
    }


def contrast_table(table: pd.DataFrame, group: str, what: str) -> pd.DataFrame:
    """`frame` to read, in points.

    Args:
        table: as `frame` gives it.
        group: the title of the groups.
        what: the title of what is compared.
    """
    return pd.DataFrame(
        {
            group: table["group"],
            what: table["what"],
            "seeds": table["seeds"],
            "points": [signed(mean, 2) for mean in table["mean"]],
            "95 % interval": table[["low", "high"]].apply(bounds, axis=1, digits=2),
            "Holm": table["holm"].map("{:.3f}".format),
            "alike": table["p_alike"].map("{:.3f}".format),
        }
    )
