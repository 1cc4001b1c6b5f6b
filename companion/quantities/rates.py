"""Numbers of the chapter on the learning rate."""

import functools
import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from companion import rates
from companion.claims import lora_ahead
from companion.ladder import differences
from companion.quantities import Value, quantity
from companion.rates import CELL, PAPER, PAPER_RATES
from cpadapt.analysis.cells import Cells, cells_of
from cpadapt.analysis.frontier import frontier
from cpadapt.analysis.statistics import Estimate, Floats, compare, estimate
from cpadapt.records.config import HEAD
from cpadapt.records.record import Record
from cpadapt.records.table import tabulate

TASKS = ("sst2", "rte", "boolq")
STUDIES = ("smollm2", "smollm2-rates")
FAMILIES = rates.PAIRED
CELLS, TIMES, WAYS = rates.cells(), rates.times(), rates.WAYS
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
    first_rank = found.loc[found["label"] == "lora", "parameters"].min()
    small: pd.DataFrame = found[found["parameters"] <= first_rank]
    return small


# What was tried.


@quantity("", 4, source=STUDIES, each=("lora", "cp"))
def papers_rate(family: str) -> float:
    """The paper's rate."""
    return PAPER_RATES[family]


@quantity("rates", source=STUDIES)
def tried() -> int:
    """Rates of each family."""
    return int(response("rte")["times"].nunique())


@quantity("times", source=STUDIES)
def highest() -> float:
    """The highest rate, as a multiple of the paper's."""
    return max(TIMES.values())


@quantity("sizes", source=STUDIES)
def cp_sizes() -> int:
    """Sizes of CP that were tried at all rates."""
    return int(response("rte").query("label == 'cp'")["size"].nunique())


@quantity("budgets", source=STUDIES)
def pairs() -> int:
    """Matched budgets that were."""
    return len(ways("rte")[CELL].matched("lora", "cp"))


@quantity("runs", source=STUDIES)
def all_runs() -> int:
    """Of all tasks, the readout alone among them."""
    return sum(len(runs(task)) for task in TASKS)


@quantity("runs", source=STUDIES)
def added() -> int:
    """Those at other rates than the paper's."""
    found = _all()
    return int(found.loc[found["learning_rate"] != found["label"].map(PAPER_RATES), "runs"].sum())


@quantity("runs", source=STUDIES)
def diverged() -> int:
    """Those in which a loss or a gradient was lost."""
    return int(_all()["diverged"].sum())


@quantity("runs", source=STUDIES, each=("highest", "lower"))
def unfit(where: str) -> int:
    """Those that end with a training loss above the readout's, at the highest rate or at lower ones."""
    return _count("unfit", where)


@quantity("runs", source=STUDIES, each=("highest", "lower"))
def one_answer(where: str) -> int:
    """Those that give one answer on eval, likewise."""
    return _count("constant", where)


def _count(what: str, where: str) -> int:
    found = _all()
    highest = int(_highest(found)[what].sum())
    return highest if where == "highest" else int(found[what].sum()) - highest


@quantity("scalars", source=STUDIES)
def least_ruined() -> int:
    """The size of the smallest adapter that has such a run."""
    found = _all()
    return int(found.loc[(found["unfit"] > 0) | (found["constant"] > 0), "parameters"].min())


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


@quantity("points", 1, STUDIES, each=itertools.product(TASKS, FAMILIES))
def by_rate(task: str, family: str) -> float:
    """How far an adapter of one size moves from the worst rate to the best, in the mean over a family's sizes."""
    return rates.moved(response(task))[family][0]


@quantity("points", 1, STUDIES, each=itertools.product(TASKS, FAMILIES))
def by_size(task: str, family: str) -> float:
    """How far a family moves at one rate from the worst size to the best, in the mean over rates."""
    return rates.moved(response(task))[family][1]


@quantity("points", 1, STUDIES, each=itertools.product(TASKS, FAMILIES))
def by_lower_rate(task: str, family: str) -> float:
    """`by_rate` without the highest rate."""
    return rates.moved(_lower(response(task)))[family][0]


