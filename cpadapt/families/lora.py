"""LoRA: the factors themselves are trained (Hu et al. 2021, arXiv 2106.09685, equation 3)::

    ΔW = scale · up · down,   up: [out, rank],   down: [rank, in],   scale = α / rank

===================  ======  =============
symbol of the paper  tensor  shape
===================  ======  =============
Bᵀ                   `up`    `[rank, out]`
A                    `down`  `[rank, in]`
===================  ======  =============
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cpadapt.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TITLE = "LoRA"
COLOUR = "#0072B2"
LEARNING_RATE = 1e-4
SCALE = 2.0
SHAPE_OPTIONS: Mapping[str, Any] = {}
INIT_OPTIONS: Mapping[str, Any] = {"init": "zero"}
DECAY_OPTIONS: Mapping[str, str] = {}
SEPARATE_UNITS = True
SAVED_AS_TRAINED = True


def accepts(out_features: int, in_features: int) -> str | None:
    """Every projection is accepted."""
    return None


def smallest() -> int:
    """Rank 1."""
    return 1


def shapes(out_features: int, in_features: int, size: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of the trainable tensors of one projection.

    Raises:
        InputError: the rank is not a positive integer.
    """
    if size < 1:
        raise InputError(f"the LoRA rank must be a positive integer, not {size}")
    return {"up": (size, out_features), "down": (size, in_features)}


def columns(size: int) -> int:
    """One column of the pair for each rank."""
    return size


def init(
    generator: torch.Generator,
    out_features: int,
    in_features: int,
    size: int,
    *,
    init: str = "zero",
) -> dict[str, Tensor]:
    """Draw one projection's factors as PEFT does: A uniform in ±1/√in, B zero (`"zero"`, a no-op at the start).

    `"normal"` also draws B, standard normal divided by the rank, for adapters that must not be a no-op.

    Raises:
        InputError: as `shapes`; or ``init`` is neither.
    """
    import torch

    drawn = shapes(out_features, in_features, size)
    # PEFT calls kaiming_uniform_ with a = √5, which has exactly this bound.
    bound = 1 / math.sqrt(in_features)
    down = torch.empty(drawn["down"]).uniform_(-bound, bound, generator=generator)
    if init == "zero":
        return {"up": torch.zeros(drawn["up"]), "down": down}
    if init == "normal":
        return {"up": torch.randn(drawn["up"], generator=generator) / size, "down": down}
    raise InputError(f"the initialisation of LoRA is 'zero' or 'normal', not {init!r}")


def factors(params: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The pair is what is trained: `up` `[*leading, out, rank]`, `down` `[*leading, rank, in]`."""
    return params["up"].mT, params["down"]
