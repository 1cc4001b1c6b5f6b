"""Seeds and items: what the chapter's runs are, and one number of each kind again from the records' own lines."""

import functools
import itertools
import json
import math
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from by_hand import answers, judged, read
from scipy.stats import t

from companion import noise, quantities

Cell = tuple[str, int]
LORA, CP, MOST, ONE = ("lora", 1), ("cp", 11), ("cp", 44), ("cp", 1)
TWICE = ("smollm2-data-seeds", "smollm2-data-seeds-again")


@functools.cache
def lines(study: str, task: str) -> list[dict[str, Any]]:
    return [line for line in read(study) if line["config"]["task"] == task]


@functools.cache
def right(study: str, task: str, cell: Cell) -> np.ndarray:
    """Right or wrong, seed by seed, or draw by draw, and item by item."""
    runs = [line for line in lines(study, task) if (line["label"], line["config"]["size"]) == cell]
    runs.sort(key=lambda line: (line["config"]["seed"], line["config"]["data_seed"]))
    return np.array([answers(line["outcome"]) for line in runs], dtype=float)


def over_seeds(task: str, a: Cell, b: Cell) -> dict[str, Any]:
    return judged((right("smollm2-seeds", task, a) - right("smollm2-seeds", task, b)).tolist())


def over_draws(task: str, a: Cell, b: Cell) -> dict[str, Any]:
    """Of the mean of two seeds on each draw."""
    return judged(np.mean([right(study, task, a) - right(study, task, b) for study in TWICE], axis=0).tolist())


@pytest.mark.parametrize(
    ("over", "compared", "names"),
    [
        (over_seeds, ("sst2", LORA, CP), "noise.over_seeds.sst2.lora1_cp11"),
        (over_draws, ("rte", MOST, ONE), "noise.over_draws.rte.cp44_cp1"),
    ],
)
def test_differences(over: Callable[..., dict[str, Any]], compared: tuple[str, Cell, Cell], names: str) -> None:
    found, by_hand = quantities.value(names), over(*compared)
    assert (found.value, found.low, found.high) == pytest.approx((by_hand["gap"], *by_hand["interval"]))
    assert found.n == len(by_hand["by seed"])
    alike = quantities.value(names.replace("noise.over", "noise.alike_over"))
    assert alike.value == pytest.approx(by_hand["alike"])


def test_three_seeds_that_have_the_wrong_sign() -> None:
    table = right("smollm2-seeds", "rte", LORA) - right("smollm2-seeds", "rte", CP)
    by_seed = [round(gap) for gap in table.sum(1).tolist()]
    assert sum(by_seed) > 0
    threes = [sum(three) <= 0 for three in itertools.combinations(by_seed, 3)]
    assert quantities.value("noise.wrong_sign.rte.lora1_cp11").value == pytest.approx(100 * statistics.mean(threes))


def test_spreads() -> None:
    values = (100 * right("smollm2-seeds", "sst2", LORA).mean(1)).tolist()
    assert quantities.value("noise.sd_over_seeds.sst2.lora1").value == pytest.approx(statistics.stdev(values))
    assert quantities.value("noise.mean_over_seeds.sst2.lora1").value == pytest.approx(statistics.mean(values))


def test_dev_over_draws() -> None:
    """RTE's gain after the last step: the draws' own spread, and the items that they share by chance."""
    gaps = [0.0] * 30
    for line in itertools.chain.from_iterable(lines(study, "rte") for study in TWICE):
        cell = line["label"], line["config"]["size"]
        if cell in (MOST, ONE):
            (last,) = (e for e in line["evaluations"] if e["step"] == 2000)
            share = 100 * last["dev_correct"] / last["dev_total"]
            gaps[line["config"]["data_seed"] - 1] += share / 2 if cell == MOST else -share / 2
    source = lines(TWICE[0], "rte")[0]["data"]["source"]["train"]
    table = np.mean([right(study, "rte", MOST) - right(study, "rte", ONE) for study in TWICE], axis=0)
    left = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    draws, items = table.shape
    of_rest = (left**2).sum() / (draws - 1) / (items - 1)
    of_item = 100**2 * (draws * table.mean(0).var(ddof=1) - of_rest) / draws
    error = math.sqrt(statistics.variance(gaps) / 30 + of_item / (source["rows"] - source["left_out_repeats"]))
    reach = float(t.ppf(0.975, 29)) * error
    mean, found = statistics.mean(gaps), quantities.value("noise.on_dev.rte.cp44_cp1")
    assert (found.value, found.low, found.high) == pytest.approx((mean, mean - reach, mean + reach))


def test_the_many_runs_are_one_protocol_in_three_ways() -> None:
    planned = {
        ("smollm2-seeds", "sst2"): (range(100), [0]), ("smollm2-seeds", "rte"): (range(100), [0]),
        ("smollm2-seeds-boolq", "boolq"): (range(30), [0]),
    }  # fmt: skip
    for seed, study in enumerate(TWICE):
        planned |= {(study, task): ([seed], range(1, 31)) for task in ("sst2", "rte")}
    for (study, task), seeds_and_draws in planned.items():
        wanted = sorted(itertools.product(*seeds_and_draws))
        for cell in noise.CELLS.values():
            runs = [line["config"] for line in lines(study, task) if (line["label"], line["config"]["size"]) == cell]
            assert sorted((c["seed"], c["data_seed"]) for c in runs) == wanted
        assert {(line["label"], line["config"]["learning_rate"]) for line in lines(study, task)} == {
            ("head", None), ("lora", 1e-3), ("cp", 2e-3),
        }  # fmt: skip
        assert all(line["diverged_at"] is None for line in lines(study, task))
    runs = [line["config"] for study, task in planned for line in lines(study, task)]
    assert len({json.dumps(config["protocol"], sort_keys=True) for config in runs}) == 1
