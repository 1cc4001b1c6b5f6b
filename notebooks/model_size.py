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
# # One component keeps most of the gain on a smaller model too
#
# **Does the model's size change what a small adapter is worth, or who leads?**
#
# With a third of the parameters, one {term}`component` has {q}`model_size.share.qwen05|unit` of the best adapter's
# gain, against {q}`model_size.share.qwen15|unit`. Who leads at equal size is open there.
# {says}`model_size.share.qwen05.low > 50 and model_size.lead.qwen05.low < 0 < model_size.lead.qwen05.high`
#
# {q}`main_study.tasks|unit` with {q}`main_study.draws|unit` each on both models; with its
# {q}`model_size.share.qwen05|level` interval the share is {q}`model_size.share.qwen05|full`.

# %% mystnb={"figure": {"caption": "Gain over the head alone, mean over tasks, by model."}} tags=["remove-input"]
from companion import main_study, model_size, plan
from cpadapt.analysis import charts

charts.enable()
charts.gain_chart(model_size.gain_rows(), main_study.GAIN, row=60)

# %% [markdown]
# The adapters gain more on the smaller model. There one component costs {q}`model_size.costs.qwen05|unit` against
# rank-1 LoRA, and on the larger one {q}`model_size.costs.qwen15|unit`.
# {says}`model_size.gain.qwen05 > model_size.gain.qwen15 and model_size.costs.qwen05 > model_size.costs.qwen15`
# {says}`model_size.costs.qwen05.low > 0`
#
# Task by task: [every cell](frontier.ipynb).

# %% tags=["remove-input"]
charts.table(model_size.table())

# %% [markdown]
# ## Who leads at equal size
#
# On the smaller model LoRA leads by {q}`model_size.lead.qwen05|unit` ({q}`model_size.lead.qwen05|level` interval
# {q}`model_size.lead.qwen05|interval|signed`). That shows neither a lead nor equivalence.
#
# It is {q}`planned.number.test10|full` more than on the larger model. Whether the two differ is one of
# [the plan's tests](planned.ipynb), which aren't judged yet.
# {says}`model_size.lead.qwen05.high > 0.5 and planned.number.test10.low < 0 < planned.number.test10.high`

# %% mystnb={"figure": {"caption": "LoRA minus CP at equal size, by task and model."}} tags=["remove-input"]
charts.interval_chart(model_size.lead_rows(), "LoRA − CP, points", plan.MARGIN)

# %% [markdown]
# RTE and MNLI are uncertain on the smaller model, because LoRA collapsed there on some draws. Of its
# {q}`model_size.collapsed.lora.qwen05|n` runs {q}`model_size.collapsed.lora.qwen05` end far below the head alone, and
# on the larger model {q}`model_size.collapsed.lora.qwen15`. None of CP's runs does on either model. *Far* is more than
# {q}`model_size.far|unit`, which we chose after seeing the data.
# {says}`model_size.collapsed.lora.qwen05 > 1 and model_size.collapsed.lora.qwen15 == 1`
# {says}`model_size.collapsed.cp.qwen05 == 0 and model_size.collapsed.cp.qwen15 == 0`
#
# ## How sure?
#
# Both models are of one family. Each has one rate for all tasks, chosen on {term}`dev`; a lower one might spare LoRA
# the collapses, which isn't tested. SmolLM2-135M-Instruct, a third model, is **not measured** yet on all tasks.
#
# **For you**: what holds on one model is a start, not an answer: compare on [your own task](your_task.ipynb).
#
# Next: [the learning rate](rates.ipynb).
