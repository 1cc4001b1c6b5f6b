"""A projection with CP adapters around it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from cpadapt.errors import InputError
from cpadapt.families import cp
from cpadapt.tuner.config import CPConfig
from cpadapt.tuner.pairs import Pairs, make_pair

BASE_ADAPTER = "__base__"
"""The name that, in a mixed batch, stands for no adapter."""


class CPLayer(BaseTunerLayer):  # type: ignore[misc]  # PEFT is untyped
    """The CP adapters of one projection, by name (arXiv 2606.00428).

    =====================  ===================  ========================
    parameter              shape                of `cpadapt.families.cp`
    =====================  ===================  ========================
    `cp_up[adapter][m]`    `[components, o_m]`  `up_m`
    `cp_down[adapter][m]`  `[components, i_m]`  `down_m`
    `cp_weight[adapter]`   `[components]`       `weight`
    =====================  ===================  ========================

    They are float32 for any base layer: the factor pair is made in float32 and cast for the product.
    """

    adapter_layer_names = ("cp_up", "cp_down", "cp_weight")
    other_param_names = ("cp_scale",)

    cp_up: nn.ModuleDict
    cp_down: nn.ModuleDict
    cp_weight: nn.ParameterDict
    cp_scale: dict[str, float]
    # PEFT's, which is untyped.
    active_adapters: list[str]
    get_base_layer: Callable[[], Any]

    def update_layer(self, adapter_name: str, config: CPConfig) -> None:
        """Add an adapter, or draw it again. Torch's global random state decides the draw, as in PEFT.

        Raises:
            InputError: a given split does not multiply to its dimension, or there are more components than entries.
        """
        params = cp.init(
            torch.default_generator,
            self.out_features,
            self.in_features,
            config.num_components,
            tensor_shape=config.tensor_shape,
            init=config.init,
            raw_norm=config.raw_norm,
        )
        for side, lists in (("up", self.cp_up), ("down", self.cp_down)):
            raw = [tensor for name, tensor in params.items() if name.startswith(f"{side}_")]
            lists[adapter_name] = nn.ParameterList(raw)
        self.cp_weight[adapter_name] = nn.Parameter(params["weight"])
        self.cp_scale[adapter_name] = config.scale
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def params(self, adapter_name: str) -> dict[str, Tensor]:
        """The trainable tensors of an adapter, by the family's names."""
        named = {"weight": self.cp_weight[adapter_name]}
        for side, lists in (("up", self.cp_up), ("down", self.cp_down)):
            for m, raw in enumerate(lists[adapter_name].parameters()):
                named[f"{side}_{m}"] = raw
        return named

    def factors(self, adapter_name: str) -> tuple[Tensor, Tensor]:
        """`up` `[out, components]` and `down` `[components, in]`, float32 or better, so that ΔW = up · down."""
        return make_pair(self.params(adapter_name), self.cp_scale[adapter_name])

    def get_delta_weight(self, adapter_name: str) -> Tensor:
        """ΔW in the layout of the base layer's weight: `[out, in]`, for a `Conv1D` `[in, out]`."""
        up, down = self.factors(adapter_name)
        delta = up @ down
        return delta.T if isinstance(self.get_base_layer(), Conv1D) else delta

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Whether PEFT may convert the adapter; `cpadapt.to_lora` does it without loss."""
        return True

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        # PEFT's method would also cast to the base layer's type, and so round what was read from a file.
        target = device if device is not None else self.get_base_layer().weight.device
        raw = [*self.cp_up[adapter_name].parameters(), *self.cp_down[adapter_name].parameters()]
        for parameter in (*raw, self.cp_weight[adapter_name]):
            if "meta" not in (parameter.device.type, target.type):
                parameter.data = parameter.data.to(target)


class CPLinear(nn.Module, CPLayer):
    """An `nn.Linear` or a transformers `Conv1D` plus its CP adapters: y = W x + b + Σ_active up · (down · x).

    Only merging makes a matrix of size out×in. The factor pair is made once for each forward pass and adapter: in a
    call of a `PeftModel` for all layers at once, otherwise here.

    Args:
        base_layer: the layer to adapt.
        adapter_name: the name of the first adapter.
        config: the configuration of that adapter.
        pairs: the store in which the model puts the pairs that it makes.

    Raises:
        InputError: the base layer is neither, is quantized, or is a layer that its parent never calls.
    """

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: CPConfig, pairs: Pairs | None = None) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.out_features, self.in_features = _sizes(self.get_base_layer())
        self.cp_up = nn.ModuleDict()
        self.cp_down = nn.ModuleDict()
        self.cp_weight = nn.ParameterDict()
        self.cp_scale = {}
        self._pairs = pairs or Pairs()
        self.merged_adapters: list[str] = []
        self._disable_adapters = False
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def forward(self, x: Tensor, *args: Any, adapter_names: Sequence[str] | None = None, **kwargs: Any) -> Tensor:
        """Map `[batch, …, in]` to `[batch, …, out]`.

        Args:
            x: the input.
            args: further arguments for the base layer.
            adapter_names: for each row of the batch, the adapter to use instead of the active ones; "__base__" for
                none.
            kwargs: further arguments for the base layer.

        Raises:
            InputError: the number of names is not the number of rows, or adapters are merged.
        """
        if adapter_names is not None:
            self._check_mixed(x, adapter_names)
        if self.disable_adapters and self.merged:
            self.unmerge()
        result: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return result
        if adapter_names is not None:
            # In the order of their first rows, so that every run adds in the same order.
            for adapter in dict.fromkeys(adapter_names):
                if adapter in self.cp_weight:
                    rows = torch.tensor(
                        [i for i, name in enumerate(adapter_names) if name == adapter], device=x.device
                    )
                    result = result.index_add(0, rows, self._update(adapter, x[rows]).to(result.dtype))
            return result
        for adapter in self.active_adapters:
            if adapter in self.cp_weight:
                result = result + self._update(adapter, x).to(result.dtype)
        return result

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add adapters to the base weight, in float32 or better.

        Args:
            safe_merge: refuse to change the weight if the result has infinite or undefined entries.
            adapter_names: the adapters to merge; by default the active ones.

        Raises:
            InputError: `safe_merge` found such entries.
        """
        for adapter in check_adapters_to_merge(self, adapter_names):
            if adapter not in self.cp_weight:
                continue
            merged = self._plus(self.get_delta_weight(adapter))
            if safe_merge and not torch.isfinite(merged).all():
                raise InputError(
                    f"adapter {adapter!r} cannot be merged: the merged weight would have NaN or infinite entries"
                )
            self.get_base_layer().weight.data = merged
            self.merged_adapters.append(adapter)

    def unmerge(self) -> None:
        """Subtract all merged adapters from the base weight, which is then as before up to rounding."""
        if not self.merged:
            warnings.warn("there is no merged adapter to unmerge", stacklevel=2)
        while self.merged_adapters:
            adapter = self.merged_adapters.pop()
            self.get_base_layer().weight.data = self._plus(-self.get_delta_weight(adapter))

    def _plus(self, delta: Tensor) -> Tensor:
        weight: Tensor = self.get_base_layer().weight.data
        return (weight + delta.detach()).to(weight.dtype)

    def _update(self, adapter: str, x: Tensor) -> Tensor:
        """The adapter's part of the output, `[*batch, out]`, for inputs `[*batch, in]`."""
        up, down = self._pairs.get(self, adapter) or self.factors(adapter)
        return F.linear(F.linear(x, down.to(x.dtype)), up.to(x.dtype))

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

    def __repr__(self) -> str:
        return f"cp.{super().__repr__()}"


def _sizes(layer: nn.Module) -> tuple[int, int]:
    """Output and input features of a layer."""
    if isinstance(layer, Conv1D):
        return layer.weight.shape[1], layer.weight.shape[0]
    if not isinstance(layer, nn.Linear):
        raise InputError(f"it is of type {type(layer).__name__}, but must be nn.Linear or transformers' Conv1D")
    if isinstance(layer, nn.modules.linear.NonDynamicallyQuantizableLinear):
        raise InputError(
            "it is the output projection of nn.MultiheadAttention, which reads the weight but never calls it;"
            " an adapter around it would do nothing"
        )
    if not layer.weight.dtype.is_floating_point:
        raise InputError(f"it has a quantized weight of type {layer.weight.dtype}; CP needs floating-point weights")
    return layer.out_features, layer.in_features
