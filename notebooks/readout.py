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
# # The readout, and more examples
#
# **Does the verdict hang on how answers are read out, or on how many examples there are?**
#
# Read out by two frozen words instead of a trained {term}`head`, adapters change on the average by
# {q}`readout.words_gain.sst2|signed` points on SST-2 (95 %, {q}`readout.words_gain.sst2|interval|signed`), by
# {q}`readout.words_gain.rte|signed` on RTE ({q}`readout.words_gain.rte|interval|signed`), by
# {q}`readout.words_gain.all|signed` on all of BoolQ ({q}`readout.words_gain.all|interval|signed`) and by
# {q}`readout.words_gain.few|signed` from a thousand of its examples ({q}`readout.words_gain.few|interval|signed`), and
# no change of LoRA's lead over CP is shown on any. More examples do matter: with all {q}`readout.train` of BoolQ
# instead of a thousand, the same items, seeds, rates and steps, CP with {q}`readout.size.last` components is
# {q}`readout.more.cp44|1` points better ({q}`readout.more.cp44|interval|signed|1`) and its gain over one component is
# {q}`readout.more_gain` points larger ({q}`readout.more_gain|interval|signed`), while LoRA's lead,
# {q}`readout.lead.head` points on all items ({q}`readout.lead.head|interval|signed`), is not shown to change
# ({q}`readout.more_lead|signed`; {q}`readout.more_lead|interval|signed`).
# {says}`all(readout.change.low < 0, readout.change.high > 0)`
# {says}`readout.words_gain.few.low > 0`
# {says}`all(readout.words_gain.sst2.low < 0, readout.words_gain.rte.low < 0, readout.words_gain.all.low < 0)`
# {says}`readout.more.cp44.low > 0 and readout.more_gain.low > 0`
# {says}`readout.lead.head.low > 0 and readout.more_lead.low < 0 < readout.more_lead.high`

# %%
from companion import ladder, readout
from companion.claims import MARGIN
from cpadapt.analysis import charts

charts.enable()
settings = readout.settings()

# %% [markdown]
# ## Two readouts
#
# The paper trains a {term}`head`: a linear map from what the backbone holds at the last token to the labels, started
# at zero and learned beside the adapter, outside of its {term}`budget`. A decoder has a readout of its own, the output
# embedding, which scores every word of its vocabulary as the next one. A {term}`verbalizer` keeps its rows for one
# word a label and nothing else, here {q}`readout.label_words.sst2` for SST-2, {q}`readout.label_words.rte` for RTE and
# {q}`readout.label_words.boolq` for BoolQ. Nothing of it is trained, so that what is learned is all in the adapter,
# and the budget is all there is.
#
# Here are the key cells with both: the smallest LoRA, CP at its budget, CP with one component and CP with
# {q}`readout.size.last`, in {q}`readout.steps` steps and with {q}`readout.seeds` seeds. Their rates are ten times the
# paper's, the highest tried at which no run ends with a training loss above the readout's ([the learning
# rate](rates.ipynb)). BoolQ is there with all of its examples too, in {q}`readout.all_steps` steps, which are
# {q}`readout.passes` passes. In percent, on eval, with always giving the commonest answer beside:

# %% tags=["hide-input"]
charts.table(readout.accuracy_table())

# %% [markdown]
# The same in {term}`balanced accuracy`, of which one answer for all has a half:


# %% tags=["hide-input"]
charts.table(readout.balanced_table())

# %% [markdown]
# With no adapter the head is a linear probe, which is trained, and the words are what the backbone would have said.
# There the words are {q}`readout.apart.sst2.head|negated|0` points worse on SST-2 and
# {q}`readout.apart.all.head|negated|0` on all of BoolQ, and on RTE and a thousand examples of BoolQ their means are
# lower too, neither clear; with the smallest adapter they are no longer seen to be worse on any. Each cell read out by
# words minus the same with a head, the same seeds and items:
# {says}`readout.apart.sst2.head.high < -5 and readout.apart.all.head.high < -5`
# {says}`max(readout.apart_holm.sst2.head, readout.apart_holm.all.head) < 0.001`
# {says}`max(readout.apart.sst2.head, readout.apart.rte.head, readout.apart.few.head, readout.apart.all.head) < 0`
# {says}`min(readout.apart_holm.rte.head, readout.apart_holm.few.head) > 0.05`
# {says}`readout.apart.rte.head.high > 0 and readout.apart.few.head.high > 0`
# {says}`min(readout.apart.sst2.cp1.high, readout.apart.rte.cp1.high) > 0`
# {says}`min(readout.apart.few.cp1.high, readout.apart.all.cp1.high) > 0`

