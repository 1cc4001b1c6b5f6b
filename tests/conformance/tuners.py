"""The tuners that take LoRA's place in PEFT's tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peft import LoraConfig, PeftConfig

from cpadapt import CPConfig


@dataclass(frozen=True)
class Tuner:
    """A tuner as the tests see it.

    Args:
        config: its configuration.
        in_place_of_lora: what stands where the tests say `LoraConfig`: the same, with the arguments that they give to
            LoRA. It raises a TypeError for those that the tuner has nothing like.
        rows: what stands in place of lists of PEFT's test modules, by the lists' names. In all others LoRA's rows
            become the tuner's.
    """

    config: type[PeftConfig]
    in_place_of_lora: type[PeftConfig]
    rows: Mapping[str, Sequence[tuple[Any, ...]]] = field(default_factory=dict)


class CP(CPConfig):
    """A `CPConfig` that understands `LoraConfig`'s common arguments, and has a default size."""

    def __init__(
        self,
        *,
        r: int = 4,
        init_lora_weights: bool = True,
        lora_alpha: float | None = None,  # CP's scale has no such part
        lora_dropout: float = 0.0,  # so that the tests of LoRA with dropout serve without
        bias: str = "none",
        **arguments: Any,
    ) -> None:
        if not init_lora_weights:  # LoRA's word for a start that has an effect
            arguments["init"] = "normal"
        if bias != "none":
            arguments["bias"] = bias
        super().__init__(**{"num_components": r} | arguments)


TUNERS = {
    "cp": Tuner(
        CPConfig,
        CP,
        {
            "TEST_CASES": [
                ("Vanilla MLP 1 CP", "MLP", CP, {"target_modules": "lin0"}),
                ("Vanilla MLP 2 CP", "MLP", CP, {"target_modules": ["lin0"]}),
                ("Vanilla MLP 3 CP", "MLP", CP, {"target_modules": ["lin1"]}),
                ("Vanilla MLP 4 CP", "MLP", CP, {"target_modules": ["lin0", "lin1"]}),
                ("Vanilla MLP 5 CP", "MLP", CP, {"target_modules": ["lin0"], "modules_to_save": ["lin1"]}),
                ("Vanilla MLP 6 CP", "MLP", CP, {"target_modules": ["lin0"], "num_components": 1, "scale": 2.0}),
                ("Vanilla MLP 7 CP", "MLP", CP, {"target_modules": ["lin0", "lin1"], "raw_norm": 3.0}),
                (
                    "Vanilla MLP 8 CP",
                    "MLP",
                    CP,
                    {"target_modules": ["lin0"], "tensor_shape": {20: (2, 2, 5), 10: (10,)}},
                ),
                ("Embedding + transformers Conv1D 1 CP", "EmbConv1D", CP, {"target_modules": ["conv1d"]}),
                (
                    "Embedding + transformers Conv1D 2 CP",
                    "EmbConv1D",
                    CP,
                    {"target_modules": ["conv1d", "lin0"], "modules_to_save": ["emb"]},
                ),
                ("Conv2d 1 CP", "Conv2d", CP, {"target_modules": ["lin0"], "modules_to_save": ["conv2d"]}),
            ],
            "ALL_CONFIG_CLASSES": [(CPConfig, {"num_components": 4})],
            "LAYER_INDEXING_CONFIG_CLASSES": [(CPConfig, {"num_components": 4})],
            # The second field is no name of PEFT's, so that no special case of another tuner applies.
            "MULTIPLE_ACTIVE_ADAPTERS_TEST_CASES": [
                (
                    "CP Same",
                    "cp",
                    CP,
                    {"target_modules": ["lin0"], "init": "normal"},
                    {"target_modules": ["lin0"], "init": "normal"},
                ),
                (
                    "CP Different",
                    "cp",
                    CP,
                    {"target_modules": ["lin0"], "init": "normal"},
                    {"target_modules": ["lin1"], "init": "normal"},
                ),
            ],
        },
    ),
    # The control: PEFT's own.
    "lora": Tuner(LoraConfig, LoraConfig),
}
