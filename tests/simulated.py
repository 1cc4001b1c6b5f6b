"""Runs whose truth is known, for tests of statistics and of what rests on them."""

from collections.abc import Iterable
from math import sqrt

import numpy as np
from scipy.stats import norm

from cpadapt.analysis.statistics import Outcomes


def cell(right: object, first_seed: int = 0) -> Outcomes:
    values = np.asarray(right, dtype=float)
    seeds, items = values.shape
    return Outcomes(tuple((first_seed + s, 0) for s in range(seeds)), tuple(range(items)), values)


class Simulation:
    """Runs that are right where the sum of a seed's, an item's and a chance effect is above a threshold.

    Cells share the items' difficulty; each has more of its own.
    """

    def __init__(self, seeds: int, items: int, seed_sd: float = 0.3) -> None:
        self.seeds, self.items = seeds, items
        self.sds = seed_sd, 1.0, 0.5  # of a seed, an item, and an item in one cell

    def threshold(self, accuracy: float) -> float:
        """Under which so many answers are right in the long run."""
        return float(norm.ppf(accuracy)) * sqrt(1 + sum(sd**2 for sd in self.sds))

    def draw(self, rng: np.random.Generator, accuracies: Iterable[float]) -> list[Outcomes]:
        seed_sd, item_sd, own_sd = self.sds
        difficulty = rng.normal(0, item_sd, self.items)
        cells = []
        for accuracy in accuracies:
            of_seed = rng.normal(0, seed_sd, (self.seeds, 1))
            of_item = difficulty + rng.normal(0, own_sd, self.items)
            chance = rng.normal(0, 1, (self.seeds, self.items))
            cells.append(cell(self.threshold(accuracy) + of_seed + of_item + chance > 0))
        return cells
