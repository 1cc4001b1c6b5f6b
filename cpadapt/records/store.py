"""Reading and writing records: one JSON object a run, one JSON Lines file a process.

A record carries its whole config, so it needs no study file to be understood, and the run's margin on every item that
it was judged on, so that runs can be compared item by item. The rows that were drawn, and their classes, are written
once for each draw, before the first record that needs them. No text of a data set is ever stored. A file in use ends
in `.jsonl`, a finished one in `.jsonl.xz`.
"""

import contextlib
import dataclasses
import functools
import gc
import json
import lzma
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated
from pydantic_core import from_json

from cpadapt.errors import STRICT, UNPARSABLE, InputError, explain
from cpadapt.records.config import Protocol
from cpadapt.records.kept import keep, kept
from cpadapt.records.record import SCHEMA, SETS, Record, require_schema

ENDINGS = (".jsonl", ".jsonl.xz")
"""How the names of files of records end, in use and finished."""

Drawn = dict[str, dict[str, Any]]
"""The rows and labels of each set of a draw, by the draw's fingerprint."""


@validated(frozen=True, config=STRICT)
class _Draw:
    fingerprint: str
    sets: dict[str, dict[str, Any]]


_RECORD = TypeAdapter(Record)
_PROTOCOL = TypeAdapter(Protocol)
_DRAW = TypeAdapter(dict[Literal["draw"], _Draw])


@dataclasses.dataclass(frozen=True)
class Damage:
    """A line, or a whole file, that is not what it should be."""

    file: Path
    line: int | None
    """Counted from 1; `None` for the whole file."""
    problem: str

    def __str__(self) -> str:
        return f"{self.file} {self.problem}" if self.line is None else f"{self.file}, line {self.line}: {self.problem}"


def records_from_lines(lines: Iterable[str]) -> Iterator[Record]:
    """Read a file's lines, draws and records.

    Raises:
        InputError: a field is missing, unknown or of the wrong type, or a record's draw is not among the lines before
            it; the line and each field are named.
    """
    for number, read in each_line(lines):
        if isinstance(read, str):
            raise InputError(f"line {number}: {read}")
        if read is not None:
            yield read


def each_line(lines: Iterable[str | bytes]) -> Iterator[tuple[int, Record | str | None]]:
    """Read a file's lines, whatever is wrong with some of them.

    Returns:
        For each line its number, counted from 1, and its record; `None` for a draw; or what is wrong.
    """
    before = _Before({}, {})
    for number, line in enumerate(lines, start=1):
        yield number, _line(line, before)


class _Before(NamedTuple):
    """What the lines before held that later lines share."""

    drawn: Drawn
    protocols: dict[str, Protocol]
    """By how Python writes their fields."""


def _line(line: str | bytes, before: _Before) -> Record | str | None:
    try:
        content = from_json(line if isinstance(line, str) else line.decode())
    except UnicodeDecodeError as error:
        return _not_utf8(error)
    except ValueError as error:
        # The parser counts lines too, and sees only this one.
        return f"not JSON: {error}".replace(" at line 1 column ", " at column ")
    try:
        if isinstance(content, dict) and "draw" in content:
            draw = _DRAW.validate_python(content)["draw"]
            before.drawn[draw.fingerprint] = draw.sets
            return None
        return _record(content, before)
    except ValidationError as error:
        return explain(error, Record)
    except InputError as error:
        return str(error)


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not UTF-8: {error.reason} at byte {error.start}"


def _record(content: Any, before: _Before) -> Record:
    """A record as written in a file, completed with the rows and labels of its draw."""
    if isinstance(content, dict):
        require_schema(content.get("schema", SCHEMA))
        for field, kind in SETS.items():
            if isinstance(content.get(field), dict) and "data_fingerprint" in content:
                items = before.drawn.get(str(content["data_fingerprint"]), {}).get(kind)
                if items is None:
                    raise InputError(f"record {content.get('id')!r} comes before its draw of {kind}")
                content[field] = {**items, **content[field]}
        if isinstance(config := content.get("config"), dict) and "protocol" in config:
            config["protocol"] = _protocol(config["protocol"], before.protocols)
    return _RECORD.validate_python(content)


def _protocol(fields: Any, known: dict[str, Protocol]) -> Any:
    """A protocol, checked once for all records of a file that share it; what is none stays for the record's error."""
    try:
        written = repr(fields)
        if written not in known:
            known[written] = _PROTOCOL.validate_python(fields)
        return known[written]
    except UNPARSABLE:
        return fields


