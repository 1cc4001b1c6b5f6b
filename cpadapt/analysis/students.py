"""How near students come to a planted teacher.

A student starts as the backbone, at a divergence D₀ from its teacher: the mean over texts of the Kullback–Leibler
divergence of its class probabilities from the teacher's. After training it is D. The share 1 − D/D₀ is what training
removed: 1 for a student that answers as its teacher does, 0 for one that has learned nothing, negative for one that is
further away than before. Both are taken on the same texts, which no run was trained on.
"""

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from cpadapt.analysis.cells import RunSetting, setting_of
from cpadapt.analysis.charts import cell_name
from cpadapt.analysis.statistics import Mean
from cpadapt.errors import InputError
from cpadapt.families.planted import Teacher
from cpadapt.records.config import HEAD, Cell
from cpadapt.records.record import Outcome, Record

SETTING = list(RunSetting._fields)
"""The columns of a run's setting."""


def removals(records: Iterable[Record], *, on_dev: bool = False) -> pd.DataFrame:
    """The share of the divergence that each run removed.

    Args:
        records: runs with a teacher, and for each teacher and draw a run without an adapter.
        on_dev: on the texts that chose the step, to choose a setting by, instead of eval.

    Returns:
        One row for each run with an adapter, with the columns `task`, `teacher` (its title), `label`, `size`,
        `parameters`, the columns of its setting, `draw` (its data seed, from which the teacher is drawn too), `before`
        (D₀, nats), `removed` and `diverged`. A run that diverged before it was judged has removed nothing.

    Raises:
        InputError: a run has no teacher, two teachers have one title, two runs are the same cell, setting and draw, or
            there is no run without an adapter on a run's teacher and draw.
    """
    rows: dict[tuple[object, ...], dict[str, object]] = {}
    adapters: list[Record] = []
    before: dict[tuple[object, ...], float] = {}
    titled: dict[str, Teacher] = {}
    for record in records:
        teacher = record.config.teacher
        if teacher is None:
            raise InputError(f"run {record.id} of study {record.study!r} has no teacher: give runs that have one")
        if titled.setdefault(teacher.title, teacher) != teacher:
            raise InputError(
                f"{teacher} and {titled[teacher.title]} are both called {teacher.title!r}: give one of them"
            )
        if record.config.family != HEAD:
            adapters.append(record)
        elif outcome := _judged(record, on_dev):
            before[_draw(record)] = _divergence(outcome)
    for record in adapters:
        draw, setting = _draw(record), setting_of(record)
        if draw not in before:
            raise InputError(
                f"run {record.id} has nothing to be compared with: give the run of {HEAD!r} with its teacher"
                f" ({_title(record)}) on {record.config.task!r}, data seed {record.config.data_seed}"
            )
        if (key := (*draw, record.label, record.config.size, setting)) in rows:
            raise InputError(f"runs {rows[key]['id']} and {record.id} are the same cell, setting and draw")
        outcome = _judged(record, on_dev)
        rows[key] = {
            "id": record.id,
            "task": record.config.task,
            "teacher": _title(record),
            "label": record.label,
            "size": record.config.size,
            "parameters": record.counts.adapter,
            **setting._asdict(),
            "draw": record.config.data_seed,
            "before": before[draw],
            "removed": 0.0 if outcome is None else 1 - _divergence(outcome) / before[draw],
            "diverged": record.diverged_at is not None,
        }
    columns = ["task", "teacher", "label", "size", "parameters", *SETTING, "draw", "before", "removed", "diverged"]
    return pd.DataFrame(list(rows.values()), columns=columns)


def _draw(record: Record) -> tuple[object, ...]:
    """What a run shares with the run that its start is taken from."""
    config = record.config
    return record.weights.identity, config.task, config.protocol.id, config.teacher, config.data_seed


def _judged(record: Record, on_dev: bool) -> Outcome | None:
    return record.dev if on_dev else record.outcome


def _divergence(outcome: Outcome) -> float:
    if outcome.divergence is None:
        raise InputError("the outcome of a run with a teacher has no divergence: retrain it")
    return outcome.divergence


def _title(record: Record) -> str:
    return record.config.teacher.title if record.config.teacher else ""


def choose_settings(removed: pd.DataFrame) -> dict[Cell, RunSetting]:
    """One setting for each cell, the same for all teachers and texts: the one that removes most.

    Draws are averaged first, then teachers, then texts. A setting at which fewer runs diverged comes first, whatever
    the others reach; ties go to the lower rate, then the lower scale, then the shorter warm-up.

    Args:
        removed: a table of `removals` on dev.
    """
    cell = ["label", "size"]
    means = removed
    for over in (["task", "teacher"], ["task"], []):
        means = means.groupby([*cell, *SETTING, *over], as_index=False).agg(
            removed=("removed", "mean"), diverged=("diverged", "sum")
        )
    best = means.sort_values(["diverged", "removed", *SETTING], ascending=[True, False, True, True, True])
    return {
        (str(row["label"]), int(row["size"])): RunSetting(
            float(row["learning_rate"]), float(row["scale"]), int(row["warmup_steps"])
        )
        for row in best.drop_duplicates(cell).sort_values(cell).to_dict("records")
    }


