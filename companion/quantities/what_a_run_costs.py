"""Numbers of the chapter on what a run costs, from the times in `results/bench`."""

import itertools
import re
import statistics
from collections.abc import Iterable

import numpy as np

from companion import bench
from companion.bench import CPU, FUSED, NOT_FUSED, NotMeasured, Place, known
from companion.quantities import quantity
from companion.records import records
from cpadapt.analysis.statistics import Estimate, Outcomes, compare, outcomes

NAMES = {"smollm2": "smollm2", "opt": "opt-1.3b-shape", "minilm": "minilm"}
"""The backbones in `results/bench`, by the name that quantities have."""

TASKS = ("sst2", "rte", "boolq")
LAYERED = list(itertools.product(("smollm2", "opt"), TASKS))
HOURLY = [
    *itertools.product(["smollm2"], TASKS, ("b8", "b16")), *itertools.product(["opt"], TASKS, ["b8"]),
    ("minilm", "sst2", "b8"),
]  # fmt: skip
ENDS = ("least", "most")


def place(backbone: str, task: str, batch: str = "b8") -> Place:
    """The place that a quantity's name means."""
    return Place(NAMES[backbone], task, int(batch[1:]))


def hourly(backbone: str, task: str, batch: str = "b8", *_: str) -> str:
    """The source of runs an hour."""
    return place(backbone, task, batch).hourly


def layered(backbone: str, task: str, *_: str) -> str:
    """The source of a step's parts."""
    return place(backbone, task).layered


def both(backbone: str, task: str, *_: str) -> tuple[str, str]:
    """Both of these."""
    return hourly(backbone, task), layered(backbone, task)


ALL_HOURLY = tuple(hourly(*setting) for setting in HOURLY)
ALL_LAYERED = tuple(layered(*setting) for setting in LAYERED)
SMOLLM2 = tuple(layered("smollm2", task) for task in TASKS)


def _end(found: Iterable[float], which: str) -> float:
    return {"least": min, "most": max}[which](found)


# The paper's protocol and grid.


@quantity("steps", source="paper")
def steps() -> int:
    """Steps of a whole run."""
    return bench.paper().protocol.steps


@quantity("steps", source="paper")
def eval_every() -> int:
    """Between two evaluations on dev."""
    return bench.paper().protocol.eval_every


@quantity("runs", source="paper")
def study_runs() -> int:
    """Runs of each task of the paper's grid."""
    return bench.runs_a_task()


@quantity("tasks", source="paper")
def study_tasks() -> int:
    """Tasks of the paper's grid."""
    return len(bench.paper().tasks)


# Runs an hour.


@quantity("runs", source=hourly, each=HOURLY)
@known
def bank_runs(*setting: str) -> int:
    """Runs of the bank that was timed."""
    return int(bench.first(hourly(*setting), "bank")["times"]["runs"])


@quantity("runs", source=hourly, each=HOURLY)
@known
def bank(*setting: str) -> float:
    """An hour, once all has started."""
    return float(bench.first(hourly(*setting), "bank")["runs_per_hour"])


@quantity("runs", source=hourly, each=HOURLY)
@known
def bank_with_startup(*setting: str) -> float:
    """An hour, of a bank that starts for these runs alone."""
    return float(bench.first(hourly(*setting), "bank")["runs_per_hour_with_startup"])


@quantity("runs", 1, source=hourly, each=HOURLY)
@known
def one(*setting: str) -> float:
    """An hour, of one process of Trainer and PEFT."""
    return bench.one_process(place(*setting))


@quantity("runs", 1, source=hourly, each=HOURLY)
@known
def best(*setting: str) -> float:
    """An hour, of the best number of processes at once."""
    return bench.best_processes(place(*setting))[1]


@quantity(source=hourly, each=HOURLY)
@known
def best_number(*setting: str) -> str:
    """The best number of processes, and why no more were tried."""
    return bench.best_processes(place(*setting))[0]


