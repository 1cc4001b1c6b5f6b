"""Bad input: one line that has the bad value and what would be right, at once, with nothing trained or written.

Each row of a table is a mistake, and the words that its message must have: what was given, and what would be right.
"""

import importlib.metadata
import json
import lzma
import re
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from command_line import STUDY, Cli
from safetensors.torch import load_file, save_file

import cpadapt.measure
from companion.parameters import INJECTED, check_parameters
from cpadapt import CPConfig, InputError, Protocol, advice, cli, load_task, save_adapter
from cpadapt.families import cp
from cpadapt.inputs.backbones.loading import build_tiny
from cpadapt.inputs.backbones.specs import BACKBONES
from cpadapt.inputs.tasks.specs import TASKS, TaskSpec

SECONDS = 2
"""The longest that a mistake may take, imports aside."""

TASK = """
name = "mine"
path = "data"
text_columns = ["text"]
label_column = "label"
labels = [0, 1]
label_names = ["bad", "good"]
"""

TRY = shlex.split(
    "try --task toy-sentiment --cell cp:1 --steps 4 --results r --set train_cap=20 --set dev_cap=10 --set eval_cap=10"
)


def rows(split: str = "train", **changes: object) -> list[dict[str, Any]]:
    """Forty good rows of a split, the last with changes."""
    found = [{"text": f"{split} {k} is {('bad', 'good')[k % 2]}", "label": k % 2} for k in range(40)]
    return [*found[:-1], found[-1] | changes]


