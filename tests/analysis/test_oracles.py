"""Every public estimator by another path: another library, exact fractions, or loops over the lines of a real table.

`ORACLES` names for each the tests that do so, here or beside this file; those on simulated runs, whose truth is known,
say besides how often intervals and tests are right.
"""

import inspect
import itertools
from collections.abc import Iterable
from fractions import Fraction
from math import inf, sqrt
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from by_hand import answers, judged, read
from scipy import stats
from simulated import Simulation
from statsmodels.formula.api import ols
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.anova import anova_lm

from cpadapt.analysis import across_tasks, cells, factors, frontier, statistics, students
from cpadapt.analysis.across_tasks import difference
from cpadapt.analysis.cells import cells_of
from cpadapt.analysis.frontier import best_under_budget
from cpadapt.analysis.statistics import (
    Estimate,
    best_of,
    compare,
    crossed_effects,
    estimate,
    outcomes,
    plateau,
    resampled_means,
    seed_effect,
)
from cpadapt.records.record import Record
from cpadapt.records.store import load_records
from cpadapt.records.table import tabulate

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "results"

ORACLES: dict[ModuleType, dict[str, tuple[str, ...]]] = {
    statistics: {
        "outcomes": ("test_outcomes_and_differences_are_those_of_the_lines",),
        "answers": ("test_outcomes_and_differences_are_those_of_the_lines",),
        "estimate": ("test_an_estimate_is_what_it_is_by_hand", "test_variances_are_those_of_a_mixed_model"),
        "pooled": ("test_pooled_tables_have_the_mean_of_their_squares",),
        "partly_crossed": ("test_partly_crossed_is_what_it_is_in_pieces",),
        "crossed_effects": (
            "test_parts_of_crossed_causes_by_hand",
            "test_mean_squares_are_those_of_a_least_squares_fit",
            "test_variances_are_those_of_a_mixed_model",
        ),
        "seed_effect": ("test_mean_squares_are_those_of_a_least_squares_fit",),
        "seeds_needed": ("test_the_fewest_that_suffice",),
        "items_needed": ("test_the_fewest_that_suffice",),
        "smallest_effect": ("test_the_smallest_effect_that_is_seen",),
        "fewest": ("test_the_fewest_that_suffice",),
        "compare": ("test_outcomes_and_differences_are_those_of_the_lines",),
        "holm": ("test_an_estimate_is_what_it_is_by_hand",),
        "agreement": ("test_agreement_counts_pairs_of_runs",),
        "resampled_means": ("test_resampled_means_are_those_of_the_runs_and_items_drawn",),
        "plateau": ("test_a_plateau_is_found_by_walking",),
        "best_of": ("test_the_best_of_halves_is_found_by_loops",),
        "require_two": ("test_what_cannot_be_compared_is_refused",),
        "require_pairs": ("test_what_cannot_be_compared_is_refused",),
    },
    across_tasks: {
        "on_task": ("test_a_difference_of_runs_is_theirs_answer_by_answer",),
        "difference": ("test_a_difference_over_draws_is_that_of_the_lines",),
        "random_effects": (
            "test_sources_of_one_task_each_are_combined_as_the_library_does",
            "test_the_spread_is_paule_and_mandels_and_the_error_knapp_and_hartungs",
        ),
        "over_tasks": (
            "test_sources_of_one_task_each_are_combined_as_the_library_does",
            "test_the_spread_is_paule_and_mandels_and_the_error_knapp_and_hartungs",
            "test_what_a_draw_does_to_all_tasks_is_in_the_error",
        ),
        "over_given_tasks": ("test_over_the_tasks_at_hand_is_the_mean_of_independent_estimates_and_what_draws_share",),
        "between": ("test_two_means_differ_as_of_welch",),
        "share_interval": ("test_a_share_lies_where_fieller_has_it",),
        "chosen_settings": ("test_a_setting_is_chosen_on_dev_over_tasks_and_draws",),
    },
    factors: {
        "terms_of": ("test_the_terms_are_main_effects_pairs_and_curvatures",),
        "contrasts": ("test_weights_are_least_squares_as_the_library_has_it",),
        "design_of": ("test_a_design_has_its_runs_settings_and_answers",),
        "effects": ("test_records_give_the_effects_of_their_answers",),
        "effect_of": ("test_intervals_hold_the_truth_as_often_as_they_say",),
    },
    students: {
        "removals": ("test_each_run_is_compared_with_the_backbone_on_its_draw",),
        "choose_settings": ("test_one_setting_is_chosen_for_all_teachers",),
        "recovery": ("test_the_map_has_means_and_students_t_over_draws",),
        "differences": ("test_differences_are_taken_draw_by_draw",),
        "smallest_to_reach": ("test_the_smallest_student_that_reaches_a_share",),
        "recovery_table": ("test_the_printed_table_has_a_row_a_student_in_the_order_of_their_budgets",),
    },
    frontier: {
        "cells": ("test_cells_gather_seeds", "test_a_frontier_is_that_of_the_lines"),
        "frontier": ("test_dev_chooses_the_rate", "test_a_frontier_is_that_of_the_lines"),
        "best_under_budget": ("test_the_best_under_a_budget_is_the_highest_on_eval_of_what_fits",),
    },
    cells: {
        "gives_one_class": ("test_runs_that_give_one_class_are_counted",),
        "cells_of": ("test_cells_are_read_at_one_rate",),
        "cells_at": ("test_cells_are_of_the_settings_that_are_given",),
        "choose_rates": ("test_a_frontier_is_that_of_the_lines",),
        "family_rates": ("test_a_variants_rate_is_its_familys",),
        "at_all_rates": ("test_a_cell_with_fewer_rates_has_no_part_in_a_choice",),
        "setting_of": ("test_a_runs_warm_up_tells_settings_apart_too",),
    },
}


