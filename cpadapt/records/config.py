"""The protocol that runs share, and the config that identifies one run."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import Field, field_validator
from pydantic.dataclasses import dataclass as validated

from cpadapt.errors import STRICT, InputError, did_you_mean, explained, is_number, no_truth_value
from cpadapt.families import family_or_tuner
from cpadapt.families.cp import read_tensor_shape
from cpadapt.families.peft_tuners import Tuner
from cpadapt.families.planted import Teacher

HEAD = "head"
"""The family name and the label of runs without an adapter, the floor of a frontier. They train the readout alone, and
nothing with a verbalizer."""
HEAD_TITLE = "head only"
HEAD_COLOUR = "#777777"
"""Its name in tables and charts, and its colour in charts, grey because it is a floor and not a family."""

Cell = tuple[str, int]
"""What a study compares over seeds, such as `("cp", 11)`. A cell is the label under which the study lists a family, or
`head`, and the rank or number of components, 0 for `head`."""

SEMANTICS = 1
"""Version of what a config means. Raise it when the same config would train differently; all ids then change."""

LATER_PROTOCOL_FIELDS: Mapping[str, Any] = {"rest_cap": 0}
LATER_RUN_FIELDS: Mapping[str, Any] = {"order_seed": None, "warmup_steps": None, "teacher": None}
LATER_OPTIONS: Mapping[str, Any] = {"init_std": None, "lambda_decay": 0.0}
"""Fields, and options of families, added after the first records were written, with the values that leave a config's
meaning unchanged. At that value they are left out of every hash, so that adding them changed no id."""

PAPER: Mapping[str, Any] = {
    "steps": 5000,
    "eval_every": 1000,
    "train_cap": 1000,
    "dev_cap": 500,
    "eval_cap": 1000,
    "dtype": "float16",
    "readout": "head",
}
"""The paper's values (arXiv 2606.00428), as reported second-hand; the report leaves out the other fields."""


MOST = 10**9
"""Above any number of steps or examples."""
LARGEST_BATCH = 2**16
"""Above what a run trains on in a step, and few enough for memory."""


@explained
@validated(frozen=True, config=STRICT)
class Protocol:
    """How every run of a study is trained and judged; runs can be compared only under the same protocol.

    The defaults are the paper's values (arXiv 2606.00428) where it reports them, and ours elsewhere; :meth:`sources`
    says which is which.
    """

    steps: int = 5000
    """Optimizer steps."""
    batch_size: int = 8
    """Training examples a step."""
    eval_every: int = 1000
    """Steps between two evaluations on dev; must divide `steps`, so that the last step is evaluated too."""
    train_cap: int = 1000
    """Training examples drawn from the training split."""
    dev_cap: int = 500
    """Examples for choosing the best step, drawn from the training split too."""
    eval_cap: int | None = 1000
    """Examples for the final accuracy, drawn from the evaluation split; `None` takes all, 0 judges on dev alone."""
    rest_cap: int = 0
    """Further examples to judge on, drawn from the training rows that train and dev do not use."""
    schedule: Literal["linear", "constant"] = "linear"
    """Learning rates decay linearly to 0 at the last step, or stay constant."""
    warmup_steps: int = 0
    """Steps in which learning rates rise linearly from 0, before the schedule."""
    weight_decay: float = 0.0
    """Decoupled (AdamW), on adapters and head alike; a family may have an option that adds to it on one tensor."""
    clip: float | None = 1.0
    """Bound on the 2-norm of one run's whole gradient; `None` does not clip."""
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    """Adam's constants; its bias correction is always on."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the frozen backbone and of the adapters' products. Trained scalars and moments are always float32."""
    readout: Literal["head", "verbalizer"] = "head"
    """`head` is a linear classification head, trained and not counted in the budget. `verbalizer`, for decoders,
    reads the scores of each label word's first token after the prompt from the backbone's frozen output embedding, as
    MeZO does (arXiv 2305.17333), and trains nothing besides the adapter."""
    head_learning_rate: float = 1e-3
    """Learning rate of the head; the adapter's is part of each run's config."""
    pooling: Literal["auto", "last", "mean"] = "auto"
    """The readout sees the last real token's hidden state or the mean over tokens; `auto` is `last` for decoders and
    `mean` for encoders."""
    max_length: int | None = None
    """The most tokens of an example; `None` is what the backbone allows."""
    dropout: float = 0.0
    """Only 0 is accepted, because variable-length attention has no dropout; OPT's default is 0.1."""

    _numbers = field_validator("*", mode="before")(no_truth_value)

    def __post_init__(self) -> None:
        def require(holds: bool, name: str, want: str) -> None:
            if not holds:
                raise InputError(f"protocol.{name} = {getattr(self, name)!r}: must be {want}")

        for name in ("steps", "eval_every", "train_cap", "dev_cap"):
            require(1 <= getattr(self, name) <= MOST, name, f"a positive integer, at most {MOST:,}")
        require(1 <= self.batch_size <= LARGEST_BATCH, "batch_size", f"a positive integer, at most {LARGEST_BATCH:,}")
        any_number = f"0 or positive, at most {MOST:,}"
        require(0 <= (self.eval_cap or 0) <= MOST, "eval_cap", f"{any_number}, or none for the whole split")
        require(0 <= self.rest_cap <= MOST, "rest_cap", any_number)
        require(self.steps % self.eval_every == 0, "eval_every", f"a divisor of steps = {self.steps}")
        require(0 <= self.warmup_steps < self.steps, "warmup_steps", f"from 0 to below steps = {self.steps}")
        require(self.weight_decay >= 0, "weight_decay", "0 or positive")
        require(self.clip is None or self.clip > 0, "clip", "positive, or none")
        require(0 <= self.beta1 < 1, "beta1", "in [0, 1)")
        require(0 <= self.beta2 < 1, "beta2", "in [0, 1)")
        require(self.epsilon > 0, "epsilon", "positive")
        require(self.head_learning_rate >= 0, "head_learning_rate", "0 or positive")
        require(self.max_length is None or self.max_length >= 8, "max_length", "8 or more, or none")
        last = self.readout == "head" or self.pooling != "mean"
        require(last, "pooling", "auto or last: a verbalizer reads the last token")
        require(self.dropout == 0.0, "dropout", "0, the only value that packed rows can train with")

    @property
    def caps(self) -> tuple[int, int, int | None, int]:
        """The most examples drawn for train, dev, eval and rest, as `cpadapt.load_task` takes them."""
        return self.train_cap, self.dev_cap, self.eval_cap, self.rest_cap

    @property
    def id(self) -> str:
        """Hash of all fields."""
        return _protocol_id(self)

    def rate_factor(self, step: int, warmup_steps: int | None = None) -> float:
        """The factor on every learning rate in this step, as in transformers' schedulers.

        Args:
            step: counted from 0.
            warmup_steps: the run's, if it has its own; by default the protocol's.
        """
        warmup = self.warmup_steps if warmup_steps is None else warmup_steps
        if step < warmup:
            return step / warmup
        if self.schedule == "constant":
            return 1.0
        return (self.steps - step) / (self.steps - warmup)

    def sources(self) -> dict[str, Literal["paper", "ours"]]:
        """Whose value each field has, the paper's or ours; ours where the paper's differs or is not reported."""
        return {
            f.name: "paper" if f.name in PAPER and PAPER[f.name] == getattr(self, f.name) else "ours"
            for f in dataclasses.fields(self)
        }


