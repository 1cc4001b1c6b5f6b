"""The declaration of a task: the fields of its TOML file."""

import dataclasses
import re
import string
import tomllib
from pathlib import Path

from pydantic import TypeAdapter, ValidationError, field_validator
from pydantic.dataclasses import dataclass as validated

from cpadapt.errors import STRICT, UNPARSABLE, InputError, did_you_mean, explain, explained, no_truth_value
from cpadapt.inputs import generated
from cpadapt.inputs.folders import local_folder


@explained
@validated(frozen=True, config=STRICT)
class TaskSpec:
    """The declaration of a text classification task.

    Raises:
        InputError: a field is missing, unknown, of the wrong type, or does not fit the others.
    """

    name: str
    """Letters, digits, `.`, `_` and `-`; also the name of the task's folder in `data_dir`."""

    text_columns: tuple[str, ...]
    """One or two text columns, in the order in which an encoder sees them."""

    label_column: str
    """The column of the label; not a text column."""

    labels: tuple[str | int | bool, ...]
    """The raw values of the label column. The position here is the index of the class."""

    label_names: tuple[str, ...]
    """What each class means, for readers."""

    path: str | None = None
    """A hub id, or a local folder with one file for each split. None for a task that only `data_dir` has."""

    config_name: str | None = None
    """The name of a configuration of the data set on the hub."""

    train_split: str = "train"
    """The source split for train, dev and rest."""

    eval_split: str = "validation"
    """The source split for eval."""

    prompt: str | None = None
    """A `str.format` template over the text columns, each named once; for decoders."""

    label_words: tuple[str, ...] | None = None
    """For each class, the word that continues the prompt, with its leading space."""

    shorten: str | None = None
    """The text column that loses tokens at its front when an example is too long; by default the first."""

    grammar: str | None = None
    """The grammar that generates the examples, instead of a path."""

    title: str | None = None
    """The task's name in tables and charts; by default `name`."""

    source_group: str | None = None
    """Where the texts come from. Tasks with the same source are not independent."""

    rest_min_words: int = 0
    """The fewest words that the texts of a rest row have together."""

    rest_apart_words: int | None = None
    """If set, a rest row is refused when one of its texts contains, or is contained in, a text of at least this many
    words in the same column of train or dev. Whole words count."""

    _numbers = field_validator("rest_min_words", "rest_apart_words", mode="before")(no_truth_value)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            raise InputError(f"name must be letters, digits, '.', '_' and '-', not {self.name!r}")
        self._check_columns()
        self._check_labels()
        self._check_source()
        if self.prompt is not None:
            _check_prompt(self.prompt, self.text_columns)
        if self.rest_min_words < 0:
            raise InputError(f"rest_min_words must be 0 or a positive integer, not {self.rest_min_words}")
        if self.rest_apart_words is not None and self.rest_apart_words < 1:
            raise InputError(f"rest_apart_words must be a positive integer, not {self.rest_apart_words}")

    def _check_columns(self) -> None:
        if not 1 <= len(self.text_columns) <= 2 or len(set(self.text_columns)) != len(self.text_columns):
            raise InputError(f"text_columns must name one column or two different columns, not {self.text_columns}")
        if self.label_column in self.text_columns:
            raise InputError(f"label_column {self.label_column!r} must not be one of the text_columns")
        if self.shorten is not None and self.shorten not in self.text_columns:
            raise InputError(f"shorten must be one of the text_columns {self.text_columns}, not {self.shorten!r}")

    def _check_labels(self) -> None:
        # 1 and True are equal in Python, and so in the look-up of a label.
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise InputError(f"labels must list two or more different values, not {self.labels}")
        for field, values in (("label_names", self.label_names), ("label_words", self.label_words)):
            if values is not None and (len(values) != len(self.labels) or len(set(values)) != len(values)):
                raise InputError(
                    f"{field} must have {len(self.labels)} different values, one for each label, not {values}"
                )

    def _check_source(self) -> None:
        for field in ("train_split", "eval_split"):
            # It is the name of a file too, which must not be in another folder.
            if not re.fullmatch(r"\w[\w.-]*", getattr(self, field)):
                raise InputError(f"{field} must be letters, digits, '.', '_' and '-', not {getattr(self, field)!r}")
        if self.path is not None and not self.path.strip():
            raise InputError("path is empty: name a folder or a hub id, or leave it out")
        if self.train_split == self.eval_split:
            raise InputError(f"train_split and eval_split must differ; both are {self.train_split!r}")
        if self.grammar is None:
            return
        if self.grammar not in generated.GRAMMARS:
            hint = did_you_mean(self.grammar, generated.GRAMMARS)
            raise InputError(f"grammar must be one of {', '.join(generated.GRAMMARS)}, not {self.grammar!r}{hint}")
        if self.path is not None:
            raise InputError(f"grammar {self.grammar!r} and path {self.path!r} exclude each other")

    @property
    def shortened_column(self) -> str:
        """The text column that loses tokens at its front when an example is too long."""
        return self.shorten or self.text_columns[0]


