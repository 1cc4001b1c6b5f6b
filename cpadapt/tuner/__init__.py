"""CP adapters in PEFT: `peft.get_peft_model(model, CPConfig(num_components=4))`.

Importing this registers the adapter type with PEFT, so that saved CP adapters load too.
"""

from cpadapt.tuner.config import CPConfig
from cpadapt.tuner.export import export_to_lora, save_adapter, to_lora
from cpadapt.tuner.layer import CPLayer
from cpadapt.tuner.model import CPModel
from cpadapt.tuner.registry import register

__all__ = ["CPConfig", "CPLayer", "CPModel", "export_to_lora", "save_adapter", "to_lora"]

register(CPConfig, CPModel)
