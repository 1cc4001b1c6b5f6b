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
# # What moves a run: weights, order, draw, items
#
# **How much of one run's luck is its initial weights, the order of its examples, their draw, and the items?**
#
# On SmolLM2-135M-Instruct, dequantized from four bits, on SST-2 and with no end of items, initial weights would move
# one accuracy by a standard deviation of {q}`causes.part.sst2.weights` points, the order of the examples by
# {q}`causes.part.sst2.order` and what is left to the two together by {q}`causes.part.sst2.together`, on the average
# over adapters; on RTE, with no end of items, nothing is shown of weights, order and draw, but on the items that are
# asked the order moves the adapters' mean ({q}`causes.asked.rte.all.order` points, p is
# {q}`causes.asked_p.rte.all.order`), and on SST-2 {q}`causes.draws|unit` are not told apart by adapters, but the one
# that all studies share is {q}`causes.shared_below` points below them. The larger part of what sets runs apart is
# chance on the few items that are asked ({q}`causes.part.sst2.chance` points on SST-2 and {q}`causes.part.rte.chance`
# on RTE), which items these are moves all runs alike by about as much as sets them apart ({q}`causes.part.sst2.items`
# and {q}`causes.part.rte.items`), and the same run in another {term}`bank`, where sums are rounded otherwise, lies
# elsewhere, with a standard deviation of {q}`causes.again.sst2` and {q}`causes.again.rte`.
# {says}`causes.part.rte.weights == 0 and causes.part.rte.order == 0 and causes.clear.rte == 0`
# {says}`causes.asked_holm.rte.all.order < 0.05`
# {says}`all(causes.draw.sst2.low == 0) and causes.draw.rte.all.low == 0`
# {says}`causes.shared_below > 3 * causes.draws_sd`
# {says}`causes.part.sst2.chance > 0.7 * causes.apart.sst2`
# {says}`causes.part.rte.chance > 0.7 * causes.apart.rte`
# {says}`0.9 < causes.part.sst2.items / causes.apart.sst2 < 1.1`
# {says}`0.9 < causes.part.rte.items / causes.apart.rte < 1.1`

# %%
from companion import causes
from cpadapt.analysis import charts

charts.enable()

# %% [markdown]
# ## Causes are crossed to be told apart
#
# A {term}`seed` draws two things, an adapter's initial weights and the order of its examples, and with one number for
# both nothing tells which of them made a run good. So `studies/smollm2-orders.toml` trains each of {q}`causes.starts`
# initial weights with each of {q}`causes.orders` orders, on the draw of the examples that all studies share. All runs
# are asked the same items, and an analysis of variance of weights, orders and items
# ([`cpadapt.analysis.statistics`](../book/api.md)) gives five parts, which add up:
#
# - *weights* and *order*: what is good about some initial weights whatever the order, or the other way round, on any
#   items;
# - *together*: what is good about a pair of them and about neither alone; each pair was trained once, so that what
#   rounding does to a run (below) is in it, and in *chance* too;
# - *chance*: a run gets an item right that another gets wrong, and on other items it would be other runs that are
#   lucky; a part of it comes again with the weights or with the order (below);
# - *items*: what all runs share, because these are the items that are asked.
#
# Adapters, rates and steps are those of the cells with [many seeds](noise.ipynb).

# %% tags=["hide-input"]
charts.part_chart(causes.parts({"sst2": causes.of_task("sst2")}))

# %% tags=["hide-input"]
charts.part_chart(causes.parts({"rte": causes.of_task("rte")}))

# %% [markdown]
# The square roots of these variances on SST-2, in points, with those of the mean of these adapters, which an order
# moves as far as it moves them alike, and of two differences. A dash is a part that is estimated at zero or below (the
# bars leave such parts out), and the interval says how large it may be:

# %% tags=["hide-input"]
charts.table(causes.part_table("sst2"))

# %% [markdown]
# And on RTE:

# %% tags=["hide-input"]
charts.table(causes.part_table("rte"))

