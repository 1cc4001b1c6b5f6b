"""From a study's runs to their records: runs without a record are trained, bank by bank."""

import contextlib
import errno
import functools
import hashlib
import importlib.metadata
import math
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch

from cpadapt.bank import determinism
from cpadapt.bank.bank import require_drawable, require_packable, verbalizer
from cpadapt.bank.peft_run import to_peft
from cpadapt.bank.teacher import taught
from cpadapt.bank.trainer import Result, Trainer, pools_of, runs_of_checkpoint
from cpadapt.display import Display, Terminal
from cpadapt.errors import InputError
from cpadapt.families import counting
from cpadapt.families.peft_tuners import TUNERS
from cpadapt.families.planted import Teacher
from cpadapt.inputs.backbones.loading import Backbone, load_backbone
from cpadapt.inputs.backbones.projections import load_projections
from cpadapt.inputs.backbones.sources import weights_at_hand
from cpadapt.inputs.backbones.specs import BACKBONES
from cpadapt.inputs.tasks.examples import TaskData, load_task
from cpadapt.progress import known_records, weights_of
from cpadapt.records.claims import Claims, Owner
from cpadapt.records.config import HEAD, Protocol, RunConfig
from cpadapt.records.record import SCHEMA, Counts, Provenance, Record
from cpadapt.records.store import RecordFile, compressed
from cpadapt.study import Run, Shard, Study, banks_of
from cpadapt.tuner import save_adapter
from cpadapt.tuner.export import write_adapter
from cpadapt.versions import require_versions

CHECKPOINTS = ".checkpoints"
"""The folder of unfinished banks, within the folder of records."""

BANK_TOKENS = 16_384
"""Tokens that a bank trains on in a step, on average; larger banks make a run no cheaper."""

BANK_SECONDS = 18 * 60
"""The most seconds that a bank may train on a GPU. Records are written at its end; if the machine is lost before, only
the bank's checkpoint is left."""

GPU_FLOPS = 3e14
"""Floating-point operations per second of an H100 or H200 in half precision, for estimates of a bank's time."""


def _most_tokens(backbone: Backbone, protocol: Protocol) -> float:
    """The most tokens that a bank may train on in a step, so that memory and time suffice."""
    if backbone.model.device.type != "cuda":
        return BANK_TOKENS
    embedding = backbone.model.get_input_embeddings().weight.numel()
    # Two operations per weight in the forward pass and two in the backward pass, which computes no weight gradients.
    seconds_a_token = 4 * (backbone.model.num_parameters() - embedding) / GPU_FLOPS
    return min(float(BANK_TOKENS), BANK_SECONDS / (protocol.steps * float(seconds_a_token)))


def train(
    study: Study,
    *,
    task: str | None = None,
    budget: int | None = None,
    shard: Shard | None = None,
    data_dir: str | Path | None = None,
    results: str | Path | None = None,
    save: str | Path | None = None,
    force: bool = False,
    device: str | None = None,
    deterministic: bool = False,
    quiet: bool = False,
) -> list[Record]:
    """Measure a study's runs, or continue measuring them.

    Every mistake in the input is found before training starts. A run whose record is in `results` is not trained
    again. The runs of a task train in banks of whole draws or seeds (see `cpadapt.study.banks_of`), those of PEFT's
    tuners (`cpadapt.families.peft_tuners`) one by one. A bank's state is kept under `results/.checkpoints`, so
    training continues from there after the process was killed or got SIGTERM. A bank's records are written when the
    bank is done.

    Several processes may measure into one folder at once. Each claims a bank before it trains it, so that no run is
    trained twice (see `cpadapt.records.claims`). One that finds all that is left claimed waits, and trains what a
    process had that is killed, so that in the end every run asked for has a record.

    Args:
        study: what to measure.
        task: only this one of its tasks.
        budget: only the cells at this budget (trainable scalars over all target modules).
        shard: only this part of each task's runs, for several processes side by side.
        data_dir: folder with the tasks' data, instead of the hub.
        results: folder of records. `None` keeps nothing on disk.
        save: folder for each run's best weights, by run id: a PEFT adapter and the head, if the run has them. A run
            with a record but without weights there is trained again.
        force: retrain runs that already have a record.
        device: as torch names it; by default the first GPU, or the CPU.
        deterministic: give the same numbers each time the same banks train on the same kind of GPU with the same
            packages (`cpadapt.bank.determinism`). On the CPU they are the same anyway.
        quiet: show no progress bar. There is none anyway if the output is not a terminal.

    Returns:
        The records of all runs asked for, including those measured before, in the study's order.

    Raises:
        InputError: something asked for is wrong or missing.
        OSError: a file cannot be written; it is named.
    """
    return measure(
        study,
        task=task,
        budget=budget,
        shard=shard,
        data_dir=data_dir,
        results=results,
        save=save,
        anew=known_records(results) if force else None,
        device=device,
        deterministic=deterministic,
        display=Terminal(quiet),
    ).records


