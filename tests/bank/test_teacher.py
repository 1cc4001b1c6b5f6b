"""A teacher's answers, what students learn from them and what is recorded, against the model's own forward."""

import dataclasses
import json
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GPT2Config, GPT2Model

from cpadapt import load_records, load_task
from cpadapt.analysis.students import recovery, removals
from cpadapt.bank.bank import cross_entropy
from cpadapt.bank.teacher import planted, taught
from cpadapt.bank.trainer import Trainer, pools_of
from cpadapt.errors import InputError
from cpadapt.families import family
from cpadapt.families.planted import Teacher
from cpadapt.inputs.backbones.loading import Backbone, load_backbone
from cpadapt.inputs.backbones.specs import Projection
from cpadapt.inputs.tasks.examples import TaskData
from cpadapt.inputs.tasks.specs import load_spec
from cpadapt.measure import train
from cpadapt.records.config import Protocol, RunConfig
from cpadapt.study import FamilyPlan, Ladder, Study

pytestmark = pytest.mark.slow

TASK = """
name = "letters"
path = "letters"
text_columns = ["text"]
label_column = "label"
labels = [0, 1, 2, 3]
label_names = ["a", "b", "c", "d"]
prompt = "{text}\\n"
label_words = ["a", "b", "c", "d"]
"""
PROTOCOL = Protocol(
    steps=12,
    eval_every=4,
    batch_size=4,
    train_cap=40,
    dev_cap=20,
    eval_cap=30,
    rest_cap=10,
    readout="verbalizer",
)
TEACHER = Teacher("lora", 0.3, 2)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words of random letters. Their labels say nothing: only a teacher can be learned from."""
    folder, dice = tmp_path_factory.mktemp("task"), random.Random(0)
    (folder / "letters").mkdir()
    words = sorted({"".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randint(6, 10))) for _ in range(34_000)})
    dice.shuffle(words)
    for split, texts in (("train", words[600:]), ("validation", words[:600])):
        rows = [json.dumps({"text": text, "label": k % 4}) for k, text in enumerate(texts)]
        (folder / "letters" / f"{split}.jsonl").write_text("\n".join(rows))
    (folder / "letters.toml").write_text(TASK)
    return folder / "letters.toml"


@pytest.fixture(scope="module")
def data(task: Path) -> dict[int, TaskData]:
    return {seed: load_task(load_spec(task), caps=PROTOCOL.caps, data_seed=seed) for seed in (1, 2)}


def own_answers(backbone: Backbone, data: TaskData, texts: tuple[tuple[str, ...], ...]) -> Tensor:
    """`[texts, 4]`, by the model's padded forward, one text at a time, in double precision after the model."""
    words = backbone.output_embedding([backbone.tokenizer.convert_tokens_to_ids(word) for word in "abcd"]).double()
    logits = []
    for (text,) in texts:
        tokens = backbone.tokenizer(f"{text}\n", return_tensors="pt")
        hidden = backbone.model(**tokens).last_hidden_state[0, -1]
        logits.append(words @ hidden.double())
    return torch.stack(logits).softmax(-1)


@torch.no_grad()
def changed(backbone: Backbone, updates: dict[str, Tensor]) -> Backbone:
    """A fresh backbone with these updates added to its weights."""
    other = load_backbone(backbone.name)
    for name, update in updates.items():
        other.model.get_submodule(name).weight += update
    return other


def planted_updates(backbone: Backbone, teacher: Teacher, seed: int) -> dict[str, Tensor]:
    updates = {}
    for position, projection in enumerate(backbone.projections):
        weight = backbone.model.get_submodule(projection.name).weight.double().numpy()
        updates[projection.name] = torch.from_numpy(teacher.update(seed, position, weight)).float()
    return updates


def answered(backbone: Backbone, data: dict[int, TaskData], teacher: Teacher = TEACHER):  # type: ignore[no-untyped-def]
    pools, spec = pools_of(data, backbone, PROTOCOL), data[1].spec
    return taught(pools, teacher, tuple(data), backbone=backbone, spec=spec, protocol=PROTOCOL)


@torch.no_grad()
def test_a_teacher_answers_as_the_model_with_the_update_in_its_weights(data: dict[int, TaskData]) -> None:
    backbone = load_backbone("tiny")
    before = own_answers(backbone, data[1], data[1].eval.texts)
    pools = answered(backbone, data)
    for seed, drawn in data.items():
        other = changed(backbone, planted_updates(backbone, TEACHER, seed))
        for name, pool in pools.items():
            expected = own_answers(other, drawn, getattr(drawn, name).texts)
            got = pool.targets[pool.start[seed] : pool.start[seed] + pool.count]
            np.testing.assert_allclose(got, expected.numpy(), atol=2e-5)
    # Each draw has a teacher of its own; the backbone is left as it was.
    first, second = (pools["eval"].targets[pools["eval"].start[seed] :][: pools["eval"].count] for seed in data)
    assert np.abs(first - second).max() > 0.05
    torch.testing.assert_close(own_answers(backbone, data[1], data[1].eval.texts), before, atol=0, rtol=0)


