"""Numbers and pictures of the chapter on the CP adapter."""

from typing import Any

import numpy as np
import pytest
import torch

from companion import cp_adapter, quantities
from cpadapt.families import cp


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step.cp", 193), ("step.lora", 4096), ("stored.up_0", 32), ("stored.down_1", 64), ("stored.weight", 1),
        ("free", 31 + 63 + 31 + 63 + 1), ("free_lora", 4095), ("needed", 32 * 32), ("needed_scalars", 197_632),
        ("entries", 4_194_304), ("scale", 8),
    ],
)  # fmt: skip
def test_numbers_by_hand(name: str, value: float) -> None:
    assert quantities.value(f"cp_adapter.{name}").value == value


def test_a_rank_of_lokr_stores_one_scalar_less_than_a_component() -> None:
    assert cp_adapter.lokr(1, 2048)[1] == quantities.value("cp_adapter.step.cp").value - 1


def rows(chart: Any) -> list[list[dict[str, Any]]]:
    found = chart.to_dict()
    return list(found["datasets"].values())


def test_a_long_vector_is_the_product_of_two() -> None:
    first, second = torch.tensor([1.0, -2.0]), torch.tensor([1.0, 0.5, 2.0])
    (cells,) = rows(cp_adapter.product_chart(first, second))
    values = {
        name: [c["value"] for c in cells if c["vector"] == name] for name in dict.fromkeys(c["vector"] for c in cells)
    }
    assert list(values.values()) == [
        [0.5, 0.5, 0.5, -1, -1, -1],
        [0.5, 0.25, 1, 0.5, 0.25, 1],
        [0.25, 0.125, 0.5, -0.5, -0.25, -1],
    ]
    assert [c["x"] for c in cells[:6]] == [0, 1, 2, 3.5, 4.5, 5.5]


def test_blocks_of_one_component_repeat_a_pattern() -> None:
    found = rows(cp_adapter.block_chart(cp_adapter.drawn(cp, 24, 24, 8), shown=(1, 2, 8)))
    (titles,) = [data for data in found if "title" in data[0]]
    (cells,) = [data for data in found if "v" in data[0]]
    assert [row["title"] for row in titles] == ["c = 1, rank 1", "c = 2, rank 2", "c = 8, rank 8"]
    matrices = (
        np.array([cell["v"] for cell in cells]).reshape(3, 4, 6, 4, 6).transpose(0, 1, 3, 2, 4).reshape(3, 16, 36)
    )
    # Up to two digits, which is what is drawn.
    assert [int(np.linalg.matrix_rank(matrix, tol=0.2)) for matrix in matrices[:2]] == [1, 2]
