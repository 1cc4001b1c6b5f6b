"""Is a bank worth it on a CPU? A bank of twelve runs on MiniLM and SST-2 against Trainer + PEFT, one after another.

    OMP_NUM_THREADS=2 python bench/cpu_bank.py --data-dir ../shared/data

The two take turns a few times in one process, so that what else the machine does meets both (then add
OMP_WAIT_POLICY=PASSIVE: threads that wait in a loop for one that was put aside make times many times longer). The peer
trains the bank's LoRA runs; a whole run's time follows for the paper's protocol, evaluations included.
"""

import dataclasses
from typing import Annotated

import measured
import torch
import typer
from bank_times import run_bank, study_runs
from measured import Report, runs_per_hour
from peer import run_peer

from cpadapt.inputs.backbones.loading import load_backbone
from cpadapt.inputs.tasks.examples import load_task
from cpadapt.inputs.tasks.specs import load_spec
from cpadapt.records.config import Protocol

QUESTION = "Is a bank of twelve runs worth it on a CPU, against Trainer + PEFT for one run after another?"

CELLS = (("lora", (1, 2, 4, 8)), ("cp", (1, 2, 4, 9, 19, 28, 38, 76)))
"""MiniLM's rank costs 9216 scalars, a component 972: components below rank 1, and at ranks 1, 2, 3, 4 and 8."""


def main(
    data_dir: measured.DataFolder = None,
    backbone: str = "minilm",
    task: str = "sst2",
    batch_size: int = 8,
    steps: Annotated[int, typer.Option(help="Steps of a block: the bank's between evaluations, a peer's.")] = 20,
    rounds: Annotated[int, typer.Option(help="Turns of each.")] = 3,
    threads: int = 2,
    results: measured.ResultsFolder = measured.RESULTS,
) -> None:
    """Measure, and write results/bench/cpu-bank.json."""
    torch.set_num_threads(threads)
    paper = Protocol(batch_size=batch_size)
    data = load_task(load_spec(task), data_dir=data_dir, caps=paper.caps)
    settings = {
        "backbone": backbone, "task": data.spec.name, "data_fingerprint": data.fingerprint, "batch_size": batch_size,
        "steps": steps, "rounds": rounds, "cells": dict(CELLS), "protocol": dataclasses.asdict(paper),
    }  # fmt: skip
    report = Report(results / "cpu-bank.json", QUESTION, torch.device("cpu"), settings)
    # One each: neither may find what the other did to the model.
    of_bank, of_peer = load_backbone(backbone), load_backbone(backbone)
    short = dataclasses.replace(paper, steps=2 * steps, eval_every=steps)
    runs = study_runs(backbone, task, short, sum(len(sizes) for _, sizes in CELLS), CELLS)
    for turn in range(rounds):
        with report.phase(f"turn {turn + 1}: bank"):
            bank = run_bank(of_bank, runs, data)
            share = (bank.step.median / bank.runs, bank.dev.median / bank.runs, bank.eval_seconds / bank.runs)
            report.add("bank", turn=turn, times=bank, runs_per_hour=runs_per_hour(*share, paper))
        for run in runs:
            if run.family != "lora":
                continue
            with report.phase(f"turn {turn + 1}: peer of rank {run.size}"):
                peer = run_peer(of_peer, run, data, steps=steps)
                share = (peer.step.median, peer.dev.median, peer.eval.median)
                report.add("peer", turn=turn, rank=run.size, times=peer, runs_per_hour=runs_per_hour(*share, paper))
    raise typer.Exit(int(report.failed))


if __name__ == "__main__":
    typer.run(main)
