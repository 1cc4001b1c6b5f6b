"""One adapted projection, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from peft import LoKrConfig, get_peft_model
from torch import nn
from torch.testing import assert_close
from transformers import BartConfig, BartForConditionalGeneration, LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

from cpadapt.families import cp
from cpadapt.tuner import CPConfig, CPLayer
from cpadapt.tuner.layer import CPLinear

# PEFT 0.21 asks transformers 5.23 models for a property under its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.mark.parametrize(
    ("out_features", "in_features", "shape"),
    [(24, 24, None), (12, 30, {12: (2, 2, 3)}), (7, 24, {7: (7,), 24: (4, 6)})],
)
@pytest.mark.parametrize("kind", ["linear", "conv1d"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_forward_equals_the_oracle(delta, kind, out_features, in_features, shape, dtype):
    base = nn.Linear(in_features, out_features) if kind == "linear" else Conv1D(out_features, in_features)
    base.to(dtype)
    config = CPConfig(num_components=4, tensor_shape=shape, scale=2.0, init="normal", raw_norm=0.3)
    layer = CPLinear(base, "default", config)
    oracle = delta(layer, "default")
    stored = layer.get_delta_weight("default")
    assert stored.shape == base.weight.shape
    assert_close(stored.double(), oracle if kind == "linear" else oracle.T, rtol=1e-5, atol=1e-6)
    x = torch.randn(3, 5, in_features, dtype=dtype)
    output = layer(x)
    assert output.dtype == dtype
    tolerance = max(8 * torch.finfo(dtype).eps, 1e-6)  # the factors are float32 at best
    expected = base(x).double() + F.linear(x.double(), oracle)
    assert_close(output.double(), expected, rtol=tolerance, atol=tolerance)
    layer.merge(safe_merge=True)
    assert_close(layer(x).double(), expected, rtol=4 * tolerance, atol=4 * tolerance)


def test_the_pair_is_made_once_a_forward_and_adapter(monkeypatch):
    made = []
    factors = cp.factors
    monkeypatch.setattr(cp, "factors", lambda params: made.append(0) or factors(params))
    layer = CPLinear(nn.Linear(12, 12), "a", CPConfig(num_components=2))
    layer.update_layer("b", CPConfig(num_components=2))
    layer.set_adapter(["a", "b"])
    x = torch.randn(4, 12)
    for names, count in ((None, 2), (["a", "b", "a", "__base__"], 2), (["b", "b", "b", "b"], 1)):
        made.clear()
        layer(x, adapter_names=names)
        assert len(made) == count


def test_works_under_autocast():
    layer = CPLinear(nn.Linear(24, 12), "default", CPConfig(num_components=2, init="normal"))
    x = torch.randn(3, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = layer(x)
    assert output.dtype == torch.bfloat16
    assert_close(output.float(), layer(x), rtol=0.05, atol=0.1)


@pytest.mark.parametrize(("out_features", "in_features"), [(384, 384), (576, 192), (24, 30), (48, 2048)])
def test_one_component_is_lokr(out_features, in_features):
    """With r = 1 and `decompose_both`, LoKr's update is (a bᵀ) ⊗ (c dᵀ): a component, λ within."""

    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(in_features, out_features))

    ours = get_peft_model(model(), CPConfig(num_components=1, init="normal", target_modules=["0"]))
    config = LoKrConfig(r=1, alpha=1, decompose_both=True, target_modules=["0"])
    theirs = get_peft_model(model(), config)
    (layer,) = [module for module in ours.modules() if isinstance(module, CPLayer)]
    lokr = theirs.base_model.model[0]
    unit = {name: raw / raw.norm() for name, raw in layer.cp_adapter["default"].tensors().items() if name != "weight"}
    factor = layer.cp_scale["default"] * layer.cp_adapter["default"].weight
    lokr.lokr_w1_a["default"].data = factor * unit["up_0"].T
    lokr.lokr_w1_b["default"].data = unit["down_0"]
    lokr.lokr_w2_a["default"].data = unit["up_1"].T
    lokr.lokr_w2_b["default"].data = unit["down_1"]
    assert_close(layer.get_delta_weight("default"), lokr.get_delta_weight("default"), rtol=1e-5, atol=1e-6)
    x = torch.randn(3, in_features)
    assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    # The same step but for λ.
    assert ours.get_nb_trainable_parameters()[0] == theirs.get_nb_trainable_parameters()[0] + 1


class Quantized(nn.Linear):
    def __init__(self):
        super().__init__(12, 12)
        self.weight = nn.Parameter(torch.zeros(12, 12, dtype=torch.int8), requires_grad=False)


@pytest.mark.parametrize(
    ("module", "target", "fields", "why"),
    [
        (nn.Embedding(9, 4), "block", {}, r"module 'block' .* of type torch.nn.modules.sparse.Embedding, but must be"),
        (nn.Conv1d(4, 4, 1), "block", {}, r"module 'block' .* of type torch.nn.modules.conv.Conv1d, but must be"),
        (nn.MultiheadAttention(8, 2), "block.out_proj", {}, r"module 'block.out_proj' .* would do nothing"),
        (Quantized(), "block", {}, r"module 'block' .* weight of type torch.int8 and is not a quantized layer"),
        (
            nn.Linear(4, 4),
            "block",
            {"num_components": 17},
            r"module 'block' .* 17 CP components .* at most 16",
        ),
    ],
)
def test_refused_by_name(module, target, fields, why):
    model = nn.Module()
    model.block = module
    with pytest.raises(ValueError, match=why):
        get_peft_model(model, CPConfig(**{"num_components": 1, "target_modules": [target]} | fields))


SMALL = {"vocab_size": 30, "max_position_embeddings": 32, "pad_token_id": 0, "eos_token_id": 2}


def small_llama():
    config = LlamaConfig(
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.5,
        **SMALL,
    )
    return LlamaForCausalLM(config)


def small_bart():
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in {"layers": 1, "attention_heads": 2, "ffn_dim": 32}.items()
    }
    return BartForConditionalGeneration(
        BartConfig(d_model=24, init_std=0.5, decoder_start_token_id=2, forced_eos_token_id=2, **sides, **SMALL)
    )


@pytest.mark.parametrize(("make", "num_beams"), [(small_llama, 1), (small_llama, 3), (small_bart, 3)])
def test_generating_with_mixed_adapters(make, num_beams):
    """Beam search repeats the decoder's rows; the encoder sees them once."""
    torch.manual_seed(0)
    config = CPConfig(num_components=3, init="normal", scale=20.0, target_modules=["q_proj", "v_proj"])
    model = get_peft_model(make(), config, adapter_name="a")
    model.add_adapter("b", config)
    model.eval()
    inputs = {"input_ids": torch.randint(3, 30, (3, 5)), "attention_mask": torch.ones(3, 5, dtype=torch.long)}
    options = {"num_beams": num_beams, "do_sample": False, "max_new_tokens": 4, "min_new_tokens": 4}
    names = ["b", "__base__", "a"]
    mixed = model.generate(**inputs, **options, adapter_names=names)
    alone = {}
    for name in ("a", "b"):
        model.set_adapter(name)
        alone[name] = model.generate(**inputs, **options)
    with model.disable_adapter():
        alone["__base__"] = model.generate(**inputs, **options)
    assert torch.equal(mixed, torch.stack([alone[name][row] for row, name in enumerate(names)]))
    assert not torch.equal(alone["a"], alone["b"])
