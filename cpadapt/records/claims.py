"""Which process trains which run, where several measure into one folder of records.

A process claims a run before it trains it. A claim is a file `.claims/RUN.0` that is created exclusively, which NFS
guarantees from version 3 on, as it does not guarantee locks. It names its process's lease, a file beside it that says
host, pid and start, and that the process touches as long as it lives.

A process is gone if its lease is. Where its host is this one, and runs Linux, it is gone if no process has its pid and
start. Elsewhere it is gone if its lease has not changed for `LEASE_SECONDS` of this process's own watching: times of
files are compared only with each other, so that no clock that jumps keeps a claim or takes one away.

Whoever finds that a claim's process is gone creates `RUN.1`, and so on. The highest number counts, and no claim is
removed before its run is on record. So of those that find a claim free at the same moment, one gets it.

An NFS client may show the records of a minute ago. So a claim stays, and says that its run is on record, while other
processes are here.
"""

import contextlib
import functools
import itertools
import json
import os
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass as validated

from cpadapt.errors import STRICT
from cpadapt.records.store import write_atomically

CLAIMS = ".claims"
"""The folder of claims and leases, within the folder of records."""

RENEWED_SECONDS = 20.0
"""Time between two touches of a lease."""

LEASE_SECONDS = 180.0
"""How long a lease of another host is watched unchanged before its process counts as gone. An NFS client may show a
file's times a minute late, and a process that compiles may touch its lease some seconds late."""


@validated(frozen=True, config=STRICT)
class Owner:
    """A process that measures, as its lease names it."""

    host: str
    pid: int
    kernel: str | None
    """What tells this boot and this space of pids from all others; `None` where the system does not say."""
    started: int | None
    """When the process started, in ticks since the boot, so that a later process with its pid is not taken for it."""
    since: str
    """When it began to measure, ISO 8601, UTC. For people; nothing is decided by it."""
    failed: str | None = None
    """The error that ended it."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@validated(frozen=True, config=STRICT)
class Claim:
    """A run that a process has claimed."""

    run: str
    """The run's id."""
    config: str
    """The id of its config."""
    lease: Annotated[str, Field(pattern=r"^[0-9a-f]{16}\.lease$")]
    """The name of the process's lease."""
    recorded: bool = False
    """Whether the run is on record."""


