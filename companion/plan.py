"""The rule of the plan: what a difference over tasks is called, and when more draws are run.

The page on the plan fixes it before the runs. Its margin and level are not those of `companion.claims`, which judges
the paper's claims one by one.
"""

from enum import StrEnum

from cpadapt.analysis.statistics import Mean

MARGIN = 0.005
"""Half a point. A difference over tasks below it counts as none."""

LEVEL = 0.0294
"""The level of every test at each of two looks at growing data, for 5 % over both (Pocock, "Group sequential methods
in the design and analysis of clinical trials", Biometrika 64, 1977). The interval that decides has confidence
1 - `LEVEL`."""


class Call(StrEnum):
    """What a difference is called."""

    SHOWN = "shown"
    """It is not 0, by a two-sided test."""
    EQUIVALENT = "equivalent"
    """It is not shown, and below the margin, by two one-sided tests."""
    OPEN = "open"


def call(p_value: float, equivalence_p_value: float) -> Call:
    """What a difference is called, from its two p values, each corrected over its family if it has one."""
    if p_value < LEVEL:
        return Call.SHOWN
    return Call.EQUIVALENT if equivalence_p_value < LEVEL else Call.OPEN


def needs_more_draws(difference: Mean, level: float = LEVEL) -> bool:
    """Whether the interval of confidence 1 - `level` holds 0 and also a difference of the margin, either way."""
    low, high = difference.interval(1 - level)
    return low <= 0 <= high and (low <= -MARGIN or high >= MARGIN)
