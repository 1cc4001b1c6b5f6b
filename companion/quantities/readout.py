"""Numbers of the chapter on the readout and on more examples."""

import functools

import numpy as np

from companion import ladder, rates, readout
from companion.claims import LEVEL, MARGIN, Verdict, learned, lora_ahead
from companion.quantities import quantity
from companion.readout import HEADS, WORDS
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
LORA1, CP1 = ("lora", 1), ("cp", 1)

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


def _budget_cells() -> tuple[tuple[str, int], tuple[str, int]]:
    """CP at LoRA's first budget, and at its last."""
    first, last = (("cp", size) for _, size in _of("all", HEADS).matched("lora", "cp"))
    return first, last


# Words beside a head.


@quantity("points", 1, of_setting, each=STUDIES)
def words_gain(setting: str) -> Estimate:
    """Adapters read out by words minus the same with a head, on the average over adapters."""
    return estimate(np.mean(readout.by_words(settings()[readout.SETTINGS[setting]]), axis=0))


@quantity("points", 1, (*STUDIES["few"], *STUDIES["all"]))
def few_more() -> Estimate:
    """The gain by words from a thousand of BoolQ's examples minus that from all, on the same items and seeds."""
    few = readout.by_words(settings()[readout.SETTINGS["few"]])
    cells = [cell for cell in _of("few", HEADS).outcomes if cell[0] != HEAD]
    many = readout.by_words(settings()[readout.SETTINGS["all"]], cells)
    asked = np.isin(_of("all", HEADS).outcomes[CP1].items, examples()[0].outcomes[CP1].items)
    return estimate(np.mean(few, axis=0) - np.mean(many, axis=0)[:, asked])


@quantity("points", 0, of_setting, each=STUDIES)
def without_adapter(setting: str) -> Estimate:
    """A head minus words with no adapter."""
    return compare(_of(setting, HEADS).outcomes[HEAD, 0], _of(setting, WORDS).outcomes[HEAD, 0])


@quantity("", 3, of_setting, each=STUDIES)
def without_adapter_holm(setting: str) -> float:
    """That the two are the same, after Holm's correction over a task's cells."""
    table = readout.apart(settings())
    here = table[table["group"] == readout.SETTINGS[setting]]
    return float(here.loc[here["what"] == readout.UNTRAINED_NAME, "holm"].item())


@quantity("points", 1, of_setting, each=STUDIES)
def smallest_by_words(setting: str) -> Estimate:
    """The smallest adapter read out by words minus the same with a head."""
    return compare(_of(setting, WORDS).outcomes[CP1], _of(setting, HEADS).outcomes[CP1])


@quantity("points", 1, STUDIES["few"])
def least_few_gain() -> float:
    """The smallest gain by words of an adapter from a thousand of BoolQ's examples."""
    return min(float(table.mean()) for table in readout.by_words(settings()[readout.SETTINGS["few"]]))


@quantity("", source=EVERY)
def comparisons() -> int:
    """Of adapters by readout."""
    return len(readout.adapted(settings()))


@quantity("", source=EVERY)
def clear() -> int:
    """Those that are clear."""
    return int((readout.adapted(settings())["holm"] < LEVEL).sum())


@quantity("", 3, source=STUDIES["few"])
def least_few_holm() -> float:
    """The least p value of BoolQ's from a thousand examples."""
    table = readout.adapted(settings())
    return float(table.loc[table["group"] == readout.SETTINGS["few"], "holm"].min())


@quantity("", source=EVERY)
def alike() -> int | str:
    """Those that are shown to be within a point, after correction over all."""
    return sum(p < LEVEL for p in holm(readout.adapted(settings())["p_alike"].tolist())) or "none"


# The families, by readout.


@quantity("points", 1, of_setting, each=STUDIES)
def change(setting: str) -> Estimate:
    """LoRA's lead with words minus that with a head."""
    return rates.gap_change(_of(setting, HEADS), _of(setting, WORDS))


@functools.cache
def _verdicts() -> dict[str, list[dict[str, str]]]:
    table = readout.verdicts(settings()).to_dict("records")
    return {
        setting: [{str(column): str(said) for column, said in row.items()} for row in table if row["task"] == title]
        for setting, title in readout.SETTINGS.items()
    }


@quantity("claims", source=of_setting, each=STUDIES)
def compared(setting: str) -> int:
    """Of which both readouts have a verdict."""
    return len(_verdicts()[setting])


@quantity("claims", source=of_setting, each=STUDIES)
def same(setting: str) -> int:
    """Of which it is the same."""
    return sum(row[HEADS] == row[WORDS] for row in _verdicts()[setting])


