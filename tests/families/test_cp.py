"""CP against hand-checked splits, a float64 oracle and the properties that its docstring promises."""

import pytest
import torch
import torch.nn.functional as F

from cpadapt.errors import InputError
from cpadapt.families import counting, cp
from cpadapt.inputs.backbones.specs import Projection


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("dimension", "expected"),
    [
        (2048, (32, 64)), (576, (24, 24)), (384, (16, 24)), (192, (12, 16)), (1536, (32, 48)), (256, (16, 16)),
        (896, (28, 32)), (128, (8, 16)), (1009, (1009,)), (2, (2,)), (1, ()),
    ],
)  # fmt: skip
def test_default_modes_are_nearest_to_square(dimension: int, expected: tuple[int, ...]) -> None:
    assert cp.modes(dimension) == expected


def test_a_mode_of_one_is_left_out() -> None:
    """Its unit vector is 1 or -1, so it would hold a scalar that never moves."""
    for given in ((1, 1009), (1009, 1), (1, 1009, 1)):
        assert cp.modes(1009, {1009: given}) == (1009,)
    assert cp.modes(1, {1: (1, 1)}) == cp.modes(1, {1: ()}) == ()
    assert cp.shapes(1009, 1, 3) == {"up_0": (3, 1009), "weight": (3,)}
    assert cp.shapes(1, 1, 1) == {"weight": (1,)}


def test_sides_of_one_and_prime_ones_make_a_pair() -> None:
    for out_features, in_features in ((1, 12), (12, 1), (1, 1), (7, 1)):
        params = cp.init(generator(), out_features, in_features, 1, init="normal")
        up, down = cp.factors(params)
        assert (up.shape, down.shape) == ((out_features, 1), (1, in_features))
        torch.testing.assert_close((up @ down).norm(), params["weight"].abs()[0])


def test_vectors_of_length_one_as_they_were_saved_once_count_as_their_sign() -> None:
    params = cp.init(generator(), 1, 12, 3, init="normal")
    once = params | {"up_0": torch.tensor([[0.3], [-0.2], [1.0]]), "up_1": torch.tensor([[-1.0], [-1.0], [1.0]])}
    up, _ = cp.factors(once)
    signed, _ = cp.factors(params | {"weight": params["weight"] * torch.tensor([-1.0, 1.0, 1.0])})
    torch.testing.assert_close(up, signed, rtol=0, atol=0)


def test_vectors_are_made_unit_length_as_torch_does() -> None:
    """To the bit, gradients too, but that of a vector of length zero, which is as large as any other's."""
    raw = torch.randn(4, 5, 7, generator=generator())
    raw[0, 0] = 0.0
    raw[0, 1] *= 1e-9
    made = []
    for function in (cp._unit, lambda x: F.normalize(x, dim=-1)):
        leaf = raw.clone().requires_grad_()
        unit = function(leaf)
        unit.mul(torch.arange(7.0)).sum().backward()
        made.append((unit.detach(), leaf.grad))
    (unit, gradient), (torchs_unit, torchs_gradient) = made
    assert torch.equal(unit, torchs_unit)
    assert torch.equal(gradient[0, 0], torch.arange(7.0))
    assert torchs_gradient[0, 0].max() > 1e12
    gradient[0, 0] = torchs_gradient[0, 0]
    assert torch.equal(gradient, torchs_gradient)


def test_more_components_than_entries_is_an_error() -> None:
    assert cp.shapes(4, 6, 24)
    with pytest.raises(InputError, match="25 CP components"):
        cp.shapes(4, 6, 25)


def test_a_wrong_start_is_named() -> None:
    with pytest.raises(InputError, match="'ones'"):
        cp.init(generator(), 8, 8, 1, init="ones")
    with pytest.raises(InputError, match="raw_norm"):
        cp.init(generator(), 8, 8, 1, raw_norm=0.0)
    with pytest.raises(InputError, match=r"init_std = 0.1 is for init = 'normal'; with 'zero' CP's λ start at 0"):
        cp.init(generator(), 8, 8, 1, init_std=0.1)
    with pytest.raises(InputError, match=r"init_std, .* must be positive, not 0.0"):
        cp.init(generator(), 8, 8, 1, init="normal", init_std=0.0)


