"""How much of a study is on record.

For a prepared or installed backbone no torch is imported, so that the answer comes at once. What is in the hub's cache
or in a folder that cpadapt didn't prepare is identified with transformers, which takes seconds.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpadapt.errors import InputError
from cpadapt.inputs.backbones.projections import load_projections
from cpadapt.inputs.backbones.sources import weights_at_hand
from cpadapt.inputs.backbones.specs import Source
from cpadapt.records.claims import Owner, Working, at_work
from cpadapt.records.record import Record, require_one_backbone
from cpadapt.records.store import load_records
from cpadapt.study import Study


def known_records(results: str | Path | None) -> dict[str, Record]:
    """The records in a folder by their runs' ids; none where there is no folder."""
    if results is None or not Path(results).exists():
        return {}
    return {record.id: record for record in load_records(results)}


def weights_of(
    known: Iterable[Record], study: Study, results: str | Path | None, at_hand: Source | None
) -> Source | None:
    """The weights that run ids depend on: those at hand or, if there are none, those of the study's records, if any.

    Raises:
        InputError: the records of this backbone have other weights, or several; two are named.
    """
    own = [record for record in known if record.config.backbone == study.backbone_name]
    if at_hand is None:
        require_one_backbone(own, f"the records of {study.backbone_name} in {results}")
        return own[0].weights if own else None
    for record in own:
        if record.weights.identity != at_hand.identity:
            raise InputError(
                f"the records in {results} have other weights of {study.backbone_name}: theirs are {record.weights},"
                f" those at hand are {at_hand}; choose another folder for the records"
            )
    return at_hand


def recorded(study: Study, results: str | Path) -> dict[str, Record]:
    """The records in a folder by their configs' ids. The data are not compared.

    Raises:
        InputError: a record in `results` is not valid, or the records of the study's backbone have other weights than
            those at hand or, if there are none, several.
    """
    records = known_records(results).values()
    # Without records nothing depends on the weights, and hashing them may take seconds.
    if any(record.config.backbone == study.backbone_name for record in records):
        weights_of(records, study, results, weights_at_hand(study.backbone))
    return {record.config_id: record for record in records}


@dataclass(frozen=True)
class Status:
    """Progress of one cell on one task."""

    task: str
    label: str
    size: int
    parameters: int
    learning_rate: float | None
    scale: float | None
    warmup_steps: int | None
    """The runs' own number; `None` is the protocol's."""
    done: int
    missing: int
    """How many have no record, whether or not they are being trained."""
    diverged: int
    """How many of the runs that are done diverged."""
    running: int = 0
    """How many of the missing ones a process has claimed."""
    failed: int = 0
    """How many of the missing ones a process had claimed that an error ended."""


def status(study: Study, results: str | Path, working: Iterable[Working] | None = None) -> list[Status]:
    """Which of a study's runs have a record, cell by cell.

    A run counts as done if a record has its config; the data are not compared. The weights are those at hand or, if
    there are none, those of the records.

    Args:
        study: what is asked for.
        results: folder of records.
        working: the runs that processes have claimed, if `at_work` has been asked already.

    Raises:
        InputError: a record in `results` is not valid, or the records have other weights than those at hand, or
            several.
    """
    projections = load_projections(study.backbone, study.target_modules)
    by_config = recorded(study, results)
    claimed = {claim.config: claim.owner for claim in (at_work(results) if working is None else working)}
    cells: dict[tuple[Any, ...], list[tuple[Record | None, Owner | None]]] = {}
    for label, config in study.runs(projections):
        cell = (config.task, label, config.size, config.learning_rate, config.scale, config.warmup_steps)
        record = by_config.get(config.config_id)
        cells.setdefault(cell, []).append((record, claimed.get(config.config_id) if record is None else None))
    return [
        Status(
            task=task,
            label=label,
            size=size,
            parameters=study.count(projections, label, size),
            learning_rate=rate,
            scale=scale,
            warmup_steps=warmup_steps,
            done=sum(record is not None for record, _ in runs),
            missing=sum(record is None for record, _ in runs),
            diverged=sum(record is not None and record.diverged_at is not None for record, _ in runs),
            running=sum(owner is not None and owner.failed is None for _, owner in runs),
            failed=sum(owner is not None and owner.failed is not None for _, owner in runs),
        )
        for (task, label, size, rate, scale, warmup_steps), runs in cells.items()
    ]
