"""A study file → its runs → banks → records: the one way in for the command line, the notebooks and Python."""

import contextlib
import hashlib
import itertools
import math
import os
import re
import shutil
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from pydantic import Field, ValidationError, field_validator
from pydantic.dataclasses import dataclass as validated
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from cpadapt import budget as budgets
from cpadapt.backbones import (
    BACKBONES,
    Backbone,
    Projection,
    Source,
    load_backbone,
    load_projections,
    weights_at_hand,
)
from cpadapt.bank import require_packable, stacking_order, verbalizer
from cpadapt.errors import STRICT, InputError, explain
from cpadapt.families import family
from cpadapt.protocol import HEAD, Protocol, RunConfig
from cpadapt.record import (
    SCHEMA,
    Counts,
    Provenance,
    Record,
    RecordFile,
    load_records,
    provenance,
    require_one_backbone,
)
from cpadapt.tasks import TaskData, TaskSpec, load_spec, load_task
from cpadapt.trainer import Progress, Result, Trainer, pools_of
from cpadapt.tuner import save_adapter

CHECKPOINTS = ".checkpoints"
"""The folder, within that of the records, of banks at work."""


@validated(frozen=True, config=STRICT)
class Setting:
    """One way of training a family's adapters; each is a run of its own."""

    learning_rate: float
    scale: float | None = None
    """By default the plan's."""
    warmup_steps: int | None = None
    """By default the protocol's."""
    sizes: tuple[int, ...] | None = None
    """Ranks or components that are trained so; by default all on the ladder."""


@validated(frozen=True, config=STRICT)
class FamilyPlan:
    """How a study trains one family, or one variant of it."""

    family: str | None = None
    """The family; by default the label under which the study lists it."""
    learning_rates: tuple[float, ...] | None = None
    """Each is a run of its own; by default the paper's one, where there are no `settings` either."""
    settings: tuple[Setting, ...] = ()
    """Further ways of training, where runs differ in more than their rate, or sizes in their rates."""
    scale: float | None = None
    """By default the family's."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The family's own knobs that shall differ from their defaults.

    :meta hide-value:
    """

    def settings_of(self, name: str, size: int) -> list[Setting]:
        """The ways in which an adapter of this size of the family `name` is trained.

        Raises:
            InputError: there is none.
        """
        rates = self.learning_rates
        if rates is None:
            rates = () if self.settings else (family(name).LEARNING_RATE,)
        scale = family(name).SCALE if self.scale is None else self.scale
        found = [Setting(rate, scale) for rate in rates]
        found += [
            replace(setting, scale=scale if setting.scale is None else setting.scale, sizes=None)
            for setting in self.settings
            if setting.sizes is None or size in setting.sizes
        ]
        if not found:
            raise InputError(f"no setting is for size {size} of family {name!r}: add one with sizes = [{size}]")
        if twice := next((setting for k, setting in enumerate(found) if setting in found[:k]), None):
            raise InputError(f"family {name!r} has the setting {twice} twice at size {size}")
        return found


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
    """Letters, digits, `.`, `_` and `-`: the folder of its records under `results/`, too."""
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
    draws: tuple[int, ...] = ()
    """Instead of `seeds` and `data_seeds`: each is a seed and a data seed in one, so no two runs of a cell share
    anything. Text is read by `seeds_of`."""
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

    @field_validator("seeds", "data_seeds", "order_seeds", "draws", mode="before")
    @classmethod
    def _written_out(cls, given: object) -> object:
        return seeds_of(given) if isinstance(given, str) else given

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            raise InputError(f"name = {self.name!r}: letters, digits, '.', '_' and '-', a letter or digit first")
        if self.draws and ((self.seeds, self.data_seeds) != ((0,), (0,)) or self.order_seeds):
            raise InputError("draws stand for seeds, data_seeds and order_seeds: give the one or the others")
        for name in ("tasks", "seeds", "data_seeds", "order_seeds", "draws", "families"):
            values = list(getattr(self, name))
            if not values and name not in ("order_seeds", "draws"):
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
        name = plan.family or label
        asked = RunConfig(
            backbone=self.backbone_name,
            task=self.tasks[0],
            family=name,
            size=1,
            seed=0,
            data_seed=0,
            protocol=self.protocol,
            learning_rate=1.0,
            scale=1.0,
            options=plan.options,
        )
        return asked.shape_options

    @property
    def backbone_name(self) -> str:
        """Its known name or hub id, or the name alone of a local folder, as records have it."""
        folder = Path(self.backbone).expanduser()
        return folder.resolve().name if self.backbone not in BACKBONES and folder.is_dir() else self.backbone

    @property
    def drawn(self) -> tuple[int, ...]:
        """The data seeds that its runs have."""
        return self.draws or self.data_seeds

    @property
    def _seeds(self) -> list[tuple[int, int, int | None]]:
        """Data seed, seed and order seed of every run of a cell."""
        if self.draws:
            return [(draw, draw, None) for draw in self.draws]
        return list(itertools.product(self.data_seeds, self.seeds, self.order_seeds or (None,)))

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
        places: list[tuple[str, dict[str, Any]]] = []
        for cell in self.cells(projections, budget):
            if cell.label == HEAD:
                places.append((HEAD, {"family": HEAD, "size": 0}))
                continue
            plan = self.families[cell.label]
            name = plan.family or cell.label
            for setting in plan.settings_of(name, cell.size):
                trained = asdict(setting) | {"family": name, "size": cell.size, "options": plan.options}
                del trained["sizes"]
                places.append((cell.label, trained))
        common: dict[str, Any] = {
            "backbone": self.backbone_name,
            "protocol": self.protocol,
            "target_modules": self.target_modules,
        }
        return [
            (
                label,
                RunConfig(task=name, data_seed=data_seed, seed=seed, order_seed=order_seed, **common, **trained),
            )
            for name, (label, trained), (data_seed, seed, order_seed) in itertools.product(names, places, self._seeds)
        ]


