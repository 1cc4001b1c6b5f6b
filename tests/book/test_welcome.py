"""The first page: that it marks what is not measured, and leads to what each reader needs."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
Chapters = Callable[[str], Any]


def test_it_says_what_is_not_measured(chapter: Chapters) -> None:
    assert "OPT-1.3B itself is **not measured**" in " ".join(chapter("welcome").source.replace("# ", "").split())


def test_it_leads_to_an_answer_the_findings_the_use_and_the_doubts(chapter: Chapters) -> None:
    source = chapter("welcome").source
    led = set(re.findall(r"\]\(([\w./]+)\.(?:ipynb|md)\)", source))
    wanted = {"which_adapter", "parameter_steps", "encoder", "use_in_peft", "your_task", "protocol"}
    assert wanted | {"../book/run_it_yourself", "../book/plan"} <= led
    for name in led:
        assert list((ROOT / "notebooks" / name).parent.resolve().glob(f"{Path(name).name}.*")), name


def test_what_is_cited_is_what_the_citation_file_says(chapter: Chapters) -> None:
    source = chapter("welcome").source
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    (version,) = re.findall(r"^version: (.+)$", citation, re.M)
    assert f"version = {{{version}}}" in source
    assert "arXiv:2606.00428" in source
    assert "arXiv:2606.00428" in citation
