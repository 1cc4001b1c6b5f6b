"""The page on a task of one's own: its example, and what it prints."""

from pathlib import Path

import pytest

from companion import your_task
from cpadapt import InputError, load_task
from cpadapt.inputs.tasks.specs import load_spec
from cpadapt.records.store import load_records

RECORDS = Path(__file__).parents[2] / "results" / "small"


def test_the_example_is_a_task_of_short_sentences(tmp_path: Path) -> None:
    file = your_task.write_example(tmp_path / "example")
    data = load_task(load_spec(file), caps=(5000, 100, None))
    assert data.spec.label_names == ("bad", "good")
    texts = [text for part in (data.train, data.dev, data.eval) for (text,) in part.texts]
    assert len(texts) > 1500
    assert max(len(text.split()) for text in texts) == your_task.MOST_WORDS
    # About as many of each class.
    assert data.summary["sets"]["eval"]["majority_rate"] == pytest.approx(0.5, abs=0.05)
    before = file.stat().st_size, data.fingerprint
    assert your_task.write_example(tmp_path / "example") == file
    assert (file.stat().st_size, load_task(load_spec(file), caps=(5000, 100, None)).fingerprint) == before


def test_what_is_plain_lora_already_is_not_exported(tmp_path: Path) -> None:
    by_family = {record.config.family: record for record in load_records(RECORDS)}
    assert your_task.as_lora(by_family["lora"], tmp_path / "trained", tmp_path / "lora") == tmp_path / "trained"
    with pytest.raises(InputError, match="is not a folder with a saved adapter"):
        your_task.as_lora(by_family["cp"], tmp_path / "trained", tmp_path / "lora")
