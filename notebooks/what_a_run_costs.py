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
# # What a run costs
#
# **What does a run cost in a bank, beside a process of its own, and why not less?**
#
# On SST-2, a bank of {q}`what_a_run_costs.bank_runs.smollm2.sst2.b8` runs of SmolLM2-135M gives
# {q}`what_a_run_costs.bank.smollm2.sst2.b8` runs an hour on one {q}`what_a_run_costs.gpu` once it has started
# ({q}`what_a_run_costs.bank_with_startup.smollm2.sst2.b8` with its start-up), which is
# {q}`what_a_run_costs.bank_over_one.smollm2.sst2.b8` times as many as one process of Hugging Face's Trainer with PEFT
# and {q}`what_a_run_costs.bank_over_best.smollm2.sst2.b8` times as many as the best number of such processes at once.
# Of that bank's step {q}`what_a_run_costs.frozen_of_step|unit` is the frozen backbone's own forward and backward pass,
# of which {q}`what_a_run_costs.products_of_step|unit` are matrix products and the rest mostly waits for memory.

# %% tags=["hide-input"]
from companion import what_a_run_costs
from cpadapt.analysis import charts

charts.enable()

# %% [markdown]
# Unless a cell says otherwise, the numbers here are times in `results/bench`, which `make bench` writes, and a ratio
# is one of two times of the same file. What a file does not have is *not measured*.

# %% [markdown]
# ## Runs an hour
#
# A whole {term}`run` is the paper's: {q}`what_a_run_costs.steps|unit`, {term}`dev` every
# {q}`what_a_run_costs.eval_every` of them and {term}`eval` at the end. Some steps and the evaluations are timed, and a
# whole run is computed from these.
#
# A {term}`bank` of runs of many sizes, up to the paper's largest LoRA, is laid beside the usual way: Hugging Face's
# `Trainer` with PEFT's LoRA {cite:p}`peft`. That peer does the same work in the same order and with the same losses,
# without waste: the backbone in half precision, batches padded to their longest example only, fused AdamW, evaluations
# sorted by length, nothing logged or saved. It goes without the usual `bf16=True`, which casts in every adapter and
# takes a step longer, by a factor of {q}`what_a_run_costs.autocast.least` to {q}`what_a_run_costs.autocast.most`. It
# runs as one process, and as several at once on the same device (without NVIDIA's multi-process service), whose number
# rises until they give clearly less.
# {says}`what_a_run_costs.autocast.least > 1`
# {says}`what_a_run_costs.with_mps == 0`
#
# *Bank*, *one* and *best* are runs an hour once all has started; *with start-up* is the bank's when it starts for
# these runs alone. A plus behind the best number says that more were not tried, *full* that more do not fit into
# memory.

# %% tags=["hide-input"]
charts.table(what_a_run_costs.hourly_table())

# %% tags=["hide-input"]
what_a_run_costs.hourly_chart()

