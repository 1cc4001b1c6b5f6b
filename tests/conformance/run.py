"""Run PEFT's own tests on a tuner, and compare what comes out with what is known.

    python tests/conformance/run.py [--tuner NAME] [PART ...]

The tests are those of the installed peft's source distribution, which is downloaded once into build/conformance. The
exit status is 0 where everything is as `known_failures.toml` says, 1 where something differs, and 3 where there is no
source distribution to be had.
"""

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import time
import tomllib
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "conformance"

PARTS = {
    "custom_models": [],
    "decoder_models": [],
    "encoder_decoder_models": [],
    "feature_extraction_models": [],
    "seq_classifier": [],
    "config": [],
    # These have no rows to replace.
    "mapping": ["--named"],
    "low_level_api": ["--named"],
}
"""PEFT's test modules, without `test_`, and the plugin's options for each."""

NO_SOURCE = 3


class Outcomes:
    """A pytest plugin that notes how each test ended."""

    def __init__(self) -> None:
        self.ended: dict[str, str] = {}
        self.why: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.ended[report.nodeid] = "failed"
            self.why[report.nodeid] = report.longreprtext
        elif report.skipped or report.when == "call":
            self.ended.setdefault(report.nodeid, report.outcome)


def counts(ended: Mapping[str, str]) -> dict[str, int]:
    """How many tests there were, and how many ended in each way."""
    by_outcome = Counter(ended.values())
    return {"collected": len(ended)} | {outcome: by_outcome[outcome] for outcome in ("passed", "failed", "skipped")}


def differences(part: str, ended: Mapping[str, str], known: list[dict[str, Any]], pinned: Any) -> list[str]:
    """What a part's outcomes have that the list does not, and the other way round; nothing if they agree.

    Args:
        part: the name of the part.
        ended: each test's outcome.
        known: the list of known failures: `items`, a regular expression that finds their names, `count`, how many by
            part, and `reason`.
        pinned: the numbers that `counts` must give.
    """
    found = []
    unknown = {name for name, outcome in ended.items() if outcome == "failed"}
    for entry in known:
        matching = [name for name in ended if re.search(entry["items"], name)]
        failed = [name for name in matching if ended[name] == "failed"]
        expected = entry["count"].get(part, 0)
        if len(failed) != expected:
            found.append(f"{entry['items']}: {expected} known failures, but {len(failed)} failed")
        if expected:
            found += [f"known to fail, but passes: {name}" for name in matching if ended[name] == "passed"]
        unknown -= set(failed)
    found += [f"failed, and not known to: {name}" for name in sorted(unknown)]
    if counts(ended) != pinned:
        found.append(f"the numbers are {counts(ended)}, but pinned are {pinned}")
    return found


def unpacked(wanted: str, sha256: str) -> Path:
    """PEFT's source distribution as a folder, downloaded if it is not there yet."""
    archive = BUILD / f"peft-{wanted}.tar.gz"
    if not archive.exists():
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "peft"]
        done = subprocess.run([*download, "--dest", str(BUILD), f"peft=={wanted}"], check=False)
        if done.returncode or not archive.exists():
            print(f"{archive} is not there and cannot be downloaded: PEFT's tests are not run", file=sys.stderr)
            sys.exit(NO_SOURCE)
    if (found := hashlib.sha256(archive.read_bytes()).hexdigest()) != sha256:
        sys.exit(f"{archive} has sha256 {found}, not {sha256}; remove it, or correct known_failures.toml")
    with tarfile.open(archive) as files:
        tests = [file for file in files if file.name.startswith(f"peft-{wanted}/tests/")]
        files.extractall(BUILD, members=tests, filter="data")
    folder = BUILD / f"peft-{wanted}"
    # The tests import each other as a package, which the distribution has left incomplete.
    (folder / "tests" / "__init__.py").touch()
    return folder


def run(part: str, tuner: str, source: Path) -> Outcomes:
    """Run one of PEFT's test modules, in two processes."""
    outcomes = Outcomes()
    # Not the options of PEFT's own configuration, which measures coverage.
    options = ["-c", os.devnull, "--rootdir", str(source), "-p", "conformance.plugin", "-p", "no:cacheprovider"]
    shown = ["--quiet", "--no-header", "--no-summary", "--tb=short"]
    pytest.main(
        [str(source / "tests" / f"test_{part}.py"), *options, *shown, "--numprocesses", "2", "--tuner", tuner]
        + PARTS[part],
        plugins=[outcomes],
    )
    return outcomes


def main() -> int:
    known = tomllib.loads((HERE / "known_failures.toml").read_text())
    parser = argparse.ArgumentParser(description="Run PEFT's own tests on a tuner.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"all, or any of {', '.join(PARTS)}")
    parser.add_argument("--tuner", choices=sorted(known["counts"]), default="cp", help="lora is the control")
    asked = parser.parse_args()
    parts = list(PARTS) if asked.parts == ["all"] else asked.parts or ["custom_models"]
    if strangers := [part for part in parts if part not in PARTS]:
        parser.error(f"unknown parts: {', '.join(strangers)}")
    if (installed := version("peft")) != known["peft"]:
        sys.exit(f"the known failures are those of peft {known['peft']}, but {installed} is installed")

    BUILD.mkdir(parents=True, exist_ok=True)
    source = unpacked(known["peft"], known["sha256"])
    # Before torch is imported, here and in the processes of the tests.
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    sys.path[:0] = [str(ROOT), str(HERE.parent)]
    from conformance import models

    models.make(BUILD / "models")
    # Where a model's name is a folder's, no hub is asked.
    os.chdir(BUILD / "models")
    wrong = False
    summary = []
    for part in parts:
        start = time.monotonic()
        outcomes = run(part, asked.tuner, source)
        found = differences(
            part, outcomes.ended, known.get("known", {}).get(asked.tuner, []), known["counts"][asked.tuner].get(part)
        )
        numbers = ", ".join(f"{number} {what}" for what, number in counts(outcomes.ended).items())
        summary.append(f"{part}: {numbers} ({time.monotonic() - start:.0f} s)")
        for line in found:
            summary.append(f"  {line}")
            if line.startswith("failed, and not known to"):
                summary.append(outcomes.why[line.partition(": ")[2]])
        wrong |= bool(found)
    print(f"\npeft {installed}, tuner {asked.tuner}", *summary, sep="\n")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
