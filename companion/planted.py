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

STUDY, RATES, LONGER = "planted", "planted-rates", "planted-longer-rates"
PILOTS = ("planted-pilot-small", "planted-pilot-v")
"""The studies of easier updates."""

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

NEIGHBOURS: Mapping[Cell, Cell] = {
    ("lora", 2): ("lora", 1), ("cp", 4): ("cp", 1), ("cp", 16): ("cp", 11), ("melora", 4): ("lora", 1),
    ("melora", 16): ("lora", 4),
}  # fmt: skip
"""The student that a setting was chosen for, by the one that took it over."""

WORTH_RUNNING = 0.90
"""What CP 4 or LoRA 4 had to remove in the study of longer rates, for the longer study to be run."""

DENSE: Mapping[str, str] = {"dense": "dense, equal", "dense, 1/k^0.5": "dense, 1/√k"}
"""What the page calls a teacher, by its title, where it is something else: by its singular values."""


def study(name: str = STUDY) -> Study:
    """The study, or another one."""
    return load_study(PROJECT / "studies" / f"{name}.toml")


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
def tried(name: str = RATES) -> pd.DataFrame:
    """The share that each run of a study of rates removed, on dev."""
    return students.removals(on_record((name,)), on_dev=True)


@functools.cache
def at_chosen(name: str) -> pd.DataFrame:
    """The rows of `tried` on SST-2 at the setting that the study chose for the cell."""
    table, chosen = tried(name), students.choose_settings(tried(name))
    cells = zip(table["label"], table["size"], strict=True)
    settings = table[students.SETTING].itertuples(index=False, name=None)
    taken = [chosen[cell] == setting for cell, setting in zip(cells, settings, strict=True)]
    of_cells = table[taken]
    return of_cells[of_cells["task"] == TEXTS["sst2"]]


def shares_on_dev(name: str, teacher: str, student: Cell) -> "pd.Series[float]":
    """What a student removes of a teacher's divergence on SST-2's dev, at its chosen setting, by draw."""
    table = at_chosen(name)
    label, size = student
    runs = table[(table["teacher"] == teacher) & (table["label"] == label) & (table["size"] == size)]
    shares: pd.Series[float] = runs.set_index("draw")["removed"]
    return shares


def settings() -> pd.DataFrame:
    """The setting of each student, and whose it is.

    Returns:
        One row for each student, with the columns `label`, `size`, `learning_rate`, `scale`, `chosen_for` (the cell
        that it was chosen for in the study of rates), and `lowest_rate` and `lowest_scale` (whether none lower was
        tried for that cell).
    """
    table, chosen = tried(), students.choose_settings(tried())
    rows = []
    for cell in dict.fromkeys(zip(recovery()["label"], recovery()["size"], strict=True)):
        source = NEIGHBOURS.get(cell, cell)
        of_cell = table[(table["label"] == source[0]) & (table["size"] == source[1])]
        rate, scale, _ = chosen[source]
        rows.append({
            "label": cell[0], "size": cell[1], "learning_rate": rate, "scale": scale, "chosen_for": source,
            "lowest_rate": rate == of_cell["learning_rate"].min(), "lowest_scale": scale == of_cell["scale"].min(),
        })  # fmt: skip
    return pd.DataFrame(rows)


def longer_at_edge() -> tuple[int, int]:
    """For how many students the study of longer rates chose the lowest or highest rate tried, and how many it has."""
    table, chosen = tried(LONGER), students.choose_settings(tried(LONGER))
    rates = table.groupby("label")["learning_rate"].agg(["min", "max"])
    return sum(one.learning_rate in set(rates.loc[label]) for (label, _), one in chosen.items()), len(chosen)


def longer_most() -> float:
    """The most that any student removes on dev in the study of longer rates, at any rate and of any teacher: a mean
    over draws."""
    means = tried(LONGER).groupby(["teacher", "label", "size", *students.SETTING])["removed"].mean()
    return float(means.max())


