"""What a run costs: every number and every cell of a table again, from the files of `results/bench` themselves.

Files come one by one. What has none is *not measured*, and what is claimed of it is not tested yet.
"""

import itertools
import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jupytext
import pytest
from by_hand import answers, judged, read

import companion

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "notebooks" / "what_a_run_costs.py"
FILES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "results/bench").glob("*.json")}
NOT = "not measured"
ALONE = [name for name in FILES if name.startswith("one-adapter-")]
BACKBONES = {"smollm2": "SmolLM2-135M", "opt-1.3b-shape": "OPT-1.3B's shape", "minilm": "MiniLM-L6"}
TASKS = {"sst2": "SST-2", "rte": "RTE", "boolq": "BoolQ"}
# Adapted projections: layers, then (in, out) in each; and dense ones in all.
ADAPTED = {"smollm2": (30, [(576, 576), (576, 192)]), "opt-1.3b-shape": (24, [(2048, 2048)] * 2)}
Chapters = Callable[[str], Any]
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def page(chapter: Chapters) -> Any:
    return chapter("what_a_run_costs")


def of(name: str, **wanted: Any) -> Rows:
    """The rows of a file that are of this kind; `wanted` holds `what`."""
    return [
        row
        for row in FILES.get(name, {"rows": []})["rows"]
        if "error" not in row and wanted.items() <= row.items()
    ]  # fmt: skip


def cell(value: float | None, digits: int | None = 0) -> str:
    if value is None:
        return NOT
    return f"{value:,.{digits}f}" if digits is not None else f"{value:,.{0 if value >= 100 else 1}f}"


