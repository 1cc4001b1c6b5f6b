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
# # The CP adapter
#
# **What is a CP adapter, and why does it merge and export exactly?**
#
# It reads the update of a weight matrix as a tensor of four modes and writes it as a sum of $c$ outer products, each
# of four unit vectors and one weight: {q}`cp_adapter.step.cp` scalars a component on `2048×2048`. Grouped by side, the
# vectors make two thin matrices whose product is the update, which therefore has rank at most $c$, adds into the
# weight as any matrix does (outputs part by {glue:text}`merge_difference:.0e`, the rounding of float32) and *is* a
# LoRA adapter of rank $c$ (outputs part by {glue:text}`export_difference:.0f`).

# %%
import functools
import warnings

import pandas as pd
import torch
import torch.nn.functional as F
from myst_nb import glue
from peft import get_peft_model, set_peft_model_state_dict
from peft.tuners.lora import convert_to_lora
from torch import nn

import cpadapt
from companion import PROJECT
from companion.cp_adapter import block_chart, drawn, lokr, product_chart, update
from cpadapt import CPConfig
from cpadapt.analysis import charts
from cpadapt.analysis.charts import table
from cpadapt.families import counting, cp, lora
from cpadapt.inputs.backbones.specs import Projection

charts.enable()
# PEFT 0.21 asks transformers for a property by its old name.
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")

# %% [markdown]
# ## From outer products to two factors
#
# A matrix of rank one is an outer product $x y^\top$: a column of $m$ numbers times a row of $n$. LoRA's update is a
# sum of $r$ of them {cite:p}`hu2022lora`.
#
# CP, the canonical polyadic {term}`decomposition <CP decomposition>` {cite:p}`hitchcock1927,kolda2009tensor`, is the
# same idea with more than two {term}`modes <mode>`. Split the rows' index in two, $m = m_1 m_2$, and the columns',
# $n = n_1 n_2$. The update is now a tensor with four indices, and a component is an outer product of four vectors with
# a weight in front:
#
# $$\begin{aligned}
# \Delta W_{a_1 a_2, \, b_1 b_2} = \gamma \sum_{s=1}^{c} \lambda_s \;
# & u_{1s}(a_1) \, u_{2s}(a_2) \\[-1ex] & v_{1s}(b_1) \, v_{2s}(b_2).
# \end{aligned}$$
#
# The vectors have unit length; what is stored are raw vectors of any length, normalised in every forward pass.
# $\gamma$ is a fixed `scale`. This is the form of {cite:t}`wang2026finer`.
#
# The first two factors depend on the row alone, the last two on the column alone. So a component is an outer product
# of two *long* vectors, $u_1 \otimes u_2$ with $m$ entries and $v_1 \otimes v_2$ with $n$, where $\otimes$ multiplies
# every entry of the one by every entry of the other. Written column by column for all components this is the
# {term}`Khatri–Rao product` $\odot$, and
#
# $$\begin{aligned}
# \Delta W &= \gamma \cdot \text{up} \cdot \text{down}, \\
# \text{up} &= (U_1 \odot U_2) \, \mathrm{diag}(\lambda), \\
# \text{down} &= (V_1 \odot V_2)^\top,
# \end{aligned}$$
#
# `up` with $m$ rows and $c$ columns, `down` with $c$ rows and $n$ columns. That is all that the rest of this page
# needs. `cpadapt.families.cp` draws the raw vectors and makes the two factors; the sum over four indices, written out,
# gives the same matrix.

# %%
params = drawn(cp, 24, 24, 8, seed=227)  # a draw whose blocks are easy to see below
up, down = cp.factors(params)
u1, u2, v1, v2 = (F.normalize(params[name], dim=-1) for name in ("up_0", "up_1", "down_0", "down_1"))
written_out = torch.einsum("s,sa,sb,sc,sd->abcd", params["weight"], u1, u2, v1, v2)
einsum_difference = (written_out.reshape(24, 24) - up @ down).abs().max().item()
{name: tuple(tensor.shape) for name, tensor in params.items()}, written_out.shape

# %% [markdown]
# The largest difference between the two is {glue:text}`einsum_difference:.0e`, the rounding of float64.
#
# ## What it looks like
#
# A long vector from two short ones, on `24 = 4·6`: the first is stretched, the second repeated, and the product is
# taken entry by entry.

# %% tags=["hide-input"]
product_chart(u1[0], u2[0])

# %% [markdown]
# Do that on both sides, and a component is a matrix of blocks that all show one pattern, each with its own factor.
# Several components laid over each other lose that look, and their sum is still a matrix of rank at most $c$.

