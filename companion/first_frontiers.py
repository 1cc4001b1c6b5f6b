"""The pilot studies: cells at the rates that dev chose, differences at matched budgets, and printed tables."""

import functools

import pandas as pd

from companion.claims import LEVEL as LEVEL
from companion.records import records
from companion.wording import bounds, percent, signed
from cpadapt.analysis import frontier
from cpadapt.analysis.charts import backbone_name, cell_name, pair_name, task_name
from cpadapt.analysis.statistics import Outcomes, compare, estimate, holm, outcomes
from cpadapt.records.config import HEAD
from cpadapt.records.table import tabulate

SMOL, MINI, TOYS = STUDIES = ("smollm2-pilot", "minilm-sst2", "generated-tasks")
REAL = ("sst2", "rte")
"""The tasks of the pilot on SmolLM2."""


@functools.cache
def runs() -> pd.DataFrame:
    """The runs of all three studies, as `cpadapt.tabulate` returns them."""
    return pd.concat([tabulate(records(study))[0] for study in STUDIES], ignore_index=True)


def of_task(study: str, task: str) -> pd.DataFrame:
    """A task's runs."""
    return runs()[(runs()["study"] == study) & (runs()["task"] == task)]


@functools.cache
def best() -> pd.DataFrame:
    """Each cell at the rate that dev chose, as `cpadapt.analysis.frontier.frontier` returns it."""
    return frontier.frontier(runs())


def of_study(study: str, task: str) -> pd.DataFrame:
    """A task's cells in `best`."""
    return best()[(best()["study"] == study) & (best()["task"] == task)]


@functools.cache
def cell(study: str, task: str, label: str, size: int) -> Outcomes:
    """The outcomes of a cell's runs at the rate that dev chose."""
    (rate,) = of_study(study, task).query("label == @label and size == @size")["learning_rate"]
    return outcomes(
        record
        for record in records(study)
        if (record.config.task, record.label, record.config.size) == (task, label, size)
        and (label == HEAD or record.config.learning_rate == rate)
    )


@functools.cache
def matched() -> pd.DataFrame:
    """CP minus LoRA at each of LoRA's ranks, with the largest CP at or under its budget.

    Returns:
        One row for each rank, with the columns `study`, `task`, `rank`, `components`, `gap`, `by_seed` (the difference
        of each seed), `low` and `high` (the 95 % interval), `p` (of no difference) and `holm` (p after Holm's
        correction over all rows).
    """
    rows = []
    for (study, task), group in best().groupby(["study", "task"], sort=False):
        cps = group[group["label"] == "cp"]
        for row in group[group["label"] == "lora"].itertuples():
            size = int(cps.loc[cps["parameters"] <= row.parameters, "size"].max())
            cp, lora = cell(study, task, "cp", size), cell(study, task, "lora", row.size)
            gap = compare(cp, lora)
            low, high = gap.interval()
            rows.append(
                {"study": study, "task": task, "rank": row.size, "components": size, "gap": gap.mean,
                 "by_seed": (cp.right - lora.right).mean(1), "low": low, "high": high, "p": gap.p_value()}
            )  # fmt: skip
    found = pd.DataFrame(rows)
    return found.assign(holm=holm(found["p"].tolist()))


@functools.cache
def at_rates() -> pd.DataFrame:
    """SmolLM2's cells with an adapter at both rates.

    Returns:
        One row for each task, label and size, with the columns `(dev_mean, eval_mean) × (1, 10)`; 1 and 10 are
        multiples of the paper's rate.
    """
    tried = pd.concat([frontier.cells(of_task(SMOL, task)) for task in REAL]).dropna(subset="learning_rate")
    times = tried.groupby("label")["learning_rate"].transform(lambda rates: (rates / rates.min()).round())
    tried = tried.assign(times=times.astype(int))
    return tried.pivot_table(index=["task", "label", "size"], columns="times", values=["dev_mean", "eval_mean"])


def change() -> pd.DataFrame:
    """`at_rates` at ten times the paper's rates minus that at the paper's."""
    found = at_rates()
    return pd.DataFrame({name: found[name, 10] - found[name, 1] for name in ("dev_mean", "eval_mean")})


