"""Which adapter a task of one's own needs: what to train, and what the records then advise.

`plan` names the sizes to compare, three learning rates for each, and several draws of the data. `advise` then decides
in two steps that see different examples, so that no number is the winner among those it is reported with:

1. Dev chooses each size's rate, and the size: the smallest within one standard error of the best (Breiman, Friedman,
   Olshen and Stone, *Classification and Regression Trees*, 1984, section 3.4.3).
2. Eval judges what dev chose, with intervals over draws and items.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Literal

from cpadapt.analysis.across_tasks import difference
from cpadapt.analysis.cells import RunSetting, cells_at, choose_rates, setting_of
from cpadapt.analysis.charts import cell_name
from cpadapt.analysis.statistics import Estimate, Mean, compare, estimate, items_needed, seeds_needed
from cpadapt.errors import InputError, is_number
from cpadapt.families import counting, family
from cpadapt.inputs.backbones.projections import load_projections
from cpadapt.inputs.backbones.specs import Projection
from cpadapt.inputs.tasks.examples import load_task
from cpadapt.inputs.tasks.specs import load_spec
from cpadapt.records.config import HEAD, Cell, Protocol
from cpadapt.records.record import Record
from cpadapt.study import MOST_SEEDS, FamilyPlan, Ladder, Study

RATES = (10, 30, 100)
"""The learning rates that each size is trained at, in multiples of its family's default."""

DRAWS = 3
"""The fewest draws of train and dev, each with its own initial weights, unless others are asked for."""

MARGIN = 0.02
"""A smaller difference in accuracy counts as none."""


