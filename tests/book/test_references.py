"""What the book cites is in its bibliography, and can be found from there."""

import re
from pathlib import Path

import pytest
from pybtex.database import Entry, parse_file

ROOT = Path(__file__).parents[2]
FILE = ROOT / "book" / "references.bib"
# A key that stands twice is an error to the parser.
ENTRIES: dict[str, Entry] = dict(parse_file(str(FILE)).entries)
PAGES = sorted([*(ROOT / "notebooks").rglob("*.py"), *(ROOT / "book").glob("*.md")])


def cited(path: Path) -> set[str]:
    roles = re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", path.read_text(encoding="utf-8"))
    return {key.strip() for role in roles for key in role.split(",")}


@pytest.mark.parametrize("path", PAGES, ids=[path.name for path in PAGES])
def test_every_citation_has_an_entry(path: Path) -> None:
    assert cited(path) <= set(ENTRIES)


@pytest.mark.parametrize("key", ENTRIES)
def test_an_entry_says_what_it_is_and_where_to_find_it(key: str) -> None:
    fields = ENTRIES[key].fields
    assert fields["title"]
    assert re.fullmatch(r"(1[89]|20)\d\d", fields["year"])
    assert {"doi", "eprint", "url"} & set(fields)
    if "doi" in fields:
        assert re.fullmatch(r"10\.\d{4,}/\S+", fields["doi"])
    if "eprint" in fields:
        assert fields["archiveprefix"] == "arXiv"
        assert re.fullmatch(r"\d{4}\.\d{5}(v\d)?", fields["eprint"])
    if "url" in fields:
        assert fields["url"].startswith("https://")


def test_an_arxiv_entry_is_of_the_year_of_its_number() -> None:
    for key, entry in ENTRIES.items():
        if "eprint" in entry.fields and entry.type == "misc":
            assert entry.fields["year"] == f"20{entry.fields['eprint'][:2]}", key


def test_entries_stand_in_the_order_of_their_keys() -> None:
    assert list(ENTRIES) == sorted(ENTRIES)
