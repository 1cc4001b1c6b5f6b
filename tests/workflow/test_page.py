"""What the page on clusters says to type is there, and its dry runs work."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer.main
from in_snakemake import ROOT, Project

from cpadapt.cli import app

PAGE = (ROOT / "book" / "cluster.md").read_text(encoding="utf-8")
BEFORE = (ROOT / "book" / "run_it_yourself.md").read_text(encoding="utf-8")
SNAKEFILE = (ROOT / "workflow" / "Snakefile").read_text(encoding="utf-8")
SHOWN = "".join(re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)).replace("\\\n", " ").splitlines()
SHOWN += re.findall(r"\| `(cpadapt .*?|snakemake --.*?)`", PAGE)
LINES = list(dict.fromkeys(" ".join(line.split()) for line in SHOWN))


def of_program(program: str) -> list[str]:
    return [line for line in LINES if line.startswith(f"{program} ")]


def test_every_command_is_of_a_known_program() -> None:
    assert set(LINES) == {*of_program("make"), *of_program("cpadapt"), *of_program("snakemake")}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{line.split()[1]}:.*##", makefile, re.M) for line in of_program("make"))


@pytest.fixture
def mine(project: Project) -> Path:
    """The study of the page before."""
    (content,) = re.findall(r"^```toml\n# mine\.toml\n(.*?)^```", BEFORE, re.M | re.S)
    (project.folder / "mine.toml").write_text(content)
    return project.folder / "mine.toml"


@pytest.mark.parametrize("line", of_program("cpadapt"))
def test_cpadapt_takes_it(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, command, *options = shlex.split(line)
    assert typer.main.get_command(app).commands[command].make_context(command, options)


@pytest.mark.slow
@pytest.mark.parametrize("line", of_program("snakemake"))
def test_snakemake_takes_it(line: str, project: Project, mine: Path) -> None:
    _, *options = shlex.split(line.replace("/cpadapt-shared/", f"{project.folder}/"))
    if "workflow/profiles/kubernetes" in options:
        options += ["--default-storage-prefix", str(project.folder / "storage")]
    said = project.run(*options, *(["--dry-run"] if options[0] == "study" else []))
    assert ("rule measure:" in said) == (options[0] == "study")


def test_the_settings_are_those_of_the_workflow() -> None:
    table = re.findall(r"^\| `(\w+)` \|", PAGE, re.M)
    (defaults,) = re.findall(r"^DEFAULTS = (\{.*\})$", SNAKEFILE, re.M)
    assert table == list(ast.literal_eval(defaults))


def test_the_profiles_are_those_that_there_are() -> None:
    named = set(re.findall(r"workflow/profiles/(\w+)", PAGE)) | set(re.findall(r"[Tt]he profile `(\w+)`", PAGE))
    assert named | {"default"} == {folder.name for folder in (ROOT / "workflow" / "profiles").iterdir()}
