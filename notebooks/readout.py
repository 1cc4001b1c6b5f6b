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
# {glue:text}`sst2_words_gain` points on SST-2 (ninety-five percent, {glue:text}`sst2_words_gain_ends`), by
# {glue:text}`rte_words_gain` on RTE ({glue:text}`rte_words_gain_ends`), by {glue:text}`boolq_words_gain` on all of
# BoolQ ({glue:text}`boolq_words_gain_ends`) and by {glue:text}`few_words_gain` from a thousand of its examples
# ({glue:text}`few_words_gain_ends`), and no change of LoRA's lead over CP is shown on any. More examples do matter:
# with all {glue:text}`train` of BoolQ instead of a thousand, the same items, seeds, rates and steps, CP with
# {glue:text}`last_size` components is {glue:text}`more_last` points better ({glue:text}`more_last_ends`) and its gain
# over one component is {glue:text}`more_gain` points larger ({glue:text}`more_gain_ends`), while LoRA's lead,
# {glue:text}`gap` points on all items ({glue:text}`gap_ends`), is not shown to change ({glue:text}`more_lead`;
# {glue:text}`more_lead_ends`).

# %%
from dataclasses import replace

import numpy as np
import pandas as pd
from myst_nb import glue

import cpadapt
from companion import PROJECT, contrasts, ladder, rates
from companion.claims import LEVEL, MARGIN, Verdict, interval_90, judge, learned, lora_ahead, told
from companion.wording import bounds, percent, signed
from cpadapt.analysis import charts
from cpadapt.analysis.cells import cells_of
from cpadapt.analysis.charts import cell_name, task_name
from cpadapt.analysis.statistics import compare, estimate, holm
from cpadapt.inputs.tasks.specs import load_spec
from cpadapt.records.config import HEAD

charts.enable()

# %%
words = cpadapt.load_study(PROJECT / "studies" / "smollm2-verbalizer.toml")
HEADS, WORDS = "head", "words"
ALL = f"all of {task_name('boolq')}"


def both(task):
    """The cells of a capped task by readout, of the seeds that were read out by words."""
    heads = contrasts.measured(("smollm2-seeds", "smollm2-seeds-boolq"), task, words.seeds)
    return {HEADS: heads, WORDS: contrasts.measured((words.name,), task)}


settings = {task_name(task): both(task) for task in words.tasks}
settings[ALL] = {
    HEADS: contrasts.measured(("boolq-lifted",), "boolq"),
    WORDS: contrasts.measured(("boolq-lifted-verbalizer",), "boolq"),
}

# %% [markdown]
# ## Two readouts
#
# The paper trains a {term}`head`: a linear map from what the backbone holds at the last token to the labels, started
# at zero and learned beside the adapter, outside of its {term}`budget`. A decoder has a readout of its own, the output
# embedding, which scores every word of its vocabulary as the next one. A {term}`verbalizer` keeps its rows for one
# word a label and nothing else, here {glue:text}`sst2_words` for SST-2, {glue:text}`rte_words` for RTE and
# {glue:text}`boolq_words` for BoolQ. Nothing of it is trained, so that what is learned is all in the adapter, and the
# budget is all there is.
#
# Here are the key cells with both: the smallest LoRA, CP at its budget, CP with one component and CP with
# {glue:text}`last_size`, in {glue:text}`steps` steps and with {glue:text}`seeds` seeds. Their rates are ten times the
# paper's, the highest tried at which no run ends with a training loss above the readout's ([the learning
# rate](rates.ipynb)). BoolQ is there with all of its examples too, in {glue:text}`all_steps` steps, which are
# {glue:text}`epochs` passes. In percent, on eval, with always giving the commonest answer beside:

# %% tags=["hide-input"]
COLUMNS = [(HEAD, 0), ("cp", 1), ("cp", 11), ("cp", 44), ("lora", 1), ("lora", 4)]
UNTRAINED = "no adapter"


def reached(task, readout):
    of = settings[task][readout]
    shown = {"task": task, "readout": readout}
    for cell in COLUMNS:
        there = of.outcomes.get(cell)
        name = cell_name(*cell) if cell[1] else UNTRAINED
        shown[name] = "–" if there is None else percent(there.right.mean())
    return shown | {"commonest": percent(of.majority)}


places = [(task, readout) for task in settings for readout in (HEADS, WORDS)]
charts.table(pd.DataFrame([reached(*place) for place in places]))

# %% [markdown]
# The same in {term}`balanced accuracy`, of which one answer for all has a half:


