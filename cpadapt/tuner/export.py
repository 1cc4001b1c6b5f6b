"""Adapters as plain LoRA, without loss, and trained weights as adapter folders.

The update of a factor pair with c components has rank at most c, so it *is* a LoRA update of rank c::

    ΔW = scale · up · down = (α / r) · B · A   with   B = scale · up,   A = down,   α = r = c.

PEFT's conversion computes a singular value decomposition of ΔW. This one needs none, and no matrix of size out×in.
"""

import copy
import json
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoKrConfig, LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.utils import (
    CONFIG_NAME,
    SAFETENSORS_WEIGHTS_NAME,
    WEIGHTS_NAME,
    AuxiliaryTrainingWrapper,
    set_peft_model_state_dict,
)
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from cpadapt.errors import UNPARSABLE, InputError
from cpadapt.families import cp, family, lora
from cpadapt.tuner import files
from cpadapt.tuner.config import CPConfig
from cpadapt.tuner.layer import CPLayer, is_dynamically_quantized
from cpadapt.tuner.model import CPModel
from cpadapt.tuner.registry import CONFIG_TYPE, PREFIX, CPType

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's `--max-lora-rank` can be."""

MODEL_PREFIX = "base_model.model."
"""What PEFT puts before a module's name in the base model."""

# The fields that say what the adapter is applied to. They are the same for all kinds of adapters.
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
    """Copy a model and replace its CP adapter by the exactly equal LoRA adapter, of a rank for each component.

    The given model does not change and shares nothing with the result; `cpadapt.tuner.export_to_lora` works on folders
    and needs no copy. Modules that are saved in full are copied. The adapter keeps its name, and stays trainable if it
    was.

    Raises:
        InputError: the model is not a PEFT model with CP adapters, has no adapter of this name, has adapters merged
            into its weights, has layers that LoRA does not adapt, or has tensors without values.
    """
    if not isinstance(model, PeftModel) or not isinstance(model.base_model, CPModel):
        raise InputError(f"to_lora needs a PEFT model with CP adapters, not a {type(model).__name__}")
    if adapter_name not in model.peft_config:
        raise InputError(f"there is no adapter {adapter_name!r}; there are {', '.join(sorted(model.peft_config))}")
    layers = [layer for layer in model.modules() if isinstance(layer, CPLayer)]
    if merged := sorted({name for layer in layers for name in layer.merged_adapters}):
        raise InputError(f"{', '.join(merged)} is merged into the base weights; call unmerge_adapter first")
    if any(is_dynamically_quantized(layer.get_base_layer()) for layer in layers):
        raise InputError(
            "LoRA does not adapt torch's dynamically quantized layers; save the adapter, export it with export_to_lora"
            " and load that beside the unquantized model"
        )
    # The copy has the embeddings, so the adapter's weights need not include them.
    state = get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=False)
    scales = {
        name: module.cp_scale[adapter_name]
        for name, module in model.named_modules()
        if isinstance(module, CPLayer) and adapter_name in module.cp_scale
    }
    config, lora_state = _as_lora(model.peft_config[adapter_name], state, scales)
    config.fan_in_fan_out = all(isinstance(layer.get_base_layer(), Conv1D) for layer in layers)
    tuner = copy.deepcopy(model.base_model)
    for module in tuner.modules():
        if isinstance(module, AuxiliaryTrainingWrapper):
            # Else unloading puts the active adapter's modules where the untrained ones were.
            module.set_adapter([])
    lora = get_peft_model(tuner.unload(), config, adapter_name=adapter_name)
    set_peft_model_state_dict(lora, lora_state, adapter_name=adapter_name)
    return lora.train(model.training)


