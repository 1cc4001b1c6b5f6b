"""The times in `results/bench`, which `make bench` writes, and what they say of a run's cost.

A file has the times of one kind of measurement at one place: a backbone, a task and a batch size. What follows from
them here is one time over another of the same file, or a whole bank's or study's time put together from its parts.
"""

import functools
import json
import statistics
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

import cpadapt
from companion import PROJECT
from companion.records import records
from cpadapt.inputs.backbones.specs import BACKBONES
from cpadapt.study import Study, load_study

Row = dict[str, Any]

FOLDER = "results/bench"
FUSED, NOT_FUSED = True, False
"""Whether torch.compile made the kernels of a bank and of the frozen backbone."""


class NotMeasured(Exception):
    """The file has no such row: it was not asked for, or the script could not measure it."""


class Place(NamedTuple):
    """What was measured on."""

    backbone: str
    task: str
    batch: int

    def file(self, kind: str) -> str:
        """The file of one kind of measurement, from the project's folder."""
        return f"{FOLDER}/{kind}-{self.backbone}-{self.task}-b{self.batch}.json"

    @property
    def hourly(self) -> str:
        """The file of runs an hour: a bank, and processes of Trainer and PEFT."""
        return self.file("runs-per-hour")

    @property
    def layered(self) -> str:
        """The file of a bank's step and of what is in it."""
        return self.file("frozen-backbone")


@functools.cache
def content(file: str) -> dict[str, Any]:
    """A file's settings, device, versions, date and rows."""
    found: dict[str, Any] = json.loads((PROJECT / file).read_text(encoding="utf-8"))
    return found


def files(begins: str = "") -> list[str]:
    """The files that there are, of one kind or of all."""
    return [f"{FOLDER}/{path.name}" for path in sorted((PROJECT / FOLDER).glob(f"{begins}*.json"))]


def rows(file: str, what: str, **where: Any) -> list[Row]:
    """A file's rows of one kind, without those of what failed."""
    wanted = {"what": what} | where
    return [row for row in content(file)["rows"] if "error" not in row and wanted.items() <= row.items()]


def first(file: str, what: str, **where: Any) -> Row:
    """The first of `rows`.

    Raises:
        NotMeasured: there is none.
    """
    found = rows(file, what, **where)
    if not found:
        raise NotMeasured(f"{file}: {what} {where}")
    return found[0]


def seconds(row: Row) -> float:
    """The median of a row's measurements."""
    return float(row["seconds"]["median"])


def paper() -> Study:
    """The paper's own study, by whose protocol and size a whole run and a whole study are meant."""
    return load_study(PROJECT / "studies" / "paper.toml")


@functools.cache
def runs_a_task() -> int:
    """Of the paper's grid."""
    study = paper()
    return len(study.runs(cpadapt.load_projections(study.backbone))) // len(study.tasks)


# Runs an hour.


def one_process(place: Place) -> float:
    """Runs an hour of one process of Trainer and PEFT, with or without autocast, whichever gives more."""
    given = [row["runs_per_hour"] for row in _peers(place) if row["peers"] == 1]
    if not given:
        raise NotMeasured(f"{place.hourly}: one process")
    return float(max(given))


def best_processes(place: Place) -> tuple[str, float]:
    """The number of processes at once that gives most, and its runs an hour.

    The number has a plus where no larger one was tried, and *full* where a larger one does not fit into memory.
    """
    peers = _peers(place)
    tried = {row["peers"] for row in peers}
    if len(tried) < 2:
        raise NotMeasured(f"{place.hourly}: several processes")
    best = max(peers, key=lambda row: row["runs_per_hour"])
    number = str(best["peers"])
    if best["peers"] == max(tried):
        full = any("memory" in row.get("stopped", "") for row in rows(place.hourly, "peers"))
        number += ", full" if full else "+"
    return number, float(best["runs_per_hour"])


def _peers(place: Place) -> list[Row]:
    return [row for row in rows(place.hourly, "peers") if "runs_per_hour" in row]


CPU = f"{FOLDER}/cpu-bank.json"


