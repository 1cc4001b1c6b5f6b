"""A study file → its runs → banks → records: the one way in for the command line, the notebooks and Python."""

import contextlib
import hashlib
import itertools
import os
import re
import shutil
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import Field, ValidationError, field_validator
from pydantic.dataclasses import dataclass as validated
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from cpadapt import budget as budgets
from cpadapt.backbones import BACKBONES, Backbone, Projection, load_backbone, load_projections
from cpadapt.bank import require_packable, stacking_order
from cpadapt.errors import STRICT, InputError, explain
from cpadapt.families import family
from cpadapt.protocol import HEAD, Protocol, RunConfig
from cpadapt.record import SCHEMA, Counts, Record, RecordFile, load_records, provenance
from cpadapt.tasks import TaskData, TaskSpec, load_spec, load_task
from cpadapt.trainer import Progress, Result, Trainer
from cpadapt.tuner import save_adapter

CHECKPOINTS = ".checkpoints"
"""The folder, within that of the records, of banks at work."""


@validated(frozen=True, config=STRICT)
class FamilyPlan:
    """How a study trains one family, or one variant of it."""

    family: str | None = None
    """The family; by default the label under which the study lists it."""
    learning_rates: tuple[float, ...] | None = None
    """Each is a run of its own; by default the paper's one."""
    scale: float | None = None
    """By default the family's."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The family's own knobs that shall differ from their defaults.

    :meta hide-value:
    """


@validated(frozen=True, config=STRICT)
class Ladder:
    """Which sizes a study compares: any of the three ways, or several."""

    head: bool = False
    """Runs without an adapter too, which train the readout alone."""
    budgets: tuple[int, ...] = ()
    """Trainable scalars over all target modules; each family takes the largest size at or under each."""
    sizes: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    """Ranks or components by family label.

    :meta hide-value:
    """
    pairs: tuple[dict[str, int], ...] = ()
    """Sizes, by family label, that count as one budget although they are not matched from below."""

    def __post_init__(self) -> None:
        if not (self.head or self.budgets or self.sizes or self.pairs):
            raise InputError("the ladder is empty: give budgets, sizes, pairs or head = true")


@dataclass(frozen=True)
class Cell:
    """A place on a ladder."""

    label: str
    size: int


def seeds_of(text: str) -> tuple[int, ...]:
    """The seeds that are written as ranges and single ones, such as `0-99` or `0,3,7-9`.

    Raises:
        InputError: it is something else, or a range runs backwards.
    """
    seeds: list[int] = []
    for part in text.split(","):
        if not (match := re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())):
            raise InputError(f"seeds {text!r}: write such as 0-2 or 0,3,7")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise InputError(f"seeds {text!r}: {part.strip()} runs backwards")
        seeds += range(first, last + 1)
    return tuple(seeds)


