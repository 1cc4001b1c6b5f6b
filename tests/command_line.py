"""Calls of the command line in this process, and a study for them."""

import json
import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from cpadapt import cli

PROTOCOL = """
[protocol]
steps = 4
eval_every = 2
batch_size = 4
train_cap = 20
dev_cap = 10
eval_cap = 10
"""
"""Of a study that trains in a moment."""

STUDY = f"""
name = "small"
backbone = "tiny"
tasks = ["toy-sentiment", "toy-reading"]
[ladder]
head = true
[ladder.sizes]
cp = [1, 2]
{PROTOCOL}"""


class Ran:
    """What a call of the command line came to."""

    def __init__(self, status: object, out: str, err: str) -> None:
        self.status, self.out, self.err = status or 0, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def printed(*arguments: object) -> str:
    """What a command prints that succeeds."""
    ran = CliRunner().invoke(cli.app, list(map(str, arguments)))
    assert ran.exit_code == 0, ran.output
    return ran.stdout


class Cli:
    """Calls `cpadapt` in this process, as the shell would, from an empty folder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> Ran:
        self.monkeypatch.setattr(sys, "argv", ["cpadapt", *map(str, arguments)])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        out, err = self.capsys.readouterr()
        return Ran(exit_.value.code, out, err)
