"""What every test runs under: no hub, one thread, and shapes checked at run time where they are written down."""

import os

# No hub can be meant in a test; a call that would reach for one fails at once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from jaxtyping import install_import_hook

# The models here are so small that a second thread only waits, and spins where the machine is shared.
torch.set_num_threads(1)

# Before anything of cpadapt is imported; where there is a GPU, the compiler could not see through the checks.
if not torch.cuda.is_available():
    shaped = ("adamw", "bank", "packing")
    install_import_hook([f"cpadapt.bank.{name}" for name in shaped], "beartype.beartype")
