"""How many runs an hour does one device give: a bank, Trainer + PEFT one at a time, or as many of these as serve best?

    python bench/runs_per_hour.py --task sst2 --task rte --batch-size 8 --batch-size 16 --data-dir ../shared/data

Each is timed over a few steps in its steady state, with its evaluations; a whole run's time follows for the paper's
protocol: 5000 steps, dev (500 examples) every 1000 steps, eval (1000 examples) at the end. The peers are measured
first, in processes of their own, so that neither side finds the other in the device's memory; where NVIDIA's
multi-process service runs (CUDA_MPS_PIPE_DIRECTORY is set), they use it, and the result says so.
"""

import dataclasses
import gc
import itertools
import os
from pathlib import Path
from typing import Annotated, Any

import measured
import numpy as np
import shapes
import torch
import typer
from bank_times import LEARNING_RATES, BankTimes, run_bank, study_runs
from measured import Report, runs_per_hour
from peer import BLOCK, PRECISIONS, Precision, example_order, whole_blocks
from peers_at_once import PeerFailed, Peers, Round, Work

from cpadapt.bank.trainer import encode_sets
from cpadapt.families import lora
from cpadapt.inputs.backbones.loading import Backbone
from cpadapt.inputs.tasks.examples import TaskData, load_task
from cpadapt.inputs.tasks.specs import load_spec
from cpadapt.records.config import Protocol, RunConfig

QUESTION = (
    "How many runs an hour does one device give: a bank, Trainer + PEFT one at a time, or as many Trainer processes"
    " as serve best?"
)

PEER_RANK = 4
"""A LoRA of the middle of the ladder; the time of a peer's step hardly depends on it."""

FALLEN = 0.9
"""More peers are not tried once they give less than this share of the most runs an hour."""


def main(
    backbone: Annotated[str, typer.Option(help="smollm2, minilm, a hub id, a folder, or NAME-shape.")] = "smollm2",
    task: Annotated[list[str], typer.Option(help="As cpadapt knows it; repeat.")] = ["sst2"],  # noqa: B006
    data_dir: measured.DataFolder = None,
    runs: Annotated[int, typer.Option(help="Runs of the bank; 0 leaves it out.")] = 64,
    batch_size: Annotated[list[int], typer.Option(help="Repeat.")] = [8],  # noqa: B006
    steps: Annotated[int, typer.Option(help="Steps of one of the bank's timed blocks.")] = 40,
    blocks: Annotated[int, typer.Option(help="Blocks of the bank; the first is its start-up.")] = 4,
    peers: Annotated[
        str, typer.Option(help="Numbers of peers at once, rising; '' leaves them out.")
    ] = "1,2,4,8,16,24,32",
    peer_steps: Annotated[int, typer.Option(help="Timed steps of each peer.")] = 20,
    eval_batch_size: Annotated[int, typer.Option(help="The peers', in evaluations.")] = 64,
    dtype: Annotated[str, typer.Option(help="auto is bfloat16 on a GPU and float32 on a CPU.")] = "auto",
    results: measured.ResultsFolder = measured.RESULTS,
) -> None:
    """Measure, and write results/bench/runs-per-hour-BACKBONE-TASK-bBATCH_SIZE.json for each task and batch size."""
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen: Any = ("bfloat16" if where.type == "cuda" else "float32") if dtype == "auto" else dtype
    counts = [int(count) for count in peers.split(",") if count.strip()]
    if not whole_blocks(peer_steps):
        raise typer.BadParameter(f"peers' steps are timed in blocks of {BLOCK}, not {peer_steps}")
    cases = []
    for name, size in itertools.product(task, batch_size):
        paper = Protocol(batch_size=size, dtype=chosen)
        data = load_task(load_spec(name), data_dir=data_dir, caps=paper.caps)
        settings = {
            "backbone": backbone, "task": data.spec.name, "data_fingerprint": data.fingerprint, "runs": runs,
            "batch_size": size, "dtype": chosen, "steps": steps, "blocks": blocks, "peers": peers,
            "peer_steps": peer_steps, "eval_batch_size": eval_batch_size, "peer_rank": PEER_RANK,
            "protocol": dataclasses.asdict(paper), "mps": "CUDA_MPS_PIPE_DIRECTORY" in os.environ,
        }  # fmt: skip
        file = f"runs-per-hour-{Path(backbone).name}-{data.spec.name}-b{size}.json"
        cases.append((Report(results / file, QUESTION, where, settings), name, data, paper))
    if counts:
        with Peers(max(counts), where.type) as processes:
            for report, name, data, paper in cases:
                run = RunConfig(
                    backbone=backbone, task=name, family="lora", size=PEER_RANK, seed=0, data_seed=0, protocol=paper,
                    learning_rate=LEARNING_RATES["lora"], scale=lora.SCALE,
                )  # fmt: skip
                work = Work(run, data, chosen, peer_steps, warmup=5, eval_batch_size=eval_batch_size)
                sweep(report, processes, work, counts)
    if runs:
        loaded = shapes.load(backbone, dtype=chosen, device=where.type)
        for report, name, data, paper in cases:
            with report.phase("bank"):
                short = dataclasses.replace(paper, steps=steps * blocks, eval_every=steps)
                bank = study_runs(backbone, name, short, runs)
                # As the paper's 5000 steps would be.
                times = run_bank(loaded, bank, data, compiled=True if where.type == "cuda" else None)
                report.add("bank", times=times, **_bank_row(times, loaded, bank, data, paper))
            gc.collect()
            torch.cuda.empty_cache()
    raise typer.Exit(int(any(report.failed for report, *_ in cases)))


