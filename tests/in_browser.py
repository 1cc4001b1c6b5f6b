"""The book in a real browser without a network."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from playwright.sync_api import Browser, Page

from companion.browser import BROWSERS, chromium

SITE = Path(__file__).parents[1] / "_build" / "html"
DESK = {"width": 1440, "height": 900}


def skip(reason: str) -> NoReturn:
    """Skip what is not at hand or, with `CPADAPT_BROWSER=required` in the environment, fail."""
    if os.environ.get("CPADAPT_BROWSER") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


@contextlib.contextmanager
def opened() -> Iterator[Browser]:
    """A browser; see `skip` for where there is none."""
    with chromium() as found:
        if found is None:
            skip(f"nobody looked at it: no browser here (one of {', '.join(BROWSERS)})")
        yield found


def listen(page: Page) -> None:
    """Note in `page.complaints` what a page complains of and what it asks the network for."""
    page.complaints = []
    page.on("console", lambda m: m.type in ("error", "warning") and page.complaints.append(f"{m.type}: {m.text}"))
    page.on("pageerror", lambda error: page.complaints.append(f"exception: {error}"))
    page.on("requestfailed", lambda request: page.complaints.append(f"failed: {request.url}"))
    page.on(
        "request",
        lambda request: (
            request.url.startswith(("file:", "data:", "blob:")) or page.complaints.append(f"asked: {request.url}")
        ),
    )


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
