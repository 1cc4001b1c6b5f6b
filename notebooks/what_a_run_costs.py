# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What a run costs
#
# **What does a run cost in a bank, beside a process of its own, and why not less?**
#
# {glue:text}`answer_speed` {glue:text}`answer_floor`

# %%
import json
import statistics
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import altair as alt
import numpy as np
import pandas as pd
import torch
from myst_nb import glue
from transformers import AutoModel

import cpadapt
from companion import PROJECT
from cpadapt.analysis import charts
from cpadapt.analysis.statistics import compare, outcomes
from cpadapt.bank.trainer import TRAINING_TOKENS
from cpadapt.inputs.backbones.specs import BACKBONES
from cpadapt.records.store import load_records

charts.enable()

# %% [markdown]
# Unless a cell says otherwise, the numbers here are times in `results/bench`, which `make bench` writes, and a ratio
# is one of two times of the same file. What has no file is *not measured*. A cell below reads the files, and a few
# helpers turn rows of them into tables.

# %% tags=["hide-input"]
NOT = "not measured"
PAPER = cpadapt.load_study(PROJECT / "studies" / "paper.toml")
NAMES = {name: spec.title for name, spec in BACKBONES.items()}
NAMES |= {f"{name}-shape": f"{title}'s shape" for name, title in NAMES.items()}
bench = {path.stem: json.loads(path.read_text()) for path in sorted((PROJECT / "results" / "bench").glob("*.json"))}


def planned(*backbones, batches=(8,)):
    return [(backbone, task, batch) for backbone in backbones for task in PAPER.tasks for batch in batches]


def places(kind, plan=()):
    """Files by backbone, task and batch: those planned, `None` where there is none, then what else is there."""
    found = {}
    for name, result in bench.items():
        if name.startswith(f"{kind}-"):
            asked = result["settings"]
            found[Path(asked["backbone"]).name, asked.get("task"), asked["batch_size"]] = result
    return {place: found.get(place) for place in dict.fromkeys([*plan, *found])}


def rows(result, what, **where):
    """A result's rows of one kind. What failed has none."""
    wanted = {"what": what} | where
    found = result["rows"] if result else []
    return [row for row in found if "error" not in row and all(row.get(key) == wanted[key] for key in wanted)]


def first(found):
    return next(iter(found), {})


def seconds(row):
    return row["seconds"]["median"] if row else None


def divided(a, b):
    return None if a is None or b is None else a / b


def times(factor, value):
    return None if value is None else factor * value


def brief(value):
    return None if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def named(place):
    backbone, task, batch = place
    return {"backbone": NAMES.get(backbone, backbone), "task": charts.task_name(task), "batch": batch}


def told(value, form):
    return NOT if value is None else value if isinstance(value, str) else form.format(value)


PLACE = ("backbone", "task", "batch")


def table(found, forms):
    """Rows as a table, its columns formatted so; what a row lacks is not measured, said once if it lacks all."""
    shown = []
    for row in found or [{}]:
        texts = {name: told(row.get(name), form) for name, form in forms.items()}
        lacking = [name for name in forms if texts[name] == NOT]
        if forms.keys() <= {*PLACE, *lacking}:
            texts |= dict.fromkeys(lacking[1:], "")
        if forms.keys() >= {*PLACE}:
            # Three columns in one, for narrow screens.
            texts = {", ".join(PLACE): ", ".join(filter(None, map(texts.pop, PLACE)))} | texts
        shown.append(texts)
    return charts.table(pd.DataFrame(shown))


def span(values, form):
    """The least and the largest of some numbers, as text."""
    known = [value for value in values if value is not None]
    ends = list(dict.fromkeys(form.format(end) for end in (min(known), max(known)))) if known else []
    return " to ".join(ends) or NOT


def drawn(marks, chart):
    """A chart, where there is something to draw."""
    return chart(pd.DataFrame(marks)) if marks else charts.table(pd.DataFrame({"chart": [NOT]}))


# %% [markdown]
# ## Runs an hour
#
# A whole {term}`run` is the paper's: {glue:text}`steps` steps, {term}`dev` every {glue:text}`eval_every` of them and
# {term}`eval` at the end. Some steps and the evaluations are timed, and a whole run is computed from these.
#
# A {term}`bank` of runs of many sizes, up to the paper's largest LoRA, is laid beside the usual way: Hugging Face's
# `Trainer` with PEFT's LoRA {cite:p}`peft`. That peer does the same work in the same order and with the same losses,
# without waste: the backbone in half precision, batches padded to their longest example only, fused AdamW, evaluations
# sorted by length, nothing logged or saved. It goes without the usual `bf16=True`, which casts in every adapter and
# takes a step longer, by a factor of {glue:text}`autocast`. It runs as one process, and as several at once on the same
# device ({glue:text}`mps` NVIDIA's multi-process service), whose number rises until they give clearly less.
#
# *Bank*, *one* and *best* are runs an hour once all has started; *with start-up* is the bank's when it starts for
# these runs alone. A plus behind the best number says that more were not tried, *full* that more do not fit into
# memory.

# %% tags=["hide-input"]
SPEED = {
    "backbone": "{}", "task": "{}", "batch": "{}", "runs": "{}", "bank / one": "{}", "bank / best": "{}",
    "bank": "{}", "with start-up": "{}", "one": "{}", "best": "{}", "best number": "{}",
}  # fmt: skip
RATES = ("bank", "with start-up", "one", "best", "bank / one", "bank / best")


