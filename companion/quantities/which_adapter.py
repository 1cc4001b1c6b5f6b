"""Numbers of the chapter on which adapter to take."""

from companion import PROJECT, contrasts, size, which_adapter
from companion.plan import MAIN
from companion.quantities import quantity
from companion.quantities.encoder import listed
from companion.which_adapter import TRIED
from cpadapt.analysis.charts import family_name
from cpadapt.analysis.statistics import Estimate, compare
from cpadapt.inputs.backbones.specs import BACKBONES
from cpadapt.study import load_study

RATES = tuple(size.RATES.values())
RATED = [(label, named) for label, tried in TRIED.items() for named in tried]


@quantity("", 3, RATES, each=RATED)
def first_rate(label: str, named: str) -> float:
    """The rate for an adapter of a tried size: the middle one of the rates that dev chose on three models, over six
    tasks.
    """
    return which_adapter.first_rate(label, named)


@quantity("times", 1, RATES)
def rate_off() -> float:
    """The largest factor by which the rate that dev chose on a model is the higher or the lower one."""
    found = [(which_adapter.first_rate(*one), rate) for one in RATED for rate in which_adapter.chosen_rates(*one)]
    return max(max(first / rate, rate / first) for first, rate in found)


@quantity("points", 1, "boolq-lifted")
def more_ranks() -> Estimate:
    """LoRA's rank 4 minus rank 1, on all of BoolQ."""
    found = contrasts.cells_on_record(("boolq-lifted",), "boolq").outcomes
    return compare(found["lora", 4], found["lora", 1])


@quantity("scalars")
def head() -> int:
    """Scalars of the head that PEFT saves beside an adapter of the main study's model: two classes, without a bias."""
    return 2 * int(BACKBONES[load_study(PROJECT / "studies" / f"{MAIN}.toml").backbone].config().hidden_size)


@quantity()
def unmeasured() -> str:
    """The families and tuners of PEFT whose accuracy isn't measured."""
    return listed([family_name(name) for name, said in which_adapter.accuracy().items() if said.startswith("not")])