@quantity("", source=EVERY)
def opposite() -> int | str:
    """How many pass from *holds* to *does not hold* or back."""
    ends = {Verdict.HOLDS.value, Verdict.FAILS.value}
    return sum({row[HEADS], row[WORDS]} == ends for rows in _verdicts().values() for row in rows) or "none"


VERDICTS = [
    (setting, rule, by)
    for setting, rule in (("sst2", "lora_ahead"), ("rte", "lora_ahead"), ("sst2", "lora_slightly_ahead"),
                          ("rte", "cp_not_ahead"), ("few", "cp_gains"), ("few", "cp_not_ahead"),
                          ("all", "cp_gains"), ("all", "cp_saturates"), ("all", "lora_slightly_ahead"))
    for by in (HEADS, WORDS)
]  # fmt: skip


@quantity(source=of_setting, each=VERDICTS)
def verdict(setting: str, rule: str, by: str) -> str:
    """What a rule of the claims says of a setting."""
    return readout.verdict(_of(setting, by), rule)


@quantity("points", 1, STUDIES["few"])
def few_falls() -> Estimate:
    """CP's largest minus CP at LoRA's first budget, by words from a thousand of BoolQ's examples."""
    matched, last = _budget_cells()
    spoken = _of("few", WORDS).outcomes
    return compare(spoken[last], spoken[matched])


# More examples.


@quantity("points", 1, STUDIES["few"], level=0.9, each=(HEADS, WORDS))
def over_readout(by: str) -> Estimate:
    """Adapters at LoRA's first budget from a thousand of BoolQ's examples above the readout, in balanced accuracy."""
    found = learned(_of("few", by)).estimate
    assert found is not None
    return found


@quantity("points", 1, (LIFTED, *THOUSAND))
def more_last() -> Estimate:
    """CP's largest from all of BoolQ's examples minus from a thousand."""
    (few, many), (_, last) = examples(), _budget_cells()
    return compare(many.outcomes[last], few.outcomes[last])


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
    """LoRA minus CP on all of BoolQ, on the average over matched budgets."""
    found = lora_ahead(_of("all", by)).estimate
    assert found is not None
    return found


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


@quantity("points", 1, LIFTED)
def last_minus_lora() -> Estimate:
    """CP's largest minus LoRA's first rank."""
    whole = _of("all", HEADS).outcomes
    return compare(whole[_budget_cells()[1]], whole[LORA1])


@quantity("", 3, LIFTED)
def last_minus_lora_alike() -> float:
    """The p value of a difference of a point or more."""
    return last_minus_lora().equivalence_p_value(MARGIN)


# What was run.


@functools.cache
def _lifted() -> ladder.TaskOnRecord:
    return ladder.task_on_record(LIFTED, "boolq")


@quantity("items", source=LIFTED)
def sharing() -> int:
    """Of BoolQ's eval, those that have a passage of the training or dev examples."""
    return int(records(LIFTED)[0].data["eval_shares_text"]["passage"])


@quantity("examples", source=LIFTED)
def train() -> int:
    """All of BoolQ's."""
    return _lifted().examples["train"]


@quantity("items", source=LIFTED)
def items() -> int:
    """Of BoolQ's eval."""
    return _lifted().examples["eval"]


@quantity("steps", source=LIFTED)
def all_steps() -> int:
    """With all examples."""
    return _lifted().protocol.steps


@quantity("passes", 1, LIFTED)
def passes() -> float:
    """Over all examples."""
    protocol = _lifted().protocol
    return protocol.steps * protocol.batch_size / train()


@quantity("evaluations", source=LIFTED)
def looks() -> int:
    """In a run with all examples."""
    protocol = _lifted().protocol
    return protocol.steps // protocol.eval_every


@quantity("runs", source=LIFTED, each=("all", "late"))
def adapted_runs(which: str) -> int:
    """With an adapter and a head on all examples; `late` were best on dev at the last evaluation."""
    runs = _lifted().runs
    runs = runs[runs["label"] != HEAD]
    return int((runs["best_step"] == all_steps()).sum()) if which == "late" else len(runs)


@quantity("steps", source="smollm2-verbalizer")
def steps() -> int:
    """Of the key cells."""
    return readout.words_study().protocol.steps


@quantity("seeds", source="smollm2-verbalizer")
def seeds() -> int:
    """Of each cell."""
    return len(readout.words_study().seeds)


@quantity("components", source=LIFTED, each=("matched", "last"))
def size(which: str) -> int:
    """Of CP at LoRA's first budget, and of the largest."""
    return _budget_cells()[which == "last"][1]


@quantity(each=("sst2", "rte", "boolq"))
def label_words(task: str) -> str:
    """The words of a task's labels."""
    return " and ".join(f"“{word.strip()}”" for word in load_spec(task).label_words or ())