# %% [markdown]
# The weights of OPT-1.3B are not at hand, so its *shape* is filled with random ones, which take as long; and the texts
# have the lengths that another model's tokenizer gives them. On the CPU (threads: {q}`what_a_run_costs.cpu_threads`,
# as many as it has cores) bank and peer are in float32 and take turns.
# {says}`what_a_run_costs.cpu_threads == what_a_run_costs.cpu_cores`
#
# **Start-up.** Before its steady state a bank on a GPU compiles its kernels and records its steps (seconds a bank:
# {q}`what_a_run_costs.startup.least` to {q}`what_a_run_costs.startup.most`, least where a bank before it in the same
# process had compiled most of them). The more runs a bank has and the longer they are, the less it matters. Below a
# fixed amount of work the trainer does not compile.
#
# ## How it is done
#
# One process of `Trainer` leaves a GPU idle: a small backbone's kernels are done sooner than the host can launch them.
# It also pads: runs draw their batches at random, long texts beside short ones, and sorting them by length would be
# another order of training. (Tokens that a peer computes for each real one: {q}`what_a_run_costs.padding.least` to
# {q}`what_a_run_costs.padding.most`.) Several processes fill the gaps but pad as before. On a GPU in half precision a
# bank does this instead:
#
# - **One packed row, no padding.** The examples of all runs lie in one {term}`packed row`, so the frozen layers see
#   one long sequence of real tokens, and read their weights once for all of them. In banks of
#   {q}`what_a_run_costs.large|unit` or more they compute a little more than the real ones (in %:
#   {q}`what_a_run_costs.waste.least` to {q}`what_a_run_costs.waste.most`), because rows come in a few fixed lengths.
# - **Kernels that find their own segments.** Only attention and the adapters' products know where a {term}`segment`
#   ends. Both are kernels that read that on the device: each example attends within itself on a tile of its own
#   length, and each run's low-rank pair meets that run's tokens alone, with as many components as that run has.
#   Nothing is padded to the longest example or the largest adapter.
# - **A step is a few {term}`graphs <CUDA graph>`**, one a row and one for AdamW, recorded once for every length of
#   row. In banks of {q}`what_a_run_costs.large|unit` or more, the share of a step in which the device waits for the
#   host or takes its data (in %: {q}`what_a_run_costs.waits.least` to {q}`what_a_run_costs.waits.most`) is what is
#   left of the gaps.
# - **{term}`Fused <fused>` elementwise work.** Norms, rotary embeddings, activations and residual sums are compiled
#   into few passes over memory, and so is the making of all {term}`factor pairs <factor pair>`; AdamW and clipping
#   take all runs' scalars at once.
#
# None of this changes a step beyond rounding. In float32 the tests compare each run of a bank with itself alone and
# with a slow loop, and packed rows with the model's own padded forward; in half precision they compare the kernels
# with plain float32 ones, and a bank's losses with those on a CPU. Over a training rounding can grow, in half
# precision until the same run in another bank [is another run](causes.ipynb).
#
# ## Why not less
#
# A step cannot cost much less than the frozen backbone's forward and backward pass over the same tokens, and these not
# less than their own matrix products. (Only the first layer's adapters need no gradient below themselves.) The unit
# here is the time that these products would take at the speed of one large square product, measured on the same
# device: a bar of length two runs at half of that speed.
# {says}`all(what_a_run_costs.bank_over_frozen > 1)`

# %% tags=["hide-input"]
what_a_run_costs.step_chart()

# %% [markdown]
# In numbers, for the largest bank that was measured. *Bank / frozen* is a bank's step over the frozen backbone's
# alone; *moved* is what that ratio would be if the adapters' products, done one by one as they are, took only the time
# to move their bytes; *unfused / fused* is the frozen backbone without and with torch.compile, at the number of runs
# that has both (attention is ours in both). Per cents are of the square product's speed.

# %% tags=["hide-input"]
charts.table(what_a_run_costs.step_table())

# %% [markdown]
# Which kernels take the time of a bank's step, and of the frozen backbone alone on the same row, in milliseconds. *At
# a copy's speed* is what the frozen backbone's elementwise work would take if each group of operations between two
# products read what it needs once and wrote what it gives once, as fast as a large copy does:

# %% tags=["hide-input"]
charts.table(what_a_run_costs.kernel_table())

# %% [markdown]
# So there is an end to what a bank can give. If adapters cost nothing, its training step would be the frozen
# backbone's, and with its evaluations as they are it would give at most so many times the runs of one process:

# %% tags=["hide-input"]
charts.table(what_a_run_costs.limit_table())

# %% [markdown]
# That is for the smaller batch. With twice as many examples a step one process does twice the work in little or no
# more time, because its launches are as many; a bank, which has no gaps to fill, takes about twice as long. So the
# larger a batch, and the longer its texts, the less a bank has to give over processes that are busy as they are.
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
# tokens, the FLOP for each of these bytes depend only on its widths:

# %% tags=["hide-input"]
charts.table(what_a_run_costs.width_table())

