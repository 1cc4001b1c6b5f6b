"""The studies of planted updates: their files, and the way from a study to its map, in small."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from by_hand import read
from typer.testing import CliRunner

from cpadapt import load_projections, load_records, load_study
from cpadapt.analysis.charts import recovery_chart
from cpadapt.analysis.students import choose_settings, differences, recovery, removals, smallest_to_reach
from cpadapt.cli import app
from cpadapt.measure import train
from cpadapt.records.config import Protocol
from cpadapt.study import Ladder, Study

STUDIES, RESULTS = (Path(__file__).parents[1] / name for name in ("studies", "results"))


@pytest.mark.long
def test_the_study_in_small_goes_from_its_file_to_the_map(tmp_path: Path) -> None:
    run = ["run", str(STUDIES / "planted-tiny.toml"), "--results", str(tmp_path), "--device", "cpu", "--quiet"]
    ran = CliRunner(env={"COLUMNS": "200"}).invoke(app, run)
    assert ran.exit_code == 0, ran.output
    records = load_records(tmp_path)
    assert len(records) == 5 * 2 * 4
    assert "eval KL" in ran.stdout
    for record in records:
        assert f"{record.config.teacher.title} " in ran.stdout
        assert f"{record.outcome.divergence:.4f}" in ran.stdout
    removed = removals(records)
    found = recovery(removed)
    assert found["teacher"].unique().tolist() == ["CP 1", "LoRA 1", "MELoRA 2", "dense", "dense, 1/k"]
    assert found["draws"].tolist() == [2] * 15
    # Twenty steps find something, and never more than all.
    assert 0 < found["mean"].max() < 1
    assert len(differences(removed, [(("cp", 2), ("lora", 1))])) == 5
    assert smallest_to_reach(found, 0.95)[["cp", "lora"]].shape == (5, 2)
    assert len(recovery_chart(found).to_dict()["layer"]) == 3
    # A second run finds its records.
    assert CliRunner().invoke(app, run).exit_code == 0
    assert len(list(tmp_path.glob("*.jsonl.xz"))) == 1


@pytest.mark.slow
def test_the_settings_of_the_full_study_are_chosen_as_in_small() -> None:
    """The file of the rates, on the model in memory and in a few steps."""
    asked = load_study(STUDIES / "planted-rates.toml")
    protocol = replace(asked.protocol, steps=4, eval_every=2, batch_size=2, train_cap=20, dev_cap=10, dtype="float32")
    small = replace(
        asked, backbone="tiny", tasks=("toy-entailment",), teachers=asked.teachers[1:], draws=(101,), protocol=protocol
    )
    records = train(small, quiet=True)
    assert {record.outcome for record in records} == {None}
    chosen = choose_settings(removals(records, on_dev=True))
    tried = {
        (label, size): {
            (setting.learning_rate, setting.scale) for setting in asked.families[label].settings_of(label, size)
        }
        for label, sizes in asked.ladder.sizes.items()
        for size in sizes
    }
    assert chosen.keys() == tried.keys()
    assert all((setting.learning_rate, setting.scale) in tried[cell] for cell, setting in chosen.items())


def test_the_file_is_what_its_page_says_with_what_the_rates_chose() -> None:
    page = (STUDIES / "planted.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```toml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    removed = removals(load_records(RESULTS / "planted-rates"), on_dev=True)
    chosen = choose_settings(removed)

    def filled(match: re.Match[str]) -> str:
        setting = chosen[match["family"].lower(), int(match["size"])]
        rate = f"{setting.learning_rate:.0e}".replace("e-0", "e-")
        return match[0].replace("RATE", rate).replace("SCALE", str(setting.scale))

    block = re.sub(r"^.*RATE.*SCALE.*  # (?P<family>\w+) (?P<size>\d+)$", filled, block, flags=re.MULTILINE)
    # The rule of the steps: what LoRA 4 removes of LoRA 4's divergence, on the text where it is less.
    at = chosen["lora", 4]
    itself = removed[(removed["teacher"] == "LoRA 4") & (removed["label"] == "lora") & (removed["size"] == 4)]
    itself = itself[(itself["learning_rate"] == at.learning_rate) & (itself["scale"] == at.scale)]
    least = itself.groupby("task")["removed"].mean().min()
    assert round(least, 2) == 0.70
    if least < 0.95:
        # As many evaluations as in half the steps, of which the page says nothing.
        block = block.replace("steps = 1000", "steps = 2000").replace("eval_every = 250", "eval_every = 500")
    assert (STUDIES / "planted.toml").read_text(encoding="utf-8") == block


def test_the_settings_that_the_rates_chose_are_told_by_hand() -> None:
    """Means of draws, then of teachers, then of texts, from the lines of the records; no run diverged."""
    shares: dict[tuple[str, int], dict[tuple[float, float], list[float]]] = {}
    lines = read("planted-rates")
    before = {draw_of(line): line["dev"]["divergence"] for line in lines if line["label"] == "head"}
    for line in lines:
        assert line["diverged_at"] is None
        if line["label"] != "head":
            config = line["config"]
            cell = shares.setdefault((line["label"], config["size"]), {})
            removed = 1 - line["dev"]["divergence"] / before[draw_of(line)]
            cell.setdefault((config["learning_rate"], config["scale"]), []).append(removed)
    # Every setting has each draw of each teacher and text, so that a mean of means is a mean.
    assert {len(runs) for cell in shares.values() for runs in cell.values()} == {2 * 3 * 2}
    best = {cell: max(settings, key=lambda at: np.mean(settings[at])) for cell, settings in shares.items()}
    study = load_study(STUDIES / "planted.toml")
    takes = {("lora", 2): ("lora", 1), ("cp", 4): ("cp", 1), ("cp", 16): ("cp", 11),
             ("melora", 4): ("lora", 1), ("melora", 16): ("lora", 4)}  # fmt: skip
    for label, sizes in study.ladder.sizes.items():
        for size in sizes:
            (setting,) = study.families[label].settings_of(label, size)
            assert (setting.learning_rate, setting.scale) == best[takes.get((label, size), (label, size))]
    # At the low edge of both grids, for both ranks.
    assert {best["lora", rank] for rank in (1, 4)} == {min(shares["lora", 1])}


def test_the_longer_study_is_not_run_by_the_rule_that_was_made_before() -> None:
    """Neither CP 4 nor LoRA 4 removes 90 % of its kind on dev at its chosen setting: from the records' lines."""
    lines = read("planted-longer-rates")
    before = {draw_of(line): line["dev"]["divergence"] for line in lines if line["label"] == "head"}
    shares: dict[tuple[str, int], dict[float, dict[str, list[float]]]] = {}
    for line in lines:
        assert line["diverged_at"] is None
        if line["label"] != "head":
            config = line["config"]
            at_rate = shares.setdefault((line["label"], config["size"]), {}).setdefault(config["learning_rate"], {})
            removed = 1 - line["dev"]["divergence"] / before[draw_of(line)]
            at_rate.setdefault(config["teacher"]["family"], []).append(removed)
    itself = {}
    for label in ("cp", "lora"):
        by_rate = shares[label, 4]
        assert [{family: len(runs) for family, runs in at.items()} for at in by_rate.values()] == [
            {"cp": 2, "lora": 2}
        ] * 4
        best = max(by_rate, key=lambda rate: np.mean([np.mean(runs) for runs in by_rate[rate].values()]))
        itself[label] = float(np.mean(by_rate[best][label]))
    assert max(itself.values()) < 0.90
    assert not (STUDIES / "planted-longer.toml").exists()
    assert not (RESULTS / "planted-longer").exists()
    page = (STUDIES / "planted.md").read_text(encoding="utf-8")
    said = re.search(r"CP 4 removed (\d+) % .*? and LoRA 4\s+(\d+) %", page, re.DOTALL)
    assert said
    assert [int(share) for share in said.groups()] == [round(100 * itself[label]) for label in ("cp", "lora")]


