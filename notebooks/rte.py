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
# # On RTE, the items are too few to tell
#
# **Does RTE remain LoRA's, however finely CP's budget is chosen?**
#
# We can't tell from {q}`tasks.items.rte|unit`. LoRA's mean is {q}`tasks.lead.rte` points above CP's here, and
# {q}`noise.over_seeds.rte.lora1_cp11|1` with many more seeds, and both intervals include zero.
# {says}`tasks.lead.rte.low < 0 < tasks.lead.rte and tasks.clear.rte == 0`
# {says}`noise.over_seeds.rte.lora1_cp11.low < 0 < noise.over_seeds.rte.lora1_cp11`
#
# {shared}`task.figure.rte`
#
# The {term}`head` alone has {q}`tasks.readout.rte` %, hardly more than always giving the commoner answer. Adapters
# learn more: in {term}`balanced accuracy` they gain {q}`tasks.gain.rte|unit` over the head (90 % interval
# {q}`tasks.gain.rte|interval`). Some sizes aren't shown to gain, so the [claims](claims.ipynb) don't judge who leads.
# {says}`0 < tasks.readout.rte - tasks.majority.rte < 2`
# {says}`tasks.gain.rte.low > 0 and tasks.taught.rte < tasks.compared.rte`
# {shared}`task.equal.rte`
#
# LoRA's mean is ahead at every size, and no difference is clear of its error. On average it is ahead by
# {q}`tasks.lead.rte|full`. {says}`tasks.least_lead.rte > 0 and tasks.clear.rte == 0 and tasks.lead.rte.low < 0`
#
# With {q}`noise.over_seeds.rte.lora1_cp11|n` seeds, at ten times these rates, LoRA's first rank is [ahead
# by](noise.ipynb) {q}`noise.over_seeds.rte.lora1_cp11|1|full`.
# {shared}`task.training.rte`
# At [other rates](rates.ipynb) the curve looks different.
#
# ## How sure?
#
# More seeds would help little: with endless seeds {q}`tasks.lead_error_limit.rte` points of the lead's error of
# {q}`tasks.lead_error.rte` would remain, because the items are few. From CP's smallest size to its largest,
# {q}`tasks.change.rte.gained|unit` are gained in all runs and {q}`tasks.change.rte.lost` are lost.
# {says}`tasks.lead_error_limit.rte > 0.71 * tasks.lead_error.rte`
# {shared}`task.choice.rte`
#
# **For you**: count your test items before you compare adapters; as few as these can't show a lead of two points.
# {says}`tasks.lead.rte.low < 0 and 2 < tasks.lead.rte < 2.5`
# {shared}`task.folded.rte`
#
# Next: [the ledger of BoolQ](boolq.ipynb).
