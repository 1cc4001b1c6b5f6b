"""Numbers of the chapter on what moves a run."""

import functools
import itertools
import math
from collections.abc import Callable

import numpy as np

from companion import bench, causes, noise
from companion.bench import known
from companion.causes import ADAPTERS, CHANCE, ORDER, SUBJECTS, TOGETHER, WEIGHTS, Runs
from companion.noise import LORA1
from companion.quantities import Value, quantity
from companion.records import records
from cpadapt.analysis.statistics import Crossed, Effect, Floats, crossed_effects, holm

TASKS = ("sst2", "rte")
ORDERS, SEEDS, DRAWS = "smollm2-orders", "smollm2-seeds", ("smollm2-data-seeds", "smollm2-data-seeds-again")
CAUSES = (WEIGHTS, ORDER)

runs = functools.cache(causes.of_task)
trained_twice = functools.cache(causes.trained_twice)
average = functools.cache(lambda task: causes.on_average(runs(task)))


def _sd(variance: float) -> float:
    """Zero where a variance is estimated at zero or below."""
    return math.sqrt(max(variance, 0.0))


def _as_sd(effect: Effect) -> Value:
    low, high = effect.interval
    return Value(_sd(effect.variance), math.sqrt(low), math.sqrt(high))


@functools.cache
def subjects(task: str) -> dict[str, Runs]:
    """The runs of each of `companion.causes.SUBJECTS`."""
    return causes.subjects(runs(task))


@functools.cache
def crossed(task: str, subject: str) -> Crossed:
    """Their parts, on the draw that all studies share."""
    return crossed_effects(subjects(task)[subject].by_order)


def on_any(task: str, subject: str, cause: str) -> Effect:
    """What a cause does on any items."""
    found = crossed(task, subject)
    return {WEIGHTS: found.first, ORDER: found.second, TOGETHER: found.together}[cause]


def on_these(task: str, subject: str, cause: str) -> Effect:
    """What it does on the very items that are asked."""
    return causes.as_asked(subjects(task)[subject].by_order)[CAUSES.index(cause)]


@functools.cache
def corrected(task: str, found: Callable[[str, str, str], Effect]) -> dict[tuple[str, str], float]:
    """The p values of a table, corrected over its weights and orders."""
    of_table = {(s, c): found(task, s, c).p_value for s, c in itertools.product(SUBJECTS, CAUSES)}
    return dict(zip(of_table, holm(list(of_table.values())), strict=True))


# The parts of one run's variance, as standard deviations.


@quantity("points", 2, ORDERS, each=itertools.product(TASKS, causes.PARTS))
def part(task: str, source: str) -> float:
    """What a cause gives one run with an adapter, on average over adapters; 0 where it is estimated below zero."""
    return _sd(average(task)[source])


@quantity("points", 2, ORDERS, each=TASKS)
def apart(task: str) -> float:
    """How far runs of one adapter lie from their mean on the items that are asked."""
    return math.sqrt(sum(average(task)[source] for source in (WEIGHTS, ORDER, TOGETHER, CHANCE)))


@quantity("points", 2, ORDERS, each=itertools.product(TASKS, SUBJECTS))
def chance(task: str, subject: str) -> float:
    """What is by item, and another with each run."""
    return _sd(crossed(task, subject).chance)


@quantity("points", 2, ORDERS, each=itertools.product(TASKS, SUBJECTS))
def items(task: str, subject: str) -> float:
    """What is the same for all runs because these are the items that are asked."""
    return _sd(crossed(task, subject).of_items)


# Weights and order.


@quantity("points", 2, ORDERS, each=itertools.product(TASKS, SUBJECTS, (*CAUSES, TOGETHER)))
def effect(task: str, subject: str, cause: str) -> Value:
    """What initial weights, the order or the two together do on any items."""
    return _as_sd(on_any(task, subject, cause))


@quantity(
    "", 3, ORDERS,
    each=[*itertools.product(["sst2"], ["all"], CAUSES), *itertools.product(["rte"], SUBJECTS, CAUSES)],
)  # fmt: skip
def effect_p(task: str, subject: str, cause: str) -> float:
    """P value that they do nothing, after Holm's correction over a table's weights and orders."""
    return corrected(task, on_any)[subject, cause]


@quantity("", source=ORDERS, each=TASKS)
def clear(task: str) -> int:
    """How many of these are clear."""
    return sum(p < 0.05 for p in corrected(task, on_any).values())


@quantity("points", 2, ORDERS, each=itertools.product(TASKS, SUBJECTS, CAUSES))
def asked(task: str, subject: str, cause: str) -> Value:
    """What they do on the very items that are asked."""
    return _as_sd(on_these(task, subject, cause))


