"""The README of `results/`, with each study's question, its records and the page of the book that reads them."""

from pathlib import Path

from companion import PROJECT
from cpadapt.errors import InputError
from cpadapt.records.record import Record
from cpadapt.records.store import load_records
from cpadapt.study import load_study

CHAPTERS: dict[str, tuple[str, ...]] = {
    "boolq-lifted": ("readout",),
    "boolq-lifted-verbalizer": ("readout",),
    "families-rates-minilm": ("families",),
    "families-rates-smollm2": ("families",),
    "families-rates-smollm2-q": ("what_was_run",),
    "families-tasks-minilm": ("families",),
    "families-tasks-smollm2": ("families",),
    "families-tasks-smollm2-q": ("what_was_run",),
    "generated-tasks": ("first_frontiers",),
    "knobs-smollm2": ("knobs",),
    "minilm": ("encoder",),
    "minilm-sst2": ("first_frontiers",),
    "planted": ("planted",),
    "planted-longer-rates": ("planted",),
    "planted-rates": ("planted",),
    "precision-bfloat16": ("engine",),
    "precision-float32": ("engine",),
    "size-longer": ("planned",),
    "size-paper": ("size",),
    "size-rates": ("size",),
    "size-rates-0.5b": ("size",),
    "size-rates-smollm2": ("size",),
    "size-tasks": ("main_study", "planned"),
    "size-tasks-0.5b": ("model_size", "planned"),
    "size-tasks-smollm2": ("model_size", "planned"),
    "size-zero-shot": ("size",),
    "small": ("study_in_small",),
    "small-tiny": ("study_in_small",),
    "smollm2": ("sst2", "rte", "boolq"),
    "smollm2-data-seeds": ("causes",),
    "smollm2-data-seeds-again": ("causes",),
    "smollm2-orders": ("causes",),
    "smollm2-pilot": ("first_frontiers",),
    "smollm2-rates": ("rates",),
    "smollm2-seeds": ("noise",),
    "smollm2-seeds-boolq": ("noise",),
    "smollm2-splits": ("tensorization",),
    "smollm2-splits-seeds": ("tensorization",),
    "smollm2-verbalizer": ("readout",),
}
"""The notebooks about each study; others may read its records too."""

HEAD = """\
# Results

Records of every run that the book rests on, a folder a study. [`cpadapt.read_records`](../book/api.md) reads a folder;
[Run it yourself](../book/run_it_yourself.md) says what a record holds. `make results-readme` writes this page.

| study | question | runs | commit | device | chapter |
|---|---|---:|---|---|---|
"""

TAIL = """
Three folders hold no runs: `bench`, times that `make bench` writes, read by
[engine](../notebooks/engine.py) and [causes](../notebooks/causes.py); `plan`, simulations that
`bench/plan_coverage.py` writes, read by [the plan](../book/plan.md); and `iht`, recovered tensors that
`bench/tensor_iht.py` writes, read by [updates](../notebooks/updates.py).
"""


def results_readme(project: Path = PROJECT) -> str:
    """The text of the page, from the records, the studies' files and `CHAPTERS`.

    Raises:
        InputError: a study with records is missing from `CHAPTERS`, or has no file or records that cannot be read.
    """
    folders = sorted({file.parent for file in (project / "results").rglob("*.jsonl*")})
    return HEAD + "".join(_row(project, folder) for folder in folders) + TAIL


def _row(project: Path, folder: Path) -> str:
    name, records = folder.name, load_records(folder)
    if name not in CHAPTERS:
        raise InputError(f"results/{name} is read by no chapter: name one in companion/results_readme.py")
    cells = [
        f"[{name}](../studies/{name}.toml)",
        load_study(project / "studies" / f"{name}.toml").about,
        f"{len(records):,}",
        ", ".join(f"`{commit}`" for commit in sorted({_commit(record) for record in records})),
        ", ".join(sorted({record.provenance.device for record in records})),
        ", ".join(f"[{chapter}](../notebooks/{chapter}.py)" for chapter in CHAPTERS[name]),
    ]
    return f"| {' | '.join(cells)} |\n"


def _commit(record: Record) -> str:
    return (record.provenance.git_commit or "unknown")[:8]


def write(path: Path = PROJECT / "results" / "README.md") -> None:
    """Write the page in place."""
    path.write_text(results_readme(), encoding="utf-8")


if __name__ == "__main__":
    write()
