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
# # On BoolQ, size pays with many examples
#
# **When does size pay?**
#
# With many examples, in the one case tried: on SmolLM2-135M and all of BoolQ's, CP gains {q}`readout.first_gain|unit`
# between one {term}`component` and LoRA's first rank's size. With 1000 examples a task, on a larger model, one
# component already has {q}`planned.share|unit` of the best adapter's gain.
# {says}`readout.first_gain.low > 0 and planned.share.low > 70`
#
# BoolQ: {q}`readout.first_gain|n` seeds, {q}`readout.first_gain|level` interval {q}`readout.first_gain|interval`
# points. Tasks: {q}`main_study.tasks`, with {q}`main_study.draws|unit` each.

# %% mystnb={"figure": {"caption": "CP's gain over the head alone, with 95 % intervals."}} tags=["remove-input"]
from companion import readout, when_size_pays
from cpadapt.analysis import charts

charts.enable()
when_size_pays.chart()

# %% [markdown]
# The two lines of BoolQ differ in the number of examples alone: {q}`readout.more_gain|n` seeds, items, rates and steps
# are the same. With all {q}`readout.train|unit`, going from one component to the largest CP is worth
# {q}`readout.more_gain` points more than with 1000 examples ({q}`readout.more_gain|interval`). The model is
# SmolLM2-135M-Instruct, dequantized from four bits. The line over tasks is [the main study's](main_study.ipynb), on a
# model of the paper's size: it shows no effect of the examples, since the model differs too.
# {says}`readout.more_gain.low > 0`
#
# There CP of LoRA's first rank's size is equivalent to the largest, by [the plan's tests](planned.ipynb): the plateau
# begins at that size. {says}`planned.plateau == '17' and planned.verdict.test5 == 'equivalent'`
#
# ## With all examples CP keeps gaining, and stays below LoRA
#
# Going on from LoRA's first rank's size to four times that adds {q}`readout.second_gain` points
# ({q}`readout.second_gain|interval`). LoRA leads by {q}`readout.lead.head` points at equal size
# ({q}`readout.lead.head|interval`), and more examples don't clearly change its lead.
# {says}`readout.second_gain.low > 0 and readout.lead.head.low > 0`
# {says}`readout.more_lead.low < 0 < readout.more_lead.high`
#
# That is the paper's account of BoolQ {cite:p}`wang2026finer`: it gains from more components, slightly below LoRA.
# Whether it also *saturates*, as the paper says, we can't tell.
# {says}`readout.second_gain_judged.low < 1 < readout.second_gain_judged.high`

# %% mystnb={"code_prompt_show": "By adapter", "code_prompt_hide": "By adapter"} tags=["remove-input", "hide-output"]
charts.table(readout.more_table())

# %% [markdown]
# ## How sure?
#
# Many examples are measured on one task and one small model, at a rate that suits 1000 examples and in
# {q}`readout.all_steps` steps. {q}`readout.adapted_runs.late|unit` of {q}`readout.adapted_runs.all` were still at
# their best at the last look, so small adapters may catch up. Of {q}`readout.items` items, {q}`readout.sharing` have a
# passage that is also in train or dev; what part of the gain that is, we haven't tested.
#
# **For you**: with many more than 1000 examples of a hard task, try a larger size on dev; otherwise start small.
#
# Next: [model size](model_size.ipynb).
