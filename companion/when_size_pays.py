"""What CP gains from its size: on BoolQ from all examples and from few, and over the main study's tasks."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from companion import main_study, readout
from cpadapt.analysis.cells import Cells
from cpadapt.analysis.charts import FURTHER_COLOURS, cell_name, family_colours
from cpadapt.analysis.statistics import Mean, compare
from cpadapt.records.config import HEAD

ALL, FEW, OVER_TASKS = (
    "SmolLM2-135M, all of BoolQ",
    "SmolLM2-135M, 1000 of BoolQ",
    "Qwen2.5-Coder-1.5B, 15 tasks of 1000",
)
SETTINGS = (ALL, FEW, OVER_TASKS)


def gains() -> pd.DataFrame:
    """What CP of each size gains over the head alone, with a trained head.

    BoolQ's runs from all examples and from a thousand differ in nothing else, and answer the same items. Over tasks,
    the gain is that of the main study.

    Returns:
        One row for each of `SETTINGS` and size, with the columns `setting`, `size`, `ranks` (the scalars, in multiples
        of those of LoRA's first rank), `gain`, `low` and `high` (in points; the ends of the 95 % interval).
    """
    few, many = readout.by_examples()
    tried = sorted(set(few.sizes("cp")) & set(many.sizes("cp")))
    rows = []
    for setting, found in ((ALL, _on_boolq(many, tried)), (FEW, _on_boolq(few, tried)), (OVER_TASKS, _over_tasks())):
        for size, ranks, gain in found:
            low, high = gain.interval()
            rows.append([setting, size, ranks, 100 * gain.mean, 100 * low, 100 * high])
    return pd.DataFrame(rows, columns=["setting", "size", "ranks", "gain", "low", "high"])


def _on_boolq(cells: Cells, sizes: list[int]) -> Iterator[tuple[int, float, Mean]]:
    for size in sizes:
        gain = compare(cells.outcomes["cp", size], cells.outcomes[HEAD, 0])
        yield size, cells.budgets["cp", size] / cells.budgets["lora", 1], gain


def _over_tasks() -> Iterator[tuple[int, float, Mean]]:
    for size in sorted({size for found in main_study.runs().values() for label, size in found if label == "cp"}):
        gain = main_study.over_sources(main_study.gains(("cp", size)))
        yield size, main_study.scalars(("cp", size)) / main_study.scalars(("lora", 1)), gain


def chart() -> Any:
    """`gains` against the size, one line for each setting, with 95 % intervals."""
    import altair as alt

    table = gains()
    # Side by side, so that intervals of one size can be told apart.
    beside = table["setting"].map({ALL: 1.0, FEW: 1.03, OVER_TASKS: 0.97})
    table = table.assign(adapter=[cell_name("cp", size) for size in table["size"]], at=beside * table["ranks"])
    inks = dict(zip(SETTINGS, (family_colours()["cp"], *FURTHER_COLOURS[1:3]), strict=True))
    size = "CP's size over LoRA's first rank"
    x = alt.X(
        "at:Q",
        title=size,
        scale=alt.Scale(type="log", nice=False, padding=16),
        axis=alt.Axis(format="~g", grid=False, values=[0.1, 0.2, 0.5, 1, 2, 4]),
    )
    y = alt.Y("gain:Q", title="points over the head alone", axis=alt.Axis(format="~g", tickCount=6))
    colour = alt.Color(
        "setting:N",
        title=None,
        sort=list(inks),
        scale=alt.Scale(domain=list(inks), range=list(inks.values())),
        legend=alt.Legend(columns=1, symbolType="circle", labelLimit=300),
    )
    tooltip = [
        alt.Tooltip("setting:N", title="trained on"),
        alt.Tooltip("adapter:N"),
        alt.Tooltip("ranks:Q", title=size, format=".2f"),
        alt.Tooltip("gain:Q", title="points over the head", format="+.1f"),
        alt.Tooltip("low:Q", title="from", format="+.1f"),
        alt.Tooltip("high:Q", title="to", format="+.1f"),
    ]
    base = alt.Chart(table)
    zero = alt.Chart(pd.DataFrame({"gain": [0.0]})).mark_rule(strokeWidth=1).encode(y)
    return alt.layer(
        zero,
        base.mark_rule(strokeWidth=1.5, opacity=0.5).encode(x, alt.Y("low:Q"), colour, y2="high:Q"),
        base.mark_line(strokeWidth=2).encode(x, y, colour),
        base.mark_point(filled=True, size=70, opacity=1).encode(x, y, colour, tooltip=tooltip),
    ).properties(
        description="Points that CP gains over the head alone against its size, with 95 % intervals: on BoolQ it rises"
        " steeply with all examples and little with 1000; over fifteen tasks with 1000 examples each it is nearly"
        " flat.",
        width="container",
        height=320,
    )
