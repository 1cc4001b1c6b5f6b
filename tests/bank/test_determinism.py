"""The settings under which a GPU gives the same numbers each time; on a GPU, `test_cuda` has what they do."""

import os
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cpadapt import InputError
from cpadapt.bank.determinism import FIXED, WORKSPACE, deterministic
from cpadapt.bank.trainer import Trainer
from cpadapt.inputs.backbones.loading import load_backbone
from cpadapt.inputs.tasks.examples import load_task
from cpadapt.inputs.tasks.specs import load_spec
from cpadapt.records.config import Protocol

pytestmark = pytest.mark.slow


def settings() -> dict[str, Any]:
    import torch._inductor.config as inductor

    return {
        "algorithms": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,
        "cudnn": torch.backends.cudnn.deterministic,
        "benchmark": torch.backends.cudnn.benchmark,
        "compiler": inductor.deterministic,
    }


SET = {"algorithms": True, "warn_only": False, "fill": False, "cudnn": True, "benchmark": False, "compiler": True}


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment variable is not set, and CUDA has not started; all is as before afterwards."""
    before = settings()
    monkeypatch.setenv(WORKSPACE, "")
    monkeypatch.delenv(WORKSPACE)
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: False)
    yield
    assert settings() == before


def test_on_a_gpu_they_are_set_and_restored() -> None:
    before = settings()
    with deterministic("cuda:1"):
        assert settings() == SET
        assert os.environ[WORKSPACE] == FIXED[0]
    assert settings() == before
    with pytest.raises(KeyError), deterministic("cuda"):
        raise KeyError
    assert settings() == before


def test_they_are_restored_to_what_they_were() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = True
    try:
        before = settings()
        with deterministic("cuda"):
            assert settings() == SET
        assert settings() == before != SET
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = False


def test_on_the_cpu_nothing_is_set() -> None:
    before = settings()
    with deterministic("cpu"):
        assert settings() == before
        assert WORKSPACE not in os.environ


def test_once_cuda_has_started_it_is_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    with deterministic("cuda"):
        pass
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    with deterministic("cuda"):
        """The variable was set in time."""
    monkeypatch.delenv(WORKSPACE)
    with pytest.raises(InputError, match=f"CUDA has started in this process without {WORKSPACE}=:4096:8"):
        deterministic("cuda").__enter__()
    with deterministic("cpu"):
        """Which has nothing to do with it."""


def test_a_workspace_that_is_not_fixed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKSPACE, ":8:1")
    with pytest.raises(InputError, match=f"{WORKSPACE} is ':8:1'; use :4096:8 or :16:8"):
        deterministic("cuda").__enter__()
    monkeypatch.setenv(WORKSPACE, FIXED[1])
    with deterministic("cuda"):
        assert os.environ[WORKSPACE] == FIXED[1], "the user's own"


def test_a_bank_needs_no_operation_without_such_a_form() -> None:
    """As far as the CPU can tell; what it computes is the same."""
    program = runpy.run_path(str(Path(__file__).with_name("repeated_bank.py")))
    protocol = Protocol(steps=4, eval_every=2, batch_size=4, train_cap=20, dev_cap=8, eval_cap=8)
    data = {0: load_task(load_spec(program["TASK"]), caps=protocol.caps)}
    mixed = program["CELLS"]
    for backbone, cells in (("tiny", mixed), ("tiny-encoder", mixed), ("tiny", [("peft:vera", 2)])):
        runs = program["runs_of"](backbone, protocol, cells)
        plain = program["digest"](Trainer(load_backbone(backbone), runs, data).train())
        with deterministic("cuda"):
            assert program["digest"](Trainer(load_backbone(backbone), runs, data).train()) == plain


def test_an_operation_that_has_no_such_form_is_named() -> None:
    with (
        pytest.raises(InputError, match=r"^deterministic: put_ does not have a deterministic implementation.*; leave"),
        deterministic("cuda"),
    ):
        torch.zeros(4).put_(torch.tensor([0, 0]), torch.ones(2))
    with pytest.raises(RuntimeError, match="size") as caught, deterministic("cuda"):
        torch.zeros(2) @ torch.zeros(3)
    assert not isinstance(caught.value, InputError)
