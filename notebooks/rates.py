# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The learning rate: a hidden budget
#
# **Does the value of a finer step depend on the learning rate?**
#
# On SmolLM2-135M-Instruct, dequantized from four bits, a CP adapter of one size moves by {glue:text}`rte_cp_by_rate`
# points on RTE, {glue:text}`boolq_cp_by_rate` on BoolQ and {glue:text}`sst2_cp_by_rate` on SST-2 from the worst of
# {glue:text}`rates` rates to the best, and at one rate by {glue:text}`rte_cp_by_size`, {glue:text}`boolq_cp_by_size`
# and {glue:text}`sst2_cp_by_size` from the worst of {glue:text}`cp_sizes` sizes to the best, so over the ranges tried
# the rate matters about as much as the budget. At rates that {term}`dev` chose, LoRA's mean is the higher one at
# matched budgets, by {glue:text}`sst2_gap` points on SST-2, {glue:text}`boolq_gap` on BoolQ and {glue:text}`rte_gap`
# on RTE (ninety-five-percent intervals {glue:text}`sst2_gap_ends`, {glue:text}`boolq_gap_ends` and
# {glue:text}`rte_gap_ends`), and none of these has changed {term}`clearly <clear>` from what it is at the paper's
# rates. The intervals leave out the choice itself, with which RTE's difference moves by a standard deviation of
# {glue:text}`rte_redrawn_sd` points.

# %%
from myst_nb import glue

from companion import rates
from companion.claims import interval_90
from companion.wording import bounds, percent, signed
from cpadapt.analysis import charts
from cpadapt.analysis.frontier import frontier
from cpadapt.analysis.statistics import estimate
from cpadapt.records.config import HEAD
from cpadapt.records.table import tabulate

charts.enable()

# %%
tasks = {name: rates.measured(("smollm2", "smollm2-rates"), name) for name in ("sst2", "rte", "boolq")}
runs = {name: tabulate(records)[0].assign(study="") for name, records in tasks.items()}
found = {name: rates.response(records) for name, records in tasks.items()}


def floor(task):
    return runs[task].loc[runs[task]["label"] == HEAD, "eval_accuracy"].mean()


# %% [markdown]
# The paper gives each {term}`family` one rate, {glue:text}`lora_rate` to LoRA and {glue:text}`cp_rate` to CP. Here a
# part of its grid is trained at three, ten and thirty times that too, under the same protocol otherwise:
# {glue:text}`added` more runs, all on one draw of the examples, on SST-2 the worst of
# {q}`noise.draws_known`. Nothing but dev may choose among them, and all that was tried is shown.
#
# ## The response
#
# A line is one size over its rates, the thicker the larger its {term}`budget`; dashed is the {term}`readout` alone.
#
# ### SST-2

# %% tags=["hide-input"]
charts.rate_chart(found["sst2"], floor("sst2"))

# %% tags=["hide-input"]
charts.table(rates.response_table(tasks["sst2"]))

# %% [markdown]
# On SST-2 CP's mean over its sizes stays within {glue:text}`cp_flat` points from the paper's rate to thirty times it,
# and single sizes move by {glue:text}`flat_low` to {glue:text}`flat_high`. LoRA's larger ranks fall at thirty times
# the rate.
#
# ### RTE

# %% tags=["hide-input"]
charts.rate_chart(found["rte"], floor("rte"))

# %% tags=["hide-input"]
charts.table(rates.response_table(tasks["rte"]))

# %% [markdown]
# From ten to thirty times the paper's rate every mean of up to {glue:text}`turn` scalars rises here, though none by
# clearly more than its error, and every larger one falls, of both families: the highest rate ruins large adapters and
# no small one. So a comparison of budgets at one rate is in part one of how well that rate suits them. CP with
# {glue:text}`small_size` components, {glue:text}`small_scalars` scalars, has {glue:text}`small_accuracy` % at the rate
# that dev chose for it, no less than any of these LoRAs at the paper's rate, of up to {glue:text}`times_budget` times
# its budget: {glue:text}`paper_low` to {glue:text}`paper_best` %. That cell was picked after looking, the difference
# is well within its error, and the smallest LoRA has {glue:text}`tuned_lora` % at its own chosen rate.
#
# ### BoolQ

# %% tags=["hide-input"]
charts.rate_chart(found["boolq"], floor("boolq"))

# %% tags=["hide-input"]
charts.table(rates.response_table(tasks["boolq"]))

