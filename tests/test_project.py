"""What the project says about itself in more than one place agrees."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def requirements(*extras: str) -> dict[str, Requirement]:
    """What the project with these extras asks for, by name; an extra may name others, as `cpadapt[study]`."""
    found: dict[str, Requirement] = {}
    for requirement in map(
        Requirement, [*PROJECT["dependencies"], *(text for name in extras for text in EXTRAS[name])]
    ):
        more = requirements(*requirement.extras) if requirement.name == "cpadapt" else {requirement.name: requirement}
        for name, wanted in more.items():
            assert found.setdefault(name, wanted) == wanted, f"{name} is asked for twice, at different versions"
    return {canonicalize_name(name): requirement for name, requirement in found.items()}


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
    given = {canonicalize_name(asked.name): asked for asked in map(Requirement, listed)}
    assert len(given) == len(listed), "one is listed twice"
    assert given.pop("python").specifier == Requirement(f"python{PROJECT['requires-python']}").specifier
    given["torch"] = Requirement(str(given.pop("pytorch")).replace("pytorch", "torch"))
    assert given == requirements(*EXTRAS.keys() - {"test", "workflow"})


def locked() -> dict[str, list[tuple[Requirement, set[str]]]]:
    """The lock's lines by name, one for each range of Pythons, and what asks for each as the comments below it say."""
    found: dict[str, list[tuple[Requirement, set[str]]]] = {}
    name = ""
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if line.startswith("    #"):
            asking = line.strip("# ").removeprefix("via").strip()
            found[name][-1][1].update({asking} - {""})
        elif not line.startswith("#"):
            requirement = Requirement(line)
            name = canonicalize_name(requirement.name)
            found.setdefault(name, []).append((requirement, set()))
    return found


def test_the_lock_holds_what_the_project_asks_for() -> None:
    lock, asked = locked(), requirements(*EXTRAS)
    # torch's build is the machine's.
    assert "torch" not in lock
    del asked["torch"]
    direct = {name for name, lines in lock.items() if any("cpadapt (pyproject.toml)" in by for _, by in lines)}
    assert direct == asked.keys(), "`make lock` renews it"
    for name, requirement in asked.items():
        for line, _ in lock[name]:
            (version,) = (pin.version for pin in line.specifier if pin.operator == "==")
            assert requirement.specifier.contains(version, prereleases=True), f"{line}: `make lock` renews it"


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_lock_has_one_version_of_each_for_every_python(python: str) -> None:
    assert f"Programming Language :: Python :: {python}" in PROJECT["classifiers"]
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{python}.1")
    here = {"python_version": python, "python_full_version": f"{python}.1"}
    lock = locked()
    for name, lines in lock.items():
        applying = [line for line, _ in lines if line.marker is None or line.marker.evaluate(here)]
        assert len(applying) <= 1, name
        assert applying or name not in requirements(*EXTRAS), name


def test_the_lock_holds_nothing_that_nobody_asks_for() -> None:
    lock = locked()
    for name, lines in lock.items():
        for line, by in lines:
            assert by, name
            strangers = {asking for asking in by if canonicalize_name(asking) not in lock}
            assert strangers <= {"cpadapt (pyproject.toml)"}, name
            assert [pin.operator for pin in line.specifier] == ["=="]
            assert line.url is None


def test_one_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)
    assert headings[0] == "Unreleased"


def test_make_alone_lists_its_targets() -> None:
    shown = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = re.findall(r"^  make ([\w-]+) +\S", shown.stdout, flags=re.M)
    assert {"setup", "lock", "test", "test-fast", "coverage", "lint", "notebooks", "lab", "clean"} <= set(listed)
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), flags=re.M)
    assert phony is not None
    assert sorted(phony[1].split()) == sorted(listed)


@pytest.mark.parametrize(
    "built",
    [
        ".venv/", "build/", "dist/", "_build/", "cpadapt.egg-info/", "cpadapt/__pycache__/", ".pytest_cache/",
        ".coverage", ".snakemake/", ".mypy_cache/", ".ruff_cache/", ".hypothesis/", "notebooks/.ipynb_checkpoints/",
        "results/x/.checkpoints/",
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


TURNED = (
    re.compile(r"(?<!there )\b(is|are) no (?!longer\b)", re.IGNORECASE),
    re.compile(r"\bshall\b", re.IGNORECASE),
    re.compile(r"\bon the average\b", re.IGNORECASE),
    re.compile(r"PEFT's own tuners"),
)
"""What our English doesn't say: "is not an integer" rather than "is no integer"."""


def turned(source: str) -> list[str]:
    """The texts of a module, docstrings among them, that have a match."""
    texts = [
        " ".join(node.value.split())
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return [text for text in texts if any(pattern.search(text) for pattern in TURNED)]


@pytest.mark.parametrize(
    ("source", "so"),
    [
        ("x = f'{n} is no integer'", True),
        ("raise ValueError('these are no studies')", True),
        ('def f():\n    """It shall\n    differ."""', True),
        ('"""A mean, on the\naverage."""', True),
        ('"""One of PEFT\'s own tuners."""', True),
        ("x = 'There is no file, there\\nare no rows, it is no longer here, it is not a number'", False),
        ('"""A table of PEFT\'s own: marshalled on average."""', False),
    ],
)
def test_turned(source: str, so: bool) -> None:
    assert bool(turned(source)) == so


def test_messages_and_docstrings_are_plain_english() -> None:
    modules = sorted((ROOT / "cpadapt").rglob("*.py"))
    assert {str(path): found for path in modules if (found := turned(path.read_text(encoding="utf-8")))} == {}


@pytest.mark.slow
def test_no_variable_is_named_of() -> None:
    """Nor a parameter, as it does not say what it holds. A classmethod may be, as in `Timed.of`."""
    found = []
    for path in tracked():
        if path.suffix == ".py":
            nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
            names = [(node.lineno, node.id) for node in nodes if isinstance(node, ast.Name)]
            names += [(node.lineno, node.arg) for node in nodes if isinstance(node, ast.arg)]
            found += [f"{path.relative_to(ROOT)}:{line}" for line, name in names if name == "of"]
    assert found == []


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


@pytest.mark.parametrize(
    ("message", "passes"),
    [
        (
            "records: read each file once\n\nIt was read twice, which took a second: more than all the rest together.",
            True,
        ),
        ("Merge branch 'one'", True),
        ("read each file once", False),
        ("records: each of the files of a folder is read once now, and no more", False),
    ],
)
@pytest.mark.slow
def test_a_commits_title_is_checked(message: str, passes: bool, tmp_path: Path) -> None:
    (tmp_path / "message").write_text(message + "\n")
    command = [
        "-m", "pre_commit", "run", "commit-title",
        "--hook-stage", "commit-msg", "--commit-msg-filename", str(tmp_path / "message"),
    ]  # fmt: skip
    found = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ("Passed" in found.stdout, "Failed" in found.stdout) == (passes, not passes), found.stdout
