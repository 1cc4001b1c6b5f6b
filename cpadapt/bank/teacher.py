"""What a teacher answers: the class probabilities that its students are trained to match, in place of labels."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from cpadapt.bank.bank import Bank
from cpadapt.bank.packing import pack
from cpadapt.bank.trainer import TRAINING_TOKENS, Pool
from cpadapt.families.planted import Teacher
from cpadapt.inputs.backbones.loading import Backbone
from cpadapt.inputs.tasks.specs import TaskSpec
from cpadapt.records.config import HEAD, Protocol, RunConfig


def taught(
    pools: Mapping[str, Pool],
    teacher: Teacher,
    data_seeds: Collection[int],
    *,
    backbone: Backbone,
    spec: TaskSpec,
    protocol: Protocol,
) -> dict[str, Pool]:
    """Let a teacher answer every example; its class probabilities become what the runs' losses are taken against.

    Args:
        pools: the tokenized examples, as `cpadapt.bank.trainer.pools_of` makes them.
        teacher: drawn anew from each data seed.
        data_seeds: those of the runs that will learn; the examples of others get no answers.
        backbone: the model that the update is planted in. It is restored.
        spec: the task, whose label words are the classes.
        protocol: of the runs.

    Raises:
        InputError: as `cpadapt.bank.bank.verbalizer`, or as `Teacher.update`.
    """
    # A run without an adapter and with nothing to train is the backbone as it is.
    alone = RunConfig(backbone.name, spec.name, HEAD, size=0, seed=0, data_seed=0, protocol=protocol)
    bank = Bank(backbone, [alone], spec)
    targets = {name: np.zeros((len(pool.labels), len(spec.labels)), np.float32) for name, pool in pools.items()}
    for seed in data_seeds:
        with planted(backbone, teacher, seed), bank.attached():
            for name, pool in pools.items():
                for examples in _rows(pool, seed, TRAINING_TOKENS[bank.device.type]):
                    targets[name][examples] = _answers(bank, pool, examples)
    return {name: replace(pool, targets=targets[name]) for name, pool in pools.items()}


def _rows(pool: Pool, data_seed: int, most_tokens: int) -> Iterator[NDArray[np.int64]]:
    """The numbers of a draw's examples, cut where a packed row has enough tokens."""
    examples = pool.start[data_seed] + np.arange(pool.count)
    rows = np.cumsum(np.diff(pool.offsets)[examples]) // most_tokens
    for row in np.unique(rows):
        yield examples[rows == row]


@torch.no_grad()
def _answers(bank: Bank, pool: Pool, examples: NDArray[np.int64]) -> NDArray[np.float32]:
    """`[examples, labels]`, the class probabilities of the bank's one run."""
    row = pack(pool.tokens, pool.token_types, pool.offsets, examples[None], bank.device)
    logits = bank.logits(row, bank.run_slice(slice(0, 1)))[0]
    probabilities: NDArray[np.float32] = F.softmax(logits, -1).cpu().numpy()
    return probabilities


@contextmanager
def planted(backbone: Backbone, teacher: Teacher, seed: int) -> Iterator[None]:
    """Plant a teacher's update in every target module of a backbone; leaving takes it out.

    Its product is added to the module's, as an adapter's is. Added to the weight it would be rounded to the weight's
    precision, and no student could match the rounding.

    Args:
        backbone: changed meanwhile.
        teacher: what to plant.
        seed: decides the draw.

    Raises:
        InputError: as `Teacher.update`.
    """
    with ExitStack() as stack:
        for position, projection in enumerate(backbone.projections):
            module = backbone.model.get_submodule(projection.name)
            update = torch.from_numpy(teacher.update(seed, position, _weight(module)))
            update = update.to(backbone.model.device, backbone.model.dtype)
            handle = module.register_forward_hook(_adding(update))
            stack.callback(handle.remove)
        yield


def _weight(module: nn.Module) -> NDArray[np.float64]:
    """`[out, in]`, a projection's weight."""
    weight: Tensor = module.get_parameter("weight").detach()
    if isinstance(module, Conv1D):
        weight = weight.mT
    return weight.double().cpu().numpy()


def _adding(update: Tensor) -> Any:
    """A forward hook that adds the product of an update and a module's input to its output."""
    return lambda module, inputs, output: output + F.linear(inputs[0], update)
