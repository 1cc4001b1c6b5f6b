"""The book's extension of Sphinx: charts in pages, scripts beside them, links to where the repository lives."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import altair as alt
import jupytext
import nbformat
import pandas as pd
import pytest
from sphinx.ext import viewcode

from companion import sphinx
from cpadapt.analysis import charts

ROOT = Path(__file__).parents[2]


def spec(description: str = "Two points.", **properties: Any) -> dict[str, Any]:
    chart = alt.Chart(pd.DataFrame({"x": [1, 2], "y": [3, 4]})).mark_point(clip=True).encode(x="x", y="y")
    return chart.properties(description=description, **properties).to_dict()


def test_a_figure_carries_the_chart_twice() -> None:
    made = sphinx.figure(spec(width="container"))
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', made, flags=re.S)
    assert json.loads(data)["encoding"]["x"]["field"] == "x"
    (still,) = re.findall(r'<div class="chart-still">(<svg .*?</svg>)</div>', made, flags=re.S)
    assert int(re.search(r'width="(\d+)"', still)[1]) >= sphinx.STATIC_WIDTH
    assert still.count("<path") > 2


def test_nothing_in_the_data_ends_the_script() -> None:
    made = sphinx.figure(spec(description='a </script><b> & "b"'))
    assert made.count("</script>") == 1
    assert 'aria-label="a &lt;/script&gt;&lt;b&gt; &amp; &quot;b&quot;"' in made


def test_charts_side_by_side_are_drawn_each_for_itself() -> None:
    def one(title: str) -> dict[str, Any]:
        return {"description": title, "data": {"name": title}, "mark": "point", "encoding": {"x": {"field": "x"}}}

    whole = {"concat": [one("a"), one("b")], "columns": 2, "description": "both", "config": {"font": "serif"},
             "datasets": {title: [{"x": 1}] for title in "ab"}}  # fmt: skip
    made = sphinx.figure(whole)
    assert made.startswith('<figure class="charts" role="group" aria-label="both">')
    parts = [json.loads(data) for data in re.findall(r'<script type="application/json">(.*?)</script>', made)]
    assert [part["description"] for part in parts] == ["a", "b"]
    assert all(part["width"] == "container" and part["config"] == {"font": "serif"} for part in parts)


def test_drawings_on_one_page_share_no_names() -> None:
    named = [set(re.findall(r'id="([^"]+)"', sphinx.figure(spec(description=text)))) for text in ("one", "other")]
    first, second = named[0], set(re.findall(r'id="([^"]+)"', sphinx.figure(spec(height=50))))
    assert first
    assert first.isdisjoint(second)


def test_a_notebook_s_charts_get_their_figures() -> None:
    outputs = [{"data": {charts.VEGA_LITE_MIME: spec(), "text/plain": "a chart"}}, {"data": {"text/plain": "1"}}]
    cells = [{"cell_type": "code", "outputs": outputs}, {"cell_type": "markdown", "source": "text"}]
    text = json.dumps({"cells": cells})
    for name, drawn in (("a.ipynb", True), ("a.md", False)):
        app = SimpleNamespace(env=SimpleNamespace(doc2path=lambda page, name=name: name))
        sphinx.draw_charts(app, "a", source := [text])
        assert ('<figure class=\\"chart' in source[0]) == drawn
    (_, second) = json.loads(text)["cells"][0]["outputs"]
    assert second == outputs[1]


def test_a_signature_has_no_element_around_each_word() -> None:
    code = '<code><span class="pre">kept</span></code>'
    context = {"body": f'<dl><dt class="sig py"><em><span class="pre">a</span></em></dt><dd>{code}</dd></dl>'}
    sphinx._lighten(None, "", "", context, None)
    assert context["body"] == f'<dl><dt class="sig py"><em>a</em></dt><dd>{code}</dd></dl>'


def test_the_charts_javascript_is_bundled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = SimpleNamespace(builder=SimpleNamespace(format="html"), outdir=str(tmp_path))
    made = []
    monkeypatch.setattr("vl_convert.javascript_bundle", lambda snippet, **_: made.append(snippet) or "one();")
    sphinx._write_scripts(app)
    sphinx._write_scripts(app)
    bundle = tmp_path / "_static" / "charts.bundle.js"
    assert bundle.read_text(encoding="utf-8").endswith("(() => {one();})();\n")
    assert len(made) == 1
    monkeypatch.setattr(sphinx, "VEGA_LITE", "5.21")
    sphinx._write_scripts(app)
    assert len(made) == 2


@pytest.mark.parametrize(("newer", "left"), [("page", False), ("code", True), (None, True)])
def test_pages_of_code_are_made_again_where_the_code_is_newer(
    newer: str | None, left: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sphinx, "PROJECT", tmp_path)
    written = {
        "code": tmp_path / "cpadapt" / "tuner" / "__init__.py",
        "page": tmp_path / "_modules/cpadapt/tuner.html",
    }
    for path in written.values():
        path.parent.mkdir(parents=True)
    for name, path in written.items():
        if newer or name == "code":
            path.touch()
            os.utime(path, (2, 2) if name == newer else (1, 1))
    listeners = [SimpleNamespace(id=1, handler=viewcode.collect_pages), SimpleNamespace(id=2, handler=print)]
    events = SimpleNamespace(listeners={"html-collect-pages": listeners})
    app = SimpleNamespace(outdir=str(tmp_path), events=events)
    app.disconnect = lambda which: listeners.remove(next(each for each in listeners if each.id == which))
    sphinx._spare_code_pages(app, SimpleNamespace(_viewcode_modules={"cpadapt.tuner": ("code",), "torch": False}))
    assert [each.id for each in listeners] == ([1, 2] if left else [2])


@pytest.mark.parametrize(
    ("origin", "found"),
    [
        ("https://github.com/someone/cpadapt.git", "https://github.com/someone/cpadapt"),
        ("https://github.com/someone/cpadapt", "https://github.com/someone/cpadapt"),
        ("git@github.com:some-one/my.fork.git", "https://github.com/some-one/my.fork"),
        ("https://example.org/someone/cpadapt.git", None),
        (None, None),
    ],
)
def test_the_repository_is_where_git_says(
    origin: str | None, found: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    monkeypatch.setattr(sphinx, "PROJECT", tmp_path)
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    if origin is not None:
        subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", origin], check=True)
    assert sphinx.repository() == (None if found is None else (found, "main"))


def build(folder: Path, page: str, **environment: str) -> str:
    """One page's HTML, of a book with our configuration that holds only that page."""
    notebook = jupytext.read(ROOT / "notebooks" / f"{page}.py")
    notebook.cells = [nbformat.v4.new_markdown_cell("# A page"), nbformat.v4.new_code_cell("1 + 1")]
    source = folder / "source"
    (source / "notebooks").mkdir(parents=True)
    (source / "book").mkdir()
    for part in ("assets", "moved", "references.bib"):
        (source / "book" / part).symlink_to(ROOT / "book" / part)
    (source / "book" / "glossary.md").write_text("# Terms\n\n```{glossary}\nterm\n  What it means.\n```\n")
    jupytext.write(notebook, source / "notebooks" / f"{page}.ipynb")
    (folder / "toc.yml").write_text(f"format: jb-book\nroot: notebooks/{page}\nchapters:\n  - file: book/glossary\n")
    program = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(source), "--path-output", str(folder)]
    options = ["--config", str(ROOT / "_config.yml"), "--toc", str(folder / "toc.yml"), "--all", "-W", "-q"]
    done = subprocess.run([*program, *options], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return (folder / "_build" / "html" / "notebooks" / f"{page}.html").read_text(encoding="utf-8")


@pytest.mark.long
def test_launch_buttons_lead_to_what_binder_will_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = "run_budget"
    path = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    there = build(tmp_path / "there", page, GITHUB_REPOSITORY="someone/cpadapt", GITHUB_REF_NAME="main", **path)
    (link,) = set(re.findall(r'href="(https://mybinder\.org/[^"]+)"', there))
    address, _, notebook = link.partition("?urlpath=lab/tree/")
    assert address == "https://mybinder.org/v2/gh/someone/cpadapt/main"
    # Binder makes the notebooks from the scripts, as postBuild says.
    assert "python -m companion.notebooks notebooks notebooks/*.py" in (ROOT / "postBuild").read_text()
    assert (ROOT / notebook).with_suffix(".py").is_file()
    assert "https://github.com/someone/cpadapt/issues" in there
    assert "colab" not in there.lower(), "Colab opens notebooks of the repository, and it holds scripts"


def test_without_a_repository_there_is_no_button(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SimpleNamespace(html_theme_options={"launch_buttons": {"binderhub_url": "https://mybinder.org"}})
    monkeypatch.setattr(sphinx, "repository", lambda: None)
    sphinx._link_repository(None, config)
    assert config.html_theme_options == {}
