from importlib.util import find_spec
from pathlib import Path

import pytest
from in_snakemake import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    if find_spec("snakemake") is None:
        pytest.skip("Snakemake is not installed: `make workflow-setup`")
    folder = tmp_path / "project"
    folder.mkdir()
    return Project(folder)
