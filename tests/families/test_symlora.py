"""SymLoRA against Q diag(Λ) Qᵀ in float64, and its start."""

import math

import pytest
import torch

from cpadapt.errors import InputError
from cpadapt.families import counting, symlora
from cpadapt.inputs.backbones.specs import Projection


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("size", [1, 3, 9])
def test_the_update_is_that_of_its_spectral_form(size: int) -> None:
    shapes = symlora.shapes(9, 9, size)
    params = {name: torch.randn(shape, generator=generator(), dtype=torch.float64) for name, shape in shapes.items()}
    q, values = params["basis"].numpy().T, params["weight"].numpy()
    up, down = symlora.factors(params)
    expected = sum(values[s] * q[:, s, None] * q[None, :, s] for s in range(size))
    torch.testing.assert_close(up @ down, torch.from_numpy(expected), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(up @ down, (up @ down).T, rtol=1e-13, atol=1e-13)


def test_with_orthonormal_columns_its_weights_are_the_eigenvalues() -> None:
    basis = torch.linalg.qr(torch.randn(12, 4, generator=generator(), dtype=torch.float64)).Q.T
    weight = torch.tensor([-2.0, 0.5, 1.0, 3.0], dtype=torch.float64)
    up, down = symlora.factors({"basis": basis, "weight": weight})
    eigenvalues = torch.linalg.eigvalsh(up @ down)
    torch.testing.assert_close(eigenvalues[eigenvalues.abs() > 1e-9], weight, rtol=1e-12, atol=1e-12)


def test_it_starts_as_a_no_op_from_which_the_weights_alone_learn_at_first() -> None:
    params = {name: tensor.requires_grad_() for name, tensor in symlora.init(generator(), 64, 64, 5).items()}
    torch.testing.assert_close(params["basis"].norm(dim=1), torch.ones(5), rtol=0.25, atol=0)
    up, down = symlora.factors(params)
    assert not (up @ down).any()
    (up @ down).mul(torch.randn(64, 64, generator=generator())).sum().backward()
    assert params["weight"].grad.abs().min() > 0
    assert not params["basis"].grad.any()


def test_entries_are_drawn_with_variance_one_over_the_side() -> None:
    assert symlora.init(generator(), 400, 400, 50)["basis"].std().item() == pytest.approx(1 / math.sqrt(400), rel=0.02)


def test_a_projection_that_is_not_square_is_refused() -> None:
    assert symlora.accepts(12, 12) is None
    with pytest.raises(InputError, match="family 'symlora' cannot adapt a projection of 6x12: it is not square"):
        counting.count("symlora", [Projection("q", 12, 12), Projection("v", 6, 12)], 1)
