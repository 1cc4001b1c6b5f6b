"""What is kept of a measured run: one JSON object a run, one JSON Lines file a process.

A record carries its whole config, so it says what it measured without the study file; and how sure the run was of
every item it was judged on, by the item's row number in the source split, so that runs can be compared item by item.
Which rows were drawn, and their classes, stand once in a file for each draw, before the first record that needs them.
Dataset text is never in it. A file at work ends in `.jsonl`, a finished one in `.jsonl.xz`.
"""

import base64
import dataclasses
import functools
import importlib.metadata
import json
import lzma
import os
import platform
import secrets
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated
from torch import Tensor

from cpadapt.backbones import Source
from cpadapt.errors import STRICT, InputError, explain
from cpadapt.protocol import RunConfig

SCHEMA = 2
"""Version of a record's fields."""

ENDINGS = (".jsonl", ".jsonl.xz")
"""Of files of records: at work, and finished."""

SETS = {"outcome": "eval", "rest": "rest", "dev": "dev"}
"""A record's fields of answers, and the set of examples that each is on."""

MARGIN_RESOLUTION = 32.0
"""A margin of m nats is kept as the whole number nearest to this times √|m|, at most 127 (15.75 nats)."""

PACKAGES = ("torch", "transformers", "peft", "datasets", "numpy")


@validated(frozen=True, config=STRICT)
class Evaluation:
    """One look at dev during training."""

    step: int
    train_loss: float
    """Mean over the steps since the last evaluation."""
    dev_loss: float
    dev_correct: int
    dev_total: int

    @property
    def dev_accuracy(self) -> float:
        """Share of dev examples that are right."""
        return self.dev_correct / self.dev_total


@validated(frozen=True, config=STRICT)
class Outcome:
    """How the chosen weights did on one set of items: eval, rest or dev."""

    correct: int
    total: int
    rows: int
    """Rows of the source split, of which `total` were drawn."""
    drawn: str
    """Which rows of the source were drawn, as a bitmap over them (base64, most significant bit first)."""
    labels: str | None = None
    """The class of each drawn item, by row, one byte each (base64); unknown in records older than schema 2."""
    margins: str | None = None
    """The margin of each drawn item, by row, one byte each (base64), which is the true label's score minus the best
    other one, as `margin_codes` keeps it."""
    right: str | None = None
    """Which drawn items were right, by row, as a bitmap, in records older than margins."""

    def __post_init__(self) -> None:
        if (self.margins is None) == (self.right is None):
            raise InputError("an outcome has either margins or a bitmap of what was right")

    @property
    def accuracy(self) -> float:
        """Share of the items that are right."""
        return self.correct / self.total

    @property
    def items(self) -> NDArray[np.int64]:
        """`[total]`, the items' row numbers in the source split, rising."""
        return unpack_bitmap(self.drawn, self.rows).nonzero()[0]

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """`[total]`, by row."""
        if self.right is not None:
            return unpack_bitmap(self.right, self.total)
        return np.frombuffer(base64.b64decode(str(self.margins)), np.int8) > 0

    @property
    def margin(self) -> NDArray[np.float64] | None:
        """`[total]`, by row, in nats; negative where the item is wrong, cut off at ±15.75. None in older records."""
        if self.margins is None:
            return None
        codes = np.frombuffer(base64.b64decode(self.margins), np.int8).astype(float)
        margins: NDArray[np.float64] = np.sign(codes) * (codes / MARGIN_RESOLUTION) ** 2
        return margins

    @property
    def label(self) -> NDArray[np.int64] | None:
        """`[total]`, the items' classes, by row, where known."""
        if self.labels is None:
            return None
        return np.frombuffer(base64.b64decode(self.labels), np.uint8).astype(np.int64)

    @property
    def right_by_row(self) -> dict[int, bool]:
        """Right or wrong, by row number in the source split."""
        return dict(zip(self.items.tolist(), self.is_right.tolist(), strict=True))

    @property
    def label_by_row(self) -> dict[int, int] | None:
        """The class, by row number in the source split, where known."""
        return None if self.label is None else dict(zip(self.items.tolist(), self.label.tolist(), strict=True))

    @property
    def right_by_class(self) -> tuple[int, ...] | None:
        """How many items of each class are right, where their classes are known."""
        if self.label is None:
            return None
        classes = int(self.label.max()) + 1
        return tuple(np.bincount(self.label, self.is_right, classes).astype(int).tolist())

    @property
    def balanced_accuracy(self) -> float | None:
        """The mean over classes of the share of their items that is right, where classes are known."""
        if self.label is None or self.right_by_class is None:
            return None
        asked = np.bincount(self.label)
        return float(np.mean(np.array(self.right_by_class)[asked > 0] / asked[asked > 0]))


