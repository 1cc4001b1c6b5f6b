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
# # An encoder: what there is below one rank
#
# **Do components pay on an encoder whose examples are not capped?**
#
# On MiniLM-L6 they do, below LoRA's first rank and on some tasks beyond it: on {q}`encoder.taught`, in turn, CP gains
# {q}`encoder.step.cp9_cp1.sst2|signed`, {q}`encoder.step.cp9_cp1.sick|signed`, {q}`encoder.step.cp9_cp1.mrpc|signed`,
# {q}`encoder.step.cp9_cp1.boolq|signed` points from {q}`encoder.components.fewest` to {q}`encoder.components.nearly`
# {term}`components <component>`, which have {q}`encoder.share.fewest` and {q}`encoder.share.nearly` % of that rank's
# {term}`budget` ({term}`clear` after correction on {q}`encoder.clear.cp9_cp1`), and
# {q}`encoder.step.cp76_cp9.sst2|signed`, {q}`encoder.step.cp76_cp9.sick|signed`,
# {q}`encoder.step.cp76_cp9.mrpc|signed`, {q}`encoder.step.cp76_cp9.boolq|signed` from there to
# {q}`encoder.components.most` (clear on {q}`encoder.clear.cp76_cp9`). But the rank itself is nowhere shown to be
# passed by that CP just under its budget, and its mean is ahead by {q}`encoder.step.lora1_cp9.sst2|signed`,
# {q}`encoder.step.lora1_cp9.sick|signed`, {q}`encoder.step.lora1_cp9.mrpc|signed`,
# {q}`encoder.step.lora1_cp9.boolq|signed` points (clear on {q}`encoder.clear.lora1_cp9`), and of {q}`encoder.pairs`
# differences at {q}`encoder.matched` matched budgets above it {q}`encoder.clear_pairs` are clear, on
# {q}`encoder.clear_pairs_on` alone, where LoRA's larger ranks fall towards the commonest answer at a rate that was
# chosen on SST-2, and nothing is [judged](claims.ipynb).
# {says}`encoder.taught == 'SST-2, SICK, MRPC and BoolQ' and encoder.components.fewest == 1`
# {says}`all(encoder.step.cp9_cp1 > 0) and all(encoder.step.cp76_cp9 > 0) and encoder.share.nearly < 100`
# {says}`encoder.clear.cp76_cp1 == encoder.taught`
# {says}`all(encoder.step.lora1_cp9.high > 0) and all(encoder.step.lora1_cp9 > 0)`
# {says}`encoder.clear_pairs_on == 'BoolQ' and encoder.lead_verdict.boolq == 'not judged'`
# {says}`abs(encoder.last_rank.boolq - encoder.majority.boolq) < 1`

# %% tags=["hide-input"]
from IPython.display import display

from companion import contrasts, encoder
from companion.claims import MARGIN
from companion.records import records
from cpadapt import tabulate
from cpadapt.analysis import charts

charts.enable()
runs, _ = tabulate(records("minilm"))

# %% [markdown]
# ## The frontiers
#
# {q}`encoder.runs` runs with {q}`encoder.seeds` {term}`seeds <seed>` a cell and {q}`encoder.steps` steps, with no cap
# on the training examples or the evaluation items. The steps are {q}`encoder.passes.sst2`, {q}`encoder.passes.sick`,
# {q}`encoder.passes.mrpc`, {q}`encoder.passes.boolq` and {q}`encoder.passes.rte` passes over the examples
# ({q}`encoder.tasks`, in turn), so that on SST-2 a run sees a part of them. Each {term}`family` has one rate, the
# better on {term}`dev` of two that an earlier ladder tried, on a thousand examples of SST-2. Faint points are seeds,
# and the dashed line is the {term}`head` alone.
# {says}`encoder.capped == 0 and encoder.passes.sst2 < 1`
# {says}`encoder.rate.lora == encoder.better_rate.lora and encoder.rate.cp == encoder.better_rate.cp`

# %% tags=["hide-input"]
for task in encoder.cells():
    display(charts.frontier_chart(runs[runs["task"] == task]).properties(title=charts.task_name(task)))

