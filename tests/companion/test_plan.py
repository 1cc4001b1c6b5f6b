"""The plan's rule: what a difference over tasks is called by its p values, and when there is a second look."""

from math import sqrt

import pytest
from scipy import stats

from companion.plan import LEVEL, MARGIN, Call, call, needs_more_draws
from cpadapt.analysis.statistics import Mean


@pytest.mark.parametrize(
    ("mean", "error", "called", "more"),
    [
        (0.008, 0.002, Call.SHOWN, False),
        (0.003, 0.001, Call.SHOWN, False),  # and smaller than the margin
        (0.0023, 0.001, Call.EQUIVALENT, False),  # which 95 % would have shown
        (0.001, 0.0015, Call.EQUIVALENT, False),
        (0.001, 0.0018, Call.EQUIVALENT, True),  # by the shorter interval, and the longer one reaches the margin
        (0.003, 0.002, Call.OPEN, True),
        (-0.003, 0.002, Call.OPEN, True),
        (0.0, 0.004, Call.OPEN, True),
    ],
)
def test_a_difference_is_called_by_its_interval(mean: float, error: float, called: Call, more: bool) -> None:
    difference = Mean(mean, error, 11)
    low, high = difference.interval(0.9706)
    assert call(difference.p_value(), difference.equivalence_p_value(MARGIN)) == called
    assert (called is Call.SHOWN) == (low > 0 or high < 0)
    assert needs_more_draws(difference) == more == (low <= 0 <= high and max(-low, high) >= 0.005)
    inner = difference.interval(1 - 2 * 0.0294)
    assert (difference.equivalence_p_value(MARGIN) < LEVEL) == (max(map(abs, inner)) < 0.005)


def test_two_looks_at_the_level_err_as_often_as_one_at_five_percent() -> None:
    """Pocock's case: means of independent normal values, once after half of them and once after all."""
    bound = stats.norm.isf(LEVEL / 2)
    both = stats.multivariate_normal([0, 0], [[1, sqrt(0.5)], [sqrt(0.5), 1]])
    inside = both.cdf([bound, bound], lower_limit=[-bound, -bound])
    assert 1 - inside == pytest.approx(0.05, abs=2e-4)
