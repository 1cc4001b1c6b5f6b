"""Register the adapter type "CP" with PEFT. No other module touches PEFT's registries.

PEFT's `PeftType` is an enumeration and cannot be extended from outside. But its registries are plain dictionaries, and
a member of a `str` enumeration hashes as its *name* and compares as its *value*. A member of another enumeration with
equal name and value is therefore found both by itself and by the string "CP" of a saved adapter.
"""

import importlib
from enum import Enum
from typing import Any

import peft

WORKS_WITH = "peft>=0.21,<0.22"
"""The versions that the tests run with; `pyproject.toml` requires the same."""

PREFIX = "cp_"
"""The start of the names of CP's parameters, by which PEFT recognizes adapter weights."""

CONFIG_TYPE = "CP (run `import cpadapt` before loading)"
"""The adapter type in a saved configuration: without cpadapt, PEFT stops at it with a KeyError that quotes it. "CP" is
read too."""

_NEEDED = {
    "peft.mapping": (
        "PEFT_TYPE_TO_CONFIG_MAPPING",
        "PEFT_TYPE_TO_TUNER_MAPPING",
        "PEFT_TYPE_TO_PREFIX_MAPPING",
    ),
    "peft.tuners.tuners_utils": (
        "BaseTuner",
        "BaseTunerLayer",
        "_maybe_include_all_linear_layers",
        "check_adapters_to_merge",
        "check_target_module_exists",
    ),
    "peft.utils": (
        "AuxiliaryTrainingWrapper",
        "ModulesToSaveWrapper",
        "TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING",
        "get_quantization_kwargs",
        "resolve_quantization_backend",
    ),
    "peft.utils.other": ("get_pattern_key",),
    "peft.utils.quantization_utils": ("ForwardOnlyQuantizationBackend", "QuantizationBackend"),
}


class CPType(str, Enum):  # noqa: UP042  PEFT reads the type's name out of `str(member)`, which a StrEnum has not
    """The adapter type, in place of a member of PEFT's own enumeration."""

    CP = "CP"


def require_peft() -> None:
    """Check that PEFT has everything that CP uses.

    Raises:
        ImportError: something is missing; the message names it, the installed version and the versions that work.
    """
    for module, names in _NEEDED.items():
        for name in names:
            try:
                getattr(importlib.import_module(module), name)
            except (ImportError, AttributeError):
                raise _refusal(f"{module}.{name} is missing") from None


def register(config_cls: type[Any], tuner_cls: type[Any]) -> None:
    """Enter CP into PEFT's registries. A second call changes nothing.

    Raises:
        ImportError: this PEFT lacks a registry, requires a tuner to have methods that CP's tuner lacks, or uses the
            name "CP" or the prefix "cp_" for another method. Nothing is entered then.
    """
    require_peft()
    if missing := sorted(tuner_cls.__abstractmethods__):
        raise _refusal(f"it requires a tuner to have {', '.join(missing)}")
    entries = {
        "PEFT_TYPE_TO_CONFIG_MAPPING": config_cls,
        "PEFT_TYPE_TO_TUNER_MAPPING": tuner_cls,
        "PEFT_TYPE_TO_PREFIX_MAPPING": PREFIX,
    }
    registries = {name: getattr(peft.mapping, name) for name in entries}
    for name, entry in entries.items():
        taken = registries[name].get(CPType.CP, entry)
        if not _same(taken, entry):
            raise _refusal(f"{name} uses 'CP' for {taken!r}")
    for peft_type, prefix in registries["PEFT_TYPE_TO_PREFIX_MAPPING"].items():
        if prefix == PREFIX and peft_type != CPType.CP:
            raise _refusal(f"it uses the prefix {PREFIX!r} for {peft_type!r}")
    for name, entry in entries.items():
        registries[name][CPType.CP] = entry
    registries["PEFT_TYPE_TO_CONFIG_MAPPING"][CONFIG_TYPE] = config_cls


def _same(taken: object, entry: object) -> bool:
    if isinstance(taken, type) and isinstance(entry, type):
        # By name, because a notebook's autoreload defines the class a second time.
        return (taken.__module__, taken.__qualname__) == (entry.__module__, entry.__qualname__)
    return taken == entry


def _refusal(why: str) -> ImportError:
    return ImportError(
        f"cpadapt's CP adapter works with {WORKS_WITH}, not with the installed peft {peft.__version__}: {why}"
    )


# Here and not only in `register`: modules that need these names are imported before it is called, and would fail
# with a less helpful message.
require_peft()
