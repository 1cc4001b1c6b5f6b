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
# # CP's finer steps save files, not memory
#
# **How finely can a parameter budget be spent, and why would anyone want to?**
#
# On a `2048×2048` projection LoRA spends it in steps of {q}`parameter_steps.step.lora|unit` and CP in steps of
# {q}`parameter_steps.step.cp`. Fewer scalars pay where many adapters are kept. In training they save next to nothing,
# because the model dwarfs both.
#
# All numbers here are counted from shapes by the code that trains. Nothing on this page is measured.

# %% mystnb={"figure": {"caption": "LoRA climbs in few high steps, CP in many low ones."}} tags=["remove-input"]
from companion import parameter_steps
from cpadapt.analysis import charts

charts.enable()
parameter_steps.staircase_chart()

# %% [markdown]
# A family buys the largest adapter that the budget allows and leaves the rest unspent. Below LoRA's first rank there
# is no LoRA at all, but {q}`parameter_steps.below|unit` of CP.
#
# ## The wider the model, the finer CP's steps
#
# An adapter's size is a whole number: LoRA's {term}`rank` {cite:p}`hu2022lora`, CP's number of
# {term}`components <component>` {cite:p}`wang2026finer`. On a projection from $n$ features to $m$, one step more costs
#
# $$\begin{aligned}
# \Delta P_\text{LoRA} &= m + n, \\
# \Delta P_\text{CP} &= m_1 + m_2 + n_1 + n_2 + 1.
# \end{aligned}$$
#
# - LoRA's rank is a column of $m$ scalars and a row of $n$.
# - CP splits both sides, $m = m_1 m_2$ and $n = n_1 n_2$, and stores [a short vector a part and one
#   weight](cp_adapter.ipynb).
#
# So LoRA's step grows with the hidden size, and CP's with its square root.

# %% mystnb={"figure": {"caption": "LoRA's step grows faster with the hidden size than CP's."}} tags=["remove-input"]
parameter_steps.step_chart()

# %% [markdown]
# ## What a step costs
#
# On OPT-1.3B one LoRA rank adds {q}`parameter_steps.opt_state.lora|1|unit` of Adam's state, one CP component
# {q}`parameter_steps.opt_state.cp`. The frozen weights beside them take {q}`parameter_steps.opt_backbone|unit` in half
# precision. So no choice between the two makes room in training.
# {says}`parameter_steps.opt_state.lora < 0.001 * 1024 * parameter_steps.opt_backbone`
#
# It shows on disk: {q}`parameter_steps.many|unit` of one LoRA rank take {q}`parameter_steps.opt_files.lora|unit`, of
# one CP component {q}`parameter_steps.opt_files.cp`. As LoRA, [the export](cp_adapter.ipynb) is as large as LoRA
# again.

# %% tags=["remove-input"]
charts.table(parameter_steps.cost_table())

# %% [markdown]
# Adapters are on queries and values, PEFT's default for LoRA, and all projections get the same size. The file is in
# float32. The steps on OPT-1.3B are the paper's own figures (second-hand).
# {says}`claims.figures_alike == claims.figures_counted`
#
# ## A finer step is nothing rare, and makes no adapter better
#
# PEFT has other families as fine as CP or finer. LoKr's step is {q}`parameter_steps.other_step.lokr|unit` here.
# TinyLoRA {cite:p}`tinylora` and Uni-LoRA {cite:p}`unilora` can be sized to the single scalar.
# {says}`parameter_steps.other_step.tinylora == 1 and parameter_steps.other_step.unilora == 1`

# %% mystnb={"figure": {"caption": "CP and LoKr have sizes below LoRA's first rank."}} tags=["remove-input"]
parameter_steps.ladder_chart()

# %% [markdown]
# What a finer step gives is places to look: whether accuracy rises [below one rank](encoder.ipynb), and where it
# stops.
#
# ## How sure?
#
# The counts are exact. "LoRA's step" means one rank on every projection; PEFT's `rank_pattern` can give a single one
# another rank, and then LoRA's step is {q}`parameter_steps.uneven_step` too, less than a CP component on all of
# OPT-1.3B.
# {says}`parameter_steps.uneven_step == parameter_steps.step.lora < parameter_steps.opt_step.cp`
#
# **For you**: count scalars if you keep thousands of adapters or must stay below one rank; `cpadapt plan` does it.
#
# :::{dropdown} More sizes are also more chances
# Who picks the best of more sizes gets a higher number by luck alone. If all sizes were equally good, the best of $n$
# would be expected above the truth by
#
# $$\int_{-\infty}^{\infty} x \, n \, \varphi(x) \, \Phi(x)^{n - 1} \, dx$$
#
# standard errors, with $\varphi$ and $\Phi$ the normal density and distribution function.
#
# The paper's grid on OPT-1.3B (second-hand) has {q}`parameter_steps.grid.cp|unit` of CP and
# {q}`parameter_steps.grid.lora` of LoRA, and {q}`parameter_steps.grid_below` of CP's lie below LoRA's first rank.
# There the best CP would lead LoRA's one size by {q}`parameter_steps.ahead_by_chance.first|unit` by luck, and by
# {q}`parameter_steps.ahead_by_chance.last` at the last rank. This is a yardstick and no correction, because real sizes
# are neither equal nor independent: a lead below it means nothing. Comparing two adapters at one budget has no such
# head start.
# :::
#
# :::{dropdown} Other splits, and where LoKr's row ends
# cpadapt splits a side in two parts as near to a square as it goes, as the paper does with `2048×2048`. `tensor_shape`
# splits it otherwise: on this projection CP's step goes from {q}`parameter_steps.step_of_splits.least` to
# {q}`parameter_steps.step_of_splits.most|unit`. A shorter vector can say less, so these are different adapters. On
# SST-2 [they differ by less than a point](tensorization.ipynb).
#
# LoKr {cite:p}`yeh2024lycoris,peft` with `decompose_both=True` ends at {q}`parameter_steps.lokr_end|unit`, where PEFT
# stores its two small matrices whole. Another `decompose_factor` goes further.
# :::