# %% tags=["hide-input"]
block_chart(params, shown=(1, 2, 8))

# %% [markdown]
# ## A worked step
#
# What is stored for one component on `2048×2048`, split as `32·64 × 32·64`:

# %%
shapes = cp.shapes(2048, 2048, 1)
worked = pd.DataFrame(
    {
        "tensor": name,
        "symbol": symbol,
        "scalars": shape[0] * (shape[1] if len(shape) == 2 else 1),
    }
    for (name, shape), symbol in zip(shapes.items(), ["u₁", "u₂", "v₁", "v₂", "λ"], strict=True)
)
table(worked)

# %% [markdown]
# The rows' two vectors take {q}`cp_adapter.stored.up_0` and {q}`cp_adapter.stored.up_1` scalars, the columns'
# {q}`cp_adapter.stored.down_0` and {q}`cp_adapter.stored.down_1`, the weight {q}`cp_adapter.stored.weight`: together
# {q}`cp_adapter.step.cp`, where a LoRA rank stores {q}`cp_adapter.step.lora` and the matrix has
# {q}`cp_adapter.entries` entries.
# {says}`cp_adapter.stored.up_0 + cp_adapter.stored.up_1 + cp_adapter.stored.down_0 + cp_adapter.stored.down_1
# + cp_adapter.stored.weight == cp_adapter.step.cp`
#
# ## Stored and free
#
# Not every stored scalar is a degree of freedom. Make a raw vector twice as long, and its unit vector, and with it the
# update, stays what it was. Each of the $d$ vectors of a component loses one dimension that way:
#
# $$\begin{aligned}
# \text{stored} &= c \, \Bigl(\sum_j n_j + 1\Bigr), \\
# \text{free} &= c \, \Bigl(\sum_j (n_j - 1) + 1\Bigr),
# \end{aligned}$$
#
# the sums over all $d$ modes $n_j$ of both sides. LoRA has a like redundancy: $r(m + n)$ are stored and $r(m + n - r)$
# free, since an invertible $r \times r$ matrix can go into the one factor and its inverse into the other.
#
# That the formula counts right is checked with the rank of the Jacobian, the matrix of derivatives of all entries of
# $\Delta W$ by all stored scalars: it says in how many independent directions a small change of the scalars can move
# the update. Here for `4·6 × 4·6`, in float64.

# %%
counted = []
for family, size_name, sizes in ((cp, "c", (1, 2, 3)), (lora, "r", (1, 2))):
    for size in sizes:
        jacobian = torch.func.jacrev(functools.partial(update, family))(drawn(family, 24, 24, size))
        by_scalar = torch.cat([part.reshape(24 * 24, -1) for part in jacobian.values()], dim=1)
        counted.append(
            {
                "adapter": f"{family.TITLE}, {size_name} = {size}",
                "stored": by_scalar.shape[1],
                "free": torch.linalg.matrix_rank(by_scalar).item(),
            }
        )
table(pd.DataFrame(counted))

# %% [markdown]
# One component stores {glue:text}`stored_one:d` scalars and moves in {glue:text}`free_one:d` directions, two store
# {glue:text}`stored_two:d` and move in {glue:text}`free_two:d`: the formula. On `2048×2048` it makes of the
# {q}`cp_adapter.step.cp` stored scalars {q}`cp_adapter.free` free ones, and of LoRA's {q}`cp_adapter.step.lora` at
# rank one {q}`cp_adapter.free_lora`. Budgets are counted in stored scalars, here as in the paper: that is what is kept
# on disk and in Adam's state.
#
# ## What it reaches, and what it does not
#
# A CP component is a matrix of rank one with a special shape: its long vectors are themselves products. Two components
# have rank two, which one LoRA rank cannot reach. Conversely, an update $x y^\top$ of LoRA is hardly ever a single
# component. Order its entries by $(a_1, b_1)$ against $(a_2, b_2)$ instead of by row and column; then every component
# has rank one, so the rank of the reordered matrix says how many components are needed at least. For $x y^\top$ it is
# the rank of $x$, read as an $m_1 \times m_2$ matrix, times that of $y$, and so many components also suffice.

