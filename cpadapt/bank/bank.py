"""Many runs' adapters and readouts, stacked on one frozen backbone.

A bank holds runs of different families, sizes, scales and seeds. Runs of one family have one stack of trainable
tensors `[layers, components, …]` for all projections of one shape, in which the components (or ranks) of the runs
follow one another. If the units of a family are not separate (see `cpadapt.families`), its runs of each size have one.
One forward pass over a packed row serves all runs. Each run sees only its tokens, so a run in a bank equals the same
run alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from cpadapt.bank.packing import ATTENTION, Components, Row, Segments, adapter_product, pack
from cpadapt.bank.private_torch import compiled_calls, compiling_for_many_banks, copy_all, mark_dynamic
from cpadapt.errors import InputError
from cpadapt.families import FAMILIES, counting, family
from cpadapt.inputs.backbones.loading import Backbone
from cpadapt.inputs.backbones.specs import Projection
from cpadapt.inputs.tasks.encoding import label_tokens
from cpadapt.inputs.tasks.specs import TaskSpec
from cpadapt.records.config import HEAD, RunConfig
from cpadapt.records.config import stacking_order as stacking_order


@dataclass(frozen=True)
class Stack:
    """The trainable tensors of one family's runs on all projections of one shape.

    If the family's units are not separate (see `cpadapt.families`), the runs have one size.
    """

    family: str
    runs: slice
    """Which runs of the bank."""
    offsets: tuple[int, ...]
    """`[runs + 1]`: run k has the components `offsets[k] : offsets[k + 1]`."""
    owners: Tensor
    """`[components]`: the bank's run that each component belongs to."""
    projections: tuple[str, ...]
    """`[layers]`: module names, in model order."""
    params: dict[str, Tensor]
    """`[layers, components, …]`, float32, by the names that the family gives its tensors."""
    gradients: dict[str, Tensor]
    """As `params`."""


class TrainedTensor(NamedTuple):
    """One tensor that a bank trains: from a stack or from the head."""

    name: str
    tensor: Tensor
    """`[layers, entries, …]`"""
    gradient: Tensor
    """`[layers, entries, …]`, where `Bank.backward` writes the gradient."""
    owners: Tensor
    """`[entries]`: the bank's run that each entry belongs to."""


@dataclass(frozen=True)
class StackSlice:
    """The components of neighbouring runs in a stack, as views of its tensors."""

    stack: Stack
    scales: Tensor
    """`[columns]`: the factor in front of each column of the pair."""
    params: dict[str, Tensor]
    """`[layers, components, …]`, leaves of the graph."""
    gradients: dict[str, Tensor]
    """As `params`."""


@dataclass(frozen=True)
class RunSlice:
    """All that neighbouring runs of a bank train, as views: what a packed row reads and updates."""

    runs: slice
    """Which runs of the bank."""
    components: Components
    stacks: tuple[StackSlice, ...]
    head: dict[str, Tensor]
    """`weight` `[runs, labels, hidden]` and `bias` `[runs, labels]`; empty where the readout is not trained."""
    head_gradients: dict[str, Tensor]
    """As `head`."""

    @property
    def leaves(self) -> list[Tensor]:
        """All trained tensors."""
        return [*(t for stack in self.stacks for t in stack.params.values()), *self.head.values()]

    @property
    def gradients(self) -> list[Tensor]:
        """Where the gradients of the leaves go, in the same order."""
        return [*(t for stack in self.stacks for t in stack.gradients.values()), *self.head_gradients.values()]


@dataclass(frozen=True)
class RowAdapters:
    """The factor pairs that one projection applies to a packed row."""

    up: Tensor
    """`[components, out]`"""
    down: Tensor
    """`[components, in]`"""
    segments: Segments
    components: Components


