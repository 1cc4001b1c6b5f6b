"""Several processes that measure into one folder: each run is trained once, and none is lost."""

import errno
import json
import os
import signal
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from processes import Forked, Forks, until

from cpadapt import Ladder, Protocol, Study, train
from cpadapt.progress import status
from cpadapt.records import claims
from cpadapt.records.claims import CLAIMS, LEASE_SECONDS, Claims, Owner, at_work
from cpadapt.records.record import Record
from cpadapt.records.store import RecordFile, load_records, read_lines, record_files

pytestmark = pytest.mark.slow

PROTOCOL = Protocol(steps=12, eval_every=6, batch_size=4, train_cap=20, dev_cap=10, eval_cap=12)
STUDY = Study(
    name="writers",
    backbone="tiny",
    tasks=("toy-sentiment",),
    ladder=Ladder(head=True, sizes={"lora": (1,), "cp": (1, 2)}),
    seeds=(0, 1, 2, 3, 4, 5),
    protocol=PROTOCOL,
)
WORK = """
import cpadapt.measure as measure
measure.BANK_TOKENS = bank_tokens
measure.WAIT_SECONDS = 0.05
"""
MEASURE = WORK + "assert len(measure.train(study, results=results)) == 24\n"
A_SEED = 1000
"""Tokens of a step, so that the four runs of a seed make a bank."""


@pytest.fixture(scope="module")
def alone() -> dict[str, Record]:
    """The study's records, measured by one process."""
    return {record.id: record for record in train(STUDY)}


def whole(results: Path, alone: dict[str, Record]) -> list[int]:
    """Check that each run is on record once, as if trained alone; how many runs each process has recorded."""
    files = record_files(results)
    lines = Counter(record.id for file in files for record in load_records(file))
    assert lines == Counter(dict.fromkeys(alone, 1)), "each once"
    for record in load_records(results):
        expected = alone[record.id]
        assert [e.dev_loss for e in record.evaluations] == pytest.approx(
            [e.dev_loss for e in expected.evaluations], abs=1e-5
        )
        assert record.outcome.right_by_row == expected.outcome.right_by_row
    assert sorted(results.iterdir()) == files, "no claims, no checkpoints, no drafts"
    return [len(load_records(file)) for file in files]


def ended_well(started: list[Forked]) -> None:
    for process in started:
        assert process.wait() == 0, process.printed


@pytest.mark.parametrize(
    "bank_tokens",
    [(A_SEED, A_SEED), (1, 1, 1, 1), (1, 500, A_SEED, A_SEED)],
    ids=["two, a seed a bank", "four, a run a bank", "four, other banks each"],
)
@pytest.mark.long
def test_each_run_is_trained_once(
    bank_tokens: tuple[int, ...], processes: Forks, alone: dict[str, Record], tmp_path: Path
) -> None:
    results = tmp_path / "r"
    ended_well(
        [processes.start(MEASURE, study=STUDY, results=str(results), bank_tokens=tokens) for tokens in bank_tokens]
    )
    recorded = whole(results, alone)
    assert len(recorded) == len(bank_tokens), "each did some"
    if len(set(bank_tokens)) == 1:
        runs = 4 if A_SEED in bank_tokens else 1
        assert {record.cost.bank_runs for record in load_records(results)} == {runs}


@pytest.mark.long
def test_others_take_over_what_a_killed_process_had(
    processes: Forks, alone: dict[str, Record], tmp_path: Path
) -> None:
    results = tmp_path / "r"
    # It stops in the middle of a bank, whose state is written, and holds its claim.
    stops = (
        WORK.replace(
            "import cpadapt.measure as measure\n",
            """
import time, cpadapt.measure as measure
from cpadapt.bank.trainer import Trainer
evaluate = Trainer._evaluate
def stopping(self):
    evaluate(self)
    if self.state.step == 12:
        open(results + "-stopped", "w").close()
        time.sleep(600)
Trainer._evaluate = stopping
""",
        )
        + "measure.train(study, results=results)\n"
    )
    victim = processes.start(stops, study=STUDY, results=str(results), bank_tokens=A_SEED)
    until((tmp_path / "r-stopped").exists)
    others = [processes.start(MEASURE, study=STUDY, results=str(results), bank_tokens=A_SEED) for _ in range(2)]
    until(lambda: all("waiting for runs that are being trained: 4 by process" in other.printed for other in others))
    assert f"process {victim.pid} on " in others[0].printed
    running = [cell.running for cell in status(STUDY, results)]
    assert running == [1, 1, 1, 1]
    victim.kill()
    assert victim.wait() == -signal.SIGKILL
    ended_well(others)
    assert len(whole(results, alone)) == 2
    assert sorted(record.cost.resumed for record in load_records(results)) == [0] * 20 + [1] * 4