def test_only_the_draws_that_are_asked_are_answered(data: dict[int, TaskData]) -> None:
    backbone = load_backbone("tiny")
    pools = taught(pools_of(data, backbone, PROTOCOL), TEACHER, [2], backbone=backbone, spec=data[1].spec,
                   protocol=PROTOCOL)  # fmt: skip
    train = pools["train"]
    assert not train.targets[: train.count].any()
    np.testing.assert_allclose(train.targets[train.start[2] :].sum(1), 1, atol=1e-6)


def test_the_update_is_taken_out_when_planting_fails(data: dict[int, TaskData]) -> None:
    backbone = load_backbone("tiny")
    with pytest.raises(InputError, match="minis = 5"), planted(backbone, Teacher("melora", 0.3, 5, minis=5), 0):
        pass
    assert not any(module._forward_hooks for module in backbone.model.modules())


@torch.no_grad()
def test_an_update_is_planted_in_weights_that_are_stored_transposed() -> None:
    """GPT-2's, `[in, out]`."""
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 16, "vocab_size": 50}
    model = GPT2Model(GPT2Config(**sizes)).eval()
    name, tokens, teacher = "h.0.attn.c_attn", torch.arange(8)[None], Teacher("lora", 0.5, 1)
    projection = model.get_submodule(name)
    backbone = SimpleNamespace(model=model, projections=(Projection(name, 96, 32),))
    with planted(backbone, teacher, 3):  # type: ignore[arg-type]
        got = model(tokens).last_hidden_state
    before = model(tokens).last_hidden_state
    update = teacher.update(3, 0, projection.weight.double().numpy().T)
    assert update.shape == (96, 32)
    projection.weight += torch.from_numpy(update.T).float()
    torch.testing.assert_close(got, model(tokens).last_hidden_state, atol=1e-5, rtol=0)
    assert (got - before).abs().max() > 1e-3


