"""Numbers of the chapter on what was run: how far all studies are."""

import pandas as pd

from companion import what_was_run
from companion.quantities import quantity

ALL = tuple(study.name for study in what_was_run.studies())


@quantity("studies", source=ALL)
def studies() -> int:
    """Studies that are planned."""
    return len(_by_study())


@quantity("studies", source=ALL)
def complete() -> int:
    """Studies of which no run is missing."""
    return int((_by_study()["missing"] == 0).sum())


@quantity("runs", source=ALL)
def planned() -> int:
    """Runs of all studies."""
    return int(_by_study()["runs"].sum())


@quantity("runs", source=ALL)
def done() -> int:
    """Runs of all studies on record."""
    return int(_by_study()["done"].sum())


def _by_study() -> pd.DataFrame:
    return what_was_run.progress().groupby("study", sort=False)[["runs", "done", "missing"]].sum()
