"""Cells of measured runs: what they hold, at which setting, and which of them compare."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from simulated import cell

from cpadapt.analysis.cells import (
    Cells,
    RunSetting,
    at_all_rates,
    cells_at,
    cells_of,
    choose_rates,
    family_rates,
    setting_of,
)
from cpadapt.analysis.frontier import frontier
from cpadapt.errors import InputError
from cpadapt.records.record import Record
from cpadapt.records.store import load_records
from cpadapt.records.table import tabulate

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pilot() -> list[Record]:
    records = load_records(ROOT / "results" / "smollm2-pilot")
    return [record for record in records if record.config.task == "sst2"]


def test_cells_are_read_at_one_rate(pilot: list[Record]) -> None:
    rates = {"lora": 1e-4, "cp": 2e-4}
    fixed = cells_of(pilot, rates)
    assert set(fixed.outcomes) == {("head", 0), ("lora", 1), ("lora", 4), *(("cp", size) for size in (1, 4, 11, 44))}
    for (label, size), found in fixed.outcomes.items():
        own = [
            r for r in pilot
            if (r.label, r.config.size, r.config.learning_rate) == (label, size, rates.get(label))
        ]  # fmt: skip
        assert len(own) == len(found.seeds) == 3
        assert found.right.mean() == pytest.approx(np.mean([r.outcome.accuracy for r in own if r.outcome]))
        assert {fixed.budgets[label, size]} == {r.counts.adapter for r in own}
    # At these rates alone.
    assert fixed.diverged == {"head": (0, 3), "lora": (0, 6), "cp": (0, 12)}


def test_a_rate_is_chosen_as_a_frontiers_is(pilot: list[Record]) -> None:
    tuned, best = cells_of(pilot), frontier(tabulate(pilot)[0])
    assert len(best) == len(tuned.outcomes)
    for row in best.itertuples():
        assert tuned.outcomes[row.label, row.size].right.mean() == pytest.approx(row.eval_mean)


def test_a_cell_with_fewer_rates_has_no_part_in_a_choice(pilot: list[Record]) -> None:
    poorer = [r for r in pilot if (r.label, r.config.size, r.config.learning_rate) != ("cp", 4, 2e-3)]
    assert ("cp", 4) not in {(r.label, r.config.size) for r in at_all_rates(poorer)}
    tuned = cells_of(poorer)
    assert set(tuned.outcomes) == {("head", 0), ("lora", 1), ("lora", 4), ("cp", 1), ("cp", 11), ("cp", 44)}
    assert tuned.diverged["cp"] == (0, 18)
    # Nor has one with fewer seeds at a rate.
    fewer = [r for r in pilot if (r.label, r.config.size, r.config.learning_rate, r.config.seed) != ("cp", 4, 2e-3, 1)]
    assert ("cp", 4) not in cells_of(fewer).outcomes
    # At one rate it is there.
    assert ("cp", 4) in cells_of(poorer, {"lora": 1e-4, "cp": 2e-4}).outcomes


def relabelled(record: Record, label: str, **changes: object) -> Record:
    return dataclasses.replace(record, label=label, config=dataclasses.replace(record.config, **changes))


def test_a_variants_rate_is_its_familys(pilot: list[Record]) -> None:
    variants = [relabelled(record, "cp-flat") for record in pilot if record.label == "cp"]
    fixed = cells_of([*pilot, *variants], {"lora": 1e-4, "cp": 2e-4})
    assert (fixed.outcomes["cp-flat", 11].right == fixed.outcomes["cp", 11].right).all()
    with pytest.raises(InputError, match=r"lora 1 has no run at the rate 0\.5, but at \[0\.0001, 0\.001\]"):
        cells_of(pilot, {"lora": 0.5, "cp": 2e-4})
    # Where there is one rate there is no choice.
    one = [record for record in pilot if record.config.learning_rate in (None, 1e-4, 2e-4)]
    assert cells_of(one, {"lora": 0.5}).outcomes.keys() == fixed.outcomes.keys() - {
        place for place in fixed.outcomes if place[0] == "cp-flat"
    }


def test_a_run_without_an_outcome_takes_its_cell_along_and_counts_as_diverged(pilot: list[Record]) -> None:
    lost = next(r for r in pilot if (r.label, r.config.size, r.config.learning_rate) == ("cp", 11, 2e-4))
    dead = dataclasses.replace(lost, outcome=None, best_step=None, evaluations=(), diverged_at=3)
    records = [dead if record is lost else record for record in pilot]
    fixed = cells_of(records, {"lora": 1e-4, "cp": 2e-4})
    assert ("cp", 11) not in fixed.outcomes
    assert fixed.diverged["cp"] == (1, 12)
    assert fixed.matched("lora", "cp") == [(1, 11), (4, 44)]
    # Where dev may choose, the rate at which none diverged is taken, and the run counts all the same.
    tuned = cells_of(records)
    assert ("cp", 11) in tuned.outcomes
    assert tuned.diverged["cp"] == (1, 24)


def test_runs_of_two_tasks_are_refused() -> None:
    records = load_records(ROOT / "results" / "smollm2-pilot")
    for gather in (cells_of, choose_rates, lambda both: cells_of(both, {"lora": 1e-4, "cp": 2e-4})):
        with pytest.raises(InputError, match="one backbone, task and protocol, not of 2"):
            gather(records)


def at_scale(records: list[Record], scale: float, gain: int) -> list[Record]:
    """CP's runs once more, at another scale and with so many more dev examples right."""
    return [
        dataclasses.replace(
            relabelled(record, "cp", scale=scale),
            evaluations=tuple(dataclasses.replace(e, dev_correct=e.dev_correct + gain) for e in record.evaluations),
            diverged_at=None,
        )
        for record in records
        if record.label == "cp"
    ]


