"""Runs of PEFT's tuners: by the bank's loop, each alone, with PEFT's parameters."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cpadapt.bank.bank import initial_params
from cpadapt.bank.peft_run import WHOLE, PeftRun, tuned
from cpadapt.bank.trainer import Trainer
from cpadapt.errors import InputError
from cpadapt.families import counting, family
from cpadapt.families.peft_tuners import TUNERS
from cpadapt.inputs.backbones.loading import Backbone, load_backbone
from cpadapt.inputs.backbones.projections import load_projections
from cpadapt.inputs.tasks.examples import TaskData, load_task
from cpadapt.inputs.tasks.specs import load_spec
from cpadapt.records.config import Protocol, RunConfig

TASK = "toy-entailment"
PROTOCOL = Protocol(
    steps=8, eval_every=4, batch_size=4, train_cap=20, dev_cap=16, eval_cap=24, rest_cap=10, clip=0.5,
    weight_decay=0.01, warmup_steps=2,
)  # fmt: skip
SIZES = {"peft:lora": 2, "peft:vera": 3, "peft:fourierft": 5, "peft:tinylora": 3, "peft:unilora": 7}


def config(name: str, size: int | None = None, **changes: Any) -> RunConfig:
    known = TUNERS.get(name) or family(name)
    return RunConfig(
        **{
            "backbone": "tiny", "task": TASK, "family": name, "size": SIZES[name] if size is None else size,
            "seed": 3, "data_seed": 0, "protocol": PROTOCOL, "learning_rate": 1e-2, "scale": known.SCALE, **changes,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def data() -> dict[int, TaskData]:
    return {0: load_task(load_spec(TASK), caps=PROTOCOL.caps)}


@pytest.fixture(params=["tiny", "tiny-encoder"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return load_backbone(request.param)


def parameters(run: PeftRun) -> dict[str, Tensor]:
    """What the optimizer changes of the adapter, by PEFT's names."""
    adapter = "stack_0."
    return {t.name.removeprefix(adapter): t.tensor for t in run.tensors() if t.name.startswith(adapter)}


@pytest.mark.parametrize("readout", ["head", "verbalizer"])
@pytest.mark.slow
def test_lora_by_pefts_tuner_is_the_banks_lora(readout: str, data: dict[int, TaskData]) -> None:
    """From the same start: batches, schedule, loss, clipping, optimizer and judging are the same code and numbers."""
    backbone = load_backbone("tiny")
    protocol = dataclasses.replace(PROTOCOL, readout=readout)
    ours = config("lora", 2, scale=3.0, protocol=protocol)
    start = initial_params(ours, backbone.projections)
    (expected,) = Trainer(backbone, [ours], data).train()
    trainer = Trainer(backbone, [config("peft:lora", scale=3.0, protocol=protocol)], data)
    names = {"down": "lora_A.default.weight", "up": "lora_B.default.weight"}
    # The family keeps `up` as [rank, out].
    as_pefts = {
        f"base_model.model.{module}.{names[name]}": tensor.mT if name == "up" else tensor
        for module, tensors in start.items()
        for name, tensor in tensors.items()
    }
    trainer.bank.start_from(0, {WHOLE: as_pefts}, {name: tensor[0] for name, tensor in trainer.bank.head.items()})
    (got,) = trainer.train()

    assert len(got.evaluations) == 2
    for one, other in zip(got.evaluations, expected.evaluations, strict=True):
        assert dataclasses.astuple(one) == pytest.approx(dataclasses.astuple(other), rel=1e-5)
    assert got.best_step == expected.best_step
    for name in ("outcome", "rest", "dev"):
        one, other = getattr(got, name), getattr(expected, name)
        assert (one.correct, one.drawn, one.labels) == (other.correct, other.drawn, other.labels)
        np.testing.assert_allclose(one.margin, other.margin, atol=2e-2)  # a margin's code is coarser than its number
    moved = 0.0
    for module, tensors in expected.adapter.items():
        for name, tensor in tensors.items():
            mine = got.adapter[WHOLE][f"base_model.model.{module}.{names[name]}"]
            torch.testing.assert_close(mine, tensor.mT if name == "up" else tensor, rtol=1e-4, atol=1e-6)
            moved += float((tensor - start[module][name]).norm())
    assert moved > 0.1
    for name, tensor in expected.head.items():
        torch.testing.assert_close(got.head[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in SIZES),
        ("peft:tinylora", {"weight_tying": 1.0}),
        ("peft:tinylora", {"weight_tying": 0.4, "r": 3}),
        ("peft:unilora", {"r": 1}),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 9])