def as_json_lines(of_rows: Iterable[object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in of_rows)


# What is right, which each mistake changes at one place


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study, a task with its data, a model, an adapter and a file of records, all good."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "small.toml").write_text(STUDY)
    (folder / "mine.toml").write_text(TASK)
    (folder / "data").mkdir()
    for split in ("train", "validation"):
        (folder / "data" / f"{split}.jsonl").write_text(as_json_lines(rows(split)))
    model, tokenizer, _ = build_tiny("tiny")
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    drawn = {f"layers.{layer}.q_proj": cp.init(torch.Generator(), 32, 32, 2, init="normal") for layer in range(2)}
    save_adapter(folder / "adapter", "cp", 8.0, drawn)
    small = next((Path(__file__).parents[1] / "results" / "small-tiny").glob("*.jsonl.xz"))
    (folder / "kept").mkdir()
    lines = lzma.decompress(small.read_bytes()).decode().splitlines()
    (folder / "kept" / "one.jsonl").write_text("\n".join(lines[:2]) + "\n")
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what is good, in which the process is; no training, no network."""
    folder = tmp_path / "place"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CPADAPT_HOME", str(folder / "home"))
    monkeypatch.setenv("HF_HOME", str(folder / "hub"))
    monkeypatch.setattr("cpadapt.bank.trainer.Trainer.train", lambda self: pytest.fail("training began"))
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a network was asked"))
    return folder


def content(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


Refused = Callable[[str | list[str]], str]


@pytest.fixture
def refused(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command line that is a mistake, and returns what it says."""
    call = Cli(monkeypatch, capsys)

    def run(line: str | list[str]) -> str:
        before = content(place)
        began = time.perf_counter()
        ran = call(*(shlex.split(line) if isinstance(line, str) else line))
        took = time.perf_counter() - began
        assert ran.status == 2, ran.err
        assert ran.out == ""
        assert re.fullmatch(r"cpadapt: .*\n", ran.err), "one line"
        assert content(place) == before, "nothing is written"
        assert took < SECONDS
        return ran.err

    return run


def has(message: str, *said: str) -> None:
    for words in said:
        assert words in message


FAMILIES = "known are cp, lokr, lora, melora, symlora"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        # Names that are unknown
        ("stats small.toml", ["'stats'", "'status'"]),
        ("run small.toml --budgt 5", ["--budgt", "--budget"]),
        ("run smal.toml", ["smal.toml", "no such file"]),
        ("run data", ["data", "Is a directory"]),
        ("run small.toml --task toy-readin", ["'toy-readin'", "'toy-reading'"]),
        ("run small.toml --set stepz=5", ["'stepz'", "'steps'"]),
        ("run small.toml --set dtype=float8", ["'float8'", "'bfloat16'"]),
        ([*TRY, "--backbone", "tiny", "--cell", "lorra:1"], ["lorra:1", "'lora'"]),
        ([*TRY, "--backbone", "tiny", "--cell", "peft:vra:1"], ["peft:vra:1", "'peft:vera'"]),
        ([*TRY, "--backbone", "tiny", "--cell", "cp=2"], ["cp=2", "cp:21"]),
        ([*TRY, "--backbone", "tiny", "--learning-rate", "lora=1e-3"], ["lora=1e-3", "among the cells"]),
        ([*TRY, "--backbone", "tiny", "--task", "toy-sentimnt"], ["'toy-sentimnt'", "'toy-sentiment'"]),
        ([*TRY, "--backbone", "tinny"], ["no backbone 'tinny' (did you mean 'tiny'?)"]),
        ("plan --backbone smolm2 --budget 1e6", ["no backbone 'smolm2' (did you mean 'smollm2'?)"]),
        ("plan --backbone ~nobody/x --budget 1e6", ["'~nobody/x'", "not a local folder"]),
        ("plan --backbone '' --budget 1e6", ["''", "not a local folder"]),
        ("plan --backbone mine.toml --budget 1e6", ["'mine.toml'", "it is a file", "a backbone is a folder"]),
        (f"plan --backbone {'a' * 300} --budget 1e6", ["aaa", "not a hub id"]),
        ("backbone smolm2", ["'smolm2'", "'smollm2'"]),
        ("backbone minilm --gguf small.toml", ["'minilm'", "smollm2, qwen-0.5b, qwen-1.5b"]),
        ("plan --backbone tiny --target-modules q_prj --budget 1e6", ["q_prj", "'q_proj'", "down_proj"]),
        # Numbers that are none, negative, absurd, or below a family's smallest
        ("steps 2.5 4", ["'2.5'", "integer"]),
        ("steps 4 four", ["'four'", "integer"]),
        ("steps 0 4", ["0x4", "from 1 to 100,000,000"]),
        ("steps 1e30 7", ["x7", "from 1 to 100,000,000"]),
        ("plan --out 7 --in 1e12 --budget 1e6", ["7x1000000000000", "from 1 to 100,000,000"]),
        ("plan --out 4 --in 4 --layers 1e9 --budget 50", ["--layers 1000000000", "between 1 and 10,000"]),
        ("plan --backbone tiny --budget 1e99", ["'1e99'", "at most 1e+12"]),
        ("plan --backbone tiny --budget 50", ["50 scalars", "lora 224 scalars, cp 92 scalars"]),
        ("run small.toml --budget 1e1", ["budget 10", "lora 224, cp 92"]),
        ("run small.toml --budget -5", ["-5", "0 or more"]),
        ("run small.toml --budget 1e30", ["1000000000", "at most 1,000,000,000,000"]),
        ("run small.toml --set steps=true", ["steps = True", "a number"]),
        ("run small.toml --set steps=-4", ["steps = -4", "a positive integer"]),
        ("run small.toml --set steps=1e30", ["1e+30", "integer"]),
        ("run small.toml --set batch_size=1e12", ["1000000000000", "at most 65,536"]),
        ("run small.toml --set eval_every=3", ["eval_every = 3", "a divisor of steps = 4"]),
        ("run small.toml --set clip=[1]", ["clip = [1]", "a valid number"]),
        ("run small.toml --set beta1=nan", ["beta1 = nan", "a finite number"]),
        ("run small.toml --shard 0/2", ["0/2", "from 1 to the second"]),
        ("run small.toml --shard half", ["'half'", "1/2"]),
        ([*TRY, "--backbone", "tiny", "--steps", "0"], ["--steps 0", "a positive integer"]),
        ([*TRY, "--backbone", "tiny", "--cell", "cp:0"], ["cp:0", "cp:21"]),
        ([*TRY, "--backbone", "tiny", "--cell", "cp:99999"], ["99999 CP components", "at most 1024"]),
        ([*TRY, "--backbone", "tiny", "--cell", "lora:1e9"], ["size 1000000000", "'lora'", "at most 512"]),
        ([*TRY, "--backbone", "tiny", "--seeds", "0-99999999999"], ["0-99999999999", "at most 100,000"]),
        ([*TRY, "--backbone", "tiny", "--seeds", "0-1,1"], ["seeds = [0, 1, 1]", "unique"]),
        ([*TRY, "--backbone", "tiny", "--seeds", "9" * 30], ["9" * 30, "at most 9223372036854775807"]),
        ([*TRY, "--backbone", "tiny", "--seeds", "3-1"], ["3-1", "backwards"]),
        ([*TRY, "--backbone", "tiny", "--learning-rate", "cp=-1"], ["cp=-1", "cp=2e-4"]),
        # Places
        ("run small.toml --results small.toml/r", ["small.toml/r", "small.toml is a file"]),
        ("run small.toml --save small.toml", ["small.toml", "is a file"]),
        ("run small.toml --data-dir nowhere", ["nowhere", "does not exist"]),
        ("run small.toml --data-dir small.toml", ["small.toml", "is a file"]),
        ("run small.toml --device tpu", ["'tpu'", "'cpu'"]),
        ("records migrate nowhere", ["nowhere", "does not exist"]),
        ("records migrate small.toml", ["small.toml, line 1", "not JSON"]),
        ("export nowhere out", ["nowhere", "adapter_config.json"]),
        ("export adapter data", ["data", "not an empty folder"]),
        ("export adapter small.toml/out", ["small.toml/out", "Not a directory"]),
        ("export adapter out --to dora", ["dora", "lora"]),
    ],
    ids=str,
)  # fmt: skip
def test_command_lines(line: str | list[str], said: list[str], refused: Refused) -> None:
    has(refused(line), *said)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_where_there_is_none(refused: Refused) -> None:
    has(refused("run small.toml --device cuda"), "'cuda'", "'cpu'")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        # Fields that are unknown, missing or of another type
        ('name = "small"', 'nmae = "small"', ["name is missing", "nmae", "'name'"]),
        ('name = "small"', 'name = "small"\n__dataclass_self__ = 1', ["__dataclass_self__ is not a known field"]),
        ("head = true", "haed = true", ["ladder.haed", "'head'"]),
        ("steps = 4", "step = 4", ["protocol.step", "'steps'"]),
        ("[protocol]", "[families.cp]\nlearning_rate = 1\n[protocol]", ["cp.learning_rate", "'learning_rates'"]),
        ("[protocol]", "[families.lorra]\n[protocol]", ["'lorra'", "'lora'", FAMILIES]),
        ("cp = [1, 2]", "cpp = [1]", ["'cpp'", "'cp'"]),
        ("[protocol]", "[families.cp]\noptions = {raw_nrm = 1}\n[protocol]", ["'raw_nrm'", "'raw_norm'"]),
        ('tasks = ["toy-sentiment", "toy-reading"]', 'tasks = "toy-sentiment"', ["'toy-sentiment'", "tuple"]),
        ("steps = 4", "steps = 4.5", ["protocol.steps = 4.5", "a valid integer"]),
        ("steps = 4", f"steps = {'9' * 5000}", ["not valid TOML", "5000 digits"]),
        ("steps = 4", f"steps = 4\nclip = 0x{'f' * 6000}", ["clip = a number of thousands of digits"]),
        ("batch_size = 4", "batch_size = true", ["batch_size = True", "a number"]),
        ("[ladder]", "seeds = [true]\n[ladder]", ["seeds = [True]", "a number"]),
        ("[ladder]", "seeds = 3\n[ladder]", ["seeds = 3", "tuple"]),
        ("[protocol]", "[families.cp]\noptions = {raw_norm = 'x'}\n[protocol]", ["'x'", "positive"]),
        ("[protocol]", "[families.cp]\noptions = {tensor_shape = {32 = '48'}}\n[protocol]", ["'48'", "(24, 24)"]),
        ("[protocol]", "[families.cp]\noptions = {tensor_shape = {32 = [4.5, 7]}}\n[protocol]", ["4.5", "(24, 24)"]),
        ("[protocol]", "[families.cp]\noptions = {tensor_shape = {32 = [5]}}\n[protocol]", ["(5,)", "product 32"]),
        # Numbers that cannot be
        ("[ladder]", "seeds = [-1]\n[ladder]", ["seeds = -1", "0 or positive"]),
        ("[ladder]", f"seeds = [{10**20}]\n[ladder]", [f"{10**20}", "at most 9223372036854775807"]),
        ("[ladder]", "seeds = [1, 1]\n[ladder]", ["seeds = [1, 1]", "unique"]),
        ("[ladder]", "seeds = '0-2,1'\n[ladder]", ["[0, 1, 2, 1]", "unique"]),
        ("cp = [1, 2]", "cp = [-1]", ["-1", "a positive integer"]),
        ("cp = [1, 2]", "lora = [999999]", ["999999", "at most 512"]),
        ("cp = [1, 2]", "'peft:vera' = [999999]\n[families.'peft:vera']\nlearning_rates = [1]",
         ["999999", "at most 3072"]),
        ("cp = [1, 2]", "'peft:vera' = [1]\n[families.'peft:vera']\nlearning_rates = [1]\noptions = {d_initial = 'x'}",
         ["'x'", "a positive number"]),
        ("cp = [1, 2]", "'peft:vera' = [1]\n[families.'peft:vera']\nlearning_rates = [1]\nscale = 2",
         ["2.0", "must be 1"]),
        ("cp = [1, 2]", "'peft:vera' = [1]\n[families.'peft:vera']", ["'peft:vera'", "give learning_rates"]),
        ("cp = [1, 2]", "melora = [1]\n[families.melora]\noptions = {minis = 4}", ["not 1", "4 or more"]),
        ("cp = [1, 2]", "melora = [6]\n[families.melora]\noptions = {minis = 3}", ["3 minis", "do not divide"]),
        ("cp = [1, 2]", "lokr = [9]\n[families.lokr]", ["rank 9", "at most 1"]),
        ("cp = [1, 2]", "symlora = [1]\n[families.symlora]", ["16x32", "not square"]),
        ("[protocol]", "[families.melora]\noptions = {minis = 0}\n[families.cp]\n[protocol]",
         ["minis", "a positive integer, not 0"]),
        ("[protocol]", "[families.cp]\nlearning_rates = [inf]\n[protocol]", ["= inf", "a finite number"]),
        ("[protocol]", "[families.cp]\nlearning_rates = [0]\n[protocol]", ["learning_rate = 0.0", "positive"]),
        ("dev_cap = 10", "dev_cap = 4000", ["4000", "lower the dev cap"]),
        # Nothing where there should be something
        ("head = true\n[ladder.sizes]\ncp = [1, 2]", "budgets = [9]", ["budget 9", "lora 224, cp 92"]),
        ("cp = [1, 2]", "cp = []", ["ladder.sizes.cp is empty", "at least one size"]),
        ("head = true", "pairs = [{}]", ["a pair on the ladder is empty", "{lora = 1, cp = 11}"]),
        ("[ladder]", "target_modules = []\n[ladder]", ["target_modules is empty", "q_proj"]),
        ("[ladder]", "target_modules = ['q_prj']\n[ladder]", ["q_prj", "'q_proj'"]),
        (STUDY, "", ["name is missing", "ladder is missing"]),
        # Names that lead elsewhere
        ('name = "small"', 'name = "../small"', ["'../small'", "use letters, digits"]),
        ('"toy-reading"', '"../nowhere.toml"', ["../nowhere.toml", "No such file"]),
        ('"toy-reading"', r'"a\u0000.toml"', [r"a", "null byte"]),
        ('backbone = "tiny"', r'backbone = "a\u0000"', [r"'a\x00'", "not a local folder"]),
        ('backbone = "tiny"', 'backbone = "~nobody"', ["'~nobody'", "not a local folder"]),
        # Planted teachers
        ("[protocol]", "[[teachers]]\nfamily = 'cpp'\nnorm = 1\n[protocol]", ["'cpp'", "'cp'"]),
        ("[protocol]", "[[teachers]]\nfamily = 'cp'\nnorm = 1\nsize = 9999\n[protocol]\nreadout = 'verbalizer'",
         ["9999", "at most 1024"]),
        ("[protocol]", "[[teachers]]\nfamily = 'melora'\nnorm = 1\nsize = 3\nminis = 3\n[protocol]\n"
         "readout = 'verbalizer'", ["3 minis", "do not divide"]),
        # What is no TOML
        (STUDY, "[[[", ["small.toml", "not valid TOML"]),
        (STUDY, "a = " + "[" * 5000, ["small.toml", "not valid TOML"]),
    ],
)  # fmt: skip
def test_study_files(old: str, new: str, said: list[str], place: Path, refused: Refused) -> None:
    assert old in STUDY
    (place / "small.toml").write_text(STUDY.replace(old, new, 1))
    has(refused("run small.toml --results r"), *said)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "mine"', 'nmae = "mine"', ["name is missing", "nmae", "'name'"]),
        ('name = "mine"', 'name = "../mine"', ["'../mine'", "letters, digits"]),
        ('path = "data"', 'path = "./dta"', ["'./dta'", "no folder dta"]),
        ('path = "data"', 'path = "~nobody/x"', ["'~nobody/x'", "no folder"]),
        ('path = "data"', 'path = ""', ["path is empty", "a folder or a hub id"]),
        ('path = "data"', 'path = "data"\ntrain_split = "../data/train"', ["'../data/train'", "letters, digits"]),
        ('path = "data"', 'path = "data"\ntrain_split = "trian"', ["trian.jsonl", "it holds none"]),
        ('path = "data"', 'path = "data"\nrest_min_words = true', ["rest_min_words = True", "a number"]),
        ('path = "data"', 'path = "data"\nlabel_words = ["a"]', ["('a',)", "2 different values"]),
        ('path = "data"', 'path = "data"\nprompt = "{txt}"', ["'{txt}'", "{text}"]),
        ('path = "data"', 'grammar = "sentimnt"', ["'sentimnt'", "'sentiment'"]),
        ("labels = [0, 1]", "labels = [0, 0]", ["(0, 0)", "different values"]),
        ("labels = [0, 1]", "labels = [0]", ["(0,)", "two or more"]),
        ("labels = [0, 1]", "labels = [0, 2]", ["the label 1", "not one of (0, 2)"]),
        ('["text"]', '["txt"]', ["'txt'", "'text'"]),
        ('["text"]', "[]", ["()", "one column or two"]),
        ('"label"', '"lable"', ["'lable'", "'label'"]),
        (TASK, "name = ", ["mine.toml", "not valid TOML"]),
        (TASK, "", ["mine.toml", "name is missing"]),
    ],
)
def test_task_files(old: str, new: str, said: list[str], place: Path, refused: Refused) -> None:
    assert old in TASK
    (place / "mine.toml").write_text(TASK.replace(old, new, 1))
    has(refused([*TRY, "--backbone", "tiny", "--task", "mine.toml"]), *said)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("train.jsonl", "", ["train.jsonl", "it has no rows"]),
        ("train.jsonl", "\n \n", ["train.jsonl", "it has no rows"]),
        ("train.jsonl", "{bad\n", ["train.jsonl", "line 1 is not JSON"]),
        ("train.jsonl", as_json_lines([*rows(), None]), ["line 41 is None", "an object with a value for each column"]),
        ("train.jsonl", json.dumps(rows()), ["line 1 is [{", "an object with a value for each column"]),
        ("train.jsonl", "[" * 50_000, ["train.jsonl", "line 1 is not JSON"]),
        ("train.jsonl", b'{"text": "caf\xe9", "label": 0}\n', ["train.jsonl", "utf-8"]),
        ("train.jsonl", as_json_lines([row for row in rows() if row["label"]]), ["no example with the label 0"]),
        ("train.jsonl", as_json_lines(rows(label=7)), ["row 39", "the label 7", "(0, 1)"]),
        ("train.jsonl", as_json_lines(rows(label="1")), ["the label '1'", "(0, 1)"]),
        ("train.jsonl", as_json_lines(rows(label=None)), ["the label None", "(0, 1)"]),
        ("train.jsonl", as_json_lines({"text": row["text"]} for row in rows()), ["no column 'label'", "are text"]),
        ("train.jsonl", as_json_lines([*rows(), {"label": 1}]), ["row 40", "None in column 'text'", "a text"]),
        ("train.jsonl", as_json_lines(rows(text=3)), ["row 39", "3 in column 'text'", "a text"]),
        ("train.jsonl", as_json_lines(rows(text=" ")), ["row 39", "' ' in column 'text'", "not empty"]),
        ("train.jsonl", as_json_lines(rows(text="\ud800")), ["row 39", r"'\ud800'", "a text"]),
        ("train.jsonl", as_json_lines(rows()[:4]), ["4 distinct examples", "lower the dev cap"]),
        ("train.jsonl.xz", lzma.compress(as_json_lines(rows()).encode())[:-20], ["train.jsonl.xz", "ended before"]),
        ("train.jsonl.xz", b"no xz", ["train.jsonl.xz", "format not supported"]),
        ("train.csv", "text,label\n", ["train.csv", "it has no rows"]),
        ("train.csv", "text,label\na,0\nb,1,2\n", ["train.csv", "Expected 2 fields in line 3, saw 3"]),
        ("train.parquet", b"PAR1", ["train.parquet", "smaller than the minimum"]),
        ("train.txt", "", ["one of train.jsonl", "it holds none"]),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_rows(name: str, data: str | bytes, said: list[str], place: Path, refused: Refused) -> None:
    (place / "data" / "train.jsonl").unlink()
    (place / "data" / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    has(refused([*TRY, "--backbone", "tiny", "--task", "mine.toml"]), *said)


LONG = "a word and " * 5000
"""More than 50,000 characters."""


def test_a_long_text_that_may_not_be_shortened(place: Path, refused: Refused) -> None:
    (place / "data" / "train.jsonl").write_text(
        as_json_lines({**row, "question": LONG if k == 5 else "which ?"} for k, row in enumerate(rows()))
    )
    (place / "data" / "validation.jsonl").write_text(
        as_json_lines({**row, "question": "which ?"} for row in rows("validation"))
    )
    (place / "mine.toml").write_text(TASK.replace('["text"]', '["text", "question"]') + 'shorten = "text"\n')
    said = refused([*TRY, "--backbone", "tiny", "--task", "mine.toml", "--set", "train_cap=40"])
    assert re.search(r"row 5 .* has 5\d{4} tokens, of which 'text' can lose \d+: a max_length of 1024 is too", said)


# Folders of models


def edited(name: str, **changes: object) -> Callable[[Path], None]:
    """Changes values in a JSON file of a folder; those that become `None` are left out."""

    def change(folder: Path) -> None:
        values = json.loads((folder / name).read_text()) | changes
        (folder / name).write_text(json.dumps({key: value for key, value in values.items() if value is not None}))

    return change


def written(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


def with_longest(value: object) -> Callable[[Path], None]:
    """A model folder whose tokenizer takes so many tokens."""

    def change(folder: Path) -> None:
        path = folder / "tokenizer_config.json"
        config = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(config | {"model_max_length": value}))

    return change


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def cut(name: str, size: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size]) and None


