"""What does one CP adapter cost, alone, through PEFT, beside PEFT's own LoRA at the nearest budget?

    python bench/one_adapter.py --backbone smollm2

A training step as anyone would write it (forward of a padded batch, a loss on the last tokens, backward, fused AdamW),
eager and compiled by `torch.compile` as it comes. The two adapters take turns in one process, each on a backbone of
its own; an adapter's peak memory is what it, its backbone and its step add to what the device held before.
"""

import gc
import itertools
from collections.abc import Callable, Sequence
from typing import Annotated, Any, cast

import measured
import shapes
import torch
import typer
from measured import Report, Timed, synchronize, time_calls
from peft import LoraConfig, PeftConfig, get_peft_model
from torch import Tensor

from cpadapt import CPConfig
from cpadapt.families import counting
from cpadapt.inputs.backbones.loading import Backbone
from cpadapt.inputs.backbones.specs import Dtype, Projection

QUESTION = "What does one CP adapter cost, alone, through PEFT, beside PEFT's LoRA at the nearest budget?"

FAMILIES = ("lora", "cp")


def main(
    backbone: measured.BackboneName = "smollm2",
    rank: Annotated[list[int], typer.Option(help="LoRA's; CP comes as near as it can.")] = [1, 8],  # noqa: B006
    length: Annotated[list[int], typer.Option(help="Tokens of a batch's longest text.")] = [32, 64],  # noqa: B006
    mode: Annotated[list[str], typer.Option(help="eager or compiled.")] = ["eager", "compiled"],  # noqa: B006
    batch_size: int = 8,
    repeats: Annotated[int, typer.Option(help="Turns of each.")] = 7,
    steps: Annotated[int, typer.Option(help="Steps of a turn.")] = 20,
    dtype: Annotated[str, typer.Option(help="Of the backbone; adapters are float32.")] = "bfloat16",
    results: measured.ResultsFolder = measured.RESULTS,
) -> None:
    """Measure on the first GPU, or the CPU if there is none, and write results/bench/one-adapter-….json."""
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings = {"backbone": backbone, "dtype": dtype, "batch_size": batch_size, "steps": steps}
    report = Report(results / f"one-adapter-{backbone}.json", QUESTION, where, settings)

    def load() -> Backbone:
        return shapes.load(backbone, dtype=cast(Dtype, dtype), device=where.type)

    # Else the first one measured would be charged for what the libraries allocate once.
    training_step(load(), "lora", rank=1, tokens=max(length), mode="eager", batch_size=batch_size)[0]()
    gc.collect()
    # What compiles slowly comes last.
    for m, r, tokens in itertools.product(mode, rank, length):
        with report.phase(f"{m}, rank {r}, {tokens} tokens"):
            _compare(report, load, {"rank": r, "tokens": tokens, "mode": m}, batch_size, repeats, steps)
    _print_ratios(report.rows)
    raise typer.Exit(int(report.failed))


def _compare(
    report: Report,
    load: Callable[[], Backbone],
    setting: dict[str, Any],
    batch_size: int,
    repeats: int,
    steps: int,
) -> None:
    """Both adapters in one setting: what a step of each is made of, then their times in turns."""
    where = report.where
    work: dict[str, Callable[[], None]] = {}
    seconds: dict[str, list[float]] = {family: [] for family in FAMILIES}
    try:
        for family in FAMILIES:
            held = torch.cuda.memory_allocated(where) if where.type == "cuda" else 0
            work[family], counted = training_step(load(), family, batch_size=batch_size, **setting)
            for _ in range(steps):
                work[family]()
            report.add("adapter", family=family, **setting, **counted, **_made_of(work[family], held, where))
        for _ in range(repeats):
            for family, step in work.items():
                seconds[family].append(time_calls(step, where, repeats=1, calls=steps, warmup=0).median)
        for family in FAMILIES:
            report.add("step", family=family, **setting, seconds=Timed.of(seconds[family]))
    finally:
        work.clear()
        torch.compiler.reset()
        gc.collect()
        if where.type == "cuda":
            torch.cuda.empty_cache()


