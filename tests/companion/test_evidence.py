"""What the library knows of families is what the committed numbers say."""

import pytest

from companion import evidence, planner, quantities, snapshot, which_adapter
from cpadapt.families import FAMILIES


def test_the_library_has_the_committed_numbers() -> None:
    values = snapshot.read(snapshot.FILE.read_text(encoding="utf-8"))
    assert evidence.FILE.read_text(encoding="utf-8") == evidence.text(values), "`make quantities` renews it"


def test_another_number_is_another_file() -> None:
    values = snapshot.read(snapshot.FILE.read_text(encoding="utf-8"))
    for name in ("model_size.lead.qwen05", "planned.number.test5", "readout.first_gain", "which_adapter.more_ranks"):
        other = values | {name: snapshot.Quantity(name, 7.0, (), 6.0, 8.0, 0.95, "points", 1)}
        assert '"text": "7.0 points (6.0 to 8.0)"' in evidence.text(other), name


def test_no_family_is_shown_to_be_ahead_where_the_rule_says_cp() -> None:
    """Otherwise the rule in `cpadapt.families.evidence`, and what it says of LoKr, must change."""
    values = snapshot.read(snapshot.FILE.read_text(encoding="utf-8"))
    verdicts = evidence.content(values)["smallest"]["verdicts"]
    assert verdicts == {"MiniLM-L6": "open", "SmolLM2-135M": "open"}


def test_the_page_sets_a_minus_where_a_number_has_one() -> None:
    assert planner.typeset("0.05 points (-0.10 to 0.19), 97 % on Qwen2.5-Coder-1.5B") == (
        "0.05 points (−0.10 to 0.19), 97\u202f% on Qwen2.5-Coder-1.5B"
    )


def test_families_side_by_side_on_the_main_studys_query_projection() -> None:
    """1536 = 32·48: a component of CP has 161 scalars and a rank of LoRA 3072."""
    one = which_adapter.projection()
    assert (one.out_features, one.in_features) == (1536, 1536)
    table = which_adapter.family_table().set_index("family")
    assert len(table) == len(FAMILIES) + 4
    costs = {
        "LoRA": ("3,072", "3,072"), "CP": ("161", "161"), "MELoRA": ("3,072", "1,536"), "SymLoRA": ("1,537", "1,537"),
        "LoKr": ("160", "160"), "TinyLoRA": ("1", "1"), "VeRA": ("1,537", "1"), "FourierFT": ("1", "1"),
        "Uni-LoRA": ("1", "1"),
    }  # fmt: skip
    for family, (smallest, step) in costs.items():
        assert tuple(table.loc[family, ["smallest, scalars", "next step"]]) == (smallest, step), family
    assert list(table.index[table["accuracy"] == "measured"]) == ["LoRA", "CP"]
    assert list(table.index[table["accuracy"] == "on small models"]) == ["MELoRA", "SymLoRA", "LoKr"]
    ranks = table["rank as exact LoRA, first sizes"]
    assert (ranks["CP"], ranks["LoKr"], ranks["Uni-LoRA"]) == ("1, 2, 3", "1, 4, 9", "4, 4, 4")


def test_the_first_rate_is_the_middle_one_of_three_models() -> None:
    """What `size.chosen` says of each model, in multiples of the paper's 0.0002 and 0.0001."""
    chosen = {
        ("cp", "component"): (("qwen15", 30), ("qwen05", 30), ("smollm2", 100)),
        ("cp", "rank"): (("qwen15", 30), ("qwen05", 10), ("smollm2", 30)),
        ("cp", "ranks"): (("qwen15", 10), ("qwen05", 10), ("smollm2", 10)),
        ("lora", "rank"): (("qwen15", 10), ("qwen05", 10), ("smollm2", 10)),
        ("lora", "ranks"): (("qwen15", 10), ("qwen05", 10), ("smollm2", 10)),
    }
    cells = {"component": "1 1 1", "rank": "17 13 11", "ranks": "71 54 44"}
    for (label, named), times in chosen.items():
        sizes = cells[named].split() if label == "cp" else ["1" if named == "rank" else "4"] * 3
        for (model, factor), size in zip(times, sizes, strict=True):
            said = quantities.value(f"size.chosen.{model}.{label}{size}").text()
            assert said.startswith(f"{factor}×"), (model, label, size)
        rate = sorted(factor for _, factor in times)[1] * FAMILIES[label].LEARNING_RATE
        assert quantities.value(f"which_adapter.first_rate.{label}.{named}").value == pytest.approx(rate)


def test_the_pages_other_numbers_by_hand() -> None:
    # SmolLM2's choice for one component is a hundred times the paper's rate, where the middle one is thirty times.
    assert quantities.value("which_adapter.rate_off").value == pytest.approx(100 / 30)
    # Two classes on a width of 1536.
    assert quantities.value("which_adapter.head").value == 2 * 1536
    one, four = (quantities.value(f"readout.accuracy.all.head.lora{rank}").value for rank in (1, 4))
    assert quantities.value("which_adapter.more_ranks").value == pytest.approx(four - one)


@pytest.mark.parametrize(
    ("label", "ranks", "said"),
    [
        ("cp", 0.06, "0.006"), ("cp", 1.0, "0.006"), ("cp", 1.2, "0.002 to 0.006"), ("cp", 3.5, "0.002 to 0.006"),
        ("cp", 3.99, "0.002"), ("cp", 8.0, "0.002"), ("cp", 8.1, "–"), ("lora", 1, "0.001"), ("lora", 8, "0.001"),
        ("lora", 9, "–"), ("lokr", 0.06, "–"),
    ],
)  # fmt: skip
def test_a_first_rate_is_for_sizes_near_the_tried_ones(label: str, ranks: float, said: str) -> None:
    assert which_adapter.first_rate_text(label, ranks) == said
