"""Adapters as plain LoRA, and trained weights as adapter folders."""

import json
from pathlib import Path

import fresh
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import convert_to_lora
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close
from transformers.pytorch_utils import Conv1D

from cpadapt import families
from cpadapt.errors import InputError
from cpadapt.families import lora
from cpadapt.tuner import CPConfig, CPLayer, export, export_to_lora, save_adapter, to_lora

# PEFT 0.21 asks transformers 5.23 models for a property under its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TIGHT = {"rtol": 1e-5, "atol": 1e-6}


def lora_deltas(model):
    return [m.get_delta_weight("default") for m in model.modules() if hasattr(m, "lora_A") and m.lora_A]


def adapted(case, **fields):
    model = get_peft_model(case.model(), case.config(modules_to_save=[case.head], **fields)).eval()
    model.base_model.model.get_submodule(case.head).modules_to_save["default"].weight.data.normal_()
    return model


@pytest.mark.parametrize("inference_mode", [False, True])
def test_to_lora_equals_and_leaves_the_given_model_alone(case, inference_mode):
    model = adapted(case)
    model.peft_config["default"].inference_mode = inference_mode
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = case.logits(model)
    converted = to_lora(model)
    config = converted.peft_config["default"]
    assert type(config) is LoraConfig
    assert (config.r, config.lora_alpha, config.inference_mode) == (3, 3, inference_mode)
    assert config.modules_to_save == [case.head]
    assert any(p.requires_grad for p in converted.parameters()) is not inference_mode
    assert not converted.training
    assert torch.equal(case.logits(converted), expected)
    with converted.disable_adapter():  # the untrained head too
        assert torch.equal(case.logits(converted), case.logits(case.model()))
    ours = [layer.get_delta_weight("default") for layer in model.modules() if isinstance(layer, CPLayer)]
    for own, theirs in zip(ours, lora_deltas(converted), strict=True):
        assert_close(theirs, own, **TIGHT)
        assert torch.linalg.matrix_rank(theirs) <= 3
    merged = converted.merge_and_unload()
    assert {n: p.shape for n, p in model.state_dict().items()} == {n: p.shape for n, p in before.items()}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    mine = model.merge_and_unload()
    for name, tensor in mine.state_dict().items():
        assert_close(merged.state_dict()[name], tensor, **TIGHT)


def test_pefts_own_conversion_decomposes_the_whole_update_and_ours_nothing(toy, monkeypatch):
    decomposed = []
    svd = torch.linalg.svd
    monkeypatch.setattr(
        torch.linalg, "svd", lambda matrix, **options: decomposed.append(matrix) or svd(matrix, **options)
    )
    model = get_peft_model(toy.model(), toy.config(init="normal"))
    to_lora(model)
    assert decomposed == []
    convert_to_lora(model, rank=2)
    deltas = [layer.get_delta_weight("default") for layer in model.modules() if isinstance(layer, CPLayer)]
    assert [matrix.shape for matrix in decomposed] == [delta.shape for delta in deltas]


def test_to_lora_takes_the_adapter_asked_for(toy):
    model = get_peft_model(toy.model(), toy.config(), adapter_name="a")
    model.add_adapter("b", toy.config(num_components=5))
    model.base_model.set_adapter(["a", "b"])
    converted = to_lora(model, "b")
    model.set_adapter("b")
    assert list(converted.peft_config) == ["b"]
    assert converted.peft_config["b"].r == 5
    assert torch.equal(toy.logits(converted), toy.logits(model))


def test_to_lora_of_conv1d():
    model = nn.Sequential(Conv1D(24, 12))
    config = CPConfig(num_components=2, init="normal", target_modules=["0"])
    model = get_peft_model(model, config)
    x = torch.randn(3, 12)
    converted = to_lora(model)
    assert torch.equal(converted(x), model(x))
    assert_close(converted.merge_and_unload()[0].weight, model.merge_and_unload()[0].weight, **TIGHT)


