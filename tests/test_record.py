"""Records: strict in what they read, atomic in what they write, tidy in what they give."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cpadapt.backbones import Source
from cpadapt.errors import InputError
from cpadapt.protocol import Protocol, RunConfig
from cpadapt.record import (
    SCHEMA,
    Cost,
    Counts,
    Evaluation,
    Outcome,
    Record,
    RecordFile,
    _source_state,
    load_records,
    pack_bitmap,
    provenance,
    read_evaluations,
    read_records,
    record_from_json,
    record_to_json,
    unpack_bitmap,
    write_atomically,
)


def record(seed: int = 0, **changes: Any) -> Record:
    config = RunConfig(
        backbone="tiny", task="sst2", family="cp", size=2, seed=seed, data_seed=0, learning_rate=1e-3, scale=8.0,
        protocol=Protocol(steps=20, eval_every=10), options={"tensor_shape": {32: (4, 8)}},
    )  # fmt: skip
    made = Record(
        schema=SCHEMA,
        id=config.run_id("data"),
        config_id=config.config_id,
        study="test",
        label="cp",
        config=config,
        protocol_sources=config.protocol.sources(),
        weights=Source("memory", "seed 0", None, None),
        data_fingerprint="data",
        data={"sets": {"eval": {"majority_rate": 0.6}}},
        counts=Counts(adapter=100, step=50, head=66, adam_bytes=800),
        evaluations=(Evaluation(10, 0.7, 0.6, 5, 10), Evaluation(20, 0.5, 0.55, 8, 10)),
        best_step=20,
        outcome=Outcome(correct=2, total=3, rows=9, drawn=pack_bitmap([1, 4, 8], 9), right=pack_bitmap([1, 8], 9)),
        diverged_at=None,
        cost=Cost(bank_runs=4, train_seconds=8.0, evaluation_seconds=1.0, peak_memory_bytes=2**20, resumed=0),
        provenance=provenance(torch.device("cpu")),
    )
    return dataclasses.replace(made, **changes)


def test_json_round_trip() -> None:
    assert record_from_json(record_to_json(record())) == record_from_json(record_to_json(record()))
    assert record_from_json(record_to_json(record())).config.options["tensor_shape"] == {32: (4, 8)}


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Record)])
def test_a_missing_field_is_named(field: str) -> None:
    content = json.loads(record_to_json(record()))
    del content[field]
    with pytest.raises(InputError, match=f"{field} is missing"):
        record_from_json(json.dumps(content))


@pytest.mark.parametrize("place", [(), ("config",), ("config", "protocol"), ("cost",), ("weights",), ("outcome",)])
def test_an_extra_field_is_named_at_any_depth(place: tuple[str, ...]) -> None:
    content = json.loads(record_to_json(record()))
    inner = content
    for name in place:
        inner = inner[name]
    inner["surprise"] = 1
    with pytest.raises(InputError, match=r"surprise is not a known field"):
        record_from_json(json.dumps(content))


def test_another_schema_and_no_json_are_refused() -> None:
    content = json.loads(record_to_json(record())) | {"schema": SCHEMA + 1}
    with pytest.raises(InputError, match=f"schema = {SCHEMA + 1}"):
        record_from_json(json.dumps(content))
    with pytest.raises(InputError, match="not JSON"):
        record_from_json('{"schema": 1')


def test_reading_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(record_to_json(record()) + "\n{}\n")
    with pytest.raises(InputError, match=r"a\.jsonl, line 2: .*is missing"):
        load_records(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read_records(tmp_path / "nowhere")


def test_bitmaps_keep_rows() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 8, 277, 3270):
        rows = np.sort(rng.permutation(size)[: size // 2 + 1])
        assert unpack_bitmap(pack_bitmap(rows, size), size).nonzero()[0].tolist() == rows.tolist()
    assert record().outcome.right_by_row == {1: True, 4: False, 8: True}


def test_tables(tmp_path: Path) -> None:
    with_order = dataclasses.replace(record().config, seed=1, order_seed=5)
    lost = record(1, config=with_order, outcome=None, best_step=None, diverged_at=3)
    RecordFile(tmp_path / "one").add([record(), lost])
    table = read_records(tmp_path)
    assert table["order_seed"].isna().tolist() == [True, False]
    assert table["order_seed"].tolist()[1] == 5
    assert table["eval_accuracy"].tolist()[0] == pytest.approx(2 / 3)
    assert table["dev_accuracy"].tolist()[0] == 0.8
    assert table["run_seconds"].tolist() == [2.0, 2.0]
    assert table["parameters"].tolist() == [100, 100]
    assert table["diverged_at"].isna().tolist() == [True, False]
    assert table["eval_accuracy"].isna().tolist() == [False, True]
    curves = read_evaluations(tmp_path)
    assert curves["step"].tolist() == [10, 20, 10, 20]
    assert curves["dev_accuracy"].tolist() == [0.5, 0.8, 0.5, 0.8]


def test_of_a_run_measured_twice_the_later_counts(tmp_path: Path) -> None:
    early, late = (
        record(provenance=dataclasses.replace(record().provenance, finished=f"2026-01-0{day}T00:00:00+00:00"))
        for day in (1, 2)
    )
    RecordFile(tmp_path / "a").add([late])
    RecordFile(tmp_path / "b").add([early])
    assert [r.provenance.finished for r in load_records(tmp_path)] == [late.provenance.finished]


def test_two_processes_write_two_files(tmp_path: Path) -> None:
    first, second = RecordFile(tmp_path), RecordFile(tmp_path)
    first.add([record(0)])
    second.add([record(1)])
    first.add([record(2)])
    assert len(list(tmp_path.iterdir())) == 2
    assert sorted(r.config.seed for r in load_records(tmp_path)) == [0, 1, 2]


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "kept.bin"
    write_atomically(file, b"first")

    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, b"second")
    assert file.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("stated", "state"), [("abc", ("abc", True)), ("abc-dirty", ("abc", False)), (None, (None, None))]
)
def test_the_commit_can_be_stated_where_there_is_no_git(
    stated: str | None, state: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cpadapt.record.__file__", "/nowhere/cpadapt/record.py")
    monkeypatch.delenv("CPADAPT_COMMIT", raising=False)
    if stated is not None:
        monkeypatch.setenv("CPADAPT_COMMIT", stated)
    _source_state.cache_clear()
    try:
        assert _source_state() == state
    finally:
        _source_state.cache_clear()
