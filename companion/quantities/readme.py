"""Numbers that the README alone prints, or that no chapter has in its digits."""

from companion import contrasts, verdicts
from companion.claims import learned
from companion.quantities import Value, quantity
from companion.records import records
from cpadapt.analysis.cells import Cells
from cpadapt.analysis.statistics import Estimate, compare
from cpadapt.records.config import HEAD

ON_BOOLQ, THOUSAND = "boolq-lifted", "smollm2-seeds-boolq"
LORA1 = ("lora", 1)


def _lead(task: str, case: str) -> Estimate:
    found = verdicts.finding("lora_ahead", task, case).estimate
    assert found is not None, f"{task} is not measured in the case {case}"
    return found


@quantity("points", 1, ON_BOOLQ)
def lead_on_boolq() -> Estimate:
    """LoRA minus CP on all of BoolQ, averaged over matched budgets."""
    return _lead("boolq", "all_examples")


@quantity("points", 1, verdicts.CASES["tuned"].studies)
def lead_on_sst2() -> Estimate:
    """The same on SST-2 at tuned rates."""
    return _lead("sst2", "tuned")


@quantity("percent", 1, ON_BOOLQ, each=("cp1", "cp44"))
def on_boolq(cell: str) -> float:
    """CP's accuracy on all of BoolQ with one component and with 44."""
    return float(verdicts.cells("all_examples", "boolq").outcomes["cp", int(cell[2:])].right.mean())


@quantity("points", 1, ON_BOOLQ)
def gain_on_boolq() -> Estimate:
    """The second minus the first."""
    found = verdicts.cells("all_examples", "boolq").outcomes
    return compare(found["cp", 44], found["cp", 1])


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
