"""The notebooks as they are written, with what several share: `python -m companion.notebooks FOLDER SCRIPT...`.

A line {shared}`task.items.rte` of a script stands for a section of `notebooks/shared/task.py`: what follows the line
(items)= there, prose and cells, with rte in place of TASK, the file's name in capitals.
"""

import re
import sys
from pathlib import Path
from typing import Any

import jupytext

from cpadapt.errors import InputError, did_you_mean

_SHARED = re.compile(r"^# \{shared\}`(\w+)\.(\w+)\.(\w+)`\n", re.M)
_SECTION = re.compile(r"^# \((\w+)\)=\n", re.M)


def read(script: Path) -> Any:
    """A notebook of `nbformat`, from its script.

    Raises:
        InputError: as `text`.
    """
    return jupytext.reads(text(script), fmt="py:percent")


def text(script: Path) -> str:
    """A script with what it shares.

    Raises:
        InputError: there is no such file or section.
    """

    def put(found: re.Match[str]) -> str:
        file, section, subject = found.groups()
        path = script.parent / "shared" / f"{file}.py"
        if not path.is_file():
            raise InputError(f"{script.name}: there is no notebooks/shared/{path.name}")
        _, *parts = _SECTION.split(path.read_text(encoding="utf-8"))
        known = dict(zip(parts[::2], parts[1::2], strict=True))
        if section not in known:
            raise InputError(f"{script.name}: shared/{path.name} has no {section!r}{did_you_mean(section, known)}")
        return known[section].replace(file.upper(), subject)

    return _SHARED.sub(put, script.read_text(encoding="utf-8"))


def prose(page: Path) -> str:
    """A page as it is written, without its code: a Markdown file, or a script's text cells.

    Raises:
        InputError: as `text`.
    """
    if page.suffix == ".md":
        return page.read_text(encoding="utf-8")
    return "\n\n".join(cell.source for cell in read(page).cells if cell.cell_type == "markdown")


if __name__ == "__main__":
    folder, *scripts = map(Path, sys.argv[1:])
    for script in scripts:
        jupytext.write(read(script), folder / f"{script.stem}.ipynb")
