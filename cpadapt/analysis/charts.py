"""Altair charts of records: one theme and palette everywhere, legible to the colour-blind, in light and in dark.

Family is colour and task is shape. `enable` makes a notebook's charts so that JupyterLab and the built book draw them
without a network: as Vega-Lite in JSON, which both have at hand.
"""

import itertools
import json
import math
import re
from typing import Any

import altair as alt
import pandas as pd

from cpadapt.analysis.frontier import CELL, frontier
from cpadapt.families import FAMILIES
from cpadapt.inputs.backbones.specs import BACKBONES
from cpadapt.inputs.tasks.specs import TASKS
from cpadapt.records.config import HEAD, HEAD_COLOUR, HEAD_TITLE

FURTHER_COLOURS = ("#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#999999")
"""Okabe and Ito's palette, told apart with any colour vision, without the two that LoRA and CP have. The fifth is a
lighter grey, since the palette's yellow is hard to see on white."""
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
"""What the tasks of a chart take in turn, in the order of the alphabet."""

VEGA_LITE = "5.21"
"""What a notebook's charts say they are, for JupyterLab's sake; the book draws them with Altair's own version."""
VEGA_LITE_MIME = "application/vnd.vegalite.v5+json"


def theme() -> dict[str, Any]:
    """Vega-Lite's configuration: text and lines in the colour of the page's text, nothing behind them."""
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
            "range": {"category": [*(family.COLOUR for family in FAMILIES.values()), *FURTHER_COLOURS]},
        }
    }  # fmt: skip


def _bundle(spec: dict[str, Any], **_: Any) -> dict[str, Any]:
    spec["$schema"] = f"https://vega.github.io/schema/vega-lite/v{VEGA_LITE}.json"
    return {VEGA_LITE_MIME: spec, "text/plain": spec.get("description", "a chart")}


def enable() -> None:
    """Give the charts of this notebook cpadapt's theme, and show them where there is no network too."""
    alt.theme.register("cpadapt", enable=True)(lambda: alt.theme.ThemeConfig(**theme()))
    alt.renderers.register("cpadapt", _bundle)
    alt.renderers.enable("cpadapt")


def table(frame: pd.DataFrame) -> Any:
    """A table as it shall be read in a notebook: without its index, numbers to the right and words to the left."""
    from IPython.display import HTML  # which comes with Jupyter, and is needed only there

    frame = frame.rename_axis(columns=None)  # which would be a cell more
    numbers = [frame.iloc[:, k].astype(str).str.fullmatch(r"[-+−±–\d.,e ()]*").all() for k in range(frame.shape[1])]
    sides = itertools.cycle("right" if number else "left" for number in numbers)
    rows = frame.to_html(index=False, border=0)
    return HTML(re.sub(r"<(t[dh])>", lambda cell: f'<{cell[1]} style="text-align: {next(sides)}">', rows))


def family_name(label: str) -> str:
    """What a reader sees of a family or of head only; a label of a study's own stays as it is."""
    if label == HEAD:
        return HEAD_TITLE
    return FAMILIES[label].TITLE if label in FAMILIES else label


def family_colours() -> dict[str, str]:
    """The colours of head only and of every family, in the order of a legend."""
    return {HEAD: HEAD_COLOUR, **{name: family.COLOUR for name, family in FAMILIES.items()}}


def task_name(task: str) -> str:
    """What a reader sees of a task: a bundled one's title, if it has one."""
    spec = TASKS.get(task)
    return task if spec is None or spec.title is None else spec.title


def backbone_name(backbone: str) -> str:
    """What a reader sees of a backbone: a known one's title."""
    return BACKBONES[backbone].title if backbone in BACKBONES else backbone


def cell_name(label: str, size: int) -> str:
    """What a reader sees of a cell, such as `CP 11`; head only has no size."""
    return f"{family_name(label)} {size}" if size else family_name(label)