@pytest.mark.parametrize("module", ORACLES, ids=lambda module: module.__name__)
def test_every_public_function_has_an_oracle(module: ModuleType) -> None:
    functions = inspect.getmembers(module, inspect.isfunction)
    own = {name for name, f in functions if f.__module__ == module.__name__ and not name.startswith("_")}
    assert own == ORACLES[module].keys()
    written = "".join(file.read_text(encoding="utf-8") for file in HERE.glob("test_*.py"))
    for names in ORACLES[module].values():
        for name in names:
            assert f"\ndef {name}(" in written


# Another library.


def frame_of(values: np.ndarray, factors: str) -> pd.DataFrame:
    """A table as one row an answer, with its factors' levels as text."""
    places = np.indices(values.shape).reshape(values.ndim, -1).astype(str)
    return pd.DataFrame(dict(zip(factors, places, strict=True))).assign(y=values.ravel())


def test_mean_squares_are_those_of_a_least_squares_fit() -> None:
    values = np.random.default_rng(30).normal(size=(3, 4, 5))
    got = crossed_effects(values)
    table = anova_lm(ols("y ~ C(a)*C(b) + C(i) + C(a):C(i) + C(b):C(i)", frame_of(values, "abi")).fit())
    assert dict(zip(table.index, table["df"], strict=True)) == {
        "C(a)": 2, "C(b)": 3, "C(i)": 4, "C(a):C(b)": 6, "C(a):C(i)": 8, "C(b):C(i)": 12, "Residual": 24,
    }  # fmt: skip
    square = table["mean_sq"].to_dict()
    rest = square["Residual"]
    for effect, term, per_level in (
        (got.together, "C(a):C(b)", 5), (got.first_by_item, "C(a):C(i)", 4 * 5), (got.second_by_item, "C(b):C(i)", 15),
    ):  # fmt: skip
        assert effect.variance == pytest.approx((square[term] - rest) / per_level)
        assert effect.p_value == pytest.approx(table["PR(>F)"][term])
    by_item = square["C(a):C(i)"] + square["C(b):C(i)"]
    assert got.of_items == pytest.approx((square["C(i)"] - by_item + rest) / 12 / 5)

    two = anova_lm(ols("y ~ C(s) + C(i)", frame_of(values[0], "si")).fit())
    assert seed_effect(values[0]).p_value == pytest.approx(two["PR(>F)"]["C(s)"])
    assert estimate(values[0]).rest_variance == pytest.approx(two["mean_sq"]["Residual"])