NEARBY = Owner("elsewhere", 1, "another boot", 5, "2026-01-01T00:00:00+00:00")
"""A process of another host, of which nothing but its lease is seen."""


class Clock:
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What the watching process goes by; that of the day is out of its reach."""
    made = Clock()
    monkeypatch.setattr("cpadapt.records.claims.time.monotonic", made)
    monkeypatch.setattr("cpadapt.records.claims.time.time", lambda: pytest.fail("the clock of the day was asked"))
    return made


def claimed_elsewhere(results: Path, run: str, owner: Owner = NEARBY) -> Path:
    """A claim of a process of another host; its lease."""
    folder = results / CLAIMS
    folder.mkdir(parents=True, exist_ok=True)
    lease = folder / "0123456789abcdef.lease"
    lease.write_text(json.dumps(asdict(owner)))
    (folder / f"{run}.0").write_text(json.dumps({"run": run, "config": f"c{run}", "lease": lease.name}))
    return lease


def test_a_process_of_another_host_keeps_its_claim_while_it_renews_it(tmp_path: Path, clock: Clock) -> None:
    lease = claimed_elsewhere(tmp_path, "a1")
    with Claims(tmp_path) as mine:
        for renewed in range(5):
            assert mine.take({"a1": "ca1", "b2": "cb2"}, whole=True) == []
            clock.now += 0.9 * LEASE_SECONDS
            os.utime(lease, (renewed, renewed))
        assert mine.take({"a1": "ca1"}, whole=True) == []
        clock.now += 1.1 * LEASE_SECONDS
        assert mine.others(["a1", "b2"]) == {}
        assert mine.take({"a1": "ca1", "b2": "cb2"}, whole=True) == ["a1", "b2"]
        with Claims(tmp_path) as another:
            assert another.take({"a1": "ca1", "b2": "cb2"}, whole=False) == [], "they are a living process's"
            assert another.others(["a1", "b2"]) == {mine._owner: 2}
        assert not mine.tidy(["a1", "b2"]), "this process is at work"
        mine.settle(["a1", "b2"])
    # A lease that was being written when its process was killed.
    (tmp_path / CLAIMS).mkdir(exist_ok=True)
    (tmp_path / CLAIMS / ".0123456789abcdef.lease.123.draft").touch()
    assert at_work(tmp_path) == []
    assert mine.tidy(["a1", "b2"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("jump", [-1e9, 1e9], ids=["back", "on"])
def test_a_clock_that_jumps_keeps_no_claim_and_takes_none_away(jump: float, tmp_path: Path, clock: Clock) -> None:
    """The clock of the day of the file server, and with it the times of files."""
    lease = claimed_elsewhere(tmp_path, "a1")
    with Claims(tmp_path) as mine:
        assert mine.take({"a1": "ca1"}, whole=True) == []
        os.utime(lease, (lease.stat().st_mtime + jump,) * 2)
        clock.now += 0.9 * LEASE_SECONDS
        assert mine.take({"a1": "ca1"}, whole=True) == [], "it was renewed, whatever the time"
        clock.now += 1.1 * LEASE_SECONDS
        assert mine.take({"a1": "ca1"}, whole=True) == ["a1"], "it was not"


def test_on_this_host_the_process_decides(tmp_path: Path, clock: Clock) -> None:
    here = claims._this_process()
    for started, keeps in ((here.started, True), (here.started + 1, False)):
        results = tmp_path / str(keeps)
        claimed_elsewhere(results, "a1", replace(here, started=started))
        with Claims(results) as mine:
            clock.now += 10 * LEASE_SECONDS
            assert mine.take({"a1": "ca1"}, whole=True) == ([] if keeps else ["a1"])


def test_a_pid_that_this_user_cannot_see_is_watched(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hidden(pid: int, number: int) -> None:
        raise PermissionError

    owner = replace(claims._this_process(), pid=2**30)
    claimed_elsewhere(tmp_path, "a1", owner)
    monkeypatch.setattr("os.kill", hidden)
    with Claims(tmp_path) as mine:
        assert mine.take({"a1": "ca1"}, whole=True) == []
        clock.now += 1.1 * LEASE_SECONDS
        assert mine.take({"a1": "ca1"}, whole=True) == ["a1"]


def test_a_claim_that_was_being_written_is_waited_for(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / CLAIMS).mkdir()
    (tmp_path / CLAIMS / "a1.0").touch()
    with Claims(tmp_path) as mine:
        assert mine.take({"a1": "ca1"}, whole=True) == []
        clock.now += 1.1 * LEASE_SECONDS
        assert mine.take({"a1": "ca1"}, whole=True) == ["a1"]


@pytest.mark.parametrize(
    "content",
    ['{"run": "a1", "config": "c", "lease": 3}', '{"run": "a1", "config": "c", "lease": "\\u0000"}', "[]", "{", "3",
     '{"run": "a1", "config": "c", "lease": "../../away.lease"}'],
)  # fmt: skip
def test_a_claim_that_says_nothing_sound_is_waited_for(content: str, tmp_path: Path, clock: Clock) -> None:
    (tmp_path / CLAIMS).mkdir()
    (tmp_path / CLAIMS / "a1.0").write_text(content)
    assert at_work(tmp_path) == []
    with Claims(tmp_path) as mine:
        assert mine.take({"a1": "ca1"}, whole=True) == []
        clock.now += 1.1 * LEASE_SECONDS
        assert mine.take({"a1": "ca1"}, whole=True) == ["a1"]


@pytest.mark.parametrize("fields", [{"pid": "x"}, {"pid": 1e300}, {"host": None}, {"started": "now"}, {"other": 1}])
def test_a_lease_that_says_nothing_sound_is_watched(fields: dict[str, Any], tmp_path: Path, clock: Clock) -> None:
    lease = claimed_elsewhere(tmp_path, "a1")
    lease.write_text(json.dumps(json.loads(lease.read_text()) | fields))
    assert at_work(tmp_path) == []
    with Claims(tmp_path) as mine:
        assert mine.take({"a1": "ca1"}, whole=True) == []
        assert mine.others(["a1"]) == {}
        clock.now += 1.1 * LEASE_SECONDS
        assert mine.take({"a1": "ca1"}, whole=True) == ["a1"]


def test_a_process_that_was_stopped_for_long_has_lost_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "RENEWED_SECONDS", 0.01)
    runs = {"a1": "ca1", "b2": "cb2"}
    with Claims(tmp_path) as stopped:
        other = Claims(tmp_path).__enter__()
        assert stopped.take(runs, whole=True) == ["a1", "b2"]
        monkeypatch.setattr(other._watch, "_looks_gone", lambda lease: True)
        assert other.take({"b2": "cb2"}, whole=True) == ["b2"]
        assert stopped.held(runs) == {"a1"}
        assert other.held(["b2"]) == {"b2"}
        assert stopped.take({"b2": "cb2"}, whole=True) == []
        other.__exit__(None, None, None)
        with Claims(tmp_path) as third:
            assert third.take(runs, whole=False) == ["b2"], "although who had it first is at work again"
            assert (tmp_path / CLAIMS / "b2.2").exists()
            assert stopped.take({"b2": "cb2"}, whole=True) == []
        assert stopped.take({"b2": "cb2"}, whole=True) == ["b2"]
        # It renews its lease even if others have removed it.
        stopped._lease.unlink()
        until(stopped._lease.exists)
        assert claims._owner(stopped._lease) == stopped._owner


@pytest.mark.long
def test_a_run_that_was_lost_while_it_trained_is_not_recorded_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process takes one of a bank's runs from this one, which had been stopped, and is killed."""
    held, lost = Claims.held, []

    def losing(mine: Claims, runs: dict[str, Any]) -> set[str]:
        if not lost:
            lost.append(next(iter(runs)))
            with monkeypatch.context() as patch, Claims(tmp_path) as other:
                patch.setattr(other._watch, "_looks_gone", lambda lease: True)
                assert other.take({lost[0]: "c"}, whole=True) == lost
                return held(mine, runs)
        return held(mine, runs)

    monkeypatch.setattr(Claims, "held", losing)
    records = {record.id: record for record in train(STUDY, results=tmp_path)}
    assert len(records) == len(load_records(tmp_path)) == 24
    (file,) = record_files(tmp_path)
    assert len(read_lines(file)) == 24 + 1, "and the draw"
    assert [record.id for record in records.values() if record.cost.bank_runs == 1] == lost
    assert list(tmp_path.iterdir()) == [file]


