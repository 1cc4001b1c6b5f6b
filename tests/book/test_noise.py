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
from by_hand import answers, corrected, judged, read
from scipy.stats import chi2, nct, norm, t

ROOT = Path(__file__).parents[2]
Chapters = Callable[[str], Any]
TASKS = {"sst2": "SST-2", "rte": "RTE", "boolq": "BoolQ"}
PAIRS = ((1, 11), (2, 22), (3, 33), (4, 44), (6, 66), (8, 88))
KEYS = (
    (("lora", 1), ("cp", 11)), (("lora", 1), ("cp", 44)), (("cp", 11), ("cp", 1)), (("cp", 44), ("cp", 11)),
    (("cp", 44), ("cp", 1)), (("cp", 11), ("head", 0)),
)  # fmt: skip
"""The differences of the key cells."""
CP = (1, 2, 4, 8, 11, 15, 19, 22, 33, 44, 66, 88)
KINDS = ACCURACY, FAMILIES, SIZES = "one accuracy", "LoRA − CP, one budget", "CP, one size and the next"
Runs = tuple[str, str]
"""One study's runs of one task."""
AT_PAPERS: dict[str, Runs] = {task: ("smollm2", task) for task in TASKS}
SEEDS, DRAWS, RTE_SEEDS, RTE_DRAWS, OF_BOOLQ = MANY = (
    ("smollm2-seeds", "sst2"), ("smollm2-data-seeds", "sst2"), ("smollm2-seeds", "rte"), ("smollm2-data-seeds", "rte"),
    ("smollm2-seeds-boolq", "boolq"),
)  # fmt: skip
TWICE, RTE_TWICE = (("smollm2-data-seeds+smollm2-data-seeds-again", task) for task in ("sst2", "rte"))
"""Two runs on each draw, which count as one, their mean."""
NAMES = {("head", 0): "head only", ("cp", 1): "CP 1", ("cp", 11): "CP 11", ("cp", 44): "CP 44", ("lora", 1): "LoRA 1"}


@functools.cache
def lines(of: Runs) -> list[dict[str, Any]]:
    study, task = of
    return [line for line in read(study) if line["config"]["task"] == task]


@functools.cache
def cells(of: Runs) -> dict[tuple[str, int], np.ndarray]:
    """Right or wrong, seed by seed, or draw by draw, and item by item."""
    studies, task = of[0].split("+"), of[1]
    if len(studies) > 1:
        each = [cells((study, task)) for study in studies]
        return {place: np.mean([right[place] for right in each], axis=0) for place in each[0]}
    found: dict[tuple[str, int], dict[tuple[int, int], list[int]]] = {}
    for line in lines(of):
        config = line["config"]
        run = config["seed"], config["data_seed"]
        found.setdefault((line["label"], config["size"]), {})[run] = answers(line["outcome"])
    assert all(by_run.keys() == found["head", 0].keys() for by_run in found.values())
    return {
        place: np.array([right for _, right in sorted(by_run.items())], dtype=float) for place, by_run in found.items()
    }


@functools.cache
def tables(task: str) -> dict[str, list[np.ndarray]]:
    right = cells(AT_PAPERS[task])
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
        right, families = cells(AT_PAPERS[task]), parts[task][FAMILIES]
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
    assert page.glued == expected | many() | of_rte() | of_boolq() | over_tasks()


def pooled(found: list[dict[str, Any]]) -> tuple[float, list[float], float]:
    """Mean, 95 % interval and spread τ: weights 1 / (v + τ²), under which what is seen has as many squares as it has
    degrees of freedom; the error is no less than the weights' own."""
    means, errors = ([of[name] for of in found] for name in ("gap", "error"))
    free = len(found) - 1

    def weighed(tau: float) -> tuple[float, float, float]:
        weights = [1 / (error**2 + tau**2) for error in errors]
        mean = sum(w * x for w, x in zip(weights, means, strict=True)) / sum(weights)
        return mean, sum(w * (x - mean) ** 2 for w, x in zip(weights, means, strict=True)), sum(weights)

    low, high = 0.0, 10.0
    for _ in range(60):
        tau = (low + high) / 2
        low, high = (tau, high) if weighed(tau)[1] > free else (low, tau)
    tau = low if low > 1e-6 else 0.0
    mean, squares, weight = weighed(tau)
    reach = float(t.ppf(0.975, free)) * math.sqrt(max(squares / free, 1) / weight)
    return mean, [mean - reach, mean + reach], tau


