"""Pairs made for all layers at once are what each layer makes by itself, wherever a layer is called from, and belong
to one call."""

import copy
import importlib.util
import io
import itertools
import sys
import threading
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
from cpadapt.tuner import CPConfig, adapter

# PEFT 0.21 asks transformers 5.23 models for a property under its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

KINDS = ["cp", "lora"]

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


class Either(nn.Module):
    """Calls one projection or the other, or the second only where no gradient is kept."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(12, 12), nn.Linear(12, 12)

    def forward(self, x, which):
        if which == "one":
            with torch.no_grad():
                self.other(x)
            return self.one(x)
        return self.one(x) + self.other(x) if which == "both" else self.other(x)


def either(kind):
    torch.manual_seed(0)
    if kind == "cp":
        config = CPConfig(num_components=2, init="normal", target_modules=["one", "other"])
    else:
        config = LoraConfig(r=2, init_lora_weights=False, target_modules=["one", "other"])
    model = get_peft_model(Either(), config)
    return model, {name: p for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_that_is_not_called_gets_no_gradient_and_is_not_moved(kind):
    """Of a gradient of zeros an optimizer's weight decay makes a step."""
    model, trained = either(kind)
    before = {name: p.detach().clone() for name, p in trained.items()}
    optimizer = torch.optim.AdamW(trained.values(), 0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(3, 12), "one").square().sum().backward()
        assert all((p.grad is None) is ("other" in name) for name, p in trained.items())
        optimizer.step()
    for name, parameter in trained.items():
        assert torch.equal(parameter, before[name]) is ("other" in name)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_several_calls_and_of_one_graph_twice_add_up(kind):
    model, trained = either(kind)
    x = torch.randn(3, 12)

    def gradients(*losses):
        model.zero_grad()
        for loss in losses:
            loss.square().sum().backward(retain_graph=True)
        return {name: p.grad for name, p in trained.items()}

    one, other, both = (gradients(model(x, which)) for which in ("one", "other", "both"))
    assert all((one[name] is None) is ("other" in name) for name in trained)
    assert all((other[name] is None) is ("one" in name) for name in trained)
    assert all(gradient.abs().max() > 0 for gradient in both.values())
    summed = gradients(model(x, "one"), model(x, "other"))
    for name, gradient in summed.items():
        assert_close(gradient, one[name] if other[name] is None else other[name], **TIGHT)
    # One call, of which first one part is used and then the other.
    with model._enable_peft_forward_hooks():
        parts = [model.base_model.model.one(x), model.base_model.model.other(x)]
    for name, gradient in gradients(*parts).items():
        assert_close(gradient, summed[name], **TIGHT)
    assert all((gradient is None) is ("other" in name) for name, gradient in gradients(parts[0]).items())


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


@pytest.mark.long
def test_compiles_as_one_graph_and_equals_eager(llama, monkeypatch):
    # Under a name whose shapes nothing checks: the compiler could not see through that.
    spec = importlib.util.spec_from_file_location("unchecked", cp.__file__)
    unchecked = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, unchecked)
    spec.loader.exec_module(unchecked)
    monkeypatch.setattr(adapter, "cp", unchecked)
    model = get_peft_model(llama.model(), llama.config()).train()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert_same(outcome(llama, model, compiled), outcome(llama, model, model), **TIGHT)


class Held:
    """Calls in threads of their own, each held in the middle of the model until it is let go."""

    def __init__(self, module):
        self.threads = {}
        self._module = module

    def __enter__(self):
        self._hook = self._module.register_forward_pre_hook(self._hold)
        return self

    def __exit__(self, *args):
        self._hook.remove()

    def _hold(self, module, args):
        held = self.threads.get(threading.current_thread().name)
        if held is not None:
            held["begun"].set()
            assert held["go"].wait(20)

    def begin(self, name, function):
        held = {"begun": threading.Event(), "go": threading.Event(), "error": None}

        def run():
            try:
                held["result"] = function()
            except Exception as error:
                held["error"] = error

        held["thread"] = threading.Thread(target=run, name=name)
        self.threads[name] = held
        held["thread"].start()
        assert held["begun"].wait(20)

    def end(self, name):
        held = self.threads.pop(name)
        held["go"].set()
        held["thread"].join(20)
        assert held["error"] is None
        return held["result"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [*itertools.permutations("ab"), *itertools.permutations("abc")])
