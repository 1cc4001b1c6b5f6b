"""What is the same when a bank is trained again, and when its runs are trained in other banks? And why?

    python bench/repeat.py --backbone smollm2 --task rte --data-dir ../shared/data
    OMP_NUM_THREADS=1 python bench/repeat.py --backbone minilm --task sst2 --data-dir ../shared/data --runs 4 \\
        --others 4 --others 8 --steps 8 --turns 1

The first is for a GPU, the second for a CPU, where `--dtype bfloat16` tells more.

**Again**: one bank as it is and deterministic (`cpadapt.bank.determinism`), in turns, and once more in another
process. Each is compared with the first of its kind.

**Other banks**: two of its runs alone, and in banks of several sizes. This is done as it is, fused and not, and in
ways in which what a token gets depends less on what is beside it. The way in which the runs are equal tells the cause:

- *exact*: the frozen backbone's products in float64, then rounded to its type;
- *by run*: its products for each run's tokens by themselves, so that the library always gets the same shapes;
- *one length*: where attention pads (without kernels for it), always to one length;
- *by run, one length*: both.

cuBLAS's workspace is fixed throughout, since a process can do that only once.
"""

import contextlib
import dataclasses
import itertools
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import measured
import numpy as np
import shapes
import torch
import torch.nn.functional as F
import typer
from bank_times import Watched, study_runs
from measured import Report, Timed
from numpy.typing import NDArray
from torch import Tensor, nn

from cpadapt.bank.bank import Bank, RunSlice
from cpadapt.bank.determinism import FIXED, WORKSPACE, deterministic
from cpadapt.bank.packing import Row, takes_kernels
from cpadapt.bank.trainer import pools_of
from cpadapt.inputs.backbones.loading import Backbone
from cpadapt.inputs.backbones.specs import Dtype
from cpadapt.inputs.tasks.examples import TaskData, load_task
from cpadapt.inputs.tasks.specs import load_spec
from cpadapt.records.config import Protocol, RunConfig

QUESTION = "What is the same when a bank is trained again, and when its runs are trained in other banks?"

CELLS = (("lora", (1, 4)), ("cp", (2, 11)))
WITH_EACH_FAMILY = slice(0, 4, 2)
"""Of the runs, those that are trained alone too."""

BLOCKS = 4
"""Evaluations on dev. Steps are timed from the second block on."""
ITEMS = 32
"""Eval items whose logits are compared."""


@dataclasses.dataclass
class Trained:
    """What one run came to."""

    weights: NDArray[np.float32]
    """All that it trained, after the last step, one after another."""
    logits: NDArray[np.float32]
    """`[items, labels]`, of these weights on the first eval items."""
    losses: NDArray[np.float64]
    """`[evaluations]`, on dev, in nats."""
    right: NDArray[np.bool_]
    """`[eval items]`, by the weights of the best step."""


@dataclasses.dataclass
class TrainedBank:
    """What one bank came to."""

    runs: dict[str, Trained]
    """By their configs' ids."""
    step: Timed


@dataclasses.dataclass(frozen=True)
class Work:
    """What every process is given."""

    backbone: str
    task: str
    data_dir: Path | None
    protocol: Protocol
    runs: int
    device: str
    threads: int

    def load(self) -> tuple[Backbone, TaskData]:
        """The backbone and the examples."""
        torch.set_num_threads(self.threads)
        loaded = shapes.load(self.backbone, dtype=self.protocol.dtype, device=self.device)
        return loaded, load_task(load_spec(self.task), data_dir=self.data_dir, caps=self.protocol.caps)

    def configs(self, count: int) -> list[RunConfig]:
        """The first runs of a study; a larger number has those of a smaller."""
        return study_runs(self.backbone, self.task, self.protocol, count, CELLS)


