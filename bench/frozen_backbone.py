"""What do the adapters cost on top of the frozen backbone, and how near is it to what the device can do?

On the same packed rows of real lengths, each recorded as CUDA graphs:

- a bank's whole step (factors, forward, backward, AdamW), with and without fused kernels;
- the frozen backbone's forward and backward alone (the gradient of its input), likewise;
- its matrix products alone, on matrices of its sizes;

and beside them a step of the bank with the host's planning, which shows how long the device waits.
"""

import gc
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import bank_times
import measured
import numpy as np
import shapes
import torch
import typer

from cpadapt.bank import Bank
from cpadapt.packing import Budget
from cpadapt.protocol import Protocol
from cpadapt.tasks import load_spec, load_task
from cpadapt.trainer import Trainer

QUESTION = "What do the adapters cost on top of the frozen backbone?"


def main(
    backbone: Annotated[str, typer.Option(help="Name, or a known one's shape, as opt-1.3b-shape.")] = "smollm2",
    task: Annotated[list[str], typer.Option(help="Whose lengths; may be given several times.")] = ["sst2"],  # noqa: B006
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the tasks' data.")] = None,
    runs: int = 64,
    batch_size: int = 8,
    repeats: int = 5,
    steps: Annotated[int, typer.Option(help="Steps to a measurement.")] = 10,
    profile: Annotated[bool, typer.Option(help="Print where a step's time goes.")] = False,
    out: Path = measured.RESULTS,
) -> None:
    """Measure on the first GPU."""
    where = torch.device("cuda")
    loaded = shapes.load(backbone, dtype="bfloat16", device="cuda")
    layers = [m for n, m in loaded.model.named_modules() if isinstance(m, torch.nn.Linear)]
    weights = sum(m.weight.numel() for m in layers)
    report = measured.Report(
        out / f"frozen-backbone-{backbone}.json",
        QUESTION,
        where,
        {"backbone": backbone, "runs": runs, "batch_size": batch_size, "frozen_weights": weights},
    )
    peak = measured.time_calls(_product(8192, 8192, 8192), where, repeats=5, calls=20, warmup=5)
    report.add("8192^3 matrix product", seconds=peak, flop=2 * 8192**3)
    for name in task:
        protocol = Protocol(batch_size=batch_size, steps=10_000, eval_every=10_000, dtype="bfloat16")
        data = {0: load_task(load_spec(name), data_dir=data_dir, caps=(1000, 500, 1000))}
        configs = bank_times.study_runs(backbone, name, protocol, runs)
        for compiled in (True, False):
            with report.phase(f"{name} bank compiled={compiled}"):
                trainer = Trainer(loaded, configs, data, compiled=compiled)
                _bank(report, name, trainer, repeats, steps, profile)
            trainer = None
            gc.collect()
            torch.cuda.empty_cache()
        with report.phase(f"{name} matrices"):
            tokens = int(report.rows[-1].get("budget", 0) or 16384)
            work = [_product(tokens, m.in_features, m.out_features) for m in layers]
            work += [_product(tokens, m.out_features, m.in_features) for m in layers]

            def all_of_them(work: list[Callable[[], object]] = work) -> None:
                for product in work:
                    product()

            seconds = measured.time_calls(_recorded(all_of_them), where, repeats=repeats, calls=3)
            report.add("matrices alone", task=name, tokens=tokens, seconds=seconds)


