"""One task's cells along their budgets, for the task's chapter: estimates and printed tables.

Errors and intervals include seeds and items (`cpadapt.analysis.statistics`). The first half computes, in shares as in
the records; the second half words the results, in points and percent.
"""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from companion.claims import MARGIN
from companion.contrasts import EQUIVALENCE, Contrast, frame
from companion.records import records
from companion.wording import bounds, percent, signed
from cpadapt.analysis.cells import Cells, cells_of
from cpadapt.analysis.charts import cell_name
from cpadapt.analysis.statistics import Outcomes, agreement, compare, estimate, plateau, resampled_means
from cpadapt.errors import InputError
from cpadapt.records.config import HEAD, Cell, Protocol
from cpadapt.records.table import tabulate


@dataclass(frozen=True)
class TaskOnRecord:
    """The records of one task of a study."""

    cells: Cells
    runs: pd.DataFrame
    """The table of runs that `cpadapt.tabulate` returns."""
    evaluations: pd.DataFrame
    """The table of evaluations that it returns."""
    protocol: Protocol
    majority: dict[str, float]
    """The share of the most frequent label in each of the sets `train`, `dev` and `eval`."""
    examples: dict[str, int]
    """The number of examples drawn for each set."""


@functools.cache
def task_on_record(study: str, task: str) -> TaskOnRecord:
    """A task's runs in the project's own `results`, of a study with one learning rate for each family.

    Raises:
        InputError: there are no such runs, or as `companion.records.records`.
    """
    runs = [r for r in records(study) if r.config.task == task]
    if not runs:
        raise InputError(f"no record of {task!r} in results/{study}: measure it first")
    majority, examples = (
        {name: found[what] for name, found in runs[0].data["sets"].items()} for what in ("majority_rate", "size")
    )
    return TaskOnRecord(cells_of(runs), *tabulate(runs), runs[0].config.protocol, majority, examples)


def accuracies(cells: Cells) -> pd.DataFrame:
    """The accuracy of each cell, with its uncertainty.

    Returns:
        One row for each cell, by label and budget, with the columns `label`, `size`, `parameters`, `mean`, `sd` (of
        the seeds' means, with n−1) and `error` (the standard error of the mean over seeds and items).
    """
    rows = []
    for (label, size), outcomes in sorted(cells.outcomes.items()):
        e = estimate(outcomes.right)
        sd = float(outcomes.right.mean(1).std(ddof=1))
        rows.append(
            {"label": label, "size": size, "parameters": cells.budgets[label, size], "mean": e.mean, "sd": sd,
             "error": e.standard_error}
        )  # fmt: skip
    return pd.DataFrame(rows)


def differences(cells: Cells) -> pd.DataFrame:
    """CP minus LoRA at each matched budget, run by run with the same seeds and item by item.

    Returns:
        One row for each pair, by budget, with the columns `rank`, `components`, `mean`, `low` and `high` (the 95 %
        interval), `p` (of no difference), `holm` (p after Holm's correction over all pairs) and `p_alike` (of a
        difference of a point, `companion.claims.MARGIN`, or more).
    """
    pairs = cells.matched("lora", "cp")
    found = [compare(cells.outcomes["cp", components], cells.outcomes["lora", rank]) for rank, components in pairs]
    names = pd.DataFrame(pairs, columns=["rank", "components"])
    return names.join(frame([Contrast("", "", e) for e in found])[["mean", "low", "high", "p", "p_alike", "holm"]])


def plateau_size(cells: Cells, label: str) -> int:
    """The smallest size of a family that is at most a point (`companion.claims.MARGIN`) worse than its best.

    Raises:
        InputError: no cell has this label.
    """
    known = cells.sizes(label)
    if not known:
        raise InputError(f"no cell of {label!r}: there are {sorted({name for name, _ in cells.outcomes})}")
    return known[int(plateau(np.array([cells.outcomes[label, size].right.mean() for size in known]), MARGIN))]


def plateaus(cells: Cells, label: str, draws: int, generator: np.random.Generator) -> pd.DataFrame:
    """The uncertainty of `plateau_size`.

    Returns:
        One row for each size, ascending, with the columns `size`, `chosen` (whether it is `plateau_size`) and `share`
        (the share of draws of seeds and items in which it is).

    Raises:
        InputError: as `plateau_size`.
    """
    known, at = cells.sizes(label), plateau_size(cells, label)
    rising = [cells.outcomes[label, size] for size in known]
    drawn = np.bincount(plateau(resampled_means(rising, draws, generator), MARGIN), minlength=len(known))
    return pd.DataFrame({"size": known, "chosen": [size == at for size in known], "share": drawn / draws})