@dataclass(frozen=True)
class Measured:
    """What a call of `measure` came to."""

    records: list[Record]
    """Of all runs asked for, in the study's order."""
    trained: int
    """How many of them this process trained."""


def measure(
    study: Study,
    *,
    task: str | None = None,
    budget: int | None = None,
    shard: Shard | None = None,
    data_dir: str | Path | None = None,
    results: str | Path | None = None,
    save: str | Path | None = None,
    anew: Mapping[str, Record] | None = None,
    device: str | None = None,
    deterministic: bool = False,
    processes: int = 1,
    display: Display,
) -> Measured:
    """As `train`, for callers that show progress their own way or share the work.

    Args:
        study: as for `train`, like those that are not listed here.
        anew: records, by run id, of runs that are trained all the same. `None` resumes, where these start anew.
        processes: into how many banks at least a task's runs are cut, so that so many processes find work.
        display: where progress is shown.

    Raises:
        InputError: something asked for is wrong or missing.
        OSError: a file cannot be written; it is named.
    """
    require_versions()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    projections = load_projections(study.backbone, study.target_modules)
    runs = study.runs(projections, task=task, budget=budget)
    require_drawable([run.config for run in runs], projections)
    data = _load_data(study, runs, data_dir)
    known = known_records(results)
    backbone: Backbone | None = None
    source = weights_of(known.values(), study, results, weights_at_hand(study.backbone))
    asked = _by_task(runs, shard or Shard())
    trained: dict[str, Record] = {}
    # Before the backbone is loaded, which starts CUDA.
    with determinism.deterministic(device) if deterministic else contextlib.nullcontext():
        if source is None:
            backbone = _load(study, device, (results, save))
            source = backbone.source
        plan = _Plan(asked, data, source.identity, save, anew)
        plan.note(known)
        if plan.unfinished:
            backbone = backbone or _load(study, device, (results, save))
            weights_of(known.values(), study, results, backbone.source)
            plan.weights = backbone.source.identity
            measurement = _Measurement(study, plan, backbone, results=results, processes=processes, display=display)
            trained = measurement.train()
        elif results is not None:
            # What is left over by a process that was killed when it had recorded the last run.
            _tidy(results, Claims(results), plan.done)
    records = known_records(results) | trained
    ids = {plan.id_of(run.config) for part in asked.values() for run in part}
    return Measured(
        [records[run_id] for run_id in (plan.id_of(run.config) for run in runs) if run_id in ids], len(trained)
    )


