"""Records as their files have them, and `cpadapt.analysis.statistics` once more, in loops over plain lists."""

import base64
import functools
import json
import lzma
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize
from scipy.stats import t

from cpadapt.inputs.tasks.specs import TASKS
from cpadapt.records.config import Cell

RESULTS = Path(__file__).parents[1] / "results"


@functools.cache
def read(study: str) -> list[dict[str, Any]]:
    """A study's committed records, line by line, each with what its draw says of the items asked."""
    found = []
    for path in sorted((RESULTS / study).glob("*.jsonl.xz")):
        draws: dict[str, dict[str, Any]] = {}
        for line in map(json.loads, lzma.decompress(path.read_bytes()).decode().splitlines()):
            if "draw" in line:
                draws[line["draw"]["fingerprint"]] = line["draw"]["sets"]
            else:
                for field, kind in (("outcome", "eval"), ("rest", "rest"), ("dev", "dev")):
                    if line[field] is not None:
                        line[field] |= draws[line["data_fingerprint"]][kind]
                found.append(line)
    return found


def seeds_by_cell(lines: Iterable[dict[str, Any]]) -> dict[tuple[str, int], set[int]]:
    """The seeds with which each cell was run, by label and size."""
    found: dict[tuple[str, int], set[int]] = {}
    for line in lines:
        found.setdefault((line["label"], line["config"]["size"]), set()).add(line["config"]["seed"])
    return found


def judged(values: Sequence[Sequence[float]]) -> dict[str, Any]:
    """A table of seeds by items, in points: its mean, its error and 95 % interval, the 90 % one, whose ends are
    one-sided tests, p of no difference from 0, and p of one of a point or more."""
    table = [[100 * x for x in items] for items in values]
    seeds, items = len(table), len(table[0])
    by_seed = [fmean(row) for row in table]
    by_item = [fmean(column) for column in zip(*table, strict=True)]
    mean = fmean(by_seed)
    left = [[x - by_seed[a] - by_item[b] + mean for b, x in enumerate(row)] for a, row in enumerate(table)]
    squares = {
        "seeds": (items * sum((x - mean) ** 2 for x in by_seed) / (seeds - 1), seeds - 1),
        "items": (seeds * sum((x - mean) ** 2 for x in by_item) / (items - 1), items - 1),
        "rest": (sum(x * x for row in left for x in row) / ((seeds - 1) * (items - 1)), (seeds - 1) * (items - 1)),
    }
    (of_seeds, _), (of_items, _), (of_rest, _) = squares.values()
    variance = max(of_seeds, of_items, of_rest, of_seeds + of_items - of_rest)
    degrees = max(
        variance**2 / sum(square**2 / freedom for square, freedom in squares.values()), min(seeds, items) - 1
    )
    error = math.sqrt(variance / (seeds * items))
    reach, less = (float(t.ppf(share, degrees)) * error for share in (0.975, 0.95))
    return {
        "gap": mean,
        "by seed": by_seed,
        "error": error,
        "degrees": degrees,
        "items alone": math.sqrt(max(of_items - of_rest, 0) / seeds / items),
        "interval": (mean - reach, mean + reach),
        "one-sided": (mean - less, mean + less),
        "p": 2 * float(t.sf(abs(mean) / error, degrees)),
        "alike": float(t.sf((1 - abs(mean)) / error, degrees)),
        "items": items,
    }


def signed(points: float, digits: int = 1) -> str:
    """As pages have it, but for the minus, which `Chapter` gives as a hyphen: what rounds to 0 has no sign."""
    text = f"{points:+.{digits}f}"
    return text if text.strip("+-0.") else text[1:]


