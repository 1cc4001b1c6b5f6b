"""How well tensor iterative hard thresholding recovers tensors, in the four synthetic set-ups of its paper.

Grotheer, Li, Ma, Needell and Qin (arXiv 1908.08479) show one draw a curve. Here each curve has many seeds: the same
tensors, drawn like theirs (10×10×10, normal factors), for all curves of a set-up that ask for as many components.
Noise is as in their scripts: of norm 0.01 on linear measurements, of standard deviation 0.01 on every entry.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from companion.iht import complete, recover
from cpadapt.approximation import CPTensors
from cpadapt.records.store import write_atomically

RESULT = Path(__file__).resolve().parents[1] / "results" / "iht" / "curves.json"

SIDE, ORDER = 10, 3
ENTRIES = SIDE**ORDER
NOISE = 0.01
SEEDS = 50

EVERY = 4
"""Errors are kept of the first iteration and then of each so many."""

BAND = (0.1, 0.5, 0.9)
"""The quantiles over seeds that are kept of every curve."""


@dataclass(frozen=True)
class Curve:
    """What one curve recovers, and from what."""

    setup: str
    completion: bool
    components: int
    measured: float
    """Measurements or known entries, as a share of the tensor's entries."""
    noise: float
    iterations: int


CURVES = (
    *(Curve("measurements", False, 2, share, 0.0, 200) for share in (0.3, 0.5, 0.7, 0.9)),
    *(Curve("components", False, count, 0.5, NOISE, 100) for count in (2, 3, 4, 5)),
    *(Curve("entries", True, 2, share, 0.0, 200) for share in (0.3, 0.5, 0.7, 0.9)),
    *(Curve("completed components", True, count, 0.5, NOISE, 100) for count in (2, 3, 4, 5)),
)


def draw(curve: Curve, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """One seed's tensor, what measures it, and what is measured.

    Returns:
        `[10, 10, 10]`; the operator `[measurements, 1000]`, or the known entries `[10, 10, 10]`; the measurements
        `[measurements]`, or the entries `[10, 10, 10]`.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    factors = tuple(normal(1, curve.components, SIDE) for _ in range(ORDER))
    (truth,) = CPTensors(torch.ones(1, curve.components, dtype=torch.float64), factors).dense()
    count = round(curve.measured * ENTRIES)
    if curve.completion:
        known = torch.zeros(ENTRIES, dtype=torch.bool)
        known[torch.randperm(ENTRIES, generator=generator)[:count]] = True
        return truth, known.view_as(truth), truth + curve.noise * normal(*truth.shape)
    operator, noise = normal(count, ENTRIES) / count**0.5, normal(count)
    return truth, operator, operator @ truth.flatten() + curve.noise * noise / noise.norm()


def relative_errors(curve: Curve, seeds: int, iterations: int | None = None) -> Tensor:
    """`[seeds, iterations]`, ‖X − truth‖ / ‖truth‖ after each iteration."""
    drawn = [draw(curve, seed) for seed in range(seeds)]
    truth, by, measured = (torch.stack(parts) for parts in zip(*drawn, strict=True))
    method = complete if curve.completion else recover
    searches = torch.Generator().manual_seed(seeds)
    found = method(measured, by, truth, curve.components, iterations or curve.iterations, searches)
    return found.errors / truth.flatten(1).norm(dim=1, keepdim=True)


def simulated(seeds: int, most: int | None = None) -> Iterator[dict[str, Any]]:
    """Every curve with its band and each seed's last error.

    Args:
        seeds: of each curve.
        most: bounds the iterations, for a quick look.
    """
    for curve in CURVES:
        iterations = min(curve.iterations, most or curve.iterations)
        errors = relative_errors(curve, seeds, iterations)
        kept = [1, *range(EVERY, iterations + 1, EVERY)]
        band = errors[:, [k - 1 for k in kept]].quantile(torch.tensor(BAND, dtype=torch.float64), 0)
        yield {
            "setup": curve.setup,
            "components": curve.components,
            "measured": curve.measured,
            "noise": curve.noise,
            "iterations": kept,
            "band": [[float(f"{error:.3g}") for error in line] for line in band.tolist()],
            "last": [float(f"{error:.3g}") for error in errors[:, -1].tolist()],
        }


def main(
    seeds: Annotated[int, typer.Option(help="Of each curve.")] = SEEDS,
    most: Annotated[int | None, typer.Option(help="Iterations at most, for a quick look.")] = None,
    result: Annotated[Path, typer.Option(help="File for the result.")] = RESULT,
) -> None:
    """Recover tensors in the paper's four set-ups and write the curves."""
    torch.set_num_threads(1)
    curves = []
    for curve in simulated(seeds, most):
        curves.append(curve)
        typer.echo(
            f"{curve['setup']}, {curve['components']} components, {curve['measured']:.0%}: {curve['band'][1][-1]}"
        )
    content = {"seeds": seeds, "quantiles": BAND, "curves": curves}
    write_atomically(result, (json.dumps(content) + "\n").encode())


if __name__ == "__main__":
    typer.run(main)
