"""What moves one run's accuracy: its initial weights, the order of its examples, their draw, rounding, and the items.

Crossing the causes separates them: each of several initial weights is trained with each of several orders, and each of
several draws of the examples with each of two seeds (`cpadapt.analysis.statistics.crossed_effects`). Computations come
first, in squared shares, and then their wording, in points.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from companion import quantities
from companion.contrasts import on_record
from companion.noise import CP1, CP11, CP44, LORA1
from cpadapt.analysis.cells import Cells
from cpadapt.analysis.charts import cell_name, pair_name, task_name
from cpadapt.analysis.statistics import Crossed, Effect, Floats, answers, crossed_effects, seed_effect
from cpadapt.errors import InputError
from cpadapt.records.config import HEAD, Cell, RunConfig
from cpadapt.records.record import Record

WEIGHTS, ORDER, TOGETHER, CHANCE, ITEMS = PARTS = "weights", "order", "together", "chance", "items"
"""The parts of a run's variance on one draw of the examples, which add up (`variances`)."""

ADAPTERS = {"cp1": CP1, "cp11": CP11, "cp44": CP44, "lora1": LORA1}
DIFFERENCES = {"lora1_cp11": (LORA1, CP11), "cp44_cp1": (CP44, CP1)}
"""The difference between the families at one budget, and the gain from components."""
ALL = "all"
"""The mean of all adapters."""
SUBJECTS = (*ADAPTERS, ALL, *DIFFERENCES)
"""The names of what is analysed, as quantities use them (`subjects`)."""


@dataclass(frozen=True)
class Runs:
    """The answers of one cell's runs, 1 if right and 0 if wrong, by what the runs differ in.

    Means and differences over several cells have the same form.
    """

    by_order: Floats
    """`[initial weights, orders, items]`, on one draw of the examples."""
    by_draw: Floats
    """`[seeds, draws, items]`; a seed decides the initial weights and the order of the drawn examples."""

    def __sub__(self, other: "Runs") -> "Runs":
        return Runs(self.by_order - other.by_order, self.by_draw - other.by_draw)


def of_task(task: str) -> dict[Cell, Runs]:
    """The runs of each adapter of a task in the project's own results.

    Raises:
        InputError: as `crossed`.
    """
    orders = _by_cell(["smollm2-orders"], task)
    draws = _by_cell(["smollm2-data-seeds", "smollm2-data-seeds-again"], task)
    return {
        cell: Runs(
            by_order=crossed(orders[cell], lambda c: (c.seed, c.order)),
            by_draw=crossed(draws[cell], lambda c: (c.seed, c.data_seed)),
        )
        for cell in sorted(orders)
    }


def trained_twice(task: str) -> dict[Cell, Floats]:
    """`[2, runs]`, the accuracies of each adapter's runs that two studies share (`repeated`).

    Raises:
        InputError: as `repeated`.
    """
    orders, seeds = _by_cell(["smollm2-orders"], task), _by_cell(["smollm2-seeds"], task)
    return {cell: accuracies(repeated(orders[cell], seeds[cell])) for cell in sorted(orders)}


def pairs_of(task: str, cell: Cell) -> list[tuple[Record, Record]]:
    """The records of one adapter that `trained_twice` compares.

    Raises:
        InputError: as `repeated`.
    """
    orders, seeds = (_by_cell([study], task)[cell] for study in ("smollm2-orders", "smollm2-seeds"))
    return repeated(orders, seeds)


def _by_cell(studies: Sequence[str], task: str) -> dict[Cell, list[Record]]:
    found: dict[Cell, list[Record]] = {}
    for record in on_record(studies):
        if record.config.task == task and record.label != HEAD:
            found.setdefault((record.label, record.config.size), []).append(record)
    return found


