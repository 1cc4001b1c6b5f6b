"""Altair charts of records: one theme and palette everywhere, legible to the colour-blind, in light and in dark.

Colour shows the family and shape the task. After `enable`, a notebook's charts are Vega-Lite in JSON, which JupyterLab
and the built book draw without a network. Altair takes a second to import, so only functions that draw import it.
"""

import itertools
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cpadapt.analysis.frontier import CELL, LINE, SETTING, best_under_budget, frontier
from cpadapt.families import FAMILIES
from cpadapt.families.peft_tuners import TUNERS
from cpadapt.inputs.backbones.specs import BACKBONES
from cpadapt.inputs.tasks.specs import TASKS
from cpadapt.records.config import HEAD, HEAD_COLOUR, HEAD_TITLE

FURTHER_COLOURS = ("#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#999999")
"""Okabe and Ito's palette, which every colour vision can distinguish, without the colours of LoRA and CP. A study's
labels that are not families, and what has no family, take those that the families of the chart leave. The fifth is a
lighter grey, because the palette's yellow is hard to see on white."""
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
"""The shapes of a chart's tasks, in alphabetical order of the tasks."""

VEGA_LITE = "5.21"
"""The version of Vega-Lite that a notebook's charts state, for JupyterLab; the book draws them with Altair's
version."""
VEGA_LITE_MIME = "application/vnd.vegalite.v5+json"


def theme() -> dict[str, Any]:
    """Vega-Lite's configuration, with text and lines in the colour of the page's text and no background."""
    ink = {"labelColor": "currentColor", "titleColor": "currentColor"}
    return {
        "config": {
            "background": None,
            "font": "sans-serif",
            "view": {"stroke": None, "continuousHeight": 300},
            "axis": {**ink, "titleFontWeight": "normal", "domainColor": "currentColor", "tickColor": "currentColor",
                     "gridColor": "currentColor", "gridOpacity": 0.12, "labelFontSize": 12, "titleFontSize": 13},
            "legend": {**ink, "orient": "top", "titleFontWeight": "normal", "labelFontSize": 12, "titleFontSize": 12,
                       "symbolStrokeWidth": 2, "columnPadding": 14},
            "title": {"color": "currentColor", "anchor": "start", "frame": "group", "fontSize": 14,
                      "fontWeight": "normal", "offset": 8},
            "header": ink,
            "text": {"color": "currentColor"},
            "rule": {"color": "currentColor"},
            "range": {"category": list(dict.fromkeys([*(f.COLOUR for f in FAMILIES.values()), *FURTHER_COLOURS]))},
        }
    }  # fmt: skip


def _bundle(spec: dict[str, Any], **_: Any) -> dict[str, Any]:
    spec["$schema"] = f"https://vega.github.io/schema/vega-lite/v{VEGA_LITE}.json"
    return {VEGA_LITE_MIME: spec, "text/plain": spec.get("description", "a chart")}


def enable() -> None:
    """Give the charts of this notebook cpadapt's theme, and a renderer that needs no network."""
    import altair as alt

    alt.theme.register("cpadapt", enable=True)(lambda: alt.theme.ThemeConfig(**theme()))
    alt.renderers.register("cpadapt", _bundle)
    alt.renderers.enable("cpadapt")


_NUMBER = re.compile(r"\d[\d.,]*(?:e[-+−]?\d+)?")
"""One number, without its sign."""


def table(frame: pd.DataFrame) -> Any:
    """A table for a notebook, without its index, with numeric columns aligned right and others left.

    A column is numeric if each of its cells is missing, a dash, or one or more numbers with signs, ranges, errors and
    brackets, and at least one cell has a number.
    """
    from IPython.display import HTML  # comes with Jupyter, and is needed only there

    frame = frame.rename_axis(columns=None)  # a name would add a cell
    sides = itertools.cycle("right" if _is_numeric(frame.iloc[:, k]) else "left" for k in range(frame.shape[1]))
    rows = frame.to_html(index=False, border=0)
    return HTML(re.sub(r"<(t[dh])>", lambda cell: f'<{cell[1]} style="text-align: {next(sides)}">', rows))


def _is_numeric(column: "pd.Series[Any]") -> bool:
    cells = [str(value) for value in column.dropna()]
    return any(map(_NUMBER.search, cells)) and all(re.fullmatch(r"[-+−±–, ()]*", _NUMBER.sub("", c)) for c in cells)


def family_name(label: str) -> str:
    """The printed name of a family, of one of PEFT's tuners or of head only; a study's own label stays as it is."""
    if label == HEAD:
        return HEAD_TITLE
    known = FAMILIES.get(label) or TUNERS.get(label)
    return label if known is None else known.TITLE


def family_colours() -> dict[str, str]:
    """The colours of head only and of every family, in the order of a legend."""
    return {HEAD: HEAD_COLOUR, **{name: family.COLOUR for name, family in FAMILIES.items()}}


def task_name(task: str) -> str:
    """The printed name of a task, its title if it is bundled and has one."""
    spec = TASKS.get(task)
    return task if spec is None or spec.title is None else spec.title


def backbone_name(backbone: str) -> str:
    """The printed name of a backbone, its title if it is a known one."""
    return BACKBONES[backbone].title if backbone in BACKBONES else backbone


def cell_name(label: str, size: int) -> str:
    """The printed name of a cell, such as `CP 11`; head only has no size."""
    return f"{family_name(label)} {size}" if size else family_name(label)


def pair_name(after: tuple[str, int], before: tuple[str, int]) -> str:
    """The printed name of the difference between two cells, such as `LoRA 1 − CP 11`."""
    return f"{cell_name(*after)} − {cell_name(*before)}"


def _tasks(table: pd.DataFrame) -> str:
    return ", ".join(task_name(task) for task in sorted(set(table["task"])))


