"""The smallest lead that seeds show, again from the records' own lines."""

import math

import numpy as np
import pytest
from by_hand import answers, read
from scipy.stats import nct, t

from companion import quantities


def right(label: str, size: int) -> np.ndarray:
    """`[seeds, items]` of SST-2."""
    found = {
        line["config"]["seed"]: answers(line["outcome"])
        for line in read("smollm2-seeds")
        if (line["config"]["task"], line["label"], line["config"]["size"]) == ("sst2", label, size)
    }
    return np.array([found[seed] for seed in sorted(found)], dtype=float)


def test_the_smallest_lead_is_seen_four_times_in_five() -> None:
    """By Student's noncentral t, with the degrees of freedom of a sum of mean squares."""
    gaps = 100 * (right("lora", 1) - right("cp", 11))
    seeds, items = gaps.shape
    left = gaps - gaps.mean(1, keepdims=True) - gaps.mean(0) + gaps.mean()
    of_rest = (left**2).sum() / ((seeds - 1) * (items - 1))
    of_seed = gaps.mean(1).var(ddof=1) - of_rest / items
    of_item = gaps.mean(0).var(ddof=1) - of_rest / seeds
    for count, name in ((3, "three"), (100, "hundred")):
        squares = [
            (items * of_seed + of_rest, count - 1),
            (count * of_item + of_rest, items - 1),
            (of_rest, (count - 1) * (items - 1)),
        ]
        (a, _), (b, _), (rest, _) = squares
        error = math.sqrt((a + b - rest) / (count * items))
        degrees = (a + b - rest) ** 2 / sum(square**2 / freedom for square, freedom in squares)
        reach = t.ppf(0.975, degrees)
        effect = quantities.value(f"how_sure.seen.sst2.{name}").value / error
        power = nct.sf(reach, degrees, effect) + nct.cdf(-reach, degrees, effect)
        assert power == pytest.approx(0.8, abs=1e-4), name
