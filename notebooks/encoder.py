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
# **Do components pay on an encoder that trains on all examples?**
#
# On MiniLM-L6 they do, below LoRA's first rank: from {glue:text}`fewest` to {glue:text}`nearly` {term}`components
# <component>`, one of which has {glue:text}`share` % of that rank's {term}`budget`, CP gains {glue:text}`gains` points
# on {glue:text}`tasks`, {term}`clear` after correction on {glue:text}`gained`. But CP just under that budget is
# nowhere shown to pass the rank itself (LoRA minus CP is {glue:text}`first` points), and of {glue:text}`pairs`
# differences at {glue:text}`matched` matched budgets above it {glue:text}`clear` are clear, on {glue:text}`clear_on`
# alone, where LoRA's larger ranks give up at this rate.

# %%
import pandas as pd
from IPython.display import display
from myst_nb import glue

import cpadapt
from cpadapt import charts, contrasts, ladder
from cpadapt.book import PROJECT
from cpadapt.charts import TASK_NAMES, pair_name
from cpadapt.claims import LEVEL, MARGIN, Verdict, cells_of, interval, learned
from cpadapt.rates import one_answer

charts.enable()

# %%
study = cpadapt.load_study(PROJECT / "studies" / "minilm.toml")
records = contrasts.on_record((study.name,))
cells = {task: cells_of(r for r in records if r.config.task == task) for task in study.tasks}
taught = [task for task, known in cells.items() if learned(known).verdict is Verdict.HOLDS]
runs, _ = cpadapt.tabulate(records)

# %% [markdown]
# ## The frontiers
#
# {glue:text}`runs` runs with {glue:text}`seeds` {term}`seeds <seed>` a cell, {glue:text}`steps` steps, and no cap on
# the training examples or the evaluation items; at one rate for each {term}`family`, the better on {term}`dev` of two
# that an earlier ladder tried, on SST-2 alone. Faint points are seeds, and the dashed line is the {term}`head` alone.

# %% tags=["hide-input"]
for task in cells:
    display(charts.frontier_chart(runs[runs["task"] == task]).properties(title=TASK_NAMES[task]))

# %% [markdown]
# On {glue:text}`untaught` there is nothing to compare. Always giving the commonest answer is right on
# {glue:text}`untaught_majority` % of its items, and the adapters at matched budgets are {glue:text}`untaught_over`
# points from that on the average (ninety percent, {glue:text}`untaught_over_ends`): that this encoder learns from
# {glue:text}`untaught_examples` examples whether one sentence follows from another is not shown. The tables below have
# the task all the same, and their sentences speak of the others.
#
# ## From nothing to one rank
#
# A rank costs {glue:text}`rank` scalars and a component {glue:text}`component`, so {glue:text}`under` of CP's sizes
# cost less than the smallest LoRA that there is. Differences in points, item by item and seed by seed; *Holm* is the p
# value of no difference, corrected over a task's, and *alike* that of a difference of a point or more, uncorrected.
# Dashed is a point on either side of none.

# %% tags=["hide-input"]
HEAD = ("head", 0)
FIRST, LAST = (("lora", end(study.ladder.sizes["lora"])) for end in (min, max))
sizes = sorted(study.ladder.sizes["cp"])
of_any = next(iter(cells.values()))
below = [size for size in sizes if of_any.budgets["cp", size] < of_any.budgets[FIRST]]
fewest, nearly, most = ("cp", sizes[0]), ("cp", below[-1]), ("cp", sizes[-1])
STEPS = [(fewest, HEAD), (nearly, fewest), (most, nearly), (most, fewest), (FIRST, nearly), (LAST, FIRST)]
steps = contrasts.frame(
    [contrast for task, known in cells.items() for contrast in contrasts.pairs(known, STEPS, TASK_NAMES[task])]
)
charts.interval_chart(steps, "difference, points", MARGIN)

# %% tags=["hide-input"]
charts.table(contrasts.contrast_table(steps, "task", "difference"))

# %% [markdown]
# One component takes {glue:text}`way` % of the way from the head to the best adapter ({glue:text}`tasks`, in turn),
# and more of them take a part of the rest: here a finer {term}`parameter step` buys accuracy at budgets that no LoRA
# can have. That LoRA's largest rank buys anything over its first is nowhere shown. On BoolQ it loses
# {glue:text}`lost` points, clear after correction: {glue:text}`gave_up` of its {glue:text}`seeds` runs give the
# commonest answer to every item of eval. CP with as many scalars does no such thing at its own rate; whether LoRA
# holds out at a lower one was not tried.
#
# The next table has the smallest size of each family within a point of its best, and how often it is that one when
# seeds and items are drawn anew:

# %% tags=["hide-input"]
of_tasks = {TASK_NAMES[task]: ladder.plateau_table(known) for task, known in cells.items()}
charts.table(pd.concat(of_tasks, names=["task"]).reset_index("task"))

# %% [markdown]
# ## At one rank and above
#
# LoRA minus CP at each budget that both can have:

# %% tags=["hide-input"]
matched = contrasts.frame(
    [contrast for task, known in cells.items() for contrast in contrasts.families(known, TASK_NAMES[task])]
)
charts.interval_chart(matched, "LoRA − CP, points", MARGIN)

# %% tags=["hide-input"]
charts.table(contrasts.contrast_table(matched, "task", "pair"))

# %% [markdown]
# {glue:text}`within` of these {glue:text}`pairs` differences are shown to be within a point, before correction. The
# {glue:text}`clear` that are clear are those of LoRA's larger ranks on BoolQ. On MRPC too LoRA's largest rank falls
# behind its first, by {glue:text}`drop` points, which is not clear after correction. LoRA's rate was chosen on another
# task and with fewer examples.
#
# That is another answer than [SST-2 on SmolLM2](sst2.ipynb) gives, and backbone, pooling, number of examples and rate
# all differ between the two: which of them makes components pay cannot be said from these runs. Nor are [the
# claims](claims.ipynb) judged by them: those are the paper's, of a decoder.
#
# Next: [the claims, one by one](claims.ipynb).


# %% tags=["remove-cell"]
def gaps(after, before):
    """What a cell has over another on each task that is taught, in their order."""
    found = steps[steps["what"] == pair_name(after, before)].set_index("group")["mean"]
    return ", ".join(f"{100 * found[TASK_NAMES[task]]:+.1f}" for task in taught)


def taken(known):
    """How much of what the best adapter gains over the head one component does, in percent."""
    means = {cell: outcomes.right.mean() for cell, outcomes in known.outcomes.items()}
    return f"{100 * (means[fewest] - means[HEAD]) / (max(means.values()) - means[HEAD]):.0f}"


def listed(names):
    """As a sentence lists them."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


falls = steps[steps["what"] == pair_name(LAST, FIRST)].set_index("group")["mean"]
gained = steps[(steps["what"] == pair_name(nearly, fewest)) & (steps["holm"] < LEVEL)]
clear = matched[matched["holm"] < LEVEL]
constant = one_answer(records)
gave_up = [r for r in records if (r.config.task, r.label, r.config.size) == ("boolq", *LAST) and r.id in constant]
(untaught,) = cells.keys() - set(taught)
over = learned(cells[untaught]).estimate
for name, value in {
    "fewest": str(sizes[0]),
    "nearly": str(below[-1]),
    "gains": gaps(nearly, fewest),
    "tasks": listed([TASK_NAMES[task] for task in taught]),
    "all_tasks": listed([TASK_NAMES[task] for task in cells]),
    "gained": listed(list(gained["group"])),
    "share": f"{100 * of_any.budgets[fewest] / of_any.budgets[FIRST]:.0f}",
    "first": gaps(FIRST, nearly),
    "matched": str(len(of_any.matched())),
    "pairs": str(len(matched)),
    "clear": str(len(clear)),
    "clear_on": listed(list(dict.fromkeys(clear["group"]))),
    "runs": str(len(runs)),
    "seeds": str(len(study.seeds)),
    "steps": f"{study.protocol.steps:,}",
    "untaught": TASK_NAMES[untaught],
    "untaught_examples": f"{next(r for r in records if r.config.task == untaught).data['sets']['train']['size']:,}",
    "untaught_majority": f"{100 * cells[untaught].majority:.1f}",
    "untaught_over": f"{100 * over.mean:+.1f}",
    "untaught_over_ends": " to ".join(f"{100 * end:+.1f}" for end in interval(over)),
    "lost": f"{-100 * falls[TASK_NAMES['boolq']]:.1f}",
    "gave_up": str(len(gave_up)),
    "rank": f"{of_any.budgets[FIRST]:,}",
    "component": f"{of_any.budgets['cp', 1]:,}",
    "way": ", ".join(taken(cells[task]) for task in taught),
    "under": str(len(below)),
    "drop": f"{-100 * falls[TASK_NAMES['mrpc']]:.1f}",
    "within": str((matched["p_alike"] < LEVEL).sum()),
}.items():
    glue(name, value, display=False)
