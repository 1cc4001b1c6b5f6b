"""The book as one PDF."""

import re
from collections.abc import Iterator
from pathlib import Path

import in_browser
import pypdf
import pytest
from playwright.sync_api import Page

from companion import pdf
from cpadapt.errors import InputError

CONTENTS = {
    "root": "notebooks/one",
    "parts": [
        {"caption": "First part", "chapters": [{"file": "notebooks/two"}]},
        {"caption": "Second part", "chapters": [{"file": "book/three"}]},
    ],
}
LONG = "<p>Words.</p>" * 100
BOOK = f"""<!doctype html><title>A book</title>
<style>@media print {{ section:has(> [id^="document-"]), .book-contents {{ break-before: page; }} }}</style>
<article><section id="one"><h1>One<a class="headerlink">#</a></h1>{LONG}<section><h2>Within one</h2></section>
<span id="document-notebooks/two"></span><section><h2>Two <em>and</em> a half</h2>
<details><summary>Table</summary><p>Folded numbers.</p></details>
<details class="above-input"><summary>Code</summary><p>Folded code.</p></details>
<section><h3>Within two</h3>{LONG}</section></section>
<span id="document-book/three"></span><section><h2>Three {"is a long title " * 9}</h2>
<p><a href="two.html#within">There</a> <a href="two.html#nowhere">nowhere</a> <a href="https://example.org">out</a></p>
<p id="within">Here.</p></section></section></article>
<div class="extra_footer">version 1</div>"""


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """The book above in a browser, as `singlehtml` has it: all pages as sections of the first."""
    (tmp_path / "index.html").write_text(BOOK)
    with in_browser.opened() as browser:
        opened = browser.new_page(offline=True)
        opened.goto((tmp_path / "index.html").as_uri())
        yield opened


@pytest.mark.browser
def test_the_contents_have_each_chapter_with_the_page_on_which_it_begins(page: Page, tmp_path: Path) -> None:
    pdf.write(page, tmp_path / "book.pdf", CONTENTS)
    read = pypdf.PdfReader(tmp_path / "book.pdf")
    texts = [" ".join(sheet.extract_text().split()) for sheet in read.pages]
    (front,) = (text for text in texts if "First part" in text)
    lines = ("A book version 1 First part", "One", r"(\d+)", "Two and a half", r"(\d+)", "Second part",
             f"Three{9 * ' is a long title'}", r"(\d+)", r"\d+ of \d+")  # fmt: skip
    said = re.fullmatch(" ?".join(lines), front)
    assert said is not None, front
    numbers = [int(number) for number in said.groups()]
    for number, title in zip(numbers, ("One", "Two and a half", "Three"), strict=True):
        assert texts[number - 1].startswith(title)
        assert texts[number - 1].endswith(f"{number} of {len(texts)}")
    assert numbers[0] + 1 < numbers[1] < numbers[2] - 1, "chapters are longer than a page"
    assert [entry.title for entry in read.outline if not isinstance(entry, list)] == [
        "One", "Two and a half", "Three" + 9 * " is a long title",
    ]  # fmt: skip


@pytest.mark.browser
@pytest.mark.long
def test_what_is_folded_is_shown_but_for_code_and_links_stay_inside(page: Page, tmp_path: Path) -> None:
    pdf.write(page, tmp_path / "book.pdf", CONTENTS)
    printed = " ".join(sheet.extract_text() for sheet in pypdf.PdfReader(tmp_path / "book.pdf").pages)
    assert "Folded numbers." in printed
    assert "Folded code." not in printed
    links = page.locator("p > a").evaluate_all("links => links.map(link => link.getAttribute('href'))")
    assert links == ["#within", None, "https://example.org"]


def test_a_chapter_that_nothing_leads_to_is_an_error(tmp_path: Path) -> None:
    writer = pypdf.PdfWriter()
    writer.add_blank_page(100, 100)
    writer.add_named_destination("/there", 0)
    writer.write(tmp_path / "book.pdf")
    assert pdf.pages(tmp_path / "book.pdf", ["there"]) == {"there": 1}
    with pytest.raises(InputError, match="'missing'"):
        pdf.pages(tmp_path / "book.pdf", ["there", "missing"])


def test_the_first_page_links_the_file_once() -> None:
    first = '<section id="where-to-go">\n<h2>Where to go<a>#</a></h2>\n<p>Words.</p></section>'
    linked = pdf.link(first, "../book.pdf")
    assert linked.index("</h2>") < linked.index('<a href="../book.pdf">') < linked.index("<p>Words.")
    assert pdf.link(linked, "../book.pdf") == linked
    with pytest.raises(InputError, match="Where to go"):
        pdf.link("<h1>Another</h1>", "../book.pdf")
