"""The nearest adapters to given updates: CP by alternating least squares, low rank by a singular value decomposition.

An update ΔW of out×in is a tensor over the modes of both sides (`cpadapt.families.cp`). The best matrix of a rank is
known exactly (Eckart and Young 1936). The best CP tensor of c components isn't, so a search is started from several
places, and `unreachable` bounds from below what any c components must leave.

Alternating least squares (Kolda and Bader, "Tensor Decompositions and Applications", SIAM Review 51, 2009, section
3.4) solves for one mode's vectors A with all others F held fixed::

    A ← (Γ + εI)⁻¹ (M + εA),     Γ = ∗ F Fᵀ over the other modes,     M = X₍ₘ₎ ⊙ F over the other modes

The small ε (`DAMPING`) keeps the system solvable where components grow alike; a fixed point is the same for any ε (Li,
Kindermann and Navasca, "Some convergence results on the regularized alternating least-squares method", Linear Algebra
and its Applications 438, 2013). Many tensors of one shape are decomposed at once, along a leading axis.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cpadapt.errors import InputError
from cpadapt.families import counting, cp, family
from cpadapt.inputs.backbones.specs import Projection

DAMPING = 1e-9
"""ε, beside a Γ whose diagonal is 1."""

SWEEPS, TOLERANCE, RESTARTS = 500, 1e-7, 2
"""Bounds of a search: sweeps over all modes; the share of ‖X‖² by which `CHECK_EVERY` sweeps must lower the squared
error, or else it ends; random starts, besides a given one."""

CHECK_EVERY = 10

Adapter = Mapping[str, Mapping[str, Tensor]]
"""A family's tensors by name, by module."""

Updates = Mapping[str, Tensor]
"""ΔW by module, `[out, in]`."""


class CPTensors(NamedTuple):
    """A sum of weighted outer products of unit vectors, for each of several tensors."""

    weights: Tensor
    """`[tensors, components]`"""
    factors: tuple[Tensor, ...]
    """One a mode, `[tensors, components, mode]`, each vector of length 1."""

    def dense(self) -> Tensor:
        """`[tensors, *modes]`"""
        first, *others = self.factors
        product = _khatri_rao([first * self.weights[..., None], *others[:-1]]).mT @ others[-1]
        dense: Tensor = product.unflatten(1, [factor.shape[-1] for factor in self.factors[:-1]])
        return dense


def nearest_cp(
    tensors: Tensor,
    components: int,
    *,
    generator: torch.Generator,
    start: CPTensors | None = None,
    restarts: int = RESTARTS,
    sweeps: int = SWEEPS,
    tolerance: float = TOLERANCE,
) -> CPTensors:
    """The CP tensors of so many components that a search finds nearest to the given ones in the Frobenius norm.

    Args:
        tensors: `[tensors, *modes]`, two modes or more, floating.
        components: of each.
        generator: on the CPU, draws the random starts.
        start: from where to search as well.
        restarts: random starts, of whose results each tensor takes its best.
        sweeps: the most of one search.
        tolerance: as `TOLERANCE`.

    Raises:
        InputError: there are no components, fewer than two modes, or nowhere to start from.
    """
    if components < 1:
        raise InputError(f"the number of CP components must be a positive integer, not {components}")
    if tensors.dim() < 3:
        raise InputError(f"a CP tensor has two modes or more, not {tensors.dim() - 1}")
    if restarts < 1 and start is None:
        raise InputError("the search has no start: give restarts of 1 or more, or a start")
    # Scaled, so that ε and the tolerance mean the same for all; a tensor of zeros stays.
    length = tensors.flatten(1).norm(dim=1)
    unit = tensors / torch.where(length > 0, length, 1.0).view(-1, *[1] * (tensors.dim() - 1))
    starts = [] if start is None else [start.factors]
    starts += [_random(unit, components, generator) for _ in range(restarts)]
    found = [_search(unit, factors, sweeps, tolerance) for factors in starts]
    best = torch.stack([error for _, error in found]).argmin(0)
    weights, *factors = (
        torch.stack(parts)[best, torch.arange(len(best), device=best.device)]
        for parts in zip(*((each.weights, *each.factors) for each, _ in found), strict=True)
    )
    return CPTensors(weights * length[:, None], tuple(factors))


