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
# {glue:text}`answer`

# %%
import math
import tomllib

import numpy as np
import pandas as pd
from myst_nb import glue
from scipy import stats

import cpadapt
from companion import PROJECT, contrasts
from companion.claims import LEVEL, MARGIN, RULES, SLIGHT, Verdict, interval_90, judge, told
from companion.noise import ENOUGH, MOST_SEEDS
from companion.published import read_published
from companion.rates import PAPERS
from companion.wording import bounds, percent, signed
from cpadapt.analysis import charts
from cpadapt.analysis.cells import NEAR, cells_of
from cpadapt.analysis.statistics import compare, estimate, fewest
from cpadapt.families import counting
from cpadapt.inputs.backbones.specs import Projection

# %% [markdown]
# ## How a verdict is made
#
# By rules, from records. A rule takes one task's cells and one difference in accuracy, such as LoRA minus CP at
# matched budgets, averaged over these, {term}`seed` by seed and item by item; its error has both sources, seeds and
# evaluation items ([`cpadapt.analysis.statistics`](../book/api.md)). The claim says where that difference lies: above
# zero, or within {glue:text}`margin` point of it, or above it and below {glue:text}`slight` points. It
#
# - *holds* if the {glue:text}`confidence` % interval lies there altogether;
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
# So each end is a one-sided test at {glue:text}`level` %. A claim with several rules holds if all do, and fails if one
# does. A verdict is that of the cells measured, under their protocol and at their learning rates, and each is made for
# itself: among many, a few are wrong by chance, and with three seeds somewhat more than that.
#
# The margins are older than the records. Four rules are younger than these, and made by who had seen them: *on the
# edge*; *not judged*, where formerly all adapters, on their average, had to be above the readout or the commonest
# answer, whichever was better (the latter an hour after the tuned records); that flatness begins at LoRA's first rank
# or is not measured; and that lost runs are only counted.


# %% tags=["hide-input"]
def worded(rule):
    """As text that a narrow column can break."""
    return rule.replace("_", " ")


charts.table(
    pd.DataFrame([{"rule": worded(name), "what it says": rule.__doc__.split("\n")[0]} for name, rule in RULES.items()])
)

# %% [markdown]
# *Matched* is a CP size whose budget is nearest to a rank's, and within {glue:text}`near` % of it. So what is said of
# a finer step is said of budgets that LoRA has too, on their average; what sizes [between the
# ranks](between-loras-ranks) are worth, no rule tests.
#
# ## What can be counted
#
# These need no training. Ours are counted from the shapes of the projections, and compared at the digits that the
# paper gives.

# %% tags=["hide-input"]
ledger = tomllib.loads((PROJECT / "book" / "claims.toml").read_text())
PAPER = cpadapt.load_study(PROJECT / "studies" / "paper.toml")
opt = cpadapt.load_projections(PAPER.backbone)
SQUARE = [Projection("square", opt[0].out_features, opt[0].in_features)]
DIGITS = {"scalars": 0, "components": 0, "MiB": 3}


def counted(item):
    if item["unit"] == "MiB":
        return counting.ADAM_BYTES_PER_SCALAR * counting.step(item["family"], opt) / 2**20
    step = counting.step(item["family"], SQUARE)
    return counting.step("lora", SQUARE) / step if item["unit"] == "components" else step


def said(item):
    """A claim, and that it is second-hand where it is."""
    return item["says"] + " (second-hand)" * (item["source"] != "abstract")


counts = []
for item in ledger["counted"]:
    form = f"{{:,.{DIGITS[item['unit']]}f}} {item['unit']}"
    paper, ours = (form.format(value) for value in (item["figure"], counted(item)))
    verdict = Verdict.HOLDS if paper == ours else Verdict.FAILS
    counts.append({"verdict": verdict, "claim": said(item), "the paper's": paper, "ours": ours})
charts.table(pd.DataFrame(counts))

# %% [markdown]
# ## What has to be measured
#
# The paper's backbone is not measured: its weights are not at hand. The same design on SmolLM2-135M-Instruct is, whose
# weights are dequantized from four bits, on one draw of each task's examples (the worst of 31 on SST-2), at the
# paper's rates ([SST-2](sst2.ipynb), [RTE](rte.ipynb), [BoolQ](boolq.ipynb)) and *tuned*: each cell at the rate that
# {term}`dev` chose among {glue:text}`rates`, for the sizes that were tried at all of these, which are four of the six
# matched budgets ([the learning rate](rates.ipynb)). BoolQ, of which little is learned from the thousand examples of
# the protocol, is judged with all of its examples too, at ten times the paper's rates and two matched budgets ([the
# readout, and more examples](readout.ipynb)). At these rates a few cells have [many seeds](noise.ipynb), a hundred on
# SST-2 and RTE and thirty on BoolQ. They have one matched budget, of which several rules can say nothing. MiniLM is
# [an encoder](encoder.ipynb), where the paper speaks of a decoder, and has all examples, ten seeds and three matched
# budgets, of LoRA's second rank and above, at one rate a family. Not judged are the [pilot](first_frontiers.ipynb), a
# shorter training, [other draws](noise.ipynb) and [orders](causes.ipynb) of the examples, and the cells with [another
# readout](readout.ipynb) or with [more seeds of each split](tensorization.ipynb). Those chapters say what they show.

