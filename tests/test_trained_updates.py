"""The measurement of trained updates, end to end on two random layers: seconds, and the same code as on a GPU."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trained_updates

from companion import updates
from companion.updates import Stage
from cpadapt.analysis.statistics import Floats
from cpadapt.errors import InputError
from cpadapt.families import FAMILIES, counting
from cpadapt.inputs.backbones.loading import Backbone
from cpadapt.inputs.backbones.projections import load_projections
from cpadapt.records.record import pack_bitmap
from cpadapt.study import Study, load_study

pytestmark = pytest.mark.long

STUDIES = Path(__file__).parents[1] / "studies" / "updates"
TASK = "toy-sentiment"
CELLS = [("lora", 1), ("cp", 2), ("lora", 2), ("cp", 4)]


@pytest.fixture(scope="module")
def loaded() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, "full", FAMILIES["lora"])  # removed again afterwards
        yield trained_updates.load(STUDIES / "tiny.toml", "cpu")


@pytest.fixture(scope="module")
def content(loaded: tuple[Study, Backbone], tmp_path_factory: pytest.TempPathFactory) -> updates.Content:
    path = tmp_path_factory.mktemp("results") / "record.json.xz"
    trained_updates.write(path, trained_updates.measure_task(*loaded, TASK, 1e-2, None))
    return updates.read(path)


def test_every_source_is_approximated_placed_and_trained_on(content: updates.Content) -> None:
    stages: dict[str, list[Any]] = {}
    for run in content["runs"]:
        source = None if run["source"] is None else tuple(run["source"])
        stages.setdefault(run["stage"], []).append((run["draw"], tuple(run["cell"]), source))
    full = ("full", 1)
    placed = [(cell, ("lora", 1)) for cell in CELLS if cell[0] == "cp"]
    placed += [(cell, ("lora", 2)) for cell in CELLS if cell != ("lora", 2)]
    placed += [(cell, full) for cell in CELLS]
    on = [(("cp", 2), ("lora", 1)), (("cp", 4), ("lora", 2)), *((cell, full) for cell in CELLS)]
    on += [(cell, cell) for cell in (*CELLS, full)]
    everything = {
        "trained": [(cell, None) for cell in (("head", 0), *CELLS, full)],
        "placed": placed,
        "trained on": on,
    }
    for stage, cells in everything.items():
        assert sorted(stages[stage], key=str) == sorted(((d, *c) for d in (1, 2) for c in cells), key=str), stage
    assert content["scalars"] == {"lora 1": 224, "cp 2": 184, "lora 2": 448, "cp 4": 368, "full 1": 3072}


def test_the_table_of_errors_holds_every_module_and_its_control(content: updates.Content) -> None:
    errors = content["errors"]
    modules = set(errors["module"])
    assert len(modules) == 4
    # Of two draws: CP of both sizes and its control on three sources; ranks below the source's: 0, 1 and 2 of them.
    assert len(errors["error"]) == 2 * 4 * (3 * 2 * 2 + 3)
    for family, error, bound, draw, shuffled in zip(
        *(errors[name] for name in ("family", "error", "bound", "draw", "shuffled")), strict=True
    ):
        assert 0 <= error <= 1
        assert (bound is not None) == (family == "cp" and draw == 1 and not shuffled)
        assert bound is None or bound <= error + 1e-3
    table = updates.error_table(content)
    assert len(table) == 9
    by_cell = table.set_index(["source", "family", "size"])["error"]
    for source in ("lora 1", "lora 2", "full 1"):
        assert by_cell[source, "cp", 4] < by_cell[source, "cp", 2]
    assert by_cell["full 1", "lora", 2] < by_cell["full 1", "lora", 1] < 1
    assert table["shuffled"].notna().tolist() == (table["family"] == "cp").tolist()


def test_the_parts_of_the_gap_add_up_draw_by_draw(content: updates.Content) -> None:
    parts = updates.gap_parts(content)
    sums: Floats = parts["expressed"].by_draw + parts["trained"].by_draw
    np.testing.assert_allclose(parts["gap"].by_draw, sums, atol=1e-12)
    assert parts["gap"].draws == (1, 2)
    # By hand, from counts.
    expected = []
    for draw in (1, 2):
        known = {(tuple(run["cell"]), tuple(run["source"] or ())): run for run in content["runs"]
              if run["stage"] == "trained on" and run["draw"] == draw}  # fmt: skip
        right = {key: run["eval"]["correct"] + run["rest"]["correct"] for key, run in known.items()}
        gaps = [right[lora, lora] - right[cp, cp] for lora, cp in ((CELLS[0], CELLS[1]), (CELLS[2], CELLS[3]))]
        expected.append(np.mean(gaps) / 40)
    np.testing.assert_allclose(parts["gap"].by_draw, expected)
    with pytest.raises(InputError, match="was not measured"):
        updates.difference(content, [(1.0, Stage("placed", ("lora", 9), ("full", 1)))])


def test_what_is_tested_over_tasks_is_two_parts_a_backbone_corrected_together(content: updates.Content) -> None:
    """Answers drawn anew, so that LoRA has 9 of 10 right and CP 5, and CP from LoRA's update as many as LoRA."""
    rng = np.random.default_rng(0)
    records: dict[str, list[updates.Content]] = {"one": [], "another": []}
    for task in 2 * ["rte", "trec", "mrpc", "qnli"]:
        drawn = copy.deepcopy(content) | {"task": task}
        for run in drawn["runs"]:
            well = run["source"] is not None and run["source"][0] == "lora"
            for name in ("eval", "rest"):
                right = rng.random(run[name]["total"]) < (0.9 if well else 0.5)
                run[name] |= {"right": pack_bitmap(np.flatnonzero(right), len(right)), "correct": int(right.sum())}
        records["one" if len(records["one"]) < 4 else "another"].append(drawn)
    found = updates.tests(records)
    assert list(zip(found["backbone"], found["part"], strict=True)) == [
        (backbone, part) for backbone in records for part in ("expressed", "trained")
    ]
    assert found["shown"].tolist() == [False, True, False, True]
    assert (found["holm"] >= found["p"]).all()
    assert found["mean"].tolist() == pytest.approx([0, 0.4, 0, 0.4], abs=0.08)
    assert ((found["low"] < found["mean"]) & (found["mean"] < found["high"])).all()


