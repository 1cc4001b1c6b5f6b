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
# # RTE: few items, and no lead that they show
#
# **Does RTE remain LoRA's, however finely CP's budget is chosen?**
#
# That cannot be told from its {q}`tasks.items.rte` items. On SmolLM2-135M-Instruct, whose weights are dequantized from
# four bits, under the paper's protocol and on one draw of the examples (the worst of {q}`noise.draws_known` on SST-2),
# LoRA's mean is above CP's at every matched budget, by {q}`tasks.lead.rte` points on the average over
# {q}`tasks.seeds.rte` {term}`seeds <seed>` (95 % interval {q}`tasks.lead.rte|interval`), and none of the
# {q}`tasks.pairs.rte` single differences is {term}`clear` of its own. With {q}`noise.over_seeds.rte.lora1_cp11|n`
# seeds the first budget, at ten times the rates, has {q}`noise.over_seeds.rte.lora1_cp11` points
# ({q}`noise.over_seeds.rte.lora1_cp11|interval`).
# {says}`noise.over_seeds.rte.lora1_cp11.low < 0 < noise.over_seeds.rte.lora1_cp11.high`
# {says}`tasks.least_lead.rte > 0 and tasks.lead.rte.low < 0 and tasks.clear.rte == 0`

# %% tags=["hide-input"]
from IPython.display import display

from companion import ladder
from companion.published import read_published
from cpadapt.analysis import charts

charts.enable()
task = ladder.measured("smollm2", "rte")

# %% [markdown]
# ## The frontier
#
# {q}`tasks.runs.rte` runs in one {term}`bank`, set up as those of [SST-2](sst2.ipynb): {q}`tasks.steps.rte` steps at
# the paper's rates, at most {q}`tasks.cap.rte` training examples. A run is judged at the step that {term}`dev` chose,
# of {q}`tasks.looks.rte`. Move the budget to see what is best at or under it.

# %% tags=["hide-input"]
display(charts.frontier_chart(task.runs, budget_slider=True))
charts.table(ladder.accuracy_table(task.cells, task.evaluations))

# %% [markdown]
# The {term}`readout` alone has {q}`tasks.readout.rte` %, hardly more than the {q}`tasks.majority.rte` % of always
# giving the commoner answer. In {term}`balanced accuracy`, which counts both classes the same, adapters at matched
# budgets are on the average {q}`tasks.gain.rte|signed` points above it (90 % interval
# {q}`tasks.gain.rte|interval|signed`), and {q}`tasks.taught.rte` of these {q}`tasks.compared.rte` cells, each for
# itself, are shown to be; {q}`tasks.untaught.rte` are not. The training examples they learn by heart. Over the last
# {q}`tasks.eval_every.rte` steps the loss on these is {q}`tasks.loss.rte.readout` for the head alone,
# {q}`tasks.loss.rte.one` with one component and {q}`tasks.loss.rte.most` with the most of them, and it falls with
# every size. At the budget of LoRA's first rank CP is left with {q}`tasks.loss.rte.matched` where LoRA has
# {q}`tasks.loss.rte.rank`, and their rates, CP's twice LoRA's, do not compare.
# {says}`0 < tasks.readout.rte - tasks.majority.rte < 2 and tasks.gain.rte.low > 0`
# {says}`min(tasks.least_fall_of_loss.rte) > 0 and tasks.loss.rte.most < 0.01`
# {says}`tasks.loss.rte.rank < tasks.loss.rte.matched and tasks.least_loss_behind.rte > 0`
# {says}`tasks.rate.cp == 2 * tasks.rate.lora`
#
# The paper reports on OPT-1.3B {cite:p}`wang2026finer` that RTE stays LoRA's. Its values are hollow here, and in part
# second-hand:

# %% tags=["hide-input"]
charts.frontier_chart(task.runs, published=read_published().query("task == 'rte'"))

# %% [markdown]
# ## CP against LoRA at matched budgets
#
# Differences are taken seed by seed and item by item. *Holm* is the p value corrected for the number of pairs. *Alike*
# is the p value of a difference of a point or more.

