"""One packed row of real tokens for many runs, and the two functions that know where its segments end.

A row holds the examples of several runs one after another, grouped by run, without padding. Embeddings, norms and
frozen projections see it as one long sequence. Only two functions look at its segments:

- :func:`packed_attention`, registered with transformers under :data:`ATTENTION`, attends within each example;
- :func:`adapter_product` applies each run's factor pair to that run's tokens.

Both have a fast path on CUDA in half precision (`cpadapt.bank.kernels.attention`, `cpadapt.bank.kernels.lowrank`) and
a plain path elsewhere. The tests compare them with the model's padded forward.
"""

import functools
import inspect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface

from cpadapt.bank import kernels
from cpadapt.bank.kernels import attention, lowrank
from cpadapt.errors import InputError

ATTENTION = "cpadapt_packed"
"""The name under which transformers' models find the packed attention."""

HALF = (torch.bfloat16, torch.float16)

# The arguments differ between versions of torch.
VARLEN_OPTIONS = frozenset(inspect.signature(varlen_attn).parameters)


@dataclass(frozen=True)
class RowCapacity:
    """The fixed shape of a row with a varying number of real tokens, so that one recording serves many rows."""

    tokens: int
    """Tokens of the row. Filling takes the places that real tokens leave free."""
    longest: int
    """Tokens of the longest example that the row must be able to hold."""
    fillers: int
    """Made-up examples that hold the filling, none longer than `longest`."""

    @staticmethod
    def for_tokens(tokens: int, longest: int) -> "RowCapacity":
        """The smallest capacity for a number of real tokens.

        Capacities are 128 tokens apart, or a 32nd of the next power of two where that is more. A row of 2,048 tokens
        or more therefore has less than 1/16 of filling.

        Args:
            tokens: the real tokens.
            longest: the attribute of that name.
        """
        step = max(128, 2 ** (tokens - 1).bit_length() // 32)
        return RowCapacity(math.ceil(tokens / step) * step, longest, math.ceil(step / longest))


@dataclass(frozen=True)
class Segments:
    """Where the examples and the runs of a packed row of T tokens begin and end."""

    example_offsets: Int[Tensor, "examples_1"]
    """`[examples + 1]`, int32, on the row's device: example k has the tokens from
    `example_offsets[k]` to before `example_offsets[k + 1]`. Made-up examples come last."""
    run_offsets: Int[Tensor, "runs_1"]
    """`[runs + 1]`, int32, on the row's device. The last run includes the filling, on which no loss depends."""
    run_ends: tuple[int, ...] | None
    """`run_offsets` without the first, as numbers on the host for the loop over runs; `None` where the contents of the
    row change."""
    longest: int
    """Tokens of the longest example that the row may hold."""
    examples: int
    """Number of real examples."""

    @property
    def lengths(self) -> Int[Tensor, "examples"]:
        """Tokens of each example."""
        return self.example_offsets.diff()

    @functools.cached_property
    def padded(self) -> tuple[Tensor, Tensor, Tensor]:
        """How the row maps to a padded batch, for the plain path of attention.

        Returns:
            `[examples · longest]`, the token at each padded place; `[examples, longest]`, whether that place holds a
            token or padding; `[T]`, the padded place of each token.
        """
        place = torch.arange(self.longest, device=self.lengths.device)
        real = place < self.lengths[:, None]
        index = torch.where(real, self.example_offsets[:-1, None] + place, 0)
        return index.flatten(), real, real.flatten().nonzero().flatten()


@dataclass(frozen=True)
class Row:
    """A packed row that a model can take: tensors `[1, T]` and the segments."""

    tokens: Int[Tensor, "1 T"]
    positions: Int[Tensor, "1 T"]
    token_types: Int[Tensor, "1 T"] | None
    segments: Segments

    @property
    def inputs(self) -> dict[str, object]:
        """Keyword arguments for the forward of a transformers model, which passes `segments` on to its attention."""
        inputs: dict[str, object] = {
            "input_ids": self.tokens,
            "position_ids": self.positions,
            "segments": self.segments,
        }
        if self.token_types is not None:
            inputs["token_type_ids"] = self.token_types
        return inputs

    def copy_(self, other: "Row") -> None:
        """Copy the contents of a row of the same capacity into this one, in place."""
        targets = [self.tokens, self.positions, self.segments.example_offsets, self.segments.run_offsets]
        sources = [other.tokens, other.positions, other.segments.example_offsets, other.segments.run_offsets]
        if self.token_types is not None and other.token_types is not None:
            targets.append(self.token_types)
            sources.append(other.token_types)
        for target, source in zip(targets, sources, strict=True):
            target.copy_(source)


def pack(
    tokens: NDArray[np.int64],
    token_types: NDArray[np.int64] | None,
    offsets: NDArray[np.int64],
    chosen: NDArray[np.int64],
    device: torch.device,
    capacity: RowCapacity | None = None,
) -> Row:
    """Pack chosen examples into one row.

    Args:
        tokens: the tokens of all examples, one example after another.
        token_types: the token types, for models that use them.
        offsets: `[examples + 1]`, where each example begins in `tokens`.
        chosen: `[runs, examples a run]`, the examples to pack, run by run.
        device: the device of the result.
        capacity: the shape to fill the row up to; by default it has only real tokens.
    """
    flat = chosen.ravel()
    lengths = offsets[flat + 1] - offsets[flat]
    example_offsets = np.concatenate([[0], np.cumsum(lengths)])
    positions = np.arange(example_offsets[-1]) - np.repeat(example_offsets[:-1], lengths)
    source = np.repeat(offsets[flat], lengths) + positions
    run_offsets = example_offsets[:: chosen.shape[1]].copy()
    longest = int(lengths.max())
    if capacity is not None:
        longest = capacity.longest
        # Any token will do; this is the first of the pool, at position 0.
        filling = (0, capacity.tokens - example_offsets[-1])
        positions, source = np.pad(positions, filling), np.pad(source, filling)
        fillers = np.linspace(example_offsets[-1], capacity.tokens, capacity.fillers + 1).astype(np.int64)[1:]
        example_offsets = np.concatenate([example_offsets, fillers])
        run_offsets[-1] = capacity.tokens

    return Row(
        tokens=to_device(tokens[source], torch.int64, device)[None],
        positions=to_device(positions, torch.int64, device)[None],
        token_types=None if token_types is None else to_device(token_types[source], torch.int64, device)[None],
        segments=Segments(
            example_offsets=to_device(example_offsets, torch.int32, device),
            run_offsets=to_device(run_offsets, torch.int32, device),
            run_ends=tuple(int(end) for end in run_offsets[1:]) if capacity is None else None,
            longest=longest,
            examples=len(flat),
        ),
    )


def to_device(values: NDArray[Any], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Send numbers to a device without waiting for the transfer.

    Args:
        values: an array on the host.
        dtype: the type of the result.
        device: the device of the result.
    """
    tensor = torch.from_numpy(values).to(dtype)
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def packed_attention(
    module: torch.nn.Module,
    query: Float[Tensor, "1 heads T head_dim"],
    key: Float[Tensor, "1 kv_heads T head_dim"],
    value: Float[Tensor, "1 kv_heads T head_dim"],
    attention_mask: Tensor | None,
    *,
    segments: Segments | None = None,
    scaling: float | None = None,
    is_causal: bool | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **kwargs: object,
) -> tuple[Float[Tensor, "1 T heads head_dim"], None]:
    """Attend within each example of a packed row.

    The signature is the one that transformers has for attention functions.

    Args:
        module: the attention module; its `is_causal` counts if the argument is None.
        query: the queries.
        key: the keys.
        value: the values.
        attention_mask: ignored; the segments keep examples apart.
        segments: the examples of the row.
        scaling: the factor on the scores; by default head_dim ** -0.5.
        is_causal: whether a token sees only itself and the tokens before it.
        dropout: must be 0.
        sliding_window: tokens that the model lets a token look back, if limited.
        kwargs: ignored.

    Raises:
        InputError: `segments` is missing, `dropout` is not 0, or an example is longer than the sliding window.
    """
    if segments is None:
        raise InputError("packed attention needs the row's segments; the model was called without them")
    if dropout:
        raise InputError(f"packed attention has no dropout; the model asks for {dropout}")
    if sliding_window is not None and segments.longest > sliding_window:
        raise InputError(
            f"an example has {segments.longest} tokens, more than the model's sliding window; lower"
            f" protocol.max_length to {sliding_window}"
        )
    causal = is_causal if is_causal is not None else bool(getattr(module, "is_causal", True))
    grouped = query.shape[1] != key.shape[1]
    attend = _variable_length if query.is_cuda and query.dtype in HALF else _padded
    out = attend(
        query[0].transpose(0, 1), key[0].transpose(0, 1), value[0].transpose(0, 1),
        segments, scaling, causal, grouped,
    )  # fmt: skip
    return out.unsqueeze(0), None


def _padded(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Segments,
    scaling: float | None,
    causal: bool,
    grouped: bool,
) -> Tensor:
    """Attend in a padded batch: unpack, scaled dot-product attention, repack; all `[T, heads, head_dim]`."""
    index, real, place = segments.padded

    def unpack(states: Tensor) -> Tensor:
        return states.index_select(0, index).view(*real.shape, *states.shape[1:]).transpose(1, 2)

    out = F.scaled_dot_product_attention(
        unpack(query),
        unpack(key),
        unpack(value),
        # Padding is on the right, where the causal query of a real token never looks.
        attn_mask=None if causal else real[:, None, None, :],
        is_causal=causal,
        scale=scaling,
        enable_gqa=grouped,
    )
    return out.transpose(1, 2).flatten(0, 1).index_select(0, place)


def _variable_length(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Segments,
    scaling: float | None,
    causal: bool,
    grouped: bool,
) -> Tensor:
    """Attend with one kernel over all examples of the row; all `[T, heads, head_dim]`."""
    offsets, longest, head_dim = segments.example_offsets, segments.longest, query.shape[-1]
    if attention.takes(head_dim):
        scale = head_dim**-0.5 if scaling is None else scaling
        return attention.ragged_attention(query, key, value, offsets, longest, causal, scale)
    options: dict[str, Any] = {"scale": scaling}
    if "enable_gqa" in VARLEN_OPTIONS:
        options["enable_gqa"] = grouped
    if "window_size" in VARLEN_OPTIONS:
        options["window_size"] = (-1, 0) if causal else (-1, -1)
    else:
        options["is_causal"] = causal
    out = varlen_attn(
        query.contiguous(), key.contiguous(), value.contiguous(), offsets, offsets, longest, longest, **options
    )
    return cast(Tensor, out)


def no_mask(*args: object, **kwargs: object) -> None:
    """The mask function for transformers' models. It returns no mask, as the attention function separates examples."""


AttentionInterface.register(ATTENTION, packed_attention)
AttentionMaskInterface.register(ATTENTION, no_mask)


@dataclass(frozen=True)
class Components:
    """Which components belong to which run, in factor pairs that hold the components of all runs one after another."""

    offsets: Int[Tensor, "runs_1"]
    """`[runs + 1]`, int32, on the pairs' device: run k has the components `offsets[k] : offsets[k + 1]`."""
    host_offsets: tuple[int, ...]
    """`[runs + 1]`, the same numbers on the host, for the loop over runs."""
    room: Float[Tensor, "0 most"]
    """Empty. Its second size is the largest number of components that a run may have, rounded up for the kernels. The
    compiler treats a number in a module as fixed but lets a size vary, so one compiled code serves every bank."""

    @staticmethod
    def of(sizes: Sequence[int], device: torch.device, most: int) -> "Components":
        """Lay out runs of these sizes.

        Args:
            sizes: the components of each run, from 0 to `most`.
            device: the device of the pairs.
            most: the largest number of components of any run; the same for all rows of a bank.
        """
        offsets = (0, *itertools.accumulate(sizes))
        room = torch.empty(0, lowrank.columns(most), device=device)
        return Components(torch.tensor(offsets, dtype=torch.int32, device=device), offsets, room)


def adapter_product(
    x: Float[Tensor, "T inp"],
    up: Float[Tensor, "components out"],
    down: Float[Tensor, "components inp"],
    segments: Segments,
    components: Components,
) -> Float[Tensor, "T out"]:
    """Apply each run's factor pair to that run's tokens: `x[run] · down[run]ᵀ · up[run]`.

    Args:
        x: the tokens of all runs, one run after another.
        up: the runs' `up` factors, one run after another; `x`, `up` and `down` have one dtype.
        down: the runs' `down` factors.
        segments: which tokens belong to which run.
        components: which components belong to which run.

    Raises:
        InputError: no kernel takes this device and dtype, and `segments` lacks the `run_ends` that the loop over runs
            needs.
    """
    if takes_kernels(x.device, x.dtype):
        y, _ = lowrank.low_rank(x, up, down, segments.run_offsets, components.offsets, components.room.shape[1])
        return cast(Tensor, y)
    if segments.run_ends is None:
        raise InputError("a row with changing contents has no run ends for the loop over runs")
    tokens, sizes = itertools.pairwise((0, *segments.run_ends)), itertools.pairwise(components.host_offsets)
    return torch.cat(
        [F.linear(x[begin:end], down[a:b]) @ up[a:b] for (begin, end), (a, b) in zip(tokens, sizes, strict=True)]
    )


def takes_kernels(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether kernels apply the runs' pairs; elsewhere a loop on the host does."""
    return device.type == "cuda" and dtype in HALF and kernels.AVAILABLE
