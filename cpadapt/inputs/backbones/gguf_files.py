"""GGUF files: read once, dequantized to float32 and written as a model that transformers can load.

transformers reads GGUF files too, and the tests compare the tensors bit for bit. But it takes minutes for a model of
1.5 billion weights, and the tokenizer that it makes depends on its version.
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from cpadapt.errors import InputError

CHUNK = 1 << 18
"""Scalars dequantized at once: few enough for a core's cache, and enough to keep several threads busy."""

SHARD_BYTES = 1 << 30
"""Bytes of a file of weights, unless a single tensor is larger. Memory holds one such file and a copy of it."""

_CONTROL, _USER_DEFINED = 3, 4
"""GGUF's types of tokens that the tokenizer finds in a text before it splits the text."""


def open_gguf(file: Path) -> Any:
    """Open a GGUF file as a `gguf.GGUFReader`.

    Raises:
        InputError: the package `gguf` is not installed, or this is not a GGUF file.
    """
    try:
        from gguf import GGUFReader
    except ImportError:
        raise InputError("reading a GGUF file needs the package gguf: `pip install gguf`") from None
    try:
        return GGUFReader(file)
    except (ValueError, IndexError) as error:
        raise InputError(f"{file.name} is not a valid GGUF file: {error}") from None


def sizes_of(config: PreTrainedConfig) -> dict[str, Any]:
    """The sizes of a decoder's configuration, by the names that GGUF has for them."""
    return {
        "architecture": config.model_type,
        "context_length": config.max_position_embeddings,
        "block_count": config.num_hidden_layers,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": config.rope_parameters["rope_theta"],
        "vocab_size": config.vocab_size,
    }


def check_sizes(reader: Any, config: PreTrainedConfig) -> None:
    """Check that the sizes that a GGUF file states are those of a configuration.

    Raises:
        InputError: a size, the epsilon of the norms or the base of the rotary positions differs.
    """
    architecture = _field(reader, "general.architecture")
    tokens = len(_field(reader, "tokenizer.ggml.tokens"))
    for name, known in sizes_of(config).items():
        general = {"architecture": architecture, "vocab_size": tokens}
        stated = general[name] if name in general else _field(reader, f"{architecture}.{name}")
        # GGUF has real numbers in single precision.
        if stated != (np.float32(known) if isinstance(known, float) else known):
            raise InputError(f"the GGUF file's {name} is {stated}; it should be {known}")


def write_model(
    reader: Any, config: PreTrainedConfig, folder: Path, advance: Callable[[int], None] = lambda scalars: None
) -> str:
    """Dequantize all tensors to float32 and write the causal model, with its `config.json`.

    Args:
        reader: the file, from `open_gguf`.
        config: the configuration of the model. Its `tie_word_embeddings` is set here: True if the file has no output
            embedding.
        folder: the folder to write to.
        advance: called with the number of scalars written since its last call.

    Returns:
        The sha256 of all tensors, however they are divided into files: the sha256 of a text that has the line
        `SHA256  NAME float32 SHAPE` for each tensor, in the order of their names.

    Raises:
        InputError: the tensors in the file are not those of the architecture.
    """
    config.tie_word_embeddings = all(tensor.name != "output.weight" for tensor in reader.tensors)
    sources = _sources(reader, config)
    shards: list[list[str]] = []
    room = 0
    for name, tensor in sources.items():
        size = 4 * int(tensor.n_elements)
        if size > room:
            shards.append([])
            room = SHARD_BYTES
        shards[-1].append(name)
        room -= size
    files = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    hashes: dict[str, str] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for file, names in zip(files, shards, strict=True):
            tensors = {name: _dequantize(sources[name], config, pool) for name in names}
            hashes |= dict(zip(names, pool.map(_digest, tensors.values()), strict=True))
            save_file(tensors, folder / file, metadata={"format": "pt"})
            advance(sum(values.size for values in tensors.values()))
    index = {
        "metadata": {"total_size": sum(4 * int(tensor.n_elements) for tensor in sources.values())},
        "weight_map": {name: file for file, names in zip(files, shards, strict=True) for name in names},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    for kind, token in _special_tokens(reader).items():
        setattr(config, f"{kind}_token_id", token)
    config.dtype = "float32"
    config.save_pretrained(folder)
    shapes = {name: list(map(int, reversed(tensor.shape))) for name, tensor in sources.items()}
    listing = "".join(f"{hashes[name]}  {name} float32 {shapes[name]}\n" for name in sorted(sources))
    return hashlib.sha256(listing.encode()).hexdigest()


def read_tokenizer(
    reader: Any, pre_tokenizer: PreTokenizer, normalizer: Normalizer | None = None
) -> PreTrainedTokenizerBase:
    """Build the byte-level tokenizer of a GGUF file.

    Args:
        reader: the file, from `open_gguf`.
        pre_tokenizer: splits a text into words; the file gives only a name for it.
        normalizer: changes the text before it is split.
    """
    tokens: list[str] = _field(reader, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in _field(reader, "tokenizer.ggml.merges")]
    special = {f"{kind}_token": tokens[token] for kind, token in _special_tokens(reader).items()}
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token=special.get("unk_token")))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    kinds = list(zip(tokens, _field(reader, "tokenizer.ggml.token_type"), strict=True))
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t, kind in kinds if kind == _CONTROL])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t, kind in kinds if kind == _USER_DEFINED])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special)


