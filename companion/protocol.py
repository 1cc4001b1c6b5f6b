"""How runs are made comparable, the source of each setting, and the words for what an interval shows."""

import ast
import dataclasses
import functools
import inspect
import itertools
import tomllib
from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from companion import PROJECT, claims, plan
from companion.claims import Verdict
from companion.published import PUBLISHED
from cpadapt.analysis import charts
from cpadapt.analysis.statistics import Mean
from cpadapt.families import FAMILIES, counting
from cpadapt.inputs.backbones.projections import load_projections
from cpadapt.inputs.tasks.specs import TASKS
from cpadapt.records.config import Protocol
from cpadapt.study import load_study

PAPER = load_study(PROJECT / "studies" / "paper.toml")
"""The paper's grid."""


@functools.cache
def published() -> Mapping[str, Any]:
    """`book/published.toml`."""
    return tomllib.loads(PUBLISHED.read_text(encoding="utf-8"))


def rate(family: str) -> float:
    """The learning rate that the paper reports (second-hand)."""
    (found,) = PAPER.families[family].learning_rates or ()
    return found


def item_error(task: str, accuracy: float) -> float:
    """The standard error of an accuracy, as a share, from the choice of a task's eval items alone."""
    return float((accuracy * (1 - accuracy) / judged(task)) ** 0.5)


def judged(task: str) -> int:
    """The number of eval items of a task that runs are asked."""
    items = int(published()["validation"][task])
    return min(items, Protocol().eval_cap or items)


def excess(pair: Mapping[str, int]) -> float:
    """The scalars of a pair's CP above LoRA's, as a share of LoRA's, on the paper's backbone."""
    opt = load_projections(PAPER.backbone)
    scalars = {family: counting.count(family, opt, size) for family, size in pair.items()}
    return scalars["cp"] / scalars["lora"] - 1


def design() -> Any:
    """What happens to every run, in four steps, as HTML."""
    from IPython.display import HTML  # comes with Jupyter

    p, main = Protocol(), load_study(PROJECT / "studies" / f"{plan.MAIN}.toml").protocol
    if (main.train_cap, main.dev_cap) != (p.train_cap, p.dev_cap):
        raise ValueError("the main study draws other numbers of examples: say both")
    steps = {
        "Draw": f"{p.train_cap:,} training and {p.dev_cap:,} dev examples, from the training split. All adapters get"
        " the same.",
        "Train": "One run for each adapter, size, rate and seed. The seed sets the initial weights and the order."
        f" {p.steps:,} steps; {main.steps:,} in the main study.",
        "Choose": "Dev picks each run's best step, and each adapter's rate.",
        "Judge": f"Once, item by item: up to {p.eval_cap:,} items of the validation split. In the main study up to"
        f" {main.eval_cap:,}, and up to {main.rest_cap:,} rest rows.",
    }
    boxes = "".join(f"<li><b>{step}</b> {about}</li>" for step, about in steps.items())
    label = "How a run is made: examples are drawn, the adapter is trained, dev chooses, and eval judges once."
    return HTML(f'<figure class="design" role="group" aria-label="{label}"><ol>{boxes}</ol></figure>')


EXAMPLES = (Mean(0.013, 0.003, 11), Mean(0.003, 0.0007, 11), Mean(-0.0005, 0.0012, 11), Mean(0.004, 0.004, 11))
"""Made-up differences, one for each way to speak of one."""


def said_of(difference: Mean) -> str:
    """How the plan classifies a difference, and whether one that is shown is below the margin."""
    call = plan.call(difference.p_value(), difference.equivalence_p_value(plan.MARGIN))
    small = call is plan.Call.SHOWN and abs(difference.mean) < plan.MARGIN
    return f"{call.value}, below the margin" if small else call.value


