"""The frontier of every model and task in one figure, which `book/assets/linked_frontier.js` brings to life.

The reader chooses a model, a task and rates; a cell opens its runs, its learning curve and its partner, the other
family's cell that is nearest in size. Every interval is computed here; the script looks it up. Unmoved, and without
JavaScript, the figure shows the cells of `FIRST`.
"""

import functools
import html
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pandas as pd

from companion import PROJECT, encoder, main_study, model_size, noise, rates, size
from companion.records import records
from companion.wording import bounds, percent, signed
from cpadapt.analysis import charts
from cpadapt.analysis.across_tasks import difference
from cpadapt.analysis.cells import RunSetting, choose_rates, family_rates, setting_of
from cpadapt.analysis.charts import backbone_name, cell_name, family_colours, family_name, pair_name, task_name
from cpadapt.analysis.statistics import Mean, compare, estimate, outcomes
from cpadapt.families import FAMILIES
from cpadapt.records.config import HEAD, Cell
from cpadapt.records.record import Record
from cpadapt.study import load_study

HEAD_ONLY: Cell = (HEAD, 0)

FIRST = ("qwen-1.5b", "trec")
"""The model and task of the unmoved figure: of the main study's, the one whose gain is clearest beside its error."""

FIRST_CELL: Cell = ("cp", 1)
"""The cell that is open in it."""

CHOSEN_FOR_ALL, CHOSEN_FOR_EACH, PAPER = "chosen on dev for all tasks", "chosen on dev for each cell", "the paper's"


@dataclass(frozen=True)
class View:
    """One task's cells of one study, each at one setting."""

    backbone: str
    task: str
    rates: str
    """Where the learning rates come from."""
    study: str
    runs: Mapping[Cell, Mapping[int, Record]]
    """By cell and by draw, or by seed if the runs share one draw. All cells have the same."""

    @property
    def are_draws(self) -> bool:
        """Whether each run is on a draw of its own."""
        return len({run.config.data_seed for run in self.runs[HEAD_ONLY].values()}) > 1

    def accuracy(self, cell: Cell) -> Mean:
        """The mean accuracy of a cell: over draws as in the main study, over seeds as in the ledgers."""
        if self.are_draws:
            return difference([(1.0, self.runs[cell].values())]).estimate
        return estimate(outcomes(self.runs[cell].values()).right)

    def minus(self, one: Cell, other: Cell) -> Mean:
        """One cell minus another, run by run and item by item."""
        if self.are_draws:
            return difference([(1.0, self.runs[one].values()), (-1.0, self.runs[other].values())]).estimate
        return compare(outcomes(self.runs[one].values()), outcomes(self.runs[other].values()))

    def scalars(self, cell: Cell) -> int:
        """The trainable scalars of a cell."""
        return next(iter(self.runs[cell].values())).counts.adapter

    def partner(self, cell: Cell) -> Cell | None:
        """The other family's cell whose number of scalars is nearest by ratio, the smaller of two; none of the head
        alone."""
        others = [other for other in self.runs if other[0] not in (cell[0], HEAD)]
        if cell == HEAD_ONLY or not others:
            return None
        return min(others, key=lambda other: (abs(math.log(self.scalars(other) / self.scalars(cell))), other[1]))

    def pair(self, cell: Cell) -> tuple[Cell, Cell] | None:
        """A cell and its partner, LoRA's first."""
        partner = self.partner(cell)
        if partner is None:
            return None
        return (cell, partner) if cell[0] == rates.PAIRED[0] else (partner, cell)

    @property
    def commonest(self) -> float:
        """The accuracy of always giving the commonest answer to the items that the runs were asked, over runs."""
        return fmean(
            max(counts.values()) / sum(counts.values()) for counts in map(_classes, self.runs[HEAD_ONLY].values())
        )


def _classes(run: Record) -> dict[str, int]:
    """How many of the items that a run was asked are in each class."""
    found: dict[str, int] = {}
    for kind in ("eval", "rest"):
        for name, count in run.data["sets"].get(kind, {"classes": {}})["classes"].items():
            found[name] = found.get(name, 0) + count
    return found


