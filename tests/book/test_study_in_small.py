"""What the page says of this machine's run is what the records say."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from by_hand import judged

from cpadapt import load_study
from cpadapt.records.store import load_records

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def page(chapter: Callable[..., Any]) -> Any:
    return chapter("study_in_small")


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_numbers(page: Any) -> None:
    (parameters,) = (c.source for c in page.cells if "injected-parameters" in c.metadata.get("tags", ()))
    given: dict[str, str] = {}
    exec(parameters, given)
    study = load_study(ROOT / given["study"])
    records = load_records(ROOT / given["results_dir"])
    asked = [r for r in records if r.study == study.name]
    of = {(r.label, r.config.size, r.config.seed): r for r in asked}
    seeds = sorted({seed for _, _, seed in of})
    cells = {(label, size) for label, size, _ in of}
    dev = {cell: mean([of[(*cell, seed)].best.dev_accuracy for seed in seeds]) for cell in cells}
    accuracy = {cell: 100 * mean([of[(*cell, seed)].outcome.accuracy for seed in seeds]) for cell in cells}
    assert set(dev) == set(accuracy)
    top = max(accuracy, key=accuracy.__getitem__)

    rank = min(size for label, size in cells if label == "lora")
    spent = of["lora", rank, 0].counts.adapter
    size = max(s for label, s in cells if label == "cp" and of["cp", s, 0].counts.adapter <= spent)
    differences = []  # by seed and example
    for seed in seeds:
        cp, lora = (of[label, s, seed].outcome.right_by_row for label, s in (("cp", size), ("lora", rank)))
        assert cp.keys() == lora.keys()
        differences.append([cp[row] - lora[row] for row in cp])
    found = judged(differences)
    gap, (low, high) = found["gap"], found["interval"]

    glued = page.glued
    verdict = glued.pop("verdict")
    where = f"{abs(gap):.1f} points {'ahead of' if gap > 0 else 'behind'} it" if gap else "level with it in the mean"
    assert f" is {where}, " in verdict
    assert f"{low:+.1f} to {high:+.1f} points" in verdict
    assert ("holds zero" in verdict) == (low <= 0 <= high)
    families = {"cp": f"CP {top[1]}", "lora": f"LoRA {top[1]}", "head": "head only"}
    longer = next(r for r in load_records(ROOT / "results" / "generated-tasks") if r.config.task == study.tasks[0])
    first = asked[0]
    expected = {
        "backbone": "MiniLM"
        if study.backbone == "minilm"
        else "two random layers (the package of MiniLM is not installed here)",
        "runs": len(cells) * len(seeds),
        "steps": first.evaluations[-1].step,
        "seconds": pytest.approx(first.cost.train_seconds + first.cost.evaluation_seconds),
        "device": first.provenance.device,
        "best_cell": families[top[0]],
        "best": pytest.approx(accuracy[top]),
        "head": pytest.approx(accuracy["head", 0]),
        "lora_step": of["lora", 2, 0].counts.adapter - of["lora", 1, 0].counts.adapter,
        "cp_step": of["cp", 1, 0].counts.adapter,
        "task": study.tasks[0],
        "train_size": first.data["sets"]["train"]["size"],
        "eval_size": first.data["sets"]["eval"]["size"],
        "item_error": pytest.approx(100 * math.sqrt(0.25 / found["items"])),
        "adapters": sum(label != "head" for label, _, _ in of),
        "rising": sum(r.best_step == r.evaluations[-1].step for r in asked if r.label != "head"),
        "longer_steps": longer.evaluations[-1].step,
        "longer_backbone": {"minilm": "MiniLM"}[longer.config.backbone],
        "longer_device": longer.provenance.device,
    }
    assert glued == expected


def test_times_say_what_they_are_of() -> None:
    """Training and evaluations here and in the README, training alone in the notebook of one budget."""
    said = " ".join(
        (ROOT / "notebooks" / "study_in_small.py").read_text(encoding="utf-8").replace("\n# ", " ").split()
    )
    assert "trained and evaluated together in {glue:text}`seconds:.0f` seconds" in said
    assert '"training, s"' in (ROOT / "notebooks" / "run_budget.py").read_text(encoding="utf-8")


def test_the_fallback_is_said(page: Any, chapter: Callable[..., Any], tmp_path: Path) -> None:
    """On two random layers the page runs too, and says what it ran on."""
    fallback = chapter("study_in_small", study="studies/small-tiny.toml", results_dir=str(tmp_path / "r"))
    assert "two random layers (the package of MiniLM is not installed here)" in fallback.glued["backbone"]
    assert fallback.glued["runs"] == 18
