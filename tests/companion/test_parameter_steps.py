"""Parameter steps by hand: from the sides that models' papers give, and from quantiles."""

import math
from statistics import NormalDist

import pytest

from companion import parameter_steps, quantities

# Out and in features, a layer: queries, then values.
MODELS = {
    "minilm": 6 * [(384, 384), (384, 384)],
    "smollm2": 30 * [(576, 576), (192, 576)],
    "opt-125m": 12 * [(768, 768), (768, 768)],
    "opt-1.3b": 24 * [(2048, 2048), (2048, 2048)],
}
PARTS = {
    192: (12, 16), 384: (16, 24), 576: (24, 24), 768: (24, 32), 1024: (32, 32), 2048: (32, 64), 4096: (64, 64)
}  # fmt: skip
# The paper's grid on OPT-1.3B.
RANKS = [1, 2, 3, 4, 6, 8]
COMPONENTS = [1, 2, 4, 8, 16, 21, 28, 36, 43, 64, 85, 128, 171]


def cp_step(m: int, n: int) -> int:
    return sum(PARTS[m]) + sum(PARTS[n]) + 1


@pytest.mark.parametrize("model", MODELS)
def test_a_models_steps_are_sums_over_its_projections(model: str) -> None:
    on = parameter_steps.projections(model)
    assert len(on) == len(MODELS[model])
    assert parameter_steps.step("lora", on) == sum(m + n for m, n in MODELS[model])
    assert parameter_steps.step("cp", on) == sum(cp_step(m, n) for m, n in MODELS[model])


def test_splits_of_a_side() -> None:
    for split in parameter_steps.SPLITS.values():
        assert math.prod(split) == 2048
        assert parameter_steps.split_step(split) == 2 * sum(split) + 1


def test_steps_by_width() -> None:
    """LoRA's is twice the width; CP's is one more than twice the sum of the parts of a side."""
    found = parameter_steps.step_data().pivot_table(index="width", columns="family", values="step").astype(int)
    assert [found["LoRA"][width] for width in (256, 2048, 8192)] == [512, 4096, 16384]
    parts = {256: (16, 16), 768: (24, 32), 2048: (32, 64), 4096: (64, 64), 8192: (64, 128)}
    assert {width: found["CP"][width] for width in parts} == {w: 2 * sum(sides) + 1 for w, sides in parts.items()}


def test_sizes_between_ranks() -> None:
    """Multiples of 193 strictly between two of 4096."""
    for rank in range(8):
        assert parameter_steps.between(rank) == (4096 * (rank + 1) - 1) // 193 - 4096 * rank // 193


def test_the_best_of_several_by_quantiles() -> None:
    parts, quantile = 20_000, NormalDist().inv_cdf

    def best(points: int) -> float:
        return sum(quantile(((k + 0.5) / parts) ** (1 / points)) for k in range(parts)) / parts

    for points in (1, 2, 6, 12):
        assert parameter_steps.expected_best(points) == pytest.approx(best(points), abs=2e-4)
    assert {name: list(parameter_steps.GRID[name]) for name in ("lora", "cp")} == {"lora": RANKS, "cp": COMPONENTS}
    under = [sum(193 * c <= 4096 * rank for c in COMPONENTS) for rank in RANKS]
    assert [parameter_steps.under("cp", rank) for rank in RANKS] == under
    expected = best(under[-1]) - best(6)
    assert quantities.value("parameter_steps.ahead_by_chance.last").value == pytest.approx(expected, abs=3e-4)


def test_other_families_have_the_steps_that_are_said() -> None:
    """Finer than LoRA, not the finest; LoKr's row ends a little above LoRA's first rank, further by another factor."""
    value, lokr = quantities.value, parameter_steps.lokr_scalars
    assert value("parameter_steps.other_step.tinylora").value == value("parameter_steps.other_step.unilora").value == 1
    assert value("parameter_steps.other_step.lokr").value == 32 + 64 + 32 + 64
    # From rank 32 on both matrices are stored whole, of 32×32 and 64×64.
    assert value("parameter_steps.lokr_end").value == 32**2 + 64**2 == lokr(40, 2048, 2048) > lokr(31, 2048, 2048)
    assert lokr(40, 2048, 2048, factor=2) > 32**2 + 64**2
    assert value("parameter_steps.uneven_step").value == 4096 < value("parameter_steps.opt_step.cp").value


def test_what_a_step_costs_by_hand() -> None:
    """In Adam's two float32 moments, and in files of four bytes a scalar, beside OPT-1.3B's weights in two bytes."""
    value = quantities.value
    assert value("parameter_steps.opt_state.lora").value == 1.5
    assert value("parameter_steps.opt_files.lora").value == 1000 * 48 * 4096 * 4 / 2**20 == 750
    assert value("parameter_steps.opt_files.cp").value == 1000 * 48 * 193 * 4 / 2**20
    hidden, wide = 2048, 8192
    layer = 4 * (hidden**2 + hidden) + 2 * hidden * wide + wide + hidden + 4 * hidden
    embedded = (50272 + 2048 + 2) * hidden
    assert value("parameter_steps.opt_backbone").value == 2 * (embedded + 24 * layer + 2 * hidden) / 2**30


def test_the_table_of_costs_has_what_is_said() -> None:
    (row,) = [
        row
        for row in parameter_steps.cost_table().to_dict("records")
        if (row["model"], row["one step"]) == ("OPT-1.3B", "CP")
    ]
    assert [*row.values()][2:] == ["9,264", "0.071", "35.3"]


@pytest.mark.slow
def test_charts_have_what_they_describe() -> None:
    """LoRA's four high steps beside CP's many, and its three ranks beside LoKr's row, which ends above the first."""
    for chart, counts in (
        (parameter_steps.staircase_chart(), {"LoRA": 6, "CP": 86}),
        (parameter_steps.ladder_chart(), {"LoRA": 3, "LoKr": 32, "CP": 63}),
    ):
        rows = [row for data in chart.to_dict()["datasets"].values() for row in data if "size" in row]
        assert {name: sum(row["family"] == name for row in rows) for name in counts} == counts
