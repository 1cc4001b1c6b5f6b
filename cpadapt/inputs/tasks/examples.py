"""From a task's source splits to its sets of examples."""

import dataclasses
import functools
import hashlib
import json
import logging
import lzma
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cpadapt.errors import UNPARSABLE, InputError, did_you_mean, shown
from cpadapt.inputs import generated
from cpadapt.inputs.folders import local_folder
from cpadapt.inputs.tasks.specs import TASKS, TaskSpec, says_folder

IntArray = npt.NDArray[np.int64]

# Half a surrogate pair, which JSON can hold and no tokenizer reads.
_SURROGATE = re.compile("[\ud800-\udfff]")


class Caps(NamedTuple):
    """The most examples that each set may have; the defaults are the paper's."""

    train: int = 1000
    dev: int = 500
    eval: int | None = 1000
    """None takes the whole split, 0 nothing."""
    rest: int = 0
    """Rows of the training split on which runs are judged in addition to eval."""


@dataclasses.dataclass(frozen=True)
class Examples:
    """Examples drawn from one source split, in the order of their rows there."""

    texts: tuple[tuple[str, ...], ...]
    """`[n][text column]`, unchanged from the source."""

    labels: IntArray
    """`[n]`: class indices."""

    rows: IntArray
    """`[n]`: row numbers in the source split, from 0."""

    source_size: int
    """Rows of the source split."""

    def __len__(self) -> int:
        return len(self.rows)


@dataclasses.dataclass(frozen=True)
class TaskData:
    """A task's sets of examples. The text of `cpadapt.inputs.tasks` says how they are drawn."""

    spec: TaskSpec
    train: Examples
    dev: Examples
    eval: Examples
    rest: Examples

    fingerprint: str
    """sha256 of the fields of the spec that decide tokens and labels, and of the drawn texts, labels and rows. It does
    not depend on where the data are. The rule for rest rows counts only if there is a cap on rest."""

    summary: dict[str, Any]
    """A summary of the draw, as JSON. It has the size, class counts and majority rate of each set (None for an empty
    one; rest only with a cap on rest), the rows of the source splits and how many were left out, and for each text
    column the number of eval examples whose text is also in train or dev."""


def load_task(
    spec: TaskSpec,
    *,
    data_dir: str | Path | None = None,
    caps: Caps | tuple[int, int, int | None] | tuple[int, int, int | None, int] = Caps(),  # noqa: B008 — a NamedTuple cannot be changed
    data_seed: int = 0,
) -> TaskData:
    """Read a task's two source splits and draw train, dev, eval and rest.

    The splits stay in memory, so another draw from the same files does not read them again.

    Args:
        spec: the task. A generated task needs nothing else. If `path` is a folder, the data are read from there.
        data_dir: read `<data_dir>/<task name>/<split>.jsonl.xz` (or .jsonl, .csv, .parquet) instead of the hub.
        caps: the most examples of train, dev, eval and rest. A cap above the number of examples takes all. Dev is
            drawn first, rest last. A larger cap on eval or rest adds to the examples of a smaller one.
        data_seed: decides the draw of train, dev and rest. Eval does not depend on it.

    Raises:
        InputError: a cap on train or dev is not positive, or a cap on eval or rest is negative; the data cannot be
            found or read; a column or split is missing; a text is empty; a label is unknown or has no example; or dev
            leaves nothing to train on.
    """
    caps = Caps(*caps)
    if min(caps.train, caps.dev) < 1:
        raise InputError(f"caps on train and dev must be positive integers, not {(caps.train, caps.dev)}")
    if (caps.eval is not None and caps.eval < 0) or caps.rest < 0:
        raise InputError(f"caps on eval and rest must be 0 or positive integers, not {(caps.eval, caps.rest)}")
    read = _read(spec, _files(spec, None if data_dir is None else Path(data_dir)))
    order = _shuffled(read.train_rows, f"train/{data_seed}")
    if len(order) <= caps.dev:
        raise InputError(
            f"the split {spec.train_split!r} of the task {spec.name!r} has {len(order)} distinct examples, and"
            f" a dev cap of {caps.dev} leaves none to train on; lower the dev cap"
        )
    # Rest comes last, so that a cap on rest changes no other set.
    taken, left = order[: caps.dev + caps.train], order[caps.dev + caps.train :]
    sets = {
        "train": read.train.take(taken[caps.dev :]),
        "dev": read.train.take(taken[: caps.dev]),
        "eval": read.eval.take(_shuffled(read.eval_rows, "eval")[: caps.eval]),
        "rest": read.train.take(list(islice(_allowed(spec, read.train.contents, left, taken), caps.rest))),
    }
    summary = {
        "sets": {name: _census(spec, examples) for name, examples in sets.items() if name != "rest" or caps.rest},
        "source": {
            "train": {
                "split": spec.train_split,
                "rows": len(read.train.texts),
                "left_out_repeats": read.train_repeats,
                "left_out_in_eval": read.in_eval,
            },
            "eval": {
                "split": spec.eval_split,
                "rows": len(read.eval.texts),
                "left_out_repeats": read.eval_repeats,
            },
        },
        "eval_shares_text": _shared_texts(spec, sets),
    }
    return TaskData(spec, **sets, fingerprint=_fingerprint(spec, sets, with_rest=caps.rest > 0), summary=summary)


