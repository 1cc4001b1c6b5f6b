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
# # The protocol
#
# **What exactly is compared, and what had to be chosen where the paper is silent?**
#
# Runs that differ in {term}`family`, {term}`size`, {term}`learning rate` and {term}`seed` alone: same examples, same
# steps, same choice on {term}`dev`, one look at {term}`eval`. Of the {glue:text}`fields:d` fields that fix the rest,
# {glue:text}`papers:d` have the paper's values as far as they are known, and {glue:text}`ours:d` are ours, each named,
# recorded and open to change.

# %%
import ast
import dataclasses
import inspect
import itertools
import tomllib

import pandas as pd
from myst_nb import glue

import cpadapt
from companion import PROJECT
from cpadapt import Protocol
from cpadapt.analysis import charts
from cpadapt.families import FAMILIES, counting
from cpadapt.inputs.tasks.specs import TASKS
from cpadapt.records.config import RunConfig

charts.enable()

# %% [markdown]
# ## Field by field
#
# A {term}`protocol` is a value of `cpadapt.Protocol`, and stands whole in every {term}`record`. Its defaults follow
# {cite:t}`wang2026finer` where a value is known (second-hand: from a public reading note, not from the paper's own
# text), and `sources()` tells which those are.


# %% tags=["hide-input"]
def explained():
    """What the class says of each field."""
    body = ast.parse(inspect.getsource(Protocol)).body[0].body
    said = {}
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            said[field.target.id] = " ".join(text.value.value.replace("`", "").split())
    return said


p = Protocol()
meaning = explained()
for name in ("beta1", "beta2"):
    meaning[name] = meaning["epsilon"]  # said once for the three
sources = p.sources()
charts.table(
    pd.DataFrame(
        [
            {
                "field": name,
                "value": str(value),
                "whose": sources[name],
                "what it is": meaning[name],
            }
            for name, value in dataclasses.asdict(p).items()
        ]
    )
)

# %% [markdown]
# The default precision is ours because a CPU is where most readers start; `studies/paper.toml` sets the paper's, and
# its protocol differs in nothing else. What belongs to a family is kept with the family: the learning rates are the
# paper's, its scale and its start ours.

# %% tags=["hide-input"]
paper = cpadapt.load_study(PROJECT / "studies" / "paper.toml")
options = {name: {**f.SHAPE_OPTIONS, **f.INIT_OPTIONS} for name, f in FAMILIES.items()}
charts.table(
    pd.DataFrame(
        {
            "family": [charts.family_name(name) for name in FAMILIES],
            "learning rate (paper's)": [
                f"{f.LEARNING_RATE:.0e}".replace("e-0", "e-") + ("" if name in paper.families else " (ours)")
                for name, f in FAMILIES.items()
            ],
            "scale (ours)": [f.SCALE for f in FAMILIES.values()],
            "options (ours)": [
                ", ".join(f"{option} = {value}" for option, value in options[name].items()) for name in FAMILIES
            ],
        }
    )
)

# %% [markdown]
# ## Where the paper is silent
#
# Of each of these the reading note found nothing in the paper. The nearest protocol that is public in full is MeZO's
# {cite:p}`malladi2023mezo`, which has the same {glue:text}`caps` examples for training, dev and eval and the same
# target modules. From it come the batch of {glue:text}`nearest_batch:d`, LoRA's $\alpha / r$ of
# {glue:text}`nearest_alpha:d` / {glue:text}`nearest_rank:d` and the prompts.

# %% tags=["hide-input"]
published = tomllib.loads((PROJECT / "book" / "published.toml").read_text())
lora, cp = FAMILIES["lora"], FAMILIES["cp"]
chosen = {
    "batch size": (f"batch_size = {p.batch_size}", "as MeZO"),
    "LoRA alpha and dropout": (f"scale = {lora.SCALE} at every rank, dropout = {p.dropout}", "as MeZO; packed rows"),
    "CP scale and initialisation": (f"scale = {cp.SCALE}, init = zero, raw_norm = 1", "a no-op at the start, as LoRA"),
    "learning-rate schedule": (f"schedule = {p.schedule}, warmup_steps = {p.warmup_steps}", "the Trainer's default"),
    "weight decay": (f"weight_decay = {p.weight_decay}", "the Trainer's default"),
    "prompts": (TASKS["sst2"].prompt, "as MeZO; this one SST-2's, for decoders"),
    "whether a seed also resamples the data": ("it does not: data_seed is apart", "so that runs can be paired"),
}
charts.table(
    pd.DataFrame(
        [
            {"not reported": item, "chosen": chosen[item][0], "why": chosen[item][1]}
            for item in published["not_reported"]
        ]
    )
)