def _colour(labels: set[str], *, legend: bool = True) -> Any:
    import altair as alt

    known = {label: colour for label, colour in family_colours().items() if label in labels}
    further = sorted(labels - set(known))
    free = [colour for colour in FURTHER_COLOURS if colour not in known.values()]
    colours = [*known.values(), *free[: len(further)]]
    names = [family_name(label) for label in (*known, *further)]
    scale, shown = alt.Scale(domain=names, range=colours), alt.Legend() if legend else None
    return alt.Color("family name:N", title=None, scale=scale, legend=shown)


def _shape(tasks: list[str]) -> Any:
    import altair as alt

    shapes = [shape for _, shape in zip(tasks, itertools.cycle(SHAPES), strict=False)]
    legend = alt.Legend() if len(tasks) > 1 else None
    return alt.Shape("task:N", scale=alt.Scale(domain=tasks, range=shapes), legend=legend)


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """The table with printed names, and a key that a cell shares with its seeds."""
    names = [cell_name(label, size) for label, size in zip(table["label"], table["size"], strict=True)]
    return table.assign(**{"family name": [family_name(label) for label in table["label"]], "cell": names})


MEASURED, PUBLISHED = "measured here", "published (second-hand)"


@dataclass(frozen=True)
class _Frontier:
    """The data of a frontier chart, with printed names."""

    adapters: pd.DataFrame
    """Cells with an adapter, as `frontier` returns them; `accuracy` is their mean on eval."""
    floor: pd.DataFrame
    """Head only, in the same form."""
    seeds: pd.DataFrame
    """The runs of these cells at their settings, with their `accuracy`."""
    commonest: float | None
    """The accuracy of always giving the commonest answer, if the records are of one task and know it."""

    @property
    def is_one_line_each(self) -> bool:
        """Whether each family has one line, which can have its name."""
        return not self.adapters.empty and self.adapters[LINE].drop_duplicates()["label"].is_unique


@dataclass(frozen=True)
class _Look:
    """The encodings and parameters that the layers of a frontier chart share."""

    x: Any
    y: Any
    colour: Any
    shape: Any
    hovered: Any
    """The cell under the pointer."""
    hovered_floor: Any
    sliders: tuple[Any, ...]
    """The slider's parameter and the budget at its place; none without a slider."""

    @property
    def over(self) -> Any:
        """Whether a cell is over the budget."""
        import altair as alt

        return alt.datum.parameters > self.budget if self.sliders else "false"

    @property
    def budget(self) -> Any:
        """The parameter with the budget in scalars."""
        return self.sliders[1]


def frontier_chart(
    records: pd.DataFrame, *, budget_slider: bool = False, published: pd.DataFrame | None = None
) -> Any:
    """Accuracy on eval against trainable scalars, by family, as means over seeds at the setting that dev chose.

    The seeds are drawn faintly behind their cell and light up when the pointer is on it. Head only, which has no
    trainable scalars in an adapter, is the floor, a dashed line; the commonest answer is a dotted one, or, where it
    is so low that it would flatten the rest, a line of text. A family with one line has its name at its smallest size.

    Args:
        records: a table of one task's runs, as `read_records` returns it.
        budget_slider: add a slider over the sizes, from LoRA's first rank at the start. Cells above the budget fade,
            the treads show the best cell at or under each budget, and a line above the chart names each family's best
            cell (`best_under_budget`). That cell is chosen on eval itself, so it describes these runs and promises
            nothing for others.
        published: numbers of others, with the columns `backbone`, `task`, `label`, `size`, `parameters`, `accuracy`,
            `sd` and `seeds`, drawn hollow if a checkbox is ticked.
    """
    import altair as alt

    data = _frontier_data(records)
    look = _frontier_look(data, published, budget_slider)
    adapters = data.adapters
    layers = [] if data.floor.empty else _floor_layers(data, look)
    theirs = [] if published is None else _published_layers(published, adapters, look)
    if adapters.empty:
        layers += theirs  # only with data, or the axes' domains would be infinite
    else:
        lines = _tread_layers(adapters, look) if budget_slider else [_line_layer(adapters, look)]
        layers += [_seed_layer(data, look), *lines, *theirs, *_point_layers(adapters, look)]
        layers += _name_layers(data, look)
    means = pd.concat([adapters, data.floor])
    chart = alt.layer(*layers).properties(
        description=_description(means, budget_slider, published), width="container", height=320
    )
    note = []
    if published is not None:
        on = ", ".join(backbone_name(name) for name in sorted(set(published["backbone"])))
        note = [f"filled: {MEASURED}", f"hollow: {PUBLISHED}, on {on}"]
    if budget_slider and not adapters.empty:
        said = json.dumps([note + best for best in _best_by_budget(adapters)], ensure_ascii=False)
        return chart.properties(title=alt.TitleParams(alt.ExprRef(f"{said}[place]"), fontSize=12, frame="bounds"))
    return chart.properties(title=alt.TitleParams(note, fontSize=12, frame="bounds")) if note else chart


def _frontier_data(records: pd.DataFrame) -> _Frontier:
    records = records.astype({"learning_rate": float, "scale": float})  # all are missing if all runs are head only
    best = frontier(records)
    setting = [*CELL, *SETTING]
    chosen = records.merge(best[setting], on=setting)  # for head only, missing values match missing values
    means = _named(best).rename(columns={"eval_mean": "accuracy"})
    seeds = _named(chosen).rename(columns={"eval_accuracy": "accuracy"})[
        [*LINE, "family name", "cell", "parameters", "accuracy", "seed"]
    ]
    means["best so far"] = means.groupby(LINE, dropna=False)["accuracy"].cummax()
    commonest = records["majority_rate"].dropna() if len(set(records["task"])) == 1 else pd.Series(dtype=float)
    return _Frontier(
        adapters=means[means["label"] != HEAD],
        floor=means[means["label"] == HEAD],
        seeds=seeds,
        commonest=None if commonest.empty else float(commonest.max()),
    )


