"""The families side by side, on one projection: what their smallest sizes cost and what comes with them."""

from collections.abc import Mapping

import pandas as pd

from companion import PROJECT
from companion.plan import MAIN
from cpadapt.analysis.charts import family_name
from cpadapt.families import FAMILIES, counting
from cpadapt.families.evidence import measured
from cpadapt.families.peft_tuners import TUNERS
from cpadapt.inputs.backbones.projections import load_projections
from cpadapt.inputs.backbones.specs import Projection
from cpadapt.study import load_study

FROZEN: Mapping[str, str] = {
    "peft:tinylora": "singular vectors and random matrices, stored",
    "peft:vera": "two random matrices, stored",
    "peft:fourierft": "random frequencies, from a seed",
    "peft:unilora": "where each scalar stands, from a seed",
}
"""What PEFT's tuners have besides their trainable scalars, by name (`cpadapt.families.peft_tuners`)."""

RANKS: Mapping[str, str] = {"lokr": "size²"}
"""The rank of the equal LoRA where it is not the size."""


def projection() -> Projection:
    """The first one that the main study adapts."""
    study = load_study(PROJECT / "studies" / f"{MAIN}.toml")
    return load_projections(study.backbone, study.target_modules)[0]


def family_table() -> pd.DataFrame:
    """The families and PEFT's tuners, but for its LoRA, to read."""
    one = [projection()]
    rows = []
    for name in (*FAMILIES, *FROZEN):
        smallest = counting.smallest(name)
        rows.append(
            {
                "family": family_name(name),
                "smallest, scalars": f"{counting.count(name, one, smallest):,}",
                "next step": f"{counting.step(name, one):,}",
                "frozen beside the model": FROZEN.get(name, "nothing"),
                "rank as exact LoRA": "none: SVD" if name in TUNERS else RANKS.get(name, "size"),
                "accuracy": "measured" if name in measured()["families"] else "not\u00a0measured",
            }
        )
    return pd.DataFrame(rows)
