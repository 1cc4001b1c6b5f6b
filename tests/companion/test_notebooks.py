"""Notebooks that share prose and cells."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from companion import notebooks
from cpadapt.errors import InputError

ROOT = Path(__file__).parents[2]
HEADER = "# ---\n# jupyter:\n#   jupytext:\n#     text_representation:\n#       format_name: percent\n# ---\n\n"
SHARED = """# %% [markdown]
# (about)=
# It is TASK's.
# (chart)=
#
# ## A chart

# %%
"TASK"

# %% [markdown]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "task.py").write_text(HEADER + SHARED)
    return tmp_path


def written(folder: Path, *lines: str) -> Path:
    script = folder / "page.py"
    script.write_text(HEADER + "# %% [markdown]\n" + "".join(f"# {line}\n" for line in lines))
    return script


@pytest.mark.slow
def test_a_section_stands_where_it_is_named(folder: Path) -> None:
    script = written(folder, "Here.", "{shared}`task.about.rte`", "{shared}`task.chart.rte`", "There.")
    said, chart, rest = notebooks.read(script).cells
    assert said.source == "Here.\nIt is rte's.\n\n## A chart"
    assert (chart.cell_type, chart.source, rest.source) == ("code", '"rte"', "There.")
    done = [sys.executable, "-m", "companion.notebooks", str(folder), str(script)]
    subprocess.run(done, check=True, cwd=ROOT)
    assert [cell.source for cell in nbformat.read(folder / "page.ipynb", 4).cells][1:] == ['"rte"', "There."]


def test_what_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"page\.py: shared/task\.py has no 'abouts' \(did you mean 'about'\?\)"):
        notebooks.read(written(folder, "{shared}`task.abouts.rte`"))
    with pytest.raises(InputError, match=r"page\.py: there is no notebooks/shared/tasks\.py"):
        notebooks.read(written(folder, "{shared}`tasks.about.rte`"))


@pytest.mark.parametrize("page", ["sst2", "rte", "boolq"])
def test_each_task_s_page_has_all_that_they_share(page: str) -> None:
    sections = re.findall(r"^# \((\w+)\)=$", (ROOT / "notebooks/shared/task.py").read_text(encoding="utf-8"), re.M)
    script = (ROOT / "notebooks" / f"{page}.py").read_text(encoding="utf-8")
    assert re.findall(r"\{shared\}`(.+)`", script) == [f"task.{section}.{page}" for section in sections]