class AdaptedProjection(torch.nn.Module):
    """A frozen projection plus each run's update on that run's tokens. Replaces the projection in an attached bank."""

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
    """Check on a few random tokens that a packed row gives the same hidden states as the model's padded forward.

    An architecture that bypasses transformers' attention interface, or numbers positions differently, would silently
    train on something else.

    Raises:
        InputError: the two differ, are not finite, or the model does not take packed rows at all.
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
    if not expected.isfinite().all():
        raise InputError(
            f"backbone {backbone.name!r} gives hidden states that are not finite, so its weights are damaged; get them"
            " again"
        )
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation(ATTENTION)
        if model.config._attn_implementation != ATTENTION:
            raise InputError(
                f"its architecture, {model.config.model_type}, does not use transformers' attention interface"
            )
        packed = model(**row.inputs).last_hidden_state[0].float()
    except (TypeError, ValueError) as error:
        raise InputError(f"backbone {backbone.name!r} does not take packed rows: {error}") from None
    finally:
        model.set_attn_implementation(before)
    difference = float((packed - expected).norm() / expected.norm())
    if not difference < (1e-4 if model.dtype == torch.float32 else 5e-2):
        raise InputError(
            f"backbone {backbone.name!r} gives different hidden states for packed and for padded rows (relative"
            f" difference {difference:.1e}): its architecture, {model.config.model_type}, is not supported"
        )


def require_drawable(runs: Iterable[RunConfig], projections: Sequence[Projection]) -> None:
    """Check the options that only a family's `init` reads, on one projection, before anything is loaded.

    Raises:
        InputError: an option is wrong.
    """
    for run in {(run.family, repr(run.options)): run for run in runs if run.family in FAMILIES}.values():
        known, first = family(run.family), projections[0]
        size = known.smallest(**run.shape_options)
        known.init(torch.Generator(), first.out_features, first.in_features, size, **run.init_options)


def initial_params(run: RunConfig, projections: Sequence[Projection]) -> dict[str, dict[str, Tensor]]:
    """Draw a run's adapter from its seed: the family's tensors by module name. Empty for a head-only run.

    Raises:
        InputError: the family refuses a projection, is not one that a bank takes, or as its `init`.
    """
    if run.family == HEAD:
        return {}
    counting.require(run.family, projections, run.shape_options)
    generator = torch.Generator().manual_seed(run.seed)
    return {
        p.name: family(run.family).init(generator, p.out_features, p.in_features, run.size, **run.init_options)
        for p in projections
    }


def _columns(run: RunConfig) -> int:
    """Columns of a run's pairs; none for head only, or by one of PEFT's tuners."""
    return family(run.family).columns(run.size, **run.shape_options) if run.family in FAMILIES else 0


def _kind(run: RunConfig) -> tuple[Any, ...]:
    """What runs of one stack share: family and shape options, and the size if the family's units are not separate."""
    *kind, size = stacking_order(run)
    return tuple(kind) if run.family == HEAD or family(run.family).SEPARATE_UNITS else (*kind, size)


