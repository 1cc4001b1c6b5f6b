"""Effects of settings on accuracy, from a designed experiment: many settings, each run on the same tasks and draws.

A factor is a setting that the design varies. Its levels are coded -1 (low), 1 (high) and, if it has one, 0 (middle).
On each draw the accuracy y of the settings is fitted by least squares::

    y = β₀ + Σᵢ βᵢ xᵢ + Σ_{i<j} βᵢⱼ xᵢ xⱼ + Σᵢ βᵢᵢ xᵢ²        (squares only of factors with a middle level)

and what is reported of a term is (Box, Hunter and Hunter, "Statistics for Experimenters", 2nd edition, chapter 5):

===========  ==========  ====================================================================
term         reported    meaning
===========  ==========  ====================================================================
main effect  2 βᵢ        from low to high, averaged over the other factors
interaction  2 βᵢⱼ       half of what the effect of i changes from low to high j
curvature    βᵢᵢ         the mean of both ends minus the middle, where the others are at 0
===========  ==========  ====================================================================

Each is a weighted sum of the settings' accuracies. Its error is therefore that of a difference, draw by draw and item
by item (`cpadapt.analysis.across_tasks`).
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cpadapt.analysis.across_tasks import OnTask, on_task, over_given_tasks
from cpadapt.analysis.statistics import Floats, Mean
from cpadapt.errors import InputError
from cpadapt.records.config import RunConfig
from cpadapt.records.record import Record

Term = tuple[str, ...]
"""The factors that a term multiplies, one for a main effect, two for an interaction, one twice for a curvature."""


@dataclass(frozen=True)
class Factor:
    """A setting that a design varies."""

    name: str
    setting: Callable[[RunConfig], object]
    """Reads it from a run's config."""
    levels: Mapping[object, int]
    """The code of each of its values, which is -1, 1 or 0."""

    def code(self, config: RunConfig) -> int:
        """The code of a run's level.

        Raises:
            InputError: the run's value is not one of the levels.
        """
        value = self.setting(config)
        if value not in self.levels:
            raise InputError(f"{self.name} = {value!r} is not a level of the design; its levels are {[*self.levels]}")
        return self.levels[value]


def terms_of(factors: Sequence[Factor]) -> list[Term]:
    """The terms whose effects are estimated: main effects, interactions of two factors, curvatures."""
    names = [factor.name for factor in factors]
    curved = [(factor.name,) * 2 for factor in factors if 0 in factor.levels.values()]
    return [*((name,) for name in names), *itertools.combinations(names, 2), *curved]


def contrasts(codes: Floats, factors: Sequence[Factor]) -> Floats:
    """The weights of the settings' accuracies in each term's effect.

    Args:
        codes: `[settings, factors]`, each setting's codes.
        factors: in the order of the codes.

    Returns:
        `[terms, settings]`, in the order of `terms_of`; a row sums to 0.

    Raises:
        InputError: the settings do not tell two terms apart; one such term is named.
    """
    terms = terms_of(factors)
    column = {factor.name: codes[:, i] for i, factor in enumerate(factors)}
    columns = [np.ones(len(codes)), *(np.prod([column[name] for name in term], axis=0) for term in terms)]
    for count, term in enumerate(terms, start=1):
        if np.linalg.matrix_rank(np.stack(columns[: count + 1])) <= count:
            raise InputError(f"the settings do not tell the effect of {' × '.join(term)} from those of other terms")
    weights = np.linalg.pinv(np.stack(columns, 1))[1:]
    unit = [1.0 if len(set(term)) < len(term) else 2.0 for term in terms]
    scaled: Floats = weights * np.array(unit)[:, None]
    return scaled


@dataclass(frozen=True)
class TermEffect:
    """The effect of one term, as a share of the items."""

    mean: Mean
    """Over the tasks at hand."""
    by_task: Mapping[str, OnTask]


