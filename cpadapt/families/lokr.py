"""LoKr: a Kronecker product of two matrices of low rank, as PEFT's `LoKrConfig(decompose_both=True)` makes it (Yeh et
al. 2024, arXiv 2309.14859).

With out = o₁·o₂ and in = i₁·i₂, each the factor pair nearest to a square, the smaller first::

    ΔW = scale · (A₁B₁) ⊗ (A₂B₂),   Aⱼ: [oⱼ, rank],   Bⱼ: [rank, iⱼ],   scale = α / rank
       = scale · Σₛₜ (a₁ₛ ⊗ a₂ₜ)(b₁ₛ ⊗ b₂ₜ)ᵀ

The size is the rank of both matrices, PEFT's `r`, and a unit costs o₁ + o₂ + i₁ + i₂ scalars, as much as a component
of CP without its weight. The pair has a column for each of the rank² products of a vector of the first matrix with one
of the second. So the update has up to that matrix rank, and its equal LoRA adapter has exactly that one. One rank is
one CP component.

PEFT stores the first matrix whole once 2 · rank reaches its longer side, and the cost of a unit changes there. Sizes
end before it, so every adapter here is one that PEFT has, and all steps cost the same.

=========  ===============  ========================
symbol     tensor           shape
=========  ===============  ========================
A₁ᵀ, A₂ᵀ   `w1_a`, `w2_a`   `[rank, o₁]`, `[rank, o₂]`
B₁, B₂     `w1_b`, `w2_b`   `[rank, i₁]`, `[rank, i₂]`
=========  ===============  ========================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cpadapt.errors import InputError
from cpadapt.families.cp import nearest_square

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TITLE = "LoKr"
COLOUR = "#009E73"
LEARNING_RATE = 3e-3  # with the scale, as PEFT's own comparison trains it on q and v
SCALE = 2.0
SHAPE_OPTIONS: Mapping[str, Any] = {}
INIT_OPTIONS: Mapping[str, Any] = {}
DECAY_OPTIONS: Mapping[str, str] = {}
SEPARATE_UNITS = False  # Every vector of the first matrix meets every one of the second.
SAVED_AS_TRAINED = True


def accepts(out_features: int, in_features: int) -> str | None:
    """A projection is accepted if its first matrix, o₁×i₁, has a side above 2, so that two thin ones can be it."""
    if largest(out_features, in_features) >= 1:
        return None
    rows, columns = nearest_square(out_features)[0], nearest_square(in_features)[0]
    return f"its first Kronecker factor is {rows}x{columns}, too small to decompose"


def smallest() -> int:
    """Rank 1."""
    return 1


def largest(out_features: int, in_features: int) -> int:
    """The largest rank on a projection, below half the longer side of the first matrix; 0 if there is none."""
    longer = max(nearest_square(out_features)[0], nearest_square(in_features)[0])
    return (longer - 1) // 2


def shapes(out_features: int, in_features: int, size: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of the trainable tensors of one projection.

    Raises:
        InputError: the rank is not positive or above `largest`.
    """
    if size < 1:
        raise InputError(f"the LoKr rank must be a positive integer, not {size}")
    if size > (most := largest(out_features, in_features)):
        raise InputError(
            f"a LoKr of rank {size} does not fit a {out_features}x{in_features} projection; at most {most}, because"
            " above it PEFT stores the first matrix whole"
        )
    (o1, o2), (i1, i2) = nearest_square(out_features), nearest_square(in_features)
    return {"w1_a": (size, o1), "w1_b": (size, i1), "w2_a": (size, o2), "w2_b": (size, i2)}


def columns(size: int) -> int:
    """One column of the pair for each pair of ranks."""
    return size**2


def init(generator: torch.Generator, out_features: int, in_features: int, size: int) -> dict[str, Tensor]:
    """Draw one projection's vectors as PEFT does: A₁ zero, a no-op at the start, B₁, A₂ and B₂ uniform.

    Their bounds are 1/√i₁, 1/√rank and 1/√i₂.

    Raises:
        InputError: as `shapes`.
    """
    import torch

    params = {}
    for name, shape in shapes(out_features, in_features, size).items():
        # PEFT calls kaiming_uniform_ with a = √5, which has exactly this bound in the number of a matrix's columns.
        bound = 1 / math.sqrt(size if name == "w2_a" else shape[-1])
        if name == "w1_a":
            params[name] = torch.zeros(shape)
        else:
            params[name] = torch.empty(shape).uniform_(-bound, bound, generator=generator)
    return params


def factors(params: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Make the pair: `up` `[*leading, out, rank²]` and `down` `[*leading, rank², in]`."""
    return _products(params["w1_a"], params["w2_a"]).mT, _products(params["w1_b"], params["w2_b"])


def _products(first: Tensor, second: Tensor) -> Tensor:
    """Kronecker products of every vector of `first` with every one of `second`, the latter's varying fastest.

    Args:
        first: `[*leading, rank, a]`.
        second: `[*leading, rank, b]`.

    Returns:
        `[*leading, rank², a·b]`.
    """
    products = first[..., :, None, :, None] * second[..., None, :, None, :]
    return products.flatten(-2).flatten(-3, -2)
