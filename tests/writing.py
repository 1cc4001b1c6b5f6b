"""How a built page is written: its answer, sentences, paragraphs, figures and numbers, measured on its HTML.

`CHECKS` has what is measured and the limits, `tests/book/unwritten.toml` the pages that are beyond one, each with how
much it has. `python tests/writing.py`, after `make book`, lowers that list to what is so now, and adds nothing; only
where there is no such file it writes the whole list.
"""

import functools
import json
import math
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import in_browser
import yaml
from bs4 import BeautifulSoup, NavigableString, Tag
from in_browser import SITE
from playwright.sync_api import Browser
from playwright.sync_api import Page as OpenPage

ROOT = Path(__file__).parents[1]
UNWRITTEN = ROOT / "tests" / "book" / "unwritten.toml"
CONSTANTS = ROOT / "tests" / "book" / "constants.toml"
REGISTRY = ROOT / "results" / "quantities.json"

TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
NAMES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]

# What is no prose stands in a text as one word, without letters and digits.
CODE, FORMULA, CITATION, REFERENCE, GLUED = MARKS = "\ue000\ue001\ue002\ue003\ue004"
INLINE = {"code": CODE, ".math": FORMULA, ".bibtex-citation": CITATION, ".std-numref, .eqref": REFERENCE}
GLUES = {".pasted-text, .quantity": GLUED}

_END = re.compile(rf"[.!?]+[\"'”’)\]]*\s+(?=[\"'“‘(\[]*[A-ZÀ-ÞΑ-Ω\d+−{MARKS}])")
_ABBREVIATED = re.compile(r"(?<![\w’'])(?:e\.g|i\.e|cf|vs|al|approx|ca|resp|incl|Dr|Prof|Mr|Mrs|St|[A-Z])$")
_BEFORE_A_NUMBER = re.compile(r"(?<!\w)(?:Figs?|Eqs?|Secs?|Tab|Nos?|Vol|pp?)$")


def text(tag: Tag, marks: Mapping[str, str] = INLINE) -> str:
    """The words of an element on one line, with a mark for each element that is no prose.

    Args:
        tag: the element.
        marks: by CSS selector what stands for an element.
    """
    replaced = {id(found): mark for selector, mark in marks.items() for found in tag.select(selector)}

    def parts(node: Tag) -> Iterator[str]:
        for child in node.children:
            if isinstance(child, Tag):
                if id(child) in replaced:
                    yield replaced[id(child)]
                elif "headerlink" not in child.get("class", []):
                    yield from parts(child)
            elif type(child) is NavigableString:  # and not a comment
                yield str(child)

    return " ".join("".join(parts(tag)).split())


def sentences(paragraph: str) -> list[str]:
    """A paragraph's sentences. One ends where a point, question or exclamation mark has a capital or digit behind it.

    Neither an abbreviation's point ends one nor an initial's.
    """
    found, start = [], 0
    for end in _END.finditer(paragraph):
        said, behind = paragraph[start : end.start()], paragraph[end.end()]
        if not _ABBREVIATED.search(said) and (behind.isupper() or not _BEFORE_A_NUMBER.search(said)):
            found.append(paragraph[start : end.end()].strip())
            start = end.end()
    return [*found, rest] if (rest := paragraph[start:].strip()) else found


def words(passage: str) -> list[str]:
    """What stands between spaces and has a letter or a digit, or is a mark: `83.7 to 85.7 %` has three."""
    return [word for word in passage.split() if re.search(rf"\w|[{MARKS}]", word)]


TO_TEN = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
ABOVE_TEN = {"eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17,
             "eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60,
             "seventy": 70, "eighty": 80, "ninety": 90}  # fmt: skip
