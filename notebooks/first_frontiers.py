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
# # First measured frontiers: the pilot
#
# **What do the first measured frontiers look like, and how much can they carry?**
#
# They were a pilot and are superseded: CP's rise on RTE, {glue:text}`rte_rise:.1f` points here, is
# {q}`noise.over_seeds.rte.cp44_cp1` over {q}`noise.over_seeds.rte.lora1_cp11|n` [seeds](noise.ipynb), and [more
# rates](rates.ipynb) are tried at more sizes. On SST-2 one CP component,
# {glue:text}`one_scalars:,d` scalars, takes a frozen SmolLM2-135M-Instruct from
# {glue:text}`sst2_head:.1f` to {glue:text}`sst2_one:.1f` % and so most of the way to the best cell's
# {glue:text}`sst2_best:.1f` %, whereas on RTE no gain of it shows and CP's accuracy grows with its budget, to
# {glue:text}`rte_cp_best:.1f` %. Whether CP or LoRA is ahead at equal budgets these {glue:text}`seeds_word` seeds
# cannot say: of {glue:text}`pairs:d` differences, {glue:text}`real_pairs:d` of them on real tasks, {glue:text}`clear`
# exceeds what seeds, evaluation items and the number of comparisons explain.

# %%
import math

import numpy as np
import pandas as pd
from myst_nb import glue

import cpadapt
from companion import PROJECT
from companion.published import read_published
from cpadapt.analysis import charts
from cpadapt.analysis.frontier import cells, frontier
from cpadapt.analysis.statistics import best_of, compare, estimate, holm, outcomes
from cpadapt.records.store import load_records

charts.enable()

# %% [markdown]
# ## What was run
#
# Three {term}`studies <study>`, each a file in `studies/` with its {term}`records <record>` in `results/`: a decoder
# (SmolLM2-135M-Instruct {cite:p}`allal2025smollm2`, whose weights
# are dequantized from four bits and so not the hub's numbers) on two of the paper's tasks, SST-2
# {cite:p}`socher2013sst` and RTE {cite:p}`dagan2006rte`;
# an encoder {cite:p}`wang2020minilm` on SST-2; and the encoder on three generated tasks. They are pilots: they were
# made to see that there is a signal, and at which learning rates.

# %%
NAMES = ["smollm2-pilot", "minilm-sst2", "generated-tasks"]
loaded = {name: load_records(PROJECT / "results" / name) for name in NAMES}
records = pd.concat([cpadapt.tabulate(of_study)[0] for of_study in loaded.values()], ignore_index=True)
best = frontier(records)

of_bank = records.groupby(["study", "backbone", "task"], sort=False)
overview = of_bank.agg(
    runs=("id", "count"),
    seeds=("seed", "nunique"),
    steps=("steps", "first"),
    items=("total", "first"),
    seconds=("run_seconds", "sum"),
    device=("device", "first"),
).reset_index()
overview["backbone"] = overview["backbone"].map(charts.backbone_name)
overview["task"] = [charts.task_name(task) for task in overview["task"]]
overview["seconds"] = overview["seconds"].map("{:.0f}".format)
charts.table(
    overview.rename(columns={"items": "evaluation items", "seconds": "training, s"}).drop(columns=["study", "device"])
)

# %% [markdown]
# Every task's runs trained together as one {term}`bank`. All {glue:text}`runs:d` runs took
# {glue:text}`train_seconds:.0f` seconds of training and {glue:text}`evaluation_seconds:.0f` of evaluation on one
# {glue:text}`device`; {glue:text}`diverged` of them diverged.
#
# ## SmolLM2 on SST-2: one component, and then little
#
# A point is a cell's mean over its seeds, at the {term}`learning rate` that {term}`dev` chose; the faint points are
# the seeds, and light up where their cell is pointed at. The dashed line is the {term}`head` alone. Move the budget:
# treads and text show what is best at or under it, the paper's $U(B) = \max_{P(k) \le B} A(k)$. It is chosen by the
# evaluation split itself, so it describes these runs and is no estimate for others.


# %% tags=["hide-input"]
def measured(study, task):
    return records[(records["study"] == study) & (records["task"] == task)]


def cell(study, task, label, size):
    """What each of a cell's runs got right, at the rate that dev chose."""
    (chosen,) = best.query("study == @study and task == @task and label == @label and size == @size").itertuples()
    return outcomes(
        record
        for record in loaded[study]
        if (record.config.task, record.label, record.config.size) == (task, label, size)
        and (label == "head" or record.config.learning_rate == chosen.learning_rate)
    )


