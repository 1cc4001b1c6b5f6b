"""The chapters as they are executed for the book."""

import ast
import functools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import in_browser
import nbformat
import pytest
from filelock import FileLock
from playwright.sync_api import Browser

from cpadapt.analysis.charts import VEGA_LITE_MIME

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder, of all that was collected."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.book)


@dataclass(frozen=True)
class Chapter:
    """An executed notebook."""

    cells: list[Any]

    @property
    def glued(self) -> dict[str, Any]:
        """What the prose may name, by its name."""
        found = {}
        for cell in self.cells:
            for output in cell.get("outputs", ()):
                key = output.get("metadata", {}).get("scrapbook", {}).get("name")
                if key is not None:
                    assert key not in found, f"{key} is glued twice"
                    value = ast.literal_eval(output["data"]["application/papermill.record/text/plain"])
                    found[key] = _hyphens(value) if isinstance(value, str) else value
        return found

    @property
    def tables(self) -> list[list[list[str]]]:
        """The tables that it shows: by row, the texts of its cells, head included."""
        found = []
        for cell in self.cells:
            for output in cell.get("outputs", ()):
                if html := output.get("data", {}).get("text/html"):
                    split = _hyphens(html).split("</tr>")
                    rows = [re.findall(r"<t[hd](?: [^>]*)?>(.*?)</t[hd]>", row, re.S) for row in split]
                    found.append([row for row in rows if row])
        return found

    @property
    def charts(self) -> list[dict[str, Any]]:
        """The charts that it shows, as Vega-Lite."""
        data = [output.get("data", {}) for cell in self.cells for output in cell.get("outputs", ())]
        return [found[VEGA_LITE_MIME] for found in data if VEGA_LITE_MIME in found]

    def rows(self, *columns: str) -> list[dict[str, str]]:
        """The rows of the one table that has these columns, each by column."""
        (found,) = (table for table in self.tables if set(columns) <= set(table[0]))
        return [dict(zip(found[0], row, strict=True)) for row in found[1:]]


def _hyphens(text: str) -> str:
    """With the minus of numbers as Python writes and reads it."""
    return re.sub(r"−(?=\d)", "-", text)


class Chapters:
    """The chapters: as `make book` left them if they are newer than what they are made from, else executed now.

    What is executed is kept in a folder that all processes of the tests share. What trains is executed on a backbone
    that takes seconds.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str, *, built: bool = True) -> Chapter:
        """A chapter by its name; without `built`, as it is executed here, whatever `make book` left."""
        made = ROOT / "build" / "book" / "notebooks" / f"{name}.ipynb"
        if built and not _stale(name, made):
            return _read(made)
        here = self.folder / f"{name}.ipynb"
        with FileLock(self.folder / "lock"):
            if not here.exists():
                self.execute(ROOT / "notebooks" / f"{name}.py", self.folder)
        return _read(here)

    def execute(self, script: Path, folder: Path) -> Chapter:
        """The notebook of a script, executed into a folder."""
        parameters = {
            "study": "studies/small-tiny.toml",
            "backbone": "tiny-encoder",
            "results_dir": str(self.folder / "results"),
            "out_dir": str(self.folder / "your-task"),
        }
        subprocess.run(
            [sys.executable, "-m", "companion.execute", folder, script]
            + [word for name, value in parameters.items() for word in ("-p", f"{name}={value}")],
            # tqdm would like to draw a widget, and says so.
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore:IProgress not found"},
            cwd=ROOT,
            check=True,
        )
        return _read(folder / f"{script.stem}.ipynb")


@functools.cache
def _read(path: Path) -> Chapter:
    return Chapter(nbformat.read(path, as_version=4).cells)


def _stale(name: str, made: Path) -> bool:
    return not made.exists() or made.stat().st_mtime < max(
        (ROOT / "notebooks" / f"{name}.py").stat().st_mtime, _newest_that_chapters_read()
    )


@functools.cache
def _newest_that_chapters_read() -> float:
    folders = [
        (ROOT / "companion", "*.py"),
        (ROOT / "cpadapt", "*.py"),
        (ROOT / "results", "*.jsonl.xz"),
        (ROOT / "results", "*.json"),
        (ROOT / "studies", "*.toml"),
        (ROOT / "notebooks" / "shared", "*.py"),
        (ROOT / "book", "*.toml"),
    ]
    read = {path for folder, names in folders for path in folder.rglob(names)}
    return max(path.stat().st_mtime for path in read - {ROOT / "results" / "quantities.json"})


@pytest.fixture(scope="session")
def chapter(tmp_path_factory: pytest.TempPathFactory) -> Chapters:
    """A chapter by its name."""
    base = tmp_path_factory.getbasetemp()
    # Of several processes each has a folder of its own in the one of this run.
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "chapters"
    folder.mkdir(exist_ok=True)
    return Chapters(folder)


@pytest.fixture(scope="session")
def built() -> None:
    """Only where `make book` has run; with `CPADAPT_BROWSER=required` in the environment, a failure elsewhere."""
    if not (in_browser.SITE / "index.html").exists():
        in_browser.skip("the book is not built, so nobody looked at it: `make book` first")


@pytest.fixture(scope="module")
def browser(built: None) -> Iterator[Browser]:
    """A browser to look at the built book with."""
    with in_browser.opened() as found:
        yield found
