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
# That cannot be told from its {glue:text}`items` items. On SmolLM2-135M-Instruct, whose weights are dequantized from
# four bits, under the paper's protocol and on one draw of the examples (the worst of 31 on SST-2), LoRA's mean is
# above CP's at every matched budget, by {glue:text}`behind` points on the average over {glue:text}`seeds`
# {term}`seeds <seed>` (ninety-five-percent interval {glue:text}`behind_low` to {glue:text}`behind_high`), and
# {glue:text}`clear` of the {glue:text}`pairs` single differences is {term}`clear` of its own. A hundred seeds of the
# first budget, at ten times the rates, have {q}`noise.over_seeds.rte.lora1_cp11` points
# ({q}`noise.over_seeds.rte.lora1_cp11|interval`).
# {says}`noise.over_seeds.rte.lora1_cp11.low < 0 < noise.over_seeds.rte.lora1_cp11.high`

# %%
from myst_nb import glue

from companion import ladder
from companion.published import read_published
from cpadapt.analysis import charts

charts.enable()

# %%
TASK = "rte"
task = ladder.measured("smollm2", TASK)
published = read_published()

# %% [markdown]
# ## The frontier
#
# {glue:text}`runs` runs in one {term}`bank`, set up as those of [SST-2](sst2.ipynb): {glue:text}`steps` steps at the
# paper's rates, at most {glue:text}`cap` training examples. A run is judged at the step that {term}`dev` chose, of
# {glue:text}`looks`. Move the budget to see what is best at or under it.

# %% tags=["hide-input"]
charts.frontier_chart(task.runs, budget_slider=True)

# %% tags=["hide-input"]
charts.table(ladder.accuracy_table(task.cells, task.evaluations))

# %% [markdown]
# The {term}`readout` alone has {glue:text}`floor` %, hardly more than the {glue:text}`majority` % of always giving the
# commoner answer. In {term}`balanced accuracy`, which counts both classes the same, adapters at matched budgets are on
# the average {glue:text}`learned` points above it (ninety-percent interval {glue:text}`learned_low` to
# {glue:text}`learned_high`), and {glue:text}`taught` of these {glue:text}`compared` cells, each for itself, are shown
# to be; {glue:text}`unfit` are not. The training examples they learn by heart. Over the last {glue:text}`eval_every`
# steps the loss on these is {glue:text}`floor_loss` for the head alone, {glue:text}`one_loss` with one component and
# {glue:text}`most_loss` with the most of them, and it falls with every size. At the budget of LoRA's first rank CP is
# left with {glue:text}`matched_loss` where LoRA has {glue:text}`rank_loss`, and their rates, CP's twice LoRA's, do not
# compare.
#
# The paper reports on OPT-1.3B {cite:p}`wang2026finer` that RTE stays LoRA's. Its values are hollow here, and in part
# second-hand:

# %% tags=["hide-input"]
charts.frontier_chart(task.runs, published=published[published["task"] == TASK])

# %% [markdown]
# ## CP against LoRA at matched budgets
#
# Differences are taken seed by seed and item by item. *Holm* is the p value corrected for the number of pairs. *Alike*
# is the p value of a difference of a point or more.

# %% tags=["hide-input"]
charts.table(ladder.difference_table(task.cells))

# %% [markdown]
# CP is behind at every one. Averaged over all, LoRA is ahead by {glue:text}`behind` points with an error of
# {glue:text}`gap_error`, of which {glue:text}`gap_items_error` would remain with no end of seeds. The
# ninety-five-percent interval holds zero, and the ninety-percent one, by which [the claims](claims.ipynb) are judged,
# begins at {glue:text}`told_low` and ends at {glue:text}`told_high`: without one of the budgets, or by one answer, it
# would hold zero as well. There "LoRA is ahead" is *{glue:text}`told`*.
#
# ## Where the plateau begins
#
# The smallest size within a point of its family's best, and how often each size is that one when seeds and items are
# drawn anew:

# %% tags=["hide-input"]
charts.table(ladder.plateau_table(task.cells))

# %% [markdown]
# No size is it in half of the draws: where a plateau begins is not something that {glue:text}`items` items and
# {glue:text}`seeds` seeds can tell.
#
# ## The best cell, without the optimism of its choice
#
# The best of CP's {glue:text}`cp_cells` cells has {glue:text}`cp_chosen` %, and {glue:text}`cp_held_out` % where half
# of the seeds and items choose and the others judge; the best of LoRA's {glue:text}`lora_cells` has
# {glue:text}`lora_chosen` and {glue:text}`lora_held_out` %. LoRA's second figure is below even the mean of its cells.
# Where cells are as alike as these, the one that is lucky on one half of few items has the less luck left on the
# other, so it errs low; what the first adds by its choice lies between none and the difference of the two.
#
# ## Dev and eval
#
# A run's accuracy on dev is {glue:text}`dev_over_eval` points above that on eval, on average. Between runs with an
# adapter the two correlate at {glue:text}`correlation`. That is chiefly CP's, whose cells differ more: among CP's runs
# it is {glue:text}`cp_correlation`, among LoRA's {glue:text}`lora_correlation`.

# %% tags=["hide-input"]
charts.choice_chart(task.runs)

# %% [markdown]
# ## How they got there
#
# Of {glue:text}`adapted` runs with an adapter, {glue:text}`early` were best on dev at the first of
# {glue:text}`looks` evaluations, and {glue:text}`late` at the last, {glue:text}`epochs` times through the training
# examples. At other rates it is [another picture](rates.ipynb).

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
# {glue:text}`gained`; and these lost: {glue:text}`lost`. Nearly as many go as come.
#
# Next: [BoolQ](boolq.ipynb).

# %% tags=["remove-cell"]
found = ladder.figures(task)
for name in (
    "behind", "seeds", "behind_low", "behind_high", "cp_cells", "lora_cells", "items", "gap_items_error", "clear",
    "pairs", "compared", "taught", "unfit", "runs", "steps", "cap", "looks", "floor", "majority", "learned",
    "learned_low", "learned_high", "eval_every", "floor_loss", "one_loss", "most_loss", "matched_loss", "rank_loss",
    "gap_error", "told_low", "told_high", "told", "cp_chosen", "cp_held_out", "lora_chosen", "lora_held_out",
    "dev_over_eval", "correlation", "cp_correlation", "lora_correlation", "adapted", "early", "late", "epochs",
    "gained", "lost",
):  # fmt: skip
    glue(name, found[name], display=False)
