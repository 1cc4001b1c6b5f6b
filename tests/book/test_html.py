"""The built pages, read as text: nothing from elsewhere, and one form for all. They need `make book` to have run."""

import csv
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from bs4 import BeautifulSoup
from in_browser import SITE
from writing import NAMES

ELSEWHERE = re.compile(
    r"unpkg|jsdelivr|cdnjs|cdn\.|googleapis|gstatic|googletagmanager|plausible|mathjax\.org|//hypothes", re.I
)


pytestmark = pytest.mark.usefixtures("built")


def parsed(name: str) -> BeautifulSoup:
    return BeautifulSoup((SITE / f"{name}.html").read_text(encoding="utf-8"), "html.parser")


def test_no_page_names_another_host_for_what_it_loads() -> None:
    pages = sorted(SITE.rglob("*.html"))
    assert len(pages) > len(NAMES)
    for path in pages:
        text = path.read_text(encoding="utf-8")
        assert ELSEWHERE.findall(text) == [], path
        page = BeautifulSoup(text, "html.parser")
        loads = [tag.get("src") for tag in page.select("script, img, iframe, source, video")]
        loads += [tag.get("href") for tag in page.select("link") if tag.get("rel") != ["canonical"]]
        assert [address for address in loads if address and re.match(r"(https?:)?//", address)] == [], path


def test_the_charts_javascript_is_there_once() -> None:
    # The search index holds words of every page, and is no code.
    scripts = [path for path in SITE.rglob("*.js") if path.name != "searchindex.js"]
    drawing = [path for path in scripts if "vega" in path.read_text(encoding="utf-8", errors="replace")]
    assert [path.name for path in drawing if path.stat().st_size > 100_000] == ["charts.bundle.js"]


MOST = 1_500_000
"""The bytes that a page may have, with the pictures that it shows, beside what all pages share."""


def test_no_page_is_heavy() -> None:
    heavy = {}
    for path in sorted(SITE.rglob("*.html")):
        page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        sources = {tag["src"] for tag in page.select("img[src], source[src], iframe[src]")}
        parts = [path, *(path.parent / source for source in sources if not source.startswith("data:"))]
        size = sum(part.stat().st_size for part in parts if "_static" not in part.parts)
        if size > MOST:
            heavy[str(path.relative_to(SITE))] = size
    assert heavy == {}


@pytest.mark.parametrize("name", NAMES)
def test_each_numbered_chart_has_its_data_beside_the_page(name: str) -> None:
    """Every value that a chart's marks are said to have, in a file with the figure's number."""
    path = SITE / f"{name}.html"
    for figure in parsed(name).select("figure:has(> figcaption):has(figure.chart)"):
        number = re.sub(r"\D", "", figure.select_one(".caption-number").get_text())
        (link,) = figure.select(".figure-data a")
        assert link["href"] == f"{path.stem}-{number}.csv"
        with (path.parent / link["href"]).open(encoding="utf-8", newline="") as file:
            head, *rows = csv.reader(file)
        assert all(head)
        assert len(set(head)) == len(head) >= 2
        assert all(len(row) == len(head) for row in rows)
        cells = [set(map(plain, row)) for row in rows]
        specs = [json.loads(script.string) for script in figure.select("figure.chart script")]
        told = [each for spec in specs for each in tooltips(spec)]
        missing = [said for data in told for said in data if not any(said <= row for row in cells)]
        assert missing == []
        assert len(rows) >= max(map(len, told), default=1)


def tooltips(spec: dict[str, Any]) -> Iterator[list[set[str]]]:
    """For each layer that has a tooltip, what it says of each datum, as a file has it."""
    for layer in spec.get("layer", [spec]):
        shared = spec.get("encoding", {}) | layer["encoding"]
        fields = [one["field"] for one in shared.get("tooltip", []) if "aggregate" not in one]
        data = spec["datasets"][(layer.get("data") or spec["data"])["name"]]
        if fields and layer["mark"]["type"] != "text":
            yield [{plain(row[field]) for field in fields if field in row} for row in data]


def plain(value: Any) -> float | str:
    """A value of a chart or of its file: a number, or a text, which is empty for what is missing."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return value or ""


@pytest.mark.parametrize("name", NAMES)
def test_a_page_says_which_version_of_the_book_it_is(name: str) -> None:
    said = " ".join(parsed(name).select_one(".extra_footer").get_text().split())
    assert re.fullmatch(r"cpadapt \d+\.\d+\.\d+, commit [0-9a-f]+ of \d{4}-\d\d-\d\d\. Apache-2\.0\.", said)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_opens_with_its_question(name: str) -> None:
    paragraphs = parsed(name).select_one("article.bd-article section").find_all("p", recursive=False)
    question = paragraphs[0].find("strong")
    assert question is not None
    assert question.get_text() == paragraphs[0].get_text()
    assert question.get_text().endswith("?")


@pytest.mark.parametrize("name", NAMES)
def test_a_page_says_what_it_answers_where_a_link_to_it_is_sent(name: str) -> None:
    page = parsed(name)
    said = page.select_one('meta[name="description"]')["content"]
    question = page.select_one("article.bd-article section p strong").get_text()
    assert said.startswith(question)
    assert len(said) > len(question) + 40
    assert page.select_one('meta[property="og:description"]')["content"] == said
    assert page.select_one('meta[property="og:title"]')["content"] == page.select_one("h1").find(string=True).strip()


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_no_trace_of_what_failed(name: str) -> None:
    article = parsed(name).select_one("article.bd-article")
    assert [output.get_text() for output in article.select(".output.stderr")] == []
    text = article.get_text()
    for trace in ("Traceback (most recent call last)", "{glue:", "{cite:", "{term}", "WARNING", "object at 0x"):
        assert trace not in text
