"""The built book in a real browser without a network: what a reader would see go wrong fails here.

These tests need `make book` to have run, and Chromium or Chrome; where either is missing they are skipped, aloud. With
`CPADAPT_BROWSER=required` in the environment, as in `.ci/run`, they fail instead.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import axe_playwright_python
import in_browser
import pytest
import writing
from bs4 import BeautifulSoup
from in_browser import SITE
from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

PAGES = sorted(f"{name}.html" for name in writing.NAMES)
PHONE, DESK = 360, 1440


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open a page of the book, settled; what it complained of is in `page.complaints`."""
    contexts = []

    def open_page(name: str, width: int = DESK, scheme: str = "light", **options: Any) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, **options
        )
        contexts.append(context)
        page = context.new_page()
        in_browser.listen(page)
        in_browser.go(page, name, scripts=options.get("java_script_enabled", True))
        return page

    yield open_page
    for context in contexts:
        context.close()


def test_there_is_a_browser_and_a_book(browser: Browser) -> None:
    assert len(PAGES) >= 12


@pytest.mark.parametrize(("width", "scheme", "switched"), [(PHONE, "light", "dark"), (DESK, "dark", "light")])
@pytest.mark.parametrize("name", PAGES)
def test_a_page(name: str, width: int, scheme: str, switched: str, visit: Callable[..., Page]) -> None:
    """Opened in one scheme, switched to the other, and printed."""
    page = visit(name, width, scheme)
    _check(page, scheme)
    if width == DESK and writing.FIRST_FIGURE in writing.asked(plain := name.removesuffix(".html")):
        found, where = writing.first_figure(page)
        allowed = writing.listed().get(writing.FIRST_FIGURE, {}).get(plain)
        wrong = writing.verdict(writing.FIRST_FIGURE, found, allowed)
        assert wrong is None, "\n- ".join([wrong, *where])
    page.emulate_media(color_scheme=switched)
    in_browser.settle(page)
    _check(page, switched)
    page.emulate_media(media="print")
    assert all(still.is_visible() for still in page.locator("figure.chart .chart-still svg").all())
    assert not any(live.is_visible() for live in page.locator("figure.chart .chart-live").all())
    assert page.complaints == []


AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
SERIOUS = ("critical", "serious")


def _barriers(page: Page) -> list[str]:
    """What axe-core finds serious on an open page: rule, and the first element."""
    page.add_script_tag(path=AXE)
    found = page.evaluate(
        "(impacts) => axe.run(document, {resultTypes: ['violations']}).then(({violations}) =>"
        " violations.filter(v => impacts.includes(v.impact)).map(v => `${v.id}: ${v.nodes[0].html.slice(0, 160)}`))",
        list(SERIOUS),
    )
    return list(found)


@pytest.mark.long
@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_no_serious_barrier(name: str, visit: Callable[..., Page]) -> None:
    page = visit(name, DESK)
    found = {}
    # The API's page is long and of one kind; asking it once takes as long as all others together.
    for width in (DESK, 768, 390) if name != "book/api.html" else (390,):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(150)
        found[width] = _barriers(page)
    assert {width: barriers for width, barriers in found.items() if barriers} == {}


def _check(page: Page, scheme: str) -> None:
    marks = page.evaluate(
        "() => [...document.querySelectorAll('figure.chart .chart-live')].map(chart =>"
        " chart.querySelectorAll('.role-mark path, .role-mark line, .role-mark rect, .role-mark text').length)"
    )
    assert all(marks), f"marks drawn by chart: {marks}"
    wide = page.evaluate(
        """() => {
          const limit = document.documentElement.clientWidth;
          const kept = ['auto', 'scroll', 'hidden', 'clip'];
          const scrolls = (node) => node && node !== document.body &&
            (kept.includes(getComputedStyle(node).overflowX) || scrolls(node.parentElement));
          return [...document.querySelectorAll('.bd-article *')]
            .filter(node => node.getBoundingClientRect().right > limit + 1 && !scrolls(node))
            .map(node => node.outerHTML.slice(0, 120));
        }"""
    )
    assert wide == []
    assert page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    assert page.locator("mjx-merror, merror").count() == 0
    unset = page.evaluate(
        "() => [...document.querySelectorAll('.math')].filter(m => !m.querySelector('mjx-container')).length"
    )
    assert unset == 0
    # The page and what stands on it, in the scheme that was asked for.
    page.wait_for_function(
        """light => {
          const parts = getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number);
          return (parts[0] + parts[1] + parts[2] > 384) == light;
        }""",
        arg=scheme == "light",
        timeout=5000,
    )