def _frontier_look(data: _Frontier, published: pd.DataFrame | None, budget_slider: bool) -> _Look:
    import altair as alt

    means = pd.concat([data.adapters, data.floor])
    labels = set(means["label"]) | (set() if published is None else set(published["label"]))
    pointer = {"fields": ["study", "cell"], "on": "pointerover", "clear": "pointerout", "empty": False}
    return _Look(
        x=alt.X(
            "parameters:Q",
            title="trainable scalars",
            scale=alt.Scale(type="log", nice=False, padding=14),
            axis=alt.Axis(format="~s", grid=False, tickCount=6, labelOverlap="greedy", labelSeparation=6),
        ),
        y=alt.Y("accuracy:Q", title="accuracy on eval", scale=alt.Scale(zero=False), axis=alt.Axis(format=".1~%")),
        colour=_colour(labels, legend=not data.is_one_line_each),
        shape=_shape(sorted(set(means["task"]))),
        hovered=alt.selection_point(name="hovered", **pointer),
        hovered_floor=alt.selection_point(name="hovered_floor", **pointer),
        sliders=_budget_slider(data.adapters) if budget_slider else (),
    )


def _budget_slider(adapters: pd.DataFrame) -> tuple[Any, Any]:
    """A slider with a stop at every cell's count, and the count at its place.

    It starts at the smallest size of the first family, which is LoRA's first rank.
    """
    import altair as alt

    counts = _counts(adapters) or [1]
    first = adapters.loc[adapters["label"] == next(iter(FAMILIES)), "parameters"].min()
    start = counts.index(int(first)) if first == first else len(counts) // 2
    slider = alt.binding_range(min=0, max=len(counts) - 1, step=1, name="budget ")
    return alt.param(name="place", value=start, bind=slider), alt.param(name="budget", expr=f"{counts}[place]")


def _counts(adapters: pd.DataFrame) -> list[int]:
    return sorted(set(adapters["parameters"].astype(int)))


def _cell_tooltips() -> list[Any]:
    import altair as alt

    return [
        alt.Tooltip("cell:N", title="adapter"),
        alt.Tooltip("parameters:Q", title="trainable scalars", format=","),
        alt.Tooltip("accuracy:Q", title="mean accuracy", format=".1%"),
        alt.Tooltip("eval_sd:Q", title="sd over seeds", format=".1%"),
        alt.Tooltip("runs:Q", title="seeds"),
        alt.Tooltip("learning_rate:Q", title="learning rate", format="~e"),
    ]


def _line_tooltips() -> list[Any]:
    """What is drawn as a line over all sizes, and its accuracy."""
    import altair as alt

    return [alt.Tooltip("cell:N", title="adapter"), alt.Tooltip("accuracy:Q", title="accuracy on eval", format=".1%")]


def _floor_layers(data: _Frontier, look: _Look) -> list[Any]:
    """The seeds and mean of head only, and an invisible wider mean that is easier to point at."""
    import altair as alt

    floor, tooltip = data.floor, _cell_tooltips()
    seen = alt.when(look.hovered_floor).then(alt.value(0.9)).otherwise(alt.value(0))
    return [
        alt.Chart(data.seeds[data.seeds["label"] == HEAD])
        .mark_rule(strokeWidth=1)
        .encode(look.y, look.colour, detail="seed:N", opacity=seen),
        alt.Chart(floor).mark_rule(strokeDash=[6, 4], strokeWidth=2).encode(look.y, look.colour),
        alt.Chart(floor)
        .mark_rule(strokeWidth=14, opacity=0)
        .encode(look.y, tooltip=[tooltip[0], *tooltip[2:5]])
        .add_params(look.hovered_floor),
        alt.Chart(floor)
        .mark_text(align="right", baseline="bottom", dy=-3, fontSize=12)
        .encode(look.y, x=alt.value("width"), text="cell:N"),
    ]


def _name_layers(data: _Frontier, look: _Look) -> list[Any]:
    """Each line's name above its smallest size, and the commonest answer."""
    import altair as alt

    layers = []
    known = data.adapters.dropna(subset="accuracy")
    if data.is_one_line_each and not known.empty:
        smallest = known.loc[known.groupby("label")["parameters"].idxmin()]
        names = alt.Chart(smallest).mark_text(align="left", baseline="bottom", dy=-8, dx=-4, fontSize=13)
        layers.append(names.encode(look.x, look.y, text="family name:N"))
    if data.commonest is None or known.empty:
        return layers
    shown = pd.concat([data.floor, known])["accuracy"]
    said = f"commonest answer, {100 * data.commonest:.1f} %"
    if data.commonest >= shown.min() - (shown.max() - shown.min()):
        line = alt.Chart(pd.DataFrame({"cell": ["commonest answer"], "accuracy": [data.commonest], "said": [said]}))
        # Just below head only, its name goes under its line, because theirs stands over the other.
        is_just_below = any(data.floor["accuracy"] > data.commonest) and data.commonest > shown.min()
        text = line.mark_text(
            align="right", baseline="top" if is_just_below else "bottom", dy=3 if is_just_below else -3, fontSize=12
        )
        return [
            *layers,
            line.mark_rule(strokeDash=[2, 3], strokeWidth=1.5).encode(look.y, tooltip=_line_tooltips()),
            text.encode(look.y, x=alt.value("width"), text="said:N"),
        ]
    below = alt.Chart(pd.DataFrame({"said": [f"↓ {said}"]})).mark_text(
        align="right", baseline="bottom", dy=-4, fontSize=12
    )
    return [*layers, below.encode(x=alt.value("width"), y=alt.value("height"), text="said:N")]


