"""Seeds and items: every number again from the records' own lines, and what is said of them."""

import functools
import itertools
import json
import math
import statistics
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from by_hand import answers, judged
from scipy.stats import nct, t

ROOT = Path(__file__).parents[2]
Chapters = Callable[[str], Any]
TASKS = {"sst2": "SST-2", "rte": "RTE", "boolq": "BoolQ"}
PAIRS = ((1, 11), (2, 22), (3, 33), (4, 44), (6, 66), (8, 88))
CP = (1, 2, 4, 8, 11, 15, 19, 22, 33, 44, 66, 88)
KINDS = ACCURACY, FAMILIES, SIZES = "one accuracy", "LoRA − CP, one budget", "CP, one size and the next"
LINES = [
    line
    for path in (ROOT / "results" / "smollm2").glob("*.jsonl")
    for line in map(json.loads, path.read_text(encoding="utf-8").splitlines())
]


@functools.cache
def cells(task: str) -> dict[tuple[str, int], np.ndarray]:
    """Right or wrong, seed by seed and item by item."""
    of = sorted((line for line in LINES if line["config"]["task"] == task), key=lambda line: line["config"]["seed"])
    places = {(line["label"], line["config"]["size"]) for line in of}
    return {
        place: np.array([answers(r["outcome"]) for r in of if (r["label"], r["config"]["size"]) == place], dtype=float)
        for place in places
    }


@functools.cache
def tables(task: str) -> dict[str, list[np.ndarray]]:
    right = cells(task)
    return {
        ACCURACY: [table for (label, _), table in right.items() if label != "head"],
        FAMILIES: [right["lora", rank] - right["cp", size] for rank, size in PAIRS],
        SIZES: [right["cp", b] - right["cp", a] for a, b in itertools.pairwise(CP)],
    }


class Parts:
    """Variances of seeds, items and the rest in squared points: the mean squares of all tables, averaged."""

    def __init__(self, of: list[np.ndarray]) -> None:
        of = [100 * table for table in of]
        self.seeds, self.items = of[0].shape
        left = [x - x.mean(1, keepdims=True) - x.mean(0) + x.mean() for x in of]
        free = (self.seeds - 1) * (self.items - 1)
        self.rest = float(np.mean([(x**2).sum() / free for x in left]))
        by_seed = float(np.mean([self.items * x.mean(1).var(ddof=1) for x in of]))
        by_item = float(np.mean([self.seeds * x.mean(0).var(ddof=1) for x in of]))
        self.of_seed = max(by_seed - self.rest, 0) / self.items
        self.of_item = max(by_item - self.rest, 0) / self.seeds

    def error(self, seeds: float, items: int | None = None) -> float:
        items = items or self.items
        return math.sqrt(self.of_seed / seeds + self.of_item / items + self.rest / seeds / items)

    def power(self, effect: float, seeds: int, items: int) -> float:
        """By the non-central t, in points."""
        of_seeds, of_items = items * self.of_seed + self.rest, seeds * self.of_item + self.rest
        whole = max(of_seeds + of_items - self.rest, of_seeds, of_items)
        squares = ((of_seeds, seeds - 1), (of_items, items - 1), (self.rest, (seeds - 1) * (items - 1)))
        spread = sum(square**2 / free for square, free in squares)
        degrees = max(whole**2 / spread, min(seeds, items) - 1)
        reach, shift = float(t.ppf(0.975, degrees)), effect / self.error(seeds, items)
        return float(nct.sf(reach, degrees, shift) + nct.cdf(-reach, degrees, shift))


@pytest.fixture(scope="module")
def parts() -> dict[str, dict[str, Parts]]:
    return {task: {kind: Parts(of) for kind, of in tables(task).items()} for task in TASKS}


def test_sources(chapter: Chapters, parts: dict[str, dict[str, Parts]]) -> None:
    rows = chapter("noise").rows("seeds", "items", "rest")
    assert [(row["task"], row["of"]) for row in rows] == [(name, kind) for name in TASKS.values() for kind in KINDS]
    for row, part in zip(rows, (parts[task][kind] for task in TASKS for kind in KINDS), strict=True):
        expected = {
            "seeds": math.sqrt(part.of_seed),
            "items": math.sqrt(part.of_item / part.items),
            "rest": math.sqrt(part.rest / part.items),
        } | {
            name: part.error(n) for name, n in (("1 seed", 1), ("3 seeds", 3), ("10 seeds", 10), ("no end", math.inf))
        }
        for name, error in expected.items():
            if row[name] == "–":
                assert error == 0
            else:
                assert float(row[name]) == pytest.approx(error, abs=0.0051)


