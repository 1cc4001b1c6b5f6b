"""Counts by hand, and sizes at a budget for families whose steps are not all alike."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import toy_family
from safetensors.torch import load_file

from cpadapt import families, save_adapter
from cpadapt.errors import InputError
from cpadapt.families import FAMILIES, counting
from cpadapt.inputs.backbones.projections import load_projections
from cpadapt.inputs.backbones.specs import Projection


def square(side: int, times: int = 1) -> list[Projection]:
    return [Projection("", side, side)] * times


@pytest.mark.parametrize(
    ("family", "sides", "step"),
    [
        ("cp", (2048, 2048), 193),
        ("lora", (2048, 2048), 4096),
        ("cp", (576, 576), 97),
        ("cp", (192, 576), 77),
        ("lora", (576, 576), 1152),
        ("lora", (192, 576), 768),
        ("cp", (384, 384), 81),
        ("lora", (384, 384), 768),
        ("cp", (1009, 64), 1009 + 8 + 8 + 1),
        ("cp", (1, 64), 8 + 8 + 1),
        ("lora", (1, 64), 65),
        ("melora", (2048, 2048), 2048),
        ("melora", (192, 576), 384),
        ("symlora", (2048, 2048), 2049),
        ("symlora", (576, 576), 577),
        ("lokr", (2048, 2048), 192),
        ("lokr", (192, 576), 76),
        ("lokr", (384, 384), 80),
        ("lokr", (1009, 2048), 1 + 1009 + 32 + 64),
    ],
)
def test_steps_by_hand(family: str, sides: tuple[int, int], step: int) -> None:
    projections = [Projection("", *sides)]
    assert counting.step(family, projections) == counting.step(family, projections, size=5) == step
    assert counting.count(family, projections, 7) == 7 * step


def test_a_step_of_melora_is_a_share_of_loras_and_begins_at_loras_first_rank() -> None:
    options = {"minis": 32}
    assert counting.step("melora", square(2048), options) == counting.step("melora", square(2048), options, 45) == 128
    assert counting.count("melora", square(2048), 32, options) == counting.count("lora", square(2048), 1)
    assert counting.largest_size("melora", square(2048), 4095, options) == 0
    assert counting.largest_size("melora", square(2048), 4096 + 2 * 128 + 127, options) == 34


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
    assert counting.count(family, square(2048, 48), size) == scalars
    assert counting.largest_size(family, square(2048, 48), scalars) == size
    assert counting.largest_size(family, square(2048, 48), scalars - 1) == size - 1


def test_the_papers_adam_memory() -> None:
    def mib(family: str) -> float:
        return counting.step(family, square(2048, 48)) * counting.ADAM_BYTES_PER_SCALAR / 2**20

    assert round(mib("lora"), 2) == 1.50
    assert round(mib("cp"), 3) == 0.071


def made_of(shapes: Any) -> Any:
    return SimpleNamespace(
        shapes=shapes,
        accepts=lambda *sides: None,
        smallest=lambda: 1,
        columns=lambda size: size,
        SAVED_AS_TRAINED=True,
    )


def affine(out_features: int, in_features: int, size: int) -> dict[str, tuple[int, ...]]:
    """A core of 10 scalars that all units share."""
    return {"core": (10,), "rest": (size, 3)}


def in_jumps(out_features: int, in_features: int, size: int) -> dict[str, tuple[int, ...]]:
    """A unit is dearer from the fourth on."""
    return {"first": (size, 2), "later": (max(0, size - 3), 5)}


def ending(out_features: int, in_features: int, size: int) -> dict[str, tuple[int, ...]]:
    if size > 6:
        raise InputError("6 is the largest size")
    return {"all": (size, 4)}


@pytest.mark.parametrize("shapes", [affine, in_jumps, ending])
def test_the_largest_size_is_that_of_trying_all(shapes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "made", made_of(shapes))
    costs = [sum(map(math.prod, shapes(8, 8, size).values())) for size in range(1, 7)]
    for budget in range(costs[-1]):
        expected = sum(2 * cost <= budget for cost in costs)
        assert counting.largest_size("made", square(8, 2), budget) == expected
        offer = {offer.family: offer for offer in counting.plan(square(8, 2), budget)}["made"]
        spent = 2 * costs[expected - 1] if expected else 0
        assert (offer.size, offer.parameters, offer.unspent) == (expected, spent, budget - spent)


def test_steps_that_differ_are_those_of_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, shapes in (("affine", affine), ("jumps", in_jumps), ("ending", ending)):
        monkeypatch.setitem(FAMILIES, name, made_of(shapes))
    assert counting.step("affine", square(8)) == 3
    assert counting.step("affine", square(8), size=0) == 13
    assert [counting.step("jumps", square(8), size=k) for k in (1, 2, 3, 4)] == [2, 2, 7, 7]
    assert [counting.step("ending", square(8), size=k) for k in (5, 6)] == [4, None]
    assert counting.largest_size("ending", square(8), 10**9) == 6


def test_a_budget_in_bytes_buys_what_trying_all_sizes_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the file, where some families are the equal LoRA adapter, and of Adam's state."""
    monkeypatch.setitem(FAMILIES, "toy", toy_family)
    for cost, per_unit in (
        # 2 projections of 8×8; LoRA 16 scalars a rank; CP 2 + 4 + 2 + 4 + 1; the toy 2 columns a unit.
        (counting.file_bytes, {"lora": 4 * 2 * 16, "cp": 4 * 2 * 13, "toy": 4 * 2 * 2 * 16}),
        (counting.adam_bytes, {"lora": 8 * 2 * 16, "cp": 8 * 2 * 13, "toy": 8 * 2 * 16}),
    ):
        for budget in range(0, 800, 7):
            offers = {offer.family: offer for offer in counting.plan(square(8, 2), budget, cost)}
            for name, bytes_ in per_unit.items():
                assert offers[name].size == budget // bytes_, (cost, name, budget)
                assert (offers[name].unspent, offers[name].smallest_cost) == (budget % bytes_, bytes_)
    offer = {offer.family: offer for offer in counting.plan(square(8, 2), 1000, counting.file_bytes)}["toy"]
    assert (offer.size, offer.parameters, offer.file_bytes, offer.adam_bytes) == (3, 3 * 32, 3 * 256, 3 * 256)


