"""The Triton kernels on small shapes without a GPU, in Triton's interpreter.

Skipped where Triton is not installed; with `CPADAPT_TRITON=required` in the environment, as in the workflow, it fails
instead.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cpadapt.bank import kernels

KERNELS = ("test_attention.py", "test_lowrank.py")


@pytest.mark.slow
@pytest.mark.skipif(
    not kernels.AVAILABLE and os.environ.get("CPADAPT_TRITON") != "required", reason="Triton is not installed"
)
def test_kernels_hold_in_tritons_interpreter() -> None:
    """In a process of its own: Triton asks for the interpreter when kernels are defined."""
    here = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not gpu", *(str(here / name) for name in KERNELS)]
    done = subprocess.run(
        command,
        cwd=here.parents[1],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^[1-9]\d* passed, \d+ deselected in", done.stdout, flags=re.M), done.stdout