@functools.cache
def views() -> tuple[View, ...]:
    """All views: those over tasks and, of the paper's tasks and of the encoder's, those over seeds."""
    found = [
        View(_backbone(study), task, CHOSEN_FOR_ALL, study, _by(_of(task, (study,)), "data_seed"))
        for study in model_size.STUDIES.values()
        for task in main_study.runs(study)
    ]
    for task in size.TASKS_MEASURED:
        found.append(_view(task, PAPER, size.STUDY, _of(task, (size.STUDY,)), _at_times(1.0)))
    for task in rates.TASKS:
        found.append(_view(task, PAPER, "smollm2", _of(task, ("smollm2",)), _at_times(1.0)))
        tried = rates.runs_at_all_rates(rates.STUDIES, task)
        for times in sorted(set(rates.times().values()) - {1.0}):
            found.append(_view(task, _times(times), "smollm2-rates", tried, _at_times(times)))
        found.append(_view(task, CHOSEN_FOR_EACH, "smollm2-rates", tried, choose_rates))
    for task in noise.TASKS:
        runs = _of(task, (study := noise.study_over_seeds(task),))
        found.append(_view(task, _times(_common_times(runs)), study, runs, choose_rates))
    for task in encoder.study().tasks:
        runs = _of(task, (encoder.STUDY,))
        found.append(_view(task, _times(_common_times(runs)), encoder.STUDY, runs, choose_rates))
    return tuple(found)


def _of(task: str, studies: Sequence[str]) -> list[Record]:
    return [run for study in studies for run in records(study) if run.config.task == task]


def _backbone(study: str) -> str:
    return str(load_study(PROJECT / "studies" / f"{study}.toml").backbone)


def _at_times(times: float) -> Callable[[Iterable[Record]], Mapping[Cell, RunSetting]]:
    """What gives each cell its setting at this multiple of the paper's rates."""
    given = {family: round(times * rate, 9) for family, rate in rates.PAPER_RATES.items()}
    return lambda runs: family_rates(runs, given)


def _view(
    task: str,
    rate: str,
    study: str,
    runs: list[Record],
    settings: Callable[[Iterable[Record]], Mapping[Cell, RunSetting]],
) -> View:
    chosen = settings(runs)
    kept = [run for run in runs if setting_of(run) == chosen[run.label, run.config.size]]
    return View(_backbone(study), task, rate, study, _by(kept, "seed"))


def _by(runs: Iterable[Record], what: str) -> dict[Cell, dict[int, Record]]:
    """Runs by cell, from the smallest, and by seed or draw, ascending. Cells with a lost run are left out."""
    found: dict[Cell, dict[int, Record]] = {}
    for run in sorted(runs, key=lambda run: (run.counts.adapter, run.label, getattr(run.config, what))):
        found.setdefault((run.label, run.config.size), {})[getattr(run.config, what)] = run
    return {cell: runs for cell, runs in found.items() if all(run.outcome for run in runs.values())}


def _common_times(runs: Iterable[Record]) -> float:
    """The multiple of the paper's rates that all runs with an adapter have."""
    (times,) = {
        round((run.config.learning_rate or math.nan) / rates.PAPER_RATES[run.label], 9)
        for run in runs
        if run.label != HEAD
    }
    return times


def _times(times: float) -> str:
    return f"{times:g} times the paper's"


def setting(run: Record) -> str:
    """A run's setting as a page prints it."""
    found = setting_of(run)
    if found.learning_rate is None:
        return ""
    said = f"learning rate {found.learning_rate:.0e}".replace("e-0", "e-")
    if found.scale != FAMILIES[run.config.family].SCALE:
        said += f", scale {found.scale:g}"
    return said + (f", warm-up of {found.warmup_steps} steps" if found.warmup_steps else "")


def tried(view: View, cell: Cell) -> list[tuple[str, float, bool]]:
    """What the study of rates has of a cell on a task: each setting's name, accuracy on dev, and whether it is the one
    that dev chose over all of that study's tasks."""
    model = next((model for model, study in model_size.STUDIES.items() if study == view.study), None)
    if model is None or cell not in size.tried(model):
        return []
    chosen = size.chosen(model, cell)
    found = [(size.SETTINGS[name], size.on_dev_by_task(model, cell, name)) for name in size.tried(model)[cell]]
    return [(name, by_task[view.task], name == chosen) for name, by_task in found if view.task in by_task]


def as_json(view: View) -> dict[str, Any]:
    """A view, with shares in percent and differences in points, each with the ends of its 95 % interval."""
    head = view.runs[HEAD_ONLY]
    first = next(iter(head.values()))
    cells = list(view.runs)
    return {
        "model": view.backbone,
        "task": view.task,
        "rates": f"{view.rates}: {first.config.protocol.steps:,} steps, "
        f"{len(head)} {'draws' if view.are_draws else 'seeds'}",
        "about": load_study(PROJECT / "studies" / f"{view.study}.toml").about,
        "run": "draw" if view.are_draws else "seed",
        "runs": list(head),
        "items": [_answered(run)[1] for run in head.values()],
        "commonest": _short(view.commonest),
        "steps": [evaluation.step for evaluation in first.evaluations],
        "dev": first.evaluations[0].dev_total,
        "cells": [_cell(view, cell, cells) for cell in cells],
    }


