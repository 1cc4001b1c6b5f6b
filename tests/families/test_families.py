"""Both families against hand-checked counts, a float64 oracle and the properties their docstrings promise."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cpadapt import families
from cpadapt.errors import InputError
from cpadapt.families import FAMILIES, cp, lora


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("family", "out_features", "in_features", "step"),
    [
        ("cp", 2048, 2048, 193),
        ("lora", 2048, 2048, 4096),
        ("cp", 576, 576, 97),
        ("cp", 192, 576, 77),
        ("lora", 576, 576, 1152),
        ("lora", 192, 576, 768),
        ("cp", 384, 384, 81),
        ("lora", 384, 384, 768),
    ],
)
def test_steps_by_hand(family: str, out_features: int, in_features: int, step: int) -> None:
    assert FAMILIES[family].step(out_features, in_features) == step
    assert FAMILIES[family].count(out_features, in_features, 7) == 7 * step


# arXiv 2606.00428: 48 projections of 2048×2048.
@pytest.mark.parametrize(
    ("family", "size", "scalars"),
    [
        ("cp", 21, 194_544),
        ("cp", 28, 259_392),
        ("cp", 43, 398_352),
        ("cp", 64, 592_896),
        ("lora", 1, 196_608),
        ("lora", 6, 1_179_648),
    ],
)
def test_the_papers_counts(family: str, size: int, scalars: int) -> None:
    assert 48 * FAMILIES[family].count(2048, 2048, size) == scalars


def test_the_papers_adam_memory() -> None:
    mib_per_scalar = 2 * 4 / 2**20
    assert round(48 * lora.step(2048, 2048) * mib_per_scalar, 2) == 1.50
    assert round(48 * cp.step(2048, 2048) * mib_per_scalar, 3) == 0.071


@pytest.mark.parametrize(
    ("dimension", "expected"),
    [(2048, (32, 64)), (576, (24, 24)), (384, (16, 24)), (192, (12, 16)), (1, (1, 1))],
)
def test_default_modes_are_nearest_to_square(dimension: int, expected: tuple[int, ...]) -> None:
    assert cp.modes(dimension) == expected


def test_a_prime_dimension_is_named_with_the_way_out() -> None:
    with pytest.raises(InputError, match=r"1009 is prime.*tensor_shape=\{1009: \(1009,\)\}"):
        cp.count(1009, 64, 1)
    assert cp.count(1009, 64, 1, tensor_shape={1009: (1009,)}) == 1009 + 8 + 8 + 1


@pytest.mark.parametrize("given_modes", [(24, 25), (), (0, 576), (-24, -24)])
def test_modes_must_multiply_to_the_dimension(given_modes: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="576"):
        cp.modes(576, {576: given_modes})


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("size", [0, -3])
def test_size_is_positive(family: str, size: int) -> None:
    with pytest.raises(InputError, match=str(size)):
        FAMILIES[family].count(12, 8, size)


def test_more_components_than_entries_is_an_error() -> None:
    assert cp.count(4, 6, 24)
    with pytest.raises(InputError, match="25 CP components"):
        cp.count(4, 6, 25)


def test_unknown_family_and_bad_start_are_named() -> None:
    with pytest.raises(InputError, match=r"'lorra'; known are cp, lora"):
        families.family("lorra")
    for module in (cp, lora):
        with pytest.raises(InputError, match="'ones'"):
            module.init(generator(), 8, 8, 1, init="ones")
    with pytest.raises(InputError, match="raw_norm"):
        cp.init(generator(), 8, 8, 1, raw_norm=0.0)


SPLITS = [None, {12: (12,)}, {12: (3, 4), 18: (2, 3, 3)}, {12: (2, 3, 2), 18: (18,)}]


@pytest.mark.parametrize("tensor_shape", SPLITS)
def test_cp_against_an_einsum_oracle_in_float64(tensor_shape: cp.TensorShape | None) -> None:
    out_features, in_features, size = 12, 18, 5
    params = cp.init(generator(), out_features, in_features, size, tensor_shape=tensor_shape, init="normal")
    params = {name: 3.0 * tensor.double() for name, tensor in params.items()}
    up, down = cp.factors(params)

    raw = [params[name] for name in params if name != "weight"]
    letters = "abcdef"[: len(raw)]
    units = [vectors / vectors.norm(dim=1, keepdim=True) for vectors in raw]
    expression = ",".join(f"s{letter}" for letter in letters) + ",s->" + letters
    tensor = torch.einsum(expression, *units, params["weight"])
    torch.testing.assert_close(up @ down, tensor.reshape(out_features, in_features), atol=1e-13, rtol=0)


@settings(deadline=None, max_examples=60)
@given(
    family=st.sampled_from(sorted(FAMILIES)),
    out_features=st.integers(1, 24),
    in_features=st.integers(1, 24),
    size=st.integers(1, 6),
    leading=st.lists(st.integers(1, 3), max_size=2),
)
def test_shapes_counts_rank_and_leading_axes(
    family: str, out_features: int, in_features: int, size: int, leading: list[int]
) -> None:
    module = FAMILIES[family]
    options = {}
    if family == "cp":
        size = min(size, out_features * in_features)
        options["tensor_shape"] = {d: (d,) for d in (2, 3, 5, 7, 11, 13, 17, 19, 23)}
    many = [
        module.init(generator(seed), out_features, in_features, size, init="normal", **options)
        for seed in range(math.prod(leading))
    ]
    assert sum(t.numel() for t in many[0].values()) == module.count(out_features, in_features, size, **options)
    stacked = {name: torch.stack([p[name] for p in many]).unflatten(0, leading or [1]) for name in many[0]}
    up, down = module.factors(stacked)
    assert up.shape == (*(leading or [1]), out_features, size)
    assert down.shape == (*(leading or [1]), size, in_features)
    for alone, up_i, down_i in zip(many, up.flatten(0, -3), down.flatten(0, -3), strict=True):
        up_alone, down_alone = module.factors(alone)
        torch.testing.assert_close(up_i @ down_i, up_alone @ down_alone)
        assert torch.linalg.matrix_rank((up_i @ down_i).double(), rtol=1e-5) <= size


def test_cp_does_not_depend_on_the_raw_length_and_its_gradient_is_orthogonal() -> None:
    drawn = cp.init(generator(), 12, 18, 4, init="normal")
    target = torch.randn(12, 18, dtype=torch.float64, generator=generator(1))
    gradients = {}
    for length in (1.0, 10.0):
        params = {n: t.double() * (1.0 if n == "weight" else length) for n, t in drawn.items()}
        params = {n: t.requires_grad_() for n, t in params.items()}
        up, down = cp.factors(params)
        (up @ down * target).sum().backward()
        gradients[length] = {n: t.grad for n, t in params.items()}
        for name, tensor in params.items():
            if name != "weight":
                along = (tensor * tensor.grad).sum(-1)
                torch.testing.assert_close(along, torch.zeros_like(along), atol=1e-12, rtol=0)
    for name in drawn:
        shrink = 1.0 if name == "weight" else 10.0
        torch.testing.assert_close(gradients[10.0][name] * shrink, gradients[1.0][name])


def test_degrees_of_freedom_of_one_component() -> None:
    """193 stored scalars on 2048×2048 are 189 free ones; here 4·6 × 3·5: 18 + 1 stored, 15 free."""
    params = cp.init(generator(), 24, 15, 1, init="normal")
    names = list(params)

    def update(*tensors: torch.Tensor) -> torch.Tensor:
        up, down = cp.factors(dict(zip(names, tensors, strict=True)))
        return up @ down

    jacobian = torch.autograd.functional.jacobian(update, tuple(t.double() for t in params.values()))
    flat = torch.cat([j.flatten(2).flatten(0, 1) for j in jacobian], 1)
    assert flat.shape[1] == cp.count(24, 15, 1) == 19
    assert torch.linalg.matrix_rank(flat) == 19 - 4


def test_with_zero_weights_only_they_get_a_gradient() -> None:
    params = {n: t.requires_grad_() for n, t in cp.init(generator(), 12, 18, 3).items()}
    up, down = cp.factors(params)
    assert not (up @ down).any()
    (up @ down * torch.randn(12, 18, generator=generator(1))).sum().backward()
    assert {n for n, t in params.items() if t.grad.abs().max() > 0} == {"weight"}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_adapters_laid_end_to_end_have_their_pairs_end_to_end(family: str) -> None:
    """What banks of runs of different sizes rest on."""
    drawn = [FAMILIES[family].init(generator(size), 12, 18, size, init="normal") for size in (2, 1, 5)]
    up, down = FAMILIES[family].factors({name: torch.cat([of[name] for of in drawn]) for name in drawn[0]})
    ups, downs = zip(*map(FAMILIES[family].factors, drawn), strict=True)
    torch.testing.assert_close(up, torch.cat(ups, 1), rtol=0, atol=0)
    torch.testing.assert_close(down, torch.cat(downs), rtol=0, atol=0)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_start_is_a_no_op_unless_asked(family: str) -> None:
    module = FAMILIES[family]
    up, down = module.factors(module.init(generator(), 12, 18, 3))
    assert not (up @ down).any()
    up, down = module.factors(module.init(generator(), 12, 18, 3, init="normal"))
    assert (up @ down).any()


def test_lora_is_drawn_as_peft_draws_it() -> None:
    """Uniform in ±1/√in, as `kaiming_uniform_` with a = √5 gives for [rank, in]."""
    down = lora.init(generator(), 8, 400, 50)["down"]
    assert down.abs().max() <= 1 / math.sqrt(400)
    assert down.abs().max() > 0.99 / math.sqrt(400)
    by_torch = torch.empty(50, 400)
    torch.nn.init.kaiming_uniform_(by_torch, a=math.sqrt(5), generator=generator())
    torch.testing.assert_close(down, by_torch)


def test_raw_vectors_have_the_length_asked_for() -> None:
    for length in (1.0, 0.3):
        params = cp.init(generator(), 12, 18, 3, raw_norm=length)
        for name, tensor in params.items():
            if name != "weight":
                torch.testing.assert_close(tensor.norm(dim=-1), torch.full((3,), length))