# %% tags=["hide-input"]
CASES = {
    (FIXED := "SmolLM2, paper's rates"): (("smollm2", "smollm2-splits"), PAPERS),
    (TUNED := "SmolLM2, tuned"): (("smollm2", "smollm2-rates"), None),
    "SmolLM2, many seeds": (("smollm2-seeds", "smollm2-seeds-boolq"), None),
    "SmolLM2, all examples": (("boolq-lifted",), None),
    (ENCODER := "MiniLM, all examples"): (("minilm",), None),
    "OPT-1.3B": (("paper",), PAPERS),
}


records = {case: contrasts.on_record(studies) for case, (studies, _) in CASES.items()}
cells = {
    (case, task): cells_of([record for record in records[case] if record.config.task == task], rates)
    for case, (_, rates) in CASES.items()
    for task in PAPER.tasks
}
found, verdicts = [], []
for claim in ledger["claim"]:
    for task in claim["tasks"]:
        row = {"task": charts.task_name(task), "claim": said(claim)}
        for case in CASES:
            verdict, findings = judge(cells[case, task], claim["rules"])
            row[case] = told(verdict, findings)
            found += [
                {"task": row["task"], "case": case, "rule": rule, "finding": finding}
                for rule, finding in findings.items()
            ]
        verdicts.append(row)
table = pd.DataFrame(verdicts)
kept = table[list(CASES)].isin([Verdict.NONE_LOST, Verdict.SOME_LOST]).any(axis=1)
lost, table = table[kept], table[~kept]
charts.table(table)

# %% [markdown]
# With {glue:text}`few` seeds little can be judged: at the paper's rates every comparison has a cell that is not shown
# to learn. That RTE remains LoRA's is {glue:text}`edge`: tuned, LoRA is {glue:text}`tuned_gap` points ahead on the
# average over matched budgets (ninety percent, {glue:text}`tuned_ends`), and without one of them the interval holds
# zero; at the paper's rates that interval begins at {glue:text}`paper_low`. With a hundred seeds, at ten times the
# paper's rates and LoRA's first budget alone, it cannot be told: LoRA minus CP is
# {q}`noise.over_seeds.rte.lora1_cp11` points (90 %, {q}`noise.lead_judged_over_seeds.rte|interval`), and what is
# short is items. What the hundred do show there is that CP is not ahead by a point or more.
#
# The plateau of SST-2 holds on the items of eval; dev, which is of phrases as the training examples are, [says
# otherwise](noise.ipynb). On MiniLM it is not measured, because CP's nearest size misses LoRA's first rank by
# {glue:text}`missed` % of its budget, which is more than {glue:text}`near`. From that size CP gains
# {glue:text}`from_first` points on the average over its larger ones (ninety percent, {glue:text}`from_first_ends`) and
# {glue:text}`to_last` to its largest: that is not flat.
#
# On BoolQ MiniLM is not judged between the families. LoRA's larger ranks fall towards the commonest answer there, at a
# rate that was chosen on another task, and {glue:text}`gave_up` of their runs give one answer to every item
# ([an encoder](encoder.ipynb)).
#
# ## No run was lost
#
# *CP trains stably* is a claim on runs that end without a loss or a gradient that is not finite. Of CP's runs this
# many were lost, which says nothing of their accuracy ([runs can be useless in other ways](rates.ipynb)):

# %% tags=["hide-input"]
shown = {(row["task"], row["case"]): row["finding"].diverged for row in found if row["finding"].diverged}


def of_runs(task, case):
    return "{} of {:,}".format(*shown[task, case]) if (task, case) in shown else Verdict.UNMEASURED.value


charts.table(pd.DataFrame([{"task": task} | {case: of_runs(task, case) for case in CASES} for task in lost["task"]]))

# %% [markdown]
# (between-loras-ranks)=
# ## Between LoRA's ranks
#
# At the paper's rates CP was run with {glue:text}`between` components too, whose budgets are between those of LoRA's
# first two ranks. On their average, with {glue:text}`few` seeds, against the nearest sizes below them:

