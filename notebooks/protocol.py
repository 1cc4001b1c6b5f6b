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
# # Only the adapter differs, and intervals decide
#
# **How do we measure, and how do we decide?**
#
# All adapters get the same examples, the same steps and the same choices on dev. What still differs between two of
# them is the adapter or chance, and an interval tells which.
#
# By default {q}`protocol.fields.paper` of the {q}`protocol.all_fields` settings of a run have the paper's values, as
# far as these are known; the others are ours. [The main study](main_study.ipynb) changes {q}`protocol.changed`.
# {says}`protocol.fields.paper + protocol.fields.ours == protocol.all_fields`

# %% mystnb={"figure": {"caption": "Every adapter gets the same examples, and is judged once."}} tags=["remove-input"]
from companion import protocol
from cpadapt.analysis import charts

charts.enable()
protocol.design()

# %% [markdown]
# Where the main study isn't named, the numbers are the default's, which are those of the paper's design. The
# {term}`rest` are training rows that a run drew neither for training nor for dev. It's judged on them as on test
# items, and more items make intervals narrower.
#
# An adapter at one size is a {term}`cell`. A {term}`run` is a cell at one {term}`rate <learning rate>` and
# {term}`seed`. A {term}`bank` trains many runs at once on one frozen {term}`backbone`. A budget is
# {term}`matched from below`: each family gets its largest size at or under it.
#
# ## Three kinds of luck
#
# - **Seeds.** Another seed would have trained another adapter.
# - **Items.** Other test items could have been asked.
# - **Draws.** Other examples could have been trained on.
#
# Seeds are cheap and items are not: no number of seeds makes up for few items. An accuracy $a$ on $n$ items has a
# standard error of $\sqrt{a(1-a)/n}$ from the items alone. On RTE that is {q}`protocol.rte_error|unit` at three
# quarters right.

# %% tags=["remove-input"]
charts.table(protocol.error_table())

# %% [markdown]
# So we compare adapters seed by seed and item by item: what is hard for both drops out of the difference. Intervals
# cover seeds and items together. Where each seed also has a {term}`draw <data seed>` of its own, as in [the main
# study](main_study.ipynb), they cover draws too.
#
# ## What we call it
#
# Over tasks, a difference is *shown* if its interval leaves out zero, and *equivalent* if it is clearly too small to
# matter. If neither, it is *open*: we can't tell.

# %% mystnb={"figure": {"caption": "What we call made-up differences, by 97 % intervals."}} tags=["remove-input"]
protocol.verdict_chart()

# %% [markdown]
# The dashed lines are the half point below which a difference counts as none, because less wouldn't change what anyone
# uses. [The plan](../book/plan.md) fixed these words before the main study was run. On single tasks and in
# [the paper's claims](claims.ipynb) less than 1 point counts as none: half a point
# [can't be detected](how_sure.ipynb) on one of our tasks. These have words of their own:
# {says}`claims.margin == 1 and all(how_sure.seen > 0.5)`

# %% tags=["remove-input"]
charts.table(protocol.word_table())

# %% [markdown]
# ## What we had to choose
#
# The paper doesn't report its batch, schedule, scales, start or prompts. We took what is public in full and nearest:
# MeZO's batch, LoRA scale and prompts {cite:p}`malladi2023mezo`, and the defaults of the Trainer. MELoRA's settings
# are from its authors' scripts, LoKr's from PEFT's comparison of methods.
#
# Two settings can't be the paper's. There is no dropout, because packed examples share one row. And the frozen weights
# are in float32 by default, so that a CPU can train; the paper has float16, and our large studies bfloat16.
#
# A learning rate suits one family and not another {cite:p}`lee2026lr`. So a study tries several, and {term}`dev`
# chooses.
#
# ## How sure?
#
# We know the paper's settings from a public reading note, not from its text. Dev chooses, so it flatters; eval doesn't
# choose. The {term}`best adapter` of [the main study](main_study.ipynb) is chosen on dev. Where a page names the best
# of many cells on eval, as [below one rank](encoder.ipynb), that number is too high, and the page says so.
#
# **For you**: compare adapters on the same examples and seeds, choose on dev, and look at the test set once.
#
# The rest is for those who want to check or change a setting.

# %% mystnb={"code_prompt_show": "Settings", "code_prompt_hide": "Settings"} tags=["remove-input", "hide-output"]
charts.table(protocol.field_table())

# %% mystnb={"code_prompt_show": "By family", "code_prompt_hide": "By family"} tags=["remove-input", "hide-output"]
charts.table(protocol.family_table())

# %% mystnb={"code_prompt_show": "Unreported", "code_prompt_hide": "Unreported"} tags=["remove-input", "hide-output"]
charts.table(protocol.silent_table())

# %% [markdown]
# :::{dropdown} The readout stands outside the budget
# The {term}`head` starts at zero, on pooled features that are layer-normed without parameters. It is the same in every
# run, so what is compared is what an adapter adds. The head alone is a cell too, the floor of every comparison.
#
# With `readout = "verbalizer"` nothing is trained besides the adapter: the {term}`verbalizer` compares the model's
# scores for words such as "Yes" and "No". Then the floor is the model as it is.
# :::
#
# :::{dropdown} The paper's pairs lie a little above their budget
# Its CP sizes cost up to {q}`protocol.excess|unit` more than the ranks that they stand beside. Matched from below, CP
# never costs more than LoRA.
# {says}`0 < protocol.excess_least and protocol.excess < 2`
# :::
#
# :::{dropdown} Change a setting
# Any setting, for a study or without one:
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
# A run's id is a hash of all its settings and its data, so a run under another protocol is never taken for the same.
# :::