class Bank:
    """Stacked adapters and readouts of many runs on one frozen backbone.

    Args:
        backbone: the frozen model; while the bank is in use (`with bank.attached():`) it attends within packed
            examples, and its target projections add each run's update.
        runs: what to train, in `stacking_order`.
        spec: the task.
        compiled: fuse elementwise work of the frozen layers and of the factors with torch.compile. The arithmetic
            stays; it takes fewer passes over memory, after a wait at the start.

    Raises:
        InputError: the runs are not in stacking order; or as `verbalizer`, if that is the readout.
    """

    def __init__(
        self, backbone: Backbone, runs: Sequence[RunConfig], spec: TaskSpec, *, compiled: bool = False
    ) -> None:
        if list(runs) != sorted(runs, key=stacking_order):
            raise InputError("the runs of a bank must be in stacking order: sort them with key=stacking_order")
        self.backbone = backbone
        self.runs = tuple(runs)
        self.device = backbone.model.device
        self.dtype = backbone.model.dtype
        self.stacks = tuple(self._stacks())
        self.words = verbalizer(backbone, spec) if runs[0].protocol.readout == "verbalizer" else None
        """`[labels, hidden]`: the rows of the output embedding that a verbalizer reads."""
        config = backbone.model.config
        # Some OPT models project the last hidden states to the size of the embeddings.
        hidden = getattr(config, "word_embed_proj_dim", config.hidden_size)
        shapes = {"weight": (len(spec.labels), hidden), "bias": (len(spec.labels),)} if self.words is None else {}
        self.head, self.head_gradients = (
            {name: torch.zeros(len(runs), *shape, device=self.device) for name, shape in shapes.items()}
            for _ in range(2)
        )
        self.scales = torch.tensor([run.scale or 0.0 for run in runs], device=self.device)
        self._columns = [_columns(run) for run in runs]
        self.compiled = compiled
        self._frozen: dict[str, torch.nn.Module] = {
            p.name: backbone.model.get_submodule(p.name) for p in backbone.projections
        }
        self._adapted = {name: AdaptedProjection(self._projection(name)) for name in self._frozen}
        self._pair = torch.compile(factor_pair) if compiled else factor_pair

    def _projection(self, name: str) -> torch.nn.Module:
        """What an attached bank adds its pairs to, in place of a projection of this name."""
        return self._frozen[name]

    def _stacks(self) -> Iterator[Stack]:
        """Draw the runs' adapters and stack them."""
        drawn = [initial_params(run, self.backbone.projections) for run in self.runs]
        by_shape: dict[tuple[int, int], list[str]] = {}
        for p in self.backbone.projections:
            by_shape.setdefault((p.out_features, p.in_features), []).append(p.name)
        kinds = [_kind(run) for run in self.runs]
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
        """All trained tensors in a fixed order; the same runs always get the same names."""
        for i, stack in enumerate(self.stacks):
            for name, tensor in stack.params.items():
                yield TrainedTensor(f"stack_{i}.{name}", tensor, stack.gradients[name], stack.owners)
        everyone = torch.arange(len(self.runs), device=self.device)
        for name, tensor in self.head.items():
            yield TrainedTensor(f"head.{name}", tensor[None], self.head_gradients[name][None], everyone)

    def adapter_of(self, run: int) -> dict[str, dict[str, Tensor]]:
        """One run's adapter: by module name, the family's tensors. Empty for a head-only run."""
        adapter: dict[str, dict[str, Tensor]] = {}
        for stack in self.stacks:
            if stack.runs.start <= run < stack.runs.stop:
                components = slice(*stack.offsets[run - stack.runs.start :][:2])
                for layer, projection in enumerate(stack.projections):
                    adapter[projection] = {
                        name: tensor[layer, components].detach().clone() for name, tensor in stack.params.items()
                    }
        return adapter

    @torch.no_grad()
    def start_from(self, run: int, adapter: Mapping[str, Mapping[str, Tensor]], head: Mapping[str, Tensor]) -> None:
        """Replace a run's drawn weights by given ones, as `adapter_of` gives an adapter, before any training.

        Args:
            run: its place in the bank.
            adapter: by module name, the family's tensors.
            head: `weight` and `bias`, as `self.head` has them for each run; none with a verbalizer.

        Raises:
            InputError: modules or tensors are missing, too many or of another shape.
        """
        there = self.adapter_of(run) | ({"head": {name: tensor[run] for name, tensor in self.head.items()}})
        given = {**adapter, "head": head}
        shapes, wanted = (
            {module: {name: tuple(tensor.shape) for name, tensor in params.items()} for module, params in each.items()}
            for each in (given, there)
        )
        if shapes != wanted:
            wrong = next(name for name in (*wanted, *shapes) if shapes.get(name) != wanted.get(name))
            raise InputError(
                f"run {run} cannot start from these weights: {wrong} must have {wanted.get(wrong)}, not"
                f" {shapes.get(wrong)}"
            )
        for stack in self.stacks:
            if stack.runs.start <= run < stack.runs.stop:
                components = slice(*stack.offsets[run - stack.runs.start :][:2])
                for layer, projection in enumerate(stack.projections):
                    for name, tensor in stack.params.items():
                        tensor[layer, components].copy_(adapter[projection][name])
        for name, tensor in self.head.items():
            tensor[run].copy_(head[name])

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Put the bank on its backbone: packed attention and adapted projections. Leaving restores the backbone."""
        model = self.backbone.model
        before = model.config._attn_implementation
        layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
        for name, adapted in self._adapted.items():
            model.set_submodule(name, adapted)
        model.set_attn_implementation(ATTENTION)
        try:
            with compiled_calls(layers if self.compiled else ()), compiling_for_many_banks():
                yield
        finally:
            model.set_attn_implementation(before)
            for name, adapted in self._adapted.items():
                adapted.adapters = None
                model.set_submodule(name, self._frozen[name])

    def run_slice(self, runs: slice) -> RunSlice:
        """Views of what neighbouring runs train."""
        stacks = []
        for stack in self.stacks:
            first, last = max(stack.runs.start, runs.start), min(stack.runs.stop, runs.stop)
            if first < last:
                begin, end = (stack.offsets[run - stack.runs.start] for run in (first, last))
                columns = self._columns[first:last]
                repeats = torch.tensor(columns, device=self.device)
                stack_slice = StackSlice(
                    stack,
                    self.scales[first:last].repeat_interleave(repeats, output_size=sum(columns)),
                    {name: _leaf(tensor[:, begin:end]) for name, tensor in stack.params.items()},
                    {name: tensor[:, begin:end] for name, tensor in stack.gradients.items()},
                )
                stacks.append(stack_slice)
        return RunSlice(
            runs,
            Components.of(self._columns[runs], self.device, max(self._columns)),
            tuple(stacks),
            {name: _leaf(tensor[runs]) for name, tensor in self.head.items()},
            {name: tensor[runs] for name, tensor in self.head_gradients.items()},
        )

    def logits(self, row: Row, run_slice: RunSlice) -> Float[Tensor, "runs examples labels"]:
        """Class scores of a packed row.

        Args:
            row: equally many examples of each run, run by run.
            run_slice: the runs.

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

    def backward(
        self,
        row: Row,
        targets: Int[Tensor, "runs examples"] | Float[Tensor, "runs examples labels"],
        run_slice: RunSlice,
    ) -> Float[Tensor, "runs"]:
        """Write the gradient of each run's mean loss into `run_slice.gradients`.

        Args:
            row: equally many examples of each run, run by run.
            targets: class indices or a teacher's class probabilities, as in `cross_entropy`.
            run_slice: the runs.

        Returns:
            `[runs]`, the mean losses in nats.
        """
        losses = cross_entropy(self.logits(row, run_slice), targets).mean(1)
        # A run's scalars change its loss alone, so the gradient of the sum is the gradient of that loss. With a
        # verbalizer, a run without an adapter has nothing to train.
        if run_slice.leaves:
            copy_all(run_slice.gradients, torch.autograd.grad(losses.sum(), run_slice.leaves))
        return losses.detach()

    def _pair_of(self, stack_slice: StackSlice) -> tuple[Tensor, Tensor]:
        params, first = stack_slice.params, self.runs[stack_slice.stack.runs.start]
        if not family(first.family).SEPARATE_UNITS:
            params = {name: tensor.unflatten(1, (-1, first.size)) for name, tensor in params.items()}
        if self.compiled:
            # Only the number of components, or of runs of one size, differs between rows and banks; fixed sizes give
            # faster code. A slice of a stack is not contiguous, a whole stack is: made contiguous, both use the same
            # code.
            params = {name: tensor.contiguous() for name, tensor in params.items()}
            mark_dynamic(stack_slice.scales, 0)
            for tensor in params.values():
                mark_dynamic(tensor, 1)
        return self._pair(first.family, params, first.shape_options, stack_slice.scales, self.dtype)

    def _hand_out(self, row: Row, run_slice: RunSlice) -> None:
        """Make the factor pairs of these runs and give each projection its pairs."""
        # A copy: the compiler takes the first value of a number in a module (here the length of the longest example)
        # for fixed, and would compile again for every task.
        segments = replace(row.segments)
        by_projections: dict[tuple[str, ...], list[StackSlice]] = {}
        for stack_slice in run_slice.stacks:
            by_projections.setdefault(stack_slice.stack.projections, []).append(stack_slice)
        for adapted in self._adapted.values():
            # A row of head-only runs has no adapters.
            adapted.adapters = None
        for projections, stacks in by_projections.items():
            ups, downs = (torch.cat(factors, 1) for factors in zip(*map(self._pair_of, stacks), strict=True))
            for projection, up, down in zip(projections, ups.unbind(), downs.unbind(), strict=True):
                self._adapted[projection].adapters = RowAdapters(up, down, segments, run_slice.components)


