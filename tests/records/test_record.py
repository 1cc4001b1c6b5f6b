"""Records: strict in what they read, atomic in what they write, tidy in what they give."""

import dataclasses
import gc
import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cpadapt.bank.trainer import margin_codes
from cpadapt.errors import InputError
from cpadapt.inputs.backbones.specs import Source
from cpadapt.measure import _source_state, provenance
from cpadapt.records.config import Protocol, RunConfig
from cpadapt.records.record import (
    SCHEMA,
    Cost,
    Counts,
    Evaluation,
    Outcome,
    Record,
    pack_bitmap,
    pack_bytes,
    require_one_backbone,
    unpack_bitmap,
)
from cpadapt.records.store import RecordFile, lines_of, load_records, records_from_lines, write_atomically
from cpadapt.records.table import read_evaluations, read_records


def outcome(items: list[int], codes: list[int], labels: list[int], rows: int) -> Outcome:
    return Outcome(
        correct=sum(code > 0 for code in codes),
        total=len(items),
        rows=rows,
        drawn=pack_bitmap(items, rows),
        labels=pack_bytes(np.array(labels)),
        margins=pack_bytes(np.array(codes)),
    )


def record(seed: int = 0, **changes: Any) -> Record:
    config = RunConfig(
        backbone="tiny", task="sst2", family="cp", size=2, seed=seed, data_seed=0, learning_rate=1e-3, scale=8.0,
        protocol=Protocol(steps=20, eval_every=10), options={"tensor_shape": {32: (4, 8)}},
    )  # fmt: skip
    made = Record(
        schema=SCHEMA,
        id=config.run_id("data", Source("memory", "seed 0", None, None).identity),
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
        outcome=outcome([1, 4, 8], [40, -3, 1], [0, 1, 1], rows=9),
        rest=outcome([0, 5], [-127, 127], [1, 0], rows=6),
        dev=outcome([2, 3], [1, 2], [0, 1], rows=6),
        diverged_at=None,
        cost=Cost(bank_runs=4, train_seconds=8.0, evaluation_seconds=1.0, peak_memory_bytes=2**20, resumed=0),
        provenance=provenance(torch.device("cpu")),
    )
    return dataclasses.replace(made, **changes)


def read(content: dict[str, Any], drawn: str) -> Record:
    (found,) = records_from_lines([drawn, json.dumps(content)])
    return found


def written() -> tuple[str, dict[str, Any]]:
    """A record's draw, as a line, and the record, as an object."""
    drawn, line = lines_of([record()])
    return drawn, json.loads(line)


def test_json_round_trip() -> None:
    old = dataclasses.replace(record().outcome, margins=None, labels=None, right=pack_bitmap([0, 2], 3))
    (of_old,) = records_from_lines(lines_of([record(2, outcome=old, rest=None, dev=None)]))
    assert of_old.outcome == old
    kept = list(records_from_lines(lines_of([record(0), record(1), record(2, dev=None)])))
    assert [r.config.seed for r in kept] == [0, 1, 2]
    assert kept[0] == record(0, provenance=kept[0].provenance)
    assert kept[0].config.options["tensor_shape"] == {32: (4, 8)}


def test_a_draw_is_kept_once_and_before_its_records() -> None:
    lines = list(lines_of([record(0, dev=None), record(1, dev=None), record(2)]))
    assert ["draw" in json.loads(line) for line in lines] == [True, False, False, True, False]
    assert all("drawn" not in line and "labels" not in line for line in lines if '"draw"' not in line)
    with pytest.raises(InputError, match=r"line 1: record .* comes before its draw of eval"):
        list(records_from_lines(lines[1:]))


