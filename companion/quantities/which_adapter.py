"""Numbers of the chapter on which adapter to take."""

from companion import size
from companion.quantities import quantity
from companion.records import records
from cpadapt.analysis import across_tasks

SMALLEST = {"lora": ("lora", 1), "cp": ("cp", 1)}


@quantity(source=size.RATES, each=SMALLEST)
def first_rate(family: str) -> str:
    """The rate that dev chose for a family's smallest size, over six tasks."""
    rate = across_tasks.chosen_settings(records(size.RATES))[SMALLEST[family]].learning_rate
    return f"{rate:g}"