def test_full_fine_tuning_is_training_the_weights(loaded: tuple[Study, Backbone]) -> None:
    """One step of it equals one of torch's AdamW on the projections' weights, whose update has Adam's size."""
    study, backbone = loaded
    at = trained_updates.place(study, backbone, TASK, [1], None)
    config = trained_updates.full_config(study, backbone, TASK, 1, 1e-3)
    job = trained_updates.Job(dataclasses.replace(config, protocol=dataclasses.replace(study.protocol, clip=None)))
    ((_, trainer),) = at.trainers([job])
    with trainer.bank.attached():
        trainer._step(0)
    # In the first step Adam moves every scalar by the rate, up or down; a head of zeros gives them no gradient.
    (stack, *_) = trainer.bank.stacks
    assert stack.params["delta"].abs().max() == 0
    with trainer.bank.attached():
        trainer._step(1)
    moved = torch.cat([stack.params["delta"].flatten() for stack in trainer.bank.stacks])
    assert 1e-5 < moved.abs().median() < 1e-3
    # The same gradient as the weights themselves have.
    row, labels = trainer._pack("train", trainer._batches(2))
    ours = {name: [] for name in ("ours", "weights")}
    run_slice = trainer.bank.run_slice(slice(0, 1))
    with trainer.bank.attached():
        trainer.bank.backward(row, labels, run_slice)
        for stack in trainer.bank.stacks:
            ours["ours"] += [gradient[0] for gradient in stack.gradients["delta"]]
        adapted = [
            backbone.model.get_submodule(name).projection for s in trainer.bank.stacks for name in s.projections
        ]
        weights = [module.weight.requires_grad_() for module in adapted]
        loss = torch.nn.functional.cross_entropy(trainer.bank.logits(row, run_slice).flatten(0, 1), labels.flatten())
        ours["weights"] = list(torch.autograd.grad(loss, weights))
        for weight in weights:
            weight.requires_grad_(False)
    for mine, theirs in zip(*ours.values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-7)


def test_one_rate_is_chosen_on_dev(loaded: tuple[Study, Backbone], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained_updates, "FULL_RATES", (1e-6, 1e-2))
    monkeypatch.setattr(trained_updates, "CHOOSING", (101, 102))
    found = trained_updates.choose_rate(*loaded, None)
    means = {rate: np.mean(by_task[TASK]) for rate, by_task in found["dev_accuracy"].items()}
    assert found["chosen"] == (1e-2 if means["0.01"] > means["1e-06"] else 1e-6)
    assert [len(by_task[TASK]) for by_task in found["dev_accuracy"].values()] == [2, 2]


def test_a_study_without_pairs_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    tiny = (STUDIES / "tiny.toml").read_text(encoding="utf-8")
    file.write_text(tiny.replace("pairs = [{ lora = 1, cp = 2 }, { lora = 2, cp = 4 }]", ""))
    with pytest.raises(InputError, match=r"ladder\.pairs of lora and cp"):
        trained_updates.load(file, "cpu")


@pytest.mark.parametrize(("file", "rates"), [("smollm2", "size-rates-smollm2"), ("0.5b", "size-rates-0.5b")])
def test_the_studies_have_equal_scalars_one_setting_a_size_and_draws_of_their_own(file: str, rates: str) -> None:
    study, before = load_study(STUDIES / f"{file}.toml"), load_study(STUDIES.parent / f"{rates}.toml")
    assert (study.backbone, study.tasks) == (before.backbone, before.tasks)
    assert not {*study.draws} & {*before.draws, *trained_updates.CHOOSING}
    projections = load_projections(study.backbone, None)
    assert [pair["lora"] for pair in study.ladder.pairs] == [1, 2, 4, 8]
    for pair in study.ladder.pairs:
        budget = counting.count("lora", projections, pair["lora"])
        assert pair["cp"] == counting.largest_size("cp", projections, budget)
        for label, size in pair.items():
            (setting,) = study.families[label].settings_of(label, size)
            known = before.families[label].settings_of(label, before.ladder.sizes[label][0])
            asked = {(each.learning_rate, each.scale, each.warmup_steps) for each in known}
            assert (setting.learning_rate, setting.scale, setting.warmup_steps) in asked