def pickled(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        torch.save(load_file(folder / old), folder / new)
        (folder / old).unlink()

    return change


def tensors(file: str, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    return lambda folder: save_file(change(load_file(folder / file)), folder / file, {"format": "pt"})


def with_code(name: str, model_type: str) -> Callable[[Path], None]:
    """A model that names classes in a file of its own, which leaves a trace when it is run."""

    def change(folder: Path) -> None:
        edited(name, auto_map={"AutoConfig": "own.Own", "AutoTokenizer": ["own.Own", None]})(folder)
        edited("config.json", model_type=model_type)(folder)
        (folder / "own.py").write_text("from pathlib import Path\nPath('ran').touch()\nclass Own: pass\n")

    return change


MANIFEST = {"source": {"kind": "local", "name": "x", "revision": None, "sha256": None}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("model.safetensors"), ["'model' has no weights", "model*.safetensors"]),
        (pickled("model.safetensors", "pytorch_model.bin"), ["only pickled weights", "safetensors"]),
        (cut("model.safetensors", 60_000), ["model.safetensors", "damaged or cut off", "get it again"]),
        (cut("model.safetensors", 0), ["model.safetensors", "damaged or cut off"]),
        (tensors("model.safetensors", lambda state: {k: v * torch.nan for k, v in state.items()}), ["not finite"]),
        (tensors("model.safetensors", lambda state: {k: v for k, v in state.items() if "0.self_attn.q" not in k}),
         ["lack 1 tensors", "layers.0.self_attn.q_proj"]),
        (without("config.json"), ["config.json of 'model'", "model_type"]),
        (written("config.json", "{"), ["config.json of 'model'", "not a valid JSON"]),
        (edited("config.json", model_type="lama"), ["config.json of 'model'", "lama"]),
        (edited("config.json", hidden_size="a"), ["'hidden_size' expected int", "'a'"]),
        (edited("config.json", hidden_size=-32), ["config.json of 'model'", "negative dimension -32"]),
        (edited("config.json", hidden_size=64), ["(259, 32) in the files", "(259, 64) in the model"]),
        (edited("config.json", num_attention_heads=0), ["config.json of 'model'", "zero"]),
        (edited("config.json", hidden_act="nope"), ["config.json of 'model'", "KeyError('nope')"]),
        (written("model.safetensors.index.json", "{}"), ["model.safetensors.index.json", "which file has each"]),
        (written("model.safetensors.index.json", '{"weight_map": {"a": "../x"}}'), ["lacks ../x", "a part of"]),
        (without("tokenizer.json"), ["the tokenizer of 'model' cannot be read"]),
        (written("tokenizer.json", "{}"), ["the tokenizer of 'model' cannot be read"]),
        (written("tokenizer_config.json", "[]"), ["the tokenizer of 'model' cannot be read"]),
        (with_longest("512"), ["the tokenizer of 'model' cannot be read", "model_max_length = '512'", "positive"]),
        (with_longest([]), ["the tokenizer of 'model' cannot be read", "model_max_length = []", "positive"]),
        (with_longest(0), ["the tokenizer of 'model' cannot be read", "model_max_length = 0", "positive"]),
        (with_code("config.json", "of_my_own"), ["code of its own", "own.Own", "cpadapt runs none"]),
        (written("cpadapt.json", "{"), ["cpadapt.json in 'model'", "run `cpadapt backbone model`"]),
        (written("cpadapt.json", "{}"), ["files is missing", "run `cpadapt backbone model`"]),
        (written("cpadapt.json", json.dumps(
            MANIFEST | {"files": {"../small.toml": {"sha256": "", "size": 0, "changed": 0}}}
        )), ["'../small.toml'", "outside the folder"]),
    ],
)  # fmt: skip
def test_model_folders(change: Callable[[Path], None], said: list[str], place: Path, refused: Refused) -> None:
    change(place / "model")
    has(refused([*TRY, "--backbone", "model"]), *said)
    assert not Path("ran").exists()


