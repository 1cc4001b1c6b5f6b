"""Adapter families: how a factor pair is made from its trainable scalars.

Every adapter is a factor pair: ΔW = scale · up · down, with `up` of shape `[out, columns]` and `down` of shape
`[columns, in]`. A family says how the pair is made. It is a module of plain functions, found by its name in
`FAMILIES`; a further family is one file here and one line in that table.

A family's trainable scalars are a dictionary of tensors, each of shape `[*leading, size, …]`: any leading axes (none
for one projection; the layer for a bank), then the family's own size (LoRA: rank; CP: components), counted from 1.

What fits: every unit along `size` makes its own columns of `up` and rows of `down` from its own scalars alone, one or
several, and they lie in the order of the units. So adapters of any sizes can be laid end to end, and their pairs are
then end to end. Nothing is shared between units or between projections, and nothing comes from the frozen weights.
What shares (vectors over all pairs of units, one vector over a model) or starts from the weights does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

from cpadapt.errors import InputError
from cpadapt.families import cp, lora

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Family(Protocol):
    """What a family's module offers. It does without torch until something is drawn or made."""

    TITLE: str
    """What tables and charts call it."""

    COLOUR: str
    """Its colour in charts, as CSS writes it."""

    LEARNING_RATE: float
    """The learning rate where a study gives none; for the paper's families the paper's."""

    SCALE: float
    """The factor in front of the pair by default."""

    SHAPE_OPTIONS: Mapping[str, Any]
    """The options that decide shapes, with their defaults; they are keywords of every function below."""

    INIT_OPTIONS: Mapping[str, Any]
    """The options that decide only the start, with their defaults; they are further keywords of `init`."""

    def accepts(self, out_features: int, in_features: int, **shape_options: Any) -> str | None:
        """Why it cannot adapt a projection of this shape; None if it can. The functions below are asked only then."""

    def shapes(
        self, out_features: int, in_features: int, size: int, **shape_options: Any
    ) -> dict[str, tuple[int, ...]]:
        """Name and shape `(size, …)` of every trainable tensor of one projection.

        Raises:
            InputError: an option is wrong, or there is no adapter of this size; then there is no larger one either.
        """

    def columns(self, size: int, **shape_options: Any) -> int:
        """Columns of `up` and rows of `down`, as many for each unit of size."""

    def init(
        self, generator: torch.Generator, out_features: int, in_features: int, size: int, **options: Any
    ) -> dict[str, Tensor]:
        """Draw one projection's trainable scalars, by the names and shapes of `shapes`, float32, on the CPU.

        Raises:
            InputError: as `shapes`, or an option of the start is wrong.
        """

    def factors(self, params: dict[str, Tensor], **shape_options: Any) -> tuple[Tensor, Tensor]:
        """Make the pair: `up` `[*leading, out, columns]` and `down` `[*leading, columns, in]`."""


FAMILIES: dict[str, Family] = {
    "lora": cast(Family, lora),
    "cp": cast(Family, cp),
}
"""Every family by its name, in the order of tables and legends."""


def family(name: str) -> Family:
    """Return the family of this name.

    Raises:
        InputError: there is none; the message lists those there are.
    """
    if name not in FAMILIES:
        raise InputError(f"unknown adapter family {name!r}; known are {', '.join(sorted(FAMILIES))}")
    return FAMILIES[name]
