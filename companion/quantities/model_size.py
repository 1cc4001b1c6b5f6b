"""Numbers of the chapter on model size."""

from companion import main_study, model_size, planned
from companion.main_study import LEVEL
from companion.model_size import STUDIES
from companion.quantities import Value, quantity
from cpadapt.analysis.across_tasks import OverTasks
from cpadapt.analysis.charts import cell_name

MODELS = tuple(STUDIES)


def of_model(*model: str) -> str:
    """The study of a model, which a quantity's name ends in."""
    return STUDIES[model[-1]]


@quantity("points", 2, of_model, level=LEVEL, each=MODELS)
def lead(model: str) -> OverTasks:
    """LoRA minus CP at equal size, over tasks."""
    return main_study.primary(STUDIES[model])


@quantity(source=of_model, each=MODELS)
def verdict(model: str) -> str:
    """How the plan classifies it; of the smaller models as if it were tested alone."""
    return main_study.verdict(STUDIES[model])


@quantity("percent", 0, of_model, each=MODELS)
def share(model: str) -> Value:
    """One component's share of the best adapter's gain over the head alone."""
    ratio, low, high = planned.share(STUDIES[model])
    return Value(ratio, low, high, level=LEVEL)


@quantity("points", 2, of_model, level=LEVEL, each=MODELS)
def costs(model: str) -> OverTasks:
    """LoRA's first rank minus one component, over tasks."""
    return main_study.one_component_costs(STUDIES[model])


@quantity("points", 1, of_model, level=LEVEL, each=MODELS)
def gain(model: str) -> OverTasks:
    """What LoRA's first rank gains over the head alone, over tasks."""
    return main_study.over_sources(main_study.gains(("lora", 1), STUDIES[model]))


@quantity(source=of_model, each=MODELS)
def equal(model: str) -> str:
    """CP of the size of LoRA's first rank."""
    return cell_name(*model_size.cell(STUDIES[model], "equal"))


@quantity("runs", 0, of_model, each=[(label, model) for label in ("lora", "cp") for model in MODELS])
def collapsed(label: str, model: str) -> Value:
    """Runs of the primary number that stop far below the head alone."""
    study = STUDIES[model]
    return Value(model_size.collapsed(study, label), n=len(model_size.compared(study, label)))


@quantity("points")
def far() -> float:
    """How far below the head alone a run has collapsed."""
    return model_size.FAR