def changes(before: Outcomes, after: Outcomes) -> dict[str, Any]:
    """The items whose answer differs between two cells.

    Returns:
        `gained` and `lost`, tuples of items (row numbers in the evaluation split's source) that all runs of one
        cell get wrong and all of the other get right; `alike`, the share of items on which two runs of different seeds
        agree, one from each cell; `alike_before` and `alike_after`, the same within each cell.

    Raises:
        InputError: as `cpadapt.analysis.statistics.agreement`.
    """
    alike = agreement(before, after)
    always, never = (lambda cell: cell.right.min(0) == 1), (lambda cell: cell.right.max(0) == 0)
    items = np.array(before.items)
    return {
        "gained": tuple(items[never(before) & always(after)].tolist()),
        "lost": tuple(items[always(before) & never(after)].tolist()),
        "alike": alike,
        "alike_before": agreement(before, before),
        "alike_after": agreement(after, after),
    }


def ends(cells: Cells) -> list[tuple[Cell, Cell]]:
    """The pairs of cells that a chapter compares item by item, along the budgets and between the families."""
    first, last = ({label: cells.sizes(label)[at] for label in ("cp", "lora")} for at in (0, -1))
    return [
        ((HEAD, 0), ("cp", first["cp"])),
        (("cp", first["cp"]), ("cp", last["cp"])),
        (("lora", first["lora"]), ("lora", last["lora"])),
        (("lora", last["lora"]), ("cp", last["cp"])),
    ]


def last_losses(evaluations: pd.DataFrame) -> dict[Cell, float]:
    """Each cell's mean training loss over its seeds, since the evaluation before the last.

    Args:
        evaluations: one task's evaluations at one rate for each family, as `cpadapt.tabulate` returns them.
    """
    last = evaluations[evaluations["step"] == evaluations["step"].max()]
    means = last.groupby(["label", "size"])["train_loss"].mean()
    return {(str(label), int(size)): float(loss) for (label, size), loss in means.items()}


def accuracy_table(cells: Cells, evaluations: pd.DataFrame) -> pd.DataFrame:
    """`accuracies` as a printed table, in percent and points, with balanced accuracy, if known, and `last_losses`."""
    table, losses = accuracies(cells), last_losses(evaluations)
    shown = {"mean": "accuracy, %", "sd": "sd over seeds", "error": "standard error"}
    names = list(zip(table["label"], table["size"], strict=True))
    balanced = {"balanced, %": [percent(cells.balanced(cell).mean()) for cell in names]} if cells.classes else {}
    return pd.DataFrame(
        {"adapter": [cell_name(*cell) for cell in names], "scalars": table["parameters"].map("{:,}".format)}
        | {title: table[name].map(percent) for name, title in shown.items()}
        | balanced
        | {"training loss": [f"{losses[cell]:.3f}" for cell in names]}
    )


def difference_table(cells: Cells) -> pd.DataFrame:
    """`differences` as a printed table, in points."""
    table = differences(cells)
    return pd.DataFrame(
        {
            "LoRA": table["rank"],
            "CP": table["components"],
            "CP − LoRA, points": table["mean"].map(signed),
            "95 % interval": table[["low", "high"]].apply(bounds, axis=1),
            "p": table["p"].map("{:.3f}".format),
            "Holm": table["holm"].map("{:.3f}".format),
            EQUIVALENCE: table["p_alike"].map("{:.3f}".format),
        }
    )


def plateau_table(cells: Cells, draws: int = 2000) -> pd.DataFrame:
    """`plateaus` of both families as a printed table, with fixed draws."""
    rows = []
    for label in ("cp", "lora"):
        table = plateaus(cells, label, draws, np.random.default_rng(0))
        rows += [
            {
                "adapter": cell_name(label, size),
                "within a point of the best": "first" if chosen else "",
                "draws in which it is the first, %": percent(share, 0),
            }
            for size, chosen, share in zip(table["size"], table["chosen"], table["share"], strict=True)
        ]
    return pd.DataFrame(rows)


def change_table(cells: Cells) -> pd.DataFrame:
    """`changes` between the cells of `ends` as a printed table."""
    rows = []
    for before, after in ends(cells):
        found = changes(cells.outcomes[before], cells.outcomes[after])
        rows.append(
            {
                "from, to": f"{cell_name(*before)}, {cell_name(*after)}",
                "agree, %": percent(found["alike"]),
                "seeds of the first, %": percent(found["alike_before"]),
                "seeds of the second, %": percent(found["alike_after"]),
                "gained": len(found["gained"]),
                "lost": len(found["lost"]),
            }
        )
    return pd.DataFrame(rows)
