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
# # The claims, one by one
#
# **Which of the paper's findings hold here, which do not, and which cannot be told?**
#
# Of {q}`claims.figures_counted` figures that can be counted {q}`claims.figures_alike` are the paper's. Of
# {q}`claims.verdicts_asked` verdicts on accuracy {q}`claims.measured.papers_rates` are measured on SmolLM2, paper's
# rates ({q}`claims.told.unjudged.papers_rates` not judged), {q}`claims.measured.tuned` on SmolLM2, tuned
# ({q}`claims.told.hold.tuned` holds, {q}`claims.told.edge.tuned` on the edge, {q}`claims.told.unjudged.tuned` not
# judged), {q}`claims.measured.many_seeds` on SmolLM2, many seeds ({q}`claims.told.hold.many_seeds` hold,
# {q}`claims.told.open.many_seeds` cannot be told), {q}`claims.measured.all_examples` on SmolLM2, all examples
# ({q}`claims.told.hold.all_examples` holds, {q}`claims.told.open.all_examples` cannot be told), and
# {q}`claims.measured.encoder` on MiniLM, all examples ({q}`claims.told.hold.encoder` holds,
# {q}`claims.told.unjudged.encoder` not judged). No run of CP was lost. Not measured at all: OPT-1.3B.
# {says}`claims.figures_alike == claims.figures_counted`
# {says}`claims.told.unjudged.papers_rates == claims.measured.papers_rates`
# {says}`claims.told.hold.tuned + claims.told.edge.tuned + claims.told.unjudged.tuned == claims.measured.tuned`
# {says}`claims.told.hold.many_seeds + claims.told.open.many_seeds == claims.measured.many_seeds`
# {says}`claims.told.hold.all_examples + claims.told.open.all_examples == claims.measured.all_examples`
# {says}`claims.told.hold.encoder + claims.told.unjudged.encoder == claims.measured.encoder`
# {says}`all(claims.told.fail == 0) and all(claims.lost == 0) and claims.measured.opt == 0`

# %% tags=["hide-input"]
from companion import verdicts
from cpadapt.analysis import charts

# %% [markdown]
# ## How a verdict is made
#
# By rules, from records. A rule takes one task's cells and one difference in accuracy, such as LoRA minus CP at
# matched budgets, averaged over these, {term}`seed` by seed and item by item; its error has both sources, seeds and
# evaluation items ([`cpadapt.analysis.statistics`](../book/api.md)). The claim says where that difference lies: above
# zero, or within {q}`claims.margin|unit` of it, or above it and below {q}`claims.slight|unit`. It
#
# - *holds* if the {q}`claims.confidence|unit` interval lies there altogether;
# - *does not hold* if the interval lies elsewhere altogether;
# - is *on the edge* if it holds or does not, and would not be so without one of the budgets that are averaged, or if
#   one answer of one run were another;
# - *cannot be told* if the interval reaches across an end;
# - is *not judged* if a cell is not shown to learn: to be above the {term}`readout` alone in balanced accuracy, each
#   cell for itself. Balanced accuracy is the mean over classes of the share right, so that one answer for all has one
#   half of two classes, whichever it is. *At an unsuitable rate* says that each such cell has runs with one answer for
#   all;
# - is *not measured* if a cell, or a seed of one, is missing.
#
# So each end is a one-sided test at {q}`claims.one_sided|unit`. A claim with several rules holds if all do, and fails
# if one does. A verdict is that of the cells measured, under their protocol and at their learning rates, and each is
# made for itself: among many, a few are wrong by chance, and with three seeds somewhat more than that.
#
# The margins are older than the records. Four rules are younger than these, and made by who had seen them: *on the
# edge*; *not judged*, where formerly all adapters, on their average, had to be above the readout or the commonest
# answer, whichever was better (the latter an hour after the tuned records); that flatness begins at LoRA's first rank
# or is not measured; and that lost runs are only counted.

# %% tags=["hide-input"]
charts.table(verdicts.rule_table())