@validated(frozen=True, config=STRICT)
class Counts:
    """What was trained, over all target modules."""

    adapter: int
    """Trainable scalars of the adapter, the budget it uses."""
    step: int
    """What one more unit of the family's size would cost; 0 for head only."""
    head: int
    """Trainable scalars of the readout, outside the budget; 0 for a verbalizer."""
    adam_bytes: int
    """Two float32 moments a trainable scalar of the adapter."""


@validated(frozen=True, config=STRICT)
class Cost:
    """What the bank that held the run took; a run's share is its part of the bank."""

    bank_runs: int
    train_seconds: float
    evaluation_seconds: float
    peak_memory_bytes: int
    """On CUDA the allocator's peak, elsewhere the process's resident peak."""
    resumed: int
    """How often the bank was taken up again from a checkpoint."""


@validated(frozen=True, config=STRICT)
class Provenance:
    """On what, with what and when the run was measured."""

    cpadapt: str
    python: str
    packages: dict[str, str]
    git_commit: str | None
    git_clean: bool | None
    device: str
    finished: str
    """ISO 8601, UTC."""


@validated(frozen=True, config=STRICT)
class Record:
    """One measured run."""

    schema: int
    id: str
    config_id: str
    study: str
    label: str
    """What the study calls this variant of a family; the family's name unless the study says otherwise."""
    config: RunConfig
    protocol_sources: dict[str, Literal["paper", "ours"]]
    weights: Source
    """Where the backbone's came from."""
    data_fingerprint: str
    data: dict[str, Any]
    counts: Counts
    evaluations: tuple[Evaluation, ...]
    best_step: int | None
    """The first evaluation with the most dev examples right; none if the run diverged before it."""
    outcome: Outcome | None
    """The best-dev weights on the evaluation split; none if the run diverged before there were any, or was asked
    nothing there."""
    rest: Outcome | None
    """The same weights on rows of the training split that the draw left, if the run was asked any."""
    dev: Outcome | None
    """The same weights on dev, by which they were chosen; none in records older than schema 2."""
    diverged_at: int | None
    """The step whose loss or gradient was not finite."""
    cost: Cost
    provenance: Provenance

    def __post_init__(self) -> None:
        _require_schema(self.schema)

    @property
    def best(self) -> Evaluation | None:
        """The evaluation whose weights were kept."""
        return next((e for e in self.evaluations if e.step == self.best_step), None)


_RECORD = TypeAdapter(Record)


def records_from_lines(lines: Iterable[str]) -> Iterator[Record]:
    """Read a file's lines, draws and records.

    Raises:
        InputError: a field is missing, unknown or of the wrong type, or a record's draw is not among the lines before
            it; the line and each field are named.
    """
    draws: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            content = json.loads(line)
            if isinstance(content, dict) and "draw" in content:
                draws[content["draw"]["fingerprint"]] = content["draw"]["sets"]
            else:
                yield _record(content, draws)
        except json.JSONDecodeError as error:
            raise InputError(f"line {number}: not JSON: {error}") from None
        except ValidationError as error:
            raise InputError(f"line {number}: {explain(error)}") from None
        except (InputError, KeyError, TypeError) as error:
            said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise InputError(f"line {number}: {said}") from None


