"""A task, declared: what a TOML file says of it."""

import dataclasses
import difflib
import re
import string
import tomllib
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from cpadapt.errors import STRICT, InputError, explain
from cpadapt.inputs import generated


@validated(frozen=True, config=STRICT)
class TaskSpec:
    """A text classification task, declared.

    Raises:
        pydantic.ValidationError: a field is missing, unknown, of the wrong type, or does not fit the others
            (`cpadapt.inputs.tasks.specs.load_spec` turns it into an `InputError`).
    """

    name: str
    """Letters, digits, `.`, `_` and `-`; also the task's folder under `data_dir`."""

    text_columns: tuple[str, ...]
    """One column of text or two, in the order in which an encoder sees them."""

    label_column: str
    """The column of the label, none of the texts'."""

    labels: tuple[str | int | bool, ...]
    """The raw values of the label column; a class's index is its position here."""

    label_names: tuple[str, ...]
    """What each class means, for people."""

    path: str | None = None
    """A hub id, or a local folder with one file a split; none for a task that only `data_dir` holds."""

    config_name: str | None = None
    """The hub's name for a configuration of the data set."""

    train_split: str = "train"
    """The source split that train and dev are drawn from."""

    eval_split: str = "validation"
    """The source split that eval is drawn from."""

    prompt: str | None = None
    """A `str.format` template over the text columns, each named once; for decoders."""

    label_words: tuple[str, ...] | None = None
    """How each class's word continues the prompt, its leading space included."""

    shorten: str | None = None
    """The text column that loses its front when an example is too long; the first by default."""

    grammar: str | None = None
    """The grammar that generates the task's examples, instead of a path."""

    title: str | None = None
    """What tables and charts call the task; its name if none."""

    source_group: str | None = None
    """The texts' origin; tasks whose texts share one are not independent of each other."""

    rest_min_words: int = 0
    """The fewest words of a rest row, its texts together."""

    rest_apart_words: int | None = None
    """Where set, none of a rest row's texts is part of, or around, a text of so many words or more that train or dev
    has in the same column, by whole words."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            raise InputError(f"name is letters, digits, '.', '_' and '-', not {self.name!r}")
        if not 1 <= len(self.text_columns) <= 2 or len(set(self.text_columns)) != len(self.text_columns):
            raise InputError(f"text_columns names one column or two different ones, not {self.text_columns}")
        if self.label_column in self.text_columns:
            raise InputError(f"label_column {self.label_column!r} is one of the text_columns")
        # 1 and True are one value to Python, and to the look-up of a label.
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise InputError(f"labels lists two or more different values, not {self.labels}")
        for field, values in (("label_names", self.label_names), ("label_words", self.label_words)):
            if values is not None and (len(values) != len(self.labels) or len(set(values)) != len(values)):
                raise InputError(f"{field} gives each of {len(self.labels)} labels its own, not {values}")
        if self.shorten is not None and self.shorten not in self.text_columns:
            raise InputError(f"shorten is one of the text_columns {self.text_columns}, not {self.shorten!r}")
        if self.train_split == self.eval_split:
            raise InputError(f"train_split and eval_split are both {self.train_split!r}")
        if self.prompt is not None:
            _check_prompt(self.prompt, self.text_columns)
        if self.grammar is not None:
            if self.grammar not in generated.GRAMMARS:
                raise InputError(f"grammar is one of {', '.join(generated.GRAMMARS)}, not {self.grammar!r}")
            if self.path is not None:
                raise InputError(f"grammar {self.grammar!r} and path {self.path!r} exclude each other")
        if self.rest_min_words < 0:
            raise InputError(f"rest_min_words is 0 or a positive integer, not {self.rest_min_words}")
        if self.rest_apart_words is not None and self.rest_apart_words < 1:
            raise InputError(f"rest_apart_words is a positive integer, not {self.rest_apart_words}")

    @property
    def shortened_column(self) -> str:
        """The text column that loses its front when an example is too long."""
        return self.shorten or self.text_columns[0]


def _check_prompt(prompt: str, text_columns: tuple[str, ...]) -> None:
    try:
        parts = list(string.Formatter().parse(prompt))
    except ValueError as error:
        raise InputError(f"prompt {prompt!r} is no str.format template: {error}") from error
    fields = [field for _, field, _, _ in parts if field is not None]
    if sorted(fields) != sorted(text_columns) or any(spec or conversion for _, _, spec, conversion in parts):
        wanted = " and ".join(f"{{{column}}}" for column in text_columns)
        raise InputError(f"prompt names {wanted} once each and no other field, not {prompt!r}")
    # A byte-level tokenizer writes a word's leading space into the word's own token: after a prompt that
    # already ends in one, the label word would be split as in no text. A line break at the end is right: it
    # is a token of its own, and the word after it carries no space.
    if prompt.endswith((" ", "\t")):
        raise InputError(f"prompt ends in a space, which belongs to the label word: {prompt!r}")


def load_spec(name_or_path: str | Path) -> TaskSpec:
    """Return a known task's spec, or the one that a TOML file describes.

    The file's top-level keys are the fields of `TaskSpec`. A `path` that is a folder is taken relative to the
    file; any other is a hub id.

    Raises:
        InputError: there is no such task or file, or the file does not describe a task; the message lists the
            known tasks, or names the field.
    """
    name = str(name_or_path)
    if name in TASKS:
        return TASKS[name]
    file = Path(name)
    if file.suffix != ".toml":
        close = difflib.get_close_matches(name, TASKS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise InputError(f"unknown task {name!r}{hint}; known are {', '.join(TASKS)}, and one's own is a .toml file")
    return _read_spec(file)


def _read_spec(file: Path) -> TaskSpec:
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the task file {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the task file {file} is no TOML: {error}") from error
    try:
        spec: TaskSpec = TypeAdapter(TaskSpec).validate_python(table)
    except ValidationError as error:
        raise InputError(f"the task file {file} describes no task: {explain(error)}") from error
    if spec.path is not None:
        folder = file.parent / Path(spec.path).expanduser()
        if folder.is_dir():
            return dataclasses.replace(spec, path=str(folder))
        if says_folder(spec.path):
            raise InputError(f"the task file {file} has the path {spec.path!r}, but there is no folder {folder}")
    return spec


def says_folder(path: str) -> bool:
    """Whether a path can be no hub id."""
    return path.startswith((".", "/", "~"))


def _bundled(folder: Path) -> dict[str, TaskSpec]:
    """Read each task file of a folder, in the order of their names."""
    specs = [_read_spec(file) for file in sorted(folder.glob("*.toml"))]
    return {spec.name: spec for spec in specs}


TASKS: dict[str, TaskSpec] = _bundled(Path(__file__).with_name("bundled"))
"""The known tasks by name, in the order of the alphabet: one is added by adding its file."""
