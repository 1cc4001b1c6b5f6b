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
# # What was run
#
# **Which of the planned runs are measured, when, on what and at what cost, and which are missing?**
#
# {glue:text}`answer_done` {glue:text}`answer_missing`

# %%
import pandas as pd
from myst_nb import glue

import cpadapt
from companion import PROJECT
from cpadapt.analysis import charts
from cpadapt.measure import status
from cpadapt.records.store import load_records

# %% [markdown]
# A {term}`study` is a file in `studies/`, and each run that it asks for is either on {term}`record` in `results/` or
# missing. A record belongs to a run by its {term}`config id`, a hash of all that was asked for, so a study that is
# changed loses what was measured for its former self. What stands here is what `cpadapt status` says of each study,
# and what the records say of themselves.
#
# ## Done and missing

# %% tags=["hide-input"]
studies = [cpadapt.load_study(path) for path in sorted((PROJECT / "studies").glob("*.toml"))]
cells = [
    {"study": study.name, "backbone": charts.backbone_name(study.backbone)}
    | {"task": charts.task_name(cell.task)}
    | {"runs": cell.done + cell.missing, "done": cell.done, "missing": cell.missing, "diverged": cell.diverged}
    for study in studies
    for cell in status(study, PROJECT / "results" / study.name)
]
by_task = pd.DataFrame(cells).groupby(["study", "backbone", "task"], sort=False).sum().reset_index()
charts.table(by_task)

# %% [markdown]
# {term}`Diverged <diverged>` runs are done: that a run fails is a result. What each study is for:

# %% tags=["hide-input"]
charts.table(pd.DataFrame([{"study": study.name, "what it is for": study.about} for study in studies]))

# %% [markdown]
# ## When, on what, at what cost
#
# The runs of a task train together, as one {term}`bank` or a few; the time is that of all banks, training and
# evaluations, and stands beside the machine that took it. Peak memory is the largest bank's: on a GPU what the
# allocator gave out, on a CPU the whole process. *Commit* is the tree that measured.


# %% tags=["hide-input"]
def duration(seconds):
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def span(values):
    """The least and the largest, as text."""
    return " to ".join(dict.fromkeys((min(values), max(values))))


def tree(provenance):
    """The commit that measured, and that something was changed beside it."""
    return (provenance.git_commit or "unknown")[:8] + ", changed" * (provenance.git_clean is False)


costs = []
for study in studies:
    folder = PROJECT / "results" / study.name
    records = load_records(folder) if folder.is_dir() else []
    for device in sorted({record.provenance.device for record in records}):
        there = [record for record in records if record.provenance.device == device]
        costs.append(
            {
                "study": study.name,
                "runs": len(there),
                "device": device,
                "finished": span([record.provenance.finished[:10] for record in there]),
                # Each record holds its bank's times, of which one part is its own.
                "time": duration(
                    sum((r.cost.train_seconds + r.cost.evaluation_seconds) / r.cost.bank_runs for r in there)
                ),
                "peak memory, GB": f"{max(record.cost.peak_memory_bytes for record in there) / 1e9:.1f}",
                "commit": ", ".join(dict.fromkeys(tree(record.provenance) for record in there)),
            }
        )
charts.table(pd.DataFrame(costs))

# %% [markdown]
# A study that is missing is one command away, on a machine with what it needs: its backbone's weights, its tasks' data
# and, for the larger ones, a GPU. [Run it yourself](../book/run_it_yourself.md) says how, and what a run costs is
# [measured elsewhere](what_a_run_costs.ipynb). The measurements of speed are not studies; they are listed
# [where they are shown](what_a_run_costs.ipynb).
#
# Next: [use the adapter in PEFT](use_in_peft.ipynb).

# %% tags=["remove-cell"]
of_study = by_task.groupby("study", sort=False)[["runs", "done", "missing"]].sum()
complete = of_study[of_study["missing"] == 0]
absent = of_study[of_study["missing"] > 0]
answer_done = (
    f"Of {len(of_study)} studies, {len(complete)} are complete; {of_study['done'].sum():,} of"
    f" {of_study['runs'].sum():,} runs are on record."
)
answer_missing = (
    "Missing are " + ", ".join(f"{row.missing:,} runs of {name}" for name, row in absent.iterrows()) + "."
    if len(absent)
    else "None is missing."
)
glue("answer_done", answer_done, display=False)
glue("answer_missing", answer_missing, display=False)
