"""Each run's low-rank update of its tokens in a packed row: two Triton kernels behind one operator of torch.

Runs have few components each, and unequal numbers of components and tokens. A grouped matrix product would need all
pairs padded to the largest, and its start takes as long as these small products. Here the components of all runs
follow one another without padding, and so do their tokens.

**The product**, `_pair`: one program takes one piece of one run's tokens through both matrices of the run's pair. Its
tile of components is the smallest power of two that holds the run's components. Two runs of 100 and 50 tokens::

                     x [T, in]            hidden [T, components]           y [T, out]

    program 0   run 0, tokens 0–63    ──►   run 0's components   ──►   run 0, tokens 0–63
    program 1   run 0, tokens 64–99   ──►   run 0's components   ──►   run 0, tokens 64–99
    program 2   run 1, tokens 0–49    ──►   run 1's components   ──►   run 1, tokens 0–49
                                       · firstᵀ                   · second
                 64 features at a time, summed           64 features at a time, stored

Forward has `first = down` and `second = up`. The gradient of `x` is the same product of the gradient of `y`, with
`first = up` and `second = down`.

**The gradients of both matrices**, `_matrices`: `d_up = hiddenᵀ · d_y` and `d_down = d_hiddenᵀ · x`, each a sum over
the run's tokens. One program makes one tile of 16 components and 128 features. A run of 20 and a run of 5 components,
with `out = 256` and `in = 128`::

                              d_up 0–127    d_up 128–255    d_down 0–127
    run 0, components 0–15    program 0,0   program 0,1     program 0,2
    run 0, components 16–19   program 1,0   program 1,1     program 1,2
    run 1, components 0–4     program 2,0   program 2,1     program 2,2

No sum is shared between programs, so the result does not depend on the order in which they run.

==========  ======  ========  ==========  =====  ======
tile        tokens  features  components  warps  stages
==========  ======  ========  ==========  =====  ======
`PAIR`      64      64        16 to 128   4      4
`MATRICES`  64      128       16          4      2
==========  ======  ========  ==========  =====  ======
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cpadapt.bank.kernels import by_row, jit, tl, triton

FEWEST = 16
"""Components of the smallest tile that the matrix units take."""

MOST = 128
"""Components of the largest tile. A run with more is done in several tiles, and `y` is rounded after each."""


class Tile(NamedTuple):
    """How much a program of a kernel does at once, and how it runs."""

    rows: int
    """Tokens."""
    features: int
    warps: int
    """Groups of 32 threads."""
    stages: int
    """Steps of a loop whose loads overlap."""


FEWEST_RUNS = 64
"""Runs that every kernel has room for; compiling one for fewer would gain nothing."""

PAIR = Tile(64, 64, 4, 4)
"""The tile of the kernel for both products."""

MATRICES = Tile(64, 128, 4, 2)
"""The tile of the kernel for the gradients of both matrices."""


@jit
def _piece(offsets, index, runs, RUNS: tl.constexpr, STEP: tl.constexpr):
    """Find the run of the piece with this index, and where the piece begins and ends.

    `offsets` has the bounds of the runs. Each run is cut into pieces of `STEP`; its last piece may be shorter. Beyond
    the last piece of all, the run is `runs` or more.
    """
    each = tl.arange(0, RUNS)
    begins = tl.load(offsets + each, mask=each < runs, other=0)
    ends = tl.load(offsets + each + 1, mask=each < runs, other=0)
    pieces = tl.cumsum((ends - begins + STEP - 1) // STEP, 0)
    run = tl.sum((pieces <= index).to(tl.int32), 0)
    before = tl.max(tl.where(each < run, pieces, 0), 0)
    begin = tl.sum(tl.where(each == run, begins, 0), 0) + (index - before) * STEP
    end = tl.minimum(begin + STEP, tl.sum(tl.where(each == run, ends, 0), 0))
    return run, begin, end


@jit
def _pair_tile(x, first, second, y, hidden, count, size, x_t, first_c, second_c, hidden_t,
               INNER: tl.constexpr, OUTER: tl.constexpr, ROWS: tl.constexpr, FEATURES: tl.constexpr,
               COMPONENTS: tl.constexpr, MANY: tl.constexpr):  # fmt: skip
    """`hidden = x · firstᵀ`, then `y = hidden · second`, for `count` tokens and `size` components.

    The pointers are at the first token and the first component. Without components `y` is zero.
    """
    rows = tl.arange(0, ROWS)[:, None]
    features = tl.arange(0, FEATURES)[None, :]
    for c in range(0, tl.maximum(size, 1), COMPONENTS):
        components = c + tl.arange(0, COMPONENTS)
        total = tl.zeros([ROWS, COMPONENTS], tl.float32)
        for k in range(0, INNER, FEATURES):
            tile = tl.load(x + k + rows * x_t + features, mask=(rows < count) & (k + features < INNER), other=0.0)
            matrix = tl.load(first + k + components[:, None] * first_c + features,
                             mask=(components[:, None] < size) & (k + features < INNER), other=0.0)  # fmt: skip
            total = tl.dot(tile, tl.trans(matrix), total)
        middle = total.to(hidden.dtype.element_ty)
        tl.store(hidden + rows * hidden_t + components[None, :], middle,
                 mask=(rows < count) & (components[None, :] < size))  # fmt: skip
        if MANY:
            # One thread reads from `y` what another one stored.
            tl.debug_barrier()
        for n in range(0, OUTER, FEATURES):
            place = y + n + rows * OUTER + features
            real = (rows < count) & (n + features < OUTER)
            result = tl.zeros([ROWS, FEATURES], tl.float32)
            if MANY:
                result = tl.load(place, mask=real & (c > 0), other=0.0).to(tl.float32)
            matrix = tl.load(second + n + components[:, None] * second_c + features,
                             mask=(components[:, None] < size) & (n + features < OUTER), other=0.0)  # fmt: skip
            tl.store(place, tl.dot(middle, matrix, result).to(y.dtype.element_ty), mask=real)


@jit(do_not_specialize=["runs"])
def _pair(x, first, second, y, hidden, run_offsets, component_offsets, runs, x_t, first_c, second_c, hidden_t,
          RUNS: tl.constexpr, INNER: tl.constexpr, OUTER: tl.constexpr, ROWS: tl.constexpr, FEATURES: tl.constexpr,
          FEWEST: tl.constexpr, LEVELS: tl.constexpr, MANY: tl.constexpr):  # fmt: skip
    """Take one piece of one run's tokens through both matrices of its pair."""
    run, begin, end = _piece(run_offsets, tl.program_id(0), runs, RUNS, ROWS)
    if run < runs:
        begin_c = tl.load(component_offsets + run)
        size = tl.load(component_offsets + run + 1) - begin_c
        x += begin.to(tl.int64) * x_t
        y += begin.to(tl.int64) * OUTER
        hidden += begin.to(tl.int64) * hidden_t
        first += begin_c.to(tl.int64) * first_c
        second += begin_c.to(tl.int64) * second_c
        needed = tl.minimum(size, FEWEST << LEVELS - 1)
        for level in tl.static_range(LEVELS):
            if (needed > (FEWEST << level >> 1 if level > 0 else -1)) & (needed <= FEWEST << level):
                _pair_tile(x, first, second, y, hidden, end - begin, size, x_t, first_c, second_c, hidden_t,
                           INNER, OUTER, ROWS, FEATURES, FEWEST << level, MANY)  # fmt: skip