def lines_of(records: Iterable[Record], drawn: Drawn | None = None) -> Iterator[str]:
    """Records as the lines of one file, each draw before the first record that needs it.

    `records_from_lines` reads them back to equal records.

    Args:
        records: what to write.
        drawn: the draws that the file already has; those written now are added. By default it has none.
    """
    drawn = {} if drawn is None else drawn
    for record in records:
        content = dataclasses.asdict(record)
        sets = {}
        for field, kind in SETS.items():
            if content[field] is not None:
                sets[kind] = {name: content[field].pop(name) for name in ("rows", "drawn", "labels")}
                content[field] = {name: value for name, value in content[field].items() if value is not None}
        known = drawn.setdefault(record.data_fingerprint, {})
        if any(kind not in known for kind in sets):
            known |= sets
            draw = {"fingerprint": record.data_fingerprint, "sets": dict(known)}
            yield json.dumps({"draw": draw}, sort_keys=True)
        yield json.dumps(content, sort_keys=True, allow_nan=False)


def record_files(path: str | Path) -> list[Path]:
    """The files of records under a folder, sorted by their paths; or the one file that was given.

    A file that is compressed already is left out: whoever did so was killed before it was removed, or is about to.

    Raises:
        InputError: there is no such path.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"no records at {path}: it does not exist")
    if not path.is_dir():
        return [path]
    files = {file for ending in ENDINGS for file in path.rglob(f"*{ending}")}
    return sorted(file for file in files if compressed(file) not in files)


def compressed(file: Path) -> Path:
    """What a file in use is called once it is finished."""
    return file.with_name(f"{file.name}.xz")


def read_lines(file: Path) -> list[str]:
    """The lines of a file of records.

    Raises:
        InputError: its content is not what its ending says, or not UTF-8; the line is named.
    """
    lines = []
    for number, line in enumerate(raw_lines(file), start=1):
        try:
            lines.append(line.decode())
        except UnicodeDecodeError as error:
            raise InputError(str(Damage(file, number, _not_utf8(error)))) from None
    return lines


def raw_lines(file: Path) -> list[bytes]:
    """The lines of a file of records, in whatever encoding.

    Raises:
        InputError: it should be xz and is not, or not whole.
    """
    found = lines_or_damage(file, file.read_bytes())
    if isinstance(found, Damage):
        raise InputError(str(found))
    return found


def lines_or_damage(file: Path, content: bytes) -> list[bytes] | Damage:
    """The lines of a file with these bytes or, if it should be xz and is not, or not whole, what is wrong with it."""
    try:
        return (lzma.decompress(content) if file.suffix == ".xz" else content).splitlines()
    except lzma.LZMAError as error:
        return Damage(file, None, f"is not xz: {error}")


def load_records(path: str | Path, damaged: list[Damage] | None = None) -> list[Record]:
    """Every record under a folder (or in one file); of runs measured twice, the one that finished last.

    A file is read once per process, and again when it changes. What a finished one holds is kept on disk for later
    processes (`cpadapt.records.kept`). Callers share the records and must not modify them.

    Args:
        path: a folder or a file.
        damaged: where to note lines and files that cannot be read, and go on without them. By default they are errors.

    Raises:
        InputError: there is no such path, or a line is not a valid record (the file and line are named).
    """
    for _ in range(MOST_LISTINGS - 1):
        # Another process may compress its file, which is listed by its new name the next time.
        with contextlib.suppress(FileNotFoundError):
            return _newest(record_files(path), damaged)
    return _newest(record_files(path), damaged)


MOST_LISTINGS = 10
"""How often a folder is listed until all of its files are there when they are read."""


def _newest(files: Sequence[Path], damaged: list[Damage] | None) -> list[Record]:
    newest: dict[str, Record] = {}
    problems: list[Damage] = []
    for content in _contents_of(files):
        if content.damaged and damaged is None:
            raise InputError(str(content.damaged[0]))
        problems += content.damaged
        for record in content.records:
            known = newest.get(record.id)
            if known is None or known.provenance.finished <= record.provenance.finished:
                newest[record.id] = record
    if damaged is not None:
        damaged += problems
    return list(newest.values())


class _State(NamedTuple):
    """What changes when a file does."""

    inode: int
    size: int
    changed_ns: int


def _state(file: Path) -> _State:
    stat = file.stat()
    return _State(stat.st_ino, stat.st_size, stat.st_mtime_ns)


class _Content(NamedTuple):
    """What is in a file."""

    records: tuple[Record, ...]
    damaged: tuple[Damage, ...]


@dataclasses.dataclass
class _LastRead:
    """What a file held when it was last read. Older content is let go: a process reads its own file for every bank."""

    read: tuple[_State, _Content] | None = None


@functools.lru_cache(maxsize=1024)
def _last_read(file: Path) -> _LastRead:
    return _LastRead()


def _contents_of(files: Sequence[Path]) -> list[_Content]:
    """Each file's records and damage; read again only if it has changed."""
    found = {file: kept.read for file in files if (kept := _last_read(file)).read}
    states = {file: _state(file) for file in files}
    changed = [file for file in files if file not in found or found[file][0] != states[file]]
    for file, content in _read_anew(changed).items():
        found[file] = _last_read(file).read = states[file], content
    return [found[file][1] for file in files]