def _record(content: Any, draws: Mapping[str, Mapping[str, Any]]) -> Record:
    """A record as it stands in a file, with what its draw says of the items it was asked."""
    if isinstance(content, dict):
        _require_schema(content.get("schema", SCHEMA))
        for field, kind in SETS.items():
            if isinstance(content.get(field), dict) and "data_fingerprint" in content:
                drawn = draws.get(content["data_fingerprint"], {}).get(kind)
                if drawn is None:
                    raise InputError(f"no draw of {kind} stands before the record {content.get('id')!r}")
                content[field] = {**drawn, **content[field]}
    return _RECORD.validate_python(content)


def _require_schema(schema: Any) -> None:
    if schema != SCHEMA:
        older = "; `cpadapt records migrate FOLDER` carries older ones over" if schema == 1 else ""
        raise InputError(f"schema = {schema!r}: this version reads records of schema {SCHEMA}{older}")


def lines_of(records: Iterable[Record]) -> Iterator[str]:
    """Records as the lines of one file, each draw before the first record that needs it.

    `records_from_lines` reads them back to equal records.
    """
    written: dict[str, dict[str, Any]] = {}
    for record in records:
        content = dataclasses.asdict(record)
        sets = {}
        for field, kind in SETS.items():
            if content[field] is not None:
                sets[kind] = {name: content[field].pop(name) for name in ("rows", "drawn", "labels")}
                content[field] = {name: value for name, value in content[field].items() if value is not None}
        known = written.setdefault(record.data_fingerprint, {})
        if any(kind not in known for kind in sets):
            known |= sets
            draw = {"fingerprint": record.data_fingerprint, "sets": dict(known)}
            yield json.dumps({"draw": draw}, sort_keys=True)
        yield json.dumps(content, sort_keys=True, allow_nan=False)


def record_files(path: str | Path) -> list[Path]:
    """The files of records under a folder, in the order of their names; or the one file that was given.

    Raises:
        InputError: there is no such path.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"no records at {path}: it does not exist")
    return sorted(file for ending in ENDINGS for file in path.rglob(f"*{ending}")) if path.is_dir() else [path]


def read_lines(file: Path) -> list[str]:
    """The lines of a file of records.

    Raises:
        InputError: it is not what its ending says, or no UTF-8.
    """
    try:
        content = file.read_bytes()
        return (lzma.decompress(content) if file.suffix == ".xz" else content).decode().splitlines()
    except lzma.LZMAError as error:
        raise InputError(f"{file} is not xz: {error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8: {error.reason} at byte {error.start}") from None


def load_records(path: str | Path) -> list[Record]:
    """Every record under a folder (or in one file); of runs measured twice, the one that finished last.

    Raises:
        InputError: there is no such path, or a line is no valid record (the file and line are named).
    """
    newest: dict[str, Record] = {}
    for file in record_files(path):
        lines = read_lines(file)
        try:
            for record in records_from_lines(lines):
                known = newest.get(record.id)
                if known is None or known.provenance.finished <= record.provenance.finished:
                    newest[record.id] = record
        except InputError as error:
            raise InputError(f"{file}, {error}") from None
    return list(newest.values())


def require_one_backbone(records: Iterable[Record], what: str) -> None:
    """Check that runs that are to be compared were measured on the same weights.

    Raises:
        InputError: they were not; two of the sources are named.
    """
    found = {record.weights.identity: record for record in records}
    if len(found) > 1:
        raise InputError(
            f"{what} were measured on different weights, so they do not compare: "
            + " and ".join(f"{record.weights} (run {record.id})" for record in list(found.values())[:2])
        )


def read_records(path: str | Path) -> pd.DataFrame:
    """The records under a folder (or in one file) as a tidy table, one row a run; see `tabulate`.

    Raises:
        InputError: as `cpadapt.record.load_records`.
    """
    return tabulate(load_records(path))[0]


def read_evaluations(path: str | Path) -> pd.DataFrame:
    """The evaluations during training, one row each; see `tabulate`.

    Raises:
        InputError: as `cpadapt.record.load_records`.
    """
    return tabulate(load_records(path))[1]


def tabulate(records: Iterable[Record]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Records as two tidy tables.

    Returns:
        A table of one row a run, and one of one row an evaluation.

        The columns of the first are ``id``, ``study``, ``backbone``, ``task``, ``label``, ``family``, ``size``,
        ``parameters`` (trainable scalars of the adapter), ``learning_rate``, ``scale``, ``seed``, ``data_seed``,
        ``order_seed`` (of the order, where it is not that of ``seed``), ``protocol`` (its id), ``steps``,
        ``best_step``, ``dev_accuracy``, ``eval_accuracy``, ``balanced_accuracy`` (on eval, where its items' classes
        are known), ``rest_accuracy``, ``correct``, ``total``, ``majority_rate``, ``diverged_at``, ``run_seconds`` (the
        run's share of its bank's training), ``peak_memory_bytes``, ``device``, ``finished``, ``warmup_steps`` (the
        run's own or the protocol's) and ``weights`` (the identity of the backbone's).

        Those of the second are ``id``, ``task``, ``label``, ``family``, ``size``, ``learning_rate``, ``seed``,
        ``data_seed``, ``step``, ``train_loss``, ``dev_loss`` and ``dev_accuracy``.
    """
    runs, evaluations = [], []
    for record in records:
        run = _row(record)
        runs.append(run)
        of_run = {name: run[name] for name in _EVALUATION_COLUMNS[:8]}
        evaluations += [
            of_run
            | {
                "step": e.step,
                "train_loss": e.train_loss,
                "dev_loss": e.dev_loss,
                "dev_accuracy": e.dev_accuracy,
            }
            for e in record.evaluations
        ]
    return pd.DataFrame(runs, columns=list(_COLUMNS)), pd.DataFrame(evaluations, columns=list(_EVALUATION_COLUMNS))


