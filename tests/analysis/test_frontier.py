"""From runs to a frontier, on tables made by hand."""

from typing import Any

import pandas as pd
import pytest

from cpadapt.analysis.frontier import CELL, best_under_budget, cells, frontier
from cpadapt.errors import InputError
from cpadapt.records.table import tabulate

NO_RUNS = tabulate([])[0]


def runs(*rows: dict[str, Any]) -> pd.DataFrame:
    """Runs of one CP cell unless a row says otherwise."""
    common = {
        "study": "s", "backbone": "tiny", "task": "sst2", "label": "cp", "family": "cp", "size": 4,
        "parameters": 400, "learning_rate": 1e-3, "protocol": "p", "seed": 0, "dev_accuracy": 0.5,
        "eval_accuracy": 0.5, "diverged_at": None,
    }  # fmt: skip
    made = [common | {"id": str(k)} | row for k, row in enumerate(rows)]
    return pd.DataFrame(made, columns=list(NO_RUNS.columns))


def run(rate: float | None, dev: float | None, accuracy: float | None, **changes: Any) -> dict[str, Any]:
    return {"learning_rate": rate, "dev_accuracy": dev, "eval_accuracy": accuracy, **changes}


HEAD = {"label": "head", "family": "head", "size": 0, "parameters": 0}


def test_cells_gather_seeds() -> None:
    table = cells(runs(*(run(1e-3, dev, acc) for dev, acc in ((0.6, 0.70), (0.8, 0.74), (0.7, 0.90)))))
    (row,) = table.to_dict("records")
    assert row["runs"] == 3
    assert row["diverged"] == 0
    assert row["dev_mean"] == pytest.approx(0.7)
    assert row["eval_mean"] == pytest.approx(0.78)
    # (0.08² + 0.04² + 0.12²) / (3 − 1) = 0.0112
    assert row["eval_sd"] == pytest.approx(0.0112**0.5)
    assert (row["eval_low"], row["eval_high"]) == (0.70, 0.90)


def test_runs_under_two_protocols_are_not_pooled() -> None:
    with pytest.raises(InputError, match=r"study 's' on 'sst2' with tiny are of 2 protocols \(a, b\)"):
        frontier(runs(run(1e-3, 0.6, 0.7, protocol="a"), run(1e-3, 0.6, 0.7, protocol="b")))
    assert len(cells(runs(run(1e-3, 0.6, 0.7, protocol="a"), run(1e-3, 0.6, 0.7, protocol="b", study="t")))) == 2


def test_runs_of_two_teachers_are_not_pooled() -> None:
    other = runs(run(1e-3, 0.6, 0.7, teacher="CP 4"), run(1e-3, 0.6, 0.7))
    with pytest.raises(InputError, match=r"are of 2 teachers \(CP 4, none\).*by the column teacher"):
        frontier(other)
    assert len(cells(runs(run(1e-3, 0.6, 0.7, teacher="CP 4")))) == 1


def test_runs_on_other_weights_are_not_pooled() -> None:
    other = runs(run(1e-3, 0.6, 0.7, weights="a"), run(1e-3, 0.6, 0.7, weights="b"))
    with pytest.raises(InputError, match=r"are of 2 backbone's weights \(a, b\).*by the column weights"):
        cells(other)


def test_one_run_has_no_spread() -> None:
    assert cells(runs(run(1e-3, 0.6, 0.7)))["eval_sd"].isna().all()


@pytest.mark.parametrize(
    ("rows", "rate"),
    [
        ([run(1e-3, 0.6, 0.9), run(4e-3, 0.7, 0.1)], 4e-3),  # by dev, never by eval
        ([run(4e-3, 0.7, 0.9), run(1e-3, 0.7, 0.1)], 1e-3),  # of equals the lowest
        ([run(1e-3, 0.6, 0.6), run(4e-3, None, None, diverged_at=3)], 1e-3),  # where all diverged: none to choose
        ([run(4e-3, 0.6, 0.6), run(1e-3, None, None, diverged_at=3)], 4e-3),
        ([run(1e-3, 0.6, 0.6), run(4e-3, 0.9, 0.9), run(4e-3, None, None, diverged_at=3)], 1e-3),  # survivors flatter
        ([run(1e-3, 0.9, 0), run(1e-3, 0.1, 0), run(4e-3, 0.6, 0), run(4e-3, 0.6, 0)], 4e-3),  # means
    ],
)
def test_dev_chooses_the_rate(rows: list[dict[str, Any]], rate: float) -> None:
    assert frontier(runs(*rows))["learning_rate"].tolist() == [rate]


