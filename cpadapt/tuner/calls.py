"""What one call of a model hands to its CP layers: factor pairs, made for all at once, or a name for each row."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cpadapt.tuner.adapter import CPAdapter, Pair, make_pair, stacked

if TYPE_CHECKING:
    from cpadapt.tuner.layer import CPLayer


@dataclass(frozen=True)
class Call:
    """One call, seen by the thread that makes it and by no other.

    Making the pairs for all layers of a shape at once spares launches: a pair with its gradient is dozens of small
    operations, and a small model's step takes as long as its launches. `bench/shared_pairs.py` times both.
    """

    pairs: dict[tuple[CPAdapter, float], Pair] = field(default_factory=dict)
    """By adapter and scale."""
    with_grad: bool = False
    rows: Mapping[nn.Module, Sequence[str]] = field(default_factory=dict)
    """By module, the adapter of each row of its input."""

    def pair(self, adapter: CPAdapter, scale: float) -> Pair | None:
        """The pair, if it was made and serves here; otherwise the layer makes its own."""
        made = self.pairs.get((adapter, scale))
        if made is not None and torch.is_grad_enabled() and not (self.with_grad and _keeps_what_is_saved()):
            return None
        return made


class _Current(threading.local):
    # Not a context variable, which the compiler cannot see through.
    call = Call()


_CURRENT = _Current()


def current() -> Call:
    """The call that this thread is in; an empty one outside any."""
    return _CURRENT.call


@contextmanager
def during(call: Call) -> Iterator[None]:
    """Be in this call."""
    before = _CURRENT.call
    _CURRENT.call = call
    try:
        yield
    finally:
        _CURRENT.call = before


def with_pairs(layers: Iterable[CPLayer]) -> Call:
    """A call with the pairs of the layers' active adapters."""
    alike: dict[Any, list[CPAdapter]] = defaultdict(list)
    for layer in layers:
        if layer.disable_adapters or layer.merged:
            continue
        dtype = layer.half_type()
        for name in layer.active_adapters:
            if name in layer.cp_adapter:
                adapter = layer.cp_adapter[name]
                if type(adapter) is CPAdapter and adapter.is_at_hand():
                    kind = tuple((key, raw.shape, raw.dtype, raw.device) for key, raw in adapter.tensors().items())
                    alike[kind, layer.cp_scale[name], dtype].append(adapter)
    pairs = {}
    for (_, scale, dtype), adapters in alike.items():
        together = stacked(adapters)
        up, down = (side.to(dtype or side.dtype).unbind() for side in make_pair(together, scale))
        _pass_by_the_unused(up, [raw for name, raw in together.items() if not name.startswith("down_")])
        _pass_by_the_unused(down, [raw for name, raw in together.items() if name.startswith("down_")])
        for adapter, *pair in zip(adapters, up, down, strict=True):
            pairs[adapter, scale] = (pair[0], pair[1])
    return Call(pairs, with_grad=torch.is_grad_enabled())


def _pass_by_the_unused(parts: tuple[Tensor, ...], sources: list[Tensor]) -> None:
    """Have no gradient where none reaches a part, instead of zeros, by which weight decay moves what was not called.

    Args:
        parts: one side of the pairs, of each adapter.
        sources: the stacked tensors that it was made of.
    """
    reached: list[bool] = []

    def look(gradients: tuple[Tensor | None, ...]) -> None:
        reached[:] = [gradient is not None for gradient in gradients]

    def drop(gradients: tuple[Tensor | None, ...], _: object) -> tuple[Tensor | None, ...] | None:
        if all(reached):
            return None
        return tuple(g if is_reached else None for g, is_reached in zip(gradients, reached, strict=True))

    # The compiler has no nodes to hook, and leaves the zeros.
    if torch.compiler.is_compiling() or parts[0].grad_fn is None:
        return
    parts[0].grad_fn.register_prehook(look)
    for source in sources:
        if source.grad_fn is not None:
            source.grad_fn.register_hook(drop)


def _keeps_what_is_saved() -> bool:
    """Whether backward finds what is saved for it, rather than calls the layer again, without its pair then."""
    # A compiler repeats operations, not calls.
    if torch.compiler.is_compiling():
        return True
    # Private: a torch without it cannot tell, and a layer then makes its own pair.
    hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return hooks is not None and hooks(True) is None
