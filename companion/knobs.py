"""The experiment on CP's hidden knobs: what it varies, what each knob does, and which settings it hands on to its
confirmation."""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from companion import PROJECT, quantities
from companion.records import records
from cpadapt.analysis.across_tasks import chosen_settings
from cpadapt.analysis.charts import FURTHER_COLOURS, task_name
from cpadapt.analysis.factors import (
    Design,
    Factor,
    Term,
    TermEffect,
    contrasts,
    design_of,
    effect_of,
    effects,
    terms_of,
)
from cpadapt.analysis.statistics import Floats, holm
from cpadapt.records.config import RunConfig
from cpadapt.records.record import Record
from cpadapt.study import Study, load_study

FACTORS = (
    Factor("rate", lambda config: config.learning_rate, {2e-3: -1, 4e-3: 0, 8e-3: 1}),
    Factor("scale", lambda config: config.scale, {4.0: -1, 8.0: 0, 16.0: 1}),
    Factor("warm-up", lambda config: config.warmup_steps or 0, {0: -1, 50: 1}),
    Factor("raw length", lambda config: config.options["raw_norm"], {0.5: -1, 1.0: 0, 2.0: 1}),
    Factor("start of λ", lambda config: config.options["init_std"] or 0.0, {0.0: -1, 0.05: 1}),
    Factor("weight decay on λ", lambda config: config.options["lambda_decay"], {0.0: -1, 0.3: 1}),
)
"""The knobs of the studies named `knobs-…`, with the codes of their levels."""

LORA, TODAY, KNOBS = "LoRA", "CP as today", "CP, all knobs"
"""What the confirmation compares."""

CANDIDATES: Mapping[str, str] = {"lora": LORA, "today": TODAY, "every": KNOBS}
"""The same, by the name that quantities have."""

STUDIES: Mapping[str, str] = {"smollm2": "knobs-smollm2"}
"""The study of each backbone that the page has, by the name that quantities have."""

NAMES: Mapping[str, str] = {
    "rate": "rate", "scale": "scale", "warmup": "warm-up", "length": "raw length", "start": "start of λ",
    "decay": "weight decay on λ",
}  # fmt: skip
"""The factors' names, by the name that quantities have."""

SHORT: Mapping[str, str] = {name: name.removesuffix(" of λ") for name in NAMES.values()} | {
    "weight decay on λ": "decay"
}
"""The factors' names beside others."""

LEVEL = 0.05
"""Of the tests of effects, after Holm's correction."""

PAIRS = (("rate", "length"), ("rate", "scale"), ("scale", "length"))
"""The knobs whose effects depend on one another."""

DIAL: Mapping[str, int] = {"rate": 1, "scale": 1, "raw length": -1}
"""The knobs that make up one dial, rate × scale / raw length, with their powers."""


def study(model: str) -> Study:
    """A backbone's study, as its file has it."""
    return load_study(PROJECT / "studies" / f"{STUDIES[model]}.toml")


def chosen(records: Iterable[Record]) -> dict[str, RunConfig]:
    """The setting that dev chooses for LoRA, for CP with today's raw length, start and decay, and for CP with any.

    Args:
        records: the runs of one of the studies.

    Returns:
        By what the confirmation compares, a config whose task and seeds have no meaning.

    Raises:
        InputError: as `cpadapt.analysis.across_tasks.chosen_settings`.
    """
    of_each = candidates(records).items()
    return {name: setting for name, runs in of_each for setting in chosen_settings(runs).values()}


def candidates(records: Iterable[Record]) -> dict[str, list[Record]]:
    """The runs among which each setting is chosen, by what the confirmation compares. Each has one label."""
    records = list(records)
    return {
        LORA: [record for record in records if record.label == "lora"],
        TODAY: [record for record in records if record.label == "cp"],
        # The labels of CP's knobs are one cell here.
        KNOBS: [replace(record, label="cp") for record in records if record.config.family == "cp"],
    }


# What each knob does.


def of_cp(model: str) -> list[Record]:
    """CP's runs on a backbone."""
    return [record for record in records(STUDIES[model]) if record.config.family == "cp"]


@functools.cache
def design(model: str) -> Design:
    """CP's settings on a backbone, and their answers on dev."""
    return design_of(of_cp(model), FACTORS)


@functools.cache
def found(model: str) -> Mapping[str, TermEffect]:
    """The planned effects, by the name that quantities have, such as `rate`, `rate_scale` and, curved, `rate_rate`."""
    return {_name(term): effect for term, effect in effects(of_cp(model), FACTORS).items()}


def corrected(model: str) -> dict[str, float]:
    """Their p values, corrected over all of them by Holm."""
    known = found(model)
    return dict(zip(known, holm([effect.mean.p_value() for effect in known.values()]), strict=True))