LARGE = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
# Such as "thirty", "ninety-five" and "a hundred"; but not "thirties" and "hundreds".
_SPELT = (
    rf"(?:(?:a|{'|'.join(TO_TEN | ABOVE_TEN)})[ -])?(?:{'|'.join(ABOVE_TEN | LARGE)})"
    rf"(?:-(?:{'|'.join(TO_TEN)}))?(?!\w)"
)
_DIGITS = r"\d+(?:,\d{3})*(?:\.\d+)?(?:[eE][-−]?\d+)?"
_NUMBER = re.compile(
    rf"(?<![\w.])(?P<sign>[-−+])?(?P<digits>{_DIGITS})(?: (?P<times>{'|'.join(LARGE)})(?!\w))?"
    rf"|(?<![\w-])(?P<spelt>{_SPELT})",
    re.IGNORECASE,
)
_MONTH = "January February March April May June July August September October November December".replace(" ", "|")
# What has digits and is no number: names (SST-2, float32, Qwen2.5-Coder-1.5B), dates, versions, places in a text.
_NO_NUMBER = re.compile(
    r"(?<![\w.])[A-Za-z](?=[^\s]*\d)\w*(?:[-‑.]\w+)*"
    rf"|\b\d{{4}}-\d\d-\d\d\b|\b(?:\d{{1,2}} )?(?:{_MONTH})(?: \d{{1,2}},)? \d{{4}}\b"
    r"|\b(?:Python|PyTorch|CUDA|torch|transformers|PEFT|peft|version)(?: v?\d+(?:\.\d+)+(?: (?:to|and|or))?)+"
    r"|\b(?:LoRA|CP) \d+(?!\w)|\b(?i:rank)[- ]1(?!\w)"  # adapters, by their size
    r"|\b(?i:sections?|tables?|figures?|figs?\.|equations?|eqs?\.|appendix) \(?\d+(?:\.\d+)*\)?"
)


@dataclass(frozen=True)
class Number:
    """A number in a text, and where it stands."""

    value: float
    before: str
    said: str
    after: str

    def __str__(self) -> str:
        """With the words around it."""
        return f"{' '.join(self.before.split()[-2:])} [{self.said}] {' '.join(self.after.split()[:2])}".strip()


def numbers(passage: str) -> list[Number]:
    """The numbers of a text: all digits, and what is spelt out and above ten, but no names, dates or versions."""
    passage = _NO_NUMBER.sub(lambda found: REFERENCE * len(found[0]), passage)
    return [
        Number(_value(found), passage[: found.start()], found[0], passage[found.end() :])
        for found in _NUMBER.finditer(passage)
    ]


def _value(found: re.Match[str]) -> float:
    if found["digits"]:
        sign = -1 if found["sign"] in ("-", "−") else 1
        return sign * float(found["digits"].replace(",", "").replace("−", "-")) * LARGE.get(found["times"], 1)
    value = 0
    for word in re.split("[ -]", found["spelt"].lower()):
        if word in LARGE:
            value = max(value, 1) * LARGE[word]
        elif word != "a":
            value += (TO_TEN | ABOVE_TEN)[word]
    return float(value)


@dataclass(frozen=True)
class Constant:
    """A number that the method sets, in the unit that pages give it."""

    value: float
    unit: str
    """What stands behind the number, such as % or, in the plural, examples."""
    about: str

    def is_said(self, number: Number) -> bool:
        """Whether that number is this constant: of its value, and with its unit behind."""
        behind = re.sub(r"^[\s-]*(?:percent\b|%)", "%", number.after).lstrip(" -\u202f\xa0")
        unit = rf"{re.escape(self.unit.removesuffix('s'))}s?(?!\w)"
        return abs(number.value) == self.value and re.match(unit, behind) is not None


@functools.cache
def constants() -> tuple[Constant, ...]:
    """The numbers that pages may have as they are typed."""
    found = tomllib.loads(CONSTANTS.read_text(encoding="utf-8"))["constant"]
    return tuple(Constant(float(one["value"]), one["unit"], one["about"]) for one in found)