def over_tasks() -> dict[str, str]:
    lora, encoder = ("lora", 1), ("minilm",)
    first = [difference(lora, ("cp", 11), of) for of in (SEEDS, RTE_SEEDS, OF_BOOLQ)]
    first += [difference(lora, ("cp", 9), (*encoder, task)) for task in ("sst2", "sick", "mrpc", "boolq")]
    above = []
    for task in ("sst2", "sick", "mrpc"):
        of = cells((*encoder, task))
        gaps = [of["lora", rank] - of["cp", size] for rank, size in ((2, 19), (4, 38), (8, 76))]
        above.append(judged(np.mean(gaps, axis=0).tolist()))
    (mean, ends, spread), (mean_above, ends_above, _) = pooled(first), pooled(above)
    assert ends[0] > 0 > ends_above[0], "ahead at its first rank"
    assert ends_above[1] > 0, "no lead is seen"
    return {
        "pooled_cells": str(len(first)),
        "pooled_spread": f"{spread:.1f}",
        "pooled_first": f"{mean:+.2f}",
        "pooled_first_ends": "{:+.2f} to {:+.2f}".format(*ends),
        "pooled_above": f"{mean_above:+.2f}",
        "pooled_above_ends": "{:+.2f} to {:+.2f}".format(*ends_above),
    }


def test_the_cells_of_tasks_and_backbones(chapter: Chapters) -> None:
    rows = chapter("noise").rows("backbone", "LoRA − CP")
    assert len(rows) == 7
    for row, of in zip(rows[:3], (SEEDS, RTE_SEEDS, OF_BOOLQ), strict=True):
        assert row["LoRA − CP"] == f"{TASKS[of[1]]}: LoRA 1 − CP 11"
        assert row["points"] == f"{difference(('lora', 1), ('cp', 11), of)['gap']:+.2f}"
    for row, (task, name) in zip(
        rows[3:], (("sst2", "SST-2"), ("sick", "SICK"), ("mrpc", "MRPC"), ("boolq", "BoolQ")), strict=True
    ):
        assert row["LoRA − CP"] == f"{name}: LoRA 1 − CP 9"
        assert row["points"] == f"{difference(('lora', 1), ('cp', 9), ('minilm', task))['gap']:+.2f}"


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


def accuracies(of: Runs) -> dict[tuple[str, int], list[float]]:
    """In percent, run by run."""
    return {cell: (100 * table.mean(1)).tolist() for cell, table in cells(of).items()}


@functools.cache
def difference(a: tuple[str, int], b: tuple[str, int], of: Runs) -> dict[str, Any]:
    return judged((cells(of)[a] - cells(of)[b]).tolist())


@functools.cache
def mislead(a: tuple[str, int], b: tuple[str, int], of: Runs = SEEDS) -> float:
    """The share of all threes of seeds whose items do not have the sign of all of them."""
    by_seed = [round(x) for x in (cells(of)[a] - cells(of)[b]).sum(1).tolist()]
    way = math.copysign(1, sum(by_seed))
    threes = list(itertools.combinations(by_seed, 3))
    return sum(way * sum(three) <= 0 for three in threes) / len(threes)


