"""What the tests of the GPU's kernels share."""

import os
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from cpadapt.bank import kernels
from cpadapt.bank.packing import Segments

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether kernels run in Triton's interpreter, on the CPU and slowly: on small shapes then (test_interpreter.py)."""

DEVICE = "cpu" if INTERPRETED else "cuda"

DTYPE, BOUND = (torch.float32, 1e-5) if INTERPRETED else (torch.float16, 1e-2)
"""Of small shapes: only the interpreter multiplies float32 as it is, so a mistake can be told from rounding there."""

needs_kernels = pytest.mark.skipif(
    not (kernels.AVAILABLE and (INTERPRETED or torch.cuda.is_available())),
    reason="no Triton, or neither CUDA nor TRITON_INTERPRET=1",
)


def segments(lengths: Sequence[int], longest: int | None = None) -> Segments:
    """Examples of these lengths in one row, each a run's only one."""
    ends = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32, device=DEVICE)
    return Segments(ends, ends, tuple(ends[1:].tolist()), longest or max(lengths), len(lengths))


def assert_near(got: Sequence[Tensor], expected: Sequence[Tensor], bound: float = 1e-2) -> None:
    """Equal but for what half precision rounds."""
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.shape == theirs.shape
        assert (mine.float() - theirs.float()).norm() < bound * theirs.float().norm()
