"""From a study file to its runs and their banks, for the command line, the notebooks and Python."""

import itertools
import math
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass as validated

from cpadapt.errors import STRICT, UNPARSABLE, InputError, did_you_mean, explain, explained, no_truth_value
from cpadapt.families import counting, family_or_tuner
from cpadapt.families.planted import Teacher
from cpadapt.inputs.backbones.specs import BACKBONES, Projection
from cpadapt.inputs.folders import local_folder
from cpadapt.inputs.tasks.specs import TaskSpec, load_spec
from cpadapt.records.config import HEAD, Cell, Protocol, RunConfig, require_seeds, stacking_order
from cpadapt.records.record import Record


@explained
@validated(frozen=True, config=STRICT)
class Setting:
    """One way of training a family's adapters; each setting is a separate run."""

    learning_rate: float
    scale: float | None = None
    """The factor in front of the pair; by default the family plan's."""
    warmup_steps: int | None = None
    """Steps in which the rate rises linearly from 0; by default the protocol's number."""
    sizes: tuple[int, ...] | None = None
    """Ranks or components that the setting applies to; by default all on the ladder."""

    _numbers = field_validator("*", mode="before")(no_truth_value)


@explained
@validated(frozen=True, config=STRICT)
class FamilyPlan:
    """How a study trains one family, or one variant of it."""

    family: str | None = None
    """The name of the family or of one of PEFT's tuners; by default the label under which the study lists it."""
    learning_rates: tuple[float, ...] | None = None
    """Each rate is a separate run; by default the family's rate, unless there are `settings`. PEFT's tuners have no
    default."""
    settings: tuple[Setting, ...] = ()
    """Further ways of training, for runs that differ in more than their rate, or rates that differ by size."""
    scale: float | None = None
    """The factor in front of the pair; by default the family's."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options that override the family's defaults.

    :meta hide-value:
    """

    _numbers = field_validator("learning_rates", "scale", mode="before")(no_truth_value)

    def settings_of(self, name: str, size: int) -> list[Setting]:
        """The settings for an adapter of this size, with the plan's and the family's defaults filled in.

        Args:
            name: the family.
            size: rank or components.

        Raises:
            InputError: there is no setting for this size, or one is given twice.
        """
        known = family_or_tuner(name)
        rates = self.learning_rates
        if rates is None:
            rates = () if self.settings or known.LEARNING_RATE is None else (known.LEARNING_RATE,)
        scale = known.SCALE if self.scale is None else self.scale
        settings = [Setting(rate, scale) for rate in rates]
        settings += [
            replace(setting, scale=scale if setting.scale is None else setting.scale, sizes=None)
            for setting in self.settings
            if setting.sizes is None or size in setting.sizes
        ]
        if not settings:
            raise InputError(
                f"family {name!r} has no setting for size {size}: give learning_rates, or add a setting with sizes ="
                f" [{size}]"
            )
        if twice := next((setting for k, setting in enumerate(settings) if setting in settings[:k]), None):
            raise InputError(f"family {name!r} has the setting {twice} twice at size {size}")
        return settings


@explained
@validated(frozen=True, config=STRICT)
class Ladder:
    """The sizes that a study compares; at least one of these must be given."""

    head: bool = False
    """Whether to add runs without an adapter, which train the readout alone."""
    budgets: tuple[int, ...] = ()
    """Trainable scalars over all target modules; each family takes its largest size at or under each."""
    sizes: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    """Ranks or components by family label.

    :meta hide-value:
    """
    pairs: tuple[dict[str, int], ...] = ()
    """Sizes, by family label, that are compared as if at the same budget, although their counts differ."""

    _numbers = field_validator("budgets", "sizes", "pairs", mode="before")(no_truth_value)

    def __post_init__(self) -> None:
        if not (self.head or self.budgets or self.sizes or self.pairs):
            raise InputError("the ladder is empty: give budgets, sizes, pairs or head = true")
        if empty := [label for label, sizes in self.sizes.items() if not sizes]:
            raise InputError(f"ladder.sizes.{empty[0]} is empty: give at least one size, or leave it out")
        if not all(self.pairs):
            raise InputError("a pair on the ladder is empty: give sizes by family, such as {lora = 1, cp = 11}")


class Run(NamedTuple):
    """A run that a study asks for."""

    label: str
    """What the study calls this variant of a family, or `head`."""
    config: RunConfig
    """What to train, on what, from which seeds."""


MOST_SEEDS = 100_000
"""Above the number of runs that any cell has had, and few enough to list."""


