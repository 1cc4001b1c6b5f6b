"""Numbers of the chapter on planted updates."""

import pandas as pd

from companion import planned, planted
from companion.planted import LONGER, RATES, STUDY, TEXTS
from companion.quantities import Value, quantity
from companion.quantities.encoder import listed
from cpadapt.analysis.charts import cell_name
from cpadapt.analysis.statistics import Mean
from cpadapt.records.config import HEAD

ENDS = ("least", "most")


def _end(end: str, values: list[float]) -> float:
    return min(values) if end == "least" else max(values)


# What was run.


@quantity("runs", source=STUDY)
def runs() -> int:
    """Runs with an adapter, on both texts."""
    return len(planted.removed())


@quantity("teachers", source=STUDY)
def teachers() -> int:
    """The planted updates, each drawn once a draw."""
    return len(planted.study().teachers)


@quantity("students", source=STUDY)
def students() -> int:
    """Adapters, by family and size."""
    return sum(len(sizes) for label, sizes in planted.study().ladder.sizes.items() if label != HEAD)


@quantity("draws", source=STUDY)
def draws() -> int:
    """Draws of the teachers, the texts and the initial weights."""
    return int(planted.removed()["draw"].nunique())


@quantity("steps", source=STUDY)
def steps() -> int:
    """Steps of every run."""
    return planted.study().protocol.steps


@quantity("texts", source=STUDY)
def batch() -> int:
    """Texts of every step."""
    return planted.study().protocol.batch_size


@quantity("percent", 0, STUDY)
def norm() -> float:
    """The norm of every planted update, as a share of its weight's."""
    (share,) = {teacher.norm for teacher in planted.study().teachers}
    return share


@quantity("percent", 0, RATES)
def trial() -> float:
    """What LoRA 4 removed of LoRA 4's divergence on SST-2, at its chosen setting, when the rates were tried."""
    return float(planted.shares_on_dev(RATES, "LoRA 4", ("lora", 4)).mean())


@quantity("students", source=RATES)
def taken_over() -> Value:
    """Students whose setting was chosen for another one."""
    found = planted.settings()
    cells = zip(found["label"], found["size"], strict=True)
    return Value(sum(source != cell for source, cell in zip(found["chosen_for"], cells, strict=True)), n=len(found))


@quantity("students", source=RATES, each=("rate", "scale"))
def at_lowest(what: str) -> Value:
    """Students with the lowest rate, or scale, that was tried."""
    found = planted.settings()
    return Value(int(found[f"lowest_{what}"].sum()), n=len(found))


# Does a student find its kind?


@quantity("percent", 0, STUDY, each=["sst2"])
def sixteen_for_sixteen(text: str) -> Mean:
    """What sixteen components remove of the divergence of sixteen components."""
    return planted.share(text, "CP 16", ("cp", 16))


@quantity("percent", 0, STUDY, each=[(text, end) for text in TEXTS for end in ENDS])
def itself_range(text: str, end: str) -> float:
    """The least and the most that students of the planted family and size remove."""
    return _end(end, planted.itself(text)["mean"].tolist())


@quantity("students", 0, STUDY, each=TEXTS)
def itself_found(text: str) -> Value:
    """Those students that remove the share that counts as found."""
    means = planted.itself(text)["mean"]
    return Value(int((means >= planted.FOUND).sum()), n=len(means))


@quantity("students", 0, STUDY, each=["sst2"])
def itself_open(text: str) -> Value:
    """Those students whose interval holds that share."""
    found = planted.itself(text)
    return Value(int(((found["low"] <= planted.FOUND) & (found["high"] >= planted.FOUND)).sum()), n=len(found))


@quantity("percent", 0, STUDY, each=["sst2"])
def one_for_sixteen(text: str) -> Mean:
    """What one component removes of the divergence of sixteen components."""
    return planted.share(text, "CP 16", ("cp", 1))


# Who reaches how much, with how few scalars?


@quantity("fields", 0, STUDY, each=TEXTS)
def found(text: str) -> Value:
    """Pairs of a teacher and a student where the share that counts as found is removed."""
    means = planted.on_text(text)["mean"]
    return Value(int((means >= planted.FOUND).sum()), n=len(means))


@quantity("pairs", 0, STUDY, each=TEXTS)
def nearly(text: str) -> Value:
    """Pairs of a teacher and a family where some size removes the lower share."""
    table = planted.reach(planted.NEARLY)
    table = table[table["task"] == TEXTS[text]].drop(columns=["task", "teacher"])
    return Value(int(table.notna().to_numpy().sum()), n=table.size)


@quantity("pairs", 0, STUDY, each=["generated"])
def nearly_smallest(text: str) -> int:
    """Those pairs where the family's smallest size does."""
    table = planted.reach(planted.NEARLY)
    table = table[table["task"] == TEXTS[text]]
    least = planted.recovery().groupby("label")["parameters"].min()
    return sum(int((table[label] == scalars).sum()) for label, scalars in least.items())


@quantity("percent", 0, STUDY, each=[(cell, "sst2", end) for cell in ("one", "four") for end in ENDS])
def below_rank(cell: str, text: str, end: str) -> float:
    """The means of one component and of four, over teachers the least and the most."""
    table = planted.on_text(text)
    chosen = table[(table["label"] == "cp") & (table["size"] == {"one": 1, "four": 4}[cell])]
    return _end(end, chosen["mean"].tolist())


@quantity("percent", 0, STUDY, each=[("sst2", end) for end in ENDS])
def dense_range(text: str, end: str) -> float:
    """The least and the most that students remove of the dense teacher with equal singular values."""
    table = planted.on_text(text)
    return _end(end, table.loc[table["teacher"] == "dense", "mean"].tolist())


