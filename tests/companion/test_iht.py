"""Tensor iterative hard thresholding recovers what it should, and its committed curves are those of its code."""

import json

import pytest
import tensor_iht
import torch

from companion.iht import complete, recover
from cpadapt.errors import InputError

pytestmark = pytest.mark.slow

RECORD = json.loads(tensor_iht.RESULT.read_text(encoding="utf-8"))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def curve(completion: bool, components: int, measured: float, noise: float = 0.0) -> tensor_iht.Curve:
    return tensor_iht.Curve("", completion, components, measured, noise, 60)


@pytest.mark.parametrize("completion", [False, True])
@pytest.mark.long
def test_a_tensor_comes_back_from_enough_of_it_and_not_from_less_than_it_has_freedom(completion: bool) -> None:
    """Two components of a 10×10×10 tensor have 56 degrees of freedom."""
    enough = tensor_iht.relative_errors(curve(completion, 2, 0.7), 4)
    assert enough[:, -1].max() < 1e-3
    assert (enough[:, -1] < enough[:, 4]).all()
    assert tensor_iht.relative_errors(curve(completion, 2, 0.03), 4)[:, -1].min() > 0.3


def test_what_is_found_has_so_many_components_and_agrees_with_what_was_measured() -> None:
    asked = curve(False, 2, 0.7)
    truth, operator, measured = (part[None] for part in tensor_iht.draw(asked, 0))
    found = recover(measured, operator, truth, 2, 60, seeded())
    dense = found.components.dense()
    for mode in range(1, 4):
        assert torch.linalg.matrix_rank(dense[0].movedim(mode - 1, 0).flatten(1), rtol=1e-8) == 2
    torch.testing.assert_close((operator @ dense.flatten(1)[..., None])[..., 0], measured, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.errors[:, -1], (dense - truth).flatten(1).norm(dim=1))


def test_only_known_entries_are_read() -> None:
    truth, known, entries = (part[None] for part in tensor_iht.draw(curve(True, 2, 0.5), 1))
    hidden = torch.where(known, entries, 1e6)
    ends = [complete(given, known, truth, 2, 10, seeded()).errors for given in (entries, hidden)]
    torch.testing.assert_close(*ends)
    assert known.sum() == 500


def test_noise_bounds_what_is_found() -> None:
    """With the factors of all modes but one known, least squares would leave an error of the noise's size."""
    exact, noisy = (tensor_iht.relative_errors(curve(False, 2, 0.5, noise), 2)[:, -1] for noise in (0.0, 1.0))
    assert exact.max() < 1e-4
    assert noisy.min() > 10 * exact.max()


def test_wrong_requests_are_refused() -> None:
    truth = torch.zeros(1, 2, 2, 2, dtype=torch.float64)
    with pytest.raises(InputError, match="don't measure tensors of 8 entries"):
        recover(torch.zeros(1, 3), torch.zeros(1, 3, 9), truth, 1, 1, seeded())
    with pytest.raises(InputError, match="1 or more"):
        complete(truth, truth == 0, truth, 1, 0, seeded())


def test_the_quick_profile_makes_every_curve_of_the_record() -> None:
    quick = list(tensor_iht.simulated(seeds=2, most=4))
    keys = ("setup", "components", "measured", "noise")
    assert [[made[key] for key in keys] for made in quick] == [
        [kept[key] for key in keys] for kept in RECORD["curves"]
    ]
    assert all(made["iterations"] == [1, 4] and len(made["last"]) == 2 for made in quick)


@pytest.mark.parametrize("number", [1, 5, 9, 13])
def test_the_record_is_of_this_code(number: int) -> None:
    """A few seeds lie about the committed band, one curve of every set-up."""
    asked, kept = tensor_iht.CURVES[number], RECORD["curves"][number]
    again = tensor_iht.relative_errors(asked, 8, 12).median(0).values
    low, _, high = (line[kept["iterations"].index(12)] for line in kept["band"])
    assert low <= float(again[11]) <= high
    assert len(kept["last"]) == RECORD["seeds"] == tensor_iht.SEEDS
