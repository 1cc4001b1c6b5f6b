"""The whole book as one PDF: `python -m companion.pdf PAGE FILE`, as `make pdf` does.

PAGE is Sphinx's `singlehtml`. Chromium prints it twice: the second time with the page numbers, which the first print
has as its outline, in the contents.
"""

import argparse
import html
from pathlib import Path

import pypdf

from companion.browser import BROWSERS, chromium
from cpadapt.errors import InputError

FOOTER = """<div style="width: 100%; font: 8px sans-serif; text-align: center">
<span class="pageNumber"></span> of <span class="totalPages"></span></div>"""


def contents(titles: dict[str, int]) -> str:
    """The contents as HTML: each chapter with its page."""
    rows = "".join(f"<li><span>{html.escape(title)}</span><span>{page}</span></li>" for title, page in titles.items())
    return f'<nav class="pdf-contents"><h1>Contents</h1><ol>{rows}</ol></nav>'


def chapter_pages(printed: Path) -> dict[str, int]:
    """The page on which each chapter begins, from the PDF's outline: its top level, without the book's title."""
    reader = pypdf.PdfReader(printed)
    return {
        str(entry.title): 1 + int(reader.get_destination_page_number(entry) or 0)
        for entry in reader.outline
        if isinstance(entry, pypdf.generic.Destination) and entry.title != "Contents"
    }


def main() -> None:
    """Print the page."""
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("page", type=Path)
    reader.add_argument("file", type=Path)
    given = reader.parse_args()
    with chromium() as browser:
        if browser is None:
            raise InputError(f"no browser to print the book with: install one of {', '.join(BROWSERS)}")
        page = browser.new_page()
        page.goto(given.page.resolve().as_uri())
        page.emulate_media(media="print")
        titles = dict.fromkeys(page.locator("h1").all_inner_texts(), 0)
        for _ in range(2):
            page.evaluate(
                """(made) => {
                  document.querySelector(".pdf-contents")?.remove();
                  document.querySelector("article").insertAdjacentHTML("beforebegin", made);
                }""",
                contents(titles),
            )
            page.pdf(
                path=given.file,
                format="A4",
                margin={"top": "15mm", "bottom": "18mm", "left": "15mm", "right": "15mm"},
                display_header_footer=True,
                header_template="<div></div>",
                footer_template=FOOTER,
                outline=True,
                tagged=True,
                print_background=True,
            )
            titles = chapter_pages(given.file)


if __name__ == "__main__":
    main()
