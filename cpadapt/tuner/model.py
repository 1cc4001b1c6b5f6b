"""A model with CP adapters."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

from peft.tuners.tuners_utils import BaseTuner
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING, AuxiliaryTrainingWrapper
from torch import Tensor, nn

from cpadapt.errors import InputError
from cpadapt.tuner.config import CPConfig
from cpadapt.tuner.layer import BASE_ADAPTER, CPLayer, CPLinear
from cpadapt.tuner.pairs import Pairs
from cpadapt.tuner.registry import PREFIX


class CPModel(BaseTuner):  # type: ignore[misc]  # PEFT is untyped
    """The tuner behind `peft.get_peft_model(model, CPConfig(…))`.

    Without `target_modules` it adapts the modules that PEFT adapts with LoRA on this architecture.
    """

    prefix = PREFIX
    tuner_layer_cls = CPLayer
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    _adapted: list[CPLinear]
    _pairs: Pairs

    def _pre_injection_hook(self, model: nn.Module, config: CPConfig, adapter_name: str) -> None:
        self._adapted = []
        self._pairs = Pairs()

    def _create_and_replace(
        self,
        config: CPConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
    ) -> None:
        try:
            if isinstance(target, CPLayer):
                target.update_layer(adapter_name, config)
                return
            adapted = CPLinear(target, adapter_name, config, self._pairs)
        except InputError as error:
            raise InputError(f"module {current_key!r} cannot be adapted: {error}") from None
        if adapter_name not in self.active_adapters:
            # An additional adapter is not trained until it is set active.
            adapted.requires_grad_(False)
        self._replace_module(parent, target_name, adapted, target)
        self._adapted.append(adapted)

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: CPConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """What PEFT asks of a tuner's tensors as they were saved."""
        remapped: dict[str, Tensor] = super()._remap_adapter_state_dict_for_load(
            model, config, adapter_name, _without_single_modes(state_dict)
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

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """For one call of the model, make the layers' pairs, or give the layers `adapter_names`, one for each row."""
        adapter_names = kwargs.get("adapter_names")
        if adapter_names is None:
            with self._pairs.made_for(self._adapted):
                yield
            return
        if self.training:
            raise InputError("adapter_names works in inference only; call eval() on the model first")
        known = {name for layer in self.modules() if isinstance(layer, CPLayer) for name in layer.cp_weight}
        if unknown := sorted(set(adapter_names) - known - {BASE_ADAPTER}):
            raise InputError(
                f"adapter_names has the unknown names {', '.join(unknown)}; known are {', '.join(sorted(known))}"
                f" and {BASE_ADAPTER}"
            )
        handles = []

        def hand_to(modules: nn.Module, names: list[str]) -> None:
            for module in modules.modules():
                if isinstance(module, CPLayer | AuxiliaryTrainingWrapper):
                    hook = partial(_with_adapter_names, adapter_names=names)
                    handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

        beams = kwargs.get("num_beams") or 1
        # A beam search repeats every row, but not for the encoder, which runs first on the original rows. Hooks run in
        # the order of their registration, so the names for the encoder win.
        hand_to(self, [name for name in adapter_names for _ in range(beams)])
        encoder = self.model.get_encoder() if hasattr(self.model, "get_encoder") else None
        if beams > 1 and encoder is not None and encoder is not self.model:
            hand_to(encoder, list(adapter_names))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _without_single_modes(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """A saved adapter's tensors, of an older one without its modes of length 1, whose signs go into λ."""
    tensors: dict[str, Tensor] = {}
    sides: dict[str, dict[int, Tensor]] = defaultdict(dict)
    for key, tensor in state_dict.items():
        side, _, mode = key.rpartition(".")
        if side.endswith((f".{PREFIX}up", f".{PREFIX}down")):
            sides[side][int(mode)] = tensor
        else:
            tensors[key] = tensor
    for side, modes in sides.items():
        raw = [modes[mode] for mode in sorted(modes)]
        weight = f"{side.rpartition('.')[0]}.{PREFIX}weight"
        for single in (vectors for vectors in raw if vectors.shape[-1] == 1):
            tensors[weight] = tensors[weight] * single[:, 0].sign()
        longer = (vectors for vectors in raw if vectors.shape[-1] > 1)
        tensors |= {f"{side}.{mode}": vectors for mode, vectors in enumerate(longer)}
    return tensors


def _with_adapter_names(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, adapter_names: list[str]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return args, {**kwargs, "adapter_names": adapter_names}
