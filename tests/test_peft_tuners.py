"""PEFT's tuners as families of a study: from the file to records beside a bank's, in small on random layers."""

import dataclasses
import json
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from command_line import printed
from peft import PeftModel
from safetensors.torch import load_file

from cpadapt import Ladder, Record, load_backbone, load_records, load_study, tabulate, train
from cpadapt.analysis import charts
from cpadapt.analysis.across_tasks import chosen_settings
from cpadapt.analysis.frontier import frontier
from cpadapt.bank.trainer import Trainer, encode_sets
from cpadapt.cli import main
from cpadapt.families.peft_tuners import TUNERS
from cpadapt.inputs.backbones.projections import load_projections
from cpadapt.inputs.tasks.examples import load_task
from cpadapt.inputs.tasks.specs import load_spec
from cpadapt.study import with_protocol

pytestmark = pytest.mark.slow

STUDY = """
name = "all-on-one-axis"
backbone = "tiny-encoder"
tasks = ["toy-sentiment"]
draws = [1]
[ladder]
head = true
[ladder.sizes]
lora = [1]
tied = [1, 4]
"peft:lora" = [1]
"peft:vera" = [2]
"peft:fourierft" = [3]
"peft:tinylora" = [2]
"peft:unilora" = [1, 9]
[families.lora]
learning_rates = [1e-2]
[families.tied]
family = "peft:tinylora"
options = { weight_tying = 1.0 }
learning_rates = [1e-2]
[families."peft:lora"]
learning_rates = [1e-2]
[families."peft:vera"]
learning_rates = [1e-2, 3e-2]
[families."peft:fourierft"]
learning_rates = [1e-2]
scale = 50.0
[families."peft:tinylora"]
learning_rates = [1e-2]
[families."peft:unilora"]
learning_rates = [1e-2]
[protocol]
steps = 6
eval_every = 2
batch_size = 4
train_cap = 20
dev_cap = 12
eval_cap = 16
rest_cap = 8
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study, with its records in `r` and its weights in `w`."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.toml").write_text(STUDY)
    train(load_study(folder / "study.toml"), results=folder / "r", save=folder / "w", quiet=True)
    return folder


@pytest.fixture(scope="module")
def records(folder: Path) -> list[Record]:
    return load_records(folder / "r")


def test_records_stand_beside_the_banks(folder: Path, records: list[Record]) -> None:
    # 4 projections of 32×32.
    assert sorted((r.label, r.config.size, r.counts.adapter, r.counts.step) for r in records) == [
        ("head", 0, 0, 0), ("lora", 1, 256, 256), ("peft:fourierft", 3, 12, 4), ("peft:lora", 1, 256, 256),
        ("peft:tinylora", 2, 8, 4), ("peft:unilora", 1, 1, 1), ("peft:unilora", 9, 9, 1),
        ("peft:vera", 2, 136, 4), ("peft:vera", 2, 136, 4), ("tied", 1, 1, 1), ("tied", 4, 4, 1),
    ]  # fmt: skip
    assert {(r.config.protocol.id, r.data_fingerprint, r.weights.identity) for r in records} == {
        (records[0].config.protocol.id, records[0].data_fingerprint, records[0].weights.identity)
    }
    for record in records:
        assert [e.step for e in record.evaluations] == [2, 4, 6]
        assert (record.dev.total, record.outcome.total, record.rest.total) == (12, 16, 8)
        assert record.outcome.margin is not None
        assert record.counts.head == 2 * 32 + 2
        assert record.cost.bank_runs == (1 if record.config.family in TUNERS else 2)
    tied = next(r for r in records if (r.label, r.config.size) == ("tied", 4))
    assert (tied.config.family, tied.config.scale) == ("peft:tinylora", 1.0)
    assert tied.config.options == {"r": 2, "weight_tying": 1.0}
    assert len({record.id for record in records}) == len(records)

    table, _ = tabulate(records)
    on_axis = frontier(table)
    assert set(on_axis["label"]) == {"head", *load_study(folder / "study.toml").families}
    assert "VeRA" in charts.frontier_chart(table).to_dict()["description"]
    assert ("peft:vera", 2) in chosen_settings([r for r in records if r.label != "head"])


def test_what_is_done_is_not_trained_again_and_alone_it_is_the_same(
    folder: Path, records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = load_study(folder / "study.toml")
    alone = dataclasses.replace(study, ladder=dataclasses.replace(study.ladder, head=False, sizes={"tied": (4,)}))
    (again,) = train(alone, results=tmp_path, quiet=True)
    (before,) = (r for r in records if r.id == again.id)
    for field in ("cost", "provenance"):
        again = dataclasses.replace(again, **{field: getattr(before, field)})
    assert again == before

    monkeypatch.setattr("cpadapt.bank.trainer.Trainer.train", lambda self: pytest.fail("training began"))
    assert {r.id for r in train(study, results=folder / "r", quiet=True)} == {r.id for r in records}
    rows = json.loads(printed("status", folder / "study.toml", "--results", folder / "r", "--json"))
    assert sum(row["done"] for row in rows) == len(records)
    assert {row["missing"] for row in rows} == {0}


def test_a_killed_run_goes_on_from_its_checkpoint(folder: Path, records: list[Record], tmp_path: Path) -> None:
    (whole,) = (r for r in records if (r.label, r.config.size) == ("peft:vera", 2) and r.config.learning_rate == 1e-2)
    backbone, config = load_backbone("tiny-encoder"), whole.config
    data = {1: load_task(load_spec(config.task), caps=config.protocol.caps, data_seed=1)}

    def kill_at(step: int, word: str) -> None:
        if step == 3:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit):
        Trainer(backbone, [config], data, checkpoint=tmp_path / "state", progress=kill_at).train()
    (result,) = Trainer(load_backbone("tiny-encoder"), [config], data, checkpoint=tmp_path / "state").train()
    assert result.cost.resumed == 1
    assert (tuple(result.evaluations), result.outcome, result.rest) == (
        whole.evaluations, whole.outcome, whole.rest,
    )  # fmt: skip


@pytest.mark.parametrize("family", TUNERS)
def test_a_saved_adapter_loads_by_peft_and_answers_as_recorded(
    family: str, folder: Path, records: list[Record]
) -> None:
    """By the model's own forward, one example at a time."""
    record = next(r for r in records if r.config.family == family)
    backbone = load_backbone("tiny-encoder")
    model = PeftModel.from_pretrained(backbone.model, folder / "w" / record.id)
    config = model.peft_config["default"]
    assert (type(config).__name__, getattr(config, TUNERS[family].size)) == (TUNERS[family].config, record.config.size)
    head = load_file(folder / "w" / record.id / "head.safetensors")
    data = load_task(load_spec(record.config.task), caps=record.config.protocol.caps, data_seed=1)
    encoded = encode_sets(data, backbone, record.config.protocol)["eval"]
    margins = []
    for k, label in enumerate(encoded.labels):
        part = slice(encoded.offsets[k], encoded.offsets[k + 1])
        with torch.no_grad():
            hidden = model(
                input_ids=torch.from_numpy(encoded.tokens[part])[None],
                token_type_ids=torch.from_numpy(encoded.token_types[part])[None],
            ).last_hidden_state[0]
        features = F.layer_norm(hidden.mean(0), hidden.shape[-1:])
        scores = head["weight"] @ features + head["bias"]
        margins.append(float(scores[label] - scores[1 - label]))
    assert record.outcome.is_right.tolist() == [margin > 0 for margin in margins]
    np.testing.assert_allclose(record.outcome.margin, margins, rtol=0.05, atol=0.01)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('[families."peft:vera"]', '[families."peft:verra"]', r"'peft:verra' .*; known are .* peft:vera"),
        ("scale = 50.0", "scale = -1.0", "scale = -1.0 of family 'peft:fourierft': must be positive"),
        ("weight_tying = 1.0", "weight_tying = 1.5", "weight_tying = 1.5 of PEFT's TinyLoRA: must be from 0 to 1"),
        ("weight_tying = 1.0", "r = 0", "r = 0 of PEFT's TinyLoRA: must be 1 or more"),
        ("weight_tying = 1.0", "tying = 1.0", "family 'peft:tinylora' has no option 'tying'; it has r, weight_tying"),
        ("weight_tying = 1.0", "tinylora_dropout = 0.1", "has no option 'tinylora_dropout'"),
        (
            "options = { weight_tying = 1.0 }",
            "scale = 2.0",
            "scale = 2.0: must be 1, because PEFT's TinyLoRA has no scale",
        ),
        (
            '"peft:fourierft" = [3]',
            '"peft:fourierft" = [1025]',
            "at most 1024, the entries of the smallest .* not 1025",
        ),
        ('"peft:unilora" = [1, 9]', '"peft:unilora" = [1025]', "at most 1024, the entries of its factors of rank 4"),
        ('"peft:vera" = [2]', '"peft:vera" = [0]', "size = 0 of family 'peft:vera'|must be 1 or more, not 0"),
        ("learning_rates = [1e-2, 3e-2]", "", "family 'peft:vera' has no setting for size 2: give learning_rates"),
    ],
)
def test_what_peft_has_not_ends_before_training(
    old: str,
    new: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("cpadapt.bank.trainer.Trainer.train", lambda self: pytest.fail("training began"))
    assert old in STUDY
    (tmp_path / "study.toml").write_text(STUDY.replace(old, new))
    monkeypatch.setattr(sys, "argv", ["cpadapt", "run", str(tmp_path / "study.toml"), "--results", str(tmp_path)])
    with pytest.raises(SystemExit) as exit_:
        main()
    said = capsys.readouterr().err
    assert (exit_.value.code, said.count("\n")) == (2, 1)
    assert re.search(message, said), said


def test_the_command_line_knows_them(tmp_path: Path) -> None:
    said = "Not listed, because they don't fit a bank: PEFT's tuners"
    assert f"{said} peft:lora, peft:vera" in " ".join(printed("steps", 192, 576).split())
    assert f"{said}. They start, in scalars, at peft:lora 9,216, peft:vera" in " ".join(
        printed("plan", "--backbone", "minilm", "--budget", 9216).split()
    )
    printed(
        "try", "--backbone", "tiny-encoder", "--task", "toy-sentiment", "--cell", "peft:vera:4", "--cell", "cp:1",
        "--learning-rate", "peft:vera=1e-2", "--steps", 2, "--results", tmp_path, "--quiet",
    )  # fmt: skip
    assert {(r.config.family, r.config.size) for r in load_records(tmp_path)} == {("peft:vera", 4), ("cp", 1)}


def test_the_study_of_minilm_goes_from_one_scalar_to_loras_first_rank_and_runs_in_small(tmp_path: Path) -> None:
    study = load_study(Path(__file__).parents[1] / "studies" / "peft-minilm.toml")
    projections = load_projections("minilm")
    counts = {
        label: [study.count(projections, label, size) for size in study.ladder.sizes[label]]
        for label in study.families
    }
    assert counts == {
        "lora": [9216], "cp": [972, 8748], "tinylora-tied": [1, 16], "peft:tinylora": [768],
        "peft:unilora": [1, 972, 9216], "peft:fourierft": [12, 972], "peft:vera": [4620, 7680],
    }  # fmt: skip
    assert len({plan.learning_rates for plan in study.families.values()}) == 1

    small = dataclasses.replace(
        study, backbone="tiny-encoder", tasks=("toy-sentiment",), draws=(311,),
        ladder=Ladder(head=True, sizes=dict.fromkeys(study.families, (1,))),
    )  # fmt: skip
    small = with_protocol(
        small, steps=2, eval_every=1, batch_size=2, train_cap=16, dev_cap=12, eval_cap=8, rest_cap=4, dtype="float32"
    )
    train(small, results=tmp_path, quiet=True)
    adapted = [record for record in load_records(tmp_path) if record.label != "head"]
    assert len(adapted) == 4 * len(study.families)
    assert set(chosen_settings(adapted)) == {(label, 1) for label in study.families}
