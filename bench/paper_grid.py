"""Does the paper's own grid run from its study file, and what does it cost on this device?

    python bench/paper_grid.py --data-dir ../shared/data

The weights of its backbone need not be had. Random ones of the same shape, which take as long, are written to a
temporary folder where cpadapt looks for that backbone, with another model's tokenizer beside them. Then, by task,

- `cpadapt run studies/paper.toml` as a user runs it, and the notebook `run_budget` through papermill, both for a few
  steps and examples: each run must have a record;
- the whole bank of the task, with all of its runs and examples, timed over some steps and evaluations.
"""

import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import bank_times
import jupytext
import measured
import papermill
import shapes
import torch
import typer
from measured import Report

import cpadapt
from cpadapt.inputs.backbones.loading import Backbone, load_backbone
from cpadapt.inputs.tasks.examples import load_task
from cpadapt.inputs.tasks.specs import load_spec
from cpadapt.records.config import RunConfig
from cpadapt.records.store import load_records
from cpadapt.study import Study, with_protocol

QUESTION = "Does the paper's own grid run from its study file, and what does it cost on one device?"

ROOT = Path(__file__).resolve().parents[1]
PAPER = ROOT / "studies" / "paper.toml"
NOTEBOOK = ROOT / "notebooks" / "run_budget.py"

PROOF = {"steps": 2, "eval_every": 1, "train_cap": 32, "dev_cap": 16, "eval_cap": 16}
"""The protocol where only whether it runs is asked."""


def main(
    study: Annotated[Path, typer.Option(help="The study file.")] = PAPER,
    data_dir: measured.DataFolder = None,
    steps: Annotated[int, typer.Option(help="Steps of one of the timed blocks.")] = 10,
    blocks: Annotated[int, typer.Option(help="Blocks; the first is the start-up.")] = 3,
    results: measured.ResultsFolder = measured.RESULTS,
) -> None:
    """Measure on the first GPU, or the CPU, and write results/bench/grid-STUDY.json."""
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    asked = cpadapt.load_study(study)
    settings = {"study": asked.name, "backbone": asked.backbone, "steps": steps, "blocks": blocks}
    report = Report(results / f"grid-{asked.name}.json", QUESTION, where, settings)
    with stand_in(asked.backbone):
        for task, (way, start) in itertools.product(asked.tasks, {"command": command, "papermill": notebook}.items()):
            with report.phase(f"{way}, {task}"), tempfile.TemporaryDirectory() as records:
                start(study, task, data_dir, Path(records))
                report.add("records", task=task, way=way, runs=count(asked, task, Path(records)))
        loaded = load_backbone(asked.backbone, dtype=asked.protocol.dtype, device=where.type)
        short = with_protocol(asked, steps=steps * blocks, eval_every=steps)
        for task in asked.tasks:
            with report.phase(f"the bank, {task}"):
                report.add("bank", task=task, times=time_bank(short, task, loaded, data_dir))
    raise typer.Exit(int(report.failed))


@contextlib.contextmanager
def stand_in(name: str) -> Iterator[None]:
    """Let cpadapt find random weights of a known backbone's shape, as it finds a checkpoint that was put there."""
    before = os.environ.get("CPADAPT_HOME")
    with tempfile.TemporaryDirectory() as home:
        # Made before the folder is another one: the tokenizer may lie in the one that was.
        for made in shapes.make(name, dtype="float16", device="cuda" if torch.cuda.is_available() else "cpu"):
            made.save_pretrained(Path(home) / name)
        os.environ["CPADAPT_HOME"] = home
        try:
            yield
        finally:
            os.environ.pop("CPADAPT_HOME")
            if before is not None:
                os.environ["CPADAPT_HOME"] = before


def command(study: Path, task: str, data_dir: Path | None, records: Path) -> None:
    """Run a task of a study from the command line, in few steps.

    Raises:
        subprocess.CalledProcessError: the command fails.
    """
    line = [sys.executable, "-c", "from cpadapt.cli import main; main()", "run", str(study), "--task", task]
    line += ["--results", str(records), "--quiet"]
    line += [f"--set={name}={value}" for name, value in PROOF.items()]
    line += [f"--data-dir={data_dir}"] if data_dir is not None else []
    subprocess.run(line, check=True)


def notebook(study: Path, task: str, data_dir: Path | None, records: Path) -> None:
    """Run a task of a study by the notebook, in few steps.

    Raises:
        papermill.PapermillExecutionError: a cell of the notebook fails.
    """
    given = {"study": str(study), "task": task, "results_dir": str(records), "changes": PROOF}
    with tempfile.TemporaryDirectory() as folder:
        made, done = (str(Path(folder) / name) for name in ("made.ipynb", "done.ipynb"))
        jupytext.write(jupytext.read(NOTEBOOK), made)
        given |= {"data_dir": str(data_dir)} if data_dir is not None else {}
        papermill.execute_notebook(made, done, parameters=given, cwd=str(ROOT), progress_bar=False)


def count(study: Study, task: str, records: Path) -> int:
    """How many runs have a record with an outcome.

    Raises:
        AssertionError: a run of the task has none.
    """
    expected = runs_of(study, task)
    found = [r for r in load_records(records) if r.config.task == task and r.outcome is not None]
    assert len(found) == len(expected), f"{len(found)} of {len(expected)} runs have an outcome"
    return len(found)


def runs_of(study: Study, task: str) -> list[RunConfig]:
    """A task's runs, all in one bank."""
    return [run for _, run in study.runs(cpadapt.load_projections(study.backbone)) if run.task == task]


def time_bank(study: Study, task: str, loaded: Backbone, data_dir: Path | None) -> bank_times.BankTimes:
    """Time all of a task's runs as one bank."""
    data = load_task(load_spec(task), data_dir=data_dir, caps=study.protocol.caps)
    return bank_times.run_bank(
        loaded, runs_of(study, task), data, compiled=True if torch.cuda.is_available() else None
    )


if __name__ == "__main__":
    typer.run(main)
