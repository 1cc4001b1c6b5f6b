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
# # Every verdict is one interval against one rule
#
# **What rules, runs and differences is each verdict made from?**
#
# A rule names a difference in accuracy and where the claim wants it. The {q}`claims.confidence|unit` interval of that
# difference decides.
#
# The rules are code, so the same records always give the same verdicts. [The claims](claims.ipynb) in a grid.

# %% mystnb={"figure": {"caption": "LoRA minus CP at equal size, with 95 % intervals."}} tags=["remove-input"]
from companion import verdicts
from companion.claims import MARGIN
from cpadapt.analysis import charts

charts.enable()
charts.interval_chart(verdicts.leads(), "LoRA − CP, points", MARGIN)

# %% [markdown]
# ## How a verdict is made
#
# The figure's intervals have 95 %, those of verdicts {q}`claims.confidence|unit`. A difference is taken seed by seed
# and item by item, on average over matched budgets, and its error has both sources
# ([`cpadapt.analysis.statistics`](../book/api.md)). *Matched* is a CP size whose budget is within
# {q}`claims.near|unit` of a rank's. A claim
#
# - *holds* if the whole interval lies where the claim wants it, and *fails* if it lies elsewhere;
# - *cannot be told* if the interval reaches across an end;
# - is *on the edge* if it would change without one budget, or with one other answer of one run;
# - is *not judged* if an adapter isn't shown to beat the {term}`head` alone in {term}`balanced accuracy`. *At an
#   unsuitable rate* says that each such adapter has runs with one answer for all items. What isn't judged can't fail,
#   wherever its interval lies;
# - is *not measured* if a run or a size is missing.
#
# The grid shows *cannot be told* and *on the edge* as undecided. A claim with several rules holds if all do and fails
# if one does.
#
# Differences below {q}`claims.margin|unit` count as none, and below {q}`claims.slight|unit` as slight. These margins
# are older than the records, and wider than [the plan's](../book/plan.md) half point: that is for a mean over many
# tasks, and on one of these tasks half a point [can't be detected](how_sure.ipynb). {says}`all(how_sure.seen > 0.5)`
#
# Four rules are younger than the records: *on the edge*; *not judged* for each adapter by itself; that a plateau
# begins at LoRA's first rank; and that lost runs are only counted.

# %% mystnb={"code_prompt_show": "The rules", "code_prompt_hide": "The rules"} tags=["remove-input", "hide-output"]
charts.table(verdicts.rule_table())

# %% mystnb={"code_prompt_show": "Settings", "code_prompt_hide": "Settings"} tags=["remove-input", "hide-output"]
charts.table(verdicts.case_table())

# %% [markdown]
# *Tuned* has each size at the rate that {term}`dev` chose. On SmolLM2 *many seeds* and *all examples* are at ten times
# the paper's rates. No verdicts are made from the [pilot](first_frontiers.ipynb), [other draws](noise.ipynb) and
# [orders](causes.ipynb) of the examples, and [another readout](readout.ipynb).
#
# ## The differences, claim by claim
#
# In points; the rule that CP learns is in balanced accuracy. Where a verdict cannot be told, *power* is the chance to
# show the claim with these seeds and items if it is true. *Seeds* says how many would give {q}`claims.enough|unit`;
# *more items* says that {q}`claims.most_seeds` wouldn't.

# %% mystnb={"code_prompt_show": "Plateau", "code_prompt_hide": "Plateau"} tags=["remove-input", "hide-output"]
verdicts.evidence_table("plateau")

# %% mystnb={"code_prompt_show": "Saturation", "code_prompt_hide": "Saturation"} tags=["remove-input", "hide-output"]
verdicts.evidence_table("saturates")

# %% mystnb={"code_prompt_show": "RTE", "code_prompt_hide": "RTE"} tags=["remove-input", "hide-output"]
verdicts.evidence_table("favoured")

# %% mystnb={"code_prompt_show": "Splits", "code_prompt_hide": "Splits"} tags=["remove-input", "hide-output"]
verdicts.evidence_table("splits")

# %% mystnb={"code_prompt_show": "Finer step", "code_prompt_hide": "Finer step"} tags=["remove-input", "hide-output"]
verdicts.evidence_table("finer")

# %% [markdown]
# *True* means {q}`claims.margin|unit` from the end of what is wanted, or in the middle where that has two ends.
#
# MiniLM doesn't measure the plateau, because CP's nearest size misses LoRA's first budget by {q}`claims.missed|unit`.
# From that size CP gains {q}`claims.gain_to_most|signed` points to its largest, which isn't flat.
# {says}`claims.verdict.plateau.sst2.encoder == 'not measured' and claims.missed > claims.near`
# {says}`claims.gain_to_most.low > 0`
#
# (between-loras-ranks)=
# ## Between LoRA's ranks
#
# At the paper's rates CP was run with {q}`claims.between` components too, whose budgets lie between LoRA's first two
# ranks. Over three tasks they differ from LoRA's first rank by {q}`claims.over_below.rank|full|signed`: no gain is
# seen, nor is a loss shown. {says}`all(claims.over_below.low < 0, claims.over_below.high > 0)`

# %% mystnb={"code_prompt_show": "By task", "code_prompt_hide": "By task"} tags=["remove-input", "hide-output"]
charts.table(verdicts.between_table())

# %% [markdown]
# ## What can be counted, and runs that were lost
#
# Of {q}`claims.figures_counted` figures that follow from the shapes of the projections, {q}`claims.figures_alike` are
# the paper's. {says}`claims.figures_alike == claims.figures_counted`

# %% mystnb={"code_prompt_show": "Counted", "code_prompt_hide": "Counted"} tags=["remove-input", "hide-output"]
charts.table(verdicts.counted_table())

# %% mystnb={"code_prompt_show": "Lost runs", "code_prompt_hide": "Lost runs"} tags=["remove-input", "hide-output"]
charts.table(verdicts.lost_table())

# %% [markdown]
# ## The paper's own numbers, read again
#
# The paper gives means and deviations over {q}`claims.papers_seeds` seeds for a few sizes (second-hand), so its error
# from seeds is known and small. It leaves out the error from items, which we borrow from SmolLM2's tuned runs. On RTE
# that is the larger one. Only the paper's own runs, item by item, can tell it.
# {says}`max(claims.papers_seed_error.rte) < claims.papers_item_error.rte`

# %% mystnb={"code_prompt_show": "The paper's", "code_prompt_hide": "The paper's"} tags=["remove-input", "hide-output"]
charts.table(verdicts.published_table())

# %% [markdown]
# *Over both* is the difference in units of both errors together.
#
# Next: [the pilot](first_frontiers.ipynb).