_COLUMNS = (
    "id", "study", "backbone", "task", "label", "family", "size", "parameters", "learning_rate", "scale", "seed",
    "data_seed", "order_seed", "protocol", "steps", "best_step", "dev_accuracy", "eval_accuracy", "balanced_accuracy",
    "rest_accuracy", "correct", "total", "majority_rate", "diverged_at", "run_seconds", "peak_memory_bytes", "device",
    "finished", "warmup_steps", "weights",
)  # fmt: skip
_EVALUATION_COLUMNS = (
    "id", "task", "label", "family", "size", "learning_rate", "seed", "data_seed",
    "step", "train_loss", "dev_loss", "dev_accuracy",
)  # fmt: skip


def _row(record: Record) -> dict[str, Any]:
    config, outcome, best = record.config, record.outcome, record.best
    return {
        "id": record.id,
        "study": record.study,
        "backbone": config.backbone,
        "task": config.task,
        "label": record.label,
        "family": config.family,
        "size": config.size,
        "parameters": record.counts.adapter,
        "learning_rate": config.learning_rate,
        "scale": config.scale,
        "seed": config.seed,
        "data_seed": config.data_seed,
        "order_seed": config.order_seed,
        "protocol": config.protocol.id,
        "steps": config.protocol.steps,
        "best_step": record.best_step,
        "dev_accuracy": best.dev_accuracy if best else None,
        "eval_accuracy": outcome.accuracy if outcome else None,
        "balanced_accuracy": outcome.balanced_accuracy if outcome else None,
        "rest_accuracy": record.rest.accuracy if record.rest else None,
        "correct": outcome.correct if outcome else None,
        "total": outcome.total if outcome else None,
        "majority_rate": record.data["sets"].get("eval", {}).get("majority_rate"),
        "diverged_at": record.diverged_at,
        "run_seconds": record.cost.train_seconds / record.cost.bank_runs,
        "peak_memory_bytes": record.cost.peak_memory_bytes,
        "device": record.provenance.device,
        "finished": record.provenance.finished,
        "warmup_steps": config.protocol.warmup_steps if config.warmup_steps is None else config.warmup_steps,
        "weights": record.weights.identity,
    }


class RecordFile:
    """The one file that this process adds its records to, rewritten whole and atomically each time.

    Args:
        folder: where records are kept; made if need be. The file's name is new for each process, so that processes
            that measure into one folder never write to one file.
    """

    def __init__(self, folder: str | Path) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        self.path = Path(folder) / f"{stamp}-{secrets.token_hex(3)}.jsonl"
        self._records: list[Record] = []

    def add(self, records: Iterable[Record]) -> None:
        """Write these records too; either all of them are in the file afterwards, or none."""
        together = [*self._records, *records]
        write_atomically(self.path, _text(together))
        self._records = together

    def finish(self) -> None:
        """Compress the file; nothing is added to it any more."""
        if self._records:
            write_compressed(self.path.with_name(f"{self.path.name}.xz"), self._records)
            self.path.unlink()