@quantity("times", source=hourly, each=HOURLY)
@known
def bank_over_one(*setting: str) -> float:
    """The runs an hour of a bank over those of one process."""
    return float(bench.first(hourly(*setting), "bank")["runs_per_hour"]) / bench.one_process(place(*setting))


@quantity("times", source=hourly, each=HOURLY)
@known
def bank_over_best(*setting: str) -> float:
    """The runs an hour of a bank over those of the best number of processes."""
    return float(bench.first(hourly(*setting), "bank")["runs_per_hour"]) / bench.best_processes(place(*setting))[1]


@quantity("runs", source=CPU)
@known
def cpu_runs() -> int:
    """Runs of the bank that was timed on a CPU."""
    return int(bench.first(CPU, "bank")["times"]["runs"])


@quantity("runs", 1, source=CPU)
@known
def cpu_bank() -> float:
    """An hour on a CPU, in the median over turns."""
    return _median(bank for bank, _ in bench.on_cpu())


@quantity("runs", 1, source=CPU)
@known
def cpu_one() -> float:
    """The same of one process."""
    return _median(one for _, one in bench.on_cpu())


@quantity("times", 1, source=CPU)
@known
def cpu_bank_over_one() -> float:
    """One over the other, in the median over turns."""
    return _median(bank / one for bank, one in bench.on_cpu())


def _median(found: Iterable[float]) -> float:
    if values := list(found):
        return float(statistics.median(values))
    raise NotMeasured(CPU)


@quantity("threads", source=CPU)
def cpu_threads() -> int:
    """Threads on which the CPU's part was timed."""
    return int(bench.content(CPU)["device"]["torch_threads"])


@quantity("cores", source=CPU)
def cpu_cores() -> int:
    """Cores of that CPU."""
    return int(bench.content(CPU)["device"]["cores"])


@quantity(source=hourly("smollm2", "sst2"))
def gpu() -> str:
    """The GPU on which runs an hour were timed."""
    return str(bench.content(hourly("smollm2", "sst2"))["device"]["gpu"])


@quantity("times", 1, ALL_HOURLY, each=ENDS)
def autocast(which: str) -> float:
    """What `bf16=True` makes of one process's step."""
    found = []
    for file in ALL_HOURLY:
        alone = {row["precision"]: row["own_step"]["median"] for row in bench.rows(file, "peers", peers=1)}
        if alone.keys() >= {"autocast", "plain"}:
            found.append(alone["autocast"] / alone["plain"])
    return _end(found, which)


@quantity("files", source=ALL_HOURLY)
def with_mps() -> int:
    """Files in which processes shared the GPU through NVIDIA's multi-process service."""
    return sum(bool(bench.content(file)["settings"]["mps"]) for file in ALL_HOURLY)


@quantity("tokens", 1, ALL_HOURLY, each=ENDS)
def padding(which: str) -> float:
    """Tokens that a process of Trainer computes for each real one."""
    peers = [row for file in ALL_HOURLY for row in bench.rows(file, "peers") if "padded_tokens" in row]
    return _end([row["padded_tokens"] / row["real_tokens"] for row in peers], which)


@quantity("seconds", source=ALL_HOURLY, each=ENDS)
def startup(which: str) -> float:
    """The time that a bank on a GPU takes to start."""
    banks = [row for file in ALL_HOURLY for row in bench.rows(file, "bank")]
    return _end([row["times"]["startup_seconds"] for row in banks], which)


@quantity("runs")
def large() -> int:
    """The fewest runs of a bank where waste and gaps are given."""
    return 16


def _in_large_banks() -> list[tuple[str, bench.Row]]:
    found = [(file, row) for file in ALL_LAYERED for row in bench.rows(file, "steps", compiled=FUSED)]
    return [(file, row) for file, row in found if row["runs"] >= large()]


@quantity("percent", 1, ALL_LAYERED, each=ENDS)
def waste(which: str) -> float:
    """Tokens that a large bank computes beyond the real ones."""
    return _end([row["computed_tokens"] / row["real_tokens"] - 1 for _, row in _in_large_banks()], which)


