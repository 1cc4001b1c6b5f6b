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
# # The readout hardly matters
#
# **Does it matter whether a trained head gives the answer, or the model's own words?**
#
# Hardly. With words instead of a head, adapters change by less than a point on average on SST-2, RTE and all of
# BoolQ. From 1000 examples of BoolQ they gain {q}`readout.words_gain.few` points.
# {says}`abs(readout.words_gain.sst2) < 1 and abs(readout.words_gain.rte) < 1 and abs(readout.words_gain.all) < 1`
# {says}`readout.words_gain.few.low > 0`
#
# SmolLM2-135M-Instruct, dequantized from four bits, with {q}`readout.seeds|unit` of each adapter on one draw of the
# examples.

# %% mystnb={"figure": {"caption": "Words minus head. BoolQ is with 1000 examples, or all."}} tags=["remove-input"]
from companion import readout
from companion.claims import MARGIN
from cpadapt.analysis import charts

charts.enable()
changes = charts.interval_chart(readout.changes(), "points, 95 % intervals", MARGIN)
changes.properties(title="Words change little")

# %% [markdown]
# The paper trains a {term}`head`. A decoder can also answer in its own words: a {term}`verbalizer` compares its scores
# for one word a label, such as {q}`readout.label_words.rte` on RTE. Nothing of it is trained, so all that is learned
# is in the adapter.
#
# LoRA's lead isn't shown to change on any task. On all of BoolQ it's {q}`readout.lead.words` points with words and
# {q}`readout.lead.head` with a head.
# {says}`all(readout.change.low < 0, readout.change.high > 0)`
# {says}`readout.lead.words.low > 0 and readout.lead.head.low > 0`

# %% mystnb={"code_prompt_show": "LoRA − CP", "code_prompt_hide": "LoRA − CP"} tags=["remove-input", "hide-output"]
charts.table(readout.gap_table())

# %% [markdown]
# ## Without an adapter it does matter
#
# The head alone is trained and words alone aren't. So words are {q}`readout.apart.sst2.head|negated|0` points worse on
# SST-2 and {q}`readout.apart.all.head|negated|0` on all of BoolQ. The smallest adapter is enough to close that gap:
# with one {term}`component`, words are no longer seen to be worse.
# {says}`readout.apart.sst2.head.high < -5 and readout.apart.all.head.high < -5`
# {says}`max(readout.apart_holm.sst2.head, readout.apart_holm.all.head) < 0.001`
# {says}`min(readout.apart.sst2.cp1.high, readout.apart.rte.cp1.high) > 0`
# {says}`min(readout.apart.few.cp1.high, readout.apart.all.cp1.high) > 0`

# %% mystnb={"code_prompt_show": "Accuracies", "code_prompt_hide": "Accuracies"} tags=["remove-input", "hide-output"]
charts.table(readout.accuracy_table())

# %% mystnb={"code_prompt_show": "By adapter", "code_prompt_hide": "By adapter"} tags=["remove-input", "hide-output"]
charts.table(readout.apart_table())

# %% [markdown]
# ## How sure?
#
# Of {q}`readout.comparisons` comparisons of single adapters {q}`readout.clear` is {term}`clear`, and
# {q}`readout.alike` is shown to be within a point: so few seeds tell averages only. We haven't tested why words help
# with 1000 examples of BoolQ, or whether other words would do. All runs have ten times the paper's rates, with
# {q}`readout.steps` steps, or {q}`readout.all_steps` on all of BoolQ.
# {says}`readout.clear == 1 and readout.apart_holm.few.cp11 < 0.05 and readout.alike == 'none'`
#
# **For you**: choose the readout by what you have to ship, not by accuracy.
#
# Next: [how the tensor is split](tensorization.ipynb).