def cross_entropy(
    logits: Float[Tensor, "runs examples labels"],
    targets: Int[Tensor, "runs examples"] | Float[Tensor, "runs examples labels"],
) -> Float[Tensor, "runs examples"]:
    """The loss on each example, in nats.

    Args:
        logits: `[runs, examples, labels]`.
        targets: `[runs, examples]`, class indices; or `[runs, examples, labels]`, class probabilities.
    """
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(0, 1), reduction="none")
    return losses.view(logits.shape[:2])


def factor_pair(
    name: str,
    params: dict[str, Tensor],
    options: Mapping[str, Any],
    scales: Float[Tensor, "columns"],
    dtype: torch.dtype,
) -> tuple[Float[Tensor, "layers columns out"], Float[Tensor, "layers columns inp"]]:
    """The pairs of neighbouring runs of one family, on all projections of one shape.

    Args:
        name: the family.
        params: the runs' scalars, `[layers, components, …]`, or `[layers, runs, size, …]` for runs of one size.
        options: the family's shape options, which the runs share.
        scales: `[columns]`, the factor in front of each column.
        dtype: the type of the result.

    Returns:
        `up` `[layers, columns, out]`, scaled, and `down` `[layers, columns, in]`.
    """
    up, down = family(name).factors(params, **options)
    up, down = up.mT.flatten(1, -2), down.flatten(1, -2)
    return (up * scales[:, None]).to(dtype), down.to(dtype)


