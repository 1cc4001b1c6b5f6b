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
# # What are trained updates made of?
#
# **How near does CP come to the updates that LoRA and full fine-tuning find?**
#
# We can't tell yet: trained updates are **not measured**. The search for the nearest CP tensor is. It brings back
# every planted tensor from random measurements, and {q}`updates.recovered.entries.thirty|unit` of them from the fewest
# entries that we tried.
# {says}`min(updates.recovered.measurements) == 100 and min(updates.recovered_of.measurements) == 100`
# {says}`updates.recovered.entries.thirty == min(updates.recovered.entries)`
#
# {q}`updates.seeds` seeds a curve; {q}`updates.recovered.entries.thirty|level` interval
# {q}`updates.recovered.entries.thirty|interval` percent.

# %% mystnb={"figure": {"caption": "Error by iteration; a band holds most seeds."}} tags=["remove-input"]
from companion import recovery
from cpadapt.analysis import charts

charts.enable()
recovery.curve_chart("entries")

# %% [markdown]
# Each curve is a share of the entries that are known. A tensor counts as recovered if its error is below one percent
# of its size.
#
# ## The search, tested on planted tensors
#
# Iterative hard thresholding {cite:p}`grotheer2019` takes a step towards the measurements, then the nearest CP tensor,
# and repeats. That nearest tensor is the same search that will take trained updates apart. Its authors show one draw a
# curve on tensors of $10 \times 10 \times 10$; we repeat their four set-ups with {q}`updates.seeds` seeds.
#
# From random measurements nothing fails. With more measurements it is faster: the median seed is recovered after
# {q}`updates.iterations.measurements.ninety` iterations instead of {q}`updates.iterations.measurements.thirty`.
# {says}`updates.iterations.measurements.ninety < updates.iterations.measurements.thirty`

# %% mystnb={"figure": {"caption": "The same from random measurements."}} tags=["remove-input"]
recovery.curve_chart("measurements")

# %% [markdown]
# From entries alone it can end elsewhere. With five components and half of the entries,
# {q}`updates.recovered_of.entries.five|unit` are recovered, and {q}`updates.recovered_of.entries.two|unit` with two
# components. Tensors that aren't recovered end far off: their median error is {q}`updates.failed|unit` of the tensor's
# size.
# {says}`updates.recovered_of.entries.five < updates.recovered_of.entries.two and updates.failed > 20`

# %% mystnb={"figure": {"caption": "From half of the entries with noise, by components."}} tags=["remove-input"]
recovery.curve_chart("completed components")

# %% [markdown]
# All curves, with how many seeds they recover. Noise is as in the authors' scripts.

# %% tags=["hide-cell"]
charts.table(recovery.recovered_table())

# %% [markdown]
# (what-we-will-ask)=
# ## What we will ask of trained updates
#
# This was written before any trained update was taken apart. On SmolLM2-135M and Qwen2.5-Coder-0.5B we'll train LoRA
# of ranks one, two, four and eight, CP at equal scalars, and the full query and value projections. There are six
# tasks, and three draws of each.
#
# **How near?** Each trained ΔW is approximated, module by module, by the best matrix of a rank and by the nearest CP
# tensor that we find at equal scalars. We report the error that remains over the whole model. Beside it stands a bound
# that no CP tensor can pass. As a control the rows and columns of ΔW are put in random order: if CP then comes as
# near, the tensor's modes mean nothing.
#
# **What is it worth?** The approximation is put into the model, with the head that was trained beside ΔW, and judged
# at once.
#
# **Where does a gap come from?** Then it's trained on, for as many steps again. So are LoRA and CP, each from where it
# ended. That divides the gap at equal scalars into two parts:
#
# - what CP can't express: LoRA minus CP that starts from LoRA's update;
# - what CP's training doesn't find: that CP minus CP that started as usual.
#
# Their sum is the gap, draw by draw. Both parts are means over the four sizes, then over tasks, as in [the
# plan](../book/plan.md). That makes four tests, two on each backbone, corrected by Holm's method. A part is *shown* if
# its corrected p value is below 5 %. If neither is, we say so and draw no conclusion.
#
# Rates are those that earlier studies chose on dev. A size that they don't have takes the setting of the next smaller
# one. Full fine-tuning takes the best of four rates on dev, on other draws. If that is the highest or the lowest, we
# say so.
#
# ## How sure?
#
# Whether a better search would save the tensors that fail is open.
#
# For trained updates the search isn't exact either. It starts from two random places and keeps the nearer end; more
# starts could only help CP. On matrices of rank one, where the nearest CP tensor is known, a test compares the two.
# Planted tensors are easy beside trained updates, which needn't be near any CP tensor.
#
# Next: [the claims, one by one](claims.ipynb).
