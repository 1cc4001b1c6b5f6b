"""Numbers that others published, shown beside ours and never mixed with them."""

import tomllib
from pathlib import Path

import pandas as pd
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from companion import PROJECT
from cpadapt.errors import STRICT, InputError, explain
from cpadapt.families import counting
from cpadapt.inputs.backbones.projections import load_projections

PUBLISHED = PROJECT / "book" / "published.toml"
"""The file of the paper's numbers."""


@validated(frozen=True, config=STRICT)
class Figure:
    """One accuracy."""

    task: str
    family: str
    size: int
    accuracy: float
    seeds: int
    sd: float | None = None
    """The standard deviation over seeds, if known."""


@validated(frozen=True, config=ConfigDict(extra="ignore"))
class Published:
    """The numbers of one source as in its file, and other facts about it."""

    source: str
    second_hand: bool
    backbone: str
    figure: tuple[Figure, ...]


def read_published(path: str | Path = PUBLISHED) -> pd.DataFrame:
    """Read a file of published numbers.

    Args:
        path: a TOML file with the fields of `Published`; each number is a table `[[figure]]`.

    Returns:
        One row for each number, with `source`, `second_hand`, `backbone`, `task`, `label`, `family`, `size`,
        `parameters` (counted here), `accuracy`, `sd` and `seeds`.

    Raises:
        InputError: a field is missing or has the wrong type, or the backbone or a family is unknown.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        content: Published = TypeAdapter(Published).validate_python(table)
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error)}") from error
    projections = load_projections(content.backbone)
    rows = [
        {"source": content.source, "second_hand": content.second_hand, "backbone": content.backbone}
        | {"task": figure.task, "label": figure.family, "family": figure.family, "size": figure.size}
        | {"parameters": counting.count(figure.family, projections, figure.size)}
        | {"accuracy": figure.accuracy, "sd": figure.sd, "seeds": figure.seeds}
        for figure in content.figure
    ]
    return pd.DataFrame(rows).astype({"sd": float})