# %% [markdown]
# On {q}`encoder.untaught` there is nothing to compare. The adapters at matched budgets minus the head are
# {q}`encoder.over_head.rte|signed` points of {term}`balanced accuracy` on the average (90 %,
# {q}`encoder.over_head.rte|interval|signed`), and of none of these cells it is shown that it is above the head: that
# this encoder learns from {q}`encoder.examples.rte` examples whether one sentence follows from another is not shown.
# On the other tasks every cell is shown to have learned, but for {q}`encoder.unfit`. In balanced accuracy, which
# counts each class the same, the head, CP's smallest and the best cell have
# {says}`encoder.untaught == 'RTE' and encoder.fit.rte == 0`
# {says}`encoder.over_head.rte.low < 0 < encoder.over_head.rte.high`

# %% tags=["hide-input"]
charts.table(encoder.balanced_table())

# %% [markdown]
# percent. The charts and tables below have the task all the same; the sentences and their counts are of the others.
#
# ## From nothing to one rank
#
# A rank costs {q}`encoder.rank` scalars and a component {q}`encoder.component`, so {q}`encoder.below` of CP's sizes
# cost less than the smallest LoRA of these modules. Differences in points, item by item and seed by seed; *Holm* is
# the p value of no difference, corrected over a task's, and *alike* that of a difference of a point or more,
# uncorrected. Dashed is a point on either side of none.

# %% tags=["hide-input"]
charts.interval_chart(encoder.steps(), "difference, points", MARGIN)

# %% tags=["hide-input"]
charts.table(contrasts.contrast_table(encoder.steps(), "task", "difference"))

# %% [markdown]
# By the means, one component takes {q}`encoder.way.sst2`, {q}`encoder.way.sick`, {q}`encoder.way.mrpc`,
# {q}`encoder.way.boolq` % of the way from the floor, which is the head alone or always giving the commonest answer, to
# the best adapter ({q}`encoder.taught`, in turn). More of them take a part of the rest, at budgets below the smallest
# LoRA of these modules.
# {says}`encoder.clear.cp1_head == encoder.taught and all(encoder.step.cp9_cp1 > 0)`
#
# That LoRA's largest rank buys anything over its first is nowhere shown. On BoolQ it loses
# {q}`encoder.step.lora8_lora1.boolq|negated` points, clear after correction: it has {q}`encoder.last_rank.boolq` %,
# where always giving the commonest answer has {q}`encoder.majority.boolq`, and as far as the records show
# {q}`encoder.collapsed.boolq` of its {q}`encoder.seeds` runs give that answer to every item. The rate may be why; no
# lower one was tried.
# {says}`encoder.clear.lora8_lora1 == 'BoolQ' and encoder.step.lora8_lora1.boolq.high < 0`
#
# The next table has the smallest size of each family within a point of its best, and how often it is that one when
# seeds and items are drawn anew:

# %% tags=["hide-input"]
charts.table(encoder.plateau_table())

# %% [markdown]
# ## At one rank and above
#
# LoRA minus CP at each budget that both can have:

# %% tags=["hide-input"]
charts.interval_chart(encoder.matched(), "LoRA − CP, points", MARGIN)

# %% tags=["hide-input"]
charts.table(contrasts.contrast_table(encoder.matched(), "task", "pair"))

# %% [markdown]
# {q}`encoder.alike_pairs` of the {q}`encoder.pairs` differences on tasks that are learned are shown to be within a
# point, before correction. The {q}`encoder.clear_pairs` that are clear are those of LoRA's larger ranks on BoolQ. On
# MRPC too LoRA's largest rank falls behind its first, by {q}`encoder.step.lora8_lora1.mrpc|negated` points, which is
# not clear after correction.
# {says}`encoder.clear_pairs_are == 'BoolQ: LoRA 4 − CP 38; BoolQ: LoRA 8 − CP 76'`
# {says}`encoder.step.lora8_lora1.mrpc < 0`
#
# That is another answer than [SST-2 on SmolLM2](sst2.ipynb) gives, and backbone, pooling, number of examples and rate
# all differ between the two: which of them makes components pay cannot be said from these runs. [The
# claims](claims.ipynb) are judged by them too, in a column of their own, though they are the paper's, of a decoder.
#
# Next: [the main study](main_study.ipynb).