def test_needs(chapter: Chapters, parts: dict[str, dict[str, Parts]]) -> None:
    rows = chapter("noise").rows("seeds, for 0.5", "items, for 2")
    kinds = [FAMILIES, SIZES]
    assert [(row["task"], row["of"]) for row in rows] == [(name, kind) for name in TASKS.values() for kind in kinds]
    for row, part in zip(rows, (parts[task][kind] for task in TASKS for kind in kinds), strict=True):
        for effect in (0.5, 1, 2):
            by_seeds, by_items = row[f"seeds, for {effect}"], row[f"items, for {effect}"]
            if by_seeds == "never":
                assert part.power(effect, 1000, part.items) < 0.8
            else:
                count = int(by_seeds.replace(",", ""))
                assert part.power(effect, count - 1, part.items) < 0.8 <= part.power(effect, count, part.items)
            if by_items == "never":
                assert part.power(effect, 10, 100_000) < 0.8
            else:
                count = int(by_items.replace(",", ""))
                assert part.power(effect, 10, count - 1) < 0.8 <= part.power(effect, 10, count)


def test_numbers(chapter: Chapters, parts: dict[str, dict[str, Parts]]) -> None:
    page = chapter("noise")
    one = page.rows("seeds, for 0.5")[0]["seeds, for 1"]
    of_all = tomllib.loads((ROOT / "book" / "published.toml").read_text(encoding="utf-8"))["validation"]["boolq"]
    on_all = (parts["boolq"][FAMILIES].power(1, seeds, of_all) for seeds in itertools.count(2))
    expected = {
        "boolq_all": f"{of_all:,}",
        "boolq_all_one": str(next(seeds for seeds, power in enumerate(on_all, 2) if power >= 0.8)),
        "seeds": "3", "ten": "10", "most": "1,000", "most_items": "100,000", "pairs": "6", "rte_items": "277",
        "sst2_one": one, "rte_accuracy_end": f"{parts['rte'][ACCURACY].error(math.inf):.1f}",
    }  # fmt: skip
    for task in TASKS:
        right, families = cells(task), parts[task][FAMILIES]
        apart = [
            statistics.mean(float((table[a] != table[b]).mean()) for a, b in itertools.combinations(range(3), 2))
            for (label, _), table in right.items()
            if label != "head"
        ]
        alone = [Parts([right[label, pair[k]] for pair in PAIRS]).error(3) for k, label in enumerate(("lora", "cp"))]
        average = judged(np.mean(tables(task)[FAMILIES], axis=0).tolist())
        expected |= {
            f"{task}_error": f"{families.error(3):.2f}",
            f"{task}_end": f"{families.error(math.inf):.2f}",
            f"{task}_unpaired": f"{math.hypot(*alone):.2f}",
            f"{task}_apart": f"{100 * statistics.mean(apart):.0f}",
            f"{task}_average": f"{average['error']:.2f}",
        }
    assert page.glued == expected


def test_what_is_said(chapter: Chapters, parts: dict[str, dict[str, Parts]]) -> None:
    needs = {(row["task"], row["of"]): row for row in chapter("noise").rows("seeds, for 0.5")}
    assert {needs[name, FAMILIES]["seeds, for 0.5"] for name in TASKS.values()} == {"never"}
    assert {needs[name, FAMILIES]["seeds, for 1"] for name in ("RTE", "BoolQ")} == {"never"}
    for task, of in parts.items():
        assert of[ACCURACY].of_item / of[ACCURACY].items > of[ACCURACY].error(1) ** 2 / 2, "it is the items that count"
        assert of[FAMILIES].rest / of[FAMILIES].items > of[FAMILIES].of_seed, "chiefly the rest"
        assert of[FAMILIES].rest > of[FAMILIES].of_item
        assert of[SIZES].of_item < of[FAMILIES].of_item, "share more"
        assert chapter(task).glued["clear"] == "none", "no surprise"
        glued = chapter("noise").glued
        assert float(glued[f"{task}_unpaired"]) > 1.9 * float(glued[f"{task}_error"])
        assert float(glued[f"{task}_average"]) < float(glued[f"{task}_error"])
    for study in ("smollm2-seeds", "smollm2-data-seeds"):
        assert (ROOT / "studies" / f"{study}.toml").is_file()
        assert not (ROOT / "results" / study).exists(), "then the page has to say what came of it"


def test_the_chart(chapter: Chapters, parts: dict[str, dict[str, Parts]]) -> None:
    (chart,) = chapter("noise").charts
    drawn = [row for rows in chart["datasets"].values() for row in rows if "seeds" in row]
    assert {row["task"] for row in drawn} == set(TASKS)
    assert {row["effect"] for row in drawn} == {0.005, 0.01, 0.02}
    for row in drawn:
        of = parts[row["task"]][FAMILIES]
        assert row["power"] == pytest.approx(of.power(100 * row["effect"], row["seeds"], of.items), abs=1e-6)
