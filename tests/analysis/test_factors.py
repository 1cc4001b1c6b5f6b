"""Effects of settings: the truth of simulated designs, the library's own least squares, and what is refused."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import statsmodels.formula.api as smf
from numpy.typing import NDArray
from pandas import DataFrame

from cpadapt.analysis.factors import Answers, Factor, contrasts, design_of, effect_of, effects, terms_of
from cpadapt.errors import InputError
from cpadapt.records.record import Outcome, Record, pack_bitmap
from cpadapt.records.store import load_records

ROOT = Path(__file__).parents[2]

FACTORS = (
    Factor("a", lambda config: config.learning_rate, {1e-3: -1, 2e-3: 0, 4e-3: 1}),
    Factor("b", lambda config: config.scale, {2.0: -1, 8.0: 1}),
    Factor("c", lambda config: config.warmup_steps, {None: -1, 5: 1}),
)
"""One of three levels, two of two."""

CODES = np.array([*itertools.product((-1, 1), repeat=3), (0, -1, -1), (0, 1, 1)], float)


def response(codes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Accuracies whose effects are known: see `TRUTH`."""
    a, b, c = codes.T
    return 0.7 + 0.02 * a - 0.01 * b + 0.005 * a * b + 0.0075 * b * c - 0.03 * a**2


TRUTH = {
    ("a",): 0.04, ("b",): -0.02, ("c",): 0.0, ("a", "b"): 0.01, ("a", "c"): 0.0, ("b", "c"): 0.015, ("a", "a"): -0.03,
}  # fmt: skip


def test_the_terms_are_main_effects_pairs_and_curvatures() -> None:
    assert terms_of(FACTORS) == list(TRUTH)


def test_known_effects_come_out_exactly_where_there_is_no_chance() -> None:
    got = contrasts(CODES, FACTORS)
    assert got @ response(CODES) == pytest.approx(np.array([*TRUTH.values()]))
    assert got.sum(1) == pytest.approx(0)
    corners = CODES[:8]
    means = response(corners)
    assert got @ response(CODES) == pytest.approx(contrasts(CODES[::-1], FACTORS) @ response(CODES[::-1]))
    # In the words of the module's table.
    high, low = means[corners[:, 0] == 1].mean(), means[corners[:, 0] == -1].mean()
    assert TRUTH["a",] == pytest.approx(high - low)
    by_b = [np.ptp([means[(corners[:, 0] == x) & (corners[:, 1] == y)].mean() for x in (-1, 1)]) for y in (-1, 1)]
    assert TRUTH["a", "b"] == pytest.approx((by_b[1] - by_b[0]) / 2)
    middle = 0.7  # where all others are at 0
    assert TRUTH["a", "a"] == pytest.approx(((0.7 + 0.02 - 0.03) + (0.7 - 0.02 - 0.03)) / 2 - middle)


def test_weights_are_least_squares_as_the_library_has_it() -> None:
    y = response(CODES) + np.random.default_rng(0).normal(0, 0.01, len(CODES))
    frame = DataFrame({"y": y} | {factor.name: CODES[:, i] for i, factor in enumerate(FACTORS)})
    fitted = smf.ols("y ~ (a + b + c) ** 2 + I(a ** 2)", frame).fit().params
    names = {("a", "a"): "I(a ** 2)"}
    wanted = [
        fitted[names.get(term, ":".join(term))] * (1 if term in names else 2)
        for term in terms_of(FACTORS)
    ]  # fmt: skip
    assert contrasts(CODES, FACTORS) @ y == pytest.approx(np.array(wanted))


@pytest.mark.parametrize(
    ("codes", "term"),
    [
        (CODES[:8], "a × a"),  # no middle
        (CODES[[0, 3, 5, 6]], "a × b"),  # a half of the eight: an interaction is the third factor
        (CODES[:4], "a"),  # never varied
    ],
)
def test_settings_that_do_not_tell_terms_apart_are_refused(codes: NDArray[np.float64], term: str) -> None:
    with pytest.raises(InputError, match=f"do not tell the effect of {term} from those of other terms"):
        contrasts(codes, FACTORS)


def simulated(rng: np.random.Generator, draws: int, items: int) -> dict[str, list[Answers]]:
    """Two tasks, the same draws. The effect of `a` on a draw, and of items that several draws share, is its own."""
    answers: dict[str, list[Answers]] = {}
    for task in ("one", "two"):
        pool = rng.normal(0, 0.08, 3 * items)
        for draw in range(draws):
            rows = np.sort(rng.choice(3 * items, items, replace=False))
            of_draw, of_rows = rng.normal(0, 0.01), pool[rows] - pool.mean()
            chance = response(CODES)[:, None] + CODES[:, :1] * (of_draw + of_rows)
            right = (rng.random((len(CODES), items)) < chance).astype(float)
            answers.setdefault(task, []).append(Answers(draw, rows, right))
    return answers


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """95 %, in 300 studies: 91 to 98 % for each term, by three standard errors."""
    rng, weights = np.random.default_rng(0), contrasts(CODES, FACTORS)
    held = np.zeros((300, len(TRUTH)))
    for study in held:
        answers = simulated(rng, draws=5, items=60)
        for k, truth in enumerate(TRUTH.values()):
            low, high = effect_of(weights[k], answers).mean.interval()
            study[k] = low <= truth <= high
    assert (held.mean(0) > 0.91).all(), held.mean(0)
    assert held.mean() < 0.98


