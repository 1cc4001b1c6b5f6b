"""Counts of trainable scalars, from a family's shapes or the table of PEFT's tuners.

Nothing else counts, so no two numbers can disagree.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cpadapt.errors import InputError, shown
from cpadapt.families import FAMILIES, family, family_or_tuner
from cpadapt.families.peft_tuners import TUNERS

if TYPE_CHECKING:
    from cpadapt.inputs.backbones.specs import Projection

ADAM_BYTES_PER_SCALAR = 8
"""Adam and AdamW keep two float32 moments for each trainable scalar."""

FLOAT32_BYTES = 4

LARGEST_BUDGET = 10**12
"""Above what any adapter costs, in any unit."""


def refusal(
    name: str, projections: Sequence[Projection], shape_options: Mapping[str, Any] | None = None
) -> str | None:
    """The reason why a family cannot adapt all these projections, such as `192x576: it is not square`, or None."""
    for out_features, in_features in _by_shape(projections):
        reason = family(name).accepts(out_features, in_features, **(shape_options or {}))
        if reason is not None:
            return f"{out_features}x{in_features}: {reason}"
    return None


def require(name: str, projections: Sequence[Projection], shape_options: Mapping[str, Any] | None = None) -> None:
    """Check that a family can adapt these projections.

    Raises:
        InputError: it refuses one of them; the message gives the reason.
    """
    reason = refusal(name, projections, shape_options)
    if reason is not None:
        raise InputError(f"family {name!r} cannot adapt a projection of {reason}")


def smallest(name: str, shape_options: Mapping[str, Any] | None = None) -> int:
    """The smallest size of a family's adapters.

    Raises:
        InputError: the family refuses an option.
    """
    return family_or_tuner(name).smallest(**(shape_options or {}))


def count(
    name: str, projections: Sequence[Projection], size: int, shape_options: Mapping[str, Any] | None = None
) -> int:
    """P(size): trainable scalars of a family at this size over all projections; 0 at size 0.

    Raises:
        InputError: the family refuses a projection, an option or the size.
    """
    if size == 0:
        return 0
    if name in TUNERS:
        return TUNERS[name].count(projections, size, **(shape_options or {}))
    require(name, projections, shape_options)
    return sum(
        times * math.prod(shape)
        for sides, times in _by_shape(projections).items()
        for shape in family(name).shapes(*sides, size, **(shape_options or {})).values()
    )


def require_size(
    name: str, projections: Sequence[Projection], size: int, shape_options: Mapping[str, Any] | None = None
) -> None:
    """Check that an adapter of this size can be and is not absurd, which would only be seen when memory runs out.

    Raises:
        InputError: as `count`, or the size is larger than the number of a projection's entries or, of PEFT's
            tuners, which share scalars, of all projections' entries.
    """
    count(name, projections, size, shape_options)
    entries = [p.out_features * p.in_features for p in projections]
    most = sum(entries) if name in TUNERS else min(entries)
    if size > most:
        whose = "all projections have" if name in TUNERS else "the smallest projection has"
        raise InputError(f"size {size} of family {name!r} is more than {whose} entries; at most {most}")


def adam_bytes(
    name: str, projections: Sequence[Projection], size: int, shape_options: Mapping[str, Any] | None = None
) -> int:
    """Bytes of the optimizer's state, Adam's or AdamW's, at this size.

    Raises:
        InputError: as `count`.
    """
    return ADAM_BYTES_PER_SCALAR * count(name, projections, size, shape_options)


def file_bytes(
    name: str, projections: Sequence[Projection], size: int, shape_options: Mapping[str, Any] | None = None
) -> int:
    """Bytes of the tensors in the file `adapter_model.safetensors` that `cpadapt.save_adapter` writes, in float32.

    They hold the trainable scalars of a family that is saved as it is trained (`Family.SAVED_AS_TRAINED`). Any other
    is saved as the LoRA adapter that equals its pair, with (out + in) · columns scalars for each projection. Neither
    the file's header is included, which states each tensor's name and shape in some 130 bytes, more or fewer as the
    modules' names are long, nor a head, which PEFT saves in the same file.

    Raises:
        InputError: as `count`.
    """
    scalars = count(name, projections, size, shape_options)
    if size > 0 and not family(name).SAVED_AS_TRAINED:
        columns = family(name).columns(size, **(shape_options or {}))
        scalars = columns * sum(times * sum(sides) for sides, times in _by_shape(projections).items())
    return FLOAT32_BYTES * scalars


def step(
    name: str,
    projections: Sequence[Projection],
    shape_options: Mapping[str, Any] | None = None,
    size: int | None = None,
) -> int | None:
    """The parameter step: P(size + 1) − P(size), the scalars that one more unit costs over all projections.

    Args:
        name: the family.
        projections: the target modules.
        shape_options: the family's options that decide shapes.
        size: by default the smallest. The step of size 0 is the cost of the smallest adapter.

    Returns:
        The scalars; `None` where the family has no larger size.

    Raises:
        InputError: as `count` of this size.
    """
    first = smallest(name, shape_options)
    size = first if size is None else size
    before = count(name, projections, size, shape_options)
    try:
        return count(name, projections, max(size + 1, first), shape_options) - before
    except InputError:
        return None


Cost = Callable[..., int]
"""What an adapter costs, in the unit of a budget: `count`, `file_bytes` or `adam_bytes`."""


def largest_size(
    name: str,
    projections: Sequence[Projection],
    budget: int,
    shape_options: Mapping[str, Any] | None = None,
    cost: Cost = count,
) -> int:
    """The largest size whose cost is at or under the budget; 0 if the smallest adapter exceeds the budget.

    Raises:
        InputError: the budget is negative or absurd, there are no projections, or as `count` of the smallest adapter.
    """
    if not 0 <= budget <= LARGEST_BUDGET:
        raise InputError(f"a budget must be 0 or more and at most {LARGEST_BUDGET:,}, not {shown(budget)}")
    if not projections:
        raise InputError("give at least one projection")

    def too_large(size: int) -> bool:
        try:
            return cost(name, projections, size, shape_options) > budget
        except InputError:  # the family ends below this size
            return True

    first = smallest(name, shape_options)
    if cost(name, projections, first, shape_options) > budget:
        return 0
    # By bisection, because a family's steps need not cost the same.
    above = 2 * first
    while not too_large(above):
        above *= 2
    return bisect.bisect_left(range(above), True, lo=first, key=too_large) - 1


@dataclass(frozen=True)
class Offer:
    """A family's largest adapter at or under a budget; all numbers are `None` if it refuses a projection."""

    family: str
    size: int | None = None
    """0 if its smallest adapter exceeds the budget."""
    parameters: int | None = None
    step: int | None = None
    """Scalars of one more unit, at size 0 of the smallest adapter; `None` also where there is no larger size."""
    unspent: int | None = None
    """What is left of the budget, in its unit."""
    adam_bytes: int | None = None
    """Bytes of Adam's state at this size, two float32 moments for each scalar."""
    file_bytes: int | None = None
    """Bytes of the saved adapter's tensors, in float32, as `file_bytes` counts them."""
    smallest_cost: int | None = None
    """What the family's smallest adapter costs, in the unit of the budget."""
    not_applicable: str | None = None
    """The reason for a refusal."""


