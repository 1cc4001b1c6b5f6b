"""Trains banks one after another in one process and prints, as JSON, how many graphs each had to have compiled.

The GPU's path on a CPU: operators of the right shapes stand in for the kernels, and nothing is recorded. A process of
its own, because the compiler cannot see through the checks of shapes that the tests run under.
"""

import contextlib
import functools
import json
import sys
from collections.abc import Callable

import torch
from torch import Tensor
from torch._dynamo.utils import counters

from cpadapt.bank import packing, trainer
from cpadapt.bank.kernels import attention, lowrank
from cpadapt.inputs.backbones.loading import load_backbone
from cpadapt.inputs.tasks.examples import load_task
from cpadapt.inputs.tasks.specs import load_spec
from cpadapt.records.config import Protocol, RunConfig


class Unrecorded:
    """In the place of `cpadapt.bank.launches.Launches`."""

    def __init__(self, device: torch.device) -> None: ...

    def forget(self) -> None: ...

    def on_stream(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def launch(self, key: object, work: Callable[[], None]) -> None:
        work()


def zeros_like(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(map(torch.zeros_like, tensors))


def stand_in() -> None:
    """What only CUDA can do does nothing from here on; shapes are as they would be."""
    lowrank.low_rank.register_kernel(
        "cpu",
        lambda x, up, down, runs, components, most: (x.new_zeros(len(x), up.shape[1]), x.new_zeros(len(x), most)),
    )
    lowrank._low_rank_backward.register_kernel("cpu", lambda gradient, x, up, down, *_: zeros_like(x, up, down))
    attention._ragged_attention.register_kernel("cpu", lambda q, *_: zeros_like(*attention._results(q)))
    attention._ragged_attention_backward.register_kernel("cpu", lambda gradient, q, k, v, *_: zeros_like(q, k, v))
    attention.takes = lambda head_dim: True
    packing._padded = packing._variable_length
    packing.takes_kernels = trainer.takes_kernels = lambda device, dtype: True
    trainer.Launches = Unrecorded
    torch.compile = functools.partial(torch.compile, backend="eager")


def graphs(backbone: str, banks: list[tuple[str, dict[str, list[int]], int, int, float | None]]) -> list[int]:
    """How many were compiled for each bank: its task, sizes by family, seeds, batch size and tokens of a row."""
    loaded, found = load_backbone(backbone), []
    for task, cells, seeds, batch, max_tokens in banks:
        protocol = Protocol(steps=2, eval_every=2, batch_size=batch, train_cap=20, dev_cap=4, eval_cap=4)
        data = {0: load_task(load_spec(task), caps=protocol.caps)}
        runs = [
            RunConfig(
                backbone=backbone, task=task, family=family, size=size, seed=seed, data_seed=0, protocol=protocol,
                **({"learning_rate": 1e-3, "scale": 2.0} if size else {}),
            )
            for family, sizes in cells.items() for size in sizes for seed in range(seeds)
        ]  # fmt: skip
        before = counters["stats"]["unique_graphs"]
        trainer.Trainer(loaded, runs, data, compiled=True, max_tokens=max_tokens).train()
        found.append(counters["stats"]["unique_graphs"] - before)
    return found


if __name__ == "__main__":
    stand_in()
    banks = json.loads(sys.argv[1])
    print(json.dumps({backbone: graphs(backbone, banks) for backbone in sys.argv[2:]}))
