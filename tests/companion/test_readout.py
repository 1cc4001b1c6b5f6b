"""The readout: what its runs are, and one number of each kind again from the records' own lines."""

import functools
from typing import Any

import numpy as np
import pytest
from by_hand import answers, bits, judged, read

from companion import quantities, readout

Cell = tuple[str, int]
STUDIES = {
    ("sst2", "head"): ("smollm2-seeds", "sst2"), ("sst2", "words"): ("smollm2-verbalizer", "sst2"),
    ("rte", "head"): ("smollm2-seeds", "rte"), ("rte", "words"): ("smollm2-verbalizer", "rte"),
    ("few", "head"): ("smollm2-seeds-boolq", "boolq"), ("few", "words"): ("smollm2-verbalizer", "boolq"),
    ("all", "head"): ("boolq-lifted", "boolq"), ("all", "words"): ("boolq-lifted-verbalizer", "boolq"),
}  # fmt: skip
PAPERS = {"lora": 1e-4, "cp": 2e-4}
HEAD_ONLY: Cell = ("head", 0)


def lines(setting: str, by: str) -> list[dict[str, Any]]:
    study, task = STUDIES[setting, by]
    return [line for line in read(study) if line["config"]["task"] == task and line["config"]["seed"] < 5]


@functools.cache
def right(setting: str, by: str) -> dict[Cell, np.ndarray]:
    """Right or wrong, by cell, seed by seed and item by item."""
    found: dict[Cell, dict[int, list[int]]] = {}
    for line in lines(setting, by):
        found.setdefault((line["label"], line["config"]["size"]), {})[line["config"]["seed"]] = answers(
            line["outcome"]
        )
    return {cell: np.array([by_seed[seed] for seed in range(5)], dtype=float) for cell, by_seed in found.items()}


def check(name: str, tables: list[np.ndarray]) -> None:
    found, by_hand = quantities.value(f"readout.{name}"), judged(np.mean(tables, axis=0).tolist())
    assert (found.value, found.low, found.high) == pytest.approx((by_hand["gap"], *by_hand["interval"]))


@pytest.mark.parametrize(("setting", "by"), STUDIES)
def test_the_records_are_what_the_page_says(setting: str, by: str) -> None:
    cells = [cell for cell in readout.CELLS.values() if cell != ("lora", 4) or setting == "all"]
    assert right(setting, by).keys() == set(cells)
    for line in lines(setting, by):
        protocol, sets = line["config"]["protocol"], line["data"]["sets"]
        assert protocol["readout"] == {"head": "head", "words": "verbalizer"}[by]
        assert protocol["steps"] == (5000 if setting == "all" else 2000)
        assert sets["train"]["size"] == (8927 if setting == "all" else 1000)
        papers, rate = PAPERS.get(line["label"]), line["config"]["learning_rate"]
        assert rate == (papers and pytest.approx(10 * papers)), "ten times the paper's"
        assert line["counts"]["head"] == (2 * 576 + 2 if by == "head" else 0), "nothing of words is trained"
        assert line["diverged_at"] is None


def test_what_words_change_by_hand() -> None:
    heads, words = right("rte", "head"), right("rte", "words")
    check("words_gain.rte", [words[cell] - heads[cell] for cell in heads if cell != HEAD_ONLY])
    lead = {by: cells["lora", 1] - cells["cp", 11] for by, cells in (("head", heads), ("words", words))}
    check("change.rte", [lead["words"] - lead["head"]])
    whole = right("all", "head")
    check("lead.head", [whole["lora", 1] - whole["cp", 11], whole["lora", 4] - whole["cp", 44]])


@pytest.mark.slow
def test_the_chart_has_the_same_changes() -> None:
    rows = readout.changes().to_dict("records")
    found = {(row["what"], row["group"]): (row["mean"], row["low"], row["high"]) for row in rows}
    for setting, called in readout.SETTINGS.items():
        for name, group in (("words_gain", "adapters"), ("change", "LoRA − CP")):
            value = quantities.value(f"readout.{name}.{setting}")
            charted = [100 * end for end in found.pop((called, group))]
            assert charted == pytest.approx([value.value, value.low, value.high])
    assert not found


def test_what_examples_change_by_hand() -> None:
    """On the items and seeds that both have."""
    few: dict[Cell, dict[int, list[int]]] = {}
    for line in read("smollm2") + read("smollm2-rates"):
        config, papers = line["config"], PAPERS.get(line["label"])
        if config["task"] == "boolq" and papers and config["learning_rate"] == pytest.approx(10 * papers):
            few.setdefault((line["label"], config["size"]), {})[config["seed"]] = answers(line["outcome"])
    (drawn,) = {line["outcome"]["drawn"] for line in read("smollm2") if line["config"]["task"] == "boolq"}
    asked = [item for item, is_in in enumerate(bits(drawn, lines("all", "head")[0]["outcome"]["rows"])) if is_in]
    more = {
        cell: right("all", "head")[cell][:3, asked] - np.array([few[cell][seed] for seed in range(3)])
        for cell in (("cp", 1), ("cp", 11), ("cp", 44), ("lora", 1), ("lora", 4))
    }
    check("more.cp44", [more["cp", 44]])
    check("more_gain", [more["cp", 44] - more["cp", 1]])
    check("more_lead", [more["lora", 1] - more["cp", 11], more["lora", 4] - more["cp", 44]])
