"""The cost of one more unit of an adapter, counted from shapes, and the advantage of more sizes to choose from."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import altair as alt
import numpy as np
import pandas as pd
from scipy import stats

import cpadapt
from companion import PROJECT
from cpadapt.analysis.charts import backbone_name, family_colours, family_name
from cpadapt.families import counting
from cpadapt.inputs.backbones.specs import BACKBONES, Projection

if TYPE_CHECKING:
    from peft import PeftConfig

BOTH = ("lora", "cp")

SQUARE = [Projection("square", 2048, 2048)]
"""One projection of OPT-1.3B."""

SHOWN = 10_000
"""The budget on that projection at which the staircase starts."""

MANY = 1000
"""The adapters that are kept side by side in an example."""

WIDTHS = range(256, 8193, 64)
"""Hidden sizes of models."""

SPLITS: Mapping[str, tuple[int, ...]] = {
    "two": (32, 64),
    "two, uneven": (2, 1024),
    "three": (8, 16, 16),
    "five": (4, 4, 4, 4, 8),
    "eleven": (2,) * 11,
}
"""Splits of a side of 2048, by the number of parts."""

MODELS = ("minilm", "smollm2", "opt-125m", "opt-1.3b")

GRID = cpadapt.load_study(PROJECT / "studies" / "paper.toml").ladder.sizes
"""The paper's sizes on OPT-1.3B."""


LOKR_RANKS = range(1, 41)
"""LoKr's that are counted on one projection."""


@functools.cache
def projections(model: str) -> tuple[Projection, ...]:
    """A model's target modules, which are PEFT's defaults for LoRA."""
    return tuple(cpadapt.load_projections(model))


def step(family: str, on: Sequence[Projection]) -> int:
    """The cost of a unit on these projections, which does not depend on the size."""
    return counting.count(family, on, 1)


def split_step(split: tuple[int, ...]) -> int:
    """CP's step on a 2048×2048 projection with this split of each side."""
    return counting.count("cp", SQUARE, 1, {"tensor_shape": {2048: split}})