@pytest.mark.parametrize("name", [*FAMILIES, "toy"])
@pytest.mark.parametrize("backbone", ["tiny-encoder", "minilm", "smollm2"])
def test_the_file_is_what_is_saved(name: str, backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tensors byte by byte; its header as long as the command says."""
    monkeypatch.setitem(FAMILIES, "toy", toy_family)
    projections = load_projections(backbone)
    if counting.refusal(name, projections):
        pytest.skip("it refuses a projection")
    size, source = counting.largest_size(name, projections, 60_000), torch.Generator()
    params = {p.name: FAMILIES[name].init(source, p.out_features, p.in_features, size) for p in projections}
    file = save_adapter(tmp_path / "saved", name, 1.0, params) / "adapter_model.safetensors"
    tensors = load_file(file)
    held = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    assert counting.file_bytes(name, projections, size) == held
    assert 115 < (file.stat().st_size - held) / len(tensors) < 145


def test_what_cannot_be_counted_is_named() -> None:
    with pytest.raises(InputError, match="not -1"):
        counting.largest_size("cp", square(8), -1)
    with pytest.raises(InputError, match="at least one projection"):
        counting.largest_size("cp", [], 5)
    with pytest.raises(InputError, match=r"splits 8 into \(3, 3\)"):
        counting.largest_size("cp", square(8), 100, {"tensor_shape": {8: (3, 3)}})
    with pytest.raises(
        InputError, match=r"'lorra' \(did you mean 'lora'\?\); known are " + ", ".join(sorted(FAMILIES))
    ):
        families.family("lorra")


def test_a_refusal_is_a_familys_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands in its row with the reason; the other rows are as without it."""
    oblong = [Projection("q", 12, 12), Projection("v", 6, 12)]
    monkeypatch.setattr(counting, "FAMILIES", {name: FAMILIES[name] for name in ("lora", "cp")})
    without = counting.rows(counting.plan(oblong, 100)), counting.step_rows(oblong[1])
    assert all("not applicable" not in row for rows in without for row in rows)
    counting.FAMILIES["toy"] = toy_family
    monkeypatch.setitem(FAMILIES, "toy", toy_family)
    for rows, before in zip(
        (counting.rows(counting.plan(oblong, 100)), counting.step_rows(oblong[1])), without, strict=True
    ):
        *others, toy = rows
        assert [{k: v for k, v in row.items() if k != "not applicable"} for row in others] == before
        assert {row["not applicable"] for row in others} == {None}
        assert toy["not applicable"] == "6x12: it is not square"
        assert {value for key, value in toy.items() if key not in ("family", "not applicable")} == {None}
    assert "not applicable" not in counting.step_rows(oblong[0])[-1]