def test_a_claim_above_one_that_is_settled_is_settled_too(tmp_path: Path) -> None:
    """Between another process's look at `a1.0` and its claim, the run was recorded."""
    with Claims(tmp_path) as late:
        (tmp_path / CLAIMS / "a1.1").write_text(json.dumps({"run": "a1", "config": "c", "lease": late._lease.name}))
        assert [working.config for working in at_work(tmp_path)] == ["c"]
        late.settle(["a1"])
        assert [path.name for path in (tmp_path / CLAIMS).iterdir()] == [late._lease.name]


def test_what_is_on_record_stays_claimed_while_others_may_not_see_the_record(tmp_path: Path, clock: Clock) -> None:
    """As on NFS, where another client lists the files of a minute ago."""
    with Claims(tmp_path) as late:
        with Claims(tmp_path) as first:
            assert first.take({"a1": "ca1", "b2": "cb2"}, whole=True) == ["a1", "b2"]
            first.settle(["a1"])
            assert late.take({"a1": "ca1"}, whole=True) == []
            assert late.others(["a1"]) == {}, "nobody trains it"
            assert [working.config for working in at_work(tmp_path)] == ["cb2"]
        assert not first.tidy(["a1"]), "another is at work"
        assert late.take({"a1": "ca1", "b2": "cb2"}, whole=False) == ["b2"]
        clock.now += 0.9 * LEASE_SECONDS
        assert late.take({"a1": "ca1"}, whole=True) == []
        clock.now += 0.2 * LEASE_SECONDS
        assert late.take({"a1": "ca1"}, whole=True) == ["a1"], "somebody has removed the record"
        late.settle(["a1", "b2"])
    assert not list(tmp_path.iterdir())


