"""From a study file to runs, and from runs to records that are not measured twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from cpadapt import FamilyPlan, InputError, Ladder, Protocol, Setting, Shard, Study, load_study, train
from cpadapt.bank.bank import require_packable
from cpadapt.bank.trainer import Trainer
from cpadapt.families import FAMILIES
from cpadapt.inputs.backbones.loading import load_backbone
from cpadapt.inputs.backbones.projections import load_projections
from cpadapt.inputs.backbones.specs import Source
from cpadapt.measure import BANK_SECONDS, BANK_TOKENS, GPU_FLOPS, _most_tokens
from cpadapt.progress import status
from cpadapt.records.config import Cell
from cpadapt.records.store import RecordFile, lines_of, load_records
from cpadapt.study import banks_of, records_of_other_versions, with_protocol

ROOT = Path(__file__).parents[1]
PROTOCOL = Protocol(steps=8, eval_every=4, batch_size=4, train_cap=20, dev_cap=10, eval_cap=12)


def study(**changes: Any) -> Study:
    values: dict[str, Any] = {
        "name": "test",
        "backbone": "tiny",
        "tasks": ("toy-sentiment",),
        "ladder": Ladder(head=True, sizes={"lora": (1,), "cp": (1, 2)}),
        "seeds": (0, 1),
        "protocol": PROTOCOL,
    }
    return Study(**(values | changes))


def cells(asked: Study, budget: int | None = None) -> list[Cell]:
    return asked.cells(load_projections(asked.backbone), budget)


def test_budgets_match_from_below_over_all_modules() -> None:
    ladder = Ladder(budgets=(9216, 18432, 36864, 73728))
    assert cells(study(backbone="minilm", ladder=ladder)) == [
        ("lora", 1), ("cp", 9), ("lora", 2), ("cp", 18), ("lora", 4), ("cp", 37), ("lora", 8), ("cp", 75),
    ]  # fmt: skip
    smollm2 = Ladder(budgets=tuple(57_600 * r for r in (1, 2, 3, 4, 6, 8)))
    assert [size for label, size in cells(study(backbone="smollm2", ladder=smollm2)) if label == "cp"] == [
        11, 22, 33, 44, 66, 88,
    ]  # fmt: skip


def test_pairs_stand_for_their_budget_although_above_it() -> None:
    paper = load_study(ROOT / "studies" / "paper.toml")
    step = 48 * 4096
    assert cells(paper, 2 * step) == [("lora", 2), ("cp", 43)]
    assert cells(paper, 48 * 193 * 43) == [("lora", 2), ("cp", 43)]
    assert cells(paper, 3 * step) == [("lora", 3), ("cp", 63)]
    assert cells(paper, 1000 * 193) == [("cp", 20)], "less than one rank"
    assert len(cells(paper)) == 19


def test_a_cell_is_counted_over_all_modules_with_its_familys_options() -> None:
    # Two layers of q 32×32 and v 16×32.
    flat = FamilyPlan(family="cp", options={"tensor_shape": {"32": [32], "16": [16]}})
    asked = study(families={"lora": FamilyPlan(), "cp": FamilyPlan(), "cp-flat": flat})
    counts = {label: asked.count(load_projections("tiny"), label, 2) for label in asked.families}
    assert counts == {
        "lora": 2 * 2 * (64 + 48),
        "cp": 2 * 2 * ((4 + 8 + 4 + 8 + 1) + (4 + 4 + 4 + 8 + 1)),
        "cp-flat": 2 * 2 * ((32 + 32 + 1) + (16 + 32 + 1)),
    }
    assert asked.count(load_projections("tiny"), "head", 0) == 0


def test_a_budget_below_every_step_says_what_there_is() -> None:
    with pytest.raises(InputError, match=r"budget 100 .*lora 9216, cp 972"):
        cells(study(backbone="minilm"), 100)


def test_runs_are_the_product_of_what_the_study_lists() -> None:
    asked = study(
        tasks=("toy-sentiment", "toy-reading"),
        data_seeds=(0, 5),
        families={
            "lora": FamilyPlan(learning_rates=(1e-3, 2e-3)),
            "cp": FamilyPlan(),
            "cp-flat": FamilyPlan(family="cp", scale=2.0, options={"tensor_shape": {"32": [32], "16": [16]}}),
        },
        ladder=Ladder(head=True, sizes={"lora": (1,), "cp": (1, 2), "cp-flat": (1,)}),
    )
    projections = load_projections("tiny")
    runs = asked.runs(projections)
    assert len(runs) == 2 * 2 * 2 * (1 + 2 + 2 + 1)
    assert len({config.config_id for _, config in runs}) == len(runs)
    by_label = dict(runs)
    assert (by_label["head"].learning_rate, by_label["head"].scale) == (None, None)
    assert (by_label["cp"].learning_rate, by_label["cp"].scale) == (2e-4, 8.0)
    assert by_label["cp-flat"].options["tensor_shape"] == {32: (32,), 16: (16,)}
    assert {config.task for _, config in asked.runs(projections, task="toy-reading")} == {"toy-reading"}
    assert {config.order_seed for _, config in runs} == {None}, "each seed has its own order"


def test_orders_of_their_own_are_crossed_with_the_seeds() -> None:
    asked = study(seeds=(0, 1), order_seeds=(0, 1, 7), ladder=Ladder(sizes={"cp": (1,)}))
    runs = [config for _, config in asked.runs(load_projections("tiny"))]
    assert [(c.seed, c.order_seed) for c in runs] == [(0, 0), (0, 1), (0, 7), (1, 0), (1, 1), (1, 7)]
    assert len({config.config_id for config in runs}) == len(runs)


@pytest.mark.parametrize("file", sorted((ROOT / "studies").glob("*.toml")), ids=lambda path: path.stem)
def test_our_studies_are_valid_and_named_after_their_files(file: Path) -> None:
    asked = load_study(file)
    assert asked.name == file.stem
    assert asked.about
    assert asked.runs(load_projections(asked.backbone, asked.target_modules))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nme = 'x'", "nme is not a known field"),
        ("name = '../../x'", r"name = '\.\./\.\./x': use letters, digits"),
        ("draws = [0, 0]", r"draws = \[0, 0\]"),
        ("name = 3", "name = 3"),
        ("tasks = []", "tasks is empty"),
        ("seeds = [0, 0]", r"seeds = \[0, 0\]"),
        ("seeds = '0-2,1'", r"seeds = \[0, 1, 2, 1\]"),
        ("seeds = '3-1'", "'3-1': 3-1 runs backwards"),
        ("order_seeds = [2, 2]", r"order_seeds = \[2, 2\]"),
        ("data_seeds = '1-x'", "'1-x': write ranges and numbers, such as 0-2 or 0,3,7"),
        ("[ladder.sizes]\nlorra = [1]", "'lorra'"),
        ("[families.lorra]", r"'lorra' \(did you mean 'lora'\?\); known are " + ", ".join(sorted(FAMILIES))),
        ("[families.head]", "ladder.head = true"),
        ("[protocol]\nsteps = -1", r"protocol\.steps = -1"),
        ("[protocol]\nstep = 1", r"protocol\.step is not a known field"),
        ("not toml", "is not valid TOML"),
    ],
)
def test_a_wrong_study_file_is_named_with_what_is_wrong(text: str, says: str, tmp_path: Path) -> None:
    base = {
        "name": "name = 'x'", "backbone": "backbone = 'tiny'", "tasks": "tasks = ['toy-sentiment']",
        "ladder": "[ladder]\nhead = true",
    }  # fmt: skip
    head = text.split("=")[0].strip()
    lines = [line for name, line in base.items() if name != head]
    file = tmp_path / "s.toml"
    file.write_text("\n".join(lines[:-1] + ([lines[-1], text] if text.startswith("[") else [text, lines[-1]])))
    with pytest.raises(InputError, match=rf"s\.toml.*{says}"):
        load_study(file)


def test_a_field_of_the_protocol_may_be_none(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    text = "name = 'x'\nbackbone = 'tiny'\ntasks = ['toy-sentiment']\n[ladder]\nhead = true\n[protocol]\n"
    file.write_text(text + "eval_cap = 'none'\nclip = 'none'\n")
    assert (load_study(file).protocol.eval_cap, load_study(file).protocol.clip) == (None, None)
    file.write_text(text + "steps = 'none'\n")
    with pytest.raises(InputError, match=r"protocol\.steps = None"):
        load_study(file)


def test_a_missing_study_and_an_empty_ladder() -> None:
    with pytest.raises(InputError, match="no such file"):
        load_study("nowhere.toml")
    with pytest.raises(ValueError, match="ladder is empty"):
        Ladder()


def test_a_task_of_ones_own_lies_beside_the_study_and_goes_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for split, count in (("train", 40), ("validation", 12)):
        rows = [{"text": f"row {i} of {split}", "stars": 1 + 4 * (i % 2)} for i in range(count)]
        (tmp_path / "data" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "own.toml").write_text(
        'name = "reviews"\npath = "data"\ntext_columns = ["text"]\nlabel_column = "stars"\nlabels = [1, 5]\n'
        'label_names = ["bad", "good"]\n'
    )
    (tmp_path / "s.toml").write_text(
        'name = "s"\nbackbone = "tiny"\ntasks = ["own.toml"]\n[ladder]\nhead = true\n'
        "[protocol]\nsteps = 2\neval_every = 2\nbatch_size = 2\ntrain_cap = 20\ndev_cap = 10\neval_cap = 12\n"
    )
    asked = load_study(tmp_path / "s.toml")
    (record,) = train(asked)
    assert record.config.task == "reviews"
    assert train(asked, task="reviews")[0].id == train(asked, task=asked.tasks[0])[0].id == record.id
    twice = study(tasks=(asked.tasks[0], str(tmp_path / "copy.toml")))
    (tmp_path / "copy.toml").write_text((tmp_path / "own.toml").read_text())
    with pytest.raises(InputError, match="two of the tasks have the same name: reviews, reviews"):
        train(twice)


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ({"melora": (4, 3)}, "must be 4 or more for 4 minis, not 3"),
        ({"lokr": (1, 2)}, "a LoKr of rank 2 does not fit a 32x32 projection; at most 1,"),
        ({"symlora": (1,)}, "family 'symlora' cannot adapt a projection of 16x32: it is not square"),
    ],
)
def test_a_size_that_a_family_does_not_have_is_named_before_anything_is_trained(
    sizes: dict[str, tuple[int, ...]], says: str
) -> None:
    plans = {"melora": FamilyPlan(options={"minis": 4}), "lokr": FamilyPlan(), "symlora": FamilyPlan()}
    asked = study(families=plans, ladder=Ladder(sizes=sizes))
    with pytest.raises(InputError, match=says):
        asked.runs(load_projections("tiny"))


def test_a_budget_below_the_smallest_adapters_says_what_these_cost() -> None:
    plans = {"cp": FamilyPlan(), "melora": FamilyPlan(options={"minis": 4})}
    with pytest.raises(InputError, match=r"smallest adapters: cp 92, melora 224$"):
        study(families=plans, ladder=Ladder(budgets=(90,))).cells(load_projections("tiny"), 90)


def test_records_of_an_edited_study_are_told_from_its_own() -> None:
    asked = load_study(ROOT / "studies" / "small.toml")
    projections, records = load_projections(asked.backbone), load_records(ROOT / "results" / "small")
    assert records_of_other_versions(asked, projections, records) == []
    fewer = replace(asked, ladder=Ladder(head=True, sizes={"lora": (1, 2), "cp": (1, 4, 9)}))
    others = records_of_other_versions(fewer, projections, records)
    assert others == [r for r in records if (r.label, r.config.size) == ("cp", 18)] != []
    longer = with_protocol(asked, steps=2 * asked.protocol.steps)
    assert records_of_other_versions(longer, projections, records) == records
    renamed = replace(longer, name="another")
    assert records_of_other_versions(renamed, projections, records) == [], "they are another study's"


@pytest.mark.slow
def test_what_has_a_record_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(study(), results=tmp_path)
    assert len(first) == 8
    assert {r.label for r in first} == {"head", "lora", "cp"}
    assert [s.missing for s in status(study(), tmp_path)] == [0, 0, 0, 0]

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("trained again")

    with monkeypatch.context() as patch:
        patch.setattr("cpadapt.measure.load_backbone", never)
        assert train(study(), results=tmp_path) == first
        assert [r.label for r in train(study(), results=tmp_path, budget=100)] == ["head"] * 2 + ["cp"] * 2
    wider = study(seeds=(0, 1, 2))
    assert sum(s.missing for s in status(wider, tmp_path)) == 4
    assert len(train(wider, results=tmp_path)) == 12
    assert len(list(tmp_path.glob("*.jsonl.xz"))) == 2
    again = train(study(), results=tmp_path, force=True)
    assert [r.evaluations for r in again] == [r.evaluations for r in first]
    assert len(load_records(tmp_path)) == 12


def test_a_setting_is_a_runs_own_as_its_rate_is() -> None:
    asked = study(
        families={
            "lora": FamilyPlan(settings=(Setting(1e-3, sizes=(1,)), Setting(3e-3, warmup_steps=2, sizes=(2,)))),
            "cp": FamilyPlan(
                learning_rates=(1e-3, 2e-3), settings=(Setting(1e-3, scale=32.0), Setting(1e-3, None, 3))
            ),
        },
        ladder=Ladder(sizes={"lora": (1, 2), "cp": (1,)}),
        seeds=(0,),
    )
    runs = [config for _, config in asked.runs(load_projections("tiny"))]
    assert [(c.family, c.size, c.learning_rate, c.scale, c.warmup_steps) for c in runs] == [
        ("lora", 1, 1e-3, 2.0, None), ("lora", 2, 3e-3, 2.0, 2),
        ("cp", 1, 1e-3, 8.0, None), ("cp", 1, 2e-3, 8.0, None), ("cp", 1, 1e-3, 32.0, None), ("cp", 1, 1e-3, 8.0, 3),
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"family 'lora' has no setting for size 4"):
        replace(asked, ladder=Ladder(sizes={"lora": (4,)})).runs(load_projections("tiny"))
    doubled = {"lora": FamilyPlan(learning_rates=(1e-3,), settings=(Setting(1e-3),))}
    with pytest.raises(InputError, match="twice at size 1"):
        replace(asked, families=doubled, ladder=Ladder(sizes={"lora": (1,)})).runs(load_projections("tiny"))


def test_a_draw_is_seed_and_data_seed_in_one() -> None:
    asked = study(draws="3-5", seeds=(0,), ladder=Ladder(sizes={"cp": (1,)}))
    runs = [config for _, config in asked.runs(load_projections("tiny"))]
    assert [(c.seed, c.data_seed, c.order) for c in runs] == [(3, 3, 3), (4, 4, 4), (5, 5, 5)]
    with pytest.raises(ValueError, match="draws replace seeds"):
        study(draws=(1,), seeds=(0, 1))


@pytest.mark.parametrize(
    ("draws", "cells", "most", "sizes"),
    [
        (10, 7, 35, [35, 35]), (10, 7, 69, [35, 35]), (10, 7, 70, [70]), (3, 20, 60, [60]), (3, 20, 59, [20, 40]),
        (2, 20, 19, [10, 10, 10, 10]), (1, 3, 0.5, [1, 1, 1]),
    ],
)  # fmt: skip
def test_banks_hold_whole_draws_or_seeds(draws: int, cells: int, most: float, sizes: list[int]) -> None:
    ladder = Ladder(sizes={"cp": tuple(range(1, cells + 1))})
    for by in ({"draws": tuple(range(draws)), "seeds": (0,)}, {"seeds": tuple(range(draws))}):
        runs = study(ladder=ladder, **by).runs(load_projections("tiny"))
        banks = banks_of(runs, 100.0, 100.0 * most)
        assert [len(bank) for bank in banks] == sizes
        assert sorted(c.config_id for bank in banks for _, c in bank) == sorted(c.config_id for _, c in runs)
        for bank in banks:
            by_seed = Counter(c.seed for _, c in bank)
            assert set(by_seed.values()) == {cells} if most >= cells else len(by_seed) == 1
        parts = [Shard(i, 2).of(runs) for i in (1, 2)]
        assert sorted(c.config_id for part in parts for _, c in part) == sorted(c.config_id for _, c in runs)
        if draws > 1:
            assert not {c.seed for _, c in parts[0]} & {c.seed for _, c in parts[1]}


def test_a_bank_is_bounded_by_its_time_too() -> None:
    backbone = load_backbone("tiny")
    assert _most_tokens(backbone, PROTOCOL) == BANK_TOKENS
    on_gpu = SimpleNamespace(
        model=SimpleNamespace(
            device=torch.device("cuda"),
            num_parameters=lambda: 1_500_000_000,
            get_input_embeddings=lambda: SimpleNamespace(weight=torch.empty(0)),
        )
    )
    short, long = (_most_tokens(on_gpu, Protocol(steps=steps, eval_every=steps)) for steps in (500, 5000))
    assert short == BANK_TOKENS
    assert long == pytest.approx(BANK_SECONDS * GPU_FLOPS / (5000 * 4 * 1.5e9))


@pytest.mark.slow
def test_several_banks_give_the_records_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(study())
    monkeypatch.setattr("cpadapt.measure.BANK_TOKENS", 1)
    made = []
    init = Trainer.__init__
    monkeypatch.setattr(Trainer, "__init__", lambda self, *a, **k: (made.append(1), init(self, *a, **k))[1])
    parts = train(study(), results=tmp_path)
    assert len(made) == 8
    assert [(r.id, r.outcome.right_by_row) for r in parts] == [(r.id, r.outcome.right_by_row) for r in whole]
    assert {r.cost.bank_runs for r in parts} == {1}
    assert len(list(tmp_path.glob("*"))) == 1, "one file, compressed, and no checkpoints"


@pytest.mark.slow
def test_other_weights_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(study(), results=tmp_path)
    other = Source("memory", "seed 1", None, None)
    for module in ("measure", "progress"):
        monkeypatch.setattr(f"cpadapt.{module}.weights_at_hand", lambda name: other)
    for again in (lambda: train(study(), results=tmp_path), lambda: status(study(), tmp_path)):
        with pytest.raises(InputError, match=r"other weights of tiny: theirs are .*seed 0.*, those at hand .*seed 1"):
            again()
    # Where none are at hand the records' own count, if they agree.
    for module in ("measure", "progress"):
        monkeypatch.setattr(f"cpadapt.{module}.weights_at_hand", lambda name: None)
    monkeypatch.setattr("cpadapt.measure.load_backbone", lambda *a, **k: pytest.fail("loaded"))
    assert len(train(study(), results=tmp_path)) == 8
    assert {s.missing for s in status(study(), tmp_path)} == {0}
    mixed = [replace(r, id=f"other {r.id}", weights=other) for r in load_records(tmp_path)]
    RecordFile(tmp_path).add(mixed)
    for again in (lambda: train(study(), results=tmp_path), lambda: status(study(), tmp_path)):
        with pytest.raises(InputError, match=r"the records of tiny in .* were measured on different weights"):
            again()


def test_the_same_folder_elsewhere_is_the_same_run(tmp_path: Path) -> None:
    tiny = load_backbone("tiny")
    for place in ("here", "there"):
        tiny.model.save_pretrained(tmp_path / place / "model")
        tiny.tokenizer.save_pretrained(tmp_path / place / "model")
    first, again = (
        train(study(backbone=str(tmp_path / place / "model"), seeds=(0,)), results=tmp_path / "r")
        for place in ("here", "there")
    )
    assert first == again
    assert first[0].config.backbone == "model"
    assert not any(str(tmp_path) in line for line in lines_of(first))


def test_what_records_need_is_looked_up_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpadapt.bank.trainer.Trainer.train", lambda self: pytest.fail("training began"))
    monkeypatch.setattr("cpadapt.measure.PACKAGES", ("not-there",))
    with pytest.raises(InputError, match="the version of not-there is unknown"):
        train(study())


def test_our_studies_spell_out_scales_and_rates() -> None:
    """So that a new default of ours orphans no record."""
    for file in (ROOT / "studies").glob("*.toml"):
        for label, plan in load_study(file).families.items():
            rates = plan.learning_rates or plan.settings
            scales = [plan.scale] if plan.learning_rates else [one.scale or plan.scale for one in plan.settings]
            spelt = rates and None not in scales
            assert spelt or not load_study(file).ladder.sizes, f"{file.name}: {label}"


def test_records_say_what_was_measured(tmp_path: Path) -> None:
    (record,) = train(
        study(ladder=Ladder(sizes={"cp": (2,)}), seeds=(3,), data_seeds=(4,)), results=tmp_path, quiet=True
    )
    # Two layers of q 32×32 and v 16×32: 4·8 + 4·8 and 4·4 + 4·8 split into modes, and λ.
    assert record.counts.step == 2 * ((4 + 8 + 4 + 8 + 1) + (4 + 4 + 4 + 8 + 1)) == 92
    assert (record.counts.adapter, record.counts.adam_bytes) == (184, 8 * 184)
    assert record.counts.head == 2 * 32 + 2
    assert record.weights.kind == "memory"
    assert (record.config.seed, record.config.data_seed) == (3, 4)
    assert record.outcome.total == len(record.outcome.right_by_row) == 12
    assert record.data["sets"]["train"]["size"] == 20
    assert record.protocol_sources["steps"] == "ours"
    assert record == load_records(tmp_path)[0]


@pytest.mark.slow
def test_shards_divide_the_runs_and_measure_the_same(tmp_path: Path) -> None:
    whole = {r.id: r for r in train(study())}
    parts = [train(study(), shard=Shard(i, 2), results=tmp_path) for i in (1, 2)]
    assert [len(part) for part in parts] == [4, 4]
    assert {r.id for part in parts for r in part} == set(whole)
    for part in parts:
        for record in part:
            assert record.outcome == whole[record.id].outcome
    assert len(list(tmp_path.glob("*.jsonl.xz"))) == 2
    with pytest.raises(InputError, match="shard 3/2"):
        Shard(3, 2)


@pytest.mark.slow
def test_saved_weights_are_peft_adapters_that_score_as_recorded(tmp_path: Path) -> None:
    records = train(study(seeds=(0,)), results=tmp_path / "r", save=tmp_path / "w")
    for record in records:
        folder = tmp_path / "w" / record.id
        assert load_file(folder / "head.safetensors")["weight"].shape == (2, 32)
        assert (folder / "adapter_config.json").exists() == (record.label != "head")
        if record.label != "head":
            backbone = load_backbone("tiny")
            tokens = torch.tensor([[5, 6, 7]])
            before = backbone.model(tokens).last_hidden_state
            model = PeftModel.from_pretrained(backbone.model, folder)
            assert (model(tokens).last_hidden_state - before).abs().max() > 0
    (tmp_path / "w" / records[0].id / "head.safetensors").unlink()
    (tmp_path / "w" / records[0].id).rmdir()
    train(study(seeds=(0,)), results=tmp_path / "r", save=tmp_path / "w")
    assert (tmp_path / "w" / records[0].id / "head.safetensors").exists()


def test_a_verbalizer_has_no_head_to_count_or_save(tmp_path: Path) -> None:
    asked = study(seeds=(0,), tasks=("toy-entailment",), protocol=replace(PROTOCOL, readout="verbalizer"))
    for record in train(asked, save=tmp_path):
        assert record.counts.head == 0
        assert (record.counts.adapter == 0) == (record.label == "head")
        assert not (tmp_path / record.id / "head.safetensors").exists()
        assert (tmp_path / record.id / "adapter_config.json").exists() == (record.label != "head")


def test_all_mistakes_are_found_before_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("cpadapt.bank.trainer.Trainer.train", lambda self: pytest.fail("training began"))
    with pytest.raises(InputError, match="no task 'sst2'"):
        train(study(), task="sst2")
    with pytest.raises(InputError, match="--data-dir"):
        train(study(tasks=("toy-sentiment", "sst2")), results=tmp_path)
    with pytest.raises(InputError, match="max_length of 8 is too small"):
        train(with_protocol(study(tasks=("toy-reading",)), max_length=8))
    assert not list(tmp_path.iterdir())


def test_an_architecture_that_packing_would_change_is_refused() -> None:
    from transformers import RobertaConfig, RobertaModel

    backbone = load_backbone("tiny-encoder")
    require_packable(backbone)
    backbone.model = RobertaModel(
        RobertaConfig(
            vocab_size=99, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64
        )
    ).eval()  # fmt: skip
    with pytest.raises(InputError, match=r"different hidden states.*roberta"):
        require_packable(backbone)


@pytest.mark.slow
@pytest.mark.long
def test_a_process_that_is_killed_goes_on_to_the_same_record(tmp_path: Path) -> None:
    """With SIGKILL, as a cluster does it, right after the first checkpoint."""
    asked = study(protocol=Protocol(steps=60, eval_every=5, batch_size=4, train_cap=20, dev_cap=10, eval_cap=12))
    undisturbed = {r.id: r for r in train(asked)}
    script = tmp_path / "run.py"
    script.write_text(
        "import torch; torch.set_num_threads(1)\n"
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from cpadapt import *\n"
        "train(Study(name='test', backbone='tiny', tasks=('toy-sentiment',), seeds=(0, 1),\n"
        "    ladder=Ladder(head=True, sizes={'lora': (1,), 'cp': (1, 2)}),\n"
        "    protocol=Protocol(steps=60, eval_every=5, batch_size=4, train_cap=20, dev_cap=10, eval_cap=12)),\n"
        "    results=sys.argv[2])\n"
    )
    results = tmp_path / "results"
    process = subprocess.Popen([sys.executable, str(script), str(ROOT), str(results)], env=os.environ)
    deadline = time.monotonic() + 120
    while not list(results.glob(".checkpoints/*.safetensors")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(results.glob("*.jsonl.xz"))

    resumed = train(asked, results=results)
    assert {r.cost.resumed for r in resumed} == {1}
    assert not list(results.glob(".checkpoints/*"))
    for record in resumed:
        assert record.evaluations == undisturbed[record.id].evaluations
        assert record.outcome == undisturbed[record.id].outcome
