"""Numbers of the chapter on seeds and items."""

import functools
import itertools
import math
import tomllib
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from companion import PROJECT, contrasts, draws, noise, rates
from companion.claims import MARGIN
from companion.draws import BEST, BOTH, EVAL, LAST
from companion.noise import CELLS, CP11, EFFECTS, FIRST_RANK_STUDIES, FIRST_RANKS, KINDS, ONE_BUDGET, PAIRS
from companion.quantities import Value, quantity
from companion.records import records
from cpadapt.analysis import statistics
from cpadapt.analysis.cells import Cells
from cpadapt.analysis.statistics import Estimate, Floats, Mean, estimate, holm
from cpadapt.records.config import HEAD
from cpadapt.records.table import tabulate
from cpadapt.study import load_study

TASKS = noise.TASKS
ON_DRAWS = ("sst2", "rte")
SEEDS, DRAWS = "smollm2-seeds", draws.STUDIES
PUBLISHED = "book/published.toml"

ADAPTERS = [name for name in CELLS if name != "head"]


def over_seeds_study(task: str, *_: str) -> str:
    """The source of what is over seeds."""
    return noise.study_over_seeds(task)


# Under the paper's protocol, three seeds a cell.


@functools.cache
def sources(task: str) -> dict[str, Estimate]:
    """The sources of each kind, with variances pooled over cells."""
    return noise.sources(noise.at_papers_rates(task))


@quantity("points", 2, "smollm2", each=itertools.product(TASKS, KINDS, noise.PARTS))
def part(task: str, kind: str, source: str) -> float:
    """The part of seeds, items or the rest in the error of one run's accuracy or difference, and that of so many."""
    e = sources(task)[KINDS[kind]]
    variances = {"seeds": e.seed_variance, "items": e.item_variance / e.items, "rest": e.rest_variance / e.items}
    counts = {"seeds_1": 1, "seeds_3": 3, "seeds_10": noise.TEN, "no_end": math.inf}
    return math.sqrt(variances[source]) if source in variances else e.error_with(counts[source], e.items)


@quantity("seeds", source="smollm2", each=itertools.product(TASKS, ("budget", "size"), EFFECTS))
def seeds_needed(task: str, kind: str, effect: str) -> float | str:
    """Seeds that show such a true difference four times in five, on the items that there are."""
    return _needed(sources(task)[KINDS[kind]], effect)


@quantity("items", source="smollm2", each=itertools.product(TASKS, ("budget", "size"), EFFECTS))
def items_needed(task: str, kind: str, effect: str) -> float | str:
    """Items that do so with ten seeds."""
    e = sources(task)[KINDS[kind]]
    found = statistics.items_needed(e, EFFECTS[effect], noise.TEN, noise.ENOUGH, noise.MOST_ITEMS)
    return "never" if found is None else found


@quantity("items", source="smollm2", each=("sst2", "rte"))
def items(task: str) -> int:
    """Items that the protocol asks."""
    return sources(task)[ONE_BUDGET].items


@quantity("points", 2, "smollm2", each=TASKS)
def error(task: str) -> Value:
    """The standard error of LoRA minus CP at one budget."""
    e = sources(task)[ONE_BUDGET]
    return Value(e.standard_error, n=e.seeds)


@quantity("points", 2, "smollm2", each=TASKS)
def error_unpaired(task: str) -> float:
    """The same if each family had other items and other seeds."""
    return noise.unpaired(noise.at_papers_rates(task))


@quantity("seeds")
def most_seeds() -> int:
    """Beyond which no number is looked for."""
    return noise.MOST_SEEDS


@quantity("items")
def most_items() -> int:
    """Likewise."""
    return noise.MOST_ITEMS


@quantity("seeds")
def affordable_seeds() -> int:
    """Seeds with which items are looked for."""
    return noise.TEN


@quantity("percent", source="smollm2", each=TASKS)
def apart(task: str) -> float:
    """Items on which two seeds of one cell differ."""
    return noise.disagreement(noise.at_papers_rates(task))


# The cells with many runs.


@quantity("components")
def most_components() -> int:
    """Components of the largest CP among them."""
    return noise.CP44[1]


