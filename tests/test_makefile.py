"""What `make book` does again, and what not: its rules with tools that only say that they were called."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
TOOL = """#!/bin/sh
[ "$1" = -c ] && echo small && exit
echo "$(basename "$0") $*" >> called
[ -z "$FAIL" ] || [ "$(basename "$0")" != "$FAIL" ] || exit 1
for made; do :; done
case "$0" in *papermill) touch "$made";; *jupyter-book) mkdir -p _build/html;; esac
[ "$2" != companion.notebooks ] || touch "$3/$(basename "$4" .py).ipynb"
"""
BUILD = ["quantities", "jupyter-book"]
FILES = [
    "pyproject.toml", "requirements.lock", "CHANGELOG.md", "_config.yml", "_toc.yml", "book/a_page.md",
    "notebooks/run_budget.py", "notebooks/one.py", "notebooks/two.py", "cpadapt/code.py", "companion/code.py",
    "studies/small.toml", "results/records.jsonl.xz",
]  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in small, all set up."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1e9, 1e9))
    bin = tmp_path / ".venv" / "bin"
    bin.mkdir(parents=True)
    for tool in ("uv", "python", "cpadapt", "papermill", "jupyter-book"):
        (bin / tool).write_text(TOOL)
        (bin / tool).chmod(0o755)
    (tmp_path / ".venv" / "ready").touch()
    return tmp_path


def called(project: Path, **environment: str) -> list[str]:
    """Which tools `make book` calls, with the chapters that are executed."""
    (project / "called").write_text("")
    clean = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "VENV")}
    done = subprocess.run(
        ["make", "book"], cwd=project, env=clean | environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode != 0) == bool(environment), done.stderr
    found = []
    for line in (project / "called").read_text().splitlines():
        tool, *arguments = line.split()
        chapters = [Path(word).stem for word in arguments if word.endswith(".py") and tool == "python"]
        found.append("quantities" if "companion.quantities" in arguments else " ".join([tool, *chapters]))
        assert tool != "jupyter-book" or "--all" in arguments
    time.sleep(0.05)  # so that what is touched next is newer
    return found


def test_the_book_is_built_once(project: Path) -> None:
    assert called(project) == ["python run_budget", "cpadapt", "papermill", "python one two", *BUILD]
    assert called(project) == []


@pytest.mark.parametrize(
    ("changed", "again"),
    [
        ("book/a_page.md", BUILD),
        ("CHANGELOG.md", BUILD),
        ("_toc.yml", BUILD),
        ("notebooks/two.py", ["python two", *BUILD]),
        ("notebooks/run_budget.py", ["python run_budget", "cpadapt", "papermill", *BUILD]),
        *((name, ["cpadapt", "papermill", "python one two", *BUILD]) for name in FILES[-4:]),
    ],
)
def test_only_what_depends_on_a_change_is_done_again(changed: str, again: list[str], project: Path) -> None:
    called(project)
    (project / changed).touch()
    assert called(project) == again
    assert called(project) == []


@pytest.mark.parametrize("tool", ["cpadapt", "papermill", "python", "jupyter-book"])
def test_what_failed_is_done_again(tool: str, project: Path) -> None:
    called(project)
    (project / "results/records.jsonl.xz").touch()
    failed = called(project, FAIL=tool)
    assert failed[-1].split()[0] == tool
    again = called(project)
    assert failed[-1] in again
    assert again[-1] == "jupyter-book"
    assert called(project) == []