@jit
def _matrix(hidden, x, out, first_c, begin_c, end_c, begin, end, block, hidden_t, x_t,
            WIDTH: tl.constexpr, ROWS: tl.constexpr, COMPONENTS: tl.constexpr, FEATURES: tl.constexpr):  # fmt: skip
    """`hiddenᵀ · x` over one run's tokens, for one tile of components and one block of features."""
    components = begin_c + tl.arange(0, COMPONENTS)[:, None]
    features = block * FEATURES + tl.arange(0, FEATURES)[None, :]
    total = tl.zeros([COMPONENTS, FEATURES], tl.float32)
    for token in range(begin, end, ROWS):
        rows = (token + tl.arange(0, ROWS)).to(tl.int64)
        left = tl.load(hidden + rows[None, :] * hidden_t + (components - first_c),
                       mask=(rows[None, :] < end) & (components < end_c), other=0.0)  # fmt: skip
        right = tl.load(x + rows[:, None] * x_t + features,
                        mask=(rows[:, None] < end) & (features < WIDTH), other=0.0)  # fmt: skip
        total = tl.dot(left, right, total)
    tl.store(out + components * WIDTH + features, total.to(out.dtype.element_ty),
             mask=(components < end_c) & (features < WIDTH))  # fmt: skip


@jit(do_not_specialize=["runs"])
def _matrices(hidden, gradient, d_up, d_hidden, x, d_down, run_offsets, component_offsets, runs,
              hidden_t, gradient_t, d_hidden_t, x_t, RUNS: tl.constexpr, OUT: tl.constexpr, IN: tl.constexpr,
              ROWS: tl.constexpr, COMPONENTS: tl.constexpr, FEATURES: tl.constexpr):  # fmt: skip
    """Make one tile of the gradient of `up` or of `down`."""
    run, begin_c, end_c = _piece(component_offsets, tl.program_id(0), runs, RUNS, COMPONENTS)
    if run < runs:
        first_c = tl.load(component_offsets + run)
        begin, end = tl.load(run_offsets + run), tl.load(run_offsets + run + 1)
        block, blocks = tl.program_id(1), tl.cdiv(OUT, FEATURES)
        if block < blocks:
            _matrix(hidden, gradient, d_up, first_c, begin_c, end_c, begin, end, block, hidden_t, gradient_t,
                    OUT, ROWS, COMPONENTS, FEATURES)  # fmt: skip
        else:
            _matrix(d_hidden, x, d_down, first_c, begin_c, end_c, begin, end, block - blocks, d_hidden_t, x_t,
                    IN, ROWS, COMPONENTS, FEATURES)  # fmt: skip