def mixed_model(values: np.ndarray, factors: str) -> dict[str, float]:
    """The variances of all effects, by restricted maximum likelihood; that of the last is the residual's.

    On a full table on which none is negative they are those of the analysis of variance (Searle, Casella and
    McCulloch, *Variance Components*, 1992).
    """
    frame = frame_of(values, factors).assign(whole=1)
    terms = ["".join(term) for n in range(1, values.ndim) for term in itertools.combinations(factors, n)]
    levels = {f"of_{term}": frame[list(term)].agg("-".join, axis=1) for term in terms}
    model = MixedLM.from_formula(
        "y ~ 1",
        frame.assign(**levels),
        groups="whole",
        re_formula="0",
        vc_formula={term: f"0 + C(of_{term})" for term in terms},
    )
    fitted = model.fit(reml=True, method="lbfgs")
    return dict(zip(model.exog_vc.names, fitted.vcomp, strict=True)) | {factors: fitted.scale}


def test_variances_are_those_of_a_mixed_model() -> None:
    rng = np.random.default_rng(31)
    two = rng.normal(0, 2, (6, 1)) + rng.normal(0, 1.5, 15) + rng.normal(0, 1, (6, 15))
    wanted, got = mixed_model(two, "si"), estimate(two)
    assert (got.seed_variance, got.item_variance, got.rest_variance) == pytest.approx(
        (wanted["s"], wanted["i"], wanted["si"]), rel=1e-3
    )
    assert seed_effect(two).variance == pytest.approx(wanted["s"], rel=1e-3)

    shapes = [(4, 1, 1), (1, 5, 1), (1, 1, 6), (4, 5, 1), (4, 1, 6), (1, 5, 6), (4, 5, 6)]
    sds = (2, 2, 2, 1, 1, 1, 0.7)
    three = sum(rng.normal(0, sd, shape) for sd, shape in zip(sds, shapes, strict=True)) + np.zeros((4, 5, 6))
    wanted, parts = mixed_model(three, "abi"), crossed_effects(three)
    found = {
        "a": parts.first.variance, "b": parts.second.variance, "i": 6 * parts.of_items, "ab": parts.together.variance,
        "ai": 6 * parts.first_by_item.variance, "bi": 6 * parts.second_by_item.variance,
    }  # fmt: skip
    assert min(found.values()) > 0
    assert found == pytest.approx({name: wanted[name] for name in found}, rel=2e-3)
    assert 6 * parts.chance == pytest.approx(wanted["ai"] + wanted["bi"] + wanted["abi"], rel=1e-3)


def test_power_is_that_of_a_noncentral_t() -> None:
    planned = Estimate(0.0, 1.0, 4.0, 5, 100, 1e-4, 0.02, 0.1)
    for effect, seeds, items in ((0.02, 5, 300), (0.05, 3, 1000), (0.1, 2, 50)):
        error = planned.error_with(seeds, items)
        assert error == pytest.approx(sqrt(1e-4 / seeds + 0.02 / items + 0.1 / seeds / items))
        squares = (items * 1e-4 + 0.1, seeds - 1), (seeds * 0.02 + 0.1, items - 1), (0.1, (seeds - 1) * (items - 1))
        total = squares[0][0] + squares[1][0] - 0.1
        degrees = max(total**2 / sum(square**2 / df for square, df in squares), seeds - 1)
        reach, shift = stats.t.ppf(0.975, degrees), effect / error
        two_tails = stats.nct.sf(reach, degrees, shift) + stats.nct.cdf(-reach, degrees, shift)
        assert planned.power(effect, seeds, items) == pytest.approx(two_tails, rel=1e-6)
    assert planned.error_with(inf, 100) == pytest.approx(sqrt(0.02 / 100))


