"""Loading a frozen model, and finding its projections."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import torch
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from safetensors import safe_open
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

from cpadapt.errors import InputError
from cpadapt.inputs.backbones.projections import last_parts, targeted
from cpadapt.inputs.backbones.sources import (
    _config_in,
    complete,
    load_tokenizer,
    locate,
    quiet,
    read_config,
    reason_of,
    weight_files,
)
from cpadapt.inputs.backbones.specs import BACKBONES, IN_MEMORY, SPECIAL_TOKENS, Dtype, Projection, Source


@dataclass
class Backbone:
    """A frozen model without a head, with its tokenizer."""

    name: str
    model: PreTrainedModel
    """In `eval()` mode, so without dropout; no parameter requires a gradient."""
    tokenizer: PreTrainedTokenizerBase
    source: Source
    decoder: bool
    """Whether the model is causal. A decoder gets a prompt and is pooled at the last token; an encoder gets one text
    or two and is pooled over all tokens."""
    projections: tuple[Projection, ...]
    """The target modules, in the order of the model."""
    max_length: int
    """The most tokens that the positions and the tokenizer allow."""
    bos_token_id: int | None
    """The token that must come first, whether or not the tokenizer adds it (OPT's `</s>`)."""
    folder: Path | None = None
    """The folder with its files; None if it was built in memory."""

    def output_embedding(self, tokens: Sequence[int]) -> Tensor:
        """Rows of a decoder's output embedding, `[tokens, hidden]`, float32.

        If the output embedding is tied to the input embedding, the rows come from the model. Otherwise they come from
        the files, in the precision of the files, because the model is loaded without a head.

        Raises:
            InputError: the output has a bias, or the embedding is untied and in no file.
        """
        return _output_embedding(self, tokens)


_BYTES = tuple(sorted(pre_tokenizers.ByteLevel.alphabet()))


def load_backbone(
    name: str,
    *,
    dtype: Dtype = "float32",
    device: str = "cpu",
    target_modules: Sequence[str] | None = None,
) -> Backbone:
    """Load a frozen backbone and find the projections that get adapters.

    Args:
        name: a known name (a key of `BACKBONES`), a hub id or a local folder. The text of `cpadapt.inputs.backbones`
            says where each is searched.
        dtype: the type of the weights in memory.
        device: a device of torch, such as `"cuda"`.
        target_modules: the last parts of module paths, such as `q_proj`. By default those that PEFT adapts with LoRA
            on this architecture.

    Raises:
        InputError: there is no such backbone; its weights are not on this machine and the hub cannot be reached; the
            sha256 of a file is not the known one; the files are damaged, pickled, lack weights or do not belong
            together; the model needs code of its own; or a target module is not in the model.
    """
    if dtype not in get_args(Dtype):
        raise InputError(f"unknown dtype {dtype!r}; known are {', '.join(get_args(Dtype))}")
    if name in IN_MEMORY:
        model, tokenizer, source = build_tiny(name, dtype=dtype)
        projections = _projections(name, model, target_modules)
        folder = None
    else:
        located = locate(name)
        folder = located.path
        # A wrong configuration or target is found before gigabytes are read.
        config = _config_in(name, folder)
        projections = _projections(name, _described(name, config), target_modules)
        with quiet():
            model = _load_model(name, folder, config, getattr(torch, dtype))
            tokenizer = load_tokenizer(name, folder)
            source = complete(name, located, tokenizer)
    decoder = _is_decoder(name, model.config)
    model.eval().requires_grad_(False).to(device)
    return Backbone(
        name=name,
        model=model,
        tokenizer=tokenizer,
        source=source,
        decoder=decoder,
        projections=projections,
        max_length=_max_length(model.config, tokenizer),
        bos_token_id=_leading_token(model.config, tokenizer),
        folder=folder,
    )


def projections_of_model(name: str, target_modules: Sequence[str] | None = None) -> tuple[Projection, ...]:
    """Find the projections that get adapters in the model that the configuration describes, without the weights.

    Args and errors are those of :func:`cpadapt.inputs.backbones.projections.load_projections`.
    """
    config = BACKBONES[name].config() if name in BACKBONES else read_config(name)
    return _projections(name, _described(name, config), target_modules)


def _described(name: str, config: PreTrainedConfig) -> PreTrainedModel:
    """The model that a configuration describes, without weights.

    Raises:
        InputError: it is not a decoder or encoder of text, or its values do not make a model.
    """
    _is_decoder(name, config)
    try:
        with quiet(), torch.device("meta"):
            model: PreTrainedModel = AutoModel.from_config(config, trust_remote_code=False)
    # The architecture takes the values as they come, and raises whatever they lead to.
    except Exception as error:
        raise InputError(f"the config.json of {name!r} cannot be used: {reason_of(error)}") from error
    return model


def build_tiny(
    name: str, *, seed: int = 0, dtype: Dtype = "float32"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Source]:
    """Build `tiny` or `tiny-encoder` in memory.

    The weights are drawn here and not by transformers, whose small initial spread would leave hardly a trace of the
    text in the last layer. Embeddings are standard normal, matrices normal with variance 1/in, norms one, biases zero.

    Args:
        name: `tiny` or `tiny-encoder`.
        seed: decides the weights.
        dtype: the type of the weights.

    Returns:
        The model, a tokenizer with one token for each byte, and the source.
    """
    with quiet(), torch.random.fork_rng(devices=[]):
        model = AutoModel.from_config(
            BACKBONES[name].config(), dtype=getattr(torch, dtype), attn_implementation="sdpa"
        )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            for kind, weight in module.named_parameters(recurse=False):
                if weight.dim() == 1:
                    weight.fill_(float(kind == "weight"))
                else:
                    spread = 1.0 if isinstance(module, nn.Embedding) else 1 / math.sqrt(weight.shape[1])
                    weight.copy_(torch.randn(weight.shape, generator=generator) * spread)
    return (
        model,
        _byte_tokenizer(encoder=name == "tiny-encoder"),
        Source("memory", f"seed {seed}", None, None),
    )


def _byte_tokenizer(encoder: bool) -> PreTrainedTokenizerBase:
    vocabulary = {token: i for i, token in enumerate((*SPECIAL_TOKENS, *_BYTES))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"pad_token": "[PAD]", "eos_token": "[SEP]"}
    if encoder:
        special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
        )
    inputs = ["input_ids", "token_type_ids", "attention_mask"] if encoder else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=1024, model_input_names=inputs, **special
    )