@quantity("", 4, ORDERS, each=itertools.product(TASKS, SUBJECTS, CAUSES))
def asked_p(task: str, subject: str, cause: str) -> float:
    """P value that they do nothing there."""
    return on_these(task, subject, cause).p_value


@quantity("", 3, ORDERS, each=[("rte", "all", ORDER)])
def asked_holm(task: str, subject: str, cause: str) -> float:
    """The same after Holm's correction over a table's weights and orders."""
    return corrected(task, on_these)[subject, cause]


@quantity("", source=ORDERS, each=["rte"])
def clear_as_asked(task: str) -> int:
    """How many of these are clear."""
    return sum(p < 0.05 for p in corrected(task, on_these).values())


@quantity("percent", source=ORDERS, each=itertools.product(TASKS, SUBJECTS, CAUSES))
def in_chance(task: str, subject: str, cause: str) -> float:
    """The part of chance that comes again with initial weights or the order."""
    found = crossed(task, subject)
    return max((found.first_by_item if cause == WEIGHTS else found.second_by_item).variance, 0.0) / found.chance


# The same run again.


@quantity("points", 2, (ORDERS, SEEDS), each=TASKS)
def again(task: str) -> float:
    """How far a run lies from the mean of its like that were trained from the same numbers in other banks."""
    return math.sqrt(float(_half_squares(task).mean()))


@quantity("points", 2, (ORDERS, SEEDS), each=itertools.product(TASKS, ADAPTERS))
def again_sd(task: str, adapter: str) -> Value:
    """The same of one adapter, with the interval of normal differences."""
    variance, (low, high) = causes.again(trained_twice(task)[ADAPTERS[adapter]])
    return Value(math.sqrt(variance), math.sqrt(low), math.sqrt(high))


@quantity("", source=(ORDERS, SEEDS), each=itertools.product(TASKS, ADAPTERS))
def equal(task: str, adapter: str) -> Value:
    """How many of its pairs have one accuracy."""
    first, second = trained_twice(task)[ADAPTERS[adapter]]
    return Value(int((first == second).sum()), n=len(first))


@quantity("percent", source=(ORDERS, SEEDS), each=TASKS)
def rounding(task: str) -> Value:
    """The part of that in the variance between runs of one adapter, with the interval of a bootstrap over pairs."""
    mean, *ends = causes.mean_of_squares(_half_squares(task))
    low, high = (end / apart(task) ** 2 for end in ends)
    return Value(mean / apart(task) ** 2, low, high)


def _half_squares(task: str) -> Floats:
    return np.concatenate([causes.half_squares(pairs) for pairs in trained_twice(task).values()])


@quantity("", source=(ORDERS, SEEDS))
def repeats() -> int:
    """Runs of an adapter and task that were trained twice."""
    return len(causes.pairs_of("sst2", LORA1))


# What repeats, and why the rest does not.

REPEATS = {
    "gpu": f"{bench.FOLDER}/repeat-smollm2-rte-cuda-bfloat16.json",
    "cpu": f"{bench.FOLDER}/repeat-minilm-sst2-cpu-float32.json",
    "cpu_half": f"{bench.FOLDER}/repeat-minilm-sst2-cpu-bfloat16.json",
}
AGAIN = {"as_it_is": "as it is", "deterministic": "deterministic"}
SUMS = {"fused": "fused", "exact": "exact", "by_run": "by run", "one_length": "one length",
        "both": "by run, one length"}  # fmt: skip
"""How a bank is trained again, and how another bank's sums are made, as the rows of `REPEATS` call it."""

ON_A_GPU, ON_A_CPU = ("fused", "other", "exact", "by_run"), ("other", "exact", "by_run", "one_length", "both")
REPEATED = [(where, way) for where in REPEATS for way in (*AGAIN, *(ON_A_GPU if where == "gpu" else ON_A_CPU))]


def repeat_file(where: str, *_: str) -> str:
    """The source of what repeats there."""
    return bench.source(REPEATS[where])


def _repeats(where: str, way: str) -> list[bench.Row]:
    """The rows of one way, of every other bank."""
    if way in AGAIN:
        return [bench.first(REPEATS[where], "again", way=AGAIN[way])]
    return bench.measured_rows(REPEATS[where], "other banks", sums=SUMS.get(way, "as it is"))


@quantity("", source=repeat_file, each=REPEATED)
@known
def repeat_compared(where: str, way: str) -> int:
    """Runs that were trained again, or in another bank."""
    return sum(row["compared"] for row in _repeats(where, way))


