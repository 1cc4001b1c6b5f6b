"""CP: a projection's update as a canonical polyadic tensor (arXiv 2606.00428).

With out = o₁·o₂ and in = i₁·i₂ (any number of modes a side), the update is read as a tensor over all modes and
written as a sum of outer products, its components::

    ΔW = scale · Σ_s λ_s · (u₁ₛ ⊗ u₂ₛ)(v₁ₛ ⊗ v₂ₛ)ᵀ,     u = raw / ‖raw‖ for every vector

so that, with ⊙ the column-wise Khatri–Rao product::

    up = (U₁ ⊙ U₂) · diag(λ)   [out, components],     down = (V₁ ⊙ V₂)ᵀ   [components, in].

===============  =====================  ===================
symbol           tensor                 shape
===============  =====================  ===================
raw u₁ₛ, u₂ₛ, …  `up_0`, `up_1`, …      `[components, o_m]`
raw v₁ₛ, v₂ₛ, …  `down_0`, `down_1`, …  `[components, i_m]`
λₛ               `weight`               `[components]`
===============  =====================  ===================

Raw vectors are stored and made unit length in every forward pass. The gradient of a raw vector is therefore
orthogonal to it and scales with 1/‖raw‖: their initial length, `raw_norm`, is a learning-rate knob that does not look
like one. Each unit vector loses a degree of freedom: 193 stored scalars on 2048×2048 are 189 free ones.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cpadapt.errors import InputError

LEARNING_RATE = 2e-4
SCALE = 8.0
SHAPE_OPTIONS: Mapping[str, Any] = {"tensor_shape": None}
INIT_OPTIONS: Mapping[str, Any] = {"init": "zero", "raw_norm": 1.0}

TensorShape = Mapping[int, tuple[int, ...]]


def modes(dimension: int, tensor_shape: TensorShape | None = None) -> tuple[int, ...]:
    """The modes that a dimension is split into.

    Args:
        dimension: features of one side of a projection.
        tensor_shape: modes by dimension, for those where the default is not wanted. The default is the factor pair
            nearest to a square, the smaller first: 2048 → (32, 64), 576 → (24, 24), 384 → (16, 24).

    Raises:
        InputError: the modes given do not multiply to the dimension, or the dimension is prime (it has no factor
            pair) and no modes are given.
    """
    if tensor_shape and dimension in tensor_shape:
        given = tuple(tensor_shape[dimension])
        if not given or any(mode < 1 for mode in given) or math.prod(given) != dimension:
            raise InputError(
                f"tensor_shape splits {dimension} into {given}, which multiply to {math.prod(given)};"
                f" give positive modes with product {dimension}"
            )
        return given
    smaller = next(d for d in range(math.isqrt(dimension), 0, -1) if dimension % d == 0)
    if smaller == 1 and dimension > 1:
        raise InputError(
            f"dimension {dimension} is prime and cannot be split into two modes;"
            f" pass tensor_shape={{{dimension}: ({dimension},)}} to keep it as one"
        )
    return smaller, dimension // smaller


def shapes(
    out_features: int,
    in_features: int,
    size: int,
    *,
    tensor_shape: TensorShape | None = None,
) -> dict[str, tuple[int, ...]]:
    """Name and shape of the trainable tensors of one projection.

    Raises:
        InputError: `size` is not a positive integer, or is above out·in, or a dimension cannot be split.
    """
    if size < 1:
        raise InputError(f"the number of CP components must be a positive integer, not {size}")
    if size > out_features * in_features:
        raise InputError(
            f"{size} CP components are more than a {out_features}x{in_features} projection has entries;"
            f" at most {out_features * in_features}"
        )
    tensors: dict[str, tuple[int, ...]] = {}
    for m, mode in enumerate(modes(out_features, tensor_shape)):
        tensors[f"up_{m}"] = (size, mode)
    for m, mode in enumerate(modes(in_features, tensor_shape)):
        tensors[f"down_{m}"] = (size, mode)
    tensors["weight"] = (size,)
    return tensors


def count(
    out_features: int,
    in_features: int,
    size: int,
    *,
    tensor_shape: TensorShape | None = None,
) -> int:
    """Trainable scalars of one projection: (Σ modes + 1) · components."""
    tensors = shapes(out_features, in_features, size, tensor_shape=tensor_shape)
    return sum(math.prod(shape) for shape in tensors.values())


def step(out_features: int, in_features: int, *, tensor_shape: TensorShape | None = None) -> int:
    """Trainable scalars of one more component: Σ modes + 1 (193 for 2048×2048 as 32·64×32·64)."""
    return count(out_features, in_features, 1, tensor_shape=tensor_shape)


def init(
    generator: torch.Generator,
    out_features: int,
    in_features: int,
    size: int,
    *,
    tensor_shape: TensorShape | None = None,
    init: str = "zero",
    raw_norm: float = 1.0,
) -> dict[str, Tensor]:
    """Draw one projection's raw vectors, normal in direction and `raw_norm` long, and its weights λ.

    `"zero"` sets λ = 0: the adapter is a no-op at the start, and in the first step only λ gets a gradient. `"normal"`
    draws λ from N(0, 1)/components.

    Raises:
        InputError: as `shapes`; or ``init`` is neither, or `raw_norm` is not positive.
    """
    if init not in ("zero", "normal"):
        raise InputError(f"the initialisation of CP is 'zero' or 'normal', not {init!r}")
    if not raw_norm > 0:
        raise InputError(f"raw_norm, the initial length of CP's raw vectors, must be positive, not {raw_norm}")
    params = {}
    for name, shape in shapes(out_features, in_features, size, tensor_shape=tensor_shape).items():
        drawn = torch.randn(shape, generator=generator)
        if name != "weight":
            params[name] = F.normalize(drawn, dim=-1) * raw_norm
        elif init == "zero":
            params[name] = torch.zeros(shape)
        else:
            params[name] = drawn / size
    return params


def factors(
    params: dict[str, Tensor],
) -> tuple[Float[Tensor, "*leading out components"], Float[Tensor, "*leading components inp"]]:
    """Make the pair: `up` `[*leading, out, components]`, weighted by λ, and `down` `[*leading, components, in]`."""
    up = [F.normalize(params[name], dim=-1) for name in _ordered(params, "up_")]
    down = [F.normalize(params[name], dim=-1) for name in _ordered(params, "down_")]
    # On one short vector, so that backward keeps no second tensor as long as the product.
    up[0] = up[0] * params["weight"].unsqueeze(-1)
    return _khatri_rao(up).mT, _khatri_rao(down)


def _ordered(params: dict[str, Tensor], prefix: str) -> list[str]:
    return sorted((n for n in params if n.startswith(prefix)), key=lambda n: int(n.removeprefix(prefix)))


def _khatri_rao(vectors: list[Tensor]) -> Float[Tensor, "*leading components features"]:
    """Outer product of the modes' vectors, component by component; the last mode varies fastest."""
    product = vectors[0]
    for further in vectors[1:]:
        product = (product.unsqueeze(-1) * further.unsqueeze(-2)).flatten(-2)
    return product
