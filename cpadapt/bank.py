"""Many runs' adapters and heads, stacked on one frozen backbone.

A bank holds runs of different families, sizes, scales and seeds. Projections that share a shape, and runs that share
a family, share one stack of trainable tensors `[runs, layers, size, …]`, padded with zeros to the largest size among
its runs (a zero slice is an exact no-op with an exactly zero gradient, see `cpadapt.families`). One forward pass over
a packed row serves all runs; each sees only its own tokens, so a run in a bank equals the same run alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cpadapt.backbones import Backbone, Projection
from cpadapt.errors import InputError
from cpadapt.families import family
from cpadapt.packing import ATTENTION, Row, adapter_product, pack
from cpadapt.protocol import HEAD, RunConfig

# The grouped product wants components in multiples of 8 (16 bytes of half precision).
COMPONENT_MULTIPLE = 8


@dataclass(frozen=True)
class Stack:
    """The trainable tensors of one family's runs on all projections of one shape."""

    family: str
    runs: slice
    """Which of the bank's runs."""
    sizes: tuple[int, ...]
    """Rank or components of each of them."""
    projections: tuple[str, ...]
    """Module names, in model order; they are the layer axis."""
    params: dict[str, Tensor]
    """`[runs, layers, largest size, …]` by the family's own names, float32."""


PROBE_LENGTHS = (7, 3, 12)


@torch.no_grad()
def require_packable(backbone: Backbone) -> None:
    """Check that packed rows give this backbone's own padded forward, on a few made-up tokens.

    An architecture that attends by other ways than transformers' attention interface, or numbers positions in a way of
    its own, would train on something else without a word.

    Raises:
        InputError: the two differ, or the model does not take packed rows at all.
    """
    model, device = backbone.model, backbone.model.device
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(PROBE_LENGTHS)])
    tokens = rng.integers(0, model.config.vocab_size, offsets[-1])
    row = pack(tokens, None, offsets, np.arange(len(PROBE_LENGTHS))[None], device)
    padded = torch.zeros(len(PROBE_LENGTHS), max(PROBE_LENGTHS), dtype=torch.int64, device=device)
    mask = torch.zeros_like(padded)
    for i, length in enumerate(PROBE_LENGTHS):
        padded[i, :length] = torch.from_numpy(tokens[offsets[i] : offsets[i + 1]])
        mask[i, :length] = 1
    expected = model(input_ids=padded, attention_mask=mask).last_hidden_state[mask.bool()].float()
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation(ATTENTION)
        if model.config._attn_implementation != ATTENTION:
            raise InputError(f"its architecture, {model.config.model_type}, has an attention of its own")
        got = model(**row.inputs).last_hidden_state[0].float()
    except (TypeError, ValueError) as error:
        raise InputError(f"backbone {backbone.name!r} does not take packed rows: {error}") from None
    finally:
        model.set_attn_implementation(before)
    difference = float((got - expected).norm() / expected.norm())
    if not difference < (1e-4 if model.dtype == torch.float32 else 5e-2):
        raise InputError(
            f"backbone {backbone.name!r} gives other hidden states for packed rows than for padded ones (relative"
            f" difference {difference:.1e}): its architecture, {model.config.model_type}, is not supported"
        )


def stacking_order(run: RunConfig) -> tuple[str, str, int]:
    """Sort key that puts runs of one stack side by side."""
    if run.family == HEAD:
        return "", "", 0
    return run.family, repr(sorted(run.shape_options.items())), run.size


def initial_params(run: RunConfig, projections: Sequence[Projection]) -> dict[str, dict[str, Tensor]]:
    """Draw a run's adapter from its seed: the family's tensors by module name. Empty for a head-only run."""
    if run.family == HEAD:
        return {}
    generator = torch.Generator().manual_seed(run.seed)
    return {
        p.name: family(run.family).init(generator, p.out_features, p.in_features, run.size, **run.options)
        for p in projections
    }


