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
# # How small can an adapter for your task be?
#
# **Which is the smallest adapter that does, and where do I get it?**
#
# Give this notebook a task file, a backbone and a budget. It returns the smallest adapter that isn't shown worse than
# the best, with its interval, and saves it for PEFT and as plain LoRA. On its example it says:

# %% tags=["parameters", "remove-input"]
from typing import Optional

task: Optional[str] = None  # a task file (TOML), or a known task; None: the example, written to `out_dir`
backbone: str = "minilm"  # a known name, a hub id or a local folder
runs: int = 30  # the most runs
draws: int = 3  # the fewest draws of train and dev
minutes: Optional[float] = None  # or the most minutes, from which the number of runs follows
protocol: dict = {"steps": 60, "eval_every": 30, "dev_cap": 120}  # of every run; the defaults are sized for a CPU
margin: float = 2.0  # points; a smaller gain counts as none
out_dir: str = "build/your-task"  # for records and adapters; what is there already is not trained again
data_dir: Optional[str] = None  # folder with TASK/SPLIT.jsonl, where the task file names none
device: Optional[str] = None  # as torch names it; None: the first GPU, or the CPU

# %% tags=["remove-cell"]
from companion.parameters import check_parameters

check_parameters(globals())

# %% tags=["remove-input"]
import dataclasses
import warnings
from pathlib import Path

from IPython.display import Markdown, display

import cpadapt
from companion import your_task
from cpadapt import Protocol, advice
from cpadapt.analysis import charts

# PEFT asks transformers for a property under its old name.
warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
charts.enable()
out = Path(out_dir)
file = task or str(your_task.write_example(out / "example"))
shared = Protocol(**protocol)
seen = shared.steps * shared.batch_size
shared = Protocol(**{**advice.examples(file, seen, data_dir), **protocol})
where = {"data_dir": data_dir, "results": out / "records", "save": out / "runs", "device": device, "quiet": True}
if minutes is not None:
    fewest = advice.plan(file, backbone, draws=draws, protocol=shared)
    timed = cpadapt.train(dataclasses.replace(fewest, draws=fewest.draws[:1]), **where)
    runs = advice.runs_within(minutes, timed)
study = advice.plan(file, backbone, runs, draws=draws, protocol=shared)
records = cpadapt.train(study, **where)
found = advice.advise(records, margin / 100)
display(Markdown(f"**{found}**"), Markdown(your_task.why(found, records)))

# %% mystnb={"figure": {"caption": "Gain over the head alone on eval, smallest adapter first."}} tags=["remove-input"]
your_task.figure(found, margin / 100)

# %% [markdown]
# Differences inside the dashed lines count as none.
#
# ## Run it on your task
#
# ```sh
# make notebooks
# papermill build/notebooks/your_task.ipynb out.ipynb \
#     -p task reviews.toml -p out_dir my-adapter -p minutes 20
# ```
#
# | parameter | what it is |
# |---|---|
# | `task` | a task file; two data files lie in the folder that it names |
# | `backbone` | `minilm`, another known name, a hub id or a local folder |
# | `runs` or `minutes` | the budget: more runs add sizes first, and then draws |
# | `draws` | the fewest draws; give more where the answer asks for them |
# | `protocol` | steps, batch size and the rest; give several hundred steps on a GPU |
# | `margin` | a gain below so many points counts as none |
# | `out_dir` | for records and adapters; what is there isn't trained again |
#
# In Python, `plan` and `advise` of [`cpadapt.advice`](../book/api.md) do it, with `cpadapt.train` between them.
#
# The example's task file, and two lines of its training data:

# %% tags=["remove-input"]
example = your_task.write_example(out / "example")
print(example.read_text())
with (example.parent / "data" / "train.jsonl").open() as lines:
    print(next(lines) + next(lines))

# %% [markdown]
# ## What it does
#
# The ladder has the {term}`head` alone, one CP component, LoRA's first rank, CP of that size, and with a larger budget
# a size between them and larger ranks. Each is trained at three learning rates and on several draws of train and dev,
# all together in a {term}`bank`.
#
# {term}`Dev <dev>` chooses the rate of each size, and then the smallest size within one standard error of the best.
# {term}`Eval <eval>` judges what dev chose. They share no example, so the winner's luck isn't in its score.

# %% tags=["remove-input"]
charts.table(your_task.table(found))

# %% [markdown]
# ## Take the adapter
#
# It is the advised size's run that did best on dev. CP exports exactly as plain LoRA, which PEFT loads without
# cpadapt:

# %%
from peft import PeftModel
from safetensors.torch import load_file

trained = out / "runs" / found.run.id
lora = your_task.as_lora(found.run, trained, out / "lora" / found.run.id)

model = PeftModel.from_pretrained(cpadapt.load_backbone(backbone).model, lora)
head = load_file(trained / "head.safetensors")
print(model.peft_config["default"].peft_type, lora)

# %% [markdown]
# The head is a linear layer on the backbone's features, normalized as by a layer norm without parameters: of an
# encoder their mean over tokens, of a decoder those of the last token.
#
# ## How sure?
#
# The interval covers other draws and other eval items, not other backbones or longer training. Where items are too
# few, the answer says what it would take. Decide on that once: adding draws until something shows finds chance.
# Draws from a small training split share most examples, which makes the interval too narrow.
#
# **For you**: run it before you settle on a size; if the head alone is as good, you need no adapter.
#
# Next: [a study of your own](../book/run_it_yourself.md).
