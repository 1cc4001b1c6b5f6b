"""Numbers of the chapter on which adapter to take."""

from companion import size
from companion.quantities import quantity

SMALLEST = {"lora": ("lora", 1), "cp": ("cp", 1)}


@quantity(source=size.RATES["qwen15"], each=SMALLEST)
def first_rate(family: str) -> str:
    """The rate that dev chose for a family's smallest size, over six tasks."""
    rate = size.chosen_settings("qwen15")[SMALLEST[family]].learning_rate
    return f"{rate:g}"
