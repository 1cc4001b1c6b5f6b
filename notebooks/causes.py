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
# # Luck on the items moves a run most
#
# **What makes one run better than another?**
#
# The test items, mostly: which ones are asked, and which of them a run happens to get right. That luck alone moves a
# run by {q}`causes.part.sst2.chance|1|unit` on SST-2; initial weights and the order of the examples each move it by
# {q}`causes.part.sst2.weights|1`.
# {says}`causes.part.sst2.chance > 2 * max(causes.part.sst2.weights, causes.part.sst2.order)`
# {says}`causes.part.rte.chance > 1 and max(causes.part.rte.weights, causes.part.rte.order) == 0`
# {says}`causes.part.sst2.chance > 0.7 * causes.apart.sst2 and causes.part.rte.chance > 0.7 * causes.apart.rte`
#
# {q}`causes.starts` initial weights, each trained with {q}`causes.orders` orders of the same examples, for four
# adapters of SmolLM2-135M-Instruct, dequantized from four bits, at the rates of the [many seeds](noise.ipynb).

# %% mystnb={"figure": {"caption": "How far each cause moves one run of an adapter."}} tags=["remove-input"]
from companion import causes
from cpadapt.analysis import charts

charts.enable()
charts.part_chart(causes.parts(["sst2", "rte"]))

# %% [markdown]
# A {term}`seed` decides the initial weights and the order at once; crossing them tells them apart. Read the bars so:
#
# - *Luck on items*: a run gets an item right that another gets wrong. On other items, others would be lucky.
# - *Initial weights* and *order* of the examples: what makes a run better on any items. *Weights with order* is what
#   only a pair of them does.
# - *Another bank*: the same run trained again, beside other runs. This is a part of the bars above it.
# - *Items asked*: what all runs share, and no number of seeds removes.
#
# Where there's no bar, nothing was seen; that doesn't mean that there is nothing.
#
# ## Weights and order
#
# On SST-2 the order clearly moves the mean of the adapters, and the weights less clearly. On average over adapters the
# two count about alike, as was found for BERT {cite:p}`dodge2020fine`. On RTE neither is seen on items at large. On
# the items that are asked, the order moves the adapters' mean by {q}`causes.asked.rte.all.order|1|unit`.
# {says}`causes.effect_p.sst2.all.order < 0.05 < causes.effect_p.sst2.all.weights`
# {says}`causes.effect.sst2.all.weights.low > 0`
# {says}`0.85 < causes.part.sst2.order / causes.part.sst2.weights < 1.15 and causes.part.sst2.order < 0.35`
# {says}`all(causes.effect_p.rte > 0.05) and causes.clear.rte == 0 and causes.clear.sst2 == 2`
# {says}`causes.asked_holm.rte.all.order < 0.05 and causes.clear_as_asked.rte == 1`

# %% mystnb={"code_prompt_show": "On SST-2", "code_prompt_hide": "On SST-2"} tags=["remove-input", "hide-output"]
charts.table(causes.part_table("sst2"))

# %% mystnb={"code_prompt_show": "On RTE", "code_prompt_hide": "On RTE"} tags=["remove-input", "hide-output"]
charts.table(causes.part_table("rte"))

# %% mystnb={"code_prompt_show": "SST-2 items", "code_prompt_hide": "SST-2 items"} tags=["remove-input", "hide-output"]
charts.table(causes.asked_table("sst2"))

# %% mystnb={"code_prompt_show": "RTE items", "code_prompt_hide": "RTE items"} tags=["remove-input", "hide-output"]
charts.table(causes.asked_table("rte"))

# %% [markdown]
# Standard deviations are in points, and a dash is a part of which nothing was seen. The last two tables are of the
# very items that are asked; *in chance* is the share of the luck that comes back with the same weights or order.
#
# ## The same run in another bank
#
# We trained {q}`causes.repeats` runs an adapter and task twice, from the same numbers, in {term}`banks <bank>` of
# different size. CP with one component on RTE came back exactly. Elsewhere most losses differ a little at the first
# evaluation, and by the end these are other runs. Of the variance between runs of one adapter this makes
# roughly {q}`causes.rounding.sst2|unit` on SST-2 and {q}`causes.rounding.rte|unit` on RTE.
# {says}`causes.equal.rte.cp1 == causes.repeats`
# {says}`causes.rounding.sst2.low > 0 and causes.rounding.rte.low > 0`
#
# The cause is likely rounding: numbers are in bfloat16, and another bank sums them in other groups. Each step is right
# to rounding ([what a run costs](what_a_run_costs.ipynb)). So a seed doesn't name a result; a distribution over seeds
# does.

# %% mystnb={"code_prompt_show": "Pairs", "code_prompt_hide": "Pairs"} tags=["remove-input", "hide-output"]
charts.table(causes.again_table(["sst2", "rte"]))