def export_to_lora(adapter_dir: str | Path, out_dir: str | Path, *, smallest_rank: bool = False) -> Path:
    """Write a saved CP adapter as the exactly equal LoRA adapter, which PEFT loads by itself.

    This needs neither the base model nor a network. What PEFT saved a second time, the modules that are trained in
    full as they were before training, is left out.

    Args:
        adapter_dir: the folder with `adapter_config.json` and `adapter_model.safetensors`.
        out_dir: the folder for the new files of the same names; it must be empty or not exist.
        smallest_rank: where there are more components than the shorter side of the projection, use the rank of that
            side: as exact, and a smaller file.

    Returns:
        `out_dir`.

    Raises:
        InputError: there is no adapter, it is not a CP adapter or not sound (its tensors are empty, undefined or named
            by the compiler), or `out_dir` is not an empty folder.
    """
    source = Path(adapter_dir)
    for name in (CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME):
        if not (source / name).is_file():
            pickled = name == SAFETENSORS_WEIGHTS_NAME and (source / WEIGHTS_NAME).is_file()
            hint = f", and {WEIGHTS_NAME} is pickled: it could run code when it is read" if pickled else ""
            raise InputError(f"{source} is not a folder with a saved adapter: it has no {name}{hint}")
    try:
        fields = json.loads((source / CONFIG_NAME).read_text(encoding="utf-8"))
        state = load_file(source / SAFETENSORS_WEIGHTS_NAME)
    except (*UNPARSABLE, SafetensorError) as error:
        raise InputError(f"the adapter in {source} cannot be read: {error}") from None
    peft_type = fields.get("peft_type") if isinstance(fields, dict) else None
    if peft_type not in (CONFIG_TYPE, CPType.CP.value):
        raise InputError(f"the adapter in {source} is of type {peft_type}; only CP adapters can be exported")
    for fault in files.faults(state):
        raise InputError(f"the adapter in {source} is not sound: {fault}")
    if "num_components" not in fields:
        raise InputError(f"the adapter in {source} cannot be read: {CONFIG_NAME} has no num_components")
    try:
        config = CPConfig.from_pretrained(str(source))
    except InputError as error:
        raise InputError(f"the adapter in {source} cannot be read: {error}") from None
    # PEFT saves such a module by its own name, and if embeddings are saved, the copies in its wrapper too.
    copies = {"original_module", "modules_to_save"}
    state = {
        key: tensor
        for key, tensor in files.with_todays_names(state).items()
        if files.TENSOR.fullmatch(key) or copies.isdisjoint(key.split("."))
    }
    if strange := [key for key in state if f".{PREFIX}" in key and not files.TENSOR.fullmatch(key)]:
        raise InputError(f"the adapter in {source} is not sound: no CP adapter has a tensor {strange[0]!r}")
    weights = (tensor for key, tensor in state.items() if key.endswith(f".{PREFIX}adapter.weight"))
    if not any(weight.float().any() for weight in weights):
        warnings.warn(f"the adapter in {source} changes nothing: all its λ are zero, as before training", stacklevel=2)
    return write_adapter(out_dir, *_as_lora(config, state, smallest_rank=smallest_rank))


@dataclass(frozen=True)
class Ranks:
    """What the ranks of a saved LoRA adapter mean for those who use it."""

    largest: int
    for_vllm: int | None
    """The smallest `--max-lora-rank` of vLLM that holds it, if there is one."""
    above_shorter_side: list[str]
    """Modules whose rank is above the shorter side of the projection."""


def ranks(adapter_dir: str | Path) -> Ranks:
    """Read the ranks of a saved LoRA adapter."""
    with safe_open(Path(adapter_dir) / SAFETENSORS_WEIGHTS_NAME, "pt") as file:
        shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118  it isn't a dict
    found: dict[str, int] = {}
    above = []
    for key, (rank, in_features) in ((key, shape) for key, shape in shapes.items() if key.endswith(".lora_A.weight")):
        module = key.removesuffix(".lora_A.weight")
        found[module] = rank
        if rank > min(in_features, shapes[f"{module}.lora_B.weight"][0]):
            above.append(module.removeprefix(MODEL_PREFIX))
    largest = max(found.values())
    return Ranks(largest, next((rank for rank in VLLM_RANKS if rank >= largest), None), above)


