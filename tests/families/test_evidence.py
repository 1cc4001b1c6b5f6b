"""What a plan advises: the rule's cases, and that what it says is what the file has."""

import re
from collections.abc import Sequence

import pytest

from cpadapt.families import FAMILIES, counting, evidence
from cpadapt.inputs.backbones.specs import Projection


def projections(*shapes: tuple[int, int, int]) -> list[Projection]:
    return [Projection(f"{k}.{n}", *shape) for k, (*shape, times) in enumerate(shapes) for n in range(times)]


def advised(shapes: Sequence[tuple[int, int, int]], budget: int) -> evidence.Recommendation:
    adapted = projections(*shapes)
    return evidence.recommend(adapted, counting.plan(adapted, budget))


# Of which LoRA's rank has 4096 scalars and a component of CP 193.
SQUARE = [(2048, 2048, 1)]


@pytest.mark.parametrize(
    ("budget", "taken", "share", "reason"),
    [
        (192, (None, None), None, ""), (193, ("cp", 1), 5, "of the best adapter's gain"),
        (3_684, ("cp", 19), 90, "of the best adapter's gain"),  # 3667, which is 89.5 %
        (3_860, ("cp", 20), 94, "at equal size"), (4_095, ("cp", 21), 99, "at equal size"),
        (4_096, ("lora", 1), None, "at equal size"), (10**6, ("lora", 1), None, "at equal size"),
    ],
)  # fmt: skip
def test_the_rule(budget: int, taken: tuple[str | None, int | None], share: int | None, reason: str) -> None:
    advice = advised(SQUARE, budget)
    assert (advice.family, advice.size) == taken
    assert advice.why.startswith(f"Why: {reason}" if reason else "")
    assert (f", {share} % of the scalars of LoRA's rank 1" in advice.take) == (share is not None)
    assert ("in the one case tried" in advice.unknown) == reason.startswith("of the best")
    assert ("also try larger ranks; 244 is the largest that fits" in advice.take) == (budget == 10**6)
    assert ("LoRA gained 1.0 points" in advice.why) == (budget == 10**6)
    # LoKr starts at a scalar less than CP.
    assert (" PEFT's LoKr starts at 192 scalars; CP minus LoKr at" in advice.unknown) == (advice.family == "cp")
    assert advice.unknown.endswith(": open on MiniLM-L6 and SmolLM2-135M.") == (advice.family == "cp")
    assert bool(advice.why) == bool(advice.unknown) == (advice.family is not None)


def test_what_is_not_measured_is_never_advised() -> None:
    """LoKr's first rank has 192 scalars, so at that budget it alone fits."""
    (fits,) = [offer.family for offer in counting.plan(projections(*SQUARE), 192) if offer.size]
    assert fits == "lokr"
    assert "the smallest takes 193 scalars" in advised(SQUARE, 192).take
    assert set(evidence.measured()["families"]) < set(FAMILIES)
    assert evidence.rivals(projections(*SQUARE)) == {"lokr": 192}
    # It refuses such small sides. Of 4×6, CP starts at 10 scalars, as MELoRA does with two ranks of 5.
    assert evidence.rivals(projections((7, 11, 2))) == {}
    assert evidence.rivals(projections((4, 6, 2))) == {"melora": 20}


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ([(1536, 1536, 28), (256, 1536, 28)], "Not covered: tasks"),
        ([(256, 1536, 28), (1536, 1536, 28)], "Not covered: tasks"),
        ([(1536, 1536, 28)], "Not covered: this model; "),
        ([(1536, 1536, 28), (256, 1536, 27)], "Not covered: this model; "),
        ([(3072, 64, 1)], "Not covered: this model; "),
        ([(3073, 64, 1)], "Not covered: this model, nor any with such projections (measured: 128 to 1,536 "),
        ([(63, 1536, 1), (1536, 1536, 1)], "Not covered: this model, nor any with such projections"),
    ],
)
def test_how_near_the_measured_models_are(shapes: list[tuple[int, int, int]], said: str) -> None:
    assert advised(shapes, 10**6).unknown.startswith(said)


def test_every_number_of_the_file_is_said_with_its_interval() -> None:
    found = evidence.measured()
    said = " ".join(evidence.sentences().values())
    numbers = [study[name] for study in found["studies"] for name in ("lead", "share")]
    shares = [known["share"] for known in found["encoder"]["shares"]]
    assert [number["value"] for number in shares] == sorted(number["value"] for number in shares)
    more = found["more_examples"]
    for number in (*numbers, shares[0], shares[-1], found["larger"]["gain"], more["gain"], more["rank_gain"]):
        value, low, high = (float(part) for part in re.findall(r"(?<!\d)-?\d+\.?\d*", number["text"]))
        assert number["low"] < number["value"] < number["high"]
        assert (value, low, high) == pytest.approx(
            (number["value"], number["low"], number["high"]), abs=0.51 if "%" in number["text"] else 0.051
        )
        printed, _, ends = number["text"].partition(" (")
        assert re.search(rf"{re.escape(printed)} \((\d+ % interval )?{re.escape(ends)}", said)
    assert said.isascii()
    # The first study's interval has its level, which the others' share.
    assert len({number["level"] for number in numbers}) == 1
    assert said.count("(97 % interval ") == 3
    assert "(95 % interval 2.6 to 6.9)" in said
