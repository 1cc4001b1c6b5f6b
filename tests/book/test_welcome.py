"""The first page: its numbers, its claims, and that it leads to every chapter."""

import json
import re
import statistics
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PUBLISHED = tomllib.loads((ROOT / "book" / "published.toml").read_text(encoding="utf-8"))["figure"]
Chapters = Callable[[str], Any]


def records(study: str) -> list[dict[str, Any]]:
    files = (ROOT / "results" / study).glob("*.jsonl")
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


PILOT, STUDY = records("smollm2-pilot"), records("smollm2")


def mean(lines: list[dict[str, Any]], task: str, label: str, size: int) -> float:
    """A cell's mean over seeds."""
    found = [
        100 * line["outcome"]["correct"] / line["outcome"]["total"]
        for line in lines
        if (line["config"]["task"], line["label"], line["config"]["size"]) == (task, label, size)
    ]
    assert len(found) == 3
    return statistics.mean(found)


def accuracy(task: str, label: str, size: int) -> float:
    """In the pilot at ten times the paper's rate, which dev chose everywhere (first_frontiers' test)."""
    return mean([line for line in PILOT if line["config"]["learning_rate"] in (None, 1e-3, 2e-3)], task, label, size)


def test_numbers(chapter: Chapters) -> None:
    page = chapter("welcome")
    assert page.glued == {
        "lora_step": 2048 + 2048,
        "cp_step": 32 + 64 + 32 + 64 + 1,
        "step_ratio": pytest.approx(4096 / 193),
        "key_seeds": 100,
    }


def test_numbers_of_other_chapters_are_there(chapter: Chapters) -> None:
    names = re.findall(r"\{glue:text\}`(\w+)\.ipynb::(\w+)", chapter("welcome").source)
    assert {page for page, _ in names} == {"first_frontiers", "sst2", "boolq"}
    for page, name in names:
        assert name in chapter(page).glued


def test_the_answer(chapter: Chapters) -> None:
    """What it says of training and of differences is tested with the chapters it is from."""
    for task in ("sst2", "boolq"):
        assert chapter(task).glued["clear"] == "none"
        assert float(chapter(task).glued["most_loss"]) < 0.01


def test_the_pattern_is_the_papers() -> None:
    cells = [("cp", 1), ("cp", 4), ("cp", 11), ("cp", 44), ("lora", 1), ("lora", 4)]
    sst2 = [accuracy("sst2", *cell) for cell in cells]
    assert max(sst2) - min(sst2) < (min(sst2) - accuracy("sst2", "head", 0)) / 2
    for rank, components in ((1, 11), (4, 44)):
        assert accuracy("rte", "lora", rank) > accuracy("rte", "cp", components)
    for ladder in (cells[:4], cells[4:]):
        rte = [accuracy("rte", *cell) for cell in ladder]
        assert rte == sorted(rte)
    theirs = {(f["task"], f["family"], f["size"]): f["accuracy"] for f in PUBLISHED if f["seeds"] == 3}
    for rank, components in ((2, 43), (4, 85), (8, 171)):
        assert theirs["rte", "lora", rank] > theirs["rte", "cp", components]


def test_the_items_error_is_more_than_most_of_the_differences(chapter: Chapters) -> None:
    theirs = {(f["family"], f["size"]): f["accuracy"] for f in PUBLISHED if f["task"] == "rte" and f["seeds"] == 3}
    gaps = [100 * (theirs["lora", r] - theirs["cp", c]) for r, c in ((2, 43), (4, 85), (8, 171))]
    gaps += [accuracy("rte", "lora", r) - accuracy("rte", "cp", c) for r, c in ((1, 11), (4, 44))]
    error = chapter("first_frontiers").glued["rte_best_error"]
    assert sum(gap < error for gap in gaps) > len(gaps) / 2


def test_the_papers_key_cells_are_shown_and_marked(chapter: Chapters) -> None:
    page = chapter("welcome")
    (html,) = (
        output["data"]["text/html"]
        for cell in page.cells
        for output in cell.get("outputs", ())
        if "text/html" in output.get("data", {})
    )
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in html.split("</tr>")]
    names = {"sst2": "SST-2", "rte": "RTE", "boolq": "BoolQ"}
    step = {"lora": 48 * 4096, "cp": 48 * 193}
    assert [row for row in rows if row] == [
        [
            names[f["task"]],
            f"{ {'cp': 'CP', 'lora': 'LoRA'}[f['family']] } {f['size']}",
            f"{step[f['family']] * f['size']:,}",
            f"{100 * f['accuracy']:.1f} ± {100 * f['sd']:.1f}",
        ]
        for f in PUBLISHED
        if f["seeds"] == 100 and "sd" in f
    ]
    assert "second-hand" in page.source
    assert "**not measured**" in page.source


def test_the_frontier_is_smollm2s(chapter: Chapters) -> None:
    (chart,) = (
        output["data"]["application/vnd.vegalite.v5+json"]
        for cell in chapter("welcome").cells
        for output in cell.get("outputs", ())
        if "application/vnd.vegalite.v5+json" in output.get("data", {})
    )
    drawn = {(row["cell"], round(100 * row["accuracy"], 6)) for rows in chart["datasets"].values() for row in rows
             if "runs" in row}  # fmt: skip
    for name, label, size in (("CP 1", "cp", 1), ("CP 88", "cp", 88), ("LoRA 1", "lora", 1), ("head only", "head", 0)):
        assert (name, round(mean(STUDY, "sst2", label, size), 6)) in drawn


def test_it_leads_to_every_chapter(chapter: Chapters) -> None:
    source = chapter("welcome").source
    chapters = {path.stem for path in (ROOT / "notebooks").glob("*.py")} - {"welcome"}
    assert {name for name in chapters if f"({name}.ipynb)" not in source} == set()
    assert "(../book/run_it_yourself.md)" in source
    assert (ROOT / "CITATION.cff").is_file()
