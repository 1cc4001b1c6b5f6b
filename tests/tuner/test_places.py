"""Where parameters live: offloaded, replicated, sharded. LoRA is beside CP everywhere, as the control."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.testing import assert_close
from transformers import LlamaForSequenceClassification, Trainer, TrainingArguments

from cpadapt.errors import InputError
from cpadapt.tuner import CPConfig, to_lora

# PEFT 0.21 asks transformers 5.23 models for a property under its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TIGHT = {"rtol": 1e-5, "atol": 1e-6}
KINDS = ["cp", "lora"]


def config(kind, targets, **fields):
    if kind == "cp":
        return CPConfig(num_components=2, init="normal", target_modules=list(targets), **fields)
    return LoraConfig(r=2, init_lora_weights=False, target_modules=list(targets), **fields)


def two_adapters(kind, case, **fields):
    model = get_peft_model(case.model(), config(kind, case.targets, **fields), adapter_name="first")
    model.add_adapter("second", config(kind, case.targets))
    model.base_model.set_adapter(["first", "second"])
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_offloaded_adapters_are_brought_in_for_their_layers(transformers_case, tmp_path, kind, where):
    case = transformers_case
    model = two_adapters(kind, case, modules_to_save=[case.head])
    expected = case.logits(model)
    with model.disable_adapter():
        assert (case.logits(model) - expected).abs().max() > 1e-2
    if where == "cpu":
        cpu_offload(model, torch.device("cpu"))
    else:
        disk_offload(model, str(tmp_path), execution_device=torch.device("cpu"))
    adapters = [p for name, p in model.named_parameters() if f"{kind if kind == 'lora' else 'cp'}_" in name]
    assert adapters
    assert all(p.is_meta for p in adapters)
    assert torch.equal(case.logits(model), expected)
    # Merged where PEFT brings a layer in to merge it.
    if where == "cpu":
        model.merge_adapter(adapter_names=["first", "second"])
        assert_close(case.logits(model), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_device_map_with_a_layer_on_disk(llama, tmp_path, kind):
    model = two_adapters(kind, llama)
    expected = llama.logits(model)
    places = {"base_model.model.model.layers.1": "disk"}
    rest = ("embed_tokens", "layers.0", "norm", "rotary_emb")
    places |= {f"base_model.model.model.{name}": "cpu" for name in rest} | {"base_model.model.score": "cpu"}
    dispatch_model(model, places, main_device="cpu", offload_dir=str(tmp_path), force_hooks=True)
    kept = {name: p.is_meta for name, p in model.named_parameters()}
    assert any(kept.values())
    assert not all(kept.values())
    assert torch.equal(llama.logits(model), expected)


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["auto", "disk"])
def test_loading_beside_a_base_that_is_spread(llama, tmp_path, monkeypatch, kind, where):
    """Beside a layer on disk PEFT stops, with LoRA too: an adapter is loaded before its base goes there."""
    monkeypatch.chdir(tmp_path)  # PEFT writes below the working directory.
    llama.model().save_pretrained(tmp_path / "base")
    model = get_peft_model(llama.model(), llama.config(kind)).eval()
    model.save_pretrained(tmp_path / "adapter")
    rest = ("model.embed_tokens", "model.layers.0", "model.norm", "model.rotary_emb", "score")
    places = "auto" if where == "auto" else dict.fromkeys(rest, "cpu") | {"model.layers.1": "disk"}
    base = LlamaForSequenceClassification.from_pretrained(
        tmp_path / "base", device_map=places, offload_folder=str(tmp_path / "offload")
    )
    options = {"max_memory": {"cpu": 2**30}} if where == "auto" else {}
    if where == "disk":
        with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
            PeftModel.from_pretrained(base, tmp_path / "adapter", offload_dir=str(tmp_path / "more"))
        return
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter", **options).eval()
    assert torch.equal(llama.logits(loaded), llama.logits(model))


def test_tensors_without_values_never_reach_a_product(toy):
    model = get_peft_model(toy.model(), toy.config(), low_cpu_mem_usage=True)
    with pytest.raises(InputError, match=r"tensors of adapter 'default' are on the meta device and have no values"):
        toy.logits(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if not tensor.is_meta}
    # LoRA merges what happens to be in memory.
    for safe_merge in (False, True):
        with pytest.raises(InputError, match=r"of adapter 'default' are on the meta device .* before .* merged"):
            model.merge_adapter(safe_merge=safe_merge)
    with pytest.raises(InputError, match=r"module '.*q_proj' are on the meta device .* before .* converted"):
        to_lora(model)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    # A base layer that is on disk or not loaded.
    model = get_peft_model(toy.model(), toy.config())
    model.base_model.model.q_proj.base_layer.to("meta")
    with pytest.raises(InputError, match="of the base layer are on the meta device"):
        model.merge_adapter()
    # A model that is all there in outline is only measured.
    outline = get_peft_model(toy.model().to("meta"), toy.config())
    assert outline(toy.inputs()["input_ids"].to("meta")).shape == (4, 2)


@pytest.fixture
def replicate(monkeypatch):
    """`nn.DataParallel`'s copies, of which a CPU has one device: views take the place of what is broadcast."""
    module = importlib.import_module("torch.nn.parallel.replicate")
    monkeypatch.setattr(module, "_get_device_index", lambda device, *args, **options: device)

    def broadcast(tensors, devices, detach=False):
        return [[t.detach() if detach else t.view_as(t) for t in tensors] for _ in devices]

    monkeypatch.setattr(module, "_broadcast_coalesced_reshape", broadcast)
    return module.replicate


