"""The format of shares, in percent and points, in sentences and tables."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def number(value: float, digits: int, sign: bool = False) -> str:
    """A number as pages print it, such as 1,234 or −0.7. A number that rounds to 0 has no sign."""
    text = f"{value:+,.{digits}f}" if sign else f"{value:,.{digits}f}"
    return text.replace("-", "−") if text.strip("+-0.,") else text.lstrip("+-")


def duration(seconds: float) -> str:
    """A duration in hours, minutes or seconds, whichever is the largest unit below it, such as 22.4 min."""
    units = (("h", 3600), ("min", 60))
    unit, length = next(((unit, length) for unit, length in units if seconds >= length), ("s", 1))
    return f"{number(seconds / length, 1)} {unit}"


def percent(share: float, digits: int = 1) -> str:
    """A share in percent, or a size in points, such as 73.5 for 0.735."""
    return f"{100 * share:.{digits}f}"


def signed(share: float, digits: int = 1) -> str:
    """A difference in points, such as +0.7 for 0.007 and −0.7 for -0.007. A difference that rounds to 0 has no
    sign."""
    return number(100 * share, digits, sign=True)


def bounds(interval: Iterable[float], digits: int = 1) -> str:
    """An interval in points, such as +0.2 to +1.1 for 0.002 and 0.011."""
    return " to ".join(signed(end, digits) for end in interval)


def agreement(differences: "Tensor") -> str:
    """How closely two results agree, such as bit for bit or to within 1e-06, from the differences of their entries."""
    apart = float(differences.abs().max())
    return f"to within {apart:.0e}" if apart else "bit for bit"
