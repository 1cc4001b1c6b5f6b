"""An encoder with all examples: one number of each kind again, from the records' own lines."""

import functools
import statistics
from typing import Any

import numpy as np
import pytest
from by_hand import answers, classes, corrected, judged, read, weights

from companion import encoder, quantities

Cell = tuple[str, int]
HEAD = ("head", 0)
ADAPTERS = [*(("lora", rank) for rank in (1, 2, 4, 8)), *(("cp", size) for size in (1, 2, 4, 9, 19, 38, 76))]
PAIRS = [(("lora", 2), ("cp", 19)), (("lora", 4), ("cp", 38)), (("lora", 8), ("cp", 76))]


@functools.cache
def lines(task: str) -> list[dict[str, Any]]:
    found = [line for line in read("minilm") if line["config"]["task"] == task]
    return sorted(found, key=lambda line: line["config"]["seed"])


@functools.cache
def right(task: str, cell: Cell) -> np.ndarray:
    """Right or wrong, seed by seed and item by item."""
    of_cell = [line for line in lines(task) if (line["label"], line["config"]["size"]) == cell]
    return np.array([answers(line["outcome"]) for line in of_cell], dtype=float)


def difference(task: str, after: Cell, before: Cell) -> dict[str, Any]:
    return judged((right(task, after) - right(task, before)).tolist())


def over_head(task: str, *places: Cell) -> dict[str, Any]:
    """On the average over cells, in balanced accuracy."""
    gain = np.mean([right(task, place) for place in places], axis=0) - right(task, HEAD)
    return judged((gain * np.array(weights(classes(lines(task)[0]["outcome"])))).tolist())


def value(name: str) -> Any:
    return quantities.value(f"encoder.{name}")


def test_a_step() -> None:
    found, by_hand = value("step.cp9_cp1.sick"), difference("sick", ("cp", 9), ("cp", 1))
    assert (found.value, found.low, found.high, found.n) == pytest.approx((by_hand["gap"], *by_hand["interval"], 10))


def test_steps_and_pairs_that_are_clear() -> None:
    p_values = corrected([difference("mrpc", *pair)["p"] for pair in encoder.STEPS.values()])
    for name, p in zip(encoder.STEPS, p_values, strict=True):
        assert ("MRPC" in value(f"clear.{name}").value) == (p < 0.05)
    assert [p < 0.05 for p in corrected([difference("boolq", *pair)["p"] for pair in PAIRS])] == [False, True, True]
    alike = [difference(task, *pair)["alike"] for task in ("sst2", "sick", "mrpc", "boolq") for pair in PAIRS]
    assert value("alike_pairs").value == sum(p < 0.05 for p in alike)


def test_what_is_not_learned() -> None:
    found, by_hand = value("over_head.rte"), over_head("rte", *(place for pair in PAIRS for place in pair))
    assert (found.value, found.low, found.high) == pytest.approx((by_hand["gap"], *by_hand["one-sided"]))
    unfit = [cell for cell in ADAPTERS if over_head("boolq", cell)["one-sided"][0] <= 0]
    assert unfit == [("lora", 4), ("lora", 8)]
    assert value("unfit").value == "LoRA 4 on BoolQ and LoRA 8 on BoolQ"


def test_one_components_way() -> None:
    means = {cell: statistics.mean(right("mrpc", cell).mean(1)) for cell in [HEAD, *ADAPTERS]}
    floor = max(means[HEAD], lines("mrpc")[0]["data"]["sets"]["eval"]["majority_rate"])
    assert value("way.mrpc").value == pytest.approx(100 * (means["cp", 1] - floor) / (max(means.values()) - floor))


def test_runs_with_one_answer() -> None:
    of_item = np.array(classes(lines("boolq")[0]["outcome"]))
    assert value("collapsed.boolq").value == sum(
        set(of_item[run == 1]) in ({0}, {1}) and set(of_item[run == 0]) in ({0}, {1})
        for run in right("boolq", ("lora", 8))
    )


def test_the_rates_are_the_better_on_dev_of_two() -> None:
    by_rate: dict[float, list[float]] = {}
    for line in read("minilm-sst2"):
        if line["label"] == "cp":
            dev = max(e["dev_correct"] / e["dev_total"] for e in line["evaluations"])
            by_rate.setdefault(line["config"]["learning_rate"], []).append(dev)
    means = {rate: statistics.mean(found) for rate, found in by_rate.items()}
    assert value("better_rate.cp").value == max(means, key=means.__getitem__)


def test_balanced_accuracies() -> None:
    counts = np.array(weights(classes(lines("sick")[0]["outcome"])))
    shares = {cell: 100 * float((right("sick", cell) * counts).mean()) for cell in [HEAD, *ADAPTERS]}
    (row,) = encoder.balanced_table().query("task == 'SICK'").to_dict("records")
    expected = [*(f"{share:.1f}" for share in (shares[HEAD], shares["cp", 1], max(shares.values()))), "33.3"]
    assert list(row.values()) == ["SICK", *expected]