def save_adapter(
    out_dir: str | Path,
    family_name: str,
    scale: float,
    params_by_module: Mapping[str, Mapping[str, Tensor]],
    *,
    shape_options: Mapping[str, Any] | None = None,
    base_model_name: str | None = None,
    revision: str | None = None,
    as_lora: bool = False,
) -> Path:
    """Write trained weights as an adapter folder that `PeftModel.from_pretrained` loads.

    "cp" becomes a CP adapter, and "lora" and "lokr" the adapters that PEFT has of these. Any other family, and with
    `as_lora` each of them, becomes the LoRA adapter that equals its pair.

    Args:
        out_dir: the folder to write to; it must be empty or not exist.
        family_name: a name in `cpadapt.families.FAMILIES`.
        scale: the factor in front of the pair.
        params_by_module: for each adapted module, by its name in the base model, the family's tensors for one
            projection, without leading axes (CP: `up_0` `[components, o_1]`, …, `weight` `[components]`;
            LoRA: `up` `[rank, out]`, `down` `[rank, in]`).
        shape_options: the family's options that decide shapes, if they are not the defaults. For "cp" the tensors
            decide them.
        base_model_name: the base model's hub id or path, for the adapter's configuration.
        revision: the revision of the base model.
        as_lora: write plain LoRA in any case, for what loads nothing else.

    Returns:
        `out_dir`.

    Raises:
        InputError: the family is unknown; there are no modules; they differ in size or split one dimension in
            different ways; a CP tensor is missing or has a wrong shape; or `out_dir` is not an empty folder.
    """
    if not params_by_module:
        raise InputError("params_by_module is empty; an adapter must have at least one module")
    fields: dict[str, Any] = {
        # Full names: their endings could match modules that were not adapted.
        "target_modules": sorted(params_by_module),
        "base_model_name_or_path": base_model_name,
        "revision": revision,
        "inference_mode": True,
    }
    if (saved_as := SAVED_AS.get(family_name)) is not None:
        config, tensors = saved_as(params_by_module, scale, fields)
        if isinstance(config, LoraConfig) or not as_lora:
            return write_adapter(out_dir, config, tensors)
    state: dict[str, Tensor] = {}
    pairs = {
        module: family(family_name).factors(
            {name: tensor.float() for name, tensor in params.items()}, **(shape_options or {})
        )
        for module, params in params_by_module.items()
    }
    rank = _common_size(down.shape[0] for _, down in pairs.values())
    for module, (up, down) in pairs.items():
        state |= _lora_tensors(MODEL_PREFIX + module, scale * up, down)
    return write_adapter(out_dir, LoraConfig(r=rank, lora_alpha=rank, **fields), state)


Saved = tuple[PeftConfig, dict[str, Tensor]]
"""An adapter's configuration, and its tensors as PEFT names them."""


def _cp(modules: Mapping[str, Mapping[str, Tensor]], scale: float, fields: Mapping[str, Any]) -> Saved:
    tensors = {
        f"{MODEL_PREFIX}{module}.{PREFIX}adapter.{name}": tensor
        for module, params in modules.items()
        for name, tensor in params.items()
    }
    return _cp_config(modules, scale=scale, **fields), tensors


def _lora(modules: Mapping[str, Mapping[str, Tensor]], scale: float, fields: Mapping[str, Any]) -> Saved:
    rank = _common_size(params["down"].shape[0] for params in modules.values())
    tensors: dict[str, Tensor] = {}
    for module, params in modules.items():
        pair = lora.factors({name: tensor.float() for name, tensor in params.items()})
        tensors |= _lora_tensors(MODEL_PREFIX + module, *pair)
    return LoraConfig(r=rank, lora_alpha=scale * rank, **fields), tensors


def _lokr(modules: Mapping[str, Mapping[str, Tensor]], scale: float, fields: Mapping[str, Any]) -> Saved:
    rank = _common_size(params["w1_a"].shape[0] for params in modules.values())
    tensors = {
        f"{MODEL_PREFIX}{module}.lokr_{name}": tensor.mT if name.endswith("_a") else tensor
        for module, params in modules.items()
        for name, tensor in params.items()
    }
    return LoKrConfig(r=rank, alpha=scale * rank, decompose_both=True, **fields), tensors


SAVED_AS: Mapping[str, Callable[..., Saved]] = {"cp": _cp, "lora": _lora, "lokr": _lokr}
"""How PEFT has the families that are saved as they are trained (`Family.SAVED_AS_TRAINED`), by name."""


def _as_lora(
    config: CPConfig,
    state: Mapping[str, Tensor],
    scales: Mapping[str, float] | None = None,
    *,
    smallest_rank: bool = False,
) -> tuple[LoraConfig, dict[str, Tensor]]:
    """Convert a CP adapter's configuration and its tensors, named as in its file, to LoRA's. Others do not change."""
    lora_state = {}
    modules: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        if match := files.TENSOR.fullmatch(key):
            modules.setdefault(match["module"], {})[match["name"]] = tensor.detach()
        else:
            lora_state[key] = tensor
    # LoRA's α/r in front of the update is 1 everywhere.
    patterns = dict(config.components_pattern)
    single: dict[str, int] = {}
    for module, params in modules.items():
        _require_cp(module, params, config.tensor_shape)
        up, down = cp.factors({name: tensor.float() for name, tensor in params.items()})
        if up.is_meta:
            raise InputError(
                f"the tensors of module {module!r} are on the meta device and have no values; load them before the"
                " adapter is converted"
            )
        up = (scales or {}).get(module, config.scale) * up
        if not up.isfinite().all():
            raise InputError(f"the update of module {module!r} is not finite at the scale {config.scale:g}")
        if smallest_rank:
            up, down = _of_smallest_rank(up, down)
        lora_state |= _lora_tensors(module, up, down)
        name = module.removeprefix(MODEL_PREFIX)
        if len(down) != patterns.get(get_pattern_key(list(patterns), name), config.num_components):
            single[name] = len(down)
    # The first that fits counts.
    ranks = single | {name: size for name, size in patterns.items() if name not in single}
    # Copies, because PEFT adds to some of these when it makes a model.
    fields = {name: copy.deepcopy(getattr(config, name)) for name in _SHARED_FIELDS}
    if config.layers_to_transform is not None:
        # LoRA would not ask in which layer a module is that is named in full.
        adapted = sorted(module.removeprefix(MODEL_PREFIX) for module in modules)
        fields |= {"target_modules": adapted, "layers_to_transform": None, "layers_pattern": None}
    rank = config.num_components
    return LoraConfig(r=rank, lora_alpha=rank, rank_pattern=ranks, alpha_pattern=dict(ranks), **fields), lora_state


