"""PEFT's tuners, by the names under which a study lists them, such as `peft:vera`.

They share scalars over a model or train a few over frozen random bases, so they have no factor pair of their own
scalars and fit no bank. A run of one is trained alone, by PEFT's layers, under the same protocol as a bank's runs
(`cpadapt.bank.peft_run`). This table says what a study needs of each; everything else is PEFT's.

================ ==================  ============================================  ================================
name             size                trainable scalars of n projections out×in     frozen
================ ==================  ============================================  ================================
`peft:lora`      `r`                 (out + in)·size each                          nothing
`peft:vera`      `r`                 out + size each                               A and B, random, shared over the
                                                                                   model; drawn from a seed, stored
`peft:fourierft` `n_frequency`       size each                                     the frequencies, the same for
                                                                                   every projection of a shape;
                                                                                   drawn from a seed, not stored
`peft:tinylora`  `u`                 size for each group of projections; n groups  `r` singular vectors of each
                                     at `weight_tying = 0`, one at 1               weight, and size random r×r
                                                                                   matrices each, both stored
`peft:unilora`   `theta_d_length`    size for the whole model                      for each entry of LoRA's factors
                                                                                   of rank `r`, which scalar it is;
                                                                                   drawn from a seed, not stored
================ ==================  ============================================  ================================

The smallest size is 1. Sources: LoRA, Hu et al. 2021, arXiv 2106.09685; VeRA, Kopiczko et al. 2023, arXiv 2310.11454;
FourierFT, Gao et al. 2024, arXiv 2405.03003; TinyLoRA, arXiv 2602.04118; Uni-LoRA, arXiv 2506.00799.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from cpadapt.errors import InputError, is_number
from cpadapt.families import lora

if TYPE_CHECKING:
    from cpadapt.inputs.backbones.specs import Projection


class Option(NamedTuple):
    """An option of a tuner, which is a field of PEFT's config."""

    default: Any
    """PEFT's."""
    accepts: Callable[[Any], bool]
    wanted: str
    """What it accepts, in words."""


@dataclass(frozen=True)
class Tuner:
    """How a study trains with one of PEFT's tuners. What it shares with a family has the family's names."""

    TITLE: str
    SCALE: float
    """The default factor in front of the update, PEFT's own or for LoRA that of the family `lora`."""
    config: str
    """The name of PEFT's config class."""
    size: str
    """The field of the config that is a run's size."""
    scalars: Callable[..., int]
    """Trainable scalars, given the projections, the size and the options; raises `InputError` at too large a size."""
    rank: Callable[..., int]
    """The rank of the LoRA adapter that holds every such update, given the size and the options."""
    scale: Callable[[float, int], dict[str, float]] | None = None
    """The fields that make a scale, given it and the size; `None` where the config has none and the scale is 1."""
    seed: str | None = None
    """The field that takes the seed of what is random and frozen."""
    options: Mapping[str, Option] = field(default_factory=dict)

    LEARNING_RATE: ClassVar[None] = None
    """PEFT states none, so a study gives its rates."""
    INIT_OPTIONS: ClassVar[Mapping[str, Any]] = {}
    DECAY_OPTIONS: ClassVar[Mapping[str, str]] = {}

    @property
    def SHAPE_OPTIONS(self) -> dict[str, Any]:
        """All options, with PEFT's defaults."""
        return {name: option.default for name, option in self.options.items()}

    def smallest(self, **options: Any) -> int:
        """The smallest size."""
        self._require(options)
        return 1

    def count(self, projections: Sequence[Projection], size: int, **options: Any) -> int:
        """Trainable scalars over all projections.

        Raises:
            InputError: an option is wrong, the size is not positive, or above the largest that these projections have.
        """
        self._require(options)
        if size < 1:
            raise InputError(f"{self.size} of PEFT's {self.TITLE} must be 1 or more, not {size}")
        return self.scalars(projections, size, **{**self.SHAPE_OPTIONS, **options})

    def columns(self, size: int, **options: Any) -> int:
        """The rank of the LoRA adapter that holds every such update. None needs more than a projection's shorter side.

        Raises:
            InputError: an option is wrong.
        """
        self._require(options)
        return self.rank(size, **{**self.SHAPE_OPTIONS, **options})

    def require_scale(self, scale: float | None) -> None:
        """Check the factor in front of the update.

        Raises:
            InputError: it is not 1 and PEFT has no field for it.
        """
        if self.scale is None and scale != self.SCALE:
            raise InputError(f"scale = {scale}: must be {self.SCALE:g}, because PEFT's {self.TITLE} has no scale")

    def _require(self, options: Mapping[str, Any]) -> None:
        for name, value in options.items():
            if not self.options[name].accepts(value):
                raise InputError(f"{name} = {value!r} of PEFT's {self.TITLE}: must be {self.options[name].wanted}")


