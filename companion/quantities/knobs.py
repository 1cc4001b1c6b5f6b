"""Numbers of the chapter on CP's hidden knobs."""

import itertools

from companion import knobs, planned
from companion.knobs import CANDIDATES, STUDIES
from companion.quantities import Value, quantity
from companion.quantities.encoder import listed
from companion.records import records
from cpadapt.analysis.statistics import Estimate, Mean

TERMS = tuple(knobs.terms())
PAIRS = tuple(f"{knob}_{other}" for knob, other in knobs.PAIRS)
TASKS = {model: knobs.study(model).tasks for model in STUDIES}
CONFIRMATIONS = ("knobs-confirmed-smollm2", "knobs-confirmed-0.5b")
"""The studies of the planned tests. That of 0.5B gets its file when its settings are chosen."""


def of_model(*arguments: str) -> str:
    """The study of a quantity's backbone, which is its last argument."""
    return STUDIES[arguments[-1]]


def _each(*parts: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [*itertools.product(*parts, STUDIES)]


# What was run.


@quantity("runs", source=of_model, each=STUDIES)
def runs(model: str) -> int:
    """CP's runs."""
    return len(knobs.of_cp(model))


@quantity("settings", source=of_model, each=_each(tuple(CANDIDATES)))
def tried(candidate: str, model: str) -> int:
    """The settings that one of the three was chosen from."""
    return knobs.tried(model, candidate)


@quantity("tasks", source=of_model, each=STUDIES)
def tasks(model: str) -> int:
    """Tasks."""
    return len(knobs.study(model).tasks)


@quantity("draws", source=of_model, each=STUDIES)
def draws(model: str) -> int:
    """Draws of the examples."""
    return len(knobs.study(model).draws)


@quantity("components", source=of_model, each=STUDIES)
def components(model: str) -> int:
    """CP's size, whose scalars are those of LoRA's first rank."""
    (size,) = knobs.study(model).ladder.sizes["cp"]
    return size


@quantity("runs", source=of_model, each=STUDIES)
def diverged(model: str) -> int:
    """CP's and LoRA's runs in which a loss or a gradient was lost."""
    return sum(run.diverged_at is not None for run in records(STUDIES[model]))


@quantity()
def not_measured() -> str:
    """The studies of the knobs that have no records yet."""
    return listed([name for name in ("knobs-0.5b", *CONFIRMATIONS) if not planned.is_measured(name)])


# The planned effects.


@quantity("points", 1, of_model, each=_each(TERMS))
def effect(term: str, model: str) -> Mean:
    """What a term does to the accuracy on dev."""
    return knobs.found(model)[term].mean


@quantity("", 3, of_model, each=_each(TERMS))
def p_value(term: str, model: str) -> float:
    """That it does nothing, corrected by Holm."""
    return knobs.corrected(model)[term]


@quantity("points", 1, of_model, each=[(t, task, model) for model in STUDIES for t in TERMS for task in TASKS[model]])
def by_task(term: str, task: str, model: str) -> Estimate:
    """What it does on one task."""
    return knobs.found(model)[term].by_task[task].estimate


@quantity("effects", source=of_model, each=STUDIES)
def shown(model: str) -> Value:
    """Those that are shown after the correction, of how many."""
    found = knobs.rows(model)["shown"]
    return Value(int(found.sum()), n=len(found))


@quantity(source=of_model, each=STUDIES)
def which_shown(model: str) -> str:
    """Those, the largest first."""
    table = knobs.rows(model)
    return listed(table.loc[table["shown"], "what"].tolist())


@quantity("effects", source=of_model, each=STUDIES)
def before_correction(model: str) -> int:
    """Those that are not shown, though their interval leaves out 0."""
    table = knobs.rows(model)
    return int((~table["shown"] & ((table["low"] > 0) | (table["high"] < 0))).sum())


@quantity("points", 1, of_model, each=_each(PAIRS, ("lower", "upper")))
def beside(pair: str, side: str, model: str) -> Mean:
    """What the first knob does from low to high where the second is low or high."""
    knob, other = pair.split("_")
    return knobs.effect_beside(model, knob, other, -1 if side == "lower" else 1).mean


# After the data: three knobs as one.


@quantity("times", source=of_model, each=_each(("least", "most")))
def dial_range(end: str, model: str) -> float:
    """Today's rate × scale / raw length, times how much at least and at most."""
    turned = knobs.dial(model)
    return float(1 / turned.min() if end == "least" else turned.max())


@quantity("points", 1, of_model, each=_each(("least", "most")))
def dial_end(end: str, model: str) -> Value:
    """The accuracy at either end of the dial minus the mean of all settings."""
    table = knobs.along_dial(model).query("task == 'over all'")
    row = table.iloc[0 if end == "least" else -1]
    return Value(float(row["mean"]), float(row["low"]), float(row["high"]), n=int(row["settings"]))


@quantity("points", 1, of_model, each=[("rte", model) for model in STUDIES])
def turned_up(task: str, model: str) -> Value:
    """The same on one task, at the upper end."""
    row = knobs.along_dial(model).query(f"task == {task!r}").iloc[-1]
    return Value(float(row["mean"]), float(row["low"]), float(row["high"]), n=int(row["settings"]))


@quantity("points", 1, of_model, each=[("trec", model) for model in STUDIES])
def turned_down(task: str, model: str) -> Value:
    """The same on one task, at the lower end."""
    row = knobs.along_dial(model).query(f"task == {task!r}").iloc[0]
    return Value(float(row["mean"]), float(row["low"]), float(row["high"]), n=int(row["settings"]))


@quantity("percent", 0, of_model, each=_each(("dial", "knobs")))
def explained(by: str, model: str) -> float:
    """The share of the variance between settings that the dial's places explain, and the knobs one by one."""
    by_dial, by_knobs = knobs.explained(model)
    return by_dial if by == "dial" else by_knobs


# What dev chose.


@quantity("percent", 1, of_model, each=_each(tuple(CANDIDATES)))
def on_dev(candidate: str, model: str) -> float:
    """The accuracy on dev that one of the three was chosen for."""
    return knobs.on_dev(model, candidate)


@quantity(source=of_model, each=_each(tuple(CANDIDATES)))
def at_end(candidate: str, model: str) -> str:
    """The knobs with three levels or more that stand at an end."""
    return listed(knobs.at_end(model, candidate))
