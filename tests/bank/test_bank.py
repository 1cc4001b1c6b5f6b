"""A bank leaves its backbone as it was, and the next one in the process finds its code compiled."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError
from processes import environment

from cpadapt.bank.bank import AdaptedProjection, Bank, factor_pair
from cpadapt.bank.packing import ATTENTION
from cpadapt.inputs.backbones.loading import load_backbone
from cpadapt.inputs.tasks.specs import load_spec
from cpadapt.records.config import Protocol, RunConfig

HERE = Path(__file__).parent

MIXED = {"cp": [3, 5], "lora": [2], "head": [0]}
FIRST = ["toy-entailment", MIXED, 1, 4, None]
OTHERS = {
    "fewer labels and shorter texts": ["toy-sentiment", MIXED, 1, 4, None],
    "another mixture": ["toy-reading", {"cp": [40, 17], "lora": [1]}, 3, 5, None],
    "several rows": ["toy-reading", {"cp": [40, 17], "lora": [4, 3]}, 5, 2, 500],
    "one family": ["toy-sentiment", {"cp": [2]}, 2, 4, None],
    "the other": ["toy-sentiment", {"lora": [4], "head": [0]}, 2, 4, None],
}


@pytest.mark.long
def test_a_second_bank_compiles_nothing() -> None:
    """Whatever its task, its mixture of runs and the cut of its rows."""
    done = subprocess.run(
        [sys.executable, HERE / "banks_in_a_row.py", json.dumps([FIRST, *OTHERS.values()]), "tiny", "tiny-encoder"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for backbone, (first, *others) in json.loads(done.stdout).items():
        assert first > 0
        assert dict(zip(OTHERS, others, strict=True)) == dict.fromkeys(OTHERS, 0), backbone


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU, shapes are not checked")
def test_shapes_are_checked_in_tests() -> None:
    params = {"up": torch.zeros(1, 2, 4), "down": torch.zeros(1, 2, 3)}
    up, down = factor_pair("lora", params, {}, torch.ones(2), torch.float32)
    assert (up.shape, down.shape) == ((1, 2, 4), (1, 2, 3))
    with pytest.raises(TypeCheckError):
        factor_pair("lora", params, {}, torch.ones(2, 1), torch.float32)


@pytest.mark.slow
def test_a_bank_leaves_its_backbone_as_it_was() -> None:
    """Also where something went wrong meanwhile."""
    backbone = load_backbone("tiny")
    model = backbone.model
    modules, attention = list(model.named_modules()), model.config._attn_implementation
    run = RunConfig(
        backbone="tiny", task="toy-sentiment", family="cp", size=2, seed=0, data_seed=0, protocol=Protocol(),
        learning_rate=1e-3, scale=2.0,
    )  # fmt: skip
    bank = Bank(backbone, [run], load_spec("toy-sentiment"), compiled=True)
    with contextlib.suppress(KeyboardInterrupt), bank.attached():
        adapted = [name for name, module in model.named_modules() if isinstance(module, AdaptedProjection)]
        assert adapted == [p.name for p in backbone.projections]
        assert model.config._attn_implementation == ATTENTION
        assert any(module._compiled_call_impl is not None for module in model.modules())
        raise KeyboardInterrupt
    assert list(model.named_modules()) == modules
    assert model.config._attn_implementation == attention
    assert all(module._compiled_call_impl is None for module in model.modules())
