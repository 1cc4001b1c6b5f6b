"""Trains a step on two processes, in every way, and compares with one process: two_processes.py FILE, by torchrun.

FILE becomes a list of `{"how", "kind", "apart", "moved"}`: how far the trained adapter is from that of one process,
and how far that one moved.
"""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers import LlamaConfig, LlamaForSequenceClassification

from cpadapt.tuner import CPConfig

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
TARGETS = ["q_proj", "v_proj"]
WAYS = ("ddp", "fsdp2", "fsdp2 by layer", "fsdp1")


def adapted(kind):
    torch.manual_seed(0)
    base = LlamaForSequenceClassification(LlamaConfig(vocab_size=64, pad_token_id=0, initializer_range=0.2, **SIZES))

    def config():
        if kind == "cp":
            return CPConfig(num_components=2, init="normal", target_modules=TARGETS)
        return LoraConfig(r=2, init_lora_weights=False, target_modules=TARGETS)

    model = get_peft_model(base, config())
    model.add_adapter("inactive", config())
    return model


def step(model, called, ids):
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, 0.1)
    called(input_ids=ids).logits.square().mean().backward()
    optimizer.step()


def state(model):
    full = {}
    for name, tensor in model.state_dict().items():
        if "_adapter.default" in name or ("lora_" in name and ".default." in name):
            full[name] = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.clone()
    return full


def distributed(how, model):
    """The model as it is called, spread over the processes."""
    if how == "ddp":
        return DistributedDataParallel(model)
    if how == "fsdp1":
        return FullyShardedDataParallel(
            model, use_orig_params=True, device_id=torch.device("cpu"), auto_wrap_policy=policy(model)
        )
    if how == "fsdp2 by layer":
        for layer in model.base_model.model.model.layers:
            fully_shard(layer)
    return fully_shard(model)


def policy(model):
    from peft.utils.other import fsdp_auto_wrap_policy

    return fsdp_auto_wrap_policy(model)


def main(file):
    dist.init_process_group("gloo")
    ids = torch.randint(1, 64, (4, 5), generator=torch.Generator().manual_seed(1))
    found = []
    for kind in ("cp", "lora"):
        alone = adapted(kind)
        before = state(alone)
        step(alone, alone, ids)
        expected = state(alone)
        for how in WAYS:
            model = adapted(kind)
            called = distributed(how, model)
            step(called if how == "fsdp1" else model, called, ids.chunk(2)[dist.get_rank()])
            if how == "fsdp1":
                with FullyShardedDataParallel.summon_full_params(called):
                    trained = {key.replace("_fsdp_wrapped_module.", ""): t for key, t in state(called.module).items()}
            else:
                trained = state(model)
            apart, moved = (
                max((other[name] - expected[name]).abs().max().item() for name in expected)
                for other in (trained, before)
            )
            found.append({"how": how, "kind": kind, "apart": apart, "moved": moved})
    if dist.get_rank() == 0:
        Path(file).write_text(json.dumps(found))
    # Without the teardown, in which a process of gloo's now and then waits for ever.
    dist.barrier()
    os._exit(0)


main(sys.argv[1])
