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
# # How sure can one be?
#
# **What can a few seeds tell about two adapters, and what not?**
#
# Three {term}`seeds <seed>` can miss the winner: on SST-2, {q}`noise.wrong_sign.sst2.lora1_cp11|unit` of the time.
# Half a point stays out of sight on our test sets, even with {q}`noise.most_seeds` seeds.
# {says}`noise.wrong_sign.sst2.lora1_cp11 > 10 and all(how_sure.seen > 0.5)`
#
# {q}`noise.over_seeds.sst2.lora1_cp11|n` seeds, {q}`noise.items.sst2|unit`; over all of these seeds LoRA leads CP of
# equal size by {q}`noise.over_seeds.sst2.lora1_cp11|unit` ({q}`noise.over_seeds.sst2.lora1_cp11|level` interval
# {q}`noise.over_seeds.sst2.lora1_cp11|interval`). {says}`noise.over_seeds.sst2.lora1_cp11.low > 0`

# %% mystnb={"figure": {"caption": "LoRA against CP on SST-2, by three seeds at a time."}} tags=["remove-input"]
from IPython.display import HTML

from companion import noise, three_seeds
from cpadapt.analysis import charts

charts.enable()
HTML(three_seeds.form())

# %% [markdown]
# The bars are the means of all choices of three seeds. Orange ones put the wrong family ahead, or neither. The more
# often you draw, the nearer your share comes to the true one.
#
# ## What seeds can tell
#
# The chart shows the smallest true lead that a test finds four times in five. Three seeds find only leads of
# {q}`how_sure.seen.sst2.three|unit` on SST-2 and {q}`how_sure.seen.rte.three` on RTE. Ten find much smaller ones. In
# the end the test items are the limit: RTE has only {q}`noise.items.rte`.
# {says}`how_sure.seen.sst2.three > 2 * how_sure.seen.sst2.ten and how_sure.seen.rte.three > 2 * how_sure.seen.rte.ten`
# {says}`how_sure.seen.rte.thousand > 0.8 * how_sure.seen.rte.hundred`

# %% mystnb={"figure": {"caption": "More seeds help until items are the limit."}} tags=["remove-input"]
found = {task: noise.minus(noise.over_seeds(task), "lora1_cp11") for task in noise.TASKS}
charts.smallest_effect_chart(noise.smallest_effects(found, [3, 10, 30, 100, 300, 1000]), 0.005)

# %% [markdown]
# Many tasks do better than many seeds. On a larger model, over {q}`main_study.tasks|unit` with
# {q}`main_study.draws` draws of the examples each, LoRA's lead has an interval of
# {q}`main_study.primary|interval|signed` points ([at equal size](main_study.ipynb)).
# {says}`-0.2 < main_study.primary.low and main_study.primary.high < 0.2`
#
# ## A seed doesn't bring a run back
#
# We trained the same runs twice, in different {term}`banks <bank>`. A run that is repeated so varies with a standard
# deviation of {q}`causes.again.sst2|unit` on SST-2 and {q}`causes.again.rte` on RTE. Likely that's rounding: another
# bank sums in another order, and in bfloat16 small differences grow ([what moves a run](causes.ipynb)).
# {says}`causes.again.sst2 > 0.5 and causes.again.rte > 1`
#
# ## Other examples
#
# All these seeds share one draw of the training examples. On SST-2 it's the worst of {q}`noise.draws_known`:
# accuracies there are {q}`causes.shared_below|unit` below those of other draws. The lead is the same on others,
# {q}`noise.over_draws.sst2.lora1_cp11|full` over {q}`noise.over_draws.sst2.lora1_cp11|n` draws. A draw for each seed
# costs nothing, and the error then covers both ([errors in full](noise.ipynb)).
# {says}`noise.shared_draw < noise.other_draws.least`
# {says}`noise.on_the_shared_draw.lora1_cp11.low < 0 < noise.on_the_shared_draw.lora1_cp11.high`
# {says}`abs(noise.over_draws.sst2.lora1_cp11 - noise.over_seeds.sst2.lora1_cp11) < 0.1`
#
# ## How sure?
#
# These are runs of one small model, SmolLM2-135M-Instruct, dequantized from four bits, at one pair of rates. A larger
# model may vary less. The chart takes the measured variances for the true ones.
#
# **For you**: with three seeds and a test set like SST-2's, call a lead below {q}`how_sure.seen.sst2.three|0|unit` a
# tie, and add tasks and test items before you add seeds.
#
# Next: [the paper's claims](claims.ipynb).
