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
# # No family is shown to give more for its scalars
#
# **Which of five adapter families gains most for its {term}`trainable scalars <trainable scalar>`?**
#
# None is shown to. At equal size {q}`families.equivalent` of {q}`families.compared|unit` with LoRA come out
# equivalent, and CP on SmolLM2 is open. Whether CP or LoKr gains more at their smallest is open too.
# {says}`families.verdict.melora.minilm == 'equivalent' and families.verdict.melora.smollm2 == 'equivalent'`
# {says}`families.verdict.cp.minilm == 'equivalent' and families.verdict.symlora.minilm == 'equivalent'`
# {says}`families.verdict.cp.smollm2 == 'open'`
# {says}`families.verdict.smallest.minilm == 'open' and families.verdict.smallest.smollm2 == 'open'`
#
# The largest of these differences from LoRA is CP's on SmolLM2, {q}`families.lead.cp.smollm2|full|signed`.
# {q}`families.runs|unit`: two models, six tasks, {q}`families.draws|unit` of each adapter;
# {q}`families.lead.cp.smollm2|level` intervals. {says}`-families.lead.cp.smollm2 > max(families.lead.melora)`
# {says}`-families.lead.cp.smollm2 > abs(families.lead.cp.minilm)`
# {says}`-families.lead.cp.smollm2 > abs(families.lead.symlora.minilm)`

# %% mystnb={"figure": {"caption": "Mean gains on SmolLM2, without intervals."}} tags=["remove-input"]
from companion import families, main_study, plan
from cpadapt.analysis import charts

charts.enable()
charts.budget_chart(families.gain_rows("smollm2"), main_study.GAIN).properties(title="SmolLM2: no lead is shown")

# %% [markdown]
# Tasks differ in how much there is to gain, so each mean's interval is wide: that of LoRA's rank 1 is
# {q}`families.gain.lora1.smollm2|interval`. Two adapters on the same tasks and draws can be compared far better, and
# only such differences are tested.

# %% mystnb={"figure": {"caption": "Mean gains on MiniLM, without intervals."}} tags=["remove-input"]
charts.budget_chart(families.gain_rows("minilm"), main_study.GAIN).properties(title="MiniLM: no lead is shown")

# %% mystnb={"code_prompt_show": "SmolLM2", "code_prompt_hide": "SmolLM2"} tags=["remove-input", "hide-output"]
charts.table(families.cell_table("smollm2"))

# %% mystnb={"code_prompt_show": "MiniLM", "code_prompt_hide": "MiniLM"} tags=["remove-input", "hide-output"]
charts.table(families.cell_table("minilm"))

# %% [markdown]
# ## At equal size

# %% mystnb={"figure": {"caption": "Differences; 95 % intervals, dashed half a point."}} tags=["remove-input"]
charts.interval_chart(families.lead_rows(), "points", plan.MARGIN).properties(title="No difference is shown")

# %% [markdown]
# The first three lines compare a family with LoRA at nearly the same scalars, averaged over three sizes. The last one
# compares one CP {term}`component` with LoKr's rank 1. *Shown* and *equivalent* take all tests of a model into account
# (Holm); *equivalent* means clearly within half a point.
# {says}`all(families.p_value > 0.05)`

# %% mystnb={"code_prompt_show": "All tests", "code_prompt_hide": "All tests"} tags=["remove-input", "hide-output"]
charts.table(families.test_table())

# %% [markdown]
# ## Below LoRA's first rank
#
# CP and LoKr begin at about a tenth of the scalars of LoRA's rank 1, and SymLoRA at half of them.
# {says}`8 < min(families.of_rank.cp) and max(families.of_rank.cp) < 12`
# {says}`49 < families.of_rank.symlora.minilm < 51`
# {says}`8 < min(families.of_rank.lokr) and max(families.of_rank.lokr) < 12`

# %% tags=["remove-input"]
charts.table(families.smallest_table())

# %% [markdown]
# *Best* is each task's adapter that is best on {term}`dev`. Its gain may be zero over tasks like these on SmolLM2, so
# *any* share is possible there, and on MiniLM few are ruled out.
# {says}`families.gain.lora1.smollm2.low < 0 and families.share.cp.minilm.low < 0`
#
# The last column is surer, but we added it after seeing the data, and it's no test. One component is below LoRA's
# rank 1 on both models, and so is LoKr's rank 1: their intervals leave out zero. SymLoRA's rank 1, with half the
# scalars, isn't shown to be.
# {says}`families.behind.symlora.minilm.low < 0 < families.behind.symlora.minilm.high`
# {says}`families.behind.cp.minilm.high < 0 and families.behind.cp.smollm2.high < 0`
# {says}`families.behind.lokr.minilm.high < 0 and families.behind.lokr.smollm2.high < 0`
#
# ## When to take another family
#
# - **LoRA, where its rank 1 fits.** Nothing is shown ahead of it, and everything loads it.
# - **LoKr, where you want PEFT alone.** It starts a few scalars below CP. CP's smallest minus LoKr's is
#   {q}`families.lead.smallest.minilm|full|signed` on MiniLM and {q}`families.lead.smallest.smollm2|full|signed` on
#   SmolLM2. {says}`all(families.lead.smallest.low < 0)`
# - **SymLoRA, where scalars count and files don't.** It trains half as many as LoRA's rank 1, but saved as plain LoRA
#   its file is as large. It takes square projections alone, and is measured on MiniLM only.
# - **CP, at the sizes between.** It grows by a component, beyond LoRA's rank 1 too. LoKr's steps are as small,
#   but they stop near that rank.
#
# We found no reason for MELoRA: it's equivalent to LoRA of as many scalars, and as plain LoRA its file is larger.

# %% tags=["remove-input"]
charts.table(families.kept_table())

# %% [markdown]
# These are SmolLM2's adapters, and MiniLM's of SymLoRA. All five families merge into the weights exactly, and none
# keeps anything frozen besides; [a table](which_adapter.ipynb) has them beside families that start at one scalar. The
# time of a step isn't measured by family, because all families shared their {term}`banks <bank>`.
#
# ## How sure?
#
# Six tasks have five sources, which leaves four degrees of freedom: intervals are wide. *Open* is no tie.
#
# One rule chose each family's rate and scale on other draws, from four rates and two scales, for all tasks. In
# {q}`families.at_highest` of {q}`families.choices|unit` it took the highest rate, each time for CP, which may gain
# more at higher ones. LoRA 4 on SmolLM2 got the lowest.
# {says}`families.which_highest == 'CP 1 minilm, CP 9 minilm, CP 1 smollm2 and CP 11 smollm2'`
# {says}`families.which_lowest == 'LoRA 4 smollm2'`
#
# Both models are small. SymLoRA on SmolLM2's query projections, which are square, isn't measured yet, nor are PEFT's
# tuners that start at one scalar. {says}`families.not_measured == 'families-rates-smollm2-q'`
# {says}`which_adapter.unmeasured == 'TinyLoRA, VeRA, FourierFT and Uni-LoRA'`
#
# **For you**: take LoRA if its rank 1 fits; below it CP, or LoKr if you want nothing beyond PEFT.
#
# Next: [students miss a planted update](planted.ipynb).
