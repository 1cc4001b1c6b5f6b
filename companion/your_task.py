"""The page on a task of one's own: its example, and its table and figure."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cpadapt.advice import Advice, Judged
from cpadapt.analysis.charts import interval_chart
from cpadapt.inputs import generated
from cpadapt.records.record import Record
from cpadapt.tuner import export_to_lora

MOST_WORDS = 7
"""The most words of the example's sentences, so that a CPU trains on them in a minute or two."""

EXAMPLE = """\
name = "reviews"
path = "data"  # a folder beside this file
text_columns = ["sentence"]
label_column = "label"
labels = [0, 1]
label_names = ["bad", "good"]
"""


def write_example(folder: Path) -> Path:
    """Write a task of generated short reviews as one brings one's own, and return its file.

    Args:
        folder: gets `reviews.toml`, and `data` with a file for each split.
    """
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for split, rows in generated.generate("sentiment").items():
        short = [row for row in rows if len(str(row["sentence"]).split()) <= MOST_WORDS]
        (folder / "data" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in short))
    file = folder / "reviews.toml"
    file.write_text(EXAMPLE)
    return file


def why(advice: Advice, records: Sequence[Record]) -> str:
    """What the advice rests on, in one line."""
    accuracy, steps = advice.best.accuracy, records[0].config.protocol.steps
    seconds = sum((run.cost.train_seconds + run.cost.evaluation_seconds) / run.cost.bank_runs for run in records)
    return (
        f"{accuracy.seeds} draws, {accuracy.items:,} eval items, 95 % intervals. {len(records)} runs of {steps:,}"
        f" steps took {seconds:.0f} seconds."
    )


def as_lora(run: Record, trained: Path, out: Path) -> Path:
    """The folder of a run's adapter as plain LoRA: a CP adapter is exported to `out`, and any other is one already.

    Args:
        run: the run.
        trained: the folder of its saved weights.
        out: replaced where it is there.
    """
    if run.config.family != "cp":
        return trained
    shutil.rmtree(out, ignore_errors=True)
    return export_to_lora(trained, out)


def figure(advice: Advice, margin: float) -> Any:
    """What each adapter gains over the head alone on eval, the smallest first, with 95 % intervals."""
    rows = []
    for one in advice.judged:
        if one.gain is not None:
            low, high = one.gain.interval()
            what = f"{one.name}, advised" if one is advice.adapter and advice.verdict == "adapter" else one.name
            rows.append(("eval", what, one.gain.mean, low, high, one.gain.seeds))
    gains = pd.DataFrame(rows, columns=["group", "what", "mean", "low", "high", "seeds"])
    return interval_chart(gains, "points over the head alone", margin).properties(height=44 * len(gains))


def table(advice: Advice) -> pd.DataFrame:
    """All cells, the smallest first, as a printed table."""
    return pd.DataFrame([_row(one) for one in advice.judged])


def _row(one: Judged) -> dict[str, str]:
    low, high = (f"{100 * end:.1f}" for end in one.accuracy.interval())
    return {
        "adapter": one.name,
        "scalars": f"{one.scalars:,}",
        "rate": "" if one.setting.learning_rate is None else f"{one.setting.learning_rate:g}",
        "dev, %": f"{100 * one.dev:.1f}",
        "behind the best": "" if one.behind is None else f"{100 * one.behind.mean:.1f}",
        "its error": "" if one.behind is None else f"{100 * one.behind.standard_error:.1f}",
        "eval, %": f"{100 * one.accuracy.mean:.1f}",
        "95 % interval": f"{low} to {high}",
    }
