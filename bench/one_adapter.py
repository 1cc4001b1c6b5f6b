"""What does one CP adapter cost, alone, through PEFT, beside PEFT's own LoRA at the nearest budget?

    python bench/one_adapter.py --backbone smollm2

A training step as anyone would write it (forward of a padded batch, a loss on the last tokens, backward, fused AdamW),
eager and compiled by `torch.compile` as it comes. The two adapters take turns in one process, each on its
own backbone. Peak memory is measured before, with nothing else on the device, and so are the kernels of a step.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import measured
import shapes
import torch
import typer
from measured import Report, Timed, synchronize, time_calls
from peft import LoraConfig, PeftConfig, get_peft_model
from torch import Tensor

from cpadapt import CPConfig, budget
from cpadapt.backbones import Backbone, Dtype, Projection

QUESTION = "What does one CP adapter cost, alone, through PEFT, beside PEFT's LoRA at the nearest budget?"

FAMILIES = ("lora", "cp")
MODES = ("eager", "compiled")


def main(
    backbone: Annotated[str, typer.Option(help="Name, or a known one's shape, as opt-1.3b-shape.")] = "smollm2",
    rank: Annotated[list[int], typer.Option(help="LoRA's; CP comes as near as it can.")] = [1, 8],  # noqa: B006
    length: Annotated[list[int], typer.Option(help="Tokens of a batch's longest text.")] = [32, 64],  # noqa: B006
    batch_size: int = 8,
    repeats: Annotated[int, typer.Option(help="Turns of each.")] = 7,
    steps: Annotated[int, typer.Option(help="Steps of a turn.")] = 20,
    dtype: Annotated[str, typer.Option(help="Of the backbone; adapters are float32.")] = "bfloat16",
    results: Annotated[Path, typer.Option(help="Folder for the result.")] = measured.RESULTS,
) -> None:
    """Measure on the first GPU, or on the CPU where there is none, and write results/bench/one-adapter-….json."""
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings = {
        "backbone": backbone, "dtype": dtype, "batch_size": batch_size, "steps": steps, "compile": "default mode",
    }  # fmt: skip
    report = Report(results / f"one-adapter-{backbone}.json", QUESTION, where, settings)
    for r in rank:
        for tokens in length:
            for mode in MODES:
                with report.phase(f"rank {r}, {tokens} tokens, {mode}"):
                    _compare(report, lambda: shapes.load(backbone, dtype=_dtype(dtype), device=where.type),
                             r, tokens, batch_size, mode, repeats, steps)  # fmt: skip
    _print_ratios(report.rows)
    raise typer.Exit(int(report.failed))


def _compare(
    report: Report,
    load: Callable[[], Backbone],
    rank: int,
    tokens: int,
    batch_size: int,
    mode: str,
    repeats: int,
    steps: int,
) -> None:
    """Both adapters in one setting: what each takes by itself, then their times in turns."""
    what = {"rank": rank, "tokens": tokens, "mode": mode}
    for family in FAMILIES:
        with _step(load, family, rank, tokens, batch_size, mode) as (step, counted):
            report.add("alone", family=family, **what, **counted, **_alone(step, report.where))
    with (
        _step(load, "lora", rank, tokens, batch_size, mode) as (lora, _),
        _step(load, "cp", rank, tokens, batch_size, mode) as (cp, _),
    ):
        for step in (lora, cp):
            time_calls(step, report.where, repeats=1, warmup=steps)
        seconds: dict[str, list[float]] = {family: [] for family in FAMILIES}
        for _ in range(repeats):
            for family, step in zip(FAMILIES, (lora, cp), strict=True):
                seconds[family].append(time_calls(step, report.where, repeats=1, calls=steps, warmup=0).median)
    for family in FAMILIES:
        report.add("step", family=family, **what, seconds=Timed.of(seconds[family]))


@contextmanager
def _step(
    load: Callable[[], Backbone], family: str, rank: int, tokens: int, batch_size: int, mode: str
) -> Iterator[tuple[Callable[[], None], dict[str, Any]]]:
    """A training step of a freshly adapted backbone, and what the adapter amounts to."""
    loaded = load()
    torch.manual_seed(0)
    wanted = budget.count("lora", loaded.projections, rank)
    size = rank if family == "lora" else nearest_size(loaded.projections, wanted)
    targets = [projection.name for projection in loaded.projections]
    config: PeftConfig = (
        LoraConfig(r=size, lora_alpha=2 * size, target_modules=targets)
        if family == "lora"
        else CPConfig(num_components=size, target_modules=targets)
    )
    model: Any = get_peft_model(loaded.model, config).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    counted = {"size": size, "parameters": sum(parameter.numel() for parameter in trained), "tensors": len(trained)}
    optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
    batch, last = padded_batch(loaded, tokens, batch_size)
    call = torch.compile(model) if mode == "compiled" else model

    def step() -> None:
        hidden: Tensor = call(**batch, use_cache=False).last_hidden_state
        hidden[torch.arange(batch_size, device=last.device), last].float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    try:
        yield step, counted
    finally:
        torch.compiler.reset()
        del loaded, model, call, trained, optimizer, step
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def nearest_size(projections: Sequence[Projection], parameters: int) -> int:
    """CP's number of components whose count is nearest to this one."""
    return max(1, round(parameters / budget.step("cp", projections)))


def padded_batch(loaded: Backbone, tokens: int, batch_size: int) -> tuple[dict[str, Tensor], Tensor]:
    """Texts of half the length to all of it, padded on the right, and where each one's last token is."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(max(1, tokens // 2), tokens + 1, (batch_size,), generator=generator)
    lengths[0] = tokens
    ids = torch.randint(1, loaded.model.config.vocab_size, (batch_size, tokens), generator=generator)
    mask = (torch.arange(tokens) < lengths[:, None]).long()
    where = loaded.model.device
    return {"input_ids": (ids * mask).to(where), "attention_mask": mask.to(where)}, (lengths - 1).to(where)


def _alone(step: Callable[[], None], where: torch.device) -> dict[str, int | None]:
    """Peak memory and kernels of a step, after a few; unknown on a CPU."""
    if where.type != "cuda":
        return {"peak_memory_bytes": None, "kernels": None}
    for _ in range(3):
        step()
    synchronize(where)
    torch.cuda.reset_peak_memory_stats(where)
    step()
    synchronize(where)
    peak = torch.cuda.max_memory_allocated(where)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        step()
        synchronize(where)
    kernels = sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profiler.events())
    return {"peak_memory_bytes": peak, "kernels": kernels}


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


def _dtype(name: str) -> Dtype:
    return name  # type: ignore[return-value]  # load_backbone refuses what it does not know


if __name__ == "__main__":
    typer.run(main)