def seeds_of(text: str) -> tuple[int, ...]:
    """Read seeds written as ranges and single numbers, such as `0-99` or `0,3,7-9`.

    Raises:
        InputError: a part is neither, a range runs backwards, or there are more than `MOST_SEEDS`.
    """
    seeds: list[int] = []
    for part in text.split(","):
        if not (match := re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())):
            raise InputError(f"seeds {text!r}: write ranges and numbers, such as 0-2 or 0,3,7")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise InputError(f"seeds {text!r}: {part.strip()} runs backwards")
        if len(seeds) + last - first >= MOST_SEEDS:
            raise InputError(f"seeds {text!r}: at most {MOST_SEEDS:,} are possible")
        seeds += range(first, last + 1)
    return tuple(seeds)


@explained
@validated(frozen=True, config=STRICT)
class Study:
    """What to measure. Every run follows from its fields."""

    name: str
    """Letters, digits, `.`, `_` and `-`; also the folder of its records under `results/`."""
    backbone: str
    """A known name, a hub id or a local folder, as in `load_backbone`."""
    tasks: tuple[str, ...]
    """Names of known tasks, or TOML files that describe others."""
    ladder: Ladder
    seeds: tuple[int, ...] = (0,)
    """Seeds of the initial weights and of the order of the data; each is a separate run. Text is read by
    `seeds_of`."""
    data_seeds: tuple[int, ...] = (0,)
    """Seeds of the draw of train and dev; all runs are repeated for each. Text is read by `seeds_of`."""
    order_seeds: tuple[int, ...] = ()
    """Seeds of the order of the data alone, crossed with `seeds`; by default each seed decides its order too."""
    draws: tuple[int, ...] = ()
    """Numbers that serve as both seed and data seed, instead of `seeds` and `data_seeds`, so that a cell's runs share
    nothing. Text is read by `seeds_of`."""
    families: dict[str, FamilyPlan] = Field(default_factory=lambda: {"lora": FamilyPlan(), "cp": FamilyPlan()})
    """How each family is trained, by label; by default `lora` and `cp`, each at the paper's rate.

    :meta hide-value:
    """
    protocol: Protocol = Field(default_factory=Protocol)
    """What all runs share; by default the defaults of `Protocol`.

    :meta hide-value:
    """
    target_modules: tuple[str, ...] | None = None
    """The last parts of the modules' paths, such as `q_proj`; by default those that PEFT adapts with LoRA."""
    teachers: tuple[Teacher, ...] = ()
    """What is planted into the backbone to make a teacher; all runs are repeated for each, and are trained to match
    its class probabilities. By default runs are trained on the tasks' labels."""
    about: str = ""
    """What the study is for, in a sentence."""

    @field_validator("seeds", "data_seeds", "order_seeds", "draws", mode="before")
    @classmethod
    def _read_text(cls, given: object, info: ValidationInfo) -> object:
        return seeds_of(given) if isinstance(given, str) else no_truth_value(given, info)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            raise InputError(
                f"name = {self.name!r}: use letters, digits, '.', '_' and '-', and start with a letter or digit"
            )
        if self.draws and ((self.seeds, self.data_seeds) != ((0,), (0,)) or self.order_seeds):
            raise InputError("draws replace seeds, data_seeds and order_seeds: give either, not both")
        for name in ("tasks", "seeds", "data_seeds", "order_seeds", "draws", "families", "teachers"):
            values = list(getattr(self, name))
            if not values and name not in ("order_seeds", "draws", "teachers"):
                raise InputError(f"{name} is empty: give at least one")
            if "seeds" in name or name == "draws":
                require_seeds(name, values)
            if len(set(values)) < len(values):
                raise InputError(f"{name} = {values}: values must be unique")
        for label, plan in self.families.items():
            if label == HEAD:
                raise InputError(f"{HEAD!r} is not a family: set ladder.head = true")
            family_or_tuner(plan.family or label)
        if self.target_modules == ():
            raise InputError("target_modules is empty: name at least one, such as q_proj, or leave it out")
        for label in {*self.ladder.sizes, *(label for pair in self.ladder.pairs for label in pair)}:
            if label not in self.families:
                hint = did_you_mean(label, self.families)
                raise InputError(
                    f"the ladder names {label!r}, which is not among the families: {', '.join(self.families)}{hint}"
                )

    def specs(self) -> dict[str, TaskSpec]:
        """The specs of the study's tasks, by name.

        Raises:
            InputError: there is no such task, a task's file is wrong, or two tasks have the same name.
        """
        specs = [load_spec(task) for task in self.tasks]
        names = [spec.name for spec in specs]
        if len(set(names)) < len(names):
            raise InputError(f"two of the tasks have the same name: {', '.join(names)}")
        return dict(zip(names, specs, strict=True))

    def cells(self, projections: Sequence[Projection], budget: int | None = None) -> list[Cell]:
        """The cells on the ladder, or those at one budget.

        Args:
            projections: the backbone's target modules.
            budget: trainable scalars over all of them. The count of a pair's member selects that pair; for any other
                number each family takes its largest size at or under it.

        Raises:
            InputError: no family has an adapter that small, or a family refuses a projection, an option or a size.
        """
        for label, plan in self.families.items():
            counting.smallest(plan.family or label, self._shape_options(label))  # which raises for a wrong option
        wanted: list[Cell] = [(HEAD, 0)] if self.ladder.head else []
        if budget is not None:
            return wanted + self._matched(projections, budget)
        for amount in self.ladder.budgets:
            wanted += self._matched(projections, amount)
        for label, sizes in self.ladder.sizes.items():
            wanted += [(label, size) for size in sizes]
        for pair in self.ladder.pairs:
            wanted += list(pair.items())
        wanted = list(dict.fromkeys(wanted))
        for label, size in wanted:
            if label != HEAD:
                name = self.families[label].family or label
                counting.require_size(name, projections, size, self._shape_options(label))
        return wanted

    def _matched(self, projections: Sequence[Projection], budget: int) -> list[Cell]:
        """The cells at a budget, of which there is at least one."""
        for pair in self.ladder.pairs:
            if budget in {self.count(projections, label, size) for label, size in pair.items()}:
                return list(pair.items())
        sizes = {
            label: counting.largest_size(plan.family or label, projections, budget, self._shape_options(label))
            for label, plan in self.families.items()
        }
        if not any(sizes.values()):
            raise InputError(
                f"budget {budget} is below the smallest adapters: "
                + ", ".join(f"{label} {self._smallest_count(projections, label)}" for label in self.families)
            )
        return [(label, size) for label, size in sizes.items() if size]

    def count(self, projections: Sequence[Projection], label: str, size: int) -> int:
        """Trainable scalars of a cell's adapter over all target modules; 0 at size 0, for the head alone.

        Args:
            projections: the backbone's target modules.
            label: one of `families`, or `head`.
            size: rank or components.
        """
        if size == 0:
            return 0
        name = self.families[label].family or label
        return counting.count(name, projections, size, self._shape_options(label))

    def _smallest_count(self, projections: Sequence[Projection], label: str) -> int:
        name = self.families[label].family or label
        return self.count(projections, label, counting.smallest(name, self._shape_options(label)))

    def _shape_options(self, label: str) -> dict[str, Any]:
        plan = self.families[label]
        name = plan.family or label
        # A run's config parses and checks them.
        config = RunConfig(
            backbone=self.backbone_name,
            task=self.tasks[0],
            family=name,
            size=1,
            seed=0,
            data_seed=0,
            protocol=self.protocol,
            learning_rate=1.0,
            scale=family_or_tuner(name).SCALE,
            options=plan.options,
        )
        return config.shape_options

    @property
    def backbone_name(self) -> str:
        """The backbone's name in records, its known name, hub id or, for a local folder, the folder's name."""
        folder = None if self.backbone in BACKBONES else local_folder(self.backbone)
        return self.backbone if folder is None else folder.resolve().name

    @property
    def drawn(self) -> tuple[int, ...]:
        """The data seeds of the study's runs."""
        return self.draws or self.data_seeds

    @property
    def _seeds(self) -> list[tuple[int, int, int | None]]:
        """Data seed, seed and order seed of each of a cell's runs."""
        if self.draws:
            return [(draw, draw, None) for draw in self.draws]
        return list(itertools.product(self.data_seeds, self.seeds, self.order_seeds or (None,)))

    def runs(
        self, projections: Sequence[Projection], *, task: str | None = None, budget: int | None = None
    ) -> list[Run]:
        """Every run, task by task.

        Args:
            projections: the backbone's target modules.
            task: only the runs of this task, by its name or as the study lists it.
            budget: only the cells at this budget, as in `cells`.

        Raises:
            InputError: the study has no such task; or as `specs` and `cells`.
        """
        names = list(self.specs())
        if task is not None:
            if task not in (*names, *self.tasks):
                hint = did_you_mean(task, names)
                raise InputError(f"study {self.name!r} has no task {task!r}{hint}; it has {', '.join(self.tasks)}")
            names = [name for name, given in zip(names, self.tasks, strict=True) if task in (name, given)]
        for teacher in self.teachers:
            if teacher.size:  # which raises where this kind of update does not fit a projection
                counting.require_size(teacher.family, projections, teacher.size, teacher.shape_options)
        places: list[tuple[str, dict[str, Any]]] = []
        for label, size in self.cells(projections, budget):
            if label == HEAD:
                places.append((HEAD, {"family": HEAD, "size": 0}))
                continue
            plan = self.families[label]
            name = plan.family or label
            for setting in plan.settings_of(name, size):
                trained = asdict(setting) | {"family": name, "size": size, "options": plan.options}
                del trained["sizes"]
                places.append((label, trained))
        common: dict[str, Any] = {
            "backbone": self.backbone_name,
            "protocol": self.protocol,
            "target_modules": self.target_modules,
        }
        return [
            Run(
                label,
                RunConfig(
                    task=name,
                    data_seed=data_seed,
                    seed=seed,
                    order_seed=order_seed,
                    teacher=teacher,
                    **common,
                    **trained,
                ),
            )
            for name, teacher, (label, trained), (data_seed, seed, order_seed) in itertools.product(
                names, self.teachers or (None,), places, self._seeds
            )
        ]