@dataclass(frozen=True)
class Page:
    """A built page, as its article's HTML."""

    article: Tag

    @classmethod
    def parsed(cls, html: str) -> "Page":
        """The page of a whole HTML document, or of an article alone."""
        soup = BeautifulSoup(html, "html.parser")
        for tag in soup.select("script, style, svg, pre, .cell_input, .above-input > summary, .figure-data"):
            tag.clear()
        return cls(soup.select_one("article.bd-article") or soup)

    @functools.cached_property
    def paragraphs(self) -> list[Tag]:
        """Those that are written: no table, caption or heading, and nothing that code prints."""
        aside = "table, figure, .cell_output, .citation, .admonition-title, .caption, .rubric"
        left_out = {id(tag) for outer in self.article.select(aside) for tag in [outer, *outer.find_all(True)]}
        found = self.article.find_all(["p", "dd", "li"])
        # Of a list's item or definition, its paragraphs, where it has some.
        return [tag for tag in found if id(tag) not in left_out and (tag.name == "p" or not tag.find(["p", "ul"]))]

    @functools.cached_property
    def question(self) -> Tag | None:
        """The paragraph in bold that asks, where it is the page's first."""
        first = next(iter(self.paragraphs), None)
        bold = first.find("strong") if first else None
        return first if bold and text(bold) == text(first) and text(bold).endswith("?") else None

    @functools.cached_property
    def answer(self) -> Tag | None:
        """The first paragraph below the title, or below the question, and above all other headings."""
        found = next((tag for tag in self.paragraphs if tag is not self.question), None)
        return (
            found
            if found and (heading := found.find_previous(re.compile("^h[1-6]$"))) and heading.name == "h1"
            else None
        )

    @functools.cached_property
    def captions(self) -> list[Tag]:
        """Those of figures and tables."""
        return self.article.select("figcaption, caption, p.caption")

    @functools.cached_property
    def headings(self) -> list[Tag]:
        """The title too, and those of boxes and definitions."""
        return self.article.select("h1, h2, h3, h4, h5, h6, dt, .admonition-title, .rubric")

    @functools.cached_property
    def sentences(self) -> list[str]:
        """Those of paragraphs and captions."""
        return [one for passage in (*self.passages, *map(text, self.captions)) for one in sentences(passage)]

    @functools.cached_property
    def passages(self) -> list[str]:
        """What the paragraphs say; one that goes on behind a displayed formula is one."""
        found: list[str] = []
        for tag in self.paragraphs:
            before = tag.find_previous_sibling()
            goes_on = before is not None and "math" in before.get("class", []) and found
            if goes_on and re.match(r"[a-z]", text(tag)) and not re.search(r"[.!?:]$", found[-1]):
                found[-1] += f" {FORMULA} {text(tag)}"
            else:
                found.append(text(tag))
        return found

    @functools.cached_property
    def figures(self) -> list[Tag]:
        """Charts, drawings and pictures, the outermost element of each."""
        return [tag for tag in self.article.select("figure, img") if not tag.find_parent("figure")]

    @functools.cached_property
    def typed(self) -> list[Number]:
        """The numbers in paragraphs, captions and headings that are typed, and no constants."""
        passages = [text(tag, INLINE | GLUES) for tag in (*self.headings, *self.paragraphs, *self.captions)]
        found = [number for passage in passages for number in numbers(passage)]
        return [number for number in found if not any(constant.is_said(number) for constant in constants())]

    @functools.cached_property
    def untraced(self) -> list[str]:
        """What is glued and has a number that no quantity of the registry is."""
        glued = [tag for tag in self.article.select(".pasted-text") if numbers(text(tag))]
        known = registry()
        stray = [tag for tag in self.article.select(".quantity") if tag.get("data-quantity") not in known]
        return [text(tag) for tag in glued + stray]


@functools.cache
def registry() -> frozenset[str]:
    """The names of all quantities."""
    return frozenset(json.loads(REGISTRY.read_text(encoding="utf-8"))) if REGISTRY.exists() else frozenset()


@functools.cache
def built(name: str) -> Page:
    """A page of the built book, by its name in `_toc.yml`."""
    return Page.parsed((SITE / f"{name}.html").read_text(encoding="utf-8"))


Found = tuple[float, list[str]]
"""What a page has of what a check measures, and where."""


@dataclass(frozen=True)
class Check:
    """A measure of a page, and how much of it a page may have."""

    about: str
    limit: float
    measure: Callable[[Page], Found]


