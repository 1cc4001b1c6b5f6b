"""Attention within a packed row's examples against the padded path in float32, on a GPU or in Triton's interpreter."""

from collections.abc import Callable

import pytest
import torch
from on_gpu import BOUND, DEVICE, DTYPE, assert_near, needs_kernels, segments
from torch import Tensor

from cpadapt.bank.kernels.attention import ragged_attention, takes
from cpadapt.bank.packing import Segments, _padded

pytestmark = needs_kernels

SHORT = [1, 5, 0, 13, 16, 17, 31, 33, 66]
MIXED = [1, 300, 5, 128, 129, 0, 700, 64, 257, 13, 17, 33]
SCALE = 0.2


def drawn(tokens: int, heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype = torch.bfloat16) -> list[Tensor]:
    """Query, key and value as transformers has them, and a gradient of the output."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    states = [
        torch.randn(1, count, tokens, head_dim, device=DEVICE, generator=generator).to(dtype)[0].transpose(0, 1)
        for count in (heads, kv_heads, kv_heads)
    ]
    return [*states, torch.randn(tokens, heads, head_dim, device=DEVICE, generator=generator).to(dtype)]


def with_gradients(attend: Callable[..., Tensor], states: list[Tensor]) -> list[Tensor]:
    """The output, and the gradients of query, key and value."""
    leaves = [t.detach().requires_grad_() for t in states[:3]]
    out = attend(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, states[3])]


def ragged(rows: Segments, causal: bool) -> Callable[..., Tensor]:
    return lambda q, k, v: ragged_attention(q, k, v, rows.example_offsets, rows.longest, causal, SCALE)


@pytest.mark.parametrize(
    ("lengths", "causal", "heads", "kv_heads", "head_dim"),
    [
        ([1, 5, 0, 17], True, 4, 2, 16),
        ([1, 5, 0, 17], False, 2, 2, 32),
        ([130, 3, 16], False, 3, 1, 16),
        ([1, 300, 5, 128, 129, 0, 66], True, 2, 1, 16),
    ],
)
def test_small_shapes_equal_the_padded_path(
    lengths: list[int], causal: bool, heads: int, kv_heads: int, head_dim: int
) -> None:
    rows = segments(lengths)
    states = drawn(sum(lengths), heads, kv_heads, head_dim, DTYPE)
    got = with_gradients(ragged(rows, causal), states)
    expected = with_gradients(
        lambda q, k, v: _padded(q, k, v, rows, SCALE, causal, heads != kv_heads), [t.float() for t in states]
    )
    assert_near(got, expected, BOUND)


# Few combinations: each compiles eight kernels.
@pytest.mark.gpu
@pytest.mark.parametrize(
    ("lengths", "causal", "heads", "kv_heads", "head_dim", "dtype"),
    [
        (MIXED, True, 9, 3, 64, torch.bfloat16),
        (MIXED, False, 9, 3, 64, torch.float16),
        (MIXED, True, 4, 4, 32, torch.float16),
        (MIXED, False, 4, 4, 32, torch.bfloat16),
        (MIXED, True, 2, 1, 128, torch.bfloat16),
        (MIXED, False, 2, 1, 128, torch.bfloat16),
        (SHORT, False, 2, 2, 16, torch.bfloat16),
        (SHORT, True, 9, 3, 64, torch.bfloat16),
        ([9, 16], True, 9, 3, 64, torch.bfloat16),
        ([128, 3, 65, 100], True, 9, 3, 64, torch.bfloat16),
        ([129], True, 9, 3, 64, torch.bfloat16),
    ],
)
def test_it_equals_the_padded_path_in_float32(
    lengths: list[int], causal: bool, heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype
) -> None:
    rows = segments(lengths)
    states = drawn(sum(lengths), heads, kv_heads, head_dim, dtype)
    got = with_gradients(ragged(rows, causal), states)
    expected = with_gradients(
        lambda q, k, v: _padded(q, k, v, rows, SCALE, causal, heads != kv_heads), [t.float() for t in states]
    )
    assert got[0].is_contiguous()
    assert_near(got, expected)


@pytest.mark.gpu
def test_a_higher_bound_changes_nothing() -> None:
    states = drawn(sum(SHORT), 9, 3, 64)
    near, far = (with_gradients(ragged(segments(SHORT, longest), True), states) for longest in (66, 1024))
    assert all(map(torch.equal, near, far))


@pytest.mark.gpu
def test_two_calls_give_the_same_bits() -> None:
    rows = segments(MIXED)
    states = drawn(sum(MIXED), 9, 3, 64)
    first, second = (with_gradients(ragged(rows, True), states) for _ in range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.gpu
def test_a_gradient_of_any_strides_will_do() -> None:
    rows = segments(MIXED)
    *states, gradient = drawn(sum(MIXED), 9, 3, 64)
    expected = with_gradients(ragged(rows, True), [*states, gradient])
    by_head = gradient.transpose(0, 1).contiguous().transpose(0, 1)
    by_width = gradient.transpose(1, 2).contiguous().transpose(1, 2)
    for strided in (by_head, by_width):
        assert all(map(torch.equal, with_gradients(ragged(rows, True), [*states, strided]), expected))


@pytest.mark.gpu
def test_the_compiler_leaves_it_alone_at_any_length() -> None:
    torch.compiler.reset()

    def doubled(q: Tensor, k: Tensor, v: Tensor, ends: Tensor, longest: int) -> Tensor:
        return ragged_attention(q * 2, k * 2, v, ends, longest, True, SCALE) * 2

    compiled = torch.compile(doubled, dynamic=True, fullgraph=True)

    def check(lengths: list[int]) -> None:
        rows = segments(lengths)
        states = drawn(sum(lengths), 9, 3, 64)
        got, expected = (
            with_gradients(lambda q, k, v, f=f: f(q, k, v, rows.example_offsets, rows.longest), states)
            for f in (compiled, doubled)
        )
        assert_near(got, expected)

    for first, *others in ((SHORT, [3, 17, 9], [100, 2, 7, 7]), (MIXED, [130, 2, 3])):
        check(first)
        with torch.compiler.set_stance("fail_on_recompile"):
            for lengths in others:
                check(lengths)


@pytest.mark.gpu
@pytest.mark.parametrize("lengths", [SHORT, MIXED], ids=["short", "mixed"])
def test_it_can_be_recorded_and_replayed_on_other_examples(lengths: list[int]) -> None:
    rows = segments(lengths)
    states = drawn(sum(lengths), 9, 3, 64)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        with_gradients(ragged(rows, True), states)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        recorded = with_gradients(ragged(rows, True), states)
    rows.example_offsets.copy_(segments(lengths[::-1]).example_offsets)
    states[0].mul_(0.5)
    graph.replay()
    torch.cuda.synchronize()
    assert all(map(torch.equal, recorded, with_gradients(ragged(rows, True), states)))


def test_heads_of_other_sizes_are_refused() -> None:
    assert [size for size in (8, 12, 16, 48, 64, 128, 256) if takes(size)] == [16, 64, 128]
    states = drawn(8, 4, 4, 12)[:3]
    with pytest.raises(ValueError, match=r"head size of .*, not 12"):
        ragged_attention(*states, segments([8]).example_offsets, 8, True, SCALE)
