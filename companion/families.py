"""Families on one axis (studies/families.md): what each gains, for how many scalars, on an encoder and a decoder."""

import functools
from collections.abc import Mapping

import pandas as pd

from companion import PROJECT, main_study, model_size, planned, quantities
from companion.planned import Tested
from cpadapt.analysis.across_tasks import OverTasks
from cpadapt.analysis.charts import family_name
from cpadapt.records.config import Cell
from cpadapt.study import Study, load_study

STUDIES: Mapping[str, str] = {
    model: study
    for model, study in (("minilm", "families-tasks-minilm"), ("smollm2", "families-tasks-smollm2"))
    if planned.is_measured(study)
}
"""The study of each model, of those that are measured."""

RANKS = (1, 2, 4)
"""LoRA's, at which families are compared."""

PARTNERS: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "minilm": {"cp": (9, 18, 37), "melora": (8, 16, 32), "symlora": (2, 4, 8)},
    "smollm2": {"cp": (11, 22, 44), "melora": (8, 16, 32)},
}
"""The sizes of each family that cost nearly what `RANKS` do, by model."""

SMALLEST = "smallest"
"""The test of one CP component and LoKr's rank 1, the smallest sizes of both."""

LEVEL = 0.05
"""The level of a test. There is one look."""


def study(model: str) -> Study:
    """A model's study, as its file has it."""
    return load_study(PROJECT / "studies" / f"{STUDIES[model]}.toml")


def tests(model: str) -> tuple[str, ...]:
    """The tests on a model: a family that is compared with LoRA, or `SMALLEST`."""
    return (*PARTNERS[model], SMALLEST)


def test_title(test: str) -> str:
    """What a test is about."""
    if test == SMALLEST:
        return "CP 1 − LoKr 1"
    return f"{family_name(test)} − {family_name('lora')}"


def _weights(test: str, model: str) -> Mapping[Cell, float]:
    if test == SMALLEST:
        return {("cp", 1): 1.0, ("lokr", 1): -1.0}
    share = 1 / len(RANKS)
    found = {(test, size): share for size in PARTNERS[model][test]}
    return found | {("lora", rank): -share for rank in RANKS}


@functools.cache
def lead(test: str, model: str) -> OverTasks:
    """A test's difference, over tasks."""
    name = STUDIES[model]
    weights = {(name, cell): weight for cell, weight in _weights(test, model).items()}
    return planned.over(lambda _: weights, (name,))


@functools.cache
def tested(model: str) -> Mapping[str, Tested]:
    """A model's tests, corrected together."""
    return planned.corrected({test: lead(test, model) for test in tests(model)}, LEVEL)


def cells(model: str) -> Mapping[Cell, int]:
    """The trainable scalars of each adapter of a model's study, from the smallest."""
    sizes = study(model).ladder.sizes
    found = {
        (label, size): main_study.scalars((label, size), STUDIES[model]) for label in sizes for size in sizes[label]
    }
    return dict(sorted(found.items(), key=lambda item: item[1]))


def smallest(label: str, model: str) -> Cell:
    """A family's smallest adapter in a model's study."""
    return label, min(study(model).ladder.sizes[label])


@functools.cache
def gain(cell: Cell, model: str) -> OverTasks:
    """What an adapter gains over the head alone, over tasks."""
    return main_study.over_sources(main_study.gains(cell, STUDIES[model]))


def share(label: str, model: str) -> tuple[float, float, float]:
    """The share of the best adapter's gain that a family's smallest has, and the ends of its 95 % interval."""
    return planned.share(STUDIES[model], smallest(label, model), 1 - LEVEL)


def gain_rows(model: str) -> pd.DataFrame:
    """What each adapter gains and costs, for `charts.budget_chart`."""
    rows = []
    for cell, scalars in cells(model).items():
        low, high = gain(cell, model).interval()
        row = {"label": cell[0], "size": cell[1], "parameters": scalars, "mean": gain(cell, model).mean}
        rows.append(row | {"low": low, "high": high})
    return pd.DataFrame(rows)


def lead_rows() -> pd.DataFrame:
    """The tests' differences, for `charts.interval_chart`."""
    rows = []
    for model in STUDIES:
        for test in tests(model):
            mean = lead(test, model)
            low, high = mean.interval()
            row = {
                "group": model_size.title(STUDIES[model]),
                "what": test_title(test),
                "mean": mean.mean,
                "low": low,
                "high": high,
            }
            rows.append(row | {"seeds": len(study(model).drawn)})
    # A test that one model lacks stands where the other has it.
    order = [test_title(test) for test in max(map(tests, STUDIES), key=len)]
    return pd.DataFrame(rows).sort_values("what", key=lambda names: names.map(order.index), kind="stable")


def table(model: str) -> pd.DataFrame:
    """A model's families, to read: the smallest adapter of each, what it has of the gain, and the test with LoRA."""
    rows = []
    for label in study(model).ladder.sizes:
        test = label in PARTNERS[model]
        rows.append(
            {
                "family": family_name(label),
                "smallest, scalars": quantities.value(f"families.smallest.{label}.{model}").text(),
                "its share of the best gain": quantities.value(f"families.share.{label}.{model}").text("full"),
                "minus LoRA at equal size": (
                    quantities.value(f"families.lead.{label}.{model}").text("full|signed") if test else "–"
                ),
                "verdict": quantities.value(f"families.verdict.{label}.{model}").text() if test else "–",
            }
        )
    return pd.DataFrame(rows)