def many() -> dict[str, str]:
    """What is glued of the cells with many runs."""
    seeds, draws = accuracies(SEEDS), accuracies(DRAWS)
    adapters = [cell for cell in seeds if cell[0] != "head"]
    sds = [[statistics.stdev(of[cell]) for cell in adapters] for of in (seeds, draws)]
    gap = difference(("lora", 1), ("cp", 11), SEEDS)
    (lora, cp), (lora_drawn, cp_drawn) = (
        [cells(of)[cell] for cell in (("lora", 1), ("cp", 11))] for of in (SEEDS, DRAWS)
    )
    at_papers = difference(("lora", 1), ("cp", 11), AT_PAPERS["sst2"])
    gain, first_gain = (difference(("cp", 44), ("cp", 1), of) for of in (TWICE, DRAWS))
    by_draw = heights(TWICE)
    return {
        "hundred": str(len(seeds["lora", 1])),
        "thirty": str(len(draws["lora", 1])),
        "hundred_gap": f"{gap['gap']:.2f}",
        "hundred_gap_ends": "{:+.2f} to {:+.2f}".format(*gap["interval"]),
        "hundred_misled": f"{100 * mislead(('lora', 1), ('cp', 11)):.0f}",
        "key_steps": "2,000",
        "order_sd": f"{statistics.stdev(seeds['head', 0]):.2f}",
        "low_sd": f"{min(sds[0]):.2f}",
        "high_sd": f"{max(sds[0]):.2f}",
        "low_draw_sd": f"{min(sds[1]):.2f}",
        "high_draw_sd": f"{max(sds[1]):.2f}",
        "most_cp": "44",
        "sst2_items": str(gap["items"]),
        "draws_known": str(len({line["config"]["data_seed"] for of in (SEEDS, DRAWS) for line in lines(of)})),
        "eleven_here": f"{eleven_on_sst2()[2e-3]:.1f}",
        "eleven_best": f"{max(eleven_on_sst2().values()):.1f}",
        "sst2_last_apart_p": dev_over_draws("sst2", *KEYS[1])["apart p"],
        "dev_words": "7",
        "eval_words": "19",
        "dev_nested": "10",
        "eval_nested": "0.2",
        "shared_mean": f"{statistics.mean(heights(SEEDS)):.1f}",
        "worst_draw": f"{min(by_draw):.1f}",
        "best_draw": f"{max(by_draw):.1f}",
        "mean_draw": f"{statistics.mean(by_draw):.1f}",
        "papers_gap": f"{at_papers['gap']:+.2f}",
        "hundred_power": f"{100 * Parts([lora - cp]).power(0.5, 1000, 872):.0f}",
        "gap_sd": f"{100 * statistics.stdev((lora - cp).mean(1).tolist()):.2f}",
        "gap_draw_sd": f"{100 * statistics.stdev((lora_drawn - cp_drawn).mean(1).tolist()):.2f}",
        "draws_gain": f"{gain['gap']:.2f}",
        "draws_gain_ends": "{:+.2f} to {:+.2f}".format(*gain["interval"]),
        "first_gain": f"{first_gain['gap']:.2f}",
        "first_gain_ends": "{:+.2f} to {:+.2f}".format(*first_gain["interval"]),
    }


def eleven_on_sst2() -> dict[float, float]:
    """CP at LoRA's first budget, in percent, by its rate; three seeds each."""
    found: dict[float, list[float]] = {}
    for line in itertools.chain(lines(AT_PAPERS["sst2"]), lines(("smollm2-rates", "sst2"))):
        if (line["label"], line["config"]["size"]) == ("cp", 11):
            right = 100 * line["outcome"]["correct"] / line["outcome"]["total"]
            found.setdefault(line["config"]["learning_rate"], []).append(right)
    assert {len(of) for of in found.values()} == {3}
    return {rate: statistics.mean(of) for rate, of in found.items()}


@functools.cache
def dev_over_draws(task: str, a: tuple[str, int], b: tuple[str, int]) -> dict[str, str]:
    """The first minus the second, in points, with ends: s² over draws, and the items that draws share."""
    both = [line for study in ("smollm2-data-seeds", "smollm2-data-seeds-again") for line in lines((study, task))]
    by_draw = {name: [0.0] * 30 for name in ("best", "last", "eval")}
    for line in both:
        cell = line["label"], line["config"]["size"]
        if cell in (a, b):
            sign = 100 / 2 * (1 if cell == a else -1)
            (best,) = (e for e in line["evaluations"] if e["step"] == line["best_step"])
            (last,) = (e for e in line["evaluations"] if e["step"] == 2000)
            draw = line["config"]["data_seed"] - 1
            by_draw["best"][draw] += sign * best["dev_correct"] / best["dev_total"]
            by_draw["last"][draw] += sign * last["dev_correct"] / last["dev_total"]
            by_draw["eval"][draw] += sign * line["outcome"]["correct"] / line["outcome"]["total"]
    source = both[0]["data"]["source"]["train"]
    on_eval = cells(("smollm2-data-seeds+smollm2-data-seeds-again", task))
    of = Parts([on_eval[a] - on_eval[b]])
    share = {"eval": of.of_item / of.items}
    share["best"] = share["last"] = of.of_item / (source["rows"] - source["left_out_repeats"])  # 500 of all, by 500

    def worded(mean: float, variance: float) -> str:
        reach = float(t.ppf(0.975, 29)) * math.sqrt(variance)
        return f"{mean:+.2f} ({mean - reach:+.2f} to {mean + reach:+.2f})"

    def p_value(mean: float, variance: float) -> float:
        return 2 * float(t.sf(abs(mean) / math.sqrt(variance), 29))

    alone = difference(a, b, TWICE if task == "sst2" else RTE_TWICE)
    means = {name: statistics.mean(gaps) for name, gaps in by_draw.items()}
    variances = {name: statistics.variance(gaps) / 30 + share[name] for name, gaps in by_draw.items()}
    weight = alone["error"] ** 2 / (alone["error"] ** 2 + variances["best"])
    summed = [weight * x + (1 - weight) * y for x, y in zip(by_draw["best"], by_draw["eval"], strict=True)]
    of_sum = statistics.variance(summed) / 30 + weight**2 * share["best"] + (1 - weight) ** 2 * share["eval"]
    apart = [x - y for x, y in zip(by_draw["last"], by_draw["eval"], strict=True)]
    of_apart = statistics.variance(apart) / 30 + share["last"] + share["eval"]
    return {name: worded(means[name], variances[name]) for name in ("best", "last")} | {
        "eval": "{:+.2f} ({:+.2f} to {:+.2f})".format(alone["gap"], *alone["interval"]),
        "both": worded(statistics.mean(summed), of_sum),
        "p": str(p_value(means["last"], variances["last"])),
        "apart p": f"{p_value(statistics.mean(apart), of_apart):.3f}",
    }


