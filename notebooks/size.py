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
# # At the paper's size, SST-2 asks for hardly any adapter
#
# **What does a parameter budget buy on a model of the paper's size?**
#
# On SST-2, little: CP and LoRA of equal size differ by {glue:text}`gap` points, and the best adapter is
# {glue:text}`over_head` points above the {term}`head` alone.
#
# {glue:text}`seeds` seeds, {glue:text}`items` items; the difference's 95 % interval is {glue:text}`gap_low` to
# {glue:text}`gap_high`.

# %% tags=["hide-input"]
import pandas as pd
from myst_nb import glue

import cpadapt
from companion import PROJECT, ladder
from companion.wording import percent
from cpadapt.analysis import across_tasks, charts
from cpadapt.families import FAMILIES
from cpadapt.inputs.tasks.specs import TASKS
from cpadapt.records.config import HEAD, RunConfig
from cpadapt.records.store import load_records

charts.enable()
task = ladder.measured("size-paper", "sst2")
rates = load_records(PROJECT / "results/size-rates")
charts.frontier_chart(task.runs, budget_slider=True)

# %% [markdown]
# The model is Qwen2.5-Coder-1.5B-Instruct, dequantized from four to six bits: a decoder of OPT-1.3B's size, but not of
# its kind. The design is the paper's, at its rates, with the frozen weights in bfloat16. RTE and BoolQ are
# **not measured** yet.
#
# ## CP against LoRA at equal size

# %% tags=["hide-input"]
charts.table(ladder.difference_table(task.cells))

# %% [markdown]
# *Holm* is the p value corrected for the number of pairs. *Alike* is the p value of a difference of a point or more.
# What this says of the paper's claim on SST-2 is judged when all three tasks are measured, as
# [the plan](../book/plan.md) has it.
#
# ## What the model knew before
#
# Asked in its own words, before any training, a model has these accuracies on up to {glue:text}`asked` items a task;
# beside them is the trained head alone, where it is measured. An instruct model may have seen these public sets. All
# adapters then start from the same knowledge.

# %% tags=["hide-input"]
rows = []
# Its words alone have nothing to train: all seeds give one answer.
for words, trained in (("size-zero-shot", "size-paper"), ("smollm2-verbalizer", "smollm2")):
    untrained = {r.config.task: r for r in load_records(PROJECT / "results" / words) if r.label == HEAD}
    runs = cpadapt.read_records(PROJECT / "results" / trained)
    heads = runs[runs["label"] == HEAD].groupby("task")["eval_accuracy"].mean()
    study = cpadapt.load_study(PROJECT / "studies" / f"{words}.toml")
    rows += [
        {
            "model": charts.backbone_name(study.backbone),
            "task": TASKS[name].title,
            "classes": len(TASKS[name].labels),
            "items": f"{untrained[name].outcome.total:,}",
            "zero-shot, %": percent(untrained[name].outcome.accuracy),
            "balanced, %": percent(untrained[name].outcome.balanced_accuracy),
            "commonest answer, %": percent(untrained[name].data["sets"]["eval"]["majority_rate"]),
            "head, %": percent(heads[name]) if name in heads else "–",
        }
        for name in study.tasks
    ]
charts.table(pd.DataFrame(rows))

# %% [markdown]
# ## Which rates the next studies take
#
# One setting a family and size, the best on {term}`dev` over six tasks and three {term}`draws <data seed>`: mean dev
# accuracy in percent, by the rate in multiples of the paper's. A dash is a setting that was not tried.

# %% tags=["hide-input"]
chosen = across_tasks.chosen_settings(rates)
paper = {name: known.LEARNING_RATE for name, known in FAMILIES.items()}


def setting(config: RunConfig) -> str:
    """A run's setting as the table names it."""
    times = f"{config.learning_rate / paper[config.family]:.0f}×"
    scaled = "" if config.scale == FAMILIES[config.family].SCALE else f", scale {config.scale:.0f}"
    return times + scaled + (", warm-up" if config.warmup_steps else "")


scores = pd.DataFrame(
    {"adapter": charts.cell_name(r.label, r.config.size), "size": r.config.size, "task": r.config.task,
     "setting": setting(r.config), "dev": r.best.dev_accuracy if r.best else 0.0}
    for r in rates
)  # fmt: skip
cell = ["adapter", "size"]
over_draws = scores.groupby([*cell, "setting", "task"], sort=False)["dev"].mean().reset_index()
on_dev = over_draws.pivot_table("dev", cell, "setting", sort=False)
on_dev = on_dev.map(percent, na_action="ignore").fillna("–")
on_dev["chosen"] = [setting(chosen[label.lower().partition(" ")[0], size]) for label, size in on_dev.index]
charts.table(on_dev.droplevel("size").reset_index())

# %% [markdown]
# ## How sure?
#
# Three seeds on one draw of a thousand examples tell only large differences. More seeds would help little: the error
# of {glue:text}`gap_error` points would still be {glue:text}`gap_items_error` with no end of them, because the items
# are few. A setting is chosen by dev alone, and the next studies judge it on other draws and other items.
#
# **For you**: on a task that the model nearly knows, try the head alone first.
#
# Next: [the claims, one by one](claims.ipynb).

# %% tags=["remove-cell"]
found = ladder.figures(task)
best = max(right.right.mean() for (label, _), right in task.cells.outcomes.items() if label != HEAD)
for name, value in {
    "gap": found["gap"].strip("+−"),
    "gap_low": found["gap_low"],
    "gap_high": found["gap_high"],
    "gap_error": found["gap_error"],
    "gap_items_error": found["gap_items_error"],
    "over_head": percent(best - task.cells.outcomes[HEAD, 0].right.mean()),
    "seeds": found["seeds"],
    "items": found["items"],
    "asked": max((row["items"] for row in rows), key=lambda items: int(items.replace(",", ""))),
}.items():
    glue(name, value, display=False)