@pytest.mark.parametrize(("gain", "scale"), [(20, 32.0), (-20, 8.0), (0, 8.0)])
def test_settings_of_one_rate_are_told_apart_by_scale(pilot: list[Record], gain: int, scale: float) -> None:
    """Of equals the lower scale."""
    both = [*at_scale(pilot, 32.0, gain), *pilot]
    chosen = choose_rates(both)
    assert {setting.scale for (label, _), setting in chosen.items() if label == "cp"} == {scale}
    tuned = cells_of(both)
    assert {setting.scale for setting in chosen.values()} == {None, 2.0, scale}
    assert tuned.diverged["cp"] == (0, 48), "at both scales and both rates"
    assert len(tuned.outcomes["cp", 11].seeds) == 3
    # One that was tried at one scale had less of a choice.
    poorer = [r for r in both if (r.label, r.config.size, r.config.scale) != ("cp", 4, 32.0)]
    assert ("cp", 4) not in {(r.label, r.config.size) for r in at_all_rates(poorer)}
    # A family's rate alone leaves it open which scale is meant.
    with pytest.raises(InputError, match=r"cp \d+ has runs at several settings with rate 0\.0002"):
        family_rates(both, {"lora": 1e-4, "cp": 2e-4})


def test_a_runs_warm_up_tells_settings_apart_too(pilot: list[Record]) -> None:
    protocols = pilot[0].config.protocol.warmup_steps
    assert setting_of(pilot[0]).warmup_steps == protocols
    longer = [relabelled(record, record.label, warmup_steps=50) for record in pilot if record.label == "lora"]
    assert {setting_of(record).warmup_steps for record in longer} == {50}
    assert choose_rates([*pilot, *longer])["lora", 1].warmup_steps == protocols, "of equals the shorter"


def test_cells_are_of_the_settings_that_are_given(pilot: list[Record]) -> None:
    setting = RunSetting(1e-3, 2.0, pilot[0].config.protocol.warmup_steps)
    alone = cells_at(pilot, {("lora", 1): setting})
    assert list(alone.outcomes) == [("lora", 1)]
    assert alone.diverged == {"lora": (0, 6)}, "of both rates"
    assert (
        alone.outcomes["lora", 1].right == cells_of(pilot, {"lora": 1e-3, "cp": 2e-3}).outcomes["lora", 1].right
    ).all()
    with pytest.raises(InputError, match=r"lora 1 has no run at rate 0\.5, scale 2\.0 and warm-up 0"):
        cells_at(pilot, {("lora", 1): setting._replace(learning_rate=0.5)})
    assert cells_of([]) == Cells({}, {}, {}, 0.0)


def test_balanced_accuracy_is_that_of_the_records(pilot: list[Record]) -> None:
    """Which each record counts by itself, from its own items and classes."""
    cells = cells_of(pilot)
    at = choose_rates(pilot)
    for place, outcomes in cells.outcomes.items():
        runs = [r for r in pilot if (r.label, r.config.size) == place and setting_of(r) == at[place]]
        by_seed = {r.config.seed: r.outcome.balanced_accuracy for r in runs if r.outcome}
        wanted = [by_seed[seed] for seed, _ in outcomes.seeds]
        assert cells.balanced(place).mean(1).tolist() == pytest.approx(wanted)


def test_runs_that_give_one_class_are_counted() -> None:
    """Item by item, of three classes: one answer throughout, whichever it is, and none by chance as often right."""
    classes = [0, 1, 2, 1, 0, 1]
    answers = [[1] * 6, [2] * 6, [1, 1, 1, 1, 1, 0], classes, [2, 0, 1, 0, 1, 2]]
    right = [[float(answer == true) for answer, true in zip(run, classes, strict=True)] for run in answers]
    made = Cells({("a", 1): 9}, {("a", 1): cell(right)}, {}, 0.5, dict(enumerate(classes)))
    assert made.collapsed(("a", 1)) == sum(len(set(run)) == 1 for run in answers) == 2
    assert dataclasses.replace(made, classes=None).collapsed(("a", 1)) == 0


def test_what_matches_and_what_is_between() -> None:
    budgets = {("a", 1): 1000, ("a", 2): 2000, ("a", 3): 3000} | {("b", k): 97 * k for k in (5, 10, 12, 15, 20, 25)}
    cells = Cells(budgets, {}, {}, 0.5)
    assert cells.sizes("b") == [5, 10, 12, 15, 20, 25]
    assert cells.matched("a", "b") == [(1, 10), (2, 20)], "within one in twenty"
    assert cells.matched("b", "a") == [(10, 1), (20, 2)]
    assert (cells.nearest(("a", 3), "b"), cells.nearest(("a", 1), "c")) == (None, None)
    assert cells.sizes_between(("a", 1), ("a", 2), "b") == [12, 15]
    assert cells.sizes_between(("b", 5), ("b", 25), "a") == [1, 2]
