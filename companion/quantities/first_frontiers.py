"""Numbers of the chapter on the pilot."""

import functools
import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from companion import PROJECT, first_frontiers
from companion.first_frontiers import LEVEL, MINI, REAL, SMOL, STUDIES, TOYS, cell
from companion.quantities import quantity
from companion.records import records
from cpadapt.analysis.statistics import Choice, Estimate, best_of, compare, estimate
from cpadapt.records.config import HEAD
from cpadapt.study import load_study

PUBLISHED = "book/published.toml"

# What was run.


@quantity("runs", source=STUDIES)
def runs() -> int:
    """Of all three studies."""
    return len(first_frontiers.runs())


@quantity("seeds", source=STUDIES)
def seeds() -> int:
    """Of each cell."""
    return int(first_frontiers.runs()["seed"].nunique())


@quantity("runs", source=STUDIES)
def diverged() -> int:
    """Of these."""
    return int(first_frontiers.runs()["diverged_at"].notna().sum())


@quantity("seconds", source=STUDIES, each=("train", "evaluation"))
def seconds(what: str) -> float:
    """That all banks took for training or evaluation."""
    banks = {(r.study, r.config.task): r.cost for study in STUDIES for r in records(study)}
    return sum(float(getattr(cost, f"{what}_seconds")) for cost in banks.values())


@quantity(source=STUDIES)
def device() -> str:
    """On which they ran."""
    return ", ".join(sorted(set(first_frontiers.runs()["device"])))


@quantity("steps", source="paper")
def paper_steps() -> int:
    """Of the paper's protocol."""
    return load_study(PROJECT / "studies" / "paper.toml").protocol.steps


@quantity("steps", source=SMOL)
def pilot_steps() -> int:
    """Of a run on SmolLM2."""
    return records(SMOL)[0].config.protocol.steps


@quantity("steps", source=TOYS)
def toy_steps() -> int:
    """Of a run on a generated task."""
    return records(TOYS)[0].config.protocol.steps


@quantity("tasks", source=TOYS)
def toy_tasks() -> int:
    """That were generated."""
    return len({record.config.task for record in records(TOYS)})


@quantity("evaluations", source=SMOL)
def looks() -> int:
    """Of a run on SmolLM2."""
    return len(records(SMOL)[0].evaluations)


@quantity("sizes", source=SMOL, each=("cp", "lora"))
def sizes(label: str) -> int:
    """Of a family on SmolLM2."""
    return len(_sizes("rte", label))


@quantity("", source=SMOL, each=[("cp", "most"), ("lora", "least"), ("lora", "most")])
def size(label: str, which: str) -> float:
    """A family's smallest and largest size on SmolLM2."""
    return _end(_sizes("rte", label), which)


@quantity("scalars", source=SMOL)
def component() -> int:
    """What a component costs on SmolLM2."""
    return _budget("cp", 1)


@quantity("percent", source=SMOL)
def component_of_rank() -> float:
    """That cost, of a rank's."""
    return _budget("cp", 1) / _budget("lora", 1)


# On SmolLM2.


@quantity("percent", 1, SMOL, each=REAL)
def head(task: str) -> float:
    """The head alone."""
    return _mean(task, HEAD, 0)


@quantity("percent", 1, SMOL, each=REAL)
def one(task: str) -> float:
    """CP with one component."""
    return _mean(task, "cp", 1)


@quantity("percent", 1, SMOL, each=[("sst2", "least"), ("sst2", "most")])
def adapters(task: str, which: str) -> float:
    """The worst and the best cell with an adapter."""
    return _end((_mean(task, label, size) for label in ("cp", "lora") for size in _sizes(task, label)), which)


@quantity("percent", 1, SMOL, each=["rte"])
def best_cp(task: str) -> float:
    """The best cell of CP."""
    return max(_mean(task, "cp", size) for size in _sizes(task, "cp"))


