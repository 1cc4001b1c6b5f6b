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
# # SST-2: flat on the sentences of eval
#
# **How much budget does SST-2 need?**
#
# On SmolLM2-135M-Instruct, whose weights are dequantized from four bits, under the paper's protocol and on one draw of
# the examples, which is the worst of {q}`noise.draws_known` here, {q}`causes.shared_below` points below the others'
# mean at [other rates](causes.ipynb), adapters of {q}`tasks.scalars.sst2.least` to {q}`tasks.scalars.sst2.most`
# scalars reach {q}`tasks.adapters.sst2.least` to {q}`tasks.adapters.sst2.most` % over {q}`tasks.seeds.sst2`
# {term}`seeds <seed>`, against {q}`tasks.readout.sst2` % for the {term}`readout` alone, and CP with
# {q}`tasks.plateau_size.sst2` components, {q}`tasks.plateau_budget.sst2` % of LoRA's first rank, is within a point of
# the best CP. CP minus LoRA at matched budgets is {q}`tasks.lead.sst2|negated|signed` points on the average (95 %
# interval {q}`tasks.lead.sst2|interval|negated|signed`), and none of the {q}`tasks.pairs.sst2` single differences is
# clear of its error. On [dev](noise.ipynb), which is of phrases as the training examples are, many components are
# clearly ahead of one.
# {says}`noise.shared_draw < noise.other_draws.least`
# {says}`tasks.adapters.sst2.least > tasks.readout.sst2 + 1 and tasks.clear.sst2 == 0`
# {says}`noise.on_dev.sst2.cp44_cp1.low > 0 and noise.on_dev_at_best.sst2.cp44_cp1.low > 0`

# %% tags=["hide-input"]
from IPython.display import display

from companion import ladder
from companion.published import read_published
from cpadapt.analysis import charts

charts.enable()
task = ladder.measured("smollm2", "sst2")

# %% [markdown]
# ## The frontier
#
# {q}`tasks.runs.sst2` runs, all in one {term}`bank`: the paper's protocol as it is written, {q}`tasks.steps.sst2`
# steps at the paper's rate for each {term}`family`, its cap of {q}`tasks.cap.sst2` training examples, and its LoRA
# ranks, with CP sizes at their budgets, between them and below. A run is judged at the step that {term}`dev` chose, of
# {q}`tasks.looks.sst2`. Faint points are seeds, and the dashed line is the {term}`head` alone. Move the budget to see
# what is best at or under it.

# %% tags=["hide-input"]
display(charts.frontier_chart(task.runs, budget_slider=True))
charts.table(ladder.accuracy_table(task.cells, task.evaluations))

# %% [markdown]
# The standard error counts seeds and evaluation items both ([`cpadapt.analysis.statistics`](../book/api.md)); the
# deviation over seeds is the smaller part of it. *Training loss* is the mean over the last {q}`tasks.eval_every.sst2`
# steps. It is there that the budget counts: from {q}`tasks.loss.sst2.readout` for the head alone it falls to
# {q}`tasks.loss.sst2.one` with one component and to {q}`tasks.loss.sst2.most` with the most of them, with every size a
# little further. The training examples are learned by heart, and eval hardly gains by it. At the budget of LoRA's
# first rank CP, at twice LoRA's rate, is left with {q}`tasks.loss.sst2.matched` where LoRA has
# {q}`tasks.loss.sst2.rank`: per step, it fits more slowly.
# {says}`tasks.seeds_in_error.sst2 < 50`
# {says}`min(tasks.least_fall_of_loss.sst2) > 0 and tasks.loss.sst2.most < 0.01`
# {says}`tasks.loss.sst2.rank < tasks.loss.sst2.matched and tasks.least_loss_behind.sst2 > 0`
# {says}`tasks.rate.cp == 2 * tasks.rate.lora`
#
# Beside that the paper's values on OPT-1.3B {cite:p}`wang2026finer`, hollow and in part second-hand: compare the
# pattern, not the height.

