"""From runs to a frontier: the accuracy of each cell of a ladder, over seeds, at the setting that dev chose."""

import pandas as pd

from cpadapt.errors import InputError

CELL = ["study", "backbone", "task", "label", "family", "size", "parameters"]
"""The columns that identify a cell."""
SETTING = ["learning_rate", "scale", "warmup_steps"]
"""The columns that identify a setting of a cell."""
LINE = ["study", "backbone", "task", "label"]
"""The columns that identify a line of a frontier, which joins the cells of one label."""


def cells(records: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every cell at every setting (learning rate, scale and warm-up), over its seeds.

    Args:
        records: a table as `cpadapt.read_records` returns it. A diverged run counts as a run; its accuracy is that at
            its best step before it diverged, if there is one.

    Returns:
        One row for each cell and setting, with the columns that identify it, `runs`, `diverged`, `dev_mean`,
        `eval_mean`, `eval_sd` (over runs, with n−1; missing for one run), `eval_low` and `eval_high` (the worst and
        the best run).

    Raises:
        InputError: runs of one study and task have several protocols or teachers, or different weights of one
            backbone, so they cannot be compared.
    """
    for column, kind in (("protocol", "protocols"), ("weights", "backbone's weights"), ("teacher", "teachers")):
        told = records.assign(**{column: records[column].astype(object).fillna("none")})
        by_question = told.groupby(["study", "task", "backbone"], dropna=False, sort=False)[column].unique()
        for study, task, backbone, values in by_question.reset_index().to_numpy():
            if len(values) > 1:
                raise InputError(
                    f"the runs of study {study!r} on {task!r} with {backbone} are of {len(values)} {kind}"
                    f" ({', '.join(sorted(values))}), which cannot be compared; select one, by the column {column}"
                )
    grouped = records.groupby([*CELL, *SETTING], dropna=False, sort=False)
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
    """Each cell at the setting with the highest mean accuracy on dev.

    The choice uses dev alone, never the evaluation split. A setting at which a smaller share of runs diverged comes
    first, whatever the other runs reach; ties go to the lower learning rate, then the lower scale, then the shorter
    warm-up.

    Args:
        records: a table as `cpadapt.read_records` returns it.

    Returns:
        As `cells`, one row for each cell, sorted by task, family and parameters.

    Raises:
        InputError: as `cells`.
    """
    tried = cells(records)
    tried["share"] = tried["diverged"] / tried["runs"]
    tried = tried.sort_values(["share", "dev_mean", *SETTING], ascending=[True, False, True, True, True])
    best = tried.drop_duplicates(CELL, keep="first").drop(columns="share")
    return best.sort_values(["task", "label", "parameters"], ignore_index=True)


def best_under_budget(best: pd.DataFrame, budget: int) -> pd.DataFrame:
    """Each line's most accurate cell at or under a budget: U(B) = max A(k) over P(k) ≤ B (arXiv 2606.00428).

    The cell is chosen on the evaluation split itself, so its accuracy is too high, the more so the more cells a line
    has. It describes these runs only.

    Args:
        best: a table as `frontier` returns it.
        budget: trainable scalars over all target modules.

    Returns:
        As `frontier`, one row for each line (the smallest cell if several tie), and none for a line without a cell
        that fits.
    """
    fitting = best[best["parameters"] <= budget].dropna(subset="eval_mean")
    ordered = fitting.sort_values(["eval_mean", "parameters"], ascending=[False, True])
    return ordered.drop_duplicates(LINE).sort_index().reset_index(drop=True)