# %% tags=["hide-input"]
charts.table(ladder.difference_table(task.cells))

# %% [markdown]
# CP is behind at every one. Averaged over all, LoRA is ahead by {q}`tasks.lead.rte` points with an error of
# {q}`tasks.lead_error.rte`, of which {q}`tasks.lead_error_limit.rte` would remain with no end of seeds. The 95 %
# interval holds zero, and the 90 % one, by which [the claims](claims.ipynb) are judged, is
# {q}`tasks.lead_judged.rte|interval`: without one of the budgets, or by one answer, it would hold zero as well. There
# "LoRA is ahead" is *{q}`tasks.lead_verdict.rte`*.
# {says}`tasks.least_lead.rte > 0 and tasks.lead.rte.low < 0`
# {says}`tasks.least_low_without_one.rte < 0 < tasks.lead_judged.rte.low < tasks.one_answer.rte`
#
# ## Where the plateau begins
#
# The smallest size within a point of its family's best, and how often each size is that one when seeds and items are
# drawn anew:

# %% tags=["hide-input"]
charts.table(ladder.plateau_table(task.cells))

# %% [markdown]
# No size is it in half of the draws: where a plateau begins is not something that {q}`tasks.items.rte` items and
# {q}`tasks.seeds.rte` seeds can tell.
# {says}`tasks.plateau_surest.rte < 50`
#
# ## The best cell, without the optimism of its choice
#
# The best of CP's {q}`tasks.sizes.rte.cp` cells has {q}`tasks.best.rte.cp` %, and {q}`tasks.best_held_out.rte.cp` %
# where half of the seeds and items choose and the others judge; the best of LoRA's {q}`tasks.sizes.rte.lora` has
# {q}`tasks.best.rte.lora` and {q}`tasks.best_held_out.rte.lora` %. LoRA's second figure is below even the mean of its
# cells. Where cells are as alike as these, the one that is lucky on one half of few items has the less luck left on
# the other, so it errs low; what the first adds by its choice lies between none and the difference of the two.
# {says}`tasks.best_held_out.rte.lora < tasks.mean.rte.lora`
#
# ## Dev and eval
#
# A run's accuracy on dev is {q}`tasks.dev_over_eval.rte` points above that on eval, on average. Between runs with an
# adapter the two correlate at {q}`tasks.correlation.rte`. That is chiefly CP's, whose cells differ more: among CP's
# runs it is {q}`tasks.correlation_within.rte.cp`, among LoRA's {q}`tasks.correlation_within.rte.lora`.
# {says}`tasks.sd.rte.cp > tasks.sd.rte.lora`
# {says}`tasks.correlation_within.rte.cp > tasks.correlation.rte - 0.01`
# {says}`tasks.correlation_within.rte.lora < tasks.correlation.rte - 0.3`

# %% tags=["hide-input"]
charts.choice_chart(task.runs)

# %% [markdown]
# ## How they got there
#
# Of {q}`tasks.adapted.rte` runs with an adapter, {q}`tasks.early.rte` were best on dev at the first of
# {q}`tasks.looks.rte` evaluations, and {q}`tasks.late.rte` at the last, {q}`tasks.epochs.rte` times through the
# training examples. At other rates it is [another picture](rates.ipynb).

# %% tags=["hide-input"]
charts.curve_chart(task.evaluations)

# %% [markdown]
# ## Which items change
#
# How far runs of two cells agree, beside how far two seeds of one cell do, and how many items all runs of the one get
# wrong and all of the other right (*gained*) or the other way round (*lost*).

# %% tags=["hide-input"]
charts.table(ladder.change_table(task.cells))

# %% [markdown]
# From CP's smallest budget to its largest these are gained, by their row of the validation split, counted from zero:
# {q}`tasks.changed.rte.gained`; and these lost: {q}`tasks.changed.rte.lost`. Nearly as many go as come.
# {says}`abs(tasks.change.rte.gained - tasks.change.rte.lost) <= 2`
#
# Next: [BoolQ](boolq.ipynb).