# %% tags=["hide-input"]
charts.frontier_chart(task.runs, published=read_published().query("task == 'sst2'"))

# %% [markdown]
# ## CP against LoRA at matched budgets
#
# Differences are taken seed by seed and item by item. *Holm* is the p value corrected for the number of pairs. *Alike*
# is the p value of a difference of a point or more: where it is small, the two are equivalent within a point.

# %% tags=["hide-input"]
charts.table(ladder.difference_table(task.cells))

# %% [markdown]
# No single pair can tell the families apart, and none shows them to be alike either. Averaged over all pairs the
# difference has an error of {q}`tasks.lead_error.sst2` points, of which {q}`tasks.lead_error_limit.sst2` would remain
# with no end of seeds: here it is the {q}`tasks.items.sst2` items that limit it. That average is what [the
# claims](claims.ipynb) are judged by.
# {says}`tasks.clear.sst2 == 0 and tasks.least_alike.sst2 > 0.05`
# {says}`tasks.lead_error_limit.sst2 > 0.71 * tasks.lead_error.sst2`
#
# ## Where the plateau begins
#
# The smallest size within a point of its family's best, and how often each size is that one when seeds and items are
# drawn anew:

# %% tags=["hide-input"]
charts.table(ladder.plateau_table(task.cells))

# %% [markdown]
# No size is the first in most of the draws. The curve is so flat that where its plateau begins cannot be read off
# these runs; what can be said is how little is at stake on these items.
# {says}`tasks.plateau_surest.sst2 < 50`
#
# ## The best cell, without the optimism of its choice
#
# The paper's $U(B) = \max_{P(k) \le B} A(k)$ takes the best cell under a budget by the accuracy that it then reports,
# which favours a family with more cells. CP has {q}`tasks.sizes.sst2.cp` here and LoRA {q}`tasks.sizes.sst2.lora`: the
# best CP has {q}`tasks.best.sst2.cp` %, and {q}`tasks.best_held_out.sst2.cp` % where half of the seeds and items
# choose and the others judge; the best LoRA {q}`tasks.best.sst2.lora` and {q}`tasks.best_held_out.sst2.lora` %.
#
# ## Dev and eval
#
# A run's accuracy on dev is {q}`tasks.dev_over_eval.sst2` points above that on eval, on average. A part of it is that
# dev chose the step; and its {q}`tasks.dev_items.sst2` items come from the training split. Between runs with an
# adapter the two correlate at {q}`tasks.correlation.sst2`: which run is a little better than another, dev can hardly
# say.
# {says}`tasks.dev_over_eval.sst2 > 0 and abs(tasks.correlation.sst2) < 0.3`

# %% tags=["hide-input"]
charts.choice_chart(task.runs)

# %% [markdown]
# ## How they got there
#
# {q}`tasks.steps.sst2` steps go through {q}`tasks.cap.sst2` examples {q}`tasks.epochs.sst2` times. Of
# {q}`tasks.adapted.sst2` runs with an adapter, {q}`tasks.early.sst2` were best on dev at the first of
# {q}`tasks.looks.sst2` evaluations, and {q}`tasks.late.sst2` at the last: most of the training changes nothing that
# dev sees.
# {says}`tasks.late.sst2 < tasks.early.sst2`

# %% tags=["hide-input"]
charts.curve_chart(task.evaluations)

# %% [markdown]
# ## Which items change
#
# Two runs of one cell differ in nothing but their seeds, and still do not agree on all items. Beside that, here is how
# far runs of two cells agree, and how many items all runs of the one get wrong and all of the other right (*gained*)
# or the other way round (*lost*).
# {says}`tasks.most_alike_seeds.sst2 < 100`

# %% tags=["hide-input"]
charts.table(ladder.change_table(task.cells))

# %% [markdown]
# From CP's smallest budget to its largest these are gained, by their row of the validation split, counted from zero:
# {q}`tasks.changed.sst2.gained`; and these lost: {q}`tasks.changed.sst2.lost`.
#
# Next: [RTE](rte.ipynb).