def crossed(records: Iterable[Record], place: Callable[[RunConfig], tuple[int, int]]) -> Floats:
    """The answers of one cell's runs, as a table of two crossed causes.

    Args:
        records: one run for each pair of levels.
        place: gives the levels of a run's two causes, such as its seed and its order.

    Returns:
        `[first, second, items]`, ascending along each axis; 1 for a right answer and 0 for a wrong one.

    Raises:
        InputError: as `cpadapt.analysis.statistics.answers`, or a pair has no run or two.
    """
    found: dict[tuple[int, int], Record] = {}
    for record in records:
        at = place(record.config)
        if at in found:
            raise InputError(f"two runs are at {at}: give one for each pair")
        found[at] = record
    if not found:
        raise InputError("no runs were given")
    firsts, seconds = (sorted(set(side)) for side in zip(*found, strict=True))
    if missing := [(first, second) for first in firsts for second in seconds if (first, second) not in found]:
        raise InputError(f"no run is at {missing[0]}: the causes must be fully crossed")
    _, right = answers([found[first, second] for first in firsts for second in seconds])
    return right.reshape(len(firsts), len(seconds), -1)


def repeated(records: Iterable[Record], others: Iterable[Record]) -> list[tuple[Record, Record]]:
    """The runs of one cell that two studies share, as pairs, by ascending seed.

    These are runs whose order seed equals their seed: one study gives the order seed, and the other leaves it out.

    Raises:
        InputError: the others lack such a run, or there is none.
    """
    first = {r.config.seed: r for r in records if r.config.order_seed == r.config.seed}
    second = {r.config.seed: r for r in others if r.config.order_seed is None}
    if missing := sorted(first.keys() - second.keys()):
        raise InputError(f"no run with seed {missing[0]} and its own order is among the others")
    if not first:
        raise InputError("no run has the order of its own seed")
    return [(first[seed], second[seed]) for seed in sorted(first)]


def accuracies(pairs: Iterable[tuple[Record, Record]]) -> Floats:
    """`[2, runs]`, the accuracies of runs that were trained twice.

    Raises:
        InputError: as `cpadapt.analysis.statistics.answers`.
    """
    return np.array([answers(runs)[1].mean(1) for runs in zip(*pairs, strict=True)])


def subjects(runs: Mapping[Cell, Runs]) -> dict[str, Runs]:
    """The runs of each adapter, the mean of all, and two differences, by the names in `SUBJECTS`."""
    tables = zip(*((found.by_order, found.by_draw) for found in runs.values()), strict=True)
    mean = Runs(*(np.mean(table, axis=0) for table in tables))
    each = {name: runs[cell] for name, cell in ADAPTERS.items()}
    return each | {ALL: mean} | {name: runs[a] - runs[b] for name, (a, b) in DIFFERENCES.items()}


def subject_names() -> dict[str, str]:
    """The printed name of each of `SUBJECTS`."""
    each = {name: cell_name(*cell) for name, cell in ADAPTERS.items()}
    return each | {ALL: "mean of these"} | {name: pair_name(*pair) for name, pair in DIFFERENCES.items()}


def variances(found: Crossed) -> dict[str, float]:
    """The parts of one run's variance, in squared shares, by the names in `PARTS`. Estimates may be negative.

    The parts of the initial weights, the order and the two together are those over infinitely many items. Each pair of
    weights and order is one run, so *together* includes what a repetition would change. *chance* is the variance that
    a run has because items are few: by luck it gets right what another run gets wrong. *items* is the variance that
    all runs share because these items are asked and not others.
    """
    return {
        WEIGHTS: found.first.variance,
        ORDER: found.second.variance,
        TOGETHER: found.together.variance,
        CHANCE: found.chance,
        ITEMS: found.of_items,
    }


def on_average(runs: Mapping[Cell, Runs]) -> dict[str, float]:
    """`variances` of an adapter, averaged over all adapters."""
    each = [variances(crossed_effects(of_cell.by_order)) for of_cell in runs.values()]
    return {part: float(np.mean([one[part] for one in each])) for part in PARTS}


