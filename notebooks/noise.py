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
# On SmolLM2-135M-Instruct, dequantized from four bits, under the paper's protocol, on the items that it asks and if
# the variances are what three seeds a cell say, no number of seeds up to {glue:text}`most` shows a true difference of
# half a point between LoRA and CP at one budget four times in five, on any of the three tasks; a whole point takes
# {glue:text}`sst2_one` seeds on SST-2, {glue:text}`boolq_all_one` on BoolQ if all {glue:text}`boolq_all` items of its
# validation split are asked, and is out of reach on RTE. Where many seeds are measured, at ten times the paper's rates
# and on one draw of the examples, on SST-2 the worst of {glue:text}`draws_known`, the mean of LoRA's first
# {term}`rank` is above that of CP at its budget by {glue:text}`hundred_gap` points on SST-2 (ninety-five percent,
# {glue:text}`hundred_gap_ends`; {glue:text}`hundred` seeds), by {glue:text}`rte_gap` on RTE, which is not clear
# ({glue:text}`rte_gap_ends`; {glue:text}`rte_seeds` seeds) but is with dev's items over {glue:text}`thirty` draws
# ({glue:text}`rte_lead_on_dev`), and by {glue:text}`boolq_gap` on BoolQ ({glue:text}`boolq_gap_ends`;
# {glue:text}`boolq_seeds` seeds), and of all threes of these seeds {glue:text}`hundred_misled`,
# {glue:text}`rte_misled` and {glue:text}`boolq_misled` % have the two means the other way round or level.

# %%
import dataclasses
import math
import tomllib

from myst_nb import glue

import cpadapt
from companion import PROJECT, contrasts, draws, ladder, noise, rates
from companion.claims import interval
from companion.wording import bounds, percent, signed
from cpadapt.analysis import charts
from cpadapt.analysis.statistics import compare, estimate, holm, seeds_needed
from cpadapt.records.config import HEAD

charts.enable()

# %%
tasks = {name: ladder.measured("smollm2", name).cells for name in ("sst2", "rte", "boolq")}
found = {name: noise.sources(of) for name, of in tasks.items()}
MANY = ("sst2", "rte")
over_seeds = {task: contrasts.measured(("smollm2-seeds",), task) for task in MANY} | {
    "boolq": contrasts.measured(("smollm2-seeds-boolq",), "boolq")
}
over_draws = {task: contrasts.measured(("smollm2-data-seeds",), task) for task in MANY}
# Two runs on one draw are not independent, so where differences over draws are taken they count as one, their mean.
twice = {
    task: contrasts.mean_of(of, contrasts.measured(("smollm2-data-seeds-again",), task))
    for task, of in over_draws.items()
}

# %% [markdown]
# The first two sections are from the runs of the chapters on [SST-2](sst2.ipynb), [RTE](rte.ipynb) and
# [BoolQ](boolq.ipynb), {glue:text}`seeds` seeds a cell. That is few to tell how much seeds vary, so the variances are
# pooled over cells. Those after them are from a few cells that have many runs.
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
# RTE. With them paired it is {glue:text}`sst2_error`, {glue:text}`boolq_error` and {glue:text}`rte_error`, of which
# {glue:text}`sst2_end`, {glue:text}`boolq_end` and {glue:text}`rte_end` would remain with no end of seeds. What is
# left in the error of one run's difference is chiefly the *rest*. Two runs of one cell that differ in nothing but the
# seed give different answers on {glue:text}`sst2_apart` % of the items of SST-2, {glue:text}`boolq_apart` % of BoolQ
# and {glue:text}`rte_apart` % of RTE, and each such item is a coin that another seed tosses again.
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
# half a point, one or two, four times in five: seeds on the items that are asked, and items with {glue:text}`ten`
# seeds. *Never* is not with {glue:text}`most` seeds, or with {glue:text}`most_items` items.

# %% tags=["hide-input"]
charts.table(noise.need_table(found))