def _seed_layer(data: _Frontier, look: _Look) -> Any:
    """The runs of every cell with an adapter, faint unless the pointer is on it."""
    import altair as alt

    lit = alt.when(look.hovered).then(alt.value(1)).when(look.over).then(alt.value(0.08)).otherwise(alt.value(0.3))
    return (
        alt.Chart(data.seeds[data.seeds["label"] != HEAD])
        .mark_point(filled=True, size=35)
        .encode(
            look.x, look.y, look.colour, look.shape, opacity=lit,
            tooltip=[
                alt.Tooltip("cell:N", title="adapter"), alt.Tooltip("seed:Q"),
                alt.Tooltip("parameters:Q", title="trainable scalars", format=","),
                alt.Tooltip("accuracy:Q", title="accuracy on eval", format=".1%"),
            ],
        )
    )  # fmt: skip


def _point_layers(adapters: pd.DataFrame, look: _Look) -> list[Any]:
    """The cells' means, and invisible larger marks that are easier to point at or touch."""
    import altair as alt

    faded = alt.when(look.over).then(alt.value(0.2)).otherwise(alt.value(1))
    return [
        alt.Chart(adapters)
        .mark_point(filled=True, size=90)
        .encode(look.x, look.y, look.colour, look.shape, opacity=faded),
        alt.Chart(adapters)
        .mark_point(filled=True, size=350, opacity=0)
        .encode(look.x, look.y, tooltip=_cell_tooltips())
        .add_params(look.hovered),
    ]


def _line_layer(adapters: pd.DataFrame, look: _Look) -> Any:
    import altair as alt

    return alt.Chart(adapters).mark_line(strokeWidth=2).encode(look.x, look.y, look.colour, detail=LINE)


def _tread_layers(adapters: pd.DataFrame, look: _Look) -> list[Any]:
    """The budget as a line, and each family's best cell at or under it, as treads up to the budget and in words."""
    import altair as alt

    top = int(adapters["parameters"].max())
    following = adapters.groupby(LINE)["parameters"].shift(-1)
    treads = adapters.assign(until=following.fillna(top).astype(int))
    return [
        alt.Chart(pd.DataFrame({"parameters": [top]}))
        .transform_calculate(parameters=look.budget.name)
        .mark_rule(strokeWidth=1)
        .encode(look.x)
        .add_params(*look.sliders),
        # Into a field of its own: what a calculation overwrites stays so when the slider moves back.
        alt.Chart(treads)
        .transform_filter(alt.datum.parameters <= look.budget)
        .transform_calculate(shown_until=f"min(datum.until, {look.budget.name})")
        .mark_rule(strokeWidth=2, opacity=0.8)
        .encode(look.x, alt.Y("best so far:Q", title="accuracy on eval"), look.colour, x2="shown_until:Q"),
    ]


def _best_by_budget(adapters: pd.DataFrame) -> list[list[str]]:
    """For each place of the slider, `best_under_budget` in words: the budget, and then a line for each family."""
    best = adapters.rename(columns={"accuracy": "eval_mean"})
    lines = []
    for budget in _counts(best):
        fitting = best_under_budget(best, budget).sort_values(["eval_mean", "parameters"], ascending=[False, True])
        said = {
            row["label"]: f"{row['cell']}: {100 * row['eval_mean']:.1f} %, {row['parameters']:,} scalars"
            for row in fitting.drop_duplicates("label").to_dict("records")
        }
        named = [said.get(label, f"{family_name(label)}: none fits") for label in sorted(set(best["label"]))]
        lines.append([f"best on eval within {budget:,} scalars:", *named])
    return lines


def _published_layers(published: pd.DataFrame, adapters: pd.DataFrame, look: _Look) -> list[Any]:
    """Hollow marks, hidden at first, with a checkbox. Hidden marks lie on a measured cell, so that the axes fit."""
    import altair as alt

    shown = alt.param(name="published", value=False, bind=alt.binding_checkbox(name=f"{PUBLISHED} "))
    chart = alt.Chart(_named(published).assign(values=PUBLISHED))
    known = adapters.dropna(subset="accuracy")
    if len(known):
        chart = chart.transform_calculate(
            parameters=f"published ? datum.parameters : {known['parameters'].iloc[0]}",
            accuracy=f"published ? datum.accuracy : {known['accuracy'].iloc[0]}",
        )
    return [
        chart.mark_point(filled=False, size=90, strokeWidth=1.5, strokeDash=[2, 2])
        .encode(
            look.x, look.y, look.colour, look.shape,
            opacity=alt.when(shown).then(alt.value(1)).otherwise(alt.value(0)),
            tooltip=[
                alt.Tooltip("values:N"), alt.Tooltip("backbone:N"), alt.Tooltip("cell:N", title="adapter"),
                alt.Tooltip("parameters:Q", title="trainable scalars", format=","),
                alt.Tooltip("accuracy:Q", title="mean accuracy", format=".1%"),
                alt.Tooltip("sd:Q", title="sd over seeds", format=".1%"), alt.Tooltip("seeds:Q"),
            ],
        )
        .add_params(shown)
    ]  # fmt: skip


def _description(means: pd.DataFrame, budget_slider: bool, published: pd.DataFrame | None) -> str:
    """The description of a frontier chart, for readers who cannot see it."""
    tasks = _tasks(means)
    text = f"Mean accuracy on eval of {tasks} against trainable scalars, by adapter family."
    known = means.dropna(subset="accuracy")
    best = known.sort_values(["accuracy", "parameters"], ascending=[False, True]).drop_duplicates("label")
    reached = [f"{cell} {accuracy:.1%}" for cell, accuracy in zip(best["cell"], best["accuracy"], strict=True)]
    if reached:
        text += f" Highest of each: {', '.join(reached)}."
    if budget_slider:
        text += " A slider sets a budget; the best cell of each family at or under it is named."
    if published is not None:
        text += f" Hollow marks are {PUBLISHED}, on another backbone."
    return text