@quantity("percent", 1, ALL_LAYERED, each=ENDS)
def waits(which: str) -> float:
    """The part of a step of a large bank in which the device waits for the host or takes its data."""
    found = []
    for file, row in _in_large_banks():
        for alone in bench.rows(file, "launches alone", compiled=FUSED, runs=row["runs"]):
            found.append(max(1 - bench.seconds(alone) / bench.seconds(row), 0))
    return _end(found, which)


# What a step is made of.


@quantity("percent", source=both("smollm2", "sst2"))
def frozen_of_step() -> float:
    """The frozen backbone's part of the step of SmolLM2's bank on SST-2 whose runs an hour are given."""
    at, runs = _as_hourly()
    return bench.a_token(at, "frozen backbone", runs) / bench.a_token(at, "bank step", runs)


def _as_hourly() -> tuple[Place, int]:
    at = place("smollm2", "sst2")
    return at, int(bench.first(at.hourly, "bank")["times"]["runs"])


@quantity("runs", source=layered, each=LAYERED)
@known
def most_runs(*setting: str) -> int:
    """Runs of the largest bank whose step was taken apart."""
    return bench.largest(bench.sizes(place(*setting)))


@quantity("tokens", source=layered, each=LAYERED)
@known
def tokens(*setting: str) -> int:
    """Tokens of its step."""
    at = place(*setting)
    return int(bench.first(at.layered, "bank step", compiled=FUSED, runs=bench.largest(bench.sizes(at)))["tokens"])


@quantity("times", 2, layered, each=LAYERED)
@known
def bank_over_frozen(*setting: str) -> float:
    """Its step over the frozen backbone's alone."""
    return bench.a_token(place(*setting), "bank step") / bench.a_token(place(*setting), "frozen backbone")


@quantity("times", 2, layered, each=LAYERED)
@known
def moved(*setting: str) -> float:
    """That ratio if the adapters' products took only the time to move their bytes."""
    at = place(*setting)
    return 1 + bench.adapters_bytes(at.backbone) / bench.bandwidth(at) / bench.a_token(at, "frozen backbone")


@quantity("times", 2, layered, each=LAYERED)
@known
def unfused_over_fused(*setting: str) -> float:
    """The frozen backbone without torch.compile over that with it, at the most runs that have both."""
    at = place(*setting)
    runs = bench.largest(bench.sizes(at) & bench.sizes(at, NOT_FUSED))
    plain, fused = (bench.a_token(at, "frozen backbone", runs, compiled) for compiled in (NOT_FUSED, FUSED))
    return plain / fused


@quantity("percent", source=layered, each=[
    (*setting, part) for setting in LAYERED for part in ("products", "frozen", "bank")
])  # fmt: skip
@known
def at_peak(backbone: str, task: str, part: str) -> float:
    """The speed of its products, of the frozen backbone and of all of it, in that of a large square product."""
    what = {"products": "matrices alone", "frozen": "frozen backbone", "bank": "bank step"}[part]
    at = place(backbone, task)
    return bench.ideal(at) / bench.a_token(at, what)


@quantity("percent", source=layered, each=LAYERED)
@known
def products_of_frozen(*setting: str) -> float:
    """The products' part in the frozen backbone's time."""
    return bench.a_token(place(*setting), "matrices alone") / bench.a_token(place(*setting), "frozen backbone")


@quantity("", 3, ALL_LAYERED)
def ratio_rises_at_most() -> float:
    """The largest rise from one number of runs to the next, in large banks, of a bank's step over the frozen
    backbone's.
    """
    found = []
    for setting in LAYERED:
        at = place(*setting)
        counts = sorted(runs for runs in bench.sizes(at) if runs >= large())
        ratios = [bench.a_token(at, "bank step", n) / bench.a_token(at, "frozen backbone", n) for n in counts]
        found += [after - before for before, after in itertools.pairwise(ratios)]
    return max(found)