charts.frontier_chart(measured("smollm2-pilot", "sst2"), budget_slider=True)


# %% tags=["hide-input"]
def figures(study, task):
    rows = best[(best["study"] == study) & (best["task"] == task)]
    errors = [estimate(cell(study, task, row.label, row.size).right).standard_error for row in rows.itertuples()]
    names = [f"{charts.family_name(row.label)} {row.size or ''}".strip() for row in rows.itertuples()]
    return charts.table(
        pd.DataFrame(
            {
                "adapter": names,
                "scalars": rows["parameters"].map("{:,}".format),
                "learning rate": [
                    f"{rate:.0e}".replace("e-0", "e-") if rate > 0 else "" for rate in rows["learning_rate"]
                ],
                "accuracy, %": (100 * rows["eval_mean"]).map("{:.1f}".format),
                "sd over seeds": (100 * rows["eval_sd"]).map("{:.1f}".format),
                "standard error": [f"{100 * error:.1f}" for error in errors],
            }
        )
    )


figures("smollm2-pilot", "sst2")

# %% [markdown]
# The standard error is that of the mean, from both of its sources: other {term}`seeds <seed>` would have trained other
# adapters, and other evaluation items would have been other questions. They are two crossed random effects, estimated
# as in an analysis of variance ([`cpadapt.analysis.statistics`](../book/api.md)); the deviation over seeds holds the
# first alone. An interval on this page comes from the same estimates and holds the true mean in about ninety-five of a
# hundred cases. Which examples were trained on, and the rate that dev chose, are taken as given.
#
# All cells with an adapter lie between {glue:text}`sst2_lowest:.1f` and {glue:text}`sst2_best:.1f` %. One component
# already has {glue:text}`sst2_share:.0f` % of what the best cell gains over the head, for
# {glue:text}`one_of_rank:.0f` % of the scalars of LoRA's first rank: below that rank, where LoRA has nothing to offer,
# CP has a useful adapter. With {glue:text}`budget_factor:d` times as many components it is
# {glue:text}`sst2_after_one:.1f` points higher. The paper reports the same shape for OPT-1.3B, an early plateau at low
# budgets {cite:p}`wang2026finer`.
#
# ## SmolLM2 on RTE: the budget counts

# %% tags=["hide-input"]
charts.frontier_chart(measured("smollm2-pilot", "rte"), budget_slider=True)

# %% tags=["hide-input"]
figures("smollm2-pilot", "rte")

# %% [markdown]
# Here one component stays below the head alone, at {glue:text}`rte_one:.1f` against {glue:text}`rte_head:.1f` %
# (difference {glue:text}`rte_one_gain:+.1f`, interval {glue:text}`rte_one_low:+.1f` to {glue:text}`rte_one_high:+.1f`:
# it may gain or lose a few points), and less than always answering the commoner label would score
# ({glue:text}`rte_majority:.1f` %). From there CP's mean rises with every size that was measured, by
# {glue:text}`rte_rise:.1f` points from one component to {glue:text}`budget_factor:d`; its interval over seeds and
# items, {glue:text}`rte_rise_low:.1f` to {glue:text}`rte_rise_high:.1f`, is well above zero, and leaves open where on
# the ladder the rise happens. LoRA's mean rises by {glue:text}`rte_lora_rise:.1f` points from rank
# {glue:text}`lora_least:d` to {glue:text}`lora_most:d`, and that interval, {glue:text}`rte_lora_low:+.1f` to
# {glue:text}`rte_lora_high:+.1f`, holds zero; but its budgets span a factor of {glue:text}`lora_most:d` only, so this
# is no difference between the families.
#
# RTE has {glue:text}`rte_items:d` evaluation items. They make up most of the standard error of its best cell,
# {glue:text}`rte_best_error:.1f` points: with no end of seeds {glue:text}`rte_items_alone:.1f` would remain.
#
# ## Beside the paper's values
#
# The hollow marks are what {cite:t}`wang2026finer` report, taken second-hand from a reading note. They are of another
# backbone, OPT-1.3B {cite:p}`zhang2022opt`, of ten times as many steps, and in part of a hundred seeds; OPT-1.3B is
# not measured here. So heights must not be compared. What can be compared is the pattern: flat on SST-2, LoRA ahead on
# RTE. Untick the box to see our runs alone.

