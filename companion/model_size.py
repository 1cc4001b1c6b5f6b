"""The main study's questions on three sizes of model: the one of the plan, and what else the same runs say."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from companion import PROJECT, main_study, plan, planned, quantities
from companion.plan import MAIN, SMALLER, SMALLEST
from cpadapt.analysis import charts
from cpadapt.inputs.backbones.specs import BACKBONES
from cpadapt.records.config import HEAD, Cell
from cpadapt.records.record import Record
from cpadapt.study import load_study

STUDIES: Mapping[str, str] = {
    model: study
    for model, study in (("qwen15", MAIN), ("qwen05", SMALLER), ("smollm2", SMALLEST))
    if planned.is_measured(study)
}
"""The study of each model, of those that are measured."""

SHOWN: Mapping[str, tuple[str, str]] = {
    "one": ("cp", "one CP component"),
    "equal": ("cp", "CP of LoRA 1's size"),
    "rank": ("lora", "LoRA 1"),
}
"""The cells that all studies have, whatever their components: each one's family and name."""


def cell(study: str, which: str) -> Cell:
    """One of `SHOWN` in a study."""
    return {"one": ("cp", 1), "equal": ("cp", plan.AT_EQUAL_SIZE[study][1]), "rank": ("lora", 1)}[which]


def title(study: str) -> str:
    """The model's name, short."""
    return BACKBONES[load_study(PROJECT / "studies" / f"{study}.toml").backbone].title


FAR = 0.1
"""A run this far below the head alone, on the same draw, has collapsed: a rule made after the data were seen."""


def compared(study: str, label: str) -> list[tuple[Record, Record]]:
    """The runs of one family in the primary number, each with that of the head alone on its task and draw."""
    return [
        (run, cells[HEAD, 0][draw])
        for cells in main_study.runs(study).values()
        for cell in plan.primary(study)
        if cell[0] == label
        for draw, run in cells[cell].items()
    ]


def collapsed(study: str, label: str) -> int:
    """How many of these runs have collapsed, or have no outcome."""
    return sum(
        run.outcome is None or (head.outcome is not None and run.outcome.accuracy < head.outcome.accuracy - FAR)
        for run, head in compared(study, label)
    )


def gain_rows() -> pd.DataFrame:
    """What `SHOWN` gain over the head alone on each model, over tasks, for `charts.gain_chart`."""
    rows = []
    for study in STUDIES.values():
        for which, (label, name) in SHOWN.items():
            mean = main_study.over_sources(main_study.gains(cell(study, which), study))
            low, high = mean.interval(main_study.LEVEL)
            row = {"what": title(study), "label": label, "size": cell(study, which)[1], "cell": name}
            rows.append(row | {"mean": mean.mean, "low": low, "high": high})
    return pd.DataFrame(rows)


def lead_rows() -> pd.DataFrame:
    """LoRA minus CP over tasks and on each, by model, for `charts.interval_chart`."""
    return pd.concat(main_study.task_chart_rows(study).assign(group=title(study)) for study in STUDIES.values())


def first_chart() -> Any:
    """The book's first figure: what cells gain on each task, beside LoRA minus CP on each task and model."""
    import altair as alt

    gains = main_study.gain_rows()
    leads = lead_rows()
    leads = leads.iloc[leads["what"].map(list(dict.fromkeys(gains["what"])).index).argsort(kind="stable")]
    one = charts.gain_chart(gains, main_study.GAIN, row=18, level=main_study.LEVEL).properties(title=title(MAIN))
    two = charts.interval_chart(leads, "LoRA − CP, points", plan.MARGIN, row=18, level=main_study.LEVEL)
    two = two.properties(title="LoRA − CP at equal size")
    both = alt.concat(one, two, columns=2).resolve_scale(
        color="independent", stroke="independent", fill="independent", yOffset="independent"
    )
    return both.properties(
        description=f"{one.description} Beside it, LoRA minus CP at equal size on {len(STUDIES)} models."
    )


def table() -> pd.DataFrame:
    """The models, to read: one component's size and share, what it costs, and LoRA's lead at equal size."""
    level = f"{100 * main_study.LEVEL:.0f} %"
    return quantities.table(
        {model: title(study) for model, study in STUDIES.items()},
        {
            "CP at LoRA 1's size": "model_size.equal.{}",
            f"one component's share of the best gain ({level} interval)": "model_size.share.{}|full",
            f"LoRA 1 − one component ({level})": "model_size.costs.{}|full",
            f"LoRA − CP at equal size ({level})": "model_size.lead.{}|full|signed",
        },
        "model",
    )
