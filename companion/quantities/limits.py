"""Numbers of the chapter on limits."""

import cpadapt
from companion import PROJECT
from companion.quantities import quantity
from companion.records import records
from cpadapt.records.record import Record
from cpadapt.study import load_study

STUDY = "smollm2"


@quantity("runs", source="paper")
def opt_runs() -> int:
    """Runs of the paper's grid, on OPT-1.3B."""
    study = load_study(PROJECT / "studies" / "paper.toml")
    return len(study.runs(cpadapt.load_projections(study.backbone)))


@quantity("runs", source="paper")
def opt_done() -> int:
    """Runs of that grid on record."""
    return len(records("paper"))


@quantity("items", source=STUDY)
def boolq_items() -> int:
    """Items that are asked of BoolQ."""
    return int(_boolq().data["sets"]["eval"]["size"])


@quantity("items", source=STUDY)
def boolq_shared() -> int:
    """Items among these whose passage also stands among the training or dev examples."""
    return int(_boolq().data["eval_shares_text"]["passage"])


def _boolq() -> Record:
    """One record of BoolQ, all of which share one draw and protocol."""
    return next(record for record in records(STUDY) if record.config.task == "boolq")
