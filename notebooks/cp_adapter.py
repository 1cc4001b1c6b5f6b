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
# # A CP adapter is LoRA made of short vectors
#
# **What is a CP adapter?**
#
# A LoRA adapter whose two matrices are multiplied out from short vectors, so that far fewer scalars are stored. It
# merges as LoRA does, and converts to plain LoRA without approximation.
# {says}`20 * cp_adapter.step.cp < cp_adapter.step.lora`
#
# On a `2048×2048` projection a component stores {q}`cp_adapter.step.cp|unit` and a LoRA rank
# {q}`cp_adapter.step.lora`. The rest is algebra, and tests check it.

# %% mystnb={"figure": {"caption": "A component: all blocks show one pattern."}} tags=["remove-input"]
from companion import cp_adapter

cp_adapter.stepper()

# %% [markdown]
# The bars are what is stored. $u_1$ sets how strong each row of blocks is and $u_2$ the pattern within a block's rows;
# $v_1$ and $v_2$ do the same for the columns. A vector counts by its direction only: make all its bars longer, and the
# matrix stays.
#
# ## From short vectors to LoRA's two matrices
#
# LoRA's update is a sum of outer products, each a long column times a long row {cite:p}`hu2022lora`. CP
# {cite:p}`hitchcock1927,kolda2009tensor` makes each long vector from two short ones {cite:p}`wang2026finer`:
#
# $$\Delta W = \gamma \sum_{s=1}^{c} \lambda_s \, (u_{1s} \otimes u_{2s}) (v_{1s} \otimes v_{2s})^\top$$
#
# - $\otimes$ multiplies every entry of one vector by every entry of the other.
# - $c$ is the number of {term}`components <component>`, and $\lambda_s$ the weight of one.
# - $\gamma$ is a fixed {term}`scale`.
# - The rows' number is split as $m = m_1 m_2$ and the columns' as $n = n_1 n_2$: these are the lengths of the vectors.
#
# Put the long vectors side by side, by the {term}`Khatri–Rao product` $\odot$, and they are LoRA's two matrices:
#
# $$\Delta W = \gamma \, \underbrace{(U_1 \odot U_2) \, \mathrm{diag}(\lambda)}_{\text{up}} \,
# \underbrace{(V_1 \odot V_2)^\top}_{\text{down}}$$
#
# Each component adds a pattern of its own and, as each rank of LoRA does, one to the matrix's rank.

# %% mystnb={"figure": {"caption": "More components: the blocks lose their common pattern."}} tags=["remove-input"]
from cpadapt.analysis import charts

charts.enable()
cp_adapter.block_chart(cp_adapter.stepper_params(), shown=(1, 2, 8))

# %% [markdown]
# ## It merges, and exports to LoRA
#
# *Up* and *down* are what LoRA calls $B$ and $A$. Merging adds their product into the weight. `cpadapt.to_lora` writes
# them down as a LoRA adapter of rank $c$, which PEFT loads without cpadapt.
#
# PEFT's own `convert_to_lora` decomposes the whole update by its singular values {cite:p}`peft`. That is right up to
# rounding from rank $c$ on, and an approximation below. Here are the outputs of a small decoder with an adapter of
# four components:

# %% tags=["remove-input"]
charts.table(cp_adapter.difference_table())

# %% [markdown]
# The export is larger than the CP adapter: a rank stores more than a component.
# {says}`cp_adapter.step.lora > cp_adapter.step.cp`
#
# ## It doesn't contain LoRA
#
# CP has more sizes than LoRA, but it doesn't interpolate between LoRA's ranks. A LoRA update of rank one, drawn at
# random on `2048×2048`, takes {q}`cp_adapter.needed|unit`, which store {q}`cp_adapter.needed_scalars|unit`. And two
# components have rank two, which one LoRA rank can't reach. Which of the two is of more use at one size is
# [measured](main_study.ipynb).
# {says}`cp_adapter.needed_scalars > cp_adapter.step.lora`
#
# ## How sure?
#
# The formulas are checked against independent sums and against PEFT, and every number in the text follows from shapes.
# We know the paper's form from a public [reading note](https://github.com/zhaoyang97/Paper-Notes-en), not from its
# text. That note says that a CP adapter can't be merged; perhaps something else was meant.
#
# **For you**: train, merge and ship a CP adapter as you would LoRA, but at another learning rate; [here is
# how](use_in_peft.ipynb).
#
# :::{dropdown} Stored and free scalars
# A vector that acts at unit length has one {term}`degree of freedom <degrees of freedom>` less than it has entries. So
# a component on `2048×2048` stores {q}`cp_adapter.step.cp|unit`, of which {q}`cp_adapter.free` are free. Of a LoRA
# rank's {q}`cp_adapter.step.lora`, {q}`cp_adapter.free_lora` are: what makes one factor longer can make the other
# shorter. Budgets count what is stored, here as in the paper.
# :::
#
# :::{dropdown} Why one LoRA rank takes so many components
# Order a matrix's entries by $(a_1, b_1)$ against $(a_2, b_2)$, the places of blocks against the places within a
# block, instead of by row and column. A component then has matrix rank one. So a matrix needs at least as many
# components as it has rank in that order. For $x y^\top$ this is the rank of $x$, read as an $m_1 \times m_2$ matrix,
# times that of $y$, and as many are enough.
# :::
#
# :::{dropdown} Three details of training
# **At the start only the weights learn.** With $\lambda = 0$ the adapter changes nothing, as LoRA with $B = 0$. The
# gradient of every vector has $\lambda_s$ as a factor, so in the first step the vectors stand still.
#
# **The length of a stored vector is a hidden learning rate.** With $u = \rho / \lVert \rho \rVert$ and $g$ the
# gradient by $u$, the gradient by the stored vector $\rho$ is
#
# $$\frac{1}{\lVert \rho \rVert} \, \bigl(g - (u^\top g) \, u\bigr).$$
#
# It is orthogonal to $\rho$, and shorter the longer $\rho$ is. An Adam step has its own length whatever the
# gradient's, so it turns a vector twice as long half as far. {term}`raw_norm <raw norm>` sets the length at the start.
#
# **The scale decides how far the update can get.** Adam moves a scalar by about the learning rate a step. So under a
# steady pull $|\lambda|$ reaches about the sum of all rates: {q}`protocol.reach.paper` after the paper's
# {q}`protocol.steps.paper|unit` from a rate of {q}`protocol.rate.cp`, with our linear decay. A component is then as
# large as $\gamma |\lambda|$, with a $\gamma$ of {q}`cp_adapter.scale` here. The paper reports neither its scale nor
# its start.
# :::
#
# :::{dropdown} What LoKr shares with it
# PEFT's LoKr writes the update as a Kronecker product {cite:p}`yeh2024lycoris`. With `decompose_both=True` and rank
# one that is one CP component whose weight is spread over the vectors:
#
# $$(u_1 v_1^\top) \otimes (u_2 v_2^\top) = (u_1 \otimes u_2)(v_1 \otimes v_2)^\top$$
#
# So both have the same step, up to the weight: {q}`parameter_steps.other_step.lokr|unit` on `2048×2048`. Beyond rank
# one they part. LoKr's $r$ columns on one side meet all $r$ on the other, which makes $r^2$ components that share
# their vectors. CP's share nothing.
# {says}`parameter_steps.other_step.lokr + 1 == cp_adapter.step.cp`
# :::
