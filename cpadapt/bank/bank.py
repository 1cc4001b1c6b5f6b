"""Many runs' adapters and readouts, stacked on one frozen backbone.

A bank holds runs of different families, sizes, scales and seeds. Projections that share a shape, and runs that share
a family, share one stack of trainable tensors `[layers, components, …]`, in which the runs' components (or ranks) lie
end to end. One forward pass over a packed row serves all runs; each sees only its own tokens, so a run in a bank
equals the same run alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from cpadapt.bank.packing import ATTENTION, Components, Row, Segments, adapter_product, pack
from cpadapt.errors import InputError
from cpadapt.families import family
from cpadapt.inputs.backbones.loading import Backbone
from cpadapt.inputs.backbones.specs import Projection
from cpadapt.inputs.tasks.encoding import label_tokens
from cpadapt.inputs.tasks.specs import TaskSpec
from cpadapt.records.config import HEAD, RunConfig


@dataclass(frozen=True)
class Stack:
    """The trainable tensors of one family's runs on all projections of one shape."""

    family: str
    runs: slice
    """Which of the bank's runs."""
    offsets: tuple[int, ...]
    """`[runs + 1]`, where each run's components end."""
    owners: Tensor
    """`[components]`, which of the bank's runs each belongs to."""
    projections: tuple[str, ...]
    """Module names, in model order; they are the layer axis."""
    params: dict[str, Tensor]
    """`[layers, components, …]` by the family's own names, float32."""
    gradients: dict[str, Tensor]
    """As `params`."""


class TrainedTensor(NamedTuple):
    """One tensor that a bank trains, stacked or of the head."""

    name: str
    tensor: Tensor
    """`[layers, entries, …]`"""
    gradient: Tensor
    """Where `Bank.backward` leaves its gradient, likewise."""
    owners: Tensor
    """`[entries]`, which of the bank's runs each belongs to."""


@dataclass(frozen=True)
class StackSlice:
    """What of a stack belongs to some neighbouring runs: views of its tensors."""

    stack: Stack
    scales: Tensor
    """Of the runs' updates, `[components]`."""
    params: dict[str, Tensor]
    """`[layers, components, …]`; leaves of a graph of their own."""
    gradients: dict[str, Tensor]


@dataclass(frozen=True)
class RunSlice:
    """All that some neighbouring runs of a bank train, as views: what one packed row needs, and what it moves."""

    runs: slice
    components: Components
    stacks: tuple[StackSlice, ...]
    head: dict[str, Tensor]
    """`weight` `[runs, labels, hidden]` and `bias` `[runs, labels]`; empty where the readout is not trained."""
    head_gradients: dict[str, Tensor]

    @property
    def leaves(self) -> list[Tensor]:
        """What is trained."""
        return [*(t for stack in self.stacks for t in stack.params.values()), *self.head.values()]

    @property
    def gradients(self) -> list[Tensor]:
        """Where the leaves' gradients belong, in the same order."""
        return [*(t for stack in self.stacks for t in stack.gradients.values()), *self.head_gradients.values()]


@dataclass(frozen=True)
class RowAdapters:
    """What the runs of a packed row add to the output of one projection."""

    up: Tensor
    """`[components, out]`"""
    down: Tensor
    """`[components, in]`"""
    segments: Segments
    components: Components


