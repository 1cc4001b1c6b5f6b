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
# # A bank's step is mostly the frozen backbone's
#
# **What takes the time of a bank's step, and why can't it take less?**
#
# The frozen backbone's own passes are {q}`what_a_run_costs.frozen_of_step|unit` of the step, on SmolLM2 and SST-2.
# If adapters cost nothing, a bank would be only a third faster.
# {says}`1.3 < what_a_run_costs.at_most.smollm2.sst2 / what_a_run_costs.bank_over_one.smollm2.sst2.b8 < 1.36`
#
# All times are from `results/bench`; a ratio compares two of one file.

# %% mystnb={"figure": {"caption": "What a step is made of, in units of its products."}} tags=["remove-input"]
from companion import what_a_run_costs
from cpadapt.analysis import charts

charts.enable()
what_a_run_costs.step_chart()

# %% [markdown]
# The unit is the time that the backbone's matrix products would take at the speed of one large square product on the
# same device. A bar of length two runs at half that speed.
#
# ## How runs an hour are measured
#
# Some steps and the evaluations are timed, and a whole run of {q}`what_a_run_costs.steps|unit` is computed from them,
# with {term}`dev` every {q}`what_a_run_costs.eval_every|unit` and {term}`eval` at the end. A bank has runs of many
# sizes, up to the paper's largest LoRA.
#
# Beside it stands Hugging Face's `Trainer` with PEFT's LoRA {cite:p}`peft`. It does the same work in the same order
# with the same losses, and nothing is wasted on its side: half precision, batches padded to their longest example,
# fused AdamW, evaluations sorted by length, nothing logged or saved. Its usual `bf16=True` is left out, because it
# makes a step {q}`what_a_run_costs.autocast.least` to {q}`what_a_run_costs.autocast.most` times as long.
# {says}`what_a_run_costs.autocast.least > 1`
#
# It runs as one process and as several at once, without NVIDIA's multi-process service. Their number rises until they
# clearly give less. {says}`what_a_run_costs.with_mps == 0`

# %% mystnb={"figure": {"caption": "Whole runs an hour, at all batch sizes."}} tags=["remove-input"]
what_a_run_costs.hourly_chart()

# %% [markdown]
# *Bank*, *one* and *best* are runs an hour once all has started. *With start-up* is a bank that starts for these runs
# alone. A plus behind the best number says that more weren't tried, *full* that more don't fit into memory.

# %% mystnb={"code_prompt_show": "Runs", "code_prompt_hide": "Runs"} tags=["remove-input", "hide-output"]
charts.table(what_a_run_costs.hourly_table())