def pair_name(after: tuple[str, int], before: tuple[str, int]) -> str:
    """What a reader sees of the difference between two cells, such as `LoRA 1 − CP 11`."""
    return f"{cell_name(*after)} − {cell_name(*before)}"


def _tasks(table: pd.DataFrame) -> str:
    return ", ".join(task_name(task) for task in sorted(set(table["task"])))


def _colour(labels: set[str]) -> Any:
    known = {label: colour for label, colour in family_colours().items() if label in labels}
    further = sorted(labels - set(known))
    free = [colour for colour in FURTHER_COLOURS if colour not in known.values()]
    colours = [*known.values(), *free[: len(further)]]
    names = [family_name(label) for label in (*known, *further)]
    return alt.Color("family name:N", title="family", scale=alt.Scale(domain=names, range=colours))


def _shape(tasks: list[str]) -> Any:
    shapes = [shape for _, shape in zip(tasks, itertools.cycle(SHAPES), strict=False)]
    legend = alt.Legend() if len(tasks) > 1 else None
    return alt.Shape("task:N", scale=alt.Scale(domain=tasks, range=shapes), legend=legend)


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """With the names that a reader sees, and one that a cell shares with its seeds."""
    names = [cell_name(label, size) for label, size in zip(table["label"], table["size"], strict=True)]
    return table.assign(**{"family name": [family_name(label) for label in table["label"]], "cell": names})


OF_ONE_LINE = ["study", "backbone", "task", "label"]
MEASURED, PUBLISHED = "measured here", "published (second-hand)"


