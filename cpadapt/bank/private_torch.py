"""The private parts of torch that a bank uses, each behind one function with a fallback for versions that lack it.

With the fallback a bank compiles more often, compiles less, or launches more kernels. Its results stay the same.
"""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

_COMPILER_OPTIONS = (
    # Two sizes that are equal in one row differ in the next.
    ("torch.fx.experimental._config", "use_duck_shape", False),
    # One process may train banks of many mixtures of families, shapes and backbones.
    ("torch._dynamo.config", "recompile_limit", 64),
)


@contextmanager
def compiling_for_many_banks() -> Iterator[None]:
    """Set the compiler's options so that the code of one row and one bank serves the next ones."""
    with ExitStack() as options:
        for module, name, value in _COMPILER_OPTIONS:
            try:
                config = importlib.import_module(module)
            except ImportError:
                continue
            if hasattr(config, name):
                options.enter_context(config.patch(**{name: value}))
        yield


@contextmanager
def compiled_calls(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Call layers through the compiler inside the context.

    One layer's code serves all layers of its kind: their weights and factors are its inputs. If torch cannot undo
    it, the layers are not compiled, because a backbone outlives its bank.
    """
    layers = layers if hasattr(nn.Module, "_compiled_call_impl") else ()
    for layer in layers:
        layer.compile(dynamic=True)
    try:
        yield
    finally:
        for layer in layers:
            layer._compiled_call_impl = None


def mark_dynamic(tensor: Tensor, axis: int) -> None:
    """Tell the compiler that sizes along this axis vary. Otherwise it finds out by compiling a second time."""
    mark = getattr(getattr(torch, "_dynamo", None), "maybe_mark_dynamic", None)
    if mark is not None:
        mark(tensor, axis)


def copy_all(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy each source into its target, in a few launches where torch can."""
    if hasattr(torch, "_foreach_copy_"):
        torch._foreach_copy_(list(targets), list(sources))
        return
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)
