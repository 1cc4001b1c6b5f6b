"""The project's own records, read once. Every number of the book that rests on runs comes from here."""

import functools
from collections.abc import Sequence

from companion import PROJECT
from cpadapt.errors import InputError, did_you_mean
from cpadapt.records.record import Record
from cpadapt.records.store import load_records

read: set[str] = set()
"""The studies whose records this process requested; `companion.quantities` compares them to the stated sources."""


def records(study: str) -> Sequence[Record]:
    """The records of a study in `results`; none if it is not measured yet.

    Raises:
        InputError: `studies` has no file of that name; or as `cpadapt.records.store.load_records`.
    """
    read.add(study)
    return _load(study)


@functools.cache
def _load(study: str) -> tuple[Record, ...]:
    known = [path.stem for path in (PROJECT / "studies").glob("*.toml")]
    if study not in known:
        raise InputError(f"no study {study!r} in studies{did_you_mean(study, known)}")
    folder = PROJECT / "results" / study
    return tuple(load_records(folder)) if folder.is_dir() else ()