# %% tags=["hide-input"]
charts.interval_chart(readout.adapted(settings), "words − head, points", MARGIN)

# %% tags=["hide-input"]
charts.table(readout.apart_table())

# %% [markdown]
# *Holm* is the p value of no difference, corrected over a task's, and *alike* that of a difference of a point or more,
# uncorrected. Of {q}`readout.comparisons` comparisons of adapters {q}`readout.clear` is {term}`clear`, and after
# correction over all {q}`readout.alike` shown to be within a point: with so few seeds, "not shown to differ" is most
# of what can be said of one cell. The clear one is on a thousand examples of BoolQ, where all adapters have the higher
# mean with words. That the average there differs from the one on all of BoolQ is not shown: on the same items and
# seeds by {q}`readout.few_more|signed` points ({q}`readout.few_more|interval|signed`). Nor is it tested what makes it:
# on SST-2 a head has no more examples, and is not seen to be behind.
# {says}`readout.least_few_holm < 0.05`
# {says}`readout.least_few_gain > 0`
# {says}`readout.few_more.low < 0 < readout.few_more.high`
# {says}`readout.words_gain.sst2.low < 0 < readout.words_gain.sst2.high`
#
# ## The families, by readout
#
# LoRA minus CP at the budget of a rank:

# %% tags=["hide-input"]
gaps = readout.families(settings)
by_readout = gaps.assign(group=gaps["readout"], what=gaps["group"] + ", " + gaps["what"].str.split(" − ").str[0])
charts.interval_chart(by_readout, "LoRA − CP, points", MARGIN)

# %% tags=["hide-input"]
charts.table(readout.gap_table())

# %% [markdown]
# And what the rules of [the claims](claims.ipynb) make of these cells, by readout. They judge the few that are here,
# at their rate; what needs more sizes than there are is left out:

# %% tags=["hide-input"]
charts.table(readout.verdict_table())

# %% [markdown]
# LoRA's lead with words minus that with a head is {q}`readout.change.sst2|signed` points on SST-2 (95 %,
# {q}`readout.change.sst2|interval|signed`), {q}`readout.change.rte|signed` on RTE
# ({q}`readout.change.rte|interval|signed`), {q}`readout.change.few|signed` on a thousand examples of BoolQ
# ({q}`readout.change.few|interval|signed`) and {q}`readout.change.all|signed` on all
# ({q}`readout.change.all|interval|signed`).
#
# On all of BoolQ the two readouts give the same verdict on {q}`readout.same.all` of {q}`readout.compared.all` claims,
# on SST-2 on {q}`readout.same.sst2` of {q}`readout.compared.sst2`, on RTE on {q}`readout.same.rte` of
# {q}`readout.compared.rte` and on a thousand examples of BoolQ on {q}`readout.same.few` of {q}`readout.compared.few`;
# several of these read the same difference. They part on SST-2 and on RTE, where "LoRA is ahead" holds with words and
# cannot be told with a head; the same goes for "LoRA is slightly ahead" on SST-2 and for "CP is not ahead" on RTE.
# These are few seeds. With a head {q}`noise.over_seeds.sst2.lora1_cp11|n` show both on SST-2; on RTE they have LoRA
# minus CP at {q}`noise.over_seeds.rte.lora1_cp11` points (90 %, {q}`noise.lead_judged_over_seeds.rte|interval`), so
# that CP is not ahead by the point that would count, and whether LoRA is ahead cannot be told ([seeds and
# items](noise.ipynb)). On a thousand examples of BoolQ "CP gains from components" holds with words alone, to LoRA's
# first budget, though its mean falls beyond it ({q}`readout.few_falls|signed` points,
# {q}`readout.few_falls|interval|signed`, uncorrected), and "CP is not ahead" with a head alone; with a head CP's gain
# and LoRA's lead are clear with {q}`noise.over_seeds.boolq.lora1_cp11|n` seeds ([seeds and items](noise.ipynb)). From
# *holds* to *does not hold* or back pass {q}`readout.opposite`.
# {says}`readout.verdict.sst2.lora_ahead.head == 'cannot be told' and readout.verdict.sst2.lora_ahead.words == 'holds'`
# {says}`readout.verdict.rte.lora_ahead.head == 'cannot be told' and readout.verdict.rte.lora_ahead.words == 'holds'`
# {says}`readout.verdict.sst2.lora_slightly_ahead.head == 'cannot be told'`
# {says}`readout.verdict.sst2.lora_slightly_ahead.words == 'holds'`
# {says}`readout.verdict.rte.cp_not_ahead.head == 'cannot be told'`
# {says}`readout.verdict.rte.cp_not_ahead.words == 'holds'`
# {says}`readout.verdict.few.cp_gains.head == 'cannot be told' and readout.verdict.few.cp_gains.words == 'holds'`
# {says}`readout.verdict.few.cp_not_ahead.head == 'holds'`
# {says}`readout.verdict.few.cp_not_ahead.words == 'cannot be told'`
# {says}`readout.few_falls < 0 and readout.same.all == readout.compared.all`
# {says}`noise.over_seeds.sst2.lora1_cp11.low > 0 and noise.lead_judged_over_seeds.rte.low > -1`
# {says}`noise.lead_judged_over_seeds.rte.low < 0`
# {says}`noise.over_seeds.boolq.cp44_cp1.low > 0`
# {says}`noise.over_seeds.boolq.lora1_cp11.low > 0`
#
# ## BoolQ with all of its examples
#
# From a thousand examples of BoolQ adapters learn, if [little](boolq.ipynb). At ten times the paper's rates LoRA's
# first rank and CP at its budget have {q}`readout.over_readout.head` points of balanced accuracy over the head alone
# (90 %, {q}`readout.over_readout.head|interval|signed`), and read out by words {q}`readout.over_readout.words` over
# the words alone ({q}`readout.over_readout.words|interval|signed`); from all {q}`readout.train` they have more. All
# minus a thousand with a head, at the same rates and steps, on the same items and seeds:
# {says}`readout.over_readout.head.low > 0 and readout.over_readout.words.low > 0`

