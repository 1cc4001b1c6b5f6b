"""The main study's primary question: by hand, from the records' own lines."""

import numpy as np
import pytest
from by_hand import answers, read
from scipy import optimize, stats

from companion import main_study, quantities
from cpadapt.inputs.tasks.specs import TASKS

WEIGHTS = {("lora", 1): 0.5, ("cp", 17): -0.5, ("lora", 4): 0.5, ("cp", 71): -0.5}
LEVEL = 0.0294


def by_draw() -> dict[str, dict[int, float]]:
    """The weighted sum of the share right over eval and rest rows, by task and draw."""
    found: dict[str, dict[int, float]] = {}
    for line in read("size-tasks"):
        config = line["config"]
        if weight := WEIGHTS.get((line["label"], config["size"])):
            right = [*answers(line["outcome"]), *answers(line["rest"])] if line["rest"] else answers(line["outcome"])
            draws = found.setdefault(config["task"], {})
            draws[config["data_seed"]] = draws.get(config["data_seed"], 0.0) + weight * float(np.mean(right))
    return found


def test_the_primary_number() -> None:
    found = by_draw()
    assert set(found) == set(main_study.runs())
    assert {len(draws) for draws in found.values()} == {10}
    errors = {task: quantities.value(f"main_study.on_task.{task}") for task in found}
    sources: dict[str, list[str]] = {}
    for task, draws in found.items():
        assert errors[task].value == pytest.approx(100 * np.mean(list(draws.values())))
        sources.setdefault(TASKS[task].source_group or task, []).append(task)
    assert len(sources) == quantities.value("main_study.sources").value == 12
    means = np.array([np.mean([np.mean(list(found[task].values())) for task in tasks]) for tasks in sources.values()])
    variances = np.array(
        [
            sum(main_study.on_task(task).estimate.standard_error ** 2 for task in tasks) / len(tasks) ** 2
            for tasks in sources.values()
        ]
    )

    def left(spread: float) -> float:
        weights = 1 / (variances + spread)
        mean = weights @ means / weights.sum()
        return float(weights @ (means - mean) ** 2 - (len(means) - 1))

    spread = optimize.brentq(left, 0, 1e-3) if left(0) > 0 else 0.0
    weights = 1 / (variances + spread)
    mean = weights @ means / weights.sum()
    variance = weights @ (means - mean) ** 2 / (len(means) - 1) / weights.sum()
    each = np.array([np.mean([list(found[task].values()) for task in tasks], axis=0) for tasks in sources.values()])
    together = np.cov(each)
    shared = (together.sum() - np.trace(together)) / (len(means) * (len(means) - 1))
    error = np.sqrt(variance + max(shared, 0) / 10)
    reach = stats.t.ppf(1 - LEVEL / 2, len(means) - 1) * error
    primary = quantities.value("main_study.primary")
    assert (primary.value, primary.low, primary.high) == pytest.approx(
        (100 * mean, 100 * (mean - reach), 100 * (mean + reach)), rel=1e-3
    )
    assert quantities.value("main_study.spread").value == pytest.approx(100 * np.sqrt(spread), rel=1e-3)
    one_sided = stats.t.sf((0.005 - abs(mean)) / error, len(means) - 1)
    assert (quantities.value("main_study.verdict").value == "equivalent") == (
        one_sided < LEVEL < 2 * stats.t.sf(abs(mean) / error, len(means) - 1)
    )


def test_eval_and_rest_make_all() -> None:
    """On each draw, in proportion to their items."""
    for task in ("trec", "sst2"):
        whole = main_study.on_task(task)
        parts = [main_study.on_task(task, asked) for asked in main_study.SETS]
        assert whole.estimate.items == sum(part.estimate.items for part in parts)
        low, high = sorted(part.estimate.mean for part in parts)
        assert low <= whole.estimate.mean <= high
