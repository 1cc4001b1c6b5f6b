"""Small adapters, and charts of a CP component."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import altair as alt
import pandas as pd
import torch
from peft import LoKrConfig, get_peft_model
from torch import Tensor, nn

from cpadapt.families import cp

SIGNED = alt.Scale(scheme="purplegreen", domain=[-1, 1])
GAP = 0.5
"""The gap between blocks, in cells."""
SEAM = 1.15
"""The drawn width of a cell, a little more than 1 so that no seams show."""


def drawn(family: ModuleType, out_features: int, in_features: int, size: int, seed: int = 0) -> dict[str, Tensor]:
    """An adapter of one projection with λ or B not 0, so that it has an effect, in float64."""
    raw = family.init(torch.Generator().manual_seed(seed), out_features, in_features, size, init="normal")
    return {name: tensor.double() for name, tensor in raw.items()}


def update(family: ModuleType, params: dict[str, Tensor]) -> Tensor:
    """The update ΔW, `[out, in]`."""
    up, down = family.factors(params)
    product: Tensor = up @ down
    return product


def lokr(rank: int, side: int) -> tuple[nn.Module, int]:
    """PEFT's LoKr on a square projection, as the layer and its number of trainable scalars."""
    config = LoKrConfig(r=rank, alpha=rank, decompose_both=True, init_weights=False, target_modules=["0"])
    model = get_peft_model(nn.Sequential(nn.Linear(side, side, bias=False)), config)
    return model.base_model.model[0], model.get_nb_trainable_parameters()[0]


def product_chart(first: Tensor, second: Tensor) -> Any:
    """A long vector made of two short ones: the first stretched, the second repeated, and their product.

    Args:
        first, second: `[length]`.
    """
    inner = len(second)
    rows = {
        "u₁, stretched": first.repeat_interleave(inner),
        "u₂, repeated": second.repeat(len(first)),
        "u₁ ⊗ u₂": torch.kron(first, second),
    }
    cells = pd.DataFrame(
        {"vector": name, "x": k + k // inner * GAP, "value": round(value, 3)}
        for name, entries in rows.items()
        for k, value in enumerate((entries / entries.abs().max()).tolist())
    )
    cells["end"] = cells["x"] + SEAM
    width = len(first) * (inner + GAP) - GAP
    blank = alt.Axis(ticks=False, domain=False)
    return (
        alt.Chart(cells)
        .mark_rect()
        .encode(
            alt.X("x:Q", axis=None, scale=alt.Scale(domain=[0, width], nice=False)),
            alt.X2("end"),
            alt.Y("vector:N", sort=list(rows), title=None, scale=alt.Scale(paddingInner=0.3), axis=blank),
            alt.Color("value:Q", scale=SIGNED, title="relative to the row's largest"),
            tooltip=["vector", "value"],
        )
        .properties(
            description="Three rows of 24 cells in four groups of six: a vector of four entries stretched, a vector"
            " of six repeated, and their product, in which every group shows the same pattern with another strength"
            " and sign.",
            width="container",
            height=130,
        )
    )


def block_chart(params: dict[str, Tensor], shown: Sequence[int]) -> Any:
    """The updates of a CP adapter's first components on 24×24, side by side.

    Args:
        params: as `drawn` returns them.
        shown: the number of components of each update.
    """
    cells, titles = [], []
    for place, components in enumerate(shown):
        matrix = update(cp, {name: tensor[:components] for name, tensor in params.items()})
        left = 27.5 * place
        for a, row in enumerate((matrix / matrix.abs().max()).tolist()):
            for b, value in enumerate(row):
                cells.append({"x": left + b + b // 6 * GAP, "y": a + a // 6 * GAP, "v": round(value, 2)})
        rank = int(torch.linalg.matrix_rank(matrix))
        titles.append({"x": left, "y": -1, "title": f"c = {components}, rank {rank}"})
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[0, 80.5], nice=False))
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[-5, 25.5], reverse=True, nice=False))
    blocks = (
        alt.Chart(pd.DataFrame(cells))
        .transform_calculate(x2=f"datum.x + {SEAM}", y2=f"datum.y + {SEAM}")
        .mark_rect()
        .encode(x, alt.X2("x2:Q"), y, alt.Y2("y2:Q"), alt.Color("v:Q", scale=SIGNED, title="relative to the largest"))
    )
    headings = (
        alt.Chart(pd.DataFrame(titles))
        .mark_text(align="left", baseline="bottom", fontSize=12)
        .encode(x, y, text="title")
    )
    return (blocks + headings).properties(
        description="Three updates of 24 by 24 with 1, 2 and 8 components. The first consists of 16 blocks that repeat"
        " one pattern; with 2 components the repetition loosens, with 8 it is gone.",
        width="container",
        height=220,
    )
