"""How often the intervals of the plan hold the truth, and its tests are wrong or right, on studies made of real runs.

Each simulated study has the plan's fifteen tasks. What two adapters' answers differ by comes from real runs: of a task
like it, runs and items are drawn with replacement from a table of them, whose mean is set to 0, and every draw is
asked training rows besides, as the plan has it. So chance is as it is on record, runs and items being drawn one by
one, and the truth is known: it is what is added, a mean over tasks, a difference of each source and of each task from
it, and of each draw. The estimators then see what they would of the study (`cpadapt.analysis.across_tasks`).
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from companion.contrasts import cells_on_record
from companion.plan import LEVEL, MARGIN, needs_more_draws
from cpadapt.analysis.across_tasks import OnTask, on_task, over_tasks
from cpadapt.analysis.statistics import Floats, Mean
from cpadapt.records.store import write_atomically

RESULT = Path(__file__).resolve().parents[1] / "results" / "plan" / "coverage.json"

DRAWS = (10, 20)
"""At the first look and, if it comes to that, at the second."""

DRAWN = 1500
"""Training rows in a draw's train and dev."""

NOMINAL = 0.05
"""The level of one look by itself."""

EVAL, REST = 2000, 1000
"""Items a run is asked at most."""


@dataclass(frozen=True)
class Task:
    """How large a task is, and whose runs stand for its own."""

    evaluation: int
    """Rows of its evaluation split."""
    training: int
    """Rows of its training split."""
    pool: str
    source: str | None = None


MOVIES = "movie reviews"
TASKS = {
    "sst2": Task(872, 67349, "sst2-draws", MOVIES),
    "mr": Task(2000, 8662, "sst2-draws", MOVIES),
    "sst5": Task(2210, 8544, "boolq-seeds", MOVIES),
    "subj": Task(2000, 8000, "sst2-draws", MOVIES),
    "cr": Task(1000, 2765, "sst2-seeds"),
    "mpqa": Task(2000, 6240, "sst2-seeds"),
    "agnews": Task(2000, 5600, "sst2-seeds"),
    "trec": Task(500, 5452, "sick"),
    "sick": Task(1968, 7872, "sick"),
    "mrpc": Task(408, 3668, "mrpc"),
    "qqp": Task(10000, 30430, "mrpc"),
    "rte": Task(277, 2490, "rte-draws"),
    "mnli": Task(9832, 9815, "rte-draws"),
    "qnli": Task(2000, 3463, "rte-seeds"),
    "boolq": Task(3270, 9427, "boolq-seeds"),
}
SOURCES = {name: task.source for name, task in TASKS.items()}

POOLS = {
    "sst2-draws": (["smollm2-data-seeds", "smollm2-data-seeds-again"], "sst2", 11),
    "sst2-seeds": (["smollm2-seeds"], "sst2", 11),
    "rte-draws": (["smollm2-data-seeds", "smollm2-data-seeds-again"], "rte", 11),
    "rte-seeds": (["smollm2-seeds"], "rte", 11),
    "boolq-seeds": (["smollm2-seeds-boolq"], "boolq", 11),
    "sick": (["minilm"], "sick", 9),
    "mrpc": (["minilm"], "mrpc", 9),
}
"""Each one's studies, task, and the components of CP at the budget of LoRA's first rank."""


@cache
def pool(name: str) -> Floats:
    """`[runs, items]`, what LoRA of rank 1 has right minus what CP at its budget has, less the mean of all."""
    studies, task, size = POOLS[name]
    cells = [cells_on_record([study], task).outcomes for study in studies]
    differences = np.concatenate([outcomes["lora", 1].right - outcomes["cp", size].right for outcomes in cells])
    return differences - differences.mean()


