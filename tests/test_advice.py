"""What to train for a task of one's own, and what the records of it advise."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest
from numpy.typing import NDArray

from cpadapt import InputError, Protocol, advice
from cpadapt.analysis.statistics import items_needed, seeds_needed
from cpadapt.records.record import Outcome, Record, pack_bitmap, pack_bytes
from cpadapt.records.store import load_records

ROOT = Path(__file__).parents[1]
ITEMS = 200
Bools = NDArray[np.bool_]


def test_the_first_sizes_are_the_most_telling() -> None:
    # A LoRA rank has 9,216 scalars and a CP component 972: nine components are the most below, three half-way.
    study = advice.plan("toy-sentiment", "minilm", 57)
    assert study.ladder.head
    assert study.ladder.sizes == {"cp": (1, 3, 9), "lora": (1, 4, 16)}
    assert study.draws == (0, 1, 2)
    assert study.families["lora"].learning_rates == pytest.approx((1e-3, 3e-3, 1e-2))
    assert study.families["cp"].learning_rates == pytest.approx((2e-3, 6e-3, 2e-2))
    assert advice.plan("toy-sentiment", "minilm", 30).ladder.sizes == {"cp": (1, 9), "lora": (1,)}
    # On `tiny` a rank has 224 and a component 92; half-way between one component and two is one.
    assert advice.plan("toy-sentiment", "tiny", 57).ladder.sizes == {"cp": (1, 2), "lora": (1, 4, 16)}


@pytest.mark.parametrize(
    ("runs", "sizes", "draws"), [(21, 2, 3), (29, 2, 4), (30, 3, 3), (56, 5, 3), (57, 6, 3), (75, 6, 3), (76, 6, 4)]
)
def test_a_plan_keeps_to_its_budget(runs: int, sizes: int, draws: int) -> None:
    study = advice.plan("toy-sentiment", "minilm", runs)
    assert sum(map(len, study.ladder.sizes.values())) == sizes
    assert len(study.draws) == draws
    assert draws * (1 + 3 * sizes) <= runs


def test_too_few_runs_are_refused_and_are_the_default_else() -> None:
    with pytest.raises(InputError, match=r"a budget of 20 runs is too small: 3 draws .* are 21"):
        advice.plan("toy-sentiment", "minilm", 20)
    assert advice.plan("toy-sentiment", "minilm") == advice.plan("toy-sentiment", "minilm", 21)


def test_more_draws_come_before_more_sizes_where_they_are_asked_for() -> None:
    study = advice.plan("toy-sentiment", "minilm", 70, draws=7)
    assert (len(study.draws), study.ladder.sizes) == (7, {"cp": (1, 9), "lora": (1,)})
    with pytest.raises(InputError, match=r"7 draws .* are 49"):
        advice.plan("toy-sentiment", "minilm", 48, draws=7)
    with pytest.raises(InputError, match=r"draws = 1: an interval takes 2 or more"):
        advice.plan("toy-sentiment", "minilm", draws=1)


def test_caps_fit_a_task_of_any_size(tmp_path: Path) -> None:
    assert advice.examples("toy-sentiment", 100_000) == {"dev_cap": 500, "train_cap": 3500}
    assert advice.examples("toy-sentiment", 480) == {"dev_cap": 500, "train_cap": 480}
    (tmp_path / "own.toml").write_text(
        'name = "own"\npath = "."\ntext_columns = ["text"]\nlabel_column = "y"\nlabels = [0, 1]\n'
        'label_names = ["no", "yes"]\n'
    )
    lines = [json.dumps({"text": f"text {k}", "y": k % 2}) + "\n" for k in range(42)]
    # One row twice, and one that eval has too: 40 distinct ones are left.
    (tmp_path / "train.jsonl").write_text("".join([*lines[:41], lines[0]]))
    (tmp_path / "validation.jsonl").write_text("".join(lines[40:]))
    assert advice.examples(str(tmp_path / "own.toml"), 1000) == {"dev_cap": 10, "train_cap": 30}


@pytest.fixture(scope="module")
def known() -> dict[str, Record]:
    """A measured run of each label, whose answers the tests replace."""
    return {record.label: record for record in load_records(ROOT / "results" / "small")}


def outcome(right: Bools) -> Outcome:
    return Outcome(
        correct=int(right.sum()),
        total=len(right),
        rows=len(right),
        drawn=pack_bitmap(range(len(right)), len(right)),
        labels=pack_bytes(np.arange(len(right)) % 2),
        margins=pack_bytes(np.where(right, 40, -40)),
    )


def made(base: Record, size: int, rate: float | None, draw: int, dev: Bools, judged: Bools) -> Record:
    """A run with these answers."""
    config = dataclasses.replace(base.config, size=size, learning_rate=rate, seed=draw, data_seed=draw)
    last = dataclasses.replace(base.evaluations[-1], dev_correct=int(dev.sum()), dev_total=len(dev))
    sets = {**base.data["sets"], "eval": {**base.data["sets"]["eval"], "majority_rate": 0.5}}
    return dataclasses.replace(
        base,
        id=f"{base.label} {size} {rate} {draw}",
        config=config,
        counts=dataclasses.replace(base.counts, adapter=1000 * size if base.label == "cp" else 9000 * size),
        evaluations=(*base.evaluations[:-1], last),
        best_step=last.step,
        outcome=outcome(judged),
        dev=outcome(dev),
        data={**base.data, "sets": sets},
        data_fingerprint=f"draw {draw}",
    )


def answers(errors: Sequence[int]) -> list[Bools]:
    """Three draws' answers, with the first so many items wrong, which move on by a few from draw to draw."""
    return [~((np.arange(ITEMS) - 3 * draw) % ITEMS < wrong) for draw, wrong in enumerate(errors)]


