"""The folder of a saved adapter: the names of its tensors, what is wrong with them, and what loading needs.

PEFT has no way to say which package an adapter type comes from, and without it stops at the type's name. So the type
in a saved configuration says it: `cpadapt.tuner.registry.CONFIG_TYPE`.
"""

from __future__ import annotations

import json
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from torch import Tensor

from cpadapt.errors import InputError
from cpadapt.tuner.registry import PREFIX

if TYPE_CHECKING:
    from cpadapt.tuner.config import CPConfig

TENSOR = re.compile(rf"(?P<module>.+)\.{PREFIX}adapter\.(?P<name>(?:up|down)_\d+|weight)")
"""A CP tensor in a saved adapter: its module, and its name in the family."""

_FORMER = re.compile(rf"(?P<module>.+)\.{PREFIX}(?:(?P<side>up|down)\.(?P<mode>\d+)|(?P<weight>weight))")

_NOTE = """## Loading

This is a CP adapter ([arXiv 2606.00428](https://arxiv.org/abs/2606.00428)), saved by cpadapt {version}. PEFT loads it
once cpadapt is imported:

```python
import cpadapt
from peft import PeftModel

model = PeftModel.from_pretrained(base_model, "path or hub id of this folder")
```

`cpadapt export` turns it into a LoRA adapter that needs no further package.
"""


def with_todays_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A saved adapter's tensors by today's names.

    At first the tensors of a module lay in `cp_up.0`, `cp_up.1`, …, `cp_down.0`, …, `cp_weight`. Modes of length 1 had
    tensors too; their signs go into λ.

    Raises:
        InputError: tensors by the former names are not a CP adapter's.
    """
    tensors: dict[str, Tensor] = {}
    sides: dict[tuple[str, str], dict[int, Tensor]] = defaultdict(dict)
    for key, tensor in state.items():
        match = _FORMER.fullmatch(key)
        if match is None:
            tensors[key] = tensor
        elif match["weight"]:
            tensors[f"{match['module']}.{PREFIX}adapter.weight"] = tensor
        else:
            sides[match["module"], match["side"]][int(match["mode"])] = tensor
    for (module, side), modes in sides.items():
        adapter = f"{module}.{PREFIX}adapter"
        raw = [modes[mode] for mode in sorted(modes)]
        named = {f"{side}.{mode}": tensor for mode, tensor in modes.items()}
        require_vectors(module, named | {"weight": tensors.get(f"{adapter}.weight")})
        for single in (vectors for vectors in raw if vectors.shape[-1] == 1):
            tensors[f"{adapter}.weight"] = tensors[f"{adapter}.weight"] * single[:, 0].sign()
        longer = (vectors for vectors in raw if vectors.shape[-1] > 1)
        tensors |= {f"{adapter}.{side}_{mode}": vectors for mode, vectors in enumerate(longer)}
    return tensors


def require_vectors(module: str, tensors: Mapping[str, Tensor | None]) -> None:
    """Check that tensors of a module are a weight `[components]` and vectors `[components, mode]`, of real numbers.

    Raises:
        InputError: they are not; the module and the tensors' shapes are named.
    """
    weight = tensors.get("weight")
    sound = weight is not None and all(
        tensor is not None
        and tensor.is_floating_point()
        and tensor.dim() == (1 if name == "weight" else 2)
        and len(tensor) == len(weight)
        for name, tensor in tensors.items()
    )
    if not sound:
        found = {
            name: f"{tensor.dtype} {list(tensor.shape)}" for name, tensor in tensors.items() if tensor is not None
        }
        raise InputError(
            f"the CP tensors of module {module!r} must be a weight [components] and vectors [components, mode] of real"
            f" numbers, not {found}"
        )


def faults(state: Mapping[str, Tensor]) -> Iterator[str]:
    """What is wrong with tensors that are to be saved, a sentence each."""
    if compiled := [key for key in state if "_orig_mod" in key]:
        yield (
            f"{len(compiled)} names contain '_orig_mod', such as {compiled[0]!r}: the model was compiled before it was"
            " adapted, and the adapter will not be found when it is loaded; adapt first, then compile"
        )
    if not any(f".{PREFIX}" in key for key in state):
        yield "it has no CP tensors"
    if empty := [key for key, tensor in state.items() if tensor.numel() == 0]:
        yield (
            f"{len(empty)} tensors are empty, such as {empty[0]!r}: the parameters were sharded and not gathered when"
            " they were saved"
        )
    real = {key: tensor for key, tensor in state.items() if not tensor.is_meta and tensor.is_floating_point()}
    # As float32, because eight-bit numbers cannot be asked.
    if undefined := [key for key, tensor in real.items() if not torch.isfinite(tensor.float()).all()]:
        yield f"{len(undefined)} tensors have NaN or infinite entries, such as {undefined[0]!r}"


def warn_of_faults(state: Mapping[str, Tensor]) -> None:
    """Warn of each of `faults`."""
    for fault in faults(state):
        warnings.warn(f"the saved CP adapter is not sound: {fault}", stacklevel=3)


def say_what_is_needed(folder: str | Path, config: CPConfig) -> None:
    """Have a folder's card name cpadapt, and the header of its weights too if they lie there already."""
    weights = Path(folder) / SAFETENSORS_WEIGHTS_NAME
    if weights.is_file():
        # The file comes with PEFT's header, which says neither cpadapt's version nor how the tensors are meant.
        options = json.dumps({"scale": config.scale, "tensor_shape": config.tensor_shape})
        header = {"format": "pt", "cpadapt": version("cpadapt"), "cp": options}
        draft = weights.with_suffix(".draft")
        save_file(load_file(weights), draft, metadata=header)
        draft.replace(weights)
    card = Path(folder) / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else "---\nlibrary_name: peft\n---\n"
    if _NOTE.partition("\n")[0] not in text.splitlines():
        card.write_text(f"{text.rstrip()}\n\n{_NOTE.format(version=version('cpadapt'))}", encoding="utf-8")
