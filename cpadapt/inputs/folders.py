"""Paths as users write them, and the folder that is cpadapt's."""

import os
from pathlib import Path


def home_folder() -> Path:
    """Where prepared weights, and what was read of records, are kept.

    Raises:
        RuntimeError: the user has no home.
    """
    return Path(os.environ.get("CPADAPT_HOME") or "~/.cache/cpadapt").expanduser()


def local_folder(path: str) -> Path | None:
    """The folder at a path, which may begin with `~`; `None` if there is none."""
    try:
        folder = Path(path).expanduser()
        return folder if path and folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long, the home of an unknown user, a null character
        return None
