"""What the chapter on the protocol counts and says, by hand, from the study files and from the records."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import transformers

from companion import plan, protocol, quantities
from companion.claims import Verdict
from cpadapt import Protocol
from cpadapt.families import lora
from cpadapt.inputs.tasks.specs import TASKS
from cpadapt.records.record import Record
from cpadapt.records.store import load_records

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def records() -> Sequence[Record]:
    return load_records(ROOT / "results")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("all_fields", len(Protocol.__dataclass_fields__)), ("fields.paper", 6), ("steps.paper", 5000),
        ("rate.cp", 2e-4), ("rate.lora", 1e-4),
        # A rate that falls to 0 in equal parts.
        ("reach.paper", 2e-4 * 5001 / 2),
        ("excess", 100 * (43 * 193 / (2 * 4096) - 1)), ("excess_least", 100 * (85 * 193 / (4 * 4096) - 1)),
        ("rte_error", 100 * (0.75 * 0.25 / 277) ** 0.5),
    ],
)  # fmt: skip
def test_numbers_by_hand(name: str, value: float) -> None:
    assert quantities.value(f"protocol.{name}").value == pytest.approx(value)


def test_each_way_to_speak_of_a_difference_is_shown_once() -> None:
    """As the plan has it: by the 97 % interval and 0, and by half a point."""
    said = [protocol.said_of(example) for example in protocol.EXAMPLES]
    assert said == ["shown", "shown, below the margin", "equivalent", "open"]
    low, high = zip(*(example.interval(0.9706) for example in protocol.EXAMPLES), strict=True)
    assert low[0] > 0.005 > high[1] > low[1] > 0
    assert -0.005 < low[2] < 0 < high[2] < 0.005
    assert low[3] < 0 < 0.005 < high[3]


def test_all_words_are_explained() -> None:
    words = list(protocol.word_table()["word"])
    counts = {Verdict.NONE_LOST, Verdict.SOME_LOST}
    assert words == [*plan.Call, "clear", *(verdict for verdict in Verdict if verdict not in counts)]
    meanings = " ".join(protocol.word_table()["meaning"])
    assert all(level in meanings for level in ("97 %", "94 %", "95 %", "90 %"))


def test_every_field_is_explained() -> None:
    table = protocol.field_table()
    assert list(table["setting"]) == list(Protocol.__dataclass_fields__)
    assert all(len(said) > 10 and "\n" not in said for said in table["what it is"])


def test_what_the_main_study_changes() -> None:
    """Its file names these and the caps that are the default's."""
    table = protocol.field_table().set_index("setting")["main study"]
    changed = {"steps": "500", "eval_every": "250", "eval_cap": "2000", "rest_cap": "1000", "dtype": "bfloat16"}
    assert table[table != ""].to_dict() == changed
    assert quantities.value("protocol.changed").value == len(changed)
    boxes = protocol.design().data
    for said in (
        "1,000 training and 500 dev examples",
        "5,000 steps; 500 in the main",
        "to 2,000, and up to 1,000 rest",
    ):
        assert said in boxes


def test_the_papers_study_has_the_papers_precision_and_differs_in_nothing_else() -> None:
    mine, ours = protocol.PAPER.protocol, Protocol()
    assert [name for name in Protocol.__dataclass_fields__ if getattr(mine, name) != getattr(ours, name)] == ["dtype"]
    assert (mine.sources()["dtype"], ours.sources()["dtype"]) == ("paper", "ours")


def test_choices_are_mezos_or_the_trainers_or_said_to_be_ours() -> None:
    nearest, p = protocol.published()["nearest"], Protocol()
    assert [p.train_cap, p.dev_cap, p.eval_cap] == [nearest[f"{name}_cap"] for name in ("train", "dev", "eval")]
    assert p.batch_size == nearest["batch_size"]
    assert nearest["lora_alpha"] / nearest["lora_rank"] == lora.SCALE
    assert nearest["lora_learning_rate"] == lora.LEARNING_RATE
    # MeZO's SST-2, RTE and BoolQ, with our columns' names.
    assert TASKS["sst2"].prompt == "{sentence} It was"
    assert 'Does this mean that "{sentence2}" is true? Yes or No?' in TASKS["rte"].prompt
    assert TASKS["boolq"].prompt == "{passage} {question}?"
    trainers = {name: field.default for name, field in transformers.TrainingArguments.__dataclass_fields__.items()}
    assert trainers["lr_scheduler_type"] == p.schedule
    assert (trainers["weight_decay"], trainers["warmup_steps"]) == (p.weight_decay, p.warmup_steps)
    assert trainers["max_grad_norm"] == p.clip
    assert transformers.OPTConfig().dropout > 0, "which ours is not"


@pytest.mark.slow
def test_evaluation_sets_have_the_sizes_of_the_records(records: Sequence[Record]) -> None:
    for task in ("sst2", "rte"):
        rows = {r.outcome.rows for r in records if r.config.task == task and r.outcome}
        assert rows == {protocol.published()["validation"][task]}
    assert protocol.judged("boolq") == 1000
    (rte,) = [row for _, row in protocol.error_table().iterrows() if row["task"] == "RTE"]
    assert rte.tolist() == ["RTE", "277", "277", "3.0", "2.6", "1.3"]


@pytest.mark.slow
def test_runs_are_paired(records: Sequence[Record]) -> None:
    """Of one study, task and draw all are trained and judged on the same examples, whatever their family and seed."""
    shared: dict[tuple[str, str, int], set[tuple[str, str | None]]] = {}
    for r in records:
        place = r.study, r.config.task, r.config.data_seed
        shared.setdefault(place, set()).add((r.data_fingerprint, r.outcome.drawn if r.outcome else None))
    assert {len(kinds) for kinds in shared.values()} == {1}
    of_draws = {"smollm2-data-seeds", "smollm2-data-seeds-again"}
    assert of_draws <= {study for study, _, draw in shared if draw != 0}
    for study, task, draw in shared:
        if study in of_draws:
            assert shared[study, task, draw] == shared["smollm2-data-seeds", task, draw]
