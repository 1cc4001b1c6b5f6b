"""MELoRA: mini-LoRAs on a block diagonal (Ren et al. 2024, arXiv 2402.17263).

The input is cut into n equal slices and the output likewise. The i-th mini is a LoRA of rank rᵢ from the i-th slice to
the i-th::

    ΔW = scale · blockdiag(B₁A₁, …, BₙAₙ),   Bᵢ: [out/n, rᵢ],   Aᵢ: [rᵢ, in/n],   scale = αᵢ / rᵢ

The size is Σ rᵢ, which bounds the matrix rank, and a unit costs (out + in)/n scalars. It need not be a multiple of n:
units are dealt to the minis in turn, so unit k, counted from 0, belongs to mini k mod n, and the first (size mod n)
minis have one rank more than the others. Every mini has a rank, as in the paper, so the smallest size is n; with equal
ranks r, at size n·r, the scalars are as many as those of LoRA of rank r. Sides that n does not divide are refused.

The pair has one column for each unit: `up` has the unit's vector in the rows of its mini and zeros elsewhere, and
`down` likewise. With one mini it is LoRA.

=======================  ======  ===============
symbol                   tensor  shape
=======================  ======  ===============
columns of the Bᵢ        `up`    `[size, out/n]`
rows of the Aᵢ           `down`  `[size, in/n]`
=======================  ======  ===============
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cpadapt.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TITLE = "MELoRA"
COLOUR = "#CC79A7"
LEARNING_RATE = 4e-4  # with scale and minis, as the authors' scripts for GLUE have it
SCALE = 2.0
SHAPE_OPTIONS: Mapping[str, Any] = {"minis": 2}
INIT_OPTIONS: Mapping[str, Any] = {}
DECAY_OPTIONS: Mapping[str, str] = {}
SEPARATE_UNITS = False  # A unit's place among an adapter's units says which mini it belongs to.
SAVED_AS_TRAINED = False


def accepts(out_features: int, in_features: int, *, minis: int = 2) -> str | None:
    """A projection is accepted if the number of minis divides both sides.

    Raises:
        InputError: `minis` is not a positive integer.
    """
    smallest(minis=minis)
    return f"{minis} minis do not divide both sides" if math.gcd(out_features, in_features) % minis else None


def smallest(*, minis: int = 2) -> int:
    """A rank for each mini.

    Raises:
        InputError: `minis` is not a positive integer.
    """
    if type(minis) is not int or minis < 1:
        raise InputError(f"minis, the number of MELoRA's mini-LoRAs, must be a positive integer, not {minis!r}")
    return minis


def shapes(out_features: int, in_features: int, size: int, *, minis: int = 2) -> dict[str, tuple[int, ...]]:
    """Name and shape of the trainable tensors of one projection.

    Raises:
        InputError: `size` is below `minis`, or `minis` is not a positive integer.
    """
    if size < smallest(minis=minis):
        raise InputError(
            f"the size of MELoRA, the sum of its ranks, must be {minis} or more for {minis} minis, not {size}"
        )
    return {"up": (size, out_features // minis), "down": (size, in_features // minis)}


def columns(size: int, *, minis: int = 2) -> int:
    """One column of the pair for each unit."""
    return size


def init(
    generator: torch.Generator, out_features: int, in_features: int, size: int, *, minis: int = 2
) -> dict[str, Tensor]:
    """Draw one projection's minis as LoRA is drawn: Aᵢ uniform in ±1/√(in/n), Bᵢ zero, a no-op at the start.

    Raises:
        InputError: as `shapes`.
    """
    import torch

    drawn = shapes(out_features, in_features, size, minis=minis)
    bound = 1 / math.sqrt(drawn["down"][-1])
    down = torch.empty(drawn["down"]).uniform_(-bound, bound, generator=generator)
    return {"up": torch.zeros(drawn["up"]), "down": down}


def factors(params: dict[str, Tensor], *, minis: int = 2) -> tuple[Tensor, Tensor]:
    """Make the pair: `up` `[*leading, out, size]` and `down` `[*leading, size, in]`, zero outside the minis."""
    return _placed(params["up"], minis).mT, _placed(params["down"], minis)


def _placed(vectors: Tensor, minis: int) -> Tensor:
    """Each unit's vector, `[*leading, size, part]`, in the slice of its mini: `[*leading, size, minis · part]`."""
    import torch

    units, slices = (torch.arange(length, device=vectors.device) for length in (vectors.shape[-2], minis))
    placed: Tensor = torch.where((units[:, None] % minis == slices)[..., None], vectors.unsqueeze(-2), 0.0)
    return placed.flatten(-2)
