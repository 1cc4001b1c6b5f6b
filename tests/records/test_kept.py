"""What was read of finished files, kept for the next process: the same records, or none."""

import hashlib
import os
import pickle
from pathlib import Path

import pytest

from cpadapt.families import FAMILIES, family
from cpadapt.records import store
from cpadapt.records.kept import DIGEST_BYTES, keep, kept
from cpadapt.records.record import Record
from cpadapt.records.store import load_records, write_compressed

RESULTS = Path(__file__).parents[2] / "results"
FIRST, SECOND, THIRD = [one for one in load_records(RESULTS / "small-tiny") if one.config.family == "cp"][:3]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CPADAPT_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "records"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "results" / "runs.jsonl.xz"
    write_compressed(made, [FIRST, SECOND])
    return made


def loaded(path: Path) -> list[Record]:
    """As another process would."""
    store._last_read.cache_clear()
    return load_records(path)


def read_again(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are unpacked from now on."""
    seen: list[Path] = []
    unpack = store.lines_or_damage
    monkeypatch.setattr(store, "lines_or_damage", lambda file, content: seen.append(file) or unpack(file, content))
    return seen


def test_the_next_process_gets_the_same_records(file: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = loaded(file)
    assert len(list(home.iterdir())) == 1
    again = read_again(monkeypatch)
    assert loaded(file) == first == [FIRST, SECOND]
    assert not again
    # It is by content, not by name.
    moved = file.rename(file.with_name("moved.jsonl.xz"))
    assert loaded(moved) == first
    assert not again


def test_all_committed_records_survive(home: Path) -> None:
    files = [RESULTS / name for name in ("planted-rates", "smollm2-pilot", "minilm-sst2")]
    first = [loaded(each) for each in files]
    assert [loaded(each) for each in files] == first
    assert sum(map(len, first)) > 300


def test_a_file_that_changed_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded(file)
    write_compressed(file, [THIRD])
    again = read_again(monkeypatch)
    assert loaded(file) == [THIRD]
    assert again == [file]


def test_other_code_reads_for_itself(file: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = loaded(file)
    again = read_again(monkeypatch)
    monkeypatch.setattr("cpadapt.records.kept._reader", lambda: b"0" * DIGEST_BYTES)
    assert loaded(file) == first
    assert again == [file]
    assert loaded(file) == first
    assert again == [file]
    assert len(list(home.iterdir())) == 1, "in place of the other's"


@pytest.mark.parametrize("place", [0, DIGEST_BYTES, 2 * DIGEST_BYTES, -1])
def test_a_damaged_entry_is_not_used(place: int, file: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = loaded(file)
    (entry,) = home.iterdir()
    content = bytearray(entry.read_bytes())
    content[place] ^= 1
    entry.write_bytes(content)
    again = read_again(monkeypatch)
    assert loaded(file) == first
    assert again == [file]
    entry.write_bytes(b"")
    assert loaded(file) == first


class Planted:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("ran",)


def test_an_entry_cannot_run_code(file: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = file.read_bytes()
    keep(content, (FIRST,))
    assert kept(content) == (FIRST,)
    (entry,) = home.iterdir()
    body = pickle.dumps((Planted(),))
    entry.write_bytes(entry.read_bytes()[:DIGEST_BYTES] + hashlib.sha256(body).digest() + body)
    assert kept(content) is None
    assert not Path("ran").exists()


def test_where_nothing_can_be_kept_files_are_read(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "occupied").write_text("")
    monkeypatch.setenv("CPADAPT_HOME", str(tmp_path / "occupied"))
    for _ in range(2):
        assert loaded(file) == [FIRST, SECOND]


def test_damaged_files_and_files_in_use_are_not_kept(tmp_path: Path, home: Path) -> None:
    in_use = store.RecordFile(tmp_path / "results")
    in_use.add([FIRST])
    loaded(in_use.path)
    store.write_xz(damaged := tmp_path / "results" / "damaged.jsonl.xz", b"{}\n")
    load_records(damaged, damaged=[])
    assert not home.exists()


def test_a_registered_family_is_read_each_time(file: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it accepts is not among our sources."""

    first = FIRST.config.family
    known = family(first)

    class Other:
        __name__ = "other.lora"

        def __getattr__(self, name: str) -> object:
            return getattr(known, name)

    monkeypatch.setitem(FAMILIES, first, Other())  # type: ignore[arg-type]
    assert loaded(file) == [FIRST, SECOND]
    assert not home.exists()
