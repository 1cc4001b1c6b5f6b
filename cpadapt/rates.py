"""What the learning rate moves, beside the budget: one task's cells, all tried at the same rates of their family.

Rates are chosen on dev alone. Errors count seeds and items (`cpadapt.statistics`), and take a choice of rates as
given: what another dev set would have chosen is no part of them. As in `cpadapt.ladder`, what is computed comes first,
as shares, and then what words it, in percent and points.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import numpy as np
import pandas as pd

from cpadapt.book import PROJECT
from cpadapt.charts import FAMILY_NAMES, TASK_NAMES, cell_name
from cpadapt.claims import Cells, at_all_rates, cells_of, interval, learned, lora_ahead
from cpadapt.errors import InputError
from cpadapt.families import family
from cpadapt.frontier import frontier
from cpadapt.protocol import HEAD
from cpadapt.record import Record, load_records, tabulate
from cpadapt.statistics import Estimate, estimate, outcomes, require_pairs

FAMILIES = ("lora", "cp")
"""In the order of the pairs of `cpadapt.claims.Cells.matched`."""

PAPERS: Mapping[str, float] = {name: family(name).LEARNING_RATE for name in FAMILIES}
"""The paper's rate, by family."""

WAYS = PAPER, FAMILY, CELL = "the paper's", "one a family", "one a cell"
"""Where learning rates come from; all but the first are chosen on dev."""


def measured(studies: Sequence[str], task: str) -> list[Record]:
    """A task's runs in the project's own `results`, of those cells that were tried at all rates of their family.

    Raises:
        InputError: there are none, or as `cpadapt.record.load_records`.
    """
    records = [r for study in studies for r in load_records(PROJECT / "results" / study) if r.config.task == task]
    if not records:
        raise InputError(f"no record of {task!r} in the results of {', '.join(studies)}: measure it first")
    return at_all_rates(records)


def response(records: Sequence[Record]) -> pd.DataFrame:
    """What each cell reaches at each rate, the readout alone left out.

    Args:
        records: of one task, with the readout alone, as `measured` gives them.

    Returns:
        One row a cell and rate, rising, with the columns `label`, `size`, `parameters`, `learning_rate`, `times` (that
        rate over the paper's), `runs`, `mean` and `error` (on eval, over seeds and items), `dev` (the mean on dev) and
        `unfit` (the runs that end with a training loss above the readout's mean one).

    Raises:
        InputError: as `cpadapt.statistics.outcomes`.
    """
    runs, evaluations = tabulate(records)
    last = evaluations[evaluations["step"] == evaluations["step"].max()].set_index("id")["train_loss"]
    floor = last[runs.loc[runs["label"] == HEAD, "id"]].mean()
    by_id = {record.id: record for record in records}
    rows = []
    cell = ["label", "size", "parameters", "learning_rate"]
    for place, of in runs[runs["label"] != HEAD].groupby(cell):
        label, size, parameters, rate = cast("tuple[str, int, int, float]", place)
        e = estimate(outcomes(by_id[name] for name in of["id"]).right)
        rows.append(
            {"label": label, "size": size, "parameters": parameters, "learning_rate": rate,
             "times": rate / PAPERS[label], "runs": len(of), "mean": e.mean, "error": e.standard_error,
             "dev": of["dev_accuracy"].mean(), "unfit": int((last[of["id"]] > floor).sum())}
        )  # fmt: skip
    return pd.DataFrame(rows)


