"""Readers of files take anything: what is not right is an `InputError` of one line, and no other exception.

Each example starts from a good file and damages it: its bytes are cut, flipped or doubled, or a value in it becomes
another one.
"""

import json
import lzma
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from companion.parameters import check_parameters
from cpadapt import InputError, export_to_lora, load_study, load_task, save_adapter
from cpadapt.families import cp
from cpadapt.inputs.backbones.projections import load_projections
from cpadapt.inputs.tasks.specs import load_spec
from cpadapt.records.store import read_lines, records_from_lines
from cpadapt.records.table import tabulate

pytestmark = pytest.mark.slow

EXAMPLES = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([2**63, -(10**30), 10**12])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["", "..", "../x", "~x", "a\0b", "x" * 300, "cp", "lora", "head", "{text}", "(", "none", "1e6"])
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner))


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in JSON-like content."""
    inner: Any = (
        content.items() if isinstance(content, dict) else enumerate(content if isinstance(content, list) else ())
    )
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


@st.composite
def damaged(draw: st.DrawFn, content: Any) -> Any:
    """Content in which one or two values are others, lost, or under another name."""
    content = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, 2))):
        if not (there := [place for place in places(content) if place]):
            break
        *path, last = draw(st.sampled_from(there))
        at = content
        for key in path:
            at = at[key]
        what = draw(st.sampled_from(["other", "other", "lost", "renamed"]))
        if what == "other":
            at[last] = draw(VALUES)
        elif isinstance(at, dict):
            value = at.pop(last)
            if what == "renamed":
                at[draw(st.text(max_size=8))] = value
    return content


@st.composite
def corrupted(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes that are cut, flipped, doubled or others."""
    at = draw(st.integers(0, len(content)))
    match draw(st.sampled_from(["cut", "flip", "insert", "double", "other"])):
        case "cut":
            return content[:at]
        case "flip":
            return (
                content[:at]
                + bytes(byte ^ draw(st.integers(1, 255)) for byte in content[at : at + 1])
                + content[at + 1 :]
            )
        case "insert":
            return content[:at] + draw(st.binary(max_size=8)) + content[at:]
        case "double":
            return content[:at] + content[max(0, at - draw(st.integers(1, 40))) :]
        case _:
            return draw(st.binary(max_size=64))


