"""The whole book as one PDF with contents: `python -m companion.pdf SINGLE FILE FIRST`, as `make pdf` does.

SINGLE is the page that Sphinx's `singlehtml` makes of the book, which Chromium prints into FILE. FIRST, the first page
of the book, gets a link to it. The contents stand in front and have the pages that a print has, so the book is printed
until they are right.
"""

import argparse
import html
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pypdf
import yaml
from playwright.sync_api import Page
from pypdf.generic import NameObject, TextStringObject

from companion import PROJECT
from companion.browser import BROWSERS, chromium
from companion.sphinx import SCRIPTS
from cpadapt.errors import InputError

FOOTER = """<div style="width: 100%; font: 8px sans-serif; text-align: center">
<span class="pageNumber"></span> of <span class="totalPages"></span></div>"""

ARRANGE = """([root, parts]) => {
  const article = document.querySelector("article");
  article.classList.add("whole-book");
  for (const mark of article.querySelectorAll(".headerlink")) mark.remove();
  // What is folded is shown, all but code.
  for (const fold of article.querySelectorAll("details:not(.above-input)")) fold.open = true;
  // To Sphinx every other page is a section of the first one, with its anchor before it, and so before the page break.
  const anchors = article.querySelectorAll("[id^='document-']");
  for (const heading of article.querySelectorAll("[id^='document-'] + section :is(h2, h3, h4, h5, h6)")) {
    const raised = document.createElement(`h${heading.tagName[1] - 1}`);
    raised.append(...heading.childNodes);
    heading.replaceWith(raised);
  }
  article.querySelector("section").prepend(Object.assign(document.createElement("span"), {id: root}));
  for (const anchor of anchors) anchor.nextElementSibling.prepend(anchor);
  // What leads to a file beside the page leads to where that is in here, or nowhere.
  for (const link of article.querySelectorAll("a[href]")) {
    if (link.protocol === "file:" && link.pathname !== location.pathname) {
      const there = link.hash && document.getElementById(decodeURIComponent(link.hash.slice(1)));
      there ? link.setAttribute("href", link.hash) : link.removeAttribute("href");
    }
  }
  const contents = document.createElement("nav");
  contents.className = "book-contents";
  const say = (className, textContent) =>
    contents.append(Object.assign(document.createElement("p"), {className, textContent}));
  say("book-title", document.title);
  say("book-state", document.querySelector(".extra_footer").textContent);
  for (const [caption, anchors] of parts) {
    say("book-part", caption);
    for (const anchor of anchors) {
      const heading = document.getElementById(anchor).parentElement.querySelector("h1").cloneNode(true);
      const line = Object.assign(document.createElement("a"), {href: `#${anchor}`});
      line.append(...heading.childNodes, document.createElement("i"), document.createElement("span"));
      contents.append(line);
    }
  }
  article.prepend(contents);
}"""
"""Makes a book of the page: chapters with a title each, what is folded open, and contents in front."""

NUMBER = """(pages) => {
  for (const line of document.querySelectorAll(".book-contents a")) {
    line.lastChild.textContent = pages[line.getAttribute("href").slice(1)] ?? "";
  }
}"""
"""Writes the chapters' pages into the contents."""


HEADINGS = """() => [...document.querySelectorAll("article :is(h1, h2, h3, h4, h5, h6)")]
  .filter((heading) => heading.checkVisibility()).map((heading) => heading.textContent.trim())"""


