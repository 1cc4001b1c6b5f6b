"""A projection with CP adapters around it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from peft.utils.quantization_utils import QuantizationBackend
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from cpadapt.errors import InputError
from cpadapt.families import cp
from cpadapt.tuner import calls
from cpadapt.tuner.adapter import CPAdapter, Pair
from cpadapt.tuner.config import CPConfig

BASE_ADAPTER = "__base__"
"""The name that, in a mixed batch, stands for no adapter."""


class CPLayer(BaseTunerLayer):  # type: ignore[misc]  # PEFT is untyped
    """The CP adapters of one projection, by name (arXiv 2606.00428).

    `cp_adapter[name]` is a `CPAdapter`, with the tensors, and `cp_scale[name]` the factor in front of its update now.
    The tensors are float32 for any base layer, unless PEFT was asked for the base layer's type with
    `autocast_adapter_dtype=False`; the factor pair is made in float32 and cast for the product, but not to float16.
    """

    adapter_layer_names = ("cp_adapter",)
    other_param_names = ("cp_scale", "cp_initial_scale")

    cp_adapter: nn.ModuleDict
    cp_scale: dict[str, float]
    cp_initial_scale: dict[str, float]
    # PEFT's, which is untyped.
    active_adapters: list[str]
    get_base_layer: Callable[[], Any]
    get_base_weight: Callable[[], Tensor]
    set_base_weight: Callable[[Tensor], None]

    def update_layer(
        self,
        adapter_name: str,
        config: CPConfig,
        *,
        num_components: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Add an adapter, or draw it again.

        Args:
            adapter_name: its name.
            config: its configuration.
            num_components: its size here, if that is not the configuration's.
            generator: what to draw from, instead of torch's global random state.

        Raises:
            InputError: a given split does not multiply to its dimension, or there are more components than entries.
        """
        params = cp.init(
            generator or torch.default_generator,
            self.out_features,
            self.in_features,
            num_components or config.num_components,
            tensor_shape=config.tensor_shape,
            init=config.init,
            raw_norm=config.raw_norm,
            init_std=config.init_std,
        )
        self.cp_adapter[adapter_name] = CPAdapter(params)
        self.cp_scale[adapter_name] = self.cp_initial_scale[adapter_name] = config.scale
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def adapter(self, adapter_name: str) -> CPAdapter:
        """The module with the adapter's tensors."""
        return cast(CPAdapter, self.cp_adapter[adapter_name])

    def factors(self, adapter_name: str) -> Pair:
        """`up` `[out, components]` and `down` `[components, in]`, float32 or better, so that ΔW = up · down."""
        pair: Pair = self.adapter(adapter_name)(self.cp_scale[adapter_name])
        return pair

    def get_delta_weight(self, adapter_name: str) -> Tensor:
        """ΔW in the layout of the base layer's weight: `[out, in]`, for a `Conv1D` `[in, out]`."""
        up, down = self.factors(adapter_name)
        delta = up @ down
        return delta.T if isinstance(self.get_base_layer(), Conv1D) else delta

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Whether PEFT may convert the adapter; `cpadapt.to_lora` does it without loss."""
        return True

    def _get_additive_delta(self, adapter_name: str) -> Tensor:
        # What PEFT's conversion is to ask for instead (https://github.com/huggingface/peft/pull/3360).
        return self.get_delta_weight(adapter_name)

    def set_scale(self, adapter: str, scale: float) -> None:
        """Set an adapter's factor to `scale` times the configured one."""
        if adapter in self.cp_scale:
            self.cp_scale[adapter] = scale * self.cp_initial_scale[adapter]

    def scale_layer(self, scale: float) -> None:
        """Multiply the factors of the active adapters by `scale`."""
        for adapter in self.active_adapters:
            if adapter in self.cp_scale:
                self.cp_scale[adapter] *= scale

    def unscale_layer(self, scale: float | None = None) -> None:
        """Divide the factors of the active adapters by `scale`, or set the configured ones again."""
        for adapter in self.active_adapters:
            if adapter in self.cp_scale:
                initial = self.cp_initial_scale[adapter]
                self.cp_scale[adapter] = initial if scale is None else self.cp_scale[adapter] / scale

    def base_type(self) -> torch.dtype | None:
        """The floating-point type of the base layer's weight, if it has one."""
        dtype = getattr(getattr(self.get_base_layer(), "weight", None), "dtype", None)
        return dtype if isinstance(dtype, torch.dtype) and dtype.is_floating_point else None

    def half_type(self) -> torch.dtype | None:
        """The half-precision type that the pair is cast to, if the layer's input will have the base layer's type."""
        return torch.bfloat16 if self.base_type() == torch.bfloat16 else None

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        # PEFT's method would also cast to the base layer's type, and so round what was read from a file.
        base = self.get_base_layer()
        weight = getattr(base, "weight", getattr(base, "qweight", None))
        # That of torch's dynamically quantized layers is a method, which has no device.
        target = device or getattr(weight, "device", None)
        if adapter_name not in self.cp_adapter or not isinstance(target, torch.device) or target.type == "meta":
            return
        adapter = self.cp_adapter[adapter_name]
        if not any(parameter.is_meta for parameter in adapter.parameters()):
            adapter.to(target)


