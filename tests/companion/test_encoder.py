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


@pytest.mark.slow
def test_steps_and_pairs_that_are_clear() -> None:
    p_values = corrected([difference("mrpc", *pair)["p"] for pair in encoder.STEPS.values()])
    by_name = dict(zip(encoder.STEPS, p_values, strict=True))
    for name in encoder.CHARTED:
        assert ("MRPC" in value(f"clear.{name}").value) == (by_name[name] < 0.05)
    p_values = corrected([difference("boolq", *pair)["p"] for pair in PAIRS])
    assert encoder.matched().query("group == 'BoolQ'")["holm"].tolist() == pytest.approx(p_values)
    assert [p < 0.05 for p in p_values] == [False, True, True]


def test_what_is_not_learned() -> None:
    shown = [cell for cell in ADAPTERS if over_head("rte", cell)["one-sided"][0] > 0]
    assert value("fit.rte").value == len(shown) == 0


@pytest.mark.parametrize(("task", "best"), [("mrpc", ("lora", 1)), ("boolq", ("cp", 38))])
def test_one_components_way(task: str, best: Cell) -> None:
    """At either end of the interval the remainder is as far from zero as its own interval reaches."""
    means = {cell: statistics.mean(right(task, cell).mean(1)) for cell in [HEAD, *ADAPTERS]}
    assert max(means, key=means.__getitem__) == best
    commonest = lines(task)[0]["data"]["sets"]["eval"]["majority_rate"]
    floor = np.full_like(right(task, best), commonest) if commonest > means[HEAD] else right(task, HEAD)
    found = value(f"way.{task}")
    least = float(floor.mean())
    assert found.value == pytest.approx(100 * (means["cp", 1] - least) / (means[best] - least))
    for end, at in ((0, found.high), (1, found.low)):
        remainder = right(task, ("cp", 1)) - floor - at / 100 * (right(task, best) - floor)
        assert judged(remainder.tolist())["interval"][1 - end] == pytest.approx(0, abs=1e-6)


def test_a_gain_over_the_head() -> None:
    (row,) = encoder.gains("sst2").query("label == 'lora' and size == 1").to_dict("records")
    by_hand = difference("sst2", ("lora", 1), HEAD)
    assert (row["gain"], row["low"], row["high"]) == pytest.approx((by_hand["gap"], *by_hand["interval"]))
    assert row["scalars"] == 9216
    assert len(encoder.gains("sst2")) == len(ADAPTERS)


@pytest.mark.slow
def test_the_charts_show_what_is_learned_and_each_with_its_task() -> None:
    spec = encoder.gain_charts().to_dict()
    assert [chart["title"] for chart in spec["concat"]] == ["SST-2", "SICK", "MRPC", "BoolQ"]
    assert spec["concat"][0]["description"].startswith("Points over the head alone on SST-2: CP 1 +3.3, CP 2 +4.0")
    assert "params" not in spec, "each chart is drawn for itself"
    (way,) = (data for data in encoder.way_chart().to_dict()["datasets"].values())
    assert [row["said"] for row in way] == [f"{value(f'way.{task}').value:.0f}%" for task in encoder.taught()]
    assert set(encoder.charted_steps()["group"]) == {"SST-2", "SICK", "MRPC", "BoolQ"}
    assert len(encoder.charted_steps()) == 12


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
