"""The families side by side, on one projection, and the learning rate to start with, by a family's size."""

import functools
import statistics
from collections.abc import Mapping

import pandas as pd

from companion import PROJECT, families, model_size, plan, planned, quantities, size
from companion.plan import MAIN
from cpadapt.analysis.charts import family_name
from cpadapt.families import FAMILIES, counting, family_or_tuner
from cpadapt.families.evidence import NEARLY
from cpadapt.inputs.backbones.projections import load_projections
from cpadapt.inputs.backbones.specs import Projection
from cpadapt.records.config import Cell
from cpadapt.study import load_study

FROZEN: Mapping[str, str] = {
    "peft:tinylora": "singular vectors and random matrices, stored",
    "peft:vera": "two random matrices, stored",
    "peft:fourierft": "random frequencies, from a seed",
    "peft:unilora": "where each scalar stands, from a seed",
}
"""What PEFT's tuners have besides their trainable scalars, by name (`cpadapt.families.peft_tuners`)."""

TRIED: Mapping[str, Mapping[str, int]] = {
    "cp": {"component": 0, "rank": 1, "ranks": 4},
    "lora": {"rank": 1, "ranks": 4},
}
"""The sizes whose rate dev chose on three models, by family: each as the rank of LoRA that costs as much, or 0 for one
component."""

BEYOND = 2
"""There is no rate for an adapter so many times larger than the largest tried."""


TUNERS_STUDY = "peft-minilm"
"""The study of PEFT's tuners."""


def accuracy() -> dict[str, str]:
    """On what the accuracy of each family, and of each of PEFT's tuners in `FROZEN`, is measured, to read."""
    known = [("measured", MAIN), *(("on small models", name) for name in (*families.STUDIES.values(), TUNERS_STUDY))]
    found = dict.fromkeys((*FAMILIES, *FROZEN), "not\u00a0measured")
    for said, name in reversed(known):
        if planned.is_measured(name):
            sizes = load_study(PROJECT / "studies" / f"{name}.toml").ladder.sizes
            found |= {label: said for label in found if label in sizes}
    return found


def projection() -> Projection:
    """The first one that the main study adapts."""
    study = load_study(PROJECT / "studies" / f"{MAIN}.toml")
    return load_projections(study.backbone, study.target_modules)[0]


def family_table() -> pd.DataFrame:
    """The families and PEFT's tuners, but for its LoRA, to read."""
    one, judged = [projection()], accuracy()
    rows = []
    for name in (*FAMILIES, *FROZEN):
        smallest, known = counting.smallest(name), family_or_tuner(name)
        ranks = [known.columns(smallest + more) for more in range(3)]
        rows.append(
            {
                "family": family_name(name),
                "smallest, scalars": f"{counting.count(name, one, smallest):,}",
                "next step": f"{counting.step(name, one):,}",
                "frozen beside the model": FROZEN.get(name, "nothing"),
                "rank as exact LoRA, first sizes": ", ".join(map(str, ranks)),
                "accuracy": judged[name],
            }
        )
    return pd.DataFrame(rows)


def _cell(label: str, named: str, model: str) -> Cell:
    """The cell on a model that has this size in `TRIED`."""
    ranks = TRIED[label][named]
    if label == "cp" and ranks:
        return label, plan.AT_EQUAL_SIZE[model_size.STUDIES[model]][ranks]
    return label, ranks or counting.smallest(label)


@functools.cache
def chosen_rates(label: str, named: str) -> tuple[float, ...]:
    """The rates that dev chose for a size in `TRIED`, one a model, from the lowest."""
    found = [size.chosen_settings(model)[_cell(label, named, model)].learning_rate for model in size.RATES]
    return tuple(sorted(rate for rate in found if rate is not None))


def first_rate(label: str, named: str) -> float:
    """The middle one of these."""
    return statistics.median(chosen_rates(label, named))


def rate_rows() -> dict[str, list[tuple[float, str]]]:
    """By family, first rates by size: up to so many times the scalars of LoRA's rank 1, the rate as text.

    Between two tried sizes with different rates both are given.
    """
    found: dict[str, list[tuple[float, str]]] = {}
    for label, tried in TRIED.items():
        rows: list[tuple[float, str]] = []
        before = ""
        for named, ranks in tried.items():
            here = quantities.value(f"which_adapter.first_rate.{label}.{named}").text()
            rows.append((NEARLY * ranks, f"{here} to {before}" if before not in ("", here) else here))
            rows.append((ranks / NEARLY, here))
            before = here
        found[label] = [*rows, (float(BEYOND * max(tried.values())), before)]
    return found


def first_rate_text(label: str, ranks: float) -> str:
    """The first rate as text of an adapter with so many times the scalars of LoRA's rank 1, or a dash."""
    return next((said for up_to, said in rate_rows().get(label, ()) if ranks <= up_to), "–")
