"""The choices that the protocol fixes, the source of each, and the resolution of an evaluation set."""

import ast
import dataclasses
import functools
import inspect
import itertools
import tomllib
from collections.abc import Mapping
from typing import Any

import pandas as pd

from companion import PROJECT
from companion.published import PUBLISHED
from cpadapt.analysis import charts
from cpadapt.families import FAMILIES, counting
from cpadapt.inputs.backbones.projections import load_projections
from cpadapt.inputs.tasks.specs import TASKS
from cpadapt.records.config import Protocol
from cpadapt.study import Study, load_study

STUDIES = {"paper": "paper", "pilot": "smollm2-pilot"}


@functools.cache
def study(name: str) -> Study:
    """The paper's grid, or our pilot's."""
    return load_study(PROJECT / "studies" / f"{STUDIES[name]}.toml")


@functools.cache
def published() -> Mapping[str, Any]:
    """`book/published.toml`."""
    return tomllib.loads(PUBLISHED.read_text(encoding="utf-8"))


def rates(name: str, family: str) -> tuple[float, ...]:
    """A study's learning rates of a family."""
    return study(name).families[family].learning_rates or ()


def item_error(task: str, accuracy: float) -> float:
    """The standard error of an accuracy, as a share, from the choice of a task's eval items alone."""
    return float((accuracy * (1 - accuracy) / judged(task)) ** 0.5)


def judged(task: str) -> int:
    """The number of eval items of a task that runs are asked."""
    items = int(published()["validation"][task])
    return min(items, Protocol().eval_cap or items)


def excess(pair: Mapping[str, int]) -> float:
    """The scalars of a pair's CP above LoRA's, as a share of LoRA's, on the paper's backbone."""
    opt = load_projections(study("paper").backbone)
    scalars = {family: counting.count(family, opt, size) for family, size in pair.items()}
    return scalars["cp"] / scalars["lora"] - 1


def field_table() -> pd.DataFrame:
    """Every field of the protocol with its default, the source of the default, and its documentation."""
    sources, said = Protocol().sources(), _said()
    return pd.DataFrame(
        {"field": name, "value": str(value), "whose": sources[name], "what it is": said[name]}
        for name, value in dataclasses.asdict(Protocol()).items()
    )


def _said() -> dict[str, str]:
    (defined,) = ast.parse(inspect.getsource(Protocol)).body
    assert isinstance(defined, ast.ClassDef)
    said = {}
    for field, text in itertools.pairwise(defined.body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as words)):
                said[name] = " ".join(words.replace("`", "").split())
    return said | dict.fromkeys(("beta1", "beta2"), said["epsilon"])  # said once for the three


def family_table() -> pd.DataFrame:
    """The learning rate, scale and options of each family."""
    options = {
        name: {**module.SHAPE_OPTIONS, **module.INIT_OPTIONS, **dict.fromkeys(module.DECAY_OPTIONS, 0.0)}
        for name, module in FAMILIES.items()
    }
    whose = {name: "" if name in study("paper").families else " (ours)" for name in FAMILIES}
    return pd.DataFrame(
        {
            "family": charts.family_name(name),
            "learning rate (paper's)": _scientific(module.LEARNING_RATE) + whose[name],
            "scale (ours)": module.SCALE,
            "options (ours)": ", ".join(f"{option} = {value}" for option, value in options[name].items()),
        }
        for name, module in FAMILIES.items()
    )


def silent_table() -> pd.DataFrame:
    """The settings that the paper does not report, and our choices."""
    p, lora, cp = Protocol(), FAMILIES["lora"], FAMILIES["cp"]
    chosen = {
        "batch size": (f"batch_size = {p.batch_size}", "as MeZO"),
        "LoRA alpha and dropout": (
            f"scale = {lora.SCALE} at every rank, dropout = {p.dropout}",
            "as MeZO; packed rows",
        ),
        "CP scale and initialisation": (
            f"scale = {cp.SCALE}, init = {cp.INIT_OPTIONS['init']}, raw_norm = {cp.INIT_OPTIONS['raw_norm']:g}",
            "a no-op at the start, as LoRA",
        ),
        "learning-rate schedule": (
            f"schedule = {p.schedule}, warmup_steps = {p.warmup_steps}",
            "the Trainer's default",
        ),
        "weight decay": (f"weight_decay = {p.weight_decay}", "the Trainer's default"),
        "prompts": (TASKS["sst2"].prompt, "as MeZO; this one SST-2's, for decoders"),
        "whether a seed also resamples the data": ("it does not: data_seed is apart", "so that runs can be paired"),
    }
    return pd.DataFrame(
        {"not reported": item, "chosen": chosen[item][0], "why": chosen[item][1]}
        for item in published()["not_reported"]
    )


def grid_table() -> pd.DataFrame:
    """The paper's grid and our pilot's, side by side."""
    grids = {"the paper's (second-hand)": _grid(study("paper")), "our pilot's": _grid(study("pilot"))}
    return pd.DataFrame(grids).rename_axis("").reset_index()


def _grid(asked: Study) -> dict[str, Any]:
    runs = asked.runs(load_projections(asked.backbone))
    sizes = {label: sorted({run.size for name, run in runs if name == label}) for label in ("lora", "cp")}
    rates = {label: sorted({run.learning_rate or 0.0 for name, run in runs if name == label}) for label in sizes}
    written = {label: ", ".join(map(_scientific, rates[label])) for label in sizes}
    return {
        "backbone": charts.backbone_name(asked.backbone),
        "tasks": ", ".join(charts.task_name(task) for task in asked.tasks),
        "LoRA, ranks": ", ".join(map(str, sizes["lora"])),
        "CP, components": ", ".join(map(str, sizes["cp"])),
        "head only": "yes" if asked.ladder.head else "no",
        "LoRA, rates": written["lora"],
        "CP, rates": written["cp"],
        "seeds": len(asked.seeds),
        "steps": f"{asked.protocol.steps:,}",
        "evaluated every": f"{asked.protocol.eval_every:,}",
        "precision": asked.protocol.dtype,
        "runs": len(runs),
    }


def error_table() -> pd.DataFrame:
    """The standard error of an accuracy that comes from each task's items."""
    return pd.DataFrame(
        {"task": charts.task_name(task), "validation split": f"{split:,}", "judged on": f"{judged(task):,}"}
        | {f"error at {100 * a:.0f} %, points": f"{100 * item_error(task, a):.1f}" for a in (0.5, 0.75, 0.95)}
        for task, split in published()["validation"].items()
    )


def _scientific(rate: float) -> str:
    return f"{rate:.0e}".replace("e-0", "e-")
