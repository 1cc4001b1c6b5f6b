"""What happens to a machine, and what is lost: nothing that is on record, and no more than the work since a state."""

import contextlib
import errno
import itertools
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import Forks, until

from cpadapt import FamilyPlan, InputError, Ladder, Protocol, Study, cli, measure, status, train
from cpadapt.bank.trainer import Trainer
from cpadapt.records.record import Record
from cpadapt.records.store import RecordFile, load_records, record_files, write_atomically

pytestmark = pytest.mark.slow

STUDY = Study(
    name="faults",
    backbone="tiny",
    tasks=("toy-sentiment",),
    ladder=Ladder(head=True, sizes={"cp": (1, 2)}),
    seeds=(0, 1),
    protocol=Protocol(steps=12, eval_every=3, batch_size=4, train_cap=20, dev_cap=10, eval_cap=12),
)
WORK = """
import os, random, signal
from pathlib import Path
import cpadapt.measure as measure
from cpadapt.bank.adamw import RunAdamW
from cpadapt.bank.bank import Bank
from cpadapt.bank.trainer import Trainer
from cpadapt.records import claims, store

measure.BANK_TOKENS = 750  # the three runs of a seed
chance = random.Random(seed)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def dying_in(places, calls):
    "Die before or after one of the calls of these methods."
    left, after = chance.randrange(calls), chance.random() < 0.5
    def dying(work):
        def called(*args, **how):
            nonlocal left
            if left == 0 and not after:
                die()
            done = work(*args, **how)
            if left == 0:
                die()
            left -= 1
            return done
        return called
    for owner, name in places:
        setattr(owner, name, dying(getattr(owner, name)))

class Dying:
    "A file of which a part is written."
    def __init__(self, file):
        self.file = file
    def __enter__(self):
        return self
    def write(self, content):
        self.file.write(content[: chance.randrange(len(content))])
        self.file.flush()
        die()

def dying_in_writing(ending, files):
    "Die while one of the files with this ending is written: in the middle, or before or after it gets its name."
    left, how = chance.randrange(files), chance.choice(["within", "before", "after"])
    created, replace = store._created, Path.replace
    def creating(path):
        nonlocal left
        file = created(path)
        if ending in path.name:
            left -= 1
            if left < 0 and how == "within":
                return Dying(file)
        return file
    def replacing(draft, path):
        if left < 0 and how == "before":
            die()
        done = replace(draft, path)
        if left < 0:
            die()
        return done
    store._created, Path.replace = creating, replacing
"""
MOMENTS = {
    # A bank has 12 steps of a forward and a backward pass and an update.
    "training": "dying_in([(Trainer, '_pack'), (Bank, 'backward'), (RunAdamW, 'step'), (Trainer, '_update')], 90)",
    # And is judged on dev four times, then on eval.
    "judging": "dying_in([(Trainer, '_judge'), (Trainer, '_score'), (Trainer, '_evaluate')], 26)",
    "writing a checkpoint": "dying_in_writing('.safetensors.', 8)",
    # One for each of two banks, then one for both; besides, what comes just before and after.
    "writing records": """
if seed % 2:
    dying_in_writing('.jsonl.', 3)
else:
    dying_in([(store.RecordFile, 'add'), (store.RecordFile, '_reserve'), (store.RecordFile, 'finish'),
              (Trainer, 'forget'), (claims.Claims, 'settle'), (measure, '_tidy')], 9)
""",
}
KILLS = 10
"""Of each kind of moment."""


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Record]:
    return {record.id: record for record in train(STUDY)}


