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
# # The pilot can't tell the families apart
#
# **What did the first measured runs show?**
#
# Later studies supersede this pilot. Its {q}`first_frontiers.seeds` seeds show that one CP component helps on SST-2,
# and not which family is ahead: none of {q}`first_frontiers.pairs.all` differences is clear.
# {says}`first_frontiers.one_gain.sst2.low > 0 and first_frontiers.clear == 0`
#
# {q}`first_frontiers.runs|unit` on two models: SmolLM2-135M-Instruct, dequantized from four bits, and MiniLM.

# %% mystnb={"figure": {"caption": "LoRA minus CP; MiniLM is on SST-2. 95 % intervals."}} tags=["remove-input"]
from companion import first_frontiers
from companion.claims import MARGIN
from companion.first_frontiers import MINI, SMOL
from cpadapt.analysis import charts

charts.enable()
charts.interval_chart(first_frontiers.gap_rows(), "LoRA − CP, points", MARGIN)

# %% mystnb={"code_prompt_show": "Pairs", "code_prompt_hide": "Pairs"} tags=["remove-input", "hide-output"]
charts.table(first_frontiers.difference_table())

# %% [markdown]
# One interval leaves out zero: on RTE LoRA's first rank is {q}`first_frontiers.nearest_gap|unit` ahead. After Holm's
# correction for all comparisons its p value is {q}`first_frontiers.nearest_holm`. Over
# {q}`noise.over_seeds.rte.lora1_cp11|n` [seeds](noise.ipynb) that lead became
# {q}`noise.over_seeds.rte.lora1_cp11|1|unit`. {says}`first_frontiers.nearest == 'smollm2-pilot rte 1'`
# {says}`noise.over_seeds.rte.lora1_cp11 < first_frontiers.nearest_gap / 4`
#
# Six of the differences are on generated tasks. CP is behind on all of these, at one rate a family and
# {q}`first_frontiers.toy_steps|unit`. {says}`first_frontiers.most_gap.toy < 0 and first_frontiers.pairs.toy == 6`
#
# ## What it seemed to show
#
# On SST-2 one component takes the frozen model from {q}`first_frontiers.head.sst2` to {q}`first_frontiers.one.sst2` %.
# That is most of the way to the best cell. {says}`first_frontiers.share.sst2 > 75`

# %% mystnb={"figure": {"caption": "SST-2 on SmolLM2: mean accuracy, by trainable scalars."}} tags=["remove-input"]
charts.frontier_chart(first_frontiers.of_task(SMOL, "sst2"), budget_slider=True)

# %% [markdown]
# On RTE CP's mean rises by {q}`first_frontiers.rise.rte.cp|unit` from one component to
# {q}`first_frontiers.most_components`. Over {q}`noise.over_seeds.rte.cp44_cp1|n` [seeds](noise.ipynb) the rise is
# {q}`noise.over_seeds.rte.cp44_cp1|1|unit`.
# {says}`noise.over_seeds.rte.cp44_cp1 < first_frontiers.rise.rte.cp / 4`

# %% mystnb={"figure": {"caption": "RTE on SmolLM2: mean accuracy, by trainable scalars."}} tags=["remove-input"]
charts.frontier_chart(first_frontiers.of_task(SMOL, "rte"), budget_slider=True)

# %% mystnb={"code_prompt_show": "SST-2", "code_prompt_hide": "SST-2"} tags=["remove-input", "hide-output"]
charts.table(first_frontiers.accuracy_table(SMOL, "sst2"))

# %% mystnb={"code_prompt_show": "RTE", "code_prompt_hide": "RTE"} tags=["remove-input", "hide-output"]
charts.table(first_frontiers.accuracy_table(SMOL, "rte"))

# %% mystnb={"code_prompt_show": "MiniLM", "code_prompt_hide": "MiniLM"} tags=["remove-input", "hide-output"]
charts.table(first_frontiers.accuracy_table(MINI, "sst2"))

# %% mystnb={"code_prompt_show": "Generated", "code_prompt_hide": "Generated"} tags=["remove-input", "hide-output"]
charts.table(first_frontiers.toy_table())

# %% [markdown]
# ## The rate counts too
#
# {term}`Dev <dev>` prefers ten times the paper's rates in every one of {q}`first_frontiers.rate_cells` {term}`cells
# <cell>`. But these runs have {q}`first_frontiers.pilot_steps|unit` where the paper has {q}`protocol.steps.paper`, and
# a higher rate makes up for a short training. [The rates at the paper's length](rates.ipynb) are another study.
# {says}`first_frontiers.higher == first_frontiers.rate_cells`

# %% mystnb={"code_prompt_show": "Rates", "code_prompt_hide": "Rates"} tags=["remove-input", "hide-output"]
charts.table(first_frontiers.rate_table())

# %% mystnb={"code_prompt_show": "Studies", "code_prompt_hide": "Studies"} tags=["remove-input", "hide-output"]
charts.table(first_frontiers.overview_table())

# %% [markdown]
# ## How sure?
#
# Three seeds say little about how much seeds vary, and RTE has only {q}`tasks.items.rte|unit`. Of
# {q}`first_frontiers.chosen|unit` with an adapter on SmolLM2, {q}`first_frontiers.best_at_last` were best at the last
# evaluation, so longer training may have gone further. {says}`first_frontiers.seeds == 3`
#
# Next: [the engine](engine.ipynb).
