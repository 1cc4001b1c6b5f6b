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
# # At its own rate, one component has most of the gain
#
# **What did every adapter reach, on each task and model?**
#
# Over the main study's tasks, one CP {term}`component` has {q}`planned.share|unit` of the {term}`best adapter`'s gain
# over the {term}`head` alone. Choose a task below to see its cells. {says}`planned.share.low > 70`
#
# {q}`main_study.tasks|unit`, {q}`main_study.draws|unit` each; {q}`planned.share|level` interval
# {q}`planned.share|interval`.

# %% mystnb={"figure": {"caption": "One component has most of TREC's gain; 95 % intervals."}} tags=["remove-input"]
from IPython.display import HTML

from companion import linked_frontier

HTML(linked_frontier.form())

# %% [markdown]
# On TREC one component has {q}`planned.share_on.trec|unit` of the best adapter's gain. The rate matters: at the
# paper's, a thirtieth of the one here, one component gains {q}`size.one_over_head.boolq|full` on BoolQ, where the best
# adapter gains {q}`size.over_head.boolq`. The menu of rates has both.
# {says}`planned.share_on.trec > 75 and size.one_over_head.boolq < 0.3 * size.over_head.boolq`
#
# Each point is a {term}`cell`, with the 95 % interval of its mean. Choose one, by pointer or with Tab, arrows and
# Enter: below stand its runs, its accuracy on {term}`dev` during training, and its partner, the other family's cell
# that is nearest in size. Where a study tried several rates on dev, these are listed too.
#
# ## How sure?
#
# Single cells and tasks get no verdict here: among so many, some seem clear by chance. What the plan tests is on [its
# own page](planned.ipynb). Where the menu of rates counts {term}`seeds <seed>`, all runs share their examples, and the
# intervals leave out what other examples would change. SmolLM2-135M-Instruct, dequantized from four bits, is the third
# model.
#
# **For you**: look up the task most like yours before you choose a size.
#
# Next: [the paper's design](size.ipynb).
