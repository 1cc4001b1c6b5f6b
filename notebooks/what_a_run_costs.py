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
# # A bank makes runs cheap; alone, CP is up to about a quarter slower
#
# **What does a run cost, in a bank and alone?**
#
# In a {term}`bank`, one GPU trains {q}`what_a_run_costs.bank_over_best.smollm2.boolq.b8` times as many runs of
# SmolLM2-135M an hour as ordinary processes manage side by side on long texts, and
# {q}`what_a_run_costs.bank_over_best.smollm2.sst2.b8` times as many on short ones. A whole study of three tasks is
# {q}`what_a_run_costs.study_faster.smollm2` times as fast.
# {says}`what_a_run_costs.bank_over_best.smollm2.boolq.b8 < what_a_run_costs.bank_over_best.smollm2.rte.b8`
# {says}`what_a_run_costs.bank_over_best.smollm2.rte.b8 < what_a_run_costs.bank_over_best.smollm2.sst2.b8`
# {says}`what_a_run_costs.study_tasks == 3`
#
# Timed on one {q}`what_a_run_costs.gpu`, against Hugging Face's Trainer with PEFT's LoRA doing the same work. A
# {term}`run` is the paper's: {q}`what_a_run_costs.steps|unit`, evaluations included.

# %% mystnb={"figure": {"caption": "Whole runs an hour on one GPU, and on a CPU."}} tags=["remove-input"]
from companion import what_a_run_costs
from companion.quantities.what_a_run_costs import HOURLY
from cpadapt.analysis import charts

charts.enable()
what_a_run_costs.hourly_chart([setting for setting in HOURLY if setting[-1] == "b8"])

# %% [markdown]
# One process leaves a GPU idle: the kernels of a small model are done before the host can launch the next ones. It
# also pads short texts to the length of long ones. A bank packs the examples of all its runs into one row, so it does
# neither. Longer texts and larger models fill a GPU by themselves, and gain less:
# {q}`what_a_run_costs.bank_over_one.opt.boolq.b8` times one process for OPT-1.3B's shape on BoolQ.
# {says}`min(what_a_run_costs.bank_over_one) == what_a_run_costs.bank_over_one.opt.boolq.b8`
# {says}`what_a_run_costs.bank_over_one.opt.boolq.b8 < what_a_run_costs.bank_over_one.opt.sst2.b8`
#
# A bank needs {q}`what_a_run_costs.startup.least` to {q}`what_a_run_costs.startup.most|unit` to start, which the
# figure leaves out. [The engine in full](engine.ipynb) has all numbers, with the start too.
#
# ## One adapter alone
#
# Through PEFT you train one adapter. A step of CP then takes {q}`what_a_run_costs.alone_time.eager.rank8` to
# {q}`what_a_run_costs.alone_time.compiled.rank1` times as long as one of LoRA at the same size, and about the same
# memory. So compiled CP is up to about a quarter slower; uncompiled it isn't slower.
# {says}`what_a_run_costs.alone_time.compiled.rank1 < 1.3 and what_a_run_costs.alone_time.eager.rank1 < 1.05`
# {says}`min(what_a_run_costs.alone_time) == what_a_run_costs.alone_time.eager.rank8`
# {says}`max(what_a_run_costs.alone_time) == what_a_run_costs.alone_time.compiled.rank1`
# {says}`0.9 < min(what_a_run_costs.alone_memory) and max(what_a_run_costs.alone_memory) < 1.1`

# %% mystnb={"figure": {"caption": "A step of one CP adapter on SmolLM2, over one of LoRA."}} tags=["remove-input"]
what_a_run_costs.alone_chart()

# %% [markdown]
# ## A whole study
#
# A study of the paper's size is {q}`what_a_run_costs.study_runs|unit` on each of
# {q}`what_a_run_costs.study_tasks|unit`. Start-up is included, and one bank a task.

# %% tags=["remove-input"]
charts.table(what_a_run_costs.study_table())

# %% [markdown]
# Most of a study's time goes into the long texts, where a bank gains least. *As it was run* is training and evaluation
# from the records of [the study](what_was_run.ipynb). One GPU is timed; several are computed from that. Each of many
# GPUs has few runs and isn't full, so a study gets less faster than GPUs are added.
# {says}`what_a_run_costs.study_of_banks.smollm2.gpus_1 < 100 * what_a_run_costs.study_of_banks.smollm2.gpus_100`
# {says}`what_a_run_costs.study_of_banks.opt.gpus_1 < 100 * what_a_run_costs.study_of_banks.opt.gpus_100`
#
# ## How sure?
#
# Times are medians from one kind of GPU, and another would change them. OPT-1.3B's weights aren't at hand, so its
# shape has random ones, which take as long. Half precision, which the GPU's times are in, shows no effect on accuracy
# in {q}`what_a_run_costs.zero_inside` of {q}`what_a_run_costs.adapters_in_both|unit` compared.
# {says}`what_a_run_costs.zero_inside == what_a_run_costs.adapters_in_both`
#
# **For you**: train all runs of a study in one bank, and choose a single adapter by its file: at the same size, CP's
# training takes about a quarter longer at most.
#
# Next: [the study in small](study_in_small.ipynb), which checks your installation.