# %% [markdown]
# The device does as many in the time in which it moves a byte (FLOP a byte: {q}`what_a_run_costs.ridge.least` to
# {q}`what_a_run_costs.ridge.most`, by the time of a large copy beside that of the large product). Done as a product of
# its own, as here, SmolLM2's key or value projection is below that number, so it waits for memory, and the others are
# not far above it. OPT-1.3B's are.
# {says}`what_a_run_costs.flop_a_byte.smollm2.from_576_to_192 < what_a_run_costs.ridge.least`
# {says}`what_a_run_costs.flop_a_byte.smollm2.from_576_to_576 > what_a_run_costs.ridge.most`
# {says}`what_a_run_costs.flop_a_byte.smollm2.from_576_to_1536 < 2 * what_a_run_costs.ridge.most`
# {says}`min(what_a_run_costs.flop_a_byte.opt) > 4 * what_a_run_costs.ridge.most`
#
# **What lies between.** Norms, rotary embeddings, activations, residual sums and attention do next to no FLOP, and
# each reads and writes all tokens. At a width of {q}`what_a_run_costs.width.smollm2` that is a large part of a step;
# at {q}`what_a_run_costs.width.opt` the products have grown with the square of the width and these only with the width
# itself, so that the wide backbone should come nearer to the peak, and the narrow one gain more from fusing. What is
# left after it: each group of such operations between two products reads and writes memory once, forward and backward.
# SmolLM2's takes {q}`what_a_run_costs.over_copy.least` to {q}`what_a_run_costs.over_copy.most` times as long as that
# would at a copy's speed, so that doing it better could shorten the frozen backbone's step by less than a tenth; the
# next step would be to fuse it into the products, which are a library's here.
# {says}`what_a_run_costs.at_peak.opt.sst2.frozen > what_a_run_costs.at_peak.smollm2.sst2.frozen`
# {says}`what_a_run_costs.at_peak.opt.rte.frozen > what_a_run_costs.at_peak.smollm2.rte.frozen`
# {says}`what_a_run_costs.at_peak.opt.boolq.frozen > what_a_run_costs.at_peak.smollm2.boolq.frozen`
# {says}`what_a_run_costs.over_copy.least > 1`
# {says}`what_a_run_costs.to_gain < 10`
#
# **The adapters** have hardly any FLOP of their own. But every adapted projection has its input read again, its output
# read and written again, and the same in backward: that is *moved* above. On top come the making of factor pairs,
# AdamW, the heads and losses, and kernels that are short when a row is: a kernel has a beginning and an end in which
# most of the device has nothing to do, so the ratio falls as rows grow.
# {says}`what_a_run_costs.ratio_rises_at_most < 0.02`
#
# ## More runs
#
# A run in a small bank pays for a device that is not full. Once it is, each added run costs its own tokens, and no
# less.

# %% tags=["hide-input"]
what_a_run_costs.growth_chart()

# %% [markdown]
# What each run cost that was added since the number of runs before, in milliseconds a step:

# %% tags=["hide-input"]
charts.table(what_a_run_costs.added_table())

# %% [markdown]
# ### Longer texts
#
# What a run costs grows with its tokens. A token of a longer text has more attention to pay; one of a shorter text has
# a larger part of what a step costs whatever its tokens. Here are banks of the largest number of runs that was
# measured on all tasks:

# %% tags=["hide-input"]
charts.table(what_a_run_costs.length_table())

# %% [markdown]
# ### Larger adapters
#
# The frozen backbone does not know how large a run's adapter is. The adapter's own products and moments grow with it,
# and CP's vectors have to become a {term}`factor pair` first. Here are banks of equally many runs, all of one size, on
# the same rows:

# %% tags=["hide-input"]
charts.table(what_a_run_costs.size_table())

# %% [markdown]
# ### How many runs shall a bank have?
#
# All of them, as a rule. Sizes and families may be mixed freely, since nothing is padded to the largest. Memory grows
# with the tokens of a row, but a step of more than {q}`what_a_run_costs.row_tokens|unit` on average is done in several
# rows of whole runs, one after another in the same memory, with the same result; beyond that only the adapters and
# their moments grow. Where memory runs out nevertheless, the trainer halves the rows and does the step again. For the
# price fewer runs may suffice: below is the smallest number measured at which a run costs at most a tenth more than at
# the cheapest one measured. A {term}`shard` should not be smaller than that without need.

# %% tags=["hide-input"]
charts.table(what_a_run_costs.enough_table())

# %% [markdown]
# ## A whole study, and several GPUs
#
# Two GPUs of one host, one process each, share nothing: `cpadapt run --shard` deals a study's runs between them. Times
# are those of the whole study under the paper's protocol, on two GPUs those of the slower one. Start-up comes on top:
# each GPU has its own, and it does not halve.

# %% tags=["hide-input"]
charts.table(what_a_run_costs.two_gpus_table())

