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

# What the pages of SST-2, RTE and BoolQ share: companion/notebooks.py puts a section where a page names it.

# %% [markdown]
# (frontier)=

# %% tags=["hide-input"]
from companion import ladder
from companion.published import read_published
from cpadapt.analysis import charts

charts.enable()
task = ladder.task_on_record("smollm2", "TASK")

# %% [markdown]
# ## The frontier
#
# Here are {q}`tasks.runs.TASK` runs, all in one {term}`bank` and under the paper's protocol as it is written:
# {q}`tasks.steps.TASK` steps at the paper's rate for each {term}`family`, and its cap of {q}`tasks.cap.TASK` training
# examples. The sizes are its LoRA ranks, with CP sizes at their budgets, between them and below. A run is judged at
# the step that {term}`dev` chose, of {q}`tasks.looks.TASK`. Faint points are seeds, and the dashed line is the
# {term}`head` alone. Move the budget to see what is best at or under it.

# %% tags=["hide-input"]
charts.frontier_chart(task.runs, budget_slider=True)

# %% tags=["hide-input"]
charts.table(ladder.accuracy_table(task.cells, task.evaluations))

# %% [markdown]
# (loss)=
# The adapters learn the training examples by heart. Over the last {q}`tasks.eval_every.TASK` steps the loss on these
# falls from {q}`tasks.loss.TASK.readout` for the head alone to {q}`tasks.loss.TASK.one` with one component and
# {q}`tasks.loss.TASK.most` with the most of them, with every size a little further. At the budget of LoRA's first rank
# CP, at twice LoRA's rate, is left with {q}`tasks.loss.TASK.matched` where LoRA has {q}`tasks.loss.TASK.rank`: per
# step, it fits more slowly.
# {says}`min(tasks.least_fall_of_loss.TASK) > 0 and tasks.loss.TASK.most < 0.01`
# {says}`tasks.loss.TASK.rank < tasks.loss.TASK.matched and tasks.least_loss_behind.TASK > 0`
# {says}`tasks.rate.cp == 2 * tasks.rate.lora`
# (paper)=
# The paper's values on OPT-1.3B {cite:p}`wang2026finer` are hollow here, and in part second-hand: compare the pattern,
# not the height.

# %% tags=["hide-input"]
charts.frontier_chart(task.runs, published=read_published().query("task == 'TASK'"))

# %% [markdown]
# ## CP against LoRA at matched budgets
#
# Differences are taken seed by seed and item by item. *Holm* is the p value corrected for the number of pairs. *Alike*
# is the p value of a difference of a point or more: where it is small, the two are equivalent within a point.

# %% tags=["hide-input"]
charts.table(ladder.difference_table(task.cells))

# %% [markdown]
# (average)=
# Averaged over all pairs the difference has an error of {q}`tasks.lead_error.TASK` points, of which
# {q}`tasks.lead_error_limit.TASK` would remain with no end of seeds.
# (plateau)=
#
# ## Where the plateau begins
#
# The smallest size within a point of its family's best, and how often each size is that one when seeds and items are
# drawn anew:

# %% tags=["hide-input"]
charts.table(ladder.plateau_table(task.cells))

# %% [markdown]
# (best)=
#
# ## The best cell, without the optimism of its choice
#
# The paper's $U(B) = \max_{P(k) \le B} A(k)$ takes the best cell under a budget by the accuracy that it then reports,
# which favours a family with more cells. The best of CP's {q}`tasks.sizes.TASK.cp` cells has
# {q}`tasks.best.TASK.cp` %, and {q}`tasks.best_held_out.TASK.cp` % where half of the seeds and items choose and the
# others judge; the best of LoRA's {q}`tasks.sizes.TASK.lora` has {q}`tasks.best.TASK.lora` and
# {q}`tasks.best_held_out.TASK.lora` %.
# (dev)=
#
# ## Dev and eval
#
# A run's accuracy on dev is {q}`tasks.dev_over_eval.TASK` points above that on eval, on average. Between runs with an
# adapter the two correlate at {q}`tasks.correlation.TASK`.
# {says}`tasks.dev_over_eval.TASK > 0`
# (training)=

# %% tags=["hide-input"]
charts.choice_chart(task.runs)

# %% [markdown]
# ## How they got there
#
# A run goes through its {q}`tasks.cap.TASK` examples {q}`tasks.epochs.TASK` times. Of {q}`tasks.adapted.TASK` runs
# with an adapter, {q}`tasks.early.TASK` were best on dev at the first of {q}`tasks.looks.TASK` evaluations, and
# {q}`tasks.late.TASK` at the last.
# (items)=

# %% tags=["hide-input"]
charts.curve_chart(task.evaluations)

# %% [markdown]
# ## Which items change
#
# Two runs of one cell differ in nothing but their seeds, and still do not agree on all items. Beside that, here is how
# far runs of two cells agree, and how many items all runs of the one get wrong and all of the other right (*gained*)
# or the other way round (*lost*).
# {says}`tasks.most_alike_seeds.TASK < 100`

# %% tags=["hide-input"]
charts.table(ladder.change_table(task.cells))

# %% [markdown]
# From CP's smallest budget to its largest these are gained, by their row of the validation split, counted from zero:
# {q}`tasks.changed.TASK.gained`; and these lost: {q}`tasks.changed.TASK.lost`.
