"""Numbers of the chapter on PEFT."""

from companion.quantities import quantity
from companion.use_in_peft import BACKBONE
from cpadapt.families import counting
from cpadapt.inputs.backbones.projections import load_projections


@quantity("times", 1)
def export_over_cp() -> float:
    """The scalars of a CP adapter as plain LoRA over its own, on MiniLM: a rank of LoRA over a component."""
    projections = load_projections(BACKBONE)
    return counting.count("lora", projections, 1) / counting.count("cp", projections, 1)