@quantity("", source=repeat_file, each=REPEATED)
@known
def repeat_equal(where: str, way: str) -> int:
    """Those of them whose weights, logits and answers are equal to the bit."""
    return sum(row["equal"] for row in _repeats(where, way))


@quantity("", 7, source=repeat_file, each=REPEATED)
@known
def repeat_weights(where: str, way: str) -> float:
    """The largest difference of a trained scalar."""
    return float(max(row["weights"] for row in _repeats(where, way)))


@quantity("", 7, source=repeat_file, each=REPEATED)
@known
def repeat_logits(where: str, way: str) -> float:
    """The largest difference of a logit, in nats."""
    return float(max(row["logits"] for row in _repeats(where, way)))


@quantity("percent", 1, source=repeat_file, each=REPEATED)
@known
def repeat_answers(where: str, way: str) -> float:
    """Answers on eval that differ."""
    rows = _repeats(where, way)
    return float(sum(row["other_answers"] for row in rows) / sum(row["answers"] for row in rows))


@quantity("times", 2, source=repeat_file, each=["gpu"])
@known
def repeat_slower(where: str) -> float:
    """A deterministic step over one as it is."""
    as_it_is, slower = (bench.first(REPEATS[where], "again", way=way)["step"]["median"] for way in AGAIN.values())
    return float(slower / as_it_is)


# Draws.


@quantity("points", 2, DRAWS, each=itertools.product(TASKS, SUBJECTS))
def draw(task: str, subject: str) -> Value:
    """What a draw of the examples does on any items, besides the seed."""
    return _as_sd(crossed_effects(subjects(task)[subject].by_draw).second)


@quantity("points", 2, DRAWS, each=TASKS)
def draw_at_most(task: str) -> float:
    """The end of the interval of what it does to the adapters' mean."""
    found = draw(task, "all").high
    assert found is not None
    return found


@quantity("percent", source=DRAWS)
def draws_alike() -> float:
    """On average, the part of the training examples of one draw of RTE that another draw has too."""
    data = next(record.data for record in records(DRAWS[1]) if record.config.task == "rte")
    source = data["source"]["train"]
    return float(data["sets"]["train"]["size"] / (source["rows"] - source["left_out_repeats"]))


@quantity("points", 1, (SEEDS, *DRAWS))
def shared_below() -> float:
    """How far the adapters are on SST-2's shared draw below the mean of the others."""
    shared = np.mean([noise.over_seeds("sst2").outcomes[cell].right.mean() for cell in ADAPTERS.values()])
    return float(_by_draw().mean() - shared)


@quantity("points", 2, DRAWS)
def draws_sd() -> float:
    """How far the others are from their mean."""
    return float(_by_draw().std(ddof=1))


def _by_draw() -> Floats:
    found: Floats = subjects("sst2")["all"].by_draw.mean((0, 2))
    return found


# What is a run's own.


def own_studies(task: str, *_: str) -> str:
    """Those with many seeds."""
    return noise.study_over_seeds(task)


@quantity("percent", source=own_studies, each=(*TASKS, "boolq"))
def own(task: str) -> float:
    """The part of the variance between runs of one adapter that is not chance, on average over adapters."""
    found = causes.own(noise.over_seeds(task)).values()
    return sum(of_runs.variance for of_runs, _ in found) / sum(seen for _, seen in found)


@quantity("points", 2, own_studies, each=itertools.product((*TASKS, "boolq"), ADAPTERS))
def own_sd(task: str, adapter: str) -> Value:
    """What would be left of an adapter's standard deviation with unlimited items."""
    return _as_sd(causes.own(noise.over_seeds(task))[ADAPTERS[adapter]][0])


@quantity("percent", source=own_studies, each=itertools.product((*TASKS, "boolq"), ADAPTERS))
def own_share(task: str, adapter: str) -> float:
    """Its share of the variance between the adapter's runs; 0 where it is estimated below zero."""
    found, seen = causes.own(noise.over_seeds(task))[ADAPTERS[adapter]]
    return max(found.variance, 0.0) / seen


# How many there are.


@quantity("", source=ORDERS)
def starts() -> int:
    """Initial weights, each trained with each order."""
    return len(runs("sst2")[LORA1].by_order)


@quantity("", source=ORDERS)
def orders() -> int:
    """Orders of the examples."""
    return len(runs("sst2")[LORA1].by_order[0])


@quantity("draws", source=DRAWS)
def draws() -> int:
    """Draws besides the shared one."""
    return len(runs("sst2")[LORA1].by_draw[0])


@quantity("seeds", source=DRAWS)
def seeds_on_each_draw() -> int:
    """The same on all draws."""
    return len(runs("sst2")[LORA1].by_draw)
