"""The paper's size: every number again, from the records' own lines, by hand."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from by_hand import answers, classes, judged, read, weights

from cpadapt.inputs.tasks.specs import TASKS

PAIRS = list(zip((1, 2, 3, 4, 6, 8), (17, 35, 53, 71, 106, 142), strict=True))


@pytest.fixture(scope="module")
def page(chapter: Callable[[str], Any]) -> Any:
    return chapter("size")


def cells() -> dict[tuple[str, int], np.ndarray]:
    found: dict[tuple[str, int], dict[int, list[int]]] = {}
    for line in read("size-paper"):
        if line["config"]["task"] == "sst2":
            by_seed = found.setdefault((line["label"], line["config"]["size"]), {})
            by_seed[line["config"]["seed"]] = answers(line["outcome"])
    return {cell: np.array([by_seed[seed] for seed in (0, 1, 2)]) for cell, by_seed in found.items()}


def test_the_answer(page: Any) -> None:
    table = cells()
    gap = judged(np.mean([table["cp", c] - table["lora", r] for r, c in PAIRS], axis=0).tolist())
    best = max(right.mean() for (label, _), right in table.items() if label != "head")
    assert page.glued == {
        "gap": f"{abs(gap['gap']):.1f}",
        "gap_low": f"{gap['interval'][0]:+.1f}",
        "gap_high": f"{gap['interval'][1]:+.1f}",
        "gap_error": f"{gap['error']:.2f}",
        "gap_items_error": f"{gap['items alone']:.2f}",
        "over_head": f"{100 * (best - table['head', 0].mean()):.1f}",
        "seeds": "3",
        "items": str(table["head", 0].shape[1]),
        "asked": f"{max(line['outcome']['total'] for line in read('size-zero-shot')):,}",
    }


@pytest.mark.parametrize(
    ("model", "words", "trained"),
    [("Qwen2.5-Coder-1.5B", "size-zero-shot", "size-paper"), ("SmolLM2-135M", "smollm2-verbalizer", "smollm2")],
)
def test_zero_shot_stands_beside_the_head(model: str, words: str, trained: str, page: Any) -> None:
    rows = {row["task"]: row for row in page.rows("zero-shot, %") if row["model"] == model}
    heads: dict[str, list[float]] = {}
    for line in read(trained):
        if line["label"] == "head":
            heads.setdefault(line["config"]["task"], []).append(np.mean(answers(line["outcome"])))
    untrained = [line for line in read(words) if line["label"] == "head"]
    assert {TASKS[line["config"]["task"]].title for line in untrained} == rows.keys()
    assert len(rows) == {"size-zero-shot": 15, "smollm2-verbalizer": 3}[words]
    for line in untrained:
        task, outcome = line["config"]["task"], line["outcome"]
        right, row = np.array(answers(outcome)), rows[TASKS[task].title]
        assert int(row["items"].replace(",", "")) == outcome["total"] == len(right)
        assert row["classes"] == str(len(TASKS[task].labels))
        assert row["zero-shot, %"] == f"{100 * right.mean():.1f}"
        assert row["balanced, %"] == f"{100 * (right * weights(classes(outcome))).mean():.1f}"
        counts = np.bincount(classes(outcome))
        assert row["commonest answer, %"] == f"{100 * counts.max() / counts.sum():.1f}"
        assert row["head, %"] == (f"{100 * np.mean(heads[task]):.1f}" if task in heads else "–")


def test_the_settings_are_those_that_dev_chose(page: Any) -> None:
    """As the plan says it: draws averaged first, then tasks; fewer diverged runs first, then the lower rate."""
    found: dict[tuple[str, int], dict[tuple[float, float, int], dict[str, list[float]]]] = {}
    lost: dict[tuple[str, int], dict[tuple[float, float, int], int]] = {}
    for line in read("size-rates"):
        config = line["config"]
        cell = config["family"], config["size"]
        setting = config["learning_rate"], config["scale"], config["warmup_steps"] or 0
        best = [e["dev_correct"] / e["dev_total"] for e in line["evaluations"] if e["step"] == line["best_step"]]
        by_task = found.setdefault(cell, {}).setdefault(setting, {})
        by_task.setdefault(config["task"], []).append(best[0] if best else 0.0)
        counts = lost.setdefault(cell, {})
        counts[setting] = counts.get(setting, 0) + (line["diverged_at"] is not None)
    rows = {row["adapter"]: row for row in page.rows("chosen")}
    assert len(rows) == len(found) == 5
    paper = {"lora": (1e-4, 2.0), "cp": (2e-4, 8.0)}
    for (family, size), by_setting in found.items():
        row = rows[f"{'LoRA' if family == 'lora' else 'CP'} {size}"]
        assert {len(of) for of in by_setting.values()} == {6}
        score = {s: statistics.mean(map(statistics.mean, of.values())) for s, of in by_setting.items()}
        rate, scale = paper[family]
        names = {
            s: f"{s[0] / rate:.0f}×" + (f", scale {s[1]:.0f}" if s[1] != scale else "") + ", warm-up" * bool(s[2])
            for s in score
        }
        assert {name: row[name] for name in names.values()} == {names[s]: f"{100 * score[s]:.1f}" for s in score}
        assert row["chosen"] == names[min(score, key=lambda s: (lost[family, size][s], -score[s], *s))]


def test_rte_and_boolq_are_said_to_be_missing(page: Any) -> None:
    assert {line["config"]["task"] for line in read("size-paper")} == {"sst2"}
    assert "RTE and BoolQ are\n**not measured** yet" in page.source
    assert Path(__file__).parents[2].joinpath("book/plan.md").exists()
