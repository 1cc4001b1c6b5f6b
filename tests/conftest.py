"""What every test runs under: no hub, one thread, and shapes checked at run time where they are written down."""

import gc
import os
import sys
from collections.abc import Iterator

# Nothing that is imported becomes garbage.
gc.disable()

# jsonschema imports this, which takes two seconds to parse its grammar of addresses. No test needs the grammar.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]

# No hub can be meant in a test; a call that would reach for one fails at once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest  # noqa: E402
import torch  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402
from processes import Forks, forks  # noqa: E402

# The models here are so small that a second thread only waits, and spins where the machine is shared.
torch.set_num_threads(1)

# Before anything of cpadapt is imported; where there is a GPU, the compiler could not see through the checks.
if not torch.cuda.is_available():
    shaped = ("adamw", "bank", "packing")
    install_import_hook([f"cpadapt.bank.{name}" for name in shaped], "beartype.beartype")


def pytest_collection_finish() -> None:
    """Keep what was imported out of garbage collections, which some libraries ask for at every call."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Processes that measure beside this one."""
    with forks(tmp_path_factory.mktemp("printed")) as opened:
        yield opened
