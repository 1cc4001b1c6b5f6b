"""The main study's primary question: by hand, from the records' own lines."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pytest
from by_hand import answers, read
from scipy import optimize, stats

from companion import main_study, planned, quantities
from cpadapt.analysis.across_tasks import difference
from cpadapt.inputs.tasks.specs import TASKS
from cpadapt.records.config import Cell

WEIGHTS = {("lora", 1): 0.5, ("cp", 17): -0.5, ("lora", 4): 0.5, ("cp", 71): -0.5}
LEVEL = 0.0294


def by_draw(weights: Callable[[str], Mapping[Cell, float]]) -> dict[str, dict[int, float]]:
    """A weighted sum of the share right over eval and rest rows, by task and draw."""
    found: dict[str, dict[int, float]] = {}
    for line in read("size-tasks"):
        config = line["config"]
        if weight := weights(config["task"]).get((line["label"], config["size"])):
            right = [*answers(line["outcome"]), *answers(line["rest"])] if line["rest"] else answers(line["outcome"])
            draws = found.setdefault(config["task"], {})
            draws[config["data_seed"]] = draws.get(config["data_seed"], 0.0) + weight * float(np.mean(right))
    return {task: dict(sorted(draws.items())) for task, draws in found.items()}


class OverSources(NamedTuple):
    mean: float
    error: float
    degrees: int
    spread: float


def over_sources(found: Mapping[str, Mapping[int, float]], errors: Mapping[str, float]) -> OverSources:
    """Paule and Mandel's mean over sources of tasks, with Knapp and Hartung's error and that of shared draws."""
    sources: dict[str, list[str]] = {}
    for task in found:
        sources.setdefault(TASKS[task].source_group or task, []).append(task)
    each = np.array([np.mean([list(found[task].values()) for task in tasks], axis=0) for tasks in sources.values()])
    means = each.mean(1)
    variances = np.array([sum(errors[task] ** 2 for task in tasks) / len(tasks) ** 2 for tasks in sources.values()])

    def left(spread: float) -> float:
        weights = 1 / (variances + spread)
        mean = weights @ means / weights.sum()
        return float(weights @ (means - mean) ** 2 - (len(means) - 1))

    spread = optimize.brentq(left, 0, 1) if left(0) > 0 else 0.0
    weights = 1 / (variances + spread)
    mean = weights @ means / weights.sum()
    variance = weights @ (means - mean) ** 2 / (len(means) - 1) / weights.sum()
    together = np.cov(each)
    shared = (together.sum() - np.trace(together)) / (len(means) * (len(means) - 1))
    return OverSources(mean, np.sqrt(variance + max(shared, 0) / 10), len(means) - 1, np.sqrt(spread))


def test_the_primary_number() -> None:
    found = by_draw(lambda _: WEIGHTS)
    assert set(found) == set(main_study.runs())
    assert {len(draws) for draws in found.values()} == {10}
    for task, draws in found.items():
        on_task = quantities.value(f"main_study.on_task.{task}")
        assert on_task.value == pytest.approx(100 * np.mean(list(draws.values())))
    by_hand = over_sources(found, {task: main_study.on_task(task).estimate.standard_error for task in found})
    assert by_hand.degrees + 1 == quantities.value("main_study.sources").value == 12
    reach = stats.t.ppf(1 - LEVEL / 2, by_hand.degrees) * by_hand.error
    primary = quantities.value("main_study.primary")
    assert (primary.value, primary.low, primary.high) == pytest.approx(
        (100 * by_hand.mean, 100 * (by_hand.mean - reach), 100 * (by_hand.mean + reach)), rel=1e-3
    )
    assert quantities.value("main_study.spread").value == pytest.approx(100 * by_hand.spread, rel=1e-3)
    one_sided = stats.t.sf((0.005 - abs(by_hand.mean)) / by_hand.error, by_hand.degrees)
    two_sided = 2 * stats.t.sf(abs(by_hand.mean) / by_hand.error, by_hand.degrees)
    assert (quantities.value("main_study.verdict").value == "equivalent") == (one_sided < LEVEL < two_sided)


def test_one_components_share_of_the_best_adapters_gain() -> None:
    """A ratio of two means, and the shares at which the remainder's interval has an end at zero (Fieller)."""
    on_dev: dict[str, dict[Cell, list[float]]] = {}
    for line in read("size-tasks"):
        if line["label"] != "head":
            cell = line["label"], line["config"]["size"]
            best = max(found["dev_correct"] / found["dev_total"] for found in line["evaluations"])
            on_dev.setdefault(line["config"]["task"], {}).setdefault(cell, []).append(best)
    best = {task: max(cells, key=lambda cell: np.mean(cells[cell])) for task, cells in on_dev.items()}
    assert best == {task: planned.best(task) for task in best}

    def mean(weights: Callable[[str], dict[Cell, float]]) -> OverSources:
        runs = main_study.runs()
        errors = {
            task: difference([(w, runs[task][cell]) for cell, w in weights(task).items()]).estimate.standard_error
            for task in runs
        }
        return over_sources(by_draw(weights), errors)

    def remainder(share: float) -> Callable[[str], dict[Cell, float]]:
        return lambda task: {("cp", 1): 1.0, ("head", 0): share - 1, best[task]: -share}

    gained = mean(lambda _: {("cp", 1): 1.0, ("head", 0): -1.0})
    most = mean(lambda task: {best[task]: 1.0, ("head", 0): -1.0})
    share = quantities.value("planned.share")
    assert share.value == pytest.approx(100 * gained.mean / most.mean, rel=1e-3)
    for end in (share.low, share.high):
        assert end is not None
        left = mean(remainder(end / 100))
        assert abs(left.mean) / left.error == pytest.approx(stats.t.ppf(1 - LEVEL / 2, left.degrees), rel=1e-3)


def test_what_one_component_costs() -> None:
    weights = {("lora", 1): 1.0, ("cp", 1): -1.0}
    runs = main_study.runs()
    errors = {
        task: difference([(w, runs[task][cell]) for cell, w in weights.items()]).estimate.standard_error
        for task in runs
    }
    by_hand = over_sources(by_draw(lambda _: weights), errors)
    reach = stats.t.ppf(0.975, by_hand.degrees) * by_hand.error
    costs = quantities.value("main_study.one_component_costs")
    assert (costs.value, costs.low, costs.high) == pytest.approx(
        (100 * by_hand.mean, 100 * (by_hand.mean - reach), 100 * (by_hand.mean + reach)), rel=1e-3
    )


def test_eval_and_rest_make_all() -> None:
    """On each draw, in proportion to their items."""
    for task in ("trec", "sst2"):
        whole = main_study.on_task(task)
        parts = [main_study.on_task(task, asked) for asked in main_study.SETS]
        assert whole.estimate.items == sum(part.estimate.items for part in parts)
        low, high = sorted(part.estimate.mean for part in parts)
        assert low <= whole.estimate.mean <= high
