"""What is measured of a page, on pages of a few lines: each check can fail."""

import inspect

import pytest
import writing
from writing import CHECKS, Constant, Page

from companion import claims, noise, plan, planted
from cpadapt.analysis.statistics import Mean
from cpadapt.records.config import PAPER


@pytest.mark.parametrize(
    "split",
    [
        ["One sentence."],
        ["It moves by 0.5 points.", "That is 1.2 % of all."],
        ["Small models, e.g. SmolLM2 or, i.e. below, MiniLM, were tried by Wang et al. (2026) vs. Fig. 3 and No. 4."],
        ["Is it so?", "Yes!", "“Quite.”", "(It was 3.)", "3 seeds say so."],
        ["By E. J. Hu and others."],
        ["Is it clear?", "No.", "It is not."],
        ["The rank is 1.5B.", "SmolLM2-135M has it; so it's “on the edge.”", "Then it ends"],
        ["1, 2, …, 5 are tried: The rest is not."],
        ["It goes by the name of\ue000.", "\ue000 begins one, and\ue001. so does not."],
    ],
)
def test_sentences(split: list[str]) -> None:
    assert writing.sentences(" ".join(split)) == split


def test_a_formula_code_or_citation_is_a_word() -> None:
    page = Page.parsed(
        '<p>With <span class="math">\\(a = 1.5\\)</span>, <code><span>make book. Now 3</span></code> and 83.7 to'
        ' 85.7 % – <span class="bibtex-citation">Wang <em>et al.</em> [34]</span>. So<a class="headerlink">#</a>.</p>'
    )
    (said,) = page.passages
    assert len(writing.words(said)) == 9
    assert len(page.sentences) == 2
    assert [number.said for number in writing.numbers(said)] == ["83.7", "85.7"]


@pytest.mark.parametrize(
    ("passage", "values"),
    [
        ("0.7 points (0.3 to 1.1)", [0.7, 0.3, 1.1]),
        ("−0.7 to +1.2, 1,024, 3e-4 and 4,096,000.5", [-0.7, 1.2, 1024, 3e-4, 4096000.5]),
        ("ninety-five percent, a hundred seeds, the thousand, two thousand, Thirty", [95, 100, 1000, 2000, 30]),
        ("22 million scalars, a dozen of 1.5B, 4-bit, 3× or 10–20", [22e6, 12, 1.5, 4, 3, 10, 20]),
        ("It was 0.5. 3 follow, p=0.05", [0.5, 3, 0.05]),
        ("one to ten of hundreds in the thirties, half a point, twice", []),
        ("SST-2, OPT-1.3B, SmolLM2-135M-Instruct, Qwen2.5-Coder-1.5B, H200, float32, all-MiniLM-L6-v2", []),
        ("on 2026-11-28 and 28 November 2026, with Python 3.11 to 3.13 and PEFT 0.21", []),
        ("Fig. 3, Table 2, section 4.1, equation (5)", []),
    ],
)  # fmt: skip
def test_numbers(passage: str, values: list[float]) -> None:
    assert [number.value for number in writing.numbers(passage)] == values


@pytest.mark.parametrize(
    ("passage", "so"),
    [
        ("a 95 % interval", True), ("a 95\u202f% interval", True), ("ninety-five percent", True),
        ("the 95-percent interval", True), ("95 points", False), ("95", False), ("95.5 %", False), ("9 %", False),
    ],
)  # fmt: skip
def test_a_constant_has_its_unit(passage: str, so: bool) -> None:
    (number,) = writing.numbers(passage)
    assert Constant(95, "%", "").is_said(number) == so


@pytest.mark.parametrize(
    ("passage", "so"),
    [("500 dev examples", True), ("500 examples", False), ("500 dev exampleships", False), ("500 dev example", True)],
)
def test_a_unit_of_words(passage: str, so: bool) -> None:
    (number,) = writing.numbers(passage)
    assert Constant(500, "dev examples", "").is_said(number) == so


def test_the_constants_are_the_method_s() -> None:
    level = inspect.signature(Mean.interval).parameters["level"].default
    assert {(constant.value, constant.unit) for constant in writing.constants()} == {
        (100 * level, "%"),
        (100 * claims.LEVEL, "%"),
        (round(100 * (1 - 2 * claims.LEVEL)), "%"),
        (round(100 * (1 - plan.LEVEL)), "%"),
        (100 * planted.NEARLY, "%"),
        (100 * min(noise.EFFECTS.values()), "points"),
        (100 * claims.MARGIN, "points"),
        (PAPER["train_cap"], "examples"),
        (PAPER["dev_cap"], "dev examples"),
        (PAPER["eval_cap"], "eval items"),
    }
    assert all(constant.about for constant in writing.constants())


HEAD = "<h1>A page</h1>"
ASKED = "<p><strong>Is it?</strong></p>"
CHART = '<figure class="chart" aria-label="Accuracy against trainable scalars."></figure>'
NUMBERED = '<figcaption><p><span class="caption-number">Fig. 1 </span><span>It rises.</span></p></figcaption>'


def glued(said: str) -> str:
    return f'<span class="pasted-text">{said}</span>'


def sentence(words: int) -> str:
    return " ".join(["word"] * words).capitalize() + "."


