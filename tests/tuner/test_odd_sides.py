"""Sides that are prime, or 1: "all-linear" adapts them too, nothing that is trained stands still, and what was saved
when sides of 1 had modes still loads."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close

from cpadapt.errors import InputError
from cpadapt.families import counting
from cpadapt.tuner import CPConfig, CPLayer, export_to_lora, to_lora

TIGHT = {"rtol": 1e-5, "atol": 1e-6}


class Odd(nn.Module):
    """6×7 and 2×21 hold tensors of the same shapes, 2, 3 and 7, on other sides; so do 1×5 and 5×1."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(7, 6), nn.Linear(21, 2)
        self.c, self.d = nn.Linear(5, 1), nn.Linear(1, 5)

    def forward(self, x):
        a = self.a(x)
        return torch.cat([a, self.b(torch.cat([x, x, x], -1)), self.d(self.c(a[..., :5]))], -1)


def base():
    torch.manual_seed(0)
    return Odd()


def adapted(**fields):
    return get_peft_model(base(), CPConfig(num_components=3, init="normal", target_modules="all-linear", **fields))


def layers(model):
    return {name.rpartition(".")[2]: module for name, module in model.named_modules() if isinstance(module, CPLayer)}


X = torch.randn(4, 7, generator=torch.Generator().manual_seed(1))


def test_all_linear_adapts_every_side_and_all_that_is_counted_trains(delta):
    model = adapted()
    assert set(layers(model)) == {"a", "b", "c", "d"}
    expected = base()
    for name, layer in layers(model).items():
        getattr(expected, name).weight.data += delta(layer, "default").float()
    assert_close(model(X), expected(X), **TIGHT)
    model(X).square().sum().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad.abs().max() > 0 for p in trained)
    counted = counting.count("cp", list(layers(model).values()), 3)
    assert sum(p.numel() for p in trained) == model.get_nb_trainable_parameters()[0] == counted
    # Σ modes + 1 of each: 2+3+7, 2+3+7, 5 and 5.
    assert counted == 3 * (13 + 13 + 6 + 6)


@pytest.mark.parametrize("kind", ["cp", "lora"])
def test_all_linear_trains_every_layer(kind):
    config = CPConfig(num_components=3) if kind == "cp" else LoraConfig(r=3)
    config.target_modules = "all-linear"
    model = get_peft_model(base(), config)
    assert {name.rpartition(".")[2] for name in model.targeted_module_names} == {"a", "b", "c", "d"}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    for _ in range(2):  # The first step moves what starts at zero, the second all that it hid.
        optimizer.zero_grad()
        model(X).square().sum().backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) is not parameter.requires_grad


class Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=True)

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize("kind", ["cp", "lora"])
def test_a_projection_that_is_read_but_not_called_is_left_out_by_its_name(kind):
    """LoRA accepts it, and does nothing there."""

    def adapted(**fields):
        torch.manual_seed(0)
        if kind == "cp":
            config = CPConfig(num_components=2, init="normal", target_modules=".*(linear1|out_proj)", **fields)
        else:
            config = LoraConfig(r=2, init_lora_weights=False, target_modules=".*(linear1|out_proj)", **fields)
        return get_peft_model(Attentive(), config)

    x = torch.randn(2, 3, 8)
    if kind == "cp":
        with pytest.raises(InputError, match=r"'layer.self_attn.out_proj' cannot .* leave it out .* exclude_modules"):
            adapted()
    else:
        model = adapted()
        expected = model(x)
        for name, parameter in model.named_parameters():
            if "out_proj.lora_" in name:
                parameter.data.zero_()
        assert torch.equal(model(x), expected)
    model = adapted(exclude_modules=["out_proj"])
    assert model.targeted_module_names == ["layer.linear1"]
    torch.manual_seed(0)
    assert not torch.allclose(model(x), Attentive()(x))


def test_it_is_saved_loaded_merged_and_exported(tmp_path):
    model = adapted()
    expected = model(X)
    model.save_pretrained(tmp_path / "cp")
    assert_close(PeftModel.from_pretrained(base(), tmp_path / "cp")(X), expected, rtol=0, atol=0)
    export_to_lora(tmp_path / "cp", tmp_path / "lora")
    assert_close(PeftModel.from_pretrained(base(), tmp_path / "lora")(X), expected, **TIGHT)
    assert_close(to_lora(model)(X), expected, **TIGHT)
    assert_close(model.merge_and_unload()(X), expected, **TIGHT)


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_what_was_saved_with_modes_of_one_still_loads(tmp_path, low_cpu_mem_usage):
    """They stood for a sign each, and for the default as (1, 1)."""
    model = adapted(tensor_shape={7: (1, 7)})
    model.save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    state = load_file(file)
    signs = {
        "c.cp_up.0": [0.5, -1.0, 2.0], "c.cp_up.1": [-1.0, -0.1, 1.0],
        "d.cp_down.0": [1.0, -3.0, -1.0], "d.cp_down.1": [1.0, 1.0, -1.0],
        "a.cp_down.0": [-1.0, 1.0, -2.0],
    }  # fmt: skip
    prefix = "base_model.model."
    for key in list(state):  # as they were named then
        new, _, name = key.rpartition(".")
        state[f"{new.removesuffix('adapter')}{name.replace('_', '.')}"] = state.pop(key)
    state[f"{prefix}a.cp_down.1"] = state.pop(f"{prefix}a.cp_down.0")
    state |= {prefix + name: torch.tensor(values)[:, None] for name, values in signs.items()}
    save_file(state, file, metadata={"format": "pt"})
    for name, layer in layers(model).items():
        for key, values in signs.items():
            if key.startswith(f"{name}."):
                layer.cp_adapter["default"].weight.data *= torch.tensor(values).sign()
    expected = model(X)
    loaded = PeftModel.from_pretrained(base(), tmp_path, low_cpu_mem_usage=low_cpu_mem_usage)
    assert_close(loaded(X), expected, rtol=0, atol=0)
    loaded.load_adapter(tmp_path, adapter_name="again", low_cpu_mem_usage=low_cpu_mem_usage)
    loaded.set_adapter("again")
    assert_close(loaded(X), expected, rtol=0, atol=0)
    export_to_lora(tmp_path, tmp_path / "lora")
    assert_close(PeftModel.from_pretrained(base(), tmp_path / "lora")(X), expected, **TIGHT)