def test_code_beside_a_known_architecture_is_never_run(place: Path) -> None:
    with_code("config.json", "llama")(place / "model")
    cpadapt.load_backbone(str(place / "model"))
    with_code("tokenizer_config.json", "llama")(place / "model")
    cpadapt.load_backbone(str(place / "model"))
    assert not Path("ran").exists()


def test_a_tokenizer_of_another_model(place: Path, refused: Refused) -> None:
    tensors("model.safetensors", lambda state: state | {"embed_tokens.weight": state["embed_tokens.weight"][:50]})(
        place / "model"
    )
    edited("config.json", vocab_size=50)(place / "model")
    has(refused([*TRY, "--backbone", "model"]), "the tokenizer of 'model'", "the model has 50 tokens")


def test_a_gguf_file_of_another_model(place: Path, refused: Refused) -> None:
    writer = gguf.GGUFWriter(str(place / "other.gguf"), "llama")
    writer.add_block_count(1)
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    package = BACKBONES["smollm2"].package
    assert package is not None
    has(refused("backbone smollm2 --gguf other.gguf"), "other.gguf", f"should be {package.file}", package.sha256)
    has(refused("plan --backbone other.gguf --budget 1e6"), "'other.gguf'", "--gguf FILE")


# Folders of adapters

Q = "base_model.model.layers.0.q_proj.cp_adapter."
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def with_tensor(name: str, tensor: torch.Tensor) -> Callable[[Path], None]:
    return tensors(WEIGHTS, lambda state: state | {Q + name: tensor})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without(CONFIG), ["adapter", "no adapter_config.json"]),
        (pickled(WEIGHTS, "adapter_model.bin"), ["no adapter_model.safetensors", "adapter_model.bin is pickled"]),
        (written(CONFIG, "{"), ["adapter cannot be read"]),
        (written(CONFIG, "[" * 50_000), ["adapter cannot be read"]),
        (written(CONFIG, "[]"), ["type None", "only CP"]),
        (edited(CONFIG, peft_type="LORA"), ["type LORA", "only CP"]),
        (edited(CONFIG, num_components=None), ["no num_components"]),
        (edited(CONFIG, num_components="2"), ["'2'", "a positive integer"]),
        (edited(CONFIG, num_components=0), ["not 0", "a positive integer"]),
        (edited(CONFIG, components_pattern=[1]), ["[1]", "map names to sizes"]),
        (edited(CONFIG, components_pattern={"(": 2}), ["'('", "a valid regular expression"]),
        (edited(CONFIG, scale="8"), ["'8'", "a positive number"]),
        (edited(CONFIG, scale=True), ["True", "a positive number"]),
        (edited(CONFIG, scale=1e39), ["1e+39", "not finite"]),
        (edited(CONFIG, tensor_shape={"32": [5, 5]}), ["(5, 5)", "product 32"]),
        (edited(CONFIG, tensor_shape={"32": [2, 16]}), ["'up_0': (2, 4)", "must be {'up_0': (2, 2)"]),
        (edited(CONFIG, target_modules=3), ["not 3", "a list of names"]),
        (edited(CONFIG, layers_to_transform=["a"]), ["['a']", "an index or a list of them"]),
        (edited(CONFIG, task_type="NOPE"), ["'NOPE'", "CAUSAL_LM"]),
        (cut(WEIGHTS, 700), ["adapter cannot be read", "header"]),
        (tensors(WEIGHTS, lambda state: {}), ["adapter is not sound", "no CP tensors"]),
        (tensors(WEIGHTS, lambda state: {k: v for k, v in state.items() if k != Q + "weight"}),
         ["layers.0.q_proj", "a weight [components]"]),
        (tensors(WEIGHTS, lambda state: {k: v for k, v in state.items() if k != Q + "up_0"}),
         ["layers.0.q_proj", "must be {'up_0'"]),
        (with_tensor("wieght", torch.ones(2)), ["cp_adapter.wieght"]),
        (with_tensor("up_0", torch.ones(2, 4, 2)), ["[2, 4, 2]", "vectors [components, mode]"]),
        (with_tensor("up_0", torch.ones(3, 4)), ["[3, 4]", "vectors [components, mode]"]),
        (with_tensor("up_0", torch.ones(2, 4, dtype=torch.int64)), ["torch.int64", "real numbers"]),
        (with_tensor("up_0", torch.full((2, 4), torch.nan)), ["NaN", "up_0"]),
        (with_tensor("up_0", torch.ones(0, 4)), ["empty", "up_0"]),
    ],
)  # fmt: skip
def test_adapter_folders(change: Callable[[Path], None], said: list[str], place: Path, refused: Refused) -> None:
    change(place / "adapter")
    has(refused("export adapter out"), *said)