@quantity("points", 1, STUDIES, each=itertools.product(TASKS, FAMILIES))
def by_size_at_lower_rates(task: str, family: str) -> float:
    """`by_size` without the highest rate."""
    return rates.moved(_lower(response(task)))[family][1]


@quantity("", source=STUDIES, each=("all", "but_highest"))
def rate_moves_more(which: str) -> int:
    """In how many of the rows of tasks and families the rate moves an adapter as far as its size does or farther."""
    moves = (by_rate, by_size) if which == "all" else (by_lower_rate, by_size_at_lower_rates)
    places = itertools.product(TASKS, FAMILIES)
    return sum(rate >= size for rate, size in ([move(*place) for move in moves] for place in places))


@quantity("points", 1, STUDIES)
def cp_flat() -> float:
    """How far CP's mean over its sizes moves on SST-2 over the rates."""
    return float(np.ptp(_cp_by_size().mean()))


@quantity("points", 1, STUDIES, each=("least", "most"))
def cp_moves(which: str) -> float:
    """How far single sizes do."""
    moves = np.ptp(_cp_by_size().to_numpy(), axis=1)
    return float(moves.min() if which == "least" else moves.max())


def _cp_by_size() -> pd.DataFrame:
    return response("sst2").query("label == 'cp'").pivot_table(index="size", columns="times", values="mean")


def _reached(task: str) -> pd.DataFrame:
    return response(task).pivot_table(index=["label", "size", "parameters"], columns="times", values="mean")


def _rise(task: str) -> pd.Series:
    """From ten to thirty times the paper's rate, by cell."""
    *_, before, highest = (found := _reached(task)).columns
    return found[highest] - found[before]


@quantity("scalars", source=STUDIES)
def turn() -> int:
    """The largest adapter of RTE that is better at the highest rate than at the one below it."""
    rise = _rise("rte")
    return int(rise[rise > 0].index.get_level_values("parameters").max())


@quantity("scalars", source=STUDIES)
def least_falling() -> int:
    """The smallest that is not."""
    rise = _rise("rte")
    return int(rise[rise <= 0].index.get_level_values("parameters").min())


@quantity("adapters", source=STUDIES)
def clear_rises() -> int:
    """How many of those up to `turn` are better on RTE by more than the interval of the difference."""
    cells = {
        rate: cells_of(runs("rte"), {name: rate * paper for name, paper in PAPER_RATES.items()}) for rate in (10, 30)
    }
    rise = _rise("rte")
    risen = [compare(*(cells[rate].outcomes[label, size] for rate in (30, 10)))
             for label, size, _ in rise[rise > 0].index]  # fmt: skip
    return sum(difference.interval()[0] > 0 for difference in risen)


@quantity("points", 1, STUDIES)
def best_fall_of_loras() -> float:
    """The smallest fall of LoRA's ranks above the second on SST-2 from ten to thirty times the paper's rate."""
    rise = _rise("sst2").loc["lora"]
    return -float(rise[rise.index.get_level_values("size") > 2].max())


@quantity("", source=STUDIES)
def lowest_at_papers() -> int:
    """How many sizes of CP are lowest on BoolQ at the paper's rate."""
    reached = _reached("boolq").loc[["cp"]]
    return int((reached[1.0] == reached.min(axis=1)).sum())


def _at_papers() -> pd.DataFrame:
    return response("rte").query("label == 'lora' and times == 1")


@functools.cache
def _chosen() -> pd.DataFrame:
    return frontier(tabulate(runs("rte"))[0].assign(study=""))


def _least_cp() -> pd.Series:
    """The smallest CP that is, at its chosen rate, above all LoRAs at the paper's."""
    return _chosen().query("label == 'cp'").query("eval_mean > @least", local_dict={"least": _papers_best()}).iloc[0]


def _papers_best() -> float:
    return float(_at_papers()["mean"].max())


@quantity("components", source=STUDIES)
def small_size() -> int:
    """Of the smallest CP that is, at the rate that dev chose for it, above all LoRAs at the paper's rate on RTE."""
    return int(_least_cp()["size"])