def over(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b is not None else None


PLACE = "backbone, task, batch"


def table(page: Any, *columns: str) -> list[dict[str, str]]:
    """The rows of the table with these columns, by its head; where they say what was measured, in three."""
    (found,) = (known for known in page.tables if set(columns) <= set(known[0]))
    return unfolded(found)


def unfolded(found: list[list[str]]) -> list[dict[str, str]]:
    rows = [dict(zip(found[0], row, strict=True)) for row in found[1:]]
    for row in rows:
        if PLACE in row:
            where = row.pop(PLACE).split(", ")
            row |= dict(zip(PLACE.split(", "), where if len(where) == 3 else (*where, "", ""), strict=True))
    return [filled({name: row[name] for name in sorted(row, key=_order)}) for row in rows]


def _order(name: str) -> int:
    return PLACE.split(", ").index(name) if name in PLACE.split(", ") else 3


def filled(row: dict[str, str]) -> dict[str, str]:
    """What is said once of a row that lacks all is meant of all."""
    lacking = [name for name in row if name not in PLACE.split(", ") or row["backbone"] in ("", NOT)]
    if lacking and all(row[name] == (NOT if name == lacking[0] else "") for name in lacking):
        row |= dict.fromkeys(lacking, NOT)
    return row


def by_place(rows: list[dict[str, str]]) -> dict[tuple[str, str, str], dict[str, str]]:
    places = {(row["backbone"], row["task"], row["batch"]): row for row in rows}
    assert len(places) == len(rows)
    return places


def each(kind: str, *planned: tuple[str, str, int]) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """Files of one kind, planned or there, and how the page names what they measured."""
    there = [(f["settings"], name) for name, f in FILES.items() if name.startswith(f"{kind}-")]
    known = [(Path(s["backbone"]).name, s["task"], s["batch_size"]) for s, _ in there]
    for backbone, task, batch in dict.fromkeys([*planned, *known]):
        names = BACKBONES.get(backbone, backbone.replace("smollm2-shape", "SmolLM2-135M's shape"))
        yield f"{kind}-{backbone}-{task}-b{batch}", (names, TASKS[task], str(batch))


GRID = [(backbone, task) for backbone in ("smollm2", "opt-1.3b-shape") for task in TASKS]
HOURLY = [
    *(("smollm2", task, batch) for task in TASKS for batch in (8, 16)),
    *(("opt-1.3b-shape", task, 8) for task in TASKS),
    ("minilm", "sst2", 8),
]
LAYERED = [(b, t, 8) for b, t in GRID]


def rates(name: str) -> dict[str, Any]:
    """Runs an hour, of the bank, one peer, and the number of peers that give most."""
    peers = of(name, what="peers")
    given = {row["peers"]: 0.0 for row in peers if "runs_per_hour" in row}
    for row in peers:
        if "runs_per_hour" in row:
            given[row["peers"]] = max(given[row["peers"]], row["runs_per_hour"])
    best = max(given, key=given.__getitem__) if len(given) > 1 else None
    count = None if best is None else str(best)
    if best is not None and best == max(given):
        count += ", full" if any("memory" in row["stopped"] for row in peers if "stopped" in row) else "+"
    (bank,) = of(name, what="bank") or [{}]
    return {
        "bank": bank.get("runs_per_hour"),
        "runs": bank["times"]["runs"] if bank else None,
        "startup": bank["times"]["startup_seconds"] if bank else None,
        "with": bank.get("runs_per_hour_with_startup"),
        "one": given.get(1),
        "best": None if best is None else given[best],
        "count": count,
    }


def test_runs_an_hour(page: Any) -> None:
    shown = table(page, "bank / best")
    places = by_place(shown)
    for name, place in each("runs-per-hour", *HOURLY):
        row, found = places.pop(place), rates(name)
        assert row["runs"] == cell(found["runs"])
        assert row["bank"] == cell(found["bank"], None)
        assert row["one"] == cell(found["one"], None)
        assert row["best"] == cell(found["best"], None)
        assert row["with start-up"] == cell(found["with"], None)
        assert row["best number"] == (found["count"] or NOT)
        assert row["bank / one"] == cell(over(found["bank"], found["one"]), None)
        assert row["bank / best"] == cell(over(found["bank"], found["best"]), None)
    (row,) = places.values()
    banks = [r["runs_per_hour"] for r in of("cpu-bank", what="bank")]
    hours = defaultdict(list)
    for peer in of("cpu-bank", what="peer"):
        hours[peer["turn"]].append(1 / peer["runs_per_hour"])
    ones = [1 / statistics.mean(turn) for _, turn in sorted(hours.items())]
    ratios = [bank / one for bank, one in zip(banks, ones, strict=True)]
    bank, one, ratio = (statistics.median(found) if banks else None for found in (banks, ones, ratios))
    assert row["backbone"] == "MiniLM-L6 on a CPU"
    assert row["runs"] == ("12" if banks else NOT)
    assert row["bank"] == cell(bank, None)
    assert row["one"] == cell(one, None)
    assert row["bank / one"] == cell(ratio, None)
    blank = {row[c] for c in ("with start-up", "best number", "best", "bank / best")}
    assert blank == ({""} if banks else {NOT})


def sizes(name: str, compiled: bool) -> set[int]:
    """Numbers of runs whose bank and frozen backbone are in the file."""
    banks, frozen = (
        {row["runs"] for row in of(name, what=what, compiled=compiled)} for what in ("bank step", "frozen backbone")
    )
    return banks & frozen


def step(name: str, runs: int | None = None, compiled: bool = True) -> dict[str, Any] | None:
    """A step of a bank, the largest by default: rates in FLOP of the frozen weights a second."""
    runs = max(sizes(name, compiled), default=None) if runs is None else runs
    squares = of(name, what="square matrix product")
    if runs not in sizes(name, compiled) or not squares:
        return None
    weights = FILES[name]["settings"]["frozen_weights"]

    def rate(what: str) -> float | None:
        rows = of(name, what=what, runs=runs, compiled=compiled)
        return 4 * weights * rows[0]["tokens"] / rows[0]["seconds"]["median"] if rows else None

    (bank,) = of(name, what="bank step", runs=runs, compiled=compiled)
    (frozen,) = of(name, what="frozen backbone", runs=runs, compiled=compiled)
    return {
        "runs": runs,
        "tokens": bank["tokens"],
        "peak": squares[0]["flop"] / squares[0]["seconds"]["median"],
        "products": rate("matrices alone"),
        "frozen": rate("frozen backbone"),
        "bank": rate("bank step"),
        "frozen a token": frozen["seconds"]["median"] / frozen["tokens"],
    }


def bandwidth(name: str) -> float | None:
    copies = of(name, what="memory copy")
    return copies[0]["moved_bytes"] / copies[0]["seconds"]["median"] if copies else None


def moved(name: str, backbone: str, frozen: float) -> float | None:
    """The adapters' bytes: input and output four times each, at two bytes a number."""
    speed = bandwidth(name)
    layers, sides = ADAPTED[backbone.replace("smollm2-shape", "smollm2")]
    count = 2 * 4 * layers * sum(a + b for a, b in sides)
    return None if speed is None else 1 + count / speed / frozen


def test_steps(page: Any) -> None:
    places = by_place(table(page, "moved"))
    for name, place in each("frozen-backbone", *LAYERED):
        row, fused = places.pop(place), step(name)
        if fused is None:
            assert set(list(row.values())[3:]) == {NOT}
            continue
        backbone = Path(FILES[name]["settings"]["backbone"]).name
        assert row["runs"] == str(fused["runs"])
        assert row["tokens a step"] == cell(fused["tokens"])
        for column in ("products", "frozen", "bank"):
            share = over(fused[column], fused["peak"])
            assert row[f"{column}, %"] == cell(None if share is None else 100 * share)
        share = over(fused["frozen"], fused["products"])
        assert row["frozen / products, %"] == cell(None if share is None else 100 * share)
        assert row["bank / frozen"] == cell(fused["frozen"] / fused["bank"], 2)
        assert row["moved"] == cell(moved(name, backbone, fused["frozen a token"]), 2)
        both = max(sizes(name, True) & sizes(name, False), default=None)
        kept, lost = (step(name, both, compiled)["frozen"] if both else None for compiled in (True, False))
        assert row["unfused / fused"] == cell(over(kept, lost), 2)
    assert places == {}


def test_kinds_of_kernels(page: Any) -> None:
    found = []
    for name, place in each("frozen-backbone", *LAYERED):
        largest = (step(name) or {}).get("runs")
        for row in of(name, what="kernels", compiled=True, runs=largest):
            assert set(row["kinds"]) == set(KINDS)
            took = [f"{1e3 * row['kinds'][kind]['seconds']:.1f}" for kind in KINDS]
            copied = cell(at_a_copys_speed(name), 1) if row["of"] == "frozen backbone" else ""
            found.append([*place, row["of"], *took, copied])
    assert [list(row.values()) for row in table(page, "what", *KINDS)] == (found or [[NOT] * 9])


def at_a_copys_speed(name: str) -> float | None:
    """Milliseconds of the frozen backbone's elementwise work on its largest row, by the bytes that it has to move.

    Numbers a token and layer, written out. Llama, forward: two norms with a residual sum, 4·576 each; queries (576)
    and keys (192), read and written; 3·1536 of the gated activation. Backward: 5·1536; the norm of the MLP, 5·576,
    and of attention, 6·576; queries and keys again. OPT: norms alike, but with one product behind the MLP's; ReLU
    reads and writes, and backward reads two and writes one.
    """
    numbers = {
        "smollm2": 30 * (2 * 4 * 576 + 2 * (576 + 192) + 3 * 1536 + 5 * 1536 + (5 + 6) * 576 + 2 * (576 + 192)),
        "opt-1.3b-shape": 24 * (2 * 4 * 2048 + 2 * 8192 + 3 * 8192 + (4 + 6) * 2048),
    }[Path(FILES[name]["settings"]["backbone"]).name.replace("smollm2-shape", "smollm2")]
    speed = bandwidth(name)
    return None if speed is None else 1e3 * 2 * numbers * step(name)["tokens"] / speed


KINDS = ["matrix products", "attention", "adapters' products", "elementwise"]


def test_what_is_said_of_larger_batches() -> None:
    for task in ("sst2", "rte", "boolq"):
        small, large = (rates(f"runs-per-hour-smollm2-{task}-b{size}") for size in (8, 16))
        assert large["one"] > 0.9 * small["one"], "in little or no more time"
        assert 1.7 < small["bank"] / large["bank"] < 2.1, "about twice as long"
        for key in ("one", "best"):
            assert large["bank"] / large[key] < small["bank"] / small[key], "the less a bank has to give"
    for size in (8, 16):
        of_tasks = [rates(f"runs-per-hour-smollm2-{task}-b{size}") for task in ("sst2", "rte", "boolq")]
        ratios = [found["bank"] / found["one"] for found in of_tasks]
        assert ratios == sorted(ratios, reverse=True), "and the longer its texts"


def test_what_a_bank_can_give_at_most(page: Any) -> None:
    rows = table(page, "at most")
    found = []
    for name, place in each("runs-per-hour", *HOURLY):
        for bank in of(name, what="bank"):
            core, one = (
                step(name.replace("runs-per-hour", "frozen-backbone"), bank["times"]["runs"]),
                rates(name)["one"],
            )
            if core and one:
                free = bank["a_run"]["step_seconds"] * core["bank"] / core["frozen"]
                a_run = 5000 * free + 5 * bank["a_run"]["dev_seconds"] + bank["a_run"]["eval_seconds"]
                ratios = [cell(ratio) for ratio in (bank["runs_per_hour"] / one, 3600 / a_run / one)]
                found.append([*place, str(bank["times"]["runs"]), *ratios])
    assert [list(row.values()) for row in rows] == (found or [[NOT] * 6])


def test_widths(page: Any) -> None:
    rows = [tuple(row.values()) for row in table(page, "FLOP a byte")]
    small, large = "SmolLM2-135M", "OPT-1.3B"
    assert rows == [
        (small, "576 to 576", "60", f"{576 / 2:.0f}"),
        (small, "576 to 192", "60", f"{1 / (1 / 576 + 1 / 192):.0f}"),
        (small, "576 to 1536", "60", f"{1 / (1 / 576 + 1 / 1536):.0f}"),
        (small, "1536 to 576", "30", f"{1 / (1 / 576 + 1 / 1536):.0f}"),
        (large, "2048 to 2048", "96", f"{2048 / 2:.0f}"),
        (large, "2048 to 8192", "24", f"{1 / (1 / 2048 + 1 / 8192):.0f}"),
        (large, "8192 to 2048", "24", f"{1 / (1 / 2048 + 1 / 8192):.0f}"),
    ]


def growth(name: str, compiled: bool = True) -> dict[int, float]:
    return {row["runs"]: row["seconds"]["median"] for row in of(name, what="steps", compiled=compiled)}


def test_more_runs(page: Any) -> None:
    counts = sorted({runs for name, _ in each("frozen-backbone", *LAYERED) for runs in growth(name)})
    (shown,) = (t for t in page.tables if t[0][0] == PLACE and all(column.startswith("to ") for column in t[0][1:]))
    assert shown[0][1:] == [f"to {runs}" for runs in counts]
    places = by_place(unfolded(shown))
    banks = by_place(table(page, "runs that suffice"))
    for name, place in each("frozen-backbone", *LAYERED):
        steps, row, size = growth(name), places.pop(place), banks.pop(place)
        last = (0, 0.0)
        for runs in sorted(steps):
            added = (steps[runs] - last[1]) / (runs - last[0])
            assert float(row[f"to {runs}"].replace(",", "")) == pytest.approx(1e3 * added, abs=6e-4)
            last = runs, steps[runs]
        assert all(row[f"to {runs}"] == NOT for runs in counts if runs not in steps)

        memory = {r["runs"]: r["peak_memory_bytes"] / 1e9 for r in of(name, what="memory", compiled=True)}
        assert size["largest bank"] == (str(max(memory)) if memory else NOT)
        assert size["GB reserved for it"] == cell(memory[max(memory)] if memory else None, 1)
        enough = None
        if len(steps) > 1:
            least = min(steps[runs] / runs for runs in steps)
            enough = min(runs for runs in steps if steps[runs] / runs <= 1.1 * least)
        assert size["runs that suffice"] == (NOT if enough is None else str(enough))
        assert size["GB reserved for these"] == cell(memory.get(enough), 1)
    assert places == banks == {}


def test_longer_texts(page: Any) -> None:
    found = []
    for backbone in ("smollm2", "opt-1.3b-shape"):
        names = {f"frozen-backbone-{backbone}-{task}-b8": (BACKBONES[backbone], TASKS[task], "8") for task in TASKS}
        there = [set(growth(name)) for name in names if name in FILES]
        common = max(set.intersection(*there), default=None) if there else None
        for name, place in names.items():
            for row in of(name, what="steps", compiled=True, runs=common):
                median, tokens = row["seconds"]["median"], row["real_tokens"]
                a_run = cell(tokens / common), cell(1e3 * median / common, 3), cell(1e6 * median / tokens, 2)
                found.append([*place, str(common), *a_run])
    rows = [list(row.values()) for row in table(page, "µs a token")]
    assert rows == (found or [[NOT] * 7])


def test_larger_adapters(page: Any) -> None:
    found = []
    for name, place in each("components", ("smollm2", "sst2", 8)):
        steps = [(row["seconds"]["median"], row) for row in of(name, what="bank step")]
        for step, row in steps:
            runs = FILES[name]["settings"]["runs"]
            adapter = f"{ {'lora': 'LoRA', 'cp': 'CP'}[row['family']] } {row['size']}"
            ratio = step / min(step for step, _ in steps)
            found.append(
                [*place, adapter, cell(row["parameters"]), str(runs), cell(1e3 * step / runs, 3), cell(ratio, 2)]
            )
    rows = [list(row.values()) for row in table(page, "over the least")]
    assert rows == (found or [[NOT] * 8])


def test_two_gpus(page: Any) -> None:
    places = by_place(table(page, "one / two"))
    for name, place in each("two-gpus", ("smollm2", "rte", 8)):
        row = places.pop(place)
        whole = defaultdict(list)
        for what in ("one GPU", "two GPUs"):
            for found in of(name, what=what):
                t = found["times"]
                whole[what].append(5000 * t["step"]["median"] + 5 * t["dev"]["median"] + t["eval_seconds"])
        one = whole["one GPU"][0] if whole["one GPU"] else None
        two = max(whole["two GPUs"]) if len(whole["two GPUs"]) == 2 else None
        assert row["one GPU, s"] == cell(one)
        assert row["two GPUs, s"] == cell(two)
        assert row["one / two"] == cell(over(one, two), 2)
    assert places == {}


def took(seconds: float | None) -> str:
    if seconds is None:
        return NOT
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def bank_of(backbone: str, task: str, runs: int) -> float | None:
    """Seconds of a task's bank, by a straight line between the banks that were measured: fused or not."""
    name = f"frozen-backbone-{backbone}-{task}-b8"
    banks, fused = of(f"runs-per-hour-{backbone}-{task}-b8", what="bank"), growth(name)
    if not banks or banks[0]["times"]["runs"] not in fused:
        return None
    times, a_run = banks[0]["times"], banks[0]["a_run"]
    costs = []
    for steps, startup in ((fused, times["startup_seconds"]), (growth(name, False), 0.0)):
        below, above = [n for n in steps if n <= runs], [n for n in steps if n >= runs]
        if below and above:
            low, high = max(below), min(above)
            part = 0 if low == high else (runs - low) / (high - low)
            dearer = (steps[low] + part * (steps[high] - steps[low])) / fused[times["runs"]]
            evaluations = runs * (5 * a_run["dev_seconds"] + a_run["eval_seconds"])
            costs.append(startup + 5000 * dearer * times["step"]["median"] + evaluations)
    return min(costs, default=None)


def test_a_whole_study(page: Any) -> None:
    rows = {row["backbone"]: row for row in table(page, "best number of them")}
    assert set(rows) == {BACKBONES["smollm2"], BACKBONES["opt-1.3b-shape"]}
    for backbone in ("smollm2", "opt-1.3b-shape"):
        row = rows[BACKBONES[backbone]]
        for column, kind in (("one process", "one"), ("best number of them", "best")):
            hourly = [rates(f"runs-per-hour-{backbone}-{task}-b8")[kind] for task in TASKS]
            assert row[column] == took(None if None in hourly else sum(57 * 3600 / rate for rate in hourly))
        of_study = read({"smollm2": "smollm2"}.get(backbone, "paper"))
        banks = {(r["config"]["task"], r["cost"]["train_seconds"], r["cost"]["evaluation_seconds"]) for r in of_study}
        whole = len(of_study) == 3 * 57 and len(banks) == 3
        assert whole == (backbone == "smollm2")
        assert row["as run, 1 GPU"] == took(sum(train + judged for _, train, judged in banks) if whole else None)
        # 57 runs: all on one, 29 on each of two, one on each of a hundred or two on each of a third of them.
        ways = {"banks, 1 GPU": [(57, sum)], "banks, 2 GPUs": [(29, sum)], "banks, 100 GPUs": [(1, sum), (2, max)]}
        for column, possible in ways.items():
            costs = [([bank_of(backbone, task, runs) for task in TASKS], combined) for runs, combined in possible]
            known = [combined(found) for found, combined in costs if None not in found]
            assert row[column] == took(min(known, default=None))


def grid(found: list[dict[str, Any]]) -> list[dict[str, str | None]]:
    """What the page says of the paper's grid, by the rows of its file."""
    expected = []
    for task, name in TASKS.items():
        proofs = {r["way"]: r["runs"] for r in found if (r["what"], r["task"]) == ("records", task)}
        (times,) = [r["times"] for r in found if (r["what"], r["task"]) == ("bank", task)] or [None]
        row = {"task": name, "runs": "57", "records, command": cell(proofs.get("command")), "start-up, s": NOT}
        row["records, papermill"] = cell(proofs.get("papermill"))
        row |= dict.fromkeys(("steps", "evaluations", "all"), NOT)
        if times:
            steps, evaluations = 5000 * times["step"]["median"], 5 * times["dev"]["median"] + times["eval_seconds"]
            row |= {"start-up, s": cell(times["startup_seconds"]), "steps": took(steps)}
            row |= {"evaluations": took(evaluations), "all": took(steps + evaluations + times["startup_seconds"])}
        expected.append(row)
    return expected


def test_the_papers_grid(page: Any) -> None:
    assert page.rows("records, command") == grid(FILES["grid-paper"]["rows"] if "grid-paper" in FILES else [])


def test_the_papers_grid_from_a_made_up_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"startup_seconds": 60.4, "step": {"median": 0.8}, "dev": {"median": 20.0}, "eval_seconds": 40.0}
    found = [
        {"what": "records", "task": "sst2", "way": "command", "runs": 57},
        {"what": "records", "task": "sst2", "way": "papermill", "runs": 56},
        {"what": "bank", "task": "sst2", "times": times},
        {"what": "records", "task": "rte", "way": "command", "runs": 57},
    ]
    made_up = {
        "date": "2026-01-01T00:00:00+00:00",
        "device": {"kind": "cuda", "gpu": "another", "cpu": "one", "torch_threads": 1},
        "versions": {"git_commit": None, "git_clean": None, "packages": {"torch": "", "transformers": "", "peft": ""}},
        "settings": {"study": "paper"},
        "rows": found,
    }  # fmt: skip
    left = executed(tmp_path, monkeypatch, grid_paper=made_up)
    shown = [{name: left["told"](value, "{:.0f}") for name, value in row.items()} for row in left["of_grid"]]
    assert shown == grid(found)
    assert shown[0]["all"] == "1.2 h"