# %% [markdown]
# A study of the paper's size is {q}`what_a_run_costs.study_runs|unit` on each of
# {q}`what_a_run_costs.study_tasks|unit`. Here is what all of it takes on one GPU, with `Trainer` and with a bank a
# task, start-up included; *as run* is what the study on record did take in training and evaluations ([what was
# run](what_was_run.ipynb)). Two and a hundred GPUs are on paper: the runs dealt out evenly, all tasks in turn or side
# by side, whichever is sooner. A smaller bank's step is taken from the chart above, fused with its start-up or unfused
# without, whichever is sooner.

# %% tags=["hide-input"]
charts.table(what_a_run_costs.study_table())

# %% [markdown]
# The paper's own grid, `cpadapt run studies/paper.toml`, needs weights that are not at hand. With random ones of their
# shape the command runs for a few steps, and the notebook `run_budget` through papermill, of both of which each run
# leaves a record; and the whole bank of each task is timed:
# {says}`all(what_a_run_costs.grid_records == what_a_run_costs.study_runs)`

# %% tags=["hide-input"]
charts.table(what_a_run_costs.grid_table())

# %% [markdown]
# A hundred GPUs do not make a study a hundred times as fast: a GPU that is left with a run or two is not full, and
# where it compiles it does so for these alone. A study of many seeds, rates or tasks gives them more to do.
#
# ## One adapter alone
#
# A bank serves studies; who adapts one model trains one CP adapter through PEFT. There nothing is packed or recorded.
# The tuner makes the {term}`factor pairs <factor pair>` of all layers of one shape at once, in a few small kernels a
# step, where PEFT's LoRA has its matrices as they are but casts each input to float32; so it depends on the number of
# layers which of the two has more kernels, and an eager step is as long as its launches. Both here have budgets as
# near to each other as they come, and take turns in one process. *Time*, *memory* and *kernels* of a step are CP's
# over LoRA's; the memory is its peak.

# %% tags=["hide-input"]
charts.table(what_a_run_costs.alone_table())

# %% [markdown]
# A compiled step is shorter than an eager one and still waits for the host, and there CP pays for its form: it has
# {q}`what_a_run_costs.tensors.cp|unit` where LoRA has {q}`what_a_run_costs.tensors.lora`, each of which the compiled
# code checks, hands over and gives a gradient. So it can take longer even where it has fewer kernels. Where it has
# more kernels as well, its size is no multiple of eight, which is the likely reason, and not tested. A bank has
# neither cost: it holds all its adapters in one tensor a factor.
# {says}`all(what_a_run_costs.alone_ms.compiled < what_a_run_costs.alone_ms.eager)`
# {says}`what_a_run_costs.alone_time.compiled.rank8 > 1 > what_a_run_costs.alone_kernels.compiled.rank8`
# {says}`what_a_run_costs.alone_kernels.compiled.rank1 > 1 and what_a_run_costs.alone_components.compiled.rank1 == 11`

# %% [markdown]
# ## Half precision
#
# On the GPU the times above are those of a backbone in bfloat16, products with adapters included; the adapters' own
# scalars, heads and AdamW's moments are float32 all the same. Does that change what a study finds? Two studies of
# whole runs on SST-2 differ in nothing but the backbone's precision, so their difference is taken {term}`seed` by seed
# and item by item, and its interval counts both ([`cpadapt.analysis.statistics`](../book/api.md)). Zero lies within
# the interval for {q}`what_a_run_costs.zero_inside` of {q}`what_a_run_costs.adapters_in_both|unit`.

# %% tags=["hide-input"]
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
# PLoRA {cite:p}`plora2025`, mLoRA {cite:p}`mlora`, LoRAFusion {cite:p}`lorafusion`, tLoRA {cite:p}`tlora2026`, ALTO
# {cite:p}`alto2026`, Megatron-Bridge {cite:p}`megatronbridge`. The settings differ in all that counts here: the model,
# the lengths of its texts, the devices, and what the others are compared with. A large model fills a device by itself,
# and a small one with short texts leaves most of it idle, so neither their ratios nor those of this page carry over to
# the other.
#
# ## Where these numbers come from

# %% tags=["hide-input"]
charts.table(what_a_run_costs.source_table())

# %% [markdown]
# *Changed* says that the tree was not as it was committed, and *failed* counts what a script could not measure. A
# bank's and an adapter's steps are medians of several measurements, which the files hold with the least and the
# largest; a round of peers, start-up and the last evaluation are measured once. Versions (torch, transformers and
# PEFT, in this order: {q}`what_a_run_costs.packages`) are in the files with all others.
#
# Next: [what was run](what_was_run.ipynb).
