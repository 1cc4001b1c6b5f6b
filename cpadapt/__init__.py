"""cpadapt: finer parameter steps for low-rank PEFT, and how sure one can be of what they buy.

Importing cpadapt registers `CPConfig` with PEFT: at once if peft is loaded, else as soon as it is. Each name below is
imported on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from cpadapt.registration import register_with_peft

if TYPE_CHECKING:
    from cpadapt.errors import InputError
    from cpadapt.families import family
    from cpadapt.families.counting import plan
    from cpadapt.inputs.backbones.loading import load_backbone
    from cpadapt.inputs.backbones.projections import load_projections
    from cpadapt.inputs.tasks.examples import load_task
    from cpadapt.inputs.tasks.specs import TaskSpec
    from cpadapt.measure import train
    from cpadapt.progress import status
    from cpadapt.records.config import Protocol, RunConfig
    from cpadapt.records.record import Record
    from cpadapt.records.store import load_records
    from cpadapt.records.table import read_evaluations, read_records, tabulate
    from cpadapt.study import FamilyPlan, Ladder, Setting, Shard, Study, load_study, with_protocol
    from cpadapt.tuner import CPConfig, export_to_lora, save_adapter, to_lora

_MODULES = {
    "cpadapt.errors": ("InputError",),
    "cpadapt.families": ("family",),
    "cpadapt.families.counting": ("plan",),
    "cpadapt.inputs.backbones.loading": ("load_backbone",),
    "cpadapt.inputs.backbones.projections": ("load_projections",),
    "cpadapt.inputs.tasks.examples": ("load_task",),
    "cpadapt.inputs.tasks.specs": ("TaskSpec",),
    "cpadapt.measure": ("train",),
    "cpadapt.progress": ("status",),
    "cpadapt.records.config": ("Protocol", "RunConfig"),
    "cpadapt.records.record": ("Record",),
    "cpadapt.records.store": ("load_records",),
    "cpadapt.records.table": ("read_evaluations", "read_records", "tabulate"),
    "cpadapt.study": ("FamilyPlan", "Ladder", "Setting", "Shard", "Study", "load_study", "with_protocol"),
    "cpadapt.tuner": ("CPConfig", "export_to_lora", "save_adapter", "to_lora"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

# Written out, because type checkers read it; a test compares it with the tables above.
__all__ = [
    "CPConfig",
    "FamilyPlan",
    "InputError",
    "Ladder",
    "Protocol",
    "Record",
    "RunConfig",
    "Setting",
    "Shard",
    "Study",
    "TaskSpec",
    "export_to_lora",
    "family",
    "load_backbone",
    "load_projections",
    "load_records",
    "load_study",
    "load_task",
    "plan",
    "read_evaluations",
    "read_records",
    "save_adapter",
    "status",
    "tabulate",
    "to_lora",
    "train",
    "with_protocol",
]

register_with_peft()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("cpadapt")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'cpadapt' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value  # so that it is looked up only once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