def between(rank: int) -> int:
    """The number of CP's sizes on that projection between a rank's budget and the next; rank 0 costs nothing."""
    low, high, each = rank * step("lora", SQUARE), (rank + 1) * step("lora", SQUARE), step("cp", SQUARE)
    return sum(low < size * each < high for size in range(1, high // each + 1))


def adam_mib(scalars: float) -> float:
    """Memory of Adam's state for this number of scalars, in MiB."""
    return counting.ADAM_BYTES_PER_SCALAR * scalars / 2**20


def files_mib(scalars: float) -> float:
    """The size on disk of `MANY` adapters of this number of scalars in float32, in MiB, without their headers."""
    return MANY * 4 * scalars / 2**20


@functools.cache
def backbone_gib(model: str) -> float:
    """The weights of a model in 16 bits, in GiB."""
    import torch
    from transformers import AutoModel

    with torch.device("meta"):
        built = AutoModel.from_config(BACKBONES[model].config())
    return float(2 * sum(weight.numel() for weight in built.parameters()) / 2**30)


def under(family: str, rank: int) -> int:
    """The number of the grid's sizes at or under the budget of a LoRA rank on OPT-1.3B."""
    opt = projections("opt-1.3b")
    return sum(size * step(family, opt) <= rank * step("lora", opt) for size in GRID[family])


def expected_best(points: int) -> float:
    """The expected maximum of independent standard normal numbers: the integral of x n φ(x) Φ(x)^(n − 1)."""
    x = np.linspace(-10, 10, 20_001)
    return float(np.trapezoid(x * points * stats.norm.pdf(x) * stats.norm.cdf(x) ** (points - 1), x))


def ahead_by_chance(rank: int) -> float:
    """The expected lead of CP's best size under a LoRA rank over LoRA's best, if all sizes are equally good.

    The unit is the standard error of one size's accuracy.
    """
    return expected_best(under("cp", rank)) - expected_best(under("lora", rank))


# Families that PEFT has.


def trainable(config: "PeftConfig", *sides: tuple[int, int]) -> int:
    """Trainable scalars of an adapter on linear maps of these sides, (out, in), as PEFT counts them."""
    from peft import get_peft_model
    from torch import nn

    config.target_modules = {str(place) for place in range(len(sides))}
    linears = nn.Sequential(*(nn.Linear(n, m, bias=False) for m, n in sides))
    return int(get_peft_model(linears, config).get_nb_trainable_parameters()[0])


def lokr_scalars(rank: int, m: int, n: int, factor: int = -1) -> int:
    """Those of LoKr with both of its matrices decomposed.

    Args:
        rank: LoKr's.
        m, n: sides of a projection, out and in.
        factor: PEFT's `decompose_factor`.
    """
    from peft import LoKrConfig

    return trainable(LoKrConfig(r=rank, alpha=rank, decompose_both=True, decompose_factor=factor), (m, n))


def vector_scalars(length: int) -> dict[str, int]:
    """Those of TinyLoRA and Uni-LoRA on three linear maps that share a vector of this length."""
    from peft import TinyLoraConfig, UniLoraConfig

    three = [(32, 32)] * 3
    configs = {"tinylora": TinyLoraConfig(u=length, weight_tying=1.0), "unilora": UniLoraConfig(theta_d_length=length)}
    return {name: trainable(config, *three) for name, config in configs.items()}


def uneven_step() -> int:
    """What a second rank on one of two 2048×2048 projections adds to LoRA's first on both."""
    from peft import LoraConfig

    first, uneven = LoraConfig(r=1), LoraConfig(r=1, rank_pattern={"0": 2})
    return trainable(uneven, (2048, 2048), (2048, 2048)) - trainable(first, (2048, 2048), (2048, 2048))


# What a page draws and shows.


def staircase_chart() -> Any:
    """What LoRA and CP can spend of a budget on one 2048×2048 projection, with a slider for the budget."""
    steps = {family: step(family, SQUARE) for family in BOTH}
    end = 4 * steps["lora"]
    treads = pd.DataFrame(
        {"family": family_name(family), "size": size, "budget": size * each, "spent": size * each}
        for family, each in steps.items()
        for size in range(end // each + 1)
    )
    ends = treads.groupby("family", as_index=False, sort=False).last().assign(budget=end)
    sizes = {"lora": "'rank ' + datum.size", "cp": "datum.size + ' components'"}
    slider = alt.param(
        name="budget", value=SHOWN, bind=alt.binding_range(min=0, max=end, step=1, name="budget, scalars: ")
    )
    x = alt.X("budget:Q", title="budget, trainable scalars", scale=alt.Scale(domain=[0, end], nice=False),
              axis=alt.Axis(labelSeparation=8))  # fmt: skip
    y = alt.Y("spent:Q", title="spent, trainable scalars", scale=alt.Scale(domain=[0, end], nice=False))
    colour = _colour(BOTH)
    stairs = (
        alt.Chart(pd.concat([treads, ends]))
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(x, y, colour, tooltip=["family", "size", alt.Tooltip("spent", format=",")])
    )
    families = pd.DataFrame(
        {"family": family_name(family), "step": each, "line": line}
        for line, (family, each) in enumerate(steps.items())
    )
    bought = (
        alt.Chart(families)
        .transform_calculate(budget="budget", size="floor(budget / datum.step)")
        .transform_calculate(spent="datum.size * datum.step")
    )
    drop = alt.Chart(families.head(1)).transform_calculate(budget="budget").mark_rule(strokeDash=[4, 3]).encode(x)
    points = bought.mark_point(size=90, filled=True, opacity=1).encode(x, y, colour)
    layers = [stairs, drop, points]
    for line, family in enumerate(BOTH):
        said = bought.transform_filter(alt.datum.line == line)
        at = alt.value(-20 + 18 * line)
        label = f"datum.family + ': ' + {sizes[family]} + ', unspent ' + format(budget - datum.spent, ',')"
        layers.append(said.mark_point(size=90, filled=True, opacity=1).encode(x=alt.value(6), y=at, color=colour))
        layers.append(
            said.transform_calculate(label=label)
            .mark_text(align="left", baseline="middle", fontSize=13)
            .encode(x=alt.value(18), y=at, text="label:N")
        )
    return (
        alt.layer(*layers)
        .add_params(slider)
        .properties(
            description="What LoRA and CP can spend of a budget on one 2048 by 2048 projection. LoRA climbs in four"
            " high steps; CP climbs in many low ones and never leaves much unspent. Above the steps stands what each"
            " makes of the budget that the slider gives.",
            width="container",
            height=300,
        )
    )


def step_data() -> pd.DataFrame:
    """The steps on a square projection, by `family` and `width`."""
    return pd.DataFrame(
        {"family": family_name(family), "width": width, "step": step(family, [Projection("", width, width)])}
        for width in WIDTHS
        for family in BOTH
    )


def step_chart() -> Any:
    """The steps against the width of a model, both logarithmic, with a slider for the width."""
    data = step_data()
    slider = alt.param(
        name="hidden",  # "width" is the chart's
        value=SQUARE[0].out_features,
        bind=alt.binding_range(min=WIDTHS[0], max=WIDTHS[-1], step=WIDTHS.step, name="hidden size: "),
    )
    ends = [WIDTHS[0], WIDTHS[-1]]
    scale = alt.Scale(type="log", base=2, domain=ends, nice=False)
    x = alt.X("width:Q", title="hidden size", scale=scale, axis=alt.Axis(values=[256, 512, 1024, 2048, 4096, 8192]))
    axis = alt.Axis(format=",", values=[10**k for k in range(1, 6)])
    y = alt.Y("step:Q", title="one step, scalars", scale=alt.Scale(type="log"), axis=axis)
    colour = _colour(BOTH)
    lines = alt.Chart(data).mark_line(strokeWidth=2).encode(x, y, colour)
    here = alt.Chart(data).transform_filter("datum.width == hidden")
    points = here.mark_point(size=90, filled=True, opacity=1).encode(x, y, colour)
    said = (
        here.transform_calculate(label="datum.family + ' ' + format(datum.step, ',')")
        .mark_text(align="right", baseline="bottom", dx=-8, dy=-4, fontSize=13)
        .encode(x, y, text="label:N")
    )
    rule = here.transform_filter(alt.datum.family == family_name("cp")).mark_rule(strokeDash=[4, 3]).encode(x)
    return (
        alt.layer(lines, rule, points, said)
        .add_params(slider)
        .properties(
            description="One step of LoRA and of CP on a square projection, against the hidden size of a model, on"
            " logarithmic axes. LoRA's line rises twice as steeply as CP's, which lies far below it.",
            width="container",
            height=240,
        )
    )


def ladder_chart() -> Any:
    """The sizes of LoRA, LoKr and CP on one 2048×2048 projection, up to LoRA's third rank."""
    top = 3 * step("lora", SQUARE)
    sizes = {
        "lora": range(step("lora", SQUARE), top + 1, step("lora", SQUARE)),
        "lokr": sorted({lokr_scalars(rank, 2048, 2048) for rank in LOKR_RANKS}),
        "cp": range(step("cp", SQUARE), top + 1, step("cp", SQUARE)),
    }
    names = {family: family_name(family) for family in sizes}
    rungs = pd.DataFrame(
        {"family": names[family], "size": size, "scalars": scalars}
        for family, of_family in sizes.items()
        for size, scalars in enumerate(of_family, start=1)
    )
    axis = alt.Axis(ticks=False, domain=False)
    return (
        alt.Chart(rungs)
        .mark_tick(thickness=1.5, size=30, opacity=1)
        .encode(
            alt.X("scalars:Q", title="trainable scalars", scale=alt.Scale(domain=[0, top + 60], nice=False)),
            alt.Y("family:N", title=None, sort=list(names.values()), axis=axis),
            _colour(sizes),
            tooltip=["family", "size", alt.Tooltip("scalars", format=",")],
        )
        .properties(
            description="The sizes that exist on one 2048 by 2048 projection up to LoRA's third rank: three marks for"
            " LoRA, a dense row for CP, and for LoKr a row as dense that ends a little above LoRA's first rank.",
            width="container",
            height=130,
        )
    )


def _colour(families: Iterable[str]) -> Any:
    """The families' colours without a legend: what is drawn bears their names."""
    known = family_colours()
    names = {family: family_name(family) for family in families}
    scale = alt.Scale(domain=list(names.values()), range=[known[family] for family in names])
    return alt.Color("family:N", legend=None, scale=scale)


def cost_table() -> pd.DataFrame:
    """What one step over each model's target modules costs: in scalars, in Adam's state, and kept `MANY` times."""
    rows = []
    for model in MODELS:
        for family in BOTH:
            scalars = step(family, projections(model))
            rows.append(
                {
                    "model": backbone_name(model),
                    "one step": family_name(family),
                    "scalars": f"{scalars:,}",
                    "Adam's state, MiB": f"{adam_mib(scalars):.3f}",
                    f"{MANY:,} adapters on disk, MiB": f"{files_mib(scalars):,.1f}",
                }
            )
    return pd.DataFrame(rows)
