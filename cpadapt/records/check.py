"""Whether files of records are whole, and going on without what is not."""

import base64
import binascii
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cpadapt.errors import InputError
from cpadapt.records.record import SETS, Outcome, Record, unpack_bitmap
from cpadapt.records.store import Damage, each_line, raw_lines, record_files, write_atomically, write_xz

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

    A line is damaged if it cannot be read, if a record's ids do not follow from its content, if its outcomes do not
    add up, or if the same record stands before it in the file. A number within a line may have changed without a sign
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
    try:
        lines = raw_lines(file)
    except InputError as error:
        yield Damage(file, None, str(error).removeprefix(f"{file} "))
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
    """What in a record does not follow from the rest of it; `None` where nothing is found."""
    if record.config_id != record.config.config_id:
        return f"config_id = {record.config_id!r} is not that of its config, {record.config.config_id}"
    run_id = record.config.run_id(record.data_fingerprint, record.weights.identity)
    if record.id != run_id:
        return f"id = {record.id!r} is not that of its config, data and weights, {run_id}"
    if record.best_step is not None and record.best is None:
        return f"best_step = {record.best_step}: there is no evaluation at this step"
    for field in SETS:
        outcome = getattr(record, field)
        try:
            problem = None if outcome is None else _outcome_contradiction(outcome)
        except (binascii.Error, ValueError) as error:
            problem = str(error)
        if problem is not None:
            return f"{field}: {problem}"
    return None


def _outcome_contradiction(outcome: Outcome) -> str | None:
    drawn = int(unpack_bitmap(outcome.drawn, outcome.rows).sum())
    lengths = {"drawn": drawn, "labels": outcome.total if outcome.labels is None else _length(outcome.labels)}
    if outcome.margins is not None:
        lengths["margins"] = _length(outcome.margins)
    for name, length in lengths.items():
        if length != outcome.total:
            return f"total = {outcome.total}, and {name} has {length}"
    if (right := int(outcome.is_right.sum())) != outcome.correct:
        return f"correct = {outcome.correct}, and {right} are right"
    return None


def _length(text: str) -> int:
    return len(base64.b64decode(text, validate=True))


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
