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
# On SST-2 and with no end of items, initial weights would move one accuracy by a standard deviation of
# {glue:text}`sst2_weights` points, the order of the examples by {glue:text}`sst2_order` and the two together by
# {glue:text}`sst2_together`, on the average over adapters, and of weights, order and draw on RTE, and of the draw on
# SST-2, nothing is shown. The larger part of what sets runs apart is chance on the few items that are asked
# ({glue:text}`sst2_chance` points on SST-2 and {glue:text}`rte_chance` on RTE), which items these are moves all runs
# alike by about as much as sets them apart ({glue:text}`sst2_items` and {glue:text}`rte_items`), and some of what sets
# them apart is no cause at all: the same run in another {term}`bank`, where sums are rounded otherwise, moves by
# {glue:text}`sst2_again` and {glue:text}`rte_again`.

# %%
import math

import numpy as np
from myst_nb import glue

from cpadapt import causes, charts, contrasts
from cpadapt.protocol import HEAD
from cpadapt.statistics import crossed_effects
from cpadapt.wording import percent

charts.enable()

# %%
runs = {task: causes.measured(task) for task in ("sst2", "rte")}
twice = {task: causes.trained_twice(task) for task in runs}

# %% [markdown]
# ## Causes are crossed to be told apart
#
# A {term}`seed` draws two things, an adapter's initial weights and the order of its examples, and with one number for
# both nothing tells which of them made a run good. So `studies/smollm2-orders.toml` trains each of
# {glue:text}`starts` initial weights with each of {glue:text}`orders` orders, on the draw of the examples that all
# studies share. All runs are asked the same items, and an analysis of variance of weights, orders and items
# ([`cpadapt.statistics`](../book/api.md)) gives five parts, which add up:
#
# - *weights* and *order*: what is good about some initial weights whatever the order, or the other way round, on any
#   items;
# - *together*: their interaction, what is good about a pair of them and about neither alone;
# - *chance*: a run gets an item right that another gets wrong, by its weights, its order or both, and on other items
#   it would be other runs that are lucky;
# - *items*: what all runs share, because these are the items that are asked.
#
# Adapters, rates and steps are those of the cells with [many seeds](noise.ipynb).

# %% tags=["hide-input"]
charts.part_chart(causes.parts({"sst2": runs["sst2"]}))

# %% tags=["hide-input"]
charts.part_chart(causes.parts({"rte": runs["rte"]}))

# %% [markdown]
# The square roots of these variances on SST-2, in points, with those of the mean of these adapters, which an order
# moves as far as it moves them alike, and of two differences. A dash is a part that is estimated at zero or below, and
# the interval says how large it may be:

# %% tags=["hide-input"]
charts.table(causes.part_table(runs["sst2"]))

# %% [markdown]
# And on RTE:

# %% tags=["hide-input"]
charts.table(causes.part_table(runs["rte"]))

# %% [markdown]
# ## Weights and order
#
# On SST-2 the order moves LoRA's first rank, and the mean of the adapters; both are clear after Holm's correction over
# a table's weights and orders. No adapter's weights are, and on RTE nothing is. On the average over adapters weights
# and order count about alike on SST-2, as was found for BERT {cite:p}`dodge2020fine`, and neither counts
# for as much as their interaction. Ten of each tell a size only roughly: by its interval LoRA's order may be worth
# {glue:text}`lora_order_low` points or {glue:text}`lora_order_high`. These ten orders may also be wider apart than
# orders are. In the hundred seeds of SST-2, where adapters of one seed share the order, their runs correlate by
# {glue:text}`seen_r` on the average, and these orders would make it {glue:text}`expected_r`.
#
# So little is gained by pairing families seed by seed: what two runs of one seed share is small.
#
# ## The same run again
#
# An order that is asked for by the seed's own number makes the same run as none that is asked for. So
# {glue:text}`repeats` runs an adapter and task were trained twice, on one kind of device, from the same numbers, and
# in banks of other sizes. (Nearly all pairs are of two versions of this project, between which nothing changed that
# these runs compute.) A run's standard deviation about the mean of its like, with an interval that takes differences
# as normal:

# %% tags=["hide-input"]
charts.table(causes.again_table(twice))

# %% [markdown]
# With one component on RTE all {glue:text}`repeats` runs are the same to the last digit of their losses, which is why
# they are known to be the same runs. Elsewhere most losses differ at the first evaluation, a little, and by the end
# these are other runs, of which some took the weights of another step as the best on dev. The intervals are wide, and
# that of CP at LoRA's first budget on RTE hangs on a single pair, {glue:text}`widest` points apart. But on both tasks
# what rounding does, on the average over adapters, is of the size of all that sets runs of one adapter apart
# ({glue:text}`sst2_apart` points on SST-2, {glue:text}`rte_apart` on RTE): it may well be half of it.
#
# Frozen weights and activations are in bfloat16 here, in which a number has two or three digits, and in another bank
# sums are taken over other tiles. (That the tiles are the reason is likely and not tested: no bank was trained twice
# as it is.) The bank is not wrong by that: step by step it is right to rounding ([what a run
# costs](what_a_run_costs.ipynb)). But a seed's number does not name a result. What can be reproduced is a
# distribution, and that takes several seeds.
#
# ## Draws
#
# `studies/smollm2-data-seeds.toml` and `studies/smollm2-data-seeds-again.toml` train on each of {glue:text}`draws`
# other draws of training and dev examples with the same {glue:text}`seeds` seeds. What two runs share that have a
# draw in common, and neither weights nor the order within it, is the draw's; on any items, in points:

# %% tags=["hide-input"]
charts.table(causes.draw_table(runs))

# %% [markdown]
# No draw is shown to be better than another, for any adapter or for all: every interval begins at zero. What is seen
# is a bound. By these intervals a draw of SST-2 moves the mean of the adapters by {glue:text}`sst2_draw_high` points
# at the most, one of RTE by {glue:text}`rte_draw_high`, which may be a good part of what sets runs apart. The draws of
# RTE are less unlike than they could be, too: two of them share about {glue:text}`rte_alike` % of their training
# examples.
#
# On SST-2 one draw does stand out, the one that all studies share, which is none of the {glue:text}`draws`. On these
# items its adapters are {glue:text}`shared_below` points below the mean of the others, about which these have a
# standard deviation of {glue:text}`draws_sd`. So draws may differ by more than these show. To train each seed on a
# draw of its own costs no more, and then the error counts both.
#
# ## Items
#
# One run that is asked other items has another accuracy, by *chance* and *items* at once: {glue:text}`sst2_any` points
# on SST-2 and {glue:text}`rte_any` on RTE, as for any share of so many items. *Items* by itself is what no number of
# runs takes away from a mean, and *chance* is what makes runs look unlike that are not. On RTE that is all there is to
# see: of the {glue:text}`rte_apart` points by which runs of an adapter differ, chance alone makes
# {glue:text}`rte_chance`. The run of RTE that is best of several is the best on these items, and hardly a better
# adapter. On SST-2 {glue:text}`sst2_kept` % of the variance between runs is the runs' own.
#
# In a difference of two adapters on the same items most of what all runs share drops out. What is left is chance,
# which more items make smaller as well as more runs, and the interaction, which only more runs do.
#
# ## What follows
#
# - An accuracy takes items: where they are few no number of seeds helps. A difference takes both ([seeds and
#   items](noise.ipynb)).
# - Do not report the best of several seeds. Most of its lead is chance, and on a small evaluation set nearly all.
# - Do not expect a number to come again from its seed. A repetition agrees if it lies as near as another seed would.
# - Give each run a seed, an order and a draw of its own. Each may count, and none costs anything.
#
# This is of {glue:text}`adapters` adapters of one small decoder at one pair of rates, on two tasks. The draws were not
# crossed with orders, a larger model may be steadier, and rounding was seen between two layouts of banks only.
#
# Next: [the learning rate](rates.ipynb).

# %% tags=["remove-cell"]
for task, of in runs.items():
    mean = causes.on_average(of)
    of_draw = crossed_effects(causes.subjects(of)[causes.MEAN].by_draw).second
    apart = mean[causes.WEIGHTS] + mean[causes.ORDER] + mean[causes.TOGETHER] + mean[causes.CHANCE]
    rounding = float(np.mean([causes.again(pairs)[0] for pairs in twice[task].values()]))
    for key, variance in {
        "chance": mean[causes.CHANCE],
        "items": mean[causes.ITEMS],
        "any": mean[causes.CHANCE] + mean[causes.ITEMS],
        "apart": apart,
        "again": rounding,
        "draw_high": of_draw.interval[1],
    }.items():
        glue(f"{task}_{key}", percent(math.sqrt(variance), 2), display=False)
    if task == "sst2":
        for part in (causes.WEIGHTS, causes.ORDER, causes.TOGETHER):
            glue(f"sst2_{part}", percent(math.sqrt(mean[part]), 2), display=False)
        glue("sst2_kept", percent(1 - mean[causes.CHANCE] / apart, 0), display=False)
lora = runs["sst2"]["lora", 1]
starts, orders, _ = lora.by_order.shape
seeds, draws, _ = lora.by_draw.shape
lora_order = crossed_effects(lora.by_order).second
# What orders do to two adapters alike is how the means of their runs over weights vary together, order by order.
by_order = np.array([of.by_order.mean((0, 2)) for of in runs["sst2"].values()])
over_seeds = contrasts.measured(("smollm2-seeds",), "sst2").outcomes
by_seed = np.array([found.right.mean(1) for (label, _), found in over_seeds.items() if label != HEAD])
each_two = np.triu_indices(len(by_seed), 1)
by_draw = causes.subjects(runs["sst2"])[causes.MEAN].by_draw.mean((0, 2))
drawn = next(r.data for r in contrasts.on_record(("smollm2-data-seeds-again",)) if r.config.task == "rte")
source = drawn["source"]["train"]
for name, value in {
    "starts": str(starts),
    "orders": str(orders),
    "seeds": str(seeds),
    "draws": str(draws),
    "adapters": str(len(by_seed)),
    "repeats": str(twice["sst2"]["lora", 1].shape[1]),
    "lora_order_low": percent(math.sqrt(lora_order.interval[0]), 2),
    "lora_order_high": percent(math.sqrt(lora_order.interval[1]), 2),
    "seen_r": f"{np.corrcoef(by_seed)[each_two].mean():+.2f}",
    "expected_r": f"{np.cov(by_order)[each_two].mean() / by_seed.var(1, ddof=1).mean():+.2f}",
    "widest": percent(np.ptp(twice["rte"]["cp", 11], axis=0).max()),
    "shared_below": percent(by_draw.mean() - by_seed.mean()),
    "draws_sd": percent(by_draw.std(ddof=1), 2),
    "rte_alike": percent(drawn["sets"]["train"]["size"] / (source["rows"] - source["left_out_repeats"]), 0),
}.items():
    glue(name, value, display=False)