def terms() -> dict[str, Term]:
    """The terms by the name that quantities have."""
    return {_name(term): term for term in terms_of(FACTORS)}


def _name(term: Term) -> str:
    """The name that quantities have for a term."""
    names = {name: key for key, name in NAMES.items()}
    return "_".join(names[name] for name in term)


def title(term: Term) -> str:
    """A term's printed name, with ² for a curvature."""
    one, *other = [SHORT[name] for name in term]
    if not other:
        return one
    return f"{one}²" if other == [one] else f"{one} × {other[0]}"


def effect_beside(model: str, knob: str, other: str, level: int) -> TermEffect:
    """What a knob does from low to high where another one is low (-1) or high (1), averaged over the rest.

    It is the main effect, minus or plus the interaction (`cpadapt.analysis.factors`).

    Args:
        model: the backbone.
        knob: a key of `NAMES`.
        other: another key.
        level: -1 or 1.
    """
    weights = dict(zip(terms(), contrasts(design(model).codes, FACTORS), strict=True))
    both = f"{knob}_{other}" if f"{knob}_{other}" in weights else f"{other}_{knob}"
    return effect_of(weights[knob] + level * weights[both], design(model).answers)


# After the data: three knobs as one.


def dial(model: str) -> Floats:
    """`[settings]`, rate × scale / raw length of CP's settings, as a multiple of that in the middle."""
    turned = np.ones(len(design(model).codes))
    for place, factor in enumerate(FACTORS):
        if power := DIAL.get(factor.name):
            values = {code: float(str(value)) for value, code in factor.levels.items()}
            turned *= [(values[int(code)] / values[0]) ** power for code in design(model).codes[:, place]]
    return turned


@functools.cache
def along_dial(model: str) -> pd.DataFrame:
    """The accuracy on dev by the dial, as the difference from the mean of all settings.

    Returns:
        One row for each task, with `over all` for their mean, and place of the dial, ascending, with the columns
        `task`, `dial`, `settings` (how many are there), `mean`, `low` and `high` (the 95 % interval), as shares.
    """
    rows = []
    places = dial(model).round(9)
    for place in np.unique(places):
        here = places == place
        effect = effect_of(here / here.sum() - 1 / len(places), design(model).answers)
        for task, mean in ("over all", effect.mean), *((task, one.estimate) for task, one in effect.by_task.items()):
            low, high = mean.interval()
            rows.append([task, float(place), int(here.sum()), mean.mean, low, high])
    table = pd.DataFrame(rows, columns=["task", "dial", "settings", "mean", "low", "high"])
    return table.sort_values(["task", "dial"], ignore_index=True)


def explained(model: str) -> tuple[float, float]:
    """The share of the variance of CP's settings' accuracies that the dial's places explain, and the six knobs alone.

    An accuracy is the mean over draws and then over tasks. The knobs alone are a least-squares fit without
    interactions and curvatures.
    """
    codes, answers = design(model)
    reached = np.mean(
        [np.mean([one.right.mean(1) for one in on_draws], axis=0) for on_draws in answers.values()], axis=0
    )
    places = dial(model).round(9)
    by_place = np.stack([places == place for place in np.unique(places)], axis=1).astype(float)
    shares = []
    for columns in (by_place, np.column_stack([np.ones(len(codes)), codes])):
        fitted = columns @ np.linalg.lstsq(columns, reached, rcond=None)[0]
        shares.append(1 - float(((reached - fitted) ** 2).sum() / ((reached - reached.mean()) ** 2).sum()))
    return shares[0], shares[1]


# What dev chose.


@functools.cache
def settings(model: str) -> Mapping[str, RunConfig]:
    """`chosen` on a backbone."""
    return chosen(records(STUDIES[model]))


def runs_of(model: str, candidate: str) -> list[Record]:
    """The runs of a chosen setting, by a key of `CANDIDATES`."""
    name = CANDIDATES[candidate]
    wanted = settings(model)[name].config_id
    return [run for run in candidates(records(STUDIES[model]))[name] if _setting(run).config_id == wanted]


def tried(model: str, candidate: str) -> int:
    """How many settings it was chosen from."""
    runs = candidates(records(STUDIES[model]))[CANDIDATES[candidate]]
    return len({_setting(run).config_id for run in runs})


def on_dev(model: str, candidate: str) -> float:
    """The accuracy on dev that it was chosen for. As the best of many it is too high."""
    by_task: dict[str, list[float]] = {}
    for run in runs_of(model, candidate):
        by_task.setdefault(run.config.task, []).append(run.best.dev_accuracy if run.best else 0.0)
    return float(np.mean([np.mean(scores) for scores in by_task.values()]))


