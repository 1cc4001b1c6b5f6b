"""Numbers of the chapter on the readout and on more examples."""

import functools
from collections.abc import Sequence

import numpy as np

from companion import one_task, rates, readout
from companion.claims import LEVEL, MARGIN
from companion.quantities import quantity
from companion.readout import CELLS, HEADS, PAIRS, WORDS
from companion.records import records
from cpadapt.analysis.cells import Cells
from cpadapt.analysis.statistics import Estimate, compare, estimate, holm
from cpadapt.inputs.tasks.specs import load_spec
from cpadapt.records.config import HEAD

STUDIES = {
    "sst2": ("smollm2-seeds", "smollm2-verbalizer"),
    "rte": ("smollm2-seeds", "smollm2-verbalizer"),
    "few": ("smollm2-seeds-boolq", "smollm2-verbalizer"),
    "all": ("boolq-lifted", "boolq-lifted-verbalizer"),
}
"""By setting: the tasks, BoolQ with a thousand examples, and with all."""
EVERY = tuple(dict.fromkeys(study for studies in STUDIES.values() for study in studies))
LIFTED, THOUSAND = "boolq-lifted", ("smollm2", "smollm2-rates")
LORA1, CP1 = CELLS["lora1"], CELLS["cp1"]
IN_SETTING = [(setting, cell) for setting in STUDIES for cell in readout.names(setting)]
ADAPTED = [(setting, cell) for setting, cell in IN_SETTING if cell != "head"]
IN_BOTH = [(setting, by, cell) for setting, cell in IN_SETTING for by in (HEADS, WORDS)]
MATCHED = readout.MATCHED

settings = functools.cache(readout.settings)


def _of(setting: str, by: str) -> Cells:
    return settings()[readout.SETTINGS[setting]][by]


def of_setting(setting: str, *_: str) -> tuple[str, ...]:
    """The studies of a setting."""
    return STUDIES[setting]


@functools.cache
def examples() -> tuple[Cells, Cells]:
    """BoolQ with a head, from a thousand examples and from all, on the same items and seeds."""
    return readout.by_examples()


def _corrected(found: Sequence[Estimate]) -> list[float]:
    return holm([difference.p_value() for difference in found])


def _budget_cells() -> tuple[tuple[str, int], tuple[str, int]]:
    """CP at LoRA's first budget, and at its last."""
    first, last = (("cp", size) for _, size in _of("all", HEADS).matched("lora", "cp"))
    return first, last


# How accurate they are.


@quantity("percent", 1, of_setting, each=IN_BOTH)
def accuracy(setting: str, by: str, cell: str) -> float:
    """The accuracy of a cell on eval."""
    return float(_of(setting, by).outcomes[CELLS[cell]].right.mean())


@quantity("percent", 1, of_setting, each=STUDIES)
def commonest(setting: str) -> float:
    """What the commonest answer gets right."""
    return _of(setting, HEADS).majority


# Words beside a head.


@quantity("points", 2, of_setting, each=IN_SETTING)
def apart(setting: str, cell: str) -> Estimate:
    """A cell read out by words minus the same with a head."""
    return compare(_of(setting, WORDS).outcomes[CELLS[cell]], _of(setting, HEADS).outcomes[CELLS[cell]])


@quantity("", 3, of_setting, each=IN_SETTING)
def apart_holm(setting: str, cell: str) -> float:
    """P value that this is none, after Holm's correction over a setting's cells."""
    cells = readout.names(setting)
    return _corrected([apart(setting, name) for name in cells])[cells.index(cell)]


@quantity("", 3, of_setting, each=IN_SETTING)
def apart_alike(setting: str, cell: str) -> float:
    """P value that it is a point or more."""
    return apart(setting, cell).equivalence_p_value(MARGIN)


@quantity("points", 1, of_setting, each=STUDIES)
def words_gain(setting: str) -> Estimate:
    """Adapters read out by words minus the same with a head, on average over adapters."""
    return estimate(np.mean(readout.by_words(settings()[readout.SETTINGS[setting]]), axis=0))


@quantity("", source=EVERY)
def comparisons() -> int:
    """The number of comparisons of adapters by readout."""
    return len(ADAPTED)


@quantity("", source=EVERY)
def clear() -> int:
    """Those that are clear."""
    return sum(apart_holm(*place) < LEVEL for place in ADAPTED)


@quantity("", source=EVERY)
def alike() -> int | str:
    """Those that are shown to be within a point, after correction over all."""
    return sum(p < LEVEL for p in holm([apart_alike(*place) for place in ADAPTED])) or "none"


# The families, by readout.


@quantity("points", 2, of_setting, each=MATCHED)
def gap(setting: str, by: str, pair: str) -> Estimate:
    """LoRA minus CP at a matched budget."""
    a, b = PAIRS[pair]
    return compare(_of(setting, by).outcomes[a], _of(setting, by).outcomes[b])


