"""Numbers of the chapter on the pilot."""

import functools
from typing import Any

import pandas as pd

from companion import first_frontiers
from companion.first_frontiers import LEVEL, SMOL, STUDIES, TOYS, cell
from companion.quantities import quantity
from companion.records import records
from cpadapt.analysis.statistics import Estimate, compare
from cpadapt.records.config import HEAD

# What was run.


@quantity("runs", source=STUDIES)
def runs() -> int:
    """Runs of all three studies."""
    return len(first_frontiers.runs())


@quantity("seeds", source=STUDIES)
def seeds() -> int:
    """Seeds of each cell."""
    return int(first_frontiers.runs()["seed"].nunique())


@quantity("steps", source=SMOL)
def pilot_steps() -> int:
    """Steps of a run on SmolLM2."""
    return records(SMOL)[0].config.protocol.steps


@quantity("steps", source=TOYS)
def toy_steps() -> int:
    """Steps of a run on a generated task."""
    return records(TOYS)[0].config.protocol.steps


@quantity("components", source=SMOL)
def most_components() -> int:
    """Components of CP's largest size on SmolLM2."""
    return _sizes("rte", "cp")[-1]


# On SmolLM2.


@quantity("percent", 1, SMOL, each=["sst2"])
def head(task: str) -> float:
    """The head alone."""
    return _mean(task, HEAD, 0)


@quantity("percent", 1, SMOL, each=["sst2"])
def one(task: str) -> float:
    """CP with one component."""
    return _mean(task, "cp", 1)


@quantity("percent", source=SMOL, each=["sst2"])
def share(task: str) -> float:
    """The part of what the best cell gains over the head alone that one component does."""
    best = max(_mean(task, label, size) for label in ("cp", "lora") for size in _sizes(task, label))
    return (one(task) - head(task)) / (best - head(task))


@quantity("points", 1, SMOL, each=[("rte", "cp")])
def rise(task: str, label: str) -> Estimate:
    """The gain from a family's smallest size to its largest."""
    least, *_, most = _sizes(task, label)
    return compare(cell(SMOL, task, label, most), cell(SMOL, task, label, least))


@quantity("points", 1, SMOL, each=["sst2"])
def one_gain(task: str) -> Estimate:
    """One component minus the head alone."""
    return compare(cell(SMOL, task, "cp", 1), cell(SMOL, task, HEAD, 0))


# Rates.


@quantity("cells", source=SMOL)
def rate_cells() -> int:
    """Cells with an adapter, tried at both rates."""
    return len(first_frontiers.change())


@quantity("cells", source=SMOL)
def higher() -> int:
    """Cells among these that are better on dev at the higher rate."""
    return int((first_frontiers.change()["dev_mean"] > 0).sum())


@quantity("runs", source=SMOL)
def chosen() -> int:
    """Runs with an adapter, at the rates that dev chose."""
    return len(_chosen())


@quantity("runs", source=SMOL)
def best_at_last() -> int:
    """Runs among these that are best on dev at the last evaluation."""
    return int((_chosen()["best_step"] == _chosen()["steps"]).sum())


# CP against LoRA.


@quantity("differences", source=STUDIES, each=("all", "toy"))
def pairs(which: str) -> int:
    """Differences at matched budgets."""
    return len(_matched(which))


@quantity("differences", source=STUDIES)
def clear() -> int:
    """Differences among all these that have a corrected p value below the level."""
    return int((_matched("all")["holm"] < LEVEL).sum())


@quantity("points", 1, STUDIES, each=["toy"])
def most_gap(which: str) -> float:
    """CP minus LoRA where it is most."""
    return float(_matched(which)["gap"].max())


@quantity("points", 1, STUDIES)
def nearest_gap() -> float:
    """LoRA minus CP on a real task, where the p value is least."""
    return -float(_nearest()["gap"])


@quantity(source=STUDIES)
def nearest() -> str:
    """Study, task and rank of it."""
    return " ".join(str(_nearest()[name]) for name in ("study", "task", "rank"))


@quantity("", 2, STUDIES)
def nearest_holm() -> float:
    """The same among all."""
    return float(_nearest()["holm"])


def _mean(task: str, label: str, size: int) -> float:
    return float(cell(SMOL, task, label, size).right.mean())


def _sizes(task: str, label: str) -> list[int]:
    return sorted(map(int, first_frontiers.of_study(SMOL, task).query("label == @label")["size"]))


@functools.cache
def _chosen() -> pd.DataFrame:
    place = ["study", "task", "label", "size", "learning_rate"]
    found = first_frontiers.runs().query("study == @SMOL and label != @HEAD")
    return found.merge(first_frontiers.best()[place], on=place)


def _matched(which: str) -> pd.DataFrame:
    found = first_frontiers.matched()
    is_toy = found["study"] == TOYS
    return {"all": found, "real": found[~is_toy], "toy": found[is_toy]}[which]


def _nearest() -> Any:
    real = _matched("real")
    return real.iloc[int(real["p"].to_numpy().argmin())]