@quantity("points", 2, over_seeds_study, each=itertools.product(TASKS, PAIRS))
def over_seeds(task: str, pair: str) -> Estimate:
    """A difference between two cells, over seeds."""
    return noise.minus(noise.over_seeds(task), pair)


@quantity("points", 2, DRAWS, each=itertools.product(ON_DRAWS, PAIRS))
def over_draws(task: str, pair: str) -> Estimate:
    """The same over draws of the examples, two seeds on each."""
    return noise.minus(noise.two_on_each_draw(task), pair)


@quantity("points", 2, over_seeds_study, level=0.9, each=["rte"])
def lead_judged_over_seeds(task: str) -> Estimate:
    """LoRA's lead with the interval by which a claim is judged."""
    return over_seeds(task, "lora1_cp11")


@quantity("points", 2, DRAWS, level=0.9, each=["rte"])
def lead_judged_over_draws(task: str) -> Estimate:
    """The same over draws."""
    return over_draws(task, "lora1_cp11")


@quantity("", 3, over_seeds_study, each=itertools.product(TASKS, PAIRS))
def alike_over_seeds(task: str, pair: str) -> float:
    """The p value of a difference of a point or more."""
    return over_seeds(task, pair).equivalence_p_value(MARGIN)


@quantity("", 3, DRAWS, each=itertools.product(ON_DRAWS, PAIRS))
def alike_over_draws(task: str, pair: str) -> float:
    """The same over draws."""
    return over_draws(task, pair).equivalence_p_value(MARGIN)


@quantity("", 3, SEEDS)
def gain_p() -> float:
    """P value that CP gains nothing from components on RTE, after Holm's correction over all six differences."""
    p_values = {pair: over_seeds("rte", pair).p_value() for pair in PAIRS}
    return dict(zip(p_values, holm(list(p_values.values())), strict=True))["cp44_cp1"]


@quantity("percent", source=over_seeds_study, each=itertools.product(TASKS, PAIRS))
def wrong_sign(task: str, pair: str) -> float:
    """How often three of the seeds give a difference another sign than all of them."""
    a, b = PAIRS[pair]
    outcomes = noise.over_seeds(task).outcomes
    return noise.wrong_sign(outcomes[a], outcomes[b], 3)


@quantity("points", 2, (SEEDS, *DRAWS), each=[pair for pair in PAIRS if "head" not in pair])
def on_the_shared_draw(pair: str) -> Value:
    """A difference on SST-2 on the shared draw minus the same over other draws, as if they had no items in common."""
    on, off = over_seeds("sst2", pair), over_draws("sst2", pair)
    reach = float(stats.norm.ppf(0.975)) * math.hypot(on.standard_error, off.standard_error)
    return Value(on.mean - off.mean, on.mean - off.mean - reach, on.mean - off.mean + reach)


# How high their runs are, and how far they spread.


@quantity("percent", 1, over_seeds_study, each=itertools.product(TASKS, CELLS))
def mean_over_seeds(task: str, cell: str) -> float:
    """A cell's accuracy over seeds."""
    return float(noise.over_seeds(task).outcomes[CELLS[cell]].right.mean())


@quantity("percent", 1, "smollm2-data-seeds", each=itertools.product(ON_DRAWS, CELLS))
def mean_over_draws(task: str, cell: str) -> float:
    """The same over draws."""
    return float(noise.over_draws(task).outcomes[CELLS[cell]].right.mean())


@quantity("points", 2, over_seeds_study, each=itertools.product(TASKS, CELLS))
def sd_over_seeds(task: str, cell: str) -> Value:
    """How far runs spread over seeds."""
    return _spread(noise.over_seeds(task).outcomes[CELLS[cell]].right)


@quantity("points", 2, "smollm2-data-seeds", each=itertools.product(ON_DRAWS, CELLS))
def sd_over_draws(task: str, cell: str) -> Value:
    """How far runs spread over draws."""
    return _spread(noise.over_draws(task).outcomes[CELLS[cell]].right)


@quantity("percent", 1, SEEDS)
def shared_draw() -> float:
    """The mean of the adapters on SST-2 on the shared draw, over seeds."""
    return float(np.mean(_heights(noise.over_seeds("sst2"))))


@quantity("percent", 1, DRAWS, each=("least", "mean"))
def other_draws(which: str) -> float:
    """The worst and the mean draw of the others."""
    heights = _heights(noise.two_on_each_draw("sst2"))
    return min(heights) if which == "least" else float(np.mean(heights))


