"""The times in `results/bench`, which `make bench` writes, and the costs of runs that follow from them.

A file has the times of one kind of measurement at one place: a backbone, a task and a batch size. The functions here
divide one time by another of the same file, or add up the time of a whole bank or study from its parts.
"""

import functools
import json
import statistics
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np

import cpadapt
from companion import PROJECT
from companion.records import records
from cpadapt.inputs.backbones.specs import BACKBONES
from cpadapt.study import Study, load_study

Row = dict[str, Any]

FOLDER = "results/bench"
FUSED, NOT_FUSED = True, False
"""Whether torch.compile fused the kernels of a bank and of the frozen backbone."""


class NotMeasured(Exception):
    """The file has no such row, because it was not requested or could not be measured."""


NOT = "not measured"

P = ParamSpec("P")
R = TypeVar("R", float, str)


def known(function: Callable[P, R]) -> Callable[P, R | str]:
    """With a text for what was not measured."""

    @functools.wraps(function)
    def number_or_text(*args: P.args, **kwargs: P.kwargs) -> R | str:
        try:
            return function(*args, **kwargs)
        except NotMeasured:
            return NOT

    return number_or_text


class Place(NamedTuple):
    """What a benchmark ran on."""

    backbone: str
    task: str
    batch: int

    def file(self, kind: str) -> str:
        """The file of one kind of measurement, relative to the project's folder."""
        return f"{FOLDER}/{kind}-{self.backbone}-{self.task}-b{self.batch}.json"

    @property
    def hourly(self) -> str:
        """The file with runs an hour, of a bank and of processes with Trainer and PEFT."""
        return self.file("runs-per-hour")

    @property
    def layered(self) -> str:
        """The file with the times of a bank's step and its parts."""
        return self.file("frozen-backbone")


@functools.cache
def content(file: str) -> dict[str, Any]:
    """A file's settings, device, versions, date and rows.

    Raises:
        NotMeasured: there is no such file.
    """
    path = PROJECT / file
    if not path.exists():
        raise NotMeasured(file)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def source(file: str) -> str:
    """The file or, while it is not measured, the folder that it will be in."""
    return file if (PROJECT / file).exists() else FOLDER


def files(begins: str = "") -> list[str]:
    """The existing files, of one kind or of all."""
    return [f"{FOLDER}/{path.name}" for path in sorted((PROJECT / FOLDER).glob(f"{begins}*.json"))]


def rows(file: str, what: str, **where: Any) -> list[Row]:
    """A file's rows of one kind, without failed measurements."""
    wanted = {"what": what} | where
    return [row for row in content(file)["rows"] if "error" not in row and wanted.items() <= row.items()]


def measured_rows(file: str, what: str, **where: Any) -> list[Row]:
    """`rows`, one or more.

    Raises:
        NotMeasured: there is no such row.
    """
    found = rows(file, what, **where)
    if not found:
        raise NotMeasured(f"{file}: {what} {where}")
    return found


def first(file: str, what: str, **where: Any) -> Row:
    """The first of `measured_rows`."""
    return measured_rows(file, what, **where)[0]


def seconds(row: Row) -> float:
    """The median of a row's measurements."""
    return float(row["seconds"]["median"])


def paper() -> Study:
    """The paper's study. Its protocol and size define a whole run and a whole study."""
    return load_study(PROJECT / "studies" / "paper.toml")


@functools.cache
def runs_a_task() -> int:
    """Runs of the paper's grid on each task."""
    study = paper()
    return len(study.runs(cpadapt.load_projections(study.backbone))) // len(study.tasks)


# Runs an hour.


def one_process(place: Place) -> float:
    """Runs an hour of one process with Trainer and PEFT, with or without autocast, whichever is faster."""
    given = [row["runs_per_hour"] for row in _peers(place) if row["peers"] == 1]
    if not given:
        raise NotMeasured(f"{place.hourly}: one process")
    return float(max(given))