def test_what_dev_says_over_draws(chapter: Chapters) -> None:
    rows = chapter("noise").rows("difference", "dev, last step")
    columns = {"eval": "eval", "best": "dev, best step", "last": "dev, last step", "both": "dev and eval, best step"}
    for task, of_task in (("sst2", rows[:6]), ("rte", rows[6:])):
        found = [dev_over_draws(task, *pair) for pair in KEYS]
        holm = corrected([float(each["p"]) for each in found])
        for row, pair, each, p in zip(of_task, KEYS, found, holm, strict=True):
            assert (row["task"], row["difference"]) == (TASKS[task], " − ".join(NAMES[cell] for cell in pair))
            assert {name: row[column] for name, column in columns.items()} == {name: each[name] for name in columns}
            assert row["Holm, last step"] == f"{p:.3f}"
    rates = eleven_on_sst2()
    assert min(rates, key=rates.__getitem__) == 2e-3, "the worst of four"


def heights(of: Runs) -> list[float]:
    """The mean of the adapters, run by run, in percent."""
    return np.mean([values for cell, values in accuracies(of).items() if cell[0] != "head"], axis=0).tolist()


def called_yes() -> np.ndarray:
    """Whether a label of BoolQ's items is the commonest, as the runs tell that are right on as many items as have it,
    and several of them on the same."""
    most = round(1000 * commonest())
    right = [tuple(answers(line["outcome"])) for line in lines(("smollm2-rates", "boolq"))]
    (it,) = {of for of in right if sum(of) == most and right.count(of) > 1}
    return np.array(it, dtype=bool)


def balanced(right: np.ndarray) -> dict[str, Any]:
    """The mean over labels of what is right of each: 100 runs of a label that is a share s count 1 / (2 s)."""
    yes = called_yes()
    return judged((right * np.where(yes, 1 / (2 * yes.mean()), 1 / (2 * (1 - yes.mean())))).tolist())


def over_floor(of: Runs) -> dict[str, Any]:
    """The adapters at LoRA's first budget, on the average, minus the head alone or what is better, always giving the
    commonest answer."""
    found, (rate,) = cells(of), {line["data"]["sets"]["eval"]["majority_rate"] for line in lines(of)}
    floor = found["head", 0] if found["head", 0].mean() > rate else rate
    return judged(((found["lora", 1] + found["cp", 11]) / 2 - floor).tolist())


def commonest() -> float:
    (rate,) = {line["data"]["sets"]["eval"]["majority_rate"] for line in lines(OF_BOOLQ)}
    return float(rate)


def own(of: Runs, points: float) -> int:
    """Seeds that show so many points between the families, by what these runs say of the variances."""
    parts = Parts([cells(of)["lora", 1] - cells(of)["cp", 11]])
    return next(seeds for seeds in itertools.count(2) if parts.power(points, seeds, parts.items) >= 0.8)