def at_end(model: str, candidate: str) -> list[str]:
    """The knobs with three levels or more that stand at the lowest or highest one tried."""
    setting = settings(model)[CANDIDATES[candidate]]
    if candidate == "lora":
        runs = candidates(records(STUDIES[model]))[LORA]
        rates = {run.config.learning_rate or 0.0 for run in runs}
        return ["rate"] if setting.learning_rate in (min(rates), max(rates)) else []
    tuned = FACTORS if candidate == "every" else [factor for factor in FACTORS if factor.name in ("rate", "scale")]
    return [factor.name for factor in tuned if 0 in factor.levels.values() and factor.code(setting)]


def _setting(run: Record) -> RunConfig:
    return replace(run.config, task="any", seed=0, data_seed=0, order_seed=None)


# To be shown.


def rows(model: str) -> pd.DataFrame:
    """The planned effects, the largest first.

    Returns:
        One row for each term, with the columns `key`, `what` (its printed name), `mean`, `low` and `high` (the 95 %
        interval), as shares, `holm` (its corrected p value) and `shown` (whether that is below 5 %).
    """
    p_values = corrected(model)
    table = pd.DataFrame(
        [
            [key, title(terms()[key]), effect.mean.mean, *effect.mean.interval(), p_values[key]]
            for key, effect in found(model).items()
        ],
        columns=["key", "what", "mean", "low", "high", "holm"],
    )
    table["shown"] = table["holm"] < LEVEL
    return table.sort_values("mean", key=abs, ascending=False, ignore_index=True)


def effect_chart(model: str) -> Any:
    """The planned effects with their intervals, the largest first, and which of them stay after the correction."""
    import altair as alt

    table = rows(model)
    table[["mean", "low", "high"]] *= 100
    said = {True: "shown", False: "not shown"}
    table["verdict"] = table["shown"].map(said)
    y = alt.Y("what:N", sort=None, title=None, axis=alt.Axis(grid=False, ticks=False))
    scale = alt.Scale(domain=list(said.values()), range=[FURTHER_COLOURS[0], FURTHER_COLOURS[-1]])
    colour = alt.Color("verdict:N", title=None, scale=scale, legend=alt.Legend(symbolType="circle", columns=2))
    axis = alt.Axis(format="+~f", labelExpr="datum.value ? datum.label : '0'", tickCount=7)
    x = alt.X("low:Q", title="points", axis=axis)
    tooltip = [
        alt.Tooltip("what:N", title="effect"), alt.Tooltip("mean:Q", title="points", format="+.2f"),
        alt.Tooltip("low:Q", title="95 % from", format="+.2f"), alt.Tooltip("high:Q", title="to", format="+.2f"),
        alt.Tooltip("holm:Q", title="p, Holm", format=".2g"),
    ]  # fmt: skip
    base = alt.Chart(table)
    zero = alt.Chart(pd.DataFrame({"at": [0.0]})).mark_rule(strokeWidth=1).encode(alt.X("at:Q"))
    return alt.layer(
        zero,
        base.mark_rule(strokeWidth=2).encode(x, alt.X2("high:Q"), y, colour, tooltip=tooltip),
        base.mark_point(filled=True, size=50, opacity=1).encode(alt.X("mean:Q"), y, colour, tooltip=tooltip),
    ).properties(
        description="Effects of CP's knobs on accuracy, in points with 95 % intervals, from the largest to the"
        f" smallest. Shown after Holm's correction: {', '.join(table.loc[table['shown'], 'what'])}.",
        width="container",
        height=14 * len(table),
    )


def beside_rows(model: str) -> pd.DataFrame:
    """What a knob does where another one is low and where it is high, for `charts.interval_chart`."""
    table = []
    for level, side in ((-1, "lower"), (1, "upper")):
        for knob, other in PAIRS:
            known = quantities.value(f"knobs.beside.{knob}_{other}.{side}.{model}")
            low, high = (float(end) / 100 for end in (known.low or 0.0, known.high or 0.0))
            group, what = f"other {'low' if level < 0 else 'high'}", f"{NAMES[knob]}, by {NAMES[other]}"
            table.append([group, what, float(known.value) / 100, low, high, len(study(model).draws)])
    return pd.DataFrame(table, columns=["group", "what", "mean", "low", "high", "seeds"])


def task_rows(model: str) -> pd.DataFrame:
    """The main effects by task, for `charts.interval_chart`."""
    table = []
    for task in study(model).tasks:
        for key, name in NAMES.items():
            mean = found(model)[key].by_task[task].estimate
            low, high = mean.interval()
            table.append([task_name(task), SHORT[name], mean.mean, low, high, mean.seeds])
    return pd.DataFrame(table, columns=["group", "what", "mean", "low", "high", "seeds"])


