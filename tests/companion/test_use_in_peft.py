"""Which of two rates dev chose, again from the records' own runs."""

from statistics import fmean

import pytest

from companion import quantities, use_in_peft
from companion.records import records


def test_the_two_rates_of_each_backbone_and_family() -> None:
    table = use_in_peft.rate_table()
    assert [tuple(row) for row in table[["backbone", "family", "lower rate", "higher rate"]].to_numpy()] == [
        ("minilm", "cp", "0.001", "0.004"), ("minilm", "lora", "0.0005", "0.002"),
        ("smollm2", "cp", "0.0002", "0.002"), ("smollm2", "lora", "0.0001", "0.001"),
    ]  # fmt: skip


@pytest.mark.parametrize("family", ["cp", "lora"])
def test_in_how_many_cells_dev_chose_the_higher_rate(family: str) -> None:
    """The mean over a cell's seeds of each run's best accuracy on dev."""
    cells: dict[tuple[str, str, int], dict[float, list[float]]] = {}
    for study in use_in_peft.STUDIES:
        for run in records(study):
            if run.label == family:
                rates = cells.setdefault((study, run.config.task, run.config.size), {})
                assert run.best is not None
                rates.setdefault(run.config.learning_rate, []).append(run.best.dev_accuracy)
    assert {len(rates) for rates in cells.values()} == {2}
    assert {len(seeds) for rates in cells.values() for seeds in rates.values()} == {3}
    found = quantities.value(f"use_in_peft.higher_chosen.{family}")
    assert found.n == len(cells)
    assert found.value == sum(fmean(rates[max(rates)]) > fmean(rates[min(rates)]) + 1e-9 for rates in cells.values())
