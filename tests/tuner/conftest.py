"""Five small models, each the same at every call, and how to ask them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    OPTConfig,
    OPTForSequenceClassification,
    Qwen2Config,
    Qwen2ForSequenceClassification,
)

from cpadapt import families
from cpadapt.tuner import CPConfig, CPLayer

ROWS = 4


class Toy(nn.Module):
    """Two projections of different sizes between an embedding and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 24)
        self.q_proj = nn.Linear(24, 24)
        self.v_proj = nn.Linear(24, 18)
        self.score = nn.Linear(18, 2)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.score(self.v_proj(torch.tanh(self.q_proj(self.embed(input_ids)))).mean(1))


# Weights well above the usual initial size, so that what adapters change is far from rounding.
_SIZES = {
    "vocab_size": 50,
    "hidden_size": 48,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
}


def _bert() -> nn.Module:
    return BertForSequenceClassification(
        BertConfig(
            intermediate_size=64,
            initializer_range=0.2,
            max_position_embeddings=16,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            **_SIZES,
        )
    )


def _llama() -> nn.Module:
    return LlamaForSequenceClassification(
        LlamaConfig(
            intermediate_size=64,
            initializer_range=0.2,
            num_key_value_heads=2,
            max_position_embeddings=16,
            **_SIZES,
        )
    )


def _qwen2() -> nn.Module:
    """With grouped queries and biases, which are not zero as they would be at first."""
    model = Qwen2ForSequenceClassification(
        Qwen2Config(
            intermediate_size=64,
            initializer_range=0.2,
            max_position_embeddings=16,
            num_key_value_heads=2,
            **_SIZES,
        )
    )
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            nn.init.normal_(parameter)
    return model


def _opt() -> nn.Module:
    return OPTForSequenceClassification(
        OPTConfig(
            ffn_dim=64,
            init_std=0.2,
            max_position_embeddings=16,
            word_embed_proj_dim=48,
            dropout=0.0,
            **_SIZES,
        )
    )


@dataclass(frozen=True)
class Case:
    """One architecture."""

    name: str
    make: Callable[[], nn.Module]
    targets: tuple[str, str]
    head: str

    @property
    def is_transformers(self) -> bool:
        return self.name != "toy"

    def model(self, dtype: torch.dtype = torch.float32) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.make().to(dtype).eval()

    def inputs(self) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1)
        return {"input_ids": torch.randint(1, 50, (ROWS, 7), generator=generator)}

    def logits(self, model: nn.Module, **kwargs: Any) -> Tensor:
        with torch.no_grad():
            output = model(**self.inputs(), **kwargs)
        return output.logits if self.is_transformers else output

    def config(self, kind: str = "cp", **fields: Any) -> CPConfig | LoraConfig:
        """An adapter that is no no-op; a LoRA as the control."""
        if kind == "lora":
            return LoraConfig(**{"r": 2, "init_lora_weights": False, "target_modules": list(self.targets)} | fields)
        return CPConfig(**{"num_components": 3, "init": "normal", "target_modules": list(self.targets)} | fields)

    def projections(self, model: nn.Module) -> dict[str, nn.Linear]:
        return {
            name: module
            for name, module in model.named_modules()
            if name.rpartition(".")[2] in self.targets and isinstance(module, nn.Linear)
        }


CASES = [
    Case("toy", Toy, ("q_proj", "v_proj"), "score"),
    Case("bert", _bert, ("query", "value"), "classifier"),
    Case("llama", _llama, ("q_proj", "v_proj"), "score"),
    Case("opt", _opt, ("q_proj", "v_proj"), "score"),
    Case("qwen2", _qwen2, ("q_proj", "v_proj"), "score"),
]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(params=CASES[1:], ids=lambda case: case.name)
def transformers_case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture
def toy() -> Case:
    return CASES[0]


@pytest.fixture
def llama() -> Case:
    return CASES[2]


def _delta(layer: CPLayer, adapter: str) -> Tensor:
    """ΔW [out, in] as the sum over components of outer products of unit vectors, one mode at a time."""
    tensors = {name: raw.detach().cpu().double() for name, raw in layer.cp_adapter[adapter].tensors().items()}
    up, down = ([raw for name, raw in tensors.items() if name.startswith(side)] for side in ("up_", "down_"))
    total = torch.zeros(layer.out_features, layer.in_features, dtype=torch.float64)
    for s, weight in enumerate(tensors["weight"]):
        sides = []
        for raw in (up, down):
            side = torch.ones(1, dtype=torch.float64)
            for vectors in raw:
                side = torch.kron(side, vectors[s] / vectors[s].norm())
            sides.append(side)
        total += weight * torch.outer(*sides)
    return layer.cp_scale[adapter] * total


@pytest.fixture
def delta() -> Callable[[CPLayer, str], Tensor]:
    """The slow twin of `CPLayer.get_delta_weight`."""
    return _delta


@pytest.fixture
def plus(delta: Callable[[CPLayer, str], Tensor]) -> Callable[..., nn.Module]:
    """A fresh copy of the case's model with the named adapters of an adapted model added into its weights."""

    def build(case: Case, adapted: nn.Module, *adapters: str) -> nn.Module:
        model = case.model()
        layers = {name: layer for name, layer in adapted.named_modules() if isinstance(layer, CPLayer)}
        for name, projection in case.projections(model).items():
            layer = next(layer for key, layer in layers.items() if key == name or key.endswith(f".{name}"))
            for adapter in adapters:
                projection.weight.data += delta(layer, adapter).float()
        return model

    return build


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(7)


@pytest.fixture
def run_params() -> Callable[..., dict[str, dict[str, Tensor]]]:
    """What a trained run hands over: a family's tensors for each projection of a case's model."""

    def draw(case: Case, family: str, size: int, **options: Any) -> dict[str, dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(3)
        return {
            name: families.family(family).init(
                generator, module.out_features, module.in_features, size, init="normal", **options
            )
            for name, module in case.projections(case.model()).items()
        }

    return draw