# %% [markdown]
# An interval of nothing but zeros is empty: such runs are more alike than chance would have them, as happens once in
# forty where there is nothing.
# {says}`causes.effect.rte.cp1.weights.high == 0`
#
# ## Weights and order
#
# On SST-2 the order moves the mean of these adapters and LoRA's first rank, clearly after Holm's correction over a
# table's weights and orders (p is {q}`causes.effect_p.sst2.all.order` and {q}`causes.effect_p.sst2.lora1.order`). The
# weights of CP with {q}`causes.most_components` components and of the mean are clear by themselves, and not after it
# ({q}`causes.effect_p.sst2.cp44.weights|2`). On RTE nothing is, of what would be so on any items. On the average over
# adapters weights and order count about alike on SST-2, as was found for BERT {cite:p}`dodge2020fine`, and neither
# counts for as much as what is left to the two together, of which rounding may be a large part.
# {says}`max(causes.effect_p.sst2.all.order, causes.effect_p.sst2.lora1.order) < 0.05 and causes.clear.sst2 == 2`
# {says}`causes.effect.sst2.cp44.weights.low > 0 and causes.effect.sst2.all.weights.low > 0`
# {says}`abs(causes.effect_p.sst2.cp44.weights - causes.effect_p.sst2.all.weights) < 0.005`
# {says}`causes.effect_p.sst2.all.weights > 0.05`
# {says}`causes.effect.sst2.cp1.weights.low == 0 and causes.effect.sst2.cp11.weights.low == 0`
# {says}`causes.effect.sst2.lora1.weights.low == 0`
# {says}`all(causes.effect_p.rte > 0.05)`
# {says}`0.85 < causes.part.sst2.order / causes.part.sst2.weights < 1.15`
# {says}`max(causes.part.sst2.weights, causes.part.sst2.order) < causes.part.sst2.together`
#
# Ten of each tell a size only roughly. The {q}`noise.over_seeds.sst2.lora1_cp11|n` seeds say how large all of it can
# be, weights, order, both and rounding: of runs of LoRA's first rank on SST-2, {q}`causes.own_at_most` points at the
# most (the table under *Items*).
#
# On the very items that are asked, SST-2's and then RTE's, less is open: in points, and which part of chance is the
# weights' or the order's own, as it comes again with them whatever the other is.

# %% tags=["hide-input"]
charts.table(causes.asked_table("sst2"))

# %% tags=["hide-input"]
charts.table(causes.asked_table("rte"))

# %% [markdown]
# So on RTE's items the order does move the mean of these adapters, by {q}`causes.asked.rte.all.order` points (p is
# {q}`causes.asked_p.rte.all.order`, after Holm's correction over the table's weights and orders
# {q}`causes.asked_holm.rte.all.order`), and the share of items that they call by the commonest label by
# {q}`causes.order_in_answers.all` (LoRA's first rank alone by {q}`causes.order_in_answers.lora1`); weights are not
# seen to. Nor is all that is called chance here nothing but chance: of LoRA's first rank
# {q}`causes.in_chance.rte.lora1.order|unit` of it on RTE and {q}`causes.in_chance.sst2.lora1.order|unit` on SST-2 is
# the order's, and of CP with one component {q}`causes.in_chance.sst2.cp1.weights|unit` on SST-2 the weights'. Order
# moves LoRA, the start moves small CP.
# {says}`causes.asked_holm.rte.all.order < 0.05 and causes.clear_as_asked.rte == 1`
# {says}`causes.asked.rte.all.order.low > 0 and causes.asked.rte.all.weights.low == 0`
# {says}`causes.in_chance.sst2.lora1.order > causes.in_chance.sst2.lora1.weights`
# {says}`causes.in_chance.sst2.cp1.weights > causes.in_chance.sst2.cp1.order`
# {says}`causes.in_chance.rte.lora1.order > causes.in_chance.rte.lora1.weights`
# {says}`causes.in_chance.rte.cp1.weights > causes.in_chance.rte.cp1.order`
#
# ## The same run again
#
# An order that is asked for by the seed's own number makes the same run as none that is asked for. So
# {q}`causes.repeats` runs an adapter and task were trained twice, on one kind of device, from the same numbers, and in
# banks of other sizes. (Nearly all pairs are of two versions of this project, between which nothing changed that these
# runs compute.) A run's standard deviation about the mean of its like, with an interval that takes differences as
# normal:

# %% tags=["hide-input"]
charts.table(causes.again_table(["sst2", "rte"]))

# %% [markdown]
# With one component on RTE all {q}`causes.repeats` runs are the same to the last digit of their losses, which is why
# they are known to be the same runs. Elsewhere most losses differ at the first evaluation, a little, and by the end
# these are other runs, of which some took the weights of another step as the best on dev. The intervals are wide, and
# that of CP at LoRA's first budget on RTE hangs on a single pair, {q}`causes.widest` points apart. On the average over
# adapters rounding makes {q}`causes.rounding.sst2|unit` of the variance between runs of one adapter on SST-2 (95 %,
# {q}`causes.rounding.sst2|interval`) and {q}`causes.rounding.rte|unit` on RTE ({q}`causes.rounding.rte|interval`).
# {says}`causes.equal_repeats == causes.repeats`
# {says}`causes.widest_part > 85`
#
# Frozen weights and activations are in bfloat16 here, in which a number has two or three digits, and in another bank
# sums are taken over other tiles. (That the tiles are the reason is likely and not tested: no bank was trained twice
# as it is.) The bank is not wrong by that: step by step it is right to rounding ([what a run
# costs](what_a_run_costs.ipynb)). But a seed's number does not name a result in another bank. What can be reproduced
# there is a distribution, and that takes several seeds.
#
# ## Draws
#
# `studies/smollm2-data-seeds.toml` and `studies/smollm2-data-seeds-again.toml` train on each of {q}`causes.draws`
# other draws of training and dev examples with the same {q}`causes.seeds_on_each_draw` seeds. What two runs share that
# have a draw in common, and neither weights nor the order within it, is the draw's; on any items, in points:

# %% tags=["hide-input"]
charts.table(causes.draw_table(["sst2", "rte"]))

# %% [markdown]
# Among the {q}`causes.draws` no draw is shown to be better than another, for any adapter or for all: every interval
# begins at zero, and what they say is a bound. The standard deviation of a draw in the mean of these adapters is, by
# these intervals, {q}`causes.draw_at_most.sst2` points at the most on SST-2 and {q}`causes.draw_at_most.rte` on RTE,
# which may be a good part of what sets runs apart. (Where by chance a mean square falls below what it should hold,
# test and interval take the larger, so that an interval can end near its estimate. The draws of RTE are less unlike
# than they could be: two of them share about {q}`causes.draws_alike|unit` of their training examples.)
# {says}`all(causes.draw.sst2.low == 0) and all(causes.draw.rte.low == 0)`
#
# On SST-2 one draw does stand out, the one that all studies share, which is none of the {q}`causes.draws`. On these
# items its adapters, over {q}`noise.over_seeds.sst2.lora1_cp11|n` seeds, are {q}`causes.shared_below` points below the
# mean of the others, about which these have a standard deviation of {q}`causes.draws_sd`. And the readout alone, which
# is not in the table, hangs on its draw more than on its order ([seeds and items](noise.ipynb)). So draws count, and
# how much is not known well. To train each seed on a draw of its own costs no more, and then the error counts both.
# {says}`causes.shared_below > 3 * causes.draws_sd`
#
# ## Items
#
# One run that is asked other items has another accuracy, by *chance* and *items* at once:
# {q}`causes.on_other_items.sst2` points on SST-2 and {q}`causes.on_other_items.rte` on RTE, as for any share of so
# many items. *Items* by itself is what no number of runs takes away from a mean, and *chance* is what makes runs look
# unlike that are not. How unlike they are, by weights, order, both together and rounding, the [many
# seeds](noise.ipynb) tell best: what would be left of a run's standard deviation with no end of items, and its share
# of the variance between runs on these items:
# {says}`all(abs(causes.on_other_items - causes.of_a_share) < 0.03 * causes.of_a_share)`

# %% tags=["hide-input"]
charts.table(causes.own_table(["sst2", "rte", "boolq"]))

# %% [markdown]
# On the average over adapters {q}`causes.own.sst2|unit` of the variance between runs is the runs' own on SST-2,
# {q}`causes.own.rte|unit` on RTE and {q}`causes.own.boolq|unit` on BoolQ. The rest is chance: of the run of RTE that
# is best of several, most of the lead is not seen again on other items.
# {says}`max(causes.own.sst2, causes.own.rte) < 50`
#
# In a difference of two adapters on the same items most of what all runs share drops out. What is left of it, where an
# item is easier for one adapter than for the other, no number of runs takes away. Chance gets smaller by more items as
# by more runs; weights, order and both together by more runs only.
# {says}`causes.items.sst2.lora1_cp11 < min(causes.items.sst2.lora1, causes.items.sst2.cp11) / 2`
# {says}`causes.items.sst2.cp44_cp1 < min(causes.items.sst2.cp44, causes.items.sst2.cp1) / 2`
# {says}`causes.items.rte.lora1_cp11 < min(causes.items.rte.lora1, causes.items.rte.cp11) / 2`
# {says}`causes.items.rte.cp44_cp1 < min(causes.items.rte.cp44, causes.items.rte.cp1) / 2`
#
# ## What follows
#
# - An accuracy takes items: where they are few no number of seeds helps. A difference takes both ([seeds and
#   items](noise.ipynb)).
# - Do not report the best of several seeds. Most of its lead is chance, the more so the fewer items there are.
# - Do not expect a number to come again from its seed in another bank. A repetition is not shown to disagree if it
#   lies as near as another seed would.
# - Give each run a seed, an order and a draw of its own. Each may count, and none costs anything.
#
# This is of {q}`causes.adapters` adapters of one small decoder at one pair of rates, on two tasks. The draws were not
# crossed with orders, a larger model may be steadier, and rounding was seen between two layouts of banks only.
#
# Next: [the learning rate](rates.ipynb).
