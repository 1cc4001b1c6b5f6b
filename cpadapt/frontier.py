"""From runs to a frontier: what each cell of a ladder reaches, over seeds, at the rate that dev chose."""

import pandas as pd

CELL = ["study", "backbone", "task", "label", "family", "size", "parameters"]


def cells(records: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every cell at every learning rate, over its seeds.

    Args:
        records: a table as `read_records` gives it. Diverged runs count as runs, and their accuracy at the best step
            before they diverged, if they have one.

    Returns:
        One row a cell and rate: the columns that name it, `runs`, `diverged`, `dev_mean`, `eval_mean`, `eval_sd` (over
        runs, with n−1; missing for one run), `eval_low` and `eval_high` (the worst and the best run).
    """
    grouped = records.groupby([*CELL, "learning_rate"], dropna=False, sort=False)
    return grouped.agg(
        runs=("id", "count"),
        diverged=("diverged_at", "count"),
        dev_mean=("dev_accuracy", "mean"),
        eval_mean=("eval_accuracy", "mean"),
        eval_sd=("eval_accuracy", "std"),
        eval_low=("eval_accuracy", "min"),
        eval_high=("eval_accuracy", "max"),
    ).reset_index()


def frontier(records: pd.DataFrame) -> pd.DataFrame:
    """Each cell at the learning rate whose mean dev accuracy is highest (of equals the lowest rate).

    The choice sees dev alone, never the evaluation split. A rate at which a smaller share of runs diverged goes before
    one at which more did, whatever the survivors reach.

    Args:
        records: a table as `read_records` gives it.

    Returns:
        As `cells`, one row a cell, by task, family and parameters.
    """
    found = cells(records)
    found["share"] = found["diverged"] / found["runs"]
    found = found.sort_values(["share", "dev_mean", "learning_rate"], ascending=[True, False, True])
    best = found.drop_duplicates(CELL, keep="first").drop(columns="share")
    return best.sort_values(["task", "label", "parameters"], ignore_index=True)
