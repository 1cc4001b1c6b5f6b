"""A pytest plugin that puts a tuner where PEFT's tests have LoRA, and leaves out all that does not meet it."""

import dataclasses
import importlib.util
import inspect
import sys
from importlib.machinery import ModuleSpec
from itertools import compress
from types import ModuleType
from typing import Any

import pytest
from conformance.tuners import TUNERS, Tuner
from peft import LoraConfig


class StableDiffusionPipeline:
    """In place of the one that PEFT's test modules import, for the few tests of a model of images."""

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> None:
        pytest.skip("diffusers is not installed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tuner", choices=sorted(TUNERS), default="cp", help="the tuner to test")
    parser.addoption("--named", action="store_true", help="keep also what has no rows but names LoRA in its code")


def pytest_configure() -> None:
    """Let PEFT's test modules be imported without diffusers."""
    if importlib.util.find_spec("diffusers") is None:
        diffusers = ModuleType("diffusers")
        diffusers.__spec__ = ModuleSpec("diffusers", None)
        diffusers.StableDiffusionPipeline = StableDiffusionPipeline
        sys.modules["diffusers"] = diffusers


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test the tuner's rows, before pytest reads them."""
    tuner = TUNERS[metafunc.config.getoption("tuner")]
    if tuner.in_place_of_lora is LoraConfig:
        return
    # What the tests do for LoRA alone, such as a start with an effect, they then do for the tuner.
    for name in (metafunc.module.__name__, "tests.testing_common", "tests.testing_utils"):
        if hasattr(sys.modules.get(name), "LoraConfig"):
            sys.modules[name].LoraConfig = tuner.in_place_of_lora
    marks = metafunc.definition.own_markers
    for i, mark in enumerate(marks):
        if mark.name == "parametrize":
            # Without the rows' `ids`, of which there may now be too many.
            names, rows = mark.args
            marks[i] = pytest.mark.parametrize(names, rows_for(rows, metafunc.module, tuner)).mark


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep what meets the tuner."""
    tuner = TUNERS[config.getoption("tuner")]
    meets = [_has_row(item, tuner) or (config.getoption("named") and _names_lora(item)) for item in items]
    config.hook.pytest_deselected(items=[item for item, met in zip(items, meets, strict=True) if not met])
    items[:] = compress(items, meets)


def rows_for(rows: Any, module: ModuleType, tuner: Tuner) -> list[Any]:
    """What stands in place of a test's rows: the tuner's own, or LoRA's with the tuner in its place."""
    for name, own in tuner.rows.items():
        if rows is getattr(module, name, None):
            return list(own)
    translated = []
    for row in rows:
        try:
            translated.append(_translated(row, tuner))
        except TypeError:  # it has no like of this
            continue
    return translated


def _translated(value: Any, tuner: Tuner) -> Any:
    """A row, or a part of one, with the tuner in place of LoRA.

    Raises:
        TypeError: the tuner does not know one of the arguments.
    """
    if value is LoraConfig:
        return tuner.in_place_of_lora
    if type(value) is LoraConfig:
        arguments = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        usual = vars(LoraConfig())
        return tuner.in_place_of_lora(**{name: it for name, it in arguments.items() if it != usual[name]})
    if isinstance(value, tuple) and LoraConfig in value:
        for arguments in value:
            if isinstance(arguments, dict):
                tuner.in_place_of_lora(**arguments)
    if isinstance(value, tuple):
        parts = (_translated(part, tuner) for part in value)
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def _has_row(item: pytest.Item, tuner: Tuner) -> bool:
    values = item.callspec.params.values() if hasattr(item, "callspec") else ()
    kinds = (value if isinstance(value, type) else type(value) for value in values)
    return any(kind in (tuner.config, tuner.in_place_of_lora) for kind in kinds)


def _names_lora(item: pytest.Item) -> bool:
    fixtures = (fixture.func for found in item._fixtureinfo.name2fixturedefs.values() for fixture in found)
    own = (function for function in fixtures if function.__module__ == item.module.__name__)
    return any("LoraConfig(" in inspect.getsource(function) for function in (item.function, *own))