# The lines of a real table.


@pytest.fixture(scope="module")
def pilot() -> list[Record]:
    return [record for record in load_records(RESULTS / "smollm2-pilot") if record.config.task == "sst2"]


def of_task(lines: Iterable[dict[str, Any]], task: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["config"]["task"] == task]


def test_outcomes_and_differences_are_those_of_the_lines(pilot: list[Record]) -> None:
    cells = cells_of(pilot, {"lora": 1e-3, "cp": 2e-3}).outcomes
    right: dict[tuple[str, int], dict[int, list[int]]] = {}
    for line in of_task(read("smollm2-pilot"), "sst2"):
        config = line["config"]
        if config["learning_rate"] in (None, 1e-3, 2e-3):
            right.setdefault((line["label"], config["size"]), {})[config["seed"]] = answers(line["outcome"])
    assert right.keys() == cells.keys()
    for cell, by_seed in right.items():
        assert cells[cell].right.tolist() == [by_seed[seed] for seed in sorted(by_seed)]
        gap = [[a - b for a, b in zip(*pair, strict=True)] for pair in
               zip(by_seed.values(), right["lora", 1].values(), strict=True)]  # fmt: skip
        if cell == ("lora", 1):
            continue
        got, wanted = compare(cells[cell], cells["lora", 1]), judged(gap)
        assert 100 * got.mean == pytest.approx(wanted["gap"])
        assert 100 * got.standard_error == pytest.approx(wanted["error"])
        assert got.degrees == pytest.approx(wanted["degrees"])
        assert got.p_value() == pytest.approx(wanted["p"])
        assert got.equivalence_p_value(0.01) == pytest.approx(wanted["alike"])
        assert [100 * end for end in got.interval(0.9)] == pytest.approx(wanted["one-sided"])


def test_a_frontier_is_that_of_the_lines(pilot: list[Record]) -> None:
    """Which rate dev chose, by exact fractions, and what eval then says."""
    runs: dict[tuple[str, int], dict[float, list[tuple[Fraction, float, int]]]] = {}
    for line in of_task(read("smollm2-pilot"), "sst2"):
        config = line["config"]
        (best,) = (e for e in line["evaluations"] if e["step"] == line["best_step"])
        dev = Fraction(best["dev_correct"], best["dev_total"])
        accuracy = fmean(answers(line["outcome"]))
        by_rate = runs.setdefault((line["label"], config["size"]), {})
        by_rate.setdefault(config["learning_rate"], []).append((dev, accuracy, line["counts"]["adapter"]))
    best_cells = frontier.frontier(tabulate(pilot)[0])
    chosen = cells.choose_rates(pilot)
    assert len(best_cells) == len(runs) == len(chosen)
    reached = {}
    for row in best_cells.itertuples():
        by_rate = runs[row.label, row.size]
        rate = max(by_rate, key=lambda r: (sum(dev for dev, _, _ in by_rate[r]), -(r or 0)))
        accuracies = [accuracy for _, accuracy, _ in by_rate[rate]]
        assert chosen[row.label, row.size].learning_rate == rate
        assert (row.runs, row.parameters) == (len(accuracies), by_rate[rate][0][2])
        assert (row.eval_mean, row.eval_low, row.eval_high) == pytest.approx(
            (fmean(accuracies), min(accuracies), max(accuracies))
        )
        reached[row.label, row.size] = fmean(accuracies), row.parameters
    for budget in (5220, 57_600, 10**6):
        under = best_under_budget(best_cells, budget)
        for label in ("head", "lora", "cp"):
            fitting = [mean for (name, _), (mean, count) in reached.items() if name == label and count <= budget]
            assert under[under["label"] == label]["eval_mean"].tolist() == pytest.approx(
                [max(fitting)] if fitting else []
            )


