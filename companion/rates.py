"""The effect of the learning rate beside that of the budget, on one task's cells at the same rates of their family.

Rates are chosen on dev alone. Errors count seeds and items (`cpadapt.analysis.statistics`), and take a choice of rates
as given: what another dev set would have chosen isn't part of them. As in `companion.one_task`, what is computed comes
first, as shares, and then what words it, in percent and points.
"""

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from companion import PROJECT, quantities
from companion.contrasts import EQUIVALENCE, Contrast, frame, on_record
from cpadapt.analysis.cells import Cells, at_all_rates, cells_of, choose_rates, gives_one_class
from cpadapt.analysis.charts import FURTHER_COLOURS, SHAPES, cell_name, family_colours, family_name, task_name
from cpadapt.analysis.statistics import Estimate, Floats, compare, estimate, outcomes, require_pairs
from cpadapt.errors import InputError
from cpadapt.families import family
from cpadapt.records.config import HEAD, Cell
from cpadapt.records.record import Record
from cpadapt.records.table import tabulate
from cpadapt.study import Study, load_study

REDRAWN = 4000
"""The number of dev sets to resample."""

PAIRED = ("lora", "cp")
"""The families in the order of `cpadapt.analysis.cells.Cells.matched("lora", "cp")`."""

PAPER_RATES: Mapping[str, float] = {name: family(name).LEARNING_RATE for name in PAIRED}
"""The paper's rate, by family."""

ONE_ANSWER = "one answer"
"""The text for two cells whose runs all give one answer."""

PAPER, CHOSEN = "paper's", "chosen"
"""Where learning rates come from: the paper has one for each family, dev chooses one for each cell."""

TASKS = ("sst2", "rte", "boolq")
"""That were tried at several rates."""

STUDIES = ("smollm2", "smollm2-rates")
"""The studies of the paper's rates and of further ones."""


@functools.cache
def study() -> Study:
    """The study that tries further rates."""
    return load_study(PROJECT / "studies" / "smollm2-rates.toml")


def cells() -> dict[str, Cell]:
    """The cells that were tried at all rates of their family, by the name that quantities have."""
    return {f"{label}{size}": (label, size) for label, sizes in sorted(study().ladder.sizes.items()) for size in sizes}


def times() -> dict[str, float]:
    """The rates that were tried, as multiples of the paper's, by the name that quantities have."""
    further = [round(rate / PAPER_RATES["lora"], 9) for rate in study().families["lora"].learning_rates or ()]
    return {f"times{of_the_papers:g}": of_the_papers for of_the_papers in (1.0, *further)}


def runs_at_all_rates(studies: Sequence[str], task: str) -> list[Record]:
    """A task's runs in the project's own `results`, for cells that were tried at all rates of their family.

    Raises:
        InputError: there are no records of the task, or as `companion.records.records`.
    """
    runs = [r for r in on_record(studies) if r.config.task == task]
    if not runs:
        raise InputError(f"no record of {task!r} in the results of {', '.join(studies)}: measure it first")
    return at_all_rates(runs)


def response(records: Sequence[Record]) -> pd.DataFrame:
    """The accuracy of each cell at each rate, without the head alone.

    Args:
        records: one task's runs, with those of the head alone, as `runs_at_all_rates` returns them.

    Returns:
        One row for each cell and rate, ascending, with the columns `label`, `size`, `parameters`, `learning_rate`,
        `times` (that rate divided by the paper's), `runs`, `diverged`, `mean` and `error` (on eval, over seeds and
        items; missing where a run has no outcome), `dev` (the mean on dev), `unfit` (the number of runs that diverged
        or end with a training loss above the readout's mean), `constant` (the number of runs that give one answer, see
        `one_answer`) and `chosen` (whether dev chose the rate, see `cell_rates`).

    Raises:
        InputError: no run trains the head alone, or none has an adapter; or as
            `cpadapt.analysis.statistics.estimate`.
    """
    runs, evaluations = tabulate(records)
    if not 0 < (runs["label"] == HEAD).sum() < len(runs):
        raise InputError("a response needs runs with an adapter and runs of the head alone")
    last = evaluations[evaluations["step"] == evaluations["step"].max()].set_index("id")["train_loss"]
    floor = last[runs.loc[runs["label"] == HEAD, "id"]].mean()
    by_id = {record.id: record for record in records}
    constant, chosen = one_answer(records), cell_rates(records)
    rows = []
    cell = ["label", "size", "parameters", "learning_rate"]
    for place, group in runs[runs["label"] != HEAD].groupby(cell):
        label, size, parameters, rate = cast("tuple[str, int, int, float]", place)
        judged = [by_id[name] for name in group["id"]]
        e = estimate(outcomes(judged).right) if all(record.outcome for record in judged) else None
        rows.append(
            {"label": label, "size": size, "parameters": parameters, "learning_rate": rate,
             "times": round(rate / PAPER_RATES[label], 9), "runs": len(group),
             "diverged": group["diverged_at"].count(), "mean": e.mean if e else np.nan,
             "error": e.standard_error if e else np.nan, "dev": group["dev_accuracy"].mean(),
             "unfit": len(group) - int((last.reindex(group["id"]) <= floor).sum()),
             "constant": len(constant & set(group["id"])), "chosen": chosen[label, size] == rate}
        )  # fmt: skip
    return pd.DataFrame(rows)