def plan(
    task: str,
    backbone: str,
    runs: int | None = None,
    *,
    draws: int = DRAWS,
    protocol: Protocol | None = None,
    target_modules: tuple[str, ...] | None = None,
) -> Study:
    """The study that finds the smallest sufficient adapter within a number of runs.

    It has the head alone, the smallest CP and LoRA's first rank and, with more runs, further sizes (`_sizes`) and then
    more draws.

    Args:
        task: a known task, or a TOML file that describes another.
        backbone: as in `Study`.
        runs: the most runs; by default the fewest that so many draws take.
        draws: the fewest draws, 2 or more.
        protocol: what all runs share.
        target_modules: as in `Study`.

    Raises:
        InputError: there are too few or too many runs or draws; or as `cpadapt.load_projections` and `Study`.
    """
    sizes = _sizes(load_projections(backbone, target_modules))
    # One run of the head for each draw, and one of each size and rate.
    per_draw = [1 + len(RATES) * count for count in range(2, len(sizes) + 1)]
    if draws < 2:
        raise InputError(f"draws = {draws}: an interval takes 2 or more")
    fewest = draws * per_draw[0]
    runs = fewest if runs is None else runs
    if runs < fewest:
        raise InputError(
            f"a budget of {runs} runs is too small: {draws} draws of the head alone and of two adapters at"
            f" {len(RATES)} learning rates are {fewest}"
        )
    most = max(count for count in per_draw if draws * count <= runs)
    chosen = sizes[: (most - 1) // len(RATES)]
    by_family = {name: tuple(sorted(size for label, size in chosen if label == name)) for name, _ in sizes[:2]}
    if runs // most > MOST_SEEDS:
        raise InputError(f"a budget of {runs} runs is {runs // most} draws; at most {MOST_SEEDS:,} are possible")
    return Study(
        name=load_spec(task).name,
        backbone=backbone,
        tasks=(task,),
        ladder=Ladder(head=True, sizes=by_family),
        draws=tuple(range(runs // most)),
        families={
            name: FamilyPlan(learning_rates=tuple(times * family(name).LEARNING_RATE for times in RATES))
            for name in by_family
        },
        protocol=protocol or Protocol(),
        target_modules=target_modules,
    )


def _sizes(projections: Sequence[Projection]) -> list[Cell]:
    """The sizes worth comparing, the most telling first.

    They are the smallest CP, LoRA's first rank, CP of equal size, CP half-way between on a logarithmic scale, and two
    larger ranks.
    """
    equal = counting.largest_size("cp", projections, counting.count("lora", projections, 1))
    wanted = [("cp", 1), ("lora", 1), ("cp", equal), ("cp", math.isqrt(equal)), ("lora", 4), ("lora", 16)]
    return list(dict.fromkeys((label, size) for label, size in wanted if size))


def examples(task: str, steps: int, data_dir: str | Path | None = None) -> dict[str, int]:
    """The protocol's caps on train and dev for a task of any size.

    Dev has a quarter of the training split, at most 500, and train the rest, but no more than training sees.

    Args:
        task: as in `plan`.
        steps: training examples that a run sees, steps times batch size.
        data_dir: as in `cpadapt.load_task`.

    Raises:
        InputError: as `cpadapt.load_task`.
    """
    source = load_task(load_spec(task), data_dir=data_dir, caps=(1, 1, 0)).summary["source"]["train"]
    distinct = source["rows"] - source["left_out_repeats"] - source["left_out_in_eval"]
    dev = min(500, distinct // 4)
    return {"dev_cap": dev, "train_cap": min(distinct - dev, steps)}


def runs_within(minutes: float, timed: Iterable[Record]) -> int:
    """The number of runs that take so many minutes, if each takes as long as those timed.

    Raises:
        InputError: the minutes are not positive, or no run was timed.
    """
    if not (is_number(minutes) and minutes > 0):
        raise InputError(f"minutes = {minutes}: must be positive")
    seconds = [(r.cost.train_seconds + r.cost.evaluation_seconds) / r.cost.bank_runs for r in timed]
    if not seconds:
        raise InputError("there are no runs to time; time at least one")
    return int(60 * minutes / fmean(seconds))


@dataclass(frozen=True)
class Judged:
    """One cell at the setting that dev chose."""

    cell: Cell
    scalars: int
    setting: RunSetting
    dev: float
    """Mean accuracy on dev."""
    behind: Mean | None
    """The best cell's accuracy on dev minus this one's; `None` for the best."""
    accuracy: Estimate
    """On eval."""
    gain: Estimate | None
    """Accuracy on eval minus that of the head alone; `None` for the head."""
    runs: tuple[Record, ...]

    @property
    def name(self) -> str:
        """Its printed name, such as `CP 9`."""
        return cell_name(*self.cell)


Verdict = Literal["adapter", "head", "too few", "nothing"]


@dataclass(frozen=True)
class Advice:
    """What a task's records advise."""

    verdict: Verdict
    """`adapter`: the adapter is shown to be better than the head alone. `head`: it is shown not to gain as much as the
    margin. `too few`: neither is shown. `nothing`: the best is not shown to beat the commonest answer."""
    judged: tuple[Judged, ...]
    """All cells whose runs all have outcomes, by trainable scalars."""
    best: Judged
    """The cell that is best on dev."""
    plateau: Judged
    """The smallest cell that is within one standard error of the best on dev."""
    adapter: Judged
    """The plateau or, if that is the head alone, the adapter that is best on dev."""
    gain: Estimate
    """That adapter's accuracy on eval minus that of the head alone."""
    loss: Estimate | None
    """The best cell's accuracy on eval minus that adapter's; `None` if they are the same."""
    majority: float
    """The share of the commonest answer on eval."""

    @property
    def run(self) -> Record:
        """The adapter's run that is best on dev, to be used."""
        return max(self.adapter.runs, key=_dev_accuracy)

    def __str__(self) -> str:
        """The advice in two or three sentences."""
        name, gains = self.adapter.name, f"gains {_points(self.gain)} over the head alone"
        if self.verdict == "nothing":
            low, high = (100 * end for end in self.best.accuracy.interval())
            return (
                f"No adapter is shown to learn this task: the best, {self.best.name}, is right on"
                f" {100 * self.best.accuracy.mean:.1f} % ({low:.1f} to {high:.1f}) of eval, and the commonest answer"
                f" on {100 * self.majority:.1f} %."
            )
        if self.verdict == "head":
            return f"The head alone is as good: {name} {gains}."
        if self.verdict == "too few":
            return f"Too few items to tell: {name} {gains}. {_needed(self.gain)}"
        text = f"Take {name}, {self.adapter.scalars:,} scalars, at the rate {self.adapter.setting.learning_rate:g}."
        text += f" It {gains}"
        if self.loss is None:
            return f"{text}, and is the best on dev."
        if self.loss.interval()[0] > 0:
            return f"{text}. {self.best.name} is better by {_points(self.loss)}: take that if it fits."
        return f"{text}. {self.best.name}, the best on dev, is not shown to be better: {_points(self.loss)}."


def advise(records: Iterable[Record], margin: float = MARGIN) -> Advice:
    """What one task's records advise.

    Args:
        records: runs of the head alone and of adapters, each at several settings on the same draws, as of `plan`.
        margin: a smaller gain counts as none.

    Raises:
        InputError: there are no runs of the head or of an adapter that have outcomes; or as
            `cpadapt.analysis.cells.choose_rates` and `cpadapt.analysis.across_tasks.difference`.
    """
    records = list(records)
    settings = choose_rates(records)
    cells = cells_at(records, settings)
    runs = {cell: _at_setting(records, cell, settings) for cell in cells.outcomes}
    head = (HEAD, 0)
    if head not in runs or len(runs) < 2:
        raise InputError("advice takes runs of the head alone and of an adapter; all of one or the other are missing")
    by_size = sorted(runs, key=lambda cell: (cells.budgets[cell], cell))
    dev = {cell: fmean(_dev_accuracy(run) for run in runs[cell]) for cell in by_size}
    best = max(by_size, key=dev.__getitem__)
    judged = {
        cell: Judged(
            cell=cell,
            scalars=cells.budgets[cell],
            setting=settings[cell],
            dev=dev[cell],
            behind=None
            if cell == best
            else difference([(1, _on_dev(runs[best])), (-1, _on_dev(runs[cell]))]).estimate,
            accuracy=estimate(cells.outcomes[cell].right),
            gain=None if cell == head else compare(cells.outcomes[cell], cells.outcomes[head]),
            runs=runs[cell],
        )
        for cell in by_size
    }
    plateau = next(
        one for one in judged.values() if one.behind is None or one.behind.mean <= one.behind.standard_error
    )
    adapter = plateau if plateau.gain else judged[max((one for one in by_size if one != head), key=dev.__getitem__)]
    assert adapter.gain is not None
    return Advice(
        verdict=_verdict(judged[best], adapter.gain, cells.majority, margin),
        judged=tuple(judged.values()),
        best=judged[best],
        plateau=plateau,
        adapter=adapter,
        gain=adapter.gain,
        loss=None if adapter.cell == best else compare(cells.outcomes[best], cells.outcomes[adapter.cell]),
        majority=cells.majority,
    )


def _verdict(best: Judged, gain: Estimate, majority: float, margin: float) -> Verdict:
    low, high = gain.interval()
    if best.accuracy.interval()[0] <= majority:
        return "nothing"
    if high < margin:
        return "head"
    return "adapter" if low > 0 else "too few"


def _at_setting(records: Iterable[Record], cell: Cell, settings: Mapping[Cell, RunSetting]) -> tuple[Record, ...]:
    return tuple(r for r in records if (r.label, r.config.size) == cell and setting_of(r) == settings[cell])


def _on_dev(runs: Iterable[Record]) -> list[Record]:
    """The runs with what they answered on dev in place of eval."""
    return [replace(run, outcome=run.dev, rest=None) for run in runs]


def _dev_accuracy(run: Record) -> float:
    return run.best.dev_accuracy if run.best else 0.0


def _needed(gain: Estimate) -> str:
    """How many eval items or, where no number of them is enough, how many draws would show a gain of this size."""
    more = "more draws and eval items"
    if gain.mean > 0:
        if items := items_needed(gain, gain.mean, gain.seeds):
            more = f"some {_about(items):,} eval items"
        elif draws := seeds_needed(gain, gain.mean):
            more = f"some {_about(draws):,} draws"
    return f"It would take {more} to show a gain of that size."


def _about(number: int) -> int:
    """A number to two digits, because the variances behind it are rough."""
    return int(float(f"{number:.2g}"))


def _points(mean: Mean) -> str:
    low, high = (100 * end for end in mean.interval())
    return f"{100 * mean.mean:.1f} points ({low:.1f} to {high:.1f})".replace("-", "−")
