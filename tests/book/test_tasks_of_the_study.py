"""SST-2, RTE and BoolQ under the paper's protocol: what their pages show and name."""

from collections.abc import Callable
from typing import Any

import pytest

Chapters = Callable[[str], Any]
TASKS = ["sst2", "rte", "boolq"]


@pytest.mark.parametrize("task", TASKS)
def test_backbone_and_draw_are_named_at_first_mention(chapter: Chapters, task: str) -> None:
    for name in (task, "welcome", "claims"):
        said = " ".join(chapter(name).source.split())
        # The claims begin with counts by study, whose names say no more than SmolLM2.
        first = said[said.index("SmolLM2-135M" if name == "claims" else "SmolLM2") :]
        assert first.startswith("SmolLM2-135M-Instruct"), name
        assert "weights are dequantized from four bits" in first[:300]
        assert "the worst of" in first[:600]


@pytest.mark.parametrize("task", TASKS)
def test_charts_are_there_and_quiet(chapter: Chapters, task: str) -> None:
    charts = chapter(task).charts
    assert len(charts) == 4
    assert sum(any(p["name"] == "published" for p in chart["params"]) for chart in charts) == 1
    assert all(chart["description"] for chart in charts)
    (choice,) = (chart for chart in charts if "against that on dev" in chart["description"])
    assert len([row for rows in choice["datasets"].values() for row in rows if "seed" in row]) == 57
