"""Whether files of records are whole, and going on without what is not."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cpadapt.records.record import Record
from cpadapt.records.store import (
    Damage,
    each_line,
    lines_or_damage,
    raw_lines,
    record_files,
    write_atomically,
    write_xz,
)

SET_ASIDE = ".damaged"
"""What the name of a file of damaged lines ends in; it lies beside the file that had them."""


@dataclass(frozen=True)
class Checked:
    """What a folder of records holds."""

    files: int
    records: int
    """Lines of whole records, of runs that were measured again too."""
    damaged: tuple[Damage, ...]


def check(path: str | Path, *, set_aside: bool = False) -> Checked:
    """Look at every line of every file of records.

    A line is damaged if it cannot be read or an outcome does not add up, if a record's ids do not follow from its
    content, or if the same record stands before it in the file. A number within a line may have changed without a sign
    of it, except in a compressed file, which has a checksum as a whole.

    Args:
        path: a folder of records, or one file.
        set_aside: take the damaged lines out of their files and keep them in files that end in `.damaged`; runs
            without a record are then trained again. A compressed file that is damaged is kept so as a whole.

    Raises:
        InputError: there is no such path.
    """
    files = record_files(path)
    records, damaged = 0, []
    for file in files:
        found = list(_damage_in(file))
        records += sum(problem is None for problem in found)
        here = [problem for problem in found if isinstance(problem, Damage)]
        damaged += here
        if here and set_aside:
            _set_aside(file, {problem.line for problem in here})
    return Checked(len(files), records, tuple(damaged))


def _damage_in(file: Path) -> Iterator[Damage | None]:
    """For each record of a file, and each draw that is damaged, the damage; `None` for a whole record."""
    lines = lines_or_damage(file, file.read_bytes())
    if isinstance(lines, Damage):
        yield lines
        return
    seen: dict[str, tuple[Record, int]] = {}
    for number, read in each_line(lines):
        if isinstance(read, str):
            yield Damage(file, number, read)
        elif read is not None:
            before, line = seen.setdefault(read.id, (read, number))
            problem = contradiction(read)
            if line < number and before == read:
                problem = f"the record of run {read.id} stands in line {line} already"
            yield Damage(file, number, problem) if problem is not None else None


def contradiction(record: Record) -> str | None:
    """Which of a record's ids does not follow from the rest of it; `None` where both do.

    All else is checked when a record is read (`cpadapt.records.record`).
    """
    if record.config_id != record.config.config_id:
        return f"config_id = {record.config_id!r} is not that of its config, {record.config.config_id}"
    run_id = record.config.run_id(record.data_fingerprint, record.weights.identity)
    if record.id != run_id:
        return f"id = {record.id!r} is not that of its config, data and weights, {run_id}"
    return None


def _set_aside(file: Path, damaged: set[int | None]) -> None:
    numbered = (file.with_name(f"{file.name}.{number}{SET_ASIDE}") for number in itertools.count(1))
    aside = next(path for path in numbered if not path.exists())
    if None in damaged:
        file.replace(aside)
        return
    lines = list(enumerate(raw_lines(file), start=1))
    bad, good = ([line for number, line in lines if (number in damaged) is chosen] for chosen in (True, False))
    # First the damaged ones, so that no line is in neither file if the process is killed in between.
    write_atomically(aside, b"".join(line + b"\n" for line in bad))
    content = b"".join(line + b"\n" for line in good)
    if file.suffix == ".xz":
        write_xz(file, content)
    else:
        write_atomically(file, content)
