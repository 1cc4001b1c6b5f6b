"""A run in a bank equals the same run alone, and both equal a slow loop of PEFT and torch.optim.AdamW."""

import dataclasses
import itertools
import math
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
import toy_family
from peft import (
    FourierFTConfig,
    LoKrConfig,
    LoraConfig,
    TinyLoraConfig,
    UniLoraConfig,
    VeraConfig,
    get_peft_model,
)
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    OPTModel,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from cpadapt.bank.bank import initial_params, require_packable, stacking_order, verbalizer
from cpadapt.bank.packing import Row
from cpadapt.bank.peft_run import WHOLE
from cpadapt.bank.trainer import TRAINING_TOKENS, Result, Trainer, fits, peak_resident_bytes
from cpadapt.errors import InputError
from cpadapt.families import FAMILIES, family
from cpadapt.inputs.backbones.loading import Backbone, load_backbone
from cpadapt.inputs.backbones.specs import Projection
from cpadapt.inputs.tasks.examples import TaskData, load_task
from cpadapt.inputs.tasks.specs import load_spec
from cpadapt.records.config import Protocol, RunConfig
from cpadapt.tuner import CPConfig

TASK = "toy-entailment"
PROTOCOL = Protocol(
    steps=12, eval_every=4, batch_size=4, train_cap=20, dev_cap=16, eval_cap=24, clip=0.5, weight_decay=0.01,
    warmup_steps=3, rest_cap=10,
)  # fmt: skip
CAPS = PROTOCOL.caps


def config(family: str, size: int, seed: int = 0, **changes: Any) -> RunConfig:
    adapter = {} if family == "head" else {"learning_rate": 1e-2, "scale": 4.0}
    return RunConfig(
        **{
            "backbone": "tiny", "task": TASK, "family": family, "size": size, "seed": seed, "data_seed": 0,
            "protocol": PROTOCOL, **adapter, **changes,
        }
    )  # fmt: skip


SEVEN = [
    config("cp", 1),
    config("lora", 2, seed=1, learning_rate=3e-3, warmup_steps=0),
    config("head", 0, warmup_steps=6),
    config("cp", 5, seed=1, options={"init": "normal", "init_std": 0.1, "raw_norm": 0.5, "lambda_decay": 3.0}),
    config("cp", 3, seed=2, options={"tensor_shape": {32: (2, 4, 4), 16: (16,)}}),
    config("lora", 1, scale=2.0, data_seed=1, order_seed=4),
    config("head", 0, seed=3, data_seed=1),
]


SIZES = {
    "vocab_size": 259, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 1024, "tie_word_embeddings": True,
}  # fmt: skip


def qwen2() -> PreTrainedModel:
    """With grouped queries, biases that are not zero as they would be at first, and an output embedding of its own."""
    model = Qwen2ForCausalLM(
        Qwen2Config(**SIZES | {"num_key_value_heads": 2, "tie_word_embeddings": False, "initializer_range": 0.2})
    )
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(parameter)
    return model


OPT_SIZES = SIZES | {"ffn_dim": 64, "word_embed_proj_dim": 16, "pad_token_id": 0}

ASKED = dataclasses.replace(PROTOCOL, readout="verbalizer")
"""A bank without a head, in which one run has nothing to train at all."""
THREE = [
    config("cp", 2, protocol=ASKED),
    config("lora", 1, seed=1, data_seed=1, protocol=ASKED),
    config("head", 0, protocol=ASKED),
]


@pytest.fixture(scope="module")
def data() -> dict[int, TaskData]:
    return {seed: load_task(load_spec(TASK), caps=CAPS, data_seed=seed) for seed in (0, 1)}