class AdaptedProjection(torch.nn.Module):
    """A frozen projection plus each run's update of its own tokens; stands in its place while a bank is attached."""

    def __init__(self, projection: torch.nn.Module) -> None:
        super().__init__()
        self.projection = projection
        self.adapters: RowAdapters | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map a packed row `[1, T, in]` to `[1, T, out]`."""
        output: Tensor = self.projection(x)
        adapters = self.adapters
        if adapters is None:
            return output
        update = adapter_product(x[0], adapters.up, adapters.down, adapters.segments, adapters.components)
        return output + update.unsqueeze(0)


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
        packed = model(**row.inputs).last_hidden_state[0].float()
    except (TypeError, ValueError) as error:
        raise InputError(f"backbone {backbone.name!r} does not take packed rows: {error}") from None
    finally:
        model.set_attn_implementation(before)
    difference = float((packed - expected).norm() / expected.norm())
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
    """Stacked adapters and readouts of many runs on one frozen backbone.

    Args:
        backbone: the frozen model; while the bank is in use (`with bank.attached():`) it attends within packed
            examples, and its target projections add each run's update.
        runs: what to train, in `stacking_order`.
        spec: the task.
        compiled: fuse the frozen layers' and the factors' elementwise work (torch.compile): the same arithmetic in
            fewer passes over memory, for a wait at the start.

    Raises:
        InputError: the runs are not in stacking order; or as `verbalizer`, where that is the readout.
    """

    def __init__(
        self, backbone: Backbone, runs: Sequence[RunConfig], spec: TaskSpec, *, compiled: bool = False
    ) -> None:
        if list(runs) != sorted(runs, key=stacking_order):
            raise InputError("a bank takes its runs in stacking order: sort them with key=stacking_order")
        self.backbone = backbone
        self.runs = tuple(runs)
        self.device = backbone.model.device
        self.dtype = backbone.model.dtype
        drawn = [initial_params(run, backbone.projections) for run in runs]
        self.stacks = tuple(self._stacks(drawn))
        self.words = verbalizer(backbone, spec) if runs[0].protocol.readout == "verbalizer" else None
        """`[labels, hidden]`, what a verbalizer reads."""
        config = backbone.model.config
        # Some OPT models project their last hidden states to the size of the embeddings.
        hidden = getattr(config, "word_embed_proj_dim", config.hidden_size)
        shapes = {"weight": (len(spec.labels), hidden), "bias": (len(spec.labels),)} if self.words is None else {}
        self.head, self.head_gradients = (
            {name: torch.zeros(len(runs), *shape, device=self.device) for name, shape in shapes.items()}
            for _ in range(2)
        )
        self.scales = torch.tensor([run.scale or 0.0 for run in runs], device=self.device)
        self._sizes = [0 if run.family == HEAD else run.size for run in runs]
        self.compiled = compiled
        self._adapted = {p.name: AdaptedProjection(backbone.model.get_submodule(p.name)) for p in backbone.projections}
        self._pair = torch.compile(factor_pair) if compiled else factor_pair

    def _stacks(self, drawn: list[dict[str, dict[str, Tensor]]]) -> Iterator[Stack]:
        by_shape: dict[tuple[int, int], list[str]] = {}
        for p in self.backbone.projections:
            by_shape.setdefault((p.out_features, p.in_features), []).append(p.name)
        kinds = [stacking_order(run)[:2] for run in self.runs]
        for kind in dict.fromkeys(kinds):
            runs = slice(kinds.index(kind), kinds.index(kind) + kinds.count(kind))
            members = self.runs[runs]
            if members[0].family == HEAD:
                continue
            adapters = drawn[runs]
            sizes = torch.tensor([run.size for run in members])
            for names in by_shape.values():
                params = {
                    key: torch.stack([torch.cat([adapter[name][key] for adapter in adapters]) for name in names])
                    for key in adapters[0][names[0]]
                }
                params = {key: tensor.to(self.device) for key, tensor in params.items()}
                yield Stack(
                    family=members[0].family,
                    runs=runs,
                    offsets=(0, *sizes.cumsum(0).tolist()),
                    owners=torch.arange(runs.start, runs.stop).repeat_interleave(sizes).to(self.device),
                    projections=tuple(names),
                    params=params,
                    gradients={name: torch.zeros_like(tensor) for name, tensor in params.items()},
                )

    def tensors(self) -> Iterator[TrainedTensor]:
        """All that is trained, in a fixed order; the names are stable for the same runs."""
        for i, stack in enumerate(self.stacks):
            for name, tensor in stack.params.items():
                yield TrainedTensor(f"stack_{i}.{name}", tensor, stack.gradients[name], stack.owners)
        everyone = torch.arange(len(self.runs), device=self.device)
        for name, tensor in self.head.items():
            yield TrainedTensor(f"head.{name}", tensor[None], self.head_gradients[name][None], everyone)

    def adapter_of(self, run: int) -> dict[str, dict[str, Tensor]]:
        """One run's adapter as the family's tensors by module name; empty for head only."""
        adapter: dict[str, dict[str, Tensor]] = {}
        for stack in self.stacks:
            if stack.runs.start <= run < stack.runs.stop:
                components = slice(*stack.offsets[run - stack.runs.start :][:2])
                for layer, projection in enumerate(stack.projections):
                    adapter[projection] = {
                        name: tensor[layer, components].detach().clone() for name, tensor in stack.params.items()
                    }
        return adapter

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Put the bank on its backbone: packed attention and adapted target projections; taken off at the end."""
        model = self.backbone.model
        before = model.config._attn_implementation
        layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
        for name, adapted in self._adapted.items():
            model.set_submodule(name, adapted)
        model.set_attn_implementation(ATTENTION)
        if self.compiled:
            # One layer's code serves all of them: their weights and factors are its inputs.
            for layer in layers:
                layer.compile(dynamic=True)
        try:
            # For the compiler: two sizes that happen to be equal in one row are not so in the next, and a process may
            # train banks of many mixtures of families, shapes and backbones.
            with (
                torch.fx.experimental._config.patch(use_duck_shape=False),  # type: ignore[attr-defined]
                torch._dynamo.config.patch(recompile_limit=64),
            ):
                yield
        finally:
            for layer in layers:
                layer._compiled_call_impl = None
            model.set_attn_implementation(before)
            for name, adapted in self._adapted.items():
                adapted.adapters = None
                model.set_submodule(name, adapted.projection)

    def run_slice(self, runs: slice) -> RunSlice:
        """Views of what these neighbouring runs train."""
        stacks = []
        for stack in self.stacks:
            first, last = max(stack.runs.start, runs.start), min(stack.runs.stop, runs.stop)
            if first < last:
                begin, end = (stack.offsets[run - stack.runs.start] for run in (first, last))
                stack_slice = StackSlice(
                    stack,
                    self.scales[stack.owners[begin:end]],
                    {name: _leaf(tensor[:, begin:end]) for name, tensor in stack.params.items()},
                    {name: tensor[:, begin:end] for name, tensor in stack.gradients.items()},
                )
                stacks.append(stack_slice)
        return RunSlice(
            runs,
            Components.of(self._sizes[runs], self.device, max(self._sizes)),
            tuple(stacks),
            {name: _leaf(tensor[runs]) for name, tensor in self.head.items()},
            {name: tensor[runs] for name, tensor in self.head_gradients.items()},
        )

    def logits(self, row: Row, run_slice: RunSlice) -> Tensor:
        """Class scores of a packed row that holds the share's runs' examples, equally many for each.

        Returns:
            `[runs, examples a run, labels]`, float32.
        """
        self._hand_out(row, run_slice)
        hidden = self.backbone.model(**row.inputs, use_cache=False).last_hidden_state[0]
        features = pool(hidden, row, self.runs[0].protocol.pooling, decoder=self.backbone.decoder)
        by_run = (run_slice.runs.stop - run_slice.runs.start, -1)
        if self.words is not None:
            return (features @ self.words.mT).view(*by_run, len(self.words))
        features = F.layer_norm(features, features.shape[-1:]).view(*by_run, features.shape[-1])
        return features @ run_slice.head["weight"].mT + run_slice.head["bias"][:, None]

    def backward(self, row: Row, labels: Tensor, run_slice: RunSlice) -> Tensor:
        """Leave every run's gradient of its own mean loss in `gradients`.

        Args:
            row: a packed row with the share's runs' examples.
            labels: `[runs, examples a run]`.
            run_slice: of the runs.

        Returns:
            The losses, `[runs]`.
        """
        logits = self.logits(row, run_slice)
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels).mean(1)
        # No other run's loss depends on a run's scalars, so the sum's gradient is each one's own. Without adapters a
        # verbalizer has nothing to train.
        if run_slice.leaves:
            torch._foreach_copy_(run_slice.gradients, torch.autograd.grad(losses.sum(), run_slice.leaves))
        return losses.detach()

    def _pair_of(self, stack_slice: StackSlice) -> tuple[Tensor, Tensor]:
        params = stack_slice.params
        if self.compiled:
            # The components alone differ from row to row and from bank to bank, and sizes that the compiler knows cost
            # less. Some of a stack's runs lie apart in memory, all of them do not: in one piece, both have one code.
            params = {name: tensor.contiguous() for name, tensor in params.items()}
            torch._dynamo.maybe_mark_dynamic(stack_slice.scales, 0)
            for tensor in params.values():
                torch._dynamo.maybe_mark_dynamic(tensor, 1)
        return self._pair(stack_slice.stack.family, params, stack_slice.scales, self.dtype)

    def _hand_out(self, row: Row, run_slice: RunSlice) -> None:
        """Make the share's factor pairs and give every projection its own."""
        # A copy: the compiler takes a number that it meets in a module first, here the longest example's length, for
        # fixed, and would compile anew for every task.
        segments = replace(row.segments)
        by_projections: dict[tuple[str, ...], list[StackSlice]] = {}
        for stack_slice in run_slice.stacks:
            by_projections.setdefault(stack_slice.stack.projections, []).append(stack_slice)
        for adapted in self._adapted.values():
            # A row of head-only runs has none.
            adapted.adapters = None
        for projections, stacks in by_projections.items():
            ups, downs = (torch.cat(factors, 1) for factors in zip(*map(self._pair_of, stacks), strict=True))
            for projection, up, down in zip(projections, ups.unbind(), downs.unbind(), strict=True):
                self._adapted[projection].adapters = RowAdapters(up, down, segments, run_slice.components)


