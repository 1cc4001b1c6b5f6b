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
# # Tensorization: how the sides are split
#
# **At one budget, does it matter into which parts CP splits the sides of a projection?**
#
# On SmolLM2-135M-Instruct, dequantized from four bits, at one budget and ten times the paper's rate, with
# {q}`tensorization.seeds` {term}`seeds <seed>` on one draw of the examples, on SST-2 the worst of
# {q}`noise.draws_known`, all {q}`tensorization.splits` other splits tried are shown to lie within a point of the
# default on SST-2 (differences of {q}`tensorization.difference.sst2.least|signed` to
# {q}`tensorization.difference.sst2.most|signed` points), and on RTE all have a lower mean than the same runs of the
# default ({q}`tensorization.difference.rte.least|signed` to {q}`tensorization.difference.rte.most|signed`), but no
# difference is {term}`clear` and none is shown to be within a point. At the paper's rates and with
# {q}`tensorization.few_seeds` seeds {q}`tensorization.clear` of {q}`tensorization.pairs` differences on three tasks is
# clear, and after correction {q}`tensorization.alike` is shown to be within a point, so what the paper says of splits,
# that they change little, is neither shown nor contradicted there.
# {says}`tensorization.alike_p.sst2.most < 0.05`
# {says}`tensorization.difference.rte.most < 0`
# {says}`tensorization.clear_p.rte > 0.05 and tensorization.alike_p.rte.least > 0.05`
# {says}`tensorization.clear == 'none' and tensorization.alike == 'none'`

# %%
from companion import contrasts, tensorization
from companion.claims import MARGIN
from cpadapt.analysis import charts

charts.enable()

# %% [markdown]
# ## What a split changes
#
# The projections of SmolLM2-135M have sides of {q}`tensorization.side.longer` and {q}`tensorization.side.shorter`.
# CP takes each side as a product and stores one short vector a part ([the CP adapter](cp_adapter.ipynb)). So a split
# changes what a {term}`component` costs, over all layers, and how many of them a {term}`budget` holds:

# %% tags=["hide-input"]
charts.table(tensorization.split_table())

# %% [markdown]
# The first is the default, the parts as near to each other as they go. Parts that are further apart cost more; three
# parts cost about half, and buy nearly twice as many components, each of a more special form: a vector as long as the
# side is then the product of three short ones. The {term}`rank` of an update is at most the number of components, so
# at one budget three parts allow the highest one.
# {says}`tensorization.step.cp < tensorization.step.cp_18x32 < tensorization.step.cp_16x36`
# {says}`tensorization.step.cp_16x36 < tensorization.step.cp_12x48`
# {says}`0.45 < tensorization.step.cp_8x8x9 / tensorization.step.cp < 0.55`
# {says}`1.8 < tensorization.components.smaller.cp_8x8x9 / tensorization.components.smaller.cp < 2`
# {says}`1.8 < tensorization.components.larger.cp_8x8x9 / tensorization.components.larger.cp < 2`
# {says}`max(tensorization.components) == tensorization.components.larger.cp_8x8x9 < tensorization.side.shorter`
#
# ## At the paper's rate
#
# Each split minus the default at the nearest budget, in points, under [the paper's protocol](protocol.ipynb). Dashed
# is a point on either side of none.

# %% tags=["hide-input"]
known = tensorization.differences(tensorization.AT_PAPERS)
charts.interval_chart(known, "split − default, points", MARGIN)

# %% [markdown]
# *Holm* is the p value of no difference, corrected over a task's; *alike* that of a difference of a point or more,
# uncorrected.

# %% tags=["hide-input"]
charts.table(contrasts.contrast_table(known, "task", "split"))

# %% [markdown]
# {q}`tensorization.few_seeds` seeds cannot say more. On BoolQ adapters learn little at this rate
# ([BoolQ](boolq.ipynb)), so there is little in which splits could differ.
# {says}`tensorization.boolq_over_majority.low < 0`
#
# ## At ten times the rate, with more seeds
#
# The larger of the two budgets again, with {q}`tensorization.seeds` seeds of each split and the same of the default,
# which is one of the [key cells](noise.ipynb), at the highest rate tried at which no run of the default ends with a
# training loss above the readout's ([the learning rate](rates.ipynb)):

# %% tags=["hide-input"]
well = tensorization.differences(tensorization.WITH_SEEDS)
charts.interval_chart(well, "split − default, points", MARGIN)

# %% tags=["hide-input"]
charts.table(contrasts.contrast_table(well, "task", "split"))

# %% [markdown]
# So on SST-2, at this budget and rate, none of the splits tried needs to be preferred for its accuracy, and each may
# be taken for the {term}`parameter step` that it gives. But on the items that eval asks accuracy hardly depends on the
# number of components there either ([seeds and items](noise.ipynb)), and where nothing matters a split cannot.
# {says}`noise.alike_over_seeds.sst2.cp44_cp1 < 0.05`
#
# On RTE components seem to pay on this draw, and there it is open. All {q}`tensorization.splits` splits have a lower
# mean than the default, but all are compared with the same runs of it, so that they are not
# {q}`tensorization.splits` witnesses. On their average they lie {q}`tensorization.rte_apart|signed` points from it
# (ninety-five percent, {q}`tensorization.rte_apart|interval|signed`), which may be nothing and may be more than a
# point. Its error is {q}`tensorization.rte_apart_error` points; {q}`tensorization.rte_apart_error_limit` of it would
# remain with no end of seeds, for RTE's few items ([seeds and items](noise.ipynb)), so more seeds would still tell
# more. BoolQ with all of its examples, where components do pay ([the readout](readout.ipynb)) and items are many, is
# not measured with other splits.
# {says}`noise.over_seeds.rte.cp44_cp1.low > 0`
# {says}`-2 < tensorization.rte_apart.low < -1 < 0 < tensorization.rte_apart.high`
# {says}`tensorization.rte_apart_error_limit < tensorization.rte_apart_error / 2`
# {says}`readout.verdict.all.cp_gains.head == 'holds'`
#
# Next: [an encoder with all examples](encoder.ipynb).
