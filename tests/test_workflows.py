"""The workflows ask for what the project declares."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def jobs(name: str) -> dict[str, Any]:
    (file,) = (path for path in WORKFLOWS if path.stem == name)
    found: dict[str, Any] = yaml.safe_load(file.read_text())["jobs"]
    return found


def test_every_python_that_is_allowed_is_tested() -> None:
    versions = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    least, beyond = map(int, re.fullmatch(r">=3\.(\d+),<3\.(\d+)", versions).groups())
    checks = jobs("checks")
    assert checks["fast"]["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in range(least, beyond)]
    asked = [
        step["with"]["python-version"]
        for step in checks["oldest"]["steps"]
        if "python-version" in step.get("with", {})
    ]
    assert asked == [f"3.{least}"], "the oldest packages on the oldest Python"


def test_nothing_is_published_that_one_job_finds_wrong() -> None:
    checks = jobs("checks")
    assert set(checks["publish"]["needs"]) == set(checks) - {"publish"}


@pytest.mark.slow
def test_the_line_that_imports_what_was_installed_runs(tmp_path: Path) -> None:
    (command,) = (step["run"] for step in jobs("checks")["import"]["steps"] if "import cpadapt" in step.get("run", ""))
    python, *arguments = shlex.split(command)
    assert python == "python"
    done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("CPConfig(")


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_and_their_versions_named(file: Path) -> None:
    used = re.findall(r"uses: (.+)$", file.read_text(), flags=re.M)
    assert len(used) > 3
    assert [action for action in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)] == []
