"""What is recorded of one run."""

import base64
import functools
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass as validated

from cpadapt.errors import STRICT, InputError, shown
from cpadapt.inputs.backbones.specs import Source
from cpadapt.records.config import RunConfig

SCHEMA = 2
"""Version of a record's fields."""

SETS = {"outcome": "eval", "rest": "rest", "dev": "dev"}
"""The fields of a record that hold outcomes, and the set of examples of each."""

MARGIN_RESOLUTION = 32.0
"""A margin of m nats is stored as the integer nearest to this times √|m|, at most 127 (15.75 nats)."""


@validated(frozen=True, config=STRICT)
class Evaluation:
    """One evaluation on dev during training."""

    step: int
    train_loss: float
    """Mean over the steps since the last evaluation."""
    dev_loss: float
    dev_correct: int
    dev_total: int

    def __post_init__(self) -> None:
        if not (0 <= self.dev_correct <= self.dev_total and self.dev_total > 0):
            raise InputError(f"an evaluation has {self.dev_correct} correct of {self.dev_total} dev examples")

    @property
    def dev_accuracy(self) -> float:
        """Share of dev examples answered correctly."""
        return self.dev_correct / self.dev_total


@validated(frozen=True, config=STRICT)
class Outcome:
    """What the chosen weights answered on one set of items: eval, rest or dev."""

    correct: int
    total: int
    rows: int
    """Number of rows of the source split; `total` of them were drawn."""
    drawn: str
    """The rows of the source split that were drawn, as a bitmap (base64, most significant bit first)."""
    labels: str | None = None
    """The class of each drawn item, by row, one byte each (base64); unknown in records older than schema 2."""
    margins: str | None = None
    """The margin of each drawn item, its true label's score minus the best other one, by row, one byte each (base64).
    `cpadapt.bank.trainer.margin_codes` defines the code."""
    right: str | None = None
    """The drawn items answered correctly, by row, as a bitmap; only in records older than margins."""
    divergence: float | None = None
    """Mean over the items of the Kullback–Leibler divergence of the run's class probabilities from its teacher's, in
    nats; `None` without a teacher."""

    def __post_init__(self) -> None:
        if (self.margins is None) == (self.right is None):
            raise InputError("an outcome must have either margins or right, a bitmap")
        if not self._is_consistent():
            raise InputError(
                f"an outcome of {self.correct} correct of {self.total} items from {self.rows} rows does not agree with"
                " its bitmap, margins or labels"
            )

    def _is_consistent(self) -> bool:
        # A base64 character has six bits. The bound keeps a damaged number from asking for memory.
        if not 1 <= self.total <= self.rows <= 6 * len(self.drawn):
            return False
        try:
            right = self.is_right
            labelled = self.total if self.labels is None else _bytes_in(self.labels)
            return self.total == _bits_set(self.drawn, self.rows) == len(
                right
            ) == labelled and self.correct == np.count_nonzero(right)
        except ValueError:  # not base64
            return False

    @property
    def accuracy(self) -> float:
        """Share of the items answered correctly."""
        return self.correct / self.total

    @property
    def items(self) -> NDArray[np.int64]:
        """`[total]`, the items' row numbers in the source split, ascending."""
        return unpack_bitmap(self.drawn, self.rows).nonzero()[0]

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """`[total]`, whether each item was answered correctly, by row."""
        if self.right is not None:
            return unpack_bitmap(self.right, self.total)
        return np.frombuffer(base64.b64decode(str(self.margins)), np.int8) > 0

    @property
    def margin(self) -> NDArray[np.float64] | None:
        """`[total]`, by row, in nats, clipped at ±15.75; negative for a wrong answer. `None` in older records."""
        if self.margins is None:
            return None
        codes = np.frombuffer(base64.b64decode(self.margins), np.int8).astype(float)
        margins: NDArray[np.float64] = np.sign(codes) * (codes / MARGIN_RESOLUTION) ** 2
        return margins

    @property
    def label(self) -> NDArray[np.int64] | None:
        """`[total]`, the items' classes, by row; `None` where unknown."""
        if self.labels is None:
            return None
        return np.frombuffer(base64.b64decode(self.labels), np.uint8).astype(np.int64)

    @property
    def right_by_row(self) -> dict[int, bool]:
        """Whether the answer was right, by row number in the source split."""
        return dict(zip(self.items.tolist(), self.is_right.tolist(), strict=True))

    @property
    def label_by_row(self) -> dict[int, int] | None:
        """The class by row number in the source split; `None` where unknown."""
        label = self.label
        return None if label is None else dict(zip(self.items.tolist(), label.tolist(), strict=True))

    @property
    def right_by_class(self) -> tuple[int, ...] | None:
        """Number of items of each class answered correctly; `None` where classes are unknown."""
        label = self.label
        if label is None:
            return None
        return tuple(np.bincount(label, self.is_right, int(label.max()) + 1).astype(int).tolist())

    @property
    def balanced_accuracy(self) -> float | None:
        """Mean over classes of the share of items answered correctly; `None` where classes are unknown."""
        label = self.label
        if label is None:
            return None
        asked, right = np.bincount(label), np.bincount(label, self.is_right)
        return float(np.mean(right[asked > 0] / asked[asked > 0]))