def test_a_margin_keeps_right_or_wrong_exactly_and_its_size_nearly() -> None:
    generator = torch.Generator().manual_seed(0)
    for labels in (2, 6):
        scores = 4 * torch.randn(5000, labels, generator=generator)
        scores[:100, 1] = scores[:100, 0]  # ties, which argmax settles
        scores[100:120] = scores[100:120] * 1e-9
        true = torch.randint(labels, (5000,), generator=generator)
        codes = margin_codes(scores, true).numpy()
        found = outcome(list(range(5000)), codes.tolist(), true.tolist(), rows=5000)
        assert found.is_right.tolist() == (scores.argmax(1) == true).tolist()
        assert found.correct == int((scores.argmax(1) == true).sum())
        exact = [float(s[t] - max(s[k] for k in range(labels) if k != t)) for s, t in zip(scores, true, strict=True)]
        size, true_size = np.sqrt(np.abs(found.margin)), np.sqrt(np.abs(exact).clip(max=15.75))
        np.testing.assert_allclose(size[size > 1 / 32], true_size[size > 1 / 32], atol=1.001 / 64, rtol=0)
        assert true_size[size == 1 / 32].max() <= 1.001 * 1.5 / 32
        assert np.abs(found.margin).min() > 0
    assert len(pack_bytes(codes)) == 4 * -(-5000 // 3), "a byte an item, before base64"


def test_accuracy_by_class() -> None:
    found = outcome([1, 2, 5, 7, 8], [3, -3, 3, 3, 3], [0, 0, 2, 2, 2], rows=9)
    assert found.right_by_class == (1, 0, 3)
    assert found.balanced_accuracy == (0.5 + 1.0) / 2, "a class that was not asked has no share"
    assert found.label_by_row == {1: 0, 2: 0, 5: 2, 7: 2, 8: 2}
    assert dataclasses.replace(found, labels=None).balanced_accuracy is None


def test_different_weights_are_not_pooled() -> None:
    other = record(1, weights=Source("memory", "seed 1", None, None))
    require_one_backbone([record(0), record(1)], "they")
    with pytest.raises(InputError, match=r"they were measured on different weights.*seed 0.*seed 1"):
        require_one_backbone([record(0), other], "they")


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Record)])
def test_a_missing_field_is_named(field: str) -> None:
    drawn, content = written()
    del content[field]
    with pytest.raises(InputError, match=f"{field} is missing"):
        read(content, drawn)


@pytest.mark.parametrize("place", [(), ("config",), ("config", "protocol"), ("cost",), ("weights",), ("outcome",)])
def test_an_extra_field_is_named_at_any_depth(place: tuple[str, ...]) -> None:
    drawn, content = written()
    inner = content
    for name in place:
        inner = inner[name]
    inner["surprise"] = 1
    with pytest.raises(InputError, match=r"surprise is not a known field"):
        read(content, drawn)


def test_another_schema_and_no_json_are_refused() -> None:
    drawn, content = written()
    with pytest.raises(InputError, match=f"schema = {SCHEMA + 1}"):
        read(content | {"schema": SCHEMA + 1}, drawn)
    with pytest.raises(InputError, match=r"schema = 1: .*cpadapt records migrate"):
        read(content | {"schema": 1}, drawn)
    with pytest.raises(InputError, match="line 1: not JSON"):
        list(records_from_lines(['{"schema": 1']))


def test_reading_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(lines_of([record()])) + "\n{}\n")
    with pytest.raises(InputError, match=r"a\.jsonl, line 3: .*is missing"):
        load_records(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read_records(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b"\xff\xfe{}", r"a\.jsonl, line 1: not UTF-8: invalid start byte at byte 0"),
        ("a.jsonl.xz", b"{}", r"a\.jsonl\.xz is not xz"),
    ],
)
def test_a_file_that_is_something_else_is_named(name: str, content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says):
        load_records(tmp_path)