def frontier_chart(
    records: pd.DataFrame, *, budget_slider: bool = False, published: pd.DataFrame | None = None
) -> Any:
    """Accuracy on eval against trainable scalars, by family: means over seeds at the rate that dev chose.

    The seeds stand faintly behind their cell, and light up where it is pointed at. Head only, which spends nothing, is
    a dashed line across: the floor.

    Args:
        records: a table of one task's runs, as `read_records` gives it.
        budget_slider: add a budget to move. Cells above it fade; the treads show what is best at or under every
            budget, and a line of text names each family's cell there: the paper's U(B) = max A(k) over P(k) ≤ B. That
            cell is chosen by eval itself, so it describes these runs and promises nothing for others.
        published: figures of others, as `read_published` gives them; drawn hollow, with a box to hide them.
    """
    records = records.astype({"learning_rate": float})  # where all are head only, there is none to say so
    best = frontier(records)
    place = [*CELL, "learning_rate"]
    chosen = records.merge(best[place], on=place)  # a missing rate, as head only has it, equals a missing one
    means = _named(best).rename(columns={"eval_mean": "accuracy"})
    seeds = _named(chosen).rename(columns={"eval_accuracy": "accuracy"})[
        ["study", "backbone", "task", "label", "family name", "cell", "parameters", "accuracy", "seed"]
    ]
    means["best so far"] = means.groupby(OF_ONE_LINE, dropna=False)["accuracy"].cummax()
    adapters, floor = means[means["label"] != HEAD], means[means["label"] == HEAD]
    labels = set(means["label"]) | (set() if published is None else set(published["label"]))

    x = alt.X(
        "parameters:Q",
        title="trainable scalars",
        scale=alt.Scale(type="log", nice=False, padding=14),
        axis=alt.Axis(format="~s", grid=False, tickCount=6, labelOverlap="greedy", labelSeparation=6),
    )
    y = alt.Y("accuracy:Q", title="accuracy on eval", scale=alt.Scale(zero=False), axis=alt.Axis(format=".1~%"))
    colour, shape = _colour(labels), _shape(sorted(set(means["task"])))
    pointer = {"fields": ["study", "cell"], "on": "pointerover", "clear": "pointerout", "empty": False}
    hovered = alt.selection_point(name="hovered", **pointer)
    hovered_floor = alt.selection_point(name="hovered_floor", **pointer)
    least = int(adapters["parameters"].min()) if len(adapters) else 1
    top = int(adapters["parameters"].max()) if len(adapters) else 1
    step = math.gcd(*map(int, adapters["parameters"])) or 1  # every cell's count is a place of the slider
    budget = alt.param(
        name="budget", value=top, bind=alt.binding_range(min=least, max=top, step=step, name="budget, scalars ")
    )
    over = alt.datum.parameters > budget if budget_slider else "false"
    tooltip = [
        alt.Tooltip("cell:N", title="adapter"),
        alt.Tooltip("parameters:Q", title="trainable scalars", format=","),
        alt.Tooltip("accuracy:Q", title="mean accuracy", format=".1%"),
        alt.Tooltip("eval_sd:Q", title="sd over seeds", format=".1%"),
        alt.Tooltip("runs:Q", title="seeds"),
        alt.Tooltip("learning_rate:Q", title="learning rate", format="~e"),
    ]

    floors = [
        alt.Chart(seeds[seeds["label"] == HEAD])
        .mark_rule(strokeWidth=1)
        .encode(
            y, colour, detail="seed:N", opacity=alt.when(hovered_floor).then(alt.value(0.9)).otherwise(alt.value(0))
        ),
        alt.Chart(floor).mark_rule(strokeDash=[6, 4], strokeWidth=2).encode(y, colour),
        # Wider than it looks, so that it can be pointed at.
        alt.Chart(floor)
        .mark_rule(strokeWidth=14, opacity=0)
        .encode(y, tooltip=[tooltip[0], *tooltip[2:5]])
        .add_params(hovered_floor),
    ]
    of_seeds = (
        alt.Chart(seeds[seeds["label"] != HEAD])
        .mark_point(filled=True, size=35)
        .encode(
            x, y, colour, shape,
            opacity=alt.when(hovered).then(alt.value(1)).when(over).then(alt.value(0.08)).otherwise(alt.value(0.3)),
        )
    )  # fmt: skip
    points = [
        alt.Chart(adapters)
        .mark_point(filled=True, size=90)
        .encode(x, y, colour, shape, opacity=alt.when(over).then(alt.value(0.2)).otherwise(alt.value(1))),
        # Likewise, for a finger.
        alt.Chart(adapters)
        .mark_point(filled=True, size=350, opacity=0)
        .encode(x, y, tooltip=tooltip)
        .add_params(hovered),
    ]
    if budget_slider:
        within = alt.Chart(_treads(adapters, top)).transform_filter(alt.datum.parameters <= budget)
        lines = [
            alt.Chart(pd.DataFrame({"parameters": [top]}))
            .transform_calculate(parameters=budget.name)
            .mark_rule(strokeWidth=1)
            .encode(x)
            .add_params(budget),
            within.transform_calculate(until=f"min(datum.until, {budget.name})")
            .mark_rule(strokeWidth=2, opacity=0.8)
            .encode(x, alt.Y("best so far:Q", title="accuracy on eval"), colour, x2="until:Q"),
        ]
        lines += _best_under(adapters, colour)
    else:
        lines = [alt.Chart(adapters).mark_line(strokeWidth=2).encode(x, y, colour, detail=OF_ONE_LINE)]
    theirs = [] if published is None else _published(published, adapters, x, y, colour, shape)
    # Layers without data would make the axes' domains infinite.
    layers = [*(floors if len(floor) else ()), *((of_seeds, *lines, *theirs, *points) if len(adapters) else theirs)]
    chart = alt.layer(*layers).properties(
        description=_description(means, budget_slider, published), width="container", height=320
    )
    if published is None:
        return chart
    on = ", ".join(backbone_name(name) for name in sorted(set(published["backbone"])))
    note = [f"filled: {MEASURED}", f"hollow: {PUBLISHED}, on {on}"]
    return chart.properties(title=alt.TitleParams(note, fontSize=12))