def floor(records: Iterable[Record]) -> float:
    """The mean accuracy on eval of the head alone."""
    runs, _ = tabulate(list(records))
    return float(runs.loc[runs["label"] == HEAD, "eval_accuracy"].mean())


def one_answer(records: Iterable[Record]) -> set[str]:
    """The ids of runs that give the same answer to every evaluation item."""
    asked = [(record.id, record.outcome, record.outcome.label) for record in records if record.outcome]
    return {
        name for name, outcome, classes in asked if classes is not None and gives_one_class(outcome.is_right, classes)
    }


def commonest(records: Iterable[Record]) -> NDArray[np.bool_]:
    """`[items]`, whether each evaluation item is in the most frequent class, by ascending row.

    Raises:
        InputError: none of these records has the items' classes.
    """
    for record in records:
        if record.outcome and record.outcome.label is not None:
            is_most: NDArray[np.bool_] = record.outcome.label == np.bincount(record.outcome.label).argmax()
            return is_most
    raise InputError("none of these records has the items' classes")


def adapters(cells: Cells) -> Floats:
    """`[runs, items]`, the answers of both families' adapters at matched budgets, averaged over these.

    Raises:
        InputError: as `cpadapt.analysis.statistics.require_pairs`.
    """
    found = [
        cells.outcomes[label, size]
        for pair in cells.matched("lora", "cp")
        for label, size in zip(PAIRED, pair, strict=True)
    ]
    require_pairs(found)
    right: Floats = np.mean([outcomes.right for outcomes in found], axis=0)
    return right


def rises(records: Sequence[Record]) -> pd.DataFrame:
    """What each cell gains on eval from the second highest rate of its family to the highest.

    Args:
        records: one task's runs, as `runs_at_all_rates` returns them.

    Returns:
        One row for each cell, with the columns `task`, `label`, `size`, `parameters`, `mean`, `low` and `high` (the
        ends of the 95 % interval), as shares.

    Raises:
        InputError: as `cpadapt.analysis.cells.family_rates` and `cpadapt.analysis.statistics.compare`.
    """
    before, after = _at_highest_two(records)
    rows = []
    for label, size in sorted(after.outcomes.keys() - {(HEAD, 0)}):
        rise = compare(after.outcomes[label, size], before.outcomes[label, size])
        low, high = rise.interval()
        rows.append([records[0].config.task, label, size, after.budgets[label, size], rise.mean, low, high])
    return pd.DataFrame(rows, columns=["task", "label", "size", "parameters", "mean", "low", "high"])


def rise(records: Sequence[Record], *, small: bool) -> Estimate:
    """The mean of `rises` over the adapters up to LoRA's first rank's size, or over all larger ones.

    Raises:
        InputError: as `rises`, or as `cpadapt.analysis.statistics.require_pairs`.
    """
    before, after = _at_highest_two(records)
    first = after.budgets["lora", 1]
    cells = [cell for cell, budget in after.budgets.items() if cell[0] != HEAD and (budget <= first) == small]
    require_pairs([side.outcomes[cell] for cell in cells for side in (before, after)])
    return estimate(np.mean([after.outcomes[cell].right - before.outcomes[cell].right for cell in cells], axis=0))


