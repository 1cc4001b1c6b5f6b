"""The one place that counts parameters over a whole model, so that no two figures can disagree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cpadapt.errors import InputError
from cpadapt.families import FAMILIES, family
from cpadapt.inputs.backbones.specs import Projection

ADAM_BYTES_PER_SCALAR = 8
"""Adam keeps two float32 moments a trainable scalar."""


def count(
    name: str, projections: Sequence[Projection], size: int, shape_options: Mapping[str, Any] | None = None
) -> int:
    """Trainable scalars of a family at this size over all projections; 0 at size 0."""
    if size == 0:
        return 0
    options = shape_options or {}
    return sum(family(name).count(p.out_features, p.in_features, size, **options) for p in projections)


def step(name: str, projections: Sequence[Projection], shape_options: Mapping[str, Any] | None = None) -> int:
    """The parameter step: trainable scalars that one more unit of size costs over all projections."""
    options = shape_options or {}
    return sum(family(name).step(p.out_features, p.in_features, **options) for p in projections)


def largest_size(
    name: str, projections: Sequence[Projection], budget: int, shape_options: Mapping[str, Any] | None = None
) -> int:
    """The largest size whose count is at or under the budget; 0 if one unit is above it already."""
    if budget < 0:
        raise InputError(f"a budget is a number of trainable scalars, 0 or more, not {budget}")
    return budget // step(name, projections, shape_options)


@dataclass(frozen=True)
class Offer:
    """What a family can do with a budget."""

    family: str
    size: int
    parameters: int
    step: int
    unspent: int
    adam_bytes: int
    """Adam's state at this size, two float32 moments a scalar."""


def plan(projections: Sequence[Projection], budget: int) -> list[Offer]:
    """For every family the largest adapter at or under a budget over all target modules.

    Args:
        projections: the target modules, as `cpadapt.load_projections` or a backbone gives them.
        budget: trainable scalars.

    Raises:
        InputError: the budget is negative.
    """
    offers = []
    for name in FAMILIES:
        size = largest_size(name, projections, budget)
        parameters = count(name, projections, size)
        offers.append(
            Offer(
                family=name,
                size=size,
                parameters=parameters,
                step=step(name, projections),
                unspent=budget - parameters,
                adam_bytes=ADAM_BYTES_PER_SCALAR * parameters,
            )
        )
    return offers