# Those of a book that is built; without one, nothing here is run.
BUILT = [name for name in PAGES if (SITE / name).exists()]
WITH_CHARTS = [name for name in BUILT if 'class="chart"' in (SITE / name).read_text(encoding="utf-8")]


@pytest.mark.parametrize("name", WITH_CHARTS)
def test_charts_without_javascript(name: str, visit: Callable[..., Page]) -> None:
    page = visit(name, java_script_enabled=False)
    stills = page.locator("figure.chart .chart-still svg")
    assert stills.count() == page.locator("figure.chart").count() > 0
    assert all(still.is_visible() for still in stills.all())


def test_charts_follow_their_column(visit: Callable[..., Page]) -> None:
    """Sidebars come and go with the window's width, and some while after it."""
    page = visit("notebooks/first_frontiers.html")
    fits = """() => [...document.querySelectorAll('figure.chart .chart-live')].every(chart =>
      Math.abs(chart.clientWidth - chart.querySelector('svg').getAttribute('width')) <= 1)"""
    for width in (DESK, 800, DESK, PHONE):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_function(fits, timeout=5000)


@pytest.mark.parametrize("name", WITH_CHARTS)
def test_every_chart_says_what_it_shows(name: str) -> None:
    page = BeautifulSoup((SITE / name).read_text(encoding="utf-8"), "html.parser")
    labels = [figure["aria-label"] for figure in page.select("figure.chart")]
    assert all(len(label) >= 40 for label in labels), labels


def test_a_budget_s_slider_moves_the_chart(visit: Callable[..., Page]) -> None:
    page = visit("notebooks/size.html")
    figure = page.locator("figure.chart:has(input[type=range])").first
    slider, first = figure.locator("input[type=range]").first, figure.locator(".chart-live svg").inner_html()
    start, said = slider.input_value(), slider.get_attribute("aria-valuetext")
    assert said.endswith(" scalars")

    def move(place: str) -> str:
        slider.evaluate("(node, value) => { node.value = value; node.dispatchEvent(new Event('input')); }", place)
        page.wait_for_timeout(300)
        return figure.locator(".chart-live svg").inner_html()

    assert move(slider.get_attribute("min")) != first
    assert slider.get_attribute("aria-valuetext") != said
    # Nothing is lost on the way.
    assert move(start) == first
    assert slider.get_attribute("aria-valuetext") == said
    assert page.complaints == []


@pytest.mark.parametrize("name", ["notebooks/size.html", "notebooks/first_frontiers.html"])
def test_on_a_phone_what_a_slider_says_covers_no_mark(name: str, visit: Callable[..., Page]) -> None:
    charts = visit(name, 390).locator("figure.chart .chart-live:has(input[type=range])")
    assert charts.count() >= 2
    for chart in charts.all():
        title, marks = chart.locator(".role-title-text"), chart.locator(".mark-symbol path, .mark-rule line")
        assert str(title.text_content()).startswith("best on eval within")
        below = title.bounding_box()["y"] + title.bounding_box()["height"]
        assert min(mark.bounding_box()["y"] for mark in marks.all()) >= below
        assert title.bounding_box()["x"] + title.bounding_box()["width"] <= 390


