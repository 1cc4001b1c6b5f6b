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
# # On SST-2, size hardly matters
#
# **How much budget does SST-2 need?**
#
# Hardly any: adapters of every size, from one CP component to the largest LoRA, have {q}`tasks.adapters.sst2.least` to
# {q}`tasks.adapters.sst2.most` % right. A trained {term}`head` alone has {q}`tasks.readout.sst2` %.
# {says}`tasks.adapters.sst2.least > tasks.readout.sst2 + 1 and noise.over_seeds.sst2.cp44_cp1.high < 1`
#
# {shared}`task.figure.sst2`
#
# All runs share one {term}`draw` of the examples, the worst of {q}`noise.draws_known` here. At [other
# rates](causes.ipynb) its accuracies are {q}`causes.shared_below|unit` below the others' mean.
# {says}`noise.shared_draw < noise.other_draws.least`
# {shared}`task.equal.sst2`
#
# None of these differences is clear of its error, and none is shown to be within a point. On average LoRA leads by
# {q}`tasks.lead.sst2|full`. {says}`tasks.clear.sst2 == 0 and tasks.least_alike.sst2 > 0.05`
#
# With {q}`noise.over_seeds.sst2.lora1_cp11|n` seeds, at ten times these rates, LoRA's first rank [does
# lead](noise.ipynb), by {q}`noise.over_seeds.sst2.lora1_cp11|1|full`. {says}`noise.over_seeds.sst2.lora1_cp11.low > 0`
# {shared}`task.training.sst2`
# Most of the training changes nothing that dev sees. {says}`tasks.late.sst2 < tasks.early.sst2`
#
# ## How sure?
#
# It's one draw of the examples, and other items could move the curve more than other seeds. With endless seeds
# {q}`tasks.lead_error_limit.sst2` points of the lead's error of {q}`tasks.lead_error.sst2` would remain. On
# [dev](noise.ipynb), made of phrases as the training examples are, many components are clearly ahead of one.
# {says}`tasks.lead_error_limit.sst2 > 0.71 * tasks.lead_error.sst2`
# {says}`noise.on_dev.sst2.cp44_cp1.low > 0 and noise.on_dev_at_best.sst2.cp44_cp1.low > 0`
#
# Where the plateau begins can't be read off these runs: no size is its first in half of the redraws.
# {says}`tasks.plateau_surest.sst2 < 50`
# {shared}`task.choice.sst2`
#
# **For you**: on a task as easy as this, start with the smallest adapter.
# {shared}`task.folded.sst2`
#
# Next: [the ledger of RTE](rte.ipynb).
