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
# <component>` CP gains {glue:text}`gains` points on {glue:text}`tasks`, with one of them at
# {glue:text}`share` % of that rank's {term}`budget`. But CP just under that budget is nowhere shown to pass the
# rank itself (LoRA minus CP is {glue:text}`first` points), and of {glue:text}`pairs` differences at
# {glue:text}`matched` matched budgets above it {glue:text}`clear` is {term}`clear` after correction.

# %%
import pandas as pd
from IPython.display import display
from myst_nb import glue

import cpadapt
from cpadapt import charts, contrasts, ladder
from cpadapt.book import PROJECT
from cpadapt.charts import TASK_NAMES, pair_name
from cpadapt.claims import LEVEL, MARGIN, cells_of

charts.enable()

# %%
study = cpadapt.load_study(PROJECT / "studies" / "minilm.toml")
records = contrasts.on_record((study.name,))
there = {record.config.task for record in records}
cells = {task: cells_of(r for r in records if r.config.task == task) for task in study.tasks if task in there}
runs, _ = cpadapt.tabulate(records)

# %% [markdown]
# ## The frontiers
#
# {glue:text}`runs` runs with {glue:text}`seeds` {term}`seeds <seed>` a cell, {glue:text}`steps` steps, and no cap on
# the training examples or the evaluation items; at one rate for each {term}`family`, the better on {term}`dev` of two
# that an earlier ladder tried, on SST-2 alone. Faint points are seeds, and the dashed line is the {term}`head` alone.
# {glue:text}`missing`

# %% tags=["hide-input"]
for task in cells:
    display(charts.frontier_chart(runs[runs["task"] == task]).properties(title=TASK_NAMES[task]))

# %% [markdown]
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
# One component takes {glue:text}`way` % of the way from the head to the best adapter, and more of them take a part of
# the rest: here a finer {term}`parameter step` buys accuracy at budgets that no LoRA can have. That LoRA's further
# ranks buy anything is not shown. The next table has the smallest size of each family within a point of its best, and
# how often it is that one when seeds and items are drawn anew:

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
# {glue:text}`within` of these {glue:text}`pairs` differences are shown to be within a point, before correction. On
# MRPC LoRA's largest rank falls {glue:text}`drop` points behind its first, which is not clear after correction; its
# rate was chosen on another task.
#
# That is another answer than [SST-2 on SmolLM2](sst2.ipynb) gives, and backbone, pooling, number of examples and rate
# all differ between the two: which of them makes components pay cannot be said from these runs. Nor are [the
# claims](claims.ipynb) judged by them: those are the paper's, of a decoder.
#
# Next: [the claims, one by one](claims.ipynb).


# %% tags=["remove-cell"]
def gaps(after, before):
    """What a cell has over another on each task, in the tasks' order."""
    return ", ".join(f"{100 * mean:+.1f}" for mean in steps.loc[steps["what"] == pair_name(after, before), "mean"])


def taken(known):
    """How much of what the best adapter gains over the head one component does, in percent."""
    means = {cell: outcomes.right.mean() for cell, outcomes in known.outcomes.items()}
    return f"{100 * (means[fewest] - means[HEAD]) / (max(means.values()) - means[HEAD]):.0f}"


def listed(names):
    """As a sentence lists them."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


fall = steps.set_index(["group", "what"])["mean"][TASK_NAMES["mrpc"], pair_name(LAST, FIRST)]
clear = (matched["holm"] < LEVEL).sum()
absent = [TASK_NAMES[task] for task in study.tasks if task not in cells]
for name, value in {
    "fewest": str(sizes[0]),
    "nearly": str(below[-1]),
    "gains": gaps(nearly, fewest),
    "tasks": listed([TASK_NAMES[task] for task in cells]),
    "share": f"{100 * of_any.budgets[fewest] / of_any.budgets[FIRST]:.0f}",
    "first": gaps(FIRST, nearly),
    "matched": str(len(of_any.matched())),
    "pairs": str(len(matched)),
    "clear": str(clear) if clear else "none",
    "runs": str(len(runs)),
    "seeds": str(len(study.seeds)),
    "steps": f"{study.protocol.steps:,}",
    "missing": f"Not measured: {listed(absent)}." if absent else "",
    "rank": f"{of_any.budgets[FIRST]:,}",
    "component": f"{of_any.budgets['cp', 1]:,}",
    "way": ", ".join(map(taken, cells.values())),
    "under": str(len(below)),
    "drop": f"{-100 * fall:.1f}",
    "within": str((matched["p_alike"] < LEVEL).sum()),
}.items():
    glue(name, value, display=False)