class CPLinear(nn.Module, CPLayer):
    """A linear layer plus its CP adapters: y = W x + b + Σ_active up · (down · x).

    The layer is an `nn.Linear`, a transformers `Conv1D` or a quantized linear layer. Only merging makes a matrix of
    size out×in. The factor pair is made once for each forward pass and adapter: in a call of a `PeftModel` for all
    layers at once, otherwise here.

    Args:
        base_layer: the layer to adapt.
        adapter_name: the name of the first adapter.
        config: the configuration of that adapter.
        num_components: its size here, if that is not the configuration's.
        generator: what to draw it from, instead of torch's global random state.
        quantization: PEFT's access to the weight of a quantized layer.

    Raises:
        InputError: the base layer is none of these, or is a layer that its parent never calls.
    """

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        config: CPConfig,
        *,
        num_components: int | None = None,
        generator: torch.Generator | None = None,
        quantization: QuantizationBackend | None = None,
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.quantization_backend = quantization
        self.out_features, self.in_features = _sizes(self.get_base_layer(), quantization)
        self.cp_adapter = nn.ModuleDict()
        self.cp_scale = {}
        self.cp_initial_scale = {}
        self.merged_adapters: list[str] = []
        self._disable_adapters = False
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config, num_components=num_components, generator=generator)

    def forward(self, x: Tensor, *args: Any, adapter_names: Sequence[str] | None = None, **kwargs: Any) -> Tensor:
        """Map `[batch, …, in]` to `[batch, …, out]`.

        Args:
            x: the input.
            args: further arguments for the base layer.
            adapter_names: for each row of the batch, the adapter to use instead of the active ones; "__base__" for
                none.
            kwargs: further arguments for the base layer.

        Raises:
            InputError: the number of names is not the number of rows, adapters are merged, or an adapter's tensors
                have no values.
        """
        call = calls.current()
        if adapter_names is None:
            adapter_names = call.rows.get(self)
        if adapter_names is not None:
            self._check_mixed(x, adapter_names)
        if self.disable_adapters and self.merged:
            self.unmerge()
        result: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return result
        if self.quantization_backend is not None:
            result = self.quantization_backend.maybe_clone_base_result(result)
        if adapter_names is not None:
            # In the order of their first rows, so that every run adds in the same order.
            for adapter in dict.fromkeys(adapter_names):
                if adapter in self.cp_adapter:
                    rows = torch.tensor(
                        [i for i, name in enumerate(adapter_names) if name == adapter], device=x.device
                    )
                    result = result.index_add(0, rows, self._update(call, adapter, x[rows]).to(result.dtype))
            return result
        for adapter in self.active_adapters:
            if adapter in self.cp_adapter:
                result = result + self._update(call, adapter, x).to(result.dtype)
        return result

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add adapters to the base weight, in float32 or better; a quantized weight is quantized again.

        Args:
            safe_merge: refuse to change the weight if the result has infinite or undefined entries.
            adapter_names: the adapters to merge; by default the active ones.

        Raises:
            InputError: `safe_merge` found such entries, the layer is quantized in a way that cannot be merged into, or
                tensors have no values.
        """
        for adapter in check_adapters_to_merge(self, adapter_names):
            if adapter not in self.cp_adapter:
                continue
            self._check_mergeable(adapter)
            if self.quantization_backend is not None:
                warnings.warn("the merged weight is quantized again, which rounds the update too", stacklevel=2)
            merged = self._plus(adapter, 1)
            if safe_merge and not torch.isfinite(merged).all():
                raise InputError(
                    f"adapter {adapter!r} cannot be merged: the merged weight would have NaN or infinite entries"
                )
            self.set_base_weight(merged)
            self.merged_adapters.append(adapter)

    def unmerge(self) -> None:
        """Subtract all merged adapters from the base weight, which is then as before up to rounding."""
        if not self.merged:
            warnings.warn("there is no merged adapter to unmerge", stacklevel=2)
        while self.merged_adapters:
            adapter = self.merged_adapters.pop()
            self.set_base_weight(self._plus(adapter, -1))

    def _plus(self, adapter: str, sign: int) -> Tensor:
        """The base weight plus an adapter's update, or minus it."""
        weight, delta = self.get_base_weight(), self.get_delta_weight(adapter).detach()
        if weight.is_meta != delta.is_meta:
            whose = f"adapter {adapter!r}" if delta.is_meta else "the base layer"
            raise InputError(
                f"the tensors of {whose} are on the meta device and have no values; load them before the adapter is"
                " merged"
            )
        return (weight + sign * delta).to(weight.dtype)

    def _update(self, call: calls.Call, adapter: str, x: Tensor) -> Tensor:
        """The adapter's part of the output, `[*batch, out]`, for inputs `[*batch, in]`."""
        up, down = call.pair(self.adapter(adapter), self.cp_scale[adapter]) or self.factors(adapter)
        if up.is_meta and not x.is_meta:
            raise InputError(
                f"the tensors of adapter {adapter!r} are on the meta device and have no values; load the adapter"
                " before the model is called"
            )
        # In float16 a gradient of `down` underflows, without a scaler; LoRA's products are float32 too.
        dtype = torch.float32 if x.dtype == torch.float16 else x.dtype
        return F.linear(F.linear(x.to(dtype), down.to(dtype)), up.to(dtype))

    def _check_mixed(self, x: Tensor, adapter_names: Sequence[str]) -> None:
        if len(x) != len(adapter_names):
            raise InputError(
                f"adapter_names must name one adapter for each row, but there are {len(adapter_names)} names for"
                f" {len(x)} rows"
            )
        if self.merged:
            raise InputError(
                f"adapter_names cannot be used while {', '.join(self.merged_adapters)} is merged; call"
                " unmerge_adapter first"
            )

    def _check_mergeable(self, adapter: str) -> None:
        layer, backend = self.get_base_layer(), self.quantization_backend
        if backend is not None and not backend.supports_merge:
            how = backend.backend_name
        elif backend is None and is_dynamically_quantized(layer):
            how = f"{type(layer).__module__}.{type(layer).__name__}"
        else:
            return
        raise InputError(
            f"adapter {adapter!r} cannot be merged: the layer is quantized ({how}) and its weight cannot be set;"
            " use the adapter unmerged, or load the model unquantized and merge there"
        )

    def __repr__(self) -> str:
        return f"cp.{super().__repr__()}"


