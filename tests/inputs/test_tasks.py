"""Tasks: specs and their mistakes, the draw of train, dev and eval, and texts as tokens."""

import json
import lzma
import os
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from cpadapt.errors import InputError
from cpadapt.inputs.tasks import examples, specs
from cpadapt.inputs.tasks.encoding import encode, label_tokens
from cpadapt.inputs.tasks.examples import Caps, Examples, load_task
from cpadapt.inputs.tasks.specs import TASKS, TaskSpec, load_spec

PACKAGE = Path(specs.__file__).parent
FILES = sorted((PACKAGE / "bundled").iterdir())
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
real_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no task data at {DATA}")
REAL = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            not (DATA / name).is_dir(),
            reason=f"no data of {name}: put its splits into {DATA / name}, and their facts into manifest.json",
        ),
    )
    for name, spec in TASKS.items()
    if spec.grammar is None
]
GENERATED = [name for name, spec in TASKS.items() if spec.grammar is not None]
PREPARED = Path(os.environ.get("CPADAPT_HOME") or Path(__file__).parents[2] / ".local" / "cpadapt").expanduser()

OWN = TaskSpec(
    name="own",
    text_columns=("text",),
    label_column="label",
    labels=("bad", "good"),
    label_names=("bad", "good"),
)


def write(folder, split, rows, ending=".jsonl"):
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{split}{ending}"
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if ending == ".jsonl":
        file.write_text(lines)
    elif ending == ".jsonl.xz":
        file.write_bytes(lzma.compress(lines.encode()))
    elif ending == ".csv":
        pd.DataFrame(rows).to_csv(file, index=False)
    else:
        pd.DataFrame(rows).to_parquet(file)


def some_rows(word, n):
    return [{"text": f"{word} number {k}", "label": OWN.labels[k % 2]} for k in range(n)]


@pytest.fixture
def own(tmp_path):
    """A spec over a local folder of 40 training and 20 evaluation rows."""
    write(tmp_path / "own", "train", some_rows("train", 40))
    write(tmp_path / "own", "validation", some_rows("eval", 20))
    return replace(OWN, path=str(tmp_path / "own"))


def contents(examples):
    return {tuple(" ".join(text.split()) for text in texts) for texts in examples.texts}


# Specs


def test_each_task_is_one_file_as_a_user_writes_it():
    assert [file.name for file in FILES] == [f"{name}.toml" for name in TASKS]
    for (name, spec), file in zip(TASKS.items(), FILES, strict=True):
        assert spec.name == name
        assert load_spec(name) is spec
        assert load_spec(file) == spec
        assert None not in (spec.prompt, spec.label_words, spec.title)
    assert len({spec.title for spec in TASKS.values()}) == len(TASKS)


def test_a_task_is_added_by_its_file_alone(tmp_path):
    folder = tmp_path / "bundled"
    shutil.copytree(PACKAGE / "bundled", folder)
    (folder / "own.toml").write_text(OWN_TOML)
    assert specs._bundled(folder) == dict(sorted((TASKS | {"own": OWN}).items()))
    quoted = {
        file.name: set(re.findall(r"""["']([\w-]+)["']""", file.read_text())) & TASKS.keys()
        for file in PACKAGE.rglob("*.py")
    }
    assert [name for name, known in quoted.items() if len(known) > 1] == []


# What tasks with records on file declared when these were made.
GLUE = "nyu-mll/glue"
TRUE = '\nDoes this mean that "{%s}" is true? Yes or No?\n'
SAME = '\nDoes this say the same as "{sentence2}"? Yes or No?\n'
MAYBE = '\nDoes this mean that "{sentence_B}" is true? Yes, No, or Maybe?\n'
PAIR_OF_GLUE = ("sentence1", "sentence2")
OPINION = ("label", (0, 1), ("negative", "positive"), "{sentence} It was", (" terrible", " great"))
ENTAILED = ("entailment", "not entailment")
ANSWERED = ("answer", (False, True), ("no", "yes"), "{passage} {question}?", (" No", " Yes"))
DECLARED = {
    "sst2": (GLUE, "sst2", ("sentence",), *OPINION),
    "rte": (GLUE, "rte", PAIR_OF_GLUE, "label", (0, 1), ENTAILED, "{sentence1}" + TRUE % "sentence2", ("Yes", "No")),
    "boolq": ("google/boolq", None, ("passage", "question"), *ANSWERED),
    "sick": (None, None, ("sentence_A", "sentence_B"), "entailment_label", ("ENTAILMENT", "NEUTRAL", "CONTRADICTION"),
             ("entailment", "neutral", "contradiction"), "{sentence_A}" + MAYBE, ("Yes", "Maybe", "No")),
    "mrpc": (GLUE, "mrpc", PAIR_OF_GLUE, "label", (0, 1), ("different", "paraphrase"), "{sentence1}" + SAME,
             ("No", "Yes")),
    "toy-sentiment": (None, None, ("sentence",), *OPINION),
    "toy-entailment": (None, None, ("premise", "hypothesis"), "label", (0, 1), ENTAILED,
                       "{premise}" + TRUE % "hypothesis", ("Yes", "No")),
    "toy-reading": (None, None, ("passage", "question"), *ANSWERED),
}  # fmt: skip


