"""The first page: that it marks what is the paper's, and leads to every chapter."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
Chapters = Callable[[str], Any]


def test_the_papers_key_cells_are_marked(chapter: Chapters) -> None:
    published = tomllib.loads((ROOT / "book" / "published.toml").read_text(encoding="utf-8"))["figure"]
    page = chapter("welcome")
    (shown,) = page.tables
    assert len(shown) == 1 + sum(f["seeds"] == 100 and "sd" in f for f in published)
    assert "second-hand" in page.source
    assert "**not measured**" in page.source
    rte = {(f["family"], f["size"]): f["accuracy"] for f in published if (f["task"], f["seeds"]) == ("rte", 3)}
    assert all(rte["lora", rank] > rte["cp", size] for rank, size in ((2, 43), (4, 85), (8, 171))), (
        "RTE remains LoRA's"
    )


def test_it_leads_to_every_chapter(chapter: Chapters) -> None:
    source = chapter("welcome").source
    chapters = {path.stem for path in (ROOT / "notebooks").glob("*.py")} - {"welcome"}
    assert {name for name in chapters if f"({name}.ipynb)" not in source} == set()
    assert "(../book/run_it_yourself.md)" in source
    assert (ROOT / "CITATION.cff").is_file()
