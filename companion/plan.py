"""The rules of the plan: how a difference over tasks is classified, and when more draws are run.

The page on the plan fixes the rules before the runs. Margin and level differ from those of `companion.claims`, which
judges the paper's claims one by one.
"""

from enum import StrEnum

from cpadapt.analysis.statistics import Mean

MARGIN = 0.005
"""Half a point. A smaller difference over tasks counts as none."""

LEVEL = 0.0294
"""The level of every test at each of two looks at growing data, for 5 % over both (Pocock, "Group sequential methods
in the design and analysis of clinical trials", Biometrika 64, 1977). The interval that decides has confidence
1 - `LEVEL`."""


class Call(StrEnum):
    """The classes of a difference."""

    SHOWN = "shown"
    """The difference is not 0, by a two-sided test."""
    EQUIVALENT = "equivalent"
    """The difference is not shown, and below the margin by two one-sided tests."""
    OPEN = "open"


def call(p_value: float, equivalence_p_value: float) -> Call:
    """Classify a difference from its two p values, each corrected over its family if it has one."""
    if p_value < LEVEL:
        return Call.SHOWN
    return Call.EQUIVALENT if equivalence_p_value < LEVEL else Call.OPEN


def needs_more_draws(difference: Mean, level: float = LEVEL) -> bool:
    """Whether the interval of confidence 1 - `level` contains both 0 and a difference of the margin, of either
    sign."""
    low, high = difference.interval(1 - level)
    return low <= 0 <= high and (low <= -MARGIN or high >= MARGIN)
