"""What trained updates are made of: how near CP and low rank come to them, and what the approximations are worth.

Needs no repository: an installed cpadapt, this file, a study file, the tasks' data and the backbone's weights. First
`rates` chooses the rate of full fine-tuning, then `measure` takes one task at a time::

    python trained_updates.py rates STUDY.toml --data-dir DATA --results FOLDER
    python trained_updates.py measure STUDY.toml TASK --data-dir DATA --results FOLDER

The study has draws, and under `ladder.pairs` the sizes of LoRA and CP at equal scalars. On every draw these are
trained, and full fine-tuning of the same projections (`Full`). Each trained LoRA and each fully trained model is a
*source*. Its ΔW is approximated by CP of every size and by every lower rank, module by module. An approximation is put
into the model, with the source's head, and judged. Some are trained further, and beside them the source itself and CP
from its own training: as many steps again, at the family's rate, so that all had equally many.

A task becomes one file: accuracies by item and a table of errors by module, no weights and no text.
"""

import dataclasses
import itertools
import json
import lzma
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
import typer
from torch import Tensor

from cpadapt.approximation import RESTARTS, Adapter, Updates, bounds, fits, nearest_adapters, updates_of
from cpadapt.bank.bank import require_packable
from cpadapt.bank.trainer import Pool, Result, Trainer, pools_of
from cpadapt.errors import InputError
from cpadapt.families import FAMILIES, Family, counting
from cpadapt.inputs.backbones.loading import Backbone, load_backbone
from cpadapt.inputs.tasks.examples import TaskData, load_task
from cpadapt.measure import BANK_TOKENS, provenance
from cpadapt.records.config import HEAD, Cell, RunConfig, stacking_order
from cpadapt.records.record import Outcome, pack_bitmap
from cpadapt.records.store import write_atomically
from cpadapt.study import Study, load_study

FULL: Cell = ("full", 1)
FULL_RATES = (1e-5, 3e-5, 1e-4, 3e-4)
"""Of which one is chosen for full fine-tuning, for all tasks of a backbone alike."""
CHOOSING = (101, 102, 103)
"""The draws on which it is chosen, apart from those that are judged."""

SEED = 0
"""Of the random starts of CP's searches, and of the order in which the control has rows and columns."""


class Full:
    """Full fine-tuning of the adapted projections: ΔW itself is trained, as the pair ΔW · 1.

    All projections have the same number of input features, the option `inputs`, which is the number of columns.
    """

    TITLE, COLOUR, LEARNING_RATE, SCALE = "full fine-tuning", "#777777", 1e-4, 1.0
    SHAPE_OPTIONS: Mapping[str, Any] = {"inputs": None}
    INIT_OPTIONS: Mapping[str, Any] = {}
    DECAY_OPTIONS: Mapping[str, str] = {}
    SEPARATE_UNITS = True
    SAVED_AS_TRAINED = False

    def smallest(self, *, inputs: int) -> int:
        """The only size."""
        return 1

    def accepts(self, out_features: int, in_features: int, *, inputs: int) -> str | None:
        """Refuses other input features than its option's."""
        return None if in_features == inputs else f"it has {in_features} input features and not {inputs}"

    def shapes(self, out_features: int, in_features: int, size: int, *, inputs: int) -> dict[str, tuple[int, ...]]:
        """Of size 1 only."""
        if size != 1:
            raise InputError(f"there is full fine-tuning of size 1 only, not {size}")
        return {"delta": (1, out_features, in_features)}

    def columns(self, size: int, *, inputs: int) -> int:
        """As many as input features."""
        return size * inputs

    def init(
        self, generator: torch.Generator, out_features: int, in_features: int, size: int, *, inputs: int
    ) -> dict[str, Tensor]:
        """Zero."""
        shapes = self.shapes(out_features, in_features, size, inputs=inputs)
        return {name: torch.zeros(shape) for name, shape in shapes.items()}

    def factors(self, params: dict[str, Tensor], *, inputs: int) -> tuple[Tensor, Tensor]:
        """`up` is ΔW, unit by unit, and `down` the identity."""
        delta = params["delta"]
        down = torch.eye(inputs, dtype=delta.dtype, device=delta.device)
        return delta.transpose(-3, -2).flatten(-2), down.repeat(*delta.shape[:-2], 1)


@dataclass(frozen=True)
class Job:
    """A run, and what it starts from."""

    config: RunConfig
    source: Cell | None = None
    """Whose update it starts from; its own draw where none."""
    adapter: Adapter | None = None
    head: Mapping[str, Tensor] | None = None

    @property
    def cell(self) -> Cell:
        """What is trained."""
        return self.config.family, self.config.size


