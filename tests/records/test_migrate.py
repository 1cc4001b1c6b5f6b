"""Records of an earlier schema are converted: none is lost, and what they say stays."""

import base64
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cpadapt.errors import InputError
from cpadapt.records.migrate import Migrated, migrate
from cpadapt.records.record import SCHEMA
from cpadapt.records.store import load_records, read_lines, record_files

ROOT = Path(__file__).parents[2]
OLD = ROOT / "tests" / "data" / "schema-1.jsonl"
"""Three records of small-tiny as schema 1 had them: a head, a LoRA and a CP adapter."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "study").mkdir()
    shutil.copy(OLD, tmp_path / "study" / "old.jsonl")
    return tmp_path


def old() -> list[dict[str, Any]]:
    return [json.loads(line) for line in OLD.read_text().splitlines()]


def test_what_records_said_they_still_say(folder: Path) -> None:
    assert migrate(folder) == Migrated(records=3, converted=3, labelled=3)
    assert [path.name for path in (folder / "study").iterdir()] == ["old.jsonl.xz"]
    records = load_records(folder)
    for record, line in zip(records, old(), strict=True):
        assert record.schema == SCHEMA
        assert record.config_id == record.config.config_id == line["config_id"]
        assert record.id == record.config.run_id(record.data_fingerprint, record.weights.identity)
        kept = json.loads(json.dumps(dataclasses.asdict(record)))
        for name in ("study", "label", "data", "counts", "evaluations", "best_step", "cost", "provenance"):
            assert kept[name] == line[name], name
        before = line["outcome"]
        bits = {
            name: np.unpackbits(np.frombuffer(base64.b64decode(before[name]), np.uint8), count=before["rows"])
            for name in ("drawn", "right")
        }
        assert record.outcome.right_by_row == {
            int(row): bool(bits["right"][row]) for row in bits["drawn"].nonzero()[0]
        }
        assert sum(record.outcome.right_by_class) == record.outcome.correct == before["correct"]
        classes = line["data"]["sets"]["eval"]["classes"]
        assert np.bincount(record.outcome.label).tolist() == list(classes.values())
        assert (record.outcome.margin, record.rest, record.dev) == (None, None, None)
    assert migrate(folder) == Migrated(records=3, converted=0, labelled=0), "once is enough"


def test_what_a_killed_process_left_is_compressed(folder: Path) -> None:
    migrate(folder)
    (file,) = (folder / "study").iterdir()
    before = load_records(folder)
    (folder / "study" / "left.jsonl").write_text("\n".join(read_lines(file)) + "\n")
    file.unlink()
    assert migrate(folder) == Migrated(records=3, converted=0, labelled=0)
    assert [path.name for path in (folder / "study").iterdir()] == ["left.jsonl.xz"]
    assert load_records(folder) == before


def test_classes_need_the_data_that_were_measured_on(folder: Path) -> None:
    lines = [line | {"config": line["config"] | {"task": "rte"}} for line in old()]
    (folder / "study" / "old.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert migrate(folder).labelled == 0, "no data were given"
    assert load_records(folder)[0].outcome.right_by_class is None
    other = [line | {"data_fingerprint": "0" * 64} for line in old()]
    (folder / "study" / "other.jsonl").write_text("".join(json.dumps(line) + "\n" for line in other))
    with pytest.raises(InputError, match=r"other\.jsonl, run .*: the data of 'toy-sentiment' differ"):
        migrate(folder)
    assert len((folder / "study" / "other.jsonl").read_text().splitlines()) == 3, "left as it was"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"schema": 1}\n', r"old\.jsonl, line 1: not a record of schema 1: 'weights' is missing"),
        ('{"schema": 1\n', r"old\.jsonl, line 1: not JSON"),
        ('{"schema": 7}\n', r"old\.jsonl, line 1: schema = 7"),
    ],
)
def test_what_is_no_record_is_named_and_left(text: str, says: str, folder: Path) -> None:
    (folder / "study" / "old.jsonl").write_text(text)
    with pytest.raises(InputError, match=says):
        migrate(folder)
    assert (folder / "study" / "old.jsonl").read_text() == text


COMMITTED = {
    "boolq-lifted": 30, "boolq-lifted-verbalizer": 30, "generated-tasks": 45, "minilm": 600, "minilm-sst2": 69,
    "precision-bfloat16": 40, "precision-float32": 40, "small": 21, "small-tiny": 18, "smollm2": 171,
    "smollm2-data-seeds": 300, "smollm2-data-seeds-again": 300, "smollm2-orders": 800, "smollm2-pilot": 78,
    "smollm2-rates": 297, "smollm2-seeds": 1000, "smollm2-seeds-boolq": 150, "smollm2-splits": 72,
    "smollm2-splits-seeds": 160, "smollm2-verbalizer": 75,
}  # fmt: skip
"""Records by study of schema 1, 4,296 in all."""


@pytest.mark.slow
def test_none_of_the_committed_records_was_lost() -> None:
    assert sum(COMMITTED.values()) == 4296
    for study, count in COMMITTED.items():
        lines = [line for file in record_files(ROOT / "results" / study) for line in read_lines(file)]
        assert sum('"draw"' not in line for line in lines) == count
    records = load_records(ROOT / "results")
    assert all(record.outcome.labels for record in records if record.study in COMMITTED)


def test_results_stay_small() -> None:
    files = list((ROOT / "results").rglob("*.jsonl*"))
    assert all(file.name.endswith(".jsonl.xz") for file in files)
    assert sum(file.stat().st_size for file in files) < 40 * 2**20
