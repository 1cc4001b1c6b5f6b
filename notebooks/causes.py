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
# one accuracy by a standard deviation of {glue:text}`sst2_weights` points, the order of the examples by
# {glue:text}`sst2_order` and what is left to the two together by {glue:text}`sst2_together`, on the average over
# adapters; on RTE, with no end of items, nothing is shown of weights, order and draw, but on the items that are asked
# the order moves the adapters' mean ({glue:text}`rte_order_asked` points, p is {glue:text}`rte_order_asked_p`), and on
# SST-2 thirty draws are not told apart by adapters, but the one that all studies share is {glue:text}`shared_below`
# points below them. The larger part of what sets runs apart is chance on the few items that are asked
# ({glue:text}`sst2_chance` points on SST-2 and {glue:text}`rte_chance` on RTE), which items these are moves all runs
# alike by about as much as sets them apart ({glue:text}`sst2_items` and {glue:text}`rte_items`), and the same run in
# another {term}`bank`, where sums are rounded otherwise, lies elsewhere, with a standard deviation of
# {glue:text}`sst2_again` and {glue:text}`rte_again`.

# %%
import math

import numpy as np
from myst_nb import glue
from scipy import stats

from companion import causes, contrasts, rates
from companion.wording import percent
from cpadapt.analysis import charts
from cpadapt.analysis.charts import cell_name
from cpadapt.analysis.statistics import crossed_effects, holm
from cpadapt.records.config import HEAD

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
charts.part_chart(causes.parts({"sst2": runs["sst2"]}))

# %% tags=["hide-input"]
charts.part_chart(causes.parts({"rte": runs["rte"]}))

# %% [markdown]
# The square roots of these variances on SST-2, in points, with those of the mean of these adapters, which an order
# moves as far as it moves them alike, and of two differences. A dash is a part that is estimated at zero or below (the
# bars leave such parts out), and the interval says how large it may be:

# %% tags=["hide-input"]
charts.table(causes.part_table(runs["sst2"]))

# %% [markdown]
# And on RTE:

# %% tags=["hide-input"]
charts.table(causes.part_table(runs["rte"]))

# %% [markdown]
# An interval of nothing but zeros is empty: such runs are more alike than chance would have them, as happens once in
# forty where there is nothing.
#
# ## Weights and order
#
# On SST-2 the order moves the mean of these adapters and LoRA's first rank, clearly after Holm's correction over a
# table's weights and orders (p is {glue:text}`mean_order_p` and {glue:text}`lora_order_p`). The weights of CP with
# {glue:text}`most_cp` components and of the mean are clear by themselves, and not after it ({glue:text}`next_p`). On
# RTE nothing is, of what would be so on any items. On the average over adapters weights and order count about alike on
# SST-2, as was found for BERT {cite:p}`dodge2020fine`, and neither counts for as much as what is left to the two
# together, of which rounding may be a large part.
#
# Ten of each tell a size only roughly. The hundred seeds say how large all of it can be, weights, order, both and
# rounding: of runs of LoRA's first rank on SST-2, {glue:text}`lora_own_high` points at the most (the table under
# *Items*).
#
# On the very items that are asked, SST-2's and then RTE's, less is open: in points, and which part of chance is the
# weights' or the order's own, as it comes again with them whatever the other is.

# %% tags=["hide-input"]
charts.table(causes.asked_table(runs["sst2"]))

# %% tags=["hide-input"]
charts.table(causes.asked_table(runs["rte"]))

# %% [markdown]
# So on RTE's items the order does move the mean of these adapters, by {glue:text}`rte_order_asked` points (p is
# {glue:text}`rte_order_asked_p`, after Holm's correction over the table's weights and orders
# {glue:text}`rte_order_holm`), and the share of items that they call by the commonest label by
# {glue:text}`rte_order_given` (LoRA's first rank alone by {glue:text}`rte_order_given_lora`); weights are not seen to.
# Nor is all that is called chance here nothing but chance: of LoRA's first rank {glue:text}`rte_lora_by_order` % of it
# on RTE and {glue:text}`sst2_lora_by_order` % on SST-2 is the order's, and of CP with one component
# {glue:text}`sst2_one_by_weights` % on SST-2 the weights'. Order moves LoRA, the start moves small CP.
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
# that of CP at LoRA's first budget on RTE hangs on a single pair, {glue:text}`widest` points apart. On the average
# over adapters rounding makes {glue:text}`sst2_rounding` % of the variance between runs of one adapter on SST-2
# (ninety-five percent, {glue:text}`sst2_rounding_ends`) and {glue:text}`rte_rounding` % on RTE
# ({glue:text}`rte_rounding_ends`).
#
# Frozen weights and activations are in bfloat16 here, in which a number has two or three digits, and in another bank
# sums are taken over other tiles. (That the tiles are the reason is likely and not tested: no bank was trained twice
# as it is.) The bank is not wrong by that: step by step it is right to rounding ([what a run
# costs](what_a_run_costs.ipynb)). But a seed's number does not name a result in another bank. What can be reproduced
# there is a distribution, and that takes several seeds.
#
# ## Draws
#
# `studies/smollm2-data-seeds.toml` and `studies/smollm2-data-seeds-again.toml` train on each of {glue:text}`draws`
# other draws of training and dev examples with the same {glue:text}`seeds` seeds. What two runs share that have a
# draw in common, and neither weights nor the order within it, is the draw's; on any items, in points:

# %% tags=["hide-input"]
charts.table(causes.draw_table(runs))

# %% [markdown]
# Among the {glue:text}`draws` no draw is shown to be better than another, for any adapter or for all: every interval
# begins at zero, and what they say is a bound. The standard deviation of a draw in the mean of these adapters is, by
# these intervals, {glue:text}`sst2_draw_high` points at the most on SST-2 and {glue:text}`rte_draw_high` on RTE, which
# may be a good part of what sets runs apart. (Where by chance a mean square falls below what it should hold, test and
# interval take the larger, so that an interval can end near its estimate. The draws of RTE are less unlike than they
# could be: two of them share about {glue:text}`rte_alike` % of their training examples.)
#
# On SST-2 one draw does stand out, the one that all studies share, which is none of the {glue:text}`draws`. On these
# items its adapters, over a hundred seeds, are {glue:text}`shared_below` points below the mean of the others, about
# which these have a standard deviation of {glue:text}`draws_sd`. And the readout alone, which is not in the table,
# hangs on its draw more than on its order ([seeds and items](noise.ipynb)). So draws count, and how much is not known
# well. To train each seed on a draw of its own costs no more, and then the error counts both.
#
# ## Items
#
# One run that is asked other items has another accuracy, by *chance* and *items* at once: {glue:text}`sst2_any` points
# on SST-2 and {glue:text}`rte_any` on RTE, as for any share of so many items. *Items* by itself is what no number of
# runs takes away from a mean, and *chance* is what makes runs look unlike that are not. How unlike they are, by
# weights, order, both together and rounding, the [many seeds](noise.ipynb) tell best: what would be left of a run's
# standard deviation with no end of items, and its share of the variance between runs on these items:

# %% tags=["hide-input"]
over_seeds = {task: contrasts.measured(("smollm2-seeds",), task) for task in runs}
over_seeds["boolq"] = contrasts.measured(("smollm2-seeds-boolq",), "boolq")
charts.table(causes.own_table(over_seeds))

# %% [markdown]
# On the average over adapters {glue:text}`sst2_own` % of the variance between runs is the runs' own on SST-2,
# {glue:text}`rte_own` % on RTE and {glue:text}`boolq_own` % on BoolQ. The rest is chance: of the run of RTE that is
# best of several, most of the lead is not seen again on other items.
#
# In a difference of two adapters on the same items most of what all runs share drops out. What is left of it, where an
# item is easier for one adapter than for the other, no number of runs takes away. Chance gets smaller by more items as
# by more runs; weights, order and both together by more runs only.
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
# This is of {glue:text}`adapters` adapters of one small decoder at one pair of rates, on two tasks. The draws were not
# crossed with orders, a larger model may be steadier, and rounding was seen between two layouts of banks only.
#
# Next: [the learning rate](rates.ipynb).

