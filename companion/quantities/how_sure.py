"""Numbers of the chapter on how sure one can be."""

import itertools

from companion import noise
from companion.noise import TASKS
from companion.quantities import quantity
from cpadapt.analysis.statistics import smallest_effect

COUNTS = {"three": 3, "ten": 10, "hundred": 100, "thousand": 1000}


def over_seeds_study(task: str, *_: str) -> str:
    """The source of what is over seeds."""
    return noise.study_over_seeds(task)


@quantity("points", 1, over_seeds_study, each=itertools.product(TASKS, COUNTS))
def seen(task: str, count: str) -> float:
    """The smallest true lead of LoRA's first rank over CP that so many seeds show four times in five."""
    return smallest_effect(noise.minus(noise.over_seeds(task), "lora1_cp11"), COUNTS[count], noise.ENOUGH)