def records_of_other_versions(
    study: Study, projections: Sequence[Projection], records: Iterable[Record]
) -> list[Record]:
    """The records under this study's name whose runs it does not ask for.

    They were measured before the study was edited, or with other values in its protocol (`with_protocol`).

    Args:
        study: in its present version.
        projections: the backbone's target modules.
        records: of any studies.

    Raises:
        InputError: as `Study.runs`.
    """
    asked = {run.config.config_id for run in study.runs(projections)}
    return [record for record in records if record.study == study.name and record.config_id not in asked]


def load_study(path: str | Path) -> Study:
    """Read a study file: TOML with the fields of `Study`.

    TOML has no null: "none" stands for `None` in the protocol. A task's file is named relative to the study's.

    Raises:
        InputError: there is no such file, it is not valid TOML, or a field is missing, unknown or wrong; each is
            named.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no study at {path}: there is no such file") from None
    except OSError as error:
        raise InputError(f"cannot read the study {path}: {error.strerror}") from None
    except UNPARSABLE as error:
        raise InputError(f"{path} is not valid TOML: {error}") from None
    if isinstance(content.get("protocol"), dict):
        content["protocol"] = {name: None if value == "none" else value for name, value in content["protocol"].items()}
    if isinstance(content.get("tasks"), list):
        content["tasks"] = [
            str(path.parent / task) if isinstance(task, str) and task.endswith(".toml") else task
            for task in content["tasks"]
        ]
    try:
        study: Study = TypeAdapter(Study).validate_python(content)
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error, Study)}") from None
    return study


@dataclass(frozen=True)
class Shard:
    """The `index`-th of `count` parts of a study, counted from 1."""

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise InputError(f"shard {self.index}/{self.count}: the first number must be from 1 to the second")

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read `I/N`, such as 1/2.

        Raises:
            InputError: the text is something else, or I is not from 1 to N.
        """
        if not (match := re.fullmatch(r"(\d+)/(\d+)", text)):
            raise InputError(f"shard {text!r}: write I/N, such as 1/2")
        return cls(int(match[1]), int(match[2]))

    def of(self, runs: Sequence[Run]) -> list[Run]:
        """This part of one task's runs.

        Whole draws or seeds are dealt out, because each belongs in one bank. If there are fewer of them than parts,
        single runs are dealt out in order of size, so that the parts cost about the same.
        """
        blocks = _blocks(runs)
        if len(blocks) >= self.count:
            return list(itertools.chain(*blocks[self.index - 1 :: self.count]))
        return _by_size(runs)[self.index - 1 :: self.count]


