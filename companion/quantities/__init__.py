"""Every number that a page or the README prints, said once: a named function of records → value.

A chapter's numbers are the functions of the module here that has its name. `@quantity` registers one, under the name
`chapter.function`, or `chapter.function.suffix` where it says the same of several tasks or cells::

    @quantity("points", digits=2, source=noise.over_seeds_study, each=("sst2", "rte", "boolq"))
    def lead(task: str) -> Estimate:
        \"""LoRA's first rank minus CP at its budget.\"""
        return noise.minus(noise.over_seeds(task), LEAD)

A page prints it by a role (`companion.sphinx`): {q}`noise.lead.sst2` is 0.69, {q}`noise.lead.sst2|full` is 0.69 points
(0.25 to 1.12); what it claims of it stands beside the sentence as {says}`noise.lead.sst2.low > 0`
(`companion.statements`). Functions give shares, as the library does; in points and percent they become 100 times that,
here and nowhere else.
"""

import functools
import hashlib
import importlib
import importlib.metadata
import json
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from filelock import FileLock

import companion.records
from companion import PROJECT
from companion.forks import Job
from companion.wording import number
from cpadapt.analysis.statistics import Estimate, Mean
from cpadapt.errors import InputError, did_you_mean
from cpadapt.records.store import write_atomically

CHAPTERS = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))

PERCENT = "percent"
SHARES = {"points": 100.0, PERCENT: 100.0}
"""What a share is multiplied by, by unit; all other units are of numbers as they are."""

STYLES = ("value", "unit", "interval", "full", "bare", "n", "level", "source")
"""What of a quantity may be printed (`Quantity.text`)."""

PARTS = ("value", "low", "high", "n", "level")
"""What predicates may name of a quantity (`companion.statements`), and so no part of a name."""


@dataclass(frozen=True)
class Value:
    """What a quantity's function gives where it is more than a number, and no `Mean` of the library."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    level: float = 0.95
    """Of the interval from `low` to `high`."""


Result = float | str | Mean | Value
Sources = str | tuple[str, ...]


@dataclass(frozen=True)
class Quantity:
    """A number of the book, in its unit; or a text, such as a cell's name."""

    name: str
    value: float | str
    source: tuple[str, ...] = ()
    """Studies, by name, and files and folders of the project; none where it is from code alone."""
    low: float | None = None
    high: float | None = None
    level: float | None = None
    """Of the interval from `low` to `high`, such as 0.95."""
    unit: str = ""
    """Such as `points`, `percent` or `seeds`; of a bare number none."""
    digits: int = 0
    n: int | None = None
    """How many runs, or other things, it is from."""

    def text(self, style: str = "") -> str:
        """As a page prints it.

        Args:
            style: what is printed, and how, as words with | between them: `value` (by default), `unit` (value and
                unit), `interval` (0.3 to 1.1), `full` (0.7 points (0.3 to 1.1)), `bare` (the same without its unit),
                `n`, `level` (95 %) or `source`; `signed` (+0.7), `negated`; and a number of digits other than the
                quantity's.

        Raises:
            InputError: an unknown word, or what is asked for is not there.
        """
        what, digits, sign, value, low, high = "value", self.digits, False, self.value, self.low, self.high
        for word in style.split("|") if style else ():
            if word == "signed":
                sign = True
            elif word == "negated" and not isinstance(value, str):
                value, low, high = -value, *(None if end is None else -end for end in (high, low))
            elif word.isdigit():
                digits = int(word)
            elif word in STYLES:
                what = word
            else:
                raise InputError(f"{self.name}|{style}: {word!r} is not a print style")
        if what == "source":
            return ", ".join(self.source)
        if isinstance(value, str):
            if what != "value":
                raise InputError(f"{self.name}|{style}: it is a text")
            return value
        if what == "n":
            return number(self._known(self.n, what), 0)
        if what == "level":
            return _with_unit(number(100 * self._known(self.level, what), 0), PERCENT)
        if what in ("interval", "full", "bare"):
            ends = " to ".join(number(self._known(end, "interval"), digits, sign) for end in (low, high))
            if what == "interval":
                return ends
        printed = number(value, digits, sign)
        printed = _with_unit(printed, self.unit) if what in ("unit", "full") else printed
        return f"{printed} ({ends})" if what in ("full", "bare") else printed

    def _known(self, part: float | None, what: str) -> float:
        if part is None:
            raise InputError(f"{self.name} has no {what}")
        return part

    @property
    def about(self) -> str:
        """Where it comes from, in a line."""
        said = [", ".join(self.source) or "computed"]
        if self.n is not None:
            said.append(f"n = {self.text('n')}")
        if self.low is not None:
            said.append(f"{self.text('level')} interval {self.text('interval')}")
        return "; ".join(said)


def _with_unit(printed: str, unit: str) -> str:
    if unit == PERCENT:
        return f"{printed}\u202f%"
    return f"{printed} {unit.removesuffix('s') if printed.lstrip('+−') == '1' else unit}".rstrip()