def _allowed(
    spec: TaskSpec, contents: Sequence[tuple[str, ...]], rows: Sequence[int], taken: Sequence[int]
) -> Iterator[int]:
    """Those of `rows`, in order, that the spec allows as rest rows if the rows `taken` are train and dev."""
    words = spec.rest_apart_words
    columns = (
        [_LongTexts(texts, words) for texts in zip(*(contents[row] for row in taken), strict=True)] if words else []
    )
    for row in rows:
        enough = sum(len(text.split()) for text in contents[row]) >= spec.rest_min_words
        if enough and not any(column.overlap(text) for column, text in zip(columns, contents[row], strict=False)):
            yield row


class _LongTexts:
    """The texts of one column that have `words` words or more, indexed to find texts within one another."""

    def __init__(self, texts: Iterable[str], words: int) -> None:
        self._words = words
        long = {text: text.split() for text in set(texts)}
        long = {text: split for text, split in long.items() if len(split) >= words}
        self._joined = "\n".join(f" {text} " for text in long)
        self._runs = {run for split in long.values() for run in self._runs_of(split)}
        self._by_start: dict[tuple[str, ...], list[list[str]]] = {}
        for split in long.values():
            self._by_start.setdefault(tuple(split[:words]), []).append(split)

    def _runs_of(self, split: list[str]) -> list[tuple[str, ...]]:
        return list(zip(*(split[k:] for k in range(self._words)), strict=False))

    def overlap(self, text: str) -> bool:
        """Whether a text is contained in one of these or contains one, by whole words."""
        split = text.split()
        runs = self._runs_of(split)
        # Few texts consist of known runs of words only, so the joined text is rarely searched.
        if self._runs.issuperset(runs) and f" {text} " in self._joined:
            return True
        return any(
            split[at : at + len(other)] == other
            for at, run in enumerate(runs)
            for other in self._by_start.get(run, ())
        )


@dataclasses.dataclass(frozen=True)
class _Source:
    """One source split, read and checked."""

    texts: list[tuple[str, ...]]
    labels: IntArray
    contents: list[tuple[str, ...]]

    @classmethod
    def read(cls, spec: TaskSpec, split: str, opened: "Mapping[str, Columns]") -> "_Source":
        where = f"the split {split!r} of the task {spec.name!r}"
        if split not in opened:
            raise InputError(f"the task {spec.name!r} has no split {split!r}; its splits are {', '.join(opened)}")
        columns = opened[split]
        for column in (*spec.text_columns, spec.label_column):
            if column not in columns:
                hint = did_you_mean(column, columns)
                raise InputError(f"{where} has no column {column!r}{hint}; its columns are {', '.join(columns)}")
        texts: list[tuple[str, ...]] = list(zip(*(columns[name] for name in spec.text_columns), strict=True))
        contents: list[tuple[str, ...]] = []
        for row, example in enumerate(texts):
            for column, text in zip(spec.text_columns, example, strict=True):
                if not isinstance(text, str) or not text.strip() or _SURROGATE.search(text):
                    raise InputError(
                        f"row {row} of {where} has {shown(text)} in column {column!r}, which must be a text and not"
                        " empty"
                    )
            contents.append(tuple(" ".join(text.split()) for text in example))
        index: dict[str | float, int] = {label: k for k, label in enumerate(spec.labels)}
        labels = np.empty(len(texts), np.int64)
        for row, label in enumerate(columns[spec.label_column]):
            if not isinstance(label, str | float | int) or label not in index:
                raise InputError(
                    f"row {row} of {where} has the label {shown(label)}, which is not one of {spec.labels}"
                )
            labels[row] = index[label]
        counts = np.bincount(labels, minlength=len(spec.labels))
        if not counts.all():
            absent = spec.labels[int(np.argmin(counts))]
            raise InputError(f"{where} has no example with the label {absent!r} in its {len(texts)} rows")
        return cls(texts, labels, contents)

    def distinct(self, without: frozenset[tuple[str, ...]]) -> tuple[list[int], int, int]:
        """Find the rows whose content is not in `without`; of several rows with one content, the first.

        Returns:
            The rows; the number of rows left out as repeats; the number left out because of `without`.
        """
        first: dict[tuple[str, ...], int] = {}
        for row, content in enumerate(self.contents):
            if content not in without:
                first.setdefault(content, row)
        outside = sum(content in without for content in self.contents)
        return list(first.values()), len(self.contents) - outside - len(first), outside

    def take(self, rows: Sequence[int]) -> Examples:
        at = np.sort(np.asarray(rows, np.int64))
        return Examples(tuple(self.texts[row] for row in at), self.labels[at], at, len(self.texts))


