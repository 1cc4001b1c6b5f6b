"""Which of two learning rates dev chose, where two were tried for each family."""

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
    """Of each backbone and family the two rates, the cells, and in how many of them dev chose the higher one.

    Returns:
        One row a backbone and family, with `backbone`, `label`, `lower`, `higher`, `cells` and `higher_chosen`.
    """
    runs = pd.concat([tabulate(records(study))[0] for study in STUDIES])
    runs = runs[runs["label"] != HEAD]
    found = runs.groupby(BY)["learning_rate"].agg(lower="min", higher="max")
    chosen = pd.concat([frontier(of_study) for _, of_study in runs.groupby("study")]).join(found, on=BY)
    won = (chosen["learning_rate"] == chosen["higher"]).groupby([chosen[name] for name in BY])
    rates: pd.DataFrame = found.assign(cells=won.size(), higher_chosen=won.sum()).reset_index()
    return rates


def rate_table() -> pd.DataFrame:
    """`rates`, to read."""
    shown = rates().assign(**{name: rates()[name].map("{:g}".format) for name in ("lower", "higher")})
    return shown.rename(
        columns={"label": "family", "lower": "lower rate", "higher": "higher rate", "higher_chosen": "higher chosen"}
    )
