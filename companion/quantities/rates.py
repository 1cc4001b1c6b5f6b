"""Numbers of the chapter on the learning rate."""

import functools
import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from companion import rates
from companion.one_task import differences
from companion.quantities import Value, quantity
from companion.rates import CHOSEN, PAPER, STUDIES, TASKS
from cpadapt.analysis.cells import Cells
from cpadapt.analysis.statistics import Estimate, compare, estimate
from cpadapt.records.record import Record

CELLS, TIMES = rates.cells(), rates.times()
RANKS = [name for name, (label, _) in CELLS.items() if label == "lora"]


@functools.cache
def runs(task: str) -> Sequence[Record]:
    """A task's, of cells that were tried at all rates."""
    return rates.runs_at_all_rates(STUDIES, task)


@functools.cache
def response(task: str) -> pd.DataFrame:
    """What each of its cells reaches at each rate."""
    return rates.response(runs(task))


@functools.cache
def ways(task: str) -> dict[str, Cells]:
    """Its cells by where their rates come from."""
    return rates.ways(runs(task))


def _all() -> pd.DataFrame:
    return pd.concat([response(task).assign(task=task) for task in TASKS], ignore_index=True)


def _highest(found: pd.DataFrame) -> pd.DataFrame:
    at_highest: pd.DataFrame = found[found["times"] == found["times"].max()]
    return at_highest


def _lower(found: pd.DataFrame) -> pd.DataFrame:
    lower: pd.DataFrame = found[found["times"] < found["times"].max()]
    return lower


def _small(found: pd.DataFrame) -> pd.DataFrame:
    small: pd.DataFrame = found[found["parameters"] <= rates.first_rank(found)]
    return small


# What was tried.


@quantity("rates", source=STUDIES)
def tried() -> int:
    """Rates of each family."""
    return int(response("rte")["times"].nunique())


@quantity("times", source=STUDIES)
def highest() -> float:
    """The highest rate, as a multiple of the paper's."""
    return max(TIMES.values())


@quantity("runs", source=STUDIES)
def all_runs() -> int:
    """Runs of all tasks, the head alone among them."""
    return sum(len(runs(task)) for task in TASKS)


@quantity("runs", source=STUDIES)
def diverged() -> int:
    """Those in which a loss or a gradient was lost."""
    return int(_all()["diverged"].sum())


@quantity("runs", source=STUDIES, each=("highest", "lower"))
def one_answer(where: str) -> int:
    """Those that give one answer to all of eval, at the highest rate or at lower ones."""
    return int((_highest if where == "highest" else _lower)(_all())["constant"].sum())


@quantity("scalars", source=STUDIES)
def least_collapsed() -> int:
    """The size of the smallest adapter that has such a run."""
    found = _all()
    return int(found.loc[found["constant"] > 0, "parameters"].min())


# The response.


@quantity("percent", 1, STUDIES, each=itertools.product(TASKS, CELLS, TIMES))
def reached(task: str, cell: str, times: str) -> float:
    """A cell's accuracy at a multiple of the paper's rate."""
    (label, size), found = CELLS[cell], response(task)
    here = found.loc[(found["label"] == label) & (found["size"] == size) & (found["times"] == TIMES[times]), "mean"]
    return float(here.item())


@quantity(source=STUDIES, each=itertools.product(TASKS, CELLS))
def chosen(task: str, cell: str) -> str:
    """The rate that dev chose for a cell, as a multiple of the paper's."""
    (label, size), found = CELLS[cell], response(task)
    here = found.loc[(found["label"] == label) & (found["size"] == size) & found["chosen"], "times"]
    return rates.said(here.item())


@quantity("points", 1, STUDIES, each=itertools.product(TASKS, rates.PAIRED))
def by_rate(task: str, family: str) -> float:
    """How far an adapter of one size moves from the worst rate to the best, in the mean over a family's sizes."""
    return rates.moved(response(task))[family][0]


@quantity("points", 1, STUDIES, each=itertools.product(TASKS, rates.PAIRED))
def by_size(task: str, family: str) -> float:
    """How far a family moves at one rate from the worst size to the best, in the mean over rates."""
    return rates.moved(response(task))[family][1]


@quantity("", source=STUDIES, each=("all", "but_highest"))
def rate_moves_more(which: str) -> int:
    """In how many pairs of task and family the rate moves an adapter as far as its size does, or farther."""
    found = [rates.moved(response(task) if which == "all" else _lower(response(task))) for task in TASKS]
    return sum(over_rates >= over_sizes for moves in found for over_rates, over_sizes in moves.values())


@quantity("points", 1, STUDIES)
def cp_flat() -> float:
    """How far CP's mean over its sizes moves on SST-2 over the rates."""
    of_cp = response("sst2").query("label == 'cp'")
    return float(np.ptp(of_cp.groupby("times")["mean"].mean()))


@functools.cache
def _rises(task: str) -> pd.DataFrame:
    return rates.rises(runs(task))


@quantity("scalars", source=STUDIES)
def turn() -> int:
    """The largest adapter that is better on RTE at the highest rate than at the one below it."""
    found = _rises("rte")
    return int(found.loc[found["mean"] > 0, "parameters"].max())