@functools.cache
def _protocol_id(protocol: Protocol) -> str:
    """Cached, because thousands of records share a few protocols."""
    return _digest(_without_later_defaults(dataclasses.asdict(protocol), LATER_PROTOCOL_FIELDS))


@explained
@validated(frozen=True, config=STRICT)
class RunConfig:
    """One run: what is trained, on what, from which seed. Its hash identifies it."""

    backbone: str
    task: str
    family: str
    """A name in `cpadapt.families.FAMILIES`, one of PEFT's tuners (`cpadapt.families.peft_tuners`), or `head` for a
    run without an adapter."""
    size: int
    """Rank or components, or the size of a tuner (`cpadapt.families.peft_tuners`); 0 for `head`."""
    seed: int
    """Seed of the initial weights, and of the order of the data unless `order_seed` is given."""
    data_seed: int
    """Seed of the draw of train and dev from the training split."""
    protocol: Protocol
    learning_rate: float | None = None
    """Learning rate of the adapter; `None` for `head`."""
    scale: float | None = None
    """The factor in front of the update; `None` for `head`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """All of the family's options, defaults included.

    :meta hide-value:
    """
    target_modules: tuple[str, ...] | None = None
    """The last parts of the modules' paths; `None` is the architecture's default."""
    order_seed: int | None = None
    """Seed of the order of the data alone; `None` is `seed`."""
    warmup_steps: int | None = None
    """Steps in which this run's rates rise linearly; `None` is the protocol's number."""
    teacher: Teacher | None = None
    """The teacher whose class probabilities this run is trained to match, planted from `data_seed`; `None` trains on
    the task's labels."""

    def __post_init__(self) -> None:
        for name in ("seed", "data_seed", "order_seed"):
            require_seeds(name, [getattr(self, name) or 0])
        if self.warmup_steps is not None and not 0 <= self.warmup_steps < self.protocol.steps:
            raise InputError(
                f"warmup_steps = {self.warmup_steps}: must be from 0 to below steps = {self.protocol.steps}"
            )
        if self.teacher is not None and self.protocol.readout != "verbalizer":
            raise InputError(
                f"protocol.readout = {self.protocol.readout!r}: a teacher answers in label words; use 'verbalizer'"
            )
        if self.family == HEAD:
            if (self.size, self.learning_rate, self.scale, self.options) != (0, None, None, {}):
                raise InputError("a head-only run has size 0 and no adapter settings")
            return
        known = family_or_tuner(self.family)
        if self.size < 1:
            raise InputError(f"size = {self.size} of family {self.family!r}: must be a positive integer")
        for name in ("learning_rate", "scale"):
            value = getattr(self, name)
            if value is None or not value > 0:
                raise InputError(f"{name} = {value} of family {self.family!r}: must be positive")
        knobs = {**known.SHAPE_OPTIONS, **known.INIT_OPTIONS, **dict.fromkeys(known.DECAY_OPTIONS, 0.0)}
        if unknown := set(self.options) - set(knobs):
            hint = did_you_mean(min(unknown), knobs)
            there_are = ", ".join(sorted(knobs)) or "none"
            raise InputError(f"family {self.family!r} has no option {min(unknown)!r}{hint}; it has {there_are}")
        if isinstance(known, Tuner):
            known.require_scale(self.scale)
        # Every option is written out, so that a default that changes later cannot change what a record means.
        object.__setattr__(self, "options", {**knobs, **_int_keys(self.options)})
        for name in known.DECAY_OPTIONS:
            value = self.options[name]
            if not is_number(value) or value < 0:
                raise InputError(f"{name} = {value!r} of family {self.family!r}: must be 0 or a positive number")

    @property
    def shape_options(self) -> dict[str, Any]:
        """The options that decide shapes and counts."""
        return {name: self.options[name] for name in family_or_tuner(self.family).SHAPE_OPTIONS}

    @property
    def init_options(self) -> dict[str, Any]:
        """The options that the family's `init` takes, those that decide shapes included."""
        known = family_or_tuner(self.family)
        return {name: self.options[name] for name in (*known.SHAPE_OPTIONS, *known.INIT_OPTIONS)}

    def weight_decay_of(self, tensor: str) -> float:
        """The weight decay of one of the adapter's tensors: the protocol's and, if the family has an option for it,
        that option's.

        Args:
            tensor: the name that the family gives it.
        """
        decays = {} if self.family == HEAD else family_or_tuner(self.family).DECAY_OPTIONS
        own = sum(self.options[option] for option, decayed in decays.items() if decayed == tensor)
        return self.protocol.weight_decay + float(own)

    @property
    def order(self) -> int:
        """Seed of the order of the data, `order_seed` if it is given and `seed` otherwise."""
        return self.seed if self.order_seed is None else self.order_seed

    @property
    def config_id(self) -> str:
        """Hash of this config and `SEMANTICS`, independent of data and weights."""
        return _digest({"config": self._hashed(), "semantics": SEMANTICS})

    def run_id(self, data_fingerprint: str, weights: str) -> str:
        """Hash of what is trained: this config without the backbone's name, on these data and weights.

        Args:
            data_fingerprint: `cpadapt.inputs.tasks.examples.TaskData.fingerprint`.
            weights: `cpadapt.inputs.backbones.specs.Source.identity`.
        """
        config = self._hashed()
        del config["backbone"]
        return _digest({"config": config, "semantics": SEMANTICS, "data": data_fingerprint, "weights": weights})

    def _hashed(self) -> dict[str, Any]:
        config = _without_later_defaults(dataclasses.asdict(self), LATER_RUN_FIELDS)
        config["protocol"] = _without_later_defaults(config["protocol"], LATER_PROTOCOL_FIELDS)
        config["options"] = _without_later_defaults(config["options"], LATER_OPTIONS)
        return config


LARGEST_SEED = 2**63 - 1
"""torch's generators take no larger one."""


def require_seeds(name: str, seeds: Iterable[int]) -> None:
    """Check that numbers can be seeds.

    Raises:
        InputError: one of them is negative or above `LARGEST_SEED`.
    """
    for seed in seeds:
        if not 0 <= seed <= LARGEST_SEED:
            raise InputError(f"{name} = {seed}: seeds must be 0 or positive, and at most {LARGEST_SEED}")


def stacking_order(run: RunConfig) -> tuple[str, str, int]:
    """Sort key that puts runs with the same parameter shapes side by side, smaller ones first."""
    if run.family == HEAD:
        return "", "", 0
    return run.family, repr(sorted(run.shape_options.items())), run.size


def _int_keys(options: Mapping[str, Any]) -> dict[str, Any]:
    """Read a tensor shape back from JSON or TOML, where dimensions are strings and modes are lists."""
    shape = options.get("tensor_shape")
    return dict(options) if shape is None else {**options, "tensor_shape": read_tensor_shape(shape)}


def _without_later_defaults(fields: dict[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in later or value != later[name]}


def _digest(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
