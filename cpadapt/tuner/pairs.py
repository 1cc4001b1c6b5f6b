"""The factor pairs of a model's CP layers, made for all layers at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cpadapt.families import cp

if TYPE_CHECKING:
    from cpadapt.tuner.layer import CPLayer

Pair = tuple[Tensor, Tensor]
"""`up` `[*leading, out, components]` and `down` `[*leading, components, in]`."""


def make_pair(params: dict[str, Tensor], scale: float) -> Pair:
    """An adapter's pair in float32 or better, with its scale in `up`, so that ΔW = up · down; any leading axes."""
    up, down = cp.factors(
        {name: raw.to(torch.promote_types(raw.dtype, torch.float32)) for name, raw in params.items()}
    )
    return scale * up, down


class Pairs:
    """What a model makes for its layers, for the time of one call.

    A small model's step takes as long as it takes to launch its operations, whatever their sizes. A pair with its
    gradient is dozens of them: here that is once for all layers of the same shape, not once a layer.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[CPLayer, str], Pair] = {}
        self._with_grad = False

    def get(self, layer: CPLayer, adapter: str) -> Pair | None:
        """The pair, if it was made and serves here; otherwise the layer makes its own."""
        pair = self._made.get((layer, adapter))
        if pair is not None and torch.is_grad_enabled() and not (self._with_grad and _keeps_what_is_saved()):
            return None
        return pair

    @contextmanager
    def made_for(self, layers: Iterable[CPLayer]) -> Iterator[None]:
        """Have the pairs of the layers' active adapters in here, and nowhere else.

        The gradient of a layer that is not called in here is zero, rather than none.
        """
        before = self._made, self._with_grad
        self._made, self._with_grad = _make(layers), torch.is_grad_enabled()
        try:
            yield
        finally:
            self._made, self._with_grad = before


def _make(layers: Iterable[CPLayer]) -> dict[tuple[CPLayer, str], Pair]:
    alike: dict[Any, list[tuple[CPLayer, str, dict[str, Tensor]]]] = defaultdict(list)
    for layer in layers:
        if layer.disable_adapters or layer.merged:
            continue
        dtype = layer.get_base_layer().weight.dtype
        for adapter in layer.active_adapters:
            if adapter in layer.cp_weight:
                params = layer.params(adapter)
                if all(_is_whole(name, raw) for name, raw in params.items()):
                    kind = tuple((name, raw.shape, raw.dtype, raw.device) for name, raw in params.items())
                    alike[kind, layer.cp_scale[adapter], dtype].append((layer, adapter, params))
    made = {}
    for (_, scale, dtype), members in alike.items():
        first = members[0][2]
        up, down = make_pair({name: torch.stack([params[name] for *_, params in members]) for name in first}, scale)
        if dtype in (torch.float16, torch.bfloat16):  # as the layers' inputs will be
            up, down = up.to(dtype), down.to(dtype)
        for (layer, adapter, _), pair in zip(members, zip(up.unbind(), down.unbind(), strict=True), strict=True):
            made[layer, adapter] = pair
    return made


def _is_whole(name: str, raw: Tensor) -> bool:
    """Whether it is there before its layer is called: no placeholder, and no shard of a distributed parameter."""
    return type(raw) in (Tensor, nn.Parameter) and not raw.is_meta and raw.ndim == (1 if name == "weight" else 2)


def _keeps_what_is_saved() -> bool:
    """Whether backward finds what is saved for it, rather than calls the layer again, without its pair then."""
    # A compiler repeats operations, not calls.
    return torch.compiler.is_compiling() or torch._C._autograd._top_saved_tensors_default_hooks(True) is None
