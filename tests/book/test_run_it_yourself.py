"""Every command, file, field and message that the page names is there; the README's commands too."""

import ast
import builtins
import importlib
import json
import re
import shlex
import tomllib
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jupytext
import pandas as pd
import pytest
import torch
import typer.main
import yaml
from transformers import AutoModel, BertConfig

from companion.parameters import check_parameters
from cpadapt import FamilyPlan, InputError, Ladder, Protocol, Setting, Study, TaskSpec, load_projections, load_study
from cpadapt.bank.trainer import Trainer
from cpadapt.cli import app
from cpadapt.inputs.backbones import loading, sources
from cpadapt.inputs.backbones.specs import BACKBONES, Source
from cpadapt.inputs.folders import home_folder
from cpadapt.inputs.tasks.examples import load_task
from cpadapt.inputs.tasks.specs import TASKS, load_spec
from cpadapt.measure import CHECKPOINTS, train
from cpadapt.records.config import RunConfig
from cpadapt.records.record import Cost, Counts, Evaluation, Outcome, Provenance, Record
from cpadapt.records.store import lines_of, load_records, records_from_lines
from cpadapt.study import Shard, with_protocol

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "book" / "run_it_yourself.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def blocks(language: str, text: str = PAGE) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def section(title: str) -> str:
    (found,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    return found


def rows(title: str) -> list[tuple[str, str]]:
    """A section's table of two columns, without its head."""
    found = re.findall(r"^\| (.+?) \| (.+) \|$", section(title), re.M)
    return found[1:]


OWN_FILES = {block.split("\n")[0].removeprefix("# "): block for block in blocks("toml")}
SHOWN = [*blocks("sh"), *blocks("sh", README)]
LINES = list(dict.fromkeys(line for block in SHOWN for line in block.replace("\\\n", " ").splitlines() if line))
NOTEBOOK = {cell.metadata["tags"][0]: cell for cell in jupytext.read(ROOT / "notebooks" / "run_budget.py").cells
            if cell.metadata.get("tags")}["parameters"]  # fmt: skip
PARAMETERS = {
    ast.unparse(statement.target): statement
    for statement in ast.parse(NOTEBOOK.source).body
    if isinstance(statement, ast.AnnAssign)
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's files in it, and the project's folders where the page names them."""
    for name, content in OWN_FILES.items():
        (tmp_path / name).write_text(content)
    for folder in ("studies", "results"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    (tmp_path / "data").mkdir()
    for split, count in (("train", 8), ("validation", 4)):
        lines = [json.dumps({"text": f"{split} {k}", "stars": 1 + 4 * (k % 2)}) for k in range(count)]
        (tmp_path / "data" / f"{split}.jsonl").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_are_commands_of_every_kind() -> None:
    assert {line.split()[0] for line in LINES} == {"make", "cpadapt", "papermill", "."}


@pytest.mark.parametrize("line", LINES)
def test_every_command_is_one(line: str, here: Path) -> None:
    program, *arguments = shlex.split(line, comments=True)
    if program == "make":
        targets = [argument for argument in arguments if "=" not in argument]
        assert targets
        for target in targets:
            assert re.search(rf"^{target}:.*##", MAKEFILE, re.M), target
        for variable in (argument.partition("=")[0] for argument in arguments if "=" in argument):
            assert re.search(rf"^{variable} \?=", MAKEFILE, re.M), variable
    elif program == ".":
        assert arguments == [f"{re.search(r'^VENV .= (.+)$', MAKEFILE, re.M)[1]}/bin/activate"]
    elif program == "papermill":
        check_papermill(arguments)
    else:
        assert program == "cpadapt"
        command, *options = arguments
        context = typer.main.get_command(app).commands[command].make_context(command, options)
        check_values(context.params)


def check_papermill(arguments: list[str]) -> None:
    notebook, out, *options = arguments
    assert notebook.startswith("build/notebooks/")
    assert (ROOT / "notebooks" / f"{Path(notebook).stem}.py").is_file()
    assert out.startswith("build/")
    given: dict[str, Any] = {}
    while options:
        option = options.pop(0)
        if option == "-p":
            name, value = options.pop(0), options.pop(0)
            given[name] = int(value) if value.isdigit() else value
        else:
            assert option == "-y"
            given |= yaml.safe_load(options.pop(0))
    injected = "# Parameters\n" + "".join(f"{name} = {value!r}\n" for name, value in given.items())
    namespace: dict[str, Any] = {"In": [injected]}
    exec(NOTEBOOK.source + "\n" + injected, namespace)
    check_parameters(namespace)
    if "study" in given:
        assert load_study(ROOT / given["study"])
    if "task" in given:
        load_spec(given["task"])


def check_values(given: dict[str, Any]) -> None:
    """What a command is given exists: studies, tasks, fields of the protocol."""
    study = load_study(given["study"]) if given.get("study") else None
    if given.get("shard"):
        Shard.parse(given["shard"])
    if given.get("task"):
        assert load_spec(given["task"]).name
        assert study is None or given["task"] in study.tasks
    for name in (given.get("backbone"), given.get("name")):
        assert name is None or name in BACKBONES
    if study is not None and given.get("budget"):
        assert study.cells(load_projections(study.backbone), given["budget"])
    for text in given.get("set_") or ():
        assert text.partition("=")[0] in {f.name for f in fields(Protocol)}
    if cells := given.get("cell"):
        families = {text.partition("=")[0] for text in given["learning_rate"]}
        assert {cell.partition(":")[0] for cell in cells} - {"head"} == families


def test_the_study_is_whole_and_every_field_of_it_is_explained(here: Path) -> None:
    study = load_study("mine.toml")
    assert study.specs()
    assert study.cells(load_projections(study.backbone))
    described = set(re.findall(r"^`(\w+)`\n: ", section("A study file"), re.M))
    assert described | {"data_seeds", "order_seeds", "draws"} == {f.name for f in fields(Study)}
    for kind, names in ((Ladder, ("ladder", r"$")), (FamilyPlan, ("families", r"$")), (Setting, ("families", r"$"))):
        (text,) = re.findall(rf"^`{names[0]}`\n: (.*?)(?=^`\w+`\n: |^A field)", section("A study file"), re.M | re.S)
        for field in fields(kind):
            assert re.search(rf"`{field.name}\b", text), field.name
    assert set(BACKBONES) <= set(re.findall(r"`([\w.-]+)`", section("A study file")))


def test_the_study_compares_what_it_says(here: Path) -> None:
    """Its sizes of CP lie between and below LoRA's ranks."""
    study = load_study("mine.toml")
    cells = study.cells(load_projections(study.backbone))
    by_label = {label: sorted(size for name, size in cells if name == label) for label in ("lora", "cp", "head")}
    assert by_label == {"lora": [1, 2], "cp": [1, 4, 9, 14, 18], "head": [0]}


def test_the_task_loads(here: Path) -> None:
    task = load_task(load_spec("reviews.toml"), caps=(4, 2, 4))
    assert len(task.train) == 4
    described = section("A task of your own")
    shown = tomllib.loads(OWN_FILES["reviews.toml"]).keys()
    known = {f.name for f in fields(TaskSpec)}
    assert known == shown | {name for name in known if f"`{name}" in described}
    example = json.loads(re.search(r"`(\{.*?\})`", described)[1])
    assert set(example) == {"text", "stars"}


def test_the_tasks_are_those_that_are_known() -> None:
    (folder,) = re.findall(r"^\*\*The known tasks\*\*.*?`(cpadapt/[\w/]+)`", PAGE, re.M | re.S)
    assert sorted(file.stem for file in (ROOT / folder).glob("*.toml")) == sorted(TASKS)
    for ending in re.findall(r"`(\.[\w.]+)`", re.search(r"Files may end in.*?hub's do", PAGE, re.S)[0]):
        assert ending in importlib.import_module("cpadapt.inputs.tasks.examples")._READERS


def test_the_parameters_are_those_of_the_notebook() -> None:
    table = [name.strip("`") for name, _ in rows("The notebook, through papermill")]
    assert table == list(PARAMETERS)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_compiles_and_its_imports_are_there(block: str) -> None:
    defined = set(dir(builtins)) | {"runs", "evaluations"}
    tree = ast.parse(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            defined |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name)
                defined.add(alias.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.add(node.id)
    assert {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} <= defined


def test_reading_records_works_as_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    namespace: dict[str, Any] = {}
    reading = re.findall(r"^```python\n(.*?)^```", section("Read them"), re.M | re.S)
    assert len(reading) == 3
    for block in reading:
        exec(block, namespace)
    assert isinstance(namespace["runs"], pd.DataFrame)
    assert namespace["one"].config.task == namespace["other"].config.task
    assert namespace["right"].keys() == namespace["also"].keys()


def test_the_table_of_fields_is_that_of_a_record() -> None:
    table = dict(rows("What a record holds"))
    assert [name.strip("`") for name in table] == [f.name for f in fields(Record)]
    nested = {
        "config": RunConfig, "counts": Counts, "evaluations": Evaluation, "outcome": Outcome, "cost": Cost,
        "provenance": Provenance, "weights": Source,
    }  # fmt: skip
    for name, kind in nested.items():
        assert is_dataclass(kind)
        named = re.findall(r"`(\w+)`", table[f"`{name}`"])
        assert sorted(named) == sorted(f.name for f in fields(kind)), name


def test_things_lie_where_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"`{CHECKPOINTS}`" in section("Where things lie")
    monkeypatch.delenv("CPADAPT_HOME", raising=False)
    assert home_folder() == Path("~/.cache/cpadapt").expanduser()
    assert "rm -rf build _build $(VENV)" in MAKEFILE
    for folder in ("build/notebooks", "build/book", "_build/html"):
        assert folder in MAKEFILE
    assert "-p results_dir build/$(STUDY)" in MAKEFILE


class Roomless(Trainer):
    """As if the batch of a single run did not fit."""

    def __init__(self) -> None:
        self.rows, self.bank = [Mock()], Mock(device=torch.device("cuda", 0))

    def _lengths(self, set_name: str, chosen: Any) -> Any:
        return torch.tensor([5]).numpy()


def small() -> Study:
    return load_study(ROOT / "studies" / "small.toml")


def no_projections() -> None:
    config = BertConfig(num_hidden_layers=1, hidden_size=8, intermediate_size=8, num_attention_heads=1)
    config.model_type = "unheard-of"
    model = AutoModel.from_config(BACKBONES["tiny-encoder"].config())
    model.config = config
    loading._projections("new", model, None)


def misspelt() -> None:
    namespace: dict[str, Any] = {"In": ["# Parameters\ntsak = 'rte'\n"]}
    exec(NOTEBOOK.source, namespace)
    check_parameters(namespace)


def other_schema() -> None:
    drawn, record = lines_of(load_records(ROOT / "results" / "minilm-sst2")[:1])
    list(records_from_lines([drawn, json.dumps(json.loads(record) | {"schema": 1})]))


CAUSES: dict[str, Callable[[], Any]] = {
    "no study at mine.toml": lambda: load_study("mine.toml"),
    "unknown task": lambda: load_spec("sts2"),
    "protocol.eval_every": lambda: with_protocol(small(), steps=1000, eval_every=300),
    "budget 500": lambda: small().cells(load_projections("minilm"), 500),
    "the data folder": lambda: load_task(TASKS["rte"], data_dir="DATA"),
    "the task 'sick'": lambda: load_task(TASKS["sick"]),
    "'smollm2'": lambda: sources.locate("smollm2"),
    "give the target modules": no_projections,
    "unknown parameter": misspelt,
    "device 'cuda'": lambda: train(small(), device="cuda", quiet=True),
    "do not fit": lambda: Roomless()._halve_training_rows(torch.zeros(1, 8).numpy()),
    "schema = 1: this version": other_schema,
}


def test_every_message_has_a_cause() -> None:
    messages = [message for message, _ in rows("When it stops")]
    assert len(messages) == len(CAUSES)
    assert all(any(message.strip("`").startswith(cause) for cause in CAUSES) for message in messages)


@pytest.mark.parametrize("message", [message.strip("`") for message, _ in rows("When it stops")])
def test_messages_are_what_is_said(message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CPADAPT_HOME", str(tmp_path))
    monkeypatch.setattr(sources, "_in_hub_cache", lambda hub, revision: None)
    if message.startswith("device") and torch.cuda.is_available():
        pytest.skip("there is a GPU, so this is no mistake")
    (cause,) = (cause for start, cause in CAUSES.items() if message.startswith(start))
    with pytest.raises((InputError, ValueError)) as caught:
        cause()
    assert message in str(caught.value)
