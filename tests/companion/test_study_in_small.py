"""The tables of the study in small, on the runs that are committed, from the records' own lines."""

from pathlib import Path

import pytest
from by_hand import read

import cpadapt
from companion import study_in_small
from cpadapt.analysis.frontier import frontier
from cpadapt.records.store import load_records

ROOT = Path(__file__).parents[2]
RUNS = {(line["label"], line["config"]["size"], line["config"]["seed"]): line for line in read("small")}


def test_the_summary_by_hand() -> None:
    study, records = cpadapt.load_study(ROOT / "studies/small.toml"), load_records(ROOT / "results/small")
    (row,) = study_in_small.summary_table(study, records).to_dict("records")
    first = next(iter(RUNS.values()))
    adapters = [line for (label, _, _), line in RUNS.items() if label != "head"]
    assert row == {
        "task": "toy-sentiment",
        "runs": len(RUNS),
        "steps": first["evaluations"][-1]["step"],
        "training examples": 1000,
        "evaluation items": 200,
        "seconds": f"{first['cost']['train_seconds'] + first['cost']['evaluation_seconds']:.0f}",
        "best at the last step": f"{sum(line['best_step'] == 120 for line in adapters)} of {len(adapters)} adapters",
    }


def test_two_machines_by_hand() -> None:
    """One run is missing on one of them, one has two fewer right, and one has five more."""
    elsewhere = cpadapt.read_records(ROOT / "results/small")
    here = elsewhere.iloc[1:].assign(device="here")
    here["correct"] += [-2, 5, *[0] * (len(here) - 2)]
    (row,) = study_in_small.comparison_table(here, elsewhere).to_dict("records")
    assert row == {
        "runs in both": 20,
        "equally many right": 18,
        "furthest apart": "5 of 200 examples",
        "this machine": "here",
        "the other": next(iter(RUNS.values()))["provenance"]["device"],
    }
    here["correct"] += [-5, *[0] * (len(here) - 1)]
    assert study_in_small.comparison_table(here, elsewhere)["furthest apart"].item() == "7 of 200 examples"


def test_two_examples_of_each_label() -> None:
    shown = study_in_small.example_table(cpadapt.load_study(ROOT / "studies/small.toml"))
    assert shown["label"].value_counts().tolist() == [2, 2]
    assert shown["text"].is_unique


def test_cells_as_a_table() -> None:
    shown = study_in_small.cell_table(frontier(cpadapt.read_records(ROOT / "results/small"))).set_index("adapter")
    right = [RUNS["lora", 2, seed]["outcome"] for seed in range(3)]
    accuracy = 100 * sum(outcome["correct"] for outcome in right) / sum(outcome["total"] for outcome in right)
    assert float(shown.loc["LoRA 2", "eval, %"]) == pytest.approx(accuracy, abs=0.05)
