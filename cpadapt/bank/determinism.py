"""The same numbers each time, on one kind of GPU with one set of libraries.

The kernels of a bank (`cpadapt.bank.kernels`) have no atomics, so they are the same each time as they are. Of torch's,
`index_add`, which pools an encoder's tokens and is the backward pass of `index_select`, adds in the order in which
threads come. The backward passes of its attention, which banks in `float32` use, may do so too. And its compiler
chooses how to divide a sum by timing several ways.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cpadapt.errors import InputError

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""The environment variable by which cuBLAS gives each stream a fixed workspace. It is read when CUDA starts."""

FIXED = (":4096:8", ":16:8")
"""Its values with which cuBLAS is the same each time; the first is fast."""


@contextmanager
def deterministic(device: str) -> Iterator[None]:
    """Let a GPU compute in an order that does not depend on time; leaving restores torch's settings.

    The environment variable stays, since CUDA has read it. On the CPU nothing is to be done.

    Args:
        device: as torch names it. Nothing may have been computed on it yet in this process, unless the variable was
            set before.

    Raises:
        InputError: CUDA has started without the variable, it has another value, or an operation has no form that is
            the same each time.
    """
    if device.partition(":")[0] == "cpu":
        yield
        return
    if device.startswith("cuda"):
        _fix_workspace()
    cudnn = torch.backends.cudnn
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        cudnn.deterministic,
        cudnn.benchmark,
    )
    # torch would fill new memory with NaN, in case somebody reads it before writing. Nobody does, and it takes time.
    _set(True, False, False, True, False)
    try:
        yield
    except RuntimeError as error:
        if "does not have a deterministic implementation" not in str(error):
            raise
        raise InputError(f"deterministic: {str(error).splitlines()[0]}; leave it out") from None
    finally:
        _set(*before)


def _set(algorithms: bool, warn_only: bool, fill: bool, convolutions: bool, benchmark: bool) -> None:
    # This also keeps torch's compiler from timing what changes a sum.
    torch.use_deterministic_algorithms(algorithms, warn_only=warn_only)
    torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = convolutions, benchmark


def _fix_workspace() -> None:
    given = os.environ.get(WORKSPACE)
    if given is None and torch.cuda.is_initialized():
        raise InputError(
            f"deterministic: CUDA has started in this process without {WORKSPACE}={FIXED[0]}; start another process"
        )
    if given is not None and given not in FIXED:
        raise InputError(f"deterministic: {WORKSPACE} is {given!r}; use {' or '.join(FIXED)}, or do not set it")
    os.environ[WORKSPACE] = given or FIXED[0]
