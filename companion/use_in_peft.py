"""The choice of dev between two learning rates, in studies that tried two for each family."""

import functools

import pandas as pd

from companion.records import records
from cpadapt.analysis.frontier import frontier
from cpadapt.records.config import HEAD
from cpadapt.records.table import tabulate

STUDIES = ("minilm-sst2", "smollm2-pilot")
BY = ["backbone", "label"]


@functools.cache
def rates() -> pd.DataFrame:
    """The two rates of each backbone and family, and the number of cells for which dev chose the higher rate.

    Returns:
        One row for each backbone and family, with `backbone`, `label`, `lower`, `higher`, `cells` and `higher_chosen`.
    """
    runs = pd.concat([tabulate(records(study))[0] for study in STUDIES])
    runs = runs[runs["label"] != HEAD]
    found = runs.groupby(BY)["learning_rate"].agg(lower="min", higher="max")
    chosen = pd.concat([frontier(of_study) for _, of_study in runs.groupby("study")]).join(found, on=BY)
    won = (chosen["learning_rate"] == chosen["higher"]).groupby([chosen[name] for name in BY])
    rates: pd.DataFrame = found.assign(cells=won.size(), higher_chosen=won.sum()).reset_index()
    return rates


def rate_table() -> pd.DataFrame:
    """`rates` as a printed table."""
    shown = rates().assign(**{name: rates()[name].map("{:g}".format) for name in ("lower", "higher")})
    return shown.rename(
        columns={"label": "family", "lower": "lower rate", "higher": "higher rate", "higher_chosen": "higher chosen"}
    )