# %% tags=["hide-input"]
def balanced(task, readout):
    of = settings[task][readout]
    shares = {cell: percent(of.balanced(cell).mean()) if cell in of.outcomes else "–" for cell in COLUMNS}
    named = {cell_name(*cell) if cell[1] else UNTRAINED: share for cell, share in shares.items()}
    return {"task": task, "balanced": readout} | named


charts.table(pd.DataFrame([balanced(*place) for place in places]))

# %% [markdown]
# With no adapter the head is a linear probe, which is trained, and the words are what the backbone would have said.
# There the words are {glue:text}`sst2_apart` points worse on SST-2 and {glue:text}`boolq_apart` on all of BoolQ, and
# on RTE and a thousand examples of BoolQ their means are lower too, neither clear; with the smallest adapter they are
# no longer seen to be worse on any. Each cell read out by words minus the same with a head, the same seeds and items:

# %% tags=["hide-input"]
apart = contrasts.frame([c for task, of in settings.items() for c in contrasts.between(of[HEADS], of[WORDS], task)])
adapted = apart[apart["what"] != cell_name(HEAD, 0)]
charts.interval_chart(adapted, "words − head, points", MARGIN)

# %% tags=["hide-input"]
charts.table(contrasts.contrast_table(apart, "task", "words − head"))

# %% [markdown]
# *Holm* is the p value of no difference, corrected over a task's, and *alike* that of a difference of a point or more,
# uncorrected. Of {glue:text}`adapters` comparisons of adapters {glue:text}`clear` is {term}`clear`, and after
# correction over all {glue:text}`alike` shown to be within a point: with so few seeds, "not shown to differ" is most
# of what can be said of one cell. The clear one is on a thousand examples of BoolQ, where all adapters have the higher
# mean with words. That the average there differs from the one on all of BoolQ is not shown: on the same items and
# seeds by {glue:text}`few_more` points ({glue:text}`few_more_ends`). Nor is it tested what makes it: on SST-2 a head
# has no more examples, and is not seen to be behind.
#
# ## The families, by readout
#
# LoRA minus CP at the budget of a rank:

# %% tags=["hide-input"]
by_readout = [(readout, c) for task, readout in places for c in contrasts.families(settings[task][readout], task)]
gaps = contrasts.frame([replace(c, what=f"{c.what}, {readout}") for readout, c in by_readout])
charts.interval_chart(
    gaps.assign(
        group=[readout for readout, _ in by_readout],
        what=[f"{c.group}, {c.what.split(' − ')[0]}" for _, c in by_readout],
    ),
    "LoRA − CP, points",
    MARGIN,
)

# %% tags=["hide-input"]
charts.table(contrasts.contrast_table(gaps, "task", "budget and readout"))

# %% [markdown]
# And what the rules of [the claims](claims.ipynb) make of these cells, by readout. They judge the few that are here,
# at their rate; what needs more sizes than there are is left out:

# %% tags=["hide-input"]
SAID = {
    "adapters learn": None,
    "the first rank's budget learns": "first_rank_learns",
    "CP gains from components": "cp_gains",
    "CP saturates": "cp_saturates",
    "LoRA is ahead": "lora_ahead",
    "LoRA is slightly ahead": "lora_slightly_ahead",
    "CP is not ahead": "cp_not_ahead",
}


def verdict(of, rule):
    return told(*judge(of, [rule])) if rule else learned(of).verdict.value


verdicts = pd.DataFrame(
    [
        {"task": task, "claim": says} | {readout: verdict(cells, rule) for readout, cells in of.items()}
        for task, of in settings.items()
        for says, rule in SAID.items()
    ]
)
verdicts = verdicts[verdicts[HEADS] != Verdict.UNMEASURED.value]
charts.table(verdicts)

