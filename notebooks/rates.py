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
# **Does what a finer step is worth hang on the learning rate?**
#
# On SmolLM2-135M a CP adapter of one size moves by {glue:text}`rte_cp_by_rate` points on RTE and
# {glue:text}`boolq_cp_by_rate` on BoolQ from the worst of {glue:text}`rates` rates to the best, as far as or farther
# than at one rate from the worst of {glue:text}`cp_sizes` sizes to the best ({glue:text}`rte_cp_by_size` and
# {glue:text}`boolq_cp_by_size`). At rates that {term}`dev` chose, LoRA still has the higher accuracy on the average
# over matched budgets, by {glue:text}`sst2_gap` points on SST-2, {glue:text}`boolq_gap` on BoolQ and
# {glue:text}`rte_gap` on RTE, of which RTE's alone is clear of its error.

# %%
from myst_nb import glue

from cpadapt import charts, rates
from cpadapt.frontier import frontier
from cpadapt.protocol import HEAD
from cpadapt.record import tabulate

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
# {glue:text}`added` more runs. Nothing but dev may choose among them, and all that was tried is shown.
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
# On SST-2 CP does not care: from the paper's rate to thirty times it, the mean over its sizes stays within
# {glue:text}`cp_flat` points. LoRA's larger ranks fall at thirty times the rate.
#
# ### RTE

# %% tags=["hide-input"]
charts.rate_chart(found["rte"], floor("rte"))

# %% tags=["hide-input"]
charts.table(rates.response_table(tasks["rte"]))

# %% [markdown]
# On RTE it is the rate that decides. From ten to thirty times the paper's rate each adapter of up to
# {glue:text}`turn` scalars still gains and each larger one loses, of both families. So the rate that suits a small
# adapter ruins a large one, and a comparison of budgets at one rate is a comparison of how well that rate suits them.
# CP with {glue:text}`small_size` components, {glue:text}`small_scalars` scalars, reaches {glue:text}`small_accuracy` %
# at the rate that dev chose for it; at the paper's rate none of the LoRAs here reaches more than
# {glue:text}`paper_best` %, and the largest has {glue:text}`times_budget` times that budget.
#
# ### BoolQ

# %% tags=["hide-input"]
charts.rate_chart(found["boolq"], floor("boolq"))

# %% tags=["hide-input"]
charts.table(rates.response_table(tasks["boolq"]))

# %% [markdown]
# On BoolQ every size of CP is lowest at the paper's rate. That the adapters learn anything over the readout could not
# be shown [there](boolq.ipynb); at the rates that dev chose, it is.
#
# ## How far each moves
#
# Points of accuracy from the worst to the best: over the rates at one size, and over the sizes at one rate, each a
# mean of such distances. Both hold noise, and more of it the more there is to choose from, which for CP favours the
# sizes.

# %% tags=["hide-input"]
charts.table(rates.moved_table(tasks))

# %% [markdown]
# None of the {glue:text}`runs` runs diverged, in the sense that a loss or a gradient was lost. But
# {glue:text}`unfit` of those at thirty times the paper's rate ended with a training loss above the readout's, and none
# at a lower one: they had an adapter and learned less than without it. *Trains stably* holds within a window of rates,
# and the window narrows as the budget grows.
#
# ## The verdict, with the paper's rates and with chosen ones
#
# *One a family* takes for each family the rate with the highest mean on dev over its sizes, *one a cell* each cell's
# own. The differences are averaged over {glue:text}`pairs` matched budgets, seed by seed and item by item, and the
# verdicts are those of [the claims](claims.ipynb).

# %% tags=["hide-input"]
charts.table(rates.ways_table(tasks))

# %% [markdown]
# With a rate a cell, the gain over the paper's rates is {glue:text}`rte_lora_gain` points for LoRA and
# {glue:text}`rte_cp_gain` for CP on RTE (ninety-five-percent intervals {glue:text}`rte_lora_gain_ends` and
# {glue:text}`rte_cp_gain_ends`), {glue:text}`boolq_lora_gain` and {glue:text}`boolq_cp_gain` on BoolQ
# ({glue:text}`boolq_lora_gain_ends`, {glue:text}`boolq_cp_gain_ends`), and {glue:text}`sst2_lora_gain` and
# {glue:text}`sst2_cp_gain` on SST-2 ({glue:text}`sst2_lora_gain_ends`, {glue:text}`sst2_cp_gain_ends`). Where one
# family gains, so does the other. What the paper's rates leave on the edge for RTE, the chosen ones make clear; and
# LoRA's lead on BoolQ, clear at rates at which the adapters are not shown to learn, is no longer clear where they are.
#
# These intervals take the chosen rates as given. They are a choice of dev's, which has few items and little to go by:
# {glue:text}`edge` of {glue:text}`choices` choices fell on the highest rate, where a higher one might be better still.
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
# Next: [the claims, one by one](claims.ipynb).

# %% tags=["remove-cell"]
# Where more rate begins to hurt on RTE, and what it does there for a small CP against a large LoRA.
of_rte = found["rte"]
reached = of_rte.pivot_table(index=["label", "size", "parameters"], columns="times", values="mean")
*_, before, highest = reached.columns
helped = reached[reached[highest] > reached[before]].index.get_level_values("parameters")
at_papers = of_rte[(of_rte["label"] == "lora") & (of_rte["learning_rate"] == rates.PAPERS["lora"])]
best = frontier(runs["rte"])
small = best[(best["label"] == "cp") & (best["eval_mean"] > at_papers["mean"].max())].iloc[0]

of_task = {name: rates.figures(records) for name, records in tasks.items()}
for name, value in {
    "lora_rate": f"{rates.PAPERS['lora']:g}",
    "cp_rate": f"{rates.PAPERS['cp']:g}",
    "turn": f"{helped.max():,}",
    "small_size": str(small["size"]),
    "small_scalars": f"{small['parameters']:,}",
    "small_accuracy": f"{100 * small['eval_mean']:.1f}",
    "paper_best": f"{100 * at_papers['mean'].max():.1f}",
    "times_budget": f"{at_papers['parameters'].max() / small['parameters']:.0f}",
}.items():
    glue(name, value, display=False)
for name in ("runs", "added", "unfit", "choices", "edge"):
    glue(name, str(sum(int(named[name]) for named in of_task.values())), display=False)
for name in ("rates", "cp_sizes", "pairs"):
    glue(name, of_task["rte"][name], display=False)
glue("cp_flat", of_task["sst2"]["cp_flat"], display=False)
for task, named in of_task.items():
    for name in ("gap", "optimism", "lora_gain", "lora_gain_ends", "cp_gain", "cp_gain_ends"):
        glue(f"{task}_{name}", named[name], display=False)
for task in ("rte", "boolq"):
    for name in ("cp_by_rate", "cp_by_size"):
        glue(f"{task}_{name}", of_task[task][name], display=False)