# %% [markdown]
# Two neighbouring sizes of CP share more of what makes an item hard than two families do, so that with many seeds they
# can be told apart where two families cannot. (That is so for steps of this ladder; CP with one component and CP at
# LoRA's first budget share no more than the families do, as the many seeds of SST-2 and RTE below have it.) Where a
# plateau begins is a choice among all sizes, and harder than that.
#
# So it is no surprise that none of the differences at single budgets in the chapters before this, at the paper's
# rates, is clear of its error after Holm's correction. More can be said of averages: over all {glue:text}`pairs`
# matched budgets the error of LoRA minus CP is {glue:text}`sst2_average` points on SST-2, {glue:text}`boolq_average`
# on BoolQ and {glue:text}`rte_average` on RTE, because the coins of several budgets are tossed apart.
#
# ## A hundred seeds
#
# The key cells of SST-2 with {glue:text}`hundred` seeds on one draw of the training and dev examples, and with one
# seed on {glue:text}`thirty` other draws. They are trained at ten times the paper's rates, the highest tried at which
# no run ends with a training loss above the readout's ([the learning rate](rates.ipynb)). All runs that do at thirty
# times are of more than {glue:text}`rates.ipynb::turn:s` scalars, so large adapters chose the rate of small ones. It
# need not be their best: on SST-2, with three seeds, it is the worst of {glue:text}`rates.ipynb::rates:s` for CP at
# LoRA's first budget ({glue:text}`eleven_here` % on eval, {glue:text}`eleven_best` % at the best). They have
# {glue:text}`key_steps` steps, because in the [longer runs](rates.ipynb) at these rates the mean of all adapters on
# dev was at its height by then, on SST-2 and on BoolQ, and within {glue:text}`rte_dev_left` points of it on RTE. A
# stroke is a run:

# %% tags=["hide-input"]
of_sst2 = {"seeds": over_seeds["sst2"], "draws": over_draws["sst2"]}
charts.spread_chart(noise.runs(of_sst2))

# %% tags=["hide-input"]
charts.table(noise.spread_table(of_sst2))

# %% [markdown]
# *sd* is how far one run lies from the mean of its like, in points, and the interval is that of the sd. The readout
# alone starts from zero, so that its seed is nothing but the order of the examples: it moves by {glue:text}`order_sd`
# points. What the seed draws for an adapter, weights and order, moves it by {glue:text}`low_sd` to
# {glue:text}`high_sd`; how much of that is the one and how much the other is told in [what moves a run](causes.ipynb).
#
# What a hundred seeds show at these rates and on this draw, and how often the means of three of them have another sign
# (of all ways to take three; no difference counts as another):

# %% tags=["hide-input"]
charts.table(noise.key_table(over_seeds["sst2"]))

# %% [markdown]
# On these {glue:text}`sst2_items` validation sentences CP is flat over seeds from one component to
# {glue:text}`most_cp`: that difference is shown to be less than a point,
# and so are the steps on the way (*alike* is the p value of a difference of a point or more). LoRA's first rank is
# ahead of CP at its budget, and of CP at four times its budget, by what may be less than a point and may be a little
# more; at the paper's rates, with three seeds, the first of these was {glue:text}`papers_gap` points. Where two cells
# are the same for all that a hundred seeds can tell, three order them nearly by the toss of a coin. And by these
# seeds' own variances the chance to see half a point between the families would be {glue:text}`hundred_power` % with
# {glue:text}`most` of them: near enough, and far from certain.
#
# ## Thirty draws of the examples
#
# Over draws, all with one seed, an adapter's accuracy has an sd of {glue:text}`low_draw_sd` to
# {glue:text}`high_draw_sd` points, about what it has over seeds on one draw, and LoRA's first rank minus CP at its
# budget has {glue:text}`gap_draw_sd`, beside {glue:text}`gap_sd`. The readout alone hangs more on the examples than on
# their order. Each draw was then trained with a second seed. Of the mean of the two the differences over draws are:

# %% tags=["hide-input"]
charts.table(noise.key_table(twice["sst2"], mislead=False))