Cells = Mapping[tuple[str, int, float | None], tuple[Sequence[int], Sequence[int]]]
"""By label, size and rate, how many of 200 items each of three draws has wrong on dev and on eval."""


def records(known: dict[str, Record], cells: Cells) -> list[Record]:
    return [
        made(known[label], size, rate, draw, dev, judged)
        for (label, size, rate), (on_dev, on_eval) in cells.items()
        for draw, (dev, judged) in enumerate(zip(answers(on_dev), answers(on_eval), strict=True))
    ]


LADDER: Cells = {
    ("head", 0, None): ((70, 72, 71), (70, 71, 72)),
    ("cp", 1, 1e-2): ((40, 44, 41), (40, 42, 44)),
    ("cp", 1, 1e-3): ((60, 64, 61), (10, 10, 10)),
    ("cp", 9, 1e-2): ((21, 20, 19), (22, 24, 20)),
    ("lora", 1, 1e-2): ((20, 18, 21), (20, 21, 22)),
}


def test_dev_chooses_the_rate_and_the_size_and_eval_judges(known: dict[str, Record]) -> None:
    found = advice.advise(records(known, LADDER))
    assert [one.cell for one in found.judged] == [("head", 0), ("cp", 1), ("cp", 9), ("lora", 1)]
    by_cell = {one.cell: one for one in found.judged}
    # Not the rate with the better answers on eval.
    assert by_cell["cp", 1].setting.learning_rate == 1e-2
    assert by_cell["cp", 1].dev == pytest.approx(1 - (40 + 44 + 41) / 600)
    assert found.best.cell == ("lora", 1)
    assert found.plateau.cell == ("cp", 9)
    assert found.verdict == "adapter"
    assert found.gain.mean == pytest.approx((70 + 71 + 72 - 22 - 24 - 20) / 600)
    assert found.loss is not None
    assert found.loss.mean == pytest.approx((22 + 24 + 20 - 20 - 21 - 22) / 600)
    assert found.run.id == "cp 9 0.01 2"  # 19 wrong on dev
    assert str(found).startswith("Take CP 9, 9,000 scalars, at the rate 0.01. It gains 24.5 points (")
    assert ". LoRA 1, the best on dev, is not shown to be better: 0.5 points (−" in str(found)


def test_the_size_is_within_one_standard_error(known: dict[str, Record]) -> None:
    """The difference on dev and its error once more, by hand: each draw has its items, all three the same."""
    found = advice.advise(records(known, LADDER))
    behind = next(one.behind for one in found.judged if one.cell == ("cp", 9))
    assert behind is not None
    best, other = answers(LADDER["lora", 1, 1e-2][0]), answers(LADDER["cp", 9, 1e-2][0])
    values = np.array([a.astype(float) - b for a, b in zip(best, other, strict=True)])
    by_draw = [float(fmean(row)) for row in values]
    assert behind.mean == pytest.approx(fmean(by_draw))
    left = values - values.mean(1, keepdims=True)
    shared = fmean(fmean(left[a] * left[b]) for a, b in ((0, 1), (0, 2), (1, 2))) * ITEMS / (ITEMS - 1)
    assert behind.standard_error == pytest.approx(math.sqrt(stdev(by_draw) ** 2 / 3 + max(shared, 0) / ITEMS))
    assert 0 < behind.mean <= behind.standard_error


def test_eval_has_no_part_in_the_choice(known: dict[str, Record]) -> None:
    other = {cell: (dev, (1, 2, 3) if cell[0] == "head" else judged[::-1]) for cell, (dev, judged) in LADDER.items()}
    found, before = advice.advise(records(known, other)), advice.advise(records(known, LADDER))
    assert (found.best.cell, found.plateau.cell, found.run.id) == (
        before.best.cell, before.plateau.cell, before.run.id,
    )  # fmt: skip
    assert found.verdict == "head", "an adapter that is worse on eval is not advised"