# %% [markdown]
# ## What follows from each choice
#
# **The rate moves CP as its budget does.** On SmolLM2-135M-Instruct, dequantized from four bits, CP moves by
# {q}`rates.cp_by_rate.rte` points on RTE from the worst of {q}`rates.tried` rates to
# the best and by {q}`rates.cp_by_size.rte` from the worst of its sizes; on SST-2 its mean over sizes
# stays within {q}`rates.cp_flat` points at all of these rates ([measured there](rates.ipynb)). So a
# study names several rates a family, each a run of its own, and dev chooses among them, cell by cell. With one rate a
# family, which is what the paper is reported to use, families are compared at rates that may suit one and not the
# other {cite:p}`lee2026lr`.
#
# **Scale, raw norm and steps are rates too.** At the start $\lambda = 0$, so CP changes nothing and in the first step
# only $\lambda$ has a gradient. Adam moves a scalar by about the learning rate a step, so under a
# steady pull $|\lambda|$ reaches about the sum of all rates, and each component's size is that times the scale. Under
# our linear decay the paper's rate over its
# {glue:text}`paper_steps:,d` steps sums to {glue:text}`paper_reach:.1f`; ten times the rate over a pilot's
# {glue:text}`pilot_steps:d` to {glue:text}`pilot_reach:.1f`. The length at which the raw vectors are stored,
# `raw_norm`, is one more: they act at unit length, and their gradient shrinks as that length grows ([the CP
# adapter](cp_adapter.ipynb)).
#
# **The head is outside the budget.** It starts at zero, on pooled features that are layer-normed without parameters,
# and has a rate of its own, {glue:text}`head_rate`. On SmolLM2-135M it has {glue:text}`head_scalars:,d` scalars on a
# task of two labels, against CP's step of {glue:text}`cp_step:,d`. It is the same head in every run, so what is
# compared is what an adapter adds; and `head` alone is a cell too, the floor of every frontier.
#
# **Or there is no head.** With `readout = "verbalizer"` nothing is trained besides the adapter: a {term}`verbalizer`
# takes the scores of the label words' first tokens after the prompt from the decoder's own frozen output embedding, as
# MeZO does {cite:p}`malladi2023mezo`. The paper is reported to train a head, which learns the label set from nothing;
# a verbalizer asks for words that the decoder knows. Then the floor is the backbone as it is.
#
# **No dropout.** The attention that keeps packed examples apart has none, so any other value is refused. OPT's own
# default is not zero: where its cells are measured, that will be a recorded deviation.
#
# **Dev chooses, eval judges, once.** Dev comes from the training split and is never trained on. It chooses a run's
# step and a cell's rate. Eval chooses neither; every run is judged on it once. Where a page names the best cell, or
# the best under a budget, $U(B)$, that is a maximum over eval, and flatters.
#
# **Pairs.** A seed decides the initial weights and the order of the examples, the `data_seed` which examples are
# drawn. Runs of all families share the latter, so the same seed means the same examples in the same order, and all are
# judged on the same rows: differences can be taken seed by seed and example by example, and records keep what that
# needs.
#
# ## A budget, matched from below
#
# For a budget of $B$ scalars each family gets its largest size with $P(k) \le B$; what is left stays unspent. On the
# paper's backbone the grid that it is reported to have lies a little on the other side: its CP sizes cost more than
# the ranks that they stand beside.

# %%
opt = cpadapt.load_projections("opt-1.3b")
pairs = []
for pair in paper.ladder.pairs:
    spent = {name: counting.count(name, opt, size) for name, size in pair.items()}
    below = counting.largest_size("cp", opt, spent["lora"])
    pairs.append(
        {
            "LoRA rank": pair["lora"],
            "its scalars": f"{spent['lora']:,}",
            "the paper's CP": pair["cp"],
            "its scalars, beyond LoRA's": f"{spent['cp'] - spent['lora']:+,}",
            "matched from below": below,
            "unspent": f"{spent['lora'] - counting.count('cp', opt, below):,}",
        }
    )
charts.table(pd.DataFrame(pairs))

# %% [markdown]
# The excess is at most {glue:text}`excess:.1f` % of the budget, and CP has it. We match from below
# all the same, because then *at or under the budget* holds to the letter.
#
# ## The paper's grid, and ours
#
# Both are study files. The paper's is ready to run and not measured: it needs OPT-1.3B.

# %% tags=["hide-input"]
pilot = cpadapt.load_study(PROJECT / "studies" / "smollm2-pilot.toml")


def grid(study):
    runs = study.runs(cpadapt.load_projections(study.backbone))
    sizes = {label: sorted({run.size for name, run in runs if name == label}) for label in ("lora", "cp")}
    rates = {label: sorted({run.learning_rate for name, run in runs if name == label}) for label in sizes}
    written = {label: ", ".join(f"{rate:.0e}".replace("e-0", "e-") for rate in rates[label]) for label in sizes}
    return {
        "backbone": charts.backbone_name(study.backbone),
        "tasks": ", ".join(charts.task_name(task) for task in study.tasks),
        "LoRA, ranks": ", ".join(map(str, sizes["lora"])),
        "CP, components": ", ".join(map(str, sizes["cp"])),
        "head only": "yes" if study.ladder.head else "no",
        "LoRA, rates": written["lora"],
        "CP, rates": written["cp"],
        "seeds": len(study.seeds),
        "steps": f"{study.protocol.steps:,}",
        "evaluated every": f"{study.protocol.eval_every:,}",
        "precision": study.protocol.dtype,
        "runs": len(runs),
    }


