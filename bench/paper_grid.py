"""Does the paper's own grid run from its study file, and what does it cost on this device?

    python bench/paper_grid.py --data-dir ../shared/data

The weights of its backbone need not be had. Random ones of the same shape, which take as long, are written to a
temporary folder where cpadapt looks for that backbone, with another model's tokenizer beside them. Then, by task,

- `cpadapt run studies/paper.toml` as a user runs it, but for a few steps and examples: each run must have a record;
- the whole bank of the task, with all of its runs and examples, timed over some steps and evaluations.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import bank_times
import measured
import shapes
import torch
import typer
from measured import Report

import cpadapt
from cpadapt.backbones import Backbone, load_backbone
from cpadapt.protocol import RunConfig
from cpadapt.record import load_records
from cpadapt.study import Study, with_protocol
from cpadapt.tasks import load_spec, load_task

QUESTION = "Does the paper's own grid run from its study file, and what does it cost on one device?"

PAPER = Path(__file__).resolve().parents[1] / "studies" / "paper.toml"

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
    with stand_in(asked.backbone), tempfile.TemporaryDirectory() as records:
        for task in asked.tasks:
            with report.phase(f"the command, {task}"):
                report.add("records", task=task, runs=prove(study, task, data_dir, Path(records)))
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


def prove(study: Path, task: str, data_dir: Path | None, records: Path) -> int:
    """Run a task of a study by the command, in few steps.

    Returns:
        How many runs have a record with an outcome.

    Raises:
        subprocess.CalledProcessError: the command fails.
        AssertionError: a run of the task has no record.
    """
    command = [sys.executable, "-c", "from cpadapt.cli import main; main()", "run", str(study), "--task", task]
    command += ["--results", str(records), "--quiet"]
    command += [f"--set={name}={value}" for name, value in PROOF.items()]
    command += [f"--data-dir={data_dir}"] if data_dir is not None else []
    subprocess.run(command, check=True)
    expected = runs_of(cpadapt.load_study(study), task)
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
