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
# # BoolQ: learned a little from a thousand examples
#
# **Do more components pay on BoolQ, and does LoRA stay ahead?**
#
# On SmolLM2-135M-Instruct, whose weights are dequantized from four bits, under the paper's protocol and on one draw of
# the examples (the worst of {q}`noise.draws_known` on SST-2), adapters learn a little and at a threshold that hides
# it. Their accuracy, {q}`tasks.adapters.boolq.least` to {q}`tasks.adapters.boolq.most` % over {q}`tasks.seeds.boolq`
# {term}`seeds <seed>`, is about that of the {term}`readout` alone, {q}`tasks.readout.boolq` %, and of always giving
# the commoner answer, {q}`tasks.majority.boolq` %; their {term}`balanced accuracy`, which counts both classes the
# same, is {q}`tasks.balanced.boolq.least` to {q}`tasks.balanced.boolq.most` %, where the readout has
# {q}`tasks.balanced.boolq.readout` and one answer for all has a half, on the average over matched budgets
# {q}`tasks.gain.boolq|signed` points above the readout (90 %, {q}`tasks.gain.boolq|interval|signed`). LoRA's cells lie
# above CP's by {q}`tasks.lead.boolq` points on average (95 %, {q}`tasks.lead.boolq|interval`), at rates at which
# CP is behind in training, too.
# {says}`tasks.adapters.boolq.least < tasks.readout.boolq < tasks.majority.boolq < tasks.adapters.boolq.most`
# {says}`50 < tasks.balanced.boolq.readout < tasks.balanced.boolq.least < tasks.balanced.boolq.most < 60`
# {says}`tasks.gain.boolq.low > 0 and tasks.lead.boolq.low > 0 and tasks.least_loss_behind.boolq > 0`
# {shared}`task.frontier.boolq`
# All of CP's cells lie within {q}`tasks.cp_range.boolq` points, and below the {q}`tasks.majority.boolq` % of always
# giving the commoner answer.
# {says}`tasks.best.boolq.cp < tasks.majority.boolq`
#
# {shared}`task.loss.boolq`
# Little of that arrives on eval: {q}`tasks.taught.boolq` of the {q}`tasks.compared.boolq` cells at matched budgets,
# each for itself, are shown to be above the readout in balanced accuracy, and {q}`tasks.untaught.boolq` are not.
#
# The paper reports that BoolQ gains from more components and then stays slightly below LoRA.
# {shared}`task.paper.boolq`
# CP is behind at every one, and none of the {q}`tasks.pairs.boolq` is clear of its error after Holm's correction. The
# average is: {q}`tasks.lead.boolq|negated|signed` points.
# {shared}`task.average.boolq`
# [The claims](claims.ipynb) say of it *{q}`tasks.lead_verdict.boolq`*: a cell that is not shown to learn decides
# nothing.
# {says}`tasks.least_lead.boolq > 0 and tasks.clear.boolq == 0 and tasks.lead.boolq.low > 0`
# {shared}`task.plateau.boolq`
# {shared}`task.best.boolq`
# {shared}`task.dev.boolq`
# Dev chose the step, and the commoner answer is {q}`tasks.dev_majority.boolq` % of dev and {q}`tasks.majority.boolq` %
# of eval.
# {says}`tasks.dev_majority.boolq > tasks.majority.boolq`
# {shared}`task.training.boolq`
# So more steps alone are unlikely to help. At [higher rates](rates.ipynb) accuracy is higher. With all of BoolQ's
# examples [much is learned, and components pay](readout.ipynb).
# {says}`tasks.late.boolq < tasks.early.boolq`
# {shared}`task.items.boolq`
#
# Next: [seeds and items](noise.ipynb).