@quantity("", 3, of_setting, each=MATCHED)
def gap_holm(setting: str, by: str, pair: str) -> float:
    """P value that this is none, after Holm's correction over a setting's pairs and readouts."""
    here = [place for place in MATCHED if place[0] == setting]
    return _corrected([gap(*place) for place in here])[here.index((setting, by, pair))]


@quantity("", 3, of_setting, each=MATCHED)
def gap_alike(setting: str, by: str, pair: str) -> float:
    """P value that it is a point or more."""
    return gap(setting, by, pair).equivalence_p_value(MARGIN)


@quantity("points", 1, of_setting, each=STUDIES)
def change(setting: str) -> Estimate:
    """LoRA's lead with words minus that with a head."""
    return rates.gap_change(_of(setting, HEADS), _of(setting, WORDS))


# More examples.


@quantity("points", 2, (LIFTED, *THOUSAND), each=CELLS)
def more(cell: str) -> Estimate:
    """A cell from all of BoolQ's examples minus the same from a thousand."""
    few, many = examples()
    return compare(many.outcomes[CELLS[cell]], few.outcomes[CELLS[cell]])


@quantity("", 3, (LIFTED, *THOUSAND), each=CELLS)
def more_holm(cell: str) -> float:
    """P value that this is none, after Holm's correction over all cells."""
    return _corrected([more(name) for name in CELLS])[list(CELLS).index(cell)]


@quantity("", 3, (LIFTED, *THOUSAND), each=CELLS)
def more_alike(cell: str) -> float:
    """P value that it is a point or more."""
    return more(cell).equivalence_p_value(MARGIN)


@quantity("points", 1, (LIFTED, *THOUSAND))
def more_gain() -> Estimate:
    """What CP gains from components from all examples minus from a thousand."""
    _, last = _budget_cells()
    few, many = (found.outcomes[last].right - found.outcomes[CP1].right for found in examples())
    return estimate(many - few)


@quantity("points", 1, (LIFTED, *THOUSAND))
def more_lead() -> Estimate:
    """LoRA's lead from all examples minus from a thousand, at the budgets that there are with all."""
    few, many = examples()
    return rates.gap_change(readout.with_budgets_of(few, many), many)


@quantity("points", 1, STUDIES["all"], each=(HEADS, WORDS))
def lead(by: str) -> Estimate:
    """LoRA minus CP on all of BoolQ, on average over matched budgets."""
    return rates.lead(_of("all", by))


@quantity("points", 1, LIFTED)
def first_gain() -> Estimate:
    """CP at LoRA's first budget minus one component, on all of BoolQ."""
    whole = _of("all", HEADS).outcomes
    return compare(whole[_budget_cells()[0]], whole[CP1])


@quantity("points", 1, LIFTED)
def second_gain() -> Estimate:
    """CP's largest minus CP at LoRA's first budget."""
    matched, last = _budget_cells()
    whole = _of("all", HEADS).outcomes
    return compare(whole[last], whole[matched])


@quantity("points", 1, LIFTED, level=0.9)
def second_gain_judged() -> Estimate:
    """The same with the interval by which a claim is judged."""
    return second_gain()


# What was run.


@functools.cache
def _lifted() -> one_task.TaskOnRecord:
    return one_task.task_on_record(LIFTED, "boolq")


@quantity("items", source=LIFTED)
def sharing() -> int:
    """Items of BoolQ's eval that have a passage of the training or dev examples."""
    return int(records(LIFTED)[0].data["eval_shares_text"]["passage"])


@quantity("examples", source=LIFTED)
def train() -> int:
    """All of BoolQ's."""
    return _lifted().examples["train"]


@quantity("items", source=LIFTED)
def items() -> int:
    """Items of BoolQ's eval."""
    return _lifted().examples["eval"]


@quantity("steps", source=LIFTED)
def all_steps() -> int:
    """Steps with all examples."""
    return _lifted().protocol.steps


@quantity("runs", source=LIFTED, each=("all", "late"))
def adapted_runs(which: str) -> int:
    """Runs with an adapter and a head on all examples; `late` were best on dev at the last evaluation."""
    runs = _lifted().runs
    runs = runs[runs["label"] != HEAD]
    return int((runs["best_step"] == all_steps()).sum()) if which == "late" else len(runs)


@quantity("steps", source="smollm2-verbalizer")
def steps() -> int:
    """Steps of the key cells."""
    return readout.words_study().protocol.steps


@quantity("seeds", source="smollm2-verbalizer")
def seeds() -> int:
    """Seeds of each cell."""
    return len(readout.words_study().seeds)


@quantity(each=["rte"])
def label_words(task: str) -> str:
    """The words of a task's labels."""
    return " and ".join(f"“{word.strip()}”" for word in load_spec(task).label_words or ())