# Files of records


def in_record(*path: str | int, to: object) -> Callable[[str], str]:
    """Changes one value of a record."""

    def change(line: str) -> str:
        record = json.loads(line)
        at = record
        for part in path[:-1]:
            at = at[part]
        at[path[-1]] = to
        return json.dumps(record)

    return change


DRAW, RECORD = 0, 1


@pytest.mark.parametrize(
    ("line", "change", "said"),
    [
        (RECORD, lambda line: line[:-40], ["not JSON"]),
        (RECORD, lambda line: "[" * 50_000, ["not JSON"]),
        (RECORD, lambda line: "9" * 5000, ["not JSON: number out of range at column 4302"]),
        (RECORD, lambda line: "null", ["None", "a dictionary"]),
        (RECORD, in_record("schema", to=3), ["schema = 3", "schema 2"]),
        (RECORD, in_record("schema", to=1), ["schema = 1", "cpadapt records migrate"]),
        (RECORD, in_record("idd", to="x"), ["idd", "'id'"]),
        (RECORD, in_record("id", to=3), ["id = 3", "a valid string"]),
        (RECORD, in_record("config", "size", to="x"), ["config.size = 'x'", "integer"]),
        (RECORD, in_record("config", "family", to="lorra"), ["'lorra'", "'lora'"]),
        (RECORD, in_record("config", "protocol", "steps", to=True), ["steps = True", "a number"]),
        (RECORD, in_record("data_fingerprint", to=[]), ["comes before its draw"]),
        (RECORD, in_record("data", to={}), ["data.sets = None", "the summary"]),
        (RECORD, in_record("outcome", to=[]), ["outcome = []", "a dictionary"]),
        (RECORD, in_record("outcome", "total", to=10**18), [f"of {10**18} items", "does not agree"]),
        (RECORD, in_record("outcome", "correct", to=-1), ["-1 correct", "does not agree"]),
        (RECORD, in_record("outcome", "right", to="AAAA"), ["does not agree"]),
        (RECORD, in_record("outcome", "right", to="!"), ["does not agree"]),
        (RECORD, in_record("outcome", "right", to=None), ["margins or right"]),
        (RECORD, in_record("evaluations", 0, "dev_total", to=0), ["of 0 dev examples"]),
        (RECORD, in_record("best_step", to=77), ["best_step = 77", "the step of an evaluation"]),
        (RECORD, in_record("cost", "bank_runs", to=0), ["bank_runs = 0", "a positive integer"]),
        (DRAW, lambda line: '{"draw": 3}', ["draw = 3", "a dictionary"]),
        (DRAW, in_record("draw", "fingerprint", to=[]), ["draw.fingerprint = []", "a valid string"]),
        (DRAW, in_record("draw", "sets", to=[1]), ["draw.sets = [1]", "a valid dictionary"]),
        (DRAW, in_record("draw", "sets", "eval", "rows", to=0), ["from 0 rows", "does not agree"]),
    ],
)
def test_record_files(line: int, change: Callable[[str], str], said: list[str], place: Path, refused: Refused) -> None:
    file = place / "kept" / "one.jsonl"
    lines = file.read_text().splitlines()
    lines[line] = change(lines[line])
    file.write_text("\n".join(lines))
    message = refused("status small.toml --results kept")
    assert re.search(r"kept/one\.jsonl, line [12]: ", message)
    has(message, *said)


