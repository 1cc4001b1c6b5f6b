"""The committed numbers of the book, `results/quantities.json`. A changed number is a line of a diff.

`make quantities` renews the file, and a test compares it with the present records.
"""

import json
from collections.abc import Mapping

from companion import PROJECT
from companion.quantities import Quantity, as_json, from_json

FILE = PROJECT / "results" / "quantities.json"

MORE = 2
"""Digits that are kept beyond the printed ones, so that machines with other rounding agree."""


def text(values: Mapping[str, Quantity]) -> str:
    """The content of the file, a line for each quantity, by name."""
    lines = (
        f"{json.dumps(name)}: {json.dumps(as_json(quantity, MORE), ensure_ascii=False)}"
        for name, quantity in sorted(values.items())
    )
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read(kept: str) -> dict[str, Quantity]:
    """The quantities of the file, by name, from its content."""
    return {name: from_json(name, content) for name, content in json.loads(kept).items()}


def changes(kept: str, values: Mapping[str, Quantity]) -> list[str]:
    """The differences between the file and the present values, a line each.

    Args:
        kept: the file's content.
        values: the present values.
    """
    before = read(kept)
    said = [f"{name} is new" for name in sorted(values.keys() - before.keys())]
    said += [f"{name} is gone" for name in sorted(before.keys() - values.keys())]
    for name in sorted(before.keys() & values.keys()):
        old, new = as_json(before[name]), as_json(values[name], MORE)
        # A difference of one in the last kept digit may be rounding.
        near = 1.01 * 10.0 ** -(values[name].digits + MORE)
        if old.keys() != new.keys() or any(not _alike(old[part], new[part], near) for part in old):
            said.append(f"{name}: {old} before, {new} now")
    return said


def _alike(a: object, b: object, near: float) -> bool:
    if isinstance(a, int | float) and isinstance(b, int | float):
        return abs(a - b) <= near
    return list(a) == list(b) if isinstance(a, list | tuple) and isinstance(b, list | tuple) else a == b
