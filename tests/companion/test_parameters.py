"""The guard of parameterized notebooks stops what papermill passes over."""

import re
from typing import Any, Optional, Union

import pytest

from companion.parameters import INJECTED, check_parameters
from cpadapt.errors import InputError

DECLARED: dict[str, Any] = {
    "task": str,
    "budget": Union[int, str],  # noqa: UP007 — as a notebook writes it, for papermill
    "study": Optional[str],  # noqa: UP045
    "seeds": list[int],
    "learning_rates": dict[str, list[float]],
    "protocol": dict,
}
DEFAULTS: dict[str, Any] = {
    "task": "sst2",
    "budget": "all",
    "study": None,
    "seeds": [0, 1],
    "learning_rates": {"lora": [2e-3], "cp": [4e-3]},
    "protocol": {"steps": 100},
}


def notebook(*injected: str) -> dict[str, Any]:
    """The names of a notebook in which these cells ran behind its own parameters."""
    namespace = {"__annotations__": DECLARED, **DEFAULTS}
    own = "\n".join(f"{name} = {value!r}" for name, value in DEFAULTS.items())
    namespace["In"] = ["", own, *injected, "check_parameters(globals())"]
    for source in injected:
        exec(source, namespace)
    return namespace


def cell(text: str) -> str:
    return f"{INJECTED}\n{text}\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        'task = "rte"\nbudget = 9216',
        'study = "studies/minilm.toml"',
        # As `-y "learning_rates: {cp: [1, 0.004]}"` gives it: an integer stands for a float.
        'learning_rates = {"cp": [1, 0.004]}',
        'protocol = {"steps": 20, "clip": None}',
        "seeds = []",
    ],
)
def test_what_is_right_passes(text: str) -> None:
    check_parameters(notebook(cell(text)))


def test_defaults_pass_where_nothing_was_injected() -> None:
    check_parameters(notebook())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('tsak = "rte"', "unknown parameter 'tsak' (did you mean 'task'?)"),
        ('task = "rte"\nTASK = "rte"', "unknown parameter 'TASK'"),
        ("zzz = 1", "unknown parameter 'zzz' (there are task, budget, study"),
        ("task = 5", "parameter task = 5: must be of type str"),
        ("task = None", "parameter task = None: must be of type str"),
        ("budget = 9216.5", "parameter budget = 9216.5: must be of type "),
        ("budget = None", "parameter budget = None: must be of type "),
        ("study = 3", "parameter study = 3: must be of type "),
        ('seeds = "0-2"', "parameter seeds = '0-2': must be of type list[int]"),
        ("seeds = 3", "parameter seeds = 3: must be of type list[int]"),
        ("seeds = [True]", "parameter seeds = [True]: must be of type list[int]"),
        ("learning_rates = [0.001]", "parameter learning_rates = [0.001]: must be of type dict[str, list[float]]"),
        ('learning_rates = {"cp": 0.001}', "parameter learning_rates = {'cp': 0.001}: must be of type"),
        ('protocol = "steps"', "parameter protocol = 'steps': must be of type dict"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)) as raised:
        check_parameters(notebook(cell(text)))
    assert "\n" not in str(raised.value)


def test_the_whole_of_a_list_is_looked_at() -> None:
    with pytest.raises(InputError, match="seeds"):
        check_parameters(notebook(cell(f"seeds = {[*range(999), 'x', *range(999)]}")))


def test_an_output_notebook_run_again() -> None:
    """Papermill writes its cell into the output; there it stands as any other."""
    check_parameters(notebook(cell('task = "rte"')))
    with pytest.raises(InputError, match="tsak"):
        check_parameters(notebook(cell('tsak = "rte"')))


def test_a_cell_that_was_put_right_counts() -> None:
    """In a notebook at work every version of a cell stays among the inputs."""
    check_parameters(notebook(cell('tsak = "rte"'), cell('task = "rte"')))
    with pytest.raises(InputError, match="tsak"):
        check_parameters(notebook(cell('task = "rte"'), cell('tsak = "rte"')))
