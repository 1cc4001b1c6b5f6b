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
# # BoolQ: learned a little from a thousand examples
#
# **Do more components pay on BoolQ, and does LoRA stay ahead?**
#
# On SmolLM2-135M-Instruct, whose weights are dequantized from four bits, under the paper's protocol and on one draw of
# the examples (the worst of {q}`noise.draws_known` on SST-2), adapters learn a little and at a threshold that hides
# it. Their accuracy, {q}`tasks.adapters.boolq.least` to {q}`tasks.adapters.boolq.most` % over {q}`tasks.seeds.boolq`
# {term}`seeds <seed>`, is about that of the {term}`readout` alone, {q}`tasks.readout.boolq` %, and of always giving
# the commoner answer, {q}`tasks.majority.boolq` %; their {term}`balanced accuracy`, which counts both classes the
# same, is {q}`tasks.balanced.boolq.least` to {q}`tasks.balanced.boolq.most` %, where the readout has
# {q}`tasks.balanced.boolq.readout` and one answer for all has 50 %, on the average over matched budgets
# {q}`tasks.gain.boolq|signed` points above the readout (90 %, {q}`tasks.gain.boolq|interval|signed`). LoRA's cells lie
# above CP's by {q}`tasks.lead.boolq` points on the average (95 %, {q}`tasks.lead.boolq|interval`), at rates at which
# CP is behind in training, too.
# {says}`tasks.adapters.boolq.least < tasks.readout.boolq < tasks.majority.boolq < tasks.adapters.boolq.most`
# {says}`50 < tasks.balanced.boolq.readout < tasks.balanced.boolq.least < tasks.balanced.boolq.most < 60`
# {says}`tasks.gain.boolq.low > 0 and tasks.lead.boolq.low > 0 and tasks.least_loss_behind.boolq > 0`

# %% tags=["hide-input"]
from IPython.display import display

from companion import ladder
from companion.published import read_published
from cpadapt.analysis import charts

charts.enable()
task = ladder.measured("smollm2", "boolq")

# %% [markdown]
# ## The frontier
#
# {q}`tasks.runs.boolq` runs in one {term}`bank`, set up as those of [SST-2](sst2.ipynb): {q}`tasks.steps.boolq` steps
# at the paper's rates, at most {q}`tasks.cap.boolq` training examples. A run is judged at the step that {term}`dev`
# chose, of {q}`tasks.looks.boolq`. Move the budget to see what is best at or under it.

# %% tags=["hide-input"]
display(charts.frontier_chart(task.runs, budget_slider=True))
charts.table(ladder.accuracy_table(task.cells, task.evaluations))

# %% [markdown]
# All of CP's cells lie within {q}`tasks.cp_range.boolq` points, and below the {q}`tasks.majority.boolq` % of always
# giving the commoner answer. The adapters learn by heart: the loss on the training examples over the last
# {q}`tasks.eval_every.boolq` steps falls from {q}`tasks.loss.boolq.readout` for the head alone to
# {q}`tasks.loss.boolq.one` with one component and {q}`tasks.loss.boolq.most` with the most of them, with every size a
# little further, and little of it arrives on eval: {q}`tasks.taught.boolq` of the {q}`tasks.compared.boolq` cells at
# matched budgets, each for itself, are shown to be above the readout in balanced accuracy, and
# {q}`tasks.untaught.boolq` are not. At the budget of LoRA's first rank CP is left with {q}`tasks.loss.boolq.matched`
# where LoRA has {q}`tasks.loss.boolq.rank`.
# {says}`tasks.best.boolq.cp < tasks.majority.boolq`
# {says}`min(tasks.least_fall_of_loss.boolq) > 0 and tasks.loss.boolq.most < 0.01`
# {says}`tasks.loss.boolq.rank < tasks.loss.boolq.matched and tasks.least_loss_behind.boolq > 0`
#
# The paper reports on OPT-1.3B {cite:p}`wang2026finer` that BoolQ gains from more components and then stays slightly
# below LoRA. Its values are hollow here, and in part second-hand:

# %% tags=["hide-input"]
charts.frontier_chart(task.runs, published=read_published().query("task == 'boolq'"))

# %% [markdown]
# ## CP against LoRA at matched budgets
#
# Differences are taken seed by seed and item by item. *Holm* is the p value corrected for the number of pairs. *Alike*
# is the p value of a difference of a point or more.

# %% tags=["hide-input"]
charts.table(ladder.difference_table(task.cells))

# %% [markdown]
# CP is behind at every one, and none of the {q}`tasks.pairs.boolq` is clear of its error after Holm's correction.
# Averaged over all, it is: {q}`tasks.lead.boolq|negated|signed` points, with an error of {q}`tasks.lead_error.boolq`,
# of which {q}`tasks.lead_error_limit.boolq` would remain with no end of seeds. [The claims](claims.ipynb) say of it
# *{q}`tasks.lead_verdict.boolq`*: a cell that is not shown to learn decides nothing.
# {says}`tasks.least_lead.boolq > 0 and tasks.clear.boolq == 0 and tasks.lead.boolq.low > 0`
#
# ## Where the plateau begins
#
# The smallest size within a point of its family's best, and how often each size is that one when seeds and items are
# drawn anew:

# %% tags=["hide-input"]
charts.table(ladder.plateau_table(task.cells))

# %% [markdown]
# ## The best cell, without the optimism of its choice
#
# The best of CP's {q}`tasks.sizes.boolq.cp` cells has {q}`tasks.best.boolq.cp` %, and
# {q}`tasks.best_held_out.boolq.cp` % where half of the seeds and items choose and the others judge; the best of LoRA's
# {q}`tasks.sizes.boolq.lora` has {q}`tasks.best.boolq.lora` and {q}`tasks.best_held_out.boolq.lora` %.
#
# ## Dev and eval
#
# A run's accuracy on dev is {q}`tasks.dev_over_eval.boolq` points above that on eval, on average: dev chose the step,
# and the commoner answer is {q}`tasks.dev_majority.boolq` % of dev and {q}`tasks.majority.boolq` % of eval. Between
# runs with an adapter the two correlate at {q}`tasks.correlation.boolq`.
# {says}`tasks.dev_majority.boolq > tasks.majority.boolq`

# %% tags=["hide-input"]
charts.choice_chart(task.runs)

# %% [markdown]
# ## How they got there
#
# Of {q}`tasks.adapted.boolq` runs with an adapter, {q}`tasks.early.boolq` were best on dev at the first of
# {q}`tasks.looks.boolq` evaluations, and {q}`tasks.late.boolq` at the last, {q}`tasks.epochs.boolq` times through the
# training examples. So more steps alone are unlikely to help. At [higher rates](rates.ipynb) accuracy is higher. With
# all of BoolQ's examples [much is learned, and components pay](readout.ipynb).
# {says}`tasks.late.boolq < tasks.early.boolq`

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
# {q}`tasks.changed.boolq.gained`; and these lost: {q}`tasks.changed.boolq.lost`.
#
# Next: [seeds and items](noise.ipynb).
