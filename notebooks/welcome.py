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
# # cpadapt: finer parameter steps for low-rank PEFT
#
# **How small can an adapter be, and how sure are we?**
#
# On SmolLM2-135M-Instruct, whose weights are dequantized from four bits, SST-2 is at {q}`tasks.adapters.sst2.least` to
# {q}`tasks.adapters.sst2.most` % (on the draw of its examples that is the worst of {q}`noise.draws_known`) with any
# adapter from {q}`tasks.scalars.sst2.least` trainable scalars, {q}`first_frontiers.component_of_rank` % of the
# smallest LoRA's, to {q}`tasks.scalars.sst2.most`, learned from a thousand examples; with all of BoolQ's
# {q}`readout.train` size does pay, CP gaining {q}`readout.first_gain` points from one component to LoRA's first budget
# and {q}`readout.second_gain` more to four times it. At equal budgets LoRA's mean is the higher one, by
# {q}`noise.over_seeds.sst2.lora1_cp11` points at SST-2's smallest over {q}`noise.over_seeds.sst2.lora1_cp11|n` seeds
# (ninety-five-percent interval {q}`noise.over_seeds.sst2.lora1_cp11|interval`) and {q}`readout.lead.head` on all of
# BoolQ ({q}`readout.lead.head|interval|signed`), both at ten times the paper's rates; RTE's {q}`tasks.items.rte` items
# of eval cannot say. From sizes between LoRA's ranks no gain is seen ([the claims](claims.ipynb)).
# {says}`claims.over_below.rank.low < 0 < claims.over_below.rank.high and noise.shared_draw < noise.other_draws.least`
# {says}`readout.lead.head.low > 0 and readout.first_gain.low > 0 and readout.second_gain.low > 0`
# {says}`noise.over_seeds.sst2.lora1_cp11.low > 0 and noise.over_seeds.rte.lora1_cp11.low < 0`
#
# This book is an executable companion to *Finer Parameter Steps for Low-Rank PEFT* by {cite:t}`wang2026finer`. Its own
# figures are read from records of runs, or measured on the machine that builds it; the paper's are transcribed, from a
# reading note where that is said, and marked as the paper's.

# %% tags=["hide-input"]
import cpadapt
from companion import PROJECT
from companion.published import read_published
from cpadapt.analysis import charts

charts.enable()

# %% tags=["hide-input"]
records = cpadapt.read_records(PROJECT / "results" / "smollm2")
charts.frontier_chart(records[records["task"] == "sst2"], budget_slider=True)

# %% [markdown]
# The same model on SST-2 at the paper's rates: accuracy against trainable scalars, a mean over
# {q}`tasks.seeds.sst2` seeds a point, the head alone as a dashed line. So few seeds have LoRA's smallest
# and CP at its budget the other way round, by {q}`noise.at_papers_rates|negated` points. Point at a cell to see its
# seeds, move the budget to see what it buys. Each task has its chapter: [SST-2](sst2.ipynb), [RTE](rte.ipynb) and
# [BoolQ](boolq.ipynb).
# {says}`noise.at_papers_rates < 0`
#
# ## What the paper asks
#
# LoRA {cite:p}`hu2022lora` spends a {term}`budget` one {term}`rank` at a time: on a `2048×2048` projection,
# {q}`parameter_steps.step.lora` scalars. A {term}`CP adapter` spends it one {term}`component` at a time,
# {q}`parameter_steps.step.cp` scalars, about {q}`parameter_steps.ratio|0` times as finely. That is finer than
# LoRA and not the finest there is ([parameter steps](parameter_steps.ipynb)). Does a finer step buy a better adapter?
#
# The paper's answer, on OPT-1.3B: CP trains stably and fills the gaps between the ranks; on SST-2 accuracy is flat
# from low budgets on; on BoolQ it grows with the components and then stays slightly below LoRA; RTE remains LoRA's. A
# finer step shows where a task is sensitive to the budget, and does not by itself give more accuracy for it. Its key
# cells:

