"""What a user's mistake raises, and how validation says what is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ConfigDict, ValidationError

STRICT: ConfigDict = {"extra": "forbid", "allow_inf_nan": False}
"""How everything is validated that is read from a file: no unknown fields, no infinities."""


class InputError(ValueError):
    """What was asked for cannot be done: a value, a file or a name is wrong.

    The message is one sentence that names the value and what would be right. The command line prints it alone
    and exits with 2; from Python it is a `ValueError`.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """What an error about an unknown name adds to it: the name that was probably meant, if there is one."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def explain(error: ValidationError) -> str:
    """One line of what a validation found: each field, the value it had and what would be right."""
    problems = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "value"
        if "error" in problem.get("ctx", {}):  # one of our own, which names the field
            problems.append(str(problem["ctx"]["error"]))
        elif problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            problems.append(f"{where} is not a known field")
        elif problem["type"] in ("missing", "missing_argument"):
            problems.append(f"{where} is missing")
        else:
            problems.append(f"{where} = {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}")
    return "; ".join(problems)
