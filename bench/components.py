"""What do larger adapters cost in a bank, and does CP cost more than LoRA?

    python bench/components.py --backbone smollm2 --task sst2 --data-dir ../shared/data

Banks of as many runs each, all of one family and one size, on the same rows.
"""

import gc
from pathlib import Path
from typing import Annotated

import bank_times
import measured
import shapes
import torch
import typer
from measured import Report, time_calls

from cpadapt.bank.trainer import Trainer
from cpadapt.families import counting
from cpadapt.inputs.tasks.examples import load_task
from cpadapt.inputs.tasks.specs import load_spec
from cpadapt.records.config import Protocol

QUESTION = "What do larger adapters cost in a bank, and does CP cost more than LoRA?"

CELLS = (("lora", 1), ("lora", 2), ("lora", 8), ("cp", 1), ("cp", 11), ("cp", 22), ("cp", 88))
"""On SmolLM2 11 components hold about as many parameters as a rank, 22 as two and 88 as eight."""


def main(
    backbone: measured.BackboneName = "smollm2",
    task: Annotated[str, typer.Option(help="Whose lengths.")] = "sst2",
    data_dir: measured.DataFolder = None,
    runs: Annotated[int, typer.Option(help="Of each bank.")] = 64,
    batch_size: int = 8,
    steps: Annotated[int, typer.Option(help="Whose most common budget is measured.")] = 30,
    repeats: int = 5,
    results: measured.ResultsFolder = measured.RESULTS,
) -> None:
    """Measure on the first GPU, and write results/bench/components-BACKBONE-TASK-bBATCH_SIZE.json."""
    where = torch.device("cuda")
    loaded = shapes.load(backbone, dtype="bfloat16", device="cuda")
    protocol = Protocol(batch_size=batch_size, dtype="bfloat16")
    data = {0: load_task(load_spec(task), data_dir=data_dir, caps=protocol.caps)}
    settings = {"backbone": backbone, "task": task, "runs": runs, "batch_size": batch_size}
    path = results / f"components-{Path(backbone).name}-{task}-b{batch_size}.json"
    report = Report(path, QUESTION, where, settings)
    for family, size in CELLS:
        with report.phase(f"{family} {size}"):
            configs = bank_times.study_runs(backbone, task, protocol, runs, [(family, (size,))])
            trainer = Trainer(loaded, configs, data, compiled=True)
            tokens = bank_times.most_common(bank_times.capacities(trainer, steps))
            assert trainer.launches is not None
            with trainer.launches.on_stream(), trainer.bank.attached():
                for step in range(steps):
                    trainer._step(step)
                seconds = time_calls(
                    lambda t=trainer, n=tokens: bank_times.launch(t, n), where, repeats=repeats, calls=10, warmup=3
                )
            parameters = counting.count(family, loaded.projections, size)
            made_of = {"family": family, "size": size, "parameters": parameters}
            report.add("bank step", **made_of, tokens=sum(tokens), seconds=seconds)
            del trainer
        gc.collect()
        torch.cuda.empty_cache()
    raise typer.Exit(int(report.failed))


if __name__ == "__main__":
    typer.run(main)