# %% [markdown]
# OPT-1.3B's weights aren't at hand, so its *shape* is filled with random ones, which take as long. Its texts have the
# lengths that another model's tokenizer gives them. On the CPU, with {q}`what_a_run_costs.cpu_threads|unit` on as many
# cores, bank and process are in float32 and take turns.
# {says}`what_a_run_costs.cpu_threads == what_a_run_costs.cpu_cores`
#
# A bank on a GPU first compiles its kernels and records its steps. That takes {q}`what_a_run_costs.startup.least` to
# {q}`what_a_run_costs.startup.most|unit`, and least where an earlier bank of the same process had compiled most of
# them. Below a fixed amount of work the trainer doesn't compile.
#
# ## How it's done
#
# One process leaves a GPU idle, because a small backbone's kernels are done sooner than the host can launch them. It
# also pads: for each real token it computes {q}`what_a_run_costs.padding.least` to
# {q}`what_a_run_costs.padding.most`. Several processes fill the gaps but pad as before. A bank in half precision on a
# GPU does this instead:
#
# - **One packed row, no padding.** The examples of all runs lie in one {term}`packed row`. The frozen layers see one
#   long sequence and read their weights once for all runs. Rows come in a few fixed lengths, which adds
#   {q}`what_a_run_costs.waste.least` to {q}`what_a_run_costs.waste.most` % of tokens in banks of
#   {q}`what_a_run_costs.large|unit` or more.
# - **Kernels that find their own segments.** Only attention and the adapters' products know where a {term}`segment`
#   ends. Each example attends within itself, on a tile of its own length. Each run's low-rank pair meets that run's
#   tokens alone.
# - **A step is a few {term}`graphs <CUDA graph>`**, one a row and one for AdamW, recorded once for every length of
#   row. In banks of {q}`what_a_run_costs.large|unit` or more, the device then waits for the host for
#   {q}`what_a_run_costs.waits.least` to {q}`what_a_run_costs.waits.most` % of a step.
# - **{term}`Fused <fused>` elementwise work.** Norms, rotary embeddings, activations and residual sums are compiled
#   into few passes over memory, and so is the making of all {term}`factor pairs <factor pair>`. AdamW and clipping
#   take all runs' scalars at once.
#
# None of this changes a step beyond rounding. In float32 the tests compare each run of a bank with itself alone, with
# a slow loop and with the model's own padded forward. In half precision they compare the kernels with plain float32
# ones, and losses with a CPU's. Rounding can grow over a training, until the same run in another bank [is another
# run](causes.ipynb).
#
# ## Why not less
#
# A step can't cost much less than the frozen backbone's passes over the same tokens, and these not less than their
# matrix products. {says}`all(what_a_run_costs.bank_over_frozen > 1)`
#
# :::{dropdown} The columns of these tables
# *Bank / frozen* is a bank's step over the frozen backbone's alone. *Moved* is that ratio if the adapters' products,
# done one by one, took only the time to move their bytes. *Unfused / fused* is the frozen backbone without and with
# torch.compile. Per cents are of the square product's speed. All are for the largest bank that was measured.
#
# Of the kernels, *at a copy's speed* is what elementwise work would take if each group between two products read and
# wrote memory once, as fast as a large copy does. *At most* is the gain over one process if adapters cost nothing.
# :::

# %% mystnb={"code_prompt_show": "Step", "code_prompt_hide": "Step"} tags=["remove-input", "hide-output"]
charts.table(what_a_run_costs.step_table())

# %% mystnb={"code_prompt_show": "Kernels, ms", "code_prompt_hide": "Kernels, ms"} tags=["remove-input", "hide-output"]
charts.table(what_a_run_costs.kernel_table())

# %% mystnb={"code_prompt_show": "Limit", "code_prompt_hide": "Limit"} tags=["remove-input", "hide-output"]
charts.table(what_a_run_costs.limit_table())