def speed(place, result):
    bank = first(rows(result, "bank"))
    tried = rows(result, "peers")
    peers = [row for row in tried if "runs_per_hour" in row]
    numbers = {row["peers"] for row in peers}
    one = max((row["runs_per_hour"] for row in peers if row["peers"] == 1), default=None)
    best = max(peers, key=lambda row: row["runs_per_hour"]) if len(numbers) > 1 else {}
    count = best.get("peers")
    if count and count == max(numbers):
        count = f"{count}{', full' if any('memory' in row.get('stopped', '') for row in tried) else '+'}"
    given = bank.get("runs_per_hour")
    return named(place) | {
        "runs": bank["times"]["runs"] if bank else None,
        "bank": given,
        "with start-up": bank.get("runs_per_hour_with_startup"),
        "one": one,
        "best number": count,
        "best": best.get("runs_per_hour"),
        "bank / one": divided(given, one),
        "bank / best": divided(given, best.get("runs_per_hour")),
    }


def speed_on_cpu(result):
    """The two took turns: medians over these, where a peer's hour is shared evenly by its ranks."""
    place = named(("minilm", "sst2", 8)) | {"backbone": f"{NAMES['minilm']} on a CPU"}
    turns = [
        (bank["runs_per_hour"], statistics.harmonic_mean([row["runs_per_hour"] for row in peers]))
        for bank in rows(result, "bank")
        if (peers := rows(result, "peer", turn=bank["turn"]))
    ]
    if not turns:
        return place
    banks, ones = zip(*turns, strict=True)
    return place | {
        "runs": rows(result, "bank")[0]["times"]["runs"],
        "bank": statistics.median(banks),
        "one": statistics.median(ones),
        "bank / one": statistics.median(bank / one for bank, one in turns),
    }


PLANNED = [*planned("smollm2", batches=(8, 16)), *planned("opt-1.3b-shape"), ("minilm", "sst2", 8)]
hourly = places("runs-per-hour", PLANNED)
speeds = [*(speed(*at) for at in hourly.items()), speed_on_cpu(bench.get("cpu-bank"))]
on_cpu_no_more = dict.fromkeys(("with start-up", "best number", "best", "bank / best"), "")
shown = [row | {column: brief(row.get(column)) for column in RATES} for row in speeds]
table([*shown[:-1], shown[-1] | on_cpu_no_more], SPEED)

# %% tags=["hide-input"]
WAYS = {"bank": "#009E73", "best number of processes": "#E69F00", "one process": "#777777"}
COLUMNS = dict(zip(WAYS, ("bank", "best", "one"), strict=True))
marks = [
    {"place": f"{row['backbone']}|{row['task']}, batch {row['batch']}", "way": way, "runs": row[column]}
    for row in speeds
    for way, column in COLUMNS.items()
    if row.get(column) is not None
]


def beside(frame):
    y = alt.Y("place:N", title=None, sort=None, axis=alt.Axis(labelExpr="split(datum.label, '|')", grid=False))
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
            tooltip=["way", alt.Tooltip("runs:Q", title="runs an hour", format=",.1f")],
        ),
    ).properties(
        description="Whole runs an hour on a logarithmic scale, by backbone, task and batch: of a bank, of one process"
        " of Trainer and PEFT, and of as many such processes at once as serve best.",
        width="container",
        height=40 * frame["place"].nunique(),
    )


drawn(marks, beside)

# %% [markdown]
# The weights of OPT-1.3B are not at hand, so its *shape* is filled with random ones, which take as long; and the
# texts have the lengths that another model's tokenizer gives them. On the CPU (threads: {glue:text}`threads`, as many
# as it has cores) bank and peer are in float32 and take turns.
#
# **Start-up.** Before its steady state a bank on a GPU compiles its kernels and records its steps (seconds a bank:
# {glue:text}`startup`, least where a bank before it in the same process had compiled most of them). The more runs a
# bank has and the longer they are, the less it matters. Below a fixed amount of work the trainer does not compile.
#
# ## How it is done
#
# One process of `Trainer` leaves a GPU idle: a small backbone's kernels are done sooner than the host can launch them.
# It also pads: runs draw their batches at random, long texts beside short ones, and sorting them by length would be
# another order of training. (Tokens that a peer computes for each real one: {glue:text}`padding`.) Several processes
# fill the gaps but pad as before. On a GPU in half precision a bank does this instead:
#
# - **One packed row, no padding.** The examples of all runs lie in one {term}`packed row`, so the frozen layers see
#   one long sequence of real tokens, and read their weights once for all of them. In banks of {glue:text}`large` runs
#   or more they compute a little more than the real ones (in %: {glue:text}`waste`), because rows come in a few fixed
#   lengths.
# - **Kernels that find their own segments.** Only attention and the adapters' products know where a {term}`segment`
#   ends. Both are kernels that read that on the device: each example attends within itself on a tile of its own
#   length, and each run's low-rank pair meets that run's tokens alone, with as many components as that run has.
#   Nothing is padded to the longest example or the largest adapter.
# - **A step is a few {term}`graphs <CUDA graph>`**, one a row and one for AdamW, recorded once for every length of
#   row. In banks of {glue:text}`large` runs or more, the share of a step in which the device waits for the host or
#   takes its data (in %: {glue:text}`waits`) is what is left of the gaps.
# - **{term}`Fused <fused>` elementwise work.** Norms, rotary embeddings, activations and residual sums are compiled
#   into few passes over memory, and so is the making of all {term}`factor pairs <factor pair>`; AdamW and clipping
#   take all runs' scalars at once.
#
# None of this changes a step beyond rounding. In float32 the tests compare each run of a bank with itself alone and
# with a slow loop, and packed rows with the model's own padded forward; in half precision they compare the kernels
# with plain float32 ones, and a bank's losses with those on a CPU. Over a training rounding can grow, in half
# precision until the same run in another bank [is another run](causes.ipynb).
#
# ## Why not less
#
# A step cannot cost much less than the frozen backbone's forward and backward pass over the same tokens, and these not
# less than their own matrix products. (Only the first layer's adapters need no gradient below themselves.) The unit
# here is the time that these products would take at the speed of one large square product, measured on the same
# device: a bar of length two runs at half of that speed.


