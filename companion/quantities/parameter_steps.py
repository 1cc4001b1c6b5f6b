"""Numbers of the chapter on parameter steps, counted from shapes."""

import functools

from companion import parameter_steps
from companion.parameter_steps import BOTH, GRID, LITTLE, SHOWN, SQUARE
from companion.quantities import quantity
from cpadapt.families import counting


@quantity("scalars", each=BOTH)
def step(family: str) -> int:
    """Of one unit more on a 2048×2048 projection."""
    return parameter_steps.step(family, SQUARE)


@quantity("times", 1)
def ratio() -> float:
    """LoRA's step over CP's there."""
    return step("lora") / step("cp")


@quantity("sizes", each=("first", "second", "least", "most"))
def between(which: str) -> int:
    """Of CP between two neighbouring ranks of LoRA's first eight, of which the first is none."""
    found = [parameter_steps.between(rank) for rank in range(8)]
    return {"first": found[0], "second": found[1], "least": min(found), "most": max(found)}[which]


@quantity("scalars", each=BOTH)
def waste(family: str) -> int:
    """That a family leaves of a budget at worst."""
    return step(family) - 1


@quantity("scalars")
def shown() -> int:
    """The budget that the slider starts at."""
    return SHOWN


@quantity(each=BOTH)
def shown_size(family: str) -> int:
    """The largest size that it buys."""
    return counting.largest_size(family, SQUARE, SHOWN)


@quantity("scalars", each=BOTH)
def shown_unspent(family: str) -> int:
    """What is left of it."""
    return SHOWN - counting.count(family, SQUARE, shown_size(family))


@quantity("times", 1, each=("least", "most"))
def ratio_of_shapes(which: str) -> float:
    """LoRA's step over CP's on the shapes that are shown."""
    ratios = [parameter_steps.ratio(m, n) for m, n, _ in parameter_steps.SHAPES.values()]
    return min(ratios) if which == "least" else max(ratios)


@quantity("scalars", each=("least", "most"))
def step_of_splits(which: str) -> int:
    """CP's on a 2048×2048 projection with the splits that are shown."""
    steps = [parameter_steps.split_step(split) for split in parameter_steps.SPLITS.values()]
    return min(steps) if which == "least" else max(steps)


# Families that PEFT has.


@quantity("scalars", each=("lokr", "tinylora", "unilora"))
def other_step(family: str) -> int:
    """Of LoKr's first rank on a 2048×2048 projection, and of an entry more in the others' vector."""
    if family == "lokr":
        return _lokr()[0]
    first, second = (parameter_steps.vector_scalars(length)[family] for length in (1, 2))
    return second - first


@quantity("scalars")
def lokr_end() -> int:
    """The most that LoKr has there."""
    return max(_lokr())


@quantity()
def lokr_end_rank() -> int:
    """The first rank that has so many."""
    return parameter_steps.LOKR_RANKS[_lokr().index(lokr_end())]


@quantity("scalars")
def uneven_step() -> int:
    """Of a second rank of LoRA on one of two projections."""
    return parameter_steps.uneven_step()


@functools.cache
def _lokr() -> list[int]:
    return [parameter_steps.lokr_scalars(rank, 2048, 2048) for rank in parameter_steps.LOKR_RANKS]


# Whole models.


@quantity("projections")
def opt_projections() -> int:
    """Of OPT-1.3B, that are adapted."""
    return len(parameter_steps.projections("opt-1.3b"))


@quantity("scalars", each=BOTH)
def opt_step(family: str) -> int:
    """Of one unit more on all of them."""
    return parameter_steps.step(family, parameter_steps.projections("opt-1.3b"))


@quantity("MiB", 3, each=BOTH)
def opt_state(family: str) -> float:
    """Of Adam's, that one unit more takes there."""
    return parameter_steps.adam_mib(opt_step(family))


@quantity("scalars")
def little() -> int:
    """A budget a little below LoRA's first rank on SmolLM2-135M."""
    return LITTLE


@quantity(each=BOTH)
def little_size(family: str) -> int:
    """The largest size that it buys."""
    return counting.largest_size(family, parameter_steps.projections("smollm2"), LITTLE)


@quantity("scalars")
def little_spent() -> int:
    """Of it, by CP."""
    return counting.count("cp", parameter_steps.projections("smollm2"), little_size("cp"))


# The best of several points.


@quantity("sizes", source="paper", each=BOTH)
def grid(family: str) -> int:
    """Of the paper's grid."""
    return len(GRID[family])


@quantity("times", 1, "paper")
def grid_ratio() -> float:
    """CP's points over LoRA's."""
    return grid("cp") / grid("lora")


@quantity("sizes", source="paper", each=("first", "last"))
def grid_under(which: str) -> int:
    """Of CP at or under the budget of LoRA's first rank, or its last, of the grid."""
    return parameter_steps.under("cp", GRID["lora"][0 if which == "first" else -1])


@quantity("sizes", source="paper")
def grid_below() -> int:
    """Of CP below that of LoRA's first."""
    rank = opt_step("lora") * GRID["lora"][0]
    return sum(size * opt_step("cp") < rank for size in GRID["cp"])


@quantity("standard errors", 2, "paper", each=("first", "last"))
def ahead_by_chance(which: str) -> float:
    """By which CP's best would be ahead there if all sizes were equally good."""
    return parameter_steps.ahead_by_chance(GRID["lora"][0 if which == "first" else -1])
