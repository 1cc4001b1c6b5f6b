"""A program for `test_determinism` and `test_cuda`: train banks twice, and print what came out, as JSON.

    python repeated_bank.py DEVICE [--deterministic]

For each bank: the digest of all that the first training left, and whether the second left the same to the bit.
"""

import contextlib
import hashlib
import itertools
import json
import sys

from cpadapt.bank.determinism import deterministic
from cpadapt.bank.trainer import Result, Trainer
from cpadapt.families.peft_tuners import TUNERS
from cpadapt.inputs.backbones.loading import load_backbone
from cpadapt.inputs.tasks.examples import load_task
from cpadapt.inputs.tasks.specs import load_spec
from cpadapt.measure import provenance
from cpadapt.records.config import Protocol, RunConfig

TASK = "toy-entailment"
CELLS = [("cp", 1), ("lora", 2), ("head", 0), ("cp", 5), ("melora", 2), ("lokr", 1)]


def runs_of(backbone: str, protocol: Protocol, cells: list[tuple[str, int]]) -> list[RunConfig]:
    """Runs of one draw, one a cell."""
    return [
        RunConfig(
            backbone, TASK, family, size=size, seed=0, data_seed=0, protocol=protocol,
            learning_rate=1e-2 if size else None,
            scale=None if not size else TUNERS[family].SCALE if family in TUNERS else 4.0,
        )
        for family, size in cells
    ]  # fmt: skip


def digest(results: list[Result]) -> str:
    """Of losses, answers and trained weights."""
    found = hashlib.sha256()
    for result in results:
        found.update(repr((result.evaluations, result.outcome, result.dev)).encode())
        tensors = itertools.chain(*(module.values() for module in result.adapter.values()), result.head.values())
        for tensor in tensors:
            found.update(tensor.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def main() -> None:
    """Train and print."""
    device, asked = sys.argv[1], "--deterministic" in sys.argv
    dtypes, fused = (("bfloat16", "float32"), (False, True)) if device == "cuda" else (("float32",), (False,))
    protocol = Protocol(steps=40, eval_every=20, batch_size=4, train_cap=40, dev_cap=16, eval_cap=24)
    banks = [
        (backbone, dtype, compiled, CELLS)
        for backbone, dtype, compiled in itertools.product(("tiny", "tiny-encoder"), dtypes, fused)
        if dtype == "bfloat16" or not compiled
    ]
    banks += [("tiny", dtypes[0], False, [(name, 2)]) for name in TUNERS]
    found = {}
    with deterministic(device) if asked else contextlib.nullcontext():
        for backbone, dtype, compiled, cells in banks:
            data = {0: load_task(load_spec(TASK), caps=protocol.caps)}
            loaded = load_backbone(backbone, dtype=dtype, device=device)
            first, second = (
                digest(Trainer(loaded, runs_of(backbone, protocol, cells), data, compiled=compiled).train())
                for _ in range(2)
            )
            name = f"{backbone}, {dtype}{', fused' * compiled}, {cells[-1][0]}"
            found[name] = {"digest": first, "again": first == second}
        where = provenance(loaded.model.device).device
    print(json.dumps({"device": where, "banks": found}))


if __name__ == "__main__":
    main()