def _positive_integer(default: int) -> Option:
    return Option(
        default, lambda value: isinstance(value, int) and not isinstance(value, bool) and value > 0, "1 or more"
    )


def _positive(default: float) -> Option:
    return Option(default, lambda value: is_number(value) and value > 0, "a positive number")


def _lora(projections: Sequence[Projection], size: int) -> int:
    return size * sum(p.out_features + p.in_features for p in projections)


def _vera(projections: Sequence[Projection], size: int, *, d_initial: float) -> int:
    return sum(p.out_features + size for p in projections)


def _fourierft(projections: Sequence[Projection], size: int, *, init_weights: bool) -> int:
    entries = min(p.out_features * p.in_features for p in projections)
    if size > entries:
        raise InputError(
            f"n_frequency of PEFT's FourierFT must be at most {entries}, the entries of the smallest projection,"
            f" not {size}"
        )
    return size * len(projections)


def _rank_of_size(size: int, **options: Any) -> int:
    """The size is the rank: of LoRA, and of VeRA with (λ_b B)(λ_d A)."""
    return size


def _rank_of_fourierft(size: int, **options: Any) -> int:
    """A frequency's update is cos(a + b) = cos a cos b − sin a sin b, with a of the row and b of the column."""
    return 2 * size


def _rank_option(size: int, *, r: int, **options: Any) -> int:
    """Of TinyLoRA's B R A and of Uni-LoRA's B A, of any size."""
    return r


def _tinylora(projections: Sequence[Projection], size: int, *, r: int, weight_tying: float) -> int:
    return size * max(1, round(len(projections) * (1 - weight_tying)))


def _unilora(projections: Sequence[Projection], size: int, *, r: int, init_theta_d_bound: float) -> int:
    entries = _lora(projections, r)
    if size > entries:
        raise InputError(
            f"theta_d_length of PEFT's Uni-LoRA must be at most {entries}, the entries of its factors of rank {r},"
            f" not {size}"
        )
    return size


TUNERS: dict[str, Tuner] = {
    "peft:lora": Tuner(
        "LoRA (PEFT)",
        lora.SCALE,
        config="LoraConfig",
        size="r",
        scalars=_lora,
        rank=_rank_of_size,
        # PEFT multiplies by alpha / r.
        scale=lambda scale, size: {"lora_alpha": scale * size},
    ),
    "peft:vera": Tuner(
        "VeRA",
        1.0,
        config="VeraConfig",
        size="r",
        scalars=_vera,
        rank=_rank_of_size,
        seed="projection_prng_key",
        options={"d_initial": _positive(0.1)},
    ),
    "peft:fourierft": Tuner(
        "FourierFT",
        150.0,
        config="FourierFTConfig",
        size="n_frequency",
        scalars=_fourierft,
        rank=_rank_of_fourierft,
        scale=lambda scale, size: {"scaling": scale},
        seed="random_loc_seed",
        options={"init_weights": Option(False, lambda value: isinstance(value, bool), "true or false")},
    ),
    "peft:tinylora": Tuner(
        "TinyLoRA",
        1.0,
        config="TinyLoraConfig",
        size="u",
        scalars=_tinylora,
        rank=_rank_option,
        seed="projection_seed",
        options={
            "r": _positive_integer(2),
            "weight_tying": Option(0.0, lambda value: is_number(value) and 0 <= value <= 1, "from 0 to 1"),
        },
    ),
    "peft:unilora": Tuner(
        "Uni-LoRA",
        1.0,
        config="UniLoraConfig",
        size="theta_d_length",
        scalars=_unilora,
        rank=_rank_option,
        seed="proj_seed",
        options={"r": _positive_integer(4), "init_theta_d_bound": _positive(0.02)},
    ),
}
"""PEFT's tuners by the name that a study gives them."""