def factor_pair(name: str, params: dict[str, Tensor], scales: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The pairs of neighbouring runs of one family on all projections of one shape, end to end.

    Args:
        name: of the family.
        params: its runs' scalars, `[layers, components, …]`.
        scales: of the runs' updates, `[components]`.
        dtype: of the pairs.

    Returns:
        `up` `[layers, components, out]`, scaled, and `down` `[layers, components, in]`.
    """
    up, down = family(name).factors(params)
    return (up.mT * scales[:, None]).to(dtype), down.to(dtype)


def verbalizer(backbone: Backbone, spec: TaskSpec) -> Tensor:
    """The rows of the output embedding that stand for a task's labels, `[labels, hidden]`, float32.

    Raises:
        InputError: the backbone is no decoder; or as `cpadapt.inputs.backbones.loading.Backbone.output_embedding` or
            `cpadapt.inputs.tasks.encoding.label_tokens`.
    """
    if not backbone.decoder:
        raise InputError(
            f"protocol.readout = 'verbalizer': backbone {backbone.name!r} is an encoder, which does not say how a text"
            " goes on; take 'head'"
        )
    words = label_tokens(spec, backbone.tokenizer)
    try:
        return backbone.output_embedding(words).to(backbone.model.device)
    except InputError as error:
        raise InputError(f"protocol.readout = 'verbalizer': {error}; take 'head'") from None


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
        return hidden.index_select(0, segments.example_offsets[1 : segments.examples + 1].long() - 1).float()
    lengths = segments.lengths.long()
    example = torch.repeat_interleave(
        torch.arange(len(lengths), device=hidden.device), lengths, output_size=hidden.shape[0]
    )
    total = hidden.new_zeros(len(lengths), hidden.shape[1], dtype=torch.float32)
    total = total.index_add(0, example, hidden.float())
    return total[: segments.examples] / lengths[: segments.examples, None]


def _leaf(view: Tensor) -> Tensor:
    """The same memory as a leaf that asks for a gradient."""
    return view.detach().requires_grad_()
