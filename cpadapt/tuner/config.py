"""The configuration of a CP adapter in PEFT."""

import re
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from peft.config import PeftConfig

from cpadapt.errors import InputError, is_number
from cpadapt.families import cp
from cpadapt.tuner import files
from cpadapt.tuner.registry import CONFIG_TYPE, CPType


@dataclass
class CPConfig(PeftConfig):  # type: ignore[misc]  # PEFT is untyped
    """The configuration of a CP adapter (arXiv 2606.00428), used like PEFT's `LoraConfig`.

    The update of a projection is a sum of `num_components` outer products over the modes of its two sides, see
    `cpadapt.families.cp`. Loading restores what was saved: integers and tuples, not JSON's strings and lists.

    Args:
        num_components: components c of each adapted projection, which has (Σ modes + 1) · c trainable scalars.
        tensor_shape: modes by dimension, such as `{2048: (32, 64)}`. Other dimensions are split nearest to a
            square; a prime is one mode.
        components_pattern: sizes of single projections, by name, name ending or regular expression, such as
            `{"v_proj": 8}`; the first that fits counts, as in LoRA's `rank_pattern`.
        scale: the factor in front of the update.
        init: `"zero"` starts with λ = 0 and no effect, `"normal"` draws λ from a normal distribution.
        init_std: its standard deviation; by default 1/c.
        raw_norm: initial length of the raw vectors. They act as unit vectors, so the length sets their learning rate.
        seed: draw the adapter from a generator of its own with this seed. By default torch's global random state
            decides, as in PEFT: what was drawn before changes the adapter.
        target_modules: which `nn.Linear` and `Conv1D` to adapt: a list of names or name endings, a regular
            expression, or `"all-linear"`; by default what PEFT adapts with LoRA on the architecture.
        exclude_modules: which of these to leave out: names, name endings or a regular expression.
        modules_to_save: modules to train and save in full, such as a new head.
        layers_to_transform: adapt only the layers with these indices, and what `target_modules` names in full; not
            with a regular expression.
        layers_pattern: the name of the list of layers, if it is not one of the common names.

    Raises:
        InputError: a value is not valid; the message says which and what would be right.
    """

    num_components: int = field(kw_only=True)
    tensor_shape: dict[int, tuple[int, ...]] | None = None
    components_pattern: dict[str, int] = field(default_factory=dict)
    scale: float = cp.SCALE
    init: Literal["zero", "normal"] = "zero"
    init_std: float | None = None
    raw_norm: float = 1.0
    seed: int | None = None
    target_modules: list[str] | set[str] | str | None = None
    exclude_modules: list[str] | set[str] | str | None = None
    modules_to_save: list[str] | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None

    def __post_init__(self) -> None:
        # In a file the type was "CP" when the tensors had other names, and is `CONFIG_TYPE` now.
        saved_as = vars(self)["peft_type"]
        self.has_former_names = type(saved_as) is str and saved_as == CPType.CP and bool(self.peft_version)
        try:
            super().__post_init__()
        except ValueError as error:  # a task type that PEFT does not know
            raise InputError(str(error)) from None
        self.peft_type = CPType.CP
        _check_size("num_components", self.num_components)
        _check_names(self)
        # Empty is not given.
        if not isinstance(self.components_pattern or {}, dict):
            raise InputError(f"components_pattern must map names to sizes, not {self.components_pattern!r}")
        self.components_pattern = dict(self.components_pattern or {})
        for pattern, size in self.components_pattern.items():
            _check_expression("components_pattern", pattern)
            _check_size(f"components_pattern[{pattern!r}]", size)
        if self.seed is not None and (isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0):
            raise InputError(f"seed must be a non-negative integer or None, not {self.seed!r}")
        for name in ("scale", "raw_norm", *(() if self.init_std is None else ("init_std",))):
            value = getattr(self, name)
            if not is_number(value) or value <= 0:
                raise InputError(f"{name} must be a positive number, not {value!r}")
        # The family checks its own knobs, on the smallest projection there is.
        cp.init(torch.Generator(), 1, 1, 1, init=self.init, raw_norm=self.raw_norm, init_std=self.init_std)
        self.tensor_shape = _tensor_shape(self.tensor_shape)
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)
        if self.layers_to_transform == []:
            self.layers_to_transform = None
        self.layers_pattern = self.layers_pattern or None
        if self.layers_pattern is not None and self.layers_to_transform is None:
            raise InputError(
                f"layers_pattern={self.layers_pattern!r} needs layers_to_transform, which names no layers"
            )
        targets = self.target_modules
        if isinstance(targets, str) and targets.lower() != "all-linear" and self.layers_to_transform is not None:
            raise InputError(
                f"layers_to_transform={self.layers_to_transform} needs a list of target_modules or 'all-linear'; write"
                f" the layers into the regular expression target_modules={targets!r} instead"
            )

    def to_dict(self) -> dict[str, Any]:
        """The fields, as they are saved: with a type that says that loading needs cpadapt."""
        fields: dict[str, Any] = super().to_dict()
        return fields | {"peft_type": CONFIG_TYPE}

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """Write `adapter_config.json`, and have the rest of the adapter's folder say that loading needs cpadapt."""
        super().save_pretrained(save_directory, **kwargs)
        files.say_what_is_needed(save_directory, self)


def _check_names(config: CPConfig) -> None:
    """Check the fields that say which modules are meant, which PEFT reads only when it looks for them."""
    for name in ("target_modules", "exclude_modules", "layers_pattern", "modules_to_save"):
        given = getattr(config, name)
        if isinstance(given, str) and name != "modules_to_save":
            if given.lower() != "all-linear":
                _check_expression(name, given)
        elif given is not None and not (
            isinstance(given, list | tuple | set) and all(isinstance(entry, str) for entry in given)
        ):
            raise InputError(f"{name} must be a list of names, not {given!r}")
    layers = config.layers_to_transform
    for layer in layers if isinstance(layers, list | tuple) else [] if layers is None else [layers]:
        if isinstance(layer, bool) or not isinstance(layer, int):
            raise InputError(f"layers_to_transform must be an index or a list of them, not {layers!r}")


def _check_expression(name: str, expression: str) -> None:
    try:
        re.compile(expression)
    except (re.error, TypeError) as error:
        raise InputError(f"{name}: {expression!r} is not a valid regular expression: {error}") from None


def _check_size(name: str, size: Any) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InputError(f"{name} must be a positive integer, not {size!r}")


def _tensor_shape(given: Any) -> dict[int, tuple[int, ...]] | None:
    """Convert to integer keys and tuples, also from JSON's strings and lists. The family checks each split."""
    if given is None:
        return None
    split = cp.read_tensor_shape(given)
    for dimension in split:
        cp.modes(dimension, split)
    return split
