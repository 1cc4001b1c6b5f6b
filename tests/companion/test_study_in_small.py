"""What the page says of the runs in small, on those that are committed, from the records' own lines."""

import math
import statistics
from pathlib import Path

import numpy as np
import pytest
from by_hand import answers, judged, read

from companion import study_in_small
from cpadapt import load_study
from cpadapt.analysis.statistics import compare, estimate, outcomes
from cpadapt.records.store import load_records

ROOT = Path(__file__).parents[2]
RUNS = {(line["label"], line["config"]["size"], line["config"]["seed"]): line for line in read("small")}


def right(label: str, size: int) -> list[list[int]]:
    return [answers(RUNS[label, size, seed]["outcome"]) for seed in range(3)]


def test_numbers_by_hand() -> None:
    found = study_in_small.numbers(load_study(ROOT / "studies/small.toml"), load_records(ROOT / "results/small"))
    cells = {(label, size) for label, size, _ in RUNS}
    accuracy = {cell: 100 * statistics.mean(map(statistics.mean, right(*cell))) for cell in cells}
    best = max(accuracy, key=accuracy.__getitem__)
    first = next(iter(RUNS.values()))
    assert best == ("lora", 2)
    assert found == {
        "backbone": "MiniLM",
        "runs": len(cells) * 3,
        "steps": first["evaluations"][-1]["step"],
        "seconds": pytest.approx(first["cost"]["train_seconds"] + first["cost"]["evaluation_seconds"]),
        "device": first["provenance"]["device"],
        "best_cell": "LoRA 2",
        "best": pytest.approx(accuracy[best]),
        "head": pytest.approx(accuracy["head", 0]),
        "lora_step": RUNS["lora", 2, 0]["counts"]["adapter"] - RUNS["lora", 1, 0]["counts"]["adapter"],
        "cp_step": RUNS["cp", 1, 0]["counts"]["adapter"],
        "task": "toy-sentiment",
        "train_size": 1000,
        "eval_size": 200,
        "item_error": pytest.approx(100 * math.sqrt(0.25 / 200)),
        "adapters": sum(label != "head" for label, _, _ in RUNS),
        "rising": sum(line["best_step"] == 120 for (label, _, _), line in RUNS.items() if label != "head"),
    }


def test_the_verdict_by_hand() -> None:
    records = load_records(ROOT / "results/small")
    cp, lora = (outcomes(r for r in records if (r.label, r.config.size) == cell) for cell in (("cp", 9), ("lora", 1)))
    pairs = zip(right("cp", 9), right("lora", 1), strict=True)
    gap = judged([[a - b for a, b in zip(*pair, strict=True)] for pair in pairs])
    low, high = gap["interval"]
    assert (gap["gap"] < 0, high < 0) == (True, True)
    assert study_in_small.verdict(1, 9, compare(cp, lora)) == (
        f"At the budget of LoRA rank 1, CP with 9 components is {-gap['gap']:.1f} points behind it, with a 95 %"
        f" interval over seeds and examples of {low:+.1f} to {high:+.1f} points, which excludes zero."
    )


def test_a_verdict_that_is_open() -> None:
    gaps = np.array([[1, 0, 0, 1, 0, 0, 1, 0], [0, 0, 1, 0, 0, 1, -1, 0]], dtype=float)
    ahead = study_in_small.verdict(1, 9, estimate(gaps))
    assert "is 25.0 points ahead of it" in ahead
    assert "which holds zero" in ahead
    level = study_in_small.verdict(1, 9, estimate(np.array([[1.0, -1, 0, 0], [0, 0, -1, 1]])))
    assert "is level with it in the mean" in level
