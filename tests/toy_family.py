"""A third family, as one would add it: block-diagonal updates of square projections, with a column for each block.

ΔW = scale · Σ_s blockdiag(u₁ₛ v₁ₛᵀ, u₂ₛ v₂ₛᵀ, …),   uₛ = (u₁ₛ, u₂ₛ, …),   vₛ = (v₁ₛ, v₂ₛ, …)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cpadapt.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TITLE = "Blocks"
COLOUR = "#56B4E9"
LEARNING_RATE = 3e-4
SCALE = 1.5
SHAPE_OPTIONS: Mapping[str, Any] = {"blocks": 2}
INIT_OPTIONS: Mapping[str, Any] = {"spread": 1.0}
DECAY_OPTIONS: Mapping[str, str] = {"down_decay": "down"}
SEPARATE_UNITS = True
SAVED_AS_TRAINED = False


def accepts(out_features: int, in_features: int, *, blocks: int = 2) -> str | None:
    if out_features != in_features:
        return "it is not square"
    return f"its sides cannot be cut into {blocks} blocks" if out_features % blocks else None


def smallest(*, blocks: int = 2) -> int:
    return 1


def shapes(out_features: int, in_features: int, size: int, *, blocks: int = 2) -> dict[str, tuple[int, ...]]:
    if size < 1:
        raise InputError(f"the size must be a positive integer, not {size}")
    return {"up": (size, out_features), "down": (size, in_features)}


def columns(size: int, *, blocks: int = 2) -> int:
    return blocks * size


def init(
    generator: torch.Generator, out_features: int, in_features: int, size: int, *, blocks: int = 2, spread: float = 1.0
) -> dict[str, Tensor]:
    import torch

    drawn = shapes(out_features, in_features, size, blocks=blocks)
    return {
        "up": torch.zeros(drawn["up"]),
        "down": spread * torch.randn(drawn["down"], generator=generator),
    }


def factors(params: dict[str, Tensor], *, blocks: int = 2) -> tuple[Tensor, Tensor]:
    return _by_block(params["up"], blocks).mT, _by_block(params["down"], blocks)


def _by_block(vectors: Tensor, blocks: int) -> Tensor:
    """`[*leading, size, features]` → `[*leading, size · blocks, features]`, each row with one block alone."""
    import torch

    place = torch.eye(blocks).repeat_interleave(vectors.shape[-1] // blocks, 1)
    return (vectors.unsqueeze(-2) * place).flatten(-3, -2)
