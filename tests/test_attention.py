"""Attention within short examples against the padded path in float32 and FlashAttention's; skipped without CUDA."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cpadapt import attention
from cpadapt.attention import SHORT, short_attention
from cpadapt.packing import Segments, _padded, _variable_length

pytestmark = pytest.mark.skipif(not (torch.cuda.is_available() and attention.AVAILABLE), reason="no CUDA or no Triton")

LENGTHS = [1, 5, 0, 13, 16, 17, 31, 33, 66]
SCALE = 0.2


def segments(lengths: list[int], longest: int | None = None) -> Segments:
    ends = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32, device="cuda")
    return Segments(ends, ends, tuple(ends[1:].tolist()), longest or max(lengths), len(lengths))


def drawn(tokens: int, heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype = torch.bfloat16) -> list[Tensor]:
    """Query, key and value as transformers has them, and a gradient of the output."""
    generator = torch.Generator("cuda").manual_seed(0)
    states = [
        torch.randn(1, count, tokens, head_dim, device="cuda", generator=generator).to(dtype)[0].transpose(0, 1)
        for count in (heads, kv_heads, kv_heads)
    ]
    return [*states, torch.randn(tokens, heads, head_dim, device="cuda", generator=generator).to(dtype)]


def with_gradients(attend: Callable[..., Tensor], states: list[Tensor]) -> list[Tensor]:
    """The output, and the gradients of query, key and value."""
    leaves = [t.detach().requires_grad_() for t in states[:3]]
    out = attend(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, states[3])]


def assert_near(got: list[Tensor], expected: list[Tensor], bound: float = 1e-2) -> None:
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.shape == theirs.shape
        assert (mine.float() - theirs.float()).norm() < bound * theirs.float().norm()


def short(rows: Segments, causal: bool) -> Callable[..., Tensor]:
    return lambda q, k, v: short_attention(q, k, v, rows.example_offsets, rows.longest, causal, SCALE)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(4, 4, 32), (9, 3, 64), (2, 1, 128), (2, 2, 16)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("lengths", [LENGTHS, [9, 16], [128, 3, 65, 100]], ids=["up to 66", "up to 16", "up to 128"])
def test_it_equals_the_padded_path_in_float32(
    causal: bool, heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype, lengths: list[int]
) -> None:
    rows = segments(lengths)
    states = drawn(sum(lengths), heads, kv_heads, head_dim, dtype)
    got = with_gradients(short(rows, causal), states)
    expected = with_gradients(
        lambda q, k, v: _padded(q, k, v, rows, SCALE, causal, heads != kv_heads), [t.float() for t in states]
    )
    assert got[0].is_contiguous()
    assert_near(got, expected)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(4, 4, 32), (9, 3, 64)])
def test_it_equals_flash_attention(causal: bool, heads: int, kv_heads: int, head_dim: int) -> None:
    lengths = [length for length in LENGTHS if length]
    rows = segments(lengths, SHORT)
    states = drawn(sum(lengths), heads, kv_heads, head_dim)
    assert_near(
        with_gradients(short(rows, causal), states),
        with_gradients(lambda q, k, v: _variable_length(q, k, v, rows, SCALE, causal, heads != kv_heads), states),
    )


@pytest.mark.parametrize("together", [True, False])
def test_a_gradient_of_any_strides_will_do(together: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "TOGETHER", together)
    rows = segments(LENGTHS)
    *states, gradient = drawn(sum(LENGTHS), 9, 3, 64)
    expected = with_gradients(short(rows, True), [*states, gradient])
    by_head = gradient.transpose(0, 1).contiguous().transpose(0, 1)
    by_width = gradient.transpose(1, 2).contiguous().transpose(1, 2)
    for strided in (by_head, by_width):
        for mine, theirs in zip(with_gradients(short(rows, True), [*states, strided]), expected, strict=True):
            assert torch.equal(mine, theirs)


def test_the_compiler_leaves_it_alone_at_any_length() -> None:
    torch.compiler.reset()

    def doubled(q: Tensor, k: Tensor, v: Tensor, ends: Tensor, longest: int) -> Tensor:
        return short_attention(q * 2, k * 2, v, ends, longest, True, SCALE) * 2

    compiled = torch.compile(doubled, dynamic=True, fullgraph=True)
    for lengths in (LENGTHS, [3, 17, 9], [100, 2, 7, 7]):
        rows = segments(lengths)
        states = drawn(sum(lengths), 9, 3, 64)
        got, expected = (
            with_gradients(lambda q, k, v, f=f, rows=rows: f(q, k, v, rows.example_offsets, rows.longest), states)
            for f in (compiled, doubled)
        )
        assert_near(got, expected)


def test_it_can_be_recorded_and_replayed_on_other_examples() -> None:
    rows = segments(LENGTHS)
    states = drawn(sum(LENGTHS), 9, 3, 64)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        with_gradients(short(rows, True), states)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        recorded = with_gradients(short(rows, True), states)
    rows.example_offsets.copy_(segments(LENGTHS[::-1]).example_offsets)
    states[0].mul_(0.5)
    graph.replay()
    torch.cuda.synchronize()
    for mine, theirs in zip(recorded, with_gradients(short(rows, True), states), strict=True):
        assert torch.equal(mine, theirs)


def test_an_example_that_may_be_too_long_is_refused() -> None:
    states = drawn(8, 4, 4, 32)[:3]
    with pytest.raises(ValueError, match="may have 129 tokens"):
        short_attention(*states, segments([8]).example_offsets, SHORT + 1, True, SCALE)