def at_former_rate() -> float:
    """What LoRA 4 removes of LoRA 4's divergence in the study of longer rates, at the setting of the first study."""
    setting = students.choose_settings(tried())["lora", 4]
    table = tried(LONGER)
    runs = table[(table["teacher"] == "LoRA 4") & (table["label"] == "lora") & (table["size"] == 4)]
    runs = runs[(runs["learning_rate"] == setting.learning_rate) & (runs["scale"] == setting.scale)]
    return float(runs["removed"].mean())


def longer() -> pd.DataFrame:
    """What students removed on SST-2's dev in the study of longer rates, and in the first one, at chosen settings.

    Both have the same teachers and dev texts.

    Returns:
        One row for each run of the longer one, with the columns `teacher`, `label`, `size`, `draw`, `before` (missing
        where the first study lacks the student) and `after`.
    """
    keys = ["teacher", "label", "size", "draw"]
    before, after = (at_chosen(name)[[*keys, "removed"]] for name in (RATES, LONGER))
    return after.rename(columns={"removed": "after"}).merge(
        before.rename(columns={"removed": "before"}), how="left", on=keys
    )[[*keys, "before", "after"]]


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


def along(text: str, part: str, step: int) -> "pd.Series[float]":
    """The means over runs of a column of `course` at a step, by draw."""
    table = course()
    means: pd.Series[float] = table[(table["text"] == text) & (table["step"] == step)].groupby("draw")[part].mean()
    return means


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


def _called(found: pd.DataFrame) -> pd.DataFrame:
    """With teachers called as the page does."""
    return found.assign(teacher=found["teacher"].replace(dict(DENSE)))


def map_chart(text: str) -> Any:
    """Every teacher by every student."""
    return charts.recovery_chart(_called(on_text(text))).properties(
        title=f"{title(text)}: no field reaches {100 * FOUND:.0f} %"
    )


def map_table(text: str) -> pd.DataFrame:
    """The same, to read."""
    return students.recovery_table(_called(on_text(text)))


def itself_chart(text: str) -> Any:
    """The student of the planted family and size with its interval, beside all others, and the share asked for."""
    import altair as alt

    table = _called(on_text(text))
    cells = list(zip(table["label"], table["size"], strict=True))
    table["student"] = [cell_name(*cell) for cell in cells]
    table["family"] = table["label"].map(family_name)
    table[["mean", "low", "high"]] *= 100
    same = [ITSELF.get(teacher) == cell for teacher, cell in zip(table["teacher"], cells, strict=True)]
    planted, others = table[same], table[[not one for one in same]]
    y = alt.Y("teacher:N", sort=list(dict.fromkeys(table["teacher"])), title="planted", axis=alt.Axis(ticks=False))
    x = alt.X(
        "mean:Q", title="% of the divergence removed", scale=alt.Scale(zero=False), axis=alt.Axis(tickMinStep=10)
    )
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