def answers(
    task: Task, of_draws: Floats, rng: np.random.Generator
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """One study's differences on one task, and of which draw and to what item each is.

    Args:
        task: which.
        of_draws: `[draws]`, what is added to the answers of each.
        rng: of all that is drawn.
    """
    table = pool(task.pool)
    runs = rng.integers(len(table), size=len(of_draws))
    asked = min(task.evaluation, EVAL)
    left = task.training - DRAWN
    each = min(REST, left)
    # A draw leaves over all that it has not taken, and is asked so many of these: that is, so many of all rows.
    rows = np.array([rng.choice(task.training, each, replace=False, shuffle=False) for _ in of_draws])
    like = rng.integers(table.shape[1], size=asked + task.training)
    items = np.concatenate([np.broadcast_to(np.arange(asked), (len(of_draws), asked)), asked + rows], axis=1)
    values = table[runs[:, None], like[items]] + of_draws[:, None]
    return values.ravel(), np.repeat(np.arange(len(of_draws)), asked + each), items.ravel()


@dataclass(frozen=True)
class Study:
    """What the estimators see of one simulated study, before any true difference is added."""

    first: dict[str, OnTask]
    """At the first look."""
    second: dict[str, OnTask] | None
    """With all draws."""

    def look(self, of_tasks: dict[str, float], second: bool = False) -> Mean:
        """The mean over tasks when each has this true difference."""
        found = (self.second if second else self.first) or {}
        moved = {
            name: replace(
                one,
                estimate=replace(one.estimate, mean=one.estimate.mean + of_tasks[name]),
                by_draw=one.by_draw + of_tasks[name],
            )
            for name, one in found.items()
        }
        return over_tasks(moved, SOURCES)


def studies(count: int, seed: int, draw_sd: float = 0.0, second: bool = False) -> Iterator[Study]:
    """Simulated studies.

    Args:
        count: how many.
        seed: of all that is drawn.
        draw_sd: of what a draw does to all tasks alike, as a share.
        second: whether a second look is to be had.
    """
    rng = np.random.default_rng(seed)
    most = DRAWS[second]
    for _ in range(count):
        of_draws = rng.normal(0, draw_sd, most)
        first, all_draws = {}, {}
        for name, task in TASKS.items():
            values, draws, items = answers(task, of_draws, rng)
            early = draws < DRAWS[0]
            first[name] = on_task(values[early], draws[early], items[early])
            if second:
                all_draws[name] = on_task(values, draws, items)
        yield Study(first, all_draws or None)


def true_differences(spread: float, shared: float, rng: np.random.Generator) -> dict[str, float]:
    """Each task's true difference less the mean over all tasks that there might be.

    Args:
        spread: their standard deviation, as a share.
        shared: which share of their variance tasks of one source have in common.
        rng: of all that is drawn.
    """
    of_source: dict[str, float] = {}
    found = {}
    for name, source in SOURCES.items():
        common = of_source.setdefault(source or name, rng.normal(0, spread * shared**0.5))
        found[name] = common + rng.normal(0, spread * (1 - shared) ** 0.5)
    return found


def rates(made: Sequence[Study], spread: float, shared: float, seed: int) -> dict[str, float]:
    """What share of studies is covered, shown or equivalent, in percent, and how wide intervals are, in points.

    At the first look alone, by 95 % intervals and tests at 5 %; and by the rule of two looks, at its own level. As
    what is added to all tasks alike moves an estimate and nothing else, one set of estimates serves for all truths.
    """
    rng = np.random.default_rng(seed)
    looks = []
    for study in made:
        truth = true_differences(spread, shared, rng)
        looks.append((study.look(truth), study.look(truth, second=True) if study.second else None))

    def share(values: list[bool]) -> float:
        return round(100 * float(np.mean(values)), 2)

    def at(mean: float) -> list[Mean]:
        """What the first look finds where the true mean is this one."""
        return [replace(early, mean=early.mean + mean) for early, _ in looks]

    def in_the_end(mean: float, level: float = LEVEL) -> list[Mean]:
        """What the look that is the last finds."""
        return [
            replace(late, mean=late.mean + mean) if late and needs_more_draws(early, level) else early
            for early, (_, late) in zip(at(mean), looks, strict=True)
        ]

    def covered(means: list[Mean], mean: float, level: float) -> float:
        return share([low <= mean <= high for low, high in (each.interval(1 - level) for each in means)])

    def shown(means: list[Mean], level: float) -> float:
        return share([each.p_value() < level for each in means])

    def equivalent(means: list[Mean], level: float) -> float:
        return share([each.equivalence_p_value(MARGIN) < level for each in means])

    def half_width(means: list[Mean]) -> float:
        return round(100 * float(np.mean([np.ptp(each.interval(1 - NOMINAL)) / 2 for each in means])), 3)

    found = {
        "covered": covered(at(0.0), 0.0, NOMINAL),
        "shown_at_0": shown(at(0.0), NOMINAL),
        "shown_at_0.8": shown(at(0.008), NOMINAL),
        "equivalent_at_0": equivalent(at(0.0), NOMINAL),
        "equivalent_at_the_margin": equivalent(at(MARGIN), NOMINAL),
        "half_width": half_width(at(0.0)),
    }
    if all(late for _, late in looks):
        found |= {
            "second_looks_at_0": share([needs_more_draws(early) for early in at(0.0)]),
            "rule_covered_at_0": covered(in_the_end(0.0), 0.0, LEVEL),
            "rule_covered_at_0.8": covered(in_the_end(0.008), 0.008, LEVEL),
            "rule_shown_at_0": shown(in_the_end(0.0), LEVEL),
            "rule_shown_at_0.8": shown(in_the_end(0.008), LEVEL),
            "rule_equivalent_at_0": equivalent(in_the_end(0.0), LEVEL),
            "rule_equivalent_at_the_margin": equivalent(in_the_end(MARGIN), LEVEL),
            "uncorrected_rule_shown_at_0": shown(in_the_end(0.0, NOMINAL), NOMINAL),
            "half_width_of_20_draws": half_width([late for _, late in looks if late]),
        }
    return found


def task_coverage(made: Sequence[Study]) -> dict[str, float]:
    """In what share of studies a task's own interval holds its true difference, in percent."""
    return {
        name: round(100 * float(np.mean([low <= 0 <= high for low, high in (
            study.first[name].estimate.interval(1 - NOMINAL) for study in made)])), 2)
        for name in TASKS
    }  # fmt: skip


SPREADS = (0.0, 0.003, 0.005, 0.008)
"""Of sources' true differences: from none to the upper end of what is on record."""

SHARED = (1.0, 0.5, 0.0)
DRAW_SDS = (0.0, 0.004)
"""Of what a draw does to all tasks alike: nothing, and as much as it is seen to do on one."""


def _part(arguments: tuple[int, int, float, bool]) -> list[Study]:
    return list(studies(*arguments))


def simulated(count: int, processes: int = 1) -> dict[str, object]:
    """All that is said of the plan's estimators, from this many studies of each kind."""
    made: dict[float, list[Study]] = {}
    for draw_sd in DRAW_SDS:
        # Cut into parts of one size, so that the result does not depend on the number of processes.
        parts = [(len(part), int(part[0]), draw_sd, draw_sd == 0) for part in np.array_split(np.arange(count), 10)]
        with ProcessPoolExecutor(processes) as executor:
            made[draw_sd] = [study for part in executor.map(_part, parts) for study in part]
    cells = [
        {"draw_sd": draw_sd, "spread": spread, "shared": shared, **rates(made[draw_sd], spread, shared, seed)}
        for seed, (draw_sd, spread, shared) in enumerate(itertools.product(DRAW_SDS, SPREADS, SHARED))
        if spread or shared == 1  # of no spread any share is the same
    ]
    return {"studies": count, "cells": cells, "of_tasks": task_coverage(made[0.0])}


def main(
    count: Annotated[int, typer.Option(help="Simulated studies of each kind.")] = 2000,
    processes: Annotated[int, typer.Option(help="That work at once.")] = 2,
    result: Annotated[Path, typer.Option(help="File for the result.")] = RESULT,
) -> None:
    """Simulate the plan's studies and write how its intervals and tests did."""
    found = simulated(count, processes)
    write_atomically(result, (json.dumps(found, indent=1) + "\n").encode())


if __name__ == "__main__":
    typer.run(main)