def parts(tasks: Iterable[str]) -> pd.DataFrame:
    """How far each cause moves one run, on average over adapters, for a chart.

    Returns:
        One row for each cause and task, with the columns `part`, `task` and `sd`; 0 where a variance is estimated at
        0 or below.
    """
    named = {
        f"causes.part.{{}}.{CHANCE}": "luck on items",
        f"causes.part.{{}}.{WEIGHTS}": "initial weights",
        f"causes.part.{{}}.{ORDER}": "order",
        f"causes.part.{{}}.{TOGETHER}": "weights with order",
        "causes.again.{}": "another bank",
        f"causes.part.{{}}.{ITEMS}": "items asked",
    }
    return pd.DataFrame(
        [
            {"part": said, "task": task, "sd": float(quantities.value(name.format(task)).value) / 100}
            for name, said in named.items()
            for task in tasks
        ]
    )


def as_asked(by_order: Floats) -> tuple[Effect, Effect]:
    """The effects of initial weights and order on a run's accuracy on these items, instead of infinitely many.

    They come from the two-way analysis of variance of the runs' means, whose residual is the interaction of the two
    causes, rounding included.

    Args:
        by_order: `[initial weights, orders, items]`.

    Raises:
        InputError: as `cpadapt.analysis.statistics.seed_effect`.
    """
    runs = by_order.mean(2)
    return seed_effect(runs), seed_effect(runs.T)


def asked_table(task: str) -> pd.DataFrame:
    """`as_asked` of `subjects` as a table, in points with p values, and each cause's part in chance, in percent."""
    rows = []
    for subject, name in subject_names().items():
        row = {"cell or pair": name}
        for cause in (WEIGHTS, ORDER):
            row[f"{cause} (95 %)"] = _with_ends(f"causes.asked.{task}.{subject}.{cause}")
            row[f"p, {cause}"] = _p(f"causes.asked_p.{task}.{subject}.{cause}")
        for cause in (WEIGHTS, ORDER):
            row[f"{cause} in chance, %"] = quantities.value(f"causes.in_chance.{task}.{subject}.{cause}").text()
        rows.append(row)
    return pd.DataFrame(rows)


def part_table(task: str) -> pd.DataFrame:
    """The standard deviation of one run of `subjects` by part, as a table in points.

    Estimates of 0 or below are dashes.
    """
    return pd.DataFrame(
        [
            {"cell or pair": name}
            | {f"{cause} (95 %)": _with_ends(f"causes.effect.{task}.{subject}.{cause}")
               for cause in (WEIGHTS, ORDER, TOGETHER)}
            | {CHANCE: _sd(f"causes.chance.{task}.{subject}"), ITEMS: _sd(f"causes.items.{task}.{subject}")}
            for subject, name in subject_names().items()
        ]
    )  # fmt: skip


def draw_table(tasks: Iterable[str]) -> pd.DataFrame:
    """The standard deviation of one run of `subjects` that is due to its draw and not its seed, as a table in
    points."""
    columns = {f"{task_name(task)} (95 %)": f"causes.draw.{task}.{{}}" for task in tasks}
    return pd.DataFrame(
        [
            {"cell or pair": name} | {title: _with_ends(column.format(subject)) for title, column in columns.items()}
            for subject, name in subject_names().items()
        ]
    )


def own(cells: Cells) -> dict[Cell, tuple[Effect, float]]:
    """The effect of seeds on each adapter's runs over infinitely many items, and their variance on these items."""
    return {
        cell: (seed_effect(outcomes.right), float(outcomes.right.mean(1).var(ddof=1)))
        for cell, outcomes in sorted(cells.outcomes.items())
        if cell[0] != HEAD
    }