@pytest.mark.parametrize("name", DECLARED)
def test_a_task_with_records_is_declared_as_it_was(name):
    declared = (
        "path",
        "config_name",
        "text_columns",
        "label_column",
        "labels",
        "label_names",
        "prompt",
        "label_words",
    )
    spec = TASKS[name]
    assert tuple(getattr(spec, field) for field in declared) == DECLARED[name]
    assert list(map(type, spec.labels)) == list(map(type, DECLARED[name][4]))
    assert (spec.train_split, spec.eval_split, spec.shorten) == ("train", "validation", None)
    assert spec.grammar == (name.removeprefix("toy-") if name in GENERATED else None)


def test_label_words_follow_the_prompt_with_one_space_or_on_a_new_line():
    for spec in TASKS.values():
        assert all(word.startswith(" ") != spec.prompt.endswith("\n") for word in spec.label_words)


def test_labels_mean_what_their_words_say():
    rte = TASKS["rte"]
    assert (rte.labels[0], rte.label_names[0], rte.label_words[0]) == (0, "entailment", "Yes")
    boolq = TASKS["boolq"]
    assert dict(zip(boolq.labels, boolq.label_words, strict=True)) == {False: " No", True: " Yes"}
    sst2 = TASKS["sst2"]
    assert dict(zip(sst2.labels, sst2.label_words, strict=True)) == {0: " terrible", 1: " great"}
    sick = TASKS["sick"]
    assert dict(zip(sick.labels, sick.label_words, strict=True)) == {
        "ENTAILMENT": "Yes",
        "NEUTRAL": "Maybe",
        "CONTRADICTION": "No",
    }
    for name, meaning in (("mrpc", "paraphrase"), ("qqp", "duplicate")):
        spec = TASKS[name]
        assert (spec.label_names[spec.labels.index(1)], spec.label_words[spec.labels.index(1)]) == (meaning, "Yes")
    for name in ("mr", "cr", "mpqa"):
        assert TASKS[name].label_names == TASKS["sst2"].label_names
        assert TASKS[name].label_words == TASKS["sst2"].label_words
    for name in ("mnli", "qnli"):
        words = dict(zip(TASKS[name].label_names, TASKS[name].label_words, strict=True))
        assert (words["entailment"], words.get("contradiction", words.get("not entailment"))) == ("Yes", "No")


@pytest.mark.parametrize("backbone", ["smollm2", "qwen-0.5b", "qwen-1.5b"])
def test_label_words_are_told_apart_by_their_first_token(backbone):
    if not (PREPARED / backbone / "tokenizer.json").is_file():
        pytest.skip(f"{backbone} is not prepared")
    tokenizer = AutoTokenizer.from_pretrained(PREPARED / backbone)
    for spec in TASKS.values():
        assert len(set(label_tokens(spec, tokenizer))) == len(spec.labels)


def test_tasks_of_one_source_say_so():
    groups = {name: spec.source_group for name, spec in TASKS.items() if spec.source_group is not None}
    assert groups.keys() == {"mr", "sst2", "sst5", "subj"}
    assert len(set(groups.values())) == 1


def test_an_unknown_name_lists_the_known_and_the_nearest():
    with pytest.raises(InputError, match=r"unknown task 'sst' \(did you mean 'sst[25]'\?\).*toy-reading"):
        load_spec("sst")


OWN_TOML = """
name = "own"
text_columns = ["text"]
label_column = "label"
labels = ["bad", "good"]
label_names = ["bad", "good"]
"""


def test_a_toml_file_describes_ones_own_task_beside_its_data(own, tmp_path):
    file = tmp_path / "own.toml"
    file.write_text(OWN_TOML + 'path = "own"\n')
    assert load_spec(file) == own
    assert len(load_task(load_spec(str(file)), caps=(20, 10, 20)).train) == 20


def test_labels_in_toml_keep_their_types(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text(OWN_TOML.replace('["bad", "good"]', "[false, true]", 1))
    assert load_spec(file).labels == (False, True)
    assert all(isinstance(label, bool) for label in load_spec(file).labels)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "is not valid TOML"),
        (OWN_TOML.replace('label_column = "label"', ""), "label_column is missing"),
        (OWN_TOML + "colour = 3", "colour is not a known field"),
        (OWN_TOML + "prompt = 3", "prompt = 3: input should be a valid string"),
        (OWN_TOML + 'path = "./none"', r"has the path '\./none', but there is no folder .*none"),
        (OWN_TOML + 'shorten = "words"', "shorten must be one of the text_columns.*'words'"),
    ],
)
def test_a_wrong_toml_file_says_what_is_wrong(tmp_path, text, message):
    file = tmp_path / "own.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        load_spec(file)
    assert "\n" not in str(error.value)
    assert "own.toml" in str(error.value)


def test_a_missing_toml_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read the task file .*none\.toml: No such file"):
        load_spec(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "a/b"}, "name must be letters"),
        ({"text_columns": ()}, "one column or two"),
        ({"text_columns": ("a", "b", "c")}, "one column or two"),
        ({"text_columns": ("a", "a")}, "one column or two"),
        ({"text_columns": ("label",)}, "must not be one of the text_columns"),
        ({"labels": ("bad",)}, "two or more different"),
        ({"labels": (1, True)}, "two or more different"),
        ({"label_names": ("bad",)}, "label_names must have 2 different values"),
        ({"label_words": (" bad", " bad")}, "label_words must have 2 different values"),
        ({"eval_split": "train"}, "both are 'train'"),
        ({"prompt": "{txt} It was"}, r"prompt must have each of the fields \{text\}"),
        ({"prompt": "{text} {text}"}, r"prompt must have each of the fields \{text\} once"),
        ({"prompt": "{text!r} was"}, r"prompt must have each of the fields \{text\} once"),
        ({"prompt": "{text was"}, r"not a valid str\.format template"),
        ({"prompt": "{text} It was "}, "must not end in a space"),
        ({"grammar": "poem"}, "grammar must be one of sentiment"),
        ({"grammar": "sentiment", "path": "x"}, "exclude each other"),
        ({"rest_min_words": -1}, "rest_min_words must be 0 or a positive integer, not -1"),
        ({"rest_apart_words": 0}, "rest_apart_words must be a positive integer, not 0"),
    ],
)
def test_a_spec_that_fits_no_task_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(OWN, **change)


