"""The main study's primary question: by hand, from the records' own lines."""

from collections.abc import Callable

import numpy as np
import pytest
from by_hand import OverSources, best_on_dev, by_draw, over_sources
from scipy import stats

from companion import main_study, model_size, planned, quantities
from cpadapt.analysis.across_tasks import difference
from cpadapt.records.config import Cell

pytestmark = pytest.mark.slow

WEIGHTS = {("lora", 1): 0.5, ("cp", 17): -0.5, ("lora", 4): 0.5, ("cp", 71): -0.5}
LEVEL = 0.0294


def test_the_primary_number() -> None:
    found = by_draw("size-tasks", lambda _: WEIGHTS)
    assert set(found) == set(main_study.runs())
    assert {len(draws) for draws in found.values()} == {10}
    for task, draws in found.items():
        on_task = quantities.value(f"main_study.on_task.{task}")
        assert on_task.value == pytest.approx(100 * np.mean(list(draws.values())))
        estimate = main_study.on_task(task).estimate
        reach = 100 * stats.t.ppf(1 - LEVEL / 2, estimate.degrees) * estimate.standard_error
        assert (on_task.low, on_task.high) == pytest.approx((on_task.value - reach, on_task.value + reach))
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


def test_one_components_size() -> None:
    """28 layers' q and v of 1536×1536 and 256×1536, where 1536 = 32·48 and 256 = 16·16."""
    rank, component = 28 * (1536 + 1536 + 256 + 1536), 28 * (2 * (32 + 48) + 16 + 16 + 32 + 48 + 2)
    assert quantities.value("main_study.smaller").value == pytest.approx(rank / component)


def test_one_components_share_of_the_best_adapters_gain() -> None:
    """A ratio of two means, and the shares at which the remainder's interval has an end at zero (Fieller)."""
    best = best_on_dev("size-tasks")
    assert best == {task: planned.best(task) for task in best}

    def mean(weights: Callable[[str], dict[Cell, float]]) -> OverSources:
        runs = main_study.runs()
        errors = {
            task: difference(
                [(w, runs[task][cell].values()) for cell, w in weights(task).items()]
            ).estimate.standard_error
            for task in runs
        }
        return over_sources(by_draw("size-tasks", weights), errors)

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
        task: difference([(w, runs[task][cell].values()) for cell, w in weights.items()]).estimate.standard_error
        for task in runs
    }
    by_hand = over_sources(by_draw("size-tasks", lambda _: weights), errors)
    reach = stats.t.ppf(1 - LEVEL / 2, by_hand.degrees) * by_hand.error
    costs = quantities.value("main_study.one_component_costs")
    assert (costs.value, costs.low, costs.high) == pytest.approx(
        (100 * by_hand.mean, 100 * (by_hand.mean - reach), 100 * (by_hand.mean + reach)), rel=1e-3
    )


def test_all_intervals_have_the_plans_level() -> None:
    """Those that text and tables print, and those of the charts, whose descriptions say it too."""
    chapters = quantities.of_chapter("main_study") | quantities.of_chapter("model_size")
    levels = {name: known.level for name, known in chapters.items() if known.level is not None}
    assert len(levels) > 60
    assert set(levels.values()) == {1 - LEVEL}
    assert "97 % interval" in main_study.task_table()
    rows = main_study.task_chart_rows().set_index("what")
    for task, title in (("boolq", "BoolQ"), ("sst2", "SST-2")):
        on_task = quantities.value(f"main_study.on_task.{task}")
        assert 100 * rows.loc[title, ["low", "high"]].to_numpy(dtype=float) == pytest.approx(
            [on_task.low, on_task.high]
        )
    mean = main_study.gain_rows().query("what == 'Mean over tasks' and label == 'lora'").iloc[0]
    gain = quantities.value("model_size.gain.qwen15")
    assert (100 * mean["low"], 100 * mean["high"]) == pytest.approx((gain.low, gain.high))
    both = model_size.first_chart().to_dict()["concat"]
    assert ["97 % interval" in chart["description"] for chart in both] == [True, True]


def test_eval_and_rest_make_all() -> None:
    """On each draw, in proportion to their items."""
    for task in ("trec", "sst2"):
        whole = main_study.on_task(task)
        parts = [main_study.on_task(task, asked) for asked in main_study.SETS]
        assert whole.estimate.items == sum(part.estimate.items for part in parts)
        low, high = sorted(part.estimate.mean for part in parts)
        assert low <= whole.estimate.mean <= high