@dataclass
class _Plan:
    """Which runs are asked for, on which data and weights, and which of them are done."""

    asked: Mapping[str, Sequence[Run]]
    """By task."""
    data: Mapping[str, Mapping[int, TaskData]]
    """By task and data seed."""
    weights: str
    """The identity of the backbone's weights."""
    save: str | Path | None
    """Where a run's weights must be for it to be done, if anywhere."""
    anew: Mapping[str, Record] | None
    """Records of runs that are trained all the same, by id."""
    done: set[str] = field(default_factory=set)
    """Ids of runs that need no training."""

    def note(self, records: Mapping[str, Record]) -> None:
        """Count what is on record as done."""
        for run_id, record in records.items():
            saved = self.save is None or (Path(self.save) / run_id).is_dir()
            if saved and (self.anew is None or self.anew.get(run_id) != record):
                self.done.add(run_id)

    def id_of(self, config: RunConfig) -> str:
        """The run's id on these data and weights."""
        return config.run_id(self.data[config.task][config.data_seed].fingerprint, self.weights)

    def left(self, runs: Iterable[Run]) -> dict[str, Run]:
        """The runs that still have to be trained, by id."""
        return {run_id: run for run in runs if (run_id := self.id_of(run.config)) not in self.done}

    @property
    def unfinished(self) -> list[str]:
        """The tasks with runs to train."""
        return [task for task, runs in self.asked.items() if self.left(runs)]


WAIT_SECONDS = 2.0
"""Time between two looks at what other processes have left to train."""


class _Bank(NamedTuple):
    task: str
    runs: list[Run]
    title: str


