"""Serves the built book and builds the pages anew that change: `python -m companion.serve`, as `make serve` does."""

import functools
import http.server
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from companion import PROJECT

SITE = PROJECT / "_build" / "html"
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


def serve() -> None:
    """Serve on localhost until interrupted; build at each change, and say how long it took."""
    handler = functools.partial(_Quiet, directory=SITE)
    server = http.server.ThreadingHTTPServer(("localhost", PORT), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(
        f"http://localhost:{PORT} has the book; it is built anew at each change of {' and '.join(WATCHED)}", flush=True
    )
    before = times()
    while True:
        time.sleep(0.5)
        after = times()
        if paths := changed(before, after):
            started = time.monotonic()
            chapters = [str(path.relative_to(PROJECT)) for path in paths if path.parent.name == "notebooks"]
            command = ["make", "--no-print-directory", "pages", f"CHANGED={' '.join(chapters)}"]
            done = subprocess.run(command, cwd=PROJECT, check=False).returncode
            said = "built" if done == 0 else "NOT built, see above:"
            names = ", ".join(str(path.relative_to(PROJECT)) for path in paths)
            print(f"{said} {names} in {time.monotonic() - started:.0f} s", flush=True)
        before = after


if __name__ == "__main__":
    serve()
