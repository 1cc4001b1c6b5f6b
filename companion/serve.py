"""Serves the built book and builds the pages anew that change, as `make serve` does.

`python -m companion.serve [-p NAME=VALUE]... -- ARGUMENTS`: notebooks' parameters as of `companion.execute`, and the
arguments of `jupyter-book`. Each build is a fork of this process, which has imported what takes long.
"""

import argparse
import functools
import gc
import http.server
import importlib
import multiprocessing
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from companion import PROJECT
from companion.execute import execute_all

SITE, MADE = PROJECT / "_build" / "html", PROJECT / "build" / "book"
PORT = 8000
WATCHED = ("notebooks/**/*.py", "book/**/*")
"""What is watched: a change elsewhere is for `make book`."""


def times(project: Path = PROJECT, watched: Iterable[str] = WATCHED) -> dict[Path, int]:
    """When each file that pages are made from was written last, in nanoseconds."""
    found = (path for pattern in watched for path in project.glob(pattern) if path.is_file())
    return {path: path.stat().st_mtime_ns for path in found}


def changed(before: Mapping[Path, int], after: Mapping[Path, int]) -> list[Path]:
    """The files that are new or were written since."""
    return sorted(path for path, written in after.items() if before.get(path) != written)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Leave the terminal to what is built."""


def prepare() -> None:
    """Import what each build needs and no change here touches; a build is a fork, which then has it."""
    config = yaml.safe_load((PROJECT / "_config.yml").read_text(encoding="utf-8"))
    used = ("altair", "jupyter_book.cli.main", "pandas", "scipy.stats", "vl_convert")
    for name in (*used, *config["sphinx"]["config"]["extensions"]):
        if not name.startswith("companion."):
            importlib.import_module(name)
    gc.freeze()  # as in `companion.execute`


def build(paths: Sequence[Path], parameters: Mapping[str, str], pages: Sequence[str]) -> None:
    """Execute the chapters among these files, and write the pages that changed.

    Args:
        paths: the files, in the project.
        parameters: the notebooks', as `companion.execute` takes them.
        pages: the arguments of `jupyter-book`.

    Raises:
        SystemExit: a chapter failed; or as `jupyter-book`.
    """
    chapters = [path for path in paths if path.parent.name == "notebooks"]
    from jupyter_book.cli.main import main

    if failed := execute_all(chapters, MADE / "notebooks", dict(parameters)):
        sys.exit(f"failed: {', '.join(map(str, failed))}")
    shutil.copytree(PROJECT / "book", MADE / "book", dirs_exist_ok=True)
    shutil.copy2(PROJECT / "CHANGELOG.md", MADE)
    main(list(pages))


def _answer() -> None:
    handler = functools.partial(_Quiet, directory=SITE)
    with http.server.ThreadingHTTPServer(("localhost", PORT), handler) as server:
        server.serve_forever()


def serve(parameters: Mapping[str, str], pages: Sequence[str]) -> None:
    """Serve on localhost until interrupted; build at each change, and say how long it took."""
    fork = multiprocessing.get_context("fork")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # which ends the process that answers, too
    signal.signal(signal.SIGINT, lambda *_: sys.exit())
    # A process, because a fork with threads may stop for ever.
    fork.Process(target=_answer, daemon=True).start()
    prepare()
    print(
        f"http://localhost:{PORT} has the book; it is built anew at each change of {' and '.join(WATCHED)}", flush=True
    )
    before = times()
    while True:
        time.sleep(0.5)
        after = times()
        if paths := changed(before, after):
            started = time.monotonic()
            process = fork.Process(target=build, args=(paths, parameters, pages))
            process.start()
            process.join()
            said = "built" if process.exitcode == 0 else "NOT built, see above:"
            names = ", ".join(str(path.relative_to(PROJECT)) for path in paths)
            print(f"{said} {names} in {time.monotonic() - started:.0f} s", flush=True)
        before = after


if __name__ == "__main__":
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("-p", dest="parameters", action="append", default=[], type=lambda given: given.split("=", 1))
    reader.add_argument("pages", nargs="+", help="the arguments of jupyter-book")
    given = reader.parse_args()
    serve(dict(given.parameters), given.pages)
