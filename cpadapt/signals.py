"""How a process ends that a signal asks to end."""

from typing import NoReturn


def end(number: int, frame: object) -> NoReturn:
    """End with the status that a shell, Slurm and Kubernetes show of a process that a signal ended.

    So a rule for resubmitting holds at every moment: before this handler is there and after it.

    Args:
        number: the signal.
        frame: as handlers get it.
    """
    raise SystemExit(128 + number)
