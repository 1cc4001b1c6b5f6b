"""What happens to a machine, and what is lost: nothing that is on record, and no more than the work since a state."""

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Forks, forks

from cpadapt import Ladder, Protocol, Study, train
from cpadapt.records.record import Record
from cpadapt.records.store import load_records, record_files

STUDY = Study(
    name="faults",
    backbone="tiny",
    tasks=("toy-sentiment",),
    ladder=Ladder(head=True, sizes={"cp": (1, 2)}),
    seeds=(0, 1),
    protocol=Protocol(steps=12, eval_every=3, batch_size=4, train_cap=20, dev_cap=10, eval_cap=12),
)
WORK = """
import os, random, signal
from pathlib import Path
import cpadapt.measure as measure
from cpadapt import Ladder, Protocol, Study
from cpadapt.bank.adamw import RunAdamW
from cpadapt.bank.bank import Bank
from cpadapt.bank.trainer import Trainer
from cpadapt.records import claims, store

measure.BANK_TOKENS = 750  # the three runs of a seed
study = Study(
    name="faults", backbone="tiny", tasks=("toy-sentiment",), seeds=(0, 1),
    ladder=Ladder(head=True, sizes={"cp": (1, 2)}),
    protocol=Protocol(steps=12, eval_every=3, batch_size=4, train_cap=20, dev_cap=10, eval_cap=12),
)
chance = random.Random(seed)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def dying_in(places, calls):
    "Die before or after one of the calls of these methods."
    left, after = chance.randrange(calls), chance.random() < 0.5
    def dying(work):
        def called(*args, **how):
            nonlocal left
            if left == 0 and not after:
                die()
            done = work(*args, **how)
            if left == 0:
                die()
            left -= 1
            return done
        return called
    for owner, name in places:
        setattr(owner, name, dying(getattr(owner, name)))

class Dying:
    "A file of which a part is written."
    def __init__(self, file):
        self.file = file
    def __enter__(self):
        return self
    def write(self, content):
        self.file.write(content[: chance.randrange(len(content))])
        self.file.flush()
        die()

def dying_in_writing(ending, files):
    "Die while one of the files with this ending is written: in the middle, or before or after it gets its name."
    left, how = chance.randrange(files), chance.choice(["within", "before", "after"])
    created, replace = store._created, Path.replace
    def creating(path):
        nonlocal left
        file = created(path)
        if ending in path.name:
            left -= 1
            if left < 0 and how == "within":
                return Dying(file)
        return file
    def replacing(draft, path):
        if left < 0 and how == "before":
            die()
        done = replace(draft, path)
        if left < 0:
            die()
        return done
    store._created, Path.replace = creating, replacing
"""
MOMENTS = {
    # A bank has 12 steps of a forward and a backward pass and an update.
    "training": "dying_in([(Trainer, '_pack'), (Bank, 'backward'), (RunAdamW, 'step'), (Trainer, '_update')], 90)",
    # And is judged on dev four times, then on eval.
    "judging": "dying_in([(Trainer, '_judge'), (Trainer, '_score'), (Trainer, '_evaluate')], 26)",
    "writing a checkpoint": "dying_in_writing('.safetensors.', 8)",
    # One for each of two banks, then one for both; besides, what comes just before and after.
    "writing records": """
if seed % 2:
    dying_in_writing('.jsonl.', 3)
else:
    dying_in([(store.RecordFile, 'add'), (store.RecordFile, '_reserve'), (store.RecordFile, 'finish'),
              (Trainer, 'forget'), (claims.Claims, 'settle'), (claims.Claims, 'tidy')], 9)
""",
}
KILLS = 10
"""Of each kind of moment."""


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with forks(tmp_path_factory.mktemp("printed")) as opened:
        yield opened


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Record]:
    return {record.id: record for record in train(STUDY)}


@pytest.mark.long
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment_nothing_is_lost_or_doubled(
    moment: str, processes: Forks, undisturbed: dict[str, Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cpadapt.measure.BANK_TOKENS", 750)
    resumed, before = 0, 0
    for seed in range(KILLS):
        results = tmp_path / str(seed)
        code = WORK + MOMENTS[moment] + "\nmeasure.train(study, results=results)\n"
        killed = processes.start(code, results=str(results), seed=seed)
        assert killed.wait() == -signal.SIGKILL, killed.printed
        on_record = load_records(results)
        before += len(on_record)
        train(STUDY, results=results)
        files = record_files(results)
        assert Counter(record.id for file in files for record in load_records(file)) == Counter(list(undisturbed))
        assert sorted(results.iterdir()) == files, "nothing is left over"
        for record in load_records(results):
            expected = undisturbed[record.id]
            assert [e.dev_loss for e in record.evaluations] == pytest.approx(
                [e.dev_loss for e in expected.evaluations], abs=1e-5
            )
            assert record.outcome is not None
            assert expected.outcome is not None
            assert record.outcome.right_by_row == expected.outcome.right_by_row
        resumed += any(record.cost.resumed for record in load_records(results))
    print(
        f"{moment}: {KILLS} kills, 0 of {KILLS * len(undisturbed)} records lost or doubled;"
        f" {before} were on record by then, {resumed} times a bank went on from its state"
    )