@dataclass(frozen=True)
class Place:
    """All that runs on one task need."""

    study: Study
    backbone: Backbone
    data: Mapping[int, TaskData]
    """By draw."""
    pools: Mapping[str, Pool]

    def trainers(self, jobs: Sequence[Job], *, only_judged: bool = False) -> Iterator[tuple[list[Job], Trainer]]:
        """Banks with all jobs in their trainers' orders."""
        tokens = self.study.protocol.batch_size * float(np.diff(self.pools["train"].offsets).mean())
        most = max(1, int(BANK_TOKENS / tokens))
        ordered = sorted(jobs, key=lambda job: stacking_order(job.config))
        # Full fine-tuning's columns are many, and a kernel has room for the most of any run.
        for full, of_kind in itertools.groupby(ordered, key=lambda job: job.cell == FULL):
            kind = list(of_kind)
            for first in range(0, len(kind), most):
                bank = kind[first : first + most]
                trainer = Trainer(
                    self.backbone,
                    [job.config for job in bank],
                    self.data,
                    pools=self.pools,
                    compiled=False if only_judged or full else None,
                )
                for run, job in enumerate(bank):
                    if job.adapter is not None:
                        trainer.bank.start_from(run, job.adapter, job.head or {})
                yield bank, trainer
                trainer.forget()

    def trained(self, jobs: Sequence[Job]) -> list[tuple[Job, Result]]:
        """Train every job to the end."""
        return [found for bank, trainer in self.trainers(jobs) for found in zip(bank, trainer.train(), strict=True)]

    def judged(self, jobs: Sequence[Job]) -> list[tuple[Job, dict[str, Outcome]]]:
        """Judge what every job starts from."""
        banks = self.trainers(jobs, only_judged=True)
        return [found for bank, trainer in banks for found in zip(bank, trainer.judge(), strict=True)]


def place(study: Study, backbone: Backbone, task: str, draws: Iterable[int], data_dir: Path | None) -> Place:
    """Load a task's draws."""
    spec = study.specs()[task]
    caps = study.protocol.caps
    data = {draw: load_task(spec, data_dir=data_dir, caps=caps, data_seed=draw) for draw in draws}
    return Place(study, backbone, data, pools_of(data, backbone, study.protocol))


def load(study_file: Path, device: str | None) -> tuple[Study, Backbone]:
    """The study and its backbone, on which full fine-tuning is made a family of this process."""
    study = load_study(study_file)
    if not study.draws or not study.ladder.pairs or any(pair.keys() != {"lora", "cp"} for pair in study.ladder.pairs):
        raise InputError(f"{study_file}: give draws, and ladder.pairs of lora and cp at equal scalars")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    backbone = load_backbone(
        study.backbone, dtype=study.protocol.dtype, device=device, target_modules=study.target_modules
    )
    require_packable(backbone)
    FAMILIES[FULL[0]] = cast(Family, Full())
    return study, backbone


def full_config(study: Study, backbone: Backbone, task: str, draw: int, rate: float) -> RunConfig:
    """Full fine-tuning on one draw."""
    options = {"inputs": backbone.projections[0].in_features}
    counting.require(FULL[0], backbone.projections, options)
    return RunConfig(
        backbone=study.backbone_name,
        task=task,
        family=FULL[0],
        size=FULL[1],
        seed=draw,
        data_seed=draw,
        protocol=study.protocol,
        learning_rate=rate,
        scale=1.0,
        options=options,
        target_modules=study.target_modules,
    )


def choose_rate(study: Study, backbone: Backbone, data_dir: Path | None) -> dict[str, Any]:
    """The rate of full fine-tuning that is best on dev over all tasks; a tie goes to the lower rate.

    Each run counts with its best evaluation, and with none right where it diverged before its first.
    """
    accuracies: dict[float, dict[str, list[float]]] = {rate: {} for rate in FULL_RATES}
    for task in study.specs():
        at = place(study, backbone, task, CHOOSING, data_dir)
        jobs = [Job(full_config(study, backbone, task, draw, rate)) for rate in FULL_RATES for draw in CHOOSING]
        for job, result in at.trained(jobs):
            best = max((each.dev_accuracy for each in result.evaluations), default=0.0)
            accuracies[cast(float, job.config.learning_rate)].setdefault(task, []).append(best)
    means = {rate: np.mean([np.mean(found) for found in by_task.values()]) for rate, by_task in accuracies.items()}
    return {
        "draws": CHOOSING,
        "dev_accuracy": {str(rate): by_task for rate, by_task in accuracies.items()},
        "chosen": max(FULL_RATES, key=lambda rate: (means[rate], -rate)),
    }


