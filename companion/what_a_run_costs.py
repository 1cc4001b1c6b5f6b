"""Tables and charts of the cost of a run, from the numbers in `companion.quantities.what_a_run_costs`."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import altair as alt
import pandas as pd

from companion import bench, quantities
from companion.bench import FUSED, NOT_FUSED, NotMeasured, Place
from companion.quantities.what_a_run_costs import (
    ADAPTERS,
    ALONE_AT,
    COUNTS,
    HOURLY,
    IN_BOTH,
    KINDS,
    LAYERED,
    TASKS,
    WHAT,
    WIDTHS,
    WRITING,
    place,
    sides,
)
from companion.wording import duration
from cpadapt.analysis.charts import FURTHER_COLOURS, backbone_name, cell_name, task_name

PLACE = "backbone, task, batch"
"""Three columns in one, for narrow screens."""


def hourly_table() -> pd.DataFrame:
    """Runs an hour of a bank, of one process and of the best number of processes."""
    columns = {
        "runs": "what_a_run_costs.bank_runs.{}.{}.{}", "bank / one": "what_a_run_costs.bank_over_one.{}.{}.{}",
        "bank / best": "what_a_run_costs.bank_over_best.{}.{}.{}", "bank": "what_a_run_costs.bank.{}.{}.{}",
        "with start-up": "what_a_run_costs.bank_with_startup.{}.{}.{}", "one": "what_a_run_costs.one.{}.{}.{}",
        "best": "what_a_run_costs.best.{}.{}.{}", "best number": "what_a_run_costs.best_number.{}.{}.{}",
    }  # fmt: skip
    on_cpu = {
        "runs": "what_a_run_costs.cpu_runs", "bank / one": "what_a_run_costs.cpu_bank_over_one",
        "bank": "what_a_run_costs.cpu_bank", "one": "what_a_run_costs.cpu_one",
    }  # fmt: skip
    brief = dict.fromkeys(columns.keys() - {"runs", "best number"}, _brief)
    tables = [
        quantities.table(_places(HOURLY), columns, PLACE, brief),
        quantities.table({"": f"{backbone_name('minilm')} on a CPU, {task_name('sst2')}, 8"}, on_cpu, PLACE, brief),
    ]
    return pd.concat(tables).fillna("")


def step_table() -> pd.DataFrame:
    """A bank's step beside the frozen backbone's and the device's speed."""
    columns = {
        "runs": "what_a_run_costs.most_runs.{}.{}", "bank / frozen": "what_a_run_costs.bank_over_frozen.{}.{}",
        "moved": "what_a_run_costs.moved.{}.{}", "unfused / fused": "what_a_run_costs.unfused_over_fused.{}.{}",
        "products, %": "what_a_run_costs.at_peak.{}.{}.products", "frozen, %": "what_a_run_costs.at_peak.{}.{}.frozen",
        "bank, %": "what_a_run_costs.at_peak.{}.{}.bank",
        "frozen / products, %": "what_a_run_costs.products_of_frozen.{}.{}",
        "tokens a step": "what_a_run_costs.tokens.{}.{}",
    }  # fmt: skip
    return quantities.table(_places(LAYERED), columns, PLACE)


def kernel_table() -> pd.DataFrame:
    """The time of each kind of kernel."""
    columns = {called: f"what_a_run_costs.kernels.{{}}.{{}}.{{}}.{kind}" for kind, called in KINDS.items()}
    rows = {f"{end}.{part}": (called, what) for end, called in _places(LAYERED).items() for part, what in WHAT.items()}
    table = quantities.table(rows, columns, (PLACE, "what"))
    copied = quantities.table(_places(LAYERED), {"at a copy's speed": "what_a_run_costs.at_copys_speed.{}.{}"}, PLACE)
    copied["what"] = WHAT["frozen"]
    return table.merge(copied, how="left").fillna("")


def limit_table() -> pd.DataFrame:
    """The runs an hour of a bank if adapters cost nothing."""
    columns = {
        "runs": "what_a_run_costs.bank_runs.{}.{}.b8", "bank / one": "what_a_run_costs.bank_over_one.{}.{}.b8",
        "at most": "what_a_run_costs.at_most.{}.{}",
    }  # fmt: skip
    return quantities.table(_places(LAYERED), columns, PLACE)


