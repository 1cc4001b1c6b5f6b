"""Iterative hard thresholding's curves, which `bench/tensor_iht.py` writes: how often and how fast it recovers."""

import functools
import json
from typing import Any

import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from companion import PROJECT
from cpadapt.analysis.charts import FURTHER_COLOURS
from cpadapt.errors import InputError

FILE = "results/iht/curves.json"

RECOVERED = 0.01
"""A tensor counts as recovered if the last error is below one percent of its norm."""

SETUPS = {
    "measurements": "Two components from random measurements",
    "components": "More components from random measurements",
    "entries": "Two components from some entries",
    "completed components": "More components from some entries",
}
"""The paper's four set-ups, by their name in the file."""


@functools.cache
def curves() -> list[dict[str, Any]]:
    """Every curve.

    Each has `setup`, `components`, `measured` (a share of the entries), `noise`, `iterations` (those kept), `band`
    (relative errors at three quantiles over seeds, by kept iteration) and `last` (each seed's last relative error).
    """
    found: list[dict[str, Any]] = json.loads((PROJECT / FILE).read_text(encoding="utf-8"))["curves"]
    return found


def curve(setup: str, components: int, measured: float) -> dict[str, Any]:
    """One of them.

    Raises:
        InputError: there is none, or several.
    """
    wanted = (setup, components, measured)
    found = [each for each in curves() if (each["setup"], each["components"], each["measured"]) == wanted]
    if len(found) != 1:
        raise InputError(f"there are {len(found)} curves of {wanted}")
    return found[0]


def recovered(setup: str, components: int, measured: float) -> int:
    """The seeds whose tensor is recovered."""
    return sum(error < RECOVERED for error in curve(setup, components, measured)["last"])


def recovered_share(setup: str, components: int, measured: float) -> tuple[float, float, float]:
    """The share of seeds whose tensor is recovered, and its 95 % interval (Clopper and Pearson's)."""
    count, seeds = recovered(setup, components, measured), len(curve(setup, components, measured)["last"])
    low, high = proportion_confint(count, seeds, method="beta")
    return count / seeds, float(low), float(high)


def iterations_to_recover(setup: str, components: int, measured: float) -> int:
    """The first iteration on record after which the median seed is recovered.

    Raises:
        InputError: it never is.
    """
    found = curve(setup, components, measured)
    for iteration, error in zip(found["iterations"], found["band"][1], strict=True):
        if error < RECOVERED:
            return int(iteration)
    raise InputError(f"the median seed of {(setup, components, measured)} is not recovered")


def _line(found: dict[str, Any]) -> str:
    return str(found["components"]) if "components" in found["setup"] else f"{found['measured']:.0%}"


def curve_rows(setup: str) -> pd.DataFrame:
    """A set-up's curves by iteration: `line` (what tells it from the others), `iteration`, `low`, `median`, `high`."""
    rows = [
        {"line": _line(found), "iteration": iteration, "low": low, "median": median, "high": high}
        for found in curves()
        if found["setup"] == setup
        for iteration, low, median, high in zip(found["iterations"], *found["band"], strict=True)
    ]
    return pd.DataFrame(rows)


def curve_chart(setup: str) -> Any:
    """A set-up's curves: relative errors by iteration, the median seed as a line and 80 % of the seeds as a band."""
    import altair as alt

    table = curve_rows(setup)
    lines = list(dict.fromkeys(table["line"]))
    what = {"measurements": "per entry", "entries": "known entries"}.get(setup, "components")
    scale = alt.Scale(domain=lines, range=list(FURTHER_COLOURS[: len(lines)]))
    colour = alt.Color("line:N", title=what, sort=lines, scale=scale, legend=alt.Legend(symbolOpacity=1))
    axis = alt.Axis(format=".0e", values=[1e-15, 1e-12, 1e-9, 1e-6, 1e-3, 1e-2, 1e-1, 1])
    y = {"scale": alt.Scale(type="log"), "title": "error, of the tensor's size", "axis": axis}
    x = alt.X("iteration:Q", axis=alt.Axis(tickCount=5))
    tooltip = [
        alt.Tooltip("line:N", title=what), alt.Tooltip("iteration:Q"), alt.Tooltip("median:Q", format=".1e"),
        alt.Tooltip("low:Q", title="from", format=".1e"), alt.Tooltip("high:Q", title="to", format=".1e"),
    ]  # fmt: skip
    base = alt.Chart(table)
    bands = base.mark_area(opacity=0.2).encode(x, alt.Y("low:Q", **y), alt.Y2("high:Q"), colour, tooltip=tooltip)
    medians = base.mark_line(strokeWidth=2).encode(x, alt.Y("median:Q", **y), colour, tooltip=tooltip)
    return alt.layer(bands, medians).properties(
        title=alt.TitleParams(SETUPS[setup], frame="bounds", fontSize=13),
        description=f"{SETUPS[setup]}: relative error by iteration, one curve each of {', '.join(lines)}.",
        width="container",
        height=240,
    )


def recovered_table() -> pd.DataFrame:
    """Every curve in a table: set-up, components, what is known, and how many seeds are recovered with an interval."""
    rows = []
    for found in curves():
        at = found["setup"], found["components"], found["measured"]
        share, low, high = recovered_share(*at)
        rows.append(
            {
                "from": "some entries" if SETUPS[at[0]].endswith("entries") else "random measurements",
                "components": at[1],
                "as many as, of the entries": f"{at[2]:.0%}",
                "noise": "yes" if found["noise"] else "no",
                "recovered, %": f"{share:.0%}".rstrip("%"),
                "95 % interval": f"{100 * low:.0f} to {100 * high:.0f}",
            }
        )
    return pd.DataFrame(rows)