def _treads(adapters: pd.DataFrame, top: int) -> pd.DataFrame:
    """Every cell with the count of its family's next, up to which it is the largest that fits."""
    following = adapters.groupby(OF_ONE_LINE)["parameters"].shift(-1)
    return adapters.assign(until=following.fillna(top).astype(int))


def _best_under(adapters: pd.DataFrame, colour: Any) -> list[Any]:
    """A line of text for each family: its cell that is best at or under the budget."""
    above = alt.Chart(pd.DataFrame({"text": ["best on eval at or under the budget:"]}))
    texts = [
        above.mark_text(align="left", baseline="top", fontSize=12).encode(
            x=alt.value(4), y=alt.value(2), text="text:N"
        )
    ]
    for row, (label, cells) in enumerate(adapters.groupby("label"), start=1):
        name = family_name(str(label))
        texts.append(
            alt.Chart(cells)
            .transform_calculate(reached="datum.parameters <= budget && isValid(datum.accuracy) ? datum.accuracy : -1")
            .transform_window(
                place="row_number()",
                sort=[alt.SortField("reached", order="descending"), alt.SortField("parameters")],
            )
            .transform_filter("datum.place == 1")
            .transform_calculate(
                text=f"datum.reached < 0 ? {json.dumps(f'{name}: none fits')}"
                " : datum.cell + ': ' + format(100 * datum.accuracy, '.1f') + ' %, '"
                " + format(datum.parameters, ',') + ' scalars'"
            )
            .mark_text(align="left", baseline="top", fontSize=12)
            .encode(colour, x=alt.value(4), y=alt.value(2 + 16 * row), text="text:N")
        )
    return texts


def _published(published: pd.DataFrame, adapters: pd.DataFrame, x: Any, y: Any, colour: Any, shape: Any) -> list[Any]:
    """Hollow marks with a box to hide them; hidden, they lie on a measured cell, so that the axes close in on ours."""
    shown = alt.param(name="published", value=True, bind=alt.binding_checkbox(name=f"{PUBLISHED} "))
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
            x, y, colour, shape,
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
    """What a chart of a frontier shows, for those who do not see it."""
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
    """Dev accuracy against steps, one line a run; a click on a family in the legend fades the others.

    Args:
        evaluations: a table as `read_evaluations` gives it.
    """
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
    """Accuracy on eval against the learning rate, a line a cell, thicker the larger its budget.

    A click on a family in the legend fades the others.

    Args:
        response: one task's cells at their rates, as `companion.rates.response` gives it.
        floor: the mean accuracy of the readout alone, drawn as a dashed line across.
    """
    picked = alt.selection_point(name="family", fields=["family name"], bind="legend")
    table = _named(response)
    ends = [int(table["parameters"].min()), int(table["parameters"].max())]
    x = alt.X(
        "learning_rate:Q",
        title="learning rate",
        scale=alt.Scale(type="log", nice=False, padding=14),
        axis=alt.Axis(format="~e", grid=False, values=sorted(set(table["learning_rate"])), labelOverlap="greedy",
                      labelSeparation=6),
    )  # fmt: skip
    y = alt.Y("mean:Q", title="accuracy on eval", scale=alt.Scale(zero=False), axis=alt.Axis(format=".1~%"))
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
    readout = (
        alt.Chart(pd.DataFrame({"mean": [floor]}))
        .mark_rule(strokeDash=[6, 4], strokeWidth=2, color=HEAD_COLOUR)
        .encode(y)
    )
    return alt.layer(readout, lines, points).properties(
        description="Mean accuracy on eval against the learning rate, one line a size of each adapter family, with"
        " the readout alone as a dashed line.",
        width="container",
        height=280,
    )


