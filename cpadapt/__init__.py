"""cpadapt: finer parameter steps for low-rank PEFT, and how sure one can be of what they buy.

Importing it registers `CPConfig` with PEFT.
"""

from cpadapt.backbones import load_backbone, load_projections
from cpadapt.errors import InputError
from cpadapt.protocol import Protocol
from cpadapt.record import read_evaluations, read_records, tabulate
from cpadapt.study import FamilyPlan, Ladder, Setting, Shard, Study, load_study, train
from cpadapt.tasks import TaskSpec
from cpadapt.tuner import CPConfig, to_lora

__all__ = [
    "CPConfig",
    "FamilyPlan",
    "InputError",
    "Ladder",
    "Protocol",
    "Setting",
    "Shard",
    "Study",
    "TaskSpec",
    "load_backbone",
    "load_projections",
    "load_study",
    "read_evaluations",
    "read_records",
    "tabulate",
    "to_lora",
    "train",
]
