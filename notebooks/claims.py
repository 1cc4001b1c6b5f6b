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
# {glue:text}`answer_pilot` {glue:text}`answer_rest`

# %%
import dataclasses
import tomllib

import pandas as pd
from myst_nb import glue

import cpadapt
from cpadapt import budget, charts
from cpadapt.backbones import Projection
from cpadapt.book import PROJECT
from cpadapt.claims import LEVEL, MARGIN, RULES, Verdict, cells_of, every
from cpadapt.families import family
from cpadapt.frontier import read_published
from cpadapt.record import load_records

# %% [markdown]
# ## How a verdict is made
#
# By rules, from records; none is typed. A rule takes one task's cells and one difference that the claim hangs on:
# LoRA's accuracy minus CP's at {term}`matched budgets <matched from below>`, say, averaged over these, {term}`seed` by
# seed and item by item. Its error has both sources, seeds and evaluation items
# ([`cpadapt.statistics`](../book/api.md)). Then the claim
#
# - *holds* if what it says is shown: of a difference, that it is there; of the lack of one, that it is below
#   {glue:text}`margin` point; each by a test at {glue:text}`level` %;
# - *does not hold* if the opposite is shown: the other sign, or a difference that is slight where one is claimed, or
#   one above the margin where none is;
# - *cannot be told* if neither is shown, which is the usual fate of a small difference with few seeds or few items;
# - is *not measured* if cells are missing.
#
# A verdict is that of the cells measured, under their protocol, at their learning rates. Each claim is judged for
# itself, without a correction for their number.


# %% tags=["hide-input"]
def worded(rule):
    """As text that a narrow column can break."""
    return rule.replace("_", " ")


charts.table(
    pd.DataFrame([{"rule": worded(name), "what it asks": rule.__doc__.split("\n")[0]} for name, rule in RULES.items()])
)

# %% [markdown]
# ## What can be counted
#
# These need no training, and no doubt is left: ours are counted from the shapes of the projections.

# %% tags=["hide-input"]
ledger = tomllib.loads((PROJECT / "book" / "claims.toml").read_text())
PAPER = cpadapt.load_study(PROJECT / "studies" / "paper.toml")
opt = cpadapt.load_projections(PAPER.backbone)
SQUARE = [Projection("square", opt[0].out_features, opt[0].in_features)]
DIGITS = {"scalars": 0, "MiB": 3}


def counted(item):
    if item["unit"] == "scalars":
        return budget.step(item["family"], SQUARE)
    return budget.ADAM_BYTES_PER_SCALAR * budget.step(item["family"], opt) / 2**20


counts = []
for item in ledger["counted"]:
    form = f"{{:,.{DIGITS[item['unit']]}f}} {item['unit']}"
    paper, ours = (form.format(value) for value in (item["figure"], counted(item)))
    verdict = Verdict.HOLDS if paper == ours else Verdict.FAILS
    counts.append(
        {"source": item["source"], "claim": item["says"], "the paper's": paper, "ours": ours, "verdict": verdict}
    )
charts.table(pd.DataFrame(counts))

# %% [markdown]
# ## What has to be measured
#
# The paper's backbone is not measured: its weights are not at hand. The same design on SmolLM2-135M is a study of its
# own, `studies/smollm2.toml`. Until that is measured there is its pilot on two of the tasks, with fewer sizes and a
# shorter training, at two rates a {term}`family`: the paper's, and ten times as high ones. *Tuned* is each cell at the
# rate that {term}`dev` chose. A chapter of its own [shows the pilot](first_frontiers.ipynb).

# %% tags=["hide-input"]
RATES = {label: family(label).LEARNING_RATE for label in ("lora", "cp")}
CASES = {
    "pilot, paper's rates": ("smollm2-pilot", RATES),
    "pilot, tuned": ("smollm2-pilot", None),
    "SmolLM2, whole study": ("smollm2", RATES),
    "OPT-1.3B": ("paper", RATES),
}


def of_study(study):
    folder = PROJECT / "results" / study
    return load_records(folder) if folder.is_dir() else []


def said(item):
    """A claim, and that it is second-hand where it is."""
    return item["says"] + " (second-hand)" * (item["source"] != "abstract")


loaded = {study: of_study(study) for study, _ in CASES.values()}
found, verdicts = [], []
for claim in ledger["claim"]:
    for task in claim["tasks"]:
        row = {"task": charts.TASK_NAMES[task], "claim": said(claim)}
        for case, (study, rates) in CASES.items():
            cells = cells_of([record for record in loaded[study] if record.config.task == task], rates)
            findings = {name: RULES[name](cells) for name in claim["rules"]}
            row[case] = every(list(findings.values()))
            found += [row | {"case": case, "rule": name, "finding": finding} for name, finding in findings.items()]
        verdicts.append(row)
table = pd.DataFrame(verdicts)
charts.table(table)

# %% [markdown]
# ## What each verdict hangs on
#
# The differences behind the verdicts, in points of accuracy, with {glue:text}`confidence` % intervals. *Power* is the
# chance that so many seeds and items show a true difference of {glue:text}`margin` point to be there, if they vary as
# estimated. *Seeds for it* is how many would show it with a chance of {glue:text}`enough` %, on the same items; where
# it says *more items*, no number of seeds would. So that is what would change a verdict of *cannot be told*; the
# others would need cells that behave otherwise.

