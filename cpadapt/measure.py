"""From a study's runs to their records: runs without a record are trained, bank by bank."""

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from cpadapt.bank.bank import require_drawable, require_packable, verbalizer
from cpadapt.bank.peft_run import to_peft
from cpadapt.bank.teacher import taught
from cpadapt.bank.trainer import Progress, Result, Trainer, pools_of
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
from cpadapt.records.config import HEAD, Protocol, RunConfig
from cpadapt.records.record import SCHEMA, Counts, Provenance, Record
from cpadapt.records.store import RecordFile
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
    quiet: bool = False,
) -> list[Record]:
    """Measure a study's runs, or continue measuring them.

    Every mistake in the input is found before training starts. A run whose record is in `results` is not trained
    again. The runs of a task train in banks of whole draws or seeds (see `cpadapt.study.banks_of`), those of PEFT's
    own tuners (`cpadapt.families.peft_tuners`) one by one. A bank's state is kept under `results/.checkpoints`, so
    training continues from there after the process was killed or got SIGTERM. A bank's records are written when the
    bank is done.

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
        quiet: show no progress bar. There is none anyway if the output is not a terminal.

    Returns:
        The records of all runs asked for, including those measured before, in the study's order.

    Raises:
        InputError: something asked for is wrong or missing.
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
    if source is None:
        backbone = _load(study, device, (results, save))
        source = backbone.source
    asked = _by_task(runs, shard or Shard())
    done = set() if force else {run_id for run_id in known if save is None or (Path(save) / run_id).is_dir()}
    plan = _Plan(asked, data, source.identity, done)
    records = dict(known)
    if plan.unfinished:
        backbone = backbone or _load(study, device, (results, save))
        weights_of(known.values(), study, results, backbone.source)
        plan = replace(plan, weights=backbone.source.identity)
        measurement = _Measurement(study, plan, backbone, results=results, save=save, force=force, quiet=quiet)
        records |= {record.id: record for record in measurement.train()}
    ids = {plan.id_of(run.config) for part in asked.values() for run in part}
    return [records[run_id] for run_id in (plan.id_of(run.config) for run in runs) if run_id in ids]


@dataclass(frozen=True)
class _Plan:
    """Which runs are asked for, on which data and weights, and which of them are done."""

    asked: Mapping[str, Sequence[Run]]
    """By task."""
    data: Mapping[str, Mapping[int, TaskData]]
    """By task and data seed."""
    weights: str
    """The identity of the backbone's weights."""
    done: Collection[str]
    """Ids of runs that need no training."""

    def id_of(self, config: RunConfig) -> str:
        """The run's id on these data and weights."""
        return config.run_id(self.data[config.task][config.data_seed].fingerprint, self.weights)

    def left(self, runs: Iterable[Run]) -> dict[str, Run]:
        """The runs that still have to be trained, by id."""
        return {run_id: run for run in runs if (run_id := self.id_of(run.config)) not in self.done}

    @functools.cached_property
    def unfinished(self) -> list[str]:
        """The tasks with runs to train."""
        return [task for task, runs in self.asked.items() if self.left(runs)]


class _Measurement:
    """Trains the unfinished runs of a plan, bank by bank.

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
        save: str | Path | None,
        force: bool,
        quiet: bool,
    ) -> None:
        self._study, self._plan, self._backbone = study, plan, backbone
        self._results, self._save, self._force, self._quiet = results, save, force, quiet
        require_packable(backbone)
        self._made_on = provenance(backbone.model.device)
        # All texts are tokenized first, so that one that is too long for the last bank stops everything at once.
        self._pools = {task: pools_of(plan.data[task], backbone, study.protocol) for task in plan.unfinished}
        if study.protocol.readout == "verbalizer":
            specs = study.specs()
            for task in plan.unfinished:
                verbalizer(backbone, specs[task])
        self._file = RecordFile(results) if results is not None else None

    def train(self) -> list[Record]:
        """Train the unfinished runs and return their records; each bank's are on disk before the next bank starts."""
        records = []
        for task in self._plan.unfinished:
            banks = self._banks(task)
            for number, bank in enumerate(banks, start=1):
                if left := self._plan.left(bank):
                    part = f", bank {number} of {len(banks)}" if len(banks) > 1 else ""
                    records += self._train_bank(task, left, f"{self._study.name} {task}{part}")
        if self._file is not None:
            self._file.finish()
        if self._results is not None:
            with contextlib.suppress(OSError):  # other banks' checkpoints are still there
                (Path(self._results) / CHECKPOINTS).rmdir()
        return records

    def _banks(self, task: str) -> list[list[Run]]:
        """Divide all runs of a task, done or not, into banks, so that a bank does not depend on what is done.

        A run of one of PEFT's own tuners is alone.
        """
        tokens = self._study.protocol.batch_size * float(np.diff(self._pools[task]["train"].offsets).mean())
        most = _most_tokens(self._backbone, self._study.protocol)
        by_teacher: dict[Teacher | None, list[Run]] = {}
        alone = []
        for run in self._plan.asked[task]:
            if run.config.family in TUNERS:
                alone.append([run])
            else:
                by_teacher.setdefault(run.config.teacher, []).append(run)
        return [bank for runs in by_teacher.values() for bank in banks_of(runs, tokens, most)] + alone

    def _train_bank(self, task: str, runs: Mapping[str, Run], title: str) -> list[Record]:
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
        trainer = Trainer(
            self._backbone,
            configs,
            self._plan.data[task],
            pools=pools,
            checkpoint=_checkpoint(self._results, runs, self._force),
        )
        with _progress(trainer, title, self._quiet) as progress:
            trainer.progress = progress
            outcomes = trainer.train()
        records = []
        for result in outcomes:
            run_id = self._plan.id_of(result.config)
            records.append(self._record(run_id, runs[run_id].label, result))
            if self._save is not None:
                _save(Path(self._save) / run_id, result, self._backbone)
        if self._file is not None:
            self._file.add(records)
        trainer.forget()
        return records

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
    return load_backbone(
        study.backbone, dtype=study.protocol.dtype, device=device, target_modules=study.target_modules
    )


def _require_device(device: str) -> None:
    try:
        torch.zeros(1, device=device).cpu()
    # torch raises several classes of errors: for an unknown kind, one that it was built without, a number too high.
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"device {device!r} cannot be used: {reason}; take 'cpu', or leave the device out") from None


def _require_folder(folder: Path) -> None:
    """Check that a folder can be written to or created, without creating it."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"{folder} cannot be a folder: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{folder} cannot be created: {there} is not writable")


def _checkpoint(results: str | Path | None, ids: Iterable[str], force: bool) -> Path | None:
    if results is None:
        return None
    name = hashlib.sha256(" ".join(sorted(ids)).encode()).hexdigest()[:16]
    path = Path(results) / CHECKPOINTS / f"{name}.safetensors"
    if force:
        path.unlink(missing_ok=True)
    return path


def _save(out: Path, result: Result, backbone: Backbone) -> None:
    """Write a run's best weights: the adapter in PEFT's format and `head.safetensors`, if the run has a head."""
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


@contextlib.contextmanager
def _progress(trainer: Trainer, title: str, quiet: bool) -> Iterator[Progress]:
    console = Console(stderr=True)
    bar = ProgressBar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[word]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=quiet or not console.is_terminal,
    )
    with bar:
        runs = len(trainer.runs)
        shown = bar.add_task(f"{title}, {runs} run{'s' * (runs > 1)}", total=trainer.protocol.steps, word="starting")
        yield lambda step, word: bar.update(shown, completed=step, word=word)


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
        name = torch.cuda.get_device_name(device)
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
