"""One CP adapter of one projection: a module that is called for its factor pair."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from cpadapt.families import cp

Pair = tuple[Tensor, Tensor]
"""`up` `[*leading, out, components]` and `down` `[*leading, components, in]`."""


def make_pair(params: Mapping[str, Tensor], scale: float) -> Pair:
    """An adapter's pair in float32 or better, with its scale in `up`, so that ΔW = up · down; any leading axes."""
    up, down = cp.factors(
        {name: raw.to(torch.promote_types(raw.dtype, torch.float32)) for name, raw in params.items()}
    )
    return scale * up, down


class CPAdapter(nn.Module):
    """The CP tensors of one adapter on one projection (arXiv 2606.00428); a call makes their factor pair.

    It is a module, and it is called, because that is where offloading, sharding and replication act: on the parameters
    of a module around its `forward`. The parameters have the names and shapes of `cpadapt.families.cp`: `up_0`
    `[components, o_1]`, …, `down_0` `[components, i_1]`, …, `weight` `[components]`.
    """

    def __init__(self, params: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._shapes = {name: raw.shape for name, raw in params.items()}
        for name, raw in params.items():
            self.register_parameter(name, nn.Parameter(raw))

    def forward(self, scale: float) -> Pair:
        """`up` `[out, components]` and `down` `[components, in]`, float32 or better, so that ΔW = up · down."""
        return make_pair(self.tensors(), scale)

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        # As attributes: a replica of `nn.DataParallel` has tensors there, but no parameters.
        return {name: getattr(self, name) for name in self._shapes}

    def is_at_hand(self) -> bool:
        """Whether its tensors can be used without calling it: nothing has put them elsewhere or taken a share."""
        # torch's private names: where they are not there, a hook may be, and each layer makes its pair by itself.
        hooks = (getattr(self, name, True) for name in ("_forward_pre_hooks", "_forward_hooks"))
        hooked = any(hooks) or "forward" in vars(self)
        return not hooked and all(
            type(raw) in (Tensor, nn.Parameter) and not raw.is_meta and raw.shape == self._shapes[name]
            for name, raw in self.tensors().items()
        )


def stacked(adapters: Iterable[CPAdapter]) -> dict[str, Tensor]:
    """The tensors of adapters of the same shapes, `[adapters, …]` each."""
    tensors = [adapter.tensors() for adapter in adapters]
    return {name: torch.stack([each[name] for each in tensors]) for name in tensors[0]}