# %% [markdown]
# On BoolQ every size of CP is lowest at the paper's rate. But of the {glue:text}`boolq_at_highest` runs at thirty
# times the rate {glue:text}`boolq_constant` give one and the same answer to every item, as far as their records show
# it, and dev, on which that answer is right for {glue:text}`boolq_dev_majority` %, chose such rates: of the
# {glue:text}`chosen_runs` runs that are compared below, {glue:text}`constant_chosen` are of this kind. Over always
# giving the commonest answer, which is better than the {term}`readout`, adapters at the chosen rates are
# {glue:text}`boolq_over` points on the average (ninety percent, {glue:text}`boolq_over_ends`). But that asks for a
# threshold and not only for learning. In balanced accuracy, of which each label has a half, adapters at the paper's
# rates are {glue:text}`boolq_balanced` points above the readout (ninety-five percent,
# {glue:text}`boolq_balanced_ends`), so they do learn BoolQ, and at the chosen ones {glue:text}`boolq_balanced_chosen`
# ({glue:text}`boolq_balanced_chosen_ends`).
#
# ## How far each moves
#
# Points of accuracy from the worst to the best: over the rates at one size, and over the sizes at one rate, each a
# mean of such distances; then again without the highest rate. All hold noise, and more of it the more there is to
# choose from, which for CP favours the sizes.

# %% tags=["hide-input"]
charts.table(rates.moved_table(tasks))

# %% [markdown]
# In five of the six rows the rate moves an adapter as far as its size does or farther, and without the highest rate in
# three. None of the {glue:text}`runs` runs diverged, in the sense that a loss or a gradient was lost. But at thirty
# times the paper's rate {glue:text}`unfit` ended with a training loss above the readout's and {glue:text}`constant`
# give one answer on eval, all of them larger than {glue:text}`turn` scalars; at lower rates none does either. That
# none diverged says no more than that nothing was lost.
#
# ## LoRA minus CP, with the paper's rates and with chosen ones
#
# *One a family* takes for each family the rate with the highest mean on dev over its sizes, *one a cell* each cell's
# own. The differences are averages over the {glue:text}`pairs` matched budgets that were tried at all rates, seed by
# seed and item by item, in points. [The claims](claims.ipynb) have verdicts on them, at the paper's rates on all six
# matched budgets.

# %% tags=["hide-input"]
charts.table(rates.ways_table(tasks))

# %% [markdown]
# With a rate a cell, the gain over the paper's rates is {glue:text}`rte_lora_gain` points for LoRA and
# {glue:text}`rte_cp_gain` for CP on RTE (ninety-five-percent intervals {glue:text}`rte_lora_gain_ends` and
# {glue:text}`rte_cp_gain_ends`), {glue:text}`boolq_lora_gain` and {glue:text}`boolq_cp_gain` on BoolQ
# ({glue:text}`boolq_lora_gain_ends`, {glue:text}`boolq_cp_gain_ends`), and {glue:text}`sst2_lora_gain` and
# {glue:text}`sst2_cp_gain` on SST-2 ({glue:text}`sst2_lora_gain_ends`, {glue:text}`sst2_cp_gain_ends`). What LoRA is
# ahead by changes by {glue:text}`rte_change` points on RTE ({glue:text}`rte_change_ends`), {glue:text}`boolq_change`
# on BoolQ ({glue:text}`boolq_change_ends`) and {glue:text}`sst2_change` on SST-2 ({glue:text}`sst2_change_ends`). So
# where an interval leaves zero at the one and not at the other, that is no evidence that the rate made the difference.
#
# At single budgets, at the chosen rates, with each task's p values corrected for its pairs:

# %% tags=["hide-input"]
charts.table(rates.single_table(tasks))

# %% [markdown]
# One is clear after the correction, BoolQ's at LoRA's first rank. There dev gave CP a rate that is not its best on
# eval. And at the last budget BoolQ compares runs that give one answer with runs that give the same, which is no test.
#
# All these intervals take the chosen rates as given. They are a choice of dev's, which has few items and little to go
# by. With dev sets drawn anew, as eval's items vary, what LoRA is ahead by on the same eval moves with a standard
# deviation of {glue:text}`rte_redrawn_sd` points on RTE (ninety percent, {glue:text}`rte_redrawn_ends`),
# {glue:text}`boolq_redrawn_sd` on BoolQ ({glue:text}`boolq_redrawn_ends`) and {glue:text}`sst2_redrawn_sd` on SST-2
# ({glue:text}`sst2_redrawn_ends`). And {glue:text}`edge` of {glue:text}`choices` choices fell on the highest rate. Of
# the {glue:text}`small_choices` for adapters of up to {glue:text}`turn` scalars {glue:text}`small_edge` did: for small
# adapters the range of rates is cut off, and higher ones might be better still.
#
# ## What choosing on eval would have shown
#
# On RTE the best of each cell's rates on eval is {glue:text}`rte_optimism` points above dev's choice, on the average
# over cells, on SST-2 {glue:text}`sst2_optimism` and on BoolQ {glue:text}`boolq_optimism`. A part of that is a better
# rate, the rest luck that would be reported as if it were one.
#
# ## The frontiers, at the chosen rates
#
# SST-2, RTE and BoolQ, each cell at the rate that dev chose.