# %% [markdown]
# LoRA's lead with words minus that with a head is {glue:text}`sst2_change` points on SST-2 (ninety-five percent,
# {glue:text}`sst2_change_ends`), {glue:text}`rte_change` on RTE ({glue:text}`rte_change_ends`),
# {glue:text}`few_change` on a thousand examples of BoolQ ({glue:text}`few_change_ends`) and
# {glue:text}`boolq_change` on all ({glue:text}`boolq_change_ends`).
#
# On all of BoolQ the two readouts give the same verdict on {glue:text}`boolq_same` of {glue:text}`boolq_compared`
# claims, on SST-2 on {glue:text}`sst2_same` of {glue:text}`sst2_compared`, on RTE on {glue:text}`rte_same` of
# {glue:text}`rte_compared` and on a thousand examples of BoolQ on {glue:text}`few_same` of {glue:text}`few_compared`;
# several of these read the same difference. They part on SST-2 and on RTE, where "LoRA is ahead" holds with words and
# cannot be told with a head; the same goes for "LoRA is slightly ahead" on SST-2 and for "CP is not ahead" on RTE.
# These are few seeds. With a head a hundred show both on SST-2; on RTE they have LoRA minus CP at
# {q}`noise.over_seeds.rte.lora1_cp11` points (90 %, {q}`noise.lead_judged_over_seeds.rte|interval`), so that CP is
# not ahead by the point that would count, and whether LoRA is ahead cannot be told ([seeds and items](noise.ipynb)).
# On a thousand examples of BoolQ "CP gains from components" holds with words alone, to LoRA's first budget, though its
# mean falls beyond it ({glue:text}`few_falls` points, {glue:text}`few_falls_ends`, uncorrected), and "CP is not ahead"
# with a head alone; with a head CP's gain and LoRA's lead are clear with thirty seeds ([seeds and
# items](noise.ipynb)). From *holds* to *does not hold* or back pass {glue:text}`opposite`.
#
# ## BoolQ with all of its examples
#
# From a thousand examples of BoolQ adapters learn, if [little](boolq.ipynb). At ten times the paper's rates LoRA's
# first rank and CP at its budget have {glue:text}`head_over` points of balanced accuracy over the head alone (ninety
# percent, {glue:text}`head_over_ends`), and read out by words {glue:text}`words_over` over the words alone
# ({glue:text}`words_over_ends`); from all {glue:text}`train` they have more. All minus a thousand with a head, at the
# same rates and steps, on the same items and seeds:

# %% tags=["hide-input"]
TEN_TIMES = {name: plan.learning_rates[0] for name, plan in words.families.items()}
few = cells_of(rates.measured(("smollm2", "smollm2-rates"), "boolq"), TEN_TIMES)
asked = few.outcomes["cp", 1].items
many = contrasts.measured(("boolq-lifted",), "boolq", [seed for seed, _ in few.outcomes[HEAD, 0].seeds])
many = replace(many, outcomes={cell: of.on(asked) for cell, of in many.outcomes.items()})
more = contrasts.frame(contrasts.between(few, many, task_name("boolq")))
charts.table(contrasts.contrast_table(more, "task", "all − a thousand"))

# %% [markdown]
# More of the items share a text then: {glue:text}`shared` of all {glue:text}`items` have a passage that stands among
# the training or dev examples too, of the thousand items before it was {q}`limits.boolq_shared`. What
# part of the gain that is, is not tested.
#
# The paper's account of BoolQ on OPT-1.3B {cite:p}`wang2026finer` can be judged here: that it gains from more
# components, and then saturates slightly below LoRA. With a head, on all {glue:text}`items` items:

# %% tags=["hide-input"]
lifted = ladder.measured("boolq-lifted", "boolq")
charts.frontier_chart(lifted.runs, budget_slider=True)

# %% [markdown]
# and with words:

# %% tags=["hide-input"]
charts.frontier_chart(ladder.measured("boolq-lifted-verbalizer", "boolq").runs, budget_slider=True)

# %% [markdown]
# Components pay. From one to {glue:text}`matched_size`, LoRA's first rank's budget, CP gains {glue:text}`first_gain`
# points with a head ({glue:text}`first_gain_ends`), and from there to {glue:text}`last_size` another
# {glue:text}`second_gain` ({glue:text}`second_gain_ends`): it still gains where LoRA has four ranks, and whether by as
# much as the point that would count cannot be told. It stays below LoRA, by {glue:text}`gap` points with a head and
# {glue:text}`words_gap` with words, on the average over both budgets. And CP with {glue:text}`last_size` components is
# within a point of LoRA's first rank ({glue:text}`level` points, {glue:text}`level_ends`, uncorrected), at four times
# its budget.
#
# Of the {glue:text}`adapted_runs` runs with an adapter and a head, {glue:text}`late` were best on dev at the last of
# {glue:text}`looks` evaluations:

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

# %% tags=["remove-cell"]
whole, spoken = settings[ALL][HEADS], settings[ALL][WORDS]
runs = lifted.runs[lifted.runs["label"] != HEAD]


def cp(after, before):
    return compare(whole.outcomes["cp", after], whole.outcomes["cp", before])