@validated(frozen=True, config=STRICT)
class Study:
    """What is to be measured: every run follows from this."""

    name: str
    backbone: str
    """A known name, a hub id or a local folder, as in `load_backbone`."""
    tasks: tuple[str, ...]
    """Names of tasks, or TOML files of one's own."""
    ladder: Ladder
    seeds: tuple[int, ...] = (0,)
    """Of the initial weights and the order of the data; each is a run. Text is read by `seeds_of`."""
    data_seeds: tuple[int, ...] = (0,)
    """Of the draw of train and dev; each is a set of runs. Text is read by `seeds_of`."""
    order_seeds: tuple[int, ...] = ()
    """Of the order of the data alone, each with every seed; by default each seed has its own order."""
    families: dict[str, FamilyPlan] = Field(default_factory=lambda: {"lora": FamilyPlan(), "cp": FamilyPlan()})
    """How each is trained, by label; by default `lora` and `cp`, each at the paper's rate.

    :meta hide-value:
    """
    protocol: Protocol = Field(default_factory=Protocol)
    """By default with every field at its default.

    :meta hide-value:
    """
    target_modules: tuple[str, ...] | None = None
    """The last parts of the modules' paths, such as `q_proj`; by default PEFT's own for LoRA."""
    about: str = ""
    """What the study is for, in a sentence."""

    @field_validator("seeds", "data_seeds", "order_seeds", mode="before")
    @classmethod
    def _written_out(cls, given: object) -> object:
        return seeds_of(given) if isinstance(given, str) else given

    def __post_init__(self) -> None:
        for name in ("tasks", "seeds", "data_seeds", "order_seeds", "families"):
            values = list(getattr(self, name))
            if not values and name != "order_seeds":
                raise InputError(f"{name} is empty: give at least one")
            if len(set(values)) < len(values):
                raise InputError(f"{name} = {values}: each may stand there once")
        for label, plan in self.families.items():
            if label == HEAD:
                raise InputError(f"{HEAD!r} is not a family: say ladder.head = true")
            family(plan.family or label)
        for label in {*self.ladder.sizes, *(label for pair in self.ladder.pairs for label in pair)}:
            if label not in self.families:
                raise InputError(
                    f"the ladder names {label!r}, which is not among the families: {', '.join(self.families)}"
                )

    def specs(self) -> dict[str, TaskSpec]:
        """What the study's tasks are, by name.

        Raises:
            InputError: there is no such task, a task's file is wrong, or two tasks have one name.
        """
        found = [load_spec(task) for task in self.tasks]
        names = [spec.name for spec in found]
        if len(set(names)) < len(names):
            raise InputError(f"two of the tasks have one name: {', '.join(names)}")
        return dict(zip(names, found, strict=True))

    def cells(self, projections: Sequence[Projection], budget: int | None = None) -> list[Cell]:
        """The places on the ladder, or those at one budget.

        Args:
            projections: the backbone's target modules.
            budget: trainable scalars over all of them; one that a pair's member has stands for that pair, for any
                other each family takes its largest size at or under it.

        Raises:
            InputError: no family has so small an adapter.
        """
        wanted = [Cell(HEAD, 0)] if self.ladder.head else []
        if budget is not None:
            matched = self._matched(projections, budget)
            if not matched:
                raise InputError(
                    f"budget {budget} is below the smallest adapters: "
                    + ", ".join(f"{label} {self._count(projections, label, 1)}" for label in self.families)
                )
            return wanted + matched
        for amount in self.ladder.budgets:
            wanted += self._matched(projections, amount)
        for label, sizes in self.ladder.sizes.items():
            wanted += [Cell(label, size) for size in sizes]
        for pair in self.ladder.pairs:
            wanted += [Cell(label, size) for label, size in pair.items()]
        return list(dict.fromkeys(wanted))

    def _matched(self, projections: Sequence[Projection], budget: int) -> list[Cell]:
        for pair in self.ladder.pairs:
            if budget in {self._count(projections, label, size) for label, size in pair.items()}:
                return [Cell(label, size) for label, size in pair.items()]
        sizes = {
            label: budgets.largest_size(plan.family or label, projections, budget, self._shape_options(label))
            for label, plan in self.families.items()
        }
        return [Cell(label, size) for label, size in sizes.items() if size]

    def _count(self, projections: Sequence[Projection], label: str, size: int) -> int:
        name = self.families[label].family or label
        return budgets.count(name, projections, size, self._shape_options(label))

    def _shape_options(self, label: str) -> dict[str, Any]:
        plan = self.families[label]
        # Through a run's config, which reads and checks them.
        return self._config(Cell(label, 1), self.tasks[0], 0, 0, 1.0, plan).shape_options

    def _config(
        self,
        cell: Cell,
        task: str,
        seed: int,
        data_seed: int,
        rate: float | None,
        plan: FamilyPlan | None,
        order_seed: int | None = None,
    ) -> RunConfig:
        adapter: dict[str, Any] = {"family": HEAD}
        if plan is not None:
            name = plan.family or cell.label
            scale = family(name).SCALE if plan.scale is None else plan.scale
            adapter = {"family": name, "learning_rate": rate, "scale": scale, "options": plan.options}
        return RunConfig(
            backbone=self.backbone,
            task=task,
            size=cell.size,
            seed=seed,
            data_seed=data_seed,
            protocol=self.protocol,
            target_modules=self.target_modules,
            order_seed=order_seed,
            **adapter,
        )

    def runs(
        self, projections: Sequence[Projection], *, task: str | None = None, budget: int | None = None
    ) -> list[tuple[str, RunConfig]]:
        """Every run with its family label, task by task; of one task, or at one budget, if asked.

        Raises:
            InputError: the study has no such task; or as `specs` and `cells`.
        """
        names = list(self.specs())
        if task is not None:
            # By its name, or as the study has it.
            if task not in (*names, *self.tasks):
                raise InputError(f"study {self.name!r} has no task {task!r}; it has {', '.join(self.tasks)}")
            names = [name for name, given in zip(names, self.tasks, strict=True) if task in (name, given)]
        places: list[tuple[Cell, float | None, FamilyPlan | None]] = []
        for cell in self.cells(projections, budget):
            plan = self.families.get(cell.label)
            rates: tuple[float | None, ...] = (None,)
            if plan is not None:
                rates = plan.learning_rates or (family(plan.family or cell.label).LEARNING_RATE,)
            places += [(cell, rate, plan) for rate in rates]
        return [
            (cell.label, self._config(cell, name, seed, data_seed, rate, plan, order_seed))
            for name, (cell, rate, plan), data_seed, seed, order_seed in itertools.product(
                names, places, self.data_seeds, self.seeds, self.order_seeds or (None,)
            )
        ]


