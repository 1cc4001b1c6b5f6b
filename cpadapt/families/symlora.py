"""SymLoRA: a symmetric update in spectral form (Panoutsos, Santos and Figueiredo 2025, arXiv 2504.03719)::

    ΔW = scale · Q · diag(Λ) · Qᵀ,   Q: [n, rank],   Λ: [rank]

Only square projections have such an update. A rank costs n + 1 scalars, about half of LoRA's 2n. The pair is
up = Q · diag(Λ) and down = Qᵀ.

======  ========  ===========
symbol  tensor    shape
======  ========  ===========
Qᵀ      `basis`   `[rank, n]`
Λ       `weight`  `[rank]`
======  ========  ===========

The form is the paper's. How Q is drawn, and that it is trained without a constraint, is ours: the paper's summary,
which is all that we know of it, doesn't say. Λ plays the part of CP's λ, so the default rate and scale are CP's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cpadapt.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TITLE = "SymLoRA"
COLOUR = "#9933FF"
LEARNING_RATE = 2e-4
SCALE = 8.0
SHAPE_OPTIONS: Mapping[str, Any] = {}
INIT_OPTIONS: Mapping[str, Any] = {}
DECAY_OPTIONS: Mapping[str, str] = {}
SEPARATE_UNITS = True
SAVED_AS_TRAINED = False


def accepts(out_features: int, in_features: int) -> str | None:
    """Only square projections are accepted."""
    return None if out_features == in_features else "it is not square"


def smallest() -> int:
    """Rank 1."""
    return 1


def shapes(out_features: int, in_features: int, size: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of the trainable tensors of one projection.

    Raises:
        InputError: the rank is not a positive integer.
    """
    if size < 1:
        raise InputError(f"the SymLoRA rank must be a positive integer, not {size}")
    return {"basis": (size, in_features), "weight": (size,)}


def columns(size: int) -> int:
    """One column of the pair for each rank."""
    return size


def init(generator: torch.Generator, out_features: int, in_features: int, size: int) -> dict[str, Tensor]:
    """Draw one projection's Q from N(0, 1/n), so that its columns are about unit length and orthogonal; Λ is zero.

    The adapter is a no-op at the start, and in the first step only Λ gets a gradient.

    Raises:
        InputError: as `shapes`.
    """
    import torch

    drawn = shapes(out_features, in_features, size)
    basis = torch.randn(drawn["basis"], generator=generator) / math.sqrt(in_features)
    return {"basis": basis, "weight": torch.zeros(drawn["weight"])}


def factors(params: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Make the pair: `up` `[*leading, n, rank]`, weighted by Λ, and `down` `[*leading, rank, n]`."""
    basis = params["basis"]
    return (basis * params["weight"].unsqueeze(-1)).mT, basis
