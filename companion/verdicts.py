"""The paper's claims (`book/claims.toml`), judged by the rules of `companion.claims` in each measured case."""

import functools
import inspect
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

import cpadapt
from companion import PROJECT, contrasts, quantities
from companion.claims import LEVEL, MARGIN, RULES, Finding, Region, Verdict, judge, told
from companion.noise import ENOUGH, MOST_SEEDS
from companion.published import read_published
from companion.rates import PAPER_RATES
from companion.wording import number
from cpadapt.analysis import charts
from cpadapt.analysis.cells import Cells, cells_of
from cpadapt.analysis.charts import cell_name, task_name
from cpadapt.analysis.statistics import Estimate, Mean, estimate, fewest
from cpadapt.families import counting
from cpadapt.inputs.backbones.specs import Projection
from cpadapt.records.config import Cell


@dataclass(frozen=True)
class Case:
    """The runs that judge the claims."""

    model: str
    setting: str
    studies: tuple[str, ...]
    rates: Mapping[str, float] | None = None
    """Learning rates by family; without them dev chooses a rate for each cell."""

    @property
    def title(self) -> str:
        """Its printed name."""
        return f"{self.model}, {self.setting}"


CASES = {
    "papers_rates": Case("SmolLM2", "paper's rates", ("smollm2", "smollm2-splits"), PAPER_RATES),
    "tuned": Case("SmolLM2", "tuned", ("smollm2", "smollm2-rates")),
    "many_seeds": Case("SmolLM2", "many seeds", ("smollm2-seeds", "smollm2-seeds-boolq")),
    "all_examples": Case("SmolLM2", "all examples", ("boolq-lifted",)),
    "encoder": Case("MiniLM", "all examples", ("minilm",)),
    "size": Case("Qwen 1.5B", "paper's rates", ("size-paper",), PAPER_RATES),
    "opt": Case("OPT 1.3B", "paper's rates", ("paper",), PAPER_RATES),
}

PAPER = cpadapt.load_study(PROJECT / "studies" / "paper.toml")

LEDGER: Mapping[str, Any] = tomllib.loads((PROJECT / "book" / "claims.toml").read_text(encoding="utf-8"))
COUNTED: Mapping[str, Mapping[str, Any]] = {item["name"]: item for item in LEDGER["counted"]}
CLAIMS: Mapping[str, Mapping[str, Any]] = {claim["name"]: claim for claim in LEDGER["claim"]}

ON_LOSSES = "stable"
"""The claim about runs, and not about accuracy."""

JUDGED = [(name, task) for name, claim in CLAIMS.items() if name != ON_LOSSES for task in claim["tasks"]]
"""Each claim on accuracy with each of its tasks."""


@functools.cache
def cells(case: str, task: str) -> Cells:
    """A task's cells in a case; none if nothing is on record."""
    runs = contrasts.on_record(CASES[case].studies)
    return cells_of([run for run in runs if run.config.task == task], CASES[case].rates)


@functools.cache
def finding(rule: str, task: str, case: str) -> Finding:
    """The finding of a rule on a task in a case."""
    return RULES[rule](cells(case, task))


@functools.cache
def verdict(claim: str, task: str, case: str) -> tuple[Verdict, str]:
    """The verdict on a claim, and its text, with the reason if the claim is not judged."""
    found, findings = judge(cells(case, task), CLAIMS[claim]["rules"])
    return found, told(found, findings)


def power(found: Finding, seeds: int) -> float:
    """The power of this number of seeds to show a true claim, with a difference a point from the end of its region, or
    in the middle of a region with two ends."""
    region, e = found.region or Region(), _difference(found)
    two_ends = math.isfinite(region.low) and math.isfinite(region.high)
    inside = (region.high - region.low) / 2 if two_ends else MARGIN
    shown = e.power(inside, seeds, e.items, alpha=2 * LEVEL)
    return max(2 * shown - 1, 0) if two_ends else shown


def seeds_needed(found: Finding) -> int | None:
    """The number of seeds whose `power` is enough on the same items; `None` if `MOST_SEEDS` are too few."""
    return fewest(lambda seeds: power(found, seeds), ENOUGH, MOST_SEEDS)


def _difference(found: Finding) -> Estimate:
    if found.estimate is None:
        raise ValueError("what is not measured has no difference")
    return found.estimate


def counted(name: str) -> float:
    """A number of the paper, counted from shapes, for one projection or, in MiB of Adam's state, for all of
    OPT-1.3B."""
    item, opt = COUNTED[name], cpadapt.load_projections(PAPER.backbone)
    if item["unit"] == "MiB":
        return counting.ADAM_BYTES_PER_SCALAR * counting.count(item["family"], opt, 1) / 2**20
    square = [Projection("square", opt[0].out_features, opt[0].in_features)]
    each = counting.count(item["family"], square, 1)
    return counting.count("lora", square, 1) / each if item["unit"] == "components" else each


