"""What trained updates are made of: from the records of `bench/trained_updates.py` to errors and to parts of a gap.

The gap at equal scalars is LoRA's accuracy minus CP's, after equally many steps. CP that starts from the nearest CP
tensor to LoRA's trained update stands between the two and divides it::

    LoRA − CP = (LoRA − CP from LoRA's update) + (CP from LoRA's update − CP)

The first part is what CP loses of a good update and doesn't win back in training: what it can't express. The second is
what CP's training doesn't find from its usual start.
"""

import json
import lzma
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from companion.claims import LEVEL
from cpadapt.analysis.across_tasks import OnTask, on_task, over_tasks
from cpadapt.analysis.statistics import Floats, holm
from cpadapt.errors import InputError
from cpadapt.inputs.tasks.specs import TASKS
from cpadapt.records.config import Cell
from cpadapt.records.record import Outcome

SETS = ("eval", "rest")
"""What differences are over: every item that a run was judged on but for dev."""

PARTS = ("expressed", "trained")
"""The parts of the gap, each of which is tested on every backbone."""

Content = dict[str, Any]
"""One task's record, or one of its runs."""


class Stage(NamedTuple):
    """Which of a task's runs."""

    stage: str
    """`trained`, `placed` (judged as put into the model) or `trained on`."""
    cell: Cell
    """What the run trains."""
    source: Cell | None
    """Whose update it starts from; none where it is `trained`."""


def read(path: Path) -> Content:
    """A task's record."""
    content: Content = json.loads(lzma.decompress(path.read_bytes()))
    return content


def pairs(content: Content) -> list[tuple[Cell, Cell]]:
    """LoRA and CP at equal scalars, as they were trained on from LoRA's update, by size."""
    found = {
        (tuple(run["source"]), tuple(run["cell"]))
        for run in content["runs"]
        if run["stage"] == "trained on" and run["source"][0] == "lora" and run["cell"][0] == "cp"
    }
    return sorted(found)


def difference(content: Content, parts: Sequence[tuple[float, Stage]]) -> OnTask:
    """A weighted sum of accuracies, over the items of eval and rest alike, by draw.

    Args:
        content: the task's record.
        parts: each run's weight and which it is.

    Raises:
        InputError: a run is missing, or has no outcome, which is so where it diverged.
    """
    values, draws, items = [], [], []
    numbers: dict[tuple[str, int], int] = {}
    for draw, drawn in sorted(content["draws"].items(), key=lambda known: int(known[0])):
        for name in SETS:
            if name in drawn:
                weighted = sum(weight * _right(content, int(draw), name, stage) for weight, stage in parts)
                rows = Outcome(**drawn[name], **_run(content, int(draw), parts[0][1])[name]).items.tolist()
                values += np.asarray(weighted).tolist()
                draws += [int(draw)] * len(rows)
                items += [numbers.setdefault((name, row), len(numbers)) for row in rows]
    return on_task(np.array(values), np.array(draws), np.array(items))


def _right(content: Content, draw: int, name: str, stage: Stage) -> Floats:
    return Outcome(**content["draws"][str(draw)][name], **_run(content, draw, stage)[name]).is_right.astype(float)


def _run(content: Content, draw: int, stage: Stage) -> Content:
    source = None if stage.source is None else list(stage.source)
    found: list[Content] = [
        run
        for run in content["runs"]
        if (run["draw"], run["stage"], tuple(run["cell"]), run["source"]) == (draw, stage.stage, stage.cell, source)
    ]
    if len(found) != 1 or SETS[0] not in found[0]:
        raise InputError(f"there is no outcome of {stage} on draw {draw}: it was not measured, or it diverged")
    return found[0]


def gap_parts(content: Content) -> dict[str, OnTask]:
    """The gap between LoRA and CP and its two parts, each the mean over all pairs at equal scalars.

    Returns:
        `gap`, `expressed` and `trained`; the first is the sum of the others, draw by draw.

    Raises:
        InputError: as `difference`.
    """
    at = pairs(content)
    ends = {
        "lora": [Stage("trained on", lora, lora) for lora, _ in at],
        "between": [Stage("trained on", cp, lora) for lora, cp in at],
        "cp": [Stage("trained on", cp, cp) for _, cp in at],
    }
    between = {"gap": ("lora", "cp"), "expressed": ("lora", "between"), "trained": ("between", "cp")}
    share = 1 / len(at)
    return {
        name: difference(content, [(share, run) for run in ends[more]] + [(-share, run) for run in ends[less]])
        for name, (more, less) in between.items()
    }


def tests(records: Mapping[str, Sequence[Content]]) -> pd.DataFrame:
    """Which parts of the gap are shown, over tasks, as the page says beforehand.

    Args:
        records: every task's record, by backbone; on a backbone all have the same draws.

    Returns:
        Two rows for each backbone: `backbone`, `part` (`expressed` or `trained`), `mean`, `low` and `high` (the ends
        of the 95 % interval, uncorrected), `p`, `holm` (corrected over all rows) and `shown`.

    Raises:
        InputError: as `gap_parts` and `cpadapt.analysis.across_tasks.over_tasks`.
    """
    rows = []
    for backbone, contents in records.items():
        by_task = {content["task"]: gap_parts(content) for content in contents}
        groups = {task: TASKS[task].source_group for task in by_task}
        for part in PARTS:
            found = over_tasks({task: parts[part] for task, parts in by_task.items()}, groups)
            low, high = found.interval()
            rows.append({"backbone": backbone, "part": part, "mean": found.mean, "low": low, "high": high})
            rows[-1]["p"] = found.p_value()
    table = pd.DataFrame(rows)
    table["holm"] = holm(table["p"].tolist())
    table["shown"] = table["holm"] < LEVEL
    return table


def error_table(content: Content) -> pd.DataFrame:
    """How near each family comes to each source's update, over the whole model.

    Returns:
        A row for each source, family and size: `source`, `family`, `size`, `scalars` (over the model), `error`
        (√Σ‖ΔW − approximation‖² / √Σ‖ΔW‖² over modules, the mean over draws) and `shuffled`, the same of CP where rows
        and columns of ΔW are in random order.
    """
    table = pd.DataFrame(content["errors"])
    table["source"] = [f"{name} {size}" for name, size in table["source"]]
    table["total"] = table["norm"] ** 2
    table["left"] = table["total"] * table["error"] ** 2
    keys = ["source", "family", "size", "shuffled"]
    by_draw = table.groupby([*keys, "draw"], sort=False)[["total", "left", "scalars"]].sum()
    by_draw["error"] = (by_draw["left"] / by_draw["total"]) ** 0.5
    means = by_draw.groupby(keys, sort=False)[["scalars", "error"]].mean().reset_index()
    control = means[means["shuffled"]].set_index(keys[:3])["error"].rename("shuffled")
    plain = means[~means["shuffled"]].drop(columns="shuffled")
    found = plain.join(control, on=keys[:3]).reset_index(drop=True)
    return found.astype({"scalars": int})
