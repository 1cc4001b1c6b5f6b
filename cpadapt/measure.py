"""From a study's runs to their records: what has none yet is trained, bank by bank."""

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from cpadapt.bank.bank import require_packable, verbalizer
from cpadapt.bank.trainer import Progress, Result, Trainer, pools_of
from cpadapt.errors import InputError
from cpadapt.families import counting
from cpadapt.inputs.backbones.loading import Backbone, load_backbone, load_projections
from cpadapt.inputs.backbones.sources import weights_at_hand
from cpadapt.inputs.backbones.specs import BACKBONES, Source
from cpadapt.inputs.tasks.examples import TaskData, load_task
from cpadapt.records.config import HEAD, Protocol, RunConfig
from cpadapt.records.record import SCHEMA, Counts, Provenance, Record, require_one_backbone
from cpadapt.records.store import RecordFile, load_records
from cpadapt.study import Shard, Study, banks_of
from cpadapt.tuner import save_adapter

CHECKPOINTS = ".checkpoints"
"""The folder, within that of the records, of banks at work."""


BANK_TOKENS = 16_384
"""Tokens that a bank trains on in a step, on average: more no longer make a run cheaper."""

BANK_SECONDS = 18 * 60
"""Of a bank's training on a GPU: what has no record when a machine is taken away is trained on from a checkpoint, and
nothing of a bank is recorded before its end."""

GPU_FLOPS = 3e14
"""Floating-point operations a second by which a bank's time is guessed: an H100 or H200, half precision."""


