"""How much faster is a study that several processes measure into one folder, and does each run stay one?

    python bench/writers.py

Every process trains on one thread, so more processes than cores cannot help; the report says how many cores there are.
The processes start together once all have loaded what they need, and the time is that of the last to end. Numbers of
processes take turns, every other turn backwards, so that what else the machine does meets all. The CPU's seconds of
each process do not depend on that: if the most that one takes falls as the number rises, the work is divided.
"""

import dataclasses
import multiprocessing
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import measured
import torch
import typer

from cpadapt import measure
from cpadapt.display import Terminal
from cpadapt.inputs.backbones.projections import load_projections
from cpadapt.records.config import Protocol
from cpadapt.records.store import load_records, record_files
from cpadapt.study import FamilyPlan, Ladder, Study

QUESTION = "How much faster is a study that several processes measure into one folder?"


def main(
    backbone: measured.BackboneName = "tiny",
    task: str = "toy-sentiment",
    seeds: Annotated[int, typer.Option(help="Seeds of the study; the runs of one are a bank.")] = 8,
    steps: int = 120,
    count: Annotated[list[int] | None, typer.Option(help="Processes; may be repeated.")] = None,
    rounds: Annotated[int, typer.Option(help="Turns of each.")] = 3,
    results: measured.ResultsFolder = measured.RESULTS,
) -> None:
    """Measure, and write results/bench/writers.json."""
    counts = count or [1, 2, 4]
    study = Study(
        name="writers",
        backbone=backbone,
        tasks=(task,),
        ladder=Ladder(head=True, sizes={"lora": (1,), "cp": (1, 2)}),
        families={"lora": FamilyPlan(), "cp": FamilyPlan()},
        seeds=tuple(range(seeds)),
        protocol=Protocol(steps=steps, eval_every=steps // 4, train_cap=64, dev_cap=50, eval_cap=50),
    )
    settings = {"backbone": backbone, "task": task, "seeds": seeds, "protocol": dataclasses.asdict(study.protocol)}
    report = measured.Report(results / "writers.json", QUESTION, torch.device("cpu"), settings)
    for turn in range(rounds):
        for processes in counts if turn % 2 == 0 else reversed(counts):
            with report.phase(f"turn {turn + 1}: {processes} at once"):
                report.add("processes", turn=turn, processes=processes, **_at_once(study, processes))
    raise typer.Exit(int(report.failed))


def _at_once(study: Study, count: int) -> dict[str, Any]:
    """Measure the study by some processes; the seconds, and how many runs each has recorded."""
    context = multiprocessing.get_context("spawn")
    ready, used = context.Barrier(count + 1), context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        processes = [context.Process(target=_work, args=(study, folder, ready, used)) for _ in range(count)]
        for process in processes:
            process.start()
        ready.wait()
        started = time.perf_counter()
        for process in processes:
            process.join()
        seconds = time.perf_counter() - started
        if any(process.exitcode for process in processes):
            raise RuntimeError("a process failed")
        cpu_seconds = sorted(used.get() for _ in processes)
        by_file = [[record.id for record in load_records(file)] for file in record_files(folder)]
    times = Counter(run for runs in by_file for run in runs)
    return {
        "seconds": seconds,
        "cpu_seconds_by_process": cpu_seconds,
        "asked": len(study.runs(load_projections(study.backbone))),
        "runs": len(times),
        "doubled": sum(recorded > 1 for recorded in times.values()),
        "runs_by_process": sorted(map(len, by_file)),
    }


def _work(study: Study, folder: str, ready: Any, used: Any) -> None:
    torch.set_num_threads(1)
    # What takes its time once, such as the first step, is done before the clock starts.
    measure.measure(dataclasses.replace(study, seeds=(len(study.seeds),)), display=Terminal(quiet=True))
    ready.wait()
    started = time.process_time()
    measure.measure(study, results=Path(folder), processes=len(study.seeds), display=Terminal(quiet=True))
    used.put(time.process_time() - started)


if __name__ == "__main__":
    typer.run(main)
