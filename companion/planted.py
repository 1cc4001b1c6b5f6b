"""Planted updates (studies/planted.md): how near students of each family and size come to a known teacher."""

import functools
from collections.abc import Mapping
from typing import Any

import pandas as pd

from companion import PROJECT, quantities
from companion.contrasts import on_record
from companion.records import records
from companion.wording import number
from cpadapt.analysis import charts, students
from cpadapt.analysis.charts import cell_name, family_colours, family_name, pair_name, task_name
from cpadapt.analysis.statistics import Mean
from cpadapt.errors import InputError
from cpadapt.records.config import HEAD, Cell
from cpadapt.study import Study, load_study

STUDY, RATES = "planted", "planted-rates"

TEXTS: Mapping[str, str] = {"sst2": "sst2", "generated": "toy-sentiment"}
"""The tasks whose texts are asked, by the name that quantities have."""

ITSELF: Mapping[str, Cell] = {
    "CP 1": ("cp", 1), "CP 4": ("cp", 4), "CP 16": ("cp", 16), "LoRA 1": ("lora", 1), "LoRA 4": ("lora", 4),
    "MELoRA 4": ("melora", 4),
}  # fmt: skip
"""The student of the planted family and size, by the teacher's title. A dense teacher has none."""

FOUND, NEARLY = 0.95, 0.80
"""The share that counts as found, and the one that is asked for where no student reaches it."""

PAIRS: tuple[tuple[Cell, Cell], ...] = ((("cp", 11), ("lora", 1)), (("cp", 44), ("lora", 4)))
"""Nearly equal in scalars, the first minus the second."""

LEADS = 0.01
"""The least mean of a difference that is called a lead."""


def study() -> Study:
    """The study."""
    return load_study(PROJECT / "studies" / f"{STUDY}.toml")


@functools.cache
def removed() -> pd.DataFrame:
    """The share that each run removed, as `students.removals` gives it."""
    return students.removals(on_record((STUDY,)))


@functools.cache
def recovery() -> pd.DataFrame:
    """The means over draws, as `students.recovery` gives them."""
    return students.recovery(removed())


def on_text(text: str) -> pd.DataFrame:
    """Those of one text, by its key in `TEXTS`."""
    found = recovery()
    chosen: pd.DataFrame = found[found["task"] == TEXTS[text]].reset_index(drop=True)
    return chosen


def over_draws(values: "pd.Series[float]") -> Mean:
    """A mean of draws, with its interval by Student's t.

    Raises:
        InputError: there are fewer than two draws, or one has several values.
    """
    if len(values) < 2 or not values.index.is_unique:
        raise InputError(f"a mean over draws needs one value of each of several draws, and these are {len(values)}")
    return Mean(float(values.mean()), float(values.std()) / len(values) ** 0.5, len(values) - 1)


def share(text: str, teacher: str, student: Cell) -> Mean:
    """What one student removes of one teacher's divergence."""
    table = removed()
    label, size = student
    runs = table[
        (table["task"] == TEXTS[text])
        & (table["teacher"] == teacher)
        & (table["label"] == label)
        & (table["size"] == size)
    ]
    return over_draws(runs.set_index("draw")["removed"])


@functools.cache
def tried() -> pd.DataFrame:
    """The share that each run of the study of rates removed, on dev."""
    return students.removals(on_record((RATES,)), on_dev=True)


def trial() -> float:
    """What LoRA 4 removed of LoRA 4's divergence on SST-2's dev, at its chosen setting, in the study of rates."""
    table, setting = tried(), students.choose_settings(tried())["lora", 4]
    runs = table[(table["task"] == TEXTS["sst2"]) & (table["teacher"] == "LoRA 4")]
    runs = runs[(runs["label"] == "lora") & (runs["size"] == 4)]
    runs = runs[(runs["learning_rate"] == setting.learning_rate) & (runs["scale"] == setting.scale)]
    return float(runs["removed"].mean())


def at_edge(label: str) -> int:
    """For how many of a family's sizes the lowest rate and scale that were tried were chosen."""
    of_family = tried()[tried()["label"] == label]
    lowest = of_family["learning_rate"].min(), of_family["scale"].min()
    chosen = students.choose_settings(tried())
    return sum((one.learning_rate, one.scale) == lowest for cell, one in chosen.items() if cell[0] == label)


def itself(text: str) -> pd.DataFrame:
    """The rows of `recovery` whose student is of the planted family and size."""
    found = on_text(text)
    cells = zip(found["label"], found["size"], strict=True)
    return found[[ITSELF.get(title) == cell for title, cell in zip(found["teacher"], cells, strict=True)]]


@functools.cache
def leads() -> pd.DataFrame:
    """The differences of `PAIRS` for each text and teacher, and in `leads` whether one of the two does."""
    found = students.differences(removed(), PAIRS)
    clear = (found["low"] > 0) | (found["high"] < 0)
    return found.assign(leads=clear & (found["mean"].abs() >= LEADS))