class Bank:
    """Stacked adapters and classification heads of many runs on one frozen backbone.

    Args:
        backbone: the frozen model; while the bank is in use (`with bank.attached():`) it attends within packed
            examples, and hooks add each run's update to its target projections.
        runs: what to train, in `stacking_order`.
        num_labels: classes of the task.

    Raises:
        InputError: the runs are not in stacking order.
    """

    def __init__(self, backbone: Backbone, runs: Sequence[RunConfig], num_labels: int) -> None:
        if list(runs) != sorted(runs, key=stacking_order):
            raise InputError("a bank takes its runs in stacking order: sort them with key=stacking_order")
        self.backbone = backbone
        self.runs = tuple(runs)
        self.device = backbone.model.device
        self.dtype = backbone.model.dtype
        drawn = [initial_params(run, backbone.projections) for run in runs]
        self.stacks = tuple(self._stacks(drawn))
        config = backbone.model.config
        # Some OPT models project their last hidden states to the size of the embeddings.
        hidden = getattr(config, "word_embed_proj_dim", config.hidden_size)
        self.head = torch.zeros(len(runs), num_labels, hidden, device=self.device)
        self.bias = torch.zeros(len(runs), num_labels, device=self.device)
        self.scales = torch.tensor([run.scale or 0.0 for run in runs], device=self.device)
        for _, tensor in self.tensors():
            tensor.requires_grad_(True)
        self._row: Row | None = None
        self._pairs: dict[str, tuple[Tensor, Tensor]] = {}

    def _stacks(self, drawn: list[dict[str, dict[str, Tensor]]]) -> Iterator[Stack]:
        by_shape: dict[tuple[int, int], list[str]] = {}
        for p in self.backbone.projections:
            by_shape.setdefault((p.out_features, p.in_features), []).append(p.name)
        keys = [stacking_order(run)[:2] for run in self.runs]
        for key in dict.fromkeys(keys):
            start, count = keys.index(key), keys.count(key)
            members = self.runs[start : start + count]
            if members[0].family == HEAD:
                continue
            largest = max(run.size for run in members)
            for names in by_shape.values():
                params: dict[str, Tensor] = {}
                for tensor in drawn[start][names[0]]:
                    per_run = [
                        torch.stack([drawn[r][name][tensor] for name in names]) for r in range(start, start + count)
                    ]
                    params[tensor] = torch.stack([_pad(t, 1, largest) for t in per_run]).to(self.device)
                yield Stack(
                    family=members[0].family,
                    runs=slice(start, start + count),
                    sizes=tuple(run.size for run in members),
                    projections=tuple(names),
                    params=params,
                )

    def tensors(self) -> Iterator[tuple[slice, Tensor]]:
        """Every trainable tensor with the runs that its first axis holds, in a fixed order."""
        for _, runs, tensor in self.named_tensors():
            yield runs, tensor

    def named_tensors(self) -> Iterator[tuple[str, slice, Tensor]]:
        """As `tensors`, each with a name that is stable for the same runs."""
        for i, stack in enumerate(self.stacks):
            for name, tensor in stack.params.items():
                yield f"stack_{i}.{name}", stack.runs, tensor
        everyone = slice(0, len(self.runs))
        yield "head", everyone, self.head
        yield "bias", everyone, self.bias

    def adapter_of(self, run: int) -> dict[str, dict[str, Tensor]]:
        """One run's adapter as the family's tensors by module name, without padding; empty for head only."""
        found: dict[str, dict[str, Tensor]] = {}
        for stack in self.stacks:
            if stack.runs.start <= run < stack.runs.stop:
                at = run - stack.runs.start
                for layer, projection in enumerate(stack.projections):
                    found[projection] = {
                        name: tensor[at, layer, : stack.sizes[at]].detach().clone()
                        for name, tensor in stack.params.items()
                    }
        return found

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Put the bank on its backbone: packed attention and a hook a target projection; taken off at the end."""
        model = self.backbone.model
        before = model.config._attn_implementation
        modules = dict(model.named_modules())
        handles = [modules[p.name].register_forward_hook(self._hook(p.name)) for p in self.backbone.projections]
        model.set_attn_implementation(ATTENTION)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            model.set_attn_implementation(before)
            self._row, self._pairs = None, {}

    def _hook(self, name: str) -> Any:
        def add_update(module: torch.nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if self._row is None or name not in self._pairs:
                return output
            up, down = self._pairs[name]
            return output + adapter_product(args[0][0], up, down, self._row.segments).unsqueeze(0)

        return add_update

    def logits(self, row: Row, runs: slice) -> Tensor:
        """Class scores of a packed row that holds these runs' examples, equally many for each.

        Returns:
            `[runs, examples a run, labels]`, float32.
        """
        self._row, self._pairs = row, self._factor_pairs(runs)
        hidden = self.backbone.model(**row.inputs, use_cache=False).last_hidden_state[0]
        features = pool(hidden, row, self.runs[0].protocol.pooling, decoder=self.backbone.decoder)
        features = F.layer_norm(features, features.shape[-1:])
        features = features.unflatten(0, (runs.stop - runs.start, -1))
        logits: Tensor = features @ self.head[runs].mT + self.bias[runs, None]
        return logits

    def _factor_pairs(self, runs: slice) -> dict[str, tuple[Tensor, Tensor]]:
        """Each projection's pair for these runs, padded to one number of components, in the backbone's dtype."""
        pairs: dict[str, tuple[Tensor, Tensor]] = {}
        by_projections: dict[tuple[str, ...], list[Stack]] = {}
        for stack in self.stacks:
            if stack.runs.start < runs.stop and runs.start < stack.runs.stop:
                by_projections.setdefault(stack.projections, []).append(stack)
        for projections, stacks in by_projections.items():
            made = []
            for stack in stacks:
                here = slice(max(stack.runs.start, runs.start), min(stack.runs.stop, runs.stop))
                local = slice(here.start - stack.runs.start, here.stop - stack.runs.start)
                largest = max(stack.sizes[local])
                up, down = family(stack.family).factors(
                    {name: tensor[local, :, :largest] for name, tensor in stack.params.items()}
                )
                up = up * self.scales[here, None, None, None]
                made.append((here, up.to(self.dtype), down.to(self.dtype)))
            most = max(down.shape[2] for _, _, down in made)
            if self.device.type == "cuda":
                most = -(-most // COMPONENT_MULTIPLE) * COMPONENT_MULTIPLE
            # Head-only runs sort first and have no pair: theirs is zero.
            bare = made[0][0].start - runs.start
            ups = F.pad(torch.cat([_pad(up, 3, most) for _, up, _ in made]), (0, 0) * 3 + (bare, 0))
            downs = F.pad(torch.cat([_pad(down, 2, most) for _, _, down in made]), (0, 0) * 3 + (bare, 0))
            for projection, up, down in zip(projections, ups.unbind(1), downs.unbind(1), strict=True):
                pairs[projection] = up, down
        return pairs


def pool(hidden: Tensor, row: Row, pooling: str, *, decoder: bool) -> Tensor:
    """One feature vector an example from a packed row's hidden states.

    Args:
        hidden: `[T, hidden]`.
        row: the packed row.
        pooling: `last` (the last real token), `mean` (over the example's tokens) or `auto` (`last` for decoders).
        decoder: whether the backbone is one.

    Returns:
        `[examples, hidden]`, float32.
    """
    segments = row.segments
    if pooling == "last" or (pooling == "auto" and decoder):
        return hidden.index_select(0, segments.example_offsets[1:].long() - 1).float()
    lengths = segments.lengths.long()
    example = torch.repeat_interleave(
        torch.arange(len(lengths), device=hidden.device), lengths, output_size=hidden.shape[0]
    )
    total = hidden.new_zeros(len(lengths), hidden.shape[1], dtype=torch.float32)
    return total.index_add(0, example, hidden.float()) / lengths[:, None]


def _pad(tensor: Tensor, dim: int, size: int) -> Tensor:
    """Append zeros along a dimension up to `size`."""
    missing = size - tensor.shape[dim]
    return F.pad(tensor, (0, 0) * (tensor.dim() - 1 - dim) + (0, missing)) if missing else tensor
