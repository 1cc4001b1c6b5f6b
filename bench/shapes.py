"""Backbones for timing: real ones by name, and `…-shape`: the sizes of a known model, filled with random weights.

The time of a step depends on sizes and lengths, not on what the weights are. So a model whose weights cannot be had
is timed all the same, on texts of the real tasks; the lengths are those of another model's tokenizer if its own is
missing too.
"""

import torch
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from cpadapt.errors import InputError
from cpadapt.inputs.backbones.loading import Backbone, load_backbone
from cpadapt.inputs.backbones.specs import BACKBONES, Dtype, Projection, Source

SHAPE = "-shape"
"""What the name of a backbone with random weights ends with."""

TARGETS = ("q_proj", "v_proj", "query", "value")

TOKENIZERS = ("smollm2", "minilm")
"""Backbones whose tokenizer may stand in, the first that is here."""


def load(name: str, *, dtype: Dtype, device: str) -> Backbone:
    """Load a backbone as `cpadapt.load_backbone`, or make one of a known shape (`opt-1.3b-shape`).

    Raises:
        InputError: the shape is not of a known backbone, or there is no tokenizer for it.
    """
    if not name.endswith(SHAPE):
        return load_backbone(name, dtype=dtype, device=device)
    known = name.removesuffix(SHAPE)
    if known not in BACKBONES:
        raise InputError(f"no shape {name!r}: give one of {', '.join(BACKBONES)} with {SHAPE} at its end")
    model, of_lengths = make(known, dtype=dtype, device=device)
    projections = tuple(
        Projection(path, module.out_features, module.in_features)
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and path.rpartition(".")[2] in TARGETS
    )
    return Backbone(
        name=name,
        model=model.eval().requires_grad_(False).to(device),
        tokenizer=of_lengths,
        source=Source("memory", "seed 0", None, None),
        decoder=model.config.model_type != "bert",
        projections=projections,
        max_length=model.config.max_position_embeddings,
        bos_token_id=None,
    )


def make(known: str, *, dtype: Dtype, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Random weights of a known backbone's shape, drawn on the device, and a tokenizer that stands in for its own.

    Raises:
        InputError: there is no tokenizer, or it has more tokens than the shape.
    """
    config = BACKBONES[known].config()
    for dropout in ("dropout", "attention_dropout", "layerdrop"):
        if hasattr(config, dropout):
            setattr(config, dropout, 0.0)
    of_lengths = _tokenizer()
    if len(of_lengths) > config.vocab_size:
        raise InputError(f"{known!r} has {config.vocab_size} tokens, fewer than the tokenizer's {len(of_lengths)}")
    # Drawn where they stay: a billion numbers take long on a CPU.
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModel.from_config(config, dtype=getattr(torch, dtype), attn_implementation="sdpa")
    return model, of_lengths


def _tokenizer() -> PreTrainedTokenizerBase:
    for name in TOKENIZERS:
        try:
            return load_backbone(name).tokenizer
        except InputError as error:
            reason = error
    raise InputError(f"no tokenizer is here that could give the lengths: {reason}")
