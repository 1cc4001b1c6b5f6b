"""What the Triton kernels share: Triton itself, if it is installed, and the memory layout that they need."""

from typing import Any

from torch import Tensor

try:
    import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
    import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
except ImportError:
    triton = tl = None

__all__ = ["AVAILABLE", "by_row", "jit", "tl", "triton"]

AVAILABLE = triton is not None
"""Whether Triton is installed."""


def _no_jit(kernel: Any = None, **options: Any) -> Any:
    return _no_jit if kernel is None else kernel


jit: Any = _no_jit if triton is None else triton.jit
"""`triton.jit`; without Triton a kernel stays a Python function that is never called."""


def by_row(tensor: Tensor) -> Tensor:
    """The tensor itself if its last axis has stride 1, else a contiguous copy."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