# %% tags=["hide-input"]
published = read_published()
charts.frontier_chart(measured("smollm2-pilot", "sst2"), published=published[published["task"] == "sst2"])

# %% tags=["hide-input"]
charts.frontier_chart(measured("smollm2-pilot", "rte"), published=published[published["task"] == "rte"])

# %% [markdown]
# Its matched budgets, at three seeds. The differences are the paper's too, and without an error: the seeds behind them
# are not at hand.

# %% tags=["hide-input"]
at_three = published[published["seeds"] == 3].sort_values("size")
lora, cp = (at_three[at_three["family"] == name].groupby("task")["accuracy"].apply(list) for name in ("lora", "cp"))
ranks = sorted(at_three.loc[at_three["family"] == "lora", "size"].unique())
theirs = {task: [100 * (b - a) for a, b in zip(lora[task], cp[task], strict=True)] for task in lora.index}
charts.table(
    pd.DataFrame(
        [
            {"task (published, second-hand)": charts.task_name(task)}
            | {f"CP − LoRA {r}, points": f"{gap:+.1f}" for r, gap in zip(ranks, gaps, strict=True)}
            for task, gaps in theirs.items()
        ]
    )
)

# %% [markdown]
# On RTE, CP is behind by {glue:text}`paper_rte_least:.1f` to {glue:text}`paper_rte_most:.1f` points in all of them; on
# SST-2 and BoolQ {cite:p}`clark2019boolq` the sign changes.
#
# ## MiniLM on SST-2: a narrow range

# %% tags=["hide-input"]
charts.frontier_chart(measured("minilm-sst2", "sst2"), budget_slider=True)

# %% tags=["hide-input"]
figures("minilm-sst2", "sst2")

# %% [markdown]
# From the head alone to the best cell, CP with {glue:text}`minilm_best_size:d` components, accuracy rises by
# {glue:text}`minilm_range:.1f` points (interval over seeds and items {glue:text}`minilm_low:.1f` to
# {glue:text}`minilm_high:.1f`). It is the best of {glue:text}`minilm_cells:d` cells, chosen by the same items; chosen
# on one half of seeds and items and judged on the other, the best cell reaches {glue:text}`minilm_held_out:.1f` %,
# against {glue:text}`minilm_head:.1f` for the head alone. So some gain is there, but which cell is best is not to be
# believed: the {glue:text}`minilm_pairs:d` differences between CP and LoRA further below all hold zero.
#
# ## The learning rate counts too
#
# The SmolLM2 study has two rates a family: the paper's, and ten times as much. The paper trains for
# {glue:text}`paper_steps:,d` steps and this pilot for {glue:text}`pilot_steps:d`, so at the paper's rates it is a
# shorter training, not the paper's.

# %%
tried = cells(measured("smollm2-pilot", "sst2"))
tried = pd.concat([tried, cells(measured("smollm2-pilot", "rte"))]).dropna(subset="learning_rate")
tried["rate"] = tried.groupby("label")["learning_rate"].transform(lambda rates: (rates / rates.min()).round())
by_rate = tried.pivot_table(index=["task", "label", "size"], columns="rate", values=["dev_mean", "eval_mean"])
change = by_rate.xs(10.0, level="rate", axis=1) - by_rate.xs(1.0, level="rate", axis=1)
charts.table(
    pd.DataFrame(
        {
            "task": [charts.task_name(task) for task, _, _ in by_rate.index],
            "adapter": [f"{charts.family_name(label)} {size}" for _, label, size in by_rate.index],
            "paper's rate, eval %": (100 * by_rate["eval_mean", 1.0]).map("{:.1f}".format),
            "ten times, eval %": (100 * by_rate["eval_mean", 10.0]).map("{:.1f}".format),
            "change on dev, points": (100 * change["dev_mean"]).map("{:+.1f}".format),
            "change on eval, points": (100 * change["eval_mean"]).map("{:+.1f}".format),
        }
    )
)

# %% [markdown]
# Dev prefers the higher rate in {glue:text}`higher_on_dev:d` of {glue:text}`rate_cells:d` cells, and eval in
# {glue:text}`higher_on_eval:d`. On SST-2 the rate moves CP by {glue:text}`sst2_rate_effect:.1f` points on average, and
# {glue:text}`budget_factor:d` times the budget, at the higher rate, by {glue:text}`sst2_budget_effect:.1f`; on RTE it
# is {glue:text}`rte_rate_effect:.1f` against {glue:text}`rte_budget_effect:.1f`. So what is found at one rate a family
# holds for that pair of rates; {cite:t}`lee2026lr` find that tuned rates bring variants of LoRA together.
#
# ## How they got there
#
# Dev accuracy of the SmolLM2 runs at the chosen rates; a click on a family in the legend fades the others.