KINDS = {"products": "matrix products", "attention": "attention", "adapters": "adapters' products",
         "elementwise": "elementwise"}  # fmt: skip
WHAT = {"bank": "bank step", "frozen": "frozen backbone"}


@quantity("ms", 1, layered, each=[(*setting, *kind) for setting in LAYERED for kind in itertools.product(WHAT, KINDS)])
@known
def kernels(backbone: str, task: str, what: str, kind: str) -> float:
    """Time of a bank's step, or of the frozen backbone on its row, by kind of kernel."""
    return 1e3 * bench.kernels(place(backbone, task), WHAT[what])[KINDS[kind]]


@quantity("ms", 1, layered, each=LAYERED)
@known
def at_copys_speed(*setting: str) -> float:
    """Time of the frozen backbone's elementwise work, were it as fast as a large copy."""
    return 1e3 * bench.elementwise_at_copys_speed(place(*setting))


def _elementwise(task: str) -> tuple[float, float, float]:
    """Seconds of SmolLM2's elementwise work as it is, at a copy's speed, and of all its kernels."""
    at = place("smollm2", task)
    took = bench.kernels(at, WHAT["frozen"])
    return took[KINDS["elementwise"]], bench.elementwise_at_copys_speed(at), sum(took.values())


@quantity("times", 2, SMOLLM2, each=ENDS)
def over_copy(which: str) -> float:
    """The first of SmolLM2's over the second."""
    return _end([taken / copied for taken, copied, _ in map(_elementwise, TASKS)], which)


@quantity("percent", source=SMOLLM2)
def to_gain() -> float:
    """The most of SmolLM2's frozen step to gain if its elementwise work were as fast as a large copy."""
    return max((taken - copied) / all_of_it for taken, copied, all_of_it in map(_elementwise, TASKS))


@quantity("times", source=both, each=LAYERED)
@known
def at_most(*setting: str) -> float:
    """The runs an hour of a bank whose adapters cost nothing over those of one process."""
    return bench.at_most(place(*setting)) / bench.one_process(place(*setting))


WIDTHS = [
    *(("smollm2", f"from_{n}_to_{m}") for n, m in ((576, 576), (576, 192), (576, 1536), (1536, 576))),
    *(("opt", f"from_{n}_to_{m}") for n, m in ((2048, 2048), (2048, 8192), (8192, 2048))),
]


def sides(width: str) -> tuple[int, int]:
    """A dense layer's inputs and outputs, of a quantity's name."""
    n, m = map(int, re.findall(r"\d+", width))
    return n, m


@quantity("matrices", each=WIDTHS)
def matrices(backbone: str, width: str) -> int:
    """Matrices of a backbone that have this width."""
    return bench.dense_layers(_model(backbone))[sides(width)]


@quantity("FLOP", each=WIDTHS)
def flop_a_byte(_: str, width: str) -> float:
    """FLOP a byte of a product with many tokens, in half precision: 2·n·m FLOP a token, and 2·(n + m) bytes."""
    n, m = sides(width)
    return n * m / (n + m)


def _model(backbone: str) -> str:
    return NAMES[backbone].removesuffix("-shape")


@quantity("FLOP", source=ALL_LAYERED, each=ENDS)
def ridge(which: str) -> float:
    """FLOP that the device does in the time in which it moves a byte."""
    return _end([bench.peak(place(*setting)) / bench.bandwidth(place(*setting)) for setting in LAYERED], which)


# More runs, longer texts, larger adapters.

COUNTS = (1, 4, 16, 64, 256)


@quantity("ms", 3, layered, each=[(*setting, f"to_{count}") for setting in LAYERED for count in COUNTS])
@known
def added(backbone: str, task: str, to: str) -> float:
    """What each run costs a step that was added since the number of runs before."""
    grown, count = {0: 0.0} | bench.growth(place(backbone, task)), int(to.removeprefix("to_"))
    if count not in grown:
        raise NotMeasured(f"{count} runs")
    before = max(runs for runs in grown if runs < count)
    return 1e3 * (grown[count] - grown[before]) / (count - before)


