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
# # Which runs are on record?
#
# **Which of the planned runs are measured, on what and at what cost?**
#
# Of {q}`what_was_run.planned|unit`, {q}`what_was_run.done` are on record. The chart shows which {term}`studies
# <study>` miss some.
#
# A run counts when `results/` has a {term}`record` under its {term}`config id`, a hash of all that was asked for.

# %% mystnb={"figure": {"caption": "The runs on record, of those that each study asks for."}} tags=["remove-input"]
from companion import what_was_run
from cpadapt.analysis import charts

charts.enable()
what_was_run.progress_chart()

# %% [markdown]
# {q}`what_was_run.complete` of {q}`what_was_run.studies|unit` are complete. {term}`Diverged <diverged>` runs count as
# done: that a run fails is a result. Study `paper` needs OPT-1.3B, whose weights we don't have.

# %% mystnb={"code_prompt_show": "By task", "code_prompt_hide": "By task"} tags=["remove-input", "hide-output"]
charts.table(what_was_run.progress())

# %% mystnb={"code_prompt_show": "Purposes", "code_prompt_hide": "Purposes"} tags=["remove-input", "hide-output"]
charts.table(what_was_run.question_table())

# %% [markdown]
# ## When, on what, at what cost
#
# The time is that of all banks of a study, training and evaluations. Peak memory is that of the largest {term}`bank`:
# on a GPU what the allocator gave out, on a CPU the whole process. *Commit* is the code that measured.

# %% mystnb={"code_prompt_show": "Costs", "code_prompt_hide": "Costs"} tags=["remove-input", "hide-output"]
charts.table(what_was_run.cost_table())

# %% [markdown]
# ## How sure?
#
# These are counts of files, as `cpadapt status` makes them. A study that is changed loses what was measured for its
# former self. The measurements of speed aren't studies; they stand [where they are shown](what_a_run_costs.ipynb).
#
# **For you**: a missing study is [one command](../book/run_it_yourself.md) away, given its weights, its data and, for
# the larger ones, a GPU.
#
# Next: [how the code is built](architecture.ipynb).
