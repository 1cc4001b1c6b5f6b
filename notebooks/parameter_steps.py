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
# # Parameter steps
#
# **How finely can a parameter budget be spent?**
#
# On a `2048×2048` projection LoRA spends it in steps of {q}`parameter_steps.step.lora` scalars and CP in steps of
# {q}`parameter_steps.step.cp`, so that {q}`parameter_steps.between.first` sizes of CP lie below LoRA's first rank and
# as many between its first and its second. That is finer than LoRA but not the finest there is, and a finer step shows
# where a budget begins to matter; by itself it makes no adapter better.
# {says}`parameter_steps.between.first == parameter_steps.between.second`

# %%
import altair as alt
import pandas as pd
from peft import LoraConfig

import cpadapt
from companion import parameter_steps
from companion.parameter_steps import GRID, LITTLE, SHOWN
from cpadapt.analysis import charts
from cpadapt.analysis.charts import table
from cpadapt.families import counting, cp
from cpadapt.inputs.backbones.specs import Projection

charts.enable()

# %% [markdown]
# ## The staircase
#
# An adapter's size is a whole number $k$: LoRA's rank {cite:p}`hu2022lora`, CP's number of {term}`component`s
# {cite:p}`wang2026finer`. The size decides $P(k)$, the number of trainable scalars, and the paper measures how finely
# a family can be sized by its *parameter step*
#
# $$\Delta P(k) = P(k + 1) - P(k).$$
#
# For a projection from $n$ features to $m$, a LoRA rank is a column of $m$ scalars and a row of $n$. A CP component
# splits both sides, $m = m_1 m_2$ and $n = n_1 n_2$, and stores one short vector a part and one weight ([the next
# chapter](cp_adapter.ipynb) says why that is enough):
#
# $$\begin{aligned}
# \Delta P_\text{LoRA} &= m + n, \\
# \Delta P_\text{CP} &= m_1 + m_2 + n_1 + n_2 + 1.
# \end{aligned}$$
#
# Neither depends on $k$: all steps of a family are equally high.

# %%
projection = [Projection("q_proj", 2048, 2048)]
lora_step = counting.step("lora", projection)
cp_step = counting.step("cp", projection)
split = cp.modes(2048)
lora_step, cp_step, split

# %% [markdown]
# With a budget of $B$ scalars, a family buys the largest size with $P(k) \le B$. What is left over stays unspent. Move
# the budget, and read off what each family makes of it.