def draw_of(line: dict[str, Any]) -> tuple[object, ...]:
    """What a run shares with that without an adapter."""
    config = line["config"]
    return config["task"], tuple(sorted(config["teacher"].items())), config["data_seed"]


def test_the_study_asks_for_what_its_page_and_the_queue_say() -> None:
    study, rates, longer = (
        load_study(STUDIES / f"{name}.toml") for name in ("planted", "planted-rates", "planted-longer-rates")
    )
    projections = load_projections(study.backbone)
    queue = (STUDIES / "README.md").read_text(encoding="utf-8")
    for each in (study, rates, longer):
        (runs,) = re.findall(rf"^\| `{each.name}` \|.*?\| (\d+) \|.*\| done \|$", queue, re.MULTILINE)
        assert len(each.runs(projections)) == int(runs) == len(load_records(RESULTS / each.name))
    counts = {(label, size): study.count(projections, label, size) for label, size in study.cells(projections)}
    for rank, components, ranks in ((1, 11, 4), (4, 44, 16)):
        assert counts["lora", rank] == counts["melora", ranks]
        assert 0.99 < counts["cp", components] / counts["lora", rank] < 1
    # Same protocol but for the steps, same texts, other draws; and each student that is planted too finds itself.
    assert replace(study.protocol, eval_cap=0, steps=1000, eval_every=250) == rates.protocol
    assert (study.tasks, study.backbone) == (rates.tasks, rates.backbone)
    assert not set(study.draws) & set(rates.draws)
    assert set(rates.teachers) < set(study.teachers)
    for teacher in study.teachers:
        assert teacher.family == "dense" or (teacher.family, teacher.size) in counts


