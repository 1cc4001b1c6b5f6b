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
# # Which adapter, which size?
#
# **I have a model and a budget. Which adapter do I take, and how large?**
#
# Take LoRA of rank 1 if it fits. If not, take CP, or LoKr if you want PEFT alone, as large as fits.
#
# At equal size CP and LoRA are equivalent over {q}`main_study.tasks|unit`; below it, one component has
# {q}`planned.share|full` of the best adapter's gain, on an encoder {q}`encoder.way.boolq` to
# {q}`encoder.way.sick|unit`.
# {says}`main_study.verdict == 'equivalent' and planned.share.low > 70`
# {says}`min(encoder.way) == encoder.way.boolq and max(encoder.way) == encoder.way.sick`

# %% mystnb={"figure": {"caption": "Each family's largest that fits, and which to take."}} tags=["remove-input"]
from IPython.display import HTML

from companion import planner

HTML(planner.form())

# %% [markdown]
# The counts are those of `cpadapt plan`. *File* is what an adapter file holds, in float32: what is trained of LoRA, CP
# and LoKr, and the equal LoRA adapter of families that have no type in PEFT. *AdamW's state* is two float32 numbers
# for each scalar. With `task_type="SEQ_CLS"` PEFT saves the head in the same file: for two classes on
# Qwen2.5-Coder-1.5B {q}`which_adapter.head|unit`, beside {q}`main_study.scalars.cp1` of one component.
#
# ## The rule
#
# 1. **LoRA's rank 1 fits:** take it. With more than 1000 examples, also try a larger LoRA.
# 2. **It doesn't fit:** take CP, with as many components as fit, or LoKr if you want PEFT alone. If you keep
#    thousands of adapters, your budget is what one file may take.
# 3. **Not even one component fits:** nothing so small is measured here.
#
# Size is for many examples: with all of BoolQ's, four ranks gain {q}`which_adapter.more_ranks|full` over one, and LoRA
# leads CP by {q}`readout.lead.head|unit` at equal size ([when size pays](when_size_pays.ipynb)).
# {says}`which_adapter.more_ranks.low > 0 and readout.lead.head.low > 0`
#
# The second line names CP first because CP is measured on more models and tasks, not because it's shown to be better.
# LoKr {cite:p}`yeh2024lycoris` starts as small, its first rank reaches the updates of one component, and PEFT has it
# without a further package. At their smallest, CP minus LoKr is {q}`families.lead.smallest.minilm|full|signed` on
# MiniLM and {q}`families.lead.smallest.smollm2|full|signed` on SmolLM2, and both are open
# ([all families](families.ipynb)).
# {says}`families.verdict.smallest.minilm == 'open' and families.verdict.smallest.smollm2 == 'open'`
#
# ## Other families go smaller, unmeasured
#
# TinyLoRA {cite:p}`tinylora`, Uni-LoRA {cite:p}`unilora` and FourierFT {cite:p}`gao2024fourierft` go down to one
# scalar, so they may be the choice where one component doesn't fit. TinyLoRA stores more than it trains; the other two
# draw what is frozen from a seed. Here is one query projection of Qwen2.5-Coder-1.5B:

# %% tags=["remove-input"]
from companion import which_adapter
from cpadapt.analysis import charts

charts.table(which_adapter.family_table())

# %% [markdown]
# Uni-LoRA's scalars count for the whole model; TinyLoRA's may too. Every family merges into the weights exactly, and
# each is a LoRA adapter of the rank in the table or less. TinyLoRA's and Uni-LoRA's ranks are an option, here PEFT's
# default. PEFT {cite:p}`peft` turns its own tuners into LoRA by an SVD, which at that rank is exact but for rounding.
#
# ## What to expect
#
# - **Gain.** The shares on an encoder are MiniLM's on four tasks, with all their examples; which of the two lowers
#   them isn't tested. On RTE no adapter there is shown to beat the head, so on a hard task train the head alone first
#   ([below one rank](encoder.ipynb)). {says}`encoder.taught == 'SST-2, SICK, MRPC and BoolQ'`
#   {says}`encoder.fit.rte == 0`
# - **Rate.** Start LoRA at {q}`which_adapter.first_rate.lora.rank`, and CP at
#   {q}`which_adapter.first_rate.cp.component` up to the size of LoRA's rank 1 and
#   {q}`which_adapter.first_rate.cp.ranks` from four times that: the middle of what dev chose on three models, of which
#   none is more than {q}`which_adapter.rate_off|unit` off. A dash in the planner is a family or a size that nothing
#   was tuned near. Then try three times more and less on {term}`dev` ([what goes with a rate](use_in_peft.ipynb)).
#   {says}`which_adapter.rate_off < 3.5 and which_adapter.first_rate.lora.ranks == which_adapter.first_rate.lora.rank`
#   {says}`which_adapter.first_rate.cp.rank == which_adapter.first_rate.cp.component`
# - **Memory.** [A training step needs as much](what_a_run_costs.ipynb) with either; quantize the model.
# - **Serving.** CP saves storage, not a server's memory: vLLM, say, loads LoRA alone. As plain LoRA a CP adapter has a
#   rank for each component, and so takes more there than LoRA's rank 1.
# - **Judging.** Ask 1000 eval items or more. With three seeds, call a lead below
#   {q}`how_sure.seen.sst2.three|0|unit` a tie ([how sure can one be?](how_sure.ipynb)).
#
# ## How sure?
#
# The advice rests on Qwen2.5-Coder-1.5B and 1000 examples a task. [Two smaller models](model_size.ipynb) agree on one
# component; there it's open who leads at equal size. Other models, longer training and other readouts may differ. What
# families beyond LoRA and CP are worth is measured on [two small models](families.ipynb) alone, and of families that
# start at one scalar not at all. {says}`which_adapter.unmeasured == 'TinyLoRA, VeRA, FourierFT and Uni-LoRA'`
# {says}`model_size.share.qwen05.low > 50 and model_size.share.smollm2.low > 50`
# {says}`model_size.verdict.qwen05 == 'open' and model_size.verdict.smollm2 == 'open'`
#
# Next: [parameter steps](parameter_steps.ipynb).
