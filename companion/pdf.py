"""The whole book as one PDF with an outline: `python -m companion.pdf PAGE FILE`, as `make pdf` does.

PAGE is that of Sphinx's `singlehtml`, which Chromium prints.
"""

import argparse
from pathlib import Path

from companion.browser import BROWSERS, chromium
from cpadapt.errors import InputError

FOOTER = """<div style="width: 100%; font: 8px sans-serif; text-align: center">
<span class="pageNumber"></span> of <span class="totalPages"></span></div>"""


def main() -> None:
    """Print the page.

    Raises:
        InputError: there is no browser.
    """
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("page", type=Path)
    reader.add_argument("file", type=Path)
    given = reader.parse_args()
    with chromium() as browser:
        if browser is None:
            raise InputError(f"no browser to print the book with: install one of {', '.join(BROWSERS)}")
        page = browser.new_page()
        page.goto(given.page.resolve().as_uri())
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


if __name__ == "__main__":
    main()
