"""Code in a process that has imported neither cpadapt nor PEFT, but all that is slow of what they import."""

import contextlib
import io
import multiprocessing
import sys
import traceback
from typing import Any

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["accelerate", "torch._dynamo", "transformers.models.bloom.modeling_bloom"])


def run(code: str) -> str:
    """What it prints."""
    done, printed = _run(code)
    assert done, printed
    return printed.strip()


def fails(code: str) -> str:
    """The traceback with which it ends."""
    done, printed = _run(code)
    assert not done, printed
    return printed.strip()


def _run(code: str) -> tuple[bool, str]:
    receiver, sender = _forks.Pipe(duplex=False)
    process = _forks.Process(target=_execute, args=(code, sender))
    process.start()
    sender.close()
    result: tuple[bool, str] = receiver.recv()
    process.join()
    return result


def _execute(code: str, sender: Any) -> None:
    printed = io.StringIO()
    try:
        assert not {"cpadapt", "peft"} & set(sys.modules)
        with contextlib.redirect_stdout(printed):
            exec(code, {"__name__": "__main__"})
    except BaseException:
        sender.send((False, printed.getvalue() + traceback.format_exc()))
    else:
        sender.send((True, printed.getvalue()))