def curve_chart(evaluations: pd.DataFrame) -> Any:
    """Accuracy on dev against steps, one line for each run. A click on a family in the legend fades the others.

    Args:
        evaluations: a table as `read_evaluations` returns it.
    """
    import altair as alt

    picked = alt.selection_point(name="family", fields=["family name"], bind="legend")
    tasks = _tasks(evaluations)
    return (
        alt.Chart(_named(evaluations))
        .mark_line(strokeWidth=1.5)
        .encode(
            alt.X("step:Q", title="step",
                  axis=alt.Axis(grid=False, tickCount=6, labelOverlap="greedy", labelSeparation=8)),
            alt.Y("dev_accuracy:Q", title="accuracy on dev", scale=alt.Scale(zero=False),
                  axis=alt.Axis(format=".1~%")),
            _colour(set(evaluations["label"])),
            detail="id:N",
            opacity=alt.when(picked).then(alt.value(0.6)).otherwise(alt.value(0.08)),
            tooltip=[
                alt.Tooltip("cell:N", title="adapter"), alt.Tooltip("seed:Q"),
                alt.Tooltip("learning_rate:Q", title="learning rate", format="~e"), alt.Tooltip("step:Q"),
                alt.Tooltip("dev_accuracy:Q", title="accuracy on dev", format=".1%"),
            ],
        )
        .add_params(picked)
        .properties(
            description=f"Accuracy on dev of {tasks} against training steps, one line a run, coloured by family.",
            width="container",
            height=240,
        )
    )  # fmt: skip


def rate_chart(response: pd.DataFrame, floor: float) -> Any:
    """Accuracy on eval against the learning rate, one line for each cell, thicker for larger budgets.

    Each line has its cell's name at its highest rate. A click on a family in the legend fades the others.

    Args:
        response: one task's cells at their rates, one row for each, with the columns `label`, `size`, `parameters`,
            `learning_rate`, `times` (that rate in multiples of its family's default), `mean` and `error` (on eval),
            `dev` (the mean on dev) and `runs`.
        floor: the mean accuracy of the head alone, drawn as a dashed line.
    """
    import altair as alt

    picked = alt.selection_point(name="family", fields=["family name"], bind="legend")
    table = _named(response)
    ends = [int(table["parameters"].min()), int(table["parameters"].max())]
    tried, height = sorted(set(table["times"])), 300
    x = alt.X(
        "times:Q",
        title="learning rate, times the family's default",
        # To the right there is room for names, on a phone too.
        scale=alt.Scale(type="log", nice=False, padding=14, domain=[tried[0], 2.2 * tried[-1]]),
        axis=alt.Axis(format="~g", grid=False, values=tried),
    )
    y = alt.Y(
        "mean:Q", title="accuracy on eval", scale=alt.Scale(zero=False, padding=10), axis=alt.Axis(format=".1~%")
    )
    colour = _colour(set(table["label"]))
    faded = alt.when(picked).then(alt.value(0.85)).otherwise(alt.value(0.08))
    width = alt.StrokeWidth("parameters:Q", scale=alt.Scale(type="log", domain=ends, range=[0.8, 4]), legend=None)
    lines = alt.Chart(table).mark_line().encode(x, y, colour, width, detail="cell:N", opacity=faded).add_params(picked)
    points = (
        alt.Chart(table)
        .mark_point(filled=True, size=70)
        .encode(
            x, y, colour,
            opacity=faded,
            tooltip=[
                alt.Tooltip("cell:N", title="adapter"),
                alt.Tooltip("parameters:Q", title="trainable scalars", format=","),
                alt.Tooltip("learning_rate:Q", title="learning rate", format="~e"),
                alt.Tooltip("mean:Q", title="mean accuracy", format=".1%"),
                alt.Tooltip("error:Q", title="standard error", format=".1%"),
                alt.Tooltip("dev:Q", title="on dev", format=".1%"),
                alt.Tooltip("runs:Q", title="seeds"),
            ],
        )
    )  # fmt: skip
    known = table.dropna(subset="mean")
    last = known.loc[known.groupby("cell")["times"].idxmax()].sort_values("mean")
    reach = max([*known["mean"], floor]) - min([*known["mean"], floor])
    last = last.assign(place=_apart(last["mean"].tolist(), 13 * reach / height))
    names = alt.Chart(last).mark_text(align="left", dx=7, fontSize=11)
    head = alt.Chart(pd.DataFrame({"cell": ["head alone"], "mean": [floor], "times": tried[:1], "until": tried[-1:]}))
    told = [alt.Tooltip("cell:N", title="adapter"), alt.Tooltip("mean:Q", title="mean accuracy", format=".1%")]
    return alt.layer(
        head.mark_rule(strokeDash=[6, 4], strokeWidth=2, color=HEAD_COLOUR).encode(x, y, x2="until:Q", tooltip=told),
        head.mark_text(align="left", baseline="bottom", dy=-3, fontSize=12).encode(x, y, text="cell:N"),
        lines,
        points,
        names.encode(x, alt.Y("place:Q", title="accuracy on eval"), text="cell:N", opacity=faded),
    ).properties(
        description="Mean accuracy on eval against the learning rate, one line a size of each adapter family, with"
        " the head alone as a dashed line.",
        width="container",
        height=height,
    )


def _apart(places: Sequence[float], gap: float) -> list[float]:
    """Places in ascending order, each moved up until it is this far above the one before."""
    found: list[float] = []
    for place in places:
        found.append(max(place, found[-1] + gap) if found else place)
    return found


