"""Attention within many short examples of one packed row, as two Triton kernels behind one operator of torch.

FlashAttention's variable-length kernels work in tiles of 128 tokens an example. Where an example has a dozen, nearly
all of a tile is masked away, and attention costs many times what its bytes do. Here an example of at most
:data:`SHORT` tokens fits whole into one tile: no loop over blocks, no running maximum, and backward makes the softmax
again from query and key instead of reading what forward saved. It needs no atomics, because one program does all
query heads that share a key head.

A tile is the power of two that the example's own length needs: each program branches on it. As a kernel takes the
registers of its largest branch, large tiles get a launch of their own (:data:`FORWARD`, :data:`BACKWARD`), in which
the programs of other examples end at once.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

try:
    import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
    import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
except ImportError:
    triton = None

AVAILABLE = triton is not None
"""Whether there is a Triton to compile the kernels with."""

SHORT = 128
"""Tokens of the longest example that `short_attention` takes."""

SMALLEST = 16
"""Rows of the smallest tile that the matrix units take."""


class Launch(NamedTuple):
    """The tiles that one launch of a kernel chooses from, and how it runs."""

    first: int
    last: int
    warps: int
    stages: int


FORWARD = (Launch(16, 32, 2, 1), Launch(64, 128, 4, 1))
"""The forward kernel's launches; their tiles are the powers of two up to `SHORT`, in order."""

BACKWARD = (Launch(16, 16, 2, 1), Launch(32, 64, 4, 1), Launch(128, 128, 8, 1))
"""The backward kernel's launches; it holds several tiles in float32 at once, two of them as wide as they are high."""

TOGETHER = True
"""Whether a program of the forward kernel does all the query heads that share a key head, or one."""

_jit: Any = (lambda kernel: kernel) if triton is None else triton.jit


@_jit
def _load(base, stride, length, TILE: tl.constexpr, D: tl.constexpr):
    """An example's rows of one head as a tile `[TILE, D]`, zero beyond its length."""
    rows = tl.arange(0, TILE)[:, None]
    return tl.load(base + rows * stride + tl.arange(0, D)[None, :], mask=rows < length, other=0.0)


@_jit
def _store(base, stride, tile, length, TILE: tl.constexpr, D: tl.constexpr):
    rows = tl.arange(0, TILE)[:, None]
    tl.store(base + rows * stride + tl.arange(0, D)[None, :], tile.to(base.dtype.element_ty), mask=rows < length)


@_jit
def _exponentials(q, k, length, scale, CAUSAL: tl.constexpr, TILE: tl.constexpr):
    """The softmax of a tile before its division, at most 1, and its sums by row.

    Rows beyond the length are zeros in `q` and see the first key, so that nothing in them becomes NaN.
    """
    rows, columns = tl.arange(0, TILE)[:, None], tl.arange(0, TILE)[None, :]
    seen = columns < length
    if CAUSAL:
        seen = seen & (columns <= rows)
    scores = tl.where(seen, tl.dot(q, tl.trans(k)) * (scale * 1.4426950408889634), float("-inf"))
    p = tl.exp2(scores - tl.max(scores, 1)[:, None])
    return p, tl.sum(p, 1)


@_jit
def _forward_tile(q, k, v, out, length, scale, q_t, q_head, k_t, v_t, out_t,
                  CAUSAL: tl.constexpr, D: tl.constexpr, COUNT: tl.constexpr, TILE: tl.constexpr):  # fmt: skip
    """One example, `COUNT` query heads on one key head; the pointers are at the first row of the first head."""
    keys = _load(k, k_t, length, TILE, D)
    values = _load(v, v_t, length, TILE, D)
    for head in range(COUNT):
        p, total = _exponentials(_load(q + head * q_head, q_t, length, TILE, D), keys, length, scale, CAUSAL, TILE)
        attended = tl.dot(p.to(values.dtype), values) / total[:, None]
        _store(out + head * D, out_t, attended, length, TILE, D)


