"""A model with CP adapters."""

import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from peft.tuners.tuners_utils import BaseTuner, _maybe_include_all_linear_layers, check_target_module_exists
from peft.utils import (
    TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
    ModulesToSaveWrapper,
    get_quantization_kwargs,
    resolve_quantization_backend,
)
from peft.utils.other import get_pattern_key
from peft.utils.quantization_utils import ForwardOnlyQuantizationBackend, QuantizationBackend
from torch import Tensor, nn

from cpadapt.errors import InputError
from cpadapt.tuner import calls, files
from cpadapt.tuner.config import CPConfig
from cpadapt.tuner.layer import BASE_ADAPTER, CPLayer, CPLinear
from cpadapt.tuner.registry import PREFIX


class CPModel(BaseTuner):  # type: ignore[misc]  # PEFT is untyped
    """The tuner behind `peft.get_peft_model(model, CPConfig(…))`.

    Without `target_modules` it adapts the modules that PEFT adapts with LoRA on this architecture.
    """

    prefix = PREFIX
    tuner_layer_cls = CPLayer
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    _generator: torch.Generator | None
    _patterns_used: set[str]

    def __init__(
        self,
        model: nn.Module,
        peft_config: CPConfig | dict[str, CPConfig],
        adapter_name: str,
        low_cpu_mem_usage: bool = False,
        state_dict: dict[str, Tensor] | None = None,
    ) -> None:
        # It is no dictionary where PEFT's `inject_adapter_in_model` calls, for transformers among others.
        if isinstance(peft_config, CPConfig) and peft_config.has_former_names and state_dict is None:
            raise InputError(
                "the adapter was saved by an earlier cpadapt, with names of tensors that transformers does not find;"
                " load it with peft.PeftModel.from_pretrained and save it again"
            )
        super().__init__(model, peft_config, adapter_name, low_cpu_mem_usage, state_dict)

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args: Any, **kwargs: Any) -> None:
        """Adapt the model's modules, in their order.

        Raises:
            InputError: a module cannot be adapted, a key of `components_pattern` fits none, or `layers_to_transform`
                leaves none of "all-linear".
        """
        config = self.peft_config[adapter_name]
        _choose_layers(config, model)
        self._generator = None if config.seed is None else torch.Generator().manual_seed(config.seed)
        self._patterns_used = set()
        super().inject_adapter(model, adapter_name, *args, **kwargs)
        self._generator = None
        if unused := sorted(config.components_pattern.keys() - self._patterns_used):
            raise InputError(
                f"components_pattern has {', '.join(map(repr, unused))}, which fits no adapted module; the modules are"
                f" {', '.join(self.targeted_module_names)}"
            )

    def _create_and_replace(
        self,
        config: CPConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
    ) -> None:
        pattern = get_pattern_key(list(config.components_pattern), current_key)
        self._patterns_used.add(pattern)
        size = config.components_pattern.get(pattern)
        try:
            if isinstance(target, CPLayer):
                target.update_layer(adapter_name, config, num_components=size, generator=self._generator)
                return
            adapted = CPLinear(
                target,
                adapter_name,
                config,
                num_components=size,
                generator=self._generator,
                quantization=_quantization(self.model, target),
            )
        except InputError as error:
            raise InputError(f"module {current_key!r} cannot be adapted: {error}") from None
        if adapter_name not in self.active_adapters:
            # An additional adapter is not trained until it is set active.
            adapted.requires_grad_(False)
        self._replace_module(parent, target_name, adapted, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        if isinstance(new_module, CPLayer):
            # Its adapter is on the right device already, and PEFT looks for the device where not all layers have one.
            setattr(parent, child_name, new_module)
        else:
            super()._replace_module(parent, child_name, new_module, child)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        super()._cast_adapter_dtype(adapter_name, autocast_adapter_dtype)
        if not autocast_adapter_dtype:
            for layer in self._layers():
                if adapter_name in layer.cp_adapter and (dtype := layer.base_type()) is not None:
                    layer.cp_adapter[adapter_name].to(dtype)

    def _check_merge_allowed(self) -> None:
        """Give an adapted layer that shares its weight, as an output layer with the embedding, one of its own.

        Merging would otherwise change the other layer too.
        """
        owners = Counter(
            id(parameter) for module in self.model.modules() for parameter in module.parameters(recurse=False)
        )
        for layer in self._layers():
            base = layer.get_base_layer()
            weight = getattr(base, "weight", None)
            if isinstance(weight, nn.Parameter) and owners[id(weight)] > 1 and not weight.is_meta:
                base.weight = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
                if getattr(getattr(self.model, "config", None), "tie_word_embeddings", False):
                    self.model.config.tie_word_embeddings = False

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: nn.Module,
        config: CPConfig,
        adapter_name: str,
        state_dict: dict[str, Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, Tensor]:
        state: dict[str, Tensor] = super()._get_adapter_state_dict(
            model, config, adapter_name, state_dict, unwanted_adapter_names
        )
        files.warn_of_faults(state)
        return state

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: CPConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """What PEFT asks of a tuner's tensors as they were saved."""
        remapped: dict[str, Tensor] = super()._remap_adapter_state_dict_for_load(
            model, config, adapter_name, files.with_todays_names(state_dict)
        )
        return remapped

    def add_weighted_adapter(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: the sum of CP adapters is not a CP adapter of the same size.

        Raises:
            InputError: always.
        """
        raise InputError(
            "the weighted sum of CP adapters is not a CP adapter of the same size; convert each with to_lora and"
            " add those, or set several adapters active at once"
        )

    def _layers(self) -> Iterator[CPLayer]:
        return (module for module in self.model.modules() if isinstance(module, CPLayer))

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """For one call of the model, make the layers' pairs, or give the layers `adapter_names`, one for each row."""
        adapter_names = kwargs.get("adapter_names")
        if adapter_names is None:
            with calls.during(calls.with_pairs(self._layers())):
                yield
            return
        if self.training:
            raise InputError(
                "adapter_names mixes adapters in inference only; several adapters are trained at once, on one frozen"
                " model, by cpadapt.train, which makes a bank of them"
            )
        known = {name for layer in self._layers() for name in layer.cp_adapter}
        if unknown := sorted(set(adapter_names) - known - {BASE_ADAPTER}):
            raise InputError(
                f"adapter_names has the unknown names {', '.join(unknown)}; known are {', '.join(sorted(known))}"
                f" and {BASE_ADAPTER}"
            )
        call = calls.Call(rows=self._rows(list(adapter_names), kwargs.get("num_beams") or 1))
        # PEFT's own wrappers take the names as an argument. A hook sees the calls of other threads too, hence the look
        # at the thread's own.
        handles = [
            module.register_forward_pre_hook(_hand_over_names, with_kwargs=True)
            for module in call.rows
            if isinstance(module, ModulesToSaveWrapper)
        ]
        try:
            with calls.during(call):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _rows(self, names: list[str], beams: int) -> Mapping[nn.Module, list[str]]:
        """By module, the names for the rows that it sees.

        A beam search repeats every row, but not for an encoder. A module that is saved in full is as it was for the
        adapters that don't save it.
        """
        encoder = self.model.get_encoder() if hasattr(self.model, "get_encoder") else None
        once = set(encoder.modules()) if encoder is not None and encoder is not self.model else set()
        repeated = [name for name in names for _ in range(beams)]
        rows = {}
        for module in self.modules():
            if isinstance(module, CPLayer | ModulesToSaveWrapper):
                rows[module] = names if module in once else repeated
            if isinstance(module, ModulesToSaveWrapper):
                rows[module] = [name if name in module.modules_to_save else BASE_ADAPTER for name in rows[module]]
        return rows


def _choose_layers(config: CPConfig, model: nn.Module) -> None:
    """Have "all-linear" name the modules of `layers_to_transform` only; PEFT looks for layers in other lists alone."""
    if config.layers_to_transform is None or not isinstance(config.target_modules, str):
        return
    _maybe_include_all_linear_layers(config, model)
    # PEFT would not ask in which layer a module is that is named in full.
    by_ending = copy.copy(config)
    by_ending.target_modules = {name.rpartition(".")[2] for name in config.target_modules}
    chosen = {name for name in config.target_modules if "." in name and check_target_module_exists(by_ending, name)}
    if not chosen:
        raise InputError(
            f"layers_to_transform={config.layers_to_transform} leaves none of the modules of 'all-linear', which are"
            f" {', '.join(sorted(config.target_modules))}"
        )
    config.target_modules = chosen


def _quantization(model: nn.Module, layer: nn.Module) -> QuantizationBackend | None:
    """PEFT's access to a quantized layer, None for any other."""
    try:
        return resolve_quantization_backend(layer, **get_quantization_kwargs(model))
    except ValueError:
        # torchao's layers that were quantized by hand: nothing says how.
        return ForwardOnlyQuantizationBackend("torchao, by hand")


def _hand_over_names(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    names = calls.current().rows.get(module)
    return args, kwargs if names is None else {**kwargs, "adapter_names": names}