@dataclasses.dataclass(frozen=True)
class _Sources:
    """A task's two source splits, the rows of each that may be drawn, and how many may not."""

    train: _Source
    train_rows: list[int]
    train_repeats: int
    in_eval: int
    eval: _Source
    eval_rows: list[int]
    eval_repeats: int


@functools.lru_cache(maxsize=16)
def _read(spec: TaskSpec, files: "tuple[_File, ...]") -> _Sources:
    """Read a task's source splits; once per process, unless the files change."""
    opened = _open(spec, files)
    train = _Source.read(spec, spec.train_split, opened)
    evaluation = _Source.read(spec, spec.eval_split, opened)
    # The whole evaluation split is kept out of the training split, not only the examples drawn from it. Otherwise the
    # cap on eval would change the training examples.
    eval_rows, eval_repeats, _ = evaluation.distinct(without=frozenset())
    train_rows, train_repeats, in_eval = train.distinct(without=frozenset(evaluation.contents))
    return _Sources(train, train_rows, train_repeats, in_eval, evaluation, eval_rows, eval_repeats)


def _shuffled(rows: Sequence[int], key: str) -> list[int]:
    """Shuffle rows by a hash of `key` and their number, which is the same on all platforms and versions."""
    return sorted(rows, key=lambda row: hashlib.sha256(f"{key}/{row}".encode()).digest())


def _census(spec: TaskSpec, examples: Examples) -> dict[str, Any]:
    counts = np.bincount(examples.labels, minlength=len(spec.labels))
    return {
        "size": len(examples),
        "classes": {name: int(count) for name, count in zip(spec.label_names, counts, strict=True)},
        "majority_rate": float(counts.max() / counts.sum()) if len(examples) else None,
    }


def _shared_texts(spec: TaskSpec, sets: Mapping[str, Examples]) -> dict[str, int]:
    """For each text column, the number of eval examples whose text there is also in train or dev."""
    shared = {}
    for k, column in enumerate(spec.text_columns):
        seen = {texts[k] for name in ("train", "dev") for texts in sets[name].texts}
        shared[column] = sum(texts[k] in seen for texts in sets["eval"].texts)
    return shared


def _drawn(examples: Examples) -> list[Any]:
    return [examples.rows.tolist(), examples.labels.tolist(), examples.texts]


# Fields of a spec that change neither tokens nor labels, or change only the choice of rest rows.
_UNDECLARED = ("path", "config_name", "title", "source_group", "rest_min_words", "rest_apart_words")


def _fingerprint(spec: TaskSpec, sets: Mapping[str, Examples], *, with_rest: bool) -> str:
    # The same examples are the same data, whether they come from the hub or from a folder.
    declared = {k: v for k, v in dataclasses.asdict(spec).items() if k not in _UNDECLARED}
    digest = hashlib.sha256(json.dumps(declared, sort_keys=True).encode())
    for name in ("train", "dev", "eval"):
        digest.update(json.dumps([name, *_drawn(sets[name])]).encode())
    if with_rest:
        rule = [spec.rest_min_words, spec.rest_apart_words]
        digest.update(json.dumps(["rest", rule, *_drawn(sets["rest"])]).encode())
    return digest.hexdigest()


class _File(NamedTuple):
    """The file of a split, and its state when it was found."""

    split: str
    path: str
    bytes: int
    changed_ns: int


