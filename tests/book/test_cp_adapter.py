"""The CP adapter: what the page measures as it runs is as small, or as large, as its prose says."""

import ast
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="module")
def page(chapter: Callable[..., Any]) -> Any:
    return chapter("cp_adapter")


def test_what_is_said_to_be_rounding_is_and_what_is_not_is_not(page: Any) -> None:
    glued = page.glued
    assert all(glued[name] < 2e-5 for name in ("merge_difference", "svd_same", "rounding_32"))
    assert all(glued[name] < 1e-13 for name in ("einsum_difference", "rounding_64", "lokr_difference"))
    assert glued["export_difference"] == 0
    assert min(glued["effect"], glued["svd_less"], glued["svd_share"]) > 0.02


def test_what_is_counted_by_ranks(page: Any) -> None:
    """One component has its scalars but one a vector free; a drawn rank takes the product of both sides' ranks."""
    free = {row["adapter"]: (int(row["stored"]), int(row["free"])) for row in page.rows("adapter", "stored", "free")}
    assert free == {f"CP, c = {c}": (21 * c, 17 * c) for c in (1, 2, 3)} | {
        f"LoRA, r = {r}": (48 * r, r * (48 - r)) for r in (1, 2)
    }
    assert [row["components needed at least"] for row in page.rows("components needed at least")] == ["1", "2", "16"]
    assert [row["LoKr, matrix rank"] for row in page.rows("LoKr, matrix rank")] == ["1", "4", "9"]


def test_what_moves_and_how_far(page: Any) -> None:
    lengths = {row["tensor"]: float(row["length of its gradient"]) for row in page.rows("length of its gradient")}
    assert lengths.pop("weight") > 0.1
    assert set(lengths.values()) == {0}
    assert all(abs(float(row["cosine to the raw vector"])) < 1e-12 for row in page.rows("cosine to the raw vector"))
    glued = page.glued
    assert [glued[name] for name in ("norm_ratio", "length_ratio", "angle_ratio")] == pytest.approx([16] * 3, rel=1e-3)
    texts = [o["data"].get("text/plain", "") for c in page.cells for o in c.get("outputs", ()) if "data" in o]
    (reached,) = [ast.literal_eval(text) for text in texts if text.startswith("{0.01:")]
    assert reached[0.01] == pytest.approx(reached[100.0], rel=1e-4)
    assert reached[100.0] == pytest.approx(2e-4 * 5001 / 2, rel=1e-3)
