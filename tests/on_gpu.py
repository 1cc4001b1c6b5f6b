"""What the tests of the GPU's kernels share."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cpadapt.bank.packing import Segments


def segments(lengths: Sequence[int], longest: int | None = None) -> Segments:
    """Examples of these lengths in one row, each a run's only one."""
    ends = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32, device="cuda")
    return Segments(ends, ends, tuple(ends[1:].tolist()), longest or max(lengths), len(lengths))


def assert_near(got: Sequence[Tensor], expected: Sequence[Tensor], bound: float = 1e-2) -> None:
    """Equal but for what half precision rounds."""
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.shape == theirs.shape
        assert (mine.float() - theirs.float()).norm() < bound * theirs.float().norm()
