"""The key cells by readout, a trained head or frozen words, and by the number of training examples.

Comparisons come first, then printed tables.
"""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import replace

import pandas as pd

from companion import PROJECT, contrasts, rates
from companion.claims import Verdict, judge, learned, told
from companion.wording import percent
from cpadapt.analysis.cells import Cells, cells_of
from cpadapt.analysis.charts import cell_name, task_name
from cpadapt.analysis.statistics import Floats
from cpadapt.records.config import HEAD, Cell
from cpadapt.study import Study, load_study

HEADS, WORDS = "head", "words"
ALL = f"all of {task_name('boolq')}"
SETTINGS = {"sst2": task_name("sst2"), "rte": task_name("rte"), "few": task_name("boolq"), "all": ALL}
"""The printed name of each setting; `few` is BoolQ with a thousand examples, and `all` with all."""

UNTRAINED, UNTRAINED_NAME = "no adapter", cell_name(HEAD, 0)
COLUMNS: list[Cell] = [(HEAD, 0), ("cp", 1), ("cp", 11), ("cp", 44), ("lora", 1), ("lora", 4)]

RULES = {
    "adapters learn": None,
    "the first rank's budget learns": "first_rank_learns",
    "CP gains from components": "cp_gains",
    "CP saturates": "cp_saturates",
    "LoRA is ahead": "lora_ahead",
    "LoRA is slightly ahead": "lora_slightly_ahead",
    "CP is not ahead": "cp_not_ahead",
}
"""Rules of `companion.claims`, by their printed text."""


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


def apart(of_settings: Mapping[str, Mapping[str, Cells]]) -> pd.DataFrame:
    """Words minus a head, by setting and cell (`companion.contrasts.frame`)."""
    found = [contrasts.between(cells[HEADS], cells[WORDS], name) for name, cells in of_settings.items()]
    return contrasts.frame([contrast for each in found for contrast in each])


def adapted(of_settings: Mapping[str, Mapping[str, Cells]]) -> pd.DataFrame:
    """`apart` of cells with an adapter."""
    found = apart(of_settings)
    return found[found["what"] != UNTRAINED_NAME]


def families(of_settings: Mapping[str, Mapping[str, Cells]]) -> pd.DataFrame:
    """LoRA minus CP at each matched budget, as `companion.contrasts.frame`, and with the column `readout`."""
    found = [
        (by, contrast)
        for name, setting in of_settings.items()
        for by, cells in setting.items()
        for contrast in contrasts.families(cells, name)
    ]
    return contrasts.frame([contrast for _, contrast in found]).assign(readout=[by for by, _ in found])


def verdict(cells: Cells, rule: str | None) -> str:
    """The verdict of a rule of `RULES` on some cells."""
    return told(*judge(cells, [rule])) if rule else learned(cells).verdict.value


def verdicts(of_settings: Mapping[str, Mapping[str, Cells]]) -> pd.DataFrame:
    """The verdicts on each readout's cells by setting and rule, without rules that need more sizes than there are."""
    table = pd.DataFrame(
        [
            {"task": name, "claim": says} | {by: verdict(cells, rule) for by, cells in setting.items()}
            for name, setting in of_settings.items()
            for says, rule in RULES.items()
        ]
    )
    return table[table[HEADS] != Verdict.UNMEASURED.value]


def accuracy_table(of_settings: Mapping[str, Mapping[str, Cells]]) -> pd.DataFrame:
    """Accuracies by setting and readout beside that of the commonest answer, as a printed table in percent."""
    return pd.DataFrame(
        [
            {"task": name, "readout": by}
            | {title: "–" if cell not in cells.outcomes else percent(cells.outcomes[cell].right.mean())
               for cell, title in _titles().items()}
            | {"commonest": percent(cells.majority)}
            for name, setting in of_settings.items()
            for by, cells in setting.items()
        ]
    )  # fmt: skip


def balanced_table(of_settings: Mapping[str, Mapping[str, Cells]]) -> pd.DataFrame:
    """The same in balanced accuracy."""
    return pd.DataFrame(
        [
            {"task": name, "balanced": by}
            | {title: "–" if cell not in cells.outcomes else percent(cells.balanced(cell).mean())
               for cell, title in _titles().items()}
            for name, setting in of_settings.items()
            for by, cells in setting.items()
        ]
    )  # fmt: skip


def _titles() -> dict[Cell, str]:
    return {cell: cell_name(*cell) if cell[1] else UNTRAINED for cell in COLUMNS}