def measure_task(study: Study, backbone: Backbone, task: str, rate: float, data_dir: Path | None) -> dict[str, Any]:
    """All that is measured of one task: runs, judged approximations, and the table of errors.

    Args:
        study: as `load` checked it.
        backbone: its backbone.
        task: one of its tasks.
        rate: of full fine-tuning.
        data_dir: folder of the tasks' data, instead of the hub.
    """
    at = place(study, backbone, task, study.draws, data_dir)
    pairs = [(("lora", pair["lora"]), ("cp", pair["cp"])) for pair in study.ladder.pairs]
    asked = [Job(run.config) for run in study.runs(backbone.projections, task=task)]
    asked += [Job(full_config(study, backbone, task, draw, rate)) for draw in study.draws]
    first = at.trained(asked)
    by_place = {(job.cell, job.config.data_seed): (job.config, result) for job, result in first}
    if len(by_place) < len(first):
        raise InputError("the study trains one cell in several ways; give each size one setting")

    rows: list[dict[str, Any]] = []
    placed: list[Job] = []
    trained_on: list[Job] = []
    scales = {cell: cast(float, by_place[cell, study.draws[0]][0].scale) for cell in itertools.chain(*pairs)}
    for source in (*(lora for lora, _ in pairs), FULL):
        of_draws = [by_place[source, draw] for draw in study.draws]
        updates = [
            updates_of(config.family, result.adapter, cast(float, config.scale), config.shape_options)
            for config, result in of_draws
        ]
        at_equal_scalars = FULL if source == FULL else next(cp for lora, cp in pairs if lora == source)
        least = bounds(updates[0], [size for _, (_, size) in pairs])
        for cell, near in _approximations(source, updates, scales):
            for draw, update, adapter, (_, result) in zip(study.draws, updates, near, of_draws, strict=True):
                known = least if cell[0] == "cp" and draw == study.draws[0] else None
                rows += _errors(draw, source, update, adapter, cell, scales[cell], known)
                job = Job(by_place[cell, draw][0], source, adapter, result.head)
                placed.append(job)
                if at_equal_scalars in (FULL, cell):
                    trained_on.append(job)
        mixed = [_shuffled(update) for update in updates]
        components = {cell: scale for cell, scale in scales.items() if cell[0] == "cp"}
        for cell, near in _approximations(source, mixed, components, restarts=1):
            for draw, update, adapter in zip(study.draws, mixed, near, strict=True):
                rows += _errors(draw, source, update, adapter, cell, scales[cell], shuffled=True)
    for cell in (*itertools.chain(*pairs), FULL):
        for draw in study.draws:
            config, result = by_place[cell, draw]
            trained_on.append(Job(config, cell, result.adapter, result.head))

    runs = [_run(job, "trained", result) for job, result in first]
    runs += [_run(job, "placed", outcomes=outcomes) for job, outcomes in at.judged(placed)]
    runs += [_run(job, "trained on", result) for job, result in at.trained(trained_on)]
    return {
        "study": study.name,
        "backbone": study.backbone_name,
        "task": task,
        "weights": dataclasses.asdict(backbone.source),
        "protocol": dataclasses.asdict(study.protocol),
        "full_rate": rate,
        "provenance": dataclasses.asdict(provenance(backbone.model.device)),
        "scalars": {
            f"{cell[0]} {cell[1]}": counting.count(*_counted(cell, backbone, by_place[cell, study.draws[0]][0]))
            for cell in dict.fromkeys(cell for cell, _ in by_place)
            if cell[0] != HEAD
        },
        "draws": {draw: _drawn(data, first, draw) for draw, data in at.data.items()},
        "runs": runs,
        "errors": {name: [row[name] for row in rows] for name in rows[0]},
    }


def _approximations(
    source: Cell, updates: Sequence[Updates], scales: Mapping[Cell, float], restarts: int = RESTARTS
) -> Iterator[tuple[Cell, Sequence[Adapter]]]:
    """Every cell with its nearest adapters to a source's updates, without ranks that the updates have themselves."""
    for cell, scale in scales.items():
        family, size = cell
        if family == "cp":
            generator = torch.Generator().manual_seed(SEED)
            yield cell, nearest_adapters(family, updates, size, scale, generator=generator, restarts=restarts)
    of_ranks = {cell: scale for cell, scale in scales.items() if cell[0] == "lora"}
    lower = {cell: scale for cell, scale in of_ranks.items() if source == FULL or cell[1] < source[1]}
    for scale in dict.fromkeys(lower.values()):
        # One decomposition holds those of all lower ranks.
        sizes = [size for (_, size), known in lower.items() if known == scale]
        largest = nearest_adapters("lora", updates, max(sizes), scale, generator=torch.Generator())
        for size in sizes:
            yield (
                ("lora", size),
                [
                    {
                        module: {name: part[:size] for name, part in params.items()}
                        for module, params in adapter.items()
                    }
                    for adapter in largest
                ],
            )


def _counted(cell: Cell, backbone: Backbone, config: RunConfig) -> tuple[Any, ...]:
    return cell[0], backbone.projections, cell[1], config.shape_options


