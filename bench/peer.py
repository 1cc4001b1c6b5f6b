"""The peer: one run as a practitioner would do it, with Hugging Face's `Trainer` and PEFT's LoRA.

It does the work of a bank's run, so that times compare: the same frozen backbone in the same precision, the same
projections, the same initial weights, the same examples in the same order, the same tokens, the same head on the same
features, AdamW with the same two rates, linear decay and clipping; `tests/test_bench.py` shows that the losses are
equal. And it is the peer at its best:

- batches are padded to their longest example only, on the right, by a collator that does nothing else; memory is
  pinned and copied without waiting; no worker processes, which cost more than so little work;
- scaled dot-product attention, fused AdamW, and no compilation: every length would be compiled anew;
- no logging, no checkpoints, no check of each loss for infinity, which would make the host wait for the device;
- evaluations in large batches, sorted by length;
- the head is a module of our own rather than `AutoModelForSequenceClassification`, which computes its scores for
  every token of a decoder and has a further layer on an encoder: this one is less work;
- on a GPU the backbone is loaded in bfloat16. Adapters, head and Adam's moments stay float32, as PEFT has it; their
  products are done under `Trainer`'s bfloat16 autocast or in TensorFloat-32 without it (`PRECISIONS`): the faster of
  the two is the peer.
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from measured import Timed, synchronize, time_calls
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from cpadapt.bank.bank import initial_params
from cpadapt.bank.trainer import encode_sets
from cpadapt.errors import InputError
from cpadapt.inputs.backbones.loading import Backbone
from cpadapt.inputs.tasks.encoding import Encoded
from cpadapt.inputs.tasks.examples import TaskData
from cpadapt.records.config import Protocol, RunConfig

Precision = Literal["autocast", "plain"]
PRECISIONS: tuple[Precision, ...] = ("autocast", "plain")

BLOCK = 5
"""Training steps between two looks at the clock; the host waits for the device only then."""

GATES = ("train", "trained", "dev", "dev done", "eval", "eval done")
"""Where a peer says that it is about to begin, or done with, what is timed."""

Gate = Callable[[str], None]


@dataclass(frozen=True)
class PeerTimes:
    """What one peer took."""

    startup_seconds: float
    """Putting the adapter on, making the `Trainer`, and the first steps, so far as they took longer than later ones;
    without loading the model and the data."""
    step: Timed
    """One training step, over blocks of `BLOCK`."""
    dev: Timed
    """One evaluation on dev."""
    eval: Timed
    """One evaluation on eval."""
    real_tokens: float
    """Of a timed step, on average."""
    padded_tokens: float
    """Tokens that the backbone computed in a timed step, on average, padding included."""
    dev_loss: float
    """After the last step."""
    dev_accuracy: float
    peak_memory_bytes: int | None
    """The allocator's, on CUDA."""


def whole_blocks(steps: int) -> bool:
    """Whether so many steps can be timed."""
    return steps >= BLOCK and steps % BLOCK == 0


