"""What the library knows of families is what the committed numbers say."""

from companion import evidence, planner, snapshot, which_adapter
from cpadapt.families import FAMILIES


def test_the_library_has_the_committed_numbers() -> None:
    values = snapshot.read(snapshot.FILE.read_text(encoding="utf-8"))
    assert evidence.FILE.read_text(encoding="utf-8") == evidence.text(values), "`make quantities` renews it"


def test_another_number_is_another_file() -> None:
    values = snapshot.read(snapshot.FILE.read_text(encoding="utf-8"))
    for name in ("model_size.lead.qwen05", "planned.number.test5", "readout.first_gain"):
        other = values | {name: snapshot.Quantity(name, 7.0, (), 6.0, 8.0, 0.95, "points", 1)}
        assert '"text": "7.0 points (6.0 to 8.0)"' in evidence.text(other), name


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