# %% [markdown]
# *Matched* is a CP size whose budget is nearest to a rank's, and within {q}`claims.near|unit` of it. So what is said
# of a finer step is said of budgets that LoRA has too, on their average; what sizes [between the
# ranks](between-loras-ranks) are worth, no rule tests.
#
# ## What can be counted
#
# These need no training. Ours are counted from the shapes of the projections, and compared at the digits that the
# paper gives.

# %% tags=["hide-input"]
charts.table(verdicts.counted_table())

# %% [markdown]
# ## What has to be measured
#
# The paper's backbone is not measured: its weights are not at hand. The same design on SmolLM2-135M-Instruct is, whose
# weights are dequantized from four bits, on one draw of each task's examples (the worst of {q}`noise.draws_known` on
# SST-2), at the paper's rates ([SST-2](sst2.ipynb), [RTE](rte.ipynb), [BoolQ](boolq.ipynb)) and *tuned*: each cell at
# the rate that {term}`dev` chose among {q}`claims.rates`, for the sizes that were tried at all of these, which are
# {q}`claims.matched.tuned` of the {q}`claims.matched.papers_rates` matched budgets ([the learning rate](rates.ipynb)).
# BoolQ, of which little is learned from the thousand examples of the protocol, is judged with all of its examples too,
# at ten times the paper's rates and {q}`claims.matched.all_examples` matched budgets ([the readout, and more
# examples](readout.ipynb)). At these rates a few cells have [many seeds](noise.ipynb),
# {q}`claims.difference.cp_not_ahead.sst2.many_seeds|n` on SST-2 and RTE and
# {q}`claims.difference.cp_not_ahead.boolq.many_seeds|n` on BoolQ. They have {q}`claims.matched.many_seeds|unit`
# matched, of which several rules can say nothing. MiniLM is [an encoder](encoder.ipynb), where the paper speaks of a
# decoder, and has all examples, {q}`claims.difference.cp_not_ahead.sst2.encoder|n` seeds and
# {q}`claims.matched.encoder` matched budgets, of LoRA's second rank and above, at one rate a family. Not judged are
# the [pilot](first_frontiers.ipynb), a shorter training, [other draws](noise.ipynb) and [orders](causes.ipynb) of the
# examples, and the cells with [another readout](readout.ipynb) or with [more seeds of each
# split](tensorization.ipynb). Those chapters say what they show.
# {says}`noise.shared_draw < noise.other_draws.least`
# {says}`claims.difference.cp_not_ahead.rte.many_seeds.n == claims.difference.cp_not_ahead.sst2.many_seeds.n`
# {says}`claims.missed > claims.near`

# %% tags=["hide-input"]
charts.table(verdicts.verdict_table())

