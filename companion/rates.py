"""The effect of the learning rate beside that of the budget, on one task's cells at the same rates of their family.

Rates are chosen on dev alone. Errors count seeds and items (`cpadapt.analysis.statistics`), and take a choice of rates
as given: what another dev set would have chosen is no part of them. As in `companion.ladder`, what is computed comes
first, as shares, and then what words it, in percent and points.
"""

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion import PROJECT, quantities
from companion.contrasts import on_record
from cpadapt.analysis.cells import Cells, at_all_rates, cells_of, choose_rates, gives_one_class
from cpadapt.analysis.charts import cell_name, family_name, task_name
from cpadapt.analysis.statistics import Estimate, Floats, estimate, outcomes, require_pairs
from cpadapt.errors import InputError
from cpadapt.families import family
from cpadapt.records.config import HEAD, Cell
from cpadapt.records.record import Record
from cpadapt.records.table import tabulate
from cpadapt.study import Study, load_study

REDRAWN = 4000
"""The number of dev sets to resample."""

PAIRED = ("lora", "cp")
"""The families in the order of `cpadapt.analysis.cells.Cells.matched("lora", "cp")`."""

PAPER_RATES: Mapping[str, float] = {name: family(name).LEARNING_RATE for name in PAIRED}
"""The paper's rate, by family."""

ONE_ANSWER = "one answer"
"""The text for two cells whose runs all give one answer."""

PAPER, FAMILY, CELL = "the paper's", "one a family", "one a cell"
WAYS: Mapping[str, str] = {"papers": PAPER, "family": FAMILY, "cell": CELL}
"""Where learning rates come from, by the name that quantities have; all but the first are chosen on dev."""

TASKS = ("sst2", "rte", "boolq")
"""That were tried at several rates."""


@functools.cache
def study() -> Study:
    """The study that tries further rates."""
    return load_study(PROJECT / "studies" / "smollm2-rates.toml")


def cells() -> dict[str, Cell]:
    """The cells that were tried at all rates of their family, by the name that quantities have."""
    return {f"{label}{size}": (label, size) for label, sizes in sorted(study().ladder.sizes.items()) for size in sizes}


def times() -> dict[str, float]:
    """The rates that were tried, as multiples of the paper's, by the name that quantities have."""
    further = [round(rate / PAPER_RATES["lora"], 9) for rate in study().families["lora"].learning_rates or ()]
    return {f"times{of_the_papers:g}": of_the_papers for of_the_papers in (1.0, *further)}


def runs_at_all_rates(studies: Sequence[str], task: str) -> list[Record]:
    """A task's runs in the project's own `results`, for cells that were tried at all rates of their family.

    Raises:
        InputError: there are no records of the task, or as `companion.records.records`.
    """
    runs = [r for r in on_record(studies) if r.config.task == task]
    if not runs:
        raise InputError(f"no record of {task!r} in the results of {', '.join(studies)}: measure it first")
    return at_all_rates(runs)


def response(records: Sequence[Record]) -> pd.DataFrame:
    """The accuracy of each cell at each rate, without the readout alone.

    Args:
        records: one task's runs, with those of the readout alone, as `runs_at_all_rates` returns them.

    Returns:
        One row for each cell and rate, ascending, with the columns `label`, `size`, `parameters`, `learning_rate`,
        `times` (that rate divided by the paper's), `runs`, `diverged`, `mean` and `error` (on eval, over seeds and
        items; missing where a run has no outcome), `dev` (the mean on dev), `unfit` (the number of runs that diverged
        or end with a training loss above the readout's mean), `constant` (the number of runs that give one answer, see
        `one_answer`) and `chosen` (whether dev chose the rate, see `cell_rates`).

    Raises:
        InputError: no run trains the readout alone, or none has an adapter; or as
            `cpadapt.analysis.statistics.estimate`.
    """
    runs, evaluations = tabulate(records)
    if not 0 < (runs["label"] == HEAD).sum() < len(runs):
        raise InputError("a response needs runs with an adapter and runs of the readout alone")
    last = evaluations[evaluations["step"] == evaluations["step"].max()].set_index("id")["train_loss"]
    floor = last[runs.loc[runs["label"] == HEAD, "id"]].mean()
    by_id = {record.id: record for record in records}
    constant, chosen = one_answer(records), cell_rates(records)
    rows = []
    cell = ["label", "size", "parameters", "learning_rate"]
    for place, group in runs[runs["label"] != HEAD].groupby(cell):
        label, size, parameters, rate = cast("tuple[str, int, int, float]", place)
        judged = [by_id[name] for name in group["id"]]
        e = estimate(outcomes(judged).right) if all(record.outcome for record in judged) else None
        rows.append(
            {"label": label, "size": size, "parameters": parameters, "learning_rate": rate,
             "times": round(rate / PAPER_RATES[label], 9), "runs": len(group),
             "diverged": group["diverged_at"].count(), "mean": e.mean if e else np.nan,
             "error": e.standard_error if e else np.nan, "dev": group["dev_accuracy"].mean(),
             "unfit": len(group) - int((last.reindex(group["id"]) <= floor).sum()),
             "constant": len(constant & set(group["id"])), "chosen": chosen[label, size] == rate}
        )  # fmt: skip
    return pd.DataFrame(rows)