def width_table() -> pd.DataFrame:
    """The widths of two backbones' products."""
    rows = {}
    for backbone, width in WIDTHS:
        n, m = sides(width)
        rows[f"{backbone}.{width}"] = (_backbone(place(backbone, "sst2")).removesuffix("'s shape"), f"{n} to {m}")
    columns = {"matrices": "what_a_run_costs.matrices.{}.{}", "FLOP a byte": "what_a_run_costs.flop_a_byte.{}.{}"}
    return quantities.table(rows, columns, ("backbone", "width"))


def added_table() -> pd.DataFrame:
    """The cost of each added run in a step."""
    columns = {f"to {count}": f"what_a_run_costs.added.{{}}.{{}}.to_{count}" for count in COUNTS}
    return quantities.table(_places(LAYERED), columns, PLACE)


def length_table() -> pd.DataFrame:
    """The cost of a token by the length of the texts."""
    columns = {
        "runs": "what_a_run_costs.compared_runs.{}.{}", "tokens a run": "what_a_run_costs.tokens_a_run.{}.{}",
        "ms a run and step": "what_a_run_costs.ms_a_run.{}.{}", "µs a token": "what_a_run_costs.us_a_token.{}.{}",
    }  # fmt: skip
    return quantities.table(_places(LAYERED), columns, PLACE)


def size_table() -> pd.DataFrame:
    """The cost of a larger adapter."""
    (called,) = _places([("smollm2", "sst2")]).values()
    rows = {adapter: (called, cell_name(*cell)) for adapter, cell in ADAPTERS.items()}
    columns = {
        "parameters": "what_a_run_costs.scalars.{}", "runs": "what_a_run_costs.runs_of_a_size",
        "ms a run and step": "what_a_run_costs.ms_of_a_size.{}",
        "over the least": "what_a_run_costs.over_least_size.{}",
    }  # fmt: skip
    return quantities.table(rows, columns, (PLACE, "adapter"))


def enough_table() -> pd.DataFrame:
    """The number of runs that suffices, and the memory that they need."""
    columns = {
        "runs that suffice": "what_a_run_costs.enough_runs.{}.{}",
        "GB reserved for these": "what_a_run_costs.enough_memory.{}.{}",
        "largest bank": "what_a_run_costs.largest_bank.{}.{}",
        "GB reserved for it": "what_a_run_costs.largest_memory.{}.{}",
    }
    return quantities.table(_places(LAYERED), columns, PLACE)


def two_gpus_table() -> pd.DataFrame:
    """A study on one GPU and on two."""
    columns = {
        "runs": "what_a_run_costs.two_gpus_runs", "one GPU, s": "what_a_run_costs.one_gpu_seconds",
        "two GPUs, s": "what_a_run_costs.two_gpus_seconds", "one / two": "what_a_run_costs.one_over_two",
    }  # fmt: skip
    return quantities.table(_places([("smollm2", "rte")]), columns, PLACE)


def writers_table() -> pd.DataFrame:
    """A study that several processes measure into one folder."""
    columns = {
        "time, s": "what_a_run_costs.writers_seconds.{}", "one / these": "what_a_run_costs.writers_faster.{}",
        "CPU of the longest, s": "what_a_run_costs.writers_cpu.{}",
        "doubled": "what_a_run_costs.writers_doubled.{}", "lost": "what_a_run_costs.writers_lost.{}",
    }  # fmt: skip
    return quantities.table(dict(zip(WRITING, map(str, WRITING.values()), strict=True)), columns, "processes")


def study_table() -> pd.DataFrame:
    """The time of a study of the paper's size, a row for each way to train it."""
    rows = {
        "what_a_run_costs.study_of_processes.{}.one": "one process",
        "what_a_run_costs.study_of_processes.{}.best": "best number of them",
        "what_a_run_costs.study_of_banks.{}.gpus_1": "banks, one GPU",
        "what_a_run_costs.study_as_run.{}": "as it was run, one GPU",
        "what_a_run_costs.study_of_banks.{}.gpus_2": "banks, two GPUs",
        "what_a_run_costs.study_of_banks.{}.gpus_100": "banks, 100 GPUs",
    }
    names = {backbone: _backbone(place(backbone, "sst2")) for backbone in ("smollm2", "opt")}
    found = []
    for name, way in rows.items():
        columns = {title: name.format(backbone) for backbone, title in names.items()}
        found.append(quantities.table({"": way}, columns, "way", dict.fromkeys(columns, duration)))
    return pd.concat(found)


