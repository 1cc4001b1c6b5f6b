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
orthogonal to it and scales with 1/‖raw‖, so the initial length, `raw_norm`, acts as a hidden learning rate. Each unit
vector loses a degree of freedom: 193 stored scalars on 2048×2048 are 189 free ones. A mode of length 1 would lose its
only one, because its unit vector is 1 or −1 and never moves. No mode has length 1, therefore: a prime side is a single
mode, and a side of 1 has no mode and the vector 1.

Weight decay on λ alone, in addition to the protocol's, is `lambda_decay`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cpadapt.errors import InputError, is_number

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TITLE = "CP"
COLOUR = "#D55E00"
LEARNING_RATE = 2e-4
SCALE = 8.0
SHAPE_OPTIONS: Mapping[str, Any] = {"tensor_shape": None}
INIT_OPTIONS: Mapping[str, Any] = {"init": "zero", "raw_norm": 1.0, "init_std": None}
DECAY_OPTIONS: Mapping[str, str] = {"lambda_decay": "weight"}
SEPARATE_UNITS = True
SAVED_AS_TRAINED = True

TensorShape = Mapping[int, tuple[int, ...]]


def modes(dimension: int, tensor_shape: TensorShape | None = None) -> tuple[int, ...]:
    """The modes that a dimension is split into, each longer than 1.

    Args:
        dimension: features of one side of a projection.
        tensor_shape: modes by dimension, which replace the default. The default is the factor pair nearest to a
            square, the smaller first: 2048 → (32, 64), 576 → (24, 24), 384 → (16, 24), 1009 → (1009,),
            1 → (). A given mode of 1 is left out: (1, 1009) is the same tensor as (1009,).

    Raises:
        InputError: the modes given do not multiply to the dimension.
    """
    if tensor_shape and dimension in tensor_shape:
        split = tuple(tensor_shape[dimension])
        if any(mode < 1 for mode in split) or math.prod(split) != dimension:
            raise InputError(
                f"tensor_shape splits {dimension} into {split}, which multiply to {math.prod(split)};"
                f" give positive modes with product {dimension}"
            )
    else:
        split = nearest_square(dimension)
    return tuple(mode for mode in split if mode > 1)


def read_tensor_shape(given: Any) -> dict[int, tuple[int, ...]]:
    """Read modes by dimension as JSON and TOML have them, with dimensions as text and modes as lists.

    Raises:
        InputError: it is something else. `modes` checks that the modes multiply to the dimension.
    """
    try:
        read = {
            int(dimension) if isinstance(dimension, str) else operator.index(dimension): tuple(
                operator.index(mode) for mode in modes
            )
            for dimension, modes in given.items()
        }
    except (AttributeError, TypeError, ValueError):
        raise InputError(f"tensor_shape = {given!r}: give the modes by dimension, such as {{576: (24, 24)}}") from None
    return read


def nearest_square(dimension: int) -> tuple[int, int]:
    """The factor pair of a dimension that is nearest to a square, the smaller first: 384 → (16, 24), 7 → (1, 7)."""
    smaller = next(d for d in range(math.isqrt(dimension), 0, -1) if dimension % d == 0)
    return smaller, dimension // smaller


def accepts(out_features: int, in_features: int, *, tensor_shape: TensorShape | None = None) -> str | None:
    """Every projection is accepted."""
    return None


def smallest(*, tensor_shape: TensorShape | None = None) -> int:
    """One component."""
    return 1


def shapes(
    out_features: int,
    in_features: int,
    size: int,
    *,
    tensor_shape: TensorShape | None = None,
) -> dict[str, tuple[int, ...]]:
    """Name and shape of the trainable tensors of one projection.

    Raises:
        InputError: `size` is not positive or exceeds out·in; or as `modes`.
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


def columns(size: int, *, tensor_shape: TensorShape | None = None) -> int:
    """One column of the pair for each component."""
    return size


def init(
    generator: torch.Generator,
    out_features: int,
    in_features: int,
    size: int,
    *,
    tensor_shape: TensorShape | None = None,
    init: str = "zero",
    raw_norm: float = 1.0,
    init_std: float | None = None,
) -> dict[str, Tensor]:
    """Draw one projection's raw vectors, normal in direction and `raw_norm` long, and its weights λ.

    `"zero"` sets λ = 0: the adapter is a no-op at the start, and in the first step only λ gets a gradient. `"normal"`
    draws λ from a normal distribution with standard deviation `init_std`, by default 1/components.

    Raises:
        InputError: as `shapes`; or ``init`` is neither, `raw_norm` or `init_std` is not positive, or `init_std` is
            given with `"zero"`.
    """
    import torch

    if init not in ("zero", "normal"):
        raise InputError(f"the initialisation of CP is 'zero' or 'normal', not {init!r}")
    if not (is_number(raw_norm) and raw_norm > 0):
        raise InputError(f"raw_norm, the initial length of CP's raw vectors, must be positive, not {raw_norm!r}")
    if init_std is not None and init != "normal":
        raise InputError(f"init_std = {init_std} is for init = 'normal'; with {init!r} CP's λ start at 0")
    if init_std is not None and not (is_number(init_std) and init_std > 0):
        raise InputError(f"init_std, the standard deviation of CP's initial λ, must be positive, not {init_std!r}")
    params = {}
    for name, shape in shapes(out_features, in_features, size, tensor_shape=tensor_shape).items():
        drawn = torch.randn(shape, generator=generator)
        if name != "weight":
            params[name] = _unit(drawn) * raw_norm
        elif init == "zero":
            params[name] = torch.zeros(shape)
        else:
            params[name] = drawn / size if init_std is None else drawn * init_std
    return params


def factors(params: dict[str, Tensor], *, tensor_shape: TensorShape | None = None) -> tuple[Tensor, Tensor]:
    """Make the pair: `up` `[*leading, out, components]`, weighted by λ, and `down` `[*leading, components, in]`.

    The split of each side follows from the tensors.
    """
    weight = params["weight"].unsqueeze(-1)
    up = [_unit(params[name]) for name in _ordered(params, "up_")]
    down = [_unit(params[name]) for name in _ordered(params, "down_")]
    # λ multiplies one short vector, so that backward keeps no second tensor as long as the product.
    up[:1] = [up[0] * weight] if up else [weight]
    return _khatri_rao(up).mT, _khatri_rao(down or [weight.new_ones(weight.shape)])


def _unit(raw: Tensor) -> Tensor:
    """Vectors along the last axis made unit length; a vector of length zero stays, with a gradient of usual size."""
    norm = raw.norm(2.0, -1, keepdim=True)
    unit: Tensor = raw / norm.masked_fill(norm <= 1e-12, 1.0).expand_as(raw)
    return unit


def _ordered(params: dict[str, Tensor], prefix: str) -> list[str]:
    return sorted((n for n in params if n.startswith(prefix)), key=lambda n: int(n.removeprefix(prefix)))


def _khatri_rao(vectors: list[Tensor]) -> Tensor:
    """Outer product of the modes' vectors, component by component; the last mode varies fastest.

    Args:
        vectors: `[*leading, components, mode]`, one tensor a mode.

    Returns:
        `[*leading, components, features]`.
    """
    product = vectors[0]
    for further in vectors[1:]:
        product = (product.unsqueeze(-1) * further.unsqueeze(-2)).flatten(-2)
    return product
