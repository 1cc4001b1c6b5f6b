"""Numbers of the chapter on the claims."""

import itertools
import math

import numpy as np

from companion import contrasts, verdicts
from companion.claims import LEVEL, MARGIN, SLIGHT, Verdict, interval_90
from companion.noise import ENOUGH, MOST_SEEDS
from companion.quantities import Value, quantity
from companion.verdicts import BELOW, CASES, CLAIMS, COUNTED, JUDGED
from cpadapt.analysis.cells import NEAR
from cpadapt.analysis.statistics import Estimate, compare, estimate

LEDGER, PUBLISHED = "book/claims.toml", "book/published.toml"
AT_PAPERS_RATES, TUNED, ENCODER = (CASES[case].studies for case in ("papers_rates", "tuned", "encoder"))

MEASURED = [case for case in CASES if case != "opt"]
"""The cases of which there are records."""

LOST = [(task, case) for task in CLAIMS["stable"]["tasks"] for case in MEASURED if case != "all_examples"]
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
def one_sided() -> float:
    """Of every one-sided test."""
    return LEVEL


@quantity("percent")
def confidence() -> float:
    """Of the interval that decides."""
    return 1 - 2 * LEVEL


@quantity("percent")
def near() -> float:
    """By which part of a rank's budget a CP size may miss it."""
    return NEAR


@quantity("percent")
def enough() -> float:
    """The chance for which seeds are counted."""
    return ENOUGH


@quantity("seeds")
def most_seeds() -> int:
    """That are counted."""
    return MOST_SEEDS


# What can be counted.


@quantity(source=LEDGER, each=[name for name, item in COUNTED.items() if item["unit"] != "MiB"])
def counted(name: str) -> float:
    """Of one projection, from its shape."""
    return verdicts.counted(name)


@quantity("MiB", 3, LEDGER, each=[name for name, item in COUNTED.items() if item["unit"] == "MiB"])
def adam_state(name: str) -> float:
    """Of Adam's, on all of OPT-1.3B."""
    return verdicts.counted(name)


@quantity("figures", source=LEDGER)
def figures_counted() -> int:
    """That can be counted."""
    return len(COUNTED)


@quantity("figures", source=LEDGER)
def figures_alike() -> int:
    """Of these, those that are the paper's at its digits."""
    digits = {name: 3 if item["unit"] == "MiB" else 0 for name, item in COUNTED.items()}
    return sum(round(verdicts.counted(name), digits[name]) == item["figure"] for name, item in COUNTED.items())


# What has to be measured.


@quantity(source=of_case, each=[(claim, task, case) for claim, task in JUDGED for case in CASES])
def verdict(claim: str, task: str, case: str) -> str:
    """On a claim on accuracy; where nothing is judged with the reason."""
    return verdicts.verdict(claim, task, case)[1]


@quantity("verdicts", source=LEDGER)
def verdicts_asked() -> int:
    """On accuracy, in each case."""
    return len(JUDGED)


def _all_of(case: str) -> list[Verdict]:
    found = [verdicts.verdict(claim, task, case)[0] for claim, task in JUDGED]
    return [verdict for verdict in found if verdict is not Verdict.UNMEASURED]


@quantity("verdicts", source=of_case, each=CASES)
def measured(case: str) -> int:
    """That a case has."""
    return len(_all_of(case))


KINDS = {
    "hold": Verdict.HOLDS, "fail": Verdict.FAILS, "edge": Verdict.EDGE, "open": Verdict.OPEN,
    "unjudged": Verdict.UNJUDGED,
}  # fmt: skip
THERE = [
    ("unjudged", "papers_rates"), ("hold", "tuned"), ("edge", "tuned"), ("unjudged", "tuned"), ("hold", "many_seeds"),
    ("open", "many_seeds"), ("hold", "all_examples"), ("open", "all_examples"), ("hold", "encoder"),
    ("unjudged", "encoder"),
]  # fmt: skip
"""The kinds that there are in each case, as the chapter's first sentences say and check."""


@quantity("verdicts", source=of_case, each=[*THERE, *itertools.product(["fail"], MEASURED)])
def told(kind: str, case: str) -> int:
    """Of a kind."""
    return _all_of(case).count(KINDS[kind])


