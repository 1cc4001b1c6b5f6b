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

# What the pages of SST-2, RTE and BoolQ share: companion/notebooks.py puts a section where a page names it.

# %% [markdown]
# (figure)=
# SmolLM2-135M-Instruct, dequantized from four bits, with {q}`tasks.seeds.TASK|unit` a size and
# {q}`tasks.items.TASK|unit`.

# %% mystnb={"figure": {"caption": "Mean accuracy over three seeds, by trainable scalars."}} tags=["remove-input"]
from companion import contrasts, one_task
from companion.claims import MARGIN
from companion.published import read_published
from cpadapt.analysis import charts

charts.enable()
task = one_task.task_on_record("smollm2", "TASK")
charts.frontier_chart(task.runs, budget_slider=True, published=read_published().query("task == 'TASK'"))

# %% [markdown]
# The {q}`tasks.runs.TASK|unit` follow the paper's protocol at its rates: {q}`tasks.steps.TASK|unit` on
# {q}`tasks.cap.TASK|unit`, judged at the step that {term}`dev` chose. Faint points are {term}`seeds <seed>`. Move the
# budget to see the best size within it. Tick the box for the paper's values on OPT-1.3B {cite:p}`wang2026finer`, in
# part second-hand: compare the pattern, not the height. {says}`tasks.seeds.TASK == 3`
# (equal)=
#
# ## LoRA and CP of equal size

# %% mystnb={"figure": {"caption": "LoRA minus CP at equal size, with 95 % intervals."}} tags=["remove-input"]
pairs = contrasts.frame(contrasts.families(task.cells, charts.task_name("TASK")))
charts.interval_chart(pairs, "LoRA − CP, points", MARGIN)

# %% mystnb={"code_prompt_show": "Pairs", "code_prompt_hide": "Pairs"} tags=["remove-input", "hide-output"]
charts.table(contrasts.contrast_table(pairs, "task", "pair"))

# %% [markdown]
# The dashed lines are a point on either side of zero.
# (training)=
#
# ## What training does
#
# The adapters learn their examples by heart: the larger the adapter, the lower its training loss, down to almost
# nothing. At equal size CP fits more slowly. At LoRA's first rank CP is left with a loss of
# {q}`tasks.loss.TASK.matched`, at twice LoRA's rate, and LoRA with {q}`tasks.loss.TASK.rank`.
# {says}`min(tasks.least_fall_of_loss.TASK) > 0 and tasks.loss.TASK.most < 0.01`
# {says}`tasks.least_loss_behind.TASK > 0 and tasks.rate.cp == 2 * tasks.rate.lora`
#
# Of {q}`tasks.adapted.TASK|unit` with an adapter, {q}`tasks.early.TASK` were best on dev at the first of
# {q}`tasks.looks.TASK|unit` and {q}`tasks.late.TASK` at the last. Their accuracy on dev is
# {q}`tasks.dev_over_eval.TASK|unit` above that on eval, on average.
# {says}`tasks.dev_over_eval.TASK > 0`
# (choice)=
#
# The best of many sizes may look better than it is. CP's best has {q}`tasks.best.TASK.cp` %, and
# {q}`tasks.best_held_out.TASK.cp` % where half of the seeds and items choose it and the other half judges it.
# {says}`tasks.best_held_out.TASK.cp < tasks.best.TASK.cp`
# (folded)=

# %% mystnb={"code_prompt_show": "Sizes", "code_prompt_hide": "Sizes"} tags=["remove-input", "hide-output"]
charts.table(one_task.accuracy_table(task.cells, task.evaluations))

# %% mystnb={"code_prompt_show": "Plateau", "code_prompt_hide": "Plateau"} tags=["remove-input", "hide-output"]
charts.table(one_task.plateau_table(task.cells))

# %% mystnb={"code_prompt_show": "Items", "code_prompt_hide": "Items"} tags=["remove-input", "hide-output"]
charts.table(one_task.change_table(task.cells))

# %% [markdown]
# :::{dropdown} How to read these tables
# - *Pairs*: *Holm* is the p value corrected for the number of pairs, and *p (equivalence)* that of a difference of a
#   point or more.
# - *Sizes*: the standard error is that of the mean, over seeds and items.
# - *Plateau*: the smallest size within a point of its family's best, and how often each size is that one when seeds
#   and items are redrawn.
# - *Items*: how far runs agree item by item, and how many items all runs of one size get wrong and all of the other
#   right (*gained*), or the other way round (*lost*).
# :::
