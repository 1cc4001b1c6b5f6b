"""The error for a user's mistake, and how validation errors are worded."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ConfigDict, ValidationError

STRICT: ConfigDict = {"extra": "forbid", "allow_inf_nan": False}
"""How content of files is validated, without unknown fields or infinities."""


class InputError(ValueError):
    """A value, a file or a name that the user gave is wrong.

    The message is one sentence that names the value and what would be right. The command line prints only the message
    and exits with status 2; in Python it is a `ValueError`.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The hint at the end of an error about an unknown name: the most similar known name, if one is similar."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def explain(error: ValidationError) -> str:
    """Describe a validation error in one line: each wrong field, its value and what would be right."""
    problems = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "value"
        if "error" in problem.get("ctx", {}):  # an InputError of ours, which names the field
            problems.append(str(problem["ctx"]["error"]))
        elif problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            problems.append(f"{where} is not a known field")
        elif problem["type"] in ("missing", "missing_argument"):
            problems.append(f"{where} is missing")
        else:
            problems.append(f"{where} = {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}")
    return "; ".join(problems)