def test_bitmaps_keep_rows() -> None:
    rng = np.random.default_rng(0)
    for size in (1, 8, 277, 3270):
        rows = np.sort(rng.permutation(size)[: size // 2 + 1])
        assert unpack_bitmap(pack_bitmap(rows, size), size).nonzero()[0].tolist() == rows.tolist()
    assert record().outcome.right_by_row == {1: True, 4: False, 8: True}


def test_tables(tmp_path: Path) -> None:
    with_order = dataclasses.replace(record().config, seed=1, order_seed=5)
    lost = record(1, config=with_order, outcome=None, rest=None, dev=None, best_step=None, diverged_at=3)
    RecordFile(tmp_path / "one").add([record(), lost])
    table = read_records(tmp_path)
    assert table["order_seed"].isna().tolist() == [True, False]
    assert table["order_seed"].tolist()[1] == 5
    assert table["eval_accuracy"].tolist()[0] == pytest.approx(2 / 3)
    assert table["dev_accuracy"].tolist()[0] == 0.8
    assert table["balanced_accuracy"].tolist()[0] == 0.75
    assert table["rest_accuracy"].tolist()[0] == 0.5
    assert table["warmup_steps"].tolist() == [0, 0]
    assert table["weights"].tolist() == [record().weights.identity] * 2
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


def test_a_finished_file_is_compressed(tmp_path: Path) -> None:
    file = RecordFile(tmp_path)
    file.finish()
    assert not list(tmp_path.iterdir()), "nothing was measured"
    file.add([record(0)])
    file.add([record(1)])
    (plain,) = tmp_path.iterdir()
    before = load_records(tmp_path)
    file.finish()
    assert [path.name for path in tmp_path.iterdir()] == [f"{plain.name}.xz"]
    assert load_records(tmp_path) == before


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RecordFile(tmp_path)
    file.add([record(0)])
    (first,) = load_records(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("cpadapt.records.store.lines_or_damage", lambda file, _: pytest.fail(f"read {file} again"))
        assert load_records(tmp_path)[0] is first
    file.add([record(1)])
    assert [r.config.seed for r in load_records(tmp_path)] == [0, 1]
    file.path.write_text("{}\n")
    for _ in range(2):
        with pytest.raises(InputError, match=r"line 1: .*is missing"):
            load_records(tmp_path)


def test_adding_writes_what_all_at_once_would_and_makes_text_of_the_new_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [[record(0, dev=None)], [record(1, dev=None), record(2)], [record(3)]]
    made: list[int] = []
    asdict = dataclasses.asdict
    monkeypatch.setattr("dataclasses.asdict", lambda r: (made.append(r.config.seed), asdict(r))[1])
    file = RecordFile(tmp_path)
    for part in parts:
        file.add(part)
    assert made == [0, 1, 2, 3]
    lines = list(lines_of([r for part in parts for r in part]))
    assert file.path.read_text().splitlines() == lines


def test_a_process_killed_while_it_adds_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RecordFile(tmp_path)
    file.add([record(0, dev=None)])

    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            file.add([record(1)])
    assert [r.config.seed for r in load_records(tmp_path)] == [0]
    file.add([record(2)])
    assert [r.config.seed for r in load_records(tmp_path)] == [0, 2]


def test_a_package_without_metadata_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpadapt.measure.PACKAGES", ("torch", "not-there"))
    with pytest.raises(InputError, match="the version of not-there is unknown"):
        provenance(torch.device("cpu"))


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
    monkeypatch.setattr("cpadapt.measure.__file__", "/nowhere/cpadapt/measure.py")
    monkeypatch.delenv("CPADAPT_COMMIT", raising=False)
    if stated is not None:
        monkeypatch.setenv("CPADAPT_COMMIT", stated)
    _source_state.cache_clear()
    try:
        assert _source_state() == state
    finally:
        _source_state.cache_clear()


def test_of_a_file_that_grows_only_the_newest_content_is_kept(tmp_path: Path) -> None:
    file = RecordFile(tmp_path)
    file.add([record(0)])
    (first,) = load_records(tmp_path)
    gone = weakref.ref(first)
    del first
    file.add([record(1)])
    assert len(load_records(tmp_path)) == 2
    gc.collect()
    assert gone() is None
