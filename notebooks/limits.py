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
# # Limits: what cannot be said here
#
# **What does this study leave open, and what would it take to close it?**
#
# It says nothing of OPT-1.3B, whose {q}`limits.opt_runs` runs are not measured, nor of any decoder but
# SmolLM2-135M-Instruct, and there {q}`claims.undecided.papers_rates` of
# {q}`claims.measured.papers_rates` verdicts at the paper's rates, and {q}`claims.undecided.tuned` of
# {q}`claims.measured.tuned` at tuned ones, are open, on the edge or not judged. More seeds help where
# sizes of one family are compared; between families it takes more evaluation items too, and SST-2 and RTE have no
# more.
# {says}`limits.opt_done == 0`
#
# ## One backbone, and its weights
#
# SmolLM2-135M-Instruct is a tenth of OPT-1.3B's size, of another architecture, and tuned to follow instructions. These
# are public data sets, and a model that was tuned on collections of tasks may have seen them, their validation splits
# included; whether it has is not known here. What it answers without any training stands beside the head on
# [the page of the paper's size](size.ipynb). Its weights come from a package that holds them in four bits, dequantized
# ([run it yourself](../book/run_it_yourself.md)): they are not the hub's numbers, and adapters may in part mend what
# was lost. All runs share them, so comparisons are fair; heights are not those of the original model. An
# encoder, MiniLM, is measured on {q}`encoder.tasks` ([an encoder](encoder.ipynb)) and on
# [generated tasks](first_frontiers.ipynb), at few rates.
#
# *To close it*: `cpadapt run studies/paper.toml` where OPT's weights are, or any study with another `backbone`.
#
# ## Where the paper is silent
#
# {q}`limits.ours` of the {q}`limits.fields` fields of [the protocol](protocol.ipynb) are ours, because the paper
# does not report them or because it cannot be followed: there is no dropout, and the frozen weights are in bfloat16
# and not in float16. A learning rate is worth little without the schedule, the head's rate and the scale that go with
# it, so "the paper's rates" means its numbers, in our setting.
#
# ## One draw of the data
#
# All runs of a task share {q}`tasks.cap.sst2` training examples and {q}`tasks.dev_items.sst2` of
# dev. Another draw is a part of no error in the chapters on tasks. Evaluation items are taken as drawn one by one, and
# they are not: {q}`limits.boolq_shared` of BoolQ's {q}`limits.boolq_items` have a passage that also stands among the
# training or dev examples, and {q}`limits.rte_shared` of RTE's {q}`tasks.items.rte` a hypothesis that
# does; of all {q}`readout.items` of BoolQ {q}`readout.sharing` do, and of SICK's
# {q}`encoder.items.sick` {q}`encoder.sick_shared` have their first sentence there.
# Whole examples never do.
#
# On SST-2 and RTE {q}`noise.over_draws.sst2.lora1_cp11|n` other draws are measured, with two seeds each. They are not
# told apart, but on SST-2 the shared draw is the worst of them all, {q}`causes.shared_below` points below their mean
# ([what moves a run](causes.ipynb)). Differences between adapters are within their errors the same on others ([seeds
# and items](noise.ipynb)). What other draws do on BoolQ is not known, nor what they do to more than the key cells.
# {says}`noise.shared_draw < noise.other_draws.least`
# {says}`all(noise.on_the_shared_draw.low < 0, noise.on_the_shared_draw.high > 0)`
#
# *To close it*: a study with `data_seeds` for the cell in question, which costs what its seeds cost.
#
# ## Few seeds, many verdicts
#
# {q}`tasks.seeds.sst2` seeds a cell. Errors count seeds and items both, and with so few their tails are not
# quite what they say ([`cpadapt.analysis.statistics`](../book/api.md)). Each verdict is one-sided at five percent and
# made for itself: among as many as there are in [the ledger](claims.ipynb), one or two may be wrong by chance alone.
# Differences at single budgets are corrected for their number in each task, not over tasks. And half a point between
# the families can hardly be seen on these items ([seeds and items](noise.ipynb)).
#
# Many seeds of a few cells show on SST-2, RTE and BoolQ what three could not, at one pair of rates and one matched
# budget; on RTE {q}`noise.over_seeds.rte.lora1_cp11|n` leave LoRA's lead open, for its few items. *To close it*: the
# same for more cells, and tasks with more items.
# {says}`noise.lead_judged_over_seeds.rte.low < 0 < noise.lead_judged_over_seeds.rte.high`
#
# ## Numbers that do not come again
#
# In bfloat16 the same run in another {term}`bank` is rounded otherwise and lies elsewhere, with a standard deviation
# of {q}`causes.again.sst2` points on SST-2 and {q}`causes.again.rte` on RTE, on the
# average over adapters ([what moves a run](causes.ipynb)). Another device, library or version of this project may do
# as much. So a study that is done again gives other numbers with the same distribution, and what is said here of a
# single run holds for that run.
#
# *To close it*: kernels whose sums do not depend on what else is in a bank, which are slower; until then report
# distributions.
#
# ## Rates that dev chose
#
# [Tuned](rates.ipynb) is the best on dev of {q}`rates.tried` rates; {q}`rates.on_the_edge.all`
# of {q}`rates.choices.all` choices are the highest, and nothing says that it is high enough. The choice
# is taken as given in every error. CP's scale in front of the pair, its start and the head's rate act on the same knob
# and were not varied.
#
# ## What nobody has looked at here
#
# Other tasks and longer ones, all examples of another task than BoolQ on SmolLM2, several rates with [another readout
# or all examples](readout.ipynb), [other splits](tensorization.ipynb) on all of BoolQ, other target modules than
# queries and values, and adapters with smaller steps than CP's. [What was run](what_was_run.ipynb) lists what is
# planned and missing.
#
# Next: [what a run costs](what_a_run_costs.ipynb).
