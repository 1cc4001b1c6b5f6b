"""Numbers of the chapter on the protocol."""

from typing import Literal

from companion import plan, protocol
from companion.protocol import PAPER
from companion.quantities import quantity
from cpadapt.records.config import Protocol

PUBLISHED = "book/published.toml"


@quantity("fields", each=("paper", "ours"))
def fields(whose: Literal["paper", "ours"]) -> int:
    """Fields of the protocol, with the paper's values or ours."""
    return list(Protocol().sources().values()).count(whose)


@quantity("fields")
def all_fields() -> int:
    """Fields of the protocol."""
    return len(Protocol().sources())


@quantity("fields", source=plan.MAIN)
def changed() -> int:
    """Fields in which the main study differs from the default."""
    return len(protocol.changed_by_main_study())


@quantity("steps", source="paper", each=("paper",))
def steps(_: str) -> int:
    """Steps of a run."""
    return PAPER.protocol.steps


@quantity(digits=4, source="paper", each=("cp", "lora"))
def rate(family: str) -> float:
    """The learning rate that the paper reports (second-hand)."""
    return protocol.rate(family)


@quantity(digits=1, source="paper", each=("paper",))
def reach(_: str) -> float:
    """The sum of CP's learning rate over all steps: how far a weight comes under a steady pull."""
    ran = PAPER.protocol
    return protocol.rate("cp") * sum(ran.rate_factor(step) for step in range(ran.steps))


@quantity("percent", 1, "paper")
def excess() -> float:
    """How far CP is above LoRA's budget at most, in the paper's pairs."""
    return max(map(protocol.excess, PAPER.ladder.pairs))


@quantity("percent", 1, "paper")
def excess_least() -> float:
    """The same at least."""
    return min(map(protocol.excess, PAPER.ladder.pairs))


@quantity("points", 1, PUBLISHED)
def rte_error() -> float:
    """The standard error of an accuracy of three quarters on RTE's items."""
    return protocol.item_error("rte", 0.75)
