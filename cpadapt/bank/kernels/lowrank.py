"""Each run's low-rank update of its own tokens in a packed row, as two Triton kernels behind one operator of torch.

Runs have few components each, unequally many, and unequally many tokens. A grouped matrix product wants all runs'
pairs padded to the largest, and takes as long to start as these small products take to do. Here the runs' components
lie end to end, without padding, as their tokens do: a program does one piece of one run's tokens, through both
matrices of its pair, on a tile of that run's own number of components.

The backward of `y = x · downᵀ · up` with respect to `x` is the same product with the two matrices exchanged, so the
same kernel does it. What is between the two matrices, `hidden`, is kept for the gradients of the matrices; they are
sums over a run's tokens, which one program does for one block of components and features: nothing depends on the
order in which programs run.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cpadapt.bank.kernels import by_row, jit, tl, triton

FEWEST = 16
"""Components of the smallest tile, which the matrix units ask for. A tile is the power of two that a run needs."""

MOST = 128
"""Components of the largest tile. The sum over more of them is rounded anew for each further tile."""


class Tile(NamedTuple):
    """What a program of a kernel does at once, and how it runs."""

    rows: int
    """Tokens."""
    features: int
    warps: int
    stages: int


FEWEST_RUNS = 64
"""Runs that a kernel has room for at least: one compiled for fewer would gain nothing."""

PAIR = Tile(64, 64, 4, 4)
"""Of the kernel that does both products."""

MATRICES = Tile(64, 128, 4, 2)
"""Of the kernel for the gradients of the two matrices."""


@jit
def _piece(offsets, index, runs, RUNS: tl.constexpr, STEP: tl.constexpr):
    """Which run the piece of this index belongs to, and where the piece begins and ends.

    Runs end at `offsets`; each is cut into pieces of `STEP`, the last one shorter. Beyond the last piece the run is
    `runs` or more.
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

    The pointers are at the first of them. Without components `y` is zero.
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
            # What one thread stored in `y` another one reads.
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
    """One piece of one run's tokens through both matrices of its pair."""
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
    """`hiddenᵀ · x` over one run's tokens, for a tile of its components and a block of features."""
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
    """A tile of the gradient of `up` or of `down`."""
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
    """Room for the most components that one run may have, in whole tiles."""
    return (most + FEWEST - 1) // FEWEST * FEWEST


def _runs(offsets: Tensor) -> tuple[int, int]:
    """How many runs end at these offsets, and for how many a kernel has room."""
    runs = len(offsets) - 1
    return runs, max(FEWEST_RUNS, triton.next_power_of_2(runs))


def _through(
    x: Tensor, first: Tensor, second: Tensor, run_offsets: Tensor, component_offsets: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """`x · firstᵀ · second` run by run, and what is between the two products."""
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

    The compiler takes it as it is, and it can be recorded: nothing on the host depends on the offsets.

    Args:
        x: `[T, in]`, in half precision: the products would round float32 to TensorFloat-32.
        up: `[components, out]`, all runs' end to end.
        down: `[components, in]`.
        run_offsets: `[runs + 1]`, int32, where each run's tokens end, from 0 to T.
        component_offsets: `[runs + 1]`, int32, where each run's components end; a run may have none.
        most: components that one run may have.

    Returns:
        `x · downᵀ · up` `[T, out]`, and `x · downᵀ` `[T, most or a few more]`, which is filled as far as a run's
        components go and serves the backward pass alone.
    """
    return _through(x, down, up, run_offsets, component_offsets, most)


@torch.library.custom_op("cpadapt::low_rank_backward", mutates_args=())
def _low_rank_backward(
    gradient: Tensor, x: Tensor, up: Tensor, down: Tensor, hidden: Tensor,
    run_offsets: Tensor, component_offsets: Tensor, most: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of x, up and down."""
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


def _differentiate(ctx, gradient, of_hidden):
    return *_low_rank_backward(gradient, *ctx.saved_tensors, ctx.most), None, None, None


low_rank.register_autograd(_differentiate, setup_context=_keep)
