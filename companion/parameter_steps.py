"""The cost of one more unit of an adapter, counted from shapes, and the advantage of more sizes to choose from."""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

import cpadapt
from companion import PROJECT
from cpadapt.analysis.charts import family_name
from cpadapt.families import counting, cp
from cpadapt.inputs.backbones.specs import Projection

if TYPE_CHECKING:
    from peft import PeftConfig

BOTH = ("lora", "cp")

SQUARE = [Projection("square", 2048, 2048)]
"""One projection of OPT-1.3B."""

SHOWN = 10_000
"""The budget on that projection at which the staircase starts."""

LITTLE = 50_000
"""A budget on SmolLM2-135M a little below LoRA's first rank."""

SHAPES: Mapping[str, tuple[int, int, str]] = {
    "192×576": (192, 576, "SmolLM2-135M, value"),
    "384×384": (384, 384, "MiniLM-L6"),
    "576×576": (576, 576, "SmolLM2-135M, query"),
    "768×768": (768, 768, "OPT-125M, BERT base"),
    "1024×4096": (1024, 4096, "Llama-3-8B, value"),
    "2048×2048": (2048, 2048, "OPT-1.3B"),
    "4096×4096": (4096, 4096, "Llama-3-8B, query"),
}
"""Shapes (out, in) of projections, and a model that has each."""

SPLITS: Mapping[str, tuple[int, ...]] = {
    "two": (32, 64),
    "two, uneven": (2, 1024),
    "three": (8, 16, 16),
    "five": (4, 4, 4, 4, 8),
    "eleven": (2,) * 11,
}
"""Splits of a side of 2048, by the number of parts."""

MODELS = {"minilm": "MiniLM-L6", "smollm2": "SmolLM2-135M", "opt-125m": "OPT-125M", "opt-1.3b": "OPT-1.3B"}

GRID = cpadapt.load_study(PROJECT / "studies" / "paper.toml").ladder.sizes
"""The paper's sizes on OPT-1.3B."""


LOKR_RANKS = range(1, 41)
"""LoKr's that are counted on one projection."""

VECTORS = (1, 2, 3)
"""Lengths of the vector that TinyLoRA and Uni-LoRA train."""


@functools.cache
def projections(model: str) -> tuple[Projection, ...]:
    """A model's target modules, which are PEFT's defaults for LoRA."""
    return tuple(cpadapt.load_projections(model))


def step(family: str, on: Sequence[Projection]) -> int:
    """The cost of a unit on these projections, which does not depend on the size."""
    return counting.count(family, on, 1)


def ratio(m: int, n: int) -> float:
    """LoRA's step divided by CP's, on one projection of this shape."""
    on = [Projection("one", m, n)]
    return step("lora", on) / step("cp", on)


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


# Tables to read.


def vector_table() -> pd.DataFrame:
    """`vector_scalars` of `VECTORS`."""
    titles = {"tinylora": "TinyLoRA, scalars", "unilora": "Uni-LoRA, scalars"}
    return pd.DataFrame(
        {"length of the vector": length} | {titles[name]: count for name, count in vector_scalars(length).items()}
        for length in VECTORS
    )


def shape_table() -> pd.DataFrame:
    """The steps on each of `SHAPES`."""
    return pd.DataFrame(
        {
            "out×in": name,
            "such as": where,
            "split": " × ".join("·".join(map(str, cp.modes(side))) for side in (m, n)),
            "LoRA": f"{step('lora', [Projection('', m, n)]):,}",
            "CP": step("cp", [Projection("", m, n)]),
            "LoKr": lokr_scalars(1, m, n),
            "LoRA : CP": f"{ratio(m, n):.1f}",
        }
        for name, (m, n, where) in SHAPES.items()
    )


def split_table() -> pd.DataFrame:
    """CP's step with other splits of a side."""
    return pd.DataFrame(
        {"parts a side": name, "split": "·".join(map(str, split)), "CP": split_step(split)}
        for name, split in SPLITS.items()
    )


def model_table() -> pd.DataFrame:
    """The steps over each model's target modules, in scalars and in Adam's state."""
    rows = []
    for model, called in MODELS.items():
        steps = {family: step(family, projections(model)) for family in BOTH}
        row = {"model": called, "projections": len(projections(model))}
        row |= {family_name(family): f"{steps[family]:,}" for family in BOTH}
        row["LoRA : CP"] = f"{steps['lora'] / steps['cp']:.1f}"
        row |= {"LoRA, MiB": f"{adam_mib(steps['lora']):.3f}", "CP, MiB": f"{adam_mib(steps['cp']):.4f}"}
        rows.append(row)
    return pd.DataFrame(rows)


def chance_table() -> pd.DataFrame:
    """The number of points at or under each rank of the grid, and `ahead_by_chance`."""
    return pd.DataFrame(
        {"LoRA rank": rank}
        | {f"{family_name(family)}, points": under(family, rank) for family in BOTH}
        | {"ahead by chance": f"{ahead_by_chance(rank):.2f}"}
        for rank in GRID["lora"]
    )
