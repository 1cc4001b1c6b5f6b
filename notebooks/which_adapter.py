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
# Take rank-1 LoRA if it fits. If it doesn't, take CP, with as many components as the budget holds.
#
# At equal size the two are equivalent over {q}`main_study.tasks|unit`; below it, one component has
# {q}`planned.share|full` of the best adapter's gain.
# {says}`main_study.verdict == 'equivalent' and planned.share.low > 70`

# %% mystnb={"figure": {"caption": "Each family's largest that fits, and which to take."}} tags=["remove-input"]
from IPython.display import HTML

from companion import planner

HTML(planner.form())

# %% [markdown]
# The counts are those of `cpadapt plan`. *File* is what is saved, in float32: CP and LoRA as they are trained, other
# families as plain LoRA. *AdamW's state* is two float32 numbers for each scalar. *First rate* is where we would start;
# a dash is a family whose rate isn't measured here.
#
# ## Other families go smaller, unmeasured
#
# Where even CP's smallest size is too large, TinyLoRA {cite:p}`tinylora`, Uni-LoRA {cite:p}`unilora` or FourierFT
# {cite:p}`gao2024fourierft` may be the better choice: they go down to one scalar. There TinyLoRA stores more than it
# trains; the other two draw what is frozen from a seed. LoKr {cite:p}`yeh2024lycoris` steps as CP does, and its first
# rank reaches the updates that one CP component does. Here is one query projection of Qwen2.5-Coder-1.5B:

# %% tags=["remove-input"]
from companion import which_adapter
from cpadapt.analysis import charts

charts.table(which_adapter.family_table())

# %% [markdown]
# Uni-LoRA's scalars count for the whole model; TinyLoRA's may too. Every family merges into the weights exactly. PEFT
# {cite:p}`peft` turns its own tuners into LoRA by an SVD, which need not be exact.
#
# ## What to expect
#
# | your case | take | because |
# |---|---|---|
# | rank-1 LoRA fits | that | CP is equivalent, and everything supports LoRA |
# | it must be smaller, or you keep thousands | CP | its smallest size keeps most of the gain |
# | more than a thousand examples, a hard task | a larger size of either | [size pays there](when_size_pays.ipynb) |
# | training memory is short | either; quantize the model | [a step needs as much](what_a_run_costs.ipynb) |
# | few examples of a hard task | first the head alone | an adapter may learn nothing at all |
#
# - **Rate.** Start at the rate above, and try three times more and less on {term}`dev`. Lower it for large adapters,
#   which collapse at rates that small ones like ([the learning rate](rates.ipynb)).
# - **Shipping.** A CP adapter exports exactly as plain LoRA of as many ranks as components. That file is larger: the
#   small one is CP's own ([use it in PEFT](use_in_peft.ipynb)).
# - **Judging.** Ask 1000 eval items or more, and don't trust a lead of a point from three seeds
#   ([how sure can one be?](how_sure.ipynb)).
#
# ## How sure?
#
# The advice rests on Qwen2.5-Coder-1.5B and 1000 examples a task. [Two smaller models](model_size.ipynb) agree on one
# component; there it's open who leads at equal size. Other models, longer training and other readouts may differ. What
# families beyond LoRA and CP are worth isn't measured yet.
# {says}`model_size.share.qwen05.low > 50 and model_size.share.smollm2.low > 50`
# {says}`model_size.verdict.qwen05 == 'open' and model_size.verdict.smollm2 == 'open'`
#
# Next: [parameter steps](parameter_steps.ipynb).
