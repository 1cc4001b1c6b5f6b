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
# # The plan's secondary tests
#
# **What did the secondary tests of the plan find?**
#
# They have no verdicts yet. [The plan](#the-secondary-questions) corrects all of them together, and
# two wait for longer training. The numbers of the others stand here with intervals.
#
# These {q}`planned.number.test1|level` intervals aren't corrected, so none of them alone shows anything.

# %% mystnb={"figure": {"caption": "The tests' numbers, each with its 95 % interval."}} tags=["remove-input"]
from companion import plan, planned
from cpadapt.analysis import charts

charts.enable()
charts.interval_chart(planned.chart_rows(), "points", plan.MARGIN)

# %% [markdown]
# The table says what each test is about. The dashed lines are half a point, the plan's margin. CP 17 and CP 71 have
# the budgets of LoRA 1 and LoRA 4. *Best* is a task's adapter with the highest accuracy on {term}`dev`.

# %% tags=["remove-input"]
charts.table(planned.test_table())

# %% [markdown]
# The last three tests are claims of the paper, which have rules instead of a number:
# [the paper's claims](claims.ipynb).
#
# ## One component's share, task by task
#
# The share over all tasks is {q}`planned.share|full`. By task it differs most where the best adapter gains little.

# %% tags=["remove-input"]
charts.table(planned.share_table())

# %% [markdown]
# **For you**: read the findings, and come here to see what was promised before they were known.
#
# Next: [every cell](frontier.ipynb).