def test_one_adapter(page: Any) -> None:
    rows = table(page, "components", "kernels")
    found = []
    for name in sorted(FILES):
        if name in ALONE:
            for cp in of(name, what="step", family="cp"):
                setting = {key: cp[key] for key in ("mode", "rank", "tokens")}
                (lora,) = of(name, what="step", family="lora", **setting)
                made = [of(name, what="adapter", family=family, **setting)[0] for family in ("lora", "cp")]
                before, after = lora["seconds"]["median"], cp["seconds"]["median"]
                memory, kernels = (
                    cell(over(made[1][key], made[0][key]), digits)
                    for key, digits in (("peak_memory_bytes", 3), ("kernels", 2))
                )
                found.append(
                    [cp["mode"], str(cp["rank"]), str(made[1]["size"]), str(cp["tokens"]), f"{after / before:.2f}",
                     memory, kernels, f"{1e3 * before:.1f}", f"{1e3 * after:.1f}"]
                )  # fmt: skip
    assert [list(row.values())[1:] for row in rows] == (found or [[NOT] * 9])
    compiled = [row for row in rows if row["step"] == "compiled"]
    assert any(float(row["time"]) > 1 > float(row["kernels"]) for row in compiled), "longer with fewer kernels"
    assert all(int(row["components"]) % 8 for row in compiled if float(row["kernels"]) > 1), "an odd size"


