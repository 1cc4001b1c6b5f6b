"""Records as tidy tables."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from cpadapt.records.record import Record
from cpadapt.records.store import load_records


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