def longer_chart() -> Any:
    """What students removed on dev in both studies of rates, draw by draw, and the longer one's means."""
    import altair as alt

    found = longer()
    found[["before", "after"]] *= 100
    found["pair"] = [
        f"{cell_name(label, size)} on {teacher}"
        for label, size, teacher in found[["label", "size", "teacher"]].itertuples(index=False)
    ]
    inks = {"before": "#999999"} | {
        f"{family_name(label)}, longer": family_colours()[label] for label in found["label"].unique()
    }
    found["study"] = [f"{family_name(label)}, longer" for label in found["label"]]
    runs = pd.concat([
        found.assign(removed=found["after"]), found.assign(removed=found["before"], study=next(iter(inks))).dropna()
    ])  # fmt: skip
    means = found.groupby(["pair", "study"], sort=False, as_index=False)["after"].mean()
    order = found.sort_values(["teacher", "label", "size"])["pair"].drop_duplicates().tolist()
    # Domains of layers with other data are not merged in their order, so they are said.
    scale = alt.Scale(domain=order)
    y = alt.Y("pair:N", sort=None, scale=scale, title="student on planted update", axis=alt.Axis(ticks=False))
    x = alt.X("removed:Q", title="% of dev's divergence removed", scale=alt.Scale(zero=False))
    draws = sorted(found["draw"].unique().tolist())
    by_draw = alt.YOffset("draw:N", sort=None, scale=alt.Scale(domain=draws, paddingOuter=0.6))
    legend = alt.Legend(orient="top", columns=2, labelLimit=0)
    colour = alt.Color(
        "study:N", title=None, scale=alt.Scale(domain=list(inks), range=list(inks.values())), legend=legend
    )
    pair = alt.Tooltip("pair:N", title="student on update")
    share = alt.Tooltip("removed:Q", title="removed, %", format=".1f")
    mean = alt.Tooltip("after:Q", title="mean of both draws, %", format=".1f")
    asked = 100 * WORTH_RUNNING
    line = alt.Chart(pd.DataFrame({"removed": [asked], "said": ["asked"]}))
    of_run, of_pair = alt.Chart(runs), alt.Chart(means)
    between = alt.Chart(found.dropna()).mark_rule(color="#999999")
    return alt.layer(
        line.mark_rule(strokeDash=[6, 4], strokeWidth=1).encode(x),
        line.mark_text(baseline="bottom", dy=-3, fontSize=12).encode(x, y=alt.value(0), text="said:N"),
        between.encode(alt.X("before:Q"), y, yOffset=by_draw, x2="after:Q"),
        of_run.mark_point(filled=True, size=45, opacity=1).encode(
            x, y, colour, yOffset=by_draw, tooltip=[pair, alt.Tooltip("draw:N"), alt.Tooltip("study:N"), share]
        ),
        of_pair.mark_tick(thickness=3, size=22, opacity=1).encode(alt.X("after:Q"), y, colour, tooltip=[pair, mean]),
    ).properties(
        title=f"No mean reaches {asked:.0f} %",
        description="For five students and two planted updates the share of dev's divergence that a run removed in"
        " each of two draws: grey after the first study's training, where it has that student, and in the family's"
        f" colour after longer training, whose means are upright bars. All means lie left of the {asked:.0f} % asked.",
        width="container",
        height=28 * len(order),
    )


def reach_table() -> pd.DataFrame:
    """The smallest student of each family that removes `NEARLY` on SST-2, and what it removes, by teacher."""
    found = reach(NEARLY)
    found = _called(found[found["task"] == TEXTS["sst2"]])
    shares = {
        (row["teacher"], row["label"], row["parameters"]): f"{cell_name(row['label'], row['size'])}, "
        f"{100 * row['mean']:.1f} %"
        for row in _called(on_text("sst2")).to_dict("records")
    }
    table = pd.DataFrame({"planted": found["teacher"]})
    for label in study().ladder.sizes:
        table[family_name(label)] = [
            shares.get((teacher, label, scalars), "–")
            for teacher, scalars in zip(found["teacher"], found[label], strict=True)
        ]
    return table


def settings_table() -> pd.DataFrame:
    """`settings`, to read."""
    found = settings()
    cells = list(zip(found["label"], found["size"], strict=True))
    return pd.DataFrame(
        {
            "student": [cell_name(*cell) for cell in cells],
            "rate": [f"{rate:g}" for rate in found["learning_rate"]],
            "scale": [f"{scale:g}" for scale in found["scale"]],
            "chosen for": [cell_name(*cell) for cell in found["chosen_for"]],
            "lowest rate tried": ["yes" if one else "" for one in found["lowest_rate"]],
            "lowest scale tried": ["yes" if one else "" for one in found["lowest_scale"]],
        }
    )


def lead_table() -> pd.DataFrame:
    """`leads` in points, to read."""
    found = leads()
    table = pd.DataFrame({"text": _titles(found["task"]), "planted": _called(found)["teacher"]})
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
    found = _called(between_texts())
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
            f"dev, step {protocol.steps // 2:,}": "planted.on_dev.{}.halfway|full",
            f"dev, step {protocol.steps:,}": "planted.on_dev.{}.last|full",
            f"training, last {protocol.eval_every:,} steps": "planted.on_train.{}|full",
            "training minus dev": "planted.train_ahead.{}|full|signed",
        },
        "text",
    )


def _ranges(found: pd.DataFrame, digits: int) -> list[str]:
    """Means with their intervals, in points with signs."""
    return [
        f"{number(mean, digits, True)} ({number(low, digits, True)} to {number(high, digits, True)})"
        for mean, low, high in found[["mean", "low", "high"]].mul(100).itertuples(index=False)
    ]
