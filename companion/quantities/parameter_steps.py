"""Numbers of the chapter on parameter steps, counted from shapes."""

import functools

from companion import parameter_steps
from companion.parameter_steps import BOTH, GRID, MANY, SQUARE
from companion.quantities import quantity


@quantity("scalars", each=BOTH)
def step(family: str) -> int:
    """Scalars of one unit more on a 2048×2048 projection."""
    return parameter_steps.step(family, SQUARE)


@quantity("sizes")
def below() -> int:
    """Sizes of CP below LoRA's first rank there."""
    return parameter_steps.between(0)


@quantity("scalars", each=("least", "most"))
def step_of_splits(which: str) -> int:
    """CP's on a 2048×2048 projection with the splits that are shown."""
    steps = [parameter_steps.split_step(split) for split in parameter_steps.SPLITS.values()]
    return min(steps) if which == "least" else max(steps)


# Families that PEFT has.


@quantity("scalars", each=("lokr", "tinylora", "unilora"))
def other_step(family: str) -> int:
    """Scalars of LoKr's first rank on a 2048×2048 projection, and of an entry more in the others' vector."""
    if family == "lokr":
        return _lokr()[0]
    first, second = (parameter_steps.vector_scalars(length)[family] for length in (1, 2))
    return second - first


@quantity("scalars")
def lokr_end() -> int:
    """The most that LoKr has there."""
    return max(_lokr())


@quantity("scalars")
def uneven_step() -> int:
    """Scalars of a second rank of LoRA on one of two projections."""
    return parameter_steps.uneven_step()


@functools.cache
def _lokr() -> list[int]:
    return [parameter_steps.lokr_scalars(rank, 2048, 2048) for rank in parameter_steps.LOKR_RANKS]


# Whole models.


@quantity("scalars", each=("cp",))
def opt_step(family: str) -> int:
    """Scalars of one unit more on all target modules of OPT-1.3B."""
    return parameter_steps.step(family, parameter_steps.projections("opt-1.3b"))


@quantity("MiB", 2, each=BOTH)
def opt_state(family: str) -> float:
    """Adam's state that one unit more takes there."""
    return parameter_steps.adam_mib(opt_step(family))


@quantity("GiB", 1)
def opt_backbone() -> float:
    """Its frozen weights in 16 bits."""
    return parameter_steps.backbone_gib("opt-1.3b")


@quantity("adapters")
def many() -> int:
    """Adapters that are kept side by side in an example."""
    return MANY


@quantity("MiB", each=BOTH)
def opt_files(family: str) -> float:
    """So many adapters of one unit on disk."""
    return parameter_steps.files_mib(opt_step(family))


# The best of several points.


@quantity("sizes", source="paper", each=BOTH)
def grid(family: str) -> int:
    """Sizes of the paper's grid."""
    return len(GRID[family])


@quantity("sizes", source="paper")
def grid_below() -> int:
    """Sizes of CP below the budget of LoRA's first rank."""
    rank = opt_step("lora") * GRID["lora"][0]
    return sum(size * opt_step("cp") < rank for size in GRID["cp"])


@quantity("standard errors", 2, "paper", each=("first", "last"))
def ahead_by_chance(which: str) -> float:
    """Standard errors by which CP's best would be ahead there if all sizes were equally good."""
    return parameter_steps.ahead_by_chance(GRID["lora"][0 if which == "first" else -1])