# %% tags=["hide-input"]
END = 4 * lora_step
STEPS = {"lora": lora_step, "cp": cp_step}
SIZES = {"lora": "'rank ' + datum.size", "cp": "datum.size + ' components'"}
colour = alt.Color(
    "family:N",
    legend=None,
    scale=alt.Scale(
        domain=[charts.family_name(name) for name in STEPS], range=[charts.family_colours()[name] for name in STEPS]
    ),
)
treads = pd.DataFrame(
    {"family": charts.family_name(name), "size": k, "budget": k * step, "spent": k * step}
    for name, step in STEPS.items()
    for k in range(END // step + 1)
)
ends = treads.groupby("family", as_index=False, sort=False).last().assign(budget=END)
families = pd.DataFrame(
    {"family": charts.family_name(name), "step": step, "line": line} for line, (name, step) in enumerate(STEPS.items())
)
slider = alt.param(
    name="budget", value=SHOWN, bind=alt.binding_range(min=0, max=END, step=1, name="budget, scalars: ")
)
x = alt.X("budget:Q", title="budget, trainable scalars", scale=alt.Scale(domain=[0, END], nice=False))
y = alt.Y("spent:Q", title="spent, trainable scalars", scale=alt.Scale(domain=[0, END], nice=False))
stairs = (
    alt.Chart(pd.concat([treads, ends]))
    .mark_line(interpolate="step-after", strokeWidth=2)
    .encode(x, y, colour, tooltip=["family", "size", alt.Tooltip("spent", format=",")])
)
bought = (
    alt.Chart(families)
    .transform_calculate(budget="budget", size="floor(budget / datum.step)")
    .transform_calculate(spent="datum.size * datum.step")
)
points = bought.mark_point(size=90, filled=True, opacity=1).encode(x, y, colour)
drop = alt.Chart(families.head(1)).transform_calculate(budget="budget").mark_rule(strokeDash=[4, 3]).encode(x)
labels = [
    bought.transform_filter(alt.datum.line == line)
    .transform_calculate(
        label=f"datum.family + ': ' + {SIZES[name]} + ', unspent ' + format(budget - datum.spent, ',')"
    )
    .mark_text(align="left", baseline="bottom", fontSize=13)
    .encode(x=alt.value(0), y=alt.value(-26 + 18 * line), text="label:N", color=colour)
    for line, name in enumerate(STEPS)
]
alt.layer(stairs, drop, points, *labels).add_params(slider).properties(
    description="What LoRA and CP can spend of a budget on one 2048 by 2048 projection. LoRA climbs in four high"
    " steps; CP climbs in many low ones and never leaves much unspent."
    " Above the steps stands what each makes of the budget that the slider gives.",
    width="container",
    height=320,
)

# %% [markdown]
# At the {q}`parameter_steps.shown` scalars shown first, LoRA gets rank {q}`parameter_steps.shown_size.lora` and leaves
# {q}`parameter_steps.shown_unspent.lora` unspent; CP gets {q}`parameter_steps.shown_size.cp` components and leaves
# {q}`parameter_steps.shown_unspent.cp`. At worst a family leaves one scalar less than a step:
# {q}`parameter_steps.waste.lora` here, {q}`parameter_steps.waste.cp` there. And below {q}`parameter_steps.step.lora`
# scalars there is no LoRA at all, unless some projections go without.
#
# ## The ladder
#
# The same sizes as marks on a ruler, up to LoRA's third rank. A third family stands between the two: PEFT's LoKr
# {cite:p}`yeh2024lycoris,peft` with `decompose_both=True`, which at rank one builds its update from the same four
# short vectors without the weight. Its sizes are counted by PEFT itself, on one `nn.Linear`.

# %%
lokr_sizes = [parameter_steps.lokr_scalars(rank, 2048, 2048) for rank in parameter_steps.LOKR_RANKS]
lokr_sizes[0], max(lokr_sizes)

# %% tags=["hide-input"]
TOP = 3 * lora_step
NAMES = {name: charts.family_name(name) for name in (*STEPS, "lokr")}
COLOURS = charts.family_colours()
sizes = {
    "lora": [k * lora_step for k in range(1, TOP // lora_step + 1)],
    "lokr": sorted(set(lokr_sizes)),
    "cp": [k * cp_step for k in range(1, TOP // cp_step + 1)],
}
rungs = pd.DataFrame(
    {"family": NAMES[name], "size": k, "scalars": scalars}
    for name, of_family in sizes.items()
    for k, scalars in enumerate(of_family, start=1)
)
ladder_colour = alt.Color(
    "family:N",
    legend=None,
    scale=alt.Scale(domain=[NAMES[name] for name in sizes], range=[COLOURS[name] for name in sizes]),
)
alt.Chart(rungs).mark_tick(thickness=1.5, size=34, opacity=1).encode(
    alt.X("scalars:Q", title="trainable scalars", scale=alt.Scale(domain=[0, TOP + 60], nice=False)),
    alt.Y("family:N", title=None, sort=[NAMES[name] for name in sizes], axis=alt.Axis(ticks=False, domain=False)),
    ladder_colour,
    tooltip=["family", "size", alt.Tooltip("scalars", format=",")],
).properties(
    description="The sizes that exist on one 2048 by 2048 projection up to LoRA's third rank: three marks for LoRA,"
    " a dense row for CP, and for LoKr a row as dense that ends a little above LoRA's first rank.",
    width="container",
    height=150,
)

# %% [markdown]
# Between two neighbouring ranks of LoRA lie {q}`parameter_steps.between.least` sizes of CP, here and there
# {q}`parameter_steps.between.most`. LoKr starts with a step of {q}`parameter_steps.other_step.lokr`, one scalar less
# than CP's: it has no weight $\lambda$. Its row ends at {q}`parameter_steps.lokr_end` scalars, reached at rank
# {q}`parameter_steps.lokr_end_rank`, because from some rank on PEFT stores its two small matrices whole; another
# `decompose_factor` goes further.
#
# Two more that PEFT has go down to single scalars, counted over three linear maps at once: TinyLoRA {cite:p}`tinylora`
# trains a vector that all of them may share, Uni-LoRA {cite:p}`unilora` one vector for the whole model. The vector's
# length is free, and whatever else they need is frozen.

# %%
table(parameter_steps.vector_table())

# %% [markdown]
# Their step is {q}`parameter_steps.other_step.tinylora` and {q}`parameter_steps.other_step.unilora`. So a small step
# by itself is nothing rare, and which of these families makes good use of its scalars is a question for measurements.
#
# ## Other shapes
#
# LoRA's step grows with the sides of a projection, CP's with their square roots. On an $n \times n$ projection that
# splits evenly the ratio is $2n / (4\sqrt n + 1)$, close to $\sqrt n / 2$: the wider the model, the finer CP's steps
# beside LoRA's.

# %%
table(parameter_steps.shape_table())

# %% [markdown]
# The step is a choice, too. cpadapt splits a side in two parts, as near to a square as it goes, which is what the
# paper does with `2048×2048`; `tensor_shape` splits it otherwise, and more parts make shorter vectors:

# %%
table(parameter_steps.split_table())

# %% [markdown]
# The shapes above have ratios from {q}`parameter_steps.ratio_of_shapes.least` to
# {q}`parameter_steps.ratio_of_shapes.most`, with {q}`parameter_steps.ratio` on `2048×2048`; the splits below them have
# steps from {q}`parameter_steps.step_of_splits.least` to {q}`parameter_steps.step_of_splits.most`. A shorter vector
# can say less, so these are different adapters and not the same one at a discount. The paper tried other splits too
# and found that they changed little (second-hand); on SST-2 [they differ by less than a point](tensorization.ipynb)
# here, at one budget and rate.
#
# ## Whole models
#
# An adapter goes on many projections, and all of them get the same size. So the step over a model is the sum over its
# target modules, here PEFT's defaults for LoRA: queries and values. The shapes come from the models' configurations;
# no weights are loaded. Adam keeps two float32 moments a scalar, which is what one step costs in memory beside the
# gradient and the scalar itself.

# %%
table(parameter_steps.model_table())

# %% [markdown]
# On OPT-1.3B, with its {q}`parameter_steps.opt_projections` projections, a rank adds
# {q}`parameter_steps.opt_step.lora` scalars and {q}`parameter_steps.opt_state.lora|2` MiB of Adam's state, a component
# {q}`parameter_steps.opt_step.cp` and {q}`parameter_steps.opt_state.cp` MiB: the paper's own figures (second-hand).
# {says}`claims.figures_alike == claims.figures_counted`
#
# `cpadapt plan` goes the other way: what fits a budget. On SmolLM2-135M, a little less than LoRA's first rank asks
# for:

# %%
smollm2 = cpadapt.load_projections("smollm2")
offers = pd.DataFrame(counting.rows(counting.plan(smollm2, LITTLE)), dtype=object)
offers = offers.drop(columns=["adam_bytes", "file_bytes", "smallest_cost"])
table(offers.map(lambda value: f"{value:,}" if isinstance(value, int) else value).fillna(""))

# %% [markdown]
# {q}`parameter_steps.little` scalars buy LoRA rank {q}`parameter_steps.little_size.lora`, so nothing, and
# {q}`parameter_steps.little_size.cp` components of CP for {q}`parameter_steps.little_spent`.
#
# A step over a whole model is as high as it is because every projection gets the same size. PEFT's `rank_pattern`
# gives one projection another rank than the others, and then LoRA too is sized in steps of a single projection:

# %%
two = [(2048, 2048)] * 2
uneven = LoraConfig(r=1, rank_pattern={"0": 2})
[parameter_steps.trainable(config, *two) for config in (LoraConfig(r=1), uneven, LoraConfig(r=2))]

# %% [markdown]
# One rank on one projection alone is a step of {q}`parameter_steps.uneven_step`, less than a component on all of
# OPT-1.3B. *LoRA's step* in the paper, and in this book, is that of LoRA at one rank everywhere.
#
# ## What a finer step is worth
#
# It lets one look. Where accuracy rises with the budget, and where it stops, can be seen only where there are sizes to
# measure; LoRA has none below its first rank and no second look before its second. That is the use the paper makes of
# it: its grid on OPT-1.3B has these sizes (second-hand), on a logarithmic ruler.
# {says}`parameter_steps.grid.cp == 13 and parameter_steps.grid_below == 6`

# %% tags=["hide-input"]
opt = parameter_steps.projections("opt-1.3b")
measured = pd.DataFrame(
    {"family": NAMES[name], "size": k, "scalars": counting.count(name, opt, k)}
    for name in ("lora", "cp")
    for k in GRID[name]
)
alt.Chart(measured).mark_tick(thickness=3, size=30, opacity=1).encode(
    alt.X(
        "scalars:Q",
        title="trainable scalars on OPT-1.3B",
        scale=alt.Scale(type="log", domain=[8000, 2_000_000], nice=False),
        axis=alt.Axis(values=[10_000, 100_000, 1_000_000], format="~s"),
    ),
    alt.Y("family:N", title=None, sort=["LoRA", "CP"], axis=alt.Axis(ticks=False, domain=False)),
    ladder_colour,
    tooltip=["family", "size", alt.Tooltip("scalars", format=",")],
).properties(
    description="The sizes that the paper measured on OPT-1.3B, on a logarithmic axis: LoRA at six ranks, CP at"
    " thirteen sizes, of which six lie below LoRA's first rank.",
    width="container",
    height=110,
)

# %% [markdown]
# More points are also more chances. The paper reports the best accuracy at or under a budget,
# $U(B) = \max \{A(k) : P(k) \le B\}$, and calls it descriptive only; rightly, since a maximum over more points is
# higher even where no point is better. Suppose that all sizes were equally good, and each measured with an independent
# normal error of one standard error. The best of $n$ would then be expected to lie above the truth by
#
# $$\int_{-\infty}^{\infty} x \, n \, \varphi(x) \, \Phi(x)^{n - 1} \, dx$$
#
# standard errors, where $\varphi$ and $\Phi$ are the normal density and distribution function.


# %%
table(parameter_steps.chance_table())

# %% [markdown]
# For every budget that is a LoRA rank of the grid: how many points lie at or under it, and by how many standard errors
# CP's best would be ahead if nothing but chance were at work. The grid has {q}`parameter_steps.grid.cp` points of CP
# and {q}`parameter_steps.grid.lora` of LoRA, {q}`parameter_steps.grid_ratio` times as many. At LoRA's first rank CP
# may choose among {q}`parameter_steps.grid_under.first` and LoRA has its one: a head start of
# {q}`parameter_steps.ahead_by_chance.first` standard errors. At the last, {q}`parameter_steps.grid_under.last` stand
# against {q}`parameter_steps.grid.lora` (the largest CP of the grid costs a little more) and it shrinks to
# {q}`parameter_steps.ahead_by_chance.last`. Real sizes are neither equally good nor measured independently, so this
# corrects nothing; it says how large a lead has to be before it says anything. A comparison at matched budgets, point
# against point, has no such head start.
#
# Finer does not mean better. The paper concludes that finer steps diagnose how sensitive a task is to the budget, and
# do not by themselves guarantee a better curve of accuracy against it. What our own measurements say is in [the first
# frontiers](first_frontiers.ipynb).
#
# Next: [the CP adapter](cp_adapter.ipynb), what is in its scalars and why it merges exactly.