# %% [markdown]
# Their errors are of draws and items. What the two seeds' initial weights do is the same on all draws and in no error,
# so that all that follows is said of these two.
#
# On these sentences the draws say what the seeds say: LoRA's first rank is ahead of both larger CPs, and CP is flat.
# (On dev it is not, as is told below.)
# {glue:text}`most_cp` components are {glue:text}`draws_gain` points above one (ninety-five percent,
# {glue:text}`draws_gain_ends`), which is not clear, and is less than a point by a one-sided test (the *alike* of its
# row, not corrected). With the first seed alone it had been {glue:text}`first_gain` ({glue:text}`first_gain_ends`).
#
# All other studies of this backbone share one draw, and on SST-2 it happens to be the worst of them all: adapters have
# {glue:text}`shared_mean` % on it, on the average and over a hundred seeds, and on the others {glue:text}`worst_draw`
# to {glue:text}`best_draw` %, {glue:text}`mean_draw` % on the average. Heights in the other chapters are low by so
# much; differences between adapters are within their errors the same on it and off it.
#
# ## RTE, over seeds and draws
#
# The same cells, rates and steps on RTE, with {glue:text}`rte_seeds` seeds, and on {glue:text}`thirty` other draws:

# %% tags=["hide-input"]
of_rte = {"seeds": over_seeds["rte"], "draws": over_draws["rte"]}
charts.spread_chart(noise.runs(of_rte))

# %% tags=["hide-input"]
charts.table(noise.spread_table(of_rte))

# %% [markdown]
# On RTE's {glue:text}`rte_items` items a run with an adapter lies {glue:text}`rte_low_sd` to {glue:text}`rte_high_sd`
# points from the mean of its like over seeds, more than twice as far as on SST-2, and over draws about as far, LoRA's
# first rank a little farther. As there, the readout alone hangs more on the examples than on their order. The
# differences over seeds:

# %% tags=["hide-input"]
charts.table(noise.key_table(over_seeds["rte"]))

# %% [markdown]
# And over draws, of the mean of two seeds:

# %% tags=["hide-input"]
charts.table(noise.key_table(twice["rte"], mislead=False))

# %% [markdown]
# At these rates adapters learn RTE: the two at LoRA's first budget are {glue:text}`rte_over` points above the readout
# alone on the average (ninety percent, {glue:text}`rte_over_ends`). On this draw components seem to pay:
# {glue:text}`most_cp` are {glue:text}`rte_gain` points above one (ninety-five percent, {glue:text}`rte_gain_ends`), by
# the means the larger half of it up to LoRA's first budget and the other beyond. By itself that is clear, and after
# Holm's correction over the table's six differences just not (p is {glue:text}`rte_gain_p`). Over draws the gain is
# {glue:text}`rte_draws_gain` points and on eval not clear ({glue:text}`rte_draws_gain_ends`).
#
# At LoRA's first budget LoRA's mean is the higher one, over seeds and over draws by nearly the same, and neither is
# clear on these items. One-sided, as [the claims](claims.ipynb) judge, both are on the edge: ninety percent are
# {glue:text}`rte_told_ends` over seeds and {glue:text}`rte_draws_told_ends` over draws. CP at four times the budget
# and LoRA's first rank are not seen to differ. Three seeds have LoRA's lead turned round or level in
# {glue:text}`rte_misled` % of cases.
#
# The two tables are no independent witnesses, since both are asked the same items. More seeds would help little, and
# other items do (below): by
# these seeds' own variances the error of LoRA's lead, {glue:text}`rte_lead_error` points, would be
# {glue:text}`rte_lead_end` with no end of them, because of the items, and {glue:text}`most` seeds would show a whole
# point between the families with a chance of {glue:text}`rte_power` %. Two points, which the three seeds a cell at the
# paper's rates have out of reach, take {glue:text}`rte_own_two`; rates and steps differ too.
#
# ## What dev says over draws
#
# Each draw has {glue:text}`dev_items` dev examples, on which its runs were not trained. So over draws many more items
# are asked on dev than on eval, of RTE nearly all of the training split, and records count how many were right. With
# both seeds, in points, with ninety-five-percent intervals for draws and items ([how](../book/api.md)):