def precision() -> dict[tuple[str, int], dict[str, list[list[int]]]]:
    """Right or wrong by adapter and precision, seed by seed and item by item."""
    found: dict[tuple[str, int], dict[str, dict[int, list[int]]]] = {}
    for dtype in ("bfloat16", "float32"):
        for line in read(f"precision-{dtype}"):
            assert line["config"]["protocol"]["dtype"] == dtype
            adapter = line["label"], line["config"]["size"]
            of_dtype = found.setdefault(adapter, {"bfloat16": {}, "float32": {}})[dtype]
            of_dtype[line["config"]["seed"]] = answers(line["outcome"])
    for both in found.values():
        assert both["bfloat16"].keys() == both["float32"].keys()
    return {
        adapter: {dtype: [by_seed[seed] for seed in sorted(by_seed)] for dtype, by_seed in both.items()}
        for adapter, both in found.items()
    }


def test_precision(page: Any) -> None:
    rows = {row["adapter"]: row for row in page.rows("95 % interval")}
    measured = precision()
    assert len(measured) == 2
    inside = 0
    for (label, size), both in measured.items():
        row = rows.pop(f"{ {'lora': 'LoRA', 'cp': 'CP'}[label] } {size}")
        half, full = both["bfloat16"], both["float32"]
        gap = judged([[a - b for a, b in zip(*pair, strict=True)] for pair in zip(half, full, strict=True)])
        assert row["seeds"] == str(len(half))
        for dtype, runs in both.items():
            assert row[f"{dtype}, %"] == cell(100 * statistics.mean(map(statistics.mean, runs)), 2)
        assert row["difference, points"] == f"{gap['gap']:+.2f}"
        low, high = map(float, row["95 % interval"].split(" to "))
        assert (low, high) == pytest.approx(gap["interval"], abs=0.006)
        inside += low <= 0 <= high
    assert rows == {}
    assert page.glued["precision"] == f"Zero lies within the interval for {inside} of {len(measured)} adapters."


