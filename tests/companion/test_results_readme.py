"""The README of results/ is what its records say now."""

import re
from pathlib import Path

import pytest

from companion.results_readme import CHAPTERS, results_readme
from cpadapt.errors import InputError

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "results" / "README.md"


@pytest.mark.slow
def test_it_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == results_readme(), "renew it with `make results-readme`"


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", PAGE.read_text(encoding="utf-8"))
    assert len(links) > 2 * len(CHAPTERS)
    assert [link for link in links if not (PAGE.parent / link).is_file()] == []


def test_a_folder_that_no_chapter_reads_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "results" / "mine").mkdir(parents=True)
    (tmp_path / "results" / "mine" / "a.jsonl").write_text("")
    with pytest.raises(InputError, match="results/mine is read by no chapter"):
        results_readme(tmp_path)