@pytest.mark.slow
def test_peft_alone_loads_the_export(llama, tmp_path):
    """In a process where `cpadapt` cannot be imported."""
    model = adapted(llama, task_type="SEQ_CLS", tensor_shape={48: (3, 16)})
    model.save_pretrained(tmp_path / "cp")
    assert export_to_lora(tmp_path / "cp", tmp_path / "lora") == tmp_path / "lora"
    files = {file.name for file in (tmp_path / "lora").iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors"}
    llama.model().save_pretrained(tmp_path / "base")
    save_file(llama.inputs(), tmp_path / "inputs.safetensors")
    printed = fresh.run(f"""
import os, sys
os.chdir({str(tmp_path)!r})
sys.modules["cpadapt"] = None  # an import of it fails
import peft, safetensors.torch, torch, transformers
base = transformers.AutoModelForSequenceClassification.from_pretrained("base")
model = peft.PeftModel.from_pretrained(base, "lora").eval()
with torch.no_grad():
    logits = model(**safetensors.torch.load_file("inputs.safetensors")).logits
safetensors.torch.save_file(dict(logits=logits), "logits.safetensors")
print([name for name in sys.modules if name.startswith("cpadapt.")])
""")
    assert printed == "[]"
    logits = load_file(tmp_path / "logits.safetensors")["logits"]
    assert_close(logits, llama.logits(model), **TIGHT)


def test_export_refused(toy, tmp_path):
    adapted(toy).save_pretrained(tmp_path / "cp")
    get_peft_model(toy.model(), LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "lora")
    (tmp_path / "empty").mkdir()
    (tmp_path / "weightless").mkdir()
    (tmp_path / "weightless" / "adapter_config.json").write_text(json.dumps({"peft_type": "CP"}))
    for source, target, why in [
        ("nowhere", "out", "is not a folder with a saved adapter: it has no adapter_config.json"),
        ("empty", "out", "it has no adapter_config.json"),
        ("weightless", "out", "it has no adapter_model.safetensors"),
        ("lora", "out", "is of type LORA; only CP adapters can be exported"),
        ("cp", "lora", "exists and is not an empty folder"),
        ("cp", "cp/adapter_config.json", "exists and is not an empty folder"),
    ]:
        with pytest.raises(InputError, match=why):
            export_to_lora(tmp_path / source, tmp_path / target)
    assert not (tmp_path / "out").exists()
    export_to_lora(str(tmp_path / "cp"), str(tmp_path / "empty"))
    assert (tmp_path / "empty" / "adapter_config.json").is_file()


def test_to_lora_refused(toy):
    model = adapted(toy)
    with pytest.raises(InputError, match="no adapter 'other'; there are default"):
        to_lora(model, "other")
    with pytest.raises(InputError, match="not a Toy"):
        to_lora(toy.model())
    with pytest.raises(InputError, match="not a PeftModel"):
        to_lora(get_peft_model(toy.model(), LoraConfig(target_modules=["q_proj"])))
    model.merge_adapter()
    with pytest.raises(InputError, match="default is merged into the base weights"):
        to_lora(model)


class Doubled:
    """A further family: each given pair of vectors counts twice."""

    def factors(self, params):
        up, down = lora.factors(params)
        return torch.cat([up, up], -1), torch.cat([down, down], -2)


@pytest.mark.parametrize(
    ("family", "size", "options", "saved", "rank"),
    [
        ("cp", 3, {}, CPConfig, 3),
        ("cp", 2, {"tensor_shape": {24: (2, 3, 4), 48: (48,)}}, CPConfig, 2),
        ("lora", 2, {}, LoraConfig, 2),
        ("doubled", 2, {}, LoraConfig, 4),
    ],
)
def test_a_run_is_saved_as_an_adapter(case, tmp_path, monkeypatch, run_params, family, size, options, saved, rank):
    params = run_params(case, "lora" if family == "doubled" else family, size, **options)
    monkeypatch.setitem(families.FAMILIES, "doubled", Doubled())
    scale = 1.5
    save_adapter(tmp_path, family, scale, params, base_model_name="some/model", revision="abc")
    expected = case.model()
    for name, projection in case.projections(expected).items():
        up, down = families.family(family).factors(params[name])
        projection.weight.data += scale * up @ down
    model = PeftModel.from_pretrained(case.model(), tmp_path).eval()
    config = model.peft_config["default"]
    assert type(config) is saved
    assert (config.base_model_name_or_path, config.revision, config.inference_mode) == (
        "some/model",
        "abc",
        True,
    )
    assert (config.num_components if saved is CPConfig else config.r) == rank
    assert set(model.targeted_module_names) == set(params)
    assert_close(case.logits(model), case.logits(expected), rtol=1e-4, atol=1e-5)
    if family == "cp":  # on to LoRA, from the folder alone
        export_to_lora(tmp_path, tmp_path / "lora")
        exported = PeftModel.from_pretrained(case.model(), tmp_path / "lora").eval()
        assert torch.equal(case.logits(exported), case.logits(model))


def square_and_oblong():
    return nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 36))