def run_peer(
    backbone: Backbone,
    run: RunConfig,
    data: TaskData,
    *,
    steps: int,
    warmup: int = BLOCK,
    precision: Precision = "plain",
    eval_batch_size: int = 64,
    evaluations: int = 1,
    gate: Gate = lambda name: None,
) -> PeerTimes:
    """Train one LoRA run for a few steps and judge it, with Hugging Face's `Trainer`; time all of it.

    Args:
        backbone: as `cpadapt.load_backbone` gives it; the adapter is taken off again at the end.
        run: which run; its protocol says everything but how many steps are made here.
        data: the task's examples.
        steps: timed steps, a multiple of `BLOCK`.
        warmup: steps before them.
        precision: how the float32 adapters' products are done where the backbone is in half precision.
        eval_batch_size: examples of a batch in evaluations.
        evaluations: how often each evaluation is timed, after one on dev that is not.
        gate: called at each of `GATES`; it may wait there for other peers.

    Raises:
        InputError: the run is no LoRA run, the steps are not whole blocks, or `Trainer` would use several GPUs.
    """
    if run.family != "lora" or run.scale is None:
        raise InputError(f"the peer trains LoRA runs, not {run.family!r}")
    if not whole_blocks(steps) or warmup < 1:
        raise InputError(f"the peer's timed steps are whole blocks of {BLOCK} after one step or more, not {steps}")
    device = backbone.model.device
    if device.type == "cuda":
        if torch.cuda.device_count() > 1:
            raise InputError("Trainer would spread one run over all GPUs: set CUDA_VISIBLE_DEVICES to one of them")
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    protocol = run.protocol
    sets = encode_sets(data, backbone, protocol)
    lora = LoraConfig(
        r=run.size, lora_alpha=run.scale * run.size, target_modules=[p.name for p in backbone.projections]
    )
    wrapped: Any = get_peft_model(backbone.model, lora)
    try:
        for name, start in initial_params(run, backbone.projections).items():
            layer: Any = backbone.model.get_submodule(name)
            layer.lora_A["default"].weight.data.copy_(start["down"])
            layer.lora_B["default"].weight.data.copy_(start["up"].T)
        model = Classifier(wrapped, backbone, protocol.pooling, len(data.spec.labels))
        clock = _Clock(warmup, device, gate)
        order = example_order(run, len(sets["train"]), warmup + steps)
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                model=model,
                args=_arguments(folder, protocol, warmup + steps, precision, eval_batch_size, device),
                train_dataset=_examples(sets["train"], order.ravel()),
                data_collator=Padding(backbone),
                compute_metrics=lambda p: {"accuracy": float((p.predictions.argmax(-1) == p.label_ids).mean())},
                optimizers=_optimizer(model, run),
                callbacks=[clock],
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
            judged = {}
            # The first one is not timed: it brings the memory to its size.
            metrics: dict[str, float] = {}
            by_length = {kind: _examples(sets[kind], np.argsort(-_lengths(sets[kind]))) for kind in ("dev", "eval")}
            for kind, examples in by_length.items():
                if kind == "dev":
                    metrics = trainer.evaluate(examples)
                gate(kind)
                judged[kind] = time_calls(
                    lambda e=examples: trainer.evaluate(e), device, repeats=evaluations, warmup=0
                )
                gate(f"{kind} done")
    finally:
        wrapped.unload()
        backbone.model.requires_grad_(False)
    step = Timed.of([seconds / BLOCK for seconds in np.diff(clock.marks).tolist()])
    lengths = _lengths(sets["train"])[order[warmup:]]
    return PeerTimes(
        startup_seconds=max(clock.warm - started - warmup * step.median, 0.0),
        step=step,
        dev=judged["dev"],
        eval=judged["eval"],
        real_tokens=float(lengths.sum(1).mean()),
        padded_tokens=float(lengths.max(1).mean() * protocol.batch_size),
        dev_loss=metrics["eval_loss"],
        dev_accuracy=metrics["eval_accuracy"],
        peak_memory_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    )


