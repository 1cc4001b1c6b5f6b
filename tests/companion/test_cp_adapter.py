"""Numbers and pictures of the page on the CP adapter."""

import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoKrConfig, get_peft_model
from torch import nn

from companion import cp_adapter, quantities
from cpadapt.families import cp


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step.cp", 193), ("step.lora", 4096), ("free", 31 + 63 + 31 + 63 + 1), ("free_lora", 4095),
        ("needed", 32 * 32), ("needed_scalars", 197_632), ("scale", 8),
    ],
)  # fmt: skip
def test_numbers_by_hand(name: str, value: float) -> None:
    assert quantities.value(f"cp_adapter.{name}").value == value


def test_how_many_components_a_rank_needs() -> None:
    """Ordered by blocks against places within one, a component has rank one, and a drawn outer product 4·4."""
    outer = torch.outer(*torch.randn(2, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    components = [cp_adapter.update(cp, cp_adapter.drawn(cp, 24, 24, size)) for size in (1, 2)]
    ranks = [
        int(torch.linalg.matrix_rank(matrix.reshape(4, 6, 4, 6).permute(0, 2, 1, 3).reshape(16, 36)))
        for matrix in (*components, outer)
    ]
    assert ranks == [1, 2, 16]


def test_under_a_steady_pull_a_weight_reaches_the_sum_of_the_rates() -> None:
    """However strong the pull is."""
    steps = int(quantities.value("protocol.steps.paper").value)
    weights = torch.zeros(2, requires_grad=True)
    weights.grad = torch.tensor([-0.01, -100.0])
    optimizer = torch.optim.Adam([weights], lr=float(quantities.value("protocol.rate.cp").value))
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    for _ in range(steps):
        optimizer.step()
        decay.step()
    assert weights.tolist() == pytest.approx([quantities.value("protocol.reach.paper").value] * 2, rel=1e-3)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_lokr_makes_rank_times_rank_components(rank: int) -> None:
    config = LoKrConfig(r=rank, alpha=rank, decompose_both=True, init_weights=False, target_modules=["0"])
    torch.manual_seed(0)
    layer = get_peft_model(nn.Sequential(nn.Linear(384, 384, bias=False)), config).base_model.model[0].double()
    assert int(torch.linalg.matrix_rank(layer.get_delta_weight("default").detach())) == rank**2


def rows(chart: Any) -> list[list[dict[str, Any]]]:
    found = chart.to_dict()
    return list(found["datasets"].values())


def test_blocks_of_one_component_repeat_a_pattern() -> None:
    found = rows(cp_adapter.block_chart(cp_adapter.stepper_params(), shown=(1, 2, 8)))
    (titles,) = [data for data in found if "title" in data[0]]
    (cells,) = [data for data in found if "v" in data[0]]
    assert [row["title"] for row in titles] == ["c = 1, rank 1", "c = 2, rank 2", "c = 8, rank 8"]
    matrices = (
        np.array([cell["v"] for cell in cells]).reshape(3, 4, 6, 4, 6).transpose(0, 1, 3, 2, 4).reshape(3, 16, 36)
    )
    # Up to two digits, which is what is drawn.
    assert [int(np.linalg.matrix_rank(matrix, tol=0.2)) for matrix in matrices[:2]] == [1, 2]


def test_the_still_stepper_shows_its_first_component() -> None:
    html = cp_adapter.stepper().data
    (data,) = (json.loads(found) for found in re.findall(r"<script[^>]*>(.*?)</script>", html))
    params, first = cp_adapter.stepper_params(), data["components"][0]
    for name, tensor in params.items():
        values = [component[name] for component in data["components"]]
        assert torch.tensor(values).flatten().tolist() == pytest.approx(tensor.flatten().tolist())
    assert data["steps"] == {"cp": 4 + 6 + 4 + 6 + 1, "lora": 24 + 24}
    matrix = cp_adapter.update(cp, {name: tensor[:1] for name, tensor in params.items()})
    (cells,) = re.findall(r'data-cells="matrix">(.*?)</g>', html)
    drawn = [
        float(root) ** 2 * (-1 if sign == "minus" else 1)
        for sign, root in re.findall(r'class="(\w+)" fill-opacity="([\d.]+)"', cells)
    ]
    expected = (matrix / matrix.abs().max()).flatten()
    torch.testing.assert_close(torch.tensor(drawn).double(), expected, rtol=0, atol=1.1e-3)
    assert expected.abs().min() > 0.005, "all blocks show"
    assert [float(value) for value in re.findall(r'<input[^>]* value="([-\d.]+)"', html)] == pytest.approx(
        [value for values in first.values() for value in values]
    )
    assert html.count("<fieldset disabled") == 5


def test_what_merging_and_exporting_change() -> None:
    """Nothing but rounding, nothing at all, and much below the number of components."""
    found = dict(cp_adapter.difference_table().itertuples(index=False))
    apart = {name: float(text) for name, text in found.items()}
    assert apart["exported by to_lora, rank 4"] == 0
    assert apart["merged"] < 2e-5
    assert apart["PEFT's convert_to_lora, rank 4"] < 2e-5
    assert min(apart["without the adapter"], apart["PEFT's convert_to_lora, rank 3"]) > 0.02