class Claims:
    """The runs that this process has claimed, while it is entered as a context.

    Leaving it gives up what is claimed and not on record, for other processes to train. An exception other than an
    interruption is noted in the lease, for `cpadapt status`.

    Args:
        results: the folder of records; created if missing.

    Raises:
        OSError: on entry, the folder cannot be written to.
    """

    def __init__(self, results: str | Path) -> None:
        self._folder = Path(results) / CLAIMS
        self._owner = _this_process()
        self._lease = self._folder / f"{secrets.token_hex(8)}.lease"
        self._mine: dict[str, Path] = {}
        self._ended = threading.Event()
        self._renewal = threading.Thread(target=self._renew, name="cpadapt lease", daemon=True)
        self._watch = Watch(self._folder)

    def __enter__(self) -> "Claims":
        self._write_lease(self._owner)
        self._renewal.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._renewal.join()
        if not (isinstance(error, Exception) and self._mine and self._note(error)):
            with contextlib.suppress(OSError):  # a lost folder; or the folder of claims is not empty
                self._lease.unlink(missing_ok=True)
                if self._alone():
                    self._remove_recorded()
                self._folder.rmdir()

    def _note(self, error: Exception) -> bool:
        """Say in the lease what ended this process. Returns whether that could be written."""
        said = " ".join(str(error).split()) or type(error).__name__
        try:
            self._write_lease(replace(self._owner, failed=said))
        except OSError:
            return False
        return True

    def take(self, runs: Mapping[str, str], *, whole: bool) -> list[str]:
        """Claim runs, as many of them as no living process has.

        Args:
            runs: the ids of the runs' configs, by the runs' ids.
            whole: claim nothing if another process has the first run. Then of processes that divide a study into the
                same banks each gets whole ones.

        Returns:
            The ids of the runs that are this process's now. One that another process has finished may be among them:
            only records that are read afterwards say so.
        """
        self._watch.look_again()
        taken: list[str] = []
        for run, config in runs.items():
            if self._take(run, config):
                taken.append(run)
            elif whole and not taken:
                break
        return taken

    def held(self, runs: Collection[str]) -> set[str]:
        """Those of the runs that are still this process's. Others took it for gone and have claimed the rest."""
        held = {run for run in runs if run in self._mine and not _next(self._mine[run]).exists()}
        for run in set(runs) - held:
            self._mine.pop(run, None)
        return held

    def settle(self, runs: Iterable[str]) -> None:
        """Let others know that runs are on record: the claim that counts says so or, if nobody is here, all go."""
        alone, claims = self._alone(), _claims_in(self._folder)
        for run in runs:
            self._mine.pop(run, None)
            if alone:
                _remove(claims.get(run, []))
            elif run in claims and (claim := _claim(claims[run][-1])) is not None:
                # In place: whoever opens it then asks the server. While it is empty, or stays so on a full disk, it
                # counts as being written.
                with contextlib.suppress(OSError):
                    claims[run][-1].write_text(json.dumps(asdict(replace(claim, recorded=True))))

    def others(self, runs: Iterable[str]) -> dict[Owner, int]:
        """How many of these runs other living processes have, by process."""
        self._watch.look_again()
        claims = _claims_in(self._folder)
        owners = (self._watch.living(claims[run][-1]) for run in runs if run in claims and run not in self._mine)
        return dict(Counter(owner for owner in owners if owner is not None))

    def tidy(self, done: Iterable[str]) -> bool:
        """Remove the claims of runs that are on record, and what processes that are gone have left of these runs.

        It is for when this process has given up its own, so that the last of several finds itself alone. Else it does
        nothing.

        Returns:
            Whether no process measures into this folder.
        """
        if self._lease.exists() or not self._alone():
            return False
        done = set(done)
        self._remove_recorded()
        for run, claims in _claims_in(self._folder).items():
            if run in done:
                _remove(claims)
        left = map(_claim, itertools.chain(*_claims_in(self._folder).values()))
        needed = {claim.lease for claim in left if claim is not None}
        for lease in self._folder.glob("*.lease"):
            if lease.name not in needed:
                lease.unlink(missing_ok=True)
        for draft in self._folder.glob(".*.draft"):
            draft.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # which it raises where anything is in it
            self._folder.rmdir()
        return True

    def _alone(self) -> bool:
        """Whether no other process measures into this folder."""
        self._watch.look_again()
        return all(self._watch.is_gone(lease.name) for lease in self._folder.glob("*.lease") if lease != self._lease)

    def _remove_recorded(self) -> None:
        for claims in _claims_in(self._folder).values():
            if (claim := _claim(claims[-1])) is not None and claim.recorded:
                _remove(claims)

    def _take(self, run: str, config: str) -> bool:
        path = self._folder / f"{run}.0"
        content = json.dumps({"run": run, "config": config, "lease": self._lease.name})
        while run not in self._mine:
            try:
                with path.open("x") as file:
                    # Registered first, so that nothing claimed is forgotten if the disk is full.
                    self._mine[run] = path
                    file.write(content)
            except FileExistsError:
                following = _next(path)
                # The highest counts, whoever has those below it.
                if not following.exists() and not self._watch.is_free(path):
                    return False
                path = following
            except OSError as error:
                if self._mine.pop(run, None) is not None:
                    path.unlink(missing_ok=True)
                raise OSError(error.errno, error.strerror, str(path)) from error
        return True

    def _write_lease(self, owner: Owner) -> None:
        write_atomically(self._lease, json.dumps(asdict(owner)).encode())

    def _renew(self) -> None:
        while not self._ended.wait(RENEWED_SECONDS):
            with contextlib.suppress(OSError):  # the next time may succeed, and a minute late is early enough
                try:
                    os.utime(self._lease)
                except FileNotFoundError:
                    # Another process took this one for gone, because it was stopped for minutes.
                    self._write_lease(self._owner)


