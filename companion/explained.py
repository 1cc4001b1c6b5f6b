"""A Sphinx extension: links to the glossary and the bibliography say in place what is there.

Each gets its term's definition, or the work that is cited, as its title, which `book/assets/explained.js` shows in a
box of the page when the link has the pointer or the focus.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from docutils import nodes
from pybtex.backends.plaintext import Backend

GLOSSARY = "book/glossary"

SYMBOLS = {r"\Delta": "Δ", r"\lambda": "λ", r"\gamma": "γ", r"\times": "×", r"\cdot": "·", r"\otimes": "⊗"}
"""What formulas in definitions are made of, as text."""


def definitions(glossary: nodes.document) -> Iterator[tuple[str, str]]:
    """Each term's anchor in the page, and the first paragraph of its definition."""
    for item in glossary.findall(nodes.definition_list_item):
        paragraph = next(item.findall(nodes.paragraph))
        for term in item.findall(nodes.term):
            for anchor in term["ids"]:
                yield anchor, plain(paragraph)


def plain(node: nodes.Element) -> str:
    """An element's text on one line, its formulas as far as `SYMBOLS` go."""
    said = " ".join(node.astext().split())
    for macro, symbol in SYMBOLS.items():
        said = re.sub(re.escape(macro) + r"(?![A-Za-z]) ?", symbol, said)
    return said


def works(environment: Any) -> Mapping[str, str]:
    """Each work of the bibliography as a line, by its anchor."""
    cited, backend = environment.get_domain("cite").citations, Backend()
    return {one.citation_id: one.formatted_entry.text.render(backend) for one in cited}


def explain(app: Any, page: nodes.document, name: str) -> None:
    """Give the links of a page their titles."""
    known = _known(app.env)
    for link in page.findall(nodes.reference):
        anchor = link.get("refid") or link.get("refuri", "").partition("#")[2]
        if anchor in known:
            link["reftitle"] = known[anchor]
            link["classes"].append("explained")


@functools.lru_cache(maxsize=1)
def _known(environment: Any) -> Mapping[str, str]:
    return {**works(environment), **dict(definitions(environment.get_doctree(GLOSSARY)))}


def setup(app: Any) -> dict[str, Any]:
    """Register the extension with Sphinx."""
    app.connect("doctree-resolved", explain)
    app.add_js_file("explained.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
