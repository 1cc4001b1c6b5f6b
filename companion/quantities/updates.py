"""Numbers of the chapter on what trained updates are made of."""

import itertools
import statistics

from companion import recovery
from companion.quantities import PERCENT, Value, quantity
from companion.recovery import FILE

SHARES = {"thirty": 0.3, "half": 0.5, "seventy": 0.7, "ninety": 0.9}
"""Of a tensor's entries, by what a quantity's name has of it."""

KINDS = {"measurements": ("measurements", "components"), "entries": ("entries", "completed components")}
"""The set-ups with two components and with more, by what is known of a tensor."""

COUNTS = {"two": 2, "three": 3, "four": 4, "five": 5}


@quantity("seeds", source=FILE)
def seeds() -> int:
    """Seeds of each curve."""
    (count,) = {len(found["last"]) for found in recovery.curves()}
    return count


@quantity(PERCENT, source=FILE, each=itertools.product(KINDS, SHARES))
def recovered(kind: str, share: str) -> Value:
    """Seeds whose tensor of two components is recovered, without noise."""
    found, low, high = recovery.recovered_share(KINDS[kind][0], 2, SHARES[share])
    return Value(found, low, high, seeds())


RECOVERED_OF = [*(("measurements", count) for count in COUNTS), ("entries", "two"), ("entries", "five")]


@quantity(PERCENT, source=FILE, each=RECOVERED_OF)
def recovered_of(kind: str, count: str) -> Value:
    """Seeds whose tensor of so many components is recovered, from half as many numbers as entries, with noise."""
    found, low, high = recovery.recovered_share(KINDS[kind][1], COUNTS[count], 0.5)
    return Value(found, low, high, seeds())


@quantity("iterations", source=FILE, each=[("measurements", share) for share in ("thirty", "ninety")])
def iterations(kind: str, share: str) -> int:
    """After which the median seed is recovered, of two components without noise."""
    return recovery.iterations_to_recover(KINDS[kind][0], 2, SHARES[share])


@quantity(PERCENT, source=FILE)
def failed() -> Value:
    """The median last error of the tensors that are not recovered, over all curves from entries."""
    setups = KINDS["entries"]
    errors = [error for found in recovery.curves() if found["setup"] in setups for error in found["last"]]
    above = [error for error in errors if error >= recovery.RECOVERED]
    return Value(statistics.median(above), n=len(above))
