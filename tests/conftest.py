"""Shapes of the families' and the packing's functions are checked at run time in every test."""

import os

# No hub can be meant in a test; a call that would reach for one fails at once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from jaxtyping import install_import_hook

# Before anything of cpadapt is imported.
install_import_hook(["cpadapt.families.cp", "cpadapt.families.lora", "cpadapt.packing"], "beartype.beartype")
