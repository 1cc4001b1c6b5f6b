"""Tiny models with random weights, as folders with the names that PEFT's tests give to models of a hub."""

from pathlib import Path

import torch
import transformers
from peft import LoraConfig
from transformers import AutoConfig

_SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
_VOCABULARY = {"vocab_size": 1000, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_LLAMA = _SIZES | _VOCABULARY | {"num_key_value_heads": 2, "max_position_embeddings": 128}
_BERT = _SIZES | {"vocab_size": 1000, "max_position_embeddings": 128}
_BART = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 128,
    "decoder_start_token_id": 2, "forced_eos_token_id": 2,
}  # fmt: skip
_OPT = {
    "hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 128,
}  # fmt: skip
_T5 = {
    "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 1000,
    "decoder_start_token_id": 0,
}  # fmt: skip

MODELS: dict[str, tuple[str, str, dict[str, object]]] = {
    "hf-internal-testing/tiny-random-Gemma3ForCausalLM": (
        "Gemma3ForCausalLM",
        "gemma3_text",
        _LLAMA | {"head_dim": 8},
    ),
    "peft-internal-testing/opt-125m": ("OPTForCausalLM", "opt", _OPT | _VOCABULARY | {"num_hidden_layers": 12}),
    "peft-internal-testing/tiny-clip-text-2": (
        "CLIPTextModelWithProjection",
        "clip_text_model",
        _SIZES | _VOCABULARY,
    ),
    "peft-internal-testing/tiny-dummy-qwen2": ("Qwen2ForCausalLM", "qwen2", _LLAMA),
    "peft-internal-testing/tiny-random-BartForConditionalGeneration": (
        "BartForConditionalGeneration",
        "bart",
        _BART | _VOCABULARY,
    ),
    "peft-internal-testing/tiny-random-BertForSequenceClassification": (
        "BertForSequenceClassification",
        "bert",
        _BERT,
    ),
    "peft-internal-testing/tiny-random-BertModel": ("BertModel", "bert", _BERT),
    "peft-internal-testing/tiny-random-DebertaModel": ("DebertaModel", "deberta", _BERT),
    "peft-internal-testing/tiny-random-DebertaV2Model": ("DebertaV2Model", "deberta-v2", _BERT),
    "peft-internal-testing/tiny-random-GPT2LMHeadModel": (
        "GPT2LMHeadModel",
        "gpt2",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128} | _VOCABULARY,
    ),
    "peft-internal-testing/tiny-random-GPTJForCausalLM": (
        "GPTJForCausalLM",
        "gptj",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "rotary_dim": 4} | _VOCABULARY,
    ),
    "peft-internal-testing/tiny-random-OPTForCausalLM": ("OPTForCausalLM", "opt", _OPT | _VOCABULARY),
    "peft-internal-testing/tiny-random-RobertaForSequenceClassification": (
        "RobertaForSequenceClassification",
        "roberta",
        _BERT,
    ),
    "peft-internal-testing/tiny-random-RobertaModel": ("RobertaModel", "roberta", _BERT),
    "peft-internal-testing/tiny-random-T5ForConditionalGeneration-calibrated": (
        "T5ForConditionalGeneration",
        "t5",
        _T5,
    ),
    "trl-internal-testing/tiny-LlamaForSequenceClassification-3.2": (
        "LlamaForSequenceClassification",
        "llama",
        _LLAMA,
    ),
    # As many value heads as heads: some tests ask for LoRA of rank 20 on its value projection.
    "trl-internal-testing/tiny-random-LlamaForCausalLM": (
        "LlamaForCausalLM",
        "llama",
        _LLAMA | {"num_key_value_heads": 4},
    ),
}
"""By name: the model's class, its type and its configuration."""

ADAPTER = "peft-internal-testing/tiny-opt-lora-revision"
"""The name of an adapter whose configuration alone is read."""


def make(folder: Path) -> None:
    """Write them all."""
    transformers.utils.logging.disable_progress_bar()
    for name, (model_class, model_type, sizes) in MODELS.items():
        torch.manual_seed(0)
        config = AutoConfig.for_model(model_type, **sizes)
        getattr(transformers, model_class)(config).save_pretrained(folder / name)
    LoraConfig().save_pretrained(folder / ADAPTER)