# %% tags=["hide-input"]
class Step(NamedTuple):
    """Seconds a token of a bank's step and of what is in it; each holds the one before."""

    runs: int
    tokens: int
    peak: float
    """FLOP a second of a large square product."""
    ideal: float
    """The frozen layers' products at that speed."""
    products: float | None
    """These products as they are."""
    frozen: float
    bank: float


def a_token(row):
    return seconds(row) / row["tokens"] if row else None


def sizes(result, compiled=True):
    """Numbers of runs whose bank and frozen backbone were measured."""
    return {row["runs"] for row in rows(result, "bank step", compiled=compiled)} & {
        row["runs"] for row in rows(result, "frozen backbone", compiled=compiled)
    }


def step_of(result, runs=None, compiled=True):
    """The step of a bank of so many runs, or of the largest."""
    square, known = first(rows(result, "square matrix product")), sizes(result, compiled)
    runs = max(known, default=None) if runs is None else runs
    if not square or runs not in known:
        return None
    bank, frozen, products = (
        first(rows(result, what, runs=runs, compiled=compiled))
        for what in ("bank step", "frozen backbone", "matrices alone")
    )
    # Forward, and backward to the input: two FLOP each for every frozen weight and token.
    ideal = 4 * result["settings"]["frozen_weights"] * seconds(square) / square["flop"]
    peak = square["flop"] / seconds(square)
    return Step(runs, bank["tokens"], peak, ideal, a_token(products), a_token(frozen), a_token(bank))


PARTS = {
    "products at the peak": "#777777", "products of these widths": "#56B4E9", "rest of the frozen backbone": "#0072B2",
    "adapters, heads, AdamW": "#D55E00",
}  # fmt: skip
layered = places("frozen-backbone", planned("smollm2", "opt-1.3b-shape"))
marks = []
for place, result in layered.items():
    both = sizes(result, True) & sizes(result, False) or sizes(result, True)
    for kernels, compiled in (("fused", True), ("not fused", False)):
        if both and (step := step_of(result, max(both), compiled)):
            done, label = 0.0, f"{named(place)['backbone']}|{named(place)['task']}, {kernels}"
            for order, (part, until) in enumerate(zip(PARTS, step[3:], strict=True)):
                if until is not None:
                    length = (until - done) / step.ideal
                    marks.append({"place": label, "part": part, "order": order, "length": length})
                    done = until


def stacked(frame):
    return (
        alt.Chart(frame)
        .mark_bar()
        .encode(
            alt.Y("place:N", title=None, sort=None, axis=alt.Axis(labelExpr="split(datum.label, '|')", grid=False)),
            alt.X("length:Q", title="products at the peak = 1", stack="zero", axis=alt.Axis(tickCount=5)),
            alt.Color(
                "part:N",
                title=None,
                scale=alt.Scale(domain=list(PARTS), range=list(PARTS.values())),
                legend=alt.Legend(columns=1, labelLimit=240),
            ),
            alt.Order("order:Q"),
            tooltip=["part", alt.Tooltip("length:Q", format=".2f")],
        )
        .properties(
            description="What a bank's step is made of, as bars with the time of its matrix products at the device's"
            " peak as the unit: these products, what they take at their own widths, the rest of the frozen backbone,"
            " and the adapters; with fused kernels and without.",
            width="container",
            height=40 * frame["place"].nunique(),
        )
    )


drawn(marks, stacked)

# %% [markdown]
# In numbers, for the largest bank that was measured. *Bank / frozen* is a bank's step over the frozen backbone's
# alone; *moved* is what that ratio would be if the adapters' products, done one by one as they are, took only the time
# to move their bytes; *unfused / fused* is the frozen backbone without and with torch.compile, at the number of runs
# that has both (attention is ours in both). Per cents are of the square product's speed.

# %% tags=["hide-input"]
STEP = {
    "backbone": "{}", "task": "{}", "batch": "{}", "runs": "{}", "bank / frozen": "{:.2f}", "moved": "{:.2f}",
    "unfused / fused": "{:.2f}", "products, %": "{:.0f}", "frozen, %": "{:.0f}", "bank, %": "{:.0f}",
    "frozen / products, %": "{:.0f}", "tokens a step": "{:,}",
}  # fmt: skip


def moved(backbone):
    """Bytes a token that the adapters' products move, in half precision.

    Forward reads a projection's input and reads and writes its output once more; backward reads and writes the
    gradient of the input, and reads that of the output; the gradients of both matrices read input and output's
    gradient again.
    """
    known = backbone.removesuffix("-shape")
    sides = [(p.in_features, p.out_features) for p in cpadapt.load_projections(known)] if known in BACKBONES else []
    return 2 * sum((n + 2 * m) + (2 * n + m) + (n + m) for n, m in sides)


def bandwidth(result):
    """Bytes a second that a large copy reads and writes."""
    copy = first(rows(result, "memory copy"))
    return copy["moved_bytes"] / seconds(copy) if copy else None


def shares(place, result):
    step = step_of(result)
    if step is None:
        return named(place)
    speed_of_memory = bandwidth(result)
    both = max(sizes(result, True) & sizes(result, False), default=None)
    fused, plain = (step_of(result, both, compiled) if both else None for compiled in (True, False))
    return named(place) | {
        "runs": step.runs,
        "tokens a step": step.tokens,
        "products, %": times(100, divided(step.ideal, step.products)),
        "frozen, %": 100 * step.ideal / step.frozen,
        "bank, %": 100 * step.ideal / step.bank,
        "frozen / products, %": times(100, divided(step.products, step.frozen)),
        "bank / frozen": step.bank / step.frozen,
        "moved": None if speed_of_memory is None else 1 + moved(place[0]) / speed_of_memory / step.frozen,
        "unfused / fused": plain.frozen / fused.frozen if both else None,
    }


table([shares(*at) for at in layered.items()], STEP)

# %% [markdown]
# Which kernels take the time of a bank's step, and of the frozen backbone alone on the same row, in milliseconds. *At
# a copy's speed* is what the frozen backbone's elementwise work would take if each group of operations between two
# products read what it needs once and wrote what it gives once, as fast as a large copy does:


# %% tags=["hide-input"]
def between(backbone):
    """Bytes a token that elementwise work moves at least, in half precision, forward and backward.

    Forward, a norm with the residual sum before it reads two widths and writes two; backward it reads the gradients
    of the products behind it (three for attention's; two for a gated MLP's, one for a plain one's), its input and the
    residual's gradient, and writes one. A gated activation reads two and writes one, and backward reads three and
    writes two; a plain one reads one and writes one, and backward reads two and writes one. Rotary embeddings read and
    write queries and keys, both ways.
    """
    known = BACKBONES.get(backbone.removesuffix("-shape"))
    config = known and known.config()
    if config is None or config.model_type not in ("llama", "opt"):
        return None
    if config.model_type == "llama":
        rotated = (config.num_attention_heads + config.num_key_value_heads) * config.head_dim
        numbers = (8 + 6 + 5) * config.hidden_size + (3 + 5) * config.intermediate_size + 4 * rotated
    else:
        numbers = (8 + 6 + 4) * config.hidden_size + (2 + 3) * config.ffn_dim
    return 2 * config.num_hidden_layers * numbers


COPIED = "at a copy's speed"
kinds = []
for place, result in layered.items():
    for row in rows(result, "kernels", compiled=True):
        if row["runs"] == max(sizes(result), default=None):
            took = {kind: 1e3 * taken["seconds"] for kind, taken in row["kinds"].items()}
            of_bytes = times(1e3 * step_of(result).tokens, divided(between(place[0]), bandwidth(result)))
            took[COPIED] = of_bytes if row["of"] == "frozen backbone" else ""
            kinds.append(named(place) | {"what": row["of"]} | took)
KINDS = ("matrix products", "attention", "adapters' products", "elementwise", COPIED)
table(kinds, {"backbone": "{}", "task": "{}", "batch": "{}", "what": "{}"} | dict.fromkeys(KINDS, "{:.1f}"))

# %% [markdown]
# So there is an end to what a bank can give. If adapters cost nothing, its training step would be the frozen
# backbone's, and with its evaluations as they are it would give at most so many times the runs of one process:

# %% tags=["hide-input"]
limits = []
for place, result in hourly.items():
    bank, row = first(rows(result, "bank")), speed(place, result)
    step = step_of(layered.get(place), row["runs"]) if bank else None
    if step and row["one"]:
        each, p = bank["a_run"], PAPER.protocol
        evaluations = p.steps // p.eval_every * each["dev_seconds"] + each["eval_seconds"]
        a_run = p.steps * each["step_seconds"] * step.frozen / step.bank + evaluations
        limits.append(row | {"at most": 3600 / a_run / row["one"]})
table(
    limits,
    dict.fromkeys(("backbone", "task", "batch", "runs"), "{}") | dict.fromkeys(("bank / one", "at most"), "{:,.0f}"),
)

# %% [markdown]
# That is for the smaller batch. With twice as many examples a step one process does twice the work in little or no
# more time, because its launches are as many; a bank, which has no gaps to fill, takes about twice as long. So the
# larger a batch, and the longer its texts, the less a bank has to give over processes that are busy as they are.
#
# **Narrow matrices.** A product must read its input and write its output, however little it computes. With many
# tokens, the FLOP for each of these bytes depend only on its widths:

# %% tags=["hide-input"]
widths = []
for name in ("smollm2", "opt-1.3b"):
    with torch.device("meta"):
        layers = AutoModel.from_config(BACKBONES[name].config()).modules()
    sides = Counter((m.in_features, m.out_features) for m in layers if isinstance(m, torch.nn.Linear))
    for (n, m), count in sides.items():
        # 2·n·m FLOP a token, and 2·(n + m) bytes.
        a_byte = n * m / (n + m)
        widths.append({"backbone": NAMES[name], "width": f"{n} to {m}", "matrices": count, "FLOP a byte": a_byte})
table(widths, {"backbone": "{}", "width": "{}", "matrices": "{}", "FLOP a byte": "{:.0f}"})

# %% [markdown]
# The device does as many in the time in which it moves a byte (FLOP a byte: {glue:text}`ridge`, by the time of a large
# copy beside that of the large product). Done as a product of its own, as here, SmolLM2's key or value projection is
# below that number, so it waits for memory, and the others are not far above it. OPT-1.3B's are.
#
# **What lies between.** Norms, rotary embeddings, activations, residual sums and attention do next to no FLOP, and
# each reads and writes all tokens. At a width of {glue:text}`narrow` that is a large part of a step; at
# {glue:text}`wide` the products have grown with the square of the width and these only with the width itself, so that
# the wide backbone should come nearer to the peak, and the narrow one gain more from fusing. What is left after it:
# each group of such operations between two products reads and writes memory once, forward and backward. SmolLM2's
# takes {glue:text}`over_copy` times as long as that would at a copy's speed, so that doing it better could shorten the
# frozen backbone's step by less than a tenth; the next step would be to fuse it into the products, which are a
# library's here.
#
# **The adapters** have hardly any FLOP of their own. But every adapted projection has its input read again, its output
# read and written again, and the same in backward: that is *moved* above. On top come the making of factor pairs,
# AdamW, the heads and losses, and kernels that are short when a row is: a kernel has a beginning and an end in which
# most of the device has nothing to do, so the ratio falls as rows grow.
#
# ## More runs
#
# A run in a small bank pays for a device that is not full. Once it is, each added run costs its own tokens, and no
# less.


# %% tags=["hide-input"]
def growth(result, compiled=True):
    """Seconds of a step in training by the number of runs."""
    return dict(sorted((row["runs"], seconds(row)) for row in rows(result, "steps", compiled=compiled)))


grown = [(named(place), growth(result)) for place, result in layered.items()]
marks = [
    {"backbone": name["backbone"], "task": name["task"], "runs": runs, "ms": 1e3 * step / runs}
    for name, by_runs in grown
    for runs, step in by_runs.items()
    if len(by_runs) > 1
]