def test_sources(page: Any) -> None:
    rows = {row["file"]: row for row in table(page, "file", "commit")}
    if not FILES:
        assert rows.keys() == {NOT}
        return
    assert rows.keys() == FILES.keys()
    for name, file in FILES.items():
        row, versions = rows[name], file["versions"]
        cpu = f"{file['device']['cpu']}, {file['device']['torch_threads']} threads"
        assert row["device"] == file["device"].get("gpu", cpu)
        assert row["commit"].startswith(versions["git_commit"][:8])
        assert ("changed" in row["commit"]) == (not versions["git_clean"])
        assert row["date"] == file["date"].partition("T")[0]
        assert row["failed"] == str(sum("error" in r for r in file["rows"]))
    used = {"{torch}, {transformers}, {peft}".format(**file["versions"]["packages"]) for file in FILES.values()}
    assert set(page.glued["packages"].split("; ")) == used


def span(values: list[float], digits: int) -> str:
    if not values:
        return NOT
    low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return low if low == high else f"{low} to {high}"


def answer() -> tuple[str, str]:
    name = "smollm2-sst2-b8"
    found = rates(f"runs-per-hour-{name}")
    core = step(f"frozen-backbone-{name}", found["runs"])
    speed = "How many runs an hour a bank gives beside Hugging Face's Trainer is not measured yet."
    if None not in (found["bank"], found["one"], found["best"]):
        speed = (
            f"On SST-2, a bank of {found['runs']} runs of SmolLM2-135M gives {cell(found['bank'])} runs an hour on one"
            f" {FILES[f'runs-per-hour-{name}']['device']['gpu']} once it has started ({cell(found['with'])} with its"
            f" start-up), which is {cell(found['bank'] / found['one'])} times as many"
            " as one process of Hugging Face's Trainer with PEFT and"
            f" {cell(found['bank'] / found['best'])} times as many as the best number of such processes at once."
        )
    floor = "How much of a step is the frozen backbone's own work is not measured yet either."
    if core is not None and core["products"] is not None:
        floor = (
            f"Of that bank's step {cell(100 * core['bank'] / core['frozen'])} % is the frozen backbone's own forward"
            f" and backward pass, of which {cell(100 * core['frozen'] / core['products'])} % are matrix products and"
            " the rest mostly waits for memory."
        )
    return speed, floor