def _of_smallest_rank(up: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
    """The same product, of the rank of its shorter side if that is below the number of components."""
    rank, columns = len(down), min(len(up), down.shape[1])
    if rank <= columns:
        return up, down
    if len(up) <= down.shape[1]:
        return torch.eye(len(up)), up @ down
    return up @ down, torch.eye(down.shape[1])


def _lora_tensors(module: str, up: Tensor, down: Tensor) -> dict[str, Tensor]:
    return {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}


def _cp_config(params_by_module: Mapping[str, Mapping[str, Tensor]], *, scale: float, **fields: Any) -> CPConfig:
    """The configuration of an adapter with these tensors, with all splits written out."""
    tensor_shape: dict[int, tuple[int, ...]] = {}
    for module, params in params_by_module.items():
        files.require_vectors(module, params)
        for modes in _modes(params):
            dimension = math.prod(modes)
            if tensor_shape.setdefault(dimension, modes) != modes:
                raise InputError(
                    f"module {module!r} splits {dimension} into {modes}, another module splits it into"
                    f" {tensor_shape[dimension]}; an adapter must split a dimension in one way"
                )
        _require_cp(module, params, tensor_shape)
    size = _common_size(params["weight"].shape[0] for params in params_by_module.values())
    return CPConfig(num_components=size, tensor_shape=tensor_shape, scale=scale, **fields)


def _modes(params: Mapping[str, Tensor]) -> list[tuple[int, ...]]:
    """The modes of `up` and of `down`."""
    return [
        tuple(tensor.shape[-1] for name, tensor in params.items() if name.startswith(side))
        for side in ("up_", "down_")
    ]


def _require_cp(module: str, params: Mapping[str, Tensor], tensor_shape: cp.TensorShape | None) -> None:
    """Check that tensors are those of a CP adapter that splits dimensions so.

    Raises:
        InputError: one is missing, too many or of another shape.
    """
    files.require_vectors(module, params)
    out_features, in_features = (math.prod(modes) for modes in _modes(params))
    expected = cp.shapes(out_features, in_features, len(params["weight"]), tensor_shape=tensor_shape)
    given = {name: tuple(tensor.shape) for name, tensor in params.items()}
    if given != expected:
        raise InputError(f"the CP tensors of module {module!r} must be {expected}, not {given}")


def _common_size(sizes: Iterable[int]) -> int:
    distinct = sorted(set(sizes))
    if len(distinct) != 1:
        raise InputError(f"the modules of an adapter must have one size, not the sizes {distinct}")
    return distinct[0]


def write_adapter(out_dir: str | Path, config: PeftConfig, state: Mapping[str, Tensor]) -> Path:
    """Write an adapter folder that `PeftModel.from_pretrained` loads.

    Args:
        out_dir: the folder to write to; it must be empty or not exist.
        config: PEFT's configuration; its sets become sorted lists.
        state: the tensors by the names that they have in PEFT's files.

    Returns:
        `out_dir`.

    Raises:
        InputError: `out_dir` is not an empty folder.
    """
    out = Path(out_dir)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not an empty folder; name a new one")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out} cannot be created: {error.strerror}") from None
    for name, value in vars(config).items():
        if isinstance(value, set):
            # PEFT writes a set in a different order each time.
            setattr(config, name, sorted(value))
    # Copies, because views of one another cannot be saved.
    tensors = {
        key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for key, tensor in state.items()
    }
    save_file(tensors, out / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
    # Written last, so that an interrupted folder is not taken for an adapter.
    config.save_pretrained(str(out))
    return out