def floor(records: Iterable[Record]) -> float:
    """The mean accuracy on eval of the readout alone."""
    runs, _ = tabulate(list(records))
    return float(runs.loc[runs["label"] == HEAD, "eval_accuracy"].mean())


def one_answer(records: Iterable[Record]) -> set[str]:
    """The ids of runs that give the same answer to every evaluation item."""
    asked = [(record.id, record.outcome, record.outcome.label) for record in records if record.outcome]
    return {
        name for name, outcome, classes in asked if classes is not None and gives_one_class(outcome.is_right, classes)
    }


def commonest(records: Iterable[Record]) -> NDArray[np.bool_]:
    """`[items]`, whether each evaluation item is in the most frequent class, by ascending row.

    Raises:
        InputError: none of these records has the items' classes.
    """
    for record in records:
        if record.outcome and record.outcome.label is not None:
            is_most: NDArray[np.bool_] = record.outcome.label == np.bincount(record.outcome.label).argmax()
            return is_most
    raise InputError("none of these records has the items' classes")


def adapters(cells: Cells) -> Floats:
    """`[runs, items]`, the answers of both families' adapters at matched budgets, averaged over these.

    Raises:
        InputError: as `cpadapt.analysis.statistics.require_pairs`.
    """
    found = [
        cells.outcomes[label, size]
        for pair in cells.matched("lora", "cp")
        for label, size in zip(PAIRED, pair, strict=True)
    ]
    require_pairs(found)
    right: Floats = np.mean([outcomes.right for outcomes in found], axis=0)
    return right


