"""Paired differences between like cells, on cells whose truth is known."""

import dataclasses

import numpy as np
import pytest
from simulated import Simulation, cell

from companion import contrasts
from companion.wording import bounds, signed
from cpadapt.analysis.cells import Cells
from cpadapt.analysis.statistics import Estimate, Outcomes, compare, holm
from cpadapt.errors import InputError
from cpadapt.records.record import Record

BUDGETS = {("head", 0): 0, ("lora", 1): 1000, ("cp", 1): 90, ("cp", 11): 990, ("cp", 22): 1980}


def made(budgets: dict[tuple[str, int], int] | None = None, first: int = 0) -> Cells:
    budgets = BUDGETS if budgets is None else budgets
    drawn = Simulation(4, 300).draw(np.random.default_rng(first), len(budgets) * [0.8])
    return Cells(budgets, dict(zip(budgets, drawn, strict=True)), {}, 0.5)


def differences(found: list[contrasts.Contrast]) -> dict[str, Estimate]:
    return {contrast.what: contrast.estimate for contrast in found}


def test_families_are_compared_at_matched_budgets() -> None:
    cells = made()
    found = contrasts.families(cells, "mine")
    assert [c.group for c in found] == ["mine"]
    assert differences(found) == {"LoRA 1 − CP 11": compare(cells.outcomes["lora", 1], cells.outcomes["cp", 11])}


def test_pairs_are_compared_in_their_order() -> None:
    cells, wanted = made(), [(("cp", 1), ("head", 0)), (("lora", 1), ("cp", 22)), (("cp", 44), ("cp", 1))]
    # There is no cell of 44 components, so its pair is left out.
    assert [(c.group, c.what, c.estimate) for c in contrasts.pairs(cells, wanted, "mine")] == [
        ("mine", "CP 1 − head only", compare(cells.outcomes["cp", 1], cells.outcomes["head", 0])),
        ("mine", "LoRA 1 − CP 22", compare(cells.outcomes["lora", 1], cells.outcomes["cp", 22])),
    ]


def test_cells_without_outcomes_are_left_out() -> None:
    cells = made(BUDGETS | {("cp-8x8x9", 20): 1000})
    part = dataclasses.replace(
        cells, outcomes={place: cells.outcomes[place] for place in cells.outcomes if place != ("cp", 11)}
    )
    assert contrasts.families(part, "mine") == contrasts.splits(part, "mine") == []


def test_a_split_is_compared_with_the_default_at_the_nearest_budget() -> None:
    cells = made(BUDGETS | {("cp-8x8x9", 20): 1000, ("cp-8x8x9", 80): 4000, ("cp-12x48", 19): 1990})
    found = differences(contrasts.splits(cells, "mine"))
    # 4000 is near to none, so it is left out.
    assert found == {
        "12·48, 19 − CP 22": compare(cells.outcomes["cp-12x48", 19], cells.outcomes["cp", 22]),
        "8·8·9, 20 − CP 11": compare(cells.outcomes["cp-8x8x9", 20], cells.outcomes["cp", 11]),
    }


def test_a_frame_corrects_within_each_group_and_a_table_words_it() -> None:
    one, other = made(), made(first=1)
    found = [
        contrasts.Contrast(group, f"{a} − {b}", compare(cells.outcomes[a], cells.outcomes[b]))
        for group, cells in (("one", one), ("other", other))
        for a, b in ((("cp", 1), ("lora", 1)), (("cp", 11), ("head", 0)))
    ]
    table = contrasts.frame(found)
    p = [c.estimate.p_value() for c in found]
    assert table["holm"].tolist() == holm(p[:2]) + holm(p[2:])
    assert table["p_alike"].tolist() == [c.estimate.equivalence_p_value(0.01) for c in found]
    shown = contrasts.contrast_table(table, "task", "pair").to_dict("records")
    assert list(shown[0]) == ["task", "pair", "seeds", "points", "95 % interval", "Holm", "p (equivalence)"]
    for row, contrast in zip(shown, found, strict=True):
        low, high = contrast.estimate.interval()
        assert (row["task"], row["pair"], row["seeds"]) == (contrast.group, contrast.what, 4)
        assert row["points"] == signed(contrast.estimate.mean, 2)
        assert row["95 % interval"] == bounds((low, high), 2)


def difference(mean: float, error: float) -> contrasts.Contrast:
    known = Estimate(
        mean=mean, standard_error=error, degrees=100.0, seeds=3, items=100, seed_variance=0.0, item_variance=0.0,
        rest_variance=1.0,
    )  # fmt: skip
    return contrasts.Contrast("", "", known)


def test_pooled_differences_weigh_their_errors_and_their_spread() -> None:
    alike = contrasts.pooled([difference(0.0099, 0.002), difference(0.01, 0.002), difference(0.0101, 0.002)])
    assert (alike.mean, alike.spread) == (pytest.approx(0.01), 0.0)
    reach = 4.302653 * 0.002 / 3**0.5  # no narrower than errors alone have it
    assert alike.interval == (pytest.approx(0.01 - reach), pytest.approx(0.01 + reach))
    # Where errors are nothing beside the spread it is a mean and a standard deviation.
    apart = contrasts.pooled([difference(mean, 1e-5) for mean in (0.00, 0.01, 0.05)])
    assert apart.mean == pytest.approx(0.02, rel=1e-3)
    assert apart.spread == pytest.approx(np.std([0.00, 0.01, 0.05], ddof=1), rel=1e-3)
    assert contrasts.pooled([difference(0.00, 0.001), difference(0.01, 0.1)]).mean < 0.003
    with pytest.raises(InputError, match="1 differences"):
        contrasts.pooled([difference(0.01, 0.1)])