class _Measurement:
    """Trains the unfinished runs of a plan, bank by bank, beside other processes that do the same.

    Raises:
        InputError: a text is too long, the backbone cannot be packed, or its readout or a package's version is
            missing. It is raised before any training.
    """

    def __init__(
        self,
        study: Study,
        plan: _Plan,
        backbone: Backbone,
        *,
        results: str | Path | None,
        processes: int,
        display: Display,
    ) -> None:
        self._study, self._plan, self._backbone = study, plan, backbone
        self._results, self._processes, self._display = results, processes, display
        require_packable(backbone)
        self._made_on = provenance(backbone.model.device)
        tasks = plan.unfinished
        # All texts are tokenized first, so that one that is too long for the last bank stops everything at once.
        self._pools = {task: pools_of(plan.data[task], backbone, study.protocol) for task in tasks}
        if study.protocol.readout == "verbalizer":
            specs = study.specs()
            for task in tasks:
                verbalizer(backbone, specs[task])
        self._banks = [bank for task in tasks for bank in self._banks_of(task)]
        self._file = RecordFile(results) if results is not None else None
        self._claims = Claims(results) if results is not None else None
        self._waited_for: set[Owner] = set()

    def train(self) -> dict[str, Record]:
        """Train the unfinished runs that no other process trains, and wait until those are done too.

        Returns:
            The records of the runs trained here, by id; each bank's are on disk before the next bank starts.
        """
        trained: dict[str, Record] = {}
        with self._claims or contextlib.nullcontext():
            while any(self._plan.left(bank.runs) for bank in self._banks):
                # Banks that nobody has begun come first, then what is left over of those that others have.
                if not (self._train_free(trained, whole=True) or self._train_free(trained, whole=False)):
                    self._wait()
            if self._file is not None:
                self._file.finish()
        if self._results is not None and self._claims is not None:
            _tidy(self._results, self._claims, self._plan.done)
        return trained

    def _train_free(self, trained: dict[str, Record], *, whole: bool) -> bool:
        """Train what is free of every bank; see `Claims.take` for `whole`. Returns whether anything was."""
        found = False
        for bank in self._banks:
            if not (free := self._free(bank.runs, whole)):
                continue
            found = True
            # Another process may have finished one just before it was claimed here.
            self._note_others()
            if left := {run_id: run for run_id, run in free.items() if run_id not in self._plan.done}:
                trained |= self._train_bank(bank.task, left, bank.title)
            if self._claims is not None:
                self._claims.settle(self._plan.done.intersection(free))
        return found

    def _free(self, runs: Iterable[Run], whole: bool) -> dict[str, Run]:
        """The runs that are left and this process's to train, by id."""
        left = self._plan.left(runs)
        if self._claims is None:
            return left
        taken = self._claims.take({run_id: run.config.config_id for run_id, run in left.items()}, whole=whole)
        return {run_id: left[run_id] for run_id in taken}

    def _note_others(self) -> None:
        """Count as done what other processes have recorded by now."""
        if self._results is not None:
            # An NFS client lists a folder anew if it has changed it itself.
            os.utime(self._results)
            self._plan.note(known_records(self._results))

    def _wait(self) -> None:
        """Let some time pass, and look again."""
        left = [run_id for bank in self._banks for run_id in self._plan.left(bank.runs)]
        others = {} if self._claims is None else self._claims.others(left)
        if others.keys() - self._waited_for:
            self._waited_for = set(others)
            counts = ", ".join(f"{count} by {owner}" for owner, count in others.items())
            self._display.say(f"{self._study.name}: waiting for runs that are being trained: {counts}")
        time.sleep(WAIT_SECONDS)
        self._note_others()

    def _banks_of(self, task: str) -> list[_Bank]:
        """Divide all runs of a task, done or not, into banks, so that a bank does not depend on what is done.

        A run of one of PEFT's tuners is alone.
        """
        asked = self._plan.asked[task]
        tokens = self._study.protocol.batch_size * float(np.diff(self._pools[task]["train"].offsets).mean())
        most = _most_tokens(self._backbone, self._study.protocol)
        if self._processes > 1:
            most = min(most, (math.ceil(len(asked) / self._processes) + 0.5) * tokens)
        by_teacher: dict[Teacher | None, list[Run]] = {}
        alone = []
        for run in asked:
            if run.config.family in TUNERS:
                alone.append([run])
            else:
                by_teacher.setdefault(run.config.teacher, []).append(run)
        banks = [bank for runs in by_teacher.values() for bank in banks_of(runs, tokens, most)] + alone
        part = ", bank {} of {}" if len(banks) > 1 else ""
        return [
            _Bank(task, bank, f"{self._study.name} {task}{part.format(number, len(banks))}")
            for number, bank in enumerate(banks, start=1)
        ]

    def _train_bank(self, task: str, runs: Mapping[str, Run], title: str) -> dict[str, Record]:
        """Train and record runs, given by id. The trainer is freed on return, as the next bank needs its memory."""
        configs, pools = [run.config for run in runs.values()], self._pools[task]
        if (teacher := configs[0].teacher) is not None:
            pools = taught(
                pools,
                teacher,
                {config.data_seed for config in configs},
                backbone=self._backbone,
                spec=self._study.specs()[task],
                protocol=self._study.protocol,
            )
        trainer = None
        with contextlib.suppress(torch.OutOfMemoryError):
            trainer = Trainer(
                self._backbone,
                configs,
                self._plan.data[task],
                pools=pools,
                checkpoint=_checkpoint(self._results, runs, self._plan.anew is not None),
            )
        if trainer is None:
            return self._train_halves(task, runs, title)
        count = len(trainer.runs)
        with self._display.bank(f"{title}, {count} run{'s' * (count > 1)}", trainer.protocol.steps) as progress:
            trainer.progress = progress
            outcomes = trainer.train()
        held = set(runs) if self._claims is None else self._claims.held(runs)
        records = {}
        for result in outcomes:
            run_id = self._plan.id_of(result.config)
            # A process that was stopped for minutes may have lost a run to another, which records it.
            if run_id in held:
                records[run_id] = self._record(run_id, runs[run_id].label, result)
                if self._plan.save is not None:
                    _save(Path(self._plan.save) / run_id, result, self._backbone)
        if self._file is not None:
            self._file.add(records.values())
        self._plan.done |= records.keys()
        trainer.forget()
        return records

    def _train_halves(self, task: str, runs: Mapping[str, Run], title: str) -> dict[str, Record]:
        """Train a bank whose state does not fit the device's memory as two."""
        device = self._backbone.model.device
        if len(runs) == 1:
            raise InputError(f"a single run of {title} does not fit the memory of {device}")
        if device.type == "cuda":
            torch.cuda.empty_cache()
        items, half = list(runs.items()), len(runs) // 2
        return self._train_bank(task, dict(items[:half]), title) | self._train_bank(task, dict(items[half:]), title)

    def _record(self, run_id: str, label: str, result: Result) -> Record:
        config, projections = result.config, self._backbone.projections
        drawn = self._plan.data[config.task][config.data_seed]
        parameters = step = 0
        if config.family != HEAD:
            parameters = counting.count(config.family, projections, config.size, config.shape_options)
            step = counting.step(config.family, projections, config.shape_options, config.size) or 0
        return Record(
            schema=SCHEMA,
            id=run_id,
            config_id=config.config_id,
            study=self._study.name,
            label=label,
            config=config,
            protocol_sources=config.protocol.sources(),
            weights=self._backbone.source,
            data_fingerprint=drawn.fingerprint,
            data=drawn.summary,
            counts=Counts(
                adapter=parameters,
                step=step,
                head=sum(tensor.numel() for tensor in result.head.values()),
                adam_bytes=counting.ADAM_BYTES_PER_SCALAR * parameters,
            ),
            evaluations=tuple(result.evaluations),
            best_step=result.best_step,
            outcome=result.outcome,
            rest=result.rest,
            dev=result.dev,
            diverged_at=result.diverged_at,
            cost=result.cost,
            provenance=replace(self._made_on, finished=datetime.now(UTC).isoformat(timespec="seconds")),
        )