def power_chart(powers: pd.DataFrame, chance: float) -> Any:
    """The chance to see a difference against the number of seeds, a line a task and a difference.

    Args:
        powers: as `companion.noise.powers` gives it.
        chance: what is enough, drawn as a dashed line across.
    """
    table = powers.assign(
        name=[task_name(task) for task in powers["task"]],
        difference=[f"{100 * e:g} point{'s' * (e > 0.01)}" for e in powers["effect"]],
    )
    names, effects = list(dict.fromkeys(table["name"])), list(dict.fromkeys(table["difference"]))
    x = alt.X("seeds:Q", title="seeds", scale=alt.Scale(type="log", nice=False, padding=8),
              axis=alt.Axis(grid=False, values=[2, 3, 5, 10, 30, 100, 300, 1000], labelOverlap="greedy"))  # fmt: skip
    y = alt.Y("power:Q", title="chance to see it", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="~%"))
    colours = alt.Scale(domain=names, range=list(FURTHER_COLOURS[: len(names)]))
    dashes = alt.Scale(domain=effects, range=[[2, 3], [7, 3], [1, 0]][: len(effects)])
    lines = (
        alt.Chart(table)
        .mark_line(strokeWidth=2)
        .encode(
            x, y, alt.Color("name:N", title="task", scale=colours), alt.StrokeDash("difference:N", scale=dashes),
            tooltip=[
                alt.Tooltip("name:N", title="task"), alt.Tooltip("difference:N"), alt.Tooltip("seeds:Q"),
                alt.Tooltip("power:Q", title="chance", format=".0%"),
            ],
        )
    )  # fmt: skip
    enough = alt.Chart(pd.DataFrame({"power": [chance]})).mark_rule(strokeDash=[6, 4], strokeWidth=1).encode(y)
    return alt.layer(enough, lines).properties(
        description=f"The chance to see a difference of {', '.join(effects)} against the number of seeds, on the items"
        f" of {', '.join(names)}; {chance:.0%} is enough.",
        width="container",
        height=280,
    )


def choice_chart(records: pd.DataFrame) -> Any:
    """Eval accuracy against dev accuracy, a point a run, each at the step that dev chose.

    A click on a family in the legend fades the others. On the dashed line both would be equal.

    Args:
        records: a table of one task's runs, as `read_records` gives it.
    """
    picked = alt.selection_point(name="family", fields=["family name"], bind="legend")
    ends = [
        max(records[["dev_accuracy", "eval_accuracy"]].min()),
        min(records[["dev_accuracy", "eval_accuracy"]].max()),
    ]
    scale = alt.Scale(zero=False, padding=10)
    x = alt.X("dev_accuracy:Q", title="accuracy on dev", scale=scale, axis=alt.Axis(format=".1~%", tickCount=6))
    y = alt.Y("eval_accuracy:Q", title="accuracy on eval", scale=scale, axis=alt.Axis(format=".1~%"))
    equal = pd.DataFrame({"dev_accuracy": ends, "eval_accuracy": ends})
    runs = (
        alt.Chart(_named(records)[["family name", "cell", "seed", "dev_accuracy", "eval_accuracy"]])
        .mark_point(filled=True, size=60)
        .encode(
            x, y, _colour(set(records["label"])),
            opacity=alt.when(picked).then(alt.value(0.7)).otherwise(alt.value(0.08)),
            tooltip=[
                alt.Tooltip("cell:N", title="adapter"), alt.Tooltip("seed:Q"),
                alt.Tooltip("dev_accuracy:Q", title="accuracy on dev", format=".1%"),
                alt.Tooltip("eval_accuracy:Q", title="accuracy on eval", format=".1%"),
            ],
        )
        .add_params(picked)
    )  # fmt: skip
    line = alt.Chart(equal).mark_line(strokeDash=[6, 4], strokeWidth=1, color="currentColor").encode(x, y)
    return alt.layer(*((line,) if ends[0] < ends[1] else ()), runs).properties(
        description=f"Accuracy on eval of {_tasks(records)} against that on dev, a point a run, coloured by family.",
        width="container",
        height=280,
    )


