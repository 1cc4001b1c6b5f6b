"""Which files `make serve` builds anew, and what that does."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from companion import serve
from companion.serve import changed, times


def test_what_is_new_or_written_since_is_built(tmp_path: Path) -> None:
    for name in ("notebooks/size.py", "book/plan.md", "companion/size.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("before")
    before = times(tmp_path)
    assert {path.name for path in before} == {"size.py", "plan.md"}
    assert changed(before, times(tmp_path)) == []
    (tmp_path / "notebooks" / "rates.py").write_text("new")
    os.utime(tmp_path / "book" / "plan.md", ns=(1, 1))
    os.utime(tmp_path / "companion" / "size.py", ns=(1, 1))
    found = changed(before, times(tmp_path))
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["book/plan.md", "notebooks/rates.py"]


def test_a_build_executes_what_is_a_chapter_and_writes_the_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "plan.md").write_text("new")
    (tmp_path / "CHANGELOG.md").write_text("newer")
    done: list[object] = []
    monkeypatch.setattr(serve, "PROJECT", tmp_path)
    monkeypatch.setattr(serve, "MADE", tmp_path / "build" / "book")
    monkeypatch.setattr(serve, "execute_all", lambda *given: done.append(given))
    monkeypatch.setitem(sys.modules, "jupyter_book.cli.main", SimpleNamespace(main=done.append))
    paths = [tmp_path / "book" / "plan.md", tmp_path / "notebooks" / "size.py"]
    serve.build(paths, {"study": "mine"}, ["build", "there"])
    assert done == [([paths[1]], tmp_path / "build" / "book" / "notebooks", {"study": "mine"}), ["build", "there"]]
    assert (tmp_path / "build/book/book/plan.md").read_text() == "new"
    assert (tmp_path / "build/book/CHANGELOG.md").read_text() == "newer"
    monkeypatch.setattr(serve, "execute_all", lambda chapters, *_: chapters)
    with pytest.raises(SystemExit, match=r"failed: .*size\.py"):
        serve.build(paths, {}, ["build"])
    assert len(done) == 2, "no page is written"
