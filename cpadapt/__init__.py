"""cpadapt: finer parameter steps for low-rank PEFT, and how sure one can be of what they buy.

Importing it registers `CPConfig` with PEFT.
"""

from cpadapt.errors import InputError
from cpadapt.inputs.backbones.loading import load_backbone, load_projections
from cpadapt.inputs.tasks.specs import TaskSpec
from cpadapt.measure import train
from cpadapt.records.config import Protocol
from cpadapt.records.table import read_evaluations, read_records, tabulate
from cpadapt.study import FamilyPlan, Ladder, Setting, Shard, Study, load_study
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
