"""How shares are worded, in percent and points, with as many digits as a sentence or a table has."""

from collections.abc import Iterable


def percent(share: float, digits: int = 1) -> str:
    """A share in percent, or a size in points, such as 73.5 for 0.735."""
    return f"{100 * share:.{digits}f}"


def signed(share: float, digits: int = 1) -> str:
    """A difference in points, such as +0.7 for 0.007 and −0.7 for -0.007; none that rounds to 0 has a sign."""
    text = f"{100 * share:+.{digits}f}"
    return text.replace("-", "−") if float(text) else text[1:]


def bounds(interval: Iterable[float], digits: int = 1) -> str:
    """An interval in points, such as +0.2 to +1.1 for 0.002 and 0.011."""
    return " to ".join(signed(end, digits) for end in interval)
