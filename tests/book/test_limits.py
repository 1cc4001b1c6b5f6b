"""Limits: its numbers and what it says of other pages."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from by_hand import read

ROOT = Path(__file__).parents[2]
Chapters = Callable[[str], Any]
FIRST = {line["config"]["task"]: line for line in read("smollm2")}


def test_numbers(chapter: Chapters) -> None:
    paper = tomllib.loads((ROOT / "studies" / "paper.toml").read_text(encoding="utf-8"))
    cells = {(label, size) for label, sizes in paper["ladder"]["sizes"].items() for size in sizes}
    cells |= {place for pair in paper["ladder"]["pairs"] for place in pair.items()}
    sources = list(FIRST["rte"]["protocol_sources"].values())
    assert chapter("limits").glued == {
        "opt_runs": str(len(cells) * len(paper["seeds"]) * len(paper["tasks"])),
        "ours": str(sources.count("ours")),
        "fields": str(len(sources)),
        "boolq_items": f"{FIRST['boolq']['outcome']['total']:,}",
        "boolq_shared": str(FIRST["boolq"]["data"]["eval_shares_text"]["passage"]),
        "rte_shared": str(FIRST["rte"]["data"]["eval_shares_text"]["sentence2"]),
    }


def test_what_is_said(chapter: Chapters) -> None:
    said = " ".join(chapter("limits").source.replace("\n# ", " ").split())
    assert FIRST["rte"]["weights"]["kind"] == "package", "dequantized from four bits"
    assert (FIRST["rte"]["config"]["protocol"]["dtype"], FIRST["rte"]["config"]["protocol"]["dropout"]) == (
        "bfloat16",
        0,
    )
    for task in ("sst2", "rte"):
        eval_rows = FIRST[task]["data"]["source"]["eval"]["rows"]
        assert FIRST[task]["data"]["sets"]["eval"]["size"] == eval_rows, "they have no more"
    drawn = [{line["config"]["data_seed"] for line in read(f"smollm2-data-seeds{which}")} for which in ("", "-again")]
    assert drawn == [set(range(1, 31))] * 2, "thirty other draws, with two seeds each"
    assert {line["config"]["task"] for line in read("smollm2-data-seeds-again")} == {"sst2", "rte"}
    assert "public data sets" in said
    assert "may have seen them" in said
    assert "answers without any training stands beside the head" in said
    assert not (ROOT / "results" / "paper").exists()
