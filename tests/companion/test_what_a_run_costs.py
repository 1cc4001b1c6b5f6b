"""What a run costs: each estimator on made-up times, whose results are plain, and one number of each kind by hand."""

import itertools
import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from by_hand import answers, judged, read

from companion import bench, quantities, what_a_run_costs
from companion.bench import FUSED, NOT_FUSED, NotMeasured, Place
from companion.quantities.causes import REPEATS
from companion.quantities.what_a_run_costs import (
    ALONE,
    ALONE_AT,
    COUNTS,
    GRID,
    HOURLY,
    LARGER,
    LAYERED,
    PAIRS,
    TWO_GPUS,
    WIDTHS,
    WRITERS,
    known,
    place,
    sides,
)

ROOT = Path(__file__).parents[2]
HERE = Place("smollm2", "sst2", 8)
Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes rows, with settings, as the one file of a name that there is."""
    monkeypatch.setattr(bench, "PROJECT", tmp_path)
    (tmp_path / "studies").symlink_to(ROOT / "studies")
    (tmp_path / bench.FOLDER).mkdir(parents=True)
    bench.content.cache_clear()

    def made(file: str, rows: list[dict[str, Any]], **settings: Any) -> None:
        (tmp_path / file).write_text(json.dumps({"settings": settings, "rows": rows}))

    yield made
    bench.content.cache_clear()


def timed(what: str, median: float, **row: Any) -> dict[str, Any]:
    return {"what": what, "seconds": {"median": median}, **row}


def peers(count: int, rate: float, **row: Any) -> dict[str, Any]:
    return {"what": "peers", "peers": count, "runs_per_hour": rate, **row}


def of_file(name: str, **wanted: Any) -> list[dict[str, Any]]:
    """Rows of a file of the project, read anew."""
    found = json.loads((ROOT / name).read_text(encoding="utf-8"))["rows"]
    return [row for row in found if "error" not in row and wanted.items() <= row.items()]


def number(name: str) -> float:
    found = quantities.value(f"what_a_run_costs.{name}").value
    assert not isinstance(found, str)
    return found


@pytest.mark.parametrize(
    ("more", "best"),
    [
        ([], None),
        ([peers(2, 6.0)], ("2+", 6.0)),
        ([peers(2, 6.0), peers(4, 5.0)], ("2", 6.0)),
        ([peers(2, 6.0), {"what": "peers", "peers": 4, "stopped": "out of memory"}], ("2, full", 6.0)),
        ([peers(2, 3.0)], ("1", 4.0)),
    ],
)
def test_processes_at_once(write: Write, more: list[dict[str, Any]], best: tuple[str, float] | None) -> None:
    write(HERE.hourly, [peers(1, 4.0, precision="plain"), peers(1, 1.5, precision="autocast"), *more])
    assert bench.one_process(HERE) == 4.0
    if best is None:
        with pytest.raises(NotMeasured):
            bench.best_processes(HERE)
    else:
        assert bench.best_processes(HERE) == best


def test_what_failed_is_not_measured(write: Write) -> None:
    write(HERE.hourly, [{"what": "bank", "error": "OutOfMemoryError", "runs_per_hour": 3.0}])
    with pytest.raises(NotMeasured):
        bench.first(HERE.hourly, "bank")

    def bank() -> float:
        return float(bench.first(HERE.hourly, "bank")["runs_per_hour"])

    assert known(bank)() == "not measured"


def test_a_table_says_what_was_not_measured() -> None:
    """With the project's own files, as whichever test is the first to read a chapter's number computes them all."""
    assert quantities.table(
        {"opt.rte": "a place"},
        {"best": "what_a_run_costs.best.{}.{}.b8"},
        "place",
        {"best": lambda found: f"{found:.1f}"},
    ).to_dict("records") == [{"place": "a place", "best": "not measured"}]


def test_turns_on_a_cpu(write: Write) -> None:
    """A peer's two ranks share an hour: half a run in the time of the first, half in that of the second."""
    peer = {"what": "peer", "turn": 0}
    found = [{"what": "bank", "turn": 0, "runs_per_hour": 12.0}, {"what": "bank", "turn": 1, "runs_per_hour": 9.0}]
    write(bench.CPU, [*found, peer | {"runs_per_hour": 6.0}, peer | {"runs_per_hour": 3.0}])
    assert bench.on_cpu() == [(12.0, pytest.approx(4.0))], "a turn without a peer is none"


