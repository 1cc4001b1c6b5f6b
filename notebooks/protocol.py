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
# # The protocol
#
# **What exactly is compared, and what had to be chosen where the paper is silent?**
#
# Runs that differ in {term}`family`, {term}`size`, {term}`learning rate` and {term}`seed` alone: same examples, same
# steps, same choice on {term}`dev`, one look at {term}`eval`. Of the {q}`protocol.all_fields` fields that fix the
# rest, {q}`protocol.fields.paper` have the paper's values as far as they are known, and {q}`protocol.fields.ours` are
# ours, each named, recorded and open to change.
# {says}`protocol.fields.paper + protocol.fields.ours == protocol.all_fields`

# %%
import dataclasses

import pandas as pd

import cpadapt
from companion import PROJECT, protocol
from cpadapt import Protocol
from cpadapt.analysis import charts
from cpadapt.families import counting
from cpadapt.records.config import RunConfig

charts.enable()

# %% [markdown]
# ## Field by field
#
# A {term}`protocol` is a value of `cpadapt.Protocol`, and stands whole in every {term}`record`. Its defaults follow
# {cite:t}`wang2026finer` where a value is known (second-hand: from a public reading note, not from the paper's own
# text), and `sources()` tells which those are.

# %% tags=["hide-input"]
charts.table(protocol.field_table())

# %% [markdown]
# The default precision is ours because a CPU is where most readers start; `studies/paper.toml` sets the paper's, and
# its protocol differs in nothing else. What belongs to a family is kept with the family. The learning rates of LoRA
# and CP are the paper's. The rest is ours, for MELoRA after its authors' scripts and for LoKr after PEFT's comparison
# of methods.

# %% tags=["hide-input"]
charts.table(protocol.family_table())

# %% [markdown]
# ## Where the paper is silent
#
# Of each of these the reading note found nothing in the paper. The nearest protocol that is public in full is MeZO's
# {cite:p}`malladi2023mezo`, which has the same {q}`protocol.nearest_caps` examples for training, dev and eval and the
# same target modules. From it come the batch of {q}`protocol.nearest.batch_size`, LoRA's $\alpha / r$ of
# {q}`protocol.nearest.lora_alpha` / {q}`protocol.nearest.lora_rank` and the prompts.

# %% tags=["hide-input"]
charts.table(protocol.silent_table())

# %% [markdown]
# ## What follows from each choice
#
# **The rate moves CP as its budget does.** On SmolLM2-135M-Instruct, dequantized from four bits, CP moves by
# {q}`rates.by_rate.rte.cp` points on RTE from the worst of {q}`rates.tried` rates to
# the best and by {q}`rates.by_size.rte.cp` from the worst of its sizes; on SST-2 its mean over sizes
# stays within {q}`rates.cp_flat` points at all of these rates ([measured there](rates.ipynb)). So a
# study names several rates a family, each a run of its own, and dev chooses among them, cell by cell. With one rate a
# family, which is what the paper is reported to use, families are compared at rates that may suit one and not the
# other {cite:p}`lee2026lr`.
#
# **Scale, raw norm and steps are rates too.** At the start $\lambda = 0$, so CP changes nothing and in the first step
# only $\lambda$ has a gradient. Adam moves a scalar by about the learning rate a step, so under a
# steady pull $|\lambda|$ reaches about the sum of all rates, and each component's size is that times the scale. Under
# our linear decay the paper's rate over its
# {q}`protocol.steps.paper` steps sums to {q}`protocol.reach.paper`; ten times the rate over a pilot's
# {q}`protocol.steps.pilot` to {q}`protocol.reach.pilot`. The length at which the raw vectors are stored,
# `raw_norm`, is one more: they act at unit length, and their gradient shrinks as that length grows ([the CP
# adapter](cp_adapter.ipynb)).
#
# **The head is outside the budget.** It starts at zero, on pooled features that are layer-normed without parameters,
# and has a rate of its own, {q}`protocol.head_rate`. On SmolLM2-135M it has {q}`protocol.head_scalars` scalars on a
# task of two labels, against CP's step of {q}`protocol.cp_step`. It is the same head in every run, so what is
# compared is what an adapter adds; and `head` alone is a cell too, the floor of every frontier.
#
# **Or there is no head.** With `readout = "verbalizer"` nothing is trained besides the adapter: a {term}`verbalizer`
# takes the scores of the label words' first tokens after the prompt from the decoder's own frozen output embedding, as
# MeZO does {cite:p}`malladi2023mezo`. The paper is reported to train a head, which learns the label set from nothing;
# a verbalizer asks for words that the decoder knows. Then the floor is the backbone as it is.
#
# **No dropout.** The attention that keeps packed examples apart has none, so any other value is refused. OPT's own
# default is not zero: where its cells are measured, that will be a recorded deviation.
#
# **Dev chooses, eval judges, once.** Dev comes from the training split and is never trained on. It chooses a run's
# step and a cell's rate. Eval chooses neither; every run is judged on it once. Where a page names the best cell, or
# the best under a budget, $U(B)$, that is a maximum over eval, and flatters.
#
# **Pairs.** A seed decides the initial weights and the order of the examples, the `data_seed` which examples are
# drawn. Runs of all families share the latter, so the same seed means the same examples in the same order, and all are
# judged on the same rows: differences can be taken seed by seed and example by example, and records keep what that
# needs.
#
# ## A budget, matched from below
#
# For a budget of $B$ scalars each family gets its largest size with $P(k) \le B$; what is left stays unspent. On the
# paper's backbone the grid that it is reported to have lies a little on the other side: its CP sizes cost more than
# the ranks that they stand beside.