def smallest_effect_chart(effects: pd.DataFrame, wanted: float) -> Any:
    """The smallest difference that can be seen against the number of seeds, one line for each task, with its name.

    Args:
        effects: one row for each task and number of seeds, with the columns `task`, `seeds` and `effect`.
        wanted: a difference that one would like to see, drawn as a dashed line.
    """
    import altair as alt

    table = effects.assign(
        name=[task_name(task) for task in effects["task"]], points=100 * effects["effect"].astype(float)
    )
    names = list(dict.fromkeys(table["name"]))
    counts, ends = sorted(set(table["seeds"])), [0.9 * 100 * wanted, 1.25 * float(table["points"].max())]
    x = alt.X("seeds:Q", title="seeds", scale=alt.Scale(type="log", domain=[counts[0], counts[-1]], nice=False),
              axis=alt.Axis(grid=False, values=counts, labelOverlap="greedy"))  # fmt: skip
    y = alt.Y("points:Q", title="smallest difference seen, points",
              scale=alt.Scale(type="log", domain=ends, nice=False),
              axis=alt.Axis(values=[0.5, 1, 2, 5, 10, 20, 50], format="~g"))  # fmt: skip
    colour = alt.Color("name:N", scale=alt.Scale(domain=names, range=list(FURTHER_COLOURS[: len(names)])), legend=None)
    tooltip = [
        alt.Tooltip("name:N", title="task"),
        alt.Tooltip("seeds:Q"),
        alt.Tooltip("points:Q", title="smallest difference", format=".2f"),
    ]
    base = alt.Chart(table)
    lines = base.mark_line(strokeWidth=2).encode(x, y, colour)
    points = base.mark_point(filled=True, size=50, opacity=1).encode(x, y, colour, tooltip=tooltip)
    named = alt.Chart(table[table["seeds"] == counts[-1]]).mark_text(align="right", dy=-10, fontSize=13)
    line = alt.Chart(pd.DataFrame({"points": [100 * wanted], "said": [f"{100 * wanted:g} points"]}))
    return alt.layer(
        line.mark_rule(strokeDash=[6, 4], strokeWidth=1).encode(y),
        line.mark_text(align="left", baseline="bottom", dx=4, dy=-3, fontSize=12).encode(
            y, x=alt.value(0), text="said:N"
        ),
        lines,
        points,
        named.encode(x, y, text="name:N"),
    ).properties(
        description=f"The smallest difference that can be seen against the number of seeds, on the items of"
        f" {', '.join(names)}, with a dashed line at {100 * wanted:g} points.",
        width="container",
        height=230,
    )


def recovery_chart(found: pd.DataFrame) -> Any:
    """A map of what students removed of the divergence from planted teachers: one column a teacher, one row a student.

    A field's number is the mean over draws in percent; under it stands the 95 % interval.

    Args:
        found: one text's rows of `cpadapt.analysis.students.recovery`.
    """
    import altair as alt

    table = _named(found).sort_values(["parameters", "label"])
    table["student"] = [f"{cell}, {count:,}" for cell, count in zip(table["cell"], table["parameters"], strict=True)]
    table["percent"] = [str(round(100 * mean)) for mean in table["mean"]]
    table["range"] = [
        "" if pd.isna(low) else f"{round(100 * low)} to {round(100 * high)}"
        for low, high in zip(table["low"], table["high"], strict=True)
    ]
    # A negative share is drawn as none.
    table["shade"] = table["mean"].clip(0, 1)
    teachers = list(dict.fromkeys(found["teacher"]))
    students = list(dict.fromkeys(table["student"]))
    # On a phone names stand upright, and there is no room for intervals, which the tooltips have.
    narrow = f"width < {46 * len(teachers)}"
    names = alt.Axis(
        orient="top", ticks=False, labelAngle=alt.ExprRef(f"{narrow} ? -90 : 0"),
        labelAlign=alt.ExprRef(f"{narrow} ? 'left' : 'center'"),
        labelBaseline=alt.ExprRef(f"{narrow} ? 'middle' : 'bottom'"), labelOverlap=False,
    )  # fmt: skip
    base = alt.Chart(table).encode(
        alt.X("teacher:N", sort=teachers, title="planted update", axis=names),
        # A student's name and its count, in two lines.
        alt.Y("student:N", sort=students, title="student, trainable scalars",
              axis=alt.Axis(ticks=False, labelOffset=-7, labelExpr="split(datum.label, ', ')")),
        tooltip=[
            alt.Tooltip("teacher:N", title="planted update"), alt.Tooltip("cell:N", title="student"),
            alt.Tooltip("parameters:Q", title="trainable scalars", format=","),
            alt.Tooltip("mean:Q", title="removed", format=".1%"), alt.Tooltip("low:Q", title="from", format=".1%"),
            alt.Tooltip("high:Q", title="to", format=".1%"), alt.Tooltip("draws:Q"),
        ],
    )  # fmt: skip
    # From the tenth below the least, so that near shares differ.
    least = min(math.floor(10 * table["shade"].min()) / 10, 0.9)
    scale = alt.Scale(scheme="viridis", domain=[least, 1])
    legend = alt.Legend(title="share of the divergence removed", format=".0%")
    fields = base.mark_rect().encode(alt.Color("shade:Q", scale=scale, legend=legend))
    # Viridis is dark at its low end and light at its high end; there both inks are equally clear.
    ink = alt.when(alt.datum.shade < least + 0.45 * (1 - least)).then(alt.value("white")).otherwise(alt.value("black"))
    means = base.mark_text(fontSize=13, dy=-6).encode(text="percent:N", color=ink)
    ranges = base.mark_text(fontSize=11, dy=9, opacity=alt.ExprRef(f"{narrow} ? 0 : 1")).encode(
        text="range:N", color=ink
    )
    return alt.layer(fields, means, ranges).properties(
        description=f"The share of the divergence from teachers ({', '.join(teachers)}) that students"
        f" ({', '.join(students)}) removed on unseen texts of {_tasks(found)}, in percent with 95 % intervals.",
        width="container",
        height=38 * len(students),
    )


