"""What the files of Triton kernels share: Triton itself, where there is one, and what its kernels ask of a matrix."""

from typing import Any

from torch import Tensor

try:
    import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
    import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
except ImportError:
    triton = tl = None

__all__ = ["AVAILABLE", "by_row", "jit", "tl", "triton"]

AVAILABLE = triton is not None
"""Whether there is a Triton to compile kernels with."""


def _left_alone(kernel: Any = None, **options: Any) -> Any:
    return _left_alone if kernel is None else kernel


jit: Any = _left_alone if triton is None else triton.jit
"""Triton's; without it a kernel stays a function that nobody can call."""


def by_row(tensor: Tensor) -> Tensor:
    """As it is, if what lies along its last axis lies in one piece; a contiguous copy else."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
