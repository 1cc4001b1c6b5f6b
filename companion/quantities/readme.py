"""Numbers that the README alone prints, or that no chapter has in its digits."""

from companion import contrasts, verdicts
from companion.claims import learned
from companion.quantities import Value, quantity
from companion.records import records
from cpadapt.analysis.cells import Cells
from cpadapt.analysis.statistics import Estimate
from cpadapt.records.config import HEAD

THOUSAND = "smollm2-seeds-boolq"
LORA1 = ("lora", 1)


@quantity("points", 1, verdicts.CASES["tuned"].studies)
def lead_on_sst2() -> Estimate:
    """LoRA minus CP on SST-2 at tuned rates, on the average over matched budgets."""
    found = verdicts.finding("lora_ahead", "sst2", "tuned").estimate
    assert found is not None, "measured in both studies"
    return found


@quantity("percent", 1, THOUSAND, each=("lora1", "head"))
def balanced(cell: str) -> float:
    """Balanced accuracy on a thousand examples of BoolQ, of LoRA's first rank and of the head alone."""
    return float(_thousand().balanced(LORA1 if cell == "lora1" else (HEAD, 0)).mean())


@quantity(source=THOUSAND)
def thousand_learned() -> str:
    """Whether LoRA's first rank learns there."""
    return learned(_thousand(), LORA1).verdict.value


def _thousand() -> Cells:
    return contrasts.cells_on_record((THOUSAND,), "boolq")


# What it took.


@quantity("runs", source="smollm2")
def study_runs() -> int:
    """Of the paper's design on SmolLM2."""
    return len(records("smollm2"))


@quantity("steps", source="smollm2")
def study_steps() -> int:
    """Of each."""
    (steps,) = {run.config.protocol.steps for run in records("smollm2")}
    return steps


@quantity("minutes", source="smollm2")
def study_minutes() -> Value:
    """Of training and evaluations, of a bank shared among its runs."""
    spent = [(run.cost.train_seconds + run.cost.evaluation_seconds) / run.cost.bank_runs for run in records("smollm2")]
    return Value(sum(spent) / 60, n=len(spent))


@quantity("seconds", source="small")
def small_seconds() -> float:
    """Of training and evaluations of the study in small, which is one bank."""
    ((cost, _),) = {(run.cost, run.provenance.device) for run in records("small")}
    return cost.train_seconds + cost.evaluation_seconds


@quantity(source="small")
def small_device() -> str:
    """That the study in small ran on."""
    (device,) = {run.provenance.device for run in records("small")}
    return device
