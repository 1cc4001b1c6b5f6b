"""Many peers on one device: as many processes as asked for, each training one run with `Trainer` and PEFT.

All processes are started at once, and take nothing of the device until they are needed: the memory of those that wait
would be missing to those that work. Then each loads the model, once. In a round, all peers begin each timed phase
together, when the last of them is ready, and the wall clock runs until the last of them is done. What one run takes of
the device is that time divided by the number of peers.
"""

import dataclasses
import multiprocessing
import time
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

import shapes
import torch
from measured import say
from peer import GATES, PeerTimes, Precision, run_peer

from cpadapt.inputs.backbones.specs import Dtype
from cpadapt.inputs.tasks.examples import TaskData
from cpadapt.records.config import RunConfig

PATIENCE = 420.0
"""Seconds without a word from a peer after which it is given up."""


@dataclass(frozen=True)
class Work:
    """What every peer does."""

    run: RunConfig
    """A LoRA run; each peer has a seed of its own."""
    data: TaskData
    dtype: Dtype
    steps: int
    """Timed training steps of each peer in a round."""
    warmup: int
    eval_batch_size: int


@dataclass(frozen=True)
class Round:
    """What a number of peers took together."""

    peers: int
    train_seconds: float
    """From the moment when all began to the end of the last one's steps."""
    dev_seconds: float
    """Likewise for one evaluation of each on dev."""
    eval_seconds: float
    times: list[PeerTimes]
    """As each of them saw it."""


class PeerFailed(Exception):
    """A peer's process failed or ended; the message says which, and why."""


class Peers:
    """Processes that train one run each, for as long as the `with` block lasts.

    Args:
        most: how many there may be.
        device: of all of them.
    """

    def __init__(self, most: int, device: str) -> None:
        self.most, self.device = most, device
        self._processes: list[Any] = []
        self._connections: list[Any] = []
        self._loaded = 0

    def __enter__(self) -> "Peers":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        for ours in self._connections:
            ours.close()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()
            process.close()
        self._connections, self._processes, self._loaded = [], [], 0

    def measure(self, peers: int, work: Work, precision: Precision) -> Round:
        """Let this many peers train and evaluate at once; the backbone is that of the first work.

        Raises:
            PeerFailed: one of them failed, for lack of memory perhaps; all are ended, and the next call starts anew.
        """
        try:
            if not self._processes:
                self._start()
            self._load(peers, work)
            for ours in self._connections[:peers]:
                ours.send((work, precision))
            began, walls = 0.0, []
            for i, gate in enumerate(GATES):
                arrivals = self._gather(peers, gate)
                if i % 2:
                    walls.append(max(arrivals) - began)
                began = time.perf_counter()
                for ours in self._connections[:peers]:
                    ours.send("go")
            return Round(peers, *walls, self._gather(peers, "times"))
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        say(f"starting {self.most} peers")
        context = multiprocessing.get_context("spawn")
        for index in range(self.most):
            ours, theirs = context.Pipe()
            process = context.Process(target=_peer, args=(theirs, index), daemon=True)
            process.start()
            # The child holds the only other end, so that its end is seen when it dies.
            theirs.close()
            self._processes.append(process)
            self._connections.append(ours)
        # Not with the process: one after another would import everything before the next one starts.
        for ours in self._connections:
            ours.send(self.device)
        # Imports take all cores for a while: nothing is measured meanwhile.
        self._gather(self.most, "started")

    def _load(self, peers: int, work: Work) -> None:
        for ours in self._connections[self._loaded : peers]:
            ours.send((work.run.backbone, work.dtype))
        self._gather(peers, "loaded", first=self._loaded)
        self._loaded = max(self._loaded, peers)

    def _gather(self, peers: int, word: str, first: int = 0) -> list[Any]:
        """Wait until each of the peers has said this word; what each said with it."""
        waiting = {self._connections[index]: index for index in range(first, peers)}
        said: dict[int, Any] = {}
        while waiting:
            heard: list[Any] = connection.wait(list(waiting), timeout=PATIENCE)
            if not heard:
                raise PeerFailed(f"{len(waiting)} of {peers} peers said nothing for {PATIENCE:.0f} s, before {word!r}")
            for ours in heard:
                index = waiting.pop(ours)
                try:
                    got, said[index] = ours.recv()
                except (EOFError, ConnectionError):
                    self._processes[index].join(10)
                    code = self._processes[index].exitcode
                    raise PeerFailed(f"peer {index} of {peers} ended before {word!r}, exit code {code}") from None
                if got != word:
                    raise PeerFailed(f"peer {index} of {peers} failed before {word!r}: {said[index]}")
        return [said[index] for index in range(first, peers)]


def _peer(parent: Any, index: int) -> None:
    """One peer's process: a round each time it is given work, until the parent is gone."""

    def gate(name: str) -> None:
        parent.send((name, time.perf_counter()))
        parent.recv()

    device: str = parent.recv()
    if device != "cpu":
        # The host only launches kernels; more threads would take cores from the other peers.
        torch.set_num_threads(1)
    try:
        parent.send(("started", None))
        name, dtype = parent.recv()
        backbone = shapes.load(name, dtype=dtype, device=device)
        parent.send(("loaded", None))
        while True:
            work, precision = parent.recv()
            times = run_peer(
                backbone,
                dataclasses.replace(work.run, seed=index),
                work.data,
                steps=work.steps,
                warmup=work.warmup,
                precision=precision,
                eval_batch_size=work.eval_batch_size,
                gate=gate,
            )
            if device != "cpu":
                # What this process kept for itself would be missing to the others.
                torch.cuda.empty_cache()
            parent.send(("times", times))
    except (EOFError, ConnectionError):
        return
    except Exception as error:
        parent.send(("failed", f"{type(error).__name__}: {error}"))
