"""The protocol: every number again by another way, and every claim."""

import json
import math
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

from cpadapt import FamilyPlan, Protocol
from cpadapt.families import cp, lora
from cpadapt.inputs.tasks.specs import TASKS
from cpadapt.records.record import Record
from cpadapt.records.store import load_records

ROOT = Path(__file__).parents[2]
STUDIES = {name: tomllib.loads((ROOT / "studies" / f"{name}.toml").read_text()) for name in ("paper", "smollm2-pilot")}
PUBLISHED = tomllib.loads((ROOT / "book" / "published.toml").read_text(encoding="utf-8"))
# A LoRA rank and a CP component over OPT-1.3B's 24 layers of queries and values.
RANK, COMPONENT = 48 * (2048 + 2048), 48 * (32 + 64 + 32 + 64 + 1)
Chapters = Callable[[str], Any]


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return load_records(ROOT / "results")


def linear_sum(rate: float, steps: int) -> float:
    """Of a rate that falls to 0 in equal parts: an arithmetic series."""
    return rate * (steps + 1) / 2


def test_numbers(chapter: Chapters, records: list[Record]) -> None:
    page = chapter("protocol")
    pairs = STUDIES["paper"]["ladder"]["pairs"]
    sizes = STUDIES["paper"]["ladder"]["sizes"]
    # Second-hand, and equal to the default: steps, three caps, how often dev is looked at, and the head.
    papers = {
        "steps": 5000,
        "eval_every": 1000,
        "train_cap": 1000,
        "dev_cap": 500,
        "eval_cap": 1000,
        "readout": "head",
    }
    assert {name: getattr(Protocol(), name) for name in papers} == papers
    (head,) = {r.counts.head for r in records if r.study == "smollm2-pilot"}
    (step,) = {r.counts.step for r in records if r.study == "smollm2-pilot" and r.label == "cp"}
    expected = {
        "fields": len(Protocol.__dataclass_fields__),
        "papers": len(papers),
        "ours": len(Protocol.__dataclass_fields__) - len(papers),
        "caps": "1000/500/1000",
        "nearest_batch": 8,
        "nearest_alpha": 16,
        "nearest_rank": 8,
        "paper_steps": STUDIES["paper"]["protocol"]["steps"],
        "pilot_steps": STUDIES["smollm2-pilot"]["protocol"]["steps"],
        "paper_reach": linear_sum(2e-4, 5000),
        "pilot_reach": linear_sum(2e-3, 500),
        "head_rate": "1e-3",
        "head_scalars": head,
        "cp_step": step,
        "excess": max(100 * (pair["cp"] * COMPONENT / (pair["lora"] * RANK) - 1) for pair in pairs),
        "grid_cp": len(sizes["cp"]),
        "grid_lora": len(sizes["lora"]),
        "rte_error": 100 * math.sqrt(0.75 * 0.25 / 277),
    }
    assert set(page.glued) == set(expected)
    for name, value in expected.items():
        assert page.glued[name] == (pytest.approx(value) if isinstance(value, float) else value), name


def test_every_field_is_explained_with_its_value(chapter: Chapters) -> None:
    header, *rows = chapter("protocol").tables[0]
    assert header == ["field", "value", "whose", "what it is"]
    assert {name: value for name, value, _, _ in rows} == {
        name: str(getattr(Protocol(), name)) for name in Protocol.__dataclass_fields__
    }
    sources = Protocol().sources()
    assert {name: whose for name, _, whose, _ in rows} == sources
    assert all(len(said) > 10 for *_, said in rows)
    assert not [said for *_, said in rows if "\\n" in said or "\n" in said], "no line break is shown"


def test_the_rates_effect_is_that_of_the_longer_runs(chapter: Chapters) -> None:
    source = chapter("protocol").source
    assert "first_frontiers.rate_effect" not in source, "which is of the pilot's 500 steps"
    assert "rates.ipynb::cp_flat" in source
    assert chapter("rates").glued["cp_flat"] == "0.2"


def test_the_papers_study_has_the_papers_precision_and_differs_in_nothing_else() -> None:
    mine = Protocol(**STUDIES["paper"]["protocol"])
    changed = {name for name in Protocol.__dataclass_fields__ if getattr(mine, name) != getattr(Protocol(), name)}
    assert changed == {"dtype"}
    assert mine.sources()["dtype"] == "paper"
    assert Protocol().sources()["dtype"] == "ours"


def test_choices_are_mezos_or_the_trainers_or_said_to_be_ours(chapter: Chapters) -> None:
    nearest, p = PUBLISHED["nearest"], Protocol()
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
    silent = next(table for table in chapter("protocol").tables if table[0][0] == "not reported")
    assert [row[0] for row in silent[1:]] == PUBLISHED["not_reported"]


def test_a_dropout_is_refused() -> None:
    with pytest.raises(ValueError, match="dropout"):
        Protocol(dropout=0.1)
    assert transformers.OPTConfig().dropout > 0


