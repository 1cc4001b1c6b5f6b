"""A folder in which Snakemake runs the project's workflow, and what it says that it would do."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from processes import environment

ROOT = Path(__file__).parents[1]

ONE_THREAD = ("--set-threads", "measure=1")
"""As the tests themselves measure."""


class Project:
    """The workflow in a folder of its own, with the project's notebooks.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("notebooks", "workflow"):
            (folder / name).symlink_to(ROOT / name)
        (folder / "studies").mkdir()
        (folder / "studies" / "small.toml").symlink_to(ROOT / "studies" / "small.toml")
        here = str(Path(sys.executable).parent)
        self.environment = environment(
            PATH=f"{here}{os.pathsep}{os.environ['PATH']}",
            # Threads that wait do not spin, as the machine may have other work.
            OMP_WAIT_POLICY="PASSIVE",
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Snakemake at work; both its outputs are in one."""
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", *arguments],
            cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def run(self, *arguments: str) -> str:
        """What Snakemake says, which must end well."""
        process = self.start(*arguments)
        said = process.communicate()[0]
        assert process.returncode == 0, said
        return said

    def jobs(self, *arguments: str, profile: str = "local") -> Counter[str]:
        """The jobs that a dry run lists, by rule; those of `measure` by task and shard too."""
        said = self.run(*arguments, "--dry-run", "--profile", f"workflow/profiles/{profile}")
        found: Counter[str] = Counter()
        for block in re.split(r"^\[.*\]$", said.partition("Reasons:")[0], flags=re.M):
            if rule := re.search(r"^(?:local)?rule (\w+):", block, re.M):
                wildcards = re.search(r"wildcards: task=(.+), shard=(\d+)$", block, re.M)
                found[f"{rule[1]} {wildcards[1]} {wildcards[2]}" if wildcards else rule[1]] += 1
        return found