def _at_highest_two(records: Sequence[Record]) -> tuple[Cells, Cells]:
    """The cells at the second highest rate of their family, and at the highest."""
    tried = {name: sorted({r.config.learning_rate or 0 for r in records if r.label == name}) for name in PAIRED}
    before, after = (cells_of(records, {name: tried[name][place] for name in PAIRED}) for place in (-2, -1))
    return before, after


def moved(found: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """The range of accuracy, from worst to best, over the rates at one size and over the sizes at one rate.

    Both ranges contain the noise of their cells, and more of it the more cells there are.

    Args:
        found: as `response` returns it.

    Returns:
        By label, the range over rates, averaged over sizes, and the range over sizes, averaged over rates.
    """
    distances = {}
    for label, group in found.groupby("label"):
        reached = group.pivot_table(index="size", columns="learning_rate", values="mean").to_numpy()
        distances[str(label)] = float(np.ptp(reached, axis=1).mean()), float(np.ptp(reached, axis=0).mean())
    return distances


def cell_rates(records: Iterable[Record]) -> dict[tuple[str, int], float]:
    """The rate that dev chose for each cell with an adapter, as in `cpadapt.analysis.frontier.frontier`."""
    chosen = {cell: setting.learning_rate for cell, setting in choose_rates(records).items()}
    return {cell: rate for cell, rate in chosen.items() if rate is not None}


def ways(records: Sequence[Record]) -> dict[str, Cells]:
    """The cells at the paper's rates and at the chosen ones."""
    return {PAPER: cells_of(records, PAPER_RATES), CHOSEN: cells_of(records)}


def gain(before: Cells, after: Cells, label: str) -> Estimate:
    """A family's accuracy in `after` minus that in `before`, averaged over sizes at matched budgets, run and item
    paired.

    Raises:
        InputError: as `cpadapt.analysis.statistics.require_pairs`.
    """
    place = PAIRED.index(label)
    cells = [(label, pair[place]) for pair in before.matched("lora", "cp")]
    require_pairs([side.outcomes[cell] for cell in cells for side in (before, after)])
    return estimate(np.mean([after.outcomes[cell].right - before.outcomes[cell].right for cell in cells], axis=0))


def lead(cells: Cells) -> Estimate:
    """LoRA minus CP, averaged over matched budgets, run by run and item by item.

    Raises:
        InputError: as `cpadapt.analysis.statistics.require_pairs`.
    """
    return estimate(_gap(cells, cells.matched("lora", "cp")))


def gap_change(before: Cells, after: Cells) -> Estimate:
    """`lead` in `after`, minus that in `before`, at the budgets that match in `before`.

    Raises:
        InputError: as `cpadapt.analysis.statistics.require_pairs`.
    """
    pairs = before.matched("lora", "cp")
    require_pairs([side.outcomes["cp", size] for _, size in pairs for side in (before, after)])
    return estimate(_gap(after, pairs) - _gap(before, pairs))


def _gap(cells: Cells, pairs: Sequence[tuple[int, int]]) -> Floats:
    """`[runs, items]`, the answers of LoRA minus those of CP, averaged over pairs of sizes."""
    found = [(cells.outcomes["lora", rank], cells.outcomes["cp", size]) for rank, size in pairs]
    require_pairs([outcomes for pair in found for outcomes in pair])
    gap: Floats = np.mean([lora.right - cp.right for lora, cp in found], axis=0)
    return gap


def redrawn_gaps(records: Sequence[Record], draws: int, generator: np.random.Generator) -> Floats:
    """LoRA minus CP at matched budgets on the same eval, at the rates that other dev sets would choose for each cell.

    Another dev set is assumed to change a cell's accuracy on dev at a rate by as much as a resample of eval's items,
    of dev's size, changes it on eval; items are paired over cells. The noise of the existing dev set remains, so the
    spread of the results is somewhat too large.

    Args:
        records: one task's runs, as `runs_at_all_rates` returns them.
        draws: the number of dev sets.
        generator: for the resamples.

    Returns:
        `[draws]`, shares, each an average over the matched budgets.

    Raises:
        InputError: as `response`, or as `cpadapt.analysis.statistics.outcomes`.
    """
    found = response(records).sort_values(["label", "size", "learning_rate"])
    by_cell: dict[tuple[str, int, float], list[Record]] = {}
    for record in records:
        c = record.config
        if c.learning_rate is not None:
            by_cell.setdefault((record.label, c.size, c.learning_rate), []).append(record)
    right = {place: outcomes(runs).right.mean(0) for place, runs in by_cell.items()}
    size = records[0].data["sets"]["dev"]["size"]
    items = len(next(iter(right.values())))
    shares = generator.multinomial(size, np.full(items, 1 / items), draws) / size
    gaps = np.zeros(draws)
    pairs = cells_of(records).matched("lora", "cp")
    for pair in pairs:
        for label, sign, own in zip(PAIRED, (1, -1), pair, strict=True):
            group = found[(found["label"] == label) & (found["size"] == own)]
            table = np.array([right[label, own, rate] for rate in group["learning_rate"]])
            means = table.mean(1)
            chosen = (group["dev"].to_numpy() + shares @ table.T - means).argmax(1)
            gaps += sign * means[chosen] / len(pairs)
    return gaps


def said(of_the_papers: float) -> str:
    """A multiple of the paper's rate, to read."""
    return f"{of_the_papers:.3g}×"


def response_table(task: str) -> pd.DataFrame:
    """What each cell reaches on a task at each multiple of the paper's rate, to read, and which of them dev chose."""
    columns = {said(found): f"rates.reached.{task}.{{}}.{name}" for name, found in times().items()}
    rows = {name: cell_name(*cell) for name, cell in cells().items()}
    return quantities.table(rows, columns | {"dev chose": f"rates.chosen.{task}.{{}}"}, "adapter")


def rise_chart() -> Any:
    """`rises` against the budget: the family as colour, the task as shape, with 95 % intervals."""
    import altair as alt

    table = pd.concat([rises(runs_at_all_rates(STUDIES, task)) for task in TASKS], ignore_index=True)
    table[["mean", "low", "high"]] *= 100
    cells = list(zip(table["label"], table["size"], strict=True))
    kinds = list(zip(table["label"], table["task"], strict=True))
    place = {kind: place - 2.5 for place, kind in enumerate(itertools.product(PAIRED[::-1], TASKS))}
    table = table.assign(
        family=table["label"].map(family_name),
        adapter=[cell_name(*cell) for cell in cells],
        task=table["task"].map(task_name),
        # Side by side, so that intervals of one size can be told apart.
        at=[scalars * 1.06 ** place[kind] for scalars, kind in zip(table["parameters"], kinds, strict=True)],
    )
    names = [task_name(task) for task in TASKS]
    inks = {family_name(label): family_colours()[label] for label in PAIRED}
    x = alt.X(
        "at:Q",
        title="trainable scalars",
        scale=alt.Scale(type="log", nice=False, padding=10),
        axis=alt.Axis(format="~s", grid=False, values=[5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5]),
    )
    y = alt.Y("mean:Q", title="points gained", axis=alt.Axis(format="+~g", tickCount=6))
    colours = alt.Scale(domain=list(inks), range=list(inks.values()))
    colour = alt.Color("family:N", title=None, scale=colours, legend=alt.Legend(symbolOpacity=1))
    shapes = alt.Scale(domain=names, range=list(SHAPES[: len(names)]))
    # Below the chart, because the two legends side by side would be cut off on a phone.
    symbols = alt.Legend(orient="bottom", symbolFillColor="currentColor", symbolStrokeColor="currentColor")
    shape = alt.Shape("task:N", title=None, scale=shapes, legend=symbols)
    tooltip = [
        alt.Tooltip("task:N"), alt.Tooltip("adapter:N"),
        alt.Tooltip("parameters:Q", title="trainable scalars", format=","),
        alt.Tooltip("mean:Q", title="points gained", format="+.1f"), alt.Tooltip("low:Q", title="from", format="+.1f"),
        alt.Tooltip("high:Q", title="to", format="+.1f"),
    ]  # fmt: skip
    base = alt.Chart(table)
    rank = alt.Chart(pd.DataFrame({"at": [first_rank(table)], "mean": [0.0], "said": ["LoRA's first rank"]}))
    return alt.layer(
        rank.mark_rule(strokeWidth=1).encode(y),
        rank.mark_rule(strokeWidth=1, strokeDash=[2, 3]).encode(x),
        rank.mark_text(align="right", baseline="bottom", dx=-18, dy=-4, fontSize=12).encode(
            x, y=alt.value("height"), text="said:N"
        ),
        base.mark_rule(strokeWidth=1.5, opacity=0.4).encode(x, alt.Y("low:Q"), colour, y2="high:Q"),
        base.mark_point(filled=True, size=50, opacity=1).encode(x, y, colour, shape, tooltip=tooltip),
    ).properties(
        title="High rates ruin large adapters",
        description="Points gained from ten times the paper's rate to thirty times it against trainable scalars, for"
        f" each size of CP and LoRA on {', '.join(names)}, with 95 % intervals.",
        width="container",
        height=300,
    )


def first_rank(found: pd.DataFrame) -> int:
    """The scalars of LoRA's smallest rank in a table of cells."""
    return int(found.loc[found["label"] == "lora", "parameters"].min())


def moved_chart() -> Any:
    """`moved` of each task and family as pairs of bars, in points."""
    import altair as alt

    over = {"over the rates": "rates.by_rate.{}.{}", "over the sizes": "rates.by_size.{}.{}"}
    table = pd.DataFrame(
        {"what": f"{task_name(task)}, {family_name(name)}", "over": what,
         "points": quantities.value(pattern.format(task, name)).value}
        for task, name in itertools.product(TASKS, sorted(PAIRED)) for what, pattern in over.items()
    )  # fmt: skip
    colours = alt.Scale(domain=list(over), range=list(FURTHER_COLOURS[: len(over)]))
    return (
        alt.Chart(table)
        .mark_bar(size=10)
        .encode(
            alt.X("points:Q", title="points, worst to best mean", axis=alt.Axis(tickCount=6)),
            alt.Y("what:N", sort=None, title=None, axis=alt.Axis(grid=False, ticks=False)),
            alt.YOffset("over:N", sort=list(over)),
            alt.Color("over:N", title=None, scale=colours),
            tooltip=[alt.Tooltip("what:N", title="adapters"), alt.Tooltip("over:N", title="best and worst"),
                     alt.Tooltip("points:Q", format=".1f")],
        )
        .properties(
            title="Means move with rate and size",
            description="Points of accuracy from the worst to the best, over the rates and over the sizes, on"
            f" {', '.join(map(task_name, TASKS))}, for CP and LoRA.",
            width="container",
            height=26 * len(table) // len(over),
        )
    )  # fmt: skip


def tuned_rows() -> pd.DataFrame:
    """What the rates that dev chose for each cell change, by task, for `cpadapt.analysis.charts.interval_chart`.

    The first two rows of a task are what each family gains over the paper's rates, the others LoRA minus CP at both.
    All are averages over matched budgets.
    """
    found = []
    for task in TASKS:
        by_way = ways(runs_at_all_rates(STUDIES, task))
        found += [
            Contrast(
                task_name(task), f"{family_name(name)}, chosen − paper's", gain(by_way[PAPER], by_way[CHOSEN], name)
            )
            for name in sorted(PAIRED)
        ]
        found += [Contrast(task_name(task), f"LoRA − CP, {way}", lead(cells)) for way, cells in by_way.items()]
    return frame(found)


def single_table() -> pd.DataFrame:
    """CP minus LoRA at each matched budget, at the rates that dev chose, to read."""
    columns = {
        "CP": "rates.matched.{1}", "CP − LoRA, points": "rates.at_budget.{}.{}|signed",
        "95 % interval": "rates.at_budget.{}.{}|interval|signed", "p": "rates.at_budget_p.{}.{}",
        "Holm": "rates.at_budget_holm.{}.{}", EQUIVALENCE: "rates.at_budget_alike.{}.{}",
    }  # fmt: skip
    ranks = {name: size for name, (label, size) in cells().items() if label == "lora"}
    rows = {f"{task}.{name}": (task_name(task), str(size)) for task in TASKS for name, size in ranks.items()}
    return quantities.table(rows, columns, ("task", "LoRA"))