LINES = {"solid": [1, 0], "dashed": [6, 4], "dotted": [2, 3]}


def scaling(frame):
    names = list(dict.fromkeys(frame["backbone"]))
    note = [f"{line}: {name}" for line, name in zip(LINES, names, strict=False)]
    return (
        alt.Chart(frame)
        .mark_line(point=alt.OverlayMarkDef(size=60), strokeWidth=2)
        .encode(
            alt.X("runs:Q", title="runs in the bank", scale=alt.Scale(type="log", base=2),
                  axis=alt.Axis(grid=False, values=sorted(set(frame["runs"])), format="d")),
            alt.Y("ms:Q", title="ms a run and step", scale=alt.Scale(type="log"), axis=alt.Axis(tickCount=5)),
            alt.Color("task:N", title=None, sort=None, scale=alt.Scale(range=["#009E73", "#CC79A7", "#E69F00"])),
            alt.StrokeDash("backbone:N", legend=None, scale=alt.Scale(domain=names, range=list(LINES.values()))),
            tooltip=["backbone", "task", "runs", alt.Tooltip("ms:Q", title="ms a run", format=".3f")],
        )
        .properties(
            description="Milliseconds a run and step against the number of runs in the bank, both logarithmic: falling"
            " while the device fills, then flat.",
            title=alt.TitleParams(note, fontSize=12),
            width="container",
            height=300,
        )
    )  # fmt: skip


drawn(marks, scaling)

# %% [markdown]
# What each run cost that was added since the number of runs before, in milliseconds a step:

# %% tags=["hide-input"]
counts = sorted({runs for _, by_runs in grown for runs in by_runs})
added = []
for name, by_runs in grown:
    before = {0: 0.0} | by_runs
    pairs = zip(before.items(), by_runs.items(), strict=False)
    added.append(name | {f"to {b}": 1e3 * (after - start) / (b - a) for (a, start), (b, after) in pairs})
table(added, {"backbone": "{}", "task": "{}", "batch": "{}"} | {f"to {runs}": "{:.3f}" for runs in counts})

# %% [markdown]
# ### Longer texts
#
# What a run costs grows with its tokens. A token of a longer text has more attention to pay; one of a shorter text has
# a larger part of what a step costs whatever its tokens. Here are banks of the largest number of runs that was
# measured on all tasks:

# %% tags=["hide-input"]
longer = []
for place, result in layered.items():
    others = [growth(found) for (backbone, _, _), found in layered.items() if backbone == place[0] and found]
    common = set.intersection(*map(set, others)) if others else set()
    for row in rows(result, "steps", compiled=True, runs=max(common, default=None)):
        longer.append(
            named(place)
            | {
                "runs": row["runs"],
                "tokens a run": row["real_tokens"] / row["runs"],
                "ms a run and step": 1e3 * seconds(row) / row["runs"],
                "µs a token": 1e6 * seconds(row) / row["real_tokens"],
            }
        )
table(
    longer,
    {"backbone": "{}", "task": "{}", "batch": "{}", "runs": "{}", "tokens a run": "{:,.0f}",
     "ms a run and step": "{:.3f}", "µs a token": "{:.2f}"},
)  # fmt: skip

# %% [markdown]
# ### Larger adapters
#
# The frozen backbone does not know how large a run's adapter is. The adapter's own products and moments grow with it,
# and CP's vectors have to become a {term}`factor pair` first. Here are banks of equally many runs, all of one size, on
# the same rows:

# %% tags=["hide-input"]
larger = []
for place, result in places("components", [("smollm2", "sst2", 8)]).items():
    found = rows(result, "bank step")
    least = min(map(seconds, found), default=None)
    for row in found:
        larger.append(
            named(place)
            | {
                "adapter": f"{charts.family_name(row['family'])} {row['size']}",
                "parameters": row["parameters"],
                "runs": result["settings"]["runs"],
                "ms a run and step": 1e3 * seconds(row) / result["settings"]["runs"],
                "over the least": seconds(row) / least,
            }
        )
table(
    larger,
    {"backbone": "{}", "task": "{}", "batch": "{}", "adapter": "{}", "parameters": "{:,}", "runs": "{}",
     "ms a run and step": "{:.3f}", "over the least": "{:.2f}"},
)  # fmt: skip

# %% [markdown]
# ### How many runs shall a bank have?
#
# All of them, as a rule. Sizes and families may be mixed freely, since nothing is padded to the largest. Memory grows
# with the tokens of a row, but a step of more than {glue:text}`row_tokens` tokens on average is done in several rows
# of whole runs, one after another in the same memory, with the same result; beyond that only the adapters and their
# moments grow. Where memory runs out nevertheless, the trainer halves the rows and does the step again. For the price
# fewer runs may suffice: below is the smallest number measured at which a run costs at most a tenth more than at the
# cheapest one measured. A {term}`shard` should not be smaller than that without need.

# %% tags=["hide-input"]
ENOUGH = 1.1
banks = []
for result, (name, by_runs) in zip(layered.values(), grown, strict=True):
    each = {runs: step / runs for runs, step in by_runs.items()}
    memory = {row["runs"]: row["peak_memory_bytes"] for row in rows(result, "memory", compiled=True)}
    enough = next((runs for runs, cost in each.items() if cost <= ENOUGH * min(each.values())), None)
    several = len(each) > 1
    banks.append(
        name
        | {
            "runs that suffice": enough if several else None,
            "GB reserved for these": memory[enough] / 1e9 if several and enough in memory else None,
            "largest bank": max(memory, default=None),
            "GB reserved for it": memory[max(memory)] / 1e9 if memory else None,
        }
    )
table(
    banks,
    {"backbone": "{}", "task": "{}", "batch": "{}", "runs that suffice": "{}", "GB reserved for these": "{:.1f}",
     "largest bank": "{}", "GB reserved for it": "{:.1f}"},
)  # fmt: skip

