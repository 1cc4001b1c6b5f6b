"""Chapters executed in forks of one process: as papermill executes them, and each apart from the others."""

from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
import pytest

from companion.execute import execute_all

# pytest's own threads wait, and hold nothing that a chapter needs.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning"),
]

HEAD = """# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A chapter

"""


def write(folder: Path, name: str, *cells: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(HEAD + "".join(f"# %%{cell}\n\n" for cell in cells))
    return path


def cells(path: Path) -> list[Any]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def shown(path: Path) -> list[list[tuple[str, Any]]]:
    """What each cell shows: text by stream, or data by MIME type."""
    return [[(o.get("name", o.output_type), o.get("text") or o.get("data")) for o in c.outputs] for c in cells(path)]


@pytest.mark.long
def test_outputs_are_papermills(tmp_path: Path) -> None:
    script = write(
        tmp_path,
        "chapter",
        ' tags=["parameters"]\nstudy: str = "none"\nnumber: int = 3',
        "\nimport sys\nfrom IPython.display import display, HTML\nimport pandas as pd",
        "\nprint('first')\ndisplay(HTML('<b>then</b>'))\nprint('last', end='')",
        "\nprint('a')\ndisplay(number)\nprint(study, file=sys.stderr)\nnumber + 1",
        "\npd.DataFrame({'a': [1, 2]})",
        "\nnumber;",
        "\n_ + 1, __name__",
        "\nfrom myst_nb import glue\nglue('name', 0.5, display=False)",
    )
    assert execute_all([script], tmp_path, {"study": "small"}) == []
    jupytext.write(jupytext.read(script), tmp_path / "in.ipynb")
    papermill.execute_notebook(
        str(tmp_path / "in.ipynb"), str(tmp_path / "out.ipynb"), parameters={"study": "small"}, progress_bar=False
    )
    ours, papermills = cells(tmp_path / "chapter.ipynb"), cells(tmp_path / "out.ipynb")
    assert [cell.source for cell in ours] == [cell.source for cell in papermills]
    assert [cell.execution_count for cell in ours] == [cell.execution_count for cell in papermills]
    assert [cell.outputs for cell in ours] == [cell.outputs for cell in papermills]
    assert [kind for kind, _ in shown(tmp_path / "chapter.ipynb")[4]] == [
        "stdout", "display_data", "stderr", "execute_result",
    ]  # fmt: skip


def test_a_chapter_sees_nothing_of_another(tmp_path: Path) -> None:
    change = "\nimport json, os\nprint(hasattr(json, 'left'), 'LEFT' in os.environ, 'left' in globals())"
    leave = "\njson.left = left = 1\nos.environ['LEFT'] = '1'"
    scripts = [write(tmp_path, name, change, leave) for name in ("a", "b", "c")]
    assert execute_all(scripts, tmp_path, {}) == []
    for name in ("a", "b", "c"):
        assert shown(tmp_path / f"{name}.ipynb")[0] == [("stdout", "False False False\n")]


def test_libraries_are_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    loads = tmp_path / "loads"
    (tmp_path / "heavy.py").write_text(
        f"from pathlib import Path\nwith Path({str(loads)!r}).open('a') as f: f.write('x')\n"
    )
    scripts = [write(tmp_path, name, "\nimport heavy\nfrom heavy import Path") for name in ("a", "b", "c")]
    assert execute_all(scripts, tmp_path, {}) == []
    assert loads.read_text() == "x"


def test_a_failing_cell_is_named_and_the_others_are_executed(tmp_path: Path, capfd: Any) -> None:
    bad = write(tmp_path, "bad", "\nprint('before')", "\nvalue = 1 / 0", "\nprint('after')")
    good = write(tmp_path, "good", "\n1 + 1")
    assert execute_all([bad, good], tmp_path, {}) == [str(bad)]
    told = capfd.readouterr().err
    assert f"{bad}: this cell failed:\nvalue = 1 / 0\n" in told
    assert "ZeroDivisionError" in told
    assert not (tmp_path / "bad.ipynb").exists()
    assert shown(tmp_path / "good.ipynb") == [[("execute_result", {"text/plain": "2"})]]


@pytest.mark.parametrize("given", [{}, {"study": "other"}])
def test_parameters_go_where_there_is_a_cell_for_them(given: dict[str, str], tmp_path: Path) -> None:
    with_cell = write(tmp_path, "with_cell", ' tags=["parameters"]\nstudy: str = "own"', "\nstudy")
    without = write(tmp_path, "without", "\n'study' in globals()")
    assert execute_all([with_cell, without], tmp_path, given) == []
    assert shown(tmp_path / "with_cell.ipynb")[-1] == [
        ("execute_result", {"text/plain": "'other'" if given else "'own'"})
    ]
    assert shown(tmp_path / "without.ipynb") == [[("execute_result", {"text/plain": "False"})]]


def test_a_chapter_is_given_only_the_parameters_that_it_declares(tmp_path: Path) -> None:
    script = write(tmp_path, "chapter", ' tags=["parameters"]\nstudy: str = "own"', "\nstudy, 'folder' in globals()")
    assert execute_all([script], tmp_path, {"study": "other", "folder": "elsewhere"}) == []
    assert shown(tmp_path / "chapter.ipynb")[-1] == [("execute_result", {"text/plain": "('other', False)"})]