@pytest.mark.parametrize("given_modes", [(24, 25), (), (0, 576), (-24, -24)])
def test_modes_must_multiply_to_the_dimension(given_modes: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="576"):
        cp.modes(576, {576: given_modes})


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


def test_a_longer_raw_vector_turns_as_at_a_lower_rate() -> None:
    """One step of Adam on vectors twice as long turns them as half the rate does."""
    drawn = cp.init(generator(), 12, 18, 4, init="normal")
    target = torch.randn(12, 18, generator=generator(1))
    turned = []
    for length, rate in ((1.0, 1e-3), (2.0, 2e-3), (2.0, 1e-3)):
        params = {n: (t if n == "weight" else length * t).requires_grad_() for n, t in drawn.items()}
        raw = [tensor for name, tensor in params.items() if name != "weight"]
        start = [torch.nn.functional.normalize(tensor.detach(), dim=-1) for tensor in raw]
        up, down = cp.factors(params)
        (up @ down * target).sum().backward()
        torch.optim.Adam(raw, lr=rate, eps=1e-20).step()
        turned.append([torch.nn.functional.normalize(r.detach(), dim=-1) - s for r, s in zip(raw, start, strict=True)])
    for once, twice, slower in zip(*turned, strict=True):
        torch.testing.assert_close(twice, once, rtol=1e-2, atol=1e-5)
        torch.testing.assert_close(slower, once / 2, rtol=2e-2, atol=1e-5)


@pytest.mark.parametrize("components", [1, 2, 3])
def test_degrees_of_freedom(components: int) -> None:
    """193 stored scalars on 2048×2048 are 189 free ones; here 4·6 × 3·5: 18 + 1 stored, 15 free."""
    params = cp.init(generator(), 24, 15, components, init="normal")
    names = list(params)

    def update(*tensors: torch.Tensor) -> torch.Tensor:
        up, down = cp.factors(dict(zip(names, tensors, strict=True)))
        return up @ down

    jacobian = torch.autograd.functional.jacobian(update, tuple(t.double() for t in params.values()))
    flat = torch.cat([j.flatten(2).flatten(0, 1) for j in jacobian], 1)
    assert flat.shape[1] == counting.count("cp", [Projection("", 24, 15)], components) == 19 * components
    assert torch.linalg.matrix_rank(flat) == (19 - 4) * components


def test_with_zero_weights_only_they_get_a_gradient() -> None:
    params = {n: t.requires_grad_() for n, t in cp.init(generator(), 12, 18, 3).items()}
    up, down = cp.factors(params)
    assert not (up @ down).any()
    (up @ down * torch.randn(12, 18, generator=generator(1))).sum().backward()
    assert {n for n, t in params.items() if t.grad.abs().max() > 0} == {"weight"}


def test_the_weights_start_with_the_standard_deviation_asked_for() -> None:
    by_default = cp.init(generator(), 100, 100, 2000, init="normal")
    params = cp.init(generator(), 100, 100, 2000, init="normal", init_std=0.05)
    assert float(params["weight"].std()) == pytest.approx(0.05, rel=0.05)
    torch.testing.assert_close(params["weight"], 0.05 * 2000 * by_default["weight"])
    assert all(torch.equal(params[name], by_default[name]) for name in params if name != "weight")


def test_raw_vectors_have_the_length_asked_for() -> None:
    for length in (1.0, 0.3):
        params = cp.init(generator(), 12, 18, 3, raw_norm=length)
        for name, tensor in params.items():
            if name != "weight":
                torch.testing.assert_close(tensor.norm(dim=-1), torch.full((3,), length))