def main(
    backbone: measured.BackboneName = "smollm2",
    task: Annotated[str, typer.Option(help="As cpadapt knows it.")] = "rte",
    data_dir: measured.DataFolder = None,
    runs: Annotated[int, typer.Option(help="Of the bank that is trained again.")] = 16,
    others: Annotated[list[int], typer.Option(help="Runs of another bank, 4 or more; may be repeated.")] = [4, 16],  # noqa: B006
    steps: Annotated[int, typer.Option(help="A multiple of the evaluations, which are 4.")] = 40,
    turns: Annotated[int, typer.Option(help="Of the bank, in the first process.")] = 2,
    batch_size: int = 8,
    dtype: Annotated[str | None, typer.Option(help="Of the backbone (default: bfloat16; float32 on a CPU).")] = None,
    threads: Annotated[int, typer.Option(help="On a CPU.")] = 1,
    results: measured.ResultsFolder = measured.RESULTS,
) -> None:
    """Measure on the first GPU, or the CPU if there is none, and write results/bench/repeat-….json."""
    os.environ.setdefault(WORKSPACE, FIXED[0])
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or ("bfloat16" if where.type == "cuda" else "float32")
    protocol = Protocol(
        batch_size=batch_size, dtype=cast(Dtype, dtype), steps=steps, eval_every=steps // BLOCKS, dev_cap=100,
        eval_cap=200,
    )  # fmt: skip
    fused = takes_kernels(where, getattr(torch, dtype))
    settings = {
        "backbone": backbone, "task": task, "dtype": dtype, "runs": runs, "others": others, "steps": steps,
        "batch_size": batch_size, "cells": dict(CELLS), "fused": fused,
    }  # fmt: skip
    work = Work(backbone, task, data_dir, protocol, runs, where.type, threads)
    loaded, data = work.load()
    report = Report(
        results / f"repeat-{Path(backbone).name}-{task}-{where.type}-{dtype}.json", QUESTION, where, settings
    )
    with report.phase("again"):
        for way, banks in _again(work, loaded, data, fused, turns).items():
            first, *further = banks
            seconds = Timed.of([bank.step.median for bank in banks])
            report.add("again", way=way, bank_runs=runs, **difference(further, first.runs), step=seconds)
    longest = max(int(np.diff(pool.offsets).max(initial=0)) for pool in pools_of({0: data}, loaded, protocol).values())
    for sums in SUMS_OF_KERNELS if fused else SUMS:
        with report.phase(f"other banks, {sums}"), _summing(sums, loaded, longest):
            options = {"fused": sums == FUSED, "recorded": BY_RUN not in sums}
            alone = [train(loaded, [run], data, **options) for run in work.configs(runs)[WITH_EACH_FAMILY]]
            expected = {name: run for bank in alone for name, run in bank.runs.items()}
            for count in others:
                bank = train(loaded, work.configs(count), data, **options)
                report.add("other banks", sums=sums, bank_runs=count, **difference([bank], expected))
    raise typer.Exit(int(report.failed))


AS_IT_IS, DETERMINISTIC = WAYS = "as it is", "deterministic"


def _again(work: Work, loaded: Backbone, data: TaskData, fused: bool, turns: int) -> dict[str, list[TrainedBank]]:
    """Train the bank in both ways in turns, and at last in another process."""
    banks: dict[str, list[TrainedBank]] = {way: [] for way in WAYS}
    for way in WAYS * turns:
        banks[way].append(_in_a_way(way, work, loaded, data, fused))
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_elsewhere, args=(queue, work, fused))
    process.start()
    for _ in WAYS:
        way, bank = queue.get(timeout=600)
        banks[way].append(bank)
    process.join()
    return banks


def _elsewhere(queue: Any, work: Work, fused: bool) -> None:
    loaded, data = work.load()
    for way in WAYS:
        queue.put((way, _in_a_way(way, work, loaded, data, fused)))


def _in_a_way(way: str, work: Work, loaded: Backbone, data: TaskData, fused: bool) -> TrainedBank:
    with deterministic(work.device) if way == DETERMINISTIC else contextlib.nullcontext():
        return train(loaded, work.configs(work.runs), data, fused=fused)


class _Kept(Watched):
    """Keeps the weights of the last step."""

    def _evaluate(self) -> None:
        super()._evaluate()
        self.last = [trained.tensor.detach().clone() for trained in self.bank.tensors()]


def train(
    backbone: Backbone, runs: Sequence[RunConfig], data: TaskData, *, fused: bool, recorded: bool = True
) -> TrainedBank:
    """Train runs as one bank.

    Args:
        backbone: frozen.
        runs: of the bank.
        data: of all of them.
        fused: whether torch's compiler fuses kernels.
        recorded: whether steps may be recorded as launches.
    """
    trainer = _Kept(backbone, runs, {run.data_seed: data for run in runs}, fused)
    if trainer.launches is not None and not recorded:
        trainer.launches.launch = lambda key, work: work()  # type: ignore[method-assign]
    results = trainer.train()
    with torch.no_grad():
        for trained, last in zip(trainer.bank.tensors(), trainer.last, strict=True):
            trained.tensor.copy_(last)
    logits = _logits(trainer)
    found = {}
    for place, result in enumerate(results):
        adapter = trainer.bank.adapter_of(place)
        tensors = [*itertools.chain(*(kind.values() for kind in adapter.values()))]
        tensors += [tensor[place] for tensor in trainer.bank.head.values()]
        assert result.outcome is not None
        found[result.config.config_id] = Trained(
            weights=torch.cat([tensor.detach().flatten().cpu() for tensor in tensors]).numpy(),
            logits=logits[place],
            losses=np.array([evaluation.dev_loss for evaluation in result.evaluations]),
            right=result.outcome.is_right,
        )
    blocks = [after[0] - before[0] for before, after in itertools.pairwise(trainer.marks)]
    trainer.forget()
    return TrainedBank(found, Timed.of([seconds / trainer.protocol.eval_every for seconds in blocks]))


