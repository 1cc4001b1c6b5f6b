"""What is planted has the structure that it claims, seen from the matrix alone."""

import numpy as np
import pytest
import torch

from cpadapt.errors import InputError
from cpadapt.families import cp
from cpadapt.families.planted import Teacher

OUT, IN = 24, 48
WEIGHT = np.random.default_rng(9).standard_normal((OUT, IN))


def drawn(teacher: Teacher, seed: int = 0, position: int = 0) -> np.ndarray:
    return teacher.update(seed, position, WEIGHT)


KINDS = [
    Teacher("cp", 0.5, 1),
    Teacher("cp", 0.5, 4),
    Teacher("lora", 0.5, 2),
    Teacher("melora", 0.5, 8, minis=4),
    Teacher("dense", 0.5),
    Teacher("dense", 0.5, decay=1.0),
]


@pytest.mark.parametrize("teacher", KINDS, ids=str)
def test_an_update_has_its_norm_and_follows_from_its_seed_and_place(teacher: Teacher) -> None:
    update = drawn(teacher)
    assert np.linalg.norm(update) == pytest.approx(0.5 * np.linalg.norm(WEIGHT))
    np.testing.assert_array_equal(update, drawn(teacher))
    for other in (drawn(teacher, seed=1), drawn(teacher, position=1)):
        # Random directions in a space of 24·48 dimensions are nearly orthogonal, those of block diagonals less so.
        assert abs((update * other).sum()) < 0.3 * (update * update).sum()


@pytest.mark.parametrize("size", [1, 3])
def test_a_cp_update_has_as_many_components_in_every_direction_of_the_tensor(size: int) -> None:
    tensor = drawn(Teacher("cp", 1.0, size)).reshape(*cp.modes(OUT), *cp.modes(IN))
    assert tensor.shape == (4, 6, 6, 8)
    for mode in range(4):
        unfolded = np.moveaxis(tensor, mode, 0).reshape(tensor.shape[mode], -1)
        assert np.linalg.matrix_rank(unfolded) == size


def test_the_components_of_a_cp_update_weigh_alike() -> None:
    # Side by side they are nearly orthogonal, so the singular values are about their weights.
    values = np.linalg.svd(drawn(Teacher("cp", 1.0, 4)), compute_uv=False)[:4]
    assert values.max() < 3 * values.min()


def test_lora_and_melora_have_their_ranks_in_their_places() -> None:
    assert np.linalg.matrix_rank(drawn(Teacher("lora", 1.0, 2))) == 2
    update = drawn(Teacher("melora", 1.0, 8, minis=4))
    assert np.linalg.matrix_rank(update) == 8
    inside = np.kron(np.eye(4), np.ones((OUT // 4, IN // 4))) > 0
    assert not update[~inside].any()
    assert update[inside].all()
    for k in range(4):
        assert np.linalg.matrix_rank(update[6 * k : 6 * k + 6, 12 * k : 12 * k + 12]) == 2


@pytest.mark.parametrize("decay", [0.0, 0.5, 2.0])
def test_the_spectrum_of_a_dense_update_falls_as_it_says(decay: float) -> None:
    values = np.linalg.svd(drawn(Teacher("dense", 1.0, decay=decay)), compute_uv=False)
    np.testing.assert_allclose(values / values[0], np.arange(1, OUT + 1.0) ** -decay, atol=1e-12)


def test_a_student_of_the_same_seed_does_not_start_at_what_is_planted() -> None:
    params = cp.init(torch.Generator().manual_seed(3), OUT, IN, 1, init="normal")
    up, down = cp.factors(params)
    start, update = (up @ down).numpy(), drawn(Teacher("cp", 1.0, 1), seed=3)
    assert abs((start * update).sum()) < 0.3 * np.linalg.norm(start) * np.linalg.norm(update)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"family": "lorra", "size": 1},
            r"unknown planted update 'lorra' \(did you mean 'lora'\?\); known are cp,",
        ),
        ({"family": "cp"}, "size = 0 of a planted 'cp': must be a positive integer"),
        ({"family": "dense", "size": 2}, "size = 2 of a planted 'dense': must be 0"),
        ({"family": "lora", "size": 1, "norm": 0.0}, "norm = 0.0 of a planted 'lora': must be positive"),
        ({"family": "lora", "size": 2, "minis": 2}, "minis = 2 of a planted 'lora': must be 1"),
        ({"family": "melora", "size": 2}, "minis = 1 of a planted 'melora': must be 2 or more"),
        (
            {"family": "melora", "size": 3, "minis": 2},
            "size = 3 of a planted 'melora': must be a multiple of minis = 2",
        ),
        ({"family": "cp", "size": 1, "decay": 1.0}, "decay = 1.0 of a planted 'cp': must be 0"),
        ({"family": "dense", "decay": -1.0}, "decay = -1.0 of a planted 'dense': must be 0 or positive"),
    ],
)
def test_what_cannot_be_planted_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Teacher(**{"norm": 1.0, **fields})  # type: ignore[arg-type]


def test_blocks_that_do_not_fit_a_projection_are_refused() -> None:
    with pytest.raises(
        InputError, match="minis = 5 of a planted 'melora': must divide both sides of a 24x48 projection"
    ):
        drawn(Teacher("melora", 1.0, 5, minis=5))