def moved(found: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """The range of accuracy, from worst to best, over the rates at one size and over the sizes at one rate.

    Both ranges contain the noise of their cells, and more of it the more cells there are.

    Args:
        found: as `response` returns it.

    Returns:
        By label, the range over rates, averaged over sizes, and the range over sizes, averaged over rates.
    """
    distances = {}
    for label, group in found.groupby("label"):
        reached = group.pivot_table(index="size", columns="learning_rate", values="mean").to_numpy()
        distances[str(label)] = float(np.ptp(reached, axis=1).mean()), float(np.ptp(reached, axis=0).mean())
    return distances


def dev_family_rates(found: pd.DataFrame) -> dict[str, float]:
    """For each family, the rate with the highest mean on dev over all its cells (the lowest of several).

    As in `cpadapt.analysis.frontier.frontier`, a rate at which fewer runs diverged comes first.

    Args:
        found: as `response` returns it.
    """
    means = found.groupby(["label", "learning_rate"]).agg(dev=("dev", "mean"), diverged=("diverged", "sum"))
    best = means.reset_index().sort_values(["diverged", "dev", "learning_rate"], ascending=[True, False, True])
    best = best.drop_duplicates("label")
    return dict(zip(best["label"], best["learning_rate"], strict=True))


def cell_rates(records: Iterable[Record]) -> dict[tuple[str, int], float]:
    """The rate that dev chose for each cell with an adapter, as in `cpadapt.analysis.frontier.frontier`."""
    chosen = {cell: setting.learning_rate for cell, setting in choose_rates(records).items()}
    return {cell: rate for cell, rate in chosen.items() if rate is not None}


def ways(records: Sequence[Record]) -> dict[str, Cells]:
    """The cells at the rates from each of `WAYS`."""
    return {
        PAPER: cells_of(records, PAPER_RATES),
        FAMILY: cells_of(records, dev_family_rates(response(records))),
        CELL: cells_of(records),
    }


def gain(before: Cells, after: Cells, label: str) -> Estimate:
    """A family's accuracy in `after` minus that in `before`, averaged over sizes at matched budgets, run and item
    paired.

    Raises:
        InputError: as `cpadapt.analysis.statistics.require_pairs`.
    """
    place = PAIRED.index(label)
    cells = [(label, pair[place]) for pair in before.matched("lora", "cp")]
    require_pairs([side.outcomes[cell] for cell in cells for side in (before, after)])
    return estimate(np.mean([after.outcomes[cell].right - before.outcomes[cell].right for cell in cells], axis=0))


def gap_change(before: Cells, after: Cells) -> Estimate:
    """LoRA minus CP at matched budgets in `after`, minus the same in `before`, run by run and item by item.

    Raises:
        InputError: as `cpadapt.analysis.statistics.require_pairs`.
    """
    pairs = [(("lora", rank), ("cp", size)) for rank, size in before.matched("lora", "cp")]
    require_pairs([side.outcomes[cell] for pair in pairs for cell in pair for side in (before, after)])
    gaps = [
        np.mean([side.outcomes[a].right - side.outcomes[b].right for a, b in pairs], axis=0)
        for side in (before, after)
    ]
    return estimate(gaps[1] - gaps[0])


def optimism(records: Sequence[Record]) -> float:
    """How far the best of a cell's rates on eval is above the rate that dev chose, averaged over cells."""
    found = response(records)
    best = found.groupby(["label", "size"])["mean"].max()
    return float(best.mean() - found.loc[found["chosen"], "mean"].mean())


def redrawn_gaps(records: Sequence[Record], draws: int, generator: np.random.Generator) -> Floats:
    """LoRA minus CP at matched budgets on the same eval, at the rates that other dev sets would choose for each cell.

    Another dev set is assumed to change a cell's accuracy on dev at a rate by as much as a resample of eval's items,
    of dev's size, changes it on eval; items are paired over cells. The noise of the existing dev set remains, so the
    spread of the results is somewhat too large.

    Args:
        records: one task's runs, as `runs_at_all_rates` returns them.
        draws: the number of dev sets.
        generator: for the resamples.

    Returns:
        `[draws]`, shares, each an average over the matched budgets.

    Raises:
        InputError: as `response`, or as `cpadapt.analysis.statistics.outcomes`.
    """
    found = response(records).sort_values(["label", "size", "learning_rate"])
    by_cell: dict[tuple[str, int, float], list[Record]] = {}
    for record in records:
        c = record.config
        if c.learning_rate is not None:
            by_cell.setdefault((record.label, c.size, c.learning_rate), []).append(record)
    right = {place: outcomes(runs).right.mean(0) for place, runs in by_cell.items()}
    size = records[0].data["sets"]["dev"]["size"]
    items = len(next(iter(right.values())))
    shares = generator.multinomial(size, np.full(items, 1 / items), draws) / size
    gaps = np.zeros(draws)
    pairs = cells_of(records).matched("lora", "cp")
    for pair in pairs:
        for label, sign, own in zip(PAIRED, (1, -1), pair, strict=True):
            group = found[(found["label"] == label) & (found["size"] == own)]
            table = np.array([right[label, own, rate] for rate in group["learning_rate"]])
            means = table.mean(1)
            chosen = (group["dev"].to_numpy() + shares @ table.T - means).argmax(1)
            gaps += sign * means[chosen] / len(pairs)
    return gaps


def said(of_the_papers: float) -> str:
    """A multiple of the paper's rate, to read."""
    return f"{of_the_papers:.3g}×"


def response_table(task: str) -> pd.DataFrame:
    """What each cell reaches on a task at each multiple of the paper's rate, to read, and which of them dev chose."""
    columns = {said(found): f"rates.reached.{task}.{{}}.{name}" for name, found in times().items()}
    rows = {name: cell_name(*cell) for name, cell in cells().items()}
    return quantities.table(rows, columns | {"dev chose": f"rates.chosen.{task}.{{}}"}, "adapter")


def moved_table() -> pd.DataFrame:
    """`moved` to read, in points; of all rates, and without the highest."""
    columns = {
        "over the rates": "rates.by_rate.{}.{}", "over the sizes": "rates.by_size.{}.{}",
        "rates, but one": "rates.by_lower_rate.{}.{}", "sizes, but one": "rates.by_size_at_lower_rates.{}.{}",
    }  # fmt: skip
    rows = {
        f"{task}.{name}": (task_name(task), family_name(name))
        for task, name in itertools.product(TASKS, sorted(PAIRED))
    }
    return quantities.table(rows, columns, ("task", "family"))


def ways_table() -> pd.DataFrame:
    """The families at matched budgets, by task and by the way to a rate, to read."""
    columns = {
        "LoRA's, CP's": "rates.given.{}.{}",
        "LoRA − CP": "rates.lead_judged.{}.{}|signed",
        "90 % interval": "rates.lead_judged.{}.{}|interval|signed",
    }
    rows = {f"{task}.{way}": (task_name(task), called) for task in TASKS for way, called in WAYS.items()}
    return quantities.table(rows, columns, ("task", "rates"))


def single_table() -> pd.DataFrame:
    """CP minus LoRA at each matched budget, at the rates that dev chose, to read."""
    columns = {
        "CP": "rates.matched.{1}", "CP − LoRA, points": "rates.at_budget.{}.{}|signed",
        "95 % interval": "rates.at_budget.{}.{}|interval|signed", "p": "rates.at_budget_p.{}.{}",
        "Holm": "rates.at_budget_holm.{}.{}", "alike": "rates.at_budget_alike.{}.{}",
    }  # fmt: skip
    ranks = {name: size for name, (label, size) in cells().items() if label == "lora"}
    rows = {f"{task}.{name}": (task_name(task), str(size)) for task in TASKS for name, size in ranks.items()}
    return quantities.table(rows, columns, ("task", "LoRA"))
