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
# # The plan's tests: what is shown, equivalent and open
#
# **What did the plan's secondary tests find?**
#
# One component has more than half of the best adapter's gain. CP and LoRA are equivalent at either of two sizes. CP of
# LoRA's first rank's size is equivalent to CP of four times that: there the plateau begins. The other
# {q}`planned.count.open|unit` are open.
# {says}`planned.count.open == 10 and planned.count.shown == 1 and planned.count.equivalent == 3`
# {says}`planned.verdict.test3 == 'shown'`
# {says}`planned.verdict.test1 == 'equivalent' and planned.verdict.test2 == 'equivalent' and planned.plateau == '17'`
#
# [The plan](#the-secondary-questions) named the tests before their studies were run, and corrects all of them
# together. The {q}`planned.number.test1|level` intervals aren't corrected.

# %% mystnb={"figure": {"caption": "The tests' numbers with intervals at the plan's level."}} tags=["remove-input"]
from companion import plan, planned
from cpadapt.analysis import charts

charts.enable()
charts.interval_chart(planned.chart_rows(), "points", plan.MARGIN, level=1 - plan.LEVEL)

# %% [markdown]
# The dashed lines are half a point, the plan's margin. CP 17 and CP 71 have the budgets of LoRA 1 and LoRA 4. *Best*
# is a task's adapter with the highest accuracy on {term}`dev`. Longer training and smaller models are compared with
# the main study.

# %% tags=["remove-input"]
charts.table(planned.test_table())

# %% [markdown]
# *Shown* is a p value below {q}`planned.bound`, *equivalent* one of equivalence below it. The last three tests are
# claims of the paper, which have rules instead of a number: [the paper's claims](claims.ipynb).
#
# ## What stays open
#
# - **Longer training.** Four times the steps change LoRA's lead by {q}`planned.number.test8|full|signed`. With
#   so few tasks only large changes could be shown, of what more components are worth too.
#   {says}`planned.verdict.test8 == 'open' and planned.verdict.test9 == 'open'`
# - **More classes.** One component doesn't clearly lack more where there are three classes or more.
#   {says}`planned.verdict.test4 == 'open'`
# - **Smaller models.** Whether [LoRA's lead](model_size.ipynb) is another one there.
#   {says}`planned.verdict.test10 == 'open' and planned.verdict.test11 == 'open'`
# - **One and four components.** They have less than the largest CP, but after the correction that isn't shown.
#   {says}`planned.verdict.test6 == 'open' and planned.verdict.test7 == 'open' and planned.number.test6.low > 0`
# - **The paper's three claims.** Three seeds can't tell ([the paper's size](size.ipynb)).
#   {says}`planned.verdict.test12 == planned.verdict.test13 == planned.verdict.test14 == 'open'`
#
# ## One component's share, task by task
#
# The share over all tasks is {q}`planned.share|full`. By task it differs most where the best adapter gains little.
# Where it's more than the whole, one component beat the adapter that dev chose.

# %% tags=["remove-input"]
charts.table(planned.share_table())

# %% [markdown]
# **For you**: read the findings, and come here to see what was promised before they were known.
#
# Next: [every cell](frontier.ipynb).