def _compared(backbone: str, task: str) -> bench.Row:
    counts = [set(bench.growth(place(backbone, each))) for each in TASKS]
    runs = bench.largest(set.intersection(*counts))
    return bench.first(layered(backbone, task), "steps", compiled=FUSED, runs=runs)


@quantity("runs", source=layered, each=LAYERED)
@known
def compared_runs(*setting: str) -> int:
    """The most runs of a bank that were measured on all tasks."""
    return int(_compared(*setting)["runs"])


@quantity("tokens", source=layered, each=LAYERED)
@known
def tokens_a_run(*setting: str) -> float:
    """Tokens of a run in one of its steps."""
    return float(_compared(*setting)["real_tokens"]) / int(_compared(*setting)["runs"])


@quantity("ms", 3, layered, each=LAYERED)
@known
def ms_a_run(*setting: str) -> float:
    """Time of a run and step."""
    return 1e3 * bench.seconds(_compared(*setting)) / int(_compared(*setting)["runs"])


@quantity("µs", 2, layered, each=LAYERED)
@known
def us_a_token(*setting: str) -> float:
    """Time of a real token in one of its steps."""
    return 1e6 * bench.seconds(_compared(*setting)) / float(_compared(*setting)["real_tokens"])


LARGER = place("smollm2", "sst2").file("components")
ADAPTERS = {"lora1": ("lora", 1), "lora2": ("lora", 2), "lora8": ("lora", 8), "cp1": ("cp", 1), "cp11": ("cp", 11),
            "cp22": ("cp", 22), "cp88": ("cp", 88)}  # fmt: skip


def _of_size(adapter: str) -> bench.Row:
    family, size = ADAPTERS[adapter]
    return bench.first(LARGER, "bank step", family=family, size=size)


@quantity("runs", source=LARGER)
def runs_of_a_size() -> int:
    """Runs of each bank whose runs are all of one size."""
    return int(bench.content(LARGER)["settings"]["runs"])


@quantity("scalars", source=LARGER, each=ADAPTERS)
@known
def scalars(adapter: str) -> int:
    """Scalars of each of its adapters."""
    return int(_of_size(adapter)["parameters"])


@quantity("ms", 3, LARGER, each=ADAPTERS)
@known
def ms_of_a_size(adapter: str) -> float:
    """A run and step."""
    return 1e3 * bench.seconds(_of_size(adapter)) / runs_of_a_size()


@quantity("times", 2, LARGER, each=ADAPTERS)
@known
def over_least_size(adapter: str) -> float:
    """Its step over that of the cheapest size."""
    return bench.seconds(_of_size(adapter)) / min(map(bench.seconds, bench.rows(LARGER, "bank step")))


# How many runs.

ENOUGH = 1.1


def _enough(at: Place) -> int:
    grown = bench.growth(at)
    if len(grown) < 2:
        raise NotMeasured(f"{at.layered}: several numbers of runs")
    each = {runs: step / runs for runs, step in grown.items()}
    return min(runs for runs, cost in each.items() if cost <= ENOUGH * min(each.values()))


@quantity("runs", source=layered, each=LAYERED)
@known
def enough_runs(*setting: str) -> int:
    """The fewest at which a run costs at most a tenth more than at the cheapest number."""
    return _enough(place(*setting))


@quantity("GB", 1, layered, each=LAYERED)
@known
def enough_memory(*setting: str) -> float:
    """Reserved for these."""
    return _memory(_enough(place(*setting)), *setting)


@quantity("runs", source=layered, each=LAYERED)
@known
def largest_bank(*setting: str) -> int:
    """Whose memory was measured."""
    return bench.largest({row["runs"] for row in bench.rows(layered(*setting), "memory", compiled=FUSED)})


