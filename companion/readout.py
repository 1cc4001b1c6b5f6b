"""The key cells by readout, a trained head or frozen words, and by the number of training examples.

Comparisons come first, then printed tables.
"""

import functools
import itertools
import operator
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from companion import PROJECT, contrasts, quantities, rates
from cpadapt.analysis.cells import Cells, cells_of
from cpadapt.analysis.charts import cell_name, pair_name, task_name
from cpadapt.analysis.statistics import Floats, estimate
from cpadapt.records.config import HEAD, Cell
from cpadapt.study import Study, load_study

HEADS, WORDS = "head", "words"
ALL = f"all of {task_name('boolq')}"
SETTINGS = {"sst2": task_name("sst2"), "rte": task_name("rte"), "few": task_name("boolq"), "all": ALL}
"""The printed name of each setting; `few` is BoolQ with a thousand examples, and `all` with all."""

UNTRAINED = "no adapter"
CELLS: dict[str, Cell] = {
    "head": (HEAD, 0), "cp1": ("cp", 1), "cp11": ("cp", 11), "cp44": ("cp", 44), "lora1": ("lora", 1),
    "lora4": ("lora", 4),
}  # fmt: skip
"""By the name that quantities have."""

ONLY_WITH_ALL = "lora4"
"""The one that was trained on all of BoolQ alone."""

PAIRS: dict[str, tuple[Cell, Cell]] = {
    "lora1_cp11": (CELLS["lora1"], CELLS["cp11"]),
    "lora4_cp44": (CELLS["lora4"], CELLS["cp44"]),
}
"""The families at matched budgets, likewise."""

READOUTS = list(itertools.product(SETTINGS, (HEADS, WORDS)))
MATCHED = [(*place, pair) for place in READOUTS for pair in PAIRS if place[0] == "all" or pair == "lora1_cp11"]
"""By setting and readout."""


@functools.cache
def words_study() -> Study:
    """The study with capped tasks and words as the readout."""
    return load_study(PROJECT / "studies" / "smollm2-verbalizer.toml")


def settings() -> dict[str, dict[str, Cells]]:
    """The cells by setting and readout, with the seeds that have words as the readout."""
    words = words_study()
    found = {
        task_name(task): {
            HEADS: contrasts.cells_on_record(("smollm2-seeds", "smollm2-seeds-boolq"), task, words.seeds),
            WORDS: contrasts.cells_on_record((words.name,), task),
        }
        for task in words.tasks
    }
    lifted = {HEADS: "boolq-lifted", WORDS: "boolq-lifted-verbalizer"}
    return found | {ALL: {by: contrasts.cells_on_record((study,), "boolq") for by, study in lifted.items()}}


def by_examples() -> tuple[Cells, Cells]:
    """BoolQ with a head, on a thousand examples and on all, at the same rates, on the same items and seeds."""
    rate = {name: plan.learning_rates[0] for name, plan in words_study().families.items() if plan.learning_rates}
    few = cells_of(rates.runs_at_all_rates(("smollm2", "smollm2-rates"), "boolq"), rate)
    many = contrasts.cells_on_record(("boolq-lifted",), "boolq", [seed for seed, _ in few.outcomes[HEAD, 0].seeds])
    asked = few.outcomes["cp", 1].items
    return few, replace(many, outcomes={cell: found.on(asked) for cell, found in many.outcomes.items()})


def with_budgets_of(cells: Cells, other: Cells) -> Cells:
    """Cells without those at budgets that another has not."""
    return replace(cells, budgets=other.budgets)


def by_words(setting: Mapping[str, Cells], adapters: Iterable[Cell] | None = None) -> list[Floats]:
    """`[seeds, items]` for each adapter, the answers with words minus those with a head."""
    heads, spoken = setting[HEADS].outcomes, setting[WORDS].outcomes
    cells = [cell for cell in heads if cell[0] != HEAD] if adapters is None else adapters
    return [spoken[cell].right - heads[cell].right for cell in cells]


def changes() -> pd.DataFrame:
    """What words instead of a head change, by setting, for `cpadapt.analysis.charts.interval_chart`.

    The first row of a setting is the average over its adapters, the other LoRA's lead over CP at matched budgets.
    """
    found = []
    for name, by_readout in settings().items():
        average = estimate(np.mean(by_words(by_readout), axis=0))
        lead = rates.gap_change(by_readout[HEADS], by_readout[WORDS])
        found += [
            contrasts.Contrast("adapters", name, average),
            contrasts.Contrast("LoRA − CP", name, lead),
        ]
    return contrasts.frame(found)


def names(setting: str) -> list[str]:
    """The cells of a setting, by the names that quantities have."""
    return [name for name in CELLS if setting == "all" or name != ONLY_WITH_ALL]


def accuracy_table() -> pd.DataFrame:
    """Accuracies by setting and readout, to read, in percent, beside what the commonest answer has."""
    titles = {cell: cell_name(*place) if place[1] else UNTRAINED for cell, place in CELLS.items()}
    return pd.DataFrame(
        [
            {"task": SETTINGS[setting], "readout": by}
            | {
                called: quantities.value(f"readout.accuracy.{setting}.{by}.{cell}").text()
                if cell in names(setting)
                else "–"
                for cell, called in titles.items()
            }
            | {"commonest": quantities.value(f"readout.commonest.{setting}").text()}
            for setting, by in READOUTS
        ]
    )


def apart_table() -> pd.DataFrame:
    """Words minus a head, by setting and cell, to read."""
    rows = {
        f"{setting}.{cell}": (called, cell_name(*CELLS[cell]))
        for setting, called in SETTINGS.items()
        for cell in sorted(names(setting), key=CELLS.__getitem__)
    }
    columns = contrasts.columns("readout.apart.{}.{}", "readout.apart_holm.{}.{}", "readout.apart_alike.{}.{}")
    return quantities.table(rows, columns, ("task", "words − head"))


def gap_table() -> pd.DataFrame:
    """LoRA minus CP at each matched budget, by setting and readout, to read."""
    rows = {
        f"{setting}.{by}.{pair}": (SETTINGS[setting], f"{pair_name(*PAIRS[pair])}, {by}")
        for setting, by, pair in MATCHED
    }
    columns = contrasts.columns("readout.gap.{}.{}.{}", "readout.gap_holm.{}.{}.{}", "readout.gap_alike.{}.{}.{}")
    return quantities.table(rows, columns, ("task", "budget and readout"))


def more_table() -> pd.DataFrame:
    """Each cell from all of BoolQ's examples minus the same from a thousand, to read."""
    cells = sorted(CELLS.items(), key=operator.itemgetter(1))
    rows = {cell: (task_name("boolq"), cell_name(*place)) for cell, place in cells}
    columns = contrasts.columns("readout.more.{}", "readout.more_holm.{}", "readout.more_alike.{}")
    return quantities.table(rows, columns, ("task", "all − a thousand"))