# Nearly equal in scalars.


@quantity("differences", source=STUDY)
def differences() -> int:
    """Differences between two students of nearly equal size, for each text and teacher."""
    return len(planted.leads())


@quantity("leads", source=STUDY)
def leading() -> int:
    """Those differences in which one leads."""
    return int(planted.leads()["leads"].sum())


@quantity("leads", source=STUDY)
def by_chance() -> float:
    """How many would be expected if no two students differed."""
    return 0.05 * len(planted.leads())


# Generated text.


@quantity("fields", source=STUDY)
def higher_on_generated() -> Value:
    """Pairs of a teacher and a student with a larger share on the generated text."""
    means = planted.between_texts()["mean"]
    return Value(int((means > 0).sum()), n=len(means))


@quantity("fields", source=STUDY)
def texts_open() -> Value:
    """Those pairs whose interval of the difference holds 0."""
    found = planted.between_texts()
    return Value(int(((found["low"] <= 0) & (found["high"] >= 0)).sum()), n=len(found))


@quantity("points", 0, STUDY, each=ENDS)
def texts_apart(end: str) -> float:
    """The generated text's share minus SST-2's, over teachers and students the least and the most."""
    return _end(end, planted.between_texts()["mean"].tolist())


@quantity("percent", 0, STUDY, each=TEXTS)
def best_run(text: str) -> float:
    """What the run that removes most removes of the divergence."""
    table = planted.removed()
    return float(table.loc[table["task"] == TEXTS[text], "removed"].max())


# After the data: what limits it.


@quantity("teachers", source=STUDY)
def drawn() -> int:
    """Teachers, each draw's counted."""
    return len(planted.by_teacher("sst2"))


@quantity("percent", 0, STUDY, each=[("sst2", end) for end in ENDS])
def teacher_range(text: str, end: str) -> float:
    """The mean over students, over the teachers drawn the least and the most."""
    return _end(end, planted.by_teacher(text).tolist())


@quantity("percent", 0, STUDY, each=[("sst2", end) for end in ENDS])
def student_range(text: str, end: str) -> float:
    """The mean over teachers, over students the least and the most."""
    return _end(end, planted.by_student(text).tolist())


@quantity("percent", 0, STUDY, each=TEXTS)
def judged_last(text: str) -> Value:
    """The share of runs whose step with the least loss on dev is the last."""
    at_last, known = planted.judged_last(text)
    return Value(at_last / known, n=known)


@quantity("percent", 0, STUDY, each=[(text, at) for text in TEXTS for at in ("halfway", "last")])
def on_dev(text: str, at: str) -> Mean:
    """What runs have removed of dev's divergence at a step, whichever step they are judged at."""
    return planted.over_draws(planted.along(text, "dev", steps() // (2 if at == "halfway" else 1)))


@quantity("percent", 0, STUDY, each=TEXTS)
def on_train(text: str) -> Mean:
    """What the loss on the last batches is below that of the model without an adapter, as a share of dev's
    divergence."""
    return planted.over_draws(planted.along(text, "train", steps()))


@quantity("points", 0, STUDY, each=TEXTS)
def train_ahead(text: str) -> Mean:
    """That share minus what is removed on dev at the last step, draw by draw."""
    return planted.over_draws(planted.along(text, "train", steps()) - planted.along(text, "dev", steps()))


# Longer training, on dev.


@quantity("runs", source=LONGER)
def longer_runs() -> int:
    """Runs with an adapter in the study of longer rates."""
    return len(planted.tried(LONGER))


@quantity("times", source=(STUDY, LONGER), each=("texts", "examples"))
def more(what: str) -> float:
    """How many times as many training texts, and as many examples in all steps, the study of longer rates has."""
    longer, first = planted.study(LONGER).protocol, planted.study().protocol
    if what == "texts":
        return longer.train_cap / first.train_cap
    return longer.steps * longer.batch_size / (first.steps * first.batch_size)


@quantity()
def not_run() -> str:
    """The pilots that have no records yet."""
    return listed([name for name in planted.PILOTS if not planned.is_measured(name)])


@quantity("draws", source=LONGER)
def longer_draws() -> int:
    """Draws of the study of longer rates."""
    return int(planted.tried(LONGER)["draw"].nunique())


@quantity("percent", 0, LONGER, each=("cp", "lora"))
def longer(label: str) -> float:
    """What CP 4 and LoRA 4 remove of their kind's divergence, at the chosen setting."""
    return float(_longer(label).mean())


@quantity("percent", 0, LONGER, each=[("cp", end) for end in ENDS])
def longer_by_draw(label: str, end: str) -> float:
    """The same in single draws, the least and the most."""
    return _end(end, _longer(label).tolist())


def _longer(label: str) -> "pd.Series[float]":
    return planted.shares_on_dev(LONGER, cell_name(label, 4), (label, 4))


@quantity("percent", 0, LONGER)
def longer_most() -> float:
    """The most that any student removes of any teacher's divergence at any rate, as a mean over draws."""
    return planted.longer_most()


@quantity("students", source=LONGER)
def longer_at_edge() -> Value:
    """Students for which the lowest or the highest rate tried was chosen."""
    at_edge, known = planted.longer_at_edge()
    return Value(at_edge, n=known)


@quantity("runs", source=(RATES, LONGER))
def longer_higher() -> Value:
    """Runs that remove more than the same student at the same teacher in the first study of rates."""
    found = planted.longer().dropna()
    return Value(int((found["after"] > found["before"]).sum()), n=len(found))


@quantity("percent", 0, (RATES, LONGER))
def at_former_rate() -> float:
    """What LoRA 4 removes of LoRA 4's divergence at the rate that the first study of rates chose."""
    return planted.at_former_rate()