def bits(bitmap: str, rows: int) -> list[int]:
    """What a record's bitmap holds of each row."""
    packed = base64.b64decode(bitmap)
    return [packed[k // 8] >> (7 - k % 8) & 1 for k in range(rows)]


def answers(outcome: dict[str, Any]) -> list[int]:
    """Right or wrong, item by item, of a run whose record holds this outcome."""
    assert sum(bits(outcome["drawn"], outcome["rows"])) == outcome["total"]
    if "margins" in outcome:
        # A byte each, of which those from 128 on stand for negative numbers.
        return [int(0 < byte < 128) for byte in base64.b64decode(outcome["margins"])]
    return bits(outcome["right"], outcome["total"])


def corrected(p_values: list[float]) -> list[float]:
    """Holm's: the k-th smallest of n times n − k + 1, never less than one before it."""
    found, least = [0.0] * len(p_values), 0.0
    for place, k in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[k]))
        found[k] = least
    return found


def classes(outcome: dict[str, Any]) -> list[int]:
    """The classes of the items asked, by row."""
    return list(base64.b64decode(outcome["labels"]))


def weights(labels: Sequence[int]) -> list[float]:
    """What each item counts, so that a mean over items is the mean over classes of their items' means."""
    return [len(labels) / len(set(labels)) / labels.count(one) for one in labels]


def by_draw(study: str, weights: Callable[[str], Mapping[Cell, float]]) -> dict[str, dict[int, float]]:
    """A weighted sum of the share right over eval and rest rows, by task and draw."""
    found: dict[str, dict[int, float]] = {}
    for line in read(study):
        config = line["config"]
        if weight := weights(config["task"]).get((line["label"], config["size"])):
            right = [*answers(line["outcome"]), *answers(line["rest"])] if line["rest"] else answers(line["outcome"])
            draws = found.setdefault(config["task"], {})
            draws[config["data_seed"]] = draws.get(config["data_seed"], 0.0) + weight * float(np.mean(right))
    return {task: dict(sorted(draws.items())) for task, draws in found.items()}


@functools.cache
def best_on_dev(study: str) -> dict[str, Cell]:
    """The adapter of each task with the highest accuracy on dev, at each run's best step."""
    on_dev: dict[str, dict[Cell, list[float]]] = {}
    for line in read(study):
        if line["label"] != "head":
            cell = line["label"], line["config"]["size"]
            right = max(found["dev_correct"] / found["dev_total"] for found in line["evaluations"])
            on_dev.setdefault(line["config"]["task"], {}).setdefault(cell, []).append(right)
    return {task: max(cells, key=lambda cell: np.mean(cells[cell])) for task, cells in on_dev.items()}


class OverSources(NamedTuple):
    mean: float
    error: float
    degrees: int
    spread: float


def over_sources(found: Mapping[str, Mapping[int, float]], errors: Mapping[str, float]) -> OverSources:
    """Paule and Mandel's mean over sources of tasks, with Knapp and Hartung's error and that of shared draws."""
    sources: dict[str, list[str]] = {}
    for task in found:
        sources.setdefault(TASKS[task].source_group or task, []).append(task)
    each = np.array([np.mean([list(found[task].values()) for task in tasks], axis=0) for tasks in sources.values()])
    means = each.mean(1)
    variances = np.array([sum(errors[task] ** 2 for task in tasks) / len(tasks) ** 2 for tasks in sources.values()])

    def left(spread: float) -> float:
        weights = 1 / (variances + spread)
        mean = weights @ means / weights.sum()
        return float(weights @ (means - mean) ** 2 - (len(means) - 1))

    spread = optimize.brentq(left, 0, 1) if left(0) > 0 else 0.0
    weights = 1 / (variances + spread)
    mean = weights @ means / weights.sum()
    variance = weights @ (means - mean) ** 2 / (len(means) - 1) / weights.sum()
    together = np.cov(each)
    shared = (together.sum() - np.trace(together)) / (len(means) * (len(means) - 1))
    return OverSources(mean, np.sqrt(variance + max(shared, 0) / each.shape[1]), len(means) - 1, np.sqrt(spread))
