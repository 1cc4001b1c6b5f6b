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
from cpadapt.launches import Launches
from cpadapt.packing import Budget, Row
from cpadapt.protocol import Protocol
from cpadapt.tasks import load_spec, load_task
from cpadapt.trainer import Trainer

QUESTION = "What do the adapters cost on top of the frozen backbone?"


def main(
    backbone: Annotated[str, typer.Option(help="Name, or a known one's shape, as opt-1.3b-shape.")] = "smollm2",
    task: Annotated[str, typer.Option(help="Whose lengths.")] = "sst2",
    data_dir: Annotated[Path | None, typer.Option(envvar="CPADAPT_DATA_DIR", help="Folder of the tasks.")] = None,
    runs: int = 64,
    batch_size: int = 8,
    repeats: int = 5,
    steps: Annotated[int, typer.Option(help="Steps to a measurement.")] = 10,
    profile: Annotated[bool, typer.Option(help="Print where a step's time goes.")] = False,
    results: Annotated[Path, typer.Option(help="Folder for the result.")] = measured.RESULTS,
) -> None:
    """Measure on the first GPU, and write results/bench/frozen-backbone-BACKBONE-TASK-bBATCH_SIZE.json."""
    where = torch.device("cuda")
    loaded = shapes.load(backbone, dtype="bfloat16", device="cuda")
    layers = [m for n, m in loaded.model.named_modules() if isinstance(m, torch.nn.Linear)]
    weights = sum(m.weight.numel() for m in layers)
    report = measured.Report(
        results / f"frozen-backbone-{backbone}-{task}-b{batch_size}.json",
        QUESTION,
        where,
        {"backbone": backbone, "task": task, "runs": runs, "batch_size": batch_size, "frozen_weights": weights},
    )
    peak = measured.time_calls(_product(8192, 8192, 8192), where, repeats=5, calls=20, warmup=5)
    report.add("8192^3 matrix product", seconds=peak, flop=2 * 8192**3)
    protocol = Protocol(batch_size=batch_size, steps=10_000, eval_every=10_000, dtype="bfloat16")
    caps = protocol.train_cap, protocol.dev_cap, protocol.eval_cap
    data = {0: load_task(load_spec(task), data_dir=data_dir, caps=caps)}
    configs = bank_times.study_runs(backbone, task, protocol, runs)
    tokens = 0
    for compiled in (True, False):
        with report.phase(f"bank, compiled={compiled}"):
            tokens = _bank(report, Trainer(loaded, configs, data, compiled=compiled), repeats, steps, profile)
        gc.collect()
        torch.cuda.empty_cache()
    if tokens:
        with report.phase("matrices"):
            work = [_product(tokens, m.in_features, m.out_features) for m in layers]
            work += [_product(tokens, m.out_features, m.in_features) for m in layers]
            launches = Launches(where)

            def products() -> None:
                for product in work:
                    product()

            with launches.on_stream():
                seconds = measured.time_calls(
                    lambda: launches.launch("products", products), where, repeats=repeats, calls=3, warmup=2
                )
            report.add("matrices alone", tokens=tokens, seconds=seconds)
    raise typer.Exit(int(report.failed))


def _bank(report: measured.Report, trainer: Trainer, repeats: int, steps: int, profile: bool) -> int:
    """Time a bank, and its frozen backbone on rows of its largest budgets. Returns the tokens of these."""
    bank, launches = trainer.bank, trainer.launches
    assert launches is not None
    at = itertools.count()

    def timed(what: str, work: Callable[[], object], calls: int = steps, warmup: int = 2, **values: object) -> None:
        seconds = measured.time_calls(work, bank.device, repeats=repeats, calls=calls, warmup=warmup)
        report.add(what, compiled=bank.compiled, seconds=seconds, **values)
        if profile:
            _profile(work)

    with launches.on_stream(), bank.attached():
        started = measured.time_calls(lambda: trainer._step(next(at)), bank.device, repeats=1, warmup=0)
        report.add("first step", compiled=bank.compiled, seconds=started)
        torch.cuda.reset_peak_memory_stats()
        real, computed = _tokens(trainer, 200)
        # After so many steps few budgets are new; those that are, are timed too.
        timed("bank step", lambda: trainer._step(next(at)), warmup=60, real_tokens=real, computed_tokens=computed)
        report.add(
            "memory", compiled=bank.compiled, rows=len(trainer.rows),
            budgets=[len(row.budgets) for row in trainer.rows],
            peak_memory_bytes=torch.cuda.max_memory_reserved(),
        )  # fmt: skip

        largest = [max(row.budgets) for row in trainer.rows]
        kept = [row.budgets[tokens] for row, tokens in zip(trainer.rows, largest, strict=True)]

        def replayed() -> None:
            for row, tokens, (packed, labels) in zip(trainer.rows, largest, kept, strict=True):
                launches.launch(row.key(tokens), lambda r=row, p=packed, n=labels: bank.backward(p, n, r.share))
            launches.launch("update", trainer._update)

        timed("bank step replayed", replayed, tokens=sum(largest))
        timed("update replayed", lambda: launches.launch("update", trainer._update))

        launches.forget()
        torch.cuda.empty_cache()
        for adapted in bank._adapted.values():
            adapted.segments = adapted.up = adapted.down = None
        work = [_frozen(bank, packed) for packed, _ in kept]

        def frozen() -> None:
            for i, one in enumerate(work):
                launches.launch(i, one)

        timed("frozen backbone", frozen, tokens=sum(largest))
        launches.forget()
    return sum(largest)


def _frozen(bank: Bank, row: Row) -> Callable[[], None]:
    """The attached backbone's forward, and its backward to the embedded tokens."""
    model = bank.backbone.model
    embedded = model.get_input_embeddings()(row.tokens).detach().requires_grad_()
    inputs = {name: value for name, value in row.inputs.items() if name != "input_ids"}

    def work() -> None:
        hidden = model(inputs_embeds=embedded, **inputs, use_cache=False).last_hidden_state
        torch.autograd.grad(hidden, embedded, torch.ones_like(hidden))

    return work


def _tokens(trainer: Trainer, steps: int) -> tuple[float, float]:
    """Real and computed tokens of a step, on average."""
    real = computed = 0
    for step in range(steps):
        lengths = trainer._lengths("train", np.stack([trainer._batch(run, step) for run in trainer.runs]))
        for row in trainer.rows:
            tokens = int(lengths[row.share.runs].sum())
            real += tokens
            computed += Budget.of(tokens, trainer.longest).tokens
    return real / steps, computed / steps


def _product(m: int, k: int, n: int) -> Callable[[], object]:
    a = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
    b = torch.randn(n, k, device="cuda", dtype=torch.bfloat16)
    return lambda: torch.nn.functional.linear(a, b)


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