def test_numbers(page: Any) -> None:
    hourly = [rates(name) for name, _ in each("runs-per-hour", *HOURLY)]
    banks = [found for found in hourly if found["bank"] is not None]
    waste, waits, ridge, over_copy = [], [], [], []
    for name, _ in each("frozen-backbone", *LAYERED):
        if "smollm2" in name:
            largest = (step(name) or {}).get("runs")
            for row in of(name, what="kernels", compiled=True, runs=largest, of="frozen backbone"):
                elementwise = 1e3 * row["kinds"]["elementwise"]["seconds"]
                over_copy.append(elementwise / at_a_copys_speed(name))
                whole = 1e3 * sum(kind["seconds"] for kind in row["kinds"].values())
                assert elementwise - at_a_copys_speed(name) < whole / 10, "by less than a tenth"
        for row in of(name, what="steps", compiled=True):
            if row["runs"] >= 16:
                waste.append(100 * (row["computed_tokens"] - row["real_tokens"]) / row["real_tokens"])
                for alone in of(name, what="launches alone", compiled=True, runs=row["runs"]):
                    idle = row["seconds"]["median"] - alone["seconds"]["median"]
                    waits.append(max(0.0, 100 * idle / row["seconds"]["median"]))
        found = step(name)
        if found and found["peak"] and bandwidth(name):
            ridge.append(found["peak"] / bandwidth(name))
    autocast, padding = [], []
    for name, _ in each("runs-per-hour", *HOURLY):
        one = {row["precision"]: row["own_step"]["median"] for row in of(name, what="peers", peers=1)}
        if {"plain", "autocast"} <= one.keys():
            autocast.append(one["autocast"] / one["plain"])
        peers = [row for row in of(name, what="peers") if "stopped" not in row]
        padding += [row["padded_tokens"] / row["real_tokens"] for row in peers]
    mps = {FILES[name]["settings"]["mps"] for name in FILES if name.startswith("runs-per-hour-")}
    threads = str(FILES["cpu-bank"]["device"]["torch_threads"]) if "cpu-bank" in FILES else NOT
    expected = {
        "answer_speed": answer()[0],
        "answer_floor": answer()[1],
        "steps": "5,000",
        "eval_every": "1,000",
        "autocast": span(autocast, 1),
        "padding": span(padding, 1),
        "large": "16",
        "mps": {0: NOT, 2: "in part with"}.get(len(mps), "with" if True in mps else "without"),
        "threads": threads,
        "startup": span([found["startup"] for found in banks], 0),
        "over_copy": span(over_copy, 2),
        "waste": span(waste, 1),
        "waits": span(waits, 1),
        "ridge": span(ridge, 0),
        "narrow": "576",
        "wide": "2,048",
        "row_tokens": "32,768",
        "study_runs": "57",
        "study_tasks": "3",
        # Four factors and the weights of their products on each projection, or two matrices.
        "cp_tensors": str(60 * 5) if ALONE else NOT,
        "lora_tensors": str(60 * 2) if ALONE else NOT,
    }
    glued = dict(page.glued)
    for name in ("precision", "packages"):  # tested above
        glued.pop(name)
    assert glued == expected


