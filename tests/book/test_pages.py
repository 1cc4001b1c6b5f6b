"""The pages as they are written: all in the book."""

from pathlib import Path

import pytest
import yaml

from companion import notebooks

ROOT = Path(__file__).parents[2]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
NAMES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]


def written(name: str) -> str:
    return notebooks.prose(ROOT / f"{name}{'.py' if name.startswith('notebooks/') else '.md'}")


def test_every_page_is_in_the_book() -> None:
    written_pages = [f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.py")]
    written_pages += [f"book/{path.stem}" for path in (ROOT / "book").glob("*.md")]
    assert sorted(NAMES) == sorted(written_pages)


@pytest.mark.parametrize("name", NAMES)
def test_no_line_is_taken_for_a_comment(name: str) -> None:
    """MyST leaves out what stands behind a percent sign that begins a line."""
    assert [line for line in written(name).splitlines() if line.startswith("%")] == []


READING_PATH = [
    chapter["file"]
    for part in TOC["parts"]
    if part["caption"] in ("Start", "Understand", "Findings")
    for chapter in part["chapters"]
    if chapter["file"].startswith("notebooks/")
]


@pytest.mark.parametrize("name", [TOC["root"], *READING_PATH])
def test_no_folded_code_interrupts_the_reading(name: str) -> None:
    """Code is shown where the page teaches it, and left out elsewhere."""
    cells = notebooks.read(ROOT / f"{name}.py").cells
    assert [cell.source for cell in cells if "hide-input" in cell.metadata.get("tags", ())] == []
