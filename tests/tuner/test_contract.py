"""What PEFT and transformers ask of an adapter, on each architecture."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch.testing import assert_close

from cpadapt.errors import InputError
from cpadapt.families import counting, cp
from cpadapt.tuner import CPConfig, CPLayer, export_to_lora, to_lora

# PEFT 0.21 asks transformers 5.23 models for a property under its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

# The same sums in another order.
TIGHT = {"rtol": 1e-4, "atol": 1e-5}


KINDS = ["cp", "lora"]


def two_adapters(case, **fields):
    """A model with the unlike adapters "a", which is active, and "b"."""
    model = get_peft_model(case.model(), case.config(**fields), adapter_name="a")
    model.add_adapter("b", case.config(**{"num_components": 2, "scale": 5.0} | fields))
    return model.eval()


def trainable(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def cp_layers(model):
    return [module for module in model.modules() if isinstance(module, CPLayer)]


@pytest.mark.parametrize("with_head", [False, True], ids=["adapter", "with_head"])
def test_starts_as_no_op_and_trains_only_adapter_and_saved_modules(case, with_head):
    config = case.config(init="zero", modules_to_save=[case.head] if with_head else None)
    model = get_peft_model(case.model(), config).eval()
    assert torch.equal(case.logits(model), case.logits(case.model()))
    names = trainable(model)
    head = {name for name in names if ".modules_to_save.default." in name}
    assert bool(head) is with_head
    assert all(".cp_" in name for name in names - head)
    projections = list(case.projections(case.model()).values())
    counted = sum(p.numel() for name, p in model.named_parameters() if name in names - head)
    assert counted == counting.count("cp", projections, 3)
    assert len(cp_layers(model)) == len(projections)


def test_adapts_by_default_what_lora_adapts(transformers_case):
    model = get_peft_model(transformers_case.model(), CPConfig(num_components=1))
    assert model.peft_config["default"].target_modules == set(transformers_case.targets)
    assert len(cp_layers(model)) == 4


def test_one_adapter_equals_its_sum_in_the_weights(case, plus):
    model = get_peft_model(case.model(), case.config()).eval()
    expected = case.logits(plus(case, model, "default"))
    assert (expected - case.logits(case.model())).abs().max() > 1e-2
    assert_close(case.logits(model), expected, **TIGHT)


def test_two_active_adapters_add_up(case, plus):
    model = two_adapters(case)
    model.base_model.set_adapter(["a", "b"])
    assert_close(case.logits(model), case.logits(plus(case, model, "a", "b")), **TIGHT)
    assert {name.split(".cp_")[1].split(".")[1] for name in trainable(model)} == {"a", "b"}


def test_set_disable_and_delete(case, plus):
    model = two_adapters(case)
    for adapter in ("b", "a"):
        model.set_adapter(adapter)
        assert_close(case.logits(model), case.logits(plus(case, model, adapter)), **TIGHT)
        assert {name.split(".cp_")[1].split(".")[1] for name in trainable(model)} == {adapter}
    with model.disable_adapter():
        assert torch.equal(case.logits(model), case.logits(case.model()))
    active = case.logits(model)
    model.delete_adapter("b")
    assert torch.equal(case.logits(model), active)
    assert list(model.peft_config) == ["a"]
    assert all(set(layer.cp_scale) == set(layer.cp_adapter) == {"a"} for layer in cp_layers(model))


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_save_and_load(case, tmp_path, low_cpu_mem_usage, dtype):
    # The dimensions of each model, some split into three modes or left as one.
    shape = {24: (2, 3, 4), 18: (18,)} if case.name == "toy" else {48: (4, 3, 4)}
    config = case.config(tensor_shape=shape, scale=3.0, modules_to_save=[case.head])
    model = get_peft_model(case.model(dtype), config).eval()
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    projections = case.projections(case.model())
    for name, projection in projections.items():
        prefix = f"base_model.model.{name}.cp_adapter."
        expected = cp.shapes(projection.out_features, projection.in_features, 3, tensor_shape=shape)
        found = {k.removeprefix(prefix): v for k, v in saved.items() if k.startswith(prefix)}
        assert {k: tuple(v.shape) for k, v in found.items()} == expected
        assert {v.dtype for v in found.values()} == {torch.float32}
    loaded = PeftModel.from_pretrained(case.model(dtype), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
    assert loaded.peft_config["default"].tensor_shape == shape
    assert not trainable(loaded)
    assert torch.equal(case.logits(loaded), case.logits(model))
    # A second one, on a model that has one already; bit for bit whatever the base's type is.
    loaded.load_adapter(tmp_path, adapter_name="again", low_cpu_mem_usage=low_cpu_mem_usage)
    for layer in cp_layers(loaded):
        default = layer.cp_adapter["default"].tensors()
        for name, tensor in layer.cp_adapter["again"].tensors().items():
            assert torch.equal(tensor, default[name])
            assert tensor.dtype == torch.float32
    loaded.set_adapter("again")
    assert torch.equal(case.logits(loaded), case.logits(model))


# PEFT warns so of a second adapter from transformers' own methods, LoRA or not.
@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_transformers_own_methods(transformers_case, tmp_path, dtype):
    case = transformers_case
    adapted = get_peft_model(case.model(dtype), case.config()).eval()
    adapted.save_pretrained(tmp_path)
    model = case.model(dtype)
    model.load_adapter(str(tmp_path), adapter_name="loaded")
    assert torch.equal(case.logits(model), case.logits(adapted))
    model.add_adapter(case.config(init="zero"), adapter_name="new")
    assert torch.equal(case.logits(model), case.logits(case.model(dtype)))
    assert {p.dtype for layer in cp_layers(model) for n, p in layer.named_parameters() if "cp_" in n} == {
        torch.float32
    }
    model.set_adapter("loaded")
    assert torch.equal(case.logits(model), case.logits(adapted))
    model.set_adapter(["loaded", "new"])
    assert torch.equal(case.logits(model), case.logits(adapted))
    model.disable_adapters()
    assert torch.equal(case.logits(model), case.logits(case.model(dtype)))
    model.enable_adapters()
    assert torch.equal(case.logits(model), case.logits(adapted))
    model.delete_adapter("new")
    assert torch.equal(case.logits(model), case.logits(adapted))


def test_mixed_batches_row_by_row(case):
    model = two_adapters(case, modules_to_save=[case.head])
    for name in ("a", "b"):  # unlike heads too
        wrapper = model.base_model.model.get_submodule(case.head)
        wrapper.modules_to_save[name].weight.data.normal_()
    separate = {"__base__": case.logits(case.model())}
    for name in ("a", "b"):
        model.set_adapter(name)
        separate[name] = case.logits(model)
    for names in (["a", "__base__", "b", "a"], ["b", "b", "b", "b"], ["__base__"] * 4):
        mixed = case.logits(model, adapter_names=names)
        assert_close(mixed, torch.stack([separate[name][row] for row, name in enumerate(names)]), **TIGHT)
    # The call leaves nothing behind.
    assert torch.equal(case.logits(model), separate["b"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("active", ["first", "second"])
def test_mixed_batches_where_one_adapter_saves_no_head(case, active, kind):
    """Its rows have the head that the model had; with LoRA, PEFT looks for another and stops."""
    model = get_peft_model(case.model(), case.config(kind, modules_to_save=[case.head]), adapter_name="first")
    model.add_adapter("second", case.config(kind))
    model.base_model.model.get_submodule(case.head).modules_to_save["first"].weight.data.normal_()
    model.eval()
    separate = {"__base__": case.logits(case.model())}
    for name in ("first", "second"):
        model.set_adapter(name)
        separate[name] = case.logits(model)
    model.set_adapter(active)
    names = ["second", "first", "__base__", "second"]
    if kind == "lora":
        with pytest.raises(KeyError, match="second"):
            case.logits(model, adapter_names=names)
        return
    mixed = case.logits(model, adapter_names=names)
    assert_close(mixed, torch.stack([separate[name][row] for row, name in enumerate(names)]), **TIGHT)
    assert torch.equal(case.logits(model), separate[active])


def test_mixed_batches_refused(toy):
    model = two_adapters(toy)
    with pytest.raises(ValueError, match=r"unknown names c; known are a, b and __base__"):
        toy.logits(model, adapter_names=["a", "b", "c", "a"])
    with pytest.raises(ValueError, match=r"2 names for 4 rows"):
        toy.logits(model, adapter_names=["a", "b"])
    # A refusal in the middle of the model leaves nothing behind either.
    toy.logits(model)
    model.eval().merge_adapter()
    with pytest.raises(ValueError, match=r"while a is merged; call unmerge_adapter"):
        toy.logits(model, adapter_names=["a"] * 4)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("cp", r"in inference only; several adapters are trained .* by cpadapt.train"),
        ("lora", r"Cannot pass `adapter_names` when the model is in training mode"),
    ],
)
def test_mixed_batches_are_not_for_training(toy, kind, why):
    model = get_peft_model(toy.model(), toy.config(kind), adapter_name="first").train()
    with pytest.raises(ValueError, match=why):
        toy.logits(model, adapter_names=["first"] * 4)


@pytest.mark.parametrize("safe_merge", [False, True])
def test_merge_and_unmerge(case, plus, safe_merge):
    model = two_adapters(case)
    active = case.logits(model)
    model.merge_adapter(safe_merge=safe_merge)
    assert_close(case.logits(model), active, **TIGHT)
    with pytest.warns(UserWarning, match="additionally merging b"):
        model.merge_adapter(adapter_names=["b"])
    assert_close(case.logits(model), case.logits(plus(case, model, "a", "b")), **TIGHT)
    with model.disable_adapter():  # takes them out
        assert_close(case.logits(model), case.logits(case.model()), **TIGHT)
    assert not any(layer.merged for layer in cp_layers(model))
    assert_close(case.logits(model), active, **TIGHT)
    with pytest.warns(UserWarning, match="no merged adapter"):
        model.unmerge_adapter()


@pytest.mark.parametrize("safe_merge", [False, True])
def test_merge_and_unload(case, safe_merge):
    model = get_peft_model(case.model(), case.config(modules_to_save=[case.head])).eval()
    expected = case.logits(model)
    merged = model.merge_and_unload(safe_merge=safe_merge)
    assert not cp_layers(merged)
    assert type(merged) is type(case.model())
    assert_close(case.logits(merged), expected, **TIGHT)


def test_safe_merge_catches_nan_and_leaves_the_weight_alone(case):
    model = get_peft_model(case.model(), case.config())
    first = cp_layers(model)[0]
    before = first.weight.clone()
    first.cp_adapter["default"].weight.data[0] = torch.nan
    with pytest.raises(ValueError, match=r"adapter 'default' cannot be merged: .* NaN"):
        model.merge_adapter(safe_merge=True)
    assert torch.equal(first.weight, before)
    assert not first.merged


def test_weighted_sum_refused(case):
    model = two_adapters(case)
    with pytest.raises(ValueError, match=r"weighted sum of CP adapters .* convert each with to_lora"):
        model.add_weighted_adapter(["a", "b"], [0.5, 0.5], "c")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_base_with_float32_adapters(case, plus, dtype):
    model = get_peft_model(case.model(dtype), case.config(modules_to_save=[case.head]))
    exact = get_peft_model(case.model(), case.config(modules_to_save=[case.head])).eval()
    state = {name: tensor for name, tensor in model.state_dict().items() if ".cp_" in name}
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    exact.load_state_dict(state, strict=False)
    rounding = {"rtol": 0.05, "atol": 20 * torch.finfo(dtype).eps}
    logits = case.logits(model.eval())
    assert logits.dtype == dtype
    assert_close(logits.float(), case.logits(exact), **rounding)
    output = model(**case.inputs())
    (output.logits if case.is_transformers else output).float().square().sum().backward()
    for name, parameter in model.named_parameters():
        if ".cp_" in name:
            assert parameter.grad.dtype == torch.float32
            assert parameter.grad.isfinite().all()
    merged = model.merge_and_unload(safe_merge=True)
    assert {p.dtype for p in case.projections(merged).values() for p in p.parameters()} == {dtype}
    assert_close(case.logits(merged).float(), case.logits(exact), **rounding)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_gradients_do_not_underflow_beside_a_half_precision_base(kind, dtype):
    """As the first steps have them: weights near zero, and a loss that is a mean over many tokens."""
    torch.manual_seed(0)
    config = (
        CPConfig(num_components=8, scale=1.0, init="normal", init_std=1e-3, target_modules=["0"])
        if kind == "cp"
        else LoraConfig(r=8, lora_alpha=8, target_modules=["0"])
    )
    model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(512, 512)), config)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for name, parameter in trained.items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=1e-4)
    x, gradient = (torch.randn(16, 512).to(dtype).float() for _ in range(2))
    gradients = []
    for base in (torch.float32, dtype):
        model.base_model.model[0].base_layer.to(base)
        model.zero_grad()
        # 2e-6 is a number of float16, but its product with a weight near zero is none.
        model(x.to(base)).backward((gradient * 2e-6).to(base))
        gradients.append({name: p.grad for name, p in trained.items()})
    for name, exact in gradients[0].items():
        # The output's gradient, itself below float16's smallest normal number, is rounded to 3 %.
        assert (gradients[1][name] - exact).norm() < 0.05 * exact.norm(), name


# The name that all supported versions of transformers know; 5.23 has a newer one beside it.
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(transformers_case, use_reentrant):
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(7)
        model = get_peft_model(transformers_case.model(), transformers_case.config())
        model.train()  # else nothing is checkpointed; the models have no dropout
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
            model.enable_input_require_grads()
        model(**transformers_case.inputs()).logits.square().sum().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert gradient.abs().max() > 0
        assert_close(gradients[1][name], gradient, **TIGHT)


def drawn(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if ".cp_adapter." in name}


def test_a_seed_of_its_own_draws_the_same_adapter_whatever_was_drawn_before(case):
    def adapters(seed, before):
        torch.manual_seed(before)
        state = torch.random.get_rng_state()
        model = get_peft_model(case.model(), case.config(seed=seed), adapter_name="a")
        model.add_adapter("b", case.config(seed=seed))
        assert torch.equal(torch.random.get_rng_state(), state) is (seed is not None)
        return drawn(model)

    one, other = adapters(3, before=1), adapters(3, before=2)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert all(torch.equal(p, one[name.replace(".b.", ".a.")]) for name, p in one.items())
    for different in (adapters(4, before=1), adapters(None, before=1)):
        assert not any(torch.equal(one[name], different[name]) for name in one)
    # The layers are not drawn alike.
    raws = [p for name, p in one.items() if name.endswith("cp_adapter.a.up_0")]
    assert not torch.equal(raws[0], raws[1])


def test_single_projections_have_sizes_of_their_own(case, tmp_path, plus):
    first, second = case.targets
    pattern = {f"0.*{first}": 5, second: 1} if case.is_transformers else {first: 5, second: 1}
    model = get_peft_model(case.model(), case.config(components_pattern=pattern)).eval()
    sizes = {
        name: len(module.cp_adapter["default"].weight)
        for name, module in model.base_model.model.named_modules()
        if isinstance(module, CPLayer)
    }
    for name, size in sizes.items():
        in_first = not case.is_transformers or "0" in name
        assert size == (1 if name.endswith(second) else 5 if in_first else 3)
    expected = case.logits(plus(case, model, "default"))
    assert_close(case.logits(model), expected, **TIGHT)
    model.save_pretrained(tmp_path / "cp")
    loaded = PeftModel.from_pretrained(case.model(), tmp_path / "cp").eval()
    assert torch.equal(case.logits(loaded), case.logits(model))
    export_to_lora(tmp_path / "cp", tmp_path / "lora")
    exported = PeftModel.from_pretrained(case.model(), tmp_path / "lora").eval()
    assert exported.peft_config["default"].rank_pattern == pattern
    assert_close(case.logits(exported), expected, **TIGHT)
    assert torch.equal(case.logits(to_lora(model)), case.logits(model))


def test_a_pattern_that_fits_nothing_is_refused(llama):
    with pytest.raises(InputError, match=r"components_pattern has 'k_proj', which fits no adapted module; .*q_proj"):
        get_peft_model(llama.model(), llama.config(components_pattern={"k_proj": 2}))


def test_scales_of_layers_are_set_as_loras(toy):
    lora = LoraConfig(r=2, lora_alpha=6, init_lora_weights=False, target_modules=list(toy.targets))
    models = [get_peft_model(toy.model(), toy.config(scale=3.0)), get_peft_model(toy.model(), lora)]
    layers = [model.base_model.model.q_proj for model in models]

    def factors():
        ours, theirs = layers[0].cp_scale["default"], layers[1].scaling["default"]
        return ours, theirs

    for act in (
        lambda layer: layer.scale_layer(0.5),
        lambda layer: layer.scale_layer(4),
        lambda layer: layer.unscale_layer(2),
        lambda layer: layer.set_scale("default", 0.25),
        lambda layer: layer.set_scale("another", 7.0),
        lambda layer: layer.unscale_layer(),
    ):
        for layer in layers:
            act(layer)
        ours, theirs = factors()
        assert ours == theirs
    assert factors() == (3.0, 3.0)
    before = layers[0].get_delta_weight("default")
    full, base = toy.logits(models[0]), toy.logits(toy.model())
    layers[0].scale_layer(0.5)
    assert_close(layers[0].get_delta_weight("default"), before / 2, **TIGHT)
    models[0].base_model.model.v_proj.set_scale("default", 0)
    layers[0].set_scale("default", 0)
    assert torch.equal(toy.logits(models[0]), base)
    for layer in (layers[0], models[0].base_model.model.v_proj):
        layer.unscale_layer()
    assert torch.equal(toy.logits(models[0]), full)


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_vectors_of_length_zero_stay_finite_and_come_back(toy, make):
    """In a step of SGD, and clipped with all others by one norm."""
    model = get_peft_model(toy.model(), toy.config())
    adapter = model.base_model.model.q_proj.cp_adapter["default"]
    adapter.up_0.data[0] = 0
    adapter.down_1.data[1:] = 0
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = make(trained, lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(**toy.inputs()).square().sum().backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
        assert norm < 1e4
        optimizer.step()
        assert all(p.isfinite().all() for p in trained)
    assert (adapter.up_0.norm(dim=-1) > 0).all()
    assert (adapter.down_1.norm(dim=-1) > 0).all()