@quantity("percent", source=SMOL, each=["sst2"])
def share(task: str) -> float:
    """Of what the best cell gains over the head alone, that one component does."""
    return (_mean(task, "cp", 1) - head(task)) / (adapters(task, "most") - head(task))


@quantity("points", 1, SMOL, each=[("sst2", "cp"), ("rte", "cp"), ("rte", "lora")])
def rise(task: str, label: str) -> Estimate:
    """From a family's smallest size to its largest."""
    least, *_, most = _sizes(task, label)
    return compare(cell(SMOL, task, label, most), cell(SMOL, task, label, least))


@quantity("points", 1, SMOL, each=["rte"])
def least_rise(task: str) -> float:
    """From one size of a family to the next, in the mean."""
    means = [[_mean(task, label, size) for size in _sizes(task, label)] for label in ("cp", "lora")]
    return min(after - before for found in means for before, after in itertools.pairwise(found))


@quantity("points", 1, SMOL, each=["rte"])
def one_gain(task: str) -> Estimate:
    """One component minus the head alone."""
    return compare(cell(SMOL, task, "cp", 1), cell(SMOL, task, HEAD, 0))


@quantity("percent", 1, SMOL, each=["rte"])
def majority(task: str) -> float:
    """What the commoner answer gets right."""
    return float(first_frontiers.of_task(SMOL, task)["majority_rate"].iloc[0])


@quantity("items", source=SMOL, each=["rte"])
def items(task: str) -> int:
    """That are asked."""
    return len(cell(SMOL, task, HEAD, 0).items)


@quantity("points", 1, SMOL, each=["rte"])
def best_error(task: str) -> float:
    """The standard error of the best cell."""
    return _best(task).standard_error


@quantity("points", 1, SMOL, each=["rte"])
def best_error_limit(task: str) -> float:
    """The same with no end of seeds."""
    e = _best(task)
    return e.error_with(math.inf, e.items)


# Rates.


@quantity("cells", source=SMOL)
def rate_cells() -> int:
    """With an adapter, tried at both rates."""
    return len(first_frontiers.change())


@quantity("cells", source=SMOL, each=("dev", "eval"))
def higher(asked: str) -> int:
    """Of these, those that are better at the higher rate."""
    return int((first_frontiers.change()[f"{asked}_mean"] > 0).sum())


@quantity("points", 1, SMOL, each=REAL)
def rate_effect(task: str) -> float:
    """What CP gains by the higher rate, on the average over sizes."""
    return float(first_frontiers.change().query("task == @task and label == 'cp'")["eval_mean"].mean())


@quantity("runs", source=SMOL)
def chosen() -> int:
    """With an adapter, at the rates that dev chose."""
    return len(_chosen())


@quantity("runs", source=SMOL)
def best_at_last() -> int:
    """Of these, those best on dev at the last evaluation."""
    return int((_chosen()["best_step"] == _chosen()["steps"]).sum())


# CP against LoRA.


@quantity("differences", source=STUDIES, each=("all", "real", "toy", "minilm"))
def pairs(which: str) -> int:
    """At matched budgets."""
    return len(_matched(which))


@quantity("differences", source=STUDIES)
def clear() -> int:
    """Of all these, those with a corrected p value below the level."""
    return int((_matched("all")["holm"] < LEVEL).sum())


@quantity("points", 1, STUDIES, each=["toy"])
def most_gap(which: str) -> float:
    """CP minus LoRA where it is most."""
    return float(_matched(which)["gap"].max())


@quantity("differences", source=STUDIES)
def minilm_with_zero() -> int:
    """On MiniLM and SST-2, whose interval holds zero."""
    found = _matched("minilm")
    return int(((found["low"] < 0) & (found["high"] > 0)).sum())


@quantity("points", 1, STUDIES)
def nearest_gap() -> float:
    """LoRA minus CP on a real task, where the p value is least."""
    return -float(_nearest()["gap"])


@quantity(source=STUDIES)
def nearest() -> str:
    """Study, task and rank of it."""
    return " ".join(str(_nearest()[name]) for name in ("study", "task", "rank"))