@dataclass(frozen=True)
class _Registered:
    function: Callable[..., Result]
    arguments: tuple[str, ...]
    unit: str
    digits: int
    level: float
    source: Sources | Callable[..., Sources]

    @property
    def sources(self) -> tuple[str, ...]:
        found = self.source(*self.arguments) if callable(self.source) else self.source
        return (found,) if isinstance(found, str) else found


_registered: dict[str, dict[str, _Registered]] = {}
"""By chapter and by name, in the order of the chapter's file."""

F = TypeVar("F", bound=Callable[..., Result])


def quantity(
    unit: str = "",
    digits: int = 0,
    source: Sources | Callable[..., Sources] = (),
    level: float = 0.95,
    each: Iterable[str | tuple[str, ...]] = ((),),
) -> Callable[[F], F]:
    """Register a function's result as a number of its module's chapter.

    The function gives a number, a text, a `Value`, or a mean of the library, which has its interval and, if it is an
    `Estimate`, its seeds for `n`. It stays what it is, so that others may call it.

    Args:
        unit: such as `points`, `percent` (both of shares), `seeds`; none for a bare number.
        digits: behind the point.
        source: the studies that it is from, by name, or files and folders of the project; a function gives those of
            each call.
        level: of a mean's interval.
        each: the arguments of each call; they are the end of its name.

    Raises:
        InputError: a name is there already, or is none that a predicate can read.
    """

    def register(function: F) -> F:
        chapter = function.__module__.rpartition(".")[2]
        known = _registered.setdefault(chapter, {})
        for one in each:
            arguments = (one,) if isinstance(one, str) else one
            parts = [chapter, function.__name__, *arguments]
            if wrong := [part for part in parts if not part.isidentifier() or part in PARTS]:
                raise InputError(f"quantity {'.'.join(parts)}: {wrong[0]!r} cannot be part of a name")
            name = ".".join(parts)
            if name in known:
                raise InputError(f"two quantities are named {name}")
            known[name] = _Registered(function, arguments, unit, digits, level, source)
        return function

    return register


def value(name: str) -> Quantity:
    """One quantity by its name.

    Raises:
        InputError: there is none of that name.
    """
    chapter = name.partition(".")[0]
    if chapter not in CHAPTERS:
        raise InputError(f"no quantity {name!r}: no chapter {chapter!r}{did_you_mean(chapter, CHAPTERS)}")
    known = of_chapter(chapter)
    if name not in known:
        raise InputError(f"no quantity {name!r}{did_you_mean(name, known)}")
    return known[name]


def table(
    rows: Mapping[str, str | tuple[str, ...]],
    columns: Mapping[str, str],
    titles: str | tuple[str, ...] = "",
    said: Mapping[str, Callable[[float], str]] | None = None,
) -> pd.DataFrame:
    """A table of quantities, to read.

    Args:
        rows: by the end of its quantities' names, such as `sst2.cp1`, what each row is called, in one column or more.
        columns: what each prints, by its title: a name, with {} for each part of a row's end, and behind | a style
            (`Quantity.text`), such as `noise.over_seeds.{}.{}|interval`. A text has no interval and prints a dash.
        titles: of the columns before these.
        said: by title, what words a column's numbers, in place of `Quantity.text`.

    Raises:
        InputError: as `value` and `Quantity.text`.
    """
    heads = (titles,) if isinstance(titles, str) else titles
    found = []
    for end, called in rows.items():
        row = dict(zip(heads, (called,) if isinstance(called, str) else called, strict=True))
        for title, pattern in columns.items():
            name, _, style = pattern.format(*end.split(".")).partition("|")
            known, word = value(name), (said or {}).get(title)
            if isinstance(known.value, str):
                row[title] = "–" if "interval" in style else known.value
            else:
                row[title] = word(known.value) if word else known.text(style)
        found.append(row)
    return pd.DataFrame(found)


def everything() -> dict[str, Quantity]:
    """The quantities of all chapters, by name."""
    return {name: found for chapter in CHAPTERS for name, found in of_chapter(chapter).items()}


@functools.cache
def of_chapter(chapter: str) -> Mapping[str, Quantity]:
    """A chapter's quantities by name: as `build/quantities` has them while what they come from is the same.

    Raises:
        InputError: as `compute`.
    """
    file = kept(chapter)
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        if (known := up_to_date(chapter)) is not None:
            return known
        computed = compute(chapter)
        sources = sorted({source for known in computed.values() for source in known.source})
        found = {name: as_json(known) for name, known in computed.items()}
        content = {"key": key(chapter, sources), "sources": sources, "quantities": found}
        write_atomically(file, json.dumps(content, ensure_ascii=False, indent=1).encode())
        return computed


