"""The experiment on CP's hidden knobs: its design is what it says, and its files run in small from end to end."""

import dataclasses
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from companion import PROJECT, knobs
from cpadapt import Ladder, Study, load_study, train
from cpadapt.analysis.factors import contrasts, effects, terms_of
from cpadapt.inputs.backbones.projections import load_projections
from cpadapt.records.store import load_records
from cpadapt.study import with_protocol

STUDIES = ("knobs-smollm2", "knobs-0.5b")


def study(name: str) -> Study:
    return load_study(PROJECT / "studies" / f"{name}.toml")


def codes(asked: Study) -> NDArray[np.int64]:
    """`[settings, factors]`, of CP's runs on one task and draw."""
    runs = [run.config for run in asked.runs(load_projections(asked.backbone), task="sst2")]
    draw = asked.draws[0]
    of_cp = [config for config in runs if config.family == "cp" and config.seed == draw]
    return np.array([[factor.code(config) for factor in knobs.FACTORS] for config in of_cp])


@pytest.mark.parametrize("name", STUDIES)
def test_the_design_is_a_half_fraction_of_resolution_six_and_ten_settings_more(name: str) -> None:
    found = codes(study(name))
    corners = found[(found != 0).all(1)]
    assert len(np.unique(found, axis=0)) == len(found) == 42
    assert len(np.unique(corners, axis=0)) == len(corners) == 32
    words = [
        columns
        for length in range(1, 7)
        for columns in itertools.combinations(range(6), length)
        if len(set(corners[:, columns].prod(1))) == 1
    ]
    assert words == [(0, 1, 2, 3, 4, 5)], "no fewer than six factors multiply to a constant"
    assert set(corners.prod(1)) == {1}
    # Main effects and interactions of the corners alone are plain differences of means, each of the others apart.
    terms = [term for term in terms_of(knobs.FACTORS) if len(set(term)) == len(term)]
    names = [factor.name for factor in knobs.FACTORS]
    columns = np.stack([corners[:, [names.index(one) for one in term]].prod(1) for term in terms])
    assert (columns @ columns.T == 32 * np.eye(len(terms))).all()
    # With the ten others the curvatures of three factors can be told too, and no term costs much.
    error = np.sqrt((contrasts(found.astype(float), knobs.FACTORS) ** 2).sum(1))
    assert error[:21].max() < 1.05 * 2 / np.sqrt(32)
    assert error[21:].max() < 0.8


@pytest.mark.parametrize("name", STUDIES)
def test_lora_and_cp_without_the_knobs_have_equally_many_settings(name: str) -> None:
    asked = study(name)
    projections = load_projections(asked.backbone)
    runs = [run for run in asked.runs(projections, task="sst2") if run.config.seed == asked.draws[0]]
    assert [sum(run.label == label for run in runs) for label in ("lora", "cp")] == [8, 8]
    assert {run.config.options["raw_norm"] for run in runs if run.label == "cp"} == {1.0}
    (size,) = asked.ladder.sizes["cp"]
    assert set(asked.ladder.sizes.values()) == {(1,), (size,)}
    rank = asked.count(projections, "lora", 1)
    assert asked.count(projections, "cp", size) <= rank < asked.count(projections, "cp", size + 1)


def test_the_two_backbones_differ_in_size_alone() -> None:
    one, other = map(study, STUDIES)
    same = {"name": "same", "about": "", "backbone": "tiny", "ladder": Ladder(head=True)}
    assert dataclasses.replace(one, **same) == dataclasses.replace(other, **same)


@pytest.mark.long
def test_a_study_runs_in_small_from_its_file_to_its_effects(tmp_path: Path) -> None:
    """On two random layers, a generated task and two draws, at all of the file's settings."""
    asked = study("knobs-smollm2")
    asked = dataclasses.replace(
        asked, backbone="tiny", tasks=("toy-sentiment",), draws=(201, 202),
        ladder=Ladder(sizes=dict.fromkeys(asked.ladder.sizes, (1,))),
    )  # fmt: skip
    asked = with_protocol(asked, steps=52, eval_every=26, batch_size=1, train_cap=16, dev_cap=24, dtype="float32")
    train(asked, results=tmp_path, quiet=True)
    records = load_records(tmp_path)
    assert len(records) == 2 * 50
    found = effects([record for record in records if record.config.family == "cp"], knobs.FACTORS)
    assert len(found) == 6 + 15 + 3
    assert all(np.isfinite(effect.mean.interval()).all() for effect in found.values())
    settings = knobs.chosen(records)
    for name, labels in {knobs.LORA: "lora", knobs.TODAY: "cp", knobs.KNOBS: "cp-.*|cp"}.items():
        on_dev: dict[str, list[float]] = {}
        for record in records:
            if re.fullmatch(labels, record.label):
                setting = dataclasses.replace(record.config, task="any", seed=0, data_seed=0).config_id
                on_dev.setdefault(setting, []).append(record.best.dev_accuracy if record.best else 0.0)
        assert len(on_dev) == (42 if name == knobs.KNOBS else 8)
        best = max(map(np.mean, on_dev.values()))
        assert np.mean(on_dev[settings[name].config_id]) == pytest.approx(best)
    assert [setting.family for setting in settings.values()] == ["lora", "cp", "cp"]
    assert settings[knobs.TODAY].options["raw_norm"] == 1.0
