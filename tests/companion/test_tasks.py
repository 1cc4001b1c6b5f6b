"""The three tasks under the paper's protocol: one number of each kind again, from the records' own lines."""

import functools
import statistics
from typing import Any

import numpy as np
import pytest
from by_hand import answers, classes, corrected, judged, read, weights

from companion import quantities

pytestmark = pytest.mark.slow  # the book's numbers, which whoever asks first computes

Cell = tuple[str, int]
MATCHED = ((1, 11), (2, 22), (3, 33), (4, 44), (6, 66), (8, 88))
PLACES = [place for rank, size in MATCHED for place in (("lora", rank), ("cp", size))]


@functools.cache
def lines(task: str) -> list[dict[str, Any]]:
    found = [line for line in read("smollm2") if line["config"]["task"] == task]
    return sorted(found, key=lambda line: line["config"]["seed"])


def of_cell(task: str, cell: Cell) -> list[dict[str, Any]]:
    return [line for line in lines(task) if (line["label"], line["config"]["size"]) == cell]


def right(task: str, cell: Cell) -> np.ndarray:
    """Right or wrong, seed by seed and item by item."""
    return np.array([answers(line["outcome"]) for line in of_cell(task, cell)], dtype=float)


def value(name: str) -> Any:
    return quantities.value(f"tasks.{name}")


def test_loras_lead_over_all_matched_budgets() -> None:
    gaps = [right("rte", ("lora", rank)) - right("rte", ("cp", size)) for rank, size in MATCHED]
    by_hand = judged(np.mean(gaps, axis=0).tolist())
    found = value("lead.rte")
    assert (found.value, found.low, found.high) == pytest.approx((by_hand["gap"], *by_hand["interval"]))
    assert found.n == 3
    assert value("lead_error.rte").value == pytest.approx(by_hand["error"])
    assert value("lead_error_limit.rte").value == pytest.approx(by_hand["items alone"])
    each = [judged(gap.tolist()) for gap in gaps]
    assert value("least_lead.rte").value == pytest.approx(min(gap["gap"] for gap in each))
    assert value("clear.rte").value == sum(p < 0.05 for p in corrected([gap["p"] for gap in each]))


def test_the_gain_over_the_readout_in_balanced_accuracy() -> None:
    counts = np.array(weights(classes(lines("boolq")[0]["outcome"])))
    head = right("boolq", ("head", 0))
    by_hand = judged(((np.mean([right("boolq", place) for place in PLACES], axis=0) - head) * counts).tolist())
    found = value("gain.boolq")
    assert (found.value, found.low, found.high) == pytest.approx((by_hand["gap"], *by_hand["one-sided"]))
    lows = [judged(((right("boolq", p) - head) * counts).tolist())["one-sided"][0] for p in PLACES]
    assert value("taught.boolq").value == sum(low > 0 for low in lows)
    assert value("compared.boolq").value == len(PLACES)


def test_how_cells_lie() -> None:
    trained = [line for line in lines("sst2") if line["label"] != "head"]
    shares = {cell: [] for cell in {(line["label"], line["config"]["size"]) for line in trained}}
    for line in trained:
        shares[line["label"], line["config"]["size"]].append(100 * statistics.mean(answers(line["outcome"])))
    means = {cell: statistics.mean(found) for cell, found in shares.items()}
    assert [value(f"adapters.sst2.{end}").value for end in ("least", "most")] == pytest.approx(
        [min(means.values()), max(means.values())]
    )
    of_cp = {size: mean for (label, size), mean in means.items() if label == "cp"}
    assert value("best.sst2.cp").value == pytest.approx(max(of_cp.values()))


def test_dev_and_training() -> None:
    trained = [line for line in lines("boolq") if line["label"] != "head"]
    on_dev = [max(e["dev_correct"] / e["dev_total"] for e in line["evaluations"]) for line in trained]
    on_eval = [line["outcome"]["correct"] / line["outcome"]["total"] for line in trained]
    assert value("dev_over_eval.boolq").value == pytest.approx(
        100 * (statistics.mean(on_dev) - statistics.mean(on_eval))
    )
    assert value("correlation.boolq").value == pytest.approx(statistics.correlation(on_dev, on_eval))
    assert value("early.boolq").value == sum(line["best_step"] == 1000 for line in trained)
    assert value("late.boolq").value == sum(line["best_step"] == 5000 for line in trained)
    losses = [line["evaluations"][-1]["train_loss"] for line in of_cell("boolq", ("cp", 11))]
    assert value("loss.boolq.matched").value == pytest.approx(statistics.mean(losses))
    rates = {line["label"]: line["config"]["learning_rate"] for line in trained}
    assert (value("rate.cp").value, value("rate.lora").value) == (rates["cp"], rates["lora"])


def test_items_gained() -> None:
    before, after = right("rte", ("cp", 1)), right("rte", ("cp", 88))
    assert value("change.rte.gained").value == sum(~before.any(0).astype(bool) & after.all(0))
    assert value("change.rte.lost").value == sum(before.all(0) & ~after.any(0).astype(bool))