# %% tags=["hide-input"]
dev = {task: draws.measured(task) for task in MANY}
charts.table(draws.dev_table(dev))

# %% [markdown]
# Dev chose the best step by these very answers. The last step is fixed beforehand, so its column carries what is said
# here. *Holm* is its p value, corrected over a task's differences.
#
# On RTE two are clear that eval leaves open: LoRA's first rank is ahead of CP at its budget by
# {glue:text}`rte_lead_on_dev`, and {glue:text}`most_cp` components of one by {glue:text}`rte_gain_on_dev`. With eval,
# after the best step, they are {glue:text}`rte_lead_on_both` and {glue:text}`rte_gain_on_both`.
#
# On SST-2 that CP is flat is true of the validation sentences. On held-out rows of the training split
# {glue:text}`most_cp` components are clearly ahead of one, by {glue:text}`sst2_gain_on_dev`, and after the best step
# by {glue:text}`sst2_gain_on_best`. LoRA's first rank has no lead over {glue:text}`most_cp` components there
# ({glue:text}`sst2_last_on_dev`), and that this differs from eval is no chance (p is {glue:text}`sst2_last_apart_p`).
# But those rows are phrases, of {glue:text}`dev_words` words in the median where validation's have
# {glue:text}`eval_words`, and {glue:text}`dev_nested` % of them are part of a training phrase or around one of three
# words or more (validation: {glue:text}`eval_nested` %), which may favour adapters that learn by heart.
#
# Two things are in no error: the two seeds' initial weights, which are the same on all draws, and what RTE's training
# draws have in common, two of which share about {glue:text}`causes.ipynb::rte_alike:s` % of their examples.
#
# ## Thirty seeds of BoolQ
#
# The same cells, rates and steps on the capped examples of BoolQ, with {glue:text}`boolq_seeds` seeds:

# %% tags=["hide-input"]
of_boolq = {"seeds": over_seeds["boolq"]}
charts.spread_chart(noise.runs(of_boolq))

# %% tags=["hide-input"]
charts.table(noise.spread_table(of_boolq))

# %% tags=["hide-input"]
charts.table(noise.key_table(over_seeds["boolq"]))

# %% [markdown]
# Here CP is not flat: {glue:text}`most_cp` components are {glue:text}`boolq_gain` points above one (ninety-five
# percent, {glue:text}`boolq_gain_ends`), with a step up on the way to LoRA's first budget and another beyond it. At
# that budget LoRA is ahead; CP with four times the budget and LoRA's first rank are not seen to differ. Three seeds
# seldom turn round LoRA's lead at one budget ({glue:text}`boolq_misled` %) or the gain from one component to
# {glue:text}`most_cp`, and often the last pair ({glue:text}`boolq_last_misled` %). By these seeds' own variances a
# whole point between the families takes {glue:text}`boolq_own_one` seeds on the items that are asked, which the three
# seeds a cell at the paper's rates have out of reach; rates and steps differ too.
#
# Each cell's sd is above the one that it has on SST-2; for CP {glue:text}`most_cp` and LoRA the intervals of the two
# do not meet.
#
# All of this happens around one line. Always giving the commonest answer is right on {glue:text}`boolq_majority` % of
# these items. The means of the head alone and of one component are below that, neither clearly, so that a part of
# CP's gain ({glue:text}`boolq_below` % by the means) may be no more than the way up to it. The adapters of both
# families at LoRA's first budget are {glue:text}`boolq_over` points above the line on the average (ninety percent,
# {glue:text}`boolq_over_ends`, its share taken as known), which on {glue:text}`boolq_items` items would not be clear
# with any number of seeds. But that line asks for a threshold and not only for learning. In balanced accuracy, of
# which each label has a half, they are {glue:text}`boolq_balanced` points above the head alone (ninety-five percent,
# {glue:text}`boolq_balanced_ends`), and {glue:text}`most_cp` components {glue:text}`boolq_balanced_gain` above one
# ({glue:text}`boolq_balanced_gain_ends`): adapters do learn BoolQ, and size pays.
#
# ## Over tasks and backbones
#
# LoRA's first rank minus CP at its budget, or just under it, wherever adapters learn: on SmolLM2 the many seeds above,
# and on MiniLM, an encoder, those of [all examples](encoder.ipynb).

