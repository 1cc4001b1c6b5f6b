"""What the chapter on the protocol counts and says, by hand, from the study files and from the records."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import transformers

from companion import protocol, quantities
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
        ("steps.pilot", 500), ("rate.cp", 2e-4), ("rate.lora", 1e-4),
        # A rate that falls to 0 in equal parts.
        ("reach.paper", 2e-4 * 5001 / 2), ("reach.pilot", 2e-3 * 501 / 2), ("head_rate", 1e-3),
        ("excess", 100 * (43 * 193 / (2 * 4096) - 1)), ("excess_least", 100 * (85 * 193 / (4 * 4096) - 1)),
        ("sizes.cp", 13), ("sizes.lora", 6), ("nearest_caps", "1000/500/1000"), ("nearest.batch_size", 8),
        ("nearest.lora_alpha", 16), ("nearest.lora_rank", 8), ("rte_error", 100 * (0.75 * 0.25 / 277) ** 0.5),
    ],
)  # fmt: skip
def test_numbers_by_hand(name: str, value: float | str) -> None:
    found = quantities.value(f"protocol.{name}").value
    assert found == (value if isinstance(value, str) else pytest.approx(value))


def test_head_and_step_are_those_that_the_runs_had(records: Sequence[Record]) -> None:
    (head,) = {r.counts.head for r in records if r.study == "smollm2-pilot"}
    (step,) = {r.counts.step for r in records if r.study == "smollm2-pilot" and r.label == "cp"}
    assert quantities.value("protocol.head_scalars").value == head
    assert quantities.value("protocol.cp_step").value == step


def test_every_field_is_explained() -> None:
    table = protocol.field_table()
    assert list(table["field"]) == list(Protocol.__dataclass_fields__)
    assert all(len(said) > 10 and "\n" not in said for said in table["what it is"])


def test_the_grids_are_those_of_the_studies() -> None:
    grids = protocol.grid_table().set_index("")
    for title, study in zip(grids, protocol.STUDIES.values(), strict=True):
        written: dict[str, Any] = tomllib.loads((ROOT / "studies" / f"{study}.toml").read_text())
        sizes, pairs = written["ladder"]["sizes"], written["ladder"].get("pairs", [])
        rates = {name: written["families"][name]["learning_rates"] for name in ("lora", "cp")}
        # A pair's sizes that the ladder has anyway are one run.
        assert all(pair[name] in sizes[name] for pair in pairs for name in pair)
        cells = sum(len(sizes[name]) * len(rates[name]) for name in sizes) + written["ladder"].get("head", False)
        grid = grids[title]
        assert grid["runs"] == cells * len(written["seeds"]) * len(written["tasks"])
        assert [grid["LoRA, ranks"], grid["CP, components"]] == [", ".join(map(str, s)) for s in sizes.values()]
        assert [[*map(float, grid[f"{f}, rates"].split(", "))] for f in ("LoRA", "CP")] == list(rates.values())


def test_the_papers_study_has_the_papers_precision_and_differs_in_nothing_else() -> None:
    mine, ours = protocol.study("paper").protocol, Protocol()
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


def test_evaluation_sets_have_the_sizes_of_the_records(records: Sequence[Record]) -> None:
    for task in ("sst2", "rte"):
        rows = {r.outcome.rows for r in records if r.config.task == task and r.outcome}
        assert rows == {protocol.published()["validation"][task]}
    assert protocol.judged("boolq") == 1000
    (rte,) = [row for _, row in protocol.error_table().iterrows() if row["task"] == "RTE"]
    assert rte.tolist() == ["RTE", "277", "277", "3.0", "2.6", "1.3"]


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