def dial_chart(model: str) -> Any:
    """`along_dial` as a line for each task."""
    import altair as alt

    table = along_dial(model).query("task != 'over all'").reset_index(drop=True)
    table[["mean", "low", "high"]] *= 100
    names = {task: task_name(task) for task in study(model).tasks}
    # Side by side, so that intervals at one place can be told apart.
    apart = {task: 1.06 ** (place - 1) for place, task in enumerate(names)}
    table["at"] = [place * apart[task] for place, task in zip(table["dial"], table["task"], strict=True)]
    table["task"] = table["task"].map(names)
    places = sorted(set(table["dial"]))
    x = alt.X(
        "at:Q",
        title="the dial, as a multiple of the middle's",
        scale=alt.Scale(type="log", base=2, nice=False, padding=14),
        axis=alt.Axis(values=places, format="~g", grid=False),
    )
    axis = alt.Axis(format="+~f", labelExpr="datum.value ? datum.label : '0'", tickCount=6)
    colours = alt.Scale(domain=list(names.values()), range=list(FURTHER_COLOURS[: len(names)]))
    colour = alt.Color("task:N", title=None, scale=colours, legend=alt.Legend(symbolType="circle", symbolOpacity=1))
    tooltip = [
        alt.Tooltip("task:N"), alt.Tooltip("dial:Q", title="times middle", format="~g"), alt.Tooltip("settings:Q"),
        alt.Tooltip("mean:Q", title="points", format="+.2f"), alt.Tooltip("low:Q", title="95 % from", format="+.2f"),
        alt.Tooltip("high:Q", title="to", format="+.2f"),
    ]  # fmt: skip
    base = alt.Chart(table)
    zero = alt.Chart(pd.DataFrame({"mean": [0.0]})).mark_rule(strokeWidth=1).encode(alt.Y("mean:Q"))
    y = alt.Y("mean:Q", title="points from the mean of all settings", axis=axis)
    return alt.layer(
        zero,
        base.mark_line(strokeWidth=1.5, opacity=0.6).encode(x, y, colour),
        base.mark_rule(strokeWidth=2).encode(x, alt.Y("low:Q"), alt.Y2("high:Q"), colour, tooltip=tooltip),
        base.mark_point(filled=True, size=60, opacity=1).encode(x, y, colour, tooltip=tooltip),
    ).properties(
        description="Accuracy on dev against rate × scale / raw length, in points from the mean of all settings, for"
        f" {', '.join(names.values())}, with 95 % intervals.",
        width="container",
        height=280,
    )


def knob_table() -> pd.DataFrame:
    """The knobs and their levels, to read."""
    about = {
        "rate": "the learning rate", "scale": "a factor of the update", "warm-up": "steps up to the full rate",
        "raw length": "of the stored vectors at the start",
        "start of λ": "its standard deviation at the start", "weight decay on λ": "on λ alone",
    }  # fmt: skip
    rows = []
    for factor in FACTORS:
        values = {code: f"{value:g}" for value, code in factor.levels.items()}
        row = {"knob": factor.name, "what it is": about[factor.name], "low": values[-1]}
        rows.append(row | {"middle": values.get(0, "–"), "high": values[1]})
    return pd.DataFrame(rows)


def effect_table(model: str) -> pd.DataFrame:
    """The planned effects and the same by task, to read, the largest first."""
    tasks = {task_name(task): f"knobs.by_task.{{}}.{task}.{model}|bare|signed" for task in study(model).tasks}
    return quantities.table(
        {row["key"]: row["what"] for row in rows(model).to_dict("records")},
        {"points (95 %)": f"knobs.effect.{{}}.{model}|bare|signed", "p, Holm": f"knobs.p_value.{{}}.{model}"} | tasks,
        "effect",
        {"p, Holm": lambda p: f"{p:.3f}" if p >= 0.001 else "<0.001"},
    )


def choice_table(model: str) -> pd.DataFrame:
    """The chosen settings, to read."""
    lines = ["chosen from, settings", *(factor.name for factor in FACTORS), "accuracy on dev, %"]
    table = {"": lines}
    for candidate, name in CANDIDATES.items():
        setting, of_lora = settings(model)[name], ("rate", "scale", "warm-up")
        said = [
            f"{factor.setting(setting):g}" if setting.family == "cp" or factor.name in of_lora else "–"
            for factor in FACTORS
        ]
        chosen_from = quantities.value(f"knobs.tried.{candidate}.{model}").text()
        table[name] = [chosen_from, *said, quantities.value(f"knobs.on_dev.{candidate}.{model}").text()]
    return pd.DataFrame(table)
