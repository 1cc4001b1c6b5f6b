"""How shares are worded."""

import torch

from companion.wording import agreement, bounds, duration, percent, signed


def test_shares_are_told_in_percent_and_points() -> None:
    assert (percent(0.7351), percent(0.7351, 2), percent(0.346, 0)) == ("73.5", "73.51", "35")
    assert (signed(0.0069), signed(-0.0069, 2), signed(0.0)) == ("+0.7", "−0.69", "0.0")
    assert (signed(-0.0004), signed(-0.0004, 2), signed(0.0004)) == ("0.0", "−0.04", "0.0")
    assert bounds((-0.002, 0.0112)) == "−0.2 to +1.1"
    assert bounds((-0.002, 0.0112), 2) == "−0.20 to +1.12"


def test_durations_are_told_in_the_largest_unit() -> None:
    said = [duration(seconds) for seconds in (14.43, 59.99, 60, 3599, 3600, 145440)]
    assert said == ["14.4 s", "60.0 s", "1.0 min", "60.0 min", "1.0 h", "40.4 h"]


def test_how_far_results_are_apart_is_told_in_words() -> None:
    assert agreement(torch.zeros(3)) == "bit for bit"
    assert agreement(torch.tensor([0.0, -2.4e-7, 1e-8])) == "to within 2e-07"
