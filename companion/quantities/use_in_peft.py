"""Numbers of the chapter on PEFT."""

from companion.quantities import Value, quantity
from companion.use_in_peft import STUDIES, rates


@quantity("cells", source=STUDIES, each=("cp", "lora"))
def higher_chosen(family: str) -> Value:
    """Those in which dev chose the higher of two rates, of all in which two were tried."""
    found = rates()[rates()["label"] == family]
    return Value(int(found["higher_chosen"].sum()), n=int(found["cells"].sum()))
