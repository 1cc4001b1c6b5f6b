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
# # Errors in full
#
# **Which differences between adapters are clear, over seeds, draws and items?**
#
# LoRA's first {term}`rank` is a little ahead of CP of its size: by {q}`noise.over_seeds.sst2.lora1_cp11|unit` on SST-2
# and {q}`noise.over_seeds.boolq.lora1_cp11` on BoolQ. On RTE the evaluation items can't tell.
# {says}`noise.over_seeds.sst2.lora1_cp11.low > 0 and noise.over_seeds.boolq.lora1_cp11.low > 0`
# {says}`noise.over_seeds.rte.lora1_cp11.low < 0 < noise.over_seeds.rte.lora1_cp11`
#
# SmolLM2-135M-Instruct, dequantized from four bits, with {q}`noise.over_seeds.sst2.lora1_cp11|n` seeds
# ({q}`noise.over_seeds.boolq.lora1_cp11|n` on BoolQ) on one draw of the examples, on SST-2 the worst of
# {q}`noise.draws_known`; and {q}`noise.over_draws.sst2.lora1_cp11|n` other draws.
# {says}`noise.shared_draw < noise.other_draws.least`

# %% mystnb={"figure": {"caption": "SST-2: differences in three ways, with 95 % intervals."}} tags=["remove-input"]
from companion import noise
from companion.claims import MARGIN
from cpadapt.analysis import charts

charts.enable()
charts.interval_chart(noise.interval_rows("sst2"), "difference, points", MARGIN)

# %% [markdown]
# The bars are 95 % intervals, and the dashed lines a point on either side. Each row is measured in three ways: on the
# evaluation items over seeds, on the same items over draws with two seeds each, and on the {term}`dev` examples of
# these draws after the last step.
#
# Runs have ten times the paper's rates, the highest tried at which no run's training loss ended above that of the
# {term}`readout` ([the learning rate](rates.ipynb)), and {q}`noise.steps|unit`. The mean of longer runs on dev was at
# best {q}`noise.dev_left.rte` points higher. {says}`noise.dev_left.sst2 == 0 and noise.dev_left.boolq == 0`
#
# ## SST-2
#
# On the validation sentences CP is flat: its largest size here, {q}`noise.most_components`
# {term}`components <component>`, is within a point of its smallest, over seeds and over draws. On dev it isn't: there
# the largest leads by {q}`noise.on_dev.sst2.cp44_cp1|full`.
# {says}`noise.alike_over_seeds.sst2.cp44_cp1 < 0.05 and noise.alike_over_draws.sst2.cp44_cp1 < 0.05`
# {says}`noise.on_dev_p.sst2.cp44_cp1 < 0.05 and noise.on_dev_at_best.sst2.cp44_cp1.low > 0`
#
# LoRA's first rank is ahead of both larger CPs over seeds and over draws. On dev it's ahead of CP of its size, and not
# of the largest. Dev and validation disagree there by more than chance (p {q}`noise.on_dev_and_on_eval_p`).
#
# Dev is made of training rows, which are phrases of {q}`noise.words.dev|unit` in the median; validation's sentences
# have {q}`noise.words.eval`. The phrases may favour adapters that learn by heart: {q}`noise.dev_nested|unit` of dev's
# are part of a training row or contain one, and {q}`noise.eval_nested|unit` of validation's.
# {says}`noise.over_draws.sst2.lora1_cp11.low > 0 and noise.over_draws.sst2.lora1_cp44.low > 0`
# {says}`noise.over_seeds.sst2.lora1_cp44.low > 0 and noise.on_dev.sst2.lora1_cp11.low > 0`
# {says}`noise.on_dev.sst2.lora1_cp44 < 0 and noise.on_dev_and_on_eval_p < 0.05`

# %% mystnb={"figure": {"caption": "SST-2: every run, by what runs differ in."}} tags=["remove-input"]
charts.spread_chart(noise.runs({"seeds": noise.over_seeds("sst2"), "draws": noise.over_draws("sst2")}))

# %% [markdown]
# The draw that all seeds share is the worst: adapters have {q}`noise.shared_draw|unit` on it, and
# {q}`noise.other_draws.mean|unit` on the others, none below {q}`noise.other_draws.least|unit`. Differences between
# adapters are the same on it, within their errors. The head alone depends more on its draw than on its order of
# examples. {says}`all(noise.on_the_shared_draw.low < 0, noise.on_the_shared_draw.high > 0)`
# {says}`noise.sd_over_draws.sst2.head.low > noise.sd_over_seeds.sst2.head.high`

# %% mystnb={"code_prompt_show": "Differences", "code_prompt_hide": "Differences"} tags=["remove-input", "hide-output"]
charts.table(noise.difference_table("sst2"))

# %% mystnb={"code_prompt_show": "On dev", "code_prompt_hide": "On dev"} tags=["remove-input", "hide-output"]
charts.table(noise.dev_table("sst2"))