def of_task(name: str, of: Runs) -> dict[str, str]:
    """What is glued of a task's many seeds."""
    lead, gain = difference(("lora", 1), ("cp", 11), of), difference(("cp", 44), ("cp", 1), of)
    over = over_floor(of)
    return {
        f"{name}_seeds": str(len(accuracies(of)["lora", 1])),
        f"{name}_gap": f"{lead['gap']:.2f}",
        f"{name}_gap_ends": "{:+.2f} to {:+.2f}".format(*lead["interval"]),
        f"{name}_misled": f"{100 * mislead(('lora', 1), ('cp', 11), of):.0f}",
        f"{name}_gain": f"{gain['gap']:.2f}",
        f"{name}_gain_ends": "{:+.2f} to {:+.2f}".format(*gain["interval"]),
        f"{name}_over": f"{over['gap']:.1f}",
        f"{name}_over_ends": "{:+.1f} to {:+.1f}".format(*over["one-sided"]),
    }


def of_rte() -> dict[str, str]:
    lead = difference(("lora", 1), ("cp", 11), RTE_SEEDS)
    over_draws, drawn_gain = (
        difference(("lora", 1), ("cp", 11), RTE_TWICE),
        difference(("cp", 44), ("cp", 1), RTE_TWICE),
    )
    parts = Parts([cells(RTE_SEEDS)["lora", 1] - cells(RTE_SEEDS)["cp", 11]])
    sds = [statistics.stdev(values) for (label, _), values in accuracies(RTE_SEEDS).items() if label != "head"]
    of_dev = {
        f"{task}_{name}_on_{column}": dev_over_draws(task, *pair)[of]
        for task, name, pair, column, of in (
            ("rte", "lead", KEYS[0], "dev", "last"), ("rte", "gain", KEYS[4], "dev", "last"),
            ("rte", "lead", KEYS[0], "both", "both"), ("rte", "gain", KEYS[4], "both", "both"),
            ("sst2", "gain", KEYS[4], "dev", "last"), ("sst2", "gain", KEYS[4], "best", "best"),
            ("sst2", "last", KEYS[1], "dev", "last"),
        )
    }  # fmt: skip
    return (
        of_task("rte", RTE_SEEDS)
        | of_dev
        | {
            "dev_items": "500",
            "rte_dev_left": f"{max(on_dev('rte').values()) - on_dev('rte')[2000]:.2f}",
            "rte_low_sd": f"{min(sds):.2f}",
            "rte_high_sd": f"{max(sds):.2f}",
            "rte_told_ends": "{:+.2f} to {:+.2f}".format(*lead["one-sided"]),
            "rte_draws_told_ends": "{:+.2f} to {:+.2f}".format(*over_draws["one-sided"]),
            "rte_draws_gain": f"{drawn_gain['gap']:.2f}",
            "rte_draws_gain_ends": "{:+.2f} to {:+.2f}".format(*drawn_gain["interval"]),
            "rte_gain_p": f"{corrected(six_of_rte())[KEYS.index((('cp', 44), ('cp', 1)))]:.3f}",
            "rte_own_two": str(own(RTE_SEEDS, 2)),
            "rte_lead_error": f"{lead['error']:.2f}",
            "rte_lead_end": f"{parts.error(math.inf):.2f}",
            "rte_power": f"{100 * parts.power(1, 1000, parts.items):.0f}",
        }
    )


def six_of_rte() -> list[float]:
    return [difference(*pair, RTE_SEEDS)["p"] for pair in KEYS]


def of_boolq() -> dict[str, str]:
    below = 100 * commonest() - statistics.mean(accuracies(OF_BOOLQ)["cp", 1])
    gain = difference(("cp", 44), ("cp", 1), OF_BOOLQ)
    of = cells(OF_BOOLQ)
    even = balanced((of["lora", 1] + of["cp", 11]) / 2 - of["head", 0])
    even_gain = balanced(of["cp", 44] - of["cp", 1])
    assert min(even["interval"][0], even_gain["interval"][0]) > 0, "adapters do learn BoolQ, and size pays"
    return of_task("boolq", OF_BOOLQ) | {
        "boolq_balanced": f"{even['gap']:.1f}",
        "boolq_balanced_ends": "{:+.1f} to {:+.1f}".format(*even["interval"]),
        "boolq_balanced_gain": f"{even_gain['gap']:.1f}",
        "boolq_balanced_gain_ends": "{:+.1f} to {:+.1f}".format(*even_gain["interval"]),
        "boolq_items": f"{gain['items']:,}",
        "boolq_last_misled": f"{100 * mislead(('lora', 1), ('cp', 44), OF_BOOLQ):.0f}",
        "boolq_own_one": str(own(OF_BOOLQ, 1)),
        "boolq_majority": f"{100 * commonest():.1f}",
        "boolq_below": f"{100 * below / gain['gap']:.0f}",
    }