# %% [markdown]
# **Larger batches.** With twice as many examples a step, one process does twice the work in little or no more time,
# because it has as many launches. A bank has no gaps to fill and takes about twice as long. So the larger a batch and
# the longer its texts, the less a bank has to give.
# {says}`what_a_run_costs.one.smollm2.sst2.b16 > 0.9 * what_a_run_costs.one.smollm2.sst2.b8`
# {says}`what_a_run_costs.one.smollm2.rte.b16 > 0.9 * what_a_run_costs.one.smollm2.rte.b8`
# {says}`what_a_run_costs.one.smollm2.boolq.b16 > 0.9 * what_a_run_costs.one.smollm2.boolq.b8`
# {says}`1.7 < what_a_run_costs.bank.smollm2.sst2.b8 / what_a_run_costs.bank.smollm2.sst2.b16 < 2.1`
# {says}`1.7 < what_a_run_costs.bank.smollm2.rte.b8 / what_a_run_costs.bank.smollm2.rte.b16 < 2.1`
# {says}`1.7 < what_a_run_costs.bank.smollm2.boolq.b8 / what_a_run_costs.bank.smollm2.boolq.b16 < 2.1`
# {says}`what_a_run_costs.bank_over_one.smollm2.sst2.b16 < what_a_run_costs.bank_over_one.smollm2.sst2.b8`
# {says}`what_a_run_costs.bank_over_one.smollm2.rte.b16 < what_a_run_costs.bank_over_one.smollm2.rte.b8`
# {says}`what_a_run_costs.bank_over_one.smollm2.boolq.b16 < what_a_run_costs.bank_over_one.smollm2.boolq.b8`
# {says}`what_a_run_costs.bank_over_best.smollm2.sst2.b16 < what_a_run_costs.bank_over_best.smollm2.sst2.b8`
# {says}`what_a_run_costs.bank_over_best.smollm2.rte.b16 < what_a_run_costs.bank_over_best.smollm2.rte.b8`
# {says}`what_a_run_costs.bank_over_best.smollm2.boolq.b16 < what_a_run_costs.bank_over_best.smollm2.boolq.b8`
# {says}`what_a_run_costs.bank_over_one.smollm2.sst2.b8 > what_a_run_costs.bank_over_one.smollm2.rte.b8`
# {says}`what_a_run_costs.bank_over_one.smollm2.rte.b8 > what_a_run_costs.bank_over_one.smollm2.boolq.b8`
# {says}`what_a_run_costs.bank_over_one.smollm2.sst2.b16 > what_a_run_costs.bank_over_one.smollm2.rte.b16`
# {says}`what_a_run_costs.bank_over_one.smollm2.rte.b16 > what_a_run_costs.bank_over_one.smollm2.boolq.b16`
#
# **Narrow matrices.** A product must read its input and write its output, however little it computes. With many
# tokens, its FLOP a byte depend only on its widths. The device does {q}`what_a_run_costs.ridge.least` to
# {q}`what_a_run_costs.ridge.most` in the time in which it moves a byte. SmolLM2's key and value projections are below
# that, so they wait for memory. Its other products aren't far above it, and OPT-1.3B's are.
# {says}`what_a_run_costs.flop_a_byte.smollm2.from_576_to_192 < what_a_run_costs.ridge.least`
# {says}`what_a_run_costs.flop_a_byte.smollm2.from_576_to_576 > what_a_run_costs.ridge.most`
# {says}`what_a_run_costs.flop_a_byte.smollm2.from_576_to_1536 < 2 * what_a_run_costs.ridge.most`
# {says}`min(what_a_run_costs.flop_a_byte.opt) > 4 * what_a_run_costs.ridge.most`

# %% mystnb={"code_prompt_show": "Widths", "code_prompt_hide": "Widths"} tags=["remove-input", "hide-output"]
charts.table(what_a_run_costs.width_table())

# %% [markdown]
# **What lies between.** Norms, rotary embeddings, activations, residual sums and attention do next to no FLOP, and
# each reads and writes all tokens. Products grow with the square of the width and these only with the width. So the
# narrow SmolLM2 is further from the peak than OPT-1.3B. Fused, its operations between products still take
# {q}`what_a_run_costs.over_copy.least` to {q}`what_a_run_costs.over_copy.most` times as long as at a copy's speed.
# Doing it better would shorten the frozen backbone's step by less than a tenth.
# {says}`what_a_run_costs.at_peak.opt.sst2.frozen > what_a_run_costs.at_peak.smollm2.sst2.frozen`
# {says}`what_a_run_costs.at_peak.opt.rte.frozen > what_a_run_costs.at_peak.smollm2.rte.frozen`
# {says}`what_a_run_costs.at_peak.opt.boolq.frozen > what_a_run_costs.at_peak.smollm2.boolq.frozen`
# {says}`what_a_run_costs.over_copy.least > 1`
# {says}`what_a_run_costs.to_gain < 10`
#
# **The adapters** do hardly any FLOP. But every adapted projection has its input read again, and its output read and
# written again, in both passes: that is *moved* above. On top come factor pairs, AdamW, heads and losses. Short
# kernels leave most of the device idle when they begin and end, so the ratio falls as rows grow.
# {says}`what_a_run_costs.ratio_rises_at_most < 0.02`
#
# ## More runs
#
# A run in a small bank pays for a device that isn't full. Once it is, each added run costs its own tokens, and no
# less.