def test_families_that_are_saved_as_they_are_trained_say_so():
    """`counting.file_bytes` goes by what they say."""
    assert export.SAVED_AS.keys() == {name for name, one in families.FAMILIES.items() if one.SAVED_AS_TRAINED}


@pytest.mark.parametrize("as_lora", [False, True])
@pytest.mark.parametrize("name", families.FAMILIES)
def test_every_family_is_saved_as_the_equal_adapter(name, as_lora, tmp_path):
    """Two units above the smallest size, on each projection that it can adapt."""
    family, scale = families.family(name), 1.5
    size = family.smallest() + 2
    expected, params = square_and_oblong().double(), {}
    for module, layer in expected.named_children():
        if isinstance(layer, nn.Linear) and family.accepts(layer.out_features, layer.in_features) is None:
            shapes = family.shapes(layer.out_features, layer.in_features, size)
            params[module] = {key: torch.randn(shape) for key, shape in shapes.items()}
    assert len(params) >= 2
    save_adapter(tmp_path, name, scale, params, as_lora=as_lora)
    base = square_and_oblong()
    base.load_state_dict(expected.state_dict())
    model = PeftModel.from_pretrained(base, tmp_path)
    config = model.peft_config["default"]
    if as_lora or not family.SAVED_AS_TRAINED:
        assert (type(config), config.r) == (LoraConfig, family.columns(size))
    else:
        assert (config.num_components if name == "cp" else config.r) == size
    x = torch.randn(5, 64)
    assert not torch.equal(model(x), expected.float()(x))
    expected.double()
    for module, tensors in params.items():
        up, down = family.factors({key: tensor.double() for key, tensor in tensors.items()})
        expected.get_submodule(module).weight.data += scale * up @ down
    assert_close(model.double()(x.double()), expected(x.double()), rtol=1e-5, atol=1e-5)
    merged = model.merge_and_unload()
    for module in params:
        assert_close(merged.get_submodule(module).weight, expected.get_submodule(module).weight, rtol=1e-5, atol=1e-5)


def test_only_the_named_modules_are_adapted(llama, tmp_path, run_params):
    """Their endings alone would fit the other layer's modules too."""
    params = {name: p for name, p in run_params(llama, "cp", 2).items() if ".0." in name}
    save_adapter(tmp_path, "cp", 1.0, params)
    model = PeftModel.from_pretrained(llama.model(), tmp_path)
    assert sorted(model.targeted_module_names) == sorted(params)
    assert set(load_file(tmp_path / "adapter_model.safetensors")) == {
        f"base_model.model.{module}.cp_adapter.{name}"
        for module in params
        for name in ("up_0", "up_1", "down_0", "down_1", "weight")
    }


def test_the_same_run_gives_the_same_files(toy, tmp_path, run_params):
    for folder in ("one", "two"):
        save_adapter(tmp_path / folder, "lora", 2.0, run_params(toy, "lora", 2))
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def without(params, module, name):
    return params | {module: {n: t for n, t in params[module].items() if n != name}}


def test_save_adapter_refused(toy, tmp_path, run_params):
    three, other = run_params(toy, "cp", 3), run_params(toy, "cp", 2)
    split = run_params(toy, "cp", 3, tensor_shape={24: (4, 6), 18: (18,)})
    resplit = run_params(toy, "cp", 3, tensor_shape={24: (24,), 18: (18,)})
    loras, larger = run_params(toy, "lora", 2), run_params(toy, "lora", 3)
    for family, params, why in [
        ("cp", {}, "params_by_module is empty"),
        ("nothing", loras, "unknown adapter family 'nothing'"),
        ("cp", three | {"v_proj": other["v_proj"]}, r"one size, not the sizes \[2, 3\]"),
        ("lora", loras | {"v_proj": larger["v_proj"]}, r"one size, not the sizes \[2, 3\]"),
        (
            "cp",
            split | {"v_proj": resplit["v_proj"]},
            r"'v_proj' splits 24 into \(24,\), another module splits it into",
        ),
        ("cp", without(three, "v_proj", "weight"), "the CP tensors of module 'v_proj' must be"),
        ("cp", {n: p | {"extra": torch.zeros(3)} for n, p in three.items()}, "of module 'q_proj' must be"),
    ]:
        with pytest.raises(InputError, match=why):
            save_adapter(tmp_path / "out", family, 1.0, params)
    assert not (tmp_path / "out").exists()
    save_file({"x": torch.zeros(1)}, tmp_path / "taken")
    with pytest.raises(InputError, match="exists and is not an empty folder"):
        save_adapter(Path(tmp_path), "cp", 1.0, three)
