"""How the built pages are written: each within the limits of `writing`, but for what the list of them still allows."""

import in_browser
import pytest
import writing
from playwright.sync_api import Browser
from writing import CHECKS, EXEMPT, NAMES

ASKED = [(check, name) for name in NAMES for check in writing.asked(name)]


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize(("check", "name"), [(check, name) for check, name in ASKED if check in CHECKS])
def test_a_page(check: str, name: str) -> None:
    found, where = CHECKS[check].measure(writing.built(name))
    wrong = writing.verdict(check, found, writing.listed().get(check, {}).get(name))
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
def test_where_a_figure_ends(html: str, beyond: int, browser: Browser) -> None:
    opened = browser.new_page(viewport=in_browser.DESK, offline=True)
    opened.set_content(f"<!doctype html><article class='bd-article'>{html}</article>")
    assert writing.first_figure(opened)[0] == beyond
    opened.close()
