"""Numbers of the chapter on an encoder."""

from collections.abc import Sequence

from companion import encoder
from companion.claims import LEVEL, learned
from companion.encoder import CP1, HEAD_ONLY, LORA1, LORA8, STEPS, STUDY
from companion.quantities import Value, quantity
from companion.records import records
from cpadapt.analysis.cells import Cells
from cpadapt.analysis.charts import pair_name, task_name
from cpadapt.analysis.statistics import Estimate, compare
from cpadapt.records.config import Cell
from cpadapt.records.table import tabulate

TASKS = ("sst2", "sick", "mrpc", "boolq", "rte")
TAUGHT = ("sst2", "sick", "mrpc", "boolq")
LABELS = ("lora", "cp")
EARLIER = "minilm-sst2"
"""The study that tried the rates."""


def any_cells() -> Cells:
    """The cells of one task; budgets are the same on all."""
    return encoder.cells()[TASKS[0]]


def listed(names: Sequence[str]) -> str:
    """As a sentence lists them."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else "none"


# What was run.


@quantity(source=STUDY)
def taught() -> str:
    """Those that adapters learn."""
    return listed([task_name(task) for task in encoder.taught()])


@quantity(source=STUDY)
def untaught() -> str:
    """The others."""
    return listed([task_name(task) for task in encoder.cells() if task not in encoder.taught()])


@quantity("seeds", source=STUDY)
def seeds() -> int:
    """Seeds of each cell."""
    return len(any_cells().outcomes[HEAD_ONLY].seeds)


@quantity("runs", source=STUDY)
def capped() -> int:
    """Runs that were not trained on all examples, or not asked all items."""
    asked = [(r.config.protocol, r.data["sets"]["train"]["size"], r.outcome) for r in records(STUDY)]
    return sum(size >= p.train_cap or outcome is None or outcome.total < outcome.rows for p, size, outcome in asked)


@quantity("", 4, STUDY, each=LABELS)
def rate(label: str) -> float:
    """A family's learning rate."""
    (found,) = {record.config.learning_rate for record in records(STUDY) if record.label == label}
    assert found is not None
    return found


@quantity("", 4, EARLIER, each=LABELS)
def better_rate(label: str) -> float:
    """The rate with the higher mean on dev, of the two that the earlier ladder tried."""
    on_dev = tabulate(records(EARLIER))[0].query("label == @label").groupby("learning_rate")["dev_accuracy"].mean()
    assert len(on_dev) == 2
    return float(on_dev.index.to_numpy()[on_dev.to_numpy().argmax()])


# Budgets.


@quantity("components", source=STUDY, each=("fewest", "nearly"))
def components(which: str) -> int:
    """CP's smallest size, and its largest below LoRA's first rank."""
    return encoder.below_first_rank()[{"fewest": 0, "nearly": -1}[which]]


@quantity("percent", source=STUDY, each=["fewest"])
def share(which: str) -> float:
    """The part of the budget of LoRA's first rank that CP takes."""
    return any_cells().budgets["cp", components(which)] / any_cells().budgets[LORA1]


@quantity("scalars", source=STUDY)
def rank() -> int:
    """What a rank costs."""
    return any_cells().budgets[LORA1]


@quantity("scalars", source=STUDY)
def component() -> int:
    """What a component costs."""
    return any_cells().budgets[CP1]


@quantity("sizes", source=STUDY)
def below() -> int:
    """Sizes of CP that cost less than LoRA's first rank."""
    return len(encoder.below_first_rank())


# Differences on the tasks that are learned.


SAID = [("cp9_cp1", task) for task in ("sst2", "sick", "mrpc")] + [("lora1_cp9", "sst2"), ("lora8_lora1", "boolq")]


@quantity("points", 1, STUDY, each=SAID)
def step(pair: str, task: str) -> Estimate:
    """The gain from one cell to another."""
    after, before = STEPS[pair]
    cells = encoder.cells()[task]
    return compare(cells.outcomes[after], cells.outcomes[before])


@quantity(source=STUDY, each=encoder.CHARTED)
def clear(pair: str) -> str:
    """The tasks on which a step is clear after correction."""
    table = encoder.steps()
    return listed(
        _learned(table[(table["what"] == pair_name(*STEPS[pair])) & (table["holm"] < LEVEL)]["group"].tolist())
    )


# How far adapters learn.


@quantity("percent", source=STUDY, each=TAUGHT)
def way(task: str) -> Value:
    """The part of the way from the floor to the best adapter that one component takes."""
    return Value(*encoder.one_components_way(encoder.cells()[task]), n=seeds())


@quantity("cells", source=STUDY, each=["rte"])
def fit(task: str) -> int:
    """Cells with an adapter that are shown to have learned."""
    return len(encoder.cells()[task].outcomes) - 1 - len(_unfit(task))


@quantity("runs", source=STUDY, each=["boolq"])
def collapsed(task: str) -> int:
    """Runs of LoRA's last rank that give one answer to every item."""
    return encoder.cells()[task].collapsed(LORA8)


def _learned(titles: list[str]) -> list[str]:
    """Those of tasks that are learned."""
    known = [task_name(task) for task in encoder.taught()]
    return [title for title in titles if title in known]


def _unfit(task: str) -> tuple[Cell, ...]:
    cells = encoder.cells()[task]
    return learned(cells, *(cell for cell in cells.outcomes if cell != HEAD_ONLY)).unfit
