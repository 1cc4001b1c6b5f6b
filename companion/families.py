"""Families on one axis (studies/families.md): what each gains, for how many scalars, on an encoder and a decoder."""

import functools
import math
from collections.abc import Mapping

import pandas as pd

from companion import PROJECT, main_study, model_size, planned, quantities
from companion.planned import Tested
from companion.records import records
from cpadapt.analysis.across_tasks import OverTasks, chosen_settings, difference
from cpadapt.analysis.charts import cell_name, family_name, pair_name, task_name
from cpadapt.analysis.statistics import Estimate
from cpadapt.families import FAMILIES, counting, family
from cpadapt.inputs.backbones.projections import load_projections
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


def _all_tests() -> tuple[str, ...]:
    """The tests of the model that has most of them, which are all."""
    return max(map(tests, STUDIES), key=len)


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
def on_task(test: str, model: str, task: str) -> Estimate:
    """A test's difference on one task. It has no test."""
    found = main_study.runs(STUDIES[model])[task]
    return difference([(weight, found[cell].values()) for cell, weight in _weights(test, model).items()]).estimate


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


def below(model: str) -> list[str]:
    """The families that have an adapter smaller than LoRA's rank 1 in a model's study, from the largest of these."""
    counts = cells(model)
    found = {label: counts[smallest(label, model)] for label in study(model).ladder.sizes}
    return sorted((label for label in found if found[label] < counts["lora", 1]), key=lambda label: -found[label])


@functools.cache
def gain(cell: Cell, model: str) -> OverTasks:
    """What an adapter gains over the head alone, over tasks."""
    return main_study.over_sources(main_study.gains(cell, STUDIES[model]))


@functools.cache
def behind(label: str, model: str) -> OverTasks:
    """What a family's smallest reaches minus LoRA's rank 1, over tasks. It wasn't asked beforehand."""
    return main_study.over_sources(main_study.minus(smallest(label, model), ("lora", 1), STUDIES[model]))


def share(label: str, model: str) -> tuple[float, float | None, float | None]:
    """The share of the best adapter's gain that a family's smallest has, and the ends of its 95 % interval.

    Where the best adapter's gain may be zero, every share is possible: there are no ends then.
    """
    ratio, *ends = planned.share(STUDIES[model], smallest(label, model), 1 - LEVEL)
    low, high = ends if all(map(math.isfinite, ends)) else (None, None)
    return ratio, low, high


RATES: Mapping[str, str] = {model: study.replace("tasks", "rates") for model, study in STUDIES.items()}
"""The study that chose each model's rates."""


@functools.cache
def choices(model: str) -> Mapping[Cell, tuple[float, float, float]]:
    """The rate that dev chose for each size that was tried, with the lowest and the highest one tried."""
    runs = records(RATES[model])
    found = {}
    for cell, config in chosen_settings(runs).items():
        tried = {run.config.learning_rate or 0.0 for run in runs if (run.label, run.config.size) == cell}
        found[cell] = (config.learning_rate or 0.0, min(tried), max(tried))
    return found


POINTS = "points, 95 % intervals"
"""The title of the charts' axes."""

COLOURS = ("#E69F00", "#56B4E9")
"""Of the models, in the order of `STUDIES`: two that no family has."""


def lead_rows() -> pd.DataFrame:
    """The tests' differences, for `charts.interval_chart`."""
    return _rows({test_title(test): {m: lead(test, m) for m in STUDIES if test in tests(m)} for test in _all_tests()})


def behind_rows() -> pd.DataFrame:
    """The smallest of each family that is `below` LoRA's rank 1, minus it, for `charts.interval_chart`."""
    found: dict[str, dict[str, OverTasks]] = {}
    for model in STUDIES:
        for label in below(model):
            what = pair_name(smallest(label, model), ("lora", 1))
            found.setdefault(what, {})[model] = behind(label, model)
    return _rows(found)


def _rows(found: Mapping[str, Mapping[str, OverTasks]]) -> pd.DataFrame:
    """Differences by what they are and by model, each line's models side by side."""
    rows = []
    for model in STUDIES:
        for what, means in found.items():
            if model in means:
                low, high = means[model].interval()
                row = {"group": model_size.title(STUDIES[model]), "what": what, "mean": means[model].mean}
                rows.append(row | {"low": low, "high": high, "seeds": len(study(model).drawn)})
    # What one model lacks stands where the other has it.
    order = list(found)
    return pd.DataFrame(rows).sort_values("what", key=lambda names: names.map(order.index), kind="stable")


