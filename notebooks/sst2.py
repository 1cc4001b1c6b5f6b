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
# the examples, which is the worst of 31 here, {q}`causes.shared_below` points below the others' mean
# at [other rates](causes.ipynb), adapters of {glue:text}`least_scalars` to {glue:text}`most_scalars` scalars reach
# {glue:text}`lowest` to {glue:text}`highest` % over {glue:text}`seeds` {term}`seeds <seed>`, against
# {glue:text}`floor` % for the {term}`readout` alone, and CP with {glue:text}`plateau_size` components,
# {glue:text}`plateau_share` % of LoRA's first rank, is within a point of the best CP. CP minus LoRA at matched budgets
# is {glue:text}`gap` points on the average (ninety-five-percent interval {glue:text}`gap_low` to
# {glue:text}`gap_high`), and {glue:text}`clear` of the {glue:text}`pairs` single differences is clear of its error. On
# [dev](noise.ipynb), which is of phrases as the training examples are, many components are clearly ahead of one.

# %%
from myst_nb import glue

from companion import PROJECT, ladder
from cpadapt.analysis import charts
from cpadapt.analysis.frontier import read_published

charts.enable()

# %%
TASK = "sst2"
task = ladder.measured("smollm2", TASK)
published = read_published(PROJECT / "book" / "published.toml")

# %% [markdown]
# ## The frontier
#
# {glue:text}`runs` runs, all in one {term}`bank`: the paper's protocol as it is written, {glue:text}`steps` steps at
# the paper's rate for each {term}`family`, its cap of {glue:text}`cap` training examples, and its LoRA ranks, with CP
# sizes at their budgets, between them and below. A run is judged at the step that {term}`dev` chose, of
# {glue:text}`looks`. Faint points are seeds, and the dashed line is the {term}`head` alone. Move the budget to see
# what is best at or under it.

# %% tags=["hide-input"]
charts.frontier_chart(task.runs, budget_slider=True)

# %% tags=["hide-input"]
charts.table(ladder.accuracy_table(task.cells, task.evaluations))

# %% [markdown]
# The standard error counts seeds and evaluation items both ([`cpadapt.analysis.statistics`](../book/api.md)); the
# deviation
# over seeds is the smaller part of it. *Training loss* is the mean over the last {glue:text}`eval_every` steps. It is
# there that the budget counts: from {glue:text}`floor_loss` for the head alone it falls to {glue:text}`one_loss` with
# one component and to {glue:text}`most_loss` with the most of them, with every size a little further. The training
# examples are learned by heart, and eval hardly gains by it. At the budget of LoRA's first rank CP, at twice LoRA's
# rate, is left with {glue:text}`matched_loss` where LoRA has {glue:text}`rank_loss`: per step, it fits more slowly.
#
# Beside that the paper's values on OPT-1.3B {cite:p}`wang2026finer`, hollow and in part second-hand: compare the
# pattern, not the height.

# %% tags=["hide-input"]
charts.frontier_chart(task.runs, published=published[published["task"] == TASK])

# %% [markdown]
# ## CP against LoRA at matched budgets
#
# Differences are taken seed by seed and item by item. *Holm* is the p value corrected for the number of pairs. *Alike*
# is the p value of a difference of a point or more: where it is small, the two are equivalent within a point.

# %% tags=["hide-input"]
charts.table(ladder.difference_table(task.cells))

# %% [markdown]
# No single pair can tell the families apart, and none shows them to be alike either. Averaged over all pairs the
# difference has an error of {glue:text}`gap_error` points, of which {glue:text}`gap_items_error` would remain with no
# end of seeds: here it is the {glue:text}`items` items that limit it. That average is what
# [the claims](claims.ipynb) are judged by.
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
#
# ## The best cell, without the optimism of its choice
#
# The paper's $U(B) = \max_{P(k) \le B} A(k)$ takes the best cell under a budget by the accuracy that it then reports,
# which favours a family with more cells. CP has {glue:text}`cp_cells` here and LoRA {glue:text}`lora_cells`: the best
# CP has {glue:text}`cp_chosen` %, and {glue:text}`cp_held_out` % where half of the seeds and items choose and the
# others judge; the best LoRA {glue:text}`lora_chosen` and {glue:text}`lora_held_out` %.
#
# ## Dev and eval
#
# A run's accuracy on dev is {glue:text}`dev_over_eval` points above that on eval, on average. A part of it is that dev
# chose the step; and its {glue:text}`dev_items` items come from the training split. Between runs with an adapter the
# two correlate at {glue:text}`correlation`: which run is a little better than another, dev can hardly say.

# %% tags=["hide-input"]
charts.choice_chart(task.runs)

# %% [markdown]
# ## How they got there
#
# {glue:text}`steps` steps go through {glue:text}`cap` examples {glue:text}`epochs` times. Of {glue:text}`adapted` runs
# with an adapter, {glue:text}`early` were best on dev at the first of {glue:text}`looks` evaluations, and
# {glue:text}`late` at the last: most of the training changes nothing that dev sees.

# %% tags=["hide-input"]
charts.curve_chart(task.evaluations)

# %% [markdown]
# ## Which items change
#
# Two runs of one cell differ in nothing but their seeds, and still do not agree on all items. Beside that, here is how
# far runs of two cells agree, and how many items all runs of the one get wrong and all of the other right (*gained*)
# or the other way round (*lost*).

# %% tags=["hide-input"]
charts.table(ladder.change_table(task.cells))

# %% [markdown]
# From CP's smallest budget to its largest these are gained, by their row of the validation split, counted from zero:
# {glue:text}`gained`; and these lost: {glue:text}`lost`.
#
# Next: [RTE](rte.ipynb).

# %% tags=["remove-cell"]
found = ladder.figures(task)
for name in (
    "least_scalars", "most_scalars", "lowest", "highest", "seeds", "floor", "plateau_size", "plateau_share", "gap",
    "gap_low", "gap_high", "clear", "pairs", "runs", "steps", "cap", "looks", "eval_every", "floor_loss", "one_loss",
    "most_loss", "matched_loss", "rank_loss", "gap_error", "gap_items_error", "items", "cp_cells", "lora_cells",
    "cp_chosen", "cp_held_out", "lora_chosen", "lora_held_out", "dev_over_eval", "dev_items", "correlation",
    "epochs", "adapted", "early", "late", "gained", "lost",
):  # fmt: skip
    glue(name, found[name], display=False)