def sweep(report: Report, peers: Peers, work: Work, counts: list[int]) -> None:
    """Time one peer in each precision, then rising numbers of them in the faster one, until it no longer pays."""
    best: dict[Precision, float] = {}
    for precision in PRECISIONS if work.dtype != "float32" else PRECISIONS[-1:]:
        with report.phase(f"one peer, {precision}"):
            best[precision] = _note(report, peers.measure(1, work, precision), precision, work)
    if not best:
        return
    precision = max(best, key=lambda known: best[known])
    most = best[precision]
    for count in counts:
        if count == 1:
            continue
        with report.phase(f"{count} peers"):
            try:
                given = _note(report, peers.measure(count, work, precision), precision, work)
            except PeerFailed as error:
                # Not a failure of the measurement: this is where the device's memory ends. The rest of the message
                # lists what every process holds.
                report.add("peers", peers=count, precision=precision, stopped=str(error).partition(". ")[0])
                return
            if given < FALLEN * most:
                return
            most = max(most, given)


def _note(report: Report, got: Round, precision: Precision, work: Work) -> float:
    """Add a round of peers to the report. Returns the runs an hour that they give together."""
    share = (
        got.train_seconds / (got.peers * work.steps),
        got.dev_seconds / got.peers,
        got.eval_seconds / got.peers,
    )
    hourly = runs_per_hour(*share, work.run.protocol)
    report.add(
        "peers",
        peers=got.peers,
        precision=precision,
        train_seconds=got.train_seconds,
        steps=got.peers * work.steps,
        a_run=_named(share),
        runs_per_hour=hourly,
        own_step=measured.Timed.of([times.step.median for times in got.times]),
        real_tokens=float(np.mean([times.real_tokens for times in got.times])),
        padded_tokens=float(np.mean([times.padded_tokens for times in got.times])),
        one_of_them=dataclasses.asdict(got.times[0]),
    )
    return hourly


def _bank_row(
    times: BankTimes, backbone: Backbone, runs: list[RunConfig], data: TaskData, paper: Protocol
) -> dict[str, object]:
    """What follows from a bank's times for one of its runs."""
    lengths = np.diff(encode_sets(data, backbone, paper)["train"].offsets)
    warm = times.block_steps
    tokens = [lengths[example_order(run, len(lengths), run.protocol.steps)[warm:]].sum(1).mean() for run in runs]
    share = (times.step.median / times.runs, times.dev.median / times.runs, times.eval_seconds / times.runs)
    startup = times.startup_seconds / times.runs
    return {
        "a_run": _named(share),
        "real_tokens": float(np.sum(tokens)),
        "runs_per_hour": runs_per_hour(*share, paper),
        "runs_per_hour_with_startup": runs_per_hour(*share, paper, startup=startup),
    }


def _named(share: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("step_seconds", "dev_seconds", "eval_seconds"), share, strict=True))


if __name__ == "__main__":
    typer.run(main)
