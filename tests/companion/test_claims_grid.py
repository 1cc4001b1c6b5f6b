"""The grid of the claims: each cell says its verdict, its numbers and where the evidence is, and can be read."""

import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from companion import claims_grid, quantities, verdicts
from companion.claims import Verdict
from companion.verdicts import CASES, JUDGED

ROOT = Path(__file__).parents[2]
CSS = (ROOT / "book" / "assets" / "book.css").read_text(encoding="utf-8")

UNDECIDED = ("cannot be told", "on the edge")
"""What the grid shows under one name; its other names are the verdicts'."""


@pytest.fixture(scope="module")
def grid() -> BeautifulSoup:
    return BeautifulSoup(claims_grid.grid().data, "html.parser")


def test_every_verdict_on_accuracy_has_one_kind() -> None:
    for verdict in set(Verdict) - {Verdict.NONE_LOST, Verdict.SOME_LOST}:
        assert claims_grid.kind_of(verdict).symbol
    kinds = [claims_grid.kind_of(verdict) for verdict in (Verdict.FAILS, Verdict.OPEN, Verdict.UNJUDGED)]
    assert [kind.said for kind in kinds] == ["fails", "undecided", "not judged"]
    for part in ("said", "symbol", "css"):
        assert len({getattr(kind, part) for kind in claims_grid.KINDS}) == len(claims_grid.KINDS)


@pytest.mark.slow
def test_a_cell_says_its_verdict_its_numbers_and_its_evidence(grid: BeautifulSoup) -> None:
    rows = [row for row in grid.select("tbody tr") if row.find("td")]
    assert len(rows) == len(JUDGED)
    for row, (claim, task) in zip(rows, JUDGED, strict=True):
        evidence = BeautifulSoup(verdicts.evidence_table(claim).data, "html.parser")
        cells = row.find_all("td")
        for cell, case in zip(cells, CASES, strict=True):
            told = str(quantities.value(f"claims.verdict.{claim}.{task}.{case}").value)
            link = cell.a
            said = link.select_one(".unseen").get_text()
            assert said == ("undecided" if told in UNDECIDED else told.partition(": ")[0])
            assert cell["class"] == [f"claim-{said.replace(' ', '-')}"]
            if said != "not measured":
                named = evidence.find(id=link["href"].removeprefix("verdicts.html#"))
                assert CASES[case].title in named.get_text()
                first = verdicts.CLAIMS[claim]["rules"][0]
                assert (
                    quantities.value(f"claims.difference.{first}.{task}.{case}").text("signed|full") in link["title"]
                )


@pytest.mark.slow
def test_what_a_cell_says() -> None:
    assert claims_grid.explained("favoured", "rte", "many_seeds").splitlines() == [
        "Undecided: the interval reaches across an end of what is claimed.",
        "LoRA − CP at equal size: +0.7 points (−0.1 to +1.6); wanted above 0.",
    ]
    assert claims_grid.explained("favoured", "rte", "tuned").startswith("Undecided: the verdict hangs on one budget")
    assert claims_grid.explained("finer", "boolq", "encoder").splitlines() == [
        "Not judged: LoRA at an unsuitable rate.",
        "CP − LoRA at equal size: +3.5 points (+2.7 to +4.3); wanted below +1, but the interval is wholly elsewhere.",
    ]
    assert "elsewhere" not in claims_grid.explained("finer", "sst2", "tuned")
    assert claims_grid.explained("finer", "boolq", "opt") == "Not measured."


@pytest.mark.slow
def test_columns_stand_under_their_model(grid: BeautifulSoup) -> None:
    models, settings = (row.find_all("th") for row in grid.select("thead tr"))
    above = [model.get_text() for model in models for _ in range(int(model["colspan"]))]
    assert [", ".join(pair) for pair in zip(above, (s.get_text() for s in settings), strict=True)] == [
        case.title for case in CASES.values()
    ]


def luminance(colour: str) -> float:
    parts = [int(part * (2 // len(part)), 16) / 255 for part in re.findall("." if len(colour) == 3 else "..", colour)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("kind", ["holds", "fails", "undecided", "not-judged"])
def test_a_cell_can_be_read_on_its_own_ground(kind: str) -> None:
    (ground, ink) = re.search(rf"\.claim-{kind} {{ background: #(\w+); color: #(\w+); }}", CSS).groups()
    dark, light = sorted(map(luminance, (ground, ink)))
    assert (light + 0.05) / (dark + 0.05) >= 4.5