# %% tags=["hide-input"]
first = contrasts.first_rank(("smollm2-seeds", "smollm2-seeds-boolq", "minilm"))
of_first = [dataclasses.replace(c, group=charts.BACKBONE_NAMES[c.group]) for c in first]
charts.table(contrasts.contrast_table(contrasts.frame(of_first), "backbone", "LoRA − CP"))

# %% [markdown]
# If these {glue:text}`pooled_cells` are taken for a sample, LoRA's lead at its first rank is {glue:text}`pooled_first`
# points in the mean (ninety-five percent, {glue:text}`pooled_first_ends`; random effects), about which true leads have
# a standard deviation of {glue:text}`pooled_spread`. Above that rank no lead is seen on MiniLM: without BoolQ, where
# LoRA's larger ranks collapse at a rate chosen on SST-2, it is {glue:text}`pooled_above`
# ({glue:text}`pooled_above_ends`). The backbones share tasks, and all were put together after they were measured, so
# this describes them and is no test.
#
# ## What is not in it
#
# The variances are themselves estimates, in the first two sections from {glue:text}`seeds` seeds and one set of items
# a task, and all are those of one small decoder: a larger model may vary less. No other draw of BoolQ was trained on.
#
# Next: [what moves a run](causes.ipynb).

# %% tags=["remove-cell"]
figures = {name: noise.figures(of) for name, of in tasks.items()}
for name, of in figures.items():
    for key in ("error", "end", "unpaired", "apart", "average"):
        glue(f"{name}_{key}", of[key], display=False)
for name, key in (("sst2", "one"), ("rte", "items"), ("rte", "accuracy_end")):
    glue(f"{name}_{key}", figures[name][key], display=False)
families = found["boolq"][noise.FAMILIES]
# All of BoolQ's validation split, of which the protocol asks a part.
published = tomllib.loads((PROJECT / "book" / "published.toml").read_text())
all_items = published["validation"]["boolq"]
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
# LoRA's first rank and CP at its budget, and at four times that; CP's largest and its smallest.
LEAD, LAST, GAIN = (("lora", 1), ("cp", 11)), (("lora", 1), ("cp", 44)), (("cp", 44), ("cp", 1))


def minus(of, pair):
    """A cell minus another."""
    return compare(*(of.outcomes[cell] for cell in pair))


def misled(of, pair):
    return percent(noise.misled(*(of.outcomes[cell] for cell in pair), 3), 0)


def sd_of_lead(of):
    """How far its runs spread in LoRA's lead over CP at one budget."""
    return noise.spread((of.outcomes[LEAD[0]].right - of.outcomes[LEAD[1]].right).mean(1).tolist())[0]


def sds(of):
    """How far runs spread, by cell with an adapter."""
    adapters = [cell for cell in of.outcomes if cell[0] != HEAD]
    return [noise.spread(of.outcomes[cell].right.mean(1).tolist())[0] for cell in adapters]