def test_pooled_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    held = []
    for _ in range(600):
        errors = rng.uniform(0.002, 0.006, 7)
        found = contrasts.pooled([difference(rng.normal(0.008 + rng.normal(0, 0.004), e), e) for e in errors])
        held.append(found.interval[0] < 0.008 < found.interval[1])
    assert 0.93 < np.mean(held) < 0.985


@pytest.mark.slow
def test_lora_is_ahead_at_its_first_rank_over_tasks_and_backbones_and_not_seen_to_be_above_it() -> None:
    first = contrasts.first_rank(("smollm2-seeds", "smollm2-seeds-boolq", "minilm"))
    above = contrasts.further_ranks("minilm")
    assert {place: contrast.what for place, contrast in first.items()} == {
        **dict.fromkeys([("smollm2", task) for task in ("sst2", "rte", "boolq")], "LoRA 1 − CP 11"),
        **dict.fromkeys([("minilm", task) for task in ("sst2", "sick", "mrpc", "boolq")], "LoRA 1 − CP 9"),
    }
    found = contrasts.pooled(list(first.values()))
    assert 100 * found.mean == pytest.approx(0.80, abs=0.03)
    assert 0.002 < found.interval[0] < 0.004
    assert 0.003 < found.spread < 0.005
    assert [c.what for c in above] == ["SST-2", "SICK", "MRPC"]
    low, high = contrasts.pooled(above).interval
    assert low < 0 < high
    assert 100 * contrasts.pooled(above).mean == pytest.approx(-0.14, abs=0.02)


def test_what_is_not_on_record_has_no_cells() -> None:
    assert contrasts.cells_on_record(("paper",), "sst2").outcomes == {}
    some = contrasts.cells_on_record(("smollm2-seeds",), "sst2", seeds=range(3))
    assert {outcomes.seeds for outcomes in some.outcomes.values()} == {((0, 0), (1, 0), (2, 0))}
    assert contrasts.cells_on_record(("smollm2-seeds",), "sst2", seeds=[1000]).outcomes == {}


def test_runs_that_some_cell_has_not_are_left_out() -> None:
    whole = [r for r in contrasts.on_record(("smollm2-rates",)) if r.config.task == "sst2"]
    seeds = {r.config.seed for r in whole}
    assert contrasts.shared(whole) == whole

    def lost(record: Record) -> bool:
        """One run at one of a cell's rates."""
        c = record.config
        return (record.label, c.size, c.learning_rate, c.seed) == ("lora", 1, 1e-3, 2)

    part = [r for r in whole if not lost(r)]
    assert len(part) == len(whole) - 1
    assert contrasts.shared(part) == [r for r in whole if r.config.seed in seeds - {2}]
    assert contrasts.shared([]) == []


def test_runs_that_are_all_right_differ_in_nothing() -> None:
    """A table without variation has an interval of no width, and the chance that all agree as its p value."""
    same: Outcomes = cell(np.ones((3, 100)))
    (found,) = contrasts.families(
        Cells({("lora", 1): 10, ("cp", 1): 10}, {("lora", 1): same, ("cp", 1): same}, {}, 0.5), "x"
    )
    table = contrasts.frame([found])
    assert (table["low"].item(), table["high"].item()) == (0, 0)
    assert table["p_alike"].item() == pytest.approx(0.99**100)


def test_two_runs_on_each_draw_count_as_one() -> None:
    def on_draws(right: object, seed: int) -> Outcomes:
        outcomes = cell(right)
        return dataclasses.replace(outcomes, seeds=tuple((seed, draw) for draw in range(len(outcomes.seeds))))

    def cells(right: object, seed: int) -> Cells:
        return Cells({("cp", 1): 90}, {("cp", 1): on_draws(right, seed)}, {}, 0.5)

    first, other = cells([[1, 0], [1, 1]], 0), cells([[1, 1], [0, 0]], 1)
    mean = contrasts.mean_of(first, other)
    assert mean.outcomes["cp", 1].right.tolist() == [[1, 0.5], [0.5, 0.5]]
    assert (mean.budgets, mean.outcomes["cp", 1].seeds) == (first.budgets, first.outcomes["cp", 1].seeds)
    with pytest.raises(InputError, match="CP 1 do not have the same draws"):
        contrasts.mean_of(first, cells([[1, 1]], 1))
    with pytest.raises(InputError, match=r"both have \(seed, data seed\) = \(0, 0\) of CP 1"):
        contrasts.mean_of(first, first)
    with pytest.raises(InputError, match="CP 1 do not have the same draws and items"):
        contrasts.mean_of(first, cells([[1, 1, 0], [0, 0, 1]], 1))
    with pytest.raises(InputError, match="only one of the two has CP 1"):
        contrasts.mean_of(first, dataclasses.replace(other, outcomes={}))