@quantity("GB", 1, layered, each=LAYERED)
@known
def largest_memory(*setting: str) -> float:
    """Reserved for it."""
    return _memory(
        bench.largest({row["runs"] for row in bench.rows(layered(*setting), "memory", compiled=FUSED)}), *setting
    )


def _memory(runs: int, *setting: str) -> float:
    return float(bench.first(layered(*setting), "memory", compiled=FUSED, runs=runs)["peak_memory_bytes"]) / 1e9


@quantity("tokens", source="cpadapt/bank/trainer.py")
def row_tokens() -> int:
    """The most tokens of a step on a GPU, on average; more are done in several rows."""
    from cpadapt.bank.trainer import TRAINING_TOKENS

    return TRAINING_TOKENS["cuda"]


# Whole studies.

TWO_GPUS = place("smollm2", "rte").file("two-gpus")


@quantity("runs", source=TWO_GPUS)
def two_gpus_runs() -> int:
    """Runs of the study that two GPUs shared."""
    return int(bench.content(TWO_GPUS)["settings"]["runs"])


def _on_one() -> float:
    return sum(bench.whole(bench.first(TWO_GPUS, "one GPU")["times"]))


def _on_two() -> float:
    halves = bench.rows(TWO_GPUS, "two GPUs")
    if len(halves) < 2:
        raise NotMeasured(TWO_GPUS)
    return max(sum(bench.whole(half["times"])) for half in halves)


@quantity("s", source=TWO_GPUS)
@known
def one_gpu_seconds() -> float:
    """Seconds of that study on one of them."""
    return _on_one()


@quantity("s", source=TWO_GPUS)
@known
def two_gpus_seconds() -> float:
    """Seconds of the slower of the two."""
    return _on_two()


@quantity("times", 2, TWO_GPUS)
@known
def one_over_two() -> float:
    """The time on one GPU over that on two."""
    return _on_one() / _on_two()


WRITERS = f"{bench.FOLDER}/writers.json"
WRITING = {"one": 1, "two": 2, "four": 4}
"""Processes that measure one study into one folder."""


def _writers(number: str) -> list[bench.Row]:
    return bench.measured_rows(WRITERS, "processes", processes=WRITING[number])


@quantity("cores", source=lambda: bench.source(WRITERS))
@known
def writers_cores() -> int:
    """Cores that they share."""
    return int(bench.content(WRITERS)["device"]["cores"])


@quantity("s", 1, source=lambda number: bench.source(WRITERS), each=WRITING)
@known
def writers_seconds(number: str) -> float:
    """Seconds of the study, by so many processes."""
    return float(statistics.median(row["seconds"] for row in _writers(number)))


@quantity("times", 2, source=lambda number: bench.source(WRITERS), each=WRITING)
@known
def writers_faster(number: str) -> float:
    """One process's time over theirs, turn by turn."""
    pairs = zip(_writers("one"), _writers(number), strict=True)
    return float(statistics.median(one["seconds"] / several["seconds"] for one, several in pairs))


@quantity("s", 1, source=lambda number: bench.source(WRITERS), each=WRITING)
@known
def writers_cpu(number: str) -> float:
    """The CPU's, of the process that takes the most."""
    return float(statistics.median(row["cpu_seconds_by_process"][-1] for row in _writers(number)))


@quantity("runs", source=lambda number: bench.source(WRITERS), each=WRITING)
@known
def writers_doubled(number: str) -> int:
    """Runs that are on record twice, over all turns."""
    return sum(row["doubled"] for row in _writers(number))


@quantity("runs", source=lambda number: bench.source(WRITERS), each=WRITING)
@known
def writers_lost(number: str) -> int:
    """Asked for and not on record, over all turns."""
    return sum(row["asked"] - row["runs"] for row in _writers(number))


def _study_files(backbone: str, *_: str) -> tuple[str, ...]:
    return "paper", *(file for task in TASKS for file in both(backbone, task))