def training_step(
    loaded: Backbone, family: str, *, rank: int, tokens: int, mode: str, batch_size: int, by_layer: bool = False
) -> tuple[Callable[[], None], dict[str, int]]:
    """A training step of a freshly adapted backbone, and what the adapter amounts to.

    `by_layer` calls the tuner past the `PeftModel`, so that each layer makes its own pair.
    """
    torch.manual_seed(0)
    targets = [projection.name for projection in loaded.projections]
    size = rank if family == "lora" else nearest_size(loaded.projections, rank)
    config: PeftConfig = (
        LoraConfig(r=size, lora_alpha=2 * size, target_modules=targets)
        if family == "lora"
        else CPConfig(num_components=size, target_modules=targets)
    )
    model: Any = get_peft_model(loaded.model, config).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
    batch, last = padded_batch(loaded, tokens, batch_size)
    rows = torch.arange(batch_size, device=last.device)
    called = model.base_model if by_layer else model
    call = torch.compile(called) if mode == "compiled" else called

    def step() -> None:
        hidden: Tensor = call(**batch, use_cache=False).last_hidden_state
        hidden[rows, last].float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, {"size": size, "parameters": sum(p.numel() for p in trained), "tensors": len(trained)}


def _made_of(step: Callable[[], None], held: int, where: torch.device) -> dict[str, int | None]:
    """Peak memory over what was held before, and kernels of a step; unknown on a CPU."""
    if where.type != "cuda":
        return {"peak_memory_bytes": None, "kernels": None}
    synchronize(where)
    torch.cuda.reset_peak_memory_stats(where)
    step()
    synchronize(where)
    peak = torch.cuda.max_memory_allocated(where) - held
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        step()
        synchronize(where)
    return {
        "peak_memory_bytes": peak,
        "kernels": sum(event.device_type.name == "CUDA" for event in profiler.events()),
    }


def nearest_size(projections: Sequence[Projection], rank: int) -> int:
    """The CP components whose parameters are nearest to those of LoRA at this rank."""
    return max(1, round(counting.count("lora", projections, rank) / counting.step("cp", projections)))


def padded_batch(loaded: Backbone, tokens: int, batch_size: int) -> tuple[dict[str, Tensor], Tensor]:
    """Texts of half the length to all of it, padded on the right, and where each one's last token is."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(max(1, tokens // 2), tokens + 1, (batch_size,), generator=generator)
    lengths[0] = tokens
    ids = torch.randint(1, loaded.model.config.vocab_size, (batch_size, tokens), generator=generator)
    mask = (torch.arange(tokens) < lengths[:, None]).long()
    where = loaded.model.device
    return {"input_ids": (ids * mask).to(where), "attention_mask": mask.to(where)}, (lengths - 1).to(where)


def _print_ratios(rows: Sequence[dict[str, Any]]) -> None:
    """CP over LoRA, a line a setting."""
    found: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in rows:
        if "error" not in row:
            setting = (row["rank"], row["tokens"], row["mode"])
            found.setdefault(setting, {}).setdefault(row["family"], {}).update(row)
    print(f"{'rank':>4} {'c':>4} {'tokens':>6} {'mode':>8} {'LoRA ms':>8} {'CP ms':>8} {'CP/LoRA: time':>14}"
          f" {'memory':>7} {'kernels':>7}")  # fmt: skip
    for (rank, tokens, mode), by_family in found.items():
        lora, cp = (by_family.get(family, {}) for family in FAMILIES)
        if "seconds" in lora and "seconds" in cp:
            before, after = lora["seconds"]["median"], cp["seconds"]["median"]
            ratios = [
                f"{cp[name] / lora[name]:.3f}" if lora.get(name) else "–" for name in ("peak_memory_bytes", "kernels")
            ]
            print(f"{rank:>4} {cp['size']:>4} {tokens:>6} {mode:>8} {before * 1e3:>8.2f} {after * 1e3:>8.2f}"
                  f" {after / before:>14.3f} {ratios[0]:>7} {ratios[1]:>7}")  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