# %% tags=["hide-input"]
def curves(task):
    chosen = best[(best["study"] == "smollm2-pilot") & (best["task"] == task)]
    place = ["task", "label", "size", "learning_rate"]
    evaluations = cpadapt.read_evaluations(PROJECT / "results" / "smollm2-pilot")
    return charts.curve_chart(evaluations.merge(chosen[place], on=place))


curves("sst2")

# %% tags=["hide-input"]
curves("rte")

# %% [markdown]
# Of the {glue:text}`chosen_runs:d` runs with an adapter at these rates, {glue:text}`best_at_last:d` were best on dev
# at the last of {glue:text}`looks:d` evaluations. Where the last evaluation is the best one, longer training may have
# gone further.
#
# ## Is CP or LoRA ahead?
#
# For each LoRA rank the largest CP that was measured at or under its budget. Both were trained from the same seeds and
# judged on the same items, so their difference is taken run by run and item by item, which leaves out what both have
# in common. Interval and p value count seeds and items; the last column is the p value after Holm's correction, which
# would keep the chance of any false find among all of them at the level of a single one, were each p value exact. With
# {glue:text}`seeds_word` seeds small ones come several times too often, so one just below the level would prove
# nothing.


# %%
LEVEL = 0.05
matched = []
for (study, task), ladder in best.groupby(["study", "task"], sort=False):
    of_cp = ladder[ladder["label"] == "cp"]
    for row in ladder[ladder["label"] == "lora"].itertuples():
        size = of_cp.loc[of_cp["parameters"] <= row.parameters, "size"].max()
        cp, lora = cell(study, task, "cp", size), cell(study, task, "lora", row.size)
        gap = compare(cp, lora)
        low, high = gap.interval()
        matched.append(
            {
                "study": study,
                "task": task,
                "rank": row.size,
                "components": size,
                "gap": 100 * gap.mean,
                "by seed": 100 * (cp.right - lora.right).mean(1),
                "low": 100 * low,
                "high": 100 * high,
                "p": gap.p_value(),
            }
        )
matched = pd.DataFrame(matched)
matched["holm"] = holm(matched["p"])

# %% tags=["hide-input"]
backbone = {"smollm2-pilot": "SmolLM2-135M"}
charts.table(
    pd.DataFrame(
        {
            "backbone": [backbone.get(study, "MiniLM-L6") for study in matched["study"]],
            "task": [charts.task_name(task) for task in matched["task"]],
            "LoRA": matched["rank"],
            "CP": matched["components"],
            "CP − LoRA, points": matched["gap"].map("{:+.1f}".format),
            "95 % interval": [f"{row.low:+.1f} to {row.high:+.1f}" for row in matched.itertuples()],
            "seed by seed": [", ".join(f"{gap:+.1f}" for gap in gaps) for gaps in matched["by seed"]],
            "p": matched["p"].map("{:.3f}".format),
            "p, Holm": matched["holm"].map("{:.3f}".format),
        }
    )
)

# %% [markdown]
# Of {glue:text}`pairs:d` differences {glue:text}`clear` has a corrected p value below {glue:text}`level`.
#
# - On the real tasks the nearest is RTE on SmolLM2-135M at the budget of LoRA's first rank, CP
#   {glue:text}`rte_gap:.1f` points behind, with p = {glue:text}`rte_p:.3f` alone and {glue:text}`rte_holm:.2f` among
#   all. Its seeds agree to within {glue:text}`rte_seed_range:.1f` points, which among {glue:text}`seeds_word` is luck
#   as much as precision.
# - On the generated tasks CP is behind in all {glue:text}`toy_pairs:d`, the nearest with {glue:text}`toy_holm:.2f`
#   among all. There each family had one learning rate and {glue:text}`toy_steps:d` steps, so it may be the rates that
#   differ.
#
# {glue:text}`seeds_word_capital` seeds say little about how much seeds vary, and most of these intervals are as wide
# as they are for that: more seeds are what would tell.
#
# ## The generated tasks
#
# MiniLM-L6 on the {glue:text}`toy_tasks:d` tasks that come with the project: hard for a head alone, and with room
# above.

