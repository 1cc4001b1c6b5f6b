"""Which jobs a study comes to: those with runs that have no record."""

import stat
from pathlib import Path

import pytest
from in_snakemake import ONE_THREAD, Project

from cpadapt import load_study, train
from cpadapt.records.store import load_records

pytestmark = pytest.mark.slow

STUDY = """
name = "nano"
backbone = "tiny"
tasks = ["toy-sentiment", "toy-reading"]
ladder = { head = true, sizes = { cp = [1] } }
seeds = [0, 1]
families = { cp = { learning_rates = [4e-3] } }
protocol = { steps = 4, eval_every = 2, batch_size = 4, train_cap = 20, dev_cap = 10, eval_cap = 12 }
"""
GIVEN = ("study", "--config", "study=nano.toml", "results=records")
NOTHING = {"study": 1}


@pytest.fixture
def nano(project: Project) -> Path:
    """The study's file."""
    file = project.folder / "nano.toml"
    file.write_text(STUDY)
    return file


def measured(task: str, *shards: int) -> dict[str, int]:
    return {f"measure {task} {shard}": 1 for shard in shards}


def test_alone_it_builds_the_book_and_measures_nothing(project: Project) -> None:
    assert project.jobs() == {"book": 1}


def test_a_notebook_a_task_and_shard(project: Project, nano: Path) -> None:
    expected = measured("toy-sentiment", 1, 2) | measured("toy-reading", 1, 2)
    assert project.jobs(*GIVEN, "shards=2") == {"notebook": 1, "study": 1, **expected}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("shard=2", "--config shard: there is no such setting; there are study, shards, results, data_dir"),
        ("shards=0", "--config shards=0: give a whole number from 1 on"),
        ("shards=1/2", "--config shards=1/2: give a whole number from 1 on"),
        ("study=nowhere.toml", "no study at nowhere.toml: there is no such file"),
    ],
)
def test_a_wrong_setting_is_named(given: str, said: str, project: Project) -> None:
    process = project.start("study", "--dry-run", "--config", given)
    assert said in process.communicate()[0]
    assert process.returncode != 0


@pytest.mark.slow
def test_the_records_say_what_is_done(project: Project, nano: Path) -> None:
    results = project.folder / "records"
    train(load_study(nano), task="toy-reading", results=results)
    assert project.jobs(*GIVEN) == {"notebook": 1, "study": 1, **measured("toy-sentiment", 1)}
    train(load_study(nano), task="toy-sentiment", results=results)
    nano.touch()
    assert project.jobs(*GIVEN) == NOTHING
    # A third seed is dealt to the first of two shards.
    nano.write_text(STUDY.replace("[0, 1]", "[0, 1, 2]"))
    changed = measured("toy-sentiment", 1) | measured("toy-reading", 1)
    assert project.jobs(*GIVEN, "shards=2") == {"notebook": 1, "study": 1, **changed}
    nano.write_text(STUDY.replace("steps = 4", "steps = 6"))
    changed = measured("toy-sentiment", 1, 2) | measured("toy-reading", 1, 2)
    assert project.jobs(*GIVEN, "shards=2") == {"notebook": 1, "study": 1, **changed}


@pytest.mark.long
def test_a_change_trains_exactly_the_runs_that_it_changes(project: Project, nano: Path) -> None:
    nano.write_text(STUDY.replace(', "toy-reading"', ""))
    measure = (*GIVEN, "--profile", "workflow/profiles/local", *ONE_THREAD)
    project.run(*measure)
    first = {record.id: record for record in load_records(project.folder / "records")}
    assert sorted((r.label, r.config.seed) for r in first.values()) == [("cp", 0), ("cp", 1), ("head", 0), ("head", 1)]
    executed = project.folder / "build" / "workflow" / "nano" / "toy-sentiment-1-of-1.ipynb"
    assert "vega" in executed.read_text()
    nano.touch()
    assert project.jobs(*GIVEN) == NOTHING
    # The flag that the job has left does not make it done.
    nano.write_text(nano.read_text().replace("4e-3", "2e-3"))
    project.run(*measure)
    new = [record for record in load_records(project.folder / "records") if record.id not in first]
    assert sorted((r.label, r.config.seed, r.config.learning_rate) for r in new) == [("cp", 0, 2e-3), ("cp", 1, 2e-3)]


@pytest.mark.long
def test_a_notebook_that_fails_stays_with_its_error(project: Project, nano: Path) -> None:
    nano.write_text(STUDY.replace('"toy-sentiment", "toy-reading"', '"sst2"'))
    process = project.start(*GIVEN, "data_dir=nowhere", "--profile", "workflow/profiles/local", *ONE_THREAD)
    said = process.communicate()[0]
    assert process.returncode != 0, said
    executed = project.folder / "build" / "workflow" / "nano" / "sst2-1-of-1.ipynb"
    assert "the data folder nowhere does not exist" in executed.read_text()
    assert not executed.with_suffix(".done").exists()
    assert not (project.folder / "records").exists()


FAKE = """#!/bin/sh
case "$*" in *companion.notebooks*) mkdir -p build/notebooks; touch build/notebooks/run_budget.ipynb; exit;; esac
echo "start $CUDA_VISIBLE_DEVICES" >> used
sleep 0.5
echo "end $CUDA_VISIBLE_DEVICES" >> used
for word in "$@"; do echo "$word" >> "given-$CUDA_VISIBLE_DEVICES"; done
"""


@pytest.fixture
def fake_python(project: Project) -> None:
    """Jobs start a program that only says how it was started."""
    tool = project.folder / "bin" / "python"
    tool.parent.mkdir()
    tool.write_text(FAKE)
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    project.environment["PATH"] = f"{tool.parent}:{project.environment['PATH']}"


@pytest.mark.usefixtures("fake_python")
def test_what_papermill_is_given(project: Project, nano: Path) -> None:
    project.environment.pop("CUDA_VISIBLE_DEVICES", None)
    project.run(*GIVEN, "shards=2", "data_dir=my data", "--profile", "workflow/profiles/local")
    given = (project.folder / "given-").read_text().splitlines()
    parameters = {given[i + 1]: given[i + 2] for i, word in enumerate(given) if word == "-p"}
    assert parameters == {
        "study": "nano.toml", "results_dir": "records", "task": parameters["task"], "shard": parameters["shard"],
        "data_dir": "my data",
    }  # fmt: skip
    assert given.count("papermill") == 4
    assert {"1/2", "2/2", "toy-sentiment", "toy-reading"} <= set(given)


@pytest.mark.usefixtures("fake_python")
@pytest.mark.parametrize(("visible", "gpus"), [(None, ["0", "1"]), ("3,5", ["3", "5"])])
def test_a_slot_a_gpu(visible: str | None, gpus: list[str], project: Project, nano: Path) -> None:
    project.environment.pop("CUDA_VISIBLE_DEVICES", None)
    if visible is not None:
        project.environment["CUDA_VISIBLE_DEVICES"] = visible
    project.run(*GIVEN, "shards=2", "--profile", "workflow/profiles/local", "--cores", "2", "--resources", "gpu=2")
    busy: set[str] = set()
    together = 0
    for line in (project.folder / "used").read_text().splitlines():
        event, gpu = line.split()
        assert (event == "end") == (gpu in busy), "one job at a time"
        busy ^= {gpu}
        assert gpu in gpus
        together = max(together, len(busy))
    assert together == 2
