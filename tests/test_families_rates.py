"""The studies that choose rates for families side by side: one rule for all of them, run in small from their files."""

import dataclasses
from pathlib import Path

import pytest

from cpadapt import Ladder, Study, load_records, load_study, train
from cpadapt.analysis.across_tasks import chosen_settings
from cpadapt.families import counting, family
from cpadapt.inputs.backbones.projections import load_projections
from cpadapt.inputs.tasks.specs import load_spec
from cpadapt.study import with_protocol

FILES = sorted((Path(__file__).parents[1] / "studies").glob("families-rates-*.toml"))
JUDGED = sorted(FILES[0].parent.glob("families-tasks-*.toml"))
IN_SMALL = {"smollm2": "tiny", "minilm": "tiny-encoder"}


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def study(request: pytest.FixtureRequest) -> Study:
    return load_study(request.param)


def test_every_family_has_the_same_settings_at_every_size(study: Study) -> None:
    settings = [
        {(one.learning_rate, one.scale, one.warmup_steps) for one in study.families[label].settings_of(label, size)}
        for label, sizes in study.ladder.sizes.items()
        for size in sizes
    ]
    assert len(settings[0]) == 8
    assert all(one == settings[0] for one in settings)
    assert sorted(len(load_spec(task).labels) for task in study.tasks) == [2, 2, 3, 4, 5, 6]


def test_sizes_are_the_smallest_and_those_that_cost_what_loras_ranks_cost(study: Study) -> None:
    projections = load_projections(study.backbone, study.target_modules)
    ranks = {study.count(projections, "lora", rank) for rank in study.ladder.sizes["lora"]}
    for label, sizes in study.ladder.sizes.items():
        if label == "lokr":  # which ends at or below LoRA's first rank
            assert sizes == (1, counting.largest_size(label, projections, max(ranks)))
            continue
        counts = [study.count(projections, label, size) for size in sizes]
        near = [count for count in counts if min(abs(count / rank - 1) for rank in ranks) < 0.06]
        assert near == counts[-2:], label
        assert len(counts) == 2 or sizes[0] == 1


@pytest.mark.slow
def test_it_runs_in_small_from_its_file_to_a_setting_for_each_family(study: Study, tmp_path: Path) -> None:
    """On random layers and a generated task, at each family's smallest size and all of the file's settings."""
    sizes = {label: (family(label).smallest(**study.families[label].options),) for label in study.ladder.sizes}
    small = dataclasses.replace(
        study, backbone=IN_SMALL[study.backbone], tasks=("toy-sentiment",), draws=(301,), ladder=Ladder(sizes=sizes)
    )
    small = with_protocol(small, steps=2, eval_every=1, batch_size=2, train_cap=16, dev_cap=12, dtype="float32")
    train(small, results=tmp_path, quiet=True)
    records = load_records(tmp_path)
    assert len(records) == 8 * len(sizes)
    assert {record.config.target_modules for record in records} == {study.target_modules}
    assert set(chosen_settings(records)) == {(label, size) for label, (size,) in sizes.items()}


@pytest.mark.parametrize("model", sorted(file.stem.removeprefix("families-tasks-") for file in JUDGED))
def test_what_was_chosen_is_what_is_judged(model: str) -> None:
    """On other draws; a size between takes the setting of the next below."""
    rates, judged = (load_study(FILES[0].with_name(f"families-{part}-{model}.toml")) for part in ("rates", "tasks"))
    chosen = chosen_settings(load_records(FILES[0].parents[1] / "results" / rates.name))
    assert set(judged.draws).isdisjoint(rates.draws)
    assert judged.ladder.sizes.keys() == rates.ladder.sizes.keys()
    for label, sizes in judged.ladder.sizes.items():
        assert set(sizes) >= set(rates.ladder.sizes[label])
        for size in sizes:
            (setting,) = judged.families[label].settings_of(label, size)
            asked = chosen[label, max(known for known in rates.ladder.sizes[label] if known <= size)]
            assert (setting.learning_rate, setting.scale) == (asked.learning_rate, asked.scale)
