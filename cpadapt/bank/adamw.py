"""AdamW for a bank: learning rate, clipping and divergence run by run."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cpadapt.bank.bank import Bank
from cpadapt.records.config import Protocol


class RunAdamW:
    """Decoupled Adam (Loshchilov and Hutter, arXiv 1711.05101) over a bank's stacked tensors.

    Each run is updated independently. With g its whole gradient, clipped to `clip` in 2-norm::

        m ← β₁m + (1−β₁)g,   v ← β₂v + (1−β₂)g²
        w ← w − rate · (m̂ / (√v̂ + ε) + decay · w),   m̂ = m/(1−β₁ᵗ),   v̂ = v/(1−β₂ᵗ)

    with a decay for each run and tensor (`RunConfig.weight_decay_of`). As in torch, `exp_avg` is m and `exp_avg_sq` is
    v. A run whose loss or gradient is not finite stops for good: its scalars keep their last values, and it affects no
    other run. No operation waits for the device, and everything that changes between steps is on it, so a step can be
    recorded and replayed.

    Args:
        bank: holds the tensors and their gradients.
        protocol: clipping, betas, epsilon and the schedule, the same for all runs.
    """

    def __init__(self, bank: Bank, protocol: Protocol) -> None:
        self.protocol = protocol
        trained = list(bank.tensors())
        self.names = [t.name for t in trained]
        self.owners = [t.owners for t in trained]
        # [layers, entries, scalars an entry]
        self.tensors = [_three(t.tensor) for t in trained]
        self.gradients = [_three(t.gradient) for t in trained]
        self.exp_avgs = [torch.zeros_like(t) for t in self.tensors]
        self.exp_avg_sqs = [torch.zeros_like(t) for t in self.tensors]
        rates = torch.tensor([run.learning_rate or 0.0 for run in bank.runs], device=bank.device)
        head_rates = torch.full_like(rates, protocol.head_learning_rate)
        head_decays = torch.full_like(rates, protocol.weight_decay)
        self.rates: list[Tensor] = []
        self.decays: list[Tensor] = []
        """For each tensor `[runs]`."""
        for place, name in (name.split(".", 1) for name in self.names):
            decays = torch.tensor([run.weight_decay_of(name) for run in bank.runs], device=bank.device)
            self.rates.append(head_rates if place == "head" else rates)
            self.decays.append(head_decays if place == "head" else decays)
        everyone = torch.arange(len(bank.runs), device=bank.device)
        self.members = [owners == everyone[:, None] for owners in self.owners]
        """For each tensor `[runs, entries]`, which entries belong to a run."""
        self.diverged_at = torch.full((len(bank.runs),), -1, device=bank.device)
        """`[runs]`, the first step (from 1) with a loss or gradient that is not finite; -1 if there is none."""
        self.steps_done = torch.zeros(1, dtype=torch.int64, device=bank.device)
        """Steps done."""
        steps = range(protocol.steps)
        by_warmup = {
            warmup: torch.tensor([protocol.rate_factor(s, warmup) for s in steps])
            for warmup in {run.warmup_steps for run in bank.runs}
        }
        self.factors = torch.stack([by_warmup[run.warmup_steps] for run in bank.runs], 1).to(bank.device)
        """`[steps, runs]`, the schedule: factors on the learning rates."""
        self.corrections = torch.tensor(
            [(1 - protocol.beta1 ** (s + 1), 1 - protocol.beta2 ** (s + 1)) for s in steps], device=bank.device
        )
        """`[steps, 2]`, Adam's bias corrections."""
        self._update = torch.compile(update, dynamic=True) if bank.compiled else update

    @torch.no_grad()
    def step(self, losses: Tensor) -> None:
        """Update every run that has not diverged, from the bank's gradients.

        Args:
            losses: `[runs]`, the losses of this step.
        """
        p = self.protocol
        squared = torch.zeros_like(losses)
        for gradient, members in zip(self.gradients, self.members, strict=True):
            # Not a product with ones and zeros: infinity in another run times zero is NaN.
            squared += torch.where(members, torch.linalg.vector_norm(gradient, dim=(0, 2)).square(), 0.0).sum(1)
        norms = squared.sqrt()
        stopped = ~(torch.isfinite(losses) & torch.isfinite(norms)) & (self.diverged_at < 0)
        self.diverged_at.copy_(torch.where(stopped, self.steps_done + 1, self.diverged_at))
        alive = self.diverged_at < 0
        # As in torch.nn.utils.clip_grad_norm_.
        shrink = torch.ones_like(norms) if p.clip is None else (p.clip / (norms + 1e-6)).clamp(max=1.0)

        factors = self.factors.index_select(0, self.steps_done)[0]
        correction1, correction2 = self.corrections.index_select(0, self.steps_done)[0]
        for tensor, gradient, exp_avg, exp_avg_sq, owners, rates, decays in zip(
            self.tensors, self.gradients, self.exp_avgs, self.exp_avg_sqs, self.owners, self.rates, self.decays,
            strict=True,
        ):  # fmt: skip
            self._update(
                tensor, gradient, exp_avg, exp_avg_sq, owners, alive, shrink, factors * rates, decays,
                correction1, correction2, p.beta1, p.beta2, p.epsilon,
            )  # fmt: skip
        self.steps_done += 1

    def state(self) -> dict[str, Tensor]:
        """The tensors that change, by name: the moments of each trained tensor, steps done, where runs diverged."""
        state = {"diverged_at": self.diverged_at, "steps_done": self.steps_done}
        for name, exp_avg, exp_avg_sq in zip(self.names, self.exp_avgs, self.exp_avg_sqs, strict=True):
            state[f"{name}.exp_avg"], state[f"{name}.exp_avg_sq"] = exp_avg, exp_avg_sq
        return state