# %% [markdown]
# With {q}`claims.difference.lora_ahead.rte.tuned|n` seeds little can be judged: at the paper's rates every comparison
# has a cell that is not shown to learn. That RTE remains LoRA's is {q}`claims.verdict.favoured.rte.tuned`: tuned, LoRA
# is {q}`claims.difference.lora_ahead.rte.tuned` points ahead on the average over matched budgets (90 %,
# {q}`claims.difference.lora_ahead.rte.tuned|interval|signed`), and without one of them the interval holds zero; at the
# paper's rates that interval begins at {q}`claims.rte_lead_low|signed`. With
# {q}`noise.over_seeds.rte.lora1_cp11|n` seeds, at ten times the paper's rates and LoRA's first budget alone, it cannot
# be told: LoRA minus CP is {q}`noise.over_seeds.rte.lora1_cp11` points (90 %,
# {q}`noise.lead_judged_over_seeds.rte|interval`), and what is short is items. What they do show there is that CP is
# not ahead by a point or more.
# {says}`claims.told.unjudged.papers_rates == claims.measured.papers_rates`
# {says}`claims.verdict.favoured.rte.tuned == 'on the edge' and 0 < claims.rte_lead_low < 0.01`
# {says}`claims.verdict.favoured.rte.many_seeds == 'cannot be told'`
# {says}`claims.seeds_needed.lora_ahead.rte.many_seeds == 'more items'`
# {says}`claims.verdict.finer.rte.many_seeds == 'holds'`
#
# The plateau of SST-2 holds on the items of eval; dev, which is of phrases as the training examples are, [says
# otherwise](noise.ipynb). On MiniLM it is not measured, because CP's nearest size misses LoRA's first rank by
# {q}`claims.missed|unit` of its budget, which is more than {q}`claims.near|unit`. From that size CP gains
# {q}`claims.gain_from_nearly|signed` points on the average over its larger ones (90 %,
# {q}`claims.gain_from_nearly|interval|signed`) and {q}`claims.gain_to_most|signed` to its largest: that is not flat.
# {says}`claims.verdict.plateau.sst2.many_seeds == 'holds' and noise.on_dev.sst2.cp44_cp1.low > 0`
# {says}`claims.verdict.plateau.sst2.encoder == 'not measured' and claims.missed > claims.near`
# {says}`claims.gain_from_nearly.low > 0`
#
# On BoolQ MiniLM is not judged between the families. LoRA's larger ranks fall towards the commonest answer there, at a
# rate that was chosen on another task, and {q}`claims.collapsed` of their runs give one answer to every item
# ([an encoder](encoder.ipynb)).
# {says}`claims.verdict.finer.boolq.encoder == 'not judged: LoRA at an unsuitable rate'`
#
# ## No run was lost
#
# *CP trains stably* is a claim on runs that end without a loss or a gradient that is not finite. Of CP's runs this
# many were lost, which says nothing of their accuracy ([runs can be useless in other ways](rates.ipynb)):
# {says}`all(claims.lost == 0)`

# %% tags=["hide-input"]
charts.table(verdicts.lost_table())

# %% [markdown]
# (between-loras-ranks)=
# ## Between LoRA's ranks
#
# At the paper's rates CP was run with {q}`claims.between` components too, whose budgets are between those of LoRA's
# first two ranks. On their average, with {q}`claims.over_below.rank|n` seeds, against the nearest sizes below them:

# %% tags=["hide-input"]
charts.table(verdicts.between_table())

# %% [markdown]
# Over the three tasks that is {q}`claims.over_below.rank|full|signed` against LoRA's first rank (95 % interval), and
# {q}`claims.over_below.components|full|signed` against CP at its budget: no gain from these sizes is seen, nor is a
# loss shown. It is one rate a family, at which CP is behind in training.
# {says}`all(claims.over_below.low < 0, claims.over_below.high > 0)`
#
# ## What each verdict hangs on
#
# The differences behind the verdicts, in points of accuracy, and where the claim wants them. Where it cannot be told,
# *power* is the chance to show it with these seeds and items if it is so, and *seeds* how many would give a chance of
# {q}`claims.enough|unit` on the same items; *more items* says that {q}`claims.most_seeds` would not. "If it is so"
# means {q}`claims.margin|unit` from the end of the region, or in the middle of one that has two ends. *First rank
# learns* is in balanced accuracy.

# %% tags=["hide-input"]
charts.table(verdicts.evidence_table())

# %% [markdown]
# Of the {q}`claims.in_both` verdicts that can be given both at the paper's rates and tuned, {q}`claims.changed` are
# not the same. Whether a rate makes a difference to LoRA's lead, and how sure that is, is another question, which has
# [its own chapter](rates.ipynb).
#
# ## The paper's own numbers, read again
#
# The paper gives means and deviations over {q}`claims.papers_seeds` seeds for a few cells (second-hand). So the error
# from seeds is known, and small. What it leaves open is the error from items: another evaluation set of the same size
# would have given another difference. If items varied as they do in the tuned cells of SmolLM2, at matched budgets,
# the errors of a difference would be these, in points:
# {says}`max(claims.papers_seed_error) < 0.5 and max(claims.papers_seed_error.rte) < claims.papers_item_error.rte`

# %% tags=["hide-input"]
charts.table(verdicts.published_table())

# %% [markdown]
# *Over both* is the difference in units of both errors together. The item error is borrowed from a smaller backbone;
# only the paper's own runs, item by item, can tell it.
#
# Next: [limits](limits.ipynb).
