"""Parameter steps: what the page counts with PEFT while it is built."""

from collections.abc import Callable
from typing import Any

from peft import LoKrConfig, get_peft_model
from torch import nn

from companion import quantities


def lokr(rank: int, factor: int = -1) -> int:
    """Scalars of PEFT's LoKr on a 2048×2048 projection."""
    config = LoKrConfig(r=rank, alpha=1, decompose_both=True, decompose_factor=factor, target_modules=["0"])
    model = get_peft_model(nn.Sequential(nn.Linear(2048, 2048, bias=False)), config)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_other_families_have_the_steps_that_are_said(chapter: Callable[[str], Any]) -> None:
    """Finer than LoRA, not the finest; LoKr's row ends a little above LoRA's first rank, further by another."""
    glued, step = chapter("parameter_steps").glued, quantities.value("parameter_steps.step.cp").value
    assert glued["tinylora_step"] == glued["unilora_step"] == 1
    assert glued["lokr_step"] == step - 1 == lokr(1)
    assert 4096 < glued["lokr_end"] == lokr(32) == lokr(40) < 2 * 4096
    assert (glued["lokr_end_rank"], lokr(31) < lokr(32) < lokr(40, 2)) == (32, True)
    assert glued["uneven_step"] == 4096 < quantities.value("parameter_steps.opt_step.cp").value
