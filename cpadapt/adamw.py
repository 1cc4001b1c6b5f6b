"""AdamW with everything per run: rate, clipping, and whether a run is still alive."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cpadapt.bank import Bank
from cpadapt.protocol import Protocol


class RunAdamW:
    """Decoupled Adam (Loshchilov and Hutter, arXiv 1711.05101) over a bank's stacked tensors.

    For every run on its own, with g its whole gradient clipped to `clip` in 2-norm::

        m ← β₁m + (1−β₁)g,   v ← β₂v + (1−β₂)g²
        w ← w − rate · (m̂ / (√v̂ + ε) + decay · w),   m̂ = m/(1−β₁ᵗ),   v̂ = v/(1−β₂ᵗ)

    A run whose loss or gradient is not finite is stopped for good: its scalars keep their last value, and nothing of
    it reaches another run. Nothing here waits for the device.
    """

    def __init__(self, bank: Bank, protocol: Protocol) -> None:
        self.protocol = protocol
        self.tensors = list(bank.tensors())
        self.means = [torch.zeros_like(t) for _, t in self.tensors]
        self.squares = [torch.zeros_like(t) for _, t in self.tensors]
        rates = torch.tensor([run.learning_rate or 0.0 for run in bank.runs], device=bank.device)
        head_rates = torch.full_like(rates, protocol.head_learning_rate)
        self.rates = [
            head_rates if tensor is bank.head or tensor is bank.bias else rates for _, tensor in self.tensors
        ]
        self.diverged_at = torch.full((len(bank.runs),), -1, device=bank.device)
        """The step (from 1) whose loss or gradient was not finite; -1 while there is none."""

    @torch.no_grad()
    def step(self, step: int, losses: Tensor) -> None:
        """Update every living run from the gradients that its tensors hold, and drop the gradients.

        Args:
            step: steps done before this one.
            losses: `[runs]`, this step's losses.
        """
        p = self.protocol
        gradients = [t.grad if t.grad is not None else torch.zeros_like(t) for _, t in self.tensors]
        squared = torch.zeros_like(losses)
        for (runs, _), gradient in zip(self.tensors, gradients, strict=True):
            squared[runs] += gradient.flatten(1).square().sum(1)
        norms = squared.sqrt()
        stopped = ~(torch.isfinite(losses) & torch.isfinite(norms)) & (self.diverged_at < 0)
        self.diverged_at.masked_fill_(stopped, step + 1)
        alive = self.diverged_at < 0
        # As torch.nn.utils.clip_grad_norm_ has it.
        shrink = torch.ones_like(norms) if p.clip is None else (p.clip / (norms + 1e-6)).clamp(max=1.0)

        factor = p.rate_factor(step)
        correction1, correction2 = 1 - p.beta1 ** (step + 1), 1 - p.beta2 ** (step + 1)
        for (runs, tensor), gradient, mean, square, rates in zip(
            self.tensors, gradients, self.means, self.squares, self.rates, strict=True
        ):
            along = (-1,) + (1,) * (tensor.dim() - 1)
            living = alive[runs].view(along)
            gradient = torch.where(living, gradient * shrink[runs].view(along), 0.0)
            mean.lerp_(gradient, 1 - p.beta1)
            square.mul_(p.beta2).addcmul_(gradient, gradient, value=1 - p.beta2)
            update = (mean / correction1) / ((square / correction2).sqrt() + p.epsilon)
            update += p.weight_decay * tensor
            tensor.sub_(torch.where(living, update * (factor * rates[runs]).view(along), 0.0))
            tensor.grad = None

    def state(self, names: Sequence[str]) -> dict[str, Tensor]:
        """The moments by tensor name, and where runs diverged, for a checkpoint."""
        state = {"diverged_at": self.diverged_at}
        for name, mean, square in zip(names, self.means, self.squares, strict=True):
            state[f"{name}.mean"], state[f"{name}.square"] = mean, square
        return state

    def load(self, names: Sequence[str], state: dict[str, Tensor]) -> None:
        """Take back what `state` gave."""
        self.diverged_at.copy_(state["diverged_at"])
        for name, mean, square in zip(names, self.means, self.squares, strict=True):
            mean.copy_(state[f"{name}.mean"])
            square.copy_(state[f"{name}.square"])