# %% tags=["remove-cell"]
for task, of in runs.items():
    mean = causes.on_average(of)
    of_draw = crossed_effects(causes.subjects(of)[causes.MEAN].by_draw).second
    apart = mean[causes.WEIGHTS] + mean[causes.ORDER] + mean[causes.TOGETHER] + mean[causes.CHANCE]
    squares = np.concatenate([causes.half_squares(pairs) for pairs in twice[task].values()])
    ends = stats.bootstrap((squares,), np.mean, rng=np.random.default_rng(0), method="percentile").confidence_interval
    for key, variance in {
        "chance": mean[causes.CHANCE],
        "items": mean[causes.ITEMS],
        "any": mean[causes.CHANCE] + mean[causes.ITEMS],
        "again": float(squares.mean()),
        "draw_high": of_draw.interval[1],
    }.items():
        glue(f"{task}_{key}", percent(math.sqrt(variance), 2), display=False)
    glue(f"{task}_rounding", percent(float(squares.mean()) / apart, 0), display=False)
    glue(f"{task}_rounding_ends", " to ".join(percent(float(end) / apart, 0) for end in ends), display=False)
    if task == "sst2":
        for part in (causes.WEIGHTS, causes.ORDER, causes.TOGETHER):
            glue(f"sst2_{part}", percent(math.sqrt(mean[part]), 2), display=False)
own = {task: causes.own(of) for task, of in over_seeds.items()}
for task, of in own.items():
    share = sum(effect.variance for effect, _ in of.values()) / sum(seen for _, seen in of.values())
    glue(f"{task}_own", percent(share, 0), display=False)
crossed = {name: crossed_effects(of.by_order) for name, of in causes.subjects(runs["sst2"]).items()}
p_values = {(name, cause): effect.p_value for name, of in crossed.items()
            for cause, effect in ((causes.WEIGHTS, of.first), (causes.ORDER, of.second))}  # fmt: skip
corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
lora = runs["sst2"]["lora", 1]
starts, orders, _ = lora.by_order.shape
seeds, draws, _ = lora.by_draw.shape
by_draw = causes.subjects(runs["sst2"])[causes.MEAN].by_draw.mean((0, 2))
on_shared = np.mean([of.right.mean() for (label, _), of in over_seeds["sst2"].outcomes.items() if label != HEAD])
drawn = next(r.data for r in contrasts.on_record(("smollm2-data-seeds-again",)) if r.config.task == "rte")
source = drawn["source"]["train"]
most = over_seeds["sst2"].sizes("cp")[-1]
asked = {name: causes.as_asked(of.by_order) for name, of in causes.subjects(runs["rte"]).items()}
asked_holm = holm([effect.p_value for both in asked.values() for effect in both])
order_asked = asked[causes.MEAN][1]
answered = {
    cell: causes.given(of.by_order, rates.commonest(rates.measured(("smollm2", "smollm2-rates"), "rte")))
    for cell, of in runs["rte"].items()
}
_, order_given = causes.as_asked(np.mean(list(answered.values()), axis=0))


def in_chance(task, cell):
    """Of chance what is the weights' and what the order's, in percent."""
    found = crossed_effects(runs[task][cell].by_order)
    return [percent(effect.variance / found.chance, 0) for effect in (found.first_by_item, found.second_by_item)]


for name, value in {
    "starts": str(starts),
    "orders": str(orders),
    "seeds": str(seeds),
    "draws": str(draws),
    "adapters": str(len(runs["sst2"])),
    "repeats": str(twice["sst2"]["lora", 1].shape[1]),
    "most_cp": str(most),
    "mean_order_p": f"{corrected[causes.MEAN, causes.ORDER]:.3f}",
    "lora_order_p": f"{corrected['LoRA 1', causes.ORDER]:.3f}",
    "next_p": f"{corrected[cell_name('cp', most), causes.WEIGHTS]:.2f}",
    "lora_own_high": percent(math.sqrt(own["sst2"]["lora", 1][0].interval[1]), 2),
    "rte_order_asked": percent(math.sqrt(order_asked.variance), 2),
    "rte_order_asked_p": f"{order_asked.p_value:.4f}",
    "rte_order_holm": f"{asked_holm[2 * list(asked).index(causes.MEAN) + 1]:.3f}",
    "rte_order_given": percent(math.sqrt(order_given.variance)),
    "rte_order_given_lora": percent(math.sqrt(causes.as_asked(answered["lora", 1])[1].variance)),
    "rte_lora_by_order": in_chance("rte", ("lora", 1))[1],
    "sst2_lora_by_order": in_chance("sst2", ("lora", 1))[1],
    "sst2_one_by_weights": in_chance("sst2", ("cp", 1))[0],
    "widest": percent(np.ptp(twice["rte"]["cp", 11], axis=0).max()),
    "shared_below": percent(by_draw.mean() - on_shared),
    "draws_sd": percent(by_draw.std(ddof=1), 2),
    "rte_alike": percent(drawn["sets"]["train"]["size"] / (source["rows"] - source["left_out_repeats"]), 0),
}.items():
    glue(name, value, display=False)