def best_processes(place: Place) -> tuple[str, float]:
    """The number of simultaneous processes with the most runs an hour, and that rate.

    A plus follows the number if no larger one was tried, and *full* if a larger one does not fit into memory.
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
    """Runs an hour of a bank and of one process, round by round. A process divides its hour evenly among its ranks."""
    return [
        (bank["runs_per_hour"], statistics.harmonic_mean([row["runs_per_hour"] for row in peers]))
        for bank in rows(CPU, "bank")
        if (peers := rows(CPU, "peer", turn=bank["turn"]))
    ]


# The parts of a bank's step.


def sizes(place: Place, compiled: bool = FUSED) -> set[int]:
    """The numbers of runs for which both the bank and the frozen backbone were measured."""
    bank, frozen = (
        {row["runs"] for row in rows(place.layered, what, compiled=compiled)}
        for what in ("bank step", "frozen backbone")
    )
    return bank & frozen


def largest(known: set[int]) -> int:
    """The largest of the numbers of runs.

    Raises:
        NotMeasured: there are no numbers.
    """
    if not known:
        raise NotMeasured("no number of runs")
    return max(known)


def a_token(place: Place, what: str, runs: int | None = None, compiled: bool = FUSED) -> float:
    """Seconds a token of `bank step`, `frozen backbone` or `matrices alone`, for this or the largest number of
    runs."""
    runs = largest(sizes(place, compiled)) if runs is None else runs
    row = first(place.layered, what, runs=runs, compiled=compiled)
    return seconds(row) / int(row["tokens"])


def peak(place: Place) -> float:
    """FLOP per second of one large square matrix product."""
    square = first(place.layered, "square matrix product")
    return float(square["flop"]) / seconds(square)


def ideal(place: Place) -> float:
    """Seconds a token of the frozen layers' products at `peak`.

    Forward, and backward to the input, take two FLOP each for every frozen weight and token.
    """
    return 4 * int(content(place.layered)["settings"]["frozen_weights"]) / peak(place)


def bandwidth(place: Place) -> float:
    """Bytes per second that a large copy reads and writes."""
    copy = first(place.layered, "memory copy")
    return float(copy["moved_bytes"]) / seconds(copy)


def adapters_bytes(backbone: str) -> int:
    """Bytes a token that the adapters' products move, in half precision.

    Forward reads a projection's input, and reads and writes its output once more. Backward reads and writes the
    gradient of the input, and reads that of the output. The gradients of both matrices read the input and the output's
    gradient again.
    """
    sides = [(p.in_features, p.out_features) for p in cpadapt.load_projections(backbone.removesuffix("-shape"))]
    return 2 * sum((n + 2 * m) + (2 * n + m) + (n + m) for n, m in sides)


def elementwise_bytes(backbone: str) -> int:
    """The fewest bytes a token that elementwise work moves, in half precision, forward and backward.

    Forward, a norm with the residual sum before it reads two widths and writes two; backward it reads the gradients
    of the products behind it (three for attention's; two for a gated MLP's, one for a plain one's), its input and the
    residual's gradient, and writes one. A gated activation reads two and writes one, and backward reads three and
    writes two; a plain one reads one and writes one, and backward reads two and writes one. Rotary embeddings read and
    write queries and keys, both ways.

    Raises:
        NotMeasured: the architecture is not covered.
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
    """Seconds of each kind of kernel in the largest bank's step (`bank step`), or in its `frozen backbone`."""
    row = first(place.layered, "kernels", compiled=FUSED, runs=largest(sizes(place)), of=what)
    return {kind: float(taken["seconds"]) for kind, taken in row["kinds"].items()}


def elementwise_at_copys_speed(place: Place) -> float:
    """Seconds of the frozen backbone's elementwise work on the largest bank's row, if it were as fast as a copy."""
    row = first(place.layered, "bank step", compiled=FUSED, runs=largest(sizes(place)))
    return float(elementwise_bytes(place.backbone) * row["tokens"] / bandwidth(place))


@functools.cache
def dense_layers(backbone: str) -> Counter[tuple[int, int]]:
    """The number of dense layers by their inputs and outputs, in the order of the model."""
    import torch
    from transformers import AutoModel

    with torch.device("meta"):
        layers = AutoModel.from_config(BACKBONES[backbone].config()).modules()
    return Counter((m.in_features, m.out_features) for m in layers if isinstance(m, torch.nn.Linear))


# More runs, and whole banks and studies.


def growth(place: Place, compiled: bool = FUSED) -> dict[int, float]:
    """Seconds of a training step, by the number of runs."""
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
    """Runs an hour of a bank whose step takes only the frozen backbone's time, with its evaluations unchanged."""
    bank = first(place.hourly, "bank")
    runs = bank["times"]["runs"]
    share = a_token(place, "frozen backbone", runs) / a_token(place, "bank step", runs)
    a_run = paper().protocol.steps * bank["a_run"]["step_seconds"] * share + evaluations(bank)
    return float(3600 / a_run)


def bank_seconds(place: Place, runs: int) -> float:
    """Seconds of a bank with this number of runs: fused with its start-up or unfused without, whichever is faster.

    The steps of the measured bank are scaled as steps change with the number of runs, interpolated linearly between
    the measured numbers.

    Raises:
        NotMeasured: the measured bank is not among these numbers, or this number is outside their range.
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
    """Seconds of a study's banks, either one after another on all GPUs, or with a share of the GPUs for each task."""
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
    """Seconds of training and evaluation of a study of the paper's size, if all its tasks are on record."""
    there = records(name)
    if Counter(record.config.task for record in there) != dict.fromkeys(paper().tasks, runs_a_task()):
        raise NotMeasured(f"all of {name}")
    # Each record holds its bank's times; the run's share is one part of them.
    return sum((r.cost.train_seconds + r.cost.evaluation_seconds) / r.cost.bank_runs for r in there)
