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
# # At equal size, CP and LoRA are equivalent
#
# **At equal size, is LoRA ahead of CP on a model of the paper's size?**
#
# No: over {q}`main_study.tasks` tasks LoRA leads by {q}`main_study.primary|unit`, far less than anyone would notice.
# {says}`main_study.verdict == 'equivalent' and main_study.primary.low < 0 < main_study.primary.high`
# {says}`main_study.tasks == 15 and abs(main_study.primary) < 0.1`
#
# {q}`main_study.draws` draws of the examples a task; {q}`main_study.primary|level` interval
# {q}`main_study.primary|interval|signed`, within half a point.
# {says}`-0.5 < main_study.primary.low and main_study.primary.high < 0.5`

# %% mystnb={"figure": {"caption": "LoRA minus CP at equal size, with 97 % intervals."}} tags=["remove-input"]
from companion import main_study, plan
from cpadapt.analysis import charts

charts.enable()
charts.interval_chart(main_study.task_chart_rows(), "LoRA − CP, points", plan.MARGIN, level=main_study.LEVEL)

# %% [markdown]
# The number is the one that [the plan](../book/plan.md) named before the study was run: the mean of
# {q}`main_study.compared`. The plan calls two adapters equivalent if their difference is clearly within half a point.
# The dashed lines are that half point.
#
# The tasks come from {q}`main_study.sources` sources. We see no sign that the difference depends on the task: between
# sources it spreads with an estimated standard deviation of {q}`main_study.spread|unit`. That estimate has no
# interval, and single tasks are uncertain: on BoolQ the difference may lie anywhere from
# {q}`main_study.on_task.boolq|interval|signed`.
# {says}`main_study.spread < 0.2 and main_study.on_task.boolq.low < -2 and main_study.on_task.boolq.high > 1`
#
# ## Task by task
#
# In points, LoRA minus CP. Single tasks get no verdict: among so many, some seem clear by chance. *Eval* is the
# validation split. The {term}`rest` are training rows that a run didn't train on; it is judged on both.

# %% tags=["remove-input"]
charts.table(main_study.task_table())

# %% [markdown]
# *Over the head* is what the adapters gain over a trained head alone, which the plan doesn't test. It's
# {q}`main_study.median_gain|unit` on the task in the middle, and from {q}`main_study.least_gain` to
# {q}`main_study.greatest_gain` on the others ([every cell](frontier.ipynb)). So these are tasks on which adapters
# matter.
# {says}`main_study.median_gain > 1 and main_study.greatest_gain > 5`
#
# The largest difference on a task is {q}`main_study.largest|unit|signed`. On no task do eval and rest rows disagree
# clearly. {says}`main_study.at_odds == 0`
#
# ## How sure?
#
# All intervals here have {q}`main_study.primary|level`, which makes up for a second look at the data. The plan asks
# for that look, with ten more draws, only where the interval leaves both answers open, which it doesn't here. All
# {q}`main_study.runs` runs have an outcome.
# {says}`main_study.more_draws == 'no' and main_study.lost == 0`
#
# One setting of the rate served all tasks, chosen on dev; a task may have a better one. Training had
# {q}`main_study.steps|unit` on 1000 examples, the head was trained too, and the model is Qwen2.5-Coder-1.5B-Instruct.
# What longer training changes, [the plan's secondary tests](planned.ipynb) ask.
#
# **For you**: at equal size, choose between CP and LoRA by what else you need, not by accuracy.
#
# Next: [when size pays](when_size_pays.ipynb).
