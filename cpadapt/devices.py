"""A study on several devices of one host: a process for each, which share the work through the folder of records."""

import contextlib
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import torch
from rich.console import Console

from cpadapt.bank.trainer import Progress
from cpadapt.display import progress_bar
from cpadapt.errors import InputError
from cpadapt.measure import measure
from cpadapt.records.record import Record
from cpadapt.signals import end
from cpadapt.study import Study

SHOWN_SECONDS = 0.1
"""Time between two messages on a bank's progress."""


@dataclass
class Ended:
    """What the processes came to."""

    records: list[Record]
    """Of all runs asked for, in the study's order; empty if no process came to the end."""
    failures: dict[str, str]
    """What ended a process early, by device."""
    status: int
    """The exit status for the whole: 0 if nothing failed; that of all processes that failed, or 1 if theirs differ."""


def devices(text: str) -> list[str]:
    """The devices that a text names, one for each process.

    Args:
        text: `all`, which is every GPU, or a number: of GPUs or, where there are none, of processes on the CPU.

    Raises:
        InputError: it is neither, or there are not so many.
    """
    gpus, cores = torch.cuda.device_count(), os.cpu_count() or 1
    if text == "all":
        if not gpus:
            raise InputError("--devices all: there is no GPU; --devices 2 starts two processes on the CPU")
        return [f"cuda:{number}" for number in range(gpus)]
    if not re.fullmatch(r"[1-9]\d*", text):
        raise InputError(f"--devices {text!r}: write all or a number, such as 2")
    if int(text) > (gpus or cores):
        raise InputError(f"--devices {text}: there are {f'{gpus} GPUs' if gpus else f'no GPUs, and {cores} cores'}")
    return [f"cuda:{number}" if gpus else "cpu" for number in range(int(text))]


def measure_on(names: Sequence[str], study: Study, *, quiet: bool = False, **how: Any) -> Ended:
    """Measure a study's runs in a process for each device.

    A process that ends early leaves what it had to the others. An interruption of this process ends all: each writes
    its bank's state first.

    Args:
        names: the devices, as torch names them; the CPU may stand there several times.
        study: what to measure.
        quiet: show no progress bars.
        how: further arguments of `cpadapt.measure.measure`; there must be a folder of records.
    """
    context = multiprocessing.get_context("spawn")
    titles = [name if names.count(name) == 1 else f"{name} {n}" for n, name in enumerate(names, start=1)]
    processes: dict[str, SpawnProcess] = {}
    readers: dict[Connection, str] = {}
    how |= {"processes": len(names)}
    try:
        for title, name in zip(titles, names, strict=True):
            reader, writer = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(writer, name, len(names), study, how), name=title)
            with _sigint_ignored():
                process.start()
            processes[title] = process
            writer.close()
            readers[reader] = title
        ended = _follow(readers, quiet)
    except BaseException:
        for process in processes.values():
            process.terminate()  # by SIGTERM, on which each writes its state
        raise
    finally:
        for process in processes.values():
            process.join()
    return _ended(processes, ended)


@contextlib.contextmanager
def _sigint_ignored() -> Iterator[None]:
    """A process that is started meanwhile ignores interruptions from the keyboard, which reach all of a terminal's
    processes. The one that started it passes them on as SIGTERM.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _follow(readers: dict[Connection, str], quiet: bool) -> dict[str, list[Record] | str]:
    """Show what the processes report until each has ended; their records, or what they failed of."""
    ended: dict[str, list[Record] | str] = {}
    with progress_bar(Console(stderr=True), quiet) as bar:
        shown = {title: bar.add_task(f"{title}: starting", total=None, word="") for title in readers.values()}
        while readers:
            ready = wait(list(readers))
            for reader in [reader for reader in readers if reader in ready]:
                title = readers[reader]
                try:
                    kind, content = reader.recv()
                except (EOFError, OSError):
                    del readers[reader]
                    bar.update(shown[title], description=f"{title}: ended", word="")
                    continue
                if kind == "ended":
                    ended[title] = content
                elif kind == "bank":
                    bar.update(shown[title], description=f"{title}: {content[0]}", total=content[1], completed=0)
                else:
                    bar.update(shown[title], completed=content[0], word=content[1])
    return ended


def _ended(processes: Mapping[str, SpawnProcess], ended: Mapping[str, list[Record] | str]) -> Ended:
    failures, statuses = {}, set()
    for title, process in processes.items():
        if code := process.exitcode:
            by_signal = -code if code < 0 else code - 128 if code > 128 else 0
            said = ended.get(title)
            if by_signal:
                failures[title] = f"ended by {signal.Signals(by_signal).name}"
            else:
                failures[title] = said if isinstance(said, str) else "failed; its error is above"
            statuses.add(128 + by_signal if by_signal else code)
    records: list[Record] = next((found for found in ended.values() if isinstance(found, list)), [])
    return Ended(records, failures, 0 if not statuses else statuses.pop() if len(statuses) == 1 else 1)


class _Reporting:
    """A display that tells the process which started this one."""

    def __init__(self, writer: "Connection[Any, Any]") -> None:
        self._writer = writer

    @contextlib.contextmanager
    def bank(self, title: str, steps: int) -> Iterator[Progress]:
        self._send("bank", (title, steps))
        last = -SHOWN_SECONDS

        def report(step: int, word: str) -> None:
            nonlocal last
            if (now := time.monotonic()) - last >= SHOWN_SECONDS or step == steps:
                self._send("step", (step, word))
                last = now

        yield report

    def say(self, text: str) -> None:
        self._send("step", (0, "waiting for runs of others"))

    def _send(self, kind: str, content: tuple[Any, ...]) -> None:
        # Without the process that reads this one is about to end.
        with contextlib.suppress(BrokenPipeError):
            self._writer.send((kind, content))


def _work(writer: "Connection[Any, Any]", device: str, processes: int, study: Study, how: dict[str, Any]) -> None:
    """What each process does."""
    signal.signal(signal.SIGTERM, end)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    try:
        records = measure(study, device=device, display=_Reporting(writer), **how).records
    except (InputError, OSError) as error:
        writer.send(("ended", " ".join(str(error).split())))
        sys.exit(2)
    writer.send(("ended", records))


def _end_with_parent() -> None:
    """End this process, its state written, if the one that started it is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