@pytest.mark.long
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment_nothing_is_lost_or_doubled(
    moment: str, processes: Forks, undisturbed: dict[str, Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cpadapt.measure.BANK_TOKENS", 750)
    resumed, before = 0, 0
    for seed in range(KILLS):
        results = tmp_path / str(seed)
        code = WORK + MOMENTS[moment] + "\nmeasure.train(study, results=results)\n"
        killed = processes.start(code, study=STUDY, results=str(results), seed=seed)
        assert killed.wait() == -signal.SIGKILL, killed.printed
        on_record = load_records(results)
        before += len(on_record)
        train(STUDY, results=results)
        files = record_files(results)
        assert Counter(record.id for file in files for record in load_records(file)) == Counter(list(undisturbed))
        assert sorted(results.iterdir()) == files, "nothing is left over"
        for record in load_records(results):
            expected = undisturbed[record.id]
            assert [e.dev_loss for e in record.evaluations] == pytest.approx(
                [e.dev_loss for e in expected.evaluations], abs=1e-5
            )
            assert record.outcome is not None
            assert expected.outcome is not None
            assert record.outcome.right_by_row == expected.outcome.right_by_row
        resumed += any(record.cost.resumed for record in load_records(results))
    print(
        f"{moment}: {KILLS} kills, 0 of {KILLS * len(undisturbed)} records lost or doubled;"
        f" {before} were on record by then, {resumed} times a bank went on from its state"
    )


COMMAND = """
import sys
from cpadapt import cli, measure
measure.WAIT_SECONDS = 0.05
sys.argv = ["cpadapt", *line.split()]
cli.main()
"""
LINE = "try --backbone tiny --task toy-sentiment --cell cp:1 --set train_cap=20 --set dev_cap=10 --set eval_cap=10"


@pytest.mark.long
def test_sigterm_ends_with_143_whatever_a_process_does(processes: Forks, tmp_path: Path) -> None:
    """With what is measured written; and the next one goes on from there, which no mistake has as its status."""
    results = tmp_path / "r"
    line = f"{LINE} --steps 100000 --set eval_every=10 --results {results}"
    training = processes.start(COMMAND, line=line)
    until(lambda: len(list(results.glob(".checkpoints/*.safetensors"))) == 1)
    waiting = processes.start(COMMAND, line=line)
    until(lambda: "waiting for runs that are being trained: 1 by process" in waiting.printed)
    waiting.kill(signal.SIGTERM)
    assert waiting.wait() == 128 + signal.SIGTERM == 143
    (checkpoint,) = results.glob(".checkpoints/*.safetensors")
    before = checkpoint.stat().st_mtime_ns
    training.kill(signal.SIGTERM)
    assert training.wait() == 143, training.printed
    assert training.printed == ""
    assert checkpoint.stat().st_mtime_ns > before
    assert not list(results.glob(".claims/*.lease"))
    assert processes.start(COMMAND, line=f"{LINE} --steps no").wait() == 2


class Disk:
    """A small file system of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        """Leave no space."""
        with self._filler.open("ab", buffering=0) as file:
            for size in (4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"x" * size)

    def free(self) -> None:
        self._filler.unlink()

    def make_read_only(self) -> None:
        mounted("-o", "remount,ro", str(self.path))


def mounted(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux can mount a file system")
    mounted("-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path))
    yield Disk(path)
    subprocess.run(["umount", str(path)], check=True)


def at_call(number: int, before: Callable[[], None], work: Callable[..., Any]) -> Callable[..., Any]:
    """`work`, before whose `number`-th call something happens."""
    calls = 0

    def called(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            before()
        return work(*arguments)

    return called


@pytest.mark.parametrize(
    ("owner", "name", "call", "file", "resumes"),
    [(RecordFile, "add", 2, r"\d+T\d+Z-\w+\.jsonl", 1), (Trainer, "_save", 7, r"\.checkpoints/\w+\.safetensors", 1)],
    ids=["records", "checkpoint"],
)
def test_a_full_disk_is_named_with_the_bytes_and_leaves_records_whole(
    owner: type,
    name: str,
    call: int,
    file: str,
    resumes: int,
    disk: Disk,
    undisturbed: dict[str, Record],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results = disk.path / "r"
    monkeypatch.setattr("cpadapt.measure.BANK_TOKENS", 750)  # two banks
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, at_call(call, disk.fill, getattr(owner, name)))
        with pytest.raises(OSError, match=rf"No space left on device; [\d,]+ bytes were to be written: '.*/r/{file}'"):
            train(STUDY, results=results)
    first = load_records(results)
    assert len(first) == 3, "those of the first bank"
    disk.free()
    records = train(STUDY, results=results)
    assert {record.id for record in records} == set(undisturbed)
    assert [record for record in records if record in first] == first
    assert {record.cost.resumed for record in records if record not in first} == {resumes}
    assert sorted(results.iterdir()) == record_files(results)


def test_a_full_disk_is_one_line_on_the_command_line(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    disk.fill()
    monkeypatch.setattr(Trainer, "train", lambda self: pytest.fail("training began"))
    monkeypatch.setattr(sys, "argv", ["cpadapt", *LINE.split(), "--steps", "10", "--results", str(disk.path / "r")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"cpadapt: {disk.path}/r")
    assert "No space left on device" in error
    assert error.count("\n") == 1


def test_weights_that_do_not_fit_are_named(disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpadapt.measure._write_weights", at_call(1, disk.fill, measure._write_weights))
    (disk.path / "w").mkdir()
    with pytest.raises(
        OSError, match=r"No space left on device.*; [\d,]+ bytes of weights were to be written: '.*/w/"
    ):
        train(STUDY, results=tmp_path / "r", save=disk.path / "w")
    disk.free()
    assert len(train(STUDY, results=tmp_path / "r", save=disk.path / "w")) == 6


def test_without_a_disk_of_its_own_a_write_that_fails_is_named_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomically(tmp_path / "kept", b"first")

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"No space left on device; 1,234 bytes were to be written: '.*/kept'"):
        write_atomically(tmp_path / "kept", b"x" * 1234)
    file = RecordFile(tmp_path / "r")
    with pytest.raises(OSError, match="No space left on device"):
        file.add(train(STUDY)[:1])
    assert (tmp_path / "kept").read_bytes() == b"first"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["kept", "r"]


def test_a_folder_on_a_read_only_disk_is_refused_before_training(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    done = train(STUDY, results=disk.path / "done")
    disk.make_read_only()
    monkeypatch.setattr(Trainer, "train", lambda self: pytest.fail("training began"))
    for folder in ("done", "r/s"):
        where = {"results": disk.path / folder}
        with pytest.raises(InputError, match=rf"disk/{folder} cannot be written to: .*: Read-only file system"):
            train(STUDY, **where, force=True)
    assert train(STUDY, results=disk.path / "done") == done, "what is on record can be read"


def test_a_bank_whose_state_does_not_fit_the_device_is_halved(
    undisturbed: dict[str, Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 2

    def small(backbone: Any, runs: Any, *arguments: Any, **how: Any) -> Trainer:
        if len(runs) > most:
            raise torch.OutOfMemoryError("out of memory")
        return Trainer(backbone, runs, *arguments, **how)

    monkeypatch.setattr("cpadapt.measure.Trainer", small)
    records = train(STUDY, results=tmp_path / "r")
    assert {record.id for record in records} == set(undisturbed)
    assert {record.cost.bank_runs for record in records} == {1, 2}
    assert len(load_records(tmp_path / "r")) == 6
    most = 0
    with pytest.raises(InputError, match=r"a single run of faults toy-sentiment.* does not fit the memory of cpu"):
        train(STUDY)


def test_a_backbone_that_does_not_fit_the_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*arguments: Any, **how: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr("cpadapt.measure.load_backbone", too_large)
    with pytest.raises(InputError, match="backbone 'tiny' does not fit the memory of cpu"):
        train(STUDY)


def test_a_run_that_diverges_is_on_record_as_such(tmp_path: Path) -> None:
    wild = replace(STUDY, families={"cp": FamilyPlan(learning_rates=(1e-3, 1e30))})
    records = train(wild, results=tmp_path)
    diverged = [record for record in records if record.diverged_at is not None]
    assert {record.config.learning_rate for record in diverged} == {1e30}
    assert len(diverged) == 4
    assert all(record.outcome is not None for record in records if record not in diverged)
    assert load_records(tmp_path) == sorted(records, key=load_records(tmp_path).index)
    assert sum(cell.diverged for cell in status(wild, tmp_path)) == 4
    assert train(wild, results=tmp_path) == records, "none is trained again"


def test_a_clock_that_jumps_loses_and_doubles_nothing(
    undisturbed: dict[str, Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Jumping(datetime):
        years = itertools.cycle([2031, 1999, 2026])

        @classmethod
        def now(cls, zone: Any = None) -> "Jumping":
            return cls(next(cls.years), 1, 1, tzinfo=zone)

    for module in ("measure", "records.store", "records.claims"):
        monkeypatch.setattr(f"cpadapt.{module}.datetime", Jumping)
    monkeypatch.setattr("cpadapt.measure.BANK_TOKENS", 1)
    records = train(STUDY, results=tmp_path)
    assert [record.id for record in records] == list(undisturbed)
    assert {record.provenance.finished[:4] for record in records} == {"1999", "2026", "2031"}
    assert all(0 < record.cost.train_seconds < 60 for record in records)
    assert sum(len(load_records(file)) for file in record_files(tmp_path)) == 6
    assert train(STUDY, results=tmp_path) == records