@pytest.mark.parametrize("kind", KINDS)
def test_replicas_give_the_same_and_its_gradients(llama, replicate, kind):
    model = two_adapters(kind, llama, modules_to_save=[llama.head])
    ids = llama.inputs()["input_ids"]
    whole = model(input_ids=ids).logits
    whole.square().sum().backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    expected = {name: p.grad.clone() for name, p in trained.items()}
    model.zero_grad()
    copies = replicate(model, [0, 1])
    halves = [copy(input_ids=rows).logits for copy, rows in zip(copies, ids.chunk(2), strict=True)]
    assert_close(torch.cat(halves), whole, **TIGHT)
    sum(half.square().sum() for half in halves).backward()
    for name, parameter in trained.items():
        assert expected[name].abs().max() > 0
        assert_close(parameter.grad, expected[name], **TIGHT)
    with torch.no_grad():
        copies = replicate(model, [0, 1], detach=True)
        halves = [copy(input_ids=rows).logits for copy, rows in zip(copies, ids.chunk(2), strict=True)]
    assert_close(torch.cat(halves), whole, **TIGHT)


def trained_by_the_trainer(model, folder, ids, labels, gpus, **fields):
    """What three steps change, by the names of trained parameters; each step has all rows."""
    arguments = TrainingArguments(
        str(folder), max_steps=3, optim="sgd", learning_rate=0.1, lr_scheduler_type="constant", max_grad_norm=0,
        per_device_train_batch_size=len(ids) // gpus, report_to=[], save_strategy="no", dataloader_pin_memory=False,
        disable_tqdm=True, **fields,
    )  # fmt: skip
    arguments._n_gpu = gpus if arguments.device.type == "cpu" else arguments.n_gpu
    assert arguments.n_gpu == gpus
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    data = [{"input_ids": row, "labels": label} for row, label in zip(ids, labels, strict=True)]
    Trainer(model, arguments, train_dataset=data).train()
    return {name: p.detach().cpu() - before[name] for name, p in model.named_parameters() if name in before}


def trained_by_a_loop(model, ids, labels, factor=1):
    """As `trained_by_the_trainer`, with a loss that is so many times the model's."""
    before = {name: p.detach().clone() for name, p in model.train().named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (factor * model(input_ids=ids, labels=labels).loss).backward()
        optimizer.step()
    return {name: p.detach() - before[name] for name, p in model.named_parameters() if name in before}


ONCE = {"average_tokens_across_devices": False}
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there are GPUs")
TWO_GPUS = pytest.mark.skipif(torch.cuda.device_count() != 2, reason="there are not two CUDA devices")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("gpus", "fields", "factor"),
    [
        pytest.param(1, {}, 1, marks=NO_GPU),
        # As if there were two, of which `nn.DataParallel` then finds none.
        pytest.param(2, {}, 2, marks=NO_GPU),
        pytest.param(2, ONCE, 1, marks=NO_GPU),
        pytest.param(2, {}, 2, marks=[pytest.mark.gpu, TWO_GPUS]),
        pytest.param(2, ONCE, 1, marks=[pytest.mark.gpu, TWO_GPUS]),
    ],
)
# What `nn.DataParallel` says of each replica's loss.
@pytest.mark.filterwarnings("ignore:Was asked to gather along dimension 0")
def test_the_trainer_on_two_gpus_doubles_a_classifiers_loss(llama, tmp_path, kind, gpus, fields, factor):
    """Started as plain `python`, it wraps the model in `nn.DataParallel` and means to undo a division by the number of
    GPUs, which a classifier's loss has never had. LoRA has this too, and one line stops it.
    """
    ids = llama.inputs()["input_ids"]
    labels = torch.arange(len(ids)) % 2

    def model():
        torch.manual_seed(0)
        return two_adapters(kind, llama, modules_to_save=[llama.head])

    found = trained_by_the_trainer(model(), tmp_path, ids, labels, gpus, **fields)
    expected = trained_by_a_loop(model(), ids, labels, factor)
    assert found.keys() == expected.keys()
    for name, change in expected.items():
        assert change.abs().max() > 1e-4
        assert_close(found[name], change, rtol=1e-3, atol=1e-5)


@pytest.mark.long
def test_two_processes_train_as_one(tmp_path):
    """A step of SGD on two gloo processes, each with half of the batch, with an inactive second adapter."""
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = Path(__file__).with_name("two_processes.py")
    subprocess.run([*launched, script, tmp_path / "found.json"], check=True, capture_output=True, timeout=120)
    found = json.loads((tmp_path / "found.json").read_text())
    assert {(row["kind"], row["how"]) for row in found} == {
        (kind, how) for kind in KINDS for how in ("ddp", "fsdp2", "fsdp2 by layer", "fsdp1")
    }
    for row in found:
        assert row["moved"] > 1e-2
        assert row["apart"] < 1e-5, row


