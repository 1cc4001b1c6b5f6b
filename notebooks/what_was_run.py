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
# # What was run
#
# **Which of the planned runs are measured, when, on what and at what cost, and which are missing?**
#
# Of {q}`what_was_run.studies|unit`, {q}`what_was_run.complete` are complete; {q}`what_was_run.done` of
# {q}`what_was_run.planned|unit` are on record. Missing are {q}`what_was_run.missing`.

# %% tags=["hide-input"]
from companion import what_was_run
from cpadapt.analysis import charts

# %% [markdown]
# A {term}`study` is a file in `studies/`, and each run that it asks for is either on {term}`record` in `results/` or
# missing. A record belongs to a run by its {term}`config id`, a hash of all that was asked for, so a study that is
# changed loses what was measured for its former self. What stands here is what `cpadapt status` says of each study,
# and what the records say of themselves.
#
# ## Done and missing

# %% tags=["hide-input"]
charts.table(what_was_run.progress())

# %% [markdown]
# {term}`Diverged <diverged>` runs are done: that a run fails is a result. What each study is for:

# %% tags=["hide-input"]
charts.table(what_was_run.question_table())

# %% [markdown]
# ## When, on what, at what cost
#
# The runs of a task train together, as one {term}`bank` or a few; the time is that of all banks, training and
# evaluations, and stands beside the machine that took it. Peak memory is the largest bank's: on a GPU what the
# allocator gave out, on a CPU the whole process. *Commit* is the tree that measured.

# %% tags=["hide-input"]
charts.table(what_was_run.cost_table())

# %% [markdown]
# A study that is missing is one command away, on a machine with what it needs: its backbone's weights, its tasks' data
# and, for the larger ones, a GPU. [Run it yourself](../book/run_it_yourself.md) says how, and what a run costs is
# [measured elsewhere](what_a_run_costs.ipynb). The measurements of speed are not studies; they are listed
# [where they are shown](what_a_run_costs.ipynb).
#
# Next: [use the adapter in PEFT](use_in_peft.ipynb).
