"""A bank gets by without torch's private parts, and with the same results."""

import contextlib
import importlib
from collections.abc import Callable

import pytest
import torch
from torch import nn

from cpadapt.bank import private_torch
from cpadapt.bank.trainer import Result, Trainer
from cpadapt.inputs.backbones.loading import load_backbone
from cpadapt.inputs.tasks.examples import load_task
from cpadapt.inputs.tasks.specs import load_spec
from cpadapt.records.config import Protocol, RunConfig

OPTIONS = [("torch.fx.experimental._config", "use_duck_shape"), ("torch._dynamo.config", "recompile_limit")]


def option(module: str, name: str) -> object:
    return getattr(importlib.import_module(module), name)


def test_the_compilers_options_are_set_and_put_back() -> None:
    before = [option(*place) for place in OPTIONS]
    with private_torch.compiling_for_many_banks():
        assert [option(*place) for place in OPTIONS] == [False, 64]
    assert [option(*place) for place in OPTIONS] == before != [False, 64]


def test_options_that_torch_lacks_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = (("torch.no_such_module", "any", 1), ("torch._dynamo.config", "no_such_option", 1))
    monkeypatch.setattr(private_torch, "_COMPILER_OPTIONS", (*missing, *private_torch._COMPILER_OPTIONS))
    with private_torch.compiling_for_many_banks():
        assert option(*OPTIONS[1]) == 64


@pytest.mark.slow
def test_layers_are_compiled_only_where_that_can_be_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Linear(2, 2)
    with contextlib.suppress(KeyboardInterrupt), private_torch.compiled_calls([layer]):
        assert layer._compiled_call_impl is not None
        raise KeyboardInterrupt
    assert layer._compiled_call_impl is None
    monkeypatch.delattr(nn.Module, "_compiled_call_impl")
    monkeypatch.setattr(nn.Module, "compile", lambda self, **options: pytest.fail("it was compiled"))
    with private_torch.compiled_calls([nn.Linear(2, 2)]):
        pass


def test_copies_without_torchs_own() -> None:
    targets, sources = [torch.zeros(2), torch.zeros(3, 1)], [torch.ones(2), torch.full((3, 1), 2.0)]
    private_torch.copy_all(targets, sources)
    assert all(map(torch.equal, targets, sources))


def without_dynamo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._dynamo, "maybe_mark_dynamic")


def without_foreach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch, "_foreach_copy_")


@pytest.mark.parametrize("remove", [without_dynamo, without_foreach])
def test_a_bank_without_them_gives_the_same_bits(
    remove: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = Protocol(steps=2, eval_every=2, batch_size=4, train_cap=20, dev_cap=8, eval_cap=8)
    data = {0: load_task(load_spec("toy-entailment"), caps=protocol.caps)}
    run = RunConfig(
        backbone="tiny", task="toy-entailment", family="cp", size=2, seed=0, data_seed=0, protocol=protocol,
        learning_rate=1e-2, scale=4.0,
    )  # fmt: skip

    def train() -> Result:
        (result,) = Trainer(load_backbone("tiny"), [run], data).train()
        return result

    expected = train()
    remove(monkeypatch)
    private_torch.mark_dynamic(torch.zeros(2), 0)
    got = train()
    assert (got.evaluations, got.outcome) == (expected.evaluations, expected.outcome)
    for module, tensors in got.adapter.items():
        assert all(torch.equal(tensor, expected.adapter[module][name]) for name, tensor in tensors.items())