# %% tags=["hide-input"]
ENOUGH, SEEDS = 0.8, (3, 5, 10, 20, 30, 50, 100, 200, 500, 1000)


def seeds_for(e):
    return next((str(n) for n in SEEDS if e.power(MARGIN, n, e.items) >= ENOUGH), "more items")


def evidence(row):
    e = row["finding"].estimate
    low, high = (100 * end for end in e.interval(1 - LEVEL))
    return {
        "task": row["task"],
        "rule": worded(row["rule"]),
        "cells": row["case"],
        "difference, interval": f"{100 * e.mean:+.1f}, {low:+.1f} to {high:+.1f}",
        "seeds, items": f"{e.seeds}, {e.items}",
        "verdict": row["finding"].verdict,
        "power": f"{100 * e.power(MARGIN, e.seeds, e.items):.0f} %",
        "seeds for it": seeds_for(e),
    }


estimated = [row for row in found if row["finding"].estimate is not None]
charts.table(pd.DataFrame([evidence(row) for row in estimated]).drop_duplicates(ignore_index=True))

# %% [markdown]
# The rate is in every one of them. On SST-2 CP minus LoRA is {glue:text}`sst2_fixed` points at the paper's rates and
# {glue:text}`sst2_tuned` at those that dev chose: LoRA's lead is there at the first and slight at best at the second.
#
# ## The paper's own numbers, read again
#
# The paper gives mean accuracies over {glue:text}`paper_seeds` seeds at {glue:text}`paper_budgets` matched budgets
# (second-hand), on as many items as stand here at most, and no error for their difference. If its runs varied as the
# tuned pilot's do on the same task, then LoRA minus CP, averaged over its budgets, would have this error in points,
# and this chance to be so far from none if there were none:

# %% tags=["hide-input"]
published = read_published(PROJECT / "book" / "published.toml")
fewest = published["seeds"].min()
matched = published[published["seeds"] == fewest]
validation = tomllib.loads((PROJECT / "book" / "published.toml").read_text())["validation"]
borrowed = {
    row["task"]: row["finding"].estimate
    for row in found
    if row["rule"] in ("lora_ahead", "finer_is_not_better") and row["case"] == "pilot, tuned"
}
reread = []
for task in PAPER.tasks:
    mean = matched[matched["task"] == task].groupby("label")["accuracy"].mean()
    items = min(validation[task], PAPER.protocol.eval_cap)
    row = {"task": charts.TASK_NAMES[task], "items": items, "LoRA − CP": f"{100 * (mean['lora'] - mean['cp']):+.1f}"}
    if (e := borrowed[charts.TASK_NAMES[task]]) is not None:
        error = e.error_with(int(fewest), items)
        as_if = dataclasses.replace(e, mean=mean["lora"] - mean["cp"], standard_error=error)
        row |= {"error": f"{100 * error:.1f}", "by chance": f"{as_if.p_value():.2f}"}
    reread.append(row)
charts.table(pd.DataFrame(reread).fillna("not measured"))

# %% [markdown]
# That is a guess at an error that only the paper's own runs can tell: a larger backbone may vary less.
#
# Next: [what a run costs](what_a_run_costs.ipynb).

# %% tags=["remove-cell"]
COUNTED = {Verdict.HOLDS: "hold", Verdict.FAILS: "do not", Verdict.OPEN: "cannot be told"}


def told(case):
    """How many verdicts of each kind, as text; those not measured apart."""
    counts = table[case].value_counts()
    return ", ".join(f"{counts.get(verdict, 0)} {word}" for verdict, word in COUNTED.items())


def difference(case, task):
    (e,) = [
        row["finding"].estimate
        for row in found
        if (row["case"], row["task"], row["rule"]) == (case, task, "finer_is_not_better")
    ]
    return f"{100 * e.mean:+.1f}"


fixed, tuned, *others = CASES
judged = int((table[fixed] != Verdict.UNMEASURED).sum())
answer_pilot = (
    f"Of {len(table)} claims, task by task, SmolLM2's pilot has the cells for {judged}: at the paper's rates"
    f" {told(fixed)}; at the rates that dev chose {told(tuned)}."
)
unmeasured = [case for case in others if (table[case] == Verdict.UNMEASURED).all()]
answer_rest = f"Not measured at all yet: {'; '.join(unmeasured)}." if unmeasured else ""
for name, value in {
    "answer_pilot": answer_pilot,
    "answer_rest": answer_rest,
    "margin": f"{100 * MARGIN:.0f}",
    "level": f"{100 * LEVEL:.0f}",
    "confidence": f"{100 * (1 - LEVEL):.0f}",
    **{name: difference(case, "SST-2") for name, case in (("sst2_fixed", fixed), ("sst2_tuned", tuned))},
    "enough": f"{100 * ENOUGH:.0f}",
    "paper_seeds": str(fewest),
    "paper_budgets": str(matched.groupby(["task", "label"]).size().max()),
}.items():
    glue(name, value, display=False)