def test_the_loss_against_probabilities_is_the_cross_entropy() -> None:
    logits, targets = torch.randn(2, 3, 4), torch.randn(2, 3, 4).softmax(-1)
    expected = -(targets * logits.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(cross_entropy(logits, targets), expected)
    # Sure answers are labels.
    labels = torch.randint(4, (2, 3))
    torch.testing.assert_close(cross_entropy(logits, F.one_hot(labels, 4).float()), cross_entropy(logits, labels))


def run(name: str, size: int, seed: int, **changes: object) -> RunConfig:
    trained = {} if name == "head" else {"learning_rate": 2e-2, "scale": 4.0}
    fields = {"seed": seed, "data_seed": seed, "protocol": PROTOCOL, "teacher": TEACHER, **trained, **changes}
    return RunConfig("tiny", "letters", name, size, **fields)  # type: ignore[arg-type]


RUNS = [run("lora", 2, 1), run("cp", 3, 1), run("cp", 1, 2), run("head", 0, 1), run("head", 0, 2)]


def test_what_is_recorded_is_the_divergence_of_the_exported_student(data: dict[int, TaskData]) -> None:
    backbone = load_backbone("tiny")
    pools = answered(backbone, data)
    for result in Trainer(backbone, RUNS, data, pools=pools).train():
        config, drawn = result.config, data[result.config.data_seed]
        updates = {}
        for name, params in result.adapter.items():
            up, down = family(config.family).factors(params, **config.shape_options)
            updates[name] = config.scale * up @ down
        student = changed(backbone, updates)
        teacher = changed(backbone, planted_updates(backbone, TEACHER, config.data_seed))
        for kind, outcome in (("eval", result.outcome), ("rest", result.rest), ("dev", result.dev)):
            with torch.no_grad():
                p, q = (own_answers(one, drawn, getattr(drawn, kind).texts) for one in (teacher, student))
            expected = float((p * (p / q).log()).sum(1).mean())
            assert outcome.divergence == pytest.approx(expected, abs=2e-5), (config.family, kind)
            assert outcome.total == len(getattr(drawn, kind))
        # The step with the lowest loss on dev is kept.
        assert result.best_step == min(result.evaluations, key=lambda e: e.dev_loss).step


def test_a_student_in_a_bank_equals_itself_alone(data: dict[int, TaskData]) -> None:
    backbone = load_backbone("tiny")
    pools = answered(backbone, data)
    together = {r.config.config_id: r for r in Trainer(backbone, RUNS, data, pools=pools).train()}
    for config in RUNS:
        (alone,) = Trainer(backbone, [config], data, pools=pools).train()
        other = together[config.config_id]
        assert alone.best_step == other.best_step
        assert alone.outcome.divergence == pytest.approx(other.outcome.divergence, abs=1e-5)
        for name, params in alone.adapter.items():
            for key, tensor in params.items():
                torch.testing.assert_close(tensor, other.adapter[name][key], atol=1e-5, rtol=0)


def test_students_start_at_the_backbones_divergence(data: dict[int, TaskData]) -> None:
    backbone = load_backbone("tiny")
    trainer = Trainer(backbone, RUNS, data, pools=answered(backbone, data))
    starts = [outcomes["eval"].divergence for outcomes in trainer.judge()]
    heads = {r.config.data_seed: r.outcome.divergence for r in trainer.train() if r.config.family == "head"}
    assert starts == pytest.approx([heads[config.data_seed] for config in trainer.runs], abs=1e-6)


def test_runs_and_pools_must_agree_on_the_teacher(data: dict[int, TaskData]) -> None:
    backbone = load_backbone("tiny")
    with pytest.raises(InputError, match="need pools with its answers"):
        Trainer(backbone, RUNS, data)
    labels, pools = [dataclasses.replace(RUNS[0], teacher=None)], answered(backbone, data)
    with pytest.raises(InputError, match="need pools with its answers"):
        Trainer(backbone, labels, data, pools=pools)
    with pytest.raises(InputError, match="must share backbone, task, protocol, target modules and teacher"):
        Trainer(backbone, [RUNS[0], run("cp", 1, 1, teacher=Teacher("cp", 0.3, 1))], data)


def test_a_teacher_is_part_of_a_run_and_no_teacher_changes_no_id() -> None:
    learned, labelled = RUNS[0], dataclasses.replace(RUNS[0], teacher=None)
    assert learned.config_id != labelled.config_id
    assert len({run("cp", 1, 1, teacher=Teacher("cp", norm, 1)).config_id for norm in (0.1, 0.2)}) == 2
    assert "teacher" not in labelled._hashed()
    with pytest.raises(ValueError, match=r"protocol\.readout = 'head': a teacher answers in label words"):
        run("cp", 1, 1, protocol=dataclasses.replace(PROTOCOL, readout="head"))


def measured(
    task: Path, results: Path, teachers: tuple[Teacher, ...], steps: int, **plan: object
) -> "pd.Series[float]":
    """What was removed, by teacher and cell, after the whole path: planted, trained, recorded, read back, reckoned."""
    study = Study(
        name="planted-letters",
        backbone="tiny",
        tasks=(str(task),),
        draws=(1,),
        teachers=teachers,
        protocol=Protocol(
            steps=steps,
            eval_every=steps,
            batch_size=16,
            train_cap=16 * steps,
            dev_cap=200,
            eval_cap=None,
            readout="verbalizer",
        ),
        **plan,  # type: ignore[arg-type]
    )
    train(study, results=results, quiet=True)
    removed = removals(load_records(results))
    assert removed["before"].min() > 0.02
    return recovery(removed).set_index(["teacher", "label", "size"])["mean"]


@pytest.mark.long
def test_a_student_of_the_planted_kind_finds_it_and_another_does_not(task: Path, tmp_path: Path) -> None:
    removed = measured(
        task,
        tmp_path,
        (Teacher("cp", 0.3, 1), Teacher("lora", 0.3, 1), Teacher("melora", 0.3, 4, minis=4)),
        600,
        ladder=Ladder(head=True, sizes={"cp": (1,), "lora": (1,), "melora": (4,)}),
        families={
            "cp": FamilyPlan(learning_rates=(6e-2,), scale=8.0),
            "lora": FamilyPlan(learning_rates=(3e-2,), scale=2.0),
            "melora": FamilyPlan(learning_rates=(3e-2,), scale=2.0, options={"minis": 4}),
        },
    )
    assert removed["CP 1", "cp", 1] >= 0.95
    assert removed["LoRA 1", "lora", 1] >= 0.95
    assert removed["MELoRA 4", "melora", 4] >= 0.95
    # One component is of rank one. A rank of one is not one component.
    assert removed["CP 1", "lora", 1] >= 0.95
    assert removed["LoRA 1", "cp", 1] < 0.85
    # As many scalars as rank one, in blocks.
    assert removed["MELoRA 4", "lora", 1] < 0.95


@pytest.mark.long
def test_sixteen_components_are_found_by_sixteen_and_not_by_one(task: Path, tmp_path: Path) -> None:
    removed = measured(
        task,
        tmp_path,
        (Teacher("cp", 0.3, 16),),
        2000,
        ladder=Ladder(head=True, sizes={"cp": (1, 16)}),
        families={"cp": FamilyPlan(learning_rates=(2e-2,), scale=2.0)},
    )
    assert removed["CP 16", "cp", 16] >= 0.95
    assert removed["CP 16", "cp", 1] < 0.8