def grid_table() -> pd.DataFrame:
    """The paper's own grid, with random weights."""
    columns = {
        "runs": "what_a_run_costs.study_runs", "records, command": "what_a_run_costs.grid_records.{}.command",
        "records, papermill": "what_a_run_costs.grid_records.{}.papermill",
        "start-up, s": "what_a_run_costs.grid_seconds.{}.startup", "steps": "what_a_run_costs.grid_seconds.{}.steps",
        "evaluations": "what_a_run_costs.grid_seconds.{}.evaluations", "all": "what_a_run_costs.grid_seconds.{}.all",
    }  # fmt: skip
    rows = {task: task_name(task) for task in TASKS}
    return quantities.table(rows, columns, "task", dict.fromkeys(("steps", "evaluations", "all"), duration))


def alone_table() -> pd.DataFrame:
    """One CP adapter and one LoRA adapter through PEFT."""
    columns = {
        "components": "what_a_run_costs.alone_components.{}.{}", "tokens": "what_a_run_costs.alone_tokens.{}.{}",
        "time": "what_a_run_costs.alone_time.{}.{}", "memory": "what_a_run_costs.alone_memory.{}.{}",
        "kernels": "what_a_run_costs.alone_kernels.{}.{}", "LoRA, ms": "what_a_run_costs.alone_ms.{}.{}.lora",
        "CP, ms": "what_a_run_costs.alone_ms.{}.{}.cp",
    }  # fmt: skip
    name = backbone_name("smollm2")
    rows = {f"{mode}.{rank}": (name, mode, rank.removeprefix("rank")) for mode, rank in ALONE_AT}
    return quantities.table(rows, columns, ("backbone", "step", "rank"))


def precision_table() -> pd.DataFrame:
    """The same runs on a backbone in half and in full precision."""
    columns = {
        "seeds": "what_a_run_costs.half_minus_full.{}|n", "bfloat16, %": "what_a_run_costs.accuracy.{}.bfloat16",
        "float32, %": "what_a_run_costs.accuracy.{}.float32",
        "difference, points": "what_a_run_costs.half_minus_full.{}|signed",
        "95 % interval": "what_a_run_costs.half_minus_full.{}|interval|signed",
    }  # fmt: skip
    return quantities.table({name: cell_name(*cell) for name, cell in IN_BOTH.items()}, columns, "adapter")


def source_table() -> pd.DataFrame:
    """The files, with the device, commit, date and packages of each."""
    found = []
    for file in bench.files():
        content = bench.content(file)
        device, versions = content["device"], content["versions"]
        found.append(
            {
                "device": device.get("gpu") or f"{device['cpu']}, {device['torch_threads']} threads",
                "file": file.removeprefix(f"{bench.FOLDER}/").removesuffix(".json"),
                "commit": (versions["git_commit"] or "unknown")[:8] + ", changed" * (versions["git_clean"] is False),
                "date": content["date"][:10],
                "torch, transformers, PEFT": ", ".join(
                    versions["packages"][name] for name in ("torch", "transformers", "peft")
                ),
                "failed": sum("error" in row for row in content["rows"]),
            }
        )
    return pd.DataFrame(found)


