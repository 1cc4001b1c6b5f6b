"""Damaged records: each is named by file and line, and the others can be read."""

import itertools
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from cpadapt.errors import InputError
from cpadapt.records.check import check
from cpadapt.records.store import Damage, each_line, load_records, raw_lines, read_lines, record_files, write_xz

ROOT = Path(__file__).parents[2]
FILES, RUNS = 5, 36


@pytest.fixture(scope="module")
def kept() -> list[list[bytes]]:
    """Lines of files as a process has them in use, each a few draws and some dozens of records; all differ."""
    lines = [line for file in record_files(ROOT / "results" / "smollm2") for line in raw_lines(file)]
    draws = [line for line in lines if line.startswith(b'{"draw"')]
    records = [line for line in lines if line not in set(draws)]
    return [[*draws, *records[n * RUNS : (n + 1) * RUNS]] for n in range(FILES)]


Damaging = Callable[[bytes, random.Random], list[bytes]]


def cut(line: bytes, chance: random.Random) -> list[bytes]:
    return [line[: chance.randrange(1, len(line))]]


def flipped(line: bytes, chance: random.Random) -> list[bytes]:
    """With one bit of one byte the other way."""
    at = chance.randrange(len(line))
    return [line[:at] + bytes([line[at] ^ 1 << chance.randrange(8)]) + line[at + 1 :]]


def doubled(line: bytes, chance: random.Random) -> list[bytes]:
    return [line, line]


def not_utf8(line: bytes, chance: random.Random) -> list[bytes]:
    at = chance.randrange(len(line))
    return [line[:at] + "é".encode("latin-1") + line[at:]]


def other_schema(line: bytes, chance: random.Random) -> list[bytes]:
    return [line.replace(b'"schema": 2', b'"schema": %d' % chance.choice([0, 1, 3, 17]))]


KINDS: dict[Damaging, str] = {
    cut: "not JSON",
    flipped: "",
    doubled: r"the record of run \w+ stands in line \d+ already",
    not_utf8: "not UTF-8",
    other_schema: r"schema = \d+: this version reads records of schema 2",
}


def test_a_hundred_damaged_records_are_named_and_the_others_read(kept: list[list[bytes]], tmp_path: Path) -> None:
    chance = random.Random(0)
    records = [(f, n) for f, lines in enumerate(kept) for n, line in enumerate(lines) if b'"draw"' not in line[:8]]
    chosen = dict(zip(chance.sample(records, 100), itertools.cycle(KINDS), strict=False))
    expected: dict[Damage, Damaging] = {}
    whole = 0
    for f, lines in enumerate(kept):
        written: list[bytes] = []
        for n, line in enumerate(lines):
            kind = chosen.get((f, n))
            put = [line] if kind is None else kind(line, chance)
            whole += (f, n) in set(records) and (kind is None or kind is doubled)
            written += put
            if kind is not None:
                expected[Damage(tmp_path / f"{f}.jsonl", len(written), "")] = kind
        (tmp_path / f"{f}.jsonl").write_bytes(b"".join(line + b"\n" for line in written))

    damaged = {Damage(found.file, found.line, ""): found for found in check(tmp_path).damaged}
    assert damaged.keys() <= expected.keys(), "nothing else is called damaged"
    named = Counter(kind.__name__ for place, kind in expected.items() if place in damaged)
    print("named, of 20 each:", dict(named))
    assert all(named[kind.__name__] == 20 for kind in KINDS if kind is not flipped)
    # The others changed a number or a margin into another one, which nothing in a line contradicts.
    assert named["flipped"] >= 10
    for place, found in damaged.items():
        assert re.match(KINDS[expected[place]], found.problem), found

    # Reading refuses the first by name, and goes on only where that is asked for.
    first = min(damaged.values(), key=lambda found: (found.file, found.line))
    with pytest.raises(InputError, match=re.escape(f"{first.file}, line ")):
        load_records(tmp_path)
    skipped: list[Damage] = []
    read = load_records(tmp_path, skipped)
    assert {Damage(found.file, found.line, "") for found in skipped} <= damaged.keys()
    assert len(read) >= whole == len(records) - 80

    # Set aside, the rest is whole, and nothing is lost.
    lines = sorted(line for file in record_files(tmp_path) for line in raw_lines(file))
    assert check(tmp_path, set_aside=True).damaged == tuple(damaged.values())
    assert check(tmp_path).damaged == ()
    assert len(load_records(tmp_path)) == len(records) - sum(named.values()) + named["doubled"]
    apart = [*record_files(tmp_path), *tmp_path.glob("*.damaged")]
    assert sorted(line for file in apart for line in file.read_bytes().splitlines()) == lines


def test_a_flip_that_is_not_named_leaves_another_record_that_is_possible(kept: list[list[bytes]]) -> None:
    """How many of a thousand flipped bits are noticed in a file that is in use."""
    chance, noticed = random.Random(1), 0
    lines = kept[0]
    draws = [line for line in lines if line.startswith(b'{"draw"')]
    originals = {line: read for line, (_, read) in zip(lines, each_line(lines), strict=True)}
    from cpadapt.records.check import contradiction

    for _ in range(1000):
        line = chance.choice(lines[len(draws) :])
        *_, (_, read) = each_line([*draws, *flipped(line, chance)])
        if isinstance(read, str) or contradiction(read) is not None:
            noticed += 1
        else:
            assert read.id == originals[line].id
    print(f"{noticed} of 1000 flipped bits in records in use are noticed")
    assert noticed > 500


def test_every_flip_in_a_compressed_file_is_noticed(kept: list[list[bytes]], tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl.xz"
    write_xz(file, b"".join(line + b"\n" for line in kept[0]))
    content, chance = file.read_bytes(), random.Random(2)
    for _ in range(200):
        (broken,) = flipped(content, chance)
        file.write_bytes(broken)
        (damage,) = check(tmp_path).damaged
        assert str(damage).startswith(f"{file} is not xz: ")
    for size in (0, 1, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:size])
        assert len(check(tmp_path).damaged) == 1, size
    assert check(tmp_path, set_aside=True).records == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl.xz.1.damaged"]


def test_what_reads_lines_for_itself_names_them_too(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"{}\n\xff\n")
    with pytest.raises(InputError, match=r"a\.jsonl, line 2: not UTF-8: invalid start byte at byte 0"):
        read_lines(tmp_path / "a.jsonl")


@pytest.mark.long
def test_our_records_are_whole() -> None:
    checked = check(ROOT / "results")
    assert checked.damaged == ()
    assert checked.records == sum(len(load_records(file)) for file in record_files(ROOT / "results"))