# Loading


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_tasks_agree_with_their_manifest(name):
    manifest = json.loads((DATA / "manifest.json").read_text())[name]
    if TASKS[name].path is not None:
        assert manifest["hub"] == {"path": TASKS[name].path, "name": TASKS[name].config_name}
    assert TASKS[name].source_group == manifest.get("source_group")
    if "label_names" in manifest:
        assert list(TASKS[name].label_names) == manifest["label_names"]
    task = load_task(TASKS[name], data_dir=DATA, caps=(100_000, 500, 100_000))
    for split, drawn in (("train", (task.train, task.dev)), ("validation", (task.eval,))):
        facts = manifest["files"][f"{split}.jsonl.xz"]
        assert drawn[0].source_size == facts["rows"]
        left_out = facts["rows"] - sum(map(len, drawn))
        source = task.summary["source"]["train" if split == "train" else "eval"]
        assert left_out == source["left_out_repeats"] + source.get("left_out_in_eval", 0)
        for index, label in enumerate(TASKS[name].labels):
            counted = sum(int((part.labels == index).sum()) for part in drawn)
            assert facts["labels"][str(label)] - left_out <= counted <= facts["labels"][str(label)]


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_a_real_row_is_read_with_its_own_label(name):
    spec = TASKS[name]
    with lzma.open(DATA / name / "validation.jsonl.xz", "rt") as file:
        rows = [json.loads(line) for line in file]
    drawn = load_task(spec, data_dir=DATA).eval
    for texts, label, row in zip(drawn.texts, drawn.labels, drawn.rows, strict=True):
        assert texts == tuple(rows[row][column] for column in spec.text_columns)
        assert spec.labels[label] == rows[row][spec.label_column]


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_the_papers_caps_on_real_tasks(name):
    task = load_task(TASKS[name], data_dir=DATA, caps=(1000, 500, 1000, 1000))
    available = {"sst2": 872, "rte": 277, "mrpc": 408, "trec": 500}.get(name, 1000)
    left = {"rte": 988}.get(name, 1000)
    assert (len(task.train), len(task.dev), len(task.eval), len(task.rest)) == (1000, 500, available, left)
    sets = [contents(part) for part in (task.train, task.dev, task.eval, task.rest)]
    assert sum(map(len, sets)) == len(set.union(*sets)) == 1500 + available + left
    json.dumps(task.summary)


@pytest.mark.parametrize("name", GENERATED)
def test_generated_tasks_need_no_folder_and_no_hub(name):
    task = load_task(TASKS[name])
    assert (len(task.train), len(task.dev), len(task.eval)) == (1000, 500, 1000)
    assert task.summary["source"]["train"] == {
        "split": "train",
        "rows": 4000,
        "left_out_repeats": 0,
        "left_out_in_eval": 0,
    }
    assert task.summary["sets"]["eval"]["majority_rate"] < 0.55


