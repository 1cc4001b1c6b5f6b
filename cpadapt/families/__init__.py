"""Adapter families: how a factor pair is made from its trainable scalars.

Every adapter is a factor pair: ΔW = scale · up · down, with `up` of shape `[out, columns]` and `down` of shape
`[columns, in]`. A family says how the pair is made. It is a module of plain functions, found by its name in
`FAMILIES`; adding a family takes one file here and one line in that table.

A family's trainable scalars are a dictionary of tensors, each of shape `[*leading, size, …]`: any leading axes (none
for one projection; the layer for a bank), then the family's own size (LoRA: rank; CP: components).

A family's units are *separate* if each of them makes its own columns of `up` and rows of `down` from its own scalars
alone, wherever it stands, and these lie in the order of the units. Adapters of any sizes can then be laid end to end,
and so can their pairs, so a bank makes the pairs of all sizes in one call. Of other families it makes those of one
size at a time. A family that shares scalars between projections, or that starts from the frozen weights, does not fit
a bank; PEFT's tuners of that kind are in `cpadapt.families.peft_tuners`.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from cpadapt.errors import InputError, did_you_mean
from cpadapt.families import cp, lokr, lora, melora, symlora
from cpadapt.families.peft_tuners import TUNERS, Tuner

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Family(typing.Protocol):
    """What a family's module offers. Only `init` and `factors` import torch."""

    TITLE: str
    """Its name in tables and charts."""

    COLOUR: str
    """Its colour in charts, as a CSS colour."""

    LEARNING_RATE: float
    """The default learning rate; for the paper's families it is the paper's."""

    SCALE: float
    """The default factor in front of the pair."""

    SHAPE_OPTIONS: Mapping[str, Any]
    """The options that decide shapes, with their defaults; they are keywords of every function below."""

    INIT_OPTIONS: Mapping[str, Any]
    """The options that decide only the initial values, with their defaults; they are further keywords of `init`."""

    DECAY_OPTIONS: Mapping[str, str]
    """The options of weight decay on one tensor, in addition to the protocol's, each with its tensor's name. Their
    default is 0."""

    SEPARATE_UNITS: bool
    """Whether its units are separate, as the module's docstring defines it."""

    SAVED_AS_TRAINED: bool
    """Whether an adapter file holds its trainable scalars, because PEFT or cpadapt has a type of adapter for it; else
    the file holds the equal LoRA adapter."""

    def accepts(self, out_features: int, in_features: int, **shape_options: Any) -> str | None:
        """The reason why it cannot adapt a projection of this shape, or None if it can.

        The functions below are called only for shapes that it can adapt.
        """

    def smallest(self, **shape_options: Any) -> int:
        """The smallest size; every size from there on has an adapter, up to the largest if there is one.

        Raises:
            InputError: an option is wrong.
        """

    def shapes(
        self, out_features: int, in_features: int, size: int, **shape_options: Any
    ) -> dict[str, tuple[int, ...]]:
        """Name and shape `(size, …)` of every trainable tensor of one projection.

        Raises:
            InputError: an option is wrong, the size is below the smallest, or above the largest that these sides have.
        """

    def columns(self, size: int, **shape_options: Any) -> int:
        """The number of columns of `up` and rows of `down`, the rank of the equal LoRA adapter.

        Every unit makes the same number if the units are separate.
        """

    def init(
        self, generator: torch.Generator, out_features: int, in_features: int, size: int, **options: Any
    ) -> dict[str, Tensor]:
        """Draw one projection's trainable scalars: the tensors of `shapes`, float32, on the CPU.

        Raises:
            InputError: as `shapes`, or an option in `INIT_OPTIONS` is wrong.
        """

    def factors(self, params: dict[str, Tensor], **shape_options: Any) -> tuple[Tensor, Tensor]:
        """Make the pair: `up` `[*leading, out, columns]` and `down` `[*leading, columns, in]`."""


FAMILIES: dict[str, Family] = {
    "lora": cast(Family, lora),
    "cp": cast(Family, cp),
    "melora": cast(Family, melora),
    "symlora": cast(Family, symlora),
    "lokr": cast(Family, lokr),
}
"""Every family by its name, in the order of tables and legends."""


def family(name: str) -> Family:
    """The family of this name.

    Raises:
        InputError: there is no such family, or it is one of PEFT's tuners, which have no factor pair.
    """
    found = family_or_tuner(name)
    if isinstance(found, Tuner):
        raise InputError(f"{name!r} is one of PEFT's tuners, which have no factor pair and fit no bank")
    return found


def family_or_tuner(name: str) -> Family | Tuner:
    """What a study trains under this name: a family, or one of PEFT's tuners.

    Raises:
        InputError: there is neither; the message lists the known ones.
    """
    if name in TUNERS:
        return TUNERS[name]
    if name not in FAMILIES:
        raise InputError(
            f"unknown adapter family {name!r}{did_you_mean(name, [*FAMILIES, *TUNERS])}; known are"
            f" {', '.join(sorted(FAMILIES))} and, of PEFT's tuners, {', '.join(sorted(TUNERS))}"
        )
    return FAMILIES[name]
