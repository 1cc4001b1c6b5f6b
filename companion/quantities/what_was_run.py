"""Numbers of the chapter on what was run: how far all studies are."""

import pandas as pd

from companion import what_was_run
from companion.quantities import quantity

ALL = tuple(study.name for study in what_was_run.studies())


@quantity("studies", source=ALL)
def studies() -> int:
    """That are planned."""
    return len(_by_study())


@quantity("studies", source=ALL)
def complete() -> int:
    """Of which no run is missing."""
    return int((_by_study()["missing"] == 0).sum())


@quantity("runs", source=ALL)
def planned() -> int:
    """Of all studies."""
    return int(_by_study()["runs"].sum())


@quantity("runs", source=ALL)
def done() -> int:
    """Of these, on record."""
    return int(_by_study()["done"].sum())


def _by_study() -> pd.DataFrame:
    return what_was_run.progress().groupby("study", sort=False)[["runs", "done", "missing"]].sum()
