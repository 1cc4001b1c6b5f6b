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
# # SST-2: flat on the sentences of eval
#
# **How much budget does SST-2 need?**
#
# On SmolLM2-135M-Instruct, whose weights are dequantized from four bits, under the paper's protocol and on one draw of
# the examples, which is the worst of {q}`noise.draws_known` here, {q}`causes.shared_below` points below the others'
# mean at [other rates](causes.ipynb), adapters of {q}`tasks.scalars.sst2.least` to {q}`tasks.scalars.sst2.most`
# scalars reach {q}`tasks.adapters.sst2.least` to {q}`tasks.adapters.sst2.most` % over {q}`tasks.seeds.sst2`
# {term}`seeds <seed>`, against {q}`tasks.readout.sst2` % for the {term}`readout` alone, and CP with
# {q}`tasks.plateau_size.sst2` components, {q}`tasks.plateau_budget.sst2` % of LoRA's first rank, is within a point of
# the best CP. CP minus LoRA at matched budgets is {q}`tasks.lead.sst2|negated|signed` points on the average (95 %
# interval {q}`tasks.lead.sst2|interval|negated|signed`), and none of the {q}`tasks.pairs.sst2` single differences is
# clear of its error. On [dev](noise.ipynb), which is of phrases as the training examples are, many components are
# clearly ahead of one.
# {says}`noise.shared_draw < noise.other_draws.least`
# {says}`tasks.adapters.sst2.least > tasks.readout.sst2 + 1 and tasks.clear.sst2 == 0`
# {says}`noise.on_dev.sst2.cp44_cp1.low > 0 and noise.on_dev_at_best.sst2.cp44_cp1.low > 0`
# {shared}`task.frontier.sst2`
# The standard error counts seeds and evaluation items both ([`cpadapt.analysis.statistics`](../book/api.md)); the
# deviation over seeds is the smaller part of it.
# {says}`tasks.seeds_in_error.sst2 < 50`
#
# {shared}`task.loss.sst2`
# Eval hardly gains by all of that.
#
# {shared}`task.paper.sst2`
# No single pair can tell the families apart, and none shows them to be alike either.
# {shared}`task.average.sst2`
# Here it is the {q}`tasks.items.sst2` items that limit it. That average is what [the claims](claims.ipynb) are judged
# by.
# {says}`tasks.clear.sst2 == 0 and tasks.least_alike.sst2 > 0.05`
# {says}`tasks.lead_error_limit.sst2 > 0.71 * tasks.lead_error.sst2`
# {shared}`task.plateau.sst2`
# No size is the first in most of the draws. The curve is so flat that where its plateau begins cannot be read off
# these runs; what can be said is how little is at stake on these items.
# {says}`tasks.plateau_surest.sst2 < 50`
# {shared}`task.best.sst2`
# {shared}`task.dev.sst2`
# A part of the first is that dev chose the step, and that its {q}`tasks.dev_items.sst2` items come from the training
# split. Which run is a little better than another, dev can hardly say.
# {says}`abs(tasks.correlation.sst2) < 0.3`
# {shared}`task.training.sst2`
# Most of the training changes nothing that dev sees.
# {says}`tasks.late.sst2 < tasks.early.sst2`
# {shared}`task.items.sst2`
#
# Next: [RTE](rte.ipynb).
