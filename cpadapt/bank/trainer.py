"""The training loop of a bank of any size, a single run included. It can be killed and resumed."""

import collections
import contextlib
import itertools
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from cpadapt.bank.adamw import RunAdamW
from cpadapt.bank.bank import Bank, RunSlice, cross_entropy, stacking_order
from cpadapt.bank.launches import Launches
from cpadapt.bank.packing import Row, RowCapacity, pack, takes_kernels, to_device
from cpadapt.bank.peft_run import PeftRun
from cpadapt.errors import InputError
from cpadapt.families.peft_tuners import TUNERS
from cpadapt.inputs.backbones.loading import Backbone
from cpadapt.inputs.tasks.encoding import Encoded, encode
from cpadapt.inputs.tasks.examples import Examples, TaskData
from cpadapt.records.config import Protocol, RunConfig
from cpadapt.records.record import MARGIN_RESOLUTION, Cost, Evaluation, Outcome, pack_bitmap, pack_bytes
from cpadapt.records.store import write_atomically

TRAINING_TOKENS = {"cuda": 32_768, "cpu": 4096}
"""Initial bound on the tokens of a packed row in training, on average. CUDA reports when memory runs out; on a CPU the
system kills the process."""

EVALUATION_TOKENS = {"cuda": 262_144, "cpu": 4096}
"""Initial bound on the tokens of a packed row in evaluations, which keep nothing for a backward pass."""

COMPILED_FROM = 1e15
"""Fusing kernels is worth its compile time from this product of training tokens and backbone weights on."""

CHECKPOINT_SECONDS = 120.0
"""Seconds of training after which the state is written again, the most that a lost machine costs."""

STEPS_AHEAD = 4
"""Steps that the host may queue ahead of the device, which still finishes them after SIGTERM."""

SETS = ("train", "dev", "eval", "rest")
"""The sets of examples, as `cpadapt.inputs.tasks` defines them."""

Progress = Callable[[int, str], None]
"""Called with the number of steps done and a short text on the losses."""

T = TypeVar("T")