@quantity("s", source=_study_files, each=itertools.product(("smollm2", "opt"), ("one", "best")))
@known
def study_of_processes(backbone: str, number: str) -> float:
    """A study of the paper's size, with one process or with the best number of them."""
    return _by_processes(backbone, number)


def _by_processes(backbone: str, number: str) -> float:
    places = [place(backbone, task) for task in TASKS]
    given = [bench.one_process(at) if number == "one" else bench.best_processes(at)[1] for at in places]
    return sum(3600 * bench.runs_a_task() / rate for rate in given)


@quantity("s", source=_study_files, each=itertools.product(("smollm2", "opt"), ("gpus_1", "gpus_2", "gpus_100")))
@known
def study_of_banks(backbone: str, gpus: str) -> float:
    """Such a study with banks, on so many GPUs."""
    return bench.study_on_gpus(NAMES[backbone], int(gpus.removeprefix("gpus_")))


@quantity("times", source=_study_files, each=["smollm2"])
def study_faster(backbone: str) -> float:
    """The time of such a study with the best number of processes over that with banks on one GPU."""
    return _by_processes(backbone, "best") / bench.study_on_gpus(NAMES[backbone], 1)


AS_RUN = {"smollm2": "smollm2", "opt": "paper"}


@quantity("s", source=lambda backbone: AS_RUN[backbone], each=AS_RUN)
@known
def study_as_run(backbone: str) -> float:
    """Such a study as its records have it, on one GPU."""
    return bench.study_as_run(AS_RUN[backbone])


GRID = f"{bench.FOLDER}/grid-paper.json"


@quantity("runs", source=GRID, each=itertools.product(TASKS, ("command", "papermill")))
@known
def grid_records(task: str, way: str) -> int:
    """Runs of the paper's grid that left a record, with random weights and a few steps."""
    return int(bench.first(GRID, "records", task=task, way=way)["runs"])


@quantity("s", source=GRID, each=itertools.product(TASKS, ("startup", "steps", "evaluations", "all")))
@known
def grid_seconds(task: str, part: str) -> float:
    """Seconds of the whole bank of a task of that grid."""
    times = bench.first(GRID, "bank", task=task)["times"]
    all_steps, evaluations = bench.whole(times)
    start = float(times["startup_seconds"])
    return {"startup": start, "steps": all_steps, "evaluations": evaluations,
            "all": all_steps + evaluations + start}[part]  # fmt: skip


# One adapter alone.

ALONE = f"{bench.FOLDER}/one-adapter-smollm2.json"
ALONE_AT = list(itertools.product(("eager", "compiled"), ("rank1", "rank8")))


def _alone(what: str, mode: str, rank: str) -> tuple[bench.Row, bench.Row]:
    """CP's row and LoRA's at its budget."""
    setting = {"mode": mode, "rank": int(rank.removeprefix("rank"))}
    return bench.first(ALONE, what, family="cp", **setting), bench.first(ALONE, what, family="lora", **setting)


@quantity("ms", 1, ALONE, each=[(*at, family) for at in ALONE_AT for family in ("cp", "lora")])
@known
def alone_ms(mode: str, rank: str, family: str) -> float:
    """Time of a step."""
    cp, lora = _alone("step", mode, rank)
    return 1e3 * bench.seconds(cp if family == "cp" else lora)


@quantity("tokens", source=ALONE, each=ALONE_AT)
@known
def alone_tokens(mode: str, rank: str) -> int:
    """Tokens of a step."""
    return int(_alone("step", mode, rank)[0]["tokens"])


@quantity("components", source=ALONE, each=ALONE_AT)
@known
def alone_components(mode: str, rank: str) -> int:
    """Components of CP at LoRA's budget."""
    return int(_alone("adapter", mode, rank)[0]["size"])


@quantity("times", 2, ALONE, each=ALONE_AT)
@known
def alone_time(mode: str, rank: str) -> float:
    """CP's step over LoRA's."""
    cp, lora = map(bench.seconds, _alone("step", mode, rank))
    return cp / lora