def _by_task(runs: Sequence[Run], shard: Shard) -> dict[str, list[Run]]:
    """The shard's part of each task's runs."""
    tasks = dict.fromkeys(run.config.task for run in runs)
    return {task: shard.of([run for run in runs if run.config.task == task]) for task in tasks}


def _load_data(study: Study, runs: Iterable[Run], data_dir: str | Path | None) -> dict[str, dict[int, TaskData]]:
    """The examples that the runs need, by task and data seed."""
    specs, caps = study.specs(), study.protocol.caps
    return {
        task: {seed: load_task(specs[task], data_dir=data_dir, caps=caps, data_seed=seed) for seed in study.drawn}
        for task in dict.fromkeys(run.config.task for run in runs)
    }


def _load(study: Study, device: str, folders: Iterable[str | Path | None]) -> Backbone:
    """Check the device and the folders to write to, then load the study's backbone."""
    _require_device(device)
    for folder in folders:
        if folder is not None:
            _require_folder(Path(folder))
    try:
        return load_backbone(
            study.backbone, dtype=study.protocol.dtype, device=device, target_modules=study.target_modules
        )
    except torch.OutOfMemoryError:
        raise InputError(f"backbone {study.backbone!r} does not fit the memory of {device}") from None


def _require_device(device: str) -> None:
    try:
        torch.zeros(1, device=device).cpu()
    # torch raises several classes of errors: for an unknown kind, one that it was built without, a number too high.
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"device {device!r} cannot be used: {reason}; use 'cpu', or leave the device out") from None


