"""One run of one of PEFT's tuners, trained as a bank of one: by the same loop, on the same packed rows.

PEFT's layers take the place of the backbone's projections and work token by token, so a packed row serves them as it
is. Everything but the adapter is a bank's: batches, readout, loss, clipping, optimizer, judging and recorded launches.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import peft
import torch
from peft.tuners.fourierft import FourierFTLayer
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from cpadapt.bank.bank import Bank, RunSlice, Stack
from cpadapt.bank.packing import Row
from cpadapt.errors import InputError
from cpadapt.families import counting
from cpadapt.families.peft_tuners import TUNERS
from cpadapt.inputs.backbones.loading import Backbone
from cpadapt.inputs.tasks.specs import TaskSpec
from cpadapt.records.config import RunConfig

WHOLE = ""
"""The adapters of PEFT's tuners are kept by the names of the whole model's parameters, not module by module."""


class PeftRun(Bank):
    """A bank of one run, whose adapter is one of PEFT's tuners.

    PEFT computes an adapter's products in float32 whatever the backbone's type. What it draws, the start included, it
    first rounds to that type.

    Args:
        backbone: as in `Bank`.
        runs: the one run.
        spec: the task.
        compiled: as in `Bank`.

    Raises:
        InputError: there are several runs; as `Tuner.count`; or as `Bank`.
    """

    def __init__(
        self, backbone: Backbone, runs: Sequence[RunConfig], spec: TaskSpec, *, compiled: bool = False
    ) -> None:
        if len(runs) != 1:
            raise InputError(f"{runs[0].family!r} is one of PEFT's tuners, which fit no bank; train a run alone")
        with tuned(backbone, runs[0]) as model:
            self._layers: dict[str, nn.Module] = {
                p.name: backbone.model.get_submodule(p.name) for p in backbone.projections
            }
            self._parameters: dict[str, Tensor] = _trained(model)
        for layer in self._layers.values():
            if isinstance(layer, FourierFTLayer):
                # PEFT would send them to the device at every step, which cannot be recorded.
                layer.indices = {name: places.to(backbone.model.device) for name, places in layer.indices.items()}
        super().__init__(backbone, runs, spec, compiled=compiled)

    def _projection(self, name: str) -> nn.Module:
        return self._layers[name]

    def _stacks(self) -> Iterator[Stack]:
        """The tuner's parameters as they are, each one entry of one layer."""
        params = {name: parameter.detach()[None, None] for name, parameter in self._parameters.items()}
        yield Stack(
            family=self.runs[0].family,
            runs=slice(0, 1),
            offsets=(0, 1),
            owners=torch.zeros(1, dtype=torch.int64, device=self.device),
            projections=(WHOLE,),
            params=params,
            gradients={name: torch.zeros_like(tensor) for name, tensor in params.items()},
        )

    def adapter_of(self, run: int) -> dict[str, dict[str, Tensor]]:
        """The run's adapter: under `WHOLE`, the model's trained parameters by name."""
        return {WHOLE: {name: parameter.detach().clone() for name, parameter in self._parameters.items()}}

    def run_slice(self, runs: slice) -> RunSlice:
        """The one run. What it updates are the parameters of PEFT's layers, not views of them."""
        made = super().run_slice(runs)
        (stack,) = made.stacks
        gradients = {name: gradient[0, 0] for name, gradient in stack.gradients.items()}
        return replace(made, stacks=(replace(stack, params=self._parameters, gradients=gradients),))

    def _hand_out(self, row: Row, run_slice: RunSlice) -> None:
        """PEFT's layers need nothing."""


@contextmanager
def tuned(backbone: Backbone, run: RunConfig) -> Iterator[peft.PeftModel]:
    """Let PEFT adapt a backbone's projections, as a run starts; leaving restores the backbone.

    Args:
        backbone: changed meanwhile.
        run: decides the tuner, the initial values, and what is random and frozen.

    Raises:
        InputError: as `Tuner.count`.
    """
    tuner = TUNERS[run.family]
    counting.count(run.family, backbone.projections, run.size, run.shape_options)  # which checks size and options
    fields: dict[str, Any] = {tuner.size: run.size, **run.options}
    if tuner.scale is not None and run.scale is not None:
        fields |= tuner.scale(run.scale, run.size)
    if tuner.seed is not None:
        # TinyLoRA adds a layer's number to it; neighbouring seeds would share nearly all of their projections.
        fields[tuner.seed] = int(np.random.SeedSequence(run.seed).generate_state(1)[0])
    names = [p.name for p in backbone.projections]
    transposed = isinstance(backbone.model.get_submodule(names[0]), Conv1D)
    config = getattr(peft, tuner.config)(target_modules=names, fan_in_fan_out=transposed, **fields)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(run.seed)
        model = peft.get_peft_model(backbone.model, config)
    try:
        yield model
    finally:
        model.unload()


def to_peft(
    backbone: Backbone, run: RunConfig, adapter: dict[str, dict[str, Tensor]]
) -> tuple[peft.PeftConfig, dict[str, Tensor]]:
    """A trained adapter as PEFT saves it.

    Args:
        backbone: that it was trained on; changed meanwhile.
        run: how it was trained.
        adapter: its weights, as `Bank.adapter_of` gives them.

    Returns:
        PEFT's config and the tensors of its file, with what is random, frozen and stored.
    """
    with tuned(backbone, run) as model, torch.no_grad():
        for name, parameter in _trained(model).items():
            parameter.copy_(adapter[WHOLE][name])
        config = model.peft_config["default"]
        config.inference_mode = True
        return config, get_peft_model_state_dict(model, save_embedding_layers=False)


def _trained(model: nn.Module) -> dict[str, Tensor]:
    """The trained parameters by name; one that several modules share is named once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
