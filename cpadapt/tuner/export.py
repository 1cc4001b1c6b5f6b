"""Adapters as plain LoRA, without loss, and trained weights as adapter folders.

An update made of a factor pair with c components has rank at most c, so it *is* a LoRA update of rank c::

    ΔW = scale · up · down = (α / r) · B · A   with   B = scale · up,   A = down,   α = r = c.

PEFT's own conversion goes through a singular value decomposition of ΔW; this needs none and makes nothing of
size out×in.
"""

import copy
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.utils import (
    CONFIG_NAME,
    SAFETENSORS_WEIGHTS_NAME,
    AuxiliaryTrainingWrapper,
    set_peft_model_state_dict,
)
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from cpadapt.errors import InputError
from cpadapt.families import cp, family
from cpadapt.tuner.config import CPConfig
from cpadapt.tuner.layer import CPLayer
from cpadapt.tuner.model import CPModel
from cpadapt.tuner.registry import CPType

# A CP tensor in a saved adapter: its module, and `up.0`, `down.1`, … or `weight`.
_CP_TENSOR = re.compile(r"(?P<module>.+)\.cp_(?P<name>(?:up|down)\.\d+|weight)")

# What an adapter is applied to, which no kind of adapter changes.
_SHARED_FIELDS = (
    "task_type",
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "target_modules",
    "exclude_modules",
    "modules_to_save",
    "layers_to_transform",
    "layers_pattern",
)


def to_lora(model: PeftModel, adapter_name: str = "default") -> PeftModel:
    """Copy a model, its CP adapter as the exactly equal LoRA adapter of rank `num_components`.

    The given model stays as it is and shares nothing with the result; `cpadapt.tuner.export_to_lora` does without the
    copy. Modules saved whole come along. The adapter has the same name, and is trainable if it was.

    Raises:
        InputError: the model is no PEFT model with CP adapters or has none of this name, or adapters are
            merged into its weights.
    """
    if not isinstance(model, PeftModel) or not isinstance(model.base_model, CPModel):
        raise InputError(f"to_lora takes a PEFT model with CP adapters, not a {type(model).__name__}")
    if adapter_name not in model.peft_config:
        raise InputError(f"there is no adapter {adapter_name!r}; there are {', '.join(sorted(model.peft_config))}")
    layers = [layer for layer in model.modules() if isinstance(layer, CPLayer)]
    if merged := sorted({name for layer in layers for name in layer.merged_adapters}):
        raise InputError(f"the base weights have {', '.join(merged)} merged in; call unmerge_adapter first")
    # The embeddings are part of the copy, so they need no place among the adapter's weights.
    state = get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=False)
    config, lora_state = _as_lora(model.peft_config[adapter_name], state)
    config.fan_in_fan_out = all(isinstance(layer.get_base_layer(), Conv1D) for layer in layers)
    tuner = copy.deepcopy(model.base_model)
    for module in tuner.modules():
        if isinstance(module, AuxiliaryTrainingWrapper):
            # Else unloading puts the active adapter's modules where the untrained ones were.
            module.set_adapter([])
    lora = get_peft_model(tuner.unload(), config, adapter_name=adapter_name)
    set_peft_model_state_dict(lora, lora_state, adapter_name=adapter_name)
    return lora.train(model.training)


def export_to_lora(adapter_dir: str | Path, out_dir: str | Path) -> Path:
    """Write a saved CP adapter as the exactly equal LoRA adapter, which PEFT loads by itself.

    Needs neither the base model nor a network.

    Args:
        adapter_dir: a folder with `adapter_config.json` and `adapter_model.safetensors`.
        out_dir: the folder to write the same two files to; made if it is not there.

    Returns:
        `out_dir`.

    Raises:
        InputError: there is no adapter, it is not a CP adapter, or `out_dir` is not empty.
    """
    source = Path(adapter_dir)
    for name in (CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME):
        if not (source / name).is_file():
            raise InputError(f"{source} is not the folder of a saved adapter: it has no {name}")
    try:
        peft_type = PeftConfig.from_json_file(str(source / CONFIG_NAME))["peft_type"]
        state = load_file(source / SAFETENSORS_WEIGHTS_NAME)
    except (ValueError, KeyError, TypeError, SafetensorError) as error:  # no JSON, no adapter's, no safetensors
        raise InputError(f"the adapter in {source} cannot be read: {error}") from None
    if peft_type != CPType.CP:
        raise InputError(f"the adapter in {source} is of type {peft_type}; only CP adapters are exported")
    config = CPConfig.from_pretrained(str(source))
    return _write(out_dir, *_as_lora(config, state))


