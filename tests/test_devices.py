"""A study on several devices of one host: a process for each, none of which is left alone."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from processes import environment, until

from cpadapt import InputError
from cpadapt.devices import Ended, _ended, devices
from cpadapt.records.claims import CLAIMS, at_work
from cpadapt.records.store import load_records, record_files

STUDY = """
name = "small"
backbone = "tiny"
tasks = ["toy-sentiment"]
seeds = "0-3"
[ladder]
head = true
[ladder.sizes]
cp = [1]
[protocol]
steps = {steps}
eval_every = 20
batch_size = 4
train_cap = 20
dev_cap = 10
eval_cap = 10
"""


def test_what_devices_are_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert devices("3") == ["cpu"] * 3
    for text, says in (
        ("all", "--devices all: there is no GPU; --devices 2 starts"),
        ("5", "--devices 5: there are no GPUs, and 4 cores"),
        ("0", "--devices '0': write all or a number"),
        ("two", "--devices 'two': write all or a number"),
        ("cuda:1", "--devices 'cuda:1': write all or a number"),
    ):
        with pytest.raises(InputError, match=re.escape(says)):
            devices(text)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert devices("all") == ["cuda:0", "cuda:1", "cuda:2"]
    assert devices("2") == ["cuda:0", "cuda:1"]
    with pytest.raises(InputError, match="--devices 4: there are 3 GPUs"):
        devices("4")


@pytest.mark.parametrize(
    ("codes", "status", "failures"),
    [
        ((0, 0), 0, {}),
        ((0, -9), 137, {"b": "ended by SIGKILL"}),
        ((143, -15), 143, {"a": "ended by SIGTERM", "b": "ended by SIGTERM"}),
        ((2, 2), 2, {"a": "no", "b": "failed; its error is above"}),
        ((2, 1), 1, {"a": "no", "b": "failed; its error is above"}),
    ],
)
def test_what_the_processes_came_to(codes: tuple[int, int], status: int, failures: dict[str, str]) -> None:
    processes: dict[str, Any] = {name: SimpleNamespace(exitcode=code) for name, code in zip("ab", codes, strict=True)}
    assert _ended(processes, {"a": "no"} if codes[0] == 2 else {}) == Ended([], failures, status)


class Command:
    """`cpadapt run --devices 2` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.results = folder, folder / "results" / "small"
        self.process: subprocess.Popen[str] | None = None

    def start(self, steps: int, *options: str) -> "subprocess.Popen[str]":
        (self.folder / "s.toml").write_text(STUDY.format(steps=steps))
        command = [sys.executable, "-c", "from cpadapt.cli import main; main()", "run", "s.toml", "--devices", "2"]
        self.process = subprocess.Popen(
            [*command, *options],
            cwd=self.folder,
            env=environment(OMP_NUM_THREADS="1", COLUMNS="100"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Where the tests run in the background, the shell has told them to ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        return self.process

    def pids(self) -> set[int]:
        """Of the processes that train, once both do so and have written a state."""
        until(lambda: len(self._pids()) == 2 and len(list(self.results.glob(".checkpoints/*.safetensors"))) == 2)
        return self._pids()

    def _pids(self) -> set[int]:
        return {working.owner.pid for working in at_work(self.results)} if self.results.exists() else set()


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    made = Command(tmp_path)
    yield made
    if made.process is not None:
        if made.process.poll() is None:
            os.killpg(made.process.pid, signal.SIGKILL)
        made.process.communicate()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.long
def test_two_processes_share_a_study_and_one_that_is_killed_is_said(command: Command) -> None:
    out, err = command.start(20).communicate()
    assert command.process is not None
    assert (command.process.returncode, err) == (0, "")
    assert "small: 8 trained, 0 on record before; 0 diverged" in out
    files = record_files(command.results)
    # One may be done with everything before the other has started.
    assert sum(len(load_records(file)) for file in files) == len(load_records(command.results)) == 8

    process = command.start(300, "--force")
    victim = command.pids().pop()
    os.kill(victim, signal.SIGKILL)
    out, err = process.communicate()
    assert process.returncode == 128 + signal.SIGKILL
    assert re.fullmatch(r"cpadapt: cpu [12]: ended by SIGKILL\n", err)
    assert "small: 8 trained, 0 on record before" in out
    records = [record for file in set(record_files(command.results)) - set(files) for record in load_records(file)]
    assert set(Counter(record.id for record in records).values()) == {1}
    assert len(records) == 8
    assert not (command.results / CLAIMS).exists()


@pytest.mark.long
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interruption_ends_all_with_their_states_written(number: int, status: int, command: Command) -> None:
    process = command.start(10**6)
    pids = command.pids()
    before = {file: file.stat().st_mtime_ns for file in command.results.glob(".checkpoints/*.safetensors")}
    if number == signal.SIGTERM:
        process.send_signal(number)  # as a cluster does, to the one that it started
    else:
        os.killpg(process.pid, number)  # as a terminal does
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (status, "", "")
    assert all(map(gone, pids))
    assert not list((command.results / CLAIMS).glob("*.lease")), "their claims are given up"
    after = {file: file.stat().st_mtime_ns for file in command.results.glob(".checkpoints/*.safetensors")}
    assert before.keys() == after.keys()
    assert all(after[file] > written for file, written in before.items())


@pytest.mark.long
def test_processes_end_with_the_one_that_started_them(command: Command) -> None:
    process = command.start(10**6)
    pids = command.pids()
    process.kill()
    process.communicate()
    until(lambda: all(map(gone, pids)))
    assert not list((command.results / CLAIMS).glob("*.lease"))
