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
# # Seeds and items: where the noise comes from
#
# **How many seeds and items does it take to see half a point?**
#
# On SmolLM2-135M under the paper's protocol, with the items that it asks, no number of {term}`seeds <seed>` up to
# {glue:text}`most` shows a true difference of half a point between LoRA and CP at one budget four times in five, on
# any of the three tasks; a whole point takes {glue:text}`sst2_one` seeds on SST-2 and is out of reach on RTE, and on
# BoolQ it takes all {glue:text}`boolq_all` items of its validation split, with {glue:text}`boolq_all_one` seeds. With
# {glue:text}`seeds` seeds such a difference has a standard error of {glue:text}`sst2_error` points on SST-2,
# {glue:text}`boolq_error` on BoolQ and {glue:text}`rte_error` on RTE, of which {glue:text}`sst2_end`,
# {glue:text}`boolq_end` and {glue:text}`rte_end` would remain with no end of seeds.

# %%
import dataclasses
import tomllib

from myst_nb import glue

from cpadapt import charts, ladder, noise
from cpadapt.book import PROJECT
from cpadapt.statistics import seeds_needed

charts.enable()

# %%
tasks = {name: ladder.measured("smollm2", name).cells for name in ("sst2", "rte", "boolq")}
found = {name: noise.sources(of) for name, of in tasks.items()}

# %% [markdown]
# All of this is from the runs of the chapters on [SST-2](sst2.ipynb), [RTE](rte.ipynb) and [BoolQ](boolq.ipynb),
# {glue:text}`seeds` seeds a cell. That is few to tell how much seeds vary, so the variances are pooled over cells.
#
# ## Three sources
#
# A run is right or wrong on each item. That varies with the run's seed, which draws the initial weights and the order
# of the examples and moves all items alike; with the item, some being harder than others for all runs; and with the
# two together, for one run gets right by chance what another gets wrong. Here is the part of each in the error of one
# run, in points, and the error of a mean over several; *no end* is what is left where seeds are free. A dash is a part
# estimated at zero or below, which is not to say that there is none.

# %% tags=["hide-input"]
charts.table(noise.source_table(found))

# %% [markdown]
# For an accuracy by itself it is the items that count: they are a sample, and an accuracy on RTE's
# {glue:text}`rte_items` has a standard error of {glue:text}`rte_accuracy_end` points, however many seeds there are. A
# difference on the same items is another matter. Most items that are hard for one are hard for both, and that drops
# out: from other items and other seeds for each family, the error at one budget with {glue:text}`seeds` seeds would be
# {glue:text}`sst2_unpaired` points on SST-2, {glue:text}`boolq_unpaired` on BoolQ and {glue:text}`rte_unpaired` on
# RTE. What is left in the error of one run's difference is chiefly the *rest*. Two runs of one cell that differ in
# nothing but the seed give different answers on {glue:text}`sst2_apart` % of the items of SST-2,
# {glue:text}`boolq_apart` % of BoolQ and {glue:text}`rte_apart` % of RTE, and each such item is a coin that another
# seed tosses again.
#
# ## The chance to see a difference
#
# Of a true difference between LoRA and CP at one budget, against the number of seeds, on the items that the protocol
# asks, for a test at five percent, if the variances above are the true ones:

# %% tags=["hide-input"]
SEEDS = [2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000]
charts.power_chart(noise.powers({name: of[noise.FAMILIES] for name, of in found.items()}, SEEDS), noise.ENOUGH)

# %% [markdown]
# The lines level off below one: there the items are the limit, and no seed helps. What it takes to see a difference of
# half a point, one or two, four times in five: seeds on the items that are asked, and items with
# {glue:text}`ten` seeds. *Never* is not with {glue:text}`most` seeds, or with {glue:text}`most_items` items.

# %% tags=["hide-input"]
charts.table(noise.need_table(found))

# %% [markdown]
# Two neighbouring sizes of CP share more of what makes an item hard than two families do, so that with many seeds they
# can be told apart where two families cannot. Where a plateau begins is a choice among all sizes, and harder than
# that.
#
# So it is no surprise that none of the differences at single budgets in the chapters before this, at the paper's
# rates, is clear of its error after Holm's correction. More can be said of averages: over all {glue:text}`pairs`
# matched budgets the error of LoRA minus CP is {glue:text}`sst2_average` points on SST-2, {glue:text}`boolq_average`
# on BoolQ and {glue:text}`rte_average` on RTE, because the coins of several budgets are tossed apart.
#
# ## What is not in it
#
# All runs share one draw of training and dev examples. Another draw would have trained other adapters, and how much
# that adds is not measured yet; nor is how the error of a seed divides into weights and order, which one number draws
# together. `smollm2-data-seeds`, thirty draws, is ready for the first, and `smollm2-seeds`, a hundred seeds, for a
# better estimate of what seeds add, both at ten times the paper's rates and in fewer steps ([what was
# run](what_was_run.ipynb)). The variances are themselves estimates, from {glue:text}`seeds` seeds and one set of items
# a task, and those of one small decoder at one pair of rates: a larger model may vary less.
#
# Next: [the learning rate](rates.ipynb).

# %% tags=["remove-cell"]
figures = {name: noise.figures(of) for name, of in tasks.items()}
for name, of in figures.items():
    for key in ("error", "end", "unpaired", "apart", "average"):
        glue(f"{name}_{key}", of[key], display=False)
for name, key in (("sst2", "one"), ("rte", "items"), ("rte", "accuracy_end")):
    glue(f"{name}_{key}", figures[name][key], display=False)
families = found["boolq"][noise.FAMILIES]
# All of BoolQ's validation split, of which the protocol asks a part.
all_items = tomllib.loads((PROJECT / "book" / "published.toml").read_text())["validation"]["boolq"]
on_all = dataclasses.replace(families, items=all_items)
for name, value in {
    "seeds": str(families.seeds),
    "ten": str(noise.TEN),
    "boolq_all": f"{all_items:,}",
    "boolq_all_one": str(seeds_needed(on_all, noise.EFFECTS[1])),
    "most": f"{noise.MOST_SEEDS:,}",
    "most_items": f"{noise.MOST_ITEMS:,}",
    "pairs": str(len(tasks["sst2"].matched())),
}.items():
    glue(name, value, display=False)