class Watch:
    """What a process knows of the leases in a folder, and since when.

    Args:
        folder: of claims and leases; need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, tuple[int, float]] = {}
        """By the name of a file, its time of change when it was last seen to change, and when that was, on this
        process's clock."""
        self._verdicts: dict[str, bool] = {}
        self._here = _this_process()

    def look_again(self) -> None:
        """Forget which processes were alive. Until the next call each is looked at once."""
        self._verdicts.clear()

    def is_gone(self, lease: str) -> bool:
        """Whether the process that has this lease is gone."""
        if lease not in self._verdicts:
            self._verdicts[lease] = self._looks_gone(lease)
        return self._verdicts[lease]

    def _looks_gone(self, lease: str) -> bool:
        try:
            owner = _owner(self._folder / lease)
        except FileNotFoundError:
            return True
        except OSError:
            return False  # the server may answer the next time
        if owner is not None:
            if owner.failed is not None:
                return True
            if owner.kernel is not None and (owner.kernel, owner.host) == (self._here.kernel, self._here.host):
                alive = _is_alive(owner)
                if alive is not None:
                    return not alive
        return self._is_stale(self._folder / lease)

    def is_free(self, path: Path) -> bool:
        """Whether nobody has a run by this claim."""
        if (claim := _claim(path)) is not None:
            # Of one that is recorded, whoever removed the record since waits as for a process of another host.
            return self._is_stale(path) if claim.recorded else self.is_gone(claim.lease)
        # One that vanished is on record. One that is empty is being written, or its process was killed just then.
        return path.exists() and self._is_stale(path)

    def living(self, path: Path) -> Owner | None:
        """The process that has a run by this claim, if it lives."""
        claim = _claim(path)
        if claim is None or claim.recorded or self.is_gone(claim.lease):
            return None
        return _owner_if_there(self._folder / claim.lease)

    def _is_stale(self, file: Path) -> bool:
        try:
            # Opening a file makes an NFS client ask the server for its times.
            with file.open("rb") as opened:
                changed = os.fstat(opened.fileno()).st_mtime_ns
        except FileNotFoundError:
            return True
        now = time.monotonic()
        before = self._seen.get(file.name)
        if before is None or before[0] != changed:
            self._seen[file.name] = changed, now
            return False
        return now - before[1] > LEASE_SECONDS


@dataclass(frozen=True)
class Working:
    """A claimed run, for people who ask how far a study is."""

    config: str
    """The id of the run's config."""
    owner: Owner
    """Who has it, or had it when an error ended the process."""


def at_work(results: str | Path) -> list[Working]:
    """The runs that processes have claimed, and those during which an error ended a process.

    What a killed process had is not among them, unless it ran on another host: there a single look cannot tell.
    """
    folder = Path(results) / CLAIMS
    watch = Watch(folder)
    found = []
    for paths in _claims_in(folder).values():
        claim = _claim(paths[-1])
        if claim is None or claim.recorded:
            continue
        owner = _owner_if_there(folder / claim.lease)
        if owner is not None and (owner.failed is not None or not watch.is_gone(claim.lease)):
            found.append(Working(claim.config, owner))
    return found


def _remove(claims: Sequence[Path]) -> None:
    """Remove a run's claims, the highest first, so that no number is missing below another if this is interrupted."""
    for claim in reversed(claims):
        claim.unlink(missing_ok=True)


def _claims_in(folder: Path) -> dict[str, list[Path]]:
    """The claims of every run, by its id, the one that counts last."""
    found: dict[str, list[Path]] = {}
    paths = [path for path in folder.glob("*") if path.suffix[1:].isdecimal()]
    for path in sorted(paths, key=lambda path: int(path.suffix[1:])):
        found.setdefault(path.stem, []).append(path)
    return found


def _claim(path: Path) -> Claim | None:
    """What a claim says; `None` where it is not there or not whole."""
    try:
        return Claim(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _owner(lease: Path) -> Owner | None:
    """The process that a lease names; `None` where it is not whole.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return Owner(**json.loads(lease.read_text()))
    except (ValueError, TypeError):
        return None


def _owner_if_there(lease: Path) -> Owner | None:
    try:
        return _owner(lease)
    except OSError:
        return None


def _next(claim: Path) -> Path:
    return claim.with_suffix(f".{int(claim.suffix[1:]) + 1}")


@functools.cache
def _kernel() -> str | None:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _started(pid: int) -> int | None:
    """When a process started, in ticks since the boot; `None` where it has ended or the system does not show it."""
    try:
        # The name, in parentheses, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _is_alive(owner: Owner) -> bool | None:
    """Whether a process of this host still runs; `None` where the system hides it from this user."""
    if (started := _started(owner.pid)) is not None:
        return started == owner.started
    try:
        os.kill(owner.pid, 0)
    except PermissionError:
        return None
    except ProcessLookupError:
        pass
    return False


def _this_process() -> Owner:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Owner(socket.gethostname(), os.getpid(), _kernel(), _started(os.getpid()), now)