# %% tags=["hide-input"]
fixed = {task: cells[FIXED, task] for task in PAPER.tasks}
BETWEEN = fixed["sst2"].sizes_between(("lora", 1), ("lora", 2), "cp")
sizes = " and ".join(map(str, BETWEEN))
steps = {
    (task, below): estimate(
        np.mean([of.outcomes["cp", size].right for size in BETWEEN], axis=0) - of.outcomes[below].right
    )
    for task, of in fixed.items()
    for below in (("lora", 1), ("cp", fixed["sst2"].matched("lora", "cp")[0][1]))
}
charts.table(
    contrasts.contrast_table(
        contrasts.frame(
            [
                contrasts.Contrast(charts.task_name(task), f"CP {sizes} − {charts.cell_name(*below)}", e)
                for (task, below), e in steps.items()
            ]
        ),
        "task",
        "difference",
    )
)

# %% [markdown]
# Over the three tasks that is {glue:text}`between_gap` ± {glue:text}`between_reach` points against LoRA's first rank
# (ninety-five percent), and {glue:text}`between_own` ± {glue:text}`between_own_reach` against CP at its budget: no
# gain from these sizes is seen, nor is a loss shown. It is one rate a family, at which CP is behind in training.
#
# ## What each verdict hangs on
#
# The differences behind the verdicts, in points of accuracy, and where the claim wants them. Where it cannot be told,
# *power* is the chance to show it with these seeds and items if it is so, and *seeds* how many would give a chance of
# {glue:text}`enough` % on the same items; *more items* says that {glue:text}`most` would not. "If it is so" means
# {glue:text}`margin` point from the end of the region, or in the middle of one that has two ends. *First rank learns*
# is in balanced accuracy.


# %% tags=["hide-input"]
def power(finding, seeds):
    """The chance that so many seeds show it, if it is so."""
    e, region = finding.estimate, finding.region
    two_ends = math.isfinite(region.low) and math.isfinite(region.high)
    inside = (region.high - region.low) / 2 if two_ends else MARGIN
    shown = e.power(inside, seeds, e.items, alpha=2 * LEVEL)
    return max(2 * shown - 1, 0) if two_ends else shown


def wanted(region):
    low, high = (f"{100 * end:+.0f}" if end else "0" for end in (region.low, region.high))
    if math.isinf(region.high):
        return f"above {low}"
    return f"below {high}" if math.isinf(region.low) else f"{low} to {high}"


def evidence(row):
    finding = row["finding"]
    shown = {"task": row["task"], "rule": worded(row["rule"]), "cells": row["case"], "verdict": finding.told}
    e = finding.estimate
    shown |= {
        "difference, interval": f"{signed(e.mean)}, {bounds(interval_90(e))}",
        "wanted": wanted(finding.region),
    }
    if finding.verdict is Verdict.OPEN:
        needed = fewest(lambda seeds: power(finding, seeds), ENOUGH, MOST_SEEDS)
        shown |= {
            "power": f"{percent(power(finding, e.seeds), 0)} %",
            "seeds": f"{needed:,}" if needed else "more items",
        }
    return shown


behind = [evidence(row) for row in found if row["finding"].estimate is not None]
charts.table(pd.DataFrame(behind).drop_duplicates(ignore_index=True).fillna(""))

# %% [markdown]
# Of the {glue:text}`judged` verdicts that can be given both at the paper's rates and tuned, {glue:text}`changed` are
# not the same. Whether a rate makes a difference to LoRA's lead, and how sure that is, is another question, which has
# [its own chapter](rates.ipynb).
#
# ## The paper's own numbers, read again
#
# The paper gives means and deviations over {glue:text}`paper_seeds` seeds for a few cells (second-hand). So the error
# from seeds is known, and small. What it leaves open is the error from items: another evaluation set of the same size
# would have given another difference. If items varied as they do in the tuned cells of SmolLM2, at matched budgets,
# the errors of a difference would be these, in points:

# %% tags=["hide-input"]
published = read_published().dropna(subset="sd")
validation = tomllib.loads((PROJECT / "book" / "published.toml").read_text())["validation"]
NOT = Verdict.UNMEASURED.value
reread = []
for lora in published[published["label"] == "lora"].itertuples():
    items = min(validation[lora.task], PAPER.protocol.eval_cap)
    borrowed = RULES["lora_ahead"](cells[TUNED, lora.task]).estimate
    for cp in published[(published["label"] == "cp") & (published["task"] == lora.task)].itertuples():
        gap = lora.accuracy - cp.accuracy
        of_seeds = math.sqrt(lora.sd**2 / lora.seeds + cp.sd**2 / cp.seeds)
        of_items = borrowed.error_with(math.inf, items) if borrowed else None
        both = math.hypot(of_seeds, of_items) if borrowed else None
        reread.append(
            {
                "task": charts.task_name(lora.task),
                "cells": f"LoRA {lora.size} − CP {cp.size}",
                "difference": signed(gap),
                "error, seeds": percent(of_seeds),
                "error, items": NOT if of_items is None else percent(of_items),
                "over both": NOT if both is None else f"{gap / both:.1f}",
            }
        )
