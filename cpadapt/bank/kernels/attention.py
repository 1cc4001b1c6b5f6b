"""Attention within each example of a packed row: Triton kernels behind one operator of torch.

The variable-length kernels of FlashAttention work in tiles of 128 tokens of an example, and their backward pass takes
four launches that read the whole row. If an example has a dozen tokens, nearly all of a tile is masked, and attention
costs many times what its bytes do. A few longer examples in the row change nothing about that. So there are two ways,
and each kernel chooses its examples by their lengths, on the device.

**Short examples**, of at most :data:`SHORT` tokens, fit into one tile. There is no loop over blocks and no running
maximum, and backward recomputes the softmax from queries and keys instead of reading what forward saved. The tile is
the smallest power of two that holds the example. A kernel takes the registers of its largest tile, so large tiles have
separate launches, in which the programs of all other examples end at once:

==============  ========  =====  ======
launch          tiles     warps  stages
==============  ========  =====  ======
`FORWARD[0]`    16, 32    2      1
`FORWARD[1]`    64, 128   4      1
`BACKWARD[0]`   16        2      1
`BACKWARD[1]`   32, 64    4      1
`BACKWARD[2]`   128       8      1
==============  ========  =====  ======

**Longer examples** are done block by block, as in FlashAttention. Forward passes over blocks of keys with a running
maximum and saves the log-sum-exp. From it backward recomputes the softmax, in one kernel for the gradient of the
queries and one for the gradients of keys and values. Causal attention skips the blocks that no query sees. These
launches happen only if the row may hold a longer example:

================  =======  ====  ==================  =====  ======
blocks            queries  keys  blocks per program  warps  stages
================  =======  ====  ==================  =====  ======
`FORWARD_BLOCKS`  64       64    2                   4      2
`QUERY_BLOCKS`    64       32    4                   4      3
`KEY_BLOCKS`      64       64    2                   4      2
================  =======  ====  ==================  =====  ======

Which program works on which scores of one example: rows are queries, columns are keys, A and B are programs. The
longer example has four blocks, and a program does two of them::

    one tile           blocks of queries                blocks of keys
    (short)            (`_forward_blocks`,              (`_backward_keys`)
                       `_backward_queries`)
                        keys →                           keys →
    ┌─────────┐        ┌───┬───┬───┬───┐                ┌───┬───┬───┬───┐
    │         │        │ A → → → → → → │  first A       │ A │ B │ A │ B │
    │    A    │        ├───┼───┼───┼───┤                │ ↓ │ ↓ │ ↓ │ ↓ │
    │         │        │ B → → → → → → │  first B       │ ↓ │ ↓ │ ↓ │ ↓ │
    └─────────┘        ├───┼───┼───┼───┤                │ ↓ │ ↓ │ ↓ │ ↓ │
                       │ A → → → → → → │  second A      │ ↓ │ ↓ │ ↓ │ ↓ │
                       ├───┼───┼───┼───┤                │ ↓ │ ↓ │ ↓ │ ↓ │
                       │ B → → → → → → │  second B      │ ↓ │ ↓ │ ↓ │ ↓ │
                       └───┴───┴───┴───┘                └───┴───┴───┴───┘

The forward kernels and `_backward_queries` have such programs for every query head. `_backward` and `_backward_keys`
have them for every key head, and each does all query heads that share it, one after another. So each gradient is
summed in one program: no atomics are needed, and results do not depend on the order in which programs run.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor

from cpadapt.bank.kernels import AVAILABLE, by_row, jit, tl, triton

HEAD_DIMS = (16, 32, 64, 128)
"""The head sizes that the kernels support."""

SHORT = 128
"""Most tokens of an example that one tile holds."""

SMALLEST = 16
"""Rows of the smallest tile that the matrix units take."""


class Launch(NamedTuple):
    """The tiles of one launch of a kernel for short examples, and how it runs."""

    first: int
    """Tokens of the smallest tile; the others are the powers of two up to `last`."""
    last: int
    warps: int
    """Groups of 32 threads."""
    stages: int
    """Steps of a loop whose loads overlap."""


FORWARD = (Launch(16, 32, 2, 1), Launch(64, 128, 4, 1))
"""The launches of the forward kernel, from the smallest tile to `SHORT`."""

BACKWARD = (Launch(16, 16, 2, 1), Launch(32, 64, 4, 1), Launch(128, 128, 8, 1))
"""The launches of the backward kernel, which holds several tiles in float32 at once, two of them square."""


class Blocks(NamedTuple):
    """The blocks of a kernel for longer examples, and how it runs."""

    queries: int
    """Queries of a block."""
    keys: int
    """Keys of a block."""
    each: int
    """Blocks of the longest example that one program does in turn. More of them mean fewer programs with nothing to
    do, since few examples are long; fewer of them finish the longest example sooner."""
    warps: int
    """Groups of 32 threads."""
    stages: int
    """Steps of a loop whose loads overlap."""


FORWARD_BLOCKS = Blocks(64, 64, 2, 4, 2)
"""The blocks of the forward kernel, which goes by blocks of queries."""

QUERY_BLOCKS = Blocks(64, 32, 4, 4, 3)
"""The blocks of the kernel for the gradient of the queries, which goes by blocks of queries."""

KEY_BLOCKS = Blocks(64, 64, 2, 4, 2)
"""The blocks of the kernel for the gradients of keys and values, which goes by blocks of keys."""


@jit
def _load(base, stride, length, TILE: tl.constexpr, D: tl.constexpr):
    """Load one head of an example as a tile `[TILE, D]`, with zeros beyond its length."""
    rows = tl.arange(0, TILE)[:, None]
    return tl.load(base + rows * stride + tl.arange(0, D)[None, :], mask=rows < length, other=0.0)


@jit
def _store(base, stride, tile, length, TILE: tl.constexpr, D: tl.constexpr):
    rows = tl.arange(0, TILE)[:, None]
    tl.store(base + rows * stride + tl.arange(0, D)[None, :], tile.to(base.dtype.element_ty), mask=rows < length)


@jit
def _bounds(offsets, example):
    """The first token of an example, and its length."""
    start = tl.load(offsets + example).to(tl.int64)
    return start, (tl.load(offsets + example + 1) - start).to(tl.int32)


@jit
def _states(q, k, v, start, head, kv_head, q_t, q_head, k_t, k_head, v_t, v_head):
    """Pointers to the first row of an example in queries, keys and values, for one query head and its key head."""
    return q + start * q_t + head * q_head, k + start * k_t + kv_head * k_head, v + start * v_t + kv_head * v_head


@jit
def _scores(a, b, columns, rows, length, scale, CAUSAL: tl.constexpr):
    """The scores `a · bᵀ` as exponents of 2; −∞ where a query (`rows`) does not see a key (`columns`).

    `a` and `b` are queries and keys, in either order. Rows beyond the length are zeros. They see the first key, so
    that nothing in them becomes NaN; which other keys they see does not matter.
    """
    seen = columns <= rows if CAUSAL else columns < length
    return tl.where(seen, tl.dot(a, tl.trans(b)) * (scale * 1.4426950408889634), float("-inf"))


@jit
def _exponentials(q, k, length, scale, CAUSAL: tl.constexpr, TILE: tl.constexpr):
    """The softmax of a tile before the division (at most 1), and its sums by row, which are the divisors."""
    rows, columns = tl.arange(0, TILE)[:, None], tl.arange(0, TILE)[None, :]
    scores = _scores(q, k, columns, rows, length, scale, CAUSAL)
    p = tl.exp2(scores - tl.max(scores, 1)[:, None])
    return p, tl.sum(p, 1)


@jit
def _forward_tile(q, k, v, out, length, scale, q_t, k_t, v_t, out_t,
                  CAUSAL: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr):  # fmt: skip
    """Attend in one short example and one query head. The pointers are at its first row."""
    values = _load(v, v_t, length, TILE, D)
    queries, keys = _load(q, q_t, length, TILE, D), _load(k, k_t, length, TILE, D)
    p, total = _exponentials(queries, keys, length, scale, CAUSAL, TILE)
    _store(out, out_t, tl.dot(p.to(values.dtype), values) / total[:, None], length, TILE, D)


@jit
def _forward(q, k, v, out, offsets, scale, q_t, q_head, k_t, k_head, v_t, v_head,
             CAUSAL: tl.constexpr, D: tl.constexpr, HEADS: tl.constexpr, GROUP: tl.constexpr,
             FLOOR: tl.constexpr, FIRST: tl.constexpr, LEVELS: tl.constexpr):  # fmt: skip
    head = tl.program_id(0) % HEADS
    start, length = _bounds(offsets, tl.program_id(0) // HEADS)
    q, k, v = _states(q, k, v, start, head, head // GROUP, q_t, q_head, k_t, k_head, v_t, v_head)
    out += (start * HEADS + head) * D
    for level in tl.static_range(LEVELS):
        if (length > (FIRST << level >> 1 if level > 0 else FLOOR)) & (length <= FIRST << level):
            _forward_tile(q, k, v, out, length, scale, q_t, k_t, v_t, HEADS * D, CAUSAL, D, FIRST << level)


@jit
def _backward_tile(q, k, v, d_out, dq, dk, dv, length, scale, q_t, q_head, k_t, v_t, d_t, d_head, dq_t, dk_t,
                   CAUSAL: tl.constexpr, D: tl.constexpr, GROUP: tl.constexpr, TILE: tl.constexpr):  # fmt: skip
    """The gradients of one short example, for one key head and all query heads that share it.

    The pointers are at the first row of the first of these heads.
    """
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


@jit
def _backward(q, k, v, d_out, dq, dk, dv, offsets, scale, q_t, q_head, k_t, k_head, v_t, v_head, d_t, d_head,
              CAUSAL: tl.constexpr, D: tl.constexpr, KV_HEADS: tl.constexpr, GROUP: tl.constexpr,
              FLOOR: tl.constexpr, FIRST: tl.constexpr, LEVELS: tl.constexpr):  # fmt: skip
    head = tl.program_id(0) % KV_HEADS
    start, length = _bounds(offsets, tl.program_id(0) // KV_HEADS)
    q, k, v = _states(q, k, v, start, head * GROUP, head, q_t, q_head, k_t, k_head, v_t, v_head)
    d_out += start * d_t + head * GROUP * d_head
    dq += (start * KV_HEADS + head) * (GROUP * D)
    dk += (start * KV_HEADS + head) * D
    dv += (start * KV_HEADS + head) * D
    for level in tl.static_range(LEVELS):
        if (length > (FIRST << level >> 1 if level > 0 else FLOOR)) & (length <= FIRST << level):
            _backward_tile(q, k, v, d_out, dq, dk, dv, length, scale, q_t, q_head, k_t, v_t, d_t, d_head,
                           KV_HEADS * GROUP * D, KV_HEADS * D, CAUSAL, D, GROUP, FIRST << level)  # fmt: skip


@jit
def _blocks(length, BLOCK: tl.constexpr, SHORT: tl.constexpr):
    """The number of blocks of an example; 0 if it is short."""
    return tl.where(length > SHORT, tl.cdiv(length, BLOCK), 0)


@jit
def _forward_blocks(q, k, v, out, lse, offsets, scale, q_t, q_head, k_t, k_head, v_t, v_head,
                    CAUSAL: tl.constexpr, D: tl.constexpr, HEADS: tl.constexpr, GROUP: tl.constexpr,
                    SHORT: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr):  # fmt: skip
    """Attend in one longer example and one query head, in the blocks of queries of this program."""
    head = tl.program_id(0) % HEADS
    start, length = _bounds(offsets, tl.program_id(0) // HEADS)
    q, k, v = _states(q, k, v, start, head, head // GROUP, q_t, q_head, k_t, k_head, v_t, v_head)
    out += (start * HEADS + head) * D
    lse += start * HEADS + head
    for block in range(tl.program_id(1), _blocks(length, QUERIES, SHORT), tl.num_programs(1)):
        first = block * QUERIES
        rows = first + tl.arange(0, QUERIES)
        queries = _load(q + first * q_t, q_t, length - first, QUERIES, D)
        highest = tl.full([QUERIES], float("-inf"), tl.float32)
        total = tl.zeros([QUERIES], tl.float32)
        attended = tl.zeros([QUERIES, D], tl.float32)
        for key in range(0, tl.minimum(first + QUERIES, length) if CAUSAL else length, KEYS):
            keys = _load(k + key * k_t, k_t, length - key, KEYS, D)
            values = _load(v + key * v_t, v_t, length - key, KEYS, D)
            columns = key + tl.arange(0, KEYS)
            scores = _scores(queries, keys, columns[None, :], rows[:, None], length, scale, CAUSAL)
            higher = tl.maximum(highest, tl.max(scores, 1))
            shrink = tl.exp2(highest - higher)
            p = tl.exp2(scores - higher[:, None])
            total = total * shrink + tl.sum(p, 1)
            attended = tl.dot(p.to(values.dtype), values, attended * shrink[:, None])
            highest = higher
        _store(out + first * (HEADS * D), HEADS * D, attended / total[:, None], length - first, QUERIES, D)
        tl.store(lse + rows * HEADS, highest + tl.log2(total), mask=rows < length)


@jit
def _backward_queries(q, k, v, d_out, out, lse, delta, dq, offsets, scale,
                      q_t, q_head, k_t, k_head, v_t, v_head, d_t, d_head,
                      CAUSAL: tl.constexpr, D: tl.constexpr, HEADS: tl.constexpr, GROUP: tl.constexpr,
                      SHORT: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr):  # fmt: skip
    """The gradient of the queries of one longer example and one query head, in the blocks of this program.

    Writes to `delta` the product of the output and its gradient, by query. It equals the mean of the gradient of the
    softmax, which is subtracted in the gradient of the scores.
    """
    head = tl.program_id(0) % HEADS
    start, length = _bounds(offsets, tl.program_id(0) // HEADS)
    q, k, v = _states(q, k, v, start, head, head // GROUP, q_t, q_head, k_t, k_head, v_t, v_head)
    d_out += start * d_t + head * d_head
    out += (start * HEADS + head) * D
    dq += (start * HEADS + head) * D
    lse += start * HEADS + head
    delta += start * HEADS + head
    for block in range(tl.program_id(1), _blocks(length, QUERIES, SHORT), tl.num_programs(1)):
        first = block * QUERIES
        rows = first + tl.arange(0, QUERIES)
        queries = _load(q + first * q_t, q_t, length - first, QUERIES, D)
        d_attended = _load(d_out + first * d_t, d_t, length - first, QUERIES, D)
        attended = _load(out + first * (HEADS * D), HEADS * D, length - first, QUERIES, D)
        deltas = tl.sum(attended.to(tl.float32) * d_attended.to(tl.float32), 1)
        tl.store(delta + rows * HEADS, deltas, mask=rows < length)
        log_sums = tl.load(lse + rows * HEADS, mask=rows < length, other=0.0)
        d_queries = tl.zeros([QUERIES, D], tl.float32)
        for key in range(0, tl.minimum(first + QUERIES, length) if CAUSAL else length, KEYS):
            keys = _load(k + key * k_t, k_t, length - key, KEYS, D)
            values = _load(v + key * v_t, v_t, length - key, KEYS, D)
            columns = key + tl.arange(0, KEYS)
            scores = _scores(queries, keys, columns[None, :], rows[:, None], length, scale, CAUSAL)
            p = tl.exp2(scores - log_sums[:, None])
            d_scores = p * (tl.dot(d_attended, tl.trans(values)) - deltas[:, None])
            d_queries = tl.dot(d_scores.to(keys.dtype), keys, d_queries)
        _store(dq + first * (HEADS * D), HEADS * D, d_queries * scale, length - first, QUERIES, D)


@jit
def _backward_keys(q, k, v, d_out, lse, delta, dk, dv, offsets, scale,
                   q_t, q_head, k_t, k_head, v_t, v_head, d_t, d_head,
                   CAUSAL: tl.constexpr, D: tl.constexpr, KV_HEADS: tl.constexpr, GROUP: tl.constexpr,
                   SHORT: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr):  # fmt: skip
    """The gradients of keys and values of one longer example and one key head, in the blocks of this program.

    Here the rows of the scores are keys and the columns queries, so their gradients need no transposing.
    """
    HEADS: tl.constexpr = KV_HEADS * GROUP
    head = tl.program_id(0) % KV_HEADS
    start, length = _bounds(offsets, tl.program_id(0) // KV_HEADS)
    q, k, v = _states(q, k, v, start, head * GROUP, head, q_t, q_head, k_t, k_head, v_t, v_head)
    d_out += start * d_t + head * GROUP * d_head
    lse += start * HEADS + head * GROUP
    delta += start * HEADS + head * GROUP
    dk += (start * KV_HEADS + head) * D
    dv += (start * KV_HEADS + head) * D
    for block in range(tl.program_id(1), _blocks(length, KEYS, SHORT), tl.num_programs(1)):
        first = block * KEYS
        columns = first + tl.arange(0, KEYS)
        keys = _load(k + first * k_t, k_t, length - first, KEYS, D)
        values = _load(v + first * v_t, v_t, length - first, KEYS, D)
        d_keys = tl.zeros([KEYS, D], tl.float32)
        d_values = tl.zeros([KEYS, D], tl.float32)
        # One loop over heads and blocks of queries, so that the loads of a head overlap with work on the one before.
        begin = first // QUERIES * QUERIES if CAUSAL else 0
        turns = tl.cdiv(length - begin, QUERIES)
        for turn in range(GROUP * turns):
            other = turn // turns
            query = begin + turn % turns * QUERIES
            rows = query + tl.arange(0, QUERIES)
            at = rows * HEADS + other
            queries = _load(q + other * q_head + query * q_t, q_t, length - query, QUERIES, D)
            d_attended = _load(d_out + other * d_head + query * d_t, d_t, length - query, QUERIES, D)
            log_sums = tl.load(lse + at, mask=rows < length, other=0.0)
            deltas = tl.load(delta + at, mask=rows < length, other=0.0)
            scores = _scores(keys, queries, columns[:, None], rows[None, :], length, scale, CAUSAL)
            p = tl.exp2(scores - log_sums[None, :])
            d_values = tl.dot(p.to(keys.dtype), d_attended, d_values)
            d_scores = p * (tl.dot(values, tl.trans(d_attended)) - deltas[None, :])
            d_keys = tl.dot(d_scores.to(keys.dtype), queries, d_keys)
        _store(dk + first * (KV_HEADS * D), KV_HEADS * D, d_keys * scale, length - first, KEYS, D)
        _store(dv + first * (KV_HEADS * D), KV_HEADS * D, d_values, length - first, KEYS, D)


def _launch(kernel, launches: tuple[Launch, ...], programs: int, longest: int, *arguments, **constants) -> None:
    """Run a kernel for short examples: each launch that an example of at most `longest` tokens can need."""
    last = max(SMALLEST, 1 << (min(longest, SHORT) - 1).bit_length())
    with torch.cuda.device_of(arguments[0]):
        for first, largest, warps, stages in launches:
            if programs and first <= last:
                floor, levels = first // 2 if first > SMALLEST else 0, (min(largest, last) // first).bit_length()
                tiles = {"FLOOR": floor, "FIRST": first, "LEVELS": levels}
                kernel[(programs,)](*arguments, **constants, **tiles, num_warps=warps, num_stages=stages)


def _launch_blocks(kernel, blocks: Blocks, block: int, programs: int, longest: int, *arguments, **constants) -> None:
    """Run a kernel for longer examples, with blocks of `block` tokens, if an example of `longest` tokens is one."""
    if not programs or longest <= SHORT:
        return
    parts = triton.cdiv(longest, block * blocks.each)
    sizes = {"SHORT": SHORT, "QUERIES": blocks.queries, "KEYS": blocks.keys}
    with torch.cuda.device_of(arguments[0]):
        kernel[(programs, parts)](*arguments, **constants, **sizes, num_warps=blocks.warps, num_stages=blocks.stages)


def takes(head_dim: int) -> bool:
    """Whether `ragged_attention` supports this head size and Triton is installed."""
    return AVAILABLE and head_dim in HEAD_DIMS


def ragged_attention(
    query: Tensor, key: Tensor, value: Tensor, example_offsets: Tensor, longest: int, causal: bool, scale: float
) -> Tensor:
    """Attend within each example of a packed row.

    The compiler treats it as one operator, and it can be recorded: nothing on the host depends on the row's contents.

    Args:
        query: `[T, heads, head_dim]`, in half precision; the products would round float32 to TensorFloat-32.
            `takes(head_dim)` must hold.
        key: `[T, kv_heads, head_dim]`; heads must be a multiple of kv_heads. Strides are free, but a tensor whose last
            stride is not 1 is copied.
        value: `[T, kv_heads, head_dim]`; the three tensors have one dtype.
        example_offsets: `[examples + 1]`, int32, on the same device, from 0 to T: example k has the tokens
            `example_offsets[k] : example_offsets[k + 1]`.
        longest: tokens of the longest example that the row may hold; longer ones may be left out.
        causal: whether a token sees only itself and the tokens before it.
        scale: the factor on the scores, positive.

    Returns:
        `[T, heads, head_dim]`, contiguous.
    """
    out, _ = _ragged_attention(query, key, value, example_offsets, longest, causal, scale)
    return cast(Tensor, out)


def _results(query: Tensor) -> tuple[Tensor, Tensor]:
    """Empty tensors for the output and for the log-sum-exp of each query's scores (longer examples only)."""
    return query.new_empty(query.shape), query.new_empty(query.shape[:2], dtype=torch.float32)