# %% [markdown]
# ## A whole study, and several GPUs
#
# Two GPUs of one host, one process each, share nothing: `cpadapt run --shard` deals a study's runs between them. Times
# are those of the whole study under the paper's protocol, on two GPUs those of the slower one. Start-up comes on top:
# each GPU has its own, and it does not halve.


# %% tags=["hide-input"]
def whole(found):
    """Seconds of a whole bank under the paper's protocol."""
    p = PAPER.protocol
    evaluations = p.steps // p.eval_every * found["dev"]["median"] + found["eval_seconds"]
    return p.steps * found["step"]["median"] + evaluations


def on_two(place, result):
    alone, halves = rows(result, "one GPU"), rows(result, "two GPUs")
    one = whole(alone[0]["times"]) if alone else None
    two = max(whole(half["times"]) for half in halves) if len(halves) == 2 else None
    return named(place) | {
        "runs": result["settings"]["runs"] if result else None,
        "one GPU, s": one,
        "two GPUs, s": two,
        "one / two": divided(one, two),
    }


table(
    [on_two(*at) for at in places("two-gpus", [("smollm2", "rte", 8)]).items()],
    {"backbone": "{}", "task": "{}", "batch": "{}", "runs": "{}", "one GPU, s": "{:,.0f}", "two GPUs, s": "{:,.0f}",
     "one / two": "{:.2f}"},
)  # fmt: skip

# %% [markdown]
# A study of the paper's size is {glue:text}`study_runs` runs on each of {glue:text}`study_tasks` tasks. Here is what
# all of it takes on one GPU, with `Trainer` and with a bank a task, start-up included; *as run* is what the study on
# record did take in training and evaluations ([what was run](what_was_run.ipynb)). Two and a hundred GPUs are on
# paper: the runs dealt out evenly, all tasks in turn or side by side, whichever is sooner. A smaller bank's step is
# taken from the chart above, fused with its start-up or unfused without, whichever is sooner.


# %% tags=["hide-input"]
RUNS = len(PAPER.runs(cpadapt.load_projections(PAPER.backbone))) // len(PAPER.tasks)


