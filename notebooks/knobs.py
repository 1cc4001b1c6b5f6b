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
# # CP's rate, scale and raw length act together
#
# **Which of CP's hidden knobs move its accuracy at LoRA's first rank?**
#
# Rate, scale and {term}`raw length <raw norm>` do, each through the other two. A higher rate gains
# {q}`knobs.beside.rate_length.upper.smollm2|unit` with long raw vectors and loses
# {q}`knobs.beside.rate_length.lower.smollm2|negated` with short ones.
# {says}`knobs.which_shown.smollm2 == 'rate × raw length, rate × scale and scale × raw length'`
# {says}`knobs.beside.rate_length.upper.smollm2.low > 0 > knobs.beside.rate_length.lower.smollm2.high`
#
# SmolLM2-135M-Instruct, {q}`knobs.runs.smollm2|unit` of CP {q}`knobs.components.smollm2`:
# {q}`knobs.tried.every.smollm2|unit`, {q}`knobs.tasks.smollm2|unit`, {q}`knobs.draws.smollm2|unit`, judged on
# {term}`dev` alone; {q}`knobs.effect.rate.smollm2|level` intervals.

# %% mystnb={"figure": {"caption": "Effects from low to high; 95 % intervals, uncorrected."}} tags=["remove-input"]
from companion import knobs
from cpadapt.analysis import charts

charts.enable()
knobs.effect_chart("smollm2").properties(title="Only interactions survive")

# %% [markdown]
# An effect is what a knob does from its low level to its high one, averaged over the other knobs. An interaction (×)
# is half of what one knob's effect changes by when the other goes from low to high. A curvature (²) is the mean of
# both levels minus the middle. All {q}`knobs.shown.smollm2|n` were [planned](../book/plan.md), as means over SST-2,
# RTE and TREC. The middle levels are today's.
#
# Corrected for all {q}`knobs.shown.smollm2|n` by Holm, {q}`knobs.shown.smollm2` of them are shown, and each is an
# interaction. Another {q}`knobs.before_correction.smollm2` have an interval without zero, but aren't shown after the
# correction. No effect of warm-up, λ's start or its weight decay is shown. No run diverged.
# {says}`knobs.diverged.smollm2 == 0`

# %% mystnb={"code_prompt_show": "Knobs and levels", "code_prompt_hide": "Hide"} tags=["remove-input", "hide-output"]
charts.table(knobs.knob_table())

# %% mystnb={"code_prompt_show": "All effects", "code_prompt_hide": "Hide"} tags=["remove-input", "hide-output"]
charts.table(knobs.effect_table("smollm2"))

# %% [markdown]
# ## Roughly one dial

# %% mystnb={"figure": {"caption": "A knob's effect, by another's level; 95 % intervals."}} tags=["remove-input"]
charts.interval_chart(knobs.beside_rows("smollm2"), "points", 0.0, row=38).properties(title="Each effect turns round")

# %% [markdown]
# Each of these effects changes its sign with the other knob's level. That roughly fits a single dial, rate × scale /
# raw length: a higher rate moves everything faster, a higher scale enlarges the update, and longer raw vectors
# [turn more slowly](cp_adapter.ipynb). Too much hurts RTE, and too little hurts TREC. We thought of the dial after
# seeing the effects.
# {says}`knobs.beside.rate_scale.lower.smollm2.low > 0 > knobs.beside.rate_scale.upper.smollm2.high`
# {says}`knobs.beside.scale_length.upper.smollm2.low > 0 > knobs.beside.scale_length.lower.smollm2.high`

# %% mystnb={"figure": {"caption": "Mean accuracy by the dial; 95 % intervals."}} tags=["remove-input"]
knobs.dial_chart("smollm2").properties(title="Too much hurts RTE, too little TREC")

