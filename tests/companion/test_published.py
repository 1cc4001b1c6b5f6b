"""Figures of others: read, counted here, and those of the notes on the paper."""

import json
import tomllib
from pathlib import Path

import pytest

from companion.published import PUBLISHED, read_published
from cpadapt.errors import InputError

PAPER = Path(__file__).parents[3] / "shared" / "reference" / "paper.json"


def test_published_figures_are_counted_here() -> None:
    table = read_published()
    assert set(table["backbone"]) == {"opt-1.3b"}
    assert table["second_hand"].all()
    # 48 projections of 2048 x 2048
    for row in table.itertuples():
        assert row.parameters == 48 * {"lora": 4096, "cp": 193}[row.family] * row.size
    assert not table.duplicated(["task", "label", "size", "seeds"]).any()


@pytest.mark.parametrize(
    ("line", "changed", "said"),
    [
        ('backbone = "opt-1.3b"\n', "", "backbone is missing"),
        ("seeds = 3", "", "figure.0.seeds is missing"),
        ("second_hand = true", 'second_hand = "perhaps"', "second_hand = 'perhaps'"),
        ("accuracy = ", "percent = ", "figure.0.percent is not a known field"),
    ],
)
def test_a_file_with_a_wrong_field_is_refused(line: str, changed: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    content = PUBLISHED.read_text(encoding="utf-8")
    assert line in content
    file.write_text(content.replace(line, changed), encoding="utf-8")
    with pytest.raises(InputError, match=f"p.toml: .*{said}"):
        read_published(file)


@pytest.mark.skipif(not PAPER.parent.is_dir(), reason="the notes on the paper are not beside this checkout")
def test_published_figures_are_those_of_the_notes_on_the_paper() -> None:
    notes = json.loads(PAPER.read_text(encoding="utf-8"))["second_hand"]
    expected = {}
    matched = dict(notes["matched_budget_3_seeds"])
    assert matched.pop("columns") == ["r=2", "r=4", "r=8"]
    for task, of_task in matched.items():
        for family, sizes in {"lora": (2, 4, 8), "cp": (43, 85, 171)}.items():
            for size, accuracy in zip(sizes, of_task[family], strict=True):
                expected[task, family, size, 3] = (accuracy, None)
    for task, of_task in notes["hundred_seeds_mean_sd"].items():
        for cell, (mean, sd) in of_task.items():
            family = cell.rstrip("0123456789")
            expected[task, family, int(cell.removeprefix(family)), 100] = (mean, sd)
    content = tomllib.loads(PUBLISHED.read_text(encoding="utf-8"))
    found = {
        (figure["task"], figure["family"], figure["size"], figure["seeds"]): (figure["accuracy"], figure.get("sd"))
        for figure in content["figure"]
    }
    assert found == expected
    assert len(content["figure"]) == len(expected)


@pytest.mark.skipif(not PAPER.parent.is_dir(), reason="the notes on the paper are not beside this checkout")
def test_what_is_silent_and_what_is_nearest_are_those_of_the_notes() -> None:
    notes = json.loads(PAPER.read_text(encoding="utf-8"))
    content = tomllib.loads(PUBLISHED.read_text(encoding="utf-8"))
    assert content["not_reported"] == notes["second_hand"]["not_reported"]
    nearest, lora = notes["nearest_public_protocol"], notes["nearest_public_protocol"]["lora"]
    assert content["nearest"] == {
        **dict(zip(("train_cap", "dev_cap", "eval_cap"), nearest["caps"], strict=True)),
        "batch_size": nearest["batch_size"],
        "lora_rank": lora["r"],
        "lora_alpha": lora["alpha"],
        "lora_learning_rate": lora["learning_rate"],
        "target_modules": lora["modules"],
    }
    sizes = {task: int(str(text).split(",")[0]) for task, text in notes["eval_set_sizes"].items()}
    assert content["validation"] == sizes