def test_the_many_runs_are_one_protocol_in_three_ways() -> None:
    planned = {
        SEEDS: (range(100), [0]), DRAWS: ([0], range(1, 31)), RTE_SEEDS: (range(100), [0]),
        RTE_DRAWS: ([0], range(1, 31)), OF_BOOLQ: (range(30), [0]),
    }  # fmt: skip
    assert planned.keys() == set(MANY)
    planned |= {("smollm2-data-seeds-again", task): ([1], range(1, 31)) for task in ("sst2", "rte")}
    for of, seeds_and_draws in planned.items():
        wanted = sorted(itertools.product(*seeds_and_draws))
        for cell in NAMES:
            runs = [line["config"] for line in lines(of) if (line["label"], line["config"]["size"]) == cell]
            there = sorted((c["seed"], c["data_seed"]) for c in runs)
            assert there == wanted
        assert {(line["label"], line["config"]["learning_rate"]) for line in lines(of)} == {
            ("head", None), ("lora", 1e-3), ("cp", 2e-3),
        }  # fmt: skip
        assert all(line["diverged_at"] is None for line in lines(of))
    assert len({json.dumps(line["config"]["protocol"], sort_keys=True) for of in planned for line in lines(of)}) == 1


IN_TABLES = {"SST-2": {"seeds": SEEDS, "draws": DRAWS}, "RTE": {"seeds": RTE_SEEDS, "draws": RTE_DRAWS},
             "BoolQ": {"seeds": OF_BOOLQ}}  # fmt: skip
"""By task, in the order of the page: what is set side by side."""


def tables_with(page: Any, *columns: str) -> list[list[dict[str, str]]]:
    """All that have these columns, by row and column."""
    found = (table for table in page.tables if set(columns) <= set(table[0]))
    return [[dict(zip(titles, row, strict=True)) for row in rows] for titles, *rows in found]


def test_spreads(chapter: Chapters) -> None:
    for rows, over in zip(tables_with(chapter("noise"), "seeds: sd"), IN_TABLES.values(), strict=True):
        check_spreads(rows, over)


def check_spreads(rows: list[dict[str, str]], over: dict[str, Runs]) -> None:
    assert [row["adapter"] for row in rows] == [NAMES[cell] for cell in sorted(NAMES)]
    for row, cell in zip(rows, sorted(NAMES), strict=True):
        assert len(row) == 1 + 3 * len(over)
        for name, of in over.items():
            values = accuracies(of)[cell]
            sd, free = statistics.stdev(values), len(values) - 1
            assert float(row[f"{name}: mean"]) == pytest.approx(statistics.mean(values), abs=0.05 + 1e-9)
            assert row[f"{name}: sd"] == f"{sd:.2f}"
            ends = (sd * math.sqrt(free / chi2.ppf(share, free)) for share in (0.975, 0.025))
            assert row[f"{name}: 95 %"] == "{:.2f} to {:.2f}".format(*ends)


def key_tables(page: Any) -> dict[Runs, dict[str, dict[str, str]]]:
    """By runs and difference, in the order of the page."""
    tables = tables_with(page, "difference", "alike")
    of = (SEEDS, TWICE, RTE_SEEDS, RTE_TWICE, OF_BOOLQ)
    return {runs: {row["difference"]: row for row in rows} for runs, rows in zip(of, tables, strict=True)}


def test_key_differences(chapter: Chapters) -> None:
    cell = {name: place for place, name in NAMES.items()}
    for of, rows in key_tables(chapter("noise")).items():
        assert list(rows) == [f"{NAMES[a]} − {NAMES[b]}" for a, b in KEYS]
        for name, row in rows.items():
            a, b = (cell[each] for each in name.split(" − "))
            found = difference(a, b, of)
            expected = {
                "difference": name,
                "points": f"{found['gap']:+.2f}",
                "95 %": "{:+.2f} to {:+.2f}".format(*found["interval"]),
                "alike": f"{found['alike']:.3f}",
            }
            if of in MANY:
                expected["three mislead, %"] = f"{100 * mislead(a, b, of):.0f}"
            assert row == expected