def _load_model(name: str, folder: Path, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    pickled = all(file.suffix == ".bin" for file in weight_files(folder, pickled=True))  # `locate` has accepted them
    try:
        model, report = AutoModel.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            attn_implementation="sdpa",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=not pickled,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (ImportError, OSError) as error:  # quantized weights without their package; weights of another name
        raise InputError(f"the weights of {name!r} cannot be read: {reason_of(error)}") from error
    if mismatched := sorted(report["mismatched_keys"]):
        key, found, wanted = mismatched[0]
        raise InputError(
            f"the weights of {name!r} are not those of its config.json: {key} is {tuple(found)} in the files and"
            f" {tuple(wanted)} in the model"
        )
    # transformers would draw missing weights at random and only log it. Only the pooler is not needed here.
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise InputError(f"the weights of {name!r} lack {len(missing)} tensors of the architecture: {missing[0]}, …")
    return model


def _is_decoder(name: str, config: PreTrainedConfig) -> bool:
    """Whether a model is causal: it has a causal head and no masked one, or is configured as a decoder."""
    masked = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    causal = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if getattr(config, "is_encoder_decoder", False) or not (masked or causal):
        raise InputError(
            f"{name!r} is a {config.model_type} model; a backbone must be a decoder or an encoder of text"
        )
    return bool(getattr(config, "is_decoder", False)) or not masked


def _max_length(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    limit = int(getattr(config, "max_position_embeddings", sys.maxsize))
    # RoBERTa and its relatives count positions from the padding token's id + 1.
    if config.model_type in ("roberta", "xlm-roberta", "camembert", "roberta-prelayernorm", "xlm-roberta-xl"):
        limit -= config.pad_token_id + 1
    return min(limit, int(tokenizer.model_max_length))


def _leading_token(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int | None:
    # OPT was trained with </s> first. Its tokenizer files say so in a way that fast tokenizers may ignore.
    if config.model_type == "opt" or getattr(tokenizer, "add_bos_token", False):
        token: int | None = tokenizer.bos_token_id
        return token
    return None


def _projections(name: str, model: PreTrainedModel, target_modules: Sequence[str] | None) -> tuple[Projection, ...]:
    linear = [
        Projection(path, *_features(module))
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    ]
    if target_modules:
        return targeted(name, linear, target_modules)
    model_type = model.config.model_type
    defaults = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(model_type)
    if not defaults:
        raise InputError(
            f"give the target modules of {name!r}: PEFT has none for a {model_type} model; its linear modules are"
            f" {', '.join(last_parts(linear))}"
        )
    # PEFT's table may name modules that only some models of an architecture have.
    return targeted(name, linear, defaults, any_suffices=True)


def _features(module: nn.Linear | Conv1D) -> tuple[int, int]:
    """Output and input features. The weight of transformers' Conv1D is `[in, out]`."""
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    inp, out = module.weight.shape
    return out, inp


def _output_embedding(backbone: Backbone, tokens: Sequence[int]) -> Tensor:
    rows = torch.tensor(list(tokens))
    config = backbone.model.config
    if config.tie_word_embeddings:
        weight = cast(nn.Embedding, backbone.model.get_input_embeddings()).weight.detach()
        return weight[rows.to(weight.device)].float()
    with quiet(), torch.device("meta"):
        causal = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    output = causal.get_output_embeddings()
    if getattr(output, "bias", None) is not None:
        raise InputError(f"the output embedding of backbone {backbone.name!r} has a bias, which is not supported")
    (name,) = (path for path, module in causal.named_modules() if module is output)
    for file in weight_files(backbone.folder) if backbone.folder else ():
        with safe_open(file, "pt") as tensors:
            if f"{name}.weight" in tensors.keys():  # noqa: SIM118
                embedding = tensors.get_slice(f"{name}.weight")
                return torch.cat([embedding[token : token + 1] for token in tokens]).float()
    raise InputError(f"the output embedding of backbone {backbone.name!r} is untied, and no file contains it")
