"""The runs' low-rank products as kernels, on a GPU or in Triton's interpreter, against the loop in float32."""

from collections.abc import Callable

import pytest
import torch
from on_gpu import BOUND, DEVICE, DTYPE, assert_near, needs_kernels, segments
from torch import Tensor

from cpadapt.bank.kernels.lowrank import low_rank
from cpadapt.bank.packing import Components, Segments, adapter_product

pytestmark = needs_kernels

TOKENS = [5, 130, 0, 64, 17, 300]
SIZES = [0, 1, 3, 33, 16, 88]


def components(sizes: list[int]) -> Components:
    return Components.of(sizes, torch.device(DEVICE), max(sizes))


def drawn(inner: int, outer: int, dtype: torch.dtype = torch.bfloat16) -> list[Tensor]:
    """x, up, down, and a gradient of the result."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    shapes = [(sum(TOKENS), inner), (sum(SIZES), outer), (sum(SIZES), inner), (sum(TOKENS), outer)]
    return [torch.randn(*shape, device=DEVICE, generator=generator).to(dtype) for shape in shapes]


def with_gradients(
    tensors: list[Tensor], rows: Segments, sizes: Components, multiply: Callable[..., Tensor] = adapter_product
) -> list[Tensor]:
    """The product, and the gradients of x, up and down."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors[:3]]
    y = multiply(*leaves, rows, sizes)
    return [y.detach(), *torch.autograd.grad(y, leaves, tensors[3])]


def by_kernels(x: Tensor, up: Tensor, down: Tensor, rows: Segments, sizes: Components) -> Tensor:
    """As `adapter_product` with kernels, whatever the device and dtype."""
    return low_rank(x, up, down, rows.run_offsets, sizes.offsets, sizes.room.shape[1])[0]


@pytest.mark.parametrize(("inner", "outer"), [(48, 80), (64, 16)])
def test_kernels_equal_the_loop(inner: int, outer: int) -> None:
    rows, sizes = segments(TOKENS), components(SIZES)
    tensors = drawn(inner, outer, DTYPE)
    got = with_gradients(tensors, rows, sizes, by_kernels)
    assert_near(got, with_gradients([tensor.float() for tensor in tensors], rows, sizes), BOUND)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("inner", "outer"), [(576, 192), (48, 80)])
def test_it_equals_the_loop_in_float32(inner: int, outer: int, dtype: torch.dtype) -> None:
    rows, sizes = segments(TOKENS), components(SIZES)
    tensors = drawn(inner, outer, dtype)
    got = with_gradients(tensors, rows, sizes)
    assert_near(got, with_gradients([tensor.float() for tensor in tensors], rows, sizes))
    for mine, again in zip(got, with_gradients(tensors, rows, sizes), strict=True):
        assert torch.equal(mine, again)


@pytest.mark.gpu
def test_rows_and_columns_may_lie_anywhere() -> None:
    """Factors of one layer of many, and a gradient that arrives transposed."""
    rows, sizes = segments(TOKENS), components(SIZES)
    x, up, down, gradient = drawn(64, 64)
    apart = [x[None].repeat(2, 1, 1)[1], up[:, None].repeat(1, 3, 1)[:, 2], down.T.contiguous().T]
    assert_near(
        with_gradients([*apart, gradient.T.contiguous().T], rows, sizes),
        with_gradients([x, up, down, gradient], rows, sizes),
    )


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_a_recording_serves_other_tokens(compiled: bool) -> None:
    sizes, tensors, rows = components(SIZES), drawn(64, 96), segments(TOKENS)
    call = torch.compile(adapter_product, dynamic=True) if compiled else adapter_product

    def work() -> list[Tensor]:
        leaves = [tensor.detach().requires_grad_() for tensor in tensors[:3]]
        y = call(*leaves, rows, sizes)
        return [y.detach(), *torch.autograd.grad(y, leaves, tensors[3])]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            got = work()
        for tokens in (TOKENS, [100, 3, 113, 0, 200, 100]):
            rows.run_offsets.copy_(segments(tokens).run_offsets)
            graph.replay()
            exact = [tensor.float() for tensor in tensors]
            assert_near(got, with_gradients(exact, segments(tokens), sizes))
