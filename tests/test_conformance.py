"""What is compared when PEFT's own tests run on the tuner, and that the list of known failures agrees with itself."""

import re
import tomllib
from types import ModuleType
from typing import Any

import pytest
from conformance.plugin import rows_for
from conformance.run import HERE, PARTS, ROOT, counts, differences
from conformance.tuners import CP, TUNERS
from peft import IA3Config, LoraConfig

LIST: dict[str, Any] = tomllib.loads((HERE / "known_failures.toml").read_text())
ENDED = {
    "test_a[1]": "passed",
    "test_a[2]": "failed",
    "test_a[3]": "failed",
    "test_b[1]": "passed",
    "test_b[2]": "skipped",
}
KNOWN = [{"items": r"test_a\[[23]\]", "count": {"models": 2}, "reason": "…"}]
NUMBERS = {"collected": 5, "passed": 2, "failed": 2, "skipped": 1}


def test_outcomes_that_are_as_listed_have_no_differences() -> None:
    assert counts(ENDED) == NUMBERS
    assert differences("models", ENDED, KNOWN, NUMBERS) == []


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"test_a[2]": "passed"}, r"2 known failures, but 1 failed.*known to fail, but passes: test_a\[2\]"),
        ({"test_a[2]": "skipped"}, "2 known failures, but 1 failed"),
        ({"test_b[1]": "failed"}, r"failed, and not known to: test_b\[1\]"),
    ],
)
def test_any_other_outcome_is_a_difference(changed: dict[str, str], found: str) -> None:
    ended = ENDED | changed
    assert re.search(found, " ".join(differences("models", ended, KNOWN, counts(ended))))


def test_a_failure_that_is_known_elsewhere_is_a_difference() -> None:
    assert differences("others", ENDED, KNOWN, NUMBERS) == [r"test_a\[[23]\]: 0 known failures, but 2 failed"]


def test_other_numbers_are_a_difference() -> None:
    (found,) = differences("models", ENDED, KNOWN, NUMBERS | {"skipped": 0})
    assert "'skipped': 1" in found
    assert differences("models", {}, [], None), "nothing ran"


def test_loras_rows_become_the_tuners() -> None:
    rows = [
        (LoraConfig, {"r": 3, "lora_alpha": 16, "bias": "none"}),
        (LoraConfig, {"use_dora": True}),  # CP has nothing like it
        (IA3Config, {}),
        ("two", LoraConfig(target_modules=["a"], init_lora_weights=False), LoraConfig(r=2)),
        ("one", LoraConfig(bias="all")),
        LoraConfig,
    ]
    first, other, (name, config0, config1), bare = rows_for(rows, ModuleType("tests"), TUNERS["cp"])
    assert first == (CP, rows[0][1])
    assert other == rows[2]
    assert (name, bare) == ("two", CP)
    assert (config0.target_modules, config0.init, config0.num_components) == ({"a"}, "normal", 4)
    assert (config1.num_components, config1.init) == (2, "zero")


def test_a_list_of_its_own_takes_the_place_of_pefts() -> None:
    module = ModuleType("tests")
    module.TEST_CASES = [("Vanilla MLP 1 LoRA", "MLP", LoraConfig, {"target_modules": "lin0"})]
    assert rows_for(module.TEST_CASES, module, TUNERS["cp"]) == TUNERS["cp"].rows["TEST_CASES"]
    alike = list(module.TEST_CASES)
    assert rows_for(alike, module, TUNERS["cp"]) == [("Vanilla MLP 1 LoRA", "MLP", CP, {"target_modules": "lin0"})]


def test_the_list_is_for_the_peft_that_is_locked() -> None:
    locked = re.search(r"^peft==(\S+)$", (ROOT / "requirements.lock").read_text(), flags=re.M)
    assert locked is not None
    assert LIST["peft"] == locked[1]


@pytest.mark.parametrize("tuner", sorted(LIST["counts"]))
def test_the_list_adds_up(tuner: str) -> None:
    known = LIST["known"].get(tuner, [])
    assert LIST["counts"][tuner].keys() == PARTS.keys()
    for part, numbers in LIST["counts"][tuner].items():
        assert sum(numbers[outcome] for outcome in ("passed", "failed", "skipped")) == numbers["collected"], part
        assert sum(entry["count"].get(part, 0) for entry in known) == numbers["failed"], part
    assert all(entry["reason"] and entry["count"].keys() <= PARTS.keys() for entry in known)


def test_the_control_fails_nothing() -> None:
    assert {numbers["failed"] for numbers in LIST["counts"]["lora"].values()} == {0}
    assert "lora" not in LIST["known"]