def load_study(path: str | Path) -> Study:
    """Read a study file (TOML; the fields of `Study`).

    Raises:
        InputError: there is no such file, it is no TOML, or a field is missing, unknown or wrong; each is named.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no study at {path}: there is no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from None
    if isinstance(content.get("tasks"), list):
        # A task's file is named relative to the study's.
        content["tasks"] = [
            str(path.parent / task) if isinstance(task, str) and task.endswith(".toml") else task
            for task in content["tasks"]
        ]
    try:
        return Study(**content)
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error)}") from None
    except (InputError, TypeError) as error:
        raise InputError(f"{path}: {error}") from None


@dataclass(frozen=True)
class Shard:
    """The `index`-th of `count` parts of a study, counted from 1."""

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise InputError(f"shard {self.index}/{self.count}: the first number goes from 1 to the second")

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read `I/N`, such as 1/2.

        Raises:
            InputError: it is something else, or I is not from 1 to N.
        """
        if not (match := re.fullmatch(r"(\d+)/(\d+)", text)):
            raise InputError(f"shard {text!r}: write I/N such as 1/2")
        return cls(int(match[1]), int(match[2]))

    def of(self, runs: Sequence[tuple[str, RunConfig]]) -> list[tuple[str, RunConfig]]:
        """This part of one bank's runs, dealt in order of size, so that parts cost about the same."""
        return sorted(runs, key=lambda labelled: stacking_order(labelled[1]))[self.index - 1 :: self.count]


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
    trained again. The state of a bank is kept under `results/.checkpoints` at every evaluation, so a killed process
    goes on from there; its records are written when it is done.

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
        name: {
            seed: load_task(specs[name], data_dir=data_dir, caps=p.caps, data_seed=seed) for seed in study.data_seeds
        }
        for name in tasks
    }

    def run_id(config: RunConfig) -> str:
        return config.run_id(data[config.task][config.data_seed].fingerprint)

    def is_done(config: RunConfig) -> bool:
        saved = save is None or (Path(save) / run_id(config)).is_dir()
        return not force and saved and run_id(config) in known

    known = _known(results)
    banks = [(shard or Shard()).of([(label, c) for label, c in wanted if c.task == name]) for name in tasks]
    asked = {run_id(config) for bank in banks for _, config in bank}
    records = {identity: record for identity, record in known.items() if identity in asked}
    todo = [[(label, c) for label, c in bank if not is_done(c)] for bank in banks]
    todo = [bank for bank in todo if bank]
    if todo:
        _require_device(device)
        for folder in (results, save):
            if folder is not None:
                _require_folder(Path(folder))
        backbone = load_backbone(study.backbone, dtype=p.dtype, device=device, target_modules=study.target_modules)
        require_packable(backbone)
        # All are made before any is trained, so that a text that is too long for the last one stops it all at once.
        trainers = [
            Trainer(
                backbone,
                [config for _, config in bank],
                data[bank[0][1].task],
                checkpoint=_checkpoint(results, [run_id(config) for _, config in bank], force),
            )
            for bank in todo
        ]
        file = RecordFile(results) if results is not None else None
        for bank, trainer in zip(todo, trainers, strict=True):
            labels = {run_id(config): label for label, config in bank}
            with _progress(trainer, f"{study.name} {trainer.runs[0].task}", quiet) as progress:
                trainer.progress = progress
                outcomes = trainer.train()
            fresh = []
            for result in outcomes:
                identity = run_id(result.config)
                fresh.append(_record(study, labels[identity], identity, result, backbone, data[result.config.task]))
                if save is not None:
                    _save(Path(save) / identity, result, backbone)
            if file is not None:
                file.add(fresh)
            trainer.forget()
            records |= {record.id: record for record in fresh}
        if results is not None:
            with contextlib.suppress(OSError):  # other banks' checkpoints are still there
                (Path(results) / CHECKPOINTS).rmdir()
    return [records[run_id(config)] for _, config in wanted if run_id(config) in asked]


