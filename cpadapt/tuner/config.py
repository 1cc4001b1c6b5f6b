"""The configuration of a CP adapter in PEFT."""

import math
import operator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from peft.config import PeftConfig

from cpadapt.errors import InputError
from cpadapt.families import cp
from cpadapt.tuner.registry import CPType


@dataclass
class CPConfig(PeftConfig):  # type: ignore[misc]  # PEFT is untyped
    """What a CP adapter is made of (arXiv 2606.00428); used as PEFT's `LoraConfig` is.

    A projection's update is a sum of `num_components` outer products over the modes of its two sides, see
    `cpadapt.families.cp`. Loading gives back what was saved: integers and tuples, not JSON's
    strings and lists.

    Args:
        num_components: components of every adapted projection, c: (Σ modes + 1) · c trainable scalars each.
        tensor_shape: modes by dimension, `{2048: (32, 64)}`; the others are split nearest to a square, and a prime is
            one mode.
        scale: the factor in front of the update.
        init: `"zero"` starts as a no-op with λ = 0, `"normal"` draws λ from N(0, 1)/c.
        raw_norm: initial length of the raw vectors, which act as unit vectors: a learning-rate knob.
        target_modules: which `nn.Linear` and `Conv1D` to adapt: a list of names or name endings, a regular
            expression, or `"all-linear"`; by default what PEFT adapts with LoRA on the architecture.
        exclude_modules: which of these to leave out: names, name endings or a regular expression.
        modules_to_save: modules trained and saved whole, such as a new head.
        layers_to_transform: adapt only in the layers with these indices.
        layers_pattern: what the list of layers is called, where that is not one of the common names.

    Raises:
        InputError: a value that cannot be; the message says which and what would be right.
    """

    num_components: int = field(kw_only=True)
    tensor_shape: dict[int, tuple[int, ...]] | None = None
    scale: float = cp.SCALE
    init: Literal["zero", "normal"] = "zero"
    raw_norm: float = 1.0
    target_modules: list[str] | set[str] | str | None = None
    exclude_modules: list[str] | set[str] | str | None = None
    modules_to_save: list[str] | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = CPType.CP
        if isinstance(self.num_components, bool) or not isinstance(self.num_components, int):
            raise InputError(f"num_components must be a positive integer, not {self.num_components!r}")
        if self.num_components < 1:
            raise InputError(f"num_components must be a positive integer, not {self.num_components}")
        for name in ("scale", "raw_norm"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
                raise InputError(f"{name} must be a positive number, not {value!r}")
        # The family checks its own knobs, on the smallest projection there is.
        cp.init(torch.Generator(), 1, 1, 1, init=self.init, raw_norm=self.raw_norm)
        self.tensor_shape = _tensor_shape(self.tensor_shape)
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)
        if isinstance(self.layers_to_transform, int):
            self.layers_to_transform = [self.layers_to_transform]
        if self.layers_pattern is not None and not self.layers_to_transform:
            raise InputError(
                f"layers_pattern={self.layers_pattern!r} says where to count layers, but layers_to_transform"
                " names none"
            )
        if isinstance(self.target_modules, str) and self.layers_to_transform is not None:
            raise InputError(
                f"layers_to_transform={self.layers_to_transform} picks among listed modules; with the regular"
                f" expression target_modules={self.target_modules!r} write the layers into the expression"
            )


def _tensor_shape(given: Any) -> dict[int, tuple[int, ...]] | None:
    """Integer keys and tuples, also from JSON's strings and lists; each split checked by the family."""
    if given is None:
        return None
    try:
        split = {
            int(dimension) if isinstance(dimension, str) else operator.index(dimension): tuple(
                operator.index(mode) for mode in modes
            )
            for dimension, modes in given.items()
        }
    except (AttributeError, TypeError, ValueError):
        raise InputError(
            f"tensor_shape maps dimensions to their modes, as {{2048: (32, 64)}}, and cannot be {given!r}"
        ) from None
    for dimension in split:
        cp.modes(dimension, split)
    return split