def verdict_chart() -> Any:
    """`EXAMPLES` with the intervals that decide, each by what is said of it."""
    rows = [(said_of(example), example.mean, *example.interval(1 - plan.LEVEL)) for example in EXAMPLES]
    table = pd.DataFrame(rows, columns=["said", "mean", "low", "high"])
    table[["mean", "low", "high"]] *= 100
    base = alt.Chart(table).encode(alt.Y("said:N", sort=None, title=None, axis=alt.Axis(grid=False, ticks=False)))
    axis = alt.Axis(values=[-1, 0, 1, 2])
    lines = [
        alt.Chart(pd.DataFrame({"at": at})).mark_rule(strokeDash=dash, strokeWidth=1).encode(alt.X("at:Q"))
        for at, dash in (([0.0], [1, 0]), ([-100 * plan.MARGIN, 100 * plan.MARGIN], [6, 4]))
    ]
    tooltip = [
        alt.Tooltip("said:N", title="called"),
        *(alt.Tooltip(f"{name}:Q", title=title, format="+.2f")
          for name, title in (("mean", "points"), ("low", "from"), ("high", "to"))),
    ]  # fmt: skip
    reach = base.mark_rule(strokeWidth=2).encode(
        alt.X("low:Q", title="difference, points", axis=axis), alt.X2("high:Q"), tooltip=tooltip
    )
    points = base.mark_point(filled=True, size=60, opacity=1, color="currentColor").encode(
        alt.X("mean:Q"), tooltip=tooltip
    )
    return alt.layer(*lines, reach, points).properties(
        description=f"Four made-up differences with their intervals, from top to bottom: {'; '.join(table['said'])}."
        " A line stands at 0, and dashed ones half a point on either side.",
        width="container",
        height=120,
    )


def word_table() -> pd.DataFrame:
    """The words for what an interval shows, where they are used, and what each means."""
    shown, alike, judged_by = (
        f"{100 * (1 - level):.0f} %" for level in (plan.LEVEL, 2 * plan.LEVEL, 2 * claims.LEVEL)
    )
    margin = f"{100 * plan.MARGIN:g} points"
    words: dict[str, dict[str, str]] = {
        "over tasks": {
            plan.Call.SHOWN: f"the {shown} interval leaves out 0",
            plan.Call.EQUIVALENT: f"not shown, and the {alike} interval lies within {margin} of 0",
            plan.Call.OPEN: "neither",
        },
        "on one task": {
            "clear": "the 95 % interval leaves out 0, after Holm's correction over the comparisons shown with it",
        },
        "in claims": {
            Verdict.HOLDS: f"the {judged_by} interval lies where the claim puts the difference",
            Verdict.FAILS: "the interval lies elsewhere",
            Verdict.EDGE: "one of the two above, but not without one budget, or with one other answer of one run",
            Verdict.OPEN: "the interval reaches across an end",
            Verdict.UNJUDGED: "an adapter isn't shown to have learned: to beat the head alone in balanced accuracy",
            Verdict.UNMEASURED: "a run is missing",
        },
    }
    return pd.DataFrame(
        {"word": str(word), "used": where, "meaning": meaning}
        for where, of_place in words.items()
        for word, meaning in of_place.items()
    )


def field_table() -> pd.DataFrame:
    """Every field of the protocol with its default, the source of the default, what the main study has in its place,
    and its documentation."""
    sources, said, changed = Protocol().sources(), _said(), changed_by_main_study()
    return pd.DataFrame(
        {"setting": name, "default": str(value), "whose": sources[name]}
        | {"main study": str(changed.get(name, "")), "what it is": said[name]}
        for name, value in dataclasses.asdict(Protocol()).items()
    )


def changed_by_main_study() -> Mapping[str, Any]:
    """The fields of the protocol in which the main study differs from the default, with its values."""
    main = dataclasses.asdict(load_study(PROJECT / "studies" / f"{plan.MAIN}.toml").protocol)
    return {name: main[name] for name, value in dataclasses.asdict(Protocol()).items() if main[name] != value}


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
    whose = {name: "" if name in PAPER.families else " (ours)" for name in FAMILIES}
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


def error_table() -> pd.DataFrame:
    """The standard error of an accuracy that comes from each task's items."""
    return pd.DataFrame(
        {"task": charts.task_name(task), "validation split": f"{split:,}", "judged on by default": f"{judged(task):,}"}
        | {f"error at {100 * a:.0f} %, points": f"{100 * item_error(task, a):.1f}" for a in (0.5, 0.75, 0.95)}
        for task, split in published()["validation"].items()
    )


def _scientific(rate: float) -> str:
    return f"{rate:.0e}".replace("e-0", "e-")