def reach(share: float) -> pd.DataFrame:
    """The smallest student of each family that removes a share on average, as `students.smallest_to_reach` says."""
    return students.smallest_to_reach(recovery(), share)


@functools.cache
def between_texts() -> pd.DataFrame:
    """Each cell's share on the generated text minus that on SST-2, draw by draw: a draw has one teacher for both.

    Returns:
        One row for each teacher and student, with the columns `teacher`, `label`, `size`, `parameters`, `mean`, `low`
        and `high`.
    """
    keys = ["teacher", "label", "size", "parameters"]
    rows = []
    for place, runs in removed().groupby(keys, sort=False):
        by_task = {task: found.set_index("draw")["removed"] for task, found in runs.groupby("task")}
        mean = over_draws(by_task[TEXTS["generated"]] - by_task[TEXTS["sst2"]])
        low, high = mean.interval()
        rows.append(dict(zip(keys, place, strict=True)) | {"mean": mean.mean, "low": low, "high": high})
    found = pd.DataFrame(rows)
    order = {title: at for at, title in enumerate(dict.fromkeys(recovery()["teacher"]))}
    return found.assign(at=found["teacher"].map(order)).sort_values(["at", "parameters", "label"]).drop(columns="at")


def by_teacher(text: str) -> "pd.Series[float]":
    """The mean over students for each teacher that was drawn, by its title and draw."""
    table = removed()
    means: pd.Series[float] = table[table["task"] == TEXTS[text]].groupby(["teacher", "draw"])["removed"].mean()
    return means


def by_student(text: str) -> "pd.Series[float]":
    """The mean over teachers for each student, by its label and size."""
    means: pd.Series[float] = on_text(text).groupby(["label", "size"])["mean"].mean()
    return means


# Along the way: what the evaluations say, which nobody asked beforehand.


@functools.cache
def course() -> pd.DataFrame:
    """What runs had removed at each evaluation.

    A run's loss is the teacher's entropy on the same texts plus the divergence, so it falls as the divergence does.
    The run without an adapter has the same batches and trains nothing. How far a run's loss is below that one's is
    what it removed.

    Returns:
        One row for each run and evaluation, with the columns `text`, `draw`, `step`, `dev` (the share removed on dev),
        `train` (the same on the batches since the last evaluation, as a share of dev's divergence) and `best` (whether
        the run was judged at this step).
    """
    runs = records(STUDY)
    start = {(r.config.task, r.config.teacher, r.config.data_seed): r for r in runs if r.label == HEAD}
    rows = []
    for text, task in TEXTS.items():
        for run in (r for r in runs if r.label != HEAD and r.config.task == task):
            before = start[task, run.config.teacher, run.config.data_seed]
            if before.dev is None or before.dev.divergence is None:
                raise InputError(f"run {before.id} has no divergence on dev: measure it with a teacher")
            for at, without in zip(run.evaluations, before.evaluations, strict=True):
                row = {"text": text, "draw": run.config.data_seed, "step": at.step, "best": at.step == run.best_step}
                row["dev"] = (without.dev_loss - at.dev_loss) / before.dev.divergence
                row["train"] = (without.train_loss - at.train_loss) / before.dev.divergence
                rows.append(row)
    return pd.DataFrame(rows)


def along(text: str, part: str, step: int) -> Mean:
    """The mean over runs of a column of `course` at a step, with its interval over draws."""
    table = course()
    chosen = table[(table["text"] == text) & (table["step"] == step)]
    return over_draws(chosen.groupby("draw")[part].mean())


def judged_last(text: str) -> tuple[int, int]:
    """How many runs were judged at the last step, which has the least loss on dev, and how many there are."""
    table = course()
    best = table[(table["text"] == text) & table["best"]]
    return int((best["step"] == study().protocol.steps).sum()), len(best)


# To be shown.


def title(text: str) -> str:
    """A text's printed name."""
    return "generated text" if text == "generated" else task_name(TEXTS[text])


def _titles(tasks: "pd.Series[str]") -> "pd.Series[str]":
    """The printed names of tasks."""
    return tasks.map({task: title(text) for text, task in TEXTS.items()})


def map_chart(text: str) -> Any:
    """Every teacher by every student."""
    return charts.recovery_chart(on_text(text)).properties(
        title=f"{title(text)}: no field reaches {100 * FOUND:.0f} %"
    )


def map_table(text: str) -> pd.DataFrame:
    """The same, to read."""
    return students.recovery_table(on_text(text))


