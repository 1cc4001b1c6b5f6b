"""What the scripts here share: options, timing, what a time amounts to, and how results are written.

A result is a JSON file of times with the machine, the versions and the commit beside them. It holds no ratios of
one thing to another: a reader computes them from times of the same file.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from cpadapt.measure import provenance
from cpadapt.records.config import Protocol
from cpadapt.records.store import write_atomically

RESULTS = Path(__file__).resolve().parents[1] / "results" / "bench"
"""Where results go unless a script is told otherwise."""

# What the scripts are asked for alike.
BackboneName = Annotated[str, typer.Option(help="Name, or a known one's shape, as opt-1.3b-shape.")]
DataFolder = Annotated[Path | None, typer.Option(envvar="CPADAPT_DATA_DIR", help="Folder of the tasks.")]
ResultsFolder = Annotated[Path, typer.Option(help="Folder for the results.")]

PACKAGES = ("accelerate", "tokenizers", "triton")
"""Recorded where they are installed, besides those of every record (`cpadapt.measure.PACKAGES`)."""


@dataclass(frozen=True)
class Timed:
    """Several measurements of one thing."""

    median: float
    min: float
    max: float
    repeats: int
    unit: str = "s"

    @classmethod
    def of(cls, values: Sequence[float], unit: str = "s") -> "Timed":
        """Sum up a list of measurements, seconds unless said otherwise."""
        return cls(statistics.median(values), min(values), max(values), len(values), unit)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_calls(
    work: Callable[[], object], device: torch.device, *, repeats: int, calls: int = 1, warmup: int = 1
) -> Timed:
    """Seconds of one call.

    Args:
        work: what is timed.
        device: where it does its work.
        repeats: how many measurements.
        calls: calls to a measurement; the host waits for the device only after the last of them, as in real use.
        warmup: calls before the first measurement.
    """
    for _ in range(warmup):
        work()
    seconds = []
    for _ in range(repeats):
        synchronize(device)
        started = time.perf_counter()
        for _ in range(calls):
            work()
        synchronize(device)
        seconds.append((time.perf_counter() - started) / calls)
    return Timed.of(seconds)


def run_seconds(step: float, dev: float, final: float, protocol: Protocol, *, startup: float = 0.0) -> float:
    """Seconds of the device that one whole run takes under a protocol.

    Args:
        step: seconds of one training step of one run; of many runs at once, its share.
        dev: seconds of one evaluation of one run on dev, likewise.
        final: seconds of one run's evaluation at the end, likewise.
        protocol: says how many steps and evaluations there are.
        startup: seconds before the first step, likewise.
    """
    return startup + protocol.steps * step + protocol.steps // protocol.eval_every * dev + final


def runs_per_hour(step: float, dev: float, final: float, protocol: Protocol, *, startup: float = 0.0) -> float:
    """How many whole runs one device does in an hour; the arguments are those of `run_seconds`."""
    return 3600 / run_seconds(step, dev, final, protocol, startup=startup)


def device(where: torch.device) -> dict[str, Any]:
    """What kind of machine this is."""
    # Those that this process may use; not every system tells.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cpu = {"cpu": _cpu_model(), "cores": cores, "torch_threads": torch.get_num_threads()}
    if where.type != "cuda":
        return {"kind": "cpu"} | cpu
    properties = torch.cuda.get_device_properties(where)
    return {
        "kind": "cuda",
        "gpu": properties.name,
        "gpus_visible": torch.cuda.device_count(),
        "gpu_memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
    } | cpu


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def versions(where: torch.device) -> dict[str, Any]:
    """The versions of everything that a time depends on, and the commit."""
    known = provenance(where)
    packages = dict(known.packages)
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            packages[name] = importlib.metadata.version(name)
    return {
        "cpadapt": known.cpadapt,
        "python": known.python,
        "packages": packages,
        "cuda": torch.version.cuda,
        "git_commit": known.git_commit,
        "git_clean": known.git_clean,
    }


@dataclass
class Report:
    """Rows of results, written anew each time one comes, so that nothing measured is lost when a later phase fails."""

    path: Path
    question: str
    where: torch.device
    settings: Mapping[str, Any]
    """What the script was asked to do."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    failed: bool = False

    def add(self, what: str, **values: Any) -> None:
        """Note one thing that was measured; dataclasses become objects of JSON."""
        row = {"what": what} | {name: _plain(value) for name, value in values.items()}
        self.rows.append(row)
        say(json.dumps(row, sort_keys=True))
        self.write()

    @contextlib.contextmanager
    def phase(self, what: str) -> Iterator[None]:
        """Go on after an error in here: it becomes a row of its own, and `failed` is set."""
        say(f"{what} …")
        started = time.perf_counter()
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.failed = True
            self.add(what, error=f"{type(error).__name__}: {error}")
        say(f"{what}: {time.perf_counter() - started:.0f} s")

    def write(self) -> None:
        """Put the file in place."""
        content = {
            "question": self.question,
            "date": provenance(self.where).finished,
            "device": device(self.where),
            "versions": versions(self.where),
            "settings": dict(self.settings),
            "rows": self.rows,
        }
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        write_atomically(self.path, text.encode() + b"\n")


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


_began = time.perf_counter()


def say(text: str) -> None:
    """Print a line of progress at once, with the seconds since the start."""
    print(f"[{time.perf_counter() - _began:6.1f} s] {text}", flush=True)
