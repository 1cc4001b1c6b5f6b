"""The rules of the plan: how a difference over tasks is classified, and when more draws are run.

The page on the plan fixes the rules before the runs. Margin and level differ from those of `companion.claims`, which
judges the paper's claims one by one.
"""

from collections.abc import Mapping
from enum import StrEnum

from cpadapt.analysis.statistics import Mean
from cpadapt.records.config import Cell

MARGIN = 0.005
"""Half a point. A smaller difference over tasks counts as none."""

LEVEL = 0.0294
"""The level of every test at each of two looks at growing data, for 5 % over both (Pocock, "Group sequential methods
in the design and analysis of clinical trials", Biometrika 64, 1977). The interval that decides has confidence
1 - `LEVEL`."""


MAIN, LONGER, SMALLER, SMALLEST = "size-tasks", "size-longer", "size-tasks-0.5b", "size-tasks-smollm2"
"""The studies over tasks: the main one, and those that differ from it in steps or model."""

AT_EQUAL_SIZE: Mapping[str, Mapping[int, int]] = {
    MAIN: {1: 17, 4: 71},
    LONGER: {1: 17, 4: 71},
    SMALLER: {1: 13, 4: 54},
    SMALLEST: {1: 11, 4: 44},
}
"""The components whose budget is nearest to a rank's, by study and rank."""


def primary(study: str) -> dict[Cell, float]:
    """The primary number on a study's pairs of equal size, LoRA minus CP, as weights of cells."""
    pairs = AT_EQUAL_SIZE[study]
    lora = {("lora", rank): 1 / len(pairs) for rank in pairs}
    return lora | {("cp", components): -1 / len(pairs) for components in pairs.values()}


class Call(StrEnum):
    """The classes of a difference."""

    SHOWN = "shown"
    """The difference is not 0, by a two-sided test."""
    EQUIVALENT = "equivalent"
    """The difference is not shown, and below the margin by two one-sided tests."""
    OPEN = "open"


def call(p_value: float, equivalence_p_value: float, level: float = LEVEL) -> Call:
    """Classify a difference from its two p values, each corrected over its family if it has one."""
    if p_value < level:
        return Call.SHOWN
    return Call.EQUIVALENT if equivalence_p_value < level else Call.OPEN


def needs_more_draws(difference: Mean, level: float = LEVEL) -> bool:
    """Whether the interval of confidence 1 - `level` contains both 0 and a difference of the margin, of either
    sign."""
    low, high = difference.interval(1 - level)
    return low <= 0 <= high and (low <= -MARGIN or high >= MARGIN)
