"""The API reference names what there is, and all that a user is offered."""

import ast
import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import peft
import pytest

import cpadapt

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "book" / "api.md").read_text(encoding="utf-8")


def directives() -> Iterator[tuple[str, str, str]]:
    """Kind, module and name of all that the page documents, the members that it lists included."""
    module = ""
    for line in PAGE.splitlines():
        if match := re.fullmatch(r"\.\. (?:py:)?currentmodule:: (\S+)", line):
            module = match[1]
        elif match := re.fullmatch(r"\.\. automodule:: (\S+)", line):
            module = match[1]
            yield "module", module, ""
        elif match := re.match(r"\.\. auto(class|function|exception|data):: ([\w.]+)", line):
            *path, name = match[2].split(".")
            yield match[1], ".".join(path) or module, name
        elif match := re.fullmatch(r" +:members: (.+)", line):
            for name in match[1].split(", "):
                yield "member", module, name


def test_all_that_is_exported_is_documented_under_the_name_it_is_imported_by() -> None:
    shown = {name for _, module, name in directives() if module == "cpadapt"}
    assert shown == set(cpadapt.__all__)


def test_what_is_documented_exists_and_says_what_it_is() -> None:
    owner: object = None  # what the members that follow belong to
    for kind, module, name in directives():
        if kind == "module":
            found = owner = importlib.import_module(module)
        elif kind == "member":
            found = getattr(owner, name)
        else:
            found = owner = getattr(importlib.import_module(module), name)
        assert kind == "data" or inspect.getdoc(found), f"{module}.{name} has no docstring"


def test_the_signature_of_cpconfig_is_its_own_fields() -> None:
    match = re.search(r"^\.\. autoclass:: CPConfig(\(.*\))$", PAGE, flags=re.MULTILINE)
    assert match
    arguments = ast.parse(f"def f{match[1]}: ...").body[0].args  # type: ignore[attr-defined]
    shown = [argument.arg for argument in arguments.kwonlyargs]
    inherited = {field.name for field in dataclasses.fields(peft.PeftConfig)}
    own = [field for field in dataclasses.fields(cpadapt.CPConfig) if field.name not in inherited]
    assert sorted(shown) == sorted(field.name for field in own)
    by_name = {field.name: field for field in own}
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        field = by_name[argument.arg]
        assert eval(ast.unparse(argument.annotation), {"Literal": Literal}) == field.type
        if default is None:
            assert field.default is dataclasses.MISSING
        elif field.default_factory is not dataclasses.MISSING:
            assert ast.literal_eval(default) == field.default_factory()
        else:
            assert ast.literal_eval(default) == field.default


MODULES = sorted((ROOT / "cpadapt").rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES])
def test_docstrings_are_restructured_text(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            text = node.value.value
            markdown = re.search(r"```|`\]\[|\]\(\S+\)|^\s*\|-{3}", text, flags=re.MULTILINE)
            assert not markdown, f"{path}, line {node.lineno}: {markdown[0]!r} is Markdown"