def verbalizer(backbone: Backbone, spec: TaskSpec) -> Tensor:
    """The rows of the output embedding that stand for a task's labels, `[labels, hidden]`, float32.

    Raises:
        InputError: the backbone is not a decoder; or as
            `cpadapt.inputs.backbones.loading.Backbone.output_embedding` or
            `cpadapt.inputs.tasks.encoding.label_tokens`.
    """
    if not backbone.decoder:
        raise InputError(
            f"protocol.readout = 'verbalizer': backbone {backbone.name!r} is an encoder, which does not predict the"
            " next word; use 'head'"
        )
    words = label_tokens(spec, backbone.tokenizer)
    try:
        return backbone.output_embedding(words).to(backbone.model.device)
    except InputError as error:
        raise InputError(f"protocol.readout = 'verbalizer': {error}; use 'head'") from None


def pool(
    hidden: Float[Tensor, "T hidden"], row: Row, pooling: str, *, decoder: bool
) -> Float[Tensor, "examples hidden"]:
    """Pool the hidden states of a packed row into one feature vector per example.

    Args:
        hidden: `[T, hidden]`.
        row: the packed row.
        pooling: `last` (the last real token), `mean` (over the example's tokens) or `auto` (`last` for decoders,
            `mean` for encoders).
        decoder: whether the backbone is a decoder.

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
    """The same memory as a leaf that requires a gradient."""
    return view.detach().requires_grad_()