@quantity("verdicts", source=of_case, each=("papers_rates", "tuned"))
def undecided(case: str) -> int:
    """That neither hold nor fail."""
    return sum(verdict not in (Verdict.HOLDS, Verdict.FAILS) for verdict in _all_of(case))


def _in_both() -> list[tuple[str, str]]:
    pairs = [
        tuple(verdicts.verdict(claim, task, case)[1] for case in ("papers_rates", "tuned")) for claim, task in JUDGED
    ]
    return [(before, after) for before, after in pairs if Verdict.UNMEASURED not in (before, after)]


@quantity("verdicts", source=(*AT_PAPERS_RATES, *TUNED))
def in_both() -> int:
    """That can be given at the paper's rates and tuned."""
    return len(_in_both())


@quantity("verdicts", source=(*AT_PAPERS_RATES, *TUNED))
def changed() -> int:
    """Of these, those that are not the same."""
    return sum(before != after for before, after in _in_both())


@quantity("runs", source=of_case, each=[*LOST, ("boolq", "all_examples")])
def lost(task: str, case: str) -> Value:
    """Of CP, to a loss or a gradient that is not finite."""
    found = verdicts.finding("runs_kept", task, case).diverged or (0, 0)
    return Value(found[0], n=found[1])


@quantity("budgets", source=of_case, each=MEASURED)
def matched(case: str) -> int:
    """Of LoRA's, that a CP size matches."""
    return len(verdicts.cells(case, "boolq").matched("lora", "cp"))


@quantity("rates", source=TUNED)
def rates() -> int:
    """Among which dev chose."""
    runs = contrasts.on_record(TUNED)
    return len({run.config.learning_rate for run in runs if run.config.family == "cp"})


@quantity("points", 1, of_case, level=1 - 2 * LEVEL, each=FOUND)
def difference(rule: str, task: str, case: str) -> Estimate | str:
    """That a rule judges."""
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
    """That give a chance which is enough; likewise."""
    found = verdicts.finding(rule, task, case)
    if found.verdict is not Verdict.OPEN:
        return "–"
    return verdicts.seeds_needed(found) or "more items"


@quantity("points", 4, AT_PAPERS_RATES)
def rte_lead_low() -> float:
    """Where the interval of LoRA's lead on RTE begins at the paper's rates."""
    found = verdicts.finding("lora_ahead", "rte", "papers_rates").estimate
    return math.nan if found is None else interval_90(found)[0]


# On MiniLM.


@quantity("percent", 1, ENCODER)
def missed() -> float:
    """Of the budget of LoRA's first rank, by CP's nearest size."""
    budgets = verdicts.cells("encoder", "sst2").budgets
    return 1 - budgets["cp", verdicts.encoder_sizes()[0]] / budgets["lora", 1]


@quantity("points", 2, ENCODER, level=1 - 2 * LEVEL)
def gain_from_nearly() -> Estimate:
    """CP's larger sizes on SST-2, on their average, minus that size."""
    (nearly, further), found = verdicts.encoder_sizes(), verdicts.cells("encoder", "sst2").outcomes
    return estimate(np.mean([found["cp", size].right for size in further], axis=0) - found["cp", nearly].right)


@quantity("points", 2, ENCODER)
def gain_to_most() -> Estimate:
    """CP's largest size minus that size."""
    (nearly, further), found = verdicts.encoder_sizes(), verdicts.cells("encoder", "sst2").outcomes
    return compare(found["cp", further[-1]], found["cp", nearly])


@quantity("runs", source=ENCODER)
def collapsed() -> int:
    """Of LoRA's larger ranks on BoolQ, that give one answer to every item."""
    found = verdicts.cells("encoder", "boolq")
    return sum(map(found.collapsed, verdicts.finding("lora_ahead", "boolq", "encoder").unfit))


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
    """Of the cells that the paper gives with their spread."""
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
    """That from items, if they vary as in the tuned cells of SmolLM2."""
    return verdicts.item_error(task)


@quantity("", 1, (PUBLISHED, *TUNED), each=PAIRS)
def papers_lead_over_errors(task: str, pair: str) -> float:
    """The lead in units of both errors together."""
    return papers_lead(task, pair) / math.hypot(papers_seed_error(task, pair), verdicts.item_error(task))
