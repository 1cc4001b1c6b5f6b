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
# # An encoder: what there is below one rank
#
# **Do components pay on an encoder whose examples are not capped?**
#
# On MiniLM-L6 they do, below LoRA's first rank and on some tasks beyond it: on {glue:text}`tasks`, in turn, CP gains
# {glue:text}`gains` points from {glue:text}`fewest` to {glue:text}`nearly` {term}`components <component>`, which have
# {glue:text}`fewest_share` and {glue:text}`nearly_share` % of that rank's {term}`budget` ({term}`clear` after
# correction on {glue:text}`gained`), and {glue:text}`further` from there to {glue:text}`most` (clear on
# {glue:text}`gained_further`). But the rank itself is nowhere shown to be passed by that CP just under its budget, and
# its mean is ahead by {glue:text}`first` points (clear on {glue:text}`ahead_on`), and of {glue:text}`pairs`
# differences at {glue:text}`matched` matched budgets above it {glue:text}`clear` are clear, on {glue:text}`clear_on`
# alone, where LoRA's larger ranks fall towards the commonest answer at a rate that was chosen on SST-2, and nothing is
# [judged](claims.ipynb).

# %%
import pandas as pd
from IPython.display import display
from myst_nb import glue

import cpadapt
from companion import PROJECT, contrasts, ladder
from companion.claims import LEVEL, MARGIN, Verdict, interval_90, learned
from companion.rates import one_answer
from companion.wording import bounds, percent, signed
from cpadapt.analysis import charts
from cpadapt.analysis.cells import cells_of
from cpadapt.analysis.charts import cell_name, pair_name, task_name

charts.enable()

# %%
study = cpadapt.load_study(PROJECT / "studies" / "minilm.toml")
records = contrasts.on_record((study.name,))
cells = {task: cells_of(r for r in records if r.config.task == task) for task in study.tasks}
# LoRA's larger ranks may collapse where CP learns.
taught = [task for task, known in cells.items() if learned(known, ("lora", 1), ("cp", 76)).verdict is Verdict.HOLDS]
runs, _ = cpadapt.tabulate(records)

# %% [markdown]
# ## The frontiers
#
# {glue:text}`runs` runs with {glue:text}`seeds` {term}`seeds <seed>` a cell and {glue:text}`steps` steps, with no cap
# on the training examples or the evaluation items. The steps are {glue:text}`passes` passes over the examples
# ({glue:text}`all_tasks`, in turn), so that on SST-2 a run sees a part of them. Each {term}`family` has one rate, the
# better on {term}`dev` of two that an earlier ladder tried, on a thousand examples of SST-2. Faint points are seeds,
# and the dashed line is the {term}`head` alone.

# %% tags=["hide-input"]
for task in cells:
    display(charts.frontier_chart(runs[runs["task"] == task]).properties(title=task_name(task)))

# %% [markdown]
# On {glue:text}`untaught` there is nothing to compare. The adapters at matched budgets minus the head are
# {glue:text}`untaught_over` points of {term}`balanced accuracy` on the average (ninety percent,
# {glue:text}`untaught_over_ends`), and of none of these cells it is shown that it is above the head: that this encoder
# learns from {glue:text}`untaught_examples` examples whether one sentence follows from another is not shown. On the
# other tasks every cell is shown to have learned, but for {glue:text}`unfit`. In balanced accuracy, which counts each
# class the same, the head, CP's smallest and the best cell have

# %% tags=["hide-input"]
charts.table(
    pd.DataFrame(
        [
            {"task": task_name(task), "head": percent(known.balanced(("head", 0)).mean())}
            | {"CP 1": percent(known.balanced(("cp", 1)).mean())}
            | {"best": percent(max(known.balanced(cell).mean() for cell in known.outcomes))}
            | {"one answer": percent(1 / len(set(known.classes.values())))}
            for task, known in cells.items()
        ]
    )
)

# %% [markdown]
# percent. The
# charts and tables below have the task all the same; the sentences and their counts are of the others.
#
# ## From nothing to one rank
#
# A rank costs {glue:text}`rank` scalars and a component {glue:text}`component`, so {glue:text}`under` of CP's sizes
# cost less than the smallest LoRA of these modules. Differences in points, item by item and seed by seed; *Holm* is
# the p value of no difference, corrected over a task's, and *alike* that of a difference of a point or more,
# uncorrected. Dashed is a point on either side of none.

# %% tags=["hide-input"]
HEAD = ("head", 0)
FIRST, LAST = (("lora", end(study.ladder.sizes["lora"])) for end in (min, max))
sizes = sorted(study.ladder.sizes["cp"])
of_any = next(iter(cells.values()))
below = [size for size in sizes if of_any.budgets["cp", size] < of_any.budgets[FIRST]]
fewest, nearly, most = ("cp", sizes[0]), ("cp", below[-1]), ("cp", sizes[-1])
STEPS = [(fewest, HEAD), (nearly, fewest), (most, nearly), (most, fewest), (FIRST, nearly), (LAST, FIRST)]
steps = contrasts.frame(
    [contrast for task, known in cells.items() for contrast in contrasts.pairs(known, STEPS, task_name(task))]
)
charts.interval_chart(steps, "difference, points", MARGIN)

# %% tags=["hide-input"]
charts.table(contrasts.contrast_table(steps, "task", "difference"))