def test_calls_that_overlap_leave_nothing_behind(llama, order, kind):
    """However they end: no later call answers with what a former adapter was."""
    model = get_peft_model(llama.model(), llama.config(kind)).eval()
    expected = llama.logits(model)
    with Held(model.base_model.model.model.layers[1]) as held:
        for name in sorted(order):
            held.begin(name, lambda: llama.logits(model))
        for name in order:
            assert torch.equal(held.end(name), expected)
    for name, parameter in model.named_parameters():
        if name.endswith(("cp_adapter.default.weight", "lora_B.default.weight")):
            parameter.data.zero_()
    base = llama.logits(llama.model())
    assert torch.equal(llama.logits(model), base)
    assert torch.equal(llama.logits(model.get_base_model()), base)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", list(itertools.permutations(["serves", "trains"])))
def test_a_step_beside_a_call_takes_its_own_gradients(llama, order, kind):
    """A call that began before a step of training ends within the next one."""

    def gradients(overlapping):
        torch.manual_seed(7)
        model = get_peft_model(llama.model(), llama.config(kind))
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
        norms = []

        def trains():
            optimizer.zero_grad()
            model(**llama.inputs()).logits.square().sum().backward()
            norms.append([p.grad.norm().item() for p in model.parameters() if p.grad is not None])
            optimizer.step()

        if not overlapping:
            trains()
            trains()
            return norms
        with Held(model.base_model.model.model.layers[1]) as held:
            held.begin("serves", lambda: llama.logits(model))
            trains()
            held.begin("trains", trains)
            for name in order:
                held.end(name)
        return norms

    alone = gradients(overlapping=False)
    assert alone[0] != alone[1]
    assert gradients(overlapping=True) == alone


def test_mixed_batches_beside_each_other_keep_their_names(llama):
    """Names for the rows of one call reach neither another call nor another thread, saved modules included."""
    config = llama.config(modules_to_save=[llama.head])
    model = get_peft_model(llama.model(), config, adapter_name="a")
    model.add_adapter("b", llama.config(modules_to_save=[llama.head]))
    head = model.base_model.model.score.modules_to_save
    head["b"].weight.data.normal_()
    model.eval()
    names = {"one": ["a", "b", "a", "__base__"], "other": ["b", "a", "__base__", "b"], "none": None}
    expected = {key: llama.logits(model, adapter_names=value) for key, value in names.items()}
    assert not torch.equal(expected["one"], expected["other"])
    for order in itertools.permutations(names):
        with Held(model.base_model.model.model.layers[0]) as held:
            for key, value in names.items():
                held.begin(key, lambda value=value: llama.logits(model, adapter_names=value))
            for key in order:
                assert torch.equal(held.end(key), expected[key])
    assert torch.equal(llama.logits(model), expected["none"])


def test_where_torch_cannot_say_what_is_saved_each_layer_makes_its_own(toy, made, monkeypatch):
    monkeypatch.delattr(torch._C._autograd, "_top_saved_tensors_default_hooks")
    model = get_peft_model(toy.model(), toy.config())
    toy.logits(model)
    assert len(made) == 2
    made.clear()
    outcome(toy, model, model)
    assert made == [(1, 3), (1, 3), (3,), (3,)]


@pytest.mark.parametrize("name", ["_forward_pre_hooks", "_forward_hooks"])
def test_where_torch_does_not_show_hooks_there_may_be_one(toy, name):
    model = get_peft_model(toy.model(), toy.config())
    (first, *_) = (module for module in model.modules() if isinstance(module, adapter.CPAdapter))
    assert first.is_at_hand()
    delattr(first, name)
    assert not first.is_at_hand()