def write_compressed(path: Path, records: Iterable[Record]) -> None:
    """Write a finished file of records, whole or not at all."""
    write_atomically(path, lzma.compress(_text(records), preset=9))


def _text(records: Iterable[Record]) -> bytes:
    return "".join(line + "\n" for line in lines_of(records)).encode()


def write_atomically(path: Path, content: bytes) -> None:
    """Put a file in place whole or not at all, whatever happens meanwhile; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def pack_bitmap(rows: Sequence[int] | NDArray[np.int64], size: int) -> str:
    """Bitmap over `size` rows with these set, as base64, most significant bit first."""
    bits = np.zeros(size, dtype=bool)
    bits[rows] = True
    return base64.b64encode(np.packbits(bits).tobytes()).decode()


def unpack_bitmap(bitmap: str, size: int) -> NDArray[np.bool_]:
    """`[size]`, the inverse of `pack_bitmap`."""
    return np.unpackbits(np.frombuffer(base64.b64decode(bitmap), dtype=np.uint8), count=size).astype(bool)


def margin_codes(scores: Tensor, labels: Tensor) -> Tensor:
    """How sure the scores are of the true labels, a byte each: the sign says right or wrong, exactly.

    The margin m is the true label's score minus the best other one, in nats. It is kept as ±round(32 √|m|), at least 1
    and at most 127: to 3 % at one nat, and with the sign of what `argmax` says.

    Args:
        scores: `[..., labels]`, log-probabilities up to a constant.
        labels: `[...]`, class indices.

    Returns:
        `[...]`, int8.
    """
    true = scores.gather(-1, labels[..., None])
    others = scores.scatter(-1, labels[..., None], -torch.inf).amax(-1)
    size = (true[..., 0] - others).abs().sqrt().mul(MARGIN_RESOLUTION).round().nan_to_num(1.0).clamp(1, 127)
    return torch.where(scores.argmax(-1) == labels, size, -size).to(torch.int8)


def pack_bytes(values: NDArray[Any]) -> str:
    """Whole numbers as base64, a byte each: margins from −127 to 127, classes from 0 to 255."""
    return base64.b64encode(values.astype(np.int16).astype(np.uint8).tobytes()).decode()


COMMIT_VARIABLE = "CPADAPT_COMMIT"
"""Environment variable that names the commit where the source was copied without its git folder, as
`git describe --always --dirty --abbrev=40` prints it: with `-dirty` at the end if the tree was not as committed."""


@functools.cache
def _source_state() -> tuple[str | None, bool | None]:
    """The commit of cpadapt's own checkout and whether tracked files are as committed; none where unknown."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(checkout), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    checkout = Path(__file__).resolve().parent.parent
    try:
        if Path(git("rev-parse", "--show-toplevel")) == checkout:
            return git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no") == ""
    except (OSError, subprocess.CalledProcessError):  # no git on this machine, or not a checkout
        pass
    stated = os.environ.get(COMMIT_VARIABLE)
    return (None, None) if stated is None else (stated.removesuffix("-dirty"), not stated.endswith("-dirty"))


def provenance(device: torch.device) -> Provenance:
    """The versions, the commit and the device of a run that finishes now.

    Raises:
        InputError: a package's metadata is not installed, so that its version cannot be told.
    """
    commit, clean = _source_state()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    try:
        own, packages = importlib.metadata.version("cpadapt"), {n: importlib.metadata.version(n) for n in PACKAGES}
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(
            f"the version of {error.name} is not known here, and every record says it: install it with pip"
            " (cpadapt itself with `pip install --no-deps --editable .` where it lies in a folder)"
        ) from None
    return Provenance(
        cpadapt=own,
        python=platform.python_version(),
        packages=packages,
        git_commit=commit,
        git_clean=clean,
        device=name,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
