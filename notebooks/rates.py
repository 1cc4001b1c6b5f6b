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
# # A high learning rate ruins large adapters
#
# **How much hangs on the learning rate?**
#
# Large adapters collapse at high rates. On RTE, going from ten to {q}`rates.highest` times the paper's rate costs
# those larger than LoRA's first rank {q}`rates.rise.rte.large|unit|negated`. Smaller ones aren't shown to lose.
# {says}`rates.rise.rte.large.high < 0 and rates.rise.sst2.large.high < 0`
# {says}`rates.rise.rte.small.high > 0 and rates.rise.sst2.small.high > 0 and rates.rise.boolq.small.high > 0`
#
# The {q}`rates.rise.rte.large|level` interval is {q}`rates.rise.rte.large|interval|negated`. SmolLM2-135M-Instruct,
# dequantized from four bits, {q}`rates.all_runs|unit`: {q}`rates.rise.rte.large|n` for each task, size and rate.

# %% mystnb={"figure": {"caption": "Gain by the step to the highest rate; 95 % intervals."}} tags=["remove-input"]
from companion import rates
from companion.claims import MARGIN
from cpadapt.analysis import charts

charts.enable()
rates.rise_chart()

# %% [markdown]
# On RTE every mean up to the size of LoRA's first rank rises at this step, and every larger one falls. Taken together,
# the fall is {term}`clear` on RTE and SST-2, and the rise is on no task.
# {says}`rates.turn < rates.least_falling and rates.rise.boolq.large < 0 < rates.rise.boolq.large.high`
# {says}`rates.rise.rte.small.low < 0 and rates.rise.sst2.small.low < 0 and rates.rise.boolq.small.low < 0`
#
# No run diverged. But {q}`rates.one_answer.highest` runs at the highest rate give one answer to every item, all of
# them larger than LoRA's first rank. At lower rates none does.
# {says}`rates.diverged == 0 and rates.one_answer.lower == 0 and rates.least_collapsed > rates.turn`
#
# ## Beside the size
#
# The paper has one rate for each family, our default. We tried {q}`rates.tried|unit`, from that one to
# {q}`rates.highest` times as high:

# %% mystnb={"figure": {"caption": "RTE by rate: means of three seeds; a line is one size."}} tags=["remove-input"]
records = rates.runs_at_all_rates(rates.STUDIES, "rte")
charts.rate_chart(rates.response(records), rates.floor(records)).properties(title="RTE: large sizes fall")

# %% mystnb={"figure": {"caption": "Worst to best mean of three seeds, without intervals."}} tags=["remove-input"]
rates.moved_chart()

# %% [markdown]
# In {q}`rates.rate_moves_more.all` of the six pairs of task and family the rate moves a mean at least as far as the
# size does. Without the highest rate that's so in {q}`rates.rate_moves_more.but_highest`: we can't tell which matters
# more. These ranges have no intervals, and chance widens them, most where there are many sizes. SST-2 is the calmest:
# CP's mean over its sizes stays within {q}`rates.cp_flat` points at all rates.
# {says}`0.6 < rates.by_rate.sst2.cp / rates.by_size.sst2.cp < 1.6`
# {says}`0.6 < rates.by_rate.rte.cp / rates.by_size.rte.cp < 1.6`
# {says}`0.6 < rates.by_rate.boolq.cp / rates.by_size.boolq.cp < 1.6`

# %% mystnb={"code_prompt_show": "SST-2", "code_prompt_hide": "SST-2"} tags=["remove-input", "hide-output"]
charts.table(rates.response_table("sst2"))

# %% mystnb={"code_prompt_show": "RTE", "code_prompt_hide": "RTE"} tags=["remove-input", "hide-output"]
charts.table(rates.response_table("rte"))

# %% mystnb={"code_prompt_show": "BoolQ", "code_prompt_hide": "BoolQ"} tags=["remove-input", "hide-output"]
charts.table(rates.response_table("boolq"))

# %% [markdown]
# ## Who leads hardly changes
#
# Here {term}`dev` chooses a rate for each {term}`cell`.

# %% mystnb={"figure": {"caption": "What chosen rates change; 95 % intervals, dashed a point."}} tags=["remove-input"]
charts.interval_chart(rates.tuned_rows(), "points", MARGIN).properties(title="Leads hardly change")

# %% [markdown]
# Dashed is the point below which a difference on one task counts as none ([why](protocol.ipynb)). LoRA's mean is the
# higher one on all three tasks, with the paper's rates and with chosen ones. No lead has changed clearly. On BoolQ,
# dev chose rates at which {q}`rates.boolq_compared_one_answer` of the {q}`rates.boolq_compared` runs give one answer,
# so adapters aren't shown to beat the commonest answer there.
# {says}`all(rates.lead > 0)`
# {says}`all(rates.change.low < 0, rates.change.high > 0)`
# {says}`rates.boolq_over_majority.low < 0`

# %% mystnb={"code_prompt_show": "By budget", "code_prompt_hide": "By budget"} tags=["remove-input", "hide-output"]
charts.table(rates.single_table())

# %% [markdown]
# ## How sure?
#
# All runs have one draw of the examples, on SST-2 the worst of {q}`noise.draws_known`. Three seeds can't tell single
# adapters apart. The intervals take the chosen rates as given: with other dev sets, RTE's lead would move by a
# standard deviation of {q}`rates.redrawn_sd.rte` points. Small adapters may like still higher rates, because
# {q}`rates.on_the_edge.small` of their {q}`rates.choices.small` choices fell on the highest one.
# {says}`rates.on_the_edge.small / rates.choices.small > rates.on_the_edge.all / rates.choices.all`
#
# **For you**: start at ten times the paper's rate, try three times more and less on dev, and go lower for a large
# adapter.
#
# Next: [CP's hidden knobs](knobs.ipynb).
