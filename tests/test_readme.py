"""What the README shows, and says in words that no quantity has; its numbers: tests/companion/test_quantities.py."""

import re
from pathlib import Path

import pytest

from companion.sphinx import pictures
from cpadapt import load_projections, read_records
from cpadapt.families import counting

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SAID = " ".join(README.split())


def nearly(svg: str) -> str:
    """A picture without what other versions of pandas round otherwise: last digits, and a name made from them."""
    named = re.sub(r"view_[0-9a-f]{16}", "view", svg)
    return re.sub(r"-?\d+\.\d{4,}", lambda number: f"{float(number[0]):.3f}", named)


@pytest.mark.slow
def test_the_picture_is_drawn_from_the_records() -> None:
    for name, drawn in pictures().items():
        kept = (ROOT / "book" / "assets" / name).read_text(encoding="utf-8")
        assert nearly(kept) == nearly(drawn), f"{name} is not what `make picture` draws"
        assert f"book/assets/{name}" in README


def test_no_line_begins_with_a_number() -> None:
    """A comment that begins a line ends the paragraph before it."""
    assert re.findall(r"(?m)^\s*<!--/?q.*", README) == []


def test_the_recipes_budgets_are_one_rank() -> None:
    """On MiniLM, the default backbone of the notebook, and on SmolLM2."""
    for name, amount in (("minilm", 9216), ("smollm2", 57600)):
        assert counting.count("lora", load_projections(name), 1) == amount
        assert re.search(rf"budget {amount}\b", README)


def test_backbones_are_named_at_first_mention() -> None:
    assert "SmolLM2" not in README[: README.index("SmolLM2-135M-Instruct")]
    first = re.search(r"Qwen2\.5-Coder-1\.5B-Instruct,\s+whose\s+weights\s+are\s+dequantized\s+from\s+four", README)
    assert "Qwen" not in README[: first.start()]


def test_files_that_it_links_are_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README) + re.findall(r'(?:src|srcset)="([^"]+)"', README)
    local = [link for link in links if "://" not in link]
    assert len(local) >= 5
    assert [link for link in local if not (ROOT / link).exists()] == []


@pytest.mark.slow
def test_it_has_the_records_word_on_opt() -> None:
    assert not {"opt-1.3b"} & set(read_records(ROOT / "results")["backbone"])
    assert "OPT-1.3B, is **not measured** here" in README
