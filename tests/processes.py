"""Processes that measure, started at once: forks of one that has imported all that they need."""

import base64
import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def environment(**more: str) -> dict[str, str]:
    """That of this process, and in which another one imports from where this one does.

    Args:
        more: further variables.
    """
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])} | more


STARTED = 60.0
"""The most seconds that anything here is waited for."""


class Forked:
    """A process that executes some code."""

    def __init__(self, forks: "Forks", pid: int, printed: Path) -> None:
        self.pid = pid
        self._forks, self._printed = forks, printed
        self._status: int | None = None

    @property
    def printed(self) -> str:
        """What it has printed on both outputs."""
        return self._printed.read_text()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; `None` while it runs."""
        if self._status is None:
            self._status = self._forks.ask(poll=self.pid)
        return self._status

    def wait(self) -> int:
        """Wait for its end; its exit status."""
        until(lambda: self.poll() is not None)
        assert self._status is not None
        return self._status


class Forks:
    """Starts processes.

    Args:
        folder: for what they print.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1"),
        )

    def start(self, code: str, **names: Any) -> Forked:
        """Execute some code in a process of its own.

        Args:
            code: Python.
            names: what it is given.
        """
        self._count += 1
        printed = self._folder / f"printed-{self._count}.txt"
        printed.touch()
        return Forked(
            self,
            self.ask(code=code, names=base64.b64encode(pickle.dumps(names)).decode(), printed=str(printed)),
            printed,
        )

    def ask(self, **request: Any) -> Any:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def close(self) -> None:
        """End, with all that still runs."""
        self.ask(close=True)
        self._server.wait()
        for pipe in (self._server.stdin, self._server.stdout):
            assert pipe is not None
            pipe.close()


@contextlib.contextmanager
def forks(folder: Path) -> Iterator[Forks]:
    """Start processes while this is entered."""
    opened = Forks(folder)
    try:
        yield opened
    finally:
        opened.close()


def until(holds: Any, seconds: float = STARTED) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)


def _serve() -> None:
    import torch

    import cpadapt.measure  # noqa: F401

    torch.set_num_threads(1)
    running: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        if "code" in request:
            pid = os.fork()
            if pid == 0:
                _execute(request)
            running.add(pid)
            answer: Any = pid
        elif "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
            running.discard(pid)
        else:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            answer = None
        print(json.dumps(answer), flush=True)
        if "close" in request:
            return


def _execute(request: dict[str, Any]) -> None:
    status = 1
    try:
        os.setpgrp()
        printed = os.open(request["printed"], os.O_WRONLY | os.O_APPEND)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        exec(request["code"], {"__name__": "__fork__", **pickle.loads(base64.b64decode(request["names"]))})
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _serve()
