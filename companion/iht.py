"""Tensor iterative hard thresholding: a tensor of few CP components from linear measurements, or from some entries.

Each iteration takes a step of gradient descent, then the nearest CP tensor of a given number of components (Grotheer
and others, "Iterative hard thresholding for low CP-rank tensor models", arXiv 1908.08479, 2019)::

    W = X + μ Aᵀ(y − A X),     X ← the nearest CP tensor to W     (`cpadapt.approximation.nearest_cp`)

In completion the measurements are entries of the tensor, which the gradient step overwrites in W, so that it has no μ.
Here many tensors are recovered at once, along a leading axis.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from cpadapt.approximation import CPTensors, nearest_cp
from cpadapt.errors import InputError

MU = 0.5
"""The step, as in the paper's scripts."""

SWEEPS = 50
"""The most of each search for the nearest tensor. It starts from the tensor before and once at random."""


class Recovery(NamedTuple):
    """What iterative hard thresholding ends with."""

    components: CPTensors
    """The last iterate."""
    errors: Tensor
    """`[tensors, iterations]`: ‖X − truth‖, of Frobenius norms, after each iteration."""


def recover(
    measurements: Tensor,
    operators: Tensor,
    truth: Tensor,
    components: int,
    iterations: int,
    generator: torch.Generator,
) -> Recovery:
    """Recover tensors from linear measurements, from standard normal starts.

    Args:
        measurements: `[tensors, measurements]`, y.
        operators: `[tensors, measurements, entries]`, A; or one for all, `[1, measurements, entries]`.
        truth: `[tensors, *modes]`, float64, only to know the errors.
        components: of the CP tensors.
        iterations: how many.
        generator: of the starts.

    Raises:
        InputError: shapes do not fit together, or as `nearest_cp`.
    """
    entries = truth[0].numel()
    if operators.shape[-1] != entries or operators.shape[1] != measurements.shape[1]:
        raise InputError(
            f"operators of shape {tuple(operators.shape)} don't measure tensors of {entries} entries"
            f" {measurements.shape[1]} times"
        )

    def step(x: Tensor) -> Tensor:
        residuals = measurements[..., None] - operators @ x.flatten(1)[..., None]
        return x + MU * (operators.mT @ residuals).view_as(x)

    start = torch.randn(truth.shape, generator=generator, dtype=truth.dtype)
    return _iterate(step, start, truth, components, iterations, generator)


def complete(
    entries: Tensor, known: Tensor, truth: Tensor, components: int, iterations: int, generator: torch.Generator
) -> Recovery:
    """Complete tensors of which some entries are known, from zero.

    Args:
        entries: `[tensors, *modes]`, y where `known`, anything elsewhere.
        known: `[tensors, *modes]`, boolean.
        truth: `[tensors, *modes]`, float64, only to know the errors.
        components: of the CP tensors.
        iterations: how many.
        generator: of the searches' random starts.

    Raises:
        InputError: as `nearest_cp`.
    """

    def step(x: Tensor) -> Tensor:
        return torch.where(known, entries, x)

    return _iterate(step, torch.zeros_like(truth), truth, components, iterations, generator)


def _iterate(
    step: Callable[[Tensor], Tensor],
    x: Tensor,
    truth: Tensor,
    components: int,
    iterations: int,
    generator: torch.Generator,
) -> Recovery:
    found: CPTensors | None = None
    errors = []
    for _ in range(iterations):
        found = nearest_cp(step(x), components, generator=generator, start=found, restarts=1, sweeps=SWEEPS)
        x = found.dense()
        errors.append((x - truth).flatten(1).norm(dim=1))
    if found is None:
        raise InputError("iterations must be 1 or more")
    return Recovery(found, torch.stack(errors, 1))