def _require_folder(folder: Path) -> None:
    """Check that a folder can be written to or created, without creating it."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"{folder} cannot be a folder: {there} is a file")
    try:
        # It never has a name. Modes do not tell: root passes them all, and a server may refuse what they allow.
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise InputError(f"{folder} cannot be written to: {there}: {error.strerror}") from None


def _tidy(results: str | Path, claims: Claims, done: set[str]) -> None:
    """Remove what processes that were killed have left of runs that are done, if no process is at work."""
    records, checkpoints = Path(results), Path(results) / CHECKPOINTS
    with contextlib.suppress(OSError):  # on a disk that is read-only it stays
        if not claims.tidy(done):
            return
        for draft in (*records.glob(".*.draft"), *checkpoints.glob(".*.draft")):
            draft.unlink(missing_ok=True)
        for file in records.glob("*.jsonl"):
            if compressed(file).exists():
                file.unlink(missing_ok=True)
        for checkpoint in checkpoints.glob("*.safetensors"):
            # Whoever asks for the runs of one that is not whole is told; another process may have removed it.
            with contextlib.suppress(InputError, FileNotFoundError):
                if done.issuperset(runs_of_checkpoint(checkpoint)):
                    checkpoint.unlink(missing_ok=True)
        checkpoints.rmdir()  # which fails where other banks' checkpoints are


def _checkpoint(results: str | Path | None, ids: Iterable[str], force: bool) -> Path | None:
    if results is None:
        return None
    name = hashlib.sha256(" ".join(sorted(ids)).encode()).hexdigest()[:16]
    path = Path(results) / CHECKPOINTS / f"{name}.safetensors"
    if force:
        path.unlink(missing_ok=True)
    return path


def _save(out: Path, result: Result, backbone: Backbone) -> None:
    """Write a run's best weights: the adapter in PEFT's format and `head.safetensors`, if the run has a head.

    Raises:
        OSError: they cannot be written; the folder is named, and the bytes that were to be written.
    """
    try:
        _write_weights(out, result, backbone)
    except (OSError, safetensors.SafetensorError) as error:
        tensors = [*result.head.values(), *(tensor for kind in result.adapter.values() for tensor in kind.values())]
        size = sum(tensor.nbytes for tensor in tensors)
        number, said = (error.errno, error.strerror) if isinstance(error, OSError) else (errno.EIO, str(error))
        raise OSError(number, f"{said}; {size:,} bytes of weights were to be written", str(out)) from error


def _write_weights(out: Path, result: Result, backbone: Backbone) -> None:
    config = result.config
    spec = BACKBONES.get(backbone.name)
    # Left by a run that was killed before its record was written, or that is retrained.
    shutil.rmtree(out, ignore_errors=True)
    name = spec.hub if spec is not None and spec.hub is not None else backbone.name
    if config.family in TUNERS:
        tuner, state = to_peft(backbone, config, result.adapter)
        tuner.base_model_name_or_path = name
        write_adapter(out, tuner, state)
    elif config.family != HEAD and config.scale is not None:
        options = config.shape_options
        save_adapter(out, config.family, config.scale, result.adapter, shape_options=options, base_model_name=name)
    out.mkdir(parents=True, exist_ok=True)
    if result.head:
        head = {name: tensor.cpu() for name, tensor in result.head.items()}
        safetensors.torch.save_file(head, out / "head.safetensors")


PACKAGES = ("torch", "transformers", "peft", "datasets", "numpy")

COMMIT_VARIABLE = "CPADAPT_COMMIT"
"""Environment variable that names the commit if the source was copied without its git folder, as printed by
`git describe --always --dirty --abbrev=40`, with `-dirty` at the end if the tree differed from the commit."""


@functools.cache
def _source_state() -> tuple[str | None, bool | None]:
    """The commit of cpadapt's checkout and whether its files match it; `None` where unknown."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(checkout), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    checkout = Path(__file__).resolve().parent.parent
    try:
        if Path(git("rev-parse", "--show-toplevel")) == checkout:
            changed = git("status", "--porcelain", "--untracked-files=no")
            # A task's file is found by its path, so a file that git does not track counts too.
            unknown = git("status", "--porcelain", "--untracked-files=all", "--", "cpadapt")
            return git("rev-parse", "HEAD"), changed == unknown == ""
    except (OSError, subprocess.CalledProcessError):  # no git on this machine, or not a checkout
        pass
    stated = os.environ.get(COMMIT_VARIABLE)
    return (None, None) if stated is None else (stated.removesuffix("-dirty"), not stated.endswith("-dirty"))


def provenance(device: torch.device) -> Provenance:
    """Versions, commit and device for the record of a run that finishes now.

    Raises:
        InputError: a package's metadata is not installed, so its version is unknown.
    """
    commit, clean = _source_state()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device) + ", deterministic" * torch.are_deterministic_algorithms_enabled()
    else:
        name = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    try:
        own, packages = importlib.metadata.version("cpadapt"), {n: importlib.metadata.version(n) for n in PACKAGES}
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(
            f"the version of {error.name} is unknown, and every record needs it: install it with pip"
            " (cpadapt itself with `pip install --no-deps --editable .` in its folder)"
        ) from None
    return Provenance(
        cpadapt=own,
        python=platform.python_version(),
        packages=packages,
        git_commit=commit,
        git_clean=clean,
        device=name,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
