"""The figures of the page on the CP adapter, and the table of what merging and exporting change."""

import html
import json
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import altair as alt
import pandas as pd
import torch
from torch import Tensor

from cpadapt.families import counting, cp
from cpadapt.inputs.backbones.specs import Projection

SIGNED = alt.Scale(type="sqrt", scheme="purplegreen", domain=[-1, 1])
"""By the root of an entry's size, so that weak blocks show too."""
GAP = 0.5
"""The gap between blocks, in cells."""
SEAM = 1.15
"""The drawn width of a cell, a little more than 1 so that no seams show."""

SIDE = 24
"""The features on each side of the figures' projection, split in 4·6."""
BLOCK = cp.modes(SIDE)[-1]
MOST = 8
"""The most components in the figures."""
DRAW = 3513
"""A seed whose first component has no entry near 0, so that all blocks show."""
STEP = 0.05
"""The distance between two values of a bar in the stepper."""


def drawn(family: ModuleType, out_features: int, in_features: int, size: int, seed: int = 0) -> dict[str, Tensor]:
    """An adapter of one projection with λ or B not 0, so that it has an effect, in float64."""
    raw = family.init(torch.Generator().manual_seed(seed), out_features, in_features, size, init="normal")
    return {name: tensor.double() for name, tensor in raw.items()}


def update(family: ModuleType, params: dict[str, Tensor]) -> Tensor:
    """The update ΔW without its scale, `[out, in]`."""
    up, down = family.factors(params)
    product: Tensor = up @ down
    return product


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


# The stepper: bars for a component's vectors, and the update that `book/assets/stepper.js` makes of them.

VECTORS = {
    "weight": ("λ", "weight"),
    "up_0": ("u₁", "block rows"),
    "up_1": ("u₂", "rows in a block"),
    "down_0": ("v₁", "block columns"),
    "down_1": ("v₂", "columns in a block"),
}
"""Symbol of each stored tensor, and what it is for."""


def stepper_params() -> dict[str, Tensor]:
    """The stored tensors that the stepper starts from: a draw on the bars' grid, with λ large enough to see."""
    params = drawn(cp, SIDE, SIDE, MOST, seed=DRAW)
    params["weight"] = (params["weight"] * MOST).clamp(-1, 1)
    return {name: (tensor / STEP).round() * STEP + 0.0 for name, tensor in params.items()}  # no -0