@functools.cache
def shown() -> tuple[dict[str, Any], ...]:
    """All views as the figure has them."""
    return tuple(map(as_json, views()))


def _cell(view: View, cell: Cell, cells: Sequence[Cell]) -> dict[str, Any]:
    runs = view.runs[cell].values()
    found: dict[str, Any] = {
        "family": cell[0],
        "name": cell_name(*cell),
        "scalars": view.scalars(cell),
        "setting": setting(next(iter(runs))),
        "accuracy": _with_interval(view.accuracy(cell)),
        "right": [_answered(run)[0] for run in runs],
        "curves": [[evaluation.dev_correct for evaluation in run.evaluations] for run in runs],
    }
    if cell != HEAD_ONLY:
        found["gain"] = _with_interval(view.minus(cell, HEAD_ONLY))
    if pair := view.pair(cell):
        found["partner"] = cells.index(pair[1] if pair[0] == cell else pair[0])
        found["pair"] = pair_name(*pair)
        found["lead"] = _with_interval(view.minus(*pair))
    if on_dev := tried(view, cell):
        found["tried"] = [[name, _short(accuracy), chosen] for name, accuracy, chosen in on_dev]
    return found


def _answered(run: Record) -> tuple[int, int]:
    """How many items a run has right, and of how many."""
    asked = [outcome for outcome in (run.outcome, run.rest) if outcome]
    return sum(outcome.correct for outcome in asked), sum(outcome.total for outcome in asked)


def _short(share: float) -> float:
    return round(100 * share, 4)


def _with_interval(mean: Mean) -> list[float]:
    return [_short(mean.mean), *map(_short, mean.interval())]


@functools.cache
def first() -> View:
    """The view of the unmoved figure."""
    return next(view for view in views() if (view.backbone, view.task) == FIRST)


def first_table() -> pd.DataFrame:
    """The cells of `first`, to read."""
    view, rows = first(), []
    for cell in view.runs:
        row = {"adapter": cell_name(*cell), "scalars": f"{view.scalars(cell):,}"}
        row["accuracy, %"] = percent(view.accuracy(cell).mean)
        gain = None if cell == HEAD_ONLY else view.minus(cell, HEAD_ONLY)
        row["points over the head alone (95 %)"] = f"{signed(gain.mean)} ({bounds(gain.interval())})" if gain else "–"
        rows.append(row)
    return pd.DataFrame(rows)


def cell_table() -> pd.DataFrame:
    """Every cell of every view, in percent and points, as the figure's data."""
    rows = []
    for view in shown():
        for cell in view["cells"]:
            row = {"model": backbone_name(view["model"]), "task": task_name(view["task"]), "rates": view["rates"]}
            row |= {"adapter": cell["name"], "trainable scalars": cell["scalars"], "setting": cell["setting"]}
            for column, what in (("accuracy", "accuracy"), ("over the head", "gain"), ("LoRA − CP", "lead")):
                if column == "LoRA − CP":
                    row["pair"] = cell.get("pair", "")
                row |= dict(
                    zip((column, f"{column}, low", f"{column}, high"), cell.get(what, [None] * 3), strict=True)
                )
            rows.append(row)
    return pd.DataFrame(rows)


def form() -> str:
    """The figure as HTML, with its data."""
    data = {
        "models": {view["model"]: backbone_name(view["model"]) for view in shown()},
        "tasks": {view["task"]: task_name(view["task"]) for view in shown()},
        "families": {
            name: {"name": family_name(name), "colour": family_colours()[name]} for name in (HEAD, *rates.PAPER_RATES)
        },
        "first": {"model": FIRST[0], "task": FIRST[1], "cell": cell_name(*FIRST_CELL)},
        "views": shown(),
    }
    model, task = backbone_name(FIRST[0]), task_name(FIRST[1])
    label = f"Accuracy against trainable scalars for a model and a task to choose; at first {task} on {model}"
    script = json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("</", "<\\/")
    return f"""<div class="linked-frontier" role="group" aria-label="{html.escape(label)}">
<figure class="linked-frontier-view">
<div class="linked-frontier-still"><p>{task} on {model}:</p>{charts.table(first_table()).data}</div>
</figure>
<div class="linked-frontier-open"></div>
<script type="application/json">{script}</script>
<script type="text/csv">{cell_table().to_csv(index=False, float_format="%.4f")}</script></div>"""