charts.table(pd.DataFrame(reread))

# %% [markdown]
# *Over both* is the difference in units of both errors together. The item error is borrowed from a smaller backbone;
# only the paper's own runs, item by item, can tell it.
#
# Next: [limits](limits.ipynb).

# %% tags=["remove-cell"]
KINDS = {
    Verdict.HOLDS: "hold",
    Verdict.FAILS: "do not hold",
    Verdict.EDGE: "on the edge",
    Verdict.OPEN: "cannot be told",
    Verdict.UNJUDGED: "not judged",
}


def numbers(case):
    """How many verdicts of each kind that there is, as text."""
    counts = table[case].str.partition(":")[0].value_counts()
    return ", ".join(f"{counts[verdict]} {word}" for verdict, word in KINDS.items() if verdict in counts)


def average(below):
    """Over tasks, whose items are others: the mean and half of its 95 % interval, in points."""
    each = [e for (_, cell), e in steps.items() if cell == below]
    reach = stats.norm.ppf(0.975) * math.hypot(*(e.standard_error for e in each)) / len(each)
    return signed(sum(e.mean for e in each) / len(each)), percent(reach)


DECIDED = [Verdict.HOLDS, Verdict.FAILS]
measured = table[list(CASES)] != Verdict.UNMEASURED
given = [f"{measured[case].sum()} are measured on {case} ({numbers(case)})" for case in CASES if measured[case].any()]
absent = [case for case in CASES if not measured[case].any()]
answer = (
    f"Of {len(counts)} figures that can be counted {sum(row['verdict'] == Verdict.HOLDS for row in counts)} are the"
    f" paper's. Of {len(table)} verdicts on accuracy {', '.join(given)}. No run of CP was lost."
    f" Not measured at all: {'; '.join(absent) or 'none'}."
)
both = measured[FIXED] & measured[TUNED]
assert all(row["finding"].verdict is not Verdict.SOME_LOST for row in found)
tuned, at_papers = (RULES["lora_ahead"](cells[case, "rte"]) for case in (TUNED, FIXED))
encoder = cells[ENCODER, "sst2"]
nearly = max(size for size in encoder.sizes("cp") if encoder.budgets["cp", size] < encoder.budgets["lora", 1])
further = [size for size in encoder.sizes("cp") if size > nearly]
from_first = estimate(
    np.mean([encoder.outcomes["cp", size].right for size in further], axis=0) - encoder.outcomes["cp", nearly].right
)
own = ("cp", fixed["sst2"].matched("lora", "cp")[0][1])
for name, value in {
    "answer": answer,
    "margin": percent(MARGIN, 0),
    "slight": percent(SLIGHT, 0),
    "near": percent(NEAR, 0),
    "level": percent(LEVEL, 0),
    "confidence": percent(1 - 2 * LEVEL, 0),
    "enough": percent(ENOUGH, 0),
    "most": f"{MOST_SEEDS:,}",
    "given": str(measured[FIXED].sum()),
    "given_tuned": str(measured[TUNED].sum()),
    "open_fixed": str((~table[FIXED].isin(DECIDED) & measured[FIXED]).sum()),
    "open_tuned": str((~table[TUNED].isin(DECIDED) & measured[TUNED]).sum()),
    "changed": str((table[FIXED] != table[TUNED])[both].sum()),
    "judged": str(both.sum()),
    "edge": tuned.told,
    "tuned_gap": percent(tuned.estimate.mean),
    "tuned_ends": bounds(interval_90(tuned.estimate)),
    "paper_low": signed(interval_90(at_papers.estimate)[0], 4),
    "missed": percent(1 - encoder.budgets["cp", nearly] / encoder.budgets["lora", 1]),
    "from_first": signed(from_first.mean, 2),
    "from_first_ends": bounds(interval_90(from_first), 2),
    "to_last": signed(compare(encoder.outcomes["cp", further[-1]], encoder.outcomes["cp", nearly]).mean, 2),
    "gave_up": str(sum(map(cells[ENCODER, "boolq"].collapsed, RULES["lora_ahead"](cells[ENCODER, "boolq"]).unfit))),
    "between": sizes,
    "between_gap": average(("lora", 1))[0],
    "between_reach": average(("lora", 1))[1],
    "between_own": average(own)[0],
    "between_own_reach": average(own)[1],
    "few": str(len({r.config.seed for r in records[FIXED]})),
    "rates": str(len({r.config.learning_rate for r in records[TUNED] if r.config.family == "cp"})),
    "paper_seeds": str(published["seeds"].min()),
}.items():
    glue(name, value, display=False)