@pytest.mark.parametrize("others", [[], [run(1e-3, 0.7, 0.7)]])
def test_head_only_has_no_rate_and_stays(others: list[dict[str, Any]]) -> None:
    table = frontier(runs(*others, run(None, 0.5, 0.5, **HEAD), run(None, 0.6, 0.7, **HEAD)))
    head = table[table["label"] == "head"]
    assert head["learning_rate"].isna().tolist() == [True]
    assert head["runs"].tolist() == [2]
    assert head["eval_mean"].tolist() == [pytest.approx(0.6)]


def test_a_cell_of_which_all_diverged_stays_without_a_figure() -> None:
    rows = [run(rate, None, None, diverged_at=5) for rate in (4e-3, 1e-3, 1e-3)]
    (row,) = frontier(runs(*rows)).to_dict("records")
    assert row["diverged"] == row["runs"] == 2
    assert pd.isna(row["eval_mean"])
    assert row["learning_rate"] == 1e-3


def test_a_run_that_diverged_late_counts_with_its_best_step() -> None:
    (row,) = frontier(runs(run(1e-3, 0.6, 0.7, diverged_at=80), run(1e-3, 0.8, 0.9))).to_dict("records")
    assert (row["runs"], row["diverged"]) == (2, 1)
    assert row["eval_mean"] == pytest.approx(0.8)


def test_what_names_a_cell_is_kept_apart_and_in_order() -> None:
    table = frontier(
        runs(
            run(1e-3, 0.7, 0.7, size=8, parameters=800),
            run(1e-3, 0.7, 0.7, label="lora", family="lora", size=1, parameters=500),
            run(1e-3, 0.7, 0.7, task="rte"),
            run(1e-3, 0.7, 0.7),
            run(1e-3, 0.7, 0.7, study="another"),
            run(1e-3, 0.7, 0.7, label="cp long", size=4),
        )
    )
    assert len(table) == 6
    assert table[["task", "label", "parameters"]].to_numpy().tolist() == [
        ["rte", "cp", 400], ["sst2", "cp", 400], ["sst2", "cp", 400], ["sst2", "cp", 800],
        ["sst2", "cp long", 400], ["sst2", "lora", 500],
    ]  # fmt: skip
    assert list(table.columns[: len(CELL)]) == CELL


def test_no_runs_give_an_empty_table() -> None:
    assert len(frontier(NO_RUNS)) == 0


def test_the_best_under_a_budget_is_the_highest_on_eval_of_what_fits() -> None:
    best = frontier(
        runs(
            run(1e-3, 0.9, 0.70, size=1, parameters=100),
            run(1e-3, 0.1, 0.80, size=2, parameters=200),
            run(1e-3, 0.9, 0.80, size=4, parameters=400),
            run(1e-3, 0.9, 0.90, size=8, parameters=800),
            run(1e-3, None, None, size=3, parameters=300, diverged_at=1),
            run(1e-3, 0.9, 0.60, label="lora", family="lora", size=1, parameters=500),
            run(1e-3, 0.9, 0.99, task="rte", size=1, parameters=100),
            run(None, 0.5, 0.5, **HEAD),
        )
    )

    def under(budget: int) -> set[tuple[str, str, int]]:
        table = best_under_budget(best, budget)
        return set(zip(table["task"], table["label"], table["size"], strict=True))

    head, rte = ("sst2", "head", 0), ("rte", "cp", 1)
    assert under(99) == {head}
    assert under(100) == {head, rte, ("sst2", "cp", 1)}
    assert under(499) == {head, rte, ("sst2", "cp", 2)}  # of equals the smallest
    assert under(500) == {head, rte, ("sst2", "cp", 2), ("sst2", "lora", 1)}
    assert under(10**6) == {head, rte, ("sst2", "cp", 8), ("sst2", "lora", 1)}
    assert list(best_under_budget(best, 500).columns) == list(best.columns)
