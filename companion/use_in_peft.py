"""What a CP adapter is on disk, as it is and as plain LoRA."""

from typing import Any

import altair as alt
import pandas as pd

from cpadapt.analysis.charts import cell_name, family_colours
from cpadapt.families import counting
from cpadapt.inputs.backbones.projections import load_projections

BACKBONE = "minilm"
COMPONENTS = 20


def file_rows() -> pd.DataFrame:
    """One row for each file: `file`, `family` and `kB`, of the float32 scalars that it holds.

    A CP adapter of `COMPONENTS` components, the largest LoRA of its budget, and the CP adapter as plain LoRA.
    """
    projections = load_projections(BACKBONE)
    cp = counting.count("cp", projections, COMPONENTS)
    rank = cp // counting.count("lora", projections, 1)
    scalars = {
        (cell_name("cp", COMPONENTS), "cp"): cp,
        (cell_name("lora", rank), "lora"): counting.count("lora", projections, rank),
        (f"CP {COMPONENTS} as plain LoRA", "lora"): counting.count("lora", projections, COMPONENTS),
    }
    return pd.DataFrame(
        {"file": name, "family": family, "kB": 4 * count / 1000} for (name, family), count in scalars.items()
    )


def file_chart() -> Any:
    """The files of `file_rows`, as bars."""
    rows = file_rows()
    colours = {name: colour for name, colour in family_colours().items() if name in set(rows["family"])}
    base = alt.Chart(rows).encode(
        alt.Y("file:N", title=None, sort=None, axis=alt.Axis(grid=False, ticks=False)),
        alt.X("kB:Q", title="kB, in float32", scale=alt.Scale(domain=[0, 1.15 * rows["kB"].max()])),
        tooltip=["file", alt.Tooltip("kB:Q", format=",.0f")],
    )
    bars = base.mark_bar(height=20).encode(
        alt.Color("family:N", legend=None, scale=alt.Scale(domain=list(colours), range=list(colours.values())))
    )
    labels = base.mark_text(align="left", dx=6, color="currentColor").encode(text=alt.Text("kB:Q", format=",.0f"))
    return (bars + labels).properties(
        title=alt.TitleParams("Keep the CP file: plain LoRA is larger", frame="bounds"),
        description="Bars of the float32 scalars of three adapter files for MiniLM, in kB: CP, LoRA of its budget, and"
        " the CP adapter exported as plain LoRA, by far the largest.",
        width="container",
        height=110,
    )
