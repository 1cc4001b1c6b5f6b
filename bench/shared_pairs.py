"""What is gained by making the factor pairs of all layers at once, rather than each in its layer?

    python bench/shared_pairs.py --backbone minilm

A training step of one CP adapter through PEFT, as `one_adapter.py` has it. The two ways take turns in one process.
"""

import itertools
from collections.abc import Callable
from typing import Annotated, cast

import measured
import shapes
import torch
import typer
from measured import Report, Timed, time_calls
from one_adapter import training_step

from cpadapt.inputs.backbones.specs import Dtype

QUESTION = "What is gained by making the factor pairs of all layers at once, rather than each in its layer?"

WAYS = {"at once": False, "by layer": True}


def main(
    backbone: measured.BackboneName = "smollm2",
    rank: Annotated[list[int], typer.Option(help="LoRA's, to which CP comes as near as it can.")] = [1, 8],  # noqa: B006
    tokens: Annotated[int, typer.Option(help="Tokens of a batch's longest text.")] = 32,
    mode: Annotated[list[str], typer.Option(help="eager or compiled.")] = ["eager"],  # noqa: B006
    batch_size: int = 8,
    repeats: Annotated[int, typer.Option(help="Turns of each.")] = 7,
    steps: Annotated[int, typer.Option(help="Steps of a turn.")] = 20,
    dtype: Annotated[str, typer.Option(help="Of the backbone; adapters are float32.")] = "bfloat16",
    results: measured.ResultsFolder = measured.RESULTS,
) -> None:
    """Measure on the first GPU, or the CPU if there is none, and write results/bench/shared-pairs-….json."""
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings = {"backbone": backbone, "dtype": dtype, "batch_size": batch_size, "steps": steps, "tokens": tokens}
    report = Report(results / f"shared-pairs-{backbone}-{where.type}.json", QUESTION, where, settings)
    for each, r in itertools.product(mode, rank):
        with report.phase(f"{each}, rank {r}"):
            work: dict[str, Callable[[], None]] = {}
            for way, by_layer in WAYS.items():
                loaded = shapes.load(backbone, dtype=cast(Dtype, dtype), device=where.type)
                work[way], counted = training_step(
                    loaded, "cp", rank=r, tokens=tokens, mode=each, batch_size=batch_size, by_layer=by_layer
                )
                for _ in range(steps):
                    work[way]()
            seconds: dict[str, list[float]] = {way: [] for way in WAYS}
            for _ in range(repeats):
                for way, step in work.items():
                    seconds[way].append(time_calls(step, where, repeats=1, calls=steps, warmup=0).median)
            for way in WAYS:
                report.add("step", way=way, mode=each, rank=r, **counted, seconds=Timed.of(seconds[way]))
            once, layer = (Timed.of(seconds[way]).median for way in WAYS)
            print(f"{each}, {counted['size']} components: {1e3 * once:.2f} ms at once, {1e3 * layer:.2f} ms by layer")
    raise typer.Exit(int(report.failed))


if __name__ == "__main__":
    typer.run(main)
