"""Numbers of the chapter on the claims."""

import functools
import math

from companion import contrasts, verdicts
from companion.claims import LEVEL, MARGIN, SLIGHT, Verdict
from companion.noise import ENOUGH, MOST_SEEDS
from companion.quantities import Value, quantity
from companion.verdicts import BELOW, CASES, CLAIMS, COUNTED, JUDGED
from cpadapt.analysis.cells import NEAR
from cpadapt.analysis.statistics import Estimate, compare

LEDGER, PUBLISHED = "book/claims.toml", "book/published.toml"
AT_PAPERS_RATES, TUNED, ENCODER = (CASES[case].studies for case in ("papers_rates", "tuned", "encoder"))

MEASURED = [case for case in CASES if case != "opt"]
"""The cases of which there are records."""

FOUND = [
    (rule, task, case)
    for rule, task in dict.fromkeys((rule, task) for claim, task in JUDGED for rule in CLAIMS[claim]["rules"])
    for case in MEASURED
    if case != "all_examples" or task == "boolq"
]
"""Where a rule may find something: of all examples BoolQ alone was run."""


def of_case(*arguments: str) -> tuple[str, ...]:
    """The source of what is of one case, which its last argument names."""
    return CASES[arguments[-1]].studies


# How a verdict is made.


@quantity("points")
def margin() -> float:
    """Differences below it count as none."""
    return MARGIN


@quantity("points")
def slight() -> float:
    """Differences below it count as slight."""
    return SLIGHT


@quantity("percent")
def confidence() -> float:
    """Level of the interval that decides."""
    return 1 - 2 * LEVEL


@quantity("percent")
def near() -> float:
    """The part of a rank's budget by which a CP size may miss it."""
    return NEAR


@quantity("percent")
def enough() -> float:
    """The chance for which seeds are counted."""
    return ENOUGH


@quantity("seeds")
def most_seeds() -> int:
    """Seeds that are counted."""
    return MOST_SEEDS


# What can be counted.


@quantity(source=LEDGER, each=[name for name, item in COUNTED.items() if item["unit"] != "MiB"])
def counted(name: str) -> float:
    """What one projection costs, counted from its shape."""
    return verdicts.counted(name)


@quantity("MiB", 3, LEDGER, each=[name for name, item in COUNTED.items() if item["unit"] == "MiB"])
def adam_state(name: str) -> float:
    """Adam's state on all of OPT-1.3B."""
    return verdicts.counted(name)


@quantity("figures", source=LEDGER)
def figures_counted() -> int:
    """Figures that can be counted."""
    return len(COUNTED)


@quantity("figures", source=LEDGER)
def figures_alike() -> int:
    """Figures among these that are the paper's at its digits."""
    digits = {name: 3 if item["unit"] == "MiB" else 0 for name, item in COUNTED.items()}
    return sum(round(verdicts.counted(name), digits[name]) == item["figure"] for name, item in COUNTED.items())


# What has to be measured.


@quantity(source=of_case, each=[(claim, task, case) for claim, task in JUDGED for case in CASES])
def verdict(claim: str, task: str, case: str) -> str:
    """The verdict on a claim on accuracy; where nothing is judged with the reason."""
    return verdicts.verdict(claim, task, case)[1]


@quantity("verdicts", source=LEDGER)
def verdicts_asked() -> int:
    """Verdicts on accuracy in each case."""
    return len(JUDGED)


EVERYWHERE = tuple(dict.fromkeys(study for case in MEASURED for study in CASES[case].studies))


@functools.cache
def _found(claim: str, task: str) -> set[Verdict]:
    """The verdicts that the cases have on a claim and a task."""
    return {verdicts.verdict(claim, task, case)[0] for case in CASES} - {Verdict.UNMEASURED}


@quantity("settings")
def settings() -> int:
    """Settings in which the claims are judged."""
    return len(MEASURED)


@quantity("models")
def models() -> int:
    """Models on which the claims are judged."""
    return len({CASES[case].model for case in MEASURED})


@quantity("claims", source=EVERYWHERE)
def held_somewhere() -> int:
    """Claims, with their tasks, that hold in one case or more."""
    return sum(Verdict.HOLDS in _found(*judged) for judged in JUDGED)


@quantity("claims", source=EVERYWHERE)
def failed_somewhere() -> int:
    """Claims that fail in one case or more."""
    return sum(Verdict.FAILS in _found(*judged) for judged in JUDGED)


@quantity("claims", source=EVERYWHERE)
def unsettled() -> int:
    """Claims that neither hold nor fail in any case."""
    return sum(not {Verdict.HOLDS, Verdict.FAILS} & _found(*judged) for judged in JUDGED)


AT_RATES = ("papers_rates", "size")
"""The cases at the paper's rates that are measured."""


@quantity("verdicts", source=of_case, each=AT_RATES)
def measured(case: str) -> int:
    """Verdicts that a case has."""
    found = [verdicts.verdict(claim, task, case)[0] for claim, task in JUDGED]
    return len(found) - found.count(Verdict.UNMEASURED)