def count(found: Iterable[object]) -> Found:
    """How many, and which."""
    listed = [str(one) for one in found]
    return len(listed), listed


def answer_words(page: Page) -> Found:
    """No answer is as bad as one without end."""
    return (len(words(text(page.answer))), [text(page.answer)]) if page.answer else (math.inf, [])


def answer_numbers(page: Page) -> Found:
    """Of an interval both ends count."""
    return count(numbers(text(page.answer))) if page.answer else (math.inf, [])


def mean_words(page: Page) -> Found:
    """Over what ends as a sentence does, so that fragments in a list do not lower it; rounded up."""
    ended = [len(words(sentence)) for sentence in page.sentences if re.search(r"[.!?:][\"'”’)\]]*$", sentence)]
    return (math.ceil(10 * sum(ended) / len(ended)) / 10 if ended else 0), []


def long(passages: Iterable[str], limit: int) -> Found:
    """Those with more words."""
    return count(passage for passage in passages if len(words(passage)) > limit)


_CAPTION = re.compile(r"(?:Fig\.|Figure) (\d+(?:\.\d+)*)\W*|")


def unnumbered(page: Page) -> Found:
    """A figure's number begins its caption, and is no other figure's."""
    found = [_CAPTION.match(caption(figure))[1] for figure in page.figures]
    return count(
        alt(f) for f, number in zip(page.figures, found, strict=True) if not number or found.count(number) > 1
    )


def uncaptioned(page: Page) -> Found:
    """A number alone is no caption."""
    return count(alt(figure) for figure in page.figures if not words(_CAPTION.sub("", caption(figure), count=1)))


def undescribed(page: Page) -> Found:
    """A word or two describe no figure."""
    return count(str(figure)[:80] for figure in page.figures if len(words(alt(figure))) < 4)


def caption(figure: Tag) -> str:
    """A figure's caption, its number included."""
    found = figure.find("figcaption")
    return text(found) if found else ""


def alt(figure: Tag) -> str:
    """A figure's alternative text: its own, or that of what it holds."""
    found = (tag.get("alt") or tag.get("aria-label") for tag in (figure, *figure.find_all(True)))
    return str(next(filter(None, found), ""))


FIRST_FIGURE = "first_figure"
CHECKS = {
    "answer_words": Check("words of the answer", 60, answer_words),
    "answer_numbers": Check("numbers in the answer", 3, answer_numbers),
    "long_sentences": Check("sentences of more than 40 words", 0, lambda page: long(page.sentences, 40)),
    "mean_sentence": Check("words of a sentence, on average", 22, mean_words),
    "long_paragraphs": Check("paragraphs of more than 110 words", 0, lambda page: long(page.passages, 110)),
    "paragraphs_full_of_numbers": Check(
        "paragraphs of more than 6 numbers", 0, lambda page: count(p for p in page.passages if len(numbers(p)) > 6)
    ),
    "figures_without_number": Check("figures without a number", 0, unnumbered),
    "figures_without_caption": Check("figures without a caption", 0, uncaptioned),
    "figures_without_alternative_text": Check("figures without alternative text", 0, undescribed),
    "untraced": Check("glued numbers that are no quantity of the registry", 0, lambda page: count(page.untraced)),
    "typed": Check("typed numbers that are no constant of the method", 0, lambda page: count(page.typed)),
}
LIMITS = {name: check.limit for name, check in CHECKS.items()} | {FIRST_FIGURE: 0}
ABOUT = {name: check.about for name, check in CHECKS.items()} | {
    FIRST_FIGURE: "no figure within the first 900 pixels of a window 1440 wide"
}
FIGURES = {name for name in LIMITS if "figure" in name}

EXEMPT = {
    "book/api": (set(LIMITS), "made from docstrings"),
    "book/bibliography": (set(LIMITS), "a list of works"),
    "book/changelog": (set(LIMITS), "a list of what changed; what it says of a version stays as it was"),
    "book/glossary": (FIGURES, "definitions, which need no figure"),
    "book/peft_limits": (FIGURES, "faults and the lines of code that help, which need no figure"),
    "book/plan": (
        {"typed", FIRST_FIGURE},
        "written before it was run, and not to change; test_plan.py compares its numbers",
    ),
}
"""What some pages are not measured by, and why."""


