"""A guard for notebooks with papermill parameters, which otherwise ignore unknown parameters."""

import ast
import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cpadapt.errors import InputError

INJECTED = "# Parameters"
"""The beginning of the cell that papermill inserts after the notebook's parameters."""


def check_parameters(namespace: Mapping[str, Any]) -> None:
    """Stop a notebook whose injected parameters are misspelt or of the wrong type; call it in the cell after them.

    The notebook's parameters cell declares each name with its type, such as `task: str = "sst2"`.

    Args:
        namespace: the notebook's `globals()`: its annotations, and the inputs (`In`) that IPython keeps.

    Raises:
        InputError: an injected name is not declared, or a value is not of its declared type. The message names it.
    """
    declared: Mapping[str, Any] = namespace["__annotations__"]
    # The last such cell counts: in a live notebook, a corrected cell comes after the wrong one.
    injected = [source for source in namespace["In"] if source.startswith(INJECTED)][-1:]
    for source in injected:
        for statement in ast.parse(source).body:
            for target in statement.targets if isinstance(statement, ast.Assign) else ():
                name = ast.unparse(target)
                if name not in declared:
                    near = difflib.get_close_matches(name, declared, n=1)
                    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(declared)}"
                    raise InputError(f"unknown parameter {name!r} ({hint})")
    for name, hint in declared.items():
        try:
            # All entries of a list or mapping are checked. An integer is accepted as a float; nothing else is
            # converted.
            TypeAdapter(hint).validate_python(namespace[name], strict=True)
        except ValidationError:
            wanted = hint.__name__ if type(hint) is type else str(hint)
            raise InputError(f"parameter {name} = {namespace[name]!r}: must be of type {wanted}") from None
