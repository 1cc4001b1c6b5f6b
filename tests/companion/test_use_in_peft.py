"""What a CP adapter is on disk, counted from MiniLM's shapes."""

import pytest

from companion import quantities, use_in_peft


def test_the_export_by_hand() -> None:
    """On a projection of 384×384, split into 16·24 both ways, a component stores 16 + 24 + 16 + 24 + 1 scalars."""
    assert quantities.value("use_in_peft.export_over_cp").value == pytest.approx((384 + 384) / 81)


def test_the_files_by_hand() -> None:
    """12 projections, four bytes a scalar; rank 2 is the largest at or under 20 components."""
    rows = use_in_peft.file_rows()
    projections = 12
    assert list(rows.itertuples(index=False, name=None)) == [
        ("CP 20", "cp", 4 * projections * 20 * 81 / 1000),
        ("LoRA 2", "lora", 4 * projections * 2 * 768 / 1000),
        ("CP 20 as plain LoRA", "lora", 4 * projections * 20 * 768 / 1000),
    ]