@quantity("scalars", source=STUDIES)
def small_scalars() -> int:
    """Its budget."""
    return int(_least_cp()["parameters"])


@quantity("percent", 1, STUDIES)
def small_accuracy() -> float:
    """What it has on eval."""
    return float(_least_cp()["eval_mean"])


def _small_minus_lora() -> Estimate:
    best = _at_papers().sort_values("mean").iloc[-1]
    cells = ways("rte")
    return compare(cells[CELL].outcomes["cp", small_size()], cells[PAPER].outcomes["lora", int(best["size"])])


@quantity("points", 1, STUDIES)
def small_minus_lora() -> Estimate:
    """That minus the best LoRA at the paper's rate."""
    return _small_minus_lora()


@quantity("points", 1, STUDIES)
def small_minus_lora_error() -> float:
    """Its standard error."""
    return _small_minus_lora().standard_error


@quantity("percent", 1, STUDIES, each=("least", "most"))
def papers_lora(which: str) -> float:
    """What LoRAs have on RTE at the paper's rate."""
    return _papers_best() if which == "most" else float(_at_papers()["mean"].min())


@quantity("percent", 1, STUDIES)
def tuned_lora() -> float:
    """What the smallest has at its own chosen rate."""
    return float(_chosen().query("label == 'lora'")["eval_mean"].iloc[0])


@quantity("", source=STUDIES)
def times_budget() -> float:
    """The largest LoRA's budget over that of the small CP."""
    return float(_at_papers()["parameters"].max() / small_scalars())


# BoolQ, and one answer for all.


@quantity("runs", source=STUDIES)
def boolq_at_highest() -> int:
    """Of BoolQ at the highest rate."""
    return int(_highest(response("boolq"))["runs"].sum())


@quantity("runs", source=STUDIES)
def boolq_one_answer() -> int:
    """Those of them that give one answer to all items."""
    return int(_highest(response("boolq"))["constant"].sum())


@quantity("percent", source=STUDIES)
def boolq_dev_majority() -> float:
    """Of BoolQ's dev, where the commonest answer is right."""
    return float(runs("boolq")[0].data["sets"]["dev"]["majority_rate"])


def _compared() -> pd.DataFrame:
    pairs = ways("boolq")[CELL].matched("lora", "cp")
    matched = {cell for pair in pairs for cell in zip(rates.PAIRED, pair, strict=True)}
    found = response("boolq")
    return found[found["chosen"] & pd.Series(list(zip(found["label"], found["size"], strict=True))).isin(matched)]


@quantity("runs", source=STUDIES)
def boolq_compared() -> int:
    """Of BoolQ at the chosen rates and matched budgets."""
    return int(_compared()["runs"].sum())


@quantity("runs", source=STUDIES)
def boolq_compared_one_answer() -> int:
    """Those of them that give one answer."""
    return int(_compared()["constant"].sum())


@quantity("points", 1, STUDIES, level=0.9)
def boolq_over_majority() -> Estimate:
    """Adapters at the chosen rates minus the commonest answer."""
    found = ways("boolq")[CELL]
    return estimate(rates.adapters(found) - found.majority)


@quantity("points", 1, STUDIES, each=("papers", "chosen"))
def boolq_balanced(way: str) -> Estimate:
    """Adapters minus the readout in balanced accuracy, at the paper's rates or at the chosen ones."""
    found = ways("boolq")[PAPER if way == "papers" else CELL]
    above = rates.adapters(found) - found.outcomes[HEAD, 0].right
    return estimate(above * found.class_weights((HEAD, 0)))


# LoRA minus CP, and what a choice of rates moves.


@quantity("points", 1, STUDIES, each=TASKS)
def lead(task: str) -> Estimate:
    """LoRA minus CP at matched budgets, at the rates that dev chose by cell."""
    return _lead(task, "cell")


@quantity("points", 1, STUDIES, level=0.9, each=itertools.product(TASKS, WAYS))
def lead_judged(task: str, way: str) -> Estimate:
    """The same by where the rates come from, with the interval by which a claim is judged."""
    return _lead(task, way)