def example_order(run: RunConfig, count: int, steps: int) -> NDArray[np.int64]:
    """`[steps, batch_size]`, which of the `count` training examples this run sees in each step, in a bank too."""
    size = run.protocol.batch_size
    epochs = -(-steps * size // count)
    order = [np.random.default_rng([run.seed, epoch]).permutation(count) for epoch in range(epochs)]
    return np.concatenate(order)[: steps * size].reshape(steps, size)


class Classifier(nn.Module):
    """A backbone under a trained linear head, as `Trainer` takes it: labels in, loss and logits out."""

    def __init__(self, model: nn.Module, backbone: Backbone, pooling: str, num_labels: int) -> None:
        super().__init__()
        self.model = model
        self.last = pooling == "last" or (pooling == "auto" and backbone.decoder)
        config = backbone.model.config
        hidden = getattr(config, "word_embed_proj_dim", config.hidden_size)
        self.head = nn.Linear(hidden, num_labels, device=backbone.model.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def train(self, mode: bool = True) -> "Classifier":
        """Switch to training, without the backbone's dropout: the protocol has none."""
        super().train(mode)
        self.model.eval()
        return self

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        token_type_ids: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The mean loss of a padded batch, and its class scores `[examples, labels]`."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        outputs = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **types)
        hidden = outputs.last_hidden_state
        if self.last:
            at = attention_mask.sum(1) - 1
            features = hidden[torch.arange(len(hidden), device=hidden.device), at].float()
        else:
            mask = attention_mask[..., None]
            features = (hidden * mask).sum(1, dtype=torch.float32) / mask.sum(1)
        logits = self.head(F.layer_norm(features, features.shape[-1:]))
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


class Padding:
    """Pads a batch to its longest example, on the right, as transformers' `DataCollatorWithPadding` does, faster."""

    def __init__(self, backbone: Backbone) -> None:
        self.padding = backbone.tokenizer.pad_token_id or 0

    def __call__(self, examples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Stack examples."""

        def padded(name: str, value: int) -> Tensor:
            return nn.utils.rnn.pad_sequence([e[name] for e in examples], batch_first=True, padding_value=value)

        batch = {"input_ids": padded("input_ids", self.padding), "attention_mask": padded("attention_mask", 0)}
        if "token_type_ids" in examples[0]:
            batch["token_type_ids"] = padded("token_type_ids", 0)
        return batch | {"labels": torch.stack([example["labels"] for example in examples])}


def _examples(encoded: Encoded, chosen: NDArray[np.int64]) -> list[dict[str, Tensor]]:
    """These examples in this order: any list is a dataset to `Trainer`."""

    def example(k: int) -> dict[str, Tensor]:
        part = slice(encoded.offsets[k], encoded.offsets[k + 1])
        tokens = torch.from_numpy(encoded.tokens[part])
        made = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": torch.tensor(int(labels[k]))}
        if encoded.token_types is not None:
            made["token_type_ids"] = torch.from_numpy(encoded.token_types[part])
        return made

    labels = encoded.labels
    made = {k: example(k) for k in np.unique(chosen)}
    return [made[k] for k in chosen]


def _lengths(encoded: Encoded) -> NDArray[np.int64]:
    return np.diff(encoded.offsets)


def _arguments(
    folder: str, protocol: Protocol, steps: int, precision: Precision, eval_batch_size: int, device: torch.device
) -> TrainingArguments:
    cuda = device.type == "cuda"
    return TrainingArguments(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=protocol.batch_size,
        per_device_eval_batch_size=eval_batch_size,
        max_grad_norm=protocol.clip or 0.0,
        bf16=cuda and precision == "autocast",
        tf32=True if cuda else None,
        use_cpu=not cuda,
        dataloader_pin_memory=cuda,
        accelerator_config={"non_blocking": cuda},
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        label_names=["labels"],
        eval_strategy="no",
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
    )


def _optimizer(model: Classifier, run: RunConfig) -> tuple[Any, Any]:
    """AdamW with the head's own rate, and the protocol's schedule."""
    p = run.protocol
    adapter = [parameter for parameter in model.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": adapter, "lr": run.learning_rate},
            {"params": list(model.head.parameters()), "lr": p.head_learning_rate},
        ],
        betas=(p.beta1, p.beta2),
        eps=p.epsilon,
        weight_decay=p.weight_decay,
        fused=True,
    )
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(p.rate_factor(step), 0.0))


class _Clock(TrainerCallback):
    """Looks at the clock after every `BLOCK` steps past the warm-up."""

    def __init__(self, warmup: int, device: torch.device, gate: Gate) -> None:
        self.warmup, self.device, self.gate = warmup, device, gate
        self.warm = 0.0
        """When the warm-up was over, before any wait for other peers."""
        self.marks: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by `Trainer`."""
        timed = state.global_step - self.warmup
        if timed < 0 or timed % BLOCK:
            return
        synchronize(self.device)
        if timed == 0:
            self.warm = time.perf_counter()
            self.gate("train")
        self.marks.append(time.perf_counter())
        if state.global_step == state.max_steps:
            self.gate("trained")
