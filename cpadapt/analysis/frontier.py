"""From runs to a frontier: what each cell of a ladder reaches, over seeds, at the rate that dev chose."""

import tomllib
from pathlib import Path
from typing import Any

import pandas as pd

from cpadapt.errors import InputError
from cpadapt.families import counting
from cpadapt.inputs.backbones.loading import load_projections

CELL = ["study", "backbone", "task", "label", "family", "size", "parameters"]
SETTING = ["learning_rate", "scale", "warmup_steps"]


def cells(records: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every cell at every setting (learning rate, scale and warm-up), over its seeds.

    Args:
        records: a table as `cpadapt.read_records` gives it. Diverged runs count as runs, and their accuracy at the
            best step before they diverged, if they have one.

    Returns:
        One row a cell and setting, with the columns that name it, `runs`, `diverged`, `dev_mean`, `eval_mean`,
        `eval_sd` (over runs, with n−1; missing for one run), `eval_low` and `eval_high` (the worst and the best run).

    Raises:
        InputError: runs of one study and task stand under several protocols, or are of different weights of one
            backbone, so they do not compare.
    """
    known = records[["study", "task", "protocol"]].drop_duplicates()
    for study, task in known.loc[known.duplicated(["study", "task"]), ["study", "task"]].to_numpy():
        found = sorted(known.loc[(known["study"] == study) & (known["task"] == task), "protocol"])
        raise InputError(
            f"the runs of study {study!r} on {task!r} stand under {len(found)} protocols ({', '.join(found)}); take"
            " those of one, by the column protocol"
        )
    known = records[["study", "task", "backbone", "weights"]].drop_duplicates()
    for study, task, backbone in known.loc[
        known.duplicated(["study", "task", "backbone"]), ["study", "task", "backbone"]
    ].to_numpy():
        raise InputError(
            f"the runs of study {study!r} on {task!r} are of different weights of {backbone}; take those of one, by"
            " the column weights"
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
    """Each cell at the setting whose mean dev accuracy is highest (of equals the lowest learning rate).

    The choice sees dev alone, never the evaluation split. A rate at which a smaller share of runs diverged goes before
    one at which more did, whatever the survivors reach.

    Args:
        records: a table as `cpadapt.read_records` gives it.

    Returns:
        As `cells`, one row a cell, by task, family and parameters.

    Raises:
        InputError: as `cells`.
    """
    found = cells(records)
    found["share"] = found["diverged"] / found["runs"]
    found = found.sort_values(["share", "dev_mean", "learning_rate"], ascending=[True, False, True])
    best = found.drop_duplicates(CELL, keep="first").drop(columns="share")
    return best.sort_values(["task", "label", "parameters"], ignore_index=True)


def best_under_budget(best: pd.DataFrame, budget: int) -> pd.DataFrame:
    """The paper's U(B) = max A(k) over P(k) ≤ B: each family's best cell among those at or under a budget.

    It is chosen by the evaluation split itself, so it is higher than a choice on dev would have been, the more so the
    more cells a family has: a description of these runs only.

    Args:
        best: a table as `frontier` gives it.
        budget: trainable scalars over all target modules.

    Returns:
        As `frontier`, one row a family (of equals the smallest cell); none for a family of which nothing fits.
    """
    fitting = best[best["parameters"] <= budget].dropna(subset="eval_mean")
    ordered = fitting.sort_values(["eval_mean", "parameters"], ascending=[False, True])
    return ordered.drop_duplicates(["study", "backbone", "task", "label"]).sort_index().reset_index(drop=True)


def read_published(path: str | Path) -> pd.DataFrame:
    """Figures that others published, to stand beside ours and never among them.

    Args:
        path: a TOML file with `source`, `second_hand`, `backbone` and a table `figure` for each: `task`, `family`,
            `size`, `accuracy`, `seeds` and, where known, `sd` over seeds.

    Returns:
        One row a figure, with `source`, `second_hand`, `backbone`, `task`, `label`, `family`, `size`, `parameters`
        (counted here), `accuracy`, `sd` and `seeds`.

    Raises:
        InputError: a field is missing, or the backbone or a family is unknown.
    """
    content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    common = ("source", "second_hand", "backbone")
    rows: list[dict[str, Any]] = []
    try:
        projections = load_projections(content["backbone"])
        for figure in content["figure"]:
            rows.append(
                {name: content[name] for name in common}
                | {"task": figure["task"], "label": figure["family"], "family": figure["family"]}
                | {"size": figure["size"], "parameters": counting.count(figure["family"], projections, figure["size"])}
                | {"accuracy": figure["accuracy"], "sd": figure.get("sd"), "seeds": figure["seeds"]}
            )
    except KeyError as missing:
        raise InputError(f"{path}: {missing} is missing") from None
    return pd.DataFrame(rows).astype({"sd": float})