@quantity("draws", source=(SEEDS, *DRAWS))
def draws_known() -> int:
    """Draws of SST-2, the shared one among them."""
    return len(noise.over_draws("sst2").outcomes[CP11].seeds) + 1


@quantity("steps", source=SEEDS)
def steps() -> int:
    """Steps of each of the many runs."""
    return load_study(PROJECT / "studies" / f"{SEEDS}.toml").protocol.steps


@quantity("points", 2, (SEEDS, "smollm2-rates"), each=TASKS)
def dev_left(task: str) -> float:
    """The height on dev of longer runs at these rates, in the mean of all adapters, minus that by as many steps."""
    at = {run.config.learning_rate for run in records(SEEDS)}
    evaluations = tabulate(records("smollm2-rates"))[1]
    here = evaluations["learning_rate"].isin(at - {None})
    on_dev = evaluations[here & (evaluations["task"] == task)].groupby("step")["dev_accuracy"].mean()
    return float(on_dev.max() - on_dev[on_dev.index <= steps()].max())


# Above the head alone.


@quantity("points", 1, over_seeds_study, level=0.9, each=("rte", "boolq"))
def over_floor(task: str) -> Estimate:
    """The adapters at LoRA's first budget minus the head alone, or the commonest answer where that is better."""
    cells = noise.over_seeds(task)
    return estimate(rates.adapters(cells) - (cells.majority if task == "boolq" else cells.outcomes[HEAD, 0].right))


@quantity("percent", 1, over_seeds_study, each=["boolq"])
def majority(task: str) -> float:
    """What the commonest answer gets right."""
    return noise.over_seeds(task).majority


@quantity("points", 1, over_seeds_study("boolq"))
def balanced_over_head() -> Estimate:
    """The adapters at LoRA's first budget minus the head alone on BoolQ, in balanced accuracy."""
    cells = noise.over_seeds("boolq")
    return _balanced(rates.adapters(cells) - cells.outcomes[HEAD, 0].right)


@quantity("points", 1, over_seeds_study("boolq"))
def balanced_gain() -> Estimate:
    """CP's largest minus its smallest on BoolQ, likewise."""
    a, b = PAIRS["cp44_cp1"]
    outcomes = noise.over_seeds("boolq").outcomes
    return _balanced(outcomes[a].right - outcomes[b].right)


# On dev, which has other items for each draw.


@quantity("points", 2, DRAWS, each=itertools.product(ON_DRAWS, PAIRS))
def on_dev(task: str, pair: str) -> Value:
    """A difference on dev over draws, after the last step."""
    return _on_dev(task, pair, LAST)


@quantity("points", 2, DRAWS, each=itertools.product(ON_DRAWS, PAIRS))
def on_dev_at_best(task: str, pair: str) -> Value:
    """The same after the best step, which dev chose."""
    return _on_dev(task, pair, BEST)


@quantity("points", 2, DRAWS, each=itertools.product(ON_DRAWS, PAIRS))
def on_dev_and_eval(task: str, pair: str) -> Value:
    """The mean of dev's and eval's after the best step, weighted by the inverse variances."""
    return _on_dev(task, pair, BOTH)


@quantity("", 3, DRAWS, each=itertools.product(ON_DRAWS, PAIRS))
def on_dev_p(task: str, pair: str) -> float:
    """P value of no difference on dev, after Holm's correction over the task's six."""
    p_values = {name: _differences(task, name)[LAST].p_value() for name in PAIRS}
    return dict(zip(p_values, holm(list(p_values.values())), strict=True))[pair]


@quantity("", 3, DRAWS)
def on_dev_and_on_eval_p() -> float:
    """P value that LoRA's first rank minus CP at four times its budget is the same on SST-2's dev and eval."""
    return draws.difference(draws.drawn("sst2"), *PAIRS["lora1_cp44"], {LAST: 1.0, EVAL: -1.0}).p_value()


@quantity("words", source=PUBLISHED, each=("dev", "eval"))
def words(asked: str) -> int:
    """Words in the median row of SST-2."""
    return int(_published()["sst2_rows"][f"{asked}_words"])