# %% mystnb={"code_prompt_show": "Spreads", "code_prompt_hide": "Spreads"} tags=["remove-input", "hide-output"]
charts.table(noise.spread_table("sst2", "seeds", "draws"))

# %% [markdown]
# *Alike* is the p value of a difference of a point or more. *Three seeds mislead* says how often three of the seeds
# give a difference another sign than all of them, or none. *Sd* is how far one run lies from the mean of its like, in
# points. *Holm* is the p value of no difference at the last step, corrected over the table; the best step was chosen
# by these very answers.
#
# ## RTE

# %% mystnb={"figure": {"caption": "RTE: differences in three ways, with 95 % intervals."}} tags=["remove-input"]
charts.interval_chart(noise.interval_rows("rte"), "difference, points", MARGIN)

# %% [markdown]
# Adapters learn RTE: the two at LoRA's first rank's size are {q}`noise.over_floor.rte` points above the head alone
# ({q}`noise.over_floor.rte|level` interval {q}`noise.over_floor.rte|interval`). Whether size pays is open on the
# evaluation items. Over seeds the largest CP gains {q}`noise.over_seeds.rte.cp44_cp1` points on the smallest, which
# just isn't clear among six differences. Over draws it gains {q}`noise.over_draws.rte.cp44_cp1`.
# {says}`noise.over_floor.rte.low > 0`
# {says}`noise.over_seeds.rte.cp44_cp1.low > 0 and 0.05 < noise.gain_p < 0.06`
# {says}`noise.over_draws.rte.cp44_cp1.low < 0`
#
# Dev has many more items, and there both answers are clear: the largest CP gains {q}`noise.on_dev.rte.cp44_cp1`
# points, and LoRA leads at equal size by {q}`noise.on_dev.rte.lora1_cp11`. On the evaluation items that lead is about
# as large, but its error is larger.
# {says}`noise.on_dev_p.rte.lora1_cp11 < 0.05 and noise.on_dev_p.rte.cp44_cp1 < 0.05`
# {says}`noise.on_dev_at_best.rte.lora1_cp11.low > 0 and noise.on_dev_at_best.rte.cp44_cp1.low > 0`
# {says}`noise.on_dev_and_eval.rte.lora1_cp11.low > 0 and noise.on_dev_and_eval.rte.cp44_cp1.low > 0`
# {says}`abs(noise.on_dev.rte.lora1_cp11 - noise.over_seeds.rte.lora1_cp11) < 0.3`
#
# The claims are judged by one-sided tests, and LoRA's lead is on their edge: its
# {q}`noise.lead_judged_over_seeds.rte|level` interval is {q}`noise.lead_judged_over_seeds.rte|interval` over seeds and
# {q}`noise.lead_judged_over_draws.rte|interval` over draws.
# {says}`abs(noise.lead_judged_over_seeds.rte.low) < 0.15 and abs(noise.lead_judged_over_draws.rte.low) < 0.15`

# %% mystnb={"figure": {"caption": "RTE: every run, by what runs differ in."}} tags=["remove-input"]
charts.spread_chart(noise.runs({"seeds": noise.over_seeds("rte"), "draws": noise.over_draws("rte")}))

# %% mystnb={"code_prompt_show": "Differences", "code_prompt_hide": "Differences"} tags=["remove-input", "hide-output"]
charts.table(noise.difference_table("rte"))

# %% mystnb={"code_prompt_show": "On dev", "code_prompt_hide": "On dev"} tags=["remove-input", "hide-output"]
charts.table(noise.dev_table("rte"))

# %% mystnb={"code_prompt_show": "Spreads", "code_prompt_hide": "Spreads"} tags=["remove-input", "hide-output"]
charts.table(noise.spread_table("rte", "seeds", "draws"))

# %% [markdown]
# ## BoolQ

# %% mystnb={"figure": {"caption": "BoolQ: differences over seeds, with 95 % intervals."}} tags=["remove-input"]
charts.interval_chart(noise.interval_rows("boolq"), "difference, points", MARGIN)

# %% [markdown]
# Size pays on BoolQ: the largest CP is {q}`noise.over_seeds.boolq.cp44_cp1|full` ahead of the smallest, and both steps
# on the way are clear. The largest CP and LoRA's first rank can't be told apart.
# {says}`noise.over_seeds.boolq.cp44_cp1.low > 0 and noise.over_seeds.boolq.cp11_cp1.low > 0`
# {says}`noise.over_seeds.boolq.cp44_cp11.low > 0`
# {says}`noise.over_seeds.boolq.lora1_cp44.low < 0 < noise.over_seeds.boolq.lora1_cp44.high`
#
# All of this is near one line: always giving the commonest answer is right on {q}`noise.majority.boolq|unit` of the
# items. The adapters of LoRA's first rank's size are {q}`noise.over_floor.boolq` points above it
# ({q}`noise.over_floor.boolq|level` interval {q}`noise.over_floor.boolq|interval|signed`), which isn't clear.
# {says}`noise.over_floor.boolq.low < 0 < noise.over_floor.boolq`
#
# {term}`Balanced accuracy <balanced accuracy>` doesn't depend on that line. In it these adapters are
# {q}`noise.balanced_over_head|full` above the head alone, and the largest CP is {q}`noise.balanced_gain|full` above
# the smallest. So adapters do learn BoolQ, and size pays.
# {says}`noise.balanced_over_head.low > 0 and noise.balanced_gain.low > 0`