def _most_tokens(backbone: Backbone, protocol: Protocol) -> float:
    """Tokens a step at most of a bank on this backbone, by its memory and its time."""
    if backbone.model.device.type != "cuda":
        return BANK_TOKENS
    embedding = backbone.model.get_input_embeddings().weight.numel()
    # Two operations a weight in the forward pass, two in the backward pass, which has no gradients of weights.
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
    """Measure a study's runs, or go on measuring them.

    Everything that can be wrong is found before any training starts. A run whose record is in `results` is not
    trained again. Runs of a task train in banks of whole draws or seeds (see `banks_of`). The state of a bank is kept
    under `results/.checkpoints`, so a process that was killed, or asked to end by SIGTERM, goes on from there; a
    bank's records are written when it is done.

    Args:
        study: what to measure.
        task: only this one of its tasks.
        budget: only at this budget (trainable scalars over all target modules).
        shard: only this part of the runs of each task, for several processes side by side.
        data_dir: folder with the tasks' data, instead of the hub.
        results: folder of records. `None` keeps nothing on disk.
        save: folder for each run's best weights: by run id, a PEFT adapter and its head, where it has them. A run with
            a record but without weights there is trained again.
        force: train runs anew that have a record.
        device: as torch names it; by default the first GPU, or the CPU.
        quiet: no progress bar (there is none anyway where the output is no terminal).

    Returns:
        The records of all runs asked for, those measured before included, in the study's order.

    Raises:
        InputError: something asked for is wrong or missing.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    projections = load_projections(study.backbone, study.target_modules)
    wanted = study.runs(projections, task=task, budget=budget)
    tasks = list(dict.fromkeys(config.task for _, config in wanted))
    specs = study.specs()
    p = study.protocol
    data = {
        name: {seed: load_task(specs[name], data_dir=data_dir, caps=p.caps, data_seed=seed) for seed in study.drawn}
        for name in tasks
    }
    known = _known(results)
    asked = {name: (shard or Shard()).of([(label, c) for label, c in wanted if c.task == name]) for name in tasks}
    backbone: Backbone | None = None

    def load() -> Backbone:
        _require_device(device)
        for folder in (results, save):
            if folder is not None:
                _require_folder(Path(folder))
        return load_backbone(study.backbone, dtype=p.dtype, device=device, target_modules=study.target_modules)

    source = weights_at_hand(study.backbone) or _recorded_weights(known.values(), study, results)
    if source is None:
        backbone = load()
        source = backbone.source
    _require_same_weights(known.values(), study, source, results)
    identity = source.identity

    def run_id(config: RunConfig) -> str:
        return config.run_id(data[config.task][config.data_seed].fingerprint, identity)

    def is_done(config: RunConfig) -> bool:
        saved = save is None or (Path(save) / run_id(config)).is_dir()
        return not force and saved and run_id(config) in known

    everything = [labelled for runs in asked.values() for labelled in runs]
    found = {run_id(config) for _, config in everything}
    records = {of: record for of, record in known.items() if of in found}
    undone = [name for name in tasks if not all(is_done(config) for _, config in asked[name])]
    if undone:
        backbone = backbone or load()
        _require_same_weights(known.values(), study, backbone.source, results)
        identity = backbone.source.identity
        require_packable(backbone)
        made_on = provenance(backbone.model.device)
        # All texts are read before any is trained on, so that one too long for the last bank stops it all at once.
        pools = {name: pools_of(data[name], backbone, p) for name in undone}
        if p.readout == "verbalizer":
            for name in undone:
                verbalizer(backbone, specs[name])
        file = RecordFile(results) if results is not None else None
        for name in undone:
            tokens = p.batch_size * float(np.diff(pools[name]["train"].offsets).mean())
            banks = banks_of(asked[name], tokens, _most_tokens(backbone, p))
            for number, whole in enumerate(banks, start=1):
                bank = {run_id(labelled[1]): labelled for labelled in whole if not is_done(labelled[1])}
                if not bank:
                    continue
                trainer = Trainer(
                    backbone,
                    [config for _, config in bank.values()],
                    data[name],
                    pools=pools[name],
                    checkpoint=_checkpoint(results, bank, force),
                )
                part = f", bank {number} of {len(banks)}" if len(banks) > 1 else ""
                with _progress(trainer, f"{study.name} {name}{part}", quiet) as progress:
                    trainer.progress = progress
                    outcomes = trainer.train()
                fresh = []
                for result in outcomes:
                    of = run_id(result.config)
                    drawn = data[name][result.config.data_seed]
                    fresh.append(_record(study, bank[of][0], of, result, backbone, drawn, made_on))
                    if save is not None:
                        _save(Path(save) / of, result, backbone)
                if file is not None:
                    file.add(fresh)
                trainer.forget()
                records |= {record.id: record for record in fresh}
                # Its recorded launches hold the memory that the next one needs.
                del trainer, outcomes
        if file is not None:
            file.finish()
        if results is not None:
            with contextlib.suppress(OSError):  # other banks' checkpoints are still there
                (Path(results) / CHECKPOINTS).rmdir()
    return [records[run_id(config)] for _, config in wanted if run_id(config) in found]


def _recorded_weights(known: Iterable[Record], study: Study, results: str | Path | None) -> Source | None:
    """What a study's backbone was where its records were measured, if there are any.

    Raises:
        InputError: they do not agree.
    """
    own = [record for record in known if record.config.backbone == study.backbone_name]
    require_one_backbone(own, f"the records of {study.backbone_name} in {results}")
    return own[0].weights if own else None


def _require_same_weights(known: Iterable[Record], study: Study, source: Source, results: str | Path | None) -> None:
    """Refuse to go on where a backbone of this name was other weights.

    Raises:
        InputError: it was; both are named.
    """
    for record in known:
        if record.config.backbone == study.backbone_name and record.weights.identity != source.identity:
            raise InputError(
                f"the records in {results} are of other weights of {study.backbone_name}: theirs are {record.weights},"
                f" those at hand {source}; give another folder of results"
            )


@dataclass(frozen=True)
class Status:
    """How far one place of a study's ladder has come on one task."""

    task: str
    label: str
    size: int
    parameters: int
    learning_rate: float | None
    scale: float | None
    warmup_steps: int | None
    """Its own; `None` is the protocol's."""
    done: int
    missing: int
    diverged: int
    """Of those done."""