@quantity(source=STUDIES, each=itertools.product(TASKS, WAYS))
def given(task: str, way: str) -> str:
    """LoRA's rate and CP's, as multiples of the paper's, where each family has one."""
    if way == "cell":
        return "by cell"
    found = PAPER_RATES if way == "papers" else rates.dev_family_rates(response(task))
    return ", ".join(rates.said(found[name] / PAPER_RATES[name]) for name in FAMILIES)


def _lead(task: str, way: str) -> Estimate:
    found = lora_ahead(ways(task)[WAYS[way]]).estimate
    assert found is not None
    return found


@quantity("components", source=STUDIES, each=RANKS)
def matched(rank: str) -> int:
    """CP's at the budget of a rank of LoRA."""
    return dict(ways("rte")[CELL].matched("lora", "cp"))[CELLS[rank][1]]


@functools.cache
def _at_budgets(task: str) -> tuple[pd.DataFrame, set[int]]:
    """CP minus LoRA at each matched budget at the chosen rates, by rank, and at which there is nothing to compare."""
    found = response(task)
    same = found[found["chosen"] & (found["constant"] == found["runs"])]
    alike = set(same[["label", "size"]].itertuples(index=False, name=None))
    pairs = ways(task)[CELL].matched("lora", "cp")
    return differences(ways(task)[CELL]).set_index("rank"), {
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
    cells = ways(task)[CELL]
    return compare(cells.outcomes["cp", dict(cells.matched("lora", "cp"))[size]], cells.outcomes["lora", size])


@quantity("", 3, STUDIES, each=itertools.product(TASKS, RANKS))
def at_budget_p(task: str, rank: str) -> float | str:
    """That this is none."""
    return _at_budget(task, rank, "p")


@quantity("", 3, STUDIES, each=itertools.product(TASKS, RANKS))
def at_budget_holm(task: str, rank: str) -> float | str:
    """The same after Holm's correction over the task's budgets."""
    return _at_budget(task, rank, "holm")


@quantity("", 3, STUDIES, each=itertools.product(TASKS, RANKS))
def at_budget_alike(task: str, rank: str) -> float | str:
    """That it is a point or more."""
    return _at_budget(task, rank, "p_alike")


@quantity("", source=STUDIES)
def clear() -> int:
    """How many differences at single budgets are clear then, on all tasks."""
    return sum(int((differences(ways(task)[CELL])["holm"] < 0.05).sum()) for task in TASKS)


@quantity("points", 1, STUDIES, each=TASKS)
def change(task: str) -> Estimate:
    """The same minus LoRA's lead at the paper's rates."""
    return rates.gap_change(ways(task)[PAPER], ways(task)[CELL])


@quantity("points", 1, STUDIES, each=itertools.product(TASKS, ("lora", "cp")))
def gain(task: str, family: str) -> Estimate:
    """A family at the chosen rates minus at the paper's."""
    return rates.gain(ways(task)[PAPER], ways(task)[CELL], family)


@quantity("points", 1, STUDIES, each=TASKS)
def optimism(task: str) -> float:
    """The best of a cell's rates on eval above dev's choice, on the average over cells."""
    return rates.optimism(runs(task))


@quantity("points", 1, STUDIES, each=TASKS)
def redrawn_sd(task: str) -> Value:
    """How LoRA's lead moves with dev sets drawn anew: a standard deviation."""
    return Value(float(_redrawn(task).std()), n=rates.REDRAWN)


@quantity("points", 1, STUDIES, each=TASKS)
def redrawn(task: str) -> Value:
    """LoRA's lead with dev sets drawn anew, and where nine in ten of them lie."""
    low, high = np.quantile(_redrawn(task), (0.05, 0.95))
    return Value(float(_redrawn(task).mean()), float(low), float(high), rates.REDRAWN, 0.9)


@functools.cache
def _redrawn(task: str) -> Floats:
    return rates.redrawn_gaps(runs(task), rates.REDRAWN, np.random.default_rng(0))


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
