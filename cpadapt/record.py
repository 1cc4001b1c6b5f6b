"""What is kept of a measured run: one JSON object a run, one JSON Lines file a process.

A record carries its whole config, so it says what it measured without the study file; and which examples were right,
by their row number in the source split, so that runs can be compared example by example. Dataset text is never in it.
"""

import base64
import dataclasses
import functools
import importlib.metadata
import json
import os
import platform
import secrets
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from cpadapt.backbones import Source
from cpadapt.errors import STRICT, InputError, explain
from cpadapt.protocol import RunConfig

SCHEMA = 1
"""Version of a record's fields."""

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
    """The best-dev weights on the evaluation split."""

    correct: int
    total: int
    rows: int
    """Rows of the source split, of which `total` were drawn."""
    drawn: str
    """Which rows of the source were drawn, as a bitmap over them (base64, most significant bit first)."""
    right: str
    """Which of them were drawn and right, likewise."""

    @property
    def accuracy(self) -> float:
        """Share of the drawn examples that are right."""
        return self.correct / self.total

    @property
    def right_by_row(self) -> dict[int, bool]:
        """Right or wrong, by row number in the source split."""
        drawn, right = unpack_bitmap(self.drawn, self.rows), unpack_bitmap(self.right, self.rows)
        return {int(row): bool(right[row]) for row in drawn.nonzero()[0]}


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
    diverged_at: int | None
    """The step whose loss or gradient was not finite."""
    cost: Cost
    provenance: Provenance

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise InputError(f"schema = {self.schema}: this version of cpadapt reads records of schema {SCHEMA}")

    @property
    def best(self) -> Evaluation | None:
        """The evaluation whose weights were kept."""
        return next((e for e in self.evaluations if e.step == self.best_step), None)


_RECORD = TypeAdapter(Record)


def record_from_json(line: str) -> Record:
    """Read one record.

    Raises:
        InputError: a field is missing, unknown or of the wrong type; each is named.
    """
    try:
        return _RECORD.validate_python(json.loads(line))
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON: {error}") from None
    except ValidationError as error:
        raise InputError(explain(error)) from None


def record_to_json(record: Record) -> str:
    """One line of JSON that `record_from_json` reads back to an equal record."""
    return json.dumps(dataclasses.asdict(record), sort_keys=True, allow_nan=False)


def load_records(path: str | Path) -> list[Record]:
    """Every record under a folder (or in one file); of runs measured twice, the one that finished last.

    Raises:
        InputError: there is no such path, or a line is no valid record (the file and line are named).
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"no records at {path}: it does not exist")
    newest: dict[str, Record] = {}
    for file in sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                record = record_from_json(line)
            except InputError as error:
                raise InputError(f"{file}, line {number}: {error}") from None
            known = newest.get(record.id)
            if known is None or known.provenance.finished <= record.provenance.finished:
                newest[record.id] = record
    return list(newest.values())


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
        ``best_step``, ``dev_accuracy``, ``eval_accuracy``, ``correct``, ``total``, ``majority_rate``, ``diverged_at``,
        ``run_seconds`` (the run's share of its bank's training), ``peak_memory_bytes``, ``device`` and ``finished``.

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
    "data_seed", "order_seed", "protocol", "steps", "best_step", "dev_accuracy", "eval_accuracy", "correct", "total",
    "majority_rate", "diverged_at", "run_seconds", "peak_memory_bytes", "device", "finished",
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
        "correct": outcome.correct if outcome else None,
        "total": outcome.total if outcome else None,
        "majority_rate": record.data["sets"]["eval"]["majority_rate"],
        "diverged_at": record.diverged_at,
        "run_seconds": record.cost.train_seconds / record.cost.bank_runs,
        "peak_memory_bytes": record.cost.peak_memory_bytes,
        "device": record.provenance.device,
        "finished": record.provenance.finished,
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
        self._lines: list[str] = []

    def add(self, records: Iterable[Record]) -> None:
        """Write these records too; either all of them are in the file afterwards, or none."""
        lines = self._lines + [record_to_json(record) for record in records]
        write_atomically(self.path, "".join(line + "\n" for line in lines).encode())
        self._lines = lines


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
    """The versions, the commit and the device of a run that finishes now."""
    commit, clean = _source_state()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    return Provenance(
        cpadapt=importlib.metadata.version("cpadapt"),
        python=platform.python_version(),
        packages={name: importlib.metadata.version(name) for name in PACKAGES},
        git_commit=commit,
        git_clean=clean,
        device=name,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
