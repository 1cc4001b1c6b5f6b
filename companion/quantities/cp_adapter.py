"""Numbers of the chapter on the CP adapter: what its shapes say."""

from companion.quantities import quantity
from cpadapt.families import FAMILIES, counting, cp
from cpadapt.inputs.backbones.specs import Projection

SIDE = 2048
SQUARE = [Projection("", SIDE, SIDE)]
COMPONENT = cp.shapes(SIDE, SIDE, 1)


@quantity("scalars", each=("cp", "lora"))
def step(family: str) -> int:
    """Scalars of one more unit on one projection."""
    found = counting.step(family, SQUARE)
    assert found is not None
    return found


@quantity("scalars")
def free() -> int:
    """Directions in which one component moves: each of its vectors, being of unit length, has one less."""
    return step("cp") - (len(COMPONENT) - 1)


@quantity("scalars")
def free_lora() -> int:
    """The same of LoRA's first rank: what makes one factor longer may make the other shorter."""
    return step("lora") - 1


@quantity("components")
def needed() -> int:
    """Components needed for an update of LoRA's first rank, drawn at random: the ranks of both sides' vectors, read as
    matrices.
    """
    return min(cp.modes(SIDE)) ** 2


@quantity("scalars")
def needed_scalars() -> int:
    """Scalars of so many components."""
    return counting.count("cp", SQUARE, needed())


@quantity()
def scale() -> float:
    """CP's in front of its update, which the paper does not report."""
    return float(FAMILIES["cp"].SCALE)
