"""LoKr against PEFT's own module with the same scalars: its update, its count, its start, where it ends."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoKrConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn

from cpadapt import save_adapter
from cpadapt.errors import InputError
from cpadapt.families import counting, cp, lokr
from cpadapt.inputs.backbones.specs import Projection

SIDES = [(64, 64), (64, 36), (36, 96), (192, 576), (12, 12), (7, 36), (36, 7)]


def pefts(out_features: int, in_features: int, size: int, seed: int = 0) -> Any:
    """PEFT's layer, as it starts."""
    model = nn.Sequential(nn.Linear(in_features, out_features, bias=False))
    torch.manual_seed(seed)
    config = LoKrConfig(r=size, alpha=1.5 * size, decompose_both=True, target_modules=["0"])
    return get_peft_model(model, config).base_model.model[0]


def tensors(layer: Any) -> dict[str, Tensor]:
    """PEFT's tensors, by our names and in our shapes."""
    found = {}
    for name in ("w1_a", "w1_b", "w2_a", "w2_b"):
        tensor = getattr(layer, f"lokr_{name}")["default"].data
        found[name] = tensor.T if name.endswith("_a") else tensor
    return found


def fill(layer: Any, params: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors(layer).items():
        tensor.copy_(params[name])


def drawn(out_features: int, in_features: int, size: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(size)
    shapes = lokr.shapes(out_features, in_features, size)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


@pytest.mark.parametrize("sides", SIDES)
def test_the_update_and_the_count_are_pefts_at_every_size(sides: tuple[int, int]) -> None:
    for size in range(1, lokr.largest(*sides) + 1):
        layer, params = pefts(*sides, size).double(), drawn(*sides, size)
        fill(layer, params)
        up, down = lokr.factors(params)
        delta = layer.get_delta_weight("default").detach()
        torch.testing.assert_close(1.5 * up @ down, delta, rtol=1e-12, atol=1e-12)
        assert up.shape[1] == lokr.columns(size) == size**2
        # A matrix has at most the rank of its shorter side.
        (o1, o2), (i1, i2) = cp.nearest_square(sides[0]), cp.nearest_square(sides[1])
        assert torch.linalg.matrix_rank(delta) == min(size, o1, i1) * min(size, o2, i2)
        theirs = sum(p.numel() for p in layer.parameters() if p.requires_grad)
        assert counting.count("lokr", [Projection("", *sides)], size) == theirs


@pytest.mark.parametrize("sides", SIDES)
def test_it_ends_where_peft_stores_the_first_matrix_whole(sides: tuple[int, int]) -> None:
    most = lokr.largest(*sides)
    assert not pefts(*sides, most).lokr_w1
    assert pefts(*sides, most + 1).lokr_w1
    with pytest.raises(InputError, match=f"rank {most + 1} does not fit a {sides[0]}x{sides[1]}.*at most {most},"):
        lokr.shapes(*sides, most + 1)
    assert counting.largest_size("lokr", [Projection("", *sides)], 10**9) == most
    assert counting.step("lokr", [Projection("", *sides)], size=most) is None


def test_a_first_matrix_too_small_for_two_thin_ones_is_refused() -> None:
    for sides, first in (((7, 11), "1x1"), ((4, 6), "2x2"), ((2, 1), "1x1")):
        assert lokr.accepts(*sides) == f"its first Kronecker factor is {first}, too small to decompose"
        assert pefts(*sides, 1).lokr_w1
    assert lokr.accepts(9, 7) is None


def test_a_file_is_as_large_as_the_one_that_peft_saves(tmp_path: Path) -> None:
    """Llama-3.2-1B's q and v in one layer, of rank 3: 2048 = 32·64 and 512 = 16·32, so 3·192 + 3·144 scalars."""
    sides = {"q": (2048, 2048), "v": (512, 2048)}
    model = nn.ModuleDict({name: nn.Linear(into, out, bias=False) for name, (out, into) in sides.items()})
    config = LoKrConfig(r=3, alpha=6, decompose_both=True, target_modules=list(sides))
    get_peft_model(model, config).save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    projections = [Projection(name, *shape) for name, shape in sides.items()]
    held = sum(tensor.numel() * tensor.element_size() for tensor in saved.values())
    assert counting.file_bytes("lokr", projections, 3) == held == 4 * 3 * (192 + 144)
    # Sixteen such layers.
    assert counting.largest_size("lokr", projections * 16, 100_000, cost=counting.file_bytes) == 4
    # What is saved from a bank has the same tensors.
    params = {name: lokr.init(torch.Generator(), *shape, 3) for name, shape in sides.items()}
    folder = save_adapter(tmp_path / "bank", "lokr", 2.0, params)
    ours = load_file(folder / "adapter_model.safetensors")
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        name: tensor.shape for name, tensor in saved.items()
    }


def test_one_rank_is_one_component_of_cp() -> None:
    params = drawn(36, 96, 1)
    component = {"up_0": params["w1_a"], "up_1": params["w2_a"], "down_0": params["w1_b"], "down_1": params["w2_b"]}
    component["weight"] = torch.stack([tensor.norm() for tensor in params.values()]).prod()[None]
    (up, down), (cps_up, cps_down) = lokr.factors(params), cp.factors(component)
    torch.testing.assert_close(up @ down, cps_up @ cps_down, rtol=1e-12, atol=1e-12)


def test_it_is_drawn_as_peft_draws_it() -> None:
    """Number by number, in PEFT's order of the matrices; PEFT fills A₂ by its rows, which are our columns."""
    layer = pefts(192, 576, 5)
    torch.manual_seed(3)
    layer.reset_adapter_parameters("default")
    theirs, mine = tensors(layer), lokr.init(torch.Generator().manual_seed(3), 192, 576, 5)
    theirs["w2_a"] = theirs["w2_a"].T.reshape(mine["w2_a"].shape)
    for name, tensor in theirs.items():
        torch.testing.assert_close(mine[name], tensor)
