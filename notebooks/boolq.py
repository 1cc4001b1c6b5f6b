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
# the examples (the worst of 31 on SST-2), adapters learn a little and at a threshold that hides it. Their accuracy,
# {glue:text}`lowest` to {glue:text}`highest` % over {glue:text}`seeds` {term}`seeds <seed>`, is about that of the
# {term}`readout` alone, {glue:text}`floor` %, and of always giving the commoner answer, {glue:text}`majority` %; their
# {term}`balanced accuracy`, which counts both classes the same, is {glue:text}`balanced_lowest` to
# {glue:text}`balanced_highest` %, where the readout has {glue:text}`balanced_floor` and one answer for all has 50, on
# the average over matched budgets {glue:text}`learned` points above the readout (ninety percent,
# {glue:text}`learned_low` to {glue:text}`learned_high`). LoRA's cells lie above CP's by {glue:text}`behind` points on
# the average (ninety-five percent, {glue:text}`behind_low` to {glue:text}`behind_high`), at rates at which CP is
# behind in training, too.

# %%
from myst_nb import glue

from companion import ladder
from companion.published import read_published
from cpadapt.analysis import charts

charts.enable()

# %%
TASK = "boolq"
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
# All of CP's cells lie within {glue:text}`cp_range` points, and below the {glue:text}`majority` % of always giving the
# commoner answer. The adapters learn by heart: the loss on the training examples over the last {glue:text}`eval_every`
# steps falls from {glue:text}`floor_loss` for the head alone to {glue:text}`one_loss` with one component and
# {glue:text}`most_loss` with the most of them, with every size a little further, and little of it arrives on eval:
# {glue:text}`taught` of the {glue:text}`compared` cells at matched budgets, each for itself, are shown to be above the
# readout in balanced accuracy, and {glue:text}`unfit` are not. At the budget of LoRA's first rank CP is left with
# {glue:text}`matched_loss` where LoRA has {glue:text}`rank_loss`.
#
# The paper reports on OPT-1.3B {cite:p}`wang2026finer` that BoolQ gains from more components and then stays slightly
# below LoRA. Its values are hollow here, and in part second-hand:

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
# CP is behind at every one, and {glue:text}`clear` of the {glue:text}`pairs` is clear of its error after Holm's
# correction. Averaged over all, it is: {glue:text}`gap` points, with an error of {glue:text}`gap_error`, of which
# {glue:text}`gap_items_error` would remain with no end of seeds. [The claims](claims.ipynb) say of it
# *{glue:text}`told`*: a cell that is not shown to learn decides nothing.
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
# The best of CP's {glue:text}`cp_cells` cells has {glue:text}`cp_chosen` %, and {glue:text}`cp_held_out` % where half
# of the seeds and items choose and the others judge; the best of LoRA's {glue:text}`lora_cells` has
# {glue:text}`lora_chosen` and {glue:text}`lora_held_out` %.
#
# ## Dev and eval
#
# A run's accuracy on dev is {glue:text}`dev_over_eval` points above that on eval, on average: dev chose the step, and
# the commoner answer is {glue:text}`dev_majority` % of dev and {glue:text}`majority` % of eval. Between runs with an
# adapter the two correlate at {glue:text}`correlation`.

# %% tags=["hide-input"]
charts.choice_chart(task.runs)

# %% [markdown]
# ## How they got there
#
# Of {glue:text}`adapted` runs with an adapter, {glue:text}`early` were best on dev at the first of {glue:text}`looks`
# evaluations, and {glue:text}`late` at the last, {glue:text}`epochs` times through the training examples. So more
# steps alone are unlikely to help. At [higher rates](rates.ipynb) accuracy is higher. With all of BoolQ's examples
# [much is learned, and components pay](readout.ipynb).

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
# {glue:text}`gained`; and these lost: {glue:text}`lost`.
#
# Next: [seeds and items](noise.ipynb).

# %% tags=["remove-cell"]
of_cp = [100 * task.cells.outcomes["cp", size].right.mean() for size in task.cells.sizes("cp")]
found = ladder.figures(task)
found |= {"cp_range": f"{max(of_cp) - min(of_cp):.1f}"}
for name in (
    "floor", "majority", "lowest", "highest", "seeds", "balanced_floor", "balanced_lowest", "balanced_highest",
    "compared", "taught", "unfit", "told", "learned", "learned_low", "learned_high", "behind",
    "behind_low", "behind_high", "runs", "steps", "cap", "looks", "cp_range", "eval_every", "floor_loss", "one_loss",
    "most_loss", "matched_loss", "rank_loss", "clear", "pairs", "gap", "gap_error", "gap_items_error", "cp_cells",
    "cp_chosen", "cp_held_out", "lora_cells", "lora_chosen", "lora_held_out", "dev_over_eval", "dev_majority",
    "correlation", "adapted", "early", "late", "epochs", "gained", "lost",
):  # fmt: skip
    glue(name, found[name], display=False)