def _brief(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _backbone(at: Place) -> str:
    known, shape = at.backbone.removesuffix("-shape"), at.backbone.endswith("-shape")
    return backbone_name(known) + "'s shape" * shape


def _places(ends: Sequence[tuple[str, ...]]) -> dict[str, str]:
    places = {".".join(end): place(*end) for end in ends}
    return {end: f"{_backbone(at)}, {task_name(at.task)}, {at.batch}" for end, at in places.items()}


def _title(message: str, below: Sequence[str] = ()) -> alt.TitleParams:
    """A chart's title, from its left edge, so that it fits on a phone."""
    return alt.TitleParams(message, subtitle=list(below), subtitleColor="currentColor", frame="bounds")


GREEN, PINK, SKY, ORANGE, GREY = FURTHER_COLOURS

WAYS = {"bank": GREEN, "best number of processes": ORANGE, "one process": GREY}


def hourly_chart(settings: Sequence[tuple[str, ...]] = HOURLY) -> Any:
    """Runs an hour, by place and by way of training, of these settings on a GPU and of a CPU."""
    marks = []
    for title, names in _hourly_names(settings).items():
        for way, name in zip(WAYS, names, strict=True):
            if name and not isinstance(runs := quantities.value(name).value, str):
                marks.append({"place": title, "way": way, "runs": runs})
    frame = pd.DataFrame(marks)
    y = alt.Y("place:N", title=None, sort=None, axis=alt.Axis(labelExpr="split(datum.label, ': ')", grid=False))
    x = alt.X("runs:Q", title="runs an hour", scale=alt.Scale(type="log"), axis=alt.Axis(tickCount=4, format="~s"))
    base = alt.Chart(frame)
    return alt.layer(
        base.mark_rule(opacity=0.4).encode(y, alt.X("min(runs):Q", title="runs an hour"), x2="max(runs):Q"),
        base.mark_point(filled=True, size=90, opacity=1).encode(
            y,
            x,
            alt.Color(
                "way:N",
                title=None,
                scale=alt.Scale(domain=list(WAYS), range=list(WAYS.values())),
                legend=alt.Legend(columns=1),
            ),
            alt.Shape("way:N", title=None, scale=alt.Scale(domain=list(WAYS))),
            tooltip=["place", "way", alt.Tooltip("runs:Q", title="runs an hour", format=",.1f")],
        ),
    ).properties(
        title=_title("A bank trains more runs an hour"),
        description="Whole runs an hour on a logarithmic scale, by backbone, task and batch: of a bank, of one process"
        " of Trainer and PEFT, and of as many such processes at once as serve best.",
        width="container",
        height=36 * frame["place"].nunique(),
    )


def _hourly_names(settings: Sequence[tuple[str, ...]]) -> dict[str, tuple[str, str, str]]:
    """The names of the quantities of `WAYS`, by place."""
    found = {}
    for end in map(".".join, settings):
        at = place(*end.split("."))
        found[f"{_backbone(at)}: {task_name(at.task)}, batch {at.batch}"] = (
            f"what_a_run_costs.bank.{end}", f"what_a_run_costs.best.{end}", f"what_a_run_costs.one.{end}"
        )  # fmt: skip
    on_cpu = "what_a_run_costs.cpu_bank", "", "what_a_run_costs.cpu_one"
    return found | {f"{backbone_name('minilm')} on a CPU: {task_name('sst2')}, batch 8": on_cpu}


ALONE_PARTS = {"time": SKY, "memory": ORANGE}


def alone_rows() -> pd.DataFrame:
    """One row for each step of one adapter and what it costs: `step`, `what`, `ratio` (CP's over LoRA's)."""
    return pd.DataFrame(
        {
            "step": f"{mode}, LoRA's rank {rank.removeprefix('rank')}",
            "what": what,
            "ratio": quantities.value(f"what_a_run_costs.alone_{what}.{mode}.{rank}").value,
        }
        for mode, rank in ALONE_AT
        for what in ALONE_PARTS
    )


def alone_chart() -> Any:
    """The cost of a step of one CP adapter over that of one LoRA adapter of its size."""
    base = alt.Chart(alone_rows())
    even = alt.Chart(pd.DataFrame({"even": [1]})).mark_rule(strokeDash=[4, 4], opacity=0.6).encode(x="even:Q")
    names = list(ALONE_PARTS)
    points = base.mark_point(filled=True, size=90, opacity=1).encode(
        alt.X("ratio:Q", title="CP over LoRA", scale=alt.Scale(domain=[0, 1.5]), axis=alt.Axis(tickCount=6)),
        alt.Y("step:N", title=None, sort=None, axis=alt.Axis(grid=True, ticks=False)),
        alt.Color("what:N", title=None, scale=alt.Scale(domain=names, range=list(ALONE_PARTS.values()))),
        alt.Shape("what:N", title=None, scale=alt.Scale(domain=names)),
        tooltip=["step", "what", alt.Tooltip("ratio:Q", format=".2f")],
    )
    return (even + points).properties(
        title=_title("Compiled, CP is somewhat slower"),
        description="Time and peak memory of a training step of one CP adapter over those of one LoRA adapter of its"
        " size, eager and compiled, at LoRA's ranks 1 and 8: from 0.9 to 1.3.",
        width="container",
        height=160,
    )


PARTS = {
    "products at the peak": "", "products of these widths": "matrices alone",
    "rest of the frozen backbone": "frozen backbone", "adapters, heads, AdamW": "bank step",
}  # fmt: skip
"""The parts of a bank's step, and the measurement up to which each extends; the first part is computed."""
PART_COLOURS = (GREY, SKY, GREEN, ORANGE)


def step_chart() -> Any:
    """The parts of a bank's step, with and without fused kernels, at the most runs that have both."""
    marks = []
    for at in itertools.starmap(place, LAYERED):
        runs = max(bench.sizes(at) & bench.sizes(at, NOT_FUSED) or bench.sizes(at))
        for kernels, compiled in (("fused", FUSED), ("not fused", NOT_FUSED)):
            if runs in bench.sizes(at, compiled):
                title = f"{_backbone(at)}: {task_name(at.task)}, {kernels}"
                marks += [{"place": title} | part for part in _parts(at, runs, compiled)]
    frame = pd.DataFrame(marks)
    return (
        alt.Chart(frame)
        .mark_bar()
        .encode(
            alt.Y("place:N", title=None, sort=None, axis=alt.Axis(labelExpr="split(datum.label, ': ')", grid=False)),
            alt.X("length:Q", title="products at the peak = 1", stack="zero", axis=alt.Axis(tickCount=5)),
            alt.Color(
                "part:N",
                title=None,
                scale=alt.Scale(domain=list(PARTS), range=PART_COLOURS),
                legend=alt.Legend(columns=1, labelLimit=240),
            ),
            alt.Order("order:Q"),
            tooltip=["place", "part", alt.Tooltip("length:Q", format=".2f")],
        )
        .properties(
            description="What a bank's step is made of, as bars with the time of its matrix products at the device's"
            " peak as the unit: these products, what they take at their own widths, the rest of the frozen backbone,"
            " and the adapters; with fused kernels and without.",
            title=_title("Most of a step is the frozen backbone's"),
            width="container",
            height=36 * frame["place"].nunique(),
        )
    )


def _parts(at: Place, runs: int, compiled: bool) -> Iterator[dict[str, Any]]:
    """The length of each part; a part that was not measured is included in the next."""
    unit, done = bench.ideal(at), 0.0
    for order, (part, what) in enumerate(PARTS.items()):
        with suppress(NotMeasured):
            until = bench.a_token(at, what, runs, compiled) / unit if what else 1.0
            yield {"part": part, "order": order, "length": until - done}
            done = until


LINES = {"solid": [1, 0], "dashed": [6, 4], "dotted": [2, 3]}


def growth_chart() -> Any:
    """The cost of a run in a step, by the number of runs in the bank."""
    marks = []
    for at in itertools.starmap(place, LAYERED):
        steps = bench.growth(at).items()
        marks += [
            {"backbone": _backbone(at), "task": task_name(at.task), "runs": runs, "ms": 1e3 * step / runs}
            for runs, step in steps
            if len(steps) > 1
        ]
    frame = pd.DataFrame(marks)
    names = list(dict.fromkeys(frame["backbone"]))
    note = [f"{line}: {name}" for line, name in zip(LINES, names, strict=False)]
    return (
        alt.Chart(frame)
        .mark_line(point=alt.OverlayMarkDef(size=60), strokeWidth=2)
        .encode(
            alt.X("runs:Q", title="runs in the bank", scale=alt.Scale(type="log", base=2),
                  axis=alt.Axis(grid=False, values=sorted(set(frame["runs"])), format="d")),
            alt.Y("ms:Q", title="ms a run and step", scale=alt.Scale(type="log"), axis=alt.Axis(tickCount=5)),
            alt.Color("task:N", title=None, sort=None, scale=alt.Scale(range=[GREEN, PINK, ORANGE])),
            alt.StrokeDash("backbone:N", legend=None, scale=alt.Scale(domain=names, range=list(LINES.values()))),
            tooltip=["backbone", "task", "runs", alt.Tooltip("ms:Q", title="ms a run", format=".3f")],
        )
        .properties(
            description="Milliseconds a run and step against the number of runs in the bank, both logarithmic: falling"
            " while the device fills, then flat.",
            title=_title("In a full bank a run costs less", note),
            width="container",
            height=300,
        )
    )  # fmt: skip