@torch.library.custom_op("cpadapt::ragged_attention", mutates_args=())
def _ragged_attention(
    query: Tensor, key: Tensor, value: Tensor, example_offsets: Tensor, longest: int, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """The output and the log-sum-exp to base 2, which is not set for short examples."""
    query, key, value = by_row(query), by_row(key), by_row(value)
    (_, heads, width), kv_heads = query.shape, key.shape[1]
    if not takes(width):
        raise ValueError(f"ragged attention needs Triton and a head size of {HEAD_DIMS}, not {width}")
    out, lse = _results(query)
    programs = (len(example_offsets) - 1) * heads
    strides = *query.stride()[:2], *key.stride()[:2], *value.stride()[:2]
    constants = {"CAUSAL": causal, "D": width, "HEADS": heads, "GROUP": heads // kv_heads}
    _launch(
        _forward, FORWARD, programs, longest,
        query, key, value, out, example_offsets, scale, *strides, **constants,
    )  # fmt: skip
    _launch_blocks(
        _forward_blocks, FORWARD_BLOCKS, FORWARD_BLOCKS.queries, programs, longest,
        query, key, value, out, lse, example_offsets, scale, *strides, **constants,
    )  # fmt: skip
    return out, lse


@torch.library.custom_op("cpadapt::ragged_attention_backward", mutates_args=())
def _ragged_attention_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, example_offsets: Tensor,
    out: Tensor, lse: Tensor, longest: int, causal: bool, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of query, key and value, contiguous."""
    gradient, query, key, value = by_row(gradient), by_row(query), by_row(key), by_row(value)
    (_, heads, width), kv_heads = query.shape, key.shape[1]
    dq, dk, dv = query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)
    examples, group = len(example_offsets) - 1, heads // kv_heads
    strides = *query.stride()[:2], *key.stride()[:2], *value.stride()[:2], *gradient.stride()[:2]
    constants = {"CAUSAL": causal, "D": width, "GROUP": group}
    _launch(
        _backward, BACKWARD, examples * kv_heads, longest,
        query, key, value, gradient, dq, dk, dv, example_offsets, scale, *strides, KV_HEADS=kv_heads, **constants,
    )  # fmt: skip
    delta = torch.empty_like(lse)
    _launch_blocks(
        _backward_queries, QUERY_BLOCKS, QUERY_BLOCKS.queries, examples * heads, longest,
        query, key, value, gradient, out, lse, delta, dq, example_offsets, scale, *strides,
        HEADS=heads, **constants,
    )  # fmt: skip
    _launch_blocks(
        _backward_keys, KEY_BLOCKS, KEY_BLOCKS.keys, examples * kv_heads, longest,
        query, key, value, gradient, lse, delta, dk, dv, example_offsets, scale, *strides,
        KV_HEADS=kv_heads, **constants,
    )  # fmt: skip
    return dq, dk, dv


_ragged_attention.register_fake(lambda query, *inputs: _results(query))
_ragged_attention_backward.register_fake(lambda gradient, *inputs: tuple(t.new_empty(t.shape) for t in inputs[:3]))


def _keep(ctx, inputs, output) -> None:
    *states, ctx.longest, ctx.causal, ctx.scale = inputs
    # Short examples do not need the output in backward. But what is kept must not depend on the longest example, else
    # code compiled for a task with short texts would not serve a task with longer ones.
    ctx.save_for_backward(*states, *output)
    # The log-sum-exp is never differentiated, so its gradient needs no zeros.
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx, gradient, _):
    gradients = _ragged_attention_backward(gradient, *ctx.saved_tensors, ctx.longest, ctx.causal, ctx.scale)
    return *gradients, None, None, None, None


_ragged_attention.register_autograd(_differentiate, setup_context=_keep)
