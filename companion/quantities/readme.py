"""Numbers that the README alone prints."""

from companion.quantities import quantity
from companion.records import records


@quantity("seconds", source="small")
def small_seconds() -> float:
    """Seconds of training and evaluations of the study in small, which is one bank."""
    ((cost, _),) = {(run.cost, run.provenance.device) for run in records("small")}
    return cost.train_seconds + cost.evaluation_seconds


@quantity(source="small")
def small_device() -> str:
    """The device that the study in small ran on."""
    (device,) = {run.provenance.device for run in records("small")}
    return device