@quantity("percent", source=PUBLISHED)
def dev_nested() -> float:
    """Dev's rows of SST-2 that are part of a training row, or around one of three words or more."""
    return float(_published()["sst2_rows"]["dev_nested"])


@quantity("percent", 1, PUBLISHED)
def eval_nested() -> float:
    """The same of the validation split."""
    return float(_published()["sst2_rows"]["eval_nested"])


# Over tasks and backbones.


@functools.cache
def _first_ranks() -> dict[tuple[str, str], contrasts.Contrast]:
    """The first ranks by backbone and task, of those that adapters learn."""
    return contrasts.first_rank(FIRST_RANK_STUDIES)


def _first_rank_source(backbone: str, task: str) -> str:
    return "minilm" if backbone == "minilm" else noise.study_over_seeds(task)


@quantity(source=_first_rank_source, each=FIRST_RANKS)
def first_rank_pair(backbone: str, task: str) -> str:
    """LoRA's first rank and CP at its budget or just under it, where adapters learn."""
    found = _first_ranks().get((backbone, task))
    return found.what if found else noise.NOT_LEARNED


@quantity("points", 2, _first_rank_source, each=FIRST_RANKS)
def first_rank_lead(backbone: str, task: str) -> Estimate | str:
    """The first minus the second."""
    found = _first_ranks().get((backbone, task))
    return found.estimate if found else noise.NOT_LEARNED


@quantity("", 3, _first_rank_source, each=FIRST_RANKS)
def first_rank_holm(backbone: str, task: str) -> float | str:
    """P value that this is none, after Holm's correction over a backbone's tasks."""
    here = {place: found.estimate.p_value() for place, found in _first_ranks().items() if place[0] == backbone}
    corrected = dict(zip(here, holm(list(here.values())), strict=True))
    return corrected.get((backbone, task), noise.NOT_LEARNED)


@quantity("", 3, _first_rank_source, each=FIRST_RANKS)
def first_rank_alike(backbone: str, task: str) -> float | str:
    """P value that it is a point or more."""
    found = _first_ranks().get((backbone, task))
    return found.estimate.equivalence_p_value(MARGIN) if found else noise.NOT_LEARNED


@quantity("points", 2, FIRST_RANK_STUDIES)
def first_rank() -> Value:
    """LoRA's lead at its first rank, in the mean over tasks and backbones on which adapters learn."""
    return _pooled(list(_first_ranks().values()))


@quantity("points", 1, FIRST_RANK_STUDIES)
def first_rank_spread() -> float:
    """The standard deviation of true leads about that."""
    return contrasts.pooled(list(_first_ranks().values())).spread


@quantity("points", 2, "minilm")
def further_ranks() -> Value:
    """The same above that rank, on MiniLM."""
    return _pooled(contrasts.further_ranks("minilm"))


def _needed(e: Estimate, effect: str) -> float | str:
    found = statistics.seeds_needed(e, EFFECTS[effect], noise.ENOUGH, noise.MOST_SEEDS)
    return "never" if found is None else found


def _spread(right: Floats) -> Value:
    return Value(*noise.spread(right.mean(1).tolist()), n=len(right))


def _heights(cells: Cells) -> list[float]:
    """`[runs]`, the mean of the adapters."""
    found: list[float] = np.mean([cells.outcomes[CELLS[cell]].right.mean(1) for cell in ADAPTERS], axis=0).tolist()
    return found


def _balanced(values: Floats) -> Estimate:
    return estimate(values * noise.over_seeds("boolq").class_weights((HEAD, 0)))


@functools.cache
def _differences(task: str, pair: str) -> dict[str, Mean]:
    return draws.differences(draws.drawn(task), *PAIRS[pair])


def _on_dev(task: str, pair: str, asked: str) -> Value:
    found = _differences(task, pair)[asked]
    return Value(found.mean, *found.interval(), n=len(draws.drawn(task).outcomes[CP11].seeds))


def _pooled(found: Sequence[contrasts.Contrast]) -> Value:
    pooled = contrasts.pooled(found)
    return Value(pooled.mean, *pooled.interval, n=len(found))


@functools.cache
def _published() -> dict[str, Any]:
    return tomllib.loads((PROJECT / PUBLISHED).read_text(encoding="utf-8"))