def test_what_is_said_of_steps(page: Any) -> None:
    for name, _ in each("frozen-backbone", *LAYERED):
        ratios = {runs: core["frozen"] / core["bank"] for runs in sizes(name, True) if (core := step(name, runs))}
        # A bank does what the frozen backbone does, but for what is below the first layer's adapters.
        assert all(ratio > 0.99 for ratio in ratios.values())
        # The ratio falls as rows grow.
        large = [ratio for runs, ratio in sorted(ratios.items()) if runs >= 16]
        assert all(after < before + 0.02 for before, after in itertools.pairwise(large))
        core = step(name)
        if core and bandwidth(name):
            # The products of SmolLM2's keys are below what the device does for a byte, its others not, nor OPT-1.3B's.
            ridge = core["peak"] / bandwidth(name)
            assert 1 / (1 / 576 + 1 / 192) < ridge < 576 / 2
    for task in TASKS:
        small, large = (f"frozen-backbone-{backbone}-{task}-b8" for backbone in ("smollm2", "opt-1.3b-shape"))
        if step(small) and step(large):
            shares = [step(name)["frozen"] / step(name)["peak"] for name in (small, large)]
            assert shares[0] < shares[1]
    # As many threads as cores, so that a second peer finds none free.
    if "cpu-bank" in FILES:
        assert FILES["cpu-bank"]["device"]["torch_threads"] == FILES["cpu-bank"]["device"]["cores"]
    # What is said of autocast: that it makes a step longer.
    assert all(float(end) > 1 for end in page.glued["autocast"].split(" to ") if end != NOT)