def as_toml(value: Any) -> str:
    """A value as TOML has it, in one line; what TOML cannot hold as a text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(as_toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{as_toml(str(key))} = {as_toml(entry)}' for key, entry in value.items())}}}"
    return json.dumps(str(value)).replace("\x7f", "\\u007f")


def toml_of(table: dict[str, Any]) -> bytes:
    text = "".join(f"{as_toml(str(key))} = {as_toml(value)}\n" for key, value in table.items())
    return text.encode(errors="replace")


def survives(read: Callable[[], object]) -> None:
    """Reads something damaged; an `InputError` of one line is all that may come of it."""
    try:
        read()
    except InputError as error:
        said = str(error)
    else:
        return
    assert len(said.splitlines()) == 1


STUDY: dict[str, Any] = {
    "name": "small", "backbone": "tiny", "tasks": ["toy-sentiment"], "seeds": [0, 1], "data_seeds": "0-1",
    "order_seeds": [3], "target_modules": ["q_proj"], "about": "",
    "ladder": {"head": True, "budgets": [500], "sizes": {"cp": [1, 2]}, "pairs": [{"cp": 1, "lora": 1}]},
    "families": {
        "cp": {"learning_rates": [1e-3], "scale": 4.0, "options": {"raw_norm": 1.0, "tensor_shape": {"32": [4, 8]}}},
        "lora": {"settings": [{"learning_rate": 1e-3, "warmup_steps": 1}]},
    },
    "protocol": {"steps": 4, "eval_every": 2, "clip": "none", "readout": "verbalizer", "warmup_steps": 1},
    "teachers": [{"family": "melora", "norm": 0.1, "size": 2, "minis": 2}],
}  # fmt: skip


def expand(file: Path) -> None:
    study = load_study(file)
    # Only what needs no network and no weights.
    if study.backbone == "tiny":
        study.runs(load_projections(study.backbone, study.target_modules))


def test_the_good_study_is_good(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_bytes(toml_of(STUDY))
    assert tomllib.loads((tmp_path / "s.toml").read_text()) == STUDY
    expand(tmp_path / "s.toml")


@EXAMPLES
@given(data=st.data())
def test_study_files(data: st.DataObject, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_bytes(data.draw(corrupted(toml_of(STUDY)) | damaged(STUDY).map(toml_of)))
    survives(lambda: expand(file))


TASK: dict[str, Any] = {
    "name": "mine", "path": "data", "text_columns": ["text", "question"], "label_column": "label", "labels": [0, 1],
    "label_names": ["bad", "good"], "prompt": "{text} {question}", "label_words": [" bad", " good"],
    "shorten": "text", "train_split": "train", "eval_split": "validation", "rest_min_words": 1, "rest_apart_words": 2,
    "title": "Mine", "source_group": "mine",
}  # fmt: skip
ROWS = [{"text": f"some text {k}", "question": "is it good ?", "label": k % 2} for k in range(12)]


def as_json_lines(rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def read_task(file: Path) -> None:
    spec = load_spec(file)
    if spec.path is not None and Path(spec.path).is_dir():
        load_task(spec, caps=(4, 2, None, 2))


@pytest.fixture
def task(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_bytes(as_json_lines(ROWS))
    (tmp_path / "data" / "validation.jsonl").write_bytes(
        as_json_lines(row | {"text": f"other {row['text']}"} for row in ROWS)
    )
    (tmp_path / "mine.toml").write_bytes(toml_of(TASK))
    read_task(tmp_path / "mine.toml")
    return tmp_path


@EXAMPLES
@given(data=st.data())
def test_task_files(data: st.DataObject, task: Path) -> None:
    (task / "mine.toml").write_bytes(data.draw(corrupted(toml_of(TASK)) | damaged(TASK).map(toml_of)))
    survives(lambda: read_task(task / "mine.toml"))


CSV = ("text,question,label\n" + "".join(f"{r['text']},{r['question']},{r['label']}\n" for r in ROWS)).encode()


@EXAMPLES
@given(data=st.data(), ending=st.sampled_from([".jsonl", ".jsonl", ".jsonl.xz", ".csv"]))
def test_rows(data: st.DataObject, ending: str, task: Path) -> None:
    good = {".jsonl": as_json_lines(ROWS), ".jsonl.xz": lzma.compress(as_json_lines(ROWS)), ".csv": CSV}[ending]
    damage = corrupted(good)
    if ending == ".jsonl":
        damage |= damaged(ROWS).map(lambda rows: as_json_lines(rows if isinstance(rows, list) else [rows]))
    for file in (task / "data").glob("train*"):
        file.unlink()
    (task / "data" / f"train{ending}").write_bytes(data.draw(damage))
    survives(lambda: read_task(task / "mine.toml"))


def recorded() -> list[bytes]:
    """A draw and a record of each of two studies, an old one and one with margins."""
    results = Path(__file__).parents[1] / "results"
    lines = []
    for study in ("small-tiny", "size-zero-shot"):
        file = min((results / study).glob("*.jsonl.xz"))
        lines += [line.encode() for line in read_lines(file)[:2]]
    return lines


LINES = recorded()


def use(lines: list[str]) -> None:
    """Reads records and asks them all that tables and statistics ask."""
    records = list(records_from_lines(lines))
    tabulate(records)
    for record in records:
        for outcome in (record.outcome, record.dev, record.rest):
            if outcome is not None:
                assert len(outcome.right_by_row) == outcome.total
                assert outcome.margin is None or len(outcome.margin) == outcome.total
                assert outcome.label_by_row is None or len(outcome.label_by_row) == outcome.total
                assert (outcome.balanced_accuracy is None) == (outcome.right_by_class is None)


def test_the_good_records_are_good() -> None:
    use([line.decode() for line in LINES])


@EXAMPLES
@given(data=st.data(), which=st.integers(0, len(LINES) - 1))
def test_record_files(data: st.DataObject, which: int) -> None:
    damage = corrupted(LINES[which]) | damaged(json.loads(LINES[which])).map(
        lambda content: json.dumps(content).encode()
    )
    lines = [*LINES[:which], data.draw(damage), *LINES[which + 1 :]]
    survives(lambda: use(b"\n".join(lines).decode(errors="replace").split("\n")))


@EXAMPLES
@given(content=st.binary(max_size=200) | corrupted(lzma.compress(b"\n".join(LINES))), packed=st.booleans())
def test_files_that_may_be_no_records(content: bytes, packed: bool, tmp_path: Path) -> None:
    file = tmp_path / ("a.jsonl.xz" if packed else "a.jsonl")
    file.write_bytes(content)
    survives(lambda: use(read_lines(file)))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    drawn = {f"layers.{layer}.q_proj": cp.init(torch.Generator(), 32, 32, 2, init="normal") for layer in range(2)}
    return save_adapter(tmp_path_factory.mktemp("saved") / "adapter", "cp", 8.0, drawn)


@EXAMPLES
@pytest.mark.filterwarnings("ignore:Unexpected keyword arguments:UserWarning")
@given(data=st.data(), file=st.sampled_from(["adapter_config.json", "adapter_model.safetensors"]))
def test_adapter_folders(data: st.DataObject, file: str, adapter: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(adapter, tmp_path / "adapter", dirs_exist_ok=True)
    good = (folder / file).read_bytes()
    damage = corrupted(good)
    if file.endswith(".json"):
        damage |= damaged(json.loads(good)).map(lambda content: json.dumps(content).encode())
    (folder / file).write_bytes(data.draw(damage))
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    survives(lambda: export_to_lora(folder, tmp_path / "out"))


DECLARED: dict[str, Any] = {
    "task": str | None, "budget": int | str, "minutes": float, "seeds": list[int], "rates": dict[str, list[float]],
}  # fmt: skip


@EXAMPLES
@given(values=st.fixed_dictionaries(dict.fromkeys(DECLARED, VALUES)))
def test_parameters(values: dict[str, Any]) -> None:
    survives(lambda: check_parameters(values | {"In": [], "__annotations__": DECLARED}))