@validated(frozen=True, config=STRICT)
class Counts:
    """Trainable scalars, over all target modules."""

    adapter: int
    """Scalars of the adapter, the budget that it uses."""
    step: int
    """Scalars of one more rank or component; 0 for the head alone."""
    head: int
    """Scalars of the readout, which the budget does not count; 0 for a verbalizer."""
    adam_bytes: int
    """Bytes of Adam's two float32 moments for the adapter."""


@validated(frozen=True, config=STRICT)
class Cost:
    """What the run's bank cost; a run's share is this divided by `bank_runs`."""

    bank_runs: int
    train_seconds: float
    evaluation_seconds: float
    peak_memory_bytes: int
    """Peak memory of the allocator on CUDA, of the whole process elsewhere."""
    resumed: int
    """How often the bank was resumed from a checkpoint."""

    def __post_init__(self) -> None:
        if self.bank_runs < 1:
            raise InputError(f"cost.bank_runs = {self.bank_runs}: must be a positive integer")


@validated(frozen=True, config=STRICT)
class Provenance:
    """Software, device and time of the measurement."""

    cpadapt: str
    python: str
    packages: dict[str, str]
    git_commit: str | None
    git_clean: bool | None
    device: str
    """The kind of GPU, and `deterministic` where it was made to give the same numbers each time
    (`cpadapt.bank.determinism`); or the kind of CPU, and its threads."""
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
    """The study's name for this variant of a family; by default the family's name."""
    config: RunConfig
    protocol_sources: dict[str, Literal["paper", "ours"]]
    weights: Source
    """Where the backbone's weights came from."""
    data_fingerprint: str
    data: dict[str, Any]
    counts: Counts
    evaluations: tuple[Evaluation, ...]
    best_step: int | None
    """First step with the highest accuracy on dev; `None` if the run diverged before its first evaluation."""
    outcome: Outcome | None
    """The best-dev weights on the evaluation split; `None` if the run diverged before its first evaluation, or if the
    protocol draws no eval examples."""
    rest: Outcome | None
    """The same weights on training rows outside train and dev; `None` if the protocol draws none."""
    dev: Outcome | None
    """The same weights on dev, by which they were chosen; `None` in records older than schema 2."""
    diverged_at: int | None
    """The step whose loss or gradient was not finite; `None` if there was none."""
    cost: Cost
    provenance: Provenance

    def __post_init__(self) -> None:
        require_schema(self.schema)
        sets = self.data.get("sets")
        if not isinstance(sets, dict) or not all(isinstance(summary, dict) for summary in sets.values()):
            raise InputError(f"data.sets = {shown(sets)}: must be the summary of each set of examples")
        if self.best_step is not None and self.best is None:
            raise InputError(f"best_step = {self.best_step} is not the step of an evaluation")

    @property
    def best(self) -> Evaluation | None:
        """The evaluation at `best_step`, whose weights were kept."""
        return next((e for e in self.evaluations if e.step == self.best_step), None)


def require_schema(schema: Any) -> None:
    """Refuse records of another schema.

    Raises:
        InputError: `schema` is not `SCHEMA`.
    """
    if schema != SCHEMA:
        older = "; `cpadapt records migrate FOLDER` converts older ones" if schema == 1 else ""
        raise InputError(f"schema = {schema!r}: this version reads records of schema {SCHEMA}{older}")


def require_one_backbone(records: Iterable[Record], what: str) -> None:
    """Check that runs were measured on the same weights, so that they can be compared.

    Args:
        records: the runs.
        what: what the error calls them.

    Raises:
        InputError: they were not; two of the sources are named.
    """
    by_weights = {record.weights.identity: record for record in records}
    if len(by_weights) > 1:
        raise InputError(
            f"{what} were measured on different weights, so they cannot be compared: "
            + " and ".join(f"{record.weights} (run {record.id})" for record in list(by_weights.values())[:2])
        )


def pack_bitmap(rows: Sequence[int] | NDArray[np.int64], size: int) -> str:
    """A bitmap of `size` bits with the bits of these rows set, as base64, most significant bit first."""
    bits = np.zeros(size, dtype=bool)
    bits[rows] = True
    return base64.b64encode(np.packbits(bits).tobytes()).decode()


def unpack_bitmap(bitmap: str, size: int) -> NDArray[np.bool_]:
    """`[size]`, the inverse of `pack_bitmap`."""
    return np.unpackbits(np.frombuffer(base64.b64decode(bitmap), dtype=np.uint8), count=size).astype(bool)


@functools.lru_cache(maxsize=256)
def _bits_set(bitmap: str, size: int) -> int:
    """Cached, because the runs of a draw share a bitmap."""
    return int(np.count_nonzero(unpack_bitmap(bitmap, size)))


@functools.lru_cache(maxsize=256)
def _bytes_in(packed: str) -> int:
    """Cached, because the runs of a draw share their labels."""
    return len(base64.b64decode(packed, validate=True))


def pack_bytes(values: NDArray[Any]) -> str:
    """Integers as base64, one byte each: margins from −127 to 127, classes from 0 to 255."""
    return base64.b64encode(values.astype(np.int16).astype(np.uint8).tobytes()).decode()
