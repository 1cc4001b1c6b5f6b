"""Families on one axis: what was written down of them, and the tests by hand, from the records' own lines."""

import re
from pathlib import Path

import pytest
from by_hand import by_draw, corrected, over_sources
from scipy import stats

from companion import families, main_study, quantities
from cpadapt.analysis.across_tasks import difference
from cpadapt.analysis.charts import family_name

ASKED = (Path(__file__).parents[2] / "studies" / "families.md").read_text(encoding="utf-8")
MODELS = pytest.mark.parametrize("model", families.STUDIES)
WEIGHTS = {
    "minilm": {
        "cp": {("cp", 9): 1, ("cp", 18): 1, ("cp", 37): 1, ("lora", 1): -1, ("lora", 2): -1, ("lora", 4): -1},
        "melora": {
            ("melora", 8): 1, ("melora", 16): 1, ("melora", 32): 1, ("lora", 1): -1, ("lora", 2): -1, ("lora", 4): -1
        },
        "symlora": {
            ("symlora", 2): 1, ("symlora", 4): 1, ("symlora", 8): 1, ("lora", 1): -1, ("lora", 2): -1, ("lora", 4): -1
        },
        "smallest": {("cp", 1): 3, ("lokr", 1): -3},
    },
    "smollm2": {
        "cp": {("cp", 11): 1, ("cp", 22): 1, ("cp", 44): 1, ("lora", 1): -1, ("lora", 2): -1, ("lora", 4): -1},
        "melora": {
            ("melora", 8): 1, ("melora", 16): 1, ("melora", 32): 1, ("lora", 1): -1, ("lora", 2): -1, ("lora", 4): -1
        },
        "smallest": {("cp", 1): 3, ("lokr", 1): -3},
    },
}  # fmt: skip
"""Three times a test's weights of cells."""


def test_partners_are_those_that_were_written_down() -> None:
    rows = {row[0]: row[1:] for row in re.findall(r"^\| (.+?) − LoRA \| (.+?) \| (.+?) \| (.*?) ?\|$", ASKED, re.M)}
    said = {label: [[int(n) for n in re.findall(r"\d+", cell.split(" −")[0])] for cell in rows[family_name(label)][1:]]
            for label in ("cp", "melora", "symlora")}  # fmt: skip
    assert said["symlora"] == [[2, 4, 8], []]
    assert "same" in rows["MELoRA"][2]
    assert {label: list(sizes) for label, sizes in families.PARTNERS["minilm"].items()} == {
        label: models[0] for label, models in said.items()
    }
    assert list(families.PARTNERS["smollm2"]["cp"]) == said["cp"][1]
    assert families.PARTNERS["smollm2"]["melora"] == families.PARTNERS["minilm"]["melora"]


@MODELS
def test_partners_cost_nearly_the_same(model: str) -> None:
    counts = families.cells(model)
    for label, sizes in families.PARTNERS[model].items():
        for size, rank in zip(sizes, families.RANKS, strict=True):
            assert counts[label, size] == pytest.approx(counts["lora", rank], rel=0.06)
    assert counts["cp", 1] == pytest.approx(counts["lokr", 1], rel=0.02)


@MODELS
@pytest.mark.slow
def test_leads_and_verdicts(model: str) -> None:
    study = families.STUDIES[model]
    runs, two_sided, one_sided = main_study.runs(study), [], []
    for test, weights in WEIGHTS[model].items():
        found = by_draw(study, lambda _, weights=weights: weights)
        assert len(found) == 6
        assert {len(draws) for draws in found.values()} == {10}
        errors = {
            task: difference([(w, cells[cell].values()) for cell, w in weights.items()]).estimate.standard_error
            for task, cells in runs.items()
        }
        mean = over_sources(found, errors)
        assert mean.degrees == 4
        reach = stats.t.ppf(0.975, 4) * mean.error
        lead = quantities.value(f"families.lead.{test}.{model}")
        assert (lead.value, lead.low, lead.high) == pytest.approx(
            [100 / 3 * value for value in (mean.mean, mean.mean - reach, mean.mean + reach)], rel=2e-3, abs=1e-4
        )
        two_sided.append(2 * stats.t.sf(abs(mean.mean) / mean.error, 4))
        one_sided.append(stats.t.sf((0.015 - abs(mean.mean)) / mean.error, 4))
    for test, p, e in zip(WEIGHTS[model], corrected(two_sided), corrected(one_sided), strict=True):
        assert quantities.value(f"families.p_value.{test}.{model}").value == pytest.approx(p, rel=0.01, abs=1e-3)
        said = "shown" if p < 0.05 else "equivalent" if e < 0.05 else "open"
        assert quantities.value(f"families.verdict.{test}.{model}").value == said


@MODELS
def test_charts_and_tables_have_every_adapter(model: str) -> None:
    cells = {(label, size) for label, sizes in families.study(model).ladder.sizes.items() for size in sizes}
    gains = families.gain_rows(model)
    assert set(zip(gains["label"], gains["size"], strict=True)) == cells
    named = [family_name(label) for label in families.study(model).ladder.sizes]
    assert families.table(model)["family"].tolist() == named
    assert len(families.lead_rows()) == sum(len(families.tests(each)) for each in families.STUDIES)