def save_adapter(
    out_dir: str | Path,
    family_name: str,
    scale: float,
    params_by_module: Mapping[str, Mapping[str, Tensor]],
    *,
    shape_options: Mapping[str, Any] | None = None,
    base_model_name: str | None = None,
    revision: str | None = None,
) -> Path:
    """Write trained weights as an adapter folder that `PeftModel.from_pretrained` loads.

    "cp" becomes a CP adapter, "lora" a LoRA adapter, any other family the LoRA adapter that equals its pair.

    Args:
        out_dir: the folder to write to; made if it is not there.
        family_name: a name in `cpadapt.families.FAMILIES`.
        scale: the factor in front of the pair.
        params_by_module: for each adapted module, by its name in the base model, the family's tensors of one
            projection, without leading axes (CP: `up_0` `[components, o_1]`, …, `weight` `[components]`;
            LoRA: `up` `[rank, out]`, `down` `[rank, in]`).
        shape_options: the family's options that decide shapes, where they are not the defaults; the tensors of "cp"
            say them.
        base_model_name: where the base model comes from, for the adapter's configuration.
        revision: its revision there.

    Returns:
        `out_dir`.

    Raises:
        InputError: the family is unknown, there are no modules, they differ in size or in how they split the
            same dimension, a CP tensor is missing or has a wrong shape, or `out_dir` is not empty.
    """
    if not params_by_module:
        raise InputError("an adapter without modules cannot be saved: params_by_module is empty")
    fields: dict[str, Any] = {
        # In full: the endings alone might fit modules that were not adapted.
        "target_modules": sorted(params_by_module),
        "base_model_name_or_path": base_model_name,
        "revision": revision,
        "inference_mode": True,
    }
    state = {}
    if family_name == "cp":
        config: PeftConfig = _cp_config(params_by_module, scale=scale, **fields)
        for module, params in params_by_module.items():
            for name, tensor in params.items():
                state[f"base_model.model.{module}.cp_{name.replace('_', '.')}"] = tensor
        return _write(out_dir, config, state)
    pairs = {
        module: family(family_name).factors(
            {name: tensor.float() for name, tensor in params.items()}, **(shape_options or {})
        )
        for module, params in params_by_module.items()
    }
    rank = _common_size(down.shape[0] for _, down in pairs.values())
    for module, (up, down) in pairs.items():
        lora_up = up if family_name == "lora" else scale * up
        state |= _lora_tensors(f"base_model.model.{module}", lora_up, down)
    alpha = scale * rank if family_name == "lora" else rank
    return _write(out_dir, LoraConfig(r=rank, lora_alpha=alpha, **fields), state)


def _as_lora(config: CPConfig, state: Mapping[str, Tensor]) -> tuple[LoraConfig, dict[str, Tensor]]:
    """A CP adapter's configuration and tensors, named as in its file, as LoRA's; others as they are."""
    lora_state = {}
    modules: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        if match := _CP_TENSOR.fullmatch(key):
            params = modules.setdefault(match["module"], {})
            params[match["name"].replace(".", "_")] = tensor.detach().float()
        else:
            lora_state[key] = tensor
    for module, params in modules.items():
        up, down = cp.factors(params)
        lora_state |= _lora_tensors(module, config.scale * up, down)
    # Copied, because PEFT adds to some of these when it makes a model.
    fields = {name: copy.deepcopy(getattr(config, name)) for name in _SHARED_FIELDS}
    return LoraConfig(r=config.num_components, lora_alpha=config.num_components, **fields), lora_state


def _lora_tensors(module: str, up: Tensor, down: Tensor) -> dict[str, Tensor]:
    return {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}


def _cp_config(params_by_module: Mapping[str, Mapping[str, Tensor]], *, scale: float, **fields: Any) -> CPConfig:
    """The configuration whose adapter has these tensors, all splits written out."""
    tensor_shape: dict[int, tuple[int, ...]] = {}
    size = _common_size(params["weight"].shape[0] for params in params_by_module.values() if "weight" in params)
    for module, params in params_by_module.items():
        dimensions = []
        for side in ("up_", "down_"):
            modes = tuple(tensor.shape[-1] for name, tensor in params.items() if name.startswith(side))
            dimensions.append(torch.Size(modes).numel())
            if tensor_shape.setdefault(dimensions[-1], modes) != modes:
                raise InputError(
                    f"module {module!r} splits {dimensions[-1]} into {modes}, another module into"
                    f" {tensor_shape[dimensions[-1]]}; one adapter has one split a dimension"
                )
        expected = cp.shapes(dimensions[0], dimensions[1], size, tensor_shape=tensor_shape)
        given = {name: tuple(tensor.shape) for name, tensor in params.items()}
        if given != expected:
            raise InputError(f"the CP tensors of module {module!r} must be {expected}, not {given}")
    return CPConfig(num_components=size, tensor_shape=tensor_shape, scale=scale, **fields)


def _common_size(sizes: Iterable[int]) -> int:
    found = sorted(set(sizes))
    if len(found) != 1:
        raise InputError(f"the modules of one adapter have one size, not the sizes {found}")
    return found[0]


def _write(out_dir: str | Path, config: PeftConfig, state: Mapping[str, Tensor]) -> Path:
    out = Path(out_dir)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not an empty folder; name a new one")
    out.mkdir(parents=True, exist_ok=True)
    for name, value in vars(config).items():
        if isinstance(value, set):
            # PEFT writes a set in an order of its own each time.
            setattr(config, name, sorted(value))
    # Copies, because views of one another cannot be saved.
    tensors = {
        key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for key, tensor in state.items()
    }
    save_file(tensors, out / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
    # Last, so that a folder cut off in writing is no adapter.
    config.save_pretrained(str(out))
    return out