def test_charts_are_there_and_quiet(page: Any) -> None:
    specs = page.charts
    said = " ".join(spec["description"] for spec in specs)
    assert ("runs an hour" in said) == any(name.startswith(("runs-per-hour", "cpu-bank")) for name in FILES)
    grown = any(len(growth(name)) > 1 for name, _ in each("frozen-backbone", *LAYERED))
    assert ("against the number of runs" in said) == grown
    assert len(specs) + sum(t == [["chart"], [NOT]] for t in page.tables) == 3


def executed(folder: Path, monkeypatch: pytest.MonkeyPatch, **files: Any) -> dict[str, Any]:
    """What the chapter's code leaves behind, with these results and no others; what it glued under `glued`."""
    for name in ("studies", "book"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "results" / "bench").mkdir(parents=True)
    for name, content in files.items():
        path = folder / "results" / "bench" / f"{name.replace('_', '-')}.json"
        path.write_text(json.dumps(content), encoding="utf-8")
    glued: dict[str, Any] = {}
    monkeypatch.setattr(companion, "PROJECT", folder)
    monkeypatch.setattr("myst_nb.glue", lambda name, value, display: glued.__setitem__(name, value))
    left: dict[str, Any] = {"glued": glued}
    for code in (c.source for c in jupytext.read(SCRIPT).cells if c.cell_type == "code"):
        exec(code, left)
    return left


FIXED = {"steps", "eval_every", "large", "narrow", "wide", "row_tokens", "study_runs", "study_tasks"}


def test_without_files_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    glued = executed(tmp_path, monkeypatch)["glued"]
    assert all("not measured" in value.lower() for name, value in glued.items() if name not in FIXED)


def test_half_a_file_gives_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that failed on its way: made-up times, and no bank."""
    made_up = {
        "date": "2026-01-01T00:00:00+00:00",
        "device": {"kind": "cuda", "gpu": "another", "cpu": "one", "torch_threads": 1},
        "versions": {"git_commit": None, "git_clean": None, "packages": {"torch": "", "transformers": "", "peft": ""}},
        "settings": {"backbone": "smollm2", "task": "sst2", "batch_size": 8, "mps": False, "frozen_weights": 10},
    }  # fmt: skip
    seconds = {"median": 0.5, "min": 0.4, "max": 0.6, "repeats": 3, "unit": "s"}
    one = {"what": "peers", "precision": "plain", "own_step": seconds, "padded_tokens": 30, "real_tokens": 10}
    peers = [
        one | {"peers": 1, "runs_per_hour": 4.0},
        one | {"peers": 2, "runs_per_hour": 6.0},
        {"what": "peers", "peers": 4, "stopped": "out of memory"},
        {"what": "bank", "error": "OutOfMemoryError"},
    ]
    steps = [
        {"what": "square matrix product", "flop": 2 * 8192**3, "seconds": seconds},
        {"what": "steps", "runs": 64, "compiled": True, "seconds": seconds, "real_tokens": 10, "computed_tokens": 11},
        {"what": "bank step", "runs": 64, "compiled": True, "seconds": seconds, "tokens": 11},
        {"what": "64 runs, compiled=True", "error": "RuntimeError"},
    ]
    left = executed(
        tmp_path,
        monkeypatch,
        **{"runs_per_hour_smollm2_sst2_b8": made_up | {"rows": peers}},
        **{"frozen_backbone_smollm2_sst2_b8": made_up | {"rows": steps}},
    )
    (first, *others) = left["speeds"]
    assert first["one"] == 4.0
    assert first["best number"] == "2, full"
    assert first["bank / best"] is None
    assert all(row.get("best") is None for row in others)
    assert "not measured yet" in left["glued"]["answer_speed"]
    assert "not measured yet" in left["glued"]["answer_floor"]
    assert left["glued"]["waste"] == "10.0"
    assert left["glued"]["waits"] == NOT