def stepper() -> Any:
    """The stepper as HTML. Without JavaScript it shows its first component, with bars that don't move."""
    from IPython.display import HTML  # comes with Jupyter

    params = stepper_params()
    first = {name: tensor[:1] for name, tensor in params.items()}
    up, down = cp.factors(first | {"weight": torch.ones(1, dtype=torch.float64)})
    cells = [
        _cells("up", up[:, 0], [(-1.4, y) for _, y in _places(SIDE, 1)]),
        _cells("down", down[0], [(x, -1.4) for x, _ in _places(1, SIDE)]),
        _cells("matrix", cp.SCALE * update(cp, first).flatten(), _places(SIDE, SIDE)),
    ]
    one = [Projection("", SIDE, SIDE)]
    steps = {family: counting.step(family, one) for family in ("cp", "lora")}
    components = [
        {name: [round(value, 2) for value in params[name][s].reshape(-1).tolist()] for name in VECTORS}
        for s in range(MOST)
    ]
    data = json.dumps({"scale": cp.SCALE, "steps": steps, "components": components}, separators=(",", ":"))
    bars = "".join(_bars(name, values) for name, values in components[0].items())
    label = (
        f"A component of a CP adapter: a weight, and four short vectors as bars. Beside them the {SIDE} by {SIDE}"
        f" matrix that they make, in blocks of {BLOCK} by {BLOCK} that all show one pattern, each with its strength"
        " and sign."
    )
    edge = SIDE + (SIDE // BLOCK - 1) * GAP
    return HTML(
        f'<figure class="stepper" role="group" aria-label="{html.escape(label)}">'
        f'<div class="stepper-controls"><div class="stepper-bars">{bars}</div></div>'
        f'<svg viewBox="-2.6 -2.6 {edge + 2.7} {edge + 2.7}" role="img" aria-label="The update">{"".join(cells)}'
        f'<text transform="rotate(-90)" x="{-edge / 2}" y="-1.7">u₁ ⊗ u₂</text>'
        f'<text x="{edge / 2}" y="-1.7">v₁ ⊗ v₂</text></svg>'
        f'<output>Components: <b data-count="components">1</b>. Stored: <b data-count="cp">{steps["cp"]}</b> scalars,'
        f' against <b data-count="lora">{steps["lora"]}</b> in LoRA of that rank and {SIDE * SIDE} entries in the'
        f' matrix.</output><script type="application/json">{data}</script></figure>'
    )


def _bars(name: str, values: Sequence[float]) -> str:
    symbol, about = VECTORS[name]
    inputs = "".join(
        f'<input type="range" min="-1" max="1" step="{STEP}" value="{value:.2f}" style="--at: {value:.2f}"'
        f' aria-label="{symbol}{f", entry {k}" if len(values) > 1 else ""}">'
        for k, value in enumerate(values, start=1)
    )
    return (
        f'<fieldset disabled data-vector="{name}"><legend>{symbol} <small>{about}</small></legend>{inputs}</fieldset>'
    )


def _places(rows: int, columns: int) -> list[tuple[float, float]]:
    """Corners (x, y) of a matrix's cells, row by row, with a gap between blocks."""
    return [(b + b // BLOCK * GAP, a + a // BLOCK * GAP) for a in range(rows) for b in range(columns)]


def _cells(name: str, values: Tensor, corners: Sequence[tuple[float, float]]) -> str:
    """Squares with the sign as their class and the root of the size, relative to the largest, as their opacity."""
    largest = values.abs().max().item() or 1.0
    squares = "".join(
        f'<rect x="{x:g}" y="{y:g}" class="{"minus" if value < 0 else "plus"}"'
        f' fill-opacity="{(abs(value) / largest) ** 0.5:.3f}"/>'
        for (x, y), value in zip(corners, values.tolist(), strict=True)
    )
    return f'<g data-cells="{name}">{squares}</g>'


# Merging and exporting.


def difference_table() -> pd.DataFrame:
    """The largest differences between outputs of an adapted decoder and those of what is made of it, to read.

    The decoder has random weights, and an adapter of 4 components that is large enough to matter.
    """
    import warnings

    from peft import get_peft_model, set_peft_model_state_dict
    from peft.tuners.lora import convert_to_lora

    import cpadapt

    # PEFT asks transformers for a property by its old name.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
    backbone = cpadapt.load_backbone("tiny")
    text = backbone.tokenizer("Does it merge? It does.", return_tensors="pt")
    torch.manual_seed(0)
    model = get_peft_model(backbone.model, cpadapt.CPConfig(num_components=4, init="normal")).eval()
    others = {"exported by to_lora, rank 4": cpadapt.to_lora(model)}
    for rank in (4, 3):
        config, state = convert_to_lora(model, rank=rank)
        other = get_peft_model(cpadapt.load_backbone("tiny").model, config).eval()
        set_peft_model_state_dict(other, state)
        others[f"PEFT's convert_to_lora, rank {rank}"] = other
    with torch.no_grad():
        adapted = model(**text).last_hidden_state
        with model.disable_adapter():
            outputs = {"without the adapter": model(**text).last_hidden_state}
        model.merge_adapter()
        outputs["merged"] = model(**text).last_hidden_state
        outputs |= {name: other(**text).last_hidden_state for name, other in others.items()}
    return pd.DataFrame(
        {"beside the adapted model": name, "largest difference": f"{(output - adapted).abs().max().item():.1g}"}
        for name, output in outputs.items()
    )