matched, last = (size for _, size in whole.matched("lora", "cp"))
clear = (adapted["holm"] < LEVEL).sum()
alike = sum(p < LEVEL for p in holm(adapted["p_alike"].tolist()))
same = (verdicts[HEADS] == verdicts[WORDS]).groupby(verdicts["task"])
opposite = sum(
    {row[HEADS], row[WORDS]} == {Verdict.HOLDS.value, Verdict.FAILS.value} for row in verdicts.to_dict("records")
)
SHORT = {"sst2": task_name("sst2"), "rte": task_name("rte"), "few": task_name("boolq"), "boolq": ALL}
for name, task in SHORT.items():
    glue(f"{name}_same", str(same.sum()[task]), display=False)
    glue(f"{name}_compared", str(same.size()[task]), display=False)
headed_few, spoken_few = (settings[task_name("boolq")][readout] for readout in (HEADS, WORDS))
for name, of in (("head", headed_few), ("words", spoken_few)):
    over = learned(of).estimate
    glue(f"{name}_over", percent(over.mean), display=False)
    glue(f"{name}_over_ends", bounds(interval_90(over)), display=False)
shares_text = contrasts.on_record(("boolq-lifted",))[0].data["eval_shares_text"]
gain = [of.outcomes["cp", last].right - of.outcomes["cp", 1].right for of in (few, many)]


def by_words(task, adapters):
    """By seed and item, words minus head, on the average over adapters."""
    heads, spoken = (settings[task][readout].outcomes for readout in (HEADS, WORDS))
    return np.mean([spoken[cell].right - heads[cell].right for cell in adapters], axis=0)


adapters = {task: [cell for cell in of[HEADS].outcomes if cell[0] != HEAD] for task, of in settings.items()}
change = {name: by_words(task, adapters[task]) for name, task in SHORT.items()}
all_by_words = by_words(ALL, adapters[task_name("boolq")])[:, np.isin(whole.outcomes["cp", 1].items, asked)]
# What sentences name by its size, having said which way it goes.
AHEAD = ("more_last", "more_gain", "gap", "first_gain", "second_gain")
for name, e in {
    **{f"{name}_change": rates.gap_change(*settings[task].values()) for name, task in SHORT.items()},
    **{f"{name}_words_gain": estimate(of_task) for name, of_task in change.items()},
    "few_more": estimate(change["few"] - all_by_words),
    "few_falls": compare(spoken_few.outcomes["cp", last], spoken_few.outcomes["cp", matched]),
    # At the budgets that there are with all examples.
    "more_lead": rates.gap_change(replace(few, budgets=many.budgets), many),
    "more_last": compare(many.outcomes["cp", last], few.outcomes["cp", last]),
    "more_gain": estimate(gain[1] - gain[0]),
    "gap": lora_ahead(whole).estimate,
    "first_gain": cp(matched, 1),
    "second_gain": cp(last, matched),
    "level": compare(whole.outcomes["cp", last], whole.outcomes["lora", 1]),
}.items():
    glue(name, (percent if name in AHEAD else signed)(e.mean), display=False)
    glue(f"{name}_ends", bounds(e.interval()), display=False)
for name, value in {
    "shared": f"{shares_text['passage']:,}",
    "train": f"{lifted.examples['train']:,}",
    "items": f"{lifted.examples['eval']:,}",
    "matched_size": str(matched),
    "last_size": str(last),
    "steps": f"{words.protocol.steps:,}",
    "seeds": str(len(words.seeds)),
    "all_steps": f"{lifted.protocol.steps:,}",
    "epochs": f"{lifted.protocol.steps * lifted.protocol.batch_size / lifted.examples['train']:.1f}",
    "adapters": str(len(adapted)),
    "clear": str(clear) if clear else "none",
    "alike": str(alike) if alike else "none",
    "opposite": str(opposite) if opposite else "none",
    "words_gap": percent(lora_ahead(spoken).estimate.mean),
    "adapted_runs": str(len(runs)),
    "late": str((runs["best_step"] == lifted.protocol.steps).sum()),
    "looks": str(lifted.protocol.steps // lifted.protocol.eval_every),
}.items():
    glue(name, value, display=False)
for task in words.tasks:
    glue(f"{task}_words", " and ".join(f"“{word.strip()}”" for word in load_spec(task).label_words), display=False)
floors = apart[apart["what"] == cell_name(HEAD, 0)].set_index("group")["mean"]
for name, group in (("sst2", task_name("sst2")), ("boolq", ALL)):
    glue(f"{name}_apart", percent(-floors[group], 0), display=False)