def up_to_date(chapter: str) -> Mapping[str, Quantity] | None:
    """A chapter's quantities by name as `build/quantities` has them; `None` if there are none that still hold."""
    file = kept(chapter)
    if not file.exists():
        return None
    found = json.loads(file.read_text(encoding="utf-8"))
    if found["key"] != key(chapter, found["sources"]):
        return None
    return {name: from_json(name, content) for name, content in found["quantities"].items()}


def to_compute(chapters: Iterable[str]) -> list[Job]:
    """What computes, in a fork each, the quantities of those chapters that are not up to date.

    Their modules are imported here, so that no fork has to.
    """
    stale = [chapter for chapter in chapters if up_to_date(chapter) is None]
    for chapter in stale:
        importlib.import_module(f"{__name__}.{chapter}")
    return [(f"the numbers of {chapter}", of_chapter, (chapter,)) for chapter in stale]


def kept(chapter: str) -> Path:
    """The file that keeps a chapter's quantities from one build to the next."""
    return PROJECT / "build" / "quantities" / f"{chapter}.json"


def compute(chapter: str) -> dict[str, Quantity]:
    """A chapter's quantities by name.

    Raises:
        InputError: a source does not exist, or records were read of a study that no quantity names as its source; or
            as the chapter's functions.
    """
    importlib.import_module(f"{__name__}.{chapter}")
    before = set(companion.records.read)
    computed = {name: _computed(name, entry) for name, entry in _registered[chapter].items()}
    named = {source for known in computed.values() for source in known.source}
    if missing := sorted(source for source in named if not any(_files_of(PROJECT, source))):
        raise InputError(f"quantities of {chapter}: the source {missing[0]!r} is neither a study nor a file or folder")
    if silent := sorted(companion.records.read - before - named):
        raise InputError(
            f"quantities of {chapter}: records of {silent[0]!r} are read, but no quantity names that source"
        )
    return computed


def _computed(name: str, entry: _Registered) -> Quantity:
    result = entry.function(*entry.arguments)
    if isinstance(result, Mean):
        seeds = result.seeds if isinstance(result, Estimate) else None
        result = Value(result.mean, *result.interval(entry.level), n=seeds, level=entry.level)
    if isinstance(result, str):
        return Quantity(name, result, entry.sources)
    if not isinstance(result, Value):
        result = Value(result)
    factor = SHARES.get(entry.unit, 1)
    low, high = (None if end is None else factor * end for end in (result.low, result.high))
    level = None if low is None else result.level
    return Quantity(name, factor * result.value, entry.sources, low, high, level, entry.unit, entry.digits, result.n)


def as_json(known: Quantity, digits: int | None = None) -> dict[str, Any]:
    """A quantity as files hold it, without its name and what it does not have.

    Args:
        known: the quantity.
        digits: how many more than it prints are kept; all where none is given.
    """
    found = {name: part for name, part in asdict(known).items() if part not in (None, "", ()) and name != "name"}
    if digits is not None and not isinstance(known.value, str):
        found |= {
            name: round(found[name], known.digits + digits) for name in ("value", "low", "high") if name in found
        }
    return found


def from_json(name: str, content: Mapping[str, Any]) -> Quantity:
    """What `as_json` gave, with the name."""
    return Quantity(name=name, **{**content, "source": tuple(content.get("source", ()))})


CODE = ("cpadapt/analysis", "cpadapt/families", "cpadapt/inputs", "cpadapt/records", "cpadapt/study.py", "companion")
PACKAGES = ("numpy", "pandas", "peft", "scipy", "statsmodels")


def key(chapter: str, sources: Iterable[str], project: Path = PROJECT) -> str:
    """A hash of all that a chapter's quantities come from: its sources, `book`'s tables, studies and the code, and
    which studies have records, as some quantities are only there with them."""
    folders = [path for name in (*CODE, "studies", "book") for path in _files_of(project, name)]
    read = {path for path in folders if path.suffix in (".py", ".toml")}
    # Of this folder only what all chapters share.
    read -= {path for path in read if path.parent.name == "quantities" and path.stem not in ("__init__", chapter)}
    read |= {path for source in sources for path in _files_of(project, source)}
    found = hashlib.sha256(" ".join(map(importlib.metadata.version, PACKAGES)).encode())
    found.update(" ".join(sorted(path.name for path in (project / "results").iterdir() if path.is_dir())).encode())
    for path in sorted(read):
        found.update(f"{path.relative_to(project)} {_digest(path, path.stat().st_mtime_ns)}\n".encode())
    return found.hexdigest()


@functools.cache
def _digest(path: Path, changed_ns: int) -> str:
    """The hash of a file, which is read again once it was changed at another time."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _files_of(project: Path, source: str) -> Iterator[Path]:
    """The files of a source, if there is such a study, file or folder."""
    if (study := project / "studies" / f"{source}.toml").exists():
        yield study
        yield from sorted((project / "results" / source).rglob("*.jsonl*"))
    elif (path := project / source).is_dir():
        yield from sorted(file for file in path.rglob("*") if file.is_file())
    elif path.exists():
        yield path
