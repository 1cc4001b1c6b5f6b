"""The first page: that it marks what is not measured, and leads to what each reader needs."""

import re
from pathlib import Path

from companion import notebooks

ROOT = Path(__file__).parents[2]
SOURCE = notebooks.prose(ROOT / "notebooks" / "welcome.py")


def test_it_says_what_is_not_measured() -> None:
    assert "OPT-1.3B itself is **not measured**" in " ".join(SOURCE.replace("# ", "").split())


def test_it_leads_to_an_answer_the_findings_the_use_and_the_doubts() -> None:
    led = set(re.findall(r"\]\(([\w./]+)\.(?:ipynb|md)\)", SOURCE))
    wanted = {"which_adapter", "parameter_steps", "encoder", "use_in_peft", "your_task", "protocol"}
    assert wanted | {"../book/run_it_yourself", "../book/plan"} <= led
    for name in led:
        assert list((ROOT / "notebooks" / name).parent.resolve().glob(f"{Path(name).name}.*")), name


def test_what_is_cited_is_what_the_citation_file_says() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    (version,) = re.findall(r"^version: (.+)$", citation, re.M)
    assert f"version = {{{version}}}" in SOURCE
    assert "arXiv:2606.00428" in SOURCE
    assert "arXiv:2606.00428" in citation
