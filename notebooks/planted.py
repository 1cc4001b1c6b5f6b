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
# # Students miss a planted update, even of the same kind
#
# **A known update is planted in a model. Does an adapter of that family and size find it?**
#
# No: of the divergence from its {term}`teacher`, no {term}`student` removes the 95 % that we asked for, on average. So
# training failed here, and what each family can express stays open.
# {says}`planted.itself_found.sst2 == 0 and planted.itself_found.generated == 0`
# {says}`planted.found.sst2 == 0 and planted.found.generated == 0`
#
# SmolLM2-135M-Instruct, {q}`planted.runs|unit`: {q}`planted.teachers|unit`, {q}`planted.students|unit`,
# {q}`planted.draws|unit` and two kinds of text. All intervals on this page are of 95 %, over draws.

# %% mystnb={"figure": {"caption": "Share removed, with 95 % intervals; grey: other students."}} tags=["remove-input"]
from companion import planted
from cpadapt.analysis import charts

charts.enable()
planted.itself_chart("sst2")

# %% [markdown]
# A teacher is the model with a drawn change of its q and v projections. A student is the unchanged model with an
# adapter, which learns the teacher's probabilities of the label words, without labels. How near it comes is the share
# of the Kullback–Leibler divergence that it removes, on texts that no run was trained on.
#
# On SST-2 the {q}`planted.itself_found.sst2|n` students of the planted family and size remove
# {q}`planted.itself_range.sst2.least` to {q}`planted.itself_range.sst2.most|unit` on average. The rule goes by that
# mean; {q}`planted.itself_open.sst2` of the intervals reach 95 %. They're wide because each draw has a teacher of its
# kind, and teachers differ.
# {says}`planted.itself_open.sst2 < planted.itself_open.sst2.n`
#
# So nothing follows about what a family can express. CP 1, say, must not find CP 16. It removes
# {q}`planted.one_for_sixteen.sst2|full`, and that interval is below what we asked for. But CP 16 itself removes
# {q}`planted.sixteen_for_sixteen.sst2|full`, so this shows nothing.
# {says}`planted.one_for_sixteen.sst2.high < 95 and planted.sixteen_for_sixteen.sst2 < planted.one_for_sixteen.sst2`
#
# ## No size or family stands out

# %% mystnb={"figure": {"caption": "Mean share removed, in percent, and its 95 % interval."}} tags=["remove-input"]
planted.map_chart("sst2")

# %% [markdown]
# **Fewest scalars.** Nobody reaches 95 %, so we asked for 80 % next. On SST-2 some size reaches it in
# {q}`planted.nearly.sst2` of {q}`planted.nearly.sst2|n` pairs of a teacher and a family. On generated text every
# family reaches it at every teacher, with its smallest size.
# {says}`planted.nearly.generated == planted.nearly.generated.n`
# {says}`planted.nearly_smallest.generated == planted.nearly.generated.n`
#
# **Equal size.** CP 11 beside LoRA 1, and CP 44 beside LoRA 4: of {q}`planted.differences|unit` by text and teacher,
# {q}`planted.leading` is a lead, and about {q}`planted.by_chance` are expected by chance. So neither family is shown
# to be ahead.
# {says}`planted.leading < planted.by_chance`
#
# **Below the first rank.** One component removes {q}`planted.below_rank.one.sst2.least` to
# {q}`planted.below_rank.one.sst2.most|unit` on SST-2, by teacher, and four remove
# {q}`planted.below_rank.four.sst2.least` to {q}`planted.below_rank.four.sst2.most|unit`.
#
# **What a share says.** No student can express the dense update with equal singular values, and yet they remove
# {q}`planted.dense_range.sst2.least` to {q}`planted.dense_range.sst2.most|unit` of its divergence. A part of every
# divergence is one shift of the scores, the same on every text, which is cheap. So a large share doesn't show that the
# update was found.

# %% mystnb={"code_prompt_show": "Who reaches 80 %", "code_prompt_hide": "Hide"} tags=["remove-input", "hide-output"]
charts.table(planted.reach_table())

# %% mystnb={"code_prompt_show": "Equal size", "code_prompt_hide": "Equal size"} tags=["remove-input", "hide-output"]
charts.table(planted.lead_table())

# %% [markdown]
# ## More is removed on generated text
#
# The same teachers answered on generated sentences too. There all {q}`planted.higher_on_generated` pairs of a teacher
# and a student have a larger share than on SST-2, by {q}`planted.texts_apart.least` to
# {q}`planted.texts_apart.most|unit`. Students of the planted kind still remove only
# {q}`planted.itself_range.generated.least` to {q}`planted.itself_range.generated.most|unit`. No verdict was planned on
# this.
# {says}`planted.higher_on_generated == planted.higher_on_generated.n`

# %% mystnb={"code_prompt_show": "Generated", "code_prompt_hide": "Generated"} tags=["remove-input", "hide-output"]
charts.table(planted.map_table("generated"))

# %% mystnb={"code_prompt_show": "Minus SST-2", "code_prompt_hide": "Minus SST-2"} tags=["remove-input", "hide-output"]
charts.table(planted.text_table())

# %% [markdown]
# ## What limits it?
#
# We asked this after seeing the data, of the same records.

# %% tags=["remove-input"]
charts.table(planted.course_table())

# %% [markdown]
# All three are shares of dev's divergence. On generated text the loss on the last training texts falls by about as
# much as it can, so what's left is on unseen texts. On SST-2 about a quarter stays even on training texts. So these
# students aren't done, or are stuck, and we can't tell which: the rate falls to zero by the last step, which slows
# them too.
# {says}`planted.on_train.generated.low < 100 and planted.on_train.generated.high > 100`
# {says}`planted.on_train.sst2.high < 90 and 65 < planted.on_train.sst2 and planted.on_train.sst2 < 80`
# {says}`planted.judged_last.sst2 > 50 and planted.judged_last.generated > 50`
#
# ## How sure?
#
# Four draws are few, and they matter more than the student. On SST-2 a mean over students goes from
# {q}`planted.teacher_range.sst2.least` to {q}`planted.teacher_range.sst2.most|unit` by teacher drawn. A mean over
# teachers goes from {q}`planted.student_range.sst2.least` to {q}`planted.student_range.sst2.most|unit` by student.
# {says}`planted.student_range.sst2.most - planted.student_range.sst2.least < 10`
# {says}`planted.teacher_range.sst2.most - planted.teacher_range.sst2.least > 40`
#
# Each student has one rate and scale for all teachers, chosen on {term}`dev` after half the steps. LoRA's are the
# lowest that were tried, at both ranks, so a lower rate may do better. Because LoRA 4 removed only
# {q}`planted.trial|unit` of LoRA 4's divergence there, all runs have {q}`planted.steps|unit`, by a rule made
# beforehand. Evaluations were put twice as far apart too, of which the rule says nothing.
# {says}`planted.trial < 95 and planted.at_edge == 2`
#
# In bfloat16 even the right update leaves a rest. It isn't the limit on generated text, where one run removes
# {q}`planted.best_run.generated|unit`; on SST-2 the best removes {q}`planted.best_run.sst2|unit`. And nothing here is
# about updates that tasks teach. Whether more texts and steps change the answer is **not measured**; how that will be
# judged is written down in the repository's `studies/planted.md`.
#
# **For you**: an adapter that falls short of a target doesn't show that its family can't express it. Here the target's
# family fell short too.
#
# Next: [how sure can one be?](how_sure.ipynb).