# Between LoRA's first two ranks, at the paper's rates.


def between() -> list[int]:
    """CP's sizes with budgets between these ranks."""
    return cells("papers_rates", "sst2").sizes_between(("lora", 1), ("lora", 2), "cp")


BELOW = {"rank": ("lora", 1), "components": ("cp", 11)}
"""The nearest cells below these sizes."""


def over(task: str, below: Cell) -> Estimate:
    """The average over the sizes between the ranks, minus a cell below them."""
    found = cells("papers_rates", task).outcomes
    return estimate(np.mean([found["cp", size].right for size in between()], axis=0) - found[below].right)


def over_tasks(below: Cell) -> tuple[float, float, float]:
    """The mean of `over` over the tasks, which have different items, and the ends of its 95 % interval."""
    each: list[Mean] = [over(task, below) for task in PAPER.tasks]
    mean = sum(e.mean for e in each) / len(each)
    reach = float(stats.norm.ppf(0.975)) * math.hypot(*(e.standard_error for e in each)) / len(each)
    return mean, mean - reach, mean + reach


# On MiniLM, whose CP sizes miss the budget of LoRA's first rank.


def encoder_sizes() -> tuple[int, list[int]]:
    """CP's largest size below that budget, and the larger ones."""
    found = cells("encoder", "sst2")
    nearly = max(size for size in found.sizes("cp") if found.budgets["cp", size] < found.budgets["lora", 1])
    return nearly, [size for size in found.sizes("cp") if size > nearly]


# The paper's own numbers.


@functools.cache
def published() -> pd.DataFrame:
    """The paper's cells with a spread over seeds, as `companion.published.read_published` returns them."""
    return read_published().dropna(subset="sd")


@functools.cache
def published_pairs() -> dict[tuple[str, str], tuple[Any, Any]]:
    """Pairs of LoRA's and CP's cells, by task and name such as `("sst2", "lora1_cp21")`."""
    rows: list[Any] = list(published().itertuples())
    return {
        (lora.task, f"lora{lora.size}_cp{cp.size}"): (lora, cp)
        for lora in rows
        for cp in rows
        if (lora.label, cp.label) == ("lora", "cp") and lora.task == cp.task
    }


def item_error(task: str) -> float:
    """The error that items give a difference of the paper, if they vary as in the tuned cells of SmolLM2."""
    validation = tomllib.loads((PROJECT / "book" / "published.toml").read_text(encoding="utf-8"))["validation"]
    asked = validation[task] if PAPER.protocol.eval_cap is None else min(validation[task], PAPER.protocol.eval_cap)
    return _difference(finding("lora_ahead", task, "tuned")).error_with(math.inf, asked)


# Printed tables.

DIFFERENCES = {
    "first_rank_learns": "CP of one rank's size − head, balanced",
    "flat_from_first_rank": "Larger CP − CP of one rank's size",
    "cp_gains": "CP of LoRA's sizes − CP 1",
    "cp_saturates": "CP of LoRA's largest size − of its middle size",
    "lora_ahead": "LoRA − CP at equal size",
    "lora_slightly_ahead": "LoRA − CP at equal size",
    "cp_not_ahead": "CP − LoRA at equal size",
    "splits_alike": "Farthest other split − default split",
}
"""What each rule on accuracy judges, in a reader's words."""


def rule_table() -> pd.DataFrame:
    """Each rule on accuracy: what it judges, and in full."""
    return pd.DataFrame(
        {
            "difference": said,
            "rule": " ".join(inspect.cleandoc(RULES[name].__doc__ or "").partition("\n\n")[0].split()),
        }
        for name, said in DIFFERENCES.items()
    )


def case_table() -> pd.DataFrame:
    """The studies, seeds, matched budgets and tasks of each measured case."""
    rows = []
    for name, case in CASES.items():
        of_tasks = {task: cells(name, task) for task in PAPER.tasks}
        measured = {task: found for task, found in of_tasks.items() if found.outcomes}
        if measured:
            seeds = {len(outcomes.seeds) for found in measured.values() for outcomes in found.outcomes.values()}
            rows.append(
                {
                    "setting": case.title,
                    "studies": ", ".join(case.studies),
                    "tasks": ", ".join(map(task_name, measured)),
                    "seeds": " or ".join(map(str, sorted(seeds))),
                    "matched budgets": max(len(found.matched("lora", "cp")) for found in measured.values()),
                }
            )
    return pd.DataFrame(rows)