def cell_table(model: str) -> pd.DataFrame:
    """A model's adapters, to read: what each costs and gains over the head alone."""
    rows = []
    for (label, size), scalars in cells(model).items():
        gained = quantities.value(f"families.gain.{label}{size}.{model}")
        row = {"adapter": cell_name(label, size), "scalars": f"{scalars:,}", "gain, points": gained.text()}
        rows.append(row | {"95 % interval": gained.text("interval")})
    return pd.DataFrame(rows)


def task_table() -> pd.DataFrame:
    """The tests' differences on single tasks, to read, each with its interval."""
    rows = []
    for model, name in STUDIES.items():
        for task in main_study.runs(name):
            row = {"model": model_size.title(name), "task": task_name(task)}
            for test in _all_tests():
                row[test_title(test)] = "–"
                if test in tests(model):
                    found = quantities.value(f"families.on_task.{test}.{model}.{task}")
                    row[test_title(test)] = found.text("bare|signed")
            rows.append(row)
    return pd.DataFrame(rows)


def test_table() -> pd.DataFrame:
    """The tests of both models, to read, with their p values corrected over a model's tests."""
    rows = []
    for model, name in STUDIES.items():
        for test in tests(model):
            found = quantities.value(f"families.lead.{test}.{model}")
            row = {"model": model_size.title(name), "test": test_title(test), "points": found.text("signed")}
            row["95 % interval"] = found.text("interval|signed")
            row["p (Holm)"] = quantities.value(f"families.p_value.{test}.{model}").text()
            row["p, equivalence (Holm)"] = quantities.value(f"families.equivalence_p_value.{test}.{model}").text()
            row["verdict"] = quantities.value(f"families.verdict.{test}.{model}").text()
            tasks = quantities.value(f"families.apart.{test}.{model}")
            rows.append(row | {"task intervals without 0": f"{tasks.text()} of {tasks.text('n')}"})
    return pd.DataFrame(rows)


def smallest_table() -> pd.DataFrame:
    """Each family's smallest adapter on each model, to read, from the fewest scalars."""
    rows = []
    for model, name in STUDIES.items():
        for label in sorted(study(model).ladder.sizes, key=lambda label: cells(model)[smallest(label, model)]):
            found = quantities.value(f"families.share.{label}.{model}")
            row = {
                "model": model_size.title(name),
                "smallest": cell_name(*smallest(label, model)),
                "scalars": quantities.value(f"families.smallest.{label}.{model}").text(),
                "share of the best gain, %": f"{found.text()} (any)" if found.low is None else found.text("bare"),
            }
            behind = None if label == "lora" else quantities.value(f"families.behind.{label}.{model}")
            rows.append(row | {"minus LoRA 1, points": behind.text("bare|signed") if behind else "–"})
    return pd.DataFrame(rows)


ON_ALL = next(model for model in STUDIES if set(FAMILIES) <= set(study(model).ladder.sizes))
"""The first model that all families are measured on."""


def kept_table() -> pd.DataFrame:
    """What each family saves, and the rank of the LoRA that has the same update, to read.

    At its smallest and at the size nearest to LoRA's rank 1, on `ON_ALL`.
    """
    asked, counts = study(ON_ALL), cells(ON_ALL)
    projections = load_projections(asked.backbone, asked.target_modules)
    rows = []
    for label in FAMILIES:
        known, options = family(label), asked.families[label].options
        near = min(asked.ladder.sizes[label], key=lambda size: abs(math.log(counts[label, size] / counts["lora", 1])))
        for size in dict.fromkeys((smallest(label, ON_ALL)[1], near)):
            rows.append(
                {
                    "adapter": cell_name(label, size),
                    "scalars": f"{counts[label, size]:,}",
                    "next step": f"{counting.step(label, projections, options):,}",
                    "saved as": family_name(label) if known.SAVED_AS_TRAINED else "plain LoRA",
                    "file, bytes": f"{counting.file_bytes(label, projections, size, options):,}",
                    "rank as plain LoRA": f"{known.columns(size, **options):,}",
                }
            )
    return pd.DataFrame(rows)


def missing(name: str) -> int:
    """The runs of a study that aren't on record."""
    known, asked = {run.config_id for run in records(name)}, load_study(PROJECT / "studies" / f"{name}.toml")
    planned_runs = asked.runs(load_projections(asked.backbone, asked.target_modules))
    return sum(config.config_id not in known for _, config in planned_runs)