def _blocks(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs grouped by draw or, if all share one, by seed. A group is compared run by run and belongs in one bank."""
    several = len({run.config.data_seed for run in runs}) > 1
    blocks: dict[int, list[Run]] = {}
    for run in runs:
        blocks.setdefault(run.config.data_seed if several else run.config.seed, []).append(run)
    return list(blocks.values())


def _by_size(runs: Sequence[Run]) -> list[Run]:
    return sorted(runs, key=lambda run: stacking_order(run.config))


def banks_of(runs: Sequence[Run], run_tokens: float, most_tokens: float) -> list[list[Run]]:
    """Cut one task's runs into banks of whole draws or seeds, as evenly as possible.

    Args:
        runs: the task's runs.
        run_tokens: tokens that one run trains on in a step, on average.
        most_tokens: the most that a bank may train on in a step. A single draw or seed that exceeds it is cut too.
    """
    most = max(1, int(most_tokens / run_tokens))
    banks: list[list[Run]] = []
    small = []
    for block in _blocks(runs):
        if len(block) <= most:
            small.append(block)
        else:
            parts = math.ceil(len(block) / most)
            banks += [_by_size(block)[part::parts] for part in range(parts)]
    if small:
        count = math.ceil(len(small) / max(1, most // max(map(len, small))))
        cuts = [len(small) * i // count for i in range(count + 1)]
        banks += [list(itertools.chain(*small[a:b])) for a, b in itertools.pairwise(cuts)]
    return banks


def with_protocol(study: Study, **changes: Any) -> Study:
    """The study with other values in its protocol.

    Args:
        study: not changed.
        changes: new values by field of `Protocol`.

    Raises:
        InputError: a value is wrong, or the protocol has no such field.
    """
    return replace(study, protocol=replace(study.protocol, **changes))