def own_table(tasks: Iterable[str]) -> pd.DataFrame:
    """`own` by adapter and task, as a table: a standard deviation in points, and the share in percent."""
    table: dict[str, list[str]] = {"adapter": [cell_name(*cell) for cell in ADAPTERS.values()]}
    for task in tasks:
        table[f"{task_name(task)} (95 %)"] = [_with_ends(f"causes.own_sd.{task}.{name}") for name in ADAPTERS]
        table[f"{task_name(task)}: share, %"] = [_sd(f"causes.own_share.{task}.{name}") for name in ADAPTERS]
    return pd.DataFrame(table)


def half_squares(twice: Floats) -> Floats:
    """`[runs]`, half the squared difference of each run that was trained twice, an estimate of its variance.

    Args:
        twice: `[2, runs]`, accuracies.
    """
    halves: Floats = (twice[0] - twice[1]) ** 2 / 2
    return halves


def mean_of_squares(squares: Floats) -> tuple[float, float, float]:
    """The mean of `half_squares`, and its 95 % interval by a bootstrap with fixed draws."""
    low, high = stats.bootstrap(
        (squares,), np.mean, rng=np.random.default_rng(0), method="percentile"
    ).confidence_interval
    return float(squares.mean()), float(low), float(high)


def again(twice: Floats) -> tuple[float, tuple[float, float]]:
    """The variance of a run around the mean of its repetitions, from pairs, and its 95 % interval.

    The interval assumes normal differences. These are not normal, because some pairs are equal.

    Args:
        twice: `[2, runs]`, accuracies.
    """
    squares = half_squares(twice)
    low, high = (float(squares.sum() / stats.chi2.ppf(share, squares.size)) for share in (0.975, 0.025))
    return float(squares.mean()), (low, high)


def again_table(tasks: Iterable[str]) -> pd.DataFrame:
    """The standard deviation of `again` by adapter and task, as a table in points, and the number of equal pairs."""
    table: dict[str, list[str]] = {"adapter": [cell_name(*cell) for cell in ADAPTERS.values()]}
    for task in tasks:
        equal = [quantities.value(f"causes.equal.{task}.{name}") for name in ADAPTERS]
        table[f"{task_name(task)} (95 %)"] = [_with_ends(f"causes.again_sd.{task}.{name}") for name in ADAPTERS]
        table[f"{task_name(task)}: equal"] = [f"{found.text()} of {found.text('n')}" for found in equal]
    return pd.DataFrame(table)


def repeat_table() -> pd.DataFrame:
    """What repeats, and what does not: a bank again, and two of its runs in other banks than alone."""
    places = {"gpu": "GPU, bfloat16", "cpu": "CPU, float32", "cpu_half": "CPU, bfloat16"}
    ways = {
        "as_it_is": "again", "deterministic": "again, deterministic", "fused": "other bank, fused",
        "other": "other bank", "exact": "… products in float64", "by_run": "… products run by run",
        "one_length": "… one length of texts", "both": "… the last two",
    }  # fmt: skip
    columns = {
        "runs": "causes.repeat_compared.{}.{}", "equal": "causes.repeat_equal.{}.{}",
        "weights": "causes.repeat_weights.{}.{}", "logits": "causes.repeat_logits.{}.{}",
        "answers, %": "causes.repeat_answers.{}.{}",
    }  # fmt: skip
    registered = quantities.of_chapter("causes")
    rows = {
        f"{where}.{way}": (place, said)
        for where, place in places.items()
        for way, said in ways.items()
        if f"causes.repeat_equal.{where}.{way}" in registered
    }
    small = dict.fromkeys(("weights", "logits"), lambda value: f"{value:.0e}" if value else "0")
    return quantities.table(rows, columns, ("where", "trained"), small)


def _p(name: str) -> str:
    found = quantities.value(name)
    return found.text() if float(found.value) >= 0.0001 else "< 0.0001"


def _sd(name: str) -> str:
    found = quantities.value(name)
    return found.text() if float(found.value) > 0 else "–"


def _with_ends(name: str) -> str:
    return f"{_sd(name)} ({quantities.value(name).text('interval').replace(' to ', '–')})"
