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
# # What does one budget buy?
#
# **How far does each family get with one budget, on one task and one backbone?**
#
# Each adapter family gets its largest size at or under the budget. All of them train together on one frozen backbone,
# over several seeds, beside a head alone.

# %% tags=["parameters", "hide-input"] mystnb={"code_prompt_show": "Parameters", "code_prompt_hide": "Parameters"}
from typing import Optional, Union

study: Optional[str] = None  # a study file; None: the parameters from `backbone` to `protocol` instead
task: Optional[str] = None  # one task; None: all of the study's, or toy-sentiment
budget: Union[int, str] = "all"  # trainable scalars over all target modules, or all of the study's ladder
backbone: str = "minilm"
seeds: list[int] = [0, 1]
learning_rates: dict[str, list[float]] = {"lora": [2e-3], "cp": [4e-3]}
protocol: dict = {"steps": 80, "eval_every": 20, "train_cap": 1000, "dev_cap": 200, "eval_cap": 200}
changes: dict = {}  # fields of the protocol to change, such as {"steps": 20}; with a study file too
data_dir: Optional[str] = None  # folder with TASK/SPLIT.jsonl.xz; None: the hub, or no data for generated tasks
results_dir: Optional[str] = None  # folder of records; None: results/ and the study's name; without a study, none
save_dir: Optional[str] = None  # folder for the best weights, as PEFT adapters
shard: str = "1/1"  # the I-th of N parts of the runs
device: Optional[str] = None  # as torch names it; None: the first GPU, or the CPU
deterministic: bool = False  # the same numbers each time on one kind of GPU, and slower

# %% tags=["remove-cell"]
from companion.parameters import check_parameters

check_parameters(globals())

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Training", "code_prompt_hide": "Training"}
import pandas as pd
from IPython.display import display

import cpadapt
from cpadapt import FamilyPlan, InputError, Ladder, Protocol, Shard, Study
from cpadapt.analysis import charts
from cpadapt.analysis.frontier import frontier
from cpadapt.families import counting
from cpadapt.study import with_protocol

charts.enable()

if isinstance(budget, str) and budget != "all":
    raise InputError(f"parameter budget = {budget!r}: give a number of trainable scalars, or 'all'")
part = Shard.parse(shard)
if study is not None:
    asked = cpadapt.load_study(study)
    folder = results_dir or f"results/{asked.name}"
else:
    projections = cpadapt.load_projections(backbone)
    # Without a study, "all" is one LoRA rank, the smallest budget at which there is a LoRA.
    amount = counting.step("lora", projections) if budget == "all" else budget
    asked = Study(
        name="run-budget",
        backbone=backbone,
        tasks=(task or "toy-sentiment",),
        ladder=Ladder(head=True, budgets=(amount,)),
        seeds=tuple(seeds),
        families={family: FamilyPlan(learning_rates=tuple(rates)) for family, rates in learning_rates.items()},
        protocol=Protocol(**protocol),
    )
    folder = results_dir
asked = with_protocol(asked, **changes)
projections = cpadapt.load_projections(asked.backbone, asked.target_modules)

# What is on record is not trained again, and what was cut off goes on from its last evaluation.
records = cpadapt.train(
    asked,
    task=task,
    budget=None if budget == "all" else budget,
    shard=part,
    data_dir=data_dir,
    results=folder,
    save=save_dir,
    device=device,
    deterministic=deterministic,
)
table, evaluations = cpadapt.tabulate(records)

# %% mystnb={"figure": {"caption": "Mean accuracy on eval, at the rate that dev chose."}} tags=["remove-input"]
for name, of_task in table.groupby("task"):
    display(charts.frontier_chart(of_task).properties(title=str(name), height=260))

# %% tags=["remove-input"]
shown = ["task", "label", "size", "parameters", "learning_rate", "runs", "dev_mean", "eval_mean", "eval_sd"]
charts.table(frontier(table)[shown].round(4))

# %% [markdown]
# Papermill runs this notebook with other parameters ([how](../book/run_it_yourself.md)): a study file, or those above.
#
# ## What fits into the budget
#
# One unit of size costs `step` scalars over all target modules. What is left when no further unit fits stays unspent.
# A family that can't adapt one of the modules says why.

# %% tags=["remove-input"]
if budget == "all" and study is not None:
    print(f"the whole ladder of {asked.name}")
else:
    offers = pd.DataFrame(
        counting.rows(counting.plan(projections, amount if budget == "all" else budget)), dtype=object
    )
    display(charts.table(offers.drop(columns=["file_bytes", "smallest_cost"]).fillna("")))

# %% [markdown]
# ## How it got there

# %% mystnb={"figure": {"caption": "Accuracy on dev during training, a line a run."}} tags=["remove-input"]
for name, of_task in evaluations.groupby("task"):
    display(charts.curve_chart(of_task).properties(title=str(name)))

# %% [markdown]
# ## What it cost

# %% tags=["remove-input"]
TRAINING = "training, s"  # without the evaluations
cost = table.groupby("task").agg(runs=("id", "count"), **{TRAINING: ("run_seconds", "sum")})
cost["milliseconds a run-step"] = 1000 * cost[TRAINING] / cost["runs"] / asked.protocol.steps
cost["peak memory, GiB"] = table.groupby("task")["peak_memory_bytes"].max() / 2**30
charts.table(cost.reset_index().round(2))

# %% [markdown]
# ## How sure?
#
# A few seeds and items tell only large differences. [How we measure](protocol.ipynb) says how many it takes.
#
# Next: [what a run costs](what_a_run_costs.ipynb).