def asked(name: str) -> list[str]:
    """The checks of a page."""
    left_out, _ = EXEMPT.get(name, (set(), ""))
    return [check for check in LIMITS if check not in left_out]


def first_figure(opened: OpenPage) -> Found:
    """Whether no figure of an open page ends on its first screen, caption aside, and where the first one does."""
    end = opened.evaluate(
        """() => {
          const figure = document.querySelector('.bd-article figure, .bd-article img');
          const drawn = figure?.querySelector('figure, img') ?? figure;
          return drawn && drawn.getBoundingClientRect().bottom + window.scrollY;
        }"""
    )
    seen = end is not None and end <= in_browser.DESK["height"]
    return int(not seen), [] if end is None else [f"it ends at {end:.0f} pixels"]


Listed = dict[str, dict[str, float]]
"""By check and by page, how much a page has."""


def listed() -> Listed:
    """The list as it is committed."""
    return tomllib.loads(UNWRITTEN.read_text(encoding="utf-8"))


def verdict(check: str, found: float, allowed: float | None) -> str | None:
    """What is wrong with what a page has: it is beyond the limit and not on the list, or is on it for nothing.

    Args:
        check: the name of what was measured.
        found: how much the page has.
        allowed: how much the list allows it, if it is there.
    """
    said, limit = f"{ABOUT[check]}: {found:g}", LIMITS[check]
    if allowed is None:
        return f"{said}, and at most {limit:g} are allowed" if found > limit else None
    if found <= limit:
        return f"{said}, which is within {limit:g}: take it off the list (`python tests/writing.py` does)"
    return f"{said}, and it had {allowed:g}: the list may only shrink" if found > allowed else None


def lowered(before: Listed, found: Listed) -> Listed:
    """The list with what is so now: where less is found it says less, and nothing is added."""
    return {
        check: {page: min(allowed, found[check][page]) for page, allowed in pages.items() if page in found[check]}
        for check, pages in before.items()
    }


def as_toml(found: Listed) -> str:
    """The list as a file."""
    lines = [
        "# Pages of the built book that are beyond a limit of tests/writing.py, each with how much it has.",
        "# It may only shrink: `python tests/writing.py`, after `make book`, writes what is less now.",
    ]
    for check in LIMITS:
        if pages := found.get(check):
            lines += ["", f"# {ABOUT[check]}; at most {LIMITS[check]:g}".rstrip(), f"[{check}]"]
            lines += [f'"{page}" = {pages[page]:g}' for page in NAMES if page in pages]
    return "\n".join(lines) + "\n"


def measured(browser: Browser) -> Listed:
    """What the pages of the built book have beyond the limits."""
    found: Listed = {check: {} for check in LIMITS}
    for name in NAMES:
        for check in asked(name):
            if check == FIRST_FIGURE:
                opened = browser.new_page(viewport=in_browser.DESK, offline=True)
                in_browser.go(opened, f"{name}.html")
                found[check][name], _ = first_figure(opened)
                opened.close()
            else:
                found[check][name], _ = CHECKS[check].measure(built(name))
    return {check: {n: much for n, much in pages.items() if much > LIMITS[check]} for check, pages in found.items()}


def main() -> None:
    """Lower the list and say what is beyond it; without a list, write it."""
    with in_browser.chromium() as browser:
        if browser is None:
            sys.exit(f"no browser here (one of {', '.join(in_browser.BROWSERS)}) to say where the figures are")
        found = measured(browser)
    before = listed() if UNWRITTEN.exists() else found
    UNWRITTEN.write_text(as_toml(lowered(before, found)), encoding="utf-8")
    for check, pages in found.items():
        for name, much in pages.items():
            if wrong := verdict(check, much, before.get(check, {}).get(name)):
                print(f"{name}: {wrong}")


if __name__ == "__main__":
    main()