def test_pointing_at_a_cell_lights_up_its_seeds(visit: Callable[..., Page]) -> None:
    page = visit("notebooks/size.html")
    chart = page.locator("figure.chart .chart-live svg").first
    chart.scroll_into_view_if_needed()
    lit = """svg => [...svg.querySelectorAll('.mark-symbol path')].filter(
      mark => mark.getAttribute('opacity') === '1' && mark.getBoundingClientRect().width < 9).length"""
    assert chart.evaluate(lit) == 0
    # The first of the marks that are invisible and large enough for a finger.
    target = chart.locator(".mark-symbol path[opacity='0']").first
    target.hover(force=True)
    page.wait_for_timeout(300)
    assert chart.evaluate(lit) == 3
    assert "trainable scalars" in page.locator("#vg-tooltip-element").inner_text()


def test_an_old_address_leads_to_the_new_one(visit: Callable[..., Page]) -> None:
    for moved in (SITE.parents[1] / "book" / "moved").rglob("*.html"):
        name = moved.relative_to(SITE.parents[1] / "book" / "moved")
        assert str(name.with_suffix("")) not in writing.NAMES
        page = visit(str(name))
        page.wait_for_url(lambda url, moved=moved: not url.endswith(moved.name))
        page.wait_for_selector("article h1")


def test_the_front_door_leads_to_the_first_page(visit: Callable[..., Page]) -> None:
    page = visit("index.html")
    page.wait_for_url("**/notebooks/welcome.html")


def test_a_term_is_explained_where_it_stands(visit: Callable[..., Page]) -> None:
    page = visit("notebooks/welcome.html")
    box, link = page.locator("#explanation"), page.locator("a.explained[href*='#term-']").first
    assert box.is_hidden()
    link.hover()
    assert box.is_visible()
    said = box.inner_text()
    assert len(said) > 40
    page.mouse.move(0, 0)
    assert box.is_hidden()
    page.keyboard.press("Tab")  # so that the focus is one that is seen
    link.focus()
    assert box.inner_text() == said
    assert link.get_attribute("aria-describedby") == "explanation"
    page.keyboard.press("Escape")
    assert box.is_hidden()


@pytest.mark.parametrize(
    ("query", "first"),
    [("budget", "What does one budget buy?")]
    + [
        (other, "Glossary")
        for other in ("overfitting", "hyperparameter", "significance", "early stopping", "test set")
    ],
)
def test_a_search_has_pages_before_the_api(query: str, first: str, visit: Callable[..., Page]) -> None:
    page = visit(f"search.html?q={query}")
    page.wait_for_selector("#search-results li")
    page.wait_for_timeout(500)
    titles = page.locator("#search-results li > a").all_inner_texts()
    assert first in titles[:3]
    api = [place for place, link in enumerate(page.locator("#search-results li > a").all())
           if "book/api" in (link.get_attribute("href") or "")]  # fmt: skip
    assert not api or min(api) >= min(3, len(titles) - len(api))


def test_searching_finds_a_term(visit: Callable[..., Page]) -> None:
    page = visit("search.html?q=component")
    page.wait_for_selector("#search-results li")
    assert page.complaints == []


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_a_verdict_says_its_numbers_and_leads_to_its_evidence(width: int, visit: Callable[..., Page]) -> None:
    page = visit("notebooks/claims.html", width)
    cells, box = page.locator("figure.claims td a"), page.locator("#explanation")
    held = page.locator("figure.claims .claim-holds a").first
    held.hover()
    assert box.is_visible()
    assert "points" in box.inner_text()
    page.mouse.move(0, 0)
    assert not box.is_visible()
    held.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    assert box.is_visible(), "with the keyboard alone too"
    grid = page.locator("figure.claims")
    assert grid.evaluate("grid => grid.scrollWidth <= grid.clientWidth"), "all settings are seen"
    links = {cell.get_attribute("href") for cell in cells.all()}
    held.click()
    page.wait_for_url("**/verdicts.html*")
    in_browser.settle(page)
    there = {
        f"verdicts.html#{name}" for name in page.evaluate("[...document.querySelectorAll('tr[id]')].map(r => r.id)")
    }
    assert links - there == {"#not-measured"}
    assert page.locator("tr:target").is_visible(), "its fold opens"
