"""What do the adapters cost on top of the frozen backbone, and how near is it to what the device can do?

    python bench/frozen_backbone.py --backbone smollm2 --task sst2 --data-dir ../shared/data

For each number of runs, on packed rows of real lengths:

- a bank's steps as they are in training, and the same launches again without the host's planning between them: the
  difference is how long the device waits;
- a bank's step (factors, forward, backward, AdamW) on rows of the budgets that are most common;
- the frozen backbone's forward and backward alone (the gradient of its input) on the same rows, recorded likewise:
  what a bank's step cannot fall below;
- the backbone's matrix products alone, on matrices of its sizes.

All with fused kernels and, on request, as the kernels of torch come; of a bank's step and the frozen backbone's also
which kinds of kernels take the time. Beside them, what the device can do: one large square product, and one large
block of memory copied.
"""

import gc
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import bank_times
import measured
import numpy as np
import shapes
import torch
import typer
from measured import Report, Timed, time_calls

from cpadapt.bank.bank import Bank
from cpadapt.bank.packing import Row
from cpadapt.bank.trainer import Trainer
from cpadapt.inputs.tasks.examples import load_task
from cpadapt.inputs.tasks.specs import load_spec
from cpadapt.records.config import Protocol

QUESTION = "What do the adapters cost on top of the frozen backbone?"

SIDE = 8192
"""Of the square matrices whose product is the device's peak."""

COPIED = 2**31
"""Bytes of the block whose copy shows how fast the device's memory is read and written."""

LIMITS = 9
"""Measurements of these two, which are short."""

KINDS = {
    "matrix products": r"nvjet|gemm|cutlass|xmma",
    "attention": r"^_(forward|backward)|flash",
    "adapters' products": r"^_(pair|matrices)$",
}
"""Kinds of kernels by what their names say. The others do elementwise work: norms, activations, sums, AdamW."""

REST = "elementwise"

PROFILED = 3
"""Calls whose kernels are watched."""

PRINTED = 16
"""Kernels that are printed, those that take longest."""


def main(
    backbone: measured.BackboneName = "smollm2",
    task: Annotated[list[str], typer.Option(help="Whose lengths; repeat.")] = ["sst2"],  # noqa: B006
    data_dir: measured.DataFolder = None,
    runs: Annotated[list[int], typer.Option(help="Of the bank; repeat.")] = [64],  # noqa: B006
    batch_size: int = 8,
    steps: Annotated[int, typer.Option(help="Steps to a measurement.")] = 30,
    repeats: int = 3,
    unfused: Annotated[bool, typer.Option(help="Also with the kernels of torch as they come.")] = True,
    results: measured.ResultsFolder = measured.RESULTS,
) -> None:
    """Measure on the first GPU, and write results/bench/frozen-backbone-BACKBONE-TASK-bN.json for each task."""
    where = torch.device("cuda")
    loaded = shapes.load(backbone, dtype="bfloat16", device="cuda")
    layers = [m for m in loaded.model.modules() if isinstance(m, torch.nn.Linear)]
    protocol = Protocol(batch_size=batch_size, dtype="bfloat16")
    failed = False
    for name in task:
        settings = {
            "backbone": backbone, "task": name, "runs": runs, "batch_size": batch_size, "steps": steps,
            "frozen_weights": sum(m.weight.numel() for m in layers),
        }  # fmt: skip
        path = results / f"frozen-backbone-{Path(backbone).name}-{name}-b{batch_size}.json"
        report = Report(path, QUESTION, where, settings)
        peak = time_calls(_square_product(), where, repeats=LIMITS, calls=20, warmup=20)
        report.add("square matrix product", flop=2 * SIDE**3, seconds=peak)
        copy = time_calls(_copy(), where, repeats=LIMITS, calls=20, warmup=5)
        report.add("memory copy", moved_bytes=2 * COPIED, seconds=copy)
        data = {0: load_task(load_spec(name), data_dir=data_dir, caps=protocol.caps)}
        for compiled in (True, False) if unfused else (True,):
            for count in runs:
                configs = bank_times.study_runs(backbone, name, protocol, count)
                with report.phase(f"{count} runs, compiled={compiled}"):
                    trainer = Trainer(loaded, configs, data, compiled=compiled)
                    _Measuring(report, trainer, layers, steps, repeats).measure()
                    del trainer
                gc.collect()
                torch.cuda.empty_cache()
        failed |= report.failed
    raise typer.Exit(int(failed))


def _square_product() -> Callable[[], object]:
    a, b = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return lambda: a @ b


def _copy() -> Callable[[], object]:
    source, target = (torch.empty(COPIED, device="cuda", dtype=torch.uint8) for _ in range(2))
    return lambda: target.copy_(source)