def parts(contents: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """The book's parts, each with the anchors of its chapters; the first page belongs to the first part.

    Args:
        contents: what `_toc.yml` has.
    """
    found = [
        (part["caption"], [anchor(chapter["file"]) for chapter in part["chapters"]]) for part in contents["parts"]
    ]
    found[0][1].insert(0, anchor(contents["root"]))
    return found


def anchor(name: str) -> str:
    """The anchor that Sphinx's `singlehtml` gives to a page."""
    return f"document-{name}"


def pages(printed: Path, anchors: Iterable[str]) -> dict[str, int]:
    """The page on which each anchor stands in a PDF, counted from 1.

    Raises:
        InputError: nothing in the PDF leads to one of them.
    """
    reader = pypdf.PdfReader(printed)
    there = {name.lstrip("/"): place for name, place in reader.named_destinations.items()}
    if missing := [name for name in anchors if name not in there]:
        raise InputError(f"{printed}: nothing there is named {missing[0]!r}, which the contents link")
    return {name: 1 + int(reader.get_destination_page_number(there[name]) or 0) for name in anchors}


def entitle(printed: Path, titles: Sequence[str]) -> None:
    """Give a PDF's outline these titles, in order.

    Chromium takes a heading's from its printed lines, without the space between two, and at times twice.

    Raises:
        ValueError: the outline has more entries or fewer.
    """
    writer = pypdf.PdfWriter(printed, incremental=True)
    for entry, title in zip(_entries(writer.root_object["/Outlines"]), titles, strict=True):
        entry[NameObject("/Title")] = TextStringObject(title)
    writer.write(printed)


def _entries(parent: Any) -> Iterator[Any]:
    entry = parent.get("/First")
    while entry is not None:
        yield entry.get_object()
        yield from _entries(entry.get_object())
        entry = entry.get_object().get("/Next")


def write(page: Page, file: Path, contents: Mapping[str, Any]) -> None:
    """Print the open page of `singlehtml` with contents in front.

    Args:
        page: the page.
        file: the PDF to write.
        contents: what `_toc.yml` has.

    Raises:
        InputError: as `pages`.
    """
    known = parts(contents)
    page.evaluate(ARRANGE, [anchor(contents["root"]), known])
    said: dict[str, int] = {}
    while True:
        page.evaluate(NUMBER, said)
        page.pdf(
            path=file,
            format="A4",
            scale=0.8,
            margin={"top": "15mm", "bottom": "18mm", "left": "15mm", "right": "15mm"},
            display_header_footer=True,
            header_template="<div></div>",
            footer_template=FOOTER,
            outline=True,
            tagged=True,
            print_background=True,
        )
        before, said = said, pages(file, [name for _, names in known for name in names])
        if said == before:
            break
    entitle(file, page.evaluate(HEADINGS))


def link(first: str, address: str) -> str:
    """The book's first page with a link to the PDF where it says where to go, in place of one that is there.

    Raises:
        InputError: the page has no such section.
    """
    line = f'<p class="whole-book">The whole book is also <a href="{html.escape(address)}">one PDF</a>.</p>'
    bare = re.sub(r'<p class="whole-book">.*?</p>', "", first)
    linked, times = re.subn(r'(<section id="where-to-go">\s*<h2>.*?</h2>)', rf"\1{line}", bare, count=1, flags=re.S)
    if not times:
        raise InputError("the first page has no section 'Where to go' for the link to the PDF")
    return linked


def main() -> None:
    """Print the page, and link what it is printed into.

    Raises:
        InputError: there is no browser; or as `write` and `link`.
    """
    reader = argparse.ArgumentParser(description=__doc__)
    for name in ("single", "file", "first"):
        reader.add_argument(name, type=Path)
    given = reader.parse_args()
    with chromium() as browser:
        if browser is None:
            raise InputError(f"no browser to print the book with: install one of {', '.join(BROWSERS)}")
        page = browser.new_page()
        # Charts have their static twins, and tools stay as they are found: no script but that of the formulas.
        page.route(re.compile("|".join(map(re.escape, SCRIPTS.values()))), lambda route: route.abort())
        page.goto(given.single.resolve().as_uri())
        page.wait_for_function("() => window.MathJax?.startup?.promise?.then(() => true)")
        write(page, given.file, yaml.safe_load((PROJECT / "_toc.yml").read_text(encoding="utf-8")))
    address = os.path.relpath(given.file, given.first.parent)
    given.first.write_text(link(given.first.read_text(encoding="utf-8"), address), encoding="utf-8")


if __name__ == "__main__":
    main()