def test_what_is_said_of_many_runs(chapter: Chapters) -> None:
    tables = key_tables(chapter("noise"))
    for name in ("CP 11 − CP 1", "CP 44 − CP 11", "CP 44 − CP 1"):
        assert float(tables[SEEDS][name]["alike"]) < 0.05, "flat"
        assert float(tables[TWICE][name]["alike"]) < 0.05, "over draws too"
        assert 35 < float(tables[SEEDS][name]["three mislead, %"]) < 65, "the toss of a coin"
    for name in ("LoRA 1 − CP 11", "LoRA 1 − CP 44"):
        (a, b) = (("lora", 1), ("cp", int(name.split()[-1])))
        low, high = difference(a, b, SEEDS)["interval"]
        assert 0 < low < 1 < high, "ahead, by less or a little more than a point"
        assert difference(a, b, TWICE)["interval"][0] > 0, "ahead over draws too"
    for runs in (TWICE, DRAWS):
        low, high = difference(("cp", 44), ("cp", 1), runs)["interval"]
        assert low < 0 < 1 < high, "not clear"
    assert statistics.mean(heights(SEEDS)) < min(heights(TWICE)), "the worst of them all"
    for pair in KEYS[:5]:
        on_it, off_it = (difference(*pair, of) for of in (SEEDS, TWICE))
        assert abs(on_it["gap"] - off_it["gap"]) < 1.96 * math.hypot(on_it["error"], off_it["error"]), "within errors"
    for runs in (SEEDS, RTE_SEEDS):
        of_item = {pair: Parts([cells(runs)[pair[0]] - cells(runs)[pair[1]]]).of_item for pair in KEYS[:3]}
        assert max(of_item, key=of_item.__getitem__) == (("cp", 11), ("cp", 1)), "share no more than the families do"
    seeds, draws = accuracies(SEEDS), accuracies(DRAWS)
    assert statistics.stdev(draws["head", 0]) > 1.5 * statistics.stdev(seeds["head", 0]), "hangs more on examples"


def on_dev(task: str) -> dict[int, float]:
    """Of the longer runs with an adapter at these rates: the mean on dev, in percent, by step."""
    curves: dict[int, list[float]] = {}
    for line in lines(("smollm2-rates", task)):
        if line["config"]["learning_rate"] in (1e-3, 2e-3):
            for e in line["evaluations"]:
                curves.setdefault(e["step"], []).append(100 * e["dev_correct"] / e["dev_total"])
    return {step: statistics.mean(shares) for step, shares in curves.items()}


def test_fewer_steps_are_enough() -> None:
    for task in ("sst2", "boolq"):
        means = on_dev(task)
        assert max(means, key=means.__getitem__) <= 2000, "at its height by then"
    assert {line["config"]["protocol"]["steps"] for of in MANY for line in lines(of)} == {2000}
    assert max(on_dev("rte")) == 5000


def test_what_is_said_of_rte(chapter: Chapters) -> None:
    one, eleven, most, lora = ("cp", 1), ("cp", 11), ("cp", 44), ("lora", 1)
    over_seeds, over_draws = accuracies(RTE_SEEDS), accuracies(RTE_DRAWS)
    for cell, values in over_seeds.items():
        assert cell[0] == "head" or statistics.stdev(values) > 2 * statistics.stdev(accuracies(SEEDS)[cell])
    assert over_floor(RTE_SEEDS)["one-sided"][0] > 0, "adapters learn"
    means = [statistics.mean(over_seeds[cell]) for cell in (one, eleven, most)]
    assert 0.55 < (means[1] - means[0]) / (means[2] - means[0]) < 0.75, "the larger half"
    gain = difference(most, one, RTE_SEEDS)
    assert gain["interval"][0] > 0, "by itself that is clear"
    assert 0.05 < corrected(six_of_rte())[KEYS.index((most, one))] < 0.06, "after Holm's correction just not"
    lead, drawn_lead = (difference(lora, eleven, of) for of in (RTE_SEEDS, RTE_TWICE))
    assert lead["gap"] == pytest.approx(drawn_lead["gap"], abs=0.05), "nearly the same"
    assert [round(of["one-sided"][0], 1) for of in (lead, drawn_lead)] == [-0.1, 0.0], "on the edge"
    for a, b in ((lora, eleven), (lora, most), (eleven, one), (most, eleven), (most, one)):
        low, high = difference(a, b, RTE_TWICE)["interval"]
        assert low < 0 < high, "none between adapters is clear over draws"
    low, high = difference(lora, most, RTE_SEEDS)["interval"]
    assert low < 0 < high, "not seen to differ"
    for runs in (over_draws, accuracies(DRAWS)):
        of_seeds = over_seeds if runs is over_draws else accuracies(SEEDS)
        assert statistics.stdev(runs["head", 0]) > 1.5 * statistics.stdev(of_seeds["head", 0]), "nearly twice as far"
    *ratios, of_lora = (
        statistics.stdev(over_draws[cell]) / statistics.stdev(over_seeds[cell]) for cell in (one, eleven, most, lora)
    )
    assert ratios == pytest.approx([1] * 3, abs=0.15), "about as far over draws"
    assert 1.15 < of_lora < 1.25, "a little farther"
    leads = [statistics.stdev((cells(of)[lora] - cells(of)[eleven]).mean(1).tolist()) for of in (RTE_SEEDS, RTE_DRAWS)]
    assert leads[1] / leads[0] == pytest.approx(1, abs=0.15), "in comparisons too"