@pytest.mark.parametrize(
    ("name", "norm", "dtype", "targets"),
    [("planted-pilot-small", 0.1, "float32", None), ("planted-pilot-v", 0.3, "bfloat16", ("v_proj",))],
)
def test_a_pilot_differs_from_the_longer_rates_as_said(
    name: str, norm: float, dtype: str, targets: tuple[str, ...] | None
) -> None:
    longer, pilot = (load_study(STUDIES / f"{each}.toml") for each in ("planted-longer-rates", name))
    assert pilot.target_modules == targets
    assert pilot.teachers == tuple(replace(teacher, norm=norm) for teacher in longer.teachers)
    assert (pilot.draws, pilot.tasks, pilot.ladder) == (longer.draws, longer.tasks, longer.ladder)
    shorter = replace(longer.protocol, steps=2000, eval_every=500, train_cap=16000, dtype=dtype)
    assert pilot.protocol == shorter
    assert len(pilot.runs(load_projections(pilot.backbone, targets))) == 64


def test_a_study_with_a_teacher_needs_words_and_different_teachers() -> None:
    study = load_study(STUDIES / "planted-tiny.toml")
    projections = load_projections("tiny")
    with pytest.raises(ValueError, match="'head': a teacher answers in label words; use 'verbalizer'"):
        replace(study, protocol=replace(study.protocol, readout="head")).runs(projections)
    with pytest.raises(ValueError, match=r"teachers = .*: values must be unique"):
        replace(study, teachers=study.teachers * 2)


def test_without_teachers_a_study_asks_for_the_runs_that_it_always_did() -> None:
    study = Study("own", "tiny", ("toy-entailment",), Ladder(head=True, sizes={"cp": (1,)}), protocol=Protocol())
    runs = study.runs(load_projections("tiny"))
    assert [(run.label, run.config.teacher) for run in runs] == [("head", None), ("cp", None)]
    # As it was before there were teachers.
    assert runs[1].config.config_id == "3779d9388358d230"
