"""What a bank takes: the project's own `Trainer`, watched block by block or one recorded step over and over."""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from measured import Timed, say
from torch import Tensor

from cpadapt.bank.trainer import Trainer
from cpadapt.errors import InputError
from cpadapt.families import family
from cpadapt.inputs.backbones.loading import Backbone
from cpadapt.inputs.tasks.examples import TaskData
from cpadapt.records.config import HEAD, Protocol, RunConfig

STUDY = (
    ("lora", (1, 2, 3, 4, 6, 8)),
    ("cp", (1, 2, 4, 8, 11, 15, 19, 22, 33, 44, 66, 88)),
    (HEAD, (0,)),
)
"""Families and sizes like a study's, up to rank 8; a bank of a few runs has adapters, and no head alone."""

LEARNING_RATES = {"lora": 1e-3, "cp": 2e-3}


@dataclass(frozen=True)
class BankTimes:
    """What one bank took."""

    runs: int
    startup_seconds: float
    """By how much the first block of steps and the first evaluation took longer than later ones: kernels are compiled
    there, and graphs recorded for the later ones too."""
    step: Timed
    """One training step of all runs; each measurement is the mean over a block."""
    block_steps: int
    dev: Timed
    """One evaluation of all runs on dev."""
    eval_seconds: float
    """The evaluation of all runs at the end."""
    peak_memory_bytes: int
    diverged: int
    """Runs that diverged; their steps cost the same."""


def study_runs(
    backbone: str,
    task: str,
    protocol: Protocol,
    count: int,
    cells: Sequence[tuple[str, Sequence[int]]] = STUDY,
) -> list[RunConfig]:
    """The first `count` runs of a study of these cells, seed by seed."""
    places = [(name, size) for name, sizes in cells for size in sizes]

    def run(index: int) -> RunConfig:
        seed, place = divmod(index, len(places))
        name, size = places[place]
        adapter: dict[str, Any] = {}
        if name != HEAD:
            adapter = {"learning_rate": LEARNING_RATES[name], "scale": family(name).SCALE}
        return RunConfig(
            backbone=backbone, task=task, family=name, size=size, seed=seed, data_seed=0, protocol=protocol, **adapter
        )

    return [run(index) for index in range(count)]


def run_bank(
    backbone: Backbone, runs: Sequence[RunConfig], data: TaskData, *, compiled: bool | None = None
) -> BankTimes:
    """Train runs as one bank, to the end of their protocol, and time it.

    Args:
        backbone: frozen.
        runs: of the bank.
        data: of all of them.
        compiled: as `cpadapt.bank.trainer.Trainer` has it: so few steps would not repay what a whole study's do.

    Raises:
        InputError: the protocol has fewer than two blocks (`steps` over `eval_every`): the first one is start-up.
    """
    protocol = runs[0].protocol
    if protocol.steps < 2 * protocol.eval_every:
        raise InputError("a bank is timed from its second block on: give it two blocks or more")
    trainer = Watched(backbone, runs, {run.data_seed: data for run in runs}, compiled)
    results = trainer.train()
    # A mark is the training and the evaluation time up to the end of a block.
    blocks = [(b[0] - a[0], b[1] - a[1]) for a, b in zip([(0.0, 0.0), *trainer.marks], trainer.marks, strict=False)]
    step = Timed.of([train / protocol.eval_every for train, _ in blocks[1:]])
    dev = Timed.of([evaluation for _, evaluation in blocks[1:]])
    cost = results[0].cost
    return BankTimes(
        runs=len(runs),
        startup_seconds=max(blocks[0][0] - step.median * protocol.eval_every, 0.0)
        + max(blocks[0][1] - dev.median, 0.0),
        step=step,
        block_steps=protocol.eval_every,
        dev=dev,
        eval_seconds=trainer.state.evaluation_seconds - trainer.marks[-1][1],
        peak_memory_bytes=cost.peak_memory_bytes,
        diverged=sum(result.diverged_at is not None for result in results),
    )


def capacities(trainer: Trainer, steps: int) -> list[list[int]]:
    """The tokens of the rows in each of the first steps."""
    chosen = map(trainer._batches, range(steps))
    return [[trainer._capacity(step[row.run_slice.runs]).tokens for row in trainer.rows] for step in chosen]


def most_common(capacities: Sequence[Sequence[int]]) -> list[int]:
    """Of each row."""
    return [statistics.mode(row) for row in zip(*capacities, strict=True)]


def launch(trainer: Trainer, capacities: Sequence[int]) -> None:
    """A step of a trainer on a GPU, on what its rows of these capacities hold already."""
    assert trainer.launches is not None
    for row, tokens in zip(trainer.rows, capacities, strict=True):
        packed, labels = row.buffers[tokens]
        trainer.launches.launch(
            row.key(tokens), lambda p=packed, n=labels, s=row.run_slice: trainer.bank.backward(p, n, s)
        )
    trainer.launches.launch("update", trainer._update)


class Watched(Trainer):
    """Notes after every evaluation on dev what training and evaluating have taken so far."""

    def __init__(
        self, backbone: Backbone, runs: Sequence[RunConfig], data: Mapping[int, TaskData], compiled: bool | None
    ) -> None:
        super().__init__(backbone, runs, data, compiled=compiled, progress=self._tell)
        self.marks: list[tuple[float, float]] = []
        self._told = 0.0

    def _step(self, step: int) -> Tensor:
        losses = super()._step(step)
        if step == 0 and self.launches is not None:
            self._record()
        return losses

    def _record(self) -> None:
        """Record all capacities that will come: a few hundred steps would not repay what a study's thousands do."""
        known = set()
        for step in range(self.protocol.steps):
            chosen = self._batches(step)
            for row in self.rows:
                examples = chosen[row.run_slice.runs]
                if (key := row.key(self._capacity(examples).tokens)) not in known:
                    known.add(key)
                    # Once as it is, once to be recorded.
                    self._backward(row, examples)
                    self._backward(row, examples)

    def _evaluate(self) -> None:
        super()._evaluate()
        self.marks.append((self.state.train_seconds, self.state.evaluation_seconds))

    def _tell(self, step: int, word: str) -> None:
        if time.perf_counter() - self._told > 10:
            self._told = time.perf_counter()
            say(f"bank: step {step}, {word}")
