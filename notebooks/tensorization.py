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
# # On SST-2 any split will do
#
# **Does it matter into which parts CP splits the sides of a projection?**
#
# On SST-2 it doesn't: all {q}`tensorization.splits` other splits are within a point of the default. On RTE we can't
# tell.
# {says}`tensorization.alike_p.sst2.most < 0.05`
# {says}`tensorization.clear_p.rte > 0.05 and tensorization.alike_p.rte.least > 0.05`
#
# SmolLM2-135M-Instruct, dequantized from four bits, with {q}`tensorization.seeds|unit` of each split at one budget and
# one draw of the examples, on SST-2 the worst of {q}`noise.draws_known`.

# %% mystnb={"figure": {"caption": "Splits minus the default; 95 % intervals, dashed a point."}} tags=["remove-input"]
from companion import contrasts, tensorization
from companion.claims import MARGIN
from cpadapt.analysis import charts

charts.enable()
well = tensorization.differences(tensorization.WITH_SEEDS)
apart = charts.interval_chart(well, "split − default, points", MARGIN)
apart.properties(title="Within a point on SST-2")

# %% mystnb={"code_prompt_show": "p values", "code_prompt_hide": "p values"} tags=["remove-input", "hide-output"]
charts.table(contrasts.contrast_table(well, "task", "split"))

# %% [markdown]
# ## What a split changes
#
# This model's projections have sides of {q}`tensorization.side.longer` and {q}`tensorization.side.shorter`. CP takes a
# side as a product, and stores a short vector for each part ([the CP adapter](cp_adapter.ipynb)). So a split decides
# what a {term}`component` costs:

# %% tags=["remove-input"]
charts.table(tensorization.split_table())

# %% [markdown]
# The first is the default, its parts as near to each other as they go. Parts further apart cost more. Three parts cost
# about half, and buy nearly twice as many components, each of a more special form.
# {says}`tensorization.step.cp < tensorization.step.cp_18x32 < tensorization.step.cp_16x36`
# {says}`tensorization.step.cp_16x36 < tensorization.step.cp_12x48`
# {says}`0.45 < tensorization.step.cp_8x8x9 / tensorization.step.cp < 0.55`
# {says}`1.8 < tensorization.components.smaller.cp_8x8x9 / tensorization.components.smaller.cp < 2`
# {says}`1.8 < tensorization.components.larger.cp_8x8x9 / tensorization.components.larger.cp < 2`
#
# ## At the paper's rate
#
# The runs above have ten times the paper's rate. At the paper's own, with {q}`tensorization.few_seeds|unit`,
# {q}`tensorization.clear` of {q}`tensorization.pairs` differences on three tasks is {term}`clear`, and
# {q}`tensorization.alike` is shown to be within a point. The paper says that splits change little. These runs neither
# show nor contradict it.
# {says}`tensorization.clear == 'none' and tensorization.alike == 'none'`

# %% mystnb={"code_prompt_show": "Differences", "code_prompt_hide": "Differences"} tags=["remove-input", "hide-output"]
charts.table(contrasts.contrast_table(tensorization.differences(tensorization.AT_PAPERS), "task", "split"))

# %% [markdown]
# ## How sure?
#
# On SST-2 the number of components hardly matters either ([how sure can one be?](how_sure.ipynb)), and where nothing
# matters a split can't. On RTE the other splits lie {q}`tensorization.rte_apart` points from the default on average
# ({q}`tensorization.rte_apart|interval`): nothing, or more than a point. All of BoolQ, where
# [size pays](when_size_pays.ipynb), isn't measured with other splits.
# {says}`noise.alike_over_seeds.sst2.cp44_cp1 < 0.05`
# {says}`-2 < tensorization.rte_apart.low < -1 < 0 < tensorization.rte_apart.high`
#
# **For you**: keep the default, or take the split whose {term}`parameter step` fits your budget.
#
# Next: [the verdicts in full](verdicts.ipynb).
