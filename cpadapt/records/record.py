"""What is kept of one measured run."""

import base64
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass as validated

from cpadapt.errors import STRICT, InputError
from cpadapt.inputs.backbones.specs import Source
from cpadapt.records.config import RunConfig

SCHEMA = 2
"""Version of a record's fields."""

SETS = {"outcome": "eval", "rest": "rest", "dev": "dev"}
"""A record's fields of answers, and the set of examples that each is on."""

MARGIN_RESOLUTION = 32.0
"""A margin of m nats is kept as the whole number nearest to this times √|m|, at most 127 (15.75 nats)."""


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
        label = self.label
        return None if label is None else dict(zip(self.items.tolist(), label.tolist(), strict=True))

    @property
    def right_by_class(self) -> tuple[int, ...] | None:
        """How many items of each class are right, where their classes are known."""
        label = self.label
        if label is None:
            return None
        return tuple(np.bincount(label, self.is_right, int(label.max()) + 1).astype(int).tolist())

    @property
    def balanced_accuracy(self) -> float | None:
        """The mean over classes of the share of their items that is right, where classes are known."""
        label = self.label
        if label is None:
            return None
        asked, right = np.bincount(label), np.bincount(label, self.is_right)
        return float(np.mean(right[asked > 0] / asked[asked > 0]))


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
        require_schema(self.schema)

    @property
    def best(self) -> Evaluation | None:
        """The evaluation whose weights were kept."""
        return next((e for e in self.evaluations if e.step == self.best_step), None)


def require_schema(schema: Any) -> None:
    """Refuse records of another version.

    Raises:
        InputError: `schema` is not `SCHEMA`.
    """
    if schema != SCHEMA:
        older = "; `cpadapt records migrate FOLDER` carries older ones over" if schema == 1 else ""
        raise InputError(f"schema = {schema!r}: this version reads records of schema {SCHEMA}{older}")


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


def pack_bitmap(rows: Sequence[int] | NDArray[np.int64], size: int) -> str:
    """Bitmap over `size` rows with these set, as base64, most significant bit first."""
    bits = np.zeros(size, dtype=bool)
    bits[rows] = True
    return base64.b64encode(np.packbits(bits).tobytes()).decode()


def unpack_bitmap(bitmap: str, size: int) -> NDArray[np.bool_]:
    """`[size]`, the inverse of `pack_bitmap`."""
    return np.unpackbits(np.frombuffer(base64.b64decode(bitmap), dtype=np.uint8), count=size).astype(bool)


def pack_bytes(values: NDArray[Any]) -> str:
    """Whole numbers as base64, a byte each: margins from −127 to 127, classes from 0 to 255."""
    return base64.b64encode(values.astype(np.int16).astype(np.uint8).tobytes()).decode()