leads, gains = ({task: minus(of, pair) for task, of in over_seeds.items()} for pair in (LEAD, GAIN))
gap, rte_lead, boolq_lead = leads["sst2"], leads["rte"], leads["boolq"]
drawn_gains = {task: minus(of, GAIN) for task, of in twice.items()}
first_gain = minus(over_draws["sst2"], GAIN)
# The readout alone, or always giving the commonest answer where that is better.
floors = {"rte": over_seeds["rte"].outcomes[HEAD, 0].right, "boolq": over_seeds["boolq"].majority}
corrected = holm([minus(over_seeds["rte"], pair).p_value() for pair in noise.KEYS])
for task in ("rte", "boolq"):
    of = over_seeds[task]
    above = estimate(rates.adapters(of) - floors[task])
    for key, value in {
        "seeds": str(leads[task].seeds),
        "gap": percent(leads[task].mean, 2),
        "gap_ends": bounds(leads[task].interval(), 2),
        "misled": misled(over_seeds[task], LEAD),
        "gain": percent(gains[task].mean, 2),
        "gain_ends": bounds(gains[task].interval(), 2),
        "over": percent(above.mean),
        "over_ends": bounds(interval(above)),
    }.items():
        glue(f"{task}_{key}", value, display=False)
of_dev = {(task, pair): draws.differences(dev[task], *pair) for task in MANY for pair in (LEAD, LAST, GAIN)}


def on_dev_with_ends(task, pair, asked):
    found = of_dev[task, pair][asked]
    return f"{signed(found.mean, 2)} ({bounds(found.interval(), 2)})"


last_apart = draws.difference(dev["sst2"], *LAST, {draws.LAST: 1.0, draws.EVAL: -1.0})
eleven = rates.response(rates.measured(("smollm2", "smollm2-rates"), "sst2")).query("label == 'cp' and size == 11")
labels = rates.commonest(rates.measured(("smollm2", "smollm2-rates"), "boolq"))
of_boolq_runs = over_seeds["boolq"].outcomes
for name, values in {
    "balanced": rates.adapters(over_seeds["boolq"]) - of_boolq_runs[HEAD, 0].right,
    "balanced_gain": of_boolq_runs[GAIN[0]].right - of_boolq_runs[GAIN[1]].right,
}.items():
    weighted = estimate(rates.balanced(values, labels))
    glue(f"boolq_{name}", percent(weighted.mean), display=False)
    glue(f"boolq_{name}_ends", bounds(weighted.interval()), display=False)
at_first, above_first = contrasts.pooled(first), contrasts.pooled(contrasts.further_ranks("minilm"))
glue("pooled_cells", str(len(first)), display=False)
glue("pooled_spread", percent(at_first.spread), display=False)
for name, of in (("first", at_first), ("above", above_first)):
    glue(f"pooled_{name}", signed(of.mean, 2), display=False)
    glue(f"pooled_{name}_ends", bounds(of.interval, 2), display=False)
