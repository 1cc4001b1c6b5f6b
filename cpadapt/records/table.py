"""Records as tidy tables."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cpadapt.records.record import Evaluation, Record
from cpadapt.records.store import load_records

RUN_COLUMNS: Mapping[str, Callable[[Record], Any]] = {
    "id": lambda r: r.id,
    "study": lambda r: r.study,
    "backbone": lambda r: r.config.backbone,
    "task": lambda r: r.config.task,
    "label": lambda r: r.label,
    "family": lambda r: r.config.family,
    "size": lambda r: r.config.size,
    "parameters": lambda r: r.counts.adapter,
    "learning_rate": lambda r: r.config.learning_rate,
    "scale": lambda r: r.config.scale,
    "seed": lambda r: r.config.seed,
    "data_seed": lambda r: r.config.data_seed,
    "order_seed": lambda r: r.config.order_seed,
    "protocol": lambda r: r.config.protocol.id,
    "steps": lambda r: r.config.protocol.steps,
    "best_step": lambda r: r.best_step,
    "dev_accuracy": lambda r: r.best.dev_accuracy if r.best else None,
    "eval_accuracy": lambda r: r.outcome.accuracy if r.outcome else None,
    "balanced_accuracy": lambda r: r.outcome.balanced_accuracy if r.outcome else None,
    "rest_accuracy": lambda r: r.rest.accuracy if r.rest else None,
    "correct": lambda r: r.outcome.correct if r.outcome else None,
    "total": lambda r: r.outcome.total if r.outcome else None,
    "majority_rate": lambda r: r.data["sets"].get("eval", {}).get("majority_rate"),
    "diverged_at": lambda r: r.diverged_at,
    "run_seconds": lambda r: r.cost.train_seconds / r.cost.bank_runs,
    "peak_memory_bytes": lambda r: r.cost.peak_memory_bytes,
    "device": lambda r: r.provenance.device,
    "finished": lambda r: r.provenance.finished,
    "warmup_steps": lambda r: (
        r.config.protocol.warmup_steps if r.config.warmup_steps is None else r.config.warmup_steps
    ),
    "weights": lambda r: r.weights.identity,
    "teacher": lambda r: r.config.teacher.title if r.config.teacher else None,
}
"""The columns of the table of runs, and what each shows of a record."""

EVALUATION_COLUMNS: Mapping[str, Callable[[Evaluation], Any]] = {
    "step": lambda e: e.step,
    "train_loss": lambda e: e.train_loss,
    "dev_loss": lambda e: e.dev_loss,
    "dev_accuracy": lambda e: e.dev_accuracy,
}
"""The further columns of the table of evaluations, and what each shows of an evaluation."""

_RUN_OF_EVALUATION = ("id", "task", "label", "family", "size", "learning_rate", "seed", "data_seed")


def read_records(path: str | Path) -> pd.DataFrame:
    """The records under a folder (or in one file) as a tidy table, one row a run; see `tabulate`.

    Raises:
        InputError: as `cpadapt.records.store.load_records`.
    """
    return tabulate(load_records(path))[0]


def read_evaluations(path: str | Path) -> pd.DataFrame:
    """The evaluations during training, one row each; see `tabulate`.

    Raises:
        InputError: as `cpadapt.records.store.load_records`.
    """
    return tabulate(load_records(path))[1]


def tabulate(records: Iterable[Record]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Records as two tidy tables.

    Returns:
        A table of one row a run, and one of one row an evaluation.

        The columns of the first are ``id``, ``study``, ``backbone``, ``task``, ``label``, ``family``, ``size``,
        ``parameters`` (trainable scalars of the adapter), ``learning_rate``, ``scale``, ``seed``, ``data_seed``,
        ``order_seed`` (missing where ``seed`` decides the order), ``protocol`` (its id), ``steps``,
        ``best_step``, ``dev_accuracy``, ``eval_accuracy``, ``balanced_accuracy`` (on eval; missing where the items'
        classes are unknown), ``rest_accuracy``, ``correct``, ``total``, ``majority_rate``, ``diverged_at``,
        ``run_seconds`` (the run's share of its bank's training), ``peak_memory_bytes``, ``device``, ``finished``,
        ``warmup_steps`` (the run's own or the protocol's), ``weights`` (the identity of the backbone's weights) and
        ``teacher`` (what was planted in it; missing where runs learn labels).

        Those of the second are ``id``, ``task``, ``label``, ``family``, ``size``, ``learning_rate``, ``seed``,
        ``data_seed``, ``step``, ``train_loss``, ``dev_loss`` and ``dev_accuracy``.
    """
    runs, evaluations = [], []
    for record in records:
        run = {column: get(record) for column, get in RUN_COLUMNS.items()}
        runs.append(run)
        shared = {column: run[column] for column in _RUN_OF_EVALUATION}
        evaluations += [
            shared | {column: get(evaluation) for column, get in EVALUATION_COLUMNS.items()}
            for evaluation in record.evaluations
        ]
    return (
        pd.DataFrame(runs, columns=list(RUN_COLUMNS)),
        pd.DataFrame(evaluations, columns=[*_RUN_OF_EVALUATION, *EVALUATION_COLUMNS]),
    )
