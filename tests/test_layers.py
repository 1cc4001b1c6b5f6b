"""Who may import whom: each layer of the library only what lies below it, and the library nothing of the book's."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from companion import PROJECT
from companion.architecture import FILES, LAYERS, imports, module_of, part_of

LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
WITHOUT_TORCH = ("records", "analysis")


def within(modules: set[str]) -> set[Path]:
    """Those of the modules that are files of the library."""
    return {file for file in FILES if module_of(file) in modules}


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_imports_point_down(file: Path) -> None:
    if (own := part_of(module_of(file))) == "__init__":
        return
    for module in imports(file):
        if module.startswith("cpadapt."):
            other = part_of(module)
            assert other == own or LEVEL[other] < LEVEL[own], f"{module_of(file)} imports {module}"
        assert not module.startswith("companion"), f"{module_of(file)} imports {module}"


def test_every_part_has_its_layer() -> None:
    assert {part_of(module_of(file)) for file in FILES} - {"__init__"} == set(LEVEL)


@pytest.mark.parametrize("name", [*WITHOUT_TORCH, "study", "progress"])
def test_no_import_reaches_torch(name: str) -> None:
    """Neither these parts, in their functions too, nor what is imported with them."""
    reached = [file for file in FILES if part_of(module_of(file)) == name]
    own = len(reached)
    for number, file in enumerate(reached):
        modules = imports(file, in_functions=number < own)
        assert not modules & {"torch", "transformers", "peft"}, f"{module_of(file)}, reached from {name}"
        reached += sorted(within(modules) - set(reached))


def test_the_workflow_reaches_no_torch_either() -> None:
    """A dry run answers in seconds."""
    text = (PROJECT / "workflow" / "Snakefile").read_text(encoding="utf-8")
    reached = re.findall(r"^(?:from|import) (cpadapt[\w.]*)", text, re.M)
    assert {part_of(module) for module in reached} <= {*WITHOUT_TORCH, "errors", "inputs", "progress", "study"}
    assert len(reached) == text.count("cpadapt.") - text.count("`cpadapt."), "each where it is seen"


STUDIES = [tomllib.loads(file.read_text(encoding="utf-8")) for file in sorted((PROJECT / "studies").glob("*.toml"))]
# "paper" is where a protocol's value comes from, too.
NAMES = {study["name"] for study in STUDIES} - {"paper"}
NAMES |= {task for study in STUDIES for task in study["tasks"]} | {study["backbone"] for study in STUDIES}
# Where these names are defined.
DEFINED = ("cpadapt.inputs.backbones.specs", "cpadapt.inputs.backbones.loading", "cpadapt.inputs.generated")
LABELS = {"lora", "cp"}


def said(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


@pytest.mark.parametrize("file", [file for file in FILES if module_of(file) not in DEFINED], ids=module_of)
def test_the_library_names_nothing_of_this_book(file: Path) -> None:
    assert said(file) & NAMES == set()
    # Nor a cell, such as cp-4 or "LoRA 1".
    assert [text for text in said(file) if re.fullmatch(r"(?i)(lora|cp)[ :-]\d+", text)] == []


@pytest.mark.parametrize("file", [f for f in FILES if part_of(module_of(f)) in WITHOUT_TORCH], ids=module_of)
def test_records_and_analysis_know_no_label(file: Path) -> None:
    assert said(file) & LABELS == set()
