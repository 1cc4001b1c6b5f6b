"""A task's tables and figures, on simulated cells and against loops over plain lists."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from by_hand import corrected, judged
from simulated import Simulation, cell

from companion import one_task
from companion.wording import bounds, signed
from cpadapt.analysis.cells import Cells
from cpadapt.analysis.statistics import Outcomes
from cpadapt.errors import InputError

GRID = [("head", 0), ("lora", 1), ("lora", 2), ("cp", 1), ("cp", 11), ("cp", 22)]
BUDGETS = dict(zip(GRID, [0, 1000, 2000, 90, 990, 1980], strict=True))


def made(accuracies: list[float], seeds: int = 3, items: int = 200) -> Cells:
    drawn = Simulation(seeds, items).draw(np.random.default_rng(0), accuracies)
    return Cells(BUDGETS, dict(zip(GRID, drawn, strict=True)), {"cp": (0, 9), "lora": (0, 6)}, 0.5)


CELLS = made([0.6, 0.8, 0.82, 0.7, 0.79, 0.8])


def rows(table: pd.DataFrame) -> list[dict[Any, Any]]:
    return table.to_dict("records")


def test_accuracies_have_the_errors_of_seeds_and_items() -> None:
    found = rows(one_task.accuracies(CELLS))
    assert [(row["label"], row["size"]) for row in found] == sorted(GRID)
    for row in found:
        place = row["label"], row["size"]
        expected = judged(CELLS.outcomes[place].right.tolist())
        assert row["parameters"] == BUDGETS[place]
        assert 100 * row["mean"] == pytest.approx(expected["gap"])
        assert 100 * row["error"] == pytest.approx(expected["error"])
        assert 100 * row["sd"] == pytest.approx(np.std(expected["by seed"], ddof=1))


def test_differences_are_cps_minus_loras_at_matched_budgets() -> None:
    found = rows(one_task.differences(CELLS))
    assert [(row["rank"], row["components"]) for row in found] == [(1, 11), (2, 22)]
    p_values = []
    for row in found:
        cp, lora = (CELLS.outcomes[place].right for place in (("cp", row["components"]), ("lora", row["rank"])))
        expected = judged((cp - lora).tolist())
        assert 100 * row["mean"] == pytest.approx(expected["gap"])
        assert (100 * row["low"], 100 * row["high"]) == pytest.approx(expected["interval"])
        assert row["p"] == pytest.approx(expected["p"])
        p_values.append(expected["p"])
    assert [row["holm"] for row in found] == pytest.approx(corrected(p_values))


def test_a_plateau_is_found_where_it_begins() -> None:
    steep = made([0.6, 0.8, 0.8, 0.6, 0.9, 0.9], seeds=20, items=3000)
    found = rows(one_task.plateaus(steep, "cp", 200, np.random.default_rng(1)))
    assert [row["size"] for row in found] == [1, 11, 22]
    means = [steep.outcomes["cp", size].right.mean() for size in (1, 11, 22)]
    first = next(k for k, mean in enumerate(means) if mean >= max(means) - 0.01)
    assert [row["chosen"] for row in found] == [k == first for k in range(3)]
    assert sum(row["share"] for row in found) == pytest.approx(1)
    assert found[0]["share"] == 0, "far below"
    with pytest.raises(InputError, match=r"'lokr'.*'cp'"):
        one_task.plateaus(steep, "lokr", 10, np.random.default_rng(0))


def test_items_that_change_are_named_by_their_row() -> None:
    before, after = cell([[1, 0, 0, 1], [1, 0, 1, 1]]), cell([[1, 1, 1, 0], [1, 1, 1, 0]])
    before = Outcomes(before.seeds, (5, 8, 13, 21), before.right)
    after = Outcomes(after.seeds, (5, 8, 13, 21), after.right)
    found = one_task.changes(before, after)
    assert found["gained"] == (8,)
    assert found["lost"] == (21,)
    assert found["alike_before"] == 3 / 4
    assert found["alike_after"] == 1
    # Seed 0 before with seed 1 after agree on the first item, seed 1 before with seed 0 after on the third too.
    assert found["alike"] == (1 / 4 + 2 / 4) / 2


def evaluations() -> pd.DataFrame:
    found = [(*place, step, step / 10 + seed) for place in GRID for seed in (0, 1, 2) for step in (10, 20)]
    return pd.DataFrame(found, columns=["label", "size", "step", "train_loss"])


def test_what_is_not_on_record_is_refused() -> None:
    with pytest.raises(InputError, match=r"'mrpc' in results/smollm2"):
        one_task.task_on_record("smollm2", "mrpc")


def test_last_losses_are_means_over_seeds_at_the_last_evaluation() -> None:
    assert one_task.last_losses(evaluations()) == dict.fromkeys(GRID, 3.0)


def test_tables_are_the_numbers_in_points() -> None:
    number = one_task.accuracies(CELLS).iloc[0]
    shown = one_task.accuracy_table(CELLS, evaluations()).iloc[0]
    assert shown.to_dict() == {
        "adapter": "CP 1",
        "scalars": "90",
        "accuracy, %": f"{100 * number['mean']:.1f}",
        "sd over seeds": f"{100 * number['sd']:.1f}",
        "standard error": f"{100 * number['error']:.1f}",
        "training loss": "3.000",
    }
    assert one_task.accuracy_table(CELLS, evaluations())["adapter"].tolist()[3] == "head only"
    gap = one_task.differences(CELLS).iloc[1]
    shown = one_task.difference_table(CELLS).iloc[1]
    assert shown["CP − LoRA, points"] == signed(gap["mean"])
    assert shown["95 % interval"] == bounds((gap["low"], gap["high"]))
    shares = one_task.plateau_table(CELLS)
    assert shares["adapter"].tolist() == ["CP 1", "CP 11", "CP 22", "LoRA 1", "LoRA 2"]
    assert (shares["within a point of the best"] == "first").sum() == 2
    changed = one_task.change_table(CELLS)
    assert changed["from, to"].tolist() == ["head only, CP 1", "CP 1, CP 22", "LoRA 1, LoRA 2", "LoRA 2, CP 22"]