def _percent(level: float) -> str:
    """The level of an interval, such as 95 %."""
    return f"{100 * level:.0f} %"


def _interval_tooltips(level: float) -> list[Any]:
    """A difference in points and the ends of its interval."""
    import altair as alt

    said = {"mean": "points", "low": f"{_percent(level)} from", "high": "to"}
    return [alt.Tooltip(f"{name}:Q", title=title, format="+.2f") for name, title in said.items()]


def _signed_axis(**further: Any) -> Any:
    """The axis of a difference: signs at its numbers, but for 0."""
    import altair as alt

    return alt.Axis(format="+~f", labelExpr="datum.value ? datum.label : '0'", **further)


def interval_chart(
    contrasts: pd.DataFrame,
    title: str,
    margin: float,
    row: int | None = None,
    level: float = 0.95,
    colours: Sequence[str] = FURTHER_COLOURS,
) -> Any:
    """Differences with their intervals, one below the other, coloured by group.

    Args:
        contrasts: one row for each difference, with the columns `group`, `what`, `mean`, `low` and `high` (the ends of
            the interval), and `seeds`.
        title: the title of the axis, such as `LoRA − CP`.
        margin: smaller differences count as none; drawn as a dashed line on either side of zero, unless it is 0.
        row: the height of what stands on one line, in pixels; without it, 16 for each group.
        level: of the intervals.
        colours: of the groups, in their order.
    """
    import altair as alt

    table = contrasts[["group", "what", "mean", "low", "high", "seeds"]].copy()
    table[["mean", "low", "high"]] *= 100
    groups = list(dict.fromkeys(table["group"]))
    y = alt.Y("what:N", sort=None, title=None, axis=alt.Axis(grid=False, ticks=False))
    offset = alt.YOffset("group:N", sort=groups)
    scale = alt.Scale(domain=groups, range=list(colours[: len(groups)]))
    # On a phone two long names side by side would be cut off.
    columns = 1 if max(map(len, groups)) > 12 else 2
    legend = alt.Legend(columns=columns, symbolType="circle") if len(groups) > 1 else None
    colour = alt.Color("group:N", title=None, scale=scale, legend=legend)
    tooltip = [
        alt.Tooltip("group:N", title="group"),
        alt.Tooltip("what:N", title="difference"),
        *_interval_tooltips(level),
        alt.Tooltip("seeds:Q"),
    ]
    x = alt.X("low:Q", title=title, axis=_signed_axis(tickCount=7))
    base = alt.Chart(table)
    reach = base.mark_rule(strokeWidth=2).encode(x, alt.X2("high:Q"), y, offset, colour, tooltip=tooltip)
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        alt.X("mean:Q"), y, offset, colour, tooltip=tooltip
    )
    lines = [
        alt.Chart(pd.DataFrame({"at": ends})).mark_rule(strokeDash=dash, strokeWidth=1).encode(alt.X("at:Q"))
        for ends, dash in (([0.0], [1, 0]), ([-100 * margin, 100 * margin], [6, 4]))[: 2 if margin else 1]
    ]
    return alt.layer(*lines, reach, points).properties(
        description=f"Differences, {title}, each with its {_percent(level)} interval, of {', '.join(groups)}.",
        width="container",
        height=(row or 16 * len(groups)) * table["what"].nunique(),
    )


def gain_chart(gains: pd.DataFrame, title: str, row: int = 23, level: float = 0.95) -> Any:
    """What some cells gain on each task, as dots on one line a task, with the interval of each.

    A cell has its family's colour; of two cells of one family the smaller is hollow.

    Args:
        gains: one row for each task and cell, with the columns `what` (the task's printed name), `label`, `size`,
            `mean`, `low` and `high` (the ends of the interval); and, if a cell is called otherwise than by its label
            and size, `cell`.
        title: the title of the axis, such as `points over the head alone`.
        row: the height of a task, in pixels.
        level: of the intervals.
    """
    import altair as alt

    table = gains.copy()
    if "cell" not in table:
        table["cell"] = [cell_name(label, size) for label, size in zip(gains["label"], gains["size"], strict=True)]
    table[["mean", "low", "high"]] *= 100
    cells = table.drop_duplicates("cell").sort_values(["size", "label"])
    inks = {cell: family_colours()[label] for cell, label in zip(cells["cell"], cells["label"], strict=True)}
    is_largest = cells["size"] == cells.groupby("label")["size"].transform("max")
    fills = [ink if solid else "transparent" for ink, solid in zip(inks.values(), is_largest, strict=True)]
    names = cells["cell"].tolist()
    # On a phone long names side by side would be cut off.
    legend = alt.Legend(symbolType="circle", symbolOpacity=1, columns=len(names) if len("".join(names)) <= 24 else 1)
    stroke = alt.Stroke(
        "cell:N", title=None, sort=names, scale=alt.Scale(domain=names, range=[inks[n] for n in names]), legend=legend
    )
    fill = alt.Fill("cell:N", title=None, sort=names, scale=alt.Scale(domain=names, range=fills), legend=legend)
    y = alt.Y("what:N", sort=None, title=None, axis=alt.Axis(grid=True, ticks=False))
    offset = alt.YOffset("cell:N", sort=names)
    tooltip = [
        alt.Tooltip("what:N", title="task"),
        alt.Tooltip("cell:N", title="adapter"),
        *_interval_tooltips(level),
    ]
    base = alt.Chart(table)
    x = alt.X("low:Q", title=title, scale=alt.Scale(nice=False, padding=8), axis=_signed_axis(tickCount=7))
    zero = alt.Chart(pd.DataFrame({"at": [0.0]})).mark_rule(strokeWidth=1).encode(alt.X("at:Q"))
    reach = base.mark_rule(strokeWidth=1.5, opacity=0.6).encode(
        x, alt.X2("high:Q"), y, offset, stroke, tooltip=tooltip
    )
    dots = base.mark_point(size=45, strokeWidth=2, opacity=1).encode(
        alt.X("mean:Q"), y, offset, stroke, fill, tooltip=tooltip
    )
    return alt.layer(zero, reach, dots).properties(
        description=f"Dots of {', '.join(names)} for each task, in {title}, with {_percent(level)} intervals.",
        width="container",
        height=row * table["what"].nunique(),
    )


