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
# # Below one rank there is something to gain
#
# **What can an adapter smaller than one LoRA rank do?**
#
# One CP {term}`component`, a tenth of a rank's size, takes {q}`encoder.way.boolq` to {q}`encoder.way.sick` % of the
# way from no adapter to the best one on the test items.
# {says}`encoder.components.fewest == 1 and 10 < encoder.share.fewest < 11`
# {says}`min(encoder.way) == encoder.way.boolq and max(encoder.way) == encoder.way.sick`
#
# {q}`encoder.taught` on MiniLM, with all examples and test items, and {q}`encoder.seeds|unit` for each adapter.
# {says}`encoder.taught == 'SST-2, SICK, MRPC and BoolQ' and encoder.capped == 0`

# %% mystnb={"figure": {"caption": "CP gains far below one rank; bars are 95 % intervals."}} tags=["remove-input"]
from companion import contrasts, encoder
from companion.claims import MARGIN
from cpadapt.analysis import charts

charts.enable()
encoder.gain_charts()

# %% [markdown]
# A LoRA rank costs {q}`encoder.rank` scalars on this model, and a component {q}`encoder.component`. So
# {q}`encoder.below` of CP's sizes are smaller than the smallest LoRA. The largest of these, with
# {q}`encoder.components.nearly` components, beats a single component by {q}`encoder.step.cp9_cp1.sick` to
# {q}`encoder.step.cp9_cp1.mrpc` points on {q}`encoder.clear.cp9_cp1`. On BoolQ the gain isn't clear.
# {says}`encoder.clear.cp9_cp1 == 'SST-2, SICK and MRPC'`
# {says}`encoder.step.cp9_cp1.sick < encoder.step.cp9_cp1.sst2 < encoder.step.cp9_cp1.mrpc`
#
# ## How far one component gets

# %% mystnb={"figure": {"caption": "One component's share of the best gain; 95 % intervals."}} tags=["remove-input"]
encoder.way_chart()

# %% [markdown]
# The way begins at the {term}`head` alone, or at always giving the {term}`commonest answer <majority rate>` where that
# is better. It ends at the best adapter of the figure above: best on the test items, while [the main
# study](main_study.ipynb) picks its best adapter on {term}`dev`. On that study's decoder one component takes
# {q}`planned.share|unit` of the way over {q}`main_study.tasks|unit` ({q}`planned.share|level` interval
# {q}`planned.share|interval`).
# {says}`planned.share.low > 50`
#
# ## At one rank, LoRA is level or ahead

# %% mystnb={"figure": {"caption": "Steps around one rank; 95 % intervals, dashed a point."}} tags=["remove-input"]
charts.interval_chart(encoder.charted_steps(), "difference, points", MARGIN)

# %% [markdown]
# Dashed is the point below which a difference on one task counts as none ([why](protocol.ipynb)). One rank beats the
# CP just below it by {q}`encoder.step.lora1_cp9.sst2` points on SST-2. On the other tasks the difference isn't clear.
# {says}`encoder.clear.lora1_cp9 == 'SST-2' and encoder.step.lora1_cp9.sst2.low > 0`
#
# No task shows that more than one rank helps LoRA. On BoolQ the largest is {q}`encoder.step.lora8_lora1.boolq|negated`
# points worse than the first: {q}`encoder.collapsed.boolq` of its {q}`encoder.seeds|unit` give one answer to every
# item. The rate was chosen on SST-2, and may be too high there.
# {says}`encoder.clear.lora8_lora1 == 'BoolQ' and encoder.step.lora8_lora1.boolq.high < 0`
# {says}`encoder.rate.lora == encoder.better_rate.lora and encoder.rate.cp == encoder.better_rate.cp`

# %% mystnb={"code_prompt_show": "All steps", "code_prompt_hide": "All steps"} tags=["remove-input", "hide-output"]
charts.table(contrasts.contrast_table(encoder.steps(), "task", "difference"))

# %% mystnb={"code_prompt_show": "Equal sizes", "code_prompt_hide": "Equal sizes"} tags=["remove-input", "hide-output"]
charts.table(contrasts.contrast_table(encoder.matched(), "task", "pair"))

# %% mystnb={"code_prompt_show": "Balanced", "code_prompt_hide": "Balanced"} tags=["remove-input", "hide-output"]
charts.table(encoder.balanced_table())

# %% [markdown]
# ## How sure?
#
# Each family has one learning rate, the better of two that we tried on SST-2, so other rates could move every curve.
# The best adapter is picked on the same test items, which makes one component's share a little too low. On
# {q}`encoder.untaught` no adapter is shown to beat the head, so that task says nothing.
# {says}`encoder.untaught == 'RTE' and encoder.fit.rte == 0`
#
# Clear means: after Holm's correction over a task's differences. MiniLM is an encoder; [the main
# study](main_study.ipynb) has a decoder of the paper's size.
#
# **For you**: if one rank is too large for your budget, take as many components as fit.
#
# Next: [the main study](main_study.ipynb).