def _sizes(layer: nn.Module, quantization: QuantizationBackend | None) -> tuple[int, int]:
    """Output and input features of a layer."""
    if isinstance(layer, Conv1D):
        return layer.weight.shape[1], layer.weight.shape[0]
    if isinstance(layer, nn.modules.linear.NonDynamicallyQuantizableLinear):
        raise InputError(
            "it is the output projection of nn.MultiheadAttention, which reads the weight but never calls it;"
            " an adapter around it would do nothing; leave it out by naming it in exclude_modules"
        )
    linear = isinstance(layer, nn.Linear) or is_dynamically_quantized(layer)
    if not linear and (quantization is None or quantization.layer_type != "linear"):
        raise InputError(
            f"it is of type {type(layer).__module__}.{type(layer).__qualname__}, but must be torch.nn.Linear,"
            " transformers' Conv1D or a quantized linear layer"
        )
    weight = getattr(layer, "weight", None)
    if quantization is None and isinstance(weight, Tensor) and not weight.dtype.is_floating_point:
        raise InputError(
            f"it has a weight of type {weight.dtype} and is not a quantized layer that PEFT knows; CP needs"
            " floating-point weights"
        )
    return int(layer.out_features), int(layer.in_features)  # type: ignore[arg-type]


def is_dynamically_quantized(layer: nn.Module) -> bool:
    """Whether it is torch's own quantized linear layer, which has its weight packed and computes with floats."""
    # By name, since importing torch.ao.nn.quantized warns that it will go.
    kind = type(layer)
    return kind.__name__ == "Linear" and kind.__module__.startswith("torch.ao.nn.quantized.dynamic")
