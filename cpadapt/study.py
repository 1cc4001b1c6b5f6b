"""A study file → its runs, with their ids, and the banks that they train in: the one way in for the command line,
the notebooks and Python."""

import itertools
import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator
from pydantic.dataclasses import dataclass as validated

from cpadapt.bank.bank import stacking_order
from cpadapt.errors import STRICT, InputError, explain
from cpadapt.families import counting, family
from cpadapt.inputs.backbones.specs import BACKBONES, Projection
from cpadapt.inputs.tasks.specs import TaskSpec, load_spec
from cpadapt.records.config import HEAD, Protocol, RunConfig


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
            InputError: no family has so small an adapter, or a family on the ladder refuses a projection.
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
        wanted = list(dict.fromkeys(wanted))
        for label in dict.fromkeys(cell.label for cell in wanted if cell.label != HEAD):
            counting.require(self.families[label].family or label, projections, self._shape_options(label))
        return wanted

    def _matched(self, projections: Sequence[Projection], budget: int) -> list[Cell]:
        for pair in self.ladder.pairs:
            if budget in {self._count(projections, label, size) for label, size in pair.items()}:
                return [Cell(label, size) for label, size in pair.items()]
        sizes = {
            label: counting.largest_size(plan.family or label, projections, budget, self._shape_options(label))
            for label, plan in self.families.items()
        }
        return [Cell(label, size) for label, size in sizes.items() if size]

    def _count(self, projections: Sequence[Projection], label: str, size: int) -> int:
        name = self.families[label].family or label
        return counting.count(name, projections, size, self._shape_options(label))

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


def with_protocol(study: Study, **changes: Any) -> Study:
    """The study with other values in its protocol.

    Raises:
        InputError: a value is wrong, or the protocol has no such field.
    """
    try:
        return replace(study, protocol=replace(study.protocol, **changes))
    except ValidationError as error:
        raise InputError(explain(error)) from None
