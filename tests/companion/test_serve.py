"""Which files `make serve` builds anew."""

import os
from pathlib import Path

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
