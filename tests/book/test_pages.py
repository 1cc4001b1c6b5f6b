"""The pages as they are written: all in the book, and no number in prose that is typed."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jupytext
import pytest
import yaml

ROOT = Path(__file__).parents[2]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
NAMES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]
NOTEBOOKS = [name.removeprefix("notebooks/") for name in NAMES if name.startswith("notebooks/")]

GLUED = re.compile(r"\{glue:text\}`([^`]+)`")
NO_PROSE = [
    re.compile(r"^(`{3,}|~{3,}).*?^\1", re.M | re.S),  # code and directives
    re.compile(r"\$\$.*?\$\$", re.S),
    re.compile(r"\\begin\{(\w+\*?)\}.*?\\end\{\1\}", re.S),
    re.compile(r"\$[^$]+\$"),
    re.compile(r"\{[\w:+-]+\}`[^`]*`"),  # roles, glue among them
    re.compile(r"``[^`]+``|`[^`]+`"),
    re.compile(r"\]\([^)]*\)"),  # where links lead
    re.compile(r"<[^>]+>"),
    re.compile(r"^\(.*\)=$", re.M),
]
# What has a digit in its name.
PROPER_NAMES = re.compile(
    r"SST-2|OPT-1\.3B|OPT-125M|SmolLM2(-135M)?(-Instruct)?|MiniLM-L6(-v2)?|H100|H200|float16|bfloat16|float32|float64"
    r"|Python 3\.\d+|arXiv[: ]\d{4}\.\d{5}|Vega-Lite \d|Apache-2\.0|UTF-8|ISO 8601|sha256"
)


def prose(name: str) -> str:
    """A page's text without code, formulas, roles and the addresses of links."""
    text = written(name)
    for pattern in NO_PROSE:
        text = pattern.sub(" ", text)
    return PROPER_NAMES.sub(" ", text)


def written(name: str) -> str:
    if name.startswith("notebooks/"):
        cells = jupytext.read(ROOT / f"{name}.py").cells
        return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return (ROOT / f"{name}.md").read_text(encoding="utf-8")


def test_every_page_is_in_the_book() -> None:
    written_pages = [f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.py")]
    written_pages += [f"book/{path.stem}" for path in (ROOT / "book").glob("*.md")]
    assert sorted(NAMES) == sorted(written_pages)


@pytest.mark.parametrize("name", NAMES)
def test_no_number_in_prose_is_typed(name: str) -> None:
    typed = [line.strip() for line in prose(name).splitlines() if re.search(r"\d", line)]
    assert typed == []


@pytest.mark.parametrize("name", NAMES)
def test_no_line_is_taken_for_a_comment(name: str) -> None:
    """MyST leaves out what stands behind a percent sign that begins a line."""
    assert [line for line in written(name).splitlines() if line.startswith("%")] == []


def test_what_is_glued_is_read_and_what_is_read_is_glued(chapter: Callable[[str], Any]) -> None:
    read = set()
    for name in NAMES:
        for reference in GLUED.findall(written(name)):
            where, _, key = reference.rpartition("::")
            page = Path(where).stem if where else name.removeprefix("notebooks/")
            read.add((page, key.split(":")[0]))
    glued = {(page, key) for page in NOTEBOOKS for key in chapter(page).glued}
    assert read == glued