def on_cpu() -> list[tuple[float, float]]:
    """Runs an hour of a bank and of one process, turn by turn; a process's hour is shared evenly by its ranks."""
    return [
        (bank["runs_per_hour"], statistics.harmonic_mean([row["runs_per_hour"] for row in peers]))
        for bank in rows(CPU, "bank")
        if (peers := rows(CPU, "peer", turn=bank["turn"]))
    ]


# What a bank's step is made of.


def sizes(place: Place, compiled: bool = FUSED) -> set[int]:
    """Numbers of runs whose bank and frozen backbone were measured."""
    bank, frozen = (
        {row["runs"] for row in rows(place.layered, what, compiled=compiled)}
        for what in ("bank step", "frozen backbone")
    )
    return bank & frozen


def largest(known: set[int]) -> int:
    """The largest of the numbers of runs.

    Raises:
        NotMeasured: there are none.
    """
    if not known:
        raise NotMeasured("no number of runs")
    return max(known)


def a_token(place: Place, what: str, runs: int | None = None, compiled: bool = FUSED) -> float:
    """Seconds a token of `bank step`, `frozen backbone` or `matrices alone`, for so many runs or the most measured."""
    runs = largest(sizes(place, compiled)) if runs is None else runs
    row = first(place.layered, what, runs=runs, compiled=compiled)
    return seconds(row) / int(row["tokens"])


def peak(place: Place) -> float:
    """FLOP a second of one large square product."""
    square = first(place.layered, "square matrix product")
    return float(square["flop"]) / seconds(square)


def ideal(place: Place) -> float:
    """Seconds a token of the frozen layers' products at that speed.

    Forward, and backward to the input: two FLOP each for every frozen weight and token.
    """
    return 4 * int(content(place.layered)["settings"]["frozen_weights"]) / peak(place)


def bandwidth(place: Place) -> float:
    """Bytes a second that a large copy reads and writes."""
    copy = first(place.layered, "memory copy")
    return float(copy["moved_bytes"]) / seconds(copy)


def adapters_bytes(backbone: str) -> int:
    """Bytes a token that the adapters' products move, in half precision.

    Forward reads a projection's input and reads and writes its output once more; backward reads and writes the
    gradient of the input, and reads that of the output; the gradients of both matrices read input and output's
    gradient again.
    """
    sides = [(p.in_features, p.out_features) for p in cpadapt.load_projections(backbone.removesuffix("-shape"))]
    return 2 * sum((n + 2 * m) + (2 * n + m) + (n + m) for n, m in sides)


def elementwise_bytes(backbone: str) -> int:
    """Bytes a token that elementwise work moves at least, in half precision, forward and backward.

    Forward, a norm with the residual sum before it reads two widths and writes two; backward it reads the gradients
    of the products behind it (three for attention's; two for a gated MLP's, one for a plain one's), its input and the
    residual's gradient, and writes one. A gated activation reads two and writes one, and backward reads three and
    writes two; a plain one reads one and writes one, and backward reads two and writes one. Rotary embeddings read and
    write queries and keys, both ways.

    Raises:
        NotMeasured: the architecture is another.
    """
    config = BACKBONES[backbone.removesuffix("-shape")].config()
    if config.model_type == "llama":
        rotated = (config.num_attention_heads + config.num_key_value_heads) * config.head_dim
        numbers = (8 + 6 + 5) * config.hidden_size + (3 + 5) * config.intermediate_size + 4 * rotated
    elif config.model_type == "opt":
        numbers = (8 + 6 + 4) * config.hidden_size + (2 + 3) * config.ffn_dim
    else:
        raise NotMeasured(f"elementwise work of {backbone}")
    return int(2 * config.num_hidden_layers * numbers)


def kernels(place: Place, what: str) -> dict[str, float]:
    """Seconds by kind of kernel in the largest bank's step (`bank step`), or in its `frozen backbone`."""
    row = first(place.layered, "kernels", compiled=FUSED, runs=largest(sizes(place)), of=what)
    return {kind: float(taken["seconds"]) for kind, taken in row["kinds"].items()}