def test_the_data_seed_draws_train_and_dev_but_never_eval():
    spec = TASKS["toy-sentiment"]
    one, same, two = (load_task(spec, data_seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.train.rows, same.train.rows)
    assert one.fingerprint == same.fingerprint != two.fingerprint
    assert set(one.train.rows) != set(two.train.rows)
    assert set(one.dev.rows) != set(two.dev.rows)
    np.testing.assert_array_equal(one.eval.rows, two.eval.rows)


def test_rows_are_numbers_in_the_source_in_order(own):
    task = load_task(own, caps=(20, 10, 5))
    for part, word in ((task.train, "train"), (task.dev, "train"), (task.eval, "eval")):
        assert part.texts == tuple((f"{word} number {row}",) for row in part.rows)
        np.testing.assert_array_equal(part.labels, part.rows % 2)
        assert (np.diff(part.rows) > 0).all()
        assert part.labels.dtype == part.rows.dtype == np.int64
    assert (task.train.source_size, task.eval.source_size) == (40, 20)


def test_a_cap_on_eval_changes_neither_train_nor_the_order_of_eval(own):
    few, many = load_task(own, caps=(20, 10, 5)), load_task(own, caps=(20, 10, 15))
    np.testing.assert_array_equal(few.train.rows, many.train.rows)
    assert set(few.eval.rows) < set(many.eval.rows)


def test_caps_above_what_there_is_take_all(own):
    task = load_task(own, caps=Caps(1000, 10, 1000))
    assert (len(task.train), len(task.dev), len(task.eval)) == (30, 10, 20)
    with pytest.raises(InputError, match="40 distinct examples, and a dev cap of 40 leaves none"):
        load_task(own, caps=(1000, 40, 1000))
    with pytest.raises(InputError, match=r"caps on train and dev must be positive integers, not \(0, 10\)"):
        load_task(own, caps=(0, 10, 10))
    with pytest.raises(InputError, match=r"caps on eval and rest must be 0 or positive integers, not \(-1, 0\)"):
        load_task(own, caps=(10, 10, -1))
    with pytest.raises(InputError, match=r"caps on eval and rest must be 0 or positive integers, not \(None, -2\)"):
        load_task(own, caps=(10, 10, None, -2))


def test_eval_may_be_whole_or_empty(own):
    whole, none = load_task(own, caps=(20, 10, None)), load_task(own, caps=(20, 10, 0))
    np.testing.assert_array_equal(whole.eval.rows, np.arange(20))
    assert whole.fingerprint == load_task(own, caps=(20, 10, 1000)).fingerprint != none.fingerprint
    assert (len(none.eval), none.eval.texts, none.eval.source_size) == (0, (), 20)
    assert none.summary["sets"]["eval"] == {"size": 0, "classes": {"bad": 0, "good": 0}, "majority_rate": None}


# Rest


def test_rest_rows_are_what_train_and_dev_leave(own):
    without = load_task(own, caps=(15, 10, 5), data_seed=3)
    assert len(without.rest) == 0
    assert "rest" not in without.summary["sets"]
    drawn = [
        load_task(own, caps=(15, 10, eval_cap, rest), data_seed=3) for eval_cap, rest in ((5, 4), (9, 8), (0, 99))
    ]
    for task, size in zip(drawn, (4, 8, 15), strict=True):
        assert len(task.rest) == task.summary["sets"]["rest"]["size"] == size
        np.testing.assert_array_equal(task.train.rows, without.train.rows)
        np.testing.assert_array_equal(task.dev.rows, without.dev.rows)
        assert task.rest.texts == tuple((f"train number {row}",) for row in task.rest.rows)
        assert task.rest.source_size == 40
    few, more, everything = (set(task.rest.rows) for task in drawn)
    assert few < more < everything
    assert everything | set(without.train.rows) | set(without.dev.rows) == set(range(40))
    other = load_task(own, caps=(15, 10, 5, 4), data_seed=4)
    assert set(other.rest.rows) != few


def is_part(one, other):
    """Whether a text stands in another, by whole words."""
    padded, within = (f" {' '.join(text.split())} " for text in (one, other))
    return padded in within


def touches(text, others, words):
    """Whether it is part of, or around, one of the others that have so many words: a search in all of them."""
    return any(is_part(text, other) or is_part(other, text) for other in others if len(other.split()) >= words)


@pytest.mark.parametrize("apart", [1, 2, 3, 5])
@pytest.mark.parametrize("columns", [("text",), ("text", "other")])
def test_rest_rows_are_apart_from_train_and_dev_as_a_search_in_all_pairs_says(tmp_path, apart, columns):
    rng = np.random.default_rng(apart)
    spec = replace(OWN, text_columns=columns, path=str(tmp_path), rest_min_words=4, rest_apart_words=apart)
    # Phrases of a few sentences, so that many are parts of others, of words that are parts of others by letters.
    words = [first + last for first in "abcdefgh" for last in ("", "a", "b", "ab", "ba", "c")]
    sentences = [rng.choice(words, 10) for _ in range(20)]

    def phrase():
        start, end = sorted(rng.choice(11, 2, replace=False))
        return " ".join(sentences[rng.integers(20)][start:end])

    write(tmp_path, "train", [{c: phrase() for c in columns} | {"label": OWN.labels[k % 2]} for k in range(600)])
    write(tmp_path, "validation", [dict.fromkeys(columns, f"no {k}") | {"label": OWN.labels[k % 2]} for k in range(4)])
    task = load_task(spec, caps=(12, 4, 4, 1000))
    free = load_task(replace(spec, rest_min_words=0, rest_apart_words=None), caps=(12, 4, 4, 1000)).rest
    seen = list(zip(*task.train.texts, *task.dev.texts, strict=True))
    long = [sum(len(text.split()) for text in texts) >= 4 for texts in free.texts]
    near = [
        any(touches(text, others, apart) for text, others in zip(texts, seen, strict=True)) for texts in free.texts
    ]
    assert task.rest.rows.tolist() == free.rows[np.array(long) & ~np.array(near)].tolist()
    assert len(task.rest) > 20
    assert sum(near) > 20


@pytest.mark.slow
@real_data
def test_rest_rows_of_sst2_are_sentences_that_the_run_has_not_seen_in_part():
    spec = TASKS["sst2"]
    assert (spec.rest_min_words, spec.rest_apart_words) == (12, 3)
    caps = Caps(1000, 500, 0, 300)
    task = load_task(spec, data_dir=DATA, caps=caps, data_seed=5)
    seen = [text for part in (task.train, task.dev) for (text,) in part.texts]
    assert all(len(text.split()) >= 12 and not touches(text, seen, 3) for (text,) in task.rest.texts)
    # Every row that the rule passes over, up to the last that is drawn, is near something.
    free = load_task(replace(spec, rest_apart_words=None), data_dir=DATA, caps=caps._replace(rest=350), data_seed=5)
    texts = dict(zip(free.rest.rows.tolist(), (text for (text,) in free.rest.texts), strict=True))
    passed_over = texts.keys() - set(task.rest.rows.tolist())
    order = examples._shuffled(sorted(texts.keys() | set(task.rest.rows.tolist())), "train/5")
    last = max(order.index(row) for row in task.rest.rows)
    passed_over = [row for row in order[:last] if row in passed_over]
    assert len(passed_over) > 10
    assert all(touches(texts[row], seen, 3) for row in passed_over)


@pytest.mark.slow
@real_data
def test_rest_rows_of_mnli_have_premises_of_their_own():
    """As those of eval, whose premises stand nowhere in train."""
    task = load_task(TASKS["mnli"], data_dir=DATA, caps=(1000, 500, 1000, 1000))
    seen = {texts[0].strip() for part in (task.train, task.dev) for texts in part.texts if len(texts[0].split()) >= 3}
    for part in (task.eval, task.rest):
        assert seen.isdisjoint(texts[0].strip() for texts in part.texts)


def test_only_what_decides_the_data_is_in_the_fingerprint(own):
    caps, with_rest = (20, 10, 20), (20, 10, 20, 5)
    here, rested = load_task(own, caps=caps).fingerprint, load_task(own, caps=with_rest).fingerprint
    assert here != rested
    for change in ({"title": "Own"}, {"source_group": "reviews"}):
        assert load_task(replace(own, **change), caps=caps).fingerprint == here
        assert load_task(replace(own, **change), caps=with_rest).fingerprint == rested
    for change in ({"rest_min_words": 1}, {"rest_apart_words": 9}):
        assert load_task(replace(own, **change), caps=caps).fingerprint == here
        assert load_task(replace(own, **change), caps=with_rest).fingerprint != rested
    assert load_task(own, caps=(20, 10, 20, 6)).fingerprint != rested
    assert {field.name for field in fields(TaskSpec)} - set(examples._UNDECLARED) == {
        "name", "text_columns", "label_column", "labels", "label_names", "train_split", "eval_split", "prompt",
        "label_words", "shorten", "grammar",
    }  # fmt: skip


# Reading


def test_files_are_read_once_and_again_when_they_have_changed(own, monkeypatch):
    read = []
    open_file = examples._open_file
    monkeypatch.setattr(examples, "_open_file", lambda file: read.append(file.split) or open_file(file))
    draws = [load_task(own, caps=(20, 10, 5), data_seed=seed) for seed in range(5)]
    assert read == ["train", "validation"]
    assert len({draw.fingerprint for draw in draws}) == 5
    write(Path(own.path), "train", some_rows("another", 40))
    assert load_task(own, caps=(20, 10, 5)).train.texts[0][0].startswith("another")
    assert read == ["train", "validation"] * 2


def test_what_stands_elsewhere_or_twice_is_left_out_by_content(tmp_path):
    evaluation = [*some_rows("eval", 20), {"text": " eval  number 3\n", "label": "good"}]
    training = [
        *some_rows("train", 40),
        {"text": "train\tnumber 0", "label": "bad"},
        {"text": "eval number 7 ", "label": "good"},
        {"text": "eval number 7", "label": "good"},
    ]
    write(tmp_path / "own", "train", training)
    write(tmp_path / "own", "validation", evaluation)
    # Even what a small cap on eval does not draw stays out of train.
    task = load_task(replace(OWN, path=str(tmp_path / "own")), caps=(1000, 10, 2))
    assert set(task.train.rows) | set(task.dev.rows) == set(range(40))
    assert task.summary["source"] == {
        "train": {"split": "train", "rows": 43, "left_out_repeats": 1, "left_out_in_eval": 2},
        "eval": {"split": "validation", "rows": 21, "left_out_repeats": 1},
    }
    assert task.summary["sets"]["dev"]["size"] == 10
    assert sum(task.summary["sets"]["train"]["classes"].values()) == 30


def test_texts_shared_by_pairs_are_counted(tmp_path):
    spec = replace(OWN, text_columns=("passage", "question"), path=str(tmp_path))
    write(tmp_path, "train", [{"passage": "p", "question": f"t{k}", "label": "good"} for k in range(9)]
          + [{"passage": "q", "question": "t", "label": "bad"}])  # fmt: skip
    write(tmp_path, "validation", [{"passage": "p", "question": f"e{k}", "label": "good"} for k in range(4)]
          + [{"passage": "r", "question": "e", "label": "bad"}])  # fmt: skip
    assert load_task(spec, caps=(8, 2, 9)).summary["eval_shares_text"] == {"passage": 4, "question": 0}


@pytest.mark.parametrize("ending", [".jsonl.xz", ".csv", ".parquet"])
def test_every_kind_of_file_gives_the_same_data(own, tmp_path, ending):
    write(tmp_path / "other", "train", some_rows("train", 40), ending)
    write(tmp_path / "other", "validation", some_rows("eval", 20), ending)
    other = replace(own, path=str(tmp_path / "other"))
    caps = (20, 10, 20)
    assert load_task(other, caps=caps).fingerprint == load_task(own, caps=caps).fingerprint


def test_the_fingerprint_knows_the_data_and_the_spec_but_not_the_place(own, tmp_path):
    caps = (20, 10, 20)
    here = load_task(own, caps=caps).fingerprint
    assert load_task(OWN, data_dir=tmp_path, caps=caps).fingerprint == here
    assert load_task(replace(own, prompt="{text} It was"), caps=caps).fingerprint != here
    rows = some_rows("train", 40)
    rows[0]["text"] += "!"
    rows[1]["text"] += "!"
    write(tmp_path / "own", "train", [{**row, "text": row["text"] + "!"} for row in rows])
    assert load_task(own, caps=caps).fingerprint != here


def test_a_csv_text_that_pandas_would_call_missing_is_a_text(tmp_path):
    rows = some_rows("train", 40)
    rows[0]["text"] = "NA"
    write(tmp_path, "train", rows, ".csv")
    write(tmp_path, "validation", some_rows("eval", 20), ".csv")
    task = load_task(replace(OWN, path=str(tmp_path)), caps=(1000, 10, 20))
    assert ("NA",) in task.train.texts + task.dev.texts


def test_loading_leaves_no_trace(own, tmp_path, capfd, monkeypatch):
    cache = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    datasets.enable_progress_bars()
    load_task(own, caps=(20, 10, 20))
    assert not cache.exists()
    assert not datasets.are_progress_bars_disabled()
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def broken(own, split, **changes):
    folder = Path(own.path)
    rows = [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]
    rows[3] |= changes
    write(folder, split, rows)


def test_data_mistakes_name_the_value_and_where_it_stands(own):
    caps = (20, 10, 20)
    cases = [
        ({"label": "fair"}, r"row 3 of the split 'train' of the task 'own' has the label 'fair', which is not one of"),
        (
            {"text": "  "},
            "row 3 of the split 'train' of the task 'own' has '  ' in column 'text', which must be a text",
        ),
        ({"text": None}, "row 3 .* has None in column 'text'"),
        ({"label": None}, "row 3 .* has the label None"),
    ]
    for changes, message in cases:
        broken(own, "train", **changes)
        with pytest.raises(InputError, match=message):
            load_task(own, caps=caps)
        write(Path(own.path), "train", some_rows("train", 40))
    with pytest.raises(InputError, match="no column 'words'; its columns are text, label"):
        load_task(replace(own, text_columns=("words",)), caps=caps)
    with pytest.raises(InputError, match="no example with the label 'fair' in its 40 rows"):
        load_task(replace(own, labels=("bad", "fair", "good"), label_names=("b", "f", "g")), caps=caps)


def test_missing_files_are_named(own, tmp_path):
    with pytest.raises(InputError, match=r"must hold one of test\.jsonl, .*it holds none"):
        load_task(replace(own, eval_split="test"))
    shutil.copy(Path(own.path) / "train.jsonl", Path(own.path) / "train.csv")
    with pytest.raises(InputError, match=r"it holds train\.jsonl and train\.csv"):
        load_task(own)
    with pytest.raises(InputError, match=r"the data folder .*nowhere does not exist"):
        load_task(OWN, data_dir=tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"the folder .*sst2 of the task 'sst2' does not exist"):
        load_task(TASKS["sst2"], data_dir=tmp_path)
    with pytest.raises(InputError, match=r"the folder \./nowhere of the task 'own' does not exist"):
        load_task(replace(OWN, path="./nowhere"))
    with pytest.raises(InputError, match="'toy-reading' has no split 'dev'; its splits are train, validation"):
        load_task(replace(TASKS["toy-reading"], eval_split="dev"))


@pytest.mark.parametrize(("ending", "content"), [(".jsonl", b"{"), (".jsonl.xz", b"no xz"), (".parquet", b"")])
def test_a_damaged_file_is_named(own, ending, content):
    folder = Path(own.path)
    (folder / "train.jsonl").unlink()
    (folder / f"train{ending}").write_bytes(content)
    with pytest.raises(InputError, match=f"cannot read .*train{ending}: ") as error:
        load_task(own)
    assert "\n" not in str(error.value)


def test_without_a_hub_one_sentence_names_the_ways_out(monkeypatch):
    def unreachable(*arguments):
        raise ConnectionError("Couldn't reach 'nyu-mll/glue'\non the Hub (LocalEntryNotFoundError).")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    monkeypatch.setattr(examples, "_read", examples._read.__wrapped__)
    with pytest.raises(InputError) as error:
        load_task(TASKS["sst2"])
    assert str(error.value) == (
        "the task 'sst2' could not be loaded from the hub as nyu-mll/glue (sst2):"
        " Couldn't reach 'nyu-mll/glue' on the Hub (LocalEntryNotFoundError);"
        " pass --data-dir with a folder that holds sst2/train.jsonl.xz and sst2/validation.jsonl.xz,"
        " or use a generated task: toy-entailment, toy-reading, toy-sentiment"
    )
    with pytest.raises(InputError, match="'sick' is not read from the hub; pass --data-dir"):
        load_task(TASKS["sick"])


def test_the_hub_is_asked_by_path_and_configuration(monkeypatch):
    asked = []

    def hub(*arguments):
        asked.append(arguments)
        return datasets.DatasetDict(
            {
                split: datasets.Dataset.from_list(
                    [{"sentence": f"{split} {k}", "label": k % 2, "idx": k} for k in range(30)]
                ).cast_column("label", datasets.ClassLabel(names=["negative", "positive"]))
                for split in ("train", "validation", "test")
            }
        )

    monkeypatch.setattr(datasets, "load_dataset", hub)
    # What a made-up hub gives is not kept for other tests.
    monkeypatch.setattr(examples, "_read", examples._read.__wrapped__)
    task = load_task(TASKS["sst2"], caps=(20, 10, 20))
    assert asked == [("nyu-mll/glue", "sst2")]
    np.testing.assert_array_equal(task.train.labels, task.train.rows % 2)


# Tokens

CORPUS = [
    "the small grammar writes sentences about films and birds near the river .",
    "does this mean that the passage is true ? yes or no ? it was great , it was terrible .",
    "a long passage has many words and the question at its end is never lost .",
] * 4


@pytest.fixture(scope="module")
def wordpiece():
    """BERT's way: lower case, [CLS] and [SEP], token types."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    alphabet = list("abcdefghijklmnopqrstuvwxyz0123456789.,?!'\"-")
    trainer = trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    ids = {token: tokenizer.token_to_id(token) for token in special}
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def byte_level(*, adds_bos):
    """GPT-2's way, and OPT's, which puts `</s>` first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="</s> $A", special_tokens=[("</s>", tokenizer.token_to_id("</s>"))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="</s>", eos_token="</s>")


@pytest.fixture(scope="module")
def bpe():
    return byte_level(adds_bos=False)


PAIR = replace(
    OWN,
    text_columns=("passage", "question"),
    prompt="Read: {passage} Then: {question}?",
    label_words=(" No", " Yes"),
)


def examples_of(*texts, rows=None):
    n = len(texts)
    rows = np.arange(n) if rows is None else np.asarray(rows)
    return Examples(tuple(texts), np.arange(n) % 2, rows, 100)


def split(encoded):
    return [encoded.tokens[a:b].tolist() for a, b in zip(encoded.offsets, encoded.offsets[1:], strict=False)]


LONG = "the first words go . a long passage has many words and these last words stay ."
QUESTION = "does the question stay whole"


def test_pairs_are_encoded_as_the_tokenizer_does_it(wordpiece):
    examples = examples_of(("a film", "it was great"), (LONG, QUESTION), rows=[4, 9])
    encoded = encode(examples, PAIR, wordpiece, prompted=False, max_length=128)
    expected = [wordpiece(*texts) for texts in examples.texts]
    assert split(encoded) == [each["input_ids"] for each in expected]
    assert encoded.token_types.tolist() == [kind for each in expected for kind in each["token_type_ids"]]
    assert encoded.offsets.tolist() == np.cumsum([0, *(len(each["input_ids"]) for each in expected)]).tolist()
    assert encoded.rows.tolist() == [4, 9]
    assert encoded.tokens.dtype == encoded.offsets.dtype == encoded.token_types.dtype == np.int64
    assert len(encoded) == 2


def test_a_prompt_is_filled_with_stripped_texts_and_ends_where_the_word_follows(bpe):
    spec = TASKS["toy-sentiment"]
    encoded = encode(examples_of(("  the film was great . \n",)), spec, bpe, prompted=True, max_length=64)
    assert bpe.decode(encoded.tokens) == "the film was great . It was"
    assert encoded.token_types is None
    for word in spec.label_words:
        whole = bpe("the film was great . It was" + word)["input_ids"]
        assert whole[: len(encoded.tokens)] == encoded.tokens.tolist()
        assert bpe.decode(whole[len(encoded.tokens) :]) == word


def test_a_label_words_first_token_is_the_one_that_comes_after_the_prompt(bpe):
    spec = TASKS["toy-sentiment"]
    for text in ("the film was great .", "a bird ."):
        prompt = bpe(f"{text} It was")["input_ids"]
        first = [bpe(f"{text} It was{word}")["input_ids"][len(prompt)] for word in spec.label_words]
        assert label_tokens(spec, bpe) == first
    assert bpe.decode(label_tokens(TASKS["toy-entailment"], bpe)[0])[0] == "Y"


def test_a_label_word_that_is_no_token_of_its_own_is_refused(bpe):
    # "wa" + "s" is one token, " was".
    merged = replace(TASKS["toy-sentiment"], prompt="{sentence} It wa", label_words=("s great", " terrible"))
    with pytest.raises(InputError, match="'s great' of the task 'toy-sentiment' is not a separate token"):
        label_tokens(merged, bpe)


def test_a_line_break_at_the_prompts_end_stays_and_splits_from_the_word(bpe):
    spec = TASKS["toy-entailment"]
    encoded = encode(examples_of(("a bird .", "a film .")), spec, bpe, prompted=True, max_length=64)
    text = 'a bird .\nDoes this mean that "a film ." is true? Yes or No?\n'
    assert bpe.decode(encoded.tokens) == text
    assert bpe(text + "Yes")["input_ids"][: len(encoded.tokens)] == encoded.tokens.tolist()


def test_a_long_pair_loses_the_front_of_the_shortened_text_only(wordpiece):
    for at, column in enumerate(PAIR.text_columns):
        spec = replace(PAIR, shorten=column)
        whole = wordpiece(LONG, QUESTION)
        sequences = whole.sequence_ids(0)
        encoded = encode(examples_of((LONG, QUESTION)), spec, wordpiece, prompted=False, max_length=len(sequences) - 3)
        lost = [k for k, sequence in enumerate(sequences) if sequence == at][:3]
        assert encoded.tokens.tolist() == np.delete(whole["input_ids"], lost).tolist()
        assert encoded.token_types.tolist() == np.delete(whole["token_type_ids"], lost).tolist()


@pytest.mark.parametrize("trim_offsets", [True, False])
def test_a_long_prompt_loses_the_front_of_the_shortened_text_only(trim_offsets):
    bpe = byte_level(adds_bos=False)
    bpe.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    full = bpe(f"Read: {LONG} Then: {QUESTION}?")["input_ids"]
    for excess in (1, 5, 9):
        encoded = encode(examples_of((LONG, QUESTION)), PAIR, bpe, prompted=True, max_length=len(full) - excess)
        text = bpe.decode(encoded.tokens)
        assert len(encoded.tokens) == len(full) - excess
        assert text.startswith("Read:")
        assert text.endswith(f" these last words stay . Then: {QUESTION}?")
        assert "the first" not in text
        kept = len(bpe("Read:")["input_ids"])
        assert encoded.tokens.tolist() == full[:kept] + full[kept + excess :]
    spec = replace(PAIR, shorten="question")
    encoded = encode(examples_of((QUESTION, LONG)), spec, bpe, prompted=True, max_length=len(full) - 9)
    assert bpe.decode(encoded.tokens).startswith(f"Read: {QUESTION} Then:")
    assert bpe.decode(encoded.tokens).endswith("these last words stay .?")


def test_line_breaks_within_the_shortened_text_are_lost_with_it(bpe):
    examples = examples_of(("one\n\n two \n\n\n three\n four", "why"))
    spec = replace(PAIR, prompt="{passage}\n{question}?")
    longest = len(encode(examples, spec, bpe, prompted=True, max_length=99).tokens)
    shortest = None
    for max_length in range(longest, 0, -1):
        try:
            shortest = encode(examples, spec, bpe, prompted=True, max_length=max_length)
        except InputError:
            break
    assert bpe.decode(shortest.tokens) in ("r\nwhy?", "ur\nwhy?", "our\nwhy?", "four\nwhy?", " four\nwhy?")


@pytest.mark.parametrize("prompted", [True, False])
def test_what_cannot_be_shortened_enough_is_an_error_that_says_what_would_do(bpe, wordpiece, prompted):
    tokenizer = bpe if prompted else wordpiece
    examples = examples_of(("a film", "it was great"), (LONG, QUESTION), rows=[4, 9])
    with pytest.raises(InputError, match=r"row 9 of the task 'own' has .*a max_length of 10 is too small") as error:
        encode(examples_of((LONG, QUESTION), rows=[9]), PAIR, tokenizer, prompted=prompted, max_length=10)
    enough = int(str(error.value).split()[-1])
    encoded = encode(examples, PAIR, tokenizer, prompted=prompted, max_length=enough)
    assert max(np.diff(encoded.offsets)) == enough
    with pytest.raises(InputError, match="row 9"):
        encode(examples, PAIR, tokenizer, prompted=prompted, max_length=enough - 1)


@pytest.mark.parametrize("adds_bos", [True, False])
def test_the_first_token_is_put_there_once(adds_bos):
    tokenizer = byte_level(adds_bos=adds_bos)
    bos = tokenizer.bos_token_id
    examples = examples_of((LONG, QUESTION), ("a", "b"))
    plain = byte_level(adds_bos=False)
    bare = split(encode(examples, PAIR, plain, prompted=True, max_length=99))
    full = split(encode(examples, PAIR, tokenizer, prompted=True, max_length=99, bos_token_id=bos))
    assert full == [[bos, *tokens] for tokens in bare]
    # It counts, and a shortened example keeps it.
    short = encode(examples, PAIR, tokenizer, prompted=True, max_length=len(bare[0]), bos_token_id=bos)
    assert split(short)[0][0] == bos
    assert split(short)[0].count(bos) == 1
    assert len(split(short)[0]) == len(bare[0])
    assert plain.decode(split(short)[0][1:]).endswith(f"stay . Then: {QUESTION}?")


def test_a_tokenizers_own_padding_and_truncation_are_overruled(wordpiece):
    examples = examples_of(("a film", "it was great"), (LONG, QUESTION))
    plain = encode(examples, PAIR, wordpiece, prompted=False, max_length=128)
    wordpiece.backend_tokenizer.enable_truncation(8)
    wordpiece.backend_tokenizer.enable_padding(length=64)
    again = encode(examples, PAIR, wordpiece, prompted=False, max_length=128)
    np.testing.assert_array_equal(again.tokens, plain.tokens)


def test_without_a_prompt_a_decoder_gets_the_texts_on_a_line_each(bpe):
    encoded = encode(examples_of(("a film", "why")), replace(PAIR, prompt=None), bpe, prompted=True, max_length=99)
    assert bpe.decode(encoded.tokens) == "a film\nwhy"


def test_no_examples_are_no_tokens(bpe, wordpiece):
    for tokenizer, prompted in ((bpe, True), (wordpiece, False)):
        some, none = (
            encode(examples_of(*texts), PAIR, tokenizer, prompted=prompted, max_length=99)
            for texts in ([("a film", "why")], [])
        )
        assert (len(none), len(none.tokens), none.offsets.tolist()) == (0, 0, [0])
        assert (none.token_types is None) == (some.token_types is None) == prompted
        assert none.tokens.dtype == none.offsets.dtype == np.int64


def test_a_slow_tokenizer_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(InputError, match="Slow is a slow tokenizer"):
        encode(examples_of(("a",)), OWN, Slow(), prompted=False, max_length=9)


@pytest.mark.slow
@real_data
def test_real_passages_are_shortened_and_their_questions_kept(bpe):
    spec = TASKS["boolq"]
    examples = load_task(spec, data_dir=DATA, caps=(100, 100, 200)).eval
    whole = split(encode(examples, spec, bpe, prompted=True, max_length=100_000))
    questions = [bpe(f" {question.strip()}?")["input_ids"] for _, question in examples.texts]
    max_length = max(map(len, questions)) + 20
    shortened = split(encode(examples, spec, bpe, prompted=True, max_length=max_length))
    assert sum(map(len, whole)) > 2 * sum(map(len, shortened))
    for tokens, full, question in zip(shortened, whole, questions, strict=True):
        assert tokens == full[-len(tokens) :]
        assert tokens[-len(question) :] == question
        assert len(tokens) == min(len(full), max_length)
