"""How the built pages are written: each within the limits of `writing`, but for what the list of them still allows."""

from pathlib import Path

import in_browser
import pytest
import writing
from playwright.sync_api import Browser
from writing import CHECKS, EXEMPT, FIRST_FIGURE, NAMES

ASKED = [(check, name) for name in NAMES for check in writing.asked(name)]


def allowed(check: str, name: str) -> float | None:
    return writing.listed().get(check, {}).get(name)


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize(("check", "name"), [(check, name) for check, name in ASKED if check in CHECKS])
def test_a_page(check: str, name: str) -> None:
    found, where = CHECKS[check].measure(writing.built(name))
    wrong = writing.verdict(check, found, allowed(check, name))
    assert wrong is None, "\n- ".join([wrong, *where])


@pytest.mark.browser
@pytest.mark.parametrize("name", [name for check, name in ASKED if check == FIRST_FIGURE])
def test_the_first_figure_is_on_the_first_screen(name: str, browser: Browser) -> None:
    found, where = writing.first_figure(browser, name)
    wrong = writing.verdict(FIRST_FIGURE, found, allowed(FIRST_FIGURE, name))
    assert wrong is None, "\n- ".join([wrong, *where])


def test_the_list_names_what_is_measured_and_is_as_it_is_written() -> None:
    listed = writing.listed()
    assert {(check, name) for check, pages in listed.items() for name in pages} <= set(ASKED)
    assert writing.UNWRITTEN.read_text(encoding="utf-8") == writing.as_toml(listed)


def test_few_pages_are_exempt_and_all_are_pages() -> None:
    assert set(EXEMPT) < set(NAMES)
    assert len(EXEMPT) <= 6


@pytest.mark.browser
@pytest.mark.parametrize(
    ("html", "beyond"),
    [
        ("<p style='height: 300px'></p><figure style='height: 400px; margin: 0'></figure>", 0),
        ("<p style='height: 700px'></p><figure style='height: 400px; margin: 0'></figure>", 1),
        ("<figure><img style='height: 700px'><figcaption style='height: 400px'></figcaption></figure>", 0),
        ("<p>No figure.</p>", 1),
    ],
)
def test_where_a_figure_ends(
    html: str, beyond: int, browser: Browser, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "page.html").write_text(f"<!doctype html><article class='bd-article'>{html}</article>")
    monkeypatch.setattr(in_browser, "SITE", tmp_path)
    assert writing.first_figure(browser, "page")[0] == beyond
