"""A study on Slurm itself: a controller and a node on this machine, jobs of Snakemake's, and one is killed.

Needs Debian's packages munge and slurm-wlm, and root or `sudo`. Elsewhere it is skipped; with `CPADAPT_SLURM=required`
in the environment, as `make cluster` has it in `.ci/run`, it fails.
"""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from in_snakemake import ONE_THREAD, Project

from cpadapt import load_study, train
from cpadapt.bank.trainer import runs_of_checkpoint
from cpadapt.measure import CHECKPOINTS
from cpadapt.records.record import Record
from cpadapt.records.store import load_records, record_files

CONFIGURATION = Path("/etc/slurm/slurm.conf")
"""Where a job's own commands look for it, whatever the environment says."""

SLURM = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MinJobAge=3600
KillWait=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 Gres=gpu:2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
"""
GPUS = "Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n"
"""What Slurm counts as the node's two GPUs; it asks for files and does not open them."""

STUDY = """
name = "nano"
backbone = "tiny"
tasks = ["toy-sentiment", "toy-reading"]
ladder = { head = true, sizes = { cp = [1], lora = [1] } }
seeds = [0, 1]
families = { cp = { learning_rates = [4e-3] }, lora = { learning_rates = [2e-3] } }
protocol = { steps = 200, eval_every = 10, batch_size = 4, train_cap = 20, dev_cap = 10, eval_cap = 12 }
"""
WAITED = 90.0
"""The most seconds that anything here is waited for."""


def until(happened: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    """Wait until something happens while a process works."""
    end = time.monotonic() + WAITED
    while not happened():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.2)


def jobs(task: str, state: str) -> list[str]:
    """The numbers of a task's jobs in a state, as Slurm knows them."""
    command = ["squeue", "--noheader", "--format=%i %k", f"--states={state}"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line.split()[0] for line in listed.splitlines() if f"_{task}_" in line]


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[None]:
    """Munge, slurmctld and slurmd on the loopback interface."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    programs = {name: shutil.which(name, path=path) for name in ("munged", "slurmctld", "slurmd", "sbatch")}
    missing = [name for name, found in programs.items() if found is None]
    if find_spec("snakemake") is None:
        missing.append("snakemake")
    as_root = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    if not missing and CONFIGURATION.exists():
        missing = [f"a machine without a {CONFIGURATION} of its own"]
    if not missing and as_root and subprocess.run([*as_root, "true"], capture_output=True, check=False).returncode:
        missing = ["root"]
    if missing:
        reason = f"Slurm cannot be started: {', '.join(missing)} is missing"
        if os.environ.get("CPADAPT_SLURM") == "required":
            pytest.fail(reason)
        pytest.skip(reason)

    def call(*command: str, given: str | None = None) -> None:
        subprocess.run([*as_root, *command], input=given, capture_output=True, text=True, check=True)

    with ExitStack() as stack:

        def start(name: str, *options: str) -> None:
            with (tmp_path / f"{name}.log").open("w") as log:
                process = subprocess.Popen([*as_root, *options], stdout=log, stderr=subprocess.STDOUT)
            stack.callback(process.wait)
            stack.callback(process.terminate)

        if not Path("/run/munge/munge.socket.2").exists():
            call("install", "-d", "-o", "munge", "-g", "munge", "/run/munge")
            start("munged", "runuser", "-u", "munge", "--", str(programs["munged"]), "--foreground")
        host = socket.gethostname().partition(".")[0]
        for folder in ("state", "spool"):
            call("install", "-d", str(tmp_path / folder))
        for file, content in {CONFIGURATION: SLURM, CONFIGURATION.with_name("gres.conf"): GPUS}.items():
            stack.callback(call, "rm", "-f", str(file))
            call(
                "install", "-D", "-m", "644", "/dev/stdin", str(file), given=content.format(host=host, folder=tmp_path)
            )
        start("slurmctld", str(programs["slurmctld"]), "-D")
        start("slurmd", str(programs["slurmd"]), "-D")
        ready = ["sinfo", "--noheader", "--format=%t"]
        end = time.monotonic() + WAITED
        while subprocess.run(ready, capture_output=True, text=True, check=False).stdout.split() != ["idle"]:
            logs = "\n".join(file.read_text() for file in tmp_path.glob("*.log"))
            assert time.monotonic() < end, f"no node is ready: {logs}"
            time.sleep(0.1)
        stack.callback(call, "scancel", f"--user={getpass.getuser()}")
        yield


def timeless(record: Record) -> Record:
    """A record without what tells when and how fast it was made."""
    cost = replace(record.cost, train_seconds=0.0, evaluation_seconds=0.0, peak_memory_bytes=0, resumed=0)
    return replace(record, cost=cost, provenance=replace(record.provenance, finished=""))


@pytest.mark.slurm
@pytest.mark.usefixtures("slurm")
def test_a_killed_job_is_submitted_again_and_the_records_are_the_local_ones(project: Project) -> None:
    study, results = project.folder / "nano.toml", project.folder / "records"
    study.write_text(STUDY)
    local = {record.id: timeless(record) for record in train(load_study(study))}
    killed = {run_id for run_id, record in local.items() if record.config.task == "toy-sentiment"}
    snakemake = project.start(
        "study", "--config", "study=nano.toml", "results=records", "--profile", "workflow/profiles/slurm",
        *ONE_THREAD, "--set-resources", "measure:mem_mb=1000", "measure:runtime=10",
        # A cluster without accounting knows of jobs by squeue alone.
        "--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "1",
        "--seconds-between-status-checks", "2", "--latency-wait", "5",
    )  # fmt: skip
    states = results / CHECKPOINTS
    until(lambda: any(killed.issubset(runs_of_checkpoint(s)) for s in states.glob("*.safetensors")), snakemake)
    (job,) = jobs("toy-sentiment", "RUNNING")
    subprocess.run(["scancel", job], check=True)
    said = snakemake.communicate()[0]
    assert snakemake.returncode == 0, said
    assert len(jobs("toy-sentiment", "all")) == 2, "it was submitted again"
    assert len(jobs("toy-reading", "all")) == 1
    (file, *others) = record_files(results)
    assert len(others) == 1, "one a job that came to its end"
    records = [record for found in (file, *others) for record in load_records(found)]
    assert len(records) == 12
    assert {(record.config.task, record.cost.resumed) for record in records} == {
        ("toy-sentiment", 1), ("toy-reading", 0)
    }  # fmt: skip
    assert {record.id: timeless(record) for record in records} == local
    assert sorted(results.iterdir()) == [file, *others], "no claims, no checkpoints, no drafts"
