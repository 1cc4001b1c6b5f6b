"""Converting records of earlier schemas to the present one, without loss.

Schema 1 stored only whether each answer was right, as a bitmap over all rows of the source split. It repeated the
drawn rows in every record, and its ids did not depend on the weights.
"""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from cpadapt.errors import UNPARSABLE, InputError, explain
from cpadapt.inputs.backbones.specs import Source
from cpadapt.inputs.tasks.examples import TaskData, load_task
from cpadapt.inputs.tasks.specs import TASKS
from cpadapt.records.config import RunConfig
from cpadapt.records.record import SCHEMA, Outcome, Record, pack_bitmap, pack_bytes, unpack_bitmap
from cpadapt.records.store import read_lines, record_files, records_from_lines, write_compressed

KNOWN_WEIGHTS = {
    # smollm2, from its package, and minilm.
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53": {
        "tokenizer": "385b841b658f8a65106c2258cceec4a90605b9735effc3af5c711beea85126c9",
        "config": "a57179110896765a4e98b69d02bd88dca21533b312494d05e672a9b6c5d649db",
        "tensors": "d56dde2611b31ba1b0a753659f53525e72b365af387914905ca7722698c222ef",
    },
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db": {
        "tokenizer": "53ec798d10fe06c211d2848eb55071c62ae0b7bd3cae670fc21febdc8ca0c296",
        "config": "362999e59d0b35c72d5a1ade0687d1c7b712e5ddfd37b811020838f3cec9a40f",
    },
}
"""Further hashes of weights that records of schema 1 identify by the sha256 of their file alone."""

_CONFIG, _SOURCE, _RECORD = TypeAdapter(RunConfig), TypeAdapter(Source), TypeAdapter(Record)


@dataclass(frozen=True)
class Migrated:
    """What was done to a folder's records."""

    records: int
    converted: int
    """Number of records that had an earlier schema."""
    labelled: int
    """Number of records whose items' classes were added."""


def migrate(path: str | Path, data_dir: str | Path | None = None) -> Migrated:
    """Convert all records under a folder to the present schema, file by file.

    A file is rewritten, compressed, if any of its records changes or if a killed process left it uncompressed; the old
    file is removed once the new one is whole.

    Args:
        path: a folder of records, or one file.
        data_dir: folder with the tasks' data. With it the classes of the items are added, so that accuracy by class is
            known; generated tasks do not need it.

    Raises:
        InputError: a line is not a valid record of this schema or the one before, or the data are not those that a
            record was measured on.
    """
    folder = None if data_dir is None else Path(data_dir)
    draws: dict[tuple[Any, ...], TaskData] = {}
    total = converted = labelled = 0
    for file in record_files(path):
        lines = read_lines(file)
        try:
            before = list(_records(lines))
            after = [_with_labels(record, folder, draws) for record, _ in before]
        except InputError as error:
            raise InputError(f"{file}, {error}") from None
        old = sum(is_old for _, is_old in before)
        fresh = sum(new is not record for new, (record, _) in zip(after, before, strict=True))
        target = file.with_name(f"{file.name.removesuffix('.xz')}.xz")
        if old or fresh or target != file:
            write_compressed(target, after)
            if target != file:
                file.unlink()
        total, converted, labelled = total + len(after), converted + old, labelled + fresh
    return Migrated(total, converted, labelled)


def _records(lines: list[str]) -> Iterator[tuple[Record, bool]]:
    """A file's records, and whether each had an earlier schema."""
    contents = []
    for number, line in enumerate(lines, start=1):
        try:
            contents.append(json.loads(line))
        except UNPARSABLE as error:
            raise InputError(f"line {number}: not JSON: {error}") from None
    if not any(isinstance(content, dict) and content.get("schema") == 1 for content in contents):
        yield from ((record, False) for record in records_from_lines(lines))
        return
    for number, content in enumerate(contents, start=1):
        try:
            yield _from_first_schema(content), True
        except ValidationError as error:
            raise InputError(f"line {number}: {explain(error)}") from None
        except (KeyError, TypeError) as error:
            raise InputError(f"line {number}: not a record of schema 1: {error} is missing or wrong") from None


def _from_first_schema(content: dict[str, Any]) -> Record:
    source = _SOURCE.validate_python(content["weights"] | KNOWN_WEIGHTS.get(content["weights"]["sha256"] or "", {}))
    # Schema 1 named a local folder by its path.
    name = source.name if source.kind == "local" else content["config"]["backbone"]
    config = _CONFIG.validate_python({**content["config"], "backbone": name})
    outcome = content["outcome"]
    if outcome is not None:
        drawn, right = (unpack_bitmap(outcome[kind], outcome["rows"]) for kind in ("drawn", "right"))
        items = drawn.nonzero()[0]
        outcome = {**outcome, "right": pack_bitmap(right[items].nonzero()[0], len(items))}
    return _RECORD.validate_python(
        {
            **content,
            "schema": SCHEMA,
            "id": config.run_id(content["data_fingerprint"], source.identity),
            "config_id": config.config_id,
            "config": dataclasses.asdict(config),
            "weights": dataclasses.asdict(source),
            "outcome": outcome,
            "rest": None,
            "dev": None,
        }
    )


def _with_labels(record: Record, data_dir: Path | None, draws: dict[tuple[Any, ...], TaskData]) -> Record:
    """The record with its items' classes; the same object where they are known already or cannot be found."""
    outcome, spec = record.outcome, TASKS.get(record.config.task)
    if outcome is None or outcome.labels is not None or spec is None or (data_dir is None and spec.grammar is None):
        return record
    caps, data_seed = record.config.protocol.caps, record.config.data_seed
    place = (spec.name, caps, data_seed)
    if place not in draws:
        draws[place] = load_task(spec, data_dir=data_dir, caps=caps, data_seed=data_seed)
    data = draws[place]
    if data.fingerprint != record.data_fingerprint:
        raise InputError(
            f"run {record.id}: the data of {spec.name!r} differ from those that it was measured on"
            f" (fingerprint {data.fingerprint[:16]}, not {record.data_fingerprint[:16]})"
        )
    return dataclasses.replace(record, outcome=_labelled(outcome, data))


def _labelled(outcome: Outcome, data: TaskData) -> Outcome:
    if not np.array_equal(outcome.items, data.eval.rows):
        raise InputError(f"the rows of {data.spec.name!r} that were asked differ from those that its data give")
    return dataclasses.replace(outcome, labels=pack_bytes(data.eval.labels))
