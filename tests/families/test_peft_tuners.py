"""PEFT's tuners: the rank of their updates, by PEFT's own layers."""

from typing import Any

import peft
import pytest
import torch
from torch import nn

from cpadapt.errors import InputError
from cpadapt.families.peft_tuners import TUNERS


def update(name: str, size: int, **options: Any) -> torch.Tensor:
    """An update of a 20×24 projection with scalars drawn at random."""
    tuner = TUNERS[name]
    torch.manual_seed(size)
    config = getattr(peft, tuner.config)(**{tuner.size: size, "target_modules": ["0"], **options})
    layer: Any = peft.get_peft_model(nn.Sequential(nn.Linear(24, 20, bias=False)), config).base_model.model[0]
    for parameter in layer.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    delta: torch.Tensor = layer.get_delta_weight("default").detach()
    return delta


@pytest.mark.parametrize("name", TUNERS)
def test_every_update_is_a_lora_update_of_the_rank_that_is_said(name: str) -> None:
    for size in (1, 2, 4):
        found = torch.linalg.matrix_rank(update(name, size), rtol=1e-5)
        assert found <= TUNERS[name].columns(size) <= 8
        # A frequency of 0 makes one vector where another makes two; Uni-LoRA's factors from one scalar are constant.
        least = size if name in ("peft:fourierft", "peft:unilora") else TUNERS[name].columns(size)
        assert found >= least


@pytest.mark.parametrize("name", ["peft:tinylora", "peft:unilora"])
def test_where_the_rank_is_an_option_it_is_that(name: str) -> None:
    assert torch.linalg.matrix_rank(update(name, 3, r=5), rtol=1e-5) == TUNERS[name].columns(3, r=5) == 5
    with pytest.raises(InputError, match="r = 0"):
        TUNERS[name].columns(3, r=0)