def test_records_that_are_no_text(place: Path, refused: Refused) -> None:
    (place / "kept" / "one.jsonl").write_bytes(b"\xff\xfe")
    has(refused("status small.toml --results kept"), "kept/one.jsonl", "not UTF-8")


# Papermill's parameters

DECLARED: dict[str, Any] = {
    "task": str, "budget": int, "minutes": float | None, "seeds": list[int], "rates": dict[str, list[float]],
    "protocol": dict,
}  # fmt: skip


def injected(text: str) -> dict[str, Any]:
    """The names of a notebook into which papermill put this line."""
    namespace: dict[str, Any] = {
        "task": "sst2", "budget": 5, "minutes": None, "seeds": [0], "rates": {}, "protocol": {},
        "In": [f"{INJECTED}\n{text}\n"], "__annotations__": DECLARED,
    }  # fmt: skip
    exec(text, namespace)
    return namespace


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tsak = 'rte'", ["'tsak'", "'task'"]),
        ("zzz = 1", ["'zzz'", "task, budget"]),
        ("task = 5", ["task = 5", "str"]),
        ("budget = 2.5", ["budget = 2.5", "int"]),
        ("budget = 'many'", ["budget = 'many'", "int"]),
        ("budget = True", ["budget = True", "int"]),
        ("minutes = float('nan')", ["minutes = nan", "float"]),
        ("seeds = '0-2'", ["seeds = '0-2'", "list[int]"]),
        ("seeds = [0, True]", ["seeds = [0, True]", "list[int]"]),
        ("rates = {'cp': 1e-3}", ["rates = {'cp': 0.001}", "dict[str, list[float]]"]),
        ("protocol = ['steps']", ["protocol = ['steps']", "dict"]),
    ],
)
def test_parameters(text: str, said: list[str]) -> None:
    with pytest.raises(InputError) as error:
        check_parameters(injected(text))
    has(str(error.value), *said)


