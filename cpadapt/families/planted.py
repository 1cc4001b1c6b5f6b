"""Planted updates: drawn instead of trained, so that what a student must find is known.

A teacher is the backbone with W + ΔW in place of every target module's weight W. Each ΔW is a random draw of a known
kind, scaled to a share of the weight's Frobenius norm, ‖ΔW‖ = norm · ‖W‖:

========  =====================================================================  ==============================
family    ΔW up to its norm                                                      size
========  =====================================================================  ==============================
`cp`      Σ_s (u₁ₛ ⊗ u₂ₛ)(v₁ₛ ⊗ v₂ₛ)ᵀ, unit vectors, all components weigh alike  components
`lora`    Σ_s bₛ aₛᵀ                                                             rank
`melora`  blocks on the diagonal, `minis` of them, each Σ_s bₛ aₛᵀ               sum of the ranks of all blocks
`dense`   Σ_k k^−decay · xₖ yₖᵀ over all k, xₖ and yₖ orthonormal                none
========  =====================================================================  ==============================

All vectors are normal in direction; those of `lora` and `melora` in length too. The modes of `cp` are the default ones
of `cpadapt.families.cp`. Nothing here calls a family's `factors`, so a student is compared with an independent draw.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator
from pydantic.dataclasses import dataclass as validated

from cpadapt.errors import STRICT, InputError, did_you_mean, explained, no_truth_value
from cpadapt.families import cp, lora, melora

Matrix = NDArray[np.float64]


@explained
@validated(frozen=True, config=STRICT)
class Teacher:
    """What is planted. Its draw is decided by a seed, which a run takes from its `data_seed`."""

    family: str
    """The kind of update, a key of `PLANTED`."""
    norm: float
    """The Frobenius norm of every module's update, as a share of its weight's."""
    size: int = 0
    """Components, rank, or the sum of the ranks of all blocks; 0 for a dense update."""
    minis: int = 1
    """Blocks on the diagonal, all of one rank; for `melora`."""
    decay: float = 0.0
    """The k-th singular value of a dense update falls as k^−decay; at 0 all are equal."""

    _numbers = field_validator("norm", "size", "minis", "decay", mode="before")(no_truth_value)

    def __post_init__(self) -> None:
        if self.family not in PLANTED:
            hint = did_you_mean(self.family, PLANTED)
            raise InputError(f"unknown planted update {self.family!r}{hint}; known are {', '.join(PLANTED)}")
        draw = PLANTED[self.family].draw
        dense, blocks = draw is _dense, draw is _melora

        def require(holds: bool, name: str, want: str) -> None:
            if not holds:
                raise InputError(f"{name} = {getattr(self, name)!r} of a planted {self.family!r}: must be {want}")

        require(self.norm > 0, "norm", "positive")
        require(self.size == 0 if dense else self.size >= 1, "size", "0" if dense else "a positive integer")
        require(self.minis >= 2 if blocks else self.minis == 1, "minis", "2 or more" if blocks else "1")
        require(self.size % self.minis == 0, "size", f"a multiple of minis = {self.minis}")
        require(self.decay >= 0 if dense else self.decay == 0, "decay", "0 or positive" if dense else "0")

    @property
    def shape_options(self) -> dict[str, Any] | None:
        """The options that decide shapes, of the family whose updates are planted; `None` where there are none."""
        return {"minis": self.minis} if PLANTED[self.family].draw is _melora else None

    @property
    def title(self) -> str:
        """Its name in tables and charts, such as `CP 4` or `dense, 1/k`."""
        title = PLANTED[self.family].title
        if self.decay:
            return f"{title}, 1/k" + (f"^{self.decay:g}" if self.decay != 1 else "")
        return f"{title} {self.size}" if self.size else title

    def update(self, seed: int, position: int, weight: Matrix) -> Matrix:
        """Draw the update of one target module.

        Args:
            seed: decides the draw, together with `position`.
            position: of the module among the backbone's target modules, from 0.
            weight: `[out, in]`, the module's weight, whose norm sets the update's.

        Returns:
            `[out, in]`, with a Frobenius norm of `norm` times the weight's.

        Raises:
            InputError: `minis` does not divide both sides.
        """
        # NumPy's numbers, because a student's initial weights are torch's from the same seed.
        generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(position,)))
        drawn = PLANTED[self.family].draw(self, generator, *weight.shape)
        update: Matrix = drawn * (self.norm * np.linalg.norm(weight) / np.linalg.norm(drawn))
        return update


def _cp(teacher: Teacher, generator: np.random.Generator, out_features: int, in_features: int) -> Matrix:
    def side(dimension: int) -> Matrix:
        """`[components, dimension]`: outer products of unit vectors, the last mode fastest."""
        product = np.ones((teacher.size, 1))
        for mode in cp.modes(dimension):
            vectors = generator.standard_normal((teacher.size, mode))
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            product = np.einsum("ca,cb->cab", product, vectors).reshape(teacher.size, -1)
        return product

    return side(out_features).T @ side(in_features)


def _lora(teacher: Teacher, generator: np.random.Generator, out_features: int, in_features: int) -> Matrix:
    return _of_rank(teacher.size, generator, out_features, in_features)


def _melora(teacher: Teacher, generator: np.random.Generator, out_features: int, in_features: int) -> Matrix:
    if out_features % teacher.minis or in_features % teacher.minis:
        raise InputError(
            f"minis = {teacher.minis} of a planted 'melora': must divide both sides of a"
            f" {out_features}x{in_features} projection"
        )
    update = np.zeros((out_features, in_features))
    rows, columns = out_features // teacher.minis, in_features // teacher.minis
    for block in range(teacher.minis):
        at = np.s_[block * rows : (block + 1) * rows, block * columns : (block + 1) * columns]
        update[at] = _of_rank(teacher.size // teacher.minis, generator, rows, columns)
    return update


def _dense(teacher: Teacher, generator: np.random.Generator, out_features: int, in_features: int) -> Matrix:
    rank = min(out_features, in_features)
    left, right = (np.linalg.qr(generator.standard_normal((side, rank)))[0] for side in (out_features, in_features))
    update: Matrix = (left * np.arange(1.0, rank + 1) ** -teacher.decay) @ right.T
    return update


def _of_rank(rank: int, generator: np.random.Generator, out_features: int, in_features: int) -> Matrix:
    return generator.standard_normal((out_features, rank)) @ generator.standard_normal((rank, in_features))


class Kind(NamedTuple):
    """A kind of update that can be planted."""

    title: str
    draw: Callable[[Teacher, np.random.Generator, int, int], Matrix]
    """Draws a matrix `[out, in]` of any norm."""


PLANTED: Mapping[str, Kind] = {
    "cp": Kind(cp.TITLE, _cp),
    "lora": Kind(lora.TITLE, _lora),
    "melora": Kind(melora.TITLE, _melora),
    "dense": Kind("dense", _dense),
}
"""The kinds of updates, by name."""