def _read_anew(files: Sequence[Path]) -> dict[Path, _Content]:
    """What is in these files: of finished ones what was kept, if anything was; the others are read."""
    content = {file: file.read_bytes() for file in files}
    finished = [file for file in files if file.suffix == ".xz"]
    with _collector_paused():
        found = {file: _Content(records, ()) for file in finished if (records := kept(content[file])) is not None}
        left = [file for file in files if file not in found]
        # Unpacking takes most of the time. All is unpacked first: beside it, reading would hold up the other threads.
        with ThreadPoolExecutor() as threads:
            unpacked = list(threads.map(lines_or_damage, left, [content[file] for file in left]))
        for file, lines in zip(left, unpacked, strict=True):
            found[file] = _parsed(file, lines)
            if file in finished and not found[file].damaged:
                keep(content[file], found[file].records)
    return found


def _parsed(file: Path, lines: list[bytes] | Damage) -> _Content:
    if isinstance(lines, Damage):
        return _Content((), (lines,))
    records, damaged = [], []
    for number, read in each_line(lines):
        if isinstance(read, str):
            damaged.append(Damage(file, number, read))
        elif read is not None:
            records.append(read)
    return _Content(tuple(records), tuple(damaged))


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep the garbage collector from walking thousands of new records, none of them garbage: it doubles the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        # This counts all that is new as old, without a walk. Where something was frozen before, it would thaw.
        if not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()
        if enabled:
            gc.enable()


class RecordFile:
    """The one file that this process adds its records to.

    Args:
        folder: where records are kept; created if missing. Each process has its own file name, so that processes that
            measure into the same folder never write to the same file.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self.path = self._free_name()
        self._content = b""
        self._drawn: Drawn = {}

    def add(self, records: Iterable[Record]) -> None:
        """Write these records too; either all of them are in the file afterwards, or none.

        Only these are turned into text; the file is then replaced by its old bytes and the new ones.
        """
        drawn = {fingerprint: dict(sets) for fingerprint, sets in self._drawn.items()}
        content = self._content + _text(lines_of(records, drawn))
        if not self._content:
            self._reserve()
        try:
            write_atomically(self.path, content)
        except BaseException:
            if not self._content:
                self.path.unlink(missing_ok=True)
            raise
        self._content, self._drawn = content, drawn

    def _free_name(self) -> Path:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        return self._folder / f"{stamp}-{secrets.token_hex(3)}.jsonl"

    def _reserve(self) -> None:
        """Create the file, empty, under a name that no other process has."""
        self._folder.mkdir(parents=True, exist_ok=True)
        while True:
            with contextlib.suppress(FileExistsError):
                self.path.touch(exist_ok=False)
                if not compressed(self.path).exists():
                    return
                self.path.unlink()
            self.path = self._free_name()

    def finish(self) -> None:
        """Compress the file; nothing can be added afterwards."""
        if self._content:
            write_xz(compressed(self.path), self._content)
            self.path.unlink()


def write_compressed(path: Path, records: Iterable[Record]) -> None:
    """Write a finished file of records, whole or not at all."""
    write_xz(path, _text(lines_of(records)))


def write_xz(path: Path, content: bytes) -> None:
    """Write a compressed file, whole or not at all."""
    write_atomically(path, lzma.compress(content, preset=9))


def _text(lines: Iterable[str]) -> bytes:
    return "".join(line + "\n" for line in lines).encode()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, even if the process is killed; its folder is created if missing.

    Raises:
        OSError: the file cannot be written; the error names it and the bytes that were to be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        with _created(draft) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        wanted = f"{error.strerror}; {len(content):,} bytes were to be written"
        raise OSError(error.errno, wanted, str(path)) from error
    finally:
        # On a file system that is read-only this raises although there is no draft.
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def _created(path: Path) -> BinaryIO:
    """Open a new file to write to, in a folder that another process may remove while it is empty."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            return path.open("wb")