def columns(most: int) -> int:
    """Round the largest number of components of any run up to whole tiles."""
    return (most + FEWEST - 1) // FEWEST * FEWEST


def _runs(offsets: Tensor) -> tuple[int, int]:
    """The number of runs that these offsets bound, and the number that a kernel has room for."""
    runs = len(offsets) - 1
    return runs, max(FEWEST_RUNS, triton.next_power_of_2(runs))


def _through(
    x: Tensor, first: Tensor, second: Tensor, run_offsets: Tensor, component_offsets: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """`x · firstᵀ · second` run by run, and the result of its first product."""
    x, first, second = by_row(x), by_row(first), by_row(second)
    tokens, (runs, room) = len(x), _runs(run_offsets)
    y, hidden = x.new_empty(tokens, second.shape[1]), x.new_empty(tokens, columns(most))
    largest = min(MOST, max(FEWEST, triton.next_power_of_2(most)))
    with torch.cuda.device_of(x):
        _pair[(triton.cdiv(tokens, PAIR.rows) + runs,)](
            x, first, second, y, hidden, run_offsets, component_offsets, runs,
            x.stride(0), first.stride(0), second.stride(0), hidden.stride(0),
            RUNS=room, INNER=first.shape[1], OUTER=second.shape[1],
            ROWS=PAIR.rows, FEATURES=PAIR.features, num_warps=PAIR.warps, num_stages=PAIR.stages,
            FEWEST=FEWEST, LEVELS=(largest // FEWEST).bit_length(), MANY=most > MOST,
        )  # fmt: skip
    return y, hidden


@torch.library.custom_op("cpadapt::low_rank", mutates_args=())
def low_rank(
    x: Tensor, up: Tensor, down: Tensor, run_offsets: Tensor, component_offsets: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """Apply each run's pair to that run's tokens.

    The compiler treats it as one operator, and it can be recorded: nothing on the host depends on the offsets.

    Args:
        x: `[T, in]`, in half precision; the products would round float32 to TensorFloat-32.
        up: `[components, out]`, the components of all runs, one run after another.
        down: `[components, in]`, likewise.
        run_offsets: `[runs + 1]`, int32: run k has the tokens `run_offsets[k] : run_offsets[k + 1]`.
        component_offsets: `[runs + 1]`, int32, likewise for the components; a run may have none.
        most: the largest number of components of any run.

    Returns:
        `[T, out]`, `x · downᵀ · up`; `[T, columns(most)]`, `x · downᵀ`, set only in each run's components and needed
        only by the backward pass.
    """
    return _through(x, down, up, run_offsets, component_offsets, most)


@torch.library.custom_op("cpadapt::low_rank_backward", mutates_args=())
def _low_rank_backward(
    gradient: Tensor, x: Tensor, up: Tensor, down: Tensor, hidden: Tensor,
    run_offsets: Tensor, component_offsets: Tensor, most: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of `x`, `up` and `down`."""
    d_x, d_hidden = _through(gradient, up, down, run_offsets, component_offsets, most)
    gradient, x = by_row(gradient), by_row(x)
    d_up, d_down = x.new_empty(up.shape), x.new_empty(down.shape)
    (runs, room), (components, width) = _runs(run_offsets), up.shape
    blocks = triton.cdiv(width, MATRICES.features) + triton.cdiv(down.shape[1], MATRICES.features)
    with torch.cuda.device_of(x):
        _matrices[(triton.cdiv(components, FEWEST) + runs, blocks)](
            hidden, gradient, d_up, d_hidden, x, d_down, run_offsets, component_offsets, runs,
            hidden.stride(0), gradient.stride(0), d_hidden.stride(0), x.stride(0),
            RUNS=room, OUT=width, IN=down.shape[1], COMPONENTS=FEWEST,
            ROWS=MATRICES.rows, FEATURES=MATRICES.features, num_warps=MATRICES.warps, num_stages=MATRICES.stages,
        )  # fmt: skip
    return d_x, d_up, d_down


@low_rank.register_fake
def _(x, up, down, run_offsets, component_offsets, most):
    return x.new_empty(x.shape[0], up.shape[1]), x.new_empty(x.shape[0], columns(most))


@_low_rank_backward.register_fake
def _(gradient, x, up, down, hidden, run_offsets, component_offsets, most):
    return tuple(t.new_empty(t.shape) for t in (x, up, down))


def _keep(ctx, inputs, output) -> None:
    *tensors, run_offsets, component_offsets, ctx.most = inputs
    ctx.save_for_backward(*tensors, output[1], run_offsets, component_offsets)


def _differentiate(ctx, gradient, hidden_gradient):
    return *_low_rank_backward(gradient, *ctx.saved_tensors, ctx.most), None, None, None


low_rank.register_autograd(_differentiate, setup_context=_keep)
