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
# # Tensorization: how the sides are split
#
# **At one budget, does it matter into which parts CP splits the sides of a projection?**
#
# On SmolLM2-135M-Instruct, dequantized from four bits, at one budget and ten times the paper's rate, with
# {glue:text}`seeds` {term}`seeds <seed>` on one draw of the examples, on SST-2 the worst of
# {q}`noise.draws_known`, all {glue:text}`splits` other splits tried are shown to lie within a point
# of the default on SST-2 (differences of {glue:text}`sst2_least` to {glue:text}`sst2_most` points), and on RTE all
# have a lower mean than the same runs of the default ({glue:text}`rte_least` to {glue:text}`rte_most`), but no
# difference is {term}`clear` and none is shown to be within a point. At the paper's rates and with {glue:text}`few`
# seeds {glue:text}`clear` of {glue:text}`pairs` differences on three tasks is clear, and after correction
# {glue:text}`alike` is shown to be within a point, so what the paper says of splits, that they change little, is
# neither shown nor contradicted there.

# %%
import math

import numpy as np
import pandas as pd
from myst_nb import glue

import cpadapt
from companion import PROJECT, contrasts
from companion.claims import LEVEL, MARGIN
from companion.wording import bounds, percent, signed
from cpadapt.analysis import charts
from cpadapt.analysis.charts import task_name
from cpadapt.analysis.statistics import estimate, holm
from cpadapt.families import cp

charts.enable()

# %%
study, further = (
    cpadapt.load_study(PROJECT / "studies" / f"{name}.toml") for name in ("smollm2-splits", "smollm2-splits-seeds")
)
fixed = {task: contrasts.measured(("smollm2", study.name), task) for task in study.tasks}
trained = {task: contrasts.measured(("smollm2-seeds", further.name), task) for task in further.tasks}

# %% [markdown]
# ## What a split changes
#
# The projections of SmolLM2-135M have sides of {glue:text}`long` and {glue:text}`short`. CP takes each side as a
# product and stores one short vector a part ([the CP adapter](cp_adapter.ipynb)). So a split changes what a
# {term}`component` costs, over all layers, and how many of them a {term}`budget` holds:

# %% tags=["hide-input"]
SIDES = (576, 192)


def parts(label):
    """How each of the two sides is split, as text."""
    plan = study.families.get(label)
    split = {side: plan.options["tensor_shape"][str(side)] if plan else cp.modes(side) for side in SIDES}
    return {f"{side} as": "·".join(map(str, split[side])) for side in SIDES}


def steps(label):
    """Scalars a component, over the whole model."""
    (step,) = {budget // size for (name, size), budget in fixed["sst2"].budgets.items() if name == label}
    return step


SIZES = {"cp": [22, 44]} | {label: list(sizes) for label, sizes in study.ladder.sizes.items()}
charts.table(
    pd.DataFrame(
        [
            parts(label)
            | {"scalars a component": f"{steps(label):,}"}
            | {
                f"{place} budget": f"{size} components, {steps(label) * size:,}"
                for place, size in zip(("smaller", "larger"), sizes, strict=True)
            }
            for label, sizes in SIZES.items()
        ]
    )
)

# %% [markdown]
# The first is the default, the parts as near to each other as they go. Parts that are further apart cost more; three
# parts cost about half, and buy nearly twice as many components, each of a more special form: a vector as long as the
# side is then the product of three short ones. The {term}`rank` of an update is at most the number of components, so
# at one budget three parts allow the highest one.
#
# ## At the paper's rate
#
# Each split minus the default at the nearest budget, in points, under [the paper's protocol](protocol.ipynb). Dashed
# is a point on either side of none.

# %% tags=["hide-input"]
at_fixed = [c for task, cells in fixed.items() for c in contrasts.splits(cells, task_name(task))]
known = contrasts.frame(at_fixed)
charts.interval_chart(known, "split − default, points", MARGIN)

# %% [markdown]
# *Holm* is the p value of no difference, corrected over a task's; *alike* that of a difference of a point or more,
# uncorrected.

# %% tags=["hide-input"]
charts.table(contrasts.contrast_table(known, "task", "split"))

# %% [markdown]
# {glue:text}`few` seeds cannot say more. On BoolQ adapters learn little at this rate ([BoolQ](boolq.ipynb)), so there
# is little in which splits could differ.
#
# ## At ten times the rate, with more seeds
#
# The larger of the two budgets again, with {glue:text}`seeds` seeds of each split and the same of the default, which
# is one of the [key cells](noise.ipynb), at the highest rate tried at which no run of the default ends with a training
# loss above the readout's ([the learning rate](rates.ipynb)):

# %% tags=["hide-input"]
at_trained = [c for task, cells in trained.items() for c in contrasts.splits(cells, task_name(task))]
well = contrasts.frame(at_trained)
charts.interval_chart(well, "split − default, points", MARGIN)

# %% tags=["hide-input"]
charts.table(contrasts.contrast_table(well, "task", "split"))

# %% [markdown]
# So on SST-2, at this budget and rate, none of the splits tried needs to be preferred for its accuracy, and each may
# be taken for the {term}`parameter step` that it gives. But on the items that eval asks accuracy hardly depends on the
# number of components there either ([seeds and items](noise.ipynb)), and where nothing matters a split cannot.
#
# On RTE components seem to pay on this draw, and there it is open. All {glue:text}`splits` splits have a lower mean
# than the default, but all are compared with the same runs of it, so that they are not {glue:text}`splits` witnesses.
# On their average they lie {glue:text}`rte_apart` points from it (ninety-five percent, {glue:text}`rte_apart_ends`),
# which may be nothing and may be more than a point. Its error is {glue:text}`rte_apart_error` points;
# {glue:text}`rte_apart_end` of it would remain with no end of seeds, for RTE's few items ([seeds and
# items](noise.ipynb)), so more seeds would still tell more. BoolQ with all of its examples, where components do pay
# ([the readout](readout.ipynb)) and items are many, is not measured with other splits.
#
# Next: [an encoder with all examples](encoder.ipynb).

# %% tags=["remove-cell"]
clear = (known["holm"] < LEVEL).sum()
alike = sum(p < LEVEL for p in holm(known["p_alike"].tolist()))
for task in trained:
    points = well.loc[well["group"] == task_name(task), "mean"]
    glue(f"{task}_least", signed(points.min(), 2), display=False)
    glue(f"{task}_most", signed(points.max(), 2), display=False)
of_rte = trained["rte"].outcomes
others = [found.right for (label, _), found in of_rte.items() if label in study.families]
apart = estimate(np.mean(others, axis=0) - of_rte["cp", 44].right)
for name, value in {
    "long": str(max(SIDES)),
    "short": str(min(SIDES)),
    "few": str(len(study.seeds)),
    "seeds": str(len(further.seeds)),
    "splits": str(len(study.families)),
    "clear": str(clear) if clear else "none",
    "pairs": str(len(known)),
    "alike": str(alike) if alike else "none",
    "rte_apart": signed(apart.mean, 2),
    "rte_apart_ends": bounds(apart.interval(), 2),
    "rte_apart_error": percent(apart.standard_error, 2),
    "rte_apart_end": percent(apart.error_with(math.inf, apart.items), 2),
}.items():
    glue(name, value, display=False)
