"""One loop that trains and judges a bank of any size, one run included, and survives being killed."""

import collections
import contextlib
import itertools
import json
import math
import resource
import signal
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cpadapt.bank.adamw import RunAdamW
from cpadapt.bank.bank import Bank, RunSlice, stacking_order
from cpadapt.bank.launches import Launches
from cpadapt.bank.packing import Row, RowCapacity, pack, takes_kernels, to_device
from cpadapt.errors import InputError
from cpadapt.inputs.backbones.loading import Backbone
from cpadapt.inputs.tasks.encoding import Encoded, encode
from cpadapt.inputs.tasks.examples import Examples, TaskData
from cpadapt.records.config import Protocol, RunConfig
from cpadapt.records.record import MARGIN_RESOLUTION, Cost, Evaluation, Outcome, pack_bitmap, pack_bytes
from cpadapt.records.store import write_atomically

TRAINING_TOKENS = {"cuda": 32_768, "cpu": 4096}
"""Tokens of a packed row in training, on average, at first. CUDA says when its memory is out; on a CPU the system ends
the process without a word."""

EVALUATION_TOKENS = {"cuda": 262_144, "cpu": 4096}
"""Tokens of a packed row at first, where nothing is kept for a backward pass."""

COMPILED_FROM = 1e15
"""Tokens to train on times weights of the backbone from which fusing kernels repays compiling them."""

CHECKPOINT_SECONDS = 120.0
"""Of training after which the state is written again: what a machine that is taken away costs at most."""

STEPS_AHEAD = 4
"""How many steps the host may queue before the device has done them: so many it finishes after SIGTERM."""

SETS = ("train", "dev", "eval", "rest")

Progress = Callable[[int, str], None]
"""Called with the steps done and a word on the losses."""


@dataclass
class Result:
    """What training one run gave; `head` and `adapter` are the best-dev weights, empty if there are none."""

    config: RunConfig
    evaluations: list[Evaluation]
    best_step: int | None
    outcome: Outcome | None
    rest: Outcome | None
    dev: Outcome | None
    diverged_at: int | None
    cost: Cost
    adapter: dict[str, dict[str, Tensor]]
    head: dict[str, Tensor]


def encode_sets(data: TaskData, backbone: Backbone, protocol: Protocol) -> dict[str, Encoded]:
    """The tokens of each set of examples, as a backbone sees them under a protocol."""
    return {
        set_name: encode(
            getattr(data, set_name),
            data.spec,
            backbone.tokenizer,
            prompted=backbone.decoder,
            max_length=min(backbone.max_length, protocol.max_length or backbone.max_length),
            bos_token_id=backbone.bos_token_id,
        )
        for set_name in SETS
    }


@dataclass
class Pool:
    """Examples of one set (of `SETS`) of every data seed, tokens end to end."""

    tokens: NDArray[np.int64]
    token_types: NDArray[np.int64] | None
    offsets: NDArray[np.int64]
    labels: NDArray[np.int64]
    start: dict[int, int]
    """Where each data seed's examples begin."""
    count: int
    """Examples of each data seed."""

    @staticmethod
    def of(encoded: Mapping[int, Encoded]) -> "Pool":
        """Lay the data seeds' examples end to end."""
        parts = list(encoded.values())
        counts = {len(part.labels) for part in parts}
        if len(counts) > 1:
            raise InputError(f"data seeds draw different numbers of examples: {sorted(counts)}; lower the cap")
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        count = counts.pop()
        types = [part.token_types for part in parts if part.token_types is not None]
        return Pool(
            tokens=np.concatenate([part.tokens for part in parts]),
            token_types=np.concatenate(types) if types else None,
            offsets=np.concatenate([[0], np.cumsum(lengths)]),
            labels=np.concatenate([part.labels for part in parts]),
            start={seed: i * count for i, seed in enumerate(encoded)},
            count=count,
        )


def pools_of(data: Mapping[int, TaskData], backbone: Backbone, protocol: Protocol) -> dict[str, Pool]:
    """The tokens of every draw of a task, by set (of `SETS`).

    Args:
        data: the task's examples by data seed.
        backbone: whose tokenizer and limits count.
        protocol: whose limit on an example's tokens counts.

    Raises:
        InputError: an example is too long even when shortened, or draws differ in their numbers of examples.
    """
    encoded = {seed: encode_sets(drawn, backbone, protocol) for seed, drawn in data.items()}
    return {set_name: Pool.of({seed: sets[set_name] for seed, sets in encoded.items()}) for set_name in SETS}