def effects(records: Iterable[Record], factors: Sequence[Factor]) -> dict[Term, TermEffect]:
    """Effects on the accuracy on dev at each run's best step. A run without one has no item right.

    The intervals hold for other draws and items on the same tasks. Many terms are estimated, so some intervals leave
    out 0 by chance (`cpadapt.analysis.statistics.holm`).

    Args:
        records: one cell's runs at all settings of a design, each on the same tasks and draws.
        factors: what the design varies.

    Raises:
        InputError: as `design_of`, `contrasts`, `cpadapt.analysis.across_tasks.on_task` and
            `cpadapt.analysis.across_tasks.over_given_tasks`.
    """
    design = design_of(records, factors)
    return {
        term: effect_of(row, design.answers)
        for term, row in zip(terms_of(factors), contrasts(design.codes, factors), strict=True)
    }


class Answers(NamedTuple):
    """The answers of all settings on one draw of a task."""

    draw: int
    items: NDArray[np.int64]
    """`[items]`, their numbers, which other draws may share."""
    right: Floats
    """`[settings, items]`, 1 where the answer is right and 0 elsewhere."""


class Design(NamedTuple):
    """The settings of a design, and what runs at all of them answered."""

    codes: Floats
    """`[settings, factors]`, each setting's codes, ascending."""
    answers: Mapping[str, Sequence[Answers]]
    """By task, on each draw."""


def design_of(records: Iterable[Record], factors: Sequence[Factor]) -> Design:
    """The settings of runs, and their answers on dev at each run's best step.

    Args:
        records: one cell's runs at all settings of a design, each on the same tasks and draws.
        factors: what the design varies.

    Raises:
        InputError: a run's value is not a level of its factor, a setting lacks a run on some task and draw or has two,
            or runs of one draw have different dev items.
    """
    blocks: dict[tuple[str, int], dict[tuple[int, ...], Record]] = {}
    for record in records:
        block = blocks.setdefault((record.config.task, record.config.data_seed), {})
        codes = tuple(factor.code(record.config) for factor in factors)
        if codes in block:
            raise InputError(f"runs {block[codes].id} and {record.id} have one setting, task and draw")
        block[codes] = record
    settings = sorted(set().union(*blocks.values()))
    answers: dict[str, list[Answers]] = {}
    for (task, draw), block in sorted(blocks.items()):
        if missing := [codes for codes in settings if codes not in block]:
            level = ", ".join(f"{factor.name} {code:+d}" for factor, code in zip(factors, missing[0], strict=True))
            raise InputError(f"the setting {level} has no run on {task}, draw {draw}, where another has")
        answers.setdefault(task, []).append(_on_dev(draw, [block[codes] for codes in settings]))
    return Design(np.array(settings, float), answers)


def effect_of(weights: Floats, answers: Mapping[str, Sequence[Answers]]) -> TermEffect:
    """A weighted sum of settings' accuracies.

    Args:
        weights: `[settings]`.
        answers: by task, on each draw.

    Raises:
        InputError: as `cpadapt.analysis.across_tasks.on_task` and `cpadapt.analysis.across_tasks.over_given_tasks`.
    """
    by_task = {
        task: on_task(
            np.concatenate([weights @ one.right for one in on_draws]),
            np.concatenate([np.full(len(one.items), one.draw) for one in on_draws]),
            np.concatenate([one.items for one in on_draws]),
        )
        for task, on_draws in answers.items()
    }
    return TermEffect(over_given_tasks(by_task), by_task)


def _on_dev(draw: int, runs: Sequence[Record]) -> Answers:
    asked = [run.dev for run in runs if run.dev is not None]
    if not asked or any(not np.array_equal(one.items, asked[0].items) for one in asked):
        raise InputError(f"run {runs[0].id} and others of its draw have different dev items, or no dev items")
    nothing = np.zeros(asked[0].total, bool)
    right = np.array([nothing if run.dev is None else run.dev.is_right for run in runs], float)
    return Answers(draw, asked[0].items, right)
