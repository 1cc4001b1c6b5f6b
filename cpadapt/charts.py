"""Altair charts of records: one palette for families everywhere, legible to the colour-blind."""

from typing import Any

import altair as alt
import pandas as pd

from cpadapt.frontier import CELL, frontier

# Okabe and Ito's palette, told apart with any colour vision; head only is grey, a floor and no family.
FAMILY_COLOURS = {"head": "#777777", "lora": "#0072B2", "cp": "#D55E00"}
FURTHER_COLOURS = ("#009E73", "#CC79A7", "#56B4E9", "#E69F00")
FAMILY_NAMES = {"head": "head only", "lora": "LoRA", "cp": "CP"}


def _colour(records: pd.DataFrame) -> Any:
    labels = [label for label in FAMILY_COLOURS if label in set(records["label"])]
    further = sorted(set(records["label"]) - set(FAMILY_COLOURS))
    colours = [FAMILY_COLOURS[label] for label in labels] + list(FURTHER_COLOURS[: len(further)])
    names = [FAMILY_NAMES.get(label, label) for label in labels + further]
    return alt.Color("family name:N", title="family", scale=alt.Scale(domain=names, range=colours))


def _named(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(**{"family name": [FAMILY_NAMES.get(label, label) for label in table["label"]]})


def frontier_chart(records: pd.DataFrame) -> Any:
    """Accuracy against trainable scalars: mean over seeds at the rate that dev chose, and every seed behind it.

    Args:
        records: a table of one task's runs, as `read_records` gives it.
    """
    records = records.astype({"learning_rate": float})  # where all are head only, there is none to say so
    best = frontier(records)
    place = [*CELL, "learning_rate"]
    chosen = records.merge(best[place], on=place)  # a missing rate, as head only has it, equals a missing one
    x = alt.X("parameters:Q", title="trainable scalars", scale=alt.Scale(type="symlog", constant=1000))
    y = alt.Y("accuracy:Q", title="accuracy on eval", scale=alt.Scale(zero=False), axis=alt.Axis(format=".1%"))
    seeds = (
        alt.Chart(_named(chosen).rename(columns={"eval_accuracy": "accuracy"}))
        .mark_circle(opacity=0.4)
        .encode(
            x, y, _colour(records),
            tooltip=["family name", "size", "seed", alt.Tooltip("accuracy", format=".3f"), "learning_rate"],
        )
    )  # fmt: skip
    means = (
        alt.Chart(_named(best).rename(columns={"eval_mean": "accuracy"}))
        .mark_line(point=True)
        .encode(
            x, y, _colour(records),
            tooltip=[
                "family name", "size", "parameters", alt.Tooltip("accuracy", format=".3f"),
                alt.Tooltip("eval_sd", title="sd over seeds", format=".3f"), "learning_rate", "runs",
            ],
        )
    )  # fmt: skip
    return (seeds + means).properties(width=560, height=320)


def curve_chart(evaluations: pd.DataFrame) -> Any:
    """Dev accuracy against steps, one line a run.

    Args:
        evaluations: a table as `read_evaluations` gives it.
    """
    return (
        alt.Chart(_named(evaluations))
        .mark_line(opacity=0.6)
        .encode(
            alt.X("step:Q", title="step"),
            alt.Y("dev_accuracy:Q", title="accuracy on dev", scale=alt.Scale(zero=False), axis=alt.Axis(format=".0%")),
            _colour(evaluations),
            detail="id:N",
            tooltip=["family name", "size", "learning_rate", "seed", "step",
                     alt.Tooltip("dev_accuracy", format=".3f")],
        )
        .properties(width=560, height=240)
    )  # fmt: skip
