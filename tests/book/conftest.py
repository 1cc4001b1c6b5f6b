"""The chapters as they are executed for the book."""

import ast
import functools
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import in_browser
import jupytext
import nbformat
import papermill
import pytest
from playwright.sync_api import Browser

from companion import notebooks
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
    def source(self) -> str:
        """The prose, as it is written."""
        return "\n\n".join(cell.source for cell in self.cells if cell.cell_type == "markdown")

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


@pytest.fixture(scope="session")
def chapter(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Chapter]:
    """A chapter by its name: as `make book` left it if it is newer than what it is made from, else executed now.

    With parameters it is executed in any case. What trains is executed on a backbone that takes seconds.
    """

    @functools.cache
    def executed(name: str, **parameters: Any) -> Chapter:
        script = ROOT / "notebooks" / f"{name}.py"
        made = ROOT / "build" / "book" / "notebooks" / f"{name}.ipynb"
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
        sources = [script, *read - {ROOT / "results" / "quantities.json"}]
        stale = not made.exists() or made.stat().st_mtime < max(source.stat().st_mtime for source in sources)
        if stale or parameters:
            folder = tmp_path_factory.mktemp(name)
            if name in ("study_in_small", "run_budget"):
                quick = {"study": "studies/small-tiny.toml", "results_dir": str(folder / "results")}
                parameters = quick | parameters
            jupytext.write(notebooks.read(script), folder / "in.ipynb")
            made = folder / "out.ipynb"
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("OMP_NUM_THREADS", "1")
                patch.setenv("PYTHONWARNINGS", "ignore:IProgress not found")  # tqdm would like to draw a widget
                papermill.execute_notebook(
                    str(folder / "in.ipynb"), str(made), parameters=parameters, cwd=str(ROOT), progress_bar=False
                )
        return Chapter(nbformat.read(made, as_version=4).cells)

    return executed


@pytest.fixture(scope="session")
def built() -> None:
    """Only where `make book` has run; with `CPADAPT_BROWSER=required` in the environment, a failure elsewhere."""
    if not (in_browser.SITE / "index.html").exists():
        _skip("the book is not built, so nobody looked at it: `make book` first")


@pytest.fixture(scope="module")
def browser(built: None) -> Iterator[Browser]:
    """A browser to look at the built book with."""
    with in_browser.chromium() as found:
        if found is None:
            _skip(f"the built book was not looked at: no browser here (one of {', '.join(in_browser.BROWSERS)})")
        yield found


def _skip(reason: str) -> None:
    if os.environ.get("CPADAPT_BROWSER") == "required":
        pytest.fail(reason)
    pytest.skip(reason)
