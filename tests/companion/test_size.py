"""The paper's size: one number of each kind again, from the records' own lines."""

import statistics

import numpy as np
import pytest
from by_hand import answers, classes, judged, read, weights

from companion import quantities, size

PAIRS = list(zip((1, 2, 3, 4, 6, 8), (17, 35, 53, 71, 106, 142), strict=True))


def test_all_that_is_measured_is_said() -> None:
    assert {line["config"]["task"] for line in read("size-paper")} == set(size.TASKS_MEASURED)


@pytest.mark.parametrize("task", size.TASKS_MEASURED)
def test_the_families_and_the_head_alone(task: str) -> None:
    right: dict[tuple[str, int], dict[int, list[int]]] = {}
    for line in (each for each in read("size-paper") if each["config"]["task"] == task):
        right.setdefault((line["label"], line["config"]["size"]), {})[line["config"]["seed"]] = answers(
            line["outcome"]
        )
    cells = {cell: np.array([by_seed[seed] for seed in (0, 1, 2)]) for cell, by_seed in right.items()}
    by_hand = judged(np.mean([cells["cp", c] - cells["lora", r] for r, c in PAIRS], axis=0).tolist())
    gap = quantities.value(f"size.gap.{task}")
    assert (gap.value, gap.low, gap.high) == pytest.approx((by_hand["gap"], *by_hand["interval"]))
    assert quantities.value(f"size.gap_error_limit.{task}").value == pytest.approx(by_hand["items alone"])
    best = max(found.mean() for cell, found in cells.items() if cell[0] != "head")
    assert quantities.value(f"size.over_head.{task}").value == pytest.approx(100 * (best - cells["head", 0].mean()))


def test_what_a_model_knew() -> None:
    (line,) = (x for x in read("size-zero-shot") if x["config"]["task"] == "trec")
    right, of_item = np.array(answers(line["outcome"])), classes(line["outcome"])
    assert quantities.value("size.zero_shot.qwen.trec").value == pytest.approx(100 * right.mean())
    balanced = 100 * (right * weights(of_item)).mean()
    assert quantities.value("size.zero_shot_balanced.qwen.trec").value == pytest.approx(balanced)
    assert quantities.value("size.majority.qwen.trec").value == pytest.approx(100 * np.bincount(of_item).max() / 500)
    heads = [answers(x["outcome"]) for x in read("smollm2") if (x["label"], x["config"]["task"]) == ("head", "rte")]
    assert quantities.value("size.head.smollm2.rte").value == pytest.approx(100 * np.mean(heads))


@pytest.mark.parametrize(("model", "cell"), [(model, cell) for model in size.RATES for cell in size.tried(model)])
def test_the_settings_are_those_that_dev_chose(model: str, cell: tuple[str, int]) -> None:
    """As the plan says it: draws averaged first, then tasks; fewer diverged runs first, then the lower rate."""
    paper = {"lora": (1e-4, 2.0), "cp": (2e-4, 8.0)}
    found: dict[tuple[float, float, int], dict[str, list[float]]] = {}
    lost: dict[tuple[float, float, int], int] = {}
    for line in read(size.RATES[model]):
        config = line["config"]
        if (config["family"], config["size"]) == cell:
            setting = config["learning_rate"], config["scale"], config["warmup_steps"] or 0
            best = [e["dev_correct"] / e["dev_total"] for e in line["evaluations"] if e["step"] == line["best_step"]]
            found.setdefault(setting, {}).setdefault(config["task"], []).append(best[0] if best else 0.0)
            lost[setting] = lost.get(setting, 0) + (line["diverged_at"] is not None)
    rate, scale = paper[cell[0]]
    titles = {
        s: f"{s[0] / rate:.0f}×" + (f", scale {s[1]:.0f}" if s[1] != scale else "") + ", warm-up" * bool(s[2])
        for s in found
    }
    score = {s: 100 * statistics.mean(map(statistics.mean, by_task.values())) for s, by_task in found.items()}
    names = {title: name for name, title in size.SETTINGS.items()}
    assert {names[titles[s]] for s in found} == set(size.tried(model)[cell])
    for s, title in titles.items():
        name = f"size.on_dev.{model}.{cell[0]}{cell[1]}.{names[title]}"
        assert quantities.value(name).value == pytest.approx(score[s])
    best = min(score, key=lambda s: (lost[s], -score[s], *s))
    assert quantities.value(f"size.chosen.{model}.{cell[0]}{cell[1]}").value == titles[best]


def test_what_one_component_gains_at_the_papers_rate() -> None:
    right = {
        (line["label"], line["config"]["seed"]): answers(line["outcome"])
        for line in read("size-paper")
        if line["config"]["task"] == "boolq" and (line["label"], line["config"]["size"]) in {("cp", 1), ("head", 0)}
    }
    by_hand = judged(
        [[a - b for a, b in zip(right["cp", seed], right["head", seed], strict=True)] for seed in (0, 1, 2)]
    )
    known = quantities.value("size.one_over_head.boolq")
    assert (known.value, known.low, known.high) == pytest.approx((by_hand["gap"], *by_hand["interval"]), abs=1e-3)