def plan(projections: Sequence[Projection], budget: int, cost: Cost = count) -> list[Offer]:
    """Find every family's largest adapter at or under a budget over all target modules.

    Args:
        projections: the target modules, as `cpadapt.load_projections` or a backbone gives them.
        budget: in the unit of `cost`, by default trainable scalars.
        cost: `count`, `file_bytes` or `adam_bytes`.

    Raises:
        InputError: the budget is negative or absurd, or there are no projections.
    """
    return [_offer(name, projections, budget, cost) for name in FAMILIES]


def _offer(name: str, projections: Sequence[Projection], budget: int, cost: Cost) -> Offer:
    reason = refusal(name, projections)
    if reason is not None:
        return Offer(name, not_applicable=reason)
    size = largest_size(name, projections, budget, cost=cost)
    return Offer(
        family=name,
        size=size,
        parameters=count(name, projections, size),
        step=step(name, projections, size=size),
        unspent=budget - cost(name, projections, size),
        adam_bytes=adam_bytes(name, projections, size),
        file_bytes=file_bytes(name, projections, size),
        smallest_cost=cost(name, projections, smallest(name)),
    )


def rows(offers: Sequence[Offer]) -> list[dict[str, Any]]:
    """Offers as rows of a table, with a column "not applicable" only if a family refuses."""
    return _with_reasons([asdict(offer) for offer in offers])


def step_rows(projection: Projection) -> list[dict[str, Any]]:
    """Every family's step on one projection as rows of a table, with the same last column."""
    found = []
    for name in FAMILIES:
        reason = refusal(name, [projection])
        price = step(name, [projection]) if reason is None else None
        found.append({"family": name, "step": price, "not_applicable": reason})
    return _with_reasons(found)


def _with_reasons(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    reasons = [row.pop("not_applicable") for row in found]
    if any(reasons):
        for row, reason in zip(found, reasons, strict=True):
            row["not applicable"] = reason
    return found


def _by_shape(projections: Sequence[Projection]) -> Counter[tuple[int, int]]:
    return Counter((p.out_features, p.in_features) for p in projections)