class _Measuring:
    """One bank under measurement."""

    def __init__(
        self, report: Report, trainer: Trainer, layers: Sequence[torch.nn.Linear], steps: int, repeats: int
    ) -> None:
        self.report, self.trainer, self.layers = report, trainer, layers
        self.steps, self.repeats = steps, repeats
        self.bank = trainer.bank
        assert trainer.launches is not None
        self.launches = trainer.launches

    def measure(self) -> None:
        """Measure all there is."""
        trainer, bank = self.trainer, self.bank
        with self.launches.on_stream(), bank.attached():
            self._add("first step", time_calls(lambda: trainer._step(0), bank.device, repeats=1, warmup=0))
            capacities = bank_times.capacities(trainer, self.steps)
            lengths = [trainer._lengths("train", trainer._batches(step)).sum() for step in range(self.steps)]
            # The first time a capacity comes it is not recorded yet, the second time it is being recorded.
            for _ in range(2):
                self._train()
            torch.cuda.reset_peak_memory_stats()
            self._add(
                "steps", self._a_step(self._train), real_tokens=float(np.mean(lengths)),
                computed_tokens=float(np.sum(capacities, 1).mean()),
                budgets=[len(row.buffers) for row in trainer.rows],
            )  # fmt: skip
            alone = self._a_step(lambda: [bank_times.launch(trainer, tokens) for tokens in capacities])
            self._add("launches alone", alone)
            self._add("memory", None, peak_memory_bytes=torch.cuda.max_memory_reserved())

            common = bank_times.most_common(capacities)

            def step() -> None:
                bank_times.launch(trainer, common)

            self._timed("bank step", step, tokens=sum(common))
            self._add("kernels", None, of="bank step", kinds=_kernels(step))
            self._timed("update", lambda: self.launches.launch("update", trainer._update))
            self.launches.forget()
            torch.cuda.empty_cache()
            rows = [row.buffers[tokens][0] for row, tokens in zip(trainer.rows, common, strict=True)]
            for adapted in bank._adapted.values():
                adapted.adapters = None
            work = [_frozen(bank, row) for row in rows]

            def frozen() -> None:
                for i, one in enumerate(work):
                    self.launches.launch(i, one)

            self._timed("frozen backbone", frozen, tokens=sum(common))
            self._add("kernels", None, of="frozen backbone", kinds=_kernels(frozen))
            self.launches.forget()
            if bank.compiled:
                products = [_products(tokens, self.layers) for tokens in common]

                def matrices() -> None:
                    for i, one in enumerate(products):
                        self.launches.launch(i, one)

                self._timed("matrices alone", matrices, tokens=sum(common))
                self.launches.forget()

    def _train(self) -> None:
        for step in range(self.steps):
            self.trainer._step(step)

    def _a_step(self, all_steps: Callable[[], object]) -> Timed:
        seconds = time_calls(all_steps, self.bank.device, repeats=self.repeats, warmup=0)
        values = (seconds.median, seconds.min, seconds.max)
        return Timed(*(value / self.steps for value in values), seconds.repeats)

    def _timed(self, what: str, work: Callable[[], None], **values: object) -> None:
        self._add(what, time_calls(work, self.bank.device, repeats=self.repeats, calls=10, warmup=3), **values)

    def _add(self, what: str, seconds: Timed | None, **values: object) -> None:
        self.report.add(what, runs=len(self.trainer.runs), compiled=self.bank.compiled, seconds=seconds, **values)


def _frozen(bank: Bank, row: Row) -> Callable[[], None]:
    """The attached backbone's forward, and its backward to the embedded tokens."""
    model = bank.backbone.model
    embedded = model.get_input_embeddings()(row.tokens).detach().requires_grad_()
    inputs = {name: value for name, value in row.inputs.items() if name != "input_ids"}

    def work() -> None:
        hidden = model(inputs_embeds=embedded, **inputs, use_cache=False).last_hidden_state
        torch.autograd.grad(hidden, embedded, torch.ones_like(hidden))

    return work


def _products(tokens: int, layers: Sequence[torch.nn.Linear]) -> Callable[[], None]:
    """What the frozen layers multiply, forward and backward."""
    widths = {width for layer in layers for width in layer.weight.shape}
    states = {width: torch.randn(tokens, width, device="cuda", dtype=torch.bfloat16) for width in widths}

    def work() -> None:
        for layer in layers:
            outer, inner = layer.weight.shape
            torch.nn.functional.linear(states[inner], layer.weight)
            states[outer] @ layer.weight

    return work


def _kernels(work: Callable[[], None]) -> dict[str, dict[str, float]]:
    """Seconds and number of the kernels of a call, by kind; the longest of them are printed."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        for _ in range(PROFILED):
            work()
        torch.cuda.synchronize()
    found = {kind: {"seconds": 0.0, "kernels": 0.0} for kind in (*KINDS, REST)}
    known = sorted(profiler.key_averages(), key=lambda kernel: -kernel.self_device_time_total)
    for place, kernel in enumerate(known):
        seconds, count = kernel.self_device_time_total / 1e6 / PROFILED, kernel.count / PROFILED
        if seconds:
            of_kind = found[kind_of(kernel.key)]
            of_kind["seconds"] += seconds
            of_kind["kernels"] += count
        if place < PRINTED:
            print(f"{seconds * 1e3:9.3f} ms {count:6.0f} x  {kernel.key[:100]}", flush=True)
    return found


def kind_of(kernel: str) -> str:
    """The kind of a kernel of this name."""
    return next((kind for kind, names in KINDS.items() if re.search(names, kernel)), REST)


if __name__ == "__main__":
    typer.run(main)