# %% tags=["hide-input"]
charts.frontier_chart(runs["sst2"], budget_slider=True)

# %% tags=["hide-input"]
charts.frontier_chart(runs["rte"], budget_slider=True)

# %% tags=["hide-input"]
charts.frontier_chart(runs["boolq"], budget_slider=True)

# %% [markdown]
# Next: [the readout, and more examples](readout.ipynb).

# %% tags=["remove-cell"]
# Where more rate begins to hurt on RTE, and what it does there for a small CP against a large LoRA.
of_rte = found["rte"]
reached = of_rte.pivot_table(index=["label", "size", "parameters"], columns="times", values="mean")
*_, before, highest = reached.columns
risen = reached[reached[highest] > reached[before]].index.get_level_values("parameters")
at_papers = of_rte[(of_rte["label"] == "lora") & (of_rte["learning_rate"] == rates.PAPERS["lora"])]
best = frontier(runs["rte"])
small = best[(best["label"] == "cp") & (best["eval_mean"] > at_papers["mean"].max())].iloc[0]

of_task = {name: rates.figures(records) for name, records in tasks.items()}
for name, value in {
    "lora_rate": f"{rates.PAPERS['lora']:g}",
    "cp_rate": f"{rates.PAPERS['cp']:g}",
    "turn": f"{risen.max():,}",
    "small_size": str(small["size"]),
    "small_scalars": f"{small['parameters']:,}",
    "small_accuracy": percent(small["eval_mean"]),
    "paper_low": percent(at_papers["mean"].min()),
    "tuned_lora": percent(best.loc[best["label"] == "lora", "eval_mean"].iloc[0]),
    "paper_best": percent(at_papers["mean"].max()),
    "times_budget": f"{at_papers['parameters'].max() / small['parameters']:.0f}",
}.items():
    glue(name, value, display=False)
for name in ("runs", "added", "unfit", "constant", "choices", "edge", "small_choices", "small_edge"):
    glue(name, str(sum(int(named[name]) for named in of_task.values())), display=False)
for name in ("rates", "cp_sizes", "pairs"):
    glue(name, of_task["rte"][name], display=False)
for name in ("cp_flat", "flat_low", "flat_high"):
    glue(name, of_task["sst2"][name], display=False)
for name in ("constant_chosen", "chosen_runs"):
    glue(name, of_task["boolq"][name], display=False)
for name in ("at_highest", "constant"):
    glue(f"boolq_{name}", of_task["boolq"][name], display=False)
at_papers, at_chosen = (rates.ways(tasks["boolq"])[way] for way in (rates.PAPER, rates.CELL))
over = estimate(rates.adapters(at_chosen) - at_chosen.majority)
for name, of in (("balanced", at_papers), ("balanced_chosen", at_chosen)):
    gain = estimate((rates.adapters(of) - of.outcomes[HEAD, 0].right) * of.class_weights((HEAD, 0)))
    glue(f"boolq_{name}", signed(gain.mean), display=False)
    glue(f"boolq_{name}_ends", bounds(gain.interval()), display=False)
glue("boolq_over", signed(over.mean), display=False)
glue("boolq_over_ends", bounds(interval_90(over)), display=False)
dev = tasks["boolq"][0].data["sets"]["dev"]
glue("boolq_dev_majority", percent(dev["majority_rate"], 0), display=False)
for task, named in of_task.items():
    for name in (
        "cp_by_rate", "cp_by_size", "gap", "gap_ends", "change", "change_ends", "optimism", "lora_gain",
        "lora_gain_ends", "cp_gain", "cp_gain_ends", "redrawn_sd", "redrawn_ends",
    ):  # fmt: skip
        glue(f"{task}_{name}", named[name], display=False)
