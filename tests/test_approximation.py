"""The nearest adapters: what is exactly CP or low rank is found, and nothing is nearer than can be."""

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import Tensor

from cpadapt.approximation import (
    CPTensors,
    bounds,
    fits,
    nearest_adapters,
    nearest_cp,
    spectra,
    unreachable,
    updates_of,
)
from cpadapt.errors import InputError
from cpadapt.families import FAMILIES, counting
from cpadapt.inputs.backbones.specs import Projection

pytestmark = pytest.mark.slow

MODULES = {"a.q_proj": (24, 24), "a.v_proj": (12, 24), "b.q_proj": (24, 24), "b.v_proj": (12, 24), "b.o_proj": (7, 24)}
"""Of one side a prime, which is a single mode."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def planted(modes: tuple[int, ...], components: int, tensors: int = 3, seed: int = 0) -> Tensor:
    factors = tuple(normal(tensors, components, mode, seed=seed + m) for m, mode in enumerate(modes))
    return CPTensors(torch.ones(tensors, components, dtype=torch.float64), factors).dense()


def relative(near: Tensor, tensors: Tensor) -> Tensor:
    return (near - tensors).flatten(1).norm(dim=1) / tensors.flatten(1).norm(dim=1)


def adapter_of(name: str, size: int, seed: int = 0) -> dict[str, dict[str, Tensor]]:
    source = seeded(seed)
    return {
        module: FAMILIES[name].init(source, out, inp, size, init="normal") for module, (out, inp) in MODULES.items()
    }


def test_components_are_a_sum_of_outer_products() -> None:
    weights, (a, b, c) = normal(2, 3), (normal(2, 3, mode, seed=mode) for mode in (4, 5, 6))
    expected = torch.einsum("ts,tsi,tsj,tsk->tijk", weights, a, b, c)
    torch.testing.assert_close(CPTensors(weights, (a, b, c)).dense(), expected)


@pytest.mark.parametrize("modes", [(9, 8), (10, 10, 10), (6, 7, 8, 5), (4, 3, 5, 2, 6)])
def test_exact_components_are_found(modes: tuple[int, ...]) -> None:
    tensors = planted(modes, 3)
    found = nearest_cp(tensors, 3, generator=seeded(1), restarts=4, tolerance=1e-14)
    assert relative(found.dense(), tensors).max() < 1e-6
    for factor in found.factors:
        torch.testing.assert_close(factor.norm(dim=-1), torch.ones(3, 3, dtype=torch.float64))
    if len(modes) > 2:
        # CP is unique here, and the parts themselves come back: each planted vector is one of those found.
        planted_first = normal(3, 3, modes[0])
        cosines = planted_first / planted_first.norm(dim=-1, keepdim=True) @ found.factors[0].mT
        assert cosines.abs().amax(-1).min() > 1 - 1e-6


def test_of_two_modes_it_is_eckart_and_youngs() -> None:
    matrices = normal(3, 9, 14)
    left = torch.linalg.svdvals(matrices)[:, 4:].norm(dim=1) / matrices.flatten(1).norm(dim=1)
    found = nearest_cp(matrices, 4, generator=seeded(1), sweeps=3000, tolerance=1e-15)
    torch.testing.assert_close(relative(found.dense(), matrices), left, rtol=1e-6, atol=0)
    torch.testing.assert_close(unreachable(spectra(matrices), 4), left)


def test_a_general_minimiser_finds_nothing_nearer() -> None:
    """scipy's, on all vectors at once, from eight starts."""
    tensor, components = normal(1, 4, 3, 5), 2
    shapes = [(components, mode) for mode in tensor.shape[1:]]
    cuts = np.cumsum([np.prod(shape) for shape in shapes])[:-1]

    def squared_error(x: np.ndarray) -> float:
        a, b, c = (part.reshape(shape) for part, shape in zip(np.split(x, cuts), shapes, strict=True))
        return float(np.sum((np.einsum("si,sj,sk->ijk", a, b, c) - tensor[0].numpy()) ** 2))

    starts = np.random.default_rng(0).normal(size=(8, sum(map(np.prod, shapes))))
    best = min(optimize.minimize(squared_error, start).fun for start in starts)
    found = nearest_cp(tensor, components, generator=seeded(1), restarts=8, tolerance=1e-12)
    assert float((found.dense() - tensor).square().sum()) == pytest.approx(best, rel=1e-5)


def test_no_search_passes_the_bound_and_on_a_planted_tensor_it_is_zero() -> None:
    tensors = normal(4, 6, 4, 4, 6)
    for components in (1, 5, 20):
        near = nearest_cp(tensors, components, generator=seeded(1)).dense()
        assert (relative(near, tensors) >= unreachable(spectra(tensors), components)).all()
    assert len(spectra(tensors)) == 7
    exact = spectra(planted((6, 4, 4, 6), 3))
    assert unreachable(exact, 3).max() < 1e-7
    assert unreachable(exact, 2).min() > 0.05


