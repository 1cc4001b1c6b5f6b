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
# On SmolLM2-135M-Instruct, dequantized from four bits, a CP adapter of one size moves by {q}`rates.by_rate.rte.cp`
# points on RTE, {q}`rates.by_rate.boolq.cp` on BoolQ and {q}`rates.by_rate.sst2.cp` on SST-2 from the worst of
# {q}`rates.tried` rates to the best, and at one rate by {q}`rates.by_size.rte.cp`, {q}`rates.by_size.boolq.cp` and
# {q}`rates.by_size.sst2.cp` from the worst of {q}`rates.cp_sizes` sizes to the best, so over the ranges tried the rate
# matters about as much as the budget. At rates that {term}`dev` chose, LoRA's mean is the higher one at matched
# budgets, by {q}`rates.lead.sst2` points on SST-2, {q}`rates.lead.boolq` on BoolQ and {q}`rates.lead.rte` on RTE (95 %
# intervals {q}`rates.lead.sst2|interval|signed`, {q}`rates.lead.boolq|interval|signed` and
# {q}`rates.lead.rte|interval|signed`), and none of these has changed {term}`clearly <clear>` from what it is at the
# paper's rates. The intervals leave out the choice itself, with which RTE's difference moves by a standard deviation
# of {q}`rates.redrawn_sd.rte` points.
# {says}`all(rates.lead > 0)`
# {says}`all(rates.change.low < 0, rates.change.high > 0)`
# {says}`0.6 < rates.by_rate.sst2.cp / rates.by_size.sst2.cp < 1.6`
# {says}`0.6 < rates.by_rate.rte.cp / rates.by_size.rte.cp < 1.6`
# {says}`0.6 < rates.by_rate.boolq.cp / rates.by_size.boolq.cp < 1.6`

# %%
from companion import rates
from cpadapt.analysis import charts
from cpadapt.records.table import tabulate

charts.enable()
tasks = {name: rates.runs_at_all_rates(("smollm2", "smollm2-rates"), name) for name in rates.TASKS}
runs = {name: tabulate(records)[0].assign(study="") for name, records in tasks.items()}

# %% [markdown]
# The paper gives each {term}`family` one rate, {q}`rates.papers_rate.lora` to LoRA and {q}`rates.papers_rate.cp` to
# CP. Here a part of its grid is trained at three, ten and {q}`rates.highest` times that too, under the same protocol
# otherwise: {q}`rates.added` more runs, all on one draw of the examples, on SST-2 the worst of {q}`noise.draws_known`.
# Nothing but dev may choose among them, and all that was tried is shown.
#
# ## The response
#
# A line is one size over its rates, the thicker the larger its {term}`budget`; dashed is the {term}`readout` alone.
#
# ### SST-2

# %% tags=["hide-input"]
charts.rate_chart(rates.response(tasks["sst2"]), rates.floor(tasks["sst2"]))

# %% tags=["hide-input"]
charts.table(rates.response_table("sst2"))

# %% [markdown]
# On SST-2 CP's mean over its sizes stays within {q}`rates.cp_flat` points from the paper's rate to {q}`rates.highest`
# times it, and single sizes move by {q}`rates.cp_moves.least` to {q}`rates.cp_moves.most`. LoRA's larger ranks fall at
# {q}`rates.highest` times the rate.
# {says}`rates.best_fall_of_loras > 2`
#
# ### RTE

# %% tags=["hide-input"]
charts.rate_chart(rates.response(tasks["rte"]), rates.floor(tasks["rte"]))

# %% tags=["hide-input"]
charts.table(rates.response_table("rte"))

# %% [markdown]
# From ten to {q}`rates.highest` times the paper's rate every mean of up to {q}`rates.turn` scalars rises here, though
# none by clearly more than its error, and every larger one falls, of both families: the highest rate ruins large
# adapters and no small one. So a comparison of budgets at one rate is in part one of how well that rate suits them. CP
# with {q}`rates.small_size` components, {q}`rates.small_scalars` scalars, has {q}`rates.small_accuracy|unit` at the
# rate that dev chose for it, no less than any of these LoRAs at the paper's rate, of up to {q}`rates.times_budget`
# times its budget: {q}`rates.papers_lora.least` to {q}`rates.papers_lora.most|unit`. That cell was picked after
# looking, the difference is well within its error, and the smallest LoRA has {q}`rates.tuned_lora|unit` at its own
# chosen rate.
# {says}`rates.turn < rates.least_falling and rates.clear_rises == 0`
# {says}`rates.small_accuracy >= rates.papers_lora.most`
# {says}`0 <= rates.small_minus_lora < rates.small_minus_lora_error`
#
# ### BoolQ

# %% tags=["hide-input"]
charts.rate_chart(rates.response(tasks["boolq"]), rates.floor(tasks["boolq"]))

# %% tags=["hide-input"]
charts.table(rates.response_table("boolq"))

