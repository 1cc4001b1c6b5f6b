"""The built pages, read as text: nothing from elsewhere, and one form for all. They need `make book` to have run."""

import re

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