def _errors(
    draw: int,
    source: Cell,
    update: Updates,
    adapter: Adapter,
    cell: Cell,
    scale: float,
    least: Mapping[str, Mapping[int, float]] | None = None,
    *,
    shuffled: bool = False,
) -> list[dict[str, Any]]:
    return [
        {
            "draw": draw,
            "source": list(source),
            "shuffled": shuffled,
            "module": fit.module,
            "family": fit.family,
            "size": fit.size,
            "scalars": fit.scalars,
            "norm": _rounded(float(update[fit.module].norm())),
            "error": _rounded(fit.error),
            "bound": None if least is None else _rounded(least[fit.module][cell[1]]),
            "spread": None if fit.spread is None else _rounded(fit.spread),
        }
        for fit in fits(cell[0], update, adapter, scale)
    ]


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _shuffled(update: Updates) -> dict[str, Tensor]:
    """The same matrices with rows and columns in random order: a rank fits as before, but modes mean nothing."""
    generator = torch.Generator().manual_seed(SEED)
    return {
        module: matrix[torch.randperm(matrix.shape[0], generator=generator).to(matrix.device)][
            :, torch.randperm(matrix.shape[1], generator=generator).to(matrix.device)
        ]
        for module, matrix in update.items()
    }


def _run(
    job: Job, stage: str, result: Result | None = None, outcomes: Mapping[str, Outcome] | None = None
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "draw": job.config.data_seed,
        "cell": list(job.cell),
        "source": None if job.source is None else list(job.source),
        "stage": stage,
        "learning_rate": job.config.learning_rate,
        "warmup_steps": job.config.warmup_steps,
        "scale": job.config.scale,
    }
    if result is not None:
        named = {"dev": result.dev, "eval": result.outcome, "rest": result.rest}
        outcomes = {name: outcome for name, outcome in named.items() if outcome is not None}
        found |= {
            "best_step": result.best_step,
            "diverged_at": result.diverged_at,
            "evaluations": [dataclasses.asdict(each) for each in result.evaluations],
            "seconds": round((result.cost.train_seconds + result.cost.evaluation_seconds) / result.cost.bank_runs, 3),
        }
    # What is asked stands once, with the draw. Margins would make files of many runs large.
    return found | {
        name: {
            "correct": outcome.correct,
            "total": outcome.total,
            "right": pack_bitmap(np.flatnonzero(outcome.is_right), outcome.total),
        }
        for name, outcome in (outcomes or {}).items()
    }


def _drawn(data: TaskData, runs: Sequence[tuple[Job, Result]], draw: int) -> dict[str, Any]:
    """What the runs on a draw were asked: rows, which of them, and their labels, as in an `Outcome`."""
    found: dict[str, Any] = {"fingerprint": data.fingerprint}
    for job, result in runs:
        if job.config.data_seed == draw:
            for name, outcome in (("dev", result.dev), ("eval", result.outcome), ("rest", result.rest)):
                if outcome is not None:
                    found[name] = {"rows": outcome.rows, "drawn": outcome.drawn, "labels": outcome.labels}
    return found


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write a record, compressed, whole or not at all."""
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    write_atomically(path, lzma.compress(text.encode(), preset=9))


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

StudyFile = Annotated[Path, typer.Argument(help="The study file.")]
Data = Annotated[Path | None, typer.Option(envvar="CPADAPT_DATA_DIR", help="Folder of the tasks' data.")]
Results = Annotated[Path, typer.Option(help="Folder for the results.")]
Device = Annotated[str | None, typer.Option(help="As torch names it.")]


def rate_file(results: Path, study: Study) -> Path:
    """Where the choice of a study's rate is kept."""
    return results / f"{study.name}-rate.json.xz"


@app.command()
def rates(study_file: StudyFile, results: Results, data_dir: Data = None, device: Device = None) -> None:
    """Choose the rate of full fine-tuning on dev."""
    study, backbone = load(study_file, device)
    found = choose_rate(study, backbone, data_dir)
    write(rate_file(results, study), found | {"provenance": dataclasses.asdict(provenance(backbone.model.device))})


@app.command()
def measure(
    study_file: StudyFile,
    task: Annotated[str, typer.Argument(help="One of the study's tasks.")],
    results: Results,
    data_dir: Data = None,
    device: Device = None,
) -> None:
    """Train, approximate and train on, on one task."""
    study, backbone = load(study_file, device)
    chosen = rate_file(results, study)
    if not chosen.exists():
        raise InputError(f"{chosen} does not exist: choose the rate of full fine-tuning first, with `rates`")
    rate = json.loads(lzma.decompress(chosen.read_bytes()))["chosen"]
    write(results / f"{study.name}-{task}.json.xz", measure_task(study, backbone, task, rate, data_dir))


if __name__ == "__main__":
    try:
        app()
    except InputError as error:
        sys.exit(f"error: {error}")
