"""Numbers of the chapter on the protocol."""

from typing import Literal

from companion import protocol
from companion.protocol import STUDIES
from companion.quantities import quantity
from cpadapt.families import counting
from cpadapt.inputs.backbones.projections import load_projections
from cpadapt.inputs.tasks.specs import TASKS
from cpadapt.records.config import Protocol

PUBLISHED = "book/published.toml"


def of_study(name: str) -> str:
    """The source of what a study says."""
    return STUDIES[name]


@quantity("fields", each=("paper", "ours"))
def fields(whose: Literal["paper", "ours"]) -> int:
    """Of the protocol, with the paper's values or ours."""
    return list(Protocol().sources().values()).count(whose)


@quantity("fields")
def all_fields() -> int:
    """Of the protocol."""
    return len(Protocol().sources())


@quantity("steps", source=of_study, each=STUDIES)
def steps(name: str) -> int:
    """Of a run."""
    return protocol.study(name).protocol.steps


@quantity(digits=4, source="paper", each=("cp", "lora"))
def rate(family: str) -> float:
    """The learning rate that the paper reports (second-hand)."""
    (found,) = protocol.rates("paper", family)
    return found


@quantity(digits=1, source=of_study, each=STUDIES)
def reach(name: str) -> float:
    """The sum of CP's highest learning rate over all steps: how far a weight comes under a steady pull."""
    ran = protocol.study(name).protocol
    return max(protocol.rates(name, "cp")) * sum(ran.rate_factor(step) for step in range(ran.steps))


@quantity(digits=3)
def head_rate() -> float:
    """The head's learning rate."""
    return Protocol().head_learning_rate


@quantity("scalars")
def head_scalars() -> int:
    """Of SmolLM2-135M's head on a task of two labels: weights, and a bias for each label."""
    labels = len(TASKS["sst2"].labels)
    return labels * load_projections("smollm2")[0].in_features + labels


@quantity("scalars")
def cp_step() -> int:
    """Of one more component on SmolLM2-135M."""
    found = counting.step("cp", load_projections("smollm2"))
    assert found is not None
    return found


# The paper's grid, and the protocol nearest to it.


@quantity("percent", 1, "paper")
def excess() -> float:
    """How far CP is above LoRA's budget at most, in the paper's pairs."""
    return max(map(protocol.excess, protocol.study("paper").ladder.pairs))


@quantity("percent", 1, "paper")
def excess_least() -> float:
    """The same at least."""
    return min(map(protocol.excess, protocol.study("paper").ladder.pairs))


@quantity("sizes", source="paper", each=("cp", "lora"))
def sizes(family: str) -> int:
    """Of the paper's grid."""
    return len(protocol.study("paper").ladder.sizes[family])


@quantity(source=PUBLISHED)
def nearest_caps() -> str:
    """MeZO's examples for training, dev and eval."""
    return "/".join(str(protocol.published()["nearest"][f"{name}_cap"]) for name in ("train", "dev", "eval"))


@quantity(source=PUBLISHED, each=("batch_size", "lora_alpha", "lora_rank"))
def nearest(field: str) -> int:
    """MeZO's choice."""
    return int(protocol.published()["nearest"][field])


@quantity("points", 1, PUBLISHED)
def rte_error() -> float:
    """The standard error of an accuracy of three quarters on RTE's items."""
    return protocol.item_error("rte", 0.75)
