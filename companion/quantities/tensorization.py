"""Numbers of the chapter on how the sides are split."""

import functools
import itertools

import numpy as np
import pandas as pd

from companion import tensorization
from companion.claims import LEVEL
from companion.quantities import quantity
from companion.tensorization import AT_PAPERS, DEFAULTS, PLACES, WITH_SEEDS
from cpadapt.analysis.charts import task_name
from cpadapt.analysis.statistics import Estimate, estimate, holm

LABELS = {label.replace("-", "_"): label for label in tensorization.sizes()}
"""By what a quantity's name has of it."""

differences = functools.cache(tensorization.differences)


def _with_seeds(task: str) -> pd.DataFrame:
    table = differences(WITH_SEEDS)
    return table[table["group"] == task_name(task)]


def _end(values: pd.Series, which: str) -> float:
    return float(values.min() if which == "least" else values.max())


# What a split changes.


@quantity("features", source=AT_PAPERS[1], each=("longer", "shorter"))
def side(which: str) -> int:
    """Features of the backbone's projections."""
    sides = tensorization.modes()["cp"]
    return max(sides) if which == "longer" else min(sides)


@quantity("scalars", source=AT_PAPERS, each=LABELS)
def step(label: str) -> int:
    """Scalars of a component, over all layers."""
    return tensorization.step(LABELS[label])


@quantity("components", source=AT_PAPERS, each=itertools.product(PLACES, ("cp", "cp_8x8x9")))
def components(place: str, label: str) -> int:
    """Components that a budget holds."""
    return tensorization.sizes()[LABELS[label]][place]


@quantity("splits", source=AT_PAPERS[1])
def splits() -> int:
    """Besides the default."""
    return len(LABELS) - 1


# At the paper's rate.


@quantity("seeds", source=AT_PAPERS[1])
def few_seeds() -> int:
    """Seeds of each split."""
    return len(tensorization.study(AT_PAPERS[1]).seeds)


@quantity("", source=AT_PAPERS)
def pairs() -> int:
    """Splits beside the default, at each budget and on each task."""
    return len(differences(AT_PAPERS))


@quantity("", source=AT_PAPERS)
def clear() -> int | str:
    """Their differences that are clear."""
    return int((differences(AT_PAPERS)["holm"] < LEVEL).sum()) or "none"


@quantity("", source=AT_PAPERS)
def alike() -> int | str:
    """Those that are shown to be within a point, after Holm's correction over all."""
    return sum(p < LEVEL for p in holm(differences(AT_PAPERS)["p_alike"].tolist())) or "none"


# At ten times that rate.


@quantity("seeds", source=WITH_SEEDS[1])
def seeds() -> int:
    """Seeds of each split."""
    return len(tensorization.study(WITH_SEEDS[1]).seeds)


@quantity("", 3, WITH_SEEDS, each=(("sst2", "most"), ("rte", "least")))
def alike_p(task: str, which: str) -> float:
    """The least or the greatest p value of a difference of a point or more."""
    return _end(_with_seeds(task)["p_alike"], which)


@quantity("", 3, WITH_SEEDS, each=["rte"])
def clear_p(task: str) -> float:
    """The least p value of no difference, after Holm's correction over the task's."""
    return _end(_with_seeds(task)["holm"], "least")


@quantity("points", 2, WITH_SEEDS)
def rte_apart() -> Estimate:
    """The average over the other splits minus the default, on RTE."""
    outcomes = tensorization.cells(WITH_SEEDS)["rte"].outcomes
    others = [(label, found["larger"]) for label, found in tensorization.sizes().items() if label != "cp"]
    default = outcomes[DEFAULTS["larger"]].right
    return estimate(np.mean([outcomes[cell].right - default for cell in others], axis=0))
