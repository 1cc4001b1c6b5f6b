"""What students removed, from records whose divergences are set by hand."""

import dataclasses
import itertools
import math

import pandas as pd
import pytest

from cpadapt.analysis.cells import RunSetting, cells_of
from cpadapt.analysis.students import (
    choose_settings,
    differences,
    recovery,
    recovery_table,
    removals,
    smallest_to_reach,
)
from cpadapt.errors import InputError
from cpadapt.families.planted import Teacher
from cpadapt.measure import train
from cpadapt.records.config import Protocol
from cpadapt.records.record import Record
from cpadapt.study import FamilyPlan, Ladder, Study

TEACHERS = (Teacher("cp", 0.5, 4), Teacher("dense", 0.5, decay=0.5))
STUDY = Study(
    name="planted",
    backbone="tiny",
    tasks=("toy-entailment",),
    draws=(1, 2, 3),
    teachers=TEACHERS,
    ladder=Ladder(head=True, sizes={"cp": (1, 2), "lora": (1,)}),
    families={
        "cp": FamilyPlan(learning_rates=(1e-3,), scale=8.0),
        "lora": FamilyPlan(learning_rates=(1e-3,), scale=2.0),
    },
    protocol=Protocol(steps=1, eval_every=1, batch_size=1, train_cap=2, dev_cap=2, eval_cap=8, readout="verbalizer"),
)
LEFT = {
    # Divergences left on the three draws, out of 0.5.
    ("CP 4", "cp", 1): (0.25, 0.20, 0.30),
    ("CP 4", "cp", 2): (0.0, 0.01, 0.02),
    ("CP 4", "lora", 1): (0.1, 0.1, 0.1),
    ("dense, 1/k^0.5", "cp", 1): (0.6, 0.5, 0.4),
    ("dense, 1/k^0.5", "cp", 2): (0.3, 0.3, 0.3),
    ("dense, 1/k^0.5", "lora", 1): (0.2, 0.3, 0.4),
}


@pytest.fixture(scope="module")
def measured() -> list[Record]:
    return train(STUDY, quiet=True)


def with_divergence(record: Record, divergence: float, **changes: object) -> Record:
    assert record.outcome is not None
    assert record.dev is not None
    return dataclasses.replace(
        record,
        outcome=dataclasses.replace(record.outcome, divergence=divergence),
        dev=dataclasses.replace(record.dev, divergence=divergence / 2),
        **changes,
    )


@pytest.fixture(scope="module")
def records(measured: list[Record]) -> list[Record]:
    made = []
    for record in measured:
        config = record.config
        assert config.teacher is not None
        left = LEFT.get((config.teacher.title, record.label, config.size), (0.5, 0.5, 0.5))
        made.append(with_divergence(record, left[config.data_seed - 1]))
    return made


@pytest.mark.slow
def test_a_studys_runs_are_repeated_for_each_teacher(measured: list[Record]) -> None:
    assert len(measured) == 2 * 4 * 3 == len({record.id for record in measured})
    assert {record.config.teacher for record in measured} == set(TEACHERS)
    # Without training, a run is the backbone: its record is what the others start from.
    heads = [record for record in measured if record.label == "head"]
    assert len({record.outcome.divergence for record in heads if record.outcome}) == 6
    assert all(record.outcome.divergence > 1e-4 for record in heads if record.outcome)


def test_each_run_is_compared_with_the_backbone_on_its_draw(records: list[Record]) -> None:
    removed = removals(records)
    assert len(removed) == 18
    assert set(removed["before"]) == {0.5}
    (one,) = removed.query("teacher == 'CP 4' and label == 'cp' and size == 1 and draw == 2").to_dict("records")
    assert one["removed"] == pytest.approx(0.6)
    assert (one["task"], one["parameters"], one["scale"], one["diverged"]) == ("toy-entailment", 92, 8.0, False)
    pd.testing.assert_frame_equal(removals(records, on_dev=True)["removed"].to_frame(), removed["removed"].to_frame())
    assert set(removals(records, on_dev=True)["before"]) == {0.25}


def test_the_map_has_means_and_students_t_over_draws(records: list[Record]) -> None:
    found = recovery(removals(records))
    assert found[["teacher", "label", "size"]].to_numpy().tolist() == [
        ["CP 4", "cp", 1], ["CP 4", "cp", 2], ["CP 4", "lora", 1],
        ["dense, 1/k^0.5", "cp", 1], ["dense, 1/k^0.5", "cp", 2], ["dense, 1/k^0.5", "lora", 1],
    ]  # fmt: skip
    assert found["parameters"].tolist() == [92, 184, 224] * 2
    assert found["draws"].tolist() == [3] * 6
    assert found["mean"].tolist() == pytest.approx([0.5, 0.98, 0.8, 0.0, 0.4, 0.4])
    # 0.5, 0.6 and 0.4 with t = 4.3027 at two degrees of freedom: 0.1/√3 · 4.3027.
    assert found["high"][0] - 0.5 == 0.5 - found["low"][0] == pytest.approx(0.24842, abs=1e-5)
    assert (found["low"][2], found["high"][2]) == pytest.approx((0.8, 0.8))
    one_draw = recovery(removals([r for r in records if r.config.data_seed == 1]))
    assert one_draw["draws"].tolist() == [1] * 6
    assert one_draw[["low", "high"]].isna().all(axis=None)