@pytest.fixture(scope="module", params=["tiny", "tiny-encoder"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return load_backbone(request.param)


def on(backbone: Backbone, runs: list[RunConfig]) -> list[RunConfig]:
    return [dataclasses.replace(run, backbone=backbone.name) for run in runs]


def train(backbone: Backbone, runs: list[RunConfig], data: dict[int, TaskData], **options: Any) -> dict[str, Result]:
    trainer = Trainer(backbone, on(backbone, runs), data, **options)
    return {result.config.config_id: result for result in trainer.train()}


@pytest.fixture(scope="module")
def together(backbone: Backbone, data: dict[int, TaskData]) -> dict[str, Result]:
    return train(backbone, SEVEN, data)


def weights(result: Result) -> dict[str, Tensor]:
    named = {f"{module}.{n}": t for module, tensors in result.adapter.items() for n, t in tensors.items()}
    return named | {f"head.{name}": tensor for name, tensor in result.head.items()}


def assert_same(got: Result, expected: Result) -> None:
    assert [(e.step, e.dev_correct) for e in got.evaluations] == [
        (e.step, e.dev_correct) for e in expected.evaluations
    ]
    for name in ("train_loss", "dev_loss"):
        np.testing.assert_allclose(
            [getattr(e, name) for e in got.evaluations],
            [getattr(e, name) for e in expected.evaluations],
            atol=1e-5,
            rtol=0,
        )
    assert got.best_step == expected.best_step
    for name in ("outcome", "rest", "dev"):
        one, other = getattr(got, name), getattr(expected, name)
        assert one.right_by_row == other.right_by_row
        # A margin may be rounded to the next step of what is kept.
        np.testing.assert_allclose(one.margin, other.margin, atol=2e-3, rtol=0.05)
    mine, theirs = weights(got), weights(expected)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[name], atol=1e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
@pytest.mark.parametrize("run", SEVEN, ids=lambda run: f"{run.family}-{run.size}-{run.seed}")
def test_a_run_in_a_bank_equals_itself_alone(
    run: RunConfig, backbone: Backbone, data: dict[int, TaskData], together: dict[str, Result]
) -> None:
    ((identity, alone),) = train(backbone, [run], data).items()
    assert_same(together[identity], alone)


@pytest.mark.parametrize("run", SEVEN, ids=lambda run: f"{run.family}-{run.size}-{run.seed}")
@pytest.mark.slow
def test_a_run_in_a_bank_equals_the_slow_loop(
    run: RunConfig, backbone: Backbone, data: dict[int, TaskData], together: dict[str, Result]
) -> None:
    (run,) = on(backbone, [run])
    assert_as_slow(together[run.config_id], SlowLoop(run, load_backbone(backbone.name), data).train())


@pytest.fixture
def third(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """Runs of a family with several columns a unit, between others."""
    monkeypatch.setitem(FAMILIES, "toy", toy_family)
    runs = [
        config("toy", 2),
        config("cp", 3),
        config("toy", 1, seed=1, learning_rate=3e-3, scale=2.0, options={"down_decay": 2.0}),
        config("toy", 3, seed=2, options={"blocks": 4, "spread": 0.5}),
        config("lora", 2),
        config("head", 0),
    ]
    return sorted(runs, key=stacking_order)


@pytest.mark.long
def test_a_family_of_several_columns_a_unit_trains_among_others(
    third: list[RunConfig], data: dict[int, TaskData]
) -> None:
    together = train(load_backbone("tiny-encoder"), third, data)
    in_parts = train(load_backbone("tiny-encoder"), third, data, max_tokens=700)
    for run in on(load_backbone("tiny-encoder"), third):
        ((identity, alone),) = train(load_backbone("tiny-encoder"), [run], data).items()
        assert_same(together[identity], alone)
        assert_same(together[identity], in_parts[identity])
        assert_as_slow(together[identity], SlowLoop(run, load_backbone("tiny-encoder"), data).train())


@pytest.fixture(scope="module")
def square(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model whose projections are 64×64, which every family can adapt, LoKr up to rank 3."""
    folder = tmp_path_factory.mktemp("square")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SIZES | {"hidden_size": 64})).save_pretrained(folder)
    load_backbone("tiny").tokenizer.save_pretrained(folder)
    return str(folder)


RATE = {"learning_rate": 3e-3}
EVERY = sorted(
    [
        *(config(name, family(name).smallest() + more, more, **RATE) for name in FAMILIES for more in (0, 1)),
        config("melora", 3, seed=2, scale=2.0, learning_rate=1e-3),
        config("melora", 6, seed=3, options={"minis": 4}, **RATE),
        config("lokr", 2, seed=2, scale=2.0, data_seed=1, order_seed=4, **RATE),
        config("lokr", 3, seed=3, warmup_steps=0, **RATE),
        config("head", 0),
    ],
    key=stacking_order,
)


@pytest.fixture(scope="module")
def every(square: str, data: dict[int, TaskData]) -> dict[str, Result]:
    return train(load_backbone(square), EVERY, data)


@pytest.mark.long
@pytest.mark.parametrize("run", EVERY, ids=lambda run: f"{run.family}-{run.size}-{run.seed}")
def test_every_family_in_a_bank_equals_itself_alone_and_the_slow_loop(
    run: RunConfig, square: str, data: dict[int, TaskData], every: dict[str, Result]
) -> None:
    ((identity, alone),) = train(load_backbone(square), [run], data).items()
    assert_same(every[identity], alone)
    (run,) = on(load_backbone(square), [run])
    assert_as_slow(every[identity], SlowLoop(run, load_backbone(square), data).train())


@pytest.mark.long
def test_every_family_is_the_same_in_several_rows(
    square: str, data: dict[int, TaskData], every: dict[str, Result]
) -> None:
    in_parts = train(load_backbone(square), EVERY, data, max_tokens=700)
    for identity, result in every.items():
        assert_same(in_parts[identity], result)


def test_a_bank_refuses_what_a_family_refuses(third: list[RunConfig], data: dict[int, TaskData]) -> None:
    message = "family 'toy' cannot adapt a projection of 16x32: it is not square"
    with pytest.raises(InputError, match=message):
        Trainer(load_backbone("tiny"), on(load_backbone("tiny"), third), data)


@pytest.mark.slow
def test_runs_with_a_verbalizer_equal_the_slow_loop(data: dict[int, TaskData]) -> None:
    found = train(load_backbone("tiny"), THREE, data)
    *adapted, floor = THREE
    for run in adapted:
        assert_as_slow(found[run.config_id], SlowLoop(run, load_backbone("tiny"), data).train())
        assert not found[run.config_id].head
    (alone,) = train(load_backbone("tiny"), [floor], data).values()
    assert_same(alone, found[floor.config_id])
    assert len({(e.dev_loss, e.dev_correct) for e in alone.evaluations}) == 1


@pytest.mark.parametrize(
    "build",
    [lambda: LlamaForCausalLM(LlamaConfig(**SIZES)), lambda: OPTForCausalLM(OPTConfig(**OPT_SIZES)), lambda: qwen2()],
    ids=["Llama", "OPT", "Qwen2"],
)
@pytest.mark.parametrize("shards", ["1GB", "20KB"])
def test_a_verbalizer_gives_the_language_models_own_logits(
    build: Callable[[], PreTrainedModel], shards: str, data: dict[int, TaskData], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    lm, tokenizer = build().eval(), load_backbone("tiny").tokenizer
    lm.save_pretrained(tmp_path, max_shard_size=shards)
    tokenizer.save_pretrained(tmp_path)
    backbone = load_backbone(str(tmp_path))
    floor = dataclasses.replace(THREE[2], backbone=backbone.name)
    trainer = Trainer(backbone, [floor], {0: data[0]})
    row, _ = trainer._pack("eval", np.arange(24)[None])
    with trainer.bank.attached(), torch.no_grad():
        got = trainer.bank.logits(row, trainer.bank.run_slice(slice(0, 1)))[0]
    words = tokenizer.convert_tokens_to_ids(["Y", "N"])
    tokens = np.split(trainer.pools["eval"].tokens, trainer.pools["eval"].offsets[1:-1])
    with torch.no_grad():
        expected = [lm(torch.from_numpy(example)[None]).logits[0, -1, words] for example in tokens]
    torch.testing.assert_close(got, torch.stack(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("backbone", "task", "changes", "message"),
    [
        ("tiny-encoder", TASK, {}, "'tiny-encoder' is an encoder"),
        (
            "tiny",
            "toy-sentiment",
            {},
            "' great' of the task 'toy-sentiment' begins with the same token as ' terrible'",
        ),
        ("tiny", TASK, {"label_words": None}, "'toy-entailment' needs a prompt and label_words"),
        ("tiny", TASK, {"prompt": None}, "'toy-entailment' needs a prompt and label_words"),
    ],
)
def test_what_a_verbalizer_cannot_read_is_refused(
    backbone: str, task: str, changes: dict[str, Any], message: str
) -> None:
    spec = dataclasses.replace(load_spec(task), **changes)
    with pytest.raises(InputError, match=message):
        Trainer(
            load_backbone(backbone),
            [dataclasses.replace(THREE[0], backbone=backbone)],
            {0: load_task(spec, caps=CAPS)},
        )


def test_a_verbalizer_needs_an_output_embedding_that_says_all(tmp_path: Path) -> None:
    backbone = load_backbone("tiny")
    backbone.model.config.tie_word_embeddings = False
    with pytest.raises(InputError, match=r"readout = 'verbalizer': .*is untied, and no file contains it; use"):
        verbalizer(backbone, load_spec(TASK))
    sizes = {"vocab_size": 259, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    PhiForCausalLM(PhiConfig(intermediate_size=32, **sizes)).save_pretrained(tmp_path)
    backbone.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="has a bias, which is not supported; use 'head'"):
        verbalizer(load_backbone(str(tmp_path)), load_spec(TASK))


def test_an_untied_output_embedding_is_read_as_its_file_has_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    lm = qwen2()
    lm.save_pretrained(tmp_path)
    load_backbone("tiny").tokenizer.save_pretrained(tmp_path)
    rows = load_backbone(str(tmp_path), dtype="bfloat16").output_embedding([7, 3])
    # In full, though the model is in half precision.
    assert torch.equal(rows, lm.lm_head.weight[[7, 3]])


@pytest.fixture(scope="module")
def qwen2_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("qwen2")
    torch.manual_seed(0)
    qwen2().save_pretrained(folder)
    load_backbone("tiny").tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def qwen2_together(qwen2_folder: str, data: dict[int, TaskData]) -> dict[str, Result]:
    return train(load_backbone(qwen2_folder), SEVEN, data)


def test_packed_rows_are_the_padded_ones_on_qwen2(qwen2_folder: str) -> None:
    backbone = load_backbone(qwen2_folder)
    assert backbone.model.layers[0].self_attn.q_proj.bias.abs().min() > 0
    assert not backbone.model.config.tie_word_embeddings
    require_packable(backbone)


@pytest.mark.long
@pytest.mark.parametrize("run", SEVEN, ids=lambda run: f"{run.family}-{run.size}-{run.seed}")
def test_a_run_on_qwen2_equals_itself_alone_and_the_slow_loop(
    run: RunConfig, qwen2_folder: str, data: dict[int, TaskData], qwen2_together: dict[str, Result]
) -> None:
    ((identity, alone),) = train(load_backbone(qwen2_folder), [run], data).items()
    assert_same(qwen2_together[identity], alone)
    (run,) = on(load_backbone(qwen2_folder), [run])
    assert_as_slow(qwen2_together[identity], SlowLoop(run, load_backbone(qwen2_folder), data).train())


@pytest.mark.slow
def test_runs_on_qwen2_with_a_verbalizer_equal_the_slow_loop(qwen2_folder: str, data: dict[int, TaskData]) -> None:
    found = train(load_backbone(qwen2_folder), THREE, data)
    for run in on(load_backbone(qwen2_folder), THREE[:2]):
        assert_as_slow(found[run.config_id], SlowLoop(run, load_backbone(qwen2_folder), data).train())


PEFTS: dict[str, Callable[[RunConfig, int], tuple[Any, dict[str, Any]]]] = {
    "peft:lora": lambda run, seed: (LoraConfig, {"r": run.size, "lora_alpha": run.scale * run.size}),
    "peft:vera": lambda run, seed: (VeraConfig, {"r": run.size, "projection_prng_key": seed, **run.options}),
    "peft:fourierft": lambda run, seed: (
        FourierFTConfig,
        {"n_frequency": run.size, "scaling": run.scale, "random_loc_seed": seed, **run.options},
    ),
    "peft:tinylora": lambda run, seed: (TinyLoraConfig, {"u": run.size, "projection_seed": seed, **run.options}),
    "peft:unilora": lambda run, seed: (UniLoraConfig, {"theta_d_length": run.size, "proj_seed": seed, **run.options}),
}
BY_PEFT = [
    config("peft:lora", 2),
    config("peft:vera", 5, seed=1, scale=1.0),
    config("peft:vera", 1, seed=2, scale=1.0, options={"d_initial": 0.5}, data_seed=1, order_seed=4),
    config("peft:fourierft", 4, scale=50.0),
    config("peft:fourierft", 3, seed=1, scale=100.0, options={"init_weights": True}, warmup_steps=0),
    config("peft:tinylora", 4, scale=1.0),
    config("peft:tinylora", 3, seed=1, scale=1.0, options={"weight_tying": 1.0, "r": 4}),
    config("peft:unilora", 40, scale=1.0),
    config("peft:unilora", 1, seed=1, scale=1.0, options={"r": 2}),
]


@pytest.mark.long
@pytest.mark.parametrize("run", BY_PEFT, ids=lambda run: f"{run.family}-{run.size}")
def test_pefts_own_tuners_equal_the_slow_loop(run: RunConfig, backbone: Backbone, data: dict[int, TaskData]) -> None:
    (run,) = on(backbone, [run])
    (fast,) = Trainer(backbone, [run], data).train()
    assert_as_slow(fast, SlowLoop(run, load_backbone(backbone.name), data).train())
    (again,) = Trainer(backbone, [run], data).train()
    assert dataclasses.replace(again, cost=fast.cost, adapter=fast.adapter, head=fast.head) == fast
    assert all(torch.equal(tensor, weights(again)[name]) for name, tensor in weights(fast).items())


def assert_as_slow(fast: Result, slow: "SlowLoop") -> None:
    assert [(s, c) for s, _, _, c in slow.evaluations] == [(e.step, e.dev_correct) for e in fast.evaluations]
    np.testing.assert_allclose(
        [(train_loss, dev_loss) for _, train_loss, dev_loss, _ in slow.evaluations],
        [(e.train_loss, e.dev_loss) for e in fast.evaluations],
        atol=1e-5,
        rtol=0,
    )
    best = max(slow.evaluations, key=lambda e: e[3])[0]
    assert fast.best_step == best
    for kind, found in {"eval": fast.outcome, "rest": fast.rest, "dev": fast.dev}.items():
        margins = slow.margins[kind]
        assert found.right_by_row == {row: margin > 0 for row, margin in margins.items()}
        np.testing.assert_allclose(found.margin, list(margins.values()), atol=0.01, rtol=0.05)
        assert found.label.tolist() == getattr(slow.data, kind).labels.tolist()
    for name, tensor in weights(fast).items():
        torch.testing.assert_close(slow.best[name], tensor, atol=1e-5, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


class Dense(torch.nn.Module):
    """A projection that any family adapts: its whole update is made and applied as a matrix."""

    def __init__(self, projection: torch.nn.Linear, run: RunConfig) -> None:
        super().__init__()
        self.projection, self.run = projection, run
        self.params = torch.nn.ParameterDict()

    def parameter(self, name: str) -> torch.nn.Parameter:
        if name not in self.params:
            shapes = family(self.run.family).shapes(
                self.projection.out_features, self.projection.in_features, self.run.size, **self.run.shape_options
            )
            self.params[name] = torch.nn.Parameter(torch.empty(shapes[name]))
        return self.params[name]

    def forward(self, x: Tensor) -> Tensor:
        up, down = family(self.run.family).factors(dict(self.params.items()), **self.run.shape_options)
        return self.projection(x) + F.linear(x, self.run.scale * up @ down)


class SlowLoop:
    """One run as anyone would write it: PEFT, padded batches, torch.optim.AdamW. The bank must equal it."""

    def __init__(self, run: RunConfig, backbone: Backbone, data: dict[int, TaskData]) -> None:
        self.run, self.backbone, self.data = run, backbone, data[run.data_seed]
        self.head: torch.nn.Module = torch.nn.Identity()
        if run.protocol.readout == "head":
            self.head = torch.nn.Linear(backbone.model.config.hidden_size, 2)
            torch.nn.init.zeros_(self.head.weight)
            torch.nn.init.zeros_(self.head.bias)
        self.model: Any = backbone.model
        self.output = backbone.model.get_input_embeddings().weight
        if not backbone.model.config.tie_word_embeddings:
            self.output = safetensors.torch.load_file(Path(backbone.name) / "model.safetensors")["lm_head.weight"]
        self.adapter: dict[str, Tensor] = {}
        targets = sorted({p.name.rsplit(".", 1)[1] for p in backbone.projections})
        if run.family == "lora":
            lora = LoraConfig(r=run.size, lora_alpha=run.scale * run.size, target_modules=targets)
            self.model = get_peft_model(backbone.model, lora)
        elif run.family == "cp":
            cp = CPConfig(num_components=run.size, scale=run.scale, target_modules=targets, **run.shape_options)
            self.model = get_peft_model(backbone.model, cp)
        elif run.family == "lokr":
            lokr = LoKrConfig(r=run.size, alpha=run.scale * run.size, decompose_both=True, target_modules=targets)
            self.model = get_peft_model(backbone.model, lokr)
        elif run.family in PEFTS:
            torch.manual_seed(run.seed)
            frozen = int(np.random.SeedSequence(run.seed).generate_state(1)[0])
            made, fields = PEFTS[run.family](run, frozen)
            self.model = get_peft_model(backbone.model, made(target_modules=targets, **fields))
            trained = ((name, q) for name, q in self.model.named_parameters() if q.requires_grad)
            self.adapter = {f"{WHOLE}.{name}": q for name, q in trained}
            return
        elif run.family != "head":
            for p in backbone.projections:
                backbone.model.set_submodule(p.name, Dense(backbone.model.get_submodule(p.name), run))
        for name, tensors in initial_params(run, backbone.projections).items():
            layer = backbone.model.get_submodule(name)
            for tensor, start in tensors.items():
                parameter, transposed = self._parameter(layer, tensor)
                parameter.data.copy_(start.T if transposed else start)
                self.adapter[f"{name}.{tensor}"] = parameter.T if transposed else parameter

    def _parameter(self, layer: Any, tensor: str) -> tuple[torch.nn.Parameter, bool]:
        if isinstance(layer, Dense):
            return layer.parameter(tensor), False
        if self.run.family == "lora":
            return (layer.lora_B if tensor == "up" else layer.lora_A)["default"].weight, tensor == "up"
        if self.run.family == "lokr":
            return getattr(layer, f"lokr_{tensor}")["default"], tensor.endswith("_a")
        return getattr(layer.cp_adapter["default"], tensor), False

    def logits(self, kind: str, chosen: Any) -> tuple[Tensor, Tensor]:
        """By way of the tokenizer's own padded batches."""
        examples, spec = getattr(self.data, kind), self.data.spec
        texts = [examples.texts[i] for i in chosen]
        tokenizer = self.backbone.tokenizer
        if self.backbone.decoder:
            filled = [spec.prompt.format(**dict(zip(spec.text_columns, t, strict=True))) for t in texts]
            batch = tokenizer(filled, padding=True, return_tensors="pt")
        else:
            first, second = zip(*texts, strict=True)
            batch = tokenizer(list(first), list(second), padding=True, return_tensors="pt")
        hidden = self.model(**batch).last_hidden_state
        mask = batch["attention_mask"]
        if self.backbone.decoder:
            features = hidden[torch.arange(len(texts)), mask.sum(1) - 1]
        else:
            features = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        labels = torch.from_numpy(examples.labels[np.asarray(chosen)])
        if self.run.protocol.readout == "verbalizer":
            # The tokenizer of the tiny backbone has a token for each byte.
            words = [tokenizer.convert_tokens_to_ids(word[0]) for word in spec.label_words]
            return features @ self.output[words].T, labels
        return self.head(F.layer_norm(features, features.shape[-1:])), labels

    def batches(self) -> Iterator[np.ndarray]:
        p, count = self.run.protocol, len(self.data.train)
        epochs = math.ceil(p.steps * p.batch_size / count)
        seed = self.run.seed if self.run.order_seed is None else self.run.order_seed
        order = np.concatenate([np.random.default_rng([seed, e]).permutation(count) for e in range(epochs)])
        for step in range(p.steps):
            yield order[step * p.batch_size : (step + 1) * p.batch_size]

    def train(self) -> "SlowLoop":
        p, run = self.run.protocol, self.run
        adapter = [q for q in self.model.parameters() if q.requires_grad] if run.family != "head" else []
        option, alone = {"cp": ("lambda_decay", "weight"), "toy": ("down_decay", "down")}.get(run.family, ("", ""))
        decay = p.weight_decay + run.options.get(option, 0.0)
        decayed = [q for name, q in self.adapter.items() if name.rpartition(".")[2] == alone]
        others = [q for q in adapter if all(q is not one for one in decayed)]
        groups = [
            {"params": decayed, "lr": run.learning_rate, "weight_decay": decay},
            {"params": others, "lr": run.learning_rate},
            {"params": list(self.head.parameters()), "lr": p.head_learning_rate},
        ]
        optimizer = torch.optim.AdamW(
            [g for g in groups if g["params"]],
            weight_decay=p.weight_decay,
            betas=(p.beta1, p.beta2),
            eps=p.epsilon,
        )
        warmup = p.warmup_steps if run.warmup_steps is None else run.warmup_steps
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda s: s / warmup if s < warmup else (p.steps - s) / (p.steps - warmup),
        )
        self.evaluations, losses, self.best = [], [], {}
        for step, chosen in enumerate(self.batches(), start=1):
            optimizer.zero_grad()
            loss = F.cross_entropy(*self.logits("train", chosen))
            loss.backward()
            torch.nn.utils.clip_grad_norm_([*adapter, *self.head.parameters()], p.clip)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            if step % p.eval_every == 0:
                self._evaluate(step, np.mean(losses))
                losses = []
        for name, tensor in self.best.items():
            (self.adapter | self._head())[name].data.copy_(tensor)
        self.margins = {}
        for kind in ("eval", "rest", "dev"):
            examples = getattr(self.data, kind)
            with torch.no_grad():
                logits, labels = self.logits(kind, range(len(examples)))
            others = [
                [score for k, score in enumerate(row) if k != true] for row, true in zip(logits, labels, strict=True)
            ]
            margins = [float(row[true] - max(rest)) for row, true, rest in zip(logits, labels, others, strict=True)]
            self.margins[kind] = dict(zip(examples.rows.tolist(), margins, strict=True))
        return self

    def _head(self) -> dict[str, Tensor]:
        return {f"head.{name}": tensor for name, tensor in self.head.named_parameters()}

    def _evaluate(self, step: int, train_loss: float) -> None:
        with torch.no_grad():
            logits, labels = self.logits("dev", range(len(self.data.dev)))
        correct = int((logits.argmax(1) == labels).sum())
        if correct > max((c for _, _, _, c in self.evaluations), default=-1):
            self.best = {n: t.detach().clone() for n, t in (self.adapter | self._head()).items()}
        self.evaluations.append((step, train_loss, F.cross_entropy(logits, labels).item(), correct))


@pytest.mark.long
def test_rows_of_bounded_length_give_the_same_results(
    backbone: Backbone, data: dict[int, TaskData], together: dict[str, Result]
) -> None:
    for identity, result in train(backbone, SEVEN, data, max_tokens=700).items():
        assert_same(result, together[identity])


def test_what_fills_a_row_up_to_its_budget_changes_nothing(backbone: Backbone, data: dict[int, TaskData]) -> None:
    trainer = Trainer(backbone, on(backbone, SEVEN), data)
    bank, run_slice = trainer.bank, trainer.bank.run_slice(slice(0, len(SEVEN)))
    bank.head["weight"].normal_(generator=torch.Generator().manual_seed(0))
    chosen = trainer._batches(0)
    capacity = trainer._capacity(chosen)

    def backward(row: Row, labels: Tensor) -> list[Tensor]:
        with bank.attached():
            return [bank.backward(row, labels, run_slice), *(trained.gradient.clone() for trained in bank.tensors())]

    row, labels = trainer._pack("train", chosen)
    exact = backward(row, labels)
    filled, labels = trainer._pack("train", chosen, capacity)
    assert filled.tokens.shape == (1, capacity.tokens)
    assert capacity.tokens > row.tokens.shape[1]
    with pytest.raises(InputError, match="no run ends"):
        backward(filled, labels)
    # On a CPU there is only the loop over runs, which needs the ends.
    ends = tuple(filled.segments.run_offsets[1:].tolist())
    got = backward(dataclasses.replace(filled, segments=dataclasses.replace(filled.segments, run_ends=ends)), labels)
    for mine, theirs in zip(got, exact, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.long
def test_out_of_memory_splits_the_bank_and_changes_no_result(
    backbone: Backbone,
    data: dict[int, TaskData],
    together: dict[str, Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = Trainer(backbone, on(backbone, SEVEN), data)
    rows: list[int] = []
    forward = trainer.bank.logits

    def with_little_memory(row: Any, run_slice: Any) -> Tensor:
        if row.tokens.shape[1] > 1000:
            raise torch.OutOfMemoryError("out of memory")
        rows.append(row.tokens.shape[1])
        return forward(row, run_slice)

    monkeypatch.setattr(trainer.bank, "logits", with_little_memory)
    results = trainer.train()
    assert trainer.max_tokens < 2000
    assert trainer.evaluation_tokens < 2000
    for result in results:
        assert_same(result, together[result.config.config_id])


def test_a_cpu_never_gets_rows_without_a_bound(backbone: Backbone, data: dict[int, TaskData]) -> None:
    """There nothing says that memory is out: the system ends the process."""
    trainer = Trainer(backbone, on(backbone, [config("lora", 1, seed=seed) for seed in range(40)]), data)
    rows = [row.run_slice.runs for row in trainer.rows]
    assert len(rows) > 1
    assert [rows[0].start, rows[-1].stop] == [0, 40]
    assert max(row.stop - row.start for row in rows) * trainer.run_tokens <= TRAINING_TOKENS["cpu"]


def test_a_run_that_does_not_fit_alone_is_an_error_that_says_so(
    backbone: Backbone, data: dict[int, TaskData], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(backbone, on(backbone, SEVEN[:2]), data)

    def no_memory(*args: Any) -> Tensor:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(trainer.bank, "logits", no_memory)
    with pytest.raises(InputError, match=r"4 examples of one run .*protocol\.batch_size"):
        trainer.train()


def test_work_that_does_not_fit_is_made_smaller_first() -> None:
    size, done, freed = 8, [], []

    class Held:
        def __del__(self) -> None:
            freed.append(True)

    def work() -> int:
        held = Held()
        if size > 2:
            raise torch.OutOfMemoryError("out of memory")
        done.append(held)
        return size

    def halve() -> None:
        nonlocal size
        # What the failed call held is free by now.
        assert len(freed) == {8: 1, 4: 2}[size]
        size //= 2

    assert fits(work, halve) == 2
    assert len(done) == 1


def test_work_that_cannot_be_made_smaller_is_an_error() -> None:
    calls = []

    def work() -> None:
        calls.append("work")
        raise torch.OutOfMemoryError("out of memory")

    def refuse() -> None:
        raise InputError("too large")

    with pytest.raises(InputError, match="too large") as caught:
        fits(work, refuse)
    assert calls == ["work"]
    assert caught.value.__context__ is None


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_is_in_bytes(platform: str, unit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = types.SimpleNamespace(
        RUSAGE_SELF=0, getrusage=lambda who: types.SimpleNamespace(ru_maxrss=3_000_000 if who == 0 else 0)
    )
    monkeypatch.setitem(sys.modules, "resource", usage)
    monkeypatch.setattr(sys, "platform", platform)
    assert peak_resident_bytes() == 3_000_000 * unit


def test_peak_memory_is_unknown_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_resident_bytes() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not say")
def test_peak_memory_is_that_of_this_process() -> None:
    """Python with torch takes more than 50 MB, and no machine of ours has 10 TB."""
    assert 50e6 < peak_resident_bytes() < 10e12


@pytest.mark.slow
def test_a_diverged_run_is_reported_and_touches_no_other(
    backbone: Backbone, data: dict[int, TaskData], together: dict[str, Result]
) -> None:
    wild = config("lora", 2, seed=5, learning_rate=1e30)
    results = train(backbone, [*SEVEN, wild], data)
    (identity,) = set(results) - set(together)
    assert 1 < results[identity].diverged_at <= 5
    assert all(e.step < results[identity].diverged_at for e in results[identity].evaluations)
    for known, expected in together.items():
        assert results[known].diverged_at is None
        assert_same(results[known], expected)


class Killed(BaseException):
    """What no code of ours can mistake for an error of its own."""


def at_call(number: int, work: Callable[..., Any]) -> Callable[..., Any]:
    """`work`, killed when it is called for the `number`-th time."""
    calls = 0

    def dying(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            raise Killed
        return work(*args, **kwargs)

    return dying


@pytest.mark.long
@pytest.mark.parametrize(
    ("where", "call", "seconds", "resumes_at"),
    [
        ("_step", 7, 120, 4), ("_judge", 2, 120, 4), ("_judge", 4, 120, 12), ("_save", 2, 120, 4),
        ("_step", 7, 0, 6), ("_judge", 2, 0, 7), ("_save", 3, 0, 2),
    ],
    ids=[
        "in training", "in an evaluation", "in the last evaluation", "before writing",
        "in training, saved by time", "in an evaluation, saved by time", "before writing by time",
    ],
)  # fmt: skip
def test_a_killed_bank_goes_on_bit_for_bit(
    where: str,
    call: int,
    seconds: float,
    resumes_at: int,
    backbone: Backbone,
    data: dict[int, TaskData],
    together: dict[str, Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoint = tmp_path / "bank.safetensors"
    monkeypatch.setattr("cpadapt.bank.trainer.CHECKPOINT_SECONDS", seconds)
    trainer = Trainer(backbone, on(backbone, SEVEN), data, checkpoint=checkpoint)
    setattr(trainer, where, at_call(call, getattr(trainer, where)))
    with pytest.raises(Killed):
        trainer.train()
    resumed_equals_undisturbed(backbone, data, together, checkpoint, resumes_at)


@pytest.mark.long
@pytest.mark.parametrize(
    ("where", "step", "evaluated", "resumes_at"),
    [("_step", 5, 4, 6), ("_score", 8, 4, 8), ("_score", 12, 12, 12)],
    ids=["in training", "in an evaluation", "in the last judgement"],
)
def test_on_sigterm_the_state_is_written_at_the_next_step(
    where: str,
    step: int,
    evaluated: int,
    resumes_at: int,
    backbone: Backbone,
    data: dict[int, TaskData],
    together: dict[str, Result],
    tmp_path: Path,
) -> None:
    checkpoint = tmp_path / "bank.safetensors"
    trainer = Trainer(backbone, on(backbone, SEVEN), data, checkpoint=checkpoint)
    # An evaluation in several pieces, so that it can be ended within.
    trainer.evaluation_tokens = 4000
    work, calls = getattr(trainer, where), itertools.count(1)

    def interrupted(*args: Any) -> Any:
        if (trainer.state.step, trainer.state.evaluated) == (step, evaluated):
            signal.raise_signal(signal.SIGTERM)
            assert next(calls) == 1, "it went on"
        return work(*args)

    setattr(trainer, where, interrupted)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        trainer.train()
    assert ended.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    resumed_equals_undisturbed(backbone, data, together, checkpoint, resumes_at)


def test_outside_the_main_thread_signals_are_left_alone(backbone: Backbone, data: dict[int, TaskData]) -> None:
    found: list[dict[str, Result]] = []
    thread = threading.Thread(target=lambda: found.append(train(backbone, SEVEN[:1], data)))
    thread.start()
    thread.join()
    assert len(found) == 1


def resumed_equals_undisturbed(
    backbone: Backbone, data: dict[int, TaskData], together: dict[str, Result], checkpoint: Path, resumes_at: int
) -> None:
    seen: list[int] = []
    again = Trainer(
        backbone,
        on(backbone, SEVEN),
        data,
        checkpoint=checkpoint,
        progress=lambda step, word: seen.append(step),
    )
    results = again.train()
    assert seen[0] == resumes_at
    for result in results:
        expected = together[result.config.config_id]
        assert result.cost.resumed == 1
        assert result.evaluations == expected.evaluations
        assert (result.outcome, result.rest, result.dev) == (expected.outcome, expected.rest, expected.dev)
        for name, tensor in weights(result).items():
            assert torch.equal(tensor, weights(expected)[name]), name
    again.forget()
    assert not list(checkpoint.parent.iterdir())


@pytest.mark.slow
def test_a_run_may_be_judged_on_dev_alone_or_on_the_whole_split(backbone: Backbone) -> None:
    for cap, total in ((0, 0), (None, 1200)):
        protocol = dataclasses.replace(PROTOCOL, eval_cap=cap, rest_cap=0)
        drawn = {0: load_task(load_spec(TASK), caps=protocol.caps)}
        (result,) = train(backbone, [config("cp", 1, protocol=protocol)], drawn).values()
        assert (result.outcome.total if result.outcome else 0) == total
        assert result.rest is None
        best = next(e for e in result.evaluations if e.step == result.best_step)
        assert (result.dev.correct, result.dev.total) == (best.dev_correct, best.dev_total)


def test_a_checkpoint_of_other_runs_is_refused(backbone: Backbone, data: dict[int, TaskData], tmp_path: Path) -> None:
    checkpoint = tmp_path / "bank.safetensors"
    train(backbone, SEVEN[:1], data, checkpoint=checkpoint)
    with pytest.raises(InputError, match="checkpoint of other runs, data or weights"):
        train(backbone, SEVEN[1:2], data, checkpoint=checkpoint)
    other = dataclasses.replace(backbone, source=dataclasses.replace(backbone.source, name="seed 1"))
    with pytest.raises(InputError, match="checkpoint of other runs, data or weights"):
        train(other, SEVEN[:1], data, checkpoint=checkpoint)


def test_a_checkpoint_of_another_layout_is_refused(
    backbone: Backbone, data: dict[int, TaskData], tmp_path: Path
) -> None:
    checkpoint = tmp_path / "bank.safetensors"
    train(backbone, SEVEN[:1], data, checkpoint=checkpoint)
    with safetensors.safe_open(checkpoint, "pt") as file:
        state = file.metadata()
    tensors = safetensors.torch.load_file(checkpoint)
    safetensors.torch.save_file(tensors | {"head.bias": tensors["head.bias"][None]}, checkpoint, state)
    with pytest.raises(InputError, match="checkpoint of another version"):
        train(backbone, SEVEN[:1], data, checkpoint=checkpoint)
    whole = checkpoint.read_bytes()
    for content in (
        b"",
        whole[:100],
        whole[:-1],
        safetensors.torch.save(tensors),
        safetensors.torch.save(tensors, {}),
    ):
        checkpoint.write_bytes(content)
        with pytest.raises(InputError, match=r"bank\.safetensors is not a whole checkpoint; remove it to start anew"):
            train(backbone, SEVEN[:1], data, checkpoint=checkpoint)


def test_what_does_not_belong_together_is_refused(backbone: Backbone, data: dict[int, TaskData]) -> None:
    with pytest.raises(InputError, match="share backbone, task, protocol"):
        Trainer(backbone, [SEVEN[0], dataclasses.replace(SEVEN[0], task="sst2")], data)
    with pytest.raises(InputError, match="data seed 7"):
        Trainer(backbone, [dataclasses.replace(SEVEN[0], data_seed=7)], data)
    small = {0: data[0], 1: load_task(load_spec(TASK), caps=(10, 16, 24, 10), data_seed=1)}
    with pytest.raises(InputError, match=r"\[10, 20\]"):
        Trainer(backbone, [SEVEN[0]], small)


def test_features_may_be_of_another_size_than_the_hidden_states(data: dict[int, TaskData]) -> None:
    """As OPT-350m's are."""
    backbone = load_backbone("tiny")
    torch.manual_seed(0)
    backbone.model = OPTModel(
        OPTConfig(
            vocab_size=300, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4,
            word_embed_proj_dim=16, do_layer_norm_before=False, max_position_embeddings=512,
        )
    ).eval().requires_grad_(False)  # fmt: skip
    backbone.projections = tuple(
        Projection(name, 32, 32) for name, _ in backbone.model.named_modules() if name.endswith(("q_proj", "v_proj"))
    )
    (result,) = Trainer(backbone, [config("cp", 2)], data).train()
    assert result.head["weight"].shape == (2, 16)
    assert result.outcome.total == CAPS[2]


@pytest.mark.slow
def test_a_run_starts_from_given_weights_and_is_judged_before_training(
    backbone: Backbone, data: dict[int, TaskData], together: dict[str, Result]
) -> None:
    """Trained weights in a new bank have the outcomes that they had; the drawn ones train as if none were given."""
    again = Trainer(backbone, on(backbone, SEVEN), data)
    heads = [{name: tensor[run].clone() for name, tensor in again.bank.head.items()} for run in range(len(SEVEN))]
    drawn = [again.bank.adapter_of(run) for run in range(len(SEVEN))]
    results = [together[config.config_id] for config in again.runs]
    for run, result in enumerate(results):
        again.bank.start_from(run, result.adapter, result.head)
    for outcomes, result in zip(again.judge(), results, strict=True):
        assert outcomes == {"dev": result.dev, "eval": result.outcome, "rest": result.rest}
    for run, (adapter, head) in enumerate(zip(drawn, heads, strict=True)):
        again.bank.start_from(run, adapter, head)
    for result, first in zip(again.train(), results, strict=True):
        assert (result.evaluations, result.outcome) == (first.evaluations, first.outcome)
    with pytest.raises(InputError, match="cannot start from these weights: head must have"):
        again.bank.start_from(0, drawn[0], {})
