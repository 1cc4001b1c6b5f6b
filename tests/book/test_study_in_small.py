"""What the page shows of this machine's run is what the records say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from companion import study_in_small
from cpadapt import load_study
from cpadapt.records.store import load_records

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_the_page_shows_its_own_runs(chapter: Callable[..., Any]) -> None:
    page = chapter("study_in_small")
    (parameters,) = (c.source for c in page.cells if "injected-parameters" in c.metadata.get("tags", ()))
    given: dict[str, str] = {}
    exec(parameters, given)
    study = load_study(ROOT / given["study"])
    records = [record for record in load_records(ROOT / given["results_dir"]) if record.study == study.name]
    (expected,) = study_in_small.summary_table(study, records).astype(str).to_dict("records")
    assert page.rows("best at the last step") == [expected]
    assert page.glued == {"backbone": study_in_small.BACKBONES[study.backbone]}


@pytest.mark.long
def test_the_fallback_is_said(chapter: Callable[..., Any]) -> None:
    """On two random layers the page runs too, and says what it ran on."""
    fallback = chapter("study_in_small", built=False)
    assert "two random layers (the package of MiniLM is not installed here)" in fallback.glued["backbone"]
    assert fallback.rows("best at the last step")[0]["runs"] == "18"