# %%
paper = cpadapt.load_study(PROJECT / "studies" / "paper.toml")
opt = cpadapt.load_projections(paper.backbone)
pairs = []
for pair in paper.ladder.pairs:
    spent = {name: counting.count(name, opt, size) for name, size in pair.items()}
    below = counting.largest_size("cp", opt, spent["lora"])
    pairs.append(
        {
            "LoRA rank": pair["lora"],
            "its scalars": f"{spent['lora']:,}",
            "the paper's CP": pair["cp"],
            "its scalars, beyond LoRA's": f"{spent['cp'] - spent['lora']:+,}",
            "matched from below": below,
            "unspent": f"{spent['lora'] - counting.count('cp', opt, below):,}",
        }
    )
charts.table(pd.DataFrame(pairs))

# %% [markdown]
# The excess is at most {q}`protocol.excess|unit` of the budget, and CP has it. We match from below
# all the same, because then *at or under the budget* holds to the letter.
# {says}`0 < protocol.excess_least and protocol.excess < 2`
#
# ## The paper's grid, and ours
#
# Both are study files. The paper's is ready to run and not measured: it needs OPT-1.3B.

# %% tags=["hide-input"]
charts.table(protocol.grid_table())

# %% [markdown]
# The paper's grid has {q}`protocol.sizes.cp` sizes of CP and {q}`protocol.sizes.lora` of LoRA. The best of more cells
# is higher by luck alone, so the maximum of a frontier favours CP there ([by how much](parameter_steps.ipynb));
# comparisons at one budget do not have that fault. Its key cells are reported at a hundred seeds, which no pilot of
# ours has.
# {says}`protocol.sizes.cp > protocol.sizes.lora`
#
# ## What the evaluation set can resolve
#
# The accuracy $a$ measured on $n$ examples has a standard error of $\sqrt{a(1-a)/n}$ from the choice of examples
# alone, and neither seeds nor steps make it smaller.

# %% tags=["hide-input"]
charts.table(protocol.error_table())

# %% [markdown]
# On RTE that is {q}`protocol.rte_error` points at three quarters right. Between CP and LoRA at equal budgets the
# paper's RTE differences, at three seeds, are {q}`first_frontiers.published.rte.least` to
# {q}`first_frontiers.published.rte.most` points. Judging both on the same examples helps, as far as they are right on
# the same ones; {q}`noise.over_seeds.sst2.lora1_cp11|n` seeds settle what seeds do, and say nothing about other
# examples.
#
# ## Change it
#
# Any field of the protocol, for a study or without one:
#
# ```sh
# cpadapt run studies/smollm2-pilot.toml --set clip=0.5 --set schedule=constant --results build/clipped
# ```
#
# What belongs to a family stands in the study file:
#
# ```toml
# [families.cp]
# learning_rates = [2e-4, 2e-3]
# scale = 4.0
# options = { raw_norm = 2.0 }
# ```
#
# A run's id is a hash of its whole configuration and of its data, so a run under another protocol has another id and
# is never taken for the same:

# %%
run = RunConfig(backbone="smollm2", task="rte", family="head", size=0, seed=0, data_seed=0, protocol=Protocol())
other = dataclasses.replace(run, protocol=Protocol(clip=0.5))
run.config_id, other.config_id

# %% [markdown]
# Next: [what we will test](../book/plan.md), written before it is run.
