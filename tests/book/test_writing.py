"""How the built pages are written: each within the limits of `writing`, but for what the list of them still allows."""

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
    wrong = writing.verdict(FIRST_FIGURE, writing.first_figure(browser, name), allowed(FIRST_FIGURE, name))
    assert wrong is None, wrong


def test_the_list_names_what_is_measured_and_is_as_it_is_written() -> None:
    listed = writing.listed()
    assert {(check, name) for check, pages in listed.items() for name in pages} <= set(ASKED)
    assert writing.UNWRITTEN.read_text(encoding="utf-8") == writing.as_toml(listed)


def test_few_pages_are_exempt_and_all_are_pages() -> None:
    assert set(EXEMPT) < set(NAMES)
    assert len(EXEMPT) <= 5
