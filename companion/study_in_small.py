"""The numbers and sentences of the page on the study in small, from runs on this machine."""

from collections.abc import Sequence

import pandas as pd

import cpadapt
from cpadapt.analysis.charts import cell_name
from cpadapt.analysis.frontier import frontier
from cpadapt.analysis.statistics import Estimate
from cpadapt.families.counting import step
from cpadapt.records.config import HEAD
from cpadapt.records.record import Record
from cpadapt.records.table import tabulate
from cpadapt.study import Study

BACKBONES = {"minilm": "MiniLM", "tiny-encoder": "two random layers (the package of MiniLM is not installed here)"}


def numbers(study: Study, records: Sequence[Record]) -> dict[str, str | int | float]:
    """The numbers that the prose prints, by name, with accuracies and errors in percent and points."""
    table = tabulate(records)[0]
    best = frontier(table)
    top = best.nlargest(1, "eval_mean").iloc[0]
    head = best.loc[best["label"] == HEAD, "eval_mean"]
    adapters = table[table["label"] != HEAD]
    sets, cost = records[0].data["sets"], records[0].cost
    projections = cpadapt.load_projections(study.backbone)
    return {
        "backbone": BACKBONES.get(study.backbone, study.backbone),
        "runs": len(table),
        "steps": study.protocol.steps,
        "seconds": cost.train_seconds + cost.evaluation_seconds,
        "device": records[0].provenance.device,
        "best_cell": cell_name(top["label"], top["size"]),
        "best": 100 * float(top["eval_mean"]),
        "head": 100 * float(head.iloc[0]),
        "lora_step": step("lora", projections),
        "cp_step": step("cp", projections),
        "task": study.tasks[0],
        "train_size": sets["train"]["size"],
        "eval_size": sets["eval"]["size"],
        # The error is that of a share of one half, the largest.
        "item_error": 100 * 0.5 / sets["eval"]["size"] ** 0.5,
        "adapters": len(adapters),
        "rising": int((adapters["best_step"] == study.protocol.steps).sum()),
    }


def verdict(rank: int, size: int, difference: Estimate) -> str:
    """A sentence on whether CP or LoRA is ahead at one budget.

    Args:
        rank: LoRA's rank.
        size: the number of CP's components.
        difference: the accuracy of CP minus that of LoRA.
    """
    gap, (low, high) = 100 * difference.mean, (100 * end for end in difference.interval())
    where = f"{abs(gap):.1f} points {'ahead of' if gap > 0 else 'behind'} it" if gap else "level with it in the mean"
    return (
        f"At the budget of LoRA rank {rank}, CP with {size} components is {where}, with a 95 % interval over seeds and"
        f" examples of {low:+.1f} to {high:+.1f} points, which {'holds' if low <= 0 <= high else 'excludes'} zero."
    )


def cell_table(best: pd.DataFrame) -> pd.DataFrame:
    """The cells of a frontier, as a printed table."""
    columns = {
        "adapter": [cell_name(label, size) for label, size in zip(best["label"], best["size"], strict=True)],
        "scalars": best["parameters"].map("{:,}".format),
    }
    for title, column in (("dev, %", "dev_mean"), ("eval, %", "eval_mean"), ("sd over seeds", "eval_sd")):
        columns[title] = (100 * best[column]).map("{:.1f}".format)
    return pd.DataFrame(columns)
