"""The projections of a backbone, which decide what an adapter costs.

The specs of the named backbones list their linear modules, so a question about shapes does not wait for torch.
"""

from collections.abc import Sequence

from cpadapt.errors import InputError, did_you_mean
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
    if name in BACKBONES:
        spec = BACKBONES[name]
        return targeted(name, spec.linear_modules, target_modules or spec.targets)
    from cpadapt.inputs.backbones.loading import projections_of_model

    return projections_of_model(name, target_modules)


def targeted(
    name: str, linear_modules: Sequence[Projection], target_modules: Sequence[str], *, any_suffices: bool = False
) -> tuple[Projection, ...]:
    """The linear modules that are targets, in their order.

    A module matches as in PEFT: its path equals the target, or ends with it in whole parts.

    Args:
        name: the backbone, for errors.
        linear_modules: all linear modules of the model.
        target_modules: as in `load_backbone`.
        any_suffices: whether some targets may match nothing, as long as one matches.

    Raises:
        InputError: a target matches nothing.
    """
    targets = [target_modules] if isinstance(target_modules, str) else target_modules
    matches = {
        target: [module for module in linear_modules if f".{module.name}".endswith(f".{target}")] for target in targets
    }
    matched = {module for modules in matches.values() for module in modules}
    unmatched = [target for target, modules in matches.items() if not modules]
    if unmatched and not (any_suffices and matched):
        names = last_parts(linear_modules)
        raise InputError(
            f"no linear module of {name!r} is called "
            + ", ".join(target + did_you_mean(target, names) for target in unmatched)
            + f"; its linear modules are {', '.join(names)}"
        )
    return tuple(module for module in linear_modules if module in matched)


def last_parts(modules: Sequence[Projection]) -> list[str]:
    """The names by which modules can be targeted, the last parts of their paths, sorted."""
    return sorted({module.name.rpartition(".")[2] for module in modules})