def budget_chart(gains: pd.DataFrame, title: str) -> Any:
    """What adapters gain against their trainable scalars, one line for each family, on an axis from zero.

    Intervals are in the tooltips.

    Args:
        gains: one row for each cell, with the columns `label`, `size`, `parameters`, `mean`, `low` and `high` (the
            ends of the 95 % interval).
        title: the title of the vertical axis, such as `points over the head alone`.
    """
    import altair as alt

    table = _named(gains)
    table[["mean", "low", "high"]] *= 100
    x = alt.X(
        "parameters:Q",
        title="trainable scalars",
        scale=alt.Scale(type="log", nice=False, padding=20),
        axis=alt.Axis(format="~s", tickCount=5, grid=False),
    )
    y = alt.Y("mean:Q", title=title, scale=alt.Scale(zero=True), axis=_signed_axis())
    colour = _colour(set(table["label"]))
    if table["label"].nunique() > 4:  # more side by side would be cut off on a phone
        colour = colour.legend(columns=3)
    tooltip = [
        alt.Tooltip("cell:N", title="adapter"),
        alt.Tooltip("parameters:Q", title="trainable scalars", format=","),
        *_interval_tooltips(0.95),
    ]
    base = alt.Chart(table)
    return alt.layer(
        base.mark_line(strokeWidth=2).encode(x, y, colour),
        base.mark_point(filled=True, size=80, opacity=1).encode(x, y, colour, tooltip=tooltip),
    ).properties(
        description=f"Gain, {title}, against trainable scalars, of {', '.join(dict.fromkeys(table['family name']))}.",
        width="container",
        height=300,
    )


def spread_chart(runs: pd.DataFrame) -> Any:
    """The accuracy of each run of each cell as a stroke, by what the runs differ in, and their mean as a point.

    Args:
        runs: one row for each run, with the columns `over` (what runs differ in), `label`, `size` and `accuracy`.
    """
    import altair as alt

    table = _named(runs)
    kinds = list(dict.fromkeys(table["over"]))
    y = alt.Y("cell:N", sort=None, title=None, axis=alt.Axis(grid=False, ticks=False))
    offset = alt.YOffset("over:N", sort=kinds)
    x = alt.X("accuracy:Q", title="accuracy on eval", scale=alt.Scale(zero=False), axis=alt.Axis(format=".1~%"))
    colours = alt.Scale(domain=kinds, range=list(FURTHER_COLOURS[: len(kinds)]))
    colour = alt.Color("over:N", title="runs differ in", scale=colours)
    strokes = (
        alt.Chart(table)
        .mark_tick(thickness=1.5, opacity=0.4)
        .encode(x, y, offset, colour, tooltip=[
            alt.Tooltip("cell:N", title="adapter"), alt.Tooltip("over:N", title="differ in"),
            alt.Tooltip("accuracy:Q", format=".1%"),
        ])
    )  # fmt: skip
    means = alt.Chart(table).mark_point(filled=True, size=70, opacity=1).encode(
        alt.X("mean(accuracy):Q"), y, offset, colour,
        tooltip=[alt.Tooltip("cell:N", title="adapter"), alt.Tooltip("mean(accuracy):Q", title="mean", format=".2%")],
    )  # fmt: skip
    return alt.layer(strokes, means).properties(
        description=f"The accuracy of every run of {', '.join(dict.fromkeys(table['cell']))}, by what runs differ in:"
        f" {', '.join(kinds)}.",
        width="container",
        height=20 * len(kinds) * table["cell"].nunique(),
    )


def part_chart(parts: pd.DataFrame) -> Any:
    """How far each cause moves one run's accuracy, as a bar for each task.

    Args:
        parts: one row for each cause and task, with the columns `task`, `part` and `sd` (a standard deviation).
    """
    import altair as alt

    table = parts.assign(name=[task_name(task) for task in parts["task"]], points=100 * parts["sd"].astype(float))
    kinds, names = (list(dict.fromkeys(table[column])) for column in ("part", "name"))
    y = alt.Y("part:N", sort=None, title=None, axis=alt.Axis(grid=False, ticks=False, labelLimit=150))
    offset = alt.YOffset("name:N", sort=names)
    x = alt.X("points:Q", title="standard deviation, points", axis=alt.Axis(tickCount=6))
    colours = alt.Scale(domain=names, range=list(FURTHER_COLOURS[: len(names)]))
    base = alt.Chart(table)
    bars = base.mark_bar().encode(
        x, y, offset, alt.Color("name:N", title=None, scale=colours),
        tooltip=[
            alt.Tooltip("part:N", title="cause"), alt.Tooltip("name:N", title="task"),
            alt.Tooltip("points:Q", title="points", format=".2f"),
        ],
    )  # fmt: skip
    numbers = base.mark_text(align="left", dx=4, fontSize=12).encode(
        x, y, offset, text=alt.Text("points:Q", format=".1f")
    )
    return alt.layer(bars, numbers).properties(
        description=f"How far each cause moves one run's accuracy on {', '.join(names)}: {', '.join(kinds)}.",
        width="container",
        height=20 * len(kinds) * len(names),
    )
