"""The library's parts and who imports whom, read from the code."""

import ast
from pathlib import Path
from typing import Any

import pandas as pd

from companion import PROJECT

LAYERS = (
    ("errors", "registration"),
    ("inputs",),
    ("families",),
    ("records",),
    ("bank", "tuner", "analysis"),
    ("study",),
    ("measure",),
    ("cli",),
)
"""The parts of `cpadapt`, from the bottom; a part imports only from layers below its own."""

FILES = tuple(sorted((PROJECT / "cpadapt").rglob("*.py")))
"""The library's modules."""


def module_of(file: Path) -> str:
    """A file's name as one imports it."""
    return ".".join(file.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")


def part_of(module: str) -> str:
    """The part of `cpadapt` that a module is in; `__init__` for the package itself."""
    return module.split(".")[1] if "." in module else "__init__"


def imports(file: Path) -> set[str]:
    """The modules that a file imports, at its top or in a function, without what only type checkers see.

    Raises:
        ValueError: an import is relative.
    """
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for_checkers: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for_checkers |= {inner for child in node.body for inner in ast.walk(child)}
    modules: set[str] = set()
    for node in ast.walk(tree):
        if node in for_checkers:
            continue
        if isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{file}: imports are absolute here")
            modules |= {str(node.module), *(f"{node.module}.{name.name}" for name in node.names)}
    return modules


def part_table() -> pd.DataFrame:
    """One row a part: `part`, `layer` (0 at the bottom), `modules`, `lines`, and `about`, how its docstring begins."""
    rows = []
    for layer, parts in enumerate(LAYERS):
        for part in parts:
            files = [file for file in FILES if part_of(module_of(file)) == part]
            texts = [file.read_text(encoding="utf-8") for file in files]
            head = next(text for file, text in zip(files, texts, strict=True) if module_of(file) == f"cpadapt.{part}")
            rows.append(
                {
                    "part": part,
                    "layer": layer,
                    "modules": len(files),
                    "lines": sum(len(text.splitlines()) for text in texts),
                    "about": str(ast.get_docstring(ast.parse(head))).partition("\n\n")[0].replace("\n", " "),
                }
            )
    return pd.DataFrame(rows)


def import_table() -> pd.DataFrame:
    """One row a pair of parts of which one imports the other: `importer`, `imported`, `imports` (files that do)."""
    pairs: dict[tuple[str, str], int] = {}
    for file in FILES:
        importer = part_of(module_of(file))
        if importer == "__init__":
            continue
        imported = {part_of(module) for module in imports(file) if module.startswith("cpadapt.")}
        for other in imported - {importer}:
            pairs[importer, other] = pairs.get((importer, other), 0) + 1
    return pd.DataFrame([{"importer": a, "imported": b, "imports": n} for (a, b), n in sorted(pairs.items())])


def import_chart() -> Any:
    """The parts by layer, the command line on top, with a line from each importer down to what it imports."""
    import altair as alt

    parts = part_table()
    width = parts.groupby("layer")["part"].transform("count")
    place = parts.groupby("layer").cumcount()
    parts = parts.assign(x=(place + 0.5) - width / 2)
    spots = parts.set_index("part")[["x", "layer"]]
    arrows = import_table().join(spots, on="importer").join(spots, on="imported", rsuffix=" below")
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[-1.8, 1.8]))
    y = alt.Y("layer:Q", axis=None, scale=alt.Scale(domain=[-0.4, len(LAYERS) - 0.6]))
    tips = ["importer", "imported", "imports"]
    near = alt.selection_point(on="pointerover", fields=["part"], empty=False, clear="pointerout")
    lines = (
        alt.Chart(arrows)
        .mark_rule(strokeWidth=1.2)
        .encode(x=x, y=y, x2="x below", y2="layer below", tooltip=tips, opacity=alt.value(0.35))
    )
    boxes = (
        alt.Chart(parts)
        .mark_point(filled=True, size=5200, shape="square", opacity=1)
        .encode(x=x, y=y, color=alt.value("#0072B2"), tooltip=["part", "modules", "lines", "about"])
        .add_params(near)
    )
    names = alt.Chart(parts).mark_text(color="white", fontSize=11).encode(x=x, y=y, text="part")
    drawing = (lines + boxes + names).properties(width=560, height=620)
    return drawing.properties(
        title="Every line leads down",
        description="The parts of cpadapt in layers, from errors at the bottom to cli on top, with a line from each "
        "part to those that it imports; all of these lie below it.",
    )
