"""Keeps on disk what finished files of records hold, because unpacking and checking them takes most of the time.

Entries lie in `$CPADAPT_HOME/records`, by default in `~/.cache/cpadapt/records`, and may be deleted at any time. Each
belongs to the content of one file and to the code that read it. Where none can be written, every process reads the
files themselves.
"""

import contextlib
import functools
import hashlib
import io
import os
import pickle
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import cpadapt
from cpadapt.families import FAMILIES
from cpadapt.families.peft_tuners import TUNERS
from cpadapt.families.planted import Teacher
from cpadapt.inputs.backbones.specs import Source
from cpadapt.inputs.folders import home_folder
from cpadapt.records.config import HEAD, Protocol, RunConfig
from cpadapt.records.record import Cost, Counts, Evaluation, Outcome, Provenance, Record

DIGEST_BYTES = hashlib.sha256().digest_size

CLASSES = (Record, RunConfig, Protocol, Teacher, Source, Counts, Evaluation, Outcome, Cost, Provenance)
PARTS = {(part.__module__, part.__qualname__): part for part in CLASSES}
"""What a record consists of, beside plain values."""


def kept(content: bytes) -> tuple[Record, ...] | None:
    """The records of a file with these bytes; `None` if it was not read before, or by other code."""
    try:
        entry = _entry(content).read_bytes()
        reader, checksum, body = (
            entry[:DIGEST_BYTES],
            entry[DIGEST_BYTES : 2 * DIGEST_BYTES],
            entry[2 * DIGEST_BYTES :],
        )
        if reader != _reader() or checksum != hashlib.sha256(body).digest():
            return None
        return cast(tuple[Record, ...], _Records(io.BytesIO(body)).load())
    # No entry, no home, or one that holds something else. The file of records is still there.
    except (OSError, RuntimeError, pickle.UnpicklingError):
        return None


def keep(content: bytes, records: tuple[Record, ...]) -> None:
    """Note the records of a file with these bytes, for later processes."""
    ours = {name for name, family in FAMILIES.items() if getattr(family, "__name__", "").startswith("cpadapt.")}
    # The code of a family that was registered is not part of the reader, so that what it accepts may change.
    if {record.config.family for record in records} - ours - set(TUNERS) - {HEAD}:
        return
    body = pickle.dumps(records, protocol=pickle.HIGHEST_PROTOCOL)
    with contextlib.suppress(OSError, RuntimeError):
        entry = _entry(content)
        entry.parent.mkdir(parents=True, exist_ok=True)
        draft = entry.with_name(f".{entry.name}.{os.getpid()}.draft")
        try:
            draft.write_bytes(_reader() + hashlib.sha256(body).digest() + body)
            draft.replace(entry)
        finally:
            draft.unlink(missing_ok=True)


def _entry(content: bytes) -> Path:
    return home_folder() / "records" / f"{hashlib.sha256(content).hexdigest()}.pickle"


@functools.cache
def _reader() -> bytes:
    """What decides how a file is read: our sources of records and of all that their fields are checked by."""
    seen = hashlib.sha256(f"{platform.python_version()} {version('pydantic')}".encode())
    package = Path(cpadapt.__file__).parent
    parts = ("errors.py", "families/**/*.py", "inputs/**/*.py", "records/**/*.py")
    for file in sorted(file for part in parts for file in package.glob(part)):
        seen.update(file.read_bytes())
    return seen.digest()


class _Records(pickle.Unpickler):
    """Makes records and what they consist of, and nothing else: a folder may be shared, and a pickle can run code."""

    def find_class(self, module: str, name: str) -> Any:
        """The class of this name.

        Raises:
            UnpicklingError: another class than those of records.
        """
        if (module, name) not in PARTS:
            raise pickle.UnpicklingError(f"{module}.{name} does not belong to a record")
        return PARTS[module, name]