def recovery(removed: pd.DataFrame) -> pd.DataFrame:
    """The map of what is removed: every teacher by every student, over draws.

    Args:
        removed: a table of `removals`, with one setting for each cell.

    Returns:
        One row for each text, teacher and cell, with the columns `task`, `teacher`, `label`, `size`, `parameters`,
        `draws`, `mean`, and `low` and `high`, the 95 % interval by Student's t (missing for one draw). Teachers are in
        the order of the table, cells by parameters.

    Raises:
        InputError: a cell has several settings.
    """
    for (label, size), runs in removed.groupby(["label", "size"]):
        if len(runs[SETTING].drop_duplicates()) > 1:
            raise InputError(f"{label} {size} was trained at several settings: give the runs of one")
    rows = []
    for (task, teacher, label, size, parameters), runs in removed.groupby(
        ["task", "teacher", "label", "size", "parameters"], sort=False
    ):
        rows.append(
            {"task": task, "teacher": teacher, "label": label, "size": size, "parameters": parameters}
            | _over_draws(runs["removed"])
        )
    columns = ["task", "teacher", "label", "size", "parameters", "draws", "mean", "low", "high"]
    found = pd.DataFrame(rows, columns=columns)
    places = {teacher: place for place, teacher in enumerate(dict.fromkeys(found["teacher"]))}
    order = found.assign(place=found["teacher"].map(places)).sort_values(["task", "place", "parameters", "label"])
    return order.drop(columns="place").reset_index(drop=True)


def differences(removed: pd.DataFrame, pairs: Sequence[tuple[Cell, Cell]]) -> pd.DataFrame:
    """Between two students of each teacher, draw by draw: the share that the first removes, minus the second's.

    Args:
        removed: as in `recovery`.
        pairs: of cells, the first minus the second.

    Returns:
        One row for each text, teacher and pair, with the columns `task`, `teacher`, `first`, `second`, `draws` (those
        that both cells have), `mean`, `low` and `high`, as in `recovery`.
    """
    rows = []
    for (task, teacher), runs in removed.groupby(["task", "teacher"], sort=False):
        by_cell = {cell: found.set_index("draw")["removed"] for cell, found in runs.groupby(["label", "size"])}
        for first, second in pairs:
            if first in by_cell and second in by_cell:
                gaps = (by_cell[first] - by_cell[second]).dropna()
                rows.append({"task": task, "teacher": teacher, "first": first, "second": second} | _over_draws(gaps))
    return pd.DataFrame(rows, columns=["task", "teacher", "first", "second", "draws", "mean", "low", "high"])


def smallest_to_reach(found: pd.DataFrame, share: float) -> pd.DataFrame:
    """The smallest student of each label that removes a share on average.

    Args:
        found: a table of `recovery`.
        share: from 0 to 1.

    Returns:
        One row for each text and teacher, with the columns `task` and `teacher`, and a column for each label with the
        parameters of its smallest cell whose mean is at least the share; missing where none is.
    """
    near = found[found["mean"] >= share]
    smallest = near.pivot_table("parameters", ["task", "teacher"], "label", "min")
    asked = found[["task", "teacher"]].drop_duplicates()
    labels = list(dict.fromkeys(found["label"]))
    return asked.merge(smallest.reindex(columns=labels).reset_index(), how="left", on=["task", "teacher"])


def recovery_table(found: pd.DataFrame) -> pd.DataFrame:
    """The map of one text as a printed table: one row a student, one column a teacher.

    Args:
        found: one text's rows of `recovery`.

    Returns:
        The columns `student` and `scalars`, and one for each teacher with the mean in percent and its 95 % interval,
        such as `97 (94 to 99)`; empty where the student was not trained.
    """
    rows: dict[tuple[str, int], dict[str, str]] = {}
    for row in found.sort_values(["parameters", "label"]).to_dict("records"):
        student = rows.setdefault(
            (row["label"], row["size"]),
            {"student": cell_name(row["label"], row["size"]), "scalars": f"{row['parameters']:,}"},
        )
        mean, low, high = (100 * row[name] for name in ("mean", "low", "high"))
        student[row["teacher"]] = f"{round(mean)}" + ("" if math.isnan(low) else f" ({round(low)} to {round(high)})")
    columns = ["student", "scalars", *dict.fromkeys(found["teacher"])]
    return pd.DataFrame(list(rows.values()), columns=columns).fillna("")


def _over_draws(values: "pd.Series[float]") -> dict[str, float]:
    """The number of draws, their mean and its 95 % interval."""
    draws = len(values)
    low = high = math.nan
    if draws > 1:
        mean = Mean(float(values.mean()), float(values.std()) / math.sqrt(draws), draws - 1)
        low, high = mean.interval()
    return {"draws": draws, "mean": float(values.mean()), "low": low, "high": high}