@quantity("times", 3, ALONE, each=ALONE_AT)
@known
def alone_memory(mode: str, rank: str) -> float:
    """Its peak, CP's over LoRA's."""
    cp, lora = _alone("adapter", mode, rank)
    return float(cp["peak_memory_bytes"] / lora["peak_memory_bytes"])


@quantity("times", 2, ALONE, each=ALONE_AT)
@known
def alone_kernels(mode: str, rank: str) -> float:
    """Those of a step, CP's over LoRA's."""
    cp, lora = _alone("adapter", mode, rank)
    return float(cp["kernels"] / lora["kernels"])


@quantity("tensors", source=ALONE, each=("cp", "lora"))
def tensors(family: str) -> int:
    """Tensors of an adapter, whatever its size."""
    (found,) = {row["tensors"] for row in bench.rows(ALONE, "adapter", family=family)}
    return int(found)


PAIRS = f"{bench.FOLDER}/shared-pairs-smollm2-cuda.json"
WAYS = {"at_once": "at once", "by_layer": "by layer"}


def _pairs(rank: str, way: str) -> bench.Row:
    return bench.first(PAIRS, "step", way=WAYS[way], rank=int(rank.removeprefix("rank")))


@quantity("ms", 0, PAIRS, each=itertools.product(("rank1", "rank8"), WAYS))
@known
def pairs_ms(rank: str, way: str) -> float:
    """Of an uncompiled step of one CP adapter of a rank's size, by how its factor pairs are made."""
    return 1e3 * bench.seconds(_pairs(rank, way))


@quantity("components", 0, PAIRS, each=("rank1", "rank8"))
@known
def pairs_components(rank: str) -> int:
    """Of that adapter."""
    return int(_pairs(rank, "at_once")["size"])


@quantity("sizes", source=PAIRS)
@known
def pairs_apart() -> int:
    """Those at which the slowest repeat at once is faster than the fastest by layer."""
    return sum(
        _pairs(rank, "at_once")["seconds"]["max"] < _pairs(rank, "by_layer")["seconds"]["min"]
        for rank in ("rank1", "rank8")
    )


@quantity(source=PAIRS)
@known
def pairs_gpu() -> str:
    """That timed it."""
    return str(bench.content(PAIRS)["device"]["gpu"])


@quantity("cores", source=PAIRS)
@known
def pairs_cores() -> int:
    """Of the host that timed it."""
    return int(bench.content(PAIRS)["device"]["cores"])


# Half precision.

HALF, FULL = "bfloat16", "float32"
PRECISION = ("precision-bfloat16", "precision-float32")
IN_BOTH = {"cp44": ("cp", 44), "lora4": ("lora", 4)}


def _in(dtype: str, adapter: str) -> Outcomes:
    label, size = IN_BOTH[adapter]
    runs = records(f"precision-{dtype}")
    return outcomes(run for run in runs if (run.label, run.config.size) == (label, size))


@quantity("points", 2, PRECISION, each=IN_BOTH)
def half_minus_full(adapter: str) -> Estimate:
    """Accuracy in bfloat16 minus that in float32."""
    return compare(_in(HALF, adapter), _in(FULL, adapter))


@quantity("percent", 2, PRECISION, each=itertools.product(IN_BOTH, (HALF, FULL)))
def accuracy(adapter: str, dtype: str) -> float:
    """Accuracy in each precision, on SST-2."""
    return float(np.mean(_in(dtype, adapter).right))


@quantity("adapters", source=PRECISION)
def adapters_in_both() -> int:
    """Adapters of which whole runs were made in both precisions."""
    cells = [{(run.label, run.config.size) for run in records(study)} for study in PRECISION]
    return len(set.intersection(*cells))


@quantity("adapters", source=PRECISION)
def zero_inside() -> int:
    """Adapters among these for which the interval holds zero."""
    intervals = [half_minus_full(adapter).interval() for adapter in IN_BOTH]
    return sum(low <= 0 <= high for low, high in intervals)