@quantity("verdicts", source=EVERYWHERE)
def verdicts_given() -> int:
    """Verdicts that all cases have."""
    return sum(measured(case) for case in CASES)


@quantity("verdicts", source=EVERYWHERE)
def not_judged() -> int:
    """Verdicts among these that are not judged because a cell is not shown to learn."""
    return sum(verdicts.verdict(claim, task, case)[0] is Verdict.UNJUDGED for claim, task in JUDGED for case in CASES)


@quantity("verdicts", source=EVERYWHERE)
def would_fail() -> int:
    """Verdicts among these for which the interval of a rule lies outside what is claimed."""
    return sum(
        any(verdicts.finding(rule, task, case).would_fail for rule in CLAIMS[claim]["rules"])
        for claim, task in JUDGED
        for case in CASES
    )


@quantity("verdicts", source=of_case, each=AT_RATES)
def unjudged(case: str) -> int:
    """Verdicts of a case that are not judged."""
    return sum(verdicts.verdict(claim, task, case)[0] is Verdict.UNJUDGED for claim, task in JUDGED)


@quantity("runs", source=EVERYWHERE)
def lost() -> Value:
    """CP runs that are lost to a loss or a gradient that is not finite."""
    runs = {run.id: run for run in contrasts.on_record(EVERYWHERE) if run.config.family == "cp"}
    return Value(sum(run.diverged_at is not None for run in runs.values()), n=len(runs))


@quantity("points", 1, of_case, level=1 - 2 * LEVEL, each=FOUND)
def difference(rule: str, task: str, case: str) -> Estimate | str:
    """The difference that a rule judges."""
    found = verdicts.finding(rule, task, case)
    return Verdict.UNMEASURED.value if found.estimate is None else found.estimate


@quantity("percent", source=of_case, each=FOUND)
def power(rule: str, task: str, case: str) -> float | str:
    """The chance to show with these seeds and items what cannot be told, if it is so; a dash where it is told."""
    found = verdicts.finding(rule, task, case)
    if found.estimate is None or found.verdict is not Verdict.OPEN:
        return "–"
    return verdicts.power(found, found.estimate.seeds)


@quantity("seeds", source=of_case, each=FOUND)
def seeds_needed(rule: str, task: str, case: str) -> float | str:
    """Seeds that give a chance which is enough; likewise."""
    found = verdicts.finding(rule, task, case)
    if found.verdict is not Verdict.OPEN:
        return "–"
    return verdicts.seeds_needed(found) or "more items"


# On MiniLM.


@quantity("percent", 1, ENCODER)
def missed() -> float:
    """The part of the budget of LoRA's first rank by which CP's nearest size misses it."""
    budgets = verdicts.cells("encoder", "sst2").budgets
    return 1 - budgets["cp", verdicts.encoder_sizes()[0]] / budgets["lora", 1]


@quantity("points", 2, ENCODER)
def gain_to_most() -> Estimate:
    """CP's largest size minus that size."""
    (nearly, further), found = verdicts.encoder_sizes(), verdicts.cells("encoder", "sst2").outcomes
    return compare(found["cp", further[-1]], found["cp", nearly])


# Between LoRA's first two ranks.


@quantity(source=AT_PAPERS_RATES)
def between() -> str:
    """CP's sizes there."""
    return " and ".join(map(str, verdicts.between()))


@quantity("points", 1, AT_PAPERS_RATES, each=BELOW)
def over_below(below: str) -> Value:
    """These sizes, on their average and that of three tasks, minus LoRA's first rank or CP at its budget."""
    n = verdicts.over("sst2", BELOW[below]).seeds
    return Value(*verdicts.over_tasks(BELOW[below]), n=n)


# The paper's own numbers.

PAIRS = list(verdicts.published_pairs())


@quantity("seeds", source=PUBLISHED)
def papers_seeds() -> int:
    """Seeds of the cells that the paper gives with their spread."""
    return int(verdicts.published()["seeds"].min())


@quantity("points", 1, PUBLISHED, each=PAIRS)
def papers_lead(task: str, pair: str) -> float:
    """LoRA's cell minus CP's."""
    lora, cp = verdicts.published_pairs()[task, pair]
    return float(lora.accuracy - cp.accuracy)


@quantity("points", 1, PUBLISHED, each=PAIRS)
def papers_seed_error(task: str, pair: str) -> float:
    """Its error from seeds."""
    return math.hypot(*(row.sd / math.sqrt(row.seeds) for row in verdicts.published_pairs()[task, pair]))


@quantity("points", 1, (PUBLISHED, *TUNED), each=dict.fromkeys(task for task, _ in PAIRS))
def papers_item_error(task: str) -> float:
    """Its error from items, if they vary as in the tuned cells of SmolLM2."""
    return verdicts.item_error(task)


@quantity("", 1, (PUBLISHED, *TUNED), each=PAIRS)
def papers_lead_over_errors(task: str, pair: str) -> float:
    """The lead in units of both errors together."""
    return papers_lead(task, pair) / math.hypot(papers_seed_error(task, pair), verdicts.item_error(task))