def _files(spec: TaskSpec, data_dir: Path | None) -> tuple[_File, ...]:
    """Find the files of the task's two splits. There are none if it is generated or comes from the hub."""
    if data_dir is not None and not data_dir.is_dir():
        raise InputError(f"the data folder {data_dir} {'is a file' if data_dir.exists() else 'does not exist'}")
    if spec.grammar is not None:
        return ()
    if spec.path is not None and (own := local_folder(spec.path)) is not None:
        folder = own
    elif data_dir is not None:
        folder = data_dir / spec.name
    else:
        return ()
    if not folder.is_dir():
        raise InputError(f"the folder {folder} of the task {spec.name!r} does not exist")
    files = []
    for split in (spec.train_split, spec.eval_split):
        names = [f"{split}{ending}" for ending in _READERS]
        paths = [folder / name for name in names if (folder / name).is_file()]
        if len(paths) != 1:
            there = " and ".join(path.name for path in paths) or "none"
            raise InputError(
                f"the folder {folder} of the task {spec.name!r} must hold one of {', '.join(names)}; it holds {there}"
            )
        state = paths[0].stat()
        files.append(_File(split, str(paths[0].absolute()), state.st_size, state.st_mtime_ns))
    return tuple(files)


Columns = Mapping[str, Sequence[Any]]
"""The values of a split by column, all of one length."""


def _open(spec: TaskSpec, files: tuple[_File, ...]) -> Mapping[str, Columns]:
    """Read the task's splits, by name; on the hub the columns of further splits are left out."""
    if files:
        return {file.split: _open_file(file) for file in files}
    if spec.grammar is not None:
        return {split: _columns(rows) for split, rows in generated.generate(spec.grammar).items()}
    remedy = (
        f"pass --data-dir with a folder that holds {spec.name}/{spec.train_split}.jsonl.xz"
        f" and {spec.name}/{spec.eval_split}.jsonl.xz, or use a generated task:"
        f" {', '.join(name for name, known in TASKS.items() if known.grammar is not None)}"
    )
    if spec.path is None:
        raise InputError(f"the task {spec.name!r} is not read from the hub; {remedy}")
    if says_folder(spec.path):
        raise InputError(f"the folder {spec.path} of the task {spec.name!r} does not exist")
    # Importing datasets takes a second; data from elsewhere should not wait for it.
    import datasets

    try:
        with _quiet(datasets):
            opened = datasets.load_dataset(spec.path, spec.config_name)
    # The hub's client fails in a dozen ways, with exceptions of four libraries, from an unknown host to a missing
    # configuration. The remedy is the same for all.
    except Exception as error:
        source = spec.path if spec.config_name is None else f"{spec.path} ({spec.config_name})"
        if "/" not in spec.path:
            source += ", and there is no folder of that name"
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"the task {spec.name!r} could not be loaded from the hub as {source}: {reason.rstrip('.')}; {remedy}"
        ) from error
    wanted = (spec.train_split, spec.eval_split)
    return {split: dataset[:] if split in wanted else {} for split, dataset in opened.items()}


def _open_file(file: _File) -> Columns:
    read = _READERS[Path(file.path).name.removeprefix(file.split)]
    try:
        columns = read(Path(file.path)) if file.bytes else {}
        if not any(columns.values()):
            raise InputError("it has no rows")
    except (ValueError, OSError, lzma.LZMAError) as error:  # what the parsers raise for a damaged file
        raise InputError(f"cannot read {file.path}: {error}") from error
    return columns


def _columns(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Rows as columns; what a row lacks is `None`."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _read_json_lines(path: Path) -> Columns:
    """One JSON object a line. Not by pyarrow, which takes some texts for dates and dies of a line that is `null`."""
    content = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    rows = []
    # Only these are ends of lines: JSON's texts may have others in them.
    for number, line in enumerate(content.decode("utf-8-sig").replace("\r\n", "\n").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except UNPARSABLE as error:
            raise InputError(f"line {number} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise InputError(f"line {number} is {shown(row)}; it should be an object with a value for each column")
        rows.append(row)
    return _columns(rows)


def _read_csv(path: Path) -> Columns:
    import pandas as pd

    try:
        # By default pandas reads the text "NA" as missing, and guesses types piece by piece.
        table = pd.read_csv(path, keep_default_na=False, low_memory=False)
    except pd.errors.EmptyDataError:
        return {}
    return {str(name): table[name].tolist() for name in table.columns}


def _read_parquet(path: Path) -> Columns:
    import pandas as pd

    table = pd.read_parquet(path)
    return {str(name): table[name].tolist() for name in table.columns}


# The endings of a split's file, and what reads each.
_READERS: Mapping[str, Callable[[Path], Columns]] = {
    ".jsonl": _read_json_lines,
    ".jsonl.xz": _read_json_lines,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Keep the progress bars of datasets and the retry messages of the hub's client off the terminal."""
    hub = logging.getLogger("huggingface_hub")
    level, bars = hub.level, not datasets.are_progress_bars_disabled()
    hub.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        hub.setLevel(level)
        if bars:
            datasets.enable_progress_bars()