# %% tags=["hide-input"]
toys = best[best["study"] == "generated-tasks"]
shown = toys.assign(
    adapter=[f"{charts.family_name(row.label)} {row.size or ''}".strip() for row in toys.itertuples()],
    accuracy=[f"{100 * row.eval_mean:.1f} ± {100 * row.eval_sd:.1f}" for row in toys.itertuples()],
    scalars=toys["parameters"].map("{:,}".format),
)
order = ["head only", "CP 9", "LoRA 1", "CP 37", "LoRA 4"]
wide = shown.pivot_table(index=["adapter", "scalars"], columns="task", values="accuracy", aggfunc="first")
charts.table(wide.reindex(order, level="adapter").reset_index().rename_axis(columns=None))

# %% [markdown]
# Accuracy in %, mean ± standard deviation over seeds.
#
# ## What they cannot say
#
# - **Which family is better.** See above. It takes more seeds, more items, or tasks with more to gain.
# - **What a curve does between its cells.** SmolLM2's ladder has {glue:text}`pilot_cp:d` sizes of CP and
#   {glue:text}`pilot_lora:d` of LoRA. A family with more cells also has more chances that one of them comes out high.
# - **What longer training or other rates would reach.** Two rates were tried on SmolLM2, and the higher one won.
# - **Anything on OPT-1.3B,** the paper's model, which is not measured.
#
# Others have looked at seeds alone: initialisation and data order each move fine-tuning, and by comparable amounts
# {cite:p}`dodge2020fine`; training for longer with a bias-corrected Adam steadies it {cite:p}`mosbach2021stability`.
#
# Next: [SST-2 under the paper's protocol](sst2.ipynb).

# %% tags=["remove-cell"]
smol = best[best["study"] == "smollm2-pilot"].set_index(["task", "label", "size"])
of_smol = {task: 100 * smol.loc[task]["eval_mean"] for task in ("sst2", "rte")}
adapters = {task: values.drop("head") for task, values in of_smol.items()}
head = {task: float(values["head", 0]) for task, values in of_smol.items()}
one = {task: float(values["cp", 1]) for task, values in of_smol.items()}
top = {task: float(values.max()) for task, values in adapters.items()}
parameters = smol.loc["sst2"]["parameters"]
ranks = sorted(adapters["rte"].loc["lora"].index)
rise, lora_rise = (
    compare(cell("smollm2-pilot", "rte", label, most), cell("smollm2-pilot", "rte", label, least))
    for label, most, least in (("cp", 44, 1), ("lora", ranks[-1], ranks[0]))
)
rte_top = estimate(cell("smollm2-pilot", "rte", *adapters["rte"].idxmax()).right)
mini = best[best["study"] == "minilm-sst2"]
mini_top = mini.loc[mini["eval_mean"].idxmax()]
mini_rise = compare(
    cell("minilm-sst2", "sst2", mini_top["label"], mini_top["size"]), cell("minilm-sst2", "sst2", "head", 0)
)
mini_cells = [cell("minilm-sst2", "sst2", row.label, row.size) for row in mini.itertuples()]
mini_pairs = matched[matched["study"] == "minilm-sst2"]
rte_one_gain = compare(cell("smollm2-pilot", "rte", "cp", 1), cell("smollm2-pilot", "rte", "head", 0))
chosen_runs = measured("smollm2-pilot", "sst2")
chosen_runs = pd.concat([chosen_runs, measured("smollm2-pilot", "rte")])
chosen_runs = chosen_runs.merge(
    best[["study", "task", "label", "size", "learning_rate"]],
    on=["study", "task", "label", "size", "learning_rate"],
)
chosen_runs = chosen_runs[chosen_runs["label"] != "head"]
real = matched[matched["study"] != "generated-tasks"]
toy = matched[matched["study"] == "generated-tasks"]
rte_pair = real.loc[real["p"].idxmin()]
banks = {r.config.task + r.study: r.cost for of_study in loaded.values() for r in of_study}
words = {0: "none", 1: "one", 2: "two", 3: "three"}


def word(count):
    return words.get(int(count), str(int(count)))


