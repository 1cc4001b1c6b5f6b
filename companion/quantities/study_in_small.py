"""Numbers of the page on the study in small: those of the longer runs beside it, which are on record."""

from companion.quantities import quantity
from companion.records import records
from companion.study_in_small import BACKBONES
from cpadapt.records.record import Record

LONGER, TASK = "generated-tasks", "toy-sentiment"


@quantity("steps", source=LONGER)
def longer_steps() -> int:
    """Of each of the longer runs."""
    return _longer().config.protocol.steps


@quantity(source=LONGER)
def longer_backbone() -> str:
    """That they adapt."""
    return BACKBONES[_longer().config.backbone]


@quantity(source=LONGER)
def longer_device() -> str:
    """On which they were run."""
    return _longer().provenance.device


def _longer() -> Record:
    return next(record for record in records(LONGER) if record.config.task == TASK)
