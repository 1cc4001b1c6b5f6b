"""What the project says about itself in more than one place agrees."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def specification(requirement: str) -> tuple[str, str]:
    """Name and versions of a requirement."""
    match = re.fullmatch(r"([A-Za-z0-9_.-]+?)\s*((?:[<>=!~].*)?)", requirement)
    assert match is not None, requirement
    return match[1], match[2]


def tracked() -> list[Path]:
    """The files of the project, as git has them; without git, those that there are in its own folders."""
    try:
        listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=True)
        files = [ROOT / name for name in listed.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        folders = ("cpadapt", "notebooks", "studies", "tests")
        files = [*ROOT.glob("*.*"), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    return [path for path in files if path.is_file() and "__pycache__" not in path.parts]


def test_conda_and_pip_install_the_same() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (of_pip,) = (entry["pip"] for entry in environment if isinstance(entry, dict))
    of_conda = [entry for entry in environment if isinstance(entry, str) and entry != "pip"]
    assert "--editable ." in of_pip
    listed = [*of_conda, *(entry for entry in of_pip if entry != "--editable .")]
    given = dict(specification(entry) for entry in listed)
    assert len(given) == len(listed), "one is listed twice"
    assert given.pop("python") == PROJECT["requires-python"]
    given["torch"] = given.pop("pytorch")
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *extras["minilm"], *extras["smollm2"], *extras["book"]]
    assert given == dict(specification(requirement) for requirement in wanted)


def test_one_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)
    assert headings[0] == "Unreleased"


def test_make_alone_lists_its_targets() -> None:
    shown = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = re.findall(r"^  make (\w+) +\S", shown.stdout, flags=re.M)
    assert {"setup", "test", "lint", "notebooks", "lab", "clean"} <= set(listed)
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), flags=re.M)
    assert phony is not None
    assert sorted(phony[1].split()) == sorted(listed)


@pytest.mark.parametrize(
    "built",
    [
        ".venv/", "build/", "dist/", "_build/", "cpadapt.egg-info/", "cpadapt/__pycache__/", ".pytest_cache/",
        ".mypy_cache/", ".ruff_cache/", ".hypothesis/", "notebooks/.ipynb_checkpoints/", "results/x/.checkpoints/",
    ],
)  # fmt: skip
def test_git_ignores_what_is_built(built: str, tmp_path: Path) -> None:
    # In a repository of its own, so that only the project's own list counts.
    (tmp_path / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    ignored = subprocess.run(["git", "-C", str(tmp_path), "check-ignore", "--quiet", built], check=False)
    assert ignored.returncode == 0


def test_every_module_says_what_it_is() -> None:
    modules = sorted((ROOT / "cpadapt").rglob("*.py"))
    assert len(modules) > 20
    assert [str(path) for path in modules if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_no_file_names_a_place_on_one_machine() -> None:
    home = re.compile(r"(?<![\w.])/(?:home|Users|root|work|mnt|scratch)/\w")
    found = []
    for path in tracked():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}:{n}" for n, line in enumerate(lines, start=1) if home.search(line)]
    assert found == []