def itself_chart(text: str) -> Any:
    """The student of the planted family and size with its interval, beside all others, and the share asked for."""
    import altair as alt

    table = on_text(text)
    cells = list(zip(table["label"], table["size"], strict=True))
    table["student"] = [cell_name(*cell) for cell in cells]
    table["family"] = table["label"].map(family_name)
    table[["mean", "low", "high"]] *= 100
    same = [ITSELF.get(teacher) == cell for teacher, cell in zip(table["teacher"], cells, strict=True)]
    planted, others = table[same], table[[not one for one in same]]
    y = alt.Y("teacher:N", sort=list(dict.fromkeys(table["teacher"])), title="planted", axis=alt.Axis(ticks=False))
    x = alt.X("mean:Q", title="% of the divergence removed", scale=alt.Scale(zero=False, nice=False, padding=8))
    inks = {family_name(label): family_colours()[label] for label in dict.fromkeys(table["label"])}
    scale = alt.Scale(domain=list(inks), range=list(inks.values()))
    colour = alt.Color("family:N", title="student of the kind planted", scale=scale, legend=alt.Legend(columns=3))
    tooltip = [
        alt.Tooltip("teacher:N", title="planted"), alt.Tooltip("student:N"),
        alt.Tooltip("mean:Q", title="removed, %", format=".1f"), alt.Tooltip("low:Q", title="from", format=".1f"),
        alt.Tooltip("high:Q", title="to", format=".1f"),
    ]  # fmt: skip
    rest = alt.Chart(others).mark_tick(thickness=1.5, size=14, color="#999999", opacity=0.8)
    line = alt.Chart(pd.DataFrame({"mean": [100 * FOUND], "said": ["asked"]}))
    return alt.layer(
        line.mark_rule(strokeDash=[6, 4], strokeWidth=1).encode(x),
        line.mark_text(baseline="bottom", dy=-3, fontSize=12).encode(x, y=alt.value(0), text="said:N"),
        rest.encode(x, y, tooltip=tooltip),
        alt.Chart(planted).mark_rule(strokeWidth=2).encode(alt.X("low:Q"), y, colour, x2="high:Q", tooltip=tooltip),
        alt.Chart(planted).mark_point(filled=True, size=80, opacity=1).encode(x, y, colour, tooltip=tooltip),
    ).properties(
        title=f"{title(text)}: none reaches {100 * FOUND:.0f} %",
        description=f"For each teacher the share of the divergence that students removed on {title(text)}: the one of"
        f" the planted kind as a dot with its 95 % interval, the others as grey ticks, and a line at the"
        f" {100 * FOUND:.0f} % asked for. All means lie to its left.",
        width="container",
        height=28 * table["teacher"].nunique(),
    )


def reach_table() -> pd.DataFrame:
    """The smallest student of each family that removes `NEARLY`, by text and teacher."""
    found = reach(NEARLY)
    names = {
        (row["label"], row["parameters"]): f"{cell_name(row['label'], row['size'])}, {row['parameters']:,}"
        for row in recovery().to_dict("records")
    }
    table = pd.DataFrame({"text": _titles(found["task"]), "planted": found["teacher"]})
    for label in study().ladder.sizes:
        table[family_name(label)] = [names.get((label, scalars), "–") for scalars in found[label]]
    return table


def lead_table() -> pd.DataFrame:
    """`leads` in points, to read."""
    found = leads()
    table = pd.DataFrame({"text": _titles(found["task"]), "planted": found["teacher"]})
    table["difference"] = [pair_name(*pair) for pair in zip(found["first"], found["second"], strict=True)]
    table["points (95 %)"] = _ranges(found, 1)
    table["leads"] = ["yes" if one else "" for one in found["leads"]]
    order = {(text, teacher): at for at, (text, teacher) in enumerate(zip(*_places(), strict=True))}
    places = [order[place] for place in zip(found["task"], found["teacher"], strict=True)]
    return table.iloc[sorted(range(len(table)), key=places.__getitem__)].reset_index(drop=True)


def _places() -> tuple[list[str], list[str]]:
    """The texts and teachers of `recovery`, in its order."""
    known = recovery()[["task", "teacher"]].drop_duplicates()
    return known["task"].tolist(), known["teacher"].tolist()


def text_table() -> pd.DataFrame:
    """`between_texts` in points, to read: one row a student, one column a teacher."""
    found = between_texts()
    found = found.assign(
        student=[cell_name(*cell) for cell in zip(found["label"], found["size"], strict=True)], said=_ranges(found, 0)
    )
    order = list(dict.fromkeys(found.sort_values(["parameters", "label"])["student"]))
    wide = found.pivot_table("said", "student", "teacher", aggfunc="first", sort=False)
    return wide.reindex(order)[list(dict.fromkeys(found["teacher"]))].reset_index()


def course_table() -> pd.DataFrame:
    """What runs had removed along the way on each text, to read."""
    protocol = study().protocol
    return quantities.table(
        {text: title(text) for text in TEXTS},
        {
            f"dev texts, step {protocol.steps // 2:,}": "planted.on_dev.{}.halfway|full",
            f"dev texts, step {protocol.steps:,}": "planted.on_dev.{}.last|full",
            f"training texts of the last {protocol.eval_every:,} steps": "planted.on_train.{}|full",
            "judged at the last step": "planted.judged_last.{}|unit",
        },
        "text",
    )


def _ranges(found: pd.DataFrame, digits: int) -> list[str]:
    """Means with their intervals, in points with signs."""
    return [
        f"{number(mean, digits, True)} ({number(low, digits, True)} to {number(high, digits, True)})"
        for mean, low, high in found[["mean", "low", "high"]].mul(100).itertuples(index=False)
    ]