# %% [markdown]
# By the means, one component takes {glue:text}`way` % of the way from the floor, which is the head alone or always
# giving the commonest answer, to the best adapter ({glue:text}`tasks`, in turn). More of them take a part of the rest,
# at budgets below the smallest LoRA of these modules.
#
# That LoRA's largest rank buys anything over its first is nowhere shown. On BoolQ it loses {glue:text}`lost` points,
# clear after correction: it has {glue:text}`lost_to` %, where always giving the commonest answer has
# {glue:text}`lost_floor`, and as far as the records show {glue:text}`gave_up` of its {glue:text}`seeds` runs give that
# answer to every item. The rate may be why; no lower one was tried.
#
# The next table has the smallest size of each family within a point of its best, and how often it is that one when
# seeds and items are drawn anew:

# %% tags=["hide-input"]
of_tasks = {task_name(task): ladder.plateau_table(known) for task, known in cells.items()}
charts.table(pd.concat(of_tasks, names=["task"]).reset_index("task"))

# %% [markdown]
# ## At one rank and above
#
# LoRA minus CP at each budget that both can have:

# %% tags=["hide-input"]
matched = contrasts.frame(
    [contrast for task, known in cells.items() for contrast in contrasts.families(known, task_name(task))]
)
charts.interval_chart(matched, "LoRA − CP, points", MARGIN)

# %% tags=["hide-input"]
charts.table(contrasts.contrast_table(matched, "task", "pair"))

# %% [markdown]
# {glue:text}`within` of the {glue:text}`pairs` differences on tasks that are learned are shown to be within a point,
# before correction. The {glue:text}`clear` that are clear are those of LoRA's larger ranks on BoolQ. On MRPC too
# LoRA's largest rank falls behind its first, by {glue:text}`drop` points, which is not clear after correction.
#
# That is another answer than [SST-2 on SmolLM2](sst2.ipynb) gives, and backbone, pooling, number of examples and rate
# all differ between the two: which of them makes components pay cannot be said from these runs. [The
# claims](claims.ipynb) are judged by them too, in a column of their own, though they are the paper's, of a decoder.
#
# Next: [the paper's size](size.ipynb).

# %% tags=["remove-cell"]
titles = [task_name(task) for task in taught]
of_steps = {pair: steps[steps["what"] == pair_name(*pair)].set_index("group").loc[titles] for pair in STEPS}
of_matched = matched[matched["group"].isin(titles)]
clear = of_matched[of_matched["holm"] < LEVEL]


def gaps(after, before):
    """What a cell has over another on each task that is learned, in turn."""
    return ", ".join(map(signed, of_steps[after, before]["mean"]))


def clear_on(after, before):
    found = of_steps[after, before]
    return listed(found.index[found["holm"] < LEVEL])


def taken(known):
    """How much of what the best adapter gains over the floor one component does."""
    means = {cell: outcomes.right.mean() for cell, outcomes in known.outcomes.items()}
    floor = max(means[HEAD], known.majority)
    return percent((means[fewest] - floor) / (max(means.values()) - floor), 0)


def listed(names):
    """As a sentence lists them."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


one_of = {record.config.task: record for record in records}
draws = study.protocol.steps * study.protocol.batch_size
train = {task: one_of[task].data["sets"]["train"]["size"] for task in cells}
last_on_boolq = [r for r in records if (r.config.task, r.label, r.config.size) == ("boolq", *LAST)]
constant = one_answer(records)
(untaught,) = cells.keys() - set(taught)
over = learned(cells[untaught]).estimate
for name, value in {
    "fewest": str(fewest[1]),
    "nearly": str(nearly[1]),
    "most": str(most[1]),
    "gains": gaps(nearly, fewest),
    "gained": clear_on(nearly, fewest),
    "further": gaps(most, nearly),
    "gained_further": clear_on(most, nearly),
    "tasks": listed(titles),
    "all_tasks": listed([task_name(task) for task in cells]),
    "fewest_share": percent(of_any.budgets[fewest] / of_any.budgets[FIRST], 0),
    "nearly_share": percent(of_any.budgets[nearly] / of_any.budgets[FIRST], 0),
    "first": gaps(FIRST, nearly),
    "ahead_on": clear_on(FIRST, nearly),
    "matched": str(len(of_any.matched("lora", "cp"))),
    "pairs": str(len(of_matched)),
    "clear": str(len(clear)),
    "clear_on": listed(clear["group"].unique()),
    "within": str((of_matched["p_alike"] < LEVEL).sum()),
    "runs": str(len(runs)),
    "seeds": str(len(study.seeds)),
    "steps": f"{study.protocol.steps:,}",
    "passes": listed([f"{draws / train[task]:.1f}" for task in cells]),
    "sick_items": f"{one_of['sick'].data['sets']['eval']['size']:,}",
    "sick_shared": f"{one_of['sick'].data['eval_shares_text']['sentence_A']:,}",
    "untaught": task_name(untaught),
    "untaught_examples": f"{train[untaught]:,}",
    "unfit": listed(
        [
            f"{cell_name(*cell)} on {task_name(task)}"
            for task in taught
            for cell in learned(cells[task], *(cell for cell in cells[task].outcomes if cell != HEAD)).unfit
        ]
    ),
    "untaught_over": signed(over.mean),
    "untaught_over_ends": bounds(interval_90(over)),
    "rank": f"{of_any.budgets[FIRST]:,}",
    "component": f"{of_any.budgets['cp', 1]:,}",
    "under": str(len(below)),
    "way": ", ".join(taken(cells[task]) for task in taught),
    "lost": percent(-of_steps[LAST, FIRST].loc[task_name("boolq"), "mean"]),
    "lost_to": percent(cells["boolq"].outcomes[LAST].right.mean()),
    "lost_floor": percent(cells["boolq"].majority),
    "gave_up": str(sum(record.id in constant for record in last_on_boolq)),
    "drop": percent(-of_steps[LAST, FIRST].loc[task_name("mrpc"), "mean"]),
}.items():
    glue(name, value, display=False)
