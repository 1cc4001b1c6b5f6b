"""What is the same when a study is measured a second time, and what is not."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import ROOT, environment

from cpadapt import Record, Shard, load_study, measure, train
from cpadapt.records.store import load_records
from cpadapt.study import with_protocol

pytestmark = pytest.mark.long

SHORT = {"steps": 20, "eval_every": 10, "dev_cap": 40, "eval_cap": 40}
STUDY = with_protocol(load_study(ROOT / "studies" / "small-tiny.toml"), **SHORT)
RUNS = 18


def content(record: Record) -> dict[str, Any]:
    """All that a record holds but times and memory."""
    found = dataclasses.asdict(record)
    for name in ("train_seconds", "evaluation_seconds", "peak_memory_bytes"):
        del found["cost"][name]
    del found["provenance"]["finished"]
    return found


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Record]]:
    """The study's records from two processes, each into a folder of its own; the second is to be deterministic."""
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    command = [sys.executable, "-c", "from cpadapt.cli import main; main()", "run", "studies/small-tiny.toml"]
    command += ["--quiet", *(f"--set={name}={value}" for name, value in SHORT.items())]
    alone = environment(OMP_NUM_THREADS="1")
    started = [
        subprocess.Popen([*command, f"--results={folder}", *more], cwd=ROOT, env=alone, stdout=subprocess.DEVNULL)
        for folder, more in zip(folders, ([], ["--deterministic"]), strict=True)
    ]
    assert [process.wait() for process in started] == [0, 0]
    return [{record.id: record for record in load_records(folder)} for folder in folders]


def test_on_the_cpu_the_same_study_gives_the_same_records(twice: list[dict[str, Record]]) -> None:
    first, second = twice
    assert {record.label for record in first.values()} == {"cp", "head", "lora"}
    assert {record.cost.bank_runs for record in first.values()} == {RUNS}
    assert {name: content(record) for name, record in first.items()} == {
        name: content(record) for name, record in second.items()
    }


BOUND = 1e-6
"""On the difference of two losses in nats: eight times the distance of float32 numbers between 1 and 2."""


@pytest.mark.parametrize("bank_tokens", [measure.BANK_TOKENS, 1], ids=["in halves, the second first", "alone"])
def test_in_other_banks_it_gives_the_same_answers(
    bank_tokens: int, twice: list[dict[str, Record]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attention pads to the longest text of a row, and how that rounds moves losses (`bench/repeat.py`)."""
    monkeypatch.setattr(measure, "BANK_TOKENS", bank_tokens)
    for part in ("2/2", "1/2"):
        train(STUDY, shard=Shard.parse(part), results=tmp_path)
    others = {record.id: record for record in load_records(tmp_path)}
    assert others.keys() == twice[0].keys()
    assert max(record.cost.bank_runs for record in others.values()) == (1 if bank_tokens == 1 else 12)

    def but_losses(record: Record) -> dict[str, Any]:
        found = content(record)
        del found["cost"]
        for evaluation in found["evaluations"]:
            del evaluation["train_loss"], evaluation["dev_loss"]
        for outcome in ("outcome", "dev"):
            del found[outcome]["margins"]
        return found

    for name, expected in twice[0].items():
        got = others[name]
        assert but_losses(got) == but_losses(expected)
        for kind in ("train_loss", "dev_loss"):
            losses = ([getattr(e, kind) for e in record.evaluations] for record in (got, expected))
            np.testing.assert_allclose(*losses, atol=BOUND, rtol=0)
        for kind in ("outcome", "dev"):
            one, other = getattr(got, kind), getattr(expected, kind)
            assert one.right_by_row == other.right_by_row
            # A margin may be rounded to the next step of what is kept.
            np.testing.assert_allclose(one.margin, other.margin, atol=2e-3, rtol=0.05)