def test_the_head_alone_is_as_good(known: dict[str, Record]) -> None:
    cells: Cells = {
        ("head", 0, None): ((30, 31, 30), (30, 31, 30)),
        ("cp", 1, 1e-2): ((30, 30, 31), (31, 30, 30)),
        ("lora", 1, 1e-2): ((31, 30, 30), (30, 30, 31)),
    }
    found = advice.advise(records(known, cells), margin=0.05)
    assert (found.plateau.cell, found.verdict) == (("head", 0), "head")
    assert found.adapter.cell[0] != "head", "an adapter is there to be taken all the same"
    assert str(found).startswith("The head alone is as good: ")
    assert advice.advise(records(known, cells), margin=1e-6).verdict == "too few"


@pytest.mark.parametrize(
    ("head", "cp", "needed"),
    [
        ((71, 67, 75), (70, 66, 74), "some {items:,} eval items"),  # an item more on each draw
        ((69, 75, 81), (66, 66, 66), "some {draws:,} draws"),  # the draws differ, and no number of items helps
        ((72, 68, 73), (70, 66, 74), "more draws and eval items"),  # neither alone is enough
        ((70, 66, 74), (72, 68, 73), "more draws and eval items"),
    ],
)
def test_too_few_items_say_what_would_do(
    head: Sequence[int], cp: Sequence[int], needed: str, known: dict[str, Record]
) -> None:
    few = {cell: (dev, head if cell[0] == "head" else cp) for cell, (dev, _) in LADDER.items()}
    found = advice.advise(records(known, few), margin=0.01)
    gain = found.gain
    assert found.verdict == "too few"
    assert gain.interval()[0] < 0 < 0.01 < gain.interval()[1]
    assert str(found).startswith(f"Too few items to tell: CP 9 gains {100 * gain.mean:.1f} points (".replace("-", "−"))
    numbers = {"items": items_needed(gain, gain.mean, 3) or 0, "draws": seeds_needed(gain, gain.mean) or 0}
    said = needed.format(**{name: int(float(f"{number:.1e}")) for name, number in numbers.items()})
    assert str(found).endswith(f" over the head alone. It would take {said} to show a gain of that size.")


def test_an_adapter_that_only_eval_shows_is_advised_too(known: dict[str, Record]) -> None:
    """Eval chose nothing, so what it shows of the adapter that dev took counts."""
    even = {cell: ((40, 41, 42), judged) for cell, (_, judged) in LADDER.items()}
    found = advice.advise(records(known, even))
    assert found.plateau.cell == found.best.cell == ("head", 0)
    assert found.verdict == "adapter"
    assert str(found).startswith("Take CP 1, 1,000 scalars, at the rate 0.001. It gains 30.5 points (")


def test_nothing_is_learned_where_the_commonest_answer_is_as_good(known: dict[str, Record]) -> None:
    chance = {cell: (dev, (95, 98, 102)) for cell, (dev, _) in LADDER.items()}
    found = advice.advise(records(known, chance))
    assert found.verdict == "nothing"
    assert "No adapter is shown to learn this task: the best, LoRA 1, is right on 50.8 % (" in str(found)
    assert str(found).endswith(" of eval, and the commonest answer on 50.0 %.")


def test_a_better_larger_size_is_named(known: dict[str, Record]) -> None:
    worse = {**LADDER, ("cp", 9, 1e-2): (LADDER["cp", 9, 1e-2][0], (50, 51, 52))}
    found = advice.advise(records(known, worse))
    assert found.verdict == "adapter"
    assert "LoRA 1 is better by 15.0 points (" in str(found)
    assert str(found).endswith("): take that if it fits.")


def test_runs_without_a_head_advise_nothing(known: dict[str, Record]) -> None:
    with pytest.raises(InputError, match="advice takes runs of the head alone and of an adapter"):
        advice.advise(r for r in records(known, LADDER) if r.label != "head")


def test_minutes_are_a_number_of_runs(known: dict[str, Record]) -> None:
    run = known["cp"]
    cost = dataclasses.replace(run.cost, bank_runs=10, train_seconds=30.0, evaluation_seconds=10.0)
    # Four seconds a run.
    assert advice.runs_within(2, [dataclasses.replace(run, cost=cost)] * 3) == 30


def test_the_protocol_is_the_callers() -> None:
    protocol = Protocol(steps=10, eval_every=5)
    assert advice.plan("toy-sentiment", "minilm", protocol=protocol).protocol == protocol


@pytest.mark.slow
def test_the_winners_luck_is_not_in_its_gain(known: dict[str, Record]) -> None:
    """Where all cells are right on 70 %, the adapter that dev takes looks better there, and not on eval."""
    rng = np.random.default_rng(0)
    on_dev, on_eval = [], []
    for _ in range(60):
        found = advice.advise(
            made(known[label], size, rate, draw, *(rng.random((2, ITEMS)) < 0.7))
            for label, size, rate in LADDER
            for draw in range(3)
        )
        on_dev.append(found.adapter.dev - found.judged[0].dev)
        on_eval.append(found.gain.mean)
    error = stdev(on_eval) / math.sqrt(len(on_eval))
    assert fmean(on_dev) > 4 * error
    assert abs(fmean(on_eval)) < 2 * error