# %% tags=["hide-input"]
charts.table(readout.more_table())

# %% [markdown]
# More of the items share a text then: {q}`readout.sharing` of all {q}`readout.items` have a passage that stands among
# the training or dev examples too, of the {q}`noise.items.boolq` items before it was {q}`limits.boolq_shared`. What
# part of the gain that is, is not tested.
#
# The paper's account of BoolQ on OPT-1.3B {cite:p}`wang2026finer` can be judged here: that it gains from more
# components, and then saturates slightly below LoRA. With a head, on all {q}`readout.items` items:

# %% tags=["hide-input"]
lifted = ladder.task_on_record("boolq-lifted", "boolq")
charts.frontier_chart(lifted.runs, budget_slider=True)

# %% [markdown]
# and with words:

# %% tags=["hide-input"]
charts.frontier_chart(ladder.task_on_record("boolq-lifted-verbalizer", "boolq").runs, budget_slider=True)

# %% [markdown]
# Components pay. From one to {q}`readout.size.matched`, LoRA's first rank's budget, CP gains {q}`readout.first_gain`
# points with a head ({q}`readout.first_gain|interval|signed`), and from there to {q}`readout.size.last` another
# {q}`readout.second_gain` ({q}`readout.second_gain|interval|signed`): it still gains where LoRA has four ranks, and
# whether by as much as the point that would count cannot be told. It stays below LoRA, by {q}`readout.lead.head`
# points with a head and {q}`readout.lead.words` with words, on the average over both budgets. And CP with
# {q}`readout.size.last` components is within a point of LoRA's first rank ({q}`readout.last_minus_lora|signed` points,
# {q}`readout.last_minus_lora|interval|signed`, uncorrected), at four times its budget.
# {says}`readout.first_gain.low > 0 and readout.second_gain.low > 0`
# {says}`readout.second_gain_judged.low < 1 < readout.second_gain_judged.high`
# {says}`readout.verdict.all.cp_gains.head == 'holds' and readout.verdict.all.cp_saturates.head == 'cannot be told'`
# {says}`readout.verdict.all.cp_gains.words == 'holds' and readout.verdict.all.cp_saturates.words == 'cannot be told'`
# {says}`readout.lead.head.low > 0 and readout.verdict.all.lora_slightly_ahead.head == 'holds'`
# {says}`readout.lead.words.low > 0 and readout.verdict.all.lora_slightly_ahead.words == 'holds'`
# {says}`readout.last_minus_lora_alike < 0.05`
#
# Of the {q}`readout.adapted_runs.all` runs with an adapter and a head, {q}`readout.adapted_runs.late` were best on dev
# at the last of {q}`readout.looks` evaluations:

# %% tags=["hide-input"]
charts.curve_chart(lifted.evaluations)

# %% [markdown]
# ## What this leaves open
#
# One rate a family, the highest that was safe with a thousand examples; with nine times as many another may be better,
# for one family more than for the other ([the learning rate](rates.ipynb)). One length of training, at whose end some
# runs were still at their best: in more steps small adapters may catch up. Three budgets, of which two compare the
# families, and CP's form is the default one. And one choice of words: others would start elsewhere, and need not end
# there.
#
# Next: [how the tensor is split](tensorization.ipynb).
