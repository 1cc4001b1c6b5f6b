"""Functions called side by side, each in a fork of this process, which has all that is imported."""

import gc
import multiprocessing
from collections.abc import Callable, Iterable
from multiprocessing.connection import wait
from typing import Any

SIDE_BY_SIDE = 2

Job = tuple[str, Callable[..., object], tuple[Any, ...]]
"""What is called and with which arguments, and a name for it."""


def in_forks(jobs: Iterable[Job]) -> list[str]:
    """Call functions, two at a time and in this order, and return the names of those that failed.

    A fork that fails prints why. What a function returns is lost.
    """
    gc.freeze()  # so that no fork's garbage collection goes through what was imported
    fork = multiprocessing.get_context("fork")
    waiting, failed = list(jobs)[::-1], []
    running: dict[Any, tuple[str, Any]] = {}
    while waiting or running:
        while waiting and len(running) < SIDE_BY_SIDE:
            name, function, arguments = waiting.pop()
            process = fork.Process(target=function, args=arguments)
            process.start()
            running[process.sentinel] = (name, process)
        for sentinel in wait(list(running)):
            name, process = running.pop(sentinel)
            process.join()
            failed += [name] if process.exitcode else []
    return failed