key_study = cpadapt.load_study(PROJECT / "studies" / "smollm2-seeds.toml")
longer = cpadapt.read_evaluations(PROJECT / "results" / "smollm2-rates")
longer = longer[longer["learning_rate"].isin([plan.learning_rates[0] for plan in key_study.families.values()])]
on_dev = longer.groupby(["task", "step"])["dev_accuracy"].mean()
adapted = noise.runs({"seeds": over_seeds["sst2"], "draws": twice["sst2"]}).query("label != @HEAD")
heights = adapted.groupby(["over", "run"])["accuracy"].mean()
seed_sds, draw_sds, rte_sds = map(sds, (over_seeds["sst2"], over_draws["sst2"], over_seeds["rte"]))
to_majority = over_seeds["boolq"].majority - over_seeds["boolq"].outcomes["cp", 1].right.mean()
for name, value in {
    "hundred": str(gap.seeds),
    "thirty": str(first_gain.seeds),
    "hundred_gap": percent(gap.mean, 2),
    "hundred_gap_ends": bounds(gap.interval(), 2),
    "hundred_misled": misled(over_seeds["sst2"], LEAD),
    "key_steps": f"{key_study.protocol.steps:,}",
    "order_sd": percent(noise.spread(over_seeds["sst2"].outcomes[HEAD, 0].right.mean(1).tolist())[0], 2),
    "low_sd": percent(min(seed_sds), 2),
    "high_sd": percent(max(seed_sds), 2),
    "low_draw_sd": percent(min(draw_sds), 2),
    "high_draw_sd": percent(max(draw_sds), 2),
    "most_cp": str(over_seeds["sst2"].sizes("cp")[-1]),
    "shared_mean": percent(heights["seeds"].mean()),
    "worst_draw": percent(heights["draws"].min()),
    "best_draw": percent(heights["draws"].max()),
    "mean_draw": percent(heights["draws"].mean()),
    "papers_gap": signed(minus(tasks["sst2"], LEAD).mean, 2),
    "hundred_power": percent(gap.power(noise.EFFECTS[0], noise.MOST_SEEDS, gap.items), 0),
    "gap_sd": percent(sd_of_lead(over_seeds["sst2"]), 2),
    "gap_draw_sd": percent(sd_of_lead(over_draws["sst2"]), 2),
    "draws_gain": percent(drawn_gains["sst2"].mean, 2),
    "draws_gain_ends": bounds(drawn_gains["sst2"].interval(), 2),
    "first_gain": percent(first_gain.mean, 2),
    "first_gain_ends": bounds(first_gain.interval(), 2),
    "boolq_items": f"{boolq_lead.items:,}",
    "boolq_last_misled": misled(over_seeds["boolq"], LAST),
    "boolq_own_one": str(seeds_needed(boolq_lead, noise.EFFECTS[1])),
    "boolq_majority": percent(over_seeds["boolq"].majority),
    "boolq_below": percent(to_majority / gains["boolq"].mean, 0),
    "rte_dev_left": percent(on_dev["rte"].max() - on_dev["rte", key_study.protocol.steps], 2),
    "rte_low_sd": percent(min(rte_sds), 2),
    "rte_high_sd": percent(max(rte_sds), 2),
    "rte_told_ends": bounds(interval(rte_lead), 2),
    "rte_draws_told_ends": bounds(interval(minus(twice["rte"], LEAD)), 2),
    "rte_draws_gain": percent(drawn_gains["rte"].mean, 2),
    "rte_draws_gain_ends": bounds(drawn_gains["rte"].interval(), 2),
    "rte_gain_p": f"{corrected[noise.KEYS.index(GAIN)]:.3f}",
    "rte_own_two": str(seeds_needed(rte_lead, noise.EFFECTS[2])),
    "rte_lead_error": percent(rte_lead.standard_error, 2),
    "draws_known": str(first_gain.seeds + 1),
    "eleven_here": percent(eleven.loc[eleven["times"] == 10, "mean"].item()),
    "eleven_best": percent(eleven["mean"].max()),
    "sst2_items": str(gap.items),
    "dev_items": str(dev["rte"].items),
    "rte_lead_on_dev": on_dev_with_ends("rte", LEAD, draws.LAST),
    "rte_gain_on_dev": on_dev_with_ends("rte", GAIN, draws.LAST),
    "rte_lead_on_both": on_dev_with_ends("rte", LEAD, draws.BOTH),
    "rte_gain_on_both": on_dev_with_ends("rte", GAIN, draws.BOTH),
    "sst2_gain_on_dev": on_dev_with_ends("sst2", GAIN, draws.LAST),
    "sst2_gain_on_best": on_dev_with_ends("sst2", GAIN, draws.BEST),
    "sst2_last_on_dev": on_dev_with_ends("sst2", LAST, draws.LAST),
    "sst2_last_apart_p": f"{last_apart.p_value():.3f}",
    "dev_words": str(published["sst2_rows"]["dev_words"]),
    "eval_words": str(published["sst2_rows"]["eval_words"]),
    "dev_nested": percent(published["sst2_rows"]["dev_nested"], 0),
    "eval_nested": percent(published["sst2_rows"]["eval_nested"]),
    "rte_lead_end": percent(rte_lead.error_with(math.inf, rte_lead.items), 2),
    "rte_power": percent(rte_lead.power(noise.EFFECTS[1], noise.MOST_SEEDS, rte_lead.items), 0),
}.items():
    glue(name, value, display=False)