def _check_prompt(prompt: str, text_columns: tuple[str, ...]) -> None:
    try:
        parts = list(string.Formatter().parse(prompt))
    except ValueError as error:
        raise InputError(f"prompt {prompt!r} is not a valid str.format template: {error}") from error
    fields = [field for _, field, _, _ in parts if field is not None]
    if sorted(fields) != sorted(text_columns) or any(spec or conversion for _, _, spec, conversion in parts):
        wanted = " and ".join(f"{{{column}}}" for column in text_columns)
        raise InputError(f"prompt must have each of the fields {wanted} once and no other field, not {prompt!r}")
    # A byte-level tokenizer puts the space before a word into the word's token. After a prompt that ends in a space,
    # the label word would be split as in no ordinary text. A line break at the end is fine: it is a separate token,
    # and the word after it has no space.
    if prompt.endswith((" ", "\t")):
        raise InputError(f"prompt must not end in a space, which belongs to the label word: {prompt!r}")


def load_spec(name_or_path: str | Path) -> TaskSpec:
    """Find the spec of a known task or read one from a TOML file.

    The top-level keys of the file are the fields of `TaskSpec`. If `path` is a folder, it is relative to the file;
    otherwise it is a hub id.

    Raises:
        InputError: there is no such task or file, or the file does not describe a task. The message lists the known
            tasks or names the field.
    """
    name = str(name_or_path)
    if name in TASKS:
        return TASKS[name]
    file = Path(name)
    if file.suffix != ".toml":
        hint = did_you_mean(name, TASKS)
        raise InputError(f"unknown task {name!r}{hint}; known are {', '.join(TASKS)}, or give a .toml file")
    return _read_spec(file)


def _read_spec(file: Path) -> TaskSpec:
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the task file {file}: {error.strerror}") from error
    except UNPARSABLE as error:
        raise InputError(f"the task file {file} is not valid TOML: {error}") from error
    try:
        spec: TaskSpec = TypeAdapter(TaskSpec).validate_python(table)
    except ValidationError as error:
        raise InputError(f"the task file {file} does not describe a task: {explain(error, TaskSpec)}") from error
    if spec.path is not None:
        where = spec.path if spec.path.startswith("~") else str(file.parent / spec.path)
        folder = local_folder(where)
        if folder is not None:
            return dataclasses.replace(spec, path=str(folder))
        if says_folder(spec.path):
            raise InputError(f"the task file {file} has the path {spec.path!r}, but there is no folder {where}")
    return spec


def says_folder(path: str) -> bool:
    """Whether a path must be a folder because it cannot be a hub id."""
    return path.startswith((".", "/", "~"))


def _bundled(folder: Path) -> dict[str, TaskSpec]:
    """Read all task files of a folder, in the order of their names."""
    specs = [_read_spec(file) for file in sorted(folder.glob("*.toml"))]
    return {spec.name: spec for spec in specs}


TASKS: dict[str, TaskSpec] = _bundled(Path(__file__).with_name("bundled"))
"""The known tasks by name, in alphabetical order. To add one, add its file to `bundled`."""
