"""The built book in a real browser without a network."""

from pathlib import Path

from playwright.sync_api import Page

from companion.browser import BROWSERS, chromium

__all__ = ["BROWSERS", "chromium"]

SITE = Path(__file__).parents[1] / "_build" / "html"
DESK = {"width": 1440, "height": 900}


def go(page: Page, name: str, scripts: bool = True) -> None:
    """Open a page of the book and, where scripts run, wait until its formulas are set and its charts drawn."""
    path, _, query = name.partition("?")
    page.goto(f"{(SITE / path).as_uri()}?{query}", wait_until="load")
    if scripts:
        settle(page)


def settle(page: Page) -> None:
    """Wait until the formulas of an open page are set and its charts drawn."""
    page.wait_for_function("() => !window.MathJax?.startup || MathJax.startup.promise.then(() => true)")
    page.wait_for_function(
        "() => [...document.querySelectorAll('figure.chart')].every(f => f.querySelector('.chart-live svg'))"
    )