def update(
    tensor: Float[Tensor, "layers entries scalars"],
    gradient: Float[Tensor, "layers entries scalars"],
    exp_avg: Float[Tensor, "layers entries scalars"],
    exp_avg_sq: Float[Tensor, "layers entries scalars"],
    owners: Int[Tensor, "entries"],
    alive: Bool[Tensor, "runs"],
    shrink: Float[Tensor, "runs"],
    rate: Float[Tensor, "runs"],
    decay: Float[Tensor, "runs"],
    correction1: Float[Tensor, ""],
    correction2: Float[Tensor, ""],
    beta1: float,
    beta2: float,
    epsilon: float,
) -> None:
    """Do one step of AdamW for one tensor, in place (equations in `RunAdamW`).

    Args:
        tensor: `[layers, entries, scalars an entry]`, changed.
        gradient: as `tensor`.
        exp_avg: as `tensor`, the running mean m of the gradients, changed.
        exp_avg_sq: as `tensor`, the running mean v of their squares, changed.
        owners: `[entries]`, the run of each entry.
        alive: `[runs]`, bool; runs that have diverged do not change.
        shrink: `[runs]`, the factor on the gradients that clipping asks for.
        rate: `[runs]`, the learning rates of this step.
        decay: `[runs]`, the factors on the weights, times the rate.
        correction1: 1 − β₁ᵗ.
        correction2: 1 − β₂ᵗ.
        beta1: β₁.
        beta2: β₂.
        epsilon: ε.
    """
    alive, shrink = alive[owners, None], shrink[owners, None]
    rate, decay = rate[owners, None], decay[owners, None]
    gradient = torch.where(alive, gradient * shrink, 0.0)
    exp_avg.lerp_(gradient, 1 - beta1)
    exp_avg_sq.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    change = (exp_avg / correction1) / ((exp_avg_sq / correction2).sqrt() + epsilon)
    change += decay * tensor
    tensor.sub_(torch.where(alive, change * rate, 0.0))


def _three(tensor: Tensor) -> Tensor:
    """A view `[layers, entries, scalars an entry]`."""
    return tensor.view(*tensor.shape[:2], -1)
