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
# # No claim fails where it is judged
#
# **Which of the paper's findings hold here, and what isn't measured?**
#
# None fails where it's judged. Of {q}`claims.verdicts_asked` claims, each on one task, {q}`claims.held_somewhere` hold
# in at least one setting, the others in none. *A finer step* on MiniLM's BoolQ would fail, with CP
# {q}`claims.difference.cp_not_ahead.boolq.encoder` points ahead, but isn't judged: LoRA's larger ranks collapse there
# at their rate. {says}`claims.failed_somewhere == 0`
# {says}`claims.held_somewhere + claims.unsettled == claims.verdicts_asked`
# {says}`claims.difference.cp_not_ahead.boolq.encoder.low > claims.margin`
# {says}`claims.verdict.finer.boolq.encoder == 'not judged: LoRA at an unsuitable rate'`
#
# We tried {q}`claims.settings` settings on {q}`claims.models` models, with up to
# {q}`claims.difference.cp_not_ahead.sst2.many_seeds|n` seeds. Of {q}`claims.verdicts_given|unit`
# {q}`claims.not_judged` aren't judged. The paper's model, OPT-1.3B, is **not measured**.
# {says}`limits.opt_done == 0 and claims.difference.lora_ahead.rte.size.n == 3`

# %% mystnb={"figure": {"caption": "The paper's claims by model and setting."}} tags=["remove-input"]
from companion import claims_grid

claims_grid.grid()

# %% [markdown]
# Point at a cell, or move to it with the Tab key, for its numbers, with {q}`claims.confidence|unit` intervals as
# everywhere on this page; its link leads to [the evidence](verdicts.ipynb).
# SmolLM2 is SmolLM2-135M-Instruct, whose weights are dequantized from four bits, on one draw of each task's examples
# (the worst of {q}`noise.draws_known` on SST-2). Qwen is Qwen2.5-Coder-1.5B-Instruct, of OPT's size.
# {says}`noise.shared_draw < noise.other_draws.least`
#
# ## What holds, and what we can't tell
#
# - **SST-2's plateau holds** with {q}`claims.difference.flat_from_first_rank.sst2.many_seeds|n` seeds: more components
#   than LoRA's first budget change accuracy by
#   {q}`claims.difference.flat_from_first_rank.sst2.many_seeds|full|signed`.
#   {says}`claims.verdict.plateau.sst2.many_seeds == 'holds'`
# - **A finer step alone makes nothing better**, wherever all adapters learn: at equal size CP is nowhere ahead by
#   1 point. On MiniLM's BoolQ it is, by {q}`claims.difference.cp_not_ahead.boolq.encoder|full`, and *saturates
#   slightly below LoRA* would fail there with it. Neither is judged, because LoRA collapses.
#   {says}`claims.would_fail == 2`
#   {says}`claims.verdict.saturates.boolq.encoder == 'not judged: LoRA at an unsuitable rate'`
#   {says}`claims.verdict.finer.sst2.many_seeds == 'holds' and claims.verdict.finer.rte.many_seeds == 'holds'`
#   {says}`claims.verdict.finer.boolq.all_examples == 'holds' and claims.verdict.finer.sst2.encoder == 'holds'`
# - **BoolQ is undecided by one rule.** On Qwen at the paper's rates CP gains
#   {q}`claims.difference.cp_gains.boolq.size` points with more components, and LoRA leads by
#   {q}`claims.difference.lora_slightly_ahead.boolq.size`. Whether CP's curve saturates, we can't tell. SmolLM2 agrees
#   once it has all examples.
#   {says}`claims.verdict.saturates.boolq.size == 'cannot be told' and claims.difference.cp_gains.boolq.size.low > 0`
#   {says}`0 < claims.difference.lora_slightly_ahead.boolq.size.low`
#   {says}`claims.difference.lora_slightly_ahead.boolq.size.high < claims.slight`
#   {says}`claims.verdict.saturates.boolq.all_examples == 'cannot be told'`
#   {says}`claims.difference.cp_gains.boolq.all_examples.low > 0`
#   {says}`0 < claims.difference.lora_slightly_ahead.boolq.all_examples.low`
#   {says}`claims.difference.lora_slightly_ahead.boolq.all_examples.high < claims.slight`
# - **LoRA's lead on RTE is undecided.** It is {q}`claims.difference.lora_ahead.rte.many_seeds|full` with
#   {q}`claims.difference.lora_ahead.rte.many_seeds|n` seeds, and RTE has too few test items to settle it. At tuned
#   rates the verdict hangs on one budget. {says}`claims.verdict.favoured.rte.tuned == 'on the edge'`
#   {says}`claims.verdict.favoured.rte.many_seeds == 'cannot be told'`
#   {says}`claims.seeds_needed.lora_ahead.rte.many_seeds == 'more items'`
# - **At the paper's rates** three seeds don't always show that every adapter learns. So nothing on SmolLM2 is judged
#   there, nor {q}`claims.unjudged.size` of {q}`claims.measured.size` verdicts on Qwen.
#   {says}`claims.unjudged.papers_rates == claims.measured.papers_rates`
#
# That CP trains stably isn't a claim on accuracy. None of {q}`claims.lost|n` CP runs was lost to a loss or a gradient
# that isn't finite. {says}`claims.lost == 0`
#
# (not-measured)=
# ## What isn't measured, and what would close it
#
# :::{list-table}
# :header-rows: 1
#
# * - what is missing
#   - what it may change
#   - what would close it
# * - OPT-1.3B: none of its {q}`limits.opt_runs` runs is measured
#   - all of it
#   - [its study](../book/run_it_yourself.md), where its weights are
# * - Original weights: ours are dequantized, and tuned to follow instructions, maybe on these tasks
#   - how high the curves lie
#   - the same studies with another `backbone`
# * - The paper's whole protocol: {q}`protocol.fields.ours` of {q}`protocol.all_fields` settings are ours, [where it
#     is silent](protocol.ipynb)
#   - what a learning rate is worth
#   - the paper's code
# * - Other draws of the examples, of BoolQ and of most sizes
#   - how high the curves lie
#   - a study with `data_seeds`
# * - Higher rates: {q}`rates.on_the_edge.all` of {q}`rates.choices.all` [choices](rates.ipynb) were the highest
#     tried
#   - the tuned verdicts
#   - more rates, and CP's scale
# * - More test items: RTE has {q}`tasks.items.rte`
#   - differences under a point
#   - tasks with more items
# * - Independent items: {q}`limits.boolq_shared` of {q}`limits.boolq_items` on BoolQ share a passage with an
#     example
#   - how wide intervals are
#   - test sets without shared passages
# * - Runs that repeat: in bfloat16 [another bank](causes.ipynb) gives another number
#   - single runs, not means
#   - kernels that add in one order
# * - Longer training, and modules other than queries and values
#   - how far all this carries
#   - [a study of your own](../book/run_it_yourself.md)
# :::
#
# ## How sure?
#
# Each verdict is a test by itself at 5 %, so one or two of {q}`claims.verdicts_given` may be wrong by chance. A claim
# that holds in one setting may be undecided or not judged in the next; it then lacks seeds, items or a suitable rate,
# and isn't refuted. Differences below 1 point count as none here, twice [the plan's margin](../book/plan.md): on
# single tasks like these, half a point [can't be detected](how_sure.ipynb).
# {says}`claims.margin == 1 and all(how_sure.seen > 0.5)`
# On SST-2's dev set, whose items are phrases, [more components do help](noise.ipynb).
# {says}`noise.on_dev.sst2.cp44_cp1.low > 0`
#
# Next: [CP in PEFT](use_in_peft.ipynb).