def elementwise_at_copys_speed(place: Place) -> float:
    """Seconds of the frozen backbone's elementwise work on the largest bank's row, were it as fast as a copy."""
    row = first(place.layered, "bank step", compiled=FUSED, runs=largest(sizes(place)))
    return float(elementwise_bytes(place.backbone) * row["tokens"] / bandwidth(place))


@functools.cache
def dense_layers(backbone: str) -> Counter[tuple[int, int]]:
    """How many there are with so many inputs and outputs, in the order of the model."""
    import torch
    from transformers import AutoModel

    with torch.device("meta"):
        layers = AutoModel.from_config(BACKBONES[backbone].config()).modules()
    return Counter((m.in_features, m.out_features) for m in layers if isinstance(m, torch.nn.Linear))


# More runs, and whole banks and studies.


def growth(place: Place, compiled: bool = FUSED) -> dict[int, float]:
    """Seconds of a step in training by the number of runs."""
    return dict(sorted((row["runs"], seconds(row)) for row in rows(place.layered, "steps", compiled=compiled)))


def evaluations(bank: Row) -> float:
    """Seconds of one run's evaluations in a bank, under the paper's protocol."""
    p, each = paper().protocol, bank["a_run"]
    return float(p.steps // p.eval_every * each["dev_seconds"] + each["eval_seconds"])


def whole(times: Row) -> tuple[float, float]:
    """Seconds of all steps of a bank under the paper's protocol, and of all evaluations."""
    p = paper().protocol
    on_dev = p.steps // p.eval_every * times["dev"]["median"]
    return float(p.steps * times["step"]["median"]), float(on_dev + times["eval_seconds"])


def at_most(place: Place) -> float:
    """Runs an hour of a bank whose step is the frozen backbone's alone, with its evaluations as they are."""
    bank = first(place.hourly, "bank")
    runs = bank["times"]["runs"]
    share = a_token(place, "frozen backbone", runs) / a_token(place, "bank step", runs)
    a_run = paper().protocol.steps * bank["a_run"]["step_seconds"] * share + evaluations(bank)
    return float(3600 / a_run)


def bank_seconds(place: Place, runs: int) -> float:
    """Seconds of a bank of so many runs: fused with its start-up or unfused without, whichever is sooner.

    Its steps are the measured bank's, changed as steps change with the number of runs, by a straight line between
    those that were measured.

    Raises:
        NotMeasured: the measured bank is none of them, or so many runs are outside of them.
    """
    bank, fused = first(place.hourly, "bank"), growth(place)
    known, p = bank["times"]["runs"], paper().protocol
    if known not in fused:
        raise NotMeasured(f"{place.layered}: {known} runs")
    ways = []
    for steps, startup in ((fused, bank["times"]["startup_seconds"]), (growth(place, NOT_FUSED), 0.0)):
        if steps and min(steps) <= runs <= max(steps):
            slower = float(np.interp(runs, list(steps), list(steps.values()))) / fused[known]
            ways.append(startup + p.steps * slower * bank["times"]["step"]["median"] + runs * evaluations(bank))
    if not ways:
        raise NotMeasured(f"{place.layered}: {runs} runs")
    return float(min(ways))


def study_on_gpus(backbone: str, gpus: int) -> float:
    """Seconds of a study's banks: all GPUs take part in each in turn, or each task has its share of them."""
    places = [Place(backbone, task, 8) for task in paper().tasks]
    ways = [(sum, gpus)] + [(max, gpus // len(places))] * (gpus >= len(places))
    found = []
    for together, share in ways:
        try:
            found.append(together(bank_seconds(place, -(-runs_a_task() // share)) for place in places))
        except NotMeasured:
            continue
    if not found:
        raise NotMeasured(f"a study of {backbone} on {gpus} GPUs")
    return min(found)


def study_as_run(name: str) -> float:
    """Seconds of training and evaluation of a study of the paper's size of which all tasks are on record."""
    there = records(name)
    if Counter(record.config.task for record in there) != dict.fromkeys(paper().tasks, runs_a_task()):
        raise NotMeasured(f"all of {name}")
    # Each record holds its bank's times, of which one part is its own.
    return sum((r.cost.train_seconds + r.cost.evaluation_seconds) / r.cost.bank_runs for r in there)