# Python

AdapterSettings = dict[str, Any]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Protocol(stepz=5), ["stepz", "'steps'"]),
        (lambda: Protocol(steps="many"), ["steps = 'many'", "integer"]),
        (lambda: Protocol(clip=True), ["clip = True", "a number"]),
        (lambda: TaskSpec(**{"name": "x"}), ["text_columns is missing", "labels is missing"]),
        (lambda: CPConfig(num_components=2.5), ["2.5", "a positive integer"]),
        (lambda: CPConfig(num_components=1, target_modules=["q", 3]), ["['q', 3]", "a list of names"]),
        (lambda: CPConfig(num_components=1, target_modules="q_proj("), ["'q_proj('", "a valid regular expression"]),
        (lambda: load_task(TASKS["toy-sentiment"], caps=(0, 1, 1)), ["(0, 1)", "positive integers"]),
        (lambda: advice.plan("toy-sentiment", "tiny", 5), ["5 runs", "are 21"]),
        (lambda: advice.plan("toy-sentiment", "tiny", 30, draws=1), ["draws = 1", "2 or more"]),
        (lambda: advice.plan("toy-sentiment", "tiny", 10**9), [f"{10**9} runs", "at most 100,000"]),
        (lambda: advice.advise([]), ["the head alone", "are missing"]),
        (lambda: advice.runs_within(5, []), ["no runs"]),
        (lambda: advice.runs_within(-1, []), ["minutes = -1", "positive"]),
    ],
)
def test_in_python(make: Callable[[], object], said: list[str]) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert "\n" not in str(error.value)
    has(str(error.value), *said)