@dataclass
class State:
    """Where a bank's training stands, tensors apart."""

    step: int = 0
    evaluated: int = 0
    """The step of the last evaluation."""
    evaluations: list[list[Evaluation]] = field(default_factory=list)
    train_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    peak_memory_bytes: int = 0
    resumed: int = 0


@dataclass(frozen=True)
class TrainingRow:
    """Neighbouring runs that train on one packed row, step after step."""

    run_slice: RunSlice
    buffers: dict[int, tuple[Row, Tensor]] = field(default_factory=dict)
    """By tokens: the row and its labels whose memory the recorded launches read."""

    def key(self, tokens: int) -> Hashable:
        """What names the launch at a budget of so many tokens."""
        return self.run_slice.runs.start, self.run_slice.runs.stop, tokens


class Trainer:
    """Trains the runs of one bank together.

    On a GPU in half precision a step is a few launches (see `cpadapt.bank.launches`): one a row, one for the
    optimizer.

    Args:
        backbone: the frozen model.
        runs: runs of one task under one protocol; their order is free.
        data: the task's examples by data seed, one for every data seed among the runs.
        pools: their tokens as `pools_of` gives them, where they are known already.
        checkpoint: file that holds the whole state at the last evaluation or, if that is longer ago, at most
            `CHECKPOINT_SECONDS` of training before; if it is there, training goes on from it. `None` keeps nothing.
        max_tokens: tokens of one packed row in training, on average; a step that has more is done in several rows of
            whole runs, with the same result. `None` takes the device's default (see `TRAINING_TOKENS`). Where a GPU
            runs out of memory the bound is halved and the step done again; so it is with evaluations, whose rows have
            a bound of their own.
        compiled: fuse kernels (see `cpadapt.bank.Bank`). `None` does so on a GPU in bfloat16, where the training is
            long enough to repay it (see `COMPILED_FROM`).
        progress: told of every step.

    Raises:
        InputError: the runs do not belong to one bank, or data are missing for one of their data seeds.
    """

    def __init__(
        self,
        backbone: Backbone,
        runs: Sequence[RunConfig],
        data: Mapping[int, TaskData],
        *,
        pools: Mapping[str, Pool] | None = None,
        checkpoint: Path | None = None,
        max_tokens: float | None = None,
        compiled: bool | None = None,
        progress: Progress | None = None,
    ) -> None:
        if len({(run.backbone, run.task, run.protocol, run.target_modules) for run in runs}) != 1:
            raise InputError("the runs of a bank share backbone, task, protocol and target modules")
        if missing := {run.data_seed for run in runs} - set(data):
            raise InputError(f"no data were given for data seed {min(missing)}")
        self.runs = sorted(runs, key=stacking_order)
        self.protocol = self.runs[0].protocol
        self.backbone = backbone
        self.checkpoint = checkpoint
        self.progress = progress or (lambda step, word: None)
        self.data = dict(data)

        self.pools = pools_of(data, backbone, self.protocol) if pools is None else pools
        train_lengths = np.diff(self.pools["train"].offsets)
        self.run_tokens = self.protocol.batch_size * float(train_lengths.mean())
        """Tokens of one run's step, on average."""
        self.longest = int(train_lengths.max())
        """Tokens of the longest training example."""
        device, dtype = backbone.model.device, backbone.model.dtype
        kernels = takes_kernels(device, dtype)
        if compiled is None:
            tokens = self.run_tokens * len(self.runs) * self.protocol.steps
            compiled = kernels and tokens * backbone.model.num_parameters() > COMPILED_FROM
        self.bank = Bank(backbone, self.runs, next(iter(data.values())).spec, compiled=compiled)
        self.optimizer = RunAdamW(self.bank, self.protocol)
        # Elsewhere attention and the product depend on what a row holds, which a recording cannot.
        self.launches = Launches(device) if kernels else None
        self.losses = torch.zeros(len(self.runs), device=device)
        self.max_tokens = TRAINING_TOKENS[device.type] if max_tokens is None else max_tokens
        self.evaluation_tokens = EVALUATION_TOKENS[device.type]
        self.best = [trained.tensor.clone() for trained in self.bank.tensors()]
        self.best_correct = torch.full((len(self.runs),), -1, device=device)
        self.best_step = torch.full((len(self.runs),), -1, device=device)
        self.best_dev = torch.zeros(len(self.runs), self.pools["dev"].count, dtype=torch.int8, device=device)
        """`[runs, dev examples]`, the margins at the best step, as `margin_codes` gives them."""
        self.loss_sums = torch.zeros(len(self.runs), device=device)
        self.state = State(evaluations=[[] for _ in self.runs])
        self._saved_at = math.inf
        self._stopped_by: int | None = None
        self._orders: dict[tuple[int, int], NDArray[np.int64]] = {}
        self._cut()

    def train(self) -> list[Result]:
        """Train to the last step, evaluating as the protocol says; then judge the best-dev weights.

        Returns:
            One result a run, in the bank's order.

        Raises:
            SystemExit: the process got SIGTERM; the state was written first.
        """
        self._resume()
        if self.bank.device.type == "cuda":
            # Another bank's peak, in the same process, is not this one's.
            torch.cuda.reset_peak_memory_stats(self.bank.device)
        on_stream = contextlib.nullcontext() if self.launches is None else self.launches.on_stream()
        with self._heeding_sigterm(), on_stream, self.bank.attached():
            self._saved_at = time.perf_counter()
            while self.state.evaluated < self.protocol.steps:
                self._train_to(self.state.evaluated + self.protocol.eval_every)
                self._evaluate()
                self._save()
            started = time.perf_counter()
            with torch.no_grad():
                for trained, best in zip(self.bank.tensors(), self.best, strict=True):
                    trained.tensor.copy_(best)
            margins = {set_name: self._judge(set_name)[0] for set_name in ("eval", "rest")} | {"dev": self.best_dev}
            self.state.evaluation_seconds += time.perf_counter() - started
        self._note_memory()
        return [
            self._result(run, {set_name: m[run] for set_name, m in margins.items()}) for run in range(len(self.runs))
        ]

    def _train_to(self, end: int) -> None:
        """Train up to a step, writing the state now and then."""
        queued: collections.deque[torch.cuda.Event] = collections.deque()
        started = time.perf_counter()
        while self.state.step < end:
            losses = self._step(self.state.step)
            self.state.step += 1
            if self.bank.device.type == "cuda":
                # Without a bound on what is queued the host would be done long before the device, and deaf till then.
                done = torch.cuda.Event()
                done.record()
                queued.append(done)
                if len(queued) > STEPS_AHEAD:
                    queued.popleft().synchronize()
            if self.bank.device.type == "cpu" or self.state.step % 50 == 1:
                self.progress(self.state.step, f"loss {_span(losses)}")
            due = self.checkpoint is not None and time.perf_counter() - self._saved_at > CHECKPOINT_SECONDS
            if self._stopped_by is not None or (due and self.state.step < end):
                # A transfer, so the device is done with these steps when the clock is read.
                self.loss_sums.cpu()
                self.state.train_seconds += time.perf_counter() - started
                self._obey()
                self._save()
                started = time.perf_counter()
        self.loss_sums.cpu()
        self.state.train_seconds += time.perf_counter() - started

    @contextlib.contextmanager
    def _heeding_sigterm(self) -> Iterator[None]:
        """Note SIGTERM, with which a cluster takes a machine away; it is obeyed once the state is written."""
        if threading.current_thread() is not threading.main_thread():
            # Signals are the main thread's alone.
            yield
            return

        def note(number: int, frame: object) -> None:
            self._stopped_by = number

        before = signal.signal(signal.SIGTERM, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _obey(self) -> None:
        """End if SIGTERM came, with the state on file."""
        if self._stopped_by is not None:
            self._save()
            raise SystemExit(128 + self._stopped_by)

    def forget(self) -> None:
        """Remove the checkpoint, and free the recordings' memory for the next bank; for when the records are safe."""
        if self.checkpoint is not None:
            self.checkpoint.unlink(missing_ok=True)
        if self.launches is not None:
            self.launches.forget()
            # Memory that is free but kept is not given back while another bank is recorded.
            torch.cuda.empty_cache()

    def _batch(self, run: RunConfig, step: int) -> NDArray[np.int64]:
        """`[batch_size]`, which training examples this run sees in this step.

        Every epoch is a fresh permutation that depends on the seed of the order (`RunConfig.order`) and the
        epoch alone, so that a run's order is the same in any bank and after any interruption; a batch may reach across
        two epochs.
        """
        pool, size = self.pools["train"], self.protocol.batch_size
        places = np.arange(step * size, (step + 1) * size)
        epochs, within = np.divmod(places, pool.count)
        chosen = np.empty(size, dtype=np.int64)
        for epoch in np.unique(epochs):
            chosen[epochs == epoch] = self._order(run.order, int(epoch))[within[epochs == epoch]]
        return chosen + pool.start[run.data_seed]

    def _batches(self, step: int) -> NDArray[np.int64]:
        """`[runs, batch_size]`, which training examples each run sees in this step."""
        return np.stack([self._batch(run, step) for run in self.runs])

    def _order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        if (seed, epoch) not in self._orders:
            self._orders = {key: order for key, order in self._orders.items() if key[1] >= epoch - 1}
            generator = np.random.default_rng([seed, epoch])
            self._orders[seed, epoch] = generator.permutation(self.pools["train"].count)
        return self._orders[seed, epoch]

    def _cut(self) -> None:
        """Cut the runs into neighbours that train on one row each, as even as can be."""
        count = min(math.ceil(len(self.runs) * self.run_tokens / self.max_tokens), len(self.runs))
        cuts = [len(self.runs) * i // count for i in range(count + 1)]
        self.rows = [TrainingRow(self.bank.run_slice(slice(a, b))) for a, b in itertools.pairwise(cuts)]
        if self.launches is not None:
            self.launches.forget()

    def _step(self, step: int) -> Tensor:
        """One optimizer step of every run. Returns the losses before it, `[runs]`."""
        chosen = self._batches(step)
        done = False
        while not done:
            # The bound is lowered after this block: until then the exception's frames hold what did not fit.
            with contextlib.suppress(torch.OutOfMemoryError):
                for row in self.rows:
                    self._backward(row, chosen[row.run_slice.runs])
                done = True
            if not done:
                self._halve_rows("train", chosen)
        self._launch("update", self._update)
        return self.losses

    def _launch(self, key: Hashable, work: Callable[[], None]) -> None:
        if self.launches is None:
            work()
        else:
            self.launches.launch(key, work)

    def _update(self) -> None:
        self.optimizer.step(self.losses)
        self.loss_sums += self.losses

    def _backward(self, training_row: TrainingRow, chosen: NDArray[np.int64]) -> None:
        """Leave the gradients of a row's runs in the bank, and their losses in `losses`."""
        if self.launches is None:
            row, labels = self._pack("train", chosen)
        else:
            capacity = self._capacity(chosen)
            fresh, fresh_labels = self._pack("train", chosen, capacity)
            row, labels = training_row.buffers.setdefault(capacity.tokens, (fresh, fresh_labels))
            if row is not fresh:
                row.copy_(fresh)
                labels.copy_(fresh_labels)

        def work() -> None:
            self.losses[training_row.run_slice.runs] = self.bank.backward(row, labels, training_row.run_slice)

        self._launch(training_row.key(row.tokens.shape[1]), work)

    def _capacity(self, chosen: NDArray[np.int64]) -> RowCapacity:
        """Of a row with these training examples."""
        return RowCapacity.for_tokens(int(self._lengths("train", chosen).sum()), self.longest)

    def _pack(
        self, set_name: str, chosen: NDArray[np.int64], capacity: RowCapacity | None = None
    ) -> tuple[Row, Tensor]:
        """A packed row of chosen examples `[runs, examples]` and their labels, of the same shape."""
        pool = self.pools[set_name]
        row = pack(pool.tokens, pool.token_types, pool.offsets, chosen, self.bank.device, capacity)
        return row, to_device(pool.labels[chosen], torch.int64, self.bank.device)

    def _evaluation_rows(self, set_name: str, chosen: NDArray[np.int64]) -> list[slice]:
        """Cut the runs into slices of neighbours whose chosen examples fill one packed row each."""
        cuts, held = [0], 0
        for run, length in enumerate(self._lengths(set_name, chosen)):
            if held and held + length > self.evaluation_tokens:
                cuts.append(run)
                held = 0
            held += length
        return [slice(a, b) for a, b in itertools.pairwise([*cuts, len(chosen)])]

    def _lengths(self, set_name: str, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        """`[runs]`, tokens of each run's chosen examples together."""
        lengths: NDArray[np.int64] = np.diff(self.pools[set_name].offsets)[chosen].sum(1)
        return lengths

    def _halve_rows(self, set_name: str, chosen: NDArray[np.int64]) -> None:
        """Lower the bound on a row's tokens after these chosen examples did not fit the device's memory."""
        lengths = self._lengths(set_name, chosen)
        rows = (
            [row.run_slice.runs for row in self.rows]
            if set_name == "train"
            else self._evaluation_rows(set_name, chosen)
        )
        if len(rows) == len(lengths) and (set_name == "train" or chosen.shape[1] == 1):
            raise InputError(
                f"{chosen.shape[1]} examples of one run ({lengths.max()} tokens) do not fit the memory of"
                f" {self.bank.device}; lower protocol.batch_size or protocol.max_length"
            )
        if set_name == "train":
            self.max_tokens = max(row.stop - row.start for row in rows) * self.run_tokens / 2
            self._cut()
        else:
            self.evaluation_tokens = max(int(lengths[row].sum()) for row in rows) // 2
        torch.cuda.empty_cache()

    def _evaluate(self) -> None:
        """Judge every run on dev, note it, and keep the weights of those that are better than ever before."""
        started = time.perf_counter()
        margins, losses = self._judge("dev")
        correct = (margins > 0).sum(1)
        step = self.state.step
        better = (correct > self.best_correct) & (self.optimizer.diverged_at < 0)
        self.best_correct = torch.where(better, correct, self.best_correct)
        self.best_step.masked_fill_(better, step)
        self.best_dev = torch.where(better[:, None], margins, self.best_dev)
        with torch.no_grad():
            for trained, best in zip(self.bank.tensors(), self.best, strict=True):
                keep = better[trained.owners].view((-1,) + (1,) * (best.dim() - 2))
                best.copy_(torch.where(keep, trained.tensor, best))
        means = (self.loss_sums / self.protocol.eval_every).tolist()
        self.loss_sums.zero_()
        living = (self.optimizer.diverged_at < 0).tolist()
        for run, noted in enumerate(self.state.evaluations):
            if living[run]:
                noted.append(Evaluation(step, means[run], float(losses[run]), int(correct[run]), margins.shape[1]))
        self.state.evaluated = step
        self.state.evaluation_seconds += time.perf_counter() - started

    # Compiling for evaluations alone would take longer than all of them do.
    @torch.compiler.set_stance("force_eager")
    @torch.no_grad()
    def _judge(self, set_name: str) -> tuple[Tensor, Tensor]:
        """The examples' margins, `[runs, examples]`, as `margin_codes` gives them, and the mean loss, `[runs]`."""
        pool = self.pools[set_name]
        if not pool.count:
            nothing = torch.zeros(len(self.runs), 0, dtype=torch.int8, device=self.bank.device)
            return nothing, nothing.sum(1).float()
        starts = np.array([pool.start[run.data_seed] for run in self.runs])
        # Runs may have other examples at the same place; the longest of them counts.
        lengths = np.diff(pool.offsets)
        ends = np.cumsum(np.max([lengths[s : s + pool.count] for s in set(starts.tolist())], axis=0))
        margins, losses, at = [], [], 0
        while at < pool.count:
            # The state is that before the evaluation, which is then done again as a whole.
            self._obey()
            room = (ends[at - 1] if at else 0) + self.evaluation_tokens // len(self.runs)
            until = max(at + 1, int(np.searchsorted(ends, room, side="right")))
            chosen = starts[:, None] + np.arange(at, min(until, pool.count))
            scored = None
            with contextlib.suppress(torch.OutOfMemoryError):
                scored = self._score(set_name, chosen)
            if scored is None:
                self._halve_rows(set_name, chosen)
                continue
            margins.append(scored[0])
            losses.append(scored[1])
            at += chosen.shape[1]
        return torch.cat(margins, 1), torch.cat(losses, 1).mean(1)

    def _score(self, set_name: str, chosen: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """The margin of each chosen example and its loss, both `[runs, examples]`."""
        margins, losses = [], []
        for runs in self._evaluation_rows(set_name, chosen):
            row, labels = self._pack(set_name, chosen[runs])
            logits = self.bank.logits(row, self.bank.run_slice(runs))
            margins.append(margin_codes(logits, labels))
            losses.append(F.cross_entropy(logits.movedim(-1, 1), labels, reduction="none"))
        return torch.cat(margins), torch.cat(losses)

    def _result(self, run: int, margins: Mapping[str, Tensor]) -> Result:
        """What a run gave, from its margins on eval, rest and dev."""
        diverged, best_step = int(self.optimizer.diverged_at[run]), int(self.best_step[run])
        data = self.data[self.runs[run].data_seed]
        outcomes = {
            set_name: _outcome(getattr(data, set_name), codes) if best_step > 0 and len(codes) else None
            for set_name, codes in margins.items()
        }
        return Result(
            config=self.runs[run],
            evaluations=self.state.evaluations[run],
            best_step=best_step if best_step > 0 else None,
            outcome=outcomes["eval"],
            rest=outcomes["rest"],
            dev=outcomes["dev"],
            diverged_at=diverged if diverged > 0 else None,
            cost=Cost(
                bank_runs=len(self.runs),
                train_seconds=round(self.state.train_seconds, 3),
                evaluation_seconds=round(self.state.evaluation_seconds, 3),
                peak_memory_bytes=self.state.peak_memory_bytes,
                resumed=self.state.resumed,
            ),
            adapter=self.bank.adapter_of(run),
            head={name: tensor[run].detach().clone() for name, tensor in self.bank.head.items()},
        )

    def _note_memory(self) -> None:
        if self.bank.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.bank.device)
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self.state.peak_memory_bytes = max(self.state.peak_memory_bytes, peak)

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors that change in training, by names that are stable for the same runs."""
        tensors = self.optimizer.state() | {
            "best_correct": self.best_correct,
            "best_step": self.best_step,
            "best_dev": self.best_dev,
            "loss_sums": self.loss_sums,
        }
        for trained, best in zip(self.bank.tensors(), self.best, strict=True):
            tensors[trained.name], tensors[f"{trained.name}.best"] = trained.tensor, best
        return tensors

    def _save(self) -> None:
        """Write the whole state as one file, atomically: tensors as safetensors, the rest as JSON in its header."""
        self._note_memory()
        self._saved_at = time.perf_counter()
        if self.checkpoint is None:
            return
        state: dict[str, Any] = vars(self.state) | {
            "runs": self._identities(),
            "max_tokens": self.max_tokens,
            "evaluations": [[vars(e) for e in noted] for noted in self.state.evaluations],
        }
        content = safetensors.torch.save(
            {name: tensor.contiguous() for name, tensor in self._tensors().items()}, {"state": json.dumps(state)}
        )
        write_atomically(self.checkpoint, content)

    @torch.no_grad()
    def _resume(self) -> None:
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        with safetensors.safe_open(self.checkpoint, "pt", device=str(self.bank.device)) as file:
            state = json.loads(file.metadata()["state"])
            if state.pop("runs") != self._identities():
                raise InputError(
                    f"{self.checkpoint} is the checkpoint of other runs, data or weights; remove it to start afresh"
                )
            saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
        tensors = self._tensors()
        if {n: t.shape for n, t in saved.items()} != {n: t.shape for n, t in tensors.items()}:
            raise InputError(f"{self.checkpoint} is another version's checkpoint; remove it to start afresh")
        for name, tensor in tensors.items():
            tensor.copy_(saved[name])
        self.max_tokens = state.pop("max_tokens")
        self._cut()
        state["evaluations"] = [[Evaluation(**e) for e in noted] for noted in state["evaluations"]]
        self.state = State(**state)
        self.state.resumed += 1
        self.progress(self.state.step, "resumed")

    def _identities(self) -> list[str]:
        weights = self.backbone.source.identity
        return [run.run_id(self.data[run.data_seed].fingerprint, weights) for run in self.runs]


def _outcome(examples: Examples, margins: Tensor) -> Outcome:
    codes = margins.cpu().numpy()
    return Outcome(
        correct=int((codes > 0).sum()),
        total=len(codes),
        rows=examples.source_size,
        drawn=pack_bitmap(examples.rows, examples.source_size),
        labels=pack_bytes(examples.labels),
        margins=pack_bytes(codes),
    )


def _span(losses: Tensor) -> str:
    finite = losses[torch.isfinite(losses)]
    return f"{finite.min():.3f}–{finite.max():.3f}" if len(finite) else "not finite"


def margin_codes(scores: Tensor, labels: Tensor) -> Tensor:
    """How sure the scores are of the true labels, a byte each: the sign says right or wrong, exactly.

    The margin m is the true label's score minus the best other one, in nats. It is kept as ±round(32 √|m|), at least 1
    and at most 127: to 3 % at one nat, and with the sign of what `argmax` says.

    Args:
        scores: `[..., labels]`, log-probabilities up to a constant.
        labels: `[...]`, class indices.

    Returns:
        `[...]`, int8.
    """
    true = scores.gather(-1, labels[..., None])
    others = scores.scatter(-1, labels[..., None], -torch.inf).amax(-1)
    size = (true[..., 0] - others).abs().sqrt().mul(MARGIN_RESOLUTION).round().nan_to_num(1.0).clamp(1, 127)
    return torch.where(scores.argmax(-1) == labels, size, -size).to(torch.int8)
