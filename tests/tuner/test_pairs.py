"""Pairs made for all layers at once are what each layer makes by itself, wherever a layer is called from."""

import copy
import importlib.util
import io
import sys
from collections import Counter

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

from cpadapt.families import cp
from cpadapt.tuner import CPConfig, pairs

# PEFT 0.21 asks transformers 5.23 models for a property under its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

# The same sums in another order.
TIGHT = {"rtol": 1e-4, "atol": 1e-6}


@pytest.fixture
def made(monkeypatch):
    """How many pairs each call of the family made."""
    calls = []
    factors = cp.factors
    monkeypatch.setattr(cp, "factors", lambda params: calls.append(params["weight"].shape) or factors(params))
    return calls


def outcome(case, model, call):
    """Logits and gradients."""
    model.zero_grad()
    output = call(**case.inputs())
    logits = output.logits if case.is_transformers else output
    logits.float().square().sum().backward()
    return logits.detach(), {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def assert_same(one, other, **tolerance):
    assert_close(one[0], other[0], **tolerance)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        assert gradient.abs().max() > 0
        assert_close(gradient, other[1][name], **tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_at_once_equals_layer_by_layer(case, dtype, made):
    model = get_peft_model(case.model(dtype), case.config(), adapter_name="a")
    model.add_adapter("b", case.config(num_components=2, scale=5.0))
    model.base_model.set_adapter(["a", "b"])
    at_once = outcome(case, model, model)
    shapes = {(p.out_features, p.in_features) for p in case.projections(case.model()).values()}
    assert len(made) == 2 * len(shapes)
    made.clear()
    # The tuner, called past the PeftModel, makes none.
    by_layer = outcome(case, model, model.base_model)
    assert len(made) == 2 * len(case.projections(case.model()))
    rounding = 20 * torch.finfo(dtype).eps
    assert_same(at_once, by_layer, rtol=rounding, atol=rounding * at_once[0].abs().max().item())


def test_nothing_is_kept_after_a_call_even_a_failing_one(toy, made):
    model = get_peft_model(toy.model(), toy.config())
    before = model(**toy.inputs())
    with pytest.raises(IndexError):
        model(input_ids=torch.tensor([[99]]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    made.clear()
    assert not torch.equal(model.base_model(**toy.inputs()), before)
    assert made == [(3,), (3,)]


def test_copies_and_files_have_pairs_of_their_own(toy, made):
    model = get_peft_model(toy.model(), toy.config())
    expected = toy.logits(model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        made.clear()
        assert torch.equal(toy.logits(other), expected)
        assert made == [(1, 3), (1, 3)]
        for parameter in other.parameters():
            parameter.data.mul_(2)
        assert not torch.equal(toy.logits(other), expected)
        assert torch.equal(toy.logits(model), expected)


def test_disabled_and_merged_layers_need_none(toy, made):
    model = get_peft_model(toy.model(), toy.config())
    with model.disable_adapter():
        toy.logits(model)
    assert not made
    model.merge_adapter()
    made.clear()
    toy.logits(model)
    assert not made


def test_a_generation_makes_them_once(llama, made):
    config = llama.config(target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    base = LlamaForCausalLM(LlamaConfig(vocab_size=50, num_hidden_layers=2, pad_token_id=0, **sizes))
    model = get_peft_model(base, config).eval()
    model.generate(**llama.inputs(), do_sample=False, max_new_tokens=5, min_new_tokens=5)
    assert made == [(2, 3), (2, 3)]


class Wayward(nn.Module):
    """Calls its projection in other ways than once, with gradient, and done."""

    def __init__(self, way):
        super().__init__()
        self.proj = nn.Linear(12, 12)
        self.way = way

    def forward(self, x):
        if self.way == "gradient within none":
            with torch.enable_grad():
                return self.proj(x)
        if self.way == "twice":
            return self.proj(self.proj(x))
        if self.way == "moved out":
            with torch.autograd.graph.save_on_cpu():
                return self.proj(x)
        return checkpoint(self.proj, x, use_reentrant=self.way == "reentrant")


@pytest.mark.parametrize("way", ["gradient within none", "twice", "moved out", "reentrant", "checkpointed"])
def test_gradients_reach_the_adapter_whatever_way_a_layer_is_called(way):
    model = get_peft_model(Wayward(way), CPConfig(num_components=2, init="normal", target_modules=["proj"]))
    x = torch.randn(3, 12, requires_grad=True)
    gradients = []
    for call in (model, model.base_model):
        model.zero_grad()
        with torch.set_grad_enabled(way != "gradient within none"):
            output = call(x)
        output.square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    for one, other in zip(*gradients, strict=True):
        assert one.abs().max() > 0
        assert_close(one, other, **TIGHT)


class Launches(TorchDispatchMode):
    """Counts what is launched: operations that are no views."""

    def __init__(self):
        super().__init__()
        self.counted = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        if not is_view and func.overloadpacket.__name__ not in ("_unsafe_view", "empty", "promote_types"):
            self.counted[func] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_further_layer_takes_no_more_launches_than_with_lora(dtype):
    def launches(config, layers):
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1}
        base = LlamaModel(LlamaConfig(vocab_size=9, num_hidden_layers=layers, pad_token_id=0, **sizes)).to(dtype)
        model = get_peft_model(base, config)
        with Launches() as launches:
            model(torch.tensor([[1, 2]]), use_cache=False).last_hidden_state.float().sum().backward()
        return launches.counted.total()

    targets = ["q_proj", "v_proj"]
    few, many, lora = (
        launches(config, layers)
        for config, layers in (
            (CPConfig(num_components=3, target_modules=targets), 2),
            (CPConfig(num_components=3, target_modules=targets), 6),
            (LoraConfig(r=1, target_modules=targets), 6),
        )
    )
    lora -= launches(LoraConfig(r=1, target_modules=targets), 2)
    assert many - few <= lora


@pytest.mark.slow
def test_compiles_as_one_graph_and_equals_eager(llama, monkeypatch):
    # Under a name whose shapes nothing checks: the compiler could not see through that.
    spec = importlib.util.spec_from_file_location("unchecked", cp.__file__)
    unchecked = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, unchecked)
    spec.loader.exec_module(unchecked)
    monkeypatch.setattr(pairs, "cp", unchecked)
    model = get_peft_model(llama.model(), llama.config()).train()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert_same(outcome(llama, model, compiled), outcome(llama, model, model), **TIGHT)
