"""The planned runs that are on record, and their costs, as tables."""

import functools
from collections.abc import Iterable
from typing import Any

import altair as alt
import pandas as pd

import cpadapt
from companion import PROJECT
from companion.records import records
from companion.wording import duration
from cpadapt.analysis import charts
from cpadapt.analysis.charts import backbone_name, task_name
from cpadapt.records.record import Provenance
from cpadapt.study import Study, load_study


@functools.cache
def studies() -> tuple[Study, ...]:
    """All planned studies, in the order of their files."""
    return tuple(load_study(path) for path in sorted((PROJECT / "studies").glob("*.toml")))


@functools.cache
def progress() -> pd.DataFrame:
    """The progress of each study on each of its tasks, as `cpadapt status` sums it up over cells.

    Returns:
        One row for each study and task, with the columns `study`, `backbone` and `task`, as a reader sees them, and
        the numbers of `runs` and of those that are `done`, `missing` and, of those done, `diverged`.
    """
    found = []
    for study in studies():
        known = {record.config_id: record for record in records(study.name)}
        for _, config in study.runs(cpadapt.load_projections(study.backbone, study.target_modules)):
            record = known.get(config.config_id)
            found.append(
                {
                    "study": study.name,
                    "backbone": backbone_name(study.backbone),
                    "task": task_name(config.task),
                    "runs": 1,
                    "done": int(record is not None),
                    "missing": int(record is None),
                    "diverged": int(record is not None and record.diverged_at is not None),
                }
            )
    return pd.DataFrame(found).groupby(["study", "backbone", "task"], sort=False).sum().reset_index()


def progress_chart() -> Any:
    """The share of each study's runs that are on record, as bars with the counts beside them, the least first."""
    found = progress().groupby("study", sort=False)[["runs", "done"]].sum().reset_index()
    found = found.assign(share=found["done"] / found["runs"]).sort_values("share", kind="stable")
    found["said"] = [f"{done:,} of {runs:,}" for done, runs in zip(found["done"], found["runs"], strict=True)]
    missing = (found["said"] + " of " + found["study"])[found["share"] < 1].tolist()
    y = alt.Y("study:N", sort=None, title=None, axis=alt.Axis(ticks=False, domain=False, labelFontSize=11))
    bars = (
        alt.Chart(found)
        .mark_bar(color=charts.FURTHER_COLOURS[0], size=9)
        .encode(
            # Above 1 there is room for the counts.
            alt.X("share:Q", title="on record", scale=alt.Scale(domain=[0, 2.4]),
                  axis=alt.Axis(format="~%", values=[0, 0.25, 0.5, 0.75, 1])),
            y,
            tooltip=["study:N", alt.Tooltip("done:Q", title="on record"), alt.Tooltip("runs:Q", title="planned")],
        )
    )  # fmt: skip
    counts = alt.Chart(found).mark_text(align="right", fontSize=11).encode(y, x=alt.value("width"), text="said")
    return alt.layer(bars, counts).properties(
        description=f"The share of runs on record for each of {len(found)} studies. All are complete but these:"
        f" {', '.join(missing) or 'none'}.",
        width="container",
        height=11 * len(found),
    )


def question_table() -> pd.DataFrame:
    """The purpose of each study."""
    return pd.DataFrame([{"study": study.name, "what it is for": study.about} for study in studies()])


def cost_table() -> pd.DataFrame:
    """The date, device and cost of each study."""
    costs = []
    for study in studies():
        for device in sorted({record.provenance.device for record in records(study.name)}):
            there = [record for record in records(study.name) if record.provenance.device == device]
            # Each record holds its bank's times; the run's share is one part of them.
            took = sum((r.cost.train_seconds + r.cost.evaluation_seconds) / r.cost.bank_runs for r in there)
            costs.append(
                {
                    "study": study.name,
                    "runs": len(there),
                    "device": device,
                    "finished": _span(record.provenance.finished[:10] for record in there),
                    "time": duration(took),
                    "peak memory, GB": f"{max(record.cost.peak_memory_bytes for record in there) / 1e9:.1f}",
                    "commit": ", ".join(dict.fromkeys(tree(record.provenance) for record in there)),
                }
            )
    return pd.DataFrame(costs)


def tree(provenance: Provenance) -> str:
    """The commit that measured, and whether the tree differed from it."""
    return (provenance.git_commit or "unknown")[:8] + ", changed" * (provenance.git_clean is False)


def _span(days: Iterable[str]) -> str:
    known = sorted(days)
    return " to ".join(dict.fromkeys((known[0], known[-1])))