STEPS = [
    {**timed("square matrix product", 0.5), "flop": 1000},
    {**timed("memory copy", 2.0), "moved_bytes": 500},
    *(timed("bank step", 0.06, runs=runs, compiled=FUSED, tokens=10 * runs) for runs in (4, 16)),
    *(timed("frozen backbone", 0.04, runs=runs, compiled=FUSED, tokens=10 * runs) for runs in (4, 16, 64)),
    timed("bank step", 0.16, runs=4, compiled=NOT_FUSED, tokens=40),
    timed("frozen backbone", 0.12, runs=4, compiled=NOT_FUSED, tokens=40),
    timed("matrices alone", 0.02, runs=16, compiled=FUSED, tokens=160),
]


def test_a_step(write: Write) -> None:
    write(HERE.layered, STEPS, frozen_weights=25)
    assert (bench.sizes(HERE), bench.sizes(HERE, NOT_FUSED)) == ({4, 16}, {4})
    assert bench.a_token(HERE, "bank step") == 0.06 / 160, "of the most runs that have both"
    assert bench.a_token(HERE, "frozen backbone", 4, NOT_FUSED) == 0.12 / 40
    assert (bench.peak(HERE), bench.bandwidth(HERE)) == (2000, 250)
    assert bench.ideal(HERE) == 4 * 25 / 2000
    with pytest.raises(NotMeasured):
        bench.a_token(HERE, "matrices alone", 4)
    parts = list(what_a_run_costs._parts(HERE, 4, NOT_FUSED))
    assert [part["order"] for part in parts] == [0, 2, 3], "what was not measured by itself is in the next"
    assert sum(part["length"] for part in parts) == pytest.approx(0.16 / 40 / bench.ideal(HERE))


def test_bytes_written_out() -> None:
    """Two bytes a number.

    Adapters: input and output four times each. Elementwise, Llama, forward: two norms with a residual sum, 4·576 each;
    queries (576) and keys (192), read and written; 3·1536 of the gated activation. Backward: 5·1536; the norm of the
    MLP, 5·576, and of attention, 6·576; queries and keys again. OPT: norms alike, but with one product behind the
    MLP's; ReLU reads and writes, and backward reads two and writes one.
    """
    assert bench.adapters_bytes("smollm2") == 2 * 4 * 30 * (576 + 576 + 576 + 192)
    assert bench.adapters_bytes("opt-1.3b-shape") == 2 * 4 * 24 * 4 * 2048
    assert bench.elementwise_bytes("smollm2") == 2 * 30 * (
        2 * 4 * 576 + 2 * (576 + 192) + 3 * 1536 + 5 * 1536 + (5 + 6) * 576 + 2 * (576 + 192)
    )
    assert bench.elementwise_bytes("opt-1.3b-shape") == 2 * 24 * (2 * 4 * 2048 + 2 * 8192 + 3 * 8192 + (4 + 6) * 2048)
    with pytest.raises(NotMeasured):
        bench.elementwise_bytes("minilm")


def test_dense_layers_are_all_told() -> None:
    for backbone, name in (("smollm2", "smollm2"), ("opt", "opt-1.3b")):
        assert list(bench.dense_layers(name)) == [sides(width) for known, width in WIDTHS if known == backbone]
    assert bench.dense_layers("smollm2")[576, 192] == 2 * 30, "keys and values"


BANK = {
    "what": "bank",
    "times": {"runs": 16, "startup_seconds": 50.0, "step": {"median": 0.02}},
    "a_run": {"step_seconds": 0.001, "dev_seconds": 2.0, "eval_seconds": 5.0},
}


