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
# # Check your installation
#
# **Does cpadapt train on your machine as it does on ours?**
#
# Run the small study: the same code as for the large ones, in a few minutes and without a GPU. It checks that all
# works. Its runs are too short to say anything about LoRA and CP. {says}`readme.small_seconds < 300`
#
# Here is what this book's machine made of it, on {glue:text}`backbone`.

# %% tags=["parameters", "remove-cell"]
study: str = "studies/small.toml"  # a study file
results_dir: str = "build/small"  # folder of its records; what is missing there is measured

# %% tags=["remove-cell"]
from myst_nb import glue

import cpadapt
from companion import PROJECT, study_in_small
from companion.parameters import check_parameters
from cpadapt.analysis import charts
from cpadapt.analysis.frontier import frontier

check_parameters(globals())
charts.enable()
glue("backbone", study_in_small.BACKBONES[cpadapt.load_study(PROJECT / study).backbone], display=False)

# %% mystnb={"figure": {"caption": "The small study: mean accuracy, by trainable scalars."}}
asked = cpadapt.load_study(PROJECT / study)
records = cpadapt.train(asked, results=PROJECT / results_dir, quiet=True)
runs, evaluations = cpadapt.tabulate(records)
charts.frontier_chart(runs)

# %% [markdown]
# From the command line it is one line. Its table has the same accuracies:
#
# ```sh
# cpadapt run studies/small.toml --results build/small
# ```
#
# On our machine ({q}`readme.small_device`) training and evaluation on MiniLM took {q}`readme.small_seconds|unit`.
# Where MiniLM's package can't be installed, `studies/small-tiny.toml` runs on two random layers instead.
#
# ## Compare
#
# `results/` holds these runs from our machine, under the same ids. In float32 only the order of sums differs between
# machines, and training can magnify that: a few examples apart is normal.

# %% tags=["remove-input"]
charts.table(study_in_small.comparison_table(runs, cpadapt.read_records(PROJECT / "results" / asked.name)))

# %% [markdown]
# ## What is trained
#
# Sentences that a small grammar of the project makes, so nothing is downloaded. All runs train together, as one
# {term}`bank`.

# %% tags=["remove-input"]
charts.table(study_in_small.summary_table(asked, records))

# %% mystnb={"code_prompt_show": "Study file", "code_prompt_hide": "Study file"} tags=["remove-input", "hide-output"]
print((PROJECT / study).read_text())

# %% mystnb={"code_prompt_show": "Examples", "code_prompt_hide": "Examples"} tags=["remove-input", "hide-output"]
charts.table(study_in_small.example_table(asked))

# %% mystnb={"code_prompt_show": "Accuracies", "code_prompt_hide": "Accuracies"} tags=["remove-input", "hide-output"]
charts.table(study_in_small.cell_table(frontier(runs)))

# %% [markdown]
# ## How sure?
#
# Where most curves still rise at the last step, the runs are too short to say what a size can reach.

# %% mystnb={"figure": {"caption": "Accuracy on dev during training, one line a run."}} tags=["remove-input"]
charts.curve_chart(evaluations)

# %% [markdown]
# **For you**: if the command ends with a table and the accuracies agree, everything is in place; go on with [a study
# of your own](../book/run_it_yourself.md).
#
# Next: [the plan](../book/plan.md).