@dataclass(frozen=True)
class Status:
    """How far one place of a study's ladder has come on one task."""

    task: str
    label: str
    size: int
    parameters: int
    learning_rate: float | None
    done: int
    missing: int
    diverged: int
    """Of those done."""


def status(study: Study, results: str | Path) -> list[Status]:
    """Which of a study's runs have a record, cell by cell.

    A run counts by its config; that its data were the same is for the reader of its fingerprint to see.

    Raises:
        InputError: a record in `results` is not valid.
    """
    projections = load_projections(study.backbone, study.target_modules)
    known = {record.config_id: record for record in _known(results).values()}
    cells: dict[tuple[str, str, int, float | None], list[Record | None]] = {}
    for label, config in study.runs(projections):
        place = (config.task, label, config.size, config.learning_rate)
        cells.setdefault(place, []).append(known.get(config.config_id))
    return [
        Status(
            task=task,
            label=label,
            size=size,
            parameters=study._count(projections, label, size) if size else 0,
            learning_rate=rate,
            done=sum(record is not None for record in found),
            missing=sum(record is None for record in found),
            diverged=sum(record is not None and record.diverged_at is not None for record in found),
        )
        for (task, label, size, rate), found in cells.items()
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


def _checkpoint(results: str | Path | None, ids: Sequence[str], force: bool) -> Path | None:
    if results is None:
        return None
    name = hashlib.sha256(" ".join(sorted(ids)).encode()).hexdigest()[:16]
    path = Path(results) / CHECKPOINTS / f"{name}.safetensors"
    if force:
        path.unlink(missing_ok=True)
    return path


def _record(
    study: Study, label: str, run_id: str, result: Result, backbone: Backbone, data: Mapping[int, TaskData]
) -> Record:
    config, drawn = result.config, data[result.config.data_seed]
    parameters = step = 0
    if config.family != HEAD:
        parameters = budgets.count(config.family, backbone.projections, config.size, config.shape_options)
        step = budgets.step(config.family, backbone.projections, config.shape_options)
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
            adam_bytes=budgets.ADAM_BYTES_PER_SCALAR * parameters,
        ),
        evaluations=tuple(result.evaluations),
        best_step=result.best_step,
        outcome=result.outcome,
        diverged_at=result.diverged_at,
        cost=result.cost,
        provenance=provenance(backbone.model.device),
    )


def _save(out: Path, result: Result, backbone: Backbone) -> None:
    """Write a run's best weights: the adapter as PEFT reads it, and beside it `head.safetensors` if it has a head."""
    config = result.config
    known = BACKBONES.get(backbone.name)
    # From a run that was killed before its record was written, or trained again by force.
    shutil.rmtree(out, ignore_errors=True)
    if config.family != HEAD and config.scale is not None:
        name = known.hub if known is not None and known.hub is not None else backbone.name
        save_adapter(out, config.family, config.scale, result.adapter, base_model_name=name)
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


def with_protocol(study: Study, **changes: Any) -> Study:
    """The study with other values in its protocol.

    Raises:
        InputError: a value is wrong, or the protocol has no such field.
    """
    try:
        return replace(study, protocol=replace(study.protocol, **changes))
    except ValidationError as error:
        raise InputError(explain(error)) from None