def test_what_is_said_of_boolq(chapter: Chapters) -> None:
    def low(a: tuple[str, int], b: tuple[str, int]) -> float:
        return float(difference(a, b, OF_BOOLQ)["interval"][0])

    one, eleven, most, lora = ("cp", 1), ("cp", 11), ("cp", 44), ("lora", 1)
    assert low(eleven, one) > 0, "a step up on the way"
    assert low(most, eleven) > 0, "and another beyond it"
    assert low(lora, eleven) > 0, "LoRA is ahead"
    assert low(lora, most) < 0 < difference(lora, most, OF_BOOLQ)["interval"][1], "not seen to differ"
    assert max(mislead(a, b, OF_BOOLQ) for a, b in ((lora, eleven), (most, one))) < 0.05, "seldom turned round"
    assert mislead(lora, most, OF_BOOLQ) > 0.25, "often the last pair"
    of_sst2, _, of_boolq = tables_with(chapter("noise"), "seeds: sd")
    rows = [{row["adapter"]: row for row in of} for of in (of_sst2, of_boolq)]
    assert all(float(rows[1][name]["seeds: sd"]) > float(rows[0][name]["seeds: sd"]) for name in NAMES.values())
    ends = [{name: row["seeds: 95 %"].split(" to ") for name, row in of.items()} for of in rows]
    apart = {name for name in NAMES.values() if float(ends[1][name][0]) > float(ends[0][name][1])}
    assert apart - {"head only"} == {"CP 44", "LoRA 1"}, "do not meet"
    means = {cell: statistics.mean(of) for cell, of in accuracies(OF_BOOLQ).items()}
    assert {cell for cell, mean in means.items() if mean < 100 * commonest()} == {("head", 0), one}
    for cell in (("head", 0), one):
        below = judged((cells(OF_BOOLQ)[cell] - commonest()).tolist())
        assert below["interval"][1] > 0, "neither clearly"
    over, of = over_floor(OF_BOOLQ), cells(OF_BOOLQ)
    assert over["one-sided"][0] < 0, "not clear"
    items_alone = Parts([(of[lora] + of[eleven]) / 2]).error(math.inf)
    assert over["gap"] < float(norm.ppf(0.95)) * items_alone, "however many seeds there are"


def test_the_chart(chapter: Chapters, parts: dict[str, dict[str, Parts]]) -> None:
    chart, *_ = chapter("noise").charts
    drawn = [row for rows in chart["datasets"].values() for row in rows if "seeds" in row]
    assert {row["task"] for row in drawn} == set(TASKS)
    assert {row["effect"] for row in drawn} == {0.005, 0.01, 0.02}
    for row in drawn:
        of = parts[row["task"]][FAMILIES]
        assert row["power"] == pytest.approx(of.power(100 * row["effect"], row["seeds"], of.items), abs=1e-6)


def test_the_charts_of_runs(chapter: Chapters) -> None:
    _, *charts = chapter("noise").charts
    for chart, over in zip(charts, IN_TABLES.values(), strict=True):
        drawn: dict[tuple[str, str], list[float]] = {}
        for row in (row for rows in chart["datasets"].values() for row in rows):
            drawn.setdefault((row["over"], row["cell"]), []).append(100 * row["accuracy"])
        assert drawn.keys() == set(itertools.product(over, NAMES.values()))
        for name, of in over.items():
            for cell, values in accuracies(of).items():
                assert drawn[name, NAMES[cell]] == pytest.approx(values)