# %% [markdown]
# On BoolQ every size of CP is lowest at the paper's rate. But of the {q}`rates.boolq_at_highest` runs at
# {q}`rates.highest` times the rate {q}`rates.boolq_one_answer` give one and the same answer to every item, as far as
# their records show it, and dev, on which that answer is right for {q}`rates.boolq_dev_majority|unit`, chose such
# rates: of the {q}`rates.boolq_compared` runs that are compared below, {q}`rates.boolq_compared_one_answer` are of
# this kind. Over always giving the commonest answer, which is better than the {term}`readout`, adapters at the chosen
# rates are {q}`rates.boolq_over_majority|signed` points on the average (90 %,
# {q}`rates.boolq_over_majority|interval|signed`). But that asks for a threshold and not only for learning. In balanced
# accuracy, of which each label has a half, adapters at the paper's rates are {q}`rates.boolq_balanced.papers|signed`
# points above the readout (95 %, {q}`rates.boolq_balanced.papers|interval|signed`), so they do learn BoolQ, and at the
# chosen ones {q}`rates.boolq_balanced.chosen|signed` ({q}`rates.boolq_balanced.chosen|interval|signed`).
# {says}`rates.lowest_at_papers == rates.cp_sizes`
# {says}`rates.boolq_over_majority.low < 0`
# {says}`rates.boolq_balanced.papers.low > 0`
#
# ## How far each moves
#
# Points of accuracy from the worst to the best: over the rates at one size, and over the sizes at one rate, each a
# mean of such distances; then again without the highest rate. All hold noise, and more of it the more there is to
# choose from, which for CP favours the sizes.

# %% tags=["hide-input"]
charts.table(rates.moved_table())

# %% [markdown]
# In five of the six rows the rate moves an adapter as far as its size does or farther, and without the highest rate in
# three. None of the {q}`rates.all_runs` runs diverged, in the sense that a loss or a gradient was lost. But at
# {q}`rates.highest` times the paper's rate {q}`rates.unfit.highest` ended with a training loss above the readout's and
# {q}`rates.one_answer.highest` give one answer on eval, all of them larger than {q}`rates.turn` scalars; at lower
# rates none does either. That none diverged says no more than that nothing was lost.
# {says}`rates.rate_moves_more.all == 5 and rates.rate_moves_more.but_highest == 3`
# {says}`rates.diverged == 0`
# {says}`rates.unfit.lower == 0 and rates.one_answer.lower == 0`
# {says}`rates.least_ruined > rates.turn`
#
# ## LoRA minus CP, with the paper's rates and with chosen ones
#
# *One a family* takes for each family the rate with the highest mean on dev over its sizes, *one a cell* each cell's
# own. The differences are averages over the {q}`rates.pairs` matched budgets that were tried at all rates, seed by
# seed and item by item, in points. [The claims](claims.ipynb) have verdicts on them, at the paper's rates on all six
# matched budgets.

# %% tags=["hide-input"]
charts.table(rates.ways_table())

# %% [markdown]
# With a rate a cell, the gain over the paper's rates is {q}`rates.gain.rte.lora|signed` points for LoRA and
# {q}`rates.gain.rte.cp|signed` for CP on RTE (95 % intervals {q}`rates.gain.rte.lora|interval|signed` and
# {q}`rates.gain.rte.cp|interval|signed`), {q}`rates.gain.boolq.lora|signed` and {q}`rates.gain.boolq.cp|signed` on
# BoolQ ({q}`rates.gain.boolq.lora|interval|signed`, {q}`rates.gain.boolq.cp|interval|signed`), and
# {q}`rates.gain.sst2.lora|signed` and {q}`rates.gain.sst2.cp|signed` on SST-2
# ({q}`rates.gain.sst2.lora|interval|signed`, {q}`rates.gain.sst2.cp|interval|signed`). What LoRA is ahead by changes
# by {q}`rates.change.rte|signed` points on RTE ({q}`rates.change.rte|interval|signed`), {q}`rates.change.boolq|signed`
# on BoolQ ({q}`rates.change.boolq|interval|signed`) and {q}`rates.change.sst2|signed` on SST-2
# ({q}`rates.change.sst2|interval|signed`). So where an interval leaves zero at the one and not at the other, that is
# no evidence that the rate made the difference.
# {says}`all(rates.change.low < 0, rates.change.high > 0)`
#
# At single budgets, at the chosen rates, with each task's p values corrected for its pairs:

# %% tags=["hide-input"]
charts.table(rates.single_table())

# %% [markdown]
# One is clear after the correction, BoolQ's at LoRA's first rank. There dev gave CP a rate that is not its best on
# eval. And at the last budget BoolQ compares runs that give one answer with runs that give the same, which is no test.
# {says}`rates.clear == 1 and rates.at_budget_holm.boolq.lora1 < 0.05`
#
# All these intervals take the chosen rates as given. They are a choice of dev's, which has few items and little to go
# by. With dev sets drawn anew, as eval's items vary, what LoRA is ahead by on the same eval moves with a standard
# deviation of {q}`rates.redrawn_sd.rte` points on RTE (90 %, {q}`rates.redrawn.rte|interval|signed`),
# {q}`rates.redrawn_sd.boolq` on BoolQ ({q}`rates.redrawn.boolq|interval|signed`) and {q}`rates.redrawn_sd.sst2` on
# SST-2 ({q}`rates.redrawn.sst2|interval|signed`). And {q}`rates.on_the_edge.all` of {q}`rates.choices.all` choices
# fell on the highest rate. Of the {q}`rates.choices.small` for adapters of up to {q}`rates.turn` scalars
# {q}`rates.on_the_edge.small` did: for small adapters the range of rates is cut off, and higher ones might be better
# still.
# {says}`rates.on_the_edge.small / rates.choices.small > rates.on_the_edge.all / rates.choices.all`
#
# ## What choosing on eval would have shown
#
# On RTE the best of each cell's rates on eval is {q}`rates.optimism.rte` points above dev's choice, on the average
# over cells, on SST-2 {q}`rates.optimism.sst2` and on BoolQ {q}`rates.optimism.boolq`. A part of that is a better
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