# %% mystnb={"figure": {"caption": "A run's part of a step, by the runs in the bank."}} tags=["remove-input"]
what_a_run_costs.growth_chart()

# %% [markdown]
# Put all runs into one bank, as a rule. Sizes and families mix freely, since nothing is padded to the largest. A step
# of more than {q}`what_a_run_costs.row_tokens|unit` is done in several rows of whole runs in the same memory, with the
# same result. Where memory runs out, the trainer halves the rows and does the step again.
#
# *Runs that suffice* is the smallest number at which a run costs at most a tenth more than at the cheapest. A
# {term}`shard` shouldn't be smaller without need.

# %% mystnb={"code_prompt_show": "Enough runs", "code_prompt_hide": "Enough runs"} tags=["remove-input", "hide-output"]
charts.table(what_a_run_costs.enough_table())

# %% mystnb={"code_prompt_show": "Added runs", "code_prompt_hide": "Added runs"} tags=["remove-input", "hide-output"]
charts.table(what_a_run_costs.added_table())

# %% [markdown]
# A token of a longer text costs more attention. One of a shorter text carries more of what a step costs whatever its
# tokens. These are banks of the largest number of runs that was measured on all tasks:

# %% mystnb={"code_prompt_show": "Texts", "code_prompt_hide": "Texts"} tags=["remove-input", "hide-output"]
charts.table(what_a_run_costs.length_table())

# %% [markdown]
# The frozen backbone doesn't know how large a run's adapter is. The adapter's own products and moments grow with it.
# These are banks of equally many runs, all of one size, on the same rows:

# %% mystnb={"code_prompt_show": "Sizes", "code_prompt_hide": "Sizes"} tags=["remove-input", "hide-output"]
charts.table(what_a_run_costs.size_table())

# %% [markdown]
# ## Several GPUs, and the paper's grid
#
# Two GPUs of one host, one process each, share nothing: `cpadapt run --shard` deals a study's runs between them. The
# slower one counts. Start-up comes on top, and doesn't halve.

# %% mystnb={"code_prompt_show": "Two GPUs", "code_prompt_hide": "Two GPUs"} tags=["remove-input", "hide-output"]
charts.table(what_a_run_costs.two_gpus_table())

# %% [markdown]
# Processes that measure one study into one folder share its runs: each claims a bank before it trains it. These train
# on one thread each, on {q}`what_a_run_costs.writers_cores|unit`. The first to find nothing left looks every few
# seconds whether the others are done. *Doubled* are runs that two of them recorded, *lost* those that none did.
# {says}`all(what_a_run_costs.writers_doubled == 0) and all(what_a_run_costs.writers_lost == 0)`

# %% mystnb={"code_prompt_show": "Writers", "code_prompt_hide": "Writers"} tags=["remove-input", "hide-output"]
charts.table(what_a_run_costs.writers_table())

# %% [markdown]
# The paper's own grid needs weights that aren't at hand. With random ones, `cpadapt run studies/paper.toml` and the
# notebook `run_budget` through papermill each left a record of every run after a few steps. The whole bank of each
# task is timed. {says}`all(what_a_run_costs.grid_records == what_a_run_costs.study_runs)`

# %% mystnb={"code_prompt_show": "The grid", "code_prompt_hide": "The grid"} tags=["remove-input", "hide-output"]
charts.table(what_a_run_costs.grid_table())

