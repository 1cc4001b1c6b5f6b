"""The error for a user's mistake, and how validation errors are worded."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import reprlib
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

if TYPE_CHECKING:
    from pydantic import ConfigDict, ValidationError, ValidationInfo

T = TypeVar("T")

STRICT: ConfigDict = {"extra": "forbid", "allow_inf_nan": False}
"""How content of files is validated, without unknown fields or infinities."""


class InputError(ValueError):
    """A value, a file or a name that the user gave is wrong.

    The message is one sentence that names the value and what would be right. The command line prints only the message
    and exits with status 2; in Python it is a `ValueError`. Line breaks in the message become spaces, so that it is
    one line whatever it quotes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(line.strip() for line in message.splitlines()))


UNPARSABLE = (ValueError, RecursionError)
"""What `json` and `tomllib` raise for a text that they cannot parse: a wrong character, an integer of thousands of
digits, or brackets nested too deeply. Text that is not UTF-8 is a `ValueError` too."""


def did_you_mean(name: str, known: Iterable[str], similar: float = 0.6) -> str:
    """The hint at the end of an error about an unknown name: the most similar known name, if one is similar.

    Args:
        name: the unknown one.
        known: all that are known.
        similar: how similar it has to be, from 0 to 1 (`difflib`).
    """
    close = difflib.get_close_matches(name, known, n=1, cutoff=similar)
    return f" (did you mean {close[0]!r}?)" if close else ""


def explain(error: ValidationError, kind: type | None = None) -> str:
    """Describe a validation error in one line: each wrong field, its value and what would be right.

    Args:
        error: what pydantic raised.
        kind: the dataclass that was validated; with it the hint for an unknown field is the most similar known one.
    """
    problems = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "value"
        if "error" in problem.get("ctx", {}):  # an InputError of ours, which names the field
            problems.append(str(problem["ctx"]["error"]))
        elif problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            *path, name = problem["loc"]
            problems.append(f"{where} is not a known field{did_you_mean(str(name), _fields(kind, path))}")
        elif problem["type"] in ("missing", "missing_argument"):
            problems.append(f"{where} is missing")
        else:
            problems.append(f"{where} = {shown(problem['input'])}: {problem['msg'][0].lower()}{problem['msg'][1:]}")
    return "; ".join(problems)


def explained(cls: type[T]) -> type[T]:
    """Have a dataclass of pydantic raise an `InputError` where a value is wrong; a decorator above pydantic's."""
    init: Any = cls.__init__

    @functools.wraps(init)
    def checked(self: T, *args: Any, **kwargs: Any) -> None:
        from pydantic import ValidationError

        try:
            init(self, *args, **kwargs)
        except ValidationError as error:
            raise InputError(explain(error, cls)) from None

    setattr(cls, "__init__", checked)  # noqa: B010 — mypy refuses the assignment
    return cls


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def shown(value: object) -> str:
    """A value for a message, as `repr` has it, with the middle of a long one left out."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # hexadecimal numbers may have more digits than Python writes
        return "a number of thousands of digits"


def _fields(kind: Any, path: Iterable[int | str]) -> list[str]:
    """The fields of the dataclass at a path within another; none if there is no dataclass."""
    for part in path:
        if dataclasses.is_dataclass(kind):
            kind = get_type_hints(kind).get(str(part))
        else:  # the type of a tuple's or dictionary's entries
            kind = next((entry for entry in get_args(kind) if dataclasses.is_dataclass(entry)), None)
    return [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []


def no_truth_value(given: Any, info: ValidationInfo) -> Any:
    """Refuse true and false where a number is meant, which pydantic takes for 1 and 0; a validator in mode "before".

    Raises:
        InputError: the value, or an entry of it, is a truth value.
    """
    entries = given.values() if isinstance(given, Mapping) else given if isinstance(given, list | tuple) else [given]
    for entry in entries:
        if isinstance(entry, bool):
            raise InputError(f"{info.field_name} = {given!r}: must be a number, not true or false")
        if isinstance(entry, list | tuple | Mapping):
            no_truth_value(entry, info)
    return given


def is_number(value: object) -> bool:
    """Whether a value of any type is a finite number, and not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def whole(text: str) -> int | None:
    """Read a whole number as people write it, such as `1000`, `1e3` or `1_000`; `None` if the text is none."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None