for name, value in {
    "one_scalars": int(parameters["cp", 1]),
    "sst2_head": head["sst2"],
    "sst2_one": one["sst2"],
    "sst2_best": top["sst2"],
    "rte_cp_best": float(adapters["rte"]["cp"].max()),
    "seeds_word": word(records["seed"].nunique()),
    "seeds_word_capital": word(records["seed"].nunique()).capitalize(),
    "real_pairs": len(real),
    "clear": word((matched["holm"] < LEVEL).sum()),
    "runs": len(records),
    "train_seconds": float(sum(cost.train_seconds for cost in banks.values())),
    "evaluation_seconds": float(sum(cost.evaluation_seconds for cost in banks.values())),
    "device": ", ".join(sorted(set(records["device"]))),
    "diverged": word(records["diverged_at"].notna().sum()),
    "sst2_lowest": float(adapters["sst2"].min()),
    "sst2_share": 100 * (one["sst2"] - head["sst2"]) / (top["sst2"] - head["sst2"]),
    "one_of_rank": 100 * float(parameters["cp", 1] / parameters["lora", 1]),
    "budget_factor": int(max(adapters["sst2"].loc["cp"].index)),
    "sst2_after_one": float(adapters["sst2"]["cp", 44]) - one["sst2"],
    "rte_one": one["rte"],
    "rte_head": head["rte"],
    "rte_majority": 100 * float(measured("smollm2-pilot", "rte")["majority_rate"].iloc[0]),
    "rte_items": rte_top.items,
    "rte_best_error": 100 * rte_top.standard_error,
    "rte_items_alone": 100 * rte_top.error_with(math.inf, rte_top.items),
    "rte_rise": 100 * rise.mean,
    "rte_rise_low": 100 * rise.interval()[0],
    "rte_rise_high": 100 * rise.interval()[1],
    "rte_lora_rise": 100 * lora_rise.mean,
    "rte_lora_low": 100 * lora_rise.interval()[0],
    "rte_lora_high": 100 * lora_rise.interval()[1],
    "lora_least": int(ranks[0]),
    "lora_most": int(ranks[-1]),
    "paper_rte_least": -max(theirs["rte"]),
    "paper_rte_most": -min(theirs["rte"]),
    "minilm_best_size": int(mini_top["size"]),
    "minilm_range": 100 * mini_rise.mean,
    "minilm_low": 100 * mini_rise.interval()[0],
    "minilm_high": 100 * mini_rise.interval()[1],
    "minilm_cells": len(mini),
    "minilm_held_out": 100 * best_of(mini_cells, 1000, np.random.default_rng(0)).held_out,
    "minilm_head": 100 * estimate(cell("minilm-sst2", "sst2", "head", 0).right).mean,
    "minilm_pairs": len(mini_pairs),
    "rte_one_gain": 100 * rte_one_gain.mean,
    "rte_one_low": 100 * rte_one_gain.interval()[0],
    "rte_one_high": 100 * rte_one_gain.interval()[1],
    "paper_steps": int(cpadapt.load_study(PROJECT / "studies" / "paper.toml").protocol.steps),
    "pilot_steps": int(measured("smollm2-pilot", "rte")["steps"].iloc[0]),
    "higher_on_dev": int((change["dev_mean"] > 0).sum()),
    "higher_on_eval": int((change["eval_mean"] > 0).sum()),
    "rate_cells": len(change),
    "sst2_rate_effect": 100 * float(change.loc["sst2", "cp"]["eval_mean"].mean()),
    "sst2_budget_effect": float(adapters["sst2"]["cp", 44]) - one["sst2"],
    "rte_rate_effect": 100 * float(change.loc["rte", "cp"]["eval_mean"].mean()),
    "rte_budget_effect": float(adapters["rte"]["cp", 44]) - one["rte"],
    "chosen_runs": len(chosen_runs),
    "best_at_last": int((chosen_runs["best_step"] == chosen_runs["steps"]).sum()),
    "looks": len(loaded["smollm2-pilot"][0].evaluations),
    "pairs": len(matched),
    "level": f"{LEVEL:g}",
    "rte_gap": -float(rte_pair["gap"]),
    "rte_p": float(rte_pair["p"]),
    "rte_holm": float(rte_pair["holm"]),
    "rte_seed_range": float(max(rte_pair["by seed"]) - min(rte_pair["by seed"])),
    "toy_holm": float(toy["holm"].min()),
    "toy_pairs": len(toy),
    "toy_steps": int(records.loc[records["study"] == "generated-tasks", "steps"].iloc[0]),
    "toy_tasks": int(toy["task"].nunique()),
    "pilot_cp": len(adapters["rte"].loc["cp"]),
    "pilot_lora": len(adapters["rte"].loc["lora"]),
}.items():
    glue(name, value, display=False)