# %% mystnb={"code_prompt_show": "Differences", "code_prompt_hide": "Differences"} tags=["remove-input", "hide-output"]
charts.table(noise.difference_table("boolq"))

# %% mystnb={"code_prompt_show": "Spreads", "code_prompt_hide": "Spreads"} tags=["remove-input", "hide-output"]
charts.table(noise.spread_table("boolq", "seeds"))

# %% [markdown]
# ## Over tasks and models
#
# Where adapters learn, LoRA's first rank leads CP of its size by {q}`noise.first_rank` points on average
# ({q}`noise.first_rank|level` interval {q}`noise.first_rank|interval`), over {q}`noise.first_rank|n` pairs of a task
# and a model, SmolLM2 or MiniLM. True leads spread around it with a standard deviation of
# {q}`noise.first_rank_spread`.
#
# On MiniLM's larger ranks, BoolQ aside, no lead is seen: {q}`noise.further_ranks|signed` points
# ({q}`noise.further_ranks|interval|signed`). The pairs were put together after they were measured, so this describes
# them and tests nothing.
# {says}`noise.first_rank.low > 0 and noise.further_ranks.low < 0 < noise.further_ranks.high`

# %% mystnb={"code_prompt_show": "Each pair", "code_prompt_hide": "Each pair"} tags=["remove-input", "hide-output"]
charts.table(noise.first_rank_table())

# %% [markdown]
# ## Where errors come from
#
# These are of the paper's protocol, {q}`noise.error.sst2|n` seeds a cell. An accuracy alone depends mostly on its
# items: on RTE's {q}`noise.items.rte` it has an error of {q}`noise.part.rte.accuracy.no_end|1` points, however many
# seeds there are. A difference on the same items and seeds has half the error of two separate measurements, or less.
# {says}`noise.part.sst2.accuracy.items > 0.7 * noise.part.sst2.accuracy.seeds_1`
# {says}`noise.part.rte.accuracy.items > 0.7 * noise.part.rte.accuracy.seeds_1`
# {says}`noise.part.boolq.accuracy.items > 0.7 * noise.part.boolq.accuracy.seeds_1`
# {says}`noise.error_unpaired.sst2 > 1.9 * noise.error.sst2`
# {says}`noise.error_unpaired.rte > 1.9 * noise.error.rte`
# {says}`noise.error_unpaired.boolq > 1.9 * noise.error.boolq`
#
# What is left is chiefly luck on single items. Two runs that differ only in their seed give different answers on
# {q}`noise.apart.sst2|unit` of SST-2's items, {q}`noise.apart.rte|unit` of RTE's and {q}`noise.apart.boolq|unit` of
# BoolQ's.
# {says}`noise.part.sst2.budget.rest > max(noise.part.sst2.budget.seeds, noise.part.sst2.budget.items)`
# {says}`noise.part.rte.budget.rest > max(noise.part.rte.budget.seeds, noise.part.rte.budget.items)`
# {says}`noise.part.boolq.budget.rest > max(noise.part.boolq.budget.seeds, noise.part.boolq.budget.items)`

# %% mystnb={"code_prompt_show": "Error parts", "code_prompt_hide": "Error parts"} tags=["remove-input", "hide-output"]
charts.table(noise.source_table())

# %% mystnb={"code_prompt_show": "Needed", "code_prompt_hide": "Needed"} tags=["remove-input", "hide-output"]
charts.table(noise.need_table())

# %% [markdown]
# The first table has the part of each source in the error of one run, in points; a dash is a part of which nothing was
# seen. The second says what it takes to see a difference of half a point, one or two, four times in five: seeds on the
# items that are asked, and items with {q}`noise.affordable_seeds` seeds. *Never* is not with {q}`noise.most_seeds`
# seeds or {q}`noise.most_items` items.
#
# ## How sure?
#
# The variances are estimates themselves, of one small model; a larger one may vary less. Over draws, the errors leave
# out what the two seeds' initial weights share, and what RTE's draws share: two have {q}`causes.draws_alike|unit` of
# their examples in common. BoolQ has one draw only.
#
# **For you**: judge a difference by an interval over seeds and items together, on other items than those that chose
# the step.
#
# Next: [what moves a run](causes.ipynb).