def gap_rows() -> pd.DataFrame:
    """LoRA minus CP on the real tasks, as `cpadapt.analysis.charts.interval_chart` takes them.

    SmolLM2's come first and are named by their task; MiniLM's are all on SST-2.
    """
    real = matched()[matched()["study"] != TOYS].sort_values("study", ascending=False, kind="stable")
    names = [
        f"{'MiniLM' if study == MINI else task_name(task)}: {pair_name(('lora', rank), ('cp', size))}"
        for study, task, rank, size in zip(*(real[n] for n in ("study", "task", "rank", "components")), strict=True)
    ]
    return pd.DataFrame(
        {"group": "the pilot", "what": names, "mean": -real["gap"], "low": -real["high"], "high": -real["low"],
         "seeds": real["by_seed"].map(len)}
    )  # fmt: skip


def overview_table() -> pd.DataFrame:
    """The runs of the studies, as a table."""
    found = (
        runs()
        .groupby(["study", "backbone", "task"], sort=False)
        .agg(
            runs=("id", "count"), seeds=("seed", "nunique"), steps=("steps", "first"),
            items=("total", "first"), seconds=("run_seconds", "sum"),
        )
        .reset_index()
    )  # fmt: skip
    found["backbone"] = found["backbone"].map(backbone_name)
    found["task"] = found["task"].map(task_name)
    found["seconds"] = found["seconds"].map("{:.0f}".format)
    return found.rename(columns={"items": "evaluation items", "seconds": "training, s"}).drop(columns="study")


def accuracy_table(study: str, task: str) -> pd.DataFrame:
    """A task's cells, as a printed table."""
    table = of_study(study, task)
    errors = [estimate(cell(study, task, row.label, row.size).right).standard_error for row in table.itertuples()]
    rates = [f"{rate:.0e}".replace("e-0", "e-") if rate > 0 else "" for rate in table["learning_rate"]]
    return pd.DataFrame(
        {
            "adapter": _names(table),
            "scalars": table["parameters"].map("{:,}".format),
            "learning rate": rates,
            "accuracy, %": table["eval_mean"].map(percent),
            "sd over seeds": table["eval_sd"].map(percent),
            "standard error": list(map(percent, errors)),
        }
    )


def rate_table() -> pd.DataFrame:
    """`at_rates` and `change` as a printed table."""
    found, moved = at_rates(), change()
    return pd.DataFrame(
        {
            "task": [task_name(task) for task, _, _ in found.index],
            "adapter": [cell_name(label, size) for _, label, size in found.index],
            "paper's rate, eval %": found["eval_mean", 1].map(percent),
            "ten times, eval %": found["eval_mean", 10].map(percent),
            "change on dev, points": moved["dev_mean"].map(signed),
            "change on eval, points": moved["eval_mean"].map(signed),
        }
    )


def difference_table() -> pd.DataFrame:
    """`matched` as a printed table."""
    found = matched()
    backbones = {study: backbone_name(name) for study, name in zip(runs()["study"], runs()["backbone"], strict=True)}
    return pd.DataFrame(
        {
            "backbone": found["study"].map(backbones),
            "task": found["task"].map(task_name),
            "LoRA": found["rank"],
            "CP": found["components"],
            "LoRA − CP, points": (-found["gap"]).map(signed),
            "95 % interval": (-found[["high", "low"]]).apply(bounds, axis=1),
            "seed by seed": [", ".join(map(signed, -gaps)) for gaps in found["by_seed"]],
            "p": found["p"].map("{:.3f}".format),
            "p, Holm": found["holm"].map("{:.3f}".format),
        }
    )


def toy_table() -> pd.DataFrame:
    """The accuracies on the generated tasks, mean ± standard deviation over seeds, as a printed table."""
    toys = best()[best()["study"] == TOYS]
    shown = toys.assign(
        adapter=_names(toys),
        accuracy=toys["eval_mean"].map(percent) + " ± " + toys["eval_sd"].map(percent),
        scalars=toys["parameters"].map("{:,}".format),
    )
    order = ["head only", "CP 9", "LoRA 1", "CP 37", "LoRA 4"]
    wide = shown.pivot_table(index=["adapter", "scalars"], columns="task", values="accuracy", aggfunc="first")
    return wide.reindex(order, level="adapter").reset_index().rename_axis(columns=None)


def _names(table: pd.DataFrame) -> list[str]:
    return [cell_name(str(label), int(size)) for label, size in zip(table["label"], table["size"], strict=True)]