def counted_table() -> pd.DataFrame:
    """The numbers that can be counted, the paper's and ours."""
    rows = []
    for name, item in COUNTED.items():
        known = f"claims.adam_state.{name}" if item["unit"] == "MiB" else f"claims.counted.{name}"
        found = quantities.value(known)
        papers, ours = (f"{text} {item['unit']}" for text in (number(item["figure"], found.digits), found.text()))
        verdict = Verdict.HOLDS if papers == ours else Verdict.FAILS
        rows.append({"verdict": verdict, "claim": said(item), "the paper's": papers, "ours": ours})
    return pd.DataFrame(rows)


def leads() -> pd.DataFrame:
    """LoRA minus CP at matched budgets in each measured case, for `cpadapt.analysis.charts.interval_chart`."""
    found = [
        contrasts.Contrast(task_name(task), CASES[case].title, difference)
        for case in CASES
        for task in PAPER.tasks
        if (difference := finding("lora_ahead", task, case).estimate) is not None
    ]
    return contrasts.frame(found)


def lost_table() -> pd.DataFrame:
    """The number of CP's runs that were lost, by task and case."""

    def printed(task: str, case: str) -> str:
        lost, runs = finding("runs_kept", task, case).diverged or (0, 0)
        return f"{lost} of {number(runs, 0)}" if runs else Verdict.UNMEASURED.value

    return pd.DataFrame(
        {"task": task_name(task)} | {about.title: printed(task, case) for case, about in CASES.items()}
        for task in CLAIMS[ON_LOSSES]["tasks"]
    )


def between_table() -> pd.DataFrame:
    """The sizes between the ranks minus those below them, by task."""
    sizes = " and ".join(map(str, between()))
    found = [
        contrasts.Contrast(task_name(task), f"CP {sizes} − {cell_name(*below)}", over(task, below))
        for task in PAPER.tasks
        for below in BELOW.values()
    ]
    return contrasts.contrast_table(contrasts.frame(found), "task", "difference")


def anchor(claim: str, task: str, case: str) -> str:
    """The name of a verdict's row of `evidence_table`, for links to it."""
    return f"{claim}-{task}-{case}".replace("_", "-")


def evidence_table(claim: str) -> Any:
    """The differences behind a claim's verdicts, the region that each must lie in, and the power to show it.

    The first row of each verdict has the name `anchor`.
    """
    from IPython.display import HTML  # comes with Jupyter, and is needed only there

    rows, anchors = [], []
    for task in CLAIMS[claim]["tasks"]:
        for case, about in CASES.items():
            for rule in CLAIMS[claim]["rules"]:
                found, name = finding(rule, task, case), f"{rule}.{task}.{case}"
                if found.estimate is None or found.region is None:
                    continue
                is_open = found.verdict is Verdict.OPEN
                rows.append(
                    {
                        "task": task_name(task),
                        "setting": about.title,
                        "difference": DIFFERENCES[rule],
                        "points (90 %)": quantities.value(f"claims.difference.{name}").text("signed|bare"),
                        "wanted": wanted(found.region),
                        "verdict": found.told,
                        "power": quantities.value(f"claims.power.{name}").text("unit") if is_open else "",
                        "seeds": quantities.value(f"claims.seeds_needed.{name}").text() if is_open else "",
                    }
                )
                anchors.append(anchor(claim, task, case))
    head, *body = re.split(r"(?=<tr>)", charts.table(pd.DataFrame(rows)).data)
    for k, name in enumerate(anchors):
        if name not in anchors[:k]:
            body[k] = body[k].replace("<tr>", f'<tr id="{name}">')
    return HTML("".join([head, *body]))


def published_table() -> pd.DataFrame:
    """The paper's differences, with their errors from seeds and from items."""
    return pd.DataFrame(
        {
            "task": task_name(task),
            "cells": f"{cell_name('lora', lora.size)} − {cell_name('cp', cp.size)}",
            "difference": quantities.value(f"claims.papers_lead.{task}.{pair}").text("signed"),
            "error, seeds": quantities.value(f"claims.papers_seed_error.{task}.{pair}").text(),
            "error, items": quantities.value(f"claims.papers_item_error.{task}").text(),
            "over both": quantities.value(f"claims.papers_lead_over_errors.{task}.{pair}").text(),
        }
        for (task, pair), (lora, cp) in published_pairs().items()
    )


def said(claim: Mapping[str, Any]) -> str:
    """The text of a claim, marked if it is second-hand."""
    return f"{claim['says']}{'' if claim['source'] == 'abstract' else ' (second-hand)'}"


def wanted(region: Region) -> str:
    """Where a claim wants a difference, in points."""
    low, high = (number(100 * end, 0, sign=True) if math.isfinite(end) else "" for end in (region.low, region.high))
    if not high:
        return f"above {low}"
    return f"{low} to {high}" if low else f"below {high}"
