"""The lines of "What does PEFT leave to me?", and the README's recipe as it is written."""

import re
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import convert_to_lora
from peft.utils import set_peft_model_state_dict
from torch.testing import assert_close
from transformers import Trainer, TrainingArguments

from cpadapt.tuner import CPConfig, to_lora
from cpadapt.tuner.layer import CPLinear

ROOT = Path(__file__).parents[2]

# PEFT 0.21 asks transformers 5.23 models for a property under its old name.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


def config(kind, **fields):
    if kind == "cp":
        return CPConfig(num_components=2, init="normal", **fields)
    return LoraConfig(r=2, init_lora_weights=False, **fields)


@pytest.fixture(params=["cp", "lora"])
def kind(request):
    return request.param


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpoint", [torch.float32, torch.float16])
def test_the_readmes_recipe_runs_as_written(transformers_case, tmp_path, monkeypatch, checkpoint, dtype):
    case = transformers_case
    case.model(checkpoint).save_pretrained(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    (recipe,) = re.findall(r"```python\n(import peft\n.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    before, comment, after = re.split(r"(?m)^# (… train it .*)\n", recipe)
    assert 'dtype="float32"' in before
    assert "merge_and_unload" in comment
    names = {"BASE": "base"}
    exec(before.replace("float32", dtype), names)
    model = names["model"]
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    head = {name for name in trained if "modules_to_save" in name}
    assert head
    assert {p.dtype for name, p in trained.items() if name not in head} == {torch.float32}
    assert {trained[name].dtype for name in head} == {getattr(torch, dtype)}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = model(**case.inputs(), labels=torch.tensor([0, 1, 0, 1])).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    exec(after, names)
    expected = case.logits(model.eval())
    base = names["AutoModelForSequenceClassification"].from_pretrained("base", dtype=dtype)
    rounding = {"rtol": 1e-4, "atol": 1e-5} if dtype == "float32" else {"rtol": 0.05, "atol": 0.05}
    assert_close(case.logits(PeftModel.from_pretrained(base, "adapter").eval()), expected, **rounding)


def test_the_head_needs_the_task_type(llama, tmp_path, kind):
    for task_type in (None, "SEQ_CLS"):
        model = get_peft_model(llama.model(), config(kind, task_type=task_type))
        head = [p for name, p in model.named_parameters() if p.requires_grad and "score" in name]
        assert bool(head) is (task_type is not None)
        for parameter in head:
            parameter.data.normal_()
        model.save_pretrained(tmp_path / str(task_type))
        loaded = PeftModel.from_pretrained(llama.model(), tmp_path / str(task_type)).eval()
        assert torch.equal(llama.logits(loaded), llama.logits(model.eval()))


def test_a_float16_head_does_not_train_with_a_scaler(llama, kind):
    for dtype, works in ((torch.float16, False), (torch.float32, True)):
        model = get_peft_model(llama.model(dtype), config(kind, task_type="SEQ_CLS"))
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
        scaler.scale(model(**llama.inputs()).logits.float().square().mean()).backward()
        if works:
            scaler.step(optimizer)
        else:
            with pytest.raises(ValueError, match="Attempting to unscale FP16 gradients"):
                scaler.step(optimizer)


@pytest.mark.parametrize(("fields", "same"), [({}, False), ({"seed": 0}, True)])
def test_the_trainers_seed_comes_after_the_adapter(llama, tmp_path, kind, fields, same):
    if kind == "lora" and fields:
        pytest.skip("LoraConfig has no seed")
    rows = [{"input_ids": ids, "labels": k % 2} for k, ids in enumerate(torch.arange(1, 41).view(8, 5))]
    drawn, trained = [], []
    for history in (11, 12):
        torch.manual_seed(history)
        model = get_peft_model(llama.model(), config(kind, **fields))
        adapter = {name: p for name, p in model.named_parameters() if p.requires_grad}
        drawn.append({name: p.detach().clone() for name, p in adapter.items()})
        arguments = TrainingArguments(
            tmp_path,
            seed=0,
            max_steps=2,
            learning_rate=0.1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            dataloader_pin_memory=False,
        )
        Trainer(model, arguments, train_dataset=rows).train()
        trained.append({name: p.detach().clone() for name, p in adapter.items()})
    for one, other in (drawn, trained):
        assert all(torch.equal(one[name], other[name]) is same for name in one)
    assert not any(torch.equal(drawn[0][name], trained[0][name]) for name in drawn[0])


@pytest.mark.parametrize("name", ["default", "mine"])
@pytest.mark.long
def test_the_best_checkpoint_is_loaded_by_the_name_default(llama, tmp_path, kind, name):
    model = get_peft_model(llama.model(), config(kind), adapter_name=name)
    weights = [p for name, p in model.named_parameters() if ".cp_" in name or ".lora_" in name]
    rows = [{"input_ids": ids, "labels": k % 2} for k, ids in enumerate(torch.randint(1, 50, (8, 5)))]
    arguments = TrainingArguments(
        tmp_path,
        max_steps=4,
        eval_strategy="steps",
        eval_steps=2,
        save_steps=2,
        learning_rate=0.1,
        load_best_model_at_end=True,
        metric_for_best_model="score",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
    )
    scores = iter([1.0, 0.0])
    seen = []

    def judge(prediction):
        seen.append([p.detach().clone() for p in weights])
        return {"score": next(scores)}

    trainer = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows, compute_metrics=judge)
    trainer.train()
    best, last = seen[:2]
    kept = best if name == "default" else last
    assert all(torch.equal(one, other) for one, other in zip(weights, kept, strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(best, last, strict=True))


def test_adapted_then_compiled_is_saved_by_its_own_names(llama, tmp_path):
    model = get_peft_model(llama.model(), llama.config()).eval()
    expected = llama.logits(model)
    compiled = torch.compile(model, backend="eager")
    compiled.save_pretrained(tmp_path)
    assert torch.equal(llama.logits(PeftModel.from_pretrained(llama.model(), tmp_path).eval()), expected)


def test_pefts_conversion_is_near_and_refuses_a_rank_above_the_shorter_side(toy):
    model = get_peft_model(toy.model(), toy.config(num_components=5)).eval()
    config, state = convert_to_lora(model, rank=5)
    near = get_peft_model(toy.model(), config).eval()
    set_peft_model_state_dict(near, state)
    assert_close(toy.logits(near), toy.logits(model), rtol=1e-4, atol=1e-5)
    model = get_peft_model(toy.model(), toy.config(num_components=20))
    with pytest.raises(ValueError, match=r"chosen rank 20 is larger than the weight shape \(18\)"):
        convert_to_lora(model, rank=20)
    assert torch.equal(toy.logits(to_lora(model.eval())), toy.logits(model))


def test_a_later_conversion_gets_the_whole_update(toy):
    """It is to ask each layer for the weight's change, whatever the tuner does with the weight."""
    model, before = get_peft_model(toy.model(), toy.config()), toy.model()
    adapted = [
        (name, module) for name, module in model.base_model.model.named_modules() if isinstance(module, CPLinear)
    ]
    changes = {name: layer._get_additive_delta("default").detach() for name, layer in adapted}
    assert changes
    merged = model.merge_and_unload()
    for name, change in changes.items():
        assert change.abs().max() > 1e-3
        got = merged.get_submodule(name).weight - before.get_submodule(name).weight
        assert_close(got.detach(), change, rtol=1e-4, atol=1e-6)


def test_what_peft_lists_by_name_says_so(toy, tmp_path):
    from peft.utils.hotswap import hotswap_adapter

    with pytest.raises(ValueError, match="is not compatible with the `PeftMixedModel`"):
        get_peft_model(toy.model(), toy.config(), mixed=True)
    model = get_peft_model(toy.model(), toy.config())
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="Hotswapping only supports LORA"):
        hotswap_adapter(model, tmp_path, "default")
