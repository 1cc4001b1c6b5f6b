"""How much faster is a study on two GPUs of one host, one process each, its runs divided between them?

    python bench/two_gpus.py --backbone smollm2 --task rte --data-dir ../shared/data

One process trains the whole bank alone; then each of two trains its shard of the same runs (`cpadapt run --shard`),
at the same time on a GPU of its own.
"""

import multiprocessing
from pathlib import Path
from typing import Annotated, Any

import bank_times
import measured
import shapes
import torch
import typer

from cpadapt.inputs.tasks.examples import load_task
from cpadapt.inputs.tasks.specs import load_spec
from cpadapt.records.config import Protocol
from cpadapt.study import Shard

QUESTION = "How much faster is a study on two GPUs of one host, its runs divided between them?"

GPUS = 2


def main(
    backbone: measured.BackboneName = "smollm2",
    task: Annotated[str, typer.Option(help="As cpadapt knows it.")] = "rte",
    data_dir: measured.DataFolder = None,
    runs: Annotated[int, typer.Option(help="Of the study.")] = 128,
    batch_size: int = 8,
    steps: Annotated[int, typer.Option(help="Steps of one of the timed blocks.")] = 50,
    blocks: Annotated[int, typer.Option(help="Blocks; the first is the start-up.")] = 4,
    results: measured.ResultsFolder = measured.RESULTS,
) -> None:
    """Measure on the first two GPUs, and write results/bench/two-gpus-BACKBONE-TASK-bBATCH_SIZE.json."""
    if torch.cuda.device_count() < GPUS:
        raise typer.BadParameter(f"two GPUs are needed, and {torch.cuda.device_count()} is here")
    protocol = Protocol(batch_size=batch_size, dtype="bfloat16", steps=steps * blocks, eval_every=steps)
    report = measured.Report(
        results / f"two-gpus-{Path(backbone).name}-{task}-b{batch_size}.json",
        QUESTION,
        torch.device("cuda"),
        {"backbone": backbone, "task": task, "runs": runs, "batch_size": batch_size, "steps": steps, "blocks": blocks},
    )
    context = multiprocessing.get_context("spawn")
    start, found = context.Barrier(GPUS), context.Queue()
    work = (backbone, task, data_dir, protocol, runs)
    processes = [context.Process(target=_work, args=(gpu, start, found, *work)) for gpu in range(GPUS)]
    for process in processes:
        process.start()
    with report.phase("one GPU, then two"):
        for _ in range(1 + GPUS):
            what, gpu, times = found.get(timeout=900)
            report.add(what, gpu=gpu, times=times)
    for process in processes:
        process.join()
    raise typer.Exit(int(report.failed))


def _work(
    gpu: int, start: Any, found: Any, backbone: str, task: str, data_dir: Path | None, protocol: Protocol, count: int
) -> None:
    data = load_task(load_spec(task), data_dir=data_dir, caps=protocol.caps)
    loaded = shapes.load(backbone, dtype="bfloat16", device=f"cuda:{gpu}")
    runs = bank_times.study_runs(backbone, task, protocol, count)
    shard = Shard(gpu + 1, GPUS).of([("", run) for run in runs])
    if gpu == 0:
        found.put(("one GPU", gpu, bank_times.run_bank(loaded, runs, data, compiled=True)))
    start.wait()
    found.put(("two GPUs", gpu, bank_times.run_bank(loaded, [run for _, run in shard], data, compiled=True)))


if __name__ == "__main__":
    typer.run(main)
