"""The stepper on the CP adapter's page makes the update of the adapter that its bars are."""

from collections.abc import Iterator

import in_browser
import pytest
import torch
from playwright.sync_api import Browser, Locator, Page

from companion import PROJECT, cp_adapter
from cpadapt.families import cp

pytestmark = pytest.mark.browser

ASSETS = PROJECT / "book" / "assets"
CLOSE = {"rtol": 0, "atol": 5.1e-5}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with in_browser.opened() as found:
        yield found


def opened(browser: Browser, width: int = 1440, scheme: str = "light", **options: bool) -> Page:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, **options
    )
    page = context.new_page()
    in_browser.listen(page)
    style = (ASSETS / "book.css").read_text(encoding="utf-8")
    # As wide as the book's column is there.
    main = f'<main style="width: {min(width - 64, 780)}px">{cp_adapter.stepper().data}</main>'
    page.set_content(f"<style>{style}</style>{main}")
    if options.get("java_script_enabled", True):
        page.add_script_tag(path=ASSETS / "stepper.js")
    return page


def made(page: Page) -> torch.Tensor:
    """The matrix that the script computed, as its cells' titles have it."""
    titles = page.locator("figure.stepper [data-cells=matrix] title").all_text_contents()
    return torch.tensor([float(title) for title in titles], dtype=torch.float64).reshape(24, 24)


def expected(params: dict[str, torch.Tensor], components: int) -> torch.Tensor:
    return cp.SCALE * cp_adapter.update(cp, {name: tensor[:components] for name, tensor in params.items()})


def bar(page: Page, label: str) -> Locator:
    return page.locator("figure.stepper").get_by_label(label, exact=True)


def test_it_makes_the_update_of_the_adapter(browser: Browser) -> None:
    """At the start, with more components, and where a bar was moved by a key, by a pointer and to zero."""
    page, params = opened(browser), cp_adapter.stepper_params()
    torch.testing.assert_close(made(page), expected(params, 1), **CLOSE)
    for _ in range(2):
        page.get_by_role("button", name="Add a component").click()
    torch.testing.assert_close(made(page), expected(params, 3), **CLOSE)
    assert page.locator("figure.stepper output").inner_text() == (
        "Components: 3. Stored: 63 scalars, against 144 in LoRA of that rank and 576 entries in the matrix."
    )

    moved, before = bar(page, "u₂, entry 4"), params["up_1"][2, 3].item()
    moved.press("ArrowUp")
    params["up_1"][2, 3] = float(moved.input_value())
    assert params["up_1"][2, 3].item() == pytest.approx(before + 0.05)
    torch.testing.assert_close(made(page), expected(params, 3), **CLOSE)

    page.get_by_role("button", name="Show component 2").click()
    moved = bar(page, "λ")
    box = moved.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 1)
    page.mouse.up()
    assert moved.input_value() == "1"
    params["weight"][1] = 1.0
    for entry in range(1, 5):
        bar(page, f"v₁, entry {entry}").fill("0")
    params["down_0"][1] = 0.0
    torch.testing.assert_close(made(page), expected(params, 3), **CLOSE)

    page.get_by_role("button", name="Remove the last component").click()
    torch.testing.assert_close(made(page), expected(params, 2), **CLOSE)
    assert page.complaints == []


def test_on_a_phone(browser: Browser) -> None:
    page = opened(browser, 390, "dark", has_touch=True)
    before = made(page)
    box = bar(page, "v₂, entry 2").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + 3)
    assert float(bar(page, "v₂, entry 2").input_value()) >= 0.9
    assert not torch.equal(before, made(page))
    assert all(one.bounding_box()["width"] >= 24 for one in page.locator("figure.stepper input").all())


def test_without_javascript(browser: Browser) -> None:
    page = opened(browser, java_script_enabled=False)
    assert page.locator("figure.stepper [data-cells=matrix] rect").count() == 576
    assert page.locator("figure.stepper svg").is_visible()
    assert all(one.is_visible() and one.is_disabled() for one in page.locator("figure.stepper input").all())
    assert page.locator("figure.stepper button").count() == 0