@pytest.mark.parametrize(
    ("check", "html", "found"),
    [
        ("answer_words", HEAD + ASKED + f"<p>{sentence(61)}</p><p>{sentence(5)}</p>", 61),
        ("answer_words", HEAD + f"<p>{sentence(7)}</p>", 7),
        ("answer_words", HEAD + f"<p><strong>It</strong> is, {sentence(7)}</p>", 9),
        ("answer_words", HEAD + ASKED + "<h2>A section</h2><p>Not here.</p>", float("inf")),
        ("answer_numbers", HEAD + f"<p>It is {glued('0.7 (0.3 to 1.1)')} of 100.</p><p>5 %</p>", 4),
        ("answer_numbers", HEAD + ASKED, float("inf")),
        ("long_sentences", f"<p>{sentence(41)} {sentence(40)}</p><ul><li><p>{sentence(50)}</p></li></ul>", 2),
        ("long_sentences", f"<figure><figcaption>{sentence(41)}</figcaption></figure>", 1),
        ("long_sentences", f"<p>The sum is {'so ' * 37}</p><div class='math'>a</div><p>with its error.</p>", 1),
        ("long_sentences", f"<p>The sum is {'so ' * 37}</p><div class='math'>a</div><p>With its error.</p>", 0),
        ("mean_sentence", f"<p>{sentence(20)} {sentence(21)}</p><ul><li>a fragment</li></ul>", 20.5),
        ("mean_sentence", f"<p>{sentence(22)} {sentence(22)} {sentence(23)}</p>", 22.4),
        ("long_paragraphs", f"<p>{sentence(60)} {sentence(51)}</p><p>{sentence(110)}</p>", 1),
        ("long_paragraphs", f"<table><td><p>{sentence(111)}</p></td></table>", 0),
        ("paragraphs_full_of_numbers", f"<p>1, 2, 3, 4, 5, {glued('6')}, thirty</p><p>1, 2, 3, 4, 5, 6</p>", 1),
        ("figures_without_number", CHART + f"<figure>{CHART}{NUMBERED}</figure>", 1),
        ("figures_without_number", f"<figure>{CHART}{NUMBERED}</figure>" * 2, 2),
        ("figures_without_number", f"<figure>{CHART}{NUMBERED}</figure>", 0),
        ("figures_without_caption", f"<img alt='A'><figure>{CHART}<figcaption>Fig. 2</figcaption></figure>", 2),
        ("figures_without_caption", f"<figure>{CHART}{NUMBERED}</figure>", 0),
        ("figures_without_alternative_text", "<figure><img alt='A chart'></figure><img><figure></figure>", 3),
        ("figures_without_alternative_text", f"<figure>{CHART}{NUMBERED}</figure>", 0),
        ("untraced", f"<p>{glued('0.7')}, {glued('44 of them')}, {glued('thirty')}, {glued('on the edge')}</p>", 3),
        ("untraced", "<p><span class='quantity' data-quantity='toy.none'>0.7</span></p>", 1),
        ("untraced", "<p><span class='quantity' data-quantity='toy.lead'>0.7</span></p>", 0),
        ("typed", f"<h2>A hundred seeds</h2><p>{glued('0.7')} and 0.8 with <code>3</code> at 95 %.</p>", 2),
        ("typed", "<dl><dt>Over 30 draws</dt><dd>0.7 points</dd></dl><ul><li>0.8</li></ul>", 3),
        ("typed", "<figure><figcaption>Fig. 1 Over 30 draws.</figcaption></figure>", 1),
        ("typed", "<p><span class='quantity' data-quantity='toy.lead'>0.7</span> on SST-2</p>", 0),
        ("typed", "<table><td><p>0.7</p></td></table><div class='cell_output'><p>0.7</p></div><pre>0.7</pre>", 0),
    ],
)
def test_a_check(check: str, html: str, found: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "registry", lambda: {"toy.lead"})
    much, where = CHECKS[check].measure(Page.parsed(html))
    assert much == found
    if check.startswith(("answer_numbers", "long", "paragraphs", "figures", "untraced", "typed")) and found < 100:
        assert len(where) == found


def test_every_check_is_seen_to_fail() -> None:
    (marks,) = (mark for mark in test_a_check.pytestmark if mark.name == "parametrize")
    assert {check for check, _, found in marks.args[1] if found > CHECKS[check].limit} == set(CHECKS)


def test_a_page_is_within_the_limit_or_within_what_the_list_allows() -> None:
    assert writing.verdict("typed", 0, None) is None
    assert writing.verdict("typed", 1, None).endswith(": 1, and at most 0 are allowed")
    assert writing.verdict("typed", 4, 5) is None
    assert writing.verdict("typed", 5, 5) is None
    assert writing.verdict("typed", 6, 5).endswith(": 6, and it had 5: the list may only shrink")
    assert "take it off the list" in writing.verdict("answer_words", 60, 90)
    assert "take it off the list" in writing.verdict("first_figure", 0, 1)


def test_the_list_is_only_lowered() -> None:
    before = {"typed": {"notebooks/noise": 5.0, "notebooks/rates": 3.0, "book/plan": 2.0}, "mean_sentence": {}}
    found = {
        "typed": {"notebooks/noise": 4.0, "notebooks/rates": 7.0, "book/glossary": 1.0},
        "mean_sentence": {"x": 25.0},
    }
    assert writing.lowered(before, found) == {
        "typed": {"notebooks/noise": 4, "notebooks/rates": 3},
        "mean_sentence": {},
    }


def test_the_list_is_read_as_it_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: pytest.TempPathFactory) -> None:
    content = {"mean_sentence": {"notebooks/noise": 25.5}, "answer_words": {"book/plan": float("inf")}}
    monkeypatch.setattr(writing, "UNWRITTEN", tmp_path / "unwritten.toml")
    writing.UNWRITTEN.write_text(writing.as_toml(content | {"typed": {}}))
    assert writing.listed() == content