def moved(found: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """How far accuracy moves with the rate at one size, and with the size at one rate: from the worst to the best.

    Both hold the noise of their cells, and the more of it the more cells there are.

    Args:
        found: as `response` gives it.

    Returns:
        By label the distance over rates, a mean over sizes, and the one over sizes, a mean over rates.
    """
    distances = {}
    for label, of in found.groupby("label"):
        reached = of.pivot_table(index="size", columns="learning_rate", values="mean").to_numpy()
        distances[str(label)] = float(np.ptp(reached, axis=1).mean()), float(np.ptp(reached, axis=0).mean())
    return distances


def family_rates(found: pd.DataFrame) -> dict[str, float]:
    """For each family the rate whose mean on dev over all of its cells is highest (of equals the lowest).

    Args:
        found: as `response` gives it.
    """
    means = found.groupby(["label", "learning_rate"])["dev"].mean().reset_index()
    best = means.sort_values(["dev", "learning_rate"], ascending=[False, True]).drop_duplicates("label")
    return dict(zip(best["label"], best["learning_rate"], strict=True))


def cell_rates(records: Iterable[Record]) -> dict[tuple[str, int], float]:
    """For each cell with an adapter the rate that dev chose, as `cpadapt.frontier.frontier`."""
    best = frontier(tabulate(records)[0].assign(study=""))
    best = best[best["label"] != HEAD]
    return {
        (label, int(size)): float(rate)
        for label, size, rate in best[["label", "size", "learning_rate"]].itertuples(index=False)
    }


def ways(records: Sequence[Record]) -> dict[str, Cells]:
    """The cells at the rates that each of `WAYS` gives."""
    return {
        PAPER: cells_of(records, PAPERS),
        FAMILY: cells_of(records, family_rates(response(records))),
        CELL: cells_of(records),
    }


def gain(before: Cells, after: Cells, label: str) -> Estimate:
    """A family's accuracy after minus that before, over its sizes at matched budgets, run by run and item by item.

    Raises:
        InputError: as `cpadapt.statistics.require_pairs`.
    """
    place = FAMILIES.index(label)
    cells = [(label, pair[place]) for pair in before.matched()]
    require_pairs([of.outcomes[cell] for cell in cells for of in (before, after)])
    return estimate(np.mean([after.outcomes[cell].right - before.outcomes[cell].right for cell in cells], axis=0))


def optimism(records: Sequence[Record]) -> float:
    """How far the best of a cell's rates on eval is above the one that dev chose, on the average over cells."""
    reached: dict[tuple[str, int], dict[float, float]] = {}
    for label, size, rate, mean in response(records)[["label", "size", "learning_rate", "mean"]].to_numpy().tolist():
        reached.setdefault((label, size), {})[rate] = mean
    chosen = cell_rates(records)
    return float(np.mean([max(means.values()) - means[chosen[cell]] for cell, means in reached.items()]))


def response_table(records: Sequence[Record]) -> pd.DataFrame:
    """`response` to read, in percent: a column for each multiple of the paper's rate, and which of them dev chose."""
    found, chosen = response(records), cell_rates(records)
    rows = []
    for (label, size), rate in chosen.items():
        of = found[(found["label"] == label) & (found["size"] == size)]
        row = {"adapter": cell_name(label, size)}
        row |= {_times(times): _percent(mean) for times, mean in zip(of["times"], of["mean"], strict=True)}
        rows.append(row | {"dev chose": _times(rate / PAPERS[label])})
    return pd.DataFrame(rows)


def ways_table(tasks: Mapping[str, Sequence[Record]]) -> pd.DataFrame:
    """The families at matched budgets, by task and by the way to a rate, with the verdicts of `cpadapt.claims`."""
    rows = []
    for task, records in tasks.items():
        of_families = family_rates(response(records))
        given = {
            way: ", ".join(_times(rates[name] / PAPERS[name]) for name in FAMILIES)
            for way, rates in ((PAPER, PAPERS), (FAMILY, of_families))
        }
        for way, cells in ways(records).items():
            ahead, over = lora_ahead(cells), learned(cells)
            assert ahead.estimate is not None
            assert over.estimate is not None
            low, high = interval(ahead.estimate)
            rows.append(
                {"task": TASK_NAMES[task], "rates": way, "LoRA's, CP's": given.get(way, "by cell"),
                 "adapters − readout": _signed(over.estimate.mean), "they learn": over.verdict.value,
                 "LoRA − CP": _signed(ahead.estimate.mean),
                 "90 % interval": f"{_signed(low)} to {_signed(high)}", "LoRA is ahead": ahead.verdict.value}
            )  # fmt: skip
    return pd.DataFrame(rows)


def moved_table(tasks: Mapping[str, Sequence[Record]]) -> pd.DataFrame:
    """`moved` to read, in points."""
    rows = [
        {"task": TASK_NAMES[task], "family": FAMILY_NAMES[label], "over the rates": _percent(of_rate),
         "over the sizes": _percent(of_size)}
        for task, records in tasks.items()
        for label, (of_rate, of_size) in moved(response(records)).items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def figures(records: Sequence[Record]) -> dict[str, str]:
    """What a chapter's sentences name of a task, as they shall be read."""
    found, chosen, by_way = response(records), cell_rates(records), ways(records)
    ahead = lora_ahead(by_way[CELL]).estimate
    assert ahead is not None
    sizes = found[found["label"] == "cp"]
    flat = sizes.groupby("times")["mean"].mean()
    named = {
        "runs": str(len(records)),
        "added": str(found.loc[found["learning_rate"] != found["label"].map(PAPERS), "runs"].sum()),
        "rates": str(flat.size),
        "cp_sizes": str(sizes["size"].nunique()),
        "pairs": str(len(by_way[CELL].matched())),
        "cp_flat": _percent(flat.max() - flat.min()),
        "gap": _percent(ahead.mean),
        "optimism": _percent(optimism(records)),
        "unfit": str(found["unfit"].sum()),
        "choices": str(len(chosen)),
        "edge": str(sum(rate == found.loc[found["label"] == label, "learning_rate"].max()
                        for (label, _), rate in chosen.items())),
    }  # fmt: skip
    for label, (of_rate, of_size) in moved(found).items():
        named |= {f"{label}_by_rate": _percent(of_rate), f"{label}_by_size": _percent(of_size)}
    for label in FAMILIES:
        e = gain(by_way[PAPER], by_way[CELL], label)
        low, high = e.interval()
        named |= {f"{label}_gain": _signed(e.mean), f"{label}_gain_ends": f"{_signed(low)} to {_signed(high)}"}
    return named


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}"


def _times(of_the_papers: float) -> str:
    return f"{of_the_papers:.3g}×"