def test_a_bank_of_other_runs(write: Write) -> None:
    """By a straight line between 4 and 16 runs; the measured bank's step is twice that of the layers' file."""
    fused = [timed("steps", step, runs=runs, compiled=FUSED) for runs, step in ((16, 0.01), (4, 0.004), (64, 0.03))]
    plain = [timed("steps", step, runs=runs, compiled=NOT_FUSED) for runs, step in ((1, 0.003), (4, 0.012))]
    write(HERE.hourly, [BANK])
    write(HERE.layered, [*fused, *plain, *STEPS], frozen_weights=25)
    assert bench.growth(HERE) == {4: 0.004, 16: 0.01, 64: 0.03}
    assert bench.bank_seconds(HERE, 10) == pytest.approx(50 + 5000 * 2 * 0.007 + 10 * 15)
    assert bench.bank_seconds(HERE, 1) == pytest.approx(5000 * 2 * 0.003 + 15), "unfused, and so without a start-up"
    assert bench.bank_seconds(HERE, 4) == pytest.approx(50 + 5000 * 2 * 0.004 + 4 * 15), "whichever is sooner"
    with pytest.raises(NotMeasured):
        bench.bank_seconds(HERE, 65)
    # If adapters cost nothing: two thirds of the step.
    assert bench.at_most(HERE) == pytest.approx(3600 / (5000 * 0.001 * 2 / 3 + 15))


def test_a_study_on_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """57 runs: all on one, 29 on each of two; on each of 100 one, or on each of a third of them two."""
    asked = []

    def seconds(at: Place, runs: int) -> float:
        asked.append(runs)
        return {"sst2": 1.0, "rte": 2.0, "boolq": 4.0}[at.task] * (10 if runs == 1 else runs)

    monkeypatch.setattr(bench, "bank_seconds", seconds)
    assert [bench.study_on_gpus("smollm2", gpus) for gpus in (1, 2, 100)] == [7 * 57, 7 * 29, 4 * 2]
    assert set(asked) == {57, 29, 1, 2}


def test_a_whole_bank() -> None:
    times = {"step": {"median": 0.8}, "dev": {"median": 20.0}, "eval_seconds": 40.0}
    assert bench.whole(times) == (4000, 140)


def test_runs_an_hour_by_hand() -> None:
    found = of_file(HERE.hourly)
    (bank,) = (row["runs_per_hour"] for row in found if row["what"] == "bank")
    rates = [(row["runs_per_hour"], row["peers"]) for row in found if row["what"] == "peers" and "stopped" not in row]
    assert number("bank_over_one.smollm2.sst2.b8") == bank / max(rate for rate, count in rates if count == 1)
    assert number("bank_over_best.smollm2.sst2.b8") == bank / max(rates)[0]


def test_a_step_by_hand() -> None:
    """Of 64 runs, whose row both were measured on, so that tokens cancel."""
    bank, frozen = (
        of_file(HERE.layered, what=what, runs=64, compiled=True)[0]["seconds"]["median"]
        for what in ("bank step", "frozen backbone")
    )
    assert number("frozen_of_step") == pytest.approx(100 * frozen / bank)


def test_added_runs_and_how_many_suffice_by_hand() -> None:
    steps = {row["runs"]: row["seconds"]["median"] for row in of_file(HERE.layered, what="steps", compiled=True)}
    assert sorted(steps) == [1, 4, 16, 64, 256]
    assert number("added.smollm2.sst2.to_1") == pytest.approx(1e3 * steps[1])
    assert number("added.smollm2.sst2.to_64") == pytest.approx(1e3 * (steps[64] - steps[16]) / 48)
    for called in LAYERED:
        found = of_file(place(*called).layered, what="steps", compiled=True)
        costs = {row["runs"]: row["seconds"]["median"] / row["runs"] for row in found}
        enough = min(runs for runs, cost in costs.items() if cost <= 1.1 * min(costs.values()))
        assert number(f"enough_runs.{'.'.join(called)}") == enough


def test_how_much_faster_a_study_is_by_hand() -> None:
    """57 runs a task at the processes' own pace, over a bank a task with its start."""
    slow = sum(57 * 3600 / number(f"best.smollm2.{task}.b8") for task in ("sst2", "rte", "boolq"))
    banks = sum(bench.bank_seconds(place("smollm2", task), 57) for task in ("sst2", "rte", "boolq"))
    assert number("study_faster.smollm2") == pytest.approx(slow / banks)
    assert number("bank_over_best.smollm2.boolq.b8") < slow / banks < number("bank_over_best.smollm2.sst2.b8")