# %%
generator = torch.Generator().manual_seed(0)
outer = torch.outer(*torch.randn(2, 24, generator=generator, dtype=torch.float64))
reach = []
for name, matrix in (
    ("one CP component", update(cp, drawn(cp, 24, 24, 1))),
    ("two CP components", update(cp, drawn(cp, 24, 24, 2))),
    ("one LoRA rank, drawn at random", outer),
):
    reordered = matrix.reshape(4, 6, 4, 6).permute(0, 2, 1, 3).reshape(4 * 4, 6 * 6)  # (a₁, b₁) against (a₂, b₂)
    reach.append(
        {
            "update": name,
            "matrix rank": torch.linalg.matrix_rank(matrix).item(),
            "components needed at least": torch.linalg.matrix_rank(reordered).item(),
        }
    )
table(pd.DataFrame(reach))

# %% [markdown]
# On `4·6 × 4·6` a LoRA update of rank one drawn at random takes {glue:text}`small_needed:d` components; on `2048×2048`
# it would take {q}`cp_adapter.needed`, or {q}`cp_adapter.needed_scalars` scalars. So CP fills the gaps between LoRA's
# ranks *in count*. It does not interpolate between them: neither family's updates contain the other's at a like
# budget, and which are of more use is for measurements to say.
# {says}`cp_adapter.needed_scalars > cp_adapter.step.lora`
#
# ## Weight, length and scale
#
# Three details decide how a CP adapter trains, and none of them shows in its count.
#
# **At the start only the weights learn.** With $\lambda = 0$ the adapter is a no-op, as LoRA is with its $B$ at zero.
# The derivative of $\Delta W$ by any vector has $\lambda_s$ as a factor, so in the first step the vectors stand still:

# %%
pull = torch.randn(24, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
gradients = torch.func.grad(lambda params: (pull * update(cp, params)).sum())  # by every stored tensor
at_zero = gradients({**params, "weight": torch.zeros(8, dtype=torch.float64)})
table(pd.DataFrame({"tensor": name, "length of its gradient": f"{grad.norm():.3g}"} for name, grad in at_zero.items()))

# %% [markdown]
# **The length of a raw vector is a hidden learning rate.** With $u = \rho / \lVert \rho \rVert$ and $g$ the gradient
# by $u$, the gradient by the raw vector $\rho$ is
#
# $$\frac{1}{\lVert \rho \rVert} \, \bigl(g - (u^\top g) \, u\bigr),$$
#
# orthogonal to $\rho$ and the shorter, the longer $\rho$ is. Adam takes a step of its own length whatever the
# gradient's, and then the same step turns a long vector less. The last column is the angle by which one step of Adam
# turns $u_1$ at the paper's learning rate (second-hand). `raw_norm` sets the length at the start.

# %%
paper = cpadapt.load_study(PROJECT / "studies" / "paper.toml")
(rate,) = paper.families["cp"].learning_rates
lengths = []
for raw_norm in (0.25, 0.5, 1.0, 2.0, 4.0):
    longer = {name: tensor if name == "weight" else raw_norm * tensor for name, tensor in params.items()}
    raw, grad = longer["up_0"][0], gradients(longer)["up_0"][0]
    stepped = raw.clone().requires_grad_()
    stepped.grad = grad
    torch.optim.Adam([stepped], lr=rate).step()
    turned = torch.dist(F.normalize(stepped.detach(), dim=0), F.normalize(raw, dim=0))
    lengths.append(
        {
            "raw_norm": raw_norm,
            "gradient's length": grad.norm().item(),
            "cosine to the raw vector": (grad @ raw / grad.norm() / raw.norm()).item(),
            "turned by Adam, mrad": 1000 * turned.item(),
        }
    )
lengths = pd.DataFrame(lengths)
FORMS = {"gradient's length": "{:.4f}", "cosine to the raw vector": "{:.0e}", "turned by Adam, mrad": "{:.3f}"}
table(lengths.assign(**{column: lengths[column].map(form.format) for column, form in FORMS.items()}))

# %% [markdown]
# **The scale decides the reach.** As all vectors are unit, a component is exactly as large as $\gamma |\lambda_s|$, in
# the spectral and in the Frobenius norm. Adam moves a scalar by about its learning rate a step, be the gradient large
# or small; so under a steady pull $|\lambda|$ grows to about the sum of the rates. Here is a weight that is
# pulled one way all the time, over the paper's number of steps at the paper's rate (second-hand), with our linear
# decay:

# %%
steps, reached = paper.protocol.steps, {}
for gradient in (0.01, 100.0):
    weight = torch.zeros(1, requires_grad=True)
    weight.grad = torch.full((1,), -gradient)
    optimizer = torch.optim.Adam([weight], lr=rate)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for _ in range(steps):
        optimizer.step()
        decay.step()
    reached[gradient] = weight.item()
reached

# %% [markdown]
# A raw vector {glue:text}`norm_ratio:.0f` times as long has a gradient {glue:text}`length_ratio:.0f` times as short
# and is turned {glue:text}`angle_ratio:.0f` times less. After {q}`protocol.steps.paper` steps at a rate of
# {q}`protocol.rate.cp`, $|\lambda|$ is about {glue:text}`reach:.2f`, however strong the pull, and with our scale of
# {q}`cp_adapter.scale` a component's size about {glue:text}`scaled_reach:.1f`. A pull that grows takes it further, one
# that changes its sign less far: the scale sets the order of what is reached. The paper reports neither its scale nor
# its initialisation. All three are named and recorded here: see [the protocol](protocol.ipynb).
#
# ## Merging
#
# $W + \Delta W$ is a matrix like any other, so an adapted model becomes a plain one: add and forget. A public [reading
# note](https://github.com/zhaoyang97/Paper-Notes-en) of the paper says that a CP adapter cannot be merged. Perhaps
# something else was meant; the update is a matrix of rank at most $c$, and it merges. Here on `tiny`, a decoder with
# random weights, with an adapter on its {glue:text}`model_projections:d` query and value projections that is drawn
# large enough to matter:

# %%
backbone = cpadapt.load_backbone("tiny")
text = backbone.tokenizer("Does it merge? It does.", return_tensors="pt")
torch.manual_seed(0)
model = get_peft_model(backbone.model, CPConfig(num_components=4, init="normal")).eval()


exported = cpadapt.to_lora(model)
ways = {"exported": exported}
for rank in (4, 3, 0.99):
    config, state = convert_to_lora(model, rank=rank)
    ways[rank] = get_peft_model(cpadapt.load_backbone("tiny").model, config).eval()
    set_peft_model_state_dict(ways[rank], state)

with torch.no_grad():
    adapted = model(**text).last_hidden_state
    outputs = {way: other(**text).last_hidden_state for way, other in ways.items()}
    with model.disable_adapter():
        outputs["without the adapter"] = model(**text).last_hidden_state
    model.merge_adapter()
    outputs["merged"] = model(**text).last_hidden_state
apart = {way: (output - adapted).abs().max().item() for way, output in outputs.items()}
table(
    pd.DataFrame(
        {"compared with the adapted model": way, "largest difference": f"{apart[way]:.2g}"}
        for way in ("without the adapter", "merged")
    )
)

# %% [markdown]
# The difference that remains is float32's rounding: a sum taken in another order. On one projection in float64 it
# shrinks with the rounding.

# %%
torch.manual_seed(0)
one = get_peft_model(
    nn.Sequential(nn.Linear(384, 384)), CPConfig(num_components=4, init="normal", target_modules=["0"])
)
rounding = {}
for dtype in (torch.float32, torch.float64):
    one.to(dtype)
    given = torch.randn(16, 384, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = one(given)
    one.merge_adapter()
    rounding[str(dtype)] = (one(given) - before).abs().max().item()
    one.unmerge_adapter()
rounding

# %% [markdown]
# The adapter moves an output by up to {glue:text}`effect:.1f`; merged and unmerged are
# {glue:text}`merge_difference:.0e` apart. On the one projection it is {glue:text}`rounding_32:.0e` in float32 and
# {glue:text}`rounding_64:.0e` in float64.
#
# ## Export to LoRA
#
# LoRA computes $\frac{\alpha}{r} B A$ from a $B$ of $m \times r$ and an $A$ of $r \times n$. That is what `up` and
# `down` are. `cpadapt.to_lora` writes them down as $B$ and $A$, with $r = c$: no approximation, no decomposition, and
# never a matrix of $m \times n$. What comes out is loaded by PEFT alone.
#
# PEFT's own `convert_to_lora` serves nearly all its adapters alike: it builds the $m \times n$ update, decomposes it
# by its singular values and keeps as many as one asks for {cite:p}`peft`. For a CP adapter at rank $c$ or more that is
# also right up to rounding, since no further singular values are there; below it, or with a share of the squared
# singular values in place of a rank, it is an approximation.

# %%
exports = {"to_lora, rank 4": "exported", "convert_to_lora, rank 4": 4, "convert_to_lora, rank 3": 3}
exports["convert_to_lora, a share of 0.99"] = 0.99
table(pd.DataFrame({"export": name, "difference": f"{apart[way]:.2g}"} for name, way in exports.items()))

# %% [markdown]
# Against the adapted model, with outputs that the adapter moves by up to {glue:text}`effect:.1f`: the exact export of
# rank {glue:text}`export_rank:d` is {glue:text}`export_difference:.0f` away, as it does the same products in the same
# order. Through the decomposition it is {glue:text}`svd_same:.0e` at the same rank, {glue:text}`svd_less:.1f` with one
# rank less, and {glue:text}`svd_share:.1f` with a share of {glue:text}`svd_share_of:.2f`. The price of the export is
# size: a rank of LoRA stores more than a component. [Use it in PEFT](use_in_peft.ipynb) shows the whole way from
# training to a saved LoRA.
# {says}`cp_adapter.step.lora > cp_adapter.step.cp`
#
# ## What LoKr shares with it
#
# PEFT's LoKr writes the update as a Kronecker product $W_1 \otimes W_2$ {cite:p}`yeh2024lycoris`; with
# `decompose_both=True` both are products of two thin matrices. At rank one that is
#
# $$(u_1 v_1^\top) \otimes (u_2 v_2^\top) = (u_1 \otimes u_2)(v_1 \otimes v_2)^\top,$$
#
# one CP component whose weight is spread over the vectors. Built from the same vectors by PEFT, on `384×384`:

# %%
component = drawn(cp, 384, 384, 1)
layer, _ = lokr(1, 384)
layer.double()
unit = {name: F.normalize(tensor[0], dim=0) for name, tensor in component.items() if name != "weight"}
layer.lokr_w1_a["default"].data = (component["weight"] * unit["up_0"])[:, None]
layer.lokr_w1_b["default"].data = unit["down_0"][None]
layer.lokr_w2_a["default"].data = unit["up_1"][:, None]
layer.lokr_w2_b["default"].data = unit["down_1"][None]
same = (layer.get_delta_weight("default") - update(cp, component)).abs().max().item()
same

# %% [markdown]
# Beyond rank one they part. LoKr's $r$ columns on the one side meet all $r$ on the other, which makes $r^2$ components
# that share their vectors; CP's components share nothing. So LoKr reaches a higher matrix rank with the same scalars,
# by a narrower choice of matrices.

# %%
torch.manual_seed(0)
ranks = []
for size in (1, 2, 3):
    layer, scalars = lokr(size, 384)
    of_lokr = layer.double().get_delta_weight("default").detach()
    of_cp = update(cp, drawn(cp, 384, 384, size))
    ranks.append(
        {
            "size": size,
            "LoKr, scalars": scalars,
            "LoKr, matrix rank": torch.linalg.matrix_rank(of_lokr).item(),
            "CP, scalars": counting.count("cp", [Projection("", 384, 384)], size),
            "CP, matrix rank": torch.linalg.matrix_rank(of_cp).item(),
        }
    )
table(pd.DataFrame(ranks))

# %% [markdown]
# The two updates from the same vectors are {glue:text}`lokr_difference:.0e` apart. On `2048×2048` LoKr stores
# {q}`parameter_steps.other_step.lokr` scalars a rank and CP {q}`cp_adapter.step.cp` a component: the same step, up to
# the weight. At size two LoKr's update has rank {glue:text}`lokr_rank_2:d`, at size three {glue:text}`lokr_rank_3:d`.
#
# Next: [the protocol](protocol.ipynb), what the paper fixes and what had to be chosen.

# %% tags=["remove-cell"]
first, last = lengths.iloc[0], lengths.iloc[-1]
for name, value in {
    "einsum_difference": einsum_difference,
    **{f"{kind}_{which}": counted[k][kind] for k, which in enumerate(("one", "two")) for kind in ("stored", "free")},
    "small_needed": reach[-1]["components needed at least"],
    "reach": reached[100.0],
    "scaled_reach": cp.SCALE * reached[100.0],
    "norm_ratio": float(last["raw_norm"] / first["raw_norm"]),
    "length_ratio": float(first["gradient's length"] / last["gradient's length"]),
    "angle_ratio": float(first["turned by Adam, mrad"] / last["turned by Adam, mrad"]),
    "model_projections": len(backbone.projections),
    "effect": apart["without the adapter"],
    "merge_difference": apart["merged"],
    "rounding_32": rounding["torch.float32"],
    "rounding_64": rounding["torch.float64"],
    "export_difference": apart["exported"],
    "export_rank": exported.peft_config["default"].r,
    **{f"svd_{which}": apart[rank] for which, rank in (("same", 4), ("less", 3), ("share", 0.99))},
    "svd_share_of": 0.99,
    "lokr_difference": same,
    **{f"lokr_rank_{row['size']}": row["LoKr, matrix rank"] for row in ranks[1:]},
}.items():
    glue(name, value, display=False)