@_jit
def _forward(q, k, v, out, offsets, scale, q_t, q_head, k_t, k_head, v_t, v_head,
             CAUSAL: tl.constexpr, D: tl.constexpr, HEADS: tl.constexpr, GROUP: tl.constexpr, COUNT: tl.constexpr,
             FLOOR: tl.constexpr, FIRST: tl.constexpr, LEVELS: tl.constexpr):  # fmt: skip
    example = tl.program_id(0) // (HEADS // COUNT)
    head = tl.program_id(0) % (HEADS // COUNT) * COUNT
    start = tl.load(offsets + example).to(tl.int64)
    length = (tl.load(offsets + example + 1) - start).to(tl.int32)
    q += start * q_t + head * q_head
    k += start * k_t + head // GROUP * k_head
    v += start * v_t + head // GROUP * v_head
    out += (start * HEADS + head) * D
    for level in tl.static_range(LEVELS):
        if (length > (FIRST << level >> 1 if level > 0 else FLOOR)) & (length <= FIRST << level):
            _forward_tile(q, k, v, out, length, scale, q_t, q_head, k_t, v_t, HEADS * D,
                          CAUSAL, D, COUNT, FIRST << level)  # fmt: skip


@_jit
def _backward_tile(q, k, v, d_out, dq, dk, dv, length, scale, q_t, q_head, k_t, v_t, d_t, d_head, dq_t, dk_t,
                   CAUSAL: tl.constexpr, D: tl.constexpr, GROUP: tl.constexpr, TILE: tl.constexpr):  # fmt: skip
    """One example, all query heads of one key head; the pointers are at the first row of the first head."""
    keys = _load(k, k_t, length, TILE, D)
    values = _load(v, v_t, length, TILE, D)
    d_keys = tl.zeros([TILE, D], tl.float32)
    d_values = tl.zeros([TILE, D], tl.float32)
    for head in range(GROUP):
        queries = _load(q + head * q_head, q_t, length, TILE, D)
        d_attended = _load(d_out + head * d_head, d_t, length, TILE, D)
        p, total = _exponentials(queries, keys, length, scale, CAUSAL, TILE)
        p = p / total[:, None]
        d_values += tl.dot(tl.trans(p.to(keys.dtype)), d_attended)
        d_p = tl.dot(d_attended, tl.trans(values))
        d_scores = (p * (d_p - tl.sum(p * d_p, 1)[:, None])).to(keys.dtype)
        _store(dq + head * D, dq_t, tl.dot(d_scores, keys) * scale, length, TILE, D)
        d_keys += tl.dot(tl.trans(d_scores), queries)
    _store(dk, dk_t, d_keys * scale, length, TILE, D)
    _store(dv, dk_t, d_values, length, TILE, D)


@_jit
def _backward(q, k, v, d_out, dq, dk, dv, offsets, scale, q_t, q_head, k_t, k_head, v_t, v_head, d_t, d_head,
              CAUSAL: tl.constexpr, D: tl.constexpr, KV_HEADS: tl.constexpr, GROUP: tl.constexpr,
              FLOOR: tl.constexpr, FIRST: tl.constexpr, LEVELS: tl.constexpr):  # fmt: skip
    example = tl.program_id(0) // KV_HEADS
    head = tl.program_id(0) % KV_HEADS
    start = tl.load(offsets + example).to(tl.int64)
    length = (tl.load(offsets + example + 1) - start).to(tl.int32)
    q += start * q_t + head * GROUP * q_head
    k += start * k_t + head * k_head
    v += start * v_t + head * v_head
    d_out += start * d_t + head * GROUP * d_head
    dq += (start * KV_HEADS + head) * (GROUP * D)
    dk += (start * KV_HEADS + head) * D
    dv += (start * KV_HEADS + head) * D
    for level in tl.static_range(LEVELS):
        if (length > (FIRST << level >> 1 if level > 0 else FLOOR)) & (length <= FIRST << level):
            _backward_tile(q, k, v, d_out, dq, dk, dv, length, scale, q_t, q_head, k_t, v_t, d_t, d_head,
                           KV_HEADS * GROUP * D, KV_HEADS * D, CAUSAL, D, GROUP, FIRST << level)  # fmt: skip


def _launch(kernel, launches: tuple[Launch, ...], programs: int, longest: int, *arguments, **constants) -> None:
    """Run a kernel once for each of its launches whose tiles an example of at most `longest` tokens can need."""
    if not AVAILABLE:
        raise RuntimeError("short attention needs Triton, which is not installed")
    if longest > SHORT:
        raise ValueError(f"an example may have {longest} tokens; short attention takes {SHORT}")
    last = max(SMALLEST, 1 << (longest - 1).bit_length())
    with torch.cuda.device_of(arguments[0]):
        for first, largest, warps, stages in launches:
            if programs and first <= last:
                floor, levels = first // 2 if first > SMALLEST else 0, (min(largest, last) // first).bit_length()
                tiles = {"FLOOR": floor, "FIRST": first, "LEVELS": levels}
                kernel[(programs,)](*arguments, **constants, **tiles, num_warps=warps, num_stages=stages)


def _by_row(states: Tensor) -> Tensor:
    """As it is, if a row of a head lies in one piece."""
    return states if states.stride(-1) == 1 else states.contiguous()


@torch.library.custom_op("cpadapt::short_attention", mutates_args=())
def short_attention(
    query: Tensor, key: Tensor, value: Tensor, example_offsets: Tensor, longest: int, causal: bool, scale: float
) -> Tensor:
    """Attend within each example of a packed row.

    The compiler takes it as it is, and it can be recorded: nothing on the host depends on the row's contents.

    Args:
        query: `[T, heads, head_dim]`, head_dim a power of two from 16 to 128. In half precision: the products would
            round float32 to TensorFloat-32.
        key: `[T, kv_heads, head_dim]`, heads a multiple of kv_heads; like `query` and `value` with any strides, and
            copied only if head_dim has one.
        value: `[T, kv_heads, head_dim]`, all of one dtype.
        example_offsets: `[examples + 1]`, int32, on the same device: 0, where each example ends, up to T.
        longest: tokens of the longest example that may come, at most `SHORT`; a longer one would be left out.
        causal: whether a token sees only those before it and itself.
        scale: of the scores.

    Returns:
        `[T, heads, head_dim]`, contiguous.
    """
    query, key, value = _by_row(query), _by_row(key), _by_row(value)
    (_, heads, width), kv_heads = query.shape, key.shape[1]
    out = query.new_empty(query.shape)
    count = heads // kv_heads if TOGETHER else 1
    _launch(
        _forward, FORWARD, (len(example_offsets) - 1) * (heads // count), longest,
        query, key, value, out, example_offsets, scale,
        *query.stride()[:2], *key.stride()[:2], *value.stride()[:2],
        CAUSAL=causal, D=width, HEADS=heads, GROUP=heads // kv_heads, COUNT=count,
    )  # fmt: skip
    return out


@torch.library.custom_op("cpadapt::short_attention_backward", mutates_args=())
def _short_attention_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, example_offsets: Tensor,
    longest: int, causal: bool, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of query, key and value, contiguous."""
    gradient, query, key, value = _by_row(gradient), _by_row(query), _by_row(key), _by_row(value)
    (_, heads, width), kv_heads = query.shape, key.shape[1]
    gradients = query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)
    _launch(
        _backward, BACKWARD, (len(example_offsets) - 1) * kv_heads, longest,
        query, key, value, gradient, *gradients, example_offsets, scale,
        *query.stride()[:2], *key.stride()[:2], *value.stride()[:2], *gradient.stride()[:2],
        CAUSAL=causal, D=width, KV_HEADS=kv_heads, GROUP=heads // kv_heads,
    )  # fmt: skip
    return gradients


short_attention.register_fake(lambda query, *others: query.new_empty(query.shape))
_short_attention_backward.register_fake(lambda gradient, *inputs: tuple(t.new_empty(t.shape) for t in inputs[:3]))


def _keep(ctx, inputs, output) -> None:
    *states, ctx.longest, ctx.causal, ctx.scale = inputs
    ctx.save_for_backward(*states)


def _differentiate(ctx, gradient):
    gradients = _short_attention_backward(gradient, *ctx.saved_tensors, ctx.longest, ctx.causal, ctx.scale)
    return *gradients, None, None, None, None


short_attention.register_autograd(_differentiate, setup_context=_keep)
