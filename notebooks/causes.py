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
# On SST-2 and on RTE, on the average over adapters, initial weights move one accuracy by a standard deviation of
# {glue:text}`sst2_weights` and {glue:text}`rte_weights` points, the order of the examples by {glue:text}`sst2_order`
# and {glue:text}`rte_order`, their draw by {glue:text}`sst2_draw` and {glue:text}`rte_draw`, and the evaluation items
# by {glue:text}`sst2_items` and {glue:text}`rte_items`. The rest of what a {term}`seed` does ({glue:text}`sst2_both`
# and {glue:text}`rte_both` points) belongs to neither weights nor order but to the one meeting of the two, and a part
# of that is no cause at all: the same run in another {term}`bank`, where sums are rounded otherwise, moves by
# {glue:text}`sst2_again` and {glue:text}`rte_again`.

# %%
import math

from myst_nb import glue

from cpadapt import causes, charts, contrasts
from cpadapt.charts import cell_name
from cpadapt.statistics import estimate
from cpadapt.wording import percent

charts.enable()

# %%
runs = {task: causes.measured(task) for task in ("sst2", "rte")}
found = {task: causes.frame(of, task) for task, of in runs.items()}

# %% [markdown]
# ## Two causes are crossed to be told apart
#
# A seed draws two things, an adapter's initial weights and the order of its examples, and with one number for
# both nothing tells which of them made a run good. So on one draw of the examples `studies/smollm2-orders.toml` trains
# each of {glue:text}`starts` initial weights with each of {glue:text}`orders` orders, and on {glue:text}`draws` other
# draws `studies/smollm2-data-seeds.toml` and `studies/smollm2-data-seeds-again.toml` train each with the same
# {glue:text}`seeds` seeds. Weights that are good are so with most orders, and an order with most weights; what is good
# only where the two meet is left to *the two together*. Adapters, rates and steps are those of the cells with [many
# seeds](noise.ipynb).
#
# Bars are the parts of one run's variance, which add up, on SST-2 and on RTE:

# %% tags=["hide-input"]
charts.cause_chart(causes.parts(found["sst2"]))

# %% tags=["hide-input"]
charts.cause_chart(causes.parts(found["rte"]))

# %% [markdown]
# The square roots of these variances, in points, and those of two differences, on SST-2:

# %% tags=["hide-input"]
charts.table(causes.cause_table(found["sst2"]))

# %% [markdown]
# And on RTE:

# %% tags=["hide-input"]
charts.table(causes.cause_table(found["rte"]))

# %% [markdown]
# Weights, order and draw are each tested against none. In brackets is what is not clear after Holm's correction over
# a table, and a dash is a part estimated at zero or below. All but the items is on the items that were asked: what an
# order does may be to turn some of them.
#
# ## Weights and order
#
# On SST-2 initial weights move each CP adapter by {glue:text}`low_weights` to {glue:text}`high_weights` points, which
# is clear, and LoRA's first rank by nothing that is seen; its lead over CP moves with them too. The order moves LoRA
# clearly, and CP not clearly in any one cell. On RTE, where one of {glue:text}`rte_asked` items is
# {glue:text}`rte_one` points, nothing is clear cell by cell.
#
# But an order is the same for all adapters, so that they can be asked together. If orders differ, what is good for one
# adapter is good for another, and their means over initial weights rise and fall together. Initial weights they do not
# share, only their number, and that row shows what comes of nothing:

# %% tags=["hide-input"]
in_common = {task: causes.means(of) for task, of in runs.items()}
of_boolq = contrasts.measured(("smollm2-seeds-boolq",), "boolq")
in_common["boolq"] = {causes.SEED: causes.adapters(of_boolq)}
agreement = causes.together_table(in_common, shuffles=10_000, seed=0)
charts.table(agreement)

