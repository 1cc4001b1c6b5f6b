"""LoRA's start."""

import math

import pytest
import torch

from cpadapt.errors import InputError
from cpadapt.families import lora


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_lora_is_drawn_as_peft_draws_it() -> None:
    """Uniform in ±1/√in, as `kaiming_uniform_` with a = √5 gives for [rank, in]."""
    down = lora.init(generator(), 8, 400, 50)["down"]
    assert down.abs().max() <= 1 / math.sqrt(400)
    assert down.abs().max() > 0.99 / math.sqrt(400)
    by_torch = torch.empty(50, 400)
    torch.nn.init.kaiming_uniform_(by_torch, a=math.sqrt(5), generator=generator())
    torch.testing.assert_close(down, by_torch)


def test_a_normal_start_changes_the_output() -> None:
    up, down = lora.factors(lora.init(generator(), 12, 18, 3, init="normal"))
    assert (up @ down).any()


def test_a_wrong_start_is_named() -> None:
    with pytest.raises(InputError, match="'ones'"):
        lora.init(generator(), 8, 8, 1, init="ones")