def test_a_matrix_of_rank_one_is_as_many_components_as_its_two_vectors_have_products() -> None:
    """Both vectors, read as matrices, have singular values s and t; the best c components are the c largest s·t."""
    u, v = normal(12), normal(24, seed=1)
    products = torch.outer(torch.linalg.svdvals(u.view(3, 4)), torch.linalg.svdvals(v.view(4, 6))).flatten()
    left = products.sort(descending=True).values[5:].norm() / products.norm()
    tensor = torch.outer(u, v).view(1, 3, 4, 4, 6)
    found = nearest_cp(tensor, 5, generator=seeded(2), restarts=8, sweeps=2000, tolerance=1e-12)
    assert float(relative(found.dense(), tensor)) == pytest.approx(float(left), rel=1e-4)
    assert float(unreachable(spectra(tensor), 5)) == pytest.approx(float(left))


def test_more_starts_are_never_worse_and_a_given_start_counts() -> None:
    tensors = normal(5, 4, 4, 4)
    once = nearest_cp(tensors, 6, generator=seeded(1), restarts=1)
    again = nearest_cp(tensors, 6, generator=seeded(2), restarts=3, start=once)
    assert (relative(again.dense(), tensors) <= relative(once.dense(), tensors) + 1e-9).all()
    zero = nearest_cp(torch.zeros(1, 3, 3), 2, generator=seeded())
    assert not zero.dense().any()


def test_wrong_requests_are_refused() -> None:
    with pytest.raises(InputError, match="positive integer, not 0"):
        nearest_cp(normal(1, 3, 3), 0, generator=seeded())
    with pytest.raises(InputError, match="two modes or more, not 1"):
        nearest_cp(normal(2, 3), 1, generator=seeded())
    with pytest.raises(InputError, match="no start"):
        nearest_cp(normal(1, 3, 3), 1, generator=seeded(), restarts=0)
    updates = updates_of("lora", adapter_of("lora", 1), 1.0)
    with pytest.raises(InputError, match="known for cp and lora, not for 'head'"):
        nearest_adapters("head", [updates], 1, 1.0, generator=seeded())
    with pytest.raises(InputError, match="same modules"):
        nearest_adapters("cp", [updates, {}], 1, 1.0, generator=seeded())


@pytest.mark.parametrize(("name", "scale"), [("cp", 8.0), ("lora", 2.0)])
def test_an_adapter_comes_back_from_its_updates(name: str, scale: float) -> None:
    """From several at once, on projections of several shapes; the pair is another, and the update the same."""
    given = [updates_of(name, adapter_of(name, 2, seed), scale) for seed in range(2)]
    for updates, adapter in zip(
        given, nearest_adapters(name, given, 2, scale, generator=seeded(5), restarts=6), strict=True
    ):
        assert list(adapter) == list(MODULES)
        for module, (out, inp) in MODULES.items():
            shapes = FAMILIES[name].shapes(out, inp, 2)
            assert {key: tuple(tensor.shape) for key, tensor in adapter[module].items()} == shapes
        for fit in fits(name, updates, adapter, scale):
            assert fit.error < 1e-4, fit
            projection = Projection(fit.module, *MODULES[fit.module])
            assert (fit.size, fit.scalars) == (2, counting.count(name, [projection], 2))


def test_low_rank_is_eckart_and_youngs_in_any_shape_and_shared_equally() -> None:
    updates = {module: normal(out, inp, seed=k) for k, (module, (out, inp)) in enumerate(MODULES.items())}
    (adapter,) = nearest_adapters("lora", [updates], 9, 2.0, generator=seeded())
    for fit in fits("lora", updates, adapter, 2.0):
        values = torch.linalg.svdvals(updates[fit.module])
        left = float(values[9:].norm() / values.norm())
        assert fit.error == pytest.approx(left, rel=1e-5, abs=1e-6)
        assert fit.spread is None
        up, down = adapter[fit.module]["up"], adapter[fit.module]["down"]
        torch.testing.assert_close(up.norm(dim=1), down.norm(dim=1), rtol=1e-5, atol=1e-6)


def test_what_fits_and_bounds_say_of_cp() -> None:
    updates = {module: normal(out, inp, seed=k) for k, (module, (out, inp)) in enumerate(MODULES.items())}
    known = bounds(updates, (1, 4))
    for size in (1, 4):
        (adapter,) = nearest_adapters("cp", [updates], size, 8.0, generator=seeded())
        for fit in fits("cp", updates, adapter, 8.0):
            assert known[fit.module][size] <= fit.error < 1
            assert fit.spread == pytest.approx(
                8 * float(adapter[fit.module]["weight"].norm() / updates[fit.module].norm()), rel=1e-5
            )
            # One component is a projection: what it holds and what it leaves are the two sides of a right angle.
            if size == 1:
                assert fit.spread is not None
                assert fit.error**2 + fit.spread**2 == pytest.approx(1, abs=1e-4)
