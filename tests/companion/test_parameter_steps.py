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


def test_ratios_of_single_projections() -> None:
    for m, n, _ in parameter_steps.SHAPES.values():
        assert parameter_steps.ratio(m, n) == pytest.approx((m + n) / cp_step(m, n))
    for split in parameter_steps.SPLITS.values():
        assert math.prod(split) == 2048
        assert parameter_steps.split_step(split) == 2 * sum(split) + 1


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
    assert value("parameter_steps.lokr_end_rank").value == 32
    assert value("parameter_steps.lokr_end").value == 32**2 + 64**2 == lokr(40, 2048, 2048) > lokr(31, 2048, 2048)
    assert lokr(40, 2048, 2048, factor=2) > 32**2 + 64**2
    assert value("parameter_steps.uneven_step").value == 4096 < value("parameter_steps.opt_step.cp").value


def test_what_a_budget_buys() -> None:
    value = quantities.value
    assert value("parameter_steps.shown_unspent.lora").value == 10_000 - 2 * 4096
    assert value("parameter_steps.shown_unspent.cp").value == 10_000 - 51 * 193
    assert value("parameter_steps.little_spent").value == 9 * 30 * (97 + 77)
    assert value("parameter_steps.opt_state.lora").value == 1.5