def test_the_study_on_record_by_hand() -> None:
    """All runs of a bank have its times, and no two banks have the same ones."""
    banks = {(line["cost"]["train_seconds"], line["cost"]["evaluation_seconds"]) for line in read("smollm2")}
    assert len(banks) == 3
    assert number("study_as_run.smollm2") == pytest.approx(sum(map(sum, banks)))
    assert quantities.value("what_a_run_costs.study_as_run.opt").value == "not measured"


def test_one_adapter_alone_by_hand() -> None:
    """CP's time and memory over LoRA's, as the chart shows them."""
    shown = what_a_run_costs.alone_rows().set_index(["step", "what"])["ratio"]
    assert len(shown) == 2 * len(ALONE_AT)
    steps, adapters = (
        {(row["mode"], row["rank"], row["family"]): row for row in of_file(ALONE, what=what)}
        for what in ("step", "adapter")
    )
    for mode, rank in itertools.product(("eager", "compiled"), (1, 8)):
        at = f"{mode}, LoRA's rank {rank}"
        cp, lora = (steps[mode, rank, family]["seconds"]["median"] for family in ("cp", "lora"))
        assert shown[at, "time"] == pytest.approx(cp / lora)
        cp, lora = (adapters[mode, rank, family]["peak_memory_bytes"] for family in ("cp", "lora"))
        assert shown[at, "memory"] == pytest.approx(cp / lora)


def test_pairs_made_at_once_by_hand() -> None:
    ms = {(row["size"], row["way"]): 1e3 * row["seconds"]["median"] for row in of_file(PAIRS, what="step")}
    assert {key: round(time, 1) for key, time in ms.items()} == {
        (11, "at once"): 130.5, (11, "by layer"): 224.9, (88, "at once"): 140.1, (88, "by layer"): 233.8,
    }  # fmt: skip
    for (size, way), time in ms.items():
        rank = {11: "rank1", 88: "rank8"}[size]
        assert number(f"pairs_components.{rank}") == size
        assert number(f"pairs_ms.{rank}.{way.replace(' ', '_')}") == pytest.approx(time)
    assert number("pairs_apart") == 2
    assert number("pairs_cores") == 32


def test_a_study_in_each_way() -> None:
    """The banks of SmolLM2's study took 22.4 minutes, and one process would take 40.4 hours."""
    table = what_a_run_costs.study_table().set_index("way")
    assert table.loc["as it was run, one GPU", "SmolLM2-135M"] == "22.4 min"
    alone = sum(57 / number(f"one.smollm2.{task}.b8") for task in ("sst2", "rte", "boolq"))
    assert table.loc["one process", "SmolLM2-135M"] == f"{alone:.1f} h" == "40.4 h"
    assert table.loc["as it was run, one GPU", "OPT-1.3B's shape"] == "not measured"


def test_half_precision_by_hand() -> None:
    right: dict[str, list[list[int]]] = {}
    for dtype in ("bfloat16", "float32"):
        runs = [line for line in read(f"precision-{dtype}") if (line["label"], line["config"]["size"]) == ("cp", 44)]
        assert {line["config"]["protocol"]["dtype"] for line in runs} == {dtype}
        right[dtype] = [answers(line["outcome"]) for line in sorted(runs, key=lambda line: line["config"]["seed"])]
    half, full = right.values()
    gap = judged([[a - b for a, b in zip(*pair, strict=True)] for pair in zip(half, full, strict=True)])
    found = quantities.value("what_a_run_costs.half_minus_full.cp44")
    assert (found.value, found.low, found.high) == pytest.approx((gap["gap"], *gap["interval"]))
    assert found.n == len(half) == 20
    assert number("accuracy.cp44.float32") == pytest.approx(100 * statistics.mean(map(statistics.mean, full)))


def test_every_file_is_shown() -> None:
    later = {*REPEATS.values(), WRITERS} & set(bench.files())
    places = {place(*called).hourly for called in HOURLY} | {place(*called).layered for called in LAYERED}
    assert {*places, bench.CPU, LARGER, TWO_GPUS, GRID, ALONE, PAIRS} | later == set(bench.files())
    assert {(row["mode"], f"rank{row['rank']}") for row in of_file(ALONE, what="step")} == set(ALONE_AT)
    counts = {
        row["runs"] for called in LAYERED for row in of_file(place(*called).layered, what="steps", compiled=True)
    }
    assert sorted(counts) == list(COUNTS)
