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
# # RTE: few items, and no lead that they show
#
# **Does RTE remain LoRA's, however finely CP's budget is chosen?**
#
# That cannot be told from its {q}`tasks.items.rte` items. On SmolLM2-135M-Instruct, whose weights are dequantized from
# four bits, under the paper's protocol and on one draw of the examples (the worst of {q}`noise.draws_known` on SST-2),
# LoRA's mean is above CP's at every matched budget, by {q}`tasks.lead.rte` points on the average over
# {q}`tasks.seeds.rte` {term}`seeds <seed>` (95 % interval {q}`tasks.lead.rte|interval`), and none of the
# {q}`tasks.pairs.rte` single differences is {term}`clear` of its own. With {q}`noise.over_seeds.rte.lora1_cp11|n`
# seeds the first budget, at ten times the rates, has {q}`noise.over_seeds.rte.lora1_cp11` points
# ({q}`noise.over_seeds.rte.lora1_cp11|interval`).
# {says}`noise.over_seeds.rte.lora1_cp11.low < 0 < noise.over_seeds.rte.lora1_cp11.high`
# {says}`tasks.least_lead.rte > 0 and tasks.lead.rte.low < 0 and tasks.clear.rte == 0`
# {shared}`task.frontier.rte`
# The {term}`readout` alone has {q}`tasks.readout.rte` %, hardly more than the {q}`tasks.majority.rte` % of always
# giving the commoner answer. In {term}`balanced accuracy`, which counts both classes the same, adapters at matched
# budgets are on the average {q}`tasks.gain.rte|signed` points above it (90 % interval
# {q}`tasks.gain.rte|interval|signed`), and {q}`tasks.taught.rte` of these {q}`tasks.compared.rte` cells, each for
# itself, are shown to be; {q}`tasks.untaught.rte` are not.
# {says}`0 < tasks.readout.rte - tasks.majority.rte < 2 and tasks.gain.rte.low > 0`
#
# {shared}`task.loss.rte`
#
# The paper reports that RTE stays LoRA's.
# {shared}`task.paper.rte`
# CP is behind at every one, by {q}`tasks.lead.rte` points on the average.
# {shared}`task.average.rte`
# The 95 % interval holds zero, and the 90 % one, by which [the claims](claims.ipynb) are judged, is
# {q}`tasks.lead_judged.rte|interval`: without one of the budgets, or by one answer, it would hold zero as well. There
# "LoRA is ahead" is *{q}`tasks.lead_verdict.rte`*.
# {says}`tasks.least_lead.rte > 0 and tasks.lead.rte.low < 0`
# {says}`tasks.least_low_without_one.rte < 0 < tasks.lead_judged.rte.low < tasks.one_answer.rte`
# {shared}`task.plateau.rte`
# No size is it in half of the draws: where a plateau begins is not something that {q}`tasks.items.rte` items and
# {q}`tasks.seeds.rte` seeds can tell.
# {says}`tasks.plateau_surest.rte < 50`
# {shared}`task.best.rte`
# LoRA's second figure is below even the mean of its cells. Where cells are as alike as these, the one that is lucky on
# one half of few items has the less luck left on the other, so it errs low; what the first adds by its choice lies
# between none and the difference of the two.
# {says}`tasks.best_held_out.rte.lora < tasks.mean.rte.lora`
# {shared}`task.dev.rte`
# That is chiefly CP's, whose cells differ more: among CP's runs it is {q}`tasks.correlation_within.rte.cp`, among
# LoRA's {q}`tasks.correlation_within.rte.lora`.
# {says}`tasks.sd.rte.cp > tasks.sd.rte.lora`
# {says}`tasks.correlation_within.rte.cp > tasks.correlation.rte - 0.01`
# {says}`tasks.correlation_within.rte.lora < tasks.correlation.rte - 0.3`
# {shared}`task.training.rte`
# At other rates it is [another picture](rates.ipynb).
# {shared}`task.items.rte`
# Nearly as many go as come.
# {says}`abs(tasks.change.rte.gained - tasks.change.rte.lost) <= 2`
#
# Next: [BoolQ](boolq.ipynb).