@pytest.mark.parametrize(
    ("package", "other", "works"),
    [
        ("torch", "2.9.1", ">=2.10"),
        ("transformers", "5.24.0", "<5.24"),
        ("transformers", "4.57.1", ">=5.17"),
        ("peft", "0.20.0", ">=0.21"),
        ("datasets", "3.0.0", ">=5.2"),
        ("pydantic", "1.10.0", ">=2.11"),
    ],
)
def test_other_versions_than_cpadapt_works_with(
    package: str, other: str, works: str, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "cpadapt.versions.version", lambda name: other if name == package else importlib.metadata.version(name)
    )
    for line in ("run small.toml", "export adapter out"):
        has(refused(line), f"{package} {other} is installed", works, f"pip install '{package}")
    with pytest.raises(InputError, match=f"{package} {other}"):
        cpadapt.train(cpadapt.load_study("small.toml"))


# What looks wrong and is right


@pytest.mark.parametrize(
    "line",
    [
        "steps 2e3 2048",
        "plan --out 1e3 --in 1_000 --layers 1e1 --budget 1e6",
        "plan --backbone model --target-modules q_proj --budget 1e4",
        "status small.toml --results nowhere",
        "export adapter out",
    ],
)
@pytest.mark.usefixtures("place")
def test_whole_numbers_may_be_written_as_people_do(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["cpadapt", *shlex.split(line)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code or 0, capsys.readouterr().err) == (0, "")


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("budget = 1e6", "budget", 1_000_000),
        ("budget = '1e6'", "budget", 1_000_000),
        ("seeds = [0.0, 1e1]", "seeds", [0, 10]),
        ("rates = {'cp': ['4e-3', 1]}", "rates", {"cp": [0.004, 1]}),
        ("minutes = '2.5'", "minutes", 2.5),
        ("task = '1e6'", "task", "1e6"),
    ],
)
def test_parameters_may_be_written_as_people_do(text: str, name: str, value: object) -> None:
    namespace = injected(text)
    check_parameters(namespace)
    assert namespace[name] == value
    assert type(namespace[name]) is type(value)


def test_study_and_command_take_whole_floats(place: Path) -> None:
    file = place / "small.toml"
    file.write_text(STUDY.replace("steps = 4", "steps = 4e0").replace("cp = [1, 2]", "cp = [1e0]"))
    asked = cpadapt.load_study(file)
    assert (asked.protocol.steps, asked.ladder.sizes["cp"]) == (4, (1,))
    study = cli._ad_hoc("tiny", "toy-sentiment", ["cp:1e1"], "0", [], None)
    assert study.ladder.sizes["cp"] == (10,)


def test_rows_may_have_more_columns_and_long_texts(place: Path) -> None:
    changed = [row | {"more": k if k % 2 else [k], "text": f"{row['text']} {LONG}"} for k, row in enumerate(rows())]
    (place / "data" / "train.jsonl").write_text("\ufeff" + as_json_lines(changed).replace("\n", "\r\n"))
    task = load_task(cpadapt.inputs.tasks.specs.load_spec("mine.toml"), caps=(20, 10, 10))
    assert min(len(text) for (text,) in task.train.texts) > 50_000
    assert not (task.train.rows[:, None] == task.dev.rows).any()