def test_the_model_that_peft_builds_has_as_many_scalars_as_are_counted(
    name: str, options: dict[str, Any], size: int, backbone: Backbone
) -> None:
    """The decoder's q and v differ in shape, as grouped queries have them."""
    before = {key: tensor.clone() for key, tensor in backbone.model.state_dict().items()}
    with tuned(backbone, config(name, size, options=options)) as model:
        trainable, _ = model.get_nb_trainable_parameters()
        adapted = {key for key, module in backbone.model.named_modules() if hasattr(module, "base_layer")}
    run = PeftRun(backbone, [config(name, size, options=options)], load_spec(TASK))
    counted = counting.count(name, backbone.projections, size, options)
    assert trainable == counted == sum(tensor.numel() for tensor in parameters(run).values())
    assert adapted == {projection.name for projection in backbone.projections}
    assert counting.step(name, backbone.projections, options, size) == (
        counting.count(name, backbone.projections, size + 1, options) - counted
    )
    after = backbone.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())


def test_the_smallest_adapters_on_minilms_projections() -> None:
    """12 projections of 384×384."""
    projections = load_projections("minilm")
    assert {name: counting.count(name, projections, 1) for name in SIZES} == {
        "peft:lora": 12 * 768, "peft:vera": 12 * 385, "peft:fourierft": 12, "peft:tinylora": 12, "peft:unilora": 1,
    }  # fmt: skip
    assert counting.count("peft:tinylora", projections, 1, {"weight_tying": 1.0}) == 1
    assert {name: counting.largest_size(name, projections, 9216) for name in SIZES} == {
        "peft:lora": 1, "peft:vera": 384, "peft:fourierft": 768, "peft:tinylora": 768, "peft:unilora": 9216,
    }  # fmt: skip
    # Four ranks of 12 projections have 36,864 entries to share out.
    assert counting.largest_size("peft:unilora", projections, 10**6) == 36_864


@pytest.mark.parametrize("name", SIZES)
def test_the_start_and_what_is_frozen_follow_from_the_runs_seed_alone(name: str) -> None:
    backbone = load_backbone("tiny-encoder")

    def built(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(len(starts))
        state = torch.get_rng_state()
        with tuned(backbone, config(name, seed=seed)) as model:
            found = {key: t.clone() for key, t in model.state_dict().items() if "base_layer" not in key}
            found |= {
                f"{key}.places": layer.indices["default"]
                for key, layer in model.named_modules()
                if isinstance(getattr(layer, "indices", None), dict)
            }
        assert torch.equal(torch.get_rng_state(), state)
        return found

    starts: list[dict[str, Tensor]] = []
    for seed in (0, 0, 1):
        starts.append(built(seed))
    one, again, other = starts
    assert one.keys() == again.keys()
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert any(one[key].shape != other[key].shape or not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("others", [["peft:vera"], ["lora"], ["symlora"]])
def test_no_bank_takes_one_of_them(others: list[str], data: dict[int, TaskData]) -> None:
    runs = [config("peft:vera"), *(config(name, 1, seed=4) for name in others)]
    with pytest.raises(InputError, match=r"'peft:vera' is one of PEFT's tuners, which .*fit no bank"):
        Trainer(load_backbone("tiny"), runs, data)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.slow
def test_every_scalar_is_trained_in_float32_also_beside_half_precision(name: str, data: dict[int, TaskData]) -> None:
    backbone = load_backbone("tiny-encoder", dtype="bfloat16")
    protocol = dataclasses.replace(PROTOCOL, dtype="bfloat16", warmup_steps=0)
    trainer = Trainer(backbone, [config(name, backbone="tiny-encoder", protocol=protocol)], data)
    start = {key: tensor.clone() for key, tensor in parameters(trainer.bank).items()}
    (result,) = trainer.train()
    for key, tensor in result.adapter[WHOLE].items():
        assert tensor.dtype == torch.float32
        assert (tensor != start[key]).all(), key
    assert start.keys() == result.adapter[WHOLE].keys()
