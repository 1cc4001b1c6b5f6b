"""The built book in a real browser without a network."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

SITE = Path(__file__).parents[1] / "_build" / "html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DESK = {"width": 1440, "height": 900}


@contextmanager
def chromium() -> Iterator[Browser | None]:
    """A browser, or nothing where none is installed."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        yield None
        return
    quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", *quiet])
        yield started
        started.close()


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