def test_the_papers_pairs_lie_above_and_ours_below(chapter: Chapters) -> None:
    table = next(table for table in chapter("protocol").tables if table[0][0] == "LoRA rank")
    for row, pair in zip(table[1:], STUDIES["paper"]["ladder"]["pairs"], strict=True):
        budget = pair["lora"] * RANK
        below = budget // COMPONENT
        assert pair["cp"] * COMPONENT > budget
        assert row == [
            str(pair["lora"]), f"{budget:,}", str(pair["cp"]), f"{pair['cp'] * COMPONENT - budget:+,}",
            str(below), f"{budget - below * COMPONENT:,}",
        ]  # fmt: skip


def test_the_grids_are_those_of_the_studies(chapter: Chapters) -> None:
    table = next(table for table in chapter("protocol").tables if any(row[0] == "precision" for row in table))
    grid = {row[0]: row[1:] for row in table[1:]}
    for column, study in enumerate(STUDIES.values()):
        sizes = study["ladder"]["sizes"]
        rates = {name: study["families"][name]["learning_rates"] for name in ("lora", "cp")}
        # A pair's sizes that the ladder has anyway are one run.
        assert all(pair[name] in sizes[name] for pair in study["ladder"].get("pairs", []) for name in pair)
        cells = sum(len(sizes[name]) * len(rates[name]) for name in sizes) + study["ladder"].get("head", False)
        assert int(grid["runs"][column]) == cells * len(study["seeds"]) * len(study["tasks"])
        assert grid["LoRA, ranks"][column] == ", ".join(map(str, sizes["lora"]))
        assert grid["CP, components"][column] == ", ".join(map(str, sizes["cp"]))
        assert [float(rate) for rate in grid["CP, rates"][column].split(", ")] == rates["cp"]
        assert [float(rate) for rate in grid["LoRA, rates"][column].split(", ")] == rates["lora"]
        assert grid["precision"][column] == study["protocol"]["dtype"]
        assert grid["steps"][column] == f"{study['protocol']['steps']:,}"


def test_one_rate_a_family_in_the_paper_and_ten_times_it_in_the_pilot() -> None:
    for name, rate in {"lora": 1e-4, "cp": 2e-4}.items():
        assert STUDIES["paper"]["families"][name]["learning_rates"] == [rate]
        assert STUDIES["smollm2-pilot"]["families"][name]["learning_rates"] == pytest.approx([rate, 10 * rate])


def test_evaluation_sets_have_the_sizes_of_the_records(chapter: Chapters, records: list[Record]) -> None:
    for task in ("sst2", "rte"):
        judged = [r.outcome for r in records if r.config.task == task and r.outcome]
        assert {outcome.rows for outcome in judged} == {PUBLISHED["validation"][task]}
    table = next(table for table in chapter("protocol").tables if "validation split" in table[0])
    for name, split, asked, *errors in table[1:]:
        size = PUBLISHED["validation"][name.lower().replace("-", "")]
        assert (split, asked) == (f"{size:,}", f"{min(size, 1000):,}")
        found = [100 * math.sqrt(a * (1 - a) / min(size, 1000)) for a in (0.5, 0.75, 0.95)]
        assert errors == [f"{error:.1f}" for error in found]


def test_runs_are_paired(records: list[Record]) -> None:
    """Of one study, task and draw all are trained and judged on the same examples, whatever their family and seed."""
    shared: dict[tuple[str, str, int], set[tuple[str, str | None]]] = {}
    for r in records:
        place = r.study, r.config.task, r.config.data_seed
        shared.setdefault(place, set()).add((r.data_fingerprint, r.outcome and r.outcome.drawn))
    assert {len(kinds) for kinds in shared.values()} == {1}
    of_draws = {"smollm2-data-seeds", "smollm2-data-seeds-again"}
    assert {study for study, _, draw in shared if draw != 0} == {*of_draws, "size-rates"}
    for study, task, draw in shared:
        if study in of_draws:
            assert shared[study, task, draw] == shared["smollm2-data-seeds", task, draw]


def test_another_protocol_is_another_run(chapter: Chapters) -> None:
    (shown,) = (
        output["data"]["text/plain"]
        for cell in chapter("protocol").cells
        if "other.config_id" in cell.source and cell.cell_type == "code"
        for output in cell.outputs
    )
    one, other = re.findall(r"[0-9a-f]{16}", shown)
    assert one != other


def test_the_settings_that_are_shown_are_accepted(chapter: Chapters) -> None:
    (command,) = re.findall(r"cpadapt run .*", chapter("protocol").source)
    settings = dict(text.split("=", 1) for text in re.findall(r"--set (\S+)", command))
    assert Protocol(**{name: json.loads(v) if v[0].isdigit() else v for name, v in settings.items()}) != Protocol()
    (example,) = re.findall(r"```toml\n(.*?)```", chapter("protocol").source, re.S)
    plan = tomllib.loads(example)["families"]["cp"]
    assert set(FamilyPlan(**plan).options) <= set(cp.INIT_OPTIONS)