def load_study(path: str | Path) -> Study:
    """Read a study file (TOML; the fields of `Study`, with "none" for a field of the protocol that shall be `None`).

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
    if isinstance(content.get("protocol"), dict):
        # TOML has no word for it.
        content["protocol"] = {name: None if value == "none" else value for name, value in content["protocol"].items()}
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
        """This part of one task's runs.

        Whole draws or seeds are dealt, which belong in one bank, unless there are fewer of them than parts; then runs
        are, in order of size, so that parts cost about the same.
        """
        blocks = _blocks(runs)
        if len(blocks) >= self.count:
            return [labelled for block in blocks[self.index - 1 :: self.count] for labelled in block]
        return sorted(runs, key=lambda labelled: stacking_order(labelled[1]))[self.index - 1 :: self.count]


BANK_TOKENS = 16_384
"""Tokens that a bank trains on in a step, on average: more no longer make a run cheaper."""

BANK_SECONDS = 18 * 60
"""Of a bank's training on a GPU: what has no record when a machine is taken away is trained on from a checkpoint, and
nothing of a bank is recorded before its end."""

GPU_FLOPS = 3e14
"""Floating-point operations a second by which a bank's time is guessed: an H100 or H200, half precision."""


def _blocks(runs: Sequence[tuple[str, RunConfig]]) -> list[list[tuple[str, RunConfig]]]:
    """Runs by draw or, where all share one, by seed: what is compared run by run and belongs in one bank."""
    several = len({config.data_seed for _, config in runs}) > 1
    blocks: dict[int, list[tuple[str, RunConfig]]] = {}
    for labelled in runs:
        blocks.setdefault(labelled[1].data_seed if several else labelled[1].seed, []).append(labelled)
    return list(blocks.values())


def banks_of(
    runs: Sequence[tuple[str, RunConfig]], run_tokens: float, most_tokens: float
) -> list[list[tuple[str, RunConfig]]]:
    """Cut one task's runs into banks of whole draws or seeds, as even as can be.

    Args:
        runs: with their labels.
        run_tokens: that one run trains on in a step, on average.
        most_tokens: that a bank may train on in a step. A draw or seed that has more by itself is cut too.
    """
    most = max(1, int(most_tokens / run_tokens))
    banks: list[list[tuple[str, RunConfig]]] = []
    small = []
    for block in _blocks(runs):
        if len(block) <= most:
            small.append(block)
        else:
            parts = math.ceil(len(block) / most)
            ordered = sorted(block, key=lambda labelled: stacking_order(labelled[1]))
            banks += [ordered[part::parts] for part in range(parts)]
    if small:
        count = math.ceil(len(small) / max(1, most // max(map(len, small))))
        cuts = [len(small) * i // count for i in range(count + 1)]
        banks += [list(itertools.chain(*small[a:b])) for a, b in itertools.pairwise(cuts)]
    return banks


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
