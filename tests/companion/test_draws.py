"""What dev says over draws, on simulated runs whose truth is known and on the project's records."""

import statistics
import tomllib
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t

from companion import contrasts, draws
from companion.draws import BEST, BOTH, EVAL, LAST, Drawn
from companion.noise import PAIRS
from cpadapt.analysis.statistics import Outcomes, compare
from cpadapt.inputs.tasks.examples import load_task
from cpadapt.inputs.tasks.specs import TASKS

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"

A, B = ("lora", 1), ("cp", 11)
POOL, ASKED, ON_EVAL, DRAWS = 400, 100, 90, 12


def simulated(rng: np.random.Generator, truth: float, of_draw: float, of_item: float) -> Drawn:
    """Differences with effects of a draw and of an item, which dev and eval draw from one population, and chance."""
    items, own = rng.normal(0, of_item, POOL), rng.normal(truth, of_draw, DRAWS)
    asked = np.array([rng.choice(POOL, ASKED, replace=False) for _ in range(DRAWS)])
    dev = own + items[asked].mean(1) + rng.normal(0, 1 / np.sqrt(ASKED), DRAWS)
    right = own[:, None] + rng.normal(0, of_item, ON_EVAL) + rng.normal(0, 1, (DRAWS, ON_EVAL))
    runs, rows = tuple((0, k) for k in range(DRAWS)), tuple(range(ON_EVAL))
    none = np.zeros(DRAWS)
    outcomes = {A: Outcomes(runs, rows, right), B: Outcomes(runs, rows, np.zeros_like(right))}
    return Drawn(outcomes, {name: {A: dev, B: none} for name in (BEST, LAST)}, ASKED, ASKED / POOL)


@pytest.mark.parametrize(("of_draw", "of_item"), [(0.1, 1.0), (0.02, 2.0), (0.2, 0.3)])
@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say(of_draw: float, of_item: float) -> None:
    rng = np.random.default_rng(0)
    held: dict[str, list[bool]] = {}
    for _ in range(500):
        for name, e in draws.differences(simulated(rng, 0.3, of_draw, of_item), A, B).items():
            low, high = e.interval()
            held.setdefault(name, []).append(low < 0.3 < high)
            assert (e.p_value(0.3) > 0.05) == held[name][-1]
    for name, inside in held.items():
        assert 0.92 < np.mean(inside) < 0.985, name


def test_items_that_draws_share_are_in_the_error() -> None:
    """Where only items vary the draws' own spread does not say it."""
    rng = np.random.default_rng(1)
    missed = 0
    for _ in range(300):
        cells = simulated(rng, 0.0, 0.0, 3.0)
        gaps = cells.dev[LAST][A]
        error = gaps.std(ddof=1) / np.sqrt(DRAWS)
        missed += abs(gaps.mean()) > t.ppf(0.975, DRAWS - 1) * error
        assert draws.difference(cells, A, B, {LAST: 1.0}).standard_error > error
    assert missed > 0.1 * 300


def test_on_eval_alone_it_is_the_usual_estimate() -> None:
    cells = simulated(np.random.default_rng(2), 0.3, 0.1, 1.0)
    found, usual = draws.difference(cells, A, B, {EVAL: 1.0}), compare(cells.outcomes[A], cells.outcomes[B])
    assert found.mean == pytest.approx(usual.mean)
    assert found.standard_error == pytest.approx(usual.standard_error)
    assert draws.differences(cells, A, B)[EVAL].interval() == usual.interval()


@pytest.fixture(scope="module")
def tasks() -> dict[str, Drawn]:
    return {task: draws.drawn(task) for task in ("sst2", "rte")}


def test_dev_is_as_records_count_it(tasks: dict[str, Drawn]) -> None:
    records = contrasts.on_record(draws.STUDIES)
    for task, cells in tasks.items():
        two = [
            r for r in records if (r.config.task, r.label, r.config.size, r.config.data_seed) == (task, "cp", 44, 7)
        ]
        assert len(two) == 2, "two seeds on a draw"
        assert cells.dev[LAST]["cp", 44][6] == pytest.approx(
            statistics.mean(r.evaluations[-1].dev_correct / 500 for r in two)
        )
        assert cells.dev[BEST]["cp", 44][6] == pytest.approx(
            statistics.mean(max(e.dev_correct for e in r.evaluations) / 500 for r in two)
        )
        assert {r.evaluations[-1].step for r in records} == {2000}, "the last step is fixed beforehand"
        assert cells.items == 500
    assert tasks["rte"].overlap == pytest.approx(500 / 2488)
    assert tasks["sst2"].overlap == pytest.approx(500 / 66978)


def test_what_dev_shows_of_the_two_tasks(tasks: dict[str, Drawn]) -> None:
    """Of RTE both differences are clear with dev, of SST-2 the gain of components; LoRA's lead over CP 44 is not."""
    lead, last, gain = (PAIRS[name] for name in ("lora1_cp11", "lora1_cp44", "cp44_cp1"))
    of_rte, of_sst2 = tasks["rte"], tasks["sst2"]
    for pair in (lead, gain):
        found = draws.differences(of_rte, *pair)
        assert found[EVAL].interval()[0] < 0, "not clear on eval"
        assert all(found[name].interval()[0] > 0 for name in (BEST, LAST, BOTH))
    found = draws.differences(of_sst2, *gain)
    assert found[EVAL].interval()[0] < 0 < 0.006 < found[BEST].interval()[0] < 0.013 < found[LAST].interval()[0]
    found = draws.differences(of_sst2, *last)
    assert found[EVAL].interval()[0] > 0, "ahead of CP 44 on eval"
    assert max(found[BEST].mean, found[LAST].mean) < 0, "and not on dev"
    _, high = draws.difference(of_sst2, *last, {LAST: 1.0, EVAL: -1.0}).interval()
    assert high < 0, "which is no chance"


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="the public data are not at hand")
def test_rows_of_sst2_are_phrases_in_training_and_sentences_in_validation() -> None:
    said = tomllib.loads((ROOT / "book" / "published.toml").read_text(encoding="utf-8"))["sst2_rows"]
    words: dict[str, list[int]] = {"dev": [], "eval": []}
    nested: dict[str, list[bool]] = {"dev": [], "eval": []}
    for draw in range(1, 11):
        task = load_task(TASKS["sst2"], data_dir=DATA, data_seed=draw)
        trained = {tuple(text.split()) for (text,) in task.train.texts}
        inside = {part for text in trained for part in parts(text)}
        for name, rows in (("dev", task.dev), ("eval", task.eval)):
            texts = [tuple(text.split()) for (text,) in rows.texts]
            words[name] += map(len, texts)
            nested[name] += [text in inside or any(part in trained for part in parts(text, 3)) for text in texts]
    for name in words:
        assert statistics.median(words[name]) == said[f"{name}_words"]
    assert statistics.mean(nested["dev"]) == pytest.approx(said["dev_nested"], abs=0.005)
    assert statistics.mean(nested["eval"]) == pytest.approx(said["eval_nested"], abs=0.0006)


def parts(text: tuple[str, ...], fewest: int = 1) -> list[tuple[str, ...]]:
    """What stands in it, of so many words or more."""
    return [text[a:b] for a in range(len(text)) for b in range(a + fewest, len(text) + 1)]