# That an adapter has no tensors among its inputs.
@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_tensors_that_are_there_only_while_their_module_is_called(llama, kind):
    """As in DeepSpeed's ZeRO-3: empty, gathered before a module's call and before its backward, and let go after."""
    model = two_adapters(kind, llama)
    expected = llama.logits(model)
    model(**llama.inputs()).logits.square().sum().backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = {name: p.grad.clone() for name, p in trained.items()}
    model.zero_grad()
    empty = torch.zeros(0)

    def release(module, *call):
        for parameter in module.parameters(recurse=False):
            parameter.data = empty

    for module in model.modules():
        whole = {name: p.data for name, p in module.named_parameters(recurse=False)}

        def gather(module, *call, whole=whole):
            for name, data in whole.items():
                module.get_parameter(name).data = data

        if whole:
            module.register_forward_pre_hook(gather)
            module.register_forward_hook(release)
            module.register_full_backward_pre_hook(gather)
            release(module)
    assert not any(p.numel() for p in model.parameters())
    assert torch.equal(llama.logits(model), expected)
    output = model(**llama.inputs()).logits
    assert not any(p.numel() for p in model.parameters())
    output.square().sum().backward()
    for name, parameter in trained.items():
        assert gradients[name].abs().max() > 0
        assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-5)


def test_an_adapter_that_something_hooked_is_called(toy):
    """The pairs of all layers are made at once, but not past a hook."""
    model = get_peft_model(toy.model(), toy.config())
    adapter = model.base_model.model.q_proj.cp_adapter["default"]
    seen = []
    adapter.register_forward_hook(lambda module, args, pair: seen.append(tuple(side.shape for side in pair)))
    expected = toy.logits(model)
    assert seen == [((24, 3), (3, 24))]
    adapter._forward_hooks.clear()
    assert_close(toy.logits(model), expected, **TIGHT)
    assert len(seen) == 1


# Of merging, where it is LoRA.
@pytest.mark.filterwarnings("ignore:Model with `tie_word_embeddings=True`:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_that_is_shared_is_untied_before_merging(tmp_path, kind):
    """Else merging into an output layer would change the embedding too, as LoRA's does."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}

    def base():
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(vocab_size=64, tie_word_embeddings=True, **sizes)).eval()

    ids = torch.randint(0, 64, (2, 5))
    with pytest.warns(UserWarning, match="a tied layer is part of the adapter"):
        model = get_peft_model(base(), config(kind, ["lm_head"])).eval()
    expected = model(input_ids=ids).logits
    embedding = base().get_input_embeddings().weight
    model.merge_adapter()
    if kind == "lora":
        assert not torch.equal(model.get_input_embeddings().weight, embedding)
        assert (model(input_ids=ids).logits - expected).abs().max() > 1
        return
    assert torch.equal(model.get_input_embeddings().weight, embedding)
    assert_close(model(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-5)
    model.unmerge_adapter()
    merged = model.merge_and_unload()
    assert torch.equal(merged.get_input_embeddings().weight, embedding)
    assert not merged.config.tie_word_embeddings
    merged.save_pretrained(tmp_path)
    again = LlamaForCausalLM.from_pretrained(tmp_path).eval()
    assert_close(again(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-5)


def test_pefts_policy_wraps_each_adapter(llama):
    """It wraps for FSDP what has no children and a `weight` that is trained."""
    from peft.utils.other import fsdp_auto_wrap_policy

    model = get_peft_model(llama.model(), llama.config())
    policy = fsdp_auto_wrap_policy(model)
    wrapped = {
        name for name, module in model.named_modules() if policy(module=module, recurse=False, nonwrapped_numel=0)
    }
    adapters = {name for name, module in model.named_modules() if name.endswith("cp_adapter.default")}
    assert len(adapters) == 4
    assert adapters <= wrapped
    assert isinstance(model.get_submodule(next(iter(adapters))), nn.Module)


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_in_the_base_layers_type_where_peft_is_asked_for_it(case, tmp_path, low_cpu_mem_usage):
    """`autocast_adapter_dtype=False`, as sharding of one type needs it."""
    model = get_peft_model(case.model(torch.bfloat16), case.config(), autocast_adapter_dtype=False)
    model.add_adapter("second", case.config(), autocast_adapter_dtype=False)
    dtypes = {p.dtype for name, p in model.named_parameters() if ".cp_adapter." in name}
    assert dtypes == {torch.bfloat16}
    expected = case.logits(model.eval())
    model.save_pretrained(tmp_path, selected_adapters=["default"])
    loaded = PeftModel.from_pretrained(
        case.model(torch.bfloat16), tmp_path, autocast_adapter_dtype=False, low_cpu_mem_usage=low_cpu_mem_usage
    )
    assert {p.dtype for name, p in loaded.named_parameters() if ".cp_adapter." in name} == {torch.bfloat16}
    assert torch.equal(case.logits(loaded), expected)