def status(study: Study, results: str | Path) -> list[Status]:
    """Which of a study's runs have a record, cell by cell.

    A run counts by its config; that its data were the same is for the reader of its fingerprint to see. The weights
    are those at hand or, where none are, those of the records.

    Raises:
        InputError: a record in `results` is not valid; the records are of other weights than those at hand, or of
            several.
    """
    projections = load_projections(study.backbone, study.target_modules)
    records = _known(results).values()
    source = weights_at_hand(study.backbone) or _recorded_weights(records, study, results)
    if source is not None:
        _require_same_weights(records, study, source, results)
    known = {record.config_id: record for record in records}
    cells: dict[tuple[Any, ...], list[Record | None]] = {}
    for label, config in study.runs(projections):
        place = (config.task, label, config.size, config.learning_rate, config.scale, config.warmup_steps)
        cells.setdefault(place, []).append(known.get(config.config_id))
    return [
        Status(
            task=task,
            label=label,
            size=size,
            parameters=study._count(projections, label, size) if size else 0,
            learning_rate=rate,
            scale=scale,
            warmup_steps=warmup_steps,
            done=sum(record is not None for record in found),
            missing=sum(record is None for record in found),
            diverged=sum(record is not None and record.diverged_at is not None for record in found),
        )
        for (task, label, size, rate, scale, warmup_steps), found in cells.items()
    ]


def _require_device(device: str) -> None:
    try:
        torch.zeros(1, device=device).cpu()
    # torch fails under several classes: an unknown kind, one that it was built without, a number too high.
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"device {device!r} cannot be used: {reason}") from None


def _require_folder(folder: Path) -> None:
    """That a folder can be written to, or made; nothing is made yet."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"{folder} cannot be a folder: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{folder} cannot be made: {there} may not be written to")


def _known(results: str | Path | None) -> dict[str, Record]:
    if results is None or not Path(results).exists():
        return {}
    return {record.id: record for record in load_records(results)}


def _checkpoint(results: str | Path | None, ids: Iterable[str], force: bool) -> Path | None:
    if results is None:
        return None
    name = hashlib.sha256(" ".join(sorted(ids)).encode()).hexdigest()[:16]
    path = Path(results) / CHECKPOINTS / f"{name}.safetensors"
    if force:
        path.unlink(missing_ok=True)
    return path


def _record(
    study: Study,
    label: str,
    run_id: str,
    result: Result,
    backbone: Backbone,
    drawn: TaskData,
    made_on: Provenance,
) -> Record:
    config = result.config
    parameters = step = 0
    if config.family != HEAD:
        parameters = counting.count(config.family, backbone.projections, config.size, config.shape_options)
        step = counting.step(config.family, backbone.projections, config.shape_options, config.size) or 0
    return Record(
        schema=SCHEMA,
        id=run_id,
        config_id=config.config_id,
        study=study.name,
        label=label,
        config=config,
        protocol_sources=config.protocol.sources(),
        weights=backbone.source,
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
        provenance=replace(made_on, finished=datetime.now(UTC).isoformat(timespec="seconds")),
    )


def _save(out: Path, result: Result, backbone: Backbone) -> None:
    """Write a run's best weights: the adapter as PEFT reads it, and beside it `head.safetensors` if it has a head."""
    config = result.config
    known = BACKBONES.get(backbone.name)
    # From a run that was killed before its record was written, or trained again by force.
    shutil.rmtree(out, ignore_errors=True)
    if config.family != HEAD and config.scale is not None:
        name = known.hub if known is not None and known.hub is not None else backbone.name
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
"""Environment variable that names the commit where the source was copied without its git folder, as
`git describe --always --dirty --abbrev=40` prints it: with `-dirty` at the end if the tree was not as committed."""


@functools.cache
def _source_state() -> tuple[str | None, bool | None]:
    """The commit of cpadapt's own checkout and whether tracked files are as committed; none where unknown."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(checkout), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    checkout = Path(__file__).resolve().parent.parent
    try:
        if Path(git("rev-parse", "--show-toplevel")) == checkout:
            return git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no") == ""
    except (OSError, subprocess.CalledProcessError):  # no git on this machine, or not a checkout
        pass
    stated = os.environ.get(COMMIT_VARIABLE)
    return (None, None) if stated is None else (stated.removesuffix("-dirty"), not stated.endswith("-dirty"))


def provenance(device: torch.device) -> Provenance:
    """The versions, the commit and the device of a run that finishes now.

    Raises:
        InputError: a package's metadata is not installed, so that its version cannot be told.
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
            f"the version of {error.name} is not known here, and every record says it: install it with pip"
            " (cpadapt itself with `pip install --no-deps --editable .` where it lies in a folder)"
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