@pytest.fixture(scope="module")
def pattern() -> Record:
    return next(r for r in load_records(ROOT / "results" / "size-rates") if r.label == "cp")


def run(pattern: Record, codes: NDArray[np.float64], task: str, answers: Answers, k: int) -> Record:
    """The k-th setting's run with these answers on dev."""
    levels = [{code: value for value, code in f.levels.items()}[int(c)] for f, c in zip(FACTORS, codes, strict=True)]
    rate, scale, warmup = levels
    right = answers.right[k]
    return dataclasses.replace(
        pattern,
        id=f"{task}-{answers.draw}-{k}",
        config=dataclasses.replace(
            pattern.config, task=task, data_seed=answers.draw, learning_rate=rate, scale=scale, warmup_steps=warmup
        ),
        dev=Outcome(
            correct=int(right.sum()),
            total=len(right),
            rows=1000,
            drawn=pack_bitmap(answers.items, 1000),
            right=pack_bitmap(right.nonzero()[0], len(right)),
        ),
    )


@pytest.fixture(scope="module")
def made(pattern: Record) -> tuple[dict[str, list[Answers]], list[Record]]:
    answers = simulated(np.random.default_rng(1), draws=3, items=40)
    return answers, [
        run(pattern, codes, task, one, k)
        for task, on_draws in answers.items()
        for one in on_draws
        for k, codes in enumerate(CODES)
    ]


def test_records_give_the_effects_of_their_answers(made: tuple[dict[str, list[Answers]], list[Record]]) -> None:
    answers, records = made
    found = effects(reversed(records), FACTORS)
    assert list(found) == list(TRUTH)
    for k, term in enumerate(TRUTH):
        wanted = effect_of(contrasts(CODES, FACTORS)[k], answers)
        assert found[term].mean.mean == pytest.approx(wanted.mean.mean)
        assert found[term].mean.interval() == pytest.approx(wanted.mean.interval())
    accuracy = np.array([[one.right.mean(1) for one in on_draws] for on_draws in answers.values()])
    main = accuracy @ contrasts(CODES, FACTORS)[0]
    assert found["a",].mean.mean == pytest.approx(main.mean())
    assert found["a",].by_task["two"].by_draw == pytest.approx(main[1])


def test_a_design_has_its_runs_settings_and_answers(made: tuple[dict[str, list[Answers]], list[Record]]) -> None:
    answers, records = made
    design = design_of(reversed(records), FACTORS)
    ascending = sorted(range(len(CODES)), key=lambda k: tuple(CODES[k]))
    assert (design.codes == CODES[ascending]).all()
    assert design.answers.keys() == answers.keys()
    for task, on_draws in design.answers.items():
        for got, wanted in zip(on_draws, answers[task], strict=True):
            assert got.draw == wanted.draw
            assert (got.items == wanted.items).all()
            assert (got.right == wanted.right[ascending]).all()


def test_a_run_without_an_evaluation_has_nothing_right(made: tuple[dict[str, list[Answers]], list[Record]]) -> None:
    answers, records = made
    lost = [dataclasses.replace(records[0], dev=None), *records[1:]]
    answers["one"][0].right[0] = 0
    got, wanted = effects(lost, FACTORS)["a",], effect_of(contrasts(CODES, FACTORS)[0], answers)
    assert got.mean.mean == pytest.approx(wanted.mean.mean)


def test_runs_that_are_no_design_are_refused(made: tuple[dict[str, list[Answers]], list[Record]]) -> None:
    records = made[1]
    first = records[0]
    with pytest.raises(InputError, match="one-0-0 and one-0-0 have one setting, task and draw"):
        effects([*records, first], FACTORS)
    with pytest.raises(InputError, match=r"the setting a -1, b -1, c -1 has no run on one, draw 0, where another has"):
        effects(records[1:], FACTORS)
    other = dataclasses.replace(first, config=dataclasses.replace(first.config, scale=3.0))
    with pytest.raises(InputError, match=r"b = 3.0 is not a level of the design; its levels are \[2.0, 8.0\]"):
        effects([other, *records[1:]], FACTORS)
    moved = dataclasses.replace(first, dev=records[len(CODES)].dev)
    with pytest.raises(InputError, match="have different dev items"):
        effects([moved, *records[1:]], FACTORS)