@quantity("", 3, STUDIES)
def nearest_p() -> float:
    """Its p value alone."""
    return float(_nearest()["p"])


@quantity("", 2, STUDIES)
def nearest_holm() -> float:
    """The same among all."""
    return float(_nearest()["holm"])


@quantity("points", 1, STUDIES)
def nearest_range() -> float:
    """From the least difference of its seeds to the greatest."""
    return float(np.ptp(_nearest()["by_seed"]))


@quantity("", 2, STUDIES)
def toy_holm() -> float:
    """The least corrected p value on the generated tasks."""
    return float(_matched("toy")["holm"].min())


@quantity("points", 1, PUBLISHED, each=itertools.product(("sst2", "rte", "boolq"), ("least", "most")))
def published(task: str, which: str) -> float:
    """LoRA minus CP, as the paper reports it at matched budgets with three seeds."""
    return _end([-float(gap) for gap in first_frontiers.published_gaps().loc[task].to_numpy()], which)


# On MiniLM.


@quantity("components", source=MINI)
def minilm_best() -> int:
    """Of the best cell."""
    return int(_minilm_best()["size"])


@quantity(source=MINI)
def minilm_best_label() -> str:
    """Its family."""
    return str(_minilm_best()["label"])


@quantity("points", 1, MINI)
def minilm_rise() -> Estimate:
    """From the head alone to the best cell."""
    best = _minilm_best()
    return compare(cell(MINI, "sst2", best["label"], best["size"]), cell(MINI, "sst2", HEAD, 0))


@quantity("cells", source=MINI)
def minilm_cells() -> int:
    """The head alone among them."""
    return len(first_frontiers.ladder(MINI, "sst2"))


@quantity("percent", 1, MINI)
def minilm_held_out() -> float:
    """The best cell, chosen on one half of seeds and items and judged on the other."""
    return _minilm_choice().held_out


@quantity("percent", 1, MINI)
def minilm_head() -> float:
    """The head alone."""
    return float(cell(MINI, "sst2", HEAD, 0).right.mean())


def _mean(task: str, label: str, size: int) -> float:
    return float(cell(SMOL, task, label, size).right.mean())


def _sizes(task: str, label: str) -> list[int]:
    return sorted(map(int, first_frontiers.ladder(SMOL, task).query("label == @label")["size"]))


def _budget(label: str, size: int) -> int:
    return int(first_frontiers.ladder(SMOL, "sst2").query("label == @label and size == @size")["parameters"].item())


def _end(found: Iterable[float], which: str) -> float:
    return {"least": min, "most": max}[which](found)


def _best(task: str) -> Estimate:
    cells = [cell(SMOL, task, label, size) for label in ("cp", "lora") for size in _sizes(task, label)]
    return estimate(max(cells, key=lambda found: float(found.right.mean())).right)


@functools.cache
def _chosen() -> pd.DataFrame:
    place = ["study", "task", "label", "size", "learning_rate"]
    found = first_frontiers.runs().query("study == @SMOL and label != @HEAD")
    return found.merge(first_frontiers.best()[place], on=place)


def _matched(which: str) -> pd.DataFrame:
    found = first_frontiers.matched()
    is_toy = found["study"] == TOYS
    return {"all": found, "real": found[~is_toy], "toy": found[is_toy], "minilm": found[found["study"] == MINI]}[which]


def _nearest() -> Any:
    real = _matched("real")
    return real.iloc[int(real["p"].to_numpy().argmin())]


def _minilm_best() -> Any:
    ladder = first_frontiers.ladder(MINI, "sst2")
    return ladder.iloc[int(ladder["eval_mean"].to_numpy().argmax())]


@functools.cache
def _minilm_choice() -> Choice:
    ladder = first_frontiers.ladder(MINI, "sst2")
    return best_of([cell(MINI, "sst2", r.label, r.size) for r in ladder.itertuples()], 1000, np.random.default_rng(0))
