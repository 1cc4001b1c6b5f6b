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
# # Each part imports only what lies below it
#
# **Where in the code is something, and what may it import?**
#
# The library has layers, and a part imports only what lies below it. This book's own analysis stands above all of
# them, in `companion`.

# %% mystnb={"figure": {"caption": "How many files of a row's part import a column's part."}} tags=["remove-input"]
from companion import architecture
from cpadapt.analysis import charts

charts.enable()
architecture.import_chart()

# %% [markdown]
# The grid is made from the code, and a test fails on a square above the diagonal.
#
# ## The parts

# %% tags=["remove-input"]
charts.table(architecture.part_table().drop(columns="layer").iloc[::-1])

# %% [markdown]
# One path leads from a question to a figure. A study file names what is compared, `study` expands it into runs,
# `measure` trains those without a record in banks, and `records` keeps what came out. `analysis` makes numbers and
# charts of records, for any study. `companion.quantities` names each number that this book prints, and a page says it
# once.
#
# `records` and `analysis` never import torch, so they read results where no model could run. `companion` isn't part of
# the installed package.
#
# ## How sure?
#
# The tests read the imports from the code, those inside functions too. What is imported by a name that the code puts
# together at run time would escape them; the library does so only to load its promised names on demand, and to
# register CP with PEFT once that is loaded.
