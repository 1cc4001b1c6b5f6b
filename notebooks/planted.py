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
# No: on average, no {term}`student` removes 95 % of its divergence from its {term}`teacher`, as we had asked. So
# training failed here, and what each family can express stays open.
# {says}`planted.itself_found.sst2 == 0 and planted.itself_found.generated == 0`
# {says}`planted.found.sst2 == 0 and planted.found.generated == 0`
#
# SmolLM2-135M-Instruct, {q}`planted.runs|unit`: {q}`planted.teachers|unit`, {q}`planted.students|unit`,
# {q}`planted.draws|unit` and two kinds of text. All intervals on this page are of 95 %, over draws.

# %% mystnb={"figure": {"caption": "Share removed, 95 % intervals; grey: others (named below)."}} tags=["remove-input"]
from companion import planted
from cpadapt.analysis import charts

charts.enable()
planted.itself_chart("sst2")

# %% [markdown]
# A teacher is the model with a random change of its q and v projections, of {q}`planted.norm|unit` of each weight's
# norm. The dense changes have full rank, with singular values that are equal or fall as $1/\sqrt{k}$ or $1/k$. A
# student is the unchanged model with an adapter, which learns the teacher's probabilities of two label words, without
# labels.
#
# A student's number is the share of the Kullback–Leibler divergence that it removes, on texts that no run was trained
# on. So to find an update means to answer alike: two updates that the label words can't tell apart count as one.
#
# On SST-2 the {q}`planted.itself_found.sst2|n` students of the planted family and size remove
# {q}`planted.itself_range.sst2.least` to {q}`planted.itself_range.sst2.most|unit` on average. The rule goes by that
# mean; {q}`planted.itself_open.sst2` of the intervals reach 95 %. They're wide because each draw has another teacher,
# and teachers differ.
# {says}`planted.itself_open.sst2 < planted.itself_open.sst2.n`
#
# So nothing follows about what a family can express. As a check, CP 1 should fail on CP 16. It does, with
# {q}`planted.one_for_sixteen.sst2|full`. But CP 16 fails too, with {q}`planted.sixteen_for_sixteen.sst2|full`, so the
# check shows nothing.
# {says}`planted.one_for_sixteen.sst2.high < 95 and planted.sixteen_for_sixteen.sst2 < planted.one_for_sixteen.sst2`
#
# ## Neither CP nor LoRA is shown to be ahead

# %% mystnb={"figure": {"caption": "Mean share removed, in percent, and its 95 % interval."}} tags=["remove-input"]
planted.map_chart("sst2")

# %% [markdown]
# **Fewest scalars.** No student reaches 95 %, so we asked for 80 % next. On SST-2 some size reaches it in
# {q}`planted.nearly.sst2` of {q}`planted.nearly.sst2|n` pairs of a teacher and a family. Other fields that show
# 80 % lie just below. On generated text every family reaches it at every teacher, with its smallest size.
# {says}`planted.nearly.generated == planted.nearly.generated.n`
# {says}`planted.nearly_smallest.generated == planted.nearly.generated.n`
#
# **Equal size.** We compared CP 11 with LoRA 1, and CP 44 with LoRA 4. A lead is a mean of at least one point with an
# interval that leaves out zero. Of {q}`planted.differences|unit` by text and teacher, {q}`planted.leading` is a lead,
# and about {q}`planted.by_chance` at most are expected by chance.
# {says}`planted.leading < planted.by_chance`
#
# **Below the first rank.** One component removes {q}`planted.below_rank.one.sst2.least` to
# {q}`planted.below_rank.one.sst2.most|unit` on SST-2, by teacher, and four remove
# {q}`planted.below_rank.four.sst2.least` to {q}`planted.below_rank.four.sst2.most|unit`.
#
# **What a share says.** No student can express the dense update with equal singular values, and yet they remove
# {q}`planted.dense_range.sst2.least` to {q}`planted.dense_range.sst2.most|unit` of its divergence. A part of every
# divergence is one shift of the scores, the same on every text, which is cheap. So a large share doesn't show that the
# update was found, and shares say something beside each other only.
#
# **Generated text.** The same teachers answered on generated sentences too. All {q}`planted.higher_on_generated` means
# of a teacher and a student are larger there than on SST-2, by {q}`planted.texts_apart.least` to
# {q}`planted.texts_apart.most|unit`; {q}`planted.texts_open` of the intervals include zero. The shift may be a larger
# part there. Students of the planted kind still remove only {q}`planted.itself_range.generated.least` to
# {q}`planted.itself_range.generated.most|unit`. No verdict was planned on this.
# {says}`planted.higher_on_generated == planted.higher_on_generated.n`

# %% mystnb={"code_prompt_show": "80 % on SST-2", "code_prompt_hide": "Hide"} tags=["remove-input", "hide-output"]
charts.table(planted.reach_table())

# %% mystnb={"code_prompt_show": "Equal size", "code_prompt_hide": "Equal size"} tags=["remove-input", "hide-output"]
charts.table(planted.lead_table())

# %% mystnb={"code_prompt_show": "Generated", "code_prompt_hide": "Generated"} tags=["remove-input", "hide-output"]
charts.table(planted.map_table("generated"))

# %% mystnb={"code_prompt_show": "Minus SST-2", "code_prompt_hide": "Minus SST-2"} tags=["remove-input", "hide-output"]
charts.table(planted.text_table())