def _random(tensors: Tensor, components: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    return tuple(
        _unit(torch.randn(len(tensors), components, mode, generator=generator, dtype=tensors.dtype))[0].to(tensors)
        for mode in tensors.shape[1:]
    )


def _search(tensors: Tensor, start: Sequence[Tensor], sweeps: int, tolerance: float) -> tuple[CPTensors, Tensor]:
    """Sweep over the modes from one start. Returns also `[tensors]`, the squared errors."""
    modes, factors = tensors.shape[1:], list(start)
    # All but the two products with the whole tensors is cheap: each serves all modes of one half.
    half = len(modes) // 2
    matrices = tensors.flatten(1, half).flatten(2)
    halves = ((range(half), matrices.mT), (range(half, len(modes)), matrices))
    norms = matrices.square().sum((1, 2))
    grams = [factor @ factor.mT for factor in factors]
    weights = torch.zeros_like(factors[0][..., 0])
    damping = DAMPING * torch.eye(weights.shape[1], dtype=tensors.dtype, device=tensors.device)
    before = torch.full_like(norms, math.inf)
    for sweep in range(1, sweeps + 1):
        for own, matrix in halves:
            fixed = [factor for mode, factor in enumerate(factors) if mode not in own]
            projected = _khatri_rao(fixed) @ matrix
            for mode in own:
                earlier, later = factors[own.start : mode], factors[mode + 1 : own.stop]
                target = projected.unflatten(2, (_size(earlier), modes[mode], _size(later)))
                if earlier:
                    target = (target * _khatri_rao(earlier)[..., None, None]).sum(2, keepdim=True)
                if later:
                    target = (target * _khatri_rao(later)[:, :, None, None]).sum(4, keepdim=True)
                target = target.flatten(2)
                gram = math.prod(grams[:mode] + grams[mode + 1 :], start=torch.ones_like(damping))
                damped = target + DAMPING * weights[..., None] * factors[mode]
                solved = torch.linalg.solve(gram + damping, damped)
                factors[mode], weights = _unit(solved)
                grams[mode] = factors[mode] @ factors[mode].mT
        if sweep % CHECK_EVERY == 0 or sweep == sweeps:
            error = norms + ((gram @ solved - 2 * target) * solved).sum((1, 2))
            if bool((before - error <= tolerance * norms).all()):
                break
            before = error
    return CPTensors(weights, tuple(factors)), error


def _size(factors: Sequence[Tensor]) -> int:
    return math.prod(factor.shape[-1] for factor in factors)


def _unit(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors along the last axis made unit length, and their lengths; a vector of zeros stays."""
    length = vectors.norm(dim=-1)
    return vectors / torch.where(length > 0, length, 1.0)[..., None], length


def _khatri_rao(vectors: Sequence[Tensor]) -> Tensor:
    """`[tensors, components, features]`: the outer products of the modes' vectors, the last mode fastest."""
    product = vectors[0]
    for further in vectors[1:]:
        product = (product[..., None] * further[..., None, :]).flatten(-2)
    return product


def spectra(tensors: Tensor) -> tuple[Tensor, ...]:
    """The squared singular values, largest first, of every matrix that two parts of the modes make of a tensor.

    A matrix's two sides of two modes each are divided in seven ways: the matrix itself, its two rearrangements of Van
    Loan and Pitsianis, which mix the sides, and each mode against the rest.

    Args:
        tensors: `[tensors, *modes]`.

    Returns:
        One a division, `[tensors, rows or columns, whichever are fewer]`.
    """
    modes, found = range(1, tensors.dim()), {}
    for count in range(1, len(modes) // 2 + 1):
        for rows in itertools.combinations(modes, count):
            columns = tuple(mode for mode in modes if mode not in rows)
            if columns not in found:
                matrix = tensors.permute(0, *rows, *columns).flatten(1, count).flatten(2)
                found[rows] = torch.linalg.eigvalsh(_gram(matrix)).flip(-1).clamp(min=0)
    return tuple(found.values())


def unreachable(found: Sequence[Tensor], components: int) -> Tensor:
    """`[tensors]`: any CP tensor of so many components leaves at least this relative error.

    Each of the matrices of `spectra` has at most as high a rank as there are components, and the error of the best
    matrix of that rank is known. The largest of them is the bound, to about 1e-8.

    Args:
        found: what `spectra` gives of the tensors.
        components: of the CP tensors.
    """
    left = [energies[:, components:].sum(1) / energies.sum(1) for energies in found]
    return torch.stack(left).amax(0).nan_to_num(0.0).sqrt()


def _gram(matrices: Tensor) -> Tensor:
    """The products of a matrix's rows, or of its columns if they are fewer."""
    return matrices @ matrices.mT if matrices.shape[1] <= matrices.shape[2] else matrices.mT @ matrices


def updates_of(
    family_name: str, adapter: Adapter, scale: float, shape_options: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """ΔW = scale · up · down of a trained adapter, by module, float64.

    Args:
        family_name: a name in `cpadapt.families.FAMILIES`.
        adapter: the family's tensors for one projection, by module.
        scale: the factor in front of the pair.
        shape_options: the family's options that decide shapes, if they are not the defaults.
    """
    updates = {}
    for module, params in adapter.items():
        doubles = {name: tensor.double() for name, tensor in params.items()}
        up, down = family(family_name).factors(doubles, **(shape_options or {}))
        updates[module] = scale * up @ down
    return updates


def nearest_adapters(
    family_name: str,
    updates: Sequence[Updates],
    size: int,
    scale: float,
    *,
    generator: torch.Generator,
    restarts: int = RESTARTS,
    sweeps: int = SWEEPS,
) -> list[dict[str, dict[str, Tensor]]]:
    """The adapters of one family and size that are found nearest to given updates, projection by projection.

    CP comes from `nearest_cp`, its raw vectors of length 1. LoRA is the nearest there is, with each singular value
    shared equally between its two vectors.

    Args:
        family_name: `cp` or `lora`.
        updates: ΔW by module, of each model to approximate; all have the same modules.
        size: components or rank.
        scale: the factor in front of the pair.
        generator: on the CPU, draws CP's random starts.
        restarts: random starts.
        sweeps: the most of one search.

    Returns:
        For each of `updates` the family's tensors by module, float32, on the device of the updates.

    Raises:
        InputError: the family is another; the modules differ; or there is no adapter of this size.
    """
    if family_name not in _NEAREST:
        raise InputError(f"the nearest adapter is known for {' and '.join(_NEAREST)}, not for {family_name!r}")
    if len({tuple(each) for each in updates}) != 1:
        raise InputError("the updates to approximate must be one or more, all with the same modules in one order")
    adapters: list[dict[str, dict[str, Tensor]]] = [{} for _ in updates]
    for modules in _by_shape(updates[0]).values():
        matrices = torch.stack([each[module] for each in updates for module in modules])
        names = family(family_name).shapes(matrices.shape[1], matrices.shape[2], size)
        params = _NEAREST[family_name](matrices / scale, size, generator, restarts, sweeps)
        for place, (adapter, module) in enumerate(itertools.product(adapters, modules)):
            adapter[module] = {name: params[name][place].float() for name in names}
    return [{module: adapter[module] for module in updates[0]} for adapter in adapters]


def _as_tensors(matrices: Tensor) -> Tensor:
    """`[matrices, *modes]`, over the modes that CP splits both sides into by default."""
    return matrices.reshape(-1, *(mode for side in matrices.shape[1:] for mode in cp.modes(side)))


def _nearest_cp(
    matrices: Tensor, size: int, generator: torch.Generator, restarts: int, sweeps: int
) -> dict[str, Tensor]:
    found = nearest_cp(_as_tensors(matrices), size, generator=generator, restarts=restarts, sweeps=sweeps)
    sides = zip(("up", "down"), matrices.shape[1:], strict=True)
    names = [f"{name}_{m}" for name, side in sides for m in range(len(cp.modes(side)))]
    return {"weight": found.weights, **dict(zip(names, found.factors, strict=True))}


def _nearest_lora(
    matrices: Tensor, size: int, generator: torch.Generator, restarts: int, sweeps: int
) -> dict[str, Tensor]:
    # The singular vectors of the shorter side are the eigenvectors of a symmetric matrix. On a GPU these take a small
    # part of the time of a singular value decomposition.
    wide = matrices.shape[1] <= matrices.shape[2]
    vectors = torch.linalg.eigh(_gram(matrices)).eigenvectors.flip(-1)[..., :size].mT
    others, values = _unit(vectors @ (matrices if wide else matrices.mT))
    roots = values.sqrt()[..., None]
    # A rank above the shorter side has nothing further to hold.
    missing = size - vectors.shape[1]
    short, long = (torch.nn.functional.pad(roots * part, (0, 0, 0, missing)) for part in (vectors, others))
    return {"up": short, "down": long} if wide else {"up": long, "down": short}


_NEAREST = {"cp": _nearest_cp, "lora": _nearest_lora}


def _by_shape(updates: Updates) -> dict[torch.Size, list[str]]:
    found: dict[torch.Size, list[str]] = {}
    for module, update in updates.items():
        found.setdefault(update.shape, []).append(module)
    return found


def bounds(updates: Updates, sizes: Sequence[int]) -> dict[str, dict[int, float]]:
    """By module and number of components, the relative error below which no CP adapter can come (`unreachable`)."""
    found: dict[str, dict[int, float]] = {}
    for modules in _by_shape(updates).values():
        seen = spectra(_as_tensors(torch.stack([updates[module].double() for module in modules])))
        for size in sizes:
            for module, bound in zip(modules, unreachable(seen, size).tolist(), strict=True):
                found.setdefault(module, {})[size] = bound
    return found


@dataclass(frozen=True)
class Fit:
    """How near an adapter comes to the update of one module."""

    module: str
    family: str
    size: int
    scalars: int
    """Of this module's adapter."""
    error: float
    """‖ΔW − approximation‖ / ‖ΔW‖, of Frobenius norms; 0 where ΔW is."""
    spread: float | None
    """√Σλ² / ‖ΔW‖ of CP, else `None`. Far above 1, components cancel each other, and low precision loses what is
    left."""


def fits(
    family_name: str,
    updates: Updates,
    adapter: Adapter,
    scale: float,
    *,
    shape_options: Mapping[str, Any] | None = None,
) -> list[Fit]:
    """One row for each module: how near an adapter comes to its update.

    Args:
        family_name: the adapter's.
        updates: ΔW by module.
        adapter: from `nearest_adapters`, or trained; it has these modules.
        scale: the factor in front of its pair.
        shape_options: the family's options that decide shapes, if they are not the defaults.
    """
    near = updates_of(family_name, adapter, scale, shape_options)
    rows = []
    for module, update in updates.items():
        params = adapter[module]
        size = next(iter(params.values())).shape[0]
        scalars = counting.count(family_name, [Projection(module, *update.shape)], size, shape_options)
        length = update.double().norm()
        left = (update.double() - near[module]).norm()
        error = float((left / length).nan_to_num(0.0))
        spread = float(scale * params["weight"].double().norm() / length) if family_name == "cp" else None
        rows.append(Fit(module, family_name, size, scalars, error, spread))
    return rows