grids = pd.DataFrame({"the paper's (second-hand)": grid(paper), "our pilot's": grid(pilot)})
charts.table(grids.rename_axis("").reset_index())

# %% [markdown]
# The paper's grid has {glue:text}`grid_cp:d` sizes of CP and {glue:text}`grid_lora:d` of LoRA. The best of more cells
# is higher by luck alone, so the maximum of a frontier favours CP there ([by how much](parameter_steps.ipynb));
# comparisons at one budget do not have that fault. Its key cells are reported at a hundred seeds, which no pilot of
# ours has.
#
# ## What the evaluation set can resolve
#
# The accuracy $a$ measured on $n$ examples has a standard error of $\sqrt{a(1-a)/n}$ from the choice of examples
# alone, and neither seeds nor steps make it smaller.

# %% tags=["hide-input"]
items = published["validation"]
judged = {task: min(count, p.eval_cap) for task, count in items.items()}
levels = (0.5, 0.75, 0.95)
charts.table(
    pd.DataFrame(
        [
            {"task": charts.task_name(task), "validation split": f"{items[task]:,}", "judged on": f"{count:,}"}
            | {f"error at {100 * a:.0f} %, points": f"{100 * (a * (1 - a) / count) ** 0.5:.1f}" for a in levels}
            for task, count in judged.items()
        ]
    )
)

# %% [markdown]
# On RTE that is {glue:text}`rte_error:.1f` points at three quarters right. Between CP and LoRA at equal budgets the
# paper's RTE differences, at three seeds, are {q}`first_frontiers.published.rte.least` to
# {q}`first_frontiers.published.rte.most` points. Judging both on the same examples helps, as far as
# they are right on the same ones; a hundred seeds settle what seeds do, and say nothing about other examples.
#
# ## Change it
#
# Any field of the protocol, for a study or without one:
#
# ```sh
# cpadapt run studies/smollm2-pilot.toml --set clip=0.5 --set schedule=constant --results build/clipped
# ```
#
# What belongs to a family stands in the study file:
#
# ```toml
# [families.cp]
# learning_rates = [2e-4, 2e-3]
# scale = 4.0
# options = { raw_norm = 2.0 }
# ```
#
# A run's id is a hash of its whole configuration and of its data, so a run under another protocol has another id and
# is never taken for the same:

# %%
run = RunConfig(backbone="smollm2", task="rte", family="head", size=0, seed=0, data_seed=0, protocol=p)
other = dataclasses.replace(run, protocol=dataclasses.replace(p, clip=0.5))
run.config_id, other.config_id

# %% [markdown]
# Next: [what we will test](../book/plan.md), written before it is run.

# %% tags=["remove-cell"]
nearest = published["nearest"]
pilot_rate = max(pilot.families["cp"].learning_rates)
reach = {
    study.name: rate * sum(study.protocol.rate_factor(step) for step in range(study.protocol.steps))
    for study, rate in ((paper, cp.LEARNING_RATE), (pilot, pilot_rate))
}
smollm2 = cpadapt.load_projections("smollm2")
hidden = smollm2[0].in_features
labels = len(TASKS["sst2"].labels)
counts = [{name: counting.count(name, opt, size) for name, size in pair.items()} for pair in paper.ladder.pairs]
for name, value in {
    "fields": len(sources),
    "papers": list(sources.values()).count("paper"),
    "ours": list(sources.values()).count("ours"),
    "caps": "/".join(str(nearest[f"{name}_cap"]) for name in ("train", "dev", "eval")),
    "nearest_batch": nearest["batch_size"],
    "nearest_alpha": nearest["lora_alpha"],
    "nearest_rank": nearest["lora_rank"],
    "paper_steps": paper.protocol.steps,
    "pilot_steps": pilot.protocol.steps,
    "paper_reach": reach["paper"],
    "pilot_reach": reach["smollm2-pilot"],
    "head_rate": f"{p.head_learning_rate:.0e}".replace("e-0", "e-"),
    "head_scalars": labels * hidden + labels,
    "cp_step": counting.step("cp", smollm2),
    "excess": 100 * max(count["cp"] / count["lora"] - 1 for count in counts),
    "grid_cp": len(paper.ladder.sizes["cp"]),
    "grid_lora": len(paper.ladder.sizes["lora"]),
    "rte_error": 100 * (0.75 * 0.25 / items["rte"]) ** 0.5,
}.items():
    glue(name, value, display=False)
