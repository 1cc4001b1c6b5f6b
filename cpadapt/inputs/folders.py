"""Paths as users write them."""

from pathlib import Path


def local_folder(path: str) -> Path | None:
    """The folder at a path, which may begin with `~`; `None` if there is none."""
    try:
        folder = Path(path).expanduser()
        return folder if path and folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long, the home of an unknown user, a null character
        return None
