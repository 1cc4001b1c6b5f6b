"""The first page: its numbers, its claims, and that it leads to every chapter."""

import statistics
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from by_hand import read

ROOT = Path(__file__).parents[2]
PUBLISHED = tomllib.loads((ROOT / "book" / "published.toml").read_text(encoding="utf-8"))["figure"]
Chapters = Callable[[str], Any]
Cell = tuple[str, int]


STUDY = read("smollm2")


def mean(lines: list[dict[str, Any]], task: str, label: str, size: int) -> float:
    """A cell's mean over seeds."""
    found = [
        100 * line["outcome"]["correct"] / line["outcome"]["total"]
        for line in lines
        if (line["config"]["task"], line["label"], line["config"]["size"]) == (task, label, size)
    ]
    assert len(found) == 3
    return statistics.mean(found)


def test_what_is_found(chapter: Chapters) -> None:
    by_readout = {(row["task"], row["claim"]): row for row in chapter("readout").rows("claim", "head", "words")}
    verdicts = {claim: row["head"] for (task, claim), row in by_readout.items() if task == "all of BoolQ"}
    assert (verdicts["CP gains from components"], verdicts["CP saturates"]) == ("holds", "cannot be told")
    of_readouts = chapter("readout").rows("words − head")
    clear = {(row["task"], row["words − head"]) for row in of_readouts if float(row["Holm"]) < 0.05}
    assert {place for place in clear if place[1] != "head only"} == {("BoolQ", "CP 11")}
    learn = by_readout["BoolQ", "adapters learn"]
    assert (learn["head"], learn["words"]) == ("holds", "holds"), "both"
    of_steps = chapter("encoder").rows("difference", "alike")
    gains = [row for row in of_steps if row["difference"] == "CP 9 − CP 1"]
    assert [float(row["Holm"]) < 0.05 for row in gains] == [True, True, True, False, False], "something to gain"
    said = " ".join(chapter("welcome").source.split())
    assert "on RTE of weights and order nothing is seen" not in said
    assert "would remain" in said
    assert "than four LoRAs" in " ".join(chapter("welcome").source.split())
    theirs = {(f["task"], f["family"], f["size"]): f["accuracy"] for f in PUBLISHED if f["seeds"] == 3}
    for rank, components in ((2, 43), (4, 85), (8, 171)):
        assert theirs["rte", "lora", rank] > theirs["rte", "cp", components]


def test_the_papers_key_cells_are_marked(chapter: Chapters) -> None:
    page = chapter("welcome")
    (shown,) = page.tables
    assert len(shown) == 1 + sum(f["seeds"] == 100 and "sd" in f for f in PUBLISHED)
    assert "second-hand" in page.source
    assert "**not measured**" in page.source


def test_the_frontier_is_smollm2s(chapter: Chapters) -> None:
    (chart,) = chapter("welcome").charts
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