def test_a_difference_over_draws_is_that_of_the_lines() -> None:
    """Of a full table, thirty draws that are asked the same items, whose means vary more than the rest makes them."""
    records = [record for record in load_records(RESULTS / "smollm2-data-seeds") if record.config.task == "rte"]
    pair = ("lora", 1), ("cp", 1)
    runs = [[r for r in records if (r.label, r.config.size) == cell] for cell in pair]
    lines = of_task(read("smollm2-data-seeds"), "rte")
    first, second = (
        {x["config"]["data_seed"]: answers(x["outcome"]) for x in lines if (x["label"], x["config"]["size"]) == cell}
        for cell in pair
    )
    gap = [[a - b for a, b in zip(first[draw], second[draw], strict=True)] for draw in sorted(first)]
    got, wanted = difference([(1, runs[0]), (-1, runs[1])]), judged(gap)
    assert 100 * got.estimate.mean == pytest.approx(wanted["gap"])
    assert 100 * got.estimate.standard_error == pytest.approx(wanted["error"])
    assert [100 * end for end in got.estimate.interval()] == pytest.approx(wanted["interval"])
    assert [100 * mean for mean in got.by_draw] == pytest.approx(wanted["by seed"])


# Loops, with the same random numbers.


def test_resampled_means_are_those_of_the_runs_and_items_drawn() -> None:
    drawn = Simulation(4, 12).draw(np.random.default_rng(32), [0.8, 0.6])
    got = resampled_means(drawn, 5, np.random.default_rng(33))
    rng = np.random.default_rng(33)
    seeds, items = rng.multinomial(3, [1 / 4] * 4, 5), rng.multinomial(11, [1 / 12] * 12, 5)
    for draw in range(5):
        for place, cell in enumerate(drawn):
            values = [
                float(cell.right[s, i])
                for s, i in itertools.product(np.repeat(range(4), seeds[draw]), np.repeat(range(12), items[draw]))
            ]
            assert len(values) == 3 * 11
            assert got[draw, place] == pytest.approx(fmean(values))


def test_the_best_of_halves_is_found_by_loops(pilot: list[Record]) -> None:
    known = list(cells_of(pilot).outcomes.values())
    got = best_of(known, 7, np.random.default_rng(34))
    rng, held_out = np.random.default_rng(34), []
    seeds, items = known[0].right.shape

    def mean(right: np.ndarray, some: np.ndarray, asked: np.ndarray) -> float:
        return fmean(float(right[s, i]) for s in some for i in asked)

    for _ in range(7):
        order, asked = rng.permutation(seeds), rng.permutation(items)
        some, others = order[: -(-seeds // 2)], order[-(-seeds // 2) :]
        half, rest = asked[: -(-items // 2)], asked[-(-items // 2) :]
        best = max(known, key=lambda cell: mean(cell.right, some, half))
        held_out.append(mean(best.right, others, rest))
    assert got.held_out == pytest.approx(fmean(held_out))
    assert got.chosen == pytest.approx(max(float(cell.right.mean()) for cell in known))


def test_a_plateau_is_found_by_walking(pilot: list[Record]) -> None:
    by_size = cells_of(pilot).outcomes
    known = [by_size["cp", size] for size in (1, 4, 11, 44)]
    draws = resampled_means(known, 50, np.random.default_rng(35))
    for margin in (0.0, 0.005, 0.02):
        for means, got in zip(draws.tolist(), plateau(draws, margin).tolist(), strict=True):
            wanted = 0
            while means[wanted] < max(means) - margin:
                wanted += 1
            assert got == wanted


def test_runs_of_one_cell_are_its_outcomes_whatever_their_order(pilot: list[Record]) -> None:
    one = [r for r in pilot if (r.label, r.config.size, r.config.learning_rate) == ("lora", 1, 1e-3)]
    assert outcomes(one).seeds == outcomes(reversed(one)).seeds == ((0, 0), (1, 0), (2, 0))
    assert (outcomes(one).right == outcomes(reversed(one)).right).all()
