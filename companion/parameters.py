"""A guard for notebooks with papermill parameters, which otherwise ignore unknown parameters."""

import ast
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cpadapt.errors import InputError, did_you_mean, shown, whole

INJECTED = "# Parameters"
"""The beginning of the cell that papermill inserts after the notebook's parameters."""


def check_parameters(namespace: dict[str, Any]) -> None:
    """Stop a notebook whose injected parameters are misspelt or of the wrong type; call it in the cell after them.

    The notebook's parameters cell declares each name with its type, such as `task: str = "sst2"`. A number that was
    written another way is read: `1e6`, which papermill takes for a float and YAML for a text, becomes the number that
    is declared.

    Args:
        namespace: the notebook's `globals()`: its annotations, and the inputs (`In`) that IPython keeps.

    Raises:
        InputError: an injected name is not declared, or a value is not of its declared type. The message names it.
    """
    declared: dict[str, Any] = namespace["__annotations__"]
    # The last such cell counts: in a live notebook, a corrected cell comes after the wrong one.
    injected = [source for source in namespace["In"] if source.startswith(INJECTED)][-1:]
    for source in injected:
        for statement in ast.parse(source).body:
            for target in statement.targets if isinstance(statement, ast.Assign) else ():
                name = ast.unparse(target)
                if name not in declared:
                    hint = did_you_mean(name, declared) or f" (there are {', '.join(declared)})"
                    raise InputError(f"unknown parameter {name!r}{hint}")
    for name, kind in declared.items():
        if _is_of(kind, namespace[name]):
            continue
        if not _is_of(kind, read := _numbers(namespace[name])):
            wanted = kind.__name__ if type(kind) is type else str(kind)
            raise InputError(f"parameter {name} = {shown(namespace[name])}: must be of type {wanted}")
        namespace[name] = read


def _is_of(kind: Any, value: Any) -> bool:
    """Whether a value is of a type, with all entries of a list or mapping.

    An integer will do for a float; what is infinite or undefined is none.
    """
    try:
        TypeAdapter(kind, config={"allow_inf_nan": False}).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def _numbers(value: Any) -> Any:
    """A value with whole floats as integers, and texts that are numbers as numbers, in lists and mappings too."""
    if isinstance(value, dict):
        return {key: _numbers(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_numbers(entry) for entry in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        try:
            return float(value) if (number := whole(value)) is None else number
        except ValueError:
            return value
    return value