# %% [markdown]
# ## One adapter alone
#
# Through PEFT nothing is packed or recorded, and an eager step is as long as its launches. The tuner makes the
# {term}`factor pairs <factor pair>` of all layers of one shape at once, in a few small kernels a step. PEFT's LoRA has
# its matrices as they are, but casts each input to float32. Budgets are as near to each other as they come, and both
# take turns in one process.
#
# Made at once, the pairs of {q}`what_a_run_costs.pairs_components.rank1|unit` leave an uncompiled step of
# {q}`what_a_run_costs.pairs_ms.rank1.at_once|unit`, made layer by layer one of
# {q}`what_a_run_costs.pairs_ms.rank1.by_layer|unit`; at {q}`what_a_run_costs.pairs_components.rank8|unit` it's
# {q}`what_a_run_costs.pairs_ms.rank8.at_once` and {q}`what_a_run_costs.pairs_ms.rank8.by_layer|unit`.
# {says}`what_a_run_costs.pairs_apart == 2`
#
# This was timed on one {q}`what_a_run_costs.pairs_gpu`, while a study on another GPU shared the host's
# {q}`what_a_run_costs.pairs_cores|unit`. So compare the two ways, and not these times with those below.

# %% mystnb={"code_prompt_show": "One adapter", "code_prompt_hide": "One adapter"} tags=["remove-input", "hide-output"]
charts.table(what_a_run_costs.alone_table())

# %% [markdown]
# A compiled step is shorter and still waits for the host. There CP pays for its form: it has
# {q}`what_a_run_costs.tensors.cp|unit` where LoRA has {q}`what_a_run_costs.tensors.lora`, and the compiled code checks
# and hands over each of them. So it can take longer even with fewer kernels. A bank doesn't pay that: it holds all
# adapters in one tensor a factor.
# {says}`all(what_a_run_costs.alone_ms.compiled < what_a_run_costs.alone_ms.eager)`
# {says}`what_a_run_costs.alone_time.compiled.rank8 > 1 > what_a_run_costs.alone_kernels.compiled.rank8`
#
# ## Half precision
#
# On the GPU the backbone is in bfloat16, products with adapters included. Adapters, heads and AdamW's moments are
# float32. Two studies of whole runs on SST-2 differ only in the backbone's precision, so they're compared {term}`seed`
# by seed and item by item. Zero lies within the interval for {q}`what_a_run_costs.zero_inside` of
# {q}`what_a_run_costs.adapters_in_both|unit`.

# %% mystnb={"code_prompt_show": "Precisions", "code_prompt_hide": "Precisions"} tags=["remove-input", "hide-output"]
charts.table(what_a_run_costs.precision_table())

# %% [markdown]
# ## What others report
#
# Systems that train many LoRA adapters on one base model give these figures. They are theirs, not measured here.
#
# | system | reported | against, or remark |
# |---|---|---|
# | PLoRA | up to 12.8× throughput, up to 7.52× shorter makespan | – |
# | mLoRA | about 30 % less time for a task | methods like FSDP |
# | LoRAFusion | up to 1.96×, 1.47× on average | Megatron-LM |
# | LoRAFusion | up to 1.46× | mLoRA |
# | tLoRA | 1.2 to 1.8× throughput | – |
# | ALTO | 13.8× | LoRAFusion, at 70B |
# | ALTO | 4.7× | sequential runs, with early exit |
# | Megatron-Bridge | no figure | pads all adapters to the largest rank |
#
# The sources are PLoRA {cite:p}`plora2025`, mLoRA {cite:p}`mlora`, LoRAFusion {cite:p}`lorafusion`, tLoRA
# {cite:p}`tlora2026`, ALTO {cite:p}`alto2026` and Megatron-Bridge {cite:p}`megatronbridge`. Models, lengths of texts,
# devices and comparisons all differ, so neither their ratios nor ours carry over to the other.
#
# ## How sure?
#
# A step's time is a median of several measurements, which the files hold with the least and the largest. Peers,
# start-up and the last evaluation are measured once. Another kind of GPU, or longer texts, would change every ratio
# here.

# %% mystnb={"code_prompt_show": "Files", "code_prompt_hide": "Files"} tags=["remove-input", "hide-output"]
charts.table(what_a_run_costs.source_table())

# %% [markdown]
# *Changed* says that the tree wasn't as it was committed, and *failed* counts what a script couldn't measure. The
# files have the versions of all other packages.
#
# Next: [what was run](what_was_run.ipynb).
