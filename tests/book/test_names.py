"""What pages call the backbone and the draw on which nearly all runs stand, at first mention; read as written."""

from pathlib import Path

import pytest

from companion import contrasts, notebooks

ROOT = Path(__file__).parents[2]


def written(page: str) -> str:
    return " ".join(notebooks.prose(ROOT / "notebooks" / f"{page}.py").split())


@pytest.mark.parametrize(
    "page",
    ["noise", "causes", "how_sure", "rates", "tensorization", "sst2", "rte", "boolq", "first_frontiers"],
)
def test_the_backbone_has_its_full_name_at_first(page: str) -> None:
    text = written(page)
    assert text[text.index("SmolLM2") :].startswith("SmolLM2-135M-Instruct, dequantized from four bits,")


def test_the_ledger_of_sst2_names_the_draw() -> None:
    text = written("sst2")
    assert text.index("the worst of {q}`noise.draws_known`") < text.index("## LoRA and CP of equal size")


def test_backbone_and_draw_are_named_at_first_in_the_claims() -> None:
    text = written("claims")
    # The claims begin with counts by study, whose names say no more than SmolLM2.
    first = text[text.index("SmolLM2-135M") :]
    assert first.startswith("SmolLM2-135M-Instruct")
    assert "weights are dequantized from four bits" in first[:300]
    assert "the worst of" in first[:600]


@pytest.mark.parametrize("page", ["noise", "rates", "tensorization"])
def test_the_draw_is_said_to_be_the_worst_where_sst2_is_first_judged_on_it(page: str) -> None:
    text = written(page)
    draw = text.index("one draw of the examples")
    assert text[draw:].startswith("one draw of the examples, on SST-2 the worst of {q}`noise.draws_known`")


def test_it_is_dequantized_from_four_bits() -> None:
    (weights,) = {record.weights.sha256 for record in contrasts.on_record(("smollm2", "smollm2-seeds"))}
    # SmolLM2-135M-Instruct.Q4_1.gguf
    assert weights == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
