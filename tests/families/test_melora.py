"""MELoRA against a dense loop over its blocks, and its start."""

import math
from typing import Any

import pytest
import torch

from cpadapt.errors import InputError
from cpadapt.families import counting, lora, melora
from cpadapt.inputs.backbones.specs import Projection


def drawn(out_features: int, in_features: int, size: int, minis: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(size)
    shapes = melora.shapes(out_features, in_features, size, minis=minis)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


@pytest.mark.parametrize(("out_features", "in_features"), [(12, 12), (12, 24), (24, 12)])
@pytest.mark.parametrize(
    ("minis", "size", "ranks"),
    [
        (1, 3, [3]), (2, 2, [1, 1]), (2, 3, [2, 1]), (3, 6, [2, 2, 2]), (3, 7, [3, 2, 2]), (3, 8, [3, 3, 2]),
        (4, 4, [1, 1, 1, 1]), (4, 11, [3, 3, 3, 2]),
    ],
)  # fmt: skip
def test_the_update_is_block_diagonal(
    out_features: int, in_features: int, minis: int, size: int, ranks: list[int]
) -> None:
    """Each mini is filled in by itself, entry by entry, from the units that are dealt to it."""
    params = drawn(out_features, in_features, size, minis)
    expected = torch.zeros(out_features, in_features, dtype=torch.float64)
    rows, columns = out_features // minis, in_features // minis
    dealt = [[unit for unit in range(size) if unit % minis == mini] for mini in range(minis)]
    assert [len(units) for units in dealt] == ranks
    for mini, units in enumerate(dealt):
        for row in range(rows):
            for column in range(columns):
                entry = sum(params["up"][unit, row] * params["down"][unit, column] for unit in units)
                expected[mini * rows + row, mini * columns + column] = entry
    up, down = melora.factors(params, minis=minis)
    assert (up.shape, down.shape) == ((out_features, size), (size, in_features))
    torch.testing.assert_close(up @ down, expected, rtol=1e-13, atol=1e-13)
    blocks = [up[mini * rows : (mini + 1) * rows] @ down for mini in range(minis)]
    assert [int(torch.linalg.matrix_rank(block)) for block in blocks] == [min(r, rows, columns) for r in ranks]
    # Only units train: as many entries of the pair are not zero as scalars are counted.
    projection = [Projection("", out_features, in_features)]
    assert (up != 0).sum() + (down != 0).sum() == counting.count("melora", projection, size, {"minis": minis})


def test_with_one_mini_it_is_lora() -> None:
    params = drawn(8, 12, 3, 1)
    for mine, theirs in zip(melora.factors(params, minis=1), lora.factors(params), strict=True):
        assert torch.equal(mine, theirs)


def test_minis_are_drawn_as_lora_on_their_slices_is() -> None:
    mine = melora.init(torch.Generator().manual_seed(5), 32, 1600, 50, minis=4)
    theirs = lora.init(torch.Generator().manual_seed(5), 8, 400, 50)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert mine["down"].abs().max() > 0.99 / math.sqrt(400)


@pytest.mark.parametrize(("sides", "minis"), [((12, 18), 4), ((9, 12), 2), ((1, 64), 2)])
def test_sides_that_the_minis_do_not_divide_are_refused(sides: tuple[int, int], minis: int) -> None:
    assert melora.accepts(*sides, minis=minis) == f"{minis} minis do not divide both sides"
    with pytest.raises(InputError, match=f"{sides[0]}x{sides[1]}: {minis} minis do not divide both sides"):
        counting.count("melora", [Projection("", *sides)], minis, {"minis": minis})


def test_a_size_without_a_rank_for_each_mini_is_refused() -> None:
    with pytest.raises(InputError, match="must be 8 or more for 8 minis, not 7"):
        melora.shapes(64, 64, 7, minis=8)


@pytest.mark.parametrize("minis", [0, -1, 2.0, "2", True])
def test_a_wrong_number_of_minis_is_named(minis: Any) -> None:
    for asked in (
        lambda: melora.accepts(8, 8, minis=minis),
        lambda: melora.smallest(minis=minis),
        lambda: melora.shapes(8, 8, 8, minis=minis),
        lambda: counting.largest_size("melora", [Projection("", 8, 8)], 100, {"minis": minis}),
    ):
        with pytest.raises(InputError, match=f"minis.* must be a positive integer, not {minis!r}$"):
            asked()