# %% [markdown]
# *Mean correlation* is over all pairs of adapters, and *p* is how often one at least as far from zero comes where the
# means of each adapter are shuffled. After Holm's correction over the table orders differ on SST-2, and draws on both
# tasks; on RTE orders may. Of single runs that share a seed, and with it the order, that is hardly seen, because the
# order is a small part of what moves them: not in a hundred seeds of SST-2 or RTE, and in the {glue:text}`boolq_seeds`
# of BoolQ perhaps. So comparing families seed by seed is right, and gains little over comparing their means.
#
# ## The same run again
#
# An order that is asked for by the seed's own number makes the same run as none that is asked for. So
# {glue:text}`repeats` runs an adapter and task were trained twice, on one kind of device, from the same numbers, and
# in banks of other sizes. With one component on RTE all {glue:text}`repeats` are the same to the last digit of their
# losses. Elsewhere most losses differ at the first evaluation, a little, and by the end these are other runs: *the
# same again* is how far one lies from the mean of its like. On SST-2 CP with {glue:text}`most_cp` components moves as
# far by rounding ({glue:text}`most_again` points) as by all that weights and order do to each other
# ({glue:text}`most_both`).
#
# Frozen weights and activations are in bfloat16 here, of which a number has three digits, and a bank sums over tiles
# that depend on what else is in it. The bank is not wrong by that: run by run it is right to rounding ([what a run
# costs](what_a_run_costs.ipynb)). But a seed's number names a run only on one machine, with one program and one batch
# of neighbours; what can be reproduced is the distribution, and that takes several seeds.
#
# ## Draws
#
# Another draw of a thousand examples moves an adapter by {glue:text}`sst2_draw` points on SST-2 and
# {glue:text}`rte_draw` on RTE beyond what a seed does, on the average. No single one is clear with {glue:text}`draws`
# draws and {glue:text}`seeds` seeds, and together they are (the table above). That is less than a seed does on one
# draw, so that runs of which each has a draw of its own spread about as far as runs on one. To train each seed on a
# draw of its own costs nothing, and then the error counts both; a study on one draw has a part of its error that no
# seed can show. The draws of RTE are less unlike than they could be: two of them share about
# {glue:text}`rte_alike` % of their examples.
#
# ## Items
#
# Asked of other items, the same run would have another accuracy. By how much is about what all causes of training make
# together on SST-2, and somewhat less than that on RTE. Nor is what seeds are seen to do all theirs: on few items a
# run is lucky in which of them it gets right. With no end of items, seeds would move the adapters by
# {glue:text}`sst2_low_true` to {glue:text}`sst2_high_true` points on SST-2, not {glue:text}`sst2_low_seen` to
# {glue:text}`sst2_high_seen`, and on RTE by {glue:text}`rte_high_true` at the most, not {glue:text}`rte_low_seen` to
# {glue:text}`rte_high_seen`. Of what a run on RTE is above its like, {glue:text}`rte_kept` % at the most would be seen
# again on other items, and on SST-2 {glue:text}`sst2_kept` %.
#
# In a difference of two adapters on the same items most of the items' part drops out. What is left is chiefly *the two
# together*, of both adapters, and only more runs make that smaller.
#
# ## What follows
#
# - An accuracy takes items: no number of seeds helps where these are few. A difference takes both ([seeds and
#   items](noise.ipynb)).
# - Give each run a seed, an order and a draw of its own. None of them is the chief cause, and all of them count.
# - Do not choose among seeds. Most of what makes one the best is not seen again.
# - Do not expect a number to come again from its seed. Expect it within its interval.
#
# This is of {glue:text}`adapters` adapters of one small decoder at one pair of rates, on two tasks. What is in
# brackets may be there, so few weights and orders tell the size of a part only roughly, and rounding was seen between
# two layouts of banks only.
#
# Next: [the learning rate](rates.ipynb).

# %% tags=["remove-cell"]
for task, of in runs.items():
    mean = causes.on_average(found[task])
    # The variance of seeds on the items that there are, and what of it would be left with no end of items.
    seen = [float(adapter.right.mean(1).var(ddof=1)) for adapter in of.values()]
    true = [estimate(adapter.right).seed_variance for adapter in of.values()]
    for key, value in {
        "weights": mean[causes.WEIGHTS],
        "order": mean[causes.ORDER],
        "both": mean[causes.BOTH],
        "again": mean[causes.AGAIN],
        "draw": mean[causes.DRAW],
        "items": mean[causes.ITEMS],
        "low_seen": math.sqrt(min(seen)),
        "high_seen": math.sqrt(max(seen)),
        "high_true": math.sqrt(max(true)),
    }.items():
        glue(f"{task}_{key}", percent(value, 2), display=False)
    kept = max(a / b for a, b in zip(true, seen, strict=True))
    glue(f"{task}_kept", percent(kept, 0), display=False)
starts, orders = runs["sst2"]["lora", 1].by_order.shape
seeds, draws = runs["sst2"]["lora", 1].by_draw.shape
sds = {(row["of"], row["cause"]): math.sqrt(row["variance"]) for row in found["sst2"].to_dict("records")}
of_weights = [sds[cell_name("cp", size), causes.WEIGHTS] for size in of_boolq.sizes("cp")]
most = of_boolq.sizes("cp")[-1]
drawn = next(r.data for r in contrasts.on_record(("smollm2-data-seeds-again",)) if r.config.task == "rte")
source = drawn["source"]["train"]
for name, value in {
    "starts": str(starts),
    "orders": str(orders),
    "seeds": str(seeds),
    "draws": str(draws),
    "adapters": str(len(runs["sst2"])),
    "repeats": str(runs["sst2"]["lora", 1].twice.shape[1]),
    "low_weights": percent(min(of_weights), 2),
    "high_weights": percent(max(of_weights), 2),
    "most_cp": str(most),
    "most_again": percent(sds[cell_name("cp", most), causes.AGAIN], 2),
    "most_both": percent(sds[cell_name("cp", most), causes.BOTH], 2),
    "sst2_low_true": percent(math.sqrt(min(estimate(of.right).seed_variance for of in runs["sst2"].values())), 2),
    "rte_asked": str(runs["rte"]["lora", 1].right.shape[1]),
    "rte_one": percent(1 / runs["rte"]["lora", 1].right.shape[1], 2),
    "boolq_seeds": str(of_boolq.outcomes["lora", 1].right.shape[0]),
    "rte_alike": percent(drawn["sets"]["train"]["size"] / (source["rows"] - source["left_out_repeats"]), 0),
}.items():
    glue(name, value, display=False)
