"""The projections of a backbone, which decide what an adapter costs.

Those of the named backbones stand in their specs, so that a question about shapes does not wait for torch.
"""

from collections.abc import Sequence

from cpadapt.inputs.backbones.specs import BACKBONES, Projection


def load_projections(name: str, target_modules: Sequence[str] | None = None) -> tuple[Projection, ...]:
    """Find the projections that get adapters, without the weights.

    The named backbones need neither files nor a network; any other hub id needs its `config.json`.

    Args:
        name: as in `load_backbone`.
        target_modules: as in `load_backbone`.

    Raises:
        InputError: there is no such backbone, the hub cannot be reached, or a target module is not in the model.
    """
    if name in BACKBONES and not target_modules:
        return BACKBONES[name].projections
    from cpadapt.inputs.backbones.loading import projections_of_model

    return projections_of_model(name, target_modules)
