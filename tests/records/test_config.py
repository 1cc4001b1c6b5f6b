"""A protocol says what is wrong with it, and a run's identity follows from all that decides it."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from cpadapt.errors import InputError
from cpadapt.records.config import (
    LATER_OPTIONS,
    LATER_PROTOCOL_FIELDS,
    LATER_RUN_FIELDS,
    PAPER,
    SEMANTICS,
    Protocol,
    RunConfig,
    stacking_order,
)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"steps": 0}, "protocol.steps = 0: must be a positive integer"),
        ({"eval_every": 300}, "protocol.eval_every = 300: must be a divisor of steps = 5000"),
        ({"warmup_steps": 5000}, "protocol.warmup_steps = 5000"),
        ({"eval_cap": -1}, "protocol.eval_cap = -1: must be 0 or positive, at most 1,000,000,000, or none for"),
        ({"rest_cap": -1}, "protocol.rest_cap = -1: must be 0 or positive"),
        ({"dropout": 0.1}, "protocol.dropout = 0.1: must be 0"),
        ({"readout": "verbalizer", "pooling": "mean"}, "protocol.pooling = 'mean': must be auto or last"),
        ({"clip": 0.0}, "protocol.clip = 0.0: must be positive"),
        ({"dtype": "int8"}, "dtype = 'int8': input should be"),
        ({"batch_size": "many"}, "batch_size = 'many'"),
        ({"head_learning_rate": float("nan")}, "head_learning_rate = nan"),
        ({"batchsize": 8}, "batchsize is not a known field"),
    ],
)
def test_a_bad_value_is_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        Protocol(**changes)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_defaults_are_the_papers_where_it_reports_them() -> None:
    sources = Protocol().sources()
    assert {name for name, source in sources.items() if source == "paper"} == set(PAPER) - {"dtype"}
    assert Protocol(dtype="float16").sources()["dtype"] == "paper"
    assert Protocol(steps=1000).sources()["steps"] == "ours"


def test_the_papers_values_are_those_on_file() -> None:
    file = Path(__file__).parents[3] / "shared" / "reference" / "paper.json"
    if not file.exists():
        pytest.skip(f"the paper's facts are not at {file}")
    facts = json.loads(file.read_text())["second_hand"]
    assert {name: PAPER[f"{name}_cap"] for name in ("train", "dev", "eval")} == facts["caps"]
    assert (PAPER["steps"], PAPER["eval_every"]) == (facts["steps"], facts["eval_every"])
    assert PAPER["dtype"] == facts["frozen_backbone_dtype"]


@pytest.mark.parametrize("warmup", [0, 3])
def test_the_schedule_is_transformers(warmup: int) -> None:
    from transformers import get_linear_schedule_with_warmup

    protocol = Protocol(steps=12, eval_every=12, warmup_steps=warmup)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_linear_schedule_with_warmup(optimizer, warmup, 12)
    for step in range(12):
        assert protocol.rate_factor(step) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
        assert Protocol(steps=12, eval_every=12).rate_factor(step, warmup) == protocol.rate_factor(step)
    assert dataclasses.replace(protocol, schedule="constant").rate_factor(11) == 1.0


def run(**changes: Any) -> RunConfig:
    values = {
        "backbone": "tiny", "task": "sst2", "family": "cp", "size": 2, "seed": 0, "data_seed": 0,
        "protocol": Protocol(), "learning_rate": 1e-3, "scale": 8.0,
    }  # fmt: skip
    return RunConfig(**(values | changes))


def test_ids_change_with_everything_that_decides_a_run() -> None:
    changes: list[dict[str, Any]] = [
        {"backbone": "minilm"}, {"task": "rte"}, {"size": 3}, {"seed": 1}, {"data_seed": 1}, {"learning_rate": 2e-3},
        {"scale": 4.0}, {"protocol": Protocol(batch_size=16)}, {"options": {"raw_norm": 0.5}},
        {"target_modules": ("q_proj",)}, {"family": "lora"}, {"order_seed": 0}, {"order_seed": 1},
        {"warmup_steps": 0}, {"warmup_steps": 5}, {"protocol": Protocol(rest_cap=1)},
        {"options": {"init": "normal"}}, {"options": {"init": "normal", "init_std": 0.1}},
        {"options": {"lambda_decay": 0.1}},
    ]  # fmt: skip
    ids = [run(**change).config_id for change in [{}, *changes]]
    assert len(set(ids)) == len(ids)
    assert run().run_id("some data", "w") != run().run_id("other data", "w")
    assert run().run_id("data", "w") != run().run_id("data", "v")
    assert run().run_id("data", "w") == run(backbone="minilm").run_id("data", "w"), "the weights count, not their name"
    trained = [run(**change).run_id("data", "w") for change in [{}, *changes[1:]]]
    assert len(set(trained)) == len(trained)


def test_ids_stay() -> None:
    """A changed id orphans every record: then SEMANTICS goes up, and this id with it."""
    assert run().config_id == "f3bdf6d60f4d8cee"
    assert run().run_id("data", "weights") == "fcf64ff31d6ae037"
    assert Protocol().id == "40a253d7d494cef7"


def test_a_field_that_is_added_later_changes_no_id() -> None:
    """At its default a younger field is in no hash: the ids above are of configs without it."""
    config = dataclasses.asdict(run())
    for name, value in LATER_RUN_FIELDS.items():
        assert config.pop(name) == value
    for name, value in LATER_PROTOCOL_FIELDS.items():
        assert config["protocol"].pop(name) == value
    for name, value in LATER_OPTIONS.items():
        assert config["options"].pop(name) == value
    written = json.dumps({"config": config, "semantics": SEMANTICS}, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(written.encode()).hexdigest()[:16] == run().config_id


def test_a_config_survives_json_with_the_same_id() -> None:
    config = run(options={"tensor_shape": {32: (4, 8), 16: (16,)}}, target_modules=("q_proj",))
    read = TypeAdapter(RunConfig).validate_python(json.loads(json.dumps(dataclasses.asdict(config))))
    assert read == config
    assert read.config_id == config.config_id
    assert run(options={"raw_norm": 1.0}).config_id == run().config_id, "defaults are written out"


def test_a_familys_decay_adds_to_the_protocols_on_its_tensor_alone() -> None:
    decayed = run(options={"lambda_decay": 0.3}, protocol=Protocol(weight_decay=0.01))
    assert decayed.weight_decay_of("weight") == pytest.approx(0.31)
    assert decayed.weight_decay_of("up_0") == 0.01
    assert run().weight_decay_of("weight") == 0.0
    head = run(family="head", size=0, learning_rate=None, scale=None, protocol=Protocol(weight_decay=0.01))
    assert head.weight_decay_of("weight") == 0.01


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"family": "lorra"}, "'lorra'"),
        ({"size": 0}, "size = 0"),
        ({"learning_rate": None}, "learning_rate = None"),
        ({"scale": -1.0}, "scale = -1.0"),
        ({"seed": -1}, "seed = -1"),
        ({"order_seed": -1}, "order_seed = -1"),
        ({"warmup_steps": 5000}, "warmup_steps = 5000: must be from 0 to below steps = 5000"),
        (
            {"options": {"rawnorm": 1.0}},
            "'rawnorm' (did you mean 'raw_norm'?); it has init, init_std, lambda_decay",
        ),
        ({"options": {"lambda_decay": -0.1}}, "lambda_decay = -0.1 of family 'cp': must be 0 or a positive number"),
        ({"options": {"lambda_decay": "much"}}, "lambda_decay = 'much' of family 'cp': must be 0 or a positive"),
        ({"options": {"lambda_decay": float("inf")}}, "lambda_decay = inf"),
        ({"options": {"tensor_shape": [24, 24]}}, r"tensor_shape = [24, 24]"),
        ({"family": "lora", "options": {"raw_norm": 1.0}}, "'raw_norm'; it has init"),
        ({"family": "head"}, "head-only run has size 0"),
    ],
)
def test_a_run_that_cannot_be_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        run(**changes)
    assert says in str(caught.value)


def test_runs_of_one_shape_sort_together_the_smaller_first() -> None:
    head = run(family="head", size=0, learning_rate=None, scale=None)
    flat = {"options": {"tensor_shape": {32: (32,)}}}
    ordered = [head, run(size=1), run(size=4), run(size=1, **flat), run(size=9, **flat), run(family="lora", size=2)]
    assert sorted([*ordered[3:], *ordered[:3]], key=stacking_order) == ordered
    assert stacking_order(run(seed=1)) == stacking_order(run(learning_rate=1.0))