def test_the_last_of_several_leaves_nothing(tmp_path: Path) -> None:
    with Claims(tmp_path) as last:
        with Claims(tmp_path) as first:
            first.take({"a1": "ca1"}, whole=True)
            first.settle(["a1"])
        assert (tmp_path / CLAIMS / "a1.0").exists()
    assert not last._lease.exists()
    assert not list(tmp_path.iterdir())


def test_a_server_that_does_not_answer_takes_no_claim_away(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed_elsewhere(tmp_path, "a1")

    def silent(lease: Path) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with Claims(tmp_path) as mine, monkeypatch.context() as patch:
        patch.setattr(claims, "_owner", silent)
        for _ in range(3):
            assert mine.take({"a1": "ca1"}, whole=True) == []
            clock.now += 2 * LEASE_SECONDS


def test_what_an_error_ends_is_free_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with Claims(tmp_path) as mine:
            mine.take({"a1": "ca1"}, whole=True)
            raise RuntimeError("the device\nis lost")

    with pytest.raises(RuntimeError):
        fail()
    ((config, owner),) = [(working.config, working.owner) for working in at_work(tmp_path)]
    assert (config, owner.pid, owner.failed) == ("ca1", os.getpid(), "the device is lost")
    with Claims(tmp_path) as mine:
        assert mine.take({"a1": "ca1"}, whole=True) == ["a1"]
        assert [working.owner for working in at_work(tmp_path)] == [mine._owner]
        mine.settle(["a1"])
    assert mine.tidy(["a1"])
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_two_files_of_records_never_have_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = iter(["aaaaaa", "aaaaaa", "aaaaaa", "bbbbbb", "aaaaaa", "cccccc"])
    monkeypatch.setattr("cpadapt.records.store.secrets.token_hex", lambda size: next(tokens))
    monkeypatch.setattr("cpadapt.records.store.datetime", StoppedDay)
    records = train(STUDY)[:3]
    first, second = RecordFile(tmp_path), RecordFile(tmp_path)
    first.add(records[:1])
    second.add(records[1:2])
    first.finish()
    third = RecordFile(tmp_path)
    third.add(records[2:])
    assert sorted(record.id for record in load_records(tmp_path)) == sorted(record.id for record in records)
    assert len(record_files(tmp_path)) == 3


class StoppedDay:
    """Stands for `datetime`, in one second."""

    @staticmethod
    def now(zone: object) -> time.struct_time:
        return StoppedDay()  # type: ignore[return-value]

    def strftime(self, form: str) -> str:
        return "20260101T000000Z"


@pytest.mark.long
def test_a_file_that_is_compressed_while_a_folder_is_read_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cpadapt.records import store

    file = RecordFile(tmp_path)
    records = train(STUDY, budget=100)
    file.add(records)
    listed = store.record_files

    def slow(path: Path) -> list[Path]:
        files = listed(path)
        if file.path.exists():
            file.finish()
        return files

    monkeypatch.setattr(store, "record_files", slow)
    assert load_records(tmp_path) == records