# %% [markdown]
# ## Longer training wasn't enough
#
# After these runs we planned longer ones. First we tried four rates for each of {q}`planted.longer_at_edge|n` students
# on SST-2, {q}`planted.longer_runs|unit` with {q}`planted.more.texts` times the texts and
# {q}`planted.more.examples` times the examples.
#
# A rule, made before that, asked CP 4 or LoRA 4 to remove 90 % of the divergence from a teacher of its kind,
# on {term}`dev` and at its chosen rate. CP 4 removes {q}`planted.longer.cp|unit` and LoRA 4
# {q}`planted.longer.lora|unit`. So we **didn't run** the longer study.
# {says}`max(planted.longer.cp, planted.longer.lora) < 90`

# %% mystnb={"figure": {"caption": "Dots are runs, a line a draw; bars: means of longer runs."}} tags=["remove-input"]
planted.longer_chart()

# %% [markdown]
# Grey are runs of the study that chose the first rates, with the same teachers and dev texts; they had half the steps
# of the first study. Of the {q}`planted.longer_higher|n` longer runs that have one,
# {q}`planted.longer_higher` remove more. On LoRA 4's update
# LoRA 4 goes from {q}`planted.trial` to {q}`planted.longer.lora|unit`. A lower rate has a part in that: at the former
# rate it reaches {q}`planted.at_former_rate|unit`. So more texts and steps and lower rates seem to be a part of what
# was missing, and not all.
# {says}`planted.longer_higher > 0.9 * planted.longer_higher.n`
# {says}`planted.trial < planted.at_former_rate and planted.at_former_rate < planted.longer.lora`
#
# These are {q}`planted.longer_draws|unit`, too few for a useful interval: in them CP 4 removes
# {q}`planted.longer_by_draw.cp.least` and {q}`planted.longer_by_draw.cp.most|unit` of CP 4's divergence. Dev chose
# both rate and step, which flatters all shares. No chosen rate is at the edge of its grid. The highest mean, of any
# student at any rate, is {q}`planted.longer_most|1|unit`.
#
# Two pilots with easier updates are planned, and not run: one of a third of the norm, one of the v projections alone.
# {says}`planted.not_run == 'planted-pilot-small and planted-pilot-v'`
# {says}`planted.longer_at_edge == 0 and planted.longer_most < 90`
#
# ## What limits it?
#
# We asked this after seeing the data of the first study.

# %% tags=["remove-input"]
charts.table(planted.course_table())

# %% [markdown]
# These are means over all students and teachers. Of training texts only the loss is on record. Its fall is a share of
# dev's divergence at the start, and so may pass it. Dev's texts come from the training split, and no run was trained
# on them.
#
# On generated text the training loss falls by about as much as it can, and clearly further than dev's. So what's left
# there seems to be on unseen texts. On SST-2 about a quarter stays even on training texts. These students aren't done,
# or are stuck, and we can't tell which: the rate falls to zero by the last step, which slows them too.
# {says}`planted.on_train.generated.low < 100 and planted.on_train.generated.high > 100`
# {says}`planted.train_ahead.generated.low > 0`
# {says}`planted.on_train.sst2.high < 90 and 65 < planted.on_train.sst2 and planted.on_train.sst2 < 80`
# {says}`planted.judged_last.sst2 > 50 and planted.judged_last.generated > 50`
#
# ## How sure?
#
# Four draws are few, and teachers differ by draw. On SST-2, averaged over students, the
# {q}`planted.drawn|unit` range from {q}`planted.teacher_range.sst2.least` to
# {q}`planted.teacher_range.sst2.most|unit`. Averaged over teachers, students range from
# {q}`planted.student_range.sst2.least` to {q}`planted.student_range.sst2.most|unit`.
# {says}`planted.student_range.sst2.most - planted.student_range.sst2.least < 10`
# {says}`planted.teacher_range.sst2.most - planted.teacher_range.sst2.least > 40`
#
# Each student has one rate and scale for all teachers. Dev chose them for five students, with half the steps, on other
# draws of three teachers. The other {q}`planted.taken_over` took a neighbour's, CP 4 and CP 16 among them.
# The lowest rate that was tried fell to {q}`planted.at_lowest.rate|unit`, all LoRAs among them, and the lower of two
# scales to all. So lower ones may do better.
# {says}`planted.taken_over == planted.taken_over.n - 5 and planted.at_lowest.scale == planted.at_lowest.scale.n`
#
# Because LoRA 4 removed only {q}`planted.trial|unit` of LoRA 4's divergence on dev there, all runs have
# {q}`planted.steps|unit` of {q}`planted.batch|unit`, by a rule made beforehand. Evaluations were put twice as far
# apart too, of which the rule says nothing.
# {says}`planted.trial < 95`
#
# In bfloat16 even the right update leaves a remainder, and we don't know how large it is. The best single run removes
# {q}`planted.best_run.generated|unit` on generated text and {q}`planted.best_run.sst2|unit` on SST-2, so at those two
# teachers it is small; others may be harder. And nothing here is about updates that tasks teach, other norms, or more
# label words.

# %% mystnb={"code_prompt_show": "Rates and scales", "code_prompt_hide": "Hide"} tags=["remove-input", "hide-output"]
charts.table(planted.settings_table())

# %% [markdown]
# **For you**: an adapter that falls short of a target doesn't show that its family can't express it. Here the target's
# family fell short too.
#
# Next: [how sure can one be?](how_sure.ipynb).