# %% [markdown]
# **What repeats.** On a CPU the same bank gives the same numbers, to the bit, in any process. In another bank a
# trained scalar differs by {q}`causes.repeat_weights.cpu.other` at most, and no answer does; in bfloat16 it is
# {q}`causes.repeat_weights.cpu_half.other|3`, and a few answers. The cause is attention, which pads to the longest
# text of a row. Padded to one length, runs are equal to the bit in every bank. Summing the backbone's products in
# other ways doesn't make them so.
# {says}`causes.repeat_equal.cpu.as_it_is == causes.repeat_compared.cpu.as_it_is`
# {says}`causes.repeat_equal.cpu.other < causes.repeat_compared.cpu.other and causes.repeat_answers.cpu.other == 0`
# {says}`causes.repeat_equal.cpu.one_length == causes.repeat_compared.cpu.one_length`
# {says}`causes.repeat_equal.cpu.by_run < causes.repeat_compared.cpu.by_run`
# {says}`causes.repeat_equal.cpu.exact < causes.repeat_compared.cpu.exact`
# {says}`causes.repeat_equal.cpu_half.as_it_is == causes.repeat_compared.cpu_half.as_it_is`
# {says}`causes.repeat_equal.cpu_half.one_length == causes.repeat_compared.cpu_half.one_length`
# {says}`causes.repeat_equal.cpu_half.by_run < causes.repeat_compared.cpu_half.by_run`
# {says}`causes.repeat_equal.cpu_half.exact < causes.repeat_compared.cpu_half.exact`
# {says}`0 < causes.repeat_answers.cpu_half.other < 1`
#
# On a GPU in bfloat16 the same bank gave the same numbers in another process too. In another bank a trained scalar
# differs by {q}`causes.repeat_weights.gpu.other|3` at most, and no answer does. Nothing is padded there, and making
# the backbone's products in float64 or run by run doesn't make runs equal either. So other sums are rounded
# differently; which, we haven't found.
# {says}`causes.repeat_answers.gpu.other == 0`
# {says}`causes.repeat_equal.gpu.as_it_is == causes.repeat_compared.gpu.as_it_is`
# {says}`causes.repeat_equal.gpu.deterministic == causes.repeat_compared.gpu.deterministic`
# {says}`causes.repeat_equal.gpu.other == causes.repeat_equal.gpu.exact == causes.repeat_equal.gpu.by_run == 0`
# {says}`causes.repeat_equal.gpu.fused == 0`
#
# `cpadapt run --deterministic` promises the same for the same bank on the same kind of GPU. These LoRA and CP runs
# were equal without it too; with it a step takes {q}`causes.repeat_slower.gpu` times as long.

# %% mystnb={"code_prompt_show": "Repeats", "code_prompt_hide": "Repeats"} tags=["remove-input", "hide-output"]
charts.table(causes.repeat_table())

# %% [markdown]
# These are short trainings of a few runs: a bank again, in another process, and two runs alone and in other banks. A
# run is *equal* if its weights, logits and answers are, to the bit. The largest difference of a trained scalar and of
# a logit stands beside. Answers are those of the best step on dev, which rounding can change; with products in float64
# it did so once. {says}`causes.repeat_answers.gpu.exact > 10`
#
# ## Draws of the examples
#
# On {q}`causes.draws` other draws, with {q}`causes.seeds_on_each_draw|unit` each, no draw is shown to be better than
# another. A draw moves the adapters' mean by {q}`causes.draw_at_most.sst2|1` points at most on SST-2 and by
# {q}`causes.draw_at_most.rte|1` on RTE. One draw does stand out on SST-2, the one that all other studies share: its
# adapters are {q}`causes.shared_below|unit` below the others, which spread with a standard deviation of
# {q}`causes.draws_sd|1`. {says}`all(causes.draw.sst2.low == 0) and all(causes.draw.rte.low == 0)`
# {says}`causes.shared_below > 3 * causes.draws_sd`

# %% mystnb={"code_prompt_show": "Draws", "code_prompt_hide": "Draws"} tags=["remove-input", "hide-output"]
charts.table(causes.draw_table(["sst2", "rte"]))

# %% [markdown]
# ## What is a run's own
#
# How unlike runs would be on endlessly many items, the [many seeds](noise.ipynb) tell best. Of the variance between
# runs {q}`causes.own.sst2|unit` would stay on SST-2, {q}`causes.own.rte|unit` on RTE and {q}`causes.own.boolq|unit` on
# BoolQ. The rest is luck, so most of the lead of the best of several seeds isn't seen again on other items. In a
# difference on the same items, most of what all runs share drops out.
# {says}`max(causes.own.sst2, causes.own.rte, causes.own.boolq) < 50`
# {says}`causes.items.sst2.lora1_cp11 < min(causes.items.sst2.lora1, causes.items.sst2.cp11) / 2`
# {says}`causes.items.sst2.cp44_cp1 < min(causes.items.sst2.cp44, causes.items.sst2.cp1) / 2`
# {says}`causes.items.rte.lora1_cp11 < min(causes.items.rte.lora1, causes.items.rte.cp11) / 2`
# {says}`causes.items.rte.cp44_cp1 < min(causes.items.rte.cp44, causes.items.rte.cp1) / 2`

# %% mystnb={"code_prompt_show": "Own part", "code_prompt_hide": "Own part"} tags=["remove-input", "hide-output"]
charts.table(causes.own_table(["sst2", "rte", "boolq"]))

# %% [markdown]
# ## How sure?
#
# Ten of each cause tell its size only roughly, and this is one small model at one pair of rates, on two tasks. Draws
# weren't crossed with orders. Rounding was seen between two layouts of banks only.
#
# **For you**: don't report the best of several seeds, and give each run a seed and a draw of its own.
#
# Next: [the readout](readout.ipynb).