def test_differences_are_taken_draw_by_draw(records: list[Record]) -> None:
    found = differences(removals(records), [(("cp", 2), ("lora", 1)), (("cp", 9), ("lora", 1))])
    assert found["teacher"].tolist() == ["CP 4", "dense, 1/k^0.5"]
    assert (found["first"][0], found["second"][0]) == (("cp", 2), ("lora", 1))
    assert found["mean"].tolist() == pytest.approx([0.18, 0.0])
    assert found["high"][1] == pytest.approx(0.2 / math.sqrt(3) * 4.30265, abs=1e-5)


def test_the_smallest_student_that_reaches_a_share(records: list[Record]) -> None:
    found = recovery(removals(records))
    near = smallest_to_reach(found, 0.75).set_index("teacher")
    assert near.loc["CP 4", ["cp", "lora"]].tolist() == [184, 224]
    assert near.loc["dense, 1/k^0.5", ["cp", "lora"]].isna().all()
    assert smallest_to_reach(found, 0.95)["lora"].isna().all()


def test_the_printed_table_has_a_row_a_student_in_the_order_of_their_budgets(records: list[Record]) -> None:
    found = recovery(removals(records))
    left = found[(found["teacher"] == "CP 4") | (found["size"] == 2)]
    assert recovery_table(left).to_dict("split", index=False) == {
        "columns": ["student", "scalars", "CP 4", "dense, 1/k^0.5"],
        "data": [
            ["CP 1", "92", "50 (25 to 75)", ""],
            ["CP 2", "184", "98 (93 to 103)", "40 (40 to 40)"],
            ["LoRA 1", "224", "80 (80 to 80)", ""],
        ],
    }
    one_draw = recovery(removals([r for r in records if r.config.data_seed == 1]))
    assert recovery_table(one_draw)["CP 4"].tolist() == ["50", "100", "80"]


def at(record: Record, rate: float, divergence: float, **changes: object) -> Record:
    return with_divergence(
        record, divergence, config=dataclasses.replace(record.config, learning_rate=rate), **changes
    )


def test_one_setting_is_chosen_for_all_teachers(records: list[Record]) -> None:
    by_rate = {1e-3: 0.3, 3e-3: 0.1, 1e-2: 0.2}
    heads = [record for record in records if record.label == "head"]
    runs = [record for record in records if record.label == "cp" and record.config.size == 1]
    tried = [at(run, rate, left) for run, (rate, left) in itertools.product(runs, by_rate.items())]
    chosen = {("cp", 1): RunSetting(3e-3, 8.0, 0)}
    assert choose_settings(removals([*heads, *tried], on_dev=True)) == chosen
    # One run that diverged rules a rate out; of equal ones the lower is taken.
    lost = [at(run, rate, 0.1, diverged_at=1 if rate == 1e-3 else None) for run in runs for rate in (1e-3, 3e-3, 1e-2)]
    assert choose_settings(removals([*heads, *lost], on_dev=True)) == chosen
    with pytest.raises(InputError, match="cp 1 was trained at several settings: give the runs of one"):
        recovery(removals([*heads, *tried]))


def test_a_run_that_was_never_judged_has_removed_nothing(records: list[Record]) -> None:
    lost = [
        dataclasses.replace(r, outcome=None, dev=None, best_step=None, diverged_at=1) if r.label == "lora" else r
        for r in records
    ]
    removed = removals(lost)
    assert removed[removed["label"] == "lora"][["removed", "diverged"]].drop_duplicates().to_numpy().tolist() == [
        [0.0, True]
    ]


def test_what_does_not_compare_is_refused(records: list[Record]) -> None:
    with pytest.raises(
        InputError, match=r"give the run of 'head' with its teacher \(CP 4\) on 'toy-entailment', data"
    ):
        removals([record for record in records if record.label != "head"])
    run = next(record for record in records if record.label == "cp")
    with pytest.raises(InputError, match="are the same cell, setting and draw"):
        removals([*records, run])
    labelled = dataclasses.replace(run, config=dataclasses.replace(run.config, teacher=None))
    with pytest.raises(InputError, match="of study 'planted' has no teacher"):
        removals([labelled])
    louder = dataclasses.replace(run, config=dataclasses.replace(run.config, teacher=Teacher("cp", 0.7, 4)))
    with pytest.raises(InputError, match=r"norm=0\.7.* and Teacher.*norm=0\.5.* are both called 'CP 4': give one"):
        removals([*records, louder])
    message = "cells are of runs that learn from one teacher, not of 3: CP 4, dense, 1/k"
    with pytest.raises(InputError, match=message):
        cells_of([*records, labelled])