@quantity("scalars", source=STUDIES)
def least_falling() -> int:
    """The smallest that is not."""
    found = _rises("rte")
    return int(found.loc[found["mean"] <= 0, "parameters"].min())


@quantity("points", 1, STUDIES, each=itertools.product(TASKS, ("small", "large")))
def rise(task: str, which: str) -> Estimate:
    """What adapters gain from ten to thirty times the paper's rate, on average; small: up to LoRA's first rank's."""
    return rates.rise(runs(task), small=which == "small")


# BoolQ, and one answer for all.


def _compared() -> pd.DataFrame:
    pairs = ways("boolq")[CHOSEN].matched("lora", "cp")
    matched = {cell for pair in pairs for cell in zip(rates.PAIRED, pair, strict=True)}
    found = response("boolq")
    return found[found["chosen"] & pd.Series(list(zip(found["label"], found["size"], strict=True))).isin(matched)]


@quantity("runs", source=STUDIES)
def boolq_compared() -> int:
    """Runs of BoolQ at the chosen rates and matched budgets."""
    return int(_compared()["runs"].sum())


@quantity("runs", source=STUDIES)
def boolq_compared_one_answer() -> int:
    """Those of them that give one answer."""
    return int(_compared()["constant"].sum())


@quantity("points", 1, STUDIES, level=0.9)
def boolq_over_majority() -> Estimate:
    """Adapters at the chosen rates minus the commonest answer."""
    found = ways("boolq")[CHOSEN]
    return estimate(rates.adapters(found) - found.majority)


# LoRA minus CP, and what a choice of rates moves.


@quantity("points", 1, STUDIES, each=TASKS)
def lead(task: str) -> Estimate:
    """LoRA minus CP at matched budgets, at the rates that dev chose for each cell."""
    return rates.lead(ways(task)[CHOSEN])


@quantity("components", source=STUDIES, each=RANKS)
def matched(rank: str) -> int:
    """CP's at the budget of a rank of LoRA."""
    return dict(ways("rte")[CHOSEN].matched("lora", "cp"))[CELLS[rank][1]]


@functools.cache
def _at_budgets(task: str) -> tuple[pd.DataFrame, set[int]]:
    """CP minus LoRA at each matched budget at the chosen rates, by rank, and at which there is nothing to compare."""
    found = response(task)
    same = found[found["chosen"] & (found["constant"] == found["runs"])]
    alike = set(same[["label", "size"]].itertuples(index=False, name=None))
    pairs = ways(task)[CHOSEN].matched("lora", "cp")
    return differences(ways(task)[CHOSEN]).set_index("rank"), {
        rank for rank, size in pairs if {("lora", rank), ("cp", size)} <= alike
    }


def _at_budget(task: str, rank: str, column: str) -> float | str:
    table, alike = _at_budgets(task)
    size = CELLS[rank][1]
    return "–" if size in alike else float(table[column].loc[size])


@quantity("points", 1, STUDIES, each=itertools.product(TASKS, RANKS))
def at_budget(task: str, rank: str) -> Estimate | str:
    """CP minus a rank of LoRA at its budget, at the chosen rates; a text where all runs of both give one answer."""
    size = CELLS[rank][1]
    if size in _at_budgets(task)[1]:
        return rates.ONE_ANSWER
    cells = ways(task)[CHOSEN]
    return compare(cells.outcomes["cp", dict(cells.matched("lora", "cp"))[size]], cells.outcomes["lora", size])


@quantity("", 3, STUDIES, each=itertools.product(TASKS, RANKS))
def at_budget_p(task: str, rank: str) -> float | str:
    """P value that this is none."""
    return _at_budget(task, rank, "p")


@quantity("", 3, STUDIES, each=itertools.product(TASKS, RANKS))
def at_budget_holm(task: str, rank: str) -> float | str:
    """The same after Holm's correction over the task's budgets."""
    return _at_budget(task, rank, "holm")


@quantity("", 3, STUDIES, each=itertools.product(TASKS, RANKS))
def at_budget_alike(task: str, rank: str) -> float | str:
    """P value that it is a point or more."""
    return _at_budget(task, rank, "p_alike")


@quantity("points", 1, STUDIES, each=TASKS)
def change(task: str) -> Estimate:
    """The same minus LoRA's lead at the paper's rates."""
    return rates.gap_change(ways(task)[PAPER], ways(task)[CHOSEN])


@quantity("points", 1, STUDIES, each=["rte"])
def redrawn_sd(task: str) -> Value:
    """How LoRA's lead moves with dev sets drawn anew: a standard deviation."""
    found = rates.redrawn_gaps(runs(task), rates.REDRAWN, np.random.default_rng(0))
    return Value(float(found.std()), n=rates.REDRAWN)


@quantity("choices", source=STUDIES, each=("all", "small"))
def choices(which: str) -> int:
    """Dev's, one a cell; `small` are those for adapters no larger than LoRA's first rank."""
    found = _all()
    return int((found if which == "all" else _small(found))["chosen"].sum())


@quantity("choices", source=STUDIES, each=("all", "small"))
def on_the_edge(which: str) -> int:
    """Those of them that fell on the highest rate."""
    found = _highest(_all())
    return int((found if which == "all" else _small(found))["chosen"].sum())