def bank_seconds(place, runs):
    """Seconds of a bank of so many runs: its steps as the measured bank's, changed as steps change with runs."""
    bank, p = first(rows(hourly.get(place), "bank")), PAPER.protocol
    fused, plain = (growth(layered.get(place), compiled) for compiled in (True, False))
    known = bank["times"]["runs"] if bank else None
    if known not in fused:
        return None
    each = bank["a_run"]
    evaluations = runs * (p.steps // p.eval_every * each["dev_seconds"] + each["eval_seconds"])
    ways = []
    for by_runs, startup in ((fused, bank["times"]["startup_seconds"]), (plain, 0.0)):
        if by_runs and min(by_runs) <= runs <= max(by_runs):
            step = (
                np.interp(runs, list(by_runs), list(by_runs.values())) / fused[known] * bank["times"]["step"]["median"]
            )
            ways.append(startup + p.steps * step + evaluations)
    return min(ways, default=None)


def on_gpus(study, count):
    """Seconds of a study's banks: all GPUs take part in each in turn, or each task has its share of them."""
    in_turn = [bank_seconds(place, -(-RUNS // count)) for place in study]
    apart = (
        [bank_seconds(place, -(-RUNS // (count // len(study)))) for place in study] if count >= len(study) else [None]
    )
    ways = [combined(costs) for combined, costs in ((sum, in_turn), (max, apart)) if None not in costs]
    return min(ways, default=None)


def on_peers(study, column):
    """Seconds of a study's runs, by the runs an hour in this column."""
    given = [speed(place, hourly[place])[column] for place in study]
    return None if None in given else sum(3600 * RUNS / rate for rate in given)


def as_run(name):
    """Seconds of training and evaluation of a study of which all three tasks are on record."""
    folder = PROJECT / "results" / name
    there = [record for record in (load_records(folder) if folder.is_dir() else []) if record.study == name]
    if Counter(record.config.task for record in there) != dict.fromkeys(PAPER.tasks, RUNS):
        return None
    return sum((r.cost.train_seconds + r.cost.evaluation_seconds) / r.cost.bank_runs for r in there)


def duration(count):
    if count is None:
        return None
    return f"{count / 3600:,.1f} h" if count >= 3600 else f"{count / 60:.1f} min"


of_study = []
for backbone, name in (("smollm2", "smollm2"), ("opt-1.3b-shape", "paper")):
    study = planned(backbone)
    of_study.append(
        {
            "backbone": NAMES[backbone],
            "one process": duration(on_peers(study, "one")),
            "best number of them": duration(on_peers(study, "best")),
            "as run, 1 GPU": duration(as_run(name)),
        }
        | {f"banks, {count} GPU{'s' * (count > 1)}": duration(on_gpus(study, count)) for count in (1, 2, 100)}
    )
table(of_study, dict.fromkeys(of_study[0], "{}"))

# %% [markdown]
# The paper's own grid, `cpadapt run studies/paper.toml`, needs weights that are not at hand. With random ones of their
# shape the command runs for a few steps, and the notebook `run_budget` through papermill, of both of which each run
# leaves a record; and the whole bank of each task is timed:

# %% tags=["hide-input"]
grid = bench.get("grid-paper")
of_grid = []
for task in PAPER.tasks:
    proofs = {way: first(rows(grid, "records", task=task, way=way)).get("runs") for way in ("command", "papermill")}
    took = first(rows(grid, "bank", task=task)).get("times")
    steps = PAPER.protocol.steps * took["step"]["median"] if took else None
    of_grid.append(
        {
            "task": charts.task_name(task),
            "runs": RUNS,
            "records, command": proofs["command"],
            "records, papermill": proofs["papermill"],
            "start-up, s": took and took["startup_seconds"],
            "steps": duration(steps),
            "evaluations": duration(took and whole(took) - steps),
            "all": duration(took and whole(took) + took["startup_seconds"]),
        }
    )
table(of_grid, dict.fromkeys(of_grid[0], "{}") | {"start-up, s": "{:.0f}"})

# %% [markdown]
# A hundred GPUs do not make a study a hundred times as fast: a GPU that is left with a run or two is not full, and
# where it compiles it does so for these alone. A study of many seeds, rates or tasks gives them more to do.
#
# ## One adapter alone
#
# A bank serves studies; who adapts one model trains one CP adapter through PEFT. There nothing is packed or recorded.
# The tuner makes the {term}`factor pairs <factor pair>` of all layers of one shape at once, in a few small kernels a
# step, where PEFT's LoRA has its matrices as they are but casts each input to float32; so it depends on the number of
# layers which of the two has more kernels, and an eager step is as long as its launches. Both here have budgets as
# near to each other as they come, and take turns in one process. *Time*, *memory* and *kernels* of a step are CP's
# over LoRA's; the memory is its peak.

# %% tags=["hide-input"]
ADAPTERS = {
    "backbone": "{}", "step": "{}", "rank": "{}", "components": "{}", "tokens": "{}", "time": "{:.2f}",
    "memory": "{:.3f}", "kernels": "{:.2f}", "LoRA, ms": "{:.1f}", "CP, ms": "{:.1f}",
}  # fmt: skip
alone = []
for name, result in bench.items():
    if not name.startswith("one-adapter-"):
        continue
    for row in rows(result, "step", family="cp"):
        setting = {key: row[key] for key in ("mode", "rank", "tokens")}
        of_lora_s, of_cp_s = seconds(first(rows(result, "step", family="lora", **setting))), seconds(row)
        of_lora, of_cp = (first(rows(result, "adapter", family=family, **setting)) for family in ("lora", "cp"))
        alone.append(
            {
                "backbone": NAMES.get(result["settings"]["backbone"], result["settings"]["backbone"]),
                "step": row["mode"],
                "rank": row["rank"],
                "components": of_cp.get("size"),
                "tokens": row["tokens"],
                "LoRA, ms": times(1e3, of_lora_s),
                "CP, ms": times(1e3, of_cp_s),
                "time": divided(of_cp_s, of_lora_s),
                "memory": divided(of_cp.get("peak_memory_bytes"), of_lora.get("peak_memory_bytes")),
                "kernels": divided(of_cp.get("kernels"), of_lora.get("kernels")),
                "CP's tensors": of_cp.get("tensors"),
                "LoRA's tensors": of_lora.get("tensors"),
            }
        )
table(alone, ADAPTERS)

# %% [markdown]
# A compiled step is shorter than an eager one and still waits for the host, and there CP pays for its form: it has
# {glue:text}`cp_tensors` tensors where LoRA has {glue:text}`lora_tensors`, each of which the compiled code checks,
# hands over and gives a gradient. So it can take longer even where it has fewer kernels. Where it has more kernels as
# well, its size is no multiple of eight, which is the likely reason, and not tested. A bank has neither cost: it holds
# all its adapters in one tensor a factor.

# %% [markdown]
# ## Half precision
#
# On the GPU the times above are those of a backbone in bfloat16, products with adapters included; the adapters' own
# scalars, heads and AdamW's moments are float32 all the same. Does that change what a study finds? Two studies of
# whole runs on SST-2 differ in nothing but the backbone's precision, so their difference is taken {term}`seed` by seed
# and item by item, and its interval counts both ([`cpadapt.analysis.statistics`](../book/api.md)).
# {glue:text}`precision`

# %% tags=["hide-input"]
HALF, FULL = "bfloat16", "float32"
by_cell = {}
for dtype in (HALF, FULL):
    folder = PROJECT / "results" / f"precision-{dtype}"
    for record in load_records(folder) if folder.is_dir() else []:
        by_cell.setdefault((record.label, record.config.size), {}).setdefault(dtype, []).append(record)

drift = []
for (label, size), of_dtype in by_cell.items():
    if of_dtype.keys() < {HALF, FULL}:
        continue
    half, full = (outcomes(of_dtype[dtype]) for dtype in (HALF, FULL))
    gap = compare(half, full)
    low, high = (100 * end for end in gap.interval())
    drift.append(
        {
            "adapter": f"{charts.family_name(label)} {size}",
            "seeds": gap.seeds,
            f"{HALF}, %": 100 * half.right.mean(),
            f"{FULL}, %": 100 * full.right.mean(),
            "difference, points": 100 * gap.mean,
            "95 % interval": f"{low:+.2f} to {high:+.2f}",
            "holds zero": low <= 0 <= high,
        }
    )
table(
    drift,
    {"adapter": "{}", "seeds": "{}", f"{HALF}, %": "{:.2f}", f"{FULL}, %": "{:.2f}", "difference, points": "{:+.2f}",
     "95 % interval": "{}"},
)  # fmt: skip

# %% [markdown]
# ## What others report
#
# Systems that train many LoRA adapters on one base model give these figures. They are theirs, not measured here.

# %% tags=["hide-input"]
charts.table(
    pd.DataFrame(
        [
            ("PLoRA", "up to 12.8× throughput, up to 7.52× shorter makespan", "–"),
            ("mLoRA", "about 30 % less time for a task", "methods like FSDP"),
            ("LoRAFusion", "up to 1.96×, 1.47× on average", "Megatron-LM"),
            ("LoRAFusion", "up to 1.46×", "mLoRA"),
            ("tLoRA", "1.2 to 1.8× throughput", "–"),
            ("ALTO", "13.8×", "LoRAFusion, at 70B"),
            ("ALTO", "4.7×", "sequential runs, with early exit"),
            ("Megatron-Bridge", "no figure", "pads all adapters to the largest rank"),
        ],
        columns=["system", "reported", "against, or remark"],
    )
)

# %% [markdown]
# PLoRA {cite:p}`plora2025`, mLoRA {cite:p}`mlora`, LoRAFusion {cite:p}`lorafusion`, tLoRA {cite:p}`tlora2026`, ALTO
# {cite:p}`alto2026`, Megatron-Bridge {cite:p}`megatronbridge`. The settings differ in all that counts here: the model,
# the lengths of its texts, the devices, and what the others are compared with. A large model fills a device by itself,
# and a small one with short texts leaves most of it idle, so neither their ratios nor those of this page carry over to
# the other.
#
# ## Where these numbers come from

# %% tags=["hide-input"]
sources = []
for name, result in bench.items():
    device, versions = result["device"], result["versions"]
    sources.append(
        {
            "file": name,
            "device": device.get("gpu") or f"{device['cpu']}, {device['torch_threads']} threads",
            "commit": (versions["git_commit"] or "unknown")[:8] + ", changed" * (versions["git_clean"] is False),
            "date": result["date"][:10],
            "failed": sum("error" in row for row in result["rows"]),
        }
    )
table(sources, dict.fromkeys(("device", "file", "commit", "date", "failed"), "{}"))

# %% [markdown]
# *Changed* says that the tree was not as it was committed, and *failed* counts what a script could not measure. A
# bank's and an adapter's steps are medians of several measurements, which the files hold with the least and the
# largest; a round of peers, start-up and the last evaluation are measured once. Versions (torch, transformers and
# PEFT, in this order: {glue:text}`packages`) are in the files with all others.
#
# Next: [what was run](what_was_run.ipynb).

# %% tags=["remove-cell"]
SHOWN, LARGE = ("smollm2", "sst2", 8), 16
front = speed(SHOWN, hourly[SHOWN])
core = step_of(layered[SHOWN], front["runs"])
device = (hourly[SHOWN] or {}).get("device", {}).get("gpu")
if None in (front["bank / one"], front["bank / best"]):
    answer_speed = "How many runs an hour a bank gives beside Hugging Face's Trainer is not measured yet."
else:
    answer_speed = (
        f"On SST-2, a bank of {front['runs']} runs of SmolLM2-135M gives {front['bank']:,.0f} runs an hour on one"
        f" {device} once it has started ({front['with start-up']:,.0f} with its start-up), which is"
        f" {front['bank / one']:,.0f} times as many as one process of Hugging Face's Trainer with PEFT and"
        f" {front['bank / best']:,.0f} times as many as the best number of such processes at once."
    )
if core is None or core.products is None:
    answer_floor = "How much of a step is the frozen backbone's own work is not measured yet either."
else:
    answer_floor = (
        f"Of that bank's step {100 * core.frozen / core.bank:.0f} % is the frozen backbone's own forward and backward"
        f" pass, of which {100 * core.products / core.frozen:.0f} % are matrix products and the rest mostly waits for"
        " memory."
    )

of_one = [{row["precision"]: seconds({"seconds": row["own_step"]}) for row in rows(result, "peers", peers=1)}
          for result in hourly.values()]  # fmt: skip
padding = [
    row["padded_tokens"] / row["real_tokens"]
    for result in hourly.values()
    for row in rows(result, "peers")
    if "padded_tokens" in row
]
startup = [row["times"]["startup_seconds"] for result in hourly.values() for row in rows(result, "bank")]
in_training = [
    (row, first(rows(result, "launches alone", compiled=True, runs=row["runs"])))
    for result in layered.values()
    for row in rows(result, "steps", compiled=True)
    if row["runs"] >= LARGE
]
packages = {
    tuple(result["versions"]["packages"][name] for name in ("torch", "transformers", "peft"))
    for result in bench.values()
}
mps = {bool(result["settings"]["mps"]) for result in hourly.values() if result}
config = {name: BACKBONES[name].config() for name in ("smollm2", "opt-1.3b")}
inside = sum(row["holds zero"] for row in drift)
ridges = [divided(step.peak, bandwidth(result)) for result in layered.values() if (step := step_of(result))]
narrow = [row for row in kinds if row["backbone"] == NAMES["smollm2"]]
for name, value in {
    "answer_speed": answer_speed,
    "answer_floor": answer_floor,
    "steps": f"{PAPER.protocol.steps:,}",
    "eval_every": f"{PAPER.protocol.eval_every:,}",
    "autocast": span([divided(one.get("autocast"), one.get("plain")) for one in of_one], "{:.1f}"),
    "padding": span(padding, "{:.1f}"),
    "large": str(LARGE),
    "mps": {frozenset(): NOT, frozenset([True]): "with", frozenset([False]): "without"}.get(
        frozenset(mps), "in part with"
    ),
    "threads": told(bench.get("cpu-bank", {}).get("device", {}).get("torch_threads"), "{}"),
    "packages": "; ".join(sorted(map(", ".join, packages))) or NOT,
    "startup": span(startup, "{:.0f}"),
    "over_copy": span([row["elementwise"] / row[COPIED] for row in narrow if row[COPIED]], "{:.2f}"),
    "waste": span([100 * (row["computed_tokens"] / row["real_tokens"] - 1) for row, _ in in_training], "{:.1f}"),
    "waits": span(
        [100 * max(1 - seconds(launches) / seconds(row), 0) for row, launches in in_training if launches], "{:.1f}"
    ),
    "ridge": span(ridges, "{:.0f}"),
    "narrow": f"{config['smollm2'].hidden_size:,}",
    "wide": f"{config['opt-1.3b'].hidden_size:,}",
    "row_tokens": f"{TRAINING_TOKENS['cuda']:,}",
    "study_runs": str(RUNS),
    "study_tasks": str(len(PAPER.tasks)),
    "cp_tensors": span([found["CP's tensors"] for found in alone], "{}"),
    "lora_tensors": span([found["LoRA's tensors"] for found in alone], "{}"),
    "precision": f"Zero lies within the interval for {inside} of {len(drift)} adapters." if drift else "Not measured.",
}.items():
    glue(name, value, display=False)
