"""The main study on smaller models: by hand, from the records' own lines."""

import numpy as np
import pytest
from by_hand import by_draw, over_sources, read
from scipy import stats

from companion import main_study, model_size, plan, quantities
from cpadapt.analysis.across_tasks import difference

pytestmark = pytest.mark.slow

LARGE, SMALL, SMALLEST = "size-tasks", "size-tasks-0.5b", "size-tasks-smollm2"
LEADS = {
    LARGE: {("lora", 1): 0.5, ("cp", 17): -0.5, ("lora", 4): 0.5, ("cp", 71): -0.5},
    SMALL: {("lora", 1): 0.5, ("cp", 13): -0.5, ("lora", 4): 0.5, ("cp", 54): -0.5},
    SMALLEST: {("lora", 1): 0.5, ("cp", 11): -0.5, ("lora", 4): 0.5, ("cp", 44): -0.5},
}
SMALLER = pytest.mark.parametrize(("model", "study", "test"), [("qwen05", SMALL, 10), ("smollm2", SMALLEST, 11)])


def expected(found: dict[str, dict[int, float]], errors: dict[str, float], level: float) -> tuple[float, float, float]:
    """The mean over tasks and the ends of its interval, in points."""
    mean = over_sources(found, errors)
    reach = float(stats.t.ppf((1 + level) / 2, mean.degrees)) * mean.error
    return 100 * mean.mean, 100 * (mean.mean - reach), 100 * (mean.mean + reach)


@SMALLER
def test_loras_lead_on_a_smaller_model_and_what_the_larger_changes(model: str, study: str, test: int) -> None:
    small, large = (by_draw(each, lambda _, weights=LEADS[each]: weights) for each in (study, LARGE))
    assert set(small) == set(large)
    assert {len(draws) for draws in small.values()} == {10}
    errors = {task: main_study.on_task(task, study=study).estimate.standard_error for task in small}
    lead = quantities.value(f"model_size.lead.{model}")
    assert (lead.value, lead.low, lead.high) == pytest.approx(expected(small, errors, 1 - plan.LEVEL), rel=1e-3)
    by_hand = over_sources(small, errors)
    not_zero = 2 * stats.t.sf(abs(by_hand.mean) / by_hand.error, by_hand.degrees)
    within = stats.t.sf((0.005 - abs(by_hand.mean)) / by_hand.error, by_hand.degrees)
    assert quantities.value(f"model_size.verdict.{model}").value == "open"
    assert min(not_zero, within) > plan.LEVEL

    change = {task: {draw: lead - large[task][draw] for draw, lead in small[task].items()} for task in small}
    for task in change:
        parts = [
            (sign * weight, each, cell)
            for sign, each in ((1, study), (-1, LARGE))
            for cell, weight in LEADS[each].items()
        ]
        errors[task] = difference(
            [(weight, main_study.runs(each)[task][cell].values()) for weight, each, cell in parts]
        ).estimate.standard_error
    number = quantities.value(f"planned.number.test{test}")
    assert (number.value, number.low, number.high) == pytest.approx(expected(change, errors, 1 - plan.LEVEL), rel=1e-3)


@SMALLER
def test_what_one_component_costs_on_a_smaller_model(model: str, study: str, test: int) -> None:
    weights = {("lora", 1): 1.0, ("cp", 1): -1.0}
    runs = main_study.runs(study)
    errors = {
        task: difference([(w, cells[cell].values()) for cell, w in weights.items()]).estimate.standard_error
        for task, cells in runs.items()
    }
    costs = quantities.value(f"model_size.costs.{model}")
    assert (costs.value, costs.low, costs.high) == pytest.approx(
        expected(by_draw(study, lambda _: weights), errors, 1 - plan.LEVEL), rel=1e-3
    )


def test_runs_that_collapsed() -> None:
    for model, study in (("qwen15", LARGE), ("qwen05", SMALL), ("smollm2", SMALLEST)):
        right = {
            (line["config"]["task"], line["label"], line["config"]["size"], line["config"]["seed"]): line["outcome"]
            for line in read(study)
        }
        share = {key: outcome["correct"] / outcome["total"] for key, outcome in right.items()}
        for label in ("lora", "cp"):
            compared = [key for key in share if key[1:3] in LEADS[study] and key[1] == label]
            found = quantities.value(f"model_size.collapsed.{label}.{model}")
            far = [key for key in compared if share[key] < share[key[0], "head", 0, key[3]] - 0.1]
            assert (found.value, found.n) == (len(far), len(compared))


def test_the_table_and_charts_have_every_model_that_is_measured() -> None:
    models = [model_size.title(study) for study in model_size.STUDIES.values()]
    assert models == ["Qwen2.5-Coder-1.5B", "Qwen2.5-Coder-0.5B", "SmolLM2-135M"]
    assert model_size.table()["model"].tolist() == models
    gains = model_size.gain_rows()
    assert gains.groupby("what", sort=False)["size"].apply(list).to_dict() == dict(
        zip(models, [[1, 17, 1], [1, 13, 1], [1, 11, 1]], strict=True)
    )
    gain = quantities.value("model_size.gain.smollm2")
    assert 100 * gains[["mean", "low", "high"]].to_numpy()[-1] == pytest.approx([gain.value, gain.low, gain.high])
    assert np.isfinite(model_size.lead_rows()[["mean", "low", "high"]].to_numpy()).all()
