"""The cells of an encoder with all examples of five tasks, and the steps from one cell to the next."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from companion import PROJECT, contrasts
from companion.claims import Verdict, learned
from companion.contrasts import Contrast
from companion.records import records
from companion.wording import percent
from cpadapt.analysis.across_tasks import share_interval
from cpadapt.analysis.cells import Cells, cells_of
from cpadapt.analysis.charts import cell_name, family_colours, family_name, pair_name, task_name
from cpadapt.analysis.statistics import compare, estimate
from cpadapt.records.config import HEAD, Cell
from cpadapt.study import Study, load_study

STUDY = "minilm"
HEAD_ONLY, CP1, CP9, CP76, LORA1, LORA8 = (HEAD, 0), ("cp", 1), ("cp", 9), ("cp", 76), ("lora", 1), ("lora", 8)

STEPS: dict[str, tuple[Cell, Cell]] = {
    "cp1_head": (CP1, HEAD_ONLY), "cp9_cp1": (CP9, CP1), "cp76_cp9": (CP76, CP9), "cp76_cp1": (CP76, CP1),
    "lora1_cp9": (LORA1, CP9), "lora8_lora1": (LORA8, LORA1),
}  # fmt: skip
"""The differences that have a quantity each, by its name. They are between CP's smallest size, its largest below
LoRA's first rank and its largest of all, and LoRA's first rank and its last."""


def study() -> Study:
    """The study."""
    return load_study(PROJECT / "studies" / f"{STUDY}.toml")


@functools.cache
def cells() -> dict[str, Cells]:
    """The cells, by task."""
    return {task: cells_of(r for r in records(STUDY) if r.config.task == task) for task in study().tasks}


@functools.cache
def taught() -> tuple[str, ...]:
    """The tasks that LoRA's first rank and CP's largest size learn; larger ranks may collapse where CP learns."""
    verdicts = {task: learned(task_cells, LORA1, CP76).verdict for task, task_cells in cells().items()}
    return tuple(task for task, verdict in verdicts.items() if verdict is Verdict.HOLDS)


@functools.cache
def steps() -> pd.DataFrame:
    """The differences of `STEPS` on each task, as `companion.contrasts.frame` gives them."""
    return _frame(lambda task_cells, title: contrasts.pairs(task_cells, list(STEPS.values()), title))


@functools.cache
def matched() -> pd.DataFrame:
    """LoRA minus CP at each matched budget on each task, in the same form."""
    return _frame(contrasts.families)


def _frame(differences: Callable[[Cells, str], list[Contrast]]) -> pd.DataFrame:
    by_task = [differences(task_cells, task_name(task)) for task, task_cells in cells().items()]
    return contrasts.frame([contrast for found in by_task for contrast in found])


def below_first_rank() -> list[int]:
    """CP's sizes with a budget below that of LoRA's first rank."""
    task_cells = next(iter(cells().values()))
    return [size for size in task_cells.sizes("cp") if task_cells.budgets["cp", size] < task_cells.budgets[LORA1]]


def one_components_way(task_cells: Cells) -> tuple[float, float, float]:
    """CP 1's share of the best adapter's gain over the floor, and the ends of its 95 % interval (Fieller).

    The floor is the head alone, or always giving the commonest answer where that is better. The best adapter is the
    one with the highest mean on eval, and is taken as given in the interval.
    """
    right = {cell: outcomes.right for cell, outcomes in task_cells.outcomes.items()}
    means = {cell: float(found.mean()) for cell, found in right.items()}
    best = max(means, key=lambda cell: means[cell])
    floor = (
        right[HEAD_ONLY] if means[HEAD_ONLY] > task_cells.majority else np.full_like(right[best], task_cells.majority)
    )
    low, high = share_interval(lambda share: estimate(right[CP1] - floor - share * (right[best] - floor)))
    return (means[CP1] - float(floor.mean())) / (means[best] - float(floor.mean())), low, high


def gains(task: str) -> pd.DataFrame:
    """What each adapter gains over the head alone on a task, in points.

    Returns:
        One row for each cell, with the columns `label`, `size`, `scalars`, `gain`, `low` and `high` (the ends of the
        95 % interval).
    """
    found = cells()[task]
    rows = []
    for cell in sorted(found.outcomes.keys() - {HEAD_ONLY}):
        gain = compare(found.outcomes[cell], found.outcomes[HEAD_ONLY])
        low, high = gain.interval()
        rows.append([*cell, found.budgets[cell], 100 * gain.mean, 100 * low, 100 * high])
    return pd.DataFrame(rows, columns=["label", "size", "scalars", "gain", "low", "high"])


def gain_charts() -> Any:
    """`gains` against the budget on each task that is learned, as small multiples with one scale of budgets."""
    import altair as alt

    return alt.concat(*map(_gain_chart, taught()), columns=2).properties(
        description="Points over the head alone against trainable scalars, for CP and LoRA with 95 % intervals, on "
        f"{', '.join(map(task_name, taught()))}. A line marks the budget of LoRA's first rank."
    )


def _gain_chart(task: str) -> Any:
    import altair as alt

    table = gains(task)
    table = table.assign(
        family=table["label"].map(family_name),
        adapter=[cell_name(label, size) for label, size in zip(table["label"], table["size"], strict=True)],
    )
    x = alt.X(
        "scalars:Q",
        title="trainable scalars",
        scale=alt.Scale(type="log", nice=False, padding=12),
        axis=alt.Axis(format="~s", grid=False, values=[1000, 3000, 10_000, 30_000]),
    )
    y = alt.Y("gain:Q", title="points over the head", axis=alt.Axis(format="~g", tickCount=5))
    inks = {family_name(label): family_colours()[label] for label in ("cp", "lora")}
    colour = alt.Color("family:N", scale=alt.Scale(domain=list(inks), range=list(inks.values())), legend=None)
    tooltip = [
        alt.Tooltip("adapter:N"),
        alt.Tooltip("scalars:Q", title="trainable scalars", format=","),
        alt.Tooltip("gain:Q", title="points over the head", format="+.1f"),
        alt.Tooltip("low:Q", title="from", format="+.1f"),
        alt.Tooltip("high:Q", title="to", format="+.1f"),
    ]
    said = f"Points over the head alone on {task_name(task)}: " + ", ".join(
        f"{adapter} {gain:+.1f}" for adapter, gain in zip(table["adapter"], table["gain"], strict=True)
    )
    base = alt.Chart(table)
    rank = pd.DataFrame({"scalars": [cells()[task].budgets[LORA1]], "gain": [0.0], "said": ["one rank"]})
    marked = alt.Chart(rank)
    return alt.layer(
        marked.mark_rule(strokeWidth=1).encode(y),
        marked.mark_rule(strokeWidth=1, strokeDash=[2, 3]).encode(x),
        marked.mark_text(align="right", dx=-5, baseline="top", fontSize=12).encode(x, y=alt.value(0), text="said:N"),
        base.mark_rule(strokeWidth=1.5, opacity=0.45).encode(x, alt.Y("low:Q"), colour, y2="high:Q"),
        base.mark_line(strokeWidth=2).encode(x, y, colour),
        base.mark_point(filled=True, size=55, opacity=1).encode(x, y, colour, tooltip=tooltip),
        alt.Chart(table[table["size"] == 1])
        .mark_text(align="left", baseline="middle", dx=7, dy=-15, fontSize=12)
        .encode(x, y, text="family:N"),
    ).properties(title=task_name(task), description=f"{said}.", width=280, height=140)


def way_chart() -> Any:
    """CP 1's share of the best adapter's gain on each task that is learned, as bars with 95 % intervals."""
    import altair as alt

    found = [one_components_way(cells()[task]) for task in taught()]
    table = pd.DataFrame(found, columns=["share", "low", "high"]).assign(task=[task_name(task) for task in taught()])
    table = table.assign(said=table["share"].map("{:.0%}".format))
    y = alt.Y("task:N", sort=None, title=None, axis=alt.Axis(grid=False, ticks=False))
    x = alt.X("share:Q", title="share of the best adapter's gain", axis=alt.Axis(format="~%", tickCount=5))
    tooltip = [
        alt.Tooltip("task:N"),
        alt.Tooltip("share:Q", format=".0%"),
        alt.Tooltip("low:Q", title="from", format=".0%"),
        alt.Tooltip("high:Q", title="to", format=".0%"),
    ]
    base = alt.Chart(table)
    bars = base.mark_bar(size=22, color=family_colours()["cp"], opacity=0.6).encode(x, y, tooltip=tooltip)
    reach = base.mark_rule(strokeWidth=1.5).encode(alt.X("low:Q"), y, x2="high:Q", tooltip=tooltip)
    said = base.mark_text(align="left", dx=4, fontSize=13).encode(x=alt.value(0), y=y, text="said:N")
    return alt.layer(bars, reach, said).properties(
        description="One component's share of the best adapter's gain: "
        + ", ".join(f"{task} {share}" for task, share in zip(table["task"], table["said"], strict=True))
        + ", with 95 % intervals.",
        width="container",
        height=36 * len(table),
    )


CHARTED = ("cp9_cp1", "lora1_cp9", "lora8_lora1")


def charted_steps() -> pd.DataFrame:
    """Of `steps` on the tasks that are learned, those around LoRA's first rank, for `charts.interval_chart`."""
    names = [pair_name(*STEPS[name]) for name in CHARTED]
    table = steps()
    return table[table["what"].isin(names) & table["group"].isin(list(map(task_name, taught())))]


def balanced_table() -> pd.DataFrame:
    """Balanced accuracy of the head alone, CP's smallest size and the best cell on each task, as a table."""
    rows = []
    for task, task_cells in cells().items():
        balanced = {cell: float(task_cells.balanced(cell).mean()) for cell in task_cells.outcomes}
        assert task_cells.classes is not None
        found = {"head": balanced[HEAD_ONLY], "CP 1": balanced[CP1], "best": max(balanced.values())}
        found["one answer"] = 1 / len(set(task_cells.classes.values()))
        rows.append({"task": task_name(task)} | {title: percent(share) for title, share in found.items()})
    return pd.DataFrame(rows)
