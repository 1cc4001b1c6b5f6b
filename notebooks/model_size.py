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
# # One component keeps most of the gain on smaller models too
#
# **Does the model's size change what a small adapter is worth, or who leads?**
#
# With a third and with a tenth of the parameters, one {term}`component` has {q}`model_size.share.qwen05|unit` and
# {q}`model_size.share.smollm2|unit` of the {term}`best adapter`'s gain, much as on the plan's model. Who leads at
# equal size is open on both. {says}`model_size.share.qwen05.low > 50 and model_size.share.smollm2.low > 50`
# {says}`model_size.lead.qwen05.low < 0 < model_size.lead.qwen05.high`
# {says}`model_size.lead.smollm2.low < 0 < model_size.lead.smollm2.high`
#
# {q}`main_study.tasks|unit` with {q}`main_study.draws|unit` each on all three models. The plan's model has
# {q}`model_size.share.qwen15|full`; this and all brackets on this page are {q}`model_size.share.qwen15|level`
# intervals.

# %% mystnb={"figure": {"caption": "Mean gain over the head alone, with 97 % intervals."}} tags=["remove-input"]
from companion import main_study, model_size, plan
from cpadapt.analysis import charts

charts.enable()
charts.gain_chart(model_size.gain_rows(), main_study.GAIN, row=60, level=main_study.LEVEL)

# %% [markdown]
# The adapters gain more over the {term}`head` alone on the smaller models. Rank-1 LoRA gains
# {q}`model_size.gain.smollm2|unit` on the smallest and {q}`model_size.gain.qwen15|unit` on the largest. Against rank-1
# LoRA one component costs accuracy on both Qwen models. On SmolLM2 its interval just holds zero.
# {says}`model_size.gain.qwen05 > model_size.gain.qwen15 and model_size.gain.smollm2 > model_size.gain.qwen05`
# {says}`model_size.costs.qwen05.low > 0 and model_size.costs.qwen15.low > 0`
# {says}`-0.1 < model_size.costs.smollm2.low and model_size.costs.smollm2.low < 0`

# %% tags=["remove-input"]
charts.table(model_size.table())

# %% [markdown]
# ## Who leads at equal size
#
# LoRA minus CP is {q}`model_size.lead.qwen05|full` on Qwen2.5-Coder-0.5B and {q}`model_size.lead.smollm2|full` on
# SmolLM2. Neither shows a lead or equivalence, which needs all of the interval within half a point.
# {says}`model_size.verdict.qwen05 == 'open' and model_size.verdict.smollm2 == 'open'`
#
# Against the plan's model the differences are {q}`planned.number.test10|full` and {q}`planned.number.test11|full`.
# Two of [the plan's tests](planned.ipynb) ask whether they are zero, and both are open.
# {says}`planned.verdict.test10 == 'open' and planned.verdict.test11 == 'open'`
# {says}`planned.number.test10.low < 0 < planned.number.test10.high`
# {says}`planned.number.test11.low < 0 < planned.number.test11.high`

# %% mystnb={"figure": {"caption": "LoRA minus CP by task and model, with 97 % intervals."}} tags=["remove-input"]
charts.interval_chart(model_size.lead_rows(), "LoRA − CP, points", plan.MARGIN, level=main_study.LEVEL)

# %% [markdown]
# RTE and MNLI are uncertain on Qwen2.5-Coder-0.5B, because LoRA collapsed there on some draws: of its
# {q}`model_size.collapsed.lora.qwen05|n` runs {q}`model_size.collapsed.lora.qwen05` end far below the head alone. On
# the larger model it is {q}`model_size.collapsed.lora.qwen15`, on SmolLM2 none. None of CP's runs does on any model.
# *Far* is more than {q}`model_size.far|unit`, which we chose after seeing the first two models.
# {says}`model_size.collapsed.lora.qwen05 > 1 and model_size.collapsed.lora.qwen15 == 1`
# {says}`model_size.collapsed.lora.smollm2 == 0 and model_size.collapsed.cp.smollm2 == 0`
# {says}`model_size.collapsed.cp.qwen05 == 0 and model_size.collapsed.cp.qwen15 == 0`
#
# ## How sure?
#
# Three models are few, and the smallest is also of another family, SmolLM2-135M-Instruct, dequantized from four bits.
# Each has one rate for all tasks, chosen on {term}`dev`; a lower one might spare LoRA the collapses, which isn't
# tested.
#
# **For you**: what holds on one model is a start, not an answer: compare on [your own task](your_task.ipynb).
#
# Next: [the learning rate](rates.ipynb).
