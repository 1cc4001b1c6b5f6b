"""What only a GPU can show: the fast paths of attention and product, and a bank on them. Skipped without CUDA."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from on_gpu import assert_near, segments
from processes import ROOT, environment

from cpadapt.bank import packing
from cpadapt.bank.bank import AdaptedProjection
from cpadapt.bank.trainer import Result, Trainer
from cpadapt.families.peft_tuners import TUNERS
from cpadapt.inputs.backbones.loading import load_backbone
from cpadapt.inputs.tasks.examples import load_task
from cpadapt.inputs.tasks.specs import load_spec
from cpadapt.records.config import Protocol, RunConfig

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

LENGTHS = [5, 1, 17, 3, 9, 9, 2, 130]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(4, 4, 32), (9, 3, 64)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_variable_length_attention_equals_the_padded_path(
    causal: bool, heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    module = torch.nn.Module()
    module.is_causal = causal

    def states(count: int) -> torch.Tensor:
        drawn = torch.randn(1, count, sum(LENGTHS), head_dim, device="cuda", generator=generator)
        return drawn.to(dtype).requires_grad_()

    inputs = states(heads), states(kv_heads), states(kv_heads)
    exact = [t.detach().float().requires_grad_() for t in inputs]
    fast, _ = packing.packed_attention(module, *inputs, None, segments=segments(LENGTHS))
    slow, _ = packing.packed_attention(module, *exact, None, segments=segments(LENGTHS))
    weight = torch.randn(slow.shape, device="cuda", generator=generator)
    (fast.float() * weight).sum().backward()
    (slow * weight).sum().backward()
    assert_near([fast, *(t.grad for t in inputs)], [slow, *(t.grad for t in exact)])


MIXED = [("cp", 1), ("lora", 2), ("head", 0), ("cp", 5)]


def runs_of(backbone: str, protocol: Protocol, cells: list[tuple[str, int]] = MIXED) -> list[RunConfig]:
    adapter = {"learning_rate": 1e-2, "scale": 4.0}
    own_scale = {name: {"learning_rate": 1e-2, "scale": tuner.SCALE} for name, tuner in TUNERS.items()}
    return [
        RunConfig(
            backbone=backbone, task="toy-entailment", family=family, size=size, seed=0, data_seed=0,
            protocol=protocol, **(own_scale.get(family, adapter) if size else {}),
        )
        for family, size in cells
    ]  # fmt: skip


# torch hides this one from users, but not from a filter that makes it an error.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("max_tokens", [None, 700])
@pytest.mark.parametrize("backbone", ["tiny", "tiny-encoder"])
def test_a_bank_on_the_gpu_equals_the_cpu(backbone: str, max_tokens: int | None) -> None:
    """Exactly so in float32; in bfloat16 its losses stay near, recorded and fused too."""
    protocol = Protocol(steps=60, eval_every=20, batch_size=4, train_cap=20, dev_cap=16, eval_cap=24)
    data = {0: load_task(load_spec("toy-entailment"), caps=(20, 16, 24))}

    def losses(device: str, dtype: str, compiled: bool = False) -> list[float]:
        runs = runs_of(backbone, dataclasses.replace(protocol, dtype=dtype))
        loaded = load_backbone(backbone, dtype=dtype, device=device)
        trainer = Trainer(loaded, runs, data, compiled=compiled, max_tokens=max_tokens)
        results = trainer.train()
        assert (trainer.launches is not None) == (dtype == "bfloat16")
        if trainer.launches is not None:
            recorded = [graph for graph in trainer.launches._graphs.values() if graph is not None]
            assert len(recorded) > len(trainer.rows)
        assert all(type(layer) is not AdaptedProjection for layer in loaded.model.modules())
        return [e.train_loss for r in results for e in r.evaluations]

    cpu = losses("cpu", "float32")
    torch.testing.assert_close(losses("cuda", "float32"), cpu, atol=1e-4, rtol=0)
    torch.testing.assert_close(losses("cuda", "bfloat16"), cpu, atol=3e-2, rtol=0)
    torch.testing.assert_close(losses("cuda", "bfloat16", compiled=True), cpu, atol=3e-2, rtol=0)


@pytest.mark.parametrize("cells", [MIXED, *([(name, 2)] for name in TUNERS)], ids=lambda cells: cells[-1][0])
def test_a_recorded_step_is_the_step_itself(cells: list[tuple[str, int]]) -> None:
    """The same kernels on the same numbers: bit for bit."""
    protocol = Protocol(steps=40, eval_every=20, batch_size=4, train_cap=20, dev_cap=16, eval_cap=24, dtype="bfloat16")
    data = {0: load_task(load_spec("toy-entailment"), caps=(20, 16, 24))}

    def result(recorded: bool) -> list[Result]:
        loaded = load_backbone("tiny", dtype="bfloat16", device="cuda")
        trainer = Trainer(loaded, runs_of("tiny", protocol, cells), data)
        if not recorded:
            trainer.launches.launch = lambda key, work: work()
        return trainer.train()

    for got, expected in zip(result(True), result(False), strict=True):
        assert got.evaluations == expected.evaluations
        assert got.outcome == expected.outcome
        for module, tensors in got.adapter.items():
            for name, tensor in tensors.items():
                assert torch.equal(tensor, expected.adapter[module][name]), (module, name)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_the_rows_of_a_bank_share_what_is_compiled() -> None:
    """Else each waits anew. A row of a single component is code of its own, as the compiler knows sizes of 1."""
    protocol = Protocol(steps=4, eval_every=4, batch_size=4, train_cap=20, dev_cap=8, eval_cap=8, dtype="bfloat16")
    data = {0: load_task(load_spec("toy-entailment"), caps=protocol.caps)}

    def compiled(sizes: list[int]) -> int:
        torch.compiler.reset()
        torch._dynamo.utils.counters.clear()
        loaded = load_backbone("tiny", dtype="bfloat16", device="cuda")
        runs = runs_of("tiny", protocol, [("cp", size) for size in sizes])
        trainer = Trainer(loaded, runs, data, compiled=True, max_tokens=1)
        trainer.train()
        assert len(trainer.rows) == len(sizes)
        return torch._dynamo.utils.counters["stats"]["unique_graphs"]

    assert compiled([5, 2, 3]) == compiled([5]) > 0


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_a_second_bank_compiles_nothing() -> None:
    """As `test_bank` has it, with the kernels themselves and what torch makes of the rest."""
    torch.compiler.reset()
    protocol = Protocol(steps=4, eval_every=4, batch_size=4, train_cap=20, dev_cap=8, eval_cap=8, dtype="bfloat16")
    loaded = load_backbone("tiny", dtype="bfloat16", device="cuda")

    def compiled(task: str, cells: list[tuple[str, int]]) -> int:
        torch._dynamo.utils.counters.clear()
        runs = [dataclasses.replace(run, task=task) for run in runs_of("tiny", protocol, cells)]
        Trainer(loaded, runs, {0: load_task(load_spec(task), caps=protocol.caps)}, compiled=True).train()
        return torch._dynamo.utils.counters["stats"]["unique_graphs"]

    assert compiled("toy-entailment", MIXED) > 0
    assert compiled("toy-sentiment", MIXED) == 0
    assert compiled("toy-reading", [("cp", 17), ("lora", 4), ("cp", 40), ("lora", 1)]) == 0


def test_a_bank_that_outgrows_the_memory_is_split_with_the_same_results() -> None:
    protocol = Protocol(steps=4, eval_every=4, batch_size=16, train_cap=200, dev_cap=8, eval_cap=8)
    data = {0: load_task(load_spec("toy-entailment"), caps=(200, 8, 8))}
    runs = [
        RunConfig(
            backbone="tiny", task="toy-entailment", family="lora", size=1, seed=seed, data_seed=0, protocol=protocol,
            learning_rate=1e-3, scale=2.0,
        )
        for seed in range(64)
    ]  # fmt: skip
    device = torch.device("cuda")

    def losses(bytes_more: int | None) -> tuple[list[float], float]:
        trainer = Trainer(load_backbone("tiny", device="cuda"), runs, data)
        if bytes_more is not None:
            torch.cuda.empty_cache()
            total = torch.cuda.get_device_properties(device).total_memory
            torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + bytes_more) / total)
        results = trainer.train()
        return [e.train_loss for r in results for e in r.evaluations], trainer.max_tokens

    whole, unbounded = losses(None)
    try:
        split, bound = losses(200 * 2**20)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert bound < unbounded
    torch.testing.assert_close(split, whole, atol=1e-4, rtol=0)


def test_a_deterministic_bank_is_the_same_each_time() -> None:
    """In two processes, and twice in each: the environment variable must be there before CUDA starts."""
    program = Path(__file__).with_name("repeated_bank.py")

    def run(*more: str) -> dict[str, Any]:
        command = [sys.executable, program, "cuda", *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment())
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    first, second = run("--deterministic"), run("--deterministic")
    assert first["device"].endswith(", deterministic")
    assert len(first["banks"]) == 6 + len(TUNERS)
    assert all(bank["again"] for bank in first["banks"].values()), first["banks"]
    assert first == second
    plain = run()
    assert "deterministic" not in plain["device"]
    apart = [name for name, bank in plain["banks"].items() if not bank["again"]]
    print("as it is, these banks differ from one training to the next:", apart or "none")