def interval_chart(contrasts: pd.DataFrame, title: str, margin: float) -> Any:
    """Differences with their intervals, one below the other: what is compared by place, its group by colour.

    Args:
        contrasts: as `companion.contrasts.frame` gives it.
        title: of the axis: what minus what.
        margin: below which a difference counts as none; a dashed line on either side of zero.
    """
    table = contrasts[["group", "what", "mean", "low", "high", "seeds"]].copy()
    table[["mean", "low", "high"]] *= 100
    groups = list(dict.fromkeys(table["group"]))
    y = alt.Y("what:N", sort=None, title=None, axis=alt.Axis(grid=False, ticks=False))
    offset = alt.YOffset("group:N", sort=groups)
    colours = alt.Scale(domain=groups, range=list(FURTHER_COLOURS[: len(groups)]))
    legend = alt.Legend(columns=2, symbolType="circle") if len(groups) > 1 else None
    colour = alt.Color("group:N", title=None, scale=colours, legend=legend)
    tooltip = [
        alt.Tooltip("group:N", title="of"),
        alt.Tooltip("what:N", title="difference"),
        alt.Tooltip("mean:Q", title="points", format="+.2f"),
        alt.Tooltip("low:Q", title="from", format="+.2f"),
        alt.Tooltip("high:Q", title="to", format="+.2f"),
        alt.Tooltip("seeds:Q"),
    ]
    x = alt.X("low:Q", title=title, axis=alt.Axis(format="+", tickCount=7))
    base = alt.Chart(table)
    reach = base.mark_rule(strokeWidth=2).encode(x, alt.X2("high:Q"), y, offset, colour, tooltip=tooltip)
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        alt.X("mean:Q"), y, offset, colour, tooltip=tooltip
    )
    lines = [
        alt.Chart(pd.DataFrame({"at": ends})).mark_rule(strokeDash=dash, strokeWidth=1).encode(alt.X("at:Q"))
        for ends, dash in (([0.0], [1, 0]), ([-100 * margin, 100 * margin], [6, 4]))
    ]
    return alt.layer(*lines, reach, points).properties(
        description=f"Differences, {title}, each with its interval of ninety-five percent, of {', '.join(groups)}.",
        width="container",
        height=16 * len(groups) * table["what"].nunique(),
    )


def spread_chart(runs: pd.DataFrame) -> Any:
    """The accuracy of each run of each cell, a stroke a run, by what the runs differ in; a point at their mean.

    Args:
        runs: as `companion.noise.runs` gives it.
    """
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
    """The variance of one run's accuracy, adapter by adapter, in parts that add up.

    Args:
        parts: as `companion.causes.parts` gives it, of one task.
    """
    kinds, adapters = (list(dict.fromkeys(parts[column])) for column in ("part", "of"))
    table = parts.assign(points=parts["variance"] * 100**2, sd=parts["variance"] ** 0.5)
    colours = alt.Scale(domain=kinds, range=list(FURTHER_COLOURS[: len(kinds)]))
    return (
        alt.Chart(table)
        .mark_bar(size=18)
        .encode(
            alt.X("points:Q", title="variance of one run's accuracy, squared points", axis=alt.Axis(tickCount=6)),
            alt.Y("of:N", sort=None, title=None, axis=alt.Axis(grid=False, ticks=False)),
            # Three columns, as more are cut off on a phone.
            alt.Color("part:N", title=None, sort=kinds, scale=colours, legend=alt.Legend(columns=3)),
            order=alt.Order("place:Q"),
            tooltip=[
                alt.Tooltip("of:N", title="adapter"), alt.Tooltip("part:N"),
                alt.Tooltip("points:Q", title="variance", format=".2f"),
                alt.Tooltip("sd:Q", title="standard deviation", format=".2%"),
            ],
        )
        .transform_calculate(place=f"indexof({json.dumps(kinds)}, datum.part)")
        .properties(
            description=f"The variance of one run's accuracy on {_tasks(table)}, for {', '.join(adapters)}, in parts"
            f" that add up: {', '.join(kinds)}.",
            title=_tasks(table),
            width="container",
            height=30 * len(adapters),
        )
    )  # fmt: skip
