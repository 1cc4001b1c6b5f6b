"""The versions of other packages that cpadapt works with, as its own metadata states them."""

from importlib.metadata import PackageNotFoundError, requires, version

from cpadapt.errors import InputError


def require_versions() -> None:
    """Check the installed versions of what cpadapt and its extra `study` need, before any of it is used.

    A package that is not installed is left to the import that needs it, and so are all where cpadapt itself is not.

    Raises:
        InputError: a version is too old or too new; the message names it, the versions that work and the remedy.
    """
    from packaging.requirements import Requirement

    try:
        needed = [Requirement(text) for text in requires("cpadapt") or ()]
    except PackageNotFoundError:
        return
    for requirement in needed:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": "study"}):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            wanted = f"{requirement.name}{requirement.specifier}"
            raise InputError(
                f"{requirement.name} {installed} is installed, and cpadapt works with {requirement.specifier}:"
                f" run pip install '{wanted}'"
            )