def _field(reader: Any, name: str) -> Any:
    if name not in reader.fields:
        raise InputError(f"the GGUF file has no field {name}")
    return reader.fields[name].contents()


def _special_tokens(reader: Any) -> dict[str, int]:
    named = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    keys = {kind: f"tokenizer.ggml.{name}_token_id" for kind, name in named.items()}
    return {kind: _field(reader, key) for kind, key in keys.items() if key in reader.fields}


def _sources(reader: Any, config: PreTrainedConfig) -> dict[str, Any]:
    """The tensors of the file by their names in transformers' causal model, in the order of the model."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    (architecture,) = (arch for arch, name in MODEL_ARCH_NAMES.items() if name == config.model_type)
    names = get_tensor_name_map(architecture, config.num_hidden_layers)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in model.state_dict().items()
        if not (config.tie_word_embeddings and name == "lm_head.weight")
    }
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    gguf_names = {name: f"{names.get_name(name.rpartition('.')[0])}.{name.rpartition('.')[2]}" for name in shapes}
    if wrong := sorted(tensors.keys() ^ set(gguf_names.values())):
        raise InputError(f"the GGUF file's tensors are not those of a {config.model_type} model: {', '.join(wrong)}")
    for name, shape in shapes.items():
        # GGUF lists the axes in reverse order.
        if (stated := tuple(map(int, reversed(tensors[gguf_names[name]].shape)))) != shape:
            raise InputError(f"the GGUF file's {gguf_names[name]} has the shape {stated}; it should be {shape}")
    return {name: tensors[gguf_names[name]] for name in shapes}


def _dequantize(tensor: Any, config: PreTrainedConfig, pool: ThreadPoolExecutor) -> NDArray[np.float32]:
    from gguf import GGML_QUANT_SIZES
    from gguf.quants import dequantize

    data = np.asarray(tensor.data)
    kind = tensor.name.rpartition(".")[0].rpartition(".")[2]
    if config.model_type == "llama" and kind in ("attn_q", "attn_k"):
        # Rotary positions rotate pairs of rows. In GGUF's Llama a pair is adjacent, in transformers half a head apart.
        heads = config.num_attention_heads if kind == "attn_q" else config.num_key_value_heads
        data = data.reshape(heads, -1, 2, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)
    flat = data.reshape(-1).view(np.uint8)
    scalars, size = GGML_QUANT_SIZES[tensor.tensor_type]
    dequantized = np.empty(int(tensor.n_elements), np.float32)
    step = CHUNK // scalars

    def fill(block: int) -> None:
        part = flat[block * size : (block + step) * size]
        dequantized[block * scalars : (block + step) * scalars] = dequantize(part, tensor.tensor_type)

    # A row consists of whole blocks, and each block is dequantized independently.
    deque(pool.map(fill, range(0, len(flat) // size, step)), maxlen=0)
    return dequantized.reshape([int(n) for n in reversed(tensor.shape)])


def _digest(values: NDArray[np.float32]) -> str:
    return hashlib.sha256(values.data).hexdigest()
