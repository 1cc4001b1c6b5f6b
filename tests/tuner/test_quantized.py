"""Quantized layers: adapters work beside them; merging is what PEFT can do, or is refused.

bitsandbytes and torchao are not in the environment, for PEFT imports them wherever they are, which takes seconds:
`make quantized` puts them beside it.
"""

import importlib
import os
import warnings
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.testing import assert_close

from cpadapt.errors import InputError
from cpadapt.tuner import CPConfig, export_to_lora, to_lora

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.ao.quantization is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*quantize_per_tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:MatMul8bitLt. inputs will be cast:UserWarning"),
    # Of LoRA, of what was quantized by hand.
    pytest.mark.filterwarnings("ignore:TorchaoLoraLinear was instantiated without:UserWarning"),
]


def library(name: str) -> Any:
    required = os.environ.get("CPADAPT_QUANTIZED") == "required"
    return importlib.import_module(name) if required else pytest.importorskip(name)


# torch's dynamic quantization has no kernels but the CPU's.
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def bitsandbytes(bits):
    bnb = library("bitsandbytes")
    if bits == 8:
        layer = bnb.nn.Linear8bitLt(64, 64, has_fp16_weights=False)
    else:
        layer = bnb.nn.Linear4bit(64, 64, compute_dtype=torch.float32, quant_type="nf4")
    return nn.Sequential(layer).to(DEVICE)


def torchao():
    quantization = library("torchao.quantization")
    model = nn.Sequential(nn.Linear(64, 64))
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    return model.to(DEVICE)


def dynamic():
    return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(64, 64)), {nn.Linear}, torch.qint8)


BASES = {
    "bitsandbytes, 8 bits": lambda: bitsandbytes(8),
    "bitsandbytes, 4 bits": lambda: bitsandbytes(4),
    "torchao": torchao,
    "torch's dynamic": dynamic,
}


def config(**fields):
    return CPConfig(**{"num_components": 2, "init": "normal", "target_modules": ["0"]} | fields)


@pytest.fixture(params=BASES)
def base(request):
    torch.manual_seed(0)
    return BASES[request.param]()


@pytest.fixture
def x(base):
    device = "cpu" if "torch.ao" in type(base[0]).__module__ else DEVICE
    return torch.randn(5, 64, generator=torch.Generator().manual_seed(0)).to(device)


def test_an_adapter_works_beside_it(base, x, tmp_path, delta):
    model = get_peft_model(base, config()).eval()
    layer = model.base_model.model[0]
    with model.disable_adapter():
        plain = model(x)
    expected = plain + x @ delta(layer, "default").to(x).T
    assert (expected - plain).abs().max() > 0.1
    assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    if "torch.ao" in type(layer.base_layer).__module__:
        return  # torch cannot load an adapter's tensors alone into a model that has such a layer
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(model.unload(), tmp_path).eval()
    assert_close(again(x), expected, rtol=1e-4, atol=1e-4)


def test_a_step_of_training_beside_it(base, x):
    model = get_peft_model(base, config(init="zero"))
    trained = [p for p in model.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == 2 * (8 + 8 + 8 + 8 + 1)
    optimizer = torch.optim.SGD(trained, 0.1)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = (model(x) - 1).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]


def test_merging_is_what_peft_can_do_or_refused_in_a_sentence(base, x):
    model = get_peft_model(base, config(scale=0.5)).eval()
    expected = model(x)
    layer = model.base_model.model[0]
    if "bitsandbytes" not in type(layer.base_layer).__module__:
        with pytest.raises(InputError, match=r"cannot be merged: the layer is quantized \(torch.*\) and"):
            model.merge_adapter()
        assert torch.equal(model(x), expected)
        return
    before = layer.get_base_weight().clone()
    with pytest.warns(UserWarning, match="quantized again, which rounds the update too"):
        model.merge_adapter()
    # Half of the widest gap between values of 4 bits is 0.15 of the largest in a block.
    step = before.abs().max() * (0.2 if "4bit" in type(layer.base_layer).__name__ else 0.01)
    assert (layer.get_base_weight() - before - layer.get_delta_weight("default")).abs().max() < step
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.unmerge_adapter()
    assert (layer.get_base_weight() - before).abs().max() < 2 * step


def test_no_conversion_beside_layers_that_lora_does_not_adapt(tmp_path):
    model = get_peft_model(dynamic(), config())
    with pytest.raises(InputError, match=r"LoRA does not adapt torch's dynamically .* export it with export_to_lora"):
        to_lora(model)
    model.save_pretrained(tmp_path / "cp")
    export_to_lora(tmp_path / "cp", tmp_path / "lora")
    exported = PeftModel.from_pretrained(nn.Sequential(nn.Linear(64, 64)), tmp_path / "lora")
    ours, theirs = (each.base_model.model[0].get_delta_weight("default") for each in (model, exported))
    assert_close(theirs, ours)


def test_lora_agrees(base, x):
    """LoRA beside a quantized layer is PEFT's own; the converted adapter is the same."""
    if "torch.ao" in type(base[0]).__module__:
        pytest.skip("LoRA refuses torch's dynamically quantized layers")
    ours = get_peft_model(base, config()).eval()
    expected = ours(x)
    up, down = ours.base_model.model[0].factors("default")
    theirs = get_peft_model(ours.unload(), LoraConfig(r=2, lora_alpha=2, target_modules=["0"])).eval()
    lora = theirs.base_model.model[0]
    lora.lora_A["default"].weight.data, lora.lora_B["default"].weight.data = down.detach(), up.detach()
    assert_close(theirs(x), expected, rtol=1e-4, atol=1e-4)