# %% [markdown]
# Over all three tasks, settings at an eighth of the middle's dial lie
# {q}`knobs.dial_end.least.smollm2|full|negated` below the mean of all settings, and those at eight times
# {q}`knobs.dial_end.most.smollm2|full|negated`.
#
# Taken together, the three interactions are mostly what these settings lose beside the others, and they are few:
# {q}`knobs.dial_end.least.smollm2|n` at each end.
#
# Of the variance of the settings' mean accuracies the dial's five places
# explain {q}`knobs.explained.dial.smollm2|unit`, on the data that it was thought of with; the six knobs one by one
# explain {q}`knobs.explained.knobs.smollm2|unit`.
# {says}`knobs.dial_range.least.smollm2 == 8 and knobs.dial_range.most.smollm2 == 8`
# {says}`knobs.dial_end.least.smollm2.high < 0 and knobs.dial_end.most.smollm2.high < 0`
# {says}`knobs.turned_up.rte.smollm2.high < 0 and knobs.turned_down.trec.smollm2.high < 0`
#
# ## Tasks pull apart

# %% mystnb={"figure": {"caption": "Effects by task; 95 % intervals, uncorrected."}} tags=["remove-input"]
charts.interval_chart(knobs.task_rows("smollm2"), "points", 0.0).properties(title="RTE and TREC pull apart")

# %% [markdown]
# An average over tasks hides that they differ. TREC gains from a higher rate and a higher scale, and loses with longer
# raw vectors. RTE loses with a higher scale, and SST-2 hardly moves. So one setting for all three is a compromise.
# These intervals are of single tasks, which the plan doesn't test.
# {says}`knobs.by_task.rate.trec.smollm2.low > 0 and knobs.by_task.scale.trec.smollm2.low > 0`
# {says}`knobs.by_task.length.trec.smollm2.high < 0 and knobs.by_task.scale.rte.smollm2.high < 0`
# {says}`max(knobs.by_task.rate.sst2.smollm2.high, knobs.by_task.scale.sst2.smollm2.high) < 1`
# {says}`min(knobs.by_task.length.sst2.smollm2.low, knobs.by_task.scale.sst2.smollm2.low) > -1`
#
# ## What dev chose

# %% tags=["remove-input"]
charts.table(knobs.choice_table("smollm2"))

# %% [markdown]
# Each is the best of its settings on dev, over all tasks and draws, so its accuracy there is likely too high, and most
# for the best of {q}`knobs.tried.every.smollm2`. The table describes the choice and compares nothing. CP as today has
# today's raw length, start and decay. LoRA's settings are rates, each with and without a warm-up.
#
# Some knobs stand at the end of their levels: {q}`knobs.at_end.today.smollm2` for CP as today, and
# {q}`knobs.at_end.every.smollm2` with all knobs. A better setting may lie beyond, but the plan said beforehand that we
# go no further. LoRA's rate isn't at an end, and a knob of two levels always is.
# {says}`knobs.at_end.lora.smollm2 == 'none'`
#
# The plan has four tests, on other draws: CP with all knobs minus CP as today, and LoRA minus CP with all knobs, on
# two models. They're **not measured** yet. So whether the gap to LoRA closes we can't tell. No default changes; one
# does only if CP with all knobs is shown to be ahead of CP as today on both models.
# {says}`knobs.not_measured == 'knobs-0.5b, knobs-confirmed-smollm2 and knobs-confirmed-0.5b'`
#
# ## How sure?
#
# The intervals hold for other draws and items on these tasks, not for other tasks, nor for other levels of the knobs.
# Single tasks differ: on SST-2 none of the three interactions is clear. Each run is evaluated at two steps and counts
# at the better one, which lifts all accuracies a little. A larger model may answer otherwise: that study isn't run.
# {says}`knobs.by_task.rate_length.sst2.smollm2.low < 0 < knobs.by_task.rate_length.sst2.smollm2.high`
# {says}`knobs.by_task.rate_scale.sst2.smollm2.low < 0 < knobs.by_task.rate_scale.sst2.smollm2.high`
# {says}`knobs.by_task.scale_length.sst2.smollm2.low < 0 < knobs.by_task.scale_length.sst2.smollm2.high`
#
# **For you**: choose CP's rate on dev, and choose it anew if you change its scale or raw length. Whether it pays to
# change the other knobs isn't measured.
#
# Next: [families on one axis](families.ipynb).
