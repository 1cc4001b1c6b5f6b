"""Adapter families: how a factor pair is made from its trainable scalars.

Every adapter is a factor pair: ΔW = scale · up · down, with `up` of shape `[out, components]` and `down` of shape
`[components, in]`. A family says how the pair is made. It is a module of plain functions, found by its name in
`FAMILIES`; a further family is one file here and one line in that table.

A family's trainable scalars are a dictionary of tensors, each of shape `[*leading, size, …]`: any leading axes (none
for one projection; the layer for a bank), then the family's own size (LoRA: rank; CP: components). Every entry along
`size` makes its own column of `up` and row of `down` from its own scalars alone, so adapters of any sizes can be laid
end to end.
"""

from collections.abc import Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from cpadapt.errors import InputError
from cpadapt.families import cp, lora

Parameters = dict[str, Tensor]


class Family(Protocol):
    """What a family's module offers."""

    LEARNING_RATE: float
    """The paper's learning rate for this family."""

    SCALE: float
    """The factor in front of the pair by default."""

    SHAPE_OPTIONS: Mapping[str, Any]
    """The knobs that decide shapes, with their defaults; they are keywords of every function below but `factors`."""

    INIT_OPTIONS: Mapping[str, Any]
    """The knobs that decide only the start, with their defaults; they are further keywords of `init`."""

    def shapes(
        self, out_features: int, in_features: int, size: int, **shape_options: Any
    ) -> dict[str, tuple[int, ...]]:
        """Name and shape of every trainable tensor of one projection."""

    def count(self, out_features: int, in_features: int, size: int, **shape_options: Any) -> int:
        """Trainable scalars of one projection."""

    def step(self, out_features: int, in_features: int, **shape_options: Any) -> int:
        """Trainable scalars that one more unit of size costs on one projection."""

    def init(
        self, generator: torch.Generator, out_features: int, in_features: int, size: int, **options: Any
    ) -> Parameters:
        """Draw one projection's trainable scalars, float32, on the CPU."""

    def factors(self, params: Parameters) -> tuple[Tensor, Tensor]:
        """Make the pair: `up` `[*leading, out, components]` and `down` `[*leading, components, in]`."""


FAMILIES: dict[str, Family] = {
    "lora": cast(Family, lora),
    "cp": cast(Family, cp),
}
"""Every family by its name."""


def family(name: str) -> Family:
    """Return the family of this name.

    Raises:
        InputError: there is none; the message lists those there are.
    """
    if name not in FAMILIES:
        raise InputError(f"unknown adapter family {name!r}; known are {', '.join(sorted(FAMILIES))}")
    return FAMILIES[name]