def _bank(report: measured.Report, task: str, trainer: Trainer, repeats: int, steps: int, profile: bool) -> None:
    where, compiled = trainer.bank.device, trainer.bank.compiled
    at = itertools.count()
    with trainer.launches.on_stream(), trainer.bank.attached():
        started = measured.time_calls(lambda: trainer._step(next(at)), where, repeats=1, warmup=0)
        report.add("first step", task=task, compiled=compiled, seconds=started)
        for _ in range(60):
            trainer._step(next(at))
        # Recorded rows only: what is new from here on is timed too.
        torch.cuda.reset_peak_memory_stats()
        seconds = measured.time_calls(lambda: trainer._step(next(at)), where, repeats=repeats, calls=steps)
        real, computed = _tokens(trainer, 200)
        report.add(
            "bank step", task=task, compiled=compiled, seconds=seconds, real_tokens=real, computed_tokens=computed,
            rows=len(trainer.rows), graphs=len(trainer.launches._graphs),
            peak_memory_bytes=torch.cuda.max_memory_reserved(),
        )  # fmt: skip
        chosen = np.stack([trainer._batch(run, 0) for run in trainer.runs])

        def replayed() -> None:
            for row in trainer.rows:
                key = (row.share.runs.start, row.share.runs.stop, max(row.budgets))
                trainer.launches.launch(key, lambda: None)
            trainer.launches.launch("update", lambda: None)

        budgets = sum(max(row.budgets) for row in trainer.rows)
        for row in trainer.rows:
            key = (row.share.runs.start, row.share.runs.stop, max(row.budgets))
            if trainer.launches._graphs[key] is None:
                kept, labels = row.budgets[max(row.budgets)]
                trainer.launches.launch(
                    key, lambda kept=kept, labels=labels, row=row: trainer.bank.backward(kept, labels, row.share)
                )
        seconds = measured.time_calls(replayed, where, repeats=repeats, calls=steps)
        report.add("bank step replayed", task=task, compiled=compiled, budget=budgets, seconds=seconds)
        update = measured.time_calls(
            lambda: trainer.launches.launch("update", lambda: None), where, repeats=repeats, calls=steps
        )
        report.add("update replayed", task=task, compiled=compiled, seconds=update)
        if profile:
            _profile(replayed)
        rows = [row.budgets[max(row.budgets)][0] for row in trainer.rows]
        for adapted in trainer.bank._adapted.values():
            adapted.segments = adapted.up = adapted.down = None
        work = [_frozen(trainer.bank, row) for row in rows]
        trainer.launches.forget()
        for row in trainer.rows:
            row.budgets.clear()
        torch.cuda.empty_cache()

        def frozen() -> None:
            for i, one in enumerate(work):
                trainer.launches.launch(i, one)

        seconds = measured.time_calls(frozen, where, repeats=repeats, calls=steps, warmup=2)
        report.add("frozen backbone", task=task, compiled=compiled, budget=budgets, seconds=seconds)
        if profile:
            _profile(frozen)
        trainer.launches.forget()
    del chosen


def _frozen(bank: Bank, row: object) -> Callable[[], None]:
    model = bank.backbone.model
    embedded = model.get_input_embeddings()(row.tokens).detach().requires_grad_()
    inputs = {n: v for n, v in row.inputs.items() if n != "input_ids"} | {"inputs_embeds": embedded}

    def work() -> None:
        with torch.fx.experimental._config.patch(use_duck_shape=False):
            hidden = model(**inputs, use_cache=False).last_hidden_state
        torch.autograd.grad(hidden, embedded, torch.ones_like(hidden))

    return work


def _tokens(trainer: Trainer, steps: int) -> tuple[float, float]:
    """Real and computed tokens of a step, on average."""
    lengths = np.diff(trainer.pools["train"].offsets)
    real = computed = 0
    for step in range(steps):
        chosen = np.stack([trainer._batch(run, step) for run in trainer.runs])
        for row in trainer.rows:
            tokens = int(lengths[chosen[row.share.runs]].sum())
            real += tokens
            computed += Budget.of(tokens, int(lengths.max())).tokens
    return real / steps, computed / steps


def _product(m: int, k: int, n: int) -> Callable[[], object]:
    a = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
    b = torch.randn(n, k, device="cuda", dtype=torch.bfloat16)
    return lambda: torch.nn.functional.linear(a, b)


def _recorded(work: Callable[[], None]) -> Callable[[], None]:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        work()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        work()
    return graph.replay


def _profile(work: Callable[[], None]) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(3):
            work()
        torch.cuda.synchronize()
    table = profiler.key_averages().table(sort_by="self_cuda_time_total", row_limit=28, max_name_column_width=90)
    for line in table.splitlines():
        print(line[:92], line[-60:])


if __name__ == "__main__":
    typer.run(main)
