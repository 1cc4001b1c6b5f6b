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
# # At the paper's size, SST-2 asks for hardly any adapter
#
# **What does a parameter budget buy on a model of the paper's size?**
#
# On SST-2, little: CP and LoRA of equal size differ by {q}`size.gap` points, and the best adapter is
# {q}`size.over_head` points above the {term}`head` alone.
# {says}`abs(size.gap) < 0.5 and size.gap.low < 0 < size.gap.high and 0 < size.over_head < 2`
#
# {q}`size.gap|n` seeds, {q}`size.items` items; the difference's {q}`size.gap|level` interval is
# {q}`size.gap|interval|signed`.

# %% tags=["hide-input"]
import cpadapt
from companion import PROJECT, ladder, size
from cpadapt.analysis import charts

charts.enable()
runs = cpadapt.read_records(PROJECT / "results" / "size-paper")
charts.frontier_chart(runs[runs["task"] == "sst2"], budget_slider=True)

# %% [markdown]
# The model is Qwen2.5-Coder-1.5B-Instruct, dequantized from four to six bits: a decoder of OPT-1.3B's size, but not of
# its kind. The design is the paper's, at its rates, with the frozen weights in bfloat16. RTE and BoolQ are
# **not measured** yet. {says}`size.tasks == 1`
#
# ## CP against LoRA at equal size

# %% tags=["hide-input"]
charts.table(ladder.difference_table(size.on_sst2()))

# %% [markdown]
# *Holm* is the p value corrected for the number of pairs. *Alike* is the p value of a difference of a point or more.
# What this says of the paper's claim on SST-2 is judged when all three tasks are measured, as
# [the plan](../book/plan.md) has it.
#
# ## What the model knew before
#
# Asked in its own words, before any training, a model has these accuracies on up to {q}`size.asked_most` items a task;
# beside them is the trained head alone, where it is measured. An instruct model may have seen these public sets. All
# adapters then start from the same knowledge.

# %% tags=["hide-input"]
charts.table(size.knowledge_table())

# %% [markdown]
# ## Which rates the next studies take
#
# One setting a family and size, the best on {term}`dev` over six tasks and three {term}`draws <data seed>`: mean dev
# accuracy in percent, by the rate in multiples of the paper's. A dash is a setting that was not tried.

# %% tags=["hide-input"]
charts.table(size.setting_table())

# %% [markdown]
# ## How sure?
#
# Three seeds on one draw of a thousand examples tell only large differences. More seeds would help little: the error
# of {q}`size.gap_error` points would still be {q}`size.gap_error_limit` with no end of them, because the items
# are few. A setting is chosen by dev alone, and the next studies judge it on other draws and other items.
# {says}`size.gap.n == 3 and size.gap_error_limit > 0.8 * size.gap_error`
#
# **For you**: on a task that the model nearly knows, try the head alone first.
#
# Next: [the claims, one by one](claims.ipynb).