@torch.compiler.set_stance("force_eager")
@torch.no_grad()
def _logits(trainer: Watched) -> NDArray[np.float32]:
    """`[runs, items, labels]`"""
    chosen = np.tile(np.arange(ITEMS), (len(trainer.runs), 1))
    on_stream = contextlib.nullcontext() if trainer.launches is None else trainer.launches.on_stream()
    with on_stream, trainer.bank.attached():
        row, _ = trainer._pack("eval", chosen)
        logits = trainer.bank.logits(row, trainer.bank.run_slice(slice(0, len(chosen)))).cpu()
    return cast(NDArray[np.float32], logits.numpy())


def difference(banks: Sequence[TrainedBank], expected: Mapping[str, Trained]) -> dict[str, Any]:
    """How far runs are from what is expected of them, at most.

    Args:
        banks: with these runs, and others perhaps.
        expected: by config.
    """
    pairs = [(bank.runs[name], run) for bank in banks for name, run in expected.items()]
    same = [all(np.array_equal(*of_both) for of_both in zip(*map(_parts, pair), strict=True)) for pair in pairs]
    losses = [np.abs(got.losses - run.losses) for got, run in pairs]
    right = [(got.right, run.right) for got, run in pairs]
    return {
        "compared": len(pairs),
        "equal": sum(same),
        "weights": max(float(np.abs(got.weights - run.weights).max()) for got, run in pairs),
        "logits": max(float(np.abs(got.logits - run.logits).max()) for got, run in pairs),
        "dev_loss_by_evaluation": np.max(losses, axis=0).tolist(),
        "answers": sum(len(mine) for mine, _ in right),
        "other_answers": sum(int((mine != theirs).sum()) for mine, theirs in right),
        "accuracy": max(abs(float(mine.mean() - theirs.mean())) for mine, theirs in right),
    }


def _parts(run: Trained) -> list[NDArray[Any]]:
    return [run.weights, run.logits, run.right]


# Ways to sum.


FUSED, EXACT, BY_RUN, ONE_LENGTH = "fused", "exact", "by run", "one length"
SUMS = (AS_IT_IS, EXACT, BY_RUN, ONE_LENGTH, f"{BY_RUN}, {ONE_LENGTH}")
SUMS_OF_KERNELS = (FUSED, AS_IT_IS, EXACT, BY_RUN)
"""Where kernels attend, which do not pad."""


@contextlib.contextmanager
def _summing(sums: str, backbone: Backbone, longest: int) -> Iterator[None]:
    """Sum in one of these ways.

    Args:
        sums: the way.
        backbone: changed meanwhile.
        longest: the one length.
    """
    pieces: list[int] = []
    logits = Bank.logits

    def noting(bank: Bank, row: Row, run_slice: RunSlice) -> Tensor:
        segments = row.segments
        # The last run's end is the filling's. How much there is of it depends on the bank.
        if BY_RUN in sums:
            real = int(segments.example_offsets[segments.examples])
            ends = [*segments.run_offsets[1:-1].tolist(), real, row.tokens.shape[1]]
            pieces[:] = [end - begin for begin, end in itertools.pairwise([0, *ends])]
        if ONE_LENGTH in sums:
            row = dataclasses.replace(row, segments=dataclasses.replace(segments, longest=longest))
        return logits(bank, row, run_slice)

    def product(layer: nn.Linear, x: Tensor) -> Tensor:
        if sums == EXACT:
            bias = None if layer.bias is None else layer.bias.double()
            return F.linear(x.double(), layer.weight.double(), bias).to(x.dtype)
        if x.dim() < 3:  # an encoder's own pooler, which no readout uses
            return F.linear(x, layer.weight, layer.bias)
        return torch.cat([F.linear(part, layer.weight, layer.bias) for part in x.split(pieces, dim=1)], dim=1)

    changed = sums == EXACT or BY_RUN in sums
    layers = [module for module in backbone.model.modules() if changed and isinstance(module, nn.Linear)]
    Bank.logits = noting  # type: ignore[assignment,method-assign]
    for layer in layers:
        layer.forward = lambda x, layer=layer: product(layer, x)  # type: ignore[method-assign,misc]
    try:
        yield
    finally:
        Bank.logits = logits  # type: ignore[method-assign]
        for layer in layers:
            del layer.forward


if __name__ == "__main__":
    typer.run(main)