@dataclass
class Result:
    """The outcome of training one run; `head` and `adapter` are the best-dev weights, empty if there are none."""

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
    """Tokenize each set of examples.

    Args:
        data: the examples.
        backbone: gives the tokenizer; decoders get a prompt.
        protocol: gives `max_length`, which the backbone's limit may lower.

    Raises:
        InputError: the tokenizer has tokens that the model lacks; or as `cpadapt.inputs.tasks.encoding.encode`.
    """
    encoded = {
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
    known = backbone.model.get_input_embeddings().weight.shape[0]
    last = max(int(one.tokens.max(initial=0)) for one in encoded.values())
    if last >= known:
        raise InputError(
            f"the tokenizer of {backbone.name!r} gives token {last}, and the model has {known} tokens: use the"
            " tokenizer that belongs to it"
        )
    return encoded


@dataclass
class Pool:
    """One set of examples for all data seeds, one example after another."""

    tokens: NDArray[np.int64]
    token_types: NDArray[np.int64] | None
    offsets: NDArray[np.int64]
    """`[examples + 1]`: example k has the tokens `offsets[k] : offsets[k + 1]`."""
    labels: NDArray[np.int64]
    """`[examples]`: class indices."""
    targets: NDArray[np.int64] | NDArray[np.float32]
    """The labels, or the class probabilities `[examples, labels]` of a teacher. Losses are taken against these."""
    start: dict[int, int]
    """Number of the first example, by data seed."""
    count: int
    """Examples of each data seed."""

    @property
    def taught(self) -> bool:
        """Whether the targets are a teacher's."""
        return self.targets.ndim == 2

    def divergence(self, data_seed: int, loss: float) -> float | None:
        """The mean Kullback–Leibler divergence from a teacher that belongs to a mean loss; `None` without a teacher.

        It is the loss minus the teacher's mean entropy, in nats; rounding may put it a little below 0.

        Args:
            data_seed: of the examples.
            loss: the mean cross entropy on them.
        """
        if not self.taught:
            return None
        first = self.start[data_seed]
        probabilities = torch.from_numpy(self.targets[first : first + self.count]).double()
        return loss - float(torch.special.entr(probabilities).sum(1).mean())

    @staticmethod
    def of(encoded: Mapping[int, Encoded]) -> "Pool":
        """Put the examples of all data seeds one after another.

        Raises:
            InputError: data seeds have different numbers of examples.
        """
        parts = list(encoded.values())
        counts = {len(part.labels) for part in parts}
        if len(counts) > 1:
            raise InputError(f"data seeds have different numbers of examples, {sorted(counts)}; lower the cap")
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        count = counts.pop()
        types = [part.token_types for part in parts if part.token_types is not None]
        labels = np.concatenate([part.labels for part in parts])
        return Pool(
            tokens=np.concatenate([part.tokens for part in parts]),
            token_types=np.concatenate(types) if types else None,
            offsets=np.concatenate([[0], np.cumsum(lengths)]),
            labels=labels,
            targets=labels,
            start={seed: i * count for i, seed in enumerate(encoded)},
            count=count,
        )


def pools_of(data: Mapping[int, TaskData], backbone: Backbone, protocol: Protocol) -> dict[str, Pool]:
    """Tokenize every draw of a task.

    Args:
        data: the examples by data seed.
        backbone: gives the tokenizer and its limits.
        protocol: gives the limit on the tokens of an example.

    Returns:
        The examples of all data seeds, by the name of their set (`SETS`).

    Raises:
        InputError: an example is too long even when shortened, or data seeds have different numbers of examples.
    """
    encoded = {seed: encode_sets(drawn, backbone, protocol) for seed, drawn in data.items()}
    return {set_name: Pool.of({seed: sets[set_name] for seed, sets in encoded.items()}) for set_name in SETS}


@dataclass
class State:
    """The progress of a bank's training, without its tensors."""

    step: int = 0
    """Optimizer steps done."""
    evaluated: int = 0
    """The step of the last evaluation."""
    evaluations: list[list[Evaluation]] = field(default_factory=list)
    """`[runs][evaluations]`"""
    train_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    peak_memory_bytes: int = 0
    resumed: int = 0


@dataclass(frozen=True)
class TrainingRow:
    """Neighbouring runs that share a packed row in every step."""

    run_slice: RunSlice
    buffers: dict[int, tuple[Row, Tensor]] = field(default_factory=dict)
    """The row and the targets that the recorded launches read, by number of tokens."""

    def key(self, tokens: int) -> Hashable:
        """The name of the launch for a row of this number of tokens."""
        return self.run_slice.runs.start, self.run_slice.runs.stop, tokens


class Trainer:
    """Trains the runs of one bank together.

    On a GPU in half precision a step is a few launches (see `cpadapt.bank.launches`): one for each row and one for the
    optimizer.

    Args:
        backbone: the frozen model.
        runs: runs of one task under one protocol, in any order; of one of PEFT's tuners a single run.
        data: the task's examples, for every data seed of the runs.
        pools: the tokenized examples, if `pools_of` has made them already; with a teacher's answers
            (`cpadapt.bank.teacher.taught`) if the runs have a teacher.
        checkpoint: the file for the whole state, which is written at evaluations and every `CHECKPOINT_SECONDS` of
            training. Training resumes from it if it exists. `None` writes no file.
        max_tokens: tokens of one packed row in training, on average. A step with more tokens is done in several rows
            of whole runs, with the same result. `None` takes the default of the device (see `TRAINING_TOKENS`). When a
            GPU runs out of memory the bound is halved and the step repeated. Evaluations have a separate bound.
        compiled: fuse kernels (see `cpadapt.bank.bank.Bank`). `None` does so on a GPU in half precision if the
            training is long enough (see `COMPILED_FROM`).
        progress: called with the number of steps done and a short text.

    Raises:
        InputError: the runs do not belong to one bank, data are missing for one of their data seeds, or the pools do
            not have the answers of the runs' teacher.
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
        if len({(run.backbone, run.task, run.protocol, run.target_modules, run.teacher) for run in runs}) != 1:
            raise InputError("the runs of a bank must share backbone, task, protocol, target modules and teacher")
        if missing := {run.data_seed for run in runs} - set(data):
            raise InputError(f"there are no data for data seed {min(missing)}")
        self.runs = sorted(runs, key=stacking_order)
        self.protocol = self.runs[0].protocol
        self.backbone = backbone
        self.checkpoint = checkpoint
        self.progress = progress or (lambda step, word: None)
        self.data = dict(data)

        self.pools = pools_of(data, backbone, self.protocol) if pools is None else pools
        if self.pools["train"].taught != (self.runs[0].teacher is not None):
            raise InputError("runs with a teacher, and only they, need pools with its answers (bank.teacher.taught)")
        train_lengths = np.diff(self.pools["train"].offsets)
        self.run_tokens = self.protocol.batch_size * float(train_lengths.mean())
        """Tokens of one run in one step, on average."""
        self.longest = int(train_lengths.max())
        """Tokens of the longest training example."""
        device, dtype = backbone.model.device, backbone.model.dtype
        kernels = takes_kernels(device, dtype)
        by_peft = self.runs[0].family in TUNERS
        if compiled is None:
            tokens = self.run_tokens * len(self.runs) * self.protocol.steps
            worthwhile = tokens * backbone.model.num_parameters() > COMPILED_FROM
            compiled = kernels and worthwhile and not by_peft
        spec = next(iter(data.values())).spec
        self.bank = (PeftRun if by_peft else Bank)(backbone, self.runs, spec, compiled=compiled)
        self.optimizer = RunAdamW(self.bank, self.protocol)
        # Without kernels, attention and the product depend on a row's contents, so they cannot be recorded.
        self.launches = Launches(device) if kernels else None
        self.losses = torch.zeros(len(self.runs), device=device)
        self.max_tokens = TRAINING_TOKENS[device.type] if max_tokens is None else max_tokens
        self.evaluation_tokens = EVALUATION_TOKENS[device.type]
        self.best = [trained.tensor.clone() for trained in self.bank.tensors()]
        self.best_score = torch.full((len(self.runs),), -torch.inf, device=device)
        """`[runs]`, of the best step: examples of dev answered correctly or, with a teacher, minus the loss."""
        self.best_step = torch.full((len(self.runs),), -1, device=device)
        self.best_dev = torch.zeros(len(self.runs), self.pools["dev"].count, dtype=torch.int8, device=device)
        """`[runs, dev examples]`, the margins at the best step, as `margin_codes` codes them."""
        self.loss_sums = torch.zeros(len(self.runs), device=device)
        self.state = State(evaluations=[[] for _ in self.runs])
        self._saved_at = math.inf
        self._stopped_by: int | None = None
        self._orders: dict[tuple[int, int], NDArray[np.int64]] = {}
        self._cut_rows()

    def train(self) -> list[Result]:
        """Train to the last step, evaluate on the way as the protocol says, then judge the best-dev weights.

        Returns:
            One result for each run, in the bank's order.

        Raises:
            SystemExit: the process got SIGTERM; the state has been written.
            InputError: the checkpoint belongs to other runs, or one run's examples do not fit the device's memory.
        """
        self._resume()
        if self.bank.device.type == "cuda":
            # An earlier bank in this process may have had a higher peak.
            torch.cuda.reset_peak_memory_stats(self.bank.device)
        on_stream = contextlib.nullcontext() if self.launches is None else self.launches.on_stream()
        with self._noting_sigterm(), on_stream, self.bank.attached():
            self._saved_at = time.perf_counter()
            while self.state.evaluated < self.protocol.steps:
                self._train_to(self.state.evaluated + self.protocol.eval_every)
                self._evaluate()
                self._save()
            started = time.perf_counter()
            with torch.no_grad():
                for trained, best in zip(self.bank.tensors(), self.best, strict=True):
                    trained.tensor.copy_(best)
            judged = {name: self._judge(name) for name in ("eval", "rest")}
            self.state.evaluation_seconds += time.perf_counter() - started
        self._note_memory()
        judged["dev"] = self.best_dev, self._losses_at_best()
        return [self._result(run, judged) for run in range(len(self.runs))]

    def judge(self) -> list[dict[str, Outcome]]:
        """Judge every run's present weights, such as those that it starts from.

        Returns:
            For each run, in the bank's order, its outcome on `dev`, `eval` and `rest`, without sets that are empty.
        """
        on_stream = contextlib.nullcontext() if self.launches is None else self.launches.on_stream()
        with on_stream, self.bank.attached():
            judged = {name: self._judge(name) for name in ("dev", "eval", "rest")}
        return [self._outcomes(run, judged) for run in range(len(self.runs))]

    def _train_to(self, end: int) -> None:
        """Train up to a step, and write the state when it is due."""
        queued: collections.deque[torch.cuda.Event] = collections.deque()
        started = time.perf_counter()
        while self.state.step < end:
            losses = self._step(self.state.step)
            self.state.step += 1
            if self.bank.device.type == "cuda":
                # Without a bound the host would queue all steps at once, and could then no longer react to SIGTERM.
                done = torch.cuda.Event()
                done.record()
                queued.append(done)
                if len(queued) > STEPS_AHEAD:
                    queued.popleft().synchronize()
            if self.bank.device.type == "cpu" or self.state.step % 50 == 1:
                self.progress(self.state.step, f"loss {_span(losses)}")
            due = self.checkpoint is not None and time.perf_counter() - self._saved_at > CHECKPOINT_SECONDS
            if self._stopped_by is not None or (due and self.state.step < end):
                # The transfer waits until the device has done these steps, so the clock includes them.
                self.loss_sums.cpu()
                self.state.train_seconds += time.perf_counter() - started
                self._stop_if_asked()
                self._save()
                started = time.perf_counter()
        self.loss_sums.cpu()
        self.state.train_seconds += time.perf_counter() - started

    @contextlib.contextmanager
    def _noting_sigterm(self) -> Iterator[None]:
        """Note SIGTERM, which a cluster sends before it takes a machine away; end once the state is written.

        Windows knows this signal but never sends it.
        """
        if threading.current_thread() is not threading.main_thread():
            # Only the main thread may handle signals.
            yield
            return

        def note(number: int, frame: object) -> None:
            self._stopped_by = number

        before = signal.signal(signal.SIGTERM, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _stop_if_asked(self) -> None:
        """After SIGTERM, write the state and end the process."""
        if self._stopped_by is not None:
            self._save()
            raise SystemExit(128 + self._stopped_by)

    def forget(self) -> None:
        """Remove the checkpoint and free the memory of the recordings. Call it when the records are written."""
        if self.checkpoint is not None:
            self.checkpoint.unlink(missing_ok=True)
        if self.launches is not None:
            self.launches.forget()
            # torch does not return cached memory to the device while another bank is being recorded.
            torch.cuda.empty_cache()

    def _batch(self, run: RunConfig, step: int) -> NDArray[np.int64]:
        """`[batch_size]`, the training examples that a run sees in a step.

        Each epoch has a permutation that depends only on the seed of the order (`RunConfig.order`) and on the epoch.
        So the order of a run is the same in any bank and after any interruption. A batch may span two epochs.
        """
        pool, size = self.pools["train"], self.protocol.batch_size
        places = np.arange(step * size, (step + 1) * size)
        epochs, within = np.divmod(places, pool.count)
        chosen = np.empty(size, dtype=np.int64)
        for epoch in np.unique(epochs):
            chosen[epochs == epoch] = self._order(run.order, int(epoch))[within[epochs == epoch]]
        return chosen + pool.start[run.data_seed]

    def _batches(self, step: int) -> NDArray[np.int64]:
        """`[runs, batch_size]`, the training examples that each run sees in a step."""
        return np.stack([self._batch(run, step) for run in self.runs])

    def _order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        if (seed, epoch) not in self._orders:
            self._orders = {key: order for key, order in self._orders.items() if key[1] >= epoch - 1}
            generator = np.random.default_rng([seed, epoch])
            self._orders[seed, epoch] = generator.permutation(self.pools["train"].count)
        return self._orders[seed, epoch]

    def _cut_rows(self) -> None:
        """Divide the runs into training rows of neighbours, as evenly as possible."""
        count = min(math.ceil(len(self.runs) * self.run_tokens / self.max_tokens), len(self.runs))
        cuts = [len(self.runs) * i // count for i in range(count + 1)]
        self.rows = [TrainingRow(self.bank.run_slice(slice(a, b))) for a, b in itertools.pairwise(cuts)]
        if self.launches is not None:
            self.launches.forget()

    def _step(self, step: int) -> Tensor:
        """Do one optimizer step of every run. Returns `[runs]`, the losses before it."""
        chosen = self._batches(step)

        def backward() -> None:
            for row in self.rows:
                self._backward(row, chosen[row.run_slice.runs])

        fits(backward, lambda: self._halve_training_rows(chosen))
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
        """Write the gradients of a row's runs into the bank, and their losses into `losses`."""
        if self.launches is None:
            row, targets = self._pack("train", chosen)
        else:
            capacity = self._capacity(chosen)
            fresh, fresh_targets = self._pack("train", chosen, capacity)
            row, targets = training_row.buffers.setdefault(capacity.tokens, (fresh, fresh_targets))
            if row is not fresh:
                row.copy_(fresh)
                targets.copy_(fresh_targets)

        def work() -> None:
            self.losses[training_row.run_slice.runs] = self.bank.backward(row, targets, training_row.run_slice)

        self._launch(training_row.key(row.tokens.shape[1]), work)

    def _capacity(self, chosen: NDArray[np.int64]) -> RowCapacity:
        """The capacity of a row with these training examples."""
        return RowCapacity.for_tokens(int(self._lengths("train", chosen).sum()), self.longest)

    def _pack(
        self, set_name: str, chosen: NDArray[np.int64], capacity: RowCapacity | None = None
    ) -> tuple[Row, Tensor]:
        """Pack chosen examples `[runs, examples]`. Returns the row and the targets, which have these axes first."""
        pool = self.pools[set_name]
        row = pack(pool.tokens, pool.token_types, pool.offsets, chosen, self.bank.device, capacity)
        return row, to_device(pool.targets[chosen], torch.float32 if pool.taught else torch.int64, self.bank.device)

    def _evaluation_rows(self, set_name: str, chosen: NDArray[np.int64]) -> list[slice]:
        """Divide the runs into slices of neighbours whose chosen examples fill one packed row each."""
        cuts, tokens = [0], 0
        for run, length in enumerate(self._lengths(set_name, chosen)):
            if tokens and tokens + length > self.evaluation_tokens:
                cuts.append(run)
                tokens = 0
            tokens += length
        return [slice(a, b) for a, b in itertools.pairwise([*cuts, len(chosen)])]

    def _lengths(self, set_name: str, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        """`[runs]`, the total tokens of each run's chosen examples."""
        lengths: NDArray[np.int64] = np.diff(self.pools[set_name].offsets)[chosen].sum(1)
        return lengths

    def _halve_training_rows(self, chosen: NDArray[np.int64]) -> None:
        """Cut the runs into shorter rows, after these examples did not fit the device's memory.

        Raises:
            InputError: a row holds a single run already.
        """
        if len(self.rows) == len(chosen):
            raise self._too_large("train", chosen)
        longest = max(row.run_slice.runs.stop - row.run_slice.runs.start for row in self.rows)
        self.max_tokens = longest * self.run_tokens / 2
        self._cut_rows()
        torch.cuda.empty_cache()

    def _halve_evaluation_rows(self, set_name: str, chosen: NDArray[np.int64]) -> None:
        """Lower the bound on the tokens of a row, after these examples did not fit the device's memory.

        Raises:
            InputError: a row holds a single example already.
        """
        rows, lengths = self._evaluation_rows(set_name, chosen), self._lengths(set_name, chosen)
        if len(rows) == len(chosen) and chosen.shape[1] == 1:
            raise self._too_large(set_name, chosen)
        self.evaluation_tokens = max(int(lengths[row].sum()) for row in rows) // 2
        torch.cuda.empty_cache()

    def _too_large(self, set_name: str, chosen: NDArray[np.int64]) -> InputError:
        return InputError(
            f"{chosen.shape[1]} examples of one run ({self._lengths(set_name, chosen).max()} tokens) do not fit the"
            f" memory of {self.bank.device}; lower protocol.batch_size or protocol.max_length"
        )

    def _evaluate(self) -> None:
        """Judge every run on dev, note the result, and keep the weights of the runs that are better than before."""
        started = time.perf_counter()
        margins, losses = self._judge("dev")
        correct = (margins > 0).sum(1)
        step = self.state.step
        score = -losses if self.pools["dev"].taught else correct.float()
        better = (score > self.best_score) & (self.optimizer.diverged_at < 0)
        self.best_score = torch.where(better, score, self.best_score)
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

    # Compiling for evaluations would take longer than all evaluations together.
    @torch.compiler.set_stance("force_eager")
    @torch.no_grad()
    def _judge(self, set_name: str) -> tuple[Tensor, Tensor]:
        """Judge every run on a set of examples.

        Returns:
            `[runs, examples]`, the margins as `margin_codes` codes them; `[runs]`, the mean losses.
        """
        pool = self.pools[set_name]
        if not pool.count:
            nothing = torch.zeros(len(self.runs), 0, dtype=torch.int8, device=self.bank.device)
            return nothing, nothing.sum(1).float()
        starts = np.array([pool.start[run.data_seed] for run in self.runs])
        # Data seeds have examples of different lengths at the same place; the longest counts.
        lengths = np.diff(pool.offsets)
        total_tokens = np.cumsum(np.max([lengths[s : s + pool.count] for s in set(starts.tolist())], axis=0))
        margins, losses, judged = [], [], 0

        def next_examples() -> NDArray[np.int64]:
            """`[runs, examples]`: from the first unjudged one on, as many as fit one row; at least one."""
            bound = (total_tokens[judged - 1] if judged else 0) + self.evaluation_tokens // len(self.runs)
            stop = max(judged + 1, int(np.searchsorted(total_tokens, bound, side="right")))
            return starts[:, None] + np.arange(judged, min(stop, pool.count))

        def score() -> tuple[Tensor, Tensor]:
            # The state to write is the one before the evaluation, which is then repeated as a whole.
            self._stop_if_asked()
            return self._score(set_name, next_examples())

        while judged < pool.count:
            margin, loss = fits(score, lambda: self._halve_evaluation_rows(set_name, next_examples()))
            margins.append(margin)
            losses.append(loss)
            judged += margin.shape[1]
        return torch.cat(margins, 1), torch.cat(losses, 1).mean(1)

    def _score(self, set_name: str, chosen: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Score chosen examples. Returns their margins and their losses, both `[runs, examples]`."""
        margins, losses = [], []
        for runs in self._evaluation_rows(set_name, chosen):
            row, targets = self._pack(set_name, chosen[runs])
            labels = to_device(self.pools[set_name].labels[chosen[runs]], torch.int64, self.bank.device)
            logits = self.bank.logits(row, self.bank.run_slice(runs))
            margins.append(margin_codes(logits, labels))
            losses.append(cross_entropy(logits, targets))
        return torch.cat(margins), torch.cat(losses)

    def _losses_at_best(self) -> Tensor:
        """`[runs]`, the mean losses on dev at the best step; NaN where there is none."""
        best = self.best_step.tolist()
        found = [
            next((e.dev_loss for e in noted if e.step == step), math.nan)
            for noted, step in zip(self.state.evaluations, best, strict=True)
        ]
        return torch.tensor(found)

    def _outcomes(self, run: int, judged: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Outcome]:
        """A run's outcome on each set that is not empty, given all runs' margins and mean losses on each."""
        data_seed = self.runs[run].data_seed
        return {
            name: _outcome(
                getattr(self.data[data_seed], name),
                margins[run],
                self.pools[name].divergence(data_seed, float(losses[run])),
            )
            for name, (margins, losses) in judged.items()
            if margins.shape[1]
        }

    def _result(self, run: int, judged: Mapping[str, tuple[Tensor, Tensor]]) -> Result:
        """The result of a run, given all runs' margins and mean losses on eval, rest and dev."""
        diverged, best_step = int(self.optimizer.diverged_at[run]), int(self.best_step[run])
        outcomes = self._outcomes(run, judged) if best_step > 0 else {}
        return Result(
            config=self.runs[run],
            evaluations=self.state.evaluations[run],
            best_step=best_step if best_step > 0 else None,
            outcome=outcomes.get("eval"),
            rest=outcomes.get("rest"),
            dev=outcomes.get("dev"),
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
            peak = peak_resident_bytes()
        self.state.peak_memory_bytes = max(self.state.peak_memory_bytes, peak)

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors that change in training, by name; the same runs always get the same names."""
        tensors = self.optimizer.state() | {
            "best_score": self.best_score,
            "best_step": self.best_step,
            "best_dev": self.best_dev,
            "loss_sums": self.loss_sums,
        }
        for trained, best in zip(self.bank.tensors(), self.best, strict=True):
            tensors[trained.name], tensors[f"{trained.name}.best"] = trained.tensor, best
        return tensors

    def _save(self) -> None:
        """Write the whole state atomically to one file: the tensors as safetensors, the rest as JSON in the header."""
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
        if self.checkpoint is None:
            return
        try:
            with _checkpoint(self.checkpoint, str(self.bank.device)) as (file, state):
                saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
        except FileNotFoundError:  # not asked for before, as an NFS client may show what was removed
            return
        if state.pop("runs") != self._identities():
            raise InputError(
                f"{self.checkpoint} is the checkpoint of other runs, data or weights; remove it to start anew"
            )
        tensors = self._tensors()
        if {n: t.shape for n, t in saved.items()} != {n: t.shape for n, t in tensors.items()}:
            raise InputError(
                f"{self.checkpoint} is a checkpoint of another version of cpadapt; remove it to start anew"
            )
        for name, tensor in tensors.items():
            tensor.copy_(saved[name])
        self.max_tokens = state.pop("max_tokens")
        self._cut_rows()
        state["evaluations"] = [[Evaluation(**e) for e in noted] for noted in state["evaluations"]]
        self.state = State(**state)
        self.state.resumed += 1
        self.progress(self.state.step, "resumed")

    def _identities(self) -> list[str]:
        weights = self.backbone.source.identity
        return [run.run_id(self.data[run.data_seed].fingerprint, weights) for run in self.runs]


def runs_of_checkpoint(path: Path) -> list[str]:
    """The ids of the runs whose state a checkpoint holds.

    Raises:
        InputError: it is not a whole checkpoint.
    """
    with _checkpoint(path, "cpu") as (_, state):
        ids: list[str] = state["runs"]
    return ids


@contextlib.contextmanager
def _checkpoint(path: Path, device: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """An open checkpoint's tensors and its state."""
    try:
        file = safetensors.safe_open(path, "pt", device=device)
        state = json.loads(file.metadata()["state"])
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not a whole checkpoint; remove it to start anew ({error})") from None
    with file:
        yield file, state


def fits(work: Callable[[], T], shrink: Callable[[], None]) -> T:
    """Do a piece of work. As long as it runs out of memory, make it smaller and try again.

    Args:
        work: can be done again from its start after `torch.OutOfMemoryError`.
        shrink: makes the next call of `work` need less memory, or raises if it cannot.

    Returns:
        What `work` returns.
    """
    while True:
        try:
            return work()
        except torch.OutOfMemoryError:
            pass
        # Not in the handler, where the exception's frames still hold the memory that ran out.
        shrink()


def peak_resident_bytes() -> int:
    """Peak memory of this process in RAM, in bytes; 0 where the system does not report it (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, Linux KiB.
    return peak if sys.platform == "darwin" else 1024 * peak


def _outcome(examples: Examples, margins: Tensor, divergence: float | None) -> Outcome:
    codes = margins.cpu().numpy()
    return Outcome(
        correct=int((codes > 0).sum()),
        total=len(codes),
        rows=examples.source_size,
        drawn=pack_bitmap(examples.rows, examples.source_size),
        labels=pack_bytes(examples.labels),
        margins=pack_bytes(codes),
        divergence=divergence,
    )


def _span(losses: Tensor) -> str:
    finite = losses[torch.isfinite(losses)]
    return f"{finite.min():.3f}–{finite.max():.3f}" if len(finite) else "not finite"


def margin_codes(scores: Tensor, labels: Tensor) -> Tensor:
    """Code the margins of the true labels in one byte each. The sign is exact, so it says whether the answer is right.

    The margin m is the true label's score minus the best other score, in nats. Its code is ±round(32 √|m|), at least 1
    and at most 127, so m is kept to 3 % at one nat. The sign is positive where `argmax` picks the true label.

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
