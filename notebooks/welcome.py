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
# # Adapters below rank 1 still help
#
# **How small can an adapter be, and how sure are we?**
#
# A {term}`CP adapter` is built from short vectors. The smallest has {q}`main_study.smaller|unit` fewer trainable
# scalars than rank-1 LoRA. It still keeps {q}`planned.share|unit` of what the best adapter tried adds to the accuracy
# of the {term}`head` alone. At equal size CP and LoRA are equivalent on average.
# {says}`main_study.smaller > 17 and 75 < planned.share < 85 and main_study.verdict == 'equivalent'`
#
# {q}`main_study.tasks` classification tasks, with 1000 examples and {q}`main_study.steps|unit` each, on
# Qwen2.5-Coder-1.5B-Instruct. On [smaller models](model_size.ipynb) who leads is open.
#
# {q}`planned.share|level` intervals: {q}`planned.share|interval` % of the gain; LoRA minus CP is
# {q}`main_study.primary|unit`, {q}`main_study.primary|interval|signed`.

# %% mystnb={"figure": {"caption": "CP 1: one component. CP 17: LoRA 1's size. Bars: 97 %."}} tags=["remove-input"]
from companion import model_size
from cpadapt.analysis import charts

charts.enable()
model_size.first_chart()

# %% [markdown]
# A point is one percent of the test items. Left: gains on the largest model, whose weights are dequantized from four
# to six bits. Right: LoRA minus CP on each model, the mean over LoRA's two ranks and CP of their sizes; the dashed
# lines are half a point, below which we count a difference as none. Adapters are compared on the same examples, so two
# may differ clearly where their bars overlap. The best adapter is each task's, chosen on {term}`dev` among LoRA of two
# ranks and CP of up to {q}`main_study.most_components|unit`.
#
# **For you**: if rank-1 LoRA fits your budget, use it, because every library loads it; with many examples, try a
# larger LoRA. If it doesn't fit, say because you keep thousands of adapters, take CP with as many components as fit,
# or LoKr, which PEFT has. One component costs {q}`main_study.one_component_costs|full` on average against rank-1 LoRA
# ([which adapter, which size?](which_adapter.ipynb)).
# {says}`main_study.one_component_costs.low > 0`
#
# ## What else we found
#
# - **High learning rates ruin large adapters.** Small ones aren't shown to suffer
#   ([the learning rate](rates.ipynb)).
# - **On two smaller models** one component has {q}`model_size.share.qwen05|full` and
#   {q}`model_size.share.smollm2|full` of the best gain, and who leads at equal size is open ([model
#   size](model_size.ipynb)).
#   {says}`model_size.share.qwen05.low > 50 and model_size.share.smollm2.low > 50`
#   {says}`model_size.verdict.qwen05 == 'open' and model_size.verdict.smollm2 == 'open'`
# - **With many examples, size paid in the one case tried.** On SmolLM2-135M and all of BoolQ's examples CP gains
#   {q}`readout.first_gain|full` from one component to the size of rank-1 LoRA, which leads there by
#   {q}`readout.lead.head|full` ([when size pays](when_size_pays.ipynb)).
#   {says}`readout.first_gain.low > 0 and readout.lead.head.low > 0`
# - **LoRA's first rank's size is enough for CP** with so few examples: four times as much is equivalent
#   ([the plan's tests](planned.ipynb)). {says}`planned.verdict.test5 == 'equivalent' and planned.plateau == '17'`
# - **No family is shown to be ahead at equal size**, on two small models and six tasks. MELoRA and LoRA are
#   equivalent; at their smallest, whether CP or LoKr gains more is open ([families](families.ipynb)).
#   {says}`families.verdict.melora.minilm == families.verdict.melora.smollm2 == 'equivalent'`
#   {says}`families.verdict.smallest.minilm == families.verdict.smallest.smollm2 == 'open'`
# - **Three seeds tell little.** On SST-2, {q}`noise.wrong_sign.sst2.lora1_cp11|unit` of choices of three seeds put the
#   wrong adapter ahead, or neither ([how sure can one be?](how_sure.ipynb)).
#   {says}`noise.wrong_sign.sst2.lora1_cp11 > 10`
# - **In the design of {cite:t}`wang2026finer`**, with lower rates and ten times the steps, LoRA of equal size leads on
#   BoolQ, by {q}`size.gap.boolq|negated` points, where ours has no clear leader; on SST-2 and RTE three seeds can't
#   tell. Its three claims stay open there ([the paper's size](size.ipynb)). {says}`main_study.on_task.boolq.high > 0`
#   {says}`size.gap.boolq.high < 0`
#   {says}`planned.verdict.test12 == planned.verdict.test13 == planned.verdict.test14 == 'open'`
#   {says}`size.gap.sst2.low < 0 < size.gap.sst2.high and size.gap.rte.low < 0 < size.gap.rte.high`
#
# ## The question
#
# LoRA {cite:p}`hu2022lora` spends a {term}`budget` one {term}`rank` at a time: {q}`parameter_steps.step.lora` scalars
# on a `2048×2048` projection. A CP adapter spends it one {term}`component` at a time, {q}`parameter_steps.step.cp`
# scalars. Does the finer step buy a better adapter? {cite:t}`wang2026finer` asked this on OPT-1.3B. This book is a
# companion to their paper that runs: its numbers come from records of {q}`what_was_run.done|unit`, on models of
# other families. OPT-1.3B itself is **not measured**, because its weights weren't at hand. What the paper did and
# reports we know from a public reading note, not from its text.
#
# ## Where to go
#
# You should know LoRA; tensors are explained on the way.
#
# | you have | read |
# |---|---|
# | two minutes | this page, and [which adapter, which size?](which_adapter.ipynb) |
# | half an hour | [parameter steps](parameter_steps.ipynb), then the findings, from [below one rank](encoder.ipynb) |
# | a model to adapt | [use it in PEFT](use_in_peft.ipynb), [your own task](your_task.ipynb) |
# | a GPU and a question | [run it yourself](../book/run_it_yourself.md) |
# | doubts | [how we measure and decide](protocol.ipynb), [the plan](../book/plan.md), and *Evidence* |
#
# ## How to cite
#
# Cite the paper for the idea, and this software for its measurements. The licence is Apache-2.0.
#
# ```bibtex
# @inproceedings{wang2026finer,
#   title     = {Finer Parameter Steps for Low-Rank {PEFT}: A Controlled Study with {CP} Tensor Adapters},
#   author    = {Wang, X. and Wang, X. and Zhang, Y. and Vorobyov, S. and Ollila, E. and Wang, Z.},
#   booktitle = {ICML 2026 Workshop on CoLoRAI},
#   year      = {2026},
#   note      = {arXiv:2606.00428}
# }
# @software{cpadapt,
#   title   = {cpadapt: an executable companion to Finer Parameter Steps for Low-Rank {PEFT}},
#   author  = {{The cpadapt authors}},
#   year    = {2026},
#   version = {0.1.0}
# }
# ```
#
# Next: [which adapter, which size?](which_adapter.ipynb)