# %% tags=["hide-input"]
published = read_published()
key = published[published["seeds"] == published["seeds"].max()].dropna(subset="sd").reset_index(drop=True)
charts.table(
    key.assign(
        task=key["task"].map(charts.task_name),
        adapter=[f"{charts.family_name(row.label)} {row.size}" for row in key.itertuples()],
        scalars=key["parameters"].map("{:,}".format),
        accuracy=[f"{100 * row.accuracy:.1f} ± {100 * row.sd:.1f}" for row in key.itertuples()],
    )[["task", "adapter", "scalars", "accuracy"]].rename(columns={"accuracy": "accuracy, %"})
)

# %% [markdown]
# Published, OPT-1.3B, second-hand, from a reading note that nobody has checked here: mean ± standard deviation over
# {q}`claims.papers_seeds` seeds. That deviation leaves out the items, [which may be the larger error](claims.ipynb).
#
# ## What is found here so far
#
# - *Parts of the paper's pattern appear, at ten times its rates or with more examples; at its own rates most cannot be
#   told.* SST-2 is flat to within a point from one component to {q}`noise.most_components` on the sentences of eval,
#   with {q}`noise.over_seeds.sst2.lora1_cp11|n` seeds on one draw of its examples, and with two over
#   {q}`noise.over_draws.sst2.lora1_cp11|n` others; on dev, which is of phrases as its training is, it is
#   [not](noise.ipynb). With all of its examples BoolQ gains from components, and LoRA is ahead at equal budgets; that
#   CP saturates there is not shown ([the readout, and more examples](readout.ipynb)). With a thousand examples and
#   {q}`noise.over_seeds.boolq.lora1_cp11|n` seeds it gains too, {q}`noise.over_seeds.boolq.cp44_cp1` points on one
#   draw. RTE, at ten times the paper's rates and from a thousand examples, seems to gain
#   {q}`noise.over_seeds.rte.cp44_cp1` points from one component to {q}`noise.most_components` on one draw, over
#   {q}`noise.over_seeds.rte.lora1_cp11|n` seeds ({q}`noise.over_seeds.rte.cp44_cp1|interval`, just not clear after
#   correction), and not clearly over {q}`noise.over_draws.rte.cp44_cp1|n` others on eval, but clearly on [dev's other
#   items](noise.ipynb); the mean of LoRA's first rank is {q}`noise.over_seeds.rte.lora1_cp11` above CP's at its
#   budget, which is not clear ({q}`noise.over_seeds.rte.lora1_cp11|interval`). Each claim has [its
#   verdict](claims.ipynb).
#   {says}`all(claims.verdict != 'does not hold') and claims.verdict.saturates.boolq.all_examples == 'cannot be told'`
#   {says}`readout.verdict.all.cp_gains.head == 'holds' and readout.verdict.all.cp_saturates.head == 'cannot be told'`
#   {says}`claims.difference.cp_gains.boolq.all_examples.low > 0 and noise.over_seeds.boolq.cp44_cp1.low > 0`
#   {says}`noise.alike_over_seeds.sst2.cp44_cp1 < 0.05 and noise.alike_over_draws.sst2.cp44_cp1 < 0.05`
#   {says}`noise.on_dev.sst2.cp44_cp1.low > 0 and noise.on_dev.rte.cp44_cp1.low > 0`
#   {says}`noise.over_seeds.rte.cp44_cp1.low > 0 and 0.05 < noise.gain_p < 0.06`
#   {says}`noise.over_draws.rte.cp44_cp1.low < 0 < noise.over_draws.rte.cp44_cp1`
# - *A budget is felt in training first.* Under the paper's protocol every larger adapter of a family has the smaller
#   training loss, and the largest CP learns its examples by heart ({q}`tasks.loss.boolq.most` on
#   [BoolQ](boolq.ipynb)). Little of that arrives on eval: on BoolQ balanced accuracy is
#   {q}`tasks.balanced.boolq.least` to {q}`tasks.balanced.boolq.most` %, where one answer for
#   all has a half, and no CP reaches the {q}`tasks.majority.boolq` % of always giving the commoner answer.
#   {says}`tasks.loss.boolq.most < 0.01 and tasks.best.boolq.cp < tasks.majority.boolq`
#   {says}`50 < tasks.balanced.boolq.least < tasks.balanced.boolq.most < 60`
# - *The learning rate is a hidden budget.* On RTE a CP adapter of {q}`rates.small_scalars` scalars at the rate that
#   dev chose for it has {q}`rates.small_accuracy` %, no less than four LoRAs at the paper's rate, of up to
#   {q}`rates.times_budget` times its budget ({q}`rates.papers_lora.least` to {q}`rates.papers_lora.most` %); but LoRA
#   gains by its own rate too ([the learning rate](rates.ipynb)).
#   {says}`rates.small_accuracy >= rates.papers_lora.most and min(rates.gain.rte.lora, rates.gain.rte.cp) > 0`
# - *Few seeds and small evaluation sets are the limit.* LoRA's lead on RTE at the paper's rates, {q}`tasks.lead.rte`
#   points, has an error of {q}`tasks.lead_error.rte`, and with no end of seeds an error of
#   {q}`tasks.lead_error_limit.rte` would remain. And of all threes of the {q}`noise.over_seeds.sst2.lora1_cp11|n`
#   seeds on SST-2 {q}`noise.wrong_sign.sst2.lora1_cp11|unit` have the families' means the wrong way round or level
#   ([seeds and items](noise.ipynb)).
# - *Neither initial weights nor the order of the examples is most of a seed.* Chance on few items is: on SST-2 it
#   moves a run by {q}`causes.part.sst2.chance` points and on RTE by {q}`causes.part.rte.chance`. Nor does a seed's
#   number bring a run back: in another bank, rounded otherwise, its accuracy is another, with a standard deviation of
#   {q}`causes.again.sst2` and {q}`causes.again.rte` points on the average over adapters ([what moves a
#   run](causes.ipynb)).
#   {says}`causes.part.sst2.chance > max(causes.part.sst2.weights, causes.part.sst2.order)`
#   {says}`causes.part.rte.chance > max(causes.part.rte.weights, causes.part.rte.order)`
# - *One choice that matters little on SST-2, and one that may matter.* How CP splits the sides changes less than a
#   point on SST-2, at one budget and rate; on RTE that is open ([tensorization](tensorization.ipynb)). Between a
#   trained head and two frozen words the average adapter differs by {q}`readout.words_gain.sst2|signed` points
#   on SST-2, {q}`readout.words_gain.rte|signed` on RTE and {q}`readout.words_gain.all|signed` on all of BoolQ, none
#   clear ([the readout](readout.ipynb)).
#   {says}`tensorization.alike_p.sst2.most < 0.05`
#   {says}`tensorization.alike_p.rte.least > 0.05 and tensorization.clear_p.rte > 0.05`
#   {says}`readout.words_gain.sst2.low < 0 < readout.words_gain.sst2.high`
#   {says}`readout.words_gain.rte.low < 0 < readout.words_gain.rte.high`
#   {says}`readout.words_gain.all.low < 0 < readout.words_gain.all.high`
#   {says}`readout.clear == 1 and readout.apart_holm.few.cp11 < 0.05`
# - *On an encoder there is something to gain below one rank.* From {q}`encoder.components.fewest` to
#   {q}`encoder.components.nearly` components CP on MiniLM gains {q}`encoder.step.cp9_cp1.sst2|signed`,
#   {q}`encoder.step.cp9_cp1.sick|signed`, {q}`encoder.step.cp9_cp1.mrpc|signed`,
#   {q}`encoder.step.cp9_cp1.boolq|signed` points on {q}`encoder.taught`, clear on {q}`encoder.clear.cp9_cp1`. LoRA's
#   first rank is nowhere passed by it, and clearly ahead on {q}`encoder.clear.lora1_cp9`; its larger ranks are not
#   judged on BoolQ, where they fall towards the commonest answer at a rate that was chosen on SST-2 ([an
#   encoder](encoder.ipynb)).
#   {says}`all(encoder.step.cp9_cp1 > 0) and all(encoder.step.lora1_cp9.high > 0)`
#   {says}`encoder.lead_verdict.boolq == 'not judged'`
# - *At equal size, and at the paper's, CP and LoRA are equivalent.* Over {q}`main_study.tasks|unit` LoRA leads by
#   {q}`main_study.primary|unit` ({q}`main_study.primary|interval|signed`), on adapters that gain up to
#   {q}`main_study.greatest_gain|unit` over the head alone ([the main study](main_study.ipynb)).
#   {says}`main_study.verdict == 'equivalent' and main_study.greatest_gain > 10`
# - *In the paper's own design three seeds show no difference there.* CP and LoRA of equal size differ by
#   {q}`size.gap.sst2` points on SST-2 ({q}`size.gap.sst2|interval|signed`) and by {q}`size.gap.rte` on RTE
#   ({q}`size.gap.rte|interval|signed`). BoolQ is not measured there yet ([the paper's size](size.ipynb)).
#   {says}`size.tasks == 2 and size.gap.sst2.low < 0 < size.gap.sst2.high and size.gap.sst2.n == 3`
#   {says}`size.gap.rte.low < 0 < size.gap.rte.high`
# - *On the generated tasks CP is behind LoRA at every matched budget.* Each family had one rate there and a short
#   training, which may be why; that is not tested.
# - *A CP adapter is a LoRA adapter once trained.* It merges, and it exports exactly ([the CP
#   adapter](cp_adapter.ipynb)).
#
# OPT-1.3B itself is **not measured**: its weights were not at hand. Its grid is a [study
# file](../book/run_it_yourself.md), ready to run, and its cells stay empty until somebody does.
#
# ## Where to go
#
# - **To understand it**, read on: [parameter steps](parameter_steps.ipynb), [the CP adapter](cp_adapter.ipynb), [the
#   protocol](protocol.ipynb), [what we will test](../book/plan.md), [the study in small](study_in_small.ipynb), [the
#   first measured frontiers](first_frontiers.ipynb), [SST-2](sst2.ipynb), [RTE](rte.ipynb), [BoolQ](boolq.ipynb),
#   [seeds and items](noise.ipynb), [what moves a run](causes.ipynb), [the learning rate](rates.ipynb), [the
#   readout](readout.ipynb), [tensorization](tensorization.ipynb), [an encoder](encoder.ipynb), [the paper's
#   size](size.ipynb), [the claims](claims.ipynb), [limits](limits.ipynb), [what a run costs](what_a_run_costs.ipynb),
#   [what was run](what_was_run.ipynb).
# - **To adapt a model of yours**, [use it in PEFT](use_in_peft.ipynb): `CPConfig` in place of `LoraConfig`, and plain
#   LoRA to ship.
# - **To measure**, on one GPU or a cluster, [run it yourself](../book/run_it_yourself.md): a study file in, comparable
#   records out.
# - **To change things**, `make lab` opens [a notebook](run_budget.ipynb) whose defaults are sized for a CPU.
# - **To extend it**, see [what depends on what](architecture.ipynb) and `CONTRIBUTING.md`.
#
# ## How to cite
#
# Cite the paper {cite:p}`wang2026finer` for the idea and its findings, and `CITATION.cff` in the repository for this
# software and its measurements. Where a figure here is marked second-hand, it came from a public reading note: check
# the paper before you cite it.
#
# Next: [parameter steps](parameter_steps.ipynb).
